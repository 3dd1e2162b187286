#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# How fast the machine is, beside Lua 5.4 and LuaJIT's interpreter, as far as they are installed,
# and plain C. Usage: scripts/bench-vm.sh [BUILD-DIR]. Prints CPU seconds, each the best of five,
# and the table of vector instructions.
set -euo pipefail

cd "$(dirname "$0")/.."
build=${1:-build}
bench=$build/tests/vm/bench_vm
[[ -x $bench ]] || {
    echo "no $bench: meson setup $build --buildtype=release && ninja -C $build" >&2
    exit 1
}

# best COMMAND...: the least number that it prints in five runs, or - if it is not there.
best() {
    command -v "$1" >/dev/null || {
        echo -
        return
    }
    for _ in 1 2 3 4 5; do "$@" 2>/dev/null; done | sort -n | head -n 1
}

printf '%-8s %10s %10s %14s\n' program qallow lua5.4 'luajit -joff'
for program in fib:fib sieve:sieve crc32:crc; do
    printf '%-8s %10s %10s %14s\n' "${program%:*}" \
        "$(best "$bench" scalar "tests/vm/bench/${program%:*}.qvm")" \
        "$(best lua5.4 tests/vm/bench/peers.lua "${program#*:}")" \
        "$(best luajit -joff tests/vm/bench/peers.lua "${program#*:}")"
done
echo
"$bench" vector
