/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The public API: committing a transaction.
 *
 * The old ranges among a page's segments are in order, so the segments between two of them are
 * exactly what replaces the old bytes between: those two strings are compared, and only the
 * difference becomes a delta. Deltas follow all structural records.
 */
#include <stdio.h>
#include <string.h>

#include "backend/kernels.h"
#include "runtime/api_transaction.h"
#include "runtime/delta.h"
#include "runtime/graph.h"
#include "runtime/meter.h"
#include "runtime/store_internal.h"

enum {
    CHUNK = QR_API_CHUNK,
    INDEX_BYTES = 4 << 20, /* for qr_diff */
    NEW_MAX = 128 << 10,
};

static uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* A range of cells, in bytes. */
struct cells {
    uint64_t from, to;
};

/* The delta of one page being written. */
struct writing {
    struct qallow_txn *txn;
    struct edited *e;
    int begun;
    int shifted;         /* old and new offsets no longer agree: all cells from here on change */
    struct cells *cells; /* that change, ascending. They are summed after the last edit, since
                            literals of edits lie in the same buffer. */
    size_t cells_count, cells_capacity;
    struct qb_u128 sum;
};

/* The cells of [from, to) of the old (subtracted) and the new content (added). */
static int sum_cells(struct writing *w, uint64_t from, uint64_t to)
{
    struct edited *e = w->e;
    const uint8_t *old, *new;
    uint64_t seed = qr_page_seed(e->id);
    uint64_t end = e->old_size > e->size ? e->old_size : e->size;
    int rc = 0;

    for (uint64_t at = from; rc == 0 && at < smaller(to, end); at += CHUNK) {
        uint64_t stop = smaller(at + CHUNK, to);
        size_t old_n = at < e->old_size ? smaller(stop, e->old_size) - at : 0;
        size_t new_n = at < e->size ? smaller(stop, e->size) - at : 0;
        rc = qr_api_old_bytes(w->txn, e, at, old_n, &old);
        if (rc == 0)
            rc = qr_api_new_bytes(w->txn, e, at, new_n, &new);
        if (rc == 0) {
            const struct qb_kernels *k = qb_kernels();
            w->sum = qb_u128_sub(w->sum, k->hash_cells(old, old_n, seed, at / QB_CELL));
            w->sum = qb_u128_add(w->sum, k->hash_cells(new, new_n, seed, at / QB_CELL));
        }
    }
    return rc;
}

static int add_cells(struct writing *w, uint64_t from, uint64_t to)
{
    struct cells *last = w->cells_count > 0 ? &w->cells[w->cells_count - 1] : NULL;

    if (last && from <= last->to) {
        last->to = to > last->to ? to : last->to;
        return 0;
    }
    if (QR_GROW(w->cells, w->cells_count, w->cells_capacity) < 0)
        return QALLOW_E_NO_MEMORY;
    w->cells[w->cells_count++] = (struct cells){from, to};
    return 0;
}

static int write_edits(struct writing *w, struct qr_edits *edits)
{
    struct edited *e = w->e;
    int rc = 0;

    if (edits->count == 0)
        return 0;
    if (!w->begun)
        rc = qr_batch_delta_begin(w->txn->work->batch, e->id, 0, e->old_size, e->size);
    w->begun = 1;
    for (size_t i = 0; rc == 0 && i < edits->count && !w->shifted; i++) {
        const struct qr_edit *edit = &edits->items[i];
        uint64_t end = edit->offset + edit->old_length;
        w->shifted = edit->old_length != edit->new_length;
        rc = add_cells(w, edit->offset / QB_CELL * QB_CELL,
                       w->shifted ? UINT64_MAX : (end + QB_CELL - 1) / QB_CELL * QB_CELL);
    }
    return rc < 0 ? rc : qr_batch_delta_edits(w->txn->work->batch, edits, NULL);
}

/* The old bytes [old_at, +old_length) against new ones that fit in new_bytes. */
static int write_chunk(struct writing *w, uint64_t old_at, size_t old_length, uint64_t new_at,
                       size_t new_length)
{
    struct qr_edits edits = {0};
    const uint8_t *old, *new;
    int rc = qr_api_old_bytes(w->txn, w->e, old_at, old_length, &old);

    if (rc == 0)
        rc = qr_api_new_bytes(w->txn, w->e, new_at, new_length, &new);
    if (rc == 0)
        rc = qr_diff(old, old_length, new, new_length, INDEX_BYTES, &edits);
    for (size_t i = 0; rc == 0 && i < edits.count; i++) {
        edits.items[i].offset += old_at;
        if (edits.items[i].source == QR_COPY)
            edits.items[i].from += old_at;
    }
    if (rc == 0)
        rc = write_edits(w, &edits);
    qr_edits_finish(&edits);
    return rc;
}

