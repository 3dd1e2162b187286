/* SPDX-License-Identifier: Apache-2.0 */
/* What a patch compares and keeps; see world.h. Nothing here changes a program or a machine. */
#include "vm/world.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/error.h"
#include "runtime/os.h"

/* --- what differs --- */

/* Pages, functions and names are numbers that mean something in their program only; as text they
 * can be compared. A jump has none, and what its text says are labels, which are nothing. Nor is it
 * anything what a function of pages calls them. */
static int has_names(const struct qv_function *f, unsigned op)
{
    if (f->is_closed)
        return op == QV_CALL;
    return qv_ops[op].is_vector || strpbrk(qv_ops[op].operands, "gmwpn") != NULL;
}

static int has_same_pages(const struct qv_function *f, const struct qv_function *g)
{
    if (f->is_closed != g->is_closed || f->formal_count != g->formal_count)
        return 0;
    for (size_t i = 0; i < f->formal_count; i++)
        if (f->formals[i].type != g->formals[i].type)
            return 0;
    return 1;
}

int qv_same_function(const struct qv_program *a, const struct qv_function *f,
                     const struct qv_program *b, const struct qv_function *g)
{
    char one[400], other[400];

    if (f->arguments != g->arguments || f->registers != g->registers ||
        f->word_count != g->word_count || !has_same_pages(f, g))
        return 0;
    for (uint32_t word = 0; word < f->word_count;) {
        unsigned op = qv_word_op(f->words[word]), words = qv_op_words(op);
        if (op != qv_word_op(g->words[word]))
            return 0;
        if (!has_names(f, op)) {
            if (memcmp(f->words + word, g->words + word, words * sizeof *f->words) != 0)
                return 0;
        } else {
            qv_disassemble_one(a, f, word, one, sizeof one);
            qv_disassemble_one(b, g, word, other, sizeof other);
            if (strcmp(one, other) != 0)
                return 0;
        }
        word += words;
    }
    return 1;
}

/* --- what runs --- */

void qv_in_progress(const struct qv_machine *m, uint8_t *flags)
{
    uint32_t function, word;

    memset(flags, 0, m->program->function_count);
    if (m->tick == 1)
        return;
    qv_locate(m, m->pc, &function, &word);
    flags[function] = 1;
    for (uint64_t i = 0; i < m->depth; i++) {
        qv_locate(m, m->frames[i].pc, &function, &word);
        flags[function] = 1;
    }
}

/* --- what depends on what --- */

/* Who calls a function: callers[first[f]] to callers[first[f + 1] - 1]. */
struct callers {
    uint32_t *first, *callers;
};

/* With no place for them yet, only counts them. */
static void add_callers(const struct qv_program *program, struct callers *c, uint32_t *next)
{
    for (uint32_t i = 0; i < program->function_count; i++) {
        const struct qv_function *f = &program->functions[i];
        for (uint32_t word = 0; word < f->word_count;) {
            unsigned op = qv_word_op(f->words[word]);
            uint32_t callee = (uint32_t)qv_word_imm(f->words[word]);
            if (op == QV_CALL && c->callers)
                c->callers[next[callee]++] = i;
            else if (op == QV_CALL)
                c->first[callee + 1]++;
            word += qv_op_words(op);
        }
    }
}

static int find_callers(const struct qv_program *program, struct callers *c)
{
    size_t count = program->function_count;
    uint32_t *next = qr_malloc(count * sizeof *next);

    c->first = qr_calloc(count + 1, sizeof *c->first);
    if (c->first && next) {
        add_callers(program, c, next);
        for (size_t i = 0; i < count; i++) {
            c->first[i + 1] += c->first[i];
            next[i] = c->first[i];
        }
        c->callers = qr_malloc((c->first[count] + 1) * sizeof *c->callers);
        if (c->callers)
            add_callers(program, c, next);
    }
    qr_free(next);
    return c->callers ? 0 : qr_fail(QALLOW_E_NO_MEMORY, "no memory for who calls whom");
}

static int by_age(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;
    return x[0] != y[0] ? (x[0] > y[0]) - (x[0] < y[0]) : (x[1] > y[1]) - (x[1] < y[1]);
}

