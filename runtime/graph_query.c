/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dependency graph: looking at it. What there is, who depends on whom, why a page is as it is,
 * and whether everything is what the functions give.
 */
#include <string.h>

#include "runtime/error.h"
#include "runtime/graph.h"
#include "runtime/os.h"

static int find(const struct qallow_graph *graph, uint64_t page, struct qr_vertex **v)
{
    *v = qr_graph_find(graph, page);
    return *v ? 0
              : qr_fail(QALLOW_E_PAGE_NOT_FOUND, "page %llu is not in the graph",
                        (unsigned long long)page);
}

static void describe(const struct qr_vertex *v, struct qallow_node *node)
{
    *node = (struct qallow_node){.size = sizeof *node,
                                 .flags = v->flags,
                                 .page = v->id,
                                 .is_source = !v->function,
                                 .is_stale = v->is_stale,
                                 .level = v->level,
                                 .inputs = v->input_count,
                                 .dependents = v->child_count,
                                 .bytes = v->capacity,
                                 .computed = v->computed,
                                 .equal = v->equal,
                                 .computed_bytes = v->computed_bytes,
                                 .name = v->name};
}

int qallow_graph_get(struct qallow_graph *graph, uint64_t page, struct qallow_node *node)
{
    struct qallow_node out;
    struct qr_vertex *v;
    QR_CHECK_ARGUMENT(graph != NULL && node != NULL);
    int rc = qr_graph_enter(graph);
    if (rc)
        return rc;
    rc = find(graph, page, &v);
    if (!rc)
        rc = qr_graph_order(graph);
    if (!rc)
        describe(v, &out);
    qr_graph_leave(graph);
    return rc ? rc : qr_api_give(node, &out, sizeof out);
}

/* ---------------------------------------------------------------- traversal */

/* Marks everything that the marked vertices lead to, in one pass over the order. */
static void spread_marks(struct qallow_graph *graph, enum qallow_direction direction)
{
    for (uint32_t n = 0; n < graph->order_count; n++) {
        uint32_t at = graph->order[direction == QALLOW_DOWN ? n : graph->order_count - 1 - n];
        const struct qr_vertex *v = &graph->vertices[at];
        uint32_t count = direction == QALLOW_DOWN ? v->child_count : v->input_count;
        for (uint32_t i = 0; i < count && graph->marks[at]; i++)
            graph->marks[direction == QALLOW_DOWN ? v->children[i] : qr_input(v, i)] = 1;
    }
}

/* Copies of all that are asked for, so that the graph need not be kept still while they are looked
 * at. */
static int gather(struct qallow_graph *graph, uint64_t page, enum qallow_direction direction,
                  struct qallow_node **nodes, uint32_t *count)
{
    struct qr_vertex *v = NULL;
    int rc = page ? find(graph, page, &v) : 0;
    if (!rc)
        rc = qr_graph_order(graph);
    *count = 0;
    if (rc || graph->order_count == 0)
        return rc;
    *nodes = qr_malloc(graph->order_count * sizeof **nodes);
    if (!*nodes)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory to walk %u pages", graph->order_count);
    if (v)
        graph->marks[qr_vertex_index(graph, v)] = 1;
    spread_marks(graph, direction);
    for (uint32_t n = 0; n < graph->order_count; n++) {
        uint32_t at = graph->order[direction == QALLOW_DOWN ? n : graph->order_count - 1 - n];
        if (!page || graph->marks[at])
            describe(&graph->vertices[at], &(*nodes)[(*count)++]);
        graph->marks[at] = 0;
    }
    return 0;
}

int qallow_graph_walk(struct qallow_graph *graph, uint64_t page, enum qallow_direction direction,
                      int (*visit)(void *context, const struct qallow_node *node), void *context)
{
    struct qallow_node *nodes = NULL;
    uint32_t count = 0;
    QR_CHECK_ARGUMENT(graph != NULL && visit != NULL);
    QR_CHECK_ARGUMENT(direction == QALLOW_DOWN || direction == QALLOW_UP);
    int rc = qr_graph_enter(graph);
    if (rc)
        return rc;
    rc = gather(graph, page, direction, &nodes, &count);
    qr_graph_leave(graph);
    for (uint32_t i = 0; i < count && !rc; i++)
        rc = visit(context, &nodes[i]);
    qr_free(nodes);
    return rc;
}

int qallow_graph_neighbours(struct qallow_graph *graph, uint64_t page,
                            enum qallow_direction direction, uint64_t *pages, size_t capacity,
                            size_t *count)
{
    struct qr_vertex *v;
    QR_CHECK_ARGUMENT(graph != NULL && count != NULL && (pages != NULL || capacity == 0));
    QR_CHECK_ARGUMENT(direction == QALLOW_DOWN || direction == QALLOW_UP);
    int rc = qr_graph_enter(graph);
    if (rc)
        return rc;
    rc = find(graph, page, &v);
    if (!rc) {
        *count = direction == QALLOW_DOWN ? v->child_count : v->input_count;
        for (size_t i = 0; i < *count && i < capacity; i++)
            pages[i] =
                graph->vertices[direction == QALLOW_DOWN ? v->children[i] : qr_input(v, i)].id;
    }
    qr_graph_leave(graph);
    return rc;
}

