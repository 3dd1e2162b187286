# What cannot be told; and that the others of a directory are told all the same.
. "$CASES/mask.bash"
status qallow stats
status qallow stats missing
mkdir empty
status qallow stats empty
status qallow stats empty --json
echo 'some text' >text.tlog
status qallow stats text.tlog
status qallow stats /dev/null
cp "$golden/damaged-data.tlog" damaged.tlog
status qallow stats damaged.tlog
mkdir some
cp "$golden/parts.tlog" some/b.tlog
cp text.tlog some/a.tlog
ln -s nowhere some/c.tlog
cp damaged.tlog some/d.tlog
status qallow stats some | without_disk
status qallow stats some --json | without_disk | sed 's/.*"sum"/"sum"/'
rm some/b.tlog
status qallow stats some | without_disk
