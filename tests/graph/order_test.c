/* SPDX-License-Identifier: Apache-2.0 */
/* Cycles, the topological order, walking, and changing a graph. */
#include "tests/graph/suites.h"

enum { MANY = 5000 };

/* `count` pages in one epoch. */
static void add_pages(struct qallow_store *store, uint64_t *pages, int count)
{
    struct qallow_txn *txn;
    char name[16];
    assert_ok(qallow_begin(store, &txn));
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "p%d", i);
        pages[i] = create_page(txn, name, 0, QALLOW_RAW);
        assert_ok(qallow_page_write(txn, pages[i], 0, "\1", 1));
    }
    assert_ok(qallow_commit(txn, NULL));
}

static void test_cycles(void **state)
{
    struct qallow_store *store = open_new("cycles.tlog");
    struct counted f = {.function = concatenate};
    struct qallow_dependency d[8];
    struct qallow_node_options o;
    struct qallow_graph_stats before = QALLOW_GRAPH_STATS_INIT, after = QALLOW_GRAPH_STATS_INIT;
    struct qallow_graph *graph = new_graph(store);
    uint64_t p[5];
    char way[200];

    add_pages(store, p, 5);
    node_options(&o, d, p[0], "self", &f, INPUTS(p[1], p[0]));
    assert_result(qallow_graph_add(graph, &o, NULL), QALLOW_E_CYCLE);
    add_node(graph, p[1], "b", &f, INPUTS(p[0]));
    add_node(graph, p[2], "c", &f, INPUTS(p[1], p[4]));
    add_node(graph, p[3], "d", &f, INPUTS(p[2]));
    assert_ok(qallow_graph_stats(graph, &before));
    node_options(&o, d, p[0], "a", &f, INPUTS(p[4], p[3]));
    assert_result(qallow_graph_add(graph, &o, NULL), QALLOW_E_CYCLE);
    snprintf(way, sizeof way, "page %d -> page %d (b) -> page %d (c) -> page %d (d) -> page %d",
             (int)p[0], (int)p[1], (int)p[2], (int)p[3], (int)p[0]);
    if (!strstr(qallow_error_detail(), way))
        fail_msg("%s: expected %s", qallow_error_detail(), way);
    assert_ok(qallow_graph_stats(graph, &after)); /* as it was, without a new source */
    assert_int_equal(after.nodes, before.nodes);
    assert_int_equal(after.sources, before.sources);
    assert_int_equal(after.edges, before.edges);
    node_options(&o, d, p[1], "b", &f, INPUTS(p[3]));
    assert_result(qallow_graph_replace(graph, &o), QALLOW_E_CYCLE);
    assert_non_null(strstr(qallow_error_detail(), "->"));
    write_page(store, p[0], 0, "x", 1);
    assert_page(store, p[3], "x\1", 2); /* p[1] and p[4] */
    node_options(&o, d, p[1], "b", &f, INPUTS(p[4]));
    assert_ok(qallow_graph_replace(graph, &o)); /* now there is a way free */
    node_options(&o, d, p[0], "a", &f, INPUTS(p[3]));
    assert_ok(qallow_graph_add(graph, &o, NULL));
    write_page(store, p[4], 0, "y", 1);
    assert_page(store, p[0], "yy", 2);
    qallow_graph_destroy(graph);
    assert_ok(qallow_close(store));
}

/* A long chain, made from the end on and from the beginning on; both close into a cycle. */
static void test_long_chains(void **state)
{
    for (int backwards = 0; backwards < 2; backwards++) {
        struct qallow_store *store = open_new("chain.tlog");
        struct counted f = {.function = qallow_passthrough};
        struct qallow_graph *graph = new_graph(store);
        struct qallow_graph_stats stats = QALLOW_GRAPH_STATS_INIT;
        struct qallow_dependency d[8];
        struct qallow_node_options o;
        static uint64_t p[MANY];
        add_pages(store, p, MANY);
        for (int i = 1; i < MANY; i++) {
            int at = backwards ? MANY - i : i;
            add_node(graph, p[at], "copy", &f, INPUTS(p[at - 1]));
        }
        node_options(&o, d, p[0], "first", &f, INPUTS(p[MANY - 1]));
        assert_result(qallow_graph_add(graph, &o, NULL), QALLOW_E_CYCLE);
        assert_ok(qallow_graph_stats(graph, &stats));
        assert_int_equal(stats.depth, MANY - 1);
        assert_int_equal(stats.edges, MANY - 1);
        write_page(store, p[0], 0, "\5", 1);
        assert_page(store, p[MANY - 1], "\5", 1);
        assert_int_equal(f.calls, MANY - 1);
        qallow_graph_destroy(graph);
        assert_ok(qallow_close(store));
    }
}

struct seen {
    uint64_t pages[8];
    uint32_t levels[8];
    int count, stop_at;
};
static int see(void *context, const struct qallow_node *node)
{
    struct seen *seen = context;
    seen->pages[seen->count] = node->page;
    seen->levels[seen->count++] = node->level;
    return seen->count == seen->stop_at ? 42 : 0;
}

