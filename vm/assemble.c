/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The assembler: text, line by line, to a program. The grammar stands in docs/vm.md. Functions may
 * be called before they are written, so a first pass collects their names; everything else is named
 * before it is used, and labels are known within one function.
 */
#include <stdio.h>
#include <string.h>

#include "runtime/error.h"
#include "runtime/os.h"
#include "vm/assemble_internal.h"

static int no_memory(void) { return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the program"); }

/* --- declarations --- */

int qv_parse_page(struct qv_parser *p, struct qv_page *page)
{
    struct qv_span span = (qv_skip_blanks(p), qv_next_token(p));
    int rc = qv_parse_name(p, "a name for the page", page->name);

    if (rc < 0)
        return rc;
    if (page->name[0] == 'r' && page->name[1] >= '0' && page->name[1] <= '9')
        return qv_wrong(p, span, "%s looks like a register", page->name);
    if (qv_find_page(p->program, page->name) >= 0)
        return qv_wrong(p, span, "there is a page %s already", page->name);
    if (p->program->page_count == QV_MAX_PAGES)
        return qv_wrong(p, span, "more than %d pages", QV_MAX_PAGES);
    rc = qv_parse_type(p, &page->type);
    return rc < 0 ? rc : qv_parse_size(p, "the number of elements", QV_MAX_COUNT, &page->count);
}

int qv_add_page(struct qv_parser *p, const struct qv_page *page)
{
    struct qv_program *program = p->program;

    if (QR_GROW(program->pages, program->page_count, program->page_capacity) < 0)
        return no_memory();
    program->pages[program->page_count++] = *page;
    return 0;
}

static int parse_page(struct qv_parser *p, int is_input)
{
    struct qv_page page = {.is_input = is_input};
    int rc = qv_parse_page(p, &page);

    return rc < 0 ? rc : qv_add_page(p, &page);
}

static int append_data(struct qv_page *page, const void *bytes, size_t length)
{
    while (page->initial_capacity - page->initial_size < length) {
        size_t capacity = page->initial_capacity ? page->initial_capacity * 2 : 256;
        uint8_t *grown = qr_realloc(page->initial, capacity);
        if (!grown)
            return no_memory();
        page->initial = grown;
        page->initial_capacity = capacity;
    }
    memcpy(page->initial + page->initial_size, bytes, length);
    page->initial_size += length;
    return 0;
}

static int parse_datum(struct qv_parser *p, struct qv_page *page)
{
    struct qv_number n;
    struct qv_span span = (qv_skip_blanks(p), (struct qv_span){p->at, 1});
    int rc = qv_parse_number(p, &n);

    if (rc < 0)
        return rc;
    span.length = (size_t)(p->at - span.at);
    if (page->initial_size + ((size_t)1 << qb_type_shift(page->type)) > qv_page_bytes(page))
        return qv_wrong(p, span, "%s has only %llu elements", page->name,
                        (unsigned long long)page->count);
    unsigned bits = 8u << qb_type_shift(page->type);
    if (qb_type_is_float(page->type) && !n.is_hex) { /* in hex: the bits as they are */
        double value = n.is_negative ? (double)(int64_t)n.bits : (double)n.bits;
        if (n.is_float)
            memcpy(&value, &n.bits, sizeof value);
        float single = (float)value;
        return page->type == QB_F64 ? append_data(page, &value, sizeof value)
                                    : append_data(page, &single, sizeof single);
    }
    int is_signed = !qb_type_is_float(page->type) && (page->type & 1);
    uint64_t least = is_signed ? (uint64_t)0 - ((uint64_t)1 << (bits - 1)) : 0;
    uint64_t most = is_signed ? ((uint64_t)1 << (bits - 1)) - 1 : UINT64_MAX >> (64 - bits);
    if (n.is_float || (n.is_negative && n.bits != 0 ? n.bits < least || least == 0 : n.bits > most))
        return qv_wrong(p, span, "this is not a number of type %s", qv_type_names[page->type]);
    return append_data(page, &n.bits, bits / 8);
}

static int parse_data(struct qv_parser *p)
{
    char name[QV_MAX_NAME + 1];
    struct qv_span span = (qv_skip_blanks(p), qv_next_token(p));
    int rc = qv_parse_name(p, "the name of a page", name);
    int page = rc < 0 ? -1 : qv_find_page(p->program, name);

    if (rc < 0)
        return rc;
    if (page < 0)
        return qv_wrong(p, span, "there is no page %s above", name);
    if (p->program->pages[page].is_input)
        return qv_wrong(p, span, "%s is an input: what it holds comes from outside", name);
    if (p->program->pages[page].is_derived)
        return qv_wrong(p, span, "%s is computed: what it holds comes from its parents", name);
    while (rc == 0 && !qv_at_end(p)) {
        rc = parse_datum(p, &p->program->pages[page]);
        qv_accept(p, ',');
    }
    return rc;
}

static int parse_const(struct qv_parser *p)
{
    struct qv_constant constant;
    struct qv_span span = (qv_skip_blanks(p), qv_next_token(p));
    int rc = qv_parse_name(p, "a name for the constant", constant.name);

    if (rc < 0)
        return rc;
    for (size_t i = 0; i < p->constant_count; i++)
        if (strcmp(p->constants[i].name, constant.name) == 0)
            return qv_wrong(p, span, "there is a constant %s already", constant.name);
    if (p->constant_count == QV_MAX_LABELS)
        return qv_wrong(p, span, "more than %d constants", QV_MAX_LABELS);
    rc = qv_parse_number(p, &constant.value);
    if (rc < 0)
        return rc;
    if (QR_GROW(p->constants, p->constant_count, p->constant_capacity) < 0)
        return no_memory();
    p->constants[p->constant_count++] = constant;
    return 0;
}

/* The end of a function, where its jumps find their labels. */
static int end_function(struct qv_parser *p)
{
    int rc = p->function ? qv_resolve_labels(p) : 0;
    p->function = NULL;
    return rc;
}

/* NAME, or NAME@AGE: an old definition, which only stands below .world. */
static int parse_function_name(struct qv_parser *p, char name[QV_MAX_FUNCTION_NAME + 1],
                               int64_t *age)
{
    int rc = qv_parse_name(p, "a name for the function", name);

    *age = -1;
    if (rc < 0 || p->at == p->end || *p->at != '@')
        return rc;
    p->at++;
    rc = qv_parse_integer(p, "the world of an old definition", 0, QV_MAX_WORLD, age);
    if (rc == 0)
        snprintf(name + strlen(name), 12, "@%u", (unsigned)*age);
    return rc;
}

static int parse_function(struct qv_parser *p)
{
    char name[QV_MAX_FUNCTION_NAME + 1];
    int64_t arguments = 0, age = 0;
    int rc = end_function(p);
    struct qv_span span = (qv_skip_blanks(p), qv_next_token(p));

    if (rc == 0)
        rc = parse_function_name(p, name, &age);
    if (rc == 0 && p->below_world != (age >= 0))
        rc = qv_wrong(p, span,
                      "old definitions, NAME@AGE, and nothing else stand below .world, which the "
                      "machine writes");
    if (rc == 0 && age >= (int64_t)p->program->world)
        rc = qv_wrong(p, span, "an old definition of world %u in world %u", (unsigned)age,
                      p->program->world);
    if (rc < 0)
        return rc;
    int index = qv_find_function(p->program, name);
    p->function = &p->program->functions[index];
    p->function->age = age >= 0 ? (uint32_t)age : 0;
    if (age >= 0 && qv_current_of(p->program, (uint32_t)index) == (uint32_t)index)
        return qv_wrong(p, span, "an old definition of a function that there is not");
    rc = qv_parse_formals(p);
    if (rc == 0 && !p->function->is_closed && !qv_at_end(p)) {
        rc = qv_parse_integer(p, "the number of arguments", 0, QV_REGISTERS, &arguments);
        if (rc == 0)
            rc = qv_parse_formals(p);
    }
    p->function->arguments = (uint32_t)arguments;
    if (p->function->registers < arguments)
        p->function->registers = (uint32_t)arguments;
    return rc;
}

/* What the machine writes behind the text once the program has been patched (vm/world.h). */
static int parse_world(struct qv_parser *p)
{
    int64_t world = 0;
    int rc = end_function(p);

    if (rc == 0 && p->below_world)
        rc = qv_wrong(p, qv_next_token(p), "there is a .world already");
    if (rc == 0)
        rc = qv_parse_integer(p, "the number of the world", 1, QV_MAX_WORLD, &world);
    p->program->world = (uint32_t)world;
    p->program->source_length = (size_t)(p->line_start - p->text);
    p->below_world = 1;
    return rc;
}

static int parse_age(struct qv_parser *p)
{
    char name[QV_MAX_NAME + 1];
    int64_t age = 0;
    struct qv_span span = (qv_skip_blanks(p), qv_next_token(p));
    int rc = qv_parse_name(p, "the name of a function", name);
    int function = rc < 0 ? -1 : qv_find_function(p->program, name);

    if (rc < 0)
        return rc;
    if (function < 0)
        return qv_wrong(p, span, "there is no function %s", name);
    rc = qv_parse_integer(p, "the world in which it was defined", 0, p->program->world, &age);
    p->program->functions[function].age = (uint32_t)age;
    return rc;
}

static int parse_limit(struct qv_parser *p, const char *what, uint64_t least, uint64_t greatest,
                       uint64_t *limit)
{
    struct qv_span span = (qv_skip_blanks(p), qv_next_token(p));
    int rc = qv_parse_size(p, what, greatest, limit);

    if (rc == 0 && *limit < least)
        rc = qv_wrong(p, span, "expected %s: at least %llu", what, (unsigned long long)least);
    return rc;
}

static int parse_directive(struct qv_parser *p)
{
    struct qv_span word = qv_word_here(p, 1);
    uint64_t limit = 0;
    int rc;

    if (qv_span_is(word, ".func"))
        return parse_function(p);
    if (qv_span_is(word, ".world"))
        return parse_world(p);
    if (p->below_world && qv_span_is(word, ".age"))
        return parse_age(p);
    if (p->below_world)
        return qv_wrong(p, word, "what a program says stands above .world");
    if (qv_span_is(word, ".page") || qv_span_is(word, ".input"))
        return parse_page(p, qv_span_is(word, ".input"));
    if (qv_span_is(word, ".node"))
        return qv_parse_node(p);
    if (qv_span_is(word, ".data"))
        return parse_data(p);
    if (qv_span_is(word, ".const"))
        return parse_const(p);
    if (qv_span_is(word, ".memory"))
        return parse_limit(p, "bytes of memory", 0, (uint64_t)1 << 48, &p->program->memory);
    if (qv_span_is(word, ".fuel")) {
        rc = parse_limit(p, "fuel for one tick", 1, QV_MAX_FUEL, &p->program->fuel);
        return rc < 0 || qv_at_end(p) ? rc
                                      : parse_limit(p, "fuel for a call of a node's function", 1,
                                                    QV_MAX_FUEL, &p->program->node_fuel);
    }
    if (qv_span_is(word, ".stack")) {
        rc = parse_limit(p, "registers of the stack", QV_REGISTERS, QV_MAX_STACK, &limit);
        p->program->stack = (uint32_t)limit;
        return rc;
    }
    if (qv_span_is(word, ".depth")) {
        rc = parse_limit(p, "calls within calls", 1, QV_MAX_DEPTH, &limit);
        p->program->depth = (uint32_t)limit;
        return rc;
    }
    return qv_wrong(p, word,
                    "no such directive: there are .memory .fuel .stack .depth .page "
                    ".input .node .data .const .func");
}

/* --- lines --- */

static int parse_label(struct qv_parser *p, int *found)
{
    struct qv_label label;
    const char *from = p->at;
    struct qv_span span = qv_word_here(p, 0);

    *found = span.length > 0 && p->at < p->end && *p->at == ':';
    p->at = from;
    if (!*found)
        return 0;
    int rc = qv_parse_name(p, "a label", label.name);
    if (rc < 0)
        return rc;
    p->at++; /* the colon */
    if (!p->function)
        return qv_wrong(p, span, "a label outside a function: .func NAME comes first");
    for (size_t i = 0; i < p->function->label_count; i++)
        if (strcmp(p->function->labels[i].name, label.name) == 0)
            return qv_wrong(p, span, "there is a label %s already in %s", label.name,
                            p->function->name);
    if (p->function->label_count == QV_MAX_LABELS)
        return qv_wrong(p, span, "more than %d labels in %s", QV_MAX_LABELS, p->function->name);
    label.word = (uint32_t)p->function->word_count;
    if (QR_GROW(p->function->labels, p->function->label_count, p->function->label_capacity) < 0)
        return no_memory();
    p->function->labels[p->function->label_count++] = label;
    return 0;
}

static int parse_line(struct qv_parser *p)
{
    int found = 1, rc = 0;

    while (rc == 0 && found && !qv_at_end(p))
        rc = parse_label(p, &found);
    if (rc < 0 || qv_at_end(p))
        return rc;
    if (*p->at == '.')
        rc = parse_directive(p);
    else
        rc = qv_parse_instruction(p);
    if (rc == 0 && !qv_at_end(p))
        rc = qv_wrong(p, qv_next_token(p), "expected the end of the line");
    return rc;
}

/* First pass: only `.func NAME` counts. */
static int collect_function(struct qv_parser *p)
{
    struct qv_program *program = p->program;
    struct qv_function function = {.registers = 0};
    int64_t age = 0;

    if (qv_at_end(p) || *p->at != '.' || !qv_span_is(qv_word_here(p, 1), ".func"))
        return 0;
    struct qv_span span = (qv_skip_blanks(p), qv_next_token(p));
    int rc = parse_function_name(p, function.name, &age);
    if (rc < 0)
        return rc;
    if (qv_find_function(program, function.name) >= 0)
        return qv_wrong(p, span, "there is a function %s already", function.name);
    if (program->function_count == QV_MAX_FUNCTIONS)
        return qv_wrong(p, span, "more than %d functions", QV_MAX_FUNCTIONS);
    if (QR_GROW(program->functions, program->function_count, program->function_capacity) < 0)
        return no_memory();
    program->functions[program->function_count++] = function;
    program->retired_count += age >= 0;
    return 0;
}

static int each_line(struct qv_parser *p, const char *text, size_t length,
                     int (*parse)(struct qv_parser *p))
{
    int rc = 0;

    p->text = text;
    p->text_end = text + length;
    p->below_world = 0;
    p->line = 0;
    for (const char *at = text; rc == 0 && at < p->text_end;) {
        const char *newline = memchr(at, '\n', (size_t)(p->text_end - at));
        p->line_start = p->at = at;
        p->end = newline ? newline : p->text_end;
        p->line++;
        at = p->end + 1;
        rc = parse(p);
    }
    return rc;
}

/* A function has the registers in which those it calls find their arguments. */
static void count_arguments(struct qv_program *program)
{
    for (size_t i = 0; i < program->function_count; i++) {
        struct qv_function *f = &program->functions[i];
        for (size_t word = 0; word < f->word_count;) {
            unsigned op = qv_word_op(f->words[word]);
            if (op == QV_CALL) {
                uint32_t needed = qv_word_a(f->words[word]) +
                                  program->functions[qv_word_imm(f->words[word])].arguments;
                f->registers = needed > f->registers ? needed : f->registers;
            }
            word += qv_op_words(op);
        }
    }
}

static int parse_all(struct qv_parser *p, const char *text, size_t length)
{
    int rc = each_line(p, text, length, collect_function);

    if (rc == 0)
        rc = each_line(p, text, length, parse_line);
    if (rc == 0)
        rc = end_function(p);
    if (rc == 0)
        rc = qv_check_nodes(p, text, length);
    if (rc == 0)
        count_arguments(p->program);
    if (rc == 0 && qv_find_function(p->program, "main") < 0) {
        p->line_start = p->text_end = text; /* it is nowhere, so say it at the beginning */
        p->line = 1;
        rc = qv_wrong(p, (struct qv_span){text, 1}, "there is no function main: .func main");
    }
    return rc;
}

int qv_assemble(const char *text, size_t length, const char *path, struct qv_program **program,
                struct qv_source_error *error)
{
    struct qv_parser p = {.error = error};

    *program = NULL;
    memset(error, 0, sizeof *error);
    p.program = qr_calloc(1, sizeof *p.program);
    if (!p.program)
        return no_memory();
    p.program->memory = QV_DEFAULT_MEMORY;
    p.program->fuel = QV_DEFAULT_FUEL;
    p.program->stack = QV_DEFAULT_STACK;
    p.program->depth = QV_DEFAULT_DEPTH;
    p.program->source_length = length;
    int rc = parse_all(&p, text, length);
    qr_free(p.constants);
    qr_free(p.fixups);
    if (rc == QALLOW_E_ARGUMENT)
        qr_fail(rc, "%s:%zu:%zu: %s", qr_quotez(path), error->line, error->column, error->message);
    if (rc == 0) {
        rc = qv_verify(p.program);
        if (rc == QALLOW_E_SERIALIZATION) {
            snprintf(error->message, sizeof error->message, "%s", qallow_error_detail());
            rc = qr_fail(QALLOW_E_ARGUMENT, "%s: %s", qr_quotez(path), error->message);
        }
    }
    if (rc < 0) {
        qv_program_destroy(p.program);
        return rc;
    }
    *program = p.program;
    return 0;
}
