/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_device [--bytes N]: how fast a device's operations are, as a table in Markdown; exit status
 * 69 and one line if there is no device.
 *
 * GB/s count the bytes that an operation reads and writes. Beside each stands a device-to-device
 * copy by the CUDA runtime, timed in the same rounds, and the plain version of the operation
 * (backend/cuda/plain.cu). Times are medians, by events of the device; those of the public API are
 * the caller's, by the clock. That the results are right is what
 * checkkernels finds out; the public API verifies its own.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/cuda/plain.h"
#include "backend/device.h"
#include "backend/kernels.h"
#include "qallow/delta.h"
#include "qallow/store.h"
#include "runtime/device.h"
#include "telemetry/telemetry.h"
#include "tests/random.h"

enum { PAGES = 64, ROUNDS = 11, PIECE = 64 << 20, SECTOR = 32 };

static const struct qb_runtime *r;

static void must(enum qb_result result)
{
    if (result == QB_DONE)
        return;
    fprintf(stderr, "bench_device: %s\n", r->text(r->context));
    exit(70);
}

static void must_call(int rc, const char *what)
{
    if (rc == 0)
        return;
    fprintf(stderr, "bench_device: %s: %s\n", what, qallow_error_detail());
    exit(70);
}

static void *device_memory(uint64_t bytes)
{
    void *memory;
    must(r->allocate(r->context, QB_MEMORY_DEVICE, bytes, &memory));
    return memory;
}

/* The state in question: two contents, and all that operations need. */
struct bench {
    uint64_t bytes, tiles, sectors, scan_bytes;
    uint8_t *old, *new_, *to, *byte_mask;
    struct qb_batch_page host[PAGES];
    struct qb_batch batch, delta; /* `delta`: to apply the delta that was emitted */
    struct qb_counts total;
    struct qb_counts *tile_counts, *entry_counts;
    void *scan_memory, *from_event, *to_event;
};

/* --- what is timed --- */

static void run_memcpy(struct bench *b)
{
    must(r->copy(r->context, b->to, b->old, b->bytes, NULL));
}

static void launch(struct bench *b, enum qb_operation operation)
{
    must(r->launch(r->context, operation, &b->batch, NULL));
}

static void scan(struct bench *b, struct qb_counts *counts, uint64_t count)
{
    must(r->scan(r->context, counts, count, b->scan_memory, b->scan_bytes, NULL));
}

static void run_copy(struct bench *b) { launch(b, QB_COPY); }
static void run_zero(struct bench *b) { launch(b, QB_ZERO); }
static void run_dense(struct bench *b)
{
    struct qb_batch batch = b->batch;
    batch.combine = QB_SET;
    must(r->launch(r->context, QB_APPLY_DENSE, &batch, NULL));
}
static void run_hash(struct bench *b) { launch(b, QB_HASH); }

static void run_compare(struct bench *b)
{
    struct qb_batch equal = b->batch;
    equal.pages = b->batch.pages + PAGES; /* old against old */
    must(r->launch(r->context, QB_COMPARE, &equal, NULL));
}

static void run_diff_mask(struct bench *b) { launch(b, QB_DIFF_MASK); }

/* Counts that a scan has taken are cleared: the last one is an input. */
static void clear_last(struct bench *b)
{
    must(r->fill(r->context, b->tile_counts + b->tiles, 0, sizeof *b->tile_counts, NULL));
}

static void diff_and_emit(struct bench *b, struct qb_batch *batch)
{
    clear_last(b);
    must(r->launch(r->context, QB_DELTA_DIFF, batch, NULL));
    scan(b, b->tile_counts, b->tiles + 1);
    must(r->launch(r->context, QB_DELTA_EMIT, batch, NULL));
}

static void run_delta(struct bench *b)
{
    struct qb_batch batch = b->batch;
    batch.sums = batch.base_sums = NULL;
    diff_and_emit(b, &batch);
}

static void run_delta_digests(struct bench *b) { diff_and_emit(b, &b->batch); }

static void run_apply(struct bench *b)
{
    must(r->launch(r->context, QB_DELTA_COUNT, &b->delta, NULL));
    must(r->fill(r->context, b->entry_counts + b->total.entries, 0, sizeof *b->entry_counts, NULL));
    scan(b, b->entry_counts, b->total.entries + 1);
    must(r->launch(r->context, QB_DELTA_APPLY, &b->delta, NULL));
}

static void plain(struct bench *b, enum qb_operation operation)
{
    for (unsigned i = 0; i < PAGES; i++) {
        struct qb_batch_page page = b->host[i];
        if (operation == QB_COMPARE)
            page.base = page.from;
        if (qb_plain_launch(operation, &page, b->byte_mask + (page.to - b->to), b->batch.sums,
                            NULL) != 0) {
            fputs("bench_device: a plain launch failed\n", stderr);
            exit(70);
        }
    }
}

