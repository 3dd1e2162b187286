# No line of any help is wider than 80 columns.
python3 - <<'PY'
import json, os, subprocess
qallow = os.environ['QALLOW']
table = json.loads(subprocess.check_output([qallow, 'help', '--json']))

def walk(command):
    words = command['command'].split()[1:]
    text = subprocess.check_output([qallow, 'help', *words], text=True)
    for line in text.splitlines():
        # an example is one line to paste, however long
        if len(line) > 80 and not line.startswith('  qallow'):
            print(command['command'], repr(line))
    for action in command['commands']:
        walk(action)

walk(table)
PY
