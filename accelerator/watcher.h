/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The watcher: says which paths of a directory tree may have changed, and nothing more. It only
 * marks paths dirty (relative to the root); whether anything really differs is decided when they
 * are captured. Marking too much costs time, marking too little loses a change: in doubt it marks.
 * One thread.
 */
#ifndef QA_WATCHER_H
#define QA_WATCHER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "accelerator/dirty.h"

/* inotify as a table, so that tests can run out of watches and lose events. Results are those of
 * the system calls, -errno on failure. */
struct qa_inotify {
    void *context;
    int (*open)(void *context);
    int (*add)(void *context, int fd, const char *path, uint32_t mask);
    int (*remove)(void *context, int fd, int watch);
    ssize_t (*read)(void *context, int fd, void *buffer, size_t size);
    int (*pending)(void *context, int fd); /* bytes of events waiting */
    /* The type of the file system of an open directory, as in struct statfs. */
    int (*file_system)(void *context, int fd, unsigned long *type);
};
const struct qa_inotify *qa_inotify_kernel(void);

struct qa_watcher_options {
    const struct qa_inotify *inotify; /* NULL: the kernel's */
    int root_fd;                      /* the directory; stays the caller's */
    const char *only; /* one entry of it, nothing else and nothing below; NULL: the whole tree */
    int poll;         /* no events: compare directory entries at intervals */
    int no_poll;      /* events also where they do not tell everything */
    /* Where there are events, nothing is watched yet: the caller is about to walk the whole tree,
     * and says of each directory, before listing it, that it enters it. */
    int is_entered;
    /* Is this path recorded? NULL: all are. */
    int (*is_recorded)(void *context, const char *path, int is_directory);
    /* One line for the user: a limit that was reached and what to do about it. May be NULL. */
    void (*notice)(void *context, const char *line);
    void *context;
};

struct qa_watcher;

/* Watches the whole tree (but see is_entered); from here on no change is missed. Nothing is marked
 * yet: the caller captures everything once. NO_MEMORY, NO_INPUT, IO. */
int qa_watcher_create(const struct qa_watcher_options *options, struct qa_dirty *dirty,
                      struct qa_watcher **watcher);
void qa_watcher_destroy(struct qa_watcher *watcher);

/* Readable when there are events; -1 when everything is polled. */
int qa_watcher_fd(const struct qa_watcher *watcher);
/* Takes in all events that are waiting. Every change that was complete before the call is marked
 * when it returns, except in polled directories and while a rescan is held back: see
 * qa_watcher_work(). NO_MEMORY. */
int qa_watcher_drain(struct qa_watcher *watcher);
/* When qa_watcher_work() has something to do: a poll, or a rescan that was held back. UINT64_MAX:
 * never. Time is CLOCK_MONOTONIC, ns. */
uint64_t qa_watcher_deadline(const struct qa_watcher *watcher);
/* Does what is due; all of it, due or not, if `force`. NO_MEMORY. */
int qa_watcher_work(struct qa_watcher *watcher, int force);
/* Watches the whole tree afresh and marks everything; for when the rules have changed. */
int qa_watcher_rescan(struct qa_watcher *watcher);
/* Somebody found a directory; watches it if that is not so already. To be called before it is
 * listed. NO_MEMORY. */
int qa_watcher_found(struct qa_watcher *watcher, const char *path);

/* Somebody found nothing at this path. If it was away only for a moment, together with a directory
 * above it, it looks as it did before when it is there again: the directory, or the nearest one
 * above that is known, is taken for changed at the next poll, if it is polled. */
void qa_watcher_doubt(struct qa_watcher *watcher, const char *path);

/* Somebody is about to list a directory, which is open as `fd`: as qa_watcher_found(), for walks
 * over the whole tree. NO_MEMORY. */
int qa_watcher_enter(struct qa_watcher *watcher, const char *path, int fd);
/* The walk is over: what it met twice is put right, and limits met are said. NO_MEMORY. */
int qa_watcher_entered(struct qa_watcher *watcher);

struct qa_watcher_status {
    size_t directories, watches, polled;
    uint64_t events, overflows, rescans;
    int root_gone; /* deleted, moved away or unmounted, as far as events say */
};
void qa_watcher_status(const struct qa_watcher *watcher, struct qa_watcher_status *status);

uint64_t qa_now_ns(void); /* CLOCK_MONOTONIC */

#endif
