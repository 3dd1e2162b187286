# What goes, what stays, and what is left can be had back.
. "$CASES/../replay/history.bash"
history_of_three
qallow checkpoint prune work.tlog --keep-epochs 2 --dry-run
qallow replay work.tlog --quiet | wc -l
qallow checkpoint prune work.tlog --keep-epochs 2 --json
qallow replay work.tlog
tree_of tree >now
qallow replay work.tlog -o out --quiet
tree_of out | diff now -
qallow checkpoint verify work.tlog >/dev/null
qallow replay work.tlog --verify
qallow checkpoint prune work.tlog --keep-epochs 2
qallow checkpoint prune work.tlog --keep-bytes 1
qallow checkpoint prune work.tlog --keep-time 100d --dry-run
status qallow checkpoint prune work.tlog
status qallow checkpoint prune work.tlog --keep-epochs 0
status qallow checkpoint prune work.tlog --keep-bytes 99999999999999999999
status qallow checkpoint prune missing.tlog --keep-epochs 1
qallow replay work.tlog --quiet
