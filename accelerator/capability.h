/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this machine can do for qallow, found out by trying. The same probes are `qallow doctor`,
 * the check before a keeper starts, and how the watcher decides to watch or to poll; so the doctor
 * cannot be of another opinion than the rest. docs/doctor.md lists them for users.
 */
#ifndef QA_CAPABILITY_H
#define QA_CAPABILITY_H

#include <stddef.h>
#include <stdint.h>

#include "accelerator/watcher.h"
#include "backend/kernels.h"
#include "qallow/error.h"

enum qa_verdict {
    QA_PASS,
    QA_WARN, /* it works, with the limits that the text names */
    QA_FAIL, /* it does not work: a keeper that needs it refuses to start */
};

struct qa_capability {
    const char *name; /* set by qa_capabilities_probe() only */
    enum qa_verdict verdict;
    int result;       /* what a keeper that cannot do without it returns; 0 if nothing is missing */
    char text[512];   /* what was found and what it means */
    char remedy[320]; /* what to do about it; "": nothing */
};

/* "text; remedy", as a line for the user. Returns `line`. */
enum { QA_CAPABILITY_LINE = 512 + 320 + 2 };
const char *qa_capability_line(const struct qa_capability *found, char line[QA_CAPABILITY_LINE]);

/* --- one by one; each sets *found but for its name --- */

enum qa_file_system_traits {
    QA_FS_REMOTE = 1,   /* others may change it without an event here */
    QA_FS_VOLATILE = 2, /* gone when the machine stops */
    QA_FS_COARSE = 4,   /* time stamps of two seconds */
    QA_FS_MADE_UP = 8,  /* the kernel makes its files up: their changes are no events */
};
struct qa_file_system {
    unsigned long type; /* as in struct statfs */
    const char *name;
    unsigned traits;
};
/* NULL: not known, and then nothing is known against it. */
const struct qa_file_system *qa_file_system_of(unsigned long type);
/* 1 if a tree there is to be compared at intervals because events do not tell everything. */
int qa_file_system_needs_polling(const struct qa_file_system *file_system);

/* The file system of a tree that is to be watched: WARN if it is to be polled. `path` is for the
 * text. */
void qa_probe_file_system(const struct qa_inotify *inotify, int fd, const char *path,
                          struct qa_capability *found);

/* Opens an inotify instance: how the watcher starts. The descriptor, which is the caller's; or -1,
 * and then *found says why and `result` is UNAVAILABLE or LIMIT. */
int qa_open_inotify(const struct qa_inotify *inotify, struct qa_capability *found);
/* And watches the directory for a moment. Closing it can take the kernel some ten milliseconds. */
void qa_probe_inotify(const struct qa_inotify *inotify, int fd, struct qa_capability *found);

enum qa_inotify_limit { QA_INOTIFY_INSTANCES, QA_INOTIFY_WATCHES, QA_INOTIFY_QUEUE };
/* The limit that holds here, the lower one of the machine's and of the user namespace's, and the
 * sysctl that sets it. 1, or 0 if /proc does not say. */
int qa_inotify_limit(enum qa_inotify_limit which, uint64_t *limit, const char **sysctl);
/* What this user's processes have of both, as far as /proc shows them. */
struct qa_inotify_use {
    uint64_t instances, watches;
};
void qa_inotify_use(struct qa_inotify_use *use);
void qa_probe_inotify_instances(const struct qa_inotify_use *use, struct qa_capability *found);
void qa_probe_inotify_watches(const struct qa_inotify_use *use, uint64_t directories,
                              struct qa_capability *found);
void qa_probe_inotify_queue(struct qa_capability *found);
/* Says that only `have` of `need` directories can be watched, and what to set to what. */
void qa_explain_watch_limit(uint64_t need, uint64_t have, struct qa_capability *found);

/* A directory of the cache's memory: makes a file there, gives it memory, maps it. FAIL if that
 * cannot be done; WARN if a cache of `needed` bytes does not fit or it is not in memory. */
void qa_probe_shared_memory(const char *directory, uint64_t needed, struct qa_capability *found);

/* The directory of a log, which need not exist yet. */
void qa_probe_log_file_system(const struct qa_inotify *inotify, const char *directory,
                              struct qa_capability *found);
void qa_probe_log_space(const char *directory, struct qa_capability *found);
void qa_probe_log_write(const char *directory, struct qa_capability *found);
void qa_probe_log_sync(const char *directory, struct qa_capability *found);
void qa_probe_log_punch(const char *directory, struct qa_capability *found);

void qa_probe_userfaultfd(struct qa_capability *found);
void qa_probe_pagemap_scan(struct qa_capability *found);
/* The kernels in use against the scalar ones, on a few bytes. */
void qa_probe_cpu(const struct qb_kernels *kernels, struct qa_capability *found);
void qa_probe_cuda(struct qa_capability *found);

/* What a tree will ask for; .git directories and other file systems are left out, as they are by
 * the recorder, ignore files are not looked at. */
struct qa_tree_size {
    uint64_t directories, files;
    uint64_t path_bytes; /* of the files' paths */
    uint64_t unreadable; /* directories; nothing below them is counted */
};
/* NO_MEMORY. */
int qa_tree_size(int root_fd, struct qa_tree_size *size);

/* --- all of them --- */

/* Calls `found` for each, in a fixed order, for a keeper of the directory `root` (NULL: only a log
 * is looked at) with its log in `log_directory`. NO_MEMORY, or what opening `root` gives. */
int qa_capabilities_probe(const char *root, const char *log_directory,
                          void (*found)(void *context, const struct qa_capability *capability),
                          void *context);

/* --- before a start --- */

enum qa_need {
    QA_NOT_WANTED,
    QA_WANTED, /* if it is missing the keeper goes on without it, and that is said */
    QA_NEEDED, /* if it is missing the keeper does not start */
};
struct qa_capability_request {
    const char *root; /* the directory that is to be watched */
    const char *log;  /* or NULL */
    enum qa_need events, cache;
    uint64_t cache_bytes;             /* that must be free for the cache; 0: whatever there is */
    const struct qa_inotify *inotify; /* NULL: the kernel's */
    /* Set to 1 if the tree is to be polled, and that was said: events are wanted, and there are
     * none, or not of all changes. May be NULL. */
    int *poll;
    int *no_cache; /* set to 1 if the cache is wanted and cannot be had. May be NULL */
};
/* 0; degradations were said through `notice`, a line each with the remedy. UNAVAILABLE or LIMIT:
 * what is needed is missing; the detail names the remedy. What has a good error of its own when it
 * is used (a root or a log that cannot be opened) is not reported here. */
int qa_capabilities_check(const struct qa_capability_request *request,
                          void (*notice)(void *context, const char *line), void *context);

#endif
