/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds what a delta will hold: the mask of the runs of each tile, what they count up to, and in
 * the same pass over memory the digests of both contents. Tiles that are equal write nothing but
 * their counts.
 */
#ifndef QB_CUDA_DELTA_DIFF_H
#define QB_CUDA_DELTA_DIFF_H

#include "backend/cuda/cell.h"
#include "backend/cuda/segment.h"

struct qb_delta_diff_shared {
    struct qb_cells from, base;
    uint16_t chunks[QB_TILE_CHUNKS];
    uint64_t words[QB_TILE_WORDS];
    struct qb_counts segments[QB_TILE_SEGMENTS];
    uint32_t touched;
};

QB_ITEM void qb_delta_diff_chunks(const struct qb_batch *batch, const struct qb_tile *tile,
                                  struct qb_delta_diff_shared *shared, unsigned thread)
{
    struct qb_chunk a[QB_ROUNDS], b[QB_ROUNDS];
    qb_load_chunks(tile, tile->page->base + tile->start, thread, a);
    qb_load_chunks(tile, tile->page->from + tile->start, thread, b);
    for (unsigned i = 0; i < QB_ROUNDS; i++) {
        const unsigned chunk = thread + i * QB_TILE_THREADS;
        shared->chunks[chunk] = (uint16_t)qb_chunk_mask(qb_chunk_xor(a[i], b[i]));
        if (batch->sums != NULL) {
            qb_cell_mix(tile, &shared->base, chunk, a[i]);
            qb_cell_mix(tile, &shared->from, chunk, b[i]);
        }
    }
}

/* Half of the threads take the cells of each content, 64 of them the segments too. */
QB_ITEM void qb_delta_diff_terms(const struct qb_batch *batch, const struct qb_tile *tile,
                                 struct qb_delta_diff_shared *shared, unsigned thread)
{
    if (thread < QB_TILE_SEGMENTS) {
        uint64_t *words = shared->words + thread * QB_SEGMENT_WORDS;
        for (unsigned i = 0; i < QB_SEGMENT_WORDS; i++)
            words[i] = qb_mask_word(shared->chunks, thread * QB_SEGMENT_WORDS + i);
        qb_segment_close_gaps(words);
        shared->segments[thread] = qb_segment_counts(words);
    }
    if (batch->sums == NULL)
        return;
    if (thread < QB_TILE_CELLS)
        qb_cell_term(tile, &shared->base, tile->page->base + tile->start, thread);
    else
        qb_cell_term(tile, &shared->from, tile->page->from + tile->start, thread - QB_TILE_CELLS);
}

QB_ITEM void qb_delta_diff_rows(const struct qb_batch *batch, const struct qb_tile *tile,
                                struct qb_delta_diff_shared *shared, unsigned thread)
{
    (void)tile;
    if (thread >= 32 && thread < 48)
        qb_segment_rows(shared->segments, thread - 32);
    if (thread < 16 && batch->sums != NULL) {
        qb_cell_rows(&shared->base, thread);
        qb_cell_rows(&shared->from, thread);
    }
}

QB_ITEM void qb_delta_diff_result(const struct qb_batch *batch, const struct qb_tile *tile,
                                  struct qb_delta_diff_shared *shared, unsigned thread)
{
    if (thread == 32) {
        struct qb_counts total = qb_segment_total(shared->segments);
        total.entries = total.segments != 0;
        batch->counts[tile->index] = total;
        shared->touched = (uint32_t)total.entries;
    }
    if (thread == 0 && batch->sums != NULL) {
        qb_atomic_add128(&batch->base_sums[tile->page_number], qb_cell_sum(&shared->base));
        qb_atomic_add128(&batch->sums[tile->page_number], qb_cell_sum(&shared->from));
    }
}

QB_ITEM void qb_delta_diff_words(const struct qb_batch *batch, const struct qb_tile *tile,
                                 struct qb_delta_diff_shared *shared, unsigned thread)
{
    if (shared->touched)
        qb_tile_mask(batch, tile)[thread] = shared->words[thread];
}

#define QB_DELTA_DIFF_PHASES(PHASE)                                                                \
    PHASE(qb_delta_diff_chunks)                                                                    \
    PHASE(qb_delta_diff_terms)                                                                     \
    PHASE(qb_delta_diff_rows) PHASE(qb_delta_diff_result) PHASE(qb_delta_diff_words)

#define QB_DELTA_DIFF_OPERATION(MAKE)                                                              \
    MAKE(delta_diff, qb_delta_diff_shared, qb_tile_groups, qb_tile_at, QB_DELTA_DIFF_PHASES)

#endif
