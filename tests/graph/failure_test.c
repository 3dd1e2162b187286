/* SPDX-License-Identifier: Apache-2.0 */
/* What fails leaves everything as it was: functions, allocations, misuse. */
#include "runtime/os.h"
#include "tests/graph/suites.h"

/* a -> b (bytes) -> v (volatile) -> c (sum), a -> e (sum) */
struct web {
    struct qallow_store *store;
    struct qallow_graph *graph;
    uint64_t a, b, v, c, e;
    struct counted fb, fv, fc, fe;
    struct qallow_txn *inner; /* begun by a function */
};

static void web_begin(struct web *w, const char *name)
{
    *w = (struct web){.store = open_new(name)};
    w->fb.function = add_bytes;
    w->fv.function = w->fe.function = concatenate;
    w->fc.function = sum_bytes;
    w->a = add_page(w->store, "a", "0123456789", 10);
    w->b = add_page(w->store, "b", "", 0);
    w->c = add_page(w->store, "c", "", 0);
    w->e = add_page(w->store, "e", "", 0);
    w->graph = new_graph(w->store);
    add_elementwise(w->graph, w->b, &w->fb, w->a);
    w->v = add_node(w->graph, 0, "v", &w->fv, INPUTS(w->b));
    add_node(w->graph, w->c, "sum", &w->fc, INPUTS(w->v));
    add_node(w->graph, w->e, "both", &w->fe, INPUTS(w->a, w->b));
    assert_ok(qallow_graph_update(w->graph, NULL));
}

static void web_end(struct web *w)
{
    assert_ok(qallow_graph_check(w->graph, qallow_newest(w->store)));
    qallow_graph_destroy(w->graph);
    assert_ok(qallow_verify(w->store, 1));
    assert_ok(qallow_close(w->store));
}

/* Everything that can be seen of it. */
struct sight {
    struct qallow_epoch epoch;
    struct qallow_graph_stats stats;
    uint8_t v[32];
    struct qallow_reason reason;
};

static void look(struct web *w, struct sight *sight)
{
    size_t count;
    memset(sight, 0, sizeof *sight);
    sight->epoch = (struct qallow_epoch)QALLOW_EPOCH_INIT;
    sight->stats = (struct qallow_graph_stats)QALLOW_GRAPH_STATS_INIT;
    sight->reason = (struct qallow_reason)QALLOW_REASON_INIT;
    assert_ok(
        qallow_epoch_get(w->store, qallow_view_epoch(qallow_newest(w->store)), &sight->epoch));
    assert_ok(qallow_graph_stats(w->graph, &sight->stats));
    assert_ok(qallow_graph_read(w->graph, w->v, 0, sight->v, 10));
    assert_ok(qallow_graph_explain(w->graph, w->c, &sight->reason, 1, &count));
    sight->stats.memory = 0; /* what it takes is not what it is */
}

static void assert_same(struct web *w, const struct sight *before)
{
    struct sight now;
    look(w, &now);
    assert_memory_equal(&now, before, sizeof now);
}

/* A write, a move and an append. */
static int change(struct web *w, char byte, uint64_t *epoch)
{
    struct qallow_txn *txn;
    int rc = qallow_begin(w->store, &txn);
    if (rc == 0 && ((rc = qallow_page_write(txn, w->a, 3, &byte, 1)) != 0 ||
                    (rc = qallow_page_splice(txn, w->a, 6, 2, &byte, 1)) != 0 ||
                    (rc = qallow_page_splice(txn, w->a, 9, 0, &byte, 1)) != 0)) {
        qallow_abort(txn);
        return rc;
    }
    return rc ? rc : qallow_commit(txn, epoch);
}

