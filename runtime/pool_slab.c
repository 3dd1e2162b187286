/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slabs: address space cut into pieces of SLAB_SIZE, each with blocks of one size class, and
 * chunks of CHUNK_SIZE, in which memory comes from and goes back to the system.
 *
 * One stretch of address space is reserved when the pool is made, so whether a pointer belongs to a
 * slab, and to which, is a subtraction. It is made usable from its beginning, chunk by chunk, and
 * slabs are taken from the lowest place that is free: memory in use gathers at the beginning, and
 * whole chunks become free at the end. A chunk whose slabs are all free is kept as it is, or its
 * memory goes back when more than keep_bytes are kept already.
 *
 * What is known about a slab lies elsewhere: writing behind the end of a block cannot damage it,
 * and looking at the state of a block touches few cache lines. A class keeps one slab that has
 * become empty, so that one block going to and fro does not take and give back a slab each time.
 */
#include <string.h>

#include "runtime/error.h"
#include "runtime/os.h"
#include "runtime/pool_internal.h"

enum { HUGE_FROM = 2 }; /* chunks: a small pool should not take whole huge pages */

int qr_pool_charge(struct qr_pool *pool, uint64_t bytes)
{
    uint64_t max = pool->options.max_bytes;
    if (max && (pool->mapped > max || bytes > max - pool->mapped))
        return qr_fail(QALLOW_E_LIMIT, "pool: %llu bytes more than the %llu in use, at most %llu",
                       (unsigned long long)bytes, (unsigned long long)pool->mapped,
                       (unsigned long long)max);
    pool->mapped += bytes;
    if (pool->mapped > pool->mapped_peak)
        pool->mapped_peak = pool->mapped;
    return 0;
}

/* ---------------------------------------------------------------- the pool's part */

static void init_classes(struct qr_pool *pool)
{
    pthread_mutexattr_t adaptive; /* held for less time than it takes to wake a thread */
    pthread_mutexattr_init(&adaptive);
    pthread_mutexattr_settype(&adaptive, PTHREAD_MUTEX_ADAPTIVE_NP);
    for (unsigned i = 0; i < QR_POOL_CLASSES; i++) {
        struct qr_size_class *class = &pool->classes[i];
        uint64_t capacity = pool->options.cache_bytes / qr_pool_class_size(i);
        class->size = qr_pool_class_size(i);
        class->smaller = i ? qr_pool_class_size(i - 1) : 0;
        class->blocks = SLAB_SIZE / class->size;
        class->reciprocal = ((1u << 31) + class->size / 64 - 1) / (class->size / 64);
        class->capacity = (uint32_t)(capacity < 2              ? 2
                                     : capacity > CACHE_BLOCKS ? CACHE_BLOCKS
                                                               : capacity);
        class->batch = class->capacity / 2;
        class->partial = SLAB_NONE;
        pthread_mutex_init(&class->lock, &adaptive);
        for (uint32_t b = 0; b < class->blocks; b++) /* the reciprocal is exact */
            qr_assert(qr_block_at(class, b * class->size) == b &&
                      qr_block_at(class, (b + 1) * class->size - 64) == b);
    }
    pthread_mutexattr_destroy(&adaptive);
}

int qr_slab_init(struct qr_pool *pool)
{
    enum { LEAST = 64 << 20 };
    uint64_t wanted = pool->options.reserve;
    pool->reserved =
        wanted ? (wanted + CHUNK_SIZE - 1) / CHUNK_SIZE * CHUNK_SIZE : UINT64_C(256) << 30;
    while (!(pool->base = qr_map_reserve(pool->reserved, CHUNK_SIZE)) && !wanted &&
           pool->reserved > LEAST)
        pool->reserved /= 2;
    if (!pool->base)
        return qr_fail(QALLOW_E_NO_MEMORY, "pool: no address space of %llu bytes",
                       (unsigned long long)pool->reserved);
    size_t slabs = pool->reserved >> SLAB_SHIFT, words = (slabs + 63) / 64;
    pool->tables_size = slabs * (sizeof *pool->views + sizeof *pool->slabs) +
                        words * sizeof *pool->free_slabs + slabs * sizeof *pool->chunks;
    pool->tables = qr_map(pool->tables_size, 4096);
    if (!pool->tables)
        return qr_fail(QALLOW_E_NO_MEMORY, "pool: no memory for the table of slabs");
    pool->views = (qr_slab_view *)pool->tables;
    pool->slabs = (struct qr_slab *)(pool->views + slabs);
    pool->free_slabs = (uint64_t *)(pool->slabs + slabs);
    pool->chunks = (struct qr_chunk *)(pool->free_slabs + words);
    init_classes(pool);
    return 0;
}

