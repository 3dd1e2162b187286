# --get: each path is asked of the cache that covers it.
mkdir -p a/sub b/nested c/deep elsewhere
echo a >a/x && echo sub >a/sub/y && echo b >b/x && echo nested >b/nested/z && echo f >c/f2
echo other >c/other && echo elsewhere >elsewhere/e
ln -s ../elsewhere/e a/link && ln -s a name-of-a && ln -s c/f2 name-of-f2 && ln -s sub a/name-of-sub
for watch in '--watch a' '--watch b' '--watch b/nested' '--file c/f2'; do
    # shellcheck disable=SC2086 # words are meant to be split
    qallow accelerator --quiet $watch --no-log --once >/dev/null
done
get() { status qallow accelerator "$@" | sed "s|$PWD|HERE|"; }
echo -- one file
get --get c/f2
get --get name-of-f2
get --get "$PWD/c/deep/../f2"
(cd c && get --get f2 && get --get ./f2 && get --get other)
(cd c/deep && get --get ../f2)
get --file c/f2 --get c/f2
get --file c/f2 --get c/other
(cd c && get --file f2 --get f2)
mv c/f2 c/gone
get --get c/f2
mv c/gone c/f2
echo -- several caches
get --get b/x a/sub/y b/nested/z c/f2 a/x
get --get a/x b/missing c/f2
get --get a/x c/other b/x
get --get b/missing c/other
echo -- links
get --get a/link
get --get name-of-a/x a/name-of-sub/y
get --watch name-of-a --get x "$PWD/name-of-a/sub/y"
get --watch a --get name-of-sub sub/../x name-of-sub/y
get --get b/new/../x b/new/missing
echo -- json
get --get a/x b/nested/z --json | sed 's/"mtime.*/.../'
