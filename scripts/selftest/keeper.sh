# SPDX-License-Identifier: Apache-2.0
# Sourced by selftest-accelerator.sh: the keeper itself, its requests, limits and successors.
# shellcheck shell=bash
# shellcheck source=scripts/selftest-accelerator.sh

# --- questions ---

get_answers() {
    mkdir -p "$tree/sub"
    echo 1 >"$tree/sub/a"
    echo 2 >"$tree/sub/b"
    barrier >/dev/null
    cd "$tree/sub"
    diff <(xxh128sum a b) <("$qallow" accelerator --get a b)
    cd /
    status_of 66 ask --get sub/nothing
    status_of 66 ask --get sub/a sub/nothing >"$work/get"
    equal 'lines' "$(wc -l <"$work/get")" 1
}
wait_answers() {
    local before
    before=$(barrier)
    status_of 75 ask --wait "$before" --timeout 1ms
    ask --wait "$before" --timeout 30s >"$work/waited" &
    echo 1 >>"$tree/sub/a"
    wait $!
    [ "$(cat "$work/waited")" -gt "$before" ]
    equal 'without waiting' "$(ask --wait 0 --timeout 1ms)" "$(barrier)"
}
nobody_there() {
    mkdir -p "$work/nobody/x"
    cd "$work/nobody/x"
    status_of 69 "$qallow" accelerator --watch . --get x
    status_of 69 "$qallow" accelerator --watch . --sync
    status_of 69 "$qallow" accelerator --watch . --since 0
    status_of 69 "$qallow" accelerator --watch . --wait 0
    status_of 66 "$qallow" accelerator --watch ./nothing --get x
}
second_keeper() {
    status_of 75 "$qallow" accelerator --watch "$tree" --no-log 2>"$work/second"
    grep -w "$keeper" "$work/second"
    same
}
future_epochs() {
    local now
    now=$(barrier)
    status_of 0 ask --since "$now" >"$work/since"
    equal 'since now' "$(cat "$work/since")" "epoch $now"
    ! ask --since $((now + 1)) || return 1
}

questions() {
    begin questions
    check '--get' get_answers
    check '--wait' wait_answers
    check '--since of now, and of later' future_epochs
    check 'a directory that nobody caches' nobody_there
    check 'a second keeper ends with 75 and names the first' second_keeper
    end
}

# --- ignore rules ---

# The paths of the cache, sorted, on one line.
cached_paths() {
    ask --export - | python3 -c 'import json, sys
print(*sorted(file["path"] for file in json.load(sys.stdin)["files"]))'
}
ignored_from_the_start() {
    barrier >/dev/null
    equal 'cached' "$(cached_paths)" '.qallowignore a.c'
    echo 2 >"$tree/a.o"
    echo 2 >"$tree/build/y"
    barrier >/dev/null
    equal 'cached' "$(cached_paths)" '.qallowignore a.c'
}
paths_are() { [ "$(cached_paths)" = "$1" ]; }
# What .qallowignore says counts from when it is there; a SIGHUP reads the files again in any case.
ignored_anew() {
    local epoch
    echo '*.c' >"$tree/.qallowignore"
    epoch=$(barrier)
    kill -HUP "$keeper"
    until_true paths_are '.qallowignore a.o build/x build/y'
    barrier >/dev/null
    kill -0 "$keeper"
}
ignored_no_more() {
    rm "$tree/.qallowignore"
    kill -HUP "$keeper"
    until_true paths_are 'a.c a.o build/x build/y'
    same
}

ignoring() {
    tree=$work/ignoring/tree
    mkdir -p "$tree/build"
    (cd "$tree" && echo 1 | tee a.c a.o build/x never.tmp >/dev/null)
    printf '*.o\nbuild/\n' >"$tree/.qallowignore"
    begin_with ignoring --exclude '*.tmp'
    check 'what .qallowignore and --exclude name is not cached' ignored_from_the_start
    check 'SIGHUP reads a changed .qallowignore' ignored_anew
    rm "$tree/never.tmp"
    check 'SIGHUP after .qallowignore has gone' ignored_no_more
    end
}

# --- --run ---

# The command says when it starts and ends through one pipe and waits at the other, so that the
# order in which things happen is known.
# shellcheck disable=SC2016 # for the shell of --run
run_command='echo "start $QALLOW_SINCE $QALLOW_EPOCH $QALLOW_ROOT" >>"$RAN"; read -r _ <"$GO"
    echo end >>"$RAN"'

