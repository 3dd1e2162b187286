/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's inotify as a table (watcher.h), with errors as -errno. */
#include <errno.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "accelerator/watcher.h"

static int kernel_open(void *context)
{
    int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int kernel_add(void *context, int fd, const char *path, uint32_t mask)
{
    int watch = inotify_add_watch(fd, path, mask);
    return watch < 0 ? -errno : watch;
}

static int kernel_remove(void *context, int fd, int watch)
{
    return inotify_rm_watch(fd, watch) < 0 ? -errno : 0;
}

static ssize_t kernel_read(void *context, int fd, void *buffer, size_t size)
{
    ssize_t n;
    do {
        n = read(fd, buffer, size);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static int kernel_pending(void *context, int fd)
{
    int bytes = 0;
    return ioctl(fd, FIONREAD, &bytes) < 0 ? -errno : bytes;
}

static int kernel_file_system(void *context, int fd, unsigned long *type)
{
    struct statfs fs;
    if (fstatfs(fd, &fs) < 0)
        return -errno;
    *type = (unsigned long)fs.f_type & 0xffffffff;
    return 0;
}

const struct qa_inotify *qa_inotify_kernel(void)
{
    static const struct qa_inotify kernel = {NULL,           kernel_open,       kernel_add,
                                             kernel_remove,  kernel_read,       kernel_pending,
                                             kernel_file_system};
    return &kernel;
}
