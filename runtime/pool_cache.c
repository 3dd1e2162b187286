/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The threads' caches: of each size class a stack of blocks that are ready, filled and emptied in
 * batches. The block freed last is handed out first, while it is still in the processor's cache;
 * when a stack is full, the oldest half goes back to the slabs.
 *
 * Each block has a state in its slab's notes, and each cache two states of its own: in use,
 * allocated by this cache; and cached, lies in this cache. Allocating and freeing by the same
 * thread is a load, a comparison and a store; the thread that frees another's block takes the state
 * over by compare and swap. So whatever comes first, a block that is free already is not freed
 * again. Only the load and store of the owner can be overtaken, by a free in another thread at the
 * same time; then the block lies in two caches, and the one whose state it does not have drops it.
 *
 * A cache belongs to its thread until the thread ends; then the destructor of the pool's key gives
 * everything back. Destructors of other keys that run later may use the pool again: that makes a
 * new cache, and the system calls the destructor once more.
 */
#include <string.h>

#include "runtime/error.h"
#include "runtime/os.h"
#include "runtime/pool_internal.h"

/* A counter that only one thread writes and others read. */
#define COUNT_UP(counter, n)                                                                       \
    atomic_store_explicit(&(counter), LOAD(counter) + (n), memory_order_relaxed)
#define LOAD(counter) atomic_load_explicit(&(counter), memory_order_relaxed)

/* ---------------------------------------------------------------- a thread's cache */

/* The pool that this thread used last, and its cache there: the key is slower to ask. A pool that
 * is gone has a number that no other one gets. */
static _Thread_local struct {
    uint64_t pool_number;
    struct qr_cache *cache;
} last_used;

static __attribute__((noinline)) struct qr_cache *ask_key(const struct qr_pool *pool)
{
    struct qr_cache *cache = pthread_getspecific(pool->key);
    if (cache) {
        last_used.pool_number = pool->number;
        last_used.cache = cache;
    }
    return cache;
}

static inline struct qr_cache *cache_of(const struct qr_pool *pool)
{
    return __builtin_expect(last_used.pool_number == pool->number, 1) ? last_used.cache
                                                                      : ask_key(pool);
}

/* With the pool's lock held: a number that no cache has. */
static int take_number(struct qr_pool *pool, uint32_t *number)
{
    for (uint32_t i = pool->lowest_number; i < QR_POOL_THREADS; i++) {
        uint64_t *word = &pool->numbers[i / 64];
        if (*word >> i % 64 & 1)
            continue;
        *word |= UINT64_C(1) << i % 64;
        pool->lowest_number = i + 1;
        *number = i;
        return 0;
    }
    return qr_fail(QALLOW_E_LIMIT, "pool: more than %d threads have a cache", QR_POOL_THREADS);
}

static void give_number(struct qr_pool *pool, uint32_t number)
{
    pool->numbers[number / 64] &= ~(UINT64_C(1) << number % 64);
    if (number < pool->lowest_number)
        pool->lowest_number = number;
}

static struct qr_cache *allocate_cache(struct qr_pool *pool)
{
    size_t blocks = 0;
    for (unsigned i = 0; i < QR_POOL_CLASSES; i++)
        blocks += pool->classes[i].capacity;
    struct qr_cache *cache = qr_calloc(1, sizeof *cache + blocks * sizeof(struct qr_ready));
    if (!cache)
        return NULL;
    struct qr_ready *next = (struct qr_ready *)(cache + 1);
    for (unsigned i = 0; i < QR_POOL_CLASSES; i++) {
        cache->magazines[i].capacity = pool->classes[i].capacity;
        cache->magazines[i].blocks = next;
        next += pool->classes[i].capacity;
    }
    cache->pool = pool;
    return cache;
}

/* The calling thread's first use of the pool. */
static int create_cache(struct qr_pool *pool, struct qr_cache **result)
{
    struct qr_cache *cache = allocate_cache(pool);
    uint32_t number = 0;
    if (!cache)
        return qr_fail(QALLOW_E_NO_MEMORY, "pool: no memory for a thread's cache");
    pthread_mutex_lock(&pool->lock);
    int rc = take_number(pool, &number);
    if (!rc && pthread_setspecific(pool->key, cache)) {
        give_number(pool, number);
        rc = qr_fail(QALLOW_E_NO_MEMORY, "pool: no memory for a thread's cache");
    }
    if (!rc) {
        cache->in_use = (uint16_t)(number << STATE_CACHE_SHIFT | STATE_IN_USE);
        cache->cached = (uint16_t)(number << STATE_CACHE_SHIFT | STATE_CACHED);
        if ((cache->next = pool->caches))
            cache->next->previous = cache;
        pool->caches = cache;
        pool->threads++;
    }
    pthread_mutex_unlock(&pool->lock);
    if (rc)
        qr_free(cache);
    else
        *result = cache;
    return rc;
}

