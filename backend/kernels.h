/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of kernels: everything that touches page bytes in bulk. Filled with the scalar
 * versions, then overwritten upwards by the instruction sets that the CPU has and the mask allows.
 * Call sites never test a CPU flag. Exact: every version of a kernel returns the same bytes and the
 * same values; tests/kernels compares them all.
 */
#ifndef QB_KERNELS_H
#define QB_KERNELS_H

#include "backend/u128.h"

#include <stddef.h>
#include <stdint.h>

/* CPU features that kernels are written for. */
enum qb_cpu_flags {
    QB_CPU_AVX2 = 1u << 0,   /* AVX2 + BMI1 + BMI2 + POPCNT + LZCNT, OS saves ymm */
    QB_CPU_AVX512 = 1u << 1, /* all that and F + BW + VL + DQ + VBMI2, OS saves zmm */
};

/* XXH3-128 of bytes that come in parts. To be used by the functions of one table only. */
struct qb_hash128 {
    _Alignas(64) unsigned char state[576];
};

/* Bytes whose differences are one word (diff_blocks). */
#define QB_BLOCK 64u

/* One run of differing bytes: [offset, offset + length). */
struct qb_run {
    size_t offset, length;
};

/* Where a length is 0 its pointers may be NULL. No kernel reads or writes a byte outside what it is
 * given. Thread-safety: all are pure functions of their arguments. */
struct qb_kernels {
    /* Copies n bytes; the buffers do not overlap. Streams past the cache for large n. */
    void (*copy)(void *to, const void *from, size_t n);
    /* Zeroes n bytes. */
    void (*zero)(void *to, size_t n);
    /* 1 if all n bytes are zero, else 0. n == 0 gives 1. */
    int (*is_zero)(const void *p, size_t n);
    /* The length of the common prefix of a and b: n if they are equal. */
    size_t (*common_prefix)(const void *a, const void *b, size_t n);
    /* The length of the common suffix of a[0..n) and b[0..n). */
    size_t (*common_suffix)(const void *a, const void *b, size_t n);
    /* Runs of bytes that differ between a and b, ascending; two runs separated by fewer than `gap`
     * (>= 1) equal bytes are reported as one. Writes at most `max` runs, stores in *scanned how
     * many bytes were settled (n when all runs fitted; otherwise the end of the last run written:
     * call again from there), and returns the number written. */
    size_t (*diff_runs)(const void *a, const void *b, size_t n, size_t gap, struct qb_run *runs,
                        size_t max, size_t *scanned);
    /* Bit i of mask (LSB first) = (a[i] != b[i]); ceil(n/8) bytes are written, unused bits of the
     * last one zero. Returns the number of set bits. */
    size_t (*diff_mask)(const void *a, const void *b, size_t n, uint8_t *mask);
    /* The blocks of QB_BLOCK bytes in which a and b differ, ascending: their numbers, and bit i of
     * the word beside = (a[i] != b[i]) of the block; of a last block that is shorter the other bits
     * are zero. There is room for all ceil(n/QB_BLOCK) of both. Returns how many. */
    size_t (*diff_blocks)(const void *a, const void *b, size_t n, uint32_t *blocks,
                          uint64_t *masks);
    /* The number of bits set in a mask of n bits. Bits at and beyond n must be zero. */
    size_t (*count_mask)(const uint8_t *mask, size_t n);
    /* page[i] = next byte of payload wherever bit i of mask is set. `count` is what count_mask
     * says, and exactly so many payload bytes are read. Bits at and beyond n must be zero. */
    void (*apply_mask)(void *page, size_t n, const uint8_t *mask, const uint8_t *payload,
                       size_t count);
    /* The reverse: packs the bytes of page under set mask bits into payload; returns how many. */
    size_t (*pack_mask)(uint8_t *payload, const void *page, size_t n, const uint8_t *mask);
    /* For each of `count` runs, copies run.length bytes from the running payload to
     * page + run.offset. Returns the payload bytes used. */
    size_t (*apply_runs)(void *page, const struct qb_run *runs, size_t count,
                         const uint8_t *payload);
    /* Sum over the cells of [p, p+n) of the digest term of each cell: XXH3-128 of the cell's bytes
     * with seed page_seed + cell * 0x9E3779B97F4A7C15, but 0 for a cell of zeros. The first cell
     * has number first_cell; only the last cell may be shorter than QB_CELL. n == 0 gives 0. */
    struct qb_u128 (*hash_cells)(const void *p, size_t n, uint64_t page_seed, uint64_t first_cell);
    /* The terms of some cells of b less those of a, which hash_cells would sum up; n bytes each.
     * `cells` are `count` numbers of cells in [p, p+n), ascending; first_cell is not in them. */
    struct qb_u128 (*hash_changed)(const void *a, const void *b, size_t n, const uint32_t *cells,
                                   size_t count, uint64_t page_seed, uint64_t first_cell);
    /* XXH3-64 with a seed. */
    uint64_t (*hash64)(const void *p, size_t n, uint64_t seed);
    /* XXH3-128 with seed 0, at once; and in parts: begin, update for each, end (which may be called
     * again after further parts). */
    struct qb_u128 (*hash128)(const void *p, size_t n);
    void (*hash128_begin)(struct qb_hash128 *hash);
    void (*hash128_update)(struct qb_hash128 *hash, const void *p, size_t n);
    struct qb_u128 (*hash128_end)(const struct qb_hash128 *hash);
    const char *name; /* "scalar", "avx2", "avx512": the highest set in the table */
};

/* What this CPU and its operating system offer; independent of the mask. */
uint32_t qb_cpu_detect(void);
/* Fills a table for the given flags, which must be a subset of what qb_cpu_detect() gives: already
 * the filling is done by code of that set. */
void qb_kernels_init(struct qb_kernels *table, uint32_t cpu_flags);
/* The process-wide table. Initialised on first use from qb_cpu_detect() & the mask. Thread-safe. */
const struct qb_kernels *qb_kernels(void);
/* The flags of the process-wide table: what the CPU has and the mask allows. Thread-safe. */
uint32_t qb_cpu_allowed(void);
/* Limits the process-wide table; to be called before the first qb_kernels(). Also set by the
 * environment variable QALLOW_CPU_MASK. Accepts "scalar", "avx2", "avx512", or a number.
 * Returns 0, or -1 if the text means nothing. */
int qb_cpu_mask_set(const char *text);

#endif
