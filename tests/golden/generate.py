#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the golden logs and their manifest: small logs, one for each thing the
format can say and for each outcome of recovery. They are committed; what is read from them must
never change.

    generate.py DIR     writes *.tlog, *.qckpt and manifest.json

Run it again only to add a log. The bytes are the same every time, but for what zstd makes of
compressed frames."""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "reader"))

from qallow_reader import (  # noqa: E402
    CONFIG, DIRECTORY, EVENT, FILE, FRAME_HEADER, RAW, SYMLINK, TENSOR)
from qallow_writer import (  # noqa: E402
    SECOND, START_TIME, Writer, based, copy_from, grow, mask, overwrite, plain, planes, remove,
    replace, stored, varint, zero)

TEXT = b"".join(b"%03d the quick brown fox jumps over the lazy dog\n" % i for i in range(12))


def tree():
    """One epoch: a small tree."""
    log = Writer()
    top = log.create(0, b".", DIRECTORY, 0o755)
    sub = log.create(top, b"sub", DIRECTORY, 0o750, START_TIME + 5)
    log.write(log.create(sub, b"run.sh", FILE, 0o755), b"#!/bin/sh\necho hello\n")
    log.write(log.create(top, b"text", FILE, 0o644, START_TIME + 123456789), TEXT)
    log.write(log.create(top, b"link", SYMLINK, 0o777), b"sub/run.sh")
    log.create(top, b"empty", FILE)
    log.create(top, b"empty-directory", DIRECTORY, 0o700)
    log.commit()
    return log


def find(log, name):
    return next(page.id for page in log.pages.values() if page.name == name)


def history():
    """Three epochs."""
    log = tree()
    text = find(log, b"text")
    log.edit(text, [replace(100, 0, b"inserted\n")])
    log.attributes(text, 0o600, START_TIME + 2 * SECOND)
    log.commit()
    log.free(find(log, b"empty"))
    log.rename(find(log, b"sub"), find(log, b"empty-directory"), b"moved")
    log.edit(text, [overwrite(0, b"ABC")])
    log.commit()
    return log


def unclosed():
    "three epochs, no closing mark"
    return history()


def closed():
    "three epochs and a closing mark"
    log = history()
    log.close()
    return log


def reopened():
    "a closing mark in the middle: the log was opened again"
    log = tree()
    log.close()
    log.write(find(log, b"text"), b"later\n")
    log.commit()
    log.close()
    return log


def empty():
    "a header and no epoch"
    return Writer()


def zero_tail():
    "blocks preallocated behind the end"
    log = history()
    log.out += bytes(1000)
    return log


def torn_header():
    "the end of the file in the header of the last COMMIT"
    return cut_last(history(), 17)


def torn_commit():
    "the end of the file in the body of the last COMMIT"
    return cut_last(history(), FRAME_HEADER.size + 9)


def torn_body():
    "the end of the file in the last DATA frame"
    return cut_last(history(), FRAME_HEADER.size + 3, back=2)


def cut_last(log, length, back=1):
    del log.out[log.frames[-back][0] + length:]
    return log


def torn_reordered():
    "an unsynced DATA frame did not arrive, the COMMIT behind it did"
    log = history()
    offset, _ = log.frames[-2]
    log.out[offset:log.frames[-1][0]] = bytes(log.frames[-1][0] - offset)
    return log


def unfinished():
    "DATA frames without COMMIT at the end"
    log = history()
    log.write(find(log, b"text"), b"never\n")
    log.flush()
    return log


def damaged_data():
    "a bit changed in a DATA frame that had been durable"
    log = history()
    log.out[log.frames[2][0] + FRAME_HEADER.size + 8] ^= 0x10
    return log


def damaged_commit():
    "zeros in place of a COMMIT that had been durable"
    log = history()
    offset, _ = log.frames[1]
    log.out[offset:log.frames[2][0]] = bytes(log.frames[2][0] - offset)
    return log


def newer_version():
    "written by format version 3"
    log = history()
    log.slot(version=3)
    return log


def damaged_header():
    "no header slot is valid"
    log = history()
    log.out[20] ^= 1
    return log


def not_a_log():
    "another kind of file"
    log = history()
    log.out[:8] = b"SQLite f"
    return log


def one_slot():
    "the newer header slot is damaged, the older one counts"
    log = history()
    log.slot()
    log.out[4096 + 33] ^= 1
    return log


def labels():
    "labels set, moved and taken away"
    log = tree()
    log.label("first ä".encode(), 1)
    log.label(b"moves", 1)
    log.label(b"goes", 1)
    log.edit(find(log, b"text"), [remove(0, 4)])
    log.commit()
    log.label(b"moves", 2)
    log.label(b"goes", 0)
    return log


def compressed():
    "frames compressed with zstd"
    log = Writer()
    top = log.create(0, b".", DIRECTORY, 0o755)
    log.write(log.create(top, b"text"), TEXT * 30)
    log.commit(compress=True)
    log.edit(find(log, b"text"), [replace(5000, 100, TEXT)], [remove(8000, 500)])
    log.commit(compress=True)
    log.keyframe(compress=True)
    return log


def riding():
    "records that ride in the COMMIT frame, alone and behind DATA frames"
    log = tree()
    text = find(log, b"text")
    log.edit(text, [overwrite(100, b"riding")])
    log.commit(ride=True)
    log.edit(text, [replace(50, 3, b"fifty")], [remove(500, 20)], frame_each=True)
    log.attributes(text, 0o640, START_TIME + SECOND)
    log.commit(ride=True)
    log.keyframe()
    return log


def parts():
    "changes in several parts, in one frame and over several"
    log = tree()
    text = find(log, b"text")
    changes = [[overwrite(0, b"zero")], [replace(50, 3, b"fifty")], [], [remove(500, 20)]]
    log.edit(text, *changes, frame_each=True)
    log.commit()
    log.edit(text, *changes)
    log.commit()
    return log


def clone():
    "the content of one page made from that of another"
    log = tree()
    text, top = find(log, b"text"), find(log, b".")
    log.edit(log.create(top, b"copy"), [], base=text)
    log.edit(log.create(top, b"changed copy"), [replace(10, 5, b"CHANGED")], base=text)
    log.edit(find(log, b"empty"), [copy_from(0, 0, 490, 50)], base=text)
    log.commit()
    log.edit(text, [remove(0, 500)], base=find(log, b"changed copy"))
    log.commit()
    return log


def zeros():
    "content of zeros that are stored nowhere"
    log = tree()
    top = find(log, b".")
    log.edit(log.create(top, b"zeros"), [grow(0, 100000)])
    log.edit(find(log, b"text"), [grow(0, 300), zero(100, 200)])
    log.commit()
    log.edit(find(log, b"zeros"), [overwrite(70000, b"island")])
    log.image(find(log, b"text"))
    log.commit()
    log.keyframe()
    return log


def operations():
    "every kind of operation, one to an epoch and all together"
    log = tree()
    text = find(log, b"text")
    was = log.pages[text].content[200:230]
    now = bytes(b ^ (i % 3 == 0) for i, b in enumerate(was))
    every = [overwrite(10, b"overwritten"), replace(100, 10, b"replaced"),
             replace(150, 0, b"put in"), mask(200, was, now), remove(240, 30), zero(300, 16),
             grow(350, 5), copy_from(400, 7, 0, 60), copy_from(450, 0, 460, 3)]
    for operation in every:
        log.edit(text, [operation])
        log.commit()
        log.write(text, TEXT)
        log.commit()
    log.edit(text, every)
    log.commit()
    return log


def images():
    "contents stored anew; they change nothing"
    log = history()
    for page in list(log.pages):
        log.image(page)
    log.commit()
    log.edit(find(log, b"text"), [remove(0, 100)])
    log.commit()
    return log


def kinds():
    "every kind of page; only some go to a file system"
    log = tree()
    log.write(log.create(0, b"rules", CONFIG, 0), b"exclude *.o\n")
    log.write(log.create(0, b"memory/with slash", RAW, 0), bytes(range(256)))
    log.write(log.create(0, b"weights", TENSOR, 0, 0, b"\x01f32\x02\x04\x04"), bytes(64))
    log.commit()
    return log


def names():
    "odd names, old and negative times"
    log = Writer()
    top = log.create(0, b".", DIRECTORY, 0o755, -1)
    odd = (b"new\nline", b"-n", b"\xff\xfe", b"...", b" ", b"\\", b"*", b"\x1b[31m", b"x" * 255,
           "ä".encode(), b"a\tb")
    for index, name in enumerate(odd):
        log.write(log.create(top, name, FILE, 0o644, -index * SECOND - 1), name)
    log.commit()
    return log


def later_parent():
    "a directory younger than what was moved into it"
    log = tree()
    top = find(log, b".")
    log.rename(find(log, b"sub"), log.create(top, b"younger", DIRECTORY, 0o755), b"sub")
    log.commit()
    log.keyframe()
    return log


def keyframes():
    "keyframes in one part and in several"
    log = history()
    log.keyframe()
    log.edit(find(log, b"text"), [remove(20, 20)])
    log.commit()
    log.keyframe(part_size=40)
    return log


def events():
    "reserved frames are stepped over"
    log = tree()
    log.frame(EVENT, b"something")
    log.edit(find(log, b"text"), [remove(20, 20)])
    log.commit()
    log.frame(EVENT, b"")
    return log


def own_copy():
    "a recorded file that is a copy of the log itself"
    log = history()
    log.write(log.create(find(log, b"."), b"copy.tlog"), bytes(log.out[8192:]))
    log.commit()
    return log


def pruned():
    "epochs 1 and 2 were dropped"
    log = history()
    log.prune(3)
    log.edit(find(log, b"text"), [remove(0, 100), copy_from(200, 5, 0, 100)])
    log.commit()
    log.label(b"after", 4)
    return log


def pruned_twice():
    "pruned, continued, pruned again: relocations are relocated"
    log = pruned()
    log.keyframe()
    log.prune(4)
    log.write(find(log, b"run.sh"), b"#!/bin/sh\nexit 1\n")
    log.commit()
    return log


def tensor_page(log, name, content, body):
    page = log.create(0, name, TENSOR, 0, 0, bytes([10, 1]) + varint(len(content) // 2))
    log.edit(page, [stored(0, 0, log.content(body), content)])
    return page


def contents():
    "version 2: content by itself, in every coding, and chains of it, pruned in between"
    log = Writer()
    elements = [3 * i for i in range(40)]
    raw = b"".join(value.to_bytes(2, "little") for value in elements)
    log.slot(version=2)
    bodies = {"plain": plain(raw), "planes": varint(80) + b"\1\2" + planes(2, elements)}
    pages = {name: tensor_page(log, name.encode(), raw, body) for name, body in bodies.items()}
    log.commit()
    for change, values in ((11, 0), (22, 1), (33, 1)):
        if change == 33:
            log.prune(2)
        for page in pages.values():
            was = log.pages[page].content
            base = log.pages[page].pieces[0][0]
            now = bytearray(was)
            now[2 * change] = now[2 * change] + 2 & 0xff
            new = int.from_bytes(now[2 * change:2 * change + 2], "little")
            value = 4 if values else new
            body = based(80, 2, 2, base, varint(1) + bytes([0, change]) + planes(2, [value]),
                         values, below=(change // 11 - 1) * 1000, count=1)
            log.edit(page, [stored(0, 80, log.content(body), bytes(now))])
        log.commit()
    base = log.pages[pages["plain"]].pieces[0][0]
    every = [(int.from_bytes(log.pages[pages["plain"]].content[2 * i:2 * i + 2], "little") + 1)
             for i in range(40)]
    body = based(80, 3, 2, base, b"\2\2\2\0", 1, below=4000)
    now = b"".join(value.to_bytes(2, "little") for value in every)
    log.edit(pages["plain"], [stored(0, 80, log.content(body), now)])
    log.commit()
    log.keyframe()
    return log


def checkpoint():
    "a checkpoint file: one epoch, numbered 5"
    log = Writer(first_epoch=5, flags=1)
    top = log.create(0, b".", DIRECTORY, 0o755)
    log.write(log.create(top, b"text", page_id=7), TEXT)
    log.commit()
    log.close()
    return log


# What reading each log must come to, if not ("clean", 0): the outcome and the exit code of a check.
OUTCOMES = {"torn-header": ("torn", 0), "torn-commit": ("torn", 0), "torn-body": ("torn", 0),
            "torn-reordered": ("torn", 0), "unfinished": ("torn", 0),
            "damaged-data": ("damaged", 65), "damaged-commit": ("damaged", 65),
            "damaged-header": ("damaged", 65), "newer-version": ("newer", 65),
            "not-a-log": ("not a log", 65)}
# The last epoch that is there, if it is not the last one written.
LAST = {"torn-header": 2, "torn-commit": 2, "torn-body": 2, "torn-reordered": 2}
ALL = (empty, unclosed, closed, reopened, zero_tail, torn_header, torn_commit, torn_body,
       torn_reordered, unfinished, damaged_data, damaged_commit, damaged_header, newer_version,
       not_a_log, one_slot, labels, compressed, riding, parts, clone, zeros, operations, images,
       kinds, names, later_parent, keyframes, events, own_copy, pruned, pruned_twice, contents,
       checkpoint)


def path_of(pages, page):
    path = page.name
    while page.parent:
        page = pages[page.parent]
        path = page.name + b"/" + path
    return os.fsdecode(path)


def describe(moment):
    """What an epoch must be: its digest and its pages. Contents are given whole or, the longer
    ones, by their length and first bytes; the digest vouches for the rest."""
    pages = {}
    for page in moment.pages.values():
        shown = page.content if len(page.content) <= 40 else page.content[:16]
        pages[path_of(moment.pages, page)] = [page.kind, f"{page.mode:04o}", page.mtime,
                                              len(page.content), shown.hex()]
    digest = moment.digest.to_bytes(16, "little").hex()
    return {"time": moment.time, "digest": digest, "pages": pages}


def main():
    target = sys.argv[1] if len(sys.argv) == 2 else sys.exit(__doc__)
    manifest = []
    for make in ALL:
        name = make.__name__.replace("_", "-")
        log = make()
        file = name + (".qckpt" if make is checkpoint else ".tlog")
        log.save(os.path.join(target, file))
        outcome, code = OUTCOMES.get(name, ("clean", 0))
        last = LAST.get(name, log.epoch)
        manifest.append({
            "file": file, "what": make.__doc__, "outcome": outcome, "verify": code,
            "compressed": name == "compressed", "labels": {os.fsdecode(k): v
                                                           for k, v in log.names.items()},
            "epochs": {epoch: describe(moment) for epoch, moment in log.history.items()
                       if epoch <= last} if outcome in ("clean", "torn") else {}})
    with open(os.path.join(target, "manifest.json"), "w", encoding="ascii") as file:
        file.write("[\n" + ",\n".join(json.dumps(entry) for entry in manifest) + "\n]\n")


if __name__ == "__main__":
    main()
