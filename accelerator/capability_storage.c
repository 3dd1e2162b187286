/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Probes of where something is kept: the directory of the cache's memory and that of the log. Each
 * makes a file without a name there and does with it what will be done with the real one.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "accelerator/cache_segment.h"
#include "accelerator/capability_internal.h"
#include "runtime/error.h"
#include "runtime/os.h"
#include "sources/path.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

static const char block[64 << 10] = "qallow";

/* A file that is gone when it is closed. The descriptor, or -1 with errno. */
static int temporary_file(const char *directory)
{
    int fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
        return fd;
    char *path = qs_path_join(directory, ".qallow-probe-XXXXXX");
    if (!path) {
        errno = ENOMEM;
        return -1;
    }
    fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0)
        unlink(path);
    qr_free(path);
    return fd;
}

static const struct qa_file_system *file_system_at(const char *directory)
{
    struct statfs fs;
    return statfs(directory, &fs) < 0 ? NULL : qa_file_system_of((unsigned long)fs.f_type);
}

/* --- the cache's memory --- */

/* What to do about a directory that cannot be used. */
static const char *cache_remedy(const char *directory, int full)
{
    if (strcmp(directory, "/dev/shm") != 0)
        return full ? "make room there, or set QALLOW_CACHE_DIR to a directory with more"
                    : "set QALLOW_CACHE_DIR to a directory where you may write";
    return full ? "mount -o remount,size=1G /dev/shm (containers: --shm-size 1g), or set "
                  "QALLOW_CACHE_DIR"
                : "mount -t tmpfs -o mode=1777 tmpfs /dev/shm, or set QALLOW_CACHE_DIR to a "
                  "directory where you may write";
}

static void memory_failed(struct qa_capability *found, int result, const char *directory)
{
    int full = result == QALLOW_E_NO_SPACE || result == QALLOW_E_NO_MEMORY;
    qa_found(found, QA_FAIL, full ? QALLOW_E_LIMIT : QALLOW_E_UNAVAILABLE,
             result == QALLOW_E_NO_MEMORY ? "raise it with: ulimit -v unlimited"
                                          : cache_remedy(directory, full),
             "no memory for a cache in %s: %s", qr_quotez(directory), qallow_error_detail());
}

/* As the cache does it: bytes are reserved, and mapped with room to grow; what is written to the
 * map, readers find in the file. */
static int try_memory(int fd)
{
    char seen[sizeof "qallow"] = "";
    int result = qa_segment_reserve(fd, 0, sizeof block);
    void *memory = result == 0 ? qa_segment_map(fd, 1) : NULL;
    if (!memory)
        return result < 0 ? result : QALLOW_E_NO_MEMORY;
    memcpy(memory, block, sizeof block);
    ssize_t n = pread(fd, seen, sizeof seen, 0);
    qa_segment_unmap(memory);
    if (n != sizeof seen || memcmp(seen, block, sizeof seen) != 0)
        return qr_fail(QALLOW_E_IO, "what is written to memory is not in the file");
    return 0;
}

/* It works; how well? */
static void judge_memory(const char *directory, int fd, uint64_t needed,
                         struct qa_capability *found)
{
    char has[QA_SIZE_TEXT], wants[QA_SIZE_TEXT];
    const struct qa_file_system *fs = file_system_at(directory);
    uint64_t room = qa_segment_room(fd);
    struct stat st = {.st_mode = 0};
    if (room < needed)
        qa_found(found, QA_WARN, QALLOW_E_LIMIT, cache_remedy(directory, 1),
                 "a cache may take %s in %s (half of what is free), and this tree's needs about "
                 "%s: what does not fit will be missing from it",
                 qa_size_text(room, has), qr_quotez(directory), qa_size_text(needed, wants));
    else if (stat(directory, &st) == 0 && st.st_mode & S_IWOTH && !(st.st_mode & S_ISVTX))
        qa_found(found, QA_WARN, 0, "chmod +t the directory",
                 "everybody may remove files of others in %s, the cache too", qr_quotez(directory));
    else if (fs && fs->traits & QA_FS_REMOTE)
        qa_found(found, QA_WARN, 0, "set QALLOW_CACHE_DIR to a local directory",
                 "%s is on %s, where readers may see old memory", qr_quotez(directory), fs->name);
    else if (!fs || !(fs->traits & QA_FS_VOLATILE))
        qa_found(found, QA_WARN, 0, "mount a tmpfs there, or set QALLOW_CACHE_DIR to one",
                 "%s is on %s, not in memory: the cache works, and is written to the disk now and "
                 "then",
                 qr_quotez(directory), fs ? fs->name : "an unknown file system");
    else
        qa_found(found, QA_PASS, 0, NULL, "a cache may take %s in %s", qa_size_text(room, has),
                 qr_quotez(directory));
}

