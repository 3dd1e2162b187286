# Across renames, of names that are gone, and of a name below a renamed directory.
. "$CASES/history.bash"
history_of_three
qallow replay work.tlog --log-of sub/c
qallow replay work.tlog --log-of sub/b
qallow replay work.tlog --log-of link
qallow replay work.tlog --log-of a.txt --json
mv tree/sub tree/moved
stamp 4 tree/moved
record
qallow replay work.tlog --log-of moved/c
status qallow replay work.tlog --log-of never
