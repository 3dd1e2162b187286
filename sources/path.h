/* SPDX-License-Identifier: Apache-2.0 */
/* Reaching names below a root without following a symlink or leaving the root. */
#ifndef QS_PATH_H
#define QS_PATH_H

#include <dirent.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

/* Directories nested deeper than this are neither recorded nor restored. */
#define QS_DEPTH_MAX 2000

/* Opens `path` (relative, "" or "." is the root itself) below root_fd. No component may be a
 * symlink, except the last one with O_PATH; O_NOFOLLOW and O_CLOEXEC are implied. The descriptor,
 * or
 * -1 with errno. */
int qs_open_beneath(int root_fd, const char *path, int flags, mode_t mode);
/* lstat of `path` below root_fd. 0, or -1 with errno. */
int qs_stat_beneath(int root_fd, const char *path, struct stat *st);

/* A name that may stand in a directory: not empty, ".", "..", without '/' and NUL, <= 255 bytes. */
int qs_name_is_valid(const void *name, size_t length);

/* "directory/name", or "name" if directory is "". From qr_malloc; NULL without memory. */
char *qs_path_join(const char *directory, const char *name);
/* Reads `prefix` and the decimal number behind it, and moves *text behind both. 1, or 0 if that is
 * not what stands there, or the number does not fit. */
int qs_parse_field(const char **text, const char *prefix, uint64_t *value);
/* Writes all bytes at an offset. 0, or -1 with errno. */
int qs_write_all(int fd, const void *bytes, size_t length, uint64_t offset);
/* Removes `name` in directory_fd and everything below it, never following a symlink. 0, or -1 with
 * errno; a name that does not exist is fine. */
int qs_remove_tree(int directory_fd, const char *name);

static inline int64_t qs_ns(struct timespec t)
{
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
static inline struct timespec qs_timespec(int64_t ns)
{
    struct timespec t = {ns / 1000000000, ns % 1000000000};
    if (t.tv_nsec < 0) {
        t.tv_nsec += 1000000000;
        t.tv_sec--;
    }
    return t;
}

/* The entries of a directory, read at once. Zero-initialise. */
struct qs_names {
    char *bytes;       /* names, each with its NUL; one byte of d_type before each */
    size_t length, capacity, count;
};
/* Reads the names in the directory `fd` (from its start), "." and ".." left out. 0, NO_MEMORY, or
 * -1 with errno. The descriptor stays open and is rewound. */
int qs_names_read(struct qs_names *names, int fd);
void qs_names_finish(struct qs_names *names);

/* A step of a restore failed at `path`, with errno `error`. That what was there a moment ago is
 * gone now, or something else (a symlink, say), is BUSY: somebody else works in there. */
int qs_restore_failed(int error, const char *path);

#endif
