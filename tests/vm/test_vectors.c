/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vector kernels, every operation on every type: those of each instruction set that this CPU
 * has must give the bits of the scalar ones, in place, too; conversions, whose rules are the
 * easiest to get wrong, also those of a reference in plain C. Random programs (differential.c)
 * seldom get to all of them. Operands are mostly those at which rules differ: ends of ranges, NaNs
 * with a payload, powers of two and what lies next to them. QALLOW_SEED repeats a run.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/kernels.h"
#include "backend/vector.h"
#include "tests/random.h"

enum { MOST = 2048, SETS = 3, GUARD = 64, WINDOWS = 6 };

static uint64_t state;
static uint64_t below(uint64_t n) { return next_random(&state) % n; }

static struct qb_vectors sets[SETS];
static int set_count;
static _Alignas(64) uint8_t a[MOST * 8 + GUARD], b[MOST * 8 + GUARD], c[MOST * 8 + GUARD];
static _Alignas(64) uint8_t results[SETS][MOST * 8 + GUARD];
static uint64_t compared;

static size_t bytes_of(unsigned type) { return (size_t)1 << qb_type_shift(type); }

/* --- operands --- */

static uint64_t float_bits(unsigned type, double value)
{
    uint64_t bits = 0;
    float single = (float)value;
    if (type == QB_F32)
        memcpy(&bits, &single, sizeof single);
    else
        memcpy(&bits, &value, sizeof value);
    return bits;
}

static uint64_t random_float(unsigned type, uint64_t random)
{
    static const int exponents[] = {7, 8, 15, 16, 24, 31, 32, 53, 63, 64};
    const uint64_t infinity = float_bits(type, INFINITY);
    const uint64_t sign = float_bits(type, -0.0);
    uint64_t bits;

    switch (below(8)) {
    case 0:
        return float_bits(type, 0) | (random & sign);
    case 1:
        return infinity | (random & sign);
    case 2: /* a NaN, quiet or not */
        return infinity | (random & ~infinity & (sign | (sign - 1))) | 1;
    case 3: /* subnormal */
        return random & (sign | ((infinity & -infinity) - 1));
    case 4: /* at the ends of integers */
        bits = float_bits(type, ldexp(1, exponents[below(10)]));
        return (bits + below(3) - 1) | (random & sign);
    case 5: /* halves */
        return float_bits(type, (double)below(17) / 2 - 4);
    default:
        return random & (sign | (sign - 1));
    }
}

static uint64_t random_integer(unsigned type, uint64_t random)
{
    const unsigned bits = 8 * (unsigned)bytes_of(type);

    switch (below(8)) {
    case 0:
        return below(3) - 1;
    case 1:
        return (UINT64_C(1) << (bits - 1)) + below(3) - 1;
    case 2:
        return below(19) - 9;
    case 3: /* where floats cannot hold every integer */
        return (UINT64_C(1) << (below(2) ? 53 : 24)) + below(5) - 2;
    case 4:
        return random >> below(64);
    default:
        return random;
    }
}

static void fill(uint8_t *at, unsigned type)
{
    for (size_t i = 0; i < MOST; i++) {
        uint64_t random = next_random(&state);
        random = qb_type_is_float(type) ? random_float(type, random) : random_integer(type, random);
        memcpy(at + i * bytes_of(type), &random, bytes_of(type));
    }
}

/* --- comparing --- */

static void same(const char *what, unsigned op, unsigned type, unsigned other, size_t n,
                 size_t bytes)
{
    compared++;
    for (int s = 1; s < set_count; s++)
        for (size_t i = 0; i < n * bytes; i++)
            if (results[0][i] != results[s][i]) {
                printf("%s %u of type %u, %u, %zu elements: %s differs in element %zu\n", what, op,
                       type, other, n, sets[s].name, i / bytes);
                exit(1);
            }
}

static void check_map(unsigned op, unsigned type, size_t n)
{
    const size_t bytes = op >= QB_EQ && op <= QB_LE ? 1 : bytes_of(type);

    for (int s = 0; s < set_count; s++)
        sets[s].map[op][type](results[s], a, b, c, n);
    same("map", op, type, 0, n, bytes);
    for (int in_place = 0; in_place < 2 && bytes == bytes_of(type) && op != QB_SELECT; in_place++) {
        for (int s = 0; s < set_count; s++) {
            uint8_t *d = results[s];
            memcpy(d, in_place ? b : a, n * bytes);
            sets[s].map[op][type](d, in_place ? a : d, in_place ? d : b, c, n);
        }
        same("map in place", op, type, (unsigned)in_place, n, bytes);
    }
}

static void check_folds(unsigned type, size_t n)
{
    for (unsigned f = 0; f < QB_FOLDS; f++) {
        for (int s = 0; s < set_count && sets[0].reduce[f][type]; s++)
            sets[s].reduce[f][type](results[s], a, n);
        if (sets[0].reduce[f][type])
            same("reduce", f, type, 0, 1, bytes_of(type));
    }
    for (unsigned f = 0; f <= QB_FOLD_MAX; f++) {
        for (int s = 0; s < set_count; s++) {
            uint64_t carry = 0;
            sets[0].reduce[f][type](&carry, NULL, 0);
            sets[s].scan[f][type](results[s], a, &carry, n);
        }
        same("scan", f, type, 0, n, bytes_of(type));
        for (size_t width = 1; width < WINDOWS && width < n; width++) {
            for (int s = 0; s < set_count; s++)
                sets[s].window[f][type](results[s], a, width, n - width);
            same("window", f, type, (unsigned)width, n - width, bytes_of(type));
        }
    }
}

