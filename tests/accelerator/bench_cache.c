/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the cache costs, for 10,000, 250,000 and 2,000,000 files (or those given as arguments):
 * putting, taking over and memory for the keeper; look-ups, "what has changed" and a list of
 * everything for a reader, which is a process of its own. Beside the look-up stands a bare one: the
 * same paths, hashed with the same function, in a private table of (hash, number).
 */
#include <errno.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/accelerator/cache_support.h"

enum { LOOK_UPS = 2000000, REPEATS = 5 };

struct paths {
    char *text;
    uint32_t *offsets;
    size_t count, bytes;
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void must(int result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "%s: %s: %s\n", what, qallow_strerror(result), qallow_error_detail());
        exit(1);
    }
}

static const char *path_of(const struct paths *paths, size_t i)
{
    return paths->text + paths->offsets[i];
}

static void make_paths(struct paths *paths, size_t count)
{
    paths->count = count;
    paths->text = malloc(count * 64);
    paths->offsets = malloc(count * sizeof *paths->offsets);
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        paths->offsets[i] = (uint32_t)at;
        at += (size_t)snprintf(paths->text + at, 64, "src/component-%03zu/part-%02zu/file-%07zu.c",
                               i / 1000, i / 50 % 20, i) +
              1;
    }
    paths->bytes = at - count;
}

static uint64_t next(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    return *seed ^= *seed << 17;
}

/* --- the bare table --- */

struct pair {
    uint64_t hash, number;
};

static struct pair *make_bare(const struct paths *paths, uint64_t *mask)
{
    *mask = 1;
    while (*mask < paths->count * 2)
        *mask *= 2;
    struct pair *table = calloc((size_t)*mask, sizeof *table);
    --*mask;
    for (size_t i = 0; i < paths->count; i++) {
        const char *path = path_of(paths, i);
        uint64_t hash = qa_path_hash(1, path, strlen(path)), at = hash & *mask;
        while (table[at].hash)
            at = (at + 1) & *mask;
        table[at] = (struct pair){hash, i};
    }
    return table;
}

static double time_bare(const struct paths *paths, const struct pair *table, uint64_t mask)
{
    uint64_t seed = 88172645463325252u, found = 0, start = now_ns();
    for (unsigned i = 0; i < LOOK_UPS; i++) {
        const char *path = path_of(paths, next(&seed) % paths->count);
        uint64_t hash = qa_path_hash(1, path, strlen(path)), at = hash & mask;
        while (table[at].hash != hash && table[at].hash)
            at = (at + 1) & mask;
        found += table[at].hash == hash;
    }
    double ns = (double)(now_ns() - start) / LOOK_UPS;
    if (found != LOOK_UPS)
        must(QALLOW_E_INTERNAL, "bare table");
    return ns;
}

static double time_get(const struct paths *paths, struct qallow_cache *cache)
{
    uint64_t seed = 88172645463325252u, start = now_ns();
    for (unsigned i = 0; i < LOOK_UPS; i++) {
        struct qallow_file file;
        must(qallow_cache_get(cache, path_of(paths, next(&seed) % paths->count), &file), "get");
    }
    return (double)(now_ns() - start) / LOOK_UPS;
}

static void bench_get(const struct paths *paths)
{
    uint64_t mask;
    struct pair *table = make_bare(paths, &mask);
    struct qallow_cache *cache;
    double bare = 1e9, get = 1e9;
    must(qallow_cache_open(test_tree, &cache), "open");
    for (int i = 0; i < REPEATS; i++) {
        double ns = time_bare(paths, table, mask);
        bare = ns < bare ? ns : bare;
        ns = time_get(paths, cache);
        get = ns < get ? ns : get;
    }
    printf("  get %.1f ns, bare table %.1f ns (best of %d)\n", get, bare, REPEATS);
    qallow_cache_close(cache);
    free(table);
}

static int count_one(void *context, const char *path, const struct qallow_file *file)
{
    ++*(uint64_t *)context;
    return 0;
}