void qa_probe_shared_memory(const char *directory, uint64_t needed, struct qa_capability *found)
{
    int fd = temporary_file(directory);
    int result = fd < 0 ? qr_fail_errno(errno, "no file can be made") : try_memory(fd);
    if (result < 0)
        memory_failed(found, result, directory);
    else
        judge_memory(directory, fd, needed, found);
    if (fd >= 0)
        close(fd);
}

/* The directories in which the cache is looked for, the best first. */
struct places {
    char paths[QA_SEGMENT_DIRECTORIES][QA_SEGMENT_PATH];
    size_t count;
};

static void find_places(struct places *places)
{
    places->count = 0;
    for (unsigned i = 0; i < QA_SEGMENT_DIRECTORIES; i++) {
        char *path = places->paths[places->count];
        char *name = qa_segment_name(i, "/", path) ? strrchr(path, '/') : NULL;
        if (!name)
            continue;
        *name = '\0';
        places->count++;
    }
}

void qa_probe_cache(uint64_t needed, struct qa_capability *found, int *elsewhere)
{
    const char *chosen = getenv("QALLOW_CACHE_DIR");
    struct qa_capability next;
    struct places places;
    find_places(&places);
    *elsewhere = 0;
    qa_probe_shared_memory(places.paths[0], needed, found);
    const struct qa_capability first = *found;
    for (size_t i = 1; i < places.count && found->verdict == QA_FAIL; i++) {
        qa_probe_shared_memory(places.paths[i], needed, &next);
        if (next.verdict == QA_FAIL)
            continue;
        *elsewhere = 1;
        qa_found(found, QA_WARN, first.result, first.remedy, "%s; it is kept in %s", first.text,
                 qr_quotez(places.paths[i]));
    }
    if (found->verdict == QA_PASS && chosen && *chosen && *chosen != '/')
        qa_found(found, QA_WARN, QALLOW_E_UNAVAILABLE, "set it to an absolute path",
                 "QALLOW_CACHE_DIR=%s is not used; the cache is kept in %s", qr_quotez(chosen),
                 qr_quotez(places.paths[0]));
}

/* --- the log's directory --- */

/* Bytes that this user can still write there. 0, or -1 with errno. */
static int free_space(const char *directory, uint64_t *bytes)
{
    struct statvfs fs;
    if (statvfs(directory, &fs) < 0)
        return -1;
    *bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    return 0;
}

/* FAIL, with what the log's own writing would return. */
static void log_failed(struct qa_capability *found, int err, const char *directory)
{
    static const char elsewhere[] = "keep the log where you may write: --log FILE";
    int result = qr_fail_errno(err, "%s", qr_quotez(directory));
    qa_found(found, QA_FAIL, result, result == QALLOW_E_NO_SPACE ? "make room" : elsewhere,
             "no file can be written in %s: %s", qr_quotez(directory), strerror(err));
}

/* A temporary file with a block in it. The descriptor, or -1 with errno. */
static int written_file(const char *directory)
{
    int fd = temporary_file(directory);
    if (fd >= 0 && qs_write_all(fd, block, sizeof block, 0) < 0) {
        int err = errno;
        close(fd);
        errno = err;
        fd = -1;
    }
    return fd;
}

