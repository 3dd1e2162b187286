/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Appending much to the log: whole pages of 4 KiB, 256 in a commit that nobody syncs, from a source
 * that no cache holds. The reference writes as many bytes from the same source to a new file.
 *
 * `size` is the bytes of the state.
 */
#include <unistd.h>

#include "bench/floor.h"
#include "bench/store.h"
#include "runtime/os.h"

enum { PAGE = 4096, BATCH = 256 };

struct appends {
    struct qm_store store;
    struct qm_cold_source source;
};

static int setup(struct qm_context *context)
{
    struct appends *a = context->state = qr_calloc(1, sizeof *a);
    if (!a)
        return qm_no_memory();
    int rc = qm_cold_source_open(&a->source);
    return rc < 0 ? rc
                  : qm_store_create(context, "store.tlog", QALLOW_SYNC_NONE, context->size / PAGE,
                                    PAGE, &a->store);
}

static void finish(struct qm_context *context)
{
    struct appends *a = context->state;
    if (!a)
        return;
    qm_store_finish(&a->store);
    qm_cold_source_close(&a->source);
    qr_free(a);
}

static int run(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct appends *a = context->state;
    double start = qm_now();
    int rc = 0;
    for (uint64_t i = 0; rc == 0 && i < repeats; i++)
        rc = qm_store_write_pages(&a->store, &a->source, BATCH);
    *sample = (struct qm_sample){qm_now() - start, (double)repeats * BATCH * PAGE};
    return rc;
}

static int run_write(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct appends *a = context->state;
    const char *path = qm_path(context, "written");
    unlink(path);
    double start = qm_now();
    int rc = qm_floor_write_file(path, repeats * BATCH * PAGE, &a->source, 0);
    *sample = (struct qm_sample){qm_now() - start, (double)repeats * BATCH * PAGE};
    return rc;
}

static const struct qm_work appending = {setup, run, run_write, finish};

/* clang-format off */
const struct qm_case qm_log_cases[] = {
    {"log/append-4k", "log append, 4 KiB dense", "file write",
     "Pages of 4 KiB written anew, 256 in a commit, log not synced; beside write(2) of as many "
     "bytes to a new file. Both take them from 512 MiB that no cache holds.",
     &qm_gb_s, {QM_RATIO, 0.75}, &appending, .size = 64 << 20, .smoke_size = 8 << 20},
    {0},
};
