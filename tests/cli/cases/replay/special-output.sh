# A device or pipe is never replaced by a file, not even with --force.
mkdir tree
echo 1 >tree/a
qallow checkpoint save --quiet work.tlog tree
mkfifo pipe
status qallow replay work.tlog --page a --output pipe --force
status qallow checkpoint export work.tlog --epoch 1 -o pipe --force
test -p pipe && ls
