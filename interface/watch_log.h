/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting until another process has written to a log. */
#ifndef QI_WATCH_LOG_H
#define QI_WATCH_LOG_H

#include "interface/options.h"

struct qi_log_watch {
    int notify;
    const char *log;
    char *lock;
};

/* `log` must outlive it. To be ended also on failure. */
int qi_log_watch_begin(struct qi_log_watch *watch, const char *log);
void qi_log_watch_end(struct qi_log_watch *watch);
/* Before looking at the log: what comes after the look wakes qi_log_watch_wait(). */
void qi_log_watch_arm(const struct qi_log_watch *watch);
/* Waits until the log changes, at most a second: the file system may be one that does not tell.
 * 1: go on; 0: the log is gone; or an error, also that a signal came. */
int qi_log_watch_wait(const struct qi_context *context, const struct qi_log_watch *watch);

#endif
