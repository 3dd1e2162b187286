/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of tensors out of an epoch. Every file is written beside its name, in chunks that threads
 * share out among themselves; the content of every page is summed on the way and compared with what
 * the epoch says; then the file is synced and gets its name. Shards and their index are written
 * into a directory of another name first, so that they appear together.
 *
 * What is read of a header is how it says the tensors lie in the file. A log is hostile input, so
 * that is checked again, and so are the names of files.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/digest.h"
#include "runtime/error.h"
#include "runtime/os.h"
#include "sources/path.h"
#include "sources/stop.h"
#include "sources/target.h"
#include "sources/tensor_internal.h"
#include "telemetry/telemetry.h"

enum { THREADS_MAX = 64, READER_CACHE = 2 << 20, HEADER_MAX = 100000008 };

/* A page and its place in a file. */
struct place {
    const struct qr_page *page;
    uint64_t at;
    struct qb_u128 sum;
};

struct writing {
    struct qr_store *store;
    const char *path;
    int fd;
    int only_compare; /* the file is there: it is read and summed */
    struct place *places;
    size_t count, capacity;
    uint64_t size;
    pthread_mutex_t lock;
    size_t next_place; /* the next chunk that nobody has */
    uint64_t next_offset;
    int rc;
    char detail[512];
};

/* --- writing one file --- */

/* The next chunk to be done. 0: there is none. */
static int take_chunk(struct writing *w, struct place **place, uint64_t *offset)
{
    int found = 0;
    pthread_mutex_lock(&w->lock);
    while (w->next_place < w->count && w->next_offset >= w->places[w->next_place].page->size) {
        w->next_place++;
        w->next_offset = 0;
    }
    if (w->next_place < w->count && !w->rc) {
        *place = &w->places[w->next_place];
        *offset = w->next_offset;
        w->next_offset += QS_CHUNK;
        found = 1;
    }
    pthread_mutex_unlock(&w->lock);
    return found;
}

static int write_chunk(struct writing *w, struct qr_reader *reader, struct qr_content *content,
                       uint8_t *buffer, struct place *place, uint64_t offset)
{
    uint64_t left = place->page->size - offset;
    size_t length = left < QS_CHUNK ? (size_t)left : QS_CHUNK;
    int rc = w->only_compare ? qs_read_exactly(w->fd, w->path, buffer, length, place->at + offset)
                             : qr_content_read(reader, content, offset, buffer, length);
    if (rc)
        return rc;
    struct qb_u128 sum =
        qb_kernels()->hash_cells(buffer, length, qr_page_seed(place->page->id), offset / QB_CELL);
    pthread_mutex_lock(&w->lock);
    place->sum = qb_u128_add(place->sum, sum);
    pthread_mutex_unlock(&w->lock);
    if (!w->only_compare && qs_write_all(w->fd, buffer, length, place->at + offset) < 0)
        rc = qr_fail_errno(errno, "%s", qr_quotez(w->path));
    return rc;
}

static int write_chunks(struct writing *w)
{
    struct qr_reader *reader = NULL;
    struct qr_content content = {0};
    struct place *place = NULL, *last = NULL;
    uint64_t offset;
    uint8_t *buffer = qr_malloc(QS_CHUNK);
    int rc = buffer ? qr_reader_create(w->store, READER_CACHE, &reader)
                    : qr_fail(QALLOW_E_NO_MEMORY, "no memory for tensors");
    while (rc == 0 && (rc = qs_stop()) == 0 && take_chunk(w, &place, &offset)) {
        if (place != last) {
            qr_content_finish(&content);
            rc = qr_content_init(&content, place->page);
            last = place;
        }
        if (rc == 0)
            rc = write_chunk(w, reader, &content, buffer, place, offset);
    }
    qr_content_finish(&content);
    qr_reader_destroy(reader);
    qr_free(buffer);
    return rc;
}

