/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dependency graph against a model that computes everything anew after each epoch.
 *
 * Random graphs of sources and nodes, logged and volatile, with random inputs, access patterns and
 * functions; random transactions of writes, splices and resizes, some of which are aborted, or fail
 * because a function does; nodes come, go, and get other definitions; the mode changes; the log is
 * closed and opened again. After each step all pages are what the model says, and no node was
 * computed more than once, nor any that nothing had changed for.
 *
 * QALLOW_SEED=n repeats a run; QALLOW_GRAPH_STEPS=n is how many steps it takes.
 */
#include <inttypes.h>

#include "tests/graph/support.h"

enum { SOURCES = 6, NODES = 14, PAGES = SOURCES + NODES, MOST = 2000, INPUTS_MAX = 4 };

struct bytes {
    uint8_t at[MOST];
    size_t size;
};

enum kind { MIX, NARROW, BLOCKS, WINDOW, SUM, JOIN, ANY, KINDS };

/* What a node computes. */
struct definition {
    enum kind kind;
    unsigned unit, out_unit, before, after;
    uint64_t version;
    int inputs[INPUTS_MAX], count; /* pages before it; the last may be read whole */
    int last_is_whole, whole_units;
};

struct page {
    uint64_t id, logged_id; /* what it is called now; its page in the log */
    int is_node, is_volatile, fails, is_stale;
    struct definition d;
    struct bytes bytes, before; /* the model's; before the last step */
    uint64_t computed;
};

struct world {
    struct qallow_store *store;
    struct qallow_graph *graph;
    struct page pages[PAGES];
    uint64_t random, steps;
    int is_batched, was_batched; /* was: changes may have been taken back before they were seen */
};

static uint64_t below(struct world *w, uint64_t n) { return next_random(&w->random) % n; }

/* --- functions: one byte of output at a time --- */

static uint8_t byte_of(const struct definition *d, const struct qallow_input *in, uint64_t k)
{
    uint8_t value = (uint8_t)(d->version * 31);
    if (d->last_is_whole)
        for (uint64_t i = 0; i < in[d->count - 1].size; i++)
            value = (uint8_t)(value * 3 + in[d->count - 1].bytes[i]);
    for (int n = 0; n < d->count - d->last_is_whole; n++) {
        uint64_t unit = k / d->out_unit, first = unit * d->unit, end = first + d->unit;
        if (d->kind == WINDOW) {
            first = unit > d->before ? (unit - d->before) * d->unit : 0;
            end = (unit + d->after + 1) * d->unit;
        }
        if (d->kind == MIX) {
            first = k;
            end = k + 1;
        }
        for (uint64_t i = first; i < end && i < in[n].size; i++)
            value = (uint8_t)(value * 5 + in[n].bytes[i] + k % d->out_unit);
    }
    return value;
}

static int is_ranged(const struct definition *d)
{
    return d->kind <= WINDOW && d->count > d->last_is_whole;
}

static uint64_t size_of(const struct definition *d, const struct qallow_input *in)
{
    uint64_t size = 0;
    if (d->kind == ANY)
        return 1;
    if (d->kind == JOIN) {
        for (int n = 0; n < d->count; n++)
            size += in[n].size;
        return size < MOST ? size : MOST;
    }
    if (!is_ranged(d))
        return 16;
    return d->unit == d->out_unit && !d->whole_units
               ? in[0].size
               : (in[0].size + d->unit - 1) / d->unit * d->out_unit;
}

static uint8_t whole_byte(const struct definition *d, const struct qallow_input *in, uint64_t k)
{
    uint64_t sum = d->version;
    for (int n = 0; n < d->count; n++) {
        if (d->kind == JOIN && k < in[n].size)
            return in[n].bytes[k];
        k -= d->kind == JOIN ? in[n].size : 0;
        for (uint64_t i = 0; i < in[n].size; i++)
            sum += in[n].bytes[i];
    }
    return d->kind == ANY ? sum % 7 == 0 : (uint8_t)(sum >> k % 8);
}

static uint8_t output_byte(const struct definition *d, const struct qallow_input *in, uint64_t k)
{
    return is_ranged(d) ? byte_of(d, in, k) : whole_byte(d, in, k);
}

static int compute(void *context, struct qallow_call *call)
{
    struct page *page = context;
    if (page->fails)
        return 5;
    int rc = is_ranged(&page->d) ? 0 : qallow_call_resize(call, size_of(&page->d, call->inputs));
    for (uint64_t k = 0; k < call->length && rc == 0; k++)
        call->output[k] = output_byte(&page->d, call->inputs, call->offset + k);
    return rc;
}

