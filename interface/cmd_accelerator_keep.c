/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `qallow accelerator --watch DIR...`: keeps directories until a signal comes, and prints what
 * happens. Each directory has a keeper on a thread of its own; what they say is printed one line at
 * a time.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "interface/cmd_accelerator.h"
#include "interface/report.h"
#include "qallow/accelerator.h"
#include "runtime/error.h"
#include "runtime/os.h"

enum { SKIPPED_SHOWN = 100, KEEPERS_MAX = 64 };

struct speaker {
    struct qi_context *context;
    pthread_mutex_t lock;
    int once, several;
    int deaf; /* nobody reads stdout any more */
    unsigned long skipped, unprinted;
    size_t not_ready; /* keepers whose first look is not over */
};

/* One directory or file. */
struct kept {
    struct speaker *speaker;
    const char *path, *log;
    char *default_log; /* freed in the end */
    int is_first, is_ready;
    struct qallow_accelerator *accelerator; /* NULL: it has ended */
};

/* --- what the keepers say --- */

static void on_notice(void *context, const char *line)
{
    const struct kept *kept = context;
    struct speaker *speaker = kept->speaker;
    pthread_mutex_lock(&speaker->lock);
    if (speaker->several)
        qi_note(speaker->context, "%s: %s", qr_quotez(kept->path), line);
    else
        qi_note(speaker->context, "%s", line);
    pthread_mutex_unlock(&speaker->lock);
}

static void on_skipped(void *context, const char *path, const char *why)
{
    const struct kept *kept = context;
    struct speaker *speaker = kept->speaker;
    pthread_mutex_lock(&speaker->lock);
    if (++speaker->skipped <= SKIPPED_SHOWN && why)
        qi_note(speaker->context, "not recorded: %s: %s", qr_quotez(path), why);
    else if (speaker->skipped <= SKIPPED_SHOWN)
        qi_note(speaker->context, "recorded again: %s", qr_quotez(path));
    else if (speaker->skipped == SKIPPED_SHOWN + 1)
        qi_note(speaker->context, "more entries are not recorded; --status counts them");
    pthread_mutex_unlock(&speaker->lock);
}

static void json_line(const struct kept *kept, const struct qallow_accelerator_event *e)
{
    const struct speaker *speaker = kept->speaker;
    int ready = e->ready && !speaker->once;
    cJSON *line = qi_json_begin(speaker->context);
    cJSON_AddStringToObject(line, "event", ready ? "ready" : "epoch");
    qi_json_u64(line, "epoch", e->epoch);
    qi_json_time(line, "time", e->time_ns);
    cJSON_AddBoolToObject(line, "committed", e->committed != 0);
    qi_json_u64(line, "created", e->created);
    qi_json_u64(line, "changed", e->changed);
    qi_json_u64(line, "renamed", e->renamed);
    qi_json_u64(line, "removed", e->removed);
    qi_json_u64(line, "attributes", e->attributes);
    qi_json_u64(line, "cached", e->cached);
    qi_json_u64(line, "entries", e->entries);
    qi_json_u64(line, "read_files", e->read_files);
    qi_json_u64(line, "read_bytes", e->read_bytes);
    qi_json_u64(line, "skipped", e->skipped);
    qi_json_u64(line, "waited_us", e->waited_ns / 1000);
    if (speaker->several)
        qi_json_path(line, "path", kept->path, strlen(kept->path));
    qi_json_end(line);
}

