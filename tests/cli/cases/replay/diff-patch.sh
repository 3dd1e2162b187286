# What diff -u says of the files, which patch can apply.
need diff patch
. "$CASES/history.bash"
history_of_three
status qallow replay work.tlog --diff 1..3 --patch
qallow replay work.tlog -e 1 -o out --quiet
qallow replay work.tlog --diff 1..2 --patch >a.patch || true
patch --quiet -d out -p1 <a.patch
cmp out/a.txt <(qallow replay work.tlog -e 2 --page a.txt)
ls "$TMPDIR" | grep patch || echo 'nothing is left in TMPDIR'
