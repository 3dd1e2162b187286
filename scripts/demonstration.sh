# SPDX-License-Identifier: Apache-2.0
# Sourced, behind recorder.sh, by the scripts that show something: building, and command lines that
# are shown and run.
# shellcheck shell=bash

bold='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
    bold=$'\e[1m' plain=$'\e[0m'
fi
say() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }
# Shows a command line and runs it.
run() {
    printf '%s$ %s%s\n' "$bold" "$*" "$plain"
    bash -c "$*"
}

# Installs what is missing and builds these targets; says something only if that fails.
build() {
    local log=${TMPDIR:-/tmp}/qallow-demo-build.$$
    echo 'building ...'
    "$top/scripts/setup.sh" >/dev/null
    [ -f "$top/build/build.ninja" ] || meson setup "$top/build" "$top" >/dev/null
    ninja -C "$top/build" "$@" >"$log" 2>&1 || {
        tail -20 "$log" >&2
        fail "the build failed; all of it is in $log"
    }
    rm -f "$log"
}
