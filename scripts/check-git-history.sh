#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Plays the last COUNT commits of a git repository into a directory that a recorder watches,
# restores every one of their epochs from the log, and lets git say whether it is that commit's
# tree: type, mode, content, symlink target and name of everything. Ends with 1 at the first
# difference.
#
#     scripts/check-git-history.sh REPO [COUNT]        COUNT is 100 if not given
#
# The repository is only read. Commits are those of the first-parent history of HEAD, oldest first.
#   QALLOW=PATH           the command to check (default: build/interface/qallow)
#   QALLOW_RECORD="..."   more options for the recorder, for example "--compress 3"
#   QALLOW_WORK=DIR       where to work (default: $TMPDIR or /tmp)
#   QALLOW_KEEP=1         leave the work directory there
set -euo pipefail
umask 022

usage() {
    echo "expected: scripts/check-git-history.sh REPO [COUNT]" >&2
    echo "example:  scripts/check-git-history.sh . 50" >&2
    exit 64
}

if [ $# -lt 1 ] || [ $# -gt 2 ]; then
    usage
fi
repo=$(realpath -e -- "$1") || exit 66
count=${2:-100}
[[ $count =~ ^[1-9][0-9]*$ ]] || usage
# shellcheck source=scripts/recorder.sh
. "$(dirname "$0")/recorder.sh"
find_qallow
make_work check-git

# A repository of our own that borrows the other's objects: its settings do not matter, and our
# index files are not in its way. Attributes must not convert anything.
from() { git -c safe.directory='*' -C "$repo" "$@"; }
borrowed=$(from rev-parse --path-format=absolute --git-path objects) || exit 66
git init -q --bare --object-format="$(from rev-parse --show-object-format)" "$work/git"
echo "$borrowed" >"$work/git/objects/info/alternates"
shallow=$(from rev-parse --path-format=absolute --git-path shallow)
[ ! -e "$shallow" ] || cp "$shallow" "$work/git/shallow"
echo '* -text !eol -ident -filter -working-tree-encoding' >"$work/git/info/attributes"
tree=$work/tree restored=$work/restored log=$work/history.tlog
mkdir "$tree"

# in_git WORKTREE INDEX COMMAND...
in_git() {
    GIT_DIR=$work/git GIT_WORK_TREE=$1 GIT_INDEX_FILE=$work/$2 git -c core.autocrlf=false \
        -c core.bare=false -c core.fileMode=true -c core.symlinks=true -c core.ignoreCase=false \
        -c core.protectNTFS=false -c core.protectHFS=false -c core.excludesFile=/dev/null \
        -c advice.addEmbeddedRepo=false -c core.untrackedCache=false -C "$1" "${@:3}"
}

# The id of the tree of what is in a directory.
tree_of_directory() {
    rm -f "$work/check.index"
    in_git "$1" check.index add -A -f . 2>/dev/null
    in_git "$1" check.index write-tree
}

# The id of a commit's tree; submodules, which are no files, left out.
tree_of_commit() {
    rm -f "$work/commit.index"
    in_git "$tree" commit.index read-tree "$1"
    in_git "$tree" commit.index ls-files -s -z | sed -zn 's/^160000 [^\t]*\t//p' |
        in_git "$tree" commit.index update-index -z --force-remove --stdin
    in_git "$tree" commit.index write-tree
}

from rev-list --first-parent -n "$count" HEAD | tac >"$work/commits"
commits=$(wc -l <"$work/commits")
[ "$commits" -gt 0 ] || fail "no commits in $repo"

# shellcheck disable=SC2086 # options are meant to be split
start_recorder "$tree" "$log" --no-ignore-files ${QALLOW_RECORD:-}
began=$(now)
while read -r commit; do
    in_git "$tree" play.index read-tree --reset -u "$commit"
    echo "$(sync_epoch "$log") $commit"
done <"$work/commits" >"$work/epochs"
stop_recorder
recorded=$(elapsed "$began")
last=$(tail -1 "$work/epochs")
echo "recorded $commits commits as epochs up to ${last% *} in $recorded s"

"$qallow" replay "$log" --verify >"$work/verify.out" 2>&1 || {
    cat "$work/verify.out" >&2
    fail "replay --verify does not like the log"
}

began=$(now)
copies=0
while read -r epoch commit; do
    "$qallow" replay "$log" --epoch "$epoch" --output "$restored" >/dev/null 2>"$work/replay.err" ||
        { cat "$work/replay.err" >&2; fail "epoch $epoch ($commit) cannot be restored"; }
    wanted=$(tree_of_commit "$commit")
    found=$(tree_of_directory "$restored")
    if [ "$wanted" != "$found" ]; then
        in_git "$tree" check.index diff-tree -r "$wanted" "$found" | head -1 >&2
        fail "epoch $epoch differs from commit $commit; the line above is the first difference"
    fi
    odd=$(find "$restored" -type f ! -perm 644 ! -perm 755 -print -quit)
    [ -z "$odd" ] || fail "epoch $epoch ($commit): $odd has mode $(stat -c %a "$odd")"
    copies=$((copies + $(du -s --block-size=1 "$restored" | cut -f1)))
    rm -rf "$restored"
done <"$work/epochs"
echo "restored and compared $commits epochs in $(elapsed "$began") s: all equal"

# The same commits as git packs them (window and depth of gc).
in_git "$tree" play.index rev-list --objects --no-walk --stdin <"$work/commits" | cut -d' ' -f1 |
    in_git "$tree" play.index pack-objects -q "$work/pack" >/dev/null
pack=$(cat "$work"/pack-*.pack "$work"/pack-*.idx | wc -c)
files=$(find "$tree" ! -type d | wc -l)
size=$(bytes_of "$log")
awk -v log_size="$size" -v pack="$pack" -v copies="$copies" -v files="$files" \
    -v last="$(du -s --block-size=1 "$tree" | cut -f1)" 'BEGIN {
    format = "%-28s %9.2f MB   log / this: %.3f\n"
    printf "%-28s %9.2f MB\n", "log", log_size / 1e6
    printf format, "git pack of the same commits", pack / 1e6, log_size / pack
    printf format, "du, last tree (" files " files)", last / 1e6, log_size / last
    printf format, "du, a copy of every commit", copies / 1e6, log_size / copies }'
