/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The recorder: one thread that waits for events, requests and moments, and captures.
 *
 * The order within one turn of the loop is what the barrier rests on: first requests are taken in,
 * then the events that wait, then what is dirty is captured. inotify queues an event before the
 * write that caused it returns, so a request that is seen before the events are drained knows all
 * that was written before it was sent.
 *
 * Requests that need the barrier (sync, label, stop) wait in a list. While there are any, captures
 * do not wait for the tree to settle; a file that changed while it was read stays dirty and is
 * tried again after a pause that grows, until all are captured or the request's time is over.
 *
 * The end: on request or signal the recorder gives itself a barrier and then leaves the loop. When
 * the root is gone nothing more is captured -- an empty directory would be recorded as everything
 * deleted -- unless it was only moved: then it is still open here and what changed last is saved.
 */
#include "accelerator/recorder.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "accelerator/control.h"
#include "runtime/error.h"
#include "telemetry/telemetry.h"

#define MS UINT64_C(1000000)
#define SECOND (1000 * MS)

enum {
    DIRTY_MAX = 65536,    /* paths */
    BARRIERS_MAX = QA_CLIENTS_MAX + 1,
    TORN_MAX = 16,        /* captures that fail because names move, before the recorder gives up */
    DEFAULT_TIMEOUT_MS = 10000,
};
static const uint64_t retry_first_ns = 2 * MS, retry_max_ns = 200 * MS;
static const uint64_t drain_limit_ns = 5000 * MS; /* for the last capture and for --once */

enum request { REQUEST_SYNC, REQUEST_LABEL, REQUEST_STOP, REQUEST_END };

/* Somebody waits until everything that is dirty now has been captured. */
struct barrier {
    uint64_t client; /* 0: the recorder itself */
    uint64_t deadline;
    enum request request;
    char label[256];
};

struct recorder {
    const struct qa_recorder_options *options;
    struct qr_store *store;
    struct qs_tree *tree;
    struct qa_dirty *dirty;
    struct qa_watcher *watcher;
    struct qa_control *control;
    struct qt_csv *csv;
    int mounts_fd;
    uint64_t device, inode; /* of the root */
    uint64_t started, next_row, sync_at;
    uint64_t unstable;      /* files of the last capture that did not hold still */
    char *unstable_path;    /* one of them */
    int torn;               /* captures, one after the other, that met no tree at rest */
    struct barrier barriers[BARRIERS_MAX];
    size_t barrier_count;
    int force_scan;         /* a barrier came in: polled directories and held-back rescans too */
    uint64_t retry_at, retry_pause;
    uint64_t prune_size;    /* of the log, to prune at */
    int64_t prune_time;     /* or at this time */
    int no_punch_said;      /* that dropped epochs still take space on disk */
    int ending;             /* nothing more is taken on */
    int result;             /* why */
    uint64_t stop_client;   /* is answered when the log is closed */
    int done;
};

__attribute__((format(printf, 2, 3))) static void say(const struct recorder *r, const char *format,
                                                      ...)
{
    char line[1024];
    va_list arguments;
    if (!r->options->notice)
        return;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    r->options->notice(r->options->context, line);
}

static int64_t clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static uint64_t newest_epoch(const struct recorder *r)
{
    return qr_state_epoch(qr_store_state(r->store));
}

/* --- is the root still there? --- */

enum root { ROOT_HERE, ROOT_MOVED, ROOT_GONE };

/* For a single file the root is the directory that holds it. */
static enum root look_at_root(const struct recorder *r)
{
    struct stat held, named;
    if (fstat(qs_tree_root_fd(r->tree), &held) < 0 || held.st_nlink == 0)
        return ROOT_GONE;
    if (r->options->is_file)
        return ROOT_HERE;
    if (stat(r->options->path, &named) < 0 || named.st_dev != r->device || named.st_ino != r->inode)
        return ROOT_MOVED;
    return ROOT_HERE;
}

static int root_is_gone(const struct recorder *r)
{
    return qr_fail(QALLOW_E_NO_INPUT,
                   "%s was deleted, moved away or unmounted; recorded up to epoch %llu",
                   qr_quotez(r->options->path), (unsigned long long)newest_epoch(r));
}

/* --- capturing --- */

