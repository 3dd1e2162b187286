/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A keeper on a thread of its own: what include/qallow/accelerator.h offers to any program, and
 * what the commands use. Two eventfds lead in (stop, reload), one leads out (it has ended).
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "accelerator/keeper.h"
#include "runtime/error.h"
#include "runtime/os.h"

enum {
    THREADS_MAX = 1024,
    AUTO_THREADS_MAX = 8,
    DETAIL_MAX = 1024,
    COMPRESS_MIN = -7,
    COMPRESS_MAX = 22
};
#define MS UINT64_C(1000000)

struct qallow_accelerator {
    struct qallow_accelerator_options options;
    pthread_t thread;
    int stop, reload, ended; /* eventfds */
    int result;
    char detail[DETAIL_MAX];
};

void qallow_accelerator_defaults(struct qallow_accelerator_options *options, uint32_t size)
{
    const struct qallow_accelerator_options defaults = {
        .size = size,
        .settle_ns = 100 * MS,
        .max_settle_ns = 2000 * MS,
        .hash = QALLOW_HASH_XXH3_128,
        .sync_interval_ms = 1000,
        .compress_level = 1,
        .telemetry_interval_ns = 10000 * MS,
    };
    memcpy(options, &defaults, size < sizeof defaults ? size : sizeof defaults);
}

/* --- on the keeper's thread --- */

static void on_report(void *context, const struct qa_report *report)
{
    const struct qallow_accelerator *a = context;
    const struct qs_capture *capture = &report->capture;
    const struct qallow_accelerator_event event = {
        .epoch = report->epoch,
        .committed = (uint32_t)report->committed,
        .ready = (uint32_t)report->first,
        .time_ns = report->time_ns,
        .waited_ns = report->waited_ns,
        .entries = report->entries,
        .read_files = report->read_files,
        .read_bytes = report->read_bytes,
        .skipped = report->skipped,
        .created = capture->created,
        .changed = capture->changed,
        .renamed = capture->renamed,
        .removed = capture->removed,
        .attributes = capture->attributes,
        .cached = report->cached,
    };
    if (a->options.event)
        a->options.event(a->options.context, &event);
}

static void on_notice(void *context, const char *line)
{
    const struct qallow_accelerator *a = context;
    if (a->options.notice)
        a->options.notice(a->options.context, line);
}

static void on_skipped(void *context, const char *path, const char *why)
{
    const struct qallow_accelerator *a = context;
    if (a->options.skipped)
        a->options.skipped(a->options.context, path, why);
}

static int thread_count(int32_t wanted)
{
    long online = wanted ? wanted : sysconf(_SC_NPROCESSORS_ONLN);
    if (!wanted && online > AUTO_THREADS_MAX)
        return AUTO_THREADS_MAX;
    return online < 1 ? 1 : (int)online;
}

/* A time that nobody lives to see the end of is for ever. 292 years can be added to any moment of
 * the clock, so no sum of the two wraps. */
static uint64_t at_most_for_ever(uint64_t ns) { return ns < INT64_MAX ? ns : INT64_MAX; }

static struct qa_keeper_options keeper_options(struct qallow_accelerator *a)
{
    const struct qallow_accelerator_options *o = &a->options;
    return (struct qa_keeper_options){
        .path = o->path,
        .is_file = o->is_file != 0,
        .log = o->log,
        .store = {.logical_clock = o->logical_clock != 0,
                  .sync = (enum qr_sync)o->sync,
                  .sync_interval_ms = (int)o->sync_interval_ms,
                  .compress_level = o->compress_level,
                  .uuid = o->uuid,
                  .max_memory = o->max_memory},
        .rules = {.include_git = o->include_git != 0,
                  .max_file_size = o->max_file_size,
                  .excludes = (char **)(uintptr_t)o->excludes, /* copied, not changed */
                  .exclude_count = o->exclude_count,
                  .no_ignore_file = o->no_ignore_files != 0},
        .threads = thread_count(o->threads),
        .settle = {at_most_for_ever(o->settle_ns), at_most_for_ever(o->max_settle_ns)},
        .once = o->once != 0,
        .label = o->label,
        .watch = (enum qa_watch_mode)o->watch,
        .sweep_ns = at_most_for_ever(o->sweep_ns),
        .retention = {.keep_time_ns = o->keep_time_ns, .keep_bytes = o->keep_bytes},
        .no_cache = o->no_cache != 0,
        .hash = (enum qallow_hash)o->hash,
        .cache_bytes = o->cache_bytes,
        .content_max = o->content_max,
        .command = o->command,
        .telemetry = o->telemetry,
        .prometheus = o->prometheus,
        .telemetry_interval_ns = at_most_for_ever(o->telemetry_interval_ns),
        .stop_fd = a->stop,
        .reload_fd = a->reload,
        .report = on_report,
        .notice = on_notice,
        .skipped = on_skipped,
        .context = a,
    };
}

