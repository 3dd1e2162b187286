/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Statistics of the C API: numbers that must come out for a scripted history, a random history
 * whose counts are compared with those of its log, and times from a clock that the test moves.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "tests/api/support.h"

#include "runtime/api.h"
#include "runtime/delta.h"
#include "runtime/meter.h"
#include "runtime/os.h"

static struct qallow_stats stats_of(struct qallow_store *store)
{
    struct qallow_stats stats = QALLOW_STATS_INIT;
    assert_ok(qallow_stats_get(store, &stats));
    return stats;
}

/* --- a scripted history --- */

enum { SIZE = 5000 };

/* Bytes that never repeat what stood at a place before: `version` differs in each. */
static void fill(uint8_t *bytes, size_t length, unsigned version)
{
    for (size_t i = 0; i < length; i++)
        bytes[i] = (uint8_t)(1 + version * 40 + i * 7 % 31);
}

static void write_at(struct qallow_store *store, uint64_t page, uint64_t offset, size_t length,
                     unsigned version)
{
    uint8_t bytes[SIZE];
    struct qallow_txn *txn;
    fill(bytes, length, version);
    assert_ok(qallow_begin(store, &txn));
    assert_ok(qallow_page_write(txn, page, offset, bytes, length));
    assert_ok(qallow_commit(txn, NULL));
}

static void resize(struct qallow_store *store, uint64_t page, uint64_t size)
{
    struct qallow_txn *txn;
    assert_ok(qallow_begin(store, &txn));
    assert_ok(qallow_page_resize(txn, page, size));
    assert_ok(qallow_commit(txn, NULL));
}

static void check_empty(const struct qallow_stats *s)
{
    static const struct qallow_timing none;
    for (size_t i = 0; i < 16; i++)
        assert_true(s->operations[i] == 0 && s->deltas_of_kind[i] == 0);
    assert_true(s->deltas == 0 && s->delta_bytes == 0 && s->delta_mean_bytes == 0);
    assert_int_equal(s->images, 0);
    assert_memory_equal(&s->apply, &none, sizeof none);
    assert_memory_equal(&s->apply_delta, &none, sizeof none);
    assert_memory_equal(&s->commit, &none, sizeof none);
}

static void check_timing(const struct qallow_timing *t, uint64_t count)
{
    assert_int_equal(t->count, count);
    assert_true(t->p50_ns <= t->p90_ns && t->p90_ns <= t->p99_ns && t->p99_ns <= t->max_ns);
    assert_int_equal(t->mean_ns, t->total_ns / count);
    assert_true(t->mean_ns <= t->max_ns);
}

/* Two pages made in one epoch: a raw one with content, and a directory. */
static uint64_t make_pages(struct qallow_store *store)
{
    uint8_t bytes[SIZE];
    struct qallow_txn *txn;
    fill(bytes, SIZE, 0);
    assert_ok(qallow_begin(store, &txn));
    uint64_t page = create_page(txn, "page", 0, QALLOW_RAW);
    uint64_t directory = create_page(txn, "directory", 0, QALLOW_DIRECTORY);
    uint64_t file = create_page(txn, "file", directory, QALLOW_FILE);
    assert_ok(qallow_page_write(txn, page, 0, bytes, SIZE));
    assert_ok(qallow_page_write(txn, file, 0, bytes, 10));
    assert_ok(qallow_commit(txn, NULL));
    return page;
}

static void test_scripted(void **state)
{
    struct qallow_store *store = open_new("script.tlog");
    struct qallow_stats s = stats_of(store);
    check_empty(&s);

    /* (gap, length and kind, new length, bytes) of 5,000 and of 10 bytes */
    uint64_t page = make_pages(store), bytes = 1 + 1 + 2 + SIZE + 1 + 1 + 1 + 10;
    s = stats_of(store);
    assert_int_equal(s.operations[QALLOW_ENCODING_REPLACE], 2);
    assert_int_equal(s.delta_bytes, bytes);
    assert_int_equal(s.delta_mean_bytes, bytes / 2);

    write_at(store, page, 100, 64, 1); /* gap, length and kind, bytes */
    write_at(store, page, 300, 8, 2);
    bytes += 1 + 2 + 64 + 2 + 1 + 8;
    resize(store, page, SIZE + 1000);
    resize(store, page, SIZE);
    bytes += 2 * (2 + 2);
    s = stats_of(store);
    assert_int_equal(s.operations[QALLOW_ENCODING_OVERWRITE], 2);
    assert_int_equal(s.operations[QALLOW_ENCODING_REPLACE], 2);
    assert_int_equal(s.operations[QALLOW_ENCODING_GROW], 1);
    assert_int_equal(s.operations[QALLOW_ENCODING_REMOVE], 1);
    assert_int_equal(s.delta_bytes, bytes);
    assert_int_equal(s.deltas, 6);
    assert_int_equal(s.delta_mean_bytes, bytes / 6);
    assert_int_equal(s.deltas_of_kind[QALLOW_RAW], 5);
    assert_int_equal(s.deltas_of_kind[QALLOW_FILE], 1);
    assert_int_equal(s.deltas_of_kind[QALLOW_DIRECTORY], 0);
    check_timing(&s.commit, 5);
    check_timing(&s.apply, 5);
    check_timing(&s.apply_delta, 6);
    assert_int_equal(s.pages, 3);
    assert_int_equal(s.pages_at[QALLOW_CPU], 3);
    assert_true(s.pages_at[QALLOW_GPU] == 0 && s.pages_at[QALLOW_UNIFIED] == 0);
    assert_ok(qallow_close(store));
}

