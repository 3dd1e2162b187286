# The present state is an epoch before anything is changed.
. "$CASES/history.bash"
history_of_three
echo precious >tree/a.txt
stamp 4 tree/a.txt
qallow replay work.tlog --in-place tree -e 2
cat tree/a.txt
qallow replay work.tlog -e 4 --page a.txt
