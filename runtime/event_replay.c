/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events from the log. The frames of some epochs are walked once: records become PAGE and DELTA
 * events, a COMMIT frame one of its own, and EVENT frames are what they are. They belong to the
 * epoch whose COMMIT frame they follow.
 *
 * Live events take the same road (qr_event_gather), which is why they are the same.
 */
#include <string.h>

#include "runtime/event.h"
#include "runtime/os.h"

enum { STOP = 1000 }; /* what a callback returns when all has been seen */

struct replay {
    struct qr_store *store;
    struct qr_chain chain;
    uint64_t from, to;
    uint64_t types;            /* to be made of records */
    int with_frames;           /* EVENT frames, too */
    struct qr_arena records;   /* encoded events of the epoch, whose time is not known yet */
    struct qallow_event delta; /* some parts of it have come */
    int (*give)(void *context, struct qallow_event *event);
    void *context;
};

/* --- records --- */

static int add(struct replay *r, struct qallow_event *event)
{
    return r->types & QALLOW_EVENT_BIT(event->type) ? qr_event_put(&r->records, event) : 0;
}

static int add_delta(struct replay *r, const struct qr_record *record)
{
    struct qr_cursor cursor = qr_cursor(record->operations, record->operations_length);
    struct qallow_event *e = &r->delta;
    struct qr_op op;
    uint64_t end = 0;
    if (record->first) {
        *e = (struct qallow_event)QALLOW_EVENT_INIT;
        e->type = QALLOW_EVENT_DELTA;
        e->page = record->page;
        e->bytes = record->new_size;
        e->offset = UINT64_MAX;
    }
    while (qr_op_next(&cursor, &end, &op) > 0) { /* what is malformed has been refused before */
        e->offset = e->offset == UINT64_MAX ? op.offset : e->offset;
        e->changed += op.kind == QR_OP_MASK ? op.payload_length : op.new_length;
    }
    if (e->offset == UINT64_MAX && record->last)
        e->offset = 0;
    return record->last ? add(r, e) : 0;
}

static int add_record(void *context, const struct qr_record *record)
{
    static const uint8_t changes[] = {[QR_RECORD_CREATE] = QALLOW_PAGE_CREATED,
                                      [QR_RECORD_ATTRIBUTES] = QALLOW_PAGE_ATTRIBUTES,
                                      [QR_RECORD_RENAME] = QALLOW_PAGE_RENAMED,
                                      [QR_RECORD_FREE] = QALLOW_PAGE_FREED};
    struct replay *r = context;
    struct qallow_event event = QALLOW_EVENT_INIT;
    if (r->chain.next_epoch > r->to)
        return STOP;
    if (r->chain.next_epoch < r->from || record->type == QR_RECORD_IMAGE)
        return 0;
    if (record->type == QR_RECORD_DELTA)
        return add_delta(r, record);
    event.type = QALLOW_EVENT_PAGE;
    event.change = changes[record->type];
    event.page = record->page;
    if (record->type == QR_RECORD_CREATE || record->type == QR_RECORD_RENAME) {
        event.kind = record->type == QR_RECORD_CREATE ? (uint32_t)record->kind : 0;
        event.parent = record->parent;
        event.name = (const char *)record->name;
        event.name_length = record->name_length;
    }
    return add(r, &event);
}

/* --- giving --- */

/* Encoded events one after the other; `info` is their epoch's, or NULL: they have their time. */
static int give_events(struct replay *r, const uint8_t *bytes, size_t length, uint64_t epoch,
                       const struct qr_epoch *info)
{
    struct qallow_event event = QALLOW_EVENT_INIT;
    int rc = 0;
    for (size_t at = 0, used; at < length && !rc; at += used) {
        rc = qallow_event_decode(bytes + at, length - at, &event, &used);
        if (rc)
            return rc;
        event.epoch = epoch;
        if (info)
            event.time_ns = info->time_ns;
        rc = r->give(r->context, &event);
    }
    return rc;
}

static int give_epoch(struct replay *r, const struct qr_epoch *info)
{
    struct qallow_event event = QALLOW_EVENT_INIT;
    event.type = QALLOW_EVENT_COMMIT;
    event.time_ns = info->time_ns;
    event.epoch = info->epoch;
    event.bytes = info->pages;
    event.digest[0] = info->digest.lo;
    event.digest[1] = info->digest.hi;
    int rc = add(r, &event);
    if (!rc)
        rc = give_events(r, r->records.bytes, r->records.length, info->epoch, info);
    r->records.length = 0;
    return rc;
}

static int give_frame(void *context, const struct qr_frame *frame)
{
    struct replay *r = context;
    uint64_t epoch = r->chain.next_epoch - 1;
    if (frame->type != QR_FRAME_EVENT || !r->with_frames || epoch < r->from || epoch > r->to)
        return 0;
    int rc = give_events(r, frame->body, frame->length, epoch, NULL);
    if (rc == QALLOW_E_SERIALIZATION)
        rc = qr_fail(rc, "%s: malformed events at offset %llu", qr_quotez(r->store->path),
                     (unsigned long long)frame->offset);
    return rc;
}

