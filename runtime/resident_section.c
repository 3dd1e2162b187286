/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sections: begin and end, taking pages, making and freeing them. A section that is open holds its
 * pages (`owner`), the blocks it has made odd, and, as readers do, the era it began in: what was
 * out of sight before that, it cannot find.
 */
#include "runtime/error.h"
#include "runtime/os.h"
#include "runtime/resident_internal.h"

#define RELAXED(atomic) atomic_load_explicit(&(atomic), memory_order_relaxed)

/* ---------------------------------------------------------------- begin and end */

int qr_section_create(struct qr_resident *resident, struct qr_section **result)
{
    struct qr_section *section = qr_calloc(1, sizeof *section);
    *result = section;
    if (!section)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a section");
    section->resident = resident;
    pthread_mutex_lock(&resident->lock);
    resident->sections++;
    pthread_mutex_unlock(&resident->lock);
    return 0;
}

void qr_section_destroy(struct qr_section *section)
{
    if (!section)
        return;
    qr_section_end(section);
    pthread_mutex_lock(&section->resident->lock);
    section->resident->sections--;
    pthread_mutex_unlock(&section->resident->lock);
    qr_free(section->pages);
    qr_free(section->blocks);
    qr_free(section);
}

static void open_section(struct qr_section *section, uint64_t epoch)
{
    struct qr_resident *resident = section->resident;
    section->epoch = resident->epoch = epoch;
    section->ticket = ++resident->ticket;
    section->era = atomic_load(&resident->era);
    section->pin_limit = resident->newest_pin ? resident->newest_pin->epoch + 1 : 0;
    section->shared = resident->reader_count > 0;
    section->thread = pthread_self();
    section->open = 1;
    section->next = NULL;
    section->previous = resident->last_open;
    if (resident->last_open)
        resident->last_open->next = section;
    else
        resident->first_open = section;
    resident->last_open = section;
}

int qr_section_begin(struct qr_section *section, uint64_t epoch)
{
    struct qr_resident *resident = section->resident;
    int rc = 0;
    pthread_mutex_lock(&resident->lock);
    if (section->open)
        rc = qr_fail(QALLOW_E_STATE, "epoch %llu: the section is open, with epoch %llu",
                     (unsigned long long)epoch, (unsigned long long)section->epoch);
    else if (!epoch || epoch < resident->epoch || epoch < resident->pinned)
        rc = qr_fail(QALLOW_E_STATE, "epoch %llu: %s %llu", (unsigned long long)epoch,
                     epoch < resident->epoch || !epoch ? "the last one was"
                                                       : "a snapshot may be of all before",
                     (unsigned long long)(epoch < resident->epoch || !epoch ? resident->epoch
                                                                            : resident->pinned));
    else
        open_section(section, epoch);
    pthread_mutex_unlock(&resident->lock);
    return rc;
}

static void close_section(struct qr_section *section)
{
    struct qr_resident *resident = section->resident;
    if (section->previous)
        section->previous->next = section->next;
    else
        resident->first_open = section->next;
    if (section->next)
        section->next->previous = section->previous;
    else
        resident->last_open = section->previous;
    resident->stats.pages += (uint64_t)section->pages_more;
    resident->stats.bytes += (uint64_t)section->bytes_more;
    resident->stats.copied_for_snapshots += section->copied_for_snapshots;
    resident->stats.copied_for_readers += section->copied_for_readers;
    section->pages_more = section->bytes_more = 0;
    section->copied_for_snapshots = section->copied_for_readers = 0;
    if (resident->waiters)
        pthread_cond_broadcast(&resident->ended);
    qr_old_reclaim(resident);
}

void qr_section_end(struct qr_section *section)
{
    if (!section->open)
        return;
    for (size_t i = 0; i < section->block_count; i++) {
        struct qr_touched *t = &section->blocks[i];
        struct qr_block *block = &RELAXED(t->page->blocks)[t->index];
        atomic_store_explicit(&block->sequence, RELAXED(block->sequence) + 1, memory_order_release);
    }
    for (size_t i = 0; i < section->page_count; i++) {
        section->pages[i]->last_epoch = section->epoch;
        atomic_store_explicit(&section->pages[i]->owner, NULL, memory_order_release);
    }
    section->block_count = section->page_count = section->settled = 0;
    section->open = 0;
    pthread_mutex_lock(&section->resident->lock);
    close_section(section);
    pthread_mutex_unlock(&section->resident->lock);
}

