/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dependency graph: what a commit pays for each page that is computed from another one. A page
 * changes, the wave goes on through a chain or a fan, and the commit's time is divided by the pages
 * computed.
 *
 * `size` is the bytes of each page; of signals, which have none, those of the page that changes.
 */
#include <stdio.h>
#include <string.h>

#include "bench/store.h"
#include "qallow/graph.h"
#include "runtime/os.h"

enum { SIGNALS = 10000, COPIES = 1000, SMALL = 64 << 10, LINE = 8, PLACES = 16 };

struct propagate {
    struct qm_store store, small; /* small: of the reference */
    struct qallow_graph *graph, *small_graph;
    uint64_t source, small_source, size;
    uint64_t hops;
    uint64_t value;
    int changes_all;
    uint8_t *bytes;
    /* the least that does it */
    qallow_function *functions;
    uint8_t *pages;
};

static int do_nothing(void *context, struct qallow_call *call) { return 0; }

static int add_one(void *context, struct qallow_call *call)
{
    const uint8_t *from = call->inputs[0].bytes + call->offset;
    for (uint64_t i = 0; i < call->length; i++)
        call->output[i] = (uint8_t)(from[i] + 1);
    return 0;
}

static int make_pages(struct qm_store *store, uint64_t *ids, uint64_t count)
{
    struct qallow_page_options page = QALLOW_PAGE_OPTIONS_INIT;
    struct qallow_txn *txn;
    char name[32];
    int rc = qallow_begin(store->store, &txn);
    if (rc < 0)
        return rc;
    page.name = name;
    for (uint64_t i = 0; i < count && rc == 0; i++) {
        snprintf(name, sizeof name, "derived-%llu", (unsigned long long)i);
        rc = qallow_page_create(txn, &page, &ids[i]);
    }
    if (rc == 0)
        return qallow_commit(txn, NULL);
    qallow_abort(txn);
    return rc;
}

/* What all cases begin with: one page, and a graph. */
static int begin(struct qm_context *context, const char *name, uint64_t size,
                 struct qm_store *store, struct qallow_graph **graph, uint64_t *source)
{
    int rc = qm_store_create(context, name, QALLOW_SYNC_NONE, 1, size, store);
    if (rc < 0)
        return rc;
    *source = store->pages[0];
    return qallow_graph_create(store->store, NULL, graph);
}

static int setup(struct qm_context *context, uint64_t hops, uint64_t page_size)
{
    struct propagate *p = context->state = qr_calloc(1, sizeof *p);
    if (!p)
        return qm_no_memory();
    p->hops = hops;
    p->size = page_size;
    p->functions = qr_malloc(hops * sizeof *p->functions);
    p->pages = qr_calloc(hops + 1, context->size);
    p->bytes = qr_calloc(1, page_size);
    if (!p->functions || !p->pages || !p->bytes)
        return qm_no_memory();
    for (uint64_t i = 0; i < hops; i++)
        p->functions[i] = do_nothing;
    return begin(context, "graph.tlog", page_size, &p->store, &p->graph, &p->source);
}

/* --- signals --- */

static int setup_signals(struct qm_context *context, int is_fan)
{
    int rc = setup(context, SIGNALS, LINE);
    struct propagate *p = context->state;
    uint64_t last = rc < 0 ? 0 : p->source;
    for (uint64_t i = 0; i < SIGNALS && rc == 0; i++) {
        struct qallow_dependency input = {.page = last};
        struct qallow_node_options node = QALLOW_NODE_OPTIONS_INIT;
        char name[32];
        uint64_t made;
        snprintf(name, sizeof name, "signal-%llu", (unsigned long long)i);
        node.flags = QALLOW_NODE_VOLATILE | QALLOW_NODE_ALWAYS;
        node.volatile_name = name;
        node.function = do_nothing;
        node.inputs = &input;
        node.input_count = 1;
        rc = qallow_graph_add(p->graph, &node, &made);
        if (!is_fan)
            last = made;
    }
    return rc < 0 ? rc : qallow_graph_update(p->graph, NULL);
}
static int setup_chain(struct qm_context *context) { return setup_signals(context, 0); }
static int setup_fan(struct qm_context *context) { return setup_signals(context, 1); }

/* --- copies --- */

