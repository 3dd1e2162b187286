# SPDX-License-Identifier: Apache-2.0
"""Logs that nobody should have written: every checksum right, something else wrong.

CASES: name -> (what it must come to, function that makes the log)
    "bad"   refused: the bytes mean nothing valid
    "torn"  the frame is not valid, so it and what follows is a torn tail
    "good"  the newer header slot is not valid, so the older one counts
    "tree"  a valid log with a tree that must not go to a file system"""

import struct

import zstandard

from qallow_reader import (
    BODY_MAX, COMMIT, CREATE, DELTA, DIRECTORY, EVENT, FILE, FREE, IMAGE, LABEL, RELOCATION, RENAME,
    content_sum)
from qallow_writer import (
    START_TIME, Writer, attributes, based, counted, overwrite, plain, planes, remove, replace,
    stored, sum128, varint, zigzag)

CASES = {}
CONTENT = bytes(range(200))
TOP, PAGE, SUB, BELOW = 1, 2, 3, 4  # ids in the base log


def case(expected):
    def add(function):
        CASES[function.__name__.replace("_", "-")] = expected, function
        return function
    return add


def base():
    """Epoch 1: a directory with a file, and a directory with a file in it."""
    log = Writer()
    log.create(0, b".", DIRECTORY, 0o755)
    log.write(log.create(TOP, b"file"), CONTENT)
    log.create(TOP, b"sub", DIRECTORY, 0o755)
    log.create(SUB, b"below", FILE)
    log.commit()
    return log


def with_records(*records):
    log = base()
    for kind, data in records:
        log.record(kind, data)
    log.commit()
    return log


def table(expected, rows):
    """Cases that are one record, or a list of them, each."""
    for name, records in rows.items():
        records = records if isinstance(records, list) else [records]
        CASES[name] = expected, lambda records=records: with_records(*records)


# --- records -------------------------------------------------------------------------------------

def created(page=5, parent=TOP, kind=FILE, name=b"new", tail=attributes(0o644, START_TIME, b"")):
    return CREATE, varint(page) + varint(parent) + bytes([kind]) + counted(name) + tail


def renamed(page, parent, name=b"renamed"):
    return RENAME, varint(page) + varint(parent) + counted(name)


def change(operations, flags=3, page=PAGE, old=len(CONTENT), new=len(CONTENT), kind=DELTA,
           base_page=None, total=0):
    data = varint(page) + bytes([flags])
    if flags & 1:
        data += (varint(base_page) if base_page is not None else b"")
        data += varint(old) + zigzag(new - old)
    return kind, data + (sum128(total) if flags & 2 else b"") + operations


def operation(kind, n, *rest, gap=0):
    return varint(gap) + varint(n << 3 | kind) + b"".join(rest)


ELEVEN_BYTES = b"\xff" * 10 + b"\x01"

