/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deltas between buffers in the CPU's memory, by the kernels of the CPU: the twin of
 * buffer_delta_device.c, written from the format and not from the other, so that each checks the
 * other.
 *
 * Extracting walks over the differing segments twice: to measure, so that nothing is written that
 * does not fit, and to write. Applying walks over a delta twice too: to check, and to change.
 */
#include <string.h>

#include "backend/kernels.h"
#include "runtime/buffer_delta.h"
#include "runtime/error.h"
#include "runtime/page.h"

struct qb_u128 qr_cpu_digest(const struct qallow_buffer *buffers, size_t count)
{
    struct qb_u128 sum = {0, 0};
    for (size_t i = 0; i < count; i++) {
        const uint64_t seed = qr_page_seed(qr_buffer_id(buffers, i));
        sum = qb_u128_add(sum, qr_buffer_term(buffers, i));
        sum =
            qb_u128_add(sum, qb_kernels()->hash_cells(buffers[i].data, buffers[i].length, seed, 0));
    }
    return sum;
}

/* --- extracting --- */

/* Where the writing has come to; without parts only counts. */
struct writer {
    struct qb_delta_parts parts;
    struct qb_counts at;
    int writes;
};

static void write_record(struct writer *w, const uint8_t *old, const uint8_t *new_,
                         struct qb_run run)
{
    if (w->writes) {
        uint8_t *payload = w->parts.payload + w->at.bytes;
        w->parts.records[w->at.records] = (uint16_t)(run.offset | (run.length - 1) << 8);
        for (size_t i = 0; i < run.length; i++)
            payload[i] = old[run.offset + i] ^ new_[run.offset + i];
    }
    w->at.records++;
    w->at.bytes += run.length;
}

/* The segment of n bytes that begins at old and new. */
static void write_segment(struct writer *w, const uint8_t *old, const uint8_t *new_, size_t n)
{
    struct qb_run runs[QB_SEGMENT / 4 + 1]; /* a run and its gap are at least four bytes */
    size_t scanned = 0;
    const size_t count = qb_kernels()->diff_runs(old, new_, n, QB_DELTA_GAP, runs,
                                                 sizeof runs / sizeof *runs, &scanned);
    qr_assert(scanned == n && count > 0);
    if (w->writes)
        w->parts.segments[w->at.segments] = (uint8_t)count;
    w->at.segments++;
    for (size_t i = 0; i < count; i++)
        write_record(w, old, new_, runs[i]);
}

/* One tile; the segments that do not differ are passed over at the speed of a comparison. */
static void write_tile(struct writer *w, const uint8_t *old, const uint8_t *new_, size_t n,
                       uint64_t number)
{
    const struct qb_counts before = w->at;
    uint64_t touched = 0;
    for (size_t at = 0; at < n;) {
        at += qb_kernels()->common_prefix(old + at, new_ + at, n - at);
        if (at == n)
            break;
        at -= at % QB_SEGMENT;
        write_segment(w, old + at, new_ + at, n - at < QB_SEGMENT ? n - at : QB_SEGMENT);
        touched |= UINT64_C(1) << at / QB_SEGMENT;
        at = n - at < QB_SEGMENT ? n : at + QB_SEGMENT;
    }
    if (touched == 0)
        return;
    if (w->writes)
        w->parts.entries[w->at.entries] =
            (struct qb_delta_entry){number, touched, (uint32_t)(w->at.records - before.records),
                                    (uint32_t)(w->at.bytes - before.bytes)};
    w->at.entries++;
}

static void write_buffers(struct writer *w, const struct qallow_buffer *base,
                          const struct qallow_buffer *result, size_t count)
{
    uint64_t tiles = 0;
    for (size_t i = 0; i < count; i++) {
        const uint8_t *old = base[i].data, *new_ = result[i].data;
        for (uint64_t at = 0; at < base[i].length; at += QB_TILE) {
            const uint64_t left = base[i].length - at;
            write_tile(w, old + at, new_ + at, left < QB_TILE ? (size_t)left : QB_TILE, tiles++);
        }
    }
}

int qr_cpu_extract(const struct qallow_buffer *base, const struct qallow_buffer *result,
                   size_t count, const struct qallow_buffer *delta, uint64_t *length)
{
    struct qr_delta_header header = {.buffers = count};
    struct writer w = {.writes = 0};
    uint8_t *out = delta->data;
    write_buffers(&w, base, result, count);
    header.total = w.at;
    qr_assert(qr_delta_measure(&header));
    *length = header.length;
    if (header.length > delta->length)
        return qr_fail(QALLOW_E_LIMIT, "the delta takes %llu bytes, there is room for %llu",
                       (unsigned long long)header.length, (unsigned long long)delta->length);
    header.base = qr_cpu_digest(base, count);
    header.result = qr_cpu_digest(result, count);
    w = (struct writer){.parts = qr_delta_parts(out, &header), .writes = 1};
    write_buffers(&w, base, result, count);
    qr_delta_table_put(out + QR_DELTA_HEADER, base, count);
    header.body =
        qb_kernels()->hash_cells(out + QR_DELTA_HEADER, header.length - QR_DELTA_HEADER, 0, 0);
    qr_delta_header_put(out, &header);
    return 0;
}