/* ---------------------------------------------------------------- taking pages */

static int not_open(void) { return qr_fail(QALLOW_E_STATE, "the section is not open"); }

static int take(struct qr_section *section, struct qr_resident_page *page)
{
    struct qr_section *owner = NULL;
    int rc = QR_GROW(section->pages, section->page_count, section->page_capacity);
    if (rc)
        return rc;
    if (!atomic_compare_exchange_strong_explicit(&page->owner, &owner, section,
                                                 memory_order_acquire, memory_order_relaxed))
        return qr_fail(QALLOW_E_BUSY, "page %llu is in change by another section",
                       (unsigned long long)page->id);
    uint64_t last = page->last_epoch;
    if (last > section->epoch || RELAXED(page->freed)) {
        rc = last > section->epoch
                 ? qr_fail(QALLOW_E_STATE, "page %llu was changed by epoch %llu, this is %llu",
                           (unsigned long long)page->id, (unsigned long long)last,
                           (unsigned long long)section->epoch)
                 : qr_resident_missing(page->id);
        atomic_store_explicit(&page->owner, NULL, memory_order_release);
        return rc;
    }
    section->pages[section->page_count++] = page;
    return 0;
}

int qr_section_take(struct qr_section *section, uint64_t id, struct qr_resident_page **page)
{
    if (!section->open)
        return not_open();
    *page = qr_resident_find(section->resident, id);
    if (!*page)
        return qr_resident_missing(id);
    if (RELAXED((*page)->owner) != section)
        return take(section, *page);
    return RELAXED((*page)->freed) ? qr_resident_missing(id) : 0;
}

int qr_section_create_page(struct qr_section *section, uint64_t id, uint64_t size)
{
    struct qr_resident *resident = section->resident;
    struct qr_resident_page *page;
    int rc;
    if (!section->open)
        return not_open();
    if (!id || id > QR_RESIDENT_ID_MAX || size > QR_RESIDENT_SIZE_MAX)
        return qr_fail(id ? QALLOW_E_LIMIT : QALLOW_E_ARGUMENT, "page %llu of %llu bytes",
                       (unsigned long long)id, (unsigned long long)size);
    if ((rc = QR_GROW(section->pages, section->page_count, section->page_capacity)) ||
        (rc = qr_pool_alloc_zero(resident->pool, sizeof *page, (void **)&page)))
        return rc;
    page->id = id;
    page->created = section->epoch;
    page->block_count = 1;
    atomic_store_explicit(&page->size_epoch, section->epoch, memory_order_relaxed);
    atomic_store_explicit(&page->blocks, &page->first, memory_order_relaxed);
    atomic_store_explicit(&page->owner, section, memory_order_relaxed);
    atomic_store_explicit(&page->size, size, memory_order_relaxed);
    rc = qr_page_make_table(section, page, size);
    if (!rc)
        rc = qr_resident_insert(resident, page);
    if (rc) { /* nobody has seen it */
        qr_resident_free_page(resident, page);
        return rc;
    }
    section->pages[section->page_count++] = page;
    section->pages_more++;
    section->bytes_more += (int64_t)size;
    return 0;
}

int qr_section_free_page(struct qr_section *section, uint64_t id)
{
    struct qr_resident *resident = section->resident;
    struct qr_resident_page *page;
    struct qr_old *old;
    int rc = qr_section_take(section, id, &page);
    if (rc || (rc = qr_old_new(resident, QR_OLD_PAGE, page, 0, &old)))
        return rc;
    old->epoch = page->created;
    section->pages_more--;
    section->bytes_more -= (int64_t)RELAXED(page->size);
    pthread_mutex_lock(&resident->lock);
    atomic_store(&page->freed, section->epoch);
    if (!qr_old_hold(resident, section, old)) {
        qr_resident_remove_id(resident, id);
        qr_old_retire(resident, old);
    }
    pthread_mutex_unlock(&resident->lock);
    return 0;
}
