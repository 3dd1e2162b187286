/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Derived pages of programs. Random programs with random parents and access patterns write to
 * random places; every epoch is compared with a model that computes everything anew in plain C,
 * resuming anywhere gives the same digests, and no node is computed for which nothing has changed.
 *
 * QALLOW_SEED=n repeats a run; QALLOW_VM_GRAPHS=n is how many programs there are.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "qallow/graph.h"
#include "tests/random.h"
#include "vm/session_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { SOURCES = 3, NODES = 9, PAGES = SOURCES + NODES, MOST = 3000, TICKS = 12 };

/* What a node computes; all pages are of u32. */
enum kind { SCALE, ADD, WINDOW, BLOCKS, SPREAD, TOTAL, KINDS };
struct node {
    enum kind kind;
    int parents[2];
    uint32_t count, unit, before, after;
};
struct program {
    uint32_t source[SOURCES]; /* elements */
    struct node nodes[NODES];
    char text[16384];
    size_t length;
};

static uint64_t state;
static uint64_t below(uint64_t n) { return next_random(&state) % n; }
static char directory[200];

__attribute__((format(printf, 2, 3))) static void say(struct program *p, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    p->length +=
        (size_t)vsnprintf(p->text + p->length, sizeof p->text - p->length, format, arguments);
    va_end(arguments);
    assert_true(p->length < sizeof p->text);
}

static uint32_t count_of(const struct program *p, int page)
{
    return page < SOURCES ? p->source[page] : p->nodes[page - SOURCES].count;
}

/* --- programs --- */

static const char *const functions =
    ".func scale of out u32, in u32, by u32\n"
    "    ld.u32 r2, by[r3]\n"
    "    vmul.u32 out, in, r2\n"
    "    ret\n"
    ".func add of out u32, a u32, b u32\n"
    "    len r2, out\n"
    "    len r3, b\n"
    "    min r3, r2, r3\n"
    "    vmov.u32 out, a\n"
    "    vadd.u32 out, out, b for r3\n"
    "    ret\n"
    ".func window of out u32, in u32\n"
    "    len r2, in\n"
    "    len r3, out\n"
    "    sub r2, r2, r3\n"
    "    addi r2, r2, 1\n"
    "    window.add.u32 out, in, r2\n"
    "    ret\n"
    ".func blocks 1 of out u32, in u32, unit u32\n" /* the sum of a block and where it is */
    "    li r9, 0\n"
    "    ld.u32 r2, unit[r9]\n"
    "    len r3, in\n"
    "    len r4, out\n"
    "    li r5, 0\n"
    "next:\n"
    "    jle r4, r5, done\n"
    "    mul r6, r5, r2\n"
    "    sub r7, r3, r6\n"
    "    min r7, r7, r2\n"
    "    reduce.add.u32 r8, in[r6] for r7\n"
    "    add r8, r8, r0\n"
    "    add r8, r8, r5\n"
    "    st.32 r8, out[r5]\n"
    "    addi r5, r5, 1\n"
    "    jmp next\n"
    "done:\n"
    "    ret\n"
    ".func spread 2 of out u32, in u32\n" /* two for one: the element, and the page's size */
    "    len r2, in\n"
    "    jmp check\n"
    "next:\n"
    "    ld.u32 r4, in[r3]\n"
    "    shli r5, r3, 1\n"
    "    st.32 r4, out[r5]\n"
    "    st.32 r1, out[r5 + 1]\n"
    "    addi r3, r3, 1\n"
    "check:\n"
    "    jlt r3, r2, next\n"
    "    ret\n"
    ".func total of out u32, in u32\n"
    "    reduce.add.u32 r2, in\n"
    "    call r3, twice\n"
    "    st.32 r2, out[r9]\n"
    "    ret\n"
    ".func twice pure\n"
    "    ret\n";

