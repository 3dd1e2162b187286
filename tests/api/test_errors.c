/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every typed error of the C API, provoked; and every allocation made to fail once. What is asked
 * each time is that the store is as it was before.
 */
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/os.h"
#include "tests/api/relink.h"
#include "tests/api/support.h"

static void test_errors_of_reading(void **state)
{
    struct qallow_store *store = open_new("errors.tlog");
    struct qallow_page info = QALLOW_PAGE_INIT;
    struct qallow_view *newest = qallow_newest(store);
    uint64_t page = store_with_page(store, "12345", 5);
    char bytes[8];

    assert_result(qallow_page_read(newest, 99, 0, bytes, 1), QALLOW_E_PAGE_NOT_FOUND);
    assert_result(qallow_page_get(newest, 99, &info), QALLOW_E_PAGE_NOT_FOUND);
    assert_result(qallow_page_read(newest, page, 3, bytes, 3), QALLOW_E_LIMIT);
    assert_result(qallow_page_read(newest, page, UINT64_MAX, bytes, 2), QALLOW_E_LIMIT);
    assert_result(qallow_page_path(newest, page, bytes, 4, NULL), QALLOW_E_LIMIT);
    assert_ok(qallow_close(store));
}

static void test_errors_of_writing(void **state)
{
    struct qallow_store *store = open_new("errors.tlog");
    struct qallow_txn *txn, *second;
    uint64_t page = store_with_page(store, "12345", 5);
    char bytes[8];

    assert_ok(qallow_begin(store, &txn));
    assert_ok(qallow_begin(store, &second));
    assert_ok(qallow_label(store, "now", 0)); /* nothing of it is there yet */
    assert_ok(qallow_page_write(txn, page, 0, "x", 1));
    assert_result(qallow_page_write(second, page, 0, "x", 1), QALLOW_E_BUSY);
    assert_result(qallow_txn_read(second, page, 0, bytes, 1), QALLOW_E_BUSY);
    qallow_abort(second);
    assert_result(qallow_page_write(txn, 99, 0, "x", 1), QALLOW_E_PAGE_NOT_FOUND);
    assert_result(qallow_page_write(txn, page, 6, "x", 1), QALLOW_E_INVALID_DELTA);
    assert_result(qallow_page_splice(txn, page, 2, 4, "x", 1), QALLOW_E_INVALID_DELTA);
    assert_result(qallow_page_splice(txn, page, 2, UINT64_MAX, "x", 1), QALLOW_E_INVALID_DELTA);
    assert_result(qallow_page_resize(txn, page, ((uint64_t)1 << 48) + 1), QALLOW_E_LIMIT);
    assert_result(qallow_page_resize(txn, page, UINT64_MAX), QALLOW_E_LIMIT);
    assert_ok(qallow_page_free(txn, page));
    assert_result(qallow_page_write(txn, page, 0, "x", 1), QALLOW_E_PAGE_NOT_FOUND);
    assert_result(qallow_page_free(txn, page), QALLOW_E_PAGE_NOT_FOUND);
    qallow_abort(txn);
    assert_ok(qallow_page_read(qallow_newest(store), page, 0, bytes, 5)); /* nothing happened */
    assert_ok(qallow_close(store));
}

