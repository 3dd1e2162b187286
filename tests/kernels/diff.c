/* SPDX-License-Identifier: Apache-2.0 */
/*
 * is_zero, common_prefix, common_suffix, diff_runs, diff_mask, diff_blocks. The reference of
 * diff_runs is itself checked against its definition: its result is determined by what is asserted
 * here.
 */
#include "tests/kernels/check.h"

#include <stdlib.h>
#include <string.h>

static void check_is_zero(const struct ck_case *c)
{
    uint8_t *p = ck_bytes(0, c->n, c->placement), *other = ck_bytes(1, c->n, c->placement);
    ck_fill_pair(p, other, c->n, c->fill, c->gap);
    for (size_t i = 0; i < c->n; i++)
        p[i] ^= other[i]; /* zero where the fill has equal bytes */
    int expected = 1;
    for (size_t i = 0; i < c->n; i++)
        expected &= p[i] == 0;
    ck_expect_number((uint64_t)ck_reference.table.is_zero(p, c->n), (uint64_t)expected, "is_zero");
    CK_EACH_VERSION(v)
    {
        ck_begin(v);
        ck_expect_number((uint64_t)v->table.is_zero(p, c->n), (uint64_t)expected, "is_zero");
        ck_expect_guards();
    }
}

/* A short common part says little about long ones: move the only difference to any place. */
static void differ_at_one_place(uint8_t *a, uint8_t *b, const struct ck_case *c)
{
    memcpy(b, a, c->n);
    if (c->n > 0)
        b[c->number % c->n] ^= (uint8_t)(1u << c->number % 8);
}

static void check_common(const struct ck_case *c, bool suffix)
{
    uint8_t *a = ck_bytes(0, c->n, c->placement), *b = ck_bytes(1, c->n, c->placement);
    ck_fill_pair(a, b, c->n, c->fill, c->gap);
    for (unsigned turn = 0; turn < 2; turn++) {
        size_t expected = 0;
        while (expected < c->n && (suffix ? a[c->n - 1 - expected] == b[c->n - 1 - expected]
                                          : a[expected] == b[expected]))
            expected++;
        ck_begin(&ck_reference);
        size_t reference = suffix ? ck_reference.table.common_suffix(a, b, c->n)
                                  : ck_reference.table.common_prefix(a, b, c->n);
        ck_expect_number(reference, expected, "the length");
        CK_EACH_VERSION(v)
        {
            ck_begin(v);
            size_t got =
                suffix ? v->table.common_suffix(a, b, c->n) : v->table.common_prefix(a, b, c->n);
            ck_expect_number(got, expected, "the length");
            ck_expect_guards();
        }
        differ_at_one_place(a, b, c);
    }
}

static void check_common_prefix(const struct ck_case *c) { check_common(c, false); }
static void check_common_suffix(const struct ck_case *c) { check_common(c, true); }

/* What diff_runs promises: the runs begin and end with a differing byte, are at least `gap` equal
 * bytes apart, hold fewer than `gap` equal bytes in a row, and nothing differs outside them. */
static void expect_runs_by_definition(const uint8_t *a, const uint8_t *b, size_t n, size_t gap,
                                      const struct qb_run *runs, size_t count)
{
    size_t at = 0;
    for (size_t i = 0; i <= count; i++) {
        size_t start = i < count ? runs[i].offset : n, end = i < count ? start + runs[i].length : n;
        ck_expect(start >= at && end <= n && (i == count || end > start), "the runs are in order");
        ck_expect(memcmp(a + at, b + at, start - at) == 0, "nothing differs outside the runs");
        ck_expect(i == 0 || i == count || start - at >= gap, "the runs are a gap apart");
        if (i < count) {
            ck_expect(a[start] != b[start] && a[end - 1] != b[end - 1], "the ends of a run differ");
            size_t equal = 0;
            for (size_t k = start; k < end; k++) {
                equal = a[k] == b[k] ? equal + 1 : 0;
                ck_expect(equal < gap, "no gap within a run");
            }
        }
        at = end;
    }
}

