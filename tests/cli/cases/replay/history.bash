# SPDX-License-Identifier: Apache-2.0
# Sourced by cases: a small history whose log is the same on every machine.
# shellcheck shell=bash

umask 022

# masked: a filter that replaces what depends on how well the log is encoded. What a format change
# alters is tested where formats are; a better diff must not break a hundred lines here.
masked() {
    local numbers='log|keyframe|replay|file|allocated|punched|relocated|epoch|largest_epoch|index'
    sed -E \
        -e 's/^( +[0-9]+  [0-9-]+T[0-9:.]+Z +[0-9]+) +[0-9]+  /\1 N  /' \
        -e "s/\"(($numbers)_bytes|largest_epoch|pieces|delta)\":[0-9]+/\"\1\":N/g" \
        -e 's/: .* freed, .* written again/: N freed, N written again/' \
        -e 's/^(good|bad )  +[0-9]+\+[0-9]+/\1  N+N/' \
        -e 's/^bad: [0-9]+ bytes/bad: N bytes/' \
        -e 's/(offset|durable up to) [0-9]+/\1 N/g' \
        -e 's/^(  replay [0-9]+ epochs,) .*/\1 N/' \
        -e 's/^(file|size|an epoch) {2,}.*/\1 N/' \
        -e 's/[0-9]+ delta/N delta/'
}

# The real one is `command qallow`.
qallow() {
    local rc=0 files=$TMPDIR/masked.$BASHPID
    command qallow "$@" >"$files.out" 2>"$files.err" || rc=$?
    masked <"$files.out"
    masked <"$files.err" >&2
    rm "$files.out" "$files.err"
    return "$rc"
}

# record [OPTION...]: one epoch of tree/ into work.tlog.
record() {
    qallow checkpoint save work.tlog tree --quiet --compress off --clock logical \
        --uuid 000102030405060708090a0b0c0d0e0f "$@" >/dev/null
}

# stamp N PATH...: gives every path (and the directory it is in) the N-th minute of 2026.
stamp() {
    local minute=$1 path
    shift
    for path in "$@"; do
        touch -h -d "2026-01-01T00:0$minute:00Z" "$path"
        touch -h -d "2026-01-01T00:0$minute:00Z" "$(dirname "$path")"
    done
}

# Three epochs: 1 a tree, 2 (labelled) an edit and a rename, 3 a removal, a mode and a new file.
history_of_three() {
    mkdir -p tree/sub tree/empty
    printf 'one\ntwo\nthree\n' >tree/a.txt
    printf 'bee\n' >tree/sub/b
    ln -s a.txt tree/link
    stamp 1 tree/sub/b tree/sub tree/empty tree/a.txt tree/link
    record
    printf 'one\ntwo and a half\nthree\n' >tree/a.txt
    mv tree/sub/b tree/sub/c
    stamp 2 tree/a.txt tree/sub/c tree/sub tree/a.txt
    record --label second
    rm tree/link
    chmod 600 tree/sub/c
    printf '\000\001\002' >tree/raw
    stamp 3 tree/raw
    record
}

# tree_of DIR: its names, kinds, modes, times and contents, in order.
tree_of() {
    (cd "$1" && find . -printf '%P %y %m %TY-%Tm-%TdT%TH:%TM:%TS %l\n' | LC_ALL=C sort &&
        find . -type f -print0 | LC_ALL=C sort -z | xargs -0r sha256sum)
}
