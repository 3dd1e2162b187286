/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Derived pages of random programs. Where all parents are read whole, the function is any random
 * code. Others must give the same of an element whatever else is computed with it, so their code is
 * a loop over units, in which registers begin anew, or vector instructions over all there is.
 */
#include <stdio.h>
#include <string.h>

#include "generate_internal.h"
#include "qallow/graph.h"
#include "runtime/os.h"

static uint64_t below(struct generator *g, uint64_t n) { return generate_below(g, n); }
static int chance(struct generator *g, unsigned percent) { return below(g, 100) < percent; }
static void put(struct generator *g, uint64_t word) { generate_word(g, word); }

/* --- what there is --- */

static int has_parent(const struct qv_page *page, uint32_t parent)
{
    for (size_t i = 0; i < page->parent_count; i++)
        if (page->parents[i].page == parent)
            return 1;
    return 0;
}

enum { FEW = 100, MOST_UNITS = 64 };

static void read_by_units(struct generator *g, struct qv_parent *parent)
{
    uint64_t count = g->program->pages[parent->page].count;

    parent->access = QALLOW_ELEMENTWISE + (uint32_t)below(g, 3);
    parent->unit = 1;
    if (count > FEW) { /* every unit costs some instructions */
        parent->access = QALLOW_BLOCKWISE;
        parent->unit = count / (1 + below(g, MOST_UNITS)) + 1;
    } else if (parent->access == QALLOW_BLOCKWISE) {
        parent->unit = 1 + below(g, 9);
    } else if (parent->access == QALLOW_WINDOW) {
        parent->before = below(g, 4);
        parent->after = below(g, 4);
    }
}

static void choose_parents(struct generator *g, struct qv_page *page, int by_units)
{
    size_t wanted = 1 + below(g, 3);

    page->parents = qr_calloc(wanted, sizeof *page->parents);
    while (page->parent_count < wanted) {
        struct qv_parent parent = {.page = (uint32_t)below(g, g->program->page_count)};
        if (has_parent(page, parent.page))
            continue;
        if (by_units && chance(g, 70))
            read_by_units(g, &parent);
        page->parents[page->parent_count++] = parent;
    }
}

/* As long as its first parent that is read by units, or some elements for each of those. */
static void choose_size(struct generator *g, struct qv_page *page)
{
    const struct qv_parent *parent = page->parents;

    page->type = (unsigned)below(g, QB_TYPES);
    page->count = below(g, g->is_large ? 30000 : 200);
    while (parent < page->parents + page->parent_count && !parent->unit)
        parent++;
    if (parent == page->parents + page->parent_count)
        return;
    const struct qv_page *from = &g->program->pages[parent->page];
    if (chance(g, 40))
        page->count = qv_page_bytes(from) >> qb_type_shift(page->type);
    else
        page->count = (from->count + parent->unit - 1) / parent->unit * (1 + below(g, 3));
}

static void add_formals(struct qv_function *f, const struct qv_program *program,
                        const struct qv_page *page)
{
    f->is_closed = 1;
    f->formal_count = f->formal_capacity = 1 + page->parent_count;
    f->formals = qr_calloc(f->formal_count, sizeof *f->formals);
    for (size_t i = 0; i < f->formal_count; i++) {
        f->formals[i].type = i ? program->pages[page->parents[i - 1].page].type : page->type;
        snprintf(f->formals[i].name, sizeof f->formals[i].name, i ? "in%zu" : "out", i);
    }
}

static struct qv_function *add_function(struct generator *g)
{
    struct qv_function *f = &g->program->functions[g->program->function_count];

    snprintf(f->name, sizeof f->name, "f%zu", g->program->function_count++);
    return f;
}

/* Of another size, by the function of another page that has only parents which are read whole. */
static int add_twin(struct generator *g, struct qv_page *page)
{
    const struct qv_page *other = &g->program->pages[below(g, g->program->page_count)];
    size_t size = other->parent_count * sizeof *other->parents;

    if (!other->is_derived || g->by_units[other->function])
        return 0;
    page->type = other->type;
    page->count = below(g, 100);
    page->function = other->function;
    page->parents = qr_malloc(size);
    memcpy(page->parents, other->parents, size);
    page->parent_count = other->parent_count;
    return 1;
}

