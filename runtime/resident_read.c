/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Readers, and the snapshots they read. What keeps readers and sections apart stands at the head of
 * resident.c; here is the readers' half of it.
 */
#include <sched.h>
#include <string.h>

#include "runtime/error.h"
#include "runtime/os.h"
#include "runtime/resident_internal.h"

#define ACQUIRE(atomic) atomic_load_explicit(&(atomic), memory_order_acquire)
#define RELAXED(atomic) atomic_load_explicit(&(atomic), memory_order_relaxed)

/* ---------------------------------------------------------------- readers */

/* With the lock held: one that is in nobody's use, or a new one. */
static int get_reader(struct qr_resident *resident, struct qr_resident_reader **result)
{
    struct qr_resident_reader *reader = atomic_load(&resident->readers);
    while (reader && reader->in_use)
        reader = reader->next;
    if (!reader) {
        int rc = qr_pool_alloc_zero(resident->pool, sizeof *reader, (void **)&reader);
        if (rc)
            return rc;
        reader->resident = resident;
        reader->next = atomic_load(&resident->readers);
        atomic_store(&resident->readers, reader); /* stays there till the end */
    }
    reader->in_use = 1;
    resident->reader_count++; /* sections that begin from now on are shared */
    *result = reader;
    return 0;
}

int qr_resident_reader_create(struct qr_resident *resident, struct qr_resident_reader **result)
{
    struct qr_resident_reader *reader = NULL;
    pthread_mutex_lock(&resident->lock);
    int rc = get_reader(resident, &reader);
    if (!rc && (rc = qr_resident_wait(resident, 1))) {
        reader->in_use = 0;
        resident->reader_count--;
    }
    pthread_mutex_unlock(&resident->lock);
    *result = rc ? NULL : reader;
    return rc;
}

void qr_resident_reader_destroy(struct qr_resident_reader *reader)
{
    if (!reader)
        return;
    struct qr_resident *resident = reader->resident;
    pthread_mutex_lock(&resident->lock);
    reader->in_use = 0;
    resident->reader_count--;
    qr_old_reclaim(resident);
    pthread_mutex_unlock(&resident->lock);
}

/* The era first: who sees the target sees the era. */
static void arrive(struct qr_resident_reader *reader, uint64_t target)
{
    uint64_t era = atomic_load(&reader->resident->era);
    atomic_store_explicit(&reader->era, era, memory_order_release);
    atomic_store(&reader->target, target);
}

static void leave(struct qr_resident_reader *reader)
{
    atomic_store_explicit(&reader->target, TARGET_NONE, memory_order_release);
}

/* ---------------------------------------------------------------- the newest content */

struct wanted {
    uint64_t id, offset;
    uint8_t *to;
    size_t length;
};

static void copy_out(const struct wanted *w, const uint8_t *bytes, size_t capacity)
{
    size_t at = w->offset % QR_RESIDENT_BLOCK, there = 0;
    if (bytes && capacity > at) {
        there = capacity - at < w->length ? capacity - at : w->length;
        memcpy(w->to, bytes + at, there);
    }
    if (there < w->length)
        memset(w->to + there, 0, w->length - there);
}

/* Until the block is in nobody's change; without announcing it, so that nobody waits for us. */
static void wait_for_section(struct qr_resident_reader *reader, const struct qr_resident_page *page,
                             uint64_t index)
{
    enum { SPINS = 200 };
    atomic_store(&reader->target, TARGET_SNAPSHOT);
    atomic_store_explicit(&reader->waits, RELAXED(reader->waits) + 1, memory_order_relaxed);
    for (int i = 0; ACQUIRE(atomic_load(&page->blocks)[index].sequence) & 1; i++) {
        if (i > SPINS)
            sched_yield();
    }
}

/* What lies in one block. The page is there as long as the reader is. */
static int read_newest(struct qr_resident_reader *reader, struct qr_resident_page *page,
                       const struct wanted *w)
{
    uint64_t index = w->offset / QR_RESIDENT_BLOCK, target = TARGET(w->id, index);
    for (;;) {
        if (RELAXED(reader->target) != target)
            atomic_store(&reader->target, target);
        uint64_t size =
            atomic_load(&page->size); /* before the table, which is large enough for it */
        if (w->offset > size || w->length > size - w->offset)
            return qr_resident_beyond(w->id, w->offset, w->length, size);
        struct qr_block *block = &atomic_load(&page->blocks)[index];
        uint32_t sequence = atomic_load(&block->sequence);
        if (sequence & 1) {
            wait_for_section(reader, page, index);
            continue;
        }
        const uint8_t *bytes = ACQUIRE(block->bytes);
        size_t capacity = ACQUIRE(block->capacity);
        if (RELAXED(block->sequence) != sequence)
            continue;
        copy_out(w, bytes, capacity);
        return 0;
    }
}

/* ---------------------------------------------------------------- snapshots */

static uint64_t size_at(struct qr_resident_page *page, uint64_t epoch)
{
    uint64_t size = ACQUIRE(page->size);
    if (ACQUIRE(page->size_epoch) <= epoch)
        return size;
    struct qr_old *old = atomic_load(&page->older_sizes);
    while (old && old->epoch > epoch)
        old = atomic_load(&old->older);
    qr_assert(old);
    return old->size;
}

