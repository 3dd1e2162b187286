/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The verifier: everything the interpreter does not check at run time. It reads hostile bytes, so
 * nothing is used before it is looked at, and it takes time in proportion to the code.
 *
 * Proven for every instruction: its opcode, registers (below the function's number), pages,
 * functions, names and types exist; what it writes to is no input; fields it does not use are 0; a
 * jump goes to the beginning of an instruction of its function; the last one does not fall through.
 * Left to run time, since it depends on values: elements, the depth of calls, fuel.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "runtime/error.h"
#include "runtime/os.h"
#include "vm/program.h"

struct check {
    const struct qv_program *program;
    const struct qv_function *function;
    uint32_t word;
    const uint8_t *starts; /* 1 where an instruction begins */
};

__attribute__((format(printf, 2, 3))) static int wrong(const struct check *c, const char *format,
                                                       ...)
{
    char what[160];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    if (c->word < c->function->word_count && c->function->lines && c->function->lines[c->word])
        return qr_fail(QALLOW_E_SERIALIZATION, "line %u: %s", c->function->lines[c->word], what);
    return qr_fail(QALLOW_E_SERIALIZATION, "function %s, word %u: %s", qr_quotez(c->function->name),
                   c->word, what);
}

/* --- operands --- */

static int check_register(const struct check *c, unsigned number)
{
    if (number >= c->function->registers)
        return wrong(c, "register r%u of %u", number, c->function->registers);
    return 0;
}

static int check_page(const struct check *c, unsigned page, int is_written)
{
    if (c->function->is_closed) {
        if (page >= c->function->formal_count)
            return wrong(c, "page %u of the function's %zu", page, c->function->formal_count);
        return is_written && page != 0
                   ? wrong(c, "writes to %s, which it only reads", c->function->formals[page].name)
                   : 0;
    }
    if (page >= c->program->page_count)
        return wrong(c, "page %u of %zu", page, c->program->page_count);
    if (is_written && c->program->pages[page].is_input)
        return wrong(c, "writes to the input %s", c->program->pages[page].name);
    if (is_written && c->program->pages[page].is_derived)
        return wrong(c, "writes to %s, which is computed", c->program->pages[page].name);
    return 0;
}

static int check_jump(const struct check *c, int64_t distance)
{
    int64_t to = (int64_t)c->word + 1 + distance;

    if (to < 0 || to >= (int64_t)c->function->word_count || !c->starts[to])
        return wrong(c, "a jump to word %lld, where no instruction begins", (long long)to);
    return 0;
}

/* Pages have their numbers from the function, so a function that calls another one has the same, or
 * the other one has none. */
static int check_pages_of_call(const struct check *c, const struct qv_function *to)
{
    const struct qv_function *from = c->function;
    size_t same = 0;

    if (from->is_closed && !to->is_closed)
        return wrong(c,
                     "%s may do more than compute: a function of pages calls only such functions "
                     "and pure ones",
                     qr_quotez(to->name));
    if (!to->is_closed || to->formal_count == 0)
        return 0;
    while (same < to->formal_count && same < from->formal_count &&
           to->formals[same].type == from->formals[same].type)
        same++;
    if (from->formal_count != to->formal_count || same != to->formal_count)
        return wrong(c, "%s is a function of other pages", qr_quotez(to->name));
    return 0;
}

/* Arguments lie in the caller's registers, so that nothing above its own is ever read. */
static int check_call(const struct check *c, unsigned a, uint64_t to)
{
    if (to >= qv_current_count(c->program))
        return wrong(c, "function %llu of %zu", (unsigned long long)to,
                     qv_current_count(c->program));
    if (a + c->program->functions[to].arguments > c->function->registers)
        return wrong(c, "the arguments of %s from r%u on reach beyond register r%u",
                     qr_quotez(c->program->functions[to].name), a, c->function->registers - 1);
    return check_pages_of_call(c, &c->program->functions[to]);
}

/* Which fields a letter has: bits 0 to 2 for a, b and c, bit 3 for imm. */
static unsigned fields_of(char letter)
{
    switch (letter) {
    case 'A':
        return 1;
    case 'B':
        return 2;
    case 'C':
        return 4;
    case 'h':
        return 6;
    case 'm':
    case 'w':
        return 10;
    case 'k':
        return 0;
    default:
        return 8;
    }
}

static int check_operand(const struct check *c, char letter, uint64_t w)
{
    uint64_t imm = (uint64_t)qv_word_imm(w);

    switch (letter) {
    case 'A':
        return check_register(c, qv_word_a(w));
    case 'B':
        return check_register(c, qv_word_b(w));
    case 'C':
        return check_register(c, qv_word_c(w));
    case 'm':
    case 'w':
        if (check_page(c, qv_word_page(w), letter == 'w') < 0)
            return QALLOW_E_SERIALIZATION;
        return check_register(c, qv_word_b(w));
    case 'j':
        return check_jump(c, qv_word_imm(w));
    case 'g':
        return check_call(c, qv_word_a(w), imm);
    case 'p':
        return imm < QV_NO_PAGE ? check_page(c, (unsigned)imm, 0)
                                : wrong(c, "page %llu", (unsigned long long)imm);
    case 'n':
        return imm < c->program->name_count
                   ? 0
                   : wrong(c, "name %llu of %zu", (unsigned long long)imm, c->program->name_count);
    default: /* numbers: i h k */
        return 0;
    }
}

/* What a function that only computes must not do. */
static int is_effect(unsigned op)
{
    return op == QV_COMMIT || op == QV_HALT || op == QV_EMIT || op == QV_EMITU || op == QV_EMITF ||
           op == QV_RAND || op == QV_TICK;
}

static int check_scalar(const struct check *c, unsigned op, uint64_t w)
{
    unsigned fields = 0;
    int rc = 0;

    if (c->function->is_closed && is_effect(op))
        return wrong(c, "%s in a function that only computes", qv_ops[op].mnemonic);

    for (const char *letter = qv_ops[op].operands; rc == 0 && *letter; letter++) {
        fields |= fields_of(*letter);
        rc = check_operand(c, *letter, w);
    }
    if (rc == 0 && ((!(fields & 1) && qv_word_a(w)) || (!(fields & 2) && qv_word_b(w)) ||
                    (!(fields & 4) && qv_word_c(w)) || (!(fields & 8) && qv_word_imm(w))))
        rc = wrong(c, "%s has no such operand", qv_ops[op].mnemonic);
    return rc;
}

/* --- vectors --- */

static int check_range(const struct check *c, char letter, unsigned page, unsigned reg)
{
    int rc = check_page(c, page, strchr("DMH", letter) != NULL);
    return rc < 0 || reg == QV_NO_REGISTER ? rc : check_register(c, reg);
}

static int check_vector_operand(const struct check *c, char letter, unsigned page, unsigned reg)
{
    int is_register = page == QV_NO_PAGE;

    if (letter == '\0')
        return is_register && reg == QV_NO_REGISTER ? 0 : wrong(c, "an operand too many");
    if (letter == 'R' || letter == 'S') {
        if (!is_register)
            return wrong(c, "a range where a register belongs");
        return check_register(c, reg);
    }
    if (is_register && (letter == 'X' || letter == 'W'))
        return check_register(c, reg);
    return check_range(c, letter, page, reg);
}

static int check_vector(const struct check *c, const uint64_t *words)
{
    struct qv_vector v;
    const char *letter;
    int rc = 0;

    qv_vector_decode(words, &v);
    if (!qv_types_fit(v.op, v.type, v.type2) || words[0] >> 56 != 0)
        return wrong(c, "%s of types %u and %u", qv_ops[v.op].mnemonic, v.type, v.type2);
    letter = qv_ops[v.op].operands;
    for (int i = 0; rc == 0 && i < QV_OPERANDS; i++) {
        rc = check_vector_operand(c, *letter, v.page[i], v.reg[i]);
        letter += *letter != '\0';
    }
    if (rc == 0 && v.count != QV_NO_REGISTER)
        rc = check_register(c, v.count);
    return rc;
}

/* --- functions --- */

/* Marks where instructions begin; every opcode is known and every instruction is whole. */
static int mark(struct check *c, uint8_t *starts)
{
    const struct qv_function *f = c->function;

    memset(starts, 0, f->word_count);
    for (c->word = 0; c->word < f->word_count;) {
        unsigned op = qv_word_op(f->words[c->word]);
        if (op >= QV_OPS)
            return wrong(c, "opcode %u", op);
        if (f->word_count - c->word < qv_op_words(op))
            return wrong(c, "%s is cut off", qv_ops[op].mnemonic);
        starts[c->word] = 1;
        c->word += qv_op_words(op);
    }
    return 0;
}

static int check_code(struct check *c)
{
    const struct qv_function *f = c->function;
    unsigned last = QV_NOP;
    int rc = 0;

    for (c->word = 0; rc == 0 && c->word < f->word_count; c->word += qv_op_words(last)) {
        last = qv_word_op(f->words[c->word]);
        rc = qv_ops[last].is_vector ? check_vector(c, f->words + c->word)
                                    : check_scalar(c, last, f->words[c->word]);
        if (rc < 0)
            return rc;
    }
    c->word -= qv_op_words(last);
    if (last != QV_JMP && last != QV_RET && last != QV_HALT && last != QV_TRAP)
        rc = wrong(c, "%s ends with %s; the last instruction must be jmp, ret, halt or trap",
                   qr_quotez(f->name), qv_ops[last].mnemonic);
    return rc;
}

static int check_function(const struct qv_program *program, const struct qv_function *f)
{
    struct check c = {.program = program, .function = f};

    if (f->registers > QV_REGISTERS || f->arguments > f->registers)
        return wrong(&c, "%u registers, %u arguments", f->registers, f->arguments);
    if (f->word_count == 0 || f->word_count > QV_MAX_WORDS)
        return qr_fail(QALLOW_E_SERIALIZATION, "function %s has no instructions",
                       qr_quotez(f->name));
    uint8_t *starts = qr_malloc(f->word_count);
    if (!starts)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory to verify %s", qr_quotez(f->name));
    c.starts = starts;
    int rc = mark(&c, starts);
    if (rc == 0)
        rc = check_code(&c);
    qr_free(starts);
    return rc;
}

/* --- derived pages --- */

uint64_t qv_node_unit(const struct qv_program *program, const struct qv_page *page)
{
    const struct qv_parent *parent = page->parents;

    while (parent < page->parents + page->parent_count && !parent->unit)
        parent++;
    if (parent == page->parents + page->parent_count)
        return page->count ? page->count : 1;
    const struct qv_page *from = &program->pages[parent->page];
    unsigned shift = qb_type_shift(page->type), from_shift = qb_type_shift(from->type);
    if (qv_page_bytes(page) == qv_page_bytes(from)) { /* as long as the parent, to the byte */
        uint64_t bytes = parent->unit << from_shift;
        return shift > from_shift ? 0 : bytes >> shift;
    }
    uint64_t units = from->count / parent->unit + (from->count % parent->unit != 0);
    return units && page->count && page->count % units == 0 ? page->count / units : 0;
}

/* A parent that ends within an element would give a page that does. */
static int is_wider(const struct qv_program *program, const struct qv_page *page)
{
    size_t i = 0;

    while (i < page->parent_count && !page->parents[i].unit)
        i++;
    if (i == page->parent_count)
        return 0;
    const struct qv_page *from = &program->pages[page->parents[i].page];
    return qv_page_bytes(page) == qv_page_bytes(from) &&
           qb_type_shift(page->type) > qb_type_shift(from->type);
}

static const char *check_parents(const struct qv_program *program, size_t number, char why[400])
{
    const struct qv_page *page = &program->pages[number];
    const struct qv_function *f = &program->functions[page->function];

    for (size_t i = 0; i < page->parent_count; i++) {
        const struct qv_parent *parent = &page->parents[i];
        if (parent->page >= number || parent->access > 3 || parent->unit > QV_MAX_COUNT ||
            parent->before > QV_MAX_COUNT || parent->after > QV_MAX_COUNT ||
            (parent->access == 0) != (parent->unit == 0))
            return snprintf(why, 400, "parent %zu of %s is impossible", i, page->name), why;
        const struct qv_page *from = &program->pages[parent->page];
        if (f->formals[1 + i].type != from->type)
            return snprintf(why, 400, "%s takes %s for %s, and %s is of %s", f->name,
                            qv_type_names[f->formals[1 + i].type], f->formals[1 + i].name,
                            from->name, qv_type_names[from->type]),
                   why;
    }
    return NULL;
}

const char *qv_check_node(const struct qv_program *program, size_t number, char why[400])
{
    const struct qv_page *page = &program->pages[number];

    if (page->function >= program->function_count || page->type >= QB_TYPES)
        return snprintf(why, 400, "%s has no function or type", page->name), why;
    const struct qv_function *f = &program->functions[page->function];
    if (!f->is_closed || f->formal_count == 0)
        return snprintf(why, 400, "%s is no function of pages: .func %s of PAGE TYPE, PAGE TYPE",
                        f->name, f->name),
               why;
    if (f->arguments > 2)
        return snprintf(why, 400, "%s takes %u arguments; a page's function is given two at most",
                        f->name, f->arguments),
               why;
    if (page->parent_count == 0 || page->parent_count > QV_MAX_PARENTS ||
        f->formal_count != page->parent_count + 1)
        return snprintf(why, 400, "%s computes its page from %zu others, not from %zu", f->name,
                        f->formal_count - 1, page->parent_count),
               why;
    if (f->formals[0].type != page->type)
        return snprintf(why, 400, "%s computes a page of %s, and %s is of %s", f->name,
                        qv_type_names[f->formals[0].type], page->name, qv_type_names[page->type]),
               why;
    const char *wrong = check_parents(program, number, why);
    if (!wrong && is_wider(program, page))
        return snprintf(why, 400,
                        "%s has as many bytes as its parent: its elements must not be larger",
                        page->name),
               why;
    if (!wrong && qv_node_unit(program, page) == 0)
        return snprintf(why, 400,
                        "%llu elements of %s do not fit: as many as its first parent that is not "
                        "read whole has, or a whole number for each of its units",
                        (unsigned long long)page->count, page->name),
               why;
    return wrong;
}

static int check_pages(const struct qv_program *program)
{
    char why[400];

    for (size_t i = 0; i < program->page_count; i++) {
        const struct qv_page *page = &program->pages[i];
        if (page->type >= QB_TYPES || page->initial_size > qv_page_bytes(page) ||
            (page->is_derived && (page->is_input || page->initial_size)))
            return qr_fail(QALLOW_E_SERIALIZATION, "page %s: its type or its data",
                           qr_quotez(page->name));
        if (page->is_derived && qv_check_node(program, i, why))
            return qr_fail(QALLOW_E_SERIALIZATION, "page %s: %s", qr_quotez(page->name), why);
    }
    return 0;
}

static int check_limits(const struct qv_program *program)
{
    uint64_t memory = qv_program_memory(program);

    for (size_t i = 0; i < program->function_count; i++)
        if (program->functions[i].arguments > QV_REGISTERS)
            return qr_fail(QALLOW_E_SERIALIZATION, "function %s: too many arguments",
                           qr_quotez(program->functions[i].name));
    if (program->page_count > QV_MAX_PAGES || program->function_count > QV_MAX_FUNCTIONS ||
        program->name_count > QV_MAX_NAMES)
        return qr_fail(QALLOW_E_SERIALIZATION, "too many pages, functions or names");
    if (program->fuel < 1 || program->fuel > QV_MAX_FUEL || program->node_fuel > QV_MAX_FUEL ||
        program->stack < QV_REGISTERS || program->stack > QV_MAX_STACK || program->depth < 1 ||
        program->depth > QV_MAX_DEPTH)
        return qr_fail(QALLOW_E_SERIALIZATION, "a limit out of range");
    if (memory > program->memory)
        return qr_fail(QALLOW_E_SERIALIZATION,
                       "pages and stack take %llu bytes, .memory allows "
                       "%llu",
                       (unsigned long long)memory, (unsigned long long)program->memory);
    return check_pages(program);
}

int qv_verify(const struct qv_program *program)
{
    int rc = check_limits(program);
    int entry = qv_find_function(program, "main");

    if (rc == 0 && entry < 0)
        rc = qr_fail(QALLOW_E_SERIALIZATION, "there is no function main");
    if (rc == 0 && program->functions[entry].arguments != 0)
        rc = qr_fail(QALLOW_E_SERIALIZATION, "main has arguments");
    if (rc == 0 && program->functions[entry].is_closed)
        rc = qr_fail(QALLOW_E_SERIALIZATION, "main is no function of pages");
    for (size_t i = 0; rc == 0 && i < program->function_count; i++)
        rc = check_function(program, &program->functions[i]);
    return rc;
}
