/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper: one thread that waits for events, requests and moments, and takes changes in: into
 * the log, then into the cache.
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
 * The end: on request or signal the keeper gives itself a barrier and then leaves the loop. When
 * the root is gone nothing more is captured -- an empty directory would be recorded as everything
 * deleted -- unless it was only moved: then it is still open here and what changed last is saved.
 */
#include "accelerator/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "accelerator/capability.h"
#include "accelerator/keeper_internal.h"
#include "runtime/error.h"
#include "telemetry/telemetry.h"

enum { DIRTY_MAX = 65536 }; /* paths */
static const uint64_t retry_first_ns = 2 * MS, retry_max_ns = 200 * MS;
static const uint64_t drain_limit_ns = 5000 * MS; /* for the last capture and for --once */

void qa_keeper_say(const struct qa_keeper *k, const char *format, ...)
{
    char line[1024];
    va_list arguments;
    if (!k->options->notice)
        return;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    k->options->notice(k->options->context, line);
}

int64_t qa_clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

uint64_t qa_keeper_epoch(const struct qa_keeper *k)
{
    return k->store ? qr_state_epoch(qr_store_state(k->store)) : qa_cache_epoch(k->cache);
}

/* --- is the root still there? --- */

enum root { ROOT_HERE, ROOT_MOVED, ROOT_GONE };

/* For a single file the root is the directory that holds it. */
static enum root look_at_root(const struct qa_keeper *k)
{
    struct stat held, named;
    if (fstat(qs_tree_root_fd(k->tree), &held) < 0 || held.st_nlink == 0)
        return ROOT_GONE;
    if (k->options->is_file)
        return ROOT_HERE;
    if (stat(k->options->path, &named) < 0 || named.st_dev != k->device || named.st_ino != k->inode)
        return ROOT_MOVED;
    return ROOT_HERE;
}

static int root_is_gone(const struct qa_keeper *k)
{
    return qr_fail(QALLOW_E_NO_INPUT,
                   "%s was deleted, moved away or unmounted; recorded up to epoch %llu",
                   qr_quotez(k->options->path), (unsigned long long)qa_keeper_epoch(k));
}
/* --- taking changes in --- */

void qa_keeper_unstable(void *context, const char *path)
{
    struct qa_keeper *k = context;
    qa_dirty_mark(k->dirty, path, qa_now_ns(), 0, 0);
    if (!k->unstable_path) {
        k->unstable_path = qr_malloc(strlen(path) + 1);
        if (k->unstable_path)
            memcpy(k->unstable_path, path, strlen(path) + 1);
    }
}

/* What was taken is dirty again. */
static void give_back(struct qa_keeper *k, const struct qa_taken *taken)
{
    uint64_t now = qa_now_ns();
    for (size_t i = 0; i < taken->count; i++)
        qa_dirty_mark(k->dirty, taken->paths[i], now, 0, 0);
    if (taken->everything)
        qa_dirty_mark_everything(k->dirty, now);
}

static void report(struct qa_keeper *k, struct qa_report *line, const struct qa_indexed *indexed,
                   uint64_t since)
{
    const struct qs_capture *capture = &line->capture;
    line->epoch = qa_keeper_epoch(k);
    line->time_ns = k->store ? qr_state_time_ns(qr_store_state(k->store)) : qa_clock_ns();
    line->waited_ns = line->first ? 0 : qa_now_ns() - since;
    line->entries = k->store ? capture->entries : indexed->entries;
    line->read_files = k->store ? capture->read_files : indexed->read_files;
    line->read_bytes = k->store ? capture->read_bytes : indexed->read_bytes;
    line->skipped = k->store ? capture->skipped : indexed->unreadable;
    line->cached = indexed->changed;
    if (line->committed && !line->first) {
        qt_observe_ns(QT_SETTLE_SECONDS, line->waited_ns);
        k->last_wait_ns = line->waited_ns;
        if (k->cache)
            qt_observe_ns(QT_EVENT_TO_CACHE_SECONDS, line->waited_ns);
        if (k->store && k->options->store.sync == QR_SYNC_COMMIT)
            qt_observe_ns(QT_EVENT_TO_DURABLE_SECONDS, line->waited_ns);
    }
    qt_set(QT_FILES_SKIPPED, line->skipped);
    if (k->options->report && (line->committed || line->first))
        k->options->report(k->options->context, line);
}

