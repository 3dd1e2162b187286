# A restore to epoch 1 that was interrupted half way: on with it, or back. What only its own save
# had recorded stays either way.
. "$CASES/history.bash"
history_of_three
echo precious >tree/new
stamp 4 tree/new
record
cp -a tree whole
interrupt() {
    rm -f tree/raw
    ln -s a.txt tree/link
    mkdir tree/.qallow-restore
    printf 'qallow-restore 1\nto 1\nsaved 4\nbefore 3\n' >tree/.qallow-restore/journal
}
interrupt
status qallow replay work.tlog --in-place tree -e 2
qallow replay work.tlog --in-place tree --undo
diff <(tree_of tree) <(tree_of whole)
interrupt
qallow replay work.tlog --in-place tree --quiet
cat tree/new
(cd tree && find . | LC_ALL=C sort)
qallow stats work.tlog | sed -n '/^pages/,/^records/p' | grep -E '^ +1 '