static void test_errors_of_creating(void **state)
{
    static char long_name[5000];
    static const struct {
        struct qallow_page_options options;
        int result;
    } cases[] = {
        {{.name = "page"}, QALLOW_E_PAGE_EXISTS},
        {{.name = "g", .location = QALLOW_GPU}, QALLOW_E_UNSUPPORTED_LOCATION},
        {{.name = "u", .location = QALLOW_UNIFIED}, QALLOW_E_UNSUPPORTED_LOCATION},
        {{.name = "l", .location = 3}, QALLOW_E_ARGUMENT},
        {{.name = "p", .parent = 99}, QALLOW_E_PAGE_NOT_FOUND},
        {{.name = long_name}, QALLOW_E_LIMIT},
        {{.name = "a/b"}, QALLOW_E_ARGUMENT},
        {{.name = ""}, QALLOW_E_ARGUMENT},
        {{.name = NULL}, QALLOW_E_ARGUMENT},
        {{.name = "c", .kind = QALLOW_CONFIG}, QALLOW_E_ARGUMENT},
        {{.name = "k", .kind = 7}, QALLOW_E_ARGUMENT},
        {{.name = "m", .mode = 010000}, QALLOW_E_ARGUMENT},
        {{.name = "x", .extra = long_name, .extra_length = 5000}, QALLOW_E_LIMIT},
        {{.name = "x", .extra_length = 1}, QALLOW_E_ARGUMENT},
        {{.name = "r", .reserved = {1}}, QALLOW_E_ARGUMENT},
    };
    struct qallow_store *store = open_new("errors.tlog");
    struct qallow_page_options options;
    struct qallow_txn *txn;
    uint64_t other = 0;

    memset(long_name, 'n', sizeof long_name - 1);
    store_with_page(store, "12345", 5);
    assert_ok(qallow_begin(store, &txn));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        options = cases[i].options;
        options.size = sizeof options;
        assert_result(qallow_page_create(txn, &options, &other), cases[i].result);
    }
    options.size = 4;
    assert_result(qallow_page_create(txn, &options, &other), QALLOW_E_ARGUMENT);
    assert_result(qallow_page_create(txn, NULL, &other), QALLOW_E_ARGUMENT);
    assert_int_equal(other, 0);
    qallow_abort(txn);
    assert_ok(qallow_close(store));
}

/* What a transaction's pages say about each other is found at commit, and nothing happens. */
static void test_errors_at_commit(void **state)
{
    struct qallow_store *store = open_new("commit.tlog");
    struct qallow_stats before = QALLOW_STATS_INIT, after = QALLOW_STATS_INIT;
    struct qallow_txn *txn;
    uint64_t dir, inner, epoch = 77;
    int rc;

    assert_ok(qallow_begin(store, &txn));
    dir = create_page(txn, "dir", 0, QALLOW_DIRECTORY);
    inner = create_page(txn, "inner", dir, QALLOW_DIRECTORY);
    assert_ok(qallow_commit(txn, &epoch));
    assert_ok(qallow_stats_get(store, &before));

    assert_ok(qallow_begin(store, &txn));
    assert_ok(qallow_page_free(txn, dir)); /* with a page in it */
    assert_result(qallow_commit(txn, &epoch), QALLOW_E_INVALID_DELTA);

    assert_ok(qallow_begin(store, &txn));
    assert_ok(qallow_page_rename(txn, dir, inner, "below itself"));
    assert_result(qallow_commit(txn, &epoch), QALLOW_E_INVALID_DELTA);

    assert_ok(qallow_begin(store, &txn));
    create_page(txn, "twice", 0, QALLOW_RAW);
    create_page(txn, "twice", 0, QALLOW_RAW);
    rc = qallow_commit(txn, &epoch);
    assert_int_equal(rc, QALLOW_E_PAGE_EXISTS);

    assert_int_equal(epoch, 1);
    assert_ok(qallow_stats_get(store, &after));
    assert_memory_equal(&before, &after, sizeof before);
    assert_ok(qallow_begin(store, &txn)); /* to where it is: nothing */
    assert_ok(qallow_page_rename(txn, dir, 0, "dir"));
    assert_ok(qallow_commit(txn, &epoch));
    assert_int_equal(epoch, 1);

    assert_ok(qallow_begin(store, &txn)); /* and it goes on */
    assert_ok(qallow_page_rename(txn, dir, 0, "elsewhere")); /* there, twice, and back */
    assert_ok(qallow_page_rename(txn, dir, 0, "elsewhere"));
    assert_ok(qallow_page_rename(txn, dir, 0, "dir"));
    create_page(txn, "fine", dir, QALLOW_RAW);
    assert_ok(qallow_commit(txn, &epoch));
    assert_int_equal(epoch, 2);
    assert_ok(qallow_verify(store, 1));
    assert_ok(qallow_close(store));
}

