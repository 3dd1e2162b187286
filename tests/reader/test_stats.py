#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`qallow stats` counts what the Python reader counts, and says the same as lines and as JSON.

    test_stats.py GOLDEN-DIRECTORY QALLOW

The golden logs, and random histories with everything a log can have. The lines that people get are
made anew from the JSON and compared byte for byte. QALLOW_SEED repeats a run, QALLOW_ROUNDS makes
it longer."""

import collections
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile

from histories import random_history
from qallow_content import ALL, CHANGES, Content
from qallow_reader import (
    COMMIT, CONTENT, CREATE, DATA, DELTA, IMAGE, PART_BASE, PART_FIRST, PART_LAST, Cursor, Log,
    LogError, parse_commit, parse_operation, parse_records)

KINDS = ["?", "raw", "files", "directories", "symlinks", "config", "tensors"]
ONE_KIND = {"files": "file", "directories": "directory", "symlinks": "symlink",
            "tensors": "tensor"}
RECORDS = ["?", "create", "attributes", "rename", "free", "delta", "image"]
OPERATIONS = ["overwrite", "mask", "replace", "remove", "zero", "grow", "copy", "stored"]
FRAMES = ["unknown", "data", "commit", "keyframe", "label", "event", "close", "relocation",
          "content"]


# --- what the reader says ------------------------------------------------------------------------

class Counts:
    def __init__(self, log):
        self.records = collections.Counter()
        self.operations = collections.Counter()
        self.kinds = collections.Counter()
        self.frames = {name: [0, 0, 0, 0] for name in FRAMES[1:]}
        self.compressed = [0, 0, 0, 0]
        self.content = collections.Counter()
        self.sizes = []
        self.images = self.at = self.size = 0
        self.kind_of = {entry.page.id: entry.page.kind for keyframe in log.keyframes()
                        for entry in keyframe.pages}
        for frame in log.frames:
            self.frame(frame, log.body(frame))

    def frame(self, frame, body):
        sums = [self.frames[FRAMES[frame.type]]] + [self.compressed] * (frame.flags & 1)
        for of in sums:
            for i, n in enumerate((1, frame.end - frame.offset, frame.length, len(body))):
                of[i] += n
        if frame.type == COMMIT:
            body = parse_commit(frame, body)[2]
        if frame.type == CONTENT:
            content = Content(body)
            has_base = content.coding in (CHANGES, ALL)
            self.content["differences" if has_base else "whole"] += 1
            self.content["bytes"] += content.length
            self.content["stored_bytes"] += frame.length
        if frame.type in (DATA, COMMIT):
            for kind, _, data in parse_records(body):
                self.record(kind, Cursor(data))

    def record(self, kind, cursor):
        self.records[RECORDS[kind]] += 1
        page = cursor.varint()
        if kind == CREATE:
            cursor.varint()
            self.kind_of[page] = cursor.u8()
        if kind not in (DELTA, IMAGE):
            return
        flags = cursor.u8()
        if flags & PART_FIRST:
            self.at = self.size = 0
            for _ in range(2 + bool(flags & PART_BASE)):
                cursor.varint()
        if flags & PART_LAST:
            cursor.sum()
        if kind == IMAGE:
            self.images += bool(flags & PART_LAST)
            return
        self.size += cursor.left()
        while cursor.left():
            start = cursor.position
            cursor.varint()
            self.operations[OPERATIONS[cursor.varint() & 7]] += 1
            cursor.position = start
            at, n, _ = parse_operation(cursor, self.at)
            self.at = at + n
        if flags & PART_LAST:
            self.sizes.append(self.size)
            self.kinds[KINDS[self.kind_of[page]]] += 1


def check_quantile(sizes, permille, found):
    exact = sizes[max(0, -(-len(sizes) * permille // 1000) - 1)]
    assert exact <= found <= min(exact * 9 / 8, sizes[-1]), (permille, exact, found)


def check_counts(said, counts):
    deltas, sizes = said["deltas"], sorted(counts.sizes)
    assert said["records"] == {name: counts.records[name] for name in RECORDS[1:]}
    assert said["images"] == counts.images
    assert deltas["operations"] == {name: counts.operations[name] for name in OPERATIONS}
    assert deltas["kinds"] == {name: counts.kinds[name] for name in KINDS[1:]}
    assert (deltas["count"], deltas["bytes"]) == (len(sizes), sum(sizes))
    assert deltas["mean_bytes"] == (sum(sizes) // len(sizes) if sizes else 0)
    assert deltas["max_bytes"] == max(sizes, default=0)
    for permille in (500, 900, 990):
        found = deltas[f"p{permille // 10}_bytes"]
        if sizes:
            check_quantile(sizes, permille, found)
        else:
            assert found == 0
    members = ("count", "bytes", "body_bytes", "uncompressed_bytes")
    assert said["frames"] == {name: dict(zip(members, counts.frames[name]))
                              for name in FRAMES[1:]}
    assert said["content_frames"] == {name: counts.content[name] for name in
                                      ("whole", "differences", "bytes", "stored_bytes")}
    assert said["compressed_frames"] == dict(zip(members, counts.compressed))


# --- the lines, from the JSON --------------------------------------------------------------------

def size_text(size):
    if size < 1024:
        return f"{size} B"
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1023.95:
            return f"{size:.1f} {unit}"
    raise AssertionError("larger than this test expects")


def listed(counts, names=None):
    return ", ".join(f"{n} {(names or {}).get(name, name) if n == 1 else name}"
                     for name, n in counts.items() if n)


def lines_of(said):
    yield f"log        {said['log']}"
    if said["epochs"]:
        yield (f"epochs     {said['epochs']}: {said['first_epoch']} ({said['first_time']}) to "
               f"{said['last_epoch']} ({said['last_time']})")
    else:
        yield "epochs     none yet"
    pages, content = said["pages"], said["content_bytes"]
    yield f"pages      {sum(pages.values())}, {size_text(sum(content.values()))}"
    for name, n in pages.items():
        if n:
            yield f"             {listed({name: n}, ONE_KIND)}, {size_text(content[name])}"
    yield f"records    {listed(said['records'])}"
    yield from lines_of_deltas(said["deltas"])
    if said["images"]:
        yield f"images     {said['images']}"
    yield f"size       {size_text(said['log_bytes'])}, {size_text(said['allocated_bytes'])} on disk"
    if said["epochs"]:
        yield (f"an epoch   {size_text(said['epoch_bytes'] // said['epochs'])} on average; the "
               f"largest is {said['largest_epoch']} with {size_text(said['largest_epoch_bytes'])}")
    yield f"keyframes  {said['keyframes']}, * since the last one"
    yield "index      none: it will be made by whoever opens the log for writing"
    yield from lines_of_frames(said)
    yield from lines_of_content(said)


def lines_of_deltas(deltas):
    if not deltas["count"]:
        return
    yield f"deltas     {deltas['count']}, {size_text(deltas['bytes'])}"
    yield "             " + ", ".join(f"{word} {size_text(deltas[word + '_bytes'])}"
                                     for word in ("mean", "p50", "p90", "p99", "max"))
    yield f"             of {listed(deltas['kinds'], ONE_KIND)}"
    if any(deltas["operations"].values()): # a delta may end with nothing changed but its sum
        yield f"operations {listed(deltas['operations'])}"


def lines_of_frames(said):
    frames, compressed = said["frames"], said["compressed_frames"]
    yield (f"frames     {sum(f['count'] for f in frames.values())}, "
           f"{size_text(sum(f['bytes'] for f in frames.values()))}")
    for name, of in frames.items():
        if of["count"]:
            yield f"             {of['count']} {name}, {size_text(of['bytes'])}"
    if compressed["count"]:
        yield (f"compressed {compressed['count']} frames, "
               f"{size_text(compressed['uncompressed_bytes'])} to "
               f"{size_text(compressed['body_bytes'])}")


def lines_of_content(said):
    content = said["content_frames"]
    if content["bytes"]:
        yield (f"content    {content['whole']} chunks whole, {content['differences']} as "
               f"differences: {size_text(content['bytes'])} in "
               f"{size_text(content['stored_bytes'])}")


def stats(qallow, *arguments, status=0):
    done = subprocess.run([qallow, "stats", *arguments], capture_output=True, text=True)
    assert done.returncode == status, (arguments, done.returncode, done.stderr)
    return done.stdout


def settle(path):
    """What the file takes on the disk changes no more."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def check_log(qallow, path):
    said = json.loads(stats(qallow, path, "--json"))
    check_counts(said, Counts(Log(path)))
    shown = re.sub(r"\d+ epochs? since", "* since", stats(qallow, path))
    wanted = "".join(line + "\n" for line in lines_of(said))
    assert shown == wanted, f"lines:\n{shown}\nfrom JSON:\n{wanted}"
    return said


