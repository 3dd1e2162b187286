/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels for AVX2 (with BMI1, BMI2, POPCNT and LZCNT, which every CPU with AVX2 has): the
 * block operations, from which diff.h and apply.h make the kernels, and a copy past the cache.
 *
 * Expanding and compressing by mask go through a table that gives for each byte of the mask the
 * shuffle of eight bytes. (PDEP and PEXT would do without the table, but measure half as fast on
 * Zen 3, and take a hundred cycles and more on the AMD CPUs before it.)
 */
#include <immintrin.h>
#include <pthread.h>

#include "backend/cpu/block.h"
#include "backend/cpu/versions.h"

static inline __m256i load(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }

static void copy_streaming(uint8_t *to, const uint8_t *from, size_t n)
{
    size_t head = -(uintptr_t)to % BLOCK; /* streaming stores are aligned */
    memcpy(to, from, head);
    size_t at = head;
    for (; n - at >= BLOCK; at += BLOCK) {
        __m256i low = load(from + at), high = load(from + at + 32);
        _mm256_stream_si256((__m256i *)(to + at), low);
        _mm256_stream_si256((__m256i *)(to + at + 32), high);
    }
    _mm_sfence(); /* streaming stores are weakly ordered: nobody may see what follows before them */
    memcpy(to + at, from + at, n - at);
}

static void copy(void *to, const void *from, size_t n)
{
    if (n >= QB_STREAM_FROM)
        copy_streaming(to, from, n);
    else if (n > 0)
        memcpy(to, from, n);
}

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

static inline bool cell_zero(const uint8_t *p)
{
    __m256i any = load(p);
    for (size_t i = 32; i < QB_CELL; i += 32)
        any = _mm256_or_si256(any, load(p + i));
    return _mm256_testz_si256(any, any);
}

/* expand_table[m][i]: which payload byte goes to byte i under the mask m; 0x80: none.
 * compress_table[m][k]: which byte is the k-th under the mask m. */
static uint8_t expand_table[256][8], compress_table[256][8];
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

static void fill_tables(void)
{
    for (unsigned mask = 0; mask < 256; mask++) {
        uint8_t rank = 0;
        for (uint8_t i = 0; i < 8; i++) {
            expand_table[mask][i] = 0x80;
            if (mask >> i & 1) {
                expand_table[mask][i] = rank;
                compress_table[mask][rank] = i;
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

static inline __m256i join(__m128i low, __m128i high)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
}

/* The shuffle of two groups by two bytes of the mask: the second counts its bytes from 8 on. */
static inline __m128i pair_shuffle(uint8_t (*table)[8], uint64_t mask)
{
    __m128i pair = load_pair(table[mask & 0xff], table[mask >> 8 & 0xff]);
    return _mm_or_si128(pair, _mm_set_epi64x(0x0808080808080808, 0));
}

#define EXPAND_READS BLOCK
/* 32 bytes of the page in one step: four groups of eight, each with its own piece of payload. */
static inline void block_expand(uint8_t *page, uint64_t mask, const uint8_t *payload)
{
    for (size_t i = 0; i < BLOCK; i += 32, mask >>= 32) {
        const uint8_t *second = payload + bit_count(mask & 0xff);
        const uint8_t *third = payload + bit_count(mask & 0xffff);
        const uint8_t *fourth = payload + bit_count(mask & 0xffffff);
        __m256i shuffle =
            join(pair_shuffle(expand_table, mask), pair_shuffle(expand_table, mask >> 16));
        __m256i bytes = join(load_pair(payload, second), load_pair(third, fourth));
        __m256i old = load(page + i);
        __m256i new = _mm256_blendv_epi8(_mm256_shuffle_epi8(bytes, shuffle), old, shuffle);
        _mm256_storeu_si256((__m256i *)(page + i), new);
        payload += bit_count(mask & 0xffffffff);
    }
}

static inline void block_compress(uint8_t *payload, const uint8_t *page, uint64_t mask)
{
    for (size_t i = 0; i < BLOCK; i += 16, mask >>= 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(page + i));
        __m128i packed = _mm_shuffle_epi8(bytes, pair_shuffle(compress_table, mask));
        _mm_storel_epi64((__m128i *)payload, packed);
        _mm_storeh_pi((__m64 *)(payload + bit_count(mask & 0xff)), _mm_castsi128_ps(packed));
        payload += bit_count(mask & 0xffff);
    }
}

/* The bits of each half byte from a table, summed in four words. */
static inline size_t count_blocks(const uint8_t *mask, size_t n)
{
    const __m256i bits =
        _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, /* twice */
                         0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i half = _mm256_set1_epi8(15);
    __m256i sums = _mm256_setzero_si256();
    for (const uint8_t *end = mask + n * BLOCK; mask != end; mask += 32) {
        __m256i low = _mm256_and_si256(load(mask), half);
        __m256i high = _mm256_and_si256(_mm256_srli_epi16(load(mask), 4), half);
        __m256i counts =
            _mm256_add_epi8(_mm256_shuffle_epi8(bits, low), _mm256_shuffle_epi8(bits, high));
        sums = _mm256_add_epi64(sums, _mm256_sad_epu8(counts, _mm256_setzero_si256()));
    }
    uint64_t words[4];
    _mm256_storeu_si256((__m256i *)words, sums);
    return words[0] + words[1] + words[2] + words[3];
}

#include "backend/cpu/apply.h"
#include "backend/cpu/diff.h"
#include "backend/cpu/hash.h"

void qb_init_avx2(struct qb_kernels *table)
{
    pthread_once(&tables_once, fill_tables);
    table->copy = copy;
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
    table->name = "avx2";
}