void qr_slab_finish(struct qr_pool *pool)
{
    while (pool->all_notes) {
        struct qr_slab_notes *notes = pool->all_notes;
        pool->all_notes = notes->next_of_all;
        qr_free(notes->memory);
    }
    if (pool->tables) {
        for (unsigned i = 0; i < QR_POOL_CLASSES; i++)
            pthread_mutex_destroy(&pool->classes[i].lock);
        qr_unmap(pool->tables, pool->tables_size);
    }
    if (pool->base) {
        QR_UNPOISON(pool->base, (size_t)pool->committed * CHUNK_SIZE);
        qr_unmap(pool->base, pool->reserved);
    }
}

/* ---------------------------------------------------------------- chunks, slabs */

static int more_chunks(struct qr_pool *pool)
{
    uint32_t chunk = pool->committed;
    uint8_t *at = pool->base + (uint64_t)chunk * CHUNK_SIZE;
    if (((uint64_t)chunk + 1) * CHUNK_SIZE > pool->reserved)
        return qr_fail(QALLOW_E_LIMIT, "pool: the address space of %llu bytes is used up",
                       (unsigned long long)pool->reserved);
    int rc = qr_pool_charge(pool, CHUNK_SIZE);
    if (rc)
        return rc;
    if (qr_map_commit(at, CHUNK_SIZE)) {
        pool->mapped -= CHUNK_SIZE;
        return qr_fail(QALLOW_E_NO_MEMORY, "pool: no memory for a chunk of %d bytes", CHUNK_SIZE);
    }
    if (pool->options.huge == QR_POOL_HUGE_ALWAYS ||
        (pool->options.huge == QR_POOL_HUGE_AUTO && chunk >= HUGE_FROM))
        qr_map_huge(at, CHUNK_SIZE, 1);
    pool->committed++;
    pool->kept += CHUNK_SIZE;
    if (pool->lowest > chunk * CHUNK_SLABS / 64)
        pool->lowest = chunk * CHUNK_SLABS / 64;
    for (uint32_t i = 0; i < CHUNK_SLABS; i++) {
        uint32_t slab = chunk * CHUNK_SLABS + i;
        pool->free_slabs[slab / 64] |= UINT64_C(1) << slab % 64;
    }
    return 0;
}

/* The lowest free slab, SLAB_NONE if there is none. */
static uint32_t lowest_free(struct qr_pool *pool)
{
    uint32_t words = (pool->committed * CHUNK_SLABS + 63) / 64;
    while (pool->lowest < words && !pool->free_slabs[pool->lowest])
        pool->lowest++;
    if (pool->lowest >= words)
        return SLAB_NONE;
    return pool->lowest * 64 + (uint32_t)__builtin_ctzll(pool->free_slabs[pool->lowest]);
}

static int take_slab(struct qr_pool *pool, uint32_t *slab)
{
    uint32_t s = lowest_free(pool);
    int rc = s == SLAB_NONE ? more_chunks(pool) : 0;
    if (rc)
        return rc;
    s = lowest_free(pool);
    qr_assert(s != SLAB_NONE);
    struct qr_chunk *chunk = &pool->chunks[s / CHUNK_SLABS];
    if (chunk->discarded) {
        if ((rc = qr_pool_charge(pool, CHUNK_SIZE)))
            return rc;
        chunk->discarded = 0;
    } else if (!chunk->used) {
        pool->kept -= CHUNK_SIZE;
    }
    chunk->used++;
    pool->free_slabs[s / 64] &= ~(UINT64_C(1) << s % 64);
    *slab = s;
    return 0;
}

static void discard_chunk(struct qr_pool *pool, uint32_t number)
{
    pool->chunks[number].discarded = 1;
    pool->kept -= CHUNK_SIZE;
    pool->mapped -= CHUNK_SIZE;
    pool->given_back += CHUNK_SIZE;
    qr_map_discard(pool->base + (uint64_t)number * CHUNK_SIZE, CHUNK_SIZE);
}

static void give_slab(struct qr_pool *pool, uint32_t slab)
{
    uint32_t number = slab / CHUNK_SLABS;
    struct qr_chunk *chunk = &pool->chunks[number];
    qr_assert(chunk->used && !(pool->free_slabs[slab / 64] >> slab % 64 & 1));
    pool->free_slabs[slab / 64] |= UINT64_C(1) << slab % 64;
    if (slab / 64 < pool->lowest)
        pool->lowest = slab / 64;
    if (--chunk->used)
        return;
    pool->kept += CHUNK_SIZE;
    if (pool->kept > pool->options.keep_bytes)
        discard_chunk(pool, number);
}

