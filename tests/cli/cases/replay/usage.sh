# What does not go together, and numbers that are none.
. "$CASES/history.bash"
history_of_three
status qallow replay
status qallow replay work.tlog -e 1
status qallow replay work.tlog -e 1 -o out --list
status qallow replay work.tlog -e 1 --time 2026-01-01T00:00:00Z --list
status qallow replay work.tlog --list --verify
status qallow replay work.tlog --dry-run
status qallow replay work.tlog --stat
status qallow replay work.tlog --force
status qallow replay work.tlog -e 18446744073709551616 -o out
status qallow replay work.tlog -e -1 -o out
status qallow replay work.tlog --time yesterday -o out
status qallow replay work.tlog --verify --threads 0
status qallow replay work.tlog --verify --max-memory 1K
status qallow replay work.tlog --diff 1..2 --patch --json
ls
