/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events: what happens in a store, told to whoever subscribes, while it happens or again from the
 * log.
 *
 * Events come after the commit that they are about, in the order of the log: for each epoch its
 * pages and deltas as the log has them, then the commit, then what was emitted in it. What a
 * subscriber is told live is what qallow_events_replay() tells of the same epochs, as far as it is
 * in the log: pages, deltas and commits always are, since they are made from the records; events
 * of the other types are if they are recorded (qallow_events_record). Recorded events stand in
 * EVENT frames, as [type u8][time u64][length u32][data]; docs/formats/tlog.md has what the data
 * of each type is.
 *
 * Conventions are those of qallow/store.h. Since: 0.1.0.
 */
#ifndef QALLOW_EVENT_H
#define QALLOW_EVENT_H

#include "qallow/store.h"

#ifdef __cplusplus
extern "C" {
#endif

enum qallow_event_type {
    QALLOW_EVENT_PAGE = 1,       /* a page was created, renamed, freed, or got attributes */
    QALLOW_EVENT_DELTA = 2,      /* the content of a page changed */
    QALLOW_EVENT_COMMIT = 3,     /* an epoch */
    QALLOW_EVENT_RECOMPUTE = 4,  /* a node of the dependency graph was computed */
    QALLOW_EVENT_CHECKPOINT = 5, /* an epoch was exported */
    QALLOW_EVENT_WATCHER = 6,    /* of what watches files: data is its text */
    QALLOW_EVENT_PROGRAM = 7,    /* a program's own: data is its bytes */
    QALLOW_EVENT_USER = 32,      /* 32 to 63: free for applications */
};
enum { QALLOW_EVENT_TYPES = 64 };
#define QALLOW_EVENT_BIT(type) (UINT64_C(1) << (type))

enum qallow_page_change {
    QALLOW_PAGE_CREATED = 1,
    QALLOW_PAGE_ATTRIBUTES = 2,
    QALLOW_PAGE_RENAMED = 3,
    QALLOW_PAGE_FREED = 4,
};

struct qallow_event {
    uint32_t size; /* of this struct */
    uint32_t type;
    int64_t time_ns;     /* of the commit that it belongs to, since 1970 */
    uint64_t epoch;      /* that it belongs to; encoded only of a COMMIT, whose own it is */
    const uint8_t *data; /* as encoded; valid during the call */
    uint64_t length;
    /* what the data says; 0 where the type does not have it */
    uint64_t page;    /* PAGE, DELTA, RECOMPUTE */
    uint32_t change;  /* PAGE: enum qallow_page_change. RECOMPUTE: enum qallow_why */
    uint32_t kind;    /* PAGE, created: enum qallow_kind */
    uint64_t parent;  /* PAGE, created or renamed. RECOMPUTE: the input that had changed */
    uint64_t bytes;   /* DELTA: the page's size now. RECOMPUTE: computed. COMMIT: pages changed */
    uint64_t offset;  /* DELTA, RECOMPUTE: of the first byte that changed */
    uint64_t changed; /* DELTA: bytes written. RECOMPUTE: from the first that changed to the last */
    uint64_t digest[2]; /* COMMIT */
    const char *name;   /* PAGE, created or renamed. CHECKPOINT: the path. Not ended by a NUL */
    uint64_t name_length;
    uint64_t exported; /* CHECKPOINT: the epoch that was */
    uint64_t reserved[3];
};

/* --- subscribing --- */

struct qallow_event_filter {
    uint32_t size;
    uint32_t reserved32;
    uint64_t types; /* QALLOW_EVENT_BITs; 0: all */
    uint64_t page;  /* only events of this page; 0: any. Events that are of no page then do not
                       come */
    uint64_t reserved[4];
};
#define QALLOW_EVENT_FILTER_INIT                                                                   \
    {                                                                                              \
        sizeof(struct qallow_event_filter), 0, 0, 0, { 0 }                                         \
    }

/* Called for an event. It may do anything but close the store, or destroy or wait for what commits:
 * the thread that calls it may be any that uses the store. What it commits, and what it emits, is
 * told when all handlers have been told this one. */
typedef void (*qallow_event_handler)(void *context, const struct qallow_event *event);

/* From now on `handler` is told what passes `filter` (NULL: everything) of the epochs that are
 * committed after this, or taken in by qallow_refresh. Handlers are called one after the other, in
 * the order in which they subscribed, by the thread that commits, before qallow_commit returns; or
 * by another one that is telling at that moment. *id is for qallow_unsubscribe. LIMIT: 1,000 at
 * most. */
QALLOW_API int qallow_subscribe(struct qallow_store *store,
                                const struct qallow_event_filter *filter,
                                qallow_event_handler handler, void *context, uint64_t *id);
/* When this returns, the handler is not running and will not be called any more, unless it is the
 * handler itself, or one that it was called from, that calls this. ARGUMENT: there is no such
 * subscription. */
QALLOW_API int qallow_unsubscribe(struct qallow_store *store, uint64_t id);

/* --- emitting --- */

/* An event that belongs to the transaction: told, and recorded, if it commits. WATCHER, PROGRAM or
 * 32 to 63. LIMIT: more than 512 KiB of data. */
QALLOW_API int qallow_txn_emit(struct qallow_txn *txn, uint32_t type, const void *data,
                               size_t length);
/* An event that belongs to the newest epoch. STATE: the store is not writable. Otherwise as
 * above; IO, NO_SPACE. */
QALLOW_API int qallow_emit(struct qallow_store *store, uint32_t type, const void *data,
                           size_t length);
/* Which types are written into the log: QALLOW_EVENT_BITs. Without this: WATCHER, PROGRAM, and 32
 * to 63. PAGE, DELTA and COMMIT are in it by themselves. */
QALLOW_API int qallow_events_record(struct qallow_store *store, uint64_t types);

/* --- again, from the log --- */

/* Calls `handler` for every event of the epochs [from, to] that passes `filter` (NULL: everything).
 * EPOCH_NOT_FOUND, DAMAGED, IO, SERIALIZATION (an EVENT frame that cannot be). A handler must not
 * use the store. */
QALLOW_API int qallow_events_replay(struct qallow_store *store, uint64_t from, uint64_t to,
                                    const struct qallow_event_filter *filter,
                                    qallow_event_handler handler, void *context);

/* --- as bytes --- */

/* Writes [type u8][time u64][length u32][data], 13 bytes and event->length more, if that is at most
 * `size`; *length (may be NULL) is set in any case. LIMIT: it does not fit. */
QALLOW_API int qallow_event_encode(const struct qallow_event *event, void *buffer, size_t size,
                                   size_t *length);
/* Reads one; *used is how long it was. event->data and ->name point into `bytes`; the epoch is 0,
 * but of a COMMIT.
 * `event` must be initialised. SERIALIZATION. */
QALLOW_API int qallow_event_decode(const void *bytes, size_t size, struct qallow_event *event,
                                   size_t *used);
#define QALLOW_EVENT_INIT                                                                          \
    {                                                                                              \
        sizeof(struct qallow_event), 0, 0, 0, NULL, 0, 0, 0, 0, 0, 0, 0, 0, {0, 0}, NULL, 0, 0,    \
        {                                                                                          \
            0                                                                                      \
        }                                                                                          \
    }

#ifdef __cplusplus
}
#endif
#endif
