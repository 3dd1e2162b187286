/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changing a page in a section: bytes, ranges of zeros, sizes. Whatever can fail comes first in
 * every function, each block made ready (resident_blocks.c), and only then are bytes changed. So a
 * failed change has changed nothing, though it may have copied blocks in vain.
 *
 * Growing changes the size only: what a block has no bytes for is zeros. Therefore bytes that a
 * block has behind the page's end are kept zero, and cutting a page zeroes what is cut off.
 */
#include <string.h>

#include "runtime/error.h"
#include "runtime/os.h"
#include "runtime/resident_internal.h"

#define RELAXED(atomic) atomic_load_explicit(&(atomic), memory_order_relaxed)

static int take_range(struct qr_section *section, uint64_t id, uint64_t offset, uint64_t length,
                      struct qr_resident_page **page)
{
    int rc = qr_section_take(section, id, page);
    if (rc)
        return rc;
    uint64_t size = RELAXED((*page)->size);
    return offset > size || length > size - offset ? qr_resident_beyond(id, offset, length, size)
                                                   : 0;
}

/* The part of [offset, offset + length) that lies in the block at `offset`. */
static size_t in_block(uint64_t offset, uint64_t length)
{
    uint64_t room = QR_RESIDENT_BLOCK - offset % QR_RESIDENT_BLOCK;
    return (size_t)(length < room ? length : room);
}

static uint8_t *bytes_at(const struct qr_resident_page *page, uint64_t offset)
{
    struct qr_block *block = &RELAXED(page->blocks)[offset / QR_RESIDENT_BLOCK];
    return RELAXED(block->bytes) + offset % QR_RESIDENT_BLOCK;
}

static int touch_range(struct qr_section *section, struct qr_resident_page *page, uint64_t offset,
                       uint64_t length)
{
    int rc = 0;
    if (!length)
        return 0;
    uint64_t last = (offset + length - 1) / QR_RESIDENT_BLOCK;
    for (uint64_t i = offset / QR_RESIDENT_BLOCK; i <= last && !rc; i++)
        rc = qr_block_touch(section, page, i);
    return rc;
}

/* ---------------------------------------------------------------- bytes */

int qr_section_prepare(struct qr_section *section, uint64_t id, uint64_t offset, uint64_t length)
{
    struct qr_resident_page *page;
    int rc = take_range(section, id, offset, length, &page);
    return rc ? rc : touch_range(section, page, offset, length);
}

/* Fetches what preparing a range will need, in three steps that each need what the one before has
 * fetched: the id's place in its table, the page, the bytes. */
static void fetch_ahead(struct qr_section *section, const struct qr_range *range, int step)
{
    if (step == 0) {
        qr_resident_prefetch(section->resident, range->id);
        return;
    }
    struct qr_resident_page *page = qr_resident_find(section->resident, range->id);
    if (!page)
        return;
    if (step == 1) {
        __builtin_prefetch(&page->owner, 1);
        __builtin_prefetch(&page->last_epoch, 1);
    } else if (range->offset < RELAXED(page->size)) {
        struct qr_block *block = &RELAXED(page->blocks)[range->offset / QR_RESIDENT_BLOCK];
        const uint8_t *bytes = RELAXED(block->bytes);
        size_t at = range->offset % QR_RESIDENT_BLOCK;
        __builtin_prefetch(bytes ? bytes + at : bytes, 1);
        __builtin_prefetch(bytes ? bytes + at + 64 : bytes, 1);
    }
}

int qr_section_prepare_all(struct qr_section *section, const struct qr_range *ranges, size_t count,
                           size_t *done)
{
    enum { STRIDE = 8 };
    size_t i = 0;
    int rc = 0;
    for (size_t t = 0; t < count + 3 * STRIDE && !rc; t++) {
        for (size_t step = 0; step < 3; step++) {
            if (t >= step * STRIDE && t - step * STRIDE < count)
                fetch_ahead(section, &ranges[t - step * STRIDE], (int)step);
        }
        if (t < 3 * STRIDE)
            continue;
        rc = qr_section_prepare(section, ranges[i].id, ranges[i].offset, ranges[i].length);
        i += !rc;
    }
    if (done)
        *done = i;
    return rc;
}

