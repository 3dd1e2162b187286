# The cache without a log: what it answers, also when nobody keeps it any more.
mkdir -p work/sub
echo 1 >work/one
echo 2 >'work/sub/odd\name
with a line break'
ln -s one work/link
qallow accelerator --quiet --watch work --no-log --settle 1h --max-settle 1h >out &
until_true grep -qs ready out
xxh128sum=$(qallow accelerator --watch work --get one)
echo "$xxh128sum"
status qallow accelerator --watch work --get one sub/../link 'sub/odd\name
with a line break' missing
(cd work/sub && qallow accelerator --get ../one ../../work/link)
status qallow accelerator --watch work --get "$PWD/work/one" "$PWD/out" | sed "s|$PWD|HERE|"
echo two >work/two
rm work/one
epoch=$(qallow accelerator --watch work --sync)
qallow accelerator --watch work --since 1 | sed "s/epoch $epoch/the newest epoch/"
status qallow accelerator --watch work --since 99
qallow accelerator --watch work --wait 1 | sed "s/$epoch/the newest epoch/"
status qallow accelerator --watch work --wait "$epoch" --timeout 10ms
qallow accelerator --watch work --status | sed -n '/^state:/p;/^files:/p;/^bytes:/p;/^misses:/p'
status qallow accelerator --watch work --no-log --quiet >second 2>&1
sed 's/process [0-9]*/process PID/;s|keeps the cache .*|keeps the cache|' second
qallow accelerator --watch work --stop | sed "s/$epoch/the newest epoch/"
status wait $!
qallow accelerator --watch work --get two
status qallow accelerator --watch work --wait "$epoch"
qallow accelerator --watch work --status | sed -n '/^state/p'
qallow accelerator --watch work --no-log --once
qallow accelerator --watch work --export cache.json
python3 - cache.json <<'END'
import json, sys
cache = json.load(open(sys.argv[1]))
print(cache["schema"], cache["hash"])
for file in sorted(cache["files"], key=lambda file: file["path"]):
    print(repr(file["path"]), file["kind"], file["state"], file["hash"], file["size"])
END
mkfifo pipe
cat pipe >from-pipe &
qallow accelerator --watch work --export pipe
wait $!
cmp from-pipe cache.json && test -p pipe
status qallow accelerator --watch work --export no/such/directory/file
mkdir other
status qallow accelerator --watch other --status
status qallow accelerator --watch nowhere --status
