/* SPDX-License-Identifier: Apache-2.0 */
/* Access patterns: of an output only what a change reaches is computed, and all of that. */
#include "tests/graph/suites.h"

/* One node of one input; *f counts what was computed of it since the last change. */
struct pair {
    struct qallow_store *store;
    struct qallow_graph *graph;
    uint64_t a, b;
    struct counted f;
};

static void pair_begin_flags(struct pair *p, qallow_function function, struct qallow_dependency d,
                             uint64_t unit, uint32_t flags, const void *bytes, size_t length)
{
    struct qallow_node_options o = QALLOW_NODE_OPTIONS_INIT;
    p->store = open_new("pair.tlog");
    p->a = add_page(p->store, "a", bytes, length);
    p->b = add_page(p->store, "b", "", 0);
    p->graph = new_graph(p->store);
    p->f = (struct counted){.function = function};
    d.page = p->a;
    o.page = p->b;
    o.function = counted;
    o.context = &p->f;
    o.inputs = &d;
    o.input_count = 1;
    o.unit = unit;
    o.flags = flags;
    assert_ok(qallow_graph_add(p->graph, &o, NULL));
    assert_ok(qallow_graph_update(p->graph, NULL));
    p->f.calls = 0;
    p->f.bytes = 0;
}

static void pair_begin(struct pair *p, qallow_function function, struct qallow_dependency d,
                       uint64_t unit, const void *bytes, size_t length)
{
    pair_begin_flags(p, function, d, unit, 0, bytes, length);
}

static void pair_end(struct pair *p)
{
    assert_ok(qallow_graph_check(p->graph, qallow_newest(p->store)));
    qallow_graph_destroy(p->graph);
    assert_ok(qallow_verify(p->store, 1));
    assert_ok(qallow_close(p->store));
}

/* What the last change computed, and from where on. */
static void assert_computed(struct pair *p, int calls, uint64_t bytes, uint64_t offset)
{
    assert_int_equal(p->f.calls, calls);
    assert_int_equal(p->f.bytes, bytes);
    if (calls)
        assert_int_equal(p->f.offset, offset);
    p->f.calls = 0;
    p->f.bytes = 0;
}

static void test_elementwise(void **state)
{
    struct qallow_dependency d = {.access = QALLOW_ELEMENTWISE, .unit = 4};
    uint8_t bytes[400] = {0};
    struct qallow_txn *txn;
    struct pair p;
    pair_begin(&p, add_bytes, d, 0, bytes, sizeof bytes);
    write_page(p.store, p.a, 41, "x", 1); /* in element 10 */
    assert_computed(&p, 1, 4, 40);
    write_page(p.store, p.a, 43, "yz", 2); /* in 10 and 11 */
    assert_computed(&p, 1, 8, 40);
    assert_ok(qallow_begin(p.store, &txn));
    assert_ok(qallow_page_write(txn, p.a, 0, "1", 1));
    assert_ok(qallow_page_write(txn, p.a, 399, "2", 1));
    assert_ok(qallow_commit(txn, NULL));
    assert_computed(&p, 2, 8, 396);
    write_page(p.store, p.a, 400, "grows", 5); /* the last element is a part of one */
    assert_computed(&p, 1, 5, 400);
    assert_int_equal(page_size(p.store, p.b), 405);
    assert_ok(qallow_begin(p.store, &txn));
    assert_ok(qallow_page_resize(txn, p.a, 10));
    assert_ok(qallow_commit(txn, NULL));
    assert_computed(&p, 1, 2, 8); /* the element that was cut */
    assert_int_equal(page_size(p.store, p.b), 10);
    assert_ok(qallow_begin(p.store, &txn));
    assert_ok(qallow_page_resize(txn, p.a, 5000));
    assert_ok(qallow_page_splice(txn, p.a, 8, 1, "moved", 5));
    assert_ok(qallow_commit(txn, NULL));
    assert_computed(&p, 1, 5004 - 8, 8);
    assert_ok(qallow_begin(p.store, &txn));
    assert_ok(qallow_page_resize(txn, p.a, 0));
    assert_ok(qallow_commit(txn, NULL));
    assert_int_equal(page_size(p.store, p.b), 0);
    pair_end(&p);
}

static int same_word(void *context, struct qallow_call *call)
{
    int rc = qallow_call_resize(call, 4);
    if (!rc)
        memcpy(call->output, "SAME", 4);
    return rc;
}

