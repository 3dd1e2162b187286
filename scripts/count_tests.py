#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Counts a Meson test log: prints what failed and what was skipped, then "N passed, N failed".

Fails if a test failed or none ran. Skipped tests are named, so that they are not taken for passed
ones.
"""
import json
import sys


def main(path):
    counts = {}
    try:
        with open(path, encoding='utf-8') as log:
            for line in log:
                test = json.loads(line)
                counts.setdefault(test['result'], []).append(test['name'])
    except FileNotFoundError:
        pass
    passed = len(counts.pop('OK', [])) + len(counts.pop('EXPECTEDFAIL', []))
    skipped = counts.pop('SKIP', [])
    for name in skipped:
        print(f'skipped: {name}')
    for result, names in sorted(counts.items()):
        for name in names:
            print(f'{result.lower()}: {name}')
    failed = sum(map(len, counts.values()))
    print(f'{passed} passed, {failed} failed' + (f', {len(skipped)} skipped' if skipped else ''))
    return 0 if passed and not failed else 1


if __name__ == '__main__':
    sys.exit(main(sys.argv[1]))
