# The log belongs to a recorder: label and prune are handed to it, the rest reads beside it.
. "$CASES/../replay/history.bash"
history_of_three
command qallow accelerator --watch tree --log work.tlog --quiet >out 2>err &
pid=$!
until_true qallow accelerator --sync --log work.tlog --quiet >/dev/null 2>&1
status qallow checkpoint save work.tlog tree 2>&1 | sed "s/$pid/PID/"
qallow checkpoint label work.tlog first --epoch 1
qallow checkpoint label work.tlog newest --json
qallow checkpoint prune work.tlog --keep-epochs 2 --dry-run
qallow checkpoint prune work.tlog --keep-epochs 2 --json | grep -o '"first_epoch.*after":[0-9]*'
qallow replay work.tlog --quiet | cut -c1-8
qallow replay work.tlog --verify >/dev/null
qallow checkpoint info work.tlog | sed "s/$pid/PID/" | grep recorder
qallow accelerator --stop --log work.tlog --quiet >/dev/null
status wait "$pid"
