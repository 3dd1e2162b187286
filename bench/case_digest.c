/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The digest, kept while bytes change: the term of the cell before and after a write of 64 bytes to
 * a random place. The reference makes the same writes and keeps nothing.
 *
 * `size` is the bytes of the state.
 */
#include <string.h>

#include "backend/kernels.h"
#include "bench/case.h"
#include "runtime/os.h"

enum { DELTA = 64 };

struct digest {
    uint8_t *state;
    size_t size;
    uint64_t seed;
    struct qb_u128 sum;
};

static int setup(struct qm_context *context)
{
    struct digest *d = context->state = qr_calloc(1, sizeof *d);
    if (!d)
        return qm_no_memory();
    d->size = context->size;
    d->seed = 1;
    return qm_map(d->size, &d->state);
}

static void finish(struct qm_context *context)
{
    struct digest *d = context->state;
    if (d)
        qm_unmap(d->state, d->size);
    qr_free(d);
}

static size_t next_place(struct digest *d, uint8_t bytes[DELTA])
{
    uint64_t r = qm_random(&d->seed);
    memcpy(bytes, &r, sizeof r);
    return r % (d->size / DELTA) * DELTA;
}

static int run(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    const struct qb_kernels *k = qb_kernels();
    struct digest *d = context->state;
    uint8_t bytes[DELTA] = {0};
    double start = qm_now();
    for (uint64_t i = 0; i < repeats; i++) {
        size_t at = next_place(d, bytes), cell = at / QB_CELL;
        uint8_t *from = d->state + cell * QB_CELL;
        d->sum = qb_u128_sub(d->sum, k->hash_cells(from, QB_CELL, 1, cell));
        memcpy(d->state + at, bytes, DELTA);
        d->sum = qb_u128_add(d->sum, k->hash_cells(from, QB_CELL, 1, cell));
    }
    qm_keep(&d->sum);
    *sample = (struct qm_sample){qm_now() - start, (double)repeats};
    return 0;
}

static int run_stores(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct digest *d = context->state;
    uint8_t bytes[DELTA] = {0};
    double start = qm_now();
    for (uint64_t i = 0; i < repeats; i++) {
        memcpy(d->state + next_place(d, bytes), bytes, DELTA);
        qm_keep(d->state);
    }
    *sample = (struct qm_sample){qm_now() - start, (double)repeats};
    return 0;
}

static const struct qm_work digesting = {setup, run, run_stores, finish};

/* clang-format off */
#define MIB (UINT64_C(1) << 20)
#define WHAT "The digest's terms of a cell before and after 64 bytes of it change, in a random " \
             "place of the state; beside the same writes without a digest."
const struct qm_case qm_digest_cases[] = {
    {"digest/64m", "digest of a 64 B delta, state 64 MiB", "64 B store", WHAT,
     &qm_ns, {QM_FIGURE, 50}, &digesting, .size = 64 * MIB},
    {"digest/1g", "digest of a 64 B delta, state 1 GiB", "64 B store", WHAT,
     &qm_ns, {QM_FIGURE, 50}, &digesting, .size = 1024 * MIB, .tier = QM_FULL},
    {0},
};