static void plain_copy(struct bench *b) { plain(b, QB_COPY); }
static void plain_zero(struct bench *b) { plain(b, QB_ZERO); }
static void plain_compare(struct bench *b) { plain(b, QB_COMPARE); }
static void plain_hash(struct bench *b) { plain(b, QB_HASH); }
static void plain_diff(struct bench *b) { plain(b, QB_DIFF_MASK); }
static void plain_dense(struct bench *b) { plain(b, QB_APPLY_DENSE); }
static void plain_apply(struct bench *b) { plain(b, QB_APPLY_MASK); }

/* --- preparation --- */

/* 1 % of the elements of two bytes change, at random; the sectors that this touches are counted.
 * The same piece is used again and again. */
static void fill(struct bench *b)
{
    uint8_t *old = malloc(PIECE), *new_ = malloc(PIECE);
    uint64_t random = 7, sectors = 0;
    for (uint64_t i = 0; i < PIECE; i += 8) {
        const uint64_t word = next_random(&random);
        memcpy(old + i, &word, 8);
    }
    memcpy(new_, old, PIECE);
    for (uint64_t i = 0; i < PIECE; i += 2) {
        if (next_random(&random) % 100 == 0)
            new_[i] ^= (uint8_t)(1 + next_random(&random) % 255);
    }
    for (uint64_t i = 0; i < PIECE; i += SECTOR)
        sectors += memcmp(old + i, new_ + i, SECTOR) != 0;
    for (uint64_t at = 0; at < b->bytes; at += PIECE) {
        must(r->copy(r->context, b->old + at, old, PIECE, NULL));
        must(r->copy(r->context, b->new_ + at, new_, PIECE, NULL));
        must(r->copy(r->context, b->to + at, old, PIECE, NULL));
    }
    must(r->wait(r->context, NULL));
    b->sectors = sectors * (b->bytes / PIECE);
    free(old);
    free(new_);
}

static void make_pages(struct bench *b)
{
    struct qb_batch_page pages[2 * PAGES];
    const uint64_t length = b->bytes / PAGES;
    for (unsigned i = 0; i < PAGES; i++) {
        pages[i] = (struct qb_batch_page){.to = b->to + i * length,
                                          .from = b->new_ + i * length,
                                          .base = b->old + i * length,
                                          .length = length,
                                          .first_tile = i * qb_tiles(length),
                                          .seed = i};
        b->host[i] = pages[i];
        pages[PAGES + i] = pages[i];
        pages[PAGES + i].from = pages[i].base;
    }
    struct qb_batch_page *memory = device_memory(sizeof pages);
    must(r->copy(r->context, memory, pages, sizeof pages, NULL));
    must(r->wait(r->context, NULL));
    b->tiles = qb_tiles(length) * PAGES;
    b->batch = (struct qb_batch){.pages = memory, .count = PAGES, .tiles = b->tiles};
}

static void prepare(struct bench *b, uint64_t bytes)
{
    memset(b, 0, sizeof *b);
    b->bytes = bytes;
    b->old = device_memory(bytes);
    b->new_ = device_memory(bytes);
    b->to = device_memory(bytes);
    b->byte_mask = device_memory(bytes);
    fill(b);
    make_pages(b);
    must(r->scan_bytes(r->context, b->tiles + 1, &b->scan_bytes));
    b->scan_memory = device_memory(b->scan_bytes + 1);
    b->tile_counts = device_memory((b->tiles + 1) * sizeof *b->tile_counts);
    b->entry_counts = device_memory((b->tiles + 1) * sizeof *b->entry_counts);
    b->batch.counts = b->tile_counts;
    b->batch.mask = device_memory(b->tiles * (QB_TILE / 8));
    b->batch.found = device_memory(PAGES * sizeof *b->batch.found);
    b->batch.sums = device_memory(2 * PAGES * sizeof *b->batch.sums);
    b->batch.base_sums = b->batch.sums + PAGES;
    b->batch.status = device_memory(sizeof *b->batch.status);
    b->batch.combine = QB_XOR;
    must(r->event_create(r->context, &b->from_event));
    must(r->event_create(r->context, &b->to_event));
}

/* Room for the delta, as much as it takes. */
static void prepare_delta(struct bench *b)
{
    struct qb_delta_parts *parts = &b->batch.delta;
    clear_last(b);
    launch(b, QB_DELTA_DIFF);
    scan(b, b->tile_counts, b->tiles + 1);
    must(r->copy(r->context, &b->total, b->tile_counts + b->tiles, sizeof b->total, NULL));
    must(r->wait(r->context, NULL));
    parts->total = b->total;
    parts->entries = device_memory(b->total.entries * sizeof *parts->entries + 1);
    parts->records = device_memory(b->total.records * sizeof *parts->records + 1);
    parts->segments = device_memory(b->total.segments + 1);
    parts->payload = device_memory(b->total.bytes + 1);
    launch(b, QB_DELTA_EMIT);
    b->delta = b->batch;
    b->delta.counts = b->entry_counts;
    plain_diff(b);
}

