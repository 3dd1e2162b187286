# Going back, and undoing that by a further restore. What was never recorded stays.
. "$CASES/history.bash"
history_of_three
cp -a tree before
qallow replay work.tlog --in-place tree -e 1 --dry-run
diff <(tree_of tree) <(tree_of before)
echo unrecorded >tree/new
qallow replay work.tlog --in-place tree -e 1 --dry-run --json
rm tree/new
stamp 3 tree/raw
qallow replay work.tlog --in-place tree -e 1
cat tree/a.txt tree/sub/b
qallow replay work.tlog --in-place tree -e 3
diff <(tree_of tree) <(tree_of before)
status qallow replay work.tlog --in-place tree --undo
status qallow replay work.tlog --in-place tree
