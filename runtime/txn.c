/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transactions: the ordered section. Batches are appended as DATA frames and applied to the state
 * as they come; the COMMIT frame makes them an epoch; a sync makes it durable; a keyframe follows
 * when enough log has gathered since the last one.
 *
 * Abort cuts the log back and takes the state from the log again: there is no undo, only "the state
 * as of the last epoch", which every reader of history asks for anyway.
 *
 * The last body, if it is small, rides in the COMMIT frame: a small commit is one frame.
 *
 * Order of a commit: DATA frames, COMMIT frame, all of it written; then the epoch is entered into
 * the directory ("landed"); under QR_SYNC_COMMIT it is synced (durable.c), and only then published
 * and acknowledged. A keyframe comes after; it is synced before the index speaks of it (under
 * QR_SYNC_NONE it is not, and the index waits for the end).
 */
#include <stdio.h>

#include "runtime/error.h"
#include "runtime/store_internal.h"
#include "telemetry/telemetry.h"

enum {
    SMALL_COMMIT = 256 << 10, /* bytes; smaller ones get their blocks written ahead */
    KEYFRAME_MIN = 4 << 20,   /* bytes of log between keyframes, at least */
    KEYFRAME_RATIO = 8,       /* at least this many times the size of the last one */
    KEYFRAME_PER_PAGE = 512,  /* and so many bytes a page: reading them takes no longer than having
                                 a page from a keyframe */
    PIECES_MIN = 16,          /* a page may have so many pieces ... */
    PIECES_PER_BYTES = 128,   /* ... and one more for so many bytes, before it gets an image */
    HELD_MAX = 16 << 10,      /* bytes of records that may ride in a COMMIT frame */
    COMMIT_TAIL_MAX = 128,    /* its own fields, at most */
    MANY_PIECES = 1 << 20,    /* of all pages; beyond, pages get an image 8 times sooner */
};

struct qr_txn {
    struct qr_store *store;
    struct qr_log_mark mark;
    struct qr_applier applier;
    int begun;        /* something was appended */
    int rc;           /* the first failure; only abort is left */
    uint64_t next_id; /* ids handed out and not yet created */
    uint8_t *held;    /* a small body that is applied but not written: it rides in the COMMIT
                         frame, or becomes a DATA frame at the same place if more comes */
    size_t held_length, held_capacity;
    struct qb_u128 base_digest;
    uint64_t *fragmented; /* pages that need an image */
    size_t fragmented_count, fragmented_capacity;
    struct qr_event_batch *events;
    int is_forced;
    int insists;        /* on being an epoch */
    uint64_t committed; /* the newest epoch, once this has not failed */
};

int qr_store_check_writable(struct qr_store *store)
{
    if (!store->options.writable)
        return qr_fail(QALLOW_E_STATE, "%s: opened for reading only", qr_quotez(store->path));
    if (store->broken || store->log->failed)
        return qr_fail(QALLOW_E_STATE, "%s: read-only since an earlier failure; open it again",
                       qr_quotez(store->path));
    return 0;
}

static void note_fragmented(void *context, const struct qr_page *page)
{
    struct qr_txn *txn = context;
    if (page->recent_count) /* not yet counted */
        return;
    uint64_t limit = PIECES_MIN + page->size / PIECES_PER_BYTES;
    if (txn->store->state->piece_total > MANY_PIECES)
        limit = PIECES_MIN / 2 + limit / 8;
    if (page->piece_count <= limit)
        return;
    if (!QR_GROW(txn->fragmented, txn->fragmented_count, txn->fragmented_capacity))
        txn->fragmented[txn->fragmented_count++] = page->id;
}

static int note_derived(void *context, const struct qr_record *record)
{
    const struct qr_derive *derive = ((struct qr_txn *)context)->store->derive;
    return derive->note(derive->context, record);
}

