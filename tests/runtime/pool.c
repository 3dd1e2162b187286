/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The block pool: sizes, growing, misuse, bounds, threads that end, every allocation failed once,
 * and many threads that allocate, fill, hand over, check and free at random. The stress test counts
 * for itself what is in use and compares with the pool's figures.
 * QALLOW_SEED=N repeats a run, QALLOW_ROUNDS=N makes it N times as long.
 */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <pthread.h>

#include "qallow/error.h"
#include "runtime/os.h"
#include "runtime/pool_internal.h"
#include "tests/random.h"
#include "tests/runtime/ok.h"

/* The call fails so, and says `text`. */
#define FAILS(call, result, text)                                                                  \
    do {                                                                                           \
        assert_int_equal(call, result);                                                            \
        if (!strstr(qallow_error_detail(), text))                                                  \
            fail_msg("%s: no \"%s\" in \"%s\"", #call, text, qallow_error_detail());               \
    } while (0)

static uint64_t seed;
static unsigned rounds = 1;

static struct qr_pool *new_pool(struct qr_pool_options options)
{
    struct qr_pool *pool;
    if (!options.reserve)
        options.reserve = UINT64_C(4) << 30;
    OK(qr_pool_create(&options, &pool));
    return pool;
}

static struct qr_pool_stats stats_of(struct qr_pool *pool)
{
    struct qr_pool_stats stats;
    qr_pool_stats(pool, &stats);
    return stats;
}

/* ---------------------------------------------------------------- sizes */

static void test_sizes(void **state)
{
    struct qr_pool *pool = new_pool((struct qr_pool_options){0});
    size_t last = 0;
    for (size_t size = 1; size <= (4 << 20); size += size / 97 + 1) {
        uint8_t *block;
        size_t usable = qr_pool_usable(size);
        assert_true(usable >= size && usable >= last);
        assert_true(size <= 256 ? usable < size + 64 : usable <= size + size / 4);
        last = usable;
        OK(qr_pool_alloc(pool, size, (void **)&block));
        assert_true((uintptr_t)block % QR_POOL_ALIGNMENT == 0);
        if (!(usable & (usable - 1)) && usable >= 4096)
            assert_true((uintptr_t)block % 4096 == 0);
        memset(block, 0xa5, size);
        OK(qr_pool_free(pool, block, size));
        OK(qr_pool_alloc_zero(pool, size, (void **)&block));
        for (size_t i = 0; i < size; i += i < 100 ? 1 : 61)
            assert_int_equal(block[i], 0);
        assert_int_equal(block[size - 1], 0);
        OK(qr_pool_free(pool, block, size));
    }
    assert_int_equal(qr_pool_usable(65536), 65536);
    assert_int_equal(stats_of(pool).blocks, 0);
    qr_pool_destroy(pool);
    qr_pool_destroy(NULL);
}

/* Blocks of a slab lie beside each other: none overlaps another, and all of them keep their bytes.
 */
static void test_disjoint(void **state)
{
    enum { N = 1500 };
    static uint32_t *blocks[N];
    static const size_t sizes[] = {4, 65, 320, 1000, 4096, 57344};
    struct qr_pool *pool = new_pool((struct qr_pool_options){0});
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        for (uint32_t i = 0; i < N; i++) {
            OK(qr_pool_alloc(pool, sizes[s], (void **)&blocks[i]));
            for (size_t w = 0; w < sizes[s] / 4; w += 7)
                blocks[i][w] = i;
            blocks[i][sizes[s] / 4 - 1] = i;
        }
        assert_int_equal(stats_of(pool).blocks, N);
        for (uint32_t i = 0; i < N; i++) {
            for (size_t w = 0; w < sizes[s] / 4; w += 7)
                assert_int_equal(blocks[i][w], i);
            assert_int_equal(blocks[i][sizes[s] / 4 - 1], i);
            OK(qr_pool_free(pool, blocks[i], sizes[s]));
        }
    }
    qr_pool_destroy(pool);
}