/* --- the model --- */

static void model_node(struct world *w, struct page *page)
{
    struct qallow_input in[INPUTS_MAX];
    for (int n = 0; n < page->d.count; n++) {
        const struct page *input = &w->pages[page->d.inputs[n]];
        in[n] = (struct qallow_input){input->id, input->bytes.at, input->bytes.size};
    }
    page->bytes.size = size_of(&page->d, in);
    assert_true(page->bytes.size <= MOST);
    for (uint64_t k = 0; k < page->bytes.size; k++)
        page->bytes.at[k] = output_byte(&page->d, in, k);
}

static void model_all(struct world *w)
{
    for (int i = SOURCES; i < PAGES; i++)
        if (w->pages[i].is_node)
            model_node(w, &w->pages[i]);
}

static int differs(const struct bytes *a, const struct bytes *b)
{
    return a->size != b->size || memcmp(a->at, b->at, a->size) != 0;
}

/* --- comparing --- */

static void compare_page(struct world *w, const struct page *page)
{
    uint8_t found[MOST];
    if (page->is_node && page->is_volatile) {
        assert_ok(qallow_graph_read(w->graph, page->id, 0, found, page->bytes.size));
        assert_memory_equal(found, page->bytes.at, page->bytes.size);
        assert_result(qallow_graph_read(w->graph, page->id, 0, found, page->bytes.size + 1),
                      QALLOW_E_LIMIT);
    } else if (!page->is_volatile) {
        assert_page(w->store, page->id, page->bytes.at, page->bytes.size);
    }
}

/* How often a page was computed since the last look: 0 or 1, and 0 if nothing had changed. */
static void compare_work(struct world *w, struct page *page)
{
    struct qallow_node node = QALLOW_NODE_INIT;
    int reason = page->is_stale || w->was_batched;
    if (!page->is_node)
        return;
    assert_ok(qallow_graph_get(w->graph, page->id, &node));
    for (int n = 0; n < page->d.count; n++) {
        const struct page *input = &w->pages[page->d.inputs[n]];
        reason |= differs(&input->bytes, &input->before) || (input->is_volatile && input->is_stale);
    }
    if (node.computed - page->computed > 1)
        fail_msg("page %" PRIu64 " was computed %" PRIu64 " times", page->id,
                 node.computed - page->computed);
    if (node.computed != page->computed && !reason)
        fail_msg("page %" PRIu64 " was computed for nothing", page->id);
    if (node.computed == page->computed && page->is_stale)
        fail_msg("page %" PRIu64 " is new and was not computed", page->id);
    page->computed = node.computed;
}

static void compare_all(struct world *w)
{
    for (int i = 0; i < PAGES; i++) {
        compare_page(w, &w->pages[i]);
        compare_work(w, &w->pages[i]);
    }
    for (int i = 0; i < PAGES; i++) {
        w->pages[i].is_stale = 0;
        w->pages[i].before = w->pages[i].bytes;
    }
    w->was_batched = w->is_batched;
}

/* --- definitions --- */

static void random_definition(struct world *w, struct page *page, int at)
{
    static const unsigned units[] = {1, 2, 4, 8, 16, 33};
    struct definition *d = &page->d;
    *d = (struct definition){.kind = (enum kind)below(w, KINDS), .version = below(w, 100)};
    d->unit = d->out_unit = units[below(w, 6)];
    if (d->kind == NARROW)
        d->out_unit = 1 + (unsigned)below(w, d->unit);
    if (d->kind == BLOCKS)
        d->out_unit = 1;
    if (d->kind == WINDOW) {
        d->before = (unsigned)below(w, 4);
        d->after = (unsigned)below(w, 4);
    }
    for (int tries = 1 + (int)below(w, INPUTS_MAX); tries > 0; tries--) {
        int input = (int)below(w, (uint64_t)at), known = 0;
        const struct page *from = &w->pages[input];
        for (int n = 0; n < d->count; n++)
            known |= d->inputs[n] == input;
        if (!known && (!from->is_volatile || from->is_node))
            d->inputs[d->count++] = input;
    }
    d->whole_units = at % 4 == 0;
    d->last_is_whole = d->kind <= WINDOW && d->count > 1 && below(w, 2);
}

