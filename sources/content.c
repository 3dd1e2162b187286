/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One change to the records that make it. Runs in the workers, away from the ordered section; what
 * it reads of the state it copies under the store's read lock.
 *
 * A file is read whole, looked at again, and compared with its base (the page's present content, or
 * that of another page) in memory. If it changed while it was read nothing is recorded of it, with
 * one exception: a file that only grew, whose first bytes are the same when read again, is recorded
 * up to the size it had.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "runtime/digest.h"
#include "sources/path.h"
#include "sources/stop.h"
#include "sources/tree_internal.h"
#include "telemetry/telemetry.h"

/* The bases of neighbouring files stand in the same few frames. More was not faster: the third
 * version of a tree of 60 MB, compressed, took 0.35 s with 2 MiB, 0.25 s with 4, 0.23 s with 8. */
enum { READER_CACHE = 4 << 20, INDEX_BYTES = 2 << 20, LINK_MAX_BYTES = 64 * 1024 };

static int no_memory(void) { return qr_fail(QALLOW_E_NO_MEMORY, "no memory to read a file"); }

int qs_worker_init(struct qs_worker *worker, struct qs_scan *scan)
{
    *worker = (struct qs_worker){.tree = scan->tree, .scan = scan};
    return qr_reader_create(scan->tree->store, READER_CACHE, &worker->reader);
}

void qs_worker_finish(struct qs_worker *worker)
{
    qr_reader_destroy(worker->reader);
    qr_edits_finish(&worker->edits);
    qr_free(worker->old);
    qr_free(worker->new_);
    qt_add(QT_FILES_READ, worker->read_files);
    qt_add(QT_FILES_READ_BYTES, worker->read_bytes);
}

static int reserve(uint8_t **buffer, size_t *capacity, size_t size)
{
    if (size <= *capacity)
        return 0;
    size_t larger = *capacity ? *capacity : 64 * 1024;
    while (larger < size)
        larger *= 2;
    if (larger > QS_IN_MEMORY && size <= QS_IN_MEMORY + 1)
        larger = QS_IN_MEMORY + 1; /* the largest file that comes here */
    qr_free(*buffer);
    *buffer = qr_malloc(larger);
    *capacity = *buffer ? larger : 0;
    return *buffer ? 0 : no_memory();
}

/* --- the file --- */

