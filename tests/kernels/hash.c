/* SPDX-License-Identifier: Apache-2.0 */
/* hash64, hash128, hash_cells and hash_changed, against the distribution's libxxhash. */
#include "tests/kernels/check.h"

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

__extension__ typedef unsigned __int128 wide;

static struct qb_u128 cells_by_library(const uint8_t *p, size_t n, uint64_t page_seed,
                                       uint64_t first_cell)
{
    wide sum = 0;
    for (size_t cell = 0; cell * QB_CELL < n; cell++) {
        static const uint8_t zeros[QB_CELL];
        size_t left = n - cell * QB_CELL, length = left < QB_CELL ? left : QB_CELL;
        if (!memcmp(p + cell * QB_CELL, zeros, length))
            continue;
        XXH128_hash_t h =
            XXH3_128bits_withSeed(p + cell * QB_CELL, length,
                                  page_seed + (first_cell + cell) * UINT64_C(0x9E3779B97F4A7C15));
        sum += (wide)h.high64 << 64 | h.low64;
    }
    return (struct qb_u128){(uint64_t)sum, (uint64_t)(sum >> 64)};
}

static uint64_t any_seed(const struct ck_case *c)
{
    return c->number % 3 == 0 ? 0 : c->number % 3 == 1 ? UINT64_MAX : c->number;
}

static void check_hash_cells(const struct ck_case *c)
{
    uint8_t *p = ck_bytes(0, c->n, c->placement), *other = ck_bytes(1, c->n, c->placement);
    ck_fill_pair(other, p, c->n, c->fill, c->gap);
    uint64_t first = c->number % 5 == 0 ? 0 : c->number % 5 == 1 ? UINT64_MAX : c->number >> 20;
    struct qb_u128 expected = cells_by_library(p, c->n, any_seed(c), first);
    for (size_t i = 0; i <= ck_version_count; i++) {
        const struct ck_version *v = i == 0 ? &ck_reference : &ck_versions[i - 1];
        ck_begin(v);
        struct qb_u128 got = v->table.hash_cells(p, c->n, any_seed(c), first);
        ck_expect_number(got.lo, expected.lo, "the lower half");
        ck_expect_number(got.hi, expected.hi, "the upper half");
        ck_expect_guards();
    }
}

/* The sum does not depend on how the page is cut at cell boundaries. */
static void check_hash_cells_parts(const struct ck_case *c)
{
    uint8_t *p = ck_bytes(0, c->n, c->placement), *other = ck_bytes(1, c->n, c->placement);
    ck_fill_pair(other, p, c->n, c->fill, c->gap);
    size_t cells = c->n / QB_CELL, first = cells > 0 ? c->number % (cells + 1) : 0;
    struct qb_u128 expected = ck_reference.table.hash_cells(p, c->n, any_seed(c), 0);
    CK_EACH_VERSION(v)
    {
        ck_begin(v);
        struct qb_u128 head = v->table.hash_cells(p, first * QB_CELL, any_seed(c), 0);
        struct qb_u128 rest =
            v->table.hash_cells(p + first * QB_CELL, c->n - first * QB_CELL, any_seed(c), first);
        struct qb_u128 sum = qb_u128_add(head, rest), back = qb_u128_sub(sum, rest);
        ck_expect(qb_u128_equal(sum, expected), "the parts add up to the whole");
        ck_expect(qb_u128_equal(back, head), "a part can be taken away again");
    }
}

/* More than any cache near the processor holds, which is fetched ahead. */
static void check_hash_cells_far(const struct ck_case *c)
{
    static struct ck_buffer buffer;
    size_t n = (1 << 20) + c->number % (1 << 19);
    if (buffer.mapping == NULL)
        ck_buffer_init(&buffer, 3 << 19);
    uint8_t *p = ck_place(&buffer, n, c->placement);
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(i * 31 >> (i >> 9 & 7));
    struct qb_u128 expected = cells_by_library(p, n, any_seed(c), 3);
    CK_EACH_VERSION(v)
    {
        ck_begin(v);
        ck_expect(qb_u128_equal(v->table.hash_cells(p, n, any_seed(c), 3), expected), "the sum");
        ck_expect(ck_guards_intact(&buffer), "the guards");
    }
}

