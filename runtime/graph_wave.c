/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dependency graph: how a commit reaches the pages that are computed from others.
 *
 *   records of the transaction --note--> what changed of which page      (graph_note.c)
 *   before its COMMIT frame:   sources brought up to date in memory      (graph_content.c)
 *                              wave: dirty nodes in topological order    (here, graph_order.c)
 *                              their deltas appended to the transaction
 *   when it is over:           kept, or all undone
 *
 * The wave is a bit for each rank of the topological order: who changes sets the bits of those that
 * depend on it, which all have higher ranks, and the lowest bit is next. So each node is computed
 * at most once, after all its inputs, and nothing is allocated or sorted on the way. A node reads
 * its inputs' content as it now is; which ranges of its output they reach follows from the access
 * pattern. The function writes into a buffer; what differs from the node's content is stored there,
 * becomes a delta, and is what its dependents are told.
 *
 * No versions are kept for each edge: in one process the bits are exact, since every change of a
 * source comes by as a record; from one process to the next the table tells (graph_table.c).
 *
 * Everything here runs in the ordered section of a commit, under the store's `calls`.
 */
#include <stdio.h>
#include <string.h>

#include "runtime/event.h"
#include "runtime/graph.h"
#include "runtime/os.h"
#include "runtime/store_internal.h"

_Thread_local int qr_graph_in_function;

static uint64_t times(uint64_t a, uint64_t b)
{
    uint64_t product;
    return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}
static uint64_t plus(uint64_t a, uint64_t b) { return a > UINT64_MAX - b ? UINT64_MAX : a + b; }

/* ---------------------------------------------------------------- calling a function */

/* What stands behind a struct qallow_call. */
struct calling {
    struct qallow_graph *graph;
    const struct qr_vertex *node;
    int may_resize;
    char text[256]; /* what the function said about its failure */
};

/* The buffer for output: `length` zeros. */
static int make_output(struct qallow_graph *graph, struct qallow_call *call, uint64_t length)
{
    const struct qr_vertex *v = ((struct calling *)call->internal)->node;
    graph->scratch_length = 0;
    if (length > QR_PAGE_SIZE_MAX)
        return qr_fail(QALLOW_E_LIMIT, "%s would have %llu bytes: at most 2^48", qr_vertex_name(v),
                       (unsigned long long)length);
    if (length > graph->scratch_capacity) {
        uint8_t *grown = qr_realloc(graph->scratch, length);
        if (!grown)
            return qr_fail(QALLOW_E_NO_MEMORY, "%s: no memory for its %llu bytes",
                           qr_vertex_name(v), (unsigned long long)length);
        graph->scratch = grown;
        graph->scratch_capacity = length;
    }
    if (length)
        memset(graph->scratch, 0, length);
    graph->scratch_length = call->length = length; /* what the function does to `call` is its own */
    call->output = graph->scratch;
    return 0;
}

int qallow_call_resize(struct qallow_call *call, uint64_t size)
{
    QR_CHECK_ARGUMENT(call != NULL && call->internal != NULL);
    struct calling *calling = call->internal;
    if (!calling->may_resize)
        return qr_fail(QALLOW_E_STATE,
                       "%s: the size of its page follows from an input that is not "
                       "QALLOW_WHOLE",
                       qr_vertex_name(calling->node));
    return make_output(calling->graph, call, size);
}

int qallow_call_fail(struct qallow_call *call, int result, const char *text)
{
    if (call && call->internal) {
        struct calling *calling = call->internal;
        snprintf(calling->text, sizeof calling->text, "%s", text ? text : "");
    }
    return result;
}

int qallow_passthrough(void *context, struct qallow_call *call)
{
    if (call->input_count < 1)
        return qallow_call_fail(call, QALLOW_E_ARGUMENT, "a passthrough has an input");
    const struct qallow_input *input = call->inputs;
    int is_resized = 0, rc = 0;
    if (call->internal && ((struct calling *)call->internal)->may_resize) {
        is_resized = 1;
        rc = qallow_call_resize(call, input->size);
    }
    if (rc || call->offset >= input->size)
        return rc;
    uint64_t n = input->size - call->offset;
    n = is_resized || n < call->length ? n : call->length;
    if (n)
        memcpy(call->output, input->bytes + call->offset, n);
    return 0;
}