/* An edit that needs no comparison: bytes removed, or zeros put in. */
static int write_plain(struct writing *w, uint64_t old_at, uint64_t old_length, uint64_t zeros)
{
    struct qr_edits edits = {0};
    int rc = 0;

    if (old_length + zeros > 0)
        rc = qr_edits_add(&edits, (struct qr_edit){.offset = old_at,
                                                   .old_length = old_length,
                                                   .new_length = zeros,
                                                   .source = QR_ZEROS});
    if (rc == 0)
        rc = write_edits(w, &edits);
    qr_edits_finish(&edits);
    return rc;
}

/* Between two old segments: old [old_at, old_end) became the segments [i, end), at new_at. */
static int write_gap(struct writing *w, uint64_t old_at, uint64_t old_end, size_t i, size_t end,
                     uint64_t new_at)
{
    int rc = 0;

    for (; rc == 0 && i < end; i++) {
        uint64_t left = w->e->segments[i].length;
        while (rc == 0 && left > 0) {
            size_t new_n = smaller(left, CHUNK), old_n = smaller(old_end - old_at, CHUNK);
            /* The last segment of the gap is compared with all that remains of the old bytes. */
            if (i + 1 < end || left > CHUNK)
                old_n = smaller(old_n, new_n);
            if (old_n == 0 && w->e->segments[i].source == ZEROS) {
                rc = write_plain(w, old_at, 0, left);
                new_n = 0;
                new_at += left;
                left = 0;
            } else {
                rc = write_chunk(w, old_at, old_n, new_at, new_n);
            }
            old_at += old_n;
            new_at += new_n;
            left -= new_n;
        }
    }
    return rc < 0 ? rc : write_plain(w, old_at, old_end - old_at, 0);
}

/* A large page whose size changes does not stay in memory (qr_page_follow). */
static int is_worth_holding(const struct edited *e)
{
    return !e->created && (e->old_size == e->size || e->old_size <= QR_BODY_MAX);
}

static int write_page(struct qallow_txn *txn, struct edited *e)
{
    struct writing w = {.txn = txn, .e = e};
    uint64_t old_at = 0, new_at = 0;
    int rc = 0;

    if (is_worth_holding(e))
        qr_api_hold(txn, e);
    for (size_t i = 0, end; rc == 0 && i <= e->count; i = end) {
        uint64_t length = 0, old_to = e->old_size;
        for (end = i; end < e->count && e->segments[end].source != OLD; end++)
            length += e->segments[end].length;
        if (end < e->count)
            old_to = e->segments[end].from;
        rc = write_gap(&w, old_at, old_to, i, end, new_at);
        new_at += length;
        old_at = old_to;
        if (end < e->count) {
            old_at += e->segments[end].length;
            new_at += e->segments[end].length;
        }
        end++;
    }
    if (!e->created)
        w.sum = e->old_sum;
    for (size_t i = 0; rc == 0 && i < w.cells_count; i++)
        rc = sum_cells(&w, w.cells[i].from, w.cells[i].to);
    qr_free(w.cells);
    return rc < 0 || !w.begun ? rc : qr_batch_delta_end(txn->work->batch, w.sum);
}

/* A new page whose bytes came in one piece: one record. 1: it is another one. */
static int write_new(struct qallow_txn *txn, const struct edited *e)
{
    const struct segment *s = e->segments;
    if (!e->created || e->count != 1 || s->source != GIVEN || s->length > NEW_MAX)
        return 1;
    txn->work->edits.count = 0;
    int rc = qr_diff(NULL, 0, s->bytes, s->length, INDEX_BYTES, &txn->work->edits);
    struct qb_u128 sum = qb_kernels()->hash_cells(s->bytes, s->length, qr_page_seed(e->id), 0);
    return rc < 0 ? rc
                  : qr_batch_delta(txn->work->batch, e->id, 0, 0, e->size, &txn->work->edits, NULL,
                                   sum);
}

static int take_buffers(struct qr_api_work *work)
{
    if (!work->old_bytes)
        work->old_bytes = qr_malloc(CHUNK);
    if (!work->new_bytes)
        work->new_bytes = qr_malloc(CHUNK);
    return work->old_bytes && work->new_bytes ? 0
                                              : qr_fail(QALLOW_E_NO_MEMORY, "no memory to commit");
}