/* Some of the cells, also equal ones and a short last one: as if each were hashed by itself. */
static void check_hash_changed(const struct ck_case *c)
{
    uint8_t *a = ck_bytes(0, c->n, c->placement), *b = ck_bytes(1, c->n, c->placement);
    ck_fill_pair(a, b, c->n, c->fill, c->gap);
    uint64_t first = c->number % 5 == 0 ? 0 : c->number % 5 == 1 ? UINT64_MAX : c->number >> 20;
    uint32_t *cells = malloc((c->n / QB_CELL + 1) * sizeof(*cells));
    size_t count = 0;
    struct qb_u128 expected = {0, 0};
    for (size_t at = 0; at < c->n; at += QB_CELL) {
        size_t n = c->n - at < QB_CELL ? c->n - at : QB_CELL, cell = at / QB_CELL;
        if ((c->number >> cell % 60 & 1) == 0 && n == QB_CELL)
            continue;
        if (c->number % 7 == 0) /* a cell that was a hole */
            memset(c->number & 1 ? a + at : b + at, 0, n);
        cells[count++] = (uint32_t)cell;
        expected = qb_u128_add(expected, cells_by_library(b + at, n, any_seed(c), first + cell));
        expected = qb_u128_sub(expected, cells_by_library(a + at, n, any_seed(c), first + cell));
    }
    for (size_t i = 0; i <= ck_version_count; i++) {
        const struct ck_version *v = i == 0 ? &ck_reference : &ck_versions[i - 1];
        ck_begin(v);
        struct qb_u128 got =
            v->table.hash_changed(a, b, c->n, count ? cells : NULL, count, any_seed(c), first);
        ck_expect(qb_u128_equal(got, expected), "the terms of b less those of a");
        ck_expect_guards();
    }
    free(cells);
}

static void check_hash64(const struct ck_case *c)
{
    uint8_t *p = ck_bytes(0, c->n, c->placement), *other = ck_bytes(1, c->n, c->placement);
    ck_fill_pair(other, p, c->n, c->fill, c->gap);
    uint64_t expected = XXH3_64bits_withSeed(p, c->n, any_seed(c));
    for (size_t i = 0; i <= ck_version_count; i++) {
        const struct ck_version *v = i == 0 ? &ck_reference : &ck_versions[i - 1];
        ck_begin(v);
        ck_expect_number(v->table.hash64(p, c->n, any_seed(c)), expected, "the hash");
        ck_expect_guards();
    }
}

/* At once, and in parts of which no two have the same length. */
static void check_hash128(const struct ck_case *c)
{
    uint8_t *p = ck_bytes(0, c->n, c->placement), *other = ck_bytes(1, c->n, c->placement);
    ck_fill_pair(other, p, c->n, c->fill, c->gap);
    XXH128_hash_t expected = XXH3_128bits(p, c->n);
    for (size_t i = 0; i <= ck_version_count; i++) {
        const struct ck_version *v = i == 0 ? &ck_reference : &ck_versions[i - 1];
        struct qb_hash128 hash;
        ck_begin(v);
        struct qb_u128 got = v->table.hash128(p, c->n);
        ck_expect_number(got.lo, expected.low64, "the lower half");
        ck_expect_number(got.hi, expected.high64, "the upper half");
        v->table.hash128_begin(&hash);
        size_t part = c->number % 300;
        for (size_t at = 0; at < c->n; at += part, part = part * 2 + 1) {
            if (part > c->n - at)
                part = c->n - at;
            v->table.hash128_update(&hash, p + at, part);
        }
        got = v->table.hash128_end(&hash);
        ck_expect_number(got.lo, expected.low64, "the lower half, in parts");
        ck_expect_number(got.hi, expected.high64, "the upper half, in parts");
        ck_expect_guards();
    }
}

static size_t bench_hash_cells(const struct qb_kernels *k, struct ck_bench_data *d)
{
    return (size_t)k->hash_cells(d->a, d->n, 1, 0).lo;
}

static size_t bench_hash64(const struct qb_kernels *k, struct ck_bench_data *d)
{
    return (size_t)k->hash64(d->a, d->n, 1);
}

static size_t bench_hash128(const struct qb_kernels *k, struct ck_bench_data *d)
{
    return (size_t)k->hash128(d->a, d->n).lo;
}

static size_t bench_hash128_parts(const struct qb_kernels *k, struct ck_bench_data *d)
{
    enum { PART = 64 * 1024 };
    struct qb_hash128 hash;
    k->hash128_begin(&hash);
    for (size_t at = 0; at < d->n; at += PART)
        k->hash128_update(&hash, d->a + at, d->n - at < PART ? d->n - at : PART);
    return (size_t)k->hash128_end(&hash).lo;
}

const struct ck_check ck_hash_checks[] = {
    {"hash_cells", check_hash_cells},
    {"hash_cells/parts", check_hash_cells_parts},
    {"hash_cells/far", check_hash_cells_far, 4},
    {"hash_changed", check_hash_changed},
    {"hash64", check_hash64},
    {"hash128", check_hash128},
    {0},
};

const struct ck_bench ck_hash_benches[] = {
    {"hash_cells", "all", CK_EQUAL_RANDOM, CK_MEMCMP, bench_hash_cells},
    {"hash64", "all", CK_EQUAL_RANDOM, CK_MEMCMP, bench_hash64},
    {"hash128", "all", CK_EQUAL_RANDOM, CK_MEMCMP, bench_hash128},
    {"hash128", "parts", CK_EQUAL_RANDOM, CK_MEMCMP, bench_hash128_parts},
    {0},
};