/* For probes behind qa_probe_log_write(), which says why. */
static void not_tried(struct qa_capability *found)
{
    qa_found(found, QA_WARN, 0, NULL, "not tried: no file can be written");
}

void qa_probe_log_file_system(const struct qa_inotify *inotify, const char *directory,
                              struct qa_capability *found)
{
    unsigned long type = 0;
    int fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int err = fd < 0 ? -errno : inotify->file_system(inotify->context, fd, &type);
    if (fd >= 0)
        close(fd);
    if (err < 0) {
        int result = qr_fail_errno(-err, "%s", qr_quotez(directory));
        qa_found(found, QA_FAIL, result,
                 "make the directory, or keep the log elsewhere: --log FILE", "%s: %s",
                 qr_quotez(directory), strerror(-err));
        return;
    }
    const struct qa_file_system *known = qa_file_system_of(type);
    unsigned traits = known ? known->traits : 0;
    if (!known)
        qa_found(found, QA_WARN, 0, "see that it honours fsync",
                 "%s is on a file system not known to qallow (type %#lx)", qr_quotez(directory),
                 type);
    else if (traits & QA_FS_REMOTE)
        qa_found(found, QA_WARN, QALLOW_E_UNAVAILABLE, "keep the log on a local disk: --log FILE",
                 "%s is on %s: what is durable, and that nobody else writes the log, is up to the "
                 "server",
                 qr_quotez(directory), known->name);
    else if (traits & QA_FS_VOLATILE)
        qa_found(found, QA_WARN, 0, "keep the log on a disk: --log FILE",
                 "%s is on %s: the log is lost when the machine stops", qr_quotez(directory),
                 known->name);
    else
        qa_found(found, QA_PASS, 0, NULL, "%s is on %s", qr_quotez(directory), known->name);
}

void qa_probe_log_space(const char *directory, struct qa_capability *found)
{
    char size[QA_SIZE_TEXT];
    uint64_t available;
    if (free_space(directory, &available) < 0)
        log_failed(found, errno, directory);
    else if (available == 0)
        log_failed(found, ENOSPC, directory);
    else
        qa_found(found, available < GIB ? QA_WARN : QA_PASS, 0,
                 "make room, or limit the log with --keep-bytes", "%s free%s",
                 qa_size_text(available, size),
                 available < 64 * MIB ? ": recording ends when it is full" : "");
}

void qa_probe_log_write(const char *directory, struct qa_capability *found)
{
    int fd = written_file(directory);
    if (fd < 0) {
        log_failed(found, errno, directory);
        return;
    }
    close(fd);
    qa_found(found, QA_PASS, 0, NULL, "files can be written");
}

void qa_probe_log_sync(const char *directory, struct qa_capability *found)
{
    int fd = written_file(directory);
    if (fd < 0)
        not_tried(found);
    else if (fdatasync(fd) < 0)
        qa_found(found, QA_FAIL, QALLOW_E_UNAVAILABLE,
                 "keep the log on another file system: "
                 "--log FILE",
                 "fdatasync: %s: nothing can be made durable", strerror(errno));
    else
        qa_found(found, QA_PASS, 0, NULL, "fdatasync works");
    if (fd >= 0)
        close(fd);
}

void qa_probe_log_punch(const char *directory, struct qa_capability *found)
{
    int fd = written_file(directory);
    if (fd < 0)
        not_tried(found);
    else if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, sizeof block) < 0)
        qa_found(found, QA_WARN, 0,
                 "keep the log on ext4, xfs, btrfs or tmpfs, or set no "
                 "--keep-time and --keep-bytes",
                 "%s: dropping old epochs will free no space", strerror(errno));
    else
        qa_found(found, QA_PASS, 0, NULL, "dropping old epochs gives space back");
    if (fd >= 0)
        close(fd);
}
