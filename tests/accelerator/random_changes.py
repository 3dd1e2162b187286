# SPDX-License-Identifier: Apache-2.0
"""Processes that change a tree at random, for differential.py.

Which operations a process tries is decided by its seed alone; what becomes of them depends on what
the others do at the same time, and errors (a name that is taken, a directory that is not empty) are
a part of it. Files that are mapped have names of their own and never get shorter, because a store
beyond the end of a file kills the process.

A store through a mapping gives the file a new time only if its page is not dirty already, so an
msync goes before each: a file that was read between two stores into one dirty page looks the same
as before. QALLOW_DIRTY_STORES=1 leaves the msync out.
"""
import contextlib
import ctypes
import errno
import mmap
import os
import random
import shutil
import time

# Some are mostly directories and some mostly files, so that enough operations succeed.
DIRECTORIES = ("a", "b", "c", "d\n")
NAMES = ("a", "b", "f", "g", "h", "new\nline", os.fsdecode(b"\xff\xfe"))
MAPPED = ("m0", "m1", "m2")
MAPPED_SIZE = 3 * mmap.PAGESIZE
REPORT_EVERY = 25
RENAME_EXCHANGE = 2
AT_FDCWD = -100
DIRTY_STORES = os.environ.get("QALLOW_DIRTY_STORES") == "1"
LIBC = ctypes.CDLL(None, use_errno=True)


