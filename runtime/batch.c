/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encoding records (docs/formats/tlog.md, "Records") into frame bodies.
 *
 * A body grows until the next record does not fit; then it is sealed (compressed if that pays) and
 * another is begun. Records other than deltas, and small deltas, always fit a fresh body. The edits
 * of a large delta are encoded into whatever room the open body has left; when it is used up, the
 * record is closed as one part and the next part begins in the next body.
 */
#include "runtime/batch_internal.h"

#include <zstd.h>

#include "runtime/error.h"
#include "runtime/format.h"
#include "runtime/os.h"

enum {
    /* type, length (3 bytes, written last), page, flags, base, sizes, sum: at most */
    DELTA_HEAD = 1 + 3 + 10 + 1 + 10 + 10 + 10 + 16,
    /* a part is not begun for less room than this */
    PART_MIN = DELTA_HEAD + 256,
    /* Bodies are kept well below QR_BODY_MAX: a frame is read and checked as a whole, so that small
     * ones make single files cheap to read, and stay in the cache while they are worked on. */
    BODY_TARGET = 256 << 10,
    BODIES_KEPT = 5, /* whose memory is used again */
    /* Edits that take no more are not divided: a page that is read or held comes from one frame. */
    WHOLE_MAX = BODY_TARGET / 8,
};

int qr_batch_create(int compress_level, struct qr_batch **out)
{
    struct qr_batch *batch = qr_calloc(1, sizeof *batch);
    if (!batch)
        return qr_fail(QALLOW_E_NO_MEMORY, "batch");
    batch->level = compress_level;
    batch->cost = (struct qr_encode_cost){.per_operation = 24, .masks = 0};
    *out = batch;
    return 0;
}

/* --- memory of bodies --- */

static void free_bytes(uint8_t *bytes)
{
    if (bytes)
        qr_free(bytes - QR_FRAME_HEADER);
}

/* NULL: there is no memory, and `old` stays. */
static uint8_t *resize_bytes(uint8_t *old, size_t length)
{
    uint8_t *room =
        qr_realloc(old ? old - QR_FRAME_HEADER : NULL, QR_FRAME_HEADER + length + QR_FRAME_PAD);
    return room ? room + QR_FRAME_HEADER : NULL;
}

static void free_body(struct qr_body *body)
{
    free_bytes(body->raw);
    free_bytes(body->packed);
    *body = (struct qr_body){NULL, 0, 0, NULL, 0};
}

void qr_batch_reset(struct qr_batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        struct qr_body *body = &batch->bodies[i];
        free_bytes(body->packed);
        body->packed = NULL;
        body->length = 0;
    }
    while (batch->made > BODIES_KEPT)
        free_body(&batch->bodies[--batch->made]);
    batch->count = 0;
    batch->bytes = batch->records = 0;
    batch->sealed = 0;
    batch->in_delta = 0;
}

void qr_batch_taken(struct qr_batch *batch)
{
    int in_delta = batch->in_delta;
    qr_batch_reset(batch);
    batch->in_delta = in_delta;
}

void qr_batch_take_over(struct qr_batch *to, struct qr_batch *from)
{
    qr_assert(to != from && to->count == 0);
    to->in_delta = from->in_delta;
    to->first_part = from->first_part;
    to->page = from->page;
    to->base = from->base;
    to->old_size = from->old_size;
    to->new_size = from->new_size;
    to->old_end = from->old_end;
    to->is_image = from->is_image;
    from->in_delta = 0;
}

void qr_batch_destroy(struct qr_batch *batch)
{
    if (!batch)
        return;
    while (batch->made > 0)
        free_body(&batch->bodies[--batch->made]);
    ZSTD_freeCCtx(batch->compressor);
    qr_free(batch->bodies);
    qr_free(batch);
}

size_t qr_batch_bytes(const struct qr_batch *batch) { return batch->bytes; }
size_t qr_batch_records(const struct qr_batch *batch) { return batch->records; }

/* Compresses the open body; keeps it plain when less than 1/16 is won, or less than the frame of
 * its own costs that a plain small body can do without (it rides in the COMMIT frame). */
