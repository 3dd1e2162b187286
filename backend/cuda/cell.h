/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The digest term of a cell: XXH3-128 with a seed, for 1 to 128 bytes, written so that eight
 * threads can share a cell. For the 128 bytes of a whole cell XXH3 multiplies each of its eight
 * chunks with a part of the secret (qb_cell_mix: one thread a chunk, so that memory is read in
 * order) and then folds the eight results in a fixed order (qb_cell_fold: one thread a cell). The
 * last cell of a page may be shorter: one thread takes it whole (qb_cell_short).
 */
#ifndef QB_CUDA_CELL_H
#define QB_CUDA_CELL_H

#include "backend/cuda/item.h"
#include "backend/xxh3.h"

#define QB_CELL_CHUNKS (QB_CELL / QB_CHUNK)
/* Cells of a tile, and room that puts the chunks of a cell into different banks. */
#define QB_CELL_STRIDE (QB_TILE_CELLS + 4)

/* The secret that chunk j of a whole cell meets: chunks are taken in pairs from outside in. Chosen
 * rather than looked up: a thread's j is known only at run time, and tables in memory are slow. */
QB_ITEM uint64_t qb_cell_secret(unsigned j, unsigned half)
{
    const uint64_t a = j & 1 ? qb_secret(4 + half) : qb_secret(0 + half);
    const uint64_t b = j & 1 ? qb_secret(12 + half) : qb_secret(8 + half);
    const uint64_t c = j & 1 ? qb_secret(10 + half) : qb_secret(14 + half);
    const uint64_t d = j & 1 ? qb_secret(2 + half) : qb_secret(6 + half);
    const uint64_t front = j & 2 ? b : a, back = j & 2 ? d : c;
    return j & 4 ? back : front;
}

QB_ITEM uint64_t qb_mix(uint64_t lo, uint64_t hi, uint64_t seed, uint64_t secret,
                        uint64_t next_secret)
{
    const struct qb_u128 product = qb_multiply(lo ^ (secret + seed), hi ^ (next_secret - seed));
    return product.lo ^ product.hi;
}

QB_ITEM uint64_t qb_avalanche(uint64_t h)
{
    h = (h ^ h >> 37) * QB_PRIME_MX1;
    return h ^ h >> 32;
}

QB_ITEM uint64_t qb_avalanche64(uint64_t h)
{
    h = (h ^ h >> 33) * QB_PRIME64_2;
    h = (h ^ h >> 29) * QB_PRIME64_3;
    return h ^ h >> 32;
}

/* The end of the hash of 17 to 128 bytes. */
QB_ITEM struct qb_u128 qb_hash_end(uint64_t low, uint64_t high, uint64_t length, uint64_t seed)
{
    struct qb_u128 h;
    h.lo = qb_avalanche(low + high);
    h.hi =
        0 - qb_avalanche(low * QB_PRIME64_1 + high * QB_PRIME64_4 + (length - seed) * QB_PRIME64_2);
    return h;
}

QB_ITEM uint32_t qb_swap32(uint32_t x)
{
    return x << 24 | (x & 0xff00) << 8 | (x >> 8 & 0xff00) | x >> 24;
}

QB_ITEM uint64_t qb_swap64(uint64_t x)
{
    return (uint64_t)qb_swap32((uint32_t)x) << 32 | qb_swap32((uint32_t)(x >> 32));
}

QB_ITEM struct qb_u128 qb_hash_1to3(const uint8_t *p, unsigned n, uint64_t seed)
{
    const uint32_t low =
        (uint32_t)p[0] << 16 | (uint32_t)p[n >> 1] << 24 | p[n - 1] | (uint32_t)n << 8;
    const uint32_t swapped = qb_swap32(low), high = swapped << 13 | swapped >> 19;
    const uint64_t a = qb_secret(0), b = qb_secret(1);
    struct qb_u128 h;
    h.lo = qb_avalanche64(low ^ (((uint32_t)a ^ a >> 32) + seed));
    h.hi = qb_avalanche64(high ^ (((uint32_t)b ^ b >> 32) - seed));
    return h;
}

