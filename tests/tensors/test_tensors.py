#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Histories of files of tensors through the command, against an independent writer and reader.

    test_tensors.py QALLOW

Random tensors of every dtype change in every way that training and its tools change them; after
each change the file is saved. Then every epoch must come back byte for byte, the second reader of
logs (tests/reader) must find the same tensors in it, pruning must leave the rest as it was, and a
damaged log must be refused or give the right bytes.

QALLOW_SEED repeats a run, QALLOW_ROUNDS makes it longer."""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "reader"))

from qallow_reader import Log, LogError, TENSOR  # noqa: E402
from tensor_files import (  # noqa: E402
    BITS, NPY, Tensor, extra_of, index_bytes, npy_bytes, parse_safetensors, safetensors_bytes,
    size_of)

SIZES = (0, 1, 7, 64, 1000, 4096, 70000)


class Run:
    def __init__(self, qallow, directory):
        self.qallow, self.directory = qallow, directory

    def path(self, name):
        return os.path.join(self.directory, name)

    def __call__(self, *args, code=0):
        done = subprocess.run([self.qallow, *args], capture_output=True, text=True,
                              cwd=self.directory, timeout=120)
        assert done.returncode == code, f"{args}: {done.returncode}, not {code}: {done.stderr}"
        return done

    def write(self, name, data):
        with open(self.path(name), "wb") as file:
            file.write(data)

    def read(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    def save(self, name, *options):
        return self("checkpoint", "save", "log.tlog", name, "--threads",
                    str(random.randrange(1, 4)), *options)


def random_tensor(name):
    dtype = random.choice(list(BITS))
    shape = [random.choice(SIZES)] + [random.randrange(1, 4) for _ in range(random.randrange(3))]
    if BITS[dtype] % 8:
        shape.append(4)
    size = size_of(dtype, shape)
    data = random.choice((random.randbytes(size), bytes(size),
                          bytes(random.choices(range(4), k=size))))
    return Tensor(name, dtype, shape, data)


def change_elements(tensor):
    width = max(BITS[tensor.dtype] // 8, 1)
    count = len(tensor.data) // width
    share = random.choice((0.001, 0.01, 0.1, 0.5, 1.0))
    kind = random.randrange(3)
    for i in random.sample(range(count), int(count * share) or min(count, 1)):
        at = i * width
        value = int.from_bytes(tensor.data[at:at + width], "little")
        value = (value + random.choice((-1, 1)), value ^ 1 << random.randrange(8 * width),
                 random.getrandbits(8 * width))[kind]
        tensor.data[at:at + width] = (value & (1 << 8 * width) - 1).to_bytes(width, "little")


def change(tensors):
    """One random change of a list of tensors."""
    kind = random.randrange(12)
    tensor = random.choice(tensors) if tensors else None
    if not tensor or kind == 0:
        tensors.insert(random.randrange(len(tensors) + 1),
                       random_tensor(f"new.{random.getrandbits(32):x}"))
    elif kind == 1:
        tensors.remove(tensor)
    elif kind == 2:
        tensor.name += ".renamed"
    elif kind == 3:
        tensor.shape = [1] + tensor.shape
    elif kind == 4:
        other = random.choice([d for d in BITS if BITS[d] == BITS[tensor.dtype]])
        tensor.dtype = other
    elif kind == 5:
        random.shuffle(tensors)
    elif kind == 6:
        tensor.data = bytearray(len(tensor.data))
    elif kind == 7:
        tensor.shape, tensor.dtype = [random.choice(SIZES)], "U8"
        tensor.data = (tensor.data + random.randbytes(70000))[:tensor.shape[0]]
    else:
        change_elements(tensor)


def check_pages(state, name, tensors):
    """The pages of an epoch are the tensors of a file."""
    top = next(p for p in state.pages.values() if p.parent == 0 and p.name == name.encode())
    found = {p.name: (p.extra, p.content) for p in state.pages.values()
             if p.parent == top.id and p.kind == TENSOR}
    wanted = {t.name.encode(): (extra_of(t.dtype, t.shape), bytes(t.data)) for t in tensors}
    assert found == wanted, "the tensors of an epoch are others"


def check_epochs(run, epochs):
    for epoch, data in epochs.items():
        run("replay", "log.tlog", "--epoch", str(epoch), "--output", "back", "--force",
            "--threads", str(random.randrange(1, 4)))
        assert run.read("back") == data, f"epoch {epoch} is not what was saved"


def history(run):
    """One file, many epochs."""
    epochs, tensors = {}, [random_tensor(f"layer.{i}") for i in range(random.randrange(1, 6))]
    options = ["--compress", random.choice(("off", "1", "3"))]
    name, last = "a.safetensors", None
    for step in range(random.randrange(4, 14)):
        metadata = random.choice((None, {"step": str(step)}, {"regex": "\\u0000", "nul": "\0"}))
        data = safetensors_bytes(tensors, metadata)
        if random.randrange(8) == 0:
            name = f"step-{step}.safetensors"
        run.write(name, data)
        assert [t.same() for t in parse_safetensors(data)] == [t.same() for t in tensors]
        epoch = int(run.save(name, *options).stdout.split()[1])
        assert epoch == len(epochs) + 1 or (epoch == len(epochs) and last == (name, data)), \
            f"epoch {epoch} after {len(epochs)}"
        epochs[epoch], last = data, (name, data)
        for _ in range(random.randrange(3)):
            change(tensors)
    check_epochs(run, epochs)
    run("replay", "log.tlog", "--verify")
    log = Log(run.path("log.tlog"))
    assert log.verify() == len(epochs)
    check_pages(log.state_at(len(epochs)), last[0], parse_safetensors(last[1]))
    run("checkpoint", "export", "log.tlog", "-o", "one.qckpt", "--force")
    run("checkpoint", "restore", "one.qckpt", "-o", "back", "--force")
    assert run.read("back") == last[1]
    return epochs


def prune(run, epochs):
    """What is left after a prune is as it was, and goes on."""
    keep = random.choice(list(epochs))
    run("checkpoint", "prune", "log.tlog", "--keep-epochs",
        str(max(epochs) - keep + 1))
    kept = {epoch: data for epoch, data in epochs.items() if epoch >= keep}
    check_epochs(run, kept)
    tensors = parse_safetensors(epochs[max(epochs)])
    for _ in range(2):
        if tensors:
            change_elements(random.choice(tensors))
        data = safetensors_bytes(tensors)
        run.write("later.safetensors", data)
        kept[int(run.save("later.safetensors").stdout.split()[1])] = data
    check_epochs(run, kept)
    Log(run.path("log.tlog")).verify()


def damage(run, epochs):
    """A byte of the log is another one: refused, with the old target kept, or the right bytes."""
    log = bytearray(run.read("log.tlog"))
    for _ in range(6):
        at = random.randrange(8192, len(log))
        other = bytearray(log)
        other[at] ^= 1 << random.randrange(8)
        run.write("other.tlog", other)
        epoch = random.choice(list(epochs))
        run.write("target", b"as it was")
        done = subprocess.run([run.qallow, "replay", "other.tlog", "--epoch", str(epoch),
                               "--output", "target", "--force"], capture_output=True, text=True,
                              cwd=run.directory, timeout=60)
        if done.returncode:
            assert done.returncode in (65, 66), f"byte {at}: {done.returncode}: {done.stderr}"
            assert run.read("target") == b"as it was", f"byte {at}: a target half-written"
        else:
            assert run.read("target") == epochs[epoch], f"byte {at}: wrong bytes"


def shards(run):
    """Shards and their index, which come back as a directory; tensors move from one to another."""
    files = {f"model-{i}-of-3.safetensors": [random_tensor(f"{i}.{j}") for j in range(3)]
             for i in range(1, 4)}
    epochs = {}
    for _ in range(4):
        wanted = {name: safetensors_bytes(tensors) for name, tensors in files.items() if tensors}
        wanted["model.safetensors.index.json"] = index_bytes(files)
        for name, data in wanted.items():
            run.write(name, data)
        epoch = int(run.save("model.safetensors.index.json").stdout.split()[1])
        epochs[epoch] = wanted
        one, other = random.sample(list(files.values()), 2)
        if one:
            other.append(one.pop())
        for tensors in files.values():
            if tensors:
                change_elements(random.choice(tensors))
    for epoch, wanted in epochs.items():
        run("replay", "log.tlog", "--epoch", str(epoch), "--output", "back", "--force")
        check_directory(run, wanted)
        run("checkpoint", "export", "log.tlog", "--epoch", str(epoch), "-o", "one.qckpt", "--force")
        assert Log(run.path("one.qckpt")).verify() == epoch
        run("checkpoint", "restore", "one.qckpt", "-o", "back", "--force")
        check_directory(run, wanted)
    Log(run.path("log.tlog")).verify()


def check_directory(run, wanted):
    """Exactly these files, byte for byte."""
    found = {name: run.read(os.path.join("back", name)) for name in os.listdir(run.path("back"))}
    assert found.keys() == wanted.keys(), f"{sorted(found)}, not {sorted(wanted)}"
    for name, data in wanted.items():
        assert found[name] == data, f"{name} is not what was saved"
    shutil.rmtree(run.path("back"))


def pages_of(run, epoch):
    """The page of each tensor."""
    state = Log(run.path("log.tlog")).state_at(epoch)
    return {p.name.decode(): p.id for p in state.pages.values() if p.kind == TENSOR}


# What becomes of a file of two tensors, the page of "w" (0: it is another one), and how many bytes
# of content may be written. v is 300,000 bytes that nobody touches.
def changes_of_names():
    data, other = random.randbytes(200000), random.randbytes(300000)
    half = bytes(b for i in range(0, len(data), 4) for b in data[i + 2:i + 4])
    v = Tensor("v", "U8", [300000], other)
    w = Tensor("w", "F32", [50000], data)
    one = bytearray(data)
    one[4000] ^= 1
    return [
        ("as it is", [v, w], "w", 600000),
        ("renamed", [v, Tensor("w.new", "F32", [50000], data)], "w.new", 1000),
        ("renamed, with a change", [v, Tensor("w.2", "F32", [50000], one)], "w.2", 1500),
        ("reshaped", [v, Tensor("w.2", "F32", [100, 500], one)], "w.2", 1000),
        ("retyped, the same bytes", [v, Tensor("w.2", "I32", [100, 500], one)], "w.2", 1000),
        ("retyped to half", [v, Tensor("w.2", "BF16", [100, 500], half)], "w.2", 110000),
        ("renamed and reshaped", [v, Tensor("x", "BF16", [50000], half)], 0, 110000),
        ("swapped", [Tensor("x", "BF16", [50000], half), v], "x", 1000),
        ("one name for the other", [Tensor("v", "BF16", [50000], half), Tensor("x", "U8", [300000],
                                                                              other)], "v", 420000),
        ("gone", [Tensor("x", "U8", [300000], other)], 0, 1000),
    ]


def names(run):
    """Tensors that are renamed, reshaped and retyped keep their pages where they should, take no
    more room than they must, and every epoch comes back."""
    epochs, last, written = {}, None, 0
    for what, tensors, name, most in changes_of_names():
        data = safetensors_bytes(tensors)
        run.write("a.safetensors", data)
        said = json.loads(run.save("a.safetensors", "--json", "--telemetry", "t.csv").stdout)
        written += said["written_bytes"]
        assert said["epoch"] == len(epochs) + 1, f"{what}: epoch {said['epoch']}"
        assert said["written_bytes"] <= most, f"{what}: {said['written_bytes']} bytes of content"
        epochs[said["epoch"]] = data
        state = Log(run.path("log.tlog")).state_at(said["epoch"])
        check_pages(state, "a.safetensors", tensors)
        page = pages_of(run, said["epoch"]).get(name)
        if what == "one name for the other":
            assert page != last, f"{what}: v is what x was"
        elif last and page:
            assert page == last, f"{what}: page {page}, not {last}"
        last = page or pages_of(run, said["epoch"]).get("x")
    check_epochs(run, epochs)
    found = json.loads(run("stats", "log.tlog", "--json").stdout)["content_frames"]
    assert found["stored_bytes"] == written, f"stats: {found}, not {written} bytes"
    rows = [row.split(",") for row in run.read("t.csv").decode().splitlines()]
    counted = sum(int(row[3]) for row in rows if row[1] == "tensor_content_bytes_total")
    assert counted == written, f"telemetry: {counted} bytes of content, not {written}"


def npy(run):
    """NumPy's files, of every type and version, and in both byte orders."""
    epochs = {}
    for step, (short, dtype) in enumerate(NPY.items()):
        order = random.choice("<>") if int(short[1:]) > 1 else "|"
        shape = [random.randrange(1, 9) for _ in range(random.randrange(3))]
        count = 1
        for dimension in shape:
            count *= dimension
        data = npy_bytes(order + short, shape, random.randbytes(count * int(short[1:])),
                         version=random.randrange(1, 4), fortran=bool(step % 2))
        run.write("x.npy", data)
        epochs[int(run.save("x.npy").stdout.split()[1])] = data
        state = Log(run.path("log.tlog")).state_at(max(epochs))
        page = next(p for p in state.pages.values() if p.kind == TENSOR)
        assert page.extra == extra_of(dtype, shape, order == ">"), page.extra
    check_epochs(run, epochs)


def main():
    seed = int(os.environ.get("QALLOW_SEED", random.SystemRandom().randrange(2**32)))
    rounds = int(os.environ.get("QALLOW_ROUNDS", 1))
    print(f"QALLOW_SEED={seed} QALLOW_ROUNDS={rounds}")
    qallow = os.path.abspath(sys.argv[1])
    for number in range(rounds):
        random.seed(seed + number)
        for steps in ((history, damage), (history, prune), (shards,), (npy,), (names,)):
            with tempfile.TemporaryDirectory() as directory:
                run, result = Run(qallow, directory), None
                try:
                    for step in steps:
                        result = step(run, result) if result else step(run)
                except (AssertionError, LogError, subprocess.TimeoutExpired) as error:
                    print(f"QALLOW_SEED={seed + number}: {step.__name__}: {error}")
                    return 1
    print(f"{rounds} rounds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