static void bench_lists(uint64_t epoch, unsigned changes)
{
    struct qallow_cache *cache;
    uint64_t count = 0, best = UINT64_MAX;
    must(qallow_cache_open(test_tree, &cache), "open");
    for (int i = 0; i < REPEATS; i++) {
        uint64_t start = now_ns();
        count = 0;
        must(changes ? qallow_cache_since(cache, epoch, count_one, &count, NULL)
                     : qallow_cache_each(cache, count_one, &count, NULL),
             "list");
        uint64_t ns = now_ns() - start;
        best = ns < best ? ns : best;
    }
    if (changes)
        printf("  since: %llu changes in %.1f us\n", (unsigned long long)count, (double)best / 1e3);
    else
        printf("  each: %llu files in %.1f ms\n", (unsigned long long)count, (double)best / 1e6);
    qallow_cache_close(cache);
}

/* In a process of its own, which has nothing of the keeper's but the memory. */
static void as_reader(const struct paths *paths, uint64_t epoch, int changes)
{
    int status;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        if (changes < 0)
            bench_get(paths);
        else
            bench_lists(epoch, (unsigned)changes);
        fflush(stdout);
        _exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
        must(QALLOW_E_INTERNAL, "reader");
}

/* --- the keeper --- */

static double put_all(struct qa_cache *keeper, const struct paths *paths, uint64_t version)
{
    uint64_t start = now_ns();
    for (size_t i = 0; i < paths->count; i++) {
        struct qa_file file = {.size = i, .inode = version, .kind = QALLOW_FILE_REGULAR};
        file.state = QALLOW_FILE_CURRENT;
        memcpy(file.hash, &i, sizeof i);
        must(qa_cache_put(keeper, path_of(paths, i), &file, NULL), "put");
    }
    qa_cache_publish(keeper, 0);
    return (double)(now_ns() - start) / (double)paths->count;
}

static void print_memory(const struct qa_cache *keeper, const struct paths *paths)
{
    size_t private_bytes = keeper->space.word_count * 8;
    for (size_t i = 0; i < QA_SPACE_BINS; i++)
        private_bytes += keeper->space.bins[i].capacity * sizeof(uint32_t);
    printf("  %.1f bytes a file beyond its path, %.1f of them the keeper's own\n",
           ((double)keeper->size + (double)private_bytes - (double)paths->bytes) /
               (double)paths->count,
           (double)private_bytes / (double)paths->count);
}

static struct qa_cache *open_keeper(void)
{
    struct qa_cache *keeper;
    struct stat st;
    struct qa_cache_options options = {.root = test_tree, .hash = QALLOW_HASH_XXH3_128};
    must(stat(test_tree, &st), "stat");
    options.root_device = st.st_dev;
    options.root_inode = st.st_ino;
    must(qa_cache_open(&options, &keeper), "open");
    return keeper;
}

static void bench(size_t count)
{
    struct paths paths;
    make_paths(&paths, count);
    struct qa_cache *keeper = open_keeper();
    printf("%zu files\n", count);
    printf("  put %.0f ns a file\n", put_all(keeper, &paths, 1));
    print_memory(keeper, &paths);
    printf("  put %.0f ns a file that has changed\n", put_all(keeper, &paths, 2));
    printf("  put %.0f ns a file that has not\n", put_all(keeper, &paths, 2));
    as_reader(&paths, 0, -1);
    for (unsigned changes = 1; changes <= 10000 && changes <= count; changes *= 100) {
        uint64_t epoch = qa_cache_epoch(keeper), seed = changes;
        for (unsigned i = 0; i < changes; i++) {
            struct qa_file file = {.inode = 3 + changes, .kind = 1, .state = 1};
            must(qa_cache_put(keeper, path_of(&paths, next(&seed) % count), &file, NULL), "put");
        }
        qa_cache_publish(keeper, 0);
        as_reader(&paths, epoch, (int)changes);
    }
    as_reader(&paths, 0, 0);
    qa_cache_close(keeper);
    uint64_t start = now_ns();
    keeper = open_keeper();
    printf("  taken over in %.1f ms\n", (double)(now_ns() - start) / 1e6);
    qa_cache_close(keeper);
    free(paths.text);
    free(paths.offsets);
}

int main(int argc, char **argv)
{
    static const size_t counts[] = {10000, 250000, 2000000};
    for (int i = 0; i < (argc > 1 ? argc - 1 : 3); i++) {
        if (test_make_place(NULL) != 0)
            must(QALLOW_E_CANNOT_CREATE, "place");
        bench(argc > 1 ? strtoul(argv[i + 1], NULL, 10) : counts[i]);
        test_remove_place(NULL);
    }
    return 0;
}
