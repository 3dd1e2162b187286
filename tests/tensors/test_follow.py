#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A target that follows a chain, and consumers that hold it back from being pruned.

    test_follow.py QALLOW

While a producer saves epochs, the target is read over and over: it must always be a whole epoch,
and never an older one than before. Then what must be refused: a target that somebody else changed,
pruning what a consumer needs, an epoch that is damaged. Waits are for conditions."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time

from tensor_files import Tensor, safetensors_bytes

EPOCHS = 8


def content(step):
    data = bytearray(400000)
    data[step * 100:step * 100 + 50] = bytes([step]) * 50
    return safetensors_bytes([Tensor("w", "BF16", [200000], data)], {"step": str(step)})


class Place:
    def __init__(self, qallow, directory):
        self.qallow, self.directory = qallow, directory

    def path(self, name):
        return os.path.join(self.directory, name)

    def run(self, *args, code=0, said=None):
        done = subprocess.run([self.qallow, *args], capture_output=True, text=True, timeout=60,
                              cwd=self.directory)
        assert done.returncode == code, f"{args}: {done.returncode}, not {code}: {done.stderr}"
        assert said is None or done.stderr == said, f"said {done.stderr!r}, not {said!r}"
        return done.stdout

    def save(self, step):
        with open(self.path("model.safetensors"), "wb") as file:
            file.write(content(step))
        self.run("checkpoint", "save", "chain.tlog", "model.safetensors", "--quiet")

    def follow(self, *args):
        with open(self.path("out"), "wb") as out, open(self.path("err"), "wb") as err:
            return subprocess.Popen([self.qallow, "replay", "chain.tlog", "--follow", "--output",
                                     "live", *args], cwd=self.directory, stdout=out, stderr=err)

    def live(self):
        try:
            with open(self.path("live"), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None


def wait_for(condition, process):
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, f"the follower ended with {process.returncode}"
        assert time.monotonic() < end, "the condition did not come"
        time.sleep(0.001)


def stop(process):
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143, process.returncode


def acknowledged(place, name):
    for line in place.run("checkpoint", "consumers", "chain.tlog", "--json").splitlines():
        if json.loads(line)["consumer"] == name:
            return json.loads(line)["epoch"]
    return None


def follows(place):
    """Every reading of the target is a whole epoch."""
    known = {content(step): step for step in range(1, EPOCHS + 1)}
    seen = [0]

    def at(step):
        data = place.live()
        if data is not None:
            assert data in known, "the target is no epoch"
            assert known[data] >= seen[-1], f"epoch {known[data]} after {seen[-1]}"
            seen.append(known[data])
        return seen[-1] == step and acknowledged(place, "one") == step

    place.save(1)
    process = place.follow("--consumer", "one")
    for step in range(1, EPOCHS - 1):
        wait_for(lambda step=step: at(step), process)
        if step == 3:  # what nobody needs may go while somebody follows
            place.run("checkpoint", "prune", "chain.tlog", "--keep-epochs", "1")
        place.save(step + 1)
    wait_for(lambda: at(EPOCHS - 1), process)
    stop(process)


def refuses(place):
    before = place.live()
    place.save(EPOCHS)
    held = EPOCHS - 1
    done = subprocess.run([place.qallow, "checkpoint", "prune", "chain.tlog", "--keep-epochs", "1"],
                          capture_output=True, text=True, cwd=place.directory, timeout=60)
    assert done.returncode == 75 and done.stderr.startswith(
        f"qallow checkpoint prune: chain.tlog: consumer one holds epoch {held} and needs what "
        "follows; it has been silent for "), done
    with open(place.path("live"), "ab") as file:
        file.write(b"x")
    place.run("replay", "chain.tlog", "--follow", "--output", "live", "--consumer", "one", code=73,
              said="qallow replay: live exists already, and is not what this consumer "
              "acknowledged; --force replaces it\n")
    with open(place.path("live"), "wb") as file:
        file.write(before)
    process = place.follow("--consumer", "one")  # now it is again: goes on
    wait_for(lambda: acknowledged(place, "one") == EPOCHS, process)
    assert place.live() == content(EPOCHS)
    with open(place.path("live"), "ab") as file:
        file.write(b"y")
    place.save(1)
    assert process.wait(60) == 73
    with open(place.path("err"), encoding="utf-8") as file:
        assert file.read().endswith(f"live is not what epoch {EPOCHS} put there any more: somebody "
                                    "else changed it; it is left as it is\n")
    assert place.live() == content(EPOCHS) + b"y"


def consumers(place):
    """Two of them: the slower one counts; who is gone is removed."""
    newest = EPOCHS + 1
    place.run("checkpoint", "consumers", "chain.tlog", "--acknowledge", "two")
    assert acknowledged(place, "two") == newest
    place.run("checkpoint", "prune", "chain.tlog", "--keep-epochs", "1", code=75)
    place.run("checkpoint", "prune", "chain.tlog", "--keep-epochs", "1", "--dry-run", code=75)
    place.run("checkpoint", "consumers", "chain.tlog", "--remove", "one")
    place.run("checkpoint", "consumers", "chain.tlog", "--remove", "one", code=66,
              said="qallow checkpoint consumers: chain.tlog: no consumer is called one\n")
    place.run("checkpoint", "consumers", "chain.tlog", "--acknowledge", "two", "--epoch", "99",
              code=66)
    place.run("checkpoint", "consumers", "chain.tlog", "--acknowledge", "a\nb", code=64)
    place.run("checkpoint", "prune", "chain.tlog", "--keep-epochs", "1")
    for number in range(20):
        place.run("checkpoint", "consumers", "chain.tlog", "--acknowledge", f"other-{number}")
    place.run("checkpoint", "consumers", "chain.tlog", "--remove", "other-7")
    place.run("checkpoint", "consumers", "chain.tlog", "--acknowledge", "again")
    names = [json.loads(line)["consumer"] for line in
             place.run("checkpoint", "consumers", "chain.tlog", "--json").splitlines()]
    wanted = {"two", "again"} | {f"other-{n}" for n in range(20) if n != 7}
    assert len(names) == 21 and set(names) == wanted, names


def torn(place):
    """A half that was not written whole is not believed; what was said before stands."""
    place.run("checkpoint", "consumers", "chain.tlog", "--acknowledge", "two")
    with open(place.path("chain.tlog.consumers"), "rb") as file:
        slots = bytearray(file.read())
    at = slots.find(b"two") // 512 * 512
    for half in (at, at ^ 512):
        spoilt = bytearray(slots)
        spoilt[half + 40] ^= 1
        with open(place.path("chain.tlog.consumers"), "wb") as file:
            file.write(spoilt)
        assert acknowledged(place, "two") == EPOCHS + 1
    with open(place.path("chain.tlog.consumers"), "wb") as file:
        file.write(slots)


def main():
    for steps in ((follows, refuses, consumers, torn),):
        with tempfile.TemporaryDirectory() as directory:
            place = Place(os.path.abspath(sys.argv[1]), directory)
            for step in steps:
                try:
                    step(place)
                except (AssertionError, subprocess.TimeoutExpired) as error:
                    print(f"{step.__name__}: {error}")
                    return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
