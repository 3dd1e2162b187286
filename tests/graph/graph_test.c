/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dependency graph: what a commit computes, and what it does not. Access patterns:
 * access_test.c; cycles and order: order_test.c; failures: failure_test.c; random graphs:
 * model_test.c.
 */
#include "tests/graph/suites.h"

static uint64_t u64(struct qallow_store *store, uint64_t page)
{
    uint64_t value = 0;
    assert_ok(qallow_page_read(qallow_newest(store), page, 0, &value, sizeof value));
    return value;
}

/* a, b -> sum -> copy: one epoch has the change and all that follows from it. */
static void test_same_epoch(void **state)
{
    struct qallow_store *store = open_new("same.tlog");
    struct counted sum = {.function = sum_bytes}, copy = {.function = qallow_passthrough};
    uint64_t a = add_page(store, "a", "\1\2", 2), b = add_page(store, "b", "\3", 1);
    uint64_t s = add_page(store, "s", "", 0), c = add_page(store, "c", "", 0);
    struct qallow_graph *graph = new_graph(store);
    struct qallow_view *before;

    add_node(graph, s, "sum", &sum, INPUTS(a, b));
    add_node(graph, c, "copy", &copy, INPUTS(s));
    assert_int_equal(page_size(store, s), 0); /* nothing has been committed */
    write_page(store, a, 0, "\5", 1);
    assert_int_equal(u64(store, s), 10);
    assert_int_equal(u64(store, c), 10);
    assert_int_equal(page_version(store, s), page_version(store, a));
    assert_int_equal(page_version(store, c), page_version(store, a));
    assert_int_equal(sum.calls, 1);
    assert_int_equal(copy.calls, 1);

    assert_ok(qallow_snapshot(store, &before));
    write_page(store, b, 0, "\4", 1);
    assert_int_equal(u64(store, c), 11);
    uint64_t old;
    assert_ok(qallow_page_read(before, c, 0, &old, sizeof old)); /* its history is in the log */
    assert_int_equal(old, 10);
    qallow_view_destroy(before);
    assert_ok(qallow_graph_check(graph, qallow_newest(store)));
    qallow_graph_destroy(graph);
    assert_ok(qallow_verify(store, 1));
    assert_ok(qallow_close(store));
}

/* A result that is the same stops the wave; an unrelated commit computes nothing. */
static void test_stops(void **state)
{
    struct qallow_store *store = open_new("stops.tlog");
    struct counted sum = {.function = sum_bytes}, copy = {.function = qallow_passthrough};
    uint64_t a = add_page(store, "a", "\1\2", 2), other = add_page(store, "other", "x", 1);
    uint64_t s = add_page(store, "s", "", 0), c = add_page(store, "c", "", 0);
    struct qallow_graph *graph = new_graph(store);
    struct qallow_node node = QALLOW_NODE_INIT;

    add_node(graph, s, "sum", &sum, INPUTS(a));
    add_node(graph, c, "copy", &copy, INPUTS(s));
    assert_ok(qallow_graph_update(graph, NULL));
    uint64_t version = page_version(store, s);
    write_page(store, a, 0, "\2\1", 2);
    assert_int_equal(sum.calls, 2);
    assert_int_equal(copy.calls, 1);
    assert_int_equal(page_version(store, s), version);
    assert_ok(qallow_graph_get(graph, s, &node));
    assert_int_equal(node.computed, 2);
    assert_int_equal(node.equal, 1);
    write_page(store, other, 0, "y", 1);
    write_page(store, a, 0, "\2\1", 2); /* the same bytes */
    assert_int_equal(sum.calls, 2);
    assert_int_equal(copy.calls, 1);
    qallow_graph_destroy(graph);
    write_page(store, a, 0, "\7", 1); /* nobody computes any more */
    assert_int_equal(sum.calls, 2);
    assert_ok(qallow_close(store));
}

