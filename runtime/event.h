/* SPDX-License-Identifier: Apache-2.0 */
/* Events: what the parts of the runtime share. */
#ifndef QR_EVENT_H
#define QR_EVENT_H

#include "qallow/event.h"
#include "runtime/graph.h"
#include "runtime/store_internal.h"

enum { QR_EVENT_DATA_MAX = 512 << 10 };
/* Those that are made from the records of the log. */
#define QR_EVENT_FROM_RECORDS                                                                      \
    (QALLOW_EVENT_BIT(QALLOW_EVENT_PAGE) | QALLOW_EVENT_BIT(QALLOW_EVENT_DELTA) |                  \
     QALLOW_EVENT_BIT(QALLOW_EVENT_COMMIT))
/* Those that anybody may emit. */
#define QR_EVENT_EMITTED                                                                           \
    (QALLOW_EVENT_BIT(QALLOW_EVENT_WATCHER) | QALLOW_EVENT_BIT(QALLOW_EVENT_PROGRAM) |             \
     UINT64_C(0xffffffff00000000))

/* --- event.c --- */
/* Appends an encoded event; its data is made from the fields if event->data is NULL. NO_MEMORY,
 * LIMIT. */
int qr_event_put(struct qr_arena *arena, const struct qallow_event *event);
/* A node has been computed. */
int qr_event_recompute(struct qr_txn *txn, uint64_t page, const struct qr_past *past);
int qr_event_passes(const struct qallow_event_filter *filter, const struct qallow_event *event);
/* Checks a filter of the caller and copies it; NULL passes everything. */
int qr_event_filter(const struct qallow_event_filter *theirs, struct qallow_event_filter *filter);

/* --- event_replay.c --- */
/* qallow_events_replay for who has no handle of the API. */
int qr_events_replay(struct qr_store *store, uint64_t from, uint64_t to,
                     const struct qallow_event_filter *filter, qallow_event_handler handler,
                     void *context);
/* Appends the events of one epoch of the given types that come from its records. */
int qr_event_gather(struct qr_store *store, uint64_t epoch, uint64_t types, struct qr_arena *arena);

#endif
