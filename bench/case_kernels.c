/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes in memory: the kernels, applying a delta and finding one, beside memcpy, memset and memcmp
 * of the C library on the same buffers.
 *
 * `size` is the length of the buffers. A run repeats one operation over them, so small ones are
 * hot in the cache.
 */
#include <string.h>

#include "backend/kernels.h"
#include "bench/case.h"
#include "runtime/apply_bytes.h"
#include "runtime/os.h"

struct bytes {
    const struct qb_kernels *kernels;
    size_t n;
    uint8_t *old, *new_, *to, *operations, *mask;
    size_t operations_length;
    struct qb_run *runs;
    struct qr_edits edits;
};

enum { RUN_GAP = 8, INDEX_BYTES = 64 << 20 };

static int setup(struct qm_context *context)
{
    struct bytes *b = context->state = qr_calloc(1, sizeof *b);
    uint64_t seed = 1;
    int rc;
    if (!b)
        return qm_no_memory();
    b->kernels = qb_kernels();
    b->n = context->size;
    rc = qm_map(b->n, &b->old);
    rc = rc < 0 ? rc : qm_map(b->n, &b->new_);
    rc = rc < 0 ? rc : qm_map(b->n, &b->to);
    rc = rc < 0 ? rc : qm_map(b->n / 8 + 64, &b->mask);
    rc = rc < 0 ? rc : qm_map(2 * b->n + 64, &b->operations);
    b->runs = qr_calloc(b->n / RUN_GAP + 1, sizeof *b->runs);
    if (rc < 0 || !b->runs)
        return rc < 0 ? rc : qm_no_memory();
    qm_random_fill(&seed, b->old, b->n);
    memcpy(b->new_, b->old, b->n);
    memcpy(b->to, b->old, b->n);
    return 0;
}

static void finish(struct qm_context *context)
{
    struct bytes *b = context->state;
    if (!b)
        return;
    qm_unmap(b->old, b->n);
    qm_unmap(b->new_, b->n);
    qm_unmap(b->to, b->n);
    qm_unmap(b->mask, b->n / 8 + 64);
    qm_unmap(b->operations, 2 * b->n + 64);
    qr_edits_finish(&b->edits);
    qr_free(b->runs);
    qr_free(b);
}

/* A side whose operation is one expression and takes `amount` from the sample's point of view. */
#define SIDE(name, amount, operation)                                                              \
    static int name(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)        \
    {                                                                                              \
        struct bytes *b = context->state;                                                          \
        double start = qm_now();                                                                   \
        for (uint64_t i = 0; i < repeats; i++) {                                                   \
            operation;                                                                             \
            qm_keep(b);                                                                            \
        }                                                                                          \
        *sample = (struct qm_sample){qm_now() - start, (double)(amount) * (double)repeats};        \
        return 0;                                                                                  \
    }

static volatile size_t sink; /* what a function returns is used */

SIDE(run_copy, b->n, b->kernels->copy(b->to, b->old, b->n))
SIDE(run_memcpy, b->n, memcpy(b->to, b->old, b->n))
SIDE(run_zero, b->n, b->kernels->zero(b->to, b->n))
SIDE(run_memset, b->n, memset(b->to, 0, b->n))
SIDE(run_memcmp, b->n, sink = (size_t)memcmp(b->old, b->to, b->n))
SIDE(run_prefix, b->n, sink = b->kernels->common_prefix(b->old, b->to, b->n))
SIDE(run_diff_mask, b->n, sink = b->kernels->diff_mask(b->old, b->new_, b->n, b->mask))

static size_t find_runs(struct bytes *b)
{
    size_t scanned;
    return b->kernels->diff_runs(b->old, b->new_, b->n, RUN_GAP, b->runs, b->n / RUN_GAP + 1,
                                 &scanned);
}
SIDE(run_diff_runs, b->n, sink = find_runs(b))

