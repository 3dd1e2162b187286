/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper's cache. It is brought up to date after the log, from the disk and not from the log:
 * what a reader finds is at least as new as the epoch it is said to belong to, and reading a file
 * twice while it is in the page cache costs little beside writing it to a log. With a log the
 * epochs are the log's, without one the cache counts.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "accelerator/keeper_internal.h"
#include "runtime/error.h"
#include "telemetry/telemetry.h"

static void on_notice(void *context, const char *line)
{
    const struct qa_keeper *k = context;
    qa_keeper_say(k, "%s", line);
}

static int admits(void *context, const char *path, int is_directory)
{
    struct qa_keeper *k = context;
    pthread_rwlock_rdlock(&k->rules_lock);
    int recorded = qs_is_recorded(k->tree, path, is_directory);
    pthread_rwlock_unlock(&k->rules_lock);
    return recorded;
}

static int enter_rules(struct qa_keeper *k, const char *path, int fd)
{
    pthread_rwlock_rdlock(&k->rules_lock);
    int known = qs_rules_are_known(k->tree, fd);
    pthread_rwlock_unlock(&k->rules_lock);
    if (known)
        return 0;
    pthread_rwlock_wrlock(&k->rules_lock);
    int result = qs_rules_enter(k->tree, path, fd);
    pthread_rwlock_unlock(&k->rules_lock);
    return result;
}

/* With a log the capture has been there, for which all of it was watched; and it reads the ignore
 * files. */
int qa_index_enters(const struct qa_keeper *k)
{
    return k->cache && !k->store && !k->options->is_file;
}

static int on_entering(void *context, const char *path, int fd)
{
    struct qa_keeper *k = context;
    int result = 0;
    if (k->is_entering && k->watcher) { /* before anything of it is read */
        pthread_mutex_lock(&k->enter_lock);
        result = qa_watcher_enter(k->watcher, path, fd);
        pthread_mutex_unlock(&k->enter_lock);
    }
    return result < 0 ? result : enter_rules(k, path, fd);
}

static int on_directory(void *context, const char *path)
{
    struct qa_keeper *k = context;
    return k->watcher ? qa_watcher_found(k->watcher, path) : 0;
}

static void on_gone(void *context, const char *path)
{
    struct qa_keeper *k = context;
    if (k->watcher)
        qa_watcher_doubt(k->watcher, path);
}

/* With a log the capture has said it already. */
static void on_unreadable(void *context, const char *path, const char *why)
{
    const struct qa_keeper *k = context;
    if (!k->store && k->options->skipped)
        k->options->skipped(k->options->context, path, why);
}

static void on_mark(void *context, const char *path)
{
    struct qa_keeper *k = context;
    qa_cache_pending(k->cache, path);
}

uint64_t qa_index_busy_ns(const struct qa_keeper *k, uint64_t *workers)
{
    uint64_t busy[QT_WORKERS], sum = 0;
    size_t count = qa_indexer_busy_ns(k->indexer, busy, QT_WORKERS);
    for (size_t i = 0; i < count && i < QT_WORKERS; i++)
        sum += busy[i];
    *workers = count;
    return sum;
}

