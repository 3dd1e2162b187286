#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The real command, from outside: qallow accelerator records directories while they change.

What was recorded is read with tests/reader/qallow_reader.py, which shares no code with qallow, and
compared with the directory itself. Nothing sleeps: the barrier (--sync) and the lines that the
recorder prints say when something is done.

    test_recorder.py QALLOW [TEST...]

QALLOW_SEED=N repeats a run, QALLOW_ROUNDS=N makes it longer. The trees lie in memory if there is a
/dev/shm, which is quicker; TMPDIR=/somewhere puts them on a disk.
"""
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "reader"))
from qallow_reader import DIRECTORY, FILE, SYMLINK, Log, tree_paths  # noqa: E402

QALLOW = ""
SEED = int(os.environ.get("QALLOW_SEED", random.SystemRandom().randrange(1 << 32)))
ROUNDS = int(os.environ.get("QALLOW_ROUNDS", "1"))
WHERE = os.environ.get("TMPDIR") or ("/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
KINDS = {stat.S_IFREG: FILE, stat.S_IFDIR: DIRECTORY, stat.S_IFLNK: SYMLINK}


def snapshot(root):
    """path -> what should be recorded of it."""
    found, root = {}, os.fsencode(root)
    stack = [b""]
    while stack:
        path = stack.pop()
        full = os.path.join(root, path) if path else root
        st = os.lstat(full)
        kind = KINDS.get(stat.S_IFMT(st.st_mode))
        if kind is None:
            continue
        content = b""
        if kind == SYMLINK:
            content = os.readlink(full)
        elif kind == FILE:
            with open(full, "rb") as file:
                content = file.read()
        else:
            stack.extend(os.path.join(path, name) if path else name for name in os.listdir(full))
        found[path] = entry(kind, stat.S_IMODE(st.st_mode), content, st.st_mtime_ns)
    return found


def entry(kind, mode, content, mtime):
    # A symlink's mode means nothing, and a directory's time alone makes no epoch.
    return (kind, None if kind == SYMLINK else mode, bytes(content),
            mtime if kind != DIRECTORY else None)


def recorded(state):
    return {path: entry(page.kind, page.mode, page.content, page.mtime)
            for path, page in tree_paths(state)}


def in_namespace():
    """Can this process have mounts of its own?"""
    return os.geteuid() == 0 and subprocess.run(
        ["unshare", "-m", "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0


# An epoch when a barrier asks for one, and no other: what a test does in several steps is not met
# half-way, however long the machine takes between two of them.
WHEN_ASKED = ("--settle", "1h", "--max-settle", "1h")


class Recorder:
    """A running `qallow accelerator --json`; ready when made."""

    def __init__(self, case, *options, wait=True, path=None, command=(), **popen):
        self.case = case
        source = () if path == "" else ("--watch", path or case.tree)
        self.process = subprocess.Popen(
            [*command, QALLOW, "accelerator", *source, "--log", case.log, "--json", *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **popen)
        case.addCleanup(self.clean)
        self.ready = self.line() if wait else None
        if wait:
            case.assertEqual(self.ready["event"], "ready", self.ready)

    def clean(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def line(self):
        """The next line; fails with what was said if there is none."""
        text = self.process.stdout.readline()
        if not text:
            self.case.fail(f"the recorder ended: {self.process.communicate()[1]}")
        return json.loads(text)

    def wait(self):
        """(exit status, all further lines, stderr)"""
        out, err = self.process.communicate(timeout=300)
        return self.process.returncode, [json.loads(line) for line in out.splitlines()], err

    def ask(self, **request):
        try:
            return ask(self.case.log, **request)
        except (OSError, ValueError) as error:
            status, _, err = self.wait()
            return self.case.fail(f"no answer ({error}), it ended with {status}: {err}")

    def sync(self):
        answer = self.ask(request="sync", timeout_ms=300000)
        self.case.assertTrue(answer.get("ok"), answer)
        return answer["epoch"]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        status, lines, err = self.wait()
        self.case.assertEqual(status, 0, err)
        return lines


def ask(log, **request):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(log + ".sock")
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile() as answers:
            return json.loads(answers.readline())


def watched_for_writes(pid):
    """The inodes that a process has told inotify to say every write of (IN_MODIFY)."""
    found = set()
    for name in os.listdir(f"/proc/{pid}/fdinfo"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/{pid}/fdinfo/{name}") as file:
            for line in file:
                words = dict(word.split(":", 1) for word in line.split() if ":" in word)
                if line.startswith("inotify ") and int(words["mask"], 16) & 2:
                    found.add(int(words["ino"], 16))
    return found


class Case(unittest.TestCase):
    maxDiff = 2000

    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="qallow-recorder-", dir=WHERE)
        os.environ["QALLOW_CACHE_DIR"] = self.directory
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.tree = os.path.join(self.directory, "tree")
        self.log = os.path.join(self.directory, "log.tlog")
        os.mkdir(self.tree)
        self.random = random.Random(f"{SEED} {self.id()}")

    def at(self, *names):
        return os.path.join(self.tree, *names)

    def write(self, name, content="x", mode="w"):
        os.makedirs(os.path.dirname(self.at(name)), exist_ok=True)
        with open(self.at(name), mode) as file:
            file.write(content)

    def put_whole(self, name, content):
        """At once: written in place, it could be met half-way and make two epochs."""
        beside = os.path.join(self.directory, "beside")
        with open(beside, "wb") as file:
            file.write(content)
        os.rename(beside, self.at(name))

    def run_command(self, *arguments, **options):
        return subprocess.run([QALLOW, "accelerator", *arguments], capture_output=True, text=True,
                              check=False, timeout=300, **options)

    def newest(self):
        """(number, tree) of the newest epoch in the log, all epochs verified."""
        log = Log(self.log)
        epoch = log.verify()
        return epoch, recorded(log.state_at(epoch))

    def assert_recorded(self, expected=None):
        epoch, tree = self.newest()
        self.assert_same(tree, snapshot(self.tree) if expected is None else expected)
        return epoch

    def assert_same(self, tree, expected):
        """Like assertEqual, but says which paths differ."""
        for path in sorted(tree.keys() | expected.keys()):
            a, b = tree.get(path), expected.get(path)
            if a != b:
                short = [x and (x[0], x[1], len(x[2]), x[2][:20], x[3]) for x in (a, b)]
                self.fail(f"{path!r}: recorded {short[0]}, there is {short[1]}")


class Following(Case):
    def test_every_barrier_holds_the_tree(self):
        self.write("there/before", "1")
        recorder = Recorder(self)
        expected = {recorder.ready["epoch"]: snapshot(self.tree)}

        def note():
            expected[recorder.sync()] = snapshot(self.tree)

        self.write("there/before", "12")
        note()
        self.write("a/b/c/d/e/f", "deep")
        os.symlink("nowhere", self.at("link"))
        os.mkdir(self.at("empty"))
        note()
        os.rename(self.at("a/b"), self.at("moved"))
        self.write("moved/c/d/e/f", "deeper")
        note()
        os.chmod(self.at("there/before"), 0o600)
        os.chmod(self.at("empty"), 0o700)
        note()
        os.utime(self.at("moved/c/d/e/f"), ns=(1, 1234567890123456789))
        note()
        shutil.rmtree(self.at("moved"))
        os.rename(self.at("there/before"), self.at("there/after"))
        note()
        os.unlink(self.at("there/after"))
        os.mkdir(self.at("there/after"))
        note()
        for name in (b"\xff\xfe", b"new\nline", b"-n", b" ", b"x" * 255):
            with open(os.path.join(os.fsencode(self.tree), name), "wb") as file:
                file.write(name)
        note()
        self.assertEqual(len(expected), 9, "each change makes an epoch")
        self.assertEqual(recorder.sync(), max(expected), "nothing changed makes none")
        recorder.stop()
        log = Log(self.log)
        for epoch, state in log.replay():
            if epoch.epoch in expected:
                self.assert_same(recorded(state), expected[epoch.epoch])

    def test_every_way_of_saving(self):
        """An editor writes in place, or beside and renames, or moves the old one away first."""
        self.write("file", "old " * 1000)
        recorder = Recorder(self, *WHEN_ASKED)
        pages = set()
        for way in range(3):
            text = f"new {way} " * 1000
            if way == 0:
                self.write("file", text)
            elif way == 1:
                self.write("file.tmp", text)
                os.rename(self.at("file.tmp"), self.at("file"))
            else:
                os.rename(self.at("file"), self.at("file~"))
                self.write("file", text)
                os.unlink(self.at("file~"))
            epoch = recorder.sync()
            state = Log(self.log).state_at(epoch)
            pages |= {page.id for path, page in tree_paths(state) if path == b"file"}
            self.assert_recorded()
        self.assertEqual(len(pages), 1, "one file, one page")

    def test_bursts_of_ten_thousand_files(self):
        recorder = Recorder(self)
        for i in range(10000):
            directory = self.at(f"d{i % 100}")
            if i < 100:
                os.mkdir(directory)
            with open(f"{directory}/{i}", "w") as file:
                file.write(str(i))
        recorder.sync()
        self.assert_recorded()
        for i in range(0, 10000, 2):
            os.unlink(self.at(f"d{i % 100}", str(i)))
        recorder.sync()
        epoch = self.assert_recorded()
        status = recorder.ask(request="status")
        self.assertEqual((status["epoch"], status["watches"]), (epoch, 101))

    def test_rename_storms(self):
        for i in range(10):
            self.write(f"dir{i}/sub/file", str(i))
        recorder = Recorder(self)
        for i in range(2000):
            a, b = self.random.sample(range(10), 2)
            os.rename(self.at(f"dir{a}"), self.at("aside"))
            os.rename(self.at(f"dir{b}"), self.at(f"dir{a}"))
            os.rename(self.at("aside"), self.at(f"dir{b}"))
            if i % 500 == 0:
                recorder.sync()
                self.assert_recorded()
        for i in range(10):
            self.write(f"dir{i}/sub/file", f"{i} again")
        recorder.sync()
        self.assert_recorded()

    def change(self, rng):
        names = ("a", "b", "c", "d")
        path, other = (self.at(*rng.choices(names, k=rng.randrange(1, 4))) for _ in range(2))
        with contextlib.suppress(OSError):
            action = rng.randrange(9)
            if action < 2:
                os.makedirs(path)
            elif action < 5:
                with open(path, "ab" if action == 2 else "wb") as file:
                    file.write(rng.randbytes(rng.randrange(100)))
            elif action < 7:
                os.rename(path, other)
            elif action == 7:
                os.symlink("t", path)
            elif rng.randrange(10):
                os.unlink(path)
            else:
                shutil.rmtree(path)

    def test_random_changes_by_two_writers(self):
        recorder = Recorder(self, "--settle", "1", "--max-settle", "20")
        for _ in range(6 * ROUNDS):
            rngs = [random.Random(self.random.random()) for _ in range(2)]

            def work(rng):
                for _ in range(500):
                    self.change(rng)

            threads = [threading.Thread(target=work, args=(rng,)) for rng in rngs]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            epoch = recorder.sync()
            self.assertEqual(self.assert_recorded(), epoch)

    def test_polling_follows_too(self):
        self.write("a/b/file", "1")
        recorder = Recorder(self, "--poll")
        rng = self.random
        for _ in range(20):
            for _ in range(30):
                self.change(rng)
            recorder.sync()
            self.assert_recorded()

    def test_polling_needs_nobody_to_ask(self):
        self.write("a/file", "1")
        recorder = Recorder(self, "--poll")
        for content in (b"22", b"333"):
            with open(self.at("a/file"), "r+b", buffering=0) as file:
                file.write(content)  # in one step, so that one poll sees all of it
            line = recorder.line()
            self.assertEqual((line["event"], line["changed"]), ("epoch", 1), line)
            self.assert_recorded()

    def test_a_file_that_is_always_appended_to(self):
        self.write("quiet", "1")
        recorder = Recorder(self, "--settle", "50", "--max-settle", "100")
        stop = threading.Event()

        def append():
            with open(self.at("busy"), "w", buffering=1) as file:
                while not stop.is_set():
                    file.write("a line\n")

        thread = threading.Thread(target=append)
        thread.start()
        try:
            epochs = [recorder.line()["epoch"] for _ in range(3)]
        finally:
            stop.set()
            thread.join()
        recorder.sync()
        self.assert_recorded()
        log, last = Log(self.log), (-1, -1)
        for epoch, state in log.replay():
            if epoch.epoch in epochs:
                _, _, busy, mtime = recorded(state)[b"busy"]
                self.assertGreater((len(busy), mtime), last)
                self.assertEqual(busy, (b"a line\n" * len(busy))[:len(busy)])
                last = len(busy), mtime

    def test_a_reader_that_does_not_read_holds_up_nothing(self):
        recorder = Recorder(self, *WHEN_ASKED)
        for i in range(400):  # 64 KiB of pipe take fewer lines
            self.write("file", str(i))
            last = recorder.sync()
        self.assertEqual(last, 401)
        self.assert_recorded()
        recorder.process.send_signal(signal.SIGTERM)
        status, lines, err = recorder.wait()
        unprinted = int(err.split(" lines were not printed")[0].split()[-1])
        self.assertEqual((status, len(lines) + unprinted), (0, 400))

    def test_changes_settle_without_being_asked(self):
        recorder = Recorder(self, "--settle", "20")
        self.put_whole("a", b"1")
        line = recorder.line()
        self.assertEqual((line["event"], line["created"]), ("epoch", 1))
        self.assertGreaterEqual(line["waited_us"], 20000)
        self.assert_recorded()

    def test_one_file(self):
        self.write("file", "1")
        self.write("other", "1")
        recorder = Recorder(self, "--file", self.at("file"), path="")

        def now(expected):
            recorder.sync()
            state = Log(self.log).state_at(Log(self.log).verify())
            tree = {path: bytes(page.content) for path, page in tree_paths(state)}
            self.assertEqual(tree, expected)

        now({b"file": b"1"})
        self.write("file", "22")
        now({b"file": b"22"})
        epoch = recorder.sync()
        self.write("other", "22")
        self.assertEqual(recorder.sync(), epoch)
        self.write("file.new", "333")
        os.rename(self.at("file.new"), self.at("file"))
        now({b"file": b"333"})
        recorder.stop()


class Rules(Case):
    def test_git_is_left_out_and_said(self):
        self.write(".git/config", "1")
        self.write("sub/.git/config", "1")
        self.write("kept", "1")
        recorder = Recorder(self)
        self.write(".git/config", "2")
        recorder.sync()
        self.assertEqual(set(self.newest()[1]), {b"", b"kept", b"sub"})
        self.assertEqual(recorder.sync(), 1)
        recorder.process.send_signal(signal.SIGINT)
        self.assertIn(".git directories are left out; --include-git records them",
                      recorder.wait()[2])
        done = self.run_command("--watch", self.tree, "--log", self.log, "--once", "--include-git")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assert_recorded()

    def test_an_ignore_file_counts_from_when_it_is_there(self):
        for name in ("keep.c", "drop.o", "build/x"):
            self.write(name, "1")
        recorder = Recorder(self, "--exclude", "*.tmp")
        self.write("never.tmp", "1")
        self.write(".qallowignore", "*.o\nbuild/\n")
        recorder.sync()
        self.assertEqual(set(self.newest()[1]), {b"", b"keep.c", b".qallowignore"})
        os.unlink(self.at(".qallowignore"))
        recorder.sync()
        self.assertEqual(set(self.newest()[1]), {b"", b"keep.c", b"drop.o", b"build", b"build/x"})
        self.write("build/y", "1")
        recorder.sync()
        self.assertIn(b"build/y", self.newest()[1])

    def test_a_log_in_the_tree_is_not_recorded(self):
        self.log = self.at("log.tlog")
        self.write("file", "1")
        recorder = Recorder(self, "--telemetry", self.at("metrics.csv"),
                            "--telemetry-interval", "1ms", "--settle", "1")
        self.write("file", "2")
        epoch = recorder.sync()
        for _ in range(20):
            self.assertEqual(recorder.sync(), epoch)
        self.assertEqual(set(self.newest()[1]), {b"", b"file"})
        with open(self.at("metrics.csv")) as rows:
            self.assertTrue(rows.readline().startswith("time,metric,label,value,unit"))
            self.assertIn("watch_events_total", rows.read())

    def test_what_cannot_be_recorded_is_said(self):
        os.mkfifo(self.at("fifo"))
        self.write("file", "1")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(self.at("socket"))
            recorder = Recorder(self)
            self.assertEqual(recorder.ready["skipped"], 2)
            self.assertEqual(set(self.newest()[1]), {b"", b"file"})
            recorder.process.send_signal(signal.SIGINT)
            self.assertIn("not recorded: fifo:", recorder.wait()[2])

    @unittest.skipUnless(os.geteuid() == 0, "needs to be somebody else")
    def test_unreadable_entries_are_tried_again(self):
        self.write("file", "1")
        self.write("closed/below", "1")
        for name in (".", "..", "file", "closed", "closed/below"):
            os.chown(self.at(name), 65534, 65534)
        os.chmod(self.at("file"), 0)
        os.chmod(self.at("closed"), 0)
        recorder = Recorder(self, user=65534)
        self.assertEqual(recorder.ready["skipped"], 2)
        os.chmod(self.at("file"), 0o644)
        os.chmod(self.at("closed"), 0o755)
        recorder.sync()
        self.assert_recorded()
        self.write("closed/below", "2")
        recorder.sync()
        self.assert_recorded()

    def test_retention_bounds_the_log(self):
        self.write("file", "")
        recorder = Recorder(self, "--keep-bytes", "200K", "--sync=none", *WHEN_ASKED)
        for _ in range(100):
            self.write("file", self.random.randbytes(20000), "wb")
            recorder.sync()
        status = recorder.ask(request="status")
        self.assertGreater(status["first_epoch"], 50)
        self.assertLess(status["log_bytes"], 300000)
        recorder.stop()
        self.assertEqual(self.assert_recorded(), 101)


class Requests(Case):
    def test_labels_status_and_prune(self):
        self.write("file", "1")
        recorder = Recorder(self, *WHEN_ASKED)
        self.write("file", "2")
        done = self.run_command("--label", "two", "--log", self.log)
        self.assertEqual((done.returncode, done.stdout), (0, "2\n"), done.stderr)
        self.assertEqual(recorder.ask(request="label", name="one", epoch=1)["epoch"], 1)
        self.assertEqual(Log(self.log).labels(), {b"two": 2, b"one": 1})
        done = self.run_command("--status", "--json", "--log", self.log)
        self.assertEqual(json.loads(done.stdout)["epoch"], 2)
        answer = recorder.ask(request="prune", keep_epochs=1, dry_run=True)
        self.assertEqual((answer["first_epoch_before"], answer["first_epoch_after"]), (1, 2))
        self.assertEqual(recorder.ask(request="status")["first_epoch"], 1)
        recorder.ask(request="prune", keep_epochs=1)
        self.assertEqual(recorder.ask(request="status")["first_epoch"], 2)
        self.assert_recorded()

    def test_prune_from_an_epoch(self):
        """What is recorded between the decision and the request does not shift the cut."""
        recorder = Recorder(self, *WHEN_ASKED)
        for text in "234567":
            self.write("file", text)
            recorder.sync()
        answer = recorder.ask(request="prune", keep_from=4)
        self.assertEqual((answer["first_epoch_before"], answer["first_epoch_after"],
                          answer["punch_errno"]), (1, 4, 0))
        answer = recorder.ask(request="prune", keep_from=2)
        self.assertEqual((answer["first_epoch_before"], answer["first_epoch_after"]), (4, 4))
        answer = recorder.ask(request="prune", keep_from=5, keep_epochs=1000)
        self.assertEqual(answer["first_epoch_after"], 5)
        self.assertFalse(recorder.ask(request="prune", keep_from=8)["ok"])
        self.assertEqual(recorder.ask(request="status")["first_epoch"], 5)
        self.assert_recorded()

    def test_a_follower_is_not_late(self):
        """A reader may take an epoch when LOG.lock says that it is durable, which is written after
        LOG: here long after it. A follower that waits for LOG alone is woken too early, and then
        only by the second that it sleeps at most, so it has to watch both."""
        recorder = Recorder(self, "--settle", "1", "--sync=interval=3600000")
        follower = None
        for epoch in range(2, 9):
            self.put_whole("file", str(epoch).encode())
            self.assertEqual(recorder.line()["epoch"], epoch)
            recorder.ask(request="status")
            self.assertEqual(recorder.sync(), epoch)
            if follower is None:
                follower = subprocess.Popen(
                    [QALLOW, "replay", self.log, "--follow", "--epoch", "1", "--json"],
                    stdout=subprocess.PIPE, text=True)
                self.addCleanup(follower.communicate)
                self.addCleanup(follower.kill)
            self.assertEqual(json.loads(follower.stdout.readline())["epoch"], epoch)
        self.assertLessEqual({os.stat(path).st_ino for path in (self.log, self.log + ".lock")},
                             watched_for_writes(follower.pid))

    def test_bad_requests_are_refused(self):
        recorder = Recorder(self)
        for request in ({}, {"request": 1}, {"request": "x"}, {"request": "label"},
                        {"request": "label", "name": "x" * 300}, {"request": "label", "name": ""},
                        {"request": "label", "name": "new\nline"},
                        {"request": "label", "name": "x", "epoch": 99},
                        {"request": "prune"}, {"request": "prune", "keep_epochs": -1},
                        {"request": "prune", "keep_from": "x"},
                        {"request": "prune", "keep_epochs": 1e300}):
            answer = ask(self.log, **request)
            self.assertFalse(answer["ok"], request)
            self.assertLess(answer["error"], 0)
            self.assertTrue(answer["message"])
        self.assertEqual(recorder.sync(), 1)

    def test_stop_records_what_has_changed(self):
        recorder = Recorder(self, *WHEN_ASKED)
        self.write("late", "1")
        done = self.run_command("--stop", "--log", self.log)
        self.assertEqual((done.returncode, done.stdout), (0, "2\n"), done.stderr)
        self.assertEqual(recorder.wait()[0], 0)
        self.assert_recorded()
        self.assertFalse(os.path.exists(self.log + ".sock"))

    def test_nobody_records(self):
        for request in ("--sync", "--status", "--stop", "--label=x"):
            done = self.run_command(request, "--log", self.log)
            self.assertEqual(done.returncode, 69, done.stderr)
            self.assertIn("no recorder is running", done.stderr)

    def test_a_second_recorder_is_refused(self):
        recorder = Recorder(self)
        done = self.run_command("--watch", self.tree, "--log", self.log, "--once")
        self.assertEqual(done.returncode, 75)
        self.assertIn(str(recorder.process.pid), done.stderr)
        self.write("file", "1")
        recorder.sync()
        self.assert_recorded()


class Ends(Case):
    def test_sigterm_drains(self):
        recorder = Recorder(self, *WHEN_ASKED)
        self.write("late/file", "1")
        lines = recorder.stop()
        self.assertEqual([line["epoch"] for line in lines], [2])
        self.assert_recorded()
        again = Recorder(self)
        self.assertEqual((again.ready["epoch"], again.ready["committed"]), (2, False))

    def test_what_changed_in_between_is_recorded(self):
        self.write("a/file", "1")
        self.write("b/gone", "1")
        Recorder(self).stop()
        os.rename(self.at("a"), self.at("c"))
        self.write("c/file", "2")
        shutil.rmtree(self.at("b"))
        recorder = Recorder(self)
        self.assertEqual((recorder.ready["epoch"], recorder.ready["committed"]), (2, True))
        self.assertEqual(recorder.ready["renamed"], 1)
        self.assert_recorded()

    def test_a_directory_that_the_log_saw_go_first(self):
        """One path of it has settled; events of the others come later, with nothing to record."""
        for name in ("x", "y", "z"):
            self.write(f"d/{name}", name)
        recorder = Recorder(self, "--settle", "300ms", "--max-settle", "1h")
        os.unlink(self.at("d/x"))
        while recorder.ask(request="status")["changed_paths"] == 0:
            pass
        shutil.rmtree(self.at("d"))
        while recorder.ask(request="status")["changed_paths"] > 0:
            pass
        epoch = recorder.sync()
        done = self.run_command("--watch", self.tree, "--since", "1", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        *removed, end = (json.loads(text) for text in done.stdout.splitlines())
        self.assertEqual(sorted((line["event"], line["path"]) for line in removed),
                         [("removed", f"d/{name}") for name in ("x", "y", "z")])
        self.assertEqual(end["epoch"], epoch)
        recorder.stop()
        self.assert_recorded()

    def test_another_file_of_the_same_content(self):
        """Replaced by an equal one with its times it makes no epoch, and is told with the next."""
        self.write("file", "1")
        recorder = Recorder(self)
        shutil.copy2(self.at("file"), os.path.join(self.directory, "file"))
        os.rename(os.path.join(self.directory, "file"), self.at("file"))
        self.assertEqual(recorder.sync(), 1)
        self.write("other", "2")
        self.assertEqual(recorder.sync(), 2)
        done = self.run_command("--watch", self.tree, "--since", "1", "--json")
        inodes = {line["path"]: line["inode"] for line in map(json.loads, done.stdout.splitlines())
                  if line["event"] == "changed"}
        self.assertEqual(inodes, {name: os.stat(self.at(name)).st_ino
                                  for name in ("file", "other")})
        recorder.stop()

    def test_once(self):
        self.write("file", "1")
        for expected in ("epoch 1 ", "nothing has changed since epoch 1\n"):
            done = self.run_command("--watch", self.tree, "--log", self.log, "--once")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertTrue(done.stdout.startswith(expected), done.stdout)
            self.assert_recorded()

    def test_a_directory_that_does_not_exist(self):
        done = self.run_command("--watch", self.at("nothing"), "--log", self.log)
        self.assertEqual(done.returncode, 66)
        self.assertEqual(os.listdir(self.directory), ["tree"])
        self.write("file", "1")
        done = self.run_command("--watch", self.at("file"), "--log", self.log)
        self.assertNotEqual(done.returncode, 0)

    def test_the_directory_is_deleted(self):
        self.write("file", "1")
        recorder = Recorder(self, *WHEN_ASKED)
        before = snapshot(self.tree)
        shutil.rmtree(self.tree)
        status, lines, err = recorder.wait()
        self.assertEqual((status, lines), (66, []), err)
        self.assertIn("deleted, moved away or unmounted; recorded up to epoch 1", err)
        self.assert_recorded(before)

    def test_the_directory_is_moved_away(self):
        recorder = Recorder(self, *WHEN_ASKED)
        self.write("late", "1")
        expected = snapshot(self.tree)
        os.rename(self.tree, self.tree + ".moved")
        status, lines, err = recorder.wait()
        self.assertEqual((status, len(lines)), (66, 1), err)
        self.assert_recorded(expected)

    @unittest.skipUnless(in_namespace(), "needs a mount namespace")
    def test_the_directory_is_unmounted(self):
        script = ('mount -t tmpfs none "$1" && echo 1 > "$1/file" || exit 1; shift; '
                  '"$@" & pid=$!; read -r line; umount -l "$0"; wait $pid')
        recorder = Recorder(self, wait=False, stdin=subprocess.PIPE,
                            command=("unshare", "-m", "sh", "-c", script, self.tree, self.tree))
        self.assertEqual(recorder.line()["event"], "ready")
        recorder.process.stdin.write("\n")
        recorder.process.stdin.flush()
        status, _, err = recorder.wait()
        self.assertEqual(status, 66, err)
        self.assertEqual(set(self.newest()[1]), {b"", b"file"})

    @unittest.skipUnless(in_namespace(), "needs a mount namespace")
    def test_the_disk_is_full(self):
        disk = os.path.join(self.directory, "disk")
        os.mkdir(disk)
        self.write("file", "1")
        script = ('mount -t tmpfs -o size=2M none "$0" || exit 1; "$@"; status=$?; '
                  'cp "$0/log.tlog" "$0/../kept.tlog"; exit $status')
        self.log = os.path.join(disk, "log.tlog")
        recorder = Recorder(self, "--settle", "1", command=("unshare", "-m", "sh", "-c", script,
                                                            disk))
        expected = {1: snapshot(self.tree)}
        for i in range(2, 100):
            self.put_whole(f"file{i}", self.random.randbytes(300000))
            text = recorder.process.stdout.readline()
            if not text:
                break
            if json.loads(text)["epoch"] == i:
                expected[i] = snapshot(self.tree)
        status, _, err = recorder.wait()
        self.assertEqual(status, 74, err)
        self.assertIn("No space left on device", err)
        self.log = os.path.join(self.directory, "kept.tlog")
        epoch, tree = self.newest()
        self.assertGreater(epoch, 1)
        self.assertGreaterEqual(epoch, max(expected), "what was printed is kept")
        if epoch in expected:
            self.assert_same(tree, expected[epoch])

    def test_killed_at_random_times(self):
        """What was printed survives, the log is never damaged, and the next run catches up."""
        rng, printed = self.random, 0
        for i in range(20):
            self.write(f"d{i % 5}/{i}", "x" * i)
        for _ in range(12 * ROUNDS):
            recorder = Recorder(self, "--settle", "0", "--max-settle", "5", wait=False)
            budget = rng.randrange(60)
            lines = []
            for i in range(budget):
                self.write(f"d{rng.randrange(5)}/{rng.randrange(20)}",
                           rng.randbytes(rng.randrange(3000)), "wb")
                if i == 10:
                    lines.append(recorder.process.stdout.readline())
            recorder.process.kill()
            lines += recorder.process.communicate()[0].splitlines()
            for line in lines:
                with contextlib.suppress(ValueError):  # the last one may be cut
                    printed = max(printed, json.loads(line)["epoch"])
            if os.path.exists(self.log) and printed:
                log = Log(self.log)
                self.assertIn(log.outcome, ("clean", "torn"))
                self.assertGreaterEqual(log.verify(), printed)
        recorder = Recorder(self)
        self.assertGreaterEqual(recorder.ready["epoch"], printed)
        self.assert_recorded()
        recorder.stop()


def main():
    global QALLOW
    QALLOW = os.path.abspath(sys.argv[1])
    print(f"QALLOW_SEED={SEED}", flush=True)
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=1)


if __name__ == "__main__":
    main()
