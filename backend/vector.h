/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of vector kernels: arithmetic over arrays of numbers, which the machine's vector
 * instructions run block by block (vm/vector.c). One source, backend/cpu/vector.h, is compiled once
 * for each instruction set; no version may give other bits than another one:
 *
 *   integers    wrap. x / 0 is all ones (-1 if signed), x rem 0 is x, MIN / -1 is MIN, MIN rem -1
 * is 0. A shift takes its distance modulo the width; >> of a signed number copies the sign floats
 * IEEE 754, to nearest even, with subnormals and without FMA. A result that is NaN is the canonical
 * one: sign 0, quiet bit 1, all others 0. min and max are NaN if an operand is, and -0 is below +0.
 * Comparisons with NaN are false, but != is true float->int  towards zero, saturated; NaN gives 0
 *   reduction   see QB_REDUCE_LANES
 *   moves       (select, gather) keep every bit
 */
#ifndef QB_VECTOR_H
#define QB_VECTOR_H

#include <stddef.h>
#include <stdint.h>

/* Types of elements. The values are part of the machine's code format. */
enum qb_type {
    QB_U8,
    QB_I8,
    QB_U16,
    QB_I16,
    QB_U32,
    QB_I32,
    QB_U64,
    QB_I64,
    QB_F32,
    QB_F64,
    QB_TYPES
};
static inline unsigned qb_type_shift(unsigned type) /* log2 of the bytes of an element */
{
    return type == QB_F32 ? 2 : type == QB_F64 ? 3 : type >> 1;
}
static inline int qb_type_is_float(unsigned type) { return type >= QB_F32; }

/* Element by element. Compares give 1 or 0 as u8. */
enum qb_map {
    QB_ADD,
    QB_SUB,
    QB_MUL,
    QB_DIV,
    QB_REM, /* integers only, as all to SHR */
    QB_AND,
    QB_OR,
    QB_XOR,
    QB_NOT,
    QB_SHL,
    QB_SHR,
    QB_MIN,
    QB_MAX,
    QB_NEG,
    QB_ABS,
    QB_SQRT, /* floats only, as all to ROUND */
    QB_FLOOR,
    QB_CEIL,
    QB_TRUNC,
    QB_ROUND, /* to nearest, ties to even */
    QB_EQ,
    QB_NE,
    QB_LT,
    QB_LE,
    QB_SELECT, /* b where the u8 of a is not 0, else c */
    QB_MAPS
};
/* What elements are folded with. */
enum qb_fold {
    QB_FOLD_ADD,
    QB_FOLD_MIN,
    QB_FOLD_MAX,
    QB_FOLD_AND,
    QB_FOLD_OR,
    QB_FOLD_XOR,
    QB_FOLDS
};

/* A reduction of floats has one order of additions, whatever the instruction set and the number of
 * threads. Elements are taken in chunks of QB_REDUCE_CHUNK. In a chunk, element i is added to lane
 * i mod QB_REDUCE_LANES, in ascending order, all lanes beginning at +0; then lane j + 16 is added
 * to lane j for j < 16, lane j + 8 to lane j for j < 8, and so on; lane 0 is the chunk's sum.
 * The sums of the chunks are added in ascending order, beginning with that of the first. */
#define QB_REDUCE_LANES 32
#define QB_REDUCE_CHUNK 4096

/* d may be the same array as a, b or c if their elements are of the same size; otherwise they do
 * not overlap. Arrays are aligned to their elements. Missing operands are NULL. */
typedef void (*qb_map_fn)(void *d, const void *a, const void *b, const void *c, size_t n);
/* *result = the fold of n <= QB_REDUCE_CHUNK elements; of none: 0; for MIN and AND the greatest
 * value (infinity), for MAX the least. */
typedef void (*qb_reduce_fn)(void *result, const void *a, size_t n);
/* d[i] = the fold of *carry and a[0..i], from left to right; *carry becomes the last one. */
typedef void (*qb_scan_fn)(void *d, const void *a, void *carry, size_t n);
/* d[i] = the fold of a[i..i+width), from left to right; reads n + width - 1 elements; width >= 1.
 * d does not overlap a. */
typedef void (*qb_window_fn)(void *d, const void *a, size_t width, size_t n);
/* d[i] = a[index[i]] as long as the index is < limit; returns how many were. */
typedef size_t (*qb_gather_fn)(void *d, const void *a, const void *index, size_t n, uint64_t limit);
/* d[i] = start + step * i for first <= i < first + n, each computed alone: integers wrap, floats
 * round the product and the sum. The type is f64 for floats, u64 for integers. */
typedef void (*qb_ramp_fn)(void *d, const void *start, const void *step, uint64_t first, size_t n);

struct qb_vectors { /* NULL where a type has no such operation */
    qb_map_fn map[QB_MAPS][QB_TYPES];
    qb_map_fn convert[QB_TYPES][QB_TYPES]; /* from, to */
    qb_reduce_fn reduce[QB_FOLDS][QB_TYPES];
    qb_scan_fn scan[QB_FOLD_MAX + 1][QB_TYPES];
    qb_window_fn window[QB_FOLD_MAX + 1][QB_TYPES];
    qb_gather_fn gather[4][2]; /* log2 of the element's bytes; indexes u32, u64 */
    qb_ramp_fn ramp[QB_TYPES];
    const char *name; /* "scalar", "avx2", "avx512" */
};

/* Fills a table for the given flags (enum qb_cpu_flags), which the CPU must have. */
void qb_vectors_init(struct qb_vectors *table, uint32_t cpu_flags);
/* The process-wide table, for the CPU and the mask of backend/kernels.h. Thread-safe. */
const struct qb_vectors *qb_vectors(void);

#endif
