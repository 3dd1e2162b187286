/* SPDX-License-Identifier: Apache-2.0 */
/* The content sum of a page: of bytes in memory, of a stream, and kept while edits change it. */
#ifndef QR_DIGEST_H
#define QR_DIGEST_H

#include "runtime/delta.h"
#include "runtime/page.h"
#include "runtime/store.h"

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
/* The sum of the cells of [from, to) of content in the log; holes are not read. `from` is a
 * multiple of QB_CELL, `to` one too or the end. Adds what was read to *read_bytes. */
int qr_content_sum(struct qr_reader *reader, struct qr_content *content, uint64_t page_id,
                   uint64_t from, uint64_t to, uint8_t *buffer, size_t capacity,
                   struct qb_u128 *sum, uint64_t *read_bytes);
/* The sum of bytes in memory. */
struct qb_u128 qr_cells_of(uint64_t page_id, const void *bytes, size_t length);
/* The sum of `new_`, given the sum of `old` and the edits between them; only cells that changed,
 * or moved to another number, are looked at. */
struct qb_u128 qr_cells_after(struct qb_u128 sum, uint64_t page_id, const struct qr_edits *edits,
                              const uint8_t *old, size_t old_length, const uint8_t *new_,
                              size_t new_length);

#endif
