/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interpreter: what the bodies of the table mean, and the loop, four times: as it is, with
 * calls counted, with calls told of, and with each instruction told of, too. What is not wanted
 * costs nothing: it is in another loop.
 */
#include "vm/machine.h"
#include "vm/scalar.h"

#pragma GCC diagnostic ignored "-Wpedantic" /* labels as values */

#define A    (r[w >> 8 & 0xff])
#define B    (r[w >> 16 & 0xff])
#define C    (r[w >> 24 & 0xff])
#define SB   ((int64_t)B)
#define SC   ((int64_t)C)
#define FA   qv_bits_float(A)
#define FB   qv_bits_float(B)
#define FC   qv_bits_float(C)
#define IMM  qv_word_imm(w)
#define HALF qv_word_half(w)

#define SETF(expression) A = qv_float_bits(expression)

#define JUMP_IF(condition)                                                                         \
    if (condition) {                                                                               \
        int64_t distance = IMM, cost = distance & distance >> 63;                                  \
        if (__builtin_expect(fuel + cost < 0, 0))                                                  \
            goto out_of_fuel;                                                                      \
        fuel += cost;                                                                              \
        pc += distance;                                                                            \
        NEXT;                                                                                      \
    }

#define LOAD(T, shift, value)                                                                      \
    {                                                                                              \
        const struct qv_memory *page = &pages[qv_word_page(w)];                                    \
        uint64_t i = B + (uint64_t)qv_word_offset(w);                                              \
        T v;                                                                                       \
        if (__builtin_expect(i >= page->size >> (shift), 0))                                       \
            goto out_of_bounds;                                                                    \
        memcpy(&v, page->bytes + (i << (shift)), sizeof v);                                        \
        A = value;                                                                                 \
    }
#define STORE(T, shift, value)                                                                     \
    {                                                                                              \
        const struct qv_memory *page = &pages[qv_word_page(w)];                                    \
        uint64_t i = B + (uint64_t)qv_word_offset(w);                                              \
        T v = value;                                                                               \
        if (__builtin_expect(i >= page->size >> (shift), 0))                                       \
            goto out_of_bounds;                                                                    \
        memcpy(page->bytes + (i << (shift)), &v, sizeof v);                                        \
        page->dirty[(i << (shift)) / QV_BLOCK] = 1;                                                \
        touched[qv_word_page(w)] = 1;                                                              \
    }

#define STAY(why)                                                                                  \
    {                                                                                              \
        stop = why;                                                                                \
        pc--;                                                                                      \
        goto leave;                                                                                \
    }
#define STOP(why)                                                                                  \
    {                                                                                              \
        stop = why;                                                                                \
        goto leave;                                                                                \
    }

#define CALL_FUNCTION()                                                                            \
    {                                                                                              \
        const struct qv_entry *f = &m->entries[(uint32_t)IMM];                                     \
        uint64_t *base = &A;                                                                       \
        if (__builtin_expect(fuel < (int64_t)f->words, 0))                                         \
            goto out_of_fuel;                                                                      \
        if (__builtin_expect(m->depth == m->program->depth ||                                      \
                                 (uint64_t)(base - m->stack) + f->registers > m->program->stack,   \
                             0))                                                                   \
            STAY(QV_TRAP_STACK)                                                                    \
        fuel -= (int64_t)f->words;                                                                 \
        m->frames[m->depth].pc = pc;                                                               \
        m->frames[m->depth++].base = (uint64_t)(r - m->stack);                                     \
        r = base;                                                                                  \
        pc = f->code;                                                                              \
        for (uint32_t i = f->arguments; i < f->registers; i++)                                     \
            r[i] = 0;                                                                              \
        CALLED((uint32_t)IMM);                                                                     \
    }
#define RETURN_FROM()                                                                              \
    {                                                                                              \
        if (m->depth == 0)                                                                         \
            STAY(QV_HALTED)                                                                        \
        const uint64_t *from = pc - 1;                                                             \
        (void)from;                                                                                \
        pc = m->frames[--m->depth].pc;                                                             \
        r = m->stack + m->frames[m->depth].base;                                                   \
        RETURNED(from);                                                                            \
    }
#define EMIT_VALUE(what)                                                                           \
    {                                                                                              \
        if (__builtin_expect(m->emit_count == QV_MAX_EMITS, 0))                                    \
            STAY(QV_TRAP_EMITS)                                                                    \
        m->emits[m->emit_count].name = (uint32_t)IMM;                                              \
        m->emits[m->emit_count].kind = what;                                                       \
        m->emits[m->emit_count++].value = A;                                                       \
    }

