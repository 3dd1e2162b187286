/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instructions: the mnemonic is looked up in the table, and the table's letters say what operands
 * to read and where they go.
 */
#include <stdlib.h>
#include <string.h>

#include "runtime/error.h"
#include "runtime/os.h"
#include "vm/assemble_internal.h"

static int put_word(struct qv_parser *p, uint64_t word)
{
    struct qv_function *f = p->function;

    if (f->word_count == QV_MAX_WORDS)
        return qv_wrong(p, (struct qv_span){p->line_start, 1}, "%s has more than %d words", f->name,
                        QV_MAX_WORDS);
    if (QR_GROW(f->words, f->word_count, f->word_capacity) < 0 ||
        QR_GROW(f->lines, f->word_count, f->line_capacity) < 0)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the program");
    f->lines[f->word_count] = (uint32_t)p->line;
    f->words[f->word_count++] = word;
    return 0;
}

/* --- the mnemonic --- */

/* The types of a vector instruction, which end its mnemonic: `.TYPE` or `.TYPE.TYPE`. */
static int split_types(struct qv_span *word, unsigned types[2])
{
    int count = 0;

    while (count < 2) {
        size_t dot = word->length;
        while (dot > 0 && word->at[dot - 1] != '.')
            dot--;
        if (dot == 0)
            break;
        struct qv_span last = {word->at + dot, word->length - dot};
        unsigned type = 0;
        while (type < QB_TYPES && !qv_span_is(last, qv_type_names[type]))
            type++;
        if (type == QB_TYPES)
            break;
        types[1] = types[0];
        types[0] = type;
        word->length = dot - 1;
        count++;
    }
    return count;
}

static int unknown(struct qv_parser *p, struct qv_span word)
{
    return qv_wrong(p, word, "no instruction %.*s; docs/vm.md lists them",
                    (int)(word.length < 40 ? word.length : 40), word.at);
}

static int find_op(struct qv_parser *p, struct qv_span word, unsigned *op, unsigned types[2])
{
    struct qv_span stem = word;
    int count = split_types(&stem, types);

    for (*op = 0; *op < QV_OPS; ++*op) {
        const struct qv_op_info *info = &qv_ops[*op];
        if (!qv_span_is(info->is_vector ? stem : word, info->mnemonic))
            continue;
        if (!info->is_vector)
            return 0;
        int wanted = 1 + qv_has_two_types(*op);
        if (count != wanted)
            return qv_wrong(p, word, "expected %s of %s: %s.f32%s",
                            wanted == 2 ? "two types" : "the type", info->mnemonic, info->mnemonic,
                            wanted == 2 ? ".u32" : "");
        if (!qv_types_fit(*op, types[0], wanted == 2 ? types[1] : 0))
            return qv_wrong(p, word, "there is no %s of this type", info->mnemonic);
        return 0;
    }
    return unknown(p, word);
}

/* --- operands --- */

static int expect(struct qv_parser *p, char c)
{
    if (qv_accept(p, c))
        return 0;
    return qv_wrong(p, qv_next_token(p), "expected `%c`", c);
}

/* A register as a word, or -1. */
static int register_of(struct qv_span span)
{
    unsigned number = 0;

    if (span.length < 2 || span.length > 4 || span.at[0] != 'r' ||
        (span.at[1] == '0' && span.length > 2))
        return -1;
    for (size_t i = 1; i < span.length; i++) {
        if (span.at[i] < '0' || span.at[i] > '9')
            return -1;
        number = number * 10 + (unsigned)(span.at[i] - '0');
    }
    return number < QV_REGISTERS ? (int)number : -1;
}

/* Remembers how many registers the function has. */
static unsigned used(struct qv_parser *p, int number)
{
    if (p->function->registers <= (unsigned)number)
        p->function->registers = (unsigned)number + 1;
    return (unsigned)number;
}

static int parse_register(struct qv_parser *p, unsigned *number)
{
    struct qv_span span = qv_word_here(p, 0);
    int found = register_of(span);

    if (found < 0)
        return qv_wrong(p, span.length ? span : qv_next_token(p), "expected a register: r0 to r%d",
                        QV_REGISTERS - 1);
    *number = used(p, found);
    return 0;
}

/* One of the function's own names for the pages that it is called with. */
static int find_formal(struct qv_parser *p, struct qv_span span, const char *name, int is_written,
                       unsigned *page)
{
    const struct qv_function *f = p->function;

    for (*page = 0; *page < f->formal_count; ++*page)
        if (strcmp(f->formals[*page].name, name) == 0)
            break;
    if (*page == f->formal_count)
        return qv_wrong(p, span, "%s has no page %s: it sees those behind its `of`", f->name, name);
    if (is_written && *page != 0)
        return qv_wrong(p, span, "%s is not written to: only the first page, %s, is", name,
                        f->formals[0].name);
    return 0;
}

