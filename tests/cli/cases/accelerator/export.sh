# --export: whole or not at all, whoever else writes the same file, and nothing is left beside it.
test -c /dev/full || { echo 'SKIP no /dev/full'; exit 0; }
mkdir work
for i in {1..2000}; do echo "$i" >"work/$i"; done
qallow accelerator --quiet --watch work --no-log --once >/dev/null
is_whole() {
    python3 -c 'import json, sys; print(len(json.load(open(sys.argv[1]))["files"]))' "$1"
}
mkdir out
echo somebody\'s >out/cache.json.qallow-tmp
pids=()
for _ in {1..8}; do
    qallow accelerator --watch work --export out/cache.json &
    pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid"; done
is_whole out/cache.json
cat out/cache.json.qallow-tmp
# a name as long as names can be
long=out/$(printf '%0255d' 0)
qallow accelerator --watch work --export "$long"
is_whole "$long"
rm "$long"

echo no permission
status qallow accelerator --watch work --export /sys/qallow.json 2>said
sed 's/: [^:]*$//' said
echo cannot be created
mkdir out/directory
status qallow accelerator --watch work --export out/directory
status qallow accelerator --watch work --export out/missing/file
status qallow accelerator --watch work --export out/cache.json/file
status qallow accelerator --watch work --export "${long}0" 2>&1 | sed 's/00*/0.../'
echo full
status qallow accelerator --watch work --export /dev/full
for file in out/new out/cache.json; do
    status bash -c 'trap "" XFSZ; ulimit -f 8; exec "$@"' - \
        qallow accelerator --watch work --export "$file"
done
is_whole out/cache.json

echo interrupted
has_begun() { compgen -G 'out/.*.qallow-tmp' || ! kill -0 "$1"; }
for _ in {1..10}; do
    qallow accelerator --watch work --export out/cache.json 2>/dev/null &
    until has_begun $! >/dev/null 2>&1; do :; done
    kill "$!" 2>/dev/null || true
    rc=0
    wait $! || rc=$?
    [ $rc = 0 ] || [ $rc = 143 ] || echo "exit $rc"
done
is_whole out/cache.json
ls -A out
