# The reader of a pipe may leave: nothing is said, the status is that of SIGPIPE.
mkfifo pipe
exec 3<>pipe 4>pipe 3<&-
set +e
qallow completion bash >&4
echo "exit $?"
