/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dependency graph without a store: sources are what the caller says they are, waves run when
 * he asks, and what they computed is told instead of logged. Nodes, order, access patterns, undoing
 * and explaining are those of a graph with a store: qallow_graph_add, _replace, _remove, _explain,
 * _walk and so on work here, too. Used by who keeps pages of his own and logs them himself.
 *
 * Everything is as if all pages were volatile and had no digest, until the caller says which pages
 * of which log they are: then deltas of what a wave changed join the next transaction there.
 */
#include "runtime/graph.h"
#include "runtime/os.h"

int qr_graph_create_loose(struct qallow_graph **graph)
{
    struct qallow_graph_options options = QALLOW_GRAPH_OPTIONS_INIT;
    options.no_table = 1;
    return qr_graph_make(NULL, &options, graph);
}

void qr_graph_destroy_loose(struct qallow_graph *graph)
{
    if (!graph)
        return;
    qr_graph_detach(graph);
    qr_batch_destroy(graph->log_batch);
    qr_graph_free(graph);
}

/* --- its pages in a log --- */

static int owns_nothing(void *context, uint64_t page)
{
    (void)context;
    (void)page;
    return 0;
}

static int takes_no_notes(void *context, const struct qr_record *record)
{
    (void)context;
    (void)record;
    return 0;
}

/* The caller's records have been applied. */
static int append_deltas(void *context, struct qr_txn *txn)
{
    struct qallow_graph *graph = context;
    if (!graph->log_batch || qr_batch_records(graph->log_batch) == 0)
        return 0;
    pthread_mutex_t *lock = &graph->log->sharing.lock; /* the pages are nobody's */
    pthread_mutex_lock(lock);
    int rc = qr_txn_append(txn, graph->log_batch);
    pthread_mutex_unlock(lock);
    return rc;
}

static void transaction_ended(void *context, uint64_t epoch)
{
    struct qallow_graph *graph = context;
    (void)epoch; /* without it the graph is ahead of the log: its owner ends */
    if (graph->log_batch)
        qr_batch_reset(graph->log_batch);
}

static void does_nothing(void *context) { (void)context; }

void qr_graph_attach(struct qallow_graph *graph, struct qallow_store *store)
{
    graph->derive = (struct qr_derive){owns_nothing,      takes_no_notes, append_deltas,
                                       transaction_ended, does_nothing,   graph};
    graph->log = store->store;
    graph->log->derive = &graph->derive;
}

void qr_graph_detach(struct qallow_graph *graph)
{
    if (graph->log && graph->log->derive == &graph->derive)
        graph->log->derive = NULL;
    graph->log = NULL;
}

void qr_graph_log_page(struct qallow_graph *graph, uint64_t page, uint64_t log_id)
{
    struct qr_vertex *v = qr_graph_find(graph, page);
    qr_assert(v != NULL && v->function && log_id != 0);
    v->log_id = log_id;
    qr_vertex_sum(v);
}

/* --- content --- */

int qr_graph_set(struct qallow_graph *graph, uint64_t page, uint64_t size, uint64_t offset,
                 const void *bytes, uint64_t length)
{
    struct qr_vertex *v = qr_graph_find(graph, page);
    struct qr_touched *touched;
    if (!v)
        return qr_fail(QALLOW_E_PAGE_NOT_FOUND, "page %llu is not in the graph",
                       (unsigned long long)page);
    qr_assert(!graph->store && !v->function && offset <= size && length <= size - offset);
    int rc = qr_graph_touch(graph, v, &touched);
    if (!rc)
        rc = qr_vertex_load(graph, v, v);
    if (!rc)
        rc = qr_vertex_resize(graph, v, size);
    return rc ? rc : qr_vertex_store(graph, v, offset, bytes, length, 0, NULL);
}

int qr_graph_adopt(struct qallow_graph *graph, uint64_t page, const void *bytes, uint64_t size,
                   int is_stale)
{
    struct qr_vertex *v = qr_graph_find(graph, page);
    qr_assert(v != NULL && !v->is_loaded && graph->touched_count == 0);
    int rc = qr_vertex_load(graph, v, v);
    if (!rc)
        rc = qr_vertex_resize(graph, v, size);
    if (!rc)
        rc = qr_vertex_store(graph, v, 0, bytes, size, 0, NULL);
    if (rc)
        qr_graph_undo(graph);
    graph->undo_count = graph->undo_bytes.length = 0; /* nothing of it is to be taken back */
    if (!rc && v->is_stale && !is_stale) {
        v->is_stale = 0;
        graph->stale_count--;
    }
    return rc;
}

void qr_graph_look(const struct qallow_graph *graph, uint64_t page, const uint8_t **bytes,
                   uint64_t *size)
{
    const struct qr_vertex *v = qr_graph_find(graph, page);
    qr_assert(v != NULL);
    *bytes = v->bytes;
    *size = v->size;
}

static int tell_all(const struct qallow_graph *graph,
                    int (*tell)(void *context, const struct qr_derived *derived), void *context)
{
    int rc = 0;
    for (size_t i = 0; i < graph->touched_count && !rc; i++) {
        const struct qr_vertex *v = &graph->vertices[graph->touched[i].vertex];
        if (graph->touched[i].is_node && v->changed.count)
            rc = tell(context, &(struct qr_derived){v->id, v->bytes, v->size, v->changed.items,
                                                    v->changed.count});
    }
    return rc;
}

int qr_graph_propagate(struct qallow_graph *graph, uint64_t epoch, int is_logged,
                       int (*tell)(void *context, const struct qr_derived *derived), void *context)
{
    qr_assert(epoch != 0);
    graph->epoch = epoch;
    int rc = is_logged && !graph->log_batch ? qr_batch_create(0, &graph->log_batch) : 0;
    graph->batch = is_logged ? graph->log_batch : NULL;
    if (!rc)
        rc = qr_graph_wave(graph);
    graph->batch = NULL;
    if (!rc)
        rc = tell_all(graph, tell, context);
    graph->has_waved = rc == 0;
    qr_graph_ended(graph, rc ? 0 : epoch);
    return rc;
}
