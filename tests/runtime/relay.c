/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Batches handed to another thread: what arrives, and in which order, is the same as without one;
 * a failure there is told here, and nothing is taken behind it. Then a checkpoint that is large
 * enough for a thread: the same file as with one thread, also when the content comes in parts, and
 * none when the disk is full. QALLOW_SEED=N repeats a run.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "qallow/error.h"
#include "runtime/batch_internal.h"
#include "runtime/error.h"
#include "runtime/relay.h"
#include "runtime/store.h"
#include "tests/random.h"
#include "tests/runtime/ok.h"

static uint64_t seed;

static uint64_t below(uint64_t n) { return next_random(&seed) % n; }

/* --- batches --- */

struct taken {
    uint8_t *bytes;
    size_t length, count, fails_at; /* batches; fails_at 0: never */
    int has_failed;
};

static int take(void *context, struct qr_batch *batch)
{
    struct taken *t = context;
    assert_false(t->has_failed);
    if (++t->count == t->fails_at) {
        t->has_failed = 1;
        return qr_fail(QALLOW_E_IO, "batch %zu cannot be taken", t->count);
    }
    for (size_t i = 0; i < batch->count; i++) {
        t->bytes = realloc(t->bytes, t->length + batch->bodies[i].length + 1);
        if (!t->bytes)
            abort();
        memcpy(t->bytes + t->length, batch->bodies[i].raw, batch->bodies[i].length);
        t->length += batch->bodies[i].length;
    }
    qr_batch_taken(batch);
    return 0;
}

/* Deltas of several calls, handed on at random also amidst them. How it ended. */
static int fill(struct qr_relay *relay, uint64_t from, int batches)
{
    uint8_t bytes[3000];
    int rc = 0;
    seed = from;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)next_random(&seed);
    for (int n = 0; n < batches && rc == 0;) {
        uint64_t page = 1 + below(1000), size = 0, count = 1 + below(4);
        OK(qr_batch_delta_begin(qr_relay_batch(relay), page, 0, 0, count * sizeof bytes));
        for (uint64_t i = 0; i < count && rc == 0; i++, size += sizeof bytes) {
            struct qr_edit edit = {
                .new_length = sizeof bytes, .source = QR_LITERAL, .bytes = bytes};
            OK(qr_batch_delta_edits(qr_relay_batch(relay), &(struct qr_edits){&edit, 1, 1}, NULL));
            if (below(3) == 0 && ++n)
                rc = qr_relay_pass(relay);
        }
        if (rc == 0)
            OK(qr_batch_delta_end(qr_relay_batch(relay), (struct qb_u128){page, size}));
    }
    return rc ? rc : qr_relay_pass(relay);
}

static void test_same_with_a_thread(void **context)
{
    for (int round = 0; round < 50; round++) {
        struct taken taken[2] = {{0}, {0}};
        uint64_t from = next_random(&seed);
        for (int is_threaded = 0; is_threaded < 2; is_threaded++) {
            struct qr_relay *relay;
            OK(qr_relay_create(0, is_threaded, take, &taken[is_threaded], &relay));
            OK(fill(relay, from, 20));
            OK(qr_relay_finish(relay));
        }
        assert_true(taken[0].count >= 20);
        assert_int_equal(taken[0].count, taken[1].count);
        assert_int_equal(taken[0].length, taken[1].length);
        assert_memory_equal(taken[0].bytes, taken[1].bytes, taken[0].length);
        free(taken[0].bytes);
        free(taken[1].bytes);
    }
}

static void test_failure_is_told(void **context)
{
    for (size_t fails_at = 1; fails_at <= 21; fails_at++)
        for (int is_threaded = 0; is_threaded < 2; is_threaded++) {
            struct taken taken = {.fails_at = fails_at};
            struct qr_relay *relay;
            char text[64];
            OK(qr_relay_create(0, is_threaded, take, &taken, &relay));
            int rc = fill(relay, seed + 1, 19);
            qr_fail(QALLOW_E_STATE, "something else");
            int end = qr_relay_finish(relay);
            int has_failed = taken.has_failed;
            assert_int_equal(rc && !is_threaded ? rc : end, has_failed ? QALLOW_E_IO : 0);
            snprintf(text, sizeof text, "batch %zu cannot be taken", fails_at);
            if (has_failed && is_threaded)
                assert_string_equal(qallow_error_detail(), text);
            free(taken.bytes);
        }
}

/* --- checkpoints --- */

static char directory[64], path[128], copies[2][160];
static struct qr_os os;
static _Atomic long long room; /* bytes that the disk still takes */

