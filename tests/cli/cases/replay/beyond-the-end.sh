# An epoch, a time and a label that there are not: what there is is said.
. "$CASES/history.bash"
history_of_three
status qallow replay work.tlog -e 4 -o out
status qallow replay work.tlog -e 18446744073709551615 -o out
status qallow replay work.tlog --time 1969-01-01T00:00:00Z -o out
status qallow replay work.tlog --label nothing -o out
qallow checkpoint prune work.tlog --keep-epochs 1 --quiet
status qallow replay work.tlog -e 1 -o out
ls
