/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A regular file that is likely to have changed, or is new, is opened at once and judged by fstat
 * of what was opened; anything else by lstat first, so that no device is ever opened knowingly (to
 * open one may do something, and to open a FIFO wakes its writer). The file is read by its size:
 * small ones with one pread into a buffer that stays, larger ones in pieces that stay in the
 * second-level cache between reading and hashing. Then fstat again: if size, mtime or ctime moved,
 * what was read may be of two versions, and is thrown away.
 *
 * A file that a listing has, and the cache has not, is read first and judged afterwards, which
 * saves one of the two fstat calls: nothing can have moved meanwhile if its last change is older
 * than the clock was before. If it is not, or the file is large, it is done again as above. (Should
 * something else be there by then, pread does no harm: it fails on what cannot be sought in.)
 *
 * A path of several components is only ever opened beneath the root, step by step without links:
 * that lstat by the whole path may have followed some does no harm, since it only decides what is
 * tried.
 */
#include "accelerator/hasher.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "runtime/error.h"
#include "runtime/os.h"
#include "sources/path.h"

enum {
    BUFFER_BYTES = 256 * 1024,
    LARGE_BYTES = 1024 * 1024, /* 0.1 ms and more: four times what it takes to wake a thread */
    LINK_BYTES = PATH_MAX,
};
#define CLOCK_STEP_NS INT64_C(1000000000)

int qa_hasher_init(struct qa_hasher *h, const struct qa_indexer_options *options)
{
    *h = (struct qa_hasher){.options = options, .buffer = qr_malloc(BUFFER_BYTES)};
    if (!h->buffer)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory to read files");
    return qa_content_hash_create(options->hash, &h->hash);
}

void qa_hasher_finish(struct qa_hasher *h)
{
    qa_content_hash_destroy(h->hash);
    qr_free(h->buffer);
}

int qa_is_stopped(const volatile int *stop)
{
    return stop && __atomic_load_n(stop, __ATOMIC_RELAXED);
}

enum qa_found qa_found_after(int error)
{
    switch (error) {
    case ENOENT:
    case ENOTDIR:
    case ELOOP:        /* a symbolic link where there was none */
    case ENAMETOOLONG: /* no file can have such a name */
    case ENXIO:        /* a socket, or a device that is not there */
    case ENODEV:
        return QA_FOUND_NOTHING;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case EAGAIN: /* somebody has a lease on it */
    case EINTR:
    case EBUSY:
    case ESTALE:
        return QA_FOUND_UNSTABLE;
    default:
        return QA_FOUND_UNREADABLE;
    }
}

/* --- what a stat says --- */

static int64_t clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return qs_ns(t);
}

static int is_racy(const struct stat *st, int64_t now)
{
    int64_t mtime = qs_ns(st->st_mtim); /* one to come is nothing special, anybody can set it */
    return now - qs_ns(st->st_ctim) < QA_RACY_NS || (mtime <= now && now - mtime < QA_RACY_NS);
}

static int is_same(const struct qa_look *look, const struct stat *st)
{
    const struct qa_file *known = &look->known;
    int is_link = S_ISLNK(st->st_mode);
    return look->is_known && known->state != QALLOW_FILE_UNREADABLE &&
           known->kind == (is_link ? QALLOW_FILE_SYMLINK : QALLOW_FILE_REGULAR) &&
           known->inode == st->st_ino && known->device == st->st_dev &&
           known->ctime_ns == qs_ns(st->st_ctim) && known->mtime_ns == qs_ns(st->st_mtim) &&
           known->mode == (st->st_mode & 07777) &&
           (is_link || known->size == (uint64_t)st->st_size);
}

/* `now` was the time before it was read. */
static void describe(struct qa_look *look, const struct stat *st, int64_t now)
{
    int racy = is_racy(st, now);
    /* A ctime to come is of a clock that was set back: who knows for how long. */
    look->is_young = racy && qs_ns(st->st_ctim) - now < CLOCK_STEP_NS;
    look->links = (uint32_t)st->st_nlink;
    look->file = (struct qa_file){
        .device = st->st_dev,
        .inode = st->st_ino,
        .size = (uint64_t)st->st_size,
        .mtime_ns = qs_ns(st->st_mtim),
        .ctime_ns = racy ? QA_RACY : qs_ns(st->st_ctim),
        .mode = st->st_mode & 07777,
        .kind = S_ISLNK(st->st_mode) ? QALLOW_FILE_SYMLINK : QALLOW_FILE_REGULAR,
        .state = QALLOW_FILE_CURRENT,
    };
}

