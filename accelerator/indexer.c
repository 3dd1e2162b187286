/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is looked at, and in which order.
 *
 * A walk over the whole tree marks what it sees and removes the rest at the end; nothing is removed
 * below a directory that could not be read just now. It also makes the indexer's tables anew.
 *
 * An update goes in rounds. Named paths that have others below them among those named are likely
 * to be directories and come first; whatever is a directory is announced to the caller, so that it
 * is watched, and then listed; what is found below is announced and listed in the next round. Then
 * come the named paths that no listing has covered. The order matters: a file in a directory that
 * is only watched since this update must be looked at after that. At the end come what is gone, and
 * the other names of files that were written, or may have been before they went.
 *
 * Small updates run on the caller's thread from beginning to end, without an allocation for a file
 * that is there: between a write and its hash in the cache there are five system calls.
 */
#include "accelerator/indexer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "accelerator/indexer_internal.h"
#include "accelerator/watcher.h"
#include "runtime/error.h"
#include "runtime/os.h"
#include "telemetry/telemetry.h"

enum { WORK_PATHS = 64 /* young files looked at in one call of qa_indexer_work() */ };

static int no_memory(void) { return qr_fail(QALLOW_E_NO_MEMORY, "no memory to look at files"); }

/* --- life --- */

int qa_indexer_create(const struct qa_indexer_options *options, struct qa_indexer **out)
{
    struct stat st;
    struct qa_indexer *ix = qr_calloc(1, sizeof *ix);
    if (!ix)
        return no_memory();
    ix->options = *options;
    pthread_rwlock_init(&ix->cache_lock, NULL);
    pthread_mutex_init(&ix->tables_lock, NULL);
    pthread_mutex_init(&ix->lock, NULL);
    pthread_cond_init(&ix->work, NULL);
    pthread_cond_init(&ix->more, NULL);
    ix->worker_count = options->threads > 1 ? options->threads : 1;
    ix->workers = qr_calloc((size_t)ix->worker_count, sizeof *ix->workers);
    int rc = ix->workers ? qa_tables_init(&ix->tables) : no_memory();
    if (!ix->workers)
        ix->worker_count = 0;
    if (rc == 0 && fstat(options->root_fd, &st) < 0)
        rc = qr_fail_errno(errno, "the directory");
    if (rc == 0) {
        ix->device = st.st_dev;
        ix->wants_content = options->content_max > 0;
        rc = qa_walk_init(ix);
    }
    if (rc < 0)
        qa_indexer_destroy(ix);
    else
        *out = ix;
    return rc;
}

/* The oldest of the young files, taken out of the list; the path is the caller's. */
static char *pop_young(struct qa_indexer *ix)
{
    char *path = ix->young[ix->young_first++].path;
    qa_map_add(&ix->is_young, qa_path_key(&ix->tables, path, strlen(path)), -1);
    if (ix->young_first * 2 < ix->young_count)
        return path;
    ix->young_count -= ix->young_first;
    if (ix->young_count)
        memmove(ix->young, ix->young + ix->young_first, ix->young_count * sizeof *ix->young);
    ix->young_first = 0;
    return path;
}

void qa_indexer_destroy(struct qa_indexer *ix)
{
    if (!ix)
        return;
    qa_walk_finish(ix);
    while (ix->young_first < ix->young_count)
        qr_free(ix->young[ix->young_first++].path);
    qr_free(ix->young);
    qa_map_finish(&ix->is_young);
    qr_free(ix->workers);
    qr_free(ix->requests);
    qa_tables_finish(&ix->tables);
    qa_paths_finish(&ix->directories);
    qa_paths_finish(&ix->below);
    qa_paths_finish(&ix->again);
    qa_map_finish(&ix->wanted);
    qa_map_finish(&ix->listed);
    qa_map_finish(&ix->said);
    pthread_cond_destroy(&ix->more);
    pthread_cond_destroy(&ix->work);
    pthread_mutex_destroy(&ix->lock);
    pthread_mutex_destroy(&ix->tables_lock);
    pthread_rwlock_destroy(&ix->cache_lock);
    qr_free(ix);
}

size_t qa_indexer_busy_ns(const struct qa_indexer *ix, uint64_t *busy, size_t count)
{
    for (size_t i = 0; i < count && i < (size_t)ix->worker_count; i++)
        busy[i] = atomic_load_explicit(&ix->workers[i].busy_ns, memory_order_relaxed);
    return (size_t)ix->worker_count;
}

/* --- before and after --- */

static void begin(struct qa_indexer *ix, int whole, const volatile int *stop)
{
    ix->whole = whole;
    ix->stop = stop;
    ix->alone = 0;
    ix->request_count = 0;
    qa_paths_clear(&ix->directories);
    qa_paths_clear(&ix->below);
    qa_paths_clear(&ix->again);
    for (int i = 0; i < ix->worker_count; i++) {
        ix->workers[i].result = (struct qa_indexed){0};
        ix->workers[i].hasher.read_files = ix->workers[i].hasher.read_bytes = 0;
        ix->workers[i].hasher.only_old = 0;
    }
}

