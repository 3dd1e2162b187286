# A report is compared with earlier ones whose ratios are made a thousand times better and worse.
run() {
    qallow bench --cpu-time --tier smoke --runs 3 --filter kernel/zero-64k \
        --filter delta/apply-sparse --quiet "$@"
}
run --save-baseline now.json >table
doctor() { # FILE FACTOR: a rate and a time, both better or both worse
    /usr/bin/python3 - "$@" <<'PY'
import json, sys
report = json.load(open('now.json'))
for case in report['cases']:
    factor = float(sys.argv[2])
    case['ratio']['median'] *= 1 / factor if case['lower_is_better'] else factor
json.dump(report, open(sys.argv[1], 'w'))
PY
}
doctor better.json 1000
doctor worse.json 0.001
status run --baseline worse.json --fail-over 15% >out
tail -1 out
status run --baseline better.json --fail-over 15% >out
sed -n 's/^zero 64 KiB.*% slower$/zero: slower/p
s/^apply sparse.*% slower$/apply: slower/p
$p' out
# The last one counts; without --fail-over nothing fails.
status run --baseline better.json --baseline worse.json --fail-over 15% >out
tail -1 out
status run --baseline better.json >out
grep -c 'slower$' out
status run --baseline better.json --fail-over 15% --json >out.json
head -n 1 out.json | /usr/bin/python3 -c '
import json, sys
report = json.load(sys.stdin)
comparison = report["comparison"]
print(comparison["slower"], comparison["fail_over"], len(comparison["cases"]))
assert all(case["worse_by"] > 10 for case in comparison["cases"])'
# By the other clock: it is compared, and said.
status qallow bench --tier smoke --runs 1 --filter kernel/zero-64k --baseline now.json >out
grep -c ', processor time$' table out || true
# Other cases only: there is nothing to compare.
status qallow bench --cpu-time --tier smoke --runs 1 --filter kernel/equal --baseline now.json \
    --fail-over 1% >out
tail -1 out