static void test_growing(void **state)
{
    struct qr_pool *pool = new_pool((struct qr_pool_options){.keep_bytes = 1});
    uint8_t *block;
    OK(qr_pool_alloc(pool, 4000, (void **)&block));
    OK(qr_pool_grow(pool, block, 4000, 4096));
    OK(qr_pool_grow(pool, block, 4096, 3600));
    FAILS(qr_pool_grow(pool, block, 3600, 4097), QALLOW_E_LIMIT, "cannot have 4097");
    FAILS(qr_pool_grow(pool, block, 3600, 70000), QALLOW_E_LIMIT, "cannot have 70000");
    FAILS(qr_pool_grow(pool, block, 3600, 0), QALLOW_E_ARGUMENT, "0 bytes");
    FAILS(qr_pool_grow(pool, block, 100, 200), QALLOW_E_ARGUMENT, "not 100");
    OK(qr_pool_free(pool, block, 3600));

    OK(qr_pool_alloc_growable(pool, 10, 64 << 20, (void **)&block));
    memset(block, 1, 10);
    for (size_t size = 10; size < 64 << 20; size *= 2) {
        OK(qr_pool_grow(pool, block, size, size * 2));
        assert_int_equal(block[size - 1], 1);
        for (size_t i = size; i < 2 * size; i += size / 10)
            assert_int_equal(block[i], 0);
        memset(block + size, 1, size);
        if (size * 4 > 64 << 20) {
            FAILS(qr_pool_grow(pool, block, size * 2, 65 << 20), QALLOW_E_LIMIT, "more than");
            OK(qr_pool_grow(pool, block, size * 2, 5000));
            break;
        }
    }
    assert_int_equal(stats_of(pool).large_bytes, 5000);
    assert_true(stats_of(pool).mapped_bytes <= 8192 + (2 << 20));
    OK(qr_pool_grow(pool, block, 5000, 1 << 20)); /* what was cut off has become zeros */
    assert_int_equal(block[4999], 1);
    for (size_t i = 5000; i < 1 << 20; i++)
        assert_int_equal(block[i], 0);
    OK(qr_pool_free(pool, block, 1 << 20));
    qr_pool_destroy(pool);
}

/* A large block that is used again shows zeros where it promises them. */
static void test_large_again(void **state)
{
    struct qr_pool *pool = new_pool((struct qr_pool_options){0});
    uint8_t *block, *again;
    OK(qr_pool_alloc(pool, 300000, (void **)&block));
    memset(block, 7, 300000);
    OK(qr_pool_free(pool, block, 300000));
    assert_true(stats_of(pool).kept_bytes >= 300000);
    OK(qr_pool_alloc_growable(pool, 100001, 300000, (void **)&again));
    assert_ptr_equal(again, block);
    OK(qr_pool_grow(pool, again, 100001, 300000));
    for (size_t i = 0; i < 300000; i++)
        assert_int_equal(again[i], 0);
    OK(qr_pool_free(pool, again, 300000));
    qr_pool_trim(pool);
    assert_int_equal(stats_of(pool).mapped_bytes, 0);
    qr_pool_destroy(pool);
}

/* ---------------------------------------------------------------- misuse */