/* Each function in turn, in every way to fail. */
static void test_functions_fail(void **state)
{
    static const struct {
        int result, expected;
        const char *says;
    } ways[] = {{QALLOW_E_LIMIT, QALLOW_E_LIMIT, "it was told to"},
                {7, QALLOW_E_FUNCTION, "failed with 7: it was told to"},
                {-999, -999, "it was told to"}};
    struct web w;
    web_begin(&w, "functions.tlog");
    struct counted *functions[] = {&w.fb, &w.fv, &w.fc, &w.fe};
    uint64_t pages[] = {w.b, w.v, w.c, w.e};
    struct sight before;
    char name[40];
    look(&w, &before);
    for (size_t i = 0; i < 4; i++)
        for (size_t k = 0; k < 3; k++) {
            functions[i]->fail = ways[k].result;
            assert_result(change(&w, 'x', NULL), ways[k].expected);
            snprintf(name, sizeof name, "page %d", (int)pages[i]);
            if (!strstr(qallow_error_detail(), pages[i] == w.v ? "page \"v\"" : name) ||
                !strstr(qallow_error_detail(), ways[k].says))
                fail_msg("%s: expected %s and %s", qallow_error_detail(), name, ways[k].says);
            functions[i]->fail = 0;
            assert_same(&w, &before);
        }
    w.fe.fail = w.fc.fail = QALLOW_E_IO; /* the first in topological order is named */
    assert_result(change(&w, 'x', NULL), QALLOW_E_IO);
    assert_non_null(strstr(qallow_error_detail(), "both"));
    w.fe.fail = w.fc.fail = 0;
    w.fb.bytes = 0;
    assert_ok(change(&w, 'x', NULL));
    assert_int_equal(w.fb.bytes, 5); /* as if nothing had been: byte 3, and from 6 on */
    web_end(&w);
}

static long allocations_left;
static int fail_at_zero(size_t size) { return allocations_left-- == 0; }

/* Every allocation of a commit fails once. */
static void test_allocations_fail(void **state)
{
    struct web w;
    struct sight before;
    int rc = QALLOW_E_NO_MEMORY;
    uint64_t epoch;
    web_begin(&w, "memory.tlog");
    look(&w, &before);
    for (long n = 0; rc != 0; n++) {
        allocations_left = n;
        qr_set_allocation_hook(fail_at_zero);
        rc = change(&w, 'x', &epoch);
        qr_set_allocation_hook(NULL);
        assert_true(rc == 0 || rc == QALLOW_E_NO_MEMORY);
        if (rc && qallow_label(w.store, "still writable", 0)) {
            /* taking the log back needs memory, too: then it has to be opened again */
            qallow_graph_destroy(w.graph);
            (void)qallow_close(w.store);
            web_begin(&w, "memory.tlog");
            look(&w, &before);
        } else if (rc) {
            assert_same(&w, &before);
        }
    }
    assert_int_equal(epoch, before.epoch.epoch + 1);
    web_end(&w);
}

/* Every allocation of a new definition fails once. */
static void test_definitions_fail(void **state)
{
    struct web w;
    struct sight before;
    struct qallow_dependency d[8];
    struct qallow_node_options o;
    web_begin(&w, "define.tlog");
    uint64_t x = add_page(w.store, "x", "x", 1), y = add_page(w.store, "y", "y", 1);
    look(&w, &before);
    for (int replace = 0; replace < 2; replace++) {
        int rc = QALLOW_E_NO_MEMORY;
        node_options(&o, d, replace ? w.e : x, "new", &w.fe, INPUTS(w.b, y, w.v));
        for (long n = 0; rc != 0; n++) {
            allocations_left = n;
            qr_set_allocation_hook(fail_at_zero);
            rc = replace ? qallow_graph_replace(w.graph, &o) : qallow_graph_add(w.graph, &o, NULL);
            qr_set_allocation_hook(NULL);
            assert_true(rc == 0 || rc == QALLOW_E_NO_MEMORY);
            if (rc)
                assert_same(&w, &before);
        }
        assert_ok(qallow_graph_update(w.graph, NULL));
        look(&w, &before);
    }
    web_end(&w);
}

static int first_sum(void *context, struct qallow_call *call)
{
    for (uint64_t i = 0; i < call->inputs[0].size && call->length > 0; i++)
        call->output[0] = (uint8_t)(call->output[0] + call->inputs[0].bytes[i]);
    return 0;
}

/* A check finds what the wave found: a page whose size its function leaves as it is. And it needs
 * memory. */
