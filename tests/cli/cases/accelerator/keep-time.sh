# A recorder drops epochs by itself as they grow old.
mkdir work
echo 0 >work/file
qallow accelerator --watch work --log work.tlog --keep-time 200ms --quiet >/dev/null &
pid=$!
until_true qallow accelerator --sync --log work.tlog --quiet >/dev/null 2>&1
count=0
# one more epoch at each turn, until the first is gone
first_is_gone() {
    count=$((count + 1))
    echo "$count" >work/file
    qallow accelerator --sync --log work.tlog >/dev/null
    qallow replay work.tlog --json >list
    grep -q '"epoch":' list && ! grep -q '"epoch":1,' list
}
until_true first_is_gone
status qallow replay work.tlog -e 1 -o out 2>&1 |
    sed -E 's/[0-9]+ to [0-9]+/N to N/;s/before [0-9]+/before N/'
qallow accelerator --stop --log work.tlog >/dev/null
status wait "$pid"
qallow replay work.tlog --page file | cmp - work/file && echo same
