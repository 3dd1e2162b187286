/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random programs on the machine and on the naive one (naive.c): after every tick all of the state
 * must be the same: why it stopped, where, fuel, stack, pages, what was emitted. One machine has
 * one thread, a second one two, which divide even the smallest vectors. Blocks that changed must be
 * marked as written to. The text of a program assembles to the same program.
 *
 * Half of the programs have derived pages, and between ticks their inputs change, in size too. The
 * first machine computes what changes reach, the naive one everything, unit by unit
 * (naive_nodes.c). The second machine is made anew from its state after every tick, so its graph
 * compares what was there with what it computes from scratch. The first page that fails must be the
 * same, and where; and what calls for pages without units have used.
 *
 * QALLOW_VM_PROGRAMS says how many (default 600), QALLOW_SEED with which to begin; the kernels are
 * those of QALLOW_CPU_MASK.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/vector.h"
#include "generate.h"
#include "naive.h"
#include "qallow/error.h"
#include "tests/random.h"
#include "vm/session_internal.h"
#include "vm/state.h"

struct text {
    char *at;
    size_t length, size;
};

static int collect(void *context, const char *bytes, size_t length)
{
    struct text *t = context;
    while (t->length + length > t->size) {
        t->size = t->size ? t->size * 2 : 65536;
        t->at = realloc(t->at, t->size);
    }
    memcpy(t->at + t->length, bytes, length);
    t->length += length;
    return 0;
}

static const char *failed; /* what differs */
#define SAME(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            failed = #condition;                                                                   \
    } while (0)

static void check_code(const struct qv_function *a, const struct qv_function *b)
{
    SAME(strcmp(a->name, b->name) == 0);
    SAME(a->arguments == b->arguments);
    SAME(a->word_count == b->word_count);
    SAME(memcmp(a->words, b->words, a->word_count * 8) == 0);
    SAME(a->is_closed == b->is_closed && a->formal_count == b->formal_count);
    for (size_t i = 0; i < a->formal_count && !failed; i++)
        SAME(a->formals[i].type == b->formals[i].type);
}

static void check_parent(const struct qv_parent *a, const struct qv_parent *b)
{
    SAME(a->page == b->page && a->access == b->access && a->unit == b->unit);
    SAME(a->before == b->before && a->after == b->after);
}

/* What is emitted gets its numbers in the order of appearance, so names are compared by text. */
static void check_round_trip(const struct qv_program *program)
{
    struct qv_program *again = NULL;
    struct qv_source_error error;
    struct text text = {NULL, 0, 0};

    SAME(qv_disassemble(program, collect, &text) == 0);
    int rc = qv_assemble(text.at, text.length, "text", &again, &error);
    if (rc < 0) {
        printf("%s\n%s\n", qallow_error_detail(), error.text);
        failed = "assembles again";
        free(text.at);
        return;
    }
    SAME(again->function_count == program->function_count);
    SAME(again->page_count == program->page_count);
    int names_agree = again->name_count == program->name_count;
    for (size_t i = 0; names_agree && i < again->name_count; i++)
        names_agree = strcmp(again->names[i].text, program->names[i].text) == 0;
    for (size_t i = 0; names_agree && !failed && i < program->function_count; i++)
        check_code(&again->functions[i], &program->functions[i]);
    for (size_t i = 0; !failed && i < program->page_count; i++) {
        SAME(again->pages[i].count == program->pages[i].count);
        SAME(again->pages[i].type == program->pages[i].type);
        SAME(again->pages[i].is_input == program->pages[i].is_input);
        SAME(again->pages[i].is_derived == program->pages[i].is_derived);
        SAME(again->pages[i].function == program->pages[i].function);
        SAME(again->pages[i].parent_count == program->pages[i].parent_count);
        for (size_t k = 0; k < program->pages[i].parent_count && !failed; k++)
            check_parent(&again->pages[i].parents[k], &program->pages[i].parents[k]);
        SAME(again->pages[i].initial_size == program->pages[i].initial_size);
        SAME(program->pages[i].initial_size == 0 ||
             memcmp(again->pages[i].initial, program->pages[i].initial,
                    program->pages[i].initial_size) == 0);
    }
    free(text.at);
    qv_program_destroy(again);
}

static void check_pages(struct qv_machine *m, const struct naive *n, uint8_t **before)
{
    for (size_t p = 0; p < m->program->page_count && !failed; p++) {
        const struct qv_memory *page = &m->pages[p];
        SAME(page->size == n->sizes[p]);
        SAME(memcmp(page->bytes, n->bytes[p], page->size) == 0);
        if (failed)
            printf("page %zu: %llu bytes, %llu\n", p, (unsigned long long)page->size,
                   (unsigned long long)n->sizes[p]);
        for (uint64_t i = 0; i < page->size; i++)
            if (page->bytes[i] != before[p][i])
                SAME(page->dirty[i / QV_BLOCK] && m->touched[p]);
    }
}

