#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares what a cache says of a directory with the directory itself, which is scanned and hashed
here by code that shares nothing with qallow.

    tree_scan.py [--hash xxh3|sha256] [--leave-out NAME]... DIR EXPORT.json

EXPORT.json is what `qallow accelerator --export` wrote. One line for each difference, and exit
status 1 if there is one. Directories named .git are not looked at, as in every capture.
"""
import argparse
import datetime
import hashlib
import json
import os
import stat
import sys
from collections import namedtuple

import xxhash

# A pending entry's hash is that of former content, so state is a part of what must be equal.
Entry = namedtuple("Entry", "kind state hash size mtime mode inode")
HASHES = {"xxh3": xxhash.xxh3_128, "sha256": hashlib.sha256}
KINDS = {stat.S_IFREG: "file", stat.S_IFLNK: "symlink"}
SHOWN = 20


def content_hash(path, kind, new):
    state = new()
    if kind == "symlink":
        state.update(os.readlink(path))
    else:
        with open(path, "rb", buffering=0) as file:
            while block := file.read(1 << 20):
                state.update(block)
    return state.hexdigest()


def scan(root, hash_name="xxh3", leave_out=()):
    """path (bytes) -> Entry, for every regular file and symlink below the directory."""
    new, found, stack = HASHES[hash_name], {}, [b""]
    root = os.fsencode(root)
    leave_out = {os.fsencode(name) for name in leave_out}
    while stack:
        directory = stack.pop()
        with os.scandir(os.path.join(root, directory) if directory else root) as entries:
            for item in entries:
                path = directory + b"/" + item.name if directory else item.name
                st = item.stat(follow_symlinks=False)
                kind = KINDS.get(stat.S_IFMT(st.st_mode))
                if item.name in leave_out:
                    continue
                if stat.S_ISDIR(st.st_mode) and item.name != b".git":
                    stack.append(path)
                elif kind:
                    found[path] = Entry(kind, "current", content_hash(item.path, kind, new),
                                        st.st_size, st.st_mtime_ns, stat.S_IMODE(st.st_mode),
                                        st.st_ino)
    return found


def path_of(member):
    """The path of a JSON object, as bytes: "path", or "path_hex" if it is not UTF-8."""
    if "path_hex" in member:
        return bytes.fromhex(member["path_hex"])
    return member["path"].encode()


def nanoseconds(text):
    """Of a time like 2026-11-21T15:31:05.032651109Z, since 1970."""
    whole, fraction = text.rstrip("Z").split(".")
    seconds = datetime.datetime.fromisoformat(whole + "+00:00").timestamp()
    return int(seconds) * 10 ** 9 + int(fraction.ljust(9, "0"))


def entry_of(member):
    """What a JSON object says of its path."""
    return Entry(member["kind"], member["state"], member.get("hash"), member["size"],
                 nanoseconds(member["mtime"]), member["mode"], member["inode"])


def exported(document):
    """What a cache's export says, as scan() does."""
    found = {}
    for member in document["files"]:
        path = path_of(member)
        if path in found:
            raise ValueError(f"{path!r} is in the export twice")
        found[path] = entry_of(member)
    return found


def differences(cached, there):
    """Lines, sorted by path; empty if the two are equal."""
    for path in sorted(cached.keys() | there.keys()):
        a, b = cached.get(path), there.get(path)
        if a is None:
            yield f"{path!r}: not cached, there is {b}"
        elif b is None:
            yield f"{path!r}: cached, but not there: {a}"
        elif a != b:
            yield f"{path!r}: " + ", ".join(f"{name} is cached as {x!r}, is {y!r}"
                                            for name, x, y in zip(Entry._fields, a, b) if x != y)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hash", choices=HASHES, default="xxh3")
    parser.add_argument("--leave-out", action="append", default=[])
    parser.add_argument("directory")
    parser.add_argument("export")
    arguments = parser.parse_args()
    with open(arguments.export, encoding="utf-8") as file:
        document = json.load(file)
    there = scan(arguments.directory, arguments.hash, arguments.leave_out)
    lines = list(differences(exported(document), there))
    for line in lines[:SHOWN]:
        print(line)
    if len(lines) > SHOWN:
        print(f"... and {len(lines) - SHOWN} more")
    print(f"{len(there)} files and symlinks, {len(lines)} differences")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