static void say(struct qa_indexer *ix, uint8_t what, const char *path)
{
    const struct qa_indexer_options *o = &ix->options;
    uint64_t key = qa_path_key(&ix->tables, path, strlen(path));
    int was_said = qa_map_get(&ix->said, key) != 0;
    if (what == QA_SAY_UNSTABLE || what == QA_SAY_GONE) {
        void (*tell)(void *, const char *) = what == QA_SAY_GONE ? o->gone : o->unstable;
        if (tell)
            tell(o->context, path);
        return;
    }
    int is_readable = what == QA_SAY_READABLE;
    if (was_said != is_readable)
        return;
    qa_map_add(&ix->said, key, is_readable ? -1 : 1); /* without memory it is said again */
    const char *why = is_readable               ? NULL
                      : what == QA_SAY_MOUNT    ? "another file system is mounted here"
                      : what == QA_SAY_TOO_DEEP ? "nested too deep"
                                                : strerror(what);
    if (o->unreadable)
        o->unreadable(o->context, path, why);
}

/* Adds up what the workers did and says what they have to say. */
static void end(struct qa_indexer *ix, struct qa_indexed *result)
{
    for (int i = 0; i < ix->worker_count; i++) {
        struct qa_worker *worker = &ix->workers[i];
        result->entries += worker->result.entries;
        result->read_files += worker->hasher.read_files;
        result->read_bytes += worker->hasher.read_bytes;
        result->changed += worker->result.changed;
        result->unstable += worker->result.unstable;
        result->unreadable += worker->result.unreadable;
        result->refused += worker->result.refused;
        for (const char *path = NULL; (path = qa_paths_next(&worker->messages, path)) != NULL;)
            say(ix, qa_paths_what(path), path);
        qa_paths_clear(&worker->messages);
    }
    qa_listings_finish(ix);
    qt_add(QT_FILES_READ, result->read_files);
    qt_add(QT_FILES_READ_BYTES, result->read_bytes);
    qt_add(QT_HASH_BYTES, result->read_bytes); /* what the indexer reads it hashes */
}

/* --- the whole tree --- */

int qa_indexer_update_all(struct qa_indexer *ix, const volatile int *stop,
                          struct qa_indexed *result)
{
    *result = (struct qa_indexed){0};
    begin(ix, 1, stop);
    qa_tables_clear(&ix->tables);
    qa_cache_begin_walk(ix->options.cache);
    int rc = ix->options.only ? qa_walk_paths(ix, &ix->options.only, 1) : qa_walk_directory(ix, "");
    if (rc == 0 && !ix->options.only)
        qa_walk_share(ix);
    int ran = qa_walk_run(ix);
    rc = rc ? rc : ran;
    if (rc == 0)
        rc = qa_below_settle(ix, result);
    if (rc == 0) {
        result->changed += qa_cache_sweep(ix->options.cache);
        qa_tables_complete(&ix->tables);
        ix->wants_content = 0;
    }
    end(ix, result);
    return rc;
}

/* --- named paths --- */

static int by_path(const void *a, const void *b)
{
    return qa_compare_paths(*(const char *const *)a, *(const char *const *)b);
}

/* Sorts what was named and drops what was named twice, or is not kept here. */
static int set_requests(struct qa_indexer *ix, const char *const *paths, size_t count)
{
    const char *only = ix->options.only;
    size_t n = 0, kept = 0;
    for (size_t i = 0; i < count; i++) {
        const char *path = strcmp(paths[i], ".") == 0 ? "" : paths[i];
        if (only && *path && strcmp(path, only) != 0)
            continue;
        ix->request_count = n;
        if (QR_GROW(ix->requests, n, ix->request_capacity) < 0)
            return no_memory();
        ix->requests[n++] = only ? only : path;
    }
    if (n > 1)
        qsort(ix->requests, n, sizeof *ix->requests, by_path);
    for (size_t i = 0; i < n; i++)
        if (i == 0 || strcmp(ix->requests[i], ix->requests[kept - 1]) != 0)
            ix->requests[kept++] = ix->requests[i];
    ix->request_count = kept;
    return 0;
}

/* Something named is below it. */
static int is_above_next(const struct qa_indexer *ix, size_t i)
{
    size_t length = strlen(ix->requests[i]);
    return i + 1 < ix->request_count && length &&
           strncmp(ix->requests[i + 1], ix->requests[i], length) == 0 &&
           ix->requests[i + 1][length] == '/';
}

static int was_listed(const struct qa_indexer *ix, const char *path, size_t length)
{
    return qa_map_get(&ix->listed, qa_path_key(&ix->tables, path, length)) != 0;
}

