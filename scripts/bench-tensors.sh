#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Measures chains of tensors beside what one would use otherwise, in the same run: reading the files
# once, writing a file with fdatasync, xdelta3, zstd --patch-from. One thread each. Processor time
# stands beside the wall's, which is only worth something on a machine that has nothing else to do.
#
#     scripts/bench-tensors.sh [--size MB] [--epochs N] [--type 2|4]
#
#   --size MB     of the file (default: 1024); needs about 8 times that on the disk
#   --epochs N    of the chain (default: 100)
#   --type 2|4    BF16 or F32 (default: 4)
#   QALLOW=PATH, TOOLS=DIR (with patterns), QALLOW_WORK=DIR
set -euo pipefail
# shellcheck source=scripts/recorder.sh
. "$(dirname "$0")/recorder.sh"

size=1024 epochs=100 width=4 turns=9
while [ $# -gt 0 ]; do
    case $1 in
    --size) size=${2:?} && shift ;;
    --epochs) epochs=${2:?} && shift ;;
    --type) width=${2:?} && shift ;;
    *)
        echo "expected: scripts/bench-tensors.sh [--size MB] [--epochs N] [--type 2|4]" >&2
        exit 64
        ;;
    esac
    shift
done
find_qallow
tools=${TOOLS:-$top/build/tests/tensors}
patterns=$(realpath "$tools/patterns")
make_work bench-tensors
cd "$work"

# measure COMMAND...: sets wall and cpu (seconds); its output is thrown away.
measure() {
    local line
    line=$(python3 - "$@" <<'PYTHON'
import resource, subprocess, sys, time
began = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
took = time.perf_counter() - began
used = resource.getrusage(resource.RUSAGE_CHILDREN)
if done.returncode:
    sys.exit(f"{sys.argv[1:]} ended with {done.returncode}")
print(f"{took:.3f} {used.ru_utime + used.ru_stime:.3f}")
PYTHON
    )
    wall=${line% *} cpu=${line#* }
}
row() { printf '%-44s %9s %9s %14s\n' "$@"; }
median() { printf '%s\n' "$@" | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'; }

echo "one tensor of $size MiB, elements of $width bytes, 1 % changed; one thread"
row what 'wall s' 'cpu s' bytes
"$patterns" make model.safetensors "$size" "$width"
measure "$qallow" checkpoint save -t 1 chain.tlog model.safetensors
row 'save, first epoch' "$wall" "$cpu" "$(bytes_of chain.tlog)"
cp model.safetensors old.safetensors
"$patterns" change model.safetensors 1 1 new
"$patterns" values old.safetensors model.safetensors 2>entropy | zstd -q -3 -c >values.zst
ideal=$(($(bytes_of values.zst) + $(cat entropy)))
row 'zstd of the values + entropy of positions' - - "$ideal"
"$patterns" read old.safetensors model.safetensors
before=$(bytes_of chain.tlog)
cp chain.tlog-index first-index
walls=() cpus=() saves=() save_cpus=()
for ((turn = 0; turn < turns; turn++)); do # from the same first epoch each time
    truncate -s "$before" chain.tlog
    cp first-index chain.tlog-index
    sync chain.tlog model.safetensors
    measure "$patterns" read old.safetensors model.safetensors
    read_wall=$wall read_cpu=$cpu
    measure "$qallow" checkpoint save -t 1 chain.tlog model.safetensors
    saves+=("$wall") save_cpus+=("$cpu")
    walls+=("$(ratio "$wall" "$read_wall")") cpus+=("$(ratio "$cpu" "$read_cpu")")
done
save_wall=$(median "${saves[@]}") save_cpu=$(median "${save_cpus[@]}")
made=$(($(bytes_of chain.tlog) - before))
row 'reading both files once' "$read_wall" "$read_cpu" -
row "save, 1 % changed, median of $turns" "$save_wall" "$save_cpu" "$made"
printf '    %s times reading (wall), %s (cpu); %s times the ideal bytes\n' \
    "$(median "${walls[@]}")" "$(median "${cpus[@]}")" "$(ratio "$made" "$ideal")"
ln -s old.safetensors old
ln -s model.safetensors new
for peer in 'zstd -q -f -1 --single-thread --long=31 --patch-from=old new -o delta' \
    'xdelta3 -e -f -1 -B 1073741824 -s old new delta'; do
    command -v "${peer%% *}" >/dev/null || continue
    # shellcheck disable=SC2086 # a command line
    measure $peer
    row "${peer%% *}" "$wall" "$cpu" "$(bytes_of delta)"
    printf '    %s times as long as save (wall), %s (cpu), %s times the bytes\n' \
        "$(ratio "$wall" "$save_wall")" "$(ratio "$cpu" "$save_cpu")" \
        "$(ratio "$(bytes_of delta)" "$made")"
done
rm -f delta old.safetensors old new

for ((epoch = 3; epoch <= epochs; epoch++)); do
    "$patterns" change model.safetensors 1 "$epoch" new
    "$qallow" checkpoint save -t 1 --quiet chain.tlog model.safetensors >/dev/null
done
chain=$(bytes_of chain.tlog) copy=$(bytes_of model.safetensors)
row "$epochs epochs" - - "$chain"
awk -v a="$chain" -v b="$copy" -v n="$epochs" \
    'BEGIN { printf "    %.2f %% of %d copies\n", 100 * a / b / n, n }'
measure dd if=model.safetensors of=copy bs=512K conv=fdatasync
write_wall=$wall write_cpu=$cpu
row 'writing the file with fdatasync' "$wall" "$cpu" "$copy"
for epoch in 1 $((epochs / 4 + 1)) $((epochs / 2)) $((epochs * 3 / 4)) "$epochs"; do
    measure "$qallow" replay -t 1 chain.tlog --epoch "$epoch" --output copy --force
    row "restoring epoch $epoch" "$wall" "$cpu" -
    printf '    %s times writing (wall), %s (cpu)\n' "$(ratio "$wall" "$write_wall")" \
        "$(ratio "$cpu" "$write_cpu")"
done
cmp copy model.safetensors