static int setup_copies(struct qm_context *context, int is_volatile, int changes_all)
{
    uint64_t ids[COPIES], last;
    int rc = setup(context, COPIES, context->size);
    struct propagate *p = context->state;
    if (rc == 0 && !is_volatile)
        rc = make_pages(&p->store, ids, COPIES);
    if (rc < 0)
        return rc;
    p->changes_all = changes_all;
    last = p->source;
    for (uint64_t i = 0; i < COPIES && rc == 0; i++) {
        struct qallow_dependency input = {
            .page = last, .access = QALLOW_BLOCKWISE, .unit = context->size};
        struct qallow_node_options node = QALLOW_NODE_OPTIONS_INIT;
        char name[32];
        snprintf(name, sizeof name, "copy-%llu", (unsigned long long)i);
        node.flags = is_volatile ? QALLOW_NODE_VOLATILE : 0;
        node.volatile_name = is_volatile ? name : NULL;
        node.page = is_volatile ? 0 : ids[i];
        node.function = qallow_passthrough;
        node.inputs = &input;
        node.input_count = 1;
        rc = qallow_graph_add(p->graph, &node, &last);
    }
    return rc < 0 ? rc : qallow_graph_update(p->graph, NULL);
}
static int setup_logged(struct qm_context *context) { return setup_copies(context, 0, 0); }
static int setup_volatile(struct qm_context *context) { return setup_copies(context, 1, 0); }
static int setup_all(struct qm_context *context) { return setup_copies(context, 1, 1); }

/* --- one element --- */

static int setup_element_in(struct qm_store *store, struct qallow_graph *graph, uint64_t source)
{
    struct qallow_dependency input = {.page = source, .access = QALLOW_ELEMENTWISE, .unit = LINE};
    struct qallow_node_options node = QALLOW_NODE_OPTIONS_INIT;
    int rc = make_pages(store, &node.page, 1);
    node.function = add_one;
    node.inputs = &input;
    node.input_count = 1;
    if (rc == 0)
        rc = qallow_graph_add(graph, &node, NULL);
    return rc < 0 ? rc : qallow_graph_update(graph, NULL);
}

static int setup_element(struct qm_context *context)
{
    uint64_t size = context->size;
    context->size = LINE; /* of what the reference has of its own */
    int rc = setup(context, 1, size);
    struct propagate *p = context->state;
    context->size = size;
    if (rc == 0)
        rc = begin(context, "small.tlog", SMALL, &p->small, &p->small_graph, &p->small_source);
    if (rc == 0)
        rc = setup_element_in(&p->store, p->graph, p->source);
    return rc < 0 ? rc : setup_element_in(&p->small, p->small_graph, p->small_source);
}

static void finish(struct qm_context *context)
{
    struct propagate *p = context->state;
    if (!p)
        return;
    qallow_graph_destroy(p->graph);
    qallow_graph_destroy(p->small_graph);
    qm_store_finish(&p->store);
    qm_store_finish(&p->small);
    qr_free(p->functions);
    qr_free(p->pages);
    qr_free(p->bytes);
    qr_free(p);
}

/* --- running --- */

static int change(struct propagate *p, struct qm_store *store, uint64_t page, uint64_t offset,
                  size_t length)
{
    struct qallow_txn *txn;
    int rc = qallow_begin(store->store, &txn);
    if (rc < 0)
        return rc;
    p->value++;
    for (size_t i = 0; i < length; i += LINE)
        memcpy(p->bytes + i, &p->value, LINE);
    rc = qallow_page_write(txn, page, offset, p->bytes, length);
    if (rc == 0)
        return qallow_commit(txn, NULL);
    qallow_abort(txn);
    return rc;
}

static int run(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct propagate *p = context->state;
    size_t length = p->changes_all ? p->size : LINE;
    int rc = 0;
    double start = qm_now();
    for (uint64_t i = 0; rc == 0 && i < repeats; i++)
        rc = change(p, &p->store, p->source, 0, length);
    *sample = (struct qm_sample){qm_now() - start, (double)repeats * (double)p->hops};
    return rc;
}

