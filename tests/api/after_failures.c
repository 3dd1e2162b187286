/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a failure leaves behind: a write or an allocation fails, a clock is set, an index
 * lies, a writer takes back what a follower has read ahead. Each case was once answered with wrong
 * bytes, a lost rename, an abort, or a wait without end.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/api_transaction.h"
#include "runtime/batch.h"
#include "runtime/bytes.h"
#include "runtime/delta.h"
#include "runtime/elements.h"
#include "runtime/os.h"
#include "runtime/store_internal.h"
#include "tests/api/support.h"

static struct qr_os os;

static struct qallow_store *open_store(const char *name, uint64_t memory, enum qallow_sync sync,
                                       uint32_t writable)
{
    struct qallow_options options = QALLOW_OPTIONS_INIT;
    struct qallow_store *store;
    options.writable = options.create = writable;
    options.max_memory = memory;
    options.sync = sync;
    assert_ok(qallow_open(path(name), &options, &store));
    return store;
}

/* From here on the store goes to the world by `os`. */
static void intercept(struct qallow_store *store)
{
    os = *qr_os_posix();
    store->store->os = store->store->log->os = &os;
}

static int write_and_commit(struct qallow_store *store, uint64_t page, uint64_t offset,
                            const char *text, uint64_t *epoch)
{
    struct qallow_txn *txn;
    assert_ok(qallow_begin(store, &txn));
    assert_ok(qallow_page_write(txn, page, offset, text, strlen(text)));
    return qallow_commit(txn, epoch);
}

/* A page in many pieces, so that reading it reads ahead in the log. */
static struct qallow_store *open_scattered(const char *name, uint64_t *page)
{
    static uint8_t bytes[16 << 10];
    struct qallow_store *store = open_store(name, 1, QALLOW_SYNC_COMMIT, 1);
    *page = store_with_page(store, bytes, sizeof bytes);
    for (uint64_t i = 1; i <= 12; i++)
        assert_ok(write_and_commit(store, *page, i * 100, "x", NULL));
    return store;
}

/* --- a clock that is set --- */

static int64_t clock_ns, clock_calls;

/* A millisecond a call: a wait by this clock is counted in calls. */
static int64_t clock_ticks(void *context)
{
    clock_calls++;
    return clock_ns += 1000000;
}

static int clock_is_set_forward(void *context, int file)
{
    clock_ns += INT64_C(3600) * 1000000000;
    return qr_os_posix()->sync(context, file);
}

static void test_a_clock_set_forward_during_a_sync_delays_nobody(void **state)
{
    struct qallow_store *store = open_store("clock", 0, QALLOW_SYNC_COMMIT, 1);
    uint64_t page = store_with_page(store, "0123456789", 10);
    intercept(store);
    os.now_ns = clock_ticks;
    os.sync = clock_is_set_forward;
    clock_ns = qr_os_posix()->now_ns(NULL);
    assert_ok(write_and_commit(store, page, 0, "a", NULL));
    store->store->durable.group = 2; /* as if two had waited for that sync */
    clock_calls = 0;
    assert_ok(write_and_commit(store, page, 0, "b", NULL));
    assert_true(clock_calls < 1000);
    qallow_close(store);
}

/* --- a failed write --- */

static int is_full;

static int64_t write_is_cut(void *context, int file, const void *bytes, size_t length,
                            uint64_t offset)
{
    if (!is_full)
        return qr_os_posix()->pwrite(context, file, bytes, length, offset);
    qr_os_posix()->pwrite(context, file, bytes, length / 2, offset);
    return -ENOSPC;
}

static void test_part_of_a_write_is_cut_off_again(void **state)
{
    struct qallow_store *store = open_store("cut", 0, QALLOW_SYNC_NONE, 1);
    uint64_t page = store_with_page(store, "0123456789", 10);
    static uint8_t bytes[8000];
    struct qallow_txn *txn;
    struct stat st;
    intercept(store);
    os.pwrite = write_is_cut;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)next_random(&seed);
    assert_ok(qallow_begin(store, &txn));
    assert_ok(qallow_page_write(txn, page, 0, bytes, sizeof bytes));
    is_full = 1;
    assert_result(qallow_commit(txn, NULL), QALLOW_E_NO_SPACE);
    is_full = 0;
    assert_int_equal(stat(path("cut"), &st), 0);
    assert_int_equal(st.st_size, store->store->log->end);
    assert_ok(qallow_close(store));
    struct qr_store *again;
    struct qr_store_info info;
    assert_ok(qr_store_open(path("cut"), &(struct qr_store_options){.writable = 1}, &again));
    qr_store_info(again, &info);
    assert_int_equal(info.cut_bytes, 0);
    qr_store_close(again);
}