/* Once, and not before there is one: it is news only to who has some. */
static void say_git(struct qa_keeper *k)
{
    if (!k->git_said && qs_tree_met_git(k->tree)) {
        qa_keeper_say(k, ".git directories are left out; --include-git records them");
        k->git_said = 1;
    }
}

static void count(struct qa_keeper *k)
{
    struct qa_watcher_status watcher = {0};
    if (k->watcher)
        qa_watcher_status(k->watcher, &watcher);
    qt_set(QT_QUEUE_DEPTH, qa_dirty_count(k->dirty));
    qt_set(QT_WATCHES, watcher.watches);
    qt_set(QT_POLLED_DIRECTORIES, watcher.polled);
    if (k->cache && k->indexer)
        qa_index_count(k);
}

/* One epoch of what was taken; what could not be taken in goes back into the set. */
static int take_in(struct qa_keeper *k, const struct qa_taken *taken, int first)
{
    struct qa_report line = {.first = first};
    struct qa_indexed indexed = {0};
    uint64_t before = qa_keeper_epoch(k);
    int torn = 0, result = 0;
    qr_free(k->unstable_path);
    k->unstable_path = NULL;
    if (k->store)
        result = qa_log_take(k, taken, &line.capture, &torn);
    if (torn) {
        give_back(k, taken);
        qa_keeper_unstable(k, ".");
        k->unstable = 1;
        return 0;
    }
    if (result == 0 && k->cache)
        result = qa_index_take(k, taken, &indexed);
    if (result == 0 && k->is_entering && k->watcher)
        result = qa_watcher_entered(k->watcher);
    k->is_entering = 0;
    if (result < 0)
        return result;
    k->unstable =
        line.capture.unstable > indexed.unstable ? line.capture.unstable : indexed.unstable;
    line.committed = qa_keeper_epoch(k) > before;
    say_git(k);
    if (first)
        count(k); /* before anybody is told that it is ready to be asked */
    report(k, &line, &indexed, taken->since);
    if (k->runner && line.committed)
        qa_runner_epoch(k->runner, line.epoch);
    return k->store && line.committed ? qa_log_retain(k) : 0;
}

static int is_ignore_file(const char *path)
{
    const char *slash = strrchr(path, '/');
    return strcmp(slash ? slash + 1 : path, ".qallowignore") == 0;
}

/* Other paths may be kept from now on. */
static int reload_rules(struct qa_keeper *k)
{
    qt_log(QT_INFO, "the ignore files of %s are read again: the whole tree is looked at again",
           qr_quotez(k->options->path));
    int result = qs_rules_reload(k->tree);
    if (result == 0 && k->watcher)
        result = qa_watcher_rescan(k->watcher);
    qa_dirty_mark_everything(k->dirty, qa_now_ns());
    return result;
}

/* An ignore file changed. */
static int follow_rules(struct qa_keeper *k, struct qa_taken *taken)
{
    int changed = 0;
    if (k->options->rules.no_ignore_file || k->options->is_file)
        return 0;
    for (size_t i = 0; i < taken->count && !changed; i++)
        changed = is_ignore_file(taken->paths[i]);
    if (!changed)
        return 0;
    uint64_t since = taken->since;
    int result = reload_rules(k);
    qa_taken_finish(taken);
    if (result == 0)
        result = qa_dirty_take(k->dirty, NULL, qa_now_ns(), taken);
    taken->everything = 1;
    taken->since = since;
    return result;
}

/* Captures what is due; whatever is dirty with settle == NULL. */
static int capture_due(struct qa_keeper *k, const struct qa_settle *settle)
{
    struct qa_taken taken;
    int result = qa_dirty_take(k->dirty, settle, qa_now_ns(), &taken);
    k->unstable = 0;
    if (result < 0 || (!taken.everything && taken.count == 0))
        return result;
    /* A path may stand for the whole tree: one file has no paths below it. */
    if (k->options->is_file)
        taken.everything = 1;
    result = follow_rules(k, &taken);
    enum root root = look_at_root(k);
    if (result == 0 && (root == ROOT_GONE || (root == ROOT_MOVED && !k->ending))) {
        give_back(k, &taken);
        result = root_is_gone(k);
    }
    if (result == 0)
        result = take_in(k, &taken, 0);
    if (result < 0 && look_at_root(k) == ROOT_GONE)
        result = root_is_gone(k);
    qa_taken_finish(&taken);
    return result;
}
/* --- barriers --- */

