# While a recorder owns the log: it records the present state first, and the result afterwards.
. "$CASES/history.bash"
history_of_three
cp -a tree third
cp -a tree other
cd tree
command qallow accelerator --watch . --log ../work.tlog --quiet >../events 2>&1 &
pid=$!
cd ..
until_true qallow accelerator --sync --log work.tlog --quiet >/dev/null 2>&1
echo precious >tree/sub/c
echo new >tree/new
# so that it does not depend on when the recorder looks what was recorded before the restore
qallow accelerator --sync --log work.tlog >/dev/null
qallow replay work.tlog --in-place tree -e 1 --dry-run
saved=$(qallow accelerator --status --json --log work.tlog | grep -o '"epoch":[0-9]*' | cut -d: -f2)
qallow replay work.tlog --in-place tree -e 1 2>said
sed "s/epoch $saved\\b/epoch SAVED/g" said
cat tree/a.txt tree/sub/b
ls -A tree
qallow replay work.tlog -e "$saved" --page sub/c
qallow replay work.tlog --page a.txt
echo "# an interruption, and back"
mkdir tree/.qallow-restore
printf 'qallow-restore 1\nto 2\nsaved %s\nbefore %s\n' "$saved" "$saved" >journal
mv journal tree/.qallow-restore/
status qallow replay work.tlog --in-place tree -e 3 2>&1
qallow replay work.tlog --in-place tree --undo --quiet
cat tree/sub/c tree/new
echo "# another directory"
status qallow replay work.tlog --in-place other -e 1
status qallow replay work.tlog --in-place other -e 1 --force
diff <(tree_of third) <(tree_of other)
qallow replay work.tlog --in-place tree -e 3 --quiet
touch -r third tree
diff <(tree_of third) <(tree_of tree)
qallow accelerator --stop --log work.tlog --quiet >/dev/null
status wait "$pid"
qallow replay work.tlog --verify >/dev/null
qallow replay work.tlog -o out --quiet
diff -r tree out
