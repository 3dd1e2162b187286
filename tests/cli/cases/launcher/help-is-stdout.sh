# Help that was asked for is a result.
qallow --help >help 2>err
test ! -s err
cmp <(qallow help) help
cmp <(qallow -h) help
for command in $(qallow help --json | python3 -c '
import json, sys
print(*[c["command"].split()[1] for c in json.load(sys.stdin)["commands"]])'); do
    qallow "$command" --help >"help-$command" 2>err
    test ! -s err
    cmp <(qallow help "$command") "help-$command"
    cmp <(qallow "$command" -h) "help-$command"
done