# --- directories ---------------------------------------------------------------------------------

def table_line(sum_of, name):
    mean = size_text(sum_of["delta_bytes"] // sum_of["deltas"]) if sum_of["deltas"] else "-"
    return (f"{sum_of['epochs']:>9} {sum_of['pages']:>9} {size_text(sum_of['content_bytes']):>10} "
            f"{sum_of['deltas']:>9} {mean:>10} {size_text(sum_of['log_bytes']):>10} "
            f"{size_text(sum_of['allocated_bytes']):>10}  {name}\n")


def amount(said):
    return {"epochs": said["epochs"], "pages": sum(said["pages"].values()),
            "content_bytes": sum(said["content_bytes"].values()),
            "deltas": said["deltas"]["count"], "delta_bytes": said["deltas"]["bytes"],
            "log_bytes": said["log_bytes"], "allocated_bytes": said["allocated_bytes"]}


def check_directory(qallow, directory, one_by_one, failed):
    """`one_by_one`: what was said of each file alone, by name."""
    status = 65 if failed else 0
    said = json.loads(stats(qallow, directory, "--json", status=status))
    assert said["directory"] == directory
    assert said["files"] == [{k: v for k, v in one.items() if k not in ("schema", "version")}
                             for _, one in sorted(one_by_one.items())]
    total = collections.Counter()
    for one in one_by_one.values():
        total.update(amount(one))
    assert said["sum"] == {"files": len(one_by_one), "failed": failed, **total}
    shown = stats(qallow, directory, status=status).splitlines(keepends=True)
    assert shown[0].split() == "EPOCHS PAGES CONTENT DELTAS MEAN SIZE ON DISK FILE".split()
    wanted = [table_line(amount(one), name) for name, one in sorted(one_by_one.items())]
    assert shown[1:] == wanted + [table_line(total, "sum")]


# --- all -----------------------------------------------------------------------------------------

def check_golden(golden, qallow, directory):
    """The golden logs one by one and, since the files themselves must stay, copies of all."""
    entries = json.load(open(os.path.join(golden, "manifest.json"), encoding="utf-8"))
    one_by_one, failed = {}, 0
    for entry in entries:
        path = os.path.join(directory, entry["file"])
        shutil.copyfile(os.path.join(golden, entry["file"]), path)
        settle(path)
        if entry["outcome"] in ("clean", "torn"):
            one_by_one[entry["file"]] = check_log(qallow, path)
        else:
            stats(qallow, path, status=65)
            failed += 1
    assert failed and len(one_by_one) > 20
    check_directory(qallow, directory, one_by_one, failed)


def check_random(qallow, path, seed):
    random.seed(seed)
    log = random_history(random, random.randrange(1, 12))
    try:
        log.save(path)
        settle(path)
        check_log(qallow, path)
    except (AssertionError, LogError):
        print(f"QALLOW_SEED={seed} QALLOW_ROUNDS=1")
        raise


def main(golden, qallow):
    seed = int(os.environ.get("QALLOW_SEED", random.SystemRandom().randrange(2**32)))
    rounds = int(os.environ.get("QALLOW_ROUNDS", 60))
    print(f"QALLOW_SEED={seed} QALLOW_ROUNDS={rounds}")
    with tempfile.TemporaryDirectory() as directory:
        copies = os.path.join(directory, "golden")
        os.mkdir(copies)
        check_golden(golden, qallow, copies)
        for number in range(rounds):
            check_random(qallow, os.path.join(directory, "random.tlog"), seed + number)


if __name__ == "__main__":
    main(*sys.argv[1:])
