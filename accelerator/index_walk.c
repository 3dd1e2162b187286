/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handing out work. What is to be done lies on a stack: a directory to list, a part of a listing
 * whose files are to be looked at, or a few paths that were named. Each worker takes what is on
 * top; new work goes on top, the parts of a listing above the directories found in it, so that
 * what waits is bounded by the width of the tree on one way down, not by its size.
 *
 * The caller is a worker. The others sleep until it shares: at once for a whole tree or many paths,
 * else not before there is a file that takes longer than waking somebody (some 30 us) and more to
 * do besides. A run is over when the stack is empty and nobody works; the caller leaves last.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "accelerator/indexer_internal.h"
#include "accelerator/watcher.h"
#include "runtime/error.h"
#include "runtime/os.h"

enum {
    PATHS_FEW = 4, /* named paths taken together, as long as they may be large files */
    PATHS_MANY = 16,
    SHARE_PATHS = 64, /* named paths from which on it pays to wake others */
};

struct qa_item {
    struct qa_item *next;
    struct qa_listing *listing; /* of a part */
    size_t offset, count;       /* in bytes of its names, and how many of them; or of `paths` */
    const char *const *paths;   /* named ones */
    char path[];                /* of a directory */
};

static int no_memory(void) { return qr_fail(QALLOW_E_NO_MEMORY, "no memory to look at files"); }

/* --- the stack --- */

static void push(struct qa_indexer *ix, struct qa_item *item)
{
    pthread_mutex_lock(&ix->lock);
    item->next = ix->stack;
    ix->stack = item;
    if (ix->shared)
        pthread_cond_signal(&ix->more);
    pthread_mutex_unlock(&ix->lock);
}

int qa_walk_directory(struct qa_indexer *ix, const char *path)
{
    size_t size = strlen(path) + 1;
    struct qa_item *item = qr_malloc(sizeof *item + size);
    if (!item)
        return no_memory();
    *item = (struct qa_item){0};
    memcpy(item->path, path, size);
    push(ix, item);
    return 0;
}

int qa_walk_paths(struct qa_indexer *ix, const char *const *paths, size_t count)
{
    size_t part = count < SHARE_PATHS ? PATHS_FEW : PATHS_MANY;
    for (size_t end = count; end > 0;) { /* the first on top */
        size_t n = end % part ? end % part : part;
        struct qa_item *item = qr_malloc(sizeof *item + 1);
        if (!item)
            return no_memory();
        end -= n;
        *item = (struct qa_item){.paths = paths + end, .count = n};
        push(ix, item);
    }
    if (count >= SHARE_PATHS)
        qa_walk_share(ix);
    return 0;
}

static int push_part(struct qa_indexer *ix, struct qa_listing *listing, size_t offset, size_t count)
{
    struct qa_item *item = qr_malloc(sizeof *item + 1);
    if (!item)
        return no_memory();
    *item = (struct qa_item){.listing = listing, .offset = offset, .count = count};
    push(ix, item);
    return 0;
}

void qa_walk_share(struct qa_indexer *ix)
{
    pthread_mutex_lock(&ix->lock);
    if (!ix->shared && ix->thread_count) {
        ix->shared = 1;
        ix->share_number++;
        pthread_cond_broadcast(&ix->work);
    }
    pthread_mutex_unlock(&ix->lock);
}

/* A large file comes up: is there something else for the others to do? */
static void on_large(void *context)
{
    struct qa_indexer *ix = context;
    pthread_mutex_lock(&ix->lock);
    int more = ix->stack != NULL;
    pthread_mutex_unlock(&ix->lock);
    if (more)
        qa_walk_share(ix);
}

/* --- directories --- */

static void listing_free(struct qa_listing *listing)
{
    if (listing->fd >= 0)
        close(listing->fd);
    qs_names_finish(&listing->names);
    qr_free(listing->path);
    qr_free(listing);
}

/* One part of it is done. An update needs the names to the end. */
static void part_done(struct qa_indexer *ix, struct qa_listing *listing)
{
    pthread_mutex_lock(&ix->lock);
    int left = --listing->parts, keep = !ix->whole;
    pthread_mutex_unlock(&ix->lock);
    if (left)
        return;
    close(listing->fd);
    listing->fd = -1;
    if (!keep)
        listing_free(listing);
}

void qa_listings_finish(struct qa_indexer *ix)
{
    struct qa_listing *next;
    for (struct qa_listing *listing = ix->listings; listing; listing = next) {
        next = listing->next;
        listing_free(listing);
    }
    ix->listings = NULL;
}