int qr_batch_seal(struct qr_batch *batch)
{
    if (batch->sealed || !batch->count)
        return 0;
    batch->sealed = 1;
    struct qr_body *body = &batch->bodies[batch->count - 1];
    if (!batch->level || body->length < 64)
        return 0;
    if (!batch->compressor && !(batch->compressor = ZSTD_createCCtx()))
        return qr_fail(QALLOW_E_NO_MEMORY, "compressor");
    size_t bound = ZSTD_compressBound(body->length);
    uint8_t *packed = resize_bytes(NULL, bound);
    if (!packed)
        return qr_fail(QALLOW_E_NO_MEMORY, "compression of %zu bytes", body->length);
    size_t n =
        ZSTD_compressCCtx(batch->compressor, packed, bound, body->raw, body->length, batch->level);
    if (ZSTD_isError(n) || n + QR_FRAME_HEADER + 24 > body->length ||
        n > body->length - body->length / 16) {
        free_bytes(packed);
        return 0;
    }
    body->packed = packed;
    body->packed_length = n;
    return 0;
}

/* Begins another body. */
static int begin_body(struct qr_batch *batch)
{
    int rc = qr_batch_seal(batch);
    if (rc)
        return rc;
    if (batch->count == batch->made) {
        if (QR_GROW(batch->bodies, batch->made, batch->capacity) < 0)
            return QALLOW_E_NO_MEMORY;
        batch->bodies[batch->made++] = (struct qr_body){NULL, 0, 0, NULL, 0};
    }
    batch->count++;
    batch->sealed = 0;
    return 0;
}

/* Makes at least `need` bytes of room in the open body, beginning another one if it must. */
static int reserve(struct qr_batch *batch, size_t need, struct qr_body **out)
{
    qr_assert(need <= BODY_TARGET);
    struct qr_body *body = batch->count ? &batch->bodies[batch->count - 1] : NULL;
    if (!body || batch->sealed || body->length + need > BODY_TARGET) {
        int rc = begin_body(batch);
        if (rc)
            return rc;
        body = &batch->bodies[batch->count - 1];
    }
    *out = body;
    if (body->length + need <= body->capacity)
        return 0;
    size_t capacity = body->capacity ? body->capacity * 2 : 1024;
    while (capacity < body->length + need)
        capacity *= 2;
    if (capacity > BODY_TARGET)
        capacity = BODY_TARGET;
    uint8_t *grown = resize_bytes(body->raw, capacity);
    if (!grown)
        return qr_fail(QALLOW_E_NO_MEMORY, "batch");
    body->raw = grown;
    body->capacity = capacity;
    return 0;
}

/* Writes a record whose content stands in buffer[0..length). */
static int put_record(struct qr_batch *batch, enum qr_record_type type, const uint8_t *buffer,
                      size_t length)
{
    struct qr_body *body;
    qr_assert(!batch->in_delta);
    int rc = reserve(batch, 1 + QR_VARINT_MAX + length, &body);
    if (rc)
        return rc;
    uint8_t *p = body->raw + body->length;
    *p++ = (uint8_t)type;
    p = qr_put_varint(p, length);
    memcpy(p, buffer, length);
    size_t n = (size_t)(p + length - (body->raw + body->length));
    body->length += n;
    batch->bytes += n;
    batch->records++;
    return 0;
}

static uint8_t *put_bytes(uint8_t *p, const void *bytes, size_t length)
{
    p = qr_put_varint(p, length);
    if (length)
        memcpy(p, bytes, length);
    return p + length;
}

static uint8_t *put_attributes(uint8_t *p, const struct qr_attributes *a)
{
    p = qr_put_varint(p, a->mode);
    p = qr_put_varint(p, qr_zigzag(a->mtime_ns));
    return put_bytes(p, a->extra, a->extra_length);
}

enum { RECORD_MAX = 64 + QR_NAME_MAX + QR_EXTRA_MAX };

