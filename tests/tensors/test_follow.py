#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A target that follows a chain, and consumers that hold it back from being pruned.

    test_follow.py QALLOW

While a producer saves epochs, the target is read over and over: it must always be a whole epoch,
and never an older one than before. Then what must be refused: a target that somebody else changed,
pruning what a consumer needs, an epoch that is damaged. Waits are for conditions."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

from tensor_files import Tensor, index_bytes, safetensors_bytes

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


@contextlib.contextmanager
def consumers_locked(place):
    """As if another consumer acknowledged for all this time."""
    with open(place.path("chain.tlog.consumers"), "r+b") as file:
        fcntl.fcntl(file, fcntl.F_OFD_SETLKW, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
        yield


def acknowledges_later(place):
    """What could not be acknowledged when it came is so later, without a new epoch; and by the next
    follower, if this one is killed before it can say so."""
    place.save(1)
    process = place.follow("--consumer", "one")
    wait_for(lambda: acknowledged(place, "one") == 1, process)
    for step in (2, 3):
        with consumers_locked(place):
            place.save(step)
            wait_for(lambda step=step: place.live() == content(step), process)
            if step == 3:
                process.kill()
                process.wait(60)
        if step == 3:
            assert acknowledged(place, "one") == 2
            process = place.follow("--consumer", "one")
        wait_for(lambda step=step: acknowledged(place, "one") == step, process)
    stop(process)
    process = place.follow("--consumer", "two")  # has never acknowledged what is there
    wait_for(lambda: acknowledged(place, "two") == 3, process)
    stop(process)


def sharded(step, count):
    """The shards of a step, in files whose names say how many there are."""
    shards = {f"m-{i}-of-{count}.safetensors":
              [Tensor(f"w{i}", "U8", [3000], bytes([i, step]) * 1500)] for i in range(count)}
    files = {name: safetensors_bytes(tensors) for name, tensors in shards.items()}
    files["m.safetensors.index.json"] = index_bytes(shards)
    return files


def directory_of(place, name):
    files = {}
    with contextlib.suppress(FileNotFoundError):
        for entry in os.listdir(place.path(name)):
            with open(os.path.join(place.path(name), entry), "rb") as file:
                files[entry] = file.read()
    return files


def save_shards(place, step, count, *options):
    for name, data in sharded(step, count).items():
        with open(place.path(name), "wb") as file:
            file.write(data)
    place.run("checkpoint", "save", "chain.tlog", "m.safetensors.index.json", "--quiet",
              *options)


def follows_shards(place):
    """A directory of shards, by a follower that is stopped and started again; their names change.
    What is none of them is never taken away."""
    for step, count in ((1, 2), (2, 2), (3, 3)):
        save_shards(place, step, count)
        for _ in range(2):  # from the epoch before; from this one
            process = place.follow("--consumer", "one")
            wait_for(lambda step=step: acknowledged(place, "one") == step and
                     os.path.getsize(place.path("out")), process)
            stop(process)
        assert directory_of(place, "live") == sharded(step, count), f"step {step}"
    with open(place.path("live/config.json"), "wb") as file:
        file.write(b"{}")
    place.run("replay", "chain.tlog", "--follow", "--output", "live", "--consumer", "one", code=73,
              said="qallow replay: live exists already, and is not what this consumer "
              "acknowledged; --force replaces it\n")
    place.run("replay", "chain.tlog", "--output", "live", "--force", code=73,
              said="qallow replay: live holds config.json, which is none of its files, and is left "
              "as it is\n")
    assert directory_of(place, "live") == {**sharded(3, 3), "config.json": b"{}"}
    os.remove(place.path("live/config.json"))
    place.run("replay", "chain.tlog", "--output", "live", code=73,
              said="qallow replay: live exists already\nhint: --force replaces it\n")
    place.run("replay", "chain.tlog", "--output", "live", "--force", "--quiet")
    os.mkdir(place.path("empty"))
    place.run("replay", "chain.tlog", "--output", "empty", "--quiet")
    for name in ("live", "empty"):
        assert directory_of(place, name) == sharded(3, 3), name


def salvages_shards(place):
    """What is lost is said, and the exit says it too; what is not comes back."""
    save_shards(place, 1, 2, "--compress", "off")
    with open(place.path("chain.tlog"), "rb") as file:
        log = bytearray(file.read())
    log[log.index(b"weight_map")] ^= 1
    with open(place.path("chain.tlog"), "wb") as file:
        file.write(log)
    place.run("replay", "chain.tlog", "--output", "back", code=65)
    assert not os.path.exists(place.path("back"))
    place.run("replay", "chain.tlog", "--output", "back", "--salvage", code=65)
    wanted = sharded(1, 2)
    del wanted["m.safetensors.index.json"]
    assert directory_of(place, "back") == wanted
    shutil.rmtree(place.path("back"))


def main():
    for steps in ((follows, refuses, consumers, torn), (acknowledges_later,), (follows_shards,),
                  (salvages_shards,)):
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
