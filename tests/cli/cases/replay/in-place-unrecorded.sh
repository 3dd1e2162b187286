# What the restore itself saved is not deleted by it; a dry run says the same beforehand.
. "$CASES/history.bash"
history_of_three
mkdir tree/sub/mine
echo precious >tree/sub/mine/x
echo precious >tree/new
stamp 4 tree/new tree/sub/mine/x tree/sub/mine tree/sub
qallow replay work.tlog --in-place tree -e 1 --dry-run
qallow replay work.tlog --in-place tree -e 1
cat tree/new tree/sub/mine/x
qallow replay work.tlog -e 4 --page new

echo "# in the way"
rm tree/a.txt
mkdir tree/a.txt
echo mine >tree/a.txt/x
stamp 5 tree/a.txt/x tree/a.txt
status qallow replay work.tlog --in-place tree -e 1 --dry-run
status qallow replay work.tlog --in-place tree -e 1
cat tree/a.txt/x
