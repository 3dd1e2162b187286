#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The golden logs mean what they meant when they were made.

    test_golden.py GOLDEN-DIRECTORY           the Python reader, and the generator
    test_golden.py GOLDEN-DIRECTORY QALLOW    the command, compared with the Python reader too"""

import json
import os
import shutil
import subprocess
import sys
import tempfile

from qallow_reader import (
    DIRECTORY, FILE, SYMLINK, Log, LogError, NewerVersion, NotALog, hex128, restore)
from trees import difference, tree


def outcome_of(path):
    """The outcome in the words of the manifest, and the log if there is one."""
    try:
        log = Log(path)
        return log.outcome, log
    except NewerVersion:
        return "newer", None
    except NotALog:
        return "not a log", None
    except LogError:
        return "damaged", None


def path_of(pages, page):
    path = page.name
    while page.parent:
        page = pages[page.parent]
        path = page.name + b"/" + path
    return os.fsdecode(path)


def describe(state):
    """A state as the manifest has it."""
    return {path_of(state.pages, page): [page.kind, f"{page.mode:04o}", page.mtime,
                                         len(page.content), page.content]
            for page in state.pages.values()}


def same_page(wanted, found):
    shown = bytes.fromhex(wanted[4])
    return wanted[:4] == found[:4] and \
        (found[4] == shown if wanted[3] <= 40 else found[4].startswith(shown))


def check_reader(entry, path):
    outcome, log = outcome_of(path)
    assert outcome == entry["outcome"], f"the outcome is {outcome}"
    if outcome not in ("clean", "torn"):
        return
    log.verify()
    assert {os.fsdecode(name): epoch for name, epoch in log.labels().items()} == entry["labels"]
    epochs = 0
    for epoch, state in log.replay():
        wanted = entry["epochs"][str(epoch.epoch)]
        assert (epoch.time, hex128(epoch.digest)) == (wanted["time"], wanted["digest"])
        found = describe(state)
        assert found.keys() == wanted["pages"].keys(), f"other pages in epoch {epoch.epoch}"
        for name, page in wanted["pages"].items():
            assert same_page(page, found[name]), f"{name} differs in epoch {epoch.epoch}"
        epochs += 1
    assert epochs == len(entry["epochs"])


def check_generator(golden, entries):
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run([sys.executable, os.path.join(golden, "generate.py"), directory], check=True)
        for entry in entries:
            if not entry["compressed"]:
                with open(os.path.join(golden, entry["file"]), "rb") as one, \
                        open(os.path.join(directory, entry["file"]), "rb") as other:
                    assert one.read() == other.read(), f"generate.py makes another {entry['file']}"


# --- the command ---------------------------------------------------------------------------------

def run(qallow, *args):
    done = subprocess.run([qallow, *args], capture_output=True, timeout=300)
    return done.returncode, done.stdout, done.stderr.decode(errors="replace")


def check_listed(qallow, entry, path):
    code, out, err = run(qallow, "replay", path, "--list", "--json")
    assert code == 0, f"--list ends with {code}: {err}"
    listed = {str(line["epoch"]): line["digest"] for line in epochs_of(out)}
    wanted = {epoch: said["digest"] for epoch, said in entry["epochs"].items()}
    assert listed == wanted, f"--list says {listed}"


def epochs_of(out):
    lines = [json.loads(line) for line in out.splitlines()]
    if len(lines) == 1 and "epochs" in lines[0]:
        return lines[0]["epochs"]
    return [line for line in lines if "epoch" in line]


def check_restored(qallow, path, directory):
    """Both readers restore every epoch; a bit in a mode, a nanosecond or a byte would show."""
    log = Log(path)
    for epoch, state in log.replay():
        if not any(page.kind in (FILE, DIRECTORY, SYMLINK) for page in state.pages.values()):
            continue
        mine, its = os.path.join(directory, "python"), os.path.join(directory, "c")
        restore(state, mine)
        code, _, err = run(qallow, "replay", path, "--epoch", str(epoch.epoch), "--output", its)
        assert code == 0, f"restoring epoch {epoch.epoch} ends with {code}: {err}"
        differs = difference(tree(mine), tree(its))
        assert not differs, f"epoch {epoch.epoch} restored: {differs}"
        shutil.rmtree(mine)
        shutil.rmtree(its)


def check_command(qallow, entry, path, directory):
    code, _, err = run(qallow, "replay", path, "--verify")
    assert code == entry["verify"], f"--verify ends with {code}, not {entry['verify']}: {err}"
    if entry["outcome"] in ("clean", "torn"):
        check_listed(qallow, entry, path)
        check_restored(qallow, path, directory)
    else:
        code, _, err = run(qallow, "replay", path, "--epoch", "1", "--output",
                           os.path.join(directory, "none"))
        assert code == entry["verify"] and not os.path.exists(os.path.join(directory, "none"))
        assert err.strip().count("\n") <= 1, f"more than a line and a hint: {err}"


def main():
    golden, qallow = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    with open(os.path.join(golden, "manifest.json"), encoding="ascii") as file:
        entries = json.load(file)
    failed = 0
    if not qallow:
        check_generator(golden, entries)
    for entry in entries:
        path = os.path.join(golden, entry["file"])
        with tempfile.TemporaryDirectory() as directory:
            try:
                if qallow:
                    # On a copy: whoever reads a log may put an index beside it.
                    path = shutil.copy(path, directory)
                    check_command(qallow, entry, path, directory)
                else:
                    check_reader(entry, path)
            except (AssertionError, LogError, subprocess.TimeoutExpired) as error:
                print(f"{entry['file']} ({entry['what']}): {error!r}")
                failed += 1
    print(f"{len(entries)} logs, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
