/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commits of 64-byte deltas through the public C API: a thousand of them in a commit that nobody
 * syncs, and one in a commit that is synced, in one thread and in several.
 *
 * `size` is the bytes of the state, in pages of 4 KiB.
 */
#include "bench/floor.h"
#include "bench/store.h"
#include "runtime/os.h"

enum { PAGE = 4096, BATCH = 1000, DELTA = 64, MOST_THREADS = 64 };

struct commits {
    struct qm_store store;
    struct qm_floor_log floor;
    struct qm_floor_sync sync_floor;
    uint64_t repeats, writes;
    unsigned threads;
    struct qm_writer writers[MOST_THREADS];
};

static int setup(struct qm_context *context, enum qallow_sync sync, uint64_t writes)
{
    struct commits *c = context->state = qr_calloc(1, sizeof *c);
    if (!c)
        return qm_no_memory();
    if (context->threads > MOST_THREADS)
        context->threads = MOST_THREADS;
    c->writes = writes;
    int rc = qm_store_create(context, "store.tlog", sync, context->size / PAGE, PAGE, &c->store);
    for (unsigned i = 0; i < MOST_THREADS; i++)
        c->writers[i] =
            (struct qm_writer){.store = &c->store, .seed = i, .thread = i, .length = DELTA};
    return rc;
}
static int setup_buffered(struct qm_context *context, enum qallow_sync sync, uint64_t writes)
{
    int rc = setup(context, sync, writes);
    struct commits *c = context->state;
    return rc < 0 ? rc : qm_floor_open(context, context->size, &c->floor);
}
static int setup_batched(struct qm_context *context)
{
    return setup_buffered(context, QALLOW_SYNC_NONE, BATCH);
}
static int setup_single(struct qm_context *context)
{
    return setup_buffered(context, QALLOW_SYNC_NONE, 1);
}
static int setup_interval(struct qm_context *context)
{
    return setup_buffered(context, QALLOW_SYNC_INTERVAL, 1);
}
static int setup_durable(struct qm_context *context)
{
    int rc = setup(context, QALLOW_SYNC_COMMIT, 1);
    struct commits *c = context->state;
    return rc < 0 ? rc : qm_floor_sync_open(context, &c->sync_floor);
}

static void finish(struct qm_context *context)
{
    struct commits *c = context->state;
    if (!c)
        return;
    qm_floor_close(&c->floor);
    qm_floor_sync_close(&c->sync_floor);
    qm_store_finish(&c->store);
    qr_free(c);
}

static int work(void *context, unsigned thread)
{
    struct commits *c = context;
    struct qm_writer *writer = &c->writers[thread];
    int rc = 0;
    writer->threads = c->threads;
    for (uint64_t i = 0; rc == 0 && i < c->repeats; i++)
        rc = qm_store_write(writer, c->writes);
    return rc;
}

static int run_with(struct commits *c, unsigned threads, uint64_t repeats, struct qm_sample *sample)
{
    double start = qm_now();
    c->threads = threads;
    c->repeats = repeats;
    int rc = qm_in_threads(threads, work, c);
    *sample =
        (struct qm_sample){qm_now() - start, (double)repeats * (double)c->writes * (double)threads};
    return rc;
}
static int run(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    return run_with(context->state, context->threads, repeats, sample);
}
static int run_one_thread(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    return run_with(context->state, 1, repeats, sample);
}

static int run_floor(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct commits *c = context->state;
    int rc = qm_floor_trim(&c->floor);
    double start = qm_now();
    for (uint64_t i = 0; rc == 0 && i < repeats; i++)
        rc = qm_floor_commit(&c->floor, c->writes);
    *sample = (struct qm_sample){qm_now() - start, (double)repeats * (double)c->writes};
    return rc;
}

static int run_sync_floor(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct commits *c = context->state;
    double start = qm_now();
    int rc = 0;
    for (uint64_t i = 0; rc == 0 && i < repeats; i++)
        rc = qm_floor_sync_append(&c->sync_floor);
    *sample = (struct qm_sample){qm_now() - start, (double)repeats};
    return rc;
}

static const struct qm_work batched = {setup_batched, run, run_floor, finish};
static const struct qm_work single = {setup_single, run, run_floor, finish};
static const struct qm_work interval = {setup_interval, run, run_floor, finish};
static const struct qm_work parallel = {setup_batched, run, run_one_thread, finish};
static const struct qm_work durable = {setup_durable, run, run_sync_floor, finish};

/* clang-format off */
#define MIB (UINT64_C(1) << 20)
#define BATCHED \
    "64-byte deltas to random places, 1,000 in a commit, log not synced, digest kept. "
const struct qm_case qm_commit_cases[] = {
    {"commit/batched-64m", "commit 1,000 x 64 B, state 64 MiB", "log + store + digest",
     BATCHED "Beside a loop that appends checksummed records to a log, stores the bytes and keeps "
     "the digest.",
     &qm_million_s, {QM_FIGURE, 8}, &batched, .size = 64 * MIB},
    {"commit/batched-1g", "commit 1,000 x 64 B, state 1 GiB", "log + store + digest",
     BATCHED "Beside the same loop as for 64 MiB.",
     &qm_million_s, {QM_FIGURE, 5}, &batched, .size = 1024 * MIB, .tier = QM_FULL},
    {"commit/batched-threads", "commit 1,000 x 64 B, all threads", "one thread",
     BATCHED "Each thread commits to pages of its own; beside one thread.",
     &qm_million_s, {QM_RATIO, 1.6}, &parallel, .size = 64 * MIB, .smoke_size = 16 * MIB,
     .threads = QM_ALL_THREADS},
    {"commit/single", "commit of 64 B, log not synced", "write + store + digest",
     "One 64-byte delta a commit, log not synced, digest kept; beside the same loop as above with "
     "one record and one write(2) a commit.",
     &qm_thousand_s, {QM_NOTHING, 0}, &single, .size = 64 * MIB, .smoke_size = 16 * MIB},
    {"commit/interval", "commit of 64 B, synced each second", "write + store + digest",
     "One 64-byte delta a commit, log synced once a second; beside the same loop.",
     &qm_thousand_s, {QM_NOTHING, 0}, &interval, .size = 64 * MIB, .smoke_size = 16 * MIB},
    {"commit/durable", "durable commit of 64 B, 1 thread", "fdatasync",
     "One 64-byte delta a commit, acknowledged when it is on the disk; beside pwrite of 256 bytes "
     "and fdatasync into blocks written before.",
     &qm_thousand_s, {QM_RATIO, 0.9}, &durable, .size = 64 * MIB, .smoke_size = 4 * MIB},
    {"commit/durable-8", "durable commit of 64 B, 8 threads", "fdatasync, 1 thread",
     "The same from 8 threads at once, whose commits may share a sync; beside one thread's pwrite "
     "and fdatasync.",
     &qm_thousand_s, {QM_RATIO, 5}, &durable, .size = 64 * MIB, .smoke_size = 4 * MIB,
     .threads = 8},
    {0},
};
