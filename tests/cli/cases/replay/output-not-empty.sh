# A target with something in it is refused, and replaced with --force.
. "$CASES/history.bash"
history_of_three
mkdir out
echo mine >out/mine
status qallow replay work.tlog -e 1 -o out
ls out
qallow replay work.tlog -e 1 -o out --force
ls out
