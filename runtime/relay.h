/* SPDX-License-Identifier: Apache-2.0 */
/* Batches that one thread fills and another takes: encoding and writing at the same time. */
#ifndef QR_RELAY_H
#define QR_RELAY_H

#include "runtime/batch.h"

struct qr_relay;

/* What becomes of a full batch, which it leaves empty. Never called twice at a time, in the order
 * in which batches were passed, and no more once it has failed. */
typedef int (*qr_relay_take)(void *context, struct qr_batch *batch);

/* With is_threaded a thread of its own takes the batches, unless none can be had. NO_MEMORY. */
int qr_relay_create(int compress_level, int is_threaded, qr_relay_take take, void *context,
                    struct qr_relay **relay);
/* The batch to be filled, until it is passed. */
struct qr_batch *qr_relay_batch(const struct qr_relay *relay);
/* Passes it and gives another. Waits until the one before has been taken; an error is what became
 * of that one, or of this one: no batch is to be filled any more. */
int qr_relay_pass(struct qr_relay *relay);
/* Waits for what was passed, and says how it went; all is freed. What has not been passed is lost.
 * NULL is legal. */
int qr_relay_finish(struct qr_relay *relay);

#endif
