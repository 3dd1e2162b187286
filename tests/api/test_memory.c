/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What memory must not change: the log has the same bytes however much content may be held, and a
 * call that fails for want of memory leaves the transaction as it was.
 */
#include "runtime/os.h"
#include "tests/api/support.h"

enum { PAGES = 4, SIZE = 20000, COMMITS = 60 };

static struct qallow_store *open_with(const char *name, uint64_t memory)
{
    static const uint8_t uuid[16] = "the same uuid";
    struct qallow_options options = QALLOW_OPTIONS_INIT;
    struct qallow_store *store;
    options.writable = options.create = 1;
    options.logical_clock = 1;
    options.sync = QALLOW_SYNC_NONE;
    options.max_memory = memory;
    options.uuid = uuid;
    assert_ok(qallow_open(path(name), &options, &store));
    return store;
}

/* Bytes that differ from what was there altogether, or here and there, or not at all. */
static void random_write(struct qallow_txn *txn, uint64_t page, uint8_t *content, uint64_t *random)
{
    size_t at = next_random(random) % SIZE, n = next_random(random) % 300;
    unsigned every = (unsigned)(next_random(random) % 60);
    n = n < SIZE - at ? n : SIZE - at;
    for (size_t i = 0; i < n; i++)
        if (every < 2 || next_random(random) % every == 0)
            content[at + i] = (uint8_t)next_random(random);
    assert_ok(qallow_page_write(txn, page, at, content + at, n));
}

static void write_history(const char *name, uint64_t memory)
{
    static uint8_t content[PAGES][SIZE];
    struct qallow_store *store = open_with(name, memory);
    uint64_t pages[PAGES], random = seed;
    struct qallow_txn *txn;
    char page_name[2] = "a";

    memset(content, 0, sizeof content);
    assert_ok(qallow_begin(store, &txn));
    for (int i = 0; i < PAGES; i++, page_name[0]++) {
        pages[i] = create_page(txn, page_name, 0, QALLOW_RAW);
        assert_ok(qallow_page_write(txn, pages[i], 0, content[i], SIZE));
    }
    assert_ok(qallow_commit(txn, NULL));
    for (int commit = 0; commit < COMMITS; commit++) {
        assert_ok(qallow_begin(store, &txn));
        for (size_t n = next_random(&random) % 20; n > 0; n--) {
            size_t i = next_random(&random) % PAGES;
            random_write(txn, pages[i], content[i], &random);
        }
        assert_ok(qallow_commit(txn, NULL));
    }
    assert_ok(qallow_verify(store, 1));
    assert_ok(qallow_close(store));
}

static uint8_t *read_file(const char *name, size_t *size)
{
    FILE *file = fopen(path(name), "rb");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = malloc(*size);
    assert_int_equal(fread(bytes, 1, *size, file), *size);
    fclose(file);
    return bytes;
}

/* Nothing may be held, some pages, all of them. */
static void test_log_does_not_depend_on_memory(void **state)
{
    static const struct {
        const char *name;
        uint64_t memory;
    } logs[] = {{"none.tlog", 1}, {"some.tlog", 2 * SIZE + 1}, {"all.tlog", PAGES * SIZE}};
    uint8_t *bytes[3];
    size_t sizes[3];

    for (int i = 0; i < 3; i++) {
        write_history(logs[i].name, logs[i].memory);
        bytes[i] = read_file(logs[i].name, &sizes[i]);
    }
    for (int i = 1; i < 3; i++) {
        assert_int_equal(sizes[i], sizes[0]);
        assert_memory_equal(bytes[i], bytes[0], sizes[0]);
    }
    for (int i = 0; i < 3; i++)
        free(bytes[i]);
}

static long allocations_left;
static int fail_at_zero(size_t size) { return allocations_left-- == 0; }

/* Many small writes, then a change of the size, during which one allocation after the other fails:
 * the writes are in the transaction all the same. */
