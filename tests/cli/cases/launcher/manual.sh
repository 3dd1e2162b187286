# Every page renders without a complaint, names itself, and no line is lost on the way.
need man
for page in '' $(qallow help --json | python3 -c '
import json, sys
print(*[c["command"].split()[1] for c in json.load(sys.stdin)["commands"]])'); do
    # shellcheck disable=SC2086 # no word for the root
    qallow help --man $page >page.1
    MANWIDTH=80 man --warnings=w -E UTF-8 -l page.1 >text 2>err
    cat err >&2
    grep -q "^ *qallow${page:+-$page} - " text
done
