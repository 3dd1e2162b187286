#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing to build and test Qallow on Debian or Ubuntu; does nothing if nothing is.
#   scripts/setup.sh            what the build and the tests need
#   scripts/setup.sh --ci       and what .ci/run needs besides
set -eu

packages='gcc libc6-dev pkg-config meson ninja-build python3 git
libzstd-dev libxxhash-dev libcjson-dev libssl-dev libcmocka-dev libsimde-dev
python3-xxhash python3-zstandard xxhash man-db'
case "${1:-}" in
'') ;;
--ci) packages="$packages clang zsh fish" ;;
*)
    echo "setup.sh: expected --ci or nothing, not '$1'" >&2
    echo "example: scripts/setup.sh --ci" >&2
    exit 64
    ;;
esac

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "setup.sh: not Debian or Ubuntu; these packages, or yours like them, are needed:" >&2
    echo "$packages" >&2
    exit 69
fi

missing=
for package in $packages; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $package"
done
if [ -z "$missing" ]; then
    exit 0
fi

as_root=
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "setup.sh: root is needed to install:$missing" >&2
        echo "example: su -c 'apt-get install$missing'" >&2
        exit 77
    fi
    as_root=sudo
fi
echo "setup.sh: installing$missing"
export DEBIAN_FRONTEND=noninteractive
# The lists may be old or not there; only then a second try with new ones.
install="$as_root apt-get install -y -q --no-install-recommends"
# shellcheck disable=SC2086 # words are meant to be split
$install $missing >/dev/null 2>&1 || {
    $as_root apt-get update -q >/dev/null
    $install $missing >/dev/null
}
