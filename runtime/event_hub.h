/* SPDX-License-Identifier: Apache-2.0 */
/* Who is told of events, and what has not been told yet: a part of each handle of a store. */
#ifndef QR_EVENT_HUB_H
#define QR_EVENT_HUB_H

#include <pthread.h>

#include "qallow/event.h"

enum { QR_SUBSCRIPTIONS_MAX = 1000 };
struct qr_store;
struct qr_event_batch;

struct qr_subscription {
    uint64_t id;
    struct qallow_event_filter filter;
    qallow_event_handler handler; /* NULL: ended, while handlers are running */
    void *context;
};
struct qr_event_hub {
    pthread_mutex_t lock; /* recursive. Before all locks of the store; held while handlers run */
    struct qr_subscription *subscriptions;
    size_t count, capacity;
    uint64_t last_id;
    uint64_t types;      /* that somebody wants */
    _Atomic int is_used; /* there are subscriptions */
    int is_telling;
    uint64_t told; /* epochs up to here */
    pthread_mutex_t made_lock;
    struct qr_event_batch *made; /* by transactions, not told yet, in their order */
};
void qr_hub_init(struct qr_event_hub *hub, struct qr_store *store);
void qr_hub_finish(struct qr_event_hub *hub, struct qr_store *store);
/* Tells what has not been told. To be called without any lock. */
void qr_hub_tell(struct qallow_store *store);
/* An epoch has been exported. */
void qr_hub_exported(struct qallow_store *store, uint64_t epoch, const char *path);

#endif