/* Stores of 1 to 3 random numbers below 4 at random places: some change nothing. */
static void say_main(struct program *p)
{
    say(p, ".func main\ntick:\n");
    for (int i = 0; i < SOURCES; i++)
        say(p,
            "    rand r1\n    andi r2, r1, 3\n    jnei r2, %llu, skip%d\n    shri r1, r1, 8\n"
            "    len r3, s%d\n    remu r3, r1, r3\n    rand r4\n    andi r4, r4, 3\n"
            "    st.32 r4, s%d[r3]\nskip%d:\n",
            (unsigned long long)below(2), i, i, i, i);
    say(p, "    commit\n    jmp tick\n%s", functions);
}

static void say_node(struct program *p, int i)
{
    static const char *const names[] = {"scale", "add", "window", "blocks", "spread", "total"};
    struct node *n = &p->nodes[i];
    int a, b;

    n->kind = (enum kind)below(KINDS);
    a = n->parents[0] = (int)below((uint64_t)(SOURCES + i));
    do
        b = n->parents[1] = (int)below((uint64_t)(SOURCES + i));
    while (b == a);
    n->count = count_of(p, a);
    if (n->kind == SPREAD && n->count > MOST / 2)
        n->kind = TOTAL;
    n->before = (uint32_t)below(5);
    n->after = (uint32_t)below(5);
    n->unit = 2 + (uint32_t)below(40);
    if (n->kind == BLOCKS)
        n->count = (n->count + n->unit - 1) / n->unit;
    if (n->kind == BLOCKS && n->count == count_of(p, a)) /* of one element: as long as the parent */
        n->kind = TOTAL;
    n->count = n->kind == TOTAL ? 1 : n->kind == SPREAD ? 2 * n->count : n->count;
    if (n->kind == BLOCKS)
        say(p, ".page unit%d u32 1\n.data unit%d %u\n", i, i, n->unit);
    say(p, ".node n%d u32 %u %s ", i, n->count, names[n->kind]);
#define NAME(page) page < SOURCES ? 's' : 'n', page < SOURCES ? page : page - SOURCES
    if (n->kind == SCALE)
        say(p, "elementwise %c%d, whole %c%d\n", NAME(a), NAME(b));
    else if (n->kind == ADD)
        say(p, "elementwise %c%d, elementwise %c%d\n", NAME(a), NAME(b));
    else if (n->kind == WINDOW)
        say(p, "window %c%d %u %u\n", NAME(a), n->before, n->after);
    else if (n->kind == BLOCKS)
        say(p, "blockwise %c%d %u, whole unit%d\n", NAME(a), n->unit, i);
    else
        say(p, "%s %c%d\n", n->kind == SPREAD ? "elementwise" : "whole", NAME(a));
}

static void make_program(struct program *p)
{
    p->length = 0;
    for (int i = 0; i < SOURCES; i++) {
        p->source[i] = 2 + (uint32_t)below(below(2) ? 20 : 2000);
        say(p, ".page s%d u32 %u\n.data s%d 1 %u\n", i, p->source[i], i, 2 + i);
    }
    for (int i = 0; i < NODES; i++)
        say_node(p, i);
    say_main(p);
}

/* --- the model --- */

typedef uint32_t pages[PAGES][MOST];

static void compute(const struct program *p, int i, pages at)
{
    const struct node *n = &p->nodes[i];
    const uint32_t *a = at[n->parents[0]], *b = at[n->parents[1]];
    uint32_t *out = at[SOURCES + i], count = count_of(p, n->parents[0]);

    memset(out, 0, sizeof at[0]);
    for (uint32_t k = 0; k < count; k++) {
        switch (n->kind) {
        case SCALE:
            out[k] = a[k] * b[0];
            break;
        case ADD:
            out[k] = a[k] + (k < count_of(p, n->parents[1]) ? b[k] : 0);
            break;
        case WINDOW:
            for (int64_t x = (int64_t)k - n->before; x <= (int64_t)k + n->after; x++)
                out[k] += x >= 0 && x < count ? a[x] : 0;
            break;
        case BLOCKS:
            out[k / n->unit] += a[k] + (k % n->unit == 0 ? k / n->unit : 0);
            break;
        case SPREAD:
            out[2 * k] = a[k];
            out[2 * k + 1] = 2 * count;
            break;
        default:
            out[0] += a[k];
        }
    }
}