table("bad", {
    "record-type-0": (0, varint(PAGE)),
    "record-type-7": (7, varint(PAGE)),
    "create-id-0": created(0),
    "create-id-used": created(PAGE),
    "create-parent-missing": created(parent=99),
    "create-parent-itself": created(parent=5),
    "create-parent-file": created(parent=PAGE),
    "create-kind-0": created(kind=0),
    "create-kind-7": created(kind=7),
    "create-name-empty": created(name=b""),
    "create-name-nul": created(name=b"a\0b"),
    "create-name-4097": created(name=b"x" * 4097),
    "create-name-5000": created(name=b"x" * 5000),
    "create-name-taken": created(name=b"file"),
    "create-root-taken": created(parent=0, name=b"."),
    "create-too-long": created(tail=attributes(0o644, 0, b"") + b"\0"),
    "create-too-short": created(tail=b""),
    "create-name-beyond": (CREATE, varint(5) + varint(TOP) + b"\x02" + varint(2**63) + b"x"),
    "create-extra-beyond": created(tail=varint(0o644) + zigzag(0) + varint(1000) + b"x"),
    "create-mode": created(tail=attributes(0o10000, 0, b"")),
    "create-varint-11": (CREATE, ELEVEN_BYTES),
    "create-varint-65-bits": (CREATE, b"\xff" * 9 + b"\x02"),
    "create-varint-long": (CREATE, b"\x85\x00" + created()[1][1:]),
    "attributes-missing-page": (2, varint(99) + attributes(0o644, 0, b"")),
    "attributes-empty": (2, b""),
    "rename-missing-page": renamed(99, TOP),
    "rename-missing-parent": renamed(PAGE, 99),
    "rename-below-itself": renamed(SUB, SUB),
    "rename-loop": [created(5, SUB, DIRECTORY), renamed(SUB, 5)],
    "rename-taken": renamed(PAGE, TOP, b"sub"),
    "rename-into-file": renamed(PAGE, BELOW),
    "rename-root-below": renamed(TOP, SUB),
    "free-missing": (FREE, varint(99)),
    "free-0": (FREE, varint(0)),
    "free-twice": [(FREE, varint(PAGE)), (FREE, varint(PAGE))],
    "free-with-children": (FREE, varint(SUB)),
    "free-too-long": (FREE, varint(PAGE) + b"\0"),
    "delta-missing-page": change(b"", page=99),
    "delta-flags-8": change(b"", flags=11),
    "delta-never-first": change(b"", flags=2),
    "delta-never-last": change(b"", flags=1),
    "delta-first-twice": [change(b"", flags=1), change(b"", flags=1)],
    "delta-other-page-between": [change(b"", flags=1), change(b"", flags=2, page=BELOW)],
    "delta-record-between": [change(b"", flags=1), created(), change(b"", flags=2)],
    "delta-freed-between": [change(b"", flags=1), (FREE, varint(PAGE)), change(b"", flags=2)],
    "delta-image-between": [change(b"", flags=1), change(b"", flags=2, kind=IMAGE)],
    "delta-base-missing": change(b"", flags=7, base_page=99),
    "delta-base-0": change(b"", flags=7, base_page=0),
    "delta-old-size": change(b"", old=199),
    "delta-new-size": change(b"", new=201),
    "delta-new-size-negative": change(b"", new=-1),
    "delta-new-size-2^48+1": change(operation(5, 2**48 + 1 - 200), new=2**48 + 1),
    "delta-gap-beyond": change(operation(4, 1, gap=200)),
    "delta-gap-2^64": change(operation(4, 1, gap=2**64 - 1)),
    "delta-zero-beyond": change(operation(4, 201)),
    "delta-remove-2^60": change(operation(3, 2**60), new=0),
    "delta-overwrite-beyond-record": change(operation(0, 2**40, b"x")),
    "delta-replace-beyond-record": change(operation(2, 0, varint(2**63), b"x")),
    "delta-copy-beyond": change(operation(6, 0, varint(1), varint(200)), new=201),
    "delta-copy-2^64": change(operation(6, 0, varint(2), varint(2**64 - 1)), new=202),
    "delta-copy-2^63": change(operation(6, 0, varint(2**63), varint(2**63)), new=200),
    "delta-overwrite-nothing": change(operation(0, 0)),
    "delta-zero-nothing": change(operation(4, 0)),
    "delta-grow-nothing": change(operation(5, 0)),
    "delta-remove-nothing": change(operation(3, 0)),
    "delta-replace-by-nothing": change(operation(2, 5, varint(0)), new=195),
    "delta-copy-of-nothing": change(operation(6, 5, varint(0), varint(0)), new=195),
    "delta-copy-onto-itself": change(operation(6, 5, varint(5), varint(20), gap=20)),
    "delta-mask-empty": change(operation(1, 8, b"\0")),
    "delta-mask-beyond": change(operation(1, 7, b"\x81xx")),
    "delta-mask-short": change(operation(1, 8, b"\xff1234567")),
    "delta-stored-nothing": change(operation(7, 0, varint(0), bytes(8)), new=200),
    "delta-stored-cut": change(operation(7, 8, varint(8), bytes(7))),
    "delta-stored-beyond-frame": change(operation(7, 0, varint(2**20 + 1), bytes(8))),
    "delta-stored-outside": change(operation(7, 8, varint(8), bytes(8))),
    "delta-stored-itself": change(operation(7, 8, varint(8), b"\xff" * 8)),
    "delta-grow-overflow": change(operation(5, 2**47) * 4, new=200),
    "delta-wrong-sum": change(b"", total=1),
    "delta-empty": (DELTA, b""),
    "image-other-content": change(operation(5, 200), old=0, new=200, kind=IMAGE),
    "image-other-size": change(operation(5, 10), old=0, new=10, kind=IMAGE),
    "image-old-size": change(b"", kind=IMAGE),
    "image-base": change(operation(5, 200), flags=7, base_page=PAGE, old=0, kind=IMAGE),
    "image-missing-page": change(b"", page=99, old=0, new=0, kind=IMAGE),
})


