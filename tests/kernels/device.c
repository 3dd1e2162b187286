/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device's operations as kernels for one page. Each call makes a batch of one page, runs it, and
 * gives the result back as the kernel would; diff_runs, hash64 and hash128 have no counterpart.
 */
#include "tests/kernels/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/device/emulated.h"

struct ck_device ck_emulated_device, ck_cuda_device;

static void must(const struct ck_device *device, enum qb_result result)
{
    if (result == QB_DONE)
        return;
    fprintf(stderr, "checkkernels: %s\n", device->runtime->text(device->runtime->context));
    exit(70);
}

const char *ck_cuda_missing(void)
{
    struct qb_device_info info;
    const struct qb_runtime *cuda = qb_runtime_cuda();
    if (cuda == NULL)
        return "built without CUDA";
    ck_cuda_device.runtime = cuda;
    return cuda->describe(cuda->context, &info) == QB_DONE ? NULL : cuda->text(cuda->context);
}

void *ck_to_device(struct ck_device *device, unsigned slot, const void *bytes, uint64_t n)
{
    const struct qb_runtime *r = device->runtime;
    if (r == NULL || bytes == NULL)
        return (void *)(uintptr_t)bytes;
    if (device->slots[slot].size < n) {
        void *memory;
        r->release(r->context, QB_MEMORY_DEVICE, device->slots[slot].memory);
        device->slots[slot].size = (n + 4096) / 4096 * 4096;
        must(device, r->allocate(r->context, QB_MEMORY_DEVICE, device->slots[slot].size, &memory));
        device->slots[slot].memory = memory;
    }
    uint8_t *at = device->slots[slot].memory;
    if (slot < 8) /* what kernels take as bytes; structs must be aligned */
        at += device->slots[slot].size - n;
    must(device, r->copy(r->context, at, bytes, n, NULL));
    return at;
}

void ck_from_device(const struct ck_device *device, void *bytes, const void *memory, uint64_t n)
{
    const struct qb_runtime *r = device->runtime;
    if (r == NULL || bytes == NULL)
        return;
    must(device, r->copy(r->context, bytes, memory, n, NULL));
    must(device, r->wait(r->context, NULL));
}

void ck_launch(struct ck_device *device, enum qb_operation operation, const struct qb_batch *batch)
{
    const struct qb_runtime *r = device->runtime;
    if (r == NULL)
        emulated_run(operation, batch);
    else
        must(device, r->launch(r->context, operation, batch, NULL));
}

void ck_scan(struct ck_device *device, struct qb_counts *counts, uint64_t count)
{
    const struct qb_runtime *r = device->runtime;
    uint64_t bytes;
    if (r == NULL) {
        emulated_scan(counts, count);
        return;
    }
    must(device, r->scan_bytes(r->context, count, &bytes));
    uint8_t *zeros = calloc(1, bytes + 1);
    void *memory = ck_to_device(device, 15, zeros, bytes + 1);
    must(device, r->scan(r->context, counts, count, memory, bytes, NULL));
    must(device, r->wait(r->context, NULL));
    free(zeros);
}

/* --- one page --- */

enum {
    SLOT_TO,
    SLOT_FROM,
    SLOT_BASE,
    SLOT_PAYLOAD,
    SLOT_PAGE = 8,
    SLOT_MASK,
    SLOT_COUNTS,
    SLOT_RESULT
};

/* Makes and runs a batch of one page; pages of no bytes have no tiles. */
static struct qb_batch one_page(struct ck_device *d, enum qb_operation operation,
                                const struct qb_batch_page *page, struct qb_batch batch)
{
    batch.pages = ck_to_device(d, SLOT_PAGE, page, sizeof *page);
    batch.count = 1;
    batch.tiles = qb_tiles(page->length);
    ck_launch(d, operation, &batch);
    return batch;
}

static void device_copy(struct ck_device *d, void *to, const void *from, size_t n)
{
    struct qb_batch_page page = {.length = n};
    page.to = ck_to_device(d, SLOT_TO, to, n);
    page.from = ck_to_device(d, SLOT_FROM, from, n);
    (void)one_page(d, QB_COPY, &page, (struct qb_batch){0});
    ck_from_device(d, to, page.to, n);
}

static void device_zero(struct ck_device *d, void *to, size_t n)
{
    struct qb_batch_page page = {.length = n};
    page.to = ck_to_device(d, SLOT_TO, to, n);
    (void)one_page(d, QB_ZERO, &page, (struct qb_batch){0});
    ck_from_device(d, to, page.to, n);
}

