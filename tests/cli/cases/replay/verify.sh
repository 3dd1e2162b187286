. "$CASES/history.bash"
history_of_three
qallow replay work.tlog --verify
qallow replay work.tlog --verify --threads 3 --json
qallow replay work.tlog --verify --from-scratch
status qallow replay work.tlog --from-scratch
qallow checkpoint prune work.tlog --keep-epochs 1 --quiet
qallow replay work.tlog --verify
