/* SPDX-License-Identifier: Apache-2.0 */
/* copy and zero, against the C library. */
#include "backend/cpu/versions.h"
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

/* Around the length from which copies bypass the cache. */
static void check_copy_large(const struct ck_case *c)
{
    static const size_t beside[] = {0, 1, 31, 32, 63, 64, 65, 127, 4097};
    static struct ck_buffer from, to;
    const size_t most = QB_STREAM_FROM + 4097;
    if (from.mapping == NULL) {
        ck_buffer_init(&from, most);
        ck_buffer_init(&to, most);
    }
    size_t n = QB_STREAM_FROM + beside[c->number % (sizeof(beside) / sizeof(beside[0]))];
    if (c->number % 11 == 0)
        n = QB_STREAM_FROM - 1;
    uint8_t *p = ck_place(&from, n, (enum ck_placement)(c->number / 16 % CK_PLACEMENTS));
    for (size_t i = 0; i + 8 <= n; i += 8) { /* no two words are the same */
        uint64_t word = i * UINT64_C(0x9E3779B97F4A7C15) + c->number;
        memcpy(p + i, &word, sizeof(word));
    }
    CK_EACH_VERSION(v)
    {
        ck_begin(v);
        uint8_t *q = ck_place(&to, n, (enum ck_placement)(c->number / 64 % CK_PLACEMENTS));
        memset(q, 0x5a, n);
        v->table.copy(q, p, n);
        ck_expect(memcmp(p, q, n) == 0, "the large copy is exact");
        ck_expect(ck_guards_intact(&to), "the large copy stays within its buffer");
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

const struct ck_check ck_copy_checks[] = {
    {"copy", check_copy}, {"copy/large", check_copy_large, 12}, {"zero", check_zero}, {0}};

const struct ck_bench ck_copy_benches[] = {
    {"copy", "all", CK_EQUAL_RANDOM, CK_MEMCPY, bench_copy},
    {"zero", "all", CK_EQUAL_RANDOM, CK_MEMSET, bench_zero},
    {0},
};
