# SPDX-License-Identifier: Apache-2.0
"""The body of a CONTENT frame, written from docs/formats/tlog.md alone; and what it shares with the
rest of the reader: errors, a cursor, decompression."""

import zstandard

BODY_MAX = 1 << 20
MASK64 = (1 << 64) - 1
PLAIN, PLANES, CHANGES, ALL = range(4)
COST, COST_MAX = 256, 1 << 22


class LogError(Exception):
    """Anything wrong with a log; `code` is the exit code."""
    code = 65


class Damaged(LogError):
    """Bytes that had been durable are wrong."""


class Malformed(LogError):
    """Checksums are right, the meaning is not."""


class NewerVersion(LogError):
    """A larger format version."""


class NotALog(LogError):
    """No valid header."""


class TooLarge(LogError):
    """Valid, but more than this reader holds in memory."""
    code = 71


class NoSuchEpoch(LogError):
    code = 66


# --- values ----------------------------------------------------------------------------------

class Cursor:
    """Reads little-endian values from bytes; running over the end is Malformed."""

    def __init__(self, data, position=0):
        self.data = data
        self.position = position

    def left(self):
        return len(self.data) - self.position

    def take(self, length):
        if length > self.left():
            raise Malformed(f"{length} bytes expected, {self.left()} there")
        start = self.position
        self.position += length
        return self.data[start:self.position]

    def u8(self):
        return self.take(1)[0]

    def u64(self):
        return int.from_bytes(self.take(8), "little")

    def sum(self):
        return int.from_bytes(self.take(16), "little")

    def varint(self):
        value = 0
        for shift in range(0, 70, 7):
            byte = self.u8()
            value |= (byte & 0x7f) << shift
            if byte < 0x80:
                if value > MASK64:
                    raise Malformed("a varint beyond 64 bits")
                if byte == 0 and shift:
                    raise Malformed("a varint that is not in its shortest spelling")
                return value
        raise Malformed("a varint of more than 10 bytes")

    def zigzag(self):
        value = self.varint()
        return value >> 1 ^ -(value & 1)

    def counted(self):
        return bytes(self.take(self.varint()))

    def end(self, what):
        if self.left():
            raise Malformed(f"{self.left()} bytes too many in {what}")


def decompress(body):
    """The content of one zstd frame of at most 1 MiB, or None."""
    try:
        size = zstandard.get_frame_parameters(body).content_size
        if size in (zstandard.CONTENTSIZE_UNKNOWN, zstandard.CONTENTSIZE_ERROR) or size > BODY_MAX:
            return None
        stream = zstandard.ZstdDecompressor().decompressobj()
        content = stream.decompress(body)
    except zstandard.ZstdError:
        return None
    whole = stream.eof and len(content) == size and not stream.unused_data
    return content if whole else None


class Content:
    """The body of a CONTENT frame."""

    def __init__(self, body):
        self.cursor = cursor = Cursor(body)
        self.length, self.coding, self.width, self.cost = cursor.varint(), cursor.u8(), 1, 0
        if not 1 <= self.length <= BODY_MAX or self.coding > ALL:
            raise Malformed("content of an impossible length or coding")
        if self.coding != PLAIN:
            self.width = cursor.u8()
            if self.width not in (1, 2, 4, 8) or self.length % self.width:
                raise Malformed("content of elements of an impossible width")
        self.count = self.length // self.width
        if self.coding in (CHANGES, ALL):
            self.base, self.cost, self.values = cursor.u64(), cursor.varint(), cursor.u8()
            if self.base == MASK64 or self.values > 1 \
                    or not COST + len(body) <= self.cost <= COST_MAX:
                raise Malformed("content with an impossible base, cost or kind of values")
        if self.coding == CHANGES:
            self.count = cursor.varint()
            if self.count * self.width > self.length:
                raise Malformed("more changes than elements")

    def stream(self, length):
        kind = self.cursor.u8()
        if kind == 0:
            return self.cursor.take(length)
        if kind == 2:
            return self.cursor.take(1) * length
        content = decompress(self.cursor.counted()) if kind == 1 else None
        if content is None or len(content) != length:
            raise Malformed("a stream of another length than it says")
        return content

    def planes(self):
        """The elements, as integers."""
        planes = [self.stream(self.count) for _ in range(self.width)]
        self.cursor.end("CONTENT")
        return [int.from_bytes(element, "little") for element in zip(*planes)]

    def decode(self, base):
        """The content; `base` gives the bytes beneath."""
        if self.coding == PLAIN:
            if self.cursor.left() != self.length:
                raise Malformed("content of another length than it says")
            return bytes(self.cursor.data[self.cursor.position:])
        if self.coding == PLANES:
            return b"".join(value.to_bytes(self.width, "little") for value in self.planes())
        positions = self.positions() if self.coding == CHANGES else range(self.count)
        content = bytearray(base(self))
        for position, value in zip(positions, self.planes()):
            at = position * self.width
            if self.values:
                old = int.from_bytes(content[at:at + self.width], "little")
                value = (old + (value >> 1 ^ -(value & 1))) & (1 << 8 * self.width) - 1
            content[at:at + self.width] = value.to_bytes(self.width, "little")
        return bytes(content)

    def positions(self):
        length = self.cursor.varint()
        if length > BODY_MAX:
            raise Malformed("more gaps than content")
        gaps = Cursor(self.stream(length))
        positions, at = [], 0
        for _ in range(self.count):
            gap = 255
            while gap == 255:
                gap = gaps.u8()
                at += gap
            if at >= self.length // self.width:
                raise Malformed("a change behind the content")
            positions.append(at)
            at += 1
        gaps.end("the gaps")
        return positions