static void test_misuse(void **state)
{
    struct qr_pool *pool = new_pool((struct qr_pool_options){0});
    struct qr_pool *other = new_pool((struct qr_pool_options){0});
    uint8_t *block, *second, *large;
    int local = 0;
    OK(qr_pool_alloc(pool, 320, (void **)&block));
    OK(qr_pool_alloc(pool, 320, (void **)&second));
    OK(qr_pool_alloc(pool, 100000, (void **)&large));
    FAILS(qr_pool_free(pool, &local, 4), QALLOW_E_ARGUMENT, "not a block of this pool");
    FAILS(qr_pool_free(other, block, 320), QALLOW_E_ARGUMENT, "not a block of this pool");
    FAILS(qr_pool_free(other, large, 100000), QALLOW_E_ARGUMENT, "not a block of this pool");
    FAILS(qr_pool_free(pool, block + 1, 320), QALLOW_E_ARGUMENT, "not a block");
    FAILS(qr_pool_free(pool, block + 64, 320), QALLOW_E_ARGUMENT, "not a block");
    FAILS(qr_pool_free(pool, large + 4096, 100000), QALLOW_E_ARGUMENT, "not a block");
    FAILS(qr_pool_free(pool, block, 321), QALLOW_E_ARGUMENT, "has 320 bytes, not 321");
    FAILS(qr_pool_free(pool, block, 256), QALLOW_E_ARGUMENT, "has 320 bytes, not 256");
    FAILS(qr_pool_free(pool, block, 0), QALLOW_E_ARGUMENT, "not 0");
    FAILS(qr_pool_free(pool, block, SIZE_MAX), QALLOW_E_ARGUMENT, "has 320 bytes");
    FAILS(qr_pool_free(pool, large, 100001), QALLOW_E_ARGUMENT, "has 100000 bytes, not 100001");
    OK(qr_pool_free(pool, block, 320));
    FAILS(qr_pool_free(pool, block, 320), QALLOW_E_STATE, "is free already");
    FAILS(qr_pool_grow(pool, block, 320, 300), QALLOW_E_STATE, "is free already");
    OK(qr_pool_free(pool, large, 100000));
    FAILS(qr_pool_free(pool, large, 100000), QALLOW_E_ARGUMENT, "is free");
    OK(qr_pool_free(pool, second, 320));
    qr_pool_trim(pool);
    FAILS(qr_pool_free(pool, second, 320), QALLOW_E_STATE, "is free already");
    FAILS(qr_pool_free(pool, large, 100000), QALLOW_E_ARGUMENT, "is free");
    OK(qr_pool_free(pool, NULL, 5));
    FAILS(qr_pool_alloc(pool, 0, (void **)&block), QALLOW_E_ARGUMENT, "0 bytes");
    FAILS(qr_pool_alloc_zero(pool, 0, (void **)&block), QALLOW_E_ARGUMENT, "0 bytes");
    FAILS(qr_pool_alloc_growable(pool, 0, 5, (void **)&block), QALLOW_E_ARGUMENT, "0 bytes");
    FAILS(qr_pool_alloc(pool, SIZE_MAX, (void **)&block), QALLOW_E_LIMIT, "bytes");
    FAILS(qr_pool_alloc_growable(pool, 1, SIZE_MAX / 2, (void **)&block), QALLOW_E_LIMIT, "bytes");
    assert_null(block);
    assert_int_equal(stats_of(pool).blocks, 0);
    assert_int_equal(stats_of(pool).double_frees, 0);
    qr_pool_destroy(pool);
    qr_pool_destroy(other);
}

static void test_options(void **state)
{
    struct qr_pool *pool;
    struct qr_pool_options options = {.huge = (enum qr_pool_huge)3};
    FAILS(qr_pool_create(&options, &pool), QALLOW_E_ARGUMENT, "option");
    options = (struct qr_pool_options){.reserve = UINT64_C(1) << 60};
    FAILS(qr_pool_create(&options, &pool), QALLOW_E_ARGUMENT, "option");
    assert_null(pool);
    OK(qr_pool_create(NULL, &pool));
    assert_true(stats_of(pool).reserved_bytes >= 64 << 20);
    qr_pool_destroy(pool);
}

/* ---------------------------------------------------------------- bounds */

static void test_give_back(void **state)
{
    enum { N = 1024, KEEP = 8 << 20 };
    static void *blocks[N];
    struct qr_pool *pool = new_pool((struct qr_pool_options){.keep_bytes = KEEP});
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < N; i++)
            OK(qr_pool_alloc_zero(pool, 64 << 10, &blocks[i]));
        assert_true(stats_of(pool).mapped_bytes >= (uint64_t)N << 16);
        for (int i = 0; i < N; i++)
            OK(qr_pool_free(pool, blocks[i], 64 << 10));
        qr_pool_flush(pool);
        struct qr_pool_stats stats = stats_of(pool);
        assert_int_equal(stats.cached_blocks, 0);
        assert_true(stats.kept_bytes <= KEEP && stats.kept_bytes > KEEP / 2);
        assert_true(stats.mapped_bytes <= KEEP + (2 << 20));
        assert_true(stats.mapped_peak >= (uint64_t)N << 16);
    }
    OK(qr_pool_alloc_zero(pool, 3 * KEEP, &blocks[0])); /* more than may be kept */
    OK(qr_pool_free(pool, blocks[0], 3 * KEEP));
    assert_true(stats_of(pool).kept_bytes <= KEEP);
    qr_pool_trim(pool);
    assert_int_equal(stats_of(pool).mapped_bytes, 0);
    qr_pool_destroy(pool);
}

