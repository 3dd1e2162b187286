/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Having states back from a log, verified: the newest from the whole log, of dense and of sparse
 * deltas, and any epoch of many.
 *
 * `size` is the bytes of the state, in pages of 4 KiB. The logs hold dense deltas of three times
 * the state, a 64-byte delta for each 64 bytes of it (in commits of 1,000), or a commit of one
 * 64-byte delta for each 1 KiB of it.
 */
#include <string.h>
#include <sys/stat.h>

#include "bench/floor.h"
#include "bench/store.h"
#include "runtime/os.h"

enum { PAGE = 4096, DELTA = 64, BATCH = 1000 };

struct replay {
    struct qm_store store;
    struct qm_cold_source source;
    struct qm_floor_log floor;
    uint8_t *memory, *from;
    size_t size;
    uint64_t log_bytes, deltas, epochs, seed;
};

static int setup(struct qm_context *context)
{
    struct replay *r = context->state = qr_calloc(1, sizeof *r);
    if (!r)
        return qm_no_memory();
    r->seed = 1;
    r->size = context->size;
    r->floor.file = -1;
    int rc = qm_map(r->size, &r->memory);
    return rc < 0 ? rc
                  : qm_store_create(context, "store.tlog", QALLOW_SYNC_NONE, r->size / PAGE, PAGE,
                                    &r->store);
}

static void finish(struct qm_context *context)
{
    struct replay *r = context->state;
    if (!r)
        return;
    qm_floor_close(&r->floor);
    qm_store_finish(&r->store);
    qm_cold_source_close(&r->source);
    qm_unmap(r->memory, r->size);
    qm_unmap(r->from, r->size);
    qr_free(r);
}

/* The log is complete: closed, its length known. */
static int seal(struct replay *r)
{
    struct stat st;
    int rc = qm_store_close(&r->store);
    if (rc == 0 && stat(r->store.path, &st) != 0)
        rc = qr_fail(QALLOW_E_IO, "the log is gone");
    r->log_bytes = rc == 0 ? (uint64_t)st.st_size : 0;
    return rc;
}

static int load_whole(struct replay *r, unsigned threads, double operations,
                      struct qm_sample *sample)
{
    double start = qm_now();
    int rc = qm_store_load(&r->store, r->store.path, 0, 1, threads, r->memory);
    *sample = (struct qm_sample){qm_now() - start, operations};
    return rc;
}

/* --- dense --- */

static int setup_dense(struct qm_context *context)
{
    int rc = setup(context);
    struct replay *r = context->state;
    if (rc == 0)
        rc = qm_cold_source_open(&r->source);
    for (size_t written = 0; rc == 0 && written < 3 * r->size; written += 64 * PAGE) {
        rc = qm_stopped(context);
        rc = rc < 0 ? rc : qm_store_write_pages(&r->store, &r->source, 64);
    }
    return rc < 0 ? rc : seal(r);
}

static int run_dense(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct replay *r = context->state;
    return load_whole(r, context->threads, (double)r->log_bytes, sample);
}
static int run_dense_alone(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct replay *r = context->state;
    return load_whole(r, 1, (double)r->log_bytes, sample);
}

static int run_dense_floor(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct replay *r = context->state;
    double start = qm_now();
    int rc = qm_floor_copy_file(r->store.path, r->memory, r->size);
    *sample = (struct qm_sample){qm_now() - start, (double)r->log_bytes};
    return rc;
}

/* --- sparse --- */

static int setup_sparse(struct qm_context *context)
{
    int rc = setup(context);
    struct replay *r = context->state;
    struct qm_writer writer = {.store = &r->store, .seed = 1, .threads = 1, .length = DELTA};
    if (rc == 0)
        rc = qm_floor_open(context, r->size, &r->floor);
    for (; rc == 0 && r->deltas < r->size / DELTA; r->deltas += BATCH) {
        rc = qm_stopped(context);
        rc = rc < 0 ? rc : qm_store_write(&writer, BATCH);
        rc = rc < 0 ? rc : qm_floor_commit(&r->floor, BATCH);
    }
    return rc < 0 ? rc : seal(r);
}

static int run_sparse(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct replay *r = context->state;
    return load_whole(r, context->threads, (double)r->deltas, sample);
}
static int run_sparse_alone(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct replay *r = context->state;
    return load_whole(r, 1, (double)r->deltas, sample);
}

static int run_sparse_floor(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct replay *r = context->state;
    double start = qm_now();
    int rc = qm_floor_replay(&r->floor);
    *sample = (struct qm_sample){qm_now() - start, (double)r->deltas};
    return rc;
}

/* --- all of history, in several threads --- */

static int setup_verify(struct qm_context *context)
{
    int rc = setup_sparse(context);
    struct replay *r = context->state;
    return rc < 0 ? rc : qallow_open(r->store.path, NULL, &r->store.store);
}

