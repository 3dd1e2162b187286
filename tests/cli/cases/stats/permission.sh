# Files and directories that may not be read.
. "$CASES/mask.bash"
[ "$(id -u)" != 0 ] || {
    echo "SKIP root may read everything"
    exit 0
}
mkdir some closed
cp "$golden/parts.tlog" some/b.tlog
cp "$golden/parts.tlog" some/a.tlog
chmod 0 some/a.tlog
status qallow stats some/a.tlog
status qallow stats some | without_disk
chmod 0 closed
status qallow stats closed
chmod 700 closed