static int64_t write_while_there_is_room(void *context, int file, const void *bytes, size_t length,
                                         uint64_t offset)
{
    if (atomic_fetch_sub(&room, (long long)length) < (long long)length)
        return -ENOSPC;
    return qr_os_posix()->pwrite(context, file, bytes, length, offset);
}

static int is_there(const char *name) { return access(name, F_OK) == 0; }

static size_t read_whole(const char *name, uint8_t **bytes)
{
    FILE *file = fopen(name, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    size_t length = (size_t)ftell(file);
    rewind(file);
    *bytes = malloc(length + 1);
    assert_int_equal(fread(*bytes, 1, length, file), length);
    fclose(file);
    return length;
}

static void export_with(int threads, const char *to, int result)
{
    struct qr_store_options options = {.threads = threads, .os = &os};
    struct qr_store *store;
    struct qr_store_info info;
    OK(qr_store_open(path, &options, &store));
    qr_store_info(store, &info);
    assert_int_equal(qr_checkpoint_export(store, info.last_epoch, to, 0), result);
    if (result)
        assert_non_null(strstr(qallow_error_detail(), "No space left on device"));
    OK(qr_store_close(store));
}

/* One large page and many small ones. */
static void make_log(void)
{
    enum { LARGE = 5 << 20, SMALL = 2000, SMALLS = 700 };
    struct qr_store_options options = {.writable = 1, .create = 1, .sync = QR_SYNC_NONE};
    struct qr_attributes attributes = {.mode = 0600};
    struct qr_store *store;
    struct qr_batch *batch;
    struct qr_txn *txn;
    uint64_t epoch;
    uint8_t *bytes = malloc(LARGE);
    assert_non_null(bytes);
    for (size_t i = 0; i < LARGE; i++)
        bytes[i] = (uint8_t)next_random(&seed);
    OK(qr_store_open(path, &options, &store));
    OK(qr_txn_begin(store, &txn));
    OK(qr_batch_create(0, &batch));
    for (int i = 0; i <= SMALLS; i++) {
        size_t length = i == SMALLS / 2 ? LARGE : SMALL;
        uint64_t id = qr_txn_new_id(txn);
        char name[16];
        snprintf(name, sizeof name, "%d", i);
        OK(qr_batch_page_create(batch, id, 0, name, strlen(name), QR_KIND_RAW, &attributes));
        struct qr_edit edit = {.new_length = length, .source = QR_LITERAL, .bytes = bytes + i};
        edit.bytes = length == LARGE ? bytes : bytes + i;
        OK(qr_batch_delta(batch, id, 0, 0, length, &(struct qr_edits){&edit, 1, 1}, NULL,
                          qb_kernels()->hash_cells(edit.bytes, length, qr_page_seed(id), 0)));
        OK(qr_txn_append(txn, batch));
    }
    OK(qr_txn_commit(txn, &epoch));
    qr_batch_destroy(batch);
    OK(qr_store_close(store));
    free(bytes);
}

static void test_checkpoint(void **context)
{
    uint8_t *bytes[2];
    size_t length[2];
    room = INT64_MAX;
    make_log();
    for (int i = 0; i < 2; i++) {
        export_with(1 + i, copies[i], 0);
        length[i] = read_whole(copies[i], &bytes[i]);
        unlink(copies[i]);
    }
    assert_true(length[0] > 6 << 20);
    assert_int_equal(length[0], length[1]);
    assert_memory_equal(bytes[0], bytes[1], length[0]);
    for (int i = 0; i < 20; i++) {
        char temporary[170];
        room = (long long)below(length[0]);
        export_with(2, copies[0], QALLOW_E_NO_SPACE);
        snprintf(temporary, sizeof temporary, "%s.tmp", copies[0]);
        assert_false(is_there(copies[0]));
        assert_false(is_there(temporary));
    }
    free(bytes[0]);
    free(bytes[1]);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_with_a_thread),
        cmocka_unit_test(test_failure_is_told),
        cmocka_unit_test(test_checkpoint),
    };
    const char *given = getenv("QALLOW_SEED");
    seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    printf("QALLOW_SEED=%llu\n", (unsigned long long)seed);
    snprintf(directory, sizeof directory, "/tmp/qallow-relay-XXXXXX");
    if (!mkdtemp(directory))
        return 1;
    snprintf(path, sizeof path, "%s/log.tlog", directory);
    for (int i = 0; i < 2; i++)
        snprintf(copies[i], sizeof copies[i], "%s/%d.qckpt", directory, i);
    os = *qr_os_posix();
    os.pwrite = write_while_there_is_room;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    snprintf(path, sizeof path, "%s/log.tlog-index", directory);
    unlink(path);
    snprintf(path, sizeof path, "%s/log.tlog.lock", directory);
    unlink(path);
    rmdir(directory);
    return failed;
}
