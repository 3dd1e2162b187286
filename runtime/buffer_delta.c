/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deltas between buffers that the caller owns: arguments, the header, and which maker does the
 * work: the CPU (buffer_delta_cpu.c) or a device (buffer_delta_device.c). Both make the same bytes.
 *
 * The bytes of a delta (all numbers little-endian; docs/formats/delta.md):
 *
 *     offset  bytes  what
 *     0       8      "QALDELTA"
 *     8       4      format version, 1
 *     12      4      0
 *     16      8      length of the delta
 *     24      8      B: buffers
 *     32      32     E, S, R, P: entries, segments, records, bytes of payload
 *     64      16     digest of the base
 *     80      16     digest of the result
 *     96      16     cell sum (page seed 0) of all bytes from 128 on
 *     112     8      0
 *     120     8      XXH3-64 of bytes 0..119
 *     128     16 B   table: id, length of each buffer
 *             24 E   entries: tile (8), touched segments (8), records (4), bytes (4)
 *             2 R    records: offset in the segment, length - 1 (a byte each)
 *             S      the number of records of each touched segment
 *             P      payload: old ^ new of each byte in a record
 *
 * Valid: the checksum and the cell sum hold; entries ascend by tile, and no entry, segment or run
 * is empty; runs ascend, at least 3 bytes apart, within their segment and buffer; the totals are
 * those of the parts. A delta is valid or refused, never applied in part.
 */
#include "runtime/buffer_delta.h"

#include <string.h>

#include "qallow/store.h"
#include "runtime/bytes.h"
#include "runtime/error.h"
#include "runtime/page.h"

static const char magic[8] = {'Q', 'A', 'L', 'D', 'E', 'L', 'T', 'A'};
enum { VERSION = 1, CHECKED = 120 };

/* --- the header --- */

int qr_delta_measure(struct qr_delta_header *header)
{
    const struct qb_counts *t = &header->total;
    const uint64_t limit = UINT64_C(1) << 56;
    if (header->buffers > limit || t->entries > limit || t->segments > limit ||
        t->records > limit || t->bytes > limit)
        return 0;
    header->length = QR_DELTA_HEADER + QR_DELTA_ROW * header->buffers +
                     sizeof(struct qb_delta_entry) * t->entries + 2 * t->records + t->segments +
                     t->bytes;
    return 1;
}

static void put_sum(uint8_t *out, struct qb_u128 sum)
{
    qr_store64(out, sum.lo);
    qr_store64(out + 8, sum.hi);
}

static struct qb_u128 get_sum(const uint8_t *bytes)
{
    return (struct qb_u128){qr_load64(bytes), qr_load64(bytes + 8)};
}

void qr_delta_header_put(uint8_t out[QR_DELTA_HEADER], const struct qr_delta_header *header)
{
    memset(out, 0, QR_DELTA_HEADER);
    memcpy(out, magic, sizeof magic);
    qr_store32(out + 8, VERSION);
    qr_store64(out + 16, header->length);
    qr_store64(out + 24, header->buffers);
    qr_store64(out + 32, header->total.entries);
    qr_store64(out + 40, header->total.segments);
    qr_store64(out + 48, header->total.records);
    qr_store64(out + 56, header->total.bytes);
    put_sum(out + 64, header->base);
    put_sum(out + 80, header->result);
    put_sum(out + 96, header->body);
    qr_store64(out + CHECKED, qb_kernels()->hash64(out, CHECKED, 0));
}