/* ---------------------------------------------------------------- numbers, reasons, content */

int qallow_graph_stats(struct qallow_graph *graph, struct qallow_graph_stats *stats)
{
    struct qallow_graph_stats out = QALLOW_GRAPH_STATS_INIT;
    QR_CHECK_ARGUMENT(graph != NULL && stats != NULL);
    int rc = qr_graph_enter(graph);
    if (rc)
        return rc;
    rc = qr_graph_order(graph);
    if (!rc) {
        const uint32_t count = graph->order_count;
        out.depth = count ? graph->vertices[graph->order[count - 1]].level : 0;
        out.nodes = graph->nodes;
        out.sources = count - graph->nodes;
        out.edges = graph->edges;
        out.stale = graph->stale_count;
        out.memory = graph->memory;
        out.waves = graph->waves;
        out.computed = graph->computed;
        out.equal = graph->equal;
        out.computed_bytes = graph->computed_bytes;
        out.volatile_digest[0] = graph->volatile_digest.lo;
        out.volatile_digest[1] = graph->volatile_digest.hi;
    }
    qr_graph_leave(graph);
    return rc ? rc : qr_api_give(stats, &out, sizeof out);
}

static int give_reason(const struct qr_vertex *v, struct qallow_reason *reason)
{
    struct qallow_reason out = QALLOW_REASON_INIT;
    out.why = v->past.why;
    out.page = v->id;
    out.epoch = v->past.epoch;
    out.cause = v->past.cause;
    out.computed_bytes = v->past.computed_bytes;
    out.offset = v->past.offset;
    out.length = v->past.length;
    out.name = v->name;
    return qr_api_give(reason, &out, sizeof out);
}

int qallow_graph_explain(struct qallow_graph *graph, uint64_t page, struct qallow_reason *reasons,
                         size_t capacity, size_t *count)
{
    struct qr_vertex *v;
    size_t n = 0;
    QR_CHECK_ARGUMENT(graph != NULL && count != NULL && (reasons != NULL || capacity == 0));
    int rc = qr_graph_enter(graph);
    if (rc)
        return rc;
    rc = find(graph, page, &v);
    for (const struct qr_vertex *at = rc ? NULL : v; at && !rc; n++) {
        if (n < capacity)
            rc = give_reason(at, &reasons[n]);
        at = at->past.cause ? qr_graph_find(graph, at->past.cause) : NULL;
        if (n > graph->count) /* causes changed hands with their nodes: no end in sight */
            at = NULL;
    }
    if (!rc)
        *count = n;
    qr_graph_leave(graph);
    return rc;
}

/* 1: read. 0: it is in the log, to be read from there. */
static int read_loaded(struct qallow_graph *graph, uint64_t page, uint64_t offset, void *buffer,
                       size_t length)
{
    struct qr_vertex *v;
    int rc = find(graph, page, &v);
    if (rc)
        return rc;
    if (!v->is_loaded || v->must_reload) {
        if (!(v->flags & QALLOW_NODE_VOLATILE))
            return 0;
        return qr_fail(QALLOW_E_STATE, "%s has not been computed yet: qallow_graph_update",
                       qr_vertex_name(v));
    }
    if (offset > v->size || length > v->size - offset)
        return qr_fail(QALLOW_E_LIMIT, "%s: bytes %llu+%zu reach beyond its %llu",
                       qr_vertex_name(v), (unsigned long long)offset, length,
                       (unsigned long long)v->size);
    if (length)
        memcpy(buffer, v->bytes + offset, length);
    return 1;
}

int qallow_graph_read(struct qallow_graph *graph, uint64_t page, uint64_t offset, void *buffer,
                      size_t length)
{
    QR_CHECK_ARGUMENT(graph != NULL && (buffer != NULL || length == 0));
    int rc = qr_graph_enter(graph);
    if (rc)
        return rc;
    rc = read_loaded(graph, page, offset, buffer, length);
    qr_graph_leave(graph);
    if (rc)
        return rc < 0 ? rc : 0;
    return qallow_page_read(qallow_newest(graph->store), page, offset, buffer, length);
}

/* ---------------------------------------------------------------- checking */