static void on_unstable(void *context, const char *path)
{
    struct recorder *r = context;
    qa_dirty_mark(r->dirty, path, qa_now_ns(), 0, 0);
    if (!r->unstable_path) {
        r->unstable_path = qr_malloc(strlen(path) + 1);
        if (r->unstable_path)
            memcpy(r->unstable_path, path, strlen(path) + 1);
    }
}

static void on_new_directory(void *context, const char *path, int directory_fd)
{
    struct recorder *r = context;
    if (r->watcher && qa_watcher_found(r->watcher, path) < 0)
        qa_dirty_mark_everything(r->dirty, qa_now_ns());
}

/* Makes room if a limit is passed by an eighth, so that the work is spread over many epochs. */
static int retain(struct recorder *r)
{
    const struct qa_retention *limits = &r->options->retention;
    struct qr_store_info info;
    struct qr_prune_plan plan = {0};
    uint64_t keep_from;
    int64_t now = clock_ns();
    struct qa_retention due = {0};
    if (!limits->keep_bytes && !limits->keep_time_ns)
        return 0;
    qr_store_info(r->store, &info);
    uint64_t size = info.log_end - info.log_start;
    if (limits->keep_bytes && size > limits->keep_bytes + limits->keep_bytes / 8 &&
        size > r->prune_size)
        due.keep_bytes = limits->keep_bytes - limits->keep_bytes / 8;
    if (limits->keep_time_ns && now >= r->prune_time) {
        due.keep_time_ns = limits->keep_time_ns;
        r->prune_time = now + limits->keep_time_ns / 8;
    }
    if (!due.keep_bytes && !due.keep_time_ns)
        return 0;
    int result = qa_retention_keep_from(r->store, &due, now, &keep_from);
    if (result == 0 && keep_from > info.first_epoch)
        result = qr_store_prune(r->store, keep_from, 0, &plan);
    if (result < 0)
        return result;
    qr_store_info(r->store, &info); /* what is still needed may itself be over the limit */
    r->prune_size = info.log_end - info.log_start + limits->keep_bytes / 8;
    if (plan.first_epoch_after > plan.first_epoch_before)
        say(r, "dropped epochs %llu to %llu: %llu bytes given back",
            (unsigned long long)plan.first_epoch_before,
            (unsigned long long)plan.first_epoch_after - 1, (unsigned long long)plan.punched_bytes);
    if (plan.punch_errno && !r->no_punch_said) {
        r->no_punch_said = 1;
        say(r, "%s: the space of dropped epochs is not given back: %s",
            qr_quotez(r->options->log), strerror(plan.punch_errno));
    }
    return 0;
}

static void report(struct recorder *r, const struct qs_capture *capture, uint64_t since, int first)
{
    struct qa_report line = {.capture = *capture, .first = first};
    uint64_t now = qa_now_ns();
    line.time_ns = qr_state_time_ns(qr_store_state(r->store));
    line.waited_ns = first ? 0 : now - since;
    if (capture->committed && !first)
        qt_observe_ns(QT_SETTLE_SECONDS, line.waited_ns);
    qt_set(QT_FILES_SKIPPED, capture->skipped);
    if (r->options->report && (capture->committed || first))
        r->options->report(r->options->context, &line);
    if (capture->committed && r->options->store.sync == QR_SYNC_INTERVAL && !r->sync_at)
        r->sync_at = now + (uint64_t)r->options->store.sync_interval_ms * MS;
}

/* What was taken is dirty again. */
static void give_back(struct recorder *r, const struct qa_taken *taken)
{
    uint64_t now = qa_now_ns();
    for (size_t i = 0; i < taken->count; i++)
        qa_dirty_mark(r->dirty, taken->paths[i], now, 0, 0);
    if (taken->everything)
        qa_dirty_mark_everything(r->dirty, now);
}