/* A node that counts as changed whatever comes out reaches those that read ranges of it, too. */
static void test_always(void **state)
{
    struct qallow_store *store = open_new("always.tlog");
    uint64_t a = add_page(store, "a", "1", 1), b = add_page(store, "b", "", 0);
    uint64_t c = add_page(store, "c", "", 0), d = add_page(store, "d", "", 0);
    struct counted word = {.function = same_word}, add = {.function = add_bytes};
    struct counted sum = {.function = sum_bytes};
    struct qallow_graph *graph = new_graph(store);
    struct qallow_dependency dependencies[8];
    struct qallow_node_options options;
    node_options(&options, dependencies, b, "word", &word, INPUTS(a));
    options.flags = QALLOW_NODE_ALWAYS;
    assert_ok(qallow_graph_add(graph, &options, NULL));
    add_elementwise(graph, c, &add, b);
    add_node(graph, d, "sum", &sum, INPUTS(b));
    assert_ok(qallow_graph_update(graph, NULL));
    for (int i = 2; i < 6; i++) {
        write_page(store, a, 0, &i, 1);
        assert_int_equal(word.calls, i);
        assert_int_equal(sum.calls, i);
        assert_int_equal(add.calls, i);
        assert_int_equal(add.length, 4);
    }
    assert_ok(qallow_graph_check(graph, qallow_newest(store)));
    qallow_graph_destroy(graph);
    assert_ok(qallow_close(store));
}

/* One byte for each block of 16: its bytes summed up. */
static int sum_blocks(void *context, struct qallow_call *call)
{
    const struct qallow_input *input = call->inputs;
    for (uint64_t k = 0; k < call->length; k++)
        for (uint64_t i = (call->offset + k) * 16; i < (call->offset + k + 1) * 16; i++)
            call->output[k] = (uint8_t)(call->output[k] + (i < input->size ? input->bytes[i] : 0));
    return 0;
}

static void test_blockwise(void **state)
{
    struct qallow_dependency d = {.access = QALLOW_BLOCKWISE, .unit = 16};
    uint8_t bytes[100] = {0};
    struct pair p;
    pair_begin(&p, sum_blocks, d, 1, bytes, sizeof bytes);
    assert_int_equal(page_size(p.store, p.b), 7);
    write_page(p.store, p.a, 97, "\7", 1);
    assert_computed(&p, 1, 1, 6);
    assert_page(p.store, p.b, "\0\0\0\0\0\0\7", 7);
    write_page(p.store, p.a, 15, "\1\1", 2);
    assert_computed(&p, 1, 2, 0);
    write_page(p.store, p.a, 100, bytes, 12); /* fills the block */
    assert_computed(&p, 1, 1, 6);
    assert_page(p.store, p.b, "\1\1\0\0\0\0\7", 7);
    pair_end(&p);
}

/* The greatest of three: the one before, itself, two behind. */
static int greatest(void *context, struct qallow_call *call)
{
    const struct qallow_input *input = call->inputs;
    for (uint64_t k = 0; k < call->length; k++) {
        uint64_t at = call->offset + k;
        for (uint64_t i = at ? at - 1 : 0; i <= at + 2 && i < input->size; i++)
            if (input->bytes[i] > call->output[k])
                call->output[k] = input->bytes[i];
    }
    return 0;
}

static void test_window(void **state)
{
    struct qallow_dependency d = {.access = QALLOW_WINDOW, .unit = 1, .before = 1, .after = 2};
    uint8_t bytes[50] = {0};
    struct pair p;
    pair_begin(&p, greatest, d, 0, bytes, sizeof bytes);
    write_page(p.store, p.a, 20, "\5", 1);
    assert_computed(&p, 1, 4, 18);
    uint8_t expected[50] = {[18] = 5, 5, 5, 5};
    assert_page(p.store, p.b, expected, 50);
    write_page(p.store, p.a, 0, "\1", 1);
    assert_computed(&p, 1, 2, 0);
    write_page(p.store, p.a, 49, "\2", 1);
    assert_computed(&p, 1, 3, 47);
    write_page(p.store, p.a, 50, "\3\3", 2); /* what stood near the end sees it */
    assert_computed(&p, 1, 4, 48);
    pair_end(&p);
}

/* Elements of 2 bytes for each of 8. */
static int narrow(void *context, struct qallow_call *call)
{
    const struct qallow_input *input = call->inputs;
    for (uint64_t k = 0; k < call->length; k++) {
        uint64_t at = (call->offset + k) / 2 * 8 + (call->offset + k) % 2;
        call->output[k] = at < input->size ? input->bytes[at] : 0;
    }
    return 0;
}

