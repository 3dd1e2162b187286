/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a reader in another process than the keeper's pays for its questions.
 *
 *   bench_lookup get DIR NAMES RUNS          looks random names up: in the cache of DIR, in the
 * least table that could do the same (in shared memory, XXH3 of the name, 64-byte slots, each under
 * a sequence lock), and the part of both that is fetching the name and hashing it; ns each, in
 * turns bench_lookup since DIR NAMES COUNT RUNS  writes COUNT files, waits until the cache shows
 * them, and asks for what has changed; microseconds a question
 */
#include <stdatomic.h>
#include <sys/mman.h>

#include "bench.h"

enum { RUNS_MAX = 1000 };

/* --- look-ups --- */

struct slot {
    _Atomic uint32_t sequence;
    uint32_t reserved;
    uint64_t key, value[6];
};
struct table {
    struct slot *slots;
    size_t mask;
};

static struct table make_table(const struct names *names)
{
    size_t size = 32;
    while (size < 2 * names->count)
        size *= 2;
    struct table table = {mmap(NULL, size * sizeof(struct slot), PROT_READ | PROT_WRITE,
                               MAP_SHARED | MAP_ANONYMOUS, -1, 0),
                          size - 1};
    if (table.slots == MAP_FAILED)
        die("no memory");
    for (size_t i = 0; i < names->count; i++) {
        uint64_t key = XXH3_64bits(names->name[i], strlen(names->name[i]));
        size_t j = key & table.mask;
        while (table.slots[j].key)
            j = (j + 1) & table.mask;
        table.slots[j].key = key;
        table.slots[j].value[0] = i;
    }
    return table;
}

static uint64_t bare_get(const struct table *table, const char *name)
{
    uint64_t key = XXH3_64bits(name, strlen(name)), value[6];
    size_t i = key & table->mask;
    while (table->slots[i].key != key)
        i = (i + 1) & table->mask;
    struct slot *slot = &table->slots[i];
    uint32_t sequence;
    do {
        sequence = atomic_load_explicit(&slot->sequence, memory_order_acquire);
        memcpy(value, slot->value, sizeof value);
        atomic_thread_fence(memory_order_acquire);
    } while (sequence & 1 ||
             sequence != atomic_load_explicit(&slot->sequence, memory_order_relaxed));
    return value[0];
}

/* Nanoseconds for each of `count` random names, by one of the ways. */
static double time_gets(int way, const struct names *names, const struct table *table,
                        struct qallow_cache *cache, size_t count)
{
    uint64_t state = 1, sum = 0, from = now_ns();
    for (size_t i = 0; i < count; i++) {
        const char *name = names->name[next_random(&state) % names->count];
        struct qallow_file file;
        if (way == 0) {
            sum += XXH3_64bits(name, strlen(name));
        } else if (way == 1) {
            sum += bare_get(table, name);
        } else {
            if (qallow_cache_get(cache, name, &file))
                die("%s is not in the cache", name);
            sum += file.size;
        }
    }
    __asm__ volatile("" : : "g"(sum) : "memory");
    return (double)(now_ns() - from) / (double)count;
}

static void get(const char *directory, const struct names *names, size_t runs)
{
    static const char *const way_names[] = {"name_ns", "bare_ns", "cache_ns"};
    static double values[3][RUNS_MAX];
    struct qallow_cache *cache;
    must(qallow_cache_open(directory, &cache), directory);
    struct table table = make_table(names);
    pin(0);
    for (size_t run = 0; run <= runs; run++) /* the first one warms up and does not count */
        for (int way = 0; way < 3; way++)
            values[way][run ? run - 1 : 0] = time_gets(way, names, &table, cache, 1000000);
    for (int way = 0; way < 3; way++)
        print_values(way ? ", " : "{", way_names[way], values[way], runs);
    printf("}\n");
    qallow_cache_close(cache);
}

/* --- what has changed --- */

static int count_path(void *context, const char *path, const struct qallow_file *file)
{
    *(size_t *)context += file->size == 7;
    return 0;
}

static size_t changed_since(struct qallow_cache *cache, uint64_t epoch)
{
    size_t paths = 0;
    must(qallow_cache_since(cache, epoch, count_path, &paths, NULL), "since");
    return paths;
}

static void since(const char *directory, const struct names *names, size_t count, size_t runs)
{
    static double values[RUNS_MAX];
    struct qallow_cache *cache;
    must(qallow_cache_open(directory, &cache), directory);
    int root = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    uint64_t before = qallow_cache_epoch(cache), epoch = before;
    for (size_t i = 0; i < count; i++) {
        char text[16];
        snprintf(text, sizeof text, "%06x", (unsigned)(now_ns() / 1000 & 0xffffff));
        write_file(root, names->name[i * (names->count / count)], text, 7);
    }
    while (changed_since(cache, before) < count)
        must(qallow_cache_wait(cache, epoch, 60 * INT64_C(1000000000), 0, &epoch), "wait");
    for (size_t run = 0; run <= runs; run++) {
        uint64_t from = now_ns();
        for (int i = 0; i < 20; i++)
            if (changed_since(cache, before) != count)
                die("other files than those written have changed");
        values[run ? run - 1 : 0] = (double)(now_ns() - from) / 20e3;
    }
    print_values("{", "since_us", values, runs);
    printf("}\n");
    qallow_cache_close(cache);
}

int main(int argc, char **argv)
{
    size_t runs = argc > 4 ? strtoull(argv[argc - 1], NULL, 10) : 0;
    if (runs < 1 || runs > RUNS_MAX)
        die("expected: bench_lookup get DIR NAMES RUNS, or bench_lookup since DIR NAMES COUNT "
            "RUNS");
    struct names names = read_names(argv[3]);
    if (!strcmp(argv[1], "get"))
        get(argv[2], &names, runs);
    else if (!strcmp(argv[1], "since") && argc == 6)
        since(argv[2], &names, strtoull(argv[4], NULL, 10), runs);
    else
        die("no such measurement: %s", argv[1]);
    return 0;
}
