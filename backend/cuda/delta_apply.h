/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the entries of a delta back into masks (delta_check does that and says whether anything is
 * wrong with them), and applies them: one group of threads an entry, so that tiles without changes
 * cost nothing. What is read is checked against the parts' sizes first, whatever the delta says.
 */
#ifndef QB_CUDA_DELTA_APPLY_H
#define QB_CUDA_DELTA_APPLY_H

#include "backend/cuda/segment.h"

struct qb_delta_apply_shared {
    uint64_t words[QB_TILE_WORDS];
    struct qb_prefix records, bytes; /* in front of each segment */
    uint32_t wrong[QB_TILE_SEGMENTS];
};

QB_ITEM uint64_t qb_delta_groups(const struct qb_batch *batch)
{
    return batch->delta.total.entries;
}

/* The tile of an entry; of length 0 if there is no such tile. */
QB_ITEM struct qb_tile qb_delta_at(const struct qb_batch *batch, uint64_t index)
{
    const uint64_t number = batch->delta.entries[index].tile;
    struct qb_tile tile = qb_tile_numbered(batch, number < batch->tiles ? number : 0, index);
    if (number >= batch->tiles)
        tile.length = 0;
    return tile;
}

/* The number of runs of each segment. */
QB_ITEM void qb_delta_apply_counts(const struct qb_batch *batch, const struct qb_tile *tile,
                                   struct qb_delta_apply_shared *shared, unsigned thread)
{
    uint32_t count = 0;
    if (thread < QB_TILE_SEGMENTS) {
        const uint64_t segments = batch->delta.entries[tile->index].segments;
        const uint64_t below = segments & ((UINT64_C(1) << thread) - 1);
        const uint64_t at = batch->counts[tile->index].segments + qb_popcount(below);
        shared->wrong[thread] = tile->length == 0;
        if (segments >> thread & 1) {
            if (at < batch->delta.total.segments)
                count = batch->delta.segments[at];
            shared->wrong[thread] |= count == 0;
        }
    }
    shared->records.before[thread] = count;
}

QB_ITEM void qb_delta_apply_record_rows(const struct qb_batch *batch, const struct qb_tile *tile,
                                        struct qb_delta_apply_shared *shared, unsigned thread)
{
    (void)batch, (void)tile;
    qb_prefix_rows(&shared->records, thread);
}

QB_ITEM void qb_delta_apply_record_columns(const struct qb_batch *batch, const struct qb_tile *tile,
                                           struct qb_delta_apply_shared *shared, unsigned thread)
{
    (void)batch, (void)tile;
    qb_prefix_columns(&shared->records, thread);
}

/* The runs of one segment into its mask. Runs ascend, and are what delta_diff finds: at least
 * QB_DELTA_GAP apart. Returns their bytes. */
QB_ITEM uint32_t qb_delta_decode(const struct qb_batch *batch, const struct qb_tile *tile,
                                 struct qb_delta_apply_shared *shared, unsigned segment)
{
    const uint64_t first =
        batch->counts[tile->index].records + qb_prefix_before(&shared->records, segment);
    const uint64_t behind =
        batch->counts[tile->index].records + (segment + 1 < QB_TILE_SEGMENTS
                                                  ? qb_prefix_before(&shared->records, segment + 1)
                                                  : qb_prefix_total(&shared->records));
    uint64_t *words = shared->words + segment * QB_SEGMENT_WORDS;
    uint32_t bytes = 0, end = 0;
    for (unsigned i = 0; i < QB_SEGMENT_WORDS; i++)
        words[i] = 0;
    for (uint64_t i = first; i < behind; i++) {
        const uint16_t record = i < batch->delta.total.records ? batch->delta.records[i] : 0;
        const uint32_t at = record & 0xff, length = (uint32_t)(record >> 8) + 1;
        if (i >= batch->delta.total.records || at + length > QB_SEGMENT ||
            segment * QB_SEGMENT + at + length > tile->length ||
            (i > first && at < end + QB_DELTA_GAP)) {
            shared->wrong[segment] = 1;
            break;
        }
        qb_segment_set(words, at, length);
        bytes += length;
        end = at + length;
    }
    return bytes;
}

