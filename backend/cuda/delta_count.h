/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each entry of a delta says that it holds, one thread an entry; entries that cannot be are
 * counted as nothing and reported, so that the scanned counts are never wrong by more than what
 * delta_check and delta_apply look at themselves.
 */
#ifndef QB_CUDA_DELTA_COUNT_H
#define QB_CUDA_DELTA_COUNT_H

#include "backend/cuda/segment.h"

struct qb_delta_count_shared {
    uint32_t none;
};

/* Groups of threads that have an entry each. */
QB_ITEM uint64_t qb_entry_groups(const struct qb_batch *batch)
{
    return (batch->delta.total.entries + QB_TILE_THREADS - 1) / QB_TILE_THREADS;
}

/* No tile, only its number. */
QB_ITEM struct qb_tile qb_entries_at(const struct qb_batch *batch, uint64_t index)
{
    struct qb_tile tile = {NULL, 0, 0, 0, 0};
    (void)batch;
    tile.index = index;
    return tile;
}

QB_ITEM void qb_delta_count_entries(const struct qb_batch *batch, const struct qb_tile *tile,
                                    struct qb_delta_count_shared *shared, unsigned thread)
{
    const uint64_t i = tile->index * QB_TILE_THREADS + thread;
    struct qb_counts counts = {0, 0, 0, 0};
    (void)shared;
    if (i >= batch->delta.total.entries)
        return;
    const struct qb_delta_entry entry = batch->delta.entries[i];
    if (entry.tile < batch->tiles && (i == 0 || batch->delta.entries[i - 1].tile < entry.tile) &&
        entry.segments != 0 && entry.records <= QB_TILE && entry.bytes <= QB_TILE) {
        counts.entries = 1;
        counts.segments = qb_popcount(entry.segments);
        counts.records = entry.records;
        counts.bytes = entry.bytes;
    } else {
        qb_atomic_or(batch->status, 1);
    }
    batch->counts[i] = counts;
}

#define QB_DELTA_COUNT_PHASES(PHASE) PHASE(qb_delta_count_entries)

#define QB_DELTA_COUNT_OPERATION(MAKE)                                                             \
    MAKE(delta_count, qb_delta_count_shared, qb_entry_groups, qb_entries_at, QB_DELTA_COUNT_PHASES)

#endif
