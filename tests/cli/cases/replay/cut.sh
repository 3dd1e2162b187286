# A log that ends too early: a reader sees the epochs that are whole and leaves the file alone.
. "$CASES/history.bash"
history_of_three
rm -f work.tlog-index
size=$(stat -c %s work.tlog)
for cut in 8192 8193 8300 9000 $((size - 1)); do
    head -c "$cut" work.tlog >cut.tlog
    before=$(sha256sum <cut.tlog)
    rc=0
    qallow replay cut.tlog --quiet >out 2>err || rc=$?
    case $rc in 0 | 65 | 66) ;; *) echo "cut at $cut: exit $rc" && cat err ;; esac
    diff <(qallow replay work.tlog --quiet) out | grep '^>' || true
    [ "$before" = "$(sha256sum <cut.tlog)" ] || echo "cut at $cut: the file was changed"
done
