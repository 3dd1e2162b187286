# SPDX-License-Identifier: Apache-2.0
"""Files of tensors, written and read from the public descriptions of their formats alone: what
Qallow is measured against."""

import json
import re
import struct

BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "U16": 16, "I16": 16,
        "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64,
        "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
CODES = {"BOOL": 1, "U8": 2, "I8": 3, "F8_E5M2": 4, "F8_E4M3": 5, "F8_E8M0": 6, "U16": 7, "I16": 8,
         "F16": 9, "BF16": 10, "U32": 11, "I32": 12, "F32": 13, "U64": 14, "I64": 15, "F64": 16,
         "C64": 17, "C128": 18, "F4": 19, "F6_E2M3": 20, "F6_E3M2": 21}
NPY = {"b1": "BOOL", "u1": "U8", "i1": "I8", "u2": "U16", "i2": "I16", "f2": "F16", "u4": "U32",
       "i4": "I32", "f4": "F32", "u8": "U64", "i8": "I64", "f8": "F64", "c8": "C64", "c16": "C128"}


class Tensor:
    def __init__(self, name, dtype, shape, data):
        self.name, self.dtype, self.shape, self.data = name, dtype, list(shape), bytearray(data)

    def same(self):
        return self.name, self.dtype, self.shape, bytes(self.data)


def size_of(dtype, shape):
    elements = 1
    for dimension in shape:
        elements *= dimension
    return elements * BITS[dtype] // 8


def safetensors_bytes(tensors, metadata=None):
    header, at = {}, 0
    if metadata is not None:
        header["__metadata__"] = metadata
    for tensor in tensors:
        end = at + len(tensor.data)
        header[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape,
                               "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(tensor.data for tensor in tensors)


def parse_safetensors(data):
    length = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    return [Tensor(name, entry["dtype"], entry["shape"],
                   data[8 + length + entry["data_offsets"][0]:
                        8 + length + entry["data_offsets"][1]])
            for name, entry in header.items()]


def npy_bytes(descr, shape, data, version=1, fortran=False):
    text = f"{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {tuple(shape)!r}, }}"
    head = b"\x93NUMPY" + bytes([version, 0])
    length = len(text) + 1 + len(head) + (2 if version == 1 else 4)
    text = (text + " " * (-length % 64) + "\n").encode()
    return head + struct.pack("<H" if version == 1 else "<I", len(text)) + text + data


def extra_of(dtype, shape, big_endian=False):
    """The extra bytes of a tensor's page, as docs/formats/tlog.md has them."""
    out = bytearray([CODES[dtype] | big_endian << 7, len(shape)])
    for dimension in shape:
        while dimension >= 0x80:
            out.append(dimension & 0x7f | 0x80)
            dimension >>= 7
        out.append(dimension)
    return bytes(out)


def index_bytes(shards):
    """The index of shards: name -> tensors."""
    weights = {tensor.name: name for name, tensors in shards.items() for tensor in tensors}
    total = sum(len(tensor.data) for tensors in shards.values() for tensor in tensors)
    return json.dumps({"metadata": {"total_size": total}, "weight_map": weights}, indent=2).encode()


def is_shard(name):
    return re.fullmatch(r".+\.safetensors", name) is not None
