# Metrics once, at the end; also when it failed. What cannot be written to is said before anything
# is done.
. "$CASES/history.bash"
history_of_three
# figures of the last rows, by name
figures() { tail -n "$rows" t.csv | awk -F, '$2 ~ /^replay_/ { print $2, $4, $5 }'; }
qallow replay work.tlog -e 1 -o out --quiet --telemetry t.csv
head -n 1 t.csv
rows=$(($(wc -l <t.csv) - 1))
figures
stamp 3 tree/raw
qallow replay work.tlog -e 1 --in-place tree --quiet --telemetry t.csv
figures
status qallow replay work.tlog -e 99 -o none --quiet --telemetry t.csv
figures
test "$(wc -l <t.csv)" = $((3 * rows + 1))
status qallow replay work.tlog -e 1 -o none --telemetry no/such/t.csv
status qallow replay work.tlog -e 1 -o none --telemetry tree
ls
