# A recorded tree that contains logs, its own among them and a copy of its own.
. "$CASES/../replay/history.bash"
mkdir tree
echo a >tree/a
umask 022
save() { qallow checkpoint save tree/own.tlog tree --quiet --clock logical; }
save
cp tree/own.tlog tree/copy.tlog
save
cp tree/own.tlog tree/copy.tlog
save
qallow replay tree/own.tlog --verify >/dev/null
qallow replay tree/own.tlog -o out --quiet
cmp out/copy.tlog tree/copy.tlog
qallow replay out/copy.tlog --list --quiet | wc -l
ls -A out