@case("bad")
def record_beyond_frame():
    log = base()
    log.records += bytes([FREE]) + varint(100) + varint(PAGE)
    log.record_count += 1
    log.commit()
    return log


@case("bad")
def record_without_length():
    log = base()
    log.records += bytes([FREE])
    log.record_count += 1
    log.commit()
    return log


@case("bad")
def image_of_other_bytes():
    """Its sum is that of the page, its bytes are not, and the next epoch replaces them all. The
    page has changed before, so whoever follows deltas in memory has the right bytes."""
    log = base()
    log.write(log.create(TOP, b"large"), CONTENT * 1000)
    log.commit()
    log.edit(PAGE, [overwrite(10, b"changed")])
    log.commit()
    content = log.pages[PAGE].content
    log.edit(PAGE, [replace(0, 0, content[::-1])], kind=IMAGE, sum=content_sum(PAGE, content))
    log.pages[PAGE].content = content
    log.edit(BELOW, [replace(0, 0, b"an image alone changes nothing")])
    log.commit()
    log.write(PAGE, CONTENT)
    log.commit()
    return log


# --- commits -------------------------------------------------------------------------------------

def with_commit(**wrong):
    log = base()
    log.edit(PAGE, [remove(0, 10)])
    log.commit(**wrong)
    return log


for name_, wrong_ in {"epoch-0": {"epoch": 0}, "epoch-again": {"epoch": 1},
                      "epoch-skipped": {"epoch": 3}, "epoch-2^64": {"epoch": 2**64 - 1},
                      "records": {"records": 2}, "records-none": {"records": 0},
                      "time-same": {"time": START_TIME + 10**9}, "time-before": {"time": -1},
                      "base-digest": {"base": 1}, "digest": {"digest": 1},
                      "next-id": {"next_id": 4}, "next-id-0": {"next_id": 0},
                      "too-long": {"extra": b"\0"}, "tail-0": {"tail": 0},
                      "tail-1": {"tail": 1}, "tail-255": {"tail": 255}}.items():
    CASES["commit-" + name_] = "bad", lambda wrong=wrong_: with_commit(**wrong)


@case("bad")
def transaction_without_commit():
    log = base()
    log.write(PAGE, b"never")
    log.flush()
    log.label(b"in between", 1)
    log.commit()
    return log


@case("bad")
def commit_empty():
    log = base()
    log.frame(COMMIT, b"")
    return log


# --- frames --------------------------------------------------------------------------------------

def with_frame(kind=EVENT, body=b"event", **wrong):
    log = base()
    log.frame(kind, body, **wrong)
    log.write(PAGE, b"later")
    log.commit(sync=False)
    return log


for name_, wrong_ in {"foreign-uuid": {"uuid": bytes(16)}, "other-offset": {"offset": 8192},
                      "other-prev": {"prev": 1}, "bad-body-sum": {"body_sum": 1},
                      "bad-head-sum": {"head_sum": 1}, "other-magic": {"magic": 0x5147},
                      "synced-beyond": {"synced_to": 2**40},
                      "body-beyond-end": {"length": 1 << 20},
                      "body-too-long": {"length": 2**32 - 1},
                      "not-zstd": {"flags": 1}}.items():
    CASES["frame-" + name_] = "torn", lambda wrong=wrong_: with_frame(**wrong)


def zstd(data, **options):
    return zstandard.ZstdCompressor(level=1, **options).compress(data)


for name_, body_ in {"bomb": zstd(bytes(BODY_MAX + 1)), "large-bomb": zstd(bytes(1 << 28)),
                     "without-size": zstd(bytes(100), write_content_size=False),
                     "cut": zstd(bytes(range(256)))[:-5], "and-more": zstd(bytes(100)) + b"more",
                     "two": zstd(bytes(100)) * 2, "empty": b""}.items():
    CASES["frame-zstd-" + name_] = "torn", lambda body=body_: with_frame(body=body, flags=1)

for name_, (kind_, body_) in {
        "label-name-beyond": (LABEL, varint(1) + varint(100) + b"x"), "label-empty": (LABEL, b""),
        "label-nul": (LABEL, varint(1) + counted(b"a\0b")),
        "label-256": (LABEL, varint(1) + counted(b"x" * 256)),
        "label-no-name": (LABEL, varint(1) + varint(0)),
        "label-and-more": (LABEL, varint(1) + counted(b"x") + b"y")}.items():
    CASES[name_] = "bad", lambda kind=kind_, body=body_: with_frame(kind, body)


# --- CONTENT frames ----------------------------------------------------------------------------

