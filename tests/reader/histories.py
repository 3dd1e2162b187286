# SPDX-License-Identifier: Apache-2.0
"""Random histories of a directory tree, written as logs by qallow_writer.

Contents are edited with every kind of operation; directories grow, move and vanish; logs have
labels, keyframes, images, compressed frames, changes in several parts, clean ends and pruned
beginnings. The same random numbers give the same log."""

from qallow_reader import DIRECTORY, EVENT, FILE, SYMLINK, CONFIG
from qallow_writer import (
    Writer, copy_from, grow, mask, old_length, overwrite, remove, replace, zero)

NAMES = [b"a", b"b", b"src", b"with space", b"new\nline", b"-n", b"\xff\xfe", "ä".encode(), b"...",
         b"x" * 255, b".hidden", b"\\", b"*", b"'\"", b"\x01", b" "]


def random_bytes(rng, length):
    style = rng.randrange(4)
    if style == 0:
        return bytes(length)
    if style == 1:
        return bytes([rng.randrange(256)]) * length
    if style == 2:
        return (b"line %d\n" % rng.randrange(9) * (length // 7 + 1))[:length]
    return rng.randbytes(length)


def random_length(rng):
    return rng.choice((0, 1, 2, 7, 8, 9, 126, 127, 128, 129, 255, 256, 257, rng.randrange(3000)))


def random_operations(rng, old):
    """Sorted operations over an old content, with gaps between them."""
    operations, at = [], 0
    for _ in range(rng.randrange(1, 6)):
        at += rng.choice((0, 1, rng.randrange(len(old) + 1)))
        if at > len(old):
            break
        room = len(old) - at
        n = rng.choice((0, room, min(room, 1), rng.randrange(room + 1)))
        kind = rng.randrange(7)
        data = random_bytes(rng, random_length(rng) or 1)
        if kind == 0 and n:
            operations.append(overwrite(at, random_bytes(rng, n)))
        elif kind == 1 and n:
            was = old[at:at + n]
            now = bytes(b ^ rng.choice((0, 0, 0, 85)) for b in was)
            if now != was:
                operations.append(mask(at, was, now))
        elif kind == 2:
            operations.append(replace(at, n, data))
        elif kind == 3 and n:
            operations.append(remove(at, n))
        elif kind == 4 and n:
            operations.append(zero(at, n))
        elif kind == 5:
            operations.append(grow(at, len(data)))
        elif kind == 6 and old:
            source = rng.randrange(len(old))
            length = rng.randrange(1, len(old) - source + 1)
            if (source, length) != (at, n):
                operations.append(copy_from(at, n, source, length))
        if operations and operations[-1][1] == at:
            at += old_length(operations[-1])
    return operations


def random_parts(rng, operations):
    parts = [[]]
    for operation in operations:
        if rng.random() < 0.3:
            parts.append([])
        parts[-1].append(operation)
    return parts


class History:
    def __init__(self, rng):
        self.rng = rng
        self.log = Writer(uuid=rng.randbytes(16))
        self.top = self.log.create(0, b".", DIRECTORY, mode=0o755)

    def pages(self, *kinds):
        return [page for page in self.log.pages.values()
                if page.kind in kinds and page.id != self.top]

    def some(self, *kinds):
        pages = self.pages(*kinds)
        return self.rng.choice(pages) if pages else None

    def place(self):
        """A directory and a name that is free in it."""
        parent = self.rng.choice([self.top] + [page.id for page in self.pages(DIRECTORY)])
        taken = {page.name for page in self.log.pages.values() if page.parent == parent}
        free = [name for name in NAMES if name not in taken]
        return (parent, self.rng.choice(free)) if free else None

    def create(self):
        place, rng = self.place(), self.rng
        if not place:
            return
        kind = rng.choice((FILE, FILE, FILE, DIRECTORY, SYMLINK))
        mtime = rng.choice((0, -1, 1, rng.randrange(-2**33, 2**33) * 10**9 + rng.randrange(10**9)))
        mode = 0o755 if kind == DIRECTORY else 0o777 if kind == SYMLINK \
            else rng.choice((0o644, 0o600, 0o755, 0o444))
        page = self.log.create(*place, kind, mode, mtime)
        if kind == SYMLINK:
            self.log.write(page, rng.choice((b"a", b"../b", b"/nowhere", b"\xff\n")))
        elif kind == FILE and rng.random() < 0.8:
            self.log.write(page, random_bytes(rng, random_length(rng)))

    def edit(self):
        page = self.some(FILE)
        base = self.some(FILE)
        if not page:
            return
        if self.rng.random() < 0.7 or base.id == page.id:
            base = None
        old = (base or page).content
        parts = random_parts(self.rng, random_operations(self.rng, old))
        self.log.edit(page.id, *parts, base=base and base.id,
                      frame_each=self.rng.random() < 0.3)

    def rename(self):
        page, place = self.some(FILE, DIRECTORY, SYMLINK), self.place()
        if not page or not place:
            return
        above = place[0]
        while above:
            if above == page.id:
                return
            above = self.log.pages[above].parent
        self.log.rename(page.id, *place)

    def free(self):
        page = self.some(FILE, DIRECTORY, SYMLINK)
        if page and not any(p.parent == page.id for p in self.log.pages.values()):
            self.log.free(page.id)

    def attributes(self):
        page = self.some(FILE, DIRECTORY)
        if page:
            mode = 0o750 if page.kind == DIRECTORY else self.rng.randrange(0o400, 0o1000)
            self.log.attributes(page.id, mode, self.rng.randrange(2**60))

    def image(self):
        page = self.some(FILE)
        if page:
            self.log.image(page.id)

    def epoch(self):
        rng = self.rng
        steps = (self.create, self.create, self.edit, self.edit, self.edit, self.rename, self.free,
                 self.attributes, self.image)
        for _ in range(rng.randrange(8)):
            rng.choice(steps)()
        self.log.commit(compress=rng.random() < 0.3, sync=rng.random() < 0.8,
                        ride=rng.random() < 0.5)

    def between(self):
        log, rng = self.log, self.rng
        step = rng.randrange(12)
        if step == 0:
            log.label(rng.choice((b"one", b"two", "drei ä".encode())), rng.choice((0, log.epoch)))
        elif step == 1:
            log.keyframe(part_size=rng.choice((100, 1 << 19)), compress=rng.random() < 0.5)
        elif step == 2:
            log.frame(EVENT, rng.randbytes(20))
        elif step == 3:
            log.close()
        elif step == 4:
            log.prune(rng.choice(sorted(log.history)))


def random_history(rng, epochs):
    history = History(rng)
    if rng.random() < 0.5:
        rules = history.log.create(0, b"rules", CONFIG)
        history.log.write(rules, b"exclude *.o\n")
    for _ in range(epochs):
        history.epoch()
        history.between()
    return history.log