static void test_max_bytes(void **state)
{
    enum { MAX = 16 << 20 };
    struct qr_pool *pool = new_pool((struct qr_pool_options){.max_bytes = MAX});
    void *blocks[1024], *large;
    size_t n = 0;
    while (n < 1024 && !qr_pool_alloc(pool, 32 << 10, &blocks[n]))
        n++;
    assert_int_equal(n, MAX / (32 << 10));
    FAILS(qr_pool_alloc(pool, 100, &large), QALLOW_E_LIMIT, "at most 16777216");
    FAILS(qr_pool_alloc(pool, 100000, &large), QALLOW_E_LIMIT, "at most 16777216");
    while (n)
        OK(qr_pool_free(pool, blocks[--n], 32 << 10));
    qr_pool_flush(pool);
    OK(qr_pool_alloc(pool, 10 << 20, &large)); /* what is kept for slabs makes room for it */
    OK(qr_pool_free(pool, large, 10 << 20));
    for (; n < 400; n++) /* and the other way round */
        OK(qr_pool_alloc(pool, 32 << 10, &blocks[n]));
    while (n)
        OK(qr_pool_free(pool, blocks[--n], 32 << 10));
    OK(qr_pool_alloc_growable(pool, 1, 64 << 20, &large));
    FAILS(qr_pool_grow(pool, large, 1, 20 << 20), QALLOW_E_LIMIT, "at most 16777216");
    OK(qr_pool_free(pool, large, 1));
    qr_pool_destroy(pool);

    pool = new_pool((struct qr_pool_options){.reserve = 2 << 20});
    for (n = 0; n < 1024 && !qr_pool_alloc(pool, 32 << 10, &blocks[n]); n++)
        continue;
    assert_int_equal(n, 64);
    FAILS(qr_pool_alloc(pool, 100, &large), QALLOW_E_LIMIT, "address space");
    qr_pool_destroy(pool);
}

/* ---------------------------------------------------------------- allocations that fail */

static _Atomic int allocations, fail_at;
static int fail_one(size_t size) { return ++allocations == fail_at; }

/* Some of everything. Returns the first error, after giving back what it got. */
static int scenario(void)
{
    static const size_t sizes[] = {10, 4096, 65536, 65537, 3 << 20};
    enum { SIZES = sizeof sizes / sizeof *sizes, N = 100 };
    void *blocks[SIZES][N] = {{0}}, *growable = NULL;
    struct qr_pool *pool;
    struct qr_pool_options options = {.reserve = 1 << 30};
    int rc = qr_pool_create(&options, &pool), n[SIZES] = {0};
    if (rc)
        return rc;
    for (size_t s = 0; s < SIZES && !rc; s++) {
        for (; n[s] < N && !rc; n[s]++)
            rc = qr_pool_alloc(pool, sizes[s], &blocks[s][n[s]]);
    }
    if (!rc && !(rc = qr_pool_alloc_growable(pool, 5, 1 << 20, &growable)))
        rc = qr_pool_grow(pool, growable, 5, 6);
    for (size_t s = 0; s < SIZES; s++) {
        for (int i = 0; i < n[s]; i++)
            OK(qr_pool_free(pool, blocks[s][i], sizes[s]));
    }
    OK(qr_pool_free(pool, growable, 6));
    assert_int_equal(stats_of(pool).blocks, 0);
    qr_pool_trim(pool);
    assert_int_equal(stats_of(pool).mapped_bytes, 0);
    qr_pool_destroy(pool);
    return rc;
}

static void test_every_allocation(void **state)
{
    int rc = 1;
    for (fail_at = 1; rc; fail_at++) {
        allocations = 0;
        qr_set_allocation_hook(fail_one);
        rc = scenario();
        qr_set_allocation_hook(NULL);
        if (rc)
            FAILS(rc, QALLOW_E_NO_MEMORY, "no ");
        assert_true(rc || allocations < fail_at);
    }
    assert_true(fail_at > 20);
}

static int fail_all(size_t size) { return 1; }

