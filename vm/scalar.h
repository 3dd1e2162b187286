/* SPDX-License-Identifier: Apache-2.0 */
/* What scalar instructions compute, where C leaves something open. */
#ifndef QV_SCALAR_H
#define QV_SCALAR_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "vm/machine.h"

static inline uint64_t qv_float_bits(double f)
{
    uint64_t bits;
    memcpy(&bits, &f, sizeof bits);
    return f == f ? bits : UINT64_C(0x7ff8000000000000); /* the canonical NaN */
}
static inline double qv_bits_float(uint64_t bits)
{
    double f;
    memcpy(&f, &bits, sizeof f);
    return f;
}
static inline float qv_narrow(double f) { return f == f ? (float)f : __builtin_nanf(""); }

static inline uint64_t qv_mulhu(uint64_t b, uint64_t c)
{
    __extension__ typedef unsigned __int128 wide;
    return (uint64_t)((wide)b * c >> 64);
}
static inline uint64_t qv_rotl(uint64_t b, uint64_t c) { return b << (c & 63) | b >> (-c & 63); }
static inline uint64_t qv_div(int64_t b, int64_t c)
{
    if (c == 0)
        return UINT64_MAX;
    return c == -1 ? 0 - (uint64_t)b : (uint64_t)(b / c);
}
static inline uint64_t qv_rem(int64_t b, int64_t c)
{
    if (c == 0)
        return (uint64_t)b;
    return c == -1 ? 0 : (uint64_t)(b % c);
}
static inline double qv_fmin(double b, double c)
{
    if (b != b || c != c)
        return __builtin_nan("");
    return b < c || (b == c && signbit(b)) ? b : c;
}
static inline double qv_fmax(double b, double c)
{
    if (b != b || c != c)
        return __builtin_nan("");
    return b > c || (b == c && !signbit(b)) ? b : c;
}
static inline uint64_t qv_ftoi(double f)
{
    if (f != f)
        return 0;
    if (f < -0x1p63)
        return (uint64_t)INT64_MIN;
    return f >= 0x1p63 ? (uint64_t)INT64_MAX : (uint64_t)(int64_t)f;
}
static inline uint64_t qv_ftou(double f)
{
    if (!(f > 0))
        return 0;
    return f >= 0x1p64 ? UINT64_MAX : (uint64_t)f;
}
static inline uint64_t qv_random(struct qv_machine *m)
{
    uint64_t z = m->random += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

#endif
