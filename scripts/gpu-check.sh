#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Everything that needs a GPU, in one command on a machine that has one and may have nothing else:
# build, compare every kernel with the reference, and deltas that the device makes and takes with
# those of the CPU, look for bad accesses and races, measure, and write docs/performance/gpu.md.
#
#   scripts/gpu-check.sh [--build-dir DIR] [--bytes N] [--output FILE] [--no-sanitizer]
#
# Nothing is downloaded. Where Meson or a library is missing, bring a build folder made elsewhere,
# on the same distribution, with
#   meson setup DIR --buildtype=release -Dcuda=enabled && ninja -C DIR
# and name it: what is in it is run as it is. bench_device, test_device and checkkernels are enough.
#
# Exit status: 0 all is right; 69 there is no GPU or a tool is missing (one line says which); 1 a
# check failed; 64 wrong usage.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/local/cuda/bin

build=build-gpu brought=no bytes='' output=docs/performance/gpu.md sanitizer=yes
usage() {
    echo "usage: scripts/gpu-check.sh [--build-dir DIR] [--bytes N] [--output FILE]" \
        "[--no-sanitizer]" >&2
    exit 64
}
while (($# > 0)); do
    case $1 in
    --build-dir) build=${2:-} brought=yes && shift ;;
    --bytes) bytes=${2:-} && shift ;;
    --output) output=${2:-} && shift ;;
    --no-sanitizer) sanitizer=no ;;
    *) usage ;;
    esac
    shift || usage
done
[[ -n $build && -n $output && $bytes =~ ^[0-9]*$ ]] || usage

unavailable() {
    echo "gpu-check: $1" >&2
    exit 69
}

# --- is there a GPU ---
if [[ ! -e /dev/nvidiactl && ! -e /dev/nvidia0 && ! -e /dev/dxg ]]; then
    unavailable "no NVIDIA GPU on this machine (no /dev/nvidiactl): run it where there is one"
fi

# --- build, or use what was brought ---
bring="bring a build folder made elsewhere (--build-dir DIR), see the head of $0"
check=$build/tests/kernels/checkkernels
bench=$build/tests/device/bench_device
deltas=$build/tests/device/test_device
if [[ $brought == no || ! -x $check || ! -x $bench || ! -x $deltas ]]; then
    for tool in meson ninja nvcc cc; do
        command -v "$tool" >/dev/null ||
            unavailable "$tool is missing: $bring"
    done
    [[ -d $build ]] || meson setup "$build" --buildtype=release -Dcuda=enabled >/dev/null ||
        unavailable "the build cannot be configured ($build/meson-logs/meson-log.txt): $bring"
    ninja -C "$build" tests/kernels/checkkernels tests/device/bench_device \
        tests/device/test_device >"$build/gpu-check.log" 2>&1 || {
        tail -n 30 "$build/gpu-check.log" >&2
        exit 1
    }
fi

# --- every kernel against the reference ---
log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$check" --seed 1 | tee "$log"
if grep -q '^SKIP cuda' "$log"; then
    unavailable "$(sed -n 's/^SKIP cuda: //p' "$log")"
fi

"$deltas" --cuda

# --- bad accesses and races in the same, some hundred times slower ---
sanitized="not run (--no-sanitizer)"
if [[ $sanitizer == yes ]]; then
    if command -v compute-sanitizer >/dev/null; then
        for tool in memcheck racecheck initcheck; do
            for part in "$check --seed 1" "$deltas --cuda"; do
                # shellcheck disable=SC2086 # a command line
                compute-sanitizer --tool "$tool" --error-exitcode 1 $part >"$log" 2>&1 || {
                    tail -n 40 "$log" >&2
                    echo "gpu-check: compute-sanitizer --tool $tool found something" >&2
                    exit 1
                }
            done
            echo "compute-sanitizer $tool: nothing found"
        done
        sanitized="memcheck, racecheck and initcheck found nothing in either"
    else
        sanitized="not run: it is not on this machine (cuda-sanitizer of the toolkit)"
        echo "gpu-check: compute-sanitizer: $sanitized" >&2
    fi
fi

# --- measure ---
table=$("$bench" ${bytes:+--bytes "$bytes"})
mkdir -p "$(dirname "$output")"
{
    echo "# The GPU"
    echo
    echo "Written by \`scripts/gpu-check.sh\`. GB/s count bytes read and written; the copy is"
    echo "cudaMemcpyAsync from device to device in the same rounds; medians of 11."
    echo
    echo "$table"
    echo
    echo "checkkernels: every kernel gives the bytes of the reference. test_device: deltas of the"
    echo "device and of the CPU are the same bytes and lead to the same states."
    echo "compute-sanitizer: $sanitized."
} >"$output"
echo "$table"
echo "gpu-check: all is right; written to $output"
