/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the public API's implementation share. */
#ifndef QR_API_H
#define QR_API_H

#include <pthread.h>

#include "qallow/store.h"
#include "runtime/event_hub.h"
#include "runtime/store.h"

struct edited;
struct qr_api_work;

enum { QR_API_SPARE = 16 };

struct qallow_view {
    struct qallow_store *store;
    struct qr_state *state; /* NULL: the newest of the store */
};

struct qallow_store {
    struct qr_store *store;
    struct qallow_view newest;
    /* Calls of the store that are not safe to share are made by one thread at a time: the ordered
     * section. Order of locks: `calls`, `newest_lock`, the store's lock of pages. */
    pthread_mutex_t calls;
    /* Held for writing while a commit changes the newest state: who looks at the newest state sees
     * an epoch whole, or the one before. */
    pthread_rwlock_t newest_lock;
    int writable;
    /* Open transactions, and which page belongs to which; under the lock of pages: api_claims.c */
    struct qallow_txn *txns;
    struct qallow_txn *structure; /* the one that creates, renames or frees pages */
    struct qallow_txn *landing; /* the one in the ordered section; under `calls` */
    struct edited **claims;       /* open addressing, by page id */
    size_t claims_size, claims_count;
    /* What is kept for reuse; more is made and freed as threads need it. */
    pthread_mutex_t spare_lock;
    struct qr_reader *readers[QR_API_SPARE];
    size_t reader_count;
    struct qr_api_work *works[QR_API_SPARE];
    size_t work_count;
    struct qr_event_hub events;
};

/* A reader for one thread for the time of one call. */
int qr_api_reader_take(struct qallow_store *store, struct qr_reader **reader);
void qr_api_reader_give(struct qallow_store *store, struct qr_reader *reader);

/* Copies an option struct of the caller, whose first member is its size, into ours of `size` bytes
 * (all zero before). Refuses a size below `smallest` and nonzero bytes that we do not know. */
int qr_api_options(const void *theirs, void *ours, size_t size, size_t smallest);

/* Fills a struct of the caller, whose first member is its size, from ours of `size` bytes. */
int qr_api_give(void *theirs, void *ours, size_t size);

#define QR_CHECK_ARGUMENT(condition)                                                               \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return qr_fail(QALLOW_E_ARGUMENT, "%s: expected %s", __func__, #condition);            \
    } while (0)

#endif
