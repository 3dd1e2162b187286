/* SPDX-License-Identifier: Apache-2.0 */
/* Applies a change of all bytes of a page: to = from, or to ^= from. */
#ifndef QB_CUDA_APPLY_DENSE_H
#define QB_CUDA_APPLY_DENSE_H

#include "backend/cuda/item.h"

struct qb_apply_dense_shared {
    uint32_t none;
};

QB_ITEM void qb_apply_dense_chunks(const struct qb_batch *batch, const struct qb_tile *tile,
                                   struct qb_apply_dense_shared *shared, unsigned thread)
{
    struct qb_chunk old[QB_ROUNDS], chunks[QB_ROUNDS];
    (void)shared;
    qb_load_chunks(tile, tile->page->from + tile->start, thread, chunks);
    if (batch->combine == QB_XOR) {
        qb_load_chunks(tile, tile->page->to + tile->start, thread, old);
        for (unsigned i = 0; i < QB_ROUNDS; i++)
            chunks[i] = qb_chunk_xor(chunks[i], old[i]);
    }
    qb_store_chunks(tile, tile->page->to + tile->start, thread, chunks);
}

#define QB_APPLY_DENSE_PHASES(PHASE) PHASE(qb_apply_dense_chunks)

#define QB_APPLY_DENSE_OPERATION(MAKE)                                                             \
    MAKE(apply_dense, qb_apply_dense_shared, qb_tile_groups, qb_tile_at, QB_APPLY_DENSE_PHASES)

#endif
