#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the example in an empty folder, twice, and looks at what it says and leaves."""
import pathlib
import subprocess
import sys
import tempfile

example, = sys.argv[1:]
with tempfile.TemporaryDirectory() as folder:
    result = subprocess.run([example, folder], capture_output=True, text=True, check=False)
    print(result.stdout, result.stderr)
    assert result.returncode == 0, result.returncode
    lines = result.stdout.splitlines()
    assert lines[0] == 'epochs: 11', lines
    assert 0 < int(lines[1].rpartition(' ')[2]) <= 96, lines  # three steps of 32 cells
    assert lines[2].endswith(': yes'), lines
    left = {path.name for path in pathlib.Path(folder).iterdir()}
    assert {'simulation.tlog', 'newest.qckpt'} <= left, left
    # The page's name is taken now: the second run must say so and change nothing.
    again = subprocess.run([example, folder], capture_output=True, text=True, check=False)
    assert again.returncode == 1 and 'create: page exists' in again.stderr, again
