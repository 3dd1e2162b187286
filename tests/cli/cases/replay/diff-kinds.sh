# A file becomes a directory, a symlink a file; a file is removed and made again.
. "$CASES/history.bash"
mkdir tree
echo file >tree/x
ln -s x tree/y
stamp 1 tree/x tree/y
record
rm tree/x tree/y
mkdir tree/x
echo inner >tree/x/inner
echo file >tree/y
stamp 2 tree/x/inner tree/x tree/y
record
status qallow replay work.tlog --diff 1..2