/* What stands still, fails or is read again is not counted. */
static void test_not_counted(void **state)
{
    struct qallow_store *store = open_new("still.tlog");
    struct qallow_stats before, after;
    struct qallow_txn *txn;
    uint64_t page = make_pages(store);

    before = stats_of(store);
    write_at(store, page, 0, SIZE, 0); /* the same bytes: no epoch */
    assert_ok(qallow_begin(store, &txn));
    assert_ok(qallow_page_write(txn, page, 0, "other", 5));
    qallow_abort(txn);
    assert_ok(qallow_begin(store, &txn));
    assert_ok(qallow_page_rename(txn, page, 0, "a"));
    assert_ok(qallow_page_free(txn, 2)); /* a directory with a page in it */
    assert_result(qallow_commit(txn, NULL), QALLOW_E_INVALID_DELTA);
    after = stats_of(store);
    assert_memory_equal(&after.deltas, &before.deltas,
                        sizeof after - offsetof(struct qallow_stats, deltas));
    assert_ok(qallow_close(store));

    assert_ok(qallow_open(path("still.tlog"), NULL, &store)); /* opening is no work of the handle */
    after = stats_of(store);
    check_empty(&after);
    assert_int_equal(after.pages, before.pages);
    assert_ok(qallow_close(store));
}

static void test_reset(void **state)
{
    struct qallow_store *store = open_new("reset.tlog");
    uint64_t page = make_pages(store);
    struct qallow_stats before = stats_of(store), after;

    assert_true(before.deltas > 0 && before.held_bytes >= SIZE);
    assert_true(before.held_limit >= before.held_bytes);
    assert_result(qallow_stats_reset(NULL), QALLOW_E_ARGUMENT);
    assert_ok(qallow_stats_reset(store));
    after = stats_of(store);
    check_empty(&after);
    assert_memory_equal(&after, &before, offsetof(struct qallow_stats, deltas));
    write_at(store, page, 7, 3, 1);
    after = stats_of(store);
    assert_int_equal(after.deltas, 1);
    assert_int_equal(after.delta_mean_bytes, 5);
    check_timing(&after.commit, 1);
    assert_ok(qallow_close(store));
}

/* A program built against the first version of the struct gets what it knows, and no more. */
static void test_shorter_struct(void **state)
{
    enum { FIRST_SIZE = offsetof(struct qallow_stats, pages_at) };
    struct qallow_store *store = open_new("short.tlog");
    struct qallow_stats whole, shorter;

    make_pages(store);
    whole = stats_of(store);
    memset(&shorter, 0x5a, sizeof shorter);
    shorter.size = FIRST_SIZE;
    assert_ok(qallow_stats_get(store, &shorter));
    assert_int_equal(shorter.size, FIRST_SIZE);
    assert_memory_equal(&shorter.owner_pid, &whole.owner_pid, FIRST_SIZE - sizeof shorter.size);
    for (size_t i = FIRST_SIZE; i < sizeof shorter; i++)
        assert_int_equal(((const uint8_t *)&shorter)[i], 0x5a);
    assert_int_equal(FIRST_SIZE, 160);
    assert_ok(qallow_close(store));
}

/* --- a random history and its log --- */

struct counted {
    struct qr_apply_counts counts;
    uint64_t deltas;
    uint64_t old_end; /* of the operations so far of a delta */
};

static int count(void *context, const struct qr_epoch *epoch, const struct qr_state *state,
                 const struct qr_record *record)
{
    struct counted *c = context;
    struct qr_op op;

    if (record->first)
        c->old_end = 0;
    c->counts.images += record->type == QR_RECORD_IMAGE && record->last;
    if (record->type != QR_RECORD_DELTA)
        return 0;
    struct qr_cursor cursor = qr_cursor(record->operations, record->operations_length);
    c->deltas += record->last != 0;
    c->counts.deltas[qr_state_find(state, record->page)->kind] += record->last != 0;
    c->counts.delta_bytes += record->operations_length;
    while (qr_op_next(&cursor, &c->old_end, &op) > 0)
        c->counts.operations[op.kind]++;
    return 0;
}

