/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making a block ready to be changed in place by the section that has its page. Either nobody else
 * can be at its bytes, or the block gets new ones. See the head of resident.c for who else there
 * is.
 *
 * New bytes are needed when a snapshot sees the present ones, when the block has none yet (zeros)
 * or too few, and when a reader has announced itself at it. The last case is looked for after all
 * blocks of a change have been touched, once for all of them (settle); a reader that is only about
 * to finish is waited for.
 */
#include <sched.h>
#include <string.h>

#include "runtime/error.h"
#include "runtime/os.h"
#include "runtime/resident_internal.h"

#define RELAXED(atomic) atomic_load_explicit(&(atomic), memory_order_relaxed)

static struct qr_block *block_of(struct qr_resident_page *page, uint64_t index)
{
    qr_assert(index < page->block_count);
    return &RELAXED(page->blocks)[index];
}

/* Since when the block has been as it is. */
static uint64_t epoch_of(const struct qr_resident_page *page, const struct qr_block *block)
{
    uint64_t epoch = RELAXED(block->epoch);
    return epoch ? epoch : page->created;
}

static void make_odd(struct qr_block *block)
{
    qr_assert(!(RELAXED(block->sequence) & 1));
    atomic_store(&block->sequence, RELAXED(block->sequence) + 1);
}

/* What the block had goes to the snapshots that see it, else it waits for readers that may be at
 * it. `old` is a record for it. */
static void put_aside(struct qr_section *section, struct qr_block *block, struct qr_old *old)
{
    struct qr_resident *resident = section->resident;
    old->epoch = epoch_of(old->page, block);
    old->memory = RELAXED(block->bytes);
    old->size = RELAXED(block->capacity);
    if (old->epoch < section->pin_limit && qr_old_hold(resident, section, old)) {
        atomic_store(&old->older, RELAXED(block->older));
        atomic_store(&block->older, old);
        section->copied_for_snapshots++;
        return;
    }
    qr_old_retire(resident, old);
}

/* The block gets other bytes, NULL for zeros. `old` is NULL if nobody can want the old ones. */
static void replace(struct qr_section *section, struct qr_block *block, uint8_t *bytes,
                    size_t capacity, struct qr_old *old)
{
    pthread_mutex_lock(&section->resident->lock);
    if (old)
        put_aside(section, block, old);
    /* In this order: a reader of a snapshot looks at the epoch last. */
    atomic_store_explicit(&block->epoch, section->epoch, memory_order_release);
    atomic_store_explicit(&block->capacity, (uint32_t)capacity, memory_order_release);
    atomic_store_explicit(&block->bytes, bytes, memory_order_release);
    pthread_mutex_unlock(&section->resident->lock);
}

/* The same content in bytes of its own. */
static int copy_block(struct qr_section *section, struct qr_resident_page *page, uint64_t index,
                      size_t capacity)
{
    struct qr_block *block = block_of(page, index);
    const uint8_t *from = RELAXED(block->bytes);
    size_t old_size = from ? RELAXED(block->capacity) : 0;
    size_t kept = old_size < capacity ? old_size : capacity;
    struct qr_old *old = NULL;
    uint8_t *bytes;
    int rc = 0;
    if (from || epoch_of(page, block) < section->pin_limit)
        rc = qr_old_new(section->resident, QR_OLD_BLOCK, page, index, &old);
    if (!rc && (rc = qr_pool_alloc(section->resident->pool, capacity, (void **)&bytes)))
        qr_old_discard(section->resident, old);
    if (rc)
        return rc;
    if (kept)
        memcpy(bytes, from, kept);
    memset(bytes + kept, 0, capacity - kept);
    replace(section, block, bytes, capacity, old);
    return 0;
}

/* The capacity that a block must have. */
static size_t wanted_capacity(const struct qr_resident_page *page, uint64_t index, size_t capacity)
{
    uint64_t left = RELAXED(page->size) - index * QR_RESIDENT_BLOCK;
    if (left <= capacity)
        return capacity;
    return left < QR_RESIDENT_BLOCK ? qr_pool_usable((size_t)left) : QR_RESIDENT_BLOCK;
}

/* Readers will wait from here to the section's end. */
static int begin_change(struct qr_section *section, struct qr_resident_page *page, uint64_t index,
                        int fresh)
{
    struct qr_block *block = block_of(page, index);
    if (!section->shared || RELAXED(block->sequence) & 1)
        return 0;
    int rc = QR_GROW(section->blocks, section->block_count, section->block_capacity);
    if (rc)
        return rc;
    section->blocks[section->block_count++] = (struct qr_touched){page, index, fresh};
    make_odd(block);
    return 0;
}

int qr_block_touch(struct qr_section *section, struct qr_resident_page *page, uint64_t index)
{
    struct qr_block *block = block_of(page, index);
    size_t capacity = wanted_capacity(page, index, RELAXED(block->capacity));
    int anew = epoch_of(page, block) < section->pin_limit || !RELAXED(block->bytes) ||
               capacity != RELAXED(block->capacity);
    int rc = begin_change(section, page, index, anew);
    if (rc)
        return rc;
    if (anew)
        return copy_block(section, page, index, capacity);
    atomic_store_explicit(&block->epoch, section->epoch, memory_order_release);
    return 0;
}

int qr_block_prepare_drop(struct qr_section *section, struct qr_resident_page *page, uint64_t index,
                          struct qr_old **old)
{
    int rc = begin_change(section, page, index, 0);
    return rc ? rc : qr_old_new(section->resident, QR_OLD_BLOCK, page, index, old);
}

void qr_block_drop(struct qr_section *section, struct qr_old *old)
{
    replace(section, block_of(old->page, old->index), NULL, 0, old);
}

/* ---------------------------------------------------------------- readers in the way */

static int reader_is_at(const struct qr_resident_reader *reader, uint64_t target)
{
    enum { SPINS = 100 }; /* about as long as copying the block would take */
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load(&reader->target) != target)
            return 0;
    }
    return 1;
}

/* The reader, if it saw the block before the section made it odd, is at its bytes. */
static void make_way(struct qr_section *section, struct qr_touched *touched,
                     const struct qr_resident_reader *reader)
{
    uint64_t target = TARGET(touched->page->id, touched->index);
    size_t capacity = RELAXED(block_of(touched->page, touched->index)->capacity);
    if (touched->fresh || !capacity || !reader_is_at(reader, target))
        return;
    if (copy_block(section, touched->page, touched->index, capacity)) {
        while (atomic_load(&reader->target) == target) /* no memory: then it must be waited for */
            sched_yield();
        return;
    }
    touched->fresh = 1;
    section->copied_for_readers++;
}

void qr_block_settle(struct qr_section *section)
{
    if (section->settled == section->block_count)
        return;
    struct qr_resident_reader *reader = atomic_load(&section->resident->readers);
    for (; reader; reader = reader->next) {
        uint64_t target = atomic_load(&reader->target);
        if (target <= TARGET_SNAPSHOT)
            continue;
        for (size_t i = section->settled; i < section->block_count; i++) {
            struct qr_touched *t = &section->blocks[i];
            if (target == TARGET(t->page->id, t->index))
                make_way(section, t, reader);
        }
    }
    section->settled = section->block_count;
}
