#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Measures recording and restoring a directory tree beside what one would use otherwise, in the same
# run and in turns: cp -r, git status, cp -r with sync. Then the bytes of log that small edits cost,
# and the memory that recording takes. Medians; the machine should have nothing else to do.
#
#     scripts/bench-tree.sh [--write] [--runs N] [--large]
#
#   --write     puts the figures into docs/performance/trees.md
#   --runs N    runs of each (default: 5)
#   --large     also a tree of 4 GB under a memory limit of 256 MB (needs root, a memory cgroup, 16
#               GB of disk, and some minutes)
#   QALLOW=PATH, QALLOW_WORK=DIR: as for check-git-history.sh
set -euo pipefail
# shellcheck source=scripts/recorder.sh
. "$(dirname "$0")/recorder.sh"

write='' runs=5 large=''
while [ $# -gt 0 ]; do
    case $1 in
    --write) write=1 ;;
    --large) large=1 ;;
    --runs) runs=${2:?} && shift ;;
    *)
        echo "expected: scripts/bench-tree.sh [--write] [--runs N] [--large]" >&2
        exit 64
        ;;
    esac
    shift
done
find_qallow
make_work bench-tree
cd "$work"
report=$work/report

# make_tree DIR DIRECTORIES FILES BYTES: as many files in each directory; lines of hex digits.
make_tree() {
    python3 - "$@" <<'PYTHON'
import os, random, sys
top, directories, files, size = sys.argv[1], *map(int, sys.argv[2:])
numbers = random.Random(1)
for d in range(directories):
    path = os.path.join(top, f"directory-{d:03}")
    os.makedirs(path)
    for f in range(files):
        with open(os.path.join(path, f"file-{f:03}.txt"), "w") as file:
            text = numbers.randbytes(size // 2).hex()
            file.write("\n".join(text[i:i + 60] for i in range(0, size, 61))[:size])
PYTHON
}

# measure COMMAND...: "SECONDS PEAK-KB" of one run; its output is thrown away.
measure() {
    python3 - "$@" <<'PYTHON'
import resource, subprocess, sys, time
began = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
took = time.perf_counter() - began
if done.returncode:
    sys.exit(f"{sys.argv[1:]} ended with {done.returncode}: {done.stderr.decode()}")
print(f"{took:.4f}", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
PYTHON
}

median() { sort -n "$1" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
spread() { sort -n "$1" | awk 'NR == 1 { low = $1 } { high = $1 } END { print low " to " high }'; }

# against WHAT OURS PEER PEER-NAME LIMIT: one row; OURS and PEER are files of seconds.
against() {
    local ours peer
    ours=$(median "$2") peer=$(median "$3")
    awk -v what="$1" -v ours="$ours" -v peer="$peer" -v name="$4" -v limit="$5" \
        -v os="$(spread "$2")" -v ps="$(spread "$3")" 'BEGIN {
        ratio = ours / peer
        printf "| %s | %.3f s [%s] | %s: %.3f s [%s] | %.2f | %.1f | %s |\n", what, ours, os, name,
            peer, ps, ratio, limit, ratio <= limit ? "yes" : "NO" }' | tee -a "$report"
}

# bytes WHAT BYTES LIMIT UNIT
below() {
    awk -v what="$1" -v n="$2" -v limit="$3" -v unit="$4" 'BEGIN {
        printf "| %s | %d %s | | | %d %s | %s |\n", what, n, unit, limit, unit,
            n < limit ? "yes" : "NO" }' | tee -a "$report"
}

log_bytes_of() {
    "$qallow" replay edits.tlog --list --epoch "$1" --json |
        python3 -c 'import json, sys; print(json.loads(sys.stdin.readline())["log_bytes"])'
}

echo '| what | Qallow | beside it | ratio | limit | reached |' | tee "$report"
echo '| --- | --- | --- | --- | --- | --- |' | tee -a "$report"

# --- 10,000 files, 200 MB -------------------------------------------------------------------------
make_tree tree 100 100 20480
git init -q tree
git -C tree add -A
git -C tree -c user.name=x -c user.email=x commit -qm x
mkdir plain && cp -r tree/directory-* plain
for ((i = 0; i < runs; i++)); do
    rm -rf copy restored first.tlog* && sync
    measure cp -r plain copy >>cp.times
    rm -rf copy && sync
    measure "$qallow" accelerator --watch plain --log first.tlog --once >>record.times
    sync
    measure git -C tree status --porcelain >>status.times
    measure "$qallow" accelerator --watch plain --log first.tlog --once >>again.times
    measure bash -c 'cp -r plain copy && sync -f copy' >>copy-sync.times
    rm -rf copy && sync
    measure "$qallow" replay first.tlog --epoch 1 --output restored >>restore.times
done
against 'first recording of 10,000 files, 200 MB' record.times cp.times 'cp -r' 1.5
against 'recording it again, nothing changed' again.times status.times 'git status' 1.2
against 'restoring it' restore.times copy-sync.times 'cp -r; sync -f' 1.2
rss=$(awk '{ if ($2 > m) m = $2 } END { print m * 1024 }' record.times again.times)
below 'memory while recording it' "$rss" $((64 * 1000000 + 250 * 10000)) 'bytes'

# --- edits ----------------------------------------------------------------------------------------
mkdir edited
python3 -c 'import random; r = random.Random(2)
print("\n".join(r.randbytes(30).hex() for _ in range(1 << 20))[:1 << 20], end="")' >edited/file
start_recorder edited edits.tlog
# edit WHAT LIMIT PYTHON: `data` is the file as a bytearray; saved by $saving.
edit() {
    python3 - "$saving" <<PYTHON
import os, random, sys
r = random.Random("""$1, $saving""") # other bytes each time: what is in the log already is a copy
data = bytearray(open("edited/file", "rb").read())
$3
if sys.argv[1] == "in place":
    with open("edited/file", "r+b") as file:
        file.write(data)
        file.truncate()
else:
    with open("edited/file.new", "wb") as file:
        file.write(data)
    os.rename("edited/file.new", "edited/file")
PYTHON
    below "$1, saved $saving" "$(log_bytes_of "$(sync_epoch edits.tlog)")" "$2" 'bytes of log'
}
for saving in 'in place' 'by renaming over'; do
    edit '100 bytes changed in 1 MB' 300 'data[500000:500100] = r.randbytes(100)'
    edit '100 bytes put into the middle of 1 MB' 300 'data[524288:524288] = r.randbytes(100)'
    edit '20 scattered insertions of 50 bytes' 3000 'for i in range(20):
    at = 50000 * i + 777
    data[at:at] = r.randbytes(50)'
done
stop_recorder

# --- a large tree under a limit -------------------------------------------------------------------
# limited COMMAND...: runs it under a limit of 256 MB.
limited() {
    local group=/sys/fs/cgroup/memory/qallow-bench.$$ limit=memory.limit_in_bytes
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
        group=/sys/fs/cgroup/qallow-bench.$$ limit=memory.max
    fi
    mkdir -p "$group" 2>/dev/null && echo $((256 << 20)) >"$group/$limit" || return 69
    local status=0
    bash -c 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"' limited "$group" "$@" || status=$?
    rmdir "$group"
    return $status
}
if [ -n "$large" ]; then
    make_tree large 40 100 1048576
    began=$(now)
    if limited "$qallow" accelerator --watch large --log large.tlog --once &&
        limited "$qallow" replay large.tlog --epoch 1 --output large-restored &&
        diff -r large large-restored; then
        echo "| 4 GB recorded and restored under a limit of 256 MB | $(elapsed "$began") s |" \
            "| | | yes |" | tee -a "$report"
    else
        echo "| 4 GB recorded and restored under a limit of 256 MB | failed | | | | NO |" |
            tee -a "$report"
    fi
fi

# --- into the document ----------------------------------------------------------------------------
if [ -n "$write" ]; then
    page=$top/docs/performance/trees.md
    {
        sed '/^<!-- figures -->$/q' "$page"
        echo
        cat "$report"
        echo
        echo "Measured $(date -u +%Y-%m-%d) at $(git -C "$top" rev-parse --short HEAD) on" \
            "$(nproc) CPUs of $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1)," \
            "Linux $(uname -r), $(findmnt -no FSTYPE -T "$work"); medians of $runs runs," \
            "in brackets the range; load average at the end $(cut -d' ' -f1 /proc/loadavg)."
    } >"$work/page"
    cp "$work/page" "$page"
fi
grep -q '| NO |' "$report" && exit 1 || exit 0
