/* SPDX-License-Identifier: Apache-2.0 */
/* Copies pages: to = from. The two do not overlap. */
#ifndef QB_CUDA_COPY_H
#define QB_CUDA_COPY_H

#include "backend/cuda/item.h"

struct qb_copy_shared {
    uint32_t none;
};

QB_ITEM void qb_copy_chunks(const struct qb_batch *batch, const struct qb_tile *tile,
                            struct qb_copy_shared *shared, unsigned thread)
{
    struct qb_chunk chunks[QB_ROUNDS];
    (void)batch, (void)shared;
    qb_load_chunks(tile, tile->page->from + tile->start, thread, chunks);
    qb_store_chunks(tile, tile->page->to + tile->start, thread, chunks);
}

#define QB_COPY_PHASES(PHASE) PHASE(qb_copy_chunks)

#define QB_COPY_OPERATION(MAKE)                                                                    \
    MAKE(copy, qb_copy_shared, qb_tile_groups, qb_tile_at, QB_COPY_PHASES)

#endif
