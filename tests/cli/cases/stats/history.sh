# What a recorded tree amounts to, and where its log is looked for.
. "$CASES/../replay/history.bash"
history_of_three
cp work.tlog tree.tlog
# How well the log is encoded is tested elsewhere.
qallow stats work.tlog |
    sed -E '/^(index|deltas|operations|frames)/d; /^ +(mean|of|[0-9]+ (data|commit|label|close),)/d'
qallow stats tree | head -1
qallow stats tree/ | head -1
mkdir with
cp work.tlog with/only.tlog
qallow stats with --json | sed 's/,"uuid":.*//'
qallow checkpoint prune work.tlog --keep-epochs 1 >/dev/null
qallow stats work.tlog | head -2