static void spread(const struct callers *c, uint32_t from, uint32_t age, uint32_t *ages,
                   uint32_t *queue)
{
    size_t head = 0, tail = 0;

    ages[from] = age;
    queue[tail++] = from;
    while (head < tail) {
        uint32_t f = queue[head++];
        for (uint32_t i = c->first[f]; i < c->first[f + 1]; i++)
            if (ages[c->callers[i]] < age) {
                ages[c->callers[i]] = age;
                queue[tail++] = c->callers[i];
            }
    }
}

/* The youngest definitions first: a function that has been reached need not be reached again. */
int qv_reached_ages(const struct qv_program *program, uint32_t *ages)
{
    struct callers c = {NULL, NULL};
    size_t count = program->function_count;
    uint32_t(*order)[2] = qr_malloc(count * sizeof *order), *queue = qr_malloc(count * 4);
    int rc = order && queue ? find_callers(program, &c)
                            : qr_fail(QALLOW_E_NO_MEMORY, "no memory for the functions' ages");

    for (uint32_t i = 0; rc == 0 && i < count; i++) {
        ages[i] = 0;
        order[i][0] = program->functions[i].age;
        order[i][1] = i;
    }
    if (rc == 0)
        qsort(order, count, sizeof *order, by_age);
    for (size_t i = count; rc == 0 && i-- > 0;)
        if (order[i][0] > ages[order[i][1]])
            spread(&c, order[i][1], order[i][0], ages, queue);
    qr_free(c.first);
    qr_free(c.callers);
    qr_free(order);
    qr_free(queue);
    return rc;
}

/* `queue` has room for all functions; `is_seen` is all zero. */
static int search(const struct qv_program *program, uint32_t from, uint32_t age, uint32_t *queue,
                  uint8_t *is_seen)
{
    size_t head = 0, tail = 0;

    queue[tail++] = from;
    is_seen[from] = 1;
    while (head < tail) {
        uint32_t at = queue[head++];
        const struct qv_function *f = &program->functions[at];
        if (f->age == age)
            return (int)at;
        for (uint32_t word = 0; word < f->word_count;) {
            unsigned op = qv_word_op(f->words[word]);
            uint32_t callee = (uint32_t)qv_word_imm(f->words[word]);
            if (op == QV_CALL && !is_seen[callee]) {
                is_seen[callee] = 1;
                queue[tail++] = callee;
            }
            word += qv_op_words(op);
        }
    }
    return -1;
}

int qv_find_reached(const struct qv_program *program, uint32_t from, uint32_t age)
{
    uint32_t *queue = qr_malloc(program->function_count * sizeof *queue);
    uint8_t *is_seen = qr_calloc(program->function_count, 1);
    int found = queue && is_seen ? search(program, from, age, queue, is_seen)
                                 : qr_fail(QALLOW_E_NO_MEMORY, "no memory for who calls whom");

    qr_free(queue);
    qr_free(is_seen);
    return found;
}

/* --- the text --- */

struct text {
    char *at;
    size_t length, capacity;
};

static int append(void *context, const char *bytes, size_t length)
{
    struct text *t = context;

    if (t->capacity - t->length < length) {
        size_t capacity = (t->length + length) * 2;
        char *grown = qr_realloc(t->at, capacity);
        if (!grown)
            return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the text of the program");
        t->at = grown;
        t->capacity = capacity;
    }
    memcpy(t->at + t->length, bytes, length);
    t->length += length;
    return 0;
}

int qv_world_text(const char *source, size_t length, const struct qv_program *program,
                  const struct qv_program *from, const uint8_t *keep, char **text,
                  size_t *text_length)
{
    struct text t = {NULL, 0, 0};
    int rc = append(&t, source, length);

    if (rc == 0 && length && source[length - 1] != '\n')
        rc = append(&t, "\n", 1);
    if (rc == 0)
        rc = qv_disassemble_world(program, from, keep, append, &t);
    if (rc == 0 && t.length > QV_MAX_TEXT)
        rc = qr_fail(QALLOW_E_LIMIT,
                     "the program and its functions in progress are a text of %zu bytes: at most "
                     "%d",
                     t.length, QV_MAX_TEXT);
    if (rc < 0) {
        qr_free(t.at);
        return rc;
    }
    *text = t.at;
    *text_length = t.length;
    return 0;
}
