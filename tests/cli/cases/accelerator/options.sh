# A limit of size; and a barrier that does not wait for ever.
mkdir work
printf '%01000d' 0 >work/small
printf '%01025d' 0 >work/large
qallow accelerator --watch work --log work.tlog --max-file-size 1K --once --clock logical
qallow replay work.tlog --list --json | grep -o '"pages":[0-9]*'
status qallow replay work.tlog --page large
status qallow accelerator --watch work --log work.tlog --max-file-size 1X --once
status qallow accelerator --sync --log work.tlog --timeout 25h
qallow accelerator --help | sed -n '/--timeout/,/^ *--telemetry/p'
rm work/large
qallow accelerator --watch work --log work.tlog --max-file-size 4M --quiet >/dev/null &
pid=$!
until_true qallow accelerator --sync --log work.tlog --quiet >/dev/null 2>&1
# a file that is being written to whenever it is read
head -c 2M /dev/urandom >bytes
(while [ ! -e stop ]; do cat bytes >work/small; done) &
writer=$!
timed_out() {
    local rc=0
    qallow accelerator --sync --timeout 0ms --log work.tlog >/dev/null 2>said || rc=$?
    [ "$rc" = 75 ]
}
until_true timed_out
cat said
touch stop
wait "$writer"
qallow accelerator --sync --timeout 30s --log work.tlog >/dev/null
qallow accelerator --stop --log work.tlog >/dev/null
status wait "$pid"
qallow replay work.tlog --page small | cmp - work/small && echo same
