/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Restoring a state as a new directory.
 *
 * The tree is built as TARGET.qallow-tmp, everything private to the user: directories first, then
 * files by several threads in the order of their pages (which is about their order in the log),
 * symlinks last, then the attributes of the directories from the deepest up. What was written is
 * summed up to the digest of the state and compared with the recorded one; one syncfs, then the
 * rename. Names come from the log, so they are checked one by one before anything is made of them.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sources/path.h"
#include "sources/stop.h"
#include "sources/target.h"
#include "sources/tree_internal.h"
#include "sources/writer.h"
#include "telemetry/telemetry.h"

enum { RUN = 32 /* files that a thread takes at once */, RESTORE_THREADS_MAX = 64 };

/* A directory to make; the first is the target itself. */
struct place {
    const struct qr_page *page; /* NULL: made without attributes (the target of a single file) */
    char *path;
    int depth;
};
struct item {
    const struct qr_page *page;
    uint32_t place;
};

struct restore {
    struct qr_store *store;
    const struct qr_state *state;
    const struct qs_restore_options *options;
    struct qs_restore_result *result;
    struct place *places;
    struct item *files, *links;
    size_t place_count, place_capacity, file_count, file_capacity, link_count, link_capacity;
    uint64_t total;
    struct qs_target target;
    int root_fd; /* of what is made */
    /* shared by the threads */
    atomic_size_t next;
    atomic_uint_fast64_t done;
    atomic_int rc;
    pthread_mutex_t lock;
    char detail[1024];
};

