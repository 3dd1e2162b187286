/* SPDX-License-Identifier: Apache-2.0 */
/* What the stages of qr_diff hand to each other; see runtime/diff.c. */
#ifndef QR_DIFF_INTERNAL_H
#define QR_DIFF_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

#include "backend/kernels.h"
#include "runtime/block_index.h"
#include "runtime/delta.h"

enum {
    QR_DIFF_GAP = 16,       /* fewer equal bytes between two changed ones are not worth two edits */
    QR_DIFF_COPY_MIN = 64,  /* bytes that a copy must save */
    QR_DIFF_ZEROS_MIN = 32, /* of literal bytes that become QR_ZEROS */
};

/* A difference: [old_from, old_to) became [new_from, new_to). */
struct qr_diff_range {
    size_t old_from, old_to, new_from, new_to;
    int search; /* may hold a shift or a move */
};

struct qr_diff_ranges {
    struct qr_diff_range *items;
    size_t count, capacity;
};

/* Equal bytes; `kept` ones stay where they are in the order of things, others are copies. */
struct qr_diff_match {
    size_t new_at, old_at, length;
    int kept;
};

/* The short matches since the last long one, and where that one ended. */
struct qr_diff_row {
    size_t old_at, new_at;
    size_t length;
    size_t next_look; /* the length at which to look for the way back */
};

struct qr_diff {
    const uint8_t *old, *new_;
    size_t old_length, new_length;
    size_t max_index_bytes;
    const struct qb_kernels *kernels;
    struct qr_block_index index;
    struct qr_diff_match *matches; /* of the range at hand, ascending in the new content */
    size_t match_count, match_capacity;
    struct qr_diff_row row;
    size_t old_end; /* of the old bytes that a search may use */
};

static inline size_t qr_min(size_t a, size_t b) { return a < b ? a : b; }

/* How many zeros begin at new_at, looking no further than `end`. */
size_t qr_diff_zeros_at(const struct qr_diff *d, size_t new_at, size_t end);
int qr_diff_add_range(struct qr_diff_ranges *ranges, struct qr_diff_range range);

/* diff_search.c: fill d->matches. Nearby looks only inside the range, with an index of its own that
 * grows with the distance to the next match; everywhere looks wherever d->index knows. */
int qr_diff_search_nearby(struct qr_diff *d, const struct qr_diff_range *range);
int qr_diff_search_everywhere(struct qr_diff *d, const struct qr_diff_range *range);

/* diff_choose.c: marks the matches that are kept. */
int qr_diff_choose(struct qr_diff *d, const struct qr_diff_range *range);

/* diff_express.c: what lies between the kept matches, as ranges; and everything as edits. */
int qr_diff_gaps(const struct qr_diff *d, const struct qr_diff_range *range,
                 struct qr_diff_ranges *gaps);
int qr_diff_express(struct qr_diff *d, const struct qr_diff_range *range, struct qr_edits *out);

#endif
