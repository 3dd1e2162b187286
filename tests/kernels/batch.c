/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device's operations over batches of several pages, against the CPU's reference: apply_dense,
 * and deltas, whose parts are built once more from the definition with diff_runs. Then the delta is
 * applied there and back, and damaged in one place: either the damage is noticed or what it says is
 * legal; nothing outside the buffers is touched.
 */
#include "tests/kernels/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/device.h"

enum { PAGES = 6, LENGTH_MAX = 40000 };
enum {
    SLOT_PAGES = 8,
    SLOT_MASK,
    SLOT_COUNTS,
    SLOT_SUMS,
    SLOT_BASE_SUMS,
    SLOT_ENTRIES,
    SLOT_STATUS
};

/* Two contents of some pages, one behind the other, each at any offset from a chunk. */
struct contents {
    uint8_t *old, *new_, *memory[2];
    struct qb_batch_page pages[PAGES];
    uint64_t offsets[PAGES], bytes, tiles;
    unsigned count;
};

static void contents_init(struct contents *s, const struct ck_case *c)
{
    static const uint64_t lengths[] = {0,   1,    15,    16,    17,    255,   256,
                                       257, 8192, 16383, 16384, 16385, 32768, 32769};
    memset(s, 0, sizeof *s);
    s->count = 1 + (unsigned)ck_random_below(PAGES);
    for (unsigned i = 0; i < s->count; i++) {
        struct qb_batch_page *page = &s->pages[i];
        page->length =
            ck_random_below(3) ? ck_random_below(LENGTH_MAX) : lengths[ck_random_below(14)];
        page->first_tile = s->tiles;
        page->seed = ck_random();
        page->first_cell = ck_random_below(2) ? 0 : ck_random();
        s->offsets[i] = s->bytes;
        s->bytes += page->length;
        s->tiles += qb_tiles(page->length);
    }
    /* Ends where the memory ends: a sanitizer sees the first byte behind it. */
    const size_t shift = c->number % 3 == 0 ? 16 - s->bytes % 16 : c->number % 16;
    for (unsigned i = 0; i < 2; i++)
        s->memory[i] = malloc(s->bytes + shift);
    s->old = s->memory[0] + shift;
    s->new_ = s->memory[1] + shift;
    ck_fill_pair(s->old, s->new_, s->bytes, (enum ck_fill)(c->number / 16 % CK_FILLS),
                 1 + c->number % 12);
}

static void contents_end(struct contents *s)
{
    free(s->memory[0]);
    free(s->memory[1]);
}

/* --- what a delta must be --- */

struct delta {
    struct qb_delta_entry *entries;
    uint16_t *records;
    uint8_t *segments, *payload;
    struct qb_counts total;
};

static void delta_init(struct delta *delta, const struct contents *s)
{
    delta->entries = calloc(s->tiles + 1, sizeof *delta->entries);
    delta->segments = calloc(s->tiles + 1, QB_TILE_SEGMENTS);
    delta->records = calloc(s->tiles + 1, QB_TILE / 4 * sizeof *delta->records);
    delta->payload = calloc(s->tiles + 1, QB_TILE);
    memset(&delta->total, 0, sizeof delta->total);
}

static void delta_end(struct delta *delta)
{
    free(delta->entries);
    free(delta->segments);
    free(delta->records);
    free(delta->payload);
}

/* One segment, which begins at `at` of the contents and has n bytes. */
static void expect_segment(struct delta *delta, const struct contents *s, uint64_t at, size_t n,
                           struct qb_delta_entry *entry, unsigned segment)
{
    struct qb_run runs[QB_SEGMENT];
    size_t scanned;
    const size_t count = ck_reference.table.diff_runs(s->old + at, s->new_ + at, n, QB_DELTA_GAP,
                                                      runs, QB_SEGMENT, &scanned);
    if (count == 0)
        return;
    delta->segments[delta->total.segments++] = (uint8_t)count;
    entry->segments |= UINT64_C(1) << segment;
    entry->records += (uint32_t)count;
    for (size_t i = 0; i < count; i++) {
        delta->records[delta->total.records++] =
            (uint16_t)(runs[i].offset | (runs[i].length - 1) << 8);
        for (size_t k = runs[i].offset; k < runs[i].offset + runs[i].length; k++)
            delta->payload[delta->total.bytes++] = s->old[at + k] ^ s->new_[at + k];
        entry->bytes += (uint32_t)runs[i].length;
    }
}