QB_ITEM void qb_delta_apply_decode(const struct qb_batch *batch, const struct qb_tile *tile,
                                   struct qb_delta_apply_shared *shared, unsigned thread)
{
    uint32_t bytes = 0;
    if (thread < QB_TILE_SEGMENTS)
        bytes = qb_delta_decode(batch, tile, shared, thread);
    shared->bytes.before[thread] = bytes;
}

QB_ITEM void qb_delta_apply_byte_rows(const struct qb_batch *batch, const struct qb_tile *tile,
                                      struct qb_delta_apply_shared *shared, unsigned thread)
{
    (void)batch, (void)tile;
    qb_prefix_rows(&shared->bytes, thread);
}

QB_ITEM void qb_delta_apply_byte_columns(const struct qb_batch *batch, const struct qb_tile *tile,
                                         struct qb_delta_apply_shared *shared, unsigned thread)
{
    (void)batch, (void)tile;
    qb_prefix_columns(&shared->bytes, thread);
}

#define QB_DELTA_READ_PHASES(PHASE)                                                                \
    PHASE(qb_delta_apply_counts)                                                                   \
    PHASE(qb_delta_apply_record_rows)                                                              \
    PHASE(qb_delta_apply_record_columns)                                                           \
    PHASE(qb_delta_apply_decode)                                                                   \
    PHASE(qb_delta_apply_byte_rows) PHASE(qb_delta_apply_byte_columns)

/* --- delta_check --- */

QB_ITEM void qb_delta_check_result(const struct qb_batch *batch, const struct qb_tile *tile,
                                   struct qb_delta_apply_shared *shared, unsigned thread)
{
    const struct qb_delta_entry *entry = &batch->delta.entries[tile->index];
    if (thread == 0 && (qb_prefix_total(&shared->records) != entry->records ||
                        qb_prefix_total(&shared->bytes) != entry->bytes))
        qb_atomic_or(batch->status, 1);
    if (thread < QB_TILE_SEGMENTS && shared->wrong[thread])
        qb_atomic_or(batch->status, 1);
}

#define QB_DELTA_CHECK_PHASES(PHASE) QB_DELTA_READ_PHASES(PHASE) PHASE(qb_delta_check_result)

/* --- delta_apply --- */

QB_ITEM void qb_delta_apply_chunks(const struct qb_batch *batch, const struct qb_tile *tile,
                                   struct qb_delta_apply_shared *shared, unsigned thread)
{
    const uint64_t first = batch->counts[tile->index].bytes;
    uint8_t *to = tile->page->to + tile->start;
    if (first + qb_prefix_total(&shared->bytes) > batch->delta.total.bytes)
        return;
    for (unsigned i = 0; i < QB_ROUNDS; i++) {
        const unsigned chunk = thread + i * QB_TILE_THREADS;
        uint32_t before;
        const uint32_t mask = qb_segment_chunk(shared->words, chunk, &before);
        if (mask == 0)
            continue;
        before += qb_prefix_before(&shared->bytes, chunk * QB_CHUNK / QB_SEGMENT);
        qb_store_chunk(tile, to, chunk,
                       qb_combine_chunk(qb_load_chunk(tile, to, chunk), mask,
                                        batch->delta.payload + first + before, batch->combine));
    }
}

#define QB_DELTA_APPLY_PHASES(PHASE) QB_DELTA_READ_PHASES(PHASE) PHASE(qb_delta_apply_chunks)

#define QB_DELTA_CHECK_OPERATION(MAKE)                                                             \
    MAKE(delta_check, qb_delta_apply_shared, qb_delta_groups, qb_delta_at, QB_DELTA_CHECK_PHASES)

#define QB_DELTA_APPLY_OPERATION(MAKE)                                                             \
    MAKE(delta_apply, qb_delta_apply_shared, qb_delta_groups, qb_delta_at, QB_DELTA_APPLY_PHASES)

#endif
