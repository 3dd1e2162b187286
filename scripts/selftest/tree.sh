# SPDX-License-Identifier: Apache-2.0
# Sourced by selftest-accelerator.sh: what programs do to a directory.
# shellcheck shell=bash
# shellcheck source=scripts/selftest-accelerator.sh

# --- every kind of event ---

event_files() {
    event 'a file is created' 'touch a' 'changed a'
    event 'a file is written' 'echo 1 >a' 'changed a'
    event 'a file is appended to' 'echo 2 >>a' 'changed a'
    event 'a file is written in its middle' \
        'printf X | dd of=a bs=1 seek=1 conv=notrunc status=none' 'changed a'
    event 'a file is truncated' ': >a' 'changed a'
    event 'a file is made longer with a hole' 'truncate -s 1M a' 'changed a'
    event 'a file gets other permissions' 'chmod 640 a' 'changed a'
    event 'a file gets another time' 'touch -d @1234567890.123456789 a' 'changed a'
    event 'a file is written and put back in time' \
        'printf Y | dd of=a bs=1 conv=notrunc status=none; touch -d @1234567890.123456789 a' \
        'changed a'
    event 'a file is renamed' 'mv a b' 'removed a' 'changed b'
    event 'a file is renamed over another' 'echo new >c; mv c b' 'changed b'
    event 'two files change places' 'echo 1 >x; echo 22 >y; mv x t; mv y x; mv t y' \
        'changed x' 'changed y'
    event 'a file is deleted' 'rm b' 'removed b'
    event 'a file comes and goes' 'echo 1 >z; rm z'
    event 'a file is copied with its time' 'cp -p x copy' 'changed copy'
    event 'a large file is written' 'head -c 20000000 /dev/urandom >large' 'changed large'
    event 'a directory changes nothing' 'mkdir d; chmod 700 d; touch d; rmdir d'
    event 'a fifo is not a file' 'mkfifo fifo; rm y; mkfifo y' 'removed y'
}

event_directories() {
    event 'a directory is made and filled' 'mkdir -p d/e/f; echo 1 >d/1; echo 2 >d/e/f/2' \
        'changed d/1' 'changed d/e/f/2'
    event 'a directory is renamed' 'mv d g' 'removed d/1' 'removed d/e/f/2' 'changed g/1' \
        'changed g/e/f/2'
    event 'a file in a renamed directory is written' 'echo 3 >>g/e/f/2' 'changed g/e/f/2'
    event 'directories change places' 'mkdir h; echo h >h/1; mv g t; mv h g; mv t h' \
        'changed g/1' 'changed h/1' 'removed g/e/f/2' 'changed h/e/f/2'
    event 'two directories are exchanged in one step' \
        'mkdir -p p/s q/s; echo 1 >p/s/1; echo 2 >q/s/2; sync_here; exchange p q; echo 3 >>p/s/2' \
        'removed p/s/1' 'changed p/s/2' 'changed q/s/1' 'removed q/s/2'
    event 'a directory moves into another' 'mv g h/e/g' 'removed g/1' 'changed h/e/g/1'
    event 'a directory is deleted with all that is in it' 'rm -r h' 'removed h/1' \
        'removed h/e/f/2' 'removed h/e/g/1'
    event 'a file is replaced by a directory' 'echo 1 >f; sync_here; rm f; mkdir f; echo 2 >f/f' \
        'removed f' 'changed f/f'
    event 'and the directory by a file' 'rm -r f; echo 3 >f' 'removed f/f' 'changed f'
}
# Lets the keeper see an intermediate state.
sync_here() { barrier >/dev/null; }
# renameat2(RENAME_EXCHANGE), for which mv has an option only since coreutils 9.5
exchange() {
    python3 -c 'import ctypes, os, sys
one, other = map(os.fsencode, sys.argv[1:])
sys.exit(ctypes.CDLL(None).renameat2(-100, one, -100, other, 2))' "$1" "$2"
}

event_links() {
    event 'a hard link is made' 'echo 1 >a1; sync_here; mkdir -p d; ln a1 d/a2' 'changed a1' \
        'changed d/a2'
    event 'a write through one hard link' 'echo 2 >>d/a2' 'changed a1' 'changed d/a2'
    event 'permissions through one hard link' 'chmod 600 a1' 'changed a1' 'changed d/a2'
    event 'one of two hard links is deleted' 'rm a1' 'removed a1'
    event 'the other one is written' 'echo 3 >>d/a2' 'changed d/a2'
    event 'a symlink is made' 'ln -s nowhere l' 'changed l'
    event 'a symlink is replaced by another' 'ln -sfn elsewhere l' 'changed l'
    event 'a symlink is replaced by a file' 'rm l; echo 1 >l' 'changed l'
    event 'a file is replaced by a symlink' 'rm l; ln -s d l' 'changed l'
    event 'what a symlink leads to is its own' 'echo 1 >l/through' 'changed d/through'
}

