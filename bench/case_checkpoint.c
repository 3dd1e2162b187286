/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoint files: writing one, and having its state in memory, verified. The references write a
 * file of the same length from a source that no cache holds, and read it from the page cache.
 *
 * `size` is the bytes of the state, in pages of 4 KiB.
 */
#include <sys/stat.h>
#include <unistd.h>

#include "bench/floor.h"
#include "bench/store.h"
#include "runtime/os.h"

enum { PAGE = 4096, SLACK = 1 << 20 };

struct checkpoint {
    struct qm_store store;
    struct qm_cold_source source;
    uint8_t *memory;
    size_t memory_length;
    uint64_t file_length;
};

static int export_it(struct qm_context *context)
{
    struct checkpoint *c = context->state;
    return qallow_checkpoint_export(c->store.store,
                                    qallow_view_epoch(qallow_newest(c->store.store)),
                                    qm_path(context, "state.qckpt"), 1);
}

static int setup(struct qm_context *context)
{
    struct checkpoint *c = context->state = qr_calloc(1, sizeof *c);
    struct stat st;
    if (!c)
        return qm_no_memory();
    int rc = qm_cold_source_open(&c->source);
    if (rc == 0)
        rc = qm_store_create(context, "store.tlog", QALLOW_SYNC_NONE, context->size / PAGE, PAGE,
                             &c->store);
    if (rc == 0)
        rc = export_it(context);
    if (rc < 0)
        return rc;
    if (stat(qm_path(context, "state.qckpt"), &st) != 0)
        return qr_fail(QALLOW_E_IO, "the checkpoint is gone");
    c->file_length = (uint64_t)st.st_size;
    c->memory_length = (size_t)(c->file_length > context->size ? c->file_length : context->size);
    c->memory_length += SLACK;
    return qm_map(c->memory_length, &c->memory);
}

static void finish(struct qm_context *context)
{
    struct checkpoint *c = context->state;
    if (!c)
        return;
    qm_unmap(c->memory, c->memory_length);
    qm_store_finish(&c->store);
    qm_cold_source_close(&c->source);
    qr_free(c);
}

static int run_write(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    unlink(qm_path(context, "state.qckpt"));
    double start = qm_now();
    int rc = export_it(context);
    *sample = (struct qm_sample){qm_now() - start, (double)context->size};
    return rc;
}

static int run_file_write(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct checkpoint *c = context->state;
    const char *path = qm_path(context, "written");
    unlink(path);
    double start = qm_now();
    int rc = qm_floor_write_file(path, c->file_length, &c->source, 1);
    *sample = (struct qm_sample){qm_now() - start, (double)context->size};
    return rc;
}

static int run_load(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct checkpoint *c = context->state;
    double start = qm_now();
    int rc = qm_store_load(&c->store, qm_path(context, "state.qckpt"), 0, 0, context->threads,
                           c->memory);
    *sample = (struct qm_sample){qm_now() - start, (double)context->size};
    return rc;
}

static int run_file_read(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct checkpoint *c = context->state;
    double start = qm_now();
    int rc = qm_floor_read_file(qm_path(context, "state.qckpt"), c->memory, 0);
    *sample = (struct qm_sample){qm_now() - start, (double)context->size};
    return rc;
}

static const struct qm_work writing = {setup, run_write, run_file_write, finish};
static const struct qm_work loading = {setup, run_load, run_file_read, finish};

/* clang-format off */
const struct qm_case qm_checkpoint_cases[] = {
    {"checkpoint/write", "checkpoint write", "file write",
     "The newest epoch, in pages of 4 KiB, as a checkpoint file, synced; beside a new file of the "
     "same length, synced, from 512 MiB that no cache holds.",
     &qm_gb_s, {QM_RATIO, 0.75}, &writing, .size = 256 << 20, .smoke_size = 16 << 20,
     .threads = QM_ALL_THREADS, .fixed = 1},
    {"checkpoint/load", "checkpoint load, verified", "page-cache read",
     "A checkpoint file opened and its content loaded into memory, every page checked against its "
     "sum; beside read(2) of the file into memory.",
     &qm_gb_s, {QM_RATIO, 0.6}, &loading, .size = 256 << 20, .smoke_size = 16 << 20,
     .threads = QM_ALL_THREADS, .fixed = 1},
    {0},
};
