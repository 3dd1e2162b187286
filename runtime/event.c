/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events as bytes (docs/formats/tlog.md, "Events"):
 *
 *     0  u8   type, 1 to 63
 *     1  u64  time, nanoseconds since 1970
 *     9  u32  length of the data
 *    13       data
 *
 *     PAGE        u8 change, varint page; created: u8 kind, varint parent, then the name;
 *                 renamed: varint parent, then the name
 *     DELTA       varint page, its size, first byte changed, bytes written
 *     COMMIT      varint epoch, pages changed, u64 digest low, u64 high
 *     RECOMPUTE   varint page, u8 why, varint cause, bytes computed, first byte changed, bytes from
 *                 there to the last
 *     CHECKPOINT  varint epoch, then the path
 *     others      bytes that are not looked at
 *
 * Valid: the length is that of the data, varints are of the shortest spelling, nothing is left
 * over.
 */
#include "runtime/event.h"

#include <string.h>

#include "runtime/os.h"

enum { FIELDS_MAX = 64 }; /* bytes of data but for a name */

/* --- encoding --- */

static uint8_t *put_page(uint8_t *p, const struct qallow_event *e)
{
    *p++ = (uint8_t)e->change;
    p = qr_put_varint(p, e->page);
    if (e->change == QALLOW_PAGE_CREATED)
        *p++ = (uint8_t)e->kind;
    if (e->change == QALLOW_PAGE_CREATED || e->change == QALLOW_PAGE_RENAMED)
        p = qr_put_varint(p, e->parent);
    return p;
}

/* The data but for the name. */
static size_t put_fields(const struct qallow_event *e, uint8_t fields[FIELDS_MAX])
{
    uint8_t *p = fields;
    switch (e->type) {
    case QALLOW_EVENT_PAGE:
        p = put_page(p, e);
        break;
    case QALLOW_EVENT_DELTA:
        p = qr_put_varint(qr_put_varint(p, e->page), e->bytes);
        p = qr_put_varint(qr_put_varint(p, e->offset), e->changed);
        break;
    case QALLOW_EVENT_COMMIT:
        p = qr_put_varint(qr_put_varint(p, e->epoch), e->bytes);
        qr_store64(p, e->digest[0]);
        qr_store64(p + 8, e->digest[1]);
        p += 16;
        break;
    case QALLOW_EVENT_RECOMPUTE:
        p = qr_put_varint(p, e->page);
        *p++ = (uint8_t)e->change;
        p = qr_put_varint(qr_put_varint(p, e->parent), e->bytes);
        p = qr_put_varint(qr_put_varint(p, e->offset), e->changed);
        break;
    case QALLOW_EVENT_CHECKPOINT:
        p = qr_put_varint(p, e->exported);
        break;
    default:
        break;
    }
    return (size_t)(p - fields);
}

int qr_event_put(struct qr_arena *arena, const struct qallow_event *event)
{
    uint8_t head[QR_EVENT_HEADER], fields[FIELDS_MAX];
    size_t fields_length = event->data ? 0 : put_fields(event, fields);
    const void *rest = event->data ? (const void *)event->data : event->name;
    uint64_t rest_length = event->data ? event->length : event->name_length;
    size_t before = arena->length;
    if (rest_length > QR_EVENT_DATA_MAX)
        return qr_fail(QALLOW_E_LIMIT, "an event with %llu bytes: at most %d",
                       (unsigned long long)rest_length, QR_EVENT_DATA_MAX);
    head[0] = (uint8_t)event->type;
    qr_store64(head + QR_EVENT_TIME, (uint64_t)event->time_ns);
    qr_store32(head + QR_EVENT_LENGTH, (uint32_t)(fields_length + rest_length));
    if (qr_arena_put(arena, head, sizeof head) == SIZE_MAX ||
        qr_arena_put(arena, fields, fields_length) == SIZE_MAX ||
        qr_arena_put(arena, rest, rest_length) == SIZE_MAX) {
        arena->length = before;
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for an event");
    }
    return 0;
}

int qr_event_recompute(struct qr_txn *txn, uint64_t page, const struct qr_past *past)
{
    struct qallow_event event = QALLOW_EVENT_INIT;
    event.type = QALLOW_EVENT_RECOMPUTE;
    event.page = page;
    event.change = past->why;
    event.parent = past->cause;
    event.bytes = past->computed_bytes;
    event.offset = past->offset;
    event.changed = past->length;
    uint8_t small[QR_EVENT_HEADER + FIELDS_MAX];
    struct qr_arena arena = {.bytes = small, .capacity = sizeof small};
    int rc = qr_event_put(&arena, &event); /* it fits: nothing is allocated */
    return rc ? rc : qr_txn_events(txn, arena.bytes, arena.length);
}

