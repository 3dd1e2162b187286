#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The accelerator against the tree itself, for as long as one likes.

Several processes change a tree at random (random_changes.py) while a keeper caches it, with or
without a log. Meanwhile the keeper is killed, told to end, stopped and started, and readers are
killed. Whenever the changers rest there is a barrier, and then
  - the cache is equal to a scan that shares no code with it (tree_scan.py);
  - --since names every path that differs from the barrier before;
  - the newest epoch of the log is equal to the tree, and an earlier one, chosen at random, to what
    the tree was then;
  - in the end of an episode every epoch verifies, by qallow and by the second reader.

    differential.py QALLOW [--seconds N]

When a file is written through a name that was made and is gone again before the keeper looks,
nothing tells of its other names (docs/trees.md). If all that differs are names of such files, the
keeper is asked to look at everything, as it is said there, and then nothing may differ.

QALLOW_SECONDS=N: for how long (default: 20). QALLOW_SEED=N repeats the choices of a run; the
processes are as concurrent as ever. TMPDIR=DIR: where. If something differs, the seed and what was
done since the last barrier that held are printed, and the directory stays there.
"""
import argparse
import contextlib
import json
import multiprocessing
import multiprocessing.connection
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "reader")]
from qallow_reader import Log  # noqa: E402
from random_changes import serve  # noqa: E402
from test_recorder import recorded, snapshot  # noqa: E402
from tree_scan import differences, entry_of, exported, path_of, scan  # noqa: E402

TIMEOUT_S = 300  # of a command; far more than any takes
# What a reader may end with: done, no such epoch or path, nobody there, try again.
READER_ENDS = {0, 66, 69, 75, -signal.SIGKILL}
SHOWN = 20


class Differs(Exception):
    """Something is not as it must be."""


def expect(condition, *lines):
    if not condition:
        raise Differs("\n".join(str(line) for line in lines))


def mapping_changes_time(directory):
    """Does this file system give a file a new time when it is written through a mapping?"""
    with tempfile.TemporaryDirectory(prefix="qallow-differential-", dir=directory) as own:
        path = os.path.join(own, "probe")
        subprocess.run([sys.executable, "-c", """
import mmap, os, sys
with open(sys.argv[1], "w+b") as file:
    file.write(b"0")
    file.flush()
    os.utime(sys.argv[1], ns=(1, 1))
    with mmap.mmap(file.fileno(), 1) as mapped:
        mapped[0] = 49