static struct qb_found device_compare(struct ck_device *d, const void *a, const void *b, size_t n)
{
    struct qb_batch_page page = {.length = n};
    struct qb_found found = {n, 0};
    page.from = ck_to_device(d, SLOT_FROM, a, n);
    page.base = ck_to_device(d, SLOT_BASE, b, n);
    struct qb_batch batch = {.found = ck_to_device(d, SLOT_RESULT, &found, sizeof found)};
    (void)one_page(d, QB_COMPARE, &page, batch);
    ck_from_device(d, &found, batch.found, sizeof found);
    return found;
}

static int device_is_zero(struct ck_device *d, const void *p, size_t n)
{
    return device_compare(d, p, NULL, n).last == 0;
}

static size_t device_common_prefix(struct ck_device *d, const void *a, const void *b, size_t n)
{
    return device_compare(d, a, b, n).first;
}

static size_t device_common_suffix(struct ck_device *d, const void *a, const void *b, size_t n)
{
    return n - device_compare(d, a, b, n).last;
}

/* The CPU's side of a mask and of counts: whole tiles. */
struct tiles {
    uint64_t *mask;
    struct qb_counts *counts;
    uint64_t tiles;
};

static struct tiles tiles_of(const uint8_t *mask, size_t n)
{
    struct tiles t = {.tiles = qb_tiles(n)};
    t.mask = calloc(t.tiles + 1, QB_TILE / 8);
    t.counts = calloc(t.tiles + 1, sizeof *t.counts);
    if (mask != NULL)
        memcpy(t.mask, mask, (n + 7) / 8);
    return t;
}

static void tiles_end(struct tiles *t)
{
    free(t->mask);
    free(t->counts);
}

static struct qb_batch tiles_to_device(struct ck_device *d, const struct tiles *t)
{
    return (struct qb_batch){
        .mask = ck_to_device(d, SLOT_MASK, t->mask, t->tiles * (QB_TILE / 8)),
        .counts = ck_to_device(d, SLOT_COUNTS, t->counts, (t->tiles + 1) * sizeof *t->counts)};
}

/* Scans the counts and returns their total. */
static size_t scan_tiles(struct ck_device *d, const struct qb_batch *batch, uint64_t tiles)
{
    struct qb_counts total;
    ck_scan(d, batch->counts, tiles + 1);
    ck_from_device(d, &total, batch->counts + tiles, sizeof total);
    return d->runtime == NULL ? batch->counts[tiles].bytes : total.bytes;
}

static size_t device_diff_mask(struct ck_device *d, const void *a, const void *b, size_t n,
                               uint8_t *mask)
{
    struct tiles t = tiles_of(NULL, n);
    struct qb_batch_page page = {.length = n};
    page.base = ck_to_device(d, SLOT_BASE, a, n);
    page.from = ck_to_device(d, SLOT_FROM, b, n);
    struct qb_batch batch = one_page(d, QB_DIFF_MASK, &page, tiles_to_device(d, &t));
    ck_from_device(d, t.mask, batch.mask, t.tiles * (QB_TILE / 8));
    memcpy(mask, t.mask, (n + 7) / 8);
    size_t count = scan_tiles(d, &batch, t.tiles);
    tiles_end(&t);
    return count;
}

static size_t device_count_mask(struct ck_device *d, const uint8_t *mask, size_t n)
{
    struct tiles t = tiles_of(mask, n);
    struct qb_batch_page page = {.length = n};
    struct qb_batch batch = one_page(d, QB_COUNT_MASK, &page, tiles_to_device(d, &t));
    size_t count = scan_tiles(d, &batch, t.tiles);
    tiles_end(&t);
    return count;
}

static void device_apply_mask(struct ck_device *d, void *to, size_t n, const uint8_t *mask,
                              const uint8_t *payload, size_t count)
{
    struct tiles t = tiles_of(mask, n);
    struct qb_batch_page page = {.length = n};
    page.to = ck_to_device(d, SLOT_TO, to, n);
    struct qb_batch batch = one_page(d, QB_COUNT_MASK, &page, tiles_to_device(d, &t));
    (void)scan_tiles(d, &batch, t.tiles);
    batch.payload = ck_to_device(d, SLOT_PAYLOAD, payload, count);
    (void)one_page(d, QB_APPLY_MASK, &page, batch);
    ck_from_device(d, to, page.to, n);
    tiles_end(&t);
}