static void compare(struct qv_machine *m, const struct naive *n, enum qv_stop stop,
                    enum naive_stop naive_stop)
{
    static const enum naive_stop same[QV_STOPS] = {
        [QV_TICK_DONE] = NAIVE_TICK,     [QV_HALTED] = NAIVE_HALT,
        [QV_OUT_OF_FUEL] = NAIVE_FUEL,   [QV_TRAP_PROGRAM] = NAIVE_PROGRAM,
        [QV_TRAP_BOUNDS] = NAIVE_BOUNDS, [QV_TRAP_STACK] = NAIVE_STACK,
        [QV_TRAP_EMITS] = NAIVE_EMITS,   [QV_TRAP_VECTOR] = NAIVE_VECTOR};
    uint32_t function = 0, word = 0;

    SAME(same[stop] == naive_stop);
    qv_locate(m, m->pc, &function, &word);
    SAME(function == n->function && word == n->word);
    if (failed)
        printf("stops: %d, %d; at: function %u word %u, function %u word %u\n", (int)stop,
               (int)naive_stop, function, word, n->function, n->word);
    SAME((uint64_t)m->fuel + m->fuel_reserve == n->fuel);
    SAME(m->base == n->base && m->depth == n->depth);
    SAME(m->random == n->random);
    uint64_t registers = (qv_state_size(m) - 72 - m->depth * 16) / 8; /* those that can be read */
    SAME(memcmp(m->stack, n->stack, registers * 8) == 0);
    SAME(m->emit_count == n->emit_count);
    for (size_t i = 0; i < m->emit_count && !failed; i++)
        SAME(m->emits[i].value == n->emit_values[i] && m->emits[i].name == n->emit_names[i] &&
             m->emits[i].kind == n->emit_kinds[i]);
}

/* Pages as they are now, and nothing written to since. */
static void keep(struct qv_machine *m, uint8_t **before)
{
    for (size_t p = 0; p < m->program->page_count; p++) {
        memcpy(before[p], m->pages[p].bytes, m->pages[p].size);
        qv_clean(m, p);
    }
}

static enum qv_stop tick(struct qv_machine *m, uint8_t **before)
{
    keep(m, before);
    qv_tick_begin(m);
    return qv_run(m);
}

/* An input of each side: small numbers, which are good indexes. */
static void feed(struct qv_machine *m[2], struct naive *n, int page, uint64_t count, uint64_t salt)
{
    uint64_t size = count << qb_type_shift(m[0]->program->pages[page].type);

    n->sizes[page] = size;
    for (uint64_t i = 0; i < size; i++)
        n->bytes[page][i] = (uint8_t)(i % 8 ? 0 : (i + salt * (i / 64 % 3 == salt % 3)) * 7 % 23);
    for (int k = 0; k < 2; k++) {
        qv_set_input(m[k], page, n->bytes[page], size);
        qv_touch_all(m[k], (size_t)page);
    }
}

/* All that there is at first; then sometimes less, or something else. */
static int feed_all(struct qv_machine *m[2], struct naive *n, int is_first, uint64_t *random)
{
    int any = 0;

    for (size_t p = 0; p < m[0]->program->page_count; p++) {
        uint64_t count = m[0]->program->pages[p].count;
        if (!m[0]->program->pages[p].is_input || (!is_first && next_random(random) % 8))
            continue;
        if (!is_first && next_random(random) % 2)
            count = next_random(random) % (count + 1);
        feed(m, n, (int)p, count, is_first ? 0 : next_random(random) % 100);
        any = 1;
    }
    return any;
}

/* The machine's state as bytes, and a new machine from them. */
static struct qv_machine *migrate(struct qv_machine *old)
{
    struct qv_machine *m = NULL;
    size_t length = qv_state_size(old);
    uint8_t *state = malloc(length), *again = malloc(length);

    qv_state_encode(old, state);
    SAME(qv_machine_create(old->program, &m) == 0);
    for (size_t p = 0; p < old->program->page_count; p++) {
        memcpy(m->pages[p].bytes, old->pages[p].bytes, old->pages[p].size);
        m->pages[p].size = old->pages[p].size;
        m->pages[p].count = old->pages[p].count;
    }
    SAME(qv_state_decode(m, state, length) == 0);
    SAME(qv_state_size(m) == length);
    qv_state_encode(m, again);
    SAME(memcmp(state, again, length) == 0);
    free(state);
    free(again);
    qv_machine_destroy(old);
    return m;
}

static uint64_t stops[QV_STOPS], ticks;

