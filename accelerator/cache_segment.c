/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of a cache, see cache_segment.h.
 *
 * Anybody can make names in /dev/shm, so a file is believed only if it is an ordinary one, ours,
 * and closed to everybody else; a symbolic link is not followed. All bytes of a segment are
 * reserved with posix_fallocate() before their number is published: a full file system is an error
 * here, and never SIGBUS for one who reads. The lock is one of the open file (OFD): it ends with
 * the process however that ends, and can be asked about without being taken.
 */
#include "accelerator/cache_segment.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "runtime/error.h"

enum { HUGE_PAGE = 2 << 20 };
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1; an older one says that it does not know it */
#endif

static const char *place(unsigned directory)
{
    const char *name = NULL;
    if (directory == 0)
        name = getenv("QALLOW_CACHE_DIR");
    else if (directory == 1)
        return "/dev/shm";
    else if (directory == 2)
        name = getenv("XDG_RUNTIME_DIR");
    return name && name[0] == '/' ? name : NULL;
}

int qa_segment_name(unsigned directory, const char *root, char path[QA_SEGMENT_PATH])
{
    const char *where = place(directory);
    if (!where)
        return 0;
    /* The longest suffix must fit as well. */
    int length = snprintf(path, QA_SEGMENT_PATH - 16, "%s/qallow-%u-%016llx", where,
                          (unsigned)geteuid(), (unsigned long long)XXH3_64bits(root, strlen(root)));
    return length > 0 && length < QA_SEGMENT_PATH - 16;
}

static void with_suffix(char out[QA_SEGMENT_PATH], const char *path, const char *suffix)
{
    int length = snprintf(out, QA_SEGMENT_PATH, "%s%s", path, suffix);
    qr_assert(length > 0 && length < QA_SEGMENT_PATH);
}

/* 0 if the open file is ours alone, and *size. */
static int check_file(const char *path, int fd, uint64_t *size)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return qr_fail_errno(errno, "%s", qr_quotez(path));
    if (!S_ISREG(st.st_mode))
        return qr_fail(QALLOW_E_PERMISSION, "%s is no ordinary file", qr_quotez(path));
    if (st.st_uid != geteuid())
        return qr_fail(QALLOW_E_PERMISSION, "%s belongs to user %u", qr_quotez(path),
                       (unsigned)st.st_uid);
    if (st.st_mode & 077)
        return qr_fail(QALLOW_E_PERMISSION, "%s is open to others (mode %03o, should be 600)",
                       qr_quotez(path), (unsigned)st.st_mode & 0777);
    if (size)
        *size = (uint64_t)st.st_size;
    return 0;
}

static int checked(const char *path, int fd, uint64_t *size)
{
    int result = check_file(path, fd, size);
    if (result < 0)
        close(fd);
    return result < 0 ? result : fd;
}

int qa_segment_open_file(const char *path, int writable, uint64_t *size)
{
    int fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0)
        return checked(path, fd, size);
    if (errno == ENOENT || errno == ENOTDIR)
        return qr_fail(QALLOW_E_UNAVAILABLE, "%s does not exist", qr_quotez(path));
    if (errno == ELOOP)
        return qr_fail(QALLOW_E_PERMISSION, "%s is a symbolic link", qr_quotez(path));
    return qr_fail_errno(errno, "%s", qr_quotez(path));
}

static int fail_create(int err, const char *path)
{
    if (err == ENOENT || err == ENOTDIR || err == ELOOP || err == ENXIO)
        return qr_fail(QALLOW_E_CANNOT_CREATE, "%s: %s", qr_quotez(path), strerror(err));
    return qr_fail_errno(err, "%s", qr_quotez(path));
}

/* --- the lock --- */

static int fail_busy(const char *path, int fd)
{
    char text[24] = "";
    ssize_t length = pread(fd, text, sizeof text - 1, 0);
    text[length > 0 ? strspn(text, "0123456789") : 0] = '\0';
    return qr_fail(QALLOW_E_BUSY, "process %s keeps the cache %s", *text ? text : "?",
                   qr_quotez(path));
}