static __attribute__((noinline)) void flush_oldest(struct qr_cache *cache, unsigned class,
                                                   uint32_t count)
{
    struct qr_magazine *m = &cache->magazines[class];
    uint32_t left = LOAD(m->count) - count;
    qr_slab_give(cache->pool, class, m->blocks, count, cache->cached);
    memmove(m->blocks, m->blocks + count, left * sizeof *m->blocks);
    atomic_store_explicit(&m->count, left, memory_order_relaxed);
    COUNT_UP(cache->flushes, 1);
}

static void flush_all(struct qr_cache *cache)
{
    for (unsigned i = 0; i < QR_POOL_CLASSES; i++) {
        uint32_t count = LOAD(cache->magazines[i].count);
        if (count)
            flush_oldest(cache, i, count);
    }
}

void qr_cache_flush(struct qr_pool *pool)
{
    struct qr_cache *cache = cache_of(pool);
    if (cache)
        flush_all(cache);
}

void qr_cache_thread_ends(void *argument)
{
    struct qr_cache *cache = argument;
    struct qr_pool *pool = cache->pool;
    last_used.pool_number = 0;
    flush_all(cache);
    for (unsigned i = 0; i < QR_POOL_CLASSES; i++) {
        struct qr_size_class *class = &pool->classes[i];
        pthread_mutex_lock(&class->lock);
        class->allocated += LOAD(cache->magazines[i].allocated);
        class->freed += LOAD(cache->magazines[i].freed);
        atomic_store_explicit(&cache->magazines[i].allocated, 0, memory_order_relaxed);
        atomic_store_explicit(&cache->magazines[i].freed, 0, memory_order_relaxed);
        pthread_mutex_unlock(&class->lock);
    }
    pthread_mutex_lock(&pool->lock);
    pool->remote_frees += LOAD(cache->remote_frees);
    pool->refills += LOAD(cache->refills);
    pool->flushes += LOAD(cache->flushes);
    if (cache->next)
        cache->next->previous = cache->previous;
    if (cache->previous)
        cache->previous->next = cache->next;
    else
        pool->caches = cache->next;
    pool->threads--;
    give_number(pool, cache->in_use >> STATE_CACHE_SHIFT);
    pthread_mutex_unlock(&pool->lock);
    qr_free(cache);
}

/* ---------------------------------------------------------------- allocating */

/* The magazine is empty. */
static int refill(struct qr_cache *cache, unsigned class)
{
    struct qr_magazine *m = &cache->magazines[class];
    uint32_t taken;
    int rc = qr_slab_take(cache->pool, class, m->blocks, cache->pool->classes[class].batch,
                          cache->cached, &taken);
    for (uint32_t i = 0; i < taken / 2; i++) { /* the lowest address is handed out first */
        struct qr_ready ready = m->blocks[i];
        m->blocks[i] = m->blocks[taken - 1 - i];
        m->blocks[taken - 1 - i] = ready;
    }
    atomic_store_explicit(&m->count, taken, memory_order_relaxed);
    COUNT_UP(cache->refills, 1);
    return rc;
}

/* Whatever is rare: no cache yet, nothing in it, a block that is another cache's by now. */
static __attribute__((noinline)) int alloc_slowly(struct qr_pool *pool, size_t size, void **result)
{
    struct qr_cache *cache = cache_of(pool);
    unsigned number = qr_pool_class_of(size);
    int rc = cache ? 0 : create_cache(pool, &cache);
    *result = NULL;
    if (!rc && !LOAD(cache->magazines[number].count))
        rc = refill(cache, number);
    return rc ? rc : qr_small_alloc(pool, size, result);
}

int qr_small_alloc(struct qr_pool *pool, size_t size, void **result)
{
    struct qr_cache *cache = cache_of(pool);
    unsigned number = qr_pool_class_of(size);
    struct qr_magazine *m = cache ? &cache->magazines[number] : NULL;
    uint32_t count = cache ? LOAD(m->count) : 0;
    if (__builtin_expect(!count, 0))
        return alloc_slowly(pool, size, result);
    struct qr_ready ready = m->blocks[count - 1];
    atomic_store_explicit(&m->count, count - 1, memory_order_relaxed);
    if (__builtin_expect(LOAD(*ready.state) != cache->cached, 0)) {
        atomic_fetch_add_explicit(&pool->double_frees, 1, memory_order_relaxed);
        return alloc_slowly(pool, size, result);
    }
    atomic_store_explicit(ready.state, cache->in_use, memory_order_relaxed);
    COUNT_UP(m->allocated, 1);
    QR_UNPOISON(ready.block, pool->classes[number].size);
    *result = ready.block;
    return 0;
}