/* Of all states that were reached, so that builds can be compared (same_logs.py). */
static uint64_t digest = 1;
static void add_to_digest(const void *bytes, size_t length)
{
    const uint8_t *at = bytes;
    for (size_t i = 0; i < length; i++)
        digest = (digest ^ at[i]) * UINT64_C(0x100000001b3);
}
static void digest_state(const struct qv_machine *m)
{
    size_t length = qv_state_size(m);
    uint8_t *state = malloc(length);

    qv_state_encode(m, state);
    add_to_digest(state, length);
    free(state);
    for (size_t p = 0; p < m->program->page_count; p++)
        add_to_digest(m->pages[p].bytes, m->pages[p].size);
    add_to_digest(m->emits, m->emit_count * sizeof *m->emits);
}

/* --- derived pages --- */

static uint64_t waves, computed, failures[NAIVE_VECTOR + 1];

static int note_fuel(void *context, struct qv_machine *runner, uint32_t what, uint32_t page)
{
    uint64_t *fuel = context;

    (void)what;
    fuel[page] = (uint64_t)runner->fuel + runner->fuel_reserve;
    computed++;
    return 0;
}

static int is_whole(const struct qv_page *page)
{
    return page->is_derived && qv_page_is_fixed(page);
}

static void compare_failure(struct qv_nodes *nodes, const struct naive_derived *d,
                            enum naive_stop naive_stop)
{
    const struct qv_machine *runner = qv_nodes_machine(nodes);
    const char *detail = qallow_error_detail();
    char name[100];
    uint32_t function = 0, word = 0;

    snprintf(name, sizeof name, "page %s: ", runner->program->pages[d->page].name);
    SAME(strncmp(detail, name, strlen(name)) == 0);
    SAME((strstr(detail, "fuel") != NULL) == (naive_stop == NAIVE_FUEL));
    qv_locate(runner, runner->pc, &function, &word);
    SAME(function == d->function && word == d->word);
    if (failed)
        printf("%s; naively %d in page %u, function %u word %u; function %u word %u\n", detail,
               (int)naive_stop, d->page, d->function, d->word, function, word);
}

/* Both sides; 0 if a function failed. */
static int derive(struct qv_machine *m[2], struct qv_nodes *nodes[2], struct naive *n,
                  uint8_t **before, uint64_t epoch)
{
    const struct qv_program *program = m[0]->program;
    struct naive_derived derived;
    uint64_t *fuel = malloc((program->page_count + 1) * sizeof *fuel);

    naive_derived_create(program, &derived);
    enum naive_stop naive_stop = naive_derive(n, program->node_fuel, &derived);
    for (int k = 0; k < 2 && !failed; k++) {
        for (size_t p = 0; p < program->page_count; p++)
            fuel[p] = derived.fuel[p];
        m[k]->watch.tell = note_fuel;
        m[k]->watch.context = fuel;
        m[k]->watch.what = QALLOW_VM_ON_NODE_DONE;
        int rc = qv_nodes_update(nodes[k], epoch, 0);
        m[k]->watch.what = 0;
        SAME((rc < 0) == (naive_stop != NAIVE_HALT));
        if (failed)
            printf("%s; naively %d in page %u\n", rc < 0 ? qallow_error_detail() : "it works",
                   (int)naive_stop, derived.page);
        if (rc < 0 && !failed)
            compare_failure(nodes[k], &derived, naive_stop);
        for (size_t p = 0; rc == 0 && p < program->page_count; p++)
            SAME(!is_whole(&program->pages[p]) || fuel[p] == derived.fuel[p]);
        check_pages(m[k], n, before);
    }
    waves++;
    failures[naive_stop]++;
    free(fuel);
    naive_derived_destroy(&derived);
    return naive_stop == NAIVE_HALT;
}

/* --- a program --- */

static void create(const struct qv_program *program, struct qv_machine *m[2],
                   struct qv_nodes *nodes[2])
{
    for (int k = 0; k < 2; k++)
        SAME(qv_machine_create(program, &m[k]) == 0 && qv_nodes_create(m[k], &nodes[k]) == 0);
}

/* The second machine, from its state. */
static void renew(struct qv_machine **m, struct qv_nodes **nodes, uint64_t epoch)
{
    qv_nodes_destroy(*nodes);
    *m = migrate(*m);
    SAME(qv_nodes_create(*m, nodes) == 0);
    SAME(qv_nodes_verify(*nodes, epoch) == 0);
    SAME(qv_machine_set_threads(*m, 2) == 0);
    (*m)->parallel_from = 1;
    (*m)->part = 64;
    (*m)->fuel_slice = 7;
}

static enum qv_stop one_tick(struct qv_machine *m[2], struct naive *n, uint8_t **before)
{
    enum naive_stop naive_stop = naive_tick(n, n->program->fuel);
    enum qv_stop stop = QV_TICK_DONE;