int qa_keeper_add_barrier(struct qa_keeper *k, uint64_t client, enum qa_request request,
                          uint64_t timeout_ns, const char *label)
{
    if (k->barrier_count == QA_BARRIERS_MAX)
        return qr_fail(QALLOW_E_BUSY, "too many requests are waiting");
    struct qa_barrier *b = &k->barriers[k->barrier_count];
    *b = (struct qa_barrier){
        .client = client, .request = request, .deadline = qa_now_ns() + timeout_ns};
    if (label && strlen(label) >= sizeof b->label)
        return qr_fail(QALLOW_E_ARGUMENT, "a label has at most %zu bytes", sizeof b->label - 1);
    if (label)
        memcpy(b->label, label, strlen(label) + 1);
    k->barrier_count++;
    k->force_scan = 1;
    k->retry_at = 0;
    k->retry_pause = retry_first_ns;
    return 0;
}

/* What a barrier was for, now that everything is captured or (late) its time is over. */
static int finish_barrier(struct qa_keeper *k, const struct qa_barrier *b, int late)
{
    int result = 0;
    if (late)
        result = qr_fail(QALLOW_E_BUSY,
                         "%llu files change faster than they can be read, among "
                         "them %s",
                         (unsigned long long)k->unstable,
                         k->unstable_path ? qr_quotez(k->unstable_path) : "?");
    if (b->request == QA_REQUEST_STOP || b->request == QA_REQUEST_END) {
        if (late)
            qa_keeper_say(k, "ending without their last state: %s", qallow_error_detail());
        k->stop_client = b->client;
        k->done = 1;
        return 0;
    }
    if (result == 0 && k->store && k->options->store.sync != QR_SYNC_COMMIT &&
        (result = qr_store_sync(k->store)) < 0)
        return result;
    if (result == 0 && b->request == QA_REQUEST_LABEL)
        result = qr_store_label(k->store, b->label, 0);
    if (result < 0)
        qa_keeper_answer_failure(k, b->client, result);
    else
        qa_keeper_answer_epoch(k, b->client);
    return 0;
}

static void mark_young(void *context, const char *path)
{
    struct qa_keeper *k = context;
    qa_dirty_mark(k->dirty, path, qa_now_ns(), 0, 0);
}

/* What events do not tell of. A file that was read a moment ago may have been stored into since,
 * through a mapping, in the same tick of the clock. */
static int look_everywhere(struct qa_keeper *k)
{
    if (k->indexer)
        qa_indexer_each_young(k->indexer, mark_young, k);
    if (k->watcher)
        return qa_watcher_work(k->watcher, 1);
    qa_dirty_mark_everything(k->dirty, qa_now_ns());
    return 0;
}

/* Captures without waiting for quiet and answers those whose barrier is through. */
static int serve_barriers(struct qa_keeper *k)
{
    if (k->force_scan) {
        int result = look_everywhere(k);
        if (result < 0)
            return result;
        k->force_scan = 0;
    }
    if (qa_now_ns() < k->retry_at)
        return 0;
    int result = capture_due(k, NULL);
    if (result < 0)
        return result;
    uint64_t now = qa_now_ns();
    size_t waiting = 0;
    for (size_t i = 0; i < k->barrier_count && result == 0; i++) {
        const struct qa_barrier b = k->barriers[i];
        int late = k->unstable > 0 && now >= b.deadline;
        if (k->unstable == 0 || late)
            result = finish_barrier(k, &b, late);
        else
            k->barriers[waiting++] = b;
    }
    k->barrier_count = waiting;
    k->retry_at = now + k->retry_pause;
    if (k->retry_pause < retry_max_ns)
        k->retry_pause *= 2;
    return result;
}
/* --- the loop --- */

static void min(uint64_t *a, uint64_t b)
{
    if (b < *a)
        *a = b;
}

/* What there is to wait for besides the socket. */
enum { ON_STOP, ON_MOUNTS, ON_EVENTS, ON_RELOAD, ON_RUN_ENDED, ON_COUNT };

