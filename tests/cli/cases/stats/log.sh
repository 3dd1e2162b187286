# Logs whose bytes are always the same: every number.
. "$CASES/mask.bash"
for name in operations parts images compressed pruned kinds empty; do
    cp "$golden/$name.tlog" .
    qallow stats "$name.tlog" | without_disk
done
cp "$golden/checkpoint.qckpt" .
qallow stats checkpoint.qckpt | without_disk
qallow stats parts.tlog --json | without_disk
qallow checkpoint info parts.tlog | grep digest
