/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Getting the memory of a page, zeroed, and giving it back. The floor is a list of free blocks that
 * one thread keeps for itself, and memset; the peer is jemalloc and memset, where its library is
 * installed.
 *
 * `size` is the bytes of a page.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/case.h"
#include "bench/peer.h"
#include "bench/process.h"
#include "runtime/os.h"
#include "runtime/pool.h"

enum { BLOCKS = 16 };

struct pages {
    struct qr_pool *pool;
    uint64_t repeats;
    size_t size;
    uint8_t *memory; /* of the free list */
};

static int setup(struct qm_context *context)
{
    struct pages *p = context->state = qr_calloc(1, sizeof *p);
    if (!p)
        return qm_no_memory();
    p->size = context->size;
    int rc = qr_pool_create(NULL, &p->pool);
    return rc < 0 ? rc : qm_map(BLOCKS * p->size, &p->memory);
}

static void finish(struct qm_context *context)
{
    struct pages *p = context->state;
    if (!p)
        return;
    qr_pool_destroy(p->pool);
    qm_unmap(p->memory, BLOCKS * p->size);
    qr_free(p);
}

/* --- Qallow --- */

static int pairs(void *context, unsigned thread)
{
    struct pages *p = context;
    int rc = 0;
    for (uint64_t i = 0; rc == 0 && i < p->repeats; i++) {
        void *block;
        rc = qr_pool_alloc_zero(p->pool, p->size, &block);
        qm_keep(block);
        rc = rc < 0 ? rc : qr_pool_free(p->pool, block, p->size);
    }
    return rc;
}

static int run_in(struct pages *p, unsigned threads, uint64_t repeats, struct qm_sample *sample)
{
    double start = qm_now();
    p->repeats = repeats;
    int rc = qm_in_threads(threads, pairs, p);
    *sample = (struct qm_sample){qm_now() - start, (double)repeats * threads};
    return rc;
}
static int run(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    return run_in(context->state, context->threads, repeats, sample);
}
static int run_one_thread(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    return run_in(context->state, 1, repeats, sample);
}

/* --- the free list --- */

static int run_list(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct pages *p = context->state;
    void *head = NULL;
    for (size_t i = 0; i < BLOCKS; i++) {
        memcpy(p->memory + i * p->size, &head, sizeof head);
        head = p->memory + i * p->size;
    }
    double start = qm_now();
    for (uint64_t i = 0; i < repeats; i++) {
        void *block = head;
        memcpy(&head, block, sizeof head);
        memset(block, 0, p->size);
        qm_keep(block);
        memcpy(block, &head, sizeof head);
        head = block;
    }
    *sample = (struct qm_sample){qm_now() - start, (double)repeats};
    return 0;
}

/* --- jemalloc --- */

/* It cannot be loaded into a process that runs, so a child process of ours has it from its start
 * (`qallow bench --malloc-pairs`), takes the time itself and prints it. */
int qm_malloc_pairs(uint64_t repeats, uint64_t size, double *seconds)
{
    if (!dlsym(RTLD_DEFAULT, "mallctl"))
        return qr_fail(QALLOW_E_UNAVAILABLE, "this process does not use jemalloc");
    double start = qm_now();
    for (uint64_t i = 0; i < repeats; i++) {
        void *block = malloc(size);
        if (!block)
            return qr_fail(QALLOW_E_NO_MEMORY, "no memory for %llu bytes",
                           (unsigned long long)size);
        memset(block, 0, size);
        qm_keep(block);
        free(block);
    }
    *seconds = qm_now() - start;
    return 0;
}

static int run_child(uint64_t repeats, uint64_t size, double *seconds)
{
    char self[4096], count[32], bytes[32], answer[65] = "";
    const char *const argv[] = {"/usr/bin/env",
                                "LD_PRELOAD=libjemalloc.so.2",
                                self,
                                "bench",
                                "--malloc-pairs",
                                count,
                                "--malloc-size",
                                bytes,
                                NULL};
    struct qm_process child;
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0)
        return qr_fail_errno(errno, "/proc/self/exe");
    self[n] = '\0';
    snprintf(count, sizeof count, "%llu", (unsigned long long)repeats);
    snprintf(bytes, sizeof bytes, "%llu", (unsigned long long)size);
    int rc = qm_process_start(argv, "/", &child);
    if (rc < 0)
        return rc;
    n = read(child.out, answer, sizeof answer - 1);
    rc = qm_process_wait(&child);
    *seconds = strtod(answer, NULL);
    return rc;
}

static int find(char *text, size_t size)
{
    double seconds;
    int found = run_child(1, 64, &seconds) == 0;
    snprintf(text, size, "%s", found ? "jemalloc" : "there is no libjemalloc.so.2");
    return found;
}

const struct qm_peer qm_jemalloc = {"jemalloc", "libjemalloc2", find};

static int run_jemalloc(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    sample->operations = (double)repeats;
    return run_child(repeats, context->size, &sample->seconds);
}

static const struct qm_work beside_list = {setup, run, run_list, finish};
static const struct qm_work parallel = {setup, run, run_one_thread, finish};
static const struct qm_work beside_jemalloc = {setup, run, run_jemalloc, finish};

/* clang-format off */
#define PAIR "A page of 4 KiB allocated, zeroed and freed, again and again, hot in the cache; "
const struct qm_case qm_page_cases[] = {
    {"page/alloc-4k", "page of 4 KiB: alloc, zero, free", "free list + memset",
     PAIR "beside a list of free blocks and memset.",
     &qm_ns, {QM_NOTHING, 0}, &beside_list, .size = 4096},
    {"page/alloc-threads", "page of 4 KiB, all threads", "one thread",
     PAIR "in all threads at once; beside one thread.",
     &qm_million_s, {QM_RATIO, 1.9}, &parallel, .size = 4096, .threads = QM_ALL_THREADS},
    {0},
};
const struct qm_case qm_jemalloc_cases[] = {
    {"peer/jemalloc-4k", "vs jemalloc: alloc, zero, free", "jemalloc + memset",
     PAIR "beside malloc and free of jemalloc, and memset.",
     &qm_ns, {QM_RATIO, 1.5}, &beside_jemalloc, .size = 4096, .peer = &qm_jemalloc},
    {0},
};
