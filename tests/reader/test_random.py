#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writer against readers: whatever history is written, every epoch is read back as it was, from the
log whole and from the log pruned; and the C reader comes to the same digest.

    test_random.py [OUTCOME]     OUTCOME is the program of outcome.c

QALLOW_SEED repeats a run, QALLOW_ROUNDS makes it longer."""

import os
import random
import sys
import tempfile

from histories import random_history
from qallow_reader import Log
from test_damage import run


def as_tuple(page):
    return (page.id, page.parent, page.kind, page.name, page.mode, page.mtime, page.extra,
            page.version, page.content)


def check(log, path):
    log.save(path, zeros=random.choice((0, 4096)))
    read = Log(path)
    assert read.outcome == "clean", read.outcome
    assert read.verify() == log.epoch
    assert read.labels() == log.names, (read.labels(), log.names)
    seen = []
    for epoch, state in read.replay():
        seen.append(epoch.epoch)
        wanted = {i: as_tuple(page) for i, page in log.history[epoch.epoch].pages.items()}
        found = {i: as_tuple(page) for i, page in state.pages.items()}
        assert found == wanted, f"epoch {epoch.epoch} differs"
    assert seen == sorted(log.history), (seen, sorted(log.history))


def check_c(outcome, log, path, directory):
    """The C reader verifies every epoch, before and after recovery for writing."""
    for mode in ((), ("recover",)):
        result, first, last, digest = run(outcome, path, [f"file {path}"], directory,
                                          *mode)[0].split()
        assert (int(result), int(first), int(last)) == (0, min(log.history), log.epoch), \
            f"C {mode}: result {result}, epochs {first} to {last}"
        assert int(digest, 16) == log.digest, f"C {mode}: another digest"


def main():
    seed = int(os.environ.get("QALLOW_SEED", random.SystemRandom().randrange(2**32)))
    rounds = int(os.environ.get("QALLOW_ROUNDS", 60))
    print(f"QALLOW_SEED={seed} QALLOW_ROUNDS={rounds}")
    with tempfile.TemporaryDirectory() as directory:
        for number in range(rounds):
            random.seed(seed + number)
            log = random_history(random, random.randrange(1, 12))
            path = os.path.join(directory, "log.tlog")
            try:
                check(log, path)
                if len(sys.argv) > 1:
                    check_c(sys.argv[1], log, path, directory)
            except BaseException:
                print(f"round {number}: QALLOW_SEED={seed + number} QALLOW_ROUNDS=1")
                raise
    print(f"{rounds} histories")


if __name__ == "__main__":
    sys.exit(main())
