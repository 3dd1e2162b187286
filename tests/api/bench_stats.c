/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the statistics of a store cost: commits of 1,000 writes of 64 bytes, and of one, with a
 * library that counts and one that does not, in turns in one process.
 *
 *     bench_stats COUNTING.so NOT.so [DIRECTORY [TURNS]]
 *
 * The second library comes from a build folder with `-Dc_args=-DQR_NO_METER`. Both must be built
 * alike otherwise. Each turn times both, the first one first in every other turn, and takes the
 * ratio; what is said is the median of the ratios with the interval that holds it with 95 %
 * (order statistics), so that what disturbs the machine disturbs both. The same library given
 * twice says how much of that is noise.
 */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "qallow/store.h"
#include "tests/random.h"

enum {
    PAGES = 4096,
    PAGE = 4096,
    WRITE = 64,
    MOST_TURNS = 20000,
    RUN_MS = 4,
    TURNS_OF_ROUND = 100
};

struct side {
    int (*open)(const char *, const struct qallow_options *, struct qallow_store **);
    int (*close)(struct qallow_store *);
    int (*begin)(struct qallow_store *, struct qallow_txn **);
    int (*create)(struct qallow_txn *, const struct qallow_page_options *, uint64_t *);
    int (*write)(struct qallow_txn *, uint64_t, uint64_t, const void *, size_t);
    int (*commit)(struct qallow_txn *, uint64_t *);
    struct qallow_store *store;
    uint64_t pages[PAGES], random;
    char path[512];
};

static void check(int rc, const char *what)
{
    if (rc == 0)
        return;
    fprintf(stderr, "bench_stats: %s: %d\n", what, rc);
    exit(1);
}

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void *function(void *library, const char *name)
{
    void *found = dlsym(library, name);
    check(found == NULL, name);
    return found;
}

static void load(struct side *s, const char *library)
{
    void *handle = dlmopen(LM_ID_NEWLM, library, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        fprintf(stderr, "bench_stats: %s\n", dlerror());
        exit(1);
    }
    *(void **)&s->open = function(handle, "qallow_open");
    *(void **)&s->close = function(handle, "qallow_close");
    *(void **)&s->begin = function(handle, "qallow_begin");
    *(void **)&s->create = function(handle, "qallow_page_create");
    *(void **)&s->write = function(handle, "qallow_page_write");
    *(void **)&s->commit = function(handle, "qallow_commit");
}

static void remove_log(const struct side *s)
{
    static const char *const suffixes[] = {"", "-index", ".lock"};
    char full[600];
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        snprintf(full, sizeof full, "%s%s", s->path, suffixes[i]);
        unlink(full);
    }
}

static void begin(struct side *s, const char *directory, unsigned number)
{
    struct qallow_options options = QALLOW_OPTIONS_INIT;
    struct qallow_page_options page = QALLOW_PAGE_OPTIONS_INIT;
    struct qallow_txn *txn;
    uint8_t bytes[PAGE];
    char name[32];

    snprintf(s->path, sizeof s->path, "%s/bench-stats-%d-%u.tlog", directory, getpid(), number);
    options.writable = options.create = 1;
    options.sync = QALLOW_SYNC_NONE;
    check(s->open(s->path, &options, &s->store), "open");
    check(s->begin(s->store, &txn), "begin");
    page.name = name;
    for (unsigned i = 0; i < PAGES; i++) {
        snprintf(name, sizeof name, "%u", i);
        memset(bytes, (int)(1 + i % 255), sizeof bytes);
        check(s->create(txn, &page, &s->pages[i]), "create");
        check(s->write(txn, s->pages[i], 0, bytes, sizeof bytes), "write");
    }
    check(s->commit(txn, NULL), "commit");
}

static void commit(struct side *s, unsigned writes)
{
    uint64_t bytes[WRITE / 8];
    struct qallow_txn *txn;
    check(s->begin(s->store, &txn), "begin");
    for (unsigned i = 0; i < writes; i++) {
        uint64_t place = next_random(&s->random);
        for (size_t k = 0; k < WRITE / 8; k++)
            bytes[k] = next_random(&s->random);
        check(s->write(txn, s->pages[place % PAGES], (place >> 32) % (PAGE - WRITE), bytes, WRITE),
              "write");
    }
    check(s->commit(txn, NULL), "commit");
}

static double time_of(struct side *s, unsigned writes, unsigned commits)
{
    double start = now_ns();
    for (unsigned i = 0; i < commits; i++)
        commit(s, writes);
    return (now_ns() - start) / commits;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Where a store's memory lies matters as much as what is measured, so both are opened anew every
 * now and then, in turns too. */
static void open_both(struct side sides[2], const char *directory, unsigned round)
{
    begin(&sides[round % 2], directory, round % 2);
    begin(&sides[1 - round % 2], directory, 1 - round % 2);
}
static void close_both(struct side sides[2])
{
    for (unsigned i = 0; i < 2; i++) {
        check(sides[i].close(sides[i].store), "close");
        remove_log(&sides[i]);
    }
}

static void measure(struct side sides[2], const char *directory, unsigned writes, unsigned turns)
{
    static double ratios[MOST_TURNS], times[2][MOST_TURNS];
    open_both(sides, directory, 0);
    unsigned commits = 1 + (unsigned)(RUN_MS * 1e6 / time_of(&sides[0], writes, 20));
    time_of(&sides[1], writes, commits);
    for (unsigned t = 0; t < turns; t++) {
        uint64_t seed = t;
        if (t % TURNS_OF_ROUND == TURNS_OF_ROUND - 1) {
            close_both(sides);
            open_both(sides, directory, t / TURNS_OF_ROUND + 1);
        }
        for (unsigned k = 0; k < 2; k++) {
            unsigned which = (t + k) % 2;
            sides[which].random = seed;
            times[which][t] = time_of(&sides[which], writes, commits);
        }
        ratios[t] = times[0][t] / times[1][t];
    }
    close_both(sides);
    qsort(ratios, turns, sizeof *ratios, by_value);
    qsort(times[0], turns, sizeof **times, by_value);
    qsort(times[1], turns, sizeof **times, by_value);
    unsigned away = (unsigned)ceil(0.98 * sqrt(turns));
    printf("%4u writes: %.2f us with, %.2f us without, ratio %.4f (%.4f to %.4f), %u turns\n",
           writes, times[0][turns / 2] / 1e3, times[1][turns / 2] / 1e3, ratios[turns / 2],
           ratios[turns / 2 > away ? turns / 2 - away : 0],
           ratios[turns / 2 + away < turns ? turns / 2 + away : turns - 1], turns);
}

int main(int argc, char **argv)
{
    static struct side sides[2];
    const char *directory = argc > 3 ? argv[3] : "/tmp";
    unsigned long turns = argc > 4 ? strtoul(argv[4], NULL, 10) : 2001;

    if (argc < 3 || argc > 5 || turns < 1 || turns > MOST_TURNS) {
        fprintf(stderr, "usage: bench_stats COUNTING.so NOT.so [DIRECTORY [TURNS]]\n");
        return 64;
    }
    for (unsigned i = 0; i < 2; i++) {
        load(&sides[i], argv[1 + i]);
    }
    measure(sides, directory, 1000, (unsigned)turns);
    measure(sides, directory, 1, (unsigned)turns);
    return 0;
}