static void check_ramp(unsigned type, size_t n)
{
    unsigned wide = qb_type_is_float(type) ? QB_F64 : QB_U64;
    uint64_t first = next_random(&state) >> (10 + below(50)), start, step;

    fill(b, wide);
    memcpy(&start, b, sizeof start);
    memcpy(&step, b + sizeof start, sizeof step);
    for (int s = 0; s < set_count; s++)
        sets[s].ramp[type](results[s], &start, &step, first, n);
    same("ramp", 0, type, 0, n, bytes_of(type));
}

/* Up to the first index that is too large. */
static void check_gather(unsigned shift, size_t n)
{
    static uint32_t narrow[MOST];
    static uint64_t wide[MOST];
    const size_t bad = below(2 * (n + 1)), limit = 1 + below(MOST);

    for (size_t i = 0; i < n; i++) {
        wide[i] = i == bad ? limit + (next_random(&state) >> (1 + below(60))) : below(limit);
        narrow[i] = wide[i] > UINT32_MAX ? UINT32_MAX : (uint32_t)wide[i];
    }
    for (int s = 0; s < 2 * set_count; s++) {
        const struct qb_vectors *set = &sets[s / 2];
        size_t done = set->gather[shift][s % 2](
            results[s / 2], a, s % 2 ? (const void *)wide : (const void *)narrow, n, limit);
        if (done != (bad < n ? bad : n)) {
            printf("gather %u: %s took %zu of %zu\n", shift, set->name, done, n);
            exit(1);
        }
    }
    same("gather", shift, 0, 0, bad < n ? bad : n, (size_t)1 << shift);
}

/* --- conversions beside a reference --- */

__extension__ typedef __int128 integer; /* holds all of them */
struct number {
    integer whole;
    double wide; /* if it is a float */
    int is_float;
};

static struct number read_number(const uint8_t *at, unsigned type)
{
    struct number number = {.is_float = qb_type_is_float(type)};
    uint64_t bits = 0;
    float single;

    memcpy(&bits, at, bytes_of(type));
    memcpy(&single, &bits, sizeof single);
    memcpy(&number.wide, &bits, sizeof bits);
    if (type == QB_F32)
        number.wide = single;
    number.whole = bits;
    if (!number.is_float && type & 1 && bits >> (8 * bytes_of(type) - 1))
        number.whole -= (integer)1 << 8 * bytes_of(type);
    return number;
}

static uint64_t as_integer(const struct number *number, unsigned type)
{
    const unsigned bits = 8 * (unsigned)bytes_of(type);
    const integer least = type & 1 ? -((integer)1 << (bits - 1)) : 0;
    const integer most = ((integer)1 << (bits - (type & 1))) - 1;
    integer value = number->whole;

    if (number->is_float) {
        double wide = number->wide;
        value = isnan(wide) ? 0 : wide < -1e20 ? least : wide > 1e20 ? most : (integer)wide;
        value = value < least ? least : value > most ? most : value;
    }
    return (uint64_t)value & (UINT64_MAX >> (64 - bits));
}

static uint64_t as_float(const struct number *number, unsigned type)
{
    uint64_t bits = 0;
    float single = number->is_float ? (float)number->wide : (float)number->whole;
    double wide = number->is_float ? number->wide : (double)number->whole;

    if (number->is_float && isnan(number->wide))
        return type == QB_F32 ? UINT32_C(0x7fc00000) : UINT64_C(0x7ff8000000000000);
    if (type == QB_F32)
        memcpy(&bits, &single, sizeof single);
    else
        memcpy(&bits, &wide, sizeof wide);
    return bits;
}

static void check_conversion(unsigned from, unsigned to, size_t n)
{
    for (int s = 0; s < set_count; s++)
        sets[s].convert[from][to](results[s], a, NULL, NULL, n);
    same("convert", 0, from, to, n, bytes_of(to));
    for (size_t i = 0; i < n; i++) {
        struct number number = read_number(a + i * bytes_of(from), from);
        uint64_t found = 0;
        uint64_t expected = qb_type_is_float(to) ? as_float(&number, to) : as_integer(&number, to);
        memcpy(&found, results[0] + i * bytes_of(to), bytes_of(to));
        if (found != expected) {
            printf("convert %u to %u, element %zu: %llx, expected %llx\n", from, to, i,
                   (unsigned long long)found, (unsigned long long)expected);
            exit(1);
        }
    }
}

static void check_all(size_t n)
{
    for (unsigned type = 0; type < QB_TYPES; type++) {
        fill(a, type);
        fill(b, type);
        fill(c, type);
        for (unsigned op = 0; op < QB_MAPS; op++)
            if (sets[0].map[op][type])
                check_map(op, type, n);
        for (unsigned to = 0; to < QB_TYPES; to++)
            if (sets[0].convert[type][to])
                check_conversion(type, to, n);
        check_folds(type, n);
        check_ramp(type, n);
    }
    for (unsigned shift = 0; shift < 4; shift++)
        check_gather(shift, n);
}

int main(void)
{
    static const uint32_t flags[SETS] = {0, QB_CPU_AVX2, QB_CPU_AVX2 | QB_CPU_AVX512};
    const char *seed = getenv("QALLOW_SEED");

    state = seed ? strtoull(seed, NULL, 0) : 1;
    printf("QALLOW_SEED=%llu\n", (unsigned long long)state);
    for (int s = 0; s < SETS; s++)
        if ((qb_cpu_detect() & flags[s]) == flags[s])
            qb_vectors_init(&sets[set_count++], flags[s]);
    for (size_t n = 0; n < 70; n++) /* every length up to some vectors and what is left over */
        check_all(n);
    for (int i = 0; i < 20; i++)
        check_all(1 + below(MOST));
    printf("%d sets of kernels, %llu comparisons\n", set_count, (unsigned long long)compared);
    return 0;
}
