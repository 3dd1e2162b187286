# The directory is deleted: 66, and the newest epoch is not an empty tree.
mkdir work
echo 1 >work/file
touch out
qallow accelerator --quiet --watch work --log work.tlog --clock logical --settle 1h \
    --max-settle 1h >out &
until_true grep -q ready out
rm -r work
status wait $!
qallow replay work.tlog --output restored --epoch 1
cat restored/file