static void expect_delta(struct delta *delta, const struct contents *s)
{
    for (unsigned p = 0; p < s->count; p++) {
        const struct qb_batch_page *page = &s->pages[p];
        for (uint64_t start = 0; start < page->length; start += QB_TILE) {
            struct qb_delta_entry entry = {.tile = page->first_tile + start / QB_TILE};
            for (uint64_t at = start; at < start + QB_TILE && at < page->length; at += QB_SEGMENT) {
                const uint64_t left = page->length - at;
                expect_segment(delta, s, s->offsets[p] + at,
                               left < QB_SEGMENT ? (size_t)left : QB_SEGMENT, &entry,
                               (unsigned)((at - start) / QB_SEGMENT));
            }
            if (entry.segments != 0)
                delta->entries[delta->total.entries++] = entry;
        }
    }
}

/* --- the device's side --- */

struct session {
    struct ck_device *device;
    struct contents *s;
    uint8_t *old, *new_, *to; /* the device's */
    uint64_t *mask;
    struct qb_counts *counts;
    struct qb_u128 sums[PAGES], base_sums[PAGES];
    struct qb_batch batch;
};

static void session_init(struct session *x, struct ck_device *device, struct contents *s,
                         uint8_t *to)
{
    memset(x, 0, sizeof *x);
    x->device = device;
    x->s = s;
    x->old = ck_to_device(device, 0, s->old, s->bytes);
    x->new_ = ck_to_device(device, 1, s->new_, s->bytes);
    x->to = ck_to_device(device, 2, to, s->bytes);
    for (unsigned i = 0; i < s->count; i++) {
        s->pages[i].base = x->old + s->offsets[i];
        s->pages[i].from = x->new_ + s->offsets[i];
        s->pages[i].to = x->to + s->offsets[i];
    }
    x->mask = malloc((s->tiles + 1) * (QB_TILE / 8));
    x->counts = calloc(s->tiles + 1, sizeof *x->counts);
    memset(x->mask, 0xee, (s->tiles + 1) * (QB_TILE / 8));
    x->batch = (struct qb_batch){
        .pages = ck_to_device(device, SLOT_PAGES, s->pages, sizeof s->pages),
        .count = s->count,
        .tiles = s->tiles,
        .mask = ck_to_device(device, SLOT_MASK, x->mask, s->tiles * (QB_TILE / 8)),
        .counts = ck_to_device(device, SLOT_COUNTS, x->counts, (s->tiles + 1) * sizeof *x->counts),
        .sums = ck_to_device(device, SLOT_SUMS, x->sums, sizeof x->sums),
        .base_sums = ck_to_device(device, SLOT_BASE_SUMS, x->base_sums, sizeof x->base_sums),
        .combine = QB_XOR,
    };
}

static void session_end(struct session *x)
{
    free(x->mask);
    free(x->counts);
}

static void delta_to_device(struct session *x, struct delta *delta)
{
    const struct qb_counts *total = &delta->total;
    x->batch.delta = (struct qb_delta_parts){
        .entries = ck_to_device(x->device, SLOT_ENTRIES, delta->entries,
                                total->entries * sizeof *delta->entries),
        .records =
            ck_to_device(x->device, 4, delta->records, total->records * sizeof *delta->records),
        .segments = ck_to_device(x->device, 5, delta->segments, total->segments),
        .payload = ck_to_device(x->device, 6, delta->payload, total->bytes),
        .total = *total,
    };
}

static void delta_from_device(const struct session *x, struct delta *delta)
{
    const struct qb_delta_parts *parts = &x->batch.delta;
    const struct qb_counts *total = &delta->total;
    ck_from_device(x->device, delta->entries, parts->entries,
                   total->entries * sizeof *delta->entries);
    ck_from_device(x->device, delta->records, parts->records,
                   total->records * sizeof *delta->records);
    ck_from_device(x->device, delta->segments, parts->segments, total->segments);
    ck_from_device(x->device, delta->payload, parts->payload, total->bytes);
}