static void read_pages(const struct program *p, struct qv_session *s, pages at)
{
    const struct qv_machine *m = qv_session_machine(s);
    char name[16];

    for (int i = 0; i < PAGES; i++) {
        snprintf(name, sizeof name, i < SOURCES ? "s%d" : "n%d", i < SOURCES ? i : i - SOURCES);
        int page = qv_find_page(m->program, name);
        assert_true(page >= 0);
        assert_int_equal(m->pages[page].count, count_of(p, i));
        memset(at[i], 0, sizeof at[i]);
        memcpy(at[i], m->pages[page].bytes, m->pages[page].size);
    }
}

static pages is, should_be;
static void compare(const struct program *p, struct qv_session *s)
{
    read_pages(p, s, is);
    memcpy(should_be, is, sizeof is);
    for (int i = 0; i < NODES; i++)
        compute(p, i, should_be);
    for (int i = 0; i < PAGES; i++)
        if (memcmp(is[i], should_be[i], sizeof is[i]) != 0)
            fail_msg("page %d of a program differs from the model:\n%s", i, p->text);
}

/* --- runs --- */

static void make_path(char path[300], const char *name)
{
    snprintf(path, 300, "%s/%s", directory, name);
}
static void remove_log(const char *path)
{
    static const char *const endings[] = {"", "-index", ".lock"};
    char name[320];
    for (size_t i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "%s%s", path, endings[i]);
        unlink(name);
    }
}

static void ok(int rc)
{
    if (rc < 0)
        fail_msg("%s: %s", qallow_strerror(rc), qallow_error_detail());
}

static void options_for(struct qv_session_options *o, const char *log, uint64_t seed)
{
    struct qallow_options store = QALLOW_OPTIONS_INIT;
    store.sync = QALLOW_SYNC_NONE;
    *o = (struct qv_session_options){
        .log = log, .store = store, .seed = seed, .threads = 1, .has_no_log = log == NULL};
}

static uint64_t computed(struct qv_session *s)
{
    struct qallow_graph_stats stats = QALLOW_GRAPH_STATS_INIT;
    ok(qallow_graph_stats(qv_nodes_graph(s->nodes), &stats));
    return stats.computed;
}

static void run_ticks(const struct program *p, struct qv_session *s, int ticks)
{
    static pages before;
    enum qv_stop stop;

    for (int i = 0; i < ticks; i++) {
        uint64_t count = computed(s);
        memcpy(before, is, sizeof is);
        ok(qv_session_tick(s, &stop, NULL));
        compare(p, s);
        if (memcmp(before, is, sizeof is) == 0)
            assert_int_equal(computed(s), count);
    }
}

static void same_epochs(const char *one, const char *other, uint64_t ahead, uint64_t last)
{
    struct qallow_store *a = NULL, *b = NULL;
    ok(qallow_open(one, NULL, &a));
    ok(qallow_open(other, NULL, &b));
    for (uint64_t e = ahead + 1; e <= last; e++) {
        struct qallow_epoch x = QALLOW_EPOCH_INIT, y = QALLOW_EPOCH_INIT;
        ok(qallow_epoch_get(a, e, &x));
        ok(qallow_epoch_get(b, e - ahead, &y));
        assert_memory_equal(x.digest, y.digest, sizeof x.digest);
    }
    qallow_close(a);
    qallow_close(b);
}

static void one_program(uint64_t seed)
{
    static struct program p;
    struct qv_session_options o;
    struct qv_session *s = NULL, *silent = NULL;
    char log[300], branch[300];
    uint64_t epochs = 0, from = 1 + below(TICKS);

    make_program(&p);
    make_path(log, "run.tlog");
    make_path(branch, "branch.tlog");
    options_for(&o, log, seed);
    ok(qv_session_create(p.text, p.length, "random.qvm", &o, &s));
    compare(&p, s);
    run_ticks(&p, s, TICKS);
    ok(qv_session_rewind(s, from)); /* and the same again, without recording it */
    compare(&p, s);
    run_ticks(&p, s, (int)(TICKS + 1 - from) + 2);
    ok(qv_session_close(s));
    ok(qv_session_check(log, &(struct qv_check_options){.threads = 1}, &epochs));
    assert_int_equal(epochs, TICKS + 3);

    options_for(&o, branch, 0);
    ok(qv_session_resume(log, from, &o, &s));
    compare(&p, s);
    run_ticks(&p, s, TICKS + 3 - (int)from);
    ok(qv_session_close(s));
    same_epochs(log, branch, from - 1, TICKS + 3);

    options_for(&o, NULL, seed); /* without a log nothing is different */
    ok(qv_session_create(p.text, p.length, "random.qvm", &o, &silent));
    compare(&p, silent);
    run_ticks(&p, silent, TICKS + 2);
    ok(qv_session_close(silent));
    remove_log(log);
    remove_log(branch);
}

