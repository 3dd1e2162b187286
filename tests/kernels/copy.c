/* SPDX-License-Identifier: Apache-2.0 */
/* copy and zero, against the C library. */
#include "tests/kernels/check.h"

#include <string.h>

static void check_copy(const struct ck_case *c)
{
    uint8_t *from = ck_bytes(0, c->n, c->placement), *other = ck_bytes(1, c->n, c->placement);
    ck_fill_pair(from, other, c->n, c->fill, c->gap);
    CK_EACH_VERSION(v)
    {
        ck_begin(v);
        uint8_t *to = ck_bytes(2, c->n, (enum ck_placement)(c->number % CK_PLACEMENTS));
        memset(to, 0x5a, c->n);
        v->table.copy(to, from, c->n);
        ck_expect_bytes(to, from, c->n, "the copy");
        ck_expect_guards();
    }
}

static void check_zero(const struct ck_case *c)
{
    CK_EACH_VERSION(v)
    {
        ck_begin(v);
        uint8_t *to = ck_bytes(0, c->n, c->placement), *other = ck_bytes(1, c->n, c->placement);
        ck_fill_pair(to, other, c->n, c->fill, c->gap);
        v->table.zero(to, c->n);
        memset(other, 0, c->n);
        ck_expect_bytes(to, other, c->n, "the zeroed bytes");
        ck_expect_guards();
    }
}

static size_t bench_copy(const struct qb_kernels *k, struct ck_bench_data *d)
{
    k->copy(d->to, d->a, d->n);
    return d->to[d->n - 1];
}

static size_t bench_zero(const struct qb_kernels *k, struct ck_bench_data *d)
{
    k->zero(d->to, d->n);
    return d->to[d->n - 1];
}

const struct ck_check ck_copy_checks[] = {{"copy", check_copy}, {"zero", check_zero}, {0}};

const struct ck_bench ck_copy_benches[] = {
    {"copy", "all", CK_EQUAL_RANDOM, CK_MEMCPY, bench_copy},
    {"zero", "all", CK_EQUAL_RANDOM, CK_MEMSET, bench_zero},
    {0},
};
