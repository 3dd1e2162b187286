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

/* What differs in the blocks of a tile. */
struct differences {
    uint32_t blocks[QB_TILE / QB_BLOCK];
    uint64_t masks[QB_TILE / QB_BLOCK];
    size_t count;
};

/* How many bits a run has that begins at bit 0: it ends where QB_DELTA_GAP clear ones follow, or
 * with the last that is set. */
static unsigned run_length(uint64_t bits)
{
    uint64_t clear = ~bits;
    for (unsigned i = 1; i < QB_DELTA_GAP; i++)
        clear &= ~bits >> i;
    return clear ? (unsigned)__builtin_ctzll(clear) : 64u - (unsigned)__builtin_clzll(bits);
}

/* Adds the runs of one block, which begins at `at` of its segment, to `count` others: how many are
 * there then. One that begins less than a gap behind the last one goes on with it. */
static size_t add_runs(struct qb_run *runs, size_t count, size_t at, uint64_t mask)
{
    size_t end = count > 0 ? runs[count - 1].offset + runs[count - 1].length : 0;
    while (mask) {
        const unsigned first = (unsigned)__builtin_ctzll(mask);
        const unsigned length = run_length(mask >> first);
        if (count == 0 || at + first - end >= QB_DELTA_GAP)
            runs[count++].offset = at + first;
        end = at + first + length;
        runs[count - 1].length = end - runs[count - 1].offset;
        mask = first + length < 64 ? mask >> (first + length) << (first + length) : 0;
    }
    return count;
}

/* The segment that the i-th block that differs is in; the number of the first one behind it. */
static size_t write_segment(struct writer *w, const uint8_t *old, const uint8_t *new_,
                            const struct differences *found, size_t i)
{
    struct qb_run runs[QB_SEGMENT / 4 + 1]; /* a run and its gap are at least four bytes */
    const size_t per_segment = QB_SEGMENT / QB_BLOCK, segment = found->blocks[i] / per_segment;
    size_t count = 0;
    for (; i < found->count && found->blocks[i] / per_segment == segment; i++)
        count = add_runs(runs, count, found->blocks[i] % per_segment * QB_BLOCK, found->masks[i]);
    if (w->writes)
        w->parts.segments[w->at.segments] = (uint8_t)count;
    w->at.segments++;
    for (size_t k = 0; k < count; k++)
        write_record(w, old + segment * QB_SEGMENT, new_ + segment * QB_SEGMENT, runs[k]);
    return i;
}

static void write_tile(struct writer *w, const uint8_t *old, const uint8_t *new_, size_t n,
                       uint64_t number)
{
    const struct qb_counts before = w->at;
    struct differences found;
    uint64_t touched = 0;
    found.count = qb_kernels()->diff_blocks(old, new_, n, found.blocks, found.masks);
    for (size_t i = 0; i < found.count;) {
        touched |= UINT64_C(1) << found.blocks[i] / (QB_SEGMENT / QB_BLOCK);
        i = write_segment(w, old, new_, &found, i);
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