static int function_failed(const struct calling *calling, int rc)
{
    const char *name = qr_vertex_name(calling->node);
    const char *text = calling->text[0] ? calling->text : NULL;
    if (rc > 0)
        return qr_fail(QALLOW_E_FUNCTION, "%s: its function failed with %d%s%s", name, rc,
                       text ? ": " : "", text ? text : "");
    return qr_fail(rc, "%s: its function failed: %s", name, text ? text : qallow_strerror(rc));
}

/* Leaves its output in graph->scratch. */
static int call_function(struct qallow_graph *graph, struct qr_vertex *v, uint64_t offset,
                         uint64_t length)
{
    struct calling calling;
    struct qallow_call call;
    calling.graph = graph;
    calling.node = v;
    calling.may_resize = !v->is_ranged;
    calling.text[0] = '\0';
    call = (struct qallow_call){.size = sizeof call,
                                .input_count = v->input_count,
                                .page = v->id,
                                .epoch = graph->epoch,
                                .inputs = graph->inputs,
                                .offset = offset,
                                .fuel = v->fuel,
                                .internal = &calling};
    int rc = make_output(graph, &call, length);
    if (rc)
        return rc;
    rc = v->function(v->context, &call);
    return rc ? function_failed(&calling, rc) : 0;
}

/* ---------------------------------------------------------------- which output */

/* The size of a page whose units are those of an input. */
static int ranged_size(const struct qallow_graph *graph, const struct qr_vertex *v, uint64_t *size)
{
    const struct qr_edge *edge = v->inputs;
    while (edge->access == QALLOW_WHOLE)
        edge++;
    uint64_t input = graph->vertices[edge->from].size;
    int is_as_long = v->unit == edge->unit && !(v->flags & QALLOW_NODE_WHOLE_UNITS);
    *size = is_as_long ? input : times(input / edge->unit + (input % edge->unit != 0), v->unit);
    if (*size > QR_PAGE_SIZE_MAX)
        return qr_fail(QALLOW_E_LIMIT, "%s would have more than 2^48 bytes", qr_vertex_name(v));
    return 0;
}

/* Adds the output that a changed range of an input reaches. */
static int add_reached(struct qallow_graph *graph, const struct qr_vertex *v,
                       const struct qr_edge *edge, struct qr_extent range, uint64_t size)
{
    uint64_t first = range.offset / edge->unit;
    uint64_t end = range.end / edge->unit + (range.end % edge->unit != 0);
    first = first > edge->after ? first - edge->after : 0;
    end = times(plus(end, edge->before), v->unit);
    return qr_ranges_add(&graph->output, times(first, v->unit), end < size ? end : size);
}

/* What is to be computed, into graph->output; `size` is that of the page. */
static int choose_output(struct qallow_graph *graph, const struct qr_vertex *v, int is_full,
                         uint64_t size)
{
    int rc = 0;
    graph->output.count = 0;
    for (uint32_t i = 0; i < v->input_count && !is_full; i++) {
        const struct qr_vertex *input = &graph->vertices[qr_input(v, i)];
        is_full = qr_has_changed(graph, input)
                      ? v->inputs[i].access == QALLOW_WHOLE
                      : input->touched_in == graph->now && input->flags & QALLOW_NODE_ALWAYS;
    }
    if (is_full)
        return qr_ranges_add(&graph->output, 0, size);
    for (uint32_t i = 0; i < v->input_count; i++) {
        const struct qr_vertex *input = &graph->vertices[qr_input(v, i)];
        uint32_t count = qr_has_changed(graph, input) ? input->changed.count : 0;
        for (uint32_t k = 0; k < count && !rc; k++)
            rc = add_reached(graph, v, &v->inputs[i], input->changed.items[k], size);
    }
    return rc;
}

/* ---------------------------------------------------------------- computing a node */

