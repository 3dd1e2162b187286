/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making a machine: all memory a run needs is taken here, in one piece, within what the program
 * declares; a tick allocates nothing. And saying where and why it stopped.
 */
#include "vm/machine.h"

#include <stdio.h>
#include <string.h>

#include "runtime/error.h"
#include "runtime/os.h"

/* --- memory --- */

static size_t round_up(size_t size) { return (size + 63) & ~(size_t)63; }

/* Hands out aligned pieces of one block; with no block yet it only counts. */
struct arena {
    uint8_t *block;
    size_t used;
};
static void *take(struct arena *arena, size_t size)
{
    void *piece = arena->block ? arena->block + arena->used : NULL;
    arena->used += round_up(size);
    return piece;
}

static void lay_out(struct qv_machine *m, struct arena *arena)
{
    const struct qv_program *p = m->program;

    m->stack = take(arena, (size_t)p->stack * sizeof *m->stack);
    m->frames = take(arena, (size_t)p->depth * sizeof *m->frames);
    m->emits = take(arena, QV_MAX_EMITS * sizeof *m->emits);
    m->touched = take(arena, p->page_count + 1);
    for (size_t i = 0; i < p->page_count; i++) {
        size_t size = (size_t)qv_page_bytes(&p->pages[i]);
        m->pages[i].bytes = take(arena, size);
        m->pages[i].dirty = take(arena, size / QV_BLOCK + 1);
        m->pages[i].size = qv_page_is_fixed(&p->pages[i]) ? size : 0;
        m->pages[i].count = qv_page_is_fixed(&p->pages[i]) ? p->pages[i].count : 0;
        m->pages[i].name = p->pages[i].name;
    }
}

static void fill_pages(struct qv_machine *m)
{
    for (size_t i = 0; i < m->program->page_count; i++)
        if (m->program->pages[i].initial_size)
            memcpy(m->pages[i].bytes, m->program->pages[i].initial,
                   m->program->pages[i].initial_size);
}

/* Copies the code together, so that the interpreter reads what nobody else has a hand on. */
static int link_code(struct qv_machine *m)
{
    const struct qv_program *p = m->program;
    size_t words = 0;

    for (size_t i = 0; i < p->function_count; i++)
        words += p->functions[i].word_count;
    m->code = qr_malloc(words * sizeof *m->code);
    if (!m->code)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for %zu words of code", words);
    words = 0;
    for (size_t i = 0; i < p->function_count; i++) {
        const struct qv_function *f = &p->functions[i];
        memcpy(m->code + words, f->words, f->word_count * sizeof *m->code);
        m->entries[i] =
            (struct qv_entry){m->code + words, (uint32_t)f->word_count, f->arguments, f->registers};
        words += f->word_count;
    }
    m->code_words = words;
    m->pc = m->entries[qv_find_function(p, "main")].code;
    return 0;
}

int qv_machine_create(const struct qv_program *program, struct qv_machine **machine)
{
    struct qv_machine *m = qr_calloc(1, sizeof *m);
    struct arena arena = {NULL, 0};

    *machine = NULL;
    if (!m)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a machine");
    m->program = program;
    m->tick = 1;
    m->kernels = qb_vectors();
    m->fuel_limit = program->fuel;
    m->node_fuel = program->node_fuel ? program->node_fuel : program->fuel;
    m->fuel_slice = (uint64_t)1 << 28; /* a fraction of a second */
    m->parallel_from = 1 << 20;
    m->part = 1 << 18;
    m->pages = qr_calloc(program->page_count + 1, sizeof *m->pages);
    m->entries = qr_calloc(program->function_count, sizeof *m->entries);
    if (m->pages && m->entries) {
        lay_out(m, &arena);
        m->memory = arena.block = qr_map(arena.used, 4096); /* zeros, used where touched */
    }
    if (!m->memory || link_code(m) < 0) {
        qv_machine_destroy(m);
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a machine of %llu bytes",
                       (unsigned long long)qv_program_memory(program));
    }
    arena.used = 0;
    lay_out(m, &arena);
    m->memory_size = arena.used;
    fill_pages(m);
    *machine = m;
    return 0;
}

size_t qv_next_touched(const struct qv_machine *m, size_t page)
{
    size_t count = m->program->page_count;
    if (page < count && m->touched[page]) /* they come in runs */
        return page;
    const uint8_t *next = page < count ? memchr(m->touched + page, 1, count - page) : NULL;
    return next ? (size_t)(next - m->touched) : count;
}