static int write_contents(struct qallow_txn *txn)
{
    int rc = take_buffers(txn->work);
    for (size_t i = 0; rc == 0 && i < txn->count; i++) {
        struct edited *e = txn->pages[i];
        if (e->freed || (!e->has_segments && !e->overwrites))
            continue;
        rc = e->overwrites ? qr_api_write_overwrites(txn, e) : write_new(txn, e);
        if (rc > 0 && (rc = qr_api_make_segments(e)) == 0)
            rc = write_page(txn, e);
    }
    return rc;
}

/* Hands the records to the store. On failure the store is as before. */
static int append(struct qallow_txn *txn, uint64_t *epoch)
{
    char detail[1024];
    struct qr_txn *inner;
    int rc = qr_txn_begin(txn->store->store, &inner);

    if (rc < 0)
        return rc;
    if (txn->is_forced)
        qr_txn_force(inner);
    if (qr_batch_records(txn->work->batch) > 0)
        rc = qr_txn_append(inner, txn->work->batch);
    if (rc == 0 && txn->events.length > 0)
        rc = qr_txn_events(inner, txn->events.bytes, txn->events.length);
    if (rc == 0)
        return qr_txn_land(inner, epoch);
    snprintf(detail, sizeof detail, "%s", qallow_error_detail());
    qr_txn_abort(inner);
    if (rc == QALLOW_E_SERIALIZATION) /* a rule of the format, broken by the caller and no file */
        rc = QALLOW_E_INVALID_DELTA;
    return qr_fail(rc, "%s", detail);
}

/* The ordered section, under `calls`. Who changes the structure keeps out those who look up pages,
 * too; who changes content changes only pages that nobody else may look at. */
static int land(struct qallow_txn *txn, uint64_t *epoch)
{
    struct qallow_store *store = txn->store;

    pthread_rwlock_wrlock(&store->newest_lock);
    if (txn->is_structural)
        pthread_mutex_lock(&store->store->sharing.lock);
    store->landing = txn;
    int rc = append(txn, epoch);
    store->landing = NULL;
    if (txn->is_structural && rc == 0) /* else with its pages, whose ids are free again */
        qr_api_release_structure(txn);
    if (txn->is_structural)
        pthread_mutex_unlock(&store->store->sharing.lock);
    pthread_rwlock_unlock(&store->newest_lock);
    return rc;
}

/* Waits until an epoch that has landed is durable, while others land; then those who waited with it
 * are all awake, and shall not queue up again for nothing. */
static int settle(struct qallow_store *store, uint64_t epoch, int is_keyframe_due)
{
    int rc = qr_store_settle(store->store, epoch);
    if (rc == 0 && !is_keyframe_due)
        return 0;
    pthread_mutex_lock(&store->calls);
    if (rc < 0) {
        pthread_rwlock_wrlock(&store->newest_lock);
        qr_store_fall_back(store->store);
        pthread_rwlock_unlock(&store->newest_lock);
    } else {
        qr_store_keyframe_if_due(store->store);
    }
    pthread_mutex_unlock(&store->calls);
    return rc;
}

static int commit(struct qallow_txn *txn, uint64_t *epoch)
{
    struct qallow_store *store = txn->store;
    const struct qr_os *os = store->store->os;
    int64_t began = os->now_ns(os->context);
    int rc = write_contents(txn), must_wait = store->store->options.sync == QR_SYNC_COMMIT;

    if (rc < 0)
        return rc;
    pthread_mutex_lock(&store->calls);
    uint64_t before = qr_state_epoch(qr_store_state(store->store));
    rc = land(txn, epoch);
    int is_new = rc == 0 && *epoch != before;
    int is_due = is_new && qr_store_keyframe_is_due(store->store);
    if (is_due && !must_wait)
        qr_store_keyframe_if_due(store->store);
    if (is_new && !must_wait)
        qr_store_count_commit(store->store, began);
    pthread_mutex_unlock(&store->calls);
    if (rc == 0 && must_wait)
        rc = settle(store, *epoch, is_due);
    if (rc == 0 && is_new && must_wait)
        qr_store_count_commit(store->store, began);
    return rc;
}

int qallow_commit(struct qallow_txn *txn, uint64_t *epoch)
{
    uint64_t made;

    QR_CHECK_ARGUMENT(txn != NULL);
    if (qr_graph_in_function) /* the commit that it is called in waits for it */
        return qr_fail(QALLOW_E_STATE, "a page's function must not commit");
    struct qallow_store *store = txn->store;
    int rc = commit(txn, &made);
    qallow_abort(txn); /* what is left of it */
    if (rc == 0 && epoch)
        *epoch = made;
    if (rc == 0)
        qr_hub_tell(store);
    return rc;
}