int qr_delta_header_get(const uint8_t *bytes, uint64_t length, struct qr_delta_header *header)
{
    if (length < QR_DELTA_HEADER)
        return qr_fail(QALLOW_E_DAMAGED, "the delta is cut off: %llu bytes of its header's %d",
                       (unsigned long long)length, QR_DELTA_HEADER);
    if (memcmp(bytes, magic, sizeof magic) != 0)
        return qr_fail(QALLOW_E_DAMAGED, "this is no delta: it does not begin with QALDELTA");
    if (qr_load32(bytes + 8) != VERSION)
        return qr_fail(QALLOW_E_VERSION, "the delta has format version %u, this program knows %d",
                       qr_load32(bytes + 8), VERSION);
    if (qr_load64(bytes + CHECKED) != qb_kernels()->hash64(bytes, CHECKED, 0))
        return qr_fail(QALLOW_E_DAMAGED, "the delta's header is damaged: its checksum is wrong");
    *header = (struct qr_delta_header){
        .buffers = qr_load64(bytes + 24),
        .total = {qr_load64(bytes + 32), qr_load64(bytes + 40), qr_load64(bytes + 48),
                  qr_load64(bytes + 56)},
        .base = get_sum(bytes + 64),
        .result = get_sum(bytes + 80),
        .body = get_sum(bytes + 96),
    };
    if (!qr_delta_measure(header) || header->length != qr_load64(bytes + 16))
        return qr_fail(QALLOW_E_DAMAGED, "the delta's header contradicts itself");
    return 0;
}

struct qb_delta_parts qr_delta_parts(uint8_t *delta, const struct qr_delta_header *header)
{
    struct qb_delta_parts parts = {.total = header->total};
    uint8_t *at = delta + QR_DELTA_HEADER + QR_DELTA_ROW * header->buffers;
    parts.entries = (struct qb_delta_entry *)(void *)at;
    at += sizeof(struct qb_delta_entry) * header->total.entries;
    parts.records = (uint16_t *)(void *)at;
    parts.segments = at + 2 * header->total.records;
    parts.payload = parts.segments + header->total.segments;
    return parts;
}

/* --- buffers --- */

uint64_t qr_buffer_id(const struct qallow_buffer *buffers, size_t i)
{
    return buffers[i].id != 0 ? buffers[i].id : i + 1;
}

struct qb_u128 qr_buffer_term(const struct qallow_buffer *buffers, size_t i)
{
    uint8_t row[QR_DELTA_ROW];
    qr_store64(row, qr_buffer_id(buffers, i));
    qr_store64(row + 8, buffers[i].length);
    return qb_kernels()->hash128(row, sizeof row);
}

void qr_delta_table_put(uint8_t *out, const struct qallow_buffer *buffers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        qr_store64(out + QR_DELTA_ROW * i, qr_buffer_id(buffers, i));
        qr_store64(out + QR_DELTA_ROW * i + 8, buffers[i].length);
    }
}

int qr_delta_table_check(const uint8_t *table, const struct qr_delta_header *header,
                         const struct qallow_buffer *buffers, size_t count)
{
    if (header->buffers != count)
        return qr_fail(QALLOW_E_INVALID_DELTA, "the delta is of %llu buffers, not of %zu",
                       (unsigned long long)header->buffers, count);
    for (size_t i = 0; i < count; i++) {
        const uint64_t id = qr_load64(table + QR_DELTA_ROW * i);
        const uint64_t length = qr_load64(table + QR_DELTA_ROW * i + 8);
        if (id != qr_buffer_id(buffers, i) || length != buffers[i].length)
            return qr_fail(QALLOW_E_INVALID_DELTA,
                           "buffer %zu: the delta is for id %llu of %llu bytes, this is id %llu "
                           "of %llu bytes",
                           i, (unsigned long long)id, (unsigned long long)length,
                           (unsigned long long)qr_buffer_id(buffers, i),
                           (unsigned long long)buffers[i].length);
    }
    return 0;
}

int qr_delta_base_check(const struct qr_delta_header *header, struct qb_u128 digest)
{
    if (qb_u128_equal(header->base, digest))
        return 0;
    if (qb_u128_equal(header->result, digest))
        return qr_fail(QALLOW_E_DIFFERS, "the state is already what the delta leads to");
    return qr_fail(QALLOW_E_DIFFERS,
                   "the state is not the delta's base: its digest is %016llx%016llx, not "
                   "%016llx%016llx; nothing was changed",
                   (unsigned long long)digest.hi, (unsigned long long)digest.lo,
                   (unsigned long long)header->base.hi, (unsigned long long)header->base.lo);
}

