/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random programs. Operands are made from the letters of the instruction table; values are biased
 * towards what goes wrong: bounds, zeros of both signs, NaN, infinities, the least integer. In
 * front of instructions with elements or counts stands one that makes the register small, so that
 * most programs run for a while before they trap. Numbers are drawn one after the other, so that a
 * seed gives the same program whatever compiled this.
 */
#include "generate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "generate_internal.h"
#include "runtime/os.h"
#include "tests/random.h"

static uint64_t below(struct generator *g, uint64_t n) { return generate_below(g, n); }
static int chance(struct generator *g, unsigned percent) { return below(g, 100) < percent; }

static uint64_t value(struct generator *g)
{
    static const double floats[] = {0.0,     -0.0,   1,    -1,     0.5,    1e300,
                                    -1e-300, 4e-320, 1e10, 255.5,  -128.5, 3e9,
                                    9.3e18,  1.9e19, 1e38, 3.5e38, 1e-40};
    uint64_t bits;

    switch (below(g, 7)) {
    case 0:
        return below(g, 300);
    case 1:
        return 0 - below(g, 300);
    case 2:
        return UINT64_MAX >> below(g, 64);
    case 3:
        return (uint64_t)1 << below(g, 64);
    case 4:
        memcpy(&bits, &floats[below(g, sizeof floats / sizeof *floats)], 8);
        return bits;
    case 5: /* infinities and NaN of all kinds */
        return UINT64_C(0x7ff) << 52 | below(g, 2) << 63 |
               (below(g, 2) ? next_random(&g->state) >> 12 : 0);
    default:
        return next_random(&g->state);
    }
}

void generate_word(struct generator *g, uint64_t word)
{
    struct qv_function *f = g->function;
    if (QR_GROW(f->words, f->word_count, f->word_capacity) < 0)
        abort();
    f->words[f->word_count++] = word;
}

static void put(struct generator *g, uint64_t word) { generate_word(g, word); }

static unsigned reg(struct generator *g)
{
    return g->first_register + (unsigned)below(g, GENERATED_REGISTERS);
}
static unsigned page(struct generator *g, int is_written)
{
    const struct qv_page *pages = g->program->pages;
    unsigned number;

    if (g->function->is_closed)
        return is_written ? 0 : (unsigned)below(g, g->function->formal_count);
    do
        number = (unsigned)below(g, g->program->page_count);
    while (is_written && (pages[number].is_input || pages[number].is_derived));
    return number;
}

/* Whether it may be called: pure functions, and those that see the same pages. */
static int may_call(const struct qv_function *from, const struct qv_function *to)
{
    if (to->formal_count == 0)
        return to->is_closed || !from->is_closed;
    int same = from->formal_count == to->formal_count;
    for (size_t i = 0; same && i < to->formal_count; i++)
        same = from->formals[i].type == to->formals[i].type;
    return same;
}
static unsigned callee(struct generator *g)
{
    unsigned number;

    do
        number = (unsigned)below(g, g->program->function_count);
    while (!may_call(g->function, &g->program->functions[number]));
    return number;
}

/* Makes a register small before it is used as an element or a count. */
static unsigned small_register(struct generator *g, unsigned most)
{
    unsigned r = reg(g);
    if (chance(g, 50))
        put(g, qv_word(QV_LI, r, 0, 0, (int64_t)below(g, most)));
    else
        put(g, qv_word(QV_ANDI, r, r, 0, 15));
    return r;
}

static unsigned window_register(struct generator *g)
{
    unsigned r = reg(g);
    put(g, qv_word(QV_LI, r, 0, 0, (int64_t)below(g, 7)));
    return r;
}