static int compute_ranges(struct qallow_graph *graph, struct qr_vertex *v, int is_full,
                          uint64_t old_size, struct qr_edits *edits, uint64_t *computed)
{
    uint64_t size;
    int rc = ranged_size(graph, v, &size);
    is_full |= v->flags & QALLOW_NODE_USES_LENGTH && size != old_size;
    if (!rc)
        rc = choose_output(graph, v, is_full, size);
    if (!rc)
        rc = qr_vertex_resize(graph, v, size);
    for (uint32_t i = 0; i < graph->output.count && !rc; i++) {
        const struct qr_extent *r = &graph->output.items[i];
        rc = call_function(graph, v, r->offset, r->end - r->offset);
        if (!rc)
            rc = qr_vertex_store(graph, v, r->offset, graph->scratch, r->end - r->offset, old_size,
                                 edits);
        *computed += r->end - r->offset;
    }
    return rc;
}

static int compute_whole(struct qallow_graph *graph, struct qr_vertex *v, uint64_t old_size,
                         struct qr_edits *edits, uint64_t *computed)
{
    int rc = call_function(graph, v, 0, v->size);
    uint64_t size = *computed = graph->scratch_length;
    if (!rc)
        rc = qr_vertex_resize(graph, v, size);
    return rc ? rc : qr_vertex_store(graph, v, 0, graph->scratch, size, old_size, edits);
}

/* The end of a page whose size is another one. */
static int edit_end(struct qr_edits *edits, const struct qr_vertex *v, uint64_t old_size)
{
    struct qr_edit edit = {.offset = old_size,
                           .new_length = v->size - old_size,
                           .source = QR_LITERAL,
                           .bytes = v->bytes + old_size};
    if (v->size < old_size)
        edit = (struct qr_edit){
            .offset = v->size, .old_length = old_size - v->size, .source = QR_ZEROS};
    return v->size == old_size ? 0 : qr_edits_add(edits, edit);
}

int qr_vertex_write(struct qallow_graph *graph, struct qr_vertex *v, uint64_t old_size)
{
    int rc = edit_end(&graph->edits, v, old_size);
    if (rc || graph->edits.count == 0)
        return rc;
    return qr_batch_delta(graph->batch, v->log_id ? v->log_id : v->id, 0, old_size, v->size,
                          &graph->edits, NULL, v->sum);
}

static int gather_inputs(struct qallow_graph *graph, struct qr_vertex *v)
{
    for (uint32_t i = 0; i < v->input_count; i++) {
        struct qr_vertex *input = &graph->vertices[qr_input(v, i)];
        if (!input->is_loaded || input->must_reload) {
            int rc = qr_vertex_load(graph, input, v);
            if (rc)
                return rc;
        }
        graph->inputs[i] = (struct qallow_input){input->id, input->bytes, input->size};
    }
    return 0;
}

/* What became of it, for who asks why. */
static void note_past(const struct qr_vertex *v, uint64_t computed, struct qr_past *past)
{
    past->computed_bytes = computed;
    past->offset = past->length = 0;
    if (v->changed.count) {
        past->offset = v->changed.items[0].offset;
        past->length = v->changed.items[v->changed.count - 1].end - past->offset;
    }
}

static void change_digest(struct qallow_graph *graph, const struct qr_vertex *v, int is_new,
                          uint64_t old_size, struct qb_u128 old_sum)
{
    struct qb_u128 *digest = &graph->volatile_digest;
    if (!is_new)
        *digest = qb_u128_sub(*digest, qr_volatile_term(v->id, old_size, old_sum));
    *digest = qb_u128_add(*digest, qr_volatile_term(v->id, v->size, v->sum));
}

