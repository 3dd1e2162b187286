/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One capture: scan, then one transaction with what differs.
 *
 * Neighbouring changes are gathered into groups of about a frame. Workers turn groups into batches
 * (read, diff, encode, compress); the owner's thread hands out the page ids, in the order of the
 * scan, and appends the batches in that same order, so that threads do not show in the log. A group
 * waits in a ring of a few slots, which bounds the memory. Files too large for memory are streamed
 * by the owner itself when their turn comes. A capture with little to do starts no thread at all.
 *
 * What is known of inodes is stored after the commit: before it, a failure would leave the store
 * believing in content that it does not have.
 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "sources/path.h"
#include "sources/tree_internal.h"
#include "telemetry/telemetry.h"

enum {
    GROUP_BYTES = 1 << 20,
    GROUP_CHANGES = 512,
    CHANGE_BYTES = 256,          /* weight of a change besides its content */
    THREADS_MAX = 64,
    SCANS_MAX = 16,              /* of a tree whose names do not hold still */
};

struct group {
    struct qs_step *changes;
    size_t count;
    struct qr_batch *batch;
    int done, rc;
    char detail[512];
};

struct pipeline {
    struct qs_scan *scan;
    struct qr_txn *txn;
    struct qs_worker own;        /* the owner's */
    struct qr_batch *open;       /* what the owner makes itself; appended late, to fill its frame */
    size_t records;              /* records: appended so far */
    const struct qs_string_set *given_up;
    /* The group being gathered: changes [first, first + count) of one pass. */
    struct qs_step *first;
    size_t count, weight;
    /* The ring: groups [appended, submitted) are in it, those below `taken` have a worker. */
    pthread_mutex_t lock;
    pthread_cond_t work, ready;
    struct group *ring;
    size_t slots, submitted, taken, appended;
    int pooled;                  /* enough work for groups; decided by the work, not the threads */
    pthread_t threads[THREADS_MAX];
    int thread_count, wanted, stop;
};

/* --- workers --- */

static void run_group(struct qs_worker *worker, struct group *group)
{
    int rc = 0;
    for (size_t i = 0; i < group->count && rc == 0; i++)
        rc = qs_step_encode(worker, &group->changes[i], group->batch);
    if (rc == 0)
        rc = qr_batch_seal(group->batch);
    group->rc = rc;
    if (rc < 0)
        snprintf(group->detail, sizeof group->detail, "%s", qallow_error_detail());
}

static void *worker_main(void *context)
{
    struct pipeline *p = context;
    struct qs_worker worker;
    int rc = qs_worker_init(&worker, p->scan);
    worker.given_up = p->given_up;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (!p->stop && p->taken == p->submitted)
            pthread_cond_wait(&p->work, &p->lock);
        if (p->taken == p->submitted)
            break;
        struct group *group = &p->ring[p->taken++ % p->slots];
        pthread_mutex_unlock(&p->lock);
        if (rc == 0) {
            run_group(&worker, group);
        } else {
            group->rc = rc;
            snprintf(group->detail, sizeof group->detail, "%s", "no memory for a worker");
        }
        pthread_mutex_lock(&p->lock);
        group->done = 1;
        pthread_cond_signal(&p->ready);
    }
    pthread_mutex_unlock(&p->lock);
    qs_worker_finish(&worker);
    return NULL;
}

/* --- the owner --- */

static int append(struct pipeline *p, struct qr_batch *batch)
{
    p->records += qr_batch_records(batch);
    return qr_batch_records(batch) ? qr_txn_append(p->txn, batch) : 0;
}

/* Appends the oldest group of the ring. */
static int drain_one(struct pipeline *p)
{
    struct group *group = &p->ring[p->appended % p->slots];
    pthread_mutex_lock(&p->lock);
    while (!group->done)
        pthread_cond_wait(&p->ready, &p->lock);
    pthread_mutex_unlock(&p->lock);
    p->appended++;
    return group->rc < 0 ? qr_fail(group->rc, "%s", group->detail) : append(p, group->batch);
}

static int drain(struct pipeline *p)
{
    int rc = 0;
    while (rc == 0 && p->appended < p->submitted)
        rc = drain_one(p);
    return rc;
}

/* A thread more, as long as there is more work than workers. */
static void start_thread(struct pipeline *p)
{
    if (p->thread_count < p->wanted &&
        pthread_create(&p->threads[p->thread_count], NULL, worker_main, p) == 0)
        p->thread_count++;
}

/* The gathered group, by the owner itself. */
static int run_here(struct pipeline *p)
{
    int rc = 0;
    for (size_t i = 0; i < p->count && rc == 0; i++)
        rc = qs_step_encode(&p->own, &p->first[i], p->open);
    p->count = p->weight = 0;
    return rc == 0 && qr_batch_bytes(p->open) >= GROUP_BYTES ? append(p, p->open) : rc;
}

