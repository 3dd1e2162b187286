/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deltas between buffers in the memory of a device. All buffers are one batch: each step is one
 * launch, whatever their number.
 *
 *     extract  delta_diff (both contents are read once: mask, counts, both digests), scan,
 *              delta_emit, hash of what was emitted
 *     apply    hash of state and delta, delta_count, scan, delta_check; only if all of that is
 *              right: delta_apply, hash; if the digest is not the promised one: delta_apply again,
 *              since old ^ new leads both ways
 *
 * What can fail for want of memory comes before delta_apply. Nothing but descriptors, counts,
 * digests and the delta itself crosses the bus.
 */
#include <string.h>

#include "qallow/store.h"
#include "runtime/buffer_delta.h"
#include "runtime/device.h"
#include "runtime/error.h"
#include "runtime/os.h"
#include "runtime/page.h"

/* A task on the device: its batch, and the CPU's copies of what it reads back. */
struct task {
    struct qr_device device;
    struct qb_batch batch;
    const struct qallow_buffer *buffers;
    size_t count;
    struct qb_batch_page *pages; /* one for each buffer, one for the delta */
    struct qb_u128 *sums;        /* of each buffer, of the delta, then of each base */
    uint64_t scan_bytes;
    void *scan_memory;
    uint8_t *copy; /* a delta on the device whose own place is on the CPU */
    uint8_t *head; /* header and table of the delta to be applied */
};

static void task_end(struct task *t)
{
    const struct qb_runtime *r = t->device.runtime;
    if (r != NULL)
        r->release(r->context, QB_MEMORY_DEVICE, t->copy);
    qr_device_end(&t->device);
    qr_free(t->pages);
    qr_free(t->sums);
    qr_free(t->head);
}

static uint64_t sums_bytes(const struct task *t)
{
    return (2 * t->count + 1) * sizeof(struct qb_u128);
}

/* Describes the buffers; `base` may be NULL. */
static int task_begin(struct task *t, const struct qallow_buffer *buffers,
                      const struct qallow_buffer *base, size_t count, void *stream)
{
    memset(t, 0, sizeof *t);
    int rc = qr_device_begin(&t->device, stream);
    if (rc < 0)
        return rc;
    t->buffers = buffers;
    t->count = count;
    t->pages = qr_calloc(count + 1, sizeof *t->pages);
    t->sums = qr_calloc(2 * count + 1, sizeof *t->sums);
    if (t->pages == NULL || t->sums == NULL)
        return qr_fail(QALLOW_E_NO_MEMORY, "%zu buffers", count);
    for (size_t i = 0; i < count; i++) {
        t->pages[i] = (struct qb_batch_page){.to = buffers[i].data,
                                             .from = buffers[i].data,
                                             .base = base != NULL ? base[i].data : NULL,
                                             .length = buffers[i].length,
                                             .first_tile = t->batch.tiles,
                                             .seed = qr_page_seed(qr_buffer_id(buffers, i))};
        t->batch.tiles += qb_tiles(buffers[i].length);
    }
    t->batch.count = count;
    t->batch.combine = QB_XOR;
    return 0;
}

/* Makes the workspace: `counts` counts, masks if asked for; and uploads the descriptors. */
static int task_workspace(struct task *t, uint64_t counts, int with_mask)
{
    const uint64_t pages_bytes = (t->count + 1) * sizeof *t->pages;
    const uint64_t mask_bytes = with_mask ? t->batch.tiles * (QB_TILE / 8) : 0;
    const uint64_t counts_bytes = counts * sizeof(struct qb_counts);
    int rc = qr_device_scan_bytes(&t->device, counts, &t->scan_bytes);
    if (rc == 0)
        rc = qr_device_workspace(
            &t->device, qr_device_room(pages_bytes) + qr_device_room(sums_bytes(t)) +
                            qr_device_room(mask_bytes) + qr_device_room(counts_bytes) +
                            qr_device_room(t->scan_bytes) + qr_device_room(sizeof(uint32_t)));
    if (rc < 0)
        return rc;
    struct qb_batch_page *pages = qr_device_take(&t->device, pages_bytes);
    t->batch.sums = qr_device_take(&t->device, sums_bytes(t));
    t->batch.base_sums = t->batch.sums + t->count + 1;
    t->batch.mask = qr_device_take(&t->device, mask_bytes);
    t->batch.counts = qr_device_take(&t->device, counts_bytes);
    t->scan_memory = qr_device_take(&t->device, t->scan_bytes);
    t->batch.status = qr_device_take(&t->device, sizeof(uint32_t));
    t->batch.pages = pages;
    rc = qr_device_upload(&t->device, pages, t->pages, pages_bytes);
    if (rc == 0)
        rc = qr_device_clear(&t->device, t->batch.sums, sums_bytes(t));
    if (rc == 0)
        rc = qr_device_clear(&t->device, t->batch.counts, counts_bytes);
    if (rc == 0)
        rc = qr_device_clear(&t->device, t->batch.status, sizeof(uint32_t));
    return rc;
}

