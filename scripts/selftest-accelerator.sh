#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Does to a directory what programs do to directories, and asserts from outside, with the command
# line and tools that know nothing of Qallow, that the accelerator's cache says what is there.
#
#     scripts/selftest-accelerator.sh [--entries N]
#
# --entries N also tries a tree of N files (a million take some minutes and 5 GB of disk).
# Prints one line for each check and in the end "N passed, N failed, N skipped"; exit status 1 if
# one failed. What is skipped says why.
#   QALLOW=PATH        the command (default: build/interface/qallow)
#   QALLOW_WORK=DIR    where to work (default: $TMPDIR or /tmp)
#   QALLOW_KEEP=1      leave the work directory there
set -euo pipefail
umask 022

entries=0
case "$#:${1:-}:${2:-}" in
0::) ;;
2:--entries:[1-9]*) entries=$2 ;;
*)
    echo "expected: scripts/selftest-accelerator.sh [--entries N]" >&2
    echo "example:  scripts/selftest-accelerator.sh --entries 1000000" >&2
    exit 64
    ;;
esac
# shellcheck source=scripts/checks.sh
. "$(dirname "$0")/checks.sh"
find_qallow
make_checks selftest-accelerator
export LC_ALL=C.UTF-8
scan=$top/tests/accelerator/tree_scan.py

# --- one cached tree ---

# begin NAME [OPTION]...: an empty tree and its keeper. begin_with does not make the tree.
begin() {
    tree=$work/$1/tree
    mkdir -p "$tree"
    begin_with "$@"
}
begin_with() {
    local name=$1
    shift
    tree=$work/$name/tree
    start_keeper "$name" "$qallow" accelerator --watch "$tree" "${log[@]}" "${settle[@]}" "$@"
}
log=(--no-log)
# Either every change at once, or nothing until a barrier asks, so that what is said is exact.
at_once=(--settle 1ms) when_asked=(--settle 1h --max-settle 1h) settle=("${at_once[@]}")

# end: the keeper stops as it should, and the tree goes away.
end() {
    ended=unknown
    end_keeper TERM
    [ "$ended" = 0 ] || {
        cat "$keeper_err" >&2
        fail "the keeper ended with $ended"
    }
    rm -rf "${tree%/*}"
}

ask() { "$qallow" accelerator --watch "$tree" "$@"; }
barrier() { ask --sync; }

# same [HASH]: the cache says of every file what find, stat and a hash of its content say.
same() {
    barrier >/dev/null
    ask --export "$work/export.json"
    /usr/bin/python3 "$scan" --hash "${1:-xxh3}" "$tree" "$work/export.json"
}

# The same through --get, which prints what the tool for checksums prints.
same_sums() {
    local tool=$1
    cd "$tree"
    find . -type f -printf '%P\0' | sort -z >"$work/paths"
    xargs -0 -r "$tool" -- <"$work/paths" >"$work/sums"
    xargs -0 -r "$qallow" accelerator --watch "$tree" --get -- <"$work/paths" >"$work/gets"
    cmp "$work/sums" "$work/gets"
}

# since_is EPOCH LINE...: --since says these lines, in any order.
since_is() {
    local epoch=$1
    shift
    ask --since "$epoch" >"$work/since"
    tail -n 1 "$work/since" | grep -q '^epoch [0-9]*$'
    sed '$d' "$work/since" | LC_ALL=C sort >"$work/found"
    printf '%s\n' "$@" | sed '/^$/d' | LC_ALL=C sort | diff - "$work/found"
}

# does CODE LINE...: after the code has run in the tree these paths have changed, and no others, and
# the cache equals the tree.
does() {
    local code=$1 before
    shift
    before=$(barrier)
    (cd "$tree" && eval "$code")
    barrier >/dev/null
    since_is "$before" "$@"
    same
}
event() { check "$1" does "${@:2}"; }

# shellcheck source=scripts/selftest/tree.sh
. "$top/scripts/selftest/tree.sh"
# shellcheck source=scripts/selftest/keeper.sh
. "$top/scripts/selftest/keeper.sh"

command -v xxh128sum >/dev/null || fail 'xxh128sum is needed (package xxhash)'
events
saving
bursts
git_trees
names
questions
ignoring
running
metrics
restarting
limits
several
logged
mapped
polling
standalone
check 'the cache is open to nobody else' private_cache
[ "$entries" = 0 ] || many
finish
