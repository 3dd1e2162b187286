/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The AVX-512 intrinsics that backend/cpu/avx512.c uses, from SIMDe, and by hand where SIMDe lacks
 * them, written from the instructions' pseudocode. With these the file compiles for any CPU.
 */
#ifndef EMULATED_AVX512_H
#define EMULATED_AVX512_H

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

#include <stdint.h>
#include <string.h>

#ifdef __AVX512F__
#error "to be built without AVX-512: else it would be the real thing"
#endif

static inline uint64_t emulated_cmpneq_epi8_mask(simde__m512i a, simde__m512i b)
{
    return ~simde_mm512_cmpeq_epi8_mask(a, b);
}

/* VPEXPANDB with merge masking, from memory. */
static inline simde__m512i emulated_mask_expandloadu_epi8(simde__m512i src, uint64_t mask,
                                                          const uint8_t *from)
{
    uint8_t to[64];
    memcpy(to, &src, 64);
    for (unsigned i = 0; i < 64; i++) {
        if (mask >> i & 1)
            to[i] = *from++;
    }
    memcpy(&src, to, 64);
    return src;
}

/* VPCOMPRESSB with zero masking. */
static inline simde__m512i emulated_maskz_compress_epi8(uint64_t mask, simde__m512i a)
{
    uint8_t from[64], to[64] = {0};
    memcpy(from, &a, 64);
    for (unsigned i = 0, k = 0; i < 64; i++) {
        if (mask >> i & 1)
            to[k++] = from[i];
    }
    memcpy(&a, to, 64);
    return a;
}

/* VPSHUFD: within each 128 bits, four words chosen by two bits each. */
static inline simde__m512i emulated_shuffle_epi32(simde__m512i a, unsigned choice)
{
    uint32_t from[16], to[16];
    memcpy(from, &a, 64);
    for (unsigned i = 0; i < 16; i++)
        to[i] = from[i / 4 * 4 + (choice >> 2 * (i % 4) & 3)];
    memcpy(&a, to, 64);
    return a;
}

/* VPCMPUQ, less than, with a mask. */
static inline uint8_t emulated_mask_cmplt_epu64_mask(uint8_t mask, simde__m512i a, simde__m512i b)
{
    uint64_t x[8], y[8];
    uint8_t less = 0;
    memcpy(x, &a, 64);
    memcpy(y, &b, 64);
    for (unsigned i = 0; i < 8; i++)
        less |= (uint8_t)((x[i] < y[i]) << i);
    return less & mask;
}

#undef _mm512_cmpneq_epi8_mask
#undef _mm512_mask_expandloadu_epi8
#undef _mm512_maskz_compress_epi8
#undef _mm512_shuffle_epi32
#undef _mm512_mask_cmplt_epu64_mask
#define _mm512_cmpneq_epi8_mask(a, b)              emulated_cmpneq_epi8_mask(a, b)
#define _mm512_mask_expandloadu_epi8(src, mask, p) emulated_mask_expandloadu_epi8(src, mask, p)
#define _mm512_maskz_compress_epi8(mask, a)        emulated_maskz_compress_epi8(mask, a)
#define _mm512_shuffle_epi32(a, choice)            emulated_shuffle_epi32(a, choice)
#define _mm512_mask_cmplt_epu64_mask(mask, a, b)   emulated_mask_cmplt_epu64_mask(mask, a, b)

#endif