static void test_check(void **state)
{
    struct web w;
    int rc = QALLOW_E_NO_MEMORY;
    web_begin(&w, "check.tlog");
    struct counted first = {.function = first_sum};
    uint64_t page = add_page(w.store, "fixed", "12345678", 8);
    add_node(w.graph, page, "first", &first, INPUTS(w.a));
    assert_ok(qallow_graph_update(w.graph, NULL));
    assert_int_equal(page_size(w.store, page), 8);
    assert_ok(change(&w, 'x', NULL));
    assert_ok(qallow_graph_check(w.graph, qallow_newest(w.store)));
    for (long n = 0; rc != 0; n++) {
        allocations_left = n;
        qr_set_allocation_hook(fail_at_zero);
        rc = qallow_graph_check(w.graph, qallow_newest(w.store));
        qr_set_allocation_hook(NULL);
        assert_true(rc == 0 || rc == QALLOW_E_NO_MEMORY);
    }
    assert_true(allocations_left >= 0);
    web_end(&w);
}

static int reenter(void *context, struct qallow_call *call)
{
    struct web *w = context;
    struct qallow_graph_stats stats = QALLOW_GRAPH_STATS_INIT;
    assert_result(qallow_graph_stats(w->graph, &stats), QALLOW_E_STATE);
    assert_result(qallow_graph_update(w->graph, NULL), QALLOW_E_STATE);
    assert_ok(qallow_begin(w->store, &w->inner));
    assert_result(qallow_commit(w->inner, NULL), QALLOW_E_STATE); /* it stays open */
    return qallow_call_resize(call, 3);
}

static int resize_ranged(void *context, struct qallow_call *call)
{
    return qallow_call_resize(call, 3);
}

static int too_large(void *context, struct qallow_call *call)
{
    return qallow_call_resize(call, UINT64_MAX);
}

static void test_misuse(void **state)
{
    struct web w;
    struct qallow_graph *second;
    struct qallow_txn *txn;
    struct sight before;
    struct qallow_dependency d[8] = {{0}};
    struct qallow_node_options o;
    web_begin(&w, "misuse.tlog");
    uint64_t x = add_page(w.store, "x", "x", 1);
    char byte;
    look(&w, &before);
    assert_result(qallow_graph_create(w.store, NULL, &second), QALLOW_E_STATE);
    assert_ok(qallow_begin(w.store, &txn)); /* a computed page cannot be written */
    assert_result(qallow_page_write(txn, w.b, 0, "!", 1), QALLOW_E_STATE);
    assert_result(qallow_txn_read(txn, w.b, 0, &byte, 1), QALLOW_E_STATE);
    qallow_abort(txn);
    assert_ok(qallow_begin(w.store, &txn)); /* nor a page of the graph be freed */
    assert_ok(qallow_page_free(txn, w.a));
    assert_result(qallow_commit(txn, NULL), QALLOW_E_STATE);
    struct qallow_page table = QALLOW_PAGE_INIT; /* nor its table be changed */
    assert_ok(qallow_page_lookup(qallow_newest(w.store), ".qallow-graph", &table));
    assert_ok(qallow_begin(w.store, &txn));
    assert_result(qallow_page_write(txn, table.id, 0, "!", 1), QALLOW_E_STATE);
    assert_result(qallow_page_free(txn, table.id), QALLOW_E_STATE);
    qallow_abort(txn);
    assert_same(&w, &before);

    o = (struct qallow_node_options)QALLOW_NODE_OPTIONS_INIT;
    assert_result(qallow_graph_add(w.graph, &o, NULL), QALLOW_E_ARGUMENT);
    node_options(&o, d, x, "f", &w.fe, INPUTS(w.a));
    d[0].access = QALLOW_ELEMENTWISE; /* without a unit */
    assert_result(qallow_graph_add(w.graph, &o, NULL), QALLOW_E_ARGUMENT);
    d[0].unit = 1;
    d[0].before = 1;
    assert_result(qallow_graph_add(w.graph, &o, NULL), QALLOW_E_ARGUMENT);
    node_options(&o, d, x, "f", &w.fe, INPUTS(w.v + 1));
    assert_result(qallow_graph_add(w.graph, &o, NULL), QALLOW_E_PAGE_NOT_FOUND);
    node_options(&o, d, table.id, "f", &w.fe, INPUTS(w.a));
    assert_result(qallow_graph_add(w.graph, &o, NULL), QALLOW_E_STATE);
    assert_same(&w, &before);

    node_options(&o, d, x, "f", &w.fe, INPUTS(w.a));
    assert_ok(qallow_begin(w.store, &txn)); /* a page that somebody is about to write */
    assert_ok(qallow_page_write(txn, x, 0, "y", 1));
    assert_result(qallow_graph_add(w.graph, &o, NULL), QALLOW_E_BUSY);
    qallow_abort(txn);
    o.function = reenter;
    o.context = &w;
    assert_ok(qallow_graph_add(w.graph, &o, NULL));
    assert_ok(qallow_graph_update(w.graph, NULL));
    qallow_abort(w.inner);
    o.function = too_large;
    o.version = 1;
    assert_ok(qallow_graph_replace(w.graph, &o));
    assert_result(qallow_graph_update(w.graph, NULL), QALLOW_E_LIMIT);
    d[0].access = QALLOW_ELEMENTWISE;
    d[0].unit = 1;
    o.function = resize_ranged;
    assert_ok(qallow_graph_replace(w.graph, &o));
    assert_result(qallow_graph_update(w.graph, NULL), QALLOW_E_STATE);
    assert_ok(qallow_graph_remove(w.graph, x));
    web_end(&w);
}

