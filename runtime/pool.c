/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool as a whole: made, destroyed, counted; and which of its two halves a block belongs to.
 * That is told by the address: the slabs lie in one stretch of address space.
 */
#include <string.h>

#include "runtime/error.h"
#include "runtime/os.h"
#include "runtime/pool_internal.h"

#define LOAD(counter) atomic_load_explicit(&(counter), memory_order_relaxed)

static void set_options(struct qr_pool *pool, const struct qr_pool_options *options)
{
    if (options)
        pool->options = *options;
    if (!pool->options.keep_bytes)
        pool->options.keep_bytes = 64 << 20;
    if (!pool->options.cache_bytes)
        pool->options.cache_bytes = 256 << 10;
}

static _Atomic uint64_t pools_made;

int qr_pool_create(const struct qr_pool_options *options, struct qr_pool **result)
{
    struct qr_pool *pool = qr_map(sizeof *pool, 4096); /* is aligned to cache lines, and zero */
    int rc;
    *result = NULL;
    if (!pool)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a pool");
    set_options(pool, options);
    pool->number = atomic_fetch_add(&pools_made, 1) + 1;
    if ((unsigned)pool->options.huge > QR_POOL_HUGE_ALWAYS || pool->options.reserve > UINT64_C(1)
                                                                                          << 46) {
        rc = qr_fail(QALLOW_E_ARGUMENT, "pool: an option is not what it can be");
        goto no_slabs;
    }
    if ((rc = qr_slab_init(pool)))
        goto no_slabs;
    if (pthread_key_create(&pool->key, qr_cache_thread_ends)) {
        rc = qr_fail(QALLOW_E_LIMIT, "pool: the process has no thread-specific key left");
        goto no_slabs;
    }
    pthread_mutex_init(&pool->lock, NULL);
    pthread_mutex_init(&pool->large.lock, NULL);
    *result = pool;
    return 0;
no_slabs:
    qr_slab_finish(pool);
    qr_unmap(pool, sizeof *pool);
    return rc;
}

void qr_pool_destroy(struct qr_pool *pool)
{
    if (!pool)
        return;
    pthread_key_delete(pool->key);
    while (pool->caches) {
        struct qr_cache *cache = pool->caches;
        pool->caches = cache->next;
        qr_free(cache);
    }
    qr_large_finish(pool);
    qr_slab_finish(pool);
    pthread_mutex_destroy(&pool->lock);
    qr_unmap(pool, sizeof *pool);
}

/* ---------------------------------------------------------------- blocks */

static int in_slabs(const struct qr_pool *pool, const void *block)
{
    return (uintptr_t)block - (uintptr_t)pool->base < pool->reserved;
}

static int no_size(void) { return qr_fail(QALLOW_E_ARGUMENT, "pool: a block of 0 bytes"); }

int qr_pool_alloc(struct qr_pool *pool, size_t size, void **block)
{
    if (__builtin_expect(size - 1 < QR_POOL_SMALL, 1))
        return qr_small_alloc(pool, size, block);
    *block = NULL;
    return size ? qr_large_alloc(pool, size, 0, 0, block) : no_size();
}

int qr_pool_alloc_zero(struct qr_pool *pool, size_t size, void **block)
{
    if (size - 1 < QR_POOL_SMALL) {
        int rc = qr_small_alloc(pool, size, block);
        if (!rc)
            memset(*block, 0, size);
        return rc;
    }
    *block = NULL;
    return size ? qr_large_alloc(pool, size, 0, 1, block) : no_size();
}

int qr_pool_alloc_growable(struct qr_pool *pool, size_t size, size_t reserve, void **block)
{
    *block = NULL;
    return size ? qr_large_alloc(pool, size, reserve, 1, block) : no_size();
}

int qr_pool_free(struct qr_pool *pool, void *block, size_t size)
{
    if (__builtin_expect(in_slabs(pool, block), 1))
        return qr_small_free(pool, block, size);
    return block ? qr_large_free(pool, block, size) : 0;
}

int qr_pool_grow(struct qr_pool *pool, void *block, size_t size, size_t new_size)
{
    if (!new_size)
        return no_size();
    if (!in_slabs(pool, block))
        return qr_large_grow(pool, block, size, new_size);
    int rc = qr_small_check(pool, block, size);
    if (!rc && new_size > QR_POOL_SMALL)
        rc =
            qr_fail(QALLOW_E_LIMIT, "pool: the block at %p cannot have %zu bytes", block, new_size);
    if (!rc && qr_pool_class_of(size) != qr_pool_class_of(new_size))
        rc = qr_fail(QALLOW_E_LIMIT, "pool: the block at %p has %u bytes, and cannot have %zu",
                     block, qr_pool_class_size(qr_pool_class_of(size)), new_size);
    return rc;
}