static void test_units(void **state)
{
    struct qallow_dependency d = {.access = QALLOW_ELEMENTWISE, .unit = 8};
    uint8_t bytes[81] = {0};
    struct pair p;
    pair_begin(&p, narrow, d, 2, bytes, sizeof bytes);
    assert_int_equal(page_size(p.store, p.b), 22); /* a begun element is one */
    write_page(p.store, p.a, 16, "\1\2\3", 3);
    assert_computed(&p, 1, 2, 4);
    assert_page(p.store, p.b, "\0\0\0\0\1\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 22);
    write_page(p.store, p.a, 80, "\4", 1);
    assert_computed(&p, 1, 2, 20);
    pair_end(&p);
}

/* As many bytes for a unit as it has, but all of them also for the last one, which has begun. */
static int sum_eights(void *context, struct qallow_call *call)
{
    (void)context;
    for (uint64_t at = call->offset; at < call->offset + call->length; at += 8)
        for (uint64_t i = at; i < at + 8 && i < call->inputs[0].size; i++)
            call->output[at - call->offset] += call->inputs[0].bytes[i];
    return 0;
}

static void test_whole_units(void **state)
{
    struct qallow_dependency d = {.access = QALLOW_BLOCKWISE, .unit = 8};
    struct pair p;
    pair_begin_flags(&p, sum_eights, d, 8, QALLOW_NODE_WHOLE_UNITS, "\1\2\3\0\0\0\0\0\4\5", 10);
    assert_page(p.store, p.b, "\6\0\0\0\0\0\0\0\11\0\0\0\0\0\0\0", 16);
    write_page(p.store, p.a, 9, "\1", 1);
    assert_computed(&p, 1, 8, 8);
    assert_page(p.store, p.b, "\6\0\0\0\0\0\0\0\5\0\0\0\0\0\0\0", 16);
    pair_end(&p);
    pair_begin(&p, sum_eights, d, 8, "\1\2\3\0\0\0\0\0\4\5", 10); /* without */
    assert_page(p.store, p.b, "\6\0\0\0\0\0\0\0\11\0", 10);
    pair_end(&p);
}

/* An input that is read whole beside one that is read by elements. */
static void test_mixed(void **state)
{
    struct qallow_store *store = open_new("mixed.tlog");
    uint8_t bytes[100] = {0};
    uint64_t a = add_page(store, "a", bytes, sizeof bytes), k = add_page(store, "k", "\1", 1);
    uint64_t b = add_page(store, "b", "", 0);
    struct qallow_dependency d[2] = {{.page = k, .access = QALLOW_WHOLE},
                                     {.page = a, .access = QALLOW_ELEMENTWISE, .unit = 1}};
    struct qallow_node_options o = QALLOW_NODE_OPTIONS_INIT;
    struct counted f = {.function = add_bytes};
    struct qallow_graph *graph = new_graph(store);
    o.page = b;
    o.function = counted;
    o.context = &f;
    o.inputs = d;
    o.input_count = 2;
    assert_ok(qallow_graph_add(graph, &o, NULL));
    assert_ok(qallow_graph_update(graph, NULL));
    f.bytes = 0;
    write_page(store, a, 5, "\1", 1);
    assert_int_equal(f.bytes, 1);
    write_page(store, k, 0, "\2", 1);
    assert_int_equal(f.bytes, 101);
    assert_ok(qallow_graph_check(graph, qallow_newest(store)));
    qallow_graph_destroy(graph);
    assert_ok(qallow_close(store));
}

/* A chain of pages of some MiB: a change of one byte is one byte all the way. */
static void test_large(void **state)
{
    enum { SIZE = 5 << 20 };
    struct qallow_store *store = open_new("large.tlog");
    uint8_t *bytes = calloc(1, SIZE);
    uint64_t a = add_page(store, "a", bytes, SIZE), b = add_page(store, "b", "", 0);
    uint64_t c = add_page(store, "c", "", 0);
    struct counted f = {.function = add_bytes}, g = {.function = add_bytes};
    struct qallow_graph *graph = new_graph(store);
    struct qallow_epoch epoch = QALLOW_EPOCH_INIT;
    add_elementwise(graph, b, &f, a);
    add_elementwise(graph, c, &g, b);
    assert_ok(qallow_graph_update(graph, NULL));
    f.bytes = g.bytes = 0;
    write_page(store, a, 3 << 20, "\7", 1);
    assert_int_equal(f.bytes, 1);
    assert_int_equal(g.bytes, 1);
    memset(bytes, 2, SIZE);
    bytes[3 << 20] = 9;
    assert_page(store, c, bytes, SIZE);
    assert_ok(qallow_epoch_get(store, page_version(store, c), &epoch));
    assert_true(epoch.log_bytes < 1000);
    assert_ok(qallow_graph_check(graph, qallow_newest(store)));
    free(bytes);
    qallow_graph_destroy(graph);
    assert_ok(qallow_verify(store, 1));
    assert_ok(qallow_close(store));
}

const struct CMUnitTest access_tests[] = {
    cmocka_unit_test(test_elementwise), cmocka_unit_test(test_blockwise),
    cmocka_unit_test(test_window),      cmocka_unit_test(test_units),
    cmocka_unit_test(test_whole_units), cmocka_unit_test(test_mixed),
    cmocka_unit_test(test_large),       cmocka_unit_test(test_always),
};
const size_t access_test_count = sizeof access_tests / sizeof *access_tests;
