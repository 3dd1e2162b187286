/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of a keeper share: keeper.c turns the loop, keeper_log.c takes changes into the
 * log, keeper_cache.c into the cache, keeper_requests.c answers over the socket, runner.c runs the
 * user's command. One thread.
 */
#ifndef QA_KEEPER_INTERNAL_H
#define QA_KEEPER_INTERNAL_H

#include <cjson/cJSON.h>
#include <pthread.h>

#include "accelerator/cache.h"
#include "accelerator/control.h"
#include "accelerator/indexer.h"
#include "accelerator/keeper.h"
#include "accelerator/runner.h"

#define MS UINT64_C(1000000)

enum { QA_BARRIERS_MAX = QA_CLIENTS_MAX + 1 };

enum qa_request { QA_REQUEST_SYNC, QA_REQUEST_LABEL, QA_REQUEST_STOP, QA_REQUEST_END };

/* Somebody waits until everything that is dirty now has been taken in. */
struct qa_barrier {
    uint64_t client; /* 0: the keeper itself */
    uint64_t deadline;
    enum qa_request request;
    char label[256];
};

struct qa_keeper {
    const struct qa_keeper_options *options;
    struct qs_tree *tree;
    struct qa_dirty *dirty;
    struct qa_watcher *watcher; /* NULL: nothing is watched */
    struct qa_control *control;
    struct qa_runner *runner;
    struct qt_csv *csv;
    struct qt_tree *numbers; /* those that are of this tree */
    int mounts_fd;
    char *root;             /* the absolute name of what is kept */
    uint64_t device, inode; /* of the root */
    uint64_t started, next_row, next_sweep;
    int64_t started_at;  /* since 1970 */
    uint64_t unstable;   /* files that did not hold still the last time */
    char *unstable_path; /* one of them */
    struct qa_barrier barriers[QA_BARRIERS_MAX];
    size_t barrier_count;
    int poll, no_cache; /* asked for, or for want of something better */
    int force_scan;     /* a barrier came in: polled directories and held-back rescans too */
    uint64_t retry_at, retry_pause;
    int ending;           /* nothing more is taken on */
    int result;           /* why */
    uint64_t stop_client; /* is answered when everything is closed */
    int done;

    /* the log; NULL without one */
    struct qr_store *store;
    uint64_t sync_at;
    int torn;            /* captures, one after the other, that met no tree at rest */
    uint64_t prune_size; /* of the log, to prune at */
    int64_t prune_time;  /* or at this time */
    int git_said;        /* that .git directories are left out */
    int no_punch_said;   /* that dropped epochs still take space on disk */

    /* the cache; NULL without one */
    struct qa_cache *cache;
    struct qa_indexer *indexer;
    pthread_rwlock_t rules_lock; /* of the tree's rules, while the indexer works */
    pthread_mutex_t enter_lock;  /* of the watcher, during the first walk */
    int is_entering;             /* the first walk says which directories are to be watched */
    struct qallow_cache *reader; /* of our own cache, for the numbers that readers leave; or NULL */
    uint64_t last_wait_ns;
    int cache_is_full; /* said already */
};

/* --- keeper.c --- */
__attribute__((format(printf, 2, 3))) void qa_keeper_say(const struct qa_keeper *k,
                                                         const char *format, ...);
uint64_t qa_keeper_epoch(const struct qa_keeper *k); /* the newest */
int64_t qa_clock_ns(void);                           /* since 1970 */
/* For whoever finds a file that does not hold still: it is dirty again. */
void qa_keeper_unstable(void *context, const char *path);
/* Asks for a barrier. BUSY: too many are waiting. */
int qa_keeper_add_barrier(struct qa_keeper *k, uint64_t client, enum qa_request request,
                          uint64_t timeout_ns, const char *label);

/* For qt_tree_refresh_by(): what changes while the keeper sleeps. */
void qa_keeper_refresh(void *context, uint64_t *busy_ns);

/* --- keeper_log.c --- */
int qa_log_open(struct qa_keeper *k);
/* One epoch of what was taken; *torn: names changed meanwhile and all of it is dirty again. */
int qa_log_take(struct qa_keeper *k, const struct qa_taken *taken, struct qs_capture *capture,
                int *torn);
/* After an epoch: drops what the limits do not allow to keep. */
int qa_log_retain(struct qa_keeper *k);
/* An epoch in which nothing has changed, to be reported like any other. */
int qa_log_epoch(struct qa_keeper *k);

/* --- keeper_cache.c --- */
int qa_index_open(struct qa_keeper *k);
/* Does the first walk tell the watcher of each directory, so that it need not walk itself? */
int qa_index_enters(const struct qa_keeper *k);
void qa_index_close(struct qa_keeper *k);
/* Brings the cache up to what was taken; without a log that is an epoch. */
int qa_index_take(struct qa_keeper *k, const struct qa_taken *taken, struct qa_indexed *indexed);
/* What the indexer has put off, when nothing else is to be done. */
int qa_index_work(struct qa_keeper *k);
/* How long the workers have been busy, all together, and how many they are. */
uint64_t qa_index_busy_ns(const struct qa_keeper *k, uint64_t *workers);
/* The present numbers, to where readers and encoders find them. */
void qa_index_count(struct qa_keeper *k);
/* qa_keeper_refresh(), and what is of the cache. */
void qa_index_refresh(void *context, uint64_t *busy_ns);

/* --- keeper_requests.c --- */
void qa_keeper_answer(struct qa_keeper *k, uint64_t client, cJSON *reply);
void qa_keeper_answer_failure(struct qa_keeper *k, uint64_t client, int result);
void qa_keeper_answer_epoch(struct qa_keeper *k, uint64_t client);
/* For qa_control_serve(). */
void qa_keeper_on_request(void *context, uint64_t client, const cJSON *request);

#endif