void generate_scalar(struct generator *g, unsigned op)
{
    const char *letters = qv_ops[op].operands;
    unsigned field[3] = {0, 0, 0};
    int64_t imm = 0;

    for (; *letters; letters++) {
        if (*letters >= 'A' && *letters <= 'C')
            field[*letters - 'A'] = reg(g);
        else if (*letters == 'i')
            imm = chance(g, 50) ? (int32_t)value(g) : (int64_t)below(g, 70);
        else if (*letters == 'h')
            field[1] = (unsigned)value(g) & 255, field[2] = (unsigned)value(g) & 255;
        else if (*letters == 'g')
            imm = callee(g);
        else if (*letters == 'p')
            imm = page(g, 0);
        else if (*letters == 'n')
            imm = (int64_t)below(g, g->program->name_count);
        else if (*letters == 'm' || *letters == 'w') {
            field[1] = chance(g, 90) ? small_register(g, 20) : reg(g);
            int64_t offset = chance(g, 80) ? 0 : (int16_t)below(g, 9) - 1;
            imm = qv_element(page(g, *letters == 'w'), offset);
        }
    }
    put(g, qv_word(op, field[0], field[1], field[2], imm));
    if (op == QV_LC)
        put(g, value(g));
}

static void vector(struct generator *g, unsigned op)
{
    struct qv_vector v = {.op = op, .count = QV_NO_REGISTER};
    const char *letters = qv_ops[op].operands;
    uint64_t words[2];

    do {
        v.type = (unsigned)below(g, QB_TYPES);
        v.type2 = qv_has_two_types(op) ? (unsigned)below(g, QB_TYPES) : 0;
    } while (!qv_types_fit(op, v.type, v.type2));
    for (int i = 0; i < QV_OPERANDS; i++) {
        v.reg[i] = QV_NO_REGISTER;
        v.page[i] = QV_NO_PAGE;
    }
    for (int i = 0; letters[i]; i++) {
        if (strchr("RS", letters[i]) || (strchr("XW", letters[i]) && chance(g, 25))) {
            v.reg[i] = op >= QV_WINDOW_ADD && chance(g, 95) ? window_register(g) : reg(g);
            continue;
        }
        v.page[i] = page(g, strchr("DMH", letters[i]) != NULL);
        if (letters[i] == 'I' && chance(g, 90))
            v.page[i] = 1; /* which has small numbers */
        if (chance(g, 15))
            v.reg[i] = small_register(g, 12);
    }
    if (chance(g, 85))
        v.count = small_register(g, 24);
    qv_vector_encode(&v, words);
    put(g, words[0]);
    put(g, words[1]);
}

int generate_is_effect(unsigned op)
{
    return op == QV_COMMIT || op == QV_HALT || op == QV_EMIT || op == QV_EMITU || op == QV_EMITF ||
           op == QV_RAND || op == QV_TICK;
}

/* A pure function sees no pages, and calls nobody, so that it comes to an end. */
static int fits(const struct qv_function *f, unsigned op)
{
    if (f->is_closed && generate_is_effect(op))
        return 0;
    return !f->is_closed || f->formal_count ||
           !(qv_ops[op].is_vector || strpbrk(qv_ops[op].operands, "mwpg"));
}

static void instruction(struct generator *g)
{
    unsigned op;

    do
        op = (unsigned)below(g, QV_OPS);
    while (!fits(g->function, op) ||
           ((op == QV_HALT || op == QV_TRAP || op == QV_RET) && !chance(g, 8)));
    if (!g->function->is_closed && chance(g, 4)) /* so that there are states between ticks */
        op = QV_COMMIT;
    if (qv_ops[op].is_vector)
        vector(g, op);
    else
        generate_scalar(g, op);
}

/* Gives every jump a target. */
static void aim(struct generator *g)
{
    struct qv_function *f = g->function;
    uint32_t starts[1024], count = 0;

    for (uint32_t w = 0; w < f->word_count; w += qv_op_words(qv_word_op(f->words[w])))
        starts[count++] = w;
    for (uint32_t i = 0; i < count; i++) {
        unsigned op = qv_word_op(f->words[starts[i]]);
        if (qv_ops[op].is_vector || !strchr(qv_ops[op].operands, 'j'))
            continue;
        int is_pure = f->is_closed && f->formal_count == 0;
        uint64_t next = is_pure ? i + 1 + below(g, count - i - 1) : i + below(g, count - i);
        uint32_t to = starts[is_pure || chance(g, 70) ? next : below(g, count)];
        f->words[starts[i]] |= (uint64_t)((int64_t)to - starts[i] - 1) << 32;
    }
}