static void text_line(const struct kept *kept, const struct qallow_accelerator_event *e)
{
    const struct {
        uint64_t count;
        const char *what;
    } parts[] = {{e->created, "created"},
                 {e->changed, "changed"},
                 {e->renamed, "renamed"},
                 {e->removed, "removed"},
                 {e->attributes, "attributes"},
                 {kept->log ? 0 : e->cached, e->cached == 1 ? "path" : "paths"}};
    char time[QI_TEXT_MAX];
    const char *between = "  ";
    printf("epoch %llu  %s", (unsigned long long)e->epoch, qi_format_time(e->time_ns, time));
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (!parts[i].count)
            continue;
        printf("%s%llu %s", between, (unsigned long long)parts[i].count, parts[i].what);
        between = ", ";
    }
    if (kept->log && *between == ' ' && e->cached)
        printf("  %llu %s in the cache only", (unsigned long long)e->cached,
               e->cached == 1 ? "path" : "paths");
    if (kept->speaker->several)
        printf("  %s", qr_quotez(kept->path));
    putchar('\n');
}

static void text_event(const struct kept *kept, const struct qallow_accelerator_event *e)
{
    if (e->committed)
        text_line(kept, e);
    else if (kept->speaker->once)
        printf("nothing has changed since epoch %llu\n", (unsigned long long)e->epoch);
    if (e->ready && !kept->speaker->once)
        printf("ready at epoch %llu: %s %s\n", (unsigned long long)e->epoch,
               kept->log ? "recording" : "caching", qr_quotez(kept->path));
}

static void say_unprinted(struct speaker *speaker)
{
    if (speaker->unprinted)
        qi_note(speaker->context, "%lu lines were not printed because nobody read the output",
                speaker->unprinted);
    speaker->unprinted = 0;
}

/* A reader that has stopped reading must not stop the recording: a line is printed only if it
 * fits. (A pipe that polls as writable takes PIPE_BUF bytes, more than any line has.) */
static int stdout_has_room(void)
{
    struct pollfd out = {STDOUT_FILENO, POLLOUT, 0};
    return poll(&out, 1, 0) != 0;
}

/* For a service manager that waits until we are ready (Type=notify): see sd_notify(3). */
static void notify_ready(void)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!path || !*path || strlen(path) >= sizeof address.sun_path)
        return;
    memcpy(address.sun_path, path, strlen(path));
    if (*path == '@') /* an abstract name */
        address.sun_path[0] = '\0';
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    static const char ready[] = "READY=1";
    sendto(fd, ready, sizeof ready - 1, MSG_NOSIGNAL, (struct sockaddr *)&address, length);
    close(fd);
}

/* Ready, or never to be. Under the lock. */
static void count_ready(struct kept *kept)
{
    if (!kept->is_ready && --kept->speaker->not_ready == 0)
        notify_ready();
    kept->is_ready = 1;
}

/* stdout takes nothing any more, which must not stop a recording. With --once the launcher reports
 * it. */
static void lose_output(struct speaker *speaker, int result)
{
    const char *why =
        result == QALLOW_E_INTERRUPTED ? "nobody reads the output any more" : qallow_error_detail();
    speaker->deaf = 1;
    if (speaker->once)
        return;
    qi_note(speaker->context, "%s; recording goes on", why);
    qi_stdout_forget();
}

static void on_event(void *context, const struct qallow_accelerator_event *event)
{
    struct kept *kept = context;
    struct speaker *speaker = kept->speaker;
    pthread_mutex_lock(&speaker->lock);
    if (event->ready)
        count_ready(kept);
    if (!speaker->deaf && !speaker->once && !stdout_has_room()) {
        speaker->unprinted++;
    } else if (!speaker->deaf) {
        say_unprinted(speaker);
        if (speaker->context->json)
            json_line(kept, event);
        else
            text_event(kept, event);
        int result = qi_stdout_flush();
        if (result < 0)
            lose_output(speaker, result);
    }
    pthread_mutex_unlock(&speaker->lock);
}

/* --- keeping --- */