int qs_input_open(struct qs_worker *worker, struct qs_step *change, struct qs_input *input)
{
    const char *directory = change->place ? worker->scan->places[change->place].path : "";
    char *path = qs_path_join(directory, change->name);
    if (!path)
        return no_memory();
    int is_link = change->kind == QR_KIND_SYMLINK;
    int given_up = worker->given_up && qs_string_set_has(worker->given_up, path);
    input->fd = qs_open_beneath(worker->tree->root_fd, path,
                                is_link ? O_PATH : O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    int error = input->fd < 0 ? errno : 0;
    qr_free(path);
    if (!error && fstat(input->fd, &input->before) < 0)
        error = errno;
    if (error == ENOENT || error == ENOTDIR) {
        change->action = QS_DO_FREE; /* gone since the scan */
        change->outcome = QS_DONE;
        return 1;
    }
    if (given_up || error == ELOOP || error == ENXIO ||
        (!error && (is_link ? !S_ISLNK(input->before.st_mode) : !S_ISREG(input->before.st_mode)))) {
        change->outcome = QS_UNSTABLE; /* another kind of thing since the scan */
        return 1;
    }
    if (error) {
        change->outcome = QS_LEFT_OUT;
        change->error = error;
        return 1;
    }
    input->racy = qs_stat_is_racy(&input->before);
    change->size = (uint64_t)input->before.st_size;
    change->mode = input->before.st_mode & 07777;
    change->mtime_ns = qs_ns(input->before.st_mtim);
    return 0;
}

int qs_input_moved(const struct qs_input *input, struct stat *now)
{
    const struct stat *before = &input->before;
    return fstat(input->fd, now) < 0 || now->st_size != before->st_size ||
           qs_ns(now->st_mtim) != qs_ns(before->st_mtim) ||
           qs_ns(now->st_ctim) != qs_ns(before->st_ctim);
}

/* Reads exactly `size` bytes. 1: they are not there; -errno on an error. */
static int read_whole(int fd, uint8_t *to, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = pread(fd, to + done, size - done, (off_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n ? -errno : 1;
        done += (size_t)n;
    }
    return 0;
}

/* Fills worker->new_ with the bytes of the input. 0, 1 with an outcome set, or an error. */
static int read_input(struct qs_worker *worker, struct qs_step *change, struct qs_input *input)
{
    struct stat now;
    size_t size = (size_t)change->size;
    if (change->kind == QR_KIND_SYMLINK) {
        int rc = reserve(&worker->new_, &worker->new_capacity, LINK_MAX_BYTES);
        ssize_t n = rc ? 0 : readlinkat(input->fd, "", (char *)worker->new_, LINK_MAX_BYTES);
        if (rc == 0 && n < 0) {
            change->outcome = QS_LEFT_OUT;
            change->error = errno;
            rc = 1;
        }
        change->size = (uint64_t)n;
        return rc;
    }
    change->outcome = QS_UNSTABLE;
    if (change->size > QS_IN_MEMORY)
        return 1; /* it was smaller when it was scanned */
    int rc = reserve(&worker->new_, &worker->new_capacity, size + 1);
    if (rc == 0 && (rc = read_whole(input->fd, worker->new_, size)) < 0) {
        change->outcome = QS_LEFT_OUT;
        change->error = -rc;
        rc = 1;
    }
    if (rc == 0 && qs_input_moved(input, &now)) {
        rc = now.st_size < input->before.st_size ? 1
             : reserve(&worker->old, &worker->old_capacity, size + 1);
        if (rc == 0)
            rc = read_whole(input->fd, worker->old, size) != 0 ||
                 memcmp(worker->old, worker->new_, size) != 0;
        input->racy = 1;
    }
    if (rc == 0) {
        change->outcome = QS_PENDING;
        worker->read_files++;
        worker->read_bytes += size;
    }
    return rc;
}

/* --- the page --- */

int qs_before_get(struct qs_worker *worker, const struct qs_step *change,
                  struct qs_before *before)
{
    struct qr_store *store = worker->tree->store;
    int rc = 0;
    *before = (struct qs_before){.base_is_own = change->base == 0, .base_id = change->base};
    qr_store_read_lock(store);
    const struct qr_state *state = qr_store_state(store);
    const struct qr_page *page = qr_state_find(state, change->page);
    const struct qr_page *base = change->base ? qr_state_find(state, change->base) : page;
    if (page) {
        before->exists = change->action != QS_DO_CREATE;
        before->sum = page->content_sum;
        before->mode = page->mode;
        before->mtime_ns = page->mtime_ns;
    }
    if (base)
        rc = qr_content_init(&before->base, base);
    qr_store_read_unlock(store);
    return rc;
}

void qs_before_finish(struct qs_before *before) { qr_content_finish(&before->base); }

/* The page of the directory in which an entry is made. PAGE_NOT_FOUND if there is none: names moved
 * during the scan, which met the directory's entries and not the directory. */
static int parent_of(const struct qs_worker *worker, const struct qs_step *change, uint64_t *parent)
{
    const struct qs_place *place = &worker->scan->places[change->place];
    *parent = change->place ? place->page : 0;
    if (change->place && !place->page && !worker->tree->file_name) /* a file alone has none */
        return qr_fail(QALLOW_E_PAGE_NOT_FOUND, "%s: its directory %s was not there any more",
                       qr_quotez(change->name), qr_quotez(place->path));
    return 0;
}

int qs_put_head(struct qs_worker *worker, struct qs_step *change,
                const struct qs_before *before, struct qr_batch *batch)
{
    struct qr_attributes attributes = {.mode = change->mode, .mtime_ns = change->mtime_ns};
    if (change->action == QS_DO_CREATE) {
        uint64_t parent;
        int rc = parent_of(worker, change, &parent);
        if (rc < 0)
            return rc;
        return qr_batch_page_create(batch, change->page, parent, change->name,
                                    strlen(change->name), change->kind, &attributes);
    }
    if (before && before->mode == change->mode && before->mtime_ns == change->mtime_ns)
        return 0;
    change->did_attributes = 1;
    return qr_batch_page_attributes(batch, change->page, &attributes);
}

int qs_step_is_large(const struct qs_worker *worker, const struct qs_step *change)
{
    if (change->kind != QR_KIND_FILE ||
        (change->action != QS_DO_CREATE && change->action != QS_DO_CONTENT))
        return 0;
    const struct qr_state *state = qr_store_state(worker->tree->store);
    const struct qr_page *base = qr_state_find(state, change->base ? change->base : change->page);
    return change->size > QS_IN_MEMORY || (base && base->size > QS_IN_MEMORY);
}

/* The content of a file or symlink whose bytes are in worker->new_. */
static int put_content(struct qs_worker *worker, struct qs_step *change,
                       struct qs_before *before, struct qr_batch *batch)
{
    size_t old_size = (size_t)before->base.size, size = (size_t)change->size;
    int rc = reserve(&worker->old, &worker->old_capacity, old_size + 1);
    if (rc == 0 && old_size)
        rc = qr_content_read(worker->reader, &before->base, 0, worker->old, old_size);
    worker->edits.count = 0;
    if (rc == 0)
        rc = qr_diff(worker->old, old_size, worker->new_, size, INDEX_BYTES, &worker->edits);
    if (rc == 0)
        rc = qs_put_head(worker, change, before, batch);
    if (rc < 0 || (before->base_is_own && worker->edits.count == 0))
        return rc;
    /* Before the edits are encoded, which may split them. */
    struct qb_u128 sum = before->base_is_own
                             ? qr_cells_after(before->sum, change->page, &worker->edits,
                                              worker->old, old_size, worker->new_, size)
                             : qr_cells_of(change->page, worker->new_, size);
    change->did_content = 1;
    return qr_batch_delta(batch, change->page, before->base_id, old_size, size, &worker->edits,
                          worker->old, sum);
}

static int encode_content(struct qs_worker *worker, struct qs_step *change,
                          struct qr_batch *batch)
{
    struct qs_input input = {.fd = -1};
    struct qs_before before = {0};
    int rc = qs_input_open(worker, change, &input);
    if (rc == 0)
        rc = read_input(worker, change, &input);
    if (rc == 0)
        rc = qs_before_get(worker, change, &before);
    if (rc == 0 && before.base.size > QS_IN_MEMORY) {
        change->outcome = QS_UNSTABLE;
        rc = 1;
    }
    if (rc == 0)
        rc = put_content(worker, change, &before, batch);
    if (rc == 0) {
        change->outcome = QS_DONE;
        change->stat = qs_stat_cache(&input.before, input.racy);
        change->stat_known = 1;
    }
    qs_before_finish(&before);
    if (input.fd >= 0)
        close(input.fd);
    return rc;
}

int qs_step_encode(struct qs_worker *worker, struct qs_step *change, struct qr_batch *batch)
{
    int rc = qs_stop(), was_new = change->action == QS_DO_CREATE;
    uint64_t parent;
    if (rc < 0)
        return rc;
    if (change->kind != QR_KIND_DIRECTORY &&
        (change->action == QS_DO_CREATE || change->action == QS_DO_CONTENT)) {
        rc = encode_content(worker, change, batch);
        if (rc < 0 || change->action != QS_DO_FREE)
            return rc < 0 ? rc : 0;
        return was_new ? 0 : qr_batch_page_free(batch, change->page);
    }
    switch ((enum qs_action)change->action) {
    case QS_DO_CREATE:
    case QS_DO_ATTRIBUTES:
        rc = qs_put_head(worker, change, NULL, batch);
        break;
    case QS_DO_RENAME:
        rc = parent_of(worker, change, &parent);
        if (rc == 0)
            rc = qr_batch_page_rename(batch, change->page, parent, change->name,
                                      strlen(change->name));
        break;
    case QS_DO_FREE:
        rc = qr_batch_page_free(batch, change->page);
        break;
    case QS_DO_CONTENT:
    case QS_DO_STAT:
        break;
    }
    change->outcome = QS_DONE;
    return rc;
}