/* One epoch of what was taken; what was not captured goes back into the set. */
static int capture(struct recorder *r, struct qa_taken *taken, int first)
{
    struct qs_capture found = {0};
    const struct qs_scope scope = {
        .paths = taken->everything ? NULL : (const char *const *)taken->paths,
        .path_count = taken->count,
        .unstable_path = on_unstable,
        .new_directory = on_new_directory,
        .context = r,
    };
    qr_free(r->unstable_path);
    r->unstable_path = NULL;
    int result = qs_capture(r->tree, &scope, &found);
    r->torn = qs_capture_is_torn(result) ? r->torn + 1 : 0;
    if (r->torn && r->torn < TORN_MAX) { /* names that do not hold still, like files that do not */
        say(r, "names changed while they were looked at, which is done again: %s",
            qallow_error_detail());
        give_back(r, taken);
        on_unstable(r, ".");
        r->unstable = 1;
        return 0;
    }
    if (result < 0)
        return result;
    r->unstable = found.unstable;
    report(r, &found, taken->since, first);
    return found.committed ? retain(r) : 0;
}

static int is_ignore_file(const char *path)
{
    const char *slash = strrchr(path, '/');
    return strcmp(slash ? slash + 1 : path, ".qallowignore") == 0;
}

/* An ignore file changed: other paths are recorded from now on. */
static int follow_rules(struct recorder *r, struct qa_taken *taken)
{
    int changed = 0;
    if (r->options->rules.no_ignore_file || r->options->is_file)
        return 0;
    for (size_t i = 0; i < taken->count && !changed; i++)
        changed = is_ignore_file(taken->paths[i]);
    if (!changed)
        return 0;
    uint64_t since = taken->since;
    int result = qs_rules_reload(r->tree);
    if (result == 0 && r->watcher)
        result = qa_watcher_rescan(r->watcher);
    qa_taken_finish(taken);
    if (result == 0)
        result = qa_dirty_take(r->dirty, NULL, qa_now_ns(), taken);
    taken->everything = 1;
    taken->since = since;
    return result;
}

/* Captures what is due; whatever is dirty with settle == NULL. */
static int capture_due(struct recorder *r, const struct qa_settle *settle)
{
    struct qa_taken taken;
    int result = qa_dirty_take(r->dirty, settle, qa_now_ns(), &taken);
    r->unstable = 0;
    if (result < 0 || (!taken.everything && taken.count == 0))
        return result;
    /* A path may stand for the whole tree: one file has no paths below it. */
    if (r->options->is_file)
        taken.everything = 1;
    result = follow_rules(r, &taken);
    enum root root = look_at_root(r);
    if (result == 0 && (root == ROOT_GONE || (root == ROOT_MOVED && !r->ending))) {
        give_back(r, &taken);
        result = root_is_gone(r);
    }
    if (result == 0)
        result = capture(r, &taken, 0);
    if (result < 0 && look_at_root(r) == ROOT_GONE)
        result = root_is_gone(r);
    qa_taken_finish(&taken);
    return result;
}

/* --- requests --- */

static const char *text_of(const cJSON *request, const char *name)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(request, name));
}

/* A whole number within what a double holds exactly; `fallback` if it is missing or is none. */
static uint64_t number_of(const cJSON *request, const char *name, uint64_t fallback)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(request, name);
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0) || item->valuedouble > 9e15)
        return fallback;
    return (uint64_t)item->valuedouble;
}

/* A time in units of `unit_ns` as nanoseconds; what is beyond them is for ever. */
static int64_t time_of(const cJSON *request, const char *name, uint64_t unit_ns, uint64_t fallback)
{
    uint64_t units = number_of(request, name, fallback);
    return units > INT64_MAX / unit_ns ? INT64_MAX : (int64_t)(units * unit_ns);
}

static void answer(struct recorder *r, uint64_t client, cJSON *reply)
{
    if (client)
        qa_control_reply(r->control, client, reply);
    else
        cJSON_Delete(reply);
}

static void answer_failure(struct recorder *r, uint64_t client, int result)
{
    answer(r, client, qa_reply_failed(result, qallow_error_detail()));
}

static void answer_epoch(struct recorder *r, uint64_t client)
{
    cJSON *reply = qa_reply_ok();
    cJSON_AddNumberToObject(reply, "epoch", (double)newest_epoch(r));
    answer(r, client, reply);
}