class Changer:
    """One process's way through the tree; the present directory is the root."""

    def __init__(self, seed, with_mappings):
        self.random = random.Random(seed)
        self.maps = []
        self.own = f"{os.getpid()}.tmp"
        self.linked = None  # by the present operation: the inode, and the new name
        actions = [(self.write, 20), (self.append, 12), (self.write_within, 6), (self.truncate, 5),
                   (self.make_directory, 10), (self.rename, 14), (self.rename_over, 8),
                   (self.exchange, 3), (self.link, 5), (self.chmod, 4), (self.set_time, 3),
                   (self.symlink, 3), (self.replace_by_symlink, 3), (self.file_to_directory, 3),
                   (self.unlink, 8), (self.remove_tree, 2), (self.save_in_turns, 3)]
        if with_mappings:
            actions += [(self.mapped_file, 4), (self.mapped_write, 3), (self.map_file, 4),
                        (self.store, 8), (self.synchronise, 3), (self.unmap, 2),
                        (self.rename_mapped, 2)]
        self.actions, self.weights = zip(*actions)

    # --- names and bytes ---

    def directory(self):
        return "/".join(self.random.choices(DIRECTORIES, k=self.random.choice((0, 0, 1, 1, 2))))

    def path(self):
        return os.path.join(self.directory(), self.random.choice(NAMES))

    def mapped_path(self):
        return os.path.join(self.directory(), self.random.choice(MAPPED))

    def bytes(self):
        size = self.random.choice((0, 1, 10, 100, 1000, 5000, 70000))
        return self.random.randbytes(self.random.randint(size // 2, size))

    # --- operations: each says what it tried ---

    def write(self):
        path, data = self.path(), self.bytes()
        yield f"write {path!r} {len(data)}"
        with open(path, "wb") as file:
            file.write(data)

    def append(self):
        path, data = self.path(), self.bytes()
        yield f"append {path!r} {len(data)}"
        with open(path, "ab") as file:
            file.write(data)

    def write_within(self):
        path, at, data = self.path(), self.random.randrange(200), self.bytes()
        yield f"write {path!r} at {at} {len(data)}"
        with open(path, "r+b") as file:
            file.seek(at)
            file.write(data)

    def truncate(self):
        path, size = self.path(), self.random.choice((0, 1, 100, 100000))
        yield f"truncate {path!r} {size}"
        os.truncate(path, size)

    def make_directory(self):
        path = "/".join(self.random.choices(DIRECTORIES, k=self.random.randint(1, 3)))
        yield f"mkdir -p {path!r}"
        os.makedirs(path)

    def rename(self):
        path, other = self.path(), self.path()
        if self.random.randrange(2):
            path = os.path.join(self.directory(), self.random.choice(DIRECTORIES))
            other = os.path.join(self.directory(), self.random.choice(DIRECTORIES))
        yield f"rename {path!r} {other!r}"
        os.rename(path, other)

    def rename_over(self):
        path, data = self.path(), self.bytes()
        yield f"save {path!r} {len(data)} beside and rename"
        with open(self.own, "wb") as file:
            file.write(data)
        try:
            os.rename(self.own, path)
        except OSError:
            os.unlink(self.own)
            raise

    def exchange(self):
        path, other = self.path(), self.path()
        yield f"exchange {path!r} {other!r}"
        if LIBC.renameat2(AT_FDCWD, os.fsencode(path), AT_FDCWD, os.fsencode(other),
                          RENAME_EXCHANGE):
            raise OSError(ctypes.get_errno(), "renameat2")

    def link(self):
        path, other = self.path(), self.path()
        yield f"link {path!r} {other!r}"
        # Through a descriptor, because others may replace the path at any time.
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW)
        try:
            os.link(f"/proc/self/fd/{fd}", other, follow_symlinks=True)
            self.linked = (os.fstat(fd).st_ino, other)
        finally:
            os.close(fd)

    def chmod(self):
        path, mode = self.path(), self.random.choice((0o644, 0o600, 0o755, 0o4755, 0o700))
        yield f"chmod {path!r} {mode:o}"
        if not os.path.islink(path):
            os.chmod(path, mode)

    def set_time(self):
        path, when = self.path(), self.random.choice((0, 1, 10 ** 18 + 123456789))
        yield f"utime {path!r} {when}"
        os.utime(path, ns=(when, when), follow_symlinks=False)

    def symlink(self):
        path, target = self.path(), self.random.choice(NAMES)
        yield f"symlink {path!r} -> {target!r}"
        os.symlink(target, path)

    def replace_by_symlink(self):
        path, target = self.path(), self.random.choice(NAMES)
        yield f"replace {path!r} by a symlink to {target!r}"
        os.symlink(target, self.own)
        try:
            os.rename(self.own, path)
        except OSError:
            os.unlink(self.own)
            raise

    def file_to_directory(self):
        path, name = self.path(), self.random.choice(NAMES)
        yield f"replace {path!r} by a directory with {name!r}"
        os.unlink(path)
        os.mkdir(path)
        with open(os.path.join(path, name), "wb") as file:
            file.write(b"in a new directory")

    def unlink(self):
        path = self.path()
        yield f"unlink {path!r}"
        os.unlink(path)

    def remove_tree(self):
        path = self.path()
        yield f"rm -r {path!r}"
        shutil.rmtree(path)

    def save_in_turns(self):
        """As an editor does that keeps the former file."""
        path, other, data = self.path(), self.path(), self.bytes()
        yield f"save {path!r} {len(data)}, the old one becomes {other!r}"
        os.rename(path, other)
        with open(path, "xb") as file:
            file.write(data)

    # --- mappings ---

    def mapped_file(self):
        path = self.mapped_path()
        yield f"create {path!r} to be mapped"
        with open(self.own, "wb") as file:
            file.write(self.random.randbytes(MAPPED_SIZE))
        try:
            os.rename(self.own, path)
        except OSError:
            os.unlink(self.own)
            raise

    def mapped_write(self):
        path, at = self.mapped_path(), self.random.randrange(MAPPED_SIZE - 10)
        yield f"write {path!r} at {at} 10"
        with open(path, "r+b") as file:
            file.seek(at)
            file.write(self.random.randbytes(10))

    def map_file(self):
        path = self.mapped_path()
        yield f"map {path!r}"
        with open(path, "r+b") as file:
            self.maps.append((path, mmap.mmap(file.fileno(), 0)))

    def choose_map(self):
        if not self.maps:
            raise OSError(errno.ENOENT, "nothing is mapped")
        return self.random.choice(self.maps)

    def store(self):
        path, mapped = self.choose_map()
        at, data = self.random.randrange(len(mapped) - 10), self.random.randbytes(10)
        yield f"store into the mapping of {path!r} at {at} 10"
        if not DIRTY_STORES:
            mapped.flush()
        mapped[at:at + 10] = data

    def synchronise(self):
        path, mapped = self.choose_map()
        yield f"msync {path!r}"
        mapped.flush()

    def unmap(self):
        chosen = self.choose_map()
        yield f"unmap {chosen[0]!r}"
        self.maps.remove(chosen)
        chosen[1].close()

    def rename_mapped(self):
        path, other = self.mapped_path(), self.mapped_path()
        yield f"rename {path!r} {other!r}"
        os.rename(path, other)

    # --- all together ---

    def change(self):
        """Tries one operation; (when, what, the error or None, what was linked or None)."""
        action = self.random.choices(self.actions, self.weights)[0]
        what, error, self.linked = action.__name__, None, None
        try:
            steps = action()
            what = next(steps)
            next(steps, None)
        except (OSError, shutil.Error) as problem:
            error = errno.errorcode.get(problem.errno, str(problem))
        return time.monotonic(), what, error, self.linked

    def finish(self):
        while self.maps:
            path, mapped = self.maps.pop()
            mapped.close()
            yield time.monotonic(), f"unmap {path!r}", None, None


def serve(pipe, root, seed, with_mappings):
    """A process: for each number received, that many operations. Answers with their lists, one for
    every REPORT_EVERY, and then with None."""
    os.chdir(root)
    changer = Changer(seed, with_mappings)
    with contextlib.suppress(EOFError):
        while True:
            count, done = pipe.recv(), []
            for _ in range(count):
                done.append(changer.change())
                if len(done) == REPORT_EVERY:
                    pipe.send(done)
                    done = []
            pipe.send([*done, *changer.finish()])
            pipe.send(None)