static int add_below(struct qa_indexer *ix, enum qa_below what, const char *path)
{
    pthread_mutex_lock(&ix->lock);
    int rc = qa_paths_add(&ix->below, (uint8_t)what, path);
    pthread_mutex_unlock(&ix->lock);
    return rc;
}

/* A directory that cannot be listed. */
static int cannot_list(struct qa_worker *worker, const char *path, int error)
{
    struct qa_indexer *ix = worker->indexer;
    enum qa_found found = qa_found_after(error);
    if (*path == 0)
        return qr_fail_errno(error, "the directory cannot be read");
    if (found == QA_FOUND_NOTHING && ix->whole) /* a walk over all of it finds that out by itself */
        return 0;
    if (found == QA_FOUND_NOTHING && qa_say(worker, QA_SAY_GONE, path) < 0)
        return QALLOW_E_NO_MEMORY;
    if (found == QA_FOUND_NOTHING)
        return add_below(ix, QA_BELOW_GONE, path);
    int rc = qa_say(worker, found == QA_FOUND_UNSTABLE ? QA_SAY_UNSTABLE : (uint8_t)error, path);
    int is_closed = error == EACCES || error == EPERM;
    return rc < 0 ? rc : add_below(ix, is_closed ? QA_BELOW_CLOSED : QA_BELOW_KEPT, path);
}

static int depth_of(const char *path)
{
    int depth = *path != 0;
    for (; *path; path++)
        depth += *path == '/';
    return depth;
}

/* Why an open directory is not entered: 0, or a QA_SAY_*; -1 with errno. */
static int why_not(const struct qa_indexer *ix, const char *path, int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -1;
    if (*path == 0 && st.st_nlink == 0) { /* deleted, it lists as empty */
        errno = ENOENT;
        return -1;
    }
    return st.st_dev != ix->device         ? QA_SAY_MOUNT
           : depth_of(path) > QS_DEPTH_MAX ? QA_SAY_TOO_DEEP
                                           : 0;
}

