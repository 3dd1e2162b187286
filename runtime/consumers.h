/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Consumers: who follows a log and how far it has come, in LOG.consumers
 * (docs/formats/consumers.md). A log is not pruned beyond what one of them still needs.
 */
#ifndef QR_CONSUMERS_H
#define QR_CONSUMERS_H

#include "runtime/store.h"

enum { QR_CONSUMER_NAME_MAX = 255 };

struct qr_consumer {
    char name[QR_CONSUMER_NAME_MAX + 1];
    uint64_t epoch;  /* that it holds; 0: none yet, so it needs none */
    int64_t time_ns; /* when it said so */
};

/* In the order in which they stand in the file. A nonzero return of visit ends it and is returned.
 * IO, DAMAGED. */
int qr_consumers_each(struct qr_store *store,
                      int (*visit)(void *context, const struct qr_consumer *consumer),
                      void *context);
/* Says that the consumer holds this epoch, and makes it known if it is not; durable when this
 * returns. ARGUMENT: no name; EPOCH_NOT_FOUND; BUSY: another process writes the file; IO. */
int qr_consumer_acknowledge(struct qr_store *store, const char *name, uint64_t epoch);
/* Forgets it. NO_INPUT: there is none of this name. */
int qr_consumer_remove(struct qr_store *store, const char *name);
/* The oldest epoch that any consumer needs, and who it is; UINT64_MAX if nobody needs any. */
int qr_consumers_need(struct qr_store *store, uint64_t *epoch, struct qr_consumer *who);

#endif
