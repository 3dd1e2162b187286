#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Several producers on one chain, and a file that never holds still, through the command.

    test_producers.py QALLOW

Producers that start at once: each lands its epoch or is told who is there (75), and the chain holds
just what landed. A file that is written all the time is refused in one line (75), until it holds
still. tests/tensors/changing_test.c has each change at a given point of a save."""

import os
import re
import subprocess
import sys
import tempfile
import threading

from tensor_files import Tensor, safetensors_bytes

PRODUCERS, ROUNDS, SIZE = 4, 6, 400000
SAVE = "qallow checkpoint save: model.safetensors "
# Without a number if it has the lock and has not written it down yet.
BUSY = (r"qallow checkpoint save: chain\.tlog: (process [1-9][0-9]*|another process) is recording "
        r"to it\n")
CHANGED = (SAVE + "changed while it was read; try again\n",
           SAVE + "became shorter while it was read; try again\n")


def content(number, size=SIZE):
    data = bytearray(size)
    data[number * 4:number * 4 + 4] = b"\x01\x02\x03\x04"
    return safetensors_bytes([Tensor("w", "F32", [size // 4], data)], {"step": str(number)})


class Place:
    def __init__(self, qallow, directory):
        self.qallow, self.directory = qallow, directory

    def write(self, name, data):
        with open(os.path.join(self.directory, name), "wb") as file:
            file.write(data)

    def read(self, name):
        with open(os.path.join(self.directory, name), "rb") as file:
            return file.read()

    def start(self, *args):
        return subprocess.Popen([self.qallow, *args], cwd=self.directory, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run(self, *args):
        process = self.start(*args)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, f"{args}: {process.returncode}: {err}"
        return out

    def check(self, epochs):
        for epoch, data in epochs.items():
            self.run("replay", "chain.tlog", "--epoch", str(epoch), "--output", "back", "--force")
            assert self.read("back") == data, f"epoch {epoch} is not what was saved"
        self.run("replay", "chain.tlog", "--verify")


def producers(place):
    """Epochs follow each other without a gap, each with what its producer had."""
    epochs, number = {}, 0
    while number < PRODUCERS * ROUNDS or len(epochs) < ROUNDS:
        started = []
        for _ in range(PRODUCERS):
            place.write(f"model-{number}.safetensors", content(number))
            started.append((number, place.start("checkpoint", "save", "chain.tlog",
                                                f"model-{number}.safetensors", "--quiet")))
            number += 1
        for which, process in started:
            out, err = process.communicate(timeout=60)
            if process.returncode == 0:
                epoch = int(out.split()[1])
                assert epoch not in epochs, f"epoch {epoch} was given twice"
                epochs[epoch] = content(which)
            else:
                assert process.returncode == 75, f"exit {process.returncode}: {err}"
                assert re.fullmatch(BUSY, err), err
    assert sorted(epochs) == list(range(1, len(epochs) + 1)), sorted(epochs)
    place.check(epochs)


def restless(place):
    """Refused while somebody writes, saved when nobody does."""
    before = place.read("chain.tlog")
    stop = threading.Event()
    place.write("model.safetensors", content(1, 8 << 20))

    def write_all_the_time():
        with open(os.path.join(place.directory, "model.safetensors"), "r+b") as file:
            while not stop.is_set():
                file.seek(-1, os.SEEK_END)
                file.write(b"x")
                file.flush()

    writer = threading.Thread(target=write_all_the_time)
    writer.start()
    try:
        code = 0
        while code == 0:  # a writer that the system lets wait for a whole save is no writer
            process = place.start("checkpoint", "save", "chain.tlog", "model.safetensors")
            _, err = process.communicate(timeout=60)
            code = process.returncode
    finally:
        stop.set()
        writer.join()
    assert code == 75 and err in CHANGED, f"exit {code}: {err}"
    assert place.read("chain.tlog")[8192:len(before)] == before[8192:], "the log is another one"
    newest = int(place.run("checkpoint", "save", "chain.tlog", "model.safetensors").split()[1])
    place.check({newest: place.read("model.safetensors")})


def main():
    with tempfile.TemporaryDirectory() as directory:
        place = Place(os.path.abspath(sys.argv[1]), directory)
        for step in (producers, restless):
            try:
                step(place)
            except (AssertionError, subprocess.TimeoutExpired) as error:
                print(f"{step.__name__}: {error}")
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