int qr_section_write(struct qr_section *section, uint64_t id, uint64_t offset, const void *bytes,
                     size_t length)
{
    struct qr_resident_page *page;
    const uint8_t *from = bytes;
    int rc = take_range(section, id, offset, length, &page);
    if (rc || (rc = touch_range(section, page, offset, length)))
        return rc;
    qr_block_settle(section);
    while (length) {
        size_t n = in_block(offset, length);
        memcpy(bytes_at(page, offset), from, n);
        offset += n;
        from += n;
        length -= n;
    }
    return 0;
}

int qr_section_edit(struct qr_section *section, uint64_t id, uint64_t offset, size_t length,
                    uint8_t **bytes)
{
    struct qr_resident_page *page;
    int rc = take_range(section, id, offset, length, &page);
    if (!rc && (!length || in_block(offset, length) != length))
        rc = qr_fail(QALLOW_E_ARGUMENT, "page %llu: %zu bytes at %llu are not in one block",
                     (unsigned long long)id, length, (unsigned long long)offset);
    if (rc || (rc = qr_block_touch(section, page, offset / QR_RESIDENT_BLOCK)))
        return rc;
    qr_block_settle(section);
    *bytes = bytes_at(page, offset);
    return 0;
}

int qr_section_view(struct qr_section *section, uint64_t id, uint64_t offset, const uint8_t **bytes,
                    size_t *length)
{
    static const uint8_t zeros[4096];
    struct qr_resident_page *page;
    int rc = take_range(section, id, offset, 0, &page);
    if (rc)
        return rc;
    uint64_t left = RELAXED(page->size) - offset;
    size_t n = in_block(offset, left), at = offset % QR_RESIDENT_BLOCK, there = 0;
    *bytes = zeros;
    *length = n < sizeof zeros ? n : sizeof zeros;
    if (!n)
        return 0;
    struct qr_block *block = &RELAXED(page->blocks)[offset / QR_RESIDENT_BLOCK];
    if (RELAXED(block->bytes))
        there = RELAXED(block->capacity);
    if (there > at) {
        *bytes = RELAXED(block->bytes) + at;
        *length = there - at < n ? there - at : n;
    }
    return 0;
}

int qr_section_size(struct qr_section *section, uint64_t id, uint64_t *size)
{
    struct qr_resident_page *page;
    int rc = qr_section_take(section, id, &page);
    if (!rc)
        *size = RELAXED(page->size);
    return rc;
}

/* ---------------------------------------------------------------- zeros */

struct part { /* of a range, in one block */
    uint64_t index;
    size_t from, to;
    int whole; /* all of the page that is in the block */
};

static struct part part_of(const struct qr_resident_page *page, uint64_t index, uint64_t offset,
                           uint64_t end)
{
    uint64_t begin = index * QR_RESIDENT_BLOCK, limit = begin + QR_RESIDENT_BLOCK;
    uint64_t size = RELAXED(page->size), from = offset > begin ? offset : begin;
    uint64_t to = end < limit ? end : limit;
    return (struct part){index, (size_t)(from - begin), (size_t)(to - begin),
                         from == begin && (to == limit || to == size)};
}

static int has_bytes(const struct qr_resident_page *page, uint64_t index)
{
    return RELAXED(RELAXED(page->blocks)[index].bytes) != NULL;
}

/* Blocks that will be dropped get a record in *drops; those at the ends are made ready. */
static int prepare_clear(struct qr_section *section, struct qr_resident_page *page, uint64_t offset,
                         uint64_t end, struct qr_old **drops)
{
    int rc = 0;
    for (uint64_t i = offset / QR_RESIDENT_BLOCK; i * QR_RESIDENT_BLOCK < end && !rc; i++) {
        struct qr_old *old;
        if (!has_bytes(page, i))
            continue;
        if (!part_of(page, i, offset, end).whole) {
            rc = qr_block_touch(section, page, i);
        } else if (!(rc = qr_block_prepare_drop(section, page, i, &old))) {
            old->next = *drops;
            *drops = old;
        }
    }
    for (struct qr_old *old = rc ? *drops : NULL, *next; old; old = next) {
        next = old->next;
        qr_old_discard(section->resident, old);
    }
    return rc;
}

static void clear(struct qr_section *section, struct qr_resident_page *page, uint64_t offset,
                  uint64_t end, struct qr_old *drops)
{
    qr_block_settle(section);
    for (uint64_t i = offset / QR_RESIDENT_BLOCK; i * QR_RESIDENT_BLOCK < end; i++) {
        struct part part = part_of(page, i, offset, end);
        struct qr_block *block = &RELAXED(page->blocks)[i];
        size_t capacity = RELAXED(block->capacity), to = part.to < capacity ? part.to : capacity;
        if (!part.whole && RELAXED(block->bytes) && part.from < to)
            memset(RELAXED(block->bytes) + part.from, 0, to - part.from);
    }
    for (struct qr_old *next; drops; drops = next) {
        next = drops->next;
        qr_block_drop(section, drops);
    }
}

