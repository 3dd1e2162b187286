# A signal ends --step: while it waits for a command, and in a tick that would never end.
cat >endless.qvm <<'QVM'
.func main
again:
    jmp again
QVM
has_begun() { grep -q '^tick 1 + 0' "$1"; }
has_ended() { ! kill -TERM "$1"; }
ends() {
    local rc=0
    wait "$1" || rc=$?
    echo "exit $rc"
}
mkfifo commands
qallow vm endless.qvm --step --fuel 1000000000000000000 <commands >out.txt 2>err.txt &
qallow=$!
exec 3>commands
until_true has_begun out.txt
until_true has_ended $qallow
ends $qallow
cat err.txt

qallow vm endless.qvm --step --fuel 1000000000000000000 <commands >out.txt 2>err.txt &
qallow=$!
exec 3>commands
echo t >&3
until_true has_begun out.txt
kill -TERM $qallow
ends $qallow
cat err.txt
exec 3>&-