int qallow_event_encode(const struct qallow_event *event, void *buffer, size_t size, size_t *length)
{
    struct qallow_event e = QALLOW_EVENT_INIT;
    struct qr_arena arena = {0};
    QR_CHECK_ARGUMENT(event != NULL && (buffer != NULL || size == 0));
    int rc = qr_api_options(event, &e, sizeof e, sizeof e);
    if (rc)
        return rc;
    QR_CHECK_ARGUMENT(e.type > 0 && e.type < QALLOW_EVENT_TYPES);
    QR_CHECK_ARGUMENT(e.data != NULL || e.length == 0);
    QR_CHECK_ARGUMENT(e.name != NULL || e.name_length == 0);
    rc = qr_event_put(&arena, &e);
    if (!rc && length)
        *length = arena.length;
    if (!rc && arena.length > size)
        rc = qr_fail(QALLOW_E_LIMIT, "an event of %zu bytes does not fit in %zu", arena.length,
                     size);
    if (!rc)
        memcpy(buffer, arena.bytes, arena.length);
    qr_free(arena.bytes);
    return rc;
}

/* --- decoding --- */

static void get_rest(struct qr_cursor *c, struct qallow_event *e)
{
    e->name_length = qr_left(c);
    e->name = (const char *)qr_get_bytes(c, e->name_length);
}

static void get_page(struct qr_cursor *c, struct qallow_event *e)
{
    e->change = qr_get_u8(c);
    e->page = qr_get_varint(c);
    c->bad |= e->change < QALLOW_PAGE_CREATED || e->change > QALLOW_PAGE_FREED;
    if (e->change == QALLOW_PAGE_CREATED)
        e->kind = qr_get_u8(c);
    if (e->change == QALLOW_PAGE_CREATED || e->change == QALLOW_PAGE_RENAMED) {
        e->parent = qr_get_varint(c);
        get_rest(c, e);
    }
}

static void get_fields(struct qr_cursor *c, struct qallow_event *e)
{
    switch (e->type) {
    case QALLOW_EVENT_PAGE:
        get_page(c, e);
        break;
    case QALLOW_EVENT_DELTA:
        e->page = qr_get_varint(c);
        e->bytes = qr_get_varint(c);
        e->offset = qr_get_varint(c);
        e->changed = qr_get_varint(c);
        break;
    case QALLOW_EVENT_COMMIT:
        e->epoch = qr_get_varint(c);
        e->bytes = qr_get_varint(c);
        e->digest[0] = qr_get_u64(c);
        e->digest[1] = qr_get_u64(c);
        break;
    case QALLOW_EVENT_RECOMPUTE:
        e->page = qr_get_varint(c);
        e->change = qr_get_u8(c);
        e->parent = qr_get_varint(c);
        e->bytes = qr_get_varint(c);
        e->offset = qr_get_varint(c);
        e->changed = qr_get_varint(c);
        break;
    case QALLOW_EVENT_CHECKPOINT:
        e->exported = qr_get_varint(c);
        get_rest(c, e);
        break;
    default:
        (void)qr_get_bytes(c, qr_left(c));
        break;
    }
}

int qallow_event_decode(const void *bytes, size_t size, struct qallow_event *event, size_t *used)
{
    struct qallow_event e = QALLOW_EVENT_INIT;
    struct qr_cursor c = qr_cursor(bytes, size);
    QR_CHECK_ARGUMENT(event != NULL && used != NULL && (bytes != NULL || size == 0));
    e.type = qr_get_u8(&c);
    e.time_ns = (int64_t)qr_get_u64(&c);
    const uint8_t *length = qr_get_bytes(&c, 4);
    e.length = length ? qr_load32(length) : 0;
    e.data = qr_get_bytes(&c, e.length);
    struct qr_cursor data = qr_cursor(e.data, c.bad ? 0 : e.length);
    if (!c.bad)
        get_fields(&data, &e);
    if (c.bad || data.bad || data.at != data.end || e.type == 0 || e.type >= QALLOW_EVENT_TYPES)
        return qr_fail(QALLOW_E_SERIALIZATION, "a malformed event of type %u", (unsigned)e.type);
    *used = QR_EVENT_HEADER + e.length;
    return qr_api_give(event, &e, sizeof e);
}

/* --- filters --- */

int qr_event_filter(const struct qallow_event_filter *theirs, struct qallow_event_filter *filter)
{
    *filter = (struct qallow_event_filter)QALLOW_EVENT_FILTER_INIT;
    int rc = theirs ? qr_api_options(theirs, filter, sizeof *filter, sizeof *filter) : 0;
    if (rc)
        return rc;
    QR_CHECK_ARGUMENT(filter->reserved32 == 0);
    for (size_t i = 0; i < sizeof filter->reserved / sizeof *filter->reserved; i++)
        QR_CHECK_ARGUMENT(filter->reserved[i] == 0);
    if (!filter->types)
        filter->types = UINT64_MAX;
    return 0;
}

int qr_event_passes(const struct qallow_event_filter *filter, const struct qallow_event *event)
{
    return filter->types & QALLOW_EVENT_BIT(event->type) &&
           (!filter->page || filter->page == event->page);
}