static int check_lengths(uint64_t id, size_t name_length, const struct qr_attributes *a)
{
    if (name_length > QR_NAME_MAX || (a && a->extra_length > QR_EXTRA_MAX))
        return qr_fail(QALLOW_E_LIMIT, "page %llu: a name or attributes of more than %d bytes",
                       (unsigned long long)id, QR_NAME_MAX);
    return 0;
}

int qr_batch_page_create(struct qr_batch *batch, uint64_t id, uint64_t parent, const void *name,
                         size_t name_length, enum qr_kind kind,
                         const struct qr_attributes *attributes)
{
    uint8_t buffer[RECORD_MAX], *p = buffer;
    int rc = check_lengths(id, name_length, attributes);
    if (rc)
        return rc;
    p = qr_put_varint(p, id);
    p = qr_put_varint(p, parent);
    *p++ = (uint8_t)kind;
    p = put_bytes(p, name, name_length);
    p = put_attributes(p, attributes);
    return put_record(batch, QR_RECORD_CREATE, buffer, (size_t)(p - buffer));
}

int qr_batch_page_attributes(struct qr_batch *batch, uint64_t id,
                             const struct qr_attributes *attributes)
{
    uint8_t buffer[RECORD_MAX];
    int rc = check_lengths(id, 0, attributes);
    if (rc)
        return rc;
    uint8_t *p = put_attributes(qr_put_varint(buffer, id), attributes);
    return put_record(batch, QR_RECORD_ATTRIBUTES, buffer, (size_t)(p - buffer));
}

int qr_batch_page_rename(struct qr_batch *batch, uint64_t id, uint64_t parent, const void *name,
                         size_t name_length)
{
    uint8_t buffer[RECORD_MAX];
    int rc = check_lengths(id, name_length, NULL);
    if (rc)
        return rc;
    uint8_t *p = qr_put_varint(qr_put_varint(buffer, id), parent);
    p = put_bytes(p, name, name_length);
    return put_record(batch, QR_RECORD_RENAME, buffer, (size_t)(p - buffer));
}

int qr_batch_page_free(struct qr_batch *batch, uint64_t id)
{
    uint8_t buffer[QR_VARINT_MAX];
    return put_record(batch, QR_RECORD_FREE, buffer, (size_t)(qr_put_varint(buffer, id) - buffer));
}

/* ---------------------------------------------------------------- deltas */

static int begin(struct qr_batch *batch, uint64_t id, uint64_t base_id, uint64_t old_size,
                 uint64_t new_size, int is_image)
{
    qr_assert(!batch->in_delta);
    if (new_size > QR_PAGE_SIZE_MAX)
        return qr_fail(QALLOW_E_LIMIT, "page %llu: %llu bytes are more than a page may have",
                       (unsigned long long)id, (unsigned long long)new_size);
    batch->in_delta = batch->first_part = 1;
    batch->page = id;
    batch->base = base_id;
    batch->old_size = old_size;
    batch->new_size = new_size;
    batch->old_end = 0;
    batch->is_image = is_image;
    return 0;
}

int qr_batch_delta_begin(struct qr_batch *batch, uint64_t id, uint64_t base_id, uint64_t old_size,
                         uint64_t new_size)
{
    return begin(batch, id, base_id, old_size, new_size, 0);
}

int qr_batch_image_begin(struct qr_batch *batch, uint64_t id, uint64_t size)
{
    return begin(batch, id, 0, 0, size, 1);
}

/* The fields of a part that stand before its operations. */
static size_t put_part_head(const struct qr_batch *batch, uint8_t *head, const struct qb_u128 *sum)
{
    uint8_t *p = qr_put_varint(head, batch->page);
    *p++ = (uint8_t)((batch->first_part ? QR_DELTA_FIRST : 0) | (sum ? QR_DELTA_LAST : 0) |
                     (batch->first_part && batch->base ? QR_DELTA_BASE : 0));
    if (batch->first_part) {
        if (batch->base)
            p = qr_put_varint(p, batch->base);
        p = qr_put_varint(p, batch->old_size);
        p = qr_put_varint(p, qr_zigzag((int64_t)(batch->new_size - batch->old_size)));
    }
    if (sum) {
        qr_store64(p, sum->lo);
        qr_store64(p + 8, sum->hi);
        p += 16;
    }
    return (size_t)(p - head);
}

