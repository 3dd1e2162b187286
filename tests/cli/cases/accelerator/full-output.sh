# What does not reach a full standard output is one clear line and 74, whatever was asked for, and
# whether it is the first write that fails or the last.
test -c /dev/full || { echo 'SKIP no /dev/full'; exit 0; }
mkdir work
for i in {1..200}; do echo "$i" >"work/a-name-that-fills-the-buffer-$i"; done
qallow accelerator --quiet --watch work --no-log --once >/dev/null
qallow accelerator --quiet --watch work --log work.tlog --once >/dev/null
full() {
    local rc=0
    qallow "$@" --quiet >/dev/full 2>said || rc=$?
    echo "$1: exit $rc: $(cat said)"
}
many=(work/*)
many=("${many[@]#work/}")
for json in '' --json; do
    set -- ${json:+"$json"}
    full accelerator --watch work --export - "$@"
    full accelerator --watch work --get "${many[0]}" "$@"
    full accelerator --watch work --get "${many[@]}" "$@"
    full accelerator --watch work --since 0 "$@"
    full accelerator --watch work --wait 0 "$@"
    full accelerator --watch work --status "$@"
    full accelerator --watch work --log "other$json.tlog" --once "$@"
    full replay work.tlog --list "$@"
    full replay work.tlog --diff 0..1 "$@"
    full replay work.tlog --follow --epoch 0 "$@"
    full stats work.tlog "$@"
    full doctor "$@"
done
full replay work.tlog --diff 0..1 --patch
full replay work.tlog --page "${many[0]}"
# A recording is worth more than the lines about it.
qallow accelerator --watch work --log work.tlog --settle 1h --max-settle 1h >/dev/full 2>said &
until_true qallow accelerator --sync --log work.tlog --quiet >/dev/null 2>&1
echo 1 >work/new
qallow accelerator --stop --log work.tlog >/dev/null
status wait $!
grep 'standard output' said
qallow replay work.tlog --page new
