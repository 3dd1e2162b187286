# Newlines, control characters and bytes that are not UTF-8 stay on one line, and come back.
. "$CASES/history.bash"
mkdir tree
printf x >"tree/new
line"
printf y >"tree/$(printf 'latin\351')"
printf z >"tree/back\\slash"
stamp 1 tree/*
record
status qallow replay work.tlog --diff 0..1 --stat
{ qallow replay work.tlog --diff 0..1 --stat --json || true; } | grep -o '"name[^,]*'
qallow replay work.tlog -e 1 -o out --quiet
diff <(tree_of tree) <(tree_of out) && echo same