/* 0 -> 2 -> 4, 1 -> 3 -> 4, 4 -> 5, 1 -> 5 */
static void test_walk(void **state)
{
    struct qallow_store *store = open_new("walk.tlog");
    struct counted f = {.function = concatenate};
    struct qallow_graph *graph = new_graph(store);
    struct seen seen = {.count = 0};
    uint64_t p[6], found[4];
    size_t count;
    add_pages(store, p, 6);
    add_node(graph, p[5], "f", &f, INPUTS(p[4], p[1]));
    add_node(graph, p[4], "e", &f, INPUTS(p[3], p[2]));
    add_node(graph, p[3], "d", &f, INPUTS(p[1]));
    add_node(graph, p[2], "c", &f, INPUTS(p[0]));
    assert_ok(qallow_graph_walk(graph, 0, QALLOW_DOWN, see, &seen));
    assert_int_equal(seen.count, 6); /* by level, then by id */
    for (int i = 0; i < 6; i++)
        assert_int_equal(seen.pages[i], p[i]);
    assert_int_equal(seen.levels[5], 3);
    seen.count = 0;
    assert_ok(qallow_graph_walk(graph, p[0], QALLOW_DOWN, see, &seen));
    assert_int_equal(seen.count, 4);
    assert_int_equal(seen.pages[1], p[2]);
    seen.count = 0;
    assert_ok(qallow_graph_walk(graph, p[3], QALLOW_UP, see, &seen));
    assert_int_equal(seen.count, 2);
    assert_int_equal(seen.pages[1], p[1]);
    seen.count = 0;
    seen.stop_at = 2;
    assert_int_equal(qallow_graph_walk(graph, 0, QALLOW_UP, see, &seen), 42);
    assert_int_equal(seen.pages[0], p[5]);
    assert_ok(qallow_graph_neighbours(graph, p[1], QALLOW_DOWN, found, 4, &count));
    assert_int_equal(count, 2);
    assert_int_equal(found[0], p[3]);
    assert_int_equal(found[1], p[5]);
    assert_ok(qallow_graph_neighbours(graph, p[5], QALLOW_UP, found, 1, &count));
    assert_int_equal(count, 2);
    assert_int_equal(found[0], p[4]);
    assert_result(qallow_graph_walk(graph, 77, QALLOW_UP, see, &seen), QALLOW_E_PAGE_NOT_FOUND);

    assert_ok(qallow_graph_remove(graph, p[4])); /* its sources that nobody reads go */
    assert_result(qallow_graph_neighbours(graph, p[1], QALLOW_UP, NULL, 0, NULL),
                  QALLOW_E_ARGUMENT);
    seen = (struct seen){.count = 0};
    assert_ok(qallow_graph_walk(graph, 0, QALLOW_DOWN, see, &seen));
    assert_int_equal(seen.count, 6);
    assert_ok(qallow_graph_remove(graph, p[2]));
    seen.count = 0;
    assert_ok(qallow_graph_walk(graph, 0, QALLOW_DOWN, see, &seen));
    assert_int_equal(seen.count, 4); /* 1, 3, 4, 5 */
    struct qallow_node node = QALLOW_NODE_INIT;
    assert_ok(qallow_graph_get(graph, p[4], &node));
    assert_true(node.is_source);
    assert_result(qallow_graph_remove(graph, p[4]), QALLOW_E_PAGE_NOT_FOUND);
    write_page(store, p[4], 0, "z", 1); /* it can be written now */
    assert_page(store, p[5], "z\1", 2);
    qallow_graph_destroy(graph);
    assert_ok(qallow_close(store));
}

/* What a node computes may change; only if its definition does, it is computed. */
static void test_replace(void **state)
{
    struct qallow_store *store = open_new("replace.tlog");
    struct counted f = {.function = concatenate}, g = {.function = sum_bytes};
    struct counted h = {.function = qallow_passthrough};
    struct qallow_dependency d[8];
    struct qallow_node_options o;
    struct qallow_graph *graph = new_graph(store);
    uint64_t p[4], sum;
    add_pages(store, p, 4);
    add_node(graph, p[2], "f", &f, INPUTS(p[0]));
    add_node(graph, p[3], "h", &h, INPUTS(p[2]));
    assert_ok(qallow_graph_update(graph, NULL));
    node_options(&o, d, p[2], "f", &f, INPUTS(p[0]));
    assert_ok(qallow_graph_replace(graph, &o)); /* the same */
    assert_ok(qallow_graph_update(graph, NULL));
    assert_int_equal(f.calls, 1);
    o.version = 1;
    assert_ok(qallow_graph_replace(graph, &o));
    assert_ok(qallow_graph_update(graph, NULL));
    assert_int_equal(f.calls, 2);
    assert_int_equal(h.calls, 1); /* with the same result */
    node_options(&o, d, p[2], "g", &g, INPUTS(p[0], p[1]));
    assert_ok(qallow_graph_replace(graph, &o));
    assert_ok(qallow_graph_update(graph, NULL));
    assert_ok(qallow_page_read(qallow_newest(store), p[3], 0, &sum, sizeof sum));
    assert_int_equal(sum, 2);
    assert_int_equal(h.calls, 2);
    write_page(store, p[1], 0, "\2", 1);
    assert_int_equal(h.calls, 3);
    node_options(&o, d, p[0], "x", &g, INPUTS(p[1]));
    assert_result(qallow_graph_replace(graph, &o), QALLOW_E_PAGE_NOT_FOUND);
    node_options(&o, d, p[2], "x", &g, INPUTS(p[1], p[1]));
    assert_result(qallow_graph_replace(graph, &o), QALLOW_E_ARGUMENT);
    assert_result(qallow_graph_add(graph, &o, NULL), QALLOW_E_PAGE_EXISTS);
    assert_ok(qallow_graph_check(graph, qallow_newest(store)));
    qallow_graph_destroy(graph);
    assert_ok(qallow_close(store));
}