static int add_barrier(struct recorder *r, uint64_t client, enum request request, uint64_t timeout,
                       const char *label)
{
    if (r->barrier_count == BARRIERS_MAX)
        return qr_fail(QALLOW_E_BUSY, "too many requests are waiting");
    struct barrier *b = &r->barriers[r->barrier_count];
    *b = (struct barrier){.client = client, .request = request, .deadline = qa_now_ns() + timeout};
    if (label && strlen(label) >= sizeof b->label)
        return qr_fail(QALLOW_E_ARGUMENT, "a label has at most %zu bytes", sizeof b->label - 1);
    if (label)
        memcpy(b->label, label, strlen(label) + 1);
    r->barrier_count++;
    r->force_scan = 1;
    r->retry_at = 0;
    r->retry_pause = retry_first_ns;
    return 0;
}

static void answer_status(struct recorder *r, uint64_t client)
{
    struct qa_watcher_status watcher;
    struct qr_store_info info;
    cJSON *reply = qa_reply_ok();
    qa_watcher_status(r->watcher, &watcher);
    qr_store_info(r->store, &info);
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        {"pid", (uint64_t)getpid()},
        {"uptime_ms", (qa_now_ns() - r->started) / MS},
        {"first_epoch", info.first_epoch},
        {"epoch", newest_epoch(r)},
        {"pages", qr_state_page_count(qr_store_state(r->store))},
        {"page_bytes", qr_state_bytes(qr_store_state(r->store))},
        {"log_bytes", info.log_end - info.log_start},
        {"changed_paths", qa_dirty_count(r->dirty)},
        {"skipped", qt_get(QT_FILES_SKIPPED)},
        {"directories", watcher.directories},
        {"watches", watcher.watches},
        {"polled_directories", watcher.polled},
        {"events", watcher.events},
        {"overflows", watcher.overflows},
        {"rescans", watcher.rescans},
    };
    cJSON_AddStringToObject(reply, "path", qr_quotez(r->options->path));
    cJSON_AddBoolToObject(reply, "settled", qa_dirty_is_empty(r->dirty));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        cJSON_AddNumberToObject(reply, numbers[i].name, (double)numbers[i].value);
    answer(r, client, reply);
}

static int prune(struct recorder *r, uint64_t client, const cJSON *request)
{
    struct qr_prune_plan plan = {0};
    const struct qa_retention limits = {
        .keep_epochs = number_of(request, "keep_epochs", 0),
        .keep_time_ns = time_of(request, "keep_time_s", SECOND, 0),
        .keep_bytes = number_of(request, "keep_bytes", 0),
    };
    uint64_t keep_from, asked_from = number_of(request, "keep_from", 0);
    if (!asked_from && !limits.keep_epochs && !limits.keep_time_ns && !limits.keep_bytes)
        return qr_fail(QALLOW_E_ARGUMENT,
                       "prune needs keep_from, keep_epochs, keep_time_s or keep_bytes");
    int dry_run = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(request, "dry_run"));
    int result = qa_retention_keep_from(r->store, &limits, clock_ns(), &keep_from);
    if (result == 0)
        result = qr_store_prune(r->store, asked_from > keep_from ? asked_from : keep_from, dry_run,
                                &plan);
    if (result < 0)
        return result;
    cJSON *reply = qa_reply_ok();
    cJSON_AddNumberToObject(reply, "first_epoch_before", (double)plan.first_epoch_before);
    cJSON_AddNumberToObject(reply, "first_epoch_after", (double)plan.first_epoch_after);
    cJSON_AddNumberToObject(reply, "punched_bytes", (double)plan.punched_bytes);
    cJSON_AddNumberToObject(reply, "relocated_bytes", (double)plan.relocated_bytes);
    cJSON_AddNumberToObject(reply, "punch_errno", plan.punch_errno);
    answer(r, client, reply);
    return 0;
}

/* Names an epoch: the newest one after a barrier, or the one that is given, at once. */
static int label(struct recorder *r, uint64_t client, const cJSON *request, uint64_t timeout)
{
    const char *name = text_of(request, "name");
    uint64_t epoch = number_of(request, "epoch", 0);
    if (!name)
        return qr_fail(QALLOW_E_ARGUMENT, "label needs a name");
    if (!epoch)
        return add_barrier(r, client, REQUEST_LABEL, timeout, name);
    int result = qr_store_label(r->store, name, epoch);
    if (result < 0)
        return result;
    cJSON *reply = qa_reply_ok();
    cJSON_AddNumberToObject(reply, "epoch", (double)epoch);
    answer(r, client, reply);
    return 0;
}

