/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hostile texts, code and states. What the verifier lets pass runs on the machine, under the
 * sanitizers of the build, and its code on the naive machine too, which must end as the real one
 * does. A text that is taken must be taken again as it is disassembled.
 */
#include "hostile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "naive.h"
#include "qallow/error.h"
#include "vm/state.h"

enum { TICKS = 3, FUEL = 2000, MOST_MEMORY = 1 << 22 };

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #condition,                    \
                    qallow_error_detail());                                                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static void run(struct qv_machine *m)
{
    char text[600];
    enum qv_stop stop = QV_TICK_DONE;

    m->fuel_limit = FUEL;
    for (int i = 0; i < TICKS && stop == QV_TICK_DONE && !m->halted; i++) {
        qv_tick_begin(m);
        stop = qv_run(m);
        MUST((uint64_t)m->fuel + m->fuel_reserve <= FUEL);
        if (qv_is_failure(stop)) {
            qv_describe_stop(m, stop, text, sizeof text);
            MUST(strlen(text) > 0);
        }
    }
}

static void run_both(const struct qv_program *program)
{
    struct qv_machine *m = NULL;
    struct naive *n = naive_create(program);
    enum qv_stop stop = QV_TICK_DONE;

    MUST(qv_machine_create(program, &m) == 0);
    m->fuel_limit = FUEL;
    for (int i = 0; i < TICKS && stop == QV_TICK_DONE; i++) {
        qv_tick_begin(m);
        stop = qv_run(m);
        enum naive_stop naive_stop = naive_tick(n, FUEL);
        MUST((stop == QV_TICK_DONE) == (naive_stop == NAIVE_TICK));
        MUST((uint64_t)m->fuel + m->fuel_reserve == n->fuel);
        for (size_t p = 0; stop == QV_TICK_DONE && p < program->page_count; p++)
            MUST(memcmp(m->pages[p].bytes, n->bytes[p], m->pages[p].size) == 0);
    }
    naive_destroy(n);
    qv_machine_destroy(m);
}

/* Beside the naive ones, if all are computed as a whole: nobody refuses code that gives something
 * else for a part of a page than for all of it. */
static void compare_nodes(const struct qv_machine *m, struct naive *n, int rc)
{
    const struct qv_program *program = m->program;
    struct naive_derived derived;
    int are_whole = 1;

    for (size_t i = 0; i < program->page_count; i++) {
        are_whole &= !program->pages[i].is_derived || qv_page_is_fixed(&program->pages[i]);
        memcpy(n->bytes[i], m->pages[i].bytes, m->pages[i].size);
        n->sizes[i] = m->pages[i].size;
    }
    if (!are_whole)
        return;
    naive_derived_create(program, &derived);
    enum naive_stop stop = naive_derive(n, FUEL, &derived);
    MUST((stop == NAIVE_HALT) == (rc == 0));
    for (size_t i = 0; rc == 0 && i < program->page_count; i++)
        MUST(m->pages[i].size == n->sizes[i] &&
             memcmp(m->pages[i].bytes, n->bytes[i], n->sizes[i]) == 0);
    naive_derived_destroy(&derived);
}

/* Derived pages of whatever main leaves; their functions may fail, and that is said. */
static void run_nodes(const struct qv_program *program)
{
    struct qv_machine *m = NULL;
    struct qv_nodes *nodes = NULL;
    struct naive *n = naive_create(program);
    enum qv_stop stop = QV_TICK_DONE;

    MUST(qv_machine_create(program, &m) == 0);
    m->fuel_limit = m->node_fuel = FUEL;
    MUST(qv_nodes_create(m, &nodes) == 0);
    for (size_t i = 0; i < program->page_count; i++)
        if (program->pages[i].is_input) {
            m->pages[i].size = qv_page_bytes(&program->pages[i]) / 2 & ~(uint64_t)7;
            m->pages[i].count = m->pages[i].size >> qb_type_shift(program->pages[i].type);
        }
    for (int i = 0; i < TICKS && stop == QV_TICK_DONE; i++) {
        int rc = qv_nodes_update(nodes, (uint64_t)i + 1, 0);
        MUST(rc == 0 || qallow_error_detail()[0] != '\0');
        compare_nodes(m, n, rc);
        if (rc < 0)
            break;
        qv_tick_begin(m);
        stop = qv_run(m);
    }
    qv_nodes_destroy(nodes);
    qv_machine_destroy(m);
    naive_destroy(n);
}

int hostile_program(const struct qv_program *program)
{
    if (qv_verify(program) < 0) {
        MUST(qallow_error_detail()[0] != '\0');
        return 0;
    }
    if (qv_program_memory(program) <= MOST_MEMORY) {
        run_both(program);
        run_nodes(program);
    }
    return 1;
}

int hostile_state(const struct qv_program *program, const uint8_t *bytes, size_t length)
{
    struct qv_machine *m = NULL;

    MUST(qv_machine_create(program, &m) == 0);
    int rc = qv_state_decode(m, bytes, length);
    if (rc == 0) {
        MUST(qv_state_size(m) == length);
        run(m);
    } else {
        MUST(qallow_error_detail()[0] != '\0');
    }
    qv_machine_destroy(m);
    return rc == 0;
}

struct text {
    char *at;
    size_t length, size;
};

static int collect(void *context, const char *bytes, size_t length)
{
    struct text *t = context;
    if (t->length + length > t->size) {
        t->size = (t->length + length) * 2;
        t->at = realloc(t->at, t->size);
    }
    memcpy(t->at + t->length, bytes, length);
    t->length += length;
    return 0;
}

int hostile_text(const char *text, size_t length)
{
    struct qv_program *program = NULL, *again = NULL;
    struct qv_source_error error;
    struct text out = {NULL, 0, 0};

    if (qv_assemble(text, length, "text", &program, &error) < 0) {
        MUST(error.message[0] != '\0' && error.caret + error.length <= sizeof error.text + 1);
        return 0;
    }
    MUST(qv_disassemble(program, collect, &out) == 0);
    MUST(qv_assemble(out.at, out.length, "again", &again, &error) == 0);
    MUST(again->function_count == program->function_count);
    for (size_t i = 0; i < program->function_count; i++)
        MUST(again->functions[i].word_count == program->functions[i].word_count);
    hostile_program(program);
    free(out.at);
    qv_program_destroy(program);
    qv_program_destroy(again);
    return 1;
}