/* --- no memory --- */

static int fail_in;
static size_t fail_size;

static int one_fails(size_t size) { return fail_in > 0 && --fail_in == 0; }
static int a_size_fails(size_t size) { return size == fail_size; }

static void test_a_rename_without_memory_can_be_made_again(void **state)
{
    int rc = -1;
    for (int at = 1; rc != 0; at++) {
        char name[32];
        snprintf(name, sizeof name, "rename-%d", at);
        struct qallow_store *store = open_store(name, 0, QALLOW_SYNC_NONE, 1);
        uint64_t page = store_with_page(store, "0123456789", 10);
        struct qallow_page info = QALLOW_PAGE_INIT;
        struct qallow_txn *txn;
        assert_ok(qallow_begin(store, &txn));
        qr_set_allocation_hook(one_fails);
        fail_in = at;
        rc = qallow_page_rename(txn, page, 0, "renamed");
        fail_in = 0;
        qr_set_allocation_hook(NULL);
        if (rc != 0) {
            assert_int_equal(rc, QALLOW_E_NO_MEMORY);
            assert_ok(qallow_page_rename(txn, page, 0, "renamed"));
        }
        assert_ok(qallow_commit(txn, NULL));
        assert_ok(qallow_page_lookup(qallow_newest(store), "renamed", &info));
        assert_int_equal(info.id, page);
        qallow_close(store);
    }
}

static void test_an_epoch_without_room_in_the_directory_is_not_acknowledged(void **state)
{
    struct qallow_store *store = open_store("room", 0, QALLOW_SYNC_COMMIT, 1);
    uint64_t page = store_with_page(store, "0123456789", 10), epoch = 1;
    const struct qr_directory *d = &store->store->directory;
    struct qallow_epoch info = QALLOW_EPOCH_INIT;
    struct qallow_txn *txn;
    while (d->commit_count < d->commit_capacity)
        assert_ok(write_and_commit(store, page, 0, epoch & 1 ? "a" : "b", &epoch));
    fail_size = d->commit_capacity * 2 * sizeof *d->commits;
    assert_ok(qallow_begin(store, &txn));
    assert_ok(qallow_page_write(txn, page, 0, "lost", 4));
    qr_set_allocation_hook(a_size_fails);
    assert_result(qallow_commit(txn, NULL), QALLOW_E_NO_MEMORY);
    qr_set_allocation_hook(NULL);
    assert_ok(qallow_epoch_get(store, epoch, &info));
    assert_ok(write_and_commit(store, page, 0, "kept", &epoch));
    assert_ok(qallow_epoch_get(store, epoch, &info));
    assert_ok(qallow_close(store));
}

/* --- a follower, and a writer that takes back --- */

static void expect_there(struct qallow_store *follower, uint64_t page, uint64_t epoch)
{
    uint8_t bytes[2000];
    uint64_t newest;
    assert_ok(qallow_refresh(follower, &newest));
    assert_int_equal(newest, epoch);
    assert_ok(qallow_page_read(qallow_newest(follower), page, 0, bytes, sizeof bytes));
    assert_memory_equal(bytes + 1000, "there", 5);
    assert_ok(qallow_close(follower));
}

/* A delta of "GHOST" at 1000 is in the file, and is taken back. */
static void write_ghost(struct qallow_store *store, struct qallow_store *follower, uint64_t page)
{
    struct qr_batch *batch;
    struct qr_txn *txn;
    struct qr_edits edits = {0};
    uint8_t bytes[2000];
    uint64_t newest, size = 16 << 10;
    assert_ok(qr_txn_begin(store->store, &txn));
    assert_ok(qr_batch_create(0, &batch));
    assert_ok(qr_edits_add(&edits, (struct qr_edit){.offset = 1000,
                                                    .old_length = 5,
                                                    .new_length = 5,
                                                    .source = QR_LITERAL,
                                                    .bytes = (const uint8_t *)"GHOST"}));
    assert_ok(qr_batch_delta(batch, page, 0, size, size, &edits, NULL, (struct qb_u128){1, 2}));
    assert_ok(qr_txn_append(txn, batch));
    assert_ok(qr_txn_settle(txn, 1));
    assert_ok(qallow_refresh(follower, &newest));
    assert_ok(qallow_page_read(qallow_newest(follower), page, 0, bytes, sizeof bytes));
    qr_txn_abort(txn);
    qr_batch_destroy(batch);
    qr_edits_finish(&edits);
}