events() {
    settle=("${when_asked[@]}")
    begin events
    settle=("${at_once[@]}")
    event_files
    event_directories
    event_links
    check 'every hash is xxh128sum'"'"'s' same_sums xxh128sum
    end
}

# --- ways of saving ---

save_vim() {
    echo 1 >.file.swp
    : >./4913
    rm ./4913
    mv file file~
    echo "$1" >file
    chmod 644 file
    rm file~ .file.swp
}
# The backup is a copy, the file is written in place.
save_with_copy() {
    cp -p file file~
    echo "$1" >file
}
save_beside() {
    echo "$1" >.file.tmp
    sync -d .file.tmp
    mv .file.tmp file
}
# Emacs: the lock is a symlink that leads nowhere, the backup the old file under a new name.
save_emacs() {
    ln -s user@host.1:2 '.#file'
    echo "$1" >'#file#'
    mv file file~
    echo "$1" >file
    rm '#file#' '.#file'
}
save_by_link() {
    echo "$1" >file.new
    ln file file.bak
    mv file.new file
    rm file.bak
}

saving() {
    local way
    settle=("${when_asked[@]}")
    begin saving
    settle=("${at_once[@]}")
    echo 0 >"$tree/file"
    event 'saved in place' 'echo "in place" >file' 'changed file'
    event 'saved beside and renamed over' 'save_beside renamed' 'changed file'
    event 'saved as vim does' 'save_vim vim' 'changed file'
    event 'saved as emacs does' 'save_emacs emacs' 'changed file' 'changed file~'
    event 'saved after a copy as backup' 'save_with_copy copy' 'changed file' 'changed file~'
    event 'saved with the backup as a link' 'save_by_link link' 'changed file'
    event 'saved by sed -i' "sed -i 's/link/sed/' file" 'changed file'
    event 'saved by install' 'echo i >i; install -m 755 i file; rm i' 'changed file'
    event 'unpacked by tar' 'tar cf t.tar file; echo 9 >file; tar xf t.tar; rm t.tar' 'changed file'
    for way in vim emacs ed; do
        case $way in
        vim) set -- vim -N -u NONE -i NONE -es -c '%s/./v/g' -c wq file ;;
        emacs) set -- emacs -Q --batch file --eval '(insert "e")' -f save-buffer ;;
        ed) set -- eval "printf 'a\ned\n.\nw\nq\n' | ed -s file" ;;
        esac
        if command -v "$way" >/dev/null; then
            rm -f "$tree/file~"
            barrier >/dev/null
            check "saved by $way itself" saved_by "$@"
        else
            skip "saved by $way itself" "$way is not installed"
        fi
    done
    end
}
saved_by() {
    local before
    before=$(barrier)
    (cd "$tree" && "$@" </dev/null)
    barrier >/dev/null
    ask --since "$before" | grep -x 'changed file'
    same
}

# --- many at once ---

# make_files COUNT DIRECTORY NAME: files NAME1, NAME2 ...; no process for each.
make_files() {
    local i
    mkdir -p "$2"
    for ((i = 1; i <= $1; i++)); do
        echo "$i" >"$2/$3$i"
    done
}