/* Lists the directories that were found, and those found then, until there are no more. */
static int list_directories(struct qa_indexer *ix)
{
    const struct qa_indexer_options *o = &ix->options;
    int rc = 0;
    while (rc == 0 && ix->directories.count) {
        struct qa_paths now = ix->directories;
        ix->directories = (struct qa_paths){0};
        for (const char *path = NULL; rc == 0 && (path = qa_paths_next(&now, path)) != NULL;) {
            size_t length = strlen(path);
            if (was_listed(ix, path, length))
                continue;
            if (!qa_map_add(&ix->listed, qa_path_key(&ix->tables, path, length), 1))
                rc = no_memory();
            if (rc == 0 && o->directory)
                rc = o->directory(o->context, path);
            if (rc == 0)
                rc = qa_walk_directory(ix, path);
        }
        int ran = qa_walk_run(ix);
        rc = rc ? rc : ran;
        qa_paths_finish(&now);
    }
    return rc;
}

/* Looks at named paths; those in `paths` are moved about. */
static int look_at(struct qa_indexer *ix, const char *const *paths, size_t count)
{
    int rc = count ? qa_walk_paths(ix, paths, count) : 0, ran = count ? qa_walk_run(ix) : 0;
    rc = rc ? rc : ran;
    return rc ? rc : list_directories(ix);
}

/* The requests, in two rounds: see above. The second one leaves out what a listing has covered. */
static int look_at_requests(struct qa_indexer *ix)
{
    size_t n = ix->request_count, first = 0, rest = 0;
    if (n == 1 && *ix->requests[0])
        return look_at(ix, ix->requests, n);
    const char **paths = qr_malloc((n + 1) * sizeof *paths);
    if (!paths)
        return no_memory();
    int rc = 0;
    if (n && !*ix->requests[0]) /* the root, which has no name to look at */
        rc = qa_paths_add(&ix->directories, 0, "");
    for (size_t i = 0; i < n; i++)
        if (is_above_next(ix, i))
            paths[first++] = ix->requests[i];
    if (rc == 0)
        rc = list_directories(ix);
    if (rc == 0)
        rc = look_at(ix, paths, first);
    for (size_t i = 0; i < n; i++) {
        const char *path = ix->requests[i];
        size_t length = strlen(path);
        if (length && !is_above_next(ix, i) && !was_listed(ix, path, length) &&
            !was_listed(ix, path, qa_directory_length(path, length)))
            paths[rest++] = path;
    }
    if (rc == 0)
        rc = look_at(ix, paths, rest);
    qr_free(paths);
    return rc;
}

/* Other names of the files that have changed. */
static int look_at_links(struct qa_indexer *ix, struct qa_indexed *result)
{
    int rc = qa_find_wanted(ix);
    size_t count = ix->again.count, n = 0;
    if (rc < 0 || count == 0)
        return rc;
    const char **paths = qr_malloc(count * sizeof *paths);
    if (!paths)
        return no_memory();
    for (const char *path = NULL; (path = qa_paths_next(&ix->again, path)) != NULL;)
        paths[n++] = path;
    qsort(paths, n, sizeof *paths, by_path);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (i == 0 || strcmp(paths[i], paths[kept - 1]) != 0)
            paths[kept++] = paths[i];
    ix->alone = 1; /* whoever found the first of them has named them all */
    rc = look_at(ix, paths, kept);
    qr_free(paths);
    return rc < 0 ? rc : qa_below_settle(ix, result);
}

int qa_indexer_update(struct qa_indexer *ix, const char *const *paths, size_t count,
                      struct qa_indexed *result)
{
    *result = (struct qa_indexed){0};
    begin(ix, 0, NULL);
    int rc = set_requests(ix, paths, count);
    if (rc == 0)
        rc = ix->options.only ? look_at(ix, ix->requests, ix->request_count) : look_at_requests(ix);
    if (rc == 0)
        rc = qa_below_settle(ix, result);
    if (rc == 0)
        rc = look_at_links(ix, result);
    qa_map_finish(&ix->listed);
    end(ix, result);
    return rc;
}

/* --- young files --- */

uint64_t qa_indexer_deadline(const struct qa_indexer *ix)
{
    return ix->young_first < ix->young_count ? ix->young[ix->young_first].due : UINT64_MAX;
}

/* A file that is young again by now is not read: it goes to the end of the list. */
void qa_indexer_each_young(struct qa_indexer *ix,
                           void (*visit)(void *context, const char *path), void *context)
{
    for (size_t i = ix->young_first; i < ix->young_count; i++)
        visit(context, ix->young[i].path);
}

int qa_indexer_work(struct qa_indexer *ix, struct qa_indexed *result)
{
    char *paths[WORK_PATHS];
    uint64_t now = qa_now_ns();
    size_t n = 0;
    *result = (struct qa_indexed){0};
    while (n < WORK_PATHS && qa_indexer_deadline(ix) <= now)
        paths[n++] = pop_young(ix);
    if (n == 0)
        return 0;
    begin(ix, 0, NULL);
    ix->alone = 1;
    for (int i = 0; i < ix->worker_count; i++)
        ix->workers[i].hasher.only_old = 1;
    int rc = look_at(ix, (const char *const *)paths, n);
    if (rc == 0)
        rc = qa_below_settle(ix, result);
    qa_map_finish(&ix->listed);
    while (n)
        qr_free(paths[--n]);
    end(ix, result);
    return rc;
}