int qr_graph_compute(struct qallow_graph *graph, struct qr_vertex *v, int is_full, int *changed,
                     struct qr_past *past)
{
    int is_volatile = v->flags & QALLOW_NODE_VOLATILE, is_new = is_volatile && !v->is_loaded;
    uint64_t computed = 0;
    int rc = gather_inputs(graph, v);
    if (!rc && !v->is_loaded)
        rc = qr_vertex_load(graph, v, v);
    if (rc)
        return rc;
    struct qb_u128 old_sum = v->sum;
    uint64_t old_size = v->size;
    struct qr_edits *edits = is_volatile || !graph->batch ? NULL : &graph->edits;
    graph->edits.count = 0;
    rc = v->is_ranged ? compute_ranges(graph, v, is_full || is_new, old_size, edits, &computed)
                      : compute_whole(graph, v, old_size, edits, &computed);
    if (!rc && edits)
        rc = qr_vertex_write(graph, v, old_size);
    if (rc)
        return rc;
    *changed = v->changed.count > 0 || is_new || v->flags & QALLOW_NODE_ALWAYS;
    if (is_volatile && (v->changed.count > 0 || is_new))
        change_digest(graph, v, is_new, old_size, old_sum);
    note_past(v, computed, past);
    return 0;
}

/* ---------------------------------------------------------------- the wave */

int qr_graph_touch(struct qallow_graph *graph, struct qr_vertex *v, struct qr_touched **touched)
{
    *touched = NULL;
    if (v->touched_in == graph->now)
        return 0;
    if (QR_GROW(graph->touched, graph->touched_count, graph->touched_capacity))
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a wave of %zu pages",
                       graph->touched_count);
    *touched = &graph->touched[graph->touched_count++];
    **touched = (struct qr_touched){.vertex = qr_vertex_index(graph, v)};
    v->touched_in = graph->now;
    v->changed.count = 0;
    return 0;
}

static void set_dirty(struct qallow_graph *graph, const struct qr_vertex *v)
{
    graph->dirty[v->rank / 64] |= UINT64_C(1) << v->rank % 64;
}

static void set_children_dirty(struct qallow_graph *graph, const struct qr_vertex *v)
{
    for (uint32_t i = 0; i < v->child_count; i++)
        set_dirty(graph, &graph->vertices[v->children[i]]);
}

/* Changes of earlier commits, which batched mode has let pass, count with those of this one. */
static int take_pending(struct qallow_graph *graph)
{
    struct qr_touched *touched;
    int rc = 0;
    for (uint32_t i = 1; i < graph->count && graph->pending_count && !rc; i++) {
        struct qr_vertex *v = &graph->vertices[i];
        if (!v->is_pending)
            continue;
        rc = qr_graph_touch(graph, v, &touched);
        for (uint32_t k = 0; k < v->pending.count && !rc; k++)
            rc = qr_ranges_add(&v->changed, v->pending.items[k].offset, v->pending.items[k].end);
    }
    return rc;
}

/* Those that changed tell their dependents; what is stale is dirty by itself. 1: there are any. */
static int begin_wave(struct qallow_graph *graph)
{
    int any = 0;
    for (size_t i = 0; i < graph->touched_count; i++) {
        const struct qr_vertex *v = &graph->vertices[graph->touched[i].vertex];
        if (v->changed.count) {
            set_children_dirty(graph, v);
            any |= v->child_count > 0;
        }
    }
    for (uint32_t i = 1; i < graph->count && graph->stale_count; i++)
        if (graph->vertices[i].is_stale) {
            set_dirty(graph, &graph->vertices[i]);
            any = 1;
        }
    return any;
}

/* The first input that has changed. */
static uint64_t find_cause(const struct qallow_graph *graph, const struct qr_vertex *v)
{
    for (uint32_t i = 0; i < v->input_count; i++) {
        const struct qr_vertex *input = &graph->vertices[qr_input(v, i)];
        if (input->touched_in == graph->now &&
            (input->changed.count || input->flags & QALLOW_NODE_ALWAYS))
            return input->id;
    }
    return 0;
}

/* Counts what v->past says, or takes it back (-1). */
static void count_node(struct qallow_graph *graph, struct qr_vertex *v, int by)
{
    uint64_t one = (uint64_t)(int64_t)by, equal = v->past.length == 0 ? one : 0;
    uint64_t bytes = v->past.computed_bytes * one;
    v->computed += one;
    v->equal += equal;
    v->computed_bytes += bytes;
    graph->computed += one;
    graph->equal += equal;
    graph->computed_bytes += bytes;
}

