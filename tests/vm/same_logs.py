#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The same programs and inputs give the same logs, byte for byte.

    same_logs.py BUILD...

Runs the programs of examples/ with the qallow of every build folder, with each set of kernels and
with one and two threads, and compares the logs with the first one's; also of a run that is resumed
at a random epoch, and of one that is patched. If the folders have tests, random programs are run,
too (vm-differential), and the digests of all their states compared. QALLOW_SEED repeats a run;
QALLOW_VM_PROGRAMS is how many random programs there are.
"""
import os
import pathlib
import random
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
SAME = ['--uuid', '00112233445566778899aabbccddeeff', '--clock', 'logical', '--sync', 'none']
TICKS = {'life': 30, 'nbody': 30, 'sensors': 20}  # of those that do not halt by themselves
MASKS = ['scalar', 'avx2', 'avx512']


def programs():
    """Name, arguments that say what to run."""
    for path in sorted((ROOT / 'examples').glob('*.qvm')):
        text = path.read_text(encoding='utf-8')
        arguments = [path]
        for line in text.splitlines():
            if line.split()[:1] == ['.input']:
                arguments += ['--input', f'{line.split()[1]}=input']
        if '\n    halt' not in text:
            arguments += ['--ticks', str(TICKS.get(path.stem, 10))]
        yield path.stem, arguments


def run(qallow, folder, arguments, mask, threads):
    env = dict(os.environ, QALLOW_CPU_MASK=mask)
    result = subprocess.run([qallow, 'vm', *arguments, '--threads', str(threads)], cwd=folder,
                            env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, (arguments, result.stdout, result.stderr)
    return result.stdout


def log_of(qallow, folder, arguments, mask, threads, split):
    """The log of a run; in two pieces, if `split` is where the first one ends."""
    for path in folder.glob('x.tlog*'):
        path.unlink()
    said = run(qallow, folder, [*arguments, '--log', 'x.tlog', *SAME], mask, threads)
    if split:
        said += run(qallow, folder, ['--resume', 'x.tlog', *SAME[2:], *split], mask, threads)
    return (folder / 'x.tlog').read_bytes(), said


def patch_of(text, folder):
    """The program with a nop at the end of each line that ends a tick: other words everywhere."""
    (folder / 'patch.qvm').write_text(text.replace('    commit\n', '    nop\n    commit\n'),
                                      encoding='utf-8')
    return ['--patch', 'patch.qvm', '--ticks', '3']


def compare(builds, folder, name, arguments, split):
    """How many logs were compared with the first."""
    wanted, count = None, 0
    for build in builds:
        for mask in MASKS:
            for threads in (1, 2):
                got = log_of(build / 'interface' / 'qallow', folder, arguments, mask, threads,
                             split)
                wanted = wanted or got
                assert got[1] == wanted[1], (name, build, mask, threads, wanted[1], got[1])
                assert got[0] == wanted[0], f'{name}: {build}, {mask}, {threads} threads: ' \
                    'another log'
                count += 1
    return count


def compare_random(builds):
    """The digests of the states of random programs; 0 if there are no tests."""
    digests, count = set(), 0
    for build in builds:
        for mask in MASKS:
            tool = build / 'tests' / 'vm' / 'vm-differential'
            if tool.exists():
                text = subprocess.run([tool], env=dict(os.environ, QALLOW_CPU_MASK=mask),
                                      capture_output=True, text=True, check=True).stdout
                digests.add(text.split()[-1])
                count += 1
    assert len(digests) <= 1, digests
    return count


def main(builds):
    seed = int(os.environ.get('QALLOW_SEED', '1'))
    print(f'QALLOW_SEED={seed}')
    chosen = random.Random(seed)
    count = 0
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        (folder / 'input').write_bytes(chosen.randbytes(16384))
        for name, arguments in programs():
            count += compare(builds, folder, name, arguments, None)
            if '--ticks' not in arguments:
                continue
            ticks = int(arguments[-1])
            first = chosen.randrange(1, ticks)
            some = [*arguments[:-1], str(first)]
            count += compare(builds, folder, name, some, ['--ticks', str(ticks - first)])
            count += compare(builds, folder, name, some,
                             patch_of(arguments[0].read_text(encoding='utf-8'), folder))
    print(f'{count} logs and {compare_random(builds)} runs of random programs: the same')


if __name__ == '__main__':
    main([pathlib.Path(argument).resolve() for argument in sys.argv[1:]])