static int parse_page_name(struct qv_parser *p, int is_written, unsigned *page)
{
    char name[QV_MAX_NAME + 1];
    struct qv_span span = (qv_skip_blanks(p), qv_next_token(p));
    int rc = qv_parse_name(p, "the name of a page", name);

    if (rc < 0)
        return rc;
    if (p->function->is_closed)
        return find_formal(p, span, name, is_written, page);
    int found = qv_find_page(p->program, name);
    if (found < 0)
        return qv_wrong(p, span, "there is no page %s above", name);
    if (is_written && p->program->pages[found].is_input)
        return qv_wrong(p, span, "%s is an input: it is not written to", name);
    if (is_written && p->program->pages[found].is_derived)
        return qv_wrong(p, span, "%s is computed by %s: it is not written to", name,
                        p->program->functions[p->program->pages[found].function].name);
    *page = (unsigned)found;
    return 0;
}

/* page[register], page[register + number], page[register - number] */
static int parse_element(struct qv_parser *p, int is_written, unsigned *b, int64_t *imm)
{
    unsigned page = 0;
    int64_t offset = 0;
    int rc = parse_page_name(p, is_written, &page);

    if (rc == 0)
        rc = expect(p, '[');
    if (rc == 0)
        rc = parse_register(p, b);
    if (rc == 0 && qv_accept(p, '+')) {
        rc = qv_parse_integer(p, "a distance", 0, INT16_MAX, &offset);
    } else if (rc == 0 && qv_accept(p, '-')) {
        rc = qv_parse_integer(p, "a distance", 0, -INT16_MIN, &offset);
        offset = -offset;
    }
    if (rc == 0)
        rc = expect(p, ']');
    *imm = qv_element(page, offset);
    return rc;
}

static int parse_function_name(struct qv_parser *p, unsigned a, int64_t *imm)
{
    char name[QV_MAX_NAME + 1];
    struct qv_span span = (qv_skip_blanks(p), qv_next_token(p));
    int rc = qv_parse_name(p, "the name of a function", name);

    (void)a;
    if (rc < 0)
        return rc;
    *imm = qv_find_function(p->program, name);
    return *imm < 0 ? qv_wrong(p, span, "there is no function %s", name) : 0;
}

static int parse_emitted_name(struct qv_parser *p, int64_t *imm)
{
    struct qv_program *program = p->program;
    struct qv_name name;
    struct qv_span span = (qv_skip_blanks(p), qv_next_token(p));
    int rc = qv_parse_name(p, "a name for what is emitted", name.text);

    if (rc < 0)
        return rc;
    for (*imm = 0; (size_t)*imm < program->name_count; ++*imm)
        if (strcmp(program->names[*imm].text, name.text) == 0)
            return 0;
    if (program->name_count == QV_MAX_NAMES)
        return qv_wrong(p, span, "more than %d names", QV_MAX_NAMES);
    if (QR_GROW(program->names, program->name_count, program->name_capacity) < 0)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the program");
    program->names[program->name_count++] = name;
    return 0;
}

/* The distance is filled in at the end of the function. */
static int parse_target(struct qv_parser *p)
{
    struct qv_fixup fixup;

    qv_skip_blanks(p);
    fixup.line = p->line;
    fixup.line_start = p->line_start;
    fixup.at = p->at;
    fixup.word = (uint32_t)p->function->word_count;
    int rc = qv_parse_name(p, "a label", fixup.label);
    if (rc < 0)
        return rc;
    if (QR_GROW(p->fixups, p->fixup_count, p->fixup_capacity) < 0)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the program");
    p->fixups[p->fixup_count++] = fixup;
    return 0;
}

struct scalar {
    unsigned field[3]; /* a, b, c */
    int64_t imm;
    struct qv_number constant;
};

static int parse_scalar_operand(struct qv_parser *p, char letter, struct scalar *s)
{
    int64_t half = 0;
    int rc;

    switch (letter) {
    case 'A':
    case 'B':
    case 'C':
        return parse_register(p, &s->field[letter - 'A']);
    case 'i':
        return qv_parse_integer(p, "a number of 32 bits (lc takes 64)", INT32_MIN, INT32_MAX,
                                &s->imm);
    case 'h':
        rc = qv_parse_integer(p, "a number of 16 bits", INT16_MIN, INT16_MAX, &half);
        s->field[1] = (unsigned)half & 0xff;
        s->field[2] = (unsigned)half >> 8 & 0xff;
        return rc;
    case 'k':
        return qv_parse_number(p, &s->constant);
    case 'j':
        return parse_target(p);
    case 'g':
        return parse_function_name(p, s->field[0], &s->imm);
    case 'm':
    case 'w':
        return parse_element(p, letter == 'w', &s->field[1], &s->imm);
    case 'p': {
        unsigned page = 0;
        rc = parse_page_name(p, 0, &page);
        s->imm = page;
        return rc;
    }
    default:
        return parse_emitted_name(p, &s->imm);
    }
}

