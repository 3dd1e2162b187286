# The disk fills up while restoring: said, and nothing half-done is left.
need unshare mount
. "$CASES/history.bash"
mkdir tree small
head -c 3000000 /dev/urandom >tree/large
stamp 1 tree/large
record
unshare -rm true 2>/dev/null || { echo 'SKIP no user namespaces'; exit 0; }
unshare -rm sh -c '
mount -t tmpfs -o size=1m tmpfs small || exit 99
qallow replay work.tlog -e 1 -o small/out
echo "exit $?"
qallow replay work.tlog -e 1 --page large -o small/large
echo "exit $?"
qallow checkpoint export work.tlog -o small/x.qckpt
echo "exit $?"
ls -A small' || echo 'SKIP no tmpfs can be mounted'