heard() {
    local line
    IFS= read -r -t 30 -u 8 line || {
        echo 'nothing was heard from the command'
        return 1
    }
    echo "$line"
}
run_coalesces() {
    local first last i word since epoch root
    first=$(barrier)
    echo 1 >"$tree/a"
    read -r word since epoch root < <(heard)
    equal 'the first' "$word $since $root" "start $first $tree"
    # It is held while twenty epochs are made: none of them may start another.
    for ((i = 0; i < 20; i++)); do
        echo "$i" >"$tree/b"
        last=$(barrier)
    done
    [ "$last" -ge $((epoch + 20)) ]
    echo >&9
    equal 'then' "$(heard)" end
    equal 'and one for all that was missed' "$(heard)" "start $epoch $last $tree"
    echo >&9
    equal 'then' "$(heard)" end
}
running() {
    export RAN=$work/ran GO=$work/go
    mkfifo "$RAN" "$GO"
    exec 8<>"$RAN" 9<>"$GO"
    begin run --run "$run_command"
    check '--run: coalesced, never overlapping, with its three variables' run_coalesces
    end
    exec 8>&- 9>&-
}

# --- metrics ---

has_rows() { [ "$(wc -l <"$1")" -ge "$2" ]; }
csv_is_written() {
    until_true has_rows "$1" 20
    head -n 1 "$1" | grep -x 'time,metric,label,value,unit'
    grep -q ',cache_' "$1"
    equal 'the limit of watches' "$(grep -m 1 ',watches_limit,' "$1" | cut -d, -f4)" \
        "$(ask --status --json | member watches_limit)"
}
prometheus_counts() {
    echo 1 >"$tree/a"
    barrier >/dev/null
    ask --get a
    status_of 66 ask --get nothing
    until_true grep -E '^qallow_cache_misses[{].* 1$' "$1"
    grep -E '^qallow_cache_hits[{].* 1$' "$1"
    # every line is a comment or a sample
    status_of 1 grep -v -E '^(# (HELP|TYPE) .*|[a-z_]+(\{[^}]*\})? [-+0-9.e]+(Inf|NaN)?)$' "$1"
}
inode_differs() { [ "$(stat -c %i "$1")" != "$2" ]; }
prometheus_is_renamed() { until_true inode_differs "$1" "$(stat -c %i "$1")"; }
metrics_are_not_cached() {
    local epoch
    epoch=$(barrier)
    until_true has_rows "$tree/metrics.csv" "$(($(wc -l <"$tree/metrics.csv") + 20))"
    equal 'the epoch' "$(barrier)" "$epoch"
    ask --export "$work/export.json"
    /usr/bin/python3 "$scan" --leave-out metrics.csv --leave-out metrics.prom "$tree" \
        "$work/export.json"
}

metrics() {
    tree=$work/metrics/tree
    begin metrics --telemetry "$tree/metrics.csv" --prometheus "$tree/metrics.prom" \
        --telemetry-interval 10ms
    check '--telemetry writes rows' csv_is_written "$tree/metrics.csv"
    check '--prometheus counts hits and misses' prometheus_counts "$tree/metrics.prom"
    check '--prometheus replaces the file by renaming' prometheus_is_renamed "$tree/metrics.prom"
    check 'neither file is cached, even within the tree' metrics_are_not_cached
    end
}

# --- keepers that end ---

# A file that changed within two clock ticks before it was read is read again the next time.
is_old() { [ $(($(date +%s%3N) - $(stat -c %.3Z "$1" | tr -d .))) -gt 50 ]; }

gone_keeper() {
    ask --status --json >"$work/status"
    [[ $(member state <"$work/status") == gone* ]]
    equal 'the keeper' "$(member pid <"$work/status")" "$1"
    same_sums xxh128sum
    status_of 69 ask --wait "$2" --timeout 30s
    status_of 69 ask --sync
}
nothing_read() {
    equal 'read by the successor' "$(member read_bytes <"$keeper_out")" 0
    equal 'state' "$(ask --status --json | member state)" watching
    same
}
caught_up() {
    since_is "$1" 'removed d/2' 'changed d/1' 'changed e'
    same
}

restarting() {
    local dead epoch
    tree=$work/restart/tree
    mkdir -p "$tree"
    (cd "$tree" && make_files 1000 d '')
    until_true is_old "$tree/d/1000"
    begin_with restart --json
    epoch=$(barrier)
    dead=$keeper
    end_keeper KILL
    check 'a cache whose keeper was killed says so, and still answers' gone_keeper "$dead" "$epoch"
    begin_with restart --json
    check 'the successor of a killed keeper reads nothing again' nothing_read
    end_keeper KILL
    (cd "$tree" && echo changed >d/1 && rm d/2 && echo new >e)
    begin_with restart --json
    check 'what changed between two keepers' caught_up "$epoch"
    end_keeper KILL
    check 'a cache of garbage is refused' garbage
    begin_with restart --json
    check 'and made anew by the next keeper' same
    end
}
garbage() {
    local file status=0
    while IFS= read -r -d '' file; do
        head -c "$(stat -c %s "$file" | head -c 4)" /dev/urandom |
            dd of="$file" conv=notrunc status=none
    done < <(find "$QALLOW_CACHE_DIR" -type f ! -name '*.lock' -print0)
    ask --get d/1 || status=$?
    [ "$status" = 65 ] || [ "$status" = 69 ] || [ "$status" = 78 ]
}

# --- limits ---

