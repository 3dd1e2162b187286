/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes the delta that delta_diff has found, each part where the scanned counts say. The values
 * of the prefixes are sums over segments: a quarter of the places is used.
 */
#ifndef QB_CUDA_DELTA_EMIT_H
#define QB_CUDA_DELTA_EMIT_H

#include "backend/cuda/segment.h"

struct qb_delta_emit_shared {
    uint64_t words[QB_TILE_WORDS];
    struct qb_prefix segments, records, bytes; /* in front of each segment */
    struct qb_counts before;                   /* in front of the tile */
    uint32_t touched;
};

QB_ITEM void qb_delta_emit_words(const struct qb_batch *batch, const struct qb_tile *tile,
                                 struct qb_delta_emit_shared *shared, unsigned thread)
{
    const struct qb_counts *counts = batch->counts + tile->index;
    if (counts[0].entries == counts[1].entries)
        shared->words[thread] = 0;
    else
        shared->words[thread] = qb_tile_mask(batch, tile)[thread];
    if (thread == 0) {
        shared->before = counts[0];
        shared->touched = counts[0].entries != counts[1].entries;
    }
}

QB_ITEM void qb_delta_emit_counts(const struct qb_batch *batch, const struct qb_tile *tile,
                                  struct qb_delta_emit_shared *shared, unsigned thread)
{
    struct qb_counts counts = {0, 0, 0, 0};
    (void)batch, (void)tile;
    if (thread < QB_TILE_SEGMENTS && shared->touched)
        counts = qb_segment_counts(shared->words + thread * QB_SEGMENT_WORDS);
    shared->segments.before[thread] = (uint32_t)counts.segments;
    shared->records.before[thread] = (uint32_t)counts.records;
    shared->bytes.before[thread] = (uint32_t)counts.bytes;
}

QB_ITEM void qb_delta_emit_rows(const struct qb_batch *batch, const struct qb_tile *tile,
                                struct qb_delta_emit_shared *shared, unsigned thread)
{
    (void)batch, (void)tile;
    qb_prefix_rows(&shared->segments, thread);
    qb_prefix_rows(&shared->records, thread);
    qb_prefix_rows(&shared->bytes, thread);
}

QB_ITEM void qb_delta_emit_columns(const struct qb_batch *batch, const struct qb_tile *tile,
                                   struct qb_delta_emit_shared *shared, unsigned thread)
{
    (void)batch, (void)tile;
    qb_prefix_columns(&shared->segments, thread);
    qb_prefix_columns(&shared->records, thread);
    qb_prefix_columns(&shared->bytes, thread);
}

QB_ITEM void qb_delta_emit_entry(const struct qb_batch *batch, const struct qb_tile *tile,
                                 struct qb_delta_emit_shared *shared, unsigned thread)
{
    struct qb_delta_entry entry;
    if (thread != 0 || !shared->touched)
        return;
    entry.tile = tile->index;
    entry.segments = 0;
    for (unsigned i = 0; i < QB_TILE_SEGMENTS; i++) {
        const uint32_t next = i + 1 < QB_TILE_SEGMENTS ? qb_prefix_before(&shared->segments, i + 1)
                                                       : qb_prefix_total(&shared->segments);
        if (next != qb_prefix_before(&shared->segments, i))
            entry.segments |= UINT64_C(1) << i;
    }
    entry.records = qb_prefix_total(&shared->records);
    entry.bytes = qb_prefix_total(&shared->bytes);
    batch->delta.entries[shared->before.entries] = entry;
}

QB_ITEM void qb_delta_emit_records(const struct qb_batch *batch, const struct qb_tile *tile,
                                   struct qb_delta_emit_shared *shared, unsigned thread)
{
    const uint64_t *words = shared->words + thread * QB_SEGMENT_WORDS;
    unsigned count = 0, length;
    (void)tile;
    if (thread >= QB_TILE_SEGMENTS || !shared->touched)
        return;
    uint16_t *records =
        batch->delta.records + shared->before.records + qb_prefix_before(&shared->records, thread);
    for (unsigned at = qb_segment_run(words, 0, &length); at < QB_SEGMENT;) {
        records[count++] = (uint16_t)(at | (length - 1) << 8);
        if (at + length >= QB_SEGMENT)
            break;
        at = qb_segment_run(words, at + length, &length);
    }
    if (count > 0)
        batch->delta
            .segments[shared->before.segments + qb_prefix_before(&shared->segments, thread)] =
            (uint8_t)count;
}

QB_ITEM void qb_delta_emit_payload(const struct qb_batch *batch, const struct qb_tile *tile,
                                   struct qb_delta_emit_shared *shared, unsigned thread)
{
    uint8_t *payload = batch->delta.payload + shared->before.bytes;
    for (unsigned i = 0; shared->touched && i < QB_ROUNDS; i++) {
        const unsigned chunk = thread + i * QB_TILE_THREADS;
        uint32_t before;
        const uint32_t mask = qb_segment_chunk(shared->words, chunk, &before);
        if (mask == 0)
            continue;
        struct qb_chunk bytes = qb_load_chunk(tile, tile->page->from + tile->start, chunk);
        if (batch->combine == QB_XOR)
            bytes = qb_chunk_xor(bytes, qb_load_chunk(tile, tile->page->base + tile->start, chunk));
        before += qb_prefix_before(&shared->bytes, chunk * QB_CHUNK / QB_SEGMENT);
        qb_pack_chunk(payload + before, bytes, mask);
    }
}

#define QB_DELTA_EMIT_PHASES(PHASE)                                                                \
    PHASE(qb_delta_emit_words)                                                                     \
    PHASE(qb_delta_emit_counts)                                                                    \
    PHASE(qb_delta_emit_rows)                                                                      \
    PHASE(qb_delta_emit_columns)                                                                   \
    PHASE(qb_delta_emit_entry) PHASE(qb_delta_emit_records) PHASE(qb_delta_emit_payload)

#define QB_DELTA_EMIT_OPERATION(MAKE)                                                              \
    MAKE(delta_emit, qb_delta_emit_shared, qb_tile_groups, qb_tile_at, QB_DELTA_EMIT_PHASES)

#endif