/* --- the table --- */

static double event_ms(struct bench *b, void (*run)(struct bench *))
{
    double ms;
    must(r->event_record(r->context, b->from_event, NULL));
    run(b);
    must(r->event_record(r->context, b->to_event, NULL));
    must(r->event_wait(r->context, b->to_event));
    must(r->event_elapsed(r->context, b->from_event, b->to_event, &ms));
    return ms;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *values)
{
    qsort(values, ROUNDS, sizeof *values, by_size);
    return values[ROUNDS / 2];
}

struct line {
    const char *name;
    void (*run)(struct bench *), (*plain)(struct bench *);
    double bytes, target; /* read and written; the least ratio to the copy */
};

static void print_line(struct bench *b, const struct line *line)
{
    double copy[ROUNDS], own[ROUNDS], simple[ROUNDS] = {0};
    for (int i = -2; i < ROUNDS; i++) { /* two rounds to warm up */
        const int at = i < 0 ? 0 : i;
        copy[at] = event_ms(b, run_memcpy);
        own[at] = event_ms(b, line->run);
        if (line->plain != NULL)
            simple[at] = event_ms(b, line->plain);
    }
    const double speed = line->bytes / median(own) / 1e6;
    const double beside = 2.0 * (double)b->bytes / median(copy) / 1e6;
    printf("| %s | %.0f | %.0f | %.2f | %.2f |", line->name, speed, beside, speed / beside,
           line->target);
    if (line->plain != NULL)
        printf(" %.2f |\n", median(simple) / median(own));
    else
        printf(" |\n");
    fflush(stdout);
}

static void print_operations(struct bench *b)
{
    const double n = (double)b->bytes;
    const double delta = (double)b->total.entries * sizeof(struct qb_delta_entry) +
                         2.0 * (double)b->total.records + (double)b->total.segments +
                         (double)b->total.bytes;
    const struct line lines[] = {
        {"copy", run_copy, plain_copy, 2 * n, 0.9},
        {"zero", run_zero, plain_zero, n, 0.9},
        {"compare, equal", run_compare, plain_compare, 2 * n, 0.9},
        {"apply dense", run_dense, plain_dense, 2 * n, 0.85},
        {"diff to a bit mask", run_diff_mask, plain_diff, 2 * n + n / 8, 0.6},
        {"diff to a delta, compacted", run_delta, plain_diff, 2 * n + delta, 0.6},
        {"the same with both digests", run_delta_digests, NULL, 2 * n + delta, 0},
        {"cell hash", run_hash, plain_hash, n, 0.6},
        {"apply a delta, touched sectors", run_apply, plain_apply,
         2.0 * SECTOR * (double)b->sectors + delta, 0.5},
    };
    puts("| operation | GB/s | copy by the runtime | ratio | target | times the plain version |\n"
         "| --- | --- | --- | --- | --- | --- |");
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        print_line(b, &lines[i]);
}

/* --- the public API --- */

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static struct qallow_buffer buffer(uint32_t location, void *data, uint64_t length)
{
    struct qallow_buffer b = QALLOW_BUFFER_INIT;
    b.location = location;
    b.data = data;
    b.length = length;
    return b;
}

/* `to` is the base when it begins and when it ends. */
static void print_api(struct bench *b)
{
    const uint64_t capacity = b->bytes / 8;
    struct qallow_buffer old = buffer(QALLOW_GPU, b->old, b->bytes);
    struct qallow_buffer new_ = buffer(QALLOW_GPU, b->new_, b->bytes);
    struct qallow_buffer state = buffer(QALLOW_GPU, b->to, b->bytes);
    struct qallow_buffer delta = buffer(QALLOW_CPU, malloc(capacity), capacity);
    double extract[ROUNDS], apply[ROUNDS], undo[ROUNDS], hash[ROUNDS];
    uint64_t length = 0;
    must(r->copy(r->context, b->to, b->old, b->bytes, NULL));
    const uint64_t sent = qt_get(QT_GPU_SENT_BYTES), received = qt_get(QT_GPU_RECEIVED_BYTES);
    for (int i = 0; i < ROUNDS; i++) {
        const double start = now_ms();
        must_call(qallow_delta_extract(&old, &new_, 1, &delta, NULL, &length), "extract");
        const double extracted = now_ms();
        must_call(qallow_delta_apply(&state, 1, &delta, length, NULL), "apply");
        const double applied = now_ms();
        must_call(qallow_delta_undo(&state, 1, &delta, length, NULL), "undo");
        undo[i] = now_ms() - applied;
        apply[i] = applied - extracted;
        extract[i] = extracted - start;
        hash[i] = event_ms(b, run_hash);
    }
    const double read = median(hash), both = median(extract) + median(apply);
    printf(
        "\nThe C API with the delta on the CPU, %.2f GB of state, %.1f MB of delta, medians by the "
        "clock: extract %.1f ms, apply %.1f ms (the pause of whoever reads the state), undo %.1f "
        "ms. Extract and apply, with all digests verified, take %.1f times one read of the state "
        "(its cell hash, %.1f ms). Over the bus for each extract, apply and undo: %.1f MB to the "
        "device, %.1f MB from it.\n",
        (double)b->bytes / 1e9, (double)length / 1e6, median(extract), median(apply), median(undo),
        both / read, read, (double)(qt_get(QT_GPU_SENT_BYTES) - sent) / ROUNDS / 1e6,
        (double)(qt_get(QT_GPU_RECEIVED_BYTES) - received) / ROUNDS / 1e6);
    free(delta.data);
}