static int open_cache(struct qa_keeper *k, const char *root)
{
    struct qr_store_info info;
    if (k->store)
        qr_store_info(k->store, &info);
    const struct qa_cache_options options = {
        .root = root,
        .root_device = k->device,
        .root_inode = k->inode,
        .hash = k->options->hash ? k->options->hash : QALLOW_HASH_XXH3_128,
        .max_bytes = k->options->cache_bytes,
        .history = k->store ? info.uuid : NULL,
        .notice = on_notice,
        .context = k,
    };
    return qa_cache_open(&options, &k->cache);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int open_indexer(struct qa_keeper *k)
{
    const struct qa_indexer_options options = {
        .cache = k->cache,
        .root_fd = qs_tree_root_fd(k->tree),
        .only = k->options->is_file ? base_name(k->options->path) : NULL,
        .threads = k->options->threads,
        .hash = k->options->hash ? k->options->hash : QALLOW_HASH_XXH3_128,
        .content_max = k->options->content_max,
        .max_file_size = k->options->rules.max_file_size,
        .admits = admits,
        .directory = on_directory,
        .entering = qa_index_enters(k) ? on_entering : NULL,
        .unstable = qa_keeper_unstable,
        .unreadable = on_unreadable,
        .gone = on_gone,
        .context = k,
    };
    return qa_indexer_create(&options, &k->indexer);
}

int qa_index_open(struct qa_keeper *k)
{
    if (pthread_rwlock_init(&k->rules_lock, NULL) || pthread_mutex_init(&k->enter_lock, NULL))
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a lock");
    int result = open_cache(k, k->root);
    if (result == QALLOW_E_BUSY) {
        char detail[512];
        snprintf(detail, sizeof detail, "%s", qallow_error_detail());
        qr_fail(result, "%s is kept already: %s", qr_quotez(k->options->path), detail);
    }
    if (result == 0)
        result = open_indexer(k);
    if (result < 0)
        return result;
    if (qallow_cache_open(k->options->path, &k->reader) < 0)
        k->reader = NULL; /* the readers' numbers are missing then */
    qa_cache_remove_orphans(k->cache);
    qa_cache_set_state(k->cache, QALLOW_KEEPER_STARTING);
    qt_log(QT_INFO, "cache of %s attached: epoch %llu, %llu files known from before",
           qr_quotez(k->options->path), (unsigned long long)qa_cache_epoch(k->cache),
           (unsigned long long)qa_cache_count(k->cache));
    qa_dirty_on_mark(k->dirty, on_mark, k);
    qt_tree_refresh_by(k->numbers, (unsigned)k->options->threads, qa_index_refresh, k);
    qa_index_count(k); /* those of the keeper before this one are not ours */
    return 0;
}

void qa_index_close(struct qa_keeper *k)
{
    if (!k->cache)
        return;
    uint64_t workers;
    qt_tree_refresh_by(k->numbers, 0, qa_keeper_refresh, k);
    if (k->indexer)
        qt_log(QT_INFO, "workers of %s stop: busy for %llu ms", qr_quotez(k->options->path),
               (unsigned long long)(qa_index_busy_ns(k, &workers) / MS));
    qt_log(QT_INFO, "cache of %s left: epoch %llu, %llu files", qr_quotez(k->options->path),
           (unsigned long long)qa_cache_epoch(k->cache),
           (unsigned long long)qa_cache_count(k->cache));
    qa_dirty_on_mark(k->dirty, NULL, NULL);
    qa_indexer_destroy(k->indexer);
    qallow_cache_close(k->reader);
    qa_cache_close(k->cache);
    pthread_rwlock_destroy(&k->rules_lock);
    pthread_mutex_destroy(&k->enter_lock);
    k->indexer = NULL;
    k->reader = NULL;
    k->cache = NULL;
}

static void say_full(struct qa_keeper *k, uint64_t refused)
{
    if (refused && !k->cache_is_full)
        qa_keeper_say(k,
                      "the cache is full: %llu files are not in it; give it more with "
                      "--shm-size",
                      (unsigned long long)refused);
    k->cache_is_full = refused > 0;
}

/* With a log there is an epoch when the log has one. But it may have seen earlier what the cache
 * has changed now (that a directory was gone, while only one path in it had been named): then the
 * log gets an epoch, or those who ask what has changed would hear of it with the next change only,
 * whenever that comes. */
static int publish(struct qa_keeper *k)
{
    int result = 0;
    if (k->store && qa_cache_pressing(k->cache) &&
        qa_keeper_epoch(k) == qa_cache_epoch(k->cache))
        result = qa_log_epoch(k);
    if (result == 0 && !k->store)
        qa_cache_publish(k->cache, 0);
    else if (result == 0 && qa_keeper_epoch(k) > qa_cache_epoch(k->cache))
        qa_cache_publish(k->cache, qa_keeper_epoch(k));
    return result;
}

int qa_index_take(struct qa_keeper *k, const struct qa_taken *taken, struct qa_indexed *indexed)
{
    int result;
    if (taken->everything && qa_cache_epoch(k->cache) > 0)
        qa_cache_set_state(k->cache, QALLOW_KEEPER_RESCANNING);
    if (taken->everything)
        result = qa_indexer_update_all(k->indexer, NULL, indexed);
    else
        result =
            qa_indexer_update(k->indexer, (const char *const *)taken->paths, taken->count, indexed);
    if (result < 0)
        return result;
    say_full(k, indexed->refused);
    result = publish(k);
    if (result < 0)
        return result;
    if (qa_dirty_is_empty(k->dirty) || !taken->everything)
        qa_cache_set_state(k->cache, QALLOW_KEEPER_WATCHING);
    return 0;
}

int qa_index_work(struct qa_keeper *k)
{
    struct qa_indexed indexed = {0};
    int result = qa_indexer_work(k->indexer, &indexed);
    if (result < 0)
        return result;
    if (!k->store)
        return publish(k);
    if (indexed.changed) /* the log has read it too early as well; its epoch is published */
        qa_dirty_mark_everything(k->dirty, qa_now_ns());
    return 0;
}

/* --- numbers --- */

/* Under the lock: the reader is one for all threads. */
static void count_cache(struct qa_keeper *k)
{
    struct qallow_cache_info info = QALLOW_CACHE_INFO_INIT;
    if (!k->reader || qallow_cache_info(k->reader, &info) < 0)
        return;
    qt_tree_set(k->numbers, QT_CACHE_FILES, info.files);
    qt_tree_set(k->numbers, QT_CACHE_BYTES, info.bytes);
    qt_tree_set(k->numbers, QT_CACHE_MEMORY_BYTES, info.memory);
    qt_tree_set(k->numbers, QT_CACHE_HITS, info.hits);
    qt_tree_set(k->numbers, QT_CACHE_MISSES, info.misses);
}

void qa_index_refresh(void *context, uint64_t *busy_ns)
{
    struct qa_keeper *k = context;
    qa_keeper_refresh(k, NULL);
    count_cache(k);
    qa_indexer_busy_ns(k->indexer, busy_ns, (size_t)k->options->threads);
}

/* In the place of a histogram stands what was last observed. */
void qa_index_count(struct qa_keeper *k)
{
    uint64_t numbers[QT_METRIC_COUNT], workers, busy = qa_index_busy_ns(k, &workers);
    struct qa_watcher_status watcher = {0};
    if (k->watcher) /* a process may have several keepers, each with a watcher of its own */
        qa_watcher_status(k->watcher, &watcher);
    qt_set(QT_WORKER_THREADS, workers);
    qt_trees_lock();
    qa_keeper_refresh(k, NULL);
    count_cache(k);
    qt_trees_unlock();
    for (unsigned metric = 0; metric < QT_METRIC_COUNT; metric++)
        numbers[metric] = qt_get((enum qt_metric)metric);
    numbers[QT_WATCH_EVENTS] = watcher.events;
    numbers[QT_WATCH_OVERFLOWS] = watcher.overflows;
    numbers[QT_WATCH_RESCANS] = watcher.rescans;
    numbers[QT_WORKER_BUSY_SECONDS] = busy;
    numbers[QT_EVENT_TO_CACHE_SECONDS] = k->last_wait_ns;
    qa_cache_set_numbers(k->cache, numbers, QT_METRIC_COUNT);
}