static void read_snapshot(struct qr_resident_page *page, uint64_t epoch, const struct wanted *w)
{
    struct qr_block *block = &atomic_load(&page->blocks)[w->offset / QR_RESIDENT_BLOCK];
    const uint8_t *bytes = ACQUIRE(block->bytes);
    size_t capacity = ACQUIRE(block->capacity);
    if (ACQUIRE(block->epoch) > epoch) {
        struct qr_old *old = atomic_load(&block->older);
        while (old && old->epoch > epoch)
            old = atomic_load(&old->older);
        qr_assert(old);
        bytes = old->memory;
        capacity = old->size;
    }
    copy_out(w, bytes, capacity);
}

static int find(struct qr_resident_reader *reader, const struct qr_resident_snapshot *snapshot,
                uint64_t id, struct qr_resident_page **page)
{
    *page = qr_resident_find(reader->resident, id);
    if (!*page)
        return qr_resident_missing(id);
    uint64_t freed = atomic_load(&(*page)->freed);
    if (snapshot ? (*page)->created > snapshot->epoch || (freed && freed <= snapshot->epoch)
                 : freed != 0)
        return qr_fail(QALLOW_E_PAGE_NOT_FOUND, "page %llu does not exist in epoch %llu",
                       (unsigned long long)id,
                       (unsigned long long)(snapshot ? snapshot->epoch : freed));
    return 0;
}

static int read_page(struct qr_resident_reader *reader, const struct qr_resident_snapshot *snapshot,
                     struct wanted w, size_t length)
{
    struct qr_resident_page *page;
    int rc = find(reader, snapshot, w.id, &page);
    if (rc)
        return rc;
    uint64_t size = snapshot ? size_at(page, snapshot->epoch) : ACQUIRE(page->size);
    if (w.offset > size || length > size - w.offset)
        return qr_resident_beyond(w.id, w.offset, length, size);
    while (length && !rc) {
        size_t room = QR_RESIDENT_BLOCK - w.offset % QR_RESIDENT_BLOCK;
        w.length = length < room ? length : room;
        if (snapshot)
            read_snapshot(page, snapshot->epoch, &w);
        else
            rc = read_newest(reader, page, &w);
        w.offset += w.length;
        w.to += w.length;
        length -= w.length;
    }
    return rc;
}

int qr_resident_read(struct qr_resident_reader *reader, const struct qr_resident_snapshot *snapshot,
                     uint64_t id, uint64_t offset, void *to, size_t length)
{
    int newest = !snapshot && offset < QR_RESIDENT_SIZE_MAX && id <= QR_RESIDENT_ID_MAX;
    arrive(reader, newest ? TARGET(id, offset / QR_RESIDENT_BLOCK) : TARGET_SNAPSHOT);
    int rc = read_page(reader, snapshot, (struct wanted){id, offset, to, 0}, length);
    leave(reader);
    return rc;
}

int qr_resident_size(struct qr_resident_reader *reader, const struct qr_resident_snapshot *snapshot,
                     uint64_t id, uint64_t *size)
{
    struct qr_resident_page *page;
    arrive(reader, TARGET_SNAPSHOT);
    int rc = find(reader, snapshot, id, &page);
    if (!rc)
        *size = snapshot ? size_at(page, snapshot->epoch) : ACQUIRE(page->size);
    leave(reader);
    return rc;
}

/* With the lock held: the pin of the last epoch begun. */
static int get_pin(struct qr_resident *resident, struct qr_pin **result)
{
    struct qr_pin *newest = resident->newest_pin, *pin;
    if (newest && newest->epoch == resident->epoch) {
        newest->holders++;
        *result = newest;
        return 0;
    }
    if (!(pin = qr_malloc(sizeof *pin)))
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a snapshot");
    *pin = (struct qr_pin){.older = newest, .epoch = resident->epoch, .holders = 1};
    if (newest)
        newest->newer = pin;
    resident->newest_pin = pin;
    *result = pin;
    return 0;
}

int qr_resident_snapshot_create(struct qr_resident *resident, struct qr_resident_snapshot **result)
{
    struct qr_resident_snapshot *snapshot = qr_malloc(sizeof *snapshot);
    struct qr_pin *pin = NULL;
    *result = NULL;
    if (!snapshot)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a snapshot");
    pthread_mutex_lock(&resident->lock);
    int rc = get_pin(resident, &pin);
    if (!rc) {
        uint64_t epoch = pin->epoch, pinned = resident->pinned;
        *snapshot = (struct qr_resident_snapshot){resident, pin, epoch};
        resident->pinned = epoch + 1; /* no section of this epoch begins any more */
        if ((rc = qr_resident_wait(resident, 0))) {
            resident->pinned = pinned;
            qr_pin_release(resident, pin);
        } else {
            resident->stats.snapshots++;
        }
    }
    pthread_mutex_unlock(&resident->lock);
    if (rc)
        qr_free(snapshot);
    else
        *result = snapshot;
    return rc;
}

uint64_t qr_resident_snapshot_epoch(const struct qr_resident_snapshot *snapshot)
{
    return snapshot->epoch;
}

void qr_resident_snapshot_release(struct qr_resident_snapshot *snapshot)
{
    if (!snapshot)
        return;
    struct qr_resident *resident = snapshot->resident;
    pthread_mutex_lock(&resident->lock);
    qr_pin_release(resident, snapshot->pin);
    resident->stats.snapshots--;
    qr_old_reclaim(resident);
    pthread_mutex_unlock(&resident->lock);
    qr_free(snapshot);
}
