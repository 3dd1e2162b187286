/* SPDX-License-Identifier: Apache-2.0 */
/* The frame bodies of a batch, for the one who appends them. */
#ifndef QR_BATCH_INTERNAL_H
#define QR_BATCH_INTERNAL_H

#include "runtime/batch.h"

/* Both kinds of bytes have room for the rest of a frame around them (qr_log_append_large). */
struct qr_body {
    uint8_t *raw;     /* the records */
    size_t length, capacity;
    uint8_t *packed;  /* compressed, or NULL: store raw */
    size_t packed_length;
};

struct qr_batch {
    int level;
    void *compressor;        /* ZSTD_CCtx, made when needed */
    struct qr_body *bodies;  /* `count` of them; the last one is open unless sealed */
    size_t count, capacity;
    size_t made;             /* those behind `count` have memory from an earlier use */
    int sealed;
    size_t bytes, records;
    /* the delta being written */
    int in_delta, first_part;
    int last_first;          /* the part written last is its first, */
    size_t last_at;          /* and begins here in the open body */
    uint64_t page, base, old_size, new_size, old_end;
    int is_image;
    struct qr_encode_cost cost;
};

/* Its bodies have been taken; a delta that is being written goes on in the next ones, */
void qr_batch_taken(struct qr_batch *batch);
/* or in another batch, which is empty. */
void qr_batch_take_over(struct qr_batch *to, struct qr_batch *from);

/* An IMAGE instead of a DELTA: the old size is 0 and the edits insert the whole content. */
int qr_batch_image_begin(struct qr_batch *batch, uint64_t id, uint64_t size);

#endif
