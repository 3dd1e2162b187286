/* SPDX-License-Identifier: Apache-2.0 */
/* The sums of the digest terms of the pages' cells; see cell.h. */
#ifndef QB_CUDA_HASH_H
#define QB_CUDA_HASH_H

#include "backend/cuda/cell.h"

struct qb_hash_shared {
    struct qb_cells cells;
};

QB_ITEM void qb_hash_chunks(const struct qb_batch *batch, const struct qb_tile *tile,
                            struct qb_hash_shared *shared, unsigned thread)
{
    struct qb_chunk chunks[QB_ROUNDS];
    (void)batch;
    qb_load_chunks(tile, tile->page->from + tile->start, thread, chunks);
    for (unsigned i = 0; i < QB_ROUNDS; i++)
        qb_cell_mix(tile, &shared->cells, thread + i * QB_TILE_THREADS, chunks[i]);
}

QB_ITEM void qb_hash_terms(const struct qb_batch *batch, const struct qb_tile *tile,
                           struct qb_hash_shared *shared, unsigned thread)
{
    (void)batch;
    if (thread < QB_TILE_CELLS)
        qb_cell_term(tile, &shared->cells, tile->page->from + tile->start, thread);
}

QB_ITEM void qb_hash_rows(const struct qb_batch *batch, const struct qb_tile *tile,
                          struct qb_hash_shared *shared, unsigned thread)
{
    (void)batch, (void)tile;
    if (thread < 16)
        qb_cell_rows(&shared->cells, thread);
}

QB_ITEM void qb_hash_result(const struct qb_batch *batch, const struct qb_tile *tile,
                            struct qb_hash_shared *shared, unsigned thread)
{
    if (thread == 0)
        qb_atomic_add128(&batch->sums[tile->page_number], qb_cell_sum(&shared->cells));
}

#define QB_HASH_PHASES(PHASE)                                                                      \
    PHASE(qb_hash_chunks) PHASE(qb_hash_terms) PHASE(qb_hash_rows) PHASE(qb_hash_result)

#define QB_HASH_OPERATION(MAKE)                                                                    \
    MAKE(hash, qb_hash_shared, qb_tile_groups, qb_tile_at, QB_HASH_PHASES)

#endif