/* A diamond: the page where it meets again is computed once. */
static void test_once(void **state)
{
    struct qallow_store *store = open_new("once.tlog");
    struct counted f[4] = {{.function = concatenate},
                           {.function = concatenate},
                           {.function = concatenate},
                           {.function = concatenate}};
    uint64_t a = add_page(store, "a", "x", 1), p[4];
    char name[2] = "p";
    for (int i = 0; i < 4; i++, name[0]++)
        p[i] = add_page(store, name, "", 0);
    struct qallow_graph *graph = new_graph(store);

    add_node(graph, p[3], "bottom", &f[3], INPUTS(p[1], p[2], a)); /* in any order */
    add_node(graph, p[1], "left", &f[1], INPUTS(p[0]));
    add_node(graph, p[2], "right", &f[2], INPUTS(p[0], p[1]));
    add_node(graph, p[0], "top", &f[0], INPUTS(a));
    write_page(store, a, 0, "yz", 2);
    assert_page(store, p[3], "yzyzyzyz", 8);
    for (int i = 0; i < 4; i++)
        assert_int_equal(f[i].calls, 1);
    qallow_graph_destroy(graph);
    assert_ok(qallow_close(store));
}

/* Opened again, nothing is computed that is up to date: the log knows. */
static void reopen(struct qallow_store **store, struct qallow_graph **graph, const char *name,
                   struct counted *f, const uint64_t *p, uint64_t version)
{
    struct qallow_dependency dependencies[8];
    struct qallow_node_options options;
    qallow_graph_destroy(*graph);
    assert_ok(qallow_close(*store));
    *store = open_again(name);
    *graph = new_graph(*store);
    node_options(&options, dependencies, p[1], "first", &f[0], INPUTS(p[0]));
    options.version = version;
    assert_ok(qallow_graph_add(*graph, &options, NULL));
    add_node(*graph, p[2], "second", &f[1], INPUTS(p[1]));
    f[0].calls = f[1].calls = 0;
}

static void test_opened_again(void **state)
{
    struct qallow_store *store = open_new("again.tlog");
    struct counted f[2] = {{.function = concatenate}, {.function = sum_bytes}};
    uint64_t p[3] = {add_page(store, "a", "abc", 3), add_page(store, "b", "", 0),
                     add_page(store, "c", "", 0)},
             epoch, next;
    struct qallow_graph *graph = new_graph(store);

    reopen(&store, &graph, "again.tlog", f, p, 1);
    assert_ok(qallow_graph_update(graph, &epoch));
    assert_int_equal(f[0].calls + f[1].calls, 2);
    reopen(&store, &graph, "again.tlog", f, p, 1);
    assert_ok(qallow_graph_update(graph, &next));
    assert_int_equal(next, epoch); /* nothing to do */
    assert_int_equal(f[0].calls + f[1].calls, 0);
    write_page(store, p[0], 1, "X", 1);
    assert_int_equal(f[0].calls + f[1].calls, 2);

    qallow_graph_destroy(graph); /* while nobody is there, the input changes */
    write_page(store, p[0], 2, "Y", 1);
    graph = new_graph(store);
    reopen(&store, &graph, "again.tlog", f, p, 1);
    assert_ok(qallow_graph_update(graph, NULL));
    assert_int_equal(f[0].calls + f[1].calls, 2);
    assert_page(store, p[1], "aXY", 3);

    qallow_graph_destroy(graph); /* or somebody writes over the result */
    write_page(store, p[1], 0, "!", 1);
    graph = new_graph(store);
    reopen(&store, &graph, "again.tlog", f, p, 1);
    assert_ok(qallow_graph_update(graph, NULL));
    assert_page(store, p[1], "aXY", 3);

    reopen(&store, &graph, "again.tlog", f, p, 2); /* or the function is another one */
    assert_ok(qallow_graph_update(graph, NULL));
    assert_int_equal(f[0].calls, 1);
    assert_int_equal(f[1].calls, 0); /* the result was the same */
    qallow_graph_destroy(graph);
    assert_ok(qallow_verify(store, 1));
    assert_ok(qallow_close(store));
}

