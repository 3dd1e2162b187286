# That .git directories are left out is said when there is one, once, and not else.
mkdir plain root later
mkdir -p root/.git nested/a/b/.git ignored/.git included/.git linked
echo .git/ >ignored/.qallowignore
echo 'gitdir: elsewhere' >linked/.git
once() {
    echo "$*:"
    qallow accelerator --once --clock logical "$@" 2>said >/dev/null
    cat said
}
for cached in --no-cache --no-log; do
    for directory in plain root nested ignored linked; do
        once --watch "$directory" $cached
    done
    once --watch root $cached --exclude .git
    once --watch included $cached --include-git
done
once --file linked/.git --no-cache
# one that comes later, and another one; with a log and a cache
qallow accelerator --watch later --log live.tlog >out 2>said &
until_true grep -q ready out
cat said
mkdir -p later/sub/.git
qallow accelerator --sync --log live.tlog >/dev/null
mkdir later/.git
qallow accelerator --sync --log live.tlog >/dev/null
qallow accelerator --stop --log live.tlog >/dev/null
status wait $!
cat said