static void expect_sums(const struct session *x)
{
    struct qb_u128 sums[PAGES], base_sums[PAGES];
    memcpy(sums, x->sums, sizeof sums);
    memcpy(base_sums, x->base_sums, sizeof base_sums);
    ck_from_device(x->device, sums, x->batch.sums, sizeof sums);
    ck_from_device(x->device, base_sums, x->batch.base_sums, sizeof base_sums);
    for (unsigned i = 0; i < x->s->count; i++) {
        const struct qb_batch_page *page = &x->s->pages[i];
        const uint64_t at = x->s->offsets[i];
        ck_expect(
            qb_u128_equal(sums[i], ck_reference.table.hash_cells(x->s->new_ + at, page->length,
                                                                 page->seed, page->first_cell)),
            "the digest of the new content");
        ck_expect(qb_u128_equal(base_sums[i],
                                ck_reference.table.hash_cells(x->s->old + at, page->length,
                                                              page->seed, page->first_cell)),
                  "the digest of the old content");
    }
}

static void check_emit(struct session *x, const struct delta *expected)
{
    struct delta got;
    struct qb_counts total;
    delta_init(&got, x->s);
    got.total = expected->total;
    ck_launch(x->device, QB_DELTA_DIFF, &x->batch);
    ck_scan(x->device, x->batch.counts, x->s->tiles + 1);
    total = x->counts[x->s->tiles];
    ck_from_device(x->device, &total, x->batch.counts + x->s->tiles, sizeof total);
    ck_expect(memcmp(&total, &expected->total, sizeof total) == 0, "the counts of the delta");
    expect_sums(x);
    if (memcmp(&total, &expected->total, sizeof total) == 0) {
        delta_to_device(x, &got);
        ck_launch(x->device, QB_DELTA_EMIT, &x->batch);
        delta_from_device(x, &got);
        ck_expect_bytes(got.entries, expected->entries, total.entries * sizeof *got.entries,
                        "the entries");
        ck_expect_bytes(got.segments, expected->segments, total.segments, "the segments");
        ck_expect_bytes(got.records, expected->records, total.records * sizeof *got.records,
                        "the records");
        ck_expect_bytes(got.payload, expected->payload, total.bytes, "the payload");
    }
    delta_end(&got);
}

/* Whether the device calls a delta well-formed. */
static bool well_formed(struct session *x, struct delta *delta)
{
    uint32_t status = 0;
    struct qb_counts total;
    delta_to_device(x, delta);
    x->batch.status = ck_to_device(x->device, SLOT_STATUS, &status, sizeof status);
    memset(x->counts, 0, (x->s->tiles + 1) * sizeof *x->counts);
    x->batch.counts =
        ck_to_device(x->device, SLOT_COUNTS, x->counts, (x->s->tiles + 1) * sizeof *x->counts);
    ck_launch(x->device, QB_DELTA_COUNT, &x->batch);
    ck_scan(x->device, x->batch.counts, delta->total.entries + 1);
    total = x->counts[delta->total.entries];
    ck_from_device(x->device, &total, x->batch.counts + delta->total.entries, sizeof total);
    ck_launch(x->device, QB_DELTA_CHECK, &x->batch);
    ck_from_device(x->device, &status, x->batch.status, sizeof status);
    return status == 0 && memcmp(&total, &delta->total, sizeof total) == 0;
}

static void expect_applied(struct session *x, uint8_t *to, const uint8_t *expected)
{
    ck_launch(x->device, QB_DELTA_APPLY, &x->batch);
    ck_from_device(x->device, to, x->to, x->s->bytes);
    ck_expect_bytes(to, expected, x->s->bytes, "the content");
}

/* Changes one place of the delta. */
static void damage(struct delta *delta)
{
    struct {
        void *bytes;
        uint64_t size;
    } parts[] = {{delta->entries, delta->total.entries * sizeof *delta->entries},
                 {delta->segments, delta->total.segments},
                 {delta->records, delta->total.records * sizeof *delta->records}};
    const unsigned which = (unsigned)ck_random_below(3);
    uint8_t *at = parts[which].bytes;
    at[ck_random_below(parts[which].size)] ^= (uint8_t)(1 + ck_random_below(255));
}

/* Lengthens the first run up to two bytes in front of the second one, with everything that counts
 * bytes: the delta is consistent, but not the one that must be. False if there is no room. */
static bool widen(struct delta *delta)
{
    const unsigned end = (delta->records[0] & 0xff) + (delta->records[0] >> 8) + 1u;
    if (delta->total.entries == 0 || delta->segments[0] < 2)
        return false;
    const unsigned by = (delta->records[1] & 0xff) - end - (QB_DELTA_GAP - 1);
    delta->records[0] = (uint16_t)(delta->records[0] + (by << 8));
    delta->entries[0].bytes += by;
    delta->total.bytes += by;
    return true;
}