void qr_slab_trim(struct qr_pool *pool)
{
    for (unsigned i = 0; i < QR_POOL_CLASSES; i++)
        qr_slab_give(pool, i, NULL, 0, 0); /* gives up its empty slab */
    pthread_mutex_lock(&pool->lock);
    for (uint32_t i = 0; i < pool->committed; i++) {
        if (!pool->chunks[i].used && !pool->chunks[i].discarded)
            discard_chunk(pool, i);
    }
    pthread_mutex_unlock(&pool->lock);
}

/* ---------------------------------------------------------------- slabs of a class */

static struct qr_slab_notes *new_notes(struct qr_pool *pool, struct qr_size_class *class)
{
    struct qr_slab_notes *notes = class->notes;
    if (notes) {
        class->notes = notes->next;
        return notes;
    }
    size_t states = (class->blocks * sizeof(qr_block_state) + 7) / 8 * 8;
    size_t bits = (class->blocks + 63) / 64 * 8;
    void *memory;
    if (!(memory = qr_malloc(sizeof *notes + 64 + states + bits)))
        return NULL;
    /* The view keeps the class in the low bits of the states' address. */
    notes = (struct qr_slab_notes *)(((uintptr_t)memory + 63) & ~(uintptr_t)63);
    notes->memory = memory;
    pthread_mutex_lock(&pool->lock);
    notes->next_of_all = pool->all_notes;
    pool->all_notes = notes;
    pthread_mutex_unlock(&pool->lock);
    return notes;
}

static void link_slab(struct qr_pool *pool, struct qr_size_class *class, uint32_t slab)
{
    struct qr_slab *s = &pool->slabs[slab];
    s->previous = SLAB_NONE;
    s->next = class->partial;
    if (s->next != SLAB_NONE)
        pool->slabs[s->next].previous = slab;
    class->partial = slab;
}

static void unlink_slab(struct qr_pool *pool, struct qr_size_class *class, uint32_t slab)
{
    struct qr_slab *s = &pool->slabs[slab];
    if (s->next != SLAB_NONE)
        pool->slabs[s->next].previous = s->previous;
    if (s->previous != SLAB_NONE)
        pool->slabs[s->previous].next = s->next;
    else
        class->partial = s->next;
}

static int add_slab(struct qr_pool *pool, unsigned number)
{
    struct qr_size_class *class = &pool->classes[number];
    struct qr_slab_notes *notes = new_notes(pool, class);
    uint32_t slab;
    if (!notes)
        return qr_fail(QALLOW_E_NO_MEMORY, "pool: no memory for the notes on a slab");
    pthread_mutex_lock(&pool->lock);
    int rc = take_slab(pool, &slab);
    pthread_mutex_unlock(&pool->lock);
    if (rc) {
        notes->next = class->notes;
        class->notes = notes;
        return rc;
    }
    size_t states = (class->blocks * sizeof(qr_block_state) + 7) / 8 * 8;
    struct qr_slab *s = &pool->slabs[slab];
    s->notes = notes;
    s->free_bits = (uint64_t *)((uint8_t *)notes->states + states);
    s->free = class->blocks;
    s->hint = 0;
    for (uint32_t i = 0; i < class->blocks; i++)
        atomic_store_explicit(&notes->states[i], 0, memory_order_relaxed);
    for (uint32_t i = 0; i < class->blocks; i += 64)
        s->free_bits[i / 64] =
            class->blocks - i < 64 ? (UINT64_C(1) << (class->blocks - i)) - 1 : ~UINT64_C(0);
    QR_POISON(pool->base + ((uint64_t)slab << SLAB_SHIFT), SLAB_SIZE);
    atomic_store_explicit(&pool->views[slab], (uintptr_t)notes->states | (number + 1),
                          memory_order_release);
    class->slabs++;
    class->empty++;
    link_slab(pool, class, slab);
    return 0;
}

static void remove_slab(struct qr_pool *pool, struct qr_size_class *class, uint32_t slab)
{
    struct qr_slab *s = &pool->slabs[slab];
    qr_assert(s->free == class->blocks);
    unlink_slab(pool, class, slab);
    class->slabs--;
    class->empty--;
    atomic_store_explicit(&pool->views[slab], 0, memory_order_release);
    s->notes->next = class->notes;
    class->notes = s->notes;
    QR_UNPOISON(pool->base + ((uint64_t)slab << SLAB_SHIFT), SLAB_SIZE);
    pthread_mutex_lock(&pool->lock);
    give_slab(pool, slab);
    pthread_mutex_unlock(&pool->lock);
}

