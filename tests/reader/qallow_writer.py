# SPDX-License-Identifier: Apache-2.0
"""Writes transaction logs from Python, following docs/formats/tlog.md: for logs that the C writer
did not write, and for such as it never would (hostile names, impossible sizes, foreign frames).

A Writer is at the same time the model that readers are measured against: it keeps every epoch's
pages as plain bytes, edited with slices and not with the operations that go to the log. Nothing is
checked here; whatever is asked for is written, with right checksums.

    log = Writer()
    top = log.create(0, b".", DIRECTORY, mode=0o755)
    page = log.create(top, b"hello", FILE)
    log.write(page, b"hello, world")
    log.commit()
    log.save("hello.tlog")
"""

import copy
import struct

import xxhash
import zstandard

from qallow_content import BODY_MAX, COST, MASK64, PLAIN
from qallow_reader import (
    ATTRIBUTES, CELL, CLOSE, COMMIT, CONTENT, COPY, CREATE, DATA, DELTA, FILE, FIRST_FRAME,
    FRAME_HEADER, FRAME_MAGIC, FREE, GROW, IMAGE, KEYFRAME, LABEL, MAGIC, MASK, MASK128, OVERWRITE,
    PART_BASE, PART_FIRST, PART_LAST, RELOCATION, RENAME, REPLACE, SLOT_SIZE, STORED, VERSION, ZERO,
    Attributes, Page, content_sum, frame_seed, page_term)

SECOND = 10**9
START_TIME = 1_700_000_000 * SECOND


# --- values ----------------------------------------------------------------------------------

def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7f | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def zigzag(value):
    return varint((value << 1 ^ value >> 63) & MASK64)


def counted(data):
    return varint(len(data)) + data


def sum128(value):
    return value.to_bytes(16, "little")


def attributes(mode, mtime, extra):
    return varint(mode) + zigzag(mtime) + counted(extra)


# --- operations: (kind, at, n, detail) -----------------------------------------------------------

def overwrite(at, data):
    return OVERWRITE, at, len(data), data


def mask(at, old, new):
    """Overwrites the differing bytes of a span."""
    return MASK, at, len(new), (old, new)


def replace(at, n, data):
    return REPLACE, at, n, data


def remove(at, n):
    return 3, at, n, None


def zero(at, n):
    return ZERO, at, n, None


def grow(at, n):
    return GROW, at, n, None


def copy_from(at, n, source, m):
    return COPY, at, n, (source, m)


def stored(at, n, reference, data):
    """What Writer.content gave a reference to."""
    return STORED, at, n, (reference, data)


# --- bodies of CONTENT frames ----------------------------------------------------------------

def plain(data):
    return varint(len(data)) + bytes([PLAIN]) + data


def planes(width, elements):
    """The streams of elements, none of them compressed."""
    columns = zip(*(value.to_bytes(width, "little") for value in elements))
    return b"".join(b"\0" + bytes(column) for column in columns)


def based(length, coding, width, base, streams, values=0, below=0, count=None, cost=None):
    """CHANGES (with `count`) or ALL; `below` is the cost of the base."""
    head = varint(length) + bytes([coding, width]) + struct.pack("<Q", base)
    tail = bytes([values]) + (b"" if count is None else varint(count)) + streams
    cost = cost or below + COST + len(head) + 4 + len(tail)
    return head + varint(cost) + tail


def old_length(operation):
    """How many old bytes an operation consumes."""
    kind, _, n, _ = operation
    return 0 if kind == GROW else n