/* --- walking --- */

/* Where the frames of epoch `from` begin, or those behind it if its own are gone. */
static int find_start(struct replay *r, uint64_t *offset, uint64_t *prev, uint64_t *next_epoch)
{
    struct qr_store *store = r->store;
    const struct qr_log_header *h = &store->log->header;
    struct qr_frame_buffers buffers = {NULL, NULL, 0, 0};
    struct qr_frame frame;
    struct qr_epoch info;
    struct qr_state *state = NULL;
    if (r->from == 0 || !qr_directory_commit(&store->directory, r->from)) {
        if (r->from || h->first_epoch != 1 || h->base) {
            int rc = qr_store_epoch(store, r->from, &info); /* says why, if there is none */
            if (!rc)
                rc = qr_store_seek(store, r->from, &state, offset, prev);
            *next_epoch = rc ? 0 : qr_state_epoch(state) + 1;
            qr_state_destroy(state);
            return rc;
        }
        *offset = h->start;
        *prev = h->start_prev;
        *next_epoch = 1;
        return 0;
    }
    int rc = qr_store_epoch(store, r->from, &info);
    if (!rc)
        rc = qr_log_read_frame(store->log, info.frame_start, &buffers, &frame);
    if (!rc) {
        *offset = info.frame_start;
        *prev = frame.prev;
        *next_epoch = r->from;
    }
    qr_frame_buffers_finish(&buffers);
    return rc;
}

static int walk(struct replay *r)
{
    struct qr_epoch info;
    uint64_t offset = 0, prev = 0, next = 0;
    int rc = find_start(r, &offset, &prev, &next);
    if (rc)
        return qr_log_check_pruned(r->store->log, rc);
    rc = qr_chain_init(&r->chain, r->store, NULL, offset, prev, next);
    r->chain.record = add_record;
    r->chain.other = give_frame;
    r->chain.context = r;
    r->chain.limit = r->store->log->end;
    while (!rc) {
        rc = qr_chain_next(&r->chain, &info);
        if (rc <= 0 || rc == STOP || info.epoch > r->to)
            break;
        rc = info.epoch < r->from ? 0 : give_epoch(r, &info);
        if (!rc && info.epoch == r->to && !r->with_frames)
            break;
    }
    uint64_t reached = r->chain.next_epoch;
    if (!rc && reached <= r->to)
        rc = qr_fail(QALLOW_E_DAMAGED, "%s: damaged at offset %llu, in epoch %llu: %s",
                     qr_quotez(r->store->path), (unsigned long long)r->chain.scan.offset,
                     (unsigned long long)reached, r->chain.scan.why ? r->chain.scan.why : "");
    qr_chain_finish(&r->chain);
    qr_free(r->records.bytes);
    return rc < 0 ? qr_log_check_pruned(r->store->log, rc) : 0;
}

/* --- for live ones --- */

static int put_event(void *context, struct qallow_event *event)
{
    return qr_event_put(context, event);
}

int qr_event_gather(struct qr_store *store, uint64_t epoch, uint64_t types, struct qr_arena *arena)
{
    struct replay r = {.store = store,
                       .from = epoch,
                       .to = epoch,
                       .types = types,
                       .give = put_event,
                       .context = arena};
    return walk(&r);
}

/* --- for who asks --- */

struct asked {
    struct qallow_event_filter filter;
    qallow_event_handler handler;
    void *context;
};

static int hand_on(void *context, struct qallow_event *event)
{
    struct asked *asked = context;
    if (qr_event_passes(&asked->filter, event))
        asked->handler(asked->context, event);
    return 0;
}

int qr_events_replay(struct qr_store *store, uint64_t from, uint64_t to,
                     const struct qallow_event_filter *filter, qallow_event_handler handler,
                     void *context)
{
    struct asked asked = {.handler = handler, .context = context};
    int rc = qr_event_filter(filter, &asked.filter);
    struct replay r = {.store = store,
                       .from = from,
                       .to = to,
                       .types = asked.filter.types,
                       .with_frames = 1,
                       .give = hand_on,
                       .context = &asked};
    if (!rc && to > qr_state_epoch(store->state))
        rc = qr_store_no_epoch(store, to);
    return rc || from > to ? rc : walk(&r);
}

int qallow_events_replay(struct qallow_store *store, uint64_t from, uint64_t to,
                         const struct qallow_event_filter *filter, qallow_event_handler handler,
                         void *context)
{
    QR_CHECK_ARGUMENT(store != NULL && handler != NULL);
    pthread_mutex_lock(&store->calls);
    int rc = qr_events_replay(store->store, from, to, filter, handler, context);
    pthread_mutex_unlock(&store->calls);
    return rc;
}
