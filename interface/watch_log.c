/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writer of a log says in LOG.lock how far the log is durable, after it has written the log,
 * and closes it when it ends; so both files are watched. The lock may appear later than the log.
 */
#include "interface/watch_log.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "interface/report.h"
#include "runtime/error.h"
#include "runtime/os.h"

int qi_log_watch_begin(struct qi_log_watch *watch, const char *log)
{
    size_t size = strlen(log) + sizeof ".lock";

    *watch = (struct qi_log_watch){.notify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK), .log = log};
    if (watch->notify < 0)
        return qr_fail_errno(errno, "inotify");
    watch->lock = qr_malloc(size);
    if (!watch->lock)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a path");
    snprintf(watch->lock, size, "%s.lock", log);
    if (inotify_add_watch(watch->notify, log,
                          IN_MODIFY | IN_CLOSE_WRITE | IN_MOVE_SELF | IN_DELETE_SELF | IN_ATTRIB) <
        0)
        return qr_fail_errno(errno, "watching %s", log);
    return 0;
}

void qi_log_watch_end(struct qi_log_watch *watch)
{
    qr_free(watch->lock);
    if (watch->notify >= 0)
        close(watch->notify);
}

/* What is watched already stays so. Without the lock the second in qi_log_watch_wait() goes by. */
void qi_log_watch_arm(const struct qi_log_watch *watch)
{
    (void)inotify_add_watch(watch->notify, watch->lock, IN_MODIFY | IN_CLOSE_WRITE);
}

int qi_log_watch_wait(const struct qi_context *context, const struct qi_log_watch *watch)
{
    char events[4096];
    struct pollfd fds[2] = {{.fd = watch->notify, .events = POLLIN},
                            {.fd = qi_signal_fd(), .events = POLLIN}};

    if (poll(fds, 2, 1000) < 0 && errno != EINTR)
        return qr_fail_errno(errno, "waiting for %s", watch->log);
    if (qi_signal_received())
        return qi_signal_check();
    if (fds[0].revents & POLLIN && read(watch->notify, events, sizeof events) < 0 &&
        errno != EAGAIN)
        return qr_fail_errno(errno, "waiting for %s", watch->log);
    if (access(watch->log, F_OK) != 0) {
        qi_note(context, "%s is gone", qr_quotez(watch->log));
        return 0;
    }
    return 1;
}