/* What the CPU writes and the device reads, with unified memory and with an explicit copy. */
static void print_unified(struct bench *b)
{
    const uint64_t n = UINT64_C(256) << 20;
    double unified[ROUNDS], explicit_[ROUNDS];
    void *managed = NULL, *pinned = NULL;
    struct qb_batch batch = b->batch;
    struct qb_batch_page page = b->host[0];
    if (r->allocate(r->context, QB_MEMORY_UNIFIED, n, &managed) != QB_DONE) {
        printf("\nUnified memory: not available (%s).\n", r->text(r->context));
        return;
    }
    must(r->allocate(r->context, QB_MEMORY_PINNED, n, &pinned));
    page.length = n;
    batch.count = 1;
    batch.tiles = qb_tiles(n);
    batch.pages = device_memory(sizeof page);
    for (int i = 0; i < ROUNDS; i++) {
        memset(pinned, i, n);
        double start = now_ms();
        page.from = b->to;
        must(r->copy(r->context, (void *)(uintptr_t)batch.pages, &page, sizeof page, NULL));
        must(r->copy(r->context, b->to, pinned, n, NULL));
        must(r->launch(r->context, QB_HASH, &batch, NULL));
        must(r->wait(r->context, NULL));
        explicit_[i] = now_ms() - start;
        memset(managed, i, n);
        start = now_ms();
        page.from = managed;
        must(r->copy(r->context, (void *)(uintptr_t)batch.pages, &page, sizeof page, NULL));
        must(r->prefetch(r->context, managed, n, 1, NULL));
        must(r->launch(r->context, QB_HASH, &batch, NULL));
        must(r->wait(r->context, NULL));
        unified[i] = now_ms() - start;
    }
    const double copied = median(explicit_), moved = median(unified);
    printf(
        "\nUnified memory: %.0f MB that the CPU wrote are hashed by the device after %.2f ms with "
        "a prefetch, after %.2f ms with an explicit copy from pinned memory: %.2f times its "
        "speed (target 0.8).\n",
        (double)n / 1e6, moved, copied, copied / moved);
    r->release(r->context, QB_MEMORY_UNIFIED, managed);
    r->release(r->context, QB_MEMORY_PINNED, pinned);
}

int main(int argc, char **argv)
{
    struct qb_device_info info;
    struct bench b;
    uint64_t bytes = 0;
    if (qr_device_describe(&info) < 0) {
        fprintf(stderr, "bench_device: %s\n", qallow_error_detail());
        return 69;
    }
    r = qb_runtime_cuda();
    if (argc == 3 && strcmp(argv[1], "--bytes") == 0)
        bytes = strtoull(argv[2], NULL, 0);
    else if (argc != 1) {
        fputs("usage: bench_device [--bytes N]\n", stderr);
        return 64;
    }
    if (bytes == 0) /* 8 GB where there is room: four contents, and what the API takes */
        bytes = info.free_bytes / 6 < UINT64_C(8) << 30 ? info.free_bytes / 6 : UINT64_C(8) << 30;
    bytes -= bytes % PIECE;
    if (bytes == 0) {
        fputs("bench_device: less than 64 MiB to work on\n", stderr);
        return 64;
    }
    printf("%s, compute capability %d.%d, %d multiprocessors, %.1f GB; driver for CUDA %d.%d, "
           "runtime %d.%d. %.2f GB of state in %d pages, 1 %% of its 2-byte elements changed.\n\n",
           info.name, info.major, info.minor, info.processors, (double)info.total_bytes / 1e9,
           info.driver / 1000, info.driver % 1000 / 10, info.runtime / 1000,
           info.runtime % 1000 / 10, (double)bytes / 1e9, PAGES);
    prepare(&b, bytes);
    prepare_delta(&b);
    print_operations(&b);
    print_api(&b);
    print_unified(&b);
    return 0;
}