/* A thread that gets no cache can free what it was given. */
static void *free_it(void *argument)
{
    void **arguments = argument;
    qr_set_allocation_hook(fail_all);
    int rc = qr_pool_free(arguments[0], arguments[1], 100);
    int again = qr_pool_free(arguments[0], arguments[1], 100);
    qr_set_allocation_hook(NULL);
    return rc || again != QALLOW_E_STATE ? arguments : NULL;
}

static void test_free_without_cache(void **state)
{
    struct qr_pool *pool = new_pool((struct qr_pool_options){0});
    void *arguments[2] = {pool}, *failed;
    pthread_t thread;
    OK(qr_pool_alloc(pool, 100, &arguments[1]));
    pthread_create(&thread, NULL, free_it, arguments);
    pthread_join(thread, &failed);
    assert_null(failed);
    assert_int_equal(stats_of(pool).blocks, 0);
    assert_int_equal(stats_of(pool).threads, 1);
    qr_pool_destroy(pool);
}

/* ---------------------------------------------------------------- threads */

static void *use_and_end(void *argument)
{
    struct qr_pool *pool = argument;
    void *blocks[100];
    for (int i = 0; i < 100; i++)
        OK(qr_pool_alloc(pool, 1000, &blocks[i]));
    for (int i = 0; i < 99; i++)
        OK(qr_pool_free(pool, blocks[i], 1000));
    return blocks[99];
}

static void test_threads_end(void **state)
{
    struct qr_pool *pool = new_pool((struct qr_pool_options){0});
    struct qr_pool_thread_stats threads[2];
    void *left;
    OK(qr_pool_alloc(pool, 1000, &left)); /* this thread has a cache of its own */
    OK(qr_pool_free(pool, left, 1000));
    qr_pool_flush(pool);
    for (int i = 0; i < 50; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, use_and_end, pool);
        pthread_join(thread, &left);
        struct qr_pool_stats stats = stats_of(pool);
        assert_int_equal(stats.blocks, 1);
        assert_int_equal(stats.cached_blocks, 0);
        assert_int_equal(stats.threads, 1);
        OK(qr_pool_free(pool, left, 1000)); /* by another thread, after the first has ended */
        FAILS(qr_pool_free(pool, left, 1000), QALLOW_E_STATE, "free already");
        stats = stats_of(pool);
        assert_int_equal(stats.remote_frees, i + 1);
        assert_int_equal(stats.blocks, 0);
        assert_int_equal(qr_pool_thread_stats(pool, threads, 2), 1);
        assert_int_equal(threads[0].cached_blocks, 1);
        assert_int_equal(threads[0].cached_bytes, 1024);
        qr_pool_flush(pool);
    }
    qr_pool_destroy(pool);
}

/* Threads free the same blocks at the same time: all but one of them get an error, or it is found
 * when the block would be handed out; no block is ever handed out twice. */
struct race {
    struct qr_pool *pool;
    void *blocks[64];
    _Atomic int turn, freed, done;
    int turns;
};

static void free_all(struct race *race)
{
    for (int i = 0; i < 64; i++) {
        int rc = qr_pool_free(race->pool, race->blocks[i], 200);
        assert_true(!rc || rc == QALLOW_E_STATE);
        race->freed += !rc;
    }
    race->done++;
}

static void *race_to_free(void *argument)
{
    struct race *race = argument;
    for (int turn = 1; turn <= race->turns; turn++) {
        while (race->turn < turn)
            sched_yield();
        free_all(race);
    }
    return NULL;
}

static void no_block_twice(struct qr_pool *pool)
{
    enum { N = 4096 };
    static uint32_t *all[N];
    for (uint32_t i = 0; i < N; i++) {
        OK(qr_pool_alloc(pool, 200, (void **)&all[i]));
        *all[i] = i;
    }
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(*all[i], i);
}