static void add_node(struct generator *g)
{
    struct qv_program *p = g->program;
    struct qv_page *page = &p->pages[p->page_count];
    int by_units = chance(g, 60);
    char why[400];

    snprintf(page->name, sizeof page->name, "p%zu", p->page_count);
    page->is_derived = 1;
    if (chance(g, 15) && add_twin(g, page)) {
        p->page_count++;
        return;
    }
    struct qv_function *f = add_function(g);
    page->function = (uint32_t)(f - p->functions);
    do { /* not all sizes fit */
        qr_free(page->parents);
        qr_free(f->formals);
        page->parent_count = 0;
        choose_parents(g, page, by_units);
        choose_size(g, page);
        add_formals(f, p, page);
    } while (qv_check_node(p, p->page_count, why));
    if (!qv_page_is_fixed(page))
        g->by_units[page->function] = (uint32_t)p->page_count;
    else if (chance(g, 30)) /* it calls this one */
        add_formals(add_function(g), p, page);
    p->page_count++;
}

void generate_nodes(struct generator *g)
{
    size_t count = 1 + below(g, GENERATED_NODES);

    for (uint64_t i = below(g, 3); i > 0; i--)
        add_function(g)->is_closed = 1; /* pure */
    while (count-- > 0)
        add_node(g);
}

/* --- code by units --- */

/* Registers: what the function is given, then the unit, an element or a count of it, where in the
 * part of the page its elements begin, and the elements of the part. The others are for anything.
 */
enum { BEGIN, ALL, UNIT, AT, COUNT, OUT, LIMIT, FREE };

static unsigned any(struct generator *g) { return FREE + (unsigned)below(g, GENERATED_REGISTERS); }

/* Jumps over what comes between the two. */
static size_t skip(struct generator *g, uint64_t jump)
{
    put(g, jump);
    return g->function->word_count - 1;
}
static void land(struct generator *g, size_t jump)
{
    uint64_t distance = g->function->word_count - jump - 1;
    g->function->words[jump] |= distance << 32;
}

static uint64_t span_of(const struct qv_parent *parent)
{
    return parent->access == QALLOW_WINDOW ? parent->before + 1 + parent->after : parent->unit;
}

/* An element of a parent: of the unit, or any if it is read whole; mostly one that is there. */
static void load(struct generator *g, const struct qv_page *page)
{
    static const unsigned ops[QB_TYPES] = {QV_LDU8,  QV_LDI8, QV_LDU16, QV_LDI16, QV_LDU32,
                                           QV_LDI32, QV_LD64, QV_LD64,  QV_LDF32, QV_LD64};
    unsigned i = (unsigned)below(g, page->parent_count), number = 1 + i;
    const struct qv_parent *parent = &page->parents[i];
    uint64_t most = parent->unit ? span_of(parent) : 20;
    size_t guard = 0;

    put(g, qv_word(QV_MULI, AT, UNIT, 0, (int64_t)parent->unit));
    put(g, qv_word(QV_ADDI, AT, AT, 0, (int64_t)below(g, most < 20 ? most : 20)));
    if (chance(g, 98)) {
        put(g, qv_word(QV_LEN, COUNT, 0, 0, number));
        guard = skip(g, qv_word(QV_JLEU, COUNT, AT, 0, 0));
    }
    put(g,
        qv_word(ops[g->program->pages[parent->page].type], any(g), AT, 0, qv_element(number, 0)));
    if (guard)
        land(g, guard);
}

/* The type of elements of this size for which there is the instruction. */
static unsigned type_for(struct generator *g, unsigned op, unsigned type)
{
    unsigned found;

    do
        found = (unsigned)below(g, QB_TYPES);
    while (qb_type_shift(found) != qb_type_shift(type) || !qv_types_fit(op, found, 0));
    return found;
}

static struct qv_vector make_vector(unsigned op, unsigned type, unsigned count)
{
    struct qv_vector v = {.op = op, .type = type, .count = count};

    for (int i = 0; i < QV_OPERANDS; i++) {
        v.reg[i] = QV_NO_REGISTER;
        v.page[i] = QV_NO_PAGE;
    }
    return v;
}
static void put_vector(struct generator *g, const struct qv_vector *v)
{
    uint64_t words[2];

    qv_vector_encode(v, words);
    put(g, words[0]);
    put(g, words[1]);
}

