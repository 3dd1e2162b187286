/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads whose commits share a sync, and a sync that fails.
 *
 * The ordered section is a mutex, as in the C API. The sync of the log is ours: it counts, waits
 * until some commits have landed behind it if it is told to, and fails at a chosen time. Whatever
 * happens, an acknowledged epoch must be there when the log is opened again, and no commit may be
 * acknowledged that a failed sync was for.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/batch.h"
#include "runtime/store_internal.h"

#include <cmocka.h>

enum { THREADS = 8, COMMITS = 40 };

static struct qr_os os;
static _Atomic int syncs, fail_at; /* 0: never */
static char log_path[4096];
static int attempt; /* names of pages differ */

static int counted_sync(void *context, int file)
{
    int number = atomic_fetch_add(&syncs, 1) + 1;
    if (number == fail_at)
        return -EIO;
    return qr_os_posix()->sync(context, file);
}

static struct qr_store *open_store(void)
{
    struct qr_store *store;
    const struct qr_store_options options = {.writable = 1, .create = 1, .os = &os};
    if (qr_store_open(log_path, &options, &store) < 0)
        fail_msg("%s", qallow_error_detail());
    return store;
}

struct committer {
    struct qr_store *store;
    pthread_mutex_t *ordered;
    pthread_t id;
    unsigned number;
    uint64_t acknowledged; /* the last epoch */
    int refused;
};

/* cmocka's assertions are for its own thread. */
static void require_ok(int rc)
{
    if (rc < 0) {
        fprintf(stderr, "%d: %s\n", rc, qallow_error_detail());
        abort();
    }
}

static int land(struct committer *c, unsigned i, uint64_t *epoch)
{
    const struct qr_attributes attributes = {.mode = 0644};
    struct qr_batch *batch;
    struct qr_txn *txn;
    char name[32];
    int n = snprintf(name, sizeof name, "%d-%u-%u", attempt, c->number, i);
    require_ok(qr_batch_create(0, &batch));
    pthread_mutex_lock(c->ordered);
    int rc = qr_txn_begin(c->store, &txn);
    if (rc == 0) {
        require_ok(qr_batch_page_create(batch, qr_txn_new_id(txn), 0, name, (size_t)n, QR_KIND_RAW,
                                        &attributes));
        require_ok(qr_txn_append(txn, batch));
        rc = qr_txn_land(txn, epoch);
    }
    pthread_mutex_unlock(c->ordered);
    qr_batch_destroy(batch);
    return rc;
}

static void *commit(void *context)
{
    struct committer *c = context;
    for (unsigned i = 0; i < COMMITS && !c->refused; i++) {
        uint64_t epoch;
        int rc = land(c, i, &epoch);
        if (rc == 0)
            rc = qr_store_settle(c->store, epoch);
        if (rc == 0) {
            c->acknowledged = epoch;
            continue;
        }
        c->refused = 1;
        pthread_mutex_lock(c->ordered);
        qr_store_fall_back(c->store);
        pthread_mutex_unlock(c->ordered);
    }
    return NULL;
}

/* The number of commits that were acknowledged last, and by whom, in *refused. */
static uint64_t run_threads(struct qr_store *store, unsigned count, int *refused)
{
    struct committer committers[THREADS];
    pthread_mutex_t ordered = PTHREAD_MUTEX_INITIALIZER;
    uint64_t newest = 0;
    *refused = 0;
    for (unsigned i = 0; i < count; i++) {
        committers[i] = (struct committer){.store = store, .ordered = &ordered, .number = i};
        assert_int_equal(pthread_create(&committers[i].id, NULL, commit, &committers[i]), 0);
    }
    for (unsigned i = 0; i < count; i++) {
        pthread_join(committers[i].id, NULL);
        if (committers[i].acknowledged > newest)
            newest = committers[i].acknowledged;
        *refused += committers[i].refused;
    }
    return newest;
}

static uint64_t epoch_of(struct qr_store *store) { return qr_state_epoch(qr_store_state(store)); }

static int begin(void **state)
{
    const char *directory = getenv("TMPDIR");
    os = *qr_os_posix();
    os.sync = counted_sync;
    fail_at = 0;
    snprintf(log_path, sizeof log_path, "%s/qallow-durable-XXXXXX", directory ? directory : "/tmp");
    int file = mkstemp(log_path);
    if (file >= 0)
        close(file);
    return file < 0 || remove(log_path);
}

static int end(void **state)
{
    static const char *const names[] = {"", ".lock", "-index", ".bad"};
    char path[4200];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s%s", log_path, names[i]);
        remove(path);
    }
    return 0;
}

static void test_shared(void **state)
{
    struct qr_store *store = open_store();
    int refused, before = syncs;
    uint64_t newest = run_threads(store, THREADS, &refused);
    assert_int_equal(refused, 0);
    assert_int_equal(newest, THREADS * COMMITS);
    assert_int_equal(epoch_of(store), newest);
    assert_int_equal(qr_store_durable_epoch(store), newest);
    assert_true(syncs - before <= THREADS * COMMITS);
    assert_int_equal(qr_store_close(store), 0);
    store = open_store();
    assert_int_equal(epoch_of(store), newest);
    assert_int_equal(qr_store_close(store), 0);
}

/* All of whom wait fail, the store goes back to what is durable and stays there. */
static void test_failed(void **state)
{
    for (int at = 1; at <= 12; at++) {
        struct qr_store *store = open_store();
        uint64_t before = epoch_of(store);
        int refused;
        syncs = 0;
        attempt = at;
        fail_at = at;
        uint64_t newest = run_threads(store, THREADS, &refused);
        assert_int_equal(refused, THREADS); /* those that came later find it read-only */
        newest = newest > before ? newest : before;
        assert_int_equal(epoch_of(store), qr_store_durable_epoch(store));
        assert_int_equal(epoch_of(store), newest);
        fail_at = 0;
        assert_int_equal(qr_store_sync(store), QALLOW_E_STATE);
        assert_int_equal(qr_store_close(store), QALLOW_E_STATE);
        store = open_store();
        assert_true(epoch_of(store) >= newest); /* what is in the file may have come through */
        assert_int_equal(qr_store_close(store), 0);
    }
}

/* One thread: as before there were others. */
static void test_alone(void **state)
{
    struct qr_store *store = open_store();
    int refused, before = syncs;
    assert_int_equal(run_threads(store, 1, &refused), COMMITS);
    assert_int_equal(syncs - before, COMMITS);
    assert_int_equal(qr_store_close(store), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_shared, begin, end),
        cmocka_unit_test_setup_teardown(test_failed, begin, end),
        cmocka_unit_test_setup_teardown(test_alone, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
