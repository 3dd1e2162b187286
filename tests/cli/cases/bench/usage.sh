status qallow bench --frobnicate
status qallow bench --tier quick
status qallow bench --runs 0
status qallow bench --runs 501
status qallow bench --threads 65
status qallow bench --peers redis,oracle
status qallow bench --peers ''
status qallow bench --fail-over 15% --list
status qallow bench --fail-over much --baseline before.json
status qallow bench --json --csv
status qallow bench --cpu-time --peers all
status qallow bench extra
# Before anything is measured.
status qallow bench --baseline missing.json
echo '{"schema": "qallow.stats", "version": 1}' >other.json
status qallow bench --baseline other.json
echo '{"schema": "qallow.bench", "version": 2, "cases": []}' >later.json
status qallow bench --baseline later.json
status qallow bench --filter kernel/zero-64k --dir missing
ls -A