int qr_delta_result_wrong(int back)
{
    return back ? qr_fail(QALLOW_E_DAMAGED, "the delta does not lead to the digest that it names; "
                                            "the state was put back and is its base")
                : qr_fail(QALLOW_E_DAMAGED, "the delta does not lead to the digest that it names, "
                                            "and the state could not be put back: restore it");
}

/* --- arguments --- */

/* Whether all are on the CPU (0) or none (1), and can be worked on. */
static int check_buffers(const struct qallow_buffer *buffers, size_t count, int *on_device)
{
    uint64_t sum = 0;
    *on_device = 0;
    if (buffers == NULL && count > 0)
        return qr_fail(QALLOW_E_ARGUMENT, "buffers is NULL");
    for (size_t i = 0; i < count; i++) {
        const struct qallow_buffer *b = &buffers[i];
        if (b->size != sizeof *b || b->location > QALLOW_UNIFIED ||
            (b->data == NULL && b->length > 0))
            return qr_fail(QALLOW_E_ARGUMENT,
                           "buffer %zu is not initialised, or has no data or no such location", i);
        if (b->length > QR_PAGE_SIZE_MAX || (sum += b->length) > QR_PAGE_SIZE_MAX)
            return qr_fail(QALLOW_E_LIMIT, "buffers of more than 2^48 bytes");
        const int device = b->location != QALLOW_CPU;
        if (i > 0 && device != *on_device)
            return qr_fail(QALLOW_E_UNSUPPORTED_LOCATION,
                           "buffer %zu is elsewhere than buffer 0: all on the CPU, or none", i);
        *on_device = device;
    }
    return 0;
}

static int check_delta(const struct qallow_buffer *delta, int on_device)
{
    int device = 0;
    if (delta == NULL)
        return qr_fail(QALLOW_E_ARGUMENT, "delta is NULL");
    int rc = check_buffers(delta, 1, &device);
    if (rc == 0 && device && !on_device)
        return qr_fail(QALLOW_E_UNSUPPORTED_LOCATION,
                       "a delta of buffers on the CPU is on the CPU too");
    if (rc == 0 && (uintptr_t)delta->data % (device ? 16 : 8) != 0)
        return qr_fail(QALLOW_E_ARGUMENT, "the delta begins at no multiple of %d", device ? 16 : 8);
    return rc;
}

int qallow_delta_bound(const struct qallow_buffer *buffers, size_t count, uint64_t *bytes)
{
    int device;
    int rc = bytes ? check_buffers(buffers, count, &device)
                   : qr_fail(QALLOW_E_ARGUMENT, "bytes is NULL");
    if (rc < 0)
        return rc;
    /* A segment takes most when it is one run: its bytes, a record, a count. */
    *bytes = QR_DELTA_HEADER + QR_DELTA_ROW * count;
    for (size_t i = 0; i < count; i++)
        *bytes += qb_tiles(buffers[i].length) * sizeof(struct qb_delta_entry) +
                  (buffers[i].length + QB_SEGMENT - 1) / QB_SEGMENT * 3 + buffers[i].length;
    return 0;
}

