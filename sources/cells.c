/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The content sum of a page (the digest terms of its cells), kept while its bytes stream by or
 * while edits change it.
 *
 * After edits only the cells between an edit and the place where old and new stand at the same
 * offsets again can differ: overwrites touch their own cells, an insertion all cells behind it,
 * up to a removal that makes up for it.
 */
#include "sources/cells.h"

#include <string.h>

#include "runtime/page.h"

void qs_cells_init(struct qs_cells *cells, uint64_t page_id)
{
    *cells = (struct qs_cells){.seed = qr_page_seed(page_id)};
}

/* Whole cells, or the last one. */
static void sum_cells(struct qs_cells *cells, const void *bytes, size_t length)
{
    cells->sum = qb_u128_add(cells->sum, qb_kernels()->hash_cells(bytes, length, cells->seed,
                                                                  cells->cell));
    cells->cell += (length + QB_CELL - 1) / QB_CELL;
}

void qs_cells_add(struct qs_cells *cells, const void *bytes, size_t length)
{
    const uint8_t *p = bytes;
    if (length == 0)
        return;
    if (cells->held) {
        size_t n = QB_CELL - cells->held < length ? QB_CELL - cells->held : length;
        memcpy(cells->part + cells->held, p, n);
        cells->held += n;
        p += n;
        length -= n;
        if (cells->held < QB_CELL)
            return;
        sum_cells(cells, cells->part, QB_CELL);
        cells->held = 0;
    }
    size_t whole = length / QB_CELL * QB_CELL;
    if (whole)
        sum_cells(cells, p, whole);
    cells->held = length - whole;
    memcpy(cells->part, p + whole, cells->held);
}

void qs_cells_add_zeros(struct qs_cells *cells, uint64_t length)
{
    static const uint8_t zeros[64 * 1024];
    while (length) {
        size_t n = length < sizeof zeros ? (size_t)length : sizeof zeros;
        qs_cells_add(cells, zeros, n);
        length -= n;
    }
}

struct qb_u128 qs_cells_end(struct qs_cells *cells)
{
    if (cells->held)
        sum_cells(cells, cells->part, cells->held);
    cells->held = 0;
    return cells->sum;
}

struct qb_u128 qs_cells_of(uint64_t page_id, const void *bytes, size_t length)
{
    return qb_kernels()->hash_cells(bytes, length, qr_page_seed(page_id), 0);
}

/* The terms of the cells that [first, end) touches. `first` is the start of a cell. */
static struct qb_u128 range_sum(uint64_t seed, const uint8_t *bytes, size_t length, uint64_t first,
                                uint64_t end)
{
    end = (end + QB_CELL - 1) / QB_CELL * QB_CELL;
    if (end > length)
        end = length;
    if (end <= first)
        return (struct qb_u128){0, 0};
    return qb_kernels()->hash_cells(bytes + first, (size_t)(end - first), seed, first / QB_CELL);
}

struct qb_u128 qs_cells_after(struct qb_u128 sum, uint64_t page_id, const struct qr_edits *edits,
                              const uint8_t *old, size_t old_length, const uint8_t *new_,
                              size_t new_length)
{
    uint64_t seed = qr_page_seed(page_id);
    for (size_t i = 0; i < edits->count;) {
        /* A region: from where old and new stand alike to where they do so again for good. */
        uint64_t first = edits->items[i].offset / QB_CELL * QB_CELL;
        uint64_t end = first;
        int64_t shift = 0;
        while (i < edits->count) {
            const struct qr_edit *edit = &edits->items[i];
            uint64_t reached = (end + QB_CELL - 1) / QB_CELL * QB_CELL;
            if (shift == 0 && end > first && edit->offset >= reached)
                break;
            end = edit->offset + edit->old_length;
            shift += (int64_t)(edit->new_length - edit->old_length);
            i++;
        }
        uint64_t old_end = shift ? old_length : end;
        uint64_t new_end = shift ? new_length : end;
        sum = qb_u128_sub(sum, range_sum(seed, old, old_length, first, old_end));
        sum = qb_u128_add(sum, range_sum(seed, new_, new_length, first, new_end));
    }
    return sum;
}