""", path], check=True)
        return os.stat(path).st_mtime_ns != 1


def hashes_of(qallow):
    """Those that this build has; why one is missing is said."""
    with tempfile.TemporaryDirectory(prefix="qallow-differential-") as directory:
        done = subprocess.run([qallow, "accelerator", "--watch", directory, "--no-log", "--once",
                               "--hash", "sha256"], capture_output=True, text=True, check=False,
                              env={**os.environ, "QALLOW_CACHE_DIR": directory})
    if done.returncode == 0:
        return "xxh3", "xxh3", "sha256"
    print(f"skipped: --hash sha256: {done.stderr.splitlines()[-1]}")
    return ("xxh3",)


class Keeper:
    """The keeper, which comes and goes."""

    def __init__(self, episode):
        self.episode = episode
        self.process = None
        self.is_ready = False
        self.starts = self.kills = 0

    def start(self):
        rng = self.episode.random
        options = ["--threads", rng.choice(("1", "2", "4")),
                   "--settle", rng.choice(("0", "1ms", "20ms"))]
        if self.episode.content:
            options += ["--content=10K"]
        if rng.randrange(3) == 0:
            options += ["--sweep", "50ms"]
        command = [*self.episode.command, *self.episode.mode, *options, "--json"]
        self.episode.note("start " + " ".join(command))
        self.errors = open(self.episode.at("keeper.err"), "ab")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.errors)
        self.is_ready = False
        self.starts += 1

    def wait_ready(self):
        while not self.is_ready:
            line = self.process.stdout.readline()
            if not line:
                raise Differs(f"the keeper ended with {self.process.wait()} before it was ready")
            self.is_ready = json.loads(line)["event"] == "ready"

    def end(self, number):
        """With SIGKILL or SIGTERM."""
        self.episode.note(f"keeper: {signal.Signals(number).name}")
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(number)
        status = self.process.wait(TIMEOUT_S)
        self.process.stdout.close()
        self.errors.close()
        self.process = None
        self.kills += number == signal.SIGKILL
        # SIGTERM before it is ready may find it without a handler.
        expect(status in (0, -number), f"the keeper ended with {status} after signal {number}")

    def check(self):
        if self.process and self.process.poll() is not None:
            raise Differs(f"the keeper ended by itself, with {self.process.returncode}")

    def trouble(self):
        """Something for it to bear, while the changers are at work."""
        rng = self.episode.random
        self.check()
        if not self.process:
            if rng.randrange(3) == 0:
                self.start()
            return
        dice = rng.randrange(100)
        if dice < 10:
            self.end(signal.SIGKILL)
        elif dice < 13 and self.is_ready:
            self.end(signal.SIGTERM)
        elif dice < 20:
            self.process.send_signal(signal.SIGSTOP)
        elif dice < 60:
            self.process.send_signal(signal.SIGCONT)


class Episode:
    """One tree from its beginning to its end."""

    def __init__(self, qallow, seed, mode, hashes, with_mappings):
        self.directory = tempfile.mkdtemp(prefix="qallow-differential-")
        self.random = random.Random(seed)
        self.tree, self.log = self.at("tree"), self.at("log.tlog") if mode == "log" else None
        os.mkdir(self.tree)
        os.mkdir(self.at("caches"), 0o700)
        os.environ["QALLOW_CACHE_DIR"] = self.at("caches")
        self.qallow = qallow
        self.command = [qallow, "accelerator", "--watch", self.tree]
        self.hash = self.random.choice(hashes)
        self.content = self.random.randrange(3) == 0
        self.mode = ["--hash", self.hash]
        self.mode += ["--log", self.log] if self.log else ["--no-log"]
        self.mode += ["--poll"] if mode == "poll" else []
        self.operations = []  # since the last good barrier
        self.linked = []  # likewise: (inode, the name it got)
        self.count = self.barriers = self.too_old = self.readers_killed = self.looked_again = 0
        self.epoch, self.cached = None, {}
        self.states = {}  # epoch -> the tree at its barrier
        self.readers = []
        self.keeper = Keeper(self)
        self.changers = [self.changer(f"{seed} {i}", with_mappings)
                         for i in range(self.random.randint(1, 3))]

    def changer(self, seed, with_mappings):
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.Process(target=serve, daemon=True,
                                          args=(theirs, self.tree, seed, with_mappings))
        process.start()
        theirs.close()
        return ours, process

    def at(self, name):
        return os.path.join(self.directory, name)

    def note(self, what, error=None, when=None, who="test"):
        self.operations.append((when or time.monotonic(), who, what, error))

    def ask(self, *arguments, allow=(0,)):
        done = subprocess.run([*self.command, *arguments], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=TIMEOUT_S, check=False)
        expect(done.returncode in allow, f"{arguments} ended with {done.returncode}:",
               done.stderr.decode(errors="replace"))
        return done

    # --- a round of changes ---

    def change(self):
        """All changers at work, until each has done its share."""
        busy = {}
        for number, (pipe, _) in enumerate(self.changers):
            pipe.send(self.random.randrange(20, 400))
            busy[pipe] = number
        while busy:
            for pipe in multiprocessing.connection.wait(list(busy)):
                report = pipe.recv()
                if report is None:
                    del busy[pipe]
                    continue
                for when, what, error, linked in report:
                    self.note(what, error, when, f"process {busy[pipe]}")
                    self.linked += [linked] if linked else []
                self.count += len(report)
                self.keeper.trouble()
                self.trouble_readers()

    def trouble_readers(self):
        for reader in list(self.readers):
            if self.random.randrange(3) == 0 or reader.poll() is not None:
                self.end_reader(reader)
        if self.random.randrange(4) == 0:
            arguments = self.random.choice((
                ("--wait", str(self.epoch or 0), "--timeout", "60s"), ("--export", "/dev/null"),
                ("--since", str(self.epoch or 0)), ("--get", "a", "b", "c/a"), ("--status",)))
            self.readers.append(subprocess.Popen([*self.command, *arguments],
                                                 stdout=subprocess.DEVNULL,
                                                 stderr=subprocess.DEVNULL))

    def end_reader(self, reader):
        self.readers_killed += reader.poll() is None
        reader.kill()
        status = reader.wait()
        self.readers.remove(reader)
        expect(status in READER_ENDS, f"a reader ended with {status}: {reader.args}")

    # --- when the tree is quiet ---

    def barrier(self):
        for reader in list(self.readers):
            self.end_reader(reader)
        self.keeper.check()
        if not self.keeper.process:
            self.keeper.start()
        self.keeper.process.send_signal(signal.SIGCONT)
        self.keeper.wait_ready()
        epoch = self.sync()
        if self.hidden_writes(epoch):
            self.looked_again += 1
            self.look_again()
            epoch = self.sync()
        self.compare_cache(epoch)
        if self.log:
            self.compare_log(epoch)
        self.barriers += 1
        self.operations, self.linked = [], []

    def sync(self):
        return int(self.ask("--sync", *(("--log", self.log) if self.log else ())).stdout)

    def look_again(self):
        """Has the keeper look at everything. A barrier right after the signal could come first."""
        def rescans():
            return json.loads(self.ask("--status", "--json").stdout)["watch_rescans_total"]

        before, deadline = rescans(), time.monotonic() + TIMEOUT_S
        self.note("keeper: SIGHUP")
        self.keeper.process.send_signal(signal.SIGHUP)
        while rescans() == before:
            expect(time.monotonic() < deadline, "SIGHUP was not heard")
            time.sleep(0.01)

    def gone_links(self):
        """Inodes that got a name since the last barrier which is no longer theirs."""
        gone = set()
        for inode, name in self.linked:
            try:
                there = os.lstat(os.path.join(self.tree, name)).st_ino
            except OSError:
                there = None
            if there != inode:
                gone.add(inode)
        return gone

    def hidden_writes(self, epoch):
        """Do cache or log differ from the tree, but only in names of such inodes?"""
        gone = self.gone_links()
        if not gone:
            return False
        there, now = scan(self.tree, self.hash), snapshot(self.tree)
        cached = exported(json.loads(self.ask("--export", "-").stdout))
        differ = {path for path in cached.keys() | there.keys()
                  if cached.get(path) != there.get(path)}
        if self.log:
            kept = self.restored(epoch)
            differ |= {path for path in kept.keys() | now.keys() if kept.get(path) != now.get(path)}
        return bool(differ) and all(path in there and there[path].inode in gone for path in differ)

    def compare_cache(self, epoch):
        document = json.loads(self.ask("--export", "-").stdout)
        expect(document["epoch"] >= epoch, f"epoch {document['epoch']} after barrier {epoch}")
        cached = exported(document)
        lines = list(differences(cached, scan(self.tree, self.hash)))
        expect(not lines, f"the cache at epoch {document['epoch']} is not the tree:",
               *lines[:SHOWN])
        if self.epoch is not None:
            self.compare_since(cached)
        self.epoch, self.cached = document["epoch"], cached

    def compare_since(self, cached):
        """Whoever keeps a copy of the cache by asking what has changed has the same."""
        answer = self.ask("--since", str(self.epoch), "--json", allow=(0, 66))
        if answer.returncode:
            self.too_old += 1
            return
        copy, named = dict(self.cached), set()
        for line in answer.stdout.splitlines():
            member = json.loads(line)
            if member["event"] == "end":
                continue
            path = path_of(member)
            expect(path not in named, f"--since {self.epoch} names {path!r} twice")
            named.add(path)
            if member["event"] == "changed":
                copy[path] = entry_of(member)
            else:
                copy.pop(path, None)
        lines = list(differences(copy, cached))
        expect(not lines, f"with --since {self.epoch} a copy has become:", *lines[:SHOWN])

    def restored(self, epoch):
        output = self.at("restored")
        shutil.rmtree(output, ignore_errors=True)
        done = subprocess.run([self.qallow, "replay", self.log, "--epoch", str(epoch), "--output",
                               output], capture_output=True, timeout=TIMEOUT_S, check=False)
        expect(done.returncode == 0, f"epoch {epoch} cannot be restored: {done.stderr}")
        return snapshot(output)

    def compare_log(self, epoch):
        self.states[epoch] = snapshot(self.tree)
        for chosen in {epoch, self.random.choice(list(self.states))}:
            compare_trees(f"epoch {chosen}", self.restored(chosen), self.states[chosen])

    def verify(self):
        """Every epoch of the log, by two readers."""
        done = subprocess.run([self.qallow, "replay", self.log, "--verify"], capture_output=True,
                              timeout=TIMEOUT_S, check=False)
        expect(done.returncode == 0, f"--verify: {done.stderr}")
        found = set()
        for epoch, state in Log(self.log).replay():
            if epoch.epoch in self.states:
                found.add(epoch.epoch)
                compare_trees(f"epoch {epoch.epoch}, by the second reader", recorded(state),
                              self.states[epoch.epoch])
        expect(found == set(self.states), f"epochs {set(self.states) - found} are not in the log")

    # --- beginning and end ---

    def run(self, deadline, barriers):
        self.keeper.start()
        for _ in range(barriers):
            if self.barriers and time.monotonic() > deadline:
                break
            self.change()
            self.barrier()
        self.keeper.end(signal.SIGTERM)
        if self.log:
            self.verify()

    def close(self, keep):
        for reader in self.readers:
            reader.kill()
            reader.wait()
        if self.keeper.process:
            self.keeper.process.kill()
            self.keeper.process.wait()
        for pipe, process in self.changers:
            pipe.close()
            process.kill()
            process.join()
        if not keep:
            shutil.rmtree(self.directory)


def compare_trees(what, found, expected):
    for path in sorted(found.keys() | expected.keys()):
        a, b = found.get(path), expected.get(path)
        short = [x and (x[0], x[1], len(x[2]), x[2][:20], x[3]) for x in (a, b)]
        expect(a == b, f"{what}: {path!r} is {short[0]}, was {short[1]}")


def report(episode, seed, problem):
    print(f"FAILED with QALLOW_SEED={seed}: {problem}")
    print(f"mode: {' '.join(episode.mode)}; operations since the last good barrier:")
    began = min((when for when, *_ in episode.operations), default=0)
    for when, who, what, error in sorted(episode.operations, key=lambda entry: entry[0]):
        print(f"  {when - began:9.4f} {who}: {what}" + (f" ({error})" if error else ""))
    with contextlib.suppress(OSError), open(episode.at("keeper.err"), errors="replace") as errors:
        print("the keeper said:", *errors.read().splitlines()[-SHOWN:], sep="\n  ")
    print(f"kept: {episode.directory}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("qallow", type=os.path.abspath)
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    seconds = float(os.environ.get("QALLOW_SECONDS", arguments.seconds))
    seed = int(os.environ.get("QALLOW_SEED", random.SystemRandom().randrange(1 << 32)))
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # below nohup a keeper would not hear it
    with_mappings = mapping_changes_time(tempfile.gettempdir())
    print(f"QALLOW_SEED={seed}, {seconds:g} s", flush=True)
    if not with_mappings:
        print("skipped: stores through mappings, which do not change a file's time here")
    hashes = hashes_of(arguments.qallow)
    began, barriers, number, failed = time.monotonic(), 0, 0, False
    while number < 3 or time.monotonic() < began + seconds:
        # The first three are short, so that every mode is tried in any case.
        mode = ("log", "no-log", "poll")[number % 3]
        deadline = began + seconds * (number + 1) / 3 if number < 3 else began + seconds
        episode, failed = Episode(arguments.qallow, f"{seed} {number}", mode, hashes,
                                  with_mappings), True
        try:
            episode.run(deadline, 12 if number < 3 else 100)
            failed = False
        except (Differs, subprocess.TimeoutExpired) as problem:
            report(episode, seed, problem)
        finally:
            episode.close(keep=failed)
        number, barriers = number + 1, barriers + episode.barriers
        print(f"episode {number}, {mode}: {episode.barriers} barriers, {episode.count} operations, "
              f"{episode.keeper.kills} keepers and {episode.readers_killed} readers killed, "
              f"{episode.too_old} times too old, {episode.looked_again} times looked again",
              flush=True)
        if failed:
            break
    print(f"{barriers} passed, {int(failed)} failed")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