static void *thread_main(void *context)
{
    struct writing *w = context;
    int rc = write_chunks(w);
    if (rc) {
        pthread_mutex_lock(&w->lock);
        if (!w->rc) {
            w->rc = rc;
            snprintf(w->detail, sizeof w->detail, "%s", qallow_error_detail());
        }
        pthread_mutex_unlock(&w->lock);
    }
    return NULL;
}

static int write_content(struct writing *w, int threads)
{
    pthread_t ids[THREADS_MAX];
    int started = 0;
    uint64_t wanted = w->size / QS_CHUNK + 1;
    if ((uint64_t)threads > wanted)
        threads = (int)wanted;
    while (started + 1 < threads && started < THREADS_MAX &&
           pthread_create(&ids[started], NULL, thread_main, w) == 0)
        started++;
    thread_main(w);
    for (int i = 0; i < started; i++)
        pthread_join(ids[i], NULL);
    if (w->rc)
        return qr_fail(w->rc, "%s", w->detail);
    for (size_t i = 0; i < w->count; i++)
        if (!qb_u128_equal(w->places[i].sum, w->places[i].page->content_sum))
            return qr_fail(QALLOW_E_DAMAGED, "%s: %s does not have the recorded digest",
                           qr_quotez(qr_store_path(w->store)), qr_quotez(w->places[i].page->name));
    return 0;
}

/* --- what goes into a file --- */

static int add_place(struct writing *w, const struct qr_page *page, uint64_t at)
{
    if (QR_GROW(w->places, w->count, w->capacity) < 0)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for tensors");
    w->places[w->count++] = (struct place){.page = page, .at = at};
    w->size += page->size;
    return 0;
}

static int broken(const struct qr_page *file, const char *why)
{
    return qr_fail(QALLOW_E_DAMAGED, "the file %s of this epoch: %s", qr_quotez(file->name), why);
}

/* The bytes in front of the data, and the tensors where they say. */
static int place_tensors(struct writing *w, const struct qr_state *state,
                         const struct qr_page *file, const struct qs_tensors *tensors)
{
    int rc = 0;
    for (size_t i = 0; i < tensors->count && rc == 0; i++) {
        const struct qs_tensor *t = &tensors->items[i];
        const struct qr_page *page = qr_state_child(state, file->id, t->name, strlen(t->name));
        if (!page || page->size != t->end - t->begin)
            return broken(file, "a tensor of its header is missing");
        rc = add_place(w, page, t->begin);
    }
    return rc;
}

static int place_file(struct writing *w, const struct qr_state *state, const struct qr_page *file)
{
    enum qs_tensor_format format = qs_tensor_format_of_page(file);
    if (format == QS_SAFETENSORS_INDEX)
        return add_place(w, file, 0);
    const struct qr_page *header =
        qr_state_child(state, file->id, QS_HEADER_NAME, strlen(QS_HEADER_NAME));
    if (!header || header->size > HEADER_MAX)
        return broken(file, "it has no header");
    uint64_t size = 0;
    for (const struct qr_page *page = qr_state_first_child(state, file->id); page;
         page = qr_state_next_sibling(state, page))
        size += page->size;
    struct qs_tensors tensors = {0};
    struct qr_content content = {0};
    struct qr_reader *reader = NULL;
    uint8_t *bytes = qr_malloc((size_t)header->size + 16);
    int rc = bytes ? qr_reader_create(w->store, READER_CACHE, &reader)
                   : qr_fail(QALLOW_E_NO_MEMORY, "no memory for a header");
    if (rc == 0) {
        memset(bytes, 0, (size_t)header->size + 16);
        rc = qr_content_init(&content, header);
    }
    if (rc == 0)
        rc = qr_content_read(reader, &content, 0, bytes, (size_t)header->size);
    if (rc == 0)
        rc = qs_tensors_parse(bytes, (size_t)header->size, file->name, size, format, &tensors);
    if (rc == QALLOW_E_SERIALIZATION)
        rc = broken(file, "its header does not fit its tensors");
    if (rc == 0)
        rc = add_place(w, header, 0);
    if (rc == 0)
        rc = place_tensors(w, state, file, &tensors);
    qr_content_finish(&content);
    qr_reader_destroy(reader);
    qs_tensors_finish(&tensors);
    qr_free(bytes);
    return rc;
}

