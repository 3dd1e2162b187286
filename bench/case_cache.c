/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Look-ups in the cache of a directory, as any process makes them. The reference is the least table
 * that could do the same: XXH3 of the name, slots of 64 bytes, each under a sequence lock.
 *
 * `size` is the number of paths.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "accelerator/cache.h"
#include "backend/kernels.h"
#include "bench/case.h"
#include "runtime/os.h"

struct slot {
    _Atomic uint32_t sequence;
    uint32_t reserved;
    uint64_t key, value[6];
};

enum { NAME = 32 };

struct lookups {
    struct qa_cache *keeper;
    struct qallow_cache *cache;
    struct slot *slots;
    char (*names)[NAME];
    size_t mask, count;
    uint64_t seed;
};

static uint64_t key_of(const char *name) { return qb_kernels()->hash64(name, strlen(name), 0); }

static void fill_table(struct lookups *l)
{
    for (size_t i = 0; i < l->count; i++) {
        uint64_t key = key_of(l->names[i]);
        size_t at = key & l->mask;
        while (l->slots[at].key)
            at = (at + 1) & l->mask;
        l->slots[at].key = key;
        l->slots[at].value[0] = i;
    }
}

static uint64_t table_get(const struct lookups *l, const char *name)
{
    uint64_t key = key_of(name), value[6];
    size_t at = key & l->mask;
    uint32_t sequence;
    while (l->slots[at].key != key)
        at = (at + 1) & l->mask;
    struct slot *slot = &l->slots[at];
    do {
        sequence = atomic_load_explicit(&slot->sequence, memory_order_acquire);
        memcpy(value, slot->value, sizeof value);
        atomic_signal_fence(memory_order_acquire); /* on x86-64 what a thread fence would be */
    } while (sequence & 1 ||
             sequence != atomic_load_explicit(&slot->sequence, memory_order_relaxed));
    return value[0];
}

static int fill_cache(struct qm_context *context, struct lookups *l)
{
    struct stat st;
    const char *root = qm_path(context, "tree");
    if (mkdir(root, 0700) != 0 || stat(root, &st) != 0)
        return qr_fail(QALLOW_E_IO, "%s cannot be made", qr_quotez(root));
    struct qa_cache_options options = {.root = root,
                                       .root_device = st.st_dev,
                                       .root_inode = st.st_ino,
                                       .hash = QALLOW_HASH_XXH3_128};
    int rc = qa_cache_open(&options, &l->keeper);
    for (size_t i = 0; rc >= 0 && i < l->count; i++) {
        struct qa_file file = {
            .size = i, .inode = i, .kind = QALLOW_FILE_REGULAR, .state = QALLOW_FILE_CURRENT};
        rc = qa_cache_put(l->keeper, l->names[i], &file, NULL);
    }
    if (rc < 0)
        return rc;
    qa_cache_publish(l->keeper, 0);
    return qallow_cache_open(root, &l->cache);
}

static int setup(struct qm_context *context)
{
    struct lookups *l = context->state = qr_calloc(1, sizeof *l);
    size_t slots = 32;
    char real[4200];
    if (!l)
        return qm_no_memory();
    l->count = context->size;
    while (slots < 2 * l->count)
        slots *= 2;
    l->mask = slots - 1;
    l->seed = 1;
    l->slots = qr_calloc(slots, sizeof *l->slots);
    l->names = qr_calloc(l->count, sizeof *l->names);
    if (!l->slots || !l->names)
        return qm_no_memory();
    for (size_t i = 0; i < l->count; i++)
        snprintf(l->names[i], NAME, "dir%u/sub/file-%u.c", (unsigned)i % 100, (unsigned)i);
    fill_table(l);
    /* the cache beside the tree, so that it goes when that goes */
    snprintf(real, sizeof real, "%s", context->directory);
    if (setenv("QALLOW_CACHE_DIR", real, 1) != 0)
        return qm_no_memory();
    return fill_cache(context, l);
}

static void finish(struct qm_context *context)
{
    struct lookups *l = context->state;
    if (!l)
        return;
    qallow_cache_close(l->cache);
    qa_cache_close(l->keeper);
    qr_free(l->slots);
    qr_free(l->names);
    qr_free(l);
}

static int run(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct lookups *l = context->state;
    uint64_t sum = 0;
    int rc = 0;
    double start = qm_now();
    for (uint64_t i = 0; rc == 0 && i < repeats; i++) {
        struct qallow_file file;
        rc = qallow_cache_get(l->cache, l->names[qm_random(&l->seed) % l->count], &file);
        sum += file.size;
    }
    qm_keep(&sum);
    *sample = (struct qm_sample){qm_now() - start, (double)repeats};
    return rc;
}

static int run_table(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    struct lookups *l = context->state;
    uint64_t sum = 0;
    double start = qm_now();
    for (uint64_t i = 0; i < repeats; i++)
        sum += table_get(l, l->names[qm_random(&l->seed) % l->count]);
    qm_keep(&sum);
    *sample = (struct qm_sample){qm_now() - start, (double)repeats};
    return 0;
}

static const struct qm_work looking_up = {setup, run, run_table, finish};

/* clang-format off */
#define WHAT "qallow_cache_get for random names; beside the least table that could do the same: " \
             "XXH3 of the name, slots of 64 bytes, each under a sequence lock."
const struct qm_case qm_cache_cases[] = {
    {"cache/get-10k", "cache look-up, 10,000 files", "bare table", WHAT,
     &qm_ns, {QM_RATIO, 5}, &looking_up, .size = 10000},
    {"cache/get-250k", "cache look-up, 250,000 files", "bare table", WHAT,
     &qm_ns, {QM_NOTHING, 0}, &looking_up, .size = 250000, .tier = QM_FULL},
    {0},
};
