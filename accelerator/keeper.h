/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper of a directory (or one file) that other programs change: it keeps a log equal to it, a
 * cache of it in shared memory, or both. The contract is docs/accelerator.md.
 */
#ifndef QA_KEEPER_H
#define QA_KEEPER_H

#include <stddef.h>
#include <stdint.h>

#include "accelerator/retention.h"
#include "accelerator/watcher.h"
#include "qallow/accelerator.h"
#include "runtime/store.h"
#include "sources/tree.h"

/* An epoch, or (with `committed` 0) a look at the tree that found nothing new. */
struct qa_report {
    uint64_t epoch;
    int committed;      /* it is a new one */
    int first;          /* of this run: what changed since the last one; now watching */
    int64_t time_ns;    /* of the epoch */
    uint64_t waited_ns; /* from the first change in it until it was there; 0 at the start */
    uint64_t entries, read_files, read_bytes, skipped;
    struct qs_capture capture; /* what the log took; zeros without a log */
    uint64_t cached;           /* paths that changed in the cache */
};

enum qa_watch_mode {
    QA_WATCH_AUTO,    /* events; what gives none is compared at intervals */
    QA_WATCH_POLL,    /* everything is compared at intervals */
    QA_WATCH_NO_POLL, /* events only, whatever they miss */
    QA_WATCH_NONE,    /* at the start, at each sweep and when it is asked */
};

struct qa_keeper_options {
    const char *path;              /* what is kept */
    int is_file;                   /* it is one file */
    const char *log;               /* NULL: no log, the cache alone */
    struct qr_store_options store; /* writable, create, notice are set by the keeper */
    struct qs_rules rules;
    int threads; /* readers of files, >= 1 */
    struct qa_settle settle;
    int once;          /* one epoch, then end */
    const char *label; /* for the first epoch of this run, or NULL; with a log */
    enum qa_watch_mode watch;
    uint64_t sweep_ns;             /* look at every file again this often; 0: never */
    struct qa_retention retention; /* applied now and then, not at every epoch */

    int no_cache;
    enum qallow_hash hash; /* of the cache; 0: XXH3-128 */
    uint64_t cache_bytes;  /* most memory for it; 0: what the file system may give */
    uint64_t content_max;  /* the cache has the bytes of files up to this size; 0: none */

    const char *command;    /* run by the shell after each epoch, never twice at once; or NULL */
    const char *telemetry;  /* CSV file, or NULL */
    const char *prometheus; /* file replaced by the present numbers, or NULL */
    uint64_t telemetry_interval_ns;
    int stop_fd;   /* ends the keeping when it becomes readable; -1: none */
    int reload_fd; /* reads the ignore files again when it becomes readable (an eventfd,
                    * which the keeper empties); -1: none */
    void (*report)(void *context, const struct qa_report *report);
    /* One line for the user about something that was done or cannot be done. */
    void (*notice)(void *context, const char *line);
    /* An entry that cannot be kept, and again with why == NULL when it could be. */
    void (*skipped)(void *context, const char *path, const char *why);
    void *context;
};

/* Keeps until it is told to stop: by stop_fd, or over the socket; then what has changed is taken
 * in, the log is synced and closed, and the result is 0. Errors end it too: NO_INPUT when the
 * directory is deleted, moved away or unmounted; what opening or writing the log or opening the
 * cache returns. In every case log and cache are closed in order. */
int qa_keep(const struct qa_keeper_options *options);

#endif