    for (int k = 0; k < 2 && !failed; k++) {
        stop = tick(m[k], before);
        compare(m[k], n, stop, naive_stop);
        if (stop != QV_TRAP_BOUNDS) /* a gather that failed has written what it liked */
            check_pages(m[k], n, before);
    }
    stops[stop]++;
    ticks++;
    return stop;
}

static void run(const struct qv_program *program, uint64_t seed)
{
    struct qv_machine *m[2] = {NULL, NULL};
    struct qv_nodes *nodes[2] = {NULL, NULL};
    struct naive *n = naive_create(program);
    uint8_t **before = calloc(program->page_count, sizeof *before);
    enum qv_stop stop = QV_TICK_DONE;

    for (size_t p = 0; p < program->page_count; p++)
        before[p] = calloc(1, qv_page_bytes(&program->pages[p]) + 1);
    create(program, m, nodes);
    feed_all(m, n, 1, &seed);
    keep(m[0], before);
    int is_derived = derive(m, nodes, n, before, 1);
    for (uint64_t i = 0; i < 6 && stop == QV_TICK_DONE && is_derived && !failed; i++) {
        renew(&m[1], &nodes[1], 3 * i + 1);
        keep(m[1], before); /* nothing of it is marked */
        if (i && feed_all(m, n, 0, &seed))
            is_derived = derive(m, nodes, n, before, 3 * i + 2);
        if (failed || !is_derived)
            break;
        stop = one_tick(m, n, before);
        if (!failed && (stop == QV_TICK_DONE || stop == QV_HALTED))
            is_derived = derive(m, nodes, n, before, 3 * i + 3);
        if (!failed && is_derived)
            digest_state(m[0]);
    }
    for (size_t p = 0; p < program->page_count; p++)
        free(before[p]);
    free(before);
    naive_destroy(n);
    for (int k = 0; k < 2; k++) {
        qv_nodes_destroy(nodes[k]);
        qv_machine_destroy(m[k]);
    }
}

static uint64_t number_of(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 0) : otherwise;
}

int main(void)
{
    uint64_t count = number_of("QALLOW_VM_PROGRAMS", 600), seed = number_of("QALLOW_SEED", 1);
    const char *mask = getenv("QALLOW_CPU_MASK");

    if (mask && strcmp(mask, qb_vectors()->name) != 0) {
        printf("this CPU has no %s kernels: not tested\n", mask);
        return 77;
    }
    for (uint64_t i = 0; i < count; i++) {
        struct qv_program *program = generate_program(seed * 1000003 + i);
        if (qv_verify(program) < 0) {
            printf("QALLOW_SEED=%llu, program %llu: refused: %s\n", (unsigned long long)seed,
                   (unsigned long long)i, qallow_error_detail());
            return 1;
        }
        check_round_trip(program);
        if (!failed)
            run(program, seed * 1000003 + i);
        if (failed) {
            struct text text = {NULL, 0, 0};
            qv_disassemble(program, collect, &text);
            printf("%.*s\nQALLOW_SEED=%llu, program %llu, %s: not the same: %s\n", (int)text.length,
                   text.at, (unsigned long long)seed, (unsigned long long)i, qb_vectors()->name,
                   failed);
            return 1;
        }
        qv_program_destroy(program);
    }
    printf(
        "%llu programs, %llu ticks with %s kernels: %llu went on, %llu halted; of fuel %llu, trap "
        "%llu, bounds %llu, stack %llu, emits %llu, vector %llu; states %016llx\n%llu waves "
        "computed %llu pages; failed "
        "%llu: of fuel %llu, trap %llu, bounds %llu, stack %llu, vector %llu\n",
        (unsigned long long)count, (unsigned long long)ticks, qb_vectors()->name,
        (unsigned long long)stops[QV_TICK_DONE], (unsigned long long)stops[QV_HALTED],
        (unsigned long long)stops[QV_OUT_OF_FUEL], (unsigned long long)stops[QV_TRAP_PROGRAM],
        (unsigned long long)stops[QV_TRAP_BOUNDS], (unsigned long long)stops[QV_TRAP_STACK],
        (unsigned long long)stops[QV_TRAP_EMITS], (unsigned long long)stops[QV_TRAP_VECTOR],
        (unsigned long long)digest, (unsigned long long)waves, (unsigned long long)computed,
        (unsigned long long)(waves - failures[NAIVE_HALT]),
        (unsigned long long)failures[NAIVE_FUEL], (unsigned long long)failures[NAIVE_PROGRAM],
        (unsigned long long)failures[NAIVE_BOUNDS], (unsigned long long)failures[NAIVE_STACK],
        (unsigned long long)failures[NAIVE_VECTOR]);
    /* otherwise the programs are no good */
    return !(stops[QV_TICK_DONE] && stops[QV_HALTED] && computed && failures[NAIVE_PROGRAM] &&
             failures[NAIVE_BOUNDS] && failures[NAIVE_FUEL]);
}