static void find_edits(struct bytes *b)
{
    b->edits.count = 0;
    sink = (size_t)qr_diff(b->old, b->n, b->new_, b->n, INDEX_BYTES, &b->edits);
}
SIDE(run_diff, b->n, find_edits(b))

/* 4 bytes of each 400 differ. */
static int setup_sparse(struct qm_context *context)
{
    int rc = setup(context);
    struct bytes *b = context->state;
    uint64_t seed = 2;
    for (size_t at = 0; rc == 0 && at + 400 <= b->n; at += 400) {
        size_t here = at + qm_random(&seed) % 396;
        for (size_t i = 0; i < 4; i++)
            b->new_[here + i] ^= (uint8_t)(1 + qm_random(&seed) % 255);
    }
    return rc;
}

/* --- applying a delta --- */

static int setup_dense(struct qm_context *context)
{
    int rc = setup(context);
    struct bytes *b = context->state;
    if (rc < 0)
        return rc;
    uint8_t *end = qr_put_varint(qr_put_varint(b->operations, 0), b->n << 3 | 0);
    memcpy(end, b->new_, b->n);
    b->operations_length = (size_t)(end - b->operations) + b->n;
    return 0;
}

/* Every second byte on average, in random places. */
static int setup_mask(struct qm_context *context)
{
    int rc = setup(context);
    struct bytes *b = context->state;
    uint64_t seed = 3;
    if (rc < 0)
        return rc;
    uint8_t *mask = qr_put_varint(qr_put_varint(b->operations, 0), b->n << 3 | 1);
    qm_random_fill(&seed, mask, b->n / 8);
    size_t payload = b->kernels->pack_mask(mask + b->n / 8, b->new_, b->n, mask);
    b->operations_length = (size_t)(mask - b->operations) + b->n / 8 + payload;
    return 0;
}

static void apply_all(struct bytes *b)
{
    uint64_t old_end = 0;
    sink = (size_t)qr_apply_in_place(b->to, b->n, qr_cursor(b->operations, b->operations_length),
                                     &old_end);
}
SIDE(run_apply, b->n, apply_all(b))

/* One overwrite of 64 bytes in a page of 4 KiB, another page and place each time. */
enum { PAGE = 4096, SPARSE = 64 };
static inline size_t any_place(uint64_t *seed, const struct bytes *b)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (*seed >> 20) % b->n / SPARSE * SPARSE;
}
static void apply_sparse(struct bytes *b, uint64_t *seed)
{
    size_t at = any_place(seed, b);
    uint64_t old_end = 0;
    uint8_t *out = qr_put_varint(qr_put_varint(b->operations, at % PAGE), SPARSE << 3);
    sink = (size_t)qr_apply_in_place(b->to + at / PAGE * PAGE, PAGE,
                                     qr_cursor(b->operations, (size_t)(out - b->operations) + 64),
                                     &old_end);
}
static int run_sparse(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct bytes *b = context->state;
    uint64_t seed = repeats;
    double start = qm_now();
    for (uint64_t i = 0; i < repeats; i++)
        apply_sparse(b, &seed);
    *sample = (struct qm_sample){qm_now() - start, (double)repeats};
    return 0;
}
static int store_sparse(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct bytes *b = context->state;
    uint64_t seed = repeats;
    double start = qm_now();
    for (uint64_t i = 0; i < repeats; i++) {
        memcpy(b->to + any_place(&seed, b), b->operations, SPARSE);
        qm_keep(b->to);
    }
    *sample = (struct qm_sample){qm_now() - start, (double)repeats};
    return 0;
}

#define WORK(name, setup, run, reference)                                                          \
    static const struct qm_work name = {setup, run, reference, finish}