/* ---------------------------------------------------------------- freeing */

static int not_a_block(const void *block)
{
    return qr_fail(QALLOW_E_ARGUMENT, "pool: %p is not a block of this pool", block);
}

static int wrong_size(const void *block, size_t size, size_t real)
{
    return qr_fail(QALLOW_E_ARGUMENT, "pool: the block at %p has %zu bytes, not %zu", block, real,
                   size);
}

static int free_already(const void *block)
{
    return qr_fail(QALLOW_E_STATE, "pool: the block at %p is free already", block);
}

/* The class of a block in use of this size, whose state is *state; or an error. */
static inline int check(struct qr_pool *pool, const void *block, size_t size, unsigned *number,
                        qr_block_state **state)
{
    uint64_t offset = (uint64_t)((const uint8_t *)block - pool->base);
    uintptr_t view = atomic_load_explicit(&pool->views[offset >> SLAB_SHIFT], memory_order_acquire);
    *number = (view & CLASS_BITS) - 1;
    if (__builtin_expect(!view, 0)) /* no slab any more: all its blocks are free */
        return free_already(block);
    const struct qr_size_class *class = &pool->classes[*number];
    uint32_t in_slab = offset & (SLAB_SIZE - 1), i = qr_block_at(class, in_slab);
    if (__builtin_expect(i >= class->blocks || i * class->size != in_slab, 0))
        return not_a_block(block);
    *state = qr_block_states(view) + i;
    if (__builtin_expect((LOAD(**state) & STATE_KIND) != STATE_IN_USE, 0))
        return free_already(block);
    if (__builtin_expect(size > class->size || size <= class->smaller, 0))
        return wrong_size(block, size, class->size);
    return 0;
}

int qr_small_check(struct qr_pool *pool, const void *block, size_t size)
{
    qr_block_state *state;
    unsigned number;
    return check(pool, block, size, &number, &state);
}

/* A thread that has no cache and gets none, for lack of memory, can free nevertheless. */
static int free_without_cache(struct qr_pool *pool, void *block, size_t size, qr_block_state *state)
{
    enum { NOBODY = QR_POOL_THREADS << STATE_CACHE_SHIFT | STATE_CACHED };
    unsigned number = qr_pool_class_of(size);
    uint16_t old = LOAD(*state);
    if ((old & STATE_KIND) != STATE_IN_USE ||
        !atomic_compare_exchange_strong_explicit(state, &old, NOBODY, memory_order_relaxed,
                                                 memory_order_relaxed))
        return free_already(block);
    QR_POISON(block, pool->classes[number].size);
    qr_slab_give(pool, number, &(struct qr_ready){block, state}, 1, NOBODY);
    pthread_mutex_lock(&pool->classes[number].lock);
    pool->classes[number].freed++;
    pthread_mutex_unlock(&pool->classes[number].lock);
    return 0;
}

/* The state of a block that this thread frees; it takes over what another one had allocated. */
static int take_over(struct qr_cache *cache, const void *block, qr_block_state *state)
{
    uint16_t old = LOAD(*state);
    if ((old & STATE_KIND) != STATE_IN_USE ||
        !atomic_compare_exchange_strong_explicit(state, &old, cache->cached, memory_order_relaxed,
                                                 memory_order_relaxed))
        return free_already(block);
    COUNT_UP(cache->remote_frees, 1);
    return 0;
}

static __attribute__((noinline)) struct qr_cache *first_cache(struct qr_pool *pool)
{
    struct qr_cache *cache;
    return create_cache(pool, &cache) ? NULL : cache;
}

int qr_small_free(struct qr_pool *pool, void *block, size_t size)
{
    struct qr_cache *cache = cache_of(pool);
    qr_block_state *state;
    unsigned number;
    int rc = check(pool, block, size, &number, &state);
    if (__builtin_expect(rc, 0))
        return rc;
    if (__builtin_expect(!cache, 0) && !(cache = first_cache(pool)))
        return free_without_cache(pool, block, size, state);
    if (__builtin_expect(LOAD(*state) == cache->in_use, 1))
        atomic_store_explicit(state, cache->cached, memory_order_relaxed);
    else if ((rc = take_over(cache, block, state)))
        return rc;
    struct qr_magazine *m = &cache->magazines[number];
    QR_POISON(block, pool->classes[number].size);
    uint32_t count = LOAD(m->count);
    if (__builtin_expect(count == m->capacity, 0)) {
        flush_oldest(cache, number, pool->classes[number].batch);
        count = LOAD(m->count);
    }
    m->blocks[count] = (struct qr_ready){block, state};
    atomic_store_explicit(&m->count, count + 1, memory_order_relaxed);
    COUNT_UP(m->freed, 1);
    return 0;
}