static void on_request(void *context, uint64_t client, const cJSON *request)
{
    struct recorder *r = context;
    const char *what = text_of(request, "request");
    uint64_t timeout = (uint64_t)time_of(request, "timeout_ms", MS, DEFAULT_TIMEOUT_MS);
    int result = 0;
    if (!what)
        result = qr_fail(QALLOW_E_ARGUMENT, "a request has a member \"request\"");
    else if (strcmp(what, "sync") == 0)
        result = add_barrier(r, client, REQUEST_SYNC, timeout, NULL);
    else if (strcmp(what, "label") == 0)
        result = label(r, client, request, timeout);
    else if (strcmp(what, "prune") == 0)
        result = prune(r, client, request);
    else if (strcmp(what, "status") == 0)
        answer_status(r, client);
    else if (strcmp(what, "stop") == 0)
        result = add_barrier(r, client, REQUEST_STOP, drain_limit_ns, NULL);
    else
        result = qr_fail(QALLOW_E_ARGUMENT, "unknown request %s", qr_quotez(what));
    if (result < 0)
        answer_failure(r, client, result);
}

/* What a barrier was for, now that everything is captured or (late) its time is over. */
static int finish_barrier(struct recorder *r, const struct barrier *b, int late)
{
    int result = 0;
    if (late)
        result = qr_fail(QALLOW_E_BUSY, "%llu files change faster than they can be read, among "
                         "them %s", (unsigned long long)r->unstable,
                         r->unstable_path ? qr_quotez(r->unstable_path) : "?");
    if (b->request == REQUEST_STOP || b->request == REQUEST_END) {
        if (late)
            say(r, "ending without their last state: %s", qallow_error_detail());
        r->stop_client = b->client;
        r->done = 1;
        return 0;
    }
    if (result == 0 && r->options->store.sync != QR_SYNC_COMMIT &&
        (result = qr_store_sync(r->store)) < 0)
        return result;
    if (result == 0 && b->request == REQUEST_LABEL)
        result = qr_store_label(r->store, b->label, 0);
    if (result < 0)
        answer_failure(r, b->client, result);
    else
        answer_epoch(r, b->client);
    return 0;
}

/* Captures without waiting for quiet and answers those whose barrier is through. */
static int serve_barriers(struct recorder *r)
{
    if (r->force_scan) {
        int result = qa_watcher_work(r->watcher, 1);
        if (result < 0)
            return result;
        r->force_scan = 0;
    }
    if (qa_now_ns() < r->retry_at)
        return 0;
    int result = capture_due(r, NULL);
    if (result < 0)
        return result;
    uint64_t now = qa_now_ns();
    size_t waiting = 0;
    for (size_t i = 0; i < r->barrier_count && result == 0; i++) {
        const struct barrier b = r->barriers[i];
        int late = r->unstable > 0 && now >= b.deadline;
        if (r->unstable == 0 || late)
            result = finish_barrier(r, &b, late);
        else
            r->barriers[waiting++] = b;
    }
    r->barrier_count = waiting;
    r->retry_at = now + r->retry_pause;
    if (r->retry_pause < retry_max_ns)
        r->retry_pause *= 2;
    return result;
}

/* --- the loop --- */

static void min(uint64_t *a, uint64_t b)
{
    if (b < *a)
        *a = b;
}

/* Sleeps until something happens or is due. */
static int wait_for_work(struct recorder *r, int *stop, int *mounts)
{
    struct pollfd fds[QA_POLL_MAX + 3];
    fds[0] = (struct pollfd){r->ending ? -1 : r->options->stop_fd, POLLIN, 0};
    fds[1] = (struct pollfd){r->mounts_fd, POLLPRI, 0};
    fds[2] = (struct pollfd){qa_watcher_fd(r->watcher), POLLIN, 0};
    size_t n = 3 + qa_control_poll(r->control, fds + 3);
    uint64_t until = qa_watcher_deadline(r->watcher);
    if (r->barrier_count)
        min(&until, r->force_scan ? 0 : r->retry_at);
    else
        min(&until, qa_dirty_deadline(r->dirty, &r->options->settle));
    if (r->csv)
        min(&until, r->next_row);
    if (r->sync_at)
        min(&until, r->sync_at);
    struct timespec timeout = {0};
    uint64_t now = qa_now_ns();
    if (until > now) {
        timeout.tv_sec = (time_t)((until - now) / 1000000000);
        timeout.tv_nsec = (long)((until - now) % 1000000000);
    }
    int ready = ppoll(fds, n, until == UINT64_MAX ? NULL : &timeout, NULL);
    if (ready < 0 && errno != EINTR)
        return qr_fail_errno(errno, "waiting for events");
    *stop = ready > 0 && fds[0].revents != 0;
    *mounts = ready > 0 && fds[1].revents != 0;
    return 0;
}