static void test_random(void **unused)
{
    const char *text = getenv("QALLOW_VM_GRAPHS");
    uint64_t programs = text ? strtoull(text, NULL, 10) : 25;
    (void)unused;
    for (uint64_t i = 0; i < programs; i++)
        one_program(next_random(&state));
}

/* --- failures --- */

static const char *const failing = ".page a u32 8\n"
                                   ".node b u32 8 check elementwise a\n"
                                   ".node c u32 1 loop whole b\n"
                                   ".fuel 1M 1K\n"
                                   ".func main\n"
                                   "tick:\n"
                                   "    addi r1, r1, 1\n"
                                   "    st.32 r1, a[r2]\n"
                                   "    commit\n"
                                   "    jmp tick\n"
                                   ".func check of out u32, in u32\n"
                                   "    reduce.max.u32 r2, in\n"
                                   "    jlti r2, 3, fine\n"
                                   "    trap 7\n"
                                   "fine:\n"
                                   "    vmov.u32 out, in\n"
                                   "    ret\n"
                                   ".func loop of out u32, in u32\n"
                                   "    reduce.max.u32 r2, in\n"
                                   "    jlti r2, %d, fine\n"
                                   "again:\n"
                                   "    jmp again\n"
                                   "fine:\n"
                                   "    ret\n";

/* The third tick fails: its epoch is not there, and the log is a log of two ticks. */
static void fails_with(int most, int expected, int ticks, const char *detail)
{
    struct qv_session_options o;
    struct qv_session *s = NULL;
    char text[2000], log[300];
    enum qv_stop stop;
    uint64_t epochs = 0;

    make_path(log, "fails.tlog");
    options_for(&o, log, 0);
    snprintf(text, sizeof text, failing, most);
    ok(qv_session_create(text, strlen(text), "failing.qvm", &o, &s));
    for (int i = 0; i < ticks; i++)
        ok(qv_session_tick(s, &stop, NULL));
    assert_int_equal(qv_session_tick(s, &stop, NULL), expected);
    assert_string_equal(qallow_error_detail(), detail);
    ok(qv_session_close(s));
    ok(qv_session_check(log, &(struct qv_check_options){.threads = 1}, &epochs));
    assert_int_equal(epochs, 1 + ticks);
    options_for(&o, NULL, 0);
    o.has_no_log = 0;
    ok(qv_session_resume(log, 0, &o, &s)); /* and the tick fails again */
    assert_int_equal(qv_session_tick(s, &stop, NULL), expected);
    assert_string_equal(qallow_error_detail(), detail);
    ok(qv_session_close(s));
    remove_log(log);
}

static void test_failures(void **unused)
{
    (void)unused;
    fails_with(100, QALLOW_E_FUNCTION, 2,
               "tick 3: epoch 4: page b: line 14, check: trap 7: the program gave up with 7");
    fails_with(2, QALLOW_E_FUNCTION, 1,
               "tick 2: epoch 3: page c: line 22, loop: jmp again: out of fuel (1024; --fuel gives "
               "more)");
}

static int always(void *context)
{
    (void)context;
    return 1;
}