static void node_of(struct world *w, struct page *page, struct qallow_node_options *o,
                    struct qallow_dependency *inputs, char *name)
{
    const struct definition *d = &page->d;
    *o = (struct qallow_node_options)QALLOW_NODE_OPTIONS_INIT;
    snprintf(name, 40, "kind%d", (int)d->kind);
    o->name = name;
    o->function = compute;
    o->context = page;
    o->version = d->version;
    o->page = page->id;
    o->inputs = inputs;
    o->input_count = (uint64_t)d->count;
    o->unit = is_ranged(d) ? d->out_unit : 0;
    o->flags |= d->whole_units ? QALLOW_NODE_WHOLE_UNITS : 0;
    for (int n = 0; n < d->count; n++) {
        static const enum qallow_access access[] = {QALLOW_ELEMENTWISE, QALLOW_ELEMENTWISE,
                                                    QALLOW_BLOCKWISE, QALLOW_WINDOW};
        int whole = d->kind > WINDOW || (d->last_is_whole && n + 1 == d->count);
        inputs[n] = (struct qallow_dependency){.page = w->pages[d->inputs[n]].id};
        if (whole)
            continue;
        inputs[n].access = access[d->kind];
        inputs[n].unit = d->unit;
        inputs[n].before = d->before;
        inputs[n].after = d->after;
    }
}

static void add_random_node(struct world *w, int at)
{
    struct page *page = &w->pages[at];
    struct qallow_node_options o;
    struct qallow_dependency inputs[INPUTS_MAX];
    char name[40], volatile_name[40];
    page->id = page->logged_id;
    node_of(w, page, &o, inputs, name);
    snprintf(volatile_name, sizeof volatile_name, "page %d", at);
    if (page->is_volatile) {
        o.flags |= QALLOW_NODE_VOLATILE;
        o.page = 0;
        o.volatile_name = volatile_name;
    }
    assert_ok(qallow_graph_add(w->graph, &o, &page->id));
    page->is_node = 1;
    page->is_stale = 1;
    page->computed = 0;
}

static int has_dependents(const struct world *w, int at)
{
    for (int i = SOURCES; i < PAGES; i++)
        for (int n = 0; w->pages[i].is_node && n < w->pages[i].d.count; n++)
            if (w->pages[i].d.inputs[n] == at)
                return 1;
    return 0;
}

/* A node comes, goes, or becomes another one. */
static void change_graph(struct world *w)
{
    int at = SOURCES + (int)below(w, NODES);
    struct page *page = &w->pages[at];
    struct qallow_node_options o;
    struct qallow_dependency inputs[INPUTS_MAX];
    char name[40];
    if (!page->is_node) {
        page->is_volatile = !has_dependents(w, at) && page->bytes.size == 0 && below(w, 3) == 0;
        random_definition(w, page, at);
        add_random_node(w, at);
    } else if (below(w, 3) == 0) {
        if (page->is_volatile && has_dependents(w, at))
            return;
        assert_ok(qallow_graph_remove(w->graph, page->id));
        page->is_node = 0;
        if (page->is_volatile)
            page->bytes.size = page->before.size = 0;
    } else if (below(w, 3) == 0) {
        assert_ok(qallow_graph_invalidate(w->graph, page->id));
        page->is_stale = 1;
    } else {
        random_definition(w, page, at);
        node_of(w, page, &o, inputs, name);
        o.flags |= page->is_volatile ? QALLOW_NODE_VOLATILE : 0;
        assert_ok(qallow_graph_replace(w->graph, &o));
        page->is_stale = 1;
    }
}

/* --- changes --- */

static void random_edit(struct world *w, struct qallow_txn *txn, struct page *page)
{
    struct bytes *b = &page->bytes;
    uint8_t put[64];
    size_t n = below(w, 40), offset = below(w, b->size + 1), removed;
    for (size_t i = 0; i < n; i++)
        put[i] = (uint8_t)below(w, 4);
    switch (below(w, 4)) {
    case 0: /* splice */
        removed = below(w, b->size - offset + 1);
        removed = removed < 30 ? removed : 30;
        if (b->size + n > MOST / 8)
            n = 0;
        assert_ok(qallow_page_splice(txn, page->id, offset, removed, put, n));
        memmove(b->at + offset + n, b->at + offset + removed, b->size - offset - removed);
        memcpy(b->at + offset, put, n);
        b->size = b->size - removed + n;
        break;
    case 1: /* resize */
        n = below(w, 4) ? b->size : below(w, MOST / 8);
        assert_ok(qallow_page_resize(txn, page->id, n));
        if (n > b->size)
            memset(b->at + b->size, 0, n - b->size);
        b->size = n;
        break;
    default: /* write, also beyond the end */
        n = below(w, 3) ? below(w, 3) : n;
        if (offset + n > MOST / 8)
            n = 0;
        assert_ok(qallow_page_write(txn, page->id, offset, put, n));
        memcpy(b->at + offset, put, n);
        b->size = offset + n > b->size ? offset + n : b->size;
    }
}

