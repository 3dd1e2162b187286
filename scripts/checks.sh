# SPDX-License-Identifier: Apache-2.0
# Sourced by the scripts that check the commands from outside: counts checks, prints one line for
# each, and keeps the keepers that were started until the end. Nothing here waits for a fixed time:
# a keeper says when it is ready, its barrier (--sync) says when it has seen everything, and the
# rest is waited for as a condition.
#
# A check is a command (nearly always a function) that runs under `set -e` in a shell of its own; it
# has passed if it ends with 0, and what it printed is shown only if it did not.
# shellcheck shell=bash
# shellcheck source=scripts/recorder.sh
. "$(dirname "${BASH_SOURCE[0]}")/recorder.sh"

passed=0 failed=0 skipped=0 finished=0 keepers=()

check() {
    local name=$1 status
    shift
    set +e
    (
        set -e
        "$@"
    ) >"$work/check.out" 2>&1
    status=$?
    set -e
    if [ "$status" = 0 ]; then
        passed=$((passed + 1))
        echo "ok $name"
    else
        failed=$((failed + 1))
        echo "FAILED $name (status $status)"
        head -n 40 "$work/check.out" | sed 's/^/    /'
    fi
}

# skip NAME WHY: says that a check is not made.
skip() {
    skipped=$((skipped + 1))
    echo "skipped $1: $2"
}

# The last line, and the exit status.
finish() {
    finished=1
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ] && [ "$passed" -gt 0 ]
}

# Stops what still runs, whatever happened, before the work directory goes away.
stop_keepers() {
    local pid
    if [ "$finished" = 0 ]; then
        failed=$((failed + 1))
        echo 'FAILED the script ended early'
        finish || true
    fi
    for pid in "${keepers[@]}"; do
        kill -CONT "$pid" 2>/dev/null || true
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    keepers=()
    clean_up
}

# make_checks NAME: a work directory, with the caches in it.
make_checks() {
    make_work "$1"
    trap stop_keepers EXIT
    export QALLOW_CACHE_DIR=$work/caches
    mkdir -m 700 "$QALLOW_CACHE_DIR"
}

# start_keeper NAME COMMAND...: runs a keeper whose output goes to $work/NAME.out and NAME.err, and
# returns when it is ready, with every directory it has. $keeper is its process id.
start_keeper() {
    local name=$1 word directories=0
    shift
    for word; do
        [ "$word" != --watch ] || directories=$((directories + 1))
    done
    keeper_out=$work/$name.out keeper_err=$work/$name.err
    : >"$keeper_out"
    # below nohup it would not hear SIGHUP
    env --default-signal=HUP "$@" >"$keeper_out" 2>"$keeper_err" &
    keeper=$!
    keepers+=("$keeper")
    [ "$(grep -m "$directories" -c -E '^ready|"event":"ready"' \
        <(tail -n +1 -f --pid="$keeper" "$keeper_out" 2>/dev/null))" = "$directories" ] || {
        cat "$keeper_err" >&2
        fail "the keeper did not start: $*"
    }
}

# end_keeper SIGNAL [PID]: sends the signal and waits; $ended is the exit status.
end_keeper() {
    local pid=${2:-$keeper} status=0
    kill "-$1" "$pid"
    wait "$pid" 2>/dev/null || status=$?
    local rest=() other
    for other in "${keepers[@]}"; do
        [ "$other" = "$pid" ] || rest+=("$other")
    done
    keepers=("${rest[@]}")
    # shellcheck disable=SC2034 # for who calls
    ended=$status
}

# until_true COMMAND...: tries it until it succeeds; gives up after two minutes.
until_true() {
    local end=$((SECONDS + 120))
    until "$@"; do
        ((SECONDS < end)) || {
            echo "gave up waiting for: $*" >&2
            return 1
        }
        sleep 0.02
    done
}

# has_ended PID: it has, also if nobody has waited for it yet.
has_ended() { ! grep -q -v '^State:.*Z' <(grep ^State: "/proc/$1/status" 2>/dev/null); }

# equal WHAT FOUND EXPECTED
equal() {
    [ "$2" = "$3" ] || {
        printf '%s: found %q, expected %q\n' "$1" "$2" "$3"
        return 1
    }
}

# status_of STATUS COMMAND...: passes if the command ends with that status.
status_of() {
    local expected=$1 status=0
    shift
    "$@" || status=$?
    [ "$status" = "$expected" ] || {
        printf 'status %s, expected %s, of: %s\n' "$status" "$expected" "$*"
        return 1
    }
}

# member NAME <JSON: a member of an object, or of the last of several lines with an object each.
member() {
    python3 -c 'import json, sys
print(json.dumps(json.loads(sys.stdin.read().splitlines()[-1])[sys.argv[1]]).strip("\""))' "$1"
}
