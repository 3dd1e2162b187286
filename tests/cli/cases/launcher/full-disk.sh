# What could not be written is not a success.
test -c /dev/full || { echo 'SKIP no /dev/full'; exit 0; }
status qallow version >/dev/null
for command in 'version' 'version --json' '--help' 'completion bash' 'help --man'; do
    rc=0
    # shellcheck disable=SC2086 # words are meant to be split
    qallow $command >/dev/full || rc=$?
    echo "$command: exit $rc"
done
rc=0
qallow version >&- || rc=$?
echo "closed: exit $rc"