/* Many nodes come and go. */
/* As many inputs as a node may have; one of them twice is noticed, and leaves nothing behind. */
static void test_many_inputs(void **state)
{
    enum { MOST = 65535 };
    struct qallow_store *store = open_new("inputs.tlog");
    uint64_t page = add_page(store, "p", "", 0), other = add_page(store, "q", "", 0);
    struct qallow_dependency *d = calloc(MOST, sizeof *d);
    struct qallow_node_options o = QALLOW_NODE_OPTIONS_INIT;
    struct qallow_graph *graph = new_graph(store);
    struct qallow_node node = QALLOW_NODE_INIT;
    for (size_t i = 0; i < MOST; i++)
        d[i].page = 1000 + i;
    o.page = page;
    o.function = do_nothing;
    o.inputs = d;
    o.input_count = MOST;
    d[MOST - 1].page = 1000;
    assert_result(qallow_graph_add(graph, &o, NULL), QALLOW_E_ARGUMENT);
    assert_result(qallow_graph_get(graph, 1000, &node), QALLOW_E_PAGE_NOT_FOUND);
    d[MOST - 1].page = 1000 + MOST - 1;
    for (int i = 0; i < 4; i++) { /* under a second all of it; by comparing each with each, 20 */
        assert_ok(qallow_graph_add(graph, &o, NULL));
        assert_ok(qallow_graph_get(graph, page, &node));
        assert_int_equal(node.inputs, MOST);
        assert_ok(qallow_graph_remove(graph, page));
    }
    o.page = other;
    o.input_count = 2;
    assert_ok(qallow_graph_add(graph, &o, NULL));
    qallow_graph_destroy(graph);
    assert_ok(qallow_close(store));
    free(d);
}

static void test_churn(void **state)
{
    enum { PAGES = 200 };
    struct qallow_store *store = open_new("churn.tlog");
    struct counted f = {.function = sum_bytes};
    struct qallow_graph *graph = new_graph(store);
    struct qallow_graph_stats stats = QALLOW_GRAPH_STATS_INIT;
    uint64_t p[PAGES], random = seed, nodes = 0;
    int is_node[PAGES] = {0};
    add_pages(store, p, PAGES);
    for (int step = 0; step < 3000; step++) {
        int at = (int)(next_random(&random) % PAGES);
        if (is_node[at]) {
            assert_ok(qallow_graph_remove(graph, p[at]));
            nodes--;
        } else {
            uint64_t inputs[4] = {0};
            int count = at ? 1 + (int)(next_random(&random) % 3) : 0;
            for (int i = 0; i < count; i++) {
                inputs[i] = p[next_random(&random) % (uint64_t)at];
                for (int k = 0; k < i; k++)
                    if (inputs[k] == inputs[i])
                        inputs[i] = count = 0;
            }
            add_node(graph, p[at], "sum", &f, inputs);
            nodes++;
        }
        is_node[at] ^= 1;
    }
    assert_ok(qallow_graph_stats(graph, &stats));
    assert_int_equal(stats.nodes, nodes);
    assert_ok(qallow_graph_update(graph, NULL));
    assert_ok(qallow_graph_check(graph, qallow_newest(store)));
    for (int at = PAGES - 1; at >= 0; at--)
        if (is_node[at])
            assert_ok(qallow_graph_remove(graph, p[at]));
    assert_ok(qallow_graph_stats(graph, &stats));
    assert_int_equal(stats.nodes + stats.sources + stats.edges + stats.stale, 0);
    qallow_graph_destroy(graph);
    assert_ok(qallow_close(store));
}

const struct CMUnitTest order_tests[] = {
    cmocka_unit_test(test_cycles), cmocka_unit_test(test_long_chains),
    cmocka_unit_test(test_walk),   cmocka_unit_test(test_replace),
    cmocka_unit_test(test_churn),  cmocka_unit_test(test_many_inputs),
};
const size_t order_test_count = sizeof order_tests / sizeof *order_tests;
