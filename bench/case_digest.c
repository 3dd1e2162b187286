/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The digest, kept while bytes change: the term of the cell before and after a write of 64 bytes to
 * a random place. The writes are known some steps ahead, as those of a commit and of a body of
 * records are, and what they touch is fetched then. The reference makes the same writes and keeps
 * nothing.
 *
 * `size` is the bytes of the state.
 */
#include <string.h>

#include "backend/kernels.h"
#include "bench/case.h"
#include "runtime/os.h"

enum { DELTA = 64, AHEAD = 16 };

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

struct write {
    size_t at;
    uint8_t bytes[DELTA];
};

static void plan(struct digest *d, struct write *write)
{
    enum { LINE = 64 };
    write->at = next_place(d, write->bytes);
    const uint8_t *cell = d->state + write->at / QB_CELL * QB_CELL;
    for (size_t i = 0; i < QB_CELL; i += LINE)
        __builtin_prefetch(cell + i);
}

static int run(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    const struct qb_kernels *k = qb_kernels();
    struct digest *d = context->state;
    struct write writes[AHEAD] = {{0}};
    double start = qm_now();
    for (size_t i = 0; i < AHEAD; i++)
        plan(d, &writes[i]);
    for (uint64_t i = 0; i < repeats; i++) {
        struct write *write = &writes[i % AHEAD];
        size_t cell = write->at / QB_CELL;
        uint8_t *from = d->state + cell * QB_CELL;
        d->sum = qb_u128_sub(d->sum, k->hash_cells(from, QB_CELL, 1, cell));
        memcpy(d->state + write->at, write->bytes, DELTA);
        d->sum = qb_u128_add(d->sum, k->hash_cells(from, QB_CELL, 1, cell));
        plan(d, write);
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