static int is_too_large(const struct qa_hasher *h, const struct stat *st)
{
    uint64_t most = h->options->max_file_size;
    return most && S_ISREG(st->st_mode) && (uint64_t)st->st_size > most;
}

/* `st` is NULL if it is not known. */
static int is_admitted(const struct qa_hasher *h, const struct qa_look *look, const struct stat *st)
{
    const struct qa_indexer_options *o = h->options;
    return (!o->admits || o->admits(o->context, look->path, 0)) && !(st && is_too_large(h, st));
}

/* Is it to be looked at no further? */
static int is_settled(struct qa_hasher *h, struct qa_look *look, const struct stat *st)
{
    if (!is_admitted(h, look, st)) {
        look->found = QA_FOUND_NOTHING;
        return 1;
    }
    if (!is_same(look, st))
        return 0;
    look->links = (uint32_t)st->st_nlink;
    look->file = look->known;
    look->file.state = QALLOW_FILE_CURRENT;
    /* If it was pending that was for nothing, and has to be put right. */
    look->found = look->known.state == QALLOW_FILE_CURRENT ? QA_FOUND_SAME : QA_FOUND_FILE;
    return 1;
}

/* It cannot be read. `st` is NULL if not even that is known. */
static void cannot(struct qa_hasher *h, struct qa_look *look, const struct stat *st, int error)
{
    look->found = (uint8_t)qa_found_after(error);
    if (look->found != QA_FOUND_UNREADABLE)
        return;
    if (!is_admitted(h, look, st)) {
        look->found = QA_FOUND_NOTHING;
        return;
    }
    look->error = error;
    if (st)
        describe(look, st, clock_ns());
    else if (look->is_known)
        look->file = look->known;
    else if (look->type == DT_REG || look->type == DT_LNK)
        look->file = (struct qa_file){.kind = look->type == DT_LNK ? QALLOW_FILE_SYMLINK
                                                                   : QALLOW_FILE_REGULAR};
    else
        look->found = QA_FOUND_NOTHING; /* who knows */
    look->file.state = QALLOW_FILE_UNREADABLE;
    look->file.ctime_ns = QA_RACY;
    memset(look->file.hash, 0, sizeof look->file.hash);
}

/* --- content --- */

