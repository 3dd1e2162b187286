/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See target.h. Whoever holds the lock (flock) of what has the temporary name may remove or rename
 * it, nobody else. A lock belongs to a file, not to a name, so after it was got the name must still
 * be that file's: its owner may have put it in place meanwhile, and the lock would be that of the
 * target itself. What was found there, not made, is of a process that is gone: it is removed, and
 * the next try makes it.
 *
 * Order: content (the caller syncs it), rename, sync of the parent, removal of what was replaced.
 */
#include "sources/target.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/error.h"
#include "runtime/os.h"
#include "sources/path.h"

int qs_target_open(struct qs_target *target, const char *path)
{
    *target = (struct qs_target)QS_NO_TARGET;
    target->path = path;
    char *copy = qs_path_join("", path);
    size_t n = copy ? strlen(copy) : 0;
    while (n > 1 && copy[n - 1] == '/')
        copy[--n] = 0;
    char *slash = copy ? strrchr(copy, '/') : NULL;
    const char *name = slash ? slash + 1 : copy;
    if (copy && (!qs_name_is_valid(name, strlen(name)) ||
                 strlen(name) + sizeof QS_TEMPORARY > NAME_MAX + 1)) {
        qr_free(copy);
        return qr_fail(QALLOW_E_CANNOT_CREATE, "%s cannot be the name of what is restored",
                       qr_quotez(path));
    }
    size_t size = copy ? strlen(name) + sizeof QS_TEMPORARY : 1;
    target->name = copy ? qs_path_join("", name) : NULL;
    target->temporary = qr_malloc(size);
    if (slash)
        slash[slash == copy] = 0;
    target->parent = copy ? qs_path_join("", slash ? copy : ".") : NULL;
    qr_free(copy);
    if (!target->name || !target->parent || !target->temporary)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the restore");
    snprintf(target->temporary, size, "%s%s", target->name, QS_TEMPORARY);
    target->parent_fd = open(target->parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (target->parent_fd >= 0)
        return 0;
    int rc = qr_fail_errno(errno, "%s", qr_quotez(target->parent));
    return rc == QALLOW_E_NO_INPUT ? QALLOW_E_CANNOT_CREATE : rc;
}

void qs_target_close(struct qs_target *target)
{
    if (target->temporary_fd >= 0) {
        qs_remove_tree(target->parent_fd, target->temporary);
        close(target->temporary_fd);
    }
    if (target->parent_fd >= 0)
        close(target->parent_fd);
    qr_free(target->parent);
    qr_free(target->name);
    qr_free(target->temporary);
    *target = (struct qs_target)QS_NO_TARGET;
}

/* --- the temporary name --- */

static int temporary_failed(const struct qs_target *target, int error)
{
    if (error == EWOULDBLOCK)
        return qr_fail(QALLOW_E_BUSY, "%s is being restored to by somebody else; try again",
                       qr_quotez(target->path));
    char *path = qs_path_join(target->parent, target->temporary);
    int rc = path ? qs_restore_failed(error, path)
                  : qr_fail(QALLOW_E_NO_MEMORY, "no memory for the restore");
    qr_free(path);
    return rc;
}

/* 1: made, with *fd; 0: something has the name, which is open as *fd unless it is gone again, or no
 * such thing (-1); -1 with errno. */
static int make_or_find(const struct qs_target *target, int is_directory, mode_t mode, int *fd)
{
    int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
    int made = 0;
    *fd = -1;
    if (is_directory) {
        made = mkdirat(target->parent_fd, target->temporary, mode) == 0;
    } else {
        *fd = openat(target->parent_fd, target->temporary,
                     O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
        made = *fd >= 0;
    }
    if (!made && errno != EEXIST)
        return -1;
    if (*fd < 0)
        *fd = openat(target->parent_fd, target->temporary, flags);
    if (*fd < 0 && errno == ELOOP) /* a symlink cannot be locked, nor is it ours */
        return qs_remove_tree(target->parent_fd, target->temporary);
    return *fd >= 0 ? made : errno == ENOENT ? 0 : -1;
}

static int has_the_name(const struct qs_target *target, int fd)
{
    struct stat mine, named;
    return fstat(fd, &mine) == 0 &&
           fstatat(target->parent_fd, target->temporary, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
           mine.st_dev == named.st_dev && mine.st_ino == named.st_ino;
}

int qs_target_make(struct qs_target *target, int is_directory, mode_t mode)
{
    for (;;) {
        int fd, error = 0, made = make_or_find(target, is_directory, mode, &fd);
        if (made < 0 || (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0)) {
            error = errno;
        } else if (fd >= 0 && has_the_name(target, fd)) {
            if (made) {
                target->temporary_fd = fd;
                return 0;
            }
            if (qs_remove_tree(target->parent_fd, target->temporary) < 0)
                error = errno;
        }
        if (fd >= 0)
            close(fd);
        if (error)
            return temporary_failed(target, error);
    }
}

/* --- the name --- */

/* It has its name: nothing is to be removed any more but what was there before. */
static int settle(struct qs_target *target)
{
    close(target->temporary_fd);
    target->temporary_fd = -1;
    return fsync(target->parent_fd) < 0 ? qr_fail_errno(errno, "%s", qr_quotez(target->parent)) : 0;
}

/* The old directory is locked while it has the temporary name, so that nobody takes it for one that
 * was left behind, and makes its own while this one is removed. */
static int exchange(struct qs_target *target)
{
    int rc = 0, old = openat(target->parent_fd, target->name,
                             O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (old < 0)
        return qs_restore_failed(errno, target->path);
    if (flock(old, LOCK_EX | LOCK_NB) < 0)
        rc = temporary_failed(target, errno);
    else if (syscall(SYS_renameat2, target->parent_fd, target->temporary, target->parent_fd,
                     target->name, 2 /* RENAME_EXCHANGE */) < 0)
        rc = qs_restore_failed(errno, target->path);
    else if ((rc = settle(target)) == 0 && qs_remove_tree(target->parent_fd, target->temporary) < 0)
        rc = qr_fail(QALLOW_E_CANNOT_CREATE,
                     "%s was restored, but what was there before is left in %s (%s)",
                     qr_quotez(target->path), qr_quotez(target->temporary), strerror(errno));
    close(old);
    return rc;
}

int qs_target_put(struct qs_target *target)
{
    if (renameat(target->parent_fd, target->temporary, target->parent_fd, target->name) == 0)
        return settle(target);
    return errno == ENOTEMPTY || errno == EEXIST ? exchange(target)
                                                 : qs_restore_failed(errno, target->path);
}
