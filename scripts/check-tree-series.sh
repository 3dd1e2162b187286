#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Plays directories one after the other (the releases of a package, say) into a directory that a
# recorder watches, with rsync or by deleting and copying, restores the epoch of each and compares
# it with the directory it came from: type, permission bits, content, symlink target, and the mtime
# of everything that is not a directory. Ends with 1 at the first difference.
#
#     scripts/check-tree-series.sh DIR...
#
# QALLOW, QALLOW_RECORD, QALLOW_WORK, QALLOW_KEEP: as for check-git-history.sh.
#   QALLOW_PLAY=rsync     change what differs (needs rsync)
#   QALLOW_PLAY=copy      delete everything, then copy (the default without rsync)
set -euo pipefail

[ $# -ge 1 ] || {
    echo "expected: scripts/check-tree-series.sh DIR..." >&2
    echo "example:  scripts/check-tree-series.sh bash-5.1 bash-5.2 bash-5.2.15" >&2
    exit 64
}
series=()
for dir; do
    series+=("$(realpath -e -- "$dir")") || exit 66
done
# shellcheck source=scripts/recorder.sh
. "$(dirname "$0")/recorder.sh"
find_qallow
make_work check-series
how=${QALLOW_PLAY:-$(command -v rsync >/dev/null && echo rsync || echo copy)}
tree=$work/tree restored=$work/restored log=$work/history.tlog
mkdir "$tree"

play() {
    case $how in
    rsync) rsync -a --delete "$1/" "$tree/" ;;
    copy)
        find "$tree" -mindepth 1 -delete
        cp -a "$1/." "$tree/"
        ;;
    *) fail "QALLOW_PLAY is rsync or copy, not $how" ;;
    esac
}

# shellcheck disable=SC2086 # options are meant to be split
start_recorder "$tree" "$log" --no-ignore-files --include-git ${QALLOW_RECORD:-}
began=$(now)
copies=0
for dir in "${series[@]}"; do
    play "$dir"
    sync_epoch "$log" >>"$work/epochs"
    copies=$((copies + $(du -s --block-size=1 "$tree" | cut -f1)))
    echo "$(basename "$dir"): epoch $(tail -1 "$work/epochs"), log $(human "$(bytes_of "$log")")"
done
stop_recorder
echo "recorded ${#series[@]} trees by $how in $(elapsed "$began") s"

"$qallow" replay "$log" --verify >"$work/verify.out" 2>&1 || {
    cat "$work/verify.out" >&2
    fail "replay --verify does not like the log"
}

began=$(now)
mapfile -t epochs <"$work/epochs"
for i in "${!series[@]}"; do
    "$qallow" replay "$log" --epoch "${epochs[i]}" --output "$restored" \
        >/dev/null 2>"$work/replay.err" ||
        { cat "$work/replay.err" >&2; fail "epoch ${epochs[i]} cannot be restored"; }
    python3 "$top/tests/reader/trees.py" "${series[i]}" "$restored" ||
        fail "epoch ${epochs[i]} differs from ${series[i]}"
    rm -rf "$restored"
done
echo "restored and compared ${#series[@]} epochs in $(elapsed "$began") s: all equal"

# The same trees as commits in git, packed as gc does.
git init -q --bare "$work/git"
for dir in "${series[@]}"; do
    GIT_DIR=$work/git GIT_WORK_TREE=$dir git -c core.bare=false -C "$dir" add -A -f . 2>/dev/null
    id=$(GIT_DIR=$work/git git write-tree)
    commit=$(GIT_DIR=$work/git git -c user.name=x -c user.email=x commit-tree -m x \
        ${commit:+-p "$commit"} "$id")
done
GIT_DIR=$work/git git update-ref HEAD "$commit"
GIT_DIR=$work/git git gc -q --prune=now
pack=$(cat "$work"/git/objects/pack/* | wc -c)
files=$(find "$tree" ! -type d | wc -l)
size=$(bytes_of "$log")
awk -v log_size="$size" -v pack="$pack" -v copies="$copies" -v files="$files" 'BEGIN {
    format = "%-28s %9.2f MB   log / this: %.3f\n"
    printf "%-28s %9.2f MB\n", "log", log_size / 1e6
    printf format, "git gc of the same trees", pack / 1e6, log_size / pack
    printf format, "du, a copy of every tree", copies / 1e6, log_size / copies
    printf "%-28s %9d\n", "files in the last tree", files }'