/* What there is of the unit, or of all if it is not too long for every unit. */
static void reduce(struct generator *g, const struct qv_page *page)
{
    unsigned i = (unsigned)below(g, page->parent_count), number = 1 + i;
    const struct qv_parent *parent = &page->parents[i];
    const struct qv_page *from = &g->program->pages[parent->page];
    unsigned op, least = any(g);

    if (!parent->unit && from->count > 10 * FEW)
        return;
    do
        op = QV_REDUCE_ADD + (unsigned)below(g, QV_REDUCE_XOR - QV_REDUCE_ADD + 1);
    while (!qv_types_fit(op, from->type, 0));
    struct qv_vector v = make_vector(op, type_for(g, op, from->type), QV_NO_REGISTER);
    v.reg[0] = any(g);
    v.page[1] = number;
    if (parent->unit) {
        put(g, qv_word(QV_MULI, AT, UNIT, 0, (int64_t)parent->unit));
        put(g, qv_word(QV_LEN, COUNT, 0, 0, number));
        put(g, qv_word(QV_MINU, AT, AT, COUNT, 0));
        put(g, qv_word(QV_SUB, COUNT, COUNT, AT, 0));
        put(g, qv_word(QV_LI, least, 0, 0, (int64_t)span_of(parent)));
        put(g, qv_word(QV_MINU, COUNT, COUNT, least, 0));
        v.reg[1] = AT;
        v.count = COUNT;
    }
    put_vector(g, &v);
}

static void arithmetic(struct generator *g)
{
    unsigned op;

    do
        op = (unsigned)below(g, QV_VADD);
    while (generate_is_effect(op) || op == QV_TRAP || !qv_ops[op].operands[0] ||
           qv_ops[op].operands[strspn(qv_ops[op].operands, "ABCihk")]);
    generate_scalar(g, op);
}

static void call_pure(struct generator *g)
{
    for (size_t i = 0; i < g->program->function_count; i++) {
        const struct qv_function *f = &g->program->functions[i];
        if (f->is_closed && f->formal_count == 0 && chance(g, 60)) {
            put(g, qv_word(QV_CALL, any(g), 0, 0, (int64_t)i));
            return;
        }
    }
}

static void item(struct generator *g, const struct qv_page *page)
{
    switch (below(g, 8)) {
    case 0:
    case 1:
        load(g, page);
        break;
    case 2:
        reduce(g, page);
        break;
    case 3:
        call_pure(g);
        break;
    default:
        arithmetic(g);
    }
}

/* Some elements of the unit, the last one of a page may have fewer. */
static void store_range(struct generator *g, const struct qv_page *page, uint64_t unit)
{
    static const unsigned ops[] = {QV_VADD, QV_VMUL, QV_VSUB, QV_VMIN, QV_VMAX, QV_VMOV};
    unsigned op = ops[below(g, sizeof ops / sizeof *ops)];
    struct qv_vector v = make_vector(op, type_for(g, op, page->type), COUNT);

    put(g, qv_word(QV_SUB, AT, LIMIT, OUT, 0));
    put(g, qv_word(QV_LI, COUNT, 0, 0, (int64_t)(1 + below(g, unit))));
    put(g, qv_word(QV_MINU, COUNT, COUNT, AT, 0));
    v.page[0] = 0;
    v.reg[0] = OUT;
    v.reg[1] = any(g);
    if (op != QV_VMOV) {
        v.page[1] = 0;
        v.reg[1] = OUT;
        v.reg[2] = any(g);
    }
    put_vector(g, &v);
}

static void store(struct generator *g, const struct qv_page *page, uint64_t unit)
{
    static const unsigned ops[QB_TYPES] = {QV_ST8,  QV_ST8,  QV_ST16, QV_ST16,  QV_ST32,
                                           QV_ST32, QV_ST64, QV_ST64, QV_STF32, QV_ST64};

    if (unit > 1 && chance(g, 50)) {
        store_range(g, page, unit);
        return;
    }
    put(g, qv_word(QV_ADDI, AT, OUT, 0, (int64_t)below(g, unit < 8 ? unit : 8)));
    size_t guard = skip(g, qv_word(QV_JLEU, LIMIT, AT, 0, 0));
    put(g, qv_word(ops[page->type], any(g), AT, 0, qv_element(0, 0)));
    land(g, guard);
}

/* All registers that random instructions, and functions that they call, may read. */
static void begin_anew(struct generator *g)
{
    for (unsigned r = FREE; r < g->function->registers; r++)
        put(g, qv_word(QV_LI, r, 0, 0, (int64_t)below(g, 300) - 20));
}

/* Compares any two. */
static size_t skip_somehow(struct generator *g)
{
    static const unsigned jumps[] = {QV_JEQ, QV_JNE, QV_JLT, QV_JLE, QV_JLTU, QV_JLEU, QV_JFLT};
    unsigned op = jumps[below(g, sizeof jumps / sizeof *jumps)], a = any(g), b = any(g);

    return skip(g, qv_word(op, a, b, 0, 0));
}

