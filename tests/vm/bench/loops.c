/* SPDX-License-Identifier: Apache-2.0 */
/* The peers of vector instructions: plain loops, with restrict, as the compiler likes them best. */
#include "loops.h"

volatile double loop_sink;

#define LOOP(name, D, A, B, body)                                                                  \
    static void name(void *d_, const void *a_, const void *b_, const void *m_, size_t n)           \
    {                                                                                              \
        D *restrict d = d_;                                                                        \
        const A *restrict a = a_;                                                                  \
        const B *restrict b = b_;                                                                  \
        const uint8_t *restrict m = m_;                                                            \
        (void)d, (void)a, (void)b, (void)m;                                                        \
        body                                                                                       \
    }
#define EACH(name, D, A, B, expression)                                                            \
    LOOP(name, D, A, B, for (size_t i = 0; i < n; i++) d[i] = (D)(expression);)

EACH(add_f32, float, float, float, a[i] + b[i])
EACH(scale_f64, double, double, double, a[i] * 1.5)
EACH(add_u8, uint8_t, uint8_t, uint8_t, a[i] + b[i])
EACH(mul_i64, int64_t, int64_t, int64_t, (uint64_t)a[i] * (uint64_t)b[i])
EACH(max_i16, int16_t, int16_t, int16_t, a[i] > b[i] ? a[i] : b[i])
EACH(min_f32, float, float, float, a[i] < b[i] ? a[i] : b[i])
EACH(less_f32, uint8_t, float, float, a[i] < b[i])
EACH(to_i32, int32_t, float, float, a[i])
EACH(to_f64, double, float, float, a[i])
LOOP(
    select_f32, float, float, float, for (size_t i = 0; i < n; i++) {
        float x = a[i];
        float y = b[i];
        d[i] = m[i] ? x : y;
    })
LOOP(fill_u32, uint32_t, uint32_t, uint32_t, for (size_t i = 0; i < n; i++) d[i] = 7;)
LOOP(sum_f32, float, float, float, float s = 0; for (size_t i = 0; i < n; i++) s += a[i];
     loop_sink = s;)
LOOP(sum_u32, uint32_t, uint32_t, uint32_t, uint32_t s = 0;
     for (size_t i = 0; i < n; i++) s += a[i]; loop_sink = s;)
LOOP(scan_i32, int32_t, uint32_t, uint32_t, uint32_t s = 0;
     for (size_t i = 0; i < n; i++) d[i] = (int32_t)(s += a[i]);)
LOOP(
    window_f32, float, float, float, for (size_t i = 0; i + 8 <= n; i++) {
        float s = a[i];
        for (int k = 1; k < 8; k++)
            s += a[i + (size_t)k];
        d[i] = s;
    })
LOOP(gather_f32, float, float, uint32_t, for (size_t i = 0; i < n; i++) d[i] = a[b[i]];)

const struct loop loops[] = {
    {"add f32", "vadd.f32 d, a, b", 12, 4, add_f32},
    {"mul f64 by a number", "vmul.f64 d, a, r0", 16, 8, scale_f64},
    {"add u8", "vadd.u8 d, a, b", 3, 1, add_u8},
    {"mul i64", "vmul.i64 d, a, b", 24, 8, mul_i64},
    {"max i16", "vmax.i16 d, a, b", 6, 2, max_i16},
    {"min f32", "vmin.f32 d, a, b", 12, 4, min_f32},
    {"a < b, f32", "vlt.f32 d, a, b for r3", 9, 4, less_f32},
    {"f32 to i32", "vcvt.i32.f32 d, a", 8, 4, to_i32},
    {"f32 to f64", "vcvt.f64.f32 d, a", 12, 8, to_f64},
    {"select f32", "vselect.f32 d, m, a, b", 13, 4, select_f32},
    {"fill u32", "vmov.u32 d, r1", 4, 4, fill_u32},
    {"sum f32", "reduce.add.f32 r2, a", 4, 4, sum_f32},
    {"sum u32", "reduce.add.u32 r2, a", 4, 4, sum_u32},
    {"running sum i32", "scan.add.i32 d, a", 8, 4, scan_i32},
    {"window of 8, f32", "window.add.f32 d, a, r4 for r5", 8, 4, window_f32},
    {"gather f32", "gather.f32.u32 d, a, x", 12, 4, gather_f32},
};
const size_t loop_count = sizeof loops / sizeof *loops;