burst() {
    local before
    before=$(barrier)
    (cd "$tree" && make_files 10000 "$1" "$2")
    barrier >/dev/null
    equal 'changed paths' "$(ask --since "$before" | grep -c ^changed)" 10000
    same
}
burst_removed() {
    rm -r "${tree:?}/$1"
    same
}
burst_rewritten() {
    local i
    for ((i = 1; i <= 10000; i += 2)); do
        echo "again $i" >>"$tree/short/$i"
    done
    same
}
# The keeper is stopped meanwhile, so that the kernel's queue overflows for certain.
queue_overflow() {
    local before queue
    mkdir "$tree/over"
    before=$(barrier)
    queue=$(cat /proc/sys/fs/inotify/max_queued_events)
    kill -STOP "$keeper"
    (cd "$tree" && make_files "$((queue / 2))" over f && rm over/f1 && mv over/f2 over/g)
    kill -CONT "$keeper"
    same
    equal 'changed paths' "$(ask --since "$before" | grep -c ^changed)" $((queue / 2 - 1))
    [ "$(ask --status --json | member watch_overflows_total)" -gt 0 ]
}
new_directories() {
    local i
    for ((i = 0; i < 200; i++)); do
        mkdir -p "$tree/race/$i/b/c/d/e"
        : >"$tree/race/$i/b/c/d/e/f"
        echo "$i" >"$tree/race/$i/b/g"
    done
    same
    equal 'cached below' "$(ask --export - | grep -o '"race/[0-9]*/b/c/d/e/f"' | wc -l)" 200
}
moved_in_and_out() {
    local out=$work/bursts/outside before
    mkdir -p "$tree/m/n" "$out"
    echo 1 >"$tree/m/n/1"
    before=$(barrier)
    mv "$tree/m" "$out/m"
    barrier >/dev/null
    since_is "$before" 'removed m/n/1'
    before=$(barrier)
    echo 2 >"$out/m/n/2"
    mkdir "$out/m/o"
    equal 'the epoch after a change outside' "$(barrier)" "$before"
    mv "$out/m" "$tree/k"
    barrier >/dev/null
    since_is "$before" 'changed k/n/1' 'changed k/n/2'
    echo 3 >"$tree/k/o/3"
    echo 3 >"$tree/k/n/1"
    same
}

bursts() {
    local long
    begin bursts --threads 2
    check 'a burst of 10,000 files' burst short ''
    check 'half of them written again' burst_rewritten
    long=$(printf 'x%.0s' {1..200})
    check 'a burst of 10,000 files with paths of 1,800 bytes' burst \
        "$long/$long/$long/$long/$long/$long/$long/$long" "${long:0:190}"
    check '10,000 files deleted at once' burst_removed short
    check '10,000 files below a deleted directory' burst_removed "$long"
    if [ "$(cat /proc/sys/fs/inotify/max_queued_events)" -le 65536 ]; then
        check 'more events than the kernel queues' queue_overflow
    else
        skip 'more events than the kernel queues' 'fs.inotify.max_queued_events is beyond 65536'
    fi
    check 'directories that are made and filled in one breath' new_directories
    check 'directories moved out of the tree and into it' moved_in_and_out
    end
}

# --- git ---

git_here() {
    git -C "$tree" -c user.name=x -c user.email=x -c init.defaultBranch=one \
        -c core.fsmonitor=false -c gc.auto=0 "$@" >/dev/null
}
# Two branches that differ in content, names, modes, symlinks, and in what is a directory.
git_branches() {
    git_here init -q
    (
        cd "$tree"
        make_files 200 src f
        make_files 200 lib/deep g
        echo 1 >both
        ln -s one link
    )
    git_here add -A
    git_here commit -qm one
    git_here checkout -qb two
    (
        cd "$tree"
        sed -i 's/$/ changed/' src/f1?
        rm src/f2?
        git mv lib library
        rm both link
        mkdir both
        echo 2 >both/file
        ln -s two link
        chmod +x src/f30
        make_files 100 new n
    )
    git_here add -A
    git_here commit -qm two
}
git_checkout() {
    git_here checkout -q "$1"
    same
    [ -z "$(git -C "$tree" status --porcelain)" ]
}
git_back_and_forth() {
    local i
    for ((i = 0; i < 5; i++)); do
        git_here checkout -q one
        git_here checkout -q two
    done
    same
}

git_trees() {
    begin git
    check 'two branches are made' git_branches
    check 'git checkout of one branch' git_checkout one
    check 'git checkout of the other' git_checkout two
    check 'git checkout back and forth' git_back_and_forth
    check 'git stash and a merge' git_stash
    check '.git is left out' git_is_left_out
    end
}
git_stash() {
    echo 9 >>"$tree/src/f1"
    git_here stash
    same
    git_here stash pop
    git_here commit -qam three
    git_here checkout -q one
    git_here merge -q two
    same
}
git_is_left_out() { status_of 1 grep -q '"\.git/' "$work/export.json"; }

# --- names ---

