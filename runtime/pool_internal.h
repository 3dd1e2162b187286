/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the pool share. pool_slab.c: slabs and chunks, under locks. pool_cache.c: the
 * threads' caches, and the fast path. pool_large.c: blocks with a mapping of their own. pool.c: the
 * pool as a whole, and the functions that choose between the two kinds.
 *
 * Order of locks: a class's, that of the large blocks, the pool's.
 */
#ifndef QR_POOL_INTERNAL_H
#define QR_POOL_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "runtime/pool.h"

#if defined(__SANITIZE_ADDRESS__)
#define QR_POOL_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define QR_POOL_ASAN 1
#endif
#endif
#ifdef QR_POOL_ASAN
#include <sanitizer/asan_interface.h>
#define QR_POISON(at, size)   __asan_poison_memory_region(at, size)
#define QR_UNPOISON(at, size) __asan_unpoison_memory_region(at, size)
#else
#define QR_POISON(at, size)   ((void)(at), (void)(size))
#define QR_UNPOISON(at, size) ((void)(at), (void)(size))
#endif

enum {
    SLAB_SHIFT = 19,
    SLAB_SIZE = 1 << SLAB_SHIFT, /* of any class: 8192 blocks of 64 bytes, 8 of 64 KiB */
    CHUNK_SIZE = 2 << 20,        /* a huge page; taken from and given back to the system */
    CHUNK_SLABS = CHUNK_SIZE / SLAB_SIZE,
    CACHE_BLOCKS = 256, /* of one class in a thread's cache, at most */
    LARGE_BINS = 128,   /* kept large blocks by size, four bins to each doubling */
    CLASS_BITS = 63,    /* of a slab's view */
    BLOCK_STATES_MAX = SLAB_SIZE / QR_POOL_ALIGNMENT,
};
#define SLAB_NONE UINT32_MAX

/*
 * The state of a block: 0 in its slab; else the number of a cache and what that cache has to do
 * with it. A thread's own blocks change state by a load and a store of their thread, others by
 * compare and swap; whoever takes a block from a cache makes sure that the state still says so.
 */
typedef _Atomic uint16_t qr_block_state;
enum { STATE_IN_USE = 1, STATE_CACHED = 2, STATE_KIND = 3, STATE_CACHE_SHIFT = 2 };

/* What a free needs to know of a slab, in one word that is read without a lock: the address of the
 * blocks' states, and in its low six bits the class plus 1. 0: no slab. */
typedef _Atomic uintptr_t qr_slab_view;

/* What a slab's class, whose lock protects it, knows of it. */
struct qr_slab {
    struct qr_slab_notes *notes;
    uint64_t *free_bits; /* behind the notes' states */
    uint32_t free, next, previous;
    uint32_t hint; /* no word before this one has a free bit */
};
struct qr_chunk {
    uint8_t used;      /* slabs */
    uint8_t discarded; /* free, and its memory given back */
};

/* States and free bits of a slab; never given back to the system while the pool lives, so that a
 * free that comes too late reads something. */
struct qr_slab_notes {
    struct qr_slab_notes *next; /* free ones of this class; all of the pool are in the list `all` */
    struct qr_slab_notes *next_of_all;
    void *memory; /* what they were allocated as */
    _Alignas(64) qr_block_state states[];
};

struct qr_size_class {
    uint32_t size, smaller;      /* of a block; of one of the class below */
    uint32_t blocks, reciprocal; /* in a slab; of size / 64, scaled by 2^31 */
    uint32_t capacity, batch;    /* of a thread's cache */
    _Alignas(64) pthread_mutex_t lock;
    uint32_t partial; /* list of slabs with a free block */
    uint32_t slabs, empty;
    uint64_t allocated, freed; /* by threads that have ended, or had no cache */
    struct qr_slab_notes *notes;
};

/* A block that is free and ready, and where its state is. */
struct qr_ready {
    void *block;
    qr_block_state *state;
};
/* Blocks of one class that a thread has ready. The counts are written by their thread only. */
struct qr_magazine {
    _Atomic uint32_t count;
    uint32_t capacity;
    _Atomic uint64_t allocated, freed;
    struct qr_ready *blocks;
};
struct qr_cache {
    struct qr_pool *pool;
    struct qr_cache *next, *previous;
    uint16_t in_use, cached; /* the states of its blocks */
    _Atomic uint64_t remote_frees, refills, flushes;
    struct qr_magazine magazines[QR_POOL_CLASSES];
};

