/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dependency graph: the bytes of its pages in memory.
 *
 * Functions are given whole pages, several at once, as plain memory, and what they computed is
 * compared with what was there: so the graph has the content of its pages itself, from the first
 * wave that needs it on, beside what the store may hold of the newest state (which it may drop at
 * any time). Every change goes through qr_vertex_resize and qr_vertex_store, which first note down
 * how to take it back; a transaction that fails is undone from these notes, newest first.
 *
 * Invariants: a loaded vertex has the page's content as of the last commit, with what the open
 * transaction has changed so far; `sum` of a node is the sum of the digest terms of its cells.
 */
#include <string.h>

#include "runtime/bytes.h"
#include "runtime/graph.h"
#include "runtime/os.h"
#include "runtime/store_internal.h"

enum { RUNS = 64, GAP = 24, READER_CACHE = 4 << 20 };

/* --- ranges --- */

int qr_ranges_add(struct qr_ranges *ranges, uint64_t offset, uint64_t end)
{
    uint32_t first = ranges->count, last;
    if (offset >= end)
        return 0;
    while (first > 0 && ranges->items[first - 1].end >= offset)
        first--;
    for (last = first; last < ranges->count && ranges->items[last].offset <= end; last++) {
        const struct qr_extent *r = &ranges->items[last];
        offset = r->offset < offset ? r->offset : offset;
        end = r->end > end ? r->end : end;
    }
    if (last == first) {
        if (ranges->count == ranges->capacity) {
            uint32_t capacity = ranges->capacity ? ranges->capacity * 2 : 2;
            struct qr_extent *grown = qr_realloc(ranges->items, capacity * sizeof *grown);
            if (!grown)
                return qr_fail(QALLOW_E_NO_MEMORY, "no memory for %u ranges", capacity);
            ranges->items = grown;
            ranges->capacity = capacity;
        }
        last = first;
        memmove(&ranges->items[first + 1], &ranges->items[last],
                (ranges->count - last) * sizeof *ranges->items);
        ranges->count++;
    } else {
        memmove(&ranges->items[first + 1], &ranges->items[last],
                (ranges->count - last) * sizeof *ranges->items);
        ranges->count -= last - first - 1;
    }
    ranges->items[first] = (struct qr_extent){offset, end};
    return 0;
}

void qr_ranges_finish(struct qr_ranges *ranges)
{
    qr_free(ranges->items);
    *ranges = (struct qr_ranges){0};
}

static int no_memory(const struct qr_vertex *v, uint64_t size)
{
    return qr_fail(QALLOW_E_NO_MEMORY, "%s: no memory for its %llu bytes", qr_vertex_name(v),
                   (unsigned long long)size);
}

/* --- undo --- */

/* Filled in where it stays: a struct that is copied waits for its parts. */
static int push_undo(struct qallow_graph *graph, const struct qr_vertex *v, unsigned what,
                     uint64_t offset, uint64_t length, const uint8_t *old)
{
    size_t data = old ? qr_arena_put(&graph->undo_bytes, old, length) : 0;
    if (data == SIZE_MAX)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory to keep %llu bytes",
                       (unsigned long long)length);
    if (QR_GROW(graph->undo, graph->undo_count, graph->undo_capacity))
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory to keep what changes");
    struct qr_undo *undo = &graph->undo[graph->undo_count++];
    undo->vertex = qr_vertex_index(graph, v);
    undo->what = what;
    undo->offset = offset;
    undo->length = length;
    undo->data = data;
    undo->sum = v->sum;
    return 0;
}

void qr_graph_undo(struct qallow_graph *graph)
{
    while (graph->undo_count > 0) {
        const struct qr_undo *undo = &graph->undo[--graph->undo_count];
        struct qr_vertex *v = &graph->vertices[undo->vertex];
        if (undo->what == QR_UNDO_LOAD) {
            qr_vertex_unload(graph, v);
        } else if (undo->what == QR_UNDO_SIZE) {
            v->size = undo->length;
            v->sum = undo->sum;
        } else if (undo->length) {
            memcpy(v->bytes + undo->offset, graph->undo_bytes.bytes + undo->data, undo->length);
            v->sum = undo->sum;
        }
    }
}

/* --- room --- */

void qr_vertex_unload(struct qallow_graph *graph, struct qr_vertex *v)
{
    graph->memory -= v->capacity;
    qr_free(v->bytes);
    v->bytes = NULL;
    v->size = v->capacity = 0;
    v->sum = (struct qb_u128){0, 0};
    v->is_loaded = 0;
}