int qr_txn_begin(struct qr_store *store, struct qr_txn **out)
{
    qr_durable_look(store);
    int rc = qr_store_check_writable(store);
    if (rc)
        return rc;
    if (store->txn)
        return qr_fail(QALLOW_E_STATE, "%s: a transaction is open already", qr_quotez(store->path));
    struct qr_txn *txn = qr_calloc(1, sizeof *txn);
    if (!txn)
        return qr_fail(QALLOW_E_NO_MEMORY, "transaction");
    txn->store = store;
    txn->mark = qr_log_mark(store->log);
    txn->base_digest = store->state->digest;
    qr_applier_init(&txn->applier, store->state, store->state->epoch + 1);
    txn->applier.stored_from = txn->mark.end;
    txn->applier.changed = note_fragmented;
    txn->applier.before = store->derive ? note_derived : NULL;
    txn->applier.context = txn;
    store->txn = txn;
    *out = txn;
    return 0;
}

uint64_t qr_txn_new_id(struct qr_txn *txn)
{
    if (txn->next_id < txn->store->state->next_id)
        txn->next_id = txn->store->state->next_id;
    return txn->next_id++;
}

uint64_t qr_txn_epoch(const struct qr_txn *txn) { return txn->applier.epoch; }
void qr_txn_force(struct qr_txn *txn) { txn->is_forced = 1; }
void qr_txn_insist(struct qr_txn *txn) { txn->insists = 1; }
int qr_txn_is_forced(const struct qr_txn *txn) { return txn->is_forced; }

static void txn_destroy(struct qr_txn *txn)
{
    const struct qr_derive *derive = txn->store->derive;
    txn->store->txn = NULL;
    if (derive)
        derive->ended(derive->context, txn->committed);
    if (txn->events && txn->committed && txn->store->events_made) {
        txn->events->epoch = txn->committed;
        txn->store->events_made(txn->store->events_context, txn->events);
    } else {
        qr_free(txn->events);
    }
    qr_applier_finish(&txn->applier);
    qr_free(txn->fragmented);
    qr_free(txn->held);
    qr_free(txn);
}

/* Keeps what is known of files over a state that was taken from the log again. */
static void carry_stats(const struct qr_state *from, struct qr_state *to)
{
    for (struct qr_page *page = qr_state_next_page(to, 0); page;
         page = qr_state_next_page(to, page->id)) {
        const struct qr_page *old = qr_state_find(from, page->id);
        if (old)
            page->stat = old->stat;
    }
}

/* The state of an epoch takes the place of the one that has gone beyond it. What is held of pages
 * that have not changed since stays, for those who look at it now. */
static int take_back_state(struct qr_store *store, uint64_t epoch)
{
    struct qr_state *state = NULL;
    int rc = qr_store_state_at(store, epoch, &state);
    if (rc)
        return rc;
    pthread_mutex_lock(&store->sharing.lock);
    pthread_rwlock_wrlock(&store->lock);
    carry_stats(store->state, state);
    qr_state_move_held(store->state, state);
    struct qr_state *old = store->state;
    store->state = state;
    pthread_rwlock_unlock(&store->lock);
    qr_state_destroy(old);
    pthread_mutex_unlock(&store->sharing.lock);
    return 0;
}

/* Back to the last epoch: the log is cut, the state read from it again. If the log cannot be cut,
 * nothing may be written any more, but the state is taken back all the same. Only if there is no
 * memory even for that, a broken store is left with what it has. */
static void roll_back(struct qr_txn *txn)
{
    struct qr_store *store = txn->store;
    if (store->log->failed || qr_log_rewind(store->log, txn->mark))
        store->broken = 1;
    if (take_back_state(store, txn->applier.epoch - 1))
        store->broken = 1;
}

void qr_store_fall_back(struct qr_store *store)
{
    uint64_t epoch = qr_store_durable_epoch(store);
    if (store->state->epoch <= epoch)
        return;
    store->broken = 1; /* also if there is no memory for the state */
    qr_log_sync_failed(store->log);
    if (take_back_state(store, epoch) == 0) {
        pthread_rwlock_wrlock(&store->lock);
        qr_directory_cut(&store->directory, epoch);
        pthread_rwlock_unlock(&store->lock);
    }
    if (store->derive)
        store->derive->fell_back(store->derive->context);
}

