. "$CASES/history.bash"
history_of_three
qallow replay work.tlog --plan -e 2
qallow replay work.tlog --plan --json
status qallow replay work.tlog --plan -e 4