/* How many bytes the operations of these edits will take, nearly: no more than BODY_TARGET. */
static size_t estimate(const struct qr_edits *edits, size_t next)
{
    enum { OPERATION = 32 };
    size_t want = 0;
    for (size_t i = next; i < edits->count && want < BODY_TARGET; i++) {
        const struct qr_edit *edit = &edits->items[i];
        int is_literal = edit->source == QR_LITERAL;
        want += OPERATION + (!is_literal                      ? 0
                             : edit->new_length < BODY_TARGET ? (size_t)edit->new_length
                                                              : BODY_TARGET);
    }
    return want;
}

/*
 * One part: as many of the edits as fit. The last part carries the sum, which is known only at the
 * end; so edits are parted into records without the sum, except when `sum` is given: then the
 * record written is the last one (with the remaining edits, or with none).
 *
 * Operations are written where they will stand if all of them fit and their length is as expected;
 * else they are moved.
 */
static int put_part(struct qr_batch *batch, struct qr_edits *edits, size_t *next,
                    const uint8_t *old_or_null, const struct qb_u128 *sum)
{
    struct qr_body *body;
    size_t expected = estimate(edits, *next), want = expected + PART_MIN;
    int rc = reserve(batch, want <= WHOLE_MAX ? want : PART_MIN, &body);
    if (rc)
        return rc;
    if (body->length + want > BODY_TARGET)
        want = BODY_TARGET - body->length;
    if ((rc = reserve(batch, want, &body)))
        return rc;
    uint8_t head[DELTA_HEAD], *start = body->raw + body->length;
    size_t head_length = put_part_head(batch, head, sum), n = 0;
    batch->last_first = batch->first_part;
    batch->last_at = body->length;
    uint8_t *operations = start + 1 + qr_varint_length(head_length + expected) + head_length;
    if (*next < edits->count)
        n = qr_ops_encode(edits, next, &batch->old_end, old_or_null, batch->cost, operations,
                          want - DELTA_HEAD);
    if (*next < edits->count && sum) {
        sum = NULL;
        head_length = put_part_head(batch, head, sum);
    }
    uint8_t *p = start;
    *p++ = batch->is_image ? QR_RECORD_IMAGE : QR_RECORD_DELTA;
    p = qr_put_varint(p, head_length + n);
    if (p + head_length != operations)
        memmove(p + head_length, operations, n);
    memcpy(p, head, head_length);
    p += head_length + n;
    body->length += (size_t)(p - start);
    batch->bytes += (size_t)(p - start);
    batch->records++;
    batch->first_part = 0;
    if (sum)
        batch->in_delta = 0;
    return 0;
}

int qr_batch_delta_edits(struct qr_batch *batch, struct qr_edits *edits, const uint8_t *old_or_null)
{
    int rc = 0;
    qr_assert(batch->in_delta);
    for (size_t next = 0; next < edits->count && !rc;)
        rc = put_part(batch, edits, &next, old_or_null, NULL);
    return rc;
}

/* Writes the remaining edits; the last part carries the sum. */
static int finish(struct qr_batch *batch, struct qr_edits *edits, const uint8_t *old_or_null,
                  struct qb_u128 content_sum)
{
    int rc;
    size_t next = 0;
    qr_assert(batch->in_delta);
    do
        rc = put_part(batch, edits, &next, old_or_null, &content_sum);
    while (!rc && batch->in_delta);
    batch->in_delta = 0;
    return rc;
}

int qr_batch_delta_last(struct qr_batch *batch, struct qr_edits *edits, struct qb_u128 content_sum)
{
    return finish(batch, edits, NULL, content_sum);
}

/* The part written last, if the body has room for that, becomes the one that carries the sum: its
 * fields are written anew and its operations moved. 1: done. */
