# One epoch each time something differs; one file; what is left out.
. "$CASES/../replay/history.bash"
mkdir -p tree/.git tree/build
echo a >tree/a
echo o >tree/build/x.o
echo g >tree/.git/config
stamp 1 tree/a tree/build/x.o tree/.git/config tree
until_true is_old tree/a
qallow checkpoint save work.tlog tree --exclude '*.o' --label first
qallow checkpoint save work.tlog tree --exclude '*.o' --json
qallow replay work.tlog --diff 0..1 --stat || true
qallow checkpoint save file.tlog tree/a
qallow replay file.tlog --page a
status qallow checkpoint save work.tlog missing
status qallow checkpoint save no/such/dir.tlog tree
status qallow checkpoint save tree tree
status qallow checkpoint save work.tlog
status qallow checkpoint save new.tlog tree --uuid 123
status qallow checkpoint save new.tlog tree --clock sundial
mkfifo pipe
status qallow checkpoint save work.tlog pipe
ls
