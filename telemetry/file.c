/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The telemetry file: appends what an encoder makes of the metrics, whole lines or nothing.
 *
 * Opening looks at what is there. An empty file gets the header; a file with our header is
 * continued, less a last line that a crash left incomplete; any other file is moved aside to
 * PATH.1 (.2, ...), whatever it is: it is somebody's data. Only one process writes (flock).
 * When the disk fills up in the middle of an append, the part that was written is taken back.
 * A file that was moved away or deleted (logrotate) is noticed at the next write and begun anew.
 * Pipes and terminals are simply written to.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "telemetry/encoder.h"

struct qt_csv {
    const struct qt_encoder *encoder;
    int file;       /* -1: could not be opened again so far */
    int is_regular; /* has a size and a place in a directory */
    char path[];
};

int qt_write_all(int file, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t n = write(file, bytes, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        bytes += n;
        length -= (size_t)n;
    }
    return 0;
}

/* All of it or, in a regular file, nothing. */
static int append(const struct qt_csv *csv, const char *bytes, size_t length)
{
    struct stat before;
    if (fstat(csv->file, &before) < 0)
        return -errno;
    int result = qt_write_all(csv->file, bytes, length);
    if (result < 0 && csv->is_regular && ftruncate(csv->file, before.st_size) < 0)
        return result; /* the next open takes the incomplete line away */
    return result;
}

/* Moves the file at `path` to the first free PATH.n. */
static int move_aside(const char *path)
{
    size_t size = strlen(path) + 16;
    char *aside = malloc(size);
    int result = -ENOMEM;
    for (unsigned n = 1; aside && n != 0; n++) {
        snprintf(aside, size, "%s.%u", path, n);
        result = renameat2(AT_FDCWD, path, AT_FDCWD, aside, RENAME_NOREPLACE) < 0 ? -errno : 0;
        if (result == -EINVAL) /* a file system that cannot promise it: look, then rename */
            result = access(aside, F_OK) == 0 ? -EEXIST : rename(path, aside) < 0 ? -errno : 0;
        if (result != -EEXIST)
            break;
    }
    free(aside);
    return result;
}

/* 1 if the file is empty or begins with our header, 0 if it is something else. */
static int is_ours(const struct qt_csv *csv, off_t size)
{
    char start[256];
    size_t length = strlen(csv->encoder->header);
    return size == 0 ||
           (length <= sizeof start && pread(csv->file, start, length, 0) == (ssize_t)length &&
            memcmp(start, csv->encoder->header, length) == 0);
}

/* Cuts an incomplete last line. There is a complete one: the header. */
static int cut_incomplete_line(int file, off_t size)
{
    off_t end = size;
    char bytes[512];
    while (end > 0) {
        size_t n = end < (off_t)sizeof bytes ? (size_t)end : sizeof bytes;
        if (pread(file, bytes, n, end - (off_t)n) != (ssize_t)n)
            return -EIO;
        while (n > 0 && bytes[n - 1] != '\n') {
            n--;
            end--;
        }
        if (n > 0)
            break;
    }
    return end == size || ftruncate(file, end) == 0 ? 0 : -errno;
}

static void close_file(struct qt_csv *csv)
{
    if (csv->file >= 0)
        close(csv->file);
    csv->file = -1;
}

/* Opens csv->path and looks what it is; 1 if it is another's and has to be moved aside. */
static int open_and_look(struct qt_csv *csv)
{
    struct stat status;
    csv->file = open(csv->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0666);
    if (csv->file < 0 || fstat(csv->file, &status) < 0)
        return -errno;
    csv->is_regular = S_ISREG(status.st_mode);
    if (!csv->is_regular)
        return qt_write_all(csv->file, csv->encoder->header, strlen(csv->encoder->header));
    if (flock(csv->file, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
        return -EBUSY; /* other errors: a file system without locks */
    if (fstat(csv->file, &status) < 0)
        return -errno;
    if (!is_ours(csv, status.st_size))
        return 1;
    return status.st_size == 0 ? append(csv, csv->encoder->header, strlen(csv->encoder->header))
                               : cut_incomplete_line(csv->file, status.st_size);
}

static int open_file(struct qt_csv *csv)
{
    int result = open_and_look(csv);
    if (result == 1) {
        result = move_aside(csv->path);
        close_file(csv);
        if (result == 0)
            result = open_and_look(csv);
        if (result == 1)
            result = -EBUSY; /* somebody else is writing there right now */
    }
    if (result < 0)
        close_file(csv);
    return result;
}

int qt_csv_open(const char *path, struct qt_csv **csv)
{
    size_t path_size = strlen(path) + 1;
    struct qt_csv *new_csv = malloc(sizeof *new_csv + path_size);
    *csv = NULL;
    if (!new_csv)
        return -ENOMEM;
    new_csv->encoder = &qt_encoder_csv;
    memcpy(new_csv->path, path, path_size);
    int result = open_file(new_csv);
    if (result < 0)
        free(new_csv);
    else
        *csv = new_csv;
    return result;
}

/* 1 if the open file is no longer the one at the path. */
static int is_gone(const struct qt_csv *csv)
{
    struct stat opened, named;
    return csv->file < 0 ||
           (csv->is_regular && (fstat(csv->file, &opened) < 0 || stat(csv->path, &named) < 0 ||
                                opened.st_dev != named.st_dev || opened.st_ino != named.st_ino));
}

int qt_csv_write(struct qt_csv *csv)
{
    struct qt_text text = {0};
    struct timespec now;
    int result = 0;

    if (is_gone(csv)) {
        close_file(csv);
        result = open_file(csv);
    }
    if (result < 0)
        return result;
    clock_gettime(CLOCK_REALTIME, &now);
    csv->encoder->encode(&text, now.tv_sec * INT64_C(1000000000) + now.tv_nsec);
    result = text.failed ? -ENOMEM : append(csv, text.bytes, text.length);
    qt_text_finish(&text);
    return result;
}

void qt_csv_close(struct qt_csv *csv)
{
    if (csv)
        close_file(csv);
    free(csv);
}
