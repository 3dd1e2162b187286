/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program as text again, and the reference of the instructions; both from the table. What comes
 * out assembles to the same program. Labels that the program does not know are named after their
 * word, L12.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "qallow/graph.h"
#include "runtime/error.h"
#include "runtime/os.h"
#include "vm/program.h"

struct out {
    int (*write)(void *context, const char *text, size_t length);
    void *context;
    int rc; /* the first failure */
};

__attribute__((format(printf, 2, 3))) static void say(struct out *out, const char *format, ...)
{
    char text[512];
    va_list arguments;

    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (out->rc == 0)
        out->rc = out->write(out->context, text,
                             (size_t)length < sizeof text ? (size_t)length : sizeof text - 1);
}

/* A text that is being put together in a buffer; what does not fit is left out. */
struct text {
    char *at;
    size_t size, used;
};
__attribute__((format(printf, 2, 3))) static void add(struct text *t, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    int length = vsnprintf(t->at + t->used, t->size - t->used, format, arguments);
    va_end(arguments);
    t->used += (size_t)length;
    if (t->used >= t->size)
        t->used = t->size - 1;
}

/* --- one instruction --- */

static void add_label(struct text *t, const struct qv_function *f, int64_t word)
{
    for (size_t i = 0; i < f->label_count; i++)
        if (f->labels[i].word == word) {
            add(t, "%s", f->labels[i].name);
            return;
        }
    add(t, "L%lld", (long long)word);
}

/* The shortest text of the float that reads as the same bits; NaN and infinities as integers. */
static void add_constant(struct text *t, uint64_t bits)
{
    char text[64];
    double value, back;
    uint64_t read;

    memcpy(&value, &bits, sizeof value);
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*e", digits - 1, value);
        if (!qv_read_float(text, &back) || strspn(text, "0123456789+-.e") != strlen(text))
            break; /* NaN, infinity, or another locale's point */
        memcpy(&read, &back, sizeof read);
        if (read == bits) {
            add(t, "%s", text);
            return;
        }
    }
    add(t, "0x%llx", (unsigned long long)bits);
}

static void add_scalar_operand(struct text *t, const struct qv_program *p,
                               const struct qv_function *f, uint32_t word, char letter)
{
    uint64_t w = f->words[word];

    switch (letter) {
    case 'A':
        add(t, "r%u", qv_word_a(w));
        break;
    case 'B':
        add(t, "r%u", qv_word_b(w));
        break;
    case 'C':
        add(t, "r%u", qv_word_c(w));
        break;
    case 'i':
        add(t, "%lld", (long long)qv_word_imm(w));
        break;
    case 'h':
        add(t, "%lld", (long long)qv_word_half(w));
        break;
    case 'k': /* small magnitudes are integers more often than floats */
        if (f->words[word + 1] + ((uint64_t)1 << 52) < (uint64_t)1 << 53)
            add(t, "%lld", (long long)f->words[word + 1]);
        else
            add_constant(t, f->words[word + 1]);
        break;
    case 'j':
        add_label(t, f, (int64_t)word + 1 + qv_word_imm(w));
        break;
    case 'g':
        add(t, "%s", p->functions[qv_word_imm(w)].name);
        break;
    case 'm':
    case 'w':
        add(t, "%s[r%u", qv_page_name(p, f, qv_word_page(w)), qv_word_b(w));
        if (qv_word_offset(w))
            add(t, " %c %lld", qv_word_offset(w) < 0 ? '-' : '+',
                (long long)(qv_word_offset(w) < 0 ? -qv_word_offset(w) : qv_word_offset(w)));
        add(t, "]");
        break;
    case 'p':
        add(t, "%s", qv_page_name(p, f, (uint64_t)qv_word_imm(w)));
        break;
    default:
        add(t, "%s", p->names[qv_word_imm(w)].text);
    }
}

static void add_vector(struct text *t, const struct qv_program *p, const struct qv_function *f,
                       const uint64_t *words)
{
    struct qv_vector v;

    qv_vector_decode(words, &v);
    add(t, ".%s", qv_type_names[v.type]);
    if (qv_has_two_types(v.op))
        add(t, ".%s", qv_type_names[v.type2]);
    for (int i = 0; qv_ops[v.op].operands[i]; i++) {
        add(t, i ? ", " : " ");
        if (v.page[i] == QV_NO_PAGE)
            add(t, "r%u", v.reg[i]);
        else if (v.reg[i] == QV_NO_REGISTER)
            add(t, "%s", qv_page_name(p, f, v.page[i]));
        else
            add(t, "%s[r%u]", qv_page_name(p, f, v.page[i]), v.reg[i]);
    }
    if (v.count != QV_NO_REGISTER)
        add(t, " for r%u", v.count);
}