static int parse_scalar(struct qv_parser *p, unsigned op)
{
    struct scalar s = {.imm = 0};
    int rc = 0;

    for (const char *letter = qv_ops[op].operands; rc == 0 && *letter; letter++) {
        if (letter != qv_ops[op].operands)
            rc = expect(p, ',');
        if (rc == 0)
            rc = parse_scalar_operand(p, *letter, &s);
    }
    if (rc == 0)
        rc = put_word(p, qv_word(op, s.field[0], s.field[1], s.field[2], s.imm));
    if (rc == 0 && op == QV_LC)
        rc = put_word(p, s.constant.bits);
    return rc;
}

/* A range `page` or `page[register]`, or a register, as the letter allows. */
static int parse_vector_operand(struct qv_parser *p, char letter, struct qv_vector *v, int i)
{
    int wants_register = letter == 'R' || letter == 'S';
    struct qv_span span = (qv_skip_blanks(p), qv_next_token(p));
    int rc;

    if (wants_register || ((letter == 'X' || letter == 'W') && register_of(span) >= 0 &&
                           p->at + span.length <= p->end))
        return parse_register(p, &v->reg[i]);
    rc = parse_page_name(p, strchr("DMH", letter) != NULL, &v->page[i]);
    if (rc == 0 && qv_accept(p, '[')) {
        rc = parse_register(p, &v->reg[i]);
        if (rc == 0)
            rc = expect(p, ']');
    }
    return rc;
}

static int parse_vector(struct qv_parser *p, unsigned op, const unsigned types[2])
{
    struct qv_vector v = {.op = op, .type = types[0], .count = QV_NO_REGISTER};
    const char *operands = qv_ops[op].operands;
    uint64_t words[2];
    int rc = 0;

    v.type2 = qv_has_two_types(op) ? types[1] : 0;
    for (int i = 0; i < QV_OPERANDS; i++) {
        v.reg[i] = QV_NO_REGISTER;
        v.page[i] = QV_NO_PAGE;
    }
    for (int i = 0; rc == 0 && operands[i]; i++) {
        if (i > 0)
            rc = expect(p, ',');
        if (rc == 0)
            rc = parse_vector_operand(p, operands[i], &v, i);
    }
    if (rc == 0 && !qv_at_end(p)) {
        struct qv_span span = qv_word_here(p, 0);
        if (!qv_span_is(span, "for"))
            return qv_wrong(p, span.length ? span : qv_next_token(p),
                            "expected `for` and a register, or the end of the line");
        rc = parse_register(p, &v.count);
    }
    if (rc < 0)
        return rc;
    qv_vector_encode(&v, words);
    rc = put_word(p, words[0]);
    return rc < 0 ? rc : put_word(p, words[1]);
}

int qv_parse_instruction(struct qv_parser *p)
{
    unsigned op, types[2] = {0, 0};
    struct qv_span word = qv_word_here(p, 1);

    if (word.length == 0)
        return qv_wrong(p, (struct qv_span){p->at, 1},
                        "expected an instruction, a label or a "
                        "directive");
    int rc = find_op(p, word, &op, types);
    if (rc < 0)
        return rc;
    if (!p->function)
        return qv_wrong(p, word, "an instruction outside a function: .func NAME comes first");
    return qv_ops[op].is_vector ? parse_vector(p, op, types) : parse_scalar(p, op);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct qv_label *)a)->name, ((const struct qv_label *)b)->name);
}

static int resolve(struct qv_parser *p, const struct qv_label *sorted)
{
    struct qv_function *f = p->function;

    for (size_t i = 0; i < p->fixup_count; i++) {
        const struct qv_fixup *fixup = &p->fixups[i];
        struct qv_label wanted;
        memcpy(wanted.name, fixup->label, sizeof wanted.name);
        const struct qv_label *found =
            bsearch(&wanted, sorted, f->label_count, sizeof *sorted, by_name);
        if (!found) {
            p->line = fixup->line;
            p->line_start = fixup->line_start;
            return qv_wrong(p, (struct qv_span){fixup->at, strlen(fixup->label)},
                            "there is no label %s in %s", fixup->label, f->name);
        }
        int64_t distance = (int64_t)found->word - (int64_t)fixup->word - 1;
        f->words[fixup->word] |= (uint64_t)distance << 32;
    }
    p->fixup_count = 0;
    return 0;
}

/* A text may have millions of jumps and thousands of labels. */
int qv_resolve_labels(struct qv_parser *p)
{
    const struct qv_function *f = p->function;
    size_t size = f->label_count * sizeof *f->labels;
    struct qv_label *sorted = qr_malloc(size + 1);

    if (!sorted)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the labels of %s", f->name);
    if (size)
        memcpy(sorted, f->labels, size);
    qsort(sorted, f->label_count, sizeof *sorted, by_name);
    int rc = resolve(p, sorted);
    qr_free(sorted);
    return rc;
}
