/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The recorder: keeps a log equal to a directory (or one file) that other programs change. The
 * contract is docs/accelerator.md.
 */
#ifndef QA_RECORDER_H
#define QA_RECORDER_H

#include <stddef.h>
#include <stdint.h>

#include "accelerator/retention.h"
#include "accelerator/watcher.h"
#include "runtime/store.h"
#include "sources/tree.h"

/* An epoch, or (with capture.committed 0) a look at the tree that found nothing to record. */
struct qa_report {
    struct qs_capture capture;
    int64_t time_ns;        /* of the epoch */
    uint64_t waited_ns;     /* from the first change in it to its commit; 0 at the start */
    int first;              /* of this run: what changed since the last one; now watching */
};

struct qa_recorder_options {
    const char *path;       /* what is recorded */
    int is_file;            /* it is one file */
    const char *log;
    struct qr_store_options store; /* writable, create, notice are set by the recorder */
    struct qs_rules rules;
    int threads;            /* readers of files, >= 1 */
    struct qa_settle settle;
    int once;               /* one epoch, then end */
    const char *label;      /* for the first epoch of this run, or NULL */
    int poll;               /* compare at intervals instead of waiting for events */
    struct qa_retention retention; /* applied now and then, not at every epoch */
    const char *telemetry;  /* CSV file, or NULL */
    uint64_t telemetry_interval_ns;
    int stop_fd;            /* ends the recording when it becomes readable; -1: none */
    void (*report)(void *context, const struct qa_report *report);
    /* One line for the user about something that was done or cannot be done. */
    void (*notice)(void *context, const char *line);
    /* An entry that cannot be recorded, and again with why == NULL when it could be. */
    void (*skipped)(void *context, const char *path, const char *why);
    void *context;
};

/* Records until it is told to stop: by stop_fd, or over the socket; then what has changed is
 * captured, the log is synced and closed, and the result is 0. Errors end it too: NO_INPUT when the
 * directory is deleted, moved away or unmounted; what the log's writing or opening returns. In
 * every case the log is closed in order. */
int qa_record(const struct qa_recorder_options *options);

#endif
