# Labels: of the newest epoch, of an older one, moved, refused.
. "$CASES/../replay/history.bash"
history_of_three
qallow checkpoint label work.tlog last
qallow checkpoint label work.tlog 'the first' --epoch 1 --json
qallow checkpoint label work.tlog second --epoch 3
qallow replay work.tlog --quiet
qallow replay work.tlog --label 'the first' --page a.txt
status qallow checkpoint label work.tlog x --epoch 9
status qallow checkpoint label work.tlog ''
status qallow checkpoint label work.tlog "$(printf 'a\nb')"
status qallow checkpoint label work.tlog "$(head -c 300 /dev/zero | tr '\0' x)"
status qallow checkpoint label missing.tlog x
