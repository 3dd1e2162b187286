#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the example, and looks at what it says and at the log that it leaves."""
import pathlib
import subprocess
import sys
import tempfile

example, qallow = sys.argv[1:]
WANTED = """\
tick 1 is epoch 2: 6 fuel, 1 calls so far
  sum = 1
tick 2 is epoch 3: 9 fuel, 2 calls so far
  sum = 2
tick 3 is epoch 4: 9 fuel, 3 calls so far
  sum = 3
world 1: 1 defined anew, 1 stale
tick 4 is epoch 6: 9 fuel, 4 calls so far
  sum = 13
tick 5 is epoch 7: 9 fuel, 5 calls so far
  sum = 23
main: of world 0, 0 calls
step: of world 1, 5 calls
"""
with tempfile.TemporaryDirectory() as folder:
    result = subprocess.run([example, folder], capture_output=True, text=True, check=False)
    print(result.stdout, result.stderr)
    assert result.returncode == 0, result.returncode
    assert result.stdout == WANTED, WANTED
    log = pathlib.Path(folder) / 'run.tlog'
    checked = subprocess.run([qallow, 'vm', '--check', log], capture_output=True, text=True,
                             check=False)
    assert checked.stdout == '7 epochs: the same again\n', checked
    again = subprocess.run([example, folder], capture_output=True, text=True, check=False)
    assert again.returncode == 1 and 'create: cannot create' in again.stderr, again
