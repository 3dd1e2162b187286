/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `qallow accelerator --since`, `--wait`, `--export`, `--status`: asks the cache that a keeper has
 * in shared memory, whether the keeper lives or not. (--get and --cat are in
 * cmd_accelerator_get.c.)
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "accelerator/cache_reader.h"
#include "accelerator/capability.h"
#include "interface/cmd_accelerator.h"
#include "interface/report.h"
#include "qallow/accelerator.h"
#include "runtime/error.h"
#include "runtime/os.h"
#include "telemetry/encoder.h"

enum {
    SPIN_NS = 50000,
    TEMPORARIES_MAX = 1000,
    TEMPORARY_NUMBERS = 32, /* bytes of the numbers in the name of one */
};

struct query {
    struct qi_context *context;
    const struct accelerator *a;
    struct qallow_cache *cache;
    struct qallow_cache_info info;
    FILE *out; /* --export */
    uint64_t count;
};

static const char *const state_names[] = {[QALLOW_FILE_CURRENT] = "current",
                                          [QALLOW_FILE_PENDING] = "pending",
                                          [QALLOW_FILE_UNREADABLE] = "unreadable"};
static const char *const hash_names[] = {
    [QALLOW_HASH_XXH3_128] = "xxh3-128", [QALLOW_HASH_SHA256] = "sha256"};

void accelerator_json_file(cJSON *object, const char *path, const struct qallow_file *file,
                           uint32_t hash_bytes)
{
    qi_json_path(object, "path", path, strlen(path));
    cJSON_AddStringToObject(object, "kind", file->kind == QALLOW_FILE_SYMLINK ? "symlink" : "file");
    cJSON_AddStringToObject(object, "state", state_names[file->state]);
    if (file->state != QALLOW_FILE_UNREADABLE)
        qi_json_hex(object, "hash", file->hash, hash_bytes);
    qi_json_u64(object, "size", file->size);
    qi_json_time(object, "mtime", file->mtime_ns);
    qi_json_u64(object, "mode", file->mode);
    qi_json_u64(object, "inode", file->inode);
    qi_json_u64(object, "epoch", file->epoch);
}

/* --- --since --- */

struct change {
    char *path;
    struct qallow_file file;
};

struct changes {
    struct change *items;
    size_t count, capacity;
};

static int collect_change(void *context, const char *path, const struct qallow_file *file)
{
    struct changes *changes = context;
    size_t size = strlen(path) + 1;
    char *copy = qr_malloc(size);
    int result = copy ? QR_GROW(changes->items, changes->count, changes->capacity)
                      : qr_fail(QALLOW_E_NO_MEMORY, "no memory for the changes");
    if (result < 0) {
        qr_free(copy);
        return result;
    }
    memcpy(copy, path, size);
    changes->items[changes->count++] = (struct change){copy, *file};
    return 0;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct change *)a)->path, ((const struct change *)b)->path);
}

static int print_change(const struct query *q, const struct change *change)
{
    const char *what = change->file.removed ? "removed" : "changed";
    if (!q->context->json) {
        printf("%s %s\n", what, qr_quotez(change->path));
        return qi_stdout_check();
    }
    cJSON *line = qi_json_begin(q->context);
    cJSON_AddStringToObject(line, "event", what);
    if (change->file.removed) {
        qi_json_path(line, "path", change->path, strlen(change->path));
        qi_json_u64(line, "epoch", change->file.epoch);
    } else {
        accelerator_json_file(line, change->path, &change->file, q->info.hash_bytes);
    }
    return qi_json_end(line);
}

static int print_end(const struct query *q, uint64_t epoch)
{
    if (!q->context->json) {
        printf("epoch %llu\n", (unsigned long long)epoch);
        return 0;
    }
    cJSON *line = qi_json_begin(q->context);
    cJSON_AddStringToObject(line, "event", "end");
    qi_json_u64(line, "epoch", epoch);
    return qi_json_end(line);
}

