/* SPDX-License-Identifier: Apache-2.0 */
/* Records as bytes: decoding for everybody who reads a log (encoding: batch.c). */
#ifndef QR_RECORD_H
#define QR_RECORD_H

#include "runtime/bytes.h"
#include "runtime/meter.h"
#include "runtime/store.h"

/* Decodes the next record of a DATA body. `body` is where the body begins (for
 * operations_body_offset). 1: *record filled; 0: end; QALLOW_E_SERIALIZATION with detail. */
int qr_record_next(struct qr_cursor *cursor, const uint8_t *body, struct qr_record *record);

/* Applies the records of DATA bodies to a state, in order. */
struct qr_applier {
    struct qr_state *state;
    uint64_t epoch;           /* version given to changed pages */
    uint64_t records, pages;  /* applied so far; distinct pages among them */
    uint64_t piece_limit;     /* of all pages together */
    uint64_t stored_from;     /* CONTENT frames of the transaction are not before this offset */
    struct qr_scan *scan;     /* not NULL: takes changes of bytes in memory to apply them later */
    struct qr_builder *open;  /* a content change whose last part has not come yet */
    struct qr_apply_counts counts; /* applied so far, as far as nobody has taken them */
    /* Called for each record before it is applied; nonzero ends. May be NULL. */
    int (*before)(void *context, const struct qr_record *record);
    /* Called for each page whose content just changed. May be NULL. */
    void (*changed)(void *context, const struct qr_page *page);
    void *context;
};
void qr_applier_init(struct qr_applier *applier, struct qr_state *state, uint64_t epoch);
void qr_applier_finish(struct qr_applier *applier);
/* Errors carry the page and the epoch. */
int qr_apply_body(struct qr_applier *applier, uint64_t frame_offset, const uint8_t *body,
                  size_t length);

#endif