static int submit(struct pipeline *p, int more)
{
    if (p->count == 0)
        return 0;
    p->pooled |= more;
    if (!p->pooled)
        return run_here(p);
    start_thread(p);
    int rc = append(p, p->open); /* all that came before the first group */
    if (rc == 0 && p->submitted - p->appended == p->slots)
        rc = drain_one(p);
    if (rc < 0)
        return rc;
    struct group *group = &p->ring[p->submitted % p->slots];
    group->changes = p->first;
    group->count = p->count;
    group->done = 0;
    p->count = p->weight = 0;
    if (!p->thread_count) {
        run_group(&p->own, group);
        group->done = 1;
        p->submitted++;
        p->taken++;
        return drain_one(p);
    }
    pthread_mutex_lock(&p->lock);
    p->submitted++;
    pthread_cond_signal(&p->work);
    pthread_mutex_unlock(&p->lock);
    return 0;
}

/* 1: a large file did not hold still, so the transaction has to go. */
static int run_large(struct pipeline *p, struct qs_step *change)
{
    int rc = submit(p, 0);
    if (rc == 0)
        rc = drain(p);
    if (rc == 0)
        rc = append(p, p->open);
    if (rc == 0)
        rc = qs_step_stream(&p->own, change, p->open, p->txn);
    p->records += change->did_content;
    return rc ? rc : append(p, p->open);
}

static int run_pass(struct pipeline *p, enum qs_pass pass)
{
    struct qs_steps *changes = &p->scan->passes[pass];
    int rc = 0;
    for (size_t i = 0; i < changes->count && rc == 0; i++) {
        struct qs_step *change = &changes->items[i];
        if (change->action == QS_DO_CREATE)
            change->page = qr_txn_new_id(p->txn);
        if (change->own_place)
            p->scan->places[change->own_place].page = change->page;
        if (qs_step_is_large(&p->own, change)) {
            rc = run_large(p, change);
            if (rc > 0) {
                change->outcome = QS_UNSTABLE;
                return 1;
            }
            continue;
        }
        if (p->count++ == 0)
            p->first = change;
        p->weight += CHANGE_BYTES + (size_t)change->size;
        if (p->weight >= GROUP_BYTES || p->count == GROUP_CHANGES)
            rc = submit(p, i + 1 < changes->count);
    }
    return rc ? rc : submit(p, 0);
}

static int pipeline_init(struct pipeline *p, struct qs_scan *scan)
{
    struct qs_tree *tree = scan->tree;
    p->scan = scan;
    p->wanted = tree->threads > THREADS_MAX ? THREADS_MAX : tree->threads;
    if (p->wanted < 2)
        p->wanted = 0;
    p->slots = (size_t)p->wanted + 2;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->ready, NULL);
    int rc = qs_worker_init(&p->own, scan);
    p->own.given_up = p->given_up;
    if (rc == 0)
        rc = qr_batch_create(tree->compress_level, &p->open);
    p->ring = qr_calloc(p->slots, sizeof *p->ring);
    if (!p->ring)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a capture");
    for (size_t i = 0; i < p->slots && rc == 0; i++)
        rc = qr_batch_create(tree->compress_level, &p->ring[i].batch);
    return rc;
}

static void pipeline_finish(struct pipeline *p)
{
    pthread_mutex_lock(&p->lock);
    p->stop = 1;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->thread_count; i++)
        pthread_join(p->threads[i], NULL);
    for (size_t i = 0; p->ring && i < p->slots; i++)
        qr_batch_destroy(p->ring[i].batch);
    qr_free(p->ring);
    qr_batch_destroy(p->open);
    qs_worker_finish(&p->own);
    pthread_cond_destroy(&p->work);
    pthread_cond_destroy(&p->ready);
    pthread_mutex_destroy(&p->lock);
}

/* All passes. 1: give up, see run_large. */
static int run_all(struct pipeline *p)
{
    int rc = 0;
    for (int pass = 0; pass < QS_PASS_WEAK && rc == 0; pass++)
        rc = run_pass(p, (enum qs_pass)pass);
    if (rc == 0)
        rc = drain(p);
    if (rc == 0)
        rc = qs_config_put(p->scan->tree, p->own.reader, p->txn, p->open);
    if (rc == 0 && p->records + qr_batch_records(p->open))
        rc = run_pass(p, QS_PASS_WEAK);
    if (rc == 0)
        rc = drain(p);
    return rc ? rc : append(p, p->open);
}

/* --- what came of it --- */

static void count_change(const struct qs_step *change, struct qs_capture *result)
{
    switch ((enum qs_action)change->action) {
    case QS_DO_CREATE:
        result->created++;
        break;
    case QS_DO_RENAME:
        result->renamed++;
        break;
    case QS_DO_FREE:
        result->removed++;
        break;
    case QS_DO_CONTENT:
        result->changed += change->did_content;
        result->attributes += change->did_attributes && !change->did_content;
        break;
    case QS_DO_ATTRIBUTES:
        result->attributes += change->did_attributes;
        break;
    case QS_DO_STAT:
        break;
    }
}

