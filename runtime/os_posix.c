/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operating system behind runtime/os.h: a thin shell over Linux system calls.
 *
 * Handles are file descriptors. Interrupted calls are repeated, short transfers continued; every
 * other error is handed up as it is, in particular a failed fdatasync, which is never repeated:
 * after it the kernel may have dropped the pages and the next call would report success.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "runtime/os.h"

/* Repeats a system call for as long as a signal interrupts it; gives its result or -errno. */
#define RETRY(call)                                                                                \
    __extension__({                                                                                \
        int64_t retry_result;                                                                      \
        do                                                                                         \
            retry_result = (call);                                                                 \
        while (retry_result < 0 && errno == EINTR);                                                \
        retry_result < 0 ? -(int64_t)errno : retry_result;                                         \
    })

static const int open_flags[] = {
    [QR_OPEN_READ] = O_RDONLY,
    [QR_OPEN_WRITE] = O_RDWR,
    [QR_OPEN_CREATE] = O_RDWR | O_CREAT | O_EXCL,
    [QR_OPEN_REPLACE] = O_RDWR | O_CREAT | O_TRUNC,
    [QR_OPEN_CLAIM] = O_RDWR | O_CREAT | O_NOFOLLOW,
};

static int posix_close(void *context, int file)
{
    /* Linux releases the descriptor also when it reports EINTR; a second close could hit a
     * descriptor that another thread has just been given. */
    return close(file) == 0 || errno == EINTR ? 0 : -errno;
}

/* O_NONBLOCK: opening a FIFO or a device must not wait for anybody. Only regular files are handed
 * out: nothing else has a size and offsets. */
static int open_regular(void *context, const char *path, enum qr_open_mode mode,
                        unsigned permissions)
{
    int flags = open_flags[mode] | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    int file = (int)RETRY(open(path, flags, permissions));
    struct stat status;
    if (file < 0)
        return file;
    int result = fstat(file, &status) < 0   ? -errno
                 : S_ISDIR(status.st_mode)  ? -EISDIR
                 : !S_ISREG(status.st_mode) ? -EINVAL
                                            : file;
    if (result < 0)
        posix_close(context, file);
    return result;
}

/* Open-file-description locks: they belong to the open file, so that other descriptors of the same
 * process do not drop them, and they can be asked for without being taken. */
static int posix_lock(void *context, int file)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int result = (int)RETRY(fcntl(file, F_OFD_SETLK, &lock));
    return result == -EACCES ? -EAGAIN : result;
}

/* 1: whoever had the lock has taken the name away. */
static int claim(void *context, const char *path, int file)
{
    struct stat opened, named;
    int result = posix_lock(context, file);
    if (result < 0)
        return result;
    return fstat(file, &opened) < 0 || lstat(path, &named) < 0 || opened.st_dev != named.st_dev ||
           opened.st_ino != named.st_ino;
}

static int posix_open(void *context, const char *path, enum qr_open_mode mode, unsigned permissions)
{
    for (;;) {
        int file = open_regular(context, path, mode, permissions);
        if (file < 0 || mode != QR_OPEN_CLAIM)
            return file;
        int result = claim(context, path, file);
        if (result == 0)
            return file;
        posix_close(context, file);
        if (result < 0 && result != -EAGAIN)
            unlink(path); /* a file system without locks */
        if (result < 0)
            return result;
    }
}

static int64_t posix_pread(void *context, int file, void *buffer, size_t length, uint64_t offset)
{
    size_t done = 0;
    while (done < length) {
        int64_t n = RETRY(pread(file, (char *)buffer + done, length - done,
                                (off_t)(offset + done)));
        if (n < 0)
            return n;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (int64_t)done;
}

static int64_t posix_pwrite(void *context, int file, const void *buffer, size_t length,
                            uint64_t offset)
{
    size_t done = 0;
    while (done < length) {
        int64_t n = RETRY(pwrite(file, (const char *)buffer + done, length - done,
                                 (off_t)(offset + done)));
        if (n < 0)
            return n;
        if (n == 0) /* not a thing for regular files; do not spin should it happen */
            return -EIO;
        done += (size_t)n;
    }
    return (int64_t)done;
}

static int64_t posix_size(void *context, int file)
{
    struct stat status;
    return fstat(file, &status) < 0 ? -errno : status.st_size;
}

static int posix_truncate(void *context, int file, uint64_t length)
{
    return (int)RETRY(ftruncate(file, (off_t)length));
}

static int posix_sync(void *context, int file) { return (int)RETRY(fdatasync(file)); }

/* Opens the directory that holds `path`. */
static int open_parent(const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t length = slash == path ? 1 : slash ? (size_t)(slash - path) : 0;
    int directory;
    if (!slash)
        return (int)RETRY(open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    char *parent = qr_malloc(length + 1);
    if (!parent)
        return -ENOMEM;
    memcpy(parent, path, length);
    parent[length] = 0;
    directory = (int)RETRY(open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    qr_free(parent);
    return directory;
}

static int posix_sync_directory_of(void *context, const char *path)
{
    int directory = open_parent(path);
    if (directory < 0)
        return directory;
    int result = (int)RETRY(fsync(directory));
    posix_close(context, directory);
    /* Some network and FUSE file systems have no such operation and keep names without it. */
    return result == -EINVAL || result == -EOPNOTSUPP ? 0 : result;
}

static int posix_rename(void *context, const char *from, const char *to)
{
    return rename(from, to) < 0 ? -errno : 0;
}

static int posix_unlink(void *context, const char *path) { return unlink(path) < 0 ? -errno : 0; }

static int posix_is_locked(void *context, int file)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int result = (int)RETRY(fcntl(file, F_OFD_GETLK, &lock));
    return result < 0 ? result : lock.l_type != F_UNLCK;
}

static int posix_punch(void *context, int file, uint64_t offset, uint64_t length)
{
    return (int)RETRY(fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                                (off_t)length));
}

static int posix_read_ahead(void *context, int file, uint64_t offset, uint64_t length)
{
    return -posix_fadvise(file, (off_t)offset, (off_t)length, POSIX_FADV_WILLNEED);
}

static int posix_write_out(void *context, int file, uint64_t offset, uint64_t length)
{
    return (int)RETRY(sync_file_range(file, (off_t)offset, (off_t)length, SYNC_FILE_RANGE_WRITE));
}

static int64_t posix_now_ns(void *context)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static int posix_random(void *context, void *buffer, size_t length)
{
    size_t done = 0;
    while (done < length) {
        int64_t n = RETRY(getrandom((char *)buffer + done, length - done, 0));
        if (n < 0)
            return (int)n;
        done += (size_t)n;
    }
    return 0;
}

const struct qr_os *qr_os_posix(void)
{
    static const struct qr_os table = {
        .version = 1,
        .open = posix_open,
        .close = posix_close,
        .pread = posix_pread,
        .pwrite = posix_pwrite,
        .size = posix_size,
        .truncate = posix_truncate,
        .sync = posix_sync,
        .sync_directory_of = posix_sync_directory_of,
        .rename = posix_rename,
        .unlink = posix_unlink,
        .punch = posix_punch,
        .read_ahead = posix_read_ahead,
        .write_out = posix_write_out,
        .lock = posix_lock,
        .is_locked = posix_is_locked,
        .now_ns = posix_now_ns,
        .random = posix_random,
    };
    return &table;
}
