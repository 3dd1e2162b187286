/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A batch: records of one transaction on their way to the log, built by any one thread away from
 * all locks (diff, encode, digest and compression happen here), then handed to qr_txn_append in the
 * ordered section. It is a list of frame bodies of at most 1 MiB.
 */
#ifndef QR_BATCH_H
#define QR_BATCH_H

#include "runtime/delta.h"
#include "runtime/page.h"
#include "runtime/store.h"

struct qr_batch;

/* compress_level: 0 none, else zstd's (may be negative); frames that do not shrink stay plain. */
int qr_batch_create(int compress_level, struct qr_batch **batch);
void qr_batch_destroy(struct qr_batch *batch);
void qr_batch_reset(struct qr_batch *batch);
size_t qr_batch_bytes(const struct qr_batch *batch);   /* raw bytes of all bodies so far */
size_t qr_batch_records(const struct qr_batch *batch);

/* Attributes as they appear in CREATE and ATTRIBUTES records. */
struct qr_attributes {
    uint32_t mode;
    int64_t mtime_ns;
    const uint8_t *extra;
    uint16_t extra_length;
};

/* Records. They are checked when they are applied (qr_txn_append), not here. All return 0,
 * QALLOW_E_NO_MEMORY, or QALLOW_E_LIMIT. */
int qr_batch_page_create(struct qr_batch *batch, uint64_t id, uint64_t parent, const void *name,
                         size_t name_length, enum qr_kind kind,
                         const struct qr_attributes *attributes);
int qr_batch_page_attributes(struct qr_batch *batch, uint64_t id,
                             const struct qr_attributes *attributes);
int qr_batch_page_rename(struct qr_batch *batch, uint64_t id, uint64_t parent, const void *name,
                         size_t name_length);
int qr_batch_page_free(struct qr_batch *batch, uint64_t id);

/* The content change of one page, streamed: begin, any number of edits calls, end. Edits ascend
 * over all calls together; their literal bytes are only read during the call. base_id names the
 * page whose content (at this point of the log) is the old one: 0 for the page itself. old_or_null:
 * the whole old content if it is in memory (lets the encoder write small gaps out). */
int qr_batch_delta_begin(struct qr_batch *batch, uint64_t id, uint64_t base_id, uint64_t old_size,
                         uint64_t new_size);
int qr_batch_delta_edits(struct qr_batch *batch, struct qr_edits *edits,
                         const uint8_t *old_or_null);
/* content_sum: the sum over all cells of the new content (qr_page.content_sum of a page): the old
 * sum, less the terms of the changed cells before, plus those after; see qb_kernels.hash_cells. */
int qr_batch_delta_end(struct qr_batch *batch, struct qb_u128 content_sum);
/* The last edits and the end in one. */
int qr_batch_delta_last(struct qr_batch *batch, struct qr_edits *edits, struct qb_u128 content_sum);

/* The three in one, for edits that are all there: one record where they fit. The usual way. */
int qr_batch_delta(struct qr_batch *batch, uint64_t id, uint64_t base_id, uint64_t old_size,
                   uint64_t new_size, struct qr_edits *edits, const uint8_t *old_or_null,
                   struct qb_u128 content_sum);

/* Finishes the open frame (compresses it). Called by the worker so that it happens off the ordered
 * section; qr_txn_append does it otherwise. */
int qr_batch_seal(struct qr_batch *batch);

#endif
