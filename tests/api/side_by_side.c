/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What threads of a store must not do to each other when something fails half-way: the sync that
 * others wait for, a transaction whose frames were in the file already; and pages that come into
 * memory while somebody else takes them. Where two threads have to meet, one waits in the sync of
 * the log, which is ours here.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>

#include "runtime/api_transaction.h"
#include "runtime/os.h"
#include "runtime/store_internal.h"
#include "tests/api/support.h"

enum { THREADS = 6, PAGES = 48, SIZE = 16 << 10, ROUNDS = 8 };

static struct qr_os os;
static _Atomic int is_armed, is_there, may_go, has_failed, writes_since;

/* The first sync after it was armed says that it is there, waits to be let go, and fails. */
static int failing_sync(void *context, int file)
{
    if (!atomic_exchange(&is_armed, 0))
        return qr_os_posix()->sync(context, file);
    is_there = 1;
    while (!may_go)
        sched_yield();
    has_failed = 1;
    return -EIO;
}

static int64_t counting_pwrite(void *context, int file, const void *bytes, size_t length,
                               uint64_t offset)
{
    writes_since += has_failed;
    return qr_os_posix()->pwrite(context, file, bytes, length, offset);
}

static struct qallow_store *open_store(const char *name, uint64_t memory, enum qallow_sync sync)
{
    struct qallow_options options = QALLOW_OPTIONS_INIT;
    struct qallow_store *store;
    options.writable = options.create = 1;
    options.max_memory = memory;
    options.sync = sync;
    assert_ok(qallow_open(path(name), &options, &store));
    return store;
}

/* A page in several pieces, and from then on a sync that can fail. */
static struct qallow_store *open_failing(const char *name, uint64_t *page)
{
    struct qallow_store *store = open_store(name, 1, QALLOW_SYNC_COMMIT);
    struct qallow_txn *txn;
    uint8_t bytes[SIZE] = {0};
    *page = store_with_page(store, bytes, sizeof bytes);
    for (size_t i = 1; i <= 12; i++) {
        assert_ok(qallow_begin(store, &txn));
        assert_ok(qallow_page_write(txn, *page, i * 100, &(uint8_t){(uint8_t)i}, 1));
        assert_ok(qallow_commit(txn, NULL));
    }
    os = *qr_os_posix();
    os.sync = failing_sync;
    os.pwrite = counting_pwrite;
    has_failed = writes_since = 0;
    store->store->log->os = &os;
    is_there = may_go = 0;
    return store;
}

struct call {
    struct qallow_store *store;
    uint64_t page;
    int rc;
};

/* Commits a change of the page, and a new page. */
static void *commit_change(void *context)
{
    struct call *call = context;
    struct qallow_page_options options = QALLOW_PAGE_OPTIONS_INIT;
    struct qallow_txn *txn;
    uint64_t page;
    options.name = "lost";
    call->rc = qallow_begin(call->store, &txn);
    if (call->rc == 0)
        call->rc = qallow_page_create(txn, &options, &page);
    if (call->rc == 0)
        call->rc = qallow_page_write(txn, call->page, 0, "lost", 4);
    if (call->rc == 0)
        call->rc = qallow_commit(txn, NULL);
    return NULL;
}

static void *set_label(void *context)
{
    struct call *call = context;
    call->rc = qallow_label(call->store, "label", 0);
    return NULL;
}

static void start_failing_commit(struct call *call, pthread_t *thread)
{
    is_armed = 1;
    assert_int_equal(pthread_create(thread, NULL, commit_change, call), 0);
    while (!is_there)
        sched_yield();
}

static void check_fallen_back(struct qallow_store *store, uint64_t page, uint64_t epoch)
{
    uint8_t byte = 1;
    assert_int_equal(qallow_view_epoch(qallow_newest(store)), epoch);
    assert_ok(qallow_page_read(qallow_newest(store), page, 0, &byte, 1));
    assert_int_equal(byte, 0);
    assert_int_equal(qallow_close(store), QALLOW_E_STATE);
}

/* The sync fails for a label, too, which leaves the store read-only before the commit that waits
 * for it takes it back. */
