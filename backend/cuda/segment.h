/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments: 256 bytes, whose changes are a mask of four words on the way and a list of runs in a
 * delta. One thread takes a segment.
 */
#ifndef QB_CUDA_SEGMENT_H
#define QB_CUDA_SEGMENT_H

#include "backend/cuda/mask.h"

#define QB_SEGMENT_WORDS (QB_SEGMENT / 64)

/* The four words, shifted towards higher or lower bytes by 1 or 2. */
QB_ITEM uint64_t qb_segment_up(const uint64_t *words, unsigned i, unsigned by)
{
    return words[i] << by | (i > 0 ? words[i - 1] >> (64 - by) : 0);
}

QB_ITEM uint64_t qb_segment_down(const uint64_t *words, unsigned i, unsigned by)
{
    return words[i] >> by | (i + 1 < QB_SEGMENT_WORDS ? words[i + 1] << (64 - by) : 0);
}

/* Sets the bits of gaps of one and two between set bits: QB_DELTA_GAP is 3. */
QB_ITEM void qb_segment_close_gaps(uint64_t *words)
{
    uint64_t closed[QB_SEGMENT_WORDS];
    for (unsigned i = 0; i < QB_SEGMENT_WORDS; i++) {
        const uint64_t up1 = qb_segment_up(words, i, 1), up2 = qb_segment_up(words, i, 2);
        const uint64_t down1 = qb_segment_down(words, i, 1), down2 = qb_segment_down(words, i, 2);
        closed[i] = words[i] | (up1 & (down1 | down2)) | (up2 & down1);
    }
    for (unsigned i = 0; i < QB_SEGMENT_WORDS; i++)
        words[i] = closed[i];
}

QB_ITEM struct qb_counts qb_segment_counts(const uint64_t *words)
{
    struct qb_counts counts = {0, 0, 0, 0};
    for (unsigned i = 0; i < QB_SEGMENT_WORDS; i++) {
        counts.records += qb_popcount(words[i] & ~qb_segment_up(words, i, 1));
        counts.bytes += qb_popcount(words[i]);
    }
    counts.segments = counts.bytes != 0;
    return counts;
}

QB_ITEM void qb_counts_add(struct qb_counts *to, struct qb_counts counts)
{
    to->entries += counts.entries;
    to->segments += counts.segments;
    to->records += counts.records;
    to->bytes += counts.bytes;
}

/* The counts of four segments become one, then those of all sixteen rows. */
QB_ITEM void qb_segment_rows(struct qb_counts *segments, unsigned row)
{
    for (unsigned i = 1; i < 4; i++)
        qb_counts_add(&segments[row], segments[row + 16 * i]);
}

QB_ITEM struct qb_counts qb_segment_total(const struct qb_counts *segments)
{
    struct qb_counts total = {0, 0, 0, 0};
    for (unsigned row = 0; row < 16; row++)
        qb_counts_add(&total, segments[row]);
    return total;
}

/* The next run of the mask at or behind *at: its offset, and its length in *length; QB_SEGMENT if
 * there is none. */
QB_ITEM unsigned qb_segment_run(const uint64_t *words, unsigned at, unsigned *length)
{
    unsigned start = QB_SEGMENT, end = QB_SEGMENT;
    for (unsigned i = at / 64; i < QB_SEGMENT_WORDS && start == QB_SEGMENT; i++) {
        const uint64_t word = words[i] & (i == at / 64 ? ~UINT64_C(0) << at % 64 : ~UINT64_C(0));
        if (word != 0)
            start = i * 64 + qb_lowest(word);
    }
    for (unsigned i = start / 64; i < QB_SEGMENT_WORDS && end == QB_SEGMENT; i++) {
        const uint64_t word =
            ~words[i] & (i == start / 64 ? ~UINT64_C(0) << start % 64 : ~UINT64_C(0));
        if (word != 0)
            end = i * 64 + qb_lowest(word);
    }
    *length = end - start;
    return start;
}

/* Sets the bits of a run that lies in the segment. */
QB_ITEM void qb_segment_set(uint64_t *words, unsigned at, unsigned length)
{
    for (unsigned i = at / 64; length > 0; i++, at = 0) {
        const unsigned from = at % 64, n = length < 64 - from ? length : 64 - from;
        words[i] |= (n < 64 ? (UINT64_C(1) << n) - 1 : ~UINT64_C(0)) << from;
        length -= n;
    }
}

/* The mask of a chunk of a tile, and how many bytes of its segment stand before it. */
QB_ITEM uint32_t qb_segment_chunk(const uint64_t *tile_words, unsigned chunk, uint32_t *before)
{
    const unsigned word = chunk / 4, shift = chunk % 4 * QB_CHUNK;
    *before = qb_popcount(tile_words[word] & ((UINT64_C(1) << shift) - 1));
    for (unsigned i = word - word % QB_SEGMENT_WORDS; i < word; i++)
        *before += qb_popcount(tile_words[i]);
    return (uint32_t)(tile_words[word] >> shift & 0xffff);
}

#endif
