# One object a line.
. "$CASES/history.bash"
history_of_three
qallow replay work.tlog --events --epoch 2 --type delta,commit --json