/* With the thread that allocated the blocks among those that free them, or two others. */
static void race_frees(int with_owner)
{
    struct race race = {.pool = new_pool((struct qr_pool_options){0}), .turns = 500 * (int)rounds};
    pthread_t threads[2];
    int others = 2 - with_owner, twice = 0;
    for (int i = 0; i < others; i++)
        pthread_create(&threads[i], NULL, race_to_free, &race);
    for (int turn = 1; turn <= race.turns; turn++) {
        for (int i = 0; i < 64; i++)
            OK(qr_pool_alloc(race.pool, 200, &race.blocks[i]));
        race.done = race.freed = 0;
        race.turn = turn;
        if (with_owner)
            free_all(&race);
        while (race.done < 2)
            sched_yield();
        twice += race.freed - 64;
        assert_true(race.freed == 64 || (with_owner && race.freed > 64));
    }
    for (int i = 0; i < others; i++)
        pthread_join(threads[i], NULL);
    qr_pool_flush(race.pool);
    assert_int_equal(stats_of(race.pool).double_frees, twice);
    no_block_twice(race.pool);
    qr_pool_destroy(race.pool);
}

static void test_racing_frees(void **state)
{
    race_frees(0);
    race_frees(1);
}

/* The loser of such a race, found late: its cache has a block whose state says that another one has
 * it. It is dropped where it would be handed out, and where it would go back to its slab. */
static void test_lost_race(void **state)
{
    enum { ANOTHER = 77 << STATE_CACHE_SHIFT | STATE_CACHED };
    struct qr_pool *pool = new_pool((struct qr_pool_options){0});
    void *blocks[2], *next;
    for (int i = 0; i < 2; i++)
        OK(qr_pool_alloc(pool, 200, &blocks[i]));
    for (int i = 0; i < 2; i++)
        OK(qr_pool_free(pool, blocks[i], 200));
    struct qr_cache *cache = pthread_getspecific(pool->key);
    struct qr_magazine *m = &cache->magazines[qr_pool_class_of(200)];
    uint32_t count = m->count;
    assert_ptr_equal(m->blocks[count - 1].block, blocks[1]);
    atomic_store(m->blocks[count - 1].state, ANOTHER);
    OK(qr_pool_alloc(pool, 200, &next));
    assert_ptr_equal(next, blocks[0]);
    assert_int_equal(stats_of(pool).double_frees, 1);
    OK(qr_pool_free(pool, next, 200));
    atomic_store(m->blocks[m->count - 1].state, ANOTHER);
    qr_pool_flush(pool);
    assert_int_equal(stats_of(pool).double_frees, 2);
    qr_pool_trim(pool); /* the slab stays: two of its blocks are somewhere */
    assert_int_equal(stats_of(pool).classes[qr_pool_class_of(200)].slabs, 1);
    no_block_twice(pool);
    qr_pool_destroy(pool);
}

/* ---------------------------------------------------------------- stress */

enum { SLOTS = 512, STEPS = 6000 };

/* A block on its way: whoever takes it out of the table owns it. Its first and last words, and some
 * between, say what it is. */
struct parcel {
    uint64_t size, mark;
    struct parcel *self;
};
struct stress {
    struct qr_pool *pools[2];
    _Atomic(struct parcel *) slots[2][SLOTS];
    _Atomic uint64_t bytes[2], blocks[2]; /* in use: what a sequential allocator would say */
    _Atomic int failed;
};
struct stress_thread {
    struct stress *stress;
    uint64_t random;
    pthread_t thread;
};

static size_t random_size(uint64_t *random)
{
    uint64_t r = next_random(random);
    size_t top = (size_t)1 << (r % 100 < 3 ? 19 : r % 100 < 20 ? 15 : 11);
    return sizeof(struct parcel) + (size_t)(next_random(random) % top);
}

static void fill(struct parcel *p, uint64_t size, uint64_t mark)
{
    uint8_t *bytes = (uint8_t *)p;
    *p = (struct parcel){size, mark, p};
    for (size_t i = sizeof *p; i < size; i += 509)
        bytes[i] = (uint8_t)(mark + i);
    if (size > sizeof *p)
        bytes[size - 1] = (uint8_t)(mark ^ size);
}

static int intact(const struct parcel *p)
{
    const uint8_t *bytes = (const uint8_t *)p;
    int ok = p->self == p &&
             (p->size <= sizeof *p || bytes[p->size - 1] == (uint8_t)(p->mark ^ p->size));
    for (size_t i = sizeof *p; i + 1 < p->size; i += 509)
        ok &= bytes[i] == (uint8_t)(p->mark + i);
    return ok;
}

