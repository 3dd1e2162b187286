/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels for AVX-512 (F, BW, VL, DQ, VBMI2): a block is one vector and a mask is a mask
 * register, so every block operation is one or two instructions. VPCOMPRESSB goes to a register
 * first: to memory it is microcoded on Zen 4.
 *
 * The tests compile this file a second time with emulated intrinsics (tests/kernels), so that its
 * logic is checked on machines without AVX-512 too.
 */
#ifdef QB_EMULATED_AVX512
#include "emulated_avx512.h"
#else
#include <immintrin.h>
#endif

#include "backend/cpu/block.h"
#include "backend/cpu/versions.h"

static inline __m512i load(const uint8_t *p) { return _mm512_loadu_si512(p); }

static inline uint64_t block_differs(const uint8_t *a, const uint8_t *b)
{
    return _mm512_cmpneq_epi8_mask(load(a), load(b));
}

static inline bool group_equal(const uint8_t *a, const uint8_t *b)
{
    __m512i differs = _mm512_xor_si512(load(a), load(b));
    for (size_t i = BLOCK; i < GROUP; i += BLOCK)
        differs = _mm512_or_si512(differs, _mm512_xor_si512(load(a + i), load(b + i)));
    return _mm512_test_epi64_mask(differs, differs) == 0;
}

static inline bool group_zero(const uint8_t *p)
{
    __m512i any = load(p);
    for (size_t i = BLOCK; i < GROUP; i += BLOCK)
        any = _mm512_or_si512(any, load(p + i));
    return _mm512_test_epi64_mask(any, any) == 0;
}

static inline bool cell_zero(const uint8_t *p)
{
    __m512i any = _mm512_or_si512(load(p), load(p + BLOCK));
    return _mm512_test_epi64_mask(any, any) == 0;
}

/* As an operand in memory, what is expanded is read only as far as the mask has bits. */
#define EXPAND_READS ((size_t)0)
static inline void block_expand(uint8_t *page, uint64_t mask, const uint8_t *payload)
{
    _mm512_storeu_si512(page, _mm512_mask_expandloadu_epi8(load(page), mask, payload));
}

static inline void block_compress(uint8_t *payload, const uint8_t *page, uint64_t mask)
{
    _mm512_storeu_si512(payload, _mm512_maskz_compress_epi8(mask, load(page)));
}

/* The bits of each half byte from a table, summed in eight words. */
static inline size_t count_blocks(const uint8_t *mask, size_t n)
{
    const __m512i bits =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const __m512i half = _mm512_set1_epi8(15);
    __m512i sums = _mm512_setzero_si512();
    for (; n > 0; n--, mask += BLOCK) {
        __m512i low = _mm512_and_si512(load(mask), half);
        __m512i high = _mm512_and_si512(_mm512_srli_epi16(load(mask), 4), half);
        __m512i counts =
            _mm512_add_epi8(_mm512_shuffle_epi8(bits, low), _mm512_shuffle_epi8(bits, high));
        sums = _mm512_add_epi64(sums, _mm512_sad_epu8(counts, _mm512_setzero_si512()));
    }
    uint64_t words[8];
    _mm512_storeu_si512(words, sums);
    return words[0] + words[1] + words[2] + words[3] + words[4] + words[5] + words[6] + words[7];
}

#include "backend/cpu/apply.h"
#include "backend/cpu/diff.h"
#include "backend/cpu/hash_fours.h"

#include "backend/cpu/hash.h" /* with these */

void qb_init_avx512(struct qb_kernels *table)
{
    table->is_zero = is_zero;
    table->common_prefix = common_prefix;
    table->common_suffix = common_suffix;
    table->diff_runs = diff_runs;
    table->diff_mask = diff_mask;
    table->diff_blocks = diff_blocks;
    table->count_mask = count_mask;
    table->apply_mask = apply_mask;
    table->pack_mask = pack_mask;
    table->apply_runs = apply_runs;
    table->hash_cells = hash_cells;
    table->hash_changed = hash_changed;
    table->hash64 = hash64;
    table->hash128 = hash128;
    table->hash128_begin = hash128_begin;
    table->hash128_update = hash128_update;
    table->hash128_end = hash128_end;
    table->name = "avx512";
}