static void check_diff_runs(const struct ck_case *c)
{
    uint8_t *a = ck_bytes(0, c->n, c->placement), *b = ck_bytes(1, c->n, c->placement);
    ck_fill_pair(a, b, c->n, c->fill, c->gap);
    size_t all = c->n / 2 + 1; /* no two runs touch */
    struct qb_run *expected = malloc(all * sizeof(*expected)), *got = malloc(all * sizeof(*got));
    size_t scanned = 0;
    size_t count = ck_reference.table.diff_runs(a, b, c->n, c->gap, expected, all, &scanned);
    ck_expect_number(scanned, c->n, "scanned");
    expect_runs_by_definition(a, b, c->n, c->gap, expected, count);
    CK_EACH_VERSION(v)
    {
        ck_begin(v);
        memset(got, 0xee, all * sizeof(*got));
        size_t n = v->table.diff_runs(a, b, c->n, c->gap, got, all, &scanned);
        ck_expect_number(n, count, "the number of runs");
        ck_expect_number(scanned, c->n, "scanned");
        if (n == count)
            ck_expect_bytes(got, expected, n * sizeof(*got), "the runs");
        ck_expect_guards();
    }
    free(expected);
    free(got);
}

/* In portions of at most `max` runs: what is left must begin where the last portion ended. */
static size_t runs_in_portions(const struct ck_version *v, const uint8_t *a, const uint8_t *b,
                               const struct ck_case *c, size_t max, struct qb_run *runs)
{
    size_t count = 0;
    for (size_t at = 0;;) {
        struct qb_run portion[8];
        size_t scanned = SIZE_MAX;
        size_t n = v->table.diff_runs(a + at, b + at, c->n - at, c->gap, portion, max, &scanned);
        ck_expect(n <= max && scanned <= c->n - at, "the portion is within its limits");
        for (size_t i = 0; i < n; i++)
            runs[count++] = (struct qb_run){portion[i].offset + at, portion[i].length};
        if (n > max || scanned >= c->n - at)
            return count;
        ck_expect(n == max && scanned == portion[n - 1].offset + portion[n - 1].length,
                  "a full portion ends with its last run");
        if (n != max)
            return count;
        at += scanned;
    }
}

static void check_diff_runs_portions(const struct ck_case *c)
{
    uint8_t *a = ck_bytes(0, c->n, c->placement), *b = ck_bytes(1, c->n, c->placement);
    ck_fill_pair(a, b, c->n, c->fill, c->gap);
    size_t all = c->n / 2 + 1, scanned = 0, max = 1 + c->number % 8;
    struct qb_run *expected = malloc(all * sizeof(*expected));
    struct qb_run *got = malloc((all + 8) * sizeof(*got));
    size_t count = ck_reference.table.diff_runs(a, b, c->n, c->gap, expected, all, &scanned);
    for (size_t i = 0; i <= ck_version_count; i++) {
        const struct ck_version *v = i == 0 ? &ck_reference : &ck_versions[i - 1];
        ck_begin(v);
        ck_expect_number(runs_in_portions(v, a, b, c, max, got), count, "the number of runs");
        ck_expect_bytes(got, expected, count * sizeof(*got), "the runs");
        size_t none = v->table.diff_runs(a, b, c->n, c->gap, NULL, 0, &scanned);
        ck_expect_number(none, 0, "the number of runs without room for any");
        ck_expect_number(scanned, count == 0 ? c->n : 0, "scanned without room for any");
        ck_expect_guards();
    }
    free(expected);
    free(got);
}

static void check_diff_mask(const struct ck_case *c)
{
    size_t mask_size = (c->n + 7) / 8;
    uint8_t *a = ck_bytes(0, c->n, c->placement), *b = ck_bytes(1, c->n, c->placement);
    uint8_t *expected = ck_bytes(2, mask_size, c->placement);
    ck_fill_pair(a, b, c->n, c->fill, c->gap);
    size_t count = ck_reference.table.diff_mask(a, b, c->n, expected);
    for (size_t i = 0; i < 8 * mask_size; i++)
        ck_expect_number(expected[i / 8] >> i % 8 & 1, i < c->n && a[i] != b[i], "a bit");
    CK_EACH_VERSION(v)
    {
        ck_begin(v);
        uint8_t *mask = ck_bytes(3, mask_size, c->placement);
        memset(mask, 0xee, mask_size);
        ck_expect_number(v->table.diff_mask(a, b, c->n, mask), count, "the number of bits");
        ck_expect_bytes(mask, expected, mask_size, "the mask");
        ck_expect_guards();
    }
}

/* Room for exactly so many words as the contract says; against diff_mask, whose bits were checked.
 */