/* One transaction; 0 if it was aborted or failed, and then nothing is different. */
static int change_pages(struct world *w)
{
    static struct page before[PAGES];
    struct qallow_txn *txn;
    struct page *failing = &w->pages[SOURCES + below(w, NODES)];
    int rc = 0;
    memcpy(before, w->pages, sizeof before);
    assert_ok(qallow_begin(w->store, &txn));
    for (uint64_t n = below(w, 6); n > 0; n--) {
        struct page *page = &w->pages[below(w, PAGES)];
        if (!page->is_node && !page->is_volatile)
            random_edit(w, txn, page);
    }
    if (below(w, 8) == 0) {
        qallow_abort(txn);
        rc = -1;
    } else {
        failing->fails = below(w, 6) == 0;
        rc = qallow_commit(txn, NULL);
        failing->fails = 0;
        if (rc != 0 && rc != QALLOW_E_FUNCTION)
            fail_msg("%s", qallow_error_detail());
    }
    if (rc)
        memcpy(w->pages, before, sizeof before);
    return rc == 0;
}

static void create_world(struct world *w)
{
    char name[16];
    struct qallow_txn *txn;
    assert_ok(qallow_begin(w->store, &txn));
    for (int i = 0; i < PAGES; i++) {
        snprintf(name, sizeof name, "p%d", i);
        w->pages[i] = (struct page){.id = create_page(txn, name, 0, QALLOW_RAW)};
        w->pages[i].logged_id = w->pages[i].id;
    }
    assert_ok(qallow_commit(txn, NULL));
}

/* Closed and opened: only what reads volatile pages, and those themselves, is computed again. */
static void open_world_again(struct world *w)
{
    qallow_graph_destroy(w->graph);
    assert_ok(qallow_close(w->store));
    w->store = open_again("model.tlog");
    w->graph = new_graph(w->store);
    w->is_batched = 0;
    for (int i = SOURCES; i < PAGES; i++) {
        struct page *page = &w->pages[i];
        int was_stale = page->is_stale, reads_volatile = 0;
        if (!page->is_node)
            continue;
        for (int n = 0; n < page->d.count; n++)
            reads_volatile |= w->pages[page->d.inputs[n]].is_volatile;
        add_random_node(w, i);
        struct qallow_node node = QALLOW_NODE_INIT;
        assert_ok(qallow_graph_get(w->graph, page->id, &node));
        if (!was_stale && !reads_volatile && !page->is_volatile)
            assert_false(node.is_stale);
        page->is_stale = (int)node.is_stale;
    }
}

static void bring_up_to_date(struct world *w)
{
    assert_ok(qallow_graph_update(w->graph, NULL));
    model_all(w);
    compare_all(w);
}

static void step(struct world *w)
{
    uint64_t what = below(w, 20);
    if (what == 0) {
        bring_up_to_date(w);
        open_world_again(w);
    } else if (what == 1) {
        w->is_batched ^= 1;
        w->was_batched = 1;
        assert_ok(
            qallow_graph_set_mode(w->graph, w->is_batched ? QALLOW_BATCHED : QALLOW_IMMEDIATE));
    } else if (what < 6) {
        change_graph(w);
    } else if (change_pages(w) && !w->is_batched) {
        model_all(w);
        compare_all(w);
    }
    if (what == 2)
        bring_up_to_date(w);
    if (what == 3) {
        bring_up_to_date(w);
        assert_ok(qallow_graph_check(w->graph, qallow_newest(w->store)));
    }
}

static void test_random_graphs(void **state)
{
    const char *given = getenv("QALLOW_GRAPH_STEPS");
    static struct world w;
    w.steps = given ? strtoull(given, NULL, 0) : 4000;
    w.random = seed;
    w.store = open_new("model.tlog");
    w.graph = new_graph(w.store);
    create_world(&w);
    for (uint64_t n = 0; n < w.steps; n++)
        step(&w);
    bring_up_to_date(&w);
    qallow_graph_destroy(w.graph);
    assert_ok(qallow_verify(w.store, 1));
    assert_ok(qallow_close(w.store));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {cmocka_unit_test(test_random_graphs)};
    if (support_begin() != 0)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (failed == 0 && support_end() != 0)
        return 1;
    return failed;
}
