/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Large blocks: each is a mapping, found again by its address in a hash table under one lock. The
 * mapping may be larger than the block; the rest is address space into which it can grow.
 *
 * Mapping memory is cheap, touching it for the first time is not (a fault for each page). So freed
 * blocks are kept, as far as keep_bytes allows, in bins by the size of their mapping, which is
 * rounded up (four sizes to each doubling) so that they fit again; what was rounded up is never
 * touched and costs no memory. `dirty` says up to where a mapping has been written: behind it lie
 * zeros.
 */
#include <string.h>

#include "runtime/error.h"
#include "runtime/os.h"
#include "runtime/pool_internal.h"

enum { PAGE = 4096, HUGE = 2 << 20 };
static const size_t size_max = (size_t)1 << 46; /* the system's address space ends at 2^47 */

static size_t whole_pages(size_t size) { return (size + PAGE - 1) & ~(size_t)(PAGE - 1); }

/* The size of the mapping for `size` bytes; four to each doubling. */
static size_t mapping_size(size_t size)
{
    unsigned shift = 61u - (unsigned)__builtin_clzl(size - 1);
    return (((size - 1) >> shift) + 1) << shift;
}

static unsigned bin_of(size_t mapped)
{
    unsigned top = 63u - (unsigned)__builtin_clzl(mapped - 1);
    return (top - 16) * 4 + (((mapped - 1) >> (top - 2)) & 3);
}

static size_t bucket_of(const struct qr_large_blocks *large, const void *at)
{
    uint64_t hash = ((uintptr_t)at >> 12) * UINT64_C(0x9E3779B97F4A7C15);
    return (size_t)(hash >> 32) & (large->bucket_count - 1);
}

/* ---------------------------------------------------------------- the table */

static struct qr_large **find(struct qr_large_blocks *large, const void *at)
{
    struct qr_large **link = large->bucket_count ? &large->buckets[bucket_of(large, at)] : NULL;
    while (link && *link && (*link)->at != at)
        link = &(*link)->next;
    return link && *link ? link : NULL;
}

static int make_room(struct qr_large_blocks *large)
{
    size_t old_count = large->bucket_count, count = old_count ? old_count * 2 : 64;
    struct qr_large **old = large->buckets, **buckets;
    if (large->count < old_count)
        return 0;
    if (!(buckets = qr_calloc(count, sizeof *buckets)))
        return qr_fail(QALLOW_E_NO_MEMORY, "pool: no memory for the table of large blocks");
    large->buckets = buckets;
    large->bucket_count = count;
    for (size_t i = 0; i < old_count; i++) {
        for (struct qr_large *b = old[i], *next; b; b = next) {
            struct qr_large **head = &buckets[bucket_of(large, b->at)];
            next = b->next;
            b->next = *head;
            *head = b;
        }
    }
    qr_free(old);
    return 0;
}

static int charge(struct qr_pool *pool, uint64_t bytes)
{
    pthread_mutex_lock(&pool->lock);
    int rc = qr_pool_charge(pool, bytes);
    pthread_mutex_unlock(&pool->lock);
    return rc;
}

static void discharge(struct qr_pool *pool, uint64_t bytes)
{
    pthread_mutex_lock(&pool->lock);
    pool->mapped -= bytes;
    pool->given_back += bytes;
    pthread_mutex_unlock(&pool->lock);
}

/* ---------------------------------------------------------------- kept blocks */

static void unmap(struct qr_pool *pool, struct qr_large *block)
{
    discharge(pool, whole_pages(block->dirty));
    QR_UNPOISON(block->at, block->mapped);
    qr_unmap(block->at, block->mapped);
    qr_free(block);
}

/* Counts a block that is kept from now on, or (sign -1) no longer; the bytes kept in all. */
static uint64_t count_kept(struct qr_pool *pool, const struct qr_large *block, int sign)
{
    pthread_mutex_lock(&pool->lock);
    pool->kept += (uint64_t)(sign * (int64_t)whole_pages(block->dirty));
    uint64_t kept = pool->kept;
    pthread_mutex_unlock(&pool->lock);
    return kept;
}