void qr_txn_abort(struct qr_txn *txn)
{
    if (!txn)
        return;
    if (txn->begun)
        roll_back(txn);
    txn_destroy(txn);
}

/* Writes what is held as a DATA frame, where its references already say it is. */
static int release_held(struct qr_txn *txn)
{
    uint64_t offset, expected = txn->store->log->end;
    if (!txn->held_length)
        return 0;
    int rc = qr_log_append(txn->store->log, QR_FRAME_DATA, 0, txn->held, txn->held_length, &offset);
    qr_assert(rc || offset == expected);
    txn->held_length = 0;
    return rc;
}

int qr_txn_settle(struct qr_txn *txn, int readable)
{
    int rc = release_held(txn);
    return rc || !readable ? rc : qr_log_flush(txn->store->log);
}

/* Room for so many bytes of records, and for the fields of a commit behind them. */
static int reserve_held(struct qr_txn *txn, size_t length)
{
    if (txn->held_capacity >= length + COMMIT_TAIL_MAX)
        return 0;
    uint8_t *grown = qr_realloc(txn->held, length + COMMIT_TAIL_MAX);
    if (!grown)
        return qr_fail(QALLOW_E_NO_MEMORY, "transaction");
    txn->held = grown;
    txn->held_capacity = length + COMMIT_TAIL_MAX;
    return 0;
}

/* Keeps a small body back. */
static int hold(struct qr_txn *txn, const struct qr_body *body)
{
    int rc = reserve_held(txn, body->length);
    if (rc)
        return rc;
    memcpy(txn->held, body->raw, body->length);
    txn->held_length = body->length;
    return 0;
}

static int append_body(struct qr_txn *txn, const struct qr_body *body)
{
    struct qr_store *store = txn->store;
    int rc = release_held(txn);
    uint64_t offset = store->log->end;
    if (rc)
        return rc;
    if (!body->packed && body->length <= HELD_MAX)
        rc = hold(txn, body);
    else if (body->packed)
        rc = qr_log_append_large(store->log, QR_FRAME_DATA, QR_FRAME_ZSTD, body->packed,
                                 body->packed_length, NULL);
    else
        rc = qr_log_append_large(store->log, QR_FRAME_DATA, 0, body->raw, body->length, NULL);
    if (rc)
        return rc;
    pthread_rwlock_wrlock(&store->lock);
    int64_t began = qr_meter_now(&store->meter);
    rc = qr_apply_body(&txn->applier, offset, body->raw, body->length);
    if (!rc)
        qr_meter_body(&store->meter, &txn->applier.counts, txn->applier.open != NULL, began);
    pthread_rwlock_unlock(&store->lock);
    return rc;
}

int qr_txn_append(struct qr_txn *txn, struct qr_batch *batch)
{
    qr_assert(!batch->in_delta || batch->count);
    if (txn->rc)
        return qr_fail(QALLOW_E_STATE, "the transaction has failed and can only be aborted");
    int rc = qr_batch_seal(batch);
    for (size_t i = 0; i < batch->count && !rc; i++) {
        txn->begun = 1;
        if (batch->bodies[i].length)
            rc = append_body(txn, &batch->bodies[i]);
    }
    qr_batch_taken(batch);
    return txn->rc = rc;
}

int qr_txn_put_content(struct qr_txn *txn, const void *body, size_t length, qr_ref *ref)
{
    uint64_t offset = 0;
    if (txn->rc)
        return qr_fail(QALLOW_E_STATE, "the transaction has failed and can only be aborted");
    txn->begun = 1;
    txn->rc = release_held(txn);
    if (!txn->rc)
        txn->rc = qr_log_append(txn->store->log, QR_FRAME_CONTENT, 0, body, length, &offset);
    *ref = qr_ref_make(offset, 0);
    return txn->rc;
}

/* ---------------------------------------------------------------- images */

