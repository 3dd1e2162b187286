# All logs of a directory, a line each and a sum.
. "$CASES/mask.bash"
mkdir -p logs/directory.tlog
cp "$golden/kinds.tlog" logs/b.tlog
cp "$golden/empty.tlog" 'logs/a
line.tlog'
cp "$golden/checkpoint.qckpt" logs
cp "$golden/parts.tlog" logs/not-taken.log
printf x >logs/.tlog
qallow stats logs | without_disk
qallow stats logs/ --json | without_disk
(cd logs && qallow stats . | tail -1 | without_disk)
# What is beside a directory goes before what is in it.
cp "$golden/parts.tlog" logs.tlog
qallow stats logs/ | head -1
# One alone is told in full.
mkdir one
cp "$golden/checkpoint.qckpt" one
qallow stats one | head -1