static int compute_dirty(struct qallow_graph *graph, struct qr_vertex *v)
{
    struct qr_touched *touched;
    int changed = 0;
    int rc = qr_graph_touch(graph, v, &touched);
    if (rc)
        return rc;
    touched->is_node = 1;
    touched->before = v->past;
    v->past.epoch = graph->epoch;
    v->past.cause = find_cause(graph, v);
    v->past.why = v->is_stale ? v->why : QALLOW_WHY_INPUT;
    rc = qr_graph_compute(graph, v, v->is_stale, &changed, &v->past);
    if (rc)
        return rc;
    touched->is_computed = 1;
    touched->was_stale = v->is_stale;
    count_node(graph, v, 1);
    graph->stale_count -= v->is_stale;
    v->is_stale = 0;
    if (changed)
        set_children_dirty(graph, v);
    return graph->options.events ? qr_event_recompute(graph->txn, v->id, &v->past) : 0;
}

/* Nodes that come soon are fetched into the cache, in two steps: in a large graph that is most of
 * what a hop costs. */
static void fetch_ahead(const struct qallow_graph *graph, uint32_t rank)
{
    enum { VERTEX_AHEAD = 16, REST_AHEAD = 6 };
    if (rank + VERTEX_AHEAD < graph->order_count) {
        const char *v = (const char *)&graph->vertices[graph->order[rank + VERTEX_AHEAD]];
        __builtin_prefetch(v);
        __builtin_prefetch(v + 64);
        __builtin_prefetch(v + 128);
    }
    if (rank + REST_AHEAD < graph->order_count) {
        const struct qr_vertex *v = &graph->vertices[graph->order[rank + REST_AHEAD]];
        if (v->input_count > 1)
            __builtin_prefetch(v->inputs);
        if (v->child_count)
            __builtin_prefetch(v->children);
    }
}

static int run_wave(struct qallow_graph *graph)
{
    uint32_t words = graph->order_count / 64 + 1;
    int rc = 0;
    qr_graph_in_function = 1;
    for (uint32_t w = 0; w < words; w++)
        while (graph->dirty[w]) { /* what is set meanwhile is never before it */
            uint32_t rank = w * 64 + (uint32_t)__builtin_ctzll(graph->dirty[w]);
            graph->dirty[w] &= graph->dirty[w] - 1;
            fetch_ahead(graph, rank);
            if (!rc) /* after a failure only the bits are cleared */
                rc = compute_dirty(graph, &graph->vertices[graph->order[rank]]);
        }
    qr_graph_in_function = 0;
    return rc;
}

static int reserve_wave(struct qallow_graph *graph)
{
    int rc = qr_graph_order(graph);
    return rc || graph->batch ? rc : qr_batch_create(0, &graph->batch);
}

int qr_graph_wave(struct qallow_graph *graph)
{
    int rc = qr_graph_order(graph);
    return !rc && begin_wave(graph) ? run_wave(graph) : rc;
}

static int propagate(struct qallow_graph *graph)
{
    int rc = take_pending(graph);
    if (!rc)
        rc = reserve_wave(graph);
    if (rc || (!begin_wave(graph) && !qr_graph_table_is_due(graph)))
        return rc;
    /* the same frames whatever has to be read */
    rc = qr_txn_settle(graph->txn, 0);
    int wave = run_wave(graph);
    rc = rc ? rc : wave;
    pthread_mutex_t *lock = &graph->store->store->sharing.lock;
    pthread_mutex_lock(lock); /* nobody takes the id of a table that is made */
    if (!rc && !graph->options.no_table)
        rc = qr_graph_table_write(graph);
    graph->is_deriving = 1;
    if (!rc && qr_batch_records(graph->batch) > 0)
        rc = qr_txn_append(graph->txn, graph->batch);
    graph->is_deriving = 0;
    pthread_mutex_unlock(lock);
    graph->waves += rc == 0;
    return rc;
}

int qr_graph_run(void *context, struct qr_txn *txn)
{
    struct qallow_graph *graph = context;
    graph->txn = txn;
    graph->epoch = qr_txn_epoch(txn);
    int rc = qr_graph_apply_notes(graph);
    if (!rc && (graph->options.mode == QALLOW_IMMEDIATE || qr_txn_is_forced(txn))) {
        rc = propagate(graph);
        graph->has_waved = rc == 0;
    }
    graph->txn = NULL;
    return rc;
}