/* Room for `size` bytes; a page that grows again and again is moved now and then only. */
static int reserve(struct qallow_graph *graph, struct qr_vertex *v, uint64_t size)
{
    uint64_t capacity = v->capacity ? size + size / 4 : size, most = graph->options.max_memory;
    if (size <= v->capacity)
        return 0;
    if (size > QR_PAGE_SIZE_MAX)
        return qr_fail(QALLOW_E_LIMIT, "%s would have %llu bytes: at most 2^48", qr_vertex_name(v),
                       (unsigned long long)size);
    capacity = (capacity + 63) & ~UINT64_C(63);
    if (most && (capacity > most || graph->memory - v->capacity > most - capacity))
        return qr_fail(QALLOW_E_LIMIT,
                       "%s: with its %llu bytes the graph would take more than the %llu that it "
                       "may (max_memory)",
                       qr_vertex_name(v), (unsigned long long)size, (unsigned long long)most);
    uint8_t *grown = qr_realloc(v->bytes, capacity);
    if (!grown)
        return no_memory(v, size);
    graph->memory += capacity - v->capacity;
    v->bytes = grown;
    v->capacity = capacity;
    return 0;
}

/* --- loading --- */

static int read_view(struct qallow_graph *graph, struct qr_vertex *v)
{
    struct qallow_page info = QALLOW_PAGE_INIT;
    int rc = qallow_page_get(graph->checking, v->id, &info);
    if (!rc)
        rc = reserve(graph, v, info.bytes);
    v->size = rc ? 0 : info.bytes;
    return rc ? rc : qallow_page_read(graph->checking, v->id, 0, v->bytes, v->size);
}

/* From what is held of the page, or from the log, into which the transaction's frames must have
 * gone then. */
static int read_state(struct qallow_graph *graph, struct qr_vertex *v, const struct qr_page *page)
{
    struct qr_content content;
    int rc = reserve(graph, v, page->size);
    v->size = rc ? 0 : page->size;
    v->sum = page->content_sum;
    if (rc || !page->size)
        return rc;
    pthread_mutex_t *lock = &graph->store->store->sharing.lock;
    pthread_mutex_lock(lock); /* others drop what is held */
    int is_held = page->held != NULL;
    if (is_held)
        memcpy(v->bytes, page->held, page->size);
    pthread_mutex_unlock(lock);
    if (is_held)
        return 0;
    if (graph->txn)
        rc = qr_txn_settle(graph->txn, 1);
    if (!rc && !graph->reader)
        rc = qr_reader_create(graph->store->store, READER_CACHE, &graph->reader);
    if (!rc)
        rc = qr_content_init(&content, page);
    if (rc)
        return rc;
    rc = qr_content_read(graph->reader, &content, 0, v->bytes, page->size);
    qr_content_finish(&content);
    return rc;
}

int qr_vertex_load(struct qallow_graph *graph, struct qr_vertex *v, const struct qr_vertex *why)
{
    if (v->is_loaded && !v->must_reload)
        return 0;
    if (v->is_loaded)
        qr_vertex_unload(graph, v);
    int rc = push_undo(graph, v, QR_UNDO_LOAD, 0, 0, NULL);
    if (rc)
        return rc;
    if (!graph->store || v->flags & QALLOW_NODE_VOLATILE) { /* nothing yet */
        v->is_loaded = 1;
        return 0;
    }
    const struct qr_state *state = qr_store_state(graph->store->store);
    const struct qr_page *page = graph->checking ? NULL : qr_state_find(state, v->id);
    if (!page && !graph->checking)
        return qr_fail(QALLOW_E_PAGE_NOT_FOUND, "%s: there is no page %llu%s", qr_vertex_name(why),
                       (unsigned long long)v->id, why == v ? "" : ", its input");
    rc = page ? read_state(graph, v, page) : read_view(graph, v);
    v->is_loaded = rc == 0;
    v->must_reload = 0;
    if (rc)
        qr_vertex_unload(graph, v);
    return rc;
}

/* --- changing --- */

/* Does anybody need the sum of its cells? Those of sources are the store's business. */
static int has_sum(const struct qallow_graph *graph, const struct qr_vertex *v)
{
    if (!graph->store && !graph->checking)
        return v->log_id != 0;
    return v == graph->vertices ||
           (v->function && !(v->flags & QALLOW_NODE_VOLATILE && graph->options.no_table));
}

static struct qb_u128 cells(const struct qr_vertex *v, uint64_t from, uint64_t to)
{
    return qb_kernels()->hash_cells(v->bytes + from, (size_t)(to - from),
                                    qr_page_seed(v->log_id ? v->log_id : v->id), from / QB_CELL);
}

void qr_vertex_sum(struct qr_vertex *v)
{
    v->sum = v->size ? cells(v, 0, v->size) : (struct qb_u128){0, 0};
}