/* Gives back until at most `keep` of the `kept` bytes are left, or all; the largest blocks first,
 * for they are the fewest. With the lock held. */
static void trim(struct qr_pool *pool, uint64_t kept, uint64_t keep)
{
    struct qr_large **bins = pool->large.kept;
    for (unsigned bin = LARGE_BINS; bin-- > 0 && kept > keep;) {
        while (bins[bin] && kept > keep) {
            struct qr_large *block = bins[bin];
            bins[bin] = block->next;
            kept = count_kept(pool, block, -1);
            unmap(pool, block);
        }
    }
}

void qr_large_trim(struct qr_pool *pool)
{
    pthread_mutex_lock(&pool->large.lock);
    trim(pool, UINT64_MAX, 0);
    pthread_mutex_unlock(&pool->large.lock);
}

static struct qr_large *take_kept(struct qr_pool *pool, size_t mapped)
{
    struct qr_large **head = &pool->large.kept[bin_of(mapped)], *block = *head;
    if (block) {
        qr_assert(block->mapped == mapped);
        *head = block->next;
        count_kept(pool, block, -1);
    }
    return block;
}

/* ---------------------------------------------------------------- a block's memory */

static int map_block(struct qr_pool *pool, size_t size, size_t mapped, struct qr_large **result)
{
    struct qr_large *block = qr_calloc(1, sizeof *block);
    int rc;
    if (!block)
        return qr_fail(QALLOW_E_NO_MEMORY, "pool: no memory for a block of %zu bytes", size);
    if ((rc = charge(pool, whole_pages(size)))) {
        qr_free(block);
        return rc;
    }
    block->mapped = mapped;
    block->dirty = size;
    block->at = qr_map(mapped, mapped >= HUGE ? HUGE : PAGE);
    if (!block->at) {
        discharge(pool, whole_pages(size));
        qr_free(block);
        return qr_fail(QALLOW_E_NO_MEMORY, "pool: no memory for a block of %zu bytes", size);
    }
    if (pool->options.huge != QR_POOL_HUGE_NEVER && size >= HUGE)
        qr_map_huge(block->at, mapped, 1);
    *result = block;
    return 0;
}

/* [size, dirty) becomes zeros again, so that the block ends at `size`; memory goes back. */
static void clean_end(struct qr_pool *pool, struct qr_large *block, size_t size)
{
    size_t from = whole_pages(size), to = whole_pages(block->dirty);
    if (block->dirty <= size)
        return;
    memset(block->at + size, 0, (from < block->dirty ? from : block->dirty) - size);
    if (from < to) {
        qr_map_discard(block->at + from, to - from);
        discharge(pool, to - from);
    }
    block->dirty = size;
}

/* A kept block becomes one of `size` bytes. */
static int reuse(struct qr_pool *pool, struct qr_large *block, size_t size, int zero)
{
    size_t old = block->dirty;
    QR_UNPOISON(block->at, block->mapped);
    clean_end(pool, block, size);
    if (zero)
        memset(block->at, 0, old < size ? old : size);
    int rc = old < size ? charge(pool, whole_pages(size) - whole_pages(old)) : 0;
    if (!rc)
        block->dirty = size;
    return rc;
}

/* ---------------------------------------------------------------- allocating, freeing */

static int allocate(struct qr_pool *pool, size_t size, size_t mapped, int zero,
                    struct qr_large **result)
{
    struct qr_large_blocks *large = &pool->large;
    int rc = make_room(large);
    struct qr_large *block = rc ? NULL : take_kept(pool, mapped);
    if (rc)
        return rc;
    if (block) {
        if ((rc = reuse(pool, block, size, zero))) {
            unmap(pool, block);
            return rc;
        }
    } else if ((rc = map_block(pool, size, mapped, &block))) {
        return rc;
    }
    struct qr_large **head = &large->buckets[bucket_of(large, block->at)];
    block->size = size;
    block->next = *head;
    *head = block;
    large->count++;
    large->allocated++;
    large->bytes += size;
    *result = block;
    return 0;
}

