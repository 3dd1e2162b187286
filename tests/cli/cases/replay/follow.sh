# New epochs are printed as they come, in JSON lines; a signal ends it.
. "$CASES/history.bash"
history_of_three
: >out
command qallow replay work.tlog --follow -e 1 --json >out 2>err &
pid=$!
count() { [ "$(wc -l <out)" -ge "$1" ]; }
until_true count 2
echo four >tree/four
stamp 4 tree/four
record
until_true count 3
kill "$pid"
status wait "$pid"
grep -o '"epoch":[0-9]*' out
cat err
