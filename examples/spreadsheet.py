#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints a program like a spreadsheet: a column of derived pages, each the one above and a cell of
its row.

    examples/spreadsheet.py [ROWS] >sheet.qvm      1000 unless said otherwise
    qallow vm sheet.qvm --ticks 100 --log sheet.tlog

Row n has the balance: the balance of row n - 1, with interest, and what was paid in, which is one
page for every ten rows. Each tick pays into another one, so all rows below it change.
"""
import sys

rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
payments = (rows + 9) // 10
print('.page rate f64 1\n.data rate 1.0001\n.page start f64 1\n.data start 1000.0')
for p in range(payments):
    print(f'.page paid{p} f64 1')
for r in range(rows):
    above = f'row{r - 1}' if r else 'start'
    print(f'.node row{r} f64 1 balance whole {above}, whole rate, whole paid{r // 10}')
print('''
.func balance of out f64, above f64, rate f64, paid f64
    ld.64 r0, above[r3]
    ld.64 r1, rate[r3]
    ld.64 r2, paid[r3]
    fmul r0, r0, r1
    fadd r0, r0, r2
    st.64 r0, out[r3]
    ret

.func main
tick:
    tick r1
    itof r2, r1''')
print(f'    li r3, {payments}\n    remu r1, r1, r3')
for p in range(payments):
    print(f'    jnei r1, {p}, not{p}\n    st.64 r2, paid{p}[r9]\n    jmp paid\nnot{p}:')
print(f'''paid:
    commit
    ld.64 r2, row{rows - 1}[r9]
    emit.f64 balance, r2
    jmp tick''')