static int stress_step(struct stress *s, uint64_t *random)
{
    uint64_t r = next_random(random);
    unsigned which = r & 1;
    struct qr_pool *pool = s->pools[which];
    _Atomic(struct parcel *) *slot = &s->slots[which][(r >> 8) % SLOTS];
    struct parcel *p = NULL;
    if (r >> 20 & 1) {
        size_t size = random_size(random);
        if (qr_pool_alloc(pool, size, (void **)&p))
            return -1;
        fill(p, size, r);
        s->bytes[which] += qr_pool_usable(size) <= QR_POOL_SMALL ? qr_pool_usable(size) : size;
        s->blocks[which]++;
    }
    p = atomic_exchange(slot, p);
    if (!p)
        return 0;
    uint64_t size = p->size;
    if (!intact(p) || qr_pool_free(pool, p, size))
        return -1;
    s->bytes[which] -= qr_pool_usable(size) <= QR_POOL_SMALL ? qr_pool_usable(size) : size;
    s->blocks[which]--;
    if (r >> 40 & 1 && size <= QR_POOL_SMALL && (r >> 41) % 8 == 0)
        return qr_pool_free(s->pools[!which], p, size) == QALLOW_E_ARGUMENT ? 0 : -1;
    return 0;
}

static void *stress_thread(void *argument)
{
    struct stress_thread *t = argument;
    for (unsigned i = 0; i < STEPS * rounds && !t->stress->failed; i++) {
        if (stress_step(t->stress, &t->random))
            t->stress->failed = 1;
        if (i % 1024 == 1023)
            qr_pool_flush(t->stress->pools[i >> 10 & 1]);
    }
    return NULL;
}

static void check_totals(struct stress *s)
{
    for (int i = 0; i < 2; i++) {
        struct qr_pool_stats stats = stats_of(s->pools[i]);
        assert_int_equal(stats.blocks, s->blocks[i]);
        assert_int_equal(stats.bytes, s->bytes[i]);
        assert_int_equal(stats.double_frees, 0);
        for (int j = 0; j < SLOTS; j++) {
            struct parcel *p = s->slots[i][j];
            assert_true(!p || intact(p));
            if (p)
                OK(qr_pool_free(s->pools[i], p, p->size));
        }
        assert_int_equal(stats_of(s->pools[i]).blocks, 0);
        qr_pool_trim(s->pools[i]);
        assert_int_equal(stats_of(s->pools[i]).cached_blocks, 0);
        assert_int_equal(stats_of(s->pools[i]).mapped_bytes, 0);
        qr_pool_destroy(s->pools[i]);
    }
}

static void test_stress(void **state)
{
    static struct stress s;
    static struct stress_thread threads[256];
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int count = cores < 1 ? 4 : cores > 64 ? 256 : 4 * (int)cores;
    s.pools[0] = new_pool((struct qr_pool_options){.keep_bytes = 4 << 20});
    s.pools[1] =
        new_pool((struct qr_pool_options){.cache_bytes = 4096, .huge = QR_POOL_HUGE_NEVER});
    for (int i = 0; i < count; i++) {
        threads[i] = (struct stress_thread){.stress = &s, .random = seed + (uint64_t)i};
        pthread_create(&threads[i].thread, NULL, stress_thread, &threads[i]);
    }
    for (int i = 0; i < count; i++)
        pthread_join(threads[i].thread, NULL);
    assert_false(s.failed);
    check_totals(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_disjoint),
        cmocka_unit_test(test_growing),
        cmocka_unit_test(test_large_again),
        cmocka_unit_test(test_misuse),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_give_back),
        cmocka_unit_test(test_max_bytes),
        cmocka_unit_test(test_every_allocation),
        cmocka_unit_test(test_free_without_cache),
        cmocka_unit_test(test_threads_end),
        cmocka_unit_test(test_racing_frees),
        cmocka_unit_test(test_lost_race),
        cmocka_unit_test(test_stress),
    };
    const char *text = getenv("QALLOW_SEED"), *times = getenv("QALLOW_ROUNDS");
    seed = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
    rounds = times ? (unsigned)strtoul(times, NULL, 0) : 1;
    printf("QALLOW_SEED=%llu\n", (unsigned long long)seed);
    fflush(stdout);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
