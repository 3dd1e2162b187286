/* SPDX-License-Identifier: Apache-2.0 */
/* Functions to compute pages with, and pages to compute. */
#include "tests/graph/support.h"

int counted(void *context, struct qallow_call *call)
{
    struct counted *c = context;
    c->calls++;
    c->bytes += call->length;
    c->offset = call->offset;
    c->length = call->length;
    if (c->fail)
        return qallow_call_fail(call, c->fail, "it was told to");
    return c->function(NULL, call);
}

int sum_bytes(void *context, struct qallow_call *call)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < call->input_count; i++)
        for (uint64_t k = 0; k < call->inputs[i].size; k++)
            sum += call->inputs[i].bytes[k];
    int rc = qallow_call_resize(call, sizeof sum);
    if (rc == 0)
        memcpy(call->output, &sum, sizeof sum);
    return rc;
}

int add_bytes(void *context, struct qallow_call *call)
{
    for (uint64_t k = 0; k < call->length; k++) {
        uint8_t sum = 1;
        for (uint32_t i = 0; i < call->input_count; i++)
            if (call->offset + k < call->inputs[i].size)
                sum = (uint8_t)(sum + call->inputs[i].bytes[call->offset + k]);
        call->output[k] = sum;
    }
    return 0;
}

int concatenate(void *context, struct qallow_call *call)
{
    uint64_t size = 0, at = 0;
    for (uint32_t i = 0; i < call->input_count; i++)
        size += call->inputs[i].size;
    int rc = qallow_call_resize(call, size);
    for (uint32_t i = 0; i < call->input_count && rc == 0; i++) {
        if (call->inputs[i].size)
            memcpy(call->output + at, call->inputs[i].bytes, call->inputs[i].size);
        at += call->inputs[i].size;
    }
    return rc;
}

int do_nothing(void *context, struct qallow_call *call) { return 0; }

struct qallow_store *open_again(const char *name)
{
    struct qallow_options options = QALLOW_OPTIONS_INIT;
    struct qallow_store *store;
    options.writable = 1;
    options.logical_clock = 1;
    options.sync = QALLOW_SYNC_NONE;
    assert_ok(qallow_open(path(name), &options, &store));
    return store;
}

struct qallow_graph *new_graph(struct qallow_store *store)
{
    struct qallow_graph *graph;
    assert_ok(qallow_graph_create(store, NULL, &graph));
    return graph;
}

uint64_t add_page(struct qallow_store *store, const char *name, const void *bytes, size_t length)
{
    struct qallow_txn *txn;
    assert_ok(qallow_begin(store, &txn));
    uint64_t page = create_page(txn, name, 0, QALLOW_RAW);
    assert_ok(qallow_page_write(txn, page, 0, bytes, length));
    assert_ok(qallow_commit(txn, NULL));
    return page;
}

void write_page(struct qallow_store *store, uint64_t page, uint64_t offset, const void *bytes,
                size_t length)
{
    struct qallow_txn *txn;
    assert_ok(qallow_begin(store, &txn));
    assert_ok(qallow_page_write(txn, page, offset, bytes, length));
    assert_ok(qallow_commit(txn, NULL));
}

static struct qallow_page info_of(struct qallow_store *store, uint64_t page)
{
    struct qallow_page info = QALLOW_PAGE_INIT;
    assert_ok(qallow_page_get(qallow_newest(store), page, &info));
    return info;
}
uint64_t page_size(struct qallow_store *store, uint64_t page) { return info_of(store, page).bytes; }
uint64_t page_version(struct qallow_store *store, uint64_t page)
{
    return info_of(store, page).version;
}

void assert_page(struct qallow_store *store, uint64_t page, const void *bytes, size_t length)
{
    uint8_t *found = malloc(length + 1);
    assert_int_equal(page_size(store, page), length);
    assert_ok(qallow_page_read(qallow_newest(store), page, 0, found, length));
    assert_memory_equal(found, bytes, length);
    free(found);
}

void node_options(struct qallow_node_options *options, struct qallow_dependency *dependencies,
                  uint64_t page, const char *name, struct counted *function, const uint64_t *inputs)
{
    *options = (struct qallow_node_options)QALLOW_NODE_OPTIONS_INIT;
    options->page = page;
    options->flags = page ? 0 : QALLOW_NODE_VOLATILE;
    options->volatile_name = page ? NULL : name;
    options->name = page ? name : NULL;
    options->function = counted;
    options->context = function;
    options->inputs = dependencies;
    for (; inputs[options->input_count]; options->input_count++)
        dependencies[options->input_count] =
            (struct qallow_dependency){.page = inputs[options->input_count]};
}

uint64_t add_node(struct qallow_graph *graph, uint64_t page, const char *name,
                  struct counted *function, const uint64_t *inputs)
{
    struct qallow_dependency dependencies[8];
    struct qallow_node_options options;
    uint64_t id;
    node_options(&options, dependencies, page, name, function, inputs);
    assert_ok(qallow_graph_add(graph, &options, &id));
    return id;
}

uint64_t add_elementwise(struct qallow_graph *graph, uint64_t page, struct counted *function,
                         uint64_t input)
{
    struct qallow_dependency dependency = {.page = input, .access = QALLOW_ELEMENTWISE, .unit = 1};
    struct qallow_node_options options = QALLOW_NODE_OPTIONS_INIT;
    options.page = page;
    options.function = counted;
    options.context = function;
    options.inputs = &dependency;
    options.input_count = 1;
    assert_ok(qallow_graph_add(graph, &options, NULL));
    return page;
}
