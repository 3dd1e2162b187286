/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory-resident pages beside plain memory, in turns in one run, one thread unless said:
 *   read    a range of random pages, hot (one page) and from a state of 64 MiB and of 1 GiB, beside
 * memcpy of the same bytes from one array; of a snapshot too; and with another thread that changes
 * pages change  64 bytes in random pages of 4 KiB, 1000 in a section, beside memcpy into one array;
 * with no reader there is, with one that is idle, with one that reads; each block changed for the
 * first time after a snapshot The fastest of the runs counts. Usage: bench_resident [milliseconds a
 * run]
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "qallow/error.h"
#include "runtime/resident.h"
#include "tests/random.h"

enum { RUNS = 7, SECTION = 1000 };

static double run_seconds = 0.05;

static void ok(int rc)
{
    if (rc) {
        fprintf(stderr, "%s: %s\n", qallow_strerror(rc), qallow_error_detail());
        exit(1);
    }
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* `count` pages of `size` bytes, and an array with the same bytes. */
struct state {
    struct qr_resident *pages;
    struct qr_section *section;
    struct qr_resident_reader *reader;
    struct qr_resident_snapshot *snapshot;
    size_t size, count;
    uint8_t *plain, *to;
    uint64_t epoch, random;
    size_t length; /* of a read or a change */
    _Atomic int stop;
};

static void make(struct state *s, size_t size, size_t total)
{
    *s = (struct state){.size = size, .count = total / size, .random = 1};
    s->plain = malloc(total);
    s->to = malloc(size);
    memset(s->plain, 1, total);
    memset(s->to, 2, size);
    ok(qr_resident_create(NULL, &s->pages));
    ok(qr_section_create(s->pages, &s->section));
    ok(qr_section_begin(s->section, ++s->epoch));
    for (size_t i = 0; i < s->count; i++) {
        ok(qr_section_create_page(s->section, i + 1, size));
        ok(qr_section_write(s->section, i + 1, 0, s->plain + i * size, size));
    }
    qr_section_end(s->section);
}

static void unmake(struct state *s)
{
    qr_resident_snapshot_release(s->snapshot);
    qr_resident_reader_destroy(s->reader);
    qr_section_destroy(s->section);
    ok(qr_resident_destroy(s->pages));
    free(s->plain);
    free(s->to);
}

/* ---------------------------------------------------------------- work: 1000 times */

static size_t place(struct state *s, size_t *page)
{
    uint64_t r = next_random(&s->random);
    *page = (size_t)((r >> 32) * s->count >> 32);
    return s->length < s->size ? (r & 0xffffffff) % (s->size - s->length + 1) & ~(size_t)7 : 0;
}

static void plain_read(struct state *s)
{
    for (int i = 0; i < SECTION; i++) {
        size_t page, at = place(s, &page);
        memcpy(s->to, s->plain + page * s->size + at, s->length);
        __asm__ volatile("" : : "r"(s->to) : "memory");
    }
}
static void page_read(struct state *s)
{
    for (int i = 0; i < SECTION; i++) {
        size_t page, at = place(s, &page);
        ok(qr_resident_read(s->reader, s->snapshot, page + 1, at, s->to, s->length));
    }
}
static void plain_change(struct state *s)
{
    for (int i = 0; i < SECTION; i++) {
        size_t page, at = place(s, &page);
        memcpy(s->plain + page * s->size + at, s->to, s->length);
        __asm__ volatile("" : : "r"(s->plain) : "memory");
    }
}
static void page_change(struct state *s)
{
    ok(qr_section_begin(s->section, ++s->epoch));
    for (int i = 0; i < SECTION; i++) {
        size_t page, at = place(s, &page);
        ok(qr_section_write(s->section, page + 1, at, s->to, s->length));
    }
    qr_section_end(s->section);
}
static void prepared_change(struct state *s)
{
    static struct qr_range ranges[SECTION];
    for (int i = 0; i < SECTION; i++) {
        size_t page, at = place(s, &page);
        ranges[i] = (struct qr_range){page + 1, at, s->length};
    }
    ok(qr_section_begin(s->section, ++s->epoch));
    ok(qr_section_prepare_all(s->section, ranges, SECTION, NULL));
    for (int i = 0; i < SECTION; i++)
        ok(qr_section_write(s->section, ranges[i].id, ranges[i].offset, s->to, s->length));
    qr_section_end(s->section);
}

static double once(struct state *s, void (*work)(struct state *))
{
    size_t n = 0;
    double begin = now(), end = begin + run_seconds, last;
    do {
        work(s);
        n += SECTION;
    } while ((last = now()) < end);
    return (last - begin) / (double)n * 1e9;
}

/* In turns; ns each. */
static void compare(struct state *s, void (*plain)(struct state *), void (*page)(struct state *),
                    const char *name)
{
    double a = 1e30, b = 1e30;
    for (int r = 0; r < RUNS; r++) {
        double x = once(s, plain), y = once(s, page);
        a = x < a ? x : a;
        b = y < b ? y : b;
    }
    printf("%-44s %9zu  %11.1f  %11.1f  %6.2f  %7.1f\n", name, s->length, a, b, a / b,
           (double)s->length / b);
    fflush(stdout);
}

/* ---------------------------------------------------------------- the other thread */

static void *keep_changing(void *argument)
{
    struct state *s = argument;
    struct state mine = {.random = 99, .count = s->count, .size = s->size, .length = 64};
    ok(qr_section_create(s->pages, &mine.section));
    mine.to = s->plain;
    for (uint64_t epoch = UINT64_C(1) << 32; !atomic_load(&s->stop); epoch++) {
        ok(qr_section_begin(mine.section, epoch));
        for (int i = 0; i < 10; i++) {
            size_t page, at = place(&mine, &page);
            ok(qr_section_write(mine.section, page + 1, at, mine.to, 64));
        }
        qr_section_end(mine.section);
    }
    qr_section_destroy(mine.section);
    return NULL;
}

static void *keep_reading(void *argument)
{
    struct state *s = argument;
    struct state mine = {.random = 98, .count = s->count, .size = s->size, .length = s->size};
    mine.to = malloc(mine.size);
    ok(qr_resident_reader_create(s->pages, &mine.reader));
    while (!atomic_load(&s->stop)) {
        size_t page = (size_t)(next_random(&mine.random) % mine.count);
        ok(qr_resident_read(mine.reader, NULL, page + 1, 0, mine.to, mine.size));
    }
    qr_resident_reader_destroy(mine.reader);
    free(mine.to);
    return NULL;
}

/* ---------------------------------------------------------------- cases */

static void reads(size_t size, size_t total, const size_t *lengths, size_t count, const char *name)
{
    struct state s;
    make(&s, size, total);
    ok(qr_resident_reader_create(s.pages, &s.reader));
    for (size_t i = 0; i < count; i++) {
        s.length = lengths[i];
        compare(&s, plain_read, page_read, name);
    }
    ok(qr_resident_snapshot_create(s.pages, &s.snapshot));
    compare(&s, plain_read, page_read, "  the same of a snapshot");
    qr_resident_snapshot_release(s.snapshot);
    s.snapshot = NULL;
    if (s.count > 1) {
        pthread_t thread;
        pthread_create(&thread, NULL, keep_changing, &s);
        compare(&s, plain_read, page_read, "  the same, pages being changed");
        atomic_store(&s.stop, 1);
        pthread_join(thread, NULL);
    }
    unmake(&s);
}

static void changes(size_t total)
{
    struct state s;
    pthread_t thread;
    make(&s, 4096, total);
    s.length = 64;
    printf("state of %zu MiB\n", total >> 20);
    compare(&s, plain_change, page_change, "change, no readers");
    compare(&s, plain_change, prepared_change, "  prepared first");
    s.length = 4096;
    compare(&s, plain_change, page_change, "change, no readers");
    compare(&s, plain_change, prepared_change, "  prepared first");
    s.length = 64;
    ok(qr_resident_reader_create(s.pages, &s.reader));
    compare(&s, plain_change, page_change, "change, an idle reader");
    compare(&s, plain_change, prepared_change, "  prepared first");
    pthread_create(&thread, NULL, keep_reading, &s);
    compare(&s, plain_change, page_change, "change, a reader at work");
    compare(&s, plain_change, prepared_change, "  prepared first");
    atomic_store(&s.stop, 1);
    pthread_join(thread, NULL);
    unmake(&s);
}

/* After a snapshot each page is copied once. */
static void changes_after_snapshot(size_t size)
{
    enum { PAGES = 1000 };
    struct state s;
    double best = 1e30;
    make(&s, size, PAGES * size);
    ok(qr_resident_reader_create(s.pages, &s.reader));
    for (int r = 0; r < RUNS; r++) {
        ok(qr_resident_snapshot_create(s.pages, &s.snapshot));
        double begin = now();
        ok(qr_section_begin(s.section, ++s.epoch));
        for (uint64_t id = 1; id <= PAGES; id++)
            ok(qr_section_write(s.section, id, 0, s.to, 64));
        qr_section_end(s.section);
        double taken = (now() - begin) / PAGES * 1e9;
        best = taken < best ? taken : best;
        qr_resident_snapshot_release(s.snapshot);
    }
    s.snapshot = NULL;
    printf("first change of a page of %5zu bytes after a snapshot: %.1f ns\n", size, best);
    unmake(&s);
}

int main(int argc, char **argv)
{
    static const size_t small[] = {8, 64, 4096}, large[] = {64, 4096, 65536, 1 << 20};
    run_seconds = (argc > 1 ? strtod(argv[1], NULL) : 50) * 1e-3;
    printf("%-44s %9s  %11s  %11s  %6s  %7s\n", "", "bytes", "memcpy, ns", "pages, ns", "ratio",
           "GB/s");
    reads(4096, 4096, small, 3, "read, one page of 4 KiB");
    reads(65536, 65536, large, 3, "read, one page of 64 KiB");
    reads(1 << 20, 1 << 20, large, 4, "read, one page of 1 MiB");
    reads(4096, 64 << 20, small, 3, "read, 64 MiB in pages of 4 KiB");
    reads(4096, 1 << 30, small, 3, "read, 1 GiB in pages of 4 KiB");
    changes(64 << 20);
    changes(1 << 30);
    changes_after_snapshot(4096);
    changes_after_snapshot(65536);
    return 0;
}
