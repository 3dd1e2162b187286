#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs every command once, as its users type it, on a small real tree: the headers of this project.
# For CI. Says whether each one works at all and gives something back that is right; the fine points
# are tests/cli. Prints one line for each check and in the end "N passed, N failed, N skipped"; exit
# status 1 if one failed.
#   QALLOW=PATH        the command (default: build/interface/qallow)
#   QALLOW_WORK=DIR    where to work (default: $TMPDIR or /tmp)
#   QALLOW_KEEP=1      leave the work directory there
#   QALLOW_SLOW=WHY    nothing is measured, since this build is slow by design: a sanitizer's
set -euo pipefail
umask 022
# shellcheck source=scripts/checks.sh
. "$(dirname "$0")/checks.sh"
find_qallow
qallow=$(realpath "$qallow")
make_checks smoke
export HOME=$work/home
mkdir -p "$HOME" "$work/bin"
ln -s "$qallow" "$work/bin/qallow"
[ ! -x "${qallow%/*}/qallow-accelerator" ] ||
    ln -s "${qallow%/*}/qallow-accelerator" "$work/bin/qallow-accelerator"
PATH=$work/bin:$PATH
cp -r "$top/include" "$top/runtime" "$work"
mkdir "$work/project"
mv "$work/include" "$work/runtime" "$work/project"
ln -s include/qallow "$work/project/link"
cd "$work"

same_trees() { /usr/bin/python3 "$top/tests/reader/trees.py" "$1" "$2"; }
is_json() { python3 -c 'import json, sys
text, decoder = sys.stdin.read().strip(), json.JSONDecoder()
assert text
while text:
    value, end = decoder.raw_decode(text)
    assert value["schema"].startswith("qallow.")
    text = text[end:].lstrip()'; }
# says PATTERN COMMAND...: the command's output has a line like this.
says() {
    local pattern=$1
    shift
    "$@" >out
    cat out
    grep -q -e "$pattern" out
}

# --- qallow by itself ---

launcher() {
    local command shell
    check 'qallow version' says '^qallow [0-9]' qallow version
    check 'qallow --version' says '^qallow [0-9]' qallow --version
    check 'qallow version --json' json_of qallow version --json
    check 'qallow help' says '^ *accelerator ' qallow help
    for command in accelerator replay checkpoint stats bench doctor help version completion; do
        check "qallow help $command" says '^Examples:' qallow help "$command"
        check "qallow $command --help" says '^Usage: qallow ' qallow "$command" --help
    done
    check 'qallow help --man accelerator' manual_page
    for shell in bash zsh fish; do
        check "qallow completion $shell" says accelerator qallow completion "$shell"
    done
    check 'qallow completion bash, sourced' completes
    check 'qallow with a wrong command ends with 64' status_of 64 qallow acelerator
    check 'qallow doctor' doctor
    check 'qallow doctor --json' doctor --json
}
json_of() { "$@" | is_json; }
manual_page() {
    qallow help --man accelerator >page
    grep -q '^\.TH ' page
}
completes() {
    bash -euc 'source <(qallow completion bash)
COMP_WORDS=(qallow acc) COMP_CWORD=1 COMP_LINE="qallow acc" COMP_POINT=10
_qallow qallow acc qallow
[[ "${COMPREPLY[*]}" == *accelerator* ]]'
}
# What it finds depends on the machine; that it says so, and how it ends, does not.
doctor() {
    local status=0
    qallow doctor "$@" project >out || status=$?
    cat out
    case $status in 0 | 69 | 71 | 74 | 77) ;; *) return 1 ;; esac
    if [ $# = 0 ]; then
        grep -q '^PASS' out
    else
        is_json <out
    fi
}

# --- recording, and having it back ---

recording() {
    check 'accelerator --once' says '^epoch 1 ' \
        qallow accelerator --watch project --log project.tlog --once
    start_keeper recorder qallow accelerator --watch project --log project.tlog --threads 4 \
        --settle 1ms --telemetry metrics.csv
    check 'accelerator --label' says '^1$' \
        qallow accelerator --label before --log project.tlog
    cp -a project before
    echo '/* changed */' >>project/runtime/error.c
    rm project/include/qallow/error.h
    mv project/runtime project/run
    check 'accelerator --sync --log' says '^[2-9]$' qallow accelerator --sync --log project.tlog
    check 'accelerator --status --log' says '^epoch: [2-9]' \
        qallow accelerator --status --log project.tlog
    check 'accelerator --status --log --json' \
        json_of qallow accelerator --status --log project.tlog --json
    check 'accelerator --stop --log' stops qallow accelerator --stop --log project.tlog
    check '--telemetry' says '^time,metric,label,value,unit' cat metrics.csv
}
stops() {
    "$@"
    until_true has_ended "$keeper"
}