static void write_row(struct recorder *r, uint64_t now)
{
    if (!r->csv || now < r->next_row)
        return;
    int err = qt_csv_write(r->csv);
    if (err < 0)
        say(r, "%s: %s: no more telemetry", qr_quotez(r->options->telemetry), strerror(-err));
    if (err < 0) {
        qt_csv_close(r->csv);
        r->csv = NULL;
    }
    r->next_row = now + r->options->telemetry_interval_ns;
}

/* Starts the end: with one last barrier, after which the loop is left. */
static int begin_end(struct recorder *r, int result)
{
    r->ending = 1;
    r->result = result;
    return add_barrier(r, 0, REQUEST_END, drain_limit_ns, NULL);
}

/* After a look at the root that was due: ends when it is not there any more. */
static int follow_root(struct recorder *r)
{
    enum root root = look_at_root(r);
    if (root == ROOT_HERE || r->ending)
        return 0;
    int result = root_is_gone(r);
    return root == ROOT_MOVED ? begin_end(r, result) : result;
}

static int turn(struct recorder *r)
{
    int stop = 0, mounts = 0, result = wait_for_work(r, &stop, &mounts);
    if (result < 0)
        return result;
    if (stop && !r->ending && (result = begin_end(r, 0)) < 0)
        return result;
    qa_control_serve(r->control, on_request, r);
    if ((result = qa_watcher_drain(r->watcher)) < 0)
        return result;
    struct qa_watcher_status watcher;
    qa_watcher_status(r->watcher, &watcher);
    if ((mounts || watcher.root_gone) && (result = follow_root(r)) < 0)
        return result;
    uint64_t now = qa_now_ns();
    if (r->barrier_count)
        result = serve_barriers(r);
    else if (now >= qa_dirty_deadline(r->dirty, &r->options->settle))
        result = capture_due(r, &r->options->settle);
    if (result == 0 && r->sync_at && now >= r->sync_at) {
        r->sync_at = 0;
        result = qr_store_sync(r->store);
    }
    write_row(r, now);
    return result;
}

/* --- life --- */

static int is_recorded(void *context, const char *path, int is_directory)
{
    struct recorder *r = context;
    return qs_is_recorded(r->tree, path, is_directory);
}

