. "$CASES/history.bash"
history_of_three
status qallow replay work.tlog --diff 1..3 --json
status qallow replay work.tlog --diff 1..3 --stat --json
