# SPDX-License-Identifier: Apache-2.0
# Sourced by the scripts that record something: finds the command, makes a work directory that goes
# away at the end, starts and stops a recorder. Nothing here sleeps: the recorder says when it is
# ready, and its barrier (--sync) when it has seen everything.
# shellcheck shell=bash

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
recorder_pid=

fail() {
    echo "${0##*/}: $*" >&2
    exit 1
}

# The command: $QALLOW, or the one that scripts/test.sh or scripts/demo.sh built.
find_qallow() {
    qallow=${QALLOW:-$top/build/interface/qallow}
    [ -x "$qallow" ] || fail "no command at $qallow: build it with scripts/test.sh, or set QALLOW"
}

# make_work NAME: $work is a fresh directory, below $QALLOW_WORK if that is set.
make_work() {
    work=$(mktemp -d "${QALLOW_WORK:-${TMPDIR:-/tmp}}/qallow-$1.XXXXXX")
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

clean_up() {
    [ -z "$recorder_pid" ] || kill "$recorder_pid" 2>/dev/null || true
    [ -z "$recorder_pid" ] || wait "$recorder_pid" 2>/dev/null || true
    if [ -n "${QALLOW_KEEP:-}" ]; then
        echo "kept: $work" >&2
    else
        rm -rf "$work"
    fi
}

# start_recorder DIR LOG [OPTION]...: returns when changes are being watched for.
start_recorder() {
    local dir=$1 log=$2
    shift 2
    : >"$work/recorder.out"
    "$qallow" accelerator --watch "$dir" --log "$log" "$@" \
        >"$work/recorder.out" 2>"$work/recorder.err" &
    recorder_pid=$!
    grep -q '^ready' <(tail -n +1 -f --pid="$recorder_pid" "$work/recorder.out" 2>/dev/null) || {
        cat "$work/recorder.err" >&2
        recorder_pid=
        fail "the recorder did not start"
    }
}

# sync_epoch LOG: prints the epoch that holds everything written before.
sync_epoch() {
    "$qallow" accelerator --sync --log "$1" || {
        cat "$work/recorder.err" >&2
        fail "the recorder did not answer"
    }
}

# stop_recorder: returns when it has ended; an error if it did not end well.
stop_recorder() {
    local pid=$recorder_pid
    recorder_pid=
    kill -TERM "$pid" # what runs in the background of a script ignores SIGINT
    wait "$pid" || {
        cat "$work/recorder.err" >&2
        fail "the recorder ended with $?"
    }
}

bytes_of() { stat -c %s "$1"; }

# human BYTES
human() { numfmt --to=iec --format=%.1f "$1"; }

# Seconds since some moment, with nanoseconds; elapsed START prints the seconds since then.
now() { date +%s.%N; }
elapsed() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.2f", b - a }'; }
