/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where in the old content may these 32 bytes stand? An index of evenly spaced keys of the old
 * content, asked at every position of the new one.
 *
 * The key at a position is its next QR_KEY_LENGTH bytes. The keys at multiples of the spacing are
 * indexed, so every common stretch of spacing + 31 bytes is found. Keys of zeros only are left out:
 * zeros are cheaper to describe than to find. Positions stand sorted within their bucket, so that
 * the one nearest to any place is found in O(log n) even if all keys are equal: repetitive content
 * costs nothing extra.
 */
#ifndef QR_BLOCK_INDEX_H
#define QR_BLOCK_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/bytes.h"

enum { QR_KEY_LENGTH = 32 };

/* A part [from, to) of the old content. */
struct qr_block_range {
    size_t from, to;
};

/* Zero-initialise; build as often as wanted, the memory is used again; finish. */
struct qr_block_index {
    uint32_t *buckets; /* start of each in `blocks`; one more than there are */
    uint32_t *blocks;  /* positions / spacing */
    uint64_t *filter;  /* two bits per hash, in one word: is there such a key at all? */
    size_t memory;     /* bytes at `filter`, which is where the one allocation begins */
    size_t count;      /* of blocks; 0: nothing is indexed */
    size_t spacing;
    unsigned bucket_shift, filter_shift;
};

/* Indexes ascending, disjoint ranges. Keys stand the farther apart the more there is to index, and
 * farther still where more than max_bytes of memory would be needed. 0 or QALLOW_E_NO_MEMORY. */
int qr_block_index_build(struct qr_block_index *index, const uint8_t *old,
                         const struct qr_block_range *ranges, size_t range_count, size_t max_bytes);
void qr_block_index_finish(struct qr_block_index *index);

/* The first position in [from, to) of `bytes` whose key passes the filter, or `to`. The bytes must
 * reach to + QR_KEY_LENGTH - 1. The index must not be empty. Keys of zeros only always pass. */
size_t qr_block_index_next(const struct qr_block_index *index, const uint8_t *bytes, size_t from,
                           size_t to);

/* The places in the old content where a key may stand, from some place outwards. */
struct qr_block_places {
    const uint32_t *first, *before, *after, *last;
    size_t spacing;
    int turn;
};

/* Sets out from `near` for the places of the key at `bytes`. They are candidates, not yet compared.
 * _next gives one after the other, the nearest ahead first, then the nearest behind, by turns; 0
 * when there are no more. */
void qr_block_index_near(const struct qr_block_index *index, const uint8_t *bytes, size_t near,
                         struct qr_block_places *places);
int qr_block_places_next(struct qr_block_places *places, size_t *position);

#endif
