# Several directories: if one cannot be kept from the start, nothing is started or left.
mkdir a b
echo 1 >a/x && echo 1 >b/x && echo 1 >file && ln -s a same
export QALLOW_CACHE_DIR=$PWD/caches && mkdir caches
try() { status qallow accelerator "$@"; }
for keep in '--log-beside' --no-log '--no-log --once' --once; do
    # shellcheck disable=SC2086 # words are meant to be split
    set -- ${keep#--log-beside}
    try --watch a --watch missing "$@"
    try --watch missing --watch a "$@"
    try --watch a --watch b --watch file "$@"
    try --watch a --watch a "$@"
    try --watch a --watch b --watch same/. "$@"
    try --watch missing --watch missing "$@"
done
ls . caches
echo -- and if all can
qallow accelerator --quiet --watch a --watch b --no-log --once >out
status wc -l <out
qallow accelerator --get a/x b/x