static struct qallow_accelerator_options options_of(struct qi_context *context,
                                                    const struct accelerator *a, struct kept *kept)
{
    struct qallow_accelerator_options o;
    qallow_accelerator_defaults(&o, sizeof o);
    o.path = kept->path;
    o.is_file = a->file != NULL;
    o.log = kept->log;
    /* One look for the log leaves no memory taken behind, unless the cache is what is wanted. */
    o.no_cache = a->no_cache || (a->once && !a->no_log);
    o.once = (uint32_t)a->once;
    o.threads = a->threads;
    o.watch = a->no_watch  ? QALLOW_WATCH_NONE
              : a->poll    ? QALLOW_WATCH_POLL
              : a->no_poll ? QALLOW_WATCH_NO_POLL
                           : QALLOW_WATCH_AUTO;
    o.settle_ns = (uint64_t)a->settle;
    o.max_settle_ns = (uint64_t)a->max_settle;
    o.sweep_ns = (uint64_t)a->sweep;
    o.excludes = a->excludes.items;
    o.exclude_count = (uint32_t)a->excludes.count;
    o.include_git = (uint32_t)a->include_git;
    o.no_ignore_files = (uint32_t)a->no_ignore;
    o.hash = a->hash == 1 ? QALLOW_HASH_SHA256 : QALLOW_HASH_XXH3_128;
    o.max_file_size = a->max_file_size;
    o.content_max = a->content;
    o.cache_bytes = a->shm_size;
    o.sync = (uint32_t)a->sync.mode;
    o.sync_interval_ms = (uint32_t)a->sync.interval_ms;
    o.compress_level = a->compress;
    o.logical_clock = a->clock == 1;
    o.uuid = qi_given(context, "uuid") ? a->uuid.bytes : NULL;
    o.max_memory = a->max_memory;
    o.keep_time_ns = a->keep_time;
    o.keep_bytes = a->keep_bytes;
    o.label = a->label;
    o.command = a->command;
    if (kept->is_first) { /* the metrics are those of the process */
        o.telemetry = a->telemetry;
        o.prometheus = a->prometheus;
    }
    o.telemetry_interval_ns = (uint64_t)a->telemetry_interval;
    o.event = on_event;
    o.notice = on_notice;
    o.skipped = on_skipped;
    o.context = kept;
    return o;
}

/* Whether all of several directories can be kept, as far as that is known before: that one of them
 * is missing, or named twice, should not be found out while the others are kept already. */
static int check_directories(struct qi_context *context, const struct qi_list *watch)
{
    struct stat st[KEEPERS_MAX];
    for (size_t i = 0; i < watch->count; i++) {
        const char *path = watch->items[i];
        if (stat(path, &st[i]) < 0)
            return qr_fail_errno(errno, "%s", qr_quotez(path));
        if (!S_ISDIR(st[i].st_mode))
            return qr_fail(QALLOW_E_ARGUMENT, "%s is not a directory", qr_quotez(path));
        for (size_t j = 0; j < i; j++)
            if (st[j].st_dev == st[i].st_dev && st[j].st_ino == st[i].st_ino)
                return qi_usage(context, "each --watch DIR once: %s and %s are the same",
                                qr_quotez(watch->items[j]), qr_quotez(path));
    }
    return 0;
}

/* The log and the thread. */
static int start(struct qi_context *context, const struct accelerator *a, struct kept *kept)
{
    if (!a->no_log) {
        int result = a->log ? 0 : accelerator_default_log(kept->path, &kept->default_log);
        if (result < 0)
            return result;
        kept->log = a->log ? a->log : kept->default_log;
    }
    const struct qallow_accelerator_options options = options_of(context, a, kept);
    return qallow_accelerator_start(&options, &kept->accelerator);
}

/* One of several has failed; the others go on. The exit status for it. */
static int give_up(struct kept *kept, int result)
{
    struct speaker *speaker = kept->speaker;
    int status = qi_report(speaker->context, result);
    pthread_mutex_lock(&speaker->lock);
    count_ready(kept);
    pthread_mutex_unlock(&speaker->lock);
    return status;
}

