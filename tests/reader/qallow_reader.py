#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A second reader of transaction logs, written from docs/formats/tlog.md alone.

It shares no code with the C implementation and takes no shortcut: every frame is checked, every
epoch is built by applying its records to bytes in memory, every digest is recomputed from those
bytes, and every keyframe is compared with the state it stands for. Where the two readers disagree,
one of them or the specification is wrong.

    qallow_reader.py list LOG               the epochs
    qallow_reader.py verify LOG             every digest and keyframe; 0 only if nothing is damaged
    qallow_reader.py restore LOG EPOCH DIR  the directory tree of an epoch into a new DIR
    qallow_reader.py dump LOG               the frames with their offsets and records

Exit codes: 0 done, 64 usage, 65 damaged data, 66 no such input, 71 too large, 73 cannot create.
Needs python3-xxhash and python3-zstandard.
"""

import argparse
import datetime
import mmap
import os
import struct
import sys
from collections import namedtuple

import xxhash

from qallow_content import (
    BODY_MAX, COST, MASK64, Content, Cursor, Damaged, LogError, Malformed, NewerVersion,
    NoSuchEpoch, NotALog, TooLarge, decompress)

VERSION = 2
MAGIC = b"QALLOWTL"
SLOT_SIZE = 4096
FIRST_FRAME = 2 * SLOT_SIZE
FRAME_MAGIC = 0x5146
FRAME_HEADER = struct.Struct("<HBBIQQQQ")
CELL = 128
PAGE_SIZE_MAX = 1 << 48
NAME_MAX = EXTRA_MAX = 4096
MASK128 = (1 << 128) - 1

DATA, COMMIT, KEYFRAME, LABEL, EVENT, CLOSE, RELOCATION, CONTENT = range(1, 9)
FRAME_NAMES = {DATA: "DATA", COMMIT: "COMMIT", KEYFRAME: "KEYFRAME", LABEL: "LABEL",
               EVENT: "EVENT", CLOSE: "CLOSE", RELOCATION: "RELOCATION", CONTENT: "CONTENT"}
CREATE, ATTRIBUTES, RENAME, FREE, DELTA, IMAGE = range(1, 7)
RECORD_NAMES = {CREATE: "CREATE", ATTRIBUTES: "ATTRIBUTES", RENAME: "RENAME", FREE: "FREE",
                DELTA: "DELTA", IMAGE: "IMAGE"}
RAW, FILE, DIRECTORY, SYMLINK, CONFIG, TENSOR = range(1, 7)
OVERWRITE, MASK, REPLACE, REMOVE, ZERO, GROW, COPY, STORED = range(8)
PART_FIRST, PART_LAST, PART_BASE = 1, 2, 4


def signed64(value):
    return value - (1 << 64) if value >> 63 else value


# --- digest ----------------------------------------------------------------------------------

def page_seed(page_id):
    return xxhash.xxh3_64_intdigest(struct.pack("<Q", page_id), 0)


def content_sum(page_id, content):
    seed = page_seed(page_id)
    total = 0
    for index in range((len(content) + CELL - 1) // CELL):
        cell = content[index * CELL:(index + 1) * CELL]
        if cell.count(0) == len(cell):
            continue
        total += xxhash.xxh3_128_intdigest(cell, (seed + index * 0x9E3779B97F4A7C15) & MASK64)
    return total & MASK128


def page_term(page):
    fixed = struct.pack("<QQQQIHHB", page.id, page.parent, len(page.content),
                        page.mtime & MASK64, page.mode, len(page.name), len(page.extra), page.kind)
    return xxhash.xxh3_128_intdigest(fixed + page.name + page.extra, page_seed(page.id))


# --- header and frames -----------------------------------------------------------------------

Header = namedtuple("Header", "version cell uuid sequence start start_prev first_epoch base flags "
                              "next_epoch")
Frame = namedtuple("Frame", "offset type flags length prev synced_to body_sum head_sum end")


def parse_slot(slot):
    """A header slot, or None if it is not valid."""
    if len(slot) < 128 or slot[:8] != MAGIC:
        return None
    if xxhash.xxh3_64_intdigest(slot[:120], 0) != struct.unpack_from("<Q", slot, 120)[0]:
        return None
    header = Header(*struct.unpack_from("<II16sQQQQQQQ", slot, 8))
    if header.version > VERSION:
        raise NewerVersion(f"format version {header.version}; this reader knows {VERSION}")
    possible = (1 <= header.version <= VERSION and header.cell == CELL and header.flags <= 1
                and FIRST_FRAME <= header.start < 1 << 63 and header.start % 8 == 0
                and header.base < 1 << 63 and not header.base % 8
                and 0 < header.first_epoch < 1 << 62)
    return header if possible else None


def parse_header(data):
    slots = [parse_slot(bytes(data[i * SLOT_SIZE:i * SLOT_SIZE + 128])) for i in range(2)]
    valid = [slot for slot in slots if slot]
    if not valid and MAGIC in (bytes(data[:8]), bytes(data[SLOT_SIZE:SLOT_SIZE + 8])):
        raise Damaged("no header slot is valid")
    if not valid:
        raise NotALog("not a log")
    return max(valid, key=lambda slot: slot.sequence)


def frame_seed(uuid, offset):
    return xxhash.xxh3_64_intdigest(uuid, offset)


def parse_frame_header(data, offset, uuid):
    """The frame that a header describes, whatever its body; or the reason (a string) why there is
    no valid header."""
    if offset % 8:
        return "not at a multiple of 8"
    if offset + FRAME_HEADER.size > len(data):
        return "the file ends in a frame header"
    head = bytes(data[offset:offset + FRAME_HEADER.size])
    magic, kind, flags, length, prev, synced_to, body_sum, head_sum = FRAME_HEADER.unpack(head)
    if magic != FRAME_MAGIC:
        return "no frame"
    if xxhash.xxh3_64_intdigest(head[:32], frame_seed(uuid, offset)) != head_sum:
        return "the checksum of a frame header does not match"
    if kind not in FRAME_NAMES or flags & ~1 or length > BODY_MAX or synced_to > offset:
        return "a frame header with an impossible value"
    end = (offset + FRAME_HEADER.size + length + 7) & ~7
    return Frame(offset, kind, flags, length, prev, synced_to, body_sum, head_sum, end)


def parse_frame(data, offset, uuid, prev):
    """The frame at an offset, or the reason (a string) why there is no valid one."""
    frame = parse_frame_header(data, offset, uuid)
    if isinstance(frame, str):
        return frame
    if frame.prev != prev:
        return "a frame that does not follow the one before it"
    start = offset + FRAME_HEADER.size
    body = bytes(data[start:start + frame.length])
    if len(body) < frame.length:
        return "the file ends in a frame body"
    if xxhash.xxh3_64_intdigest(body, frame_seed(uuid, offset)) != frame.body_sum:
        return "the checksum of a frame body does not match"
    if frame.flags & 1 and decompress(body) is None:
        return "a frame body that does not decompress"
    return frame


# --- records ---------------------------------------------------------------------------------

Attributes = namedtuple("Attributes", "mode mtime extra")


def parse_attributes(cursor):
    mode, mtime, extra = cursor.varint(), cursor.zigzag(), cursor.counted()
    if mode > 0o7777 or len(extra) > EXTRA_MAX:
        raise Malformed("attributes out of range")
    return Attributes(mode, mtime, extra)


def parse_records(body):
    """The records of a DATA frame: (type, offset of its bytes in the body, bytes)."""
    cursor = Cursor(body)
    while cursor.left():
        kind = cursor.u8()
        length = cursor.varint()
        if kind not in RECORD_NAMES:
            raise Malformed(f"unknown record type {kind}")
        start = cursor.position
        yield kind, start, cursor.take(length)


Stored = namedtuple("Stored", "length reference")


def parse_operation(cursor, at):
    """One operation: (at, n, new), where new lists what replaces n old bytes at `at`, each item
    literal bytes, a count of zeros, a (from, to) range of old bytes, or a Stored."""
    at += cursor.varint()
    word = cursor.varint()
    n, kind = word >> 3, word & 7
    if n == 0 and kind not in (REPLACE, COPY, STORED):
        raise Malformed("an operation on no bytes")
    if kind == OVERWRITE:
        return at, n, [bytes(cursor.take(n))]
    if kind == MASK:
        return at, n, parse_mask(cursor, at, n)
    if kind in (REPLACE, COPY):
        m = cursor.varint()
        if m == 0:
            raise Malformed("a replacement by no bytes")
        if kind == REPLACE:
            return at, n, [bytes(cursor.take(m))]
        source = cursor.varint()
        if (source, m) == (at, n):
            raise Malformed("a copy of bytes onto themselves")
        return at, n, [(source, source + m)]
    if kind == REMOVE:
        return at, n, []
    if kind == ZERO:
        return at, n, [n]
    if kind == GROW:
        return at, 0, [n]
    stored = Stored(length=cursor.varint(), reference=cursor.u64())
    if not 0 < stored.length <= BODY_MAX - (stored.reference & 0xfffff):
        raise Malformed("stored content that no frame can hold")
    return at, n, [stored]


def parse_mask(cursor, at, n):
    mask = int.from_bytes(cursor.take((n + 7) // 8), "little")
    if mask >> n or not mask:
        raise Malformed("a mask with bits beyond its end, or none")
    new, index = [], 0
    while index < n:
        run = 1
        while index + run < n and mask >> index + run & 1 == mask >> index & 1:
            run += 1
        new.append(bytes(cursor.take(run)) if mask >> index & 1 else (at + index, at + index + run))
        index += run
    return new


# --- state -----------------------------------------------------------------------------------

class Page:
    def __init__(self, page_id, parent, kind, name, attributes):
        self.id, self.parent, self.kind, self.name = page_id, parent, kind, name
        self.mode, self.mtime, self.extra = attributes
        self.content = b""
        self.sum = 0
        self.version = 0

    def set_attributes(self, attributes):
        self.mode, self.mtime, self.extra = attributes


class State:
    """The pages of one epoch, and the rules that records must keep."""

    def __init__(self, max_page=1 << 30):
        self.pages = {}
        self.names = {}        # (parent, name) -> id
        self.child_count = {}
        self.next_id = 1
        self.digest = 0
        self.epoch = 0
        self.time = 0
        self.max_page = max_page
        self.part = None       # the content change of which not all parts were met
        self.touched = set()   # pages changed since the last commit

    # pages

    def page(self, page_id):
        if page_id not in self.pages:
            raise Malformed(f"page {page_id} does not exist")
        return self.pages[page_id]

    def check_place(self, parent, name):
        if not 1 <= len(name) <= NAME_MAX or 0 in name:
            raise Malformed("a name that is empty, too long or has a NUL")
        if (parent, name) in self.names:
            raise Malformed(f"the name {name!r} is taken")
        if parent and self.page(parent).kind != DIRECTORY:
            raise Malformed(f"the parent {parent} is no directory")

    def link(self, page):
        self.names[page.parent, page.name] = page.id
        self.child_count[page.parent] = self.child_count.get(page.parent, 0) + 1

    def unlink(self, page):
        del self.names[page.parent, page.name]
        self.child_count[page.parent] -= 1

    def touch(self, page):
        """Takes a page out of the digest until it has changed; settle() adds it again."""
        if page.id not in self.touched:
            self.touched.add(page.id)
            self.digest -= page_term(page) + page.sum

    def add(self, page):
        self.check_place(page.parent, page.name)
        if page.kind not in range(RAW, TENSOR + 1):
            raise Malformed(f"unknown kind {page.kind}")
        self.pages[page.id] = page
        self.link(page)
        self.touched.add(page.id)

    # records

    def apply(self, kind, data, stored=None):
        """`stored` gives the bytes of a Stored."""
        self.stored = stored
        if self.part and kind != self.part.kind:
            raise Malformed("a record between the parts of a change")
        cursor = Cursor(data)
        {CREATE: self.create, ATTRIBUTES: self.attributes, RENAME: self.rename, FREE: self.free,
         DELTA: self.delta, IMAGE: self.image}[kind](cursor)

    def create(self, cursor):
        page_id, parent, kind = cursor.varint(), cursor.varint(), cursor.u8()
        name = cursor.counted()
        page = Page(page_id, parent, kind, name, parse_attributes(cursor))
        cursor.end("CREATE")
        if page_id < self.next_id:
            raise Malformed(f"the page id {page_id} is not new")
        self.add(page)
        self.next_id = page_id + 1

    def attributes(self, cursor):
        page = self.page(cursor.varint())
        self.touch(page)
        page.set_attributes(parse_attributes(cursor))
        cursor.end("ATTRIBUTES")

    def rename(self, cursor):
        page = self.page(cursor.varint())
        parent, name = cursor.varint(), cursor.counted()
        cursor.end("RENAME")
        ancestor = parent
        while ancestor:
            if ancestor == page.id:
                raise Malformed(f"page {page.id} would be below itself")
            ancestor = self.page(ancestor).parent
        self.check_place(parent, name)
        self.touch(page)
        self.unlink(page)
        page.parent, page.name = parent, name
        self.link(page)

    def free(self, cursor):
        page = self.page(cursor.varint())
        cursor.end("FREE")
        if self.child_count.get(page.id):
            raise Malformed(f"page {page.id} still has children")
        self.touch(page)
        self.unlink(page)
        del self.pages[page.id]

    def delta(self, cursor):
        self.change(cursor, DELTA)

    def image(self, cursor):
        self.change(cursor, IMAGE)

    def change(self, cursor, kind):
        page, flags = self.page(cursor.varint()), cursor.u8()
        if flags & ~7 or bool(flags & PART_FIRST) == bool(self.part) \
                or flags & PART_BASE and (kind == IMAGE or not flags & PART_FIRST):
            raise Malformed("impossible flags of a change")
        if flags & PART_FIRST:
            base = self.page(cursor.varint()) if flags & PART_BASE else page
            old = b"" if kind == IMAGE else base.content
            old_size = cursor.varint()
            new_size = old_size + cursor.zigzag()
            if old_size != len(old) or not 0 <= new_size <= PAGE_SIZE_MAX:
                raise Malformed(f"page {page.id} has {len(old)} bytes, not {old_size}")
            if new_size > self.max_page:
                raise TooLarge(f"page {page.id} has {new_size} bytes")
            self.part = Change(kind, page.id, old, new_size)
        elif self.part.page != page.id:
            raise Malformed("a part of a change of another page")
        declared = cursor.sum() if flags & PART_LAST else None
        self.part.operations(cursor, self.stored)
        if flags & PART_LAST:
            self.finish_change(page, declared)

    def finish_change(self, page, declared):
        change, self.part = self.part, None
        content = change.result()
        if change.kind == IMAGE:
            if content != page.content or declared != content_sum(page.id, content):
                raise Malformed(f"the image of page {page.id} differs from its content")
            return
        self.touch(page)
        page.content = content
        page.sum = content_sum(page.id, content)
        if page.sum != declared:
            raise Damaged(f"the content of page {page.id} has another sum than recorded")

    # commits

    def settle(self, epoch):
        if self.part:
            raise Malformed("a change without its last part")
        for page_id in self.touched:
            page = self.pages.get(page_id)
            if page:
                page.version = epoch
                self.digest += page_term(page) + page.sum
        self.touched.clear()
        self.digest &= MASK128
        self.epoch = epoch


class Change:
    """The new content of a page while its parts are read."""

    def __init__(self, kind, page, old, new_size):
        self.kind, self.page, self.old, self.new_size = kind, page, old, new_size
        self.at = 0
        self.pieces = []
        self.size = 0

    def put(self, piece):
        self.size += len(piece)
        if self.size > self.new_size:
            raise Malformed("a change with a result longer than it says")
        self.pieces.append(piece)

    def old_range(self, start, end):
        if end > len(self.old):
            raise Malformed("a change beyond the end of the old content")
        return self.old[start:end]

    def operations(self, cursor, stored):
        while cursor.left():
            at, n, new = parse_operation(cursor, self.at)
            self.put(self.old_range(self.at, at))
            self.old_range(at, at + n)
            for item in new:
                if isinstance(item, Stored):
                    item = stored(item)
                elif isinstance(item, int):
                    if item > self.new_size:
                        raise Malformed("a change with a result longer than it says")
                    item = bytes(item)
                elif isinstance(item, tuple):
                    item = self.old_range(*item)
                self.put(item)
            self.at = at + n

    def result(self):
        self.put(self.old[self.at:])
        if self.size != self.new_size:
            raise Malformed(f"a change with {self.size} bytes as result that says {self.new_size}")
        return b"".join(self.pieces)


# --- keyframes and relocations -----------------------------------------------------------------

Keyframe = namedtuple("Keyframe", "offset epoch time digest next_id resume head_sum pages")
TablePage = namedtuple("TablePage", "page version size sum pieces")


def parse_keyframe(offset, epoch, stream):
    cursor = Cursor(stream)
    time, digest = signed64(cursor.u64()), cursor.sum()
    next_id, resume = cursor.varint(), cursor.varint()
    head_sum = cursor.u64()
    pages, last_id, last_ref = [], 0, 0
    for _ in range(cursor.varint()):
        last_id += cursor.varint()
        parent, kind = cursor.varint(), cursor.u8()
        name = cursor.counted()
        page = Page(last_id, parent, kind, name, parse_attributes(cursor))
        version, size = cursor.varint(), cursor.varint()
        total = cursor.sum() if size else 0
        pieces = []
        for _ in range(cursor.varint()):
            word = cursor.varint()
            reference = None
            if not word & 1:
                reference = last_ref = (last_ref + cursor.zigzag()) & MASK64
            pieces.append((reference, word >> 1))
        pages.append(TablePage(page, version, size, total, pieces))
    cursor.end("a keyframe")
    return Keyframe(offset, epoch, time, digest, next_id, resume, head_sum, pages)


class Relocations:
    """Content that pruning moved, by its old place. Relocated ranges may overlap, and a piece may
    begin inside of one and run on into another."""

    def __init__(self):
        self.frames = {}  # old frame offset / 8 -> [(offset in its body, bytes)]

    def read(self, body):
        cursor = Cursor(body)
        for _ in range(cursor.varint()):
            reference = cursor.u64()
            self.frames.setdefault(reference >> 20, []).append((reference & 0xfffff,
                                                                cursor.counted()))
        cursor.end("RELOCATION")

    def find(self, reference):
        """The bytes known from a reference on; empty if there are none."""
        at = reference & 0xfffff
        found = [data[at - start:] for start, data in self.frames.get(reference >> 20, ())
                 if start <= at < start + len(data)]
        return max(found, key=len, default=b"")


# --- the log ---------------------------------------------------------------------------------

Epoch = namedtuple("Epoch", "epoch time records pages base_digest digest offset end")


def parse_commit(frame, body):
    """The epoch that a COMMIT frame makes, the next page id, and the records in the frame."""
    records_end = len(body) - 1 - body[-1] if body else -1
    if records_end < 0:
        raise Malformed("a COMMIT frame shorter than its own fields")
    cursor = Cursor(body[records_end:-1])
    epoch, records, pages = cursor.varint(), cursor.varint(), cursor.varint()
    time, base, digest = signed64(cursor.u64()), cursor.sum(), cursor.sum()
    next_id = cursor.varint()
    cursor.end("COMMIT")
    return (Epoch(epoch, time, records, pages, base, digest, frame.offset, frame.end), next_id,
            body[:records_end])


class Log:
    """A log file: header, valid frames from its start, and what recovery would say of it.

    outcome: "clean"    nothing to do
             "torn"     [cut, end of file) would be cut, `reason` says what stopped the scan
             "damaged"  bytes below a synced_to are wrong at `stop`
    """

    def __init__(self, source, max_page=1 << 30):
        """`source`: a path, or the bytes of a log."""
        self.max_page = max_page
        self.data = source if isinstance(source, (bytes, bytearray)) else self.map(source)
        self.header = parse_header(self.data)
        self.frames = []
        self.reason = None
        self.scan()
        self.judge()
        self.by_offset = {frame.offset: frame for frame in self.frames}
        self.contents = {}
        self.known_relocations = None

    @staticmethod
    def map(path):
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""

    def scan(self):
        offset, prev = self.header.start, self.header.start_prev
        while True:
            frame = parse_frame(self.data, offset, self.header.uuid, prev)
            if isinstance(frame, str):
                self.stop, self.reason = offset, frame
                return
            self.frames.append(frame)
            offset, prev = frame.end, frame.head_sum

    def zero_from(self, offset):
        step = 1 << 20
        return all(not any(self.data[at:at + step]) for at in range(offset, len(self.data), step))

    def judge(self):
        whole = self.whole_frames()
        self.cut = self.frames[whole - 1].end if whole else self.header.start
        unfinished = whole < len(self.frames)
        self.frames_behind = []
        if self.zero_from(self.stop):
            self.outcome = "torn" if unfinished else "clean"
        else:
            synced = max((f.synced_to for f in self.frames + self.find_behind()), default=0)
            self.outcome = "damaged" if self.stop < synced else "torn"
        del self.frames[whole:]

    def find_behind(self):
        """The frames of which at least the header is valid, from where the scan stopped."""
        at = self.data.find(struct.pack("<H", FRAME_MAGIC), self.stop)
        while at >= 0:
            frame = parse_frame_header(self.data, at, self.header.uuid)
            if isinstance(frame, Frame):
                self.frames_behind.append(frame)
            at = self.data.find(struct.pack("<H", FRAME_MAGIC), at + 1)
        return self.frames_behind

    def whole_frames(self):
        """How many frames there are without an unfinished transaction or keyframe at the end."""
        count = len(self.frames)
        while count and self.is_open(self.frames[count - 1]):
            count -= 1
        return count

    def is_open(self, frame):
        """Whether a frame needs another one behind it to mean anything."""
        return frame.type in (DATA, CONTENT) or \
            frame.type == KEYFRAME and not self.keyframe_part(frame)[2]

    def body(self, frame):
        start = frame.offset + FRAME_HEADER.size
        body = bytes(self.data[start:start + frame.length])
        return decompress(body) if frame.flags & 1 else body

    # keyframes

    def keyframe_part(self, frame):
        cursor = Cursor(self.body(frame))
        epoch, part, last = cursor.varint(), cursor.varint(), cursor.u8()
        if last > 1:
            raise Malformed("impossible mark of a keyframe's last part")
        return epoch, part, last, cursor.data[cursor.position:]

    def keyframes(self):
        """All complete keyframes."""
        parts = []
        for frame in self.frames:
            if frame.type != KEYFRAME:
                parts = []
                continue
            with located(frame):
                epoch, part, last, data = self.keyframe_part(frame)
                if part == 0:
                    parts = []
                elif len(parts) != part or parts[0][0] != epoch:
                    raise Malformed("a keyframe with a part missing")
                parts.append((epoch, frame, data))
                if last:
                    stream = b"".join(data for _, _, data in parts)
                    yield parse_keyframe(parts[0][1].offset, epoch, stream)
                    parts = []

    def relocations(self):
        table = Relocations()
        for frame in self.frames:
            if frame.type == RELOCATION:
                with located(frame):
                    table.read(self.body(frame))
        return table

    def resolve(self, pieces, size, relocations):
        """The bytes of a page's pieces."""
        if sum(length for _, length in pieces) != size:
            raise Malformed("the pieces of a page do not add up to its size")
        if size > self.max_page:
            raise TooLarge(f"a page has {size} bytes")
        out = []
        for reference, length in pieces:
            while length:
                if reference is None:
                    found = bytes(length)
                else:
                    found = self.referenced(reference, relocations)[:length]
                    if not found:
                        raise Malformed(f"nothing at reference {reference:#x}")
                    reference += len(found)
                out.append(found)
                length -= len(found)
        return b"".join(out)

    def referenced(self, reference, relocations):
        offset, at = (reference >> 20) * 8, reference & 0xfffff
        frame = self.by_offset.get(offset)
        if frame and frame.type == CONTENT:
            return self.content(frame)[at:]
        if frame:
            return self.body(frame)[at:]
        return relocations.find(reference)

    def stored(self, reference, length):
        found = b""
        while len(found) < length:
            more = self.referenced(reference + len(found), self.relocated())
            if not more:
                raise Malformed(f"nothing at reference {reference:#x}")
            found += more
        return found[:length]

    def relocated(self):
        if self.known_relocations is None:
            self.known_relocations = self.relocations()
        return self.known_relocations

    # CONTENT frames

    def content(self, frame):
        """The content of a CONTENT frame."""
        if frame.offset not in self.contents:
            with located(frame):
                self.contents[frame.offset] = Content(self.body(frame)).decode(
                    lambda content: self.base(frame, content))
        return self.contents[frame.offset]

    def base(self, frame, content):
        """The bytes that a content is based on."""
        offset = (content.base >> 20) * 8
        base = self.by_offset.get(offset)
        if offset >= frame.offset:
            raise Malformed("content based on what comes after it")
        if base and base.type == CONTENT:
            below = Content(self.body(base))
            if content.base & 0xfffff or below.length != content.length \
                    or below.cost > content.cost - COST - frame.length:
                raise Malformed("content based on a part of other content, or on too long a chain")
        return self.stored(content.base, content.length)

    def state_of(self, keyframe, relocations):
        """The state that a keyframe describes."""
        state = State(self.max_page)
        for entry in keyframe.pages:
            # Parents may have larger ids than their children: link them when all are there.
            page = entry.page
            page.content = self.resolve(entry.pieces, entry.size, relocations)
            page.sum = content_sum(page.id, page.content)
            page.version = entry.version
            if page.sum != entry.sum or page.id in state.pages or not page.id:
                raise Damaged(f"page {page.id} of a keyframe has another sum than recorded")
            state.pages[page.id] = page
            state.digest += page_term(page) + page.sum
        for page in state.pages.values():
            state.check_place(page.parent, page.name)
            state.link(page)
            if page.id >= keyframe.next_id or page.kind not in range(RAW, TENSOR + 1):
                raise Malformed(f"page {page.id} of a keyframe has an impossible id or kind")
        state.next_id, state.epoch, state.time = keyframe.next_id, keyframe.epoch, keyframe.time
        state.digest &= MASK128
        if state.digest != keyframe.digest:
            raise Damaged(f"the keyframe of epoch {keyframe.epoch} has another digest")
        return state

    # epochs

    def base_state(self):
        """The state before the first COMMIT that is there."""
        if not self.header.base:
            state = State(self.max_page)
            state.epoch = self.header.first_epoch - 1
            return state
        for keyframe in self.keyframes():
            if keyframe.offset == self.header.base:
                if keyframe.epoch != self.header.first_epoch \
                        or keyframe.resume != self.header.start \
                        or keyframe.head_sum != self.header.start_prev:
                    raise Malformed("the base keyframe is not the one the header means")
                return self.state_of(keyframe, self.relocations())
        raise Damaged("the base keyframe is not there")

    def replay(self):
        """Yields (Epoch, State) for every epoch, oldest first; the State is the same object."""
        state = self.base_state()
        if self.header.base:
            yield Epoch(state.epoch, state.time, 0, 0, 0, state.digest, 0,
                        self.header.start), state
        pending = []
        for frame in self.frames:
            if frame.type in (DATA, CONTENT):
                pending.append(frame)
                continue
            if frame.type == COMMIT:
                yield self.commit(state, pending, frame), state
            elif pending:
                raise Malformed(f"a transaction without its COMMIT (frame at {frame.offset})")
            pending = []

    def commit(self, state, pending, frame):
        with located(frame):
            epoch, next_id, own_records = parse_commit(frame, self.body(frame))
            if epoch.epoch != state.epoch + 1 or epoch.base_digest != state.digest \
                    or epoch.time <= state.time:
                raise Malformed(f"the commit of epoch {epoch.epoch} does not follow the last one")
        records = 0
        bodies = [(data, self.body(data)) for data in pending if data.type == DATA]
        first = (pending + [frame])[0].offset
        for data, body in bodies + [(frame, own_records)]:
            def stored(what):
                if not first <= (what.reference >> 20) * 8 < data.offset:
                    raise Malformed("content stored outside of the transaction")
                return self.stored(what.reference, what.length)
            with located(data):
                for kind, _, record in parse_records(body):
                    state.apply(kind, record, stored)
                    records += 1
        with located(frame):
            state.settle(epoch.epoch)
            if records != epoch.records or next_id < state.next_id:
                raise Malformed(f"epoch {epoch.epoch} counts its records or pages wrongly")
            if state.digest != epoch.digest:
                raise Damaged(f"epoch {epoch.epoch} has another digest than recorded")
            state.time, state.next_id = epoch.time, next_id
        return epoch

    def state_at(self, wanted):
        last = None
        for epoch, state in self.replay():
            last = epoch.epoch
            if last == wanted:
                return state
        raise NoSuchEpoch(f"no epoch {wanted}; the last one is {last}")

    def labels(self):
        """name -> epoch"""
        names = {}
        for frame in self.frames:
            if frame.type == LABEL:
                with located(frame):
                    cursor = Cursor(self.body(frame))
                    epoch, name = cursor.varint(), cursor.counted()
                    cursor.end("LABEL")
                    if not 1 <= len(name) <= 255 or 0 in name:
                        raise Malformed("a label that is empty, too long or has a NUL")
                    names.pop(name, None)
                    if epoch:
                        names[name] = epoch
        return names

    def check_keyframe(self, keyframe, state, commit):
        """A keyframe must say what the records say."""
        with located(keyframe):
            said = self.state_of(keyframe, self.relocations())
            if said.digest != state.digest or said.time != state.time \
                    or said.next_id != state.next_id or said.pages.keys() != state.pages.keys():
                raise Malformed(f"the keyframe of epoch {state.epoch} differs from the records")
            for page_id, page in state.pages.items():
                if said.pages[page_id].version != page.version:
                    raise Malformed(f"page {page_id} has version {page.version}, the keyframe "
                                    f"says {said.pages[page_id].version}")
            before = [frame for frame in self.frames if frame.end == keyframe.resume]
            if before and (before[0].offset < commit or before[0].head_sum != keyframe.head_sum):
                raise Malformed("a keyframe resumes elsewhere than behind its commit")

    def verify(self):
        """Raises at the first thing that is wrong; returns the last epoch."""
        if self.outcome == "damaged":
            raise Damaged(f"damaged at offset {self.stop}: {self.reason}")
        self.relocations()
        keyframes = {}
        for keyframe in self.keyframes():
            keyframes.setdefault(keyframe.epoch, []).append(keyframe)
        last = 0
        for epoch, state in self.replay():
            last = epoch.epoch
            for keyframe in keyframes.pop(epoch.epoch, []):
                if keyframe.offset != self.header.base:
                    self.check_keyframe(keyframe, state, epoch.offset)
        for epoch in keyframes:
            if epoch > last:
                raise Malformed(f"a keyframe of epoch {epoch}, but the last one is {last}")
        for name, epoch in self.labels().items():
            if epoch > last:
                raise Malformed(f"the label {name!r} stands for an epoch that is not there")
        return last


