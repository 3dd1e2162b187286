/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory-resident pages, one thread at a time or two in a known order: content against plain
 * arrays, snapshots, misuse, readers that are in the way, every allocation failed once. Many
 * threads at once: resident_stress.c.
 */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>
#include <pthread.h>

#include "qallow/error.h"
#include "runtime/os.h"
#include "runtime/resident_internal.h"
#include "tests/random.h"

enum { BLOCK = QR_RESIDENT_BLOCK };

#define OK(call)                                                                                   \
    do {                                                                                           \
        int ok_rc = (call);                                                                        \
        if (ok_rc)                                                                                 \
            fail_msg("%s: %s: %s", #call, qallow_strerror(ok_rc), qallow_error_detail());          \
    } while (0)
#define FAILS(call, result, text)                                                                  \
    do {                                                                                           \
        assert_int_equal(call, result);                                                            \
        if (!strstr(qallow_error_detail(), text))                                                  \
            fail_msg("%s: no \"%s\" in \"%s\"", #call, text, qallow_error_detail());               \
    } while (0)

static uint64_t seed;

struct world {
    struct qr_pool *pool;
    struct qr_resident *pages;
    struct qr_section *section;
    struct qr_resident_reader *reader;
    uint64_t epoch;
};

static void open_world(struct world *w)
{
    struct qr_pool_options options = {.reserve = 1 << 30};
    *w = (struct world){0};
    OK(qr_pool_create(&options, &w->pool));
    OK(qr_resident_create(w->pool, &w->pages));
    OK(qr_section_create(w->pages, &w->section));
}

static struct qr_resident_stats stats_of(struct world *w)
{
    struct qr_resident_stats stats;
    qr_resident_stats(w->pages, &stats);
    return stats;
}

/* Nothing is left behind, neither in the set of pages nor in the pool. */
static void close_world(struct world *w)
{
    struct qr_pool_stats stats;
    qr_section_destroy(w->section);
    qr_resident_reader_destroy(w->reader);
    struct qr_resident_stats pages = stats_of(w);
    assert_int_equal(pages.copies, 0);
    assert_int_equal(pages.copy_bytes, 0);
    assert_int_equal(pages.waiting, 0);
    assert_int_equal(pages.waiting_bytes, 0);
    OK(qr_resident_destroy(w->pages));
    qr_pool_stats(w->pool, &stats);
    assert_int_equal(stats.blocks, 0);
    assert_int_equal(stats.double_frees, 0);
    qr_pool_destroy(w->pool);
}

static void begin(struct world *w) { OK(qr_section_begin(w->section, ++w->epoch)); }

static struct qr_resident_snapshot *pin(struct world *w)
{
    struct qr_resident_snapshot *snapshot;
    OK(qr_resident_snapshot_create(w->pages, &snapshot));
    assert_int_equal(qr_resident_snapshot_epoch(snapshot), w->epoch);
    return snapshot;
}

static void expect(struct world *w, const struct qr_resident_snapshot *snapshot, uint64_t id,
                   const uint8_t *bytes, size_t size)
{
    uint8_t *got = malloc(size + 1);
    uint64_t real;
    OK(qr_resident_size(w->reader, snapshot, id, &real));
    assert_int_equal(real, size);
    OK(qr_resident_read(w->reader, snapshot, id, 0, got, size));
    assert_memory_equal(got, bytes, size);
    FAILS(qr_resident_read(w->reader, snapshot, id, 0, got, size + 1), QALLOW_E_ARGUMENT, "page");
    free(got);
}

/* ---------------------------------------------------------------- content */

struct model {
    uint8_t *bytes;
    size_t size;
};

/* One random change of a page, and of its model. */
static void change(struct world *w, uint64_t id, struct model *m, uint64_t *random)
{
    enum { MAX = 5 * BLOCK };
    static uint8_t bytes[MAX];
    uint64_t r = next_random(random), kind = r % 8;
    size_t offset = m->size ? next_random(random) % m->size : 0;
    size_t length = m->size ? next_random(random) % (m->size - offset + 1) : 0;
    if (r >> 8 & 3)
        length = length > 300 ? 300 : length;
    for (size_t i = 0; i < length; i++)
        bytes[i] = (uint8_t)next_random(random);
    if (kind == 0) {
        size_t size = next_random(random) % (r >> 16 & 1 ? MAX : 6000);
        OK(qr_section_resize(w->section, id, size));
        if (size > m->size)
            memset(m->bytes + m->size, 0, size - m->size);
        m->size = size;
    } else if (kind == 1) {
        OK(qr_section_zero(w->section, id, offset, length));
        memset(m->bytes + offset, 0, length);
    } else if (kind < 5) {
        OK(qr_section_write(w->section, id, offset, bytes, length));
        memcpy(m->bytes + offset, bytes, length);
    } else if (length && offset / BLOCK == (offset + length - 1) / BLOCK) {
        uint8_t *at;
        OK(qr_section_edit(w->section, id, offset, length, &at));
        assert_memory_equal(at, m->bytes + offset, length);
        memcpy(at, bytes, length);
        memcpy(m->bytes + offset, bytes, length);
    }
}

/* The section's own view is the content too. */
static void expect_view(struct world *w, uint64_t id, const struct model *m)
{
    const uint8_t *at;
    uint64_t size;
    size_t n;
    OK(qr_section_size(w->section, id, &size));
    assert_int_equal(size, m->size);
    for (size_t offset = 0; offset < m->size; offset += n) {
        OK(qr_section_view(w->section, id, offset, &at, &n));
        assert_true(n > 0 && n <= m->size - offset);
        assert_memory_equal(at, m->bytes + offset, n);
    }
    OK(qr_section_view(w->section, id, m->size, &at, &n));
    assert_int_equal(n, 0);
}

/* Random changes to a few pages; snapshots come and go, in any order, and show what was. */
static void random_changes(int with_reader)
{
    enum { PAGES = 3, PINS = 5, MAX = 5 * BLOCK };
    struct world w;
    struct model now[PAGES], then[PINS][PAGES];
    struct qr_resident_snapshot *pins[PINS] = {0};
    uint64_t random = seed;
    open_world(&w);
    if (with_reader)
        OK(qr_resident_reader_create(w.pages, &w.reader));
    begin(&w);
    for (int p = 0; p < PAGES; p++) {
        now[p] = (struct model){calloc(1, MAX), (size_t)p * 70000};
        OK(qr_section_create_page(w.section, (uint64_t)p * 5000 + 1, now[p].size));
        for (int i = 0; i < PINS; i++)
            then[i][p].bytes = malloc(MAX);
    }
    qr_section_end(w.section);
    for (int round = 0; round < 400; round++) {
        begin(&w);
        for (int i = 0; i < 3; i++) {
            int p = (int)(next_random(&random) % PAGES);
            change(&w, (uint64_t)p * 5000 + 1, &now[p], &random);
            if (round % 8 == 0)
                expect_view(&w, (uint64_t)p * 5000 + 1, &now[p]);
        }
        qr_section_end(w.section);
        int i = (int)(next_random(&random) % PINS);
        if (!w.reader && round % 50 == 0)
            OK(qr_resident_reader_create(w.pages, &w.reader));
        for (int p = 0; p < PAGES && w.reader; p++) {
            expect(&w, NULL, (uint64_t)p * 5000 + 1, now[p].bytes, now[p].size);
            if (pins[i])
                expect(&w, pins[i], (uint64_t)p * 5000 + 1, then[i][p].bytes, then[i][p].size);
        }
        if (!with_reader) {
            qr_resident_reader_destroy(w.reader);
            w.reader = NULL;
        }
        qr_resident_snapshot_release(pins[i]);
        pins[i] = round % 3 ? pin(&w) : NULL;
        for (int p = 0; p < PAGES; p++) {
            memcpy(then[i][p].bytes, now[p].bytes, now[p].size);
            then[i][p].size = now[p].size;
        }
    }
    for (int i = 0; i < PINS; i++) {
        qr_resident_snapshot_release(pins[i]);
        for (int p = 0; p < PAGES; p++)
            free(then[i][p].bytes);
    }
    for (int p = 0; p < PAGES; p++)
        free(now[p].bytes);
    close_world(&w);
}

static void test_content(void **state)
{
    random_changes(1);
    random_changes(0);
}

/* Zeros take no memory, wherever they are. */
#define HUGE_PAGE (UINT64_C(1) << 38)
static void test_sparse(void **state)
{
    struct world w;
    uint8_t byte = 7, got[3];
    struct qr_pool_stats stats;
    open_world(&w);
    OK(qr_resident_reader_create(w.pages, &w.reader));
    begin(&w);
    OK(qr_section_create_page(w.section, 9, HUGE_PAGE));
    OK(qr_section_write(w.section, 9, (HUGE_PAGE)-1, &byte, 1));
    OK(qr_section_zero(w.section, 9, 0, (HUGE_PAGE)-1));
    qr_section_end(w.section);
    OK(qr_resident_read(w.reader, NULL, 9, (HUGE_PAGE)-2, got, 2));
    assert_int_equal(got[0], 0);
    assert_int_equal(got[1], 7);
    qr_pool_stats(w.pool, &stats);
    assert_true(stats.bytes - stats.large_bytes < 1 << 20); /* large: the table of blocks */
    assert_int_equal(stats.large_blocks, 1);
    assert_int_equal(stats_of(&w).bytes, HUGE_PAGE);
    begin(&w);
    OK(qr_section_zero(w.section, 9, (HUGE_PAGE)-1, 1));
    OK(qr_section_resize(w.section, 9, 100)); /* no later than now it has no bytes */
    qr_section_end(w.section);
    OK(qr_resident_read(w.reader, NULL, 9, 97, got, 3));
    assert_int_equal(got[0] | got[1] | got[2], 0);
    close_world(&w);
}

/* A snapshot keeps a page that is freed, and one that was cut; a later one does not show it. */
static void test_snapshot_of_pages(void **state)
{
    struct world w;
    uint8_t bytes[5000], got[10];
    uint64_t size;
    open_world(&w);
    OK(qr_resident_reader_create(w.pages, &w.reader));
    memset(bytes, 3, sizeof bytes);
    struct qr_resident_snapshot *none = pin(&w);
    begin(&w);
    OK(qr_section_create_page(w.section, 2, 5 * BLOCK)); /* no snapshot ever sees it */
    OK(qr_section_write(w.section, 2, 3 * BLOCK, bytes, 10));
    OK(qr_section_zero(w.section, 2, 0, 5 * BLOCK));
    OK(qr_section_free_page(w.section, 2));
    OK(qr_section_create_page(w.section, 1, 5000));
    OK(qr_section_write(w.section, 1, 0, bytes, 5000));
    qr_section_end(w.section);
    struct qr_resident_snapshot *one = pin(&w), *again = pin(&w);
    begin(&w);
    OK(qr_section_resize(w.section, 1, 10));
    OK(qr_section_free_page(w.section, 1));
    qr_section_end(w.section);
    struct qr_resident_snapshot *gone = pin(&w);
    FAILS(qr_resident_read(w.reader, none, 1, 0, got, 1), QALLOW_E_PAGE_NOT_FOUND, "epoch 0");
    FAILS(qr_resident_size(w.reader, gone, 1, &size), QALLOW_E_PAGE_NOT_FOUND, "epoch 2");
    FAILS(qr_resident_read(w.reader, NULL, 1, 0, got, 1), QALLOW_E_PAGE_NOT_FOUND, "page 1");
    qr_resident_snapshot_release(again);
    expect(&w, one, 1, bytes, 5000);
    qr_resident_snapshot_release(none);
    expect(&w, one, 1, bytes, 5000);
    assert_int_equal(stats_of(&w).copies, 1);
    assert_int_equal(stats_of(&w).snapshots, 2);
    FAILS(qr_resident_destroy(w.pages), QALLOW_E_STATE, "2 snapshots");
    qr_resident_snapshot_release(one);
    qr_resident_snapshot_release(gone);
    qr_resident_snapshot_release(NULL);
    begin(&w);
    FAILS(qr_section_create_page(w.section, 1, 1), QALLOW_E_PAGE_EXISTS, "was freed");
    close_world(&w);
}

/* ---------------------------------------------------------------- misuse */

static void test_misuse_of_ranges(void **state)
{
    struct world w;
    uint8_t byte = 1, *at;
    const uint8_t *view;
    size_t n;
    open_world(&w);
    OK(qr_resident_reader_create(w.pages, &w.reader));
    FAILS(qr_section_write(w.section, 1, 0, &byte, 1), QALLOW_E_STATE, "not open");
    FAILS(qr_section_create_page(w.section, 1, 1), QALLOW_E_STATE, "not open");
    begin(&w);
    OK(qr_section_create_page(w.section, 7, 3 * BLOCK));
    FAILS(qr_section_create_page(w.section, 7, 1), QALLOW_E_PAGE_EXISTS, "page 7 exists");
    FAILS(qr_section_create_page(w.section, 0, 1), QALLOW_E_ARGUMENT, "page 0");
    FAILS(qr_section_create_page(w.section, QR_RESIDENT_ID_MAX + 1, 1), QALLOW_E_LIMIT, "page 687");
    FAILS(qr_section_create_page(w.section, 8, QR_RESIDENT_SIZE_MAX + 1), QALLOW_E_LIMIT, "page 8");
    FAILS(qr_section_resize(w.section, 7, QR_RESIDENT_SIZE_MAX + 1), QALLOW_E_LIMIT, "page 7");
    FAILS(qr_section_write(w.section, 7, 3 * BLOCK, &byte, 1), QALLOW_E_ARGUMENT,
          "page 7: 1 bytes at 196608, but it has 196608");
    FAILS(qr_section_zero(w.section, 7, 1, UINT64_MAX), QALLOW_E_ARGUMENT, "page 7");
    FAILS(qr_section_prepare(w.section, 7, UINT64_MAX, 1), QALLOW_E_ARGUMENT, "page 7");
    FAILS(qr_section_view(w.section, 7, 3 * BLOCK + 1, &view, &n), QALLOW_E_ARGUMENT, "page 7");
    FAILS(qr_section_edit(w.section, 7, BLOCK - 1, 2, &at), QALLOW_E_ARGUMENT, "not in one block");
    FAILS(qr_section_edit(w.section, 7, 5, 0, &at), QALLOW_E_ARGUMENT, "not in one block");
    OK(qr_section_write(w.section, 7, 3 * BLOCK, &byte, 0));
    OK(qr_section_edit(w.section, 7, BLOCK - 1, 1, &at));
    for (uint64_t id = 8; id; id = id << 8 > id ? id << 8 : 0) {
        FAILS(qr_section_write(w.section, id, 0, &byte, 1), QALLOW_E_PAGE_NOT_FOUND, "page");
        FAILS(qr_section_free_page(w.section, id), QALLOW_E_PAGE_NOT_FOUND, "page");
        FAILS(qr_resident_read(w.reader, NULL, id, 0, &byte, 1), QALLOW_E_PAGE_NOT_FOUND, "page");
    }
    struct qr_range ranges[40];
    size_t done = 5;
    for (size_t i = 0; i < 40; i++)
        ranges[i] = (struct qr_range){7, i * 4000, 4001};
    OK(qr_section_prepare_all(w.section, ranges, 0, &done));
    assert_int_equal(done, 0);
    OK(qr_section_prepare_all(w.section, ranges, 40, NULL));
    ranges[30].id = 8;
    ranges[31].offset = 3 * BLOCK;
    FAILS(qr_section_prepare_all(w.section, ranges, 40, &done), QALLOW_E_PAGE_NOT_FOUND, "page 8");
    assert_int_equal(done, 30);
    FAILS(qr_section_prepare_all(w.section, ranges + 31, 9, &done), QALLOW_E_ARGUMENT, "page 7");
    assert_int_equal(done, 0);
    OK(qr_section_free_page(w.section, 7));
    FAILS(qr_section_free_page(w.section, 7), QALLOW_E_PAGE_NOT_FOUND, "page 7");
    FAILS(qr_section_write(w.section, 7, 0, &byte, 1), QALLOW_E_PAGE_NOT_FOUND, "page 7");
    FAILS(qr_section_create_page(w.section, 7, 1), QALLOW_E_PAGE_EXISTS, "page 7 was freed");
    qr_section_end(w.section);
    qr_section_end(w.section);
    assert_int_equal(stats_of(&w).pages, 0);
    assert_int_equal(stats_of(&w).bytes, 0);
    close_world(&w);
    OK(qr_resident_destroy(NULL));
}

static void test_misuse_of_sections(void **state)
{
    struct world w;
    struct qr_section *other;
    struct qr_resident_snapshot *snapshot;
    struct qr_resident_reader *reader;
    uint8_t byte = 1;
    open_world(&w);
    OK(qr_section_create(w.pages, &other));
    FAILS(qr_section_begin(w.section, 0), QALLOW_E_STATE, "epoch 0");
    w.epoch = 4;
    begin(&w);
    FAILS(qr_section_begin(w.section, 6), QALLOW_E_STATE, "is open, with epoch 5");
    FAILS(qr_section_begin(other, 4), QALLOW_E_STATE, "epoch 4: the last one was 5");
    OK(qr_section_begin(other, 6));
    OK(qr_section_create_page(w.section, 1, 10));
    OK(qr_section_create_page(w.section, 2, 10));
    FAILS(qr_section_write(other, 1, 0, &byte, 1), QALLOW_E_BUSY, "page 1");
    FAILS(qr_section_free_page(other, 1), QALLOW_E_BUSY, "page 1");
    FAILS(qr_resident_snapshot_create(w.pages, &snapshot), QALLOW_E_STATE, "epoch 5 open");
    FAILS(qr_resident_reader_create(w.pages, &reader), QALLOW_E_STATE, "epoch 5 open");
    qr_section_end(w.section);
    OK(qr_section_begin(w.section, 6)); /* two sections of one epoch */
    OK(qr_section_write(w.section, 2, 0, &byte, 1));
    FAILS(qr_section_write(other, 2, 0, &byte, 1), QALLOW_E_BUSY, "page 2");
    OK(qr_section_write(other, 1, 0, &byte, 1));
    qr_section_end(w.section);
    qr_section_end(other);
    OK(qr_section_begin(w.section, 7));
    OK(qr_section_begin(other, 8));
    OK(qr_section_write(other, 1, 0, &byte, 1));
    qr_section_end(other);
    FAILS(qr_section_write(w.section, 1, 0, &byte, 1), QALLOW_E_STATE,
          "page 1 was changed by epoch 8, this is 7");
    OK(qr_section_write(w.section, 2, 0, &byte, 1));
    qr_section_end(w.section);
    OK(qr_resident_snapshot_create(w.pages, &snapshot));
    assert_int_equal(qr_resident_snapshot_epoch(snapshot), 8);
    FAILS(qr_section_begin(w.section, 8), QALLOW_E_STATE, "a snapshot");
    qr_resident_snapshot_release(snapshot);
    FAILS(qr_section_begin(w.section, 8), QALLOW_E_STATE, "a snapshot");
    FAILS(qr_resident_destroy(w.pages), QALLOW_E_STATE, "2 sections");
    qr_section_destroy(other);
    qr_section_destroy(NULL);
    close_world(&w);
}

/* ---------------------------------------------------------------- readers in the way */

/* A reader that has announced block 0 of page 1, and stays. */
static void *leave_later(void *argument)
{
    struct qr_resident_reader *reader = argument;
    for (int i = 0; i < 1000; i++)
        sched_yield();
    atomic_store(&reader->target, TARGET_NONE);
    return NULL;
}

static int fail_all(size_t size) { return 1; }

static void test_reader_in_the_way(void **state)
{
    struct world w;
    uint8_t byte = 1, *at, *now;
    pthread_t thread;
    open_world(&w);
    OK(qr_resident_reader_create(w.pages, &w.reader));
    begin(&w);
    OK(qr_section_create_page(w.section, 1, 100));
    OK(qr_section_write(w.section, 1, 0, &byte, 1));
    qr_section_end(w.section);
    struct qr_block *block = &qr_resident_find(w.pages, 1)->first;
    at = atomic_load(&block->bytes);

    begin(&w); /* nobody there: in place */
    byte = 2;
    OK(qr_section_write(w.section, 1, 0, &byte, 1));
    qr_section_end(w.section);
    assert_ptr_equal(atomic_load(&block->bytes), at);

    atomic_store(&w.reader->era, atomic_load(&w.pages->era));
    atomic_store(&w.reader->target, TARGET(1, 0));
    begin(&w); /* the reader keeps the old bytes */
    byte = 3;
    OK(qr_section_write(w.section, 1, 0, &byte, 1));
    OK(qr_section_write(w.section, 1, 1, &byte, 1));
    qr_section_end(w.section);
    now = atomic_load(&block->bytes);
    assert_ptr_not_equal(now, at);
    assert_int_equal(at[0], 2);
    assert_int_equal(now[0], 3);
    assert_int_equal(stats_of(&w).copied_for_readers, 1);
    assert_int_equal(stats_of(&w).waiting, 1);

    begin(&w); /* without memory it is waited for */
    qr_section_size(w.section, 1, &(uint64_t){0});
    OK(qr_section_prepare(w.section, 1, 0, 1));
    pthread_create(&thread, NULL, leave_later, w.reader);
    qr_set_allocation_hook(fail_all);
    struct qr_pool *pool = w.pages->pool;
    void *spare[2000];
    size_t n = 0;
    while (n < 2000 && !qr_pool_alloc(pool, 128, &spare[n]))
        n++; /* no block of this size is left in the pool */
    byte = 4;
    int rc = qr_section_write(w.section, 1, 0, &byte, 1);
    qr_set_allocation_hook(NULL);
    OK(rc);
    while (n)
        OK(qr_pool_free(pool, spare[--n], 128));
    qr_section_end(w.section);
    pthread_join(thread, NULL);
    assert_int_equal(atomic_load(&block->bytes)[0], 4);
    close_world(&w);
}

/* Who reads a block in change waits for the section's end, and sees all of it. */
struct waiting {
    struct qr_resident_reader *reader;
    uint8_t got[2];
    _Atomic int done;
};
static void *read_it(void *argument)
{
    struct waiting *waiting = argument;
    OK(qr_resident_read(waiting->reader, NULL, 1, 0, waiting->got, 2));
    waiting->done = 1;
    return NULL;
}

static void test_reader_waits(void **state)
{
    struct world w;
    struct waiting waiting = {0};
    uint8_t bytes[2] = {1, 2};
    pthread_t thread;
    open_world(&w);
    OK(qr_resident_reader_create(w.pages, &w.reader));
    begin(&w);
    OK(qr_section_create_page(w.section, 1, 2));
    OK(qr_section_write(w.section, 1, 0, bytes, 1));
    waiting.reader = w.reader;
    pthread_create(&thread, NULL, read_it, &waiting);
    while (!stats_of(&w).reader_waits)
        sched_yield();
    assert_false(waiting.done);
    OK(qr_section_resize(w.section, 1, 200000)); /* it waits at another table now */
    OK(qr_section_write(w.section, 1, 1, bytes + 1, 1));
    qr_section_end(w.section);
    pthread_join(thread, NULL);
    assert_memory_equal(waiting.got, bytes, 2);
    close_world(&w);
}

/* The first reader, and every snapshot, wait for the sections that are open. */
struct newcomer {
    struct world *world;
    int snapshot;
    _Atomic int done;
};
static void *arrive(void *argument)
{
    struct newcomer *n = argument;
    struct qr_resident_snapshot *snapshot = NULL;
    struct qr_resident_reader *reader = NULL;
    if (n->snapshot) {
        OK(qr_resident_snapshot_create(n->world->pages, &snapshot));
        assert_int_equal(qr_resident_snapshot_epoch(snapshot), 1);
    } else {
        OK(qr_resident_reader_create(n->world->pages, &reader));
    }
    n->done = 1;
    qr_resident_snapshot_release(snapshot);
    qr_resident_reader_destroy(reader);
    return NULL;
}

static size_t waiters(struct world *w)
{
    pthread_mutex_lock(&w->pages->lock);
    size_t n = w->pages->waiters;
    pthread_mutex_unlock(&w->pages->lock);
    return n;
}

static void test_newcomers_wait(void **state)
{
    for (int snapshot = 0; snapshot < 2; snapshot++) {
        struct world w;
        struct newcomer newcomer = {&w, snapshot, 0};
        struct qr_section *later;
        pthread_t thread;
        open_world(&w);
        OK(qr_section_create(w.pages, &later));
        begin(&w);
        pthread_create(&thread, NULL, arrive, &newcomer);
        while (!waiters(&w) && !newcomer.done)
            sched_yield();
        assert_false(newcomer.done);
        OK(qr_section_begin(later, 2)); /* knows of it, and need not be waited for */
        qr_section_end(w.section);
        pthread_join(thread, NULL);
        assert_true(newcomer.done);
        qr_section_destroy(later);
        close_world(&w);
    }
}

/* ---------------------------------------------------------------- allocations that fail */

static int allocations, fail_at;
static int fail_one(size_t size) { return ++allocations == fail_at; }

/* Tries until it succeeds; at most one allocation fails. *failures counts. */
#define RETRY(call)                                                                                \
    do {                                                                                           \
        int retry_rc = (call);                                                                     \
        if (retry_rc) {                                                                            \
            assert_int_equal(retry_rc, QALLOW_E_NO_MEMORY);                                        \
            failures++;                                                                            \
            OK(call);                                                                              \
        }                                                                                          \
    } while (0)

/* Some of everything; each step that fails changes nothing and succeeds when tried again. */
static int scenario(void)
{
    static uint8_t bytes[3 * BLOCK], model[8 * BLOCK];
    struct world w = {0};
    struct qr_pool_options options = {.reserve = 1 << 30, .cache_bytes = 1};
    struct qr_resident_snapshot *snapshots[2];
    int failures = 0;
    memset(bytes, 5, sizeof bytes);
    memset(model, 0, sizeof model);
    memset(model, 5, 3 * BLOCK);
    RETRY(qr_pool_create(&options, &w.pool));
    RETRY(qr_resident_create(w.pool, &w.pages));
    RETRY(qr_section_create(w.pages, &w.section));
    RETRY(qr_resident_reader_create(w.pages, &w.reader));
    begin(&w);
    for (uint64_t id = 1; id <= 40; id++)
        RETRY(qr_section_create_page(w.section, id, id % 2 ? 3 * BLOCK : 100));
    RETRY(qr_section_write(w.section, 1, 0, bytes, 3 * BLOCK));
    RETRY(qr_section_write(w.section, 2, 0, bytes, 100));
    qr_section_end(w.section);
    RETRY(qr_resident_snapshot_create(w.pages, &snapshots[0]));
    begin(&w);
    RETRY(qr_section_zero(w.section, 1, 100, 2 * BLOCK));
    RETRY(qr_section_resize(w.section, 1, 8 * BLOCK));
    RETRY(qr_section_prepare(w.section, 1, 6 * BLOCK, BLOCK + 1));
    RETRY(qr_section_resize(w.section, 2, 6 * BLOCK));
    RETRY(qr_section_write(w.section, 2, 3, bytes, 3 * BLOCK));
    qr_section_end(w.section);
    RETRY(qr_resident_snapshot_create(w.pages, &snapshots[1]));
    begin(&w);
    RETRY(qr_section_resize(w.section, 1, 5));
    RETRY(qr_section_free_page(w.section, 2));
    qr_section_end(w.section);
    qr_set_allocation_hook(NULL);
    expect(&w, snapshots[0], 1, model, 3 * BLOCK);
    expect(&w, snapshots[0], 2, model, 100);
    memset(model + 100, 0, 2 * BLOCK);
    expect(&w, snapshots[1], 1, model, 8 * BLOCK);
    expect(&w, NULL, 1, model, 5);
    memset(model, 5, 3 * BLOCK + 3);
    expect(&w, snapshots[1], 2, model, 6 * BLOCK);
    qr_resident_snapshot_release(snapshots[0]);
    qr_resident_snapshot_release(snapshots[1]);
    close_world(&w);
    return failures;
}

static void test_every_allocation(void **state)
{
    int failures = 1;
    for (fail_at = 1; failures; fail_at++) {
        allocations = 0;
        qr_set_allocation_hook(fail_one);
        failures = scenario();
        /* a failure may be hidden: a reader slot, a cache that frees without */
        if (!failures)
            failures = allocations >= fail_at;
    }
    assert_true(fail_at > 80);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_content),
        cmocka_unit_test(test_sparse),
        cmocka_unit_test(test_snapshot_of_pages),
        cmocka_unit_test(test_misuse_of_ranges),
        cmocka_unit_test(test_misuse_of_sections),
        cmocka_unit_test(test_reader_in_the_way),
        cmocka_unit_test(test_reader_waits),
        cmocka_unit_test(test_newcomers_wait),
        cmocka_unit_test(test_every_allocation),
    };
    const char *text = getenv("QALLOW_SEED");
    seed = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
    printf("QALLOW_SEED=%llu\n", (unsigned long long)seed);
    fflush(stdout);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
