/* SPDX-License-Identifier: Apache-2.0 */
/* The content sum of a page, kept while its bytes stream by or while edits change it. */
#ifndef QS_CELLS_H
#define QS_CELLS_H

#include "backend/kernels.h"
#include "runtime/delta.h"

/* Sums the cells of content that comes in order, in portions of any size. */
struct qs_cells {
    uint64_t seed, cell; /* number of the cell that comes next */
    size_t held;
    uint8_t part[QB_CELL];
    struct qb_u128 sum;
};
void qs_cells_init(struct qs_cells *cells, uint64_t page_id);
void qs_cells_add(struct qs_cells *cells, const void *bytes, size_t length);
void qs_cells_add_zeros(struct qs_cells *cells, uint64_t length);
struct qb_u128 qs_cells_end(struct qs_cells *cells);

/* The sum of `new_`, given the sum of `old` and the edits between them; only cells that changed,
 * or moved to another number, are looked at. */
struct qb_u128 qs_cells_after(struct qb_u128 sum, uint64_t page_id, const struct qr_edits *edits,
                              const uint8_t *old, size_t old_length, const uint8_t *new_,
                              size_t new_length);
/* The sum of bytes in memory. */
struct qb_u128 qs_cells_of(uint64_t page_id, const void *bytes, size_t length);

#endif