int qr_large_alloc(struct qr_pool *pool, size_t size, size_t reserve, int zero, void **result)
{
    struct qr_large *block = NULL;
    size_t space = reserve > size ? reserve : size;
    if (space > size_max)
        return qr_fail(QALLOW_E_LIMIT, "pool: a block of %zu bytes", space);
    if (space <= QR_POOL_SMALL)
        space = QR_POOL_SMALL + 1;
    pthread_mutex_lock(&pool->large.lock);
    int rc = allocate(pool, size, mapping_size(space), zero, &block);
    if (rc == QALLOW_E_LIMIT) { /* what is kept for later counts too: it must go first */
        trim(pool, UINT64_MAX, 0);
        pthread_mutex_unlock(&pool->large.lock);
        qr_slab_trim(pool);
        pthread_mutex_lock(&pool->large.lock);
        rc = allocate(pool, size, mapping_size(space), zero, &block);
    }
    pthread_mutex_unlock(&pool->large.lock);
    if (!rc)
        *result = block->at;
    return rc;
}

/* With the lock held: the link to a block of this size, or an error. */
static int find_block(struct qr_pool *pool, const void *at, size_t size, struct qr_large ***link)
{
    if (!(*link = find(&pool->large, at)))
        return qr_fail(QALLOW_E_ARGUMENT, "pool: %p is not a block of this pool, or is free", at);
    if ((**link)->size != size)
        return qr_fail(QALLOW_E_ARGUMENT, "pool: the block at %p has %zu bytes, not %zu", at,
                       (**link)->size, size);
    return 0;
}

int qr_large_free(struct qr_pool *pool, void *at, size_t size)
{
    struct qr_large_blocks *large = &pool->large;
    struct qr_large **link;
    pthread_mutex_lock(&large->lock);
    int rc = find_block(pool, at, size, &link);
    if (!rc) {
        struct qr_large *block = *link, **bin = &large->kept[bin_of(block->mapped)];
        *link = block->next;
        large->count--;
        large->bytes -= size;
        QR_POISON(block->at, block->mapped);
        block->next = *bin;
        *bin = block;
        trim(pool, count_kept(pool, block, 1), pool->options.keep_bytes);
    }
    pthread_mutex_unlock(&large->lock);
    return rc;
}

static int resize(struct qr_pool *pool, struct qr_large *block, size_t new_size)
{
    if (new_size > block->mapped)
        return qr_fail(QALLOW_E_LIMIT, "pool: the block at %p cannot have more than %zu bytes",
                       (void *)block->at, block->mapped);
    if (new_size < block->size) {
        clean_end(pool, block, new_size);
    } else if (new_size > block->dirty) {
        int rc = charge(pool, whole_pages(new_size) - whole_pages(block->dirty));
        if (rc)
            return rc;
        block->dirty = new_size;
    }
    pool->large.bytes += new_size - block->size;
    block->size = new_size;
    return 0;
}

int qr_large_grow(struct qr_pool *pool, void *at, size_t size, size_t new_size)
{
    struct qr_large **link;
    pthread_mutex_lock(&pool->large.lock);
    int rc = find_block(pool, at, size, &link);
    if (!rc)
        rc = resize(pool, *link, new_size);
    pthread_mutex_unlock(&pool->large.lock);
    return rc;
}

void qr_large_finish(struct qr_pool *pool)
{
    struct qr_large_blocks *large = &pool->large;
    trim(pool, UINT64_MAX, 0);
    for (size_t i = 0; i < large->bucket_count; i++) {
        for (struct qr_large *block = large->buckets[i], *next; block; block = next) {
            next = block->next;
            unmap(pool, block);
        }
    }
    qr_free(large->buckets);
    pthread_mutex_destroy(&large->lock);
}