WORK(copying, setup, run_copy, run_memcpy);
WORK(zeroing, setup, run_zero, run_memset);
WORK(comparing, setup, run_prefix, run_memcmp);
WORK(finding_runs, setup_sparse, run_diff_runs, run_memcmp);
WORK(finding_mask, setup_sparse, run_diff_mask, run_memcmp);
WORK(applying_dense, setup_dense, run_apply, run_memcpy);
WORK(applying_sparse, setup_dense, run_sparse, store_sparse);
WORK(applying_mask, setup_mask, run_apply, run_memcpy);
WORK(diffing_equal, setup, run_diff, run_memcmp);
WORK(diffing_sparse, setup_sparse, run_diff, run_memcmp);

/* clang-format off */
#define NO_TARGET {QM_NOTHING, 0}
const struct qm_case qm_kernel_cases[] = {
    {"kernel/copy-4k", "copy 4 KiB", "memcpy",
     "The copy kernel, hot in the cache, beside memcpy.",
     &qm_gb_s, NO_TARGET, &copying, .size = 4096},
    {"kernel/copy-1m", "copy 1 MiB", "memcpy",
     "The copy kernel on 1 MiB, beside memcpy.",
     &qm_gb_s, NO_TARGET, &copying, .size = 1 << 20},
    {"kernel/copy-256m", "copy 256 MiB", "memcpy",
     "The copy kernel on more than the second-level cache holds, beside memcpy.",
     &qm_gb_s, NO_TARGET, &copying, .size = 256 << 20, .tier = QM_FULL},
    {"kernel/zero-64k", "zero 64 KiB", "memset",
     "The zero kernel beside memset.",
     &qm_gb_s, NO_TARGET, &zeroing, .size = 64 << 10},
    {"kernel/equal-64k", "compare 64 KiB, equal", "memcmp",
     "The common prefix of equal bytes, beside memcmp.",
     &qm_gb_s, NO_TARGET, &comparing, .size = 64 << 10},
    {"kernel/diff-runs-64k", "runs that differ in 64 KiB", "memcmp",
     "Finding the runs of bytes that differ, where 4 of each 400 do, beside memcmp of equal bytes.",
     &qm_gb_s, NO_TARGET, &finding_runs, .size = 64 << 10},
    {"kernel/diff-mask-4k", "bit mask of what differs in 4 KiB", "memcmp",
     "One bit for each byte that differs, beside memcmp of equal bytes.",
     &qm_gb_s, NO_TARGET, &finding_mask, .size = 4096},
    {"delta/apply-dense-64k", "apply dense 64 KiB", "memcpy",
     "A delta that overwrites a page of 64 KiB is decoded and applied, beside memcpy of the page.",
     &qm_gb_s, {QM_RATIO, 0.9}, &applying_dense, .size = 64 << 10},
    {"delta/apply-sparse", "apply sparse 64 B in 4 KiB", "64 B store",
     "A delta of one run of 64 bytes is decoded and applied to a page of 4 KiB, another one of 256 "
     "each time, beside a copy of 64 bytes to the same place.",
     &qm_ns, {QM_FIGURE, 15}, &applying_sparse, .size = 1 << 20},
    {"delta/apply-mask-4k", "apply packed mask 4 KiB", "memcpy",
     "A delta of a bit mask and packed bytes, half of the page in random places, is decoded and "
     "applied, beside memcpy of the page.",
     &qm_gb_s, {QM_FIGURE, 40}, &applying_mask, .size = 4096},
    {"delta/diff-equal-1m", "diff 1 MiB, equal", "memcmp",
     "The search for edits between two equal contents of 1 MiB, beside memcmp.",
     &qm_gb_s, NO_TARGET, &diffing_equal, .size = 1 << 20},
    {"delta/diff-sparse-1m", "diff 1 MiB, 1 % differs", "memcmp",
     "The search for edits between contents of 1 MiB of which 4 bytes in each 400 differ, beside "
     "memcmp of equal bytes.",
     &qm_gb_s, NO_TARGET, &diffing_sparse, .size = 1 << 20},
    {0},
};
