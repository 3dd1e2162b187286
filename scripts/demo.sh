#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Shows Qallow on a real tree: installs what is missing, builds, records a copy of the C headers of
# this machine while ordinary tools change it, and gives an earlier state back. Leaves nothing
# behind but the build folder. QALLOW_KEEP=1 keeps what it recorded, too.
set -euo pipefail
if (($# > 0)); then
    sed -n 's/^# *//; 3,5p' "$0"
    [[ $1 == -h || $1 == --help ]] && exit
    echo "demo.sh: takes no arguments, not '$1'" >&2
    exit 64
fi
# shellcheck source=scripts/recorder.sh
. "$(dirname "$0")/recorder.sh"
# shellcheck source=scripts/demonstration.sh
. "$(dirname "$0")/demonstration.sh"

build interface/qallow
find_qallow
make_work demo
PATH=$(dirname "$qallow"):$PATH
cd "$work"
source_tree=/usr/include
[ -d "$source_tree" ] || source_tree=$top
cp -r "$source_tree" project

say "A directory with $(find project -type f | wc -l) files ($(du -sh project | cut -f1))." \
    'Record it while others work in it.'
printf '%s$ %s%s\n' "$bold" \
    'qallow accelerator --watch project --log project.tlog --threads 4 &' "$plain"
start_recorder project project.tlog --threads 4
cat "$work/recorder.out"

say 'Before somebody else starts to work: name this state.'
run 'qallow accelerator --label before --log project.tlog'
cp -a project untouched # only to compare with in the end

say 'An afternoon of edits, with tools that know nothing of Qallow.'
run "grep -rl 'size_t' project | head -40 | xargs sed -i 's/size_t/usize/g'"
run 'qallow accelerator --sync --log project.tlog   # the epoch that holds all of this'
run 'mkdir project/lib && mv project/linux project/lib/linux-renamed'
run 'qallow accelerator --sync --log project.tlog'
run 'rm -r project/asm-generic && echo oops > project/stdio.h && chmod 600 project/stdlib.h'
run 'qallow accelerator --sync --log project.tlog'
run 'ln -s stdio.h project/link && printf "#define LATE 1\n" >> project/errno.h'
run 'qallow accelerator --stop --log project.tlog'
wait "$recorder_pid" || fail "the recorder ended with $?"
recorder_pid=

say 'Every settled change is an epoch.'
run 'qallow replay project.tlog --list'
run 'ls -s --block-size=K project.tlog'
last=$(qallow replay project.tlog --list --quiet | tail -1 | awk '{ print $1 }')
say 'What changed in stdio.h?'
run "qallow replay project.tlog --diff $((last - 2))..$last --stat | tail -3"

say 'Bring the named state back, next to the changed one.'
run 'qallow replay project.tlog --label before --output before'
run 'diff -r --no-dereference untouched before && echo "byte for byte the same"'
listing='%P %y %m %s %l %T@\n'
(cd untouched && find . ! -type d -printf "$listing" | sort) >one
(cd before && find . ! -type d -printf "$listing" | sort) >two
run 'cmp one two && echo "and so are names, modes, links and times"'

say 'Is the log itself all right?'
run 'qallow replay project.tlog --verify'
