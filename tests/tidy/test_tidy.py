#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every check of tidy.py finds what it is there for, and is silent about what is right."""
import pathlib
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import tidy  # noqa: E402

SPDX = '/* SPDX-License-Identifier: Apache-2.0 */\n'
HEAD = SPDX + '/* What it is for. */\n'


def function(lines):
    return HEAD + 'static int f(void)\n{\n' + '    ;\n' * (lines - 3) + '}\n'


class Tidy(unittest.TestCase):
    def breaches(self, check, **files):
        """The texts of the breaches in a tree of these files ("/" is written "__")."""
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for name, text in files.items():
                path = root / name.replace('__', '/').replace('_dot_', '.')
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            return [text for _, _, text in tidy.CHECKS[check](tidy.Tree(root))]

    def finds(self, check, part, **files):
        texts = self.breaches(check, **files)
        self.assertEqual(len(texts), 1, texts)
        self.assertIn(part, texts[0])

    def silent(self, check, **files):
        self.assertEqual(self.breaches(check, **files), [])

    def test_includes(self):
        self.finds('includes', 'arrows', runtime__a_dot_c='#include "sources/tree.h"\n')
        self.finds('includes', 'arrows', backend__a_dot_c='#  include "runtime/page.h"\n')
        self.finds('includes', 'arrows', vm__a_dot_c='#include "accelerator/a.h"\n')
        self.finds('includes', 'arrows', runtime__a_dot_c='#include "bench/bench.h"\n')
        self.finds('includes', 'arrows', bench__a_dot_c='#include "interface/report.h"\n')
        self.finds('includes', 'terminal', sources__a_dot_c='#include <termios.h>\n')
        self.finds('includes', 'processors', runtime__a_dot_c='#include <immintrin.h>\n')
        self.finds('includes', 'CUDA', runtime__a_dot_c='#include <cuda_runtime.h>\n')
        self.silent('includes', interface__a_dot_c='#include "vm/a.h"\n#include "bench/bench.h"\n',
                    runtime__b_dot_c='#include "qallow/error.h"\n#include "backend/kernels.h"\n')

    def test_calls(self):
        self.finds('calls', 'snprintf', interface__a_dot_c='x = strcpy (a, b);\n')
        self.finds('calls', 'prints', runtime__a_dot_c='printf("x");\n')
        self.finds('calls', 'os.h', runtime__a_dot_c='open("x", 0);\n')
        self.finds('calls', 'n-th', runtime__a_dot_c='return malloc(1);\n')
        self.silent('calls', runtime__a_dot_c='/* printf(x) */ s = "printf(x)"; os->open(c, p);\n'
                    'qr_malloc(1); // malloc(1)\nint (*open)(int);\n',
                    interface__b_dot_c='printf("x");\n')

    def test_layout(self):
        mark = 'TO' 'DO'
        self.finds('layout', 'SPDX', runtime__a_dot_c='\n/* x */\n')
        self.finds('layout', 'what the file is for', runtime__a_dot_c=SPDX + 'int a;\n')
        self.finds('layout', 'columns', runtime__a_dot_c=HEAD + '/' * 101 + '\n')
        self.finds('layout', 'tab', runtime__a_dot_c=HEAD + '\tint a;\n')
        self.finds('layout', 'blanks', runtime__a_dot_c=HEAD + 'int a; \n')
        self.finds('layout', 'finish it', runtime__a_dot_c=HEAD + f'/* {mark} */\n')
        self.finds('layout', 'typedef', runtime__a_dot_c=HEAD + 'typedef struct a b;\n')
        self.finds('layout', 'newline', runtime__a_dot_c=HEAD + 'int a;')
        self.silent('layout', runtime__a_dot_c=HEAD + 'int a;\n' + '/' * 100 + '\n',
                    scripts__a_dot_sh='#!/bin/sh\n# SPDX-License-Identifier: Apache-2.0\n')

    def test_lengths(self):
        self.silent('lengths', runtime__a_dot_c=function(70))
        self.finds('lengths', '71 lines', runtime__a_dot_c=function(71))
        self.finds('lengths', '801 lines', runtime__a_dot_c=HEAD + '\n' * 799)
        ratchet = {'tests__tidy__ratchet_dot_txt': '# x\nruntime/a.c:f 80\n'}
        self.silent('lengths', runtime__a_dot_c=function(80), **ratchet)
        self.finds('lengths', 'at most 80', runtime__a_dot_c=function(81), **ratchet)
        self.finds('lengths', 'lower', runtime__a_dot_c=function(75), **ratchet)
        self.finds('lengths', 'remove', runtime__a_dot_c=function(70), **ratchet)
        self.finds('lengths', 'remove', runtime__b_dot_c=function(10), **ratchet)

    def test_headers(self):
        self.finds('headers', 'alone', runtime__a_dot_h=HEAD + 'size_t f(void);\n')
        self.finds('headers', 'alone', runtime__a_dot_h=HEAD + 'struct a { int b; };\n')
        self.silent('headers', runtime__a_dot_h=HEAD + '#ifndef A\n#define A\nstruct a {int b;};\n'
                    '#endif\n')

    def test_links(self):
        self.finds('links', 'nowhere', a_dot_md='[x](docs/b.md)\n')
        self.finds('links', 'heading', a_dot_md='[x](#none)\n# Some\n')
        self.silent('links', a_dot_md='[x](#one-two) [y](https://x/y) `[z](q)`\n# One: `two`\n')

    def test_lists(self):
        lists = {'interface__meson_dot_build': "commands = ['a', 'b']\n",
                 'interface__launcher_dot_c': '    &qi_command_a,\n    &qi_command_b,\n',
                 'interface__cmd_a_dot_c': '', 'interface__cmd_b_dot_c': '',
                 'tests__cli__meson_dot_build': "['x']\n", 'tests__cli__cases__x__1_dot_sh': ''}
        self.silent('lists', **lists)
        self.finds('lists', "'b'", **{**lists, 'interface__meson_dot_build': "commands = ['a']\n"})
        self.finds('lists', 'no test', **{**lists, 'tests__cli__cases__y__1_dot_sh': ''})
        del lists['interface__cmd_b_dot_c']
        self.finds('lists', 'cmd_b.c', **lists)

    def test_functions(self):
        code = 'int a(void) { return 1; }\nstatic int __attribute__((x))\nb(int c,\n  int d)\n' \
               '{\n    {\n    }\n}\nint x[] = {\n 1,\n};\nvoid e(void)\n{\n}\n'
        self.assertEqual(list(tidy.functions(code)), [('b', 2, 7), ('e', 12, 3)])


if __name__ == '__main__':
    unittest.main()