static int write_pid(const char *path, int fd)
{
    char text[24];
    int length = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)length, 0) != length)
        return qr_fail_errno(errno, "%s", qr_quotez(path));
    return 0;
}

/* 1 if `fd` is still what the name leads to. */
static int is_current(const char *path, int fd)
{
    struct stat named, opened;
    return fstat(fd, &opened) == 0 && lstat(path, &named) == 0 && named.st_dev == opened.st_dev &&
           named.st_ino == opened.st_ino;
}

static int try_lock(const char *path)
{
    char name[QA_SEGMENT_PATH];
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    with_suffix(name, path, ".lock");
    int fd = open(name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
    if (fd < 0)
        return fail_create(errno, name);
    int result = check_file(name, fd, NULL);
    if (result == 0 && fcntl(fd, F_OFD_SETLK, &lock) < 0)
        result = errno == EAGAIN || errno == EACCES
                     ? fail_busy(path, fd)
                     : qr_fail_errno(errno, "cannot lock %s", qr_quotez(name));
    if (result == 0 && !is_current(name, fd))
        result = QALLOW_E_STATE; /* somebody tidied up in between */
    if (result == 0)
        result = write_pid(name, fd);
    if (result < 0)
        close(fd);
    return result < 0 ? result : fd;
}

int qa_segment_lock(const char *path)
{
    for (int tries = 0; tries < 100; tries++) {
        int result = try_lock(path);
        if (result != QALLOW_E_STATE)
            return result;
    }
    return qr_fail(QALLOW_E_IO, "%s.lock is removed again and again", qr_quotez(path));
}

int qa_segment_is_locked(const char *path, int *fd)
{
    char name[QA_SEGMENT_PATH];
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    with_suffix(name, path, ".lock");
    if (*fd < 0)
        *fd = open(name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0 && errno == ENOENT)
        return 0;
    if (*fd < 0 || fcntl(*fd, F_OFD_GETLK, &lock) < 0) {
        qr_fail_errno(errno, "cannot find out whether %s is locked", qr_quotez(name));
        return QALLOW_E_IO;
    }
    return lock.l_type != F_UNLCK;
}

/* --- making and growing --- */

int qa_segment_reserve(int fd, uint64_t from, uint64_t to)
{
    int err;
    do
        err = posix_fallocate(fd, (off_t)from, (off_t)(to - from));
    while (err == EINTR);
    if (err == ENOMEM) /* the memory of the group of processes is used up */
        err = ENOSPC;
    return err ? qr_fail_errno(err, "cannot reserve %llu bytes for the cache",
                               (unsigned long long)(to - from))
               : 0;
}

static int create_file(const char *name, uint64_t size)
{
    int fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return fail_create(errno, name);
    int result = fchmod(fd, 0600) < 0 ? qr_fail_errno(errno, "%s", qr_quotez(name))
                                      : qa_segment_reserve(fd, 0, size);
    if (result == 0)
        return fd;
    close(fd);
    unlink(name);
    return result;
}

int qa_segment_create(const char *path, uint64_t size)
{
    char name[QA_SEGMENT_PATH];
    with_suffix(name, path, ".new");
    unlink(name); /* of a keeper that was killed; we have the lock */
    return create_file(name, size);
}

int qa_segment_install(const char *path)
{
    char name[QA_SEGMENT_PATH];
    with_suffix(name, path, ".new");
    if (rename(name, path) < 0) {
        int err = errno;
        unlink(name);
        return fail_create(err, path);
    }
    return 0;
}

uint64_t qa_segment_room(int fd)
{
    struct statvfs fs;
    uint64_t free_bytes;
    if (fstatvfs(fd, &fs) < 0 ||
        __builtin_mul_overflow((uint64_t)fs.f_bavail, (uint64_t)fs.f_frsize, &free_bytes))
        return QA_MAP_BYTES;
    return free_bytes / 2;
}

/* At a multiple of HUGE_PAGE, so that the system can map the whole of one at once. */
static void *map_aligned(int fd, int protection)
{
    char *place = mmap(NULL, QA_MAP_BYTES + HUGE_PAGE, PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (place == MAP_FAILED)
        return MAP_FAILED;
    size_t before = -(uintptr_t)place & (HUGE_PAGE - 1);
    void *base = mmap(place + before, QA_MAP_BYTES, protection,
                      MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd, 0);
    int err = errno;
    if (base == MAP_FAILED) {
        munmap(place, QA_MAP_BYTES + HUGE_PAGE);
    } else {
        if (before)
            munmap(place, before);
        munmap(place + before + QA_MAP_BYTES, HUGE_PAGE - before);
    }
    errno = err;
    return base;
}

void *qa_segment_map(int fd, int writable)
{
    void *base = map_aligned(fd, PROT_READ | (writable ? PROT_WRITE : 0));
    if (base != MAP_FAILED)
        return base;
    qr_fail(QALLOW_E_NO_MEMORY, "cannot map %llu GiB of address space for the cache: %s",
            (unsigned long long)(QA_MAP_BYTES >> 30), strerror(errno));
    return NULL;
}

uint64_t qa_segment_collapse(void *base, uint64_t from, uint64_t to)
{
    to = to / HUGE_PAGE * HUGE_PAGE;
    if (from < to)
        madvise((char *)base + from, to - from, MADV_COLLAPSE);
    return from < to ? to : from;
}

void qa_segment_unmap(const void *base)
{
    if (base)
        munmap((void *)(uintptr_t)base, QA_MAP_BYTES);
}

/* --- the readers' counters --- */

static int open_readers(const char *path, int create)
{
    char name[QA_SEGMENT_PATH];
    uint64_t size = 0;
    with_suffix(name, path, ".readers");
    int fd = qa_segment_open_file(name, 1, &size);
    if (fd >= 0 && size >= sizeof(struct qa_readers))
        return fd;
    if (fd >= 0)
        close(fd);
    if (!create)
        return -1;
    unlink(name);
    return create_file(name, sizeof(struct qa_readers));
}

struct qa_readers *qa_segment_readers(const char *path, int create)
{
    int fd = open_readers(path, create);
    if (fd < 0)
        return NULL;
    struct qa_readers *readers =
        mmap(NULL, sizeof *readers, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (readers == MAP_FAILED)
        return NULL;
    if (create) {
        memcpy(readers->magic, "QALLOWRD", 8);
        readers->version = QA_CACHE_VERSION;
        readers->shards = QA_SHARDS;
    }
    return readers;
}

void qa_segment_readers_close(struct qa_readers *readers)
{
    if (readers)
        munmap(readers, sizeof *readers);
}

/* --- the system --- */

void qa_segment_wake(_Atomic uint32_t *futex)
{
    atomic_fetch_add_explicit(futex, 1, memory_order_acq_rel);
    syscall(SYS_futex, (void *)futex, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

int qa_segment_sleep(const _Atomic uint32_t *futex, uint32_t value, uint64_t timeout_ns)
{
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / 1000000000),
                               .tv_nsec = (long)(timeout_ns % 1000000000)};
    return syscall(SYS_futex, (const void *)futex, FUTEX_WAIT, value, &timeout, NULL, 0) < 0
               ? -errno
               : 0;
}

void qa_segment_boot_id(uint8_t id[16])
{
    char text[64] = "";
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? 0 : read(fd, text, sizeof text);
    if (fd >= 0)
        close(fd);
    XXH128_hash_t sum = XXH3_128bits(text, length > 0 ? (size_t)length : 0);
    memset(id, 0, 16);
    if (length > 0)
        memcpy(id, &sum, 16);
}