/* A step that goes on if those before went well. */
static int launch(struct task *t, int rc, enum qb_operation operation)
{
    return rc < 0 ? rc : qr_device_launch(&t->device, operation, &t->batch);
}

static int download(struct task *t, int rc, void *to, const void *from, uint64_t bytes)
{
    return rc < 0 ? rc : qr_device_download(&t->device, to, from, bytes);
}

static int scan(struct task *t, int rc, uint64_t count)
{
    return rc < 0
               ? rc
               : qr_device_scan(&t->device, t->batch.counts, count, t->scan_memory, t->scan_bytes);
}

static int wait_for(struct task *t, int rc) { return rc < 0 ? rc : qr_device_wait(&t->device); }

/* Begins the sum of a delta's body, into the sum behind those of the buffers. */
static int hash_body(struct task *t, int rc, const uint8_t *delta,
                     const struct qr_delta_header *header)
{
    struct qb_batch_page *page = &t->pages[t->count];
    struct qb_batch batch = t->batch;
    *page = (struct qb_batch_page){.from = delta + QR_DELTA_HEADER,
                                   .length = header->length - QR_DELTA_HEADER};
    batch.pages = t->batch.pages + t->count;
    batch.count = 1;
    batch.tiles = qb_tiles(page->length);
    batch.sums = t->batch.sums + t->count;
    if (rc == 0)
        rc = qr_device_upload(&t->device, (void *)(uintptr_t)batch.pages, page, sizeof *page);
    return rc < 0 ? rc : qr_device_launch(&t->device, QB_HASH, &batch);
}

static struct qb_u128 digest_of(const struct task *t, const struct qb_u128 *sums)
{
    struct qb_u128 digest = {0, 0};
    for (size_t i = 0; i < t->count; i++)
        digest = qb_u128_add(digest, qb_u128_add(sums[i], qr_buffer_term(t->buffers, i)));
    return digest;
}

/* Hashes the buffers and reads all sums back. */
static int hash_state(struct task *t, int rc, struct qb_u128 *digest)
{
    if (rc == 0)
        rc = qr_device_clear(&t->device, t->batch.sums, t->count * sizeof *t->sums);
    rc = launch(t, rc, QB_HASH);
    rc = download(t, rc, t->sums, t->batch.sums, sums_bytes(t));
    rc = wait_for(t, rc);
    *digest = digest_of(t, t->sums);
    return rc;
}

int qr_device_digest(const struct qallow_buffer *buffers, size_t count, void *stream,
                     struct qb_u128 *digest)
{
    struct task t;
    int rc = task_begin(&t, buffers, NULL, count, stream);
    if (rc == 0)
        rc = task_workspace(&t, 1, 0);
    rc = hash_state(&t, rc, digest);
    task_end(&t);
    return rc;
}

/* --- extracting --- */

