/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a store counts of its own work since it was opened: what the deltas are that it applied, and
 * how long applying and committing took. `qallow_stats_get` tells it.
 *
 * Cost decides the form. An applier counts in plain words of its own; after each body of records
 * they are added to the store's, with the body's time. So the clock is read twice for a body and
 * not for a record, nothing is atomic, and whoever may change the state may count.
 *
 * Built with -DQR_NO_METER nothing is counted and no clock is read: to measure what it costs.
 */
#ifndef QR_METER_H
#define QR_METER_H

#include "runtime/delta.h"
#include "runtime/page.h"
#include "telemetry/histogram.h"

enum { QR_METER_OPERATIONS = QR_OP_STORED + 1, QR_METER_KINDS = QR_KIND_TENSOR + 1 };

struct qr_apply_counts {
    uint64_t operations[QR_METER_OPERATIONS]; /* of deltas, by their kind */
    uint64_t deltas[QR_METER_KINDS];          /* ended, by the kind of the page (enum qr_kind) */
    uint64_t delta_bytes;                     /* of their operations */
    uint64_t images;                          /* ended */
};

struct qr_os;
struct qr_meter {
    const struct qr_os *os; /* whose clock it is */
    struct qr_apply_counts counts;
    uint64_t open_ns;           /* took the bodies so far of a delta that has not ended */
    struct qt_histogram body;   /* applying one body of records */
    struct qt_histogram delta;  /* applying one delta: a body's time by the deltas that end in it */
    struct qt_histogram commit; /* as long as the caller of a commit waits; under the lock of
                                   durable.c */
};

struct qr_store;
/* Of a store; for the thread that owns it, or between qr_store_read_lock/unlock. */
struct qr_meter *qr_store_meter(struct qr_store *store);

static inline void qr_count_operation(struct qr_apply_counts *counts, unsigned kind)
{
#ifndef QR_NO_METER
    counts->operations[kind]++;
#endif
}

/* One part of a delta, or of an image. */
static inline void qr_count_part(struct qr_apply_counts *counts, unsigned page_kind, int is_image,
                                 int is_last, uint64_t bytes)
{
#ifndef QR_NO_METER
    if (is_image) {
        counts->images += is_last != 0;
        return;
    }
    counts->deltas[page_kind] += is_last != 0;
    counts->delta_bytes += bytes;
#endif
}

/* The time; 0 if nothing is measured. */
int64_t qr_meter_now(const struct qr_meter *meter);
/* A body was applied whole, begun at `began`: `counts` become the store's, and are zero. `open`: a
 * delta goes on in the next body. */
void qr_meter_body(struct qr_meter *meter, struct qr_apply_counts *counts, int open, int64_t began);
/* The caller of a commit has waited from `began` to `ended`. */
void qr_meter_commit(struct qr_meter *meter, int64_t began, int64_t ended);
void qr_meter_reset(struct qr_meter *meter);

#endif