static int append_images(void *txn, struct qr_batch *batch) { return qr_txn_append(txn, batch); }

/* Pages in too many pieces get an image, in the same epoch that made them so. */
static int write_images(struct qr_txn *txn)
{
    struct qr_relay *relay = NULL;
    struct qr_reader *reader = NULL;
    size_t count = txn->fragmented_count;
    if (!count)
        return 0;
    int rc = release_held(txn);
    if (!rc)
        rc = qr_log_flush(txn->store->log);
    if (!rc)
        rc = qr_relay_create(txn->store->options.compress_level, 0, append_images, txn, &relay);
    if (!rc)
        rc = qr_reader_create(txn->store, 8 << 20, &reader);
    for (size_t i = 0; i < count && !rc; i++) {
        const struct qr_page *page = qr_state_find(txn->store->state, txn->fragmented[i]);
        if (!page || page->piece_count <= PIECES_MIN / 2) /* freed or replaced since */
            continue;
        rc = qr_batch_image_begin(qr_relay_batch(relay), page->id, page->size);
        if (!rc)
            rc = qr_content_copy(relay, reader, page);
        qt_add(QT_LOG_IMAGES, 1);
    }
    if (!rc)
        rc = qr_relay_pass(relay);
    qr_reader_destroy(reader);
    (void)qr_relay_finish(relay); /* it has no thread, so all is said */
    return rc;
}

/* ---------------------------------------------------------------- commit */

static int64_t commit_time(const struct qr_store *store, int64_t now)
{
    if (store->options.commit_time_ns || store->options.logical_clock)
        now = store->options.commit_time_ns;
    return now > store->state->time_ns ? now : store->state->time_ns + 1;
}

static int append_commit(struct qr_txn *txn, int64_t time_ns, uint64_t *offset)
{
    struct qr_store *store = txn->store;
    int rc = reserve_held(txn, txn->held_length);
    if (rc)
        return rc;
    uint8_t *tail = txn->held + txn->held_length, *p = tail;
    p = qr_put_varint(p, txn->applier.epoch);
    p = qr_put_varint(p, txn->applier.records);
    p = qr_put_varint(p, txn->applier.pages);
    const uint64_t fixed[] = {(uint64_t)time_ns, txn->base_digest.lo, txn->base_digest.hi,
                              store->state->digest.lo, store->state->digest.hi};
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++, p += 8)
        qr_store64(p, fixed[i]);
    p = qr_put_varint(p, store->state->next_id);
    size_t length = (size_t)(p - tail);
    *p++ = (uint8_t)length;
    qr_assert(length < COMMIT_TAIL_MAX);
    return qr_log_append(store->log, QR_FRAME_COMMIT, 0, txn->held, (size_t)(p - txn->held),
                         offset);
}

/* ---------------------------------------------------------------- events */

int qr_txn_events(struct qr_txn *txn, const void *events, size_t length)
{
    struct qr_event_batch *batch = txn->events;
    size_t had = batch ? batch->length : 0, capacity = batch ? batch->capacity : 256;
    while (capacity - had < length)
        capacity *= 2;
    if (!batch || capacity > batch->capacity) {
        batch = qr_realloc(batch, sizeof *batch + capacity);
        if (!batch)
            return qr_fail(QALLOW_E_NO_MEMORY, "%zu bytes of events", capacity);
        *batch = (struct qr_event_batch){.length = had, .capacity = capacity};
        txn->events = batch;
    }
    memcpy(batch->bytes + had, events, length);
    batch->length += length;
    return 0;
}

static int append_event_frame(struct qr_txn *txn, size_t from, size_t to)
{
    return from == to ? 0
                      : qr_log_append(txn->store->log, QR_FRAME_EVENT, 0, txn->events->bytes + from,
                                      to - from, NULL);
}

