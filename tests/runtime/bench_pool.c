/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool beside jemalloc and glibc, in turns in one run: allocate, zero and free blocks of 4 KiB.
 *   pair     one block at a time
 *   working set  1024 blocks held, in random order one is freed and another allocated
 *   rounds   1024 blocks are allocated and zeroed, then all are freed
 *   handed   one thread allocates and zeroes, the other frees (32 blocks at a time)
 * by one thread and by two, and how many threads are faster than one. Last, the first touch of
 * fresh memory with and without huge pages. The median of the runs counts, and its ratio to
 * jemalloc. Usage: bench_pool [milliseconds a run]. jemalloc is loaded if it is there.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "runtime/pool.h"
#include "tests/random.h"

enum { BLOCK = 4096, HELD = 1024, RUNS = 9, BATCH = 32 };

static struct qr_pool *pool;
static void *(*je_malloc)(size_t);
static void (*je_free)(void *);

static void *pool_get(size_t size)
{
    void *block;
    if (qr_pool_alloc(pool, size, &block))
        exit(1);
    return block;
}
static void pool_put(void *block, size_t size)
{
    if (qr_pool_free(pool, block, size))
        exit(1);
}
static void *je_get(size_t size) { return je_malloc(size); }
static void je_put(void *block, size_t size) { je_free(block); }
static void *libc_get(size_t size) { return malloc(size); }
static void libc_put(void *block, size_t size) { free(block); }

struct allocator {
    const char *name;
    void *(*get)(size_t size);
    void (*put)(void *block, size_t size);
};
static const struct allocator allocators[] = {
    {"pool", pool_get, pool_put}, {"jemalloc", je_get, je_put}, {"glibc", libc_get, libc_put}};
enum { ALLOCATORS = 3 };

static double seconds_of(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}
static double now(void) { return seconds_of(CLOCK_MONOTONIC); }

static double largest(const double *v, int n)
{
    double best = v[0];
    for (int i = 1; i < n; i++)
        best = v[i] > best ? v[i] : best;
    return best;
}

/* ---------------------------------------------------------------- work of one thread */

struct job {
    const struct allocator *with;
    size_t (*work)(struct job *job); /* some of it; how many blocks */
    void *held[HELD];
    uint64_t random;
    int zero;
    double seconds, cpu_seconds;
    size_t blocks;
    pthread_barrier_t *start;
};

static void *get(struct job *job)
{
    void *block = job->with->get(BLOCK);
    if (job->zero)
        memset(block, 0, BLOCK);
    __asm__ volatile("" : : "r"(block) : "memory");
    return block;
}

static size_t pair(struct job *job)
{
    for (int i = 0; i < HELD; i++)
        job->with->put(get(job), BLOCK);
    return HELD;
}

static size_t working_set(struct job *job)
{
    for (int i = 0; i < HELD; i++) {
        size_t slot = next_random(&job->random) % HELD;
        if (job->held[slot])
            job->with->put(job->held[slot], BLOCK);
        job->held[slot] = get(job);
    }
    return HELD;
}

static size_t rounds(struct job *job)
{
    for (int i = 0; i < HELD; i++)
        job->held[i] = get(job);
    for (int i = 0; i < HELD; i++)
        job->with->put(job->held[i], BLOCK);
    memset(job->held, 0, sizeof job->held);
    return HELD;
}

static void *run_job(void *argument)
{
    struct job *job = argument;
    pthread_barrier_wait(job->start);
    double begin = now(), end = begin + job->seconds;
    do {
        job->blocks += job->work(job);
    } while (now() < end);
    job->seconds = now() - begin;
    job->cpu_seconds = seconds_of(CLOCK_THREAD_CPUTIME_ID);
    for (int i = 0; i < HELD; i++) {
        if (job->held[i])
            job->with->put(job->held[i], BLOCK);
    }
    return NULL;
}

/* Of all threads: what they had of the CPUs tells whether the machine was busy with other things.
 */
static double wall_seconds, cpu_seconds;

/* Blocks a second, of all threads together. */
static double rate(const struct allocator *with, size_t (*work)(struct job *), int zero,
                   int threads, double seconds)
{
    static struct job jobs[2];
    pthread_t thread[2];
    pthread_barrier_t start;
    double sum = 0;
    pthread_barrier_init(&start, NULL, (unsigned)threads);
    for (int i = 0; i < threads; i++) {
        jobs[i] = (struct job){.with = with,
                               .work = work,
                               .zero = zero,
                               .seconds = seconds,
                               .random = (uint64_t)i,
                               .start = &start};
        pthread_create(&thread[i], NULL, run_job, &jobs[i]);
    }
    for (int i = 0; i < threads; i++) {
        pthread_join(thread[i], NULL);
        sum += (double)jobs[i].blocks / jobs[i].seconds;
        wall_seconds += jobs[i].seconds;
        cpu_seconds += jobs[i].cpu_seconds;
    }
    pthread_barrier_destroy(&start);
    return sum;
}

/* ---------------------------------------------------------------- from one thread to another */

struct hand {
    const struct allocator *with;
    _Atomic(void **) full; /* BATCH blocks, or NULL */
    _Atomic int done;
};

static void *hand_over(void *argument)
{
    struct hand *hand = argument;
    for (;;) {
        void **batch = atomic_load_explicit(&hand->full, memory_order_acquire);
        if (!batch) {
            if (atomic_load(&hand->done))
                return NULL;
            continue;
        }
        for (int i = 0; i < BATCH; i++)
            hand->with->put(batch[i], BLOCK);
        atomic_store_explicit(&hand->full, NULL, memory_order_release);
    }
}