static uint64_t next_moment(const struct qa_keeper *k)
{
    uint64_t until = k->watcher ? qa_watcher_deadline(k->watcher) : UINT64_MAX;
    if (k->barrier_count)
        min(&until, k->force_scan ? 0 : k->retry_at);
    else
        min(&until, qa_dirty_deadline(k->dirty, &k->options->settle));
    if (k->next_row)
        min(&until, k->next_row);
    if (k->next_sweep)
        min(&until, k->next_sweep);
    if (k->sync_at)
        min(&until, k->sync_at);
    if (k->indexer)
        min(&until, qa_indexer_deadline(k->indexer));
    min(&until, qa_control_deadline(k->control));
    return until;
}

/* A descriptor that the program around us has closed would end every sleep at once. (POLLERR and
 * POLLHUP are news like any other: of the mounts, or of a child that ended.) */
static int check_descriptors(const struct pollfd *fds)
{
    static const char *const names[ON_COUNT] = {[ON_STOP] = "the wish to stop",
                                                [ON_MOUNTS] = "mounts",
                                                [ON_EVENTS] = "file-system events",
                                                [ON_RELOAD] = "the wish to reload",
                                                [ON_RUN_ENDED] = "the end of --run"};
    for (size_t i = 0; i < ON_COUNT; i++)
        if (fds[i].revents & POLLNVAL)
            return qr_fail_errno(EBADF, "waiting for %s", names[i]);
    return 0;
}

/* Sleeps until something happens or is due, and says what happened, a bit for each ON_*. */
static int wait_for_work(struct qa_keeper *k, unsigned *happened)
{
    struct pollfd fds[QA_POLL_MAX + ON_COUNT] = {
        [ON_STOP] = {k->ending ? -1 : k->options->stop_fd, POLLIN, 0},
        [ON_MOUNTS] = {k->mounts_fd, POLLPRI, 0},
        [ON_EVENTS] = {k->watcher ? qa_watcher_fd(k->watcher) : -1, POLLIN, 0},
        [ON_RELOAD] = {k->options->reload_fd, POLLIN, 0},
        [ON_RUN_ENDED] = {qa_runner_fd(k->runner), POLLIN, 0},
    };
    size_t n = ON_COUNT + qa_control_poll(k->control, fds + ON_COUNT);
    struct timespec timeout = {0};
    uint64_t now = qa_now_ns(), until = next_moment(k);
    if (until > now) {
        timeout.tv_sec = (time_t)((until - now) / 1000000000);
        timeout.tv_nsec = (long)((until - now) % 1000000000);
    }
    int ready = ppoll(fds, n, until == UINT64_MAX ? NULL : &timeout, NULL);
    if (ready < 0 && errno != EINTR)
        return qr_fail_errno(errno, "waiting for events");
    *happened = 0;
    for (size_t i = 0; i < ON_COUNT && ready > 0; i++)
        *happened |= (unsigned)(fds[i].revents != 0) << i;
    return check_descriptors(fds);
}

void qa_keeper_refresh(void *context, uint64_t *busy_ns)
{
    struct qa_keeper *k = context;
    (void)busy_ns;
    qt_tree_set(k->numbers, QT_UPTIME_SECONDS, qa_now_ns() - k->started);
}

/* Somebody may raise it while we run. */
static void count_limit(void)
{
    const char *sysctl;
    uint64_t limit;
    qt_set(QT_WATCHES_LIMIT, qa_inotify_limit(QA_INOTIFY_WATCHES, &limit, &sysctl) ? limit : 0);
}

/* The present numbers, to wherever they are wanted. */
static void write_numbers(struct qa_keeper *k, uint64_t now)
{
    if (!k->next_row || now < k->next_row)
        return;
    count_limit();
    qt_trees_refresh(now);
    int err = k->csv ? qt_csv_write(k->csv) : 0;
    if (err < 0) {
        qa_keeper_say(k, "%s: %s: no more telemetry", qr_quotez(k->options->telemetry),
                      strerror(-err));
        qt_csv_close(k->csv);
        k->csv = NULL;
    }
    err = k->options->prometheus ? qt_prometheus_write(k->options->prometheus, qr_quotez(k->root))
                                 : 0;
    if (err < 0)
        qt_log(QT_WARN, "%s: %s", qr_quotez(k->options->prometheus), strerror(-err));
    k->next_row = now + k->options->telemetry_interval_ns;
}