static void test_failed_change_keeps_writes(void **state)
{
    enum { WRITES = 20 };
    int rc = QALLOW_E_NO_MEMORY;
    for (long n = 0; rc != 0; n++) {
        struct qallow_store *store = open_new("kept.tlog");
        uint8_t bytes[WRITES * 100] = {0}, found[sizeof bytes + 1];
        uint64_t page = store_with_page(store, bytes, sizeof bytes);
        struct qallow_txn *txn;

        assert_ok(qallow_begin(store, &txn));
        for (size_t i = 0; i < WRITES; i++) {
            bytes[i * 100 + 50] = (uint8_t)(i + 1);
            assert_ok(qallow_page_write(txn, page, i * 100 + 50, bytes + i * 100 + 50, 1));
        }
        allocations_left = n;
        qr_set_allocation_hook(fail_at_zero);
        rc = qallow_page_splice(txn, page, sizeof bytes, 0, "+", 1);
        qr_set_allocation_hook(NULL);
        assert_true(rc == 0 || rc == QALLOW_E_NO_MEMORY);
        assert_true(n < 1000);
        assert_ok(qallow_commit(txn, NULL));
        assert_ok(qallow_page_read(qallow_newest(store), page, 0, found, sizeof bytes));
        assert_memory_equal(found, bytes, sizeof bytes);
        assert_ok(qallow_close(store));
        assert_true(n > 0 || rc != 0); /* something did fail */
    }
}

static uint64_t held_bytes(struct qallow_store *store)
{
    struct qallow_stats stats = QALLOW_STATS_INIT;
    assert_ok(qallow_stats_get(store, &stats));
    return stats.held_bytes;
}

static void write_number(struct qallow_store *store, uint64_t page, uint64_t at, uint64_t number)
{
    struct qallow_txn *txn;
    assert_ok(qallow_begin(store, &txn));
    assert_ok(qallow_page_write(txn, page, at, &number, sizeof number));
    assert_ok(qallow_commit(txn, NULL));
}

/* A large page is read as a whole when its small writes have cost as much. */
static void test_large_page_is_held_later(void **state)
{
    enum { LARGE = 8 << 20, SMALL = 1000 };
    struct qallow_store *store = open_new("large.tlog");
    uint8_t *bytes = calloc(1, LARGE), *found = malloc(LARGE);
    uint64_t page = store_with_page(store, bytes, LARGE), writes = 0;

    assert_int_equal(held_bytes(store), 0);
    do {
        uint64_t at = writes * SMALL, number = ++writes;
        write_number(store, page, at, number);
        memcpy(bytes + at, &number, sizeof number);
        assert_true(writes < 100);
    } while (held_bytes(store) == 0);
    assert_int_equal(held_bytes(store), LARGE);
    assert_true(writes > LARGE >> 20); /* each has read a frame at most */
    assert_ok(qallow_page_read(qallow_newest(store), page, 0, found, LARGE));
    assert_memory_equal(found, bytes, LARGE);
    assert_ok(qallow_close(store));
    free(bytes);
    free(found);
}

/* A hole takes no memory, and a large page is not copied because its size changes. */
static void test_large_page_that_grows_is_let_go(void **state)
{
    enum { SMALL = 1000 };
    struct qallow_store *store = open_new("hole.tlog");
    uint8_t bytes[SMALL] = "before the hole", found[SMALL];
    uint64_t page = store_with_page(store, bytes, SMALL);
    struct qallow_txn *txn;

    assert_int_equal(held_bytes(store), SMALL);
    assert_ok(qallow_begin(store, &txn));
    assert_ok(qallow_page_resize(txn, page, UINT64_C(256) << 20));
    assert_ok(qallow_commit(txn, NULL));
    assert_int_equal(held_bytes(store), 0);
    assert_ok(qallow_page_read(qallow_newest(store), page, 0, found, SMALL));
    assert_memory_equal(found, bytes, SMALL);
    assert_ok(qallow_close(store));
}

const struct CMUnitTest memory_tests[] = {
    cmocka_unit_test(test_large_page_that_grows_is_let_go),
    cmocka_unit_test(test_large_page_is_held_later),
    cmocka_unit_test(test_log_does_not_depend_on_memory),
    cmocka_unit_test(test_failed_change_keeps_writes),
};
const size_t memory_test_count = sizeof memory_tests / sizeof *memory_tests;
