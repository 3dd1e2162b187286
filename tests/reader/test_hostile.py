#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Logs with every checksum right and something else wrong are refused, by both readers.

    test_hostile.py OUTCOME     OUTCOME is the program of outcome.c"""

import os
import sys
import tempfile

from hostile import CASES
from qallow_reader import Log, LogError, Malformed, tree_paths
from test_damage import check, run


def comes_to(data):
    """What the Python reader makes of a log, in the words of hostile.py."""
    try:
        log = Log(data, max_page=1 << 24)
        log.verify()
    except LogError:
        return "bad"
    if log.outcome == "torn":
        return "torn"
    try:
        for _, state in log.replay():
            list(tree_paths(state))
    except Malformed:
        return "tree"
    return "good"


def main():
    outcome, wrong = sys.argv[1], 0
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "hostile.tlog")
        for name, (expected, make) in CASES.items():
            data = bytes(make().out)
            with open(path, "wb") as file:
                file.write(data)
            try:
                said = comes_to(data)
                assert said == expected, f"{said} for the Python reader, should be {expected}"
                check(name, data, run(outcome, path, [f"file {path}"], directory)[0])
            except AssertionError as error:
                print(f"{name}: {error}")
                wrong += 1
    print(f"{len(CASES)} logs, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