/* A graph of the same shape without content, which computes from a view. */
static int copy_shape(struct qallow_graph *graph, struct qallow_view *view,
                      struct qallow_graph *copy)
{
    int rc = qr_graph_order(graph);
    *copy = (struct qallow_graph){.store = graph->store,
                                  .options = graph->options,
                                  .count = graph->count,
                                  .order = graph->order,
                                  .order_count = graph->order_count,
                                  .table = graph->table,
                                  .table_size = graph->table_size,
                                  .checking = view};
    if (rc) {
        copy->count = 0; /* there is nothing to free */
        return rc;
    }
    size_t inputs = graph->inputs_capacity ? graph->inputs_capacity : 1;
    copy->vertices = qr_malloc(graph->count * sizeof *copy->vertices);
    copy->inputs = qr_malloc(inputs * sizeof *copy->inputs);
    if (!copy->vertices || !copy->inputs) {
        copy->count = 0;
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory to check a graph of %u pages", graph->count);
    }
    for (uint32_t i = 0; i < graph->count; i++) {
        struct qr_vertex *v = &copy->vertices[i];
        *v = graph->vertices[i];
        v->bytes = NULL;
        v->size = v->capacity = 0;
        v->sum = (struct qb_u128){0, 0};
        v->changed = v->pending = (struct qr_ranges){0};
        v->must_reload = 0;
        v->is_loaded = v->function && !(v->flags & QALLOW_NODE_VOLATILE); /* and empty */
    }
    return 0;
}

static void finish_copy(struct qallow_graph *copy)
{
    for (uint32_t i = 0; i < copy->count; i++) {
        qr_free(copy->vertices[i].bytes);
        qr_ranges_finish(&copy->vertices[i].changed);
    }
    void *const memory[] = {copy->vertices, copy->inputs, copy->scratch, copy->undo,
                            copy->undo_bytes.bytes};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        qr_free(memory[i]);
    qr_ranges_finish(&copy->output);
    qr_edits_finish(&copy->edits);
}

/* A derived page of the view beside what has been computed. */
static int compare(struct qallow_graph *copy, const struct qr_vertex *v)
{
    enum { CHUNK = 64 << 10 };
    uint8_t bytes[CHUNK];
    struct qallow_page page = QALLOW_PAGE_INIT;
    int rc = qallow_page_get(copy->checking, v->id, &page);
    if (!rc && page.bytes != v->size)
        return qr_fail(QALLOW_E_DIFFERS, "%s has %llu bytes; computed anew, %llu",
                       qr_vertex_name(v), (unsigned long long)page.bytes,
                       (unsigned long long)v->size);
    for (uint64_t at = 0; at < v->size && !rc; at += CHUNK) {
        size_t n = v->size - at < CHUNK ? (size_t)(v->size - at) : CHUNK;
        rc = qallow_page_read(copy->checking, v->id, at, bytes, n);
        size_t same = rc ? 0 : qb_kernels()->common_prefix(bytes, v->bytes + at, n);
        if (!rc && same < n)
            rc = qr_fail(QALLOW_E_DIFFERS,
                         "%s differs from what is computed anew, from byte %llu "
                         "on",
                         qr_vertex_name(v), (unsigned long long)(at + same));
    }
    return rc;
}

static int check_nodes(struct qallow_graph *copy, int *has_volatile)
{
    struct qr_past past;
    int rc = 0, changed;
    qr_graph_in_function = 1;
    for (uint32_t n = 0; n < copy->order_count && !rc; n++) {
        struct qr_vertex *v = &copy->vertices[copy->order[n]];
        if (!v->function)
            continue;
        if (!v->is_ranged && !(v->flags & QALLOW_NODE_VOLATILE)) { /* as a wave finds it */
            struct qallow_page page = QALLOW_PAGE_INIT;
            rc = qallow_page_get(copy->checking, v->id, &page);
            rc = rc ? rc : qr_vertex_resize(copy, v, page.bytes);
        }
        rc = rc ? rc : qr_graph_compute(copy, v, 1, &changed, &past);
        copy->undo_count = copy->undo_bytes.length = 0;
        if (!rc && v->flags & QALLOW_NODE_VOLATILE)
            *has_volatile = 1;
        else if (!rc)
            rc = compare(copy, v);
    }
    qr_graph_in_function = 0;
    return rc;
}

int qallow_graph_check(struct qallow_graph *graph, struct qallow_view *view)
{
    struct qallow_graph copy;
    struct qb_u128 digest;
    int has_volatile = 0;
    QR_CHECK_ARGUMENT(graph != NULL && view != NULL && view->store == graph->store);
    int rc = qr_graph_enter_reading(graph);
    if (rc)
        return rc;
    rc = copy_shape(graph, view, &copy);
    if (!rc)
        rc = check_nodes(&copy, &has_volatile);
    if (!rc && has_volatile && !graph->options.no_table) {
        rc = qr_graph_table_digest(graph, view, &digest);
        if (!rc && !qb_u128_equal(digest, copy.volatile_digest))
            rc = qr_fail(QALLOW_E_DIFFERS,
                         "epoch %llu: the volatile pages have another digest "
                         "than what is computed anew",
                         (unsigned long long)qallow_view_epoch(view));
    }
    finish_copy(&copy);
    qr_graph_leave(graph);
    pthread_rwlock_unlock(&graph->store->newest_lock);
    return rc;
}