/* Collects those that have ended; the result of the first that failed. */
static int collect(struct speaker *speaker, struct kept *kept, size_t count, size_t *alive)
{
    int first = 0;
    *alive = 0;
    for (size_t i = 0; i < count; i++) {
        struct pollfd ended = {-1, POLLIN, 0};
        if (kept[i].accelerator)
            ended.fd = qallow_accelerator_fd(kept[i].accelerator);
        if (ended.fd < 0)
            continue;
        if (poll(&ended, 1, 0) <= 0) {
            ++*alive;
            continue;
        }
        int result = qallow_accelerator_finish(kept[i].accelerator);
        kept[i].accelerator = NULL;
        if (result < 0 && first == 0 && !speaker->several)
            return result; /* the launcher reports it */
        if (result < 0) {
            int status = give_up(&kept[i], result);
            first = first ? first : status;
        }
    }
    return first;
}

static void reload(int fd, struct kept *kept, size_t count)
{
    char bytes[64];
    while (read(fd, bytes, sizeof bytes) > 0)
        ;
    for (size_t i = 0; i < count; i++)
        if (kept[i].accelerator)
            qallow_accelerator_reload(kept[i].accelerator);
}

static void stop(struct kept *kept, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (kept[i].accelerator)
            qallow_accelerator_stop(kept[i].accelerator);
}

/* Until all have ended. A keeper that fails ends alone; the others go on. */
static int attend(struct speaker *speaker, struct kept *kept, size_t count, int reload_fd)
{
    int first = 0, stopping = 0;
    size_t alive = 0;
    for (size_t i = 0; i < count; i++)
        alive += kept[i].accelerator != NULL;
    while (alive) {
        struct pollfd fds[KEEPERS_MAX + 2] = {{stopping ? -1 : qi_signal_fd(), POLLIN, 0},
                                              {reload_fd, POLLIN, 0}};
        for (size_t i = 0; i < count; i++)
            fds[i + 2] = (struct pollfd){
                kept[i].accelerator ? qallow_accelerator_fd(kept[i].accelerator) : -1, POLLIN, 0};
        if (poll(fds, count + 2, -1) < 0 && errno != EINTR)
            return qr_fail_errno(errno, "waiting for the keepers");
        if (!stopping && fds[0].revents) {
            stopping = 1;
            stop(kept, count);
        }
        if (fds[1].revents)
            reload(reload_fd, kept, count);
        int result = collect(speaker, kept, count, &alive);
        first = first ? first : result;
    }
    return first;
}

int accelerator_keep(struct qi_context *context, const struct accelerator *a)
{
    size_t count = a->file ? 1 : a->watch.count;
    struct speaker speaker = {.context = context,
                              .lock = PTHREAD_MUTEX_INITIALIZER,
                              .once = a->once,
                              .several = count > 1,
                              .not_ready = count};
    struct kept kept[KEEPERS_MAX] = {{0}};
    int result = 0;
    if (count > KEEPERS_MAX)
        return qi_usage(context, "at most 64 directories");
    if (count > 1 && (result = check_directories(context, &a->watch)) != 0)
        return result;
    qi_signals_catch();
    int reload_fd = qi_signals_reload_fd();
    for (size_t i = 0; i < count && result >= 0; i++) {
        kept[i].speaker = &speaker;
        kept[i].is_first = i == 0;
        kept[i].path = a->file ? a->file : a->watch.items[i];
        int started = start(context, a, &kept[i]);
        if (started < 0 && count == 1)
            result = started;
        else if (started < 0 && result == 0)
            result = give_up(&kept[i], started);
        else if (started < 0)
            give_up(&kept[i], started);
    }
    int ended = result < 0 ? 0 : attend(&speaker, kept, count, reload_fd);
    result = result ? result : ended;
    char detail[1024];
    snprintf(detail, sizeof detail, "%s", qallow_error_detail());
    say_unprinted(&speaker);
    for (size_t i = 0; i < count; i++)
        qr_free(kept[i].default_log);
    return result < 0 ? qr_fail(result, "%s", detail) : result;
}
