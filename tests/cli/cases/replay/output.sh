# Every epoch comes back as it was: names, kinds, modes, times, bytes.
. "$CASES/history.bash"
history_of_three
tree_of tree >now
for epoch in 1 2 3; do
    qallow replay work.tlog --epoch "$epoch" --output "out$epoch"
done
tree_of out3 | diff now -
cat out1/a.txt out1/sub/b out2/sub/c
readlink out1/link out2/link
status test -e out3/link
qallow replay work.tlog --time 1970-01-01T00:00:00.000000002Z -o by-time --quiet
diff <(tree_of by-time) <(tree_of out2)
qallow replay work.tlog --label second -o by-label --json
diff <(tree_of by-label) <(tree_of out2)
ls
