/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoding records (docs/formats/tlog.md, "Records"). Only the shape is checked here; whether a
 * record makes sense for the state it meets is checked where it is applied.
 */
#include "runtime/record.h"
#include "runtime/error.h"
#include "runtime/format.h"

static void get_name(struct qr_cursor *c, struct qr_record *r)
{
    r->name_length = (size_t)qr_get_varint(c);
    if (r->name_length > QR_NAME_MAX)
        c->bad = 1;
    r->name = qr_get_bytes(c, r->name_length);
}

static void get_attributes(struct qr_cursor *c, struct qr_record *r)
{
    uint64_t mode = qr_get_varint(c);
    r->mode = (uint32_t)mode;
    r->mtime_ns = qr_unzigzag(qr_get_varint(c));
    r->extra_length = (size_t)qr_get_varint(c);
    r->extra = qr_get_bytes(c, r->extra_length);
    if (mode > 07777 || r->extra_length > QR_EXTRA_MAX)
        c->bad = 1;
}

static void get_delta(struct qr_cursor *c, const uint8_t *body, struct qr_record *r)
{
    uint8_t flags = qr_get_u8(c);
    r->first = flags & QR_DELTA_FIRST;
    r->last = flags & QR_DELTA_LAST;
    if (flags & ~7 || ((flags & QR_DELTA_BASE) && !r->first))
        c->bad = 1;
    if (flags & QR_DELTA_BASE)
        r->base = qr_get_varint(c);
    if (r->first) {
        r->old_size = qr_get_varint(c);
        r->new_size = r->old_size + (uint64_t)qr_unzigzag(qr_get_varint(c));
        if (r->old_size > QR_PAGE_SIZE_MAX || r->new_size > QR_PAGE_SIZE_MAX)
            c->bad = 1;
    }
    if (r->last) {
        r->content_sum.lo = qr_get_u64(c);
        r->content_sum.hi = qr_get_u64(c);
    }
    r->operations = c->at;
    r->operations_length = qr_left(c);
    r->operations_body_offset = (uint64_t)(c->at - body);
    c->at = c->end;
}

/* Field by field: as one, compilers clear so much with an instruction that takes longer to start
 * than all this takes. */
static void clear(struct qr_record *r)
{
    r->parent = r->base = r->old_size = r->new_size = 0;
    r->name = r->extra = r->operations = NULL;
    r->name_length = r->extra_length = r->operations_length = 0;
    r->kind = 0;
    r->mode = 0;
    r->mtime_ns = 0;
    r->first = r->last = 0;
    r->content_sum.lo = r->content_sum.hi = 0;
    r->operations_body_offset = 0;
}

int qr_record_next(struct qr_cursor *cursor, const uint8_t *body, struct qr_record *record)
{
    if (!cursor->bad && cursor->at == cursor->end)
        return 0;
    clear(record);
    record->type = qr_get_u8(cursor);
    uint64_t length = qr_get_varint(cursor);
    const uint8_t *bytes = qr_get_bytes(cursor, length);
    if (!bytes)
        return qr_fail(QALLOW_E_SERIALIZATION, "a record reaches beyond its frame");
    struct qr_cursor c = qr_cursor(bytes, (size_t)length);
    record->page = qr_get_varint(&c);
    switch (record->type) {
    case QR_RECORD_CREATE:
        record->parent = qr_get_varint(&c);
        record->kind = qr_get_u8(&c);
        get_name(&c, record);
        get_attributes(&c, record);
        break;
    case QR_RECORD_ATTRIBUTES:
        get_attributes(&c, record);
        break;
    case QR_RECORD_RENAME:
        record->parent = qr_get_varint(&c);
        get_name(&c, record);
        break;
    case QR_RECORD_FREE:
        break;
    case QR_RECORD_DELTA:
    case QR_RECORD_IMAGE:
        get_delta(&c, body, record);
        break;
    default:
        return qr_fail(QALLOW_E_SERIALIZATION, "unknown record type %d", (int)record->type);
    }
    if (c.bad || c.at != c.end)
        return qr_fail(QALLOW_E_SERIALIZATION, "page %llu: a malformed record of type %d",
                       (unsigned long long)record->page, (int)record->type);
    return 1;
}
