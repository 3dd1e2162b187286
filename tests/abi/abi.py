#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The symbols of the libraries.

    abi.py SHARED STATIC INCLUDE

The shared library exports exactly the functions that the headers in INCLUDE mark QALLOW_API; what
the static one defines has a prefix of the house, so that it clashes with nobody's names.
"""
import pathlib
import re
import subprocess
import sys

PREFIXES = re.compile(r'(qallow|qr|qb|qt|qs|qa|qv)_')
SANITIZERS = re.compile(r'__(odr_)?(asan|ubsan|tsan|lsan|sanitizer)|\.lto_priv')
# Templates of CUB: weak, in a namespace of their version, hidden in the shared library.
TEMPLATES = re.compile(r'_Z\w*(3cub|4cuda3std|6thrust)')
LINKER = {'_init', '_fini', '_edata', '_end', '__bss_start'}


def symbols(*command):
    lines = subprocess.check_output(['nm', *command], text=True).splitlines()
    names = {line.split()[2].split('@')[0] for line in lines if len(line.split()) == 3}
    return {name for name in names
            if not SANITIZERS.match(name) and not TEMPLATES.match(name)} - LINKER


def declared(include):
    names = set()
    for header in sorted(pathlib.Path(include).rglob('*.h')):
        text = re.sub(r'/\*.*?\*/', ' ', header.read_text('utf-8'), flags=re.S)
        names |= set(re.findall(r'^QALLOW_API\b[^;{]*?\b(\w+)\s*\(', text, re.M))
    return names


def main(shared, static, include):
    exported, promised = symbols('-D', '--defined-only', shared), declared(include)
    problems = [f'{name} is exported, but no public header declares it'
                for name in sorted(exported - promised)]
    problems += [f'{name} is declared in a public header, but not exported'
                 for name in sorted(promised - exported)]
    problems += [f'{name} is exported without the prefix qallow_'
                 for name in sorted(exported) if not name.startswith('qallow_')]
    problems += [f'{name} in the static library has no prefix of the house'
                 for name in sorted(symbols('-g', '--defined-only', static))
                 if not PREFIXES.match(name)]
    print('\n'.join(problems))
    print(f'{len(exported)} functions exported, {len(problems)} problems')
    return 1 if problems or not exported else 0


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
