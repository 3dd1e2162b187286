/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Prometheus file: written beside its place and renamed over it, so that a reader never meets a
 * part. Nothing is synced: after a power failure the next write makes it new.
 *
 * The temporary file has one fixed name, so that one which a kill left behind is used again and
 * does not stay. Two writers of that name exclude each other with a lock on it, which they hold
 * until the rename: a rename can only publish what its own process has finished.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "telemetry/encoder.h"

/* A rename would put a file in the place of /dev/null or of a pipe that somebody reads. */
static int check_target(const char *path)
{
    struct stat status;
    if (stat(path, &status) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (S_ISDIR(status.st_mode))
        return -EISDIR;
    return S_ISREG(status.st_mode) ? 0 : -ENOTSUP;
}

/* Takes the lock on an open file that was found at `temporary`. */
static int claim(int file, const char *temporary)
{
    struct stat opened, named;
    if (flock(file, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
        return -EBUSY; /* other errors: a file system without locks */
    if (fstat(file, &opened) < 0)
        return -errno;
    if (!S_ISREG(opened.st_mode) || opened.st_nlink > 1)
        return -EEXIST; /* not what we leave behind: not ours to overwrite */
    if (lstat(temporary, &named) < 0 || opened.st_dev != named.st_dev ||
        opened.st_ino != named.st_ino)
        return -EBUSY; /* whoever had the lock has just renamed it */
    return 0;
}

static int write_and_rename(int file, const char *temporary, const char *path,
                            const struct qt_text *text)
{
    int result = ftruncate(file, 0) < 0 ? -errno : 0;
    if (result == 0)
        result = qt_write_all(file, text->bytes, text->length);
    if (result == 0 && rename(temporary, path) < 0)
        result = -errno;
    if (result < 0)
        unlink(temporary);
    return result;
}

static int replace(const char *path, const struct qt_text *text)
{
    size_t size = strlen(path) + sizeof QT_TEMPORARY;
    char *temporary = malloc(size);
    int file = -1, result = temporary ? check_target(path) : -ENOMEM;
    if (result < 0)
        goto out;
    snprintf(temporary, size, "%s" QT_TEMPORARY, path);
    file =
        open(temporary, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0666);
    result = file < 0 ? -errno : claim(file, temporary);
    if (result == 0)
        result = write_and_rename(file, temporary, path, text);
out:
    if (file >= 0)
        close(file);
    free(temporary);
    return result;
}

int qt_prometheus_write(const char *path, const char *process)
{
    struct qt_text text = {0};
    qt_prometheus_encode(&text, process);
    int result = text.failed ? -ENOMEM : replace(path, &text);
    qt_text_finish(&text);
    return result;
}
