# Every case, and what selects them.
qallow bench --list --peers all
qallow bench --list --json | /usr/bin/python3 -c '
import json, sys
report = json.load(sys.stdin)
print(report["schema"], report["version"], sorted(report["cases"][0]))'
qallow bench --list --filter digest --filter 'kernel/*-64k' --tier smoke
status qallow bench --list --filter no-such-case