/* Finds out what the delta will hold. */
static int measure(struct task *t, struct qr_delta_header *header, uint64_t capacity)
{
    int rc = task_workspace(t, t->batch.tiles + 1, 1);
    rc = launch(t, rc, QB_DELTA_DIFF);
    rc = scan(t, rc, t->batch.tiles + 1);
    rc = download(t, rc, t->sums, t->batch.sums, sums_bytes(t));
    rc = download(t, rc, &header->total, t->batch.counts + t->batch.tiles, sizeof header->total);
    rc = wait_for(t, rc);
    if (rc < 0)
        return rc;
    header->result = digest_of(t, t->sums);
    header->base = digest_of(t, t->sums + t->count + 1);
    qr_assert(qr_delta_measure(header));
    if (header->length > capacity)
        return qr_fail(QALLOW_E_LIMIT, "the delta takes %llu bytes, there is room for %llu",
                       (unsigned long long)header->length, (unsigned long long)capacity);
    return 0;
}

/* The device's memory for a delta of some length: its own, or a copy's. */
static int place_delta(struct task *t, const struct qallow_buffer *delta, uint64_t length,
                       uint8_t **place)
{
    void *memory = NULL;
    *place = delta->data;
    if (delta->location != QALLOW_CPU)
        return 0;
    int rc = qr_device_allocate(&t->device, QB_MEMORY_DEVICE, length, &memory);
    *place = t->copy = memory;
    return rc;
}

/* Writes the delta that was measured. */
static int emit(struct task *t, struct qr_delta_header *header, const struct qallow_buffer *delta)
{
    const uint64_t head = QR_DELTA_HEADER + QR_DELTA_ROW * t->count;
    uint8_t *place = NULL, *bytes = qr_calloc(1, head);
    int rc = bytes ? place_delta(t, delta, header->length, &place)
                   : qr_fail(QALLOW_E_NO_MEMORY, "the head of a delta");
    if (rc == 0) {
        t->batch.delta = qr_delta_parts(place, header);
        qr_delta_table_put(bytes + QR_DELTA_HEADER, t->buffers, t->count);
        rc = qr_device_upload(&t->device, place, bytes, head);
    }
    rc = launch(t, rc, QB_DELTA_EMIT);
    rc = rc < 0 ? rc : hash_body(t, rc, place, header);
    rc = download(t, rc, &header->body, t->batch.sums + t->count, sizeof header->body);
    rc = wait_for(t, rc);
    if (rc == 0) {
        qr_delta_header_put(bytes, header);
        rc = qr_device_upload(&t->device, place, bytes, QR_DELTA_HEADER);
    }
    if (delta->location == QALLOW_CPU)
        rc = download(t, rc, delta->data, place, header->length);
    rc = wait_for(t, rc);
    qr_free(bytes);
    return rc;
}

int qr_device_extract(const struct qallow_buffer *base, const struct qallow_buffer *result,
                      size_t count, const struct qallow_buffer *delta, void *stream,
                      uint64_t *length)
{
    struct qr_delta_header header = {.buffers = count};
    struct task t;
    int rc = task_begin(&t, result, base, count, stream);
    if (rc == 0) {
        rc = measure(&t, &header, delta->length);
        if (rc == 0 || rc == QALLOW_E_LIMIT)
            *length = header.length;
    }
    if (rc == 0)
        rc = emit(&t, &header, delta);
    task_end(&t);
    return rc;
}

int qr_device_changes(const struct qallow_buffer *base, const struct qallow_buffer *result,
                      size_t count, void *stream, uint8_t **delta, struct qr_delta_header *header)
{
    struct qallow_buffer out = QALLOW_BUFFER_INIT;
    struct task t;
    *delta = NULL;
    *header = (struct qr_delta_header){.buffers = count};
    int rc = task_begin(&t, result, base, count, stream);
    t.batch.combine = QB_SET;
    if (rc == 0)
        rc = measure(&t, header, UINT64_MAX);
    if (rc == 0) {
        out.data = *delta = qr_malloc(header->length);
        out.length = header->length;
        rc = *delta ? emit(&t, header, &out) : qr_fail(QALLOW_E_NO_MEMORY, "changes of a device");
    }
    task_end(&t);
    if (rc < 0) {
        qr_free(*delta);
        *delta = NULL;
    }
    return rc;
}

/* --- applying --- */

