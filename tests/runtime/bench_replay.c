/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast epochs come back, beside what the machine can do, in one run:
 *   dense  the last epoch of a log of dense deltas, into fresh memory, verified: with the index,
 *          and without it (then the whole log is read and checked); the floor reads the same log
 *          bytes, checks them with the same hash and copies them
 *   seek   any of many epochs of one state, into fresh memory; the limit is memcpy of the state
 *          into fresh memory
 * Usage: bench_replay DIR [epochs]. Prints one line a figure; ratios are what counts.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "runtime/batch.h"
#include "runtime/store.h"

enum { STATE = 64 << 20, RUNS = 7 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static uint64_t seed = 1;
static uint64_t next_random(void)
{
    uint64_t z = (seed += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static void ok(int rc)
{
    if (rc) {
        fprintf(stderr, "%s: %s\n", qallow_strerror(rc), qallow_error_detail());
        exit(1);
    }
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, compare);
    return v[n / 2];
}

/* Pages of `page` bytes, `state` bytes in all, kept here as well to know the digests. */
struct maker {
    struct qr_store *store;
    struct qr_batch *batch;
    struct qr_txn *txn;
    uint8_t *bytes;
    struct qb_u128 *sums;
    size_t page, pages;
};

static void put(struct maker *m, size_t page, size_t at, size_t length, int whole)
{
    struct qr_edit edit = {.offset = at, .old_length = whole ? 0 : length, .new_length = length,
                           .source = QR_LITERAL};
    struct qr_edits edits = {&edit, 1, 1};
    uint8_t *bytes = m->bytes + page * m->page;
    size_t first = at / QB_CELL * QB_CELL, end = (at + length + QB_CELL - 1) / QB_CELL * QB_CELL;
    uint64_t page_seed = qr_page_seed(page + 1);
    const struct qb_kernels *k = qb_kernels();
    if (!whole)
        m->sums[page] = qb_u128_sub(m->sums[page], k->hash_cells(bytes + first, end - first,
                                                                 page_seed, first / QB_CELL));
    for (size_t i = 0; i < length; i += 8) {
        uint64_t r = next_random();
        memcpy(bytes + at + i, &r, 8);
    }
    m->sums[page] = qb_u128_add(m->sums[page], k->hash_cells(bytes + first, end - first, page_seed,
                                                             first / QB_CELL));
    edit.bytes = bytes + at;
    ok(qr_batch_delta(m->batch, page + 1, 0, whole ? 0 : m->page, m->page, &edits, NULL,
                      m->sums[page]));
    if (qr_batch_bytes(m->batch) > 1 << 20)
        ok(qr_txn_append(m->txn, m->batch));
}

static void commit(struct maker *m)
{
    uint64_t epoch;
    ok(qr_txn_append(m->txn, m->batch));
    ok(qr_txn_commit(m->txn, &epoch));
    ok(qr_txn_begin(m->store, &m->txn));
}

static void make(struct maker *m, const char *path, size_t state, size_t page)
{
    struct qr_store_options options = {.writable = 1, .create = 1, .sync = QR_SYNC_NONE};
    struct qr_attributes attributes = {.mode = 0600};
    *m = (struct maker){.page = page, .pages = state / page};
    m->bytes = malloc(state);
    m->sums = calloc(m->pages, sizeof *m->sums);
    ok(qr_store_open(path, &options, &m->store));
    ok(qr_batch_create(0, &m->batch));
    ok(qr_txn_begin(m->store, &m->txn));
    for (size_t i = 0; i < m->pages; i++) {
        char name[32];
        int n = snprintf(name, sizeof name, "p%zu", i);
        ok(qr_batch_page_create(m->batch, qr_txn_new_id(m->txn), 0, name, (size_t)n, QR_KIND_RAW,
                                &attributes));
        put(m, i, 0, page, 1);
    }
    commit(m);
}

static void finish(struct maker *m)
{
    qr_txn_abort(m->txn);
    qr_batch_destroy(m->batch);
    ok(qr_store_close(m->store));
    free(m->bytes);
    free(m->sums);
}

static uint8_t *fresh(size_t n)
{
    uint8_t *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        exit(1);
    return p;
}

struct places {
    uint8_t *memory;
    size_t page;
};

static uint8_t *place(void *context, const struct qr_page *page)
{
    struct places *places = context;
    return places->memory + (page->id - 1) * places->page;
}

/* The state of an epoch as bytes in fresh memory, verified: every page's bytes against its sum, and
 * the sums against the epoch's digest. */
static void materialize(struct qr_store *store, uint64_t epoch, size_t bytes, size_t page)
{
    struct qr_state *state;
    struct places places = {fresh(bytes), page};
    ok(qr_store_state_at(store, epoch, &state));
    ok(qr_state_load(store, state, &(struct qr_places){place, &places}));
    qr_state_destroy(state);
    munmap(places.memory, bytes);
}

/* Reads the log, hashes it and copies it: the least that a replay of it can do. */
static double floor_read(const char *path, size_t state, size_t skip)
{
    int fd = open(path, O_RDONLY);
    uint8_t *buffer = malloc(1 << 20), *memory = fresh(state);
    uint64_t sink = 0;
    double t0 = now();
    size_t at = 0;
    for (ssize_t n; (n = pread(fd, buffer, 1 << 20, (off_t)skip)) > 0; skip += (size_t)n) {
        sink += qb_kernels()->hash64(buffer, (size_t)n, skip);
        memcpy(memory + at, buffer, (size_t)n);
        at = (at + (size_t)n) % (state - (1 << 20));
    }
    double t = now() - t0;
    if (sink == 1) /* so that the hashes are computed */
        puts("");
    close(fd);
    free(buffer);
    munmap(memory, state);
    return t;
}

/* Opens the log and loads an epoch; without the index the whole log is read and checked first. */
static double open_and_load(const char *path, uint64_t epoch, int ignore_index)
{
    struct qr_store *store;
    struct qr_store_options options = {.ignore_index = ignore_index};
    double t0 = now();
    ok(qr_store_open(path, &options, &store));
    materialize(store, epoch, STATE, 64 << 10);
    double t = now() - t0;
    ok(qr_store_close(store));
    return t;
}

static void bench_dense(const char *path)
{
    struct maker m;
    double times[RUNS], whole[RUNS], floors[RUNS];
    make(&m, path, STATE, 64 << 10);
    for (int e = 0; e < 48; e++) { /* 192 MiB of dense deltas over a 64 MiB state */
        for (int i = 0; i < 64; i++)
            put(&m, next_random() % m.pages, 0, m.page, 0);
        commit(&m);
    }
    uint64_t last = 49;
    finish(&m);
    for (int r = 0; r < RUNS; r++) {
        floors[r] = floor_read(path, STATE, 8192);
        whole[r] = open_and_load(path, last, 1);
        times[r] = open_and_load(path, last, 0);
    }
    double t = median(times, RUNS), w = median(whole, RUNS), f = median(floors, RUNS);
    printf("replay_dense_64KiB %.1f ms floor %.1f ms ratio %.2f (target >= 0.8)\n", t * 1e3,
           f * 1e3, f / t);
    printf("replay_dense_64KiB_without_index %.1f ms floor %.1f ms ratio %.2f\n", w * 1e3, f * 1e3,
           f / w);
    unlink(path);
}

static void bench_seek(const char *path, int epochs)
{
    struct maker m;
    double times[2 * RUNS], limits[RUNS];
    make(&m, path, STATE, 4096);
    for (int e = 1; e < epochs; e++) {
        put(&m, next_random() % m.pages, next_random() % 63 * 64, 64, 0);
        commit(&m);
    }
    uint8_t *from = malloc(STATE);
    memset(from, 1, STATE);
    for (int r = 0; r < RUNS; r++) {
        uint8_t *to = fresh(STATE);
        double t0 = now();
        memcpy(to, from, STATE);
        limits[r] = now() - t0;
        munmap(to, STATE);
    }
    free(from);
    double limit = median(limits, RUNS), worst = 0;
    struct qr_store *store;
    struct qr_store_options options = {.sync = QR_SYNC_NONE};
    finish(&m);
    ok(qr_store_open(path, &options, &store));
    for (int r = 0; r < 2 * RUNS; r++) {
        uint64_t any = 1 + next_random() % (uint64_t)epochs;
        uint64_t epoch = r == 0 ? 1 : r == 1 ? (uint64_t)epochs : any;
        double t0 = now();
        materialize(store, epoch, STATE, 4096);
        times[r] = now() - t0;
        printf("  seek to epoch %llu: %.1f ms\n", (unsigned long long)epoch, times[r] * 1e3);
        worst = times[r] > worst ? times[r] : worst;
    }
    printf("seek_64MiB_of_%d_epochs median %.1f ms worst %.1f ms memcpy %.1f ms ratio %.2f "
           "worst %.2f (target <= 8)\n", epochs, median(times, 2 * RUNS) * 1e3, worst * 1e3,
           limit * 1e3,
           median(times, 2 * RUNS) / limit, worst / limit);
    ok(qr_store_close(store));
}

int main(int argc, char **argv)
{
    char path[512], beside[600];
    int epochs = argc > 2 ? atoi(argv[2]) : 100000;
    snprintf(path, sizeof path, "%s/bench_replay.tlog", argc > 1 ? argv[1] : ".");
    unlink(path);
    bench_dense(path);
    bench_seek(path, epochs);
    unlink(path);
    static const char *const suffixes[] = {"-index", ".lock"};
    for (size_t i = 0; i < 2; i++) {
        snprintf(beside, sizeof beside, "%s%s", path, suffixes[i]);
        unlink(beside);
    }
    return 0;
}
