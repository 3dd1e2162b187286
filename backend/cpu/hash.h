/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash64 and hash_cells, compiled once per instruction set: the inlined xxhash picks its vectors
 * from the compiler's flags, and with the length known at compile time one cell becomes
 * straight-line code whose iterations overlap. (The shared libxxhash of a distribution is built for
 * the baseline CPU.)
 */
#ifndef QB_CPU_HASH_H
#define QB_CPU_HASH_H

#include "backend/kernels.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

/* Added to the seed from one cell to the next: 2^64 / golden ratio. */
#define CELL_SEED_STEP UINT64_C(0x9E3779B97F4A7C15)

static inline struct qb_u128 cell_term(const uint8_t *p, size_t n, uint64_t seed)
{
    XXH128_hash_t hash = XXH3_128bits_withSeed(p, n, seed);
    return (struct qb_u128){hash.low64, hash.high64};
}

static struct qb_u128 hash_cells(const void *p, size_t n, uint64_t page_seed, uint64_t first_cell)
{
    const uint8_t *bytes = p;
    uint64_t seed = page_seed + first_cell * CELL_SEED_STEP;
    struct qb_u128 sum = {0, 0};
    for (; n >= QB_CELL; n -= QB_CELL, bytes += QB_CELL, seed += CELL_SEED_STEP)
        sum = qb_u128_add(sum, cell_term(bytes, QB_CELL, seed));
    if (n > 0)
        sum = qb_u128_add(sum, cell_term(bytes, n, seed));
    return sum;
}

static uint64_t hash64(const void *p, size_t n, uint64_t seed)
{
    return XXH3_64bits_withSeed(p, n, seed);
}

#endif
