/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vector kernels of one instruction set: backend/cpu/vector_type.h for each type, conversions
 * and gathers. Included by vector_scalar.c, vector_avx2.c and vector_avx512.c, which define INIT,
 * the name of the function that fills the table; how wide the vectors are is decided by the
 * compiler's flags for that file.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "backend/cpu/vector_versions.h"

#define QB_JOIN_(a, b) a##_##b
#define QB_JOIN(a, b)  QB_JOIN_(a, b)

/* No iteration of the loop depends on another one: arrays are the same or apart. */
#if defined(__clang__)
#define QB_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define QB_INDEPENDENT _Pragma("GCC ivdep")
#endif

enum { QB_WINDOW_BLOCK = 1024 };

#if defined(__AVX512F__)
#define QB_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define QB_VECTOR_BYTES 32
#else
#define QB_VECTOR_BYTES 16
#endif

#define T        uint8_t
#define U        uint8_t
#define SUFFIX   u8
#define SLOT     QB_U8
#define FLOATING 0
#define LEAST    0
#define GREATEST UINT8_MAX
#include "backend/cpu/vector_type.h"

#define T        int8_t
#define U        uint8_t
#define SUFFIX   i8
#define SLOT     QB_I8
#define FLOATING 0
#define LEAST    INT8_MIN
#define GREATEST INT8_MAX
#include "backend/cpu/vector_type.h"

#define T        uint16_t
#define U        uint16_t
#define SUFFIX   u16
#define SLOT     QB_U16
#define FLOATING 0
#define LEAST    0
#define GREATEST UINT16_MAX
#include "backend/cpu/vector_type.h"

#define T        int16_t
#define U        uint16_t
#define SUFFIX   i16
#define SLOT     QB_I16
#define FLOATING 0
#define LEAST    INT16_MIN
#define GREATEST INT16_MAX
#include "backend/cpu/vector_type.h"

#define T        uint32_t
#define U        uint32_t
#define SUFFIX   u32
#define SLOT     QB_U32
#define FLOATING 0
#define LEAST    0
#define GREATEST UINT32_MAX
#include "backend/cpu/vector_type.h"

#define T        int32_t
#define U        uint32_t
#define SUFFIX   i32
#define SLOT     QB_I32
#define FLOATING 0
#define LEAST    INT32_MIN
#define GREATEST INT32_MAX
#include "backend/cpu/vector_type.h"

#define T        uint64_t
#define U        uint64_t
#define SUFFIX   u64
#define SLOT     QB_U64
#define FLOATING 0
#define LEAST    0
#define GREATEST UINT64_MAX
#include "backend/cpu/vector_type.h"

#define T        int64_t
#define U        uint64_t
#define SUFFIX   i64
#define SLOT     QB_I64
#define FLOATING 0
#define LEAST    INT64_MIN
#define GREATEST INT64_MAX
#include "backend/cpu/vector_type.h"

#define QB_MATH(name) name##f
#define S             int32_t
#define T             float
#define U             uint32_t
#define SUFFIX        f32
#define SLOT          QB_F32
#define FLOATING      1
#define LEAST         -INFINITY
#define GREATEST      INFINITY
#include "backend/cpu/vector_type.h"

#undef QB_MATH
#define QB_MATH(name) name
#define S             int64_t
#define T             double
#define U             uint64_t
#define SUFFIX        f64
#define SLOT          QB_F64
#define FLOATING      1
#define LEAST         -INFINITY
#define GREATEST      INFINITY
#include "backend/cpu/vector_type.h"

/* --- conversions --- */

#define CONVERT(from, F, to, R, expression)                                                        \
    static void convert_##from##_##to(void *d_, const void *a_, const void *b, const void *c,      \
                                      size_t n)                                                    \
    {                                                                                              \
        R *d = (R *)d_;                                                                            \
        const F *a = (const F *)a_;                                                                \
        (void)b, (void)c;                                                                          \
        QB_INDEPENDENT                                                                             \
        for (size_t i = 0; i < n; i++) {                                                           \
            F x = a[i];                                                                            \
            d[i] = (R)(expression);                                                                \
        }                                                                                          \
    }
/* The bounds are powers of two, which every float type has exactly. */
#define SATURATE(R, least, greatest, beyond)                                                       \
    (x != x ? 0 : x >= (beyond) ? (R)(greatest) : (R)(x < (least) ? (least) : x))

#define FROM_INTEGER(from, F)                                                                      \
    CONVERT(from, F, u8, uint8_t, x)                                                               \
    CONVERT(from, F, i8, int8_t, x)                                                                \
    CONVERT(from, F, u16, uint16_t, x)                                                             \
    CONVERT(from, F, i16, int16_t, x)                                                              \
    CONVERT(from, F, u32, uint32_t, x)                                                             \
    CONVERT(from, F, i32, int32_t, x)                                                              \
    CONVERT(from, F, u64, uint64_t, x)                                                             \
    CONVERT(from, F, i64, int64_t, x)                                                              \
    CONVERT(from, F, f32, float, x)                                                                \
    CONVERT(from, F, f64, double, x)