class located:
    """Adds the offset of a frame to the errors below it."""

    def __init__(self, frame):
        self.frame = frame

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if isinstance(error, LogError) and not hasattr(error, "offset"):
            error.offset = self.frame.offset
            error.args = (f"{error.args[0]} (frame at {self.frame.offset})",)


# --- restoring a tree ------------------------------------------------------------------------

def safe_name(page):
    return b"/" not in page.name and page.name not in (b".", b"..")


def tree_paths(state):
    """(path, page) of everything that goes to a file system, parents first; b"" is the root."""
    children = {}
    for page in state.pages.values():
        children.setdefault(page.parent, []).append(page)
    stack = [(b"", page) for page in children.get(0, ())]
    while stack:
        below, page = stack.pop()
        if page.kind not in (FILE, DIRECTORY, SYMLINK):
            continue
        is_root = page.parent == 0 and page.name == b"." and page.kind == DIRECTORY
        if not is_root and not safe_name(page):
            raise Malformed(f"the name {page.name!r} must not go to a file system")
        path = b"" if is_root else os.path.join(below, page.name) if below else page.name
        yield path, page
        stack.extend((path, child) for child in children.get(page.id, ()))


def restore(state, target):
    """Writes a tree into `target`, which must not exist."""
    target = os.fsencode(target)
    os.mkdir(target, 0o700)
    placed = [(os.path.join(target, path) if path else target, page)
              for path, page in tree_paths(state)]
    for path, page in placed:
        if page.kind == DIRECTORY:
            if path != target:
                os.mkdir(path, 0o700)
        elif page.kind == SYMLINK:
            os.symlink(page.content, path)
        else:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(page.content)
    for path, page in reversed(placed):  # children first: they change their directory's mtime
        if page.kind != SYMLINK:
            os.chmod(path, page.mode)
        os.utime(path, ns=(page.mtime, page.mtime), follow_symlinks=False)