def operation_bytes(operation, at):
    """The operation as bytes; and where in them its literals begin, -1 if it has none."""
    kind, start, n, detail = operation
    head = varint(start - at) + varint(n << 3 | kind)
    if kind == OVERWRITE:
        return head + detail, len(head)
    if kind == REPLACE:
        head += varint(len(detail))
        return head + detail, len(head)
    if kind == MASK:
        changed = [old != new for old, new in zip(*detail)]
        bits = sum(1 << i for i, differs in enumerate(changed) if differs)
        head += bits.to_bytes((n + 7) // 8, "little")
        return head + bytes(b for b, differs in zip(detail[1], changed) if differs), len(head)
    if kind == COPY:
        source, m = detail
        return head + varint(m) + varint(source), -1
    if kind == STORED:
        reference, data = detail
        return head + varint(len(data)) + struct.pack("<Q", reference), -1
    return head, -1


def operation_result(operation, old, old_pieces, reference):
    """What an operation puts in place of its n old bytes: the bytes, and the pieces."""
    kind, at, n, detail = operation
    if kind in (OVERWRITE, REPLACE):
        return detail, [(reference, len(detail))]
    if kind == MASK:
        pieces, used = [], 0
        for i, (was, now) in enumerate(zip(*detail)):
            if was == now:
                pieces += cut_pieces(old_pieces, at + i, at + i + 1)
            else:
                pieces.append((reference + used, 1))
                used += 1
        return detail[1], pieces
    if kind == COPY:
        source, m = detail
        return old[source:source + m], cut_pieces(old_pieces, source, source + m)
    if kind == STORED:
        return detail[1], [(detail[0], len(detail[1]))]
    if kind in (ZERO, GROW):
        return bytes(n), [(None, n)]
    return b"", []


def cut_pieces(pieces, start, end):
    """The pieces of [start, end) of a content."""
    out, at = [], 0
    for reference, length in pieces:
        low, high = max(start, at), min(end, at + length)
        if low < high:
            out.append((None if reference is None else reference + low - at, high - low))
        at += length
    return out


# --- the writer ------------------------------------------------------------------------------

class Writer:
    def __init__(self, uuid=bytes(range(16)), first_epoch=1, flags=0):
        self.uuid = uuid
        self.version = 1
        self.out = bytearray(FIRST_FRAME)
        self.prev = 0
        self.synced_to = FIRST_FRAME
        self.records = bytearray()  # of the DATA frame to be written next
        self.record_count = 0
        self.frames = []            # (offset, type)
        self.pages = {}             # id -> reader's Page, with .pieces besides
        self.changed = set()
        self.next_id = 1
        self.epoch = first_epoch - 1
        self.digest = 0
        self.time = START_TIME
        self.history = {}           # epoch -> Moment
        self.relocated = {}         # (reference, length) -> offset of its RELOCATION frame
        self.names = {}             # label -> epoch
        self.sequence = 0
        self.header = dict(start=FIRST_FRAME, start_prev=0, first_epoch=first_epoch, base=0,
                           flags=flags)
        self.slot()

    # header and frames

    def slot(self, **fields):
        """Writes the next header slot to the place of the older one."""
        self.version = fields.pop("version", self.version)
        cell = fields.pop("cell", CELL)
        self.header.update(fields)
        self.sequence += 1
        h = self.header
        slot = MAGIC + struct.pack("<II16sQQQQQQQ", self.version, cell, self.uuid, self.sequence,
                                   h["start"], h["start_prev"], h["first_epoch"], h["base"],
                                   h["flags"], self.epoch + 1)
        slot = slot.ljust(120, b"\0")
        slot += struct.pack("<Q", xxhash.xxh3_64_intdigest(slot, 0))
        place = (self.sequence - 1) % 2 * SLOT_SIZE
        self.out[place:place + len(slot)] = slot

    def frame(self, kind, body, compress=False, **wrong):
        """Appends a frame and returns its offset; `wrong` replaces header fields."""
        offset = len(self.out)
        if compress:
            body = zstandard.ZstdCompressor(level=3, write_content_size=True).compress(body)
        seed = frame_seed(wrong.get("uuid", self.uuid), wrong.get("offset", offset))
        head = FRAME_HEADER.pack(
            wrong.get("magic", FRAME_MAGIC), kind, wrong.get("flags", int(compress)),
            wrong.get("length", len(body)), wrong.get("prev", self.prev),
            wrong.get("synced_to", self.synced_to),
            wrong.get("body_sum", xxhash.xxh3_64_intdigest(body, seed)), 0)[:32]
        head_sum = xxhash.xxh3_64_intdigest(head, seed)
        self.out += head + struct.pack("<Q", wrong.get("head_sum", head_sum)) + body
        self.out += bytes(-len(self.out) % 8)
        self.prev = head_sum
        self.frames.append((offset, kind))
        return offset

    def sync(self):
        self.synced_to = len(self.out)

    def flush(self, compress=False):
        """Ends the open DATA frame."""
        if self.records:
            self.frame(DATA, bytes(self.records), compress)
            self.records = bytearray()

    def content(self, body, **wrong):
        """Appends a CONTENT frame, the first one after a header that says so; its reference."""
        if self.version < VERSION:
            self.slot(version=VERSION)
        self.flush()
        return self.frame(CONTENT, body, **wrong) // 8 << 20

    # records

    def record(self, kind, data):
        """Appends a record; returns the reference of its first byte."""
        head = bytes([kind]) + varint(len(data))
        if len(self.records) + len(head) + len(data) > BODY_MAX:
            self.flush()
        at = len(self.records) + len(head)
        self.records += head + data
        self.record_count += 1
        return len(self.out) // 8 << 20 | at

    def create(self, parent, name, kind=FILE, mode=0o644, mtime=START_TIME, extra=b"",
               page_id=None):
        page_id = self.next_id if page_id is None else page_id
        self.record(CREATE, varint(page_id) + varint(parent) + bytes([kind]) + counted(name)
                    + attributes(mode, mtime, extra))
        page = Page(page_id, parent, kind, name, Attributes(mode, mtime, extra))
        page.pieces = []
        self.pages[page_id] = page
        self.changed.add(page_id)
        self.next_id = max(self.next_id, page_id + 1)
        return page_id

    def attributes(self, page_id, mode=0o644, mtime=START_TIME, extra=b""):
        self.record(ATTRIBUTES, varint(page_id) + attributes(mode, mtime, extra))
        self.pages[page_id].set_attributes(Attributes(mode, mtime, extra))
        self.changed.add(page_id)

    def rename(self, page_id, parent, name):
        self.record(RENAME, varint(page_id) + varint(parent) + counted(name))
        page = self.pages[page_id]
        page.parent, page.name = parent, name
        self.changed.add(page_id)

    def free(self, page_id):
        self.record(FREE, varint(page_id))
        del self.pages[page_id]
        self.changed.add(page_id)

    def edit(self, page_id, *parts, base=None, kind=DELTA, frame_each=False, **wrong):
        """Changes a content by lists of operations, one list a part. With frame_each every part
        begins a DATA frame of its own. `wrong`: old_size, new_size, sum, flags to lie with."""
        page = self.pages[page_id]
        old = b"" if kind == IMAGE else self.pages[base or page_id].content
        old_pieces = [] if kind == IMAGE else self.pages[base or page_id].pieces
        operations = [operation for part in parts for operation in part]
        new = old
        for operation in reversed(operations):
            at, end = operation[1], operation[1] + old_length(operation)
            new = new[:at] + operation_result(operation, old, old_pieces, 0)[0] + new[end:]
        total = content_sum(page_id, new)
        references, at = [], 0
        for index, part in enumerate(parts):
            first, last = index == 0, index == len(parts) - 1
            flags = first * PART_FIRST | last * PART_LAST | (first and bool(base)) * PART_BASE
            data = varint(page_id) + bytes([wrong.get("flags", flags)])
            if first:
                data += varint(base) if base else b""
                data += varint(wrong.get("old_size", len(old)))
                data += zigzag(wrong.get("new_size", len(new)) - wrong.get("old_size", len(old)))
            if last:
                data += sum128(wrong.get("sum", total))
            literals = []
            for operation in part:
                encoded, literal = operation_bytes(operation, at)
                literals.append(len(data) + literal)
                data += encoded
                at = operation[1] + old_length(operation)
            if frame_each:
                self.flush()
            start = self.record(kind, data)
            references += [start + literal for literal in literals]
        pieces, tail = [], sum(length for _, length in old_pieces)
        for operation, reference in zip(reversed(operations), reversed(references)):
            at, end = operation[1], operation[1] + old_length(operation)
            middle = operation_result(operation, old, old_pieces, reference)[1]
            pieces = middle + cut_pieces(old_pieces, end, tail) + pieces
            tail = at
        page.pieces = cut_pieces(old_pieces, 0, tail) + pieces
        page.content = new
        if kind == DELTA:
            self.changed.add(page_id)

    def write(self, page_id, content):
        """Gives a page a whole new content."""
        old = len(self.pages[page_id].content)
        if content:
            self.edit(page_id, [replace(0, old, content)])
        elif old:
            self.edit(page_id, [remove(0, old)])

    def image(self, page_id):
        content = self.pages[page_id].content
        self.edit(page_id, [grow(0, len(content)) if not any(content) else
                            replace(0, 0, content)] if content else [], kind=IMAGE)

    # epochs

    def digest_now(self):
        return sum(page_term(page) + content_sum(page.id, page.content)
                   for page in self.pages.values()) & MASK128

    def commit(self, compress=False, sync=True, ride=False, **wrong):
        """Ends the transaction. With `ride` the open records go into the COMMIT frame itself."""
        own_records = bytes(self.records) if ride else b""
        if ride:
            self.records = bytearray()
        self.flush(compress)
        base, self.digest = self.digest, self.digest_now()
        self.epoch += 1
        self.time += SECOND
        for page_id in self.changed & self.pages.keys():
            self.pages[page_id].version = self.epoch
        body = varint(wrong.get("epoch", self.epoch))
        body += varint(wrong.get("records", self.record_count)) + varint(len(self.changed))
        body += struct.pack("<q", wrong.get("time", self.time))
        body += sum128(wrong.get("base", base)) + sum128(wrong.get("digest", self.digest))
        body += varint(wrong.get("next_id", self.next_id)) + wrong.get("extra", b"")
        body = own_records + body + bytes([wrong.get("tail", len(body))])
        self.frame(COMMIT, body, compress and ride)
        self.record_count = 0
        self.changed = set()
        if sync:
            self.sync()
        self.history[self.epoch] = Moment(self)
        return self.epoch

    def label(self, name, epoch):
        self.frame(LABEL, varint(epoch) + counted(name))
        self.sync()
        self.names.pop(name, None)
        if epoch:
            self.names[name] = epoch

    def close(self):
        self.frame(CLOSE, b"")
        self.sync()

    # keyframes and pruning

    def keyframe(self, epoch=None, part_size=BODY_MAX // 2, compress=False):
        """Writes the page table of an epoch; returns the offset of its first frame."""
        moment = self.history[epoch or self.epoch]
        stream = moment.table()
        parts = [stream[i:i + part_size] for i in range(0, len(stream), part_size)]
        first = len(self.out)
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            self.frame(KEYFRAME, varint(moment.epoch) + varint(index) + bytes([last]) + part,
                       compress)
        return first

    def prune(self, first_epoch):
        """Drops the epochs before one."""
        moment = self.history[first_epoch]
        for reference, data in moment.literals_before(moment.end):
            if self.relocated.get((reference, len(data)), 0) < moment.end:
                body = varint(1) + struct.pack("<Q", reference) + counted(data)
                self.relocated[reference, len(data)] = self.frame(RELOCATION, body)
        base = self.keyframe(first_epoch)
        self.sync()
        self.slot(start=moment.end, start_prev=moment.head_sum, first_epoch=first_epoch, base=base)
        self.out[FIRST_FRAME:moment.end] = bytes(moment.end - FIRST_FRAME)
        self.history = {e: m for e, m in self.history.items() if e >= first_epoch}
        self.names = {n: e for n, e in self.names.items() if e >= first_epoch}

    # the file

    def save(self, path, zeros=0):
        with open(path, "wb") as file:
            file.write(self.out + bytes(zeros))


class Moment:
    """The model as of one epoch, with what a keyframe of it needs."""

    def __init__(self, log):
        self.epoch, self.time, self.digest = log.epoch, log.time, log.digest
        self.next_id, self.end, self.head_sum = log.next_id, len(log.out), log.prev
        self.pages = copy.deepcopy(log.pages)

    def literals_before(self, offset):
        """(reference, bytes) of the content that stands in frames before an offset."""
        for page in self.pages.values():
            at = 0
            for reference, length in page.pieces:
                if reference is not None and (reference >> 20) * 8 < offset:
                    yield reference, page.content[at:at + length]
                at += length

    def table(self):
        """The stream of a keyframe."""
        out = struct.pack("<q", self.time) + sum128(self.digest) + varint(self.next_id)
        out += varint(self.end) + struct.pack("<Q", self.head_sum)
        out += varint(len(self.pages))
        last_id = last_reference = 0
        for page_id, page in sorted(self.pages.items()):
            out += varint(page_id - last_id) + varint(page.parent) + bytes([page.kind])
            out += counted(page.name) + attributes(page.mode, page.mtime, page.extra)
            out += varint(page.version) + varint(len(page.content))
            if page.content:
                out += sum128(content_sum(page_id, page.content))
            out += varint(len(page.pieces))
            for reference, length in page.pieces:
                out += varint(length << 1 | (reference is None))
                if reference is not None:
                    out += zigzag(reference - last_reference)
                    last_reference = reference
            last_id = page_id
        return out
