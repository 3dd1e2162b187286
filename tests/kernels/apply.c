/* SPDX-License-Identifier: Apache-2.0 */
/*
 * count_mask, apply_mask, pack_mask, apply_runs. Beside the comparison with the reference each
 * check closes the circle: what was packed from the new page and applied to the old one gives the
 * new page.
 */
#include "tests/kernels/check.h"

#include <stdlib.h>
#include <string.h>

static size_t mask_size(size_t n) { return (n + 7) / 8; }

static void check_apply_mask(const struct ck_case *c)
{
    uint8_t *old = ck_bytes(0, c->n, c->placement), *new = ck_bytes(1, c->n, c->placement);
    uint8_t *mask = ck_bytes(2, mask_size(c->n), c->placement);
    ck_fill_pair(old, new, c->n, c->fill, c->gap);
    size_t count = ck_reference.table.diff_mask(old, new, c->n, mask);
    uint8_t *payload = ck_bytes(3, count, c->placement);
    ck_expect_number(ck_reference.table.pack_mask(payload, new, c->n, mask), count, "packed");
    for (size_t i = 0; i <= ck_version_count; i++) {
        const struct ck_version *v = i == 0 ? &ck_reference : &ck_versions[i - 1];
        ck_begin(v);
        uint8_t *page = ck_bytes(4, c->n, c->placement);
        memcpy(page, old, c->n);
        ck_expect_number(v->table.count_mask(mask, c->n), count, "bits");
        v->table.apply_mask(page, c->n, mask, payload, count);
        ck_expect_bytes(page, new, c->n, "the page");
        ck_expect_guards();
    }
}

static void check_pack_mask(const struct ck_case *c)
{
    uint8_t *old = ck_bytes(0, c->n, c->placement), *new = ck_bytes(1, c->n, c->placement);
    uint8_t *mask = ck_bytes(2, mask_size(c->n), c->placement);
    ck_fill_pair(old, new, c->n, c->fill, c->gap);
    size_t count = ck_reference.table.diff_mask(old, new, c->n, mask);
    uint8_t *expected = ck_bytes(3, count, c->placement);
    for (size_t i = 0, used = 0; i < c->n; i++) {
        if (old[i] != new[i])
            expected[used++] = new[i];
    }
    for (size_t i = 0; i <= ck_version_count; i++) {
        const struct ck_version *v = i == 0 ? &ck_reference : &ck_versions[i - 1];
        ck_begin(v);
        uint8_t *payload = ck_bytes(4, count, c->placement);
        memset(payload, 0xee, count);
        ck_expect_number(v->table.pack_mask(payload, new, c->n, mask), count, "packed");
        ck_expect_bytes(payload, expected, count, "the payload");
        ck_expect_guards();
    }
}

/* The bytes of the page under the runs, one after the other. */
static size_t gather(uint8_t *payload, const uint8_t *page, const struct qb_run *runs, size_t count)
{
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        if (payload != NULL)
            memcpy(payload + used, page + runs[i].offset, runs[i].length);
        used += runs[i].length;
    }
    return used;
}

static void check_apply_runs(const struct ck_case *c)
{
    uint8_t *old = ck_bytes(0, c->n, c->placement), *new = ck_bytes(1, c->n, c->placement);
    ck_fill_pair(old, new, c->n, c->fill, c->gap);
    size_t all = c->n / 2 + 1, scanned;
    struct qb_run *runs = malloc(all * sizeof(*runs));
    size_t count = ck_reference.table.diff_runs(old, new, c->n, c->gap, runs, all, &scanned);
    size_t bytes = gather(NULL, new, runs, count);
    uint8_t *payload = ck_bytes(2, bytes, c->placement);
    gather(payload, new, runs, count);
    for (size_t i = 0; i <= ck_version_count; i++) {
        const struct ck_version *v = i == 0 ? &ck_reference : &ck_versions[i - 1];
        ck_begin(v);
        uint8_t *page = ck_bytes(3, c->n, c->placement);
        memcpy(page, old, c->n);
        ck_expect_number(v->table.apply_runs(page, runs, count, payload), bytes, "payload used");
        ck_expect_bytes(page, new, c->n, "the page");
        ck_expect_guards();
    }
    free(runs);
}

/* A run is copied exactly, whatever its length: the bytes beside it are not written at all, not
 * even with what they held (a reader of another block may look at them). Empty runs are legal. */
static void check_apply_runs_lengths(const struct ck_case *c)
{
    size_t before = c->number % 7, length = c->n;
    if (length > CK_MAX_LENGTH - 64)
        length = CK_MAX_LENGTH - 64;
    struct qb_run runs[] = {{0, before}, {before, length}, {before + length, 0}};
    uint8_t *payload = ck_bytes(0, before + length, c->placement);
    uint8_t *other = ck_bytes(1, before + length, c->placement);
    ck_fill_pair(payload, other, before + length, c->fill, c->gap);
    CK_EACH_VERSION(v)
    {
        ck_begin(v);
        uint8_t *page = ck_bytes(2, before + length, c->placement);
        memset(page, 0, before + length);
        ck_expect_number(v->table.apply_runs(page, runs, 3, payload), before + length, "used");
        ck_expect_bytes(page, payload, before + length, "the page");
        ck_expect_guards();
    }
}

static size_t bench_apply_mask(const struct qb_kernels *k, struct ck_bench_data *d)
{
    size_t count = k->count_mask(d->mask, d->n);
    k->apply_mask(d->to, d->n, d->mask, d->payload, count);
    return count;
}

static size_t bench_pack_mask(const struct qb_kernels *k, struct ck_bench_data *d)
{
    return k->pack_mask(d->payload, d->b, d->n, d->mask);
}

static size_t bench_apply_runs(const struct qb_kernels *k, struct ck_bench_data *d)
{
    return k->apply_runs(d->to, d->runs, d->run_count, d->payload);
}

const struct ck_check ck_apply_checks[] = {
    {"apply_mask", check_apply_mask},
    {"pack_mask", check_pack_mask},
    {"apply_runs", check_apply_runs},
    {"apply_runs/lengths", check_apply_runs_lengths},
    {0},
};

const struct ck_bench ck_apply_benches[] = {
    {"apply_mask", "sparse", CK_SPARSE, CK_MEMCPY, bench_apply_mask},
    {"apply_mask", "clusters", CK_CLUSTERS, CK_MEMCPY, bench_apply_mask},
    {"apply_mask", "alternating", CK_ALTERNATING, CK_MEMCPY, bench_apply_mask},
    {"apply_mask", "random", CK_RANDOM, CK_MEMCPY, bench_apply_mask},
    {"apply_mask", "every byte", CK_INVERTED, CK_MEMCPY, bench_apply_mask},
    {"pack_mask", "sparse", CK_SPARSE, CK_MEMCPY, bench_pack_mask},
    {"pack_mask", "alternating", CK_ALTERNATING, CK_MEMCPY, bench_pack_mask},
    {"pack_mask", "random", CK_RANDOM, CK_MEMCPY, bench_pack_mask},
    {"apply_runs", "every byte", CK_INVERTED, CK_MEMCPY, bench_apply_runs},
    {"apply_runs", "clusters", CK_CLUSTERS, CK_MEMCPY, bench_apply_runs},
    {"apply_runs", "sparse", CK_SPARSE, CK_MEMCPY, bench_apply_runs},
    {0},
};