/* Gives the events the time of the commit. Those that are to be recorded become frames. */
static int append_events(struct qr_txn *txn, int64_t time_ns)
{
    size_t begin = 0, at = 0, span;
    int rc = 0;
    for (; txn->events && at < txn->events->length && !rc; at += span) {
        uint8_t *event = txn->events->bytes + at;
        span = QR_EVENT_HEADER + qr_load32(event + QR_EVENT_LENGTH);
        qr_store64(event + QR_EVENT_TIME, (uint64_t)time_ns);
        int is_recorded = (int)(txn->store->event_types >> event[0] & 1);
        if (!is_recorded || at + span - begin > QR_BODY_MAX) {
            rc = append_event_frame(txn, begin, at);
            begin = is_recorded ? at : at + span;
        }
    }
    return rc ? rc : append_event_frame(txn, begin, at);
}

/* ---------------------------------------------------------------- the end */

/* Everything goes into the file, and onto the disk if an interval has passed. */
static int write_out(struct qr_store *store, uint64_t bytes)
{
    int rc = qr_log_flush(store->log);
    if (rc || store->options.sync == QR_SYNC_NONE)
        return rc;
    if (store->options.sync == QR_SYNC_COMMIT) /* who waits for it syncs it */
        return bytes < SMALL_COMMIT && store->log->preallocated < store->log->flushed + 4096
                   ? qr_log_preallocate(store->log, SMALL_COMMIT)
                   : 0;
    int64_t now = store->os->now_ns(store->os->context), since = now - store->last_sync_ns;
    if (since >= 0 && since < (int64_t)store->options.sync_interval_ms * 1000000)
        return 0;
    store->last_sync_ns = now;
    return qr_store_sync_log(store);
}

int qr_store_keyframe_is_due(const struct qr_store *store)
{
    uint64_t since = store->log->end - store->keyframe_end;
    return since > KEYFRAME_MIN && since > KEYFRAME_RATIO * store->keyframe_bytes &&
           since > KEYFRAME_PER_PAGE * store->state->page_count;
}

int qr_store_write_keyframe(struct qr_store *store)
{
    uint64_t offset, before = store->log->end;
    struct qr_log_mark mark = qr_log_mark(store->log);
    int rc = qr_keyframe_write(store->log, store->state, store->log->end, store->log->prev,
                               store->options.compress_level, &offset);
    if (!rc)
        rc = store->options.sync == QR_SYNC_NONE ? qr_log_flush(store->log)
                                                 : qr_store_sync_log(store);
    if (rc) { /* not needed: the epoch stands. What is half-written goes away. */
        if (!store->log->failed)
            qr_log_rewind(store->log, mark);
        return rc;
    }
    pthread_rwlock_wrlock(&store->lock);
    rc = qr_directory_add_keyframe(&store->directory, store->state->epoch, offset);
    pthread_rwlock_unlock(&store->lock);
    store->keyframe_end = store->log->end;
    store->keyframe_bytes = store->log->end - before;
    qt_add(QT_LOG_KEYFRAMES, 1);
    return rc ? rc : qr_index_write(store);
}

/* Enters the new epoch; nothing here can fail any more but memory, and that is asked for first. */
static void enter_epoch(struct qr_txn *txn, int64_t time_ns, uint64_t commit_offset)
{
    struct qr_store *store = txn->store;
    pthread_mutex_lock(&store->sharing.lock);
    pthread_rwlock_wrlock(&store->lock);
    store->state->epoch = txn->applier.epoch;
    store->state->time_ns = time_ns;
    if (qr_directory_add_commit(&store->directory, txn->applier.epoch, commit_offset))
        store->broken = 1;
    qr_state_compact(store->state); /* without memory it waits for the next epoch */
    pthread_rwlock_unlock(&store->lock);
    pthread_mutex_unlock(&store->sharing.lock);
    store->appended = 1;
    qt_add(QT_LOG_COMMITS, 1);
    qt_add(QT_LOG_RECORDS, txn->applier.records);
    qt_set(QT_PAGES, store->state->page_count);
    qt_set(QT_PAGE_BYTES, store->state->bytes);
    qr_durable_landed(store);
}