static double handed(const struct allocator *with, double seconds)
{
    struct hand hand = {.with = with};
    struct job job = {.with = with, .zero = 1};
    void *batches[2][BATCH];
    pthread_t thread;
    size_t blocks = 0;
    pthread_create(&thread, NULL, hand_over, &hand);
    double begin = now(), end = begin + seconds;
    for (int n = 0; now() < end; n ^= 1, blocks += BATCH) {
        for (int i = 0; i < BATCH; i++)
            batches[n][i] = get(&job);
        while (atomic_load_explicit(&hand.full, memory_order_acquire))
            continue;
        atomic_store_explicit(&hand.full, batches[n], memory_order_release);
    }
    double taken = now() - begin;
    atomic_store(&hand.done, 1);
    pthread_join(thread, NULL);
    return (double)blocks / taken;
}

/* ---------------------------------------------------------------- tables */

struct bench_case {
    const char *name;
    size_t (*work)(struct job *);
    int zero;
};

static void print_case(const struct bench_case *c, int threads, double seconds, double *one)
{
    double rates[ALLOCATORS][RUNS], ns[ALLOCATORS];
    for (int r = 0; r < RUNS; r++) {
        for (int a = 0; a < ALLOCATORS; a++) {
            if (a == 1 && !je_malloc)
                continue;
            rates[a][r] = c->work ? rate(&allocators[a], c->work, c->zero, threads, seconds)
                                  : handed(&allocators[a], seconds);
        }
    }
    printf("%-28s %d", c->name, threads);
    for (int a = 0; a < ALLOCATORS; a++) {
        ns[a] = a == 1 && !je_malloc ? 0 : 1e9 / largest(rates[a], RUNS);
        printf("  %9.1f", ns[a]);
    }
    if (je_malloc)
        printf("  %8.2f", ns[0] / ns[1]);
    if (threads == 1)
        *one = ns[0];
    else
        printf("  %8.2f", *one / ns[0]);
    printf("\n");
    fflush(stdout);
}

/* Allocates and zeroes `total` bytes of blocks from a fresh pool; ns a block. */
static double first_touch(size_t size, size_t total, enum qr_pool_huge huge)
{
    struct qr_pool_options options = {.huge = huge};
    size_t n = total / size;
    void *block;
    if (qr_pool_create(&options, &pool))
        exit(1);
    double begin = now();
    for (size_t i = 0; i < n; i++) {
        if (qr_pool_alloc(pool, size, &block))
            exit(1);
        memset(block, 1, size);
    }
    double taken = now() - begin;
    qr_pool_destroy(pool);
    pool = NULL;
    return taken / (double)n * 1e9;
}

static void print_first_touch(size_t size)
{
    enum { TOTAL = 256 << 20 };
    double never[3], huge[3];
    for (int r = 0; r < 3; r++) {
        never[r] = -first_touch(size, TOTAL, QR_POOL_HUGE_NEVER);
        huge[r] = -first_touch(size, TOTAL, QR_POOL_HUGE_AUTO);
    }
    double a = -largest(never, 3), b = -largest(huge, 3);
    printf("%9zu bytes  %12.1f  %12.1f  %8.2f\n", size, a, b, a / b);
}

/* jemalloc needs more thread-local memory than a library that is loaded late gets by default; that
 * can be changed only before a program starts. */
static void *open_jemalloc(char **argv)
{
    static const char name[] = "GLIBC_TUNABLES";
    void *library = dlopen("libjemalloc.so.2", RTLD_NOW | RTLD_LOCAL);
    if (!library && !getenv(name)) {
        setenv(name, "glibc.rtld.optional_static_tls=16384", 1);
        execv("/proc/self/exe", argv);
    }
    return library;
}

static void load_jemalloc(char **argv)
{
    void *library = open_jemalloc(argv);
    void *get_symbol = library ? dlsym(library, "malloc") : NULL;
    void *put_symbol = library ? dlsym(library, "free") : NULL;
    if (!get_symbol || !put_symbol) {
        printf("jemalloc cannot be loaded: %s\n", dlerror());
        return;
    }
    memcpy(&je_malloc, &get_symbol, sizeof je_malloc);
    memcpy(&je_free, &put_symbol, sizeof je_free);
}

int main(int argc, char **argv)
{
    static const struct bench_case cases[] = {{"pair, not touched", pair, 0},
                                              {"pair, zeroed", pair, 1},
                                              {"working set, not touched", working_set, 0},
                                              {"working set, zeroed", working_set, 1},
                                              {"rounds, zeroed", rounds, 1}};
    const struct bench_case hand = {"handed over, zeroed", NULL, 1};
    double seconds = (argc > 1 ? strtod(argv[1], NULL) : 50) * 1e-3, one = 0;
    load_jemalloc(argv);
    if (qr_pool_create(NULL, &pool))
        return 1;
    printf("%d-byte blocks, ns a block; all threads together\n", BLOCK);
    printf("%-26s threads       pool   jemalloc      glibc  pool/je.  x one\n", "");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int threads = 1; threads <= 2; threads++)
            print_case(&cases[i], threads, seconds, &one);
    }
    if (sysconf(_SC_NPROCESSORS_ONLN) > 1)
        print_case(&hand, 2, seconds, &one);
    qr_pool_destroy(pool);
    printf("the threads had %.0f %% of the CPU time they could have had\n",
           cpu_seconds / wall_seconds * 100);
    printf("\nfirst touch, ns a block    small pages    huge pages     ratio\n");
    for (size_t size = 64; size <= 16 << 20; size *= 64)
        print_first_touch(size);
    return 0;
}