int qr_vertex_resize(struct qallow_graph *graph, struct qr_vertex *v, uint64_t size)
{
    uint64_t old = v->size, least = size < old ? size : old;
    uint64_t from = least / QB_CELL * QB_CELL; /* cells from here on change */
    if (size == old)
        return 0;
    int rc = reserve(graph, v, size);
    if (!rc)
        rc = push_undo(graph, v, QR_UNDO_SIZE, 0, old, NULL);
    if (!rc && size < old)
        rc = push_undo(graph, v, QR_UNDO_BYTES, size, old - least, v->bytes + size);
    if (!rc)
        rc = qr_ranges_add(&v->changed, least, size > old ? size : old);
    if (rc)
        return rc;
    if (has_sum(graph, v) && old > from)
        v->sum = qb_u128_sub(v->sum, cells(v, from, old));
    if (size > old)
        qb_kernels()->zero(v->bytes + old, size - old);
    v->size = size;
    if (has_sum(graph, v) && size > from)
        v->sum = qb_u128_add(v->sum, cells(v, from, size));
    return 0;
}

/* Runs that differ and share cells: runs[first..last) at `base`. */
static int store_group(struct qallow_graph *graph, struct qr_vertex *v, uint64_t base,
                       const uint8_t *bytes, const struct qb_run *runs, size_t count)
{
    uint64_t begin = base + runs[0].offset;
    uint64_t end = base + runs[count - 1].offset + runs[count - 1].length;
    uint64_t from = begin / QB_CELL * QB_CELL, to = (end + QB_CELL - 1) / QB_CELL * QB_CELL;
    int sums = has_sum(graph, v);
    to = to < v->size ? to : v->size;
    int rc = push_undo(graph, v, QR_UNDO_BYTES, begin, end - begin, v->bytes + begin);
    for (size_t i = 0; i < count && !rc; i++)
        rc = qr_ranges_add(&v->changed, base + runs[i].offset,
                           base + runs[i].offset + runs[i].length);
    if (rc)
        return rc;
    if (sums)
        v->sum = qb_u128_sub(v->sum, cells(v, from, to));
    memcpy(v->bytes + begin, bytes + runs[0].offset, (size_t)(end - begin));
    if (sums)
        v->sum = qb_u128_add(v->sum, cells(v, from, to));
    return 0;
}

static int add_edit(struct qr_edits *edits, const struct qr_vertex *v, uint64_t begin, uint64_t end,
                    uint64_t old_size)
{
    end = end < old_size ? end : old_size;
    if (begin >= end)
        return 0;
    return qr_edits_add(edits, (struct qr_edit){.offset = begin,
                                                .old_length = end - begin,
                                                .new_length = end - begin,
                                                .source = QR_LITERAL,
                                                .bytes = v->bytes + begin});
}

/* Eight bytes: pages that hold one number are frequent, and for them the kernel is most of the
 * cost. What differs is one run, as GAP is more than lies between. */
static int store_word(struct qallow_graph *graph, struct qr_vertex *v, uint64_t offset,
                      const uint8_t *bytes, uint64_t old_size, struct qr_edits *edits)
{
    uint64_t differs = qr_load64(v->bytes + offset) ^ qr_load64(bytes);
    if (!differs)
        return 0;
    uint32_t first = (uint32_t)__builtin_ctzll(differs) / 8;
    uint32_t last = (63 - (uint32_t)__builtin_clzll(differs)) / 8;
    struct qb_run run = {.offset = first, .length = last - first + 1};
    int rc = edits ? add_edit(edits, v, offset + first, offset + last + 1, old_size) : 0;
    return rc ? rc : store_group(graph, v, offset, bytes, &run, 1);
}

int qr_vertex_store(struct qallow_graph *graph, struct qr_vertex *v, uint64_t offset,
                    const uint8_t *bytes, uint64_t length, uint64_t old_size,
                    struct qr_edits *edits)
{
    struct qb_run runs[RUNS];
    int rc = 0;
    qr_assert(offset <= v->size && length <= v->size - offset);
    if (length == 8)
        return store_word(graph, v, offset, bytes, old_size, edits);
    for (uint64_t at = 0, scanned; at < length && !rc; at += scanned) {
        size_t n = 0;
        uint64_t base = offset + at;
        size_t count = qb_kernels()->diff_runs(v->bytes + base, bytes + at, (size_t)(length - at),
                                               GAP, runs, RUNS, &n);
        scanned = n;
        for (size_t i = 0, first = 0; i < count && !rc; i++) {
            uint64_t end = base + runs[i].offset + runs[i].length;
            if (edits)
                rc = add_edit(edits, v, base + runs[i].offset, end, old_size);
            if (!rc &&
                (i + 1 == count || (base + runs[i + 1].offset) / QB_CELL > (end - 1) / QB_CELL)) {
                rc = store_group(graph, v, base, bytes + at, &runs[first], i + 1 - first);
                first = i + 1;
            }
        }
    }
    return rc;
}