odd_names() {
    cd "$tree"
    local long
    long=$(printf 'n%.0s' {1..255})
    echo 1 >$'new\nline'
    echo 2 >'back\slash'
    echo 3 >$'\xff\xfe not utf-8'
    echo 4 >$'tab\tand "quotes" and \e[31m'
    echo 5 >' '
    echo 6 >--get
    echo 7 >"$long"
    echo 8 >'*'
    mkdir -p $'d\n\xff' 'ünïcode/日本'
    echo 9 >$'d\n\xff/x'
    echo 10 >'ünïcode/日本/語'
    same "$1"
}
odd_names_since() {
    local before
    before=$(barrier)
    echo 1 >>"$tree/"$'new\nline'
    rm "$tree/"$'\xff\xfe not utf-8'
    barrier >/dev/null
    ask --since "$before" >"$work/since"
    equal 'lines' "$(wc -l <"$work/since")" 3
    ask --since "$before" --json | python3 -c '
import json, sys
found = {}
for line in sys.stdin:
    member = json.loads(line)
    if "path" in member or "path_hex" in member:
        hex = member.get("path_hex")
        found[bytes.fromhex(hex) if hex else member["path"].encode()] = member["event"]
assert found == {b"new\nline": "changed", b"\xff\xfe not utf-8": "removed"}, found'
}

names() {
    local hash=sha256
    mkdir -p "$work/names/tree"
    "$qallow" accelerator --watch "$work/names/tree" --no-log --once --hash sha256 >/dev/null \
        2>"$work/names/why" || hash=xxh3
    begin names --hash "$hash"
    check "names of any bytes, --hash $hash" odd_names "$hash"
    check 'names of any bytes in --since' odd_names_since
    if [ "$hash" = sha256 ]; then
        check 'names of any bytes as sha256sum prints them' same_sums sha256sum
    else
        skip 'names of any bytes as sha256sum prints them' "$(tail -n 1 "$work/names/why")"
    fi
    end
}

# --- stores through a mapping ---

# Stores into a mapped file; says so, and keeps the mapping until its stdin ends.
# shellcheck disable=SC2016 # Python
mapper='
import mmap, sys
with open(sys.argv[1], "r+b") as file:
    mapped = mmap.mmap(file.fileno(), 0)
for text in sys.argv[2:]:
    sys.stdin.readline()
    mapped[:len(text)] = text.encode()
    print("stored", flush=True)
sys.stdin.read()
'
map_file() {
    coproc mapping { exec python3 -c "$mapper" "$tree/mapped" "$@"; }
    # shellcheck disable=SC2154 # coproc sets it
    mapping_pid=$mapping_PID
    exec {from_mapping}<&"${mapping[0]}" {to_mapping}>&"${mapping[1]}" {mapping[1]}>&-
}
mapped_and_swept() {
    local before
    before=$(barrier)
    map_file first
    echo >&"$to_mapping"
    read -r -t 30 -u "$from_mapping" _
    ask --wait "$before" --timeout 30s
    ask --since "$before" | grep -x 'changed mapped'
    equal 'hash' "$(ask --get mapped)" "$(cd "$tree" && xxh128sum mapped)"
    kill "$mapping_pid"
}
# The time of what was read is old by then, so that nothing is read again in any case.
mapped_and_closed() {
    until_true is_old "$tree/mapped"
    barrier >/dev/null
    map_file second
    echo >&"$to_mapping"
    read -r -t 30 -u "$from_mapping" _
    exec {to_mapping}>&-
    wait "$mapping_pid"
    same
}
# tmpfs gives a file no new time when it is written through a mapping.
mapping_changes_time() {
    echo 0 >"$work/probe"
    touch -d @1 "$work/probe"
    python3 -c "$mapper" "$work/probe" x <<<''
    [ "$(stat -c %Y "$work/probe")" != 1 ]
}
mapped() {
    if ! mapping_changes_time >/dev/null; then
        skip 'stores through a mapping' \
            "$(stat -f -c %T "$work") does not change a file's time for them"
        return
    fi
    tree=$work/mapped/tree
    mkdir -p "$tree"
    head -c 100000 /dev/zero >"$tree/mapped"
    begin_with mapped --sweep 20ms
    check 'a store through an open mapping is found by --sweep' mapped_and_swept
    end_keeper TERM
    begin_with mapped
    check 'a store through a mapping is there when it is closed' mapped_and_closed
    end
}

# --- polling ---

polling() {
    settle=("${when_asked[@]}")
    begin poll --poll
    settle=("${at_once[@]}")
    event 'polled: files are made' 'mkdir d; echo 1 >d/a; echo 2 >b' 'changed d/a' 'changed b'
    event 'polled: a directory is renamed' 'mv d e' 'removed d/a' 'changed e/a'
    event 'polled: a file is written and deleted' 'echo 3 >>b; rm -r e' 'changed b' 'removed e/a'
    end
}