/* The file of an epoch; NULL if there is not just one. */
static const struct qr_page *only_file(const struct qr_state *state)
{
    const struct qr_page *file = NULL;
    for (const struct qr_page *root = qr_state_first_child(state, 0); root;
         root = qr_state_next_sibling(state, root)) {
        if (!qs_tensor_format_of_page(root))
            continue;
        if (file)
            return NULL;
        file = root;
    }
    return file;
}

/* --- comparing --- */

/* 1 or 0, or an error. */
static int same_file(struct qr_store *store, const struct qr_state *state,
                     const struct qr_page *file, int directory_fd, const char *path, int threads)
{
    struct writing w = {.store = store, .path = path, .only_compare = 1};
    struct stat st;
    int rc = 0;
    w.fd = openat(directory_fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (w.fd < 0 || fstat(w.fd, &st) < 0 || !S_ISREG(st.st_mode))
        goto out;
    pthread_mutex_init(&w.lock, NULL);
    rc = place_file(&w, state, file);
    if (rc == 0 && (uint64_t)st.st_size == w.size) {
        rc = write_content(&w, threads);
        rc = rc == 0 ? 1 : rc == QALLOW_E_DAMAGED ? 0 : rc;
    }
    pthread_mutex_destroy(&w.lock);
    qr_free(w.places);
out:
    if (w.fd >= 0)
        close(w.fd);
    return rc;
}

/* The files of an epoch and nothing else. */
static int same_directory(struct qr_store *store, const struct qr_state *state, int fd, int threads)
{
    struct qs_names names = {0};
    size_t files = 0;
    int rc = qs_names_read(&names, fd) == 0;
    for (const struct qr_page *file = qr_state_first_child(state, 0); file && rc == 1;
         file = qr_state_next_sibling(state, file)) {
        if (!qs_tensor_format_of_page(file))
            continue;
        files++;
        rc = qs_name_is_valid(file->name, file->name_length)
                 ? same_file(store, state, file, fd, file->name, threads)
                 : 0;
    }
    if (rc == 1)
        rc = names.count == files;
    qs_names_finish(&names);
    return rc;
}

int qs_tensors_same(struct qr_store *store, const struct qr_state *state, const char *path,
                    int threads)
{
    const struct qr_page *file = only_file(state);
    if (file)
        return same_file(store, state, file, AT_FDCWD, path, threads);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int rc = fd < 0 ? 0 : same_directory(store, state, fd, threads);
    if (fd >= 0)
        close(fd);
    return rc;
}

/* --- the target --- */

/* Writes a file and syncs it. */
static int write_file(struct qr_store *store, const struct qr_state *state,
                      const struct qr_page *file, int fd, const char *path, int threads,
                      struct qs_tensor_restore *result)
{
    struct writing w = {.store = store, .path = path, .fd = fd};
    pthread_mutex_init(&w.lock, NULL);
    int rc = place_file(&w, state, file);
    if (rc == 0)
        rc = write_content(&w, threads);
    if (rc == 0 && fsync(w.fd) != 0)
        rc = qr_fail_errno(errno, "%s", qr_quotez(path));
    result->files++;
    result->bytes += w.size;
    qr_free(w.places);
    pthread_mutex_destroy(&w.lock);
    return rc;
}

static int write_files(struct qr_store *store, const struct qr_state *state, int directory_fd,
                       int threads, struct qs_tensor_restore *result)
{
    int rc = 0;
    for (const struct qr_page *file = qr_state_first_child(state, 0); file && rc == 0;
         file = qr_state_next_sibling(state, file)) {
        if (!qs_tensor_format_of_page(file))
            continue;
        if (!qs_name_is_valid(file->name, file->name_length))
            return broken(file, "its name cannot be one");
        int fd = openat(directory_fd, file->name,
                        O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
        rc = fd < 0 ? qr_fail_errno(errno, "%s", qr_quotez(file->name))
                    : write_file(store, state, file, fd, file->name, threads, result);
        if (fd >= 0)
            close(fd);
    }
    return rc;
}

/* What is in the directory goes when it is replaced: it must be of these epochs. */
static int check_names(const struct qs_target *target, int fd, const struct qr_state *state,
                       const struct qr_state *before, int force)
{
    struct qs_names names = {0};
    int rc = qs_names_read(&names, fd);
    if (rc == -1)
        rc = qr_fail_errno(errno, "%s", qr_quotez(target->path));
    if (rc == 0 && names.count && !force)
        rc = qr_fail(QALLOW_E_CANNOT_CREATE, "%s exists already", qr_quotez(target->path));
    for (size_t i = 0, at = 1; i < names.count && rc == 0; i++) {
        const char *name = names.bytes + at;
        size_t length = strlen(name);
        if (!qr_state_child(state, 0, name, length) &&
            !(before && qr_state_child(before, 0, name, length)))
            rc = qr_fail(QALLOW_E_CANNOT_CREATE,
                         "%s holds %s, which is none of its files, and is left as it is",
                         qr_quotez(target->path), qr_quotez(name));
        at += length + 2;
    }
    qs_names_finish(&names);
    return rc;
}

static int check_target(const struct qs_target *target, const struct qr_state *state,
                        const struct qr_state *before, int want_directory, int force)
{
    struct stat st;
    int rc = 0, fd;
    if (fstatat(target->parent_fd, target->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : qr_fail_errno(errno, "%s", qr_quotez(target->path));
    if (want_directory ? !S_ISDIR(st.st_mode) : !S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode))
        return qr_fail(QALLOW_E_CANNOT_CREATE, "%s exists and is %s", qr_quotez(target->path),
                       want_directory ? "not a directory" : "no regular file");
    if (!want_directory)
        return force
                   ? 0
                   : qr_fail(QALLOW_E_CANNOT_CREATE, "%s exists already", qr_quotez(target->path));
    fd = openat(target->parent_fd, target->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    rc = fd < 0 ? qr_fail_errno(errno, "%s", qr_quotez(target->path))
                : check_names(target, fd, state, before, force);
    if (fd >= 0)
        close(fd);
    return rc;
}

int qs_tensors_restore(struct qr_store *store, const struct qr_state *state, const char *path,
                       const struct qs_tensor_restore_options *options,
                       struct qs_tensor_restore *result)
{
    const struct qr_page *only = only_file(state);
    struct qs_target target;
    *result = (struct qs_tensor_restore){0};
    int rc = qs_target_open(&target, path);
    if (rc == 0)
        rc = check_target(&target, state, options->before, !only, options->force);
    if (rc == 0)
        rc = qs_target_make(&target, !only, only ? 0666 : 0777);
    int fd = target.temporary_fd;
    if (rc == 0)
        rc = only ? write_file(store, state, only, fd, path, options->threads, result)
                  : write_files(store, state, fd, options->threads, result);
    if (rc == 0 && !only && fsync(fd) != 0) /* the names in it */
        rc = qr_fail_errno(errno, "%s", qr_quotez(path));
    if (rc == 0)
        rc = qs_target_put(&target);
    qs_target_close(&target);
    if (rc == 0) {
        qt_add(QT_REPLAY_BYTES, result->bytes);
        qt_add(QT_REPLAY_PAGES, qr_state_page_count(state));
    }
    return rc;
}
