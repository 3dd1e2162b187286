/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pool: blocks of bytes for pages in memory, from any thread.
 *
 * Blocks of at most QR_POOL_SMALL bytes come from slabs of one size class each. A thread allocates
 * from, and frees into, a cache of its own without a lock and without an atomic read-modify-write;
 * blocks move between the caches and the slabs in batches, under the lock of their class. It does
 * not matter which thread frees a block: it goes into the cache of the one that frees it. Larger
 * blocks are mappings of their own, which can reserve address space behind them and then grow
 * without moving. All blocks begin on a cache line (64 bytes), those of 4 KiB and its multiples
 * that are powers of two on a page of the system.
 *
 * Misuse is an error, not a crash. What is found always, and changes nothing:
 *   - a pointer that is not of this pool, or is not the beginning of a block (QALLOW_E_ARGUMENT);
 *   - a second free of a block that nobody has got again since, when the first free happened
 *     before it, in whatever thread (QALLOW_E_STATE);
 *   - a size that falls into another size class, or for large blocks any other size
 *     (QALLOW_E_ARGUMENT).
 * What is not found: a free of a block that was freed and has been given to somebody else since;
 * a wrong size that falls into the same class (nothing goes wrong then). Two frees of one block
 * that race in two threads: one of them is an error if neither thread had allocated it; otherwise
 * it is found when the block would be handed out a second time, which does not happen, and counted
 * in the stats (double_frees). Writing behind the end of a block is not found; what the pool knows
 * about blocks does not lie beside them, so it stays intact. Under AddressSanitizer free blocks are
 * poisoned.
 *
 * Memory of the system comes through runtime/os.h only (qr_malloc, qr_map and their kin), so tests
 * can fail it. No thread runs in the background. After fork() the child must not use the pool.
 * Thread-safety: all functions but create and destroy may be called from any thread at any time.
 */
#ifndef QR_POOL_H
#define QR_POOL_H

#include <stddef.h>
#include <stdint.h>

enum {
    QR_POOL_SMALL = 64 << 10, /* the largest block of a slab */
    QR_POOL_CLASSES = 36,     /* 64, 128, 192, 256, then four to each doubling */
    QR_POOL_ALIGNMENT = 64,
    QR_POOL_THREADS = 16383, /* that hold a cache of one pool at a time */
};

enum qr_pool_huge {
    QR_POOL_HUGE_AUTO = 0, /* once the pool is larger than a few MiB; large blocks from 2 MiB on */
    QR_POOL_HUGE_NEVER,
    QR_POOL_HUGE_ALWAYS, /* from the first slab on */
};

/* All zero is the default. */
struct qr_pool_options {
    uint64_t reserve;     /* address space for slabs; 0: 256 GiB, or what the system grants of it */
    uint64_t max_bytes;   /* blocks of more than this in all are refused (LIMIT); 0: no bound. It is
                             the sum of mapped slabs and large blocks that counts */
    uint64_t keep_bytes;  /* free memory beyond this goes back to the system; 0: 64 MiB */
    uint64_t cache_bytes; /* what a thread may keep of one class; 0: 256 KiB */
    enum qr_pool_huge huge;
};

struct qr_pool;

/* A new pool in *pool. `options` may be NULL. A process can have about 1000 pools at a time (each
 * takes a pthread key). ARGUMENT, NO_MEMORY (which also says that no address space is left), LIMIT
 * (no key left). */
int qr_pool_create(const struct qr_pool_options *options, struct qr_pool **pool);
/* Gives all memory back, blocks in use included. No thread may be using the pool, nor be ending
 * just now after having used it. NULL is legal. */
void qr_pool_destroy(struct qr_pool *pool);

/* A block of at least `size` bytes (1 or more) in *block; its content is undefined. Free it with
 * qr_pool_free and the same size. NO_MEMORY, LIMIT (max_bytes, or more than QR_POOL_THREADS), or
 * ARGUMENT (size 0); *block is NULL then. */
int qr_pool_alloc(struct qr_pool *pool, size_t size, void **block);
/* The same, and the first `size` bytes are zero. */
int qr_pool_alloc_zero(struct qr_pool *pool, size_t size, void **block);
/* A block of `size` bytes, all zero, that can grow up to `reserve` bytes without moving. It is
 * always a mapping of its own, however small: address space for all of it, memory for what is
 * touched. Growing so far cannot fail, unless for max_bytes. */
int qr_pool_alloc_growable(struct qr_pool *pool, size_t size, size_t reserve, void **block);
/* Frees a block; `size` is what it was allocated with or last grown to. block == NULL is legal and
 * does nothing. Errors: see above. */
int qr_pool_free(struct qr_pool *pool, void *block, size_t size);
/* Makes a block of `size` bytes one of `new_size` in its place, larger or smaller. The content up
 * to the smaller of both stays; of a large block new bytes are zero, of others undefined. LIMIT if
 * it does not fit there (allocate another one and copy); the errors of free. */
int qr_pool_grow(struct qr_pool *pool, void *block, size_t size, size_t new_size);
/* How many bytes a block of `size` really has: it can grow that far at least. */
size_t qr_pool_usable(size_t size);

/* Gives the calling thread's cache back to the slabs. It happens by itself when a thread ends. */
void qr_pool_flush(struct qr_pool *pool);
/* Flushes, then gives all free memory back to the system. */
void qr_pool_trim(struct qr_pool *pool);

struct qr_pool_class_stats {
    size_t size;                    /* of a block */
    uint64_t allocated, freed;      /* so many times since the pool began */
    uint64_t in_use, cached, slabs; /* blocks out, blocks in thread caches, slabs */
};
/* While other threads work, each figure is true of some moment during the call, not all of the
 * same one. */
struct qr_pool_stats {
    uint64_t blocks, bytes;               /* in use, large ones included; bytes of the classes */
    uint64_t large_blocks, large_bytes;   /* of them, those with a mapping of their own */
    uint64_t mapped_bytes, mapped_peak;   /* taken from the system: slabs, large and kept blocks */
    uint64_t kept_bytes;                  /* of them, free and ready for use again */
    uint64_t cached_blocks, cached_bytes; /* free, in the caches of threads */
    uint64_t reserved_bytes;              /* address space for slabs */
    uint64_t given_back_bytes;            /* to the system, in all */
    uint64_t remote_frees;                /* of blocks that another thread had allocated */
    uint64_t refills, flushes;            /* batches that went to and from the slabs */
    uint64_t double_frees;                /* races that were found late, see above */
    uint32_t threads;                     /* with a cache */
    struct qr_pool_class_stats classes[QR_POOL_CLASSES];
};
void qr_pool_stats(struct qr_pool *pool, struct qr_pool_stats *stats);
/* What each thread's cache holds, at most `max` of them; returns how many there are. */
struct qr_pool_thread_stats {
    uint64_t cached_blocks, cached_bytes;
};
size_t qr_pool_thread_stats(struct qr_pool *pool, struct qr_pool_thread_stats *threads, size_t max);

#endif
