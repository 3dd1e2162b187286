#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Sets everything up, builds, and runs the quick suite. Ends with "N passed, N failed".
#   scripts/test.sh [--build-dir DIR] [--suite SUITE]... [MESON SETUP OPTION]...
set -eu

cd "$(dirname "$0")/.."
build=build
suites=
options=
while [ $# -gt 0 ]; do
    case "$1" in
    -h | --help)
        sed -n 's/^# *//; 3,4p' scripts/test.sh
        exit
        ;;
    --build-dir) build=${2:?--build-dir needs a folder}; shift ;;
    --suite) suites="$suites --suite ${2:?--suite needs a name}"; shift ;;
    *) options="$options $1" ;;
    esac
    shift
done

scripts/setup.sh
# shellcheck disable=SC2086 # words are meant to be split
if [ ! -f "$build/build.ninja" ]; then
    meson setup "$build" $options
elif [ -n "$options" ]; then
    meson setup --reconfigure "$build" $options
fi
ninja -C "$build"

# Every test that runs leaves one line of JSON in the log.
rm -f "$build/meson-logs/testlog.json"
status=0
# shellcheck disable=SC2086 # words are meant to be split
meson test -C "$build" --no-rebuild --print-errorlogs ${suites:---suite quick} || status=$?
python3 scripts/count_tests.py "$build/meson-logs/testlog.json" || status=1
exit "$status"