/* Batched: changes gather, and one epoch makes good for all of them. */
static void test_batched(void **state)
{
    struct qallow_store *store = open_new("batched.tlog");
    struct counted add = {.function = add_bytes};
    uint8_t bytes[100] = {0};
    uint64_t a = add_page(store, "a", bytes, sizeof bytes), b = add_page(store, "b", "", 0), epoch;
    struct qallow_graph *graph = new_graph(store);
    struct qallow_txn *txn;

    add_elementwise(graph, b, &add, a);
    assert_ok(qallow_graph_update(graph, NULL));
    assert_ok(qallow_graph_set_mode(graph, QALLOW_BATCHED));
    add.bytes = 0;
    write_page(store, a, 10, "\1\2", 2);
    write_page(store, a, 50, "\3", 1);
    assert_ok(qallow_begin(store, &txn)); /* is not counted */
    assert_ok(qallow_page_write(txn, a, 70, "\4", 1));
    qallow_abort(txn);
    assert_int_equal(add.bytes, 0);
    uint64_t before = page_version(store, a);
    assert_ok(qallow_graph_update(graph, &epoch));
    assert_int_equal(epoch, before + 1);
    assert_int_equal(add.bytes, 3);
    memset(bytes, 1, sizeof bytes);
    memcpy(bytes + 10, "\2\3", 2);
    bytes[50] = 4;
    assert_page(store, b, bytes, sizeof bytes);
    assert_ok(qallow_graph_update(graph, &before));
    assert_int_equal(before, epoch);

    write_page(store, a, 0, "\5", 1); /* the next commit in the other mode takes it along */
    assert_ok(qallow_graph_set_mode(graph, QALLOW_IMMEDIATE));
    write_page(store, a, 1, "\5", 1);
    bytes[0] = bytes[1] = 6;
    assert_page(store, b, bytes, sizeof bytes);
    assert_int_equal(add.bytes, 5);
    qallow_graph_destroy(graph);
    assert_ok(qallow_close(store));
}

static void test_volatile(void **state)
{
    struct qallow_store *store = open_new("volatile.tlog");
    struct counted f[3] = {
        {.function = concatenate}, {.function = sum_bytes}, {.function = qallow_passthrough}};
    uint64_t a = add_page(store, "a", "abc", 3), b = add_page(store, "b", "", 0), value;
    struct qallow_graph *graph = new_graph(store);
    struct qallow_graph_stats stats = QALLOW_GRAPH_STATS_INIT, again = QALLOW_GRAPH_STATS_INIT;
    char bytes[4] = "";

    uint64_t v = add_node(graph, 0, "middle", &f[0], INPUTS(a));
    add_node(graph, b, "sum", &f[1], INPUTS(v));
    uint64_t w = add_node(graph, 0, "end", &f[2], INPUTS(b));
    assert_result(qallow_graph_read(graph, v, 0, bytes, 1), QALLOW_E_STATE);
    write_page(store, a, 0, "xyz", 3);
    assert_ok(qallow_graph_read(graph, v, 0, bytes, 3));
    assert_string_equal(bytes, "xyz");
    assert_ok(qallow_graph_read(graph, w, 0, &value, sizeof value));
    assert_int_equal(value, 'x' + 'y' + 'z');
    assert_result(qallow_graph_read(graph, v, 1, bytes, 3), QALLOW_E_LIMIT);
    struct qallow_page info = QALLOW_PAGE_INIT; /* not in the log */
    assert_result(qallow_page_get(qallow_newest(store), v, &info), QALLOW_E_PAGE_NOT_FOUND);
    assert_ok(qallow_graph_stats(graph, &stats));
    assert_true(stats.volatile_digest[0] != 0);
    assert_ok(qallow_graph_check(graph, qallow_newest(store)));
    assert_result(qallow_graph_remove(graph, v), QALLOW_E_STATE);

    qallow_graph_destroy(graph); /* opened again it is computed again, and is the same */
    graph = new_graph(store);
    assert_int_equal(add_node(graph, 0, "middle", &f[0], INPUTS(a)), v);
    add_node(graph, b, "sum", &f[1], INPUTS(v));
    add_node(graph, 0, "end", &f[2], INPUTS(b));
    assert_ok(qallow_graph_check(graph, qallow_newest(store)));
    assert_ok(qallow_graph_update(graph, NULL));
    assert_ok(qallow_graph_stats(graph, &again));
    assert_memory_equal(again.volatile_digest, stats.volatile_digest, 16);
    f[2].function = do_nothing; /* a function that is not what it was */
    assert_result(qallow_graph_check(graph, qallow_newest(store)), QALLOW_E_DIFFERS);
    f[2].function = qallow_passthrough;
    f[1].function = concatenate;
    assert_result(qallow_graph_check(graph, qallow_newest(store)), QALLOW_E_DIFFERS);
    assert_non_null(strstr(qallow_error_detail(), "sum"));
    f[1].function = sum_bytes;
    assert_ok(qallow_graph_remove(graph, w));
    assert_result(qallow_graph_read(graph, w, 0, bytes, 1), QALLOW_E_PAGE_NOT_FOUND);
    assert_ok(qallow_graph_update(graph, NULL));
    write_page(store, a, 0, "q", 1);
    assert_ok(qallow_graph_check(graph, qallow_newest(store)));
    qallow_graph_destroy(graph);
    assert_ok(qallow_verify(store, 1));
    assert_ok(qallow_close(store));
}

