/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the vector versions share: pages are worked on in blocks of 64 bytes, because one bit per
 * byte of a block is then one 64-bit word, whatever the width of the machine's vectors. Bit i of
 * such a word is byte i of the block, and bytes 8k..8k+7 are byte k of the word (little-endian
 * machines).
 */
#ifndef QB_CPU_BLOCK_H
#define QB_CPU_BLOCK_H

#include "backend/kernels.h"

#include <stdbool.h>
#include <string.h>

#define BLOCK ((size_t)64)
#define GROUP ((size_t)256) /* bytes compared per branch while nothing differs */

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "masks are read as little-endian words");

/* Both for a word that is not 0. */
static inline unsigned lowest_bit(uint64_t word) { return (unsigned)__builtin_ctzll(word); }
static inline unsigned highest_bit(uint64_t word) { return 63u - (unsigned)__builtin_clzll(word); }

static inline unsigned bit_count(uint64_t word) { return (unsigned)__builtin_popcountll(word); }

/* The lowest n <= 64 bits set. */
static inline uint64_t low_bits(size_t n) { return n < 64 ? (UINT64_C(1) << n) - 1 : UINT64_MAX; }

#endif
