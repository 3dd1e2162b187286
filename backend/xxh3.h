/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The constants of XXH3-128, for those who compute the terms of cells by themselves: devices
 * (cuda/cell.h) and AVX-512 (cpu/hash_fours.h). The algorithm and its constants:
 * github.com/Cyan4973/xxHash, doc/xxhash_spec.md.
 */
#ifndef QB_XXH3_H
#define QB_XXH3_H

#include "backend/u128.h"

#define QB_PRIME32_2 UINT32_C(0x85EBCA77)
#define QB_PRIME64_1 UINT64_C(0x9E3779B185EBCA87)
#define QB_PRIME64_2 UINT64_C(0xC2B2AE3D27D4EB4F)
#define QB_PRIME64_3 UINT64_C(0x165667B19E3779F9)
#define QB_PRIME64_4 UINT64_C(0x85EBCA77C2B2AE63)
#define QB_PRIME_MX1 UINT64_C(0x165667919E3779F9)
#define QB_PRIME_MX2 UINT64_C(0x9FB21C651E98DF25)
#define QB_CELL_SEED UINT64_C(0x9E3779B97F4A7C15) /* from one cell's seed to the next */

/* The first 128 bytes of XXH3's secret as little-endian words. */
QB_ITEM uint64_t qb_secret(unsigned i)
{
    const uint64_t words[16] = {
        UINT64_C(0xbe4ba423396cfeb8), UINT64_C(0x1cad21f72c81017c), UINT64_C(0xdb979083e96dd4de),
        UINT64_C(0x1f67b3b7a4a44072), UINT64_C(0x78e5c0cc4ee679cb), UINT64_C(0x2172ffcc7dd05a82),
        UINT64_C(0x8e2443f7744608b8), UINT64_C(0x4c263a81e69035e0), UINT64_C(0xcb00c391bb52283c),
        UINT64_C(0xa32e531b8b65d088), UINT64_C(0x4ef90da297486471), UINT64_C(0xd8acdea946ef1938),
        UINT64_C(0x3f349ce33f76faa8), UINT64_C(0x1d4f0bc7c7bbdcf9), UINT64_C(0x3159b4cd4be0518a),
        UINT64_C(0x647378d9c97e9fc8),
    };
    return words[i];
}

#endif
