/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interpreter's loop, to be included with LOOP, its name, BEFORE, what happens in front of each
 * instruction, and CALLED, what happens at a call. It is made from the table: one label for each
 * instruction, and a jump through a table of labels behind each.
 *
 * What the verifier has proven is not checked: opcodes, registers, jump targets. Fuel is prepaid: a
 * call costs the words of the function, a jump backwards the words it goes back, so nothing is
 * counted at other instructions, and no more instructions are run than fuel is paid, in this tick
 * or before it: what stands behind the commit that a tick begins at was paid when it was called or
 * jumped to. An instruction that cannot be paid for is not begun.
 */
static enum qv_stop LOOP(struct qv_machine *m)
{
    static const void *const labels[QV_OPS] = {
#define QV_SCALAR(NAME, mnemonic, operands, body, text)          &&L_##NAME,
#define QV_VECTOR(NAME, mnemonic, operands, types, kernel, text) &&L_vector,
#include "vm/table.h"
    };
    const struct qv_memory *const pages = m->pages;
    uint8_t *const touched = m->touched;
    const uint64_t *pc = m->pc;
    uint64_t *r = m->stack + m->base;
    int64_t fuel = m->fuel;
    enum qv_stop stop;
    uint64_t w;

#define NEXT                                                                                       \
    do {                                                                                           \
        BEFORE;                                                                                    \
        w = *pc++;                                                                                 \
        goto *labels[w & 0xff];                                                                    \
    } while (0)

    NEXT;

#define QV_SCALAR(NAME, mnemonic, operands, body, text)                                            \
    L_##NAME: { body; }                                                                            \
    NEXT;
#include "vm/table.h"

L_vector:
    stop = (enum qv_stop)qv_vector_run(m, r, pc - 1, &fuel);
    if (__builtin_expect(stop != 0, 0)) {
        pc--;
        goto leave;
    }
    pc++;
    NEXT;

out_of_fuel:
    stop = QV_OUT_OF_FUEL;
    pc--;
    goto leave;
out_of_bounds:
    stop = QV_TRAP_BOUNDS;
    pc--;
leave:
    m->pc = pc;
    m->base = (uint64_t)(r - m->stack);
    m->fuel = fuel;
    return stop;
}
#undef NEXT