/* --- applying --- */

/* Where the reading has come to. */
struct reader {
    const struct qallow_buffer *state;
    size_t count, buffer;
    uint64_t first_tile; /* of the buffer */
    struct qb_delta_parts parts;
    struct qb_counts at;
    qr_delta_visit visit; /* or NULL: only checks */
    void *context;
    int rc; /* of the visits */
};

/* The records of one segment, n bytes at `start` of the buffer. */
static int read_segment(struct reader *r, uint64_t start, size_t n)
{
    const uint64_t end = r->at.segments < r->parts.total.segments
                             ? r->at.records + r->parts.segments[r->at.segments]
                             : 0;
    size_t free_from = 0;
    if (end <= r->at.records || end > r->parts.total.records)
        return 0;
    r->at.segments++;
    for (; r->at.records < end; r->at.records++) {
        const uint16_t record = r->parts.records[r->at.records];
        const size_t at = record & 0xff, length = (size_t)(record >> 8) + 1;
        if (at < free_from || at + length > n || length > r->parts.total.bytes - r->at.bytes)
            return 0;
        if (r->visit != NULL)
            r->rc =
                r->visit(r->context, r->buffer, start + at, r->parts.payload + r->at.bytes, length);
        if (r->rc < 0)
            return 0;
        r->at.bytes += length;
        free_from = at + length + QB_DELTA_GAP;
    }
    return 1;
}

static int read_entry(struct reader *r, const struct qb_delta_entry *entry)
{
    const struct qb_counts before = r->at;
    while (r->buffer < r->count &&
           entry->tile - r->first_tile >= qb_tiles(r->state[r->buffer].length))
        r->first_tile += qb_tiles(r->state[r->buffer++].length);
    if (r->buffer == r->count || entry->segments == 0)
        return 0;
    const struct qallow_buffer *state = &r->state[r->buffer];
    for (unsigned i = 0; i < QB_TILE_SEGMENTS; i++) {
        const uint64_t at = (entry->tile - r->first_tile) * QB_TILE + i * QB_SEGMENT;
        if (!(entry->segments >> i & 1))
            continue;
        if (at >= state->length)
            return 0;
        const uint64_t left = state->length - at;
        if (!read_segment(r, at, left < QB_SEGMENT ? (size_t)left : QB_SEGMENT))
            return 0;
    }
    return r->at.records - before.records == entry->records &&
           r->at.bytes - before.bytes == entry->bytes;
}

int qr_delta_each(const struct qallow_buffer *buffers, size_t count,
                  const struct qb_delta_parts *parts, qr_delta_visit visit, void *context)
{
    struct reader r = {
        .state = buffers, .count = count, .parts = *parts, .visit = visit, .context = context};
    for (; r.at.entries < parts->total.entries; r.at.entries++) {
        const struct qb_delta_entry *entry = &parts->entries[r.at.entries];
        if ((r.at.entries > 0 && entry->tile <= entry[-1].tile) || !read_entry(&r, entry))
            return r.rc < 0 ? r.rc
                            : qr_fail(QALLOW_E_DAMAGED, "the delta makes no sense at entry %llu",
                                      (unsigned long long)r.at.entries);
    }
    return memcmp(&r.at, &parts->total, sizeof r.at) == 0
               ? 0
               : qr_fail(QALLOW_E_DAMAGED, "the delta holds more than its entries name");
}

/* Changes one run of the state. */
static int change(void *context, size_t buffer, uint64_t offset, const uint8_t *payload,
                  size_t length)
{
    const struct qallow_buffer *state = context;
    uint8_t *to = (uint8_t *)state[buffer].data + offset;
    for (size_t i = 0; i < length; i++)
        to[i] ^= payload[i];
    return 0;
}

int qr_cpu_apply(const struct qallow_buffer *state, size_t count, const uint8_t *delta,
                 const struct qr_delta_header *header)
{
    const struct qb_delta_parts parts = qr_delta_parts((uint8_t *)(uintptr_t)delta, header);
    const uint8_t *body = delta + QR_DELTA_HEADER;
    if (!qb_u128_equal(header->body,
                       qb_kernels()->hash_cells(body, header->length - QR_DELTA_HEADER, 0, 0)))
        return qr_fail(QALLOW_E_DAMAGED, "the delta is damaged: its sum is wrong");
    int rc = qr_delta_table_check(body, header, state, count);
    if (rc == 0)
        rc = qr_delta_each(state, count, &parts, NULL, NULL);
    if (rc == 0)
        rc = qr_delta_base_check(header, qr_cpu_digest(state, count));
    if (rc < 0)
        return rc;
    qr_assert(qr_delta_each(state, count, &parts, change, (void *)(uintptr_t)state) == 0);
    if (qb_u128_equal(header->result, qr_cpu_digest(state, count)))
        return 0;
    qr_assert(qr_delta_each(state, count, &parts, change, (void *)(uintptr_t)state) == 0);
    return qr_delta_result_wrong(qb_u128_equal(header->base, qr_cpu_digest(state, count)));
}
