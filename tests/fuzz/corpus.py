#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A fuzzer's corpus as one file, and back.

    corpus.py pack DIR FILE      each input: its length in 4 bytes, little-endian, and its bytes
    corpus.py unpack FILE DIR
"""
import pathlib
import struct
import sys


def pack(directory, file):
    inputs = sorted((p.read_bytes() for p in pathlib.Path(directory).iterdir()),
                    key=lambda data: (len(data), data))
    pathlib.Path(file).write_bytes(b''.join(struct.pack('<I', len(i)) + i for i in inputs))


def unpack(file, directory):
    data, at, count = pathlib.Path(file).read_bytes(), 0, 0
    while at < len(data):
        length, = struct.unpack_from('<I', data, at)
        path = pathlib.Path(directory) / f'{count:05}'
        path.write_bytes(data[at + 4:at + 4 + length])
        at, count = at + 4 + length, count + 1


if __name__ == '__main__':
    if len(sys.argv) != 4 or sys.argv[1] not in ('pack', 'unpack'):
        sys.exit(__doc__)
    {'pack': pack, 'unpack': unpack}[sys.argv[1]](*sys.argv[2:])