def with_content(body, length=16, second=None, at=0):
    """`body`, a function of the reference of 16 plain bytes before it, as what 16 bytes of a page
    become; `second` is based on it in its turn."""
    log = base()
    below = log.content(plain(bytes(range(16))))
    reference = log.content(body(below))
    if second:
        reference = log.content(second(reference))
    log.edit(PAGE, [stored(0, 16, reference + at, bytes(length))])
    log.commit()
    return log


GAPS = bytes([0, 3, 0])  # a stream: the 4th element
ONE = planes(2, [7])
CONTENTS = {
    "empty": lambda _: b"",
    "length-0": lambda _: plain(b""),
    "length-2^20+1": lambda _: varint(2**20 + 1) + b"\0" + bytes(16),
    "length-2^63": lambda _: varint(2**63) + b"\1\1\2\0",
    "plain-short": lambda _: varint(17) + b"\0" + bytes(16),
    "plain-long": lambda _: varint(15) + b"\0" + bytes(16),
    "coding-4": lambda _: varint(16) + b"\4" + bytes(16),
    "width-0": lambda _: varint(16) + b"\1\0\2\0",
    "width-3": lambda _: varint(15) + b"\1\3" + b"\2\0" * 3,
    "width-does-not-divide": lambda _: varint(15) + b"\1\2" + b"\2\0" * 2,
    "planes-missing": lambda _: varint(16) + b"\1\2\2\0",
    "planes-too-many": lambda _: varint(16) + b"\1\2" + b"\2\0" * 3,
    "stream-kind-3": lambda _: varint(16) + b"\1\1\3" + bytes(16),
    "stream-beyond": lambda _: varint(16) + b"\1\1\1" + varint(2**62) + b"x",
    "stream-bomb": lambda _: varint(16) + b"\1\1\1" + counted(zstd(bytes(1 << 28))),
    "stream-shorter": lambda _: varint(16) + b"\1\1\1" + counted(zstd(bytes(15))),
    "stream-two": lambda _: varint(16) + b"\1\1\1" + counted(zstd(bytes(8)) * 2),
    "base-none": lambda _: based(16, 3, 2, 2**64 - 1, planes(2, range(8))),
    "base-later": lambda b: based(16, 3, 2, b + (1 << 40), planes(2, range(8))),
    "base-inside": lambda b: based(16, 3, 2, b + 1, planes(2, range(8))),
    "base-shorter": lambda b: based(18, 3, 2, b, planes(2, range(9))),
    "base-no-frame": lambda b: based(16, 3, 2, 8192 // 8 + 1 << 20, planes(2, range(8))),
    "values-2": lambda b: based(16, 3, 2, b, planes(2, range(8)), values=2),
    "cost-low": lambda b: based(16, 3, 2, b, planes(2, range(8)), cost=256),
    "cost-high": lambda b: based(16, 3, 2, b, planes(2, range(8)), cost=2**22 + 1),
    "cost-2^64": lambda b: based(16, 3, 2, b, planes(2, range(8)), cost=2**64 - 1),
    "count-beyond": lambda b: based(16, 2, 2, b, varint(1) + GAPS[:2] + ONE, count=9),
    "count-2^32": lambda b: based(16, 2, 2, b, varint(1) + GAPS[:2] + ONE, count=2**32 + 1),
    "gaps-beyond": lambda b: based(16, 2, 2, b, varint(1) + b"\0\x08" + ONE, count=1),
    "gaps-255": lambda b: based(16, 2, 2, b, varint(2) + b"\0\xff\0" + ONE, count=1),
    "gaps-open": lambda b: based(16, 2, 2, b, varint(1) + b"\0\xff" + ONE, count=1),
    "gaps-left-over": lambda b: based(16, 2, 2, b, varint(2) + GAPS + ONE, count=1),
    "gaps-2^40": lambda b: based(16, 2, 2, b, varint(2**40) + b"\2\0" + ONE, count=1),
    "other-bytes": lambda b: based(16, 2, 2, b, varint(1) + GAPS[:2] + ONE, count=1),
}
for name_, body_ in CONTENTS.items():
    CASES["content-" + name_] = "bad", lambda body=body_: with_content(body)
for name_, second_ in {
        "cost-rises": lambda b: based(16, 3, 2, b, planes(2, range(8))),
        "of-a-part": lambda b: based(8, 3, 2, b, planes(2, range(4)), below=1000)}.items():
    CASES["content-chain-" + name_] = "bad", lambda second=second_: with_content(
        lambda b: based(16, 3, 2, b, planes(2, range(8)), cost=1000), second=second)
CASES["content-beyond"] = "bad", lambda: with_content(lambda _: plain(bytes(16)), at=1)


# --- headers and pruned logs ---------------------------------------------------------------------

def with_slot(**fields):
    log = base()
    log.slot(**fields)
    return log


for name_, fields_ in {"base-nowhere": {"base": 1 << 40},
                       "base-no-keyframe": {"base": 8192}}.items():
    CASES["header-" + name_] = "bad", lambda fields=fields_: with_slot(**fields)

for name_, fields_ in {"cell": {"cell": 64}, "start-8": {"start": 8}, "start-odd": {"start": 8193},
                       "start-2^63": {"start": 1 << 63}, "base-odd": {"base": 8193},
                       "base-2^63": {"base": 1 << 63}, "flags": {"flags": 2},
                       "epoch-0": {"first_epoch": 0}, "version-0": {"version": 0}}.items():
    CASES["slot-" + name_] = "good", lambda fields=fields_: with_slot(**fields)


def pruned(spoil):
    """A pruned log whose last epoch was spoilt before its keyframe was written."""
    log = base()
    log.edit(PAGE, [overwrite(10, b"later")])
    log.commit()
    spoil(log.history[2])
    log.prune(2)
    return log


def spoilt(**fields):
    def spoil(moment):
        for name, value in fields.items():
            setattr(moment.pages[PAGE], name, value)
    return spoil


CASES.update({
    "keyframe-nothing-there": ("bad", lambda: pruned(spoilt(pieces=[(1 << 50, 200)]))),
    "keyframe-pieces-short": ("bad", lambda: pruned(spoilt(pieces=[(None, 100)]))),
    "keyframe-pieces-long": ("bad", lambda: pruned(spoilt(pieces=[(None, 2**62)]))),
    "keyframe-pieces-overflow": ("bad", lambda: pruned(spoilt(pieces=[(None, 2**62)] * 4
                                                              + [(None, 200)]))),
    "keyframe-other-content": ("bad", lambda: pruned(spoilt(pieces=[(None, 200)]))),
    "keyframe-parent-missing": ("bad", lambda: pruned(spoilt(parent=99))),
    "keyframe-parent-itself": ("bad", lambda: pruned(spoilt(parent=PAGE))),
    "keyframe-name": ("bad", lambda: pruned(spoilt(name=b"a\0b"))),
    "keyframe-name-taken": ("bad", lambda: pruned(spoilt(name=b"sub"))),
    "keyframe-kind": ("bad", lambda: pruned(spoilt(kind=9))),
    "keyframe-mode": ("bad", lambda: pruned(spoilt(mode=0o777777))),
    "keyframe-next-id": ("bad", lambda: pruned(lambda m: setattr(m, "next_id", 2))),
    "keyframe-digest": ("bad", lambda: pruned(lambda m: setattr(m, "digest", 2))),
    "keyframe-resume": ("bad", lambda: pruned(lambda m: setattr(m, "end", m.end + 8))),
    "keyframe-of-loop": ("bad", lambda: pruned(
        lambda m: (setattr(m.pages[TOP], "parent", SUB), setattr(m.pages[TOP], "name", b"top")))),
})


@case("bad")
def relocation_count():
    log = base()
    log.prune(1)
    log.frame(RELOCATION, varint(2**62) + struct.pack("<Q", 0) + counted(b"x"))
    return log


# --- trees ---------------------------------------------------------------------------------------

def named(name, kind=FILE, below=None):
    log = Writer()
    top = log.create(0, b".", DIRECTORY, 0o755)
    page = log.create(top, name, kind)
    if kind == FILE:
        log.write(page, b"escaped\n")
    elif kind == DIRECTORY and below:
        log.write(log.create(page, below), b"escaped\n")
    log.commit()
    return log


for name_, made_ in {"dotdot": (b"..", DIRECTORY, b"escaped"), "dotdot-file": (b"..",),
                     "dot": (b".",), "absolute": (b"/tmp/qallow-escaped",),
                     "slash": (b"a/b",), "climbs": (b"../escaped",),
                     "slash-only": (b"/", DIRECTORY, b"escaped")}.items():
    CASES["tree-" + name_] = "tree", lambda made=made_: named(*made)


@case("tree")
def tree_root_dotdot():
    log = Writer()
    log.write(log.create(log.create(0, b"..", DIRECTORY, 0o755), b"escaped"), b"escaped\n")
    log.commit()
    return log