static void function(struct generator *g)
{
    static const unsigned ends[] = {QV_RET, QV_RET, QV_HALT, QV_JMP};
    struct qv_function *f = g->function;
    int is_pure = f->is_closed && f->formal_count == 0;
    unsigned length = (unsigned)below(g, is_pure ? 12 : f->is_closed ? 16 : 60);

    g->first_register = 0;
    f->registers = GENERATED_REGISTERS + 3 + (uint32_t)below(g, 3); /* room for arguments */
    for (unsigned i = 0; i < 4 && f == g->program->functions; i++)
        generate_scalar(g, QV_LC);
    while (length-- > 0)
        instruction(g);
    unsigned end = is_pure ? QV_RET : ends[below(g, 4)];
    put(g, qv_word(f->is_closed && end == QV_HALT ? QV_RET : end, 0, 0, 0, 0));
    aim(g);
}

static void fill(struct generator *g, struct qv_page *p)
{
    size_t size = (size_t)qv_page_bytes(p);

    p->initial = qr_malloc(size + 8);
    if (!p->initial)
        abort();
    for (size_t i = 0; i < size; i += 8) {
        uint64_t low = below(g, 5), high = below(g, 5), any = value(g);
        uint64_t v = chance(g, 40) ? low | high << 32 : any;
        memcpy(p->initial + i, &v, 8);
    }
    p->initial_size = p->initial_capacity = size;
}

static void add_pages(struct generator *g)
{
    struct qv_program *p = g->program;
    uint64_t size = g->is_large ? 20000 + below(g, 40000) : 8 + below(g, 400);

    p->page_count = 3 + below(g, 5);
    for (size_t i = 0; i < p->page_count; i++) {
        struct qv_page *page_ = &p->pages[i];
        snprintf(page_->name, sizeof page_->name, "p%zu", i);
        page_->type = (unsigned)below(g, QB_TYPES);
        page_->is_input = i == 1 || (i > 1 && below(g, 6) == 0);
        page_->count = chance(g, 95) ? size >> qb_type_shift(page_->type) : below(g, 50);
        if (!page_->is_input && chance(g, 80))
            fill(g, page_);
    }
}

static void add_functions(struct generator *g)
{
    struct qv_program *p = g->program;

    p->function_count = 1 + below(g, 3);
    for (size_t i = 0; i < p->function_count; i++)
        snprintf(p->functions[i].name, sizeof p->functions[i].name, i ? "f%zu" : "main", i);
    if (chance(g, 50))
        generate_nodes(g);
    for (size_t i = 1; i < p->function_count; i++)
        if (!p->functions[i].arguments)
            p->functions[i].arguments = (uint32_t)below(g, p->functions[i].formal_count ? 3 : 4);
}

struct qv_program *generate_program(uint64_t seed)
{
    struct generator g = {.state = seed};
    struct qv_program *p = g.program = qr_calloc(1, sizeof *p);

    g.is_large = below(&g, 50) == 0;
    p->memory = 1 << 24;
    p->fuel = g.is_large ? 200000 : 3000;
    p->node_fuel = g.is_large ? 600000 : 60000;
    p->stack = QV_REGISTERS + (uint32_t)below(&g, 100);
    p->depth = 1 + (uint32_t)below(&g, 20);
    p->pages = qr_calloc(8 + GENERATED_NODES, sizeof *p->pages);
    p->name_count = 2;
    p->names = qr_calloc(2, sizeof *p->names);
    p->functions = qr_calloc(GENERATED_FUNCTIONS, sizeof *p->functions);
    snprintf(p->names[0].text, sizeof p->names[0].text, "first");
    snprintf(p->names[1].text, sizeof p->names[1].text, "second");
    add_pages(&g);
    add_functions(&g);
    for (size_t i = 0; i < p->function_count; i++) {
        g.function = &p->functions[i];
        if (g.by_units[i])
            generate_units(&g, &p->pages[g.by_units[i]]);
        else
            function(&g);
    }
    return p;
}