/* The descriptor, or -1 with everything said and done about it, and *rc of that. */
static int open_directory(struct qa_worker *worker, const char *path, int *rc)
{
    struct qa_indexer *ix = worker->indexer;
    int fd = qs_open_beneath(ix->options.root_fd, path, O_RDONLY | O_DIRECTORY, 0);
    int say = fd < 0 ? -1 : why_not(ix, path, fd), error = errno;
    if (say == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    if (say < 0) {
        *rc = cannot_list(worker, path, error);
        return -1;
    }
    *rc = qa_say(worker, (uint8_t)say, path);
    if (*rc == 0 && !ix->whole)
        *rc = add_below(ix, QA_BELOW_GONE, path);
    return -1;
}

static int make_listing(struct qa_worker *worker, const char *path, int fd, struct qa_listing **out)
{
    struct qa_indexer *ix = worker->indexer;
    struct qa_listing *listing = qr_calloc(1, sizeof *listing);
    size_t length = strlen(path);
    *out = NULL;
    if (!listing || !(listing->path = qr_malloc(length + 1))) {
        qr_free(listing);
        close(fd);
        return no_memory();
    }
    memcpy(listing->path, path, length + 1);
    listing->length = length;
    listing->fd = fd;
    int rc = qs_names_read(&listing->names, fd);
    if (rc != 0) {
        rc = rc == -1 ? cannot_list(worker, path, errno) : no_memory();
        listing_free(listing);
        return rc;
    }
    listing->parts = 1; /* ours, while its parts are made */
    if (!ix->whole) {
        pthread_mutex_lock(&ix->lock);
        listing->next = ix->listings;
        ix->listings = listing;
        pthread_mutex_unlock(&ix->lock);
    }
    *out = listing;
    return 0;
}

/* Writes the path of a name in the listing to the end of what is in worker->names. */
static char *path_in(struct qa_worker *worker, size_t *at, const struct qa_listing *listing,
                     const char *name)
{
    size_t d = listing->length, n = strlen(name);
    char *path = worker->names + *at;
    if (d) {
        memcpy(path, listing->path, d);
        path[d++] = '/';
    }
    memcpy(path + d, name, n + 1);
    *at += d + n + 1;
    return path;
}

static int reserve_names(struct qa_worker *worker, size_t size)
{
    if (size <= worker->names_capacity)
        return 0;
    qr_free(worker->names);
    worker->names_capacity = 2 * size;
    worker->names = qr_malloc(worker->names_capacity);
    if (worker->names)
        return 0;
    worker->names_capacity = 0;
    return no_memory();
}

/* The next name that may be one of a file; NULL at the end of the part. */
static const char *next_file(const struct qa_listing *listing, size_t *offset, size_t *left)
{
    while (*left) {
        const char *entry = listing->names.bytes + *offset;
        *offset += strlen(entry + 1) + 2;
        --*left;
        switch (entry[0]) {
        case DT_REG:
        case DT_LNK:
        case DT_UNKNOWN:
        case DT_FIFO: /* there was a file of this name, perhaps */
        case DT_SOCK:
        case DT_CHR:
        case DT_BLK:
            return entry + 1;
        default:
            break;
        }
    }
    return NULL;
}

static int run_part(struct qa_worker *worker, struct qa_listing *listing, size_t offset,
                    size_t count)
{
    size_t bytes = 0, n = 0, at = 0, o = offset, left = count;
    const char *name;
    while ((name = next_file(listing, &o, &left)) != NULL)
        bytes += listing->length + strlen(name) + 2;
    int rc = reserve_names(worker, bytes);
    for (o = offset, left = count; rc == 0 && (name = next_file(listing, &o, &left)) != NULL;) {
        struct qa_look *look = &worker->looks[n++];
        look->path = path_in(worker, &at, listing, name);
        look->name = name;
        look->type = (uint8_t)name[-1];
    }
    if (rc == 0 && n)
        rc = qa_look_at(worker, listing->fd, listing, n);
    part_done(worker->indexer, listing);
    return rc;
}

/* The directories in a listing. */
static int run_directories(struct qa_worker *worker, const struct qa_listing *listing)
{
    const char *entry = listing->names.bytes;
    int rc = 0;
    for (size_t i = 0; i < listing->names.count && rc == 0; i++, entry += strlen(entry + 1) + 2) {
        size_t at = 0;
        if (entry[0] != DT_DIR)
            continue;
        rc = reserve_names(worker, listing->length + strlen(entry + 1) + 2);
        if (rc == 0)
            rc = qa_found_directory(worker, listing, path_in(worker, &at, listing, entry + 1));
    }
    return rc;
}

/* All but the first part go onto the stack. */
static int run_listing(struct qa_worker *worker, struct qa_listing *listing)
{
    struct qa_indexer *ix = worker->indexer;
    size_t offset = 0, count = listing->names.count, first = count < QA_PART ? count : QA_PART;
    int rc = 0;
    for (size_t i = 0; i < first; i++)
        offset += strlen(listing->names.bytes + offset + 1) + 2;
    for (size_t i = first; i < count && rc == 0;) {
        size_t n = count - i < QA_PART ? count - i : QA_PART, start = offset;
        for (size_t j = 0; j < n; j++)
            offset += strlen(listing->names.bytes + offset + 1) + 2;
        pthread_mutex_lock(&ix->lock);
        listing->parts++;
        pthread_mutex_unlock(&ix->lock);
        rc = push_part(ix, listing, start, n);
        if (rc < 0)
            part_done(ix, listing);
        i += n;
    }
    if (count > first)
        qa_walk_share(ix);
    if (rc < 0) {
        part_done(ix, listing);
        return rc;
    }
    return run_part(worker, listing, 0, first);
}

static int run_directory(struct qa_worker *worker, const char *path)
{
    const struct qa_indexer_options *o = &worker->indexer->options;
    struct qa_listing *listing;
    int rc = 0, fd = open_directory(worker, path, &rc);
    if (fd < 0)
        return rc;
    worker->result.entries++;
    if (o->entering && (rc = o->entering(o->context, path, fd)) < 0) {
        close(fd);
        return rc;
    }
    rc = make_listing(worker, path, fd, &listing);
    if (rc < 0 || !listing)
        return rc;
    rc = qa_say(worker, QA_SAY_READABLE, path);
    if (rc == 0)
        rc = run_directories(worker, listing);
    if (rc < 0) {
        part_done(worker->indexer, listing);
        return rc;
    }
    return run_listing(worker, listing);
}

static int run_paths(struct qa_worker *worker, const char *const *paths, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct qa_look *look = &worker->looks[i];
        look->path = look->name = paths[i];
        look->type = DT_UNKNOWN;
    }
    return qa_look_at(worker, worker->indexer->options.root_fd, NULL, count);
}