QB_ITEM uint64_t qb_load32(const uint8_t *p) { return qb_load_word(p, 4); }

QB_ITEM struct qb_u128 qb_hash_4to8(const uint8_t *p, unsigned n, uint64_t seed)
{
    seed ^= (uint64_t)qb_swap32((uint32_t)seed) << 32;
    const uint64_t both = qb_load32(p) + (qb_load32(p + n - 4) << 32);
    const uint64_t keyed = both ^ ((qb_secret(2) ^ qb_secret(3)) + seed);
    struct qb_u128 m = qb_multiply(keyed, QB_PRIME64_1 + ((uint64_t)n << 2));
    m.hi += m.lo << 1;
    m.lo ^= m.hi >> 3;
    m.lo = (m.lo ^ m.lo >> 35) * QB_PRIME_MX2;
    m.lo ^= m.lo >> 28;
    m.hi = qb_avalanche(m.hi);
    return m;
}

QB_ITEM struct qb_u128 qb_hash_9to16(const uint8_t *p, unsigned n, uint64_t seed)
{
    const uint64_t flip_low = (qb_secret(4) ^ qb_secret(5)) - seed;
    const uint64_t flip_high = (qb_secret(6) ^ qb_secret(7)) + seed;
    const uint64_t low = qb_load_word(p, 8);
    uint64_t high = qb_load_word(p + n - 8, 8);
    struct qb_u128 m = qb_multiply(low ^ high ^ flip_low, QB_PRIME64_1);
    m.lo += (uint64_t)(n - 1) << 54;
    high ^= flip_high;
    m.hi += high + (uint64_t)(uint32_t)high * (QB_PRIME32_2 - 1);
    m.lo ^= qb_swap64(m.hi);
    struct qb_u128 h = qb_multiply(m.lo, QB_PRIME64_2);
    h.hi += m.hi * QB_PRIME64_2;
    h.lo = qb_avalanche(h.lo);
    h.hi = qb_avalanche(h.hi);
    return h;
}

QB_ITEM struct qb_u128 qb_hash_17to128(const uint8_t *p, unsigned n, uint64_t seed)
{
    uint64_t low = n * QB_PRIME64_1, high = 0;
    for (unsigned i = 4; i-- > 0;) {
        if (n <= 32 * i)
            continue;
        const uint8_t *front = p + 16 * i, *back = p + n - 16 * (i + 1);
        const uint64_t f0 = qb_load_word(front, 8), f1 = qb_load_word(front + 8, 8);
        const uint64_t b0 = qb_load_word(back, 8), b1 = qb_load_word(back + 8, 8);
        low += qb_mix(f0, f1, seed, qb_secret(4 * i), qb_secret(4 * i + 1));
        high += qb_mix(b0, b1, seed, qb_secret(4 * i + 2), qb_secret(4 * i + 3));
        low ^= b0 + b1;
        high ^= f0 + f1;
    }
    return qb_hash_end(low, high, n, seed);
}

/* The term of a cell of 1 to 128 bytes, by one thread; zeros have none. */
QB_ITEM struct qb_u128 qb_cell_short(const uint8_t *p, unsigned n, uint64_t seed)
{
    struct qb_u128 none = {0, 0};
    uint8_t any = 0;
    for (unsigned i = 0; i < n; i++)
        any |= p[i];
    if (any == 0)
        return none;
    if (n <= 3)
        return qb_hash_1to3(p, n, seed);
    if (n <= 8)
        return qb_hash_4to8(p, n, seed);
    return n <= 16 ? qb_hash_9to16(p, n, seed) : qb_hash_17to128(p, n, seed);
}