static void test_errors_of_open(void **state)
{
    struct qallow_options options = QALLOW_OPTIONS_INIT;
    struct qallow_store *store = NULL;
    FILE *file;

    assert_result(qallow_open(path("missing.tlog"), NULL, &store), QALLOW_E_NO_INPUT);
    assert_null(store);
    options.writable = 1;
    assert_result(qallow_open(path("missing.tlog"), &options, &store), QALLOW_E_NO_INPUT);
    assert_result(qallow_open(NULL, &options, &store), QALLOW_E_ARGUMENT);
    assert_result(qallow_open(path("x"), &options, NULL), QALLOW_E_ARGUMENT);
    options.create = 1;
    assert_result(qallow_open(path("no/such/dir.tlog"), &options, &store), QALLOW_E_CANNOT_CREATE);
    options.reserved[3] = 1;
    assert_result(qallow_open(path("x.tlog"), &options, &store), QALLOW_E_ARGUMENT);
    options.reserved[3] = 0;
    options.size = sizeof options - 8;
    assert_result(qallow_open(path("x.tlog"), &options, &store), QALLOW_E_ARGUMENT);
    assert_int_equal(access(path("x.tlog"), F_OK), -1);

    file = fopen(path("foreign.tlog"), "w");
    for (int i = 0; i < 3000; i++)
        fputs("not a log\n", file);
    fclose(file);
    assert_result(qallow_open(path("foreign.tlog"), NULL, &store), QALLOW_E_NOT_A_LOG);
    assert_null(store);
    assert_int_equal(qallow_close(NULL), 0);
    qallow_abort(NULL);
    qallow_view_destroy(NULL);
    assert_null(qallow_newest(NULL));
}

static void test_busy(void **state)
{
    struct qallow_store *store = open_new("busy.tlog");
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        struct qallow_options options = QALLOW_OPTIONS_INIT;
        struct qallow_store *other;
        char owner[32];
        options.writable = 1;
        snprintf(owner, sizeof owner, "%d", (int)getppid());
        int ok = qallow_open(path("busy.tlog"), &options, &other) == QALLOW_E_BUSY &&
                 strstr(qallow_error_detail(), owner) != NULL;
        _exit(ok ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_ok(qallow_close(store));
}

/* A write that the system refuses (a limit on file sizes stands for a broken disk). */
static void test_io_error(void **state)
{
    struct qallow_store *store = open_new("io.tlog");
    struct qallow_options options = QALLOW_OPTIONS_INIT;
    struct rlimit limit, former;
    struct qallow_txn *txn;
    uint64_t page = store_with_page(store, "kept", 4), epoch = 0;
    uint8_t *bytes = malloc(4 << 20);
    char kept[4];
    struct stat st;

    for (size_t i = 0; i < 4 << 20; i++)
        bytes[i] = (uint8_t)(i * 2654435761u >> 13);
    assert_ok(qallow_sync(store));
    assert_int_equal(stat(path("io.tlog"), &st), 0);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &former), 0);
    limit = former;
    limit.rlim_cur = (rlim_t)st.st_size + 4096;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);

    assert_ok(qallow_begin(store, &txn));
    assert_ok(qallow_page_write(txn, page, 0, bytes, 4 << 20));
    int rc = qallow_commit(txn, &epoch);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &former), 0);
    assert_int_equal(rc, QALLOW_E_IO);
    assert_non_null(strstr(qallow_error_detail(), "io.tlog"));
    assert_int_equal(epoch, 0);
    assert_ok(qallow_page_read(qallow_newest(store), page, 0, kept, 4)); /* the former state */
    assert_memory_equal(kept, "kept", 4);
    qallow_close(store);

    options.writable = 1;
    assert_ok(qallow_open(path("io.tlog"), &options, &store));
    assert_ok(qallow_page_read(qallow_newest(store), page, 0, kept, 4));
    assert_memory_equal(kept, "kept", 4);
    assert_ok(qallow_verify(store, 1));
    assert_ok(qallow_close(store));
    free(bytes);
}