void qv_machine_destroy(struct qv_machine *machine)
{
    if (!machine)
        return;
    qv_pool_destroy(machine->pool);
    if (machine->memory)
        qr_unmap(machine->memory, machine->memory_size);
    qr_free(machine->watch.counts);
    qr_free(machine->pages);
    qr_free(machine->entries);
    qr_free(machine->code);
    qr_free(machine);
}

int qv_machine_set_threads(struct qv_machine *machine, int threads)
{
    qv_pool_destroy(machine->pool);
    machine->pool = NULL;
    return threads > 1 ? qv_pool_create(threads, &machine->pool) : 0;
}

int qv_machine_count(struct qv_machine *machine, int wanted)
{
    struct qv_watch *watch = &machine->watch;

    if (wanted && !watch->counts) {
        watch->counts = qr_calloc(machine->program->function_count, sizeof *watch->counts);
        if (!watch->counts)
            return qr_fail(QALLOW_E_NO_MEMORY, "no memory to count calls");
    } else if (!wanted) {
        qr_free(watch->counts);
        watch->counts = NULL;
    }
    return 0;
}

void qv_tick_begin(struct qv_machine *machine)
{
    machine->fuel = 0;
    machine->fuel_reserve = machine->fuel_limit;
    machine->emit_count = 0;
}

/* --- where and why --- */

void qv_locate(const struct qv_machine *machine, const uint64_t *pc, uint32_t *function,
               uint32_t *word)
{
    uint64_t at = (uint64_t)(pc - machine->code);
    uint32_t low = 0, high = (uint32_t)machine->program->function_count;

    while (high - low > 1) { /* functions lie in ascending order */
        uint32_t middle = low + (high - low) / 2;
        if ((uint64_t)(machine->entries[middle].code - machine->code) <= at)
            low = middle;
        else
            high = middle;
    }
    *function = low;
    *word = (uint32_t)(pc - machine->entries[low].code);
}

static void describe_element(const struct qv_machine *m, uint64_t w, char *text, size_t size)
{
    const struct qv_memory *page = &m->pages[qv_word_page(w)];
    uint64_t element = m->stack[m->base + qv_word_b(w)] + (uint64_t)qv_word_offset(w);
    unsigned op = qv_word_op(w), shift = 0;

    if (op == QV_LDU16 || op == QV_LDI16 || op == QV_ST16)
        shift = 1;
    else if (op == QV_LD64 || op == QV_ST64)
        shift = 3;
    else if (op != QV_LDU8 && op != QV_LDI8 && op != QV_ST8)
        shift = 2;
    snprintf(text, size, "element %lld of %llu", (long long)element,
             (unsigned long long)(page->size >> shift));
}

static void describe_why(const struct qv_machine *m, enum qv_stop stop, char *text, size_t size)
{
    switch (stop) {
    case QV_OUT_OF_FUEL:
        snprintf(text, size, "out of fuel (%llu; --fuel gives more)",
                 (unsigned long long)m->fuel_limit);
        break;
    case QV_TRAP_PROGRAM:
        snprintf(text, size, "the program gave up with %lld", (long long)qv_word_imm(*m->pc));
        break;
    case QV_TRAP_BOUNDS:
        if (qv_ops[qv_word_op(*m->pc)].is_vector)
            snprintf(text, size, "%s", m->detail);
        else
            describe_element(m, *m->pc, text, size);
        break;
    case QV_TRAP_STACK:
        snprintf(text, size, "the stack is full (.stack %u, .depth %u)", m->program->stack,
                 m->program->depth);
        break;
    case QV_TRAP_EMITS:
        snprintf(text, size, "more than %d values emitted in one tick", QV_MAX_EMITS);
        break;
    default:
        snprintf(text, size, "%s", m->detail);
    }
}

void qv_describe_stop(const struct qv_machine *machine, enum qv_stop stop, char *text, size_t size)
{
    char why[200], instruction[200];
    uint32_t function, word, line;

    qv_locate(machine, machine->pc, &function, &word);
    const struct qv_function *f = &machine->program->functions[function];
    qv_disassemble_one(machine->program, f, word, instruction, sizeof instruction);
    describe_why(machine, stop, why, sizeof why);
    line = f->lines ? f->lines[word] : 0;
    if (line)
        snprintf(text, size, "line %u, %s: %s: %s", line, f->name, instruction, why);
    else
        snprintf(text, size, "%s, word %u: %s: %s", f->name, word, instruction, why);
}
