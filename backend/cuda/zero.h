/* SPDX-License-Identifier: Apache-2.0 */
/* Zeroes pages. */
#ifndef QB_CUDA_ZERO_H
#define QB_CUDA_ZERO_H

#include "backend/cuda/item.h"

struct qb_zero_shared {
    uint32_t none;
};

QB_ITEM void qb_zero_chunks(const struct qb_batch *batch, const struct qb_tile *tile,
                            struct qb_zero_shared *shared, unsigned thread)
{
    struct qb_chunk zeros[QB_ROUNDS];
    (void)batch, (void)shared;
    for (unsigned i = 0; i < QB_ROUNDS; i++)
        zeros[i].lo = zeros[i].hi = 0;
    qb_store_chunks(tile, tile->page->to + tile->start, thread, zeros);
}

#define QB_ZERO_PHASES(PHASE) PHASE(qb_zero_chunks)

#define QB_ZERO_OPERATION(MAKE)                                                                    \
    MAKE(zero, qb_zero_shared, qb_tile_groups, qb_tile_at, QB_ZERO_PHASES)

#endif
