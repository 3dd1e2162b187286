#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Takes away, one after the other, what `qallow doctor` looks for, and sees what the doctor says
and what `qallow accelerator` then does: it goes on with less and says so, or it refuses.

    test_capability.py QALLOW WITHOUT FAKE_CUDA_DIRECTORY [TEST...]

WITHOUT is the program of without.c: system calls that fail. Limits and mounts of its own each test
has in a user namespace; where there are none the test is skipped and says so.
"""
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
QALLOW = WITHOUT = FAKE_CUDA = ""
UNAVAILABLE, LIMIT, IO, PERMISSION, NO_INPUT = 69, 71, 74, 77, 66


def without(*rules):
    return [WITHOUT, *rules, "--"]


def in_shell(script):
    """Runs the script, which stands in a namespace, and then the command."""
    return ["sh", "-euc", script + '; exec "$@"', "sh"]


def limits(**values):
    """In a user namespace with these sysctls of user.*"""
    return ["unshare", "-Ur", *in_shell("; ".join(
        f"echo {value} >/proc/sys/user/{name}" for name, value in values.items()))]


def mounts(script):
    return ["unshare", "-Urm", *in_shell(script)]


class Case(unittest.TestCase):
    def setUp(self):
        self.top = tempfile.mkdtemp(prefix="qallow-capability-")
        self.addCleanup(shutil.rmtree, self.top)
        self.tree = os.path.join(self.top, "tree")
        self.log = os.path.join(self.top, "log")
        self.other = os.path.join(self.top, "other")
        self.caches = os.path.join(self.top, "caches")  # not where the user's are
        os.makedirs(os.path.join(self.tree, "a", "b"))
        os.mkdir(self.other)
        os.mkdir(self.caches, 0o700)
        self.write("a/f", "1")
        self.environment = {name: value for name, value in os.environ.items()
                            if name not in ("XDG_RUNTIME_DIR", "QALLOW_CPU_MASK",
                                            "LD_LIBRARY_PATH")}
        self.environment["QALLOW_CACHE_DIR"] = self.caches

    def write(self, name, text):
        with open(os.path.join(self.tree, name), "w", encoding="ascii") as file:
            file.write(text)

    def can(self, command):
        """Skips the test if the machine does not let it take something away."""
        result = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
        if result.returncode:
            self.skipTest(f"cannot run {' '.join(command[:2])}: {result.stderr.strip()}")

    def run_in(self, command, *arguments, **environment):
        self.can(command)
        return subprocess.run([*command, QALLOW, *arguments], capture_output=True, text=True,
                              env={**self.environment, **environment}, check=False)

    def doctor(self, command=(), *arguments, **environment):
        """(exit status, name -> check); what is printed says the same."""
        arguments = ["doctor", *(arguments or [self.tree])]
        text = self.run_in(list(command), *arguments, **environment)
        run = self.run_in(list(command), *arguments, "--json", **environment)
        self.assertEqual((run.returncode, run.stderr), (text.returncode, ""), text.stderr)
        report = json.loads(run.stdout)
        checks = {check["check"]: check for check in report["checks"]}
        self.assertEqual(report["good"], run.returncode == 0, report)
        failed = [check for check in checks.values() if check["verdict"] == "FAIL"]
        self.assertEqual(report["good"], not failed, report)
        self.assertTrue(all("remedy" in check for check in failed), failed)
        for check in checks.values():
            self.assertIn(f'{check["verdict"]}  {check["check"]} ', text.stdout)
        return run.returncode, checks

    def assert_check(self, check, verdict, text, remedy=""):
        self.assertEqual(check["verdict"], verdict, check)
        self.assertIn(text, check["text"], check)
        self.assertIn(remedy, check.get("remedy", ""), check)

    @contextlib.contextmanager
    def recorder(self, command, tree=None, log=None):
        """A running `qallow accelerator`, ready; gives (what it said, the newest epoch)."""
        self.can(command)
        with open(os.path.join(self.top, "stderr"), "w+", encoding="utf-8") as err:
            process = subprocess.Popen(
                [*command, QALLOW, "accelerator", "--watch", tree or self.tree, "--log",
                 log or self.log, "--json"], stdout=subprocess.PIPE, stderr=err, text=True,
                env=self.environment)
            try:
                line = process.stdout.readline()
                err.seek(0)
                said = err.read()
                self.assertTrue(line, said)
                yield said, self.sync
            finally:
                subprocess.run([QALLOW, "accelerator", "--stop", "--log", log or self.log],
                               capture_output=True, check=False)
                process.communicate(timeout=300)

    def sync(self):
        out = subprocess.run([QALLOW, "accelerator", "--sync", "--log", self.log],
                             capture_output=True, text=True, check=True).stdout
        return int(out)

    def recorded(self, name):
        out = os.path.join(self.top, "out")
        shutil.rmtree(out, ignore_errors=True)
        subprocess.run([QALLOW, "replay", self.log, "--output", out], capture_output=True,
                       check=True)
        with open(os.path.join(out, name), encoding="ascii") as file:
            return file.read()

    def assert_records(self, command, *said):
        """The recorder says this line, once, and misses nothing all the same."""
        with self.recorder(command) as (stderr, sync):
            for text in said:
                self.assertEqual(stderr.count(text), 1, stderr)
            before = sync()
            self.write("a/f", "two")
            os.makedirs(os.path.join(self.tree, "x", "y"))
            self.write("x/y/new", "three")
            self.assertGreater(sync(), before)
            self.assertEqual(self.recorded("a/f"), "two")
            self.assertEqual(self.recorded("x/y/new"), "three")


class Inotify(Case):
    def test_all_is_there(self):
        status, checks = self.doctor()
        self.assertIn(status, (0, UNAVAILABLE, LIMIT))
        self.assert_check(checks["inotify"], "PASS", "can be watched")
        with self.recorder([]) as (said, _):
            self.assertNotIn("compared", said)

    def test_no_such_system_call(self):
        status, checks = self.doctor(without("inotify_init1=ENOSYS"))
        self.assert_check(checks["inotify"], "WARN", "not implemented", "inotify_init1")
        self.assertEqual(status, 0)
        self.assert_records(without("inotify_init1=ENOSYS"),
                            "cannot watch for changes: Function not implemented; the tree is "
                            "compared at intervals; allow inotify_init1")

    def test_no_watch(self):
        _, checks = self.doctor(without("inotify_add_watch=ENOSPC"))
        self.assert_check(checks["inotify"], "WARN", "0 of 1 directories", "max_user_watches=")
        self.assert_records(without("inotify_add_watch=ENOSPC"), "0 of 3 directories are watched")

    def test_no_instance(self):
        command = limits(max_inotify_instances=0)
        status, checks = self.doctor(command)
        self.assert_check(checks["inotify"], "WARN", "limit of inotify instances",
                          "sysctl user.max_inotify_instances=1024")
        self.assert_check(checks["inotify instances"], "WARN", " of 0 used",
                          "sysctl user.max_inotify_instances=1024")
        self.assertEqual(status, 0)
        self.assert_records(command, "the limit of inotify instances is reached; the tree is "
                            "compared at intervals; raise it with: sysctl "
                            "user.max_inotify_instances=1024")

    def test_few_watches(self):
        # One is the directory's above, which tells when the root is moved away.
        command = limits(max_inotify_watches=3)
        _, checks = self.doctor(command)
        self.assert_check(checks["inotify"], "PASS", "can be watched")
        for i in range(5):
            os.mkdir(os.path.join(self.tree, f"d{i}"))
        _, checks = self.doctor(command)
        self.assert_check(checks["inotify watches"], "WARN", "the tree has 8 directories",
                          "sysctl user.max_inotify_watches=1048576")
        self.assert_records(command, "2 of 8 directories are watched, the others are compared "
                            "every second; raise it with: sysctl user.max_inotify_watches=1048576")

    def test_a_file_system_whose_changes_are_no_events(self):
        source = os.path.join(self.top, "source")
        with open(source, "w", encoding="ascii") as file:
            file.write("one")
        mount = os.path.join(self.top, "mount")
        os.mkdir(mount)
        command = ["unshare", "-Urm", "/usr/bin/python3", str(HERE / "fuse_tree.py"), mount,
                   source]
        _, checks = self.doctor(command, mount)
        self.assert_check(checks["tree: file system"], "WARN", "is on FUSE", "--no-poll")
        _, checks = self.doctor(command, self.tree, "--log", mount + "/log")
        self.assert_check(checks["log: file system"], "WARN", "up to the server", "--log FILE")
        with self.recorder(command, tree=mount) as (said, sync):
            self.assertEqual(said.count("is on FUSE"), 1, said)
            before = sync()
            with open(source, "w", encoding="ascii") as file:
                file.write("another text")  # nothing happens in the mount that anybody could see
            self.assertGreater(sync(), before)
            self.assertEqual(self.recorded("f"), "another text")


class Cache(Case):
    def setUp(self):
        super().setUp()
        if self.top.startswith("/dev/shm"):
            self.skipTest("TMPDIR is in /dev/shm, which these tests take away")
        del self.environment["QALLOW_CACHE_DIR"]

    def memory(self, command=(), **environment):
        status, checks = self.doctor(command, **environment)
        return status, checks["cache: memory"]

    def test_a_directory_of_choice(self):
        _, check = self.memory(QALLOW_CACHE_DIR=self.other)
        self.assertIn(self.other, check["text"])
        self.assertIn(check["verdict"], ("PASS", "WARN"))

    def test_the_chosen_directory_is_missing(self):
        _, check = self.memory(mounts("mount -t tmpfs none /dev/shm"),
                               QALLOW_CACHE_DIR=self.top + "/missing")
        self.assert_check(check, "WARN", "it is kept in /dev/shm", "QALLOW_CACHE_DIR")

    def test_no_place_at_all(self):
        status, check = self.memory(mounts("mount -t tmpfs -o ro none /dev/shm"))
        self.assert_check(check, "FAIL", "/dev/shm: no file can be made: Read-only file system",
                          "QALLOW_CACHE_DIR")
        self.assertEqual(status, UNAVAILABLE)

    def test_the_next_place(self):
        status, check = self.memory(mounts("mount -t tmpfs -o ro none /dev/shm"),
                                    XDG_RUNTIME_DIR=self.other)
        self.assert_check(check, "WARN", f"it is kept in {self.other}", "mount -t tmpfs")
        self.assertEqual(status, 0)

    def test_little_memory(self):
        _, check = self.memory(
            mounts(f"mount -t tmpfs -o size=256k none {self.other}"), QALLOW_CACHE_DIR=self.other)
        self.assert_check(check, "WARN", "will be missing", "make room")

    def test_full_memory(self):
        command = mounts(f"mount -t tmpfs -o size=16k none {self.other}; "
                         "mount -t tmpfs -o size=16k none /dev/shm")
        status, check = self.memory(command, QALLOW_CACHE_DIR=self.other)
        self.assert_check(check, "FAIL", "No space left", "make room there")
        self.assertEqual(status, LIMIT)

    def test_no_address_space(self):
        command = in_shell("ulimit -v 8000000")
        if subprocess.run([*command, QALLOW, "version"], capture_output=True,
                          check=False).returncode:
            self.skipTest("this build needs more address space itself (a sanitizer?)")
        status, check = self.memory(command, QALLOW_CACHE_DIR=self.other)
        self.assert_check(check, "FAIL", "63 GiB of address space", "ulimit -v unlimited")
        self.assertEqual(status, LIMIT)

    def test_a_container_s_small_memory(self):
        _, check = self.memory(mounts("mount -t tmpfs -o size=256k none /dev/shm"))
        self.assert_check(check, "WARN", "in /dev/shm (half of what is free)",
                          "--shm-size")


class Log(Case):
    def log_checks(self, script, **kind):
        return self.doctor(mounts(script), self.tree, "--log", self.other + "/log", **kind)

    def test_read_only(self):
        status, checks = self.log_checks(f"mount -t tmpfs -o ro none {self.other}")
        self.assert_check(checks["log: write"], "FAIL", "Read-only", "--log FILE")
        self.assert_check(checks["log: sync"], "WARN", "not tried")
        self.assert_check(checks["log: punch holes"], "WARN", "not tried")
        self.assertEqual(status, PERMISSION)

    def test_full(self):
        status, checks = self.log_checks(
            f"mount -t tmpfs -o size=64k none {self.other}; head -c 1M /dev/zero >{self.other}/f "
            "2>/dev/null || true")
        self.assert_check(checks["log: free space"], "FAIL", "No space left", "make room")
        self.assert_check(checks["log: write"], "FAIL", "No space left", "make room")
        self.assertEqual(status, IO)

    def test_missing(self):
        status, checks = self.doctor([], self.tree, "--log", self.top + "/missing/log")
        self.assert_check(checks["log: file system"], "FAIL", "No such file", "--log")
        self.assertEqual(status, NO_INPUT)

    def test_nothing_can_be_made_durable(self):
        status, checks = self.doctor(without("fdatasync=EINVAL"))
        self.assert_check(checks["log: sync"], "FAIL", "nothing can be made durable", "--log")
        self.assertEqual(status, UNAVAILABLE)

    def test_no_holes(self):
        status, checks = self.doctor(without("punch_hole=EOPNOTSUPP"))
        self.assert_check(checks["log: punch holes"], "WARN", "free no space", "--keep-bytes")
        self.assertEqual(status, 0)

    def test_a_log_is_looked_at_alone(self):
        subprocess.run([QALLOW, "accelerator", "--watch", self.tree, "--log", self.log, "--once"],
                       capture_output=True, check=True)
        _, checks = self.doctor([], self.log)
        self.assertNotIn("tree: file system", checks)
        self.assertIn("log: write", checks)


class Machine(Case):
    def test_userfaultfd(self):
        for error, remedy in (("EPERM", "sandbox"), ("ENOSYS", "CONFIG_USERFAULTFD")):
            status, checks = self.doctor(without(f"userfaultfd={error}"))
            self.assert_check(checks["userfaultfd"], "WARN", "by comparing", remedy)
            self.assert_check(checks["pagemap scan"], "WARN", "by comparing", "Linux 6.7")
            self.assertEqual(status, 0)

    def test_pagemap_scan(self):
        _, there = self.doctor()
        if there["pagemap scan"]["verdict"] != "PASS":
            self.skipTest(f"this machine has none: {there['pagemap scan']['text']}")
        status, checks = self.doctor(without("pagemap_scan=ENOTTY"))
        self.assert_check(checks["userfaultfd"], "PASS", "works")
        self.assert_check(checks["pagemap scan"], "WARN", "Inappropriate ioctl", "Linux 6.7")
        self.assertEqual(status, 0)

    def test_the_kernels_of_choice(self):
        _, checks = self.doctor(QALLOW_CPU_MASK="scalar")
        self.assert_check(checks["cpu"], "PASS", "kernels in use: scalar")

    def test_cuda(self):
        for devices, text in (("0", "CUDA 12.4, 0 devices"), ("1", "1 device; Fake 0 (9.0, 80.0"),
                              ("2", "2 devices; Fake 0 (9.0, 80.0 GiB); Fake 1 (9.0, 80.0 GiB)"),
                              ("-100", "0 devices")):
            _, checks = self.doctor(LD_LIBRARY_PATH=FAKE_CUDA, FAKE_CUDA=devices)
            self.assert_check(checks["cuda"], "PASS", text)
        status, checks = self.doctor(LD_LIBRARY_PATH=FAKE_CUDA, FAKE_CUDA="-803")
        self.assert_check(checks["cuda"], "WARN", "the fake is broken (803)", "nvidia-smi")
        self.assertEqual(status, 0)

    def test_a_driver_that_is_none(self):
        library = os.path.join(self.other, "libcuda.so.1")
        with open(library, "w", encoding="ascii") as file:
            file.write("no library")
        _, checks = self.doctor(LD_LIBRARY_PATH=self.other)
        self.assert_check(checks["cuda"], "PASS", "no driver")
        self.assertIn("none is needed", checks["cuda"]["text"])


def main():
    global QALLOW, WITHOUT, FAKE_CUDA
    QALLOW, WITHOUT, FAKE_CUDA = map(os.path.abspath, sys.argv[1:4])
    unittest.main(argv=[sys.argv[0], *sys.argv[4:]], verbosity=2)


if __name__ == "__main__":
    main()