static int verify(struct replay *r, unsigned threads, struct qm_sample *sample)
{
    double start = qm_now();
    int rc = qallow_verify(r->store.store, (int)threads);
    *sample = (struct qm_sample){qm_now() - start, (double)r->log_bytes};
    return rc;
}
static int run_verify(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    return verify(context->state, context->threads, sample);
}
static int run_verify_alone(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    return verify(context->state, 1, sample);
}

/* --- seek --- */

static int setup_seek(struct qm_context *context)
{
    int rc = setup(context);
    struct replay *r = context->state;
    struct qm_writer writer = {.store = &r->store, .seed = 1, .threads = 1, .length = DELTA};
    for (uint64_t i = 0; rc == 0 && i < r->size / 1024; i++) {
        rc = i % 1024 ? 0 : qm_stopped(context);
        rc = rc < 0 ? rc : qm_store_write(&writer, 1);
    }
    if (rc == 0)
        rc = qm_map(r->size, &r->from);
    if (rc == 0)
        r->epochs = qallow_view_epoch(qallow_newest(r->store.store));
    return rc < 0 ? rc : seal(r);
}

static int run_seek(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct replay *r = context->state;
    /* an epoch that has all pages */
    uint64_t epoch = r->epochs - qm_random(&r->seed) % (r->size / 1024);
    double start = qm_now();
    int rc = qm_store_load(&r->store, r->store.path, epoch, 0, context->threads, r->memory);
    *sample = (struct qm_sample){qm_now() - start, 1};
    return rc;
}

static int run_memcpy(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct replay *r = context->state;
    double start = qm_now();
    memcpy(r->memory, r->from, r->size);
    qm_keep(r->memory);
    *sample = (struct qm_sample){qm_now() - start, 1};
    return 0;
}

static const struct qm_work dense = {setup_dense, run_dense, run_dense_floor, finish};
static const struct qm_work sparse = {setup_sparse, run_sparse, run_sparse_floor, finish};
static const struct qm_work dense_threads = {setup_dense, run_dense, run_dense_alone, finish};
static const struct qm_work sparse_threads = {setup_sparse, run_sparse, run_sparse_alone, finish};
static const struct qm_work verifying = {setup_verify, run_verify, run_verify_alone, finish};
static const struct qm_work seek = {setup_seek, run_seek, run_memcpy, finish};

/* clang-format off */
#define MIB (UINT64_C(1) << 20)
const struct qm_case qm_replay_cases[] = {
    {"replay/dense-4k", "replay of 4 KiB deltas", "read + check + copy",
     "A log of dense deltas is read whole and the newest state loaded into memory, verified; "
     "beside reading the same file, hashing it and copying it. Bytes of log a second.",
     &qm_gb_s, {QM_RATIO, 0.8}, &dense, .size = 64 * MIB, .smoke_size = 8 * MIB, .fixed = 1},
    {"replay/dense-threads", "replay of 4 KiB deltas, all threads", "one thread",
     "The same in all threads; beside one thread.",
     &qm_gb_s, {QM_RATIO, 1.7}, &dense_threads, .size = 64 * MIB, .smoke_size = 8 * MIB,
     .threads = QM_ALL_THREADS, .fixed = 1},
    {"replay/sparse-64", "replay of 64 B deltas", "read + check + store",
     "A log of 64-byte deltas, 1,000 in a commit, is read whole and the newest state loaded into "
     "memory, verified; beside reading, checking and storing records of 88 bytes.",
     &qm_million_s, {QM_RATIO, 0.4}, &sparse, .size = 64 * MIB, .smoke_size = 2 * MIB, .fixed = 1},
    {"replay/sparse-threads", "replay of 64 B deltas, all threads", "one thread",
     "The same in all threads; beside one thread.",
     &qm_million_s, {QM_RATIO, 1.7}, &sparse_threads, .size = 64 * MIB, .smoke_size = 2 * MIB,
     .threads = QM_ALL_THREADS, .fixed = 1},
    {"replay/verify-threads", "verify all epochs, all threads", "one thread",
     "The digest of every epoch of a log of 64-byte deltas recomputed from its bytes, in all "
     "threads; beside one thread. Bytes of log a second.",
     &qm_mb_s, {QM_RATIO, 1.7}, &verifying, .size = 4 * MIB, .smoke_size = 1 * MIB,
     .threads = QM_ALL_THREADS, .fixed = 1},
    {"replay/seek", "any epoch of many, state in memory", "memcpy",
     "The log is opened and the state of a random epoch loaded into memory, verified; beside "
     "memcpy of as many bytes.",
     &qm_ms, {QM_RATIO, 8}, &seek, .size = 64 * MIB, .smoke_size = 4 * MIB, .fixed = 1},
    {0},
};