# --- commands --------------------------------------------------------------------------------

def rfc3339(ns):
    moment = datetime.datetime.utcfromtimestamp(0) + datetime.timedelta(seconds=ns // 10**9)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ns % 10**9:09d}Z"


def hex128(value):
    return value.to_bytes(16, "little").hex()


def command_list(log, args):
    names = {}
    for name, epoch in log.labels().items():
        names.setdefault(epoch, []).append(os.fsdecode(name))
    for epoch, state in log.replay():
        size = sum(len(page.content) for page in state.pages.values())
        print(f"{epoch.epoch}\t{rfc3339(epoch.time)}\t{','.join(names.get(epoch.epoch, []))}\t"
              f"{epoch.pages}\t{size}\t{hex128(epoch.digest)}")
    say_outcome(log)


def say_outcome(log):
    if log.outcome == "torn":
        print(f"torn tail: {len(log.data) - log.cut} bytes from {log.cut} on ({log.reason})",
              file=sys.stderr)


def command_verify(log, args):
    last = log.verify()
    say_outcome(log)
    print(f"epochs {log.header.first_epoch}..{last}: every digest matches")


def command_restore(log, args):
    if log.outcome == "damaged":
        raise Damaged(f"damaged at offset {log.stop}: {log.reason}")
    restore(log.state_at(args.epoch), args.dir)


def command_dump(log, args):
    print(log.header)
    for frame in log.frames:
        packed = " zstd" if frame.flags & 1 else ""
        print(f"{frame.offset:>10} {FRAME_NAMES[frame.type]}{packed} {frame.length} bytes, "
              f"synced to {frame.synced_to}, sum {frame.head_sum:016x}")
        body = log.body(frame)
        if frame.type == DATA:
            for kind, at, record in parse_records(body):
                print(f"{'':>14}{RECORD_NAMES[kind]} page {Cursor(record).varint()}, "
                      f"{len(record)} bytes at {at}")
        elif frame.type == COMMIT:
            epoch, next_id, _ = parse_commit(frame, body)
            print(f"{'':>14}epoch {epoch.epoch}, {epoch.records} records, {epoch.pages} pages, "
                  f"{rfc3339(epoch.time)}, next page {next_id}\n"
                  f"{'':>14}{hex128(epoch.base_digest)} -> {hex128(epoch.digest)}")
        elif frame.type == LABEL:
            cursor = Cursor(body)
            print(f"{'':>14}epoch {cursor.varint()} is {cursor.counted()!r}")
        elif frame.type == KEYFRAME:
            epoch, part, last, data = log.keyframe_part(frame)
            print(f"{'':>14}epoch {epoch}, part {part}{', the last' if last else ''}")
    for frame in log.frames_behind:
        print(f"{frame.offset:>10} {FRAME_NAMES[frame.type]} behind what is not valid, "
              f"synced to {frame.synced_to}")
    print(f"{log.outcome}: the scan stopped at {log.stop} of {len(log.data)} ({log.reason})")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("list", "verify", "restore", "dump"):
        command = commands.add_parser(name)
        command.add_argument("log")
        if name == "restore":
            command.add_argument("epoch", type=int)
            command.add_argument("dir")
        command.set_defaults(run=globals()[f"command_{name}"])
    try:
        args = parser.parse_args()
    except SystemExit as stop:
        return 64 if stop.code else 0
    try:
        args.run(Log(args.log), args)
    except LogError as error:
        print(f"{args.log}: {error}", file=sys.stderr)
        return error.code
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 66
    except FileExistsError as error:
        print(error, file=sys.stderr)
        return 73
    return 0


if __name__ == "__main__":
    sys.exit(main())
