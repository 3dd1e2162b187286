/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash64, hash128, hash_cells and hash_changed, compiled once per instruction set: the inlined
 * xxhash picks its vectors from the compiler's flags, and with the length known at compile time one
 * cell becomes straight-line code whose iterations overlap. (The shared libxxhash of a distribution
 * is built for the baseline CPU.) The including file provides
 *
 *     bool cell_zero(p)    are all QB_CELL bytes zero?
 *
 * by its vectors: in the words that are hashed, all of them would have to be at hand at once. Where
 * it has defined CELLS_AT_ONCE, that many cells are hashed together (hash_fours.h).
 */
#ifndef QB_CPU_HASH_H
#define QB_CPU_HASH_H

#include "backend/kernels.h"
#include "backend/xxh3.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

/* The term of one cell, as a call: for the last one, which may be short. */
static struct qb_u128 cell_term(const uint8_t *p, size_t n, uint64_t seed)
{
    size_t zeros = 0;
    while (zeros < n && !p[zeros])
        zeros++;
    if (zeros == n)
        return (struct qb_u128){0, 0};
    XXH128_hash_t hash = XXH3_128bits_withSeed(p, n, seed);
    return (struct qb_u128){hash.low64, hash.high64};
}

/* Whole cells: zeros have no term, so that holes cost nothing, whatever their size. Flattened:
 * xxhash's function is inlined here, and with the constant length most of it falls away. */
__attribute__((flatten)) static struct qb_u128 whole_cells(const uint8_t *p, size_t cells,
                                                           uint64_t seed)
{
    struct qb_u128 sum = {0, 0};
#ifdef CELLS_AT_ONCE
    const size_t together = cells / CELLS_AT_ONCE * CELLS_AT_ONCE;
    if (together > 0)
        sum = sum_of_fours(p, together, seed);
    cells -= together;
    p += together * QB_CELL;
    seed += together * QB_CELL_SEED;
#endif
    for (; cells > 0; cells--, p += QB_CELL, seed += QB_CELL_SEED) {
        if (cell_zero(p))
            continue;
        XXH128_hash_t hash = XXH3_128bits_withSeed(p, QB_CELL, seed);
        sum = qb_u128_add(sum, (struct qb_u128){hash.low64, hash.high64});
    }
    return sum;
}

static inline struct qb_u128 hash_cells(const void *p, size_t n, uint64_t page_seed,
                                        uint64_t first_cell)
{
    const uint8_t *bytes = p;
    const size_t cells = n / QB_CELL, rest = n % QB_CELL;
    uint64_t seed = page_seed + first_cell * QB_CELL_SEED;
    struct qb_u128 sum = whole_cells(bytes, cells, seed);
    if (rest > 0)
        sum =
            qb_u128_add(sum, cell_term(bytes + cells * QB_CELL, rest, seed + cells * QB_CELL_SEED));
    return sum;
}

/* Cell after cell, and not the runs that they make: how long these are cannot be foreseen, and to
 * have guessed wrongly costs more than a hash. */
__attribute__((flatten)) static struct qb_u128 changed_cells(const uint8_t *a, const uint8_t *b,
                                                             const uint32_t *cells, size_t count,
                                                             uint64_t first_seed)
{
    struct qb_u128 sum = {0, 0};
    size_t i = 0;
#ifdef CELLS_AT_ONCE
    i = count / CELLS_AT_ONCE * CELLS_AT_ONCE;
    if (i > 0)
        sum = sum_of_changed_fours(a, b, cells, i, first_seed);
#endif
    for (; i < count; i++) {
        const uint8_t *old = a + (size_t)cells[i] * QB_CELL, *new = b + (size_t)cells[i] * QB_CELL;
        uint64_t seed = first_seed + cells[i] * QB_CELL_SEED;
        if (!cell_zero(new)) {
            XXH128_hash_t hash = XXH3_128bits_withSeed(new, QB_CELL, seed);
            sum = qb_u128_add(sum, (struct qb_u128){hash.low64, hash.high64});
        }
        if (!cell_zero(old)) {
            XXH128_hash_t hash = XXH3_128bits_withSeed(old, QB_CELL, seed);
            sum = qb_u128_sub(sum, (struct qb_u128){hash.low64, hash.high64});
        }
    }
    return sum;
}

static struct qb_u128 hash_changed(const void *a, const void *b, size_t n, const uint32_t *cells,
                                   size_t count, uint64_t page_seed, uint64_t first_cell)
{
    const uint8_t *old = a, *new = b;
    const size_t whole = n / QB_CELL * QB_CELL;
    uint64_t seed = page_seed + first_cell * QB_CELL_SEED;
    int is_cut = count > 0 && cells[count - 1] * (size_t)QB_CELL == whole;
    struct qb_u128 sum = changed_cells(old, new, cells, count - (size_t)is_cut, seed);
    if (is_cut) {
        seed += cells[count - 1] * QB_CELL_SEED;
        sum = qb_u128_add(sum, cell_term(new + whole, n - whole, seed));
        sum = qb_u128_sub(sum, cell_term(old + whole, n - whole, seed));
    }
    return sum;
}

static inline uint64_t hash64(const void *p, size_t n, uint64_t seed)
{
    return XXH3_64bits_withSeed(p, n, seed);
}

static inline struct qb_u128 hash128(const void *p, size_t n)
{
    XXH128_hash_t hash = XXH3_128bits(p, n);
    return (struct qb_u128){hash.low64, hash.high64};
}

_Static_assert(sizeof(struct qb_hash128) >= sizeof(XXH3_state_t), "the state fits");
_Static_assert(_Alignof(struct qb_hash128) >= _Alignof(XXH3_state_t), "and stands right");

static inline void hash128_begin(struct qb_hash128 *hash)
{
    (void)XXH3_128bits_reset((XXH3_state_t *)hash);
}

static inline void hash128_update(struct qb_hash128 *hash, const void *p, size_t n)
{
    if (n > 0)
        (void)XXH3_128bits_update((XXH3_state_t *)hash, p, n);
}

static inline struct qb_u128 hash128_end(const struct qb_hash128 *hash)
{
    XXH128_hash_t result = XXH3_128bits_digest((const XXH3_state_t *)hash);
    return (struct qb_u128){result.low64, result.high64};
}

#endif