/* ---------------------------------------------------------------- the end */

/* A node is what it was. (Its content: qr_graph_undo.) */
static void restore_node(struct qallow_graph *graph, struct qr_vertex *v,
                         const struct qr_touched *touched)
{
    if (touched->is_computed)
        count_node(graph, v, -1);
    if (touched->was_stale) {
        v->is_stale = 1;
        graph->stale_count++;
    }
    v->past = touched->before;
}

/* What lies behind an insertion has changed up to the end, wherever that is: up to the page's. */
static void clamp_past(const struct qallow_graph *graph, const struct qr_vertex *v,
                       struct qr_past *past)
{
    const struct qr_page *page =
        graph->store ? qr_state_find(qr_store_state(graph->store->store), v->id) : NULL;
    const uint64_t size = graph->store ? page ? page->size : 0 : v->size;
    const uint64_t most = size > past->offset ? size - past->offset : 0;
    past->length = past->length < most ? past->length : most;
}

/* A source has changed. Without a wave its dependents will hear of it later; if there is no memory
 * to remember the ranges, that it was all of it. */
static void keep_source(struct qallow_graph *graph, struct qr_vertex *v, uint64_t epoch)
{
    int is_wave = graph->has_waved;
    if (!v->changed.count)
        return;
    v->past = (struct qr_past){.epoch = epoch, .why = QALLOW_WHY_SOURCE};
    note_past(v, 0, &v->past);
    clamp_past(graph, v, &v->past);
    for (uint32_t i = 0; i < v->changed.count && !is_wave; i++)
        if (qr_ranges_add(&v->pending, v->changed.items[i].offset, v->changed.items[i].end)) {
            if (v->pending.count)
                v->pending.items[v->pending.count - 1].end = UINT64_MAX;
            for (uint32_t k = 0; k < v->child_count; k++)
                qr_graph_set_stale(graph, &graph->vertices[v->children[k]], QALLOW_WHY_INPUT);
        }
    if (!is_wave && !v->is_pending) {
        v->is_pending = 1;
        graph->pending_count++;
    }
}

static void end_source(struct qallow_graph *graph, struct qr_vertex *v, uint64_t epoch)
{
    if (epoch)
        keep_source(graph, v, epoch);
    if (v->must_reload == QR_RELOAD_NEW)
        v->must_reload = epoch ? QR_RELOAD_OLD : 0;
    if (epoch && graph->has_waved && v->is_pending) {
        v->is_pending = 0;
        v->pending.count = 0;
        graph->pending_count--;
    }
}

void qr_graph_ended(void *context, uint64_t epoch)
{
    struct qallow_graph *graph = context;
    if (!epoch) {
        qr_graph_undo(graph);
        graph->volatile_digest = graph->volatile_digest_before;
        qr_reader_destroy(graph->reader); /* it may know frames that are none any more */
        graph->reader = NULL;
    }
    qr_graph_table_ended(graph, epoch);
    for (size_t i = 0; i < graph->touched_count; i++) {
        const struct qr_touched *touched = &graph->touched[i];
        struct qr_vertex *v = &graph->vertices[touched->vertex];
        if (!touched->is_node)
            end_source(graph, v, epoch);
        else if (!epoch)
            restore_node(graph, v, touched);
    }
    graph->now++;
    graph->volatile_digest_before = graph->volatile_digest;
    graph->touched_count = 0;
    graph->undo_count = graph->undo_bytes.length = 0;
    graph->note_count = graph->note_bytes.length = 0;
    graph->has_waved = 0;
    if (graph->batch)
        qr_batch_reset(graph->batch);
}

/* Functions are not called again: what was computed last may be gone. */
void qr_graph_fell_back(void *context)
{
    struct qallow_graph *graph = context;
    for (uint32_t i = 0; i < graph->count; i++)
        if (graph->vertices[i].is_loaded)
            qr_vertex_unload(graph, &graph->vertices[i]);
}
