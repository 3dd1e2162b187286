/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The public API: bytes written over others, in memory.
 *
 * What programs do most: a few bytes of a page change in place. Such writes are kept as they came,
 * by offset. At the commit the page's content is held in memory (runtime/held.c), so what differs
 * is found by comparing with it, and the digest's old terms are had from it; nothing is read from
 * the log. Moves are not looked for within a write: it stays where it is. A page that may not be
 * held has the cells around its writes read from the log, and the same delta comes of it: what is
 * in the log does not depend on memory.
 */
#include <string.h>

#include "backend/kernels.h"
#include "runtime/api_transaction.h"
#include "runtime/state_internal.h"

enum {
    OVERWRITES_MAX = 256, /* of a page in a transaction: a new one is put in its place by a walk */
    OVERWRITTEN_MAX = QR_API_CHUNK / 2, /* bytes: with the cells around them they fit the buffer */
    RUNS = 64,                          /* fetched from diff_runs at once */
    GAP = 24, /* equal bytes between two runs that are worth an operation of their own */
};

/* By the commit the cells are in the cache: the misses of all writes overlap. */
static void fetch_cells(const struct edited *e, uint64_t offset, size_t length)
{
    enum { LINE = 64, BYTES_MAX = 4 * QB_CELL };
    uint64_t at = offset / QB_CELL * QB_CELL, end = offset + length;
    if (end > at + BYTES_MAX)
        end = at + BYTES_MAX;
    for (; at < end || at % QB_CELL; at += LINE)
        __builtin_prefetch(e->held + at);
}

int qr_api_overwrite(struct qallow_txn *txn, struct edited *e, uint64_t offset, const void *bytes,
                     size_t length)
{
    struct overwrite **place = &e->overwrites;
    if (e->created || e->has_segments || length == 0 || length > OVERWRITTEN_MAX - e->overwritten ||
        length > e->size - offset || e->overwrite_count == OVERWRITES_MAX)
        return 0;
    while (*place && (*place)->offset + (*place)->length <= offset)
        place = &(*place)->next;
    struct overwrite *behind = *place;
    uint64_t from = offset, to = offset + length;
    for (; behind && behind->offset < offset + length; behind = behind->next) {
        from = behind->offset < from ? behind->offset : from;
        to = behind->offset + behind->length > to ? behind->offset + behind->length : to;
    }
    struct overwrite *o = qr_api_txn_alloc(txn, sizeof *o + (size_t)(to - from));
    if (!o)
        return QALLOW_E_NO_MEMORY;
    *o = (struct overwrite){.next = behind, .offset = from, .length = (size_t)(to - from)};
    for (const struct overwrite *under = *place; under != behind; under = under->next)
        memcpy(o->bytes + (under->offset - from), under->bytes, under->length);
    memcpy(o->bytes + (offset - from), bytes, length);
    *place = o;
    if (e->held)
        fetch_cells(e, offset, length);
    e->overwrite_count++;
    e->overwritten += length;
    return 1;
}

/* The edits of one write: what differs from the old content. */
static int add_edits(struct qallow_txn *txn, struct edited *e, const struct overwrite *o)
{
    struct qb_run runs[RUNS];
    const uint8_t *before;
    int rc = qr_api_old_bytes(txn, e, o->offset, o->length, &before);
    for (size_t at = 0, scanned; rc == 0 && at < o->length; at += scanned) {
        size_t count = qb_kernels()->diff_runs(before + at, o->bytes + at, o->length - at, GAP,
                                               runs, RUNS, &scanned);
        for (size_t i = 0; i < count && rc == 0; i++)
            rc = qr_edits_add(&txn->work->edits,
                              (struct qr_edit){.offset = o->offset + at + runs[i].offset,
                                               .old_length = runs[i].length,
                                               .new_length = runs[i].length,
                                               .source = QR_LITERAL,
                                               .bytes = o->bytes + at + runs[i].offset});
    }
    return rc;
}

/* The cells [from, to), in bytes: their terms before, less, and after the edits that lie in them.
 * They fit the buffers: OVERWRITTEN_MAX, and two cells for each write. */
static int change_sum(struct qallow_txn *txn, struct edited *e, uint64_t from, uint64_t to,
                      const struct qr_edit *edits, size_t count, uint64_t seed, struct qb_u128 *sum)
{
    const struct qb_kernels *k = qb_kernels();
    size_t n = (size_t)(to - from);
    int is_all_new = count == 1 && edits[0].offset == from && edits[0].new_length == n;
    const uint8_t *before, *after = is_all_new ? edits[0].bytes : txn->work->new_bytes;
    if (is_all_new && n == e->size) { /* then nothing of what was counts */
        *sum = k->hash_cells(after, n, seed, 0);
        return 0;
    }
    int rc = qr_api_old_bytes(txn, e, from, n, &before);
    if (rc < 0)
        return rc;
    if (!is_all_new)
        memcpy(txn->work->new_bytes, before, n);
    for (size_t i = 0; i < count && !is_all_new; i++)
        memcpy(txn->work->new_bytes + (edits[i].offset - from), edits[i].bytes,
               edits[i].new_length);
    *sum = qb_u128_sub(*sum, k->hash_cells(before, n, seed, from / QB_CELL));
    *sum = qb_u128_add(*sum, k->hash_cells(after, n, seed, from / QB_CELL));
    return 0;
}

/* Edits whose cells are the same are summed together. */
static int change_sums(struct qallow_txn *txn, struct edited *e, struct qb_u128 *sum)
{
    const struct qr_edit *edits = txn->work->edits.items;
    uint64_t seed = qr_page_seed(e->id), from = 0, to = 0;
    size_t first = 0;
    int rc = 0;
    *sum = e->old_sum;
    for (size_t i = 0; i <= txn->work->edits.count && rc == 0; i++) {
        int is_end = i == txn->work->edits.count;
        uint64_t begin = is_end ? UINT64_MAX : edits[i].offset / QB_CELL * QB_CELL;
        if (i > first && begin >= to) {
            rc = change_sum(txn, e, from, to < e->size ? to : e->size, &edits[first], i - first,
                            seed, sum);
            first = i;
        }
        if (is_end)
            break;
        uint64_t end = edits[i].offset + edits[i].new_length;
        if (i == first)
            from = begin;
        to = (end + QB_CELL - 1) / QB_CELL * QB_CELL;
    }
    return rc;
}

int qr_api_write_overwrites(struct qallow_txn *txn, struct edited *e)
{
    struct qb_u128 sum;
    int rc = 0;
    qr_api_hold(txn, e); /* what cannot be had whole is read where it is needed */
    txn->work->edits.count = 0;
    for (const struct overwrite *o = e->overwrites; o && rc == 0; o = o->next)
        rc = add_edits(txn, e, o);
    if (rc == 0 && txn->work->edits.count > 0) {
        rc = change_sums(txn, e, &sum);
        /* Small gaps are in the runs already, so the encoder needs no old bytes to find them. */
        if (rc == 0)
            rc = qr_batch_delta(txn->work->batch, e->id, 0, e->size, e->size, &txn->work->edits,
                                NULL, sum);
    }
    return rc;
}