/* a -> b -> c -> d, and beside it e. */
static void test_explain(void **state)
{
    struct qallow_store *store = open_new("explain.tlog");
    struct counted add = {.function = add_bytes}, sum = {.function = sum_bytes};
    uint8_t bytes[64] = {0};
    uint64_t a = add_page(store, "a", bytes, sizeof bytes), e = add_page(store, "e", "e", 1);
    uint64_t b = add_page(store, "b", "", 0), c = add_page(store, "c", "", 0);
    uint64_t d = add_page(store, "d", "", 0), epoch;
    struct qallow_reason r[4] = {QALLOW_REASON_INIT, QALLOW_REASON_INIT, QALLOW_REASON_INIT,
                                 QALLOW_REASON_INIT};
    struct qallow_graph *graph = new_graph(store);
    size_t count;

    add_elementwise(graph, b, &add, a);
    add_elementwise(graph, c, &add, b);
    add_node(graph, d, "sum", &sum, INPUTS(e, c));
    assert_ok(qallow_graph_update(graph, &epoch));
    assert_ok(qallow_graph_explain(graph, d, r, 4, &count));
    assert_int_equal(r[0].why, QALLOW_WHY_DEFINITION);
    write_page(store, a, 20, "\1\2\3", 3);
    assert_ok(qallow_graph_explain(graph, d, r, 4, &count));
    assert_int_equal(count, 4);
    const uint64_t pages[] = {d, c, b, a};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(r[i].page, pages[i]);
        assert_int_equal(r[i].epoch, epoch + 1);
        assert_int_equal(r[i].why, i < 3 ? QALLOW_WHY_INPUT : QALLOW_WHY_SOURCE);
        assert_int_equal(r[i].cause, i < 3 ? pages[i + 1] : 0);
        assert_int_equal(r[i].offset, i == 0 ? 0 : 20);
        if (i > 0)
            assert_int_equal(r[i].length, 3);
        assert_int_equal(r[i].computed_bytes, i == 0 ? 8 : i < 3 ? 3 : 0);
    }
    assert_string_equal(r[0].name, "sum");
    assert_ok(qallow_graph_invalidate(graph, b));
    assert_ok(qallow_graph_update(graph, &epoch));
    assert_ok(qallow_graph_explain(graph, b, r, 4, &count));
    assert_int_equal(r[0].why, QALLOW_WHY_REQUEST);
    assert_int_equal(r[0].length, 0); /* the same bytes */
    assert_int_equal(r[0].computed_bytes, 64);
    write_page(store, e, 0, "f", 1);
    assert_ok(qallow_graph_explain(graph, d, r, 1, &count));
    assert_int_equal(r[0].cause, e);
    assert_int_equal(count, 2);
    assert_result(qallow_graph_explain(graph, 999, r, 4, &count), QALLOW_E_PAGE_NOT_FOUND);
    struct qallow_txn *txn; /* what moves has changed, and that ends where the page ends */
    assert_ok(qallow_begin(store, &txn));
    assert_ok(qallow_page_splice(txn, a, 20, 1, "four", 4));
    assert_ok(qallow_commit(txn, NULL));
    assert_ok(qallow_graph_explain(graph, a, r, 1, &count));
    assert_int_equal(r[0].offset, 20);
    assert_int_equal(r[0].length, 67 - 20);
    qallow_graph_destroy(graph);
    assert_ok(qallow_close(store));
}

