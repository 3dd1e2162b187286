. "$CASES/../replay/history.bash"
history_of_three
cp work.tlog tree.tlog
qallow stats work.tlog | grep -v '^index'
qallow stats tree | head -1
qallow stats tree/ | head -1
mkdir with
cp work.tlog with/only.tlog
qallow stats with --json
cp work.tlog with/second.tlog
status qallow stats with
mkdir without
status qallow stats without
status qallow stats missing
qallow checkpoint prune work.tlog --keep-epochs 1 >/dev/null
qallow stats work.tlog | head -2