/* Starts the end: with one last barrier, after which the loop is left. */
static int begin_end(struct qa_keeper *k, int result)
{
    k->ending = 1;
    k->result = result;
    return qa_keeper_add_barrier(k, 0, QA_REQUEST_END, drain_limit_ns, NULL);
}

/* After a look at the root that was due: ends when it is not there any more. */
static int follow_root(struct qa_keeper *k)
{
    enum root root = look_at_root(k);
    if (root == ROOT_HERE || k->ending)
        return 0;
    int result = root_is_gone(k);
    return root == ROOT_MOVED ? begin_end(k, result) : result;
}

static void sweep(struct qa_keeper *k, uint64_t now)
{
    if (!k->next_sweep || now < k->next_sweep)
        return;
    qa_dirty_mark_everything(k->dirty, now);
    k->next_sweep = now + k->options->sweep_ns;
}

/* Everything that was said and what became due, but for requests and captures. */
static int follow(struct qa_keeper *k, unsigned happened)
{
    struct qa_watcher_status watcher = {0};
    int result = 0;
    if (k->watcher && (result = qa_watcher_drain(k->watcher)) < 0)
        return result;
    if (k->watcher)
        qa_watcher_status(k->watcher, &watcher);
    if ((happened & 1u << ON_MOUNTS || watcher.root_gone) && (result = follow_root(k)) < 0)
        return result;
    uint64_t count;
    if (happened & 1u << ON_RELOAD &&
        read(k->options->reload_fd, &count, sizeof count) == sizeof count)
        result = reload_rules(k);
    if (happened & 1u << ON_RUN_ENDED)
        qa_runner_reap(k->runner);
    sweep(k, qa_now_ns());
    return result;
}

static int turn(struct qa_keeper *k)
{
    unsigned happened = 0;
    int result = wait_for_work(k, &happened);
    if (result < 0)
        return result;
    if (happened & 1u << ON_STOP && !k->ending && (result = begin_end(k, 0)) < 0)
        return result;
    qa_control_serve(k->control, qa_keeper_on_request, k);
    if ((result = follow(k, happened)) < 0)
        return result;
    uint64_t now = qa_now_ns();
    if (k->barrier_count)
        result = serve_barriers(k);
    else if (now >= qa_dirty_deadline(k->dirty, &k->options->settle))
        result = capture_due(k, &k->options->settle);
    else if (k->indexer && now >= qa_indexer_deadline(k->indexer))
        result = qa_index_work(k);
    if (result == 0 && k->sync_at && now >= k->sync_at) {
        k->sync_at = 0;
        result = qr_store_sync(k->store);
    }
    count(k);
    write_numbers(k, now);
    return result;
}

/* --- life --- */

static int is_kept(void *context, const char *path, int is_directory)
{
    struct qa_keeper *k = context;
    return qs_is_recorded(k->tree, path, is_directory);
}

