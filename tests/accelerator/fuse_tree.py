#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A directory that somebody else changes: a FUSE mount with one file, whose bytes and times are
those of another file, read anew each time. Nothing that changes there is an event here.

    fuse_tree.py MOUNTPOINT FILE COMMAND [ARGUMENT]...

Mounts, runs the command, unmounts; exits as the command did, or with 77 if it cannot mount. Speaks
the kernel's protocol itself, so nothing has to be installed.
"""
import ctypes
import errno
import os
import signal
import stat
import struct
import subprocess
import sys
import threading

ROOT, FILE = 1, 2
NAME = b"f"
(LOOKUP, FORGET, GETATTR, OPEN, READ, STATFS, RELEASE, FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR,
 BATCH_FORGET) = (1, 2, 3, 14, 15, 17, 18, 25, 26, 27, 28, 29, 42)
DIRECT_IO = 1


class Tree:
    def __init__(self, device, path):
        self.device, self.path = device, path

    def attributes(self, node):
        st = os.stat(self.path)
        seconds, ns = divmod(st.st_mtime_ns, 10**9)
        mode = stat.S_IFDIR | 0o755 if node == ROOT else stat.S_IFREG | 0o644
        return struct.pack("<6Q10I", node, 0 if node == ROOT else st.st_size, 1, seconds, seconds,
                           seconds, ns, ns, ns, mode, 1, os.getuid(), os.getgid(), 0, 4096, 0)

    def init(self, _node, body):
        _major, minor, readahead, _flags = struct.unpack_from("<4I", body)
        return struct.pack("<4I2H2I2H8I", 7, min(minor, 31), readahead, 0, 0, 0, 65536, 1, 0, 0,
                           *[0] * 8)

    def lookup(self, _node, body):
        if body.rstrip(b"\0") != NAME:
            raise OSError(errno.ENOENT, "")
        return struct.pack("<4Q2I", FILE, 0, 0, 0, 0, 0) + self.attributes(FILE)

    def getattr(self, node, _body):
        return struct.pack("<Q2I", 0, 0, 0) + self.attributes(node)

    def open(self, _node, _body):
        return struct.pack("<Q2I", 0, DIRECT_IO, 0)

    def read(self, _node, body):
        _handle, offset, size = struct.unpack_from("<2QI", body)
        with open(self.path, "rb") as file:
            file.seek(offset)
            return file.read(size)

    def readdir(self, _node, body):
        _handle, offset = struct.unpack_from("<2Q", body)
        out = b""
        for i, (node, kind, name) in enumerate(((ROOT, 4, b"."), (ROOT, 4, b".."),
                                                (FILE, 8, NAME))):
            if i >= offset:
                entry = struct.pack("<2Q2I", node, i + 1, len(name), kind) + name
                out += entry + b"\0" * (-len(entry) % 8)
        return out

    def statfs(self, _node, _body):
        return struct.pack("<5Q4I6I", 1, 0, 0, 1, 0, 4096, 255, 4096, 0, *[0] * 6)

    def nothing(self, _node, _body):
        return b""

    def serve(self):
        """Until the mount is gone."""
        handlers = {LOOKUP: self.lookup, GETATTR: self.getattr, OPEN: self.open, READ: self.read,
                    STATFS: self.statfs, RELEASE: self.nothing, FLUSH: self.nothing,
                    INIT: self.init, OPENDIR: self.open, READDIR: self.readdir,
                    RELEASEDIR: self.nothing}
        while True:
            try:
                request = os.read(self.device, 1 << 17)
            except OSError:
                return
            _length, opcode, unique, node = struct.unpack_from("<2I2Q", request)
            if opcode in (FORGET, BATCH_FORGET):
                continue
            error, answer = 0, b""
            try:
                if opcode not in handlers:
                    raise OSError(errno.ENOSYS, "")
                answer = handlers[opcode](node, request[40:])
            except OSError as problem:
                error = -problem.errno
            os.write(self.device, struct.pack("<IiQ", 16 + len(answer), error, unique) + answer)


def main():
    mountpoint, path, *command = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        device = os.open("/dev/fuse", os.O_RDWR)
    except OSError as problem:
        print(f"fuse_tree: {problem}", file=sys.stderr)
        return 77
    options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    if libc.mount(b"qallow-test", mountpoint.encode(), b"fuse", 6, options.encode()) != 0:
        print(f"fuse_tree: mount: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
        return 77
    threading.Thread(target=Tree(device, path).serve, daemon=True).start()
    child = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    status = child.wait()
    libc.umount2(mountpoint.encode(), 2)
    return status


if __name__ == "__main__":
    sys.exit(main())
