# The executable of its own says its own name, in help, errors, hints and its manual page.
alone=$(dirname "$(readlink -f "$QALLOW")")/qallow-accelerator
[ -x "$alone" ] || { echo 'SKIP qallow-accelerator is not built'; exit 0; }
test -c /dev/full || { echo 'SKIP no /dev/full'; exit 0; }
ln -s "$alone" qallow-accelerator
PATH=$PWD:$PATH
qallow-accelerator --version | cmp - <(echo "qallow-accelerator $(qallow version | cut -d' ' -f2)")
qallow-accelerator -V --json | grep -o '"schema":"[^"]*"'
status qallow-accelerator
status qallow-accelerator --verison
status qallow-accelerator --watch nothing --no-log --quiet
status qallow-accelerator --get x --threads 4
rc=0
qallow-accelerator --version >/dev/full || rc=$?
echo "full: exit $rc"
# the same options and examples, and nothing that names the other executable
qallow-accelerator --help >own
qallow accelerator --help >other
sed 's/^qallow accelerator /qallow-accelerator /;s/^Usage: qallow /Usage: qallow-/
    s/^  qallow accelerator/  qallow-accelerator/' other | diff - own || true
grep 'qallow accelerator' own || true
qallow-accelerator --man >own.1
head -n 10 own.1
grep -c 'qallow.*accelerator \\-\\-' own.1
grep 'qallow accelerator' own.1 || true