static void on_notice(void *context, const char *line)
{
    struct recorder *r = context;
    say(r, "%s", line);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int open_log(struct recorder *r)
{
    const struct qa_recorder_options *o = r->options;
    struct stat st;
    if (stat(o->path, &st) < 0) /* before a log is made for it */
        return qr_fail_errno(errno, "%s", qr_quotez(o->path));
    if (o->is_file ? !S_ISREG(st.st_mode) : !S_ISDIR(st.st_mode))
        return qr_fail(QALLOW_E_ARGUMENT, "%s is not a %s", qr_quotez(o->path),
                       o->is_file ? "regular file" : "directory");
    r->device = st.st_dev;
    r->inode = st.st_ino;
    struct qr_store_options store = o->store;
    store.writable = store.create = 1;
    store.notice = on_notice;
    store.notice_context = r;
    int result = qr_store_open(o->log, &store, &r->store);
    if (result < 0)
        return result;
    const char *own[] = {o->telemetry};
    const struct qs_tree_options tree = {
        .rules = o->rules,
        .threads = o->threads,
        .is_file = o->is_file,
        .own_files = own,
        .own_file_count = o->telemetry ? 1 : 0,
        .skipped = o->skipped,
        .context = o->context,
    };
    result = qs_tree_open(o->path, r->store, &tree, &r->tree);
    if (result == 0 && !o->is_file && qs_restore_is_target(r->tree) == 0)
        say(r, "%s holds the history of another directory; what is in %s becomes its next epoch",
            qr_quotez(qr_store_path(r->store)), qr_quotez(o->path));
    return result;
}

static int open_watcher(struct recorder *r)
{
    const struct qa_watcher_options options = {
        .root_fd = qs_tree_root_fd(r->tree),
        .only = r->options->is_file ? base_name(r->options->path) : NULL,
        .poll = r->options->poll,
        .is_recorded = is_recorded,
        .notice = on_notice,
        .context = r,
    };
    int result = qa_control_open(qr_store_path(r->store), &r->control);
    if (result == 0)
        result = qa_watcher_create(&options, r->dirty, &r->watcher);
    r->mounts_fd = open("/proc/self/mounts", O_RDONLY | O_CLOEXEC); /* -1: poll() skips it */
    return result;
}

static int open_telemetry(struct recorder *r)
{
    if (!r->options->telemetry)
        return 0;
    int err = qt_csv_open(r->options->telemetry, &r->csv);
    r->next_row = qa_now_ns();
    return err < 0 ? qr_fail_errno(-err, "%s", qr_quotez(r->options->telemetry)) : 0;
}

static int stop_was_asked(const struct recorder *r)
{
    struct pollfd p = {r->options->stop_fd, POLLIN, 0};
    return poll(&p, 1, 0) > 0;
}

/* The whole tree once; with --once until every file has held still. */
static int first_capture(struct recorder *r)
{
    struct qa_taken everything = {.everything = 1};
    int result = capture(r, &everything, 1);
    uint64_t deadline = qa_now_ns() + drain_limit_ns, pause = retry_first_ns;
    while (result == 0 && r->options->once && r->unstable > 0 && !stop_was_asked(r)) {
        if (qa_now_ns() > deadline)
            return qr_fail(QALLOW_E_BUSY, "%llu files change faster than they can be read, among "
                           "them %s", (unsigned long long)r->unstable,
                           r->unstable_path ? qr_quotez(r->unstable_path) : "?");
        const struct timespec rest = {0, (long)pause};
        nanosleep(&rest, NULL);
        if (pause < retry_max_ns)
            pause *= 2;
        result = capture_due(r, NULL);
    }
    if (result == 0 && r->options->label)
        result = qr_store_label(r->store, r->options->label, 0);
    return result;
}

/* Ends in order; the first error counts. */
static int finish(struct recorder *r, int result)
{
    char detail[1024] = "";
    uint64_t epoch = r->store ? newest_epoch(r) : 0;
    if (result < 0)
        snprintf(detail, sizeof detail, "%s", qallow_error_detail());
    if (r->csv) {
        r->next_row = 0;
        write_row(r, qa_now_ns());
    }
    qt_csv_close(r->csv);
    qa_watcher_destroy(r->watcher);
    qs_tree_close(r->tree);
    qa_control_unlink(r->control); /* while the log is still ours */
    int closed = r->store ? qr_store_close(r->store) : 0;
    if (result < 0)
        qr_fail(result, "%s", detail);
    else
        result = closed;
    if (r->control && r->stop_client) {
        cJSON *reply = result < 0 ? qa_reply_failed(result, qallow_error_detail()) : qa_reply_ok();
        if (result == 0)
            cJSON_AddNumberToObject(reply, "epoch", (double)epoch);
        qa_control_reply(r->control, r->stop_client, reply);
    }
    qa_control_close(r->control);
    qa_dirty_destroy(r->dirty);
    qr_free(r->unstable_path);
    if (r->mounts_fd >= 0)
        close(r->mounts_fd);
    return result;
}

int qa_record(const struct qa_recorder_options *options)
{
    struct recorder r = {.options = options, .mounts_fd = -1, .started = qa_now_ns()};
    int result = open_log(&r);
    if (result == 0)
        result = qa_dirty_create(DIRTY_MAX, &r.dirty);
    if (result == 0 && !options->once)
        result = open_watcher(&r);
    if (result == 0)
        result = open_telemetry(&r);
    if (result == 0)
        result = first_capture(&r);
    while (result == 0 && !options->once && !r.done)
        result = turn(&r);
    if (result == 0)
        result = r.result;
    return finish(&r, result);
}