static size_t device_pack_mask(struct ck_device *d, uint8_t *payload, const void *from, size_t n,
                               const uint8_t *mask)
{
    struct tiles t = tiles_of(mask, n);
    struct qb_batch_page page = {.length = n};
    page.from = ck_to_device(d, SLOT_FROM, from, n);
    struct qb_batch batch = one_page(d, QB_COUNT_MASK, &page, tiles_to_device(d, &t));
    size_t count = scan_tiles(d, &batch, t.tiles);
    batch.payload = ck_to_device(d, SLOT_PAYLOAD, payload, count);
    (void)one_page(d, QB_PACK_MASK, &page, batch);
    ck_from_device(d, payload, batch.payload, count);
    tiles_end(&t);
    return count;
}

static struct qb_u128 device_hash_cells(struct ck_device *d, const void *p, size_t n,
                                        uint64_t page_seed, uint64_t first_cell)
{
    struct qb_batch_page page = {.length = n, .seed = page_seed, .first_cell = first_cell};
    struct qb_u128 sum = {0, 0};
    page.from = ck_to_device(d, SLOT_FROM, p, n);
    struct qb_batch batch = {.sums = ck_to_device(d, SLOT_RESULT, &sum, sizeof sum)};
    (void)one_page(d, QB_HASH, &page, batch);
    ck_from_device(d, &sum, batch.sums, sizeof sum);
    return sum;
}

/* The functions of a table know their device by their name. */
#define TABLE(name)                                                                                \
    static void name##_copy(void *to, const void *from, size_t n)                                  \
    {                                                                                              \
        device_copy(&ck_##name##_device, to, from, n);                                             \
    }                                                                                              \
    static void name##_zero(void *to, size_t n) { device_zero(&ck_##name##_device, to, n); }       \
    static int name##_is_zero(const void *p, size_t n)                                             \
    {                                                                                              \
        return device_is_zero(&ck_##name##_device, p, n);                                          \
    }                                                                                              \
    static size_t name##_common_prefix(const void *a, const void *b, size_t n)                     \
    {                                                                                              \
        return device_common_prefix(&ck_##name##_device, a, b, n);                                 \
    }                                                                                              \
    static size_t name##_common_suffix(const void *a, const void *b, size_t n)                     \
    {                                                                                              \
        return device_common_suffix(&ck_##name##_device, a, b, n);                                 \
    }                                                                                              \
    static size_t name##_diff_mask(const void *a, const void *b, size_t n, uint8_t *mask)          \
    {                                                                                              \
        return device_diff_mask(&ck_##name##_device, a, b, n, mask);                               \
    }                                                                                              \
    static size_t name##_count_mask(const uint8_t *mask, size_t n)                                 \
    {                                                                                              \
        return device_count_mask(&ck_##name##_device, mask, n);                                    \
    }                                                                                              \
    static void name##_apply_mask(void *page, size_t n, const uint8_t *mask,                       \
                                  const uint8_t *payload, size_t count)                            \
    {                                                                                              \
        device_apply_mask(&ck_##name##_device, page, n, mask, payload, count);                     \
    }                                                                                              \
    static size_t name##_pack_mask(uint8_t *payload, const void *page, size_t n,                   \
                                   const uint8_t *mask)                                            \
    {                                                                                              \
        return device_pack_mask(&ck_##name##_device, payload, page, n, mask);                      \
    }                                                                                              \
    static struct qb_u128 name##_hash_cells(const void *p, size_t n, uint64_t page_seed,           \
                                            uint64_t first_cell)                                   \
    {                                                                                              \
        return device_hash_cells(&ck_##name##_device, p, n, page_seed, first_cell);                \
    }                                                                                              \
    static void name##_fill(struct qb_kernels *table)                                              \
    {                                                                                              \
        table->copy = name##_copy;                                                                 \
        table->zero = name##_zero;                                                                 \
        table->is_zero = name##_is_zero;                                                           \
        table->common_prefix = name##_common_prefix;                                               \
        table->common_suffix = name##_common_suffix;                                               \
        table->diff_mask = name##_diff_mask;                                                       \
        table->count_mask = name##_count_mask;                                                     \
        table->apply_mask = name##_apply_mask;                                                     \
        table->pack_mask = name##_pack_mask;                                                       \
        table->hash_cells = name##_hash_cells;                                                     \
    }

TABLE(emulated)
TABLE(cuda)

void ck_init_emulated_device(struct qb_kernels *table) { emulated_fill(table); }
void ck_init_cuda(struct qb_kernels *table) { cuda_fill(table); }