static void compare_with_log(struct qallow_store *store, const struct qallow_stats *s)
{
    struct counted c = {.deltas = 0};
    struct qr_walk walk = {
        .from = 1, .to = s->last_epoch, .with_state = 1, .record = count, .context = &c};
    assert_ok(qr_store_walk(store->store, &walk));
    for (size_t i = 0; i < QR_METER_OPERATIONS; i++)
        assert_int_equal(s->operations[i], c.counts.operations[i]);
    for (size_t i = 0; i < QR_METER_KINDS; i++)
        assert_int_equal(s->deltas_of_kind[i], c.counts.deltas[i]);
    assert_int_equal(s->deltas, c.deltas);
    assert_int_equal(s->delta_bytes, c.counts.delta_bytes);
    assert_int_equal(s->images, c.counts.images);
}

/* One change of a page of `size` bytes, of some kind. */
static void change(struct qallow_txn *txn, uint64_t page, uint64_t size, uint64_t *random)
{
    static uint8_t bytes[2 << 20];
    uint64_t at = next_random(random) % size, n = 1 + next_random(random) % (size - at);

    assert_ok(qallow_txn_read(txn, page, 0, bytes, size));
    switch (next_random(random) % 5) {
    case 0: /* every third byte */
        for (uint64_t i = at; i < at + n && i < at + 3000; i += 3)
            bytes[i]++;
        break;
    case 1:
        memset(bytes + at, 0, n);
        break;
    case 2: /* rotated */
        assert_ok(qallow_page_splice(txn, page, 0, size, bytes + at, size - at));
        assert_ok(qallow_page_splice(txn, page, size - at, 0, bytes, at));
        return;
    default:
        for (uint64_t i = at; i < at + n && i < at + 200; i++)
            bytes[i] = (uint8_t)next_random(random);
    }
    assert_ok(qallow_page_write(txn, page, 0, bytes, size));
}

/* So many pieces that the page gets an image. */
static void shatter(struct qallow_store *store, uint64_t page)
{
    struct qallow_txn *txn;
    uint8_t byte;
    assert_ok(qallow_begin(store, &txn));
    for (uint64_t at = 0; at < 4096; at += 64) {
        assert_ok(qallow_txn_read(txn, page, at, &byte, 1));
        byte++;
        assert_ok(qallow_page_write(txn, page, at, &byte, 1));
    }
    assert_ok(qallow_commit(txn, NULL));
}

static void test_counts_are_those_of_the_log(void **state)
{
    enum { PAGES = 3, STEPS = 200 };
    static const uint64_t sizes[PAGES] = {4096, 100000, 2 << 20}; /* the last in several parts */
    static const enum qallow_kind kinds[PAGES] = {QALLOW_RAW, QALLOW_FILE, QALLOW_TENSOR};
    static uint8_t bytes[2 << 20];
    struct qallow_store *store = open_new("random.tlog"), *follower;
    uint64_t random = seed;
    struct qallow_stats s, of_follower;
    struct qallow_txn *txn;
    uint64_t pages[PAGES];

    assert_ok(qallow_open(path("random.tlog"), NULL, &follower));
    for (unsigned i = 0; i < STEPS; i++) {
        unsigned p = i < PAGES ? i : i % 20 == 0 ? 2 : (unsigned)(next_random(&random) % 2);
        assert_ok(qallow_begin(store, &txn));
        if (i < PAGES) {
            for (uint64_t k = 0; k < sizes[p]; k++)
                bytes[k] = (uint8_t)next_random(&random);
            pages[p] = create_page(txn, (const char *[]){"a", "b", "c"}[p], 0, kinds[p]);
            assert_ok(qallow_page_write(txn, pages[p], 0, bytes, sizes[p]));
        } else {
            change(txn, pages[p], sizes[p], &random);
        }
        assert_ok(qallow_commit(txn, NULL));
    }
    shatter(store, pages[0]);
    s = stats_of(store);
    compare_with_log(store, &s);
    assert_int_equal(s.commit.count, s.last_epoch);
    assert_int_equal(s.apply_delta.count, s.deltas);
    assert_true(s.operations[QALLOW_ENCODING_COPY] > 0); /* the history has seen something */
    assert_true(s.images > 0);

    /* A follower counts what it takes in. */
    assert_ok(qallow_sync(store));
    assert_ok(qallow_refresh(follower, NULL));
    of_follower = stats_of(follower);
    assert_memory_equal(of_follower.operations, s.operations, sizeof s.operations);
    assert_int_equal(of_follower.deltas, s.deltas);
    assert_int_equal(of_follower.apply_delta.count, s.deltas);
    assert_int_equal(of_follower.commit.count, 0);
    assert_ok(qallow_close(follower));
    assert_ok(qallow_close(store));
}

