/* SPDX-License-Identifier: Apache-2.0 */
/* Places in the log whose bytes go to places in memory, to be read in the order of the log. */
#ifndef QR_SPANS_H
#define QR_SPANS_H

#include "runtime/page.h"
#include "runtime/store.h"

struct qr_span {
    qr_ref ref; /* where the bytes stand now */
    uint8_t *to;
    uint64_t length;
};

/* {0}: none. */
struct qr_spans {
    struct qr_span *items; /* owned */
    size_t count, capacity;
};

/* Adds what a piece refers to, which is not zeros, cut where what a prune has moved begins and
 * ends. NO_MEMORY. */
int qr_spans_add(struct qr_spans *spans, struct qr_store *store, qr_ref ref, uint8_t *to,
                 uint64_t length);
/* By where they stand; those that stand at one place stay in their order. NO_MEMORY: as before. */
int qr_spans_sort(struct qr_spans *spans);
void qr_spans_finish(struct qr_spans *spans);

#endif