static void check_diff_blocks(const struct ck_case *c)
{
    size_t all = (c->n + QB_BLOCK - 1) / QB_BLOCK, count = 0;
    uint8_t *a = ck_bytes(0, c->n, c->placement), *b = ck_bytes(1, c->n, c->placement);
    uint64_t *mask = calloc(all + 1, sizeof(*mask)), *words = calloc(all + 1, sizeof(*words));
    uint32_t *numbers = calloc(all + 1, sizeof(*numbers));
    ck_fill_pair(a, b, c->n, c->fill, c->gap);
    ck_reference.table.diff_mask(a, b, c->n, (uint8_t *)mask);
    for (size_t i = 0; i < all; i++)
        if (mask[i] != 0) {
            numbers[count] = (uint32_t)i;
            words[count++] = mask[i];
        }
    for (size_t i = 0; i <= ck_version_count; i++) {
        const struct ck_version *v = i == 0 ? &ck_reference : &ck_versions[i - 1];
        ck_begin(v);
        /* Both as far from their guards as their types' alignment asks for. */
        enum ck_placement at = c->placement == CK_MISALIGNED ? CK_AT_END : c->placement;
        void *blocks = ck_bytes(2, all * sizeof(uint32_t), at);
        void *masks = ck_bytes(3, all * sizeof(uint64_t), at);
        ck_expect_number(v->table.diff_blocks(a, b, c->n, blocks, masks), count, "blocks");
        ck_expect_bytes(blocks, numbers, count * sizeof(*numbers), "the numbers of the blocks");
        ck_expect_bytes(masks, words, count * sizeof(*words), "what differs in them");
        ck_expect_guards();
    }
    free(mask);
    free(words);
    free(numbers);
}

static size_t bench_is_zero(const struct qb_kernels *k, struct ck_bench_data *d)
{
    return (size_t)k->is_zero(d->a, d->n);
}

static size_t bench_common_prefix(const struct qb_kernels *k, struct ck_bench_data *d)
{
    return k->common_prefix(d->a, d->b, d->n);
}

static size_t bench_common_suffix(const struct qb_kernels *k, struct ck_bench_data *d)
{
    return k->common_suffix(d->a, d->b, d->n);
}

static size_t bench_diff_runs(const struct qb_kernels *k, struct ck_bench_data *d)
{
    size_t scanned, count = 0;
    for (size_t at = 0; at < d->n; at += scanned) {
        struct qb_run runs[256];
        count += k->diff_runs(d->a + at, d->b + at, d->n - at, d->gap, runs, 256, &scanned);
    }
    return count;
}

static size_t bench_diff_mask(const struct qb_kernels *k, struct ck_bench_data *d)
{
    return k->diff_mask(d->a, d->b, d->n, d->mask);
}

static size_t bench_diff_blocks(const struct qb_kernels *k, struct ck_bench_data *d)
{
    /* what the bench has room for anyhow: 8 bytes and 4 for each 64 */
    return k->diff_blocks(d->a, d->b, d->n, (uint32_t *)(void *)d->payload,
                          (uint64_t *)(void *)d->mask);
}

const struct ck_check ck_diff_checks[] = {
    {"is_zero", check_is_zero},
    {"common_prefix", check_common_prefix},
    {"common_suffix", check_common_suffix},
    {"diff_runs", check_diff_runs},
    {"diff_runs/portions", check_diff_runs_portions},
    {"diff_mask", check_diff_mask},
    {"diff_blocks", check_diff_blocks},
    {0},
};

const struct ck_bench ck_diff_benches[] = {
    {"is_zero", "zero", CK_EQUAL_ZERO, CK_MEMCMP, bench_is_zero},
    {"common_prefix", "equal", CK_EQUAL_RANDOM, CK_MEMCMP, bench_common_prefix},
    {"common_suffix", "equal", CK_EQUAL_RANDOM, CK_MEMCMP, bench_common_suffix},
    {"diff_runs", "equal", CK_EQUAL_RANDOM, CK_MEMCMP, bench_diff_runs},
    {"diff_runs", "sparse", CK_SPARSE, CK_MEMCMP, bench_diff_runs},
    {"diff_runs", "scattered", CK_SCATTERED, CK_MEMCMP, bench_diff_runs},
    {"diff_runs", "clusters", CK_CLUSTERS, CK_MEMCMP, bench_diff_runs},
    {"diff_runs", "random", CK_RANDOM, CK_MEMCMP, bench_diff_runs},
    {"diff_runs", "alternating", CK_ALTERNATING, CK_MEMCMP, bench_diff_runs},
    {"diff_mask", "equal", CK_EQUAL_RANDOM, CK_MEMCMP, bench_diff_mask},
    {"diff_mask", "random", CK_RANDOM, CK_MEMCMP, bench_diff_mask},
    {"diff_blocks", "equal", CK_EQUAL_RANDOM, CK_MEMCMP, bench_diff_blocks},
    {"diff_blocks", "scattered", CK_SCATTERED, CK_MEMCMP, bench_diff_blocks},
    {0},
};