static int since(struct query *q)
{
    struct changes changes = {0};
    uint64_t now = 0;
    int result = qallow_cache_since(q->cache, q->a->since, collect_change, &changes, &now);
    if (changes.count)
        qsort(changes.items, changes.count, sizeof *changes.items, by_path);
    for (size_t i = 0; i < changes.count && result == 0; i++)
        result = print_change(q, &changes.items[i]);
    if (result == 0)
        result = print_end(q, now);
    for (size_t i = 0; i < changes.count; i++)
        qr_free(changes.items[i].path);
    qr_free(changes.items);
    return result;
}

/* --- --wait --- */

static int wait_for_epoch(struct query *q)
{
    uint64_t now = 0;
    int64_t timeout = qi_given(q->context, "timeout") ? q->a->timeout : -1;
    int result = qallow_cache_wait(q->cache, q->a->wait, timeout, SPIN_NS, &now);
    if (result < 0)
        return result;
    if (q->context->json) {
        cJSON *line = qi_json_begin(q->context);
        qi_json_u64(line, "epoch", now);
        return qi_json_end(line);
    }
    printf("%llu\n", (unsigned long long)now);
    return 0;
}

/* --- --export --- */

/* A write of the export failed, with errno. */
static int export_failed(const struct query *q)
{
    return q->out == stdout ? qi_stdout_flush()
                            : qr_fail_errno(errno, "%s", qr_quotez(q->a->export_to));
}

static int export_file(void *context, const char *path, const struct qallow_file *file)
{
    struct query *q = context;
    cJSON *object = cJSON_CreateObject();
    accelerator_json_file(object, path, file, q->info.hash_bytes);
    char *text = cJSON_PrintUnformatted(object);
    cJSON_Delete(object);
    if (!text)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the export");
    int failed = fprintf(q->out, "%s\n%s", q->count++ ? "," : "", text) < 0;
    cJSON_free(text);
    return failed ? export_failed(q) : qi_signal_check();
}

/* One object whose last member is the list of files, one a line. */
static int export_all(struct query *q)
{
    uint64_t now = 0;
    cJSON *head = qi_json_begin(q->context);
    const char *root = qallow_cache_root(q->cache);
    qi_json_path(head, "root", root, strlen(root));
    cJSON_AddStringToObject(head, "hash", hash_names[q->info.hash]);
    char *text = cJSON_PrintUnformatted(head);
    cJSON_Delete(head);
    if (!text)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the export");
    int failed = fprintf(q->out, "%.*s,\"files\":[", (int)strlen(text) - 1, text) < 0;
    cJSON_free(text);
    if (failed)
        return export_failed(q);
    int result = qallow_cache_each(q->cache, export_file, q, &now);
    if (result < 0)
        return result;
    failed = fprintf(q->out, "],\n\"epoch\":%llu,\"refused\":%llu}\n", (unsigned long long)now,
                     (unsigned long long)q->info.refused) < 0;
    return failed || fflush(q->out) != 0 ? export_failed(q) : 0;
}

/* `to` cannot be opened or replaced, with errno. */
static int cannot_create(const char *to)
{
    static const int in_the_way[] = {ENOENT, ENOTDIR, EISDIR,    ENAMETOOLONG,
                                     ELOOP,  EEXIST,  ENOTEMPTY, ENXIO};
    int err = errno, result = qr_fail_errno(err, "%s", qr_quotez(to));
    for (size_t i = 0; i < sizeof in_the_way / sizeof *in_the_way; i++)
        if (err == in_the_way[i])
            return QALLOW_E_CANNOT_CREATE;
    return result;
}

/* Closes what was written; the first error counts. */
static int close_export(struct query *q, int result)
{
    if (fclose(q->out) != 0 && result == 0)
        result = export_failed(q);
    q->out = NULL;
    return result;
}

