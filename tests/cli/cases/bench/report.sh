# All forms of a report are well-formed and say the same; nothing is left behind.
mkdir scratch
run() {
    qallow bench --tier smoke --runs 2 --filter kernel/zero --filter digest \
        --filter 'replay/*-[46]*' --filter seek --dir scratch "$@"
}
run --quiet >table
run --save-baseline first.json --json >report.json 2>notes
run --csv --baseline first.json --baseline first.json --html page.html >report.csv 2>notes
ls -A scratch
/usr/bin/python3 - <<'PY'
import csv, html.parser, json, re
import xml.etree.ElementTree

names = ['kernel/zero-64k', 'digest/64m', 'replay/dense-4k', 'replay/sparse-64', 'replay/seek']
report = json.load(open('report.json'))
saved = json.load(open('first.json'))
assert report['schema'] == saved['schema'] == 'qallow.bench' and report['version'] == 1
assert report == saved
assert [case['name'] for case in report['cases']] == names
for case in report['cases']:
    for part in 'figure', 'reference', 'ratio':
        spread = case[part]
        assert 0 < spread['minimum'] <= spread['low'] <= spread['median'] <= spread['high'], case
assert set(report['machine']) == {'cpu', 'cpus', 'memory', 'kernels', 'system', 'compiler', 'load'}

rows = list(csv.reader(open('report.csv', newline=''), strict=True))
assert rows[0] == ['time', 'case', 'quantity', 'value', 'unit']
assert all(len(row) == 5 for row in rows)
assert {row[1] for row in rows[1:]} == set(names)
assert all(float(row[3]) >= 0 for row in rows[1:])

class Page(html.parser.HTMLParser):
    """Every element that is opened is closed; nothing comes from elsewhere."""
    open_, empty, seen = [], {'meta', 'br'}, []
    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        assert not {'src', 'href'} & {name for name, _ in attributes}
        if tag not in self.empty:
            self.open_.append(tag)
    def handle_endtag(self, tag):
        assert self.open_.pop() == tag
    def handle_startendtag(self, tag, attributes):
        self.seen.append(tag)

text = open('page.html').read()
page = Page()
page.feed(text)
page.close()
assert page.open_ == [] and page.seen.count('html') == 1 and 'script' not in page.seen
charts = re.findall(r'<svg.*?</svg>', text, re.DOTALL)
for chart in charts:
    xml.etree.ElementTree.fromstring(chart)
print(len(charts), 'charts')  # bars and history of each case
assert 'nan' not in text and 'inf"' not in text

table = open('table').read().splitlines()
print(len(table) - 3, 'cases in the table;', table[2].split())
PY
