# SPDX-License-Identifier: Apache-2.0
# Sourced before every case.
# shellcheck shell=bash

# status COMMAND...: runs it and says its exit status on stdout; does not end the case.
status() {
    local rc=0
    "$@" || rc=$?
    echo "exit $rc"
}

# need COMMAND...: skips the case if one of them is not installed.
need() {
    local command
    for command in "$@"; do
        command -v "$command" >/dev/null || {
            echo "SKIP $command is not installed"
            exit 0
        }
    done
}

# until_true COMMAND...: waits, without a fixed time, until it succeeds; gives up after two minutes.
# What it complains of meanwhile (a file that is not there yet) is nobody's business.
until_true() {
    local end=$((SECONDS + 120))
    until "$@" 2>/dev/null; do
        ((SECONDS < end)) || {
            echo "gave up waiting for: $*" >&2
            return 1
        }
        sleep 0.02
    done
}

# A file that changed within two clock ticks before it is recorded is read again the next time.
is_old() {
    local file changed now
    now=$(date +%s%3N)
    for file; do
        changed=$(stat -c %.3Z "$file")
        ((now - ${changed/./} > 50)) || return 1
    done
}