/* A pipe or a device is written to as it is. */
static int export_into(struct query *q, const char *to)
{
    q->out = fopen(to, "we");
    return q->out ? close_export(q, export_all(q)) : cannot_create(to);
}

/* Creates a file beside `to` that nobody else writes. No tree is recorded with its name, and the
 * name is short, as that of `to` may be the longest that there can be. NULL, with errno. */
static FILE *open_temporary(const char *to, char *name, size_t size)
{
    const char *slash = strrchr(to, '/');
    int directory = slash ? (int)(slash + 1 - to) : 0, fd = -1;
    for (unsigned n = 0; fd < 0 && n < TEMPORARIES_MAX; n++) {
        snprintf(name, size, "%.*s.%d.%u" QT_TEMPORARY, directory, to, (int)getpid(), n);
        fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd < 0 && errno != EEXIST) /* one of that name was left by somebody who was killed */
            break;
    }
    FILE *out = fd < 0 ? NULL : fdopen(fd, "w");
    if (fd >= 0 && !out) {
        unlink(name);
        close(fd);
        errno = ENOMEM;
    }
    return out;
}

/* To a temporary name beside it, then in its place: it is there whole or not at all. */
static int export_as(struct query *q, const char *to, char *temporary, size_t size)
{
    qi_signals_catch();
    q->out = open_temporary(to, temporary, size);
    if (!q->out)
        return cannot_create(to);
    int result = export_all(q);
    if (result == 0 && fsync(fileno(q->out)) < 0)
        result = export_failed(q);
    result = close_export(q, result);
    if (result == 0 && rename(temporary, to) < 0)
        result = cannot_create(to);
    if (result < 0)
        unlink(temporary);
    return result;
}

static int export(struct query *q)
{
    const char *to = q->a->export_to;
    struct stat st;
    size_t size = strlen(to) + sizeof QT_TEMPORARY + TEMPORARY_NUMBERS;
    if (strcmp(to, "-") == 0) {
        q->out = stdout;
        return export_all(q);
    }
    if (stat(to, &st) == 0 && !S_ISREG(st.st_mode))
        return export_into(q, to);
    char *temporary = qr_malloc(size);
    if (!temporary)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a path");
    int result = export_as(q, to, temporary, size);
    qr_free(temporary);
    return result;
}

/* --- --status --- */

static void status_number(const struct query *q, cJSON *object, const char *name, uint64_t value)
{
    if (object)
        qi_json_u64(object, name, value);
    else
        printf("%s: %llu\n", name, (unsigned long long)value);
}

static void status_text(cJSON *object, const char *name, const char *value)
{
    if (object)
        cJSON_AddStringToObject(object, name, value);
    else
        printf("%s: %s\n", name, value);
}

/* The workers' share of the time since the keeper started; of a dead one's time until it died, as
 * far as that is known. */
static void status_workers(const struct query *q, cJSON *object, const uint64_t *numbers)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t now_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
    uint64_t uptime = numbers[QT_UPTIME_SECONDS], start = numbers[QT_START_TIME_SECONDS];
    if (q->info.state != QALLOW_KEEPER_GONE && now_ns > start)
        uptime = now_ns - start;
    uint64_t busy = numbers[QT_WORKER_BUSY_SECONDS], workers = numbers[QT_WORKER_THREADS];
    double utilization = qt_utilization(busy, workers * uptime);
    status_number(q, object, "uptime_ms", uptime / 1000000);
    status_number(q, object, "worker_busy_ms", busy / 1000000);
    if (object)
        cJSON_AddNumberToObject(object, "worker_utilization_ratio", utilization);
    else
        printf("worker_utilization_ratio: %.4f\n", utilization);
}

/* That of now: a keeper that sleeps does not see that it is raised. */
static uint64_t watches_limit(void)
{
    const char *sysctl;
    uint64_t limit;
    return qa_inotify_limit(QA_INOTIFY_WATCHES, &limit, &sysctl) ? limit : 0;
}

