/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reaching names below a root without following a symlink or leaving the root.
 *
 * openat2 does it in one call. Where the kernel has none (or a sandbox hides it), and for paths
 * longer than PATH_MAX, the same is done by hand: one openat with O_NOFOLLOW for each component.
 */
#include "sources/path.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "qallow/error.h"
#include "runtime/error.h"
#include "runtime/os.h"

static int open_by_hand(int root_fd, const char *path, int flags, mode_t mode)
{
    int at = root_fd, fd = -1;
    for (;;) {
        const char *slash = strchr(path, '/');
        size_t n = slash ? (size_t)(slash - path) : strlen(path);
        char name[NAME_MAX + 1];
        if (n > NAME_MAX || (n == 2 && memcmp(path, "..", 2) == 0)) {
            errno = n > NAME_MAX ? ENAMETOOLONG : EXDEV;
            break;
        }
        memcpy(name, path, n);
        name[n] = 0;
        fd = slash ? openat(at, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
                   : openat(at, n ? name : ".", flags | O_NOFOLLOW | O_CLOEXEC, mode);
        if (fd < 0 || !slash)
            break;
        if (at != root_fd)
            close(at);
        at = fd;
        fd = -1;
        path = slash + 1;
    }
    if (at != root_fd) {
        int saved = errno;
        close(at);
        errno = saved;
    }
    return fd;
}

int qs_open_beneath(int root_fd, const char *path, int flags, mode_t mode)
{
    static atomic_int missing; /* openat2 is not there */
    if (*path == 0)
        path = ".";
    if (!atomic_load_explicit(&missing, memory_order_relaxed)) {
        struct open_how how = {.flags = (uint64_t)(unsigned)(flags | O_NOFOLLOW | O_CLOEXEC),
                               .mode = flags & O_CREAT ? mode : 0,
                               .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
        for (int tries = 0; tries < 32; tries++) {
            long fd = syscall(SYS_openat2, root_fd, path, &how, sizeof how);
            if (fd >= 0)
                return (int)fd;
            if (errno != EAGAIN && errno != EINTR) /* EAGAIN: a rename raced with the look-up */
                break;
        }
        if (errno == ENOSYS)
            atomic_store_explicit(&missing, 1, memory_order_relaxed);
        else if (errno != ENAMETOOLONG && errno != EAGAIN)
            return -1;
    }
    return open_by_hand(root_fd, path, flags, mode);
}

int qs_stat_beneath(int root_fd, const char *path, struct stat *st)
{
    int fd = qs_open_beneath(root_fd, path, O_PATH, 0);
    if (fd < 0)
        return -1;
    int rc = fstat(fd, st);
    close(fd);
    return rc;
}

int qs_name_is_valid(const void *name, size_t length)
{
    const char *p = name;
    return length >= 1 && length <= NAME_MAX && !memchr(p, '/', length) &&
           !memchr(p, 0, length) && !(length == 1 && p[0] == '.') &&
           !(length == 2 && p[0] == '.' && p[1] == '.');
}

char *qs_path_join(const char *directory, const char *name)
{
    size_t d = strlen(directory), n = strlen(name);
    char *path = qr_malloc(d + n + 2);
    if (!path)
        return NULL;
    memcpy(path, directory, d);
    if (d)
        path[d++] = '/';
    memcpy(path + d, name, n + 1);
    return path;
}

int qs_parse_field(const char **text, const char *prefix, uint64_t *value)
{
    size_t n = strlen(prefix);
    if (strncmp(*text, prefix, n) != 0)
        return 0;
    const char *start = *text + n, *at = start;
    for (*value = 0; *at >= '0' && *at <= '9'; at++)
        if (__builtin_mul_overflow(*value, 10, value) ||
            __builtin_add_overflow(*value, (uint64_t)(*at - '0'), value))
            return 0;
    *text = at;
    return at > start;
}

int qs_write_all(int fd, const void *bytes, size_t length, uint64_t offset)
{
    const char *p = bytes;
    while (length) {
        ssize_t n = pwrite(fd, p, length, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            errno = n ? errno : EIO;
            return -1;
        }
        p += n;
        length -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

int qs_names_read(struct qs_names *names, int fd)
{
    struct entry { /* what getdents64 writes */
        uint64_t inode;
        int64_t next;
        unsigned short length;
        unsigned char type;
        char name[];
    };
    union {
        char bytes[32768];
        uint64_t align;
    } buffer;
    names->length = names->count = 0;
    if (lseek(fd, 0, SEEK_SET) < 0)
        return -1;
    for (;;) {
        long got = syscall(SYS_getdents64, fd, buffer.bytes, sizeof buffer.bytes);
        if (got <= 0)
            return got < 0 ? -1 : 0;
        if (names->capacity - names->length < (size_t)got) { /* names are shorter than entries */
            size_t capacity = 2 * (names->length + (size_t)got);
            char *grown = qr_realloc(names->bytes, capacity);
            if (!grown)
                return QALLOW_E_NO_MEMORY;
            names->bytes = grown;
            names->capacity = capacity;
        }
        for (long at = 0; at < got;) {
            const struct entry *entry = (const void *)(buffer.bytes + at);
            const char *name = buffer.bytes + at + offsetof(struct entry, name);
            size_t length = strlen(name);
            at += entry->length;
            if (name[0] == '.' && (length == 1 || (length == 2 && name[1] == '.')))
                continue;
            names->bytes[names->length++] = (char)entry->type;
            memcpy(names->bytes + names->length, name, length + 1);
            names->length += length + 1;
            names->count++;
        }
    }
}

void qs_names_finish(struct qs_names *names)
{
    qr_free(names->bytes);
    *names = (struct qs_names){0};
}

/* Removes what is in a directory, one level a round: moves on to a subdirectory by descending, and
 * comes back by the descriptors it keeps. */
static int remove_entries(int fd, int depth)
{
    struct qs_names names = {0};
    int rc = qs_names_read(&names, fd);
    const char *p = names.bytes;
    for (size_t i = 0; rc == 0 && i < names.count; i++, p += strlen(p + 1) + 2) {
        const char *name = p + 1;
        if (unlinkat(fd, name, 0) == 0 || errno == ENOENT)
            continue;
        if (errno != EISDIR && errno != EPERM) {
            rc = -1;
            break;
        }
        int child = openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (child < 0 && errno == EACCES && fchmodat(fd, name, 0700, 0) == 0)
            child = openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (child < 0 || depth == QS_DEPTH_MAX) {
            rc = -1;
        } else {
            fchmod(child, 0700); /* so that its entries can be unlinked */
            rc = remove_entries(child, depth + 1);
        }
        if (child >= 0)
            close(child);
        if (rc == 0 && unlinkat(fd, name, AT_REMOVEDIR) < 0)
            rc = -1;
    }
    qs_names_finish(&names);
    return rc;
}

int qs_remove_tree(int directory_fd, const char *name)
{
    if (unlinkat(directory_fd, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return -1;
    int fd = openat(directory_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -1;
    fchmod(fd, 0700);
    int rc = remove_entries(fd, 0);
    close(fd);
    if (rc == 0 && unlinkat(directory_fd, name, AT_REMOVEDIR) < 0)
        rc = -1;
    return rc;
}

int qs_restore_failed(int error, const char *path)
{
    if (error != ENOENT && error != ENOTDIR && error != ELOOP)
        return qr_fail_errno(error, "%s", qr_quotez(path));
    return qr_fail(QALLOW_E_BUSY, "%s: changed by somebody else during the restore (%s)",
                   qr_quotez(path), strerror(error));
}