/* Reports a file that could not be read, or could be again. */
static int report(struct qs_scan *scan, const struct qs_step *change)
{
    struct qs_tree *tree = scan->tree;
    if (!change->name || (change->outcome == QS_DONE && tree->skipped.count == 0))
        return 0;
    char *path = qs_path_join(change->place ? scan->places[change->place].path : "", change->name);
    if (!path)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a capture");
    int rc = 0;
    if (change->outcome == QS_UNSTABLE) {
        scan->result->unstable++;
        if (scan->scope && scan->scope->unstable_path)
            scan->scope->unstable_path(scan->scope->context, path);
    } else if (change->outcome == QS_LEFT_OUT) {
        scan->result->skipped++;
        rc = qs_tree_skip(tree, path, strerror(change->error));
    } else if (change->outcome == QS_DONE && change->kind != QR_KIND_DIRECTORY) {
        rc = qs_tree_skip(tree, path, NULL);
    }
    qr_free(path);
    return rc;
}

static int settle(struct qs_scan *scan)
{
    struct qs_tree *tree = scan->tree;
    int rc = 0;
    for (int pass = 0; pass < QS_PASS_COUNT; pass++)
        for (size_t i = 0; i < scan->passes[pass].count && rc == 0; i++) {
            const struct qs_step *change = &scan->passes[pass].items[i];
            if (change->outcome == QS_DONE)
                count_change(change, scan->result);
            if (change->stat_known && change->page && change->action != QS_DO_FREE &&
                change->outcome != QS_LEFT_OUT) {
                qr_store_set_stat(tree->store, change->page, change->stat);
                rc = qs_inodes_add(tree, change->stat.inode, change->page);
            }
            if (rc == 0)
                rc = report(scan, change);
        }
    return rc;
}

/* --- one attempt --- */

/* The path of the large file that did not hold still is put on the list. */
static int give_up(struct qs_scan *scan, struct qs_string_set *given_up)
{
    for (int pass = 0; pass < QS_PASS_COUNT; pass++)
        for (size_t i = 0; i < scan->passes[pass].count; i++) {
            const struct qs_step *change = &scan->passes[pass].items[i];
            if (change->outcome != QS_UNSTABLE || !change->name)
                continue;
            char *path = qs_path_join(change->place ? scan->places[change->place].path : "",
                                      change->name);
            int rc = path ? qs_string_set_add(given_up, path) : QALLOW_E_NO_MEMORY;
            qr_free(path);
            if (rc < 0)
                return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a capture");
        }
    return 1;
}

/* 1: to be tried again. */
static int attempt(struct qs_tree *tree, const struct qs_scope *scope, struct qs_capture *result,
                   struct qs_string_set *given_up)
{
    struct qs_scan scan = {.tree = tree, .scope = scope, .result = result};
    struct pipeline p = {.given_up = given_up};
    *result = (struct qs_capture){.epoch = qr_state_epoch(qr_store_state(tree->store))};
    int rc = qs_scan_run(&scan);
    if (rc < 0)
        goto out;
    rc = pipeline_init(&p, &scan);
    if (rc == 0)
        rc = qr_txn_begin(tree->store, &p.txn);
    if (rc == 0)
        rc = run_all(&p);
    uint64_t before = result->epoch;
    if (rc == 0) {
        rc = qr_txn_commit(p.txn, &result->epoch);
        result->committed = rc == 0 && result->epoch != before;
    } else if (p.txn) {
        char detail[512];
        snprintf(detail, sizeof detail, "%s", qallow_error_detail());
        pipeline_finish(&p); /* the workers read the state that the abort takes away */
        qr_txn_abort(p.txn);
        rc = rc > 0 ? give_up(&scan, given_up) : qr_fail(rc, "%s", detail);
        goto out;
    }
    pipeline_finish(&p);
    if (rc == 0)
        rc = settle(&scan);
    tree->scanned |= rc == 0 && !scan.only_paths;
out:
    qs_scan_finish(&scan);
    return rc;
}

int qs_capture_is_torn(int rc)
{
    return rc == QALLOW_E_PAGE_EXISTS || rc == QALLOW_E_PAGE_NOT_FOUND ||
           rc == QALLOW_E_SERIALIZATION;
}

int qs_capture(struct qs_tree *tree, const struct qs_scope *scope, struct qs_capture *result)
{
    struct qs_string_set given_up = {0};
    uint64_t files = qt_get(QT_FILES_READ), bytes = qt_get(QT_FILES_READ_BYTES);
    int rc, scans = 0;
    do /* entries that moved during the scan were met twice or not at all: look again */
        rc = attempt(tree, scope, result, &given_up);
    while (rc > 0 || (qs_capture_is_torn(rc) && ++scans < SCANS_MAX));
    qs_string_set_finish(&given_up);
    result->read_files = qt_get(QT_FILES_READ) - files;
    result->read_bytes = qt_get(QT_FILES_READ_BYTES) - bytes;
    qt_set(QT_FILES_SKIPPED, result->skipped);
    return rc;
}