unsigned qv_disassemble_one(const struct qv_program *program, const struct qv_function *function,
                            uint32_t word, char *text, size_t size)
{
    unsigned op = qv_word_op(function->words[word]);
    struct text t = {text, size, 0};

    add(&t, "%s", qv_ops[op].mnemonic);
    if (qv_ops[op].is_vector) {
        add_vector(&t, program, function, function->words + word);
    } else {
        for (const char *letter = qv_ops[op].operands; *letter; letter++) {
            add(&t, letter == qv_ops[op].operands ? " " : ", ");
            add_scalar_operand(&t, program, function, word, *letter);
        }
    }
    return qv_op_words(op);
}

/* --- a program --- */

static void say_node(struct out *out, const struct qv_program *program, const struct qv_page *page)
{
    static const char *const accesses[] = {"whole", "elementwise", "blockwise", "window"};

    say(out, ".node %s %s %llu %s", page->name, qv_type_names[page->type],
        (unsigned long long)page->count, program->functions[page->function].name);
    for (size_t i = 0; i < page->parent_count; i++) {
        const struct qv_parent *parent = &page->parents[i];
        say(out, "%s %s %s", i ? "," : "", accesses[parent->access],
            program->pages[parent->page].name);
        if (parent->access == QALLOW_BLOCKWISE)
            say(out, " %llu", (unsigned long long)parent->unit);
        if (parent->access == QALLOW_WINDOW)
            say(out, " %llu %llu", (unsigned long long)parent->before,
                (unsigned long long)parent->after);
    }
    say(out, "\n");
}

static void say_page(struct out *out, const struct qv_page *page)
{
    size_t size = (size_t)1 << qb_type_shift(page->type);

    say(out, "%s %s %s %llu\n", page->is_input ? ".input" : ".page", page->name,
        qv_type_names[page->type], (unsigned long long)page->count);
    for (size_t i = 0; i < page->initial_size; i += size) {
        uint64_t bits = 0;
        char text[64];
        struct text t = {text, sizeof text, 0};
        memcpy(&bits, page->initial + i, size);
        unsigned unused = (unsigned)(64 - 8 * size);
        float single = 0;
        memcpy(&single, &bits, size < sizeof single ? size : sizeof single);
        if (page->type == QB_F32 && single - single == 0) { /* a number */
            double wide = (double)single;
            memcpy(&bits, &wide, sizeof bits);
            add_constant(&t, bits);
        } else if (page->type == QB_F64) {
            add_constant(&t, bits);
        } else if (page->type == QB_F32) {
            add(&t, "0x%llx", (unsigned long long)bits);
        } else if (page->type & 1) {
            add(&t, "%lld", (long long)((int64_t)(bits << unused) >> unused));
        } else {
            add(&t, "%llu", (unsigned long long)bits);
        }
        if (i / size % 8 == 0)
            say(out, "%s.data %s", i ? "\n" : "", page->name);
        say(out, " %s", text);
    }
    if (page->initial_size)
        say(out, "\n");
}

/* Marks the words that jumps go to and that have no label. */
static void find_targets(const struct qv_function *f, uint8_t *targets)
{
    memset(targets, 0, f->word_count);
    for (uint32_t word = 0; word < f->word_count;) {
        unsigned op = qv_word_op(f->words[word]);
        if (!qv_ops[op].is_vector && strchr(qv_ops[op].operands, 'j'))
            targets[(int64_t)word + 1 + qv_word_imm(f->words[word])] = 1;
        word += qv_op_words(op);
    }
    for (size_t i = 0; i < f->label_count; i++)
        if (f->labels[i].word < f->word_count)
            targets[f->labels[i].word] = 0;
}

static int say_function(struct out *out, const struct qv_program *program,
                        const struct qv_function *f, const char *name)
{
    char text[400];
    size_t label = 0;
    uint8_t *targets = qr_malloc(f->word_count);

    if (!targets)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory to disassemble %s", f->name);
    find_targets(f, targets);
    say(out, "\n.func %s %u%s", name, f->arguments,
        !f->is_closed     ? ""
        : f->formal_count ? " of"
                          : " pure");
    for (size_t i = 0; i < f->formal_count; i++)
        say(out, "%s %s %s", i ? "," : "", f->formals[i].name, qv_type_names[f->formals[i].type]);
    say(out, "\n");
    for (uint32_t word = 0; word < f->word_count;) {
        for (; label < f->label_count && f->labels[label].word <= word; label++)
            say(out, "%s:\n", f->labels[label].name);
        if (targets[word])
            say(out, "L%u:\n", word);
        word += qv_disassemble_one(program, f, word, text, sizeof text);
        say(out, "    %s\n", text);
    }
    qr_free(targets);
    return out->rc;
}