static int no_memory(void) { return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the restore"); }

#define APPEND(r, list, value)                                                                     \
    (QR_GROW((r)->list##s, (r)->list##_count, (r)->list##_capacity) < 0                            \
         ? QALLOW_E_NO_MEMORY                                                                      \
         : ((r)->list##s[(r)->list##_count++] = (value), 0))

/* --- what is to be made --- */

/* Is the page wanted: below `only`, or a directory on the way to it? */
static int is_wanted(const struct qr_state *state, const struct qr_page *page,
                     const struct qr_page *only)
{
    if (!only)
        return 1;
    for (const struct qr_page *p = page; p; p = p->parent ? qr_state_find(state, p->parent) : NULL)
        if (p == only)
            return 1;
    for (const struct qr_page *p = only; p; p = p->parent ? qr_state_find(state, p->parent) : NULL)
        if (p == page)
            return 1;
    return 0;
}

static int add_page(struct restore *r, const struct qr_page *page, uint32_t place)
{
    struct item item = {page, place};
    int rc = qs_page_check(page);
    if (rc < 0)
        return rc;
    if (page->kind == QR_KIND_FILE) {
        r->total += page->size;
        return APPEND(r, file, item);
    }
    if (page->kind == QR_KIND_SYMLINK)
        return APPEND(r, link, item);
    if (page->kind != QR_KIND_DIRECTORY)
        return qr_fail(QALLOW_E_SERIALIZATION, "page %llu: inside a directory, but of kind %d",
                       (unsigned long long)page->id, page->kind);
    if (r->places[place].depth == QS_DEPTH_MAX)
        return qr_fail(QALLOW_E_LIMIT, "page %llu: nested deeper than %d directories",
                       (unsigned long long)page->id, QS_DEPTH_MAX);
    struct place next = {page, qs_path_join(r->places[place].path, page->name),
                         r->places[place].depth + 1};
    return next.path ? APPEND(r, place, next) : no_memory();
}

static int by_id(const void *a, const void *b)
{
    uint64_t x = ((const struct item *)a)->page->id, y = ((const struct item *)b)->page->id;
    return x < y ? -1 : x > y;
}

/* Lists what is below the root, breadth first: a directory comes before what is in it. */
static int collect(struct restore *r)
{
    const struct qr_page *root = qr_state_child(r->state, 0, ".", 1), *only = NULL;
    const char *path = r->options->only;
    int rc = 0;
    if (root && root->kind != QR_KIND_DIRECTORY)
        return qr_fail(QALLOW_E_SERIALIZATION, "page %llu: the root is no directory",
                       (unsigned long long)root->id);
    if (path && root)
        only = qr_state_lookup(r->state, root->id, path);
    if (path && !only)
        only = qr_state_child(r->state, 0, path, strlen(path));
    if (path && !only)
        return qr_fail(QALLOW_E_PAGE_NOT_FOUND, "this epoch has no %s", qr_quotez(path));
    struct place target = {root, qs_path_join("", ""), 0};
    rc = target.path ? APPEND(r, place, target) : no_memory();
    for (const struct qr_page *page = qr_state_first_child(r->state, 0); page && rc == 0;
         page = qr_state_next_sibling(r->state, page))
        if (page->kind == QR_KIND_FILE && is_wanted(r->state, page, only))
            rc = add_page(r, page, 0);
    for (size_t i = 0; i < r->place_count && rc == 0 && r->places[i].page; i++)
        for (const struct qr_page *page =
                 qr_state_first_child(r->state, r->places[i].page->id);
             page && rc == 0; page = qr_state_next_sibling(r->state, page))
            if (is_wanted(r->state, page, only))
                rc = add_page(r, page, (uint32_t)i);
    if (r->file_count)
        qsort(r->files, r->file_count, sizeof *r->files, by_id);
    return rc;
}

/* --- files --- */

static void fail_all(struct restore *r, int rc)
{
    pthread_mutex_lock(&r->lock);
    if (atomic_load(&r->rc) == 0) {
        snprintf(r->detail, sizeof r->detail, "%s", qallow_error_detail());
        atomic_store(&r->rc, rc);
    }
    pthread_mutex_unlock(&r->lock);
}

/* The directory a thread is working in. */
struct here {
    int fd;
    uint32_t place;
};

static int go(struct restore *r, struct here *here, uint32_t place)
{
    if (here->fd >= 0 && here->place == place)
        return 0;
    if (here->fd >= 0)
        close(here->fd);
    here->place = place;
    here->fd = qs_open_beneath(r->root_fd, r->places[place].path, O_RDONLY | O_DIRECTORY, 0);
    return here->fd < 0 ? qs_restore_failed(errno, r->places[place].path) : 0;
}

static int make_file(struct restore *r, struct qs_writer *writer, struct here *here,
                     const struct item *item)
{
    const struct qr_page *page = item->page;
    int fd = -1, rc = go(r, here, item->place);
    if (rc < 0)
        return rc;
    char *path = qs_path_join(r->places[item->place].path, page->name);
    if (!path)
        return no_memory();
    fd = openat(here->fd, page->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        rc = qr_fail_errno(errno, "%s", qr_quotez(path));
        goto out;
    }
    rc = qs_write_content(writer, page, fd, path);
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, qs_timespec(page->mtime_ns)};
    if (rc == 0 && (((page->mode & 07777) != 0600 && fchmod(fd, page->mode & 07777) < 0) ||
                    futimens(fd, times) < 0))
        rc = qr_fail_errno(errno, "%s", qr_quotez(path));
out:
    if (fd >= 0 && close(fd) < 0 && rc == 0)
        rc = qr_fail_errno(errno, "%s", qr_quotez(path));
    qr_free(path);
    return rc;
}

static void make_files(struct restore *r, int is_owner)
{
    struct qs_writer writer;
    struct here here = {-1, 0};
    int rc = qs_writer_init(&writer, r->store);
    while (rc == 0 && atomic_load(&r->rc) == 0) {
        size_t first = atomic_fetch_add(&r->next, RUN), i = first;
        if (first >= r->file_count)
            break;
        for (; rc == 0 && i < first + RUN && i < r->file_count; i++) {
            rc = qs_stop();
            if (rc == 0)
                rc = make_file(r, &writer, &here, &r->files[i]);
            atomic_fetch_add(&r->done, r->files[i].page->size);
        }
        if (is_owner && r->options->progress)
            r->options->progress(r->options->context, atomic_load(&r->done), r->total);
    }
    if (rc < 0)
        fail_all(r, rc);
    if (here.fd >= 0)
        close(here.fd);
    qs_writer_finish(&writer);
}

static void *thread_main(void *context)
{
    make_files(context, 0);
    return NULL;
}

static int run_threads(struct restore *r)
{
    pthread_t threads[RESTORE_THREADS_MAX];
    int wanted = r->options->threads, started = 0;
    uint64_t fit = r->options->max_memory ? r->options->max_memory / QS_WRITER_MEMORY : 64;
    if (wanted > RESTORE_THREADS_MAX)
        wanted = RESTORE_THREADS_MAX;
    if ((uint64_t)wanted > fit)
        wanted = (int)fit;
    if ((size_t)wanted > r->file_count / RUN + 1)
        wanted = (int)(r->file_count / RUN + 1);
    while (started < wanted - 1 &&
           pthread_create(&threads[started], NULL, thread_main, r) == 0)
        started++;
    make_files(r, 1);
    for (int i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    int rc = atomic_load(&r->rc);
    return rc < 0 ? qr_fail(rc, "%s", r->detail) : 0;
}

/* --- the rest --- */

static int make_directories(struct restore *r)
{
    for (size_t i = 1; i < r->place_count; i++) {
        const char *path = r->places[i].path, *slash = strrchr(path, '/');
        char *above = slash ? qs_path_join("", path) : NULL;
        if (slash && !above)
            return no_memory();
        if (above)
            above[slash - path] = 0;
        int fd = qs_open_beneath(r->root_fd, above ? above : "", O_PATH | O_DIRECTORY, 0);
        qr_free(above);
        int rc = fd < 0 ? -1 : mkdirat(fd, slash ? slash + 1 : path, 0700);
        int error = errno;
        if (fd >= 0)
            close(fd);
        if (rc < 0)
            return qs_restore_failed(error, path);
    }
    return 0;
}

static int make_links(struct restore *r)
{
    struct qs_writer writer;
    struct here here = {-1, 0};
    int rc = qs_writer_init(&writer, r->store);
    for (size_t i = 0; rc == 0 && i < r->link_count; i++) {
        const struct item *item = &r->links[i];
        rc = go(r, &here, item->place);
        char *path = qs_path_join(r->places[item->place].path, item->page->name);
        if (rc == 0)
            rc = path ? qs_write_symlink(&writer, item->page, here.fd, item->page->name, path)
                      : no_memory();
        qr_free(path);
    }
    if (here.fd >= 0)
        close(here.fd);
    qs_writer_finish(&writer);
    return rc;
}

static int finish_directories(struct restore *r)
{
    for (size_t i = r->place_count; i-- > 0;) {
        const struct place *place = &r->places[i];
        if (!place->page)
            continue;
        struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, qs_timespec(place->page->mtime_ns)};
        int fd = qs_open_beneath(r->root_fd, place->path, O_RDONLY | O_DIRECTORY, 0);
        int rc = fd < 0 ? -1 : futimens(fd, times);
        if (rc == 0)
            rc = fchmod(fd, place->page->mode & 07777);
        int error = errno;
        if (fd >= 0)
            close(fd);
        if (rc < 0)
            return qs_restore_failed(error, place->path);
    }
    return 0;
}

/* The contents of all files and symlinks have been found to have their sums; what is left are the
 * terms of the pages themselves, and pages that do not go to a tree. */
static int check_digest(struct restore *r)
{
    struct qs_writer writer;
    struct qb_u128 digest = {0, 0}, wanted = r->options->digest;
    int rc = qs_writer_init(&writer, r->store);
    for (const struct qr_page *page = qr_state_next_page(r->state, 0); page && rc == 0;
         page = qr_state_next_page(r->state, page->id)) {
        if (page->size && page->kind != QR_KIND_FILE && page->kind != QR_KIND_SYMLINK)
            rc = qs_write_content(&writer, page, -1, page->name);
        digest = qb_u128_add(digest, qb_u128_add(qr_page_term(page), page->content_sum));
    }
    qs_writer_finish(&writer);
    if (rc == 0 && !qb_u128_equal(digest, wanted))
        rc = qr_fail(QALLOW_E_DAMAGED, "what was restored does not have the digest of its epoch");
    return rc;
}

/* The target must be nothing, an empty directory, or (force) any directory. */
static int check_target(struct restore *r, const char *target)
{
    int parent_fd = r->target.parent_fd;
    const char *name = r->target.name;
    struct stat st;
    if (fstatat(parent_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : qr_fail_errno(errno, "%s", qr_quotez(target));
    if (!S_ISDIR(st.st_mode))
        return qr_fail(QALLOW_E_CANNOT_CREATE, "%s exists and is not a directory",
                       qr_quotez(target));
    struct qs_names names = {0};
    int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int rc = fd < 0 ? -1 : qs_names_read(&names, fd);
    if (rc == -1)
        rc = qr_fail_errno(errno, "%s", qr_quotez(target));
    else if (rc == 0 && names.count && !r->options->force)
        rc = qr_fail(QALLOW_E_CANNOT_CREATE, "%s is not empty", qr_quotez(target));
    qs_names_finish(&names);
    if (fd >= 0)
        close(fd);
    return rc;
}

static int build(struct restore *r)
{
    int rc = make_directories(r);
    if (rc == 0)
        rc = run_threads(r);
    if (rc == 0)
        rc = make_links(r);
    if (rc == 0)
        rc = finish_directories(r);
    if (rc == 0 && !r->options->only)
        rc = check_digest(r);
    if (rc == 0 && syncfs(r->root_fd) < 0)
        rc = qs_restore_failed(errno, r->target.path);
    return rc;
}

static void release(struct restore *r)
{
    for (size_t i = 0; i < r->place_count; i++)
        qr_free(r->places[i].path);
    qr_free(r->places);
    qr_free(r->files);
    qr_free(r->links);
    pthread_mutex_destroy(&r->lock);
}

int qs_restore(struct qr_store *store, const struct qr_state *state, const char *target,
               const struct qs_restore_options *options, struct qs_restore_result *result)
{
    struct restore r = {.store = store,
                        .state = state,
                        .options = options,
                        .result = result,
                        .target = QS_NO_TARGET};
    char resolved[PATH_MAX];
    pthread_mutex_init(&r.lock, NULL);
    *result = (struct qs_restore_result){0};
    int rc = collect(&r);
    if (rc == 0)
        rc = qs_target_open(&r.target, realpath(target, resolved) ? resolved : target);
    r.target.path = target;
    if (rc == 0)
        rc = check_target(&r, target);
    if (rc == 0)
        rc = qs_target_make(&r.target, 1, 0700);
    if (rc == 0) {
        r.root_fd = r.target.temporary_fd;
        rc = build(&r);
    }
    if (rc == 0)
        rc = qs_target_put(&r.target);
    if (rc == 0) {
        result->files = r.file_count;
        result->directories = r.place_count;
        result->symlinks = r.link_count;
        result->bytes = r.total;
        qt_add(QT_REPLAY_BYTES, r.total);
        qt_add(QT_REPLAY_PAGES, r.file_count + r.place_count + r.link_count);
    }
    qs_target_close(&r.target);
    release(&r);
    return rc;
}
