#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the encoders write, judged by a parser that shares no code with them.

The Prometheus text is held against the grammar and the rules of exposition format 0.0.4, both
encoders against golden files, and the file that is replaced is read while that happens.

    test_text.py FEED [--update] [TEST...]

FEED is the program of feed.c. --update writes golden.csv and golden.prom anew. QALLOW_SEED=N
repeats a run.
"""
import bisect
import csv
import errno
import fcntl
import io
import math
import os
import random
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import unittest

FEED = ""
HERE = os.path.dirname(os.path.abspath(__file__))
SEED = int(os.environ.get("QALLOW_SEED", random.SystemRandom().randrange(1 << 32)))
TEMPORARY = ".qallow-tmp"

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
HELP_LINE = re.compile(rf"# HELP ({NAME}) ((?:[^\\\n]|\\[\\n])*)")
TYPE_LINE = re.compile(rf"# TYPE ({NAME}) (counter|gauge|histogram|summary|untyped)")
SAMPLE_LINE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? (\S+)")


class Wrong(Exception):
    """The text breaks the format."""


class Family:
    def __init__(self, name):
        self.name, self.kind, self.samples = name, None, {}


def unescape(text):
    return re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], text)


def number(text):
    if not re.fullmatch(r"\d+(\.\d+)?|\+Inf", text):  # all that our values ever need
        raise Wrong(f"not a value: {text}")
    return float(text)


def sample(line, families):
    """Puts one sample into the family that has just been announced."""
    match = SAMPLE_LINE.fullmatch(line)
    if not match:
        raise Wrong(f"not a line of the format: {line!r}")
    family = families[-1] if families else Family("")
    endings = ["_bucket", "_sum", "_count"] if family.kind == "histogram" else [""]
    if family.kind is None or match[1] not in [family.name + ending for ending in endings]:
        raise Wrong(f"{match[1]} without its TYPE right before it")
    labels = [(part.split("=")[0], unescape(part.split("=", 1)[1][1:-1]))
              for part in re.findall(LABEL, match[2] or "")]
    if len(dict(labels)) != len(labels):
        raise Wrong(f"a label twice: {line}")
    key = (match[1], tuple(labels))
    if key in family.samples:
        raise Wrong(f"a sample twice: {line}")
    family.samples[key] = number(match[3])


def check_histogram(family):
    """Buckets in order, never falling, the last one infinite and equal to the count."""
    buckets = [(number(dict(labels)["le"]), value)
               for (name, labels), value in family.samples.items() if name.endswith("_bucket")]
    bounds, counts = [b for b, _ in buckets], [c for _, c in buckets]
    if bounds != sorted(set(bounds)) or counts != sorted(counts):
        raise Wrong(f"{family.name}: buckets out of order")
    if not bounds or bounds[-1] != math.inf:
        raise Wrong(f"{family.name}: no bucket for all")
    rest = {name: value for (name, _), value in family.samples.items()}
    if rest.get(family.name + "_count") != counts[-1] or family.name + "_sum" not in rest:
        raise Wrong(f"{family.name}: count or sum")


def parse(data):
    """Families by name; raises Wrong if the bytes are not a whole text of the format."""
    families, helped = [], set()
    text = data.decode("utf-8")
    if not text.endswith("\n"):
        raise Wrong("the last line does not end")
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP"):
            match = HELP_LINE.fullmatch(line)
            if not match or match[1] in helped:
                raise Wrong(f"HELP: {line}")
            helped.add(match[1])
            families.append(Family(match[1]))
        elif line.startswith("#"):
            match = TYPE_LINE.fullmatch(line)
            if not match or not families or families[-1].name != match[1] or families[-1].kind:
                raise Wrong(f"TYPE: {line}")
            families[-1].kind = match[2]
        else:
            sample(line, families)
    for family in families:
        if family.kind == "histogram":
            check_histogram(family)
        if not family.samples:
            raise Wrong(f"{family.name}: no samples")
    return {family.name: family for family in families}


def feed(*arguments, given="", **more):
    done = subprocess.run([FEED, *arguments], input=given.encode(), stdout=subprocess.PIPE,
                          check=True, **more)
    return done.stdout


def golden_values():
    with open(os.path.join(HERE, "golden.values"), encoding="utf-8") as file:
        return file.read()


GOLDEN = {  # 2026-01-31T23:59:59.123Z
    "golden.csv": lambda: feed("csv", "1769903999123456789", given=golden_values()),
    "golden.prom": lambda: feed("prometheus", '/srv/a "b"\\c', given=golden_values()),
}


class Text(unittest.TestCase):
    def test_golden_files(self):
        for name, make in GOLDEN.items():
            with self.subTest(name), open(os.path.join(HERE, name), "rb") as file:
                self.assertEqual(make().decode(), file.read().decode(), "see --update")

    def test_prometheus_text_is_of_the_format(self):
        for process in [], ["/srv"], ['a\\b"c\nd'], ["\u00e4\u2028"], [""]:
            for given in "", golden_values():
                families = parse(feed("prometheus", *process, given=given))
                self.assertGreater(len(families), 30)
                for family in families.values():
                    self.assertTrue(family.name.startswith("qallow_"))
                    self.assertEqual(family.kind == "counter", family.name.endswith("_total"))
                    for _, labels in family.samples:
                        self.assertEqual(dict(labels).get("process"),
                                         process[0] if process else None)

    def test_both_encoders_say_the_same(self):
        families = parse(feed("prometheus", given=golden_values()))
        rows = list(csv.DictReader(io.StringIO(GOLDEN["golden.csv"]().decode())))
        seen = set()
        for row in rows:
            family = families["qallow_" + row["metric"]]
            name, labels = family.name, ()
            if family.kind == "histogram":
                if row["label"] not in ("sum", "count"):
                    continue
                name += "_" + row["label"]
            elif row["label"]:
                labels = (("worker" if row["label"].isdigit() else "tree", row["label"]),)
            self.assertEqual(family.samples[name, labels], float(row["value"]), row)
            seen.add(family.name)
        self.assertEqual(seen, set(families))

    def test_each_tree_has_its_own(self):
        given = golden_values()
        names = re.findall(r"(?m)^tree (.*)", given)
        families = parse(feed("prometheus", "p", given=given))
        self.assertEqual(list(families["qallow_cache_files"].samples), [
            ("qallow_cache_files", (("process", "p"), ("tree", name))) for name in names])
        self.assertEqual(list(families["qallow_cache_files"].samples.values()), [11, 21])
        self.assertEqual(list(families["qallow_watches"].samples.values()), [12, 0])
        self.assertEqual(list(families["qallow_uptime_seconds"].samples.values()), [0, 1.5])
        # what is of the process is there once
        self.assertEqual(len(families["qallow_log_commits_total"].samples), 1)
        rows = csv.DictReader(io.StringIO(GOLDEN["golden.csv"]().decode()))
        self.assertEqual([(row["label"], row["value"]) for row in rows
                          if row["metric"] == "cache_files"], list(zip(names, ["11", "21"])))

    def test_workers_have_a_label(self):
        families = parse(feed("prometheus", "t", given=golden_values()))
        family = families["qallow_per_worker_busy_seconds_total"]
        self.assertEqual(list(family.samples.values()), [1, 0, 2.000000001])
        self.assertEqual([dict(labels)["worker"] for _, labels in family.samples], list("012"))
        total = families["qallow_worker_busy_seconds_total"]
        self.assertEqual(list(total.samples.values()), [3.000000001])
        self.assertNotIn("qallow_per_worker_busy_seconds_total", parse(feed("prometheus")))

    def test_counts_at_the_bounds_are_exact(self):
        chance = random.Random(SEED)
        values = [chance.getrandbits(chance.randrange(1, 40)) for _ in range(2000)]
        values += [(1 << n) + d for n in range(8, 40) for d in (-1, 0, 1)]
        given = "".join(f"observe event_to_cache_seconds {value}\n" for value in values)
        family = parse(feed("prometheus", given=given))["qallow_event_to_cache_seconds"]
        values.sort()
        finite = 0
        for (name, labels), count in family.samples.items():
            if name.endswith("_bucket") and dict(labels)["le"] != "+Inf":
                nanoseconds = int(dict(labels)["le"].replace(".", ""))
                self.assertEqual(count, bisect.bisect_right(values, nanoseconds), f"seed {SEED}")
                finite += 1
        self.assertGreater(finite, 20)
        self.assertEqual(family.samples["qallow_event_to_cache_seconds_count", ()], len(values))
        self.assertAlmostEqual(family.samples["qallow_event_to_cache_seconds_sum", ()],
                               sum(values) / 1e9)

    def test_the_parser_sees_what_is_wrong(self):
        good = feed("prometheus", "t", given=golden_values()).decode()
        parse(good.encode())
        lines = good.splitlines(keepends=True)
        at = next(i for i, line in enumerate(lines) if "_bucket" in line)
        damaged = [
            good[:-1], good[:-20], good + "\n", "".join(lines[1:]), "".join([lines[1]] + lines),
            "".join(lines + lines[:3]), good.replace("# TYPE", "#TYPE", 1),
            "".join(lines[:at] + [lines[at + 1], lines[at]] + lines[at + 2:]),
            "".join(lines[:at + 9] + [lines[at + 9]] + lines[at + 9:]),
            good.replace('le="+Inf"} 7', 'le="+Inf"} 8'), good.replace('le="+Inf"', 'le="9999"'),
            good.replace('process="t"', 'process="t""', 1),
            good.replace('process="t"', 'process=t', 1),
            good.replace(" 17\n", " 17x\n"), good.replace(" 17\n", "17\n"),
            good.replace("qallow_pages{", "qallow-pages{"), good.replace("_sum{", "_some{"),
        ]
        for text in damaged:
            self.assertNotEqual(text, good)
            with self.assertRaises(Wrong, msg=text):
                parse(text.encode())


class Replacement(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="qallow-text-")
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = os.path.join(self.directory, "qallow.prom")
        self.temporary = self.path + TEMPORARY

    def write(self, path=None, verb="write", **more):
        """The errno of one write, 0 if it was done."""
        return -int(feed(verb, path or self.path, given=golden_values(), **more))

    def put(self, path, content):
        with open(path, "wb") as file:
            file.write(content)

    def content(self, path=None):
        with open(path or self.path, "rb") as file:
            return file.read()

    def names(self):
        return sorted(os.listdir(self.directory))

    def test_the_file_is_replaced(self):
        for before in None, b"", b"something else\n" * 1000:
            if before is not None:
                self.put(self.path, before)
            self.assertEqual(self.write(), 0)
            self.assertEqual(self.content(), feed("prometheus", given=golden_values()))
            self.assertEqual(self.names(), ["qallow.prom"])

    def test_its_mode_is_that_of_the_umask(self):
        for mask in 0o022, 0o077:
            self.assertEqual(self.write(preexec_fn=lambda: os.umask(mask)), 0)
            self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o666 & ~mask)

    def test_the_process_is_a_label(self):
        feed("write", self.path, "/srv")
        for family in parse(self.content()).values():
            for _, labels in family.samples:
                self.assertEqual(labels[0], ("process", "/srv"))

    def versions(self, writer, wanted):
        """Reads the file until it has had so many contents; each must be whole and newer."""
        seen, last = 0, 0
        while seen < wanted:
            self.assertIsNone(writer.poll(), "the writer has ended")
            try:
                families = parse(self.content())
            except FileNotFoundError:
                self.assertEqual(last, 0, "there was a file, and now there is none")
                continue
            rounds = {value for family in families.values() if family.kind != "histogram"
                      for value in family.samples.values()}
            self.assertEqual(len(rounds), 1, "values of two texts in one")
            now = rounds.pop()
            self.assertGreaterEqual(now, last, "an older text")
            seen, last = seen + (now > last), now

    def test_readers_never_see_a_part(self):
        with subprocess.Popen([FEED, "replace", self.path], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) as writer:
            try:
                self.versions(writer, 200)
            finally:
                out = writer.communicate()[0]
        self.assertEqual(out, b"0\n")
        self.assertEqual(self.names(), ["qallow.prom"])

    def test_a_killed_writer_leaves_the_file_whole(self):
        for _ in range(20):
            with subprocess.Popen([FEED, "replace", self.path], stdin=subprocess.PIPE) as writer:
                try:
                    self.versions(writer, 1)
                finally:
                    writer.send_signal(signal.SIGKILL)
            parse(self.content())
            self.assertEqual(self.write(), 0)
            self.assertEqual(self.names(), ["qallow.prom"])
            os.unlink(self.path)

    def test_what_a_killed_writer_left_is_used_again(self):
        self.put(self.temporary, b"x" * 1000000)
        self.assertEqual(self.write(), 0)
        parse(self.content())
        self.assertEqual(self.names(), ["qallow.prom"])

    def test_two_writers_exclude_each_other(self):
        self.put(self.path, b"old")
        self.put(self.temporary, b"of the other one")
        with open(self.temporary, "rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            self.assertEqual(self.write(), errno.EBUSY)
            self.assertEqual(self.content(self.temporary), b"of the other one")
            self.assertEqual(self.content(), b"old")
        self.assertEqual(self.write(), 0)

    def test_a_temporary_name_that_is_not_ours_is_left_alone(self):
        precious = os.path.join(self.directory, "precious")
        self.put(precious, b"precious")
        for make, expected in (os.symlink, errno.ELOOP), (os.link, errno.EEXIST):
            make(precious, self.temporary)
            self.assertEqual(self.write(), expected)
            self.assertEqual(self.content(precious), b"precious")
            self.assertEqual(self.names(), ["precious", "qallow.prom" + TEMPORARY])
            os.unlink(self.temporary)

    def test_what_is_no_file_is_not_replaced(self):
        os.mkfifo(self.path)
        self.assertEqual(self.write(), errno.ENOTSUP)
        self.assertTrue(stat.S_ISFIFO(os.stat(self.path).st_mode))
        os.unlink(self.path)
        os.symlink("/dev/null", self.path)
        self.assertEqual(self.write(), errno.ENOTSUP)
        self.assertTrue(os.path.islink(self.path))
        os.unlink(self.path)
        os.mkdir(self.path)
        self.assertEqual(self.write(), errno.EISDIR)
        self.assertEqual(self.names(), ["qallow.prom"])

    def test_a_directory_that_cannot_be_written(self):
        self.assertEqual(self.write(os.path.join(self.directory, "none", "x")), errno.ENOENT)
        self.put(self.path, b"old")
        self.assertEqual(self.write(os.path.join(self.path, "x")), errno.ENOTDIR)
        self.assertEqual(self.write(self.path + "x" * 240), errno.ENAMETOOLONG)
        os.chmod(self.directory, 0o555)
        try:
            self.assertEqual(self.write(verb="write-as-nobody"), errno.EACCES)
        finally:
            os.chmod(self.directory, 0o755)
        self.assertEqual(self.names(), ["qallow.prom"])
        self.assertEqual(self.content(), b"old")

    def test_a_full_disk(self):
        def limit():  # Python has SIGXFSZ ignored, and so the child has
            resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
        self.put(self.path, b"old")
        self.assertEqual(self.write(preexec_fn=limit, restore_signals=False), errno.EFBIG)
        self.assertEqual(self.names(), ["qallow.prom"])
        self.assertEqual(self.content(), b"old")


def main():
    global FEED
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    FEED = os.path.abspath(sys.argv.pop(1))
    if sys.argv[1:] == ["--update"]:
        for name, make in GOLDEN.items():
            with open(os.path.join(HERE, name), "wb") as file:
                file.write(make())
        return
    unittest.main()


if __name__ == "__main__":
    main()
