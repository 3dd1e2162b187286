#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Damaged logs: what the C reader makes of them is what the rules say.

    test_damage.py OUTCOME GOLDEN-DIRECTORY

Golden logs are cut at every byte; every bit of frame headers is flipped, and a bit of every other
byte; sectors are lost; values are changed and the checksums made right again, so that only the
meaning is wrong. The Python reader judges each by the specification, OUTCOME (outcome.c) runs the C
reader on it. QALLOW_SEED repeats a run; QALLOW_ROUNDS above 1 makes it longer, and does with all
logs what is otherwise done with the first one, and by samples with the others."""

import os
import random
import struct
import subprocess
import sys
import tempfile

import xxhash

from qallow_reader import (
    FIRST_FRAME, FRAME_HEADER, KEYFRAME, Log, LogError, NewerVersion, NotALog, TooLarge, frame_seed)

DAMAGED, SERIALIZATION, VERSION, NOT_A_LOG, LIMIT = -20, -21, -22, -23, -41
LOGS = ("unclosed.tlog", "closed.tlog", "labels.tlog", "keyframes.tlog", "compressed.tlog",
        "pruned.tlog", "parts.tlog", "riding.tlog")


# --- what the rules say --------------------------------------------------------------------------

def judged(data):
    """(results that are right, last epoch, its digest); the last two None if it cannot be read."""
    try:
        log = Log(data, max_page=1 << 24)
        if log.outcome == "damaged":
            return (DAMAGED,), None, None
        log.labels()
        log.relocations()
        last = digest = 0
        for epoch, _ in log.replay():
            last, digest = epoch.epoch, epoch.digest
        return (0,), last, digest
    except NotALog:
        return (NOT_A_LOG,), None, None
    except NewerVersion:
        return (VERSION,), None, None
    except TooLarge:
        return (0, LIMIT, DAMAGED, SERIALIZATION), None, None
    except LogError:
        return (DAMAGED, SERIALIZATION), None, None


def check(change, data, line):
    results, last, digest = judged(data)
    result, _, c_last, c_digest = line.split()
    assert int(result) in results, f"{change}: {result} instead of {results}"
    if last is not None:
        assert int(c_last) == last, f"{change}: last epoch {c_last} instead of {last}"
        assert int(c_digest, 16) == digest, f"{change}: another digest"


# --- changes -------------------------------------------------------------------------------------

def apply(data, change):
    data = bytearray(data)
    for step in change.split(";"):
        word, *numbers = step.split()
        numbers = [int(number) for number in numbers]
        if word == "cut":
            del data[numbers[0]:]
        elif word == "xor":
            data[numbers[0]] ^= numbers[1]
        else:
            data[numbers[0]:sum(numbers)] = bytes(numbers[1])
    return bytes(data)


def cuts(log, step):
    data = log.data
    yield from (f"cut {n}" for n in range(0, 8192, 97))
    yield from (f"cut {n}" for n in range(FIRST_FRAME, len(data), step))


def flips(log, rng, every_bit):
    data = log.data
    for byte in [*range(0, 128), *range(4096, 4224)]:
        yield f"xor {byte} {1 << rng.randrange(8)}"
    heads = set()
    for frame in log.frames:
        heads |= set(range(frame.offset, frame.offset + FRAME_HEADER.size))
    for byte in range(FIRST_FRAME, len(data)):
        for bit in range(8) if byte in heads and every_bit else (rng.randrange(8),):
            yield f"xor {byte} {1 << bit}"


def losses(log, rng, count):
    """Sectors that read as zeros, alone and with a cut."""
    data = log.data
    for _ in range(count):
        at = rng.randrange(0, len(data) // 512) * 512
        length = min(512 * rng.randrange(1, 4), len(data) - at)
        yield f"put {at} {length}"
        yield f"put {at} {length};cut {rng.randrange(at + length, len(data) + 1)}"


def resealed(log, rng, count):
    """One value changed in the body or header of a frame, all checksums behind it made right. What
    a keyframe says need not be read, but for the one that a pruned log begins with."""
    frames = [frame for frame in log.frames
              if frame.type != KEYFRAME or frame.offset == log.header.base]
    for _ in range(count):
        data = bytearray(log.data)
        frame = rng.choice(frames)
        if rng.random() < 0.2 or not frame.length:
            at = frame.offset + rng.choice((2, 3, 16, 17, 20))
        else:
            at = frame.offset + FRAME_HEADER.size + rng.randrange(frame.length)
        data[at] ^= 1 << rng.randrange(8)
        reseal(data, log.frames, log.header)
        yield ";".join(f"xor {i} {a ^ b}" for i, (a, b) in enumerate(zip(log.data, data)) if a != b)


def reseal(data, frames, header):
    prev = header.start_prev
    for frame in frames:
        seed = frame_seed(header.uuid, frame.offset)
        start = frame.offset + FRAME_HEADER.size
        struct.pack_into("<Q", data, frame.offset + 8, prev)
        body_sum = xxhash.xxh3_64_intdigest(bytes(data[start:start + frame.length]), seed)
        struct.pack_into("<Q", data, frame.offset + 24, body_sum)
        prev = xxhash.xxh3_64_intdigest(bytes(data[frame.offset:frame.offset + 32]), seed)
        struct.pack_into("<Q", data, frame.offset + 32, prev)


def slots(log):
    """Every byte of the header slot changed, its checksum made right again."""
    for byte in range(8, 88):
        data = bytearray(log.data)
        data[byte] ^= 0x81
        struct.pack_into("<Q", data, 120, xxhash.xxh3_64_intdigest(bytes(data[:120]), 0))
        yield ";".join(f"xor {i} {a ^ b}" for i, (a, b) in enumerate(zip(log.data, data)) if a != b)


# --- running -------------------------------------------------------------------------------------

def run(outcome, path, changes, directory, *mode):
    done = subprocess.run([outcome, path, os.path.join(directory, "copy.tlog"), *mode],
                          input="\n".join(changes) + "\n", capture_output=True, text=True)
    assert done.returncode == 0, f"{path}: outcome ended with {done.returncode}\n{done.stderr}"
    return done.stdout.splitlines()


def check_log(outcome, path, rng, rounds, directory):
    with open(path, "rb") as file:
        data = file.read()
    log = Log(data)
    # The first log is the plain one: everything. The others differ in few frames: samples.
    whole = rounds > 1 or os.path.basename(path) == LOGS[0]
    changes = [*cuts(log, 1 if whole else 5), *flips(log, rng, whole),
               *losses(log, rng, 20 * rounds), *resealed(log, rng, 100 * rounds)]
    if log.header.sequence == 1:
        changes += slots(log)
    lines = run(outcome, path, changes, directory)
    assert len(lines) == len(changes), f"{path}: {len(lines)} answers to {len(changes)} changes"
    wrong = []
    for change, line in zip(changes, lines):
        try:
            check(change, apply(data, change), line)
        except AssertionError as error:
            wrong.append(str(error))
    for message in wrong[:20]:
        print(f"{os.path.basename(path)}: {message}")
    print(f"{os.path.basename(path)}: {len(changes)} changes, {len(wrong)} judged differently")
    return len(wrong)


def main():
    outcome, golden = sys.argv[1:3]
    seed = int(os.environ.get("QALLOW_SEED", random.SystemRandom().randrange(2**32)))
    rounds = int(os.environ.get("QALLOW_ROUNDS", 1))
    print(f"QALLOW_SEED={seed} QALLOW_ROUNDS={rounds}")
    rng = random.Random(seed)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        wrong = sum(check_log(outcome, os.path.join(golden, name), rng, rounds, directory)
                    for name in LOGS)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
