/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The set of memory-resident pages: ids, and what happens to content that was replaced.
 *
 * Bytes of blocks are read and written by ordinary loads and stores (memcpy, kernels), so nobody
 * may write bytes that somebody may be reading. This is how that is kept, without a lock for
 * readers:
 *
 * Readers of the newest content announce the block they are about to read (`target`), then look
 * whether a section has it in change (`sequence` is odd). A section makes the sequence odd, then
 * looks whether a reader has announced the block. All four are sequentially consistent, so at least
 * one of them sees the other:
 *   - the reader sees an odd sequence: it waits for the section's end;
 *   - the section sees the reader: it waits a moment, then copies the block and changes the copy.
 * The reader finishes with the old bytes, which are freed later. So neither side ever touches bytes
 * that the other may be changing, and what the reader reads was whole.
 *
 * Snapshots: a section copies a block before its first change if the block's content may be seen by
 * a snapshot (its epoch is not after the newest snapshot's); the old bytes hang in the block's
 * chain of older content, and are never changed again. Pinning an epoch waits for the open
 * sections: those may not have known of the snapshot. All later ones have later epochs and know it.
 * A reader of a snapshot takes the block's bytes if the block's epoch is not after the snapshot's;
 * a section stores the new epoch before the new bytes, and the old content in the chain before
 * both. Otherwise it takes the first of the chain that is old enough.
 *
 * Without readers (`shared` is 0) sections skip all of this but the snapshots' copies; the first
 * reader waits for those sections. That is the state of replay and recovery.
 *
 * Freeing: content is first taken out of sight (its chain, the table of ids), then waits with the
 * number of the present era, and the era is counted up. A reader notes the era when it arrives,
 * then announces itself. Whatever was out of sight before it arrived it cannot find; so content of
 * an era is freed when all who are here have come in a later one. Open sections count as readers.
 *
 * Which snapshots need a piece of old content: those from its own epoch to the one before the next
 * newer content. It is in the list of the newest of them; when that one is released, it
 * goes to the next older snapshot that is not older than itself, or is freed.
 */
#include "runtime/error.h"
#include "runtime/os.h"
#include "runtime/resident_internal.h"

/* ---------------------------------------------------------------- ids */

/* Loads are sequentially consistent because a page that is being freed is taken out of here before
 * readers are looked for. */
struct qr_resident_page *qr_resident_find(struct qr_resident *resident, uint64_t id)
{
    if (id > QR_RESIDENT_ID_MAX)
        return NULL;
    struct qr_id_node *node = atomic_load(&resident->ids[id >> 2 * ID_BITS]);
    struct qr_id_leaf *leaf =
        node ? atomic_load(&node->leaves[id >> ID_BITS & (ID_FANOUT - 1)]) : NULL;
    struct qr_resident_page *page = leaf ? atomic_load(&leaf->pages[id & (ID_FANOUT - 1)]) : NULL;
    return page == PAGE_FREED ? NULL : page;
}

void qr_resident_prefetch(struct qr_resident *resident, uint64_t id)
{
    struct qr_id_node *node =
        id > QR_RESIDENT_ID_MAX ? NULL : atomic_load(&resident->ids[id >> 2 * ID_BITS]);
    struct qr_id_leaf *leaf =
        node ? atomic_load(&node->leaves[id >> ID_BITS & (ID_FANOUT - 1)]) : NULL;
    if (leaf)
        __builtin_prefetch(&leaf->pages[id & (ID_FANOUT - 1)]);
}

/* With the lock held: the slot of an id, whose way is made if there is none. */
static int make_slot(struct qr_resident *resident, uint64_t id, qr_page_slot **slot)
{
    _Atomic(struct qr_id_node *) *top = &resident->ids[id >> 2 * ID_BITS];
    struct qr_id_node *node = atomic_load(top);
    int rc = 0;
    if (!node && !(rc = qr_pool_alloc_zero(resident->pool, sizeof *node, (void **)&node)))
        atomic_store(top, node);
    if (rc)
        return rc;
    _Atomic(struct qr_id_leaf *) *middle = &node->leaves[id >> ID_BITS & (ID_FANOUT - 1)];
    struct qr_id_leaf *leaf = atomic_load(middle);
    if (!leaf && !(rc = qr_pool_alloc_zero(resident->pool, sizeof *leaf, (void **)&leaf)))
        atomic_store(middle, leaf);
    if (!rc)
        *slot = &leaf->pages[id & (ID_FANOUT - 1)];
    return rc;
}

int qr_resident_insert(struct qr_resident *resident, struct qr_resident_page *page)
{
    qr_page_slot *slot = NULL;
    pthread_mutex_lock(&resident->lock);
    int rc = make_slot(resident, page->id, &slot);
    struct qr_resident_page *there = rc ? NULL : atomic_load(slot);
    if (there)
        rc = qr_fail(QALLOW_E_PAGE_EXISTS, "page %llu %s", (unsigned long long)page->id,
                     there == PAGE_FREED || atomic_load(&there->freed)
                         ? "was freed, and its id cannot be used again"
                         : "exists already");
    if (!rc)
        atomic_store(slot, page);
    pthread_mutex_unlock(&resident->lock);
    return rc;
}

/* With the lock held. */
void qr_resident_remove_id(struct qr_resident *resident, uint64_t id)
{
    struct qr_id_node *node = atomic_load(&resident->ids[id >> 2 * ID_BITS]);
    struct qr_id_leaf *leaf = atomic_load(&node->leaves[id >> ID_BITS & (ID_FANOUT - 1)]);
    atomic_store(&leaf->pages[id & (ID_FANOUT - 1)], PAGE_FREED);
}

int qr_resident_missing(uint64_t id)
{
    return qr_fail(QALLOW_E_PAGE_NOT_FOUND, "page %llu does not exist", (unsigned long long)id);
}

int qr_resident_beyond(uint64_t id, uint64_t offset, uint64_t length, uint64_t size)
{
    return qr_fail(QALLOW_E_ARGUMENT, "page %llu: %llu bytes at %llu, but it has %llu",
                   (unsigned long long)id, (unsigned long long)length, (unsigned long long)offset,
                   (unsigned long long)size);
}

/* ---------------------------------------------------------------- old content */

static void pool_free(struct qr_resident *resident, void *block, size_t size)
{
    int rc = qr_pool_free(resident->pool, block, size);
    qr_assert(!rc);
}

int qr_old_new(struct qr_resident *resident, enum qr_old_kind kind, struct qr_resident_page *page,
               uint64_t index, struct qr_old **old)
{
    int rc = qr_pool_alloc_zero(resident->pool, sizeof **old, (void **)old);
    if (rc)
        return rc;
    (*old)->kind = kind;
    (*old)->page = page;
    (*old)->index = index;
    return 0;
}

void qr_old_discard(struct qr_resident *resident, struct qr_old *old)
{
    pool_free(resident, old, sizeof *old);
}

void qr_resident_free_page(struct qr_resident *resident, struct qr_resident_page *page)
{
    struct qr_block *blocks = atomic_load(&page->blocks);
    for (uint64_t i = 0; i < page->block_count; i++) {
        struct qr_block *b = &blocks[i];
        qr_assert(!atomic_load_explicit(&b->older, memory_order_relaxed));
        pool_free(resident, atomic_load_explicit(&b->bytes, memory_order_relaxed),
                  atomic_load_explicit(&b->capacity, memory_order_relaxed));
    }
    if (blocks != &page->first)
        pool_free(resident, blocks, page->block_count * sizeof *blocks);
    pool_free(resident, page, sizeof *page);
}

static uint64_t weight(const struct qr_old *old)
{
    return old->kind == QR_OLD_BLOCK || old->kind == QR_OLD_TABLE ? old->size : 0;
}

static void free_old(struct qr_resident *resident, struct qr_old *old)
{
    resident->stats.waiting--;
    resident->stats.waiting_bytes -= weight(old);
    if (old->kind == QR_OLD_PAGE)
        qr_resident_free_page(resident, old->page);
    else if (old->memory)
        pool_free(resident, old->memory, old->size);
    pool_free(resident, old, sizeof *old);
}

void qr_old_retire(struct qr_resident *resident, struct qr_old *old)
{
    old->era = atomic_fetch_add(&resident->era, 1);
    old->next = resident->waiting;
    resident->waiting = old;
    resident->stats.waiting++;
    resident->stats.waiting_bytes += weight(old);
}

/* The oldest era that somebody here has come in. */
static uint64_t oldest_era(struct qr_resident *resident)
{
    uint64_t oldest = atomic_load(&resident->era);
    for (struct qr_section *s = resident->first_open; s; s = s->next)
        oldest = s->era < oldest ? s->era : oldest;
    for (struct qr_resident_reader *r = atomic_load(&resident->readers); r; r = r->next) {
        if (atomic_load(&r->target) == TARGET_NONE)
            continue;
        /* The era may be of a later call than the target: then the earlier call has ended. */
        uint64_t era = atomic_load_explicit(&r->era, memory_order_acquire);
        oldest = era < oldest ? era : oldest;
    }
    return oldest;
}

void qr_old_reclaim(struct qr_resident *resident)
{
    if (!resident->waiting)
        return;
    uint64_t oldest = oldest_era(resident);
    struct qr_old **link = &resident->waiting;
    while (*link && (*link)->era >= oldest)
        link = &(*link)->next;
    struct qr_old *old = *link; /* eras fall along the list: from here on all are older */
    *link = NULL;
    while (old) {
        struct qr_old *next = old->next;
        free_old(resident, old);
        old = next;
    }
}

/* ---------------------------------------------------------------- pinned epochs */

static void hold(struct qr_resident *resident, struct qr_pin *pin, struct qr_old *old)
{
    old->next = pin->held;
    pin->held = old;
    if (old->kind == QR_OLD_BLOCK) {
        resident->stats.copies++;
        resident->stats.copy_bytes += old->size;
    }
}

/* The newest pin before epoch `before` that sees content of `epoch`. */
static struct qr_pin *pin_for(struct qr_pin *pin, uint64_t epoch, uint64_t before)
{
    while (pin && pin->epoch >= before)
        pin = pin->older;
    return pin && pin->epoch >= epoch ? pin : NULL;
}

int qr_old_hold(struct qr_resident *resident, const struct qr_section *section, struct qr_old *old)
{
    struct qr_pin *pin = pin_for(resident->newest_pin, old->epoch, section->epoch);
    if (pin)
        hold(resident, pin, old);
    return pin != NULL;
}

static void unchain(struct qr_old *old)
{
    _Atomic(struct qr_old *) *link = old->kind == QR_OLD_SIZE
                                         ? &old->page->older_sizes
                                         : &atomic_load(&old->page->blocks)[old->index].older;
    struct qr_old *at;
    while ((at = atomic_load(link)) != old) {
        qr_assert(at);
        link = &at->older;
    }
    atomic_store(link, atomic_load(&old->older));
}

/* No snapshot sees it any more. */
static void let_go(struct qr_resident *resident, struct qr_old *old)
{
    if (old->kind == QR_OLD_PAGE)
        qr_resident_remove_id(resident, old->page->id);
    else
        unchain(old);
    qr_old_retire(resident, old);
}

void qr_pin_release(struct qr_resident *resident, struct qr_pin *pin)
{
    struct qr_old *pages = NULL, *next;
    if (--pin->holders)
        return;
    if (pin->older)
        pin->older->newer = pin->newer;
    if (pin->newer)
        pin->newer->older = pin->older;
    else
        resident->newest_pin = pin->older;
    for (struct qr_old *old = pin->held; old; old = next) {
        next = old->next;
        if (old->kind == QR_OLD_BLOCK) {
            resident->stats.copies--;
            resident->stats.copy_bytes -= old->size;
        }
        struct qr_pin *other = pin_for(pin->older, old->epoch, UINT64_MAX);
        if (other) {
            hold(resident, other, old);
        } else if (old->kind == QR_OLD_PAGE) { /* after what hangs at its blocks */
            old->next = pages;
            pages = old;
        } else {
            let_go(resident, old);
        }
    }
    for (; pages; pages = next) {
        next = pages->next;
        let_go(resident, pages);
    }
    qr_free(pin);
}

/* ---------------------------------------------------------------- open sections */

static struct qr_section *in_the_way(struct qr_resident *resident, uint64_t ticket, int unshared)
{
    struct qr_section *s = resident->first_open;
    while (s && s->ticket <= ticket && unshared && s->shared)
        s = s->next;
    return s && s->ticket <= ticket ? s : NULL;
}

int qr_resident_wait(struct qr_resident *resident, int unshared)
{
    uint64_t ticket = resident->ticket;
    for (struct qr_section *s = resident->first_open; s; s = s->next) {
        if (pthread_equal(s->thread, pthread_self()))
            return qr_fail(QALLOW_E_STATE, "this thread has a section of epoch %llu open",
                           (unsigned long long)s->epoch);
    }
    resident->waiters++;
    while (in_the_way(resident, ticket, unshared))
        pthread_cond_wait(&resident->ended, &resident->lock);
    resident->waiters--;
    return 0;
}

/* ---------------------------------------------------------------- the set */

int qr_resident_create(struct qr_pool *pool, struct qr_resident **result)
{
    struct qr_resident *resident = qr_map(sizeof *resident, 4096);
    int rc;
    *result = NULL;
    if (!resident)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a set of pages");
    if (!pool && (rc = qr_pool_create(NULL, &resident->pool))) {
        qr_unmap(resident, sizeof *resident);
        return rc;
    }
    resident->own_pool = !pool;
    if (pool)
        resident->pool = pool;
    atomic_store(&resident->era, 1);
    pthread_mutex_init(&resident->lock, NULL);
    pthread_cond_init(&resident->ended, NULL);
    *result = resident;
    return 0;
}

static void free_leaf(struct qr_resident *resident, struct qr_id_leaf *leaf)
{
    for (size_t i = 0; leaf && i < ID_FANOUT; i++) {
        struct qr_resident_page *page = atomic_load(&leaf->pages[i]);
        if (page && page != PAGE_FREED)
            qr_resident_free_page(resident, page);
    }
    pool_free(resident, leaf, sizeof *leaf);
}

static void free_ids(struct qr_resident *resident)
{
    for (size_t i = 0; i < ID_FANOUT; i++) {
        struct qr_id_node *node = atomic_load(&resident->ids[i]);
        for (size_t j = 0; node && j < ID_FANOUT; j++)
            free_leaf(resident, atomic_load(&node->leaves[j]));
        pool_free(resident, node, sizeof *node);
    }
}

int qr_resident_destroy(struct qr_resident *resident)
{
    if (!resident)
        return 0;
    if (resident->sections || resident->reader_count || resident->newest_pin)
        return qr_fail(QALLOW_E_STATE, "pages: %zu sections, %zu readers and %llu snapshots left",
                       resident->sections, resident->reader_count,
                       (unsigned long long)resident->stats.snapshots);
    qr_old_reclaim(resident);
    qr_assert(!resident->waiting);
    while (atomic_load(&resident->readers)) {
        struct qr_resident_reader *reader = atomic_load(&resident->readers);
        atomic_store(&resident->readers, reader->next);
        pool_free(resident, reader, sizeof *reader);
    }
    free_ids(resident);
    if (resident->own_pool)
        qr_pool_destroy(resident->pool);
    pthread_mutex_destroy(&resident->lock);
    pthread_cond_destroy(&resident->ended);
    qr_unmap(resident, sizeof *resident);
    return 0;
}

void qr_resident_stats(struct qr_resident *resident, struct qr_resident_stats *stats)
{
    pthread_mutex_lock(&resident->lock);
    *stats = resident->stats;
    stats->epoch = resident->epoch;
    stats->readers = resident->reader_count;
    for (struct qr_section *s = resident->first_open; s; s = s->next)
        stats->sections++;
    for (struct qr_resident_reader *r = atomic_load(&resident->readers); r; r = r->next)
        stats->reader_waits += atomic_load_explicit(&r->waits, memory_order_relaxed);
    pthread_mutex_unlock(&resident->lock);
}
