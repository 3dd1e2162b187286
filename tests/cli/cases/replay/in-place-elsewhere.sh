# A directory that is not the one that was recorded is not touched, nor recorded, unless asked for.
. "$CASES/history.bash"
history_of_three
mkdir other
echo mine >other/a.txt
status qallow replay work.tlog --in-place other -e 1 --dry-run
status qallow replay work.tlog --in-place other -e 1
cat other/a.txt
qallow replay work.tlog | tail -n 1
mv tree moved
qallow replay work.tlog --in-place moved -e 3 --dry-run
stamp 6 other/a.txt
qallow replay work.tlog --in-place other -e 1 --force
cat other/a.txt