replaying() {
    check 'replay LOG' says '^ *1 .*before$' qallow replay project.tlog
    check 'replay --list --json' json_of qallow replay project.tlog --list --json
    check 'replay --label --output' restored replay project.tlog --label before --output restored
    check 'replay --page' says 'QALLOW_E_' \
        qallow replay project.tlog --epoch 1 --page include/qallow/error.h
    check 'replay --diff' status_of 1 qallow replay project.tlog --diff 1..
    check 'replay --diff --stat' status_of 1 qallow replay project.tlog --diff 1.. --stat
    check 'replay --diff --patch' says_patch
    check 'replay --log-of' says 'error.c' qallow replay project.tlog --log-of run/error.c
    check 'replay --blame' says . qallow replay project.tlog --blame run/error.c:0+40
    check 'replay --plan' says . qallow replay project.tlog --epoch 1 --plan
    check 'replay --verify' says 'nothing is damaged' qallow replay project.tlog --verify
    check 'replay --in-place --dry-run' says . \
        qallow replay project.tlog --epoch 1 --in-place project --dry-run
    check 'replay --in-place' in_place
    check 'replay --follow' followed
    check 'replay --salvage' salvaged
}
restored() {
    qallow "$@"
    same_trees before restored
}
says_patch() {
    status_of 1 qallow replay project.tlog --diff 1.. --patch >out
    grep -q '^+/\* changed \*/' out
}
in_place() {
    qallow replay project.tlog --epoch 1 --in-place project
    same_trees before project
}
# It prints what is there and then waits: the first line is enough.
followed() {
    local line
    read -r line < <(exec qallow replay project.tlog --follow --epoch 1 --json)
    is_json <<<"$line"
}
salvaged() {
    head -c "$(($(stat -c %s project.tlog) - 100))" project.tlog >torn.tlog
    qallow replay torn.tlog --salvage --output rest
    [ -d rest ]
}

checkpoints() {
    check 'checkpoint save' says . qallow checkpoint save saved.tlog project --label saved
    check 'checkpoint export' qallow checkpoint export project.tlog --epoch 1 -o one.qckpt
    check 'checkpoint info' says '^uuid' qallow checkpoint info one.qckpt
    check 'checkpoint verify' qallow checkpoint verify one.qckpt
    check 'checkpoint restore' restored_file
    check 'checkpoint label' qallow checkpoint label project.tlog first --epoch 1
    check 'checkpoint prune --dry-run' says . \
        qallow checkpoint prune project.tlog --keep-epochs 1 --dry-run
    check 'checkpoint prune' pruned
    check 'stats LOG' says epochs qallow stats project.tlog
    check 'stats DIR' says epochs qallow stats project
    check 'stats --json' json_of qallow stats project.tlog --json
}
restored_file() {
    qallow checkpoint restore one.qckpt -o from-file
    same_trees before from-file
}
pruned() {
    qallow checkpoint prune project.tlog --keep-epochs 1
    qallow replay project.tlog --list --quiet >out
    [ "$(grep -c '^ *[0-9]' out)" = 1 ]
    qallow replay project.tlog --verify
}

# --- the cache, by either executable ---

# caching COMMAND...: the same with `qallow accelerator` and with `qallow-accelerator`.
caching() {
    local before
    rm -rf cached
    cp -r before cached
    check "$* --watch DIR --no-log --once" says . "$@" --watch cached --no-log --once
    start_keeper keeper "$@" --watch cached --no-log --settle 1ms --prometheus cached.prom
    check "$*: ready" grep -q '^ready at epoch [0-9]*: caching cached' "$keeper_out"
    check "$* --get, as xxh128sum" got "$@"
    before=$("$@" --watch cached --sync)
    echo 1 >>cached/runtime/error.c
    rm cached/link
    check "$* --sync" says '^[0-9]*$' "$@" --watch cached --sync
    check "$* --since" since "$before" "$@"
    check "$* --since --json" json_of "$@" --watch cached --since "$before" --json
    check "$* --wait" says '^[0-9]*$' "$@" --watch cached --wait "$before" --timeout 10s
    check "$* --wait in vain ends with 75" \
        status_of 75 "$@" --watch cached --wait 1000000 --timeout 1ms
    check "$* --export -" json_of "$@" --watch cached --export -
    check "$* --export FILE" exported "$@"
    check "$* --status" says '^epoch: ' "$@" --watch cached --status
    check "$* --status --json" json_of "$@" --watch cached --status --json
    check "$* --prometheus" until_true grep -q '^qallow_' cached.prom
    check "$* --stop" stops "$@" --watch cached --stop
    check "$* --status of what was left" says gone "$@" --watch cached --status
}
got() {
    cd cached/include
    "$@" --get qallow/error.h qallow/store.h >../../get
    cd ..
    "$@" --get include/qallow/error.h include/qallow/store.h
    ! command -v xxh128sum || (cd include && xxh128sum qallow/error.h qallow/store.h) |
        diff - ../get
}
since() {
    "${@:2}" --watch cached --since "$1" | tee out
    grep -qx 'changed runtime/error.c' out
    grep -qx 'removed link' out
    tail -n 1 out | grep -qx 'epoch [0-9]*'
}
exported() {
    "$@" --watch cached --export cached.json
    /usr/bin/python3 "$top/tests/accelerator/tree_scan.py" cached cached.json
}

# Ratios to references of the same run, with much room: what has become several times slower shows,
# whatever the machine. (qallow bench --cpu-time --tier smoke --save-baseline
# tests/bench/baseline.json)
measuring() {
    check 'bench --tier smoke' \
        qallow bench --tier smoke --save-baseline bench.json --html bench.html
    if [ -n "${QALLOW_SLOW:-}" ]; then
        skip 'bench --baseline' "$QALLOW_SLOW"
        return
    fi
    # By processor time, and nothing that waits for a disk or for another processor: others may be
    # using them.
    check 'bench --baseline, no case is much slower' \
        qallow bench --cpu-time --tier smoke \
        --baseline "$top/tests/bench/baseline.json" --fail-over 400% \
        --filter kernel --filter delta --filter page/alloc-4k --filter digest \
        --filter replay/dense --filter replay/sparse --filter replay/seek \
        --filter commit/batched-64m --filter recovery/scan --filter checkpoint/load --filter cache
}

launcher
recording
replaying
checkpoints
measuring
caching qallow accelerator
if command -v qallow-accelerator >/dev/null; then
    caching qallow-accelerator
    check 'qallow-accelerator --help' says '^Usage: ' qallow-accelerator --help
else
    skip qallow-accelerator 'it was not built'
fi
finish