full_is_said() {
    (cd "$tree" && make_files 5000 d '')
    barrier >/dev/null
    grep -i full "$keeper_err"
    [ "$(ask --status --json | member refused)" -gt 0 ]
    # what is in it is right all the same
    ask --export "$work/export.json"
    python3 - "$work/export.json" "$tree" <<'END'
import json, os, sys
files = json.load(open(sys.argv[1]))["files"]
assert 0 < len(files) < 5000, len(files)
for file in files:
    assert file["size"] == os.stat(os.path.join(sys.argv[2], file["path"])).st_size, file
END
}
room_again() {
    rm -r "${tree:?}/d"
    (cd "$tree" && make_files 10 e '')
    same
}
limits() {
    begin limits --shm-size 256K
    check 'a cache that is full says so' full_is_said
    check 'and takes files again when there is room' room_again
    end
}

# --- one keeper for several directories, with and without a log ---

several_are_apart() {
    echo 1 >"$work/several/one/a"
    echo 22 >"$work/several/two/a"
    for tree in "$work/several/one" "$work/several/two"; do
        same
        same_sums xxh128sum
    done
    status_of 66 ask --get one/a
}
several() {
    mkdir -p "$work/several/one" "$work/several/two"
    start_keeper several "$qallow" accelerator --watch "$work/several/one" \
        --watch "$work/several/two" --no-log --settle 1ms
    check 'one keeper, two directories' several_are_apart
    tree=$work/several/one
    end
}

log_equals_tree() {
    local epoch
    rm -rf "$work/restored"
    epoch=$(barrier)
    equal 'the barrier through the log' "$("$qallow" accelerator --sync --log "$log_file")" "$epoch"
    same
    "$qallow" replay "$log_file" --epoch "$epoch" --output "$work/restored"
    /usr/bin/python3 "$top/tests/reader/trees.py" "$tree" "$work/restored"
}
log_events() {
    (cd "$tree" && make_files 500 d '')
    log_equals_tree
    mv "$tree/d" "$tree/e"
    rm "$tree"/e/1??
    sed -i s/2/3/ "$tree"/e/2??
    ln -s e "$tree/l"
    log_equals_tree
}
# Whoever asks by the directory need not know where the log is.
log_elsewhere() {
    barrier
    cd "$tree"
    "$qallow" accelerator --sync
}
logged() {
    log_file=$work/logged/tree.tlog
    log=(--log "$log_file")
    begin logged
    check 'with a log: cache, log and tree are equal' log_events
    check 'with a log: every epoch verifies' "$qallow" replay "$log_file" --verify
    log=(--no-log)
    end
    log=(--log "$work/other.tlog")
    begin elsewhere
    check 'with a log elsewhere: its keeper is found by the directory' log_elsewhere
    log=(--no-log)
    end
}

# --- the standalone executable, and the place of the cache ---

standalone_answers() {
    echo 1 >"$tree/a"
    "$standalone" --watch "$tree" --sync
    equal 'hash' "$("$standalone" --watch "$tree" --get a)" "$(cd "$tree" && xxh128sum a)"
    equal 'hash' "$(ask --get a)" "$(cd "$tree" && xxh128sum a)"
    "$standalone" --watch "$tree" --stop
    until_true has_ended "$keeper"
}
standalone() {
    standalone=${QALLOW_ACCELERATOR:-$(dirname "$qallow")/qallow-accelerator}
    if [ ! -x "$standalone" ]; then
        skip 'qallow-accelerator' "there is no $standalone"
        return
    fi
    tree=$work/standalone/tree
    mkdir -p "$tree"
    start_keeper standalone "$standalone" --watch "$tree" --no-log
    check 'qallow-accelerator is the same program' standalone_answers
}
private_cache() {
    local file
    [ -n "$(find "$QALLOW_CACHE_DIR" -type f)" ]
    equal 'files open to others' "$(find "$QALLOW_CACHE_DIR" ! -type d ! -perm 600)" ''
}

# --- a million entries ---

make_many() {
    python3 - "$tree" "$entries" <<'END'
import os, sys
root, count = sys.argv[1], int(sys.argv[2])
for i in range(count):
    directory = f"{root}/{i // 10000}/{i // 100 % 100}"
    if i % 100 == 0:
        os.makedirs(directory)
    with open(f"{directory}/{i}", "w") as file:
        file.write(str(i))
END
}
many_are_there() {
    equal 'files' "$(ask --status --json | member files)" "$entries"
    same
}
many_since() {
    local before start
    before=$(barrier)
    echo changed >"$tree/0/0/0"
    barrier >/dev/null
    since_is "$before" 'changed 0/0/0'
}
many() {
    local start
    tree=$work/many/tree
    mkdir -p "$tree"
    echo "making $entries files ..."
    make_many
    start=$(now)
    begin_with many --json
    echo "first scan: $(elapsed "$start") s"
    check "$entries files" many_are_there
    check "one change among $entries files" many_since
    end_keeper KILL
    start=$(now)
    begin_with many --json
    echo "warm start: $(elapsed "$start") s, $(member read_bytes <"$keeper_out") bytes read"
    check "$entries files after a kill" many_are_there
    end
}