static void body(struct generator *g, const struct qv_page *page, uint64_t unit)
{
    begin_anew(g);
    if (g->function->arguments > 0 && chance(g, 50))
        put(g, qv_word(QV_ADD, any(g), BEGIN, OUT, 0)); /* where in the page it is */
    if (chance(g, 20))
        put(g, qv_word(QV_MOV, any(g), ALL, 0, 0));
    load(g, page);
    for (uint64_t i = 2 + below(g, 9); i > 0; i--) {
        int is_skipped = chance(g, 20);
        size_t jump = is_skipped ? skip_somehow(g) : 0;
        item(g, page);
        if (is_skipped)
            land(g, jump);
    }
    if (chance(g, 10)) { /* it may fail */
        unsigned number = (unsigned)below(g, 4);
        size_t jump = skip(g, qv_word(QV_JNEI, any(g), number, 0, 0));
        put(g, qv_word(QV_TRAP, 0, 0, 0, (int64_t)below(g, 100)));
        land(g, jump);
    }
    for (uint64_t i = 1 + below(g, 3); i > 0; i--)
        store(g, page, unit);
}

static void loop(struct generator *g, const struct qv_page *page)
{
    uint64_t unit = qv_node_unit(g->program, page);

    put(g, qv_word(QV_LEN, LIMIT, 0, 0, 0));
    size_t begin = g->function->word_count;
    size_t end = skip(g, qv_word(QV_JLE, LIMIT, OUT, 0, 0));
    body(g, page, unit);
    put(g, qv_word(QV_ADDI, UNIT, UNIT, 0, 1));
    put(g, qv_word(QV_ADDI, OUT, OUT, 0, (int64_t)unit));
    put(g, qv_word(QV_JMP, 0, 0, 0, (int64_t)begin - (int64_t)g->function->word_count - 1));
    land(g, end);
}

/* --- code of vectors --- */

/* Whether everything has elements of the same size, one for one. */
static int is_vector(const struct qv_program *program, const struct qv_page *page)
{
    for (size_t i = 0; i < page->parent_count; i++) {
        const struct qv_page *from = &program->pages[page->parents[i].page];
        if (page->parents[i].unit != 1 || from->count != page->count ||
            qb_type_shift(from->type) != qb_type_shift(page->type))
            return 0;
    }
    return 1;
}

/* The page, or a parent whose elements are at the same place. */
static unsigned same_place(struct generator *g, const struct qv_page *page)
{
    uint64_t i = below(g, page->parent_count + 1);

    return i && page->parents[i - 1].access != QALLOW_WINDOW ? (unsigned)i : 0;
}

static void map(struct generator *g, const struct qv_page *page)
{
    unsigned op;

    do
        op = QV_VADD + (unsigned)below(g, QV_VROUND - QV_VADD + 1);
    while (!qv_types_fit(op, page->type, 0));
    struct qv_vector v = make_vector(op, type_for(g, op, page->type), QV_NO_REGISTER);
    v.page[0] = 0;
    for (int i = 1; qv_ops[op].operands[i]; i++)
        if (qv_ops[op].operands[i] == 'X' && chance(g, 25))
            v.reg[i] = any(g);
        else
            v.page[i] = same_place(g, page);
    put_vector(g, &v);
}

static void window(struct generator *g, const struct qv_page *page, unsigned i)
{
    unsigned op = QV_WINDOW_ADD + (unsigned)below(g, 3);
    struct qv_vector v = make_vector(op, type_for(g, op, page->type), QV_NO_REGISTER);

    v.page[0] = 0;
    v.page[1] = 1 + i;
    v.reg[2] = COUNT;
    put(g, qv_word(QV_LI, COUNT, 0, 0, (int64_t)span_of(&page->parents[i])));
    put_vector(g, &v);
}

static void vectors(struct generator *g, const struct qv_page *page)
{
    begin_anew(g);
    for (unsigned i = 0; i < page->parent_count; i++)
        if (page->parents[i].access == QALLOW_WINDOW)
            window(g, page, i);
    for (uint64_t i = 1 + below(g, 4); i > 0; i--)
        map(g, page);
}

void generate_units(struct generator *g, const struct qv_page *page)
{
    g->first_register = FREE;
    g->function->registers = FREE + GENERATED_REGISTERS + 3;
    if (is_vector(g->program, page) && chance(g, 60))
        vectors(g, page);
    else
        loop(g, page);
    put(g, qv_word(QV_RET, 0, 0, 0, 0));
}