int qv_disassemble_world(const struct qv_program *program, const struct qv_program *from,
                         const uint8_t *keep,
                         int (*write)(void *context, const char *text, size_t length),
                         void *context)
{
    struct out out = {write, context, 0};
    char name[QV_MAX_FUNCTION_NAME + 1];
    int rc = 0;

    if (program->world == 0)
        return 0;
    say(&out, ".world %u ; kept by the machine, from here on\n", program->world);
    for (size_t i = 0; i < qv_current_count(program); i++)
        if (program->functions[i].age)
            say(&out, ".age %s %u\n", program->functions[i].name, program->functions[i].age);
    for (size_t i = 0; rc == 0 && i < from->function_count; i++) {
        const struct qv_function *f = &from->functions[i];
        if (!keep[i])
            continue;
        snprintf(name, sizeof name, "%.*s@%u", (int)strcspn(f->name, "@"), f->name, f->age);
        rc = say_function(&out, from, f, name);
    }
    return rc < 0 ? rc : out.rc;
}

int qv_disassemble(const struct qv_program *program,
                   int (*write)(void *context, const char *text, size_t length), void *context)
{
    struct out out = {write, context, 0};
    size_t current = qv_current_count(program);
    int rc = 0;

    say(&out, ".memory %llu\n.fuel %llu", (unsigned long long)program->memory,
        (unsigned long long)program->fuel);
    if (program->node_fuel)
        say(&out, " %llu", (unsigned long long)program->node_fuel);
    say(&out, "\n.stack %u\n.depth %u\n", program->stack, program->depth);
    for (size_t i = 0; i < program->page_count; i++)
        if (program->pages[i].is_derived)
            say_node(&out, program, &program->pages[i]);
        else
            say_page(&out, &program->pages[i]);
    for (size_t i = 0; rc == 0 && i < current; i++)
        rc = say_function(&out, program, &program->functions[i], program->functions[i].name);
    if (rc < 0 || out.rc != 0 || program->world == 0)
        return rc < 0 ? rc : out.rc;
    uint8_t *keep = qr_calloc(program->function_count, 1);
    if (!keep)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory to disassemble");
    memset(keep + current, 1, program->retired_count);
    rc = qv_disassemble_world(program, program, keep, write, context);
    qr_free(keep);
    return rc;
}

/* --- the reference --- */

static const char *operand_word(char letter)
{
    switch (letter) {
    case 'A':
        return "a";
    case 'B':
        return "b";
    case 'C':
        return "c";
    case 'i':
    case 'h':
    case 'k':
        return "NUMBER";
    case 'j':
        return "LABEL";
    case 'g':
        return "FUNCTION";
    case 'm':
    case 'w':
        return "PAGE[b + NUMBER]";
    case 'p':
        return "PAGE";
    default:
        return "NAME";
    }
}

static const char *vector_word(char letter, int position)
{
    static const char *const sources[] = {"", "x", "y", "z"};

    switch (letter) {
    case 'D':
    case 'M':
    case 'H':
        return "d";
    case 'R':
        return "a";
    case 'B':
        return "b";
    case 'S':
        return position == 1 ? "s" : "t";
    default:
        return sources[position];
    }
}

static const char *types_word(unsigned types)
{
    static const char *const words[] = {"",          "TYPE",       "INT",      "FLOAT",
                                        "TYPE.TYPE", "TYPE.INDEX", "INT.INDEX"};
    return words[types];
}

int qv_reference(int (*write)(void *context, const char *text, size_t length), void *context)
{
    struct out out = {write, context, 0};

    say(&out, "| code | instruction | what it does |\n| --- | --- | --- |\n");
    for (unsigned op = 0; op < QV_OPS; op++) {
        const struct qv_op_info *info = &qv_ops[op];
        say(&out, "| %u | `%s%s%s", op, info->mnemonic, info->is_vector ? "." : "",
            types_word(info->types));
        for (int i = 0; info->operands[i]; i++) {
            int selects = info->operands[0] == 'D' && info->operands[1] == 'B' && i > 1;
            say(&out, "%s%s", i ? ", " : " ",
                info->is_vector ? vector_word(info->operands[i], i - selects)
                                : operand_word(info->operands[i]));
        }
        say(&out, "` | %s |\n", info->text);
    }
    return out.rc;
}
