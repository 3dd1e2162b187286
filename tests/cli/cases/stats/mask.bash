# SPDX-License-Identifier: Apache-2.0
# Sourced by cases.
# shellcheck shell=bash

golden=$CASES/../../../golden

# without_disk: what a file takes on the disk is for the file system to say.
without_disk() {
    sed -E -e '/^ +[0-9]/s/^(.{62}).{11}  /\1          N  /' -e 's/("allocated_bytes"):[0-9]+/\1:N/g' \
        -e 's/^(size .*), .* on disk/\1, N on disk/'
}