static void on_notice(void *context, const char *line)
{
    const struct qa_keeper *k = context;
    qa_keeper_say(k, "%s", line);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Before a log or a cache is made for it. */
static int check_root(struct qa_keeper *k)
{
    const struct qa_keeper_options *o = k->options;
    struct stat st;
    if (stat(o->path, &st) < 0)
        return qr_fail_errno(errno, "%s", qr_quotez(o->path));
    if (o->is_file ? !S_ISREG(st.st_mode) : !S_ISDIR(st.st_mode))
        return qr_fail(QALLOW_E_ARGUMENT, "%s is not a %s", qr_quotez(o->path),
                       o->is_file ? "regular file" : "directory");
    k->device = st.st_dev;
    k->inode = st.st_ino;
    k->root = realpath(o->path, NULL);
    if (!k->root)
        return qr_fail_errno(errno, "%s", qr_quotez(o->path));
    if (qt_tree_open(qr_quotez(k->root), &k->numbers) < 0)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the numbers of a tree");
    qt_set(QT_START_TIME_SECONDS, (uint64_t)k->started_at);
    qt_tree_refresh_by(k->numbers, 0, qa_keeper_refresh, k);
    return 0;
}

static int open_tree(struct qa_keeper *k)
{
    const struct qa_keeper_options *o = k->options;
    const char *own[2];
    size_t count = 0;
    if (o->telemetry)
        own[count++] = o->telemetry;
    if (o->prometheus)
        own[count++] = o->prometheus;
    const struct qs_tree_options tree = {
        .rules = o->rules,
        .threads = o->threads,
        .is_file = o->is_file,
        .own_files = own,
        .own_file_count = count,
        .skipped = o->skipped,
        .context = o->context,
    };
    int result = qs_tree_open(o->path, k->store, &tree, &k->tree);
    if (result == 0 && k->store && !o->is_file && qs_restore_is_target(k->tree) == 0)
        qa_keeper_say(k,
                      "%s holds the history of another directory; what is in %s becomes its "
                      "next epoch",
                      qr_quotez(qr_store_path(k->store)), qr_quotez(o->path));
    return result;
}

/* What is missing is said, or ends it, before anything is made. */
static int check_machine(struct qa_keeper *k)
{
    static const enum qa_need needs[] = {[QA_WATCH_AUTO] = QA_WANTED,
                                         [QA_WATCH_POLL] = QA_NOT_WANTED,
                                         [QA_WATCH_NO_POLL] = QA_NEEDED,
                                         [QA_WATCH_NONE] = QA_NOT_WANTED};
    const struct qa_keeper_options *o = k->options;
    const struct qa_capability_request request = {
        .root = o->path,
        .log = o->log,
        .events = o->once || o->is_file ? QA_NOT_WANTED : needs[o->watch],
        .cache = o->no_cache ? QA_NOT_WANTED
                 : o->log    ? QA_WANTED
                             : QA_NEEDED,
        .cache_bytes = o->cache_bytes,
        .poll = &k->poll,
        .no_cache = &k->no_cache,
    };
    k->poll = o->watch == QA_WATCH_POLL;
    k->no_cache = o->no_cache;
    return qa_capabilities_check(&request, on_notice, k);
}

static int open_watcher(struct qa_keeper *k)
{
    const struct qa_watcher_options options = {
        .root_fd = qs_tree_root_fd(k->tree),
        .only = k->options->is_file ? base_name(k->options->path) : NULL,
        .poll = k->poll,
        .no_poll = k->options->watch == QA_WATCH_NO_POLL,
        .is_entered = qa_index_enters(k),
        .is_recorded = is_kept,
        .notice = on_notice,
        .context = k,
    };
    k->mounts_fd = open("/proc/self/mounts", O_RDONLY | O_CLOEXEC); /* -1: poll() skips it */
    if (k->options->watch == QA_WATCH_NONE)
        return 0;
    k->is_entering = options.is_entered;
    return qa_watcher_create(&options, k->dirty, &k->watcher);
}

static int open_telemetry(struct qa_keeper *k)
{
    int err = k->options->telemetry ? qt_csv_open(k->options->telemetry, &k->csv) : 0;
    if (err < 0)
        return qr_fail_errno(-err, "%s", qr_quotez(k->options->telemetry));
    if (k->options->telemetry || k->options->prometheus)
        k->next_row = qa_now_ns();
    if (k->options->sweep_ns)
        k->next_sweep = qa_now_ns() + k->options->sweep_ns;
    return 0;
}

/* A log can do without a cache that has no place. */
static int open_cache(struct qa_keeper *k)
{
    int result = qa_index_open(k);
    if (!k->store || (result != QALLOW_E_NO_SPACE && result != QALLOW_E_CANNOT_CREATE &&
                      result != QALLOW_E_PERMISSION && result != QALLOW_E_LIMIT))
        return result;
    qa_keeper_say(k, "no cache is kept: %s", qallow_error_detail());
    qa_index_close(k);
    return 0;
}

/* Beside the log; and where it can be found by who knows only the directory. */
static int open_socket(struct qa_keeper *k)
{
    const char *cache = k->cache ? qa_cache_path(k->cache) : NULL;
    int result = qa_control_open(k->store ? qr_store_path(k->store) : cache, &k->control);
    if (result == 0 && k->store && cache && qa_control_link(k->control, cache) < 0)
        qa_keeper_say(k, "requests need --log: %s", qallow_error_detail());
    return result;
}

static int open_all(struct qa_keeper *k)
{
    const struct qa_keeper_options *o = k->options;
    int result = check_root(k);
    if (result == 0)
        result = check_machine(k);
    if (result == 0)
        result = qa_dirty_create(DIRTY_MAX, &k->dirty);
    if (result == 0 && o->log)
        result = qa_log_open(k);
    if (result == 0)
        result = open_tree(k);
    if (result == 0 && !k->no_cache)
        result = open_cache(k);
    if (result == 0 && !o->once)
        result = open_socket(k);
    if (result == 0 && !o->once)
        result = open_watcher(k);
    if (result == 0)
        result = open_telemetry(k);
    if (result == 0 && o->command)
        result = qa_runner_create(o->command, o->path, o->notice, o->context, &k->runner);
    return result;
}

static int stop_was_asked(const struct qa_keeper *k)
{
    struct pollfd p = {k->options->stop_fd, POLLIN, 0};
    return poll(&p, 1, 0) > 0;
}

static void say_watched(const struct qa_keeper *k)
{
    struct qa_watcher_status watcher;
    qa_watcher_status(k->watcher, &watcher);
    qt_log(QT_INFO, "watcher of %s starts: %zu directories watched, %zu compared at intervals",
           qr_quotez(k->options->path), watcher.watches, watcher.polled);
}

/* The whole tree once; with --once until every file has held still. */
static int first_capture(struct qa_keeper *k)
{
    const struct qa_taken everything = {.everything = 1};
    int result = take_in(k, &everything, 1);
    if (result == 0 && k->watcher)
        say_watched(k);
    uint64_t deadline = qa_now_ns() + drain_limit_ns, pause = retry_first_ns;
    while (result == 0 && k->options->once && k->unstable > 0 && !stop_was_asked(k)) {
        if (qa_now_ns() > deadline)
            return qr_fail(QALLOW_E_BUSY,
                           "%llu files change faster than they can be read, among "
                           "them %s",
                           (unsigned long long)k->unstable,
                           k->unstable_path ? qr_quotez(k->unstable_path) : "?");
        const struct timespec rest = {0, (long)pause};
        nanosleep(&rest, NULL);
        if (pause < retry_max_ns)
            pause *= 2;
        result = capture_due(k, NULL);
    }
    if (result == 0 && k->options->label && k->store)
        result = qr_store_label(k->store, k->options->label, 0);
    return result;
}

/* Ends in order; the first error counts. */
static int finish(struct qa_keeper *k, int result)
{
    char detail[1024] = "";
    uint64_t epoch = k->store || k->cache ? qa_keeper_epoch(k) : 0;
    if (result < 0)
        snprintf(detail, sizeof detail, "%s", qallow_error_detail());
    if (k->dirty)
        count(k);
    if (k->next_row)
        write_numbers(k, k->next_row);
    qt_csv_close(k->csv);
    qa_runner_destroy(k->runner);
    if (k->watcher)
        qt_log(QT_INFO, "watcher of %s stops", qr_quotez(k->options->path));
    qa_watcher_destroy(k->watcher);
    qa_control_unlink(k->control); /* while log and cache are still ours */
    qa_index_close(k);
    qs_tree_close(k->tree);
    int closed = k->store ? qr_store_close(k->store) : 0;
    if (result < 0)
        qr_fail(result, "%s", detail);
    else
        result = closed;
    if (k->control && k->stop_client) {
        cJSON *reply = result < 0 ? qa_reply_failed(result, qallow_error_detail()) : qa_reply_ok();
        if (result == 0)
            cJSON_AddNumberToObject(reply, "epoch", (double)epoch);
        qa_control_reply(k->control, k->stop_client, reply);
    }
    qa_control_close(k->control);
    qa_dirty_destroy(k->dirty);
    qt_tree_close(k->numbers);
    free(k->root);
    qr_free(k->unstable_path);
    if (k->mounts_fd >= 0)
        close(k->mounts_fd);
    return result;
}

int qa_keep(const struct qa_keeper_options *options)
{
    struct qa_keeper k = {
        .options = options, .mounts_fd = -1, .started = qa_now_ns(), .started_at = qa_clock_ns()};
    if (!options->log && options->no_cache)
        return qr_fail(QALLOW_E_ARGUMENT, "neither a log nor a cache is to be kept");
    int result = open_all(&k);
    if (result == 0)
        result = first_capture(&k);
    while (result == 0 && !options->once && !k.done)
        result = turn(&k);
    if (result == 0)
        result = k.result;
    return finish(&k, result);
}