/* A page that is computed for ever can be stopped: when it is made, and when it is read back. */
static void test_interrupted(void **unused)
{
    static const char endless[] = ".page a u32 1\n.node b u32 1 loop whole a\n"
                                  ".fuel 1 1000000000000\n.func main\n halt\n"
                                  ".func loop of out u32, in u32\nagain:\n jmp again\n";
    static const char fits[] = ".page a u32 1\n.node b u32 1 loop whole a\n.data a 140000000\n"
                               ".fuel 1\n.func main\n halt\n"
                               ".func loop of out u32, in u32\n ld.u32 r0, in[r1]\nagain:\n"
                               " addi r0, r0, -1\n jgti r0, 0, again\n ret\n";
    struct qv_session_options o;
    struct qv_session *s = NULL;
    char log[300];

    (void)unused;
    make_path(log, "endless.tlog");
    options_for(&o, log, 0);
    o.interrupted = always;
    assert_int_equal(qv_session_create(endless, sizeof endless - 1, "endless", &o, &s),
                     QALLOW_E_INTERRUPTED);
    assert_string_equal(qallow_error_detail(), "stopped while page b was computed");
    assert_int_not_equal(access(log, F_OK), 0);
    options_for(&o, log, 0);
    o.fuel = UINT64_C(1) << 40;
    ok(qv_session_create(fits, sizeof fits - 1, "fits", &o, &s));
    ok(qv_session_close(s));
    options_for(&o, NULL, 0);
    o.interrupted = always;
    assert_int_equal(qv_session_resume(log, 0, &o, &s), QALLOW_E_INTERRUPTED);
    o.interrupted = NULL; /* with the fuel of the program, which is 1 */
    ok(qv_session_resume(log, 0, &o, &s));
    ok(qv_session_close(s));
    remove_log(log);
}

/* --- patches --- */

/* a -> b (one) -> c (two) -> d (one), a -> e (two), a -> f (three); three calls helper. */
static const char *const patched = ".page a u32 4\n"
                                   ".data a 1 2 3 4\n"
                                   ".node b u32 4 one elementwise a\n"
                                   ".node c u32 4 two elementwise b\n"
                                   ".node d u32 4 one elementwise c\n"
                                   ".node e u32 4 two elementwise a\n"
                                   ".node f u32 4 three elementwise %s\n"
                                   "%s"
                                   ".func main\n"
                                   "tick:\n"
                                   "    commit\n"
                                   "    jmp tick\n"
                                   ".func one of out u32, in u32\n"
                                   "    li r0, 3\n"
                                   "    vmul.u32 out, in, r0\n"
                                   "    ret\n"
                                   ".func two of out u32, %s u32\n"
                                   "    li r0, %d\n"
                                   "    vrem.u32 out, %s, r0\n"
                                   "    ret\n"
                                   ".func three of out u32, in u32\n"
                                   "    call r0, helper\n"
                                   "    vadd.u32 out, in, r0\n"
                                   "    ret\n"
                                   ".func helper 1 pure\n"
                                   "    addi r0, r0, %d\n"
                                   "    ret\n";

/* What is computed when parent, more pages, the name of a page, the divisor and the number in
 * helper become these. */
static void patch(struct qv_session *s, const char *parent, const char *more, const char *name,
                  int divisor, int number, uint64_t computed_then)
{
    struct qv_source_error error;
    struct qv_patched result;
    char text[2000];

    snprintf(text, sizeof text, patched, parent, more, name, divisor, name, number);
    ok(qv_session_patch(s, text, strlen(text), "patch.qvm", &error, &result));
    assert_int_equal(result.computed, computed_then);
}

