/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where two contents of each page differ first and last; a base of NULL is zeros. Equal tiles, the
 * common case, are read and nothing more.
 */
#ifndef QB_CUDA_COMPARE_H
#define QB_CUDA_COMPARE_H

#include "backend/cuda/item.h"

struct qb_compare_shared {
    uint32_t first[QB_TILE_THREADS], end[QB_TILE_THREADS]; /* first >= end: equal */
};

QB_ITEM void qb_compare_chunks(const struct qb_batch *batch, const struct qb_tile *tile,
                               struct qb_compare_shared *shared, unsigned thread)
{
    struct qb_chunk a[QB_ROUNDS], b[QB_ROUNDS];
    uint32_t first = QB_TILE, end = 0;
    (void)batch;
    for (unsigned i = 0; i < QB_ROUNDS; i++)
        b[i].lo = b[i].hi = 0;
    qb_load_chunks(tile, tile->page->from + tile->start, thread, a);
    if (tile->page->base != NULL)
        qb_load_chunks(tile, tile->page->base + tile->start, thread, b);
    for (unsigned i = 0; i < QB_ROUNDS; i++) {
        const struct qb_chunk x = qb_chunk_xor(a[i], b[i]);
        if ((x.lo | x.hi) != 0) {
            const uint32_t at = (thread + i * QB_TILE_THREADS) * QB_CHUNK;
            const uint32_t mask = qb_chunk_mask(x);
            first = at + qb_lowest(mask) < first ? at + qb_lowest(mask) : first;
            end = at + qb_highest(mask) + 1; /* chunks ascend */
        }
    }
    shared->first[thread] = first;
    shared->end[thread] = end;
}

QB_ITEM void qb_compare_fold(struct qb_compare_shared *shared, unsigned at, unsigned step)
{
    for (unsigned i = 1; i < 16; i++) {
        const unsigned other = at + i * step;
        if (shared->first[other] < shared->first[at])
            shared->first[at] = shared->first[other];
        if (shared->end[other] > shared->end[at])
            shared->end[at] = shared->end[other];
    }
}

QB_ITEM void qb_compare_rows(const struct qb_batch *batch, const struct qb_tile *tile,
                             struct qb_compare_shared *shared, unsigned thread)
{
    (void)batch, (void)tile;
    if (thread < 16)
        qb_compare_fold(shared, thread, 16);
}

QB_ITEM void qb_compare_result(const struct qb_batch *batch, const struct qb_tile *tile,
                               struct qb_compare_shared *shared, unsigned thread)
{
    if (thread != 0)
        return;
    qb_compare_fold(shared, 0, 1);
    if (shared->first[0] < shared->end[0]) {
        qb_atomic_min(&batch->found[tile->page_number].first, tile->start + shared->first[0]);
        qb_atomic_max(&batch->found[tile->page_number].last, tile->start + shared->end[0]);
    }
}

#define QB_COMPARE_PHASES(PHASE)                                                                   \
    PHASE(qb_compare_chunks) PHASE(qb_compare_rows) PHASE(qb_compare_result)

#define QB_COMPARE_OPERATION(MAKE)                                                                 \
    MAKE(compare, qb_compare_shared, qb_tile_groups, qb_tile_at, QB_COMPARE_PHASES)

#endif
