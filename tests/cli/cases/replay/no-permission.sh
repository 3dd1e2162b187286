# A log that may not be read, a target that may not be written.
. "$CASES/history.bash"
history_of_three
run=()
if [ "$(id -u)" = 0 ]; then
    need setpriv
    run=(setpriv --reuid 65534 --regid 65534 --clear-groups)
    chmod 755 . .. ../bin
    "${run[@]}" "$(readlink -f "$QALLOW")" version >/dev/null 2>&1 || {
        echo 'SKIP an unprivileged user cannot run the executable here'
        exit 0
    }
fi
chmod 000 work.tlog
status "${run[@]}" "$(readlink -f "$QALLOW")" replay work.tlog
chmod 644 work.tlog
mkdir closed
chmod 555 closed
status "${run[@]}" "$(readlink -f "$QALLOW")" replay work.tlog -e 1 -o closed/out
status "${run[@]}" "$(readlink -f "$QALLOW")" checkpoint save closed/x.tlog tree
ls closed
