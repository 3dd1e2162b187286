#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Files of tensors that must be refused: one clear line, the right exit code, the log as it was.

    test_refused.py QALLOW"""

import json
import os
import struct
import subprocess
import sys
import tempfile

from tensor_files import Tensor, npy_bytes, safetensors_bytes

GOOD = safetensors_bytes([Tensor("w", "F32", [4], bytes(range(16)))])


def st(header, data=b"", length=None):
    """A safetensors file of any header: text, or what JSON says of it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def one(dtype="F32", shape=(4,), offsets=(0, 16), name="w"):
    return {name: {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


def entry(text):
    return b'{"w":{"dtype":"F32","shape":%s}}' % text


DATA = bytes(16)
NOT_JSON = "its header is not one JSON object"
SAFETENSORS = {
    "empty": (b"", "too short for a safetensors file"),
    "short": (b"\x08\0\0\0", "too short for a safetensors file"),
    "header-1-gb": (st(b"{}", length=1 << 30),
                    "a header of 1073741824 bytes; safetensors allows 100000000"),
    "header-2^63": (st(b"{}", length=1 << 63),
                    "a header of 9223372036854775808 bytes; safetensors allows 100000000"),
    "header-beyond": (st(b"{}", length=3), "a header of 3 bytes in a file of 10"),
    "not-json": (st(b"{'w':1}"), NOT_JSON),
    "array": (st(b"[]"), NOT_JSON),
    "number": (st(b"1"), NOT_JSON),
    "no-header": (st(b""), NOT_JSON),
    "cut": (st(b'{"w":{"dtype":"F32"'), NOT_JSON),
    "two": (st(b"{}{}"), NOT_JSON),
    "garbage-behind": (st(b"{} x"), NOT_JSON),
    "nul-behind": (st(b"{}\0\0"), NOT_JSON),
    "nul-in-name": (st(b'{"w\\u0000x":{}}'), "a name in its header has a NUL in it"),
    "depth-bomb": (st(b'{"a":' * 100000 + b"1" + b"}" * 100000), NOT_JSON),
    "array-bomb": (st(b'{"a":' + b"[" * 1000000), NOT_JSON),
    "no-dtype": (st({"w": {"shape": [4], "data_offsets": [0, 16]}}, DATA),
                 "tensor w: no dtype and shape"),
    "no-shape": (st({"w": {"dtype": "F32", "data_offsets": [0, 16]}}, DATA),
                 "tensor w: no dtype and shape"),
    "no-object": (st({"w": 7}, DATA), "tensor w: no dtype and shape"),
    "no-name": (st(one(name=""), DATA), "a tensor's name of 0 bytes"),
    "name-4097": (st(one(name="x" * 4097), DATA), "a tensor's name of 4097 bytes"),
    "dtype-unknown": (st(one("F31"), DATA), "tensor w: unknown dtype F31"),
    "dtype-case": (st(one("f32"), DATA), "tensor w: unknown dtype f32"),
    "dtype-control": (st(one("F\x1b[31m"), DATA), "tensor w: unknown dtype F\\x1b[31m"),
    "no-offsets": (st({"w": {"dtype": "F32", "shape": [4]}}, DATA),
                   "tensor w: no valid data_offsets"),
    "offsets-one": (st(one(offsets=[0]), DATA), "tensor w: no valid data_offsets"),
    "offsets-three": (st(one(offsets=[0, 8, 16]), DATA), "tensor w: no valid data_offsets"),
    "offsets-back": (st(one(offsets=[16, 0]), DATA), "tensor w: no valid data_offsets"),
    "offsets-negative": (st(one(offsets=[-16, 0]), DATA), "tensor w: no valid data_offsets"),
    "offsets-2^63": (st(one(offsets=[0, 1 << 63]), DATA), "tensor w: no valid data_offsets"),
    "offsets-2^64": (st(one(offsets=[0, 1 << 64]), DATA), "tensor w: no valid data_offsets"),
    "offsets-fraction": (st(one(offsets=[0.5, 16]), DATA), "tensor w: no valid data_offsets"),
    "offsets-text": (st(one(offsets=["0", "16"]), DATA), "tensor w: no valid data_offsets"),
    "beyond-file": (st(one(shape=[5], offsets=[0, 20]), DATA),
                    "tensor w ends at byte 20 of 16 bytes of data"),
    "beyond-2^52": (st(one(shape=[1 << 50], offsets=[0, 1 << 52]), DATA),
                    "tensor w ends at byte 4503599627370496 of 16 bytes of data"),
    "shape-other": (st(one(shape=[5]), DATA), "tensor w: its shape and dtype do not make 16 bytes"),
    "shape-negative": (st(one(shape=[-4]), DATA), "tensor w: no dtype and shape"),
    "shape-2^63": (st(one(shape=[1 << 63]), DATA), "tensor w: no dtype and shape"),
    "shape-overflow": (st(one(shape=[1 << 40, 1 << 40]), DATA),
                       "tensor w: its shape and dtype do not make 16 bytes"),
    "shape-2^64-wraps": (st(one(shape=[1 << 32, 1 << 32, 4]), DATA),
                         "tensor w: its shape and dtype do not make 16 bytes"),
    "shape-rank-65": (st(one(shape=[1] * 65), DATA), "tensor w: no dtype and shape"),
    "shape-of-bits": (st(one("F4", [3], [0, 1]), b"x"),
                      "tensor w: its shape and dtype do not make 1 bytes"),
    "overlap": (st({**one(), **one(name="v", offsets=[8, 24])}, bytes(24)),
                "tensor v overlaps the one before it"),
    "same-place": (st({**one(), **one(name="v")}, DATA), "tensor "),
    "gap": (st({**one(), **one(name="v", offsets=[17, 33])}, bytes(33)),
            "the 1 bytes before tensor v belong to no tensor"),
    "gap-first": (st(one(offsets=[4, 20]), bytes(20)),
                  "the 4 bytes before tensor w belong to no tensor"),
    "rest": (st(one(), DATA + b"x"), "the last 1 bytes belong to no tensor"),
    "only-rest": (st({}, DATA), "the last 16 bytes belong to no tensor"),
    "duplicate": (st(b'{"w":%s,"w":%s}' % ((b'{"dtype":"F32","shape":[2],"data_offsets":[0,8]}',
                                            b'{"dtype":"F32","shape":[2],"data_offsets":[8,16]}')),
                     DATA), "two tensors are called w"),
    "duplicate-metadata": (st(b'{"__metadata__":{},"__metadata__":{}}'),
                           "__metadata__ is there twice"),
}
SHAPE = "its shape and dtype do not make 16 bytes"
NPY = {
    "empty": (b"", "not a .npy file of version 1 to 3"),
    "other": (b"PK\3\4" + bytes(60), "not a .npy file of version 1 to 3"),
    "version-4": (npy_bytes("<f4", [4], DATA, version=4), "not a .npy file of version 1 to 3"),
    "header-beyond": (b"\x93NUMPY\2\0" + struct.pack("<I", 1 << 31) + b"{}",
                      "a header of 2147483660 bytes in a file of 14"),
    "objects": (npy_bytes("|O", [2], DATA), "its elements are not plain numbers"),
    "text": (npy_bytes("<U4", [1], DATA), "its elements are not plain numbers"),
    "shape-other": (npy_bytes("<f4", [5], DATA), SHAPE),
    "shape-2^64": (npy_bytes("<f4", [1 << 64], DATA), SHAPE),
    "shape-overflow": (npy_bytes("<f4", [1 << 62, 1 << 62], DATA), SHAPE),
    "shape-negative": (npy_bytes("<f4", [-4], DATA), SHAPE),
    "no-shape": (npy_bytes("<f4", [4], DATA).replace(b"shape", b"sharp"), SHAPE),
}
INDEX = {
    "no-map": (b"{}", "no weight_map"),
    "empty-map": (b'{"weight_map":{}}', "no weight_map"),
    "not-json": (b"[", NOT_JSON),
    "climbs": (b'{"weight_map":{"a":"../x.safetensors"}}',
               "../x.safetensors is not the name of a shard beside it"),
    "absolute": (b'{"weight_map":{"a":"/etc/x.safetensors"}}',
                 "/etc/x.safetensors is not the name of a shard beside it"),
    "number": (b'{"weight_map":{"a":1}}', " is not the name of a shard beside it"),
    "other-kind": (b'{"weight_map":{"a":"x.bin"}}', "x.bin is not the name of a shard beside it"),
}


def check(qallow, directory, name, data, said):
    with open(os.path.join(directory, name), "wb") as file:
        file.write(data)
    with open(os.path.join(directory, "log.tlog"), "rb") as file:
        before = file.read()
    done = subprocess.run([qallow, "checkpoint", "save", "log.tlog", name], capture_output=True,
                          text=True, cwd=directory, timeout=60)
    with open(os.path.join(directory, "log.tlog"), "rb") as file:
        after = file.read()
    wanted = f"qallow checkpoint save: {name}: {said}"
    exact = done.stderr == wanted + "\n" or (said.endswith(" ") and done.stderr.startswith(wanted)
                                             and done.stderr.count("\n") == 1)
    assert done.returncode == 65, f"exit {done.returncode}: {done.stderr}"
    assert exact, f"said {done.stderr!r}, not {wanted!r}"
    assert not done.stdout and before[8192:] == after[8192:len(before)], "the log is another one"


def check_other(qallow, directory):
    """What has an exit code of its own."""
    def run(code, said, *args):
        done = subprocess.run([qallow, *args], capture_output=True, text=True, cwd=directory,
                              timeout=60)
        assert (done.returncode, done.stderr) == (code, said), f"{args}: {done}"

    os.mkdir(os.path.join(directory, "tree"))
    save = "qallow checkpoint save: "
    run(66, save + "none.safetensors: No such file or directory\n", "checkpoint", "save",
        "log.tlog", "none.safetensors")
    run(64, save + "log.tlog records tensors; give what is no file of tensors a log of its own\n",
        "checkpoint", "save", "log.tlog", "tree")
    subprocess.run([qallow, "checkpoint", "save", "tree.tlog", "tree"], capture_output=True,
                   cwd=directory, check=True)
    run(64, save + "tree.tlog records something else than tensors; give them a log of their own\n",
        "checkpoint", "save", "tree.tlog", "good.safetensors")
    run(66, save + "a.safetensors: No such file or directory\n", "checkpoint", "save", "log.tlog",
        "gone.safetensors.index.json")
    run(73, "qallow replay: good.safetensors exists already\nhint: --force replaces it\n", "replay",
        "log.tlog", "--output", "good.safetensors")
    run(73, "qallow replay: tree exists and is no regular file\n", "replay", "log.tlog", "--output",
        "tree", "--force")


def main():
    qallow = os.path.abspath(sys.argv[1])
    failed = count = 0
    with tempfile.TemporaryDirectory() as directory:
        for name, data in (("good.safetensors", GOOD), ("gone.safetensors.index.json",
                                                         b'{"weight_map":{"w":"a.safetensors"}}')):
            with open(os.path.join(directory, name), "wb") as file:
                file.write(data)
        subprocess.run([qallow, "checkpoint", "save", "log.tlog", "good.safetensors"],
                       capture_output=True, cwd=directory, check=True)
        for ending, cases in (("safetensors", SAFETENSORS), ("npy", NPY),
                              ("safetensors.index.json", INDEX)):
            for name, (data, said) in cases.items():
                count += 1
                try:
                    check(qallow, directory, f"bad.{ending}", data, said)
                except (AssertionError, subprocess.TimeoutExpired) as error:
                    print(f"{ending} {name}: {error}")
                    failed += 1
        try:
            check_other(qallow, directory)
        except AssertionError as error:
            print(error)
            failed += 1
    print(f"{count} files, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