static void test_a_follower_forgets_what_it_read_ahead(void **state)
{
    uint64_t page, epoch;
    struct qallow_store *store = open_scattered("ahead", &page);
    struct qallow_store *follower = open_store("ahead", 1, 0, 0);
    write_ghost(store, follower, page);
    assert_ok(write_and_commit(store, page, 1000, "there", &epoch));
    expect_there(follower, page, epoch);
    qallow_close(store);
}

static void test_a_follower_forgets_epochs_that_were_lost(void **state)
{
    uint64_t page, epoch;
    uint8_t bytes[5];
    char index[600];
    struct qallow_store *store = open_scattered("lost", &page), *follower;
    uint64_t end = store->store->log->end;
    assert_ok(write_and_commit(store, page, 1000, "GHOST", NULL));
    follower = open_store("lost", 1, 0, 0);
    assert_ok(qallow_page_read(qallow_newest(follower), page, 1000, bytes, sizeof bytes));
    assert_ok(qallow_close(store));
    assert_int_equal(truncate(path("lost"), (off_t)end), 0); /* as a crash of the machine may */
    snprintf(index, sizeof index, "%s-index", path("lost"));
    unlink(index);
    store = open_store("lost", 1, QALLOW_SYNC_COMMIT, 1);
    assert_ok(write_and_commit(store, page, 1000, "there", &epoch));
    expect_there(follower, page, epoch);
    qallow_close(store);
}

/* --- values that are no values --- */

static size_t varint(const uint8_t *p, uint64_t *value)
{
    size_t n = 0;
    *value = 0;
    do
        *value |= (uint64_t)(p[n] & 127) << (7 * n);
    while (p[n++] & 128);
    return n;
}

/* The index's list of commits begins behind what docs/formats/tlog-index.md has before it. */
static void test_an_index_with_a_base_beyond_all_epochs_is_not_used(void **state)
{
    struct qallow_store *store = open_store("index", 0, QALLOW_SYNC_NONE, 1);
    uint64_t page = store_with_page(store, "0123456789", 10), epoch, value;
    uint8_t in[4096], out[4200];
    char name[600];
    assert_ok(write_and_commit(store, page, 0, "xy", &epoch));
    assert_ok(qallow_close(store));
    snprintf(name, sizeof name, "%s-index", path("index"));
    int file = open(name, O_RDWR);
    ssize_t size = read(file, in, sizeof in);
    assert_true(size > 100);
    size_t at = 40;
    at += varint(in + at, &value) + 8;
    at += varint(in + at, &value) + 8;
    at += varint(in + at, &value);
    at += varint(in + at, &value) + 16;
    at += varint(in + at, &value);
    at += varint(in + at, &value);
    memcpy(out, in, at);
    size_t to = at;
    at += varint(in + at, &value);
    assert_true(value <= epoch); /* it is the base */
    to += (size_t)(qr_put_varint(out + to, (UINT64_C(1) << 62) - 1) - (out + to));
    memcpy(out + to, in + at, (size_t)size - at);
    to += (size_t)size - at;
    assert_int_equal(pwrite(file, out, to, 0), to);
    close(file);
    store = open_store("index", 0, 0, 0);
    assert_int_equal(qr_state_epoch(qr_store_state(store->store)), epoch);
    assert_ok(qallow_close(store));
}

static void test_a_count_of_changes_beyond_32_bits_is_refused(void **state)
{
    uint8_t body[64] = {4, QR_CODING_CHANGES, 4}, *p = body + 3;
    struct qr_elements e;
    qr_store64(p, 8192 / 8 << 20);
    p = qr_put_varint(p + 8, 400);
    *p++ = 0;
    p = qr_put_varint(p, UINT64_C(1) << 32);
    assert_result(qr_elements_parse(body, (size_t)(p - body), &e), QALLOW_E_SERIALIZATION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_clock_set_forward_during_a_sync_delays_nobody),
        cmocka_unit_test(test_part_of_a_write_is_cut_off_again),
        cmocka_unit_test(test_a_rename_without_memory_can_be_made_again),
        cmocka_unit_test(test_an_epoch_without_room_in_the_directory_is_not_acknowledged),
        cmocka_unit_test(test_a_follower_forgets_what_it_read_ahead),
        cmocka_unit_test(test_a_follower_forgets_epochs_that_were_lost),
        cmocka_unit_test(test_an_index_with_a_base_beyond_all_epochs_is_not_used),
        cmocka_unit_test(test_a_count_of_changes_beyond_32_bits_is_refused),
    };
    if (support_begin())
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return support_end() || failed;
}