/* What the chunks of a tile's cells have come to: chunk j of cell c at [j * QB_CELL_STRIDE + c].
 * The terms take the place of a cell's first two chunks, then the sums of rows of terms. */
struct qb_cells {
    uint64_t mixed[QB_CELL_CHUNKS * QB_CELL_STRIDE], added[QB_CELL_CHUNKS * QB_CELL_STRIDE];
    uint8_t any[QB_CELL_CHUNKS * QB_CELL_STRIDE];
};

QB_ITEM uint64_t qb_cell_seed(const struct qb_tile *tile, unsigned cell)
{
    return tile->page->seed +
           (tile->page->first_cell + tile->start / QB_CELL + cell) * QB_CELL_SEED;
}

/* Takes in a chunk of a tile; those of a cell that is not whole are of no use, but harmless. */
QB_ITEM void qb_cell_mix(const struct qb_tile *tile, struct qb_cells *cells, unsigned chunk,
                         struct qb_chunk value)
{
    const unsigned cell = chunk / QB_CELL_CHUNKS, j = chunk % QB_CELL_CHUNKS;
    const unsigned at = j * QB_CELL_STRIDE + cell;
    cells->mixed[at] = qb_mix(value.lo, value.hi, qb_cell_seed(tile, cell), qb_cell_secret(j, 0),
                              qb_cell_secret(j, 1));
    cells->added[at] = value.lo + value.hi;
    cells->any[at] = (value.lo | value.hi) != 0;
}

QB_ITEM struct qb_u128 qb_cell_fold(const struct qb_cells *cells, unsigned cell, uint64_t seed)
{
    const struct qb_u128 none = {0, 0};
    uint64_t low = QB_CELL * QB_PRIME64_1, high = 0;
    unsigned any = 0;
    for (unsigned front = QB_CELL_CHUNKS / 2; front-- > 0;) {
        const unsigned f = front * QB_CELL_STRIDE + cell;
        const unsigned b = (QB_CELL_CHUNKS - 1 - front) * QB_CELL_STRIDE + cell;
        low = (low + cells->mixed[f]) ^ cells->added[b];
        high = (high + cells->mixed[b]) ^ cells->added[f];
        any |= cells->any[f] | cells->any[b];
    }
    return any ? qb_hash_end(low, high, QB_CELL, seed) : none;
}

/* The term of a cell of the tile, whose bytes begin at `bytes`. */
QB_ITEM void qb_cell_term(const struct qb_tile *tile, struct qb_cells *cells, const uint8_t *bytes,
                          unsigned cell)
{
    struct qb_u128 term = {0, 0};
    const uint32_t at = cell * QB_CELL;
    const uint64_t seed = qb_cell_seed(tile, cell);
    if (at + QB_CELL <= tile->length)
        term = qb_cell_fold(cells, cell, seed);
    else if (at < tile->length)
        term = qb_cell_short(bytes + at, tile->length - at, seed);
    cells->mixed[cell] = term.lo;
    cells->added[cell] = term.hi;
}

/* The terms of eight cells become one, then those of all sixteen rows. */
QB_ITEM void qb_cell_rows(struct qb_cells *cells, unsigned row)
{
    struct qb_u128 sum = {0, 0};
    for (unsigned i = 0; i < QB_TILE_CELLS / 16; i++) {
        const struct qb_u128 term = {cells->mixed[row + 16 * i], cells->added[row + 16 * i]};
        sum = qb_u128_add(sum, term);
    }
    cells->mixed[row] = sum.lo;
    cells->added[row] = sum.hi;
}

QB_ITEM struct qb_u128 qb_cell_sum(const struct qb_cells *cells)
{
    struct qb_u128 sum = {0, 0};
    for (unsigned row = 0; row < 16; row++) {
        const struct qb_u128 term = {cells->mixed[row], cells->added[row]};
        sum = qb_u128_add(sum, term);
    }
    return sum;
}

#endif
