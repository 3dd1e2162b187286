#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a directory tree is, for comparing two of them.

    trees.py DIR DIR        prints the first difference and ends with 1, if there is one"""

import os
import stat
import sys


def tree(path):
    """path -> (type and permission bits, mtime in ns, content or target) of everything below."""
    found = {}
    path = os.fsencode(path)
    for directory, subdirectories, files in os.walk(path):
        for name in [b".", *files, *(name for name in subdirectories
                                     if os.path.islink(os.path.join(directory, name)))]:
            full = os.path.join(directory, name)
            status = os.lstat(full)
            content = None
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(full)
            elif stat.S_ISREG(status.st_mode):
                with open(full, "rb") as file:
                    content = file.read()
            found[os.path.relpath(full, path)] = status.st_mode, status.st_mtime_ns, content
    return found


def difference(one, other):
    """The first difference between two trees in words, or None."""
    for path in sorted(one.keys() | other.keys()):
        if path not in one or path not in other:
            return f"{path!r} is only in the {'first' if path in one else 'second'}"
        for what, left, right in zip(("mode", "mtime", "content"), one[path], other[path]):
            if left != right:
                return f"{path!r} differs in {what}: {str(left)[:200]} and {str(right)[:200]}"
    return None


def without_directory_times(found):
    """The mtime of a directory alone makes no epoch: a record of it may be older."""
    return {path: (mode, None if stat.S_ISDIR(mode) else mtime, content)
            for path, (mode, mtime, content) in found.items()}


def main():
    if len(sys.argv) != 3:
        sys.exit("expected: trees.py DIR DIR")
    one, other = (without_directory_times(tree(path)) for path in sys.argv[1:])
    differs = difference(one, other)
    if differs:
        print(differs, file=sys.stderr)
    return 1 if differs else 0


if __name__ == "__main__":
    sys.exit(main())