static void signal_event(int fd)
{
    const uint64_t one = 1;
    int saved = errno; /* may be called in a signal handler */
    while (write(fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
    errno = saved;
}

static void *keep(void *context)
{
    struct qallow_accelerator *a = context;
    const struct qa_keeper_options options = keeper_options(a);
    a->result = qa_keep(&options);
    if (a->result < 0)
        snprintf(a->detail, sizeof a->detail, "%s", qallow_error_detail());
    signal_event(a->ended);
    return NULL;
}

/* --- on the caller's --- */

static int check(const struct qallow_accelerator_options *o)
{
    if (!o || o->size != sizeof *o)
        return qr_fail(QALLOW_E_ARGUMENT, "the options are not of this version of the library");
    if (!o->path || (!o->log && o->no_cache))
        return qr_fail(QALLOW_E_ARGUMENT, "the options name no path, or neither log nor cache");
    if (o->exclude_count && !o->excludes)
        return qr_fail(QALLOW_E_ARGUMENT, "the options count patterns but name none");
    if (o->threads < 0 || o->threads > THREADS_MAX || o->watch > QALLOW_WATCH_NONE ||
        o->hash > QALLOW_HASH_SHA256 || o->sync > QR_SYNC_NONE || o->sync_interval_ms > INT32_MAX ||
        o->compress_level < COMPRESS_MIN || o->compress_level > COMPRESS_MAX ||
        o->keep_time_ns < 0 || o->telemetry_interval_ns == 0)
        return qr_fail(QALLOW_E_ARGUMENT, "an option is out of range");
    return 0;
}

static void release(struct qallow_accelerator *a)
{
    const int fds[] = {a->stop, a->reload, a->ended};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    qr_free(a);
}

/* The thread blocks all signals, so that they reach the program's own threads. */
static int start_thread(struct qallow_accelerator *a)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = pthread_create(&a->thread, NULL, keep, a);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return err ? qr_fail_errno(err, "starting a thread") : 0;
}

int qallow_accelerator_start(const struct qallow_accelerator_options *options,
                             struct qallow_accelerator **out)
{
    int result = check(options);
    if (result < 0)
        return result;
    struct qallow_accelerator *a = qr_calloc(1, sizeof *a);
    if (!a)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the accelerator");
    a->options = *options;
    a->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    a->reload = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    a->ended = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (a->stop < 0 || a->reload < 0 || a->ended < 0)
        result = qr_fail_errno(errno, "starting the accelerator");
    else
        result = start_thread(a);
    if (result < 0)
        release(a);
    else
        *out = a;
    return result;
}

void qallow_accelerator_stop(struct qallow_accelerator *a) { signal_event(a->stop); }

void qallow_accelerator_reload(struct qallow_accelerator *a) { signal_event(a->reload); }

int qallow_accelerator_fd(const struct qallow_accelerator *a) { return a->ended; }

int qallow_accelerator_finish(struct qallow_accelerator *a)
{
    if (!a)
        return 0;
    pthread_join(a->thread, NULL);
    int result = a->result < 0 ? qr_fail(a->result, "%s", a->detail) : 0;
    release(a);
    return result;
}
