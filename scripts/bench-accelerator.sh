#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Measures the accelerator beside watchman, inotify, xxhsum and the least programs that could do the
# same, in one run and in turns: look-ups, the time from close(2) to the hash, bursts, the first
# scan, a warm restart, idleness, memory. Installs the peers if they are missing and builds a
# release. The machine should have nothing else to do.
#
#     scripts/bench-accelerator.sh [--runs N] [--quick] [--large] [--realtime] [--json] [--write]
#
#   --runs N    runs of each (default: 5)
#   --quick     small trees and few runs: shows that everything works, not how fast it is
#   --large     also 2,000,000 files (needs some minutes, 2 GB of memory, 3,000,000 free inodes)
#   --realtime  all that is measured, peers included, goes before the other programs of the machine
#               (chrt -r 1; needs root), for when they cannot be stopped
#   --json      one JSON object instead of the table
#   --write     puts the table into docs/performance/accelerator.md
#   QALLOW_WORK=DIR: where the trees are made (default: $TMPDIR or /tmp)
#   BUILD=DIR: the build folder (default: build-release)
#
# Ends with 1 if something was slower than it must be. Leaves nothing but the build folder.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
arguments=() runs='' quick='' before=()

usage() {
    echo "bench-accelerator.sh: $1" >&2
    echo "example: scripts/bench-accelerator.sh --runs 5 --large" >&2
    exit 64
}
while [ $# -gt 0 ]; do
    case $1 in
    --runs)
        [[ ${2:-} =~ ^[1-9][0-9]{0,2}$ ]] || usage "--runs needs a number from 1 to 999"
        runs=$2
        shift
        ;;
    --quick) quick=1 arguments+=(--quick) ;;
    --large | --json) arguments+=("$1") ;;
    --realtime) before=(chrt -r 1) ;;
    --write) arguments+=(--write "$top/docs/performance/accelerator.md") ;;
    *) usage "there is no option $1" ;;
    esac
    shift
done

# --- what is needed -------------------------------------------------------------------------------
as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo)
peers='watchman inotify-tools xxhash libxxhash-dev'
# shellcheck disable=SC2086 # words are meant to be split
dpkg-query -W $peers >/dev/null 2>&1 || {
    echo "installing $peers" >&2
    export DEBIAN_FRONTEND=noninteractive
    "${as_root[@]}" apt-get install -y -q --no-install-recommends $peers >/dev/null 2>&1 || {
        "${as_root[@]}" apt-get update -q >/dev/null
        "${as_root[@]}" apt-get install -y -q --no-install-recommends $peers >/dev/null
    }
}

build=${BUILD:-$top/build-release}
[ -f "$build/build.ninja" ] || {
    "$top/scripts/setup.sh"
    meson setup "$build" "$top" --buildtype=release >/dev/null
}
targets=(interface/qallow)
for name in burst latency lookup tree; do
    targets+=("tests/accelerator/bench_$name")
done
ninja -C "$build" "${targets[@]}" >/dev/null || ninja -C "$build" "${targets[@]}" >&2

# --- where ----------------------------------------------------------------------------------------
# The caches are where they would be anyway, in memory, but in a directory of their own.
work=$(mktemp -d "${QALLOW_WORK:-${TMPDIR:-/tmp}}/qallow-bench.XXXXXX")
cache=$(mktemp -d /dev/shm/qallow-bench.XXXXXX) || {
    cache=$work/cache
    mkdir "$cache"
}
python_pid=
# shellcheck disable=SC2317 # reached through the trap
clean_up() {
    trap - INT TERM
    if [ -n "$python_pid" ]; then
        kill -TERM "$python_pid" 2>/dev/null || true
        wait "$python_pid" 2>/dev/null || true
    fi
    rm -rf "$work" "$cache"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
file_system() { findmnt -no FSTYPE -T "$1" | tail -n 1; }
echo "trees in $work ($(file_system "$work")), caches in $cache ($(file_system "$cache"))" >&2

# In the background, so that a signal comes through here at once.
runs=${runs:-$([ -n "$quick" ] && echo 2 || echo 5)}
"${before[@]}" /usr/bin/python3 "$top/tests/accelerator/bench.py" --build "$build" --work "$work" \
    --cache "$cache" --runs "$runs" "${arguments[@]}" &
python_pid=$!
status=0
wait "$python_pid" || status=$?
python_pid=
exit $status