/* --- beside commits --- */

enum { COMMITS = 300 };

struct committer {
    struct qallow_store *store;
    uint64_t page;
    atomic_int done;
};

static void *commit_many(void *context)
{
    struct committer *c = context;
    for (uint64_t i = 0; i < COMMITS; i++) {
        struct qallow_txn *txn;
        if (qallow_begin(c->store, &txn) != 0 ||
            qallow_page_write(txn, c->page, 0, &i, sizeof i) != 0 || qallow_commit(txn, NULL) != 0)
            break;
    }
    atomic_store(&c->done, 1);
    return NULL;
}

/* Every look sees whole commits: each but the first has changed one page in one epoch. One may have
 * landed that has not returned yet, since it waits for the disk. */
static void test_beside_commits(void **state)
{
    struct committer c = {.store = open_new("beside.tlog")};
    struct qallow_stats s;
    pthread_t thread;

    c.page = make_pages(c.store);
    write_at(c.store, c.page, 0, 8, 9); /* bytes that no number has */
    assert_ok(qallow_stats_reset(c.store));
    assert_int_equal(pthread_create(&thread, NULL, commit_many, &c), 0);
    while (!atomic_load(&c.done)) {
        s = stats_of(c.store);
        assert_in_range(s.deltas, s.commit.count, s.commit.count + 1);
        assert_int_equal(s.apply.count, s.deltas);
        assert_int_equal(s.deltas_of_kind[QALLOW_RAW], s.deltas);
        assert_int_equal(s.last_epoch, s.deltas + 2);
    }
    pthread_join(thread, NULL);
    s = stats_of(c.store);
    assert_int_equal(s.commit.count, COMMITS);
    assert_ok(qallow_close(c.store));
}

/* --- times, by a clock that is moved --- */

static int64_t clock_now;
static int64_t read_clock(void *context) { return clock_now; }
static const struct qr_os moved_clock = {.version = 1, .now_ns = read_clock};

/* A body of `deltas` deltas that takes so long. */
static void body(struct qr_meter *meter, uint64_t deltas, int open, int64_t ns)
{
    struct qr_apply_counts counts = {.deltas = {[QALLOW_RAW] = deltas}};
    int64_t began = qr_meter_now(meter);
    clock_now += ns;
    qr_meter_body(meter, &counts, open, began);
    assert_int_equal(counts.deltas[QALLOW_RAW], 0);
}

static void test_times(void **state)
{
    struct qr_meter meter = {.os = &moved_clock};

    body(&meter, 10, 0, 1000);
    assert_int_equal(meter.delta.count, 10);
    assert_int_equal(meter.delta.max, 100);
    body(&meter, 0, 1, 5000); /* a delta over three bodies */
    body(&meter, 0, 1, 6000);
    assert_int_equal(meter.delta.count, 10);
    body(&meter, 1, 0, 7000);
    assert_int_equal(meter.delta.count, 11);
    assert_int_equal(meter.delta.max, 18000);
    body(&meter, 0, 0, 400); /* pages were created */
    body(&meter, 2, 0, 600);
    assert_int_equal(meter.delta.sum, 1000 + 18000 + 600);
    body(&meter, 1, 0, -50000); /* the clock was set back */
    assert_int_equal(meter.delta.sum, 1000 + 18000 + 600);
    assert_int_equal(meter.body.count, 7);
    assert_int_equal(meter.body.sum, 1000 + 5000 + 6000 + 7000 + 400 + 600);
    assert_int_equal(meter.body.max, 7000);
    assert_int_equal(meter.counts.deltas[QALLOW_RAW], 14);

    int64_t began = qr_meter_now(&meter);
    qr_meter_commit(&meter, began, clock_now + 123);
    assert_true(meter.commit.count == 1 && meter.commit.sum == 123);
    qr_meter_reset(&meter);
    assert_true(meter.commit.count == 0 && meter.body.count == 0 && meter.os == &moved_clock);
}

const struct CMUnitTest stats_tests[] = {
    cmocka_unit_test(test_scripted),
    cmocka_unit_test(test_not_counted),
    cmocka_unit_test(test_reset),
    cmocka_unit_test(test_shorter_struct),
    cmocka_unit_test(test_counts_are_those_of_the_log),
    cmocka_unit_test(test_beside_commits),
    cmocka_unit_test(test_times),
};
const size_t stats_test_count = sizeof stats_tests / sizeof *stats_tests;