#define FROM_FLOAT(from, F)                                                                        \
    CONVERT(from, F, u8, uint8_t, SATURATE(uint8_t, 0, UINT8_MAX, 256))                            \
    CONVERT(from, F, i8, int8_t, SATURATE(int8_t, INT8_MIN, INT8_MAX, 128))                        \
    CONVERT(from, F, u16, uint16_t, SATURATE(uint16_t, 0, UINT16_MAX, 65536))                      \
    CONVERT(from, F, i16, int16_t, SATURATE(int16_t, INT16_MIN, INT16_MAX, 32768))                 \
    CONVERT(from, F, u32, uint32_t, SATURATE(uint32_t, 0, UINT32_MAX, (F)0x1p32))                  \
    CONVERT(from, F, i32, int32_t, SATURATE(int32_t, INT32_MIN, INT32_MAX, (F)0x1p31))             \
    CONVERT(from, F, u64, uint64_t, SATURATE(uint64_t, 0, UINT64_MAX, (F)0x1p64))                  \
    CONVERT(from, F, i64, int64_t, SATURATE(int64_t, INT64_MIN, INT64_MAX, (F)0x1p63))             \
    CONVERT(from, F, f32, float, canonical_f32((float)x))                                          \
    CONVERT(from, F, f64, double, canonical_f64((double)x))
FROM_INTEGER(u8, uint8_t)
FROM_INTEGER(i8, int8_t)
FROM_INTEGER(u16, uint16_t)
FROM_INTEGER(i16, int16_t)
FROM_INTEGER(u32, uint32_t)
FROM_INTEGER(i32, int32_t)
FROM_INTEGER(u64, uint64_t)
FROM_INTEGER(i64, int64_t)
FROM_FLOAT(f32, float)
FROM_FLOAT(f64, double)

#define CONVERSIONS(from)                                                                          \
    {                                                                                              \
        convert_##from##_u8, convert_##from##_i8, convert_##from##_u16, convert_##from##_i16,      \
            convert_##from##_u32, convert_##from##_i32, convert_##from##_u64,                      \
            convert_##from##_i64, convert_##from##_f32, convert_##from##_f64                       \
    }

/* --- gathers --- */

/* The check of a block is a loop of its own, so that both can be vectorised. */
#define GATHER(name, T, I)                                                                         \
    static size_t name(void *d_, const void *a_, const void *index_, size_t n, uint64_t limit)     \
    {                                                                                              \
        T *d = (T *)d_;                                                                            \
        const T *a = (const T *)a_;                                                                \
        const I *index = (const I *)index_;                                                        \
        I most = 0;                                                                                \
        for (size_t i = 0; i < n; i++)                                                             \
            most = index[i] > most ? index[i] : most;                                              \
        if (n > 0 && most >= limit)                                                                \
            for (n = 0; index[n] < limit; n++)                                                     \
                continue;                                                                          \
        QB_INDEPENDENT                                                                             \
        for (size_t i = 0; i < n; i++)                                                             \
            d[i] = a[index[i]];                                                                    \
        return n;                                                                                  \
    }
GATHER(gather_8_u32, uint8_t, uint32_t)
GATHER(gather_8_u64, uint8_t, uint64_t)
GATHER(gather_16_u32, uint16_t, uint32_t)
GATHER(gather_16_u64, uint16_t, uint64_t)
GATHER(gather_32_u32, uint32_t, uint32_t)
GATHER(gather_32_u64, uint32_t, uint64_t)
GATHER(gather_64_u32, uint64_t, uint32_t)
GATHER(gather_64_u64, uint64_t, uint64_t)

void INIT(struct qb_vectors *table)
{
    static const qb_map_fn conversions[QB_TYPES][QB_TYPES] = {
        CONVERSIONS(u8),  CONVERSIONS(i8),  CONVERSIONS(u16), CONVERSIONS(i16), CONVERSIONS(u32),
        CONVERSIONS(i32), CONVERSIONS(u64), CONVERSIONS(i64), CONVERSIONS(f32), CONVERSIONS(f64),
    };
    static const qb_gather_fn gathers[4][2] = {
        {gather_8_u32, gather_8_u64},
        {gather_16_u32, gather_16_u64},
        {gather_32_u32, gather_32_u64},
        {gather_64_u32, gather_64_u64},
    };

    memcpy(table->convert, conversions, sizeof conversions);
    memcpy(table->gather, gathers, sizeof gathers);
    fill_u8(table);
    fill_i8(table);
    fill_u16(table);
    fill_i16(table);
    fill_u32(table);
    fill_i32(table);
    fill_u64(table);
    fill_i64(table);
    fill_f32(table);
    fill_f64(table);
    table->name = NAME;
}