/* Reads what is needed of the delta on the CPU: header and table. */
static int read_head(struct task *t, const struct qallow_buffer *delta, uint64_t length,
                     struct qr_delta_header *header)
{
    const uint64_t head = QR_DELTA_HEADER + QR_DELTA_ROW * t->count;
    const uint64_t there = length < head ? length : head;
    uint8_t *bytes = qr_calloc(1, head);
    int rc = bytes ? 0 : qr_fail(QALLOW_E_NO_MEMORY, "the head of a delta");
    if (rc == 0 && delta->location == QALLOW_CPU && there > 0)
        memcpy(bytes, delta->data, there);
    else
        rc = download(t, rc, bytes, delta->data, there);
    rc = wait_for(t, rc);
    if (rc == 0)
        rc = qr_delta_header_get(bytes, length, header);
    if (rc == 0 && header->length > length)
        rc = qr_fail(QALLOW_E_DAMAGED, "the delta is cut off: %llu bytes of %llu",
                     (unsigned long long)length, (unsigned long long)header->length);
    t->head = bytes;
    return rc;
}

/* Everything that is known before a byte of the state changes. */
static int check_all(struct task *t, const struct qallow_buffer *delta,
                     const struct qr_delta_header *header, struct qb_u128 *digest)
{
    const uint64_t entries = header->total.entries;
    struct qb_counts total = {0, 0, 0, 0};
    uint32_t status = 0;
    uint8_t *place = NULL;
    int rc = task_workspace(t, entries + 1, 0);
    if (rc == 0)
        rc = place_delta(t, delta, header->length, &place);
    if (rc < 0)
        return rc;
    if (delta->location == QALLOW_CPU)
        rc = qr_device_upload(&t->device, place, delta->data, header->length);
    t->batch.delta = qr_delta_parts(place, header);
    rc = hash_body(t, rc, place, header);
    rc = launch(t, rc, QB_DELTA_COUNT);
    rc = scan(t, rc, entries + 1);
    rc = launch(t, rc, QB_DELTA_CHECK);
    rc = download(t, rc, &status, t->batch.status, sizeof status);
    rc = download(t, rc, &total, t->batch.counts + entries, sizeof total);
    rc = hash_state(t, rc, digest);
    if (rc == 0 && !qb_u128_equal(t->sums[t->count], header->body))
        return qr_fail(QALLOW_E_DAMAGED, "the delta is damaged: its sum is wrong");
    if (rc == 0)
        rc = qr_delta_table_check(t->head + QR_DELTA_HEADER, header, t->buffers, t->count);
    if (rc == 0 && (status != 0 || memcmp(&total, &header->total, sizeof total) != 0))
        return qr_fail(QALLOW_E_DAMAGED, "the delta makes no sense");
    return rc;
}

/* Applies what was checked; takes it back if it is wrong. */
static int apply_checked(struct task *t, const struct qr_delta_header *header)
{
    struct qb_u128 digest;
    int rc = launch(t, 0, QB_DELTA_APPLY);
    rc = hash_state(t, rc, &digest);
    if (rc < 0 || qb_u128_equal(digest, header->result))
        return rc;
    rc = launch(t, rc, QB_DELTA_APPLY);
    rc = hash_state(t, rc, &digest);
    return rc < 0 ? rc : qr_delta_result_wrong(qb_u128_equal(digest, header->base));
}

int qr_device_apply(const struct qallow_buffer *state, size_t count,
                    const struct qallow_buffer *delta, uint64_t length, int undo, void *stream)
{
    struct qr_delta_header header;
    struct qb_u128 digest;
    struct task t;
    int rc = task_begin(&t, state, NULL, count, stream);
    if (rc == 0)
        rc = read_head(&t, delta, length, &header);
    if (rc == 0 && undo) {
        const struct qb_u128 base = header.base;
        header.base = header.result;
        header.result = base;
    }
    if (rc == 0)
        rc = check_all(&t, delta, &header, &digest);
    if (rc == 0)
        rc = qr_delta_base_check(&header, digest);
    if (rc == 0)
        rc = apply_checked(&t, &header);
    task_end(&t);
    return rc;
}
