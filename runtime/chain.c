/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Epochs one after the other: walks the frames of a log and hands out one epoch per COMMIT frame.
 * Recovery, replay, followers, verification and every query of history go over this.
 *
 * What a COMMIT says is checked against what was seen: the epoch's number, the count of records
 * and, when a state goes along, the digest before and after.
 */
#include <stdio.h>

#include "runtime/error.h"
#include "runtime/store_internal.h"

int qr_chain_init(struct qr_chain *chain, struct qr_store *store, struct qr_state *state,
                  uint64_t offset, uint64_t prev, uint64_t next_epoch)
{
    *chain = (struct qr_chain){.store = store, .state = state, .next_epoch = next_epoch};
    qr_applier_init(&chain->applier, state, next_epoch);
    return qr_scan_init(&chain->scan, store->log, offset, prev);
}

void qr_chain_finish(struct qr_chain *chain)
{
    qr_applier_finish(&chain->applier);
    qr_scan_finish(&chain->scan);
}

int qr_commit_parse(const struct qr_frame *frame, struct qr_epoch *info, uint64_t *next_id,
                    size_t *records_length)
{
    size_t tail = frame->length ? frame->body[frame->length - 1] : 0;
    size_t records = frame->length > tail ? frame->length - 1 - tail : 0;
    struct qr_cursor c = qr_cursor(frame->body + records, frame->length > tail ? tail : 0);
    *info = (struct qr_epoch){.epoch = qr_get_varint(&c)};
    info->records = qr_get_varint(&c);
    info->pages = qr_get_varint(&c);
    info->time_ns = (int64_t)qr_get_u64(&c);
    info->base_digest.lo = qr_get_u64(&c);
    info->base_digest.hi = qr_get_u64(&c);
    info->digest.lo = qr_get_u64(&c);
    info->digest.hi = qr_get_u64(&c);
    *next_id = qr_get_varint(&c);
    if (c.bad || c.at != c.end)
        return qr_fail(QALLOW_E_SERIALIZATION, "a malformed commit frame at offset %llu",
                       (unsigned long long)frame->offset);
    info->frame_end = frame->offset + qr_frame_span(frame->stored);
    *records_length = records;
    return 0;
}

static int mismatch(const struct qr_chain *chain, const struct qr_frame *frame, const char *what)
{
    return qr_fail(QALLOW_E_DAMAGED, "%s: epoch %llu at offset %llu: %s",
                   qr_quotez(chain->store->path), (unsigned long long)chain->next_epoch,
                   (unsigned long long)frame->offset, what);
}

/* Records that make no sense are damage: says where they stand. Callers' own results pass. */
static int senseless(struct qr_chain *chain, const struct qr_frame *frame, int rc)
{
    int ours = rc == QALLOW_E_SERIALIZATION || rc == QALLOW_E_INVALID_DELTA ||
               rc == QALLOW_E_PAGE_NOT_FOUND || rc == QALLOW_E_PAGE_EXISTS;
    if (!ours || chain->record_rc)
        return rc;
    char detail[512];
    snprintf(detail, sizeof detail, "%s", qallow_error_detail());
    return mismatch(chain, frame, detail);
}

static int before_record(void *context, const struct qr_record *record)
{
    struct qr_chain *chain = context;
    return chain->record_rc = chain->record ? chain->record(chain->context, record) : 0;
}

static void after_content(void *context, const struct qr_page *page)
{
    struct qr_chain *chain = context;
    if (chain->changed)
        chain->changed(chain->context, page);
}

static int chain_apply(struct qr_chain *chain, const struct qr_frame *frame, size_t length)
{
    int64_t began = chain->meter ? qr_meter_now(chain->meter) : 0;
    int rc = qr_apply_body(&chain->applier, frame->offset, frame->body, length);
    if (!rc && chain->meter)
        qr_meter_body(chain->meter, &chain->applier.counts, chain->applier.open != NULL, began);
    return senseless(chain, frame, rc);
}