/* What a table says that cannot be is refused; a page that has its name is none. */
static void test_bad_tables(void **state)
{
    static const struct {
        uint64_t offset, size; /* size 0: as it is */
        uint8_t byte;
    } harm[] = {{0, 0, 'x'}, {32, 0, 9}, {38, 0, 1}, {0, 39, 'Q'}, {40, 0, 255}, {0, 0, 'Q'}};
    struct qallow_store *store;
    struct qallow_graph *graph;
    for (size_t i = 0; i < sizeof harm / sizeof *harm; i++) {
        struct qallow_page table = QALLOW_PAGE_INIT;
        struct qallow_txn *txn;
        struct web w;
        web_begin(&w, "table.tlog");
        store = w.store;
        qallow_graph_destroy(w.graph);
        assert_ok(qallow_page_lookup(qallow_newest(store), ".qallow-graph", &table));
        assert_ok(qallow_begin(store, &txn));
        assert_ok(qallow_page_write(txn, table.id, harm[i].offset, &harm[i].byte, 1));
        if (harm[i].size)
            assert_ok(qallow_page_resize(txn, table.id, harm[i].size));
        assert_ok(qallow_commit(txn, NULL));
        if (i + 1 < sizeof harm / sizeof *harm) {
            assert_result(qallow_graph_create(store, NULL, &graph), QALLOW_E_SERIALIZATION);
        } else {
            assert_ok(qallow_graph_create(store, NULL, &graph));
            qallow_graph_destroy(graph);
        }
        assert_ok(qallow_close(store));
    }
    store = open_new("name.tlog");
    add_page(store, ".qallow-graph", "QGRAPH01", 8);
    assert_result(qallow_graph_create(store, NULL, &graph), QALLOW_E_SERIALIZATION);
    assert_ok(qallow_close(store));
}

static void test_memory_limit(void **state)
{
    struct qallow_store *store = open_new("limit.tlog");
    struct qallow_graph_options options = QALLOW_GRAPH_OPTIONS_INIT;
    struct counted f = {.function = concatenate};
    uint8_t bytes[1000] = {0};
    uint64_t a = add_page(store, "a", bytes, sizeof bytes), b = add_page(store, "b", "", 0);
    struct qallow_graph *graph;
    options.max_memory = 1500;
    assert_ok(qallow_graph_create(store, &options, &graph));
    add_node(graph, b, "f", &f, INPUTS(a));
    assert_result(qallow_graph_update(graph, NULL), QALLOW_E_LIMIT);
    assert_non_null(strstr(qallow_error_detail(), "max_memory"));
    qallow_graph_destroy(graph);
    options.max_memory = 4000;
    assert_ok(qallow_graph_create(store, &options, &graph));
    add_node(graph, b, "f", &f, INPUTS(a));
    assert_ok(qallow_graph_update(graph, NULL));
    qallow_graph_destroy(graph);
    assert_ok(qallow_close(store));
}

const struct CMUnitTest failure_tests[] = {
    cmocka_unit_test(test_functions_fail),
    cmocka_unit_test(test_allocations_fail),
    cmocka_unit_test(test_definitions_fail),
    cmocka_unit_test(test_misuse),
    cmocka_unit_test(test_check),
    cmocka_unit_test(test_bad_tables),
    cmocka_unit_test(test_memory_limit),
};
const size_t failure_test_count = sizeof failure_tests / sizeof *failure_tests;
