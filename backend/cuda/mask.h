/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bit masks of pages: diff_mask finds what differs, count_mask counts the bits of each tile,
 * pack_mask gathers the bytes under the bits and apply_mask scatters them. Between counting and
 * the other two the counts of the tiles are scanned (scan.cu); within a tile the words are.
 */
#ifndef QB_CUDA_MASK_H
#define QB_CUDA_MASK_H

#include "backend/cuda/item.h"

struct qb_mask_shared {
    struct qb_prefix bits;           /* of the words of the tile, or of threads */
    uint16_t chunks[QB_TILE_CHUNKS]; /* the mask, chunk by chunk */
    uint64_t words[QB_TILE_WORDS];
};

QB_ITEM uint64_t *qb_tile_mask(const struct qb_batch *batch, const struct qb_tile *tile)
{
    return batch->mask + tile->index * QB_TILE_WORDS;
}

/* A word of a mask from those of its four chunks. */
QB_ITEM uint64_t qb_mask_word(const uint16_t *chunks, unsigned word)
{
    const uint16_t *four = chunks + 4 * word;
    return four[0] | (uint64_t)four[1] << 16 | (uint64_t)four[2] << 32 | (uint64_t)four[3] << 48;
}

QB_ITEM void qb_mask_rows(const struct qb_batch *batch, const struct qb_tile *tile,
                          struct qb_mask_shared *shared, unsigned thread)
{
    (void)batch, (void)tile;
    qb_prefix_rows(&shared->bits, thread);
}

QB_ITEM void qb_mask_columns(const struct qb_batch *batch, const struct qb_tile *tile,
                             struct qb_mask_shared *shared, unsigned thread)
{
    (void)batch, (void)tile;
    qb_prefix_columns(&shared->bits, thread);
}

/* --- diff_mask --- */

QB_ITEM void qb_diff_mask_chunks(const struct qb_batch *batch, const struct qb_tile *tile,
                                 struct qb_mask_shared *shared, unsigned thread)
{
    struct qb_chunk a[QB_ROUNDS], b[QB_ROUNDS];
    (void)batch;
    qb_load_chunks(tile, tile->page->base + tile->start, thread, a);
    qb_load_chunks(tile, tile->page->from + tile->start, thread, b);
    for (unsigned i = 0; i < QB_ROUNDS; i++)
        shared->chunks[thread + i * QB_TILE_THREADS] =
            (uint16_t)qb_chunk_mask(qb_chunk_xor(a[i], b[i]));
}

QB_ITEM void qb_diff_mask_words(const struct qb_batch *batch, const struct qb_tile *tile,
                                struct qb_mask_shared *shared, unsigned thread)
{
    const uint64_t word = qb_mask_word(shared->chunks, thread);
    qb_tile_mask(batch, tile)[thread] = word;
    shared->bits.before[thread] = qb_popcount(word);
}

QB_ITEM void qb_mask_count(const struct qb_batch *batch, const struct qb_tile *tile,
                           struct qb_mask_shared *shared, unsigned thread)
{
    struct qb_counts counts = {0, 0, 0, 0};
    if (thread != 0)
        return;
    counts.bytes = qb_prefix_total(&shared->bits);
    batch->counts[tile->index] = counts;
}

#define QB_DIFF_MASK_PHASES(PHASE)                                                                 \
    PHASE(qb_diff_mask_chunks)                                                                     \
    PHASE(qb_diff_mask_words) PHASE(qb_mask_rows) PHASE(qb_mask_columns) PHASE(qb_mask_count)

/* --- count_mask --- */

QB_ITEM void qb_mask_words(const struct qb_batch *batch, const struct qb_tile *tile,
                           struct qb_mask_shared *shared, unsigned thread)
{
    shared->words[thread] = qb_tile_mask(batch, tile)[thread];
    shared->bits.before[thread] = qb_popcount(shared->words[thread]);
}

#define QB_COUNT_MASK_PHASES(PHASE)                                                                \
    PHASE(qb_mask_words) PHASE(qb_mask_rows) PHASE(qb_mask_columns) PHASE(qb_mask_count)

/* --- pack_mask and apply_mask --- */

/* The mask of a chunk, and where in the payload its bytes stand. */
QB_ITEM uint32_t qb_mask_of_chunk(const struct qb_mask_shared *shared, unsigned chunk,
                                  uint32_t *before)
{
    const uint64_t word = shared->words[chunk / 4];
    const unsigned shift = chunk % 4 * QB_CHUNK;
    *before = qb_prefix_before(&shared->bits, chunk / 4) +
              qb_popcount(word & ((UINT64_C(1) << shift) - 1));
    return (uint32_t)(word >> shift & 0xffff);
}

QB_ITEM void qb_pack_mask_chunks(const struct qb_batch *batch, const struct qb_tile *tile,
                                 struct qb_mask_shared *shared, unsigned thread)
{
    uint8_t *payload = batch->payload + batch->counts[tile->index].bytes;
    for (unsigned i = 0; i < QB_ROUNDS; i++) {
        const unsigned chunk = thread + i * QB_TILE_THREADS;
        uint32_t before;
        const uint32_t mask = qb_mask_of_chunk(shared, chunk, &before);
        if (mask != 0)
            qb_pack_chunk(payload + before,
                          qb_load_chunk(tile, tile->page->from + tile->start, chunk), mask);
    }
}

#define QB_PACK_MASK_PHASES(PHASE)                                                                 \
    PHASE(qb_mask_words) PHASE(qb_mask_rows) PHASE(qb_mask_columns) PHASE(qb_pack_mask_chunks)

QB_ITEM void qb_apply_mask_chunks(const struct qb_batch *batch, const struct qb_tile *tile,
                                  struct qb_mask_shared *shared, unsigned thread)
{
    const uint8_t *payload = batch->payload + batch->counts[tile->index].bytes;
    uint8_t *to = tile->page->to + tile->start;
    for (unsigned i = 0; i < QB_ROUNDS; i++) {
        const unsigned chunk = thread + i * QB_TILE_THREADS;
        uint32_t before;
        const uint32_t mask = qb_mask_of_chunk(shared, chunk, &before);
        if (mask != 0)
            qb_store_chunk(tile, to, chunk,
                           qb_combine_chunk(qb_load_chunk(tile, to, chunk), mask, payload + before,
                                            batch->combine));
    }
}

#define QB_APPLY_MASK_PHASES(PHASE)                                                                \
    PHASE(qb_mask_words) PHASE(qb_mask_rows) PHASE(qb_mask_columns) PHASE(qb_apply_mask_chunks)

#define QB_DIFF_MASK_OPERATION(MAKE)                                                               \
    MAKE(diff_mask, qb_mask_shared, qb_tile_groups, qb_tile_at, QB_DIFF_MASK_PHASES)

#define QB_COUNT_MASK_OPERATION(MAKE)                                                              \
    MAKE(count_mask, qb_mask_shared, qb_tile_groups, qb_tile_at, QB_COUNT_MASK_PHASES)

#define QB_PACK_MASK_OPERATION(MAKE)                                                               \
    MAKE(pack_mask, qb_mask_shared, qb_tile_groups, qb_tile_at, QB_PACK_MASK_PHASES)

#define QB_APPLY_MASK_OPERATION(MAKE)                                                              \
    MAKE(apply_mask, qb_mask_shared, qb_tile_groups, qb_tile_at, QB_APPLY_MASK_PHASES)

#endif