int qallow_delta_extract(const struct qallow_buffer *base, const struct qallow_buffer *result,
                         size_t count, const struct qallow_buffer *delta, void *stream,
                         uint64_t *length)
{
    int device = 0, other = 0;
    if (length == NULL)
        return qr_fail(QALLOW_E_ARGUMENT, "length is NULL");
    int rc = check_buffers(base, count, &device);
    if (rc == 0)
        rc = check_buffers(result, count, &other);
    if (rc == 0 && device != other)
        rc = qr_fail(QALLOW_E_UNSUPPORTED_LOCATION,
                     "base and result are in different places: both on the CPU, or neither");
    for (size_t i = 0; i < count && rc == 0; i++) {
        if (base[i].length != result[i].length || qr_buffer_id(base, i) != qr_buffer_id(result, i))
            rc =
                qr_fail(QALLOW_E_ARGUMENT, "buffer %zu: base and result differ in length or id", i);
    }
    if (rc == 0)
        rc = check_delta(delta, device);
    if (rc < 0)
        return rc;
    return device ? qr_device_extract(base, result, count, delta, stream, length)
                  : qr_cpu_extract(base, result, count, delta, length);
}

/* A header whose delta is to be applied backwards. */
static void turn_round(struct qr_delta_header *header)
{
    const struct qb_u128 base = header->base;
    header->base = header->result;
    header->result = base;
}

static int apply(const struct qallow_buffer *state, size_t count, const struct qallow_buffer *delta,
                 uint64_t length, int undo, void *stream)
{
    struct qr_delta_header header;
    int device = 0;
    int rc = check_buffers(state, count, &device);
    if (rc == 0)
        rc = check_delta(delta, device);
    if (rc == 0 && length > delta->length)
        rc = qr_fail(QALLOW_E_ARGUMENT, "the delta is longer than its buffer");
    if (rc < 0)
        return rc;
    if (device)
        return qr_device_apply(state, count, delta, length, undo, stream);
    rc = qr_delta_header_get(delta->data, length, &header);
    if (rc == 0 && header.length > length)
        rc = qr_fail(QALLOW_E_DAMAGED, "the delta is cut off: %llu bytes of %llu",
                     (unsigned long long)length, (unsigned long long)header.length);
    if (rc < 0)
        return rc;
    if (undo)
        turn_round(&header);
    return qr_cpu_apply(state, count, delta->data, &header);
}

int qallow_delta_apply(const struct qallow_buffer *state, size_t count,
                       const struct qallow_buffer *delta, uint64_t length, void *stream)
{
    return apply(state, count, delta, length, 0, stream);
}

int qallow_delta_undo(const struct qallow_buffer *state, size_t count,
                      const struct qallow_buffer *delta, uint64_t length, void *stream)
{
    return apply(state, count, delta, length, 1, stream);
}

int qallow_delta_info_get(const void *delta, uint64_t length, struct qallow_delta_info *info)
{
    struct qr_delta_header header;
    if (delta == NULL || info == NULL || info->size != sizeof *info)
        return qr_fail(QALLOW_E_ARGUMENT, "delta or info is NULL, or info not initialised");
    int rc = qr_delta_header_get(delta, length, &header);
    if (rc < 0)
        return rc;
    if (header.length > length)
        return qr_fail(QALLOW_E_DAMAGED, "the delta is cut off: %llu bytes of %llu",
                       (unsigned long long)length, (unsigned long long)header.length);
    info->length = header.length;
    info->buffers = header.buffers;
    info->runs = header.total.records;
    info->changed_bytes = header.total.bytes;
    info->base[0] = header.base.lo;
    info->base[1] = header.base.hi;
    info->result[0] = header.result.lo;
    info->result[1] = header.result.hi;
    return 0;
}

int qallow_buffers_digest(const struct qallow_buffer *buffers, size_t count, void *stream,
                          uint64_t digest[2])
{
    struct qb_u128 sum = {0, 0};
    int device = 0;
    int rc = digest ? check_buffers(buffers, count, &device)
                    : qr_fail(QALLOW_E_ARGUMENT, "digest is NULL");
    if (rc == 0 && device)
        rc = qr_device_digest(buffers, count, stream, &sum);
    else if (rc == 0)
        sum = qr_cpu_digest(buffers, count);
    if (rc < 0)
        return rc;
    digest[0] = sum.lo;
    digest[1] = sum.hi;
    return 0;
}
