# The bytes of one file; the target of a symlink.
. "$CASES/history.bash"
history_of_three
qallow replay work.tlog --page a.txt -e 1
qallow replay work.tlog --page ./a.txt --output -
qallow replay work.tlog --page link -e 1
echo
qallow replay work.tlog --page raw | od -An -tx1
qallow replay work.tlog --page a.txt --output file
cmp file tree/a.txt
status qallow replay work.tlog --page a.txt --output file
qallow replay work.tlog --page a.txt -e 1 --output file --force --json
cat file
status qallow replay work.tlog --page sub
status qallow replay work.tlog --page nothing
status qallow replay work.tlog --page a.txt --output no/such/dir
status qallow replay work.tlog --page a.txt --json
