/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events to subscribers, while they happen.
 *
 * A commit does nothing for events but to keep what was emitted in it. When it is over, and all its
 * locks are given back, its thread tells what has not been told: for each new epoch the events that
 * follow from its records, read back from the log if somebody wants them, then what was emitted.
 * One thread tells at a time, so handlers see epochs in their order; one that commits itself finds
 * that somebody is telling, and what it made is told when the handlers that are running are done.
 *
 * What cannot be read back is not skipped: nothing more is told until it can.
 */
#include <stdatomic.h>
#include <string.h>

#include "runtime/api_transaction.h"
#include "runtime/event.h"
#include "runtime/os.h"

/* A transaction is over; nothing can fail here. */
static void keep_batch(void *context, struct qr_event_batch *batch)
{
    struct qr_event_hub *hub = context;
    if (!atomic_load(&hub->is_used)) {
        qr_free(batch);
        return;
    }
    pthread_mutex_lock(&hub->made_lock);
    struct qr_event_batch **last = &hub->made;
    while (*last)
        last = &(*last)->next;
    *last = batch;
    pthread_mutex_unlock(&hub->made_lock);
}

void qr_hub_init(struct qr_event_hub *hub, struct qr_store *store)
{
    pthread_mutexattr_t recursive;
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&hub->lock, &recursive);
    pthread_mutexattr_destroy(&recursive);
    pthread_mutex_init(&hub->made_lock, NULL);
    store->event_types = QR_EVENT_EMITTED;
    store->events_made = keep_batch;
    store->events_context = hub;
}

static void drop_made(struct qr_event_hub *hub)
{
    while (hub->made) {
        struct qr_event_batch *next = hub->made->next;
        qr_free(hub->made);
        hub->made = next;
    }
}

void qr_hub_finish(struct qr_event_hub *hub, struct qr_store *store)
{
    store->events_made = NULL;
    drop_made(hub);
    qr_free(hub->subscriptions);
    pthread_mutex_destroy(&hub->lock);
    pthread_mutex_destroy(&hub->made_lock);
}

/* ---------------------------------------------------------------- telling */

static void tell(struct qr_event_hub *hub, const struct qallow_event *event)
{
    size_t count = hub->count; /* who comes meanwhile is told the next one */
    for (size_t i = 0; i < count; i++) {
        struct qr_subscription s = hub->subscriptions[i];
        if (s.handler && qr_event_passes(&s.filter, event))
            s.handler(s.context, event);
    }
}

static void tell_all(struct qr_event_hub *hub, const uint8_t *bytes, size_t length, uint64_t epoch)
{
    struct qallow_event event = QALLOW_EVENT_INIT;
    for (size_t at = 0, used; at < length; at += used) {
        int rc = qallow_event_decode(bytes + at, length - at, &event, &used);
        qr_assert(rc == 0); /* we have just encoded it */
        event.epoch = epoch;
        tell(hub, &event);
    }
}

/* The oldest batch, if it is not of an epoch that has not been told. */
static struct qr_event_batch *take_batch(struct qr_event_hub *hub)
{
    pthread_mutex_lock(&hub->made_lock);
    struct qr_event_batch *batch = hub->made;
    if (batch && batch->epoch > hub->told)
        batch = NULL;
    else if (batch)
        hub->made = batch->next;
    pthread_mutex_unlock(&hub->made_lock);
    return batch;
}

static void tell_batches(struct qr_event_hub *hub)
{
    struct qr_event_batch *batch;
    while ((batch = take_batch(hub))) {
        tell_all(hub, batch->bytes, batch->length, batch->epoch);
        qr_free(batch);
    }
}

/* The records of the next epoch. 1: told; 0: there is none; or an error, and it will be tried
 * again. */
static int tell_epoch(struct qallow_store *store)
{
    struct qr_event_hub *hub = &store->events;
    struct qr_arena arena = {0};
    uint64_t types = hub->types & QR_EVENT_FROM_RECORDS, newest;
    int rc = 0;
    pthread_mutex_lock(&store->calls);
    newest = qr_state_epoch(qr_store_state(store->store));
    if (store->writable && store->store->options.sync == QR_SYNC_COMMIT &&
        newest > qr_store_durable_epoch(store->store)) /* its commit may still fail */
        newest = qr_store_durable_epoch(store->store);
    if (newest < hub->told) /* the log has lost epochs in a crash of its writer */
        hub->told = newest;
    if (newest > hub->told && types)
        rc = qr_event_gather(store->store, hub->told + 1, types, &arena);
    pthread_mutex_unlock(&store->calls);
    if (rc == 0 && newest > hub->told) {
        tell_all(hub, arena.bytes, arena.length, hub->told + 1);
        hub->told++;
        rc = 1;
    }
    qr_free(arena.bytes);
    return rc;
}

void qr_hub_tell(struct qallow_store *store)
{
    struct qr_event_hub *hub = &store->events;
    if (!atomic_load(&hub->is_used))
        return;
    pthread_mutex_lock(&hub->lock);
    if (!hub->is_telling) {
        hub->is_telling = 1;
        do
            tell_batches(hub);
        while (tell_epoch(store) > 0);
        hub->is_telling = 0;
        size_t kept = 0;
        for (size_t i = 0; i < hub->count; i++)
            if (hub->subscriptions[i].handler)
                hub->subscriptions[kept++] = hub->subscriptions[i];
        hub->count = kept;
        atomic_store(&hub->is_used, kept > 0);
    }
    pthread_mutex_unlock(&hub->lock);
}

/* ---------------------------------------------------------------- subscribing */

static void count_types(struct qr_event_hub *hub)
{
    hub->types = 0;
    for (size_t i = 0; i < hub->count; i++)
        if (hub->subscriptions[i].handler)
            hub->types |= hub->subscriptions[i].filter.types;
}

