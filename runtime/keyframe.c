/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keyframes: the page table of an epoch in the log (docs/formats/tlog.md, "Keyframes"), as a byte
 * stream cut into KEYFRAME frames. They make the cost of reaching an epoch depend on the distance
 * to the keyframe before it, not on the age of the log.
 */
#include <zstd.h>

#include "runtime/error.h"
#include "runtime/log.h"
#include "runtime/state_internal.h"
#include "runtime/table.h"

enum { PART = 512 << 10, PART_HEAD = 2 * QR_VARINT_MAX + 1 };

struct parts {
    struct qr_log *log;
    uint64_t epoch, part, first_offset;
    int level;
    uint8_t *body, *packed;
    size_t packed_capacity;
};

static int flush_part(void *context, const uint8_t *bytes, size_t length, int last)
{
    struct parts *parts = context;
    uint8_t *p = qr_put_varint(parts->body, parts->epoch);
    p = qr_put_varint(p, parts->part);
    *p++ = (uint8_t)last;
    memcpy(p, bytes, length);
    size_t n = (size_t)(p - parts->body) + length;
    const uint8_t *body = parts->body;
    unsigned flags = 0;
    if (parts->level) {
        size_t packed = ZSTD_compress(parts->packed, parts->packed_capacity, body, n, parts->level);
        if (!ZSTD_isError(packed) && packed < n) {
            body = parts->packed;
            n = packed;
            flags = QR_FRAME_ZSTD;
        }
    }
    uint64_t offset;
    int rc = qr_log_append(parts->log, QR_FRAME_KEYFRAME, flags, body, n, &offset);
    if (!rc && parts->part++ == 0)
        parts->first_offset = offset;
    return rc;
}

int qr_keyframe_write(struct qr_log *log, const struct qr_state *state, uint64_t resume,
                      uint64_t prev, int compress_level, uint64_t *offset)
{
    struct parts parts = {.log = log, .epoch = state->epoch, .level = compress_level};
    struct qr_sink sink;
    parts.packed_capacity = ZSTD_compressBound(PART + PART_HEAD);
    parts.body = qr_malloc(PART + PART_HEAD);
    parts.packed = compress_level ? qr_malloc(parts.packed_capacity) : NULL;
    int rc = !parts.body || (compress_level && !parts.packed)
                 ? qr_fail(QALLOW_E_NO_MEMORY, "keyframe")
                 : qr_sink_init(&sink, PART, flush_part, &parts);
    if (!rc) {
        qr_sink_u64(&sink, (uint64_t)state->time_ns);
        qr_sink_sum(&sink, state->digest);
        qr_sink_varint(&sink, state->next_id);
        qr_sink_varint(&sink, resume);
        qr_sink_u64(&sink, prev);
        qr_table_write(&sink, state, 0);
        rc = qr_sink_finish(&sink);
    }
    qr_free(parts.body);
    qr_free(parts.packed);
    *offset = parts.first_offset;
    return rc;
}

struct part_reader {
    const struct qr_log *log;
    uint64_t next; /* offset of the frame after the current one */
    struct qr_frame_buffers buffers;
    uint64_t epoch, part;
    const uint8_t *at;
    size_t left;
    int last;
    uint64_t head_sum; /* of the current one */
};

/* Reads the next part: it must be the one that follows. */
static int next_part(struct part_reader *r)
{
    struct qr_frame frame;
    int rc = qr_log_read_frame(r->log, r->next, &r->buffers, &frame);
    if (rc)
        return rc;
    struct qr_cursor c = qr_cursor(frame.body, frame.length);
    uint64_t epoch = qr_get_varint(&c), part = qr_get_varint(&c);
    r->last = qr_get_u8(&c);
    if (frame.type != QR_FRAME_KEYFRAME || c.bad || part != r->part || r->last > 1 ||
        (part && epoch != r->epoch))
        return qr_fail(QALLOW_E_DAMAGED, "%s: no keyframe part at offset %llu",
                       qr_quotez(r->log->path), (unsigned long long)r->next);
    r->epoch = epoch;
    r->part++;
    r->at = c.at;
    r->left = qr_left(&c);
    r->next += qr_frame_span(frame.stored);
    r->head_sum = frame.head_sum;
    return 0;
}

static int64_t read_part(void *context, uint8_t *into, size_t room)
{
    struct part_reader *r = context;
    while (!r->left && !(r->part && r->last)) {
        int rc = next_part(r);
        if (rc)
            return rc;
    }
    size_t n = r->left < room ? r->left : room;
    if (n)
        memcpy(into, r->at, n);
    r->at += n;
    r->left -= n;
    return (int64_t)n;
}

int qr_keyframe_read(const struct qr_log *log, uint64_t offset, struct qr_state **out,
                     struct qr_keyframe_head *head)
{
    struct part_reader reader = {.log = log, .next = offset};
    struct qr_source source = {.buffer = NULL};
    struct qr_state *state = NULL;
    int rc = qr_source_init(&source, 64 << 10, read_part, &reader);
    if (!rc)
        rc = qr_state_create(&state);
    if (!rc)
        rc = qr_source_need(&source, 64);
    if (!rc) {
        struct qr_cursor *c = &source.cursor;
        state->time_ns = (int64_t)qr_get_u64(c);
        struct qb_u128 digest = {.lo = qr_get_u64(c)};
        digest.hi = qr_get_u64(c);
        uint64_t next_id = qr_get_varint(c);
        head->resume = qr_get_varint(c);
        head->prev = qr_get_u64(c);
        head->epoch = state->epoch = reader.epoch;
        rc = qr_table_read(&source, state, 0);
        if (!rc && (!qb_u128_equal(state->digest, digest) || next_id < state->next_id ||
                    head->resume % 8 || head->epoch >= QR_EPOCH_MAX))
            rc = qr_fail(QALLOW_E_DAMAGED,
                         "%s: the keyframe of epoch %llu at offset %llu does not give the digest "
                         "it names", qr_quotez(log->path), (unsigned long long)head->epoch,
                         (unsigned long long)offset);
        state->next_id = next_id;
        if (head->resume == offset) { /* the usual case: go on behind the keyframe itself */
            head->resume = reader.next;
            head->prev = reader.head_sum;
        }
    }
    qr_source_finish(&source);
    qr_frame_buffers_finish(&reader.buffers);
    if (rc) {
        qr_state_destroy(state);
        return rc;
    }
    *out = state;
    return 0;
}