/* ---------------------------------------------------------------- blocks */

/* From one slab that has free blocks, in the order of their addresses. */
static uint32_t take_blocks(struct qr_pool *pool, struct qr_size_class *class, uint32_t slab,
                            struct qr_ready *blocks, uint32_t count, uint16_t state)
{
    struct qr_slab *s = &pool->slabs[slab];
    uint8_t *base = pool->base + ((uint64_t)slab << SLAB_SHIFT);
    uint32_t taken = 0;
    class->empty -= s->free == class->blocks;
    while (taken < count && s->free) {
        while (!s->free_bits[s->hint])
            s->hint++;
        uint32_t i = s->hint * 64 + (uint32_t)__builtin_ctzll(s->free_bits[s->hint]);
        s->free_bits[s->hint] &= s->free_bits[s->hint] - 1;
        s->free--;
        atomic_store_explicit(&s->notes->states[i], state, memory_order_relaxed);
        blocks[taken++] = (struct qr_ready){base + (size_t)i * class->size, &s->notes->states[i]};
    }
    if (!s->free)
        unlink_slab(pool, class, slab);
    return taken;
}

int qr_slab_take(struct qr_pool *pool, unsigned number, struct qr_ready *blocks, uint32_t count,
                 uint16_t state, uint32_t *taken)
{
    struct qr_size_class *class = &pool->classes[number];
    int rc = 0;
    *taken = 0;
    if (qr_allocation_refused(count * class->size)) /* tests: also where no memory is taken */
        return qr_fail(QALLOW_E_NO_MEMORY, "pool: no memory for blocks of %u bytes", class->size);
    pthread_mutex_lock(&class->lock);
    if (class->partial == SLAB_NONE)
        rc = add_slab(pool, number);
    if (rc == QALLOW_E_LIMIT) { /* what is kept for later counts too: it must go first */
        qr_large_trim(pool);
        rc = add_slab(pool, number);
    }
    while (*taken < count && class->partial != SLAB_NONE)
        *taken += take_blocks(pool, class, class->partial, blocks + *taken, count - *taken, state);
    pthread_mutex_unlock(&class->lock);
    return *taken ? 0 : rc;
}

static void give_block(struct qr_pool *pool, struct qr_size_class *class, void *block,
                       uint16_t state)
{
    uint64_t offset = (uint64_t)((uint8_t *)block - pool->base);
    uint32_t slab = (uint32_t)(offset >> SLAB_SHIFT);
    uint32_t i = qr_block_at(class, offset & (SLAB_SIZE - 1));
    struct qr_slab *s = &pool->slabs[slab];
    uintptr_t view = atomic_load_explicit(&pool->views[slab], memory_order_acquire);
    if ((view & CLASS_BITS) != (uintptr_t)(class - pool->classes) + 1 ||
        atomic_load_explicit(&s->notes->states[i], memory_order_relaxed) != state) {
        atomic_fetch_add_explicit(&pool->double_frees, 1, memory_order_relaxed);
        return; /* somebody else has it too, and will free it */
    }
    atomic_store_explicit(&s->notes->states[i], 0, memory_order_relaxed);
    qr_assert(!(s->free_bits[i / 64] >> i % 64 & 1));
    s->free_bits[i / 64] |= UINT64_C(1) << i % 64;
    if (i / 64 < s->hint)
        s->hint = i / 64;
    if (s->free++ == 0)
        link_slab(pool, class, slab);
    if (s->free == class->blocks && ++class->empty > 1)
        remove_slab(pool, class, slab);
}

void qr_slab_give(struct qr_pool *pool, unsigned number, const struct qr_ready *blocks,
                  uint32_t count, uint16_t state)
{
    struct qr_size_class *class = &pool->classes[number];
    pthread_mutex_lock(&class->lock);
    for (uint32_t i = 0; i < count; i++)
        give_block(pool, class, blocks[i].block, state);
    uint32_t slab = count ? SLAB_NONE : class->partial;
    while (slab != SLAB_NONE && class->empty) {
        uint32_t next = pool->slabs[slab].next;
        if (pool->slabs[slab].free == class->blocks)
            remove_slab(pool, class, slab);
        slab = next;
    }
    pthread_mutex_unlock(&class->lock);
}