static int end_last_part(struct qr_batch *batch, const struct qb_u128 *sum)
{
    enum { GROWTH = sizeof(struct qb_u128) + 1 }; /* the sum, and the record's length at most */
    struct qr_body *body = batch->count ? &batch->bodies[batch->count - 1] : NULL;
    uint8_t old_head[DELTA_HEAD], head[DELTA_HEAD];
    if (!body || batch->first_part || batch->sealed || body->length + GROWTH > BODY_TARGET)
        return 0;
    int rc = reserve(batch, GROWTH, &body);
    if (rc)
        return rc;
    batch->first_part = batch->last_first;
    size_t old_length = put_part_head(batch, old_head, NULL);
    size_t head_length = put_part_head(batch, head, sum);
    struct qr_cursor part =
        qr_cursor(body->raw + batch->last_at + 1, body->length - batch->last_at - 1);
    size_t n = (size_t)qr_get_varint(&part) - old_length;
    uint8_t *operations = (uint8_t *)part.at + old_length;
    qr_assert(operations + n == body->raw + body->length);
    uint8_t *p = body->raw + batch->last_at + 1;
    size_t length_bytes = qr_varint_length(head_length + n);
    memmove(p + length_bytes + head_length, operations, n);
    p = qr_put_varint(p, head_length + n);
    memcpy(p, head, head_length);
    size_t grown = (size_t)(p + head_length - operations);
    body->length += grown;
    batch->bytes += grown;
    batch->in_delta = 0;
    return 1;
}

int qr_batch_delta_end(struct qr_batch *batch, struct qb_u128 content_sum)
{
    struct qr_edits none = {NULL, 0, 0};
    qr_assert(batch->in_delta);
    int rc = end_last_part(batch, &content_sum);
    return rc ? (rc < 0 ? rc : 0) : finish(batch, &none, NULL, content_sum);
}

/* What most deltas of programs are: some bytes of a page whose size stays are written over. The
 * record is the one that put_part() makes of it. 1: done; 0: it is another one, or a long one. */
static int put_overwrite(struct qr_batch *batch, uint64_t id, uint64_t size,
                         const struct qr_edit *edit, const struct qb_u128 *sum)
{
    enum { FIELDS_MAX = 32 };
    uint64_t n = edit->new_length;
    struct qr_body *body;
    if (edit->source != QR_LITERAL || n != edit->old_length || n == 0 ||
        n > WHOLE_MAX - PART_MIN - FIELDS_MAX)
        return 0;
    int rc = reserve(batch, (size_t)n + PART_MIN + FIELDS_MAX, &body);
    if (rc)
        return rc;
    uint8_t *start = body->raw + body->length, *p = start;
    *p++ = QR_RECORD_DELTA;
    p = qr_put_varint(p, qr_varint_length(id) + 1 + qr_varint_length(size) + 1 + 16 +
                             qr_varint_length(edit->offset) + qr_varint_length(n << 3) + n);
    p = qr_put_varint(p, id);
    *p++ = QR_DELTA_FIRST | QR_DELTA_LAST;
    p = qr_put_varint(p, size);
    *p++ = 0; /* the new size is the old one */
    qr_store64(p, sum->lo);
    qr_store64(p + 8, sum->hi);
    p = qr_put_varint(p + 16, edit->offset);
    p = qr_put_varint(p, n << 3 | QR_OP_OVERWRITE);
    memcpy(p, edit->bytes, (size_t)n);
    p += n;
    body->length += (size_t)(p - start);
    batch->bytes += (size_t)(p - start);
    batch->records++;
    return 1;
}

int qr_batch_delta(struct qr_batch *batch, uint64_t id, uint64_t base_id, uint64_t old_size,
                   uint64_t new_size, struct qr_edits *edits, const uint8_t *old_or_null,
                   struct qb_u128 content_sum)
{
    int rc = 0;
    qr_assert(!batch->in_delta);
    if (edits->count == 1 && base_id == 0 && old_size == new_size && !old_or_null)
        rc = put_overwrite(batch, id, new_size, edits->items, &content_sum);
    if (rc)
        return rc < 0 ? rc : 0;
    rc = qr_batch_delta_begin(batch, id, base_id, old_size, new_size);
    return rc ? rc : finish(batch, edits, old_or_null, content_sum);
}
