# Logs whose names would lead out of the directory, and whose every checksum is right.
for python in /usr/bin/python3 python3; do
    "$python" -c 'import xxhash, zstandard' 2>/dev/null && break || python=
done
[ -n "$python" ] || { echo "SKIP Python's xxhash and zstandard are not installed" && exit 0; }
mkdir -p in/a in/b
"$python" - "$CASES/../../../reader" <<'PYTHON'
import sys
sys.path.insert(0, sys.argv[1])
from hostile import CASES
for name, (expected, make) in CASES.items():
    if expected == "tree":
        with open(f"{name}.tlog", "wb") as file:
            file.write(bytes(make().out))
PYTHON
for log in *.tlog; do
    echo "# $log"
    mkdir in/a/tree
    echo mine >in/a/tree/mine
    status qallow replay "$log" --output in/a/out 2>&1
    status qallow replay "$log" -e 1 --output in/a/out 2>&1
    status qallow replay "$log" -e 1 --in-place in/a/tree --dry-run --force 2>&1
    status qallow replay "$log" -e 1 --in-place in/a/tree --force 2>&1
    (cd in && find . | LC_ALL=C sort | tr '\n' ' ') && echo
    rm -r in/a/tree
done
find . -name 'escaped*'
test ! -e /tmp/qallow-escaped
