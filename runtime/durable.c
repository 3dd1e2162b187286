/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commits that wait for the disk together.
 *
 * A commit lands in the ordered section: its frames are in the file, the state has them. Under
 * QR_SYNC_COMMIT it is acknowledged when a sync that began later has ended. That needs no order, so
 * whoever waits and finds nobody syncing does it for all that have landed by then; the others wait
 * for its end, and those whose commit came too late for it elect the next one. Before it begins,
 * the one who syncs gives others that came to the last sync the time to land, at most as long as a
 * sync takes: without that, threads that commit in turns would find their way into every other sync
 * only.
 *
 * There is one sync at a time, also of those who sync within the ordered section (keyframes,
 * labels, close): Linux tells a failure to one of two that sync at once, and the other would
 * believe that its bytes are safe.
 *
 * After a failed sync nothing that waits is durable, and nobody knows what is on the disk. All who
 * wait fail, and one of them takes the store back to the last durable epoch (qr_store_fall_back),
 * where it stays, read-only, until it is opened again.
 *
 * `durable.lock` comes after all other locks. Who syncs holds none.
 */
#include <sched.h>
#include <stdio.h>

#include "runtime/error.h"
#include "runtime/store_internal.h"
#include "telemetry/telemetry.h"

/* The clock is that of the world: it may be set while somebody syncs, or stand still with the
 * machine. */
enum { PATIENCE_NS = 100 * 1000 * 1000 };

void qr_durable_init(struct qr_store *store)
{
    struct qr_durable *d = &store->durable;
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->ended, NULL);
}

void qr_durable_finish(struct qr_store *store)
{
    pthread_mutex_destroy(&store->durable.lock);
    pthread_cond_destroy(&store->durable.ended);
}

/* Under the lock: everything up to here is durable. */
static void reach(struct qr_store *store, uint64_t epoch, uint64_t end)
{
    struct qr_durable *d = &store->durable;
    char text[64];
    atomic_store_explicit(&d->epoch, epoch, memory_order_release);
    d->end = end;
    if (store->lock_file < 0 || (d->is_published && d->published == end))
        return;
    int n = snprintf(text, sizeof text, "pid %-10d synced %-20llu\n", store->info.owner_pid,
                     (unsigned long long)end);
    d->is_published =
        n == store->os->pwrite(store->os->context, store->lock_file, text, (size_t)n, 0);
    d->published = end;
}

static int fail(const struct qr_store *store)
{
    return qr_fail(store->durable.failure, "%s", store->durable.detail);
}

/* Under the lock. */
static void note_failure(struct qr_store *store, int rc)
{
    store->durable.failure = rc;
    snprintf(store->durable.detail, sizeof store->durable.detail, "%s", qallow_error_detail());
}

/* Under the lock, which is given up meanwhile: until as many wait as for the last sync, or it has
 * taken too long. */
static void let_others_land(struct qr_store *store)
{
    struct qr_durable *d = &store->durable;
    const struct qr_os *os = store->os;
    if (d->arrived >= d->group)
        return;
    int64_t start = os->now_ns(os->context), now = start;
    while (d->arrived < d->group && now >= start && now - start < d->sync_ns) {
        pthread_mutex_unlock(&d->lock);
        sched_yield();
        pthread_mutex_lock(&d->lock);
        now = os->now_ns(os->context);
    }
}

/* Under the lock, which is given up meanwhile. */
static void sync_for_all(struct qr_store *store)
{
    struct qr_durable *d = &store->durable;
    const struct qr_os *os = store->os;
    d->is_syncing = 1;
    let_others_land(store);
    uint64_t epoch = d->landed_epoch, end = d->landed_end;
    d->group = d->arrived;
    d->arrived = 0;
    pthread_mutex_unlock(&d->lock);
    int64_t before = os->now_ns(os->context);
    int rc = qr_log_sync_file(store->log);
    int64_t after = os->now_ns(os->context);
    pthread_mutex_lock(&d->lock);
    d->is_syncing = 0;
    d->sync_ns = after > before ? after - before : 0;
    if (d->sync_ns > PATIENCE_NS)
        d->sync_ns = PATIENCE_NS;
    if (rc)
        note_failure(store, rc);
    else
        reach(store, epoch, end);
    pthread_cond_broadcast(&d->ended);
}

void qr_durable_begin(struct qr_store *store)
{
    pthread_mutex_lock(&store->durable.lock);
    reach(store, store->state->epoch, store->log->synced_to);
    pthread_mutex_unlock(&store->durable.lock);
}

int qr_store_settle(struct qr_store *store, uint64_t epoch)
{
    struct qr_durable *d = &store->durable;
    int rc = 0;
    if (!store->options.writable || store->options.sync != QR_SYNC_COMMIT ||
        qr_store_durable_epoch(store) >= epoch)
        return 0;
    pthread_mutex_lock(&d->lock);
    d->arrived++;
    while (!rc && qr_store_durable_epoch(store) < epoch) {
        if (d->failure)
            rc = fail(store);
        else if (d->is_syncing)
            pthread_cond_wait(&d->ended, &d->lock);
        else
            sync_for_all(store);
    }
    pthread_mutex_unlock(&d->lock);
    return rc;
}

uint64_t qr_store_durable_epoch(const struct qr_store *store)
{
    return atomic_load_explicit(&store->durable.epoch, memory_order_acquire);
}

void qr_durable_landed(struct qr_store *store)
{
    struct qr_durable *d = &store->durable;
    pthread_mutex_lock(&d->lock);
    d->landed_epoch = store->state->epoch;
    d->landed_end = store->log->end;
    pthread_mutex_unlock(&d->lock);
}

void qr_durable_look(struct qr_store *store)
{
    struct qr_durable *d = &store->durable;
    pthread_mutex_lock(&d->lock);
    if (d->end > store->log->synced_to && d->end <= store->log->end)
        store->log->synced_to = d->end;
    store->log->failed |= d->failure != 0;
    pthread_mutex_unlock(&d->lock);
}

int qr_store_sync_log(struct qr_store *store)
{
    struct qr_durable *d = &store->durable;
    pthread_mutex_lock(&d->lock);
    while (d->is_syncing)
        pthread_cond_wait(&d->ended, &d->lock);
    int rc = d->failure ? fail(store) : 0;
    d->is_syncing = 1;
    pthread_mutex_unlock(&d->lock);
    qr_durable_look(store);
    int was_failed = store->log->failed;
    if (!rc)
        rc = qr_log_sync(store->log);
    pthread_mutex_lock(&d->lock);
    d->is_syncing = 0;
    if (rc && store->log->failed && !was_failed)
        note_failure(store, rc);
    else if (!rc)
        reach(store, store->state->epoch, store->log->synced_to);
    pthread_cond_broadcast(&d->ended);
    pthread_mutex_unlock(&d->lock);
    return rc;
}