/* --- workers --- */

static int run_item(struct qa_worker *worker, struct qa_item *item)
{
    uint64_t start = qa_now_ns();
    int rc = item->listing ? run_part(worker, item->listing, item->offset, item->count)
             : item->paths ? run_paths(worker, item->paths, item->count)
                           : run_directory(worker, item->path);
    atomic_fetch_add_explicit(&worker->busy_ns, qa_now_ns() - start, memory_order_relaxed);
    return rc;
}

/* Takes from the stack until nothing is left to be done, by anybody. Holds the lock outside of
 * items. */
static void take_part(struct qa_worker *worker)
{
    struct qa_indexer *ix = worker->indexer;
    worker->hasher.stop = ix->stop;
    while (ix->rc == 0) {
        struct qa_item *item = ix->stack;
        if (!item && !ix->busy)
            break;
        if (!item) {
            pthread_cond_wait(&ix->more, &ix->lock);
            continue;
        }
        ix->stack = item->next;
        ix->busy++;
        pthread_mutex_unlock(&ix->lock);
        int rc = run_item(worker, item);
        qr_free(item);
        if (rc == 0 && qa_is_stopped(ix->stop))
            rc = qr_fail(QALLOW_E_INTERRUPTED, "told to stop");
        pthread_mutex_lock(&ix->lock);
        ix->busy--;
        if (rc < 0 && ix->rc == 0) {
            ix->rc = rc;
            snprintf(ix->detail, sizeof ix->detail, "%s", qallow_error_detail());
        }
    }
    pthread_cond_broadcast(&ix->more);
}

static void *thread_main(void *context)
{
    struct qa_worker *worker = context;
    struct qa_indexer *ix = worker->indexer;
    uint64_t last = 0; /* no run is entered twice */
    pthread_mutex_lock(&ix->lock);
    for (;;) {
        while (!ix->ending && (!ix->shared || ix->share_number == last))
            pthread_cond_wait(&ix->work, &ix->lock);
        if (ix->ending)
            break;
        last = ix->share_number;
        ix->inside++;
        take_part(worker);
        ix->inside--;
        pthread_cond_broadcast(&ix->more); /* the caller waits for that */
    }
    pthread_mutex_unlock(&ix->lock);
    return NULL;
}

/* What a run that ended early has left. */
static void drop_stack(struct qa_indexer *ix)
{
    while (ix->stack) {
        struct qa_item *item = ix->stack;
        ix->stack = item->next;
        if (item->listing)
            part_done(ix, item->listing);
        qr_free(item);
    }
}

int qa_walk_run(struct qa_indexer *ix)
{
    pthread_mutex_lock(&ix->lock);
    take_part(&ix->workers[0]);
    ix->shared = 0;
    while (ix->inside)
        pthread_cond_wait(&ix->more, &ix->lock);
    int rc = ix->rc;
    ix->rc = 0;
    pthread_mutex_unlock(&ix->lock);
    drop_stack(ix);
    return rc < 0 ? qr_fail(rc, "%s", ix->detail) : 0;
}

int qa_walk_init(struct qa_indexer *ix)
{
    sigset_t all, before;
    int error = 0;
    for (int i = 0; i < ix->worker_count; i++) {
        struct qa_worker *worker = &ix->workers[i];
        worker->indexer = ix;
        int rc = qa_hasher_init(&worker->hasher, &ix->options);
        worker->hasher.on_large = on_large;
        worker->hasher.context = ix;
        if (rc < 0)
            return rc;
    }
    sigfillset(&all); /* signals are for the threads of whoever uses this */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int i = 1; i < ix->worker_count && !error; i++) {
        error = pthread_create(&ix->workers[i].thread, NULL, thread_main, &ix->workers[i]);
        ix->thread_count += !error;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error ? qr_fail_errno(error, "a thread to read files") : 0;
}

void qa_walk_finish(struct qa_indexer *ix)
{
    pthread_mutex_lock(&ix->lock);
    ix->ending = 1;
    pthread_cond_broadcast(&ix->work);
    pthread_mutex_unlock(&ix->lock);
    for (int i = 1; i <= ix->thread_count; i++)
        pthread_join(ix->workers[i].thread, NULL);
    for (int i = 0; i < ix->worker_count; i++) {
        qa_hasher_finish(&ix->workers[i].hasher);
        qa_paths_finish(&ix->workers[i].messages);
        qr_free(ix->workers[i].names);
    }
}
