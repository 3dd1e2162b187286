/* SPDX-License-Identifier: Apache-2.0 */
/* Sums modulo 2^128, and the cell that the state digest adds up. Compiled for the CPU and for
 * devices. */
#ifndef QB_U128_H
#define QB_U128_H

#include <stdint.h>

/* A function that runs on the CPU and on a device, from the same source. */
#ifdef __CUDACC__
#define QB_ITEM static __host__ __device__ __forceinline__
#else
#define QB_ITEM static inline
#endif

/* Bytes in one cell of the state digest; part of the log format (docs/formats/tlog.md). */
#define QB_CELL 128u

/* A 128-bit sum, added modulo 2^128. */
struct qb_u128 {
    uint64_t lo, hi;
};
QB_ITEM struct qb_u128 qb_u128_add(struct qb_u128 a, struct qb_u128 b)
{
    struct qb_u128 r = {a.lo + b.lo, a.hi + b.hi};
    r.hi += r.lo < a.lo;
    return r;
}
QB_ITEM struct qb_u128 qb_u128_sub(struct qb_u128 a, struct qb_u128 b)
{
    struct qb_u128 r = {a.lo - b.lo, a.hi - b.hi};
    r.hi -= a.lo < b.lo;
    return r;
}
QB_ITEM int qb_u128_equal(struct qb_u128 a, struct qb_u128 b)
{
    return a.lo == b.lo && a.hi == b.hi;
}

#endif
