/* SPDX-License-Identifier: Apache-2.0 */
/* Summing the cells of content that comes in stretches of any length. */
#ifndef QR_DIGEST_H
#define QR_DIGEST_H

#include "runtime/page.h"

struct qr_cell_hasher {
    uint64_t page_seed, cell; /* number of the cell being filled */
    struct qb_u128 sum;
    size_t fill;
    uint8_t partial[QB_CELL];
};
/* `offset` (a multiple of QB_CELL) is where in the page the bytes begin. */
void qr_cells_init(struct qr_cell_hasher *hasher, uint64_t page_id, uint64_t offset);
void qr_cells_update(struct qr_cell_hasher *hasher, const void *bytes, size_t length);
void qr_cells_zeros(struct qr_cell_hasher *hasher, uint64_t length);
/* The sum, with the last cell as short as it came out. */
struct qb_u128 qr_cells_finish(struct qr_cell_hasher *hasher);

#endif
