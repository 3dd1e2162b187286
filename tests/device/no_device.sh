#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What needs a device says in one line that there is none, with status 69: bench_device, with CUDA
# built in and all devices hidden, and scripts/gpu-check.sh where there is no device.
set -u
log=$(mktemp)
trap 'rm -f "$log"' EXIT

expect_unavailable() {
    CUDA_VISIBLE_DEVICES='' "$@" >"$log" 2>&1
    status=$?
    cat "$log"
    if [ "$status" -ne 69 ] || [ "$(wc -l <"$log")" -ne 1 ]; then
        echo "$1: status $status, expected 69 and one line"
        exit 1
    fi
}

expect_unavailable "$1"
[ -e /dev/nvidiactl ] || [ -e /dev/nvidia0 ] || [ -e /dev/dxg ] || expect_unavailable "$2"