static int subscribe(struct qallow_store *store, const struct qr_subscription *made)
{
    struct qr_event_hub *hub = &store->events;
    if (hub->count >= QR_SUBSCRIPTIONS_MAX)
        return qr_fail(QALLOW_E_LIMIT, "more than %d subscriptions", QR_SUBSCRIPTIONS_MAX);
    if (QR_GROW(hub->subscriptions, hub->count, hub->capacity))
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a subscription");
    if (!atomic_load(&hub->is_used)) { /* what was before is nobody's business */
        pthread_mutex_lock(&store->calls);
        hub->told = qr_state_epoch(qr_store_state(store->store));
        drop_made(hub);
        atomic_store(&hub->is_used, 1);
        pthread_mutex_unlock(&store->calls);
    }
    hub->subscriptions[hub->count] = *made;
    hub->subscriptions[hub->count++].id = ++hub->last_id;
    count_types(hub);
    return 0;
}

int qallow_subscribe(struct qallow_store *store, const struct qallow_event_filter *filter,
                     qallow_event_handler handler, void *context, uint64_t *id)
{
    struct qr_subscription made = {.handler = handler, .context = context};
    QR_CHECK_ARGUMENT(store != NULL && handler != NULL && id != NULL);
    int rc = qr_event_filter(filter, &made.filter);
    if (rc)
        return rc;
    pthread_mutex_lock(&store->events.lock);
    rc = subscribe(store, &made);
    if (!rc)
        *id = store->events.last_id;
    pthread_mutex_unlock(&store->events.lock);
    return rc;
}

int qallow_unsubscribe(struct qallow_store *store, uint64_t id)
{
    QR_CHECK_ARGUMENT(store != NULL);
    struct qr_event_hub *hub = &store->events;
    int rc = QALLOW_E_ARGUMENT;
    pthread_mutex_lock(&hub->lock);
    for (size_t i = 0; i < hub->count && rc; i++)
        if (hub->subscriptions[i].id == id && hub->subscriptions[i].handler) {
            hub->subscriptions[i].handler = NULL;
            rc = 0;
            if (!hub->is_telling) {
                hub->count--;
                memmove(&hub->subscriptions[i], &hub->subscriptions[i + 1],
                        (hub->count - i) * sizeof *hub->subscriptions);
                atomic_store(&hub->is_used, hub->count > 0);
            }
            count_types(hub);
        }
    pthread_mutex_unlock(&hub->lock);
    return rc ? qr_fail(rc, "there is no subscription %llu", (unsigned long long)id) : 0;
}

/* ---------------------------------------------------------------- emitting */

int qallow_txn_emit(struct qallow_txn *txn, uint32_t type, const void *data, size_t length)
{
    struct qallow_event event = QALLOW_EVENT_INIT;
    QR_CHECK_ARGUMENT(txn != NULL && (data != NULL || length == 0));
    QR_CHECK_ARGUMENT(type < QALLOW_EVENT_TYPES && QR_EVENT_EMITTED & QALLOW_EVENT_BIT(type));
    event.type = type;
    event.data = length ? data : (const uint8_t *)"";
    event.length = length;
    return qr_event_put(&txn->events, &event);
}

int qallow_emit(struct qallow_store *store, uint32_t type, const void *data, size_t length)
{
    struct qallow_txn *txn;
    int rc = qallow_begin(store, &txn);
    if (rc)
        return rc;
    rc = qallow_txn_emit(txn, type, data, length);
    if (!rc)
        return qallow_commit(txn, NULL);
    qallow_abort(txn);
    return rc;
}

int qallow_events_record(struct qallow_store *store, uint64_t types)
{
    QR_CHECK_ARGUMENT(store != NULL);
    QR_CHECK_ARGUMENT((types & (QR_EVENT_FROM_RECORDS | 1)) == 0);
    pthread_mutex_lock(&store->calls);
    store->store->event_types = types;
    pthread_mutex_unlock(&store->calls);
    return 0;
}

/* Told as if it had been emitted in the newest epoch. */
static void tell_exported(struct qallow_store *store, struct qallow_event *event)
{
    struct qr_event_batch *batch = NULL;
    struct qr_arena arena = {0};
    struct qr_epoch info = {0};
    pthread_mutex_lock(&store->calls);
    const uint64_t newest = qr_state_epoch(qr_store_state(store->store));
    if (qr_store_epoch(store->store, newest, &info) == 0)
        event->time_ns = info.time_ns;
    pthread_mutex_unlock(&store->calls);
    if (qr_event_put(&arena, event) == 0)
        batch = qr_malloc(sizeof *batch + arena.length);
    if (batch) {
        *batch = (struct qr_event_batch){.epoch = newest, .length = arena.length};
        memcpy(batch->bytes, arena.bytes, arena.length);
        keep_batch(&store->events, batch);
        qr_hub_tell(store);
    }
    qr_free(arena.bytes);
}

void qr_hub_exported(struct qallow_store *store, uint64_t epoch, const char *path)
{
    struct qallow_event event = QALLOW_EVENT_INIT;
    struct qallow_txn *txn;
    event.type = QALLOW_EVENT_CHECKPOINT;
    event.exported = epoch;
    event.name = path;
    event.name_length = strlen(path);
    if (store->store->event_types & QALLOW_EVENT_BIT(event.type) && !qallow_begin(store, &txn)) {
        (void)qr_event_put(&txn->events,
                           &event);     /* the export is done: if it cannot be recorded, */
        (void)qallow_commit(txn, NULL); /* it is done all the same */
        return;
    }
    if (atomic_load(&store->events.is_used))
        tell_exported(store, &event);
}
