# An epoch as a file of its own, and back; replay reads it like a log.
. "$CASES/../replay/history.bash"
history_of_three
qallow checkpoint export work.tlog --epoch 2 -o two.qckpt
qallow checkpoint info two.qckpt | grep -v '^uuid'
qallow checkpoint verify two.qckpt
qallow checkpoint restore two.qckpt -o out
qallow replay work.tlog -e 2 -o same --quiet
diff <(tree_of out) <(tree_of same)
qallow replay two.qckpt
qallow replay two.qckpt --verify
status qallow checkpoint export work.tlog --epoch 3 -o two.qckpt
qallow checkpoint export work.tlog --label second -o two.qckpt --force --json
status qallow checkpoint export work.tlog --epoch 9 -o nine.qckpt
status qallow checkpoint export work.tlog
status qallow checkpoint restore two.qckpt -o out
qallow checkpoint restore two.qckpt -o out --force --json
status qallow checkpoint restore missing.qckpt -o x
status qallow checkpoint info tree
ls
