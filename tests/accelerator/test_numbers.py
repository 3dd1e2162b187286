#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What keepers tell of themselves: --status, of the living and the dead, and the metrics of a
process that keeps several directories.

    test_numbers.py QALLOW [unittest options]
"""
import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

QALLOW = ""


class Case(unittest.TestCase):
    def setUp(self):
        self.directory = os.path.realpath(tempfile.mkdtemp(prefix="qallow-numbers-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.environment = dict(os.environ, QALLOW_CACHE_DIR=self.directory)

    def at(self, *names):
        return os.path.join(self.directory, *names)

    def write(self, name, content="x"):
        os.makedirs(os.path.dirname(self.at(name)), exist_ok=True)
        with open(self.at(name), "w", encoding="utf-8") as file:
            file.write(content)

    def keep(self, *options, ready=1, command=()):
        """A keeper whose directories are ready."""
        process = subprocess.Popen(
            [*command, QALLOW, "accelerator", "--json", *options], env=self.environment,
            cwd=self.directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(self.end, process)
        while ready:
            line = process.stdout.readline()
            if not line:
                self.fail(f"it ended: {process.communicate()[1]}")
            ready -= json.loads(line)["event"] == "ready"
        return process

    def end(self, process):
        if process.poll() is None:
            process.kill()
        process.communicate()

    def ask(self, *options, command=()):
        done = subprocess.run([*command, QALLOW, "accelerator", *options], env=self.environment,
                              cwd=self.directory, capture_output=True, text=True, check=False,
                              timeout=300)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def status(self, *options):
        return json.loads(self.ask("--status", "--json", *options))

    def until(self, holds, what):
        deadline = time.monotonic() + 120
        while not holds():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.01)


class Status(Case):
    def setUp(self):
        super().setUp()
        for number in range(20):
            self.write(f"tree/{number % 4}/{number}", str(number))
        self.write("tree/large")
        os.truncate(self.at("tree/large"), 64 << 20)  # that there is something to be busy with
        # A file that changed within two clock ticks before it was read is read again later.
        changed = os.stat(self.at("tree/large")).st_ctime
        self.until(lambda: time.time() > changed + 0.05, "files that are old")

    def check_bounds(self, status):
        """Returns the time that all workers had. Milliseconds are whole: there may be one more."""
        time_of_all = status["worker_threads"] * status["uptime_ms"]
        self.assertLessEqual(status["worker_busy_ms"], time_of_all + status["worker_threads"])
        self.assertLessEqual(status["worker_utilization_ratio"], 1)
        return time_of_all

    def check_utilization(self, status):
        time_of_all = self.check_bounds(status)
        self.assertGreater(status["worker_busy_ms"], 0)
        self.assertGreater(status["worker_utilization_ratio"], 0)
        self.assertAlmostEqual(status["worker_utilization_ratio"],
                               status["worker_busy_ms"] / time_of_all,
                               delta=2 / time_of_all + 0.0001)

    def at_rest(self, since):
        """Two statuses between which the time of a keeper of files that do not change has more than
        doubled and its workers have done nothing. It is asked for barriers meanwhile: asleep it
        would say nothing new. Whoever polls may take it for changed when it first looks
        again, so the first of them may be later than `since`."""
        rested = later = since

        def idle():
            nonlocal rested, later
            self.ask("--sync", "--watch", "tree")
            later = self.status("--watch", "tree")
            self.assertGreaterEqual(later["worker_busy_ms"], rested["worker_busy_ms"])
            if later["worker_busy_ms"] > rested["worker_busy_ms"]:
                rested = later
            return later["uptime_ms"] > 2 * rested["uptime_ms"] + 100

        self.until(idle, "workers at rest")
        return rested, later

    def test_workers_and_what_is_polled(self):
        keeper = self.keep("--watch", "tree", "--no-log", "--poll", "--threads", "3")
        first = self.status("--watch", "tree")
        self.assertEqual(first["state"], "watching")
        self.assertEqual((first["polled_directories"], first["watches"]), (5, 0))
        self.assertEqual(first["worker_threads"], 3)
        self.check_utilization(first)
        rested, later = self.at_rest(first)
        self.check_utilization(later)
        self.assertLess(later["worker_utilization_ratio"], rested["worker_utilization_ratio"])
        text = self.ask("--status", "--watch", "tree")
        self.assertRegex(text, r"(?m)^worker_utilization_ratio: 0\.\d{4}$")
        self.assertIn("\npolled_directories: 5\n", text)
        keeper.send_signal(signal.SIGKILL)
        keeper.wait()
        dead = self.status("--watch", "tree")
        self.assertEqual((dead["state"], dead["polled_directories"]), ("gone", 5))
        self.check_utilization(dead)
        for name in "uptime_ms", "worker_busy_ms", "worker_utilization_ratio":
            self.assertEqual(self.status("--watch", "tree")[name], dead[name])

    def test_one_that_ended_in_order(self):
        keeper = self.keep("--watch", "tree", "--no-log")
        alive = self.status("--watch", "tree")
        self.assertEqual((alive["polled_directories"], alive["watches"]), (0, 5))
        keeper.send_signal(signal.SIGTERM)
        self.assertEqual(keeper.wait(), 0)
        dead = self.status("--watch", "tree")
        self.assertGreaterEqual(dead["uptime_ms"], alive["uptime_ms"])
        self.assertEqual((dead["state"], dead["watches"]), ("gone", 5))
        self.check_utilization(dead)
        # The next one begins with nothing and reads nothing. How long it looks for that is up to
        # the machine, so one of those that come next must do it in less.
        self.until(lambda: self.busy_of_the_next() < dead["worker_busy_ms"], "a keeper that is new")

    def busy_of_the_next(self):
        keeper = self.keep("--watch", "tree", "--no-log")
        status = self.status("--watch", "tree")
        self.assertEqual(status["files_read_total"], 0)
        self.check_bounds(status)
        keeper.send_signal(signal.SIGTERM)
        self.assertEqual(keeper.wait(), 0)
        return status["worker_busy_ms"]

    def test_the_keeper_of_a_log_says_the_same(self):
        self.keep("--watch", "tree", "--log", "tree.tlog", "--poll", "--threads", "2")
        status = self.status("--log", "tree.tlog")
        self.assertEqual((status["polled_directories"], status["worker_threads"]), (5, 2))
        self.check_utilization(status)
        self.assertRegex(self.ask("--status", "--log", "tree.tlog"),
                         r"(?m)^worker_utilization_ratio: 0\.\d{4}$")
        self.keep("--watch", "tree", "--log", "other.tlog", "--no-cache")
        self.assertNotIn("worker_threads", self.status("--log", "other.tlog"))


class Limit(Case):
    LIMIT = "/proc/sys/user/max_inotify_watches"

    def test_a_limit_that_is_raised_is_seen(self):
        script = f'echo 1000 >{self.LIMIT}; exec "$@"'
        command = ["unshare", "-Ur", "sh", "-c", script, "-"]
        if subprocess.run([*command, "true"], check=False, capture_output=True).returncode:
            self.skipTest("no user namespaces here")
        self.write("tree/file")
        keeper = self.keep("--watch", "tree", "--no-log", "--telemetry-interval", "20ms",
                           "--prometheus", "metrics.prom", command=command)
        inside = ["nsenter", "-U", "--preserve-credentials", "-t", str(keeper.pid)]

        def exported(limit):
            try:
                with open(self.at("metrics.prom"), encoding="utf-8") as file:
                    return re.search(rf"(?m)^qallow_watches_limit\{{.*\}} {limit}$", file.read())
            except FileNotFoundError:
                return False

        for limit in 1000, 2000:
            subprocess.run([*inside, "sh", "-c", f"echo {limit} >{self.LIMIT}"], check=True)
            status = self.ask("--status", "--watch", "tree", command=inside)
            self.assertIn(f"\nwatches_limit: {limit}\n", status)
            self.until(lambda: exported(limit), "the limit in the metrics")


class Lifecycle(Case):
    def test_a_reload_is_said(self):
        for reload in ("signal", "ignore file"):
            self.write("tree/file")
            keeper = self.keep("--watch", "tree", "--no-log", "--verbose", "--settle", "1ms")

            def rescans():
                return self.status("--watch", "tree")["watch_rescans_total"]

            self.assertEqual(rescans(), 0)
            if reload == "signal":
                keeper.send_signal(signal.SIGHUP)
            else:
                self.write("tree/.qallowignore", "*.o")
            self.until(lambda: rescans() > 0, "a rescan")
            keeper.send_signal(signal.SIGTERM)
            said = keeper.communicate()[1]
            self.assertIn("the ignore files of tree are read again: the whole tree is looked at "
                          "again\n", said)


SAMPLE = re.compile(r'qallow_(\w+)\{process="([^"]*)"(?:,(\w+)="([^"]*)")?\} (\S+)')


class SeveralTrees(Case):
    PER_TREE = {"cache_files": [3, 1, 2], "watches": [2, 1, 1], "cache_bytes": [6, 2, 4]}

    def rows(self):
        """The rows of the newest write that is whole, since another one follows: {metric:
        [(label, value)]}"""
        with open(self.at("metrics.csv"), encoding="utf-8", newline="") as file:
            text = file.read()
        rows = list(csv.DictReader(io.StringIO(text[:text.rfind("\n") + 1], newline="")))
        times = list(dict.fromkeys(row["time"] for row in rows))
        found = {}
        for row in rows:
            if row["time"] == times[-2]:
                found.setdefault(row["metric"], []).append((row["label"], float(row["value"])))
        return {metric: sorted(values) for metric, values in found.items()}

    def samples(self):
        """The same of the Prometheus text, and the processes that are named."""
        found, processes = {}, set()
        with open(self.at("metrics.prom"), encoding="utf-8") as file:
            for line in file:
                if line.startswith("#"):
                    continue
                match = SAMPLE.fullmatch(line[:-1])
                self.assertTrue(match, line)
                processes.add(match[2])
                if match[3] != "le":
                    found.setdefault(match[1], []).append((match[4] or "", float(match[5])))
        return {metric: sorted(values) for metric, values in found.items()}, processes

    def check(self, trees, hits):
        """Do both files say this by now?"""
        try:
            rows, (samples, processes) = self.rows(), self.samples()
        except (FileNotFoundError, IndexError):
            return False
        self.assertEqual(processes, {self.at("one")})
        for metric, values in self.PER_TREE.items():
            if not rows.get(metric) == samples.get(metric) == sorted(zip(trees, values)):
                return False
        return rows["cache_hits"] == samples["cache_hits"] == sorted(zip(trees, hits))

    def test_each_has_its_gauges_and_the_process_its_counters(self):
        for name in "one/a", "one/b", "one/sub/c", "two, 2/d", "three/e", "three/f":
            self.write(name, "1\n")
        trees = [self.at(name) for name in ("one", "two, 2", "three")]
        self.keep("--watch", "one", "--watch", "./two, 2/", "--watch", trees[2], "--no-log",
                  "--threads", "2", "--telemetry", "metrics.csv", "--prometheus", "metrics.prom",
                  "--telemetry-interval", "20ms", ready=3)
        self.until(lambda: self.check(trees, [0, 0, 0]), "a row for each of three trees")
        # the other keepers sleep meanwhile
        for _ in range(4):
            self.ask("--watch", "three", "--get", "e")
        self.ask("--watch", "two, 2", "--get", "d")
        self.until(lambda: self.check(trees, [0, 1, 4]), "hits of each")
        rows, (samples, _) = self.rows(), self.samples()
        for found in rows, samples:
            self.assertEqual(len(found["watch_events_total"]), 1)
            self.assertEqual([label for label, _ in found["files_read_total"]], [""])
            self.assertGreaterEqual(found["files_read_total"][0][1], 6)
            self.assertEqual([label for label, _ in found["per_worker_utilization_ratio"]],
                             list("012345"))
            self.assertEqual([value for _, value in found["worker_threads"]], [2, 2, 2])
            busy = sum(value for _, value in found["per_worker_busy_seconds_total"])
            self.assertAlmostEqual(busy, found["worker_busy_seconds_total"][0][1])
            for _, uptime in found["uptime_seconds"]:
                self.assertGreater(uptime, 0)


def main():
    global QALLOW
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    QALLOW = os.path.abspath(sys.argv.pop(1))
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # below nohup a keeper would not hear it
    unittest.main()


if __name__ == "__main__":
    main()
