# What is older than a time goes, but for the newest epoch.
. "$CASES/../replay/history.bash"
history_of_three
qallow checkpoint prune work.tlog --keep-time 1h --dry-run
qallow checkpoint prune work.tlog --keep-time 1h
qallow replay work.tlog
status qallow replay work.tlog -e 2 -o out
qallow replay work.tlog -e 3 -o out --quiet
diff <(tree_of tree) <(tree_of out) && echo same