/* A flipped bit in content that had been durable. */
static void test_damaged(void **state)
{
    enum { SIZE = 300000 };
    struct qallow_store *store = open_new("damaged.tlog");
    uint8_t *bytes = malloc(SIZE);
    uint64_t random = seed, page;

    for (size_t i = 0; i < SIZE; i++)
        bytes[i] = (uint8_t)next_random(&random);
    page = store_with_page(store, bytes, SIZE);
    assert_ok(qallow_sync(store));
    FILE *file = fopen(path("damaged.tlog"), "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, 8192 + 1000, SEEK_SET), 0);
    int byte = fgetc(file);
    assert_int_equal(fseek(file, 8192 + 1000, SEEK_SET), 0);
    fputc(byte ^ 4, file);
    assert_int_equal(fclose(file), 0);

    assert_result(qallow_page_read(qallow_newest(store), page, 0, bytes, SIZE), QALLOW_E_DAMAGED);
    assert_result(qallow_verify(store, 1), QALLOW_E_DAMAGED);
    qallow_close(store);
    free(bytes);
}

/* A commit whose frame is right and that means nothing: the log is refused. */
static void test_serialization(void **state)
{
    struct qallow_store *store = open_new("hostile.tlog");
    char index[600];

    store_with_page(store, "content", 7);
    assert_ok(qallow_close(store));
    snprintf(index, sizeof index, "%s-index", path("hostile.tlog"));
    unlink(index);
    relink_with_senseless_commit(path("hostile.tlog"));
    assert_result(qallow_open(path("hostile.tlog"), NULL, &store), QALLOW_E_SERIALIZATION);
    assert_null(store);
}

/* --- every allocation fails once --- */

static atomic_long allocations_left;

static int fail_at_zero(size_t size) { return atomic_fetch_sub(&allocations_left, 1) == 0; }

/* A little of everything; the first failure ends it. */
static int scripted(struct qallow_store **store, uint64_t *epoch)
{
    struct qallow_options options = QALLOW_OPTIONS_INIT;
    struct qallow_page_options page = QALLOW_PAGE_OPTIONS_INIT;
    struct qallow_txn *txn = NULL;
    struct qallow_view *view = NULL;
    uint64_t id;
    char bytes[3000] = "abc";
    int rc;

    options.writable = 1;
    options.sync = QALLOW_SYNC_NONE;
    rc = qallow_open(path("memory.tlog"), &options, store);
    if (rc == 0)
        rc = qallow_begin(*store, &txn);
    page.name = "new";
    if (rc == 0)
        rc = qallow_page_create(txn, &page, &id);
    if (rc == 0)
        rc = qallow_page_write(txn, id, 0, bytes, sizeof bytes);
    if (rc == 0)
        rc = qallow_page_splice(txn, id, 100, 50, "12", 2);
    if (rc < 0) {
        qallow_abort(txn);
        return rc;
    }
    rc = qallow_commit(txn, epoch);
    if (rc == 0)
        rc = qallow_view_at(*store, 1, &view);
    if (rc == 0)
        rc = qallow_page_read(view, 1, 0, bytes, 4);
    qallow_view_destroy(view);
    return rc;
}

static void test_allocation_failures(void **state)
{
    int rc = QALLOW_E_NO_MEMORY;

    for (long n = 0; rc != 0; n++) {
        struct qallow_store *store = open_new("memory.tlog");
        uint64_t epoch = 0, page = store_with_page(store, "base", 4), newest;
        char bytes[4];

        assert_ok(qallow_close(store));
        store = NULL;
        atomic_store(&allocations_left, n);
        qr_set_allocation_hook(fail_at_zero);
        rc = scripted(&store, &epoch);
        qr_set_allocation_hook(NULL);
        if (rc != 0 && rc != QALLOW_E_NO_MEMORY)
            fail_msg("allocation %ld: %d: %s", n, rc, qallow_error_detail());
        qallow_close(store);

        assert_ok(qallow_open(path("memory.tlog"), NULL, &store));
        newest = qallow_view_epoch(qallow_newest(store));
        assert_true(newest == (epoch ? 2 : 1) || newest == 2); /* never less than acknowledged */
        assert_ok(qallow_page_read(qallow_newest(store), page, 0, bytes, 4));
        assert_memory_equal(bytes, "base", 4);
        assert_ok(qallow_verify(store, 1));
        assert_ok(qallow_close(store));
        assert_true(n < 100000);
    }
}

const struct CMUnitTest error_tests[] = {
    cmocka_unit_test(test_errors_of_reading),
    cmocka_unit_test(test_errors_of_writing),
    cmocka_unit_test(test_errors_of_creating),
    cmocka_unit_test(test_errors_at_commit),
    cmocka_unit_test(test_errors_of_open),
    cmocka_unit_test(test_busy),
    cmocka_unit_test(test_io_error),
    cmocka_unit_test(test_damaged),
    cmocka_unit_test(test_serialization),
    cmocka_unit_test(test_allocation_failures),
};
const size_t error_test_count = sizeof error_tests / sizeof *error_tests;