/* A frame of a transaction: the first one begins it. */
static void chain_enter(struct qr_chain *chain, const struct qr_frame *frame)
{
    if (chain->in_transaction)
        return;
    chain->in_transaction = 1;
    chain->transaction_start = frame->offset;
    chain->counted = 0;
    qr_applier_finish(&chain->applier);
    qr_applier_init(&chain->applier, chain->state, chain->next_epoch);
    chain->applier.stored_from = frame->offset;
}

/* Applies (or counts) the records in the first `length` bytes of a frame's body. */
static int chain_data(struct qr_chain *chain, const struct qr_frame *frame, size_t length)
{
    chain_enter(chain, frame);
    if (chain->state) {
        chain->applier.before = before_record;
        chain->applier.changed = after_content;
        chain->applier.context = chain;
        chain->applier.scan = chain->state->places && chain->scan.ahead ? &chain->scan : NULL;
        return chain_apply(chain, frame, length);
    }
    struct qr_cursor cursor = qr_cursor(frame->body, length);
    struct qr_record record;
    int rc;
    while ((rc = qr_record_next(&cursor, frame->body, &record)) > 0) {
        chain->counted++;
        if ((rc = before_record(chain, &record)))
            break;
    }
    return senseless(chain, frame, rc);
}

static int chain_commit(struct qr_chain *chain, const struct qr_frame *frame,
                        struct qr_epoch *info)
{
    uint64_t next_id;
    size_t records_length;
    struct qr_state *state = chain->state;
    int rc = qr_commit_parse(frame, info, &next_id, &records_length);
    if (!rc && records_length)
        rc = chain_data(chain, frame, records_length);
    if (rc)
        return rc;
    if (info->epoch != chain->next_epoch)
        return mismatch(chain, frame, "the commit frame has another number");
    uint64_t records = state ? chain->applier.records : chain->counted;
    if (info->records != (chain->in_transaction ? records : 0)) /* an epoch may change nothing */
        return mismatch(chain, frame, "records are missing");
    if (state) {
        if (chain->applier.open)
            return mismatch(chain, frame, "a delta has no last part");
        qr_state_sum_new(state);
        if (!qb_u128_equal(state->digest, info->digest))
            return mismatch(chain, frame, "the digest of the state is not the recorded one");
        if (next_id < state->next_id)
            return mismatch(chain, frame, "the next page id is in use");
        if (info->time_ns <= state->time_ns)
            return mismatch(chain, frame, "its time is not after that of the epoch before");
        state->epoch = info->epoch;
        state->time_ns = info->time_ns;
        state->next_id = next_id;
        if (state->dead && (rc = qr_scan_settle(&chain->scan))) /* pages may move */
            return rc;
        if ((rc = qr_state_compact(state)))
            return rc;
    }
    info->frame_start = chain->in_transaction ? chain->transaction_start : frame->offset;
    chain->in_transaction = 0;
    chain->next_epoch++;
    return 1;
}

int qr_chain_next(struct qr_chain *chain, struct qr_epoch *info)
{
    struct qr_frame frame;
    struct qb_u128 before = {0, 0};
    if (chain->state)
        before = chain->state->digest;
    for (;;) {
        if (chain->limit && chain->scan.offset >= chain->limit)
            return 0;
        int rc = qr_scan_next(&chain->scan, &frame);
        if (rc <= 0)
            return rc;
        if (frame.synced_to > chain->max_synced_to)
            chain->max_synced_to = frame.synced_to;
        chain->last_frame = frame.offset;
        chain->last_type = frame.type;
        if (frame.type == QR_FRAME_COMMIT) {
            rc = chain_commit(chain, &frame, info);
            if (rc == 1 && chain->state && !qb_u128_equal(before, info->base_digest))
                return mismatch(chain, &frame, "it was made on another state");
            return rc;
        }
        if (frame.type == QR_FRAME_DATA)
            rc = chain_data(chain, &frame, frame.length);
        else if (frame.type == QR_FRAME_CONTENT)
            chain_enter(chain, &frame), rc = 0; /* read when somebody asks for the bytes */
        else if (chain->in_transaction)
            rc = mismatch(chain, &frame, "a transaction without its commit frame");
        else
            rc = chain->other ? chain->other(chain->context, &frame) : 0;
        if (rc)
            return rc;
    }
}