/* Bare calls through a pointer. */
static int run_calls(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct propagate *p = context->state;
    struct qallow_call call = {.size = sizeof call};
    int rc = 0;
    double start = qm_now();
    for (uint64_t i = 0; i < repeats; i++)
        for (uint64_t k = 0; k < p->hops; k++)
            rc |= p->functions[k](NULL, &call);
    *sample = (struct qm_sample){qm_now() - start, (double)repeats * (double)p->hops};
    qm_keep(&rc);
    return rc;
}

/* The copy and the comparison that there cannot be less than. */
static int run_copies(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct propagate *p = context->state;
    uint64_t size = context->size, differ = 0;
    double start = qm_now();
    for (uint64_t i = 0; i < repeats; i++) {
        p->value++;
        memcpy(p->pages, &p->value, LINE);
        for (uint64_t k = 0; k < p->hops; k++) {
            uint8_t *from = p->pages + k * size, *to = from + size;
            if (memcmp(from, to, size) != 0) {
                memcpy(to, from, size);
                differ++;
            }
        }
    }
    *sample = (struct qm_sample){qm_now() - start, (double)repeats * (double)p->hops};
    qm_keep(&differ);
    return 0;
}

/* At places all over the page, but the same again and again: how many pieces the store has of a
 * page is not what is measured. */
static int run_elements(struct propagate *p, struct qm_store *store, uint64_t page, uint64_t size,
                        uint64_t repeats, struct qm_sample *sample)
{
    int rc = 0;
    double start = qm_now();
    for (uint64_t i = 0; rc == 0 && i < repeats; i++)
        rc = change(p, store, page, p->value % PLACES * (size / PLACES), LINE);
    *sample = (struct qm_sample){qm_now() - start, (double)repeats};
    return rc;
}
static int run_element(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct propagate *p = context->state;
    return run_elements(p, &p->store, p->source, context->size, repeats, sample);
}
static int run_small_element(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct propagate *p = context->state;
    return run_elements(p, &p->small, p->small_source, SMALL, repeats, sample);
}

static const struct qm_work chain = {setup_chain, run, run_calls, finish};
static const struct qm_work fan = {setup_fan, run, run_calls, finish};
static const struct qm_work logged = {setup_logged, run, run_copies, finish};
static const struct qm_work in_memory = {setup_volatile, run, run_copies, finish};
static const struct qm_work all = {setup_all, run, run_copies, finish};
static const struct qm_work element = {setup_element, run_element, run_small_element, finish};

/* clang-format off */
#define MIB (UINT64_C(1) << 20)
const struct qm_case qm_propagate_cases[] = {
    {"propagate/chain", "propagate: a chain of 10,000", "indirect call",
     "A commit changes a page on which 10,000 functions that do nothing depend, each on the one "
     "before; the commit's time for each, beside a bare call through a pointer.",
     &qm_ns, {QM_FIGURE, 40}, &chain, .size = LINE},
    {"propagate/fan", "propagate: a fan of 10,000", "indirect call",
     "The same with 10,000 functions that all depend on the page itself.",
     &qm_ns, {QM_FIGURE, 40}, &fan, .size = LINE},
    {"propagate/copy-4k", "propagate a 4 KiB passthrough", "memcmp + memcpy",
     "A chain of 1,000 pages of 4 KiB in the log, each computed whole as a copy of the one before; "
     "8 bytes change. The commit's time for each, with its delta and its digest, beside comparing "
     "and copying the page.",
     &qm_us, {QM_FIGURE, 1}, &logged, .size = 4096},
    {"propagate/copy-volatile", "propagate 4 KiB, volatile", "memcmp + memcpy",
     "The same with pages that are only in memory.",
     &qm_us, {QM_FIGURE, 1}, &in_memory, .size = 4096},
    {"propagate/copy-all", "propagate 4 KiB, all of it new", "memcmp + memcpy",
     "The same, and all bytes of the page change.",
     &qm_us, {QM_NOTHING, 0}, &all, .size = 4096},
    {"propagate/element-64m", "1 element of a 64 MiB node changes", "of a 64 KiB node",
     "A commit changes 8 bytes, at one of 16 places, of a page on which another one of the same "
     "size depends element by element, beside pages of 64 KiB.",
     &qm_us, {QM_RATIO, 1.5}, &element, .size = 64 * MIB, .smoke_size = 4 * MIB},
    {0},
};