static void test_patches(void **unused)
{
    struct qv_session_options o;
    struct qv_session *s = NULL;
    char text[2000], log[300];
    enum qv_stop stop;
    uint64_t epochs = 0;

    (void)unused;
    make_path(log, "patched.tlog");
    options_for(&o, log, 0);
    snprintf(text, sizeof text, patched, "a", "", "in", 5, "in", 7);
    ok(qv_session_create(text, strlen(text), "patched.qvm", &o, &s));
    ok(qv_session_tick(s, &stop, NULL));
    patch(s, "a", "", "in", 5, 7, 0);  /* the same */
    patch(s, "a", "", "x", 5, 7, 0);   /* but for what a page is called */
    patch(s, "a", "", "in", 4, 7, 3);  /* c, d, e: two, and what follows */
    patch(s, "a", "", "in", 12, 7, 3); /* c is 3 6 9 0 instead of 3 2 1 0 */
    patch(s, "a", "", "in", 4, 8, 4);  /* and f: three calls helper */
    ok(qv_session_tick(s, &stop, NULL));
    patch(s, "b", "", "in", 4, 8, 1);                                  /* f has another parent */
    patch(s, "b", ".node g u32 4 one elementwise f\n", "in", 4, 8, 1); /* g is new */
    ok(qv_session_tick(s, &stop, NULL));
    ok(qv_session_close(s));
    ok(qv_session_check(log, &(struct qv_check_options){.threads = 1}, &epochs));
    assert_int_equal(epochs, 11);
    options_for(&o, NULL, 0);
    for (uint64_t e = 1; e <= epochs; e++) {
        ok(qv_session_resume(log, e, &o, &s));
        ok(qv_session_close(s));
    }
    remove_log(log);
}

/* --- a function that is told how long its page is --- */

static const char *const told = ".input a u8 64\n"
                                ".node  b u64 64 lengths elementwise a\n"
                                ".func main\n"
                                "tick:\n"
                                "    commit\n"
                                "    jmp tick\n"
                                ".func lengths 2 of out u64, in u8\n"
                                "    len r2, out\n"
                                "next:\n"
                                "    jle r2, r3, done\n"
                                "    st.64 r1, out[r3]\n"
                                "    addi r3, r3, 1\n"
                                "    jmp next\n"
                                "done:\n"
                                "    ret\n";

static void make_input(const char *path, size_t length)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite("0123456789", 1, length, file), length);
    assert_int_equal(fclose(file), 0);
}

static void assert_told(const struct qv_session *s, size_t length)
{
    const struct qv_memory *page = &s->machine->pages[qv_find_page(s->program, "b")];
    assert_int_equal(page->size, length * sizeof(uint64_t));
    for (size_t i = 0; i < length; i++) {
        uint64_t value;
        memcpy(&value, page->bytes + i * sizeof value, sizeof value);
        assert_int_equal(value, length);
    }
}

/* Its input grows and shrinks: all of the page is another one, not only what was added. */
static void test_length(void **unused)
{
    static const size_t lengths[] = {5, 8, 2, 10};
    struct qv_session_options o;
    struct qv_session *s = NULL;
    char log[300], path[300];
    struct qv_input input = {.name = "a", .path = path};
    enum qv_stop stop;
    uint64_t epochs = 0;

    (void)unused;
    make_path(log, "told.tlog");
    make_path(path, "input");
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        make_input(path, lengths[i]);
        options_for(&o, i == 0 ? log : NULL, 0);
        o.has_no_log = 0;
        o.inputs = &input;
        o.input_count = 1;
        if (i == 0)
            ok(qv_session_create(told, strlen(told), "told.qvm", &o, &s));
        else
            ok(qv_session_resume(log, 0, &o, &s));
        assert_told(s, lengths[i]);
        ok(qv_session_tick(s, &stop, NULL));
        ok(qv_session_close(s));
    }
    ok(qv_session_check(log, &(struct qv_check_options){.threads = 1}, &epochs));
    options_for(&o, NULL, 0);
    for (uint64_t e = 1; e <= epochs; e++) {
        ok(qv_session_resume(log, e, &o, &s));
        ok(qv_session_close(s));
    }
    unlink(path);
    remove_log(log);
}

int main(void)
{
    const char *place = getenv("TMPDIR"), *text = getenv("QALLOW_SEED");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random), cmocka_unit_test(test_failures),
        cmocka_unit_test(test_interrupted), cmocka_unit_test(test_patches),
        cmocka_unit_test(test_length)};

    state = text ? strtoull(text, NULL, 10) : 1;
    printf("QALLOW_SEED=%llu\n", (unsigned long long)state);
    snprintf(directory, sizeof directory, "%.150s/qallow-nodes-XXXXXX", place ? place : "/tmp");
    if (!mkdtemp(directory))
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(directory);
    return failed;
}