/* The keeper's own numbers, as it last left them. */
static void status_numbers(const struct query *q, cJSON *object)
{
    static const enum qt_metric shown[] = {
        QT_WATCH_EVENTS,    QT_WATCH_COALESCED, QT_WATCH_OVERFLOWS,  QT_WATCH_RESCANS,
        QT_WATCH_SYNTHETIC, QT_WATCHES,         QT_WATCHES_LIMIT,    QT_POLLED_DIRECTORIES,
        QT_QUEUE_DEPTH,     QT_FILES_READ,      QT_FILES_READ_BYTES, QT_FILES_SKIPPED,
        QT_LOG_BYTES,       QT_CACHE_EVICTIONS, QT_WORKER_THREADS,
    };
    uint64_t numbers[QT_METRIC_COUNT] = {0};
    if (qa_cache_numbers(q->cache, numbers, QT_METRIC_COUNT) < 0)
        return;
    numbers[QT_WATCHES_LIMIT] = watches_limit();
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++)
        status_number(q, object, qt_descriptions[shown[i]].name, numbers[shown[i]]);
    status_workers(q, object, numbers);
    status_number(q, object, "lag_us", numbers[QT_EVENT_TO_CACHE_SECONDS] / 1000);
}

static int status(struct query *q)
{
    static const char *const states[] = {[QALLOW_KEEPER_STARTING] = "starting",
                                         [QALLOW_KEEPER_WATCHING] = "watching",
                                         [QALLOW_KEEPER_RESCANNING] = "rescanning",
                                         [QALLOW_KEEPER_GONE] = "gone"};
    const struct qallow_cache_info *info = &q->info;
    const char *root = qallow_cache_root(q->cache);
    char time[QI_TEXT_MAX];
    cJSON *object = q->context->json ? qi_json_begin(q->context) : NULL;
    if (object)
        qi_json_path(object, "path", root, strlen(root));
    else
        printf("path: %s\n", qr_quotez(root));
    status_text(object, "state", states[info->state]);
    if (info->state == QALLOW_KEEPER_GONE)
        qi_note(q->context, "nobody keeps this cache up to date");
    status_number(q, object, "pid", (uint64_t)info->keeper);
    status_number(q, object, "epoch", info->epoch);
    status_number(q, object, "oldest_epoch", info->oldest_epoch);
    status_text(object, "updated", qi_format_time(info->updated_ns, time));
    status_text(object, "hash", hash_names[info->hash]);
    status_number(q, object, "files", info->files);
    status_number(q, object, "bytes", info->bytes);
    status_number(q, object, "refused", info->refused);
    status_number(q, object, "memory", info->memory);
    status_number(q, object, "memory_limit", info->memory_limit);
    status_number(q, object, "hits", info->hits);
    status_number(q, object, "misses", info->misses);
    status_numbers(q, object);
    return object ? qi_json_end(object) : 0;
}

/* --- all --- */

int accelerator_query(struct qi_context *context, const struct accelerator *a)
{
    struct query q = {.context = context, .a = a, .info = QALLOW_CACHE_INFO_INIT};
    const char *source = a->file ? a->file : a->watch.count ? a->watch.items[0] : NULL;
    int result =
        source ? qallow_cache_open(source, &q.cache) : qallow_cache_open_above(".", &q.cache);
    if (result == 0)
        result = qallow_cache_info(q.cache, &q.info);
    if (result < 0)
        return result;
    if (q.info.refused && !a->status)
        qi_note(context, "the cache is full: %llu paths are not in it",
                (unsigned long long)q.info.refused);
    if (a->status)
        result = status(&q);
    else if (a->export_to)
        result = export(&q);
    else if (qi_given(context, "wait"))
        result = wait_for_epoch(&q);
    else
        result = since(&q);
    char detail[1024];
    snprintf(detail, sizeof detail, "%s", qallow_error_detail());
    qallow_cache_close(q.cache);
    return result < 0 ? qr_fail(result, "%s", detail) : result;
}
