/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The digest terms of four cells at once, for AVX-512: XXH3-128 with a seed of 128 bytes.
 *
 * XXH3 takes a cell as eight chunks of 16 bytes, in pairs from outside in. Chunk i meets two words
 * of the secret, to which the seed is added and from which it is subtracted, and becomes the folded
 * product of its halves; two 64-bit words are added up from those, the low one from the front
 * chunks, the high one from the back ones. Here a vector holds the two words of four cells, so that
 * all that comes behind the products, the end of the hash and the sum of the terms, is done for
 * four at once too. One cell's eight products in a vector, with the rest left to scalar code, is no
 * faster than scalar code alone (docs/performance/tensors.md).
 */
#ifndef QB_CPU_HASH_FOURS_H
#define QB_CPU_HASH_FOURS_H

#include "backend/xxh3.h"

#define CELLS_AT_ONCE 4

/* What is longer than FAR stands in no near cache. Its lines are fetched AHEAD, over the ends of
 * memory pages, where the processor's own prefetching stops. */
enum { FAR = 1 << 20, AHEAD = 6 << 10 };

/* What depends on the seeds of four cells: what pair i of chunks meets, and a part of the end. */
struct four_keys {
    __m512i low[4], high[4], end;
};

/* Two words for each cell. */
static inline __m512i for_each(uint64_t low, uint64_t high)
{
    return _mm512_broadcast_i32x4(_mm_set_epi64x((long long)high, (long long)low));
}

static inline __m512i both(uint64_t word) { return for_each(word, word); }

static inline __m512i swap_words(__m512i x) { return _mm512_shuffle_epi32(x, 0x4E); }

/* The seeds of four cells, each twice. */
static inline void make_keys(struct four_keys *keys, __m512i seeds)
{
    for (unsigned i = 0; i < 4; i++) {
        __m512i low = for_each(qb_secret(4 * i), qb_secret(4 * i + 2));
        __m512i high = for_each(qb_secret(4 * i + 1), qb_secret(4 * i + 3));
        keys->low[i] = _mm512_add_epi64(low, seeds);
        keys->high[i] = _mm512_sub_epi64(high, seeds);
    }
    keys->end = _mm512_mullo_epi64(_mm512_sub_epi64(both(QB_CELL), seeds), both(QB_PRIME64_2));
}

/* Both halves of the products of 64-bit words, one upon the other: from four products of their
 * 32-bit halves. */
static inline __m512i multiply_and_fold(__m512i a, __m512i b)
{
    const __m512i low_half = both(UINT32_MAX);
    __m512i a_high = _mm512_srli_epi64(a, 32), b_high = _mm512_srli_epi64(b, 32);
    __m512i low = _mm512_mul_epu32(a, b), high = _mm512_mul_epu32(a_high, b_high);
    __m512i middle = _mm512_add_epi64(_mm512_mul_epu32(a_high, b), _mm512_srli_epi64(low, 32));
    __m512i carry = _mm512_and_si512(middle, low_half);
    __m512i other = _mm512_add_epi64(_mm512_mul_epu32(a, b_high), carry);
    high = _mm512_add_epi64(high, _mm512_srli_epi64(middle, 32));
    high = _mm512_add_epi64(high, _mm512_srli_epi64(other, 32));
    high = _mm512_xor_si512(high, _mm512_slli_epi64(other, 32));
    return _mm512_ternarylogic_epi64(high, low, low_half, 0x78); /* high ^ (low & low_half) */
}

/* Chunks 4 * half to 4 * half + 3 of four cells: chunks[i] has one of each cell. */
static inline void load_chunks(const uint8_t *const cells[4], size_t half, __m512i chunks[4])
{
    __m512i a = load(cells[0] + 64 * half), b = load(cells[1] + 64 * half);
    __m512i c = load(cells[2] + 64 * half), d = load(cells[3] + 64 * half);
    __m512i ab = _mm512_shuffle_i32x4(a, b, 0x44), cd = _mm512_shuffle_i32x4(c, d, 0x44);
    chunks[0] = _mm512_shuffle_i32x4(ab, cd, 0x88);
    chunks[1] = _mm512_shuffle_i32x4(ab, cd, 0xDD);
    ab = _mm512_shuffle_i32x4(a, b, 0xEE);
    cd = _mm512_shuffle_i32x4(c, d, 0xEE);
    chunks[2] = _mm512_shuffle_i32x4(ab, cd, 0x88);
    chunks[3] = _mm512_shuffle_i32x4(ab, cd, 0xDD);
}

/* The end of the hash, from the words that the chunks have come to. */
static inline __m512i end_of_hash(__m512i words, __m512i keys_end)
{
    __m512i low = _mm512_add_epi64(words, swap_words(words));
    __m512i high = _mm512_mullo_epi64(words, for_each(QB_PRIME64_1, QB_PRIME64_4));
    high = _mm512_add_epi64(_mm512_add_epi64(high, swap_words(high)), keys_end);
    __m512i term = _mm512_mask_mov_epi64(low, 0xAA, high);
    term = _mm512_xor_si512(term, _mm512_srli_epi64(term, 37));
    term = _mm512_mullo_epi64(term, both(QB_PRIME_MX1));
    term = _mm512_xor_si512(term, _mm512_srli_epi64(term, 32));
    return _mm512_mask_sub_epi64(term, 0xAA, _mm512_setzero_si512(), term);
}

