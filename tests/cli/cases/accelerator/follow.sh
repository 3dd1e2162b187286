# Record, change, ask, stop. What goes to a file is there when the barrier returns.
mkdir work
echo 1 >work/file
touch out
qallow accelerator --watch work --log work.tlog --clock logical --settle 1h --max-settle 1h >out &
until_true grep -q ready out
echo 2 >work/file
qallow accelerator --sync --log work.tlog
mkdir -p work/a/b && mv work/file work/a/b/moved
qallow accelerator --label there --log work.tlog
status qallow accelerator --quiet --watch work --log work.tlog --once 2>/dev/null
rm -r work/a
qallow accelerator --stop --log work.tlog
wait
sed "s/, [0-9]* attributes//" out
ls
