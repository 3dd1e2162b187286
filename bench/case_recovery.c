/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a log whose writer was killed, and checking every byte of a log.
 *
 * The writer is a child process that fills a log to `size` bytes, goes on until it has written a
 * keyframe and 1 MiB more, begins a transaction and gets SIGKILL. It syncs once a second: a writer
 * that never does leaves no index, and its log is read whole. Each run opens a copy for writing
 * (which recovers it). The reference is a log of an eighth of the length with the same state and as
 * much behind its last keyframe: recovery may cost as much as lies behind a keyframe, not as much
 * as the log is long.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/floor.h"
#include "bench/store.h"
#include "runtime/os.h"
#include "runtime/store.h"

enum { PAGE = 4096, STATE = 8 << 20, BEHIND = 256, SHORTER = 8 };

struct recovery {
    struct qm_store store;
    struct qm_cold_source source;
};

static int setup(struct qm_context *context)
{
    struct recovery *r = context->state = qr_calloc(1, sizeof *r);
    return r ? qm_cold_source_open(&r->source) : qm_no_memory();
}

static void finish(struct qm_context *context)
{
    struct recovery *r = context->state;
    if (!r)
        return;
    qm_store_finish(&r->store);
    qm_cold_source_close(&r->source);
    qr_free(r);
}

/* --- after SIGKILL --- */

/* In the child: fills the log and leaves a transaction open. */
static int fill_and_die(struct qm_context *context, const char *name, uint64_t log_bytes)
{
    struct recovery *r = context->state;
    struct qallow_txn *txn;
    int rc = qm_store_create(context, name, QALLOW_SYNC_INTERVAL, STATE / PAGE, PAGE, &r->store);
    if (rc == 0)
        rc = qm_store_lengthen(context, &r->store, &r->source, log_bytes);
    if (rc == 0)
        rc = qm_store_write_pages(&r->store, &r->source, BEHIND);
    if (rc == 0)
        rc = qallow_sync(r->store.store);
    if (rc == 0)
        rc = qallow_begin(r->store.store, &txn);
    if (rc == 0)
        qallow_page_write(txn, r->store.pages[0], 0, r->source.bytes, PAGE);
    raise(rc == 0 ? SIGKILL : SIGABRT);
    return rc;
}

static int make_killed_log(struct qm_context *context, const char *name, uint64_t log_bytes)
{
    int status;
    pid_t child = fork();
    if (child < 0)
        return qr_fail_errno(errno, "a child process");
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        signal(SIGTERM, SIG_DFL);
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        fill_and_die(context, name, log_bytes);
    }
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR)
            return qr_fail_errno(errno, "the child process");
        if (qm_stopped(context) < 0)
            kill(child, SIGTERM);
    }
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return 0;
    int rc = qm_stopped(context);
    return rc < 0 ? rc : qr_fail(QALLOW_E_INTERNAL, "the writer could not fill its log");
}

static int setup_killed(struct qm_context *context)
{
    int rc = setup(context);
    rc = rc < 0 ? rc : make_killed_log(context, "long.tlog", context->size);
    return rc < 0 ? rc : make_killed_log(context, "short.tlog", context->size / SHORTER);
}

/* Copies a file; one that does not exist is none. It is on the disk then, as most of a log is that
 * is synced once a second: what opening it syncs is what recovery has written. */
static int copy_file(const char *from, const char *to)
{
    int in = open(from, O_RDONLY | O_CLOEXEC), out;
    ssize_t n = 1;
    unlink(to);
    if (in < 0)
        return errno == ENOENT ? 0 : qr_fail_errno(errno, "%s", qr_quotez(from));
    out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    while (out >= 0 && n > 0)
        n = copy_file_range(in, NULL, out, NULL, 64 << 20, 0);
    int error = out < 0 || n < 0 || fsync(out) != 0 ? errno : 0;
    close(in);
    if (out >= 0)
        close(out);
    return error ? qr_fail_errno(error, "%s", qr_quotez(to)) : 0;
}

static int recover(struct qm_context *context, const char *name, struct qm_sample *sample)
{
    struct qallow_options options = QALLOW_OPTIONS_INIT;
    struct qallow_store *store;
    char index_from[4300], index_to[4300];
    const char *from = qm_path(context, name), *to = qm_path(context, "copy.tlog");
    snprintf(index_from, sizeof index_from, "%s-index", from);
    snprintf(index_to, sizeof index_to, "%s-index", to);
    int rc = copy_file(from, to);
    rc = rc < 0 ? rc : copy_file(index_from, index_to);
    if (rc < 0)
        return rc;
    options.writable = 1;
    options.sync = QALLOW_SYNC_NONE;
    double start = qm_now();
    rc = qallow_open(to, &options, &store);
    *sample = (struct qm_sample){qm_now() - start, 1};
    return rc < 0 ? rc : qallow_close(store);
}

static int run_long(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    return recover(context, "long.tlog", sample);
}
static int run_short(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    return recover(context, "short.tlog", sample);
}

/* --- every byte --- */

static int setup_scan(struct qm_context *context)
{
    int rc = setup(context);
    struct recovery *r = context->state;
    rc = rc < 0 ? rc
                : qm_store_create(context, "store.tlog", QALLOW_SYNC_NONE, STATE / PAGE, PAGE,
                                  &r->store);
    rc = rc < 0 ? rc : qm_store_lengthen(context, &r->store, &r->source, context->size);
    return rc < 0 ? rc : qm_store_close(&r->store);
}

static int ignore_range(void *context, const struct qr_range *range) { return 0; }

static int run_scan(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct recovery *r = context->state;
    double start = qm_now();
    int rc = qr_log_verify(r->store.path, qr_os_posix(), 1, 0, ignore_range, NULL);
    *sample = (struct qm_sample){qm_now() - start, 1};
    return rc;
}

static int run_read(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct recovery *r = context->state;
    double start = qm_now();
    int rc = qm_floor_read_file(r->store.path, NULL, 0);
    *sample = (struct qm_sample){qm_now() - start, 1};
    return rc;
}

static const struct qm_work killed = {setup_killed, run_long, run_short, finish};
static const struct qm_work scanning = {setup_scan, run_scan, run_read, finish};

/* clang-format off */
#define MIB (UINT64_C(1) << 20)
const struct qm_case qm_recovery_cases[] = {
    {"recovery/killed", "recovery after SIGKILL", "log 1/8 as long",
     "Opening a log for writing whose writer, which synced once a second, was killed 1 MiB behind "
     "a keyframe; beside a log of an eighth of the length with the same state.",
     &qm_ms, {QM_RATIO, 1.5}, &killed, .size = 512 * MIB, .smoke_size = 32 * MIB, .fixed = 1},
    {"recovery/scan", "checksums of a whole log", "read",
     "Every frame of a log read and checked; beside read(2) of the file. Both from the page "
     "cache.",
     &qm_ms, {QM_RATIO, 1.3}, &scanning, .size = 1024 * MIB, .smoke_size = 32 * MIB, .fixed = 1},
    {0},
};
