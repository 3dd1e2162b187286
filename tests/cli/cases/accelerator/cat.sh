# --cat: the bytes that --content keeps, as they are.
mkdir -p work/sub bare
head -c 300000 /dev/urandom >work/random
printf 'no line\nbreak at the end \0 \377' >work/sub/odd
: >work/empty
head -c 2000000 /dev/zero >work/large
echo 1 >bare/file
qallow accelerator --quiet --watch work --no-log --content=512K --once >/dev/null
qallow accelerator --quiet --watch bare --no-log --once >/dev/null
for file in random sub/odd empty; do
    qallow accelerator --cat "work/$file" >bytes
    cmp bytes "work/$file" && echo "$file is the same"
    qallow accelerator --watch work --cat "$file" | cmp - bytes
done
echo -- not kept
status qallow accelerator --cat work/large
status qallow accelerator --cat bare/file
status qallow accelerator --watch work --cat large
status qallow accelerator --cat work/missing
status qallow accelerator --cat work
status qallow accelerator --cat elsewhere
status qallow accelerator --watch elsewhere --cat file
echo -- changed since
qallow accelerator --quiet --watch work --no-log --content --settle 1h --max-settle 1h >out &
until_true grep -qs ready out
cp work/sub/odd before
echo more >>work/sub/odd
is_pending() { ! qallow accelerator --quiet --get work/sub/odd >/dev/null 2>&1; }
until_true is_pending
rc=0
qallow accelerator --cat work/sub/odd >bytes || rc=$?
cmp bytes before && echo "as it was before, exit $rc"
qallow accelerator --watch work --sync >/dev/null
qallow accelerator --cat work/sub/odd | cmp - work/sub/odd && echo now the same
qallow accelerator --watch work --stop >/dev/null
wait $!
echo -- wrong usage
status qallow accelerator --cat
status qallow accelerator --cat work/random work/empty
status qallow accelerator --cat work/empty --json
echo -- full
test -c /dev/full || { echo 'SKIP no /dev/full'; exit 0; }
rc=0
qallow accelerator --cat work/random >/dev/full || rc=$?
echo "exit $rc"
