#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The rules of the house that a program can check. CONTRIBUTING.md says them in words.

    tidy.py [--root DIR] [--cc 'CC ARGS'] [CHECK]...

Prints one line for each breach, "file:line: what is wrong and what to do instead", and fails if
there is any. Without names all checks run.
"""
import argparse
import pathlib
import re
import shlex
import subprocess
import sys

MAX_COLUMNS, MAX_FUNCTION, MAX_FILE = 100, 70, 800
RATCHET = 'tests/tidy/ratchet.txt'

# Which folders a folder may include. Arrows point down only.
BELOW = {
    'include': set(),
    'backend': {'include'},
    'telemetry': {'include'},
    'runtime': {'include', 'backend', 'telemetry'},
    'sources': {'include', 'backend', 'telemetry', 'runtime'},
    'accelerator': {'include', 'backend', 'telemetry', 'runtime', 'sources'},
    'vm': {'include', 'backend', 'telemetry', 'runtime', 'sources'},
    'bench': {'include', 'backend', 'telemetry', 'runtime', 'sources', 'accelerator', 'vm'},
    'interface': {'include', 'backend', 'telemetry', 'runtime', 'sources', 'accelerator', 'vm',
                  'bench'},
    'examples': {'include'},
}
# Headers that are code with parameters: whoever includes one defines what it is made of.
TEMPLATES = {'backend/cpu/apply.h', 'backend/cpu/diff.h', 'backend/cpu/hash.h',
             'backend/cpu/hash_fours.h', 'backend/cpu/vector.h',
             'backend/cpu/vector_type.h', 'vm/interpret_loop.h'}
LIBRARY = {'backend', 'telemetry', 'runtime', 'sources', 'accelerator', 'vm', 'bench'}

# System headers that only some folders may know.
HEADERS = [
    (r'termios\.h|n?curses\.h|getopt\.h|argp\.h', {'interface'},
     'only interface/ knows a terminal or a command line'),
    (r'cuda.*|cub/.*', {'backend'}, 'only backend/ knows CUDA'),
    (r'cpuid\.h|\w*intrin\.h|arm_neon\.h', {'backend'}, 'only backend/ knows processors'),
]

# Calls: (names, folders where they are banned or None for all, files excepted, what to do instead)
CALLS = [
    ('strcpy strcat sprintf vsprintf gets strncpy strncat stpcpy', None, (),
     'use snprintf, or memcpy with a known length'),
    ('atoi atol atoll atof sscanf', LIBRARY | {'interface'}, (),
     'use qi_parse_number, or a cursor of runtime/bytes.h: overflow must be seen'),
    ('strtok', None, (), 'it keeps hidden state: use strcspn or a cursor'),
    ('rand srand random drand48', None, (), 'use os->random, or a seed that is printed'),
    ('alloca', None, (), 'use an array of fixed size or qr_malloc'),
    ('gmtime localtime ctime asctime', None, (), 'use the _r version'),
    ('system popen', LIBRARY | {'interface', 'examples'}, (), 'use posix_spawn without a shell'),
    ('sleep usleep', None, (), 'wait for the condition itself'),
    ('exit _exit abort', LIBRARY, ('runtime/error.c',), 'a library returns its errors'),
    ('printf puts putchar perror fprintf vfprintf fputs dprintf', LIBRARY, ('telemetry/log.c',),
     'a library never prints: return an error, or use qt_log'),
    ('isatty', LIBRARY, (), 'only interface/ knows a terminal'),
    ('__builtin_cpu_supports __builtin_cpu_init', set(BELOW) - {'backend'}, (),
     'only backend/ knows processors'),
    ('malloc calloc realloc free strdup strndup', {'runtime', 'sources'}, ('runtime/memory.c',),
     'use qr_malloc and its family, so that tests can fail the n-th call'),
    ('fopen open openat pread pwrite read write fsync fdatasync ftruncate fallocate unlink '
     'rename clock_gettime gettimeofday time getrandom mmap', {'runtime'},
     ('runtime/os_posix.c', 'runtime/map.c'),
     'go through the table of runtime/os.h'),
]


class Tree:
    """The files of the repository, read once."""

    def __init__(self, root):
        self.root = root
        try:
            names = subprocess.check_output(
                ['git', '-C', root, 'ls-files', '-z', '--cached', '--others',
                 '--exclude-standard'], stderr=subprocess.DEVNULL).decode().split('\0')
        except (OSError, subprocess.CalledProcessError):  # an unpacked archive
            names = [str(p.relative_to(root)) for p in root.rglob('*') if p.is_file()]
        self.names = sorted({n for n in names if n and not n.startswith('build')
                             and (root / n).is_file() and not (root / n).is_symlink()})
        self.texts, self.codes = {}, {}

    def text(self, name):
        if name not in self.texts:
            self.texts[name] = (self.root / name).read_text('utf-8', 'replace')
        return self.texts[name]

    def code(self, name):
        """C without comments and the contents of strings; lines and columns stay."""
        if name not in self.codes:
            self.codes[name] = strip(self.text(name))
        return self.codes[name]

    def having(self, *endings):
        return [n for n in self.names if n.endswith(endings)]


TOKEN = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)


def strip(text):
    def blank(match):
        token = match[0]
        keep = token[0] if token[0] in '"\'' else ''
        inner = re.sub(r'[^\n]', ' ', token[len(keep):len(token) - len(keep)])
        return keep + inner + keep

    return TOKEN.sub(blank, text)


def folder_of(name):
    return name.split('/')[0] if '/' in name else ''


def line_of(text, position):
    return text.count('\n', 0, position) + 1


def check_includes(tree):
    for name in tree.having('.c', '.h', '.cu', '.cuh'):
        folder = folder_of(name)
        allowed = BELOW.get(folder)
        for match in re.finditer(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', tree.text(name), re.M):
            line, path = line_of(tree.text(name), match.start()), match[2]
            for pattern, folders, why in HEADERS:
                if re.fullmatch(pattern, path) and folder in BELOW and folder not in folders:
                    yield name, line, f'includes <{path}>: {why}'
            if match[1] == '<' or allowed is None:
                continue
            target = 'include' if path.startswith('qallow/') else folder_of(path)
            if target and target != folder and target not in allowed:
                yield name, line, f'{folder}/ must not include {path}: arrows point down only'


def check_calls(tree):
    for names, folders, excepted, advice in CALLS:
        pattern = re.compile(r'(?<![\w.>])(' + '|'.join(names.split()) + r')\s*\(')
        for name in tree.having('.c', '.h', '.cu', '.cuh'):
            if name in excepted or (folders is not None and folder_of(name) not in folders):
                continue
            code = tree.code(name)
            for match in pattern.finditer(code):
                yield name, line_of(code, match.start()), f'{match[1]}(): {advice}'


def check_layout(tree):
    """SPDX, head comment, columns, tabs, blanks, length of the file, marks."""
    marks = re.compile(r'\b(TO' r'DO|FIX' r'ME|X' r'XX)\b')
    for name in tree.having('.c', '.h', '.cu', '.cuh', '.py', '.sh', 'meson.build', '.rs'):
        text = tree.text(name)
        lines = text.split('\n')
        head = [line for line in lines[:2] if not line.startswith('#!')]
        case = name.startswith('tests/cli/cases/')  # a few lines that are read as data
        if not case and 'SPDX-License-Identifier: Apache-2.0' not in (head or [''])[0]:
            yield name, 1, 'the first line must be the SPDX line'
        if name.endswith(('.c', '.h', '.cu', '.cuh')):
            if not ''.join(lines[1:]).lstrip().startswith('/*'):
                yield name, 2, 'after the SPDX line: a comment that says what the file is for'
            for match in re.finditer(r'\btypedef\s+struct\b', tree.code(name)):
                yield name, line_of(text, match.start()), 'no typedef of a struct'
        for number, line in enumerate(lines, 1):
            if len(line) > MAX_COLUMNS:
                yield name, number, f'{len(line)} columns, at most {MAX_COLUMNS}'
            if '\t' in line:
                yield name, number, 'a tab'
            if line != line.rstrip():
                yield name, number, 'blanks at the end of the line'
            if marks.search(line):
                yield name, number, 'finish it, or put it into the tracker'
        if not text.endswith('\n') or text.endswith('\n\n'):
            yield name, len(lines), 'the file must end with exactly one newline'


def functions(code):
    """(name, first line, number of lines) of each function whose braces stand in column 0."""
    lines = code.split('\n')
    start = None
    for i, line in enumerate(lines):
        if line == '{':
            start = i
            while start > 0 and lines[start - 1].strip() and lines[start - 1][0] not in '}#' \
                    and not lines[start - 1].rstrip().endswith((';', '}')):
                start -= 1
        elif line.startswith('}') and start is not None:
            signature = ' '.join(lines[start:i]).split('{')[0]
            signature = re.sub(r'__attribute__\s*\(\(.*?\)\)\s*\)?', '', signature)
            name = re.search(r'(\w+)\s*\(', signature)
            yield (name[1] if name else '?'), start + 1, i - start + 1
            start = None


def check_lengths(tree):
    """Long functions and files. Those of the ratchet may be as long as they stand there, not
    longer; an entry that is no longer needed must go."""
    ratchet = {}
    for line in tree.text(RATCHET).splitlines() if RATCHET in tree.names else []:
        if line and not line.startswith('#'):
            key, length = line.rsplit(None, 1)
            ratchet[key] = int(length)
    found = {}
    for name in tree.having('.c', '.h', '.cu', '.cuh', '.py'):
        found[name] = (1, tree.text(name).count('\n'), MAX_FILE)
        if name.endswith('.py'):
            continue
        for function, line, length in functions(tree.code(name)):
            found[f'{name}:{function}'] = (line, length, MAX_FUNCTION)
    for key, (line, length, limit) in found.items():
        allowed = ratchet.get(key, limit)
        if length > allowed:
            yield key.split(':')[0], line, f'{key}: {length} lines, at most {allowed}'
    for key, allowed in ratchet.items():
        if key not in found or found[key][1] <= found[key][2]:
            yield RATCHET, 1, f'{key} is short enough now: remove its entry'
        elif found[key][1] < allowed:
            yield RATCHET, 1, f'{key} is down to {found[key][1]} lines: lower its entry'


def check_headers(tree):
    """Each header compiles alone; the public ones as strict C11 and as C++ too."""
    include = [f'-I{tree.root}', f'-I{tree.root}/include']
    internal = ['-std=gnu17', '-D_GNU_SOURCE', '-Wall', '-Wextra', '-Wno-unused-parameter']
    public = ['-std=c11', '-pedantic', '-Wall', '-Wextra', '-Wstrict-prototypes']
    cpp = ['-std=c++11', '-pedantic', '-Wall', '-Wextra']
    for name in tree.having('.h'):
        folder = folder_of(name)
        if folder not in BELOW or name in TEMPLATES:
            continue
        ways = [('c', internal)]
        if folder == 'include':
            ways += [('c', public), ('c++', cpp)]
        for language, options in ways:
            command = CC + ['-x', language, '-fsyntax-only', '-Werror', *options, *include, '-']
            # twice: it must guard itself
            text = f'#include "{name}"\n' * 2
            result = subprocess.run(command, input=text, capture_output=True, text=True)
            if result.returncode == 0:
                continue
            if 'cc1plus' in result.stderr:  # no C++ compiler here
                continue
            first = next((x for x in result.stderr.splitlines() if 'error' in x), result.stderr)
            yield name, 1, f'does not compile alone as {language}: {first.strip()}'


def slug(heading):
    """The anchor of a heading, as the usual forges make it."""
    heading = re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', heading).strip().lower()
    return re.sub(r'[^\w\- ]', '', heading).replace(' ', '-')


def check_links(tree):
    for name in tree.having('.md'):
        text = re.sub(r'^```.*?^```', lambda m: re.sub(r'[^\n]', ' ', m[0]), tree.text(name),
                      flags=re.M | re.S)
        text = re.sub(r'`[^`\n]*`', lambda m: ' ' * len(m[0]), text)
        for match in re.finditer(r'\]\(\s*<?([^)\s>]+)>?[^)]*\)', text):
            target = match[1]
            if re.match(r'[a-z]+:', target):
                continue
            path, _, anchor = target.partition('#')
            file = (tree.root / name).parent / path if path else tree.root / name
            line = line_of(text, match.start())
            if not file.exists():
                yield name, line, f'the link to {target} leads nowhere'
            elif anchor and file.suffix == '.md':
                headings = re.findall(r'^#+\s+(.*)$', file.read_text('utf-8'), re.M)
                if anchor not in map(slug, headings):
                    yield name, line, f'{path or name} has no heading for #{anchor}'


def check_lists(tree):
    """What stands in two places agrees: commands and their files, groups of cases."""
    build, launcher = 'interface/meson.build', 'interface/launcher.c'
    listed = re.search(r'^commands = \[(.*?)\]', tree.text(build), re.M | re.S)
    listed = set(re.findall(r"'(\w+)'", listed[1])) if listed else set()
    table = set(re.findall(r'^    &qi_command_(\w+),', tree.text(launcher), re.M))
    files = {m[1] for n in tree.names if (m := re.fullmatch(r'interface/cmd_([a-z]+)\.c', n))}
    if listed != table:
        yield build, 1, f'{sorted(listed ^ table)} only in this list or only in {launcher}'
    for command in sorted(table - files):
        yield launcher, 1, f'there is no interface/cmd_{command}.c'
    groups = {n.split('/')[3] for n in tree.names if n.startswith('tests/cli/cases/')}
    for group in sorted(groups):
        if f"'{group}'" not in tree.text('tests/cli/meson.build'):
            yield 'tests/cli/meson.build', 1, f'the cases in {group}/ are run by no test'


CHECKS = {name[6:]: function for name, function in list(globals().items())
          if name.startswith('check_')}
CC = ['cc']


def main():
    global CC
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--root', type=pathlib.Path,
                        default=pathlib.Path(__file__).resolve().parents[2])
    parser.add_argument('--cc', default='cc')
    parser.add_argument('checks', nargs='*', metavar='CHECK', help=', '.join(CHECKS))
    arguments = parser.parse_args()
    CC = shlex.split(arguments.cc)
    unknown = set(arguments.checks) - set(CHECKS)
    if unknown:
        parser.error(f'no check {sorted(unknown)}, there are {", ".join(CHECKS)}')

    tree = Tree(arguments.root.resolve())
    breaches = [b for name in arguments.checks or CHECKS for b in CHECKS[name](tree)]
    for name, line, text in breaches:
        print(f'{name}:{line}: {text}')
    print(f'{len(tree.names)} files, {len(breaches)} breaches')
    return 1 if breaches else 0


if __name__ == '__main__':
    sys.exit(main())
