/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels for AVX2 (with BMI1, BMI2, POPCNT and LZCNT, which every CPU with AVX2 has): the
 * block operations, from which diff.h and apply.h make the kernels.
 *
 * Expanding and compressing by mask go through a table that gives for each byte of the mask the
 * shuffle of eight bytes. (PDEP and PEXT would do without the table, but take a hundred cycles and
 * more on the AMD CPUs before Zen 3, and are no faster on it.)
 */
#include <immintrin.h>
#include <pthread.h>

#include "backend/cpu/block.h"
#include "backend/cpu/versions.h"

static inline __m256i load(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }

static inline uint64_t block_differs(const uint8_t *a, const uint8_t *b)
{
    __m256i low = _mm256_cmpeq_epi8(load(a), load(b));
    __m256i high = _mm256_cmpeq_epi8(load(a + 32), load(b + 32));
    uint64_t equal =
        (uint64_t)(uint32_t)_mm256_movemask_epi8(high) << 32 | (uint32_t)_mm256_movemask_epi8(low);
    return ~equal;
}

static inline bool group_equal(const uint8_t *a, const uint8_t *b)
{
    __m256i equal = _mm256_cmpeq_epi8(load(a), load(b));
    for (size_t i = 32; i < GROUP; i += 32)
        equal = _mm256_and_si256(equal, _mm256_cmpeq_epi8(load(a + i), load(b + i)));
    return _mm256_movemask_epi8(equal) == -1;
}

static inline bool group_zero(const uint8_t *p)
{
    __m256i any = load(p);
    for (size_t i = 32; i < GROUP; i += 32)
        any = _mm256_or_si256(any, load(p + i));
    return _mm256_testz_si256(any, any);
}

/* expand[m][i]: which payload byte goes to byte i under the mask m; 0x80: none.
 * compress[m][k]: which byte is the k-th under the mask m. */
static struct {
    uint8_t expand[256][8], compress[256][8];
} shuffles;
static pthread_once_t shuffles_once = PTHREAD_ONCE_INIT;

static void fill_shuffles(void)
{
    for (unsigned mask = 0; mask < 256; mask++) {
        uint8_t rank = 0;
        for (uint8_t i = 0; i < 8; i++) {
            shuffles.expand[mask][i] = 0x80;
            if (mask >> i & 1) {
                shuffles.expand[mask][i] = rank;
                shuffles.compress[mask][rank] = i;
                rank++;
            }
        }
    }
}

/* Two groups of eight bytes as one vector. */
static inline __m128i load_pair(const uint8_t *low, const uint8_t *high)
{
    __m128i pair = _mm_loadl_epi64((const __m128i *)low);
    return _mm_castps_si128(_mm_loadh_pi(_mm_castsi128_ps(pair), (const __m64 *)high));
}

/* Shuffle indices for two groups of eight: those of the upper group count from 8. */
static inline __m128i load_shuffle(const uint8_t *low, const uint8_t *high)
{
    return _mm_or_si128(load_pair(low, high), _mm_set_epi64x(0x0808080808080808, 0));
}

static inline void block_expand(uint8_t *page, uint64_t mask, const uint8_t *payload)
{
    for (size_t i = 0; i < BLOCK; i += 16, mask >>= 16) {
        unsigned low = mask & 0xff, high = mask >> 8 & 0xff;
        __m128i shuffle = load_shuffle(shuffles.expand[low], shuffles.expand[high]);
        __m128i bytes = load_pair(payload, payload + bit_count(low));
        __m128i old = _mm_loadu_si128((const __m128i *)(page + i));
        __m128i new = _mm_blendv_epi8(_mm_shuffle_epi8(bytes, shuffle), old, shuffle);
        _mm_storeu_si128((__m128i *)(page + i), new);
        payload += bit_count(mask & 0xffff);
    }
}

static inline void block_compress(uint8_t *payload, const uint8_t *page, uint64_t mask)
{
    for (size_t i = 0; i < BLOCK; i += 16, mask >>= 16) {
        unsigned low = mask & 0xff, high = mask >> 8 & 0xff;
        __m128i shuffle = load_shuffle(shuffles.compress[low], shuffles.compress[high]);
        __m128i bytes = _mm_loadu_si128((const __m128i *)(page + i));
        __m128i packed = _mm_shuffle_epi8(bytes, shuffle);
        _mm_storel_epi64((__m128i *)payload, packed);
        _mm_storeh_pi((__m64 *)(payload + bit_count(low)), _mm_castsi128_ps(packed));
        payload += bit_count(mask & 0xffff);
    }
}

#include "backend/cpu/apply.h"
#include "backend/cpu/diff.h"
#include "backend/cpu/hash.h"

void qb_init_avx2(struct qb_kernels *table)
{
    pthread_once(&shuffles_once, fill_shuffles);
    table->is_zero = is_zero;
    table->common_prefix = common_prefix;
    table->common_suffix = common_suffix;
    table->diff_runs = diff_runs;
    table->diff_mask = diff_mask;
    table->apply_mask = apply_mask;
    table->pack_mask = pack_mask;
    table->apply_runs = apply_runs;
    table->hash_cells = hash_cells;
    table->hash64 = hash64;
    table->name = "avx2";
}