size_t qr_pool_usable(size_t size)
{
    return size - 1 < QR_POOL_SMALL ? qr_pool_class_size(qr_pool_class_of(size))
                                    : (size + 4095) & ~(size_t)4095;
}

void qr_pool_flush(struct qr_pool *pool) { qr_cache_flush(pool); }

void qr_pool_trim(struct qr_pool *pool)
{
    qr_cache_flush(pool);
    qr_large_trim(pool);
    qr_slab_trim(pool);
}

/* ---------------------------------------------------------------- figures */

static void add_classes(struct qr_pool *pool, struct qr_pool_stats *stats)
{
    for (unsigned i = 0; i < QR_POOL_CLASSES; i++) {
        struct qr_size_class *class = &pool->classes[i];
        pthread_mutex_lock(&class->lock);
        stats->classes[i] = (struct qr_pool_class_stats){.size = class->size,
                                                         .allocated = class->allocated,
                                                         .freed = class->freed,
                                                         .slabs = class->slabs};
        pthread_mutex_unlock(&class->lock);
    }
}

static void add_cache(const struct qr_cache *cache, struct qr_pool_stats *stats)
{
    for (unsigned i = 0; i < QR_POOL_CLASSES; i++) {
        const struct qr_magazine *m = &cache->magazines[i];
        stats->classes[i].freed += LOAD(m->freed); /* before what was allocated: never more */
        stats->classes[i].allocated += LOAD(m->allocated);
        stats->classes[i].cached += LOAD(m->count);
    }
    stats->remote_frees += LOAD(cache->remote_frees);
    stats->refills += LOAD(cache->refills);
    stats->flushes += LOAD(cache->flushes);
}

static void add_large(struct qr_pool *pool, struct qr_pool_stats *stats)
{
    pthread_mutex_lock(&pool->large.lock);
    stats->large_blocks = pool->large.count;
    stats->large_bytes = pool->large.bytes;
    pthread_mutex_unlock(&pool->large.lock);
}

static void sum_up(struct qr_pool_stats *stats)
{
    stats->blocks = stats->large_blocks;
    stats->bytes = stats->large_bytes;
    for (unsigned i = 0; i < QR_POOL_CLASSES; i++) {
        struct qr_pool_class_stats *class = &stats->classes[i];
        class->in_use = class->allocated > class->freed ? class->allocated - class->freed : 0;
        stats->blocks += class->in_use;
        stats->bytes += class->in_use * class->size;
        stats->cached_blocks += class->cached;
        stats->cached_bytes += class->cached * class->size;
    }
}

void qr_pool_stats(struct qr_pool *pool, struct qr_pool_stats *stats)
{
    *stats = (struct qr_pool_stats){.reserved_bytes = pool->reserved};
    add_classes(pool, stats);
    add_large(pool, stats);
    pthread_mutex_lock(&pool->lock);
    stats->mapped_bytes = pool->mapped;
    stats->mapped_peak = pool->mapped_peak;
    stats->kept_bytes = pool->kept;
    stats->given_back_bytes = pool->given_back;
    stats->remote_frees = pool->remote_frees;
    stats->refills = pool->refills;
    stats->flushes = pool->flushes;
    stats->threads = pool->threads;
    stats->double_frees = LOAD(pool->double_frees);
    for (const struct qr_cache *cache = pool->caches; cache; cache = cache->next)
        add_cache(cache, stats);
    pthread_mutex_unlock(&pool->lock);
    sum_up(stats);
}

size_t qr_pool_thread_stats(struct qr_pool *pool, struct qr_pool_thread_stats *threads, size_t max)
{
    size_t n = 0;
    pthread_mutex_lock(&pool->lock);
    for (const struct qr_cache *cache = pool->caches; cache; cache = cache->next, n++) {
        if (n >= max)
            continue;
        threads[n] = (struct qr_pool_thread_stats){0};
        for (unsigned i = 0; i < QR_POOL_CLASSES; i++) {
            uint64_t count = LOAD(cache->magazines[i].count);
            threads[n].cached_blocks += count;
            threads[n].cached_bytes += count * pool->classes[i].size;
        }
    }
    pthread_mutex_unlock(&pool->lock);
    return n;
}