struct qr_large {
    struct qr_large *next; /* in its bucket, or in its bin */
    uint8_t *at;
    size_t size, mapped; /* what the user has; address space */
    size_t dirty;        /* no byte from here on was ever written */
};
struct qr_large_blocks {
    pthread_mutex_t lock;
    struct qr_large **buckets;
    size_t bucket_count, count, bytes;
    uint64_t allocated;
    struct qr_large *kept[LARGE_BINS];
};

struct qr_pool {
    uint8_t *base; /* of the slabs */
    uint64_t reserved;
    uint64_t number; /* no other pool of the process ever has the same */
    uint8_t *tables; /* one mapping for the four that follow */
    size_t tables_size;
    qr_slab_view *views;
    struct qr_slab *slabs;
    struct qr_chunk *chunks;
    uint64_t *free_slabs; /* bits; protected by the lock */
    struct qr_size_class classes[QR_POOL_CLASSES];
    pthread_key_t key;
    struct qr_pool_options options;

    _Alignas(64) pthread_mutex_t lock; /* of all below, but what has a lock of its own */
    uint32_t committed, lowest;        /* chunks; no word of free_slabs before has a bit */
    struct qr_slab_notes *all_notes;
    struct qr_cache *caches;
    uint32_t threads, lowest_number;
    uint64_t numbers[(QR_POOL_THREADS + 63) / 64]; /* of caches: bits of those in use */
    uint64_t mapped, mapped_peak, kept, given_back;
    uint64_t remote_frees, refills, flushes;
    _Atomic uint64_t double_frees;
    struct qr_large_blocks large;
};

static inline unsigned qr_pool_class_of(size_t size)
{
    size_t n = size - 1;
    if (n < 256)
        return (unsigned)(n >> 6);
    unsigned top = 63u - (unsigned)__builtin_clzl(n);
    return 4 + (top - 8) * 4 + ((n >> (top - 2)) & 3);
}
static inline uint32_t qr_pool_class_size(unsigned class)
{
    return class < 4 ? 64 * (class + 1) : (5 + (class - 4) % 4) << (6 + (class - 4) / 4);
}
/* Which block of its slab lies at or before this offset into the slab. */
static inline uint32_t qr_block_at(const struct qr_size_class *class, uint32_t offset)
{
    return (uint32_t)((uint64_t)(offset >> 6) * class->reciprocal >> 31);
}
static inline qr_block_state *qr_block_states(uintptr_t view)
{
    return (qr_block_state *)(view & ~(uintptr_t)CLASS_BITS);
}

/* pool_slab.c. Take: up to `count` blocks, whose state becomes `state`; 0 or NO_MEMORY, LIMIT when
 * there is not a single one. Give: blocks whose state is `state`; those that have another one are
 * a double free and are left alone. */
int qr_slab_init(struct qr_pool *pool);
void qr_slab_finish(struct qr_pool *pool);
int qr_slab_take(struct qr_pool *pool, unsigned class, struct qr_ready *blocks, uint32_t count,
                 uint16_t state, uint32_t *taken);
void qr_slab_give(struct qr_pool *pool, unsigned class, const struct qr_ready *blocks,
                  uint32_t count, uint16_t state);
void qr_slab_trim(struct qr_pool *pool);
/* With the pool's lock held: whether `bytes` more may be mapped, if so they are counted. */
int qr_pool_charge(struct qr_pool *pool, uint64_t bytes);

/* pool_cache.c */
int qr_small_alloc(struct qr_pool *pool, size_t size, void **block);
int qr_small_free(struct qr_pool *pool, void *block, size_t size);
/* Whether this is a block in use of that size's class. */
int qr_small_check(struct qr_pool *pool, const void *block, size_t size);
void qr_cache_flush(struct qr_pool *pool);
void qr_cache_thread_ends(void *cache); /* destructor of the key */

/* pool_large.c */
int qr_large_alloc(struct qr_pool *pool, size_t size, size_t reserve, int zero, void **block);
int qr_large_free(struct qr_pool *pool, void *block, size_t size);
int qr_large_grow(struct qr_pool *pool, void *block, size_t size, size_t new_size);
/* Gives all kept blocks back. */
void qr_large_trim(struct qr_pool *pool);
void qr_large_finish(struct qr_pool *pool);

#endif
