#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs command-line tests: shell scripts whose stdout, stderr and exit status are golden files.

    run.py --qallow BINARY [--update] [--keep] [GROUP | GROUP/CASE]...

A case is tests/cli/cases/GROUP/NAME.sh. Beside it may stand
    NAME.stdout.exact, NAME.stderr.exact   the text, byte for byte
    NAME.stdout.glob, NAME.stderr.glob     lines where * and ? match within the line, and a line
                                           "..." stands for any number of lines
    NAME.exit                              the exit status
and what is missing is expected to be empty, or 0. The script runs under `bash -eu` in an empty
folder of its own, with `qallow` first in PATH (also as $QALLOW) and with the file lib.sh of this
folder sourced. Everything it starts must have ended when it ends. If the first line of its stdout
begins with "SKIP " the rest of that line says why the case cannot be tried here.

--update writes what came into .exact and .exit files (look at the diff before you commit it).
"""
import argparse
import concurrent.futures
import difflib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
CASES = HERE / 'cases'
TIMEOUT_S = 400
SKIPPED = 77  # what Meson takes for "skipped"


def glob_to_regex(pattern):
    parts = []
    for line in pattern.split('\n'):
        if line == '...':
            parts.append(r'(?:[^\n]*\n)*')
            continue
        text = ''.join({'*': r'[^\n]*', '?': r'[^\n]'}.get(c) or re.escape(c) for c in line)
        parts.append(text + r'\n')
    # the text after the last newline is a line only if it holds something
    return ''.join(parts[:-1]) + (parts[-1][:-2] if pattern.split('\n')[-1] else '')


def wait_for_group(group, seconds):
    """True if no process of the process group is left within the time."""
    end = time.monotonic() + seconds
    while True:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        if time.monotonic() > end:
            return False
        time.sleep(0.01)


def run_script(script, qallow, scratch):
    """Returns (exit status or a text saying why there is none, stdout, stderr)."""
    bin_dir = scratch / 'bin'
    work = scratch / 'work'
    bin_dir.mkdir()
    work.mkdir()
    (bin_dir / 'qallow').symlink_to(qallow)
    env = {name: value for name, value in os.environ.items()
           if not name.startswith(('QALLOW', 'LC_')) and name not in ('NO_COLOR', 'LANG')}
    env.update(PATH=f'{bin_dir}:{env["PATH"]}', QALLOW=str(qallow), HOME=str(work), TERM='dumb',
               LC_ALL='C.UTF-8', TZ='UTC', TMPDIR=str(scratch),
               QALLOW_CACHE_DIR=str(scratch), CASES=str(script.parent))
    with open(scratch / 'out', 'w+b') as out, open(scratch / 'err', 'w+b') as err:
        process = subprocess.Popen(
            ['bash', '-euc', '. "$0"; . "$1"', str(HERE / 'lib.sh'), str(script)], cwd=work,
            env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)
        try:
            status = process.wait(TIMEOUT_S)
            if status < 0:
                status = 128 - status
            if not wait_for_group(process.pid, 60):
                status = 'it left processes running'
        except subprocess.TimeoutExpired:
            status = f'it did not end within {TIMEOUT_S} s'
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
        out.seek(0)
        err.seek(0)
        return (status, out.read().decode('utf-8', 'surrogateescape'),
                err.read().decode('utf-8', 'surrogateescape'))


def check_stream(script, stream, got, update):
    """None, or a text saying how the stream differs from its golden file."""
    exact = script.with_suffix(f'.{stream}.exact')
    glob = script.with_suffix(f'.{stream}.glob')
    if glob.exists():
        pattern = glob.read_text(encoding='utf-8')
        if re.fullmatch(glob_to_regex(pattern), got):
            return None
        return diff(pattern, got, glob.name)
    want = ''
    if exact.exists():
        want = exact.read_bytes().decode('utf-8', 'surrogateescape')
    if got == want:
        return None
    if update:
        if got:
            exact.write_bytes(got.encode('utf-8', 'surrogateescape'))
        else:
            exact.unlink()
        return None
    return diff(want, got, exact.name)


def check_status(script, status, update):
    path = script.with_suffix('.exit')
    want = int(path.read_text()) if path.exists() else 0
    if status == want:
        return None
    if isinstance(status, str):
        return status
    if update:
        path.write_text(f'{status}\n')
        return None
    return f'exit status {status}, expected {want}'


def diff(want, got, name):
    lines = difflib.unified_diff(want.splitlines(True), got.splitlines(True), name, 'what came')
    text = ''.join(line if line.endswith('\n') else line + '\n\\ no newline\n' for line in lines)
    return text.encode('utf-8', 'backslashreplace').decode()


def run_case(script, arguments):
    """Returns (script, why it was skipped or None, list of problems)."""
    scratch = pathlib.Path(tempfile.mkdtemp(prefix=f'qallow-cli-{script.stem}-'))
    try:
        status, out, err = run_script(script, arguments.qallow, scratch)
        if out.startswith('SKIP '):
            return script, out.splitlines()[0][5:], []
        problems = [check_status(script, status, arguments.update),
                    check_stream(script, 'stdout', out, arguments.update),
                    check_stream(script, 'stderr', err, arguments.update)]
        return script, None, [problem for problem in problems if problem]
    finally:
        if arguments.keep:
            print(f'kept: {scratch}')
        else:
            subprocess.run(['chmod', '-R', 'u+rwX', scratch], check=False)
            shutil.rmtree(scratch, ignore_errors=True)


def find_cases(names):
    scripts = []
    for name in names or ['.']:
        path = CASES / name
        found = sorted(path.rglob('*.sh')) if path.is_dir() else [path.with_suffix('.sh')]
        if not found or not all(script.exists() for script in found):
            sys.exit(f'run.py: no such group or case: {name}')
        scripts += found
    return scripts


def stray_files():
    """Golden files whose script is gone test nothing."""
    for path in sorted(CASES.rglob('*')):
        match = re.fullmatch(r'(.+)\.(exit|std(out|err)\.(exact|glob))', path.name)
        if match and not (path.parent / f'{match[1]}.sh').exists():
            yield path.relative_to(CASES)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--qallow', required=True, type=lambda p: pathlib.Path(p).resolve())
    parser.add_argument('--update', action='store_true')
    parser.add_argument('--keep', action='store_true', help='keep the folders of the cases')
    parser.add_argument('--jobs', type=int, default=2)
    parser.add_argument('names', nargs='*')
    arguments = parser.parse_args()
    if not os.access(arguments.qallow, os.X_OK):
        parser.error(f'{arguments.qallow} is no program')

    scripts = find_cases(arguments.names)
    failed = skipped = 0
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for script, why, problems in pool.map(lambda s: run_case(s, arguments), scripts):
            name = script.relative_to(CASES).with_suffix('')
            if why:
                skipped += 1
                print(f'skipped {name}: {why}')
            elif problems:
                failed += 1
                print(f'FAILED {name}')
                print('\n'.join(problems))
            else:
                print(f'ok {name}')
    for path in stray_files():
        failed += 1
        print(f'FAILED {path}: there is no script for it')
    print(f'{len(scripts) - failed - skipped} passed, {failed} failed, {skipped} skipped')
    if failed:
        return 1
    return SKIPPED if skipped == len(scripts) else 0


if __name__ == '__main__':
    sys.exit(main())