#define BEFORE           ((void)0)
#define LOOP             run_plain
#define CALLED(function) ((void)0)
#define RETURNED(from)   ((void)0)
#include "vm/interpret_loop.h"
#undef LOOP
#undef CALLED
#define LOOP             run_counted
#define CALLED(function) m->watch.counts[function].calls++
#include "vm/interpret_loop.h"
#undef LOOP
#undef CALLED
#undef RETURNED

/* Who watches sees the machine as it is. */
static int tell(struct qv_machine *m, const uint64_t *pc, const uint64_t *r, int64_t fuel,
                uint32_t what, uint32_t which)
{
    m->pc = pc;
    m->base = (uint64_t)(r - m->stack);
    m->fuel = fuel;
    if (!(m->watch.what & what))
        return 0;
    if (what == QALLOW_VM_ON_INSTRUCTION && m->skip_watch) {
        m->skip_watch = 0;
        return 0;
    }
    return m->watch.tell(m->watch.context, m, what, which);
}

static uint32_t function_at(const struct qv_machine *m, const uint64_t *pc)
{
    uint32_t function, word;
    qv_locate(m, pc, &function, &word);
    return function;
}

#define CALLED(function)                                                                           \
    {                                                                                              \
        if (m->watch.counts)                                                                       \
            m->watch.counts[function].calls++;                                                     \
        if (__builtin_expect(m->watch.what & QALLOW_VM_ON_CALL, 0) &&                              \
            tell(m, pc, r, fuel, QALLOW_VM_ON_CALL, function) != 0)                                \
            STOP(QV_HOOKED)                                                                        \
    }
#define RETURNED(from)                                                                             \
    {                                                                                              \
        if (__builtin_expect(m->watch.what & QALLOW_VM_ON_RETURN, 0) &&                            \
            tell(m, pc, r, fuel, QALLOW_VM_ON_RETURN, function_at(m, from)) != 0)                  \
            STOP(QV_HOOKED)                                                                        \
    }
#define LOOP run_calls
#include "vm/interpret_loop.h"
#undef LOOP
#undef BEFORE

#define LOOP run_instructions
#define BEFORE                                                                                     \
    if (tell(m, pc, r, fuel, QALLOW_VM_ON_INSTRUCTION, 0) != 0)                                    \
    return QV_HOOKED
#include "vm/interpret_loop.h"

static enum qv_stop run_slice(struct qv_machine *m)
{
    if (m->watch.what & QALLOW_VM_ON_INSTRUCTION)
        return run_instructions(m);
    if (m->watch.what & (QALLOW_VM_ON_CALL | QALLOW_VM_ON_RETURN))
        return run_calls(m);
    return m->watch.counts ? run_counted(m) : run_plain(m);
}

enum { WATCHED_SLICE = 1 << 18 };

/* Fuel is handed out in slices, so that somebody can stop a long tick. That shows nowhere: an
 * instruction that cannot be paid for is not begun, and who watches, and has been told of it, is
 * not told again. Watching takes its time, so slices are smaller then. */
enum qv_stop qv_run(struct qv_machine *m)
{
    enum qv_stop stop = QV_OUT_OF_FUEL;

    for (;;) {
        uint64_t slice = m->fuel_reserve < m->fuel_slice ? m->fuel_reserve : m->fuel_slice;
        if (m->watch.what & QALLOW_VM_ON_INSTRUCTION && slice > WATCHED_SLICE)
            slice = WATCHED_SLICE;
        m->fuel += (int64_t)slice;
        m->fuel_reserve -= slice;
        stop = run_slice(m);
        if (stop != QV_OUT_OF_FUEL || m->fuel_reserve == 0)
            break;
        m->skip_watch = (m->watch.what & QALLOW_VM_ON_INSTRUCTION) != 0;
        if (m->interrupted && m->interrupted(m->interrupted_context))
            return QV_INTERRUPTED;
    }
    if (stop == QV_TICK_DONE || stop == QV_HALTED) {
        m->fuel_used += m->fuel_limit - m->fuel_reserve - (uint64_t)m->fuel;
        m->halted = stop == QV_HALTED;
        m->tick++;
    }
    return stop;
}