/* Counts that are right in all and wrong for each tile: one more here, one fewer there. */
static void expect_counts_checked(struct session *x, struct delta *delta)
{
    struct qb_delta_entry *e = delta->entries;
    delta->total.records--;
    ck_expect(!well_formed(x, delta), "a delta that lacks a run is malformed");
    delta->total.records++;
    if (delta->total.entries < 2)
        return;
    e[0].records++, e[1].records--;
    ck_expect(!well_formed(x, delta), "a run of another tile is malformed");
    e[0].records--, e[1].records++;
    e[0].bytes++, e[1].bytes--;
    ck_expect(!well_formed(x, delta), "a byte of another tile is malformed");
    e[0].bytes--, e[1].bytes++;
}

static void check_delta_on(struct ck_device *device, struct contents *s,
                           const struct delta *expected)
{
    uint8_t *memory = malloc(s->bytes + 16), *to = memory + ck_random_below(16);
    struct delta delta;
    struct session x;
    memcpy(to, s->old, s->bytes);
    session_init(&x, device, s, to);
    check_emit(&x, expected);
    delta_init(&delta, s);
    memcpy(delta.entries, expected->entries, expected->total.entries * sizeof *delta.entries);
    memcpy(delta.segments, expected->segments, expected->total.segments);
    memcpy(delta.records, expected->records, expected->total.records * sizeof *delta.records);
    memcpy(delta.payload, expected->payload, expected->total.bytes);
    delta.total = expected->total;
    if (delta.total.entries > 0) {
        ck_expect(well_formed(&x, &delta), "a good delta is well-formed");
        expect_applied(&x, to, s->new_);
        expect_applied(&x, to, s->old);
        expect_counts_checked(&x, &delta);
        if (widen(&delta))
            ck_expect(!well_formed(&x, &delta), "runs that are too close are malformed");
        damage(&delta);
        if (well_formed(&x, &delta))
            ck_launch(x.device, QB_DELTA_APPLY, &x.batch);
    }
    session_end(&x);
    delta_end(&delta);
    free(memory);
}

static struct ck_device *device_of(const struct ck_version *version)
{
    return strcmp(version->name, "cuda") == 0              ? &ck_cuda_device
           : strcmp(version->name, "emulated-device") == 0 ? &ck_emulated_device
                                                           : NULL;
}

static void check_delta(const struct ck_case *c)
{
    struct contents s;
    struct delta expected;
    contents_init(&s, c);
    delta_init(&expected, &s);
    expect_delta(&expected, &s);
    CK_EACH_VERSION(v)
    {
        ck_begin(v);
        if (device_of(v) != NULL)
            check_delta_on(device_of(v), &s, &expected);
    }
    delta_end(&expected);
    contents_end(&s);
}

static void check_dense_on(struct ck_device *device, struct contents *s)
{
    uint8_t *memory = malloc(s->bytes + 16), *to = memory + ck_random_below(16);
    uint8_t *both = malloc(s->bytes + 1);
    struct session x;
    memcpy(to, s->old, s->bytes);
    for (uint64_t i = 0; i < s->bytes; i++)
        both[i] = s->old[i] ^ s->new_[i];
    session_init(&x, device, s, to);
    ck_launch(device, QB_APPLY_DENSE, &x.batch);
    ck_from_device(device, to, x.to, s->bytes);
    ck_expect_bytes(to, both, s->bytes, "the exclusive or");
    x.batch.combine = QB_SET;
    ck_launch(device, QB_APPLY_DENSE, &x.batch);
    ck_from_device(device, to, x.to, s->bytes);
    ck_expect_bytes(to, s->new_, s->bytes, "the new content");
    session_end(&x);
    free(memory);
    free(both);
}

static void check_dense(const struct ck_case *c)
{
    struct contents s;
    contents_init(&s, c);
    CK_EACH_VERSION(v)
    {
        ck_begin(v);
        if (device_of(v) != NULL)
            check_dense_on(device_of(v), &s);
    }
    contents_end(&s);
}

const struct ck_check ck_batch_checks[] = {
    {"delta", check_delta, 300}, {"apply_dense", check_dense, 60}, {0}};