static void test_label_beside_failing_commit(void **state)
{
    uint64_t page, epoch;
    struct qallow_store *store = open_failing("label", &page);
    struct call commit = {.store = store, .page = page}, label = {.store = store};
    pthread_t threads[2];
    epoch = qallow_view_epoch(qallow_newest(store));
    start_failing_commit(&commit, &threads[0]);
    assert_int_equal(pthread_create(&threads[1], NULL, set_label, &label), 0);
    while (pthread_mutex_trylock(&store->calls) == 0) { /* until the label has it */
        pthread_mutex_unlock(&store->calls);
        sched_yield();
    }
    may_go = 1;
    for (size_t i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(commit.rc, QALLOW_E_IO);
    assert_int_equal(label.rc, QALLOW_E_IO);
    /* What the kernel may have dropped is written again, whoever was told of the failure first. */
    assert_true(writes_since > 0);
    check_fallen_back(store, page, epoch);
}

/* A transaction creates pages while another one, whose commit has failed and taken the store back,
 * has not let go of its own: the ids must differ. */
static void test_create_beside_failing_commit(void **state)
{
    uint64_t page, made, epoch;
    struct qallow_store *store = open_failing("create", &page);
    struct call commit = {.store = store, .page = page};
    struct qallow_txn *txn;
    pthread_t thread;
    uint8_t bytes[2000];
    epoch = qallow_view_epoch(qallow_newest(store));
    start_failing_commit(&commit, &thread);
    pthread_mutex_lock(&store->calls); /* keeps the commit from going on */
    may_go = 1;
    assert_result(qallow_page_read(qallow_newest(store), page, 0, bytes, sizeof bytes),
                  QALLOW_E_IO);
    qr_store_fall_back(store->store); /* as somebody who waited with it would */
    assert_ok(qallow_begin(store, &txn));
    made = create_page(txn, "other", 0, QALLOW_RAW);
    assert_true(made > page + 1);
    pthread_mutex_unlock(&store->calls);
    pthread_join(thread, NULL);
    assert_int_equal(commit.rc, QALLOW_E_IO);
    qallow_abort(txn);
    check_fallen_back(store, page, epoch);
}

/* A reader reads ahead over frames of a transaction that is then taken back; others come to stand
 * in their places. */
static void test_reading_beside_abort(void **state)
{
    uint64_t page;
    struct qallow_store *store = open_failing("ahead", &page);
    const struct qr_attributes attributes = {.mode = 0};
    struct qr_batch *batch;
    struct qr_txn *inner;
    struct qallow_txn *txn;
    struct qallow_view *view;
    uint8_t bytes[2000];
    assert_ok(qallow_snapshot(store, &view));
    assert_ok(qr_txn_begin(store->store, &inner));
    assert_ok(qr_batch_create(0, &batch));
    assert_ok(
        qr_batch_page_create(batch, qr_txn_new_id(inner), 0, "gone", 4, QR_KIND_RAW, &attributes));
    assert_ok(qr_txn_append(inner, batch));
    assert_ok(qr_txn_settle(inner, 1)); /* as for a function of a graph that then fails */
    assert_ok(qallow_page_read(view, page, 0, bytes, sizeof bytes));
    qr_txn_abort(inner);
    qr_batch_destroy(batch);
    assert_ok(qallow_begin(store, &txn));
    assert_ok(qallow_page_write(txn, page, 1000, "there", 5));
    assert_ok(qallow_commit(txn, NULL));
    assert_ok(qallow_page_read(qallow_newest(store), page, 0, bytes, sizeof bytes));
    assert_memory_equal(bytes + 1000, "there", 5);
    qallow_view_destroy(view);
    assert_ok(qallow_close(store));
}

struct writer {
    struct qallow_store *store;
    const uint64_t *pages;
    unsigned number, round;
    int rc;
};

static void *write_pages(void *context)
{
    struct writer *w = context;
    struct qallow_txn *txn;
    for (unsigned i = w->number; i < PAGES && w->rc == 0; i += THREADS) {
        uint64_t value = w->round * 1000 + i;
        w->rc = qallow_begin(w->store, &txn);
        if (w->rc == 0)
            w->rc = qallow_page_write(txn, w->pages[i], SIZE - 8, &value, 8);
        if (w->rc == 0)
            w->rc = qallow_commit(txn, NULL);
    }
    return NULL;
}

/* Pages that stand in one frame come into memory together, while others take them. */
static void test_neighbours(void **state)
{
    struct qallow_store *store = open_store("neighbours", 0, QALLOW_SYNC_NONE);
    uint64_t pages[PAGES];
    static uint8_t bytes[SIZE];
    struct qallow_txn *txn;
    assert_ok(qallow_begin(store, &txn));
    for (unsigned i = 0; i < PAGES; i++) {
        char name[8];
        snprintf(name, sizeof name, "%u", i);
        pages[i] = create_page(txn, name, 0, QALLOW_RAW);
        memset(bytes, (int)i, sizeof bytes);
        assert_ok(qallow_page_write(txn, pages[i], 0, bytes, sizeof bytes));
    }
    assert_ok(qallow_commit(txn, NULL));
    assert_ok(qallow_close(store));
    for (unsigned round = 1; round <= ROUNDS; round++) {
        struct writer writers[THREADS];
        pthread_t threads[THREADS];
        store = open_store("neighbours", 0, QALLOW_SYNC_NONE);
        for (unsigned i = 0; i < THREADS; i++) {
            writers[i] = (struct writer){store, pages, i, round, 0};
            assert_int_equal(pthread_create(&threads[i], NULL, write_pages, &writers[i]), 0);
        }
        for (unsigned i = 0; i < THREADS; i++) {
            pthread_join(threads[i], NULL);
            assert_int_equal(writers[i].rc, 0);
        }
        assert_ok(qallow_verify(store, 1));
        assert_ok(qallow_close(store));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_label_beside_failing_commit),
        cmocka_unit_test(test_create_beside_failing_commit),
        cmocka_unit_test(test_reading_beside_abort),
        cmocka_unit_test(test_neighbours),
    };
    if (support_begin())
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return support_end() || failed;
}