/* The terms of four cells; of zeros there is none. */
static inline __m512i four_terms(const uint8_t *const cells[4], const struct four_keys *keys)
{
    __m512i words = for_each(QB_CELL * QB_PRIME64_1, 0), any = _mm512_setzero_si512();
    __m512i front[4], back[4];
    load_chunks(cells, 0, front);
    load_chunks(cells, 1, back);
    for (unsigned i = 4; i-- > 0;) {
        __m512i low = _mm512_unpacklo_epi64(front[i], back[3 - i]);
        __m512i high = _mm512_unpackhi_epi64(front[i], back[3 - i]);
        any = _mm512_or_si512(any, _mm512_or_si512(low, high));
        __m512i product = multiply_and_fold(_mm512_xor_si512(low, keys->low[i]),
                                            _mm512_xor_si512(high, keys->high[i]));
        words = _mm512_add_epi64(words, product);
        words = _mm512_xor_si512(words, swap_words(_mm512_add_epi64(low, high)));
    }
    any = _mm512_or_si512(any, swap_words(any));
    return _mm512_maskz_mov_epi64(_mm512_test_epi64_mask(any, any), end_of_hash(words, keys->end));
}

/* Four sums of terms, modulo 2^128. */
static inline __m512i add_terms(__m512i sums, __m512i terms)
{
    __m512i next = _mm512_add_epi64(sums, terms);
    uint8_t carries = _mm512_mask_cmplt_epu64_mask(0x55, next, terms);
    return _mm512_mask_add_epi64(next, (uint8_t)(carries << 1), next, both(1));
}

static struct qb_u128 total_of(__m512i sums)
{
    struct qb_u128 four[4];
    _mm512_storeu_si512(four, sums);
    return qb_u128_add(qb_u128_add(four[0], four[1]), qb_u128_add(four[2], four[3]));
}

/* The seeds of four cells, from their numbers. */
static inline __m512i seeds_of(uint64_t seed, const uint32_t n[4])
{
    uint64_t a = seed + n[0] * QB_CELL_SEED, b = seed + n[1] * QB_CELL_SEED;
    uint64_t c = seed + n[2] * QB_CELL_SEED, d = seed + n[3] * QB_CELL_SEED;
    return _mm512_set_epi64((long long)d, (long long)d, (long long)c, (long long)c, (long long)b,
                            (long long)b, (long long)a, (long long)a);
}

/* `count` cells, a multiple of four, one behind the other. */
__attribute__((always_inline)) static inline struct qb_u128
add_fours(const uint8_t *p, size_t count, uint64_t seed, bool is_far)
{
    const uint32_t numbers[4] = {0, 1, 2, 3};
    __m512i sums = _mm512_setzero_si512(), seeds = seeds_of(seed, numbers);
    for (; count > 0; count -= 4, p += 4 * QB_CELL) {
        const uint8_t *const cells[4] = {p, p + QB_CELL, p + 2 * QB_CELL, p + 3 * QB_CELL};
        struct four_keys keys;
        for (size_t i = 0; is_far && i < 4 * QB_CELL; i += BLOCK)
            __builtin_prefetch((const void *)((uintptr_t)p + AHEAD + i)); /* also behind the end */
        make_keys(&keys, seeds);
        sums = add_terms(sums, four_terms(cells, &keys));
        seeds = _mm512_add_epi64(seeds, both(4 * QB_CELL_SEED));
    }
    return total_of(sums);
}

__attribute__((noinline)) static struct qb_u128 sum_of_fours(const uint8_t *p, size_t count,
                                                             uint64_t seed)
{
    return count > FAR / QB_CELL ? add_fours(p, count, seed, true)
                                 : add_fours(p, count, seed, false);
}

/* The terms of listed cells of b less those of a; as many as a multiple of four. */
__attribute__((noinline)) static struct qb_u128 sum_of_changed_fours(const uint8_t *a,
                                                                     const uint8_t *b,
                                                                     const uint32_t *cells,
                                                                     size_t count, uint64_t seed)
{
    __m512i more = _mm512_setzero_si512(), less = more;
    for (; count > 0; count -= 4, cells += 4) {
        struct four_keys keys;
        const uint8_t *old[4], *new[4];
        for (unsigned i = 0; i < 4; i++) {
            old[i] = a + (size_t)cells[i] * QB_CELL;
            new[i] = b + (size_t)cells[i] * QB_CELL;
        }
        make_keys(&keys, seeds_of(seed, cells));
        more = add_terms(more, four_terms(new, &keys));
        less = add_terms(less, four_terms(old, &keys));
    }
    return qb_u128_sub(total_of(more), total_of(less));
}

#endif
