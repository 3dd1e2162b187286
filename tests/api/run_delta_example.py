#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the example of deltas between buffers and looks at what it says."""
import re
import subprocess
import sys

result = subprocess.run(sys.argv[1:2], capture_output=True, text=True, check=False)
print(result.stdout, result.stderr)
assert result.returncode == 0, result.returncode
first, *others = result.stdout.splitlines()
changed, length, whole = map(int, re.fullmatch(
    r"(\d+) of \d+ weights changed: (\d+) bytes for (\d+)", first).groups())
assert 4 * changed < length < whole // 20, first
assert others == ["the worker has the trainer's weights", "applied again: differs",
                  "taken back: the old weights"], others