/* Pages, nodes and changes in one transaction; signals without bytes. */
static void test_new_pages(void **state)
{
    struct qallow_store *store = open_new("new.tlog");
    struct counted f = {.function = concatenate}, nothing = {.function = do_nothing};
    struct qallow_dependency d[8];
    struct qallow_node_options o;
    struct qallow_graph *graph = new_graph(store);
    struct qallow_txn *txn;

    assert_ok(qallow_begin(store, &txn));
    uint64_t a = create_page(txn, "a", 0, QALLOW_RAW), b = create_page(txn, "b", 0, QALLOW_RAW);
    assert_ok(qallow_page_write(txn, a, 0, "new", 3));
    add_node(graph, b, "copy", &f, INPUTS(a));
    node_options(&o, d, 0, "signal", &nothing, INPUTS(a));
    o.flags |= QALLOW_NODE_ALWAYS;
    uint64_t signal;
    assert_ok(qallow_graph_add(graph, &o, &signal));
    struct counted last = {.function = do_nothing};
    add_node(graph, 0, "last", &last, INPUTS(signal));
    assert_ok(qallow_commit(txn, NULL));
    assert_page(store, b, "new", 3);
    assert_int_equal(last.calls, 1);
    write_page(store, a, 3, "er", 2);
    assert_page(store, b, "newer", 5);
    assert_int_equal(nothing.calls, 2);
    assert_int_equal(last.calls, 2); /* a signal goes on without bytes */

    assert_ok(qallow_begin(store, &txn)); /* a page that does not come */
    uint64_t c = create_page(txn, "c", 0, QALLOW_RAW);
    qallow_abort(txn);
    add_node(graph, c, "lost", &f, INPUTS(a));
    assert_ok(qallow_begin(store, &txn));
    assert_ok(qallow_page_write(txn, a, 0, "!", 1));
    assert_result(qallow_commit(txn, NULL), QALLOW_E_PAGE_NOT_FOUND);
    assert_non_null(strstr(qallow_error_detail(), "lost"));
    assert_ok(qallow_graph_remove(graph, c));
    write_page(store, a, 0, "!", 1);
    assert_page(store, b, "!ewer", 5);
    qallow_graph_destroy(graph);
    assert_ok(qallow_verify(store, 1));
    assert_ok(qallow_close(store));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_same_epoch), cmocka_unit_test(test_stops),
    cmocka_unit_test(test_once),       cmocka_unit_test(test_opened_again),
    cmocka_unit_test(test_batched),    cmocka_unit_test(test_volatile),
    cmocka_unit_test(test_explain),    cmocka_unit_test(test_new_pages),
};

int main(void)
{
    if (support_begin() != 0)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    failed += _cmocka_run_group_tests("access", access_tests, access_test_count, NULL, NULL);
    failed += _cmocka_run_group_tests("order", order_tests, order_test_count, NULL, NULL);
    failed += _cmocka_run_group_tests("failure", failure_tests, failure_test_count, NULL, NULL);
    if (failed == 0 && support_end() != 0)
        return 1;
    return failed;
}