int qr_section_zero(struct qr_section *section, uint64_t id, uint64_t offset, uint64_t length)
{
    struct qr_resident_page *page;
    struct qr_old *drops = NULL;
    int rc = take_range(section, id, offset, length, &page);
    if (!rc)
        rc = prepare_clear(section, page, offset, offset + length, &drops);
    if (!rc)
        clear(section, page, offset, offset + length, drops);
    return rc;
}

/* ---------------------------------------------------------------- sizes */

/* Readers may have the old table: it stays as it is, and is freed later. They announce a block
 * before they look for the table. */
static void publish_table(struct qr_section *section, struct qr_resident_page *page,
                          struct qr_block *to, uint64_t count, struct qr_old *old)
{
    struct qr_resident *resident = section->resident;
    struct qr_block *from = RELAXED(page->blocks);
    pthread_mutex_lock(&resident->lock); /* releasing a snapshot changes the chains */
    memcpy((void *)to, (const void *)from, page->block_count * sizeof *to);
    atomic_store(&page->blocks, to);
    if (old) {
        old->memory = from;
        old->size = page->block_count * sizeof *to;
        qr_old_retire(resident, old);
    }
    page->block_count = count;
    pthread_mutex_unlock(&resident->lock);
}

int qr_page_make_table(struct qr_section *section, struct qr_resident_page *page, uint64_t size)
{
    struct qr_resident *resident = section->resident;
    uint64_t count = (size + QR_RESIDENT_BLOCK - 1) / QR_RESIDENT_BLOCK;
    struct qr_block *table;
    struct qr_old *old = NULL;
    int rc = 0;
    if (count <= page->block_count)
        return 0;
    if (page->block_count > 1 && count < page->block_count * 2)
        count = page->block_count * 2; /* what grows once will grow again */
    if (page->block_count > 1)
        rc = qr_old_new(resident, QR_OLD_TABLE, page, 0, &old);
    if (!rc && (rc = qr_pool_alloc_zero(resident->pool, count * sizeof *table, (void **)&table)) &&
        old)
        qr_old_discard(resident, old);
    if (!rc)
        publish_table(section, page, table, count, old);
    return rc;
}

/* `old` is a record for the present size. */
static void set_size(struct qr_section *section, struct qr_resident_page *page, uint64_t size,
                     struct qr_old *old)
{
    struct qr_resident *resident = section->resident;
    old->epoch = RELAXED(page->size_epoch);
    old->size = RELAXED(page->size);
    section->bytes_more += (int64_t)(size - old->size);
    pthread_mutex_lock(&resident->lock);
    int held = old->epoch < section->pin_limit && qr_old_hold(resident, section, old);
    if (held) {
        atomic_store(&old->older, RELAXED(page->older_sizes));
        atomic_store(&page->older_sizes, old);
    }
    /* In this order: a reader of a snapshot looks at the epoch last. */
    atomic_store_explicit(&page->size_epoch, section->epoch, memory_order_release);
    atomic_store_explicit(&page->size, size, memory_order_release);
    pthread_mutex_unlock(&resident->lock);
    if (!held)
        qr_old_discard(resident, old);
}

int qr_section_resize(struct qr_section *section, uint64_t id, uint64_t size)
{
    struct qr_resident_page *page;
    struct qr_old *old = NULL, *drops = NULL;
    int rc = qr_section_take(section, id, &page);
    if (rc)
        return rc;
    uint64_t old_size = RELAXED(page->size);
    if (size > QR_RESIDENT_SIZE_MAX)
        return qr_fail(QALLOW_E_LIMIT, "page %llu of %llu bytes", (unsigned long long)id,
                       (unsigned long long)size);
    if ((rc = qr_old_new(section->resident, QR_OLD_SIZE, page, 0, &old)))
        return rc;
    if (size > old_size)
        rc = qr_page_make_table(section, page, size);
    else
        rc = prepare_clear(section, page, size, old_size, &drops);
    if (rc) {
        qr_old_discard(section->resident, old);
        return rc;
    }
    if (size < old_size)
        clear(section, page, size, old_size, drops);
    set_size(section, page, size, old);
    return 0;
}