/* Reads n bytes at an offset. 0; 1: they are not there; -errno. */
static int read_at(int fd, uint8_t *to, size_t n, uint64_t offset)
{
    while (n) {
        ssize_t got = pread(fd, to, n, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? -errno : 1;
        to += got;
        n -= (size_t)got;
        offset += (uint64_t)got;
    }
    return 0;
}

/* The result of reading: as read_at(), or an error of Qallow's, which *rc gets. */
static int read_at_once(struct qa_hasher *h, struct qa_look *look, int fd, uint8_t *to, int *rc)
{
    size_t size = (size_t)look->file.size;
    int got = read_at(fd, to, size, 0);
    if (got == 0)
        *rc = qa_content_hash_of(h->hash, to, size, look->file.hash);
    return got;
}

static int read_in_pieces(struct qa_hasher *h, struct qa_look *look, int fd, int *rc)
{
    uint64_t size = look->file.size;
    int got = 0;
    *rc = qa_content_hash_begin(h->hash);
    for (uint64_t at = 0; at < size && got == 0 && *rc == 0;) {
        size_t n = size - at < BUFFER_BYTES ? (size_t)(size - at) : BUFFER_BYTES;
        if (qa_is_stopped(h->stop)) {
            look->found = QA_FOUND_STOPPED;
            return 0;
        }
        got = read_at(fd, h->buffer, n, at);
        if (got == 0)
            *rc = qa_content_hash_add(h->hash, h->buffer, n);
        at += n;
    }
    if (got == 0 && *rc == 0)
        *rc = qa_content_hash_end(h->hash, look->file.hash);
    return got;
}

static int has_moved(int fd, const struct stat *before)
{
    struct stat now;
    return fstat(fd, &now) < 0 || now.st_size != before->st_size ||
           qs_ns(now.st_mtim) != qs_ns(before->st_mtim) ||
           qs_ns(now.st_ctim) != qs_ns(before->st_ctim);
}

static int read_file(struct qa_hasher *h, struct qa_look *look, int fd, const struct stat *st)
{
    uint64_t size = (uint64_t)st->st_size;
    int rc = 0, got;
    describe(look, st, clock_ns());
    look->found = QA_FOUND_FILE;
    if (h->only_old && look->is_young) {
        look->found = QA_FOUND_YOUNG;
        return 0;
    }
    if (size >= LARGE_BYTES && h->on_large)
        h->on_large(h->context);
    if (h->options->content_max && size <= h->options->content_max)
        look->content = qr_malloc(size ? (size_t)size : 1); /* without memory: no bytes kept */
    if (look->content)
        got = read_at_once(h, look, fd, look->content, &rc);
    else if (size <= BUFFER_BYTES)
        got = read_at_once(h, look, fd, h->buffer, &rc);
    else
        got = read_in_pieces(h, look, fd, &rc);
    if (rc < 0 || look->found == QA_FOUND_STOPPED)
        return rc;
    if (got < 0) {
        cannot(h, look, st, -got);
    } else if (got > 0 || has_moved(fd, st)) {
        look->found = QA_FOUND_UNSTABLE;
    } else {
        h->read_files++;
        h->read_bytes += size;
    }
    return 0;
}

/* --- opening --- */

static int is_nested(const struct qa_look *look) { return strchr(look->name, '/') != NULL; }

static int open_it(const struct qa_look *look, int directory_fd, int flags)
{
    if (is_nested(look))
        return qs_open_beneath(directory_fd, look->name, flags, 0);
    return openat(directory_fd, look->name, flags | O_NOFOLLOW | O_CLOEXEC);
}

static int lstat_it(const struct qa_look *look, int directory_fd, struct stat *st)
{
    int rc = fstatat(directory_fd, look->name, st, AT_SYMLINK_NOFOLLOW);
    if (rc < 0 && errno == ENAMETOOLONG && is_nested(look))
        rc = qs_stat_beneath(directory_fd, look->name, st);
    return rc;
}

/* A symbolic link: its content is its target. */
static int look_at_link(struct qa_hasher *h, int directory_fd, struct qa_look *look)
{
    struct stat st;
    int rc = 0, fd = open_it(look, directory_fd, O_PATH);
    if (fd < 0 || fstat(fd, &st) < 0) {
        cannot(h, look, NULL, errno);
    } else if (!S_ISLNK(st.st_mode)) {
        look->found = QA_FOUND_UNSTABLE;
    } else if (!is_settled(h, look, &st)) {
        describe(look, &st, clock_ns());
        ssize_t n = readlinkat(fd, "", (char *)h->buffer, LINK_BYTES);
        look->found = QA_FOUND_FILE;
        if (n < 0) {
            cannot(h, look, &st, errno);
        } else {
            look->file.size = (uint64_t)n;
            rc = qa_content_hash_of(h->hash, h->buffer, (size_t)n, look->file.hash);
            if ((uint64_t)n <= h->options->content_max &&
                (look->content = qr_malloc((size_t)n + 1)))
                memcpy(look->content, h->buffer, (size_t)n);
            h->read_files++;
            h->read_bytes += (uint64_t)n;
        }
    }
    if (fd >= 0)
        close(fd);
    return rc;
}

/* By what the system says without opening. 1: that is not enough. */
static int look_from_outside(struct qa_hasher *h, int directory_fd, struct qa_look *look, int *rc)
{
    struct stat st;
    *rc = 0;
    if (lstat_it(look, directory_fd, &st) < 0) {
        cannot(h, look, NULL, errno);
        return 0;
    }
    if (S_ISLNK(st.st_mode)) {
        *rc = look_at_link(h, directory_fd, look);
        return 0;
    }
    if (S_ISREG(st.st_mode)) /* a longer path may have led elsewhere */
        return is_nested(look) || !is_settled(h, look, &st);
    look->found = S_ISDIR(st.st_mode) ? QA_FOUND_DIRECTORY : QA_FOUND_NOTHING;
    return 0;
}

/* What it is that cannot be opened. */
static int look_at_closed(struct qa_hasher *h, int directory_fd, struct qa_look *look, int error)
{
    struct stat st;
    int fd = -1;
    if (error == ELOOP)
        return look_at_link(h, directory_fd, look);
    if (qa_found_after(error) == QA_FOUND_UNREADABLE)
        fd = open_it(look, directory_fd, O_PATH);
    if (fd < 0 || fstat(fd, &st) < 0)
        cannot(h, look, NULL, error);
    else if (S_ISREG(st.st_mode))
        cannot(h, look, &st, error);
    else
        look->found = S_ISDIR(st.st_mode) ? QA_FOUND_DIRECTORY : QA_FOUND_NOTHING;
    if (fd >= 0)
        close(fd);
    return 0;
}

static int open_to_read(struct qa_hasher *h, int directory_fd, const struct qa_look *look)
{
    const int flags = O_RDONLY | O_NONBLOCK | O_NOCTTY;
    int fd = open_it(look, directory_fd, h->touches_atime ? flags : flags | O_NOATIME);
    if (fd < 0 && errno == EPERM && !h->touches_atime) { /* only the owner may ask for that */
        fd = open_it(look, directory_fd, flags);
        h->touches_atime = fd >= 0;
    }
    return fd;
}

/* Takes what was read from `fd`, all of it in the buffer, if it cannot have changed since `before`.
 * 0: it may have, or there is more. */
static int take_read(struct qa_hasher *h, struct qa_look *look, int fd, size_t n, int64_t before)
{
    struct stat st;
    if (n >= BUFFER_BYTES || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
        (uint64_t)st.st_size != n || is_racy(&st, before) || is_too_large(h, &st))
        return 0;
    describe(look, &st, before);
    if (h->options->content_max && n <= h->options->content_max &&
        (look->content = qr_malloc(n ? n : 1)) != NULL)
        memcpy(look->content, h->buffer, n);
    if (qa_content_hash_of(h->hash, h->buffer, n, look->file.hash) < 0) {
        qr_free(look->content);
        look->content = NULL;
        return 0;
    }
    look->found = QA_FOUND_FILE;
    h->read_files++;
    h->read_bytes += n;
    return 1;
}

static int look_inside(struct qa_hasher *h, int directory_fd, struct qa_look *look)
{
    struct stat st;
    int is_new = !look->is_known && look->type == DT_REG && !h->only_old;
    if (is_new && !is_admitted(h, look, NULL))
        return 0;
    int rc = 0, fd = open_to_read(h, directory_fd, look);
    if (fd < 0)
        return look_at_closed(h, directory_fd, look, errno);
    if (is_new) {
        int64_t before = clock_ns();
        ssize_t n = pread(fd, h->buffer, BUFFER_BYTES, 0);
        if (n >= 0 && take_read(h, look, fd, (size_t)n, before)) {
            close(fd);
            return 0;
        }
    }
    if (fstat(fd, &st) < 0)
        cannot(h, look, NULL, errno);
    else if (!S_ISREG(st.st_mode))
        look->found = S_ISDIR(st.st_mode) ? QA_FOUND_DIRECTORY : QA_FOUND_NOTHING;
    else if (!is_settled(h, look, &st))
        rc = read_file(h, look, fd, &st);
    close(fd);
    return rc;
}

int qa_hasher_look(struct qa_hasher *h, int directory_fd, struct qa_look *look)
{
    int rc;
    look->error = 0;
    look->links = 0;
    look->is_young = 0;
    look->content = NULL;
    look->found = QA_FOUND_NOTHING;
    if (look->type != DT_REG && look->type != DT_LNK && look->type != DT_UNKNOWN)
        return 0; /* a device, a FIFO, a socket */
    int is_file = look->is_known ? look->known.kind == QALLOW_FILE_REGULAR &&
                                       look->type == DT_UNKNOWN /* somebody says it changed */
                                 : look->type == DT_REG;
    if (!is_file && !look_from_outside(h, directory_fd, look, &rc))
        return rc;
    return look_inside(h, directory_fd, look);
}