/* Room for the epoch in the directory, so that entering it cannot fail. */
static int reserve_epoch(struct qr_store *store)
{
    struct qr_directory *d = &store->directory;
    pthread_rwlock_wrlock(&store->lock);
    int rc = QR_GROW(d->commits, d->commit_count, d->commit_capacity);
    pthread_rwlock_unlock(&store->lock);
    return rc ? qr_fail(rc, "the directory of epochs") : 0;
}

static int land(struct qr_txn *txn)
{
    struct qr_store *store = txn->store;
    uint64_t offset;
    if (txn->rc)
        return qr_fail(txn->rc, "the transaction has failed and can only be aborted");
    if (store->state->time_ns == INT64_MAX)
        return qr_fail(QALLOW_E_LIMIT, "%s: the newest epoch has the last time that there is",
                       qr_quotez(store->path));
    if (txn->applier.open)
        return qr_fail(QALLOW_E_INVALID_DELTA, "a delta has no last part");
    int rc = reserve_epoch(store);
    txn->begun = 1; /* also without records: if it fails, what there is is cut off */
    if (!rc)
        rc = write_images(txn);
    int64_t time_ns = commit_time(store, store->os->now_ns(store->os->context));
    if (!rc)
        rc = append_commit(txn, time_ns, &offset);
    if (!rc)
        rc = append_events(txn, time_ns);
    if (!rc)
        rc = write_out(store, store->log->end - txn->mark.end);
    if (!rc)
        enter_epoch(txn, time_ns, offset);
    return rc;
}

/* Nothing has changed, so there is no new epoch; there may be events. */
static int land_unchanged(struct qr_txn *txn)
{
    struct qr_store *store = txn->store;
    int rc = 0;
    if (txn->events) {
        txn->begun = 1; /* if it fails, what there is is cut off */
        rc = append_events(txn, commit_time(store, store->os->now_ns(store->os->context)));
        if (!rc)
            rc = store->options.sync == QR_SYNC_COMMIT ? qr_store_sync_log(store)
                                                       : qr_log_flush(store->log);
        store->appended = 1;
    }
    return rc;
}

int qr_txn_land(struct qr_txn *txn, uint64_t *epoch)
{
    const struct qr_derive *derive = txn->store->derive;
    *epoch = txn->store->state->epoch;
    int rc = !txn->rc && derive ? derive->run(derive->context, txn) : 0;
    if (!rc && !txn->rc && !txn->applier.records && !txn->insists) {
        rc = land_unchanged(txn);
    } else if (!rc) {
        rc = land(txn);
        *epoch = txn->applier.epoch;
    }
    if (rc) {
        char detail[1024];
        snprintf(detail, sizeof detail, "%s", qallow_error_detail());
        qr_txn_abort(txn);
        return qr_fail(rc, "%s", detail);
    }
    txn->committed = *epoch;
    txn_destroy(txn);
    return 0;
}

void qr_store_keyframe_if_due(struct qr_store *store)
{
    if (qr_store_keyframe_is_due(store))
        qr_store_write_keyframe(store); /* the epoch stands without; the next commit tries again */
}

void qr_store_count_commit(struct qr_store *store, int64_t began)
{
    int64_t now = store->os->now_ns(store->os->context);
    qt_observe_ns(QT_LOG_COMMIT_SECONDS, now > began ? (uint64_t)(now - began) : 0);
    pthread_mutex_lock(&store->durable.lock);
    qr_meter_commit(&store->meter, began, now);
    pthread_mutex_unlock(&store->durable.lock);
}

int qr_txn_commit(struct qr_txn *txn, uint64_t *epoch)
{
    struct qr_store *store = txn->store;
    int64_t began = store->os->now_ns(store->os->context);
    uint64_t before = store->state->epoch;
    int rc = qr_txn_land(txn, epoch);
    if (!rc && *epoch != before && (rc = qr_store_settle(store, *epoch)))
        qr_store_fall_back(store);
    if (!rc && *epoch != before) {
        qr_store_keyframe_if_due(store);
        qr_store_count_commit(store, began);
    }
    return rc;
}
