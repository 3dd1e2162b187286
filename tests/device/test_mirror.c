/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mirrors on the emulated device: what is written there becomes epochs, any epoch comes back there,
 * only what changed crosses the bus, and a device that fails leaves the store as it was.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "qallow/mirror.h"
#include "runtime/device.h"
#include "tests/device/emulated.h"
#include "tests/random.h"

#include <cmocka.h>

enum { PAGES = 3, EPOCHS = 6 };
static const uint64_t lengths[PAGES] = {300001, 0, 4096};

struct fixture {
    char path[64];
    struct qallow_store *store;
    uint64_t pages[PAGES], epochs[EPOCHS];
    uint8_t *content[EPOCHS][PAGES]; /* what each epoch holds */
    uint64_t random;
};

static void ok(int rc)
{
    if (rc != 0)
        fail_msg("%d: %s", rc, qallow_error_detail());
}

static void drop_log(const struct fixture *f)
{
    static const char *const suffixes[] = {"", "-index", ".lock", ".bad"};
    char path[80];
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        snprintf(path, sizeof path, "%s%s", f->path, suffixes[i]);
        unlink(path);
    }
}

static void create_pages(struct fixture *f)
{
    struct qallow_txn *txn;
    ok(qallow_begin(f->store, &txn));
    for (unsigned i = 0; i < PAGES; i++) {
        struct qallow_page_options page = QALLOW_PAGE_OPTIONS_INIT;
        char name[8];
        snprintf(name, sizeof name, "p%u", i);
        page.name = name;
        page.kind = QALLOW_TENSOR;
        ok(qallow_page_create(txn, &page, &f->pages[i]));
        ok(qallow_page_resize(txn, f->pages[i], lengths[i]));
        f->content[0][i] = calloc(1, lengths[i] + 1);
    }
    ok(qallow_commit(txn, &f->epochs[0]));
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct qallow_options options = QALLOW_OPTIONS_INIT;
    f->random = 11;
    snprintf(f->path, sizeof f->path, "/tmp/test_mirror.%ld.tlog", (long)getpid());
    drop_log(f);
    options.writable = options.create = 1;
    options.sync = QALLOW_SYNC_NONE;
    ok(qallow_open(f->path, &options, &f->store));
    emulated_fail(EMULATED_ANY, 0, QB_DONE);
    emulated_set_memory(UINT64_C(1) << 30);
    qr_set_device_runtime(emulated_runtime());
    create_pages(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    ok(qallow_close(f->store));
    drop_log(f);
    for (unsigned e = 0; e < EPOCHS; e++)
        for (unsigned i = 0; i < PAGES; i++)
            free(f->content[e][i]);
    free(f);
    qr_set_device_runtime(NULL);
    assert_int_equal(emulated_allocated(), 0);
    return 0;
}

static uint8_t *data_of(struct qallow_mirror *m, size_t i)
{
    void *data;
    uint64_t length;
    ok(qallow_mirror_data(m, i, &data, &length));
    assert_int_equal(length, lengths[i]);
    return data;
}

static struct qallow_mirror *mirror_of(struct fixture *f, uint32_t location)
{
    struct qallow_mirror *m;
    ok(qallow_mirror_create(f->store, f->pages, PAGES, location, NULL, &m));
    return m;
}

/* A kernel of the program: changes a few bytes. */
static void scribble(struct fixture *f, struct qallow_mirror *m)
{
    for (unsigned i = 0; i < PAGES; i++) {
        uint8_t *data = data_of(m, i);
        for (uint64_t k = 0; k < lengths[i] / 100; k++)
            data[next_random(&f->random) % lengths[i]] ^= (uint8_t)(1 + next_random(&f->random));
    }
}

static void remember(struct fixture *f, struct qallow_mirror *m, unsigned e)
{
    for (unsigned i = 0; i < PAGES; i++) {
        f->content[e][i] = malloc(lengths[i] + 1);
        if (lengths[i] > 0)
            memcpy(f->content[e][i], data_of(m, i), lengths[i]);
    }
}

static void expect_data(struct fixture *f, struct qallow_mirror *m, unsigned e)
{
    for (unsigned i = 0; i < PAGES; i++)
        assert_memory_equal(data_of(m, i), f->content[e][i], lengths[i]);
}

/* The newest epoch of the store, read back from the log. */
static void expect_store(struct fixture *f, unsigned e)
{
    uint8_t *bytes = malloc(lengths[0] + 1);
    assert_int_equal(qallow_view_epoch(qallow_newest(f->store)), f->epochs[e]);
    for (unsigned i = 0; i < PAGES; i++) {
        ok(qallow_page_read(qallow_newest(f->store), f->pages[i], 0, bytes, lengths[i]));
        assert_memory_equal(bytes, f->content[e][i], lengths[i]);
    }
    free(bytes);
}

static void make_epochs(struct fixture *f, struct qallow_mirror *m)
{
    for (unsigned e = 1; e < EPOCHS; e++) {
        scribble(f, m);
        remember(f, m, e);
        const uint64_t before = emulated_bus_bytes();
        ok(qallow_mirror_commit(m, &f->epochs[e]));
        assert_in_range(emulated_bus_bytes() - before, lengths[0] / 200, lengths[0] / 8);
        assert_int_equal(f->epochs[e], f->epochs[e - 1] + 1);
        expect_store(f, e);
    }
}

static void test_epochs(void **state)
{
    struct fixture *f = *state;
    struct qallow_mirror *m = mirror_of(f, QALLOW_GPU);
    uint64_t epoch;
    ok(qallow_mirror_load(m, qallow_newest(f->store)));
    make_epochs(f, m);
    ok(qallow_mirror_commit(m, &epoch)); /* nothing changed */
    assert_int_equal(epoch, f->epochs[EPOCHS - 1]);
    for (unsigned e = 0; e < EPOCHS; e++) { /* replay to the device */
        struct qallow_view *view;
        ok(qallow_view_at(f->store, f->epochs[e], &view));
        ok(qallow_mirror_load(m, view));
        expect_data(f, m, e);
        qallow_view_destroy(view);
    }
    qallow_mirror_destroy(m);
    ok(qallow_verify(f->store, 1));
}

/* An older epoch, loaded and committed, is the newest again. */
static void test_go_back(void **state)
{
    struct fixture *f = *state;
    struct qallow_mirror *m = mirror_of(f, QALLOW_GPU);
    struct qallow_view *view;
    uint64_t epoch;
    ok(qallow_mirror_load(m, qallow_newest(f->store)));
    make_epochs(f, m);
    ok(qallow_view_at(f->store, f->epochs[2], &view));
    ok(qallow_mirror_load(m, view));
    qallow_view_destroy(view);
    ok(qallow_mirror_commit(m, &epoch));
    assert_int_equal(epoch, f->epochs[EPOCHS - 1] + 1);
    f->epochs[2] = epoch;
    expect_store(f, 2);
    qallow_mirror_destroy(m);
}

static void test_unified(void **state)
{
    struct fixture *f = *state;
    struct qallow_mirror *m = mirror_of(f, QALLOW_UNIFIED), *other = mirror_of(f, QALLOW_GPU);
    ok(qallow_mirror_load(m, qallow_newest(f->store)));
    ok(qallow_mirror_prefetch(m, 0));
    scribble(f, m); /* the CPU may */
    ok(qallow_mirror_prefetch(m, 1));
    assert_true(emulated_count(EMULATED_PREFETCH) >= 2 * 2);
    remember(f, m, 1);
    ok(qallow_mirror_commit(m, &f->epochs[1]));
    expect_store(f, 1);
    assert_int_equal(qallow_mirror_prefetch(other, 1), QALLOW_E_UNSUPPORTED_LOCATION);
    qallow_mirror_destroy(m);
    qallow_mirror_destroy(other);
}

static void test_states(void **state)
{
    struct fixture *f = *state;
    struct qallow_mirror *m, *second = mirror_of(f, QALLOW_GPU);
    uint64_t epoch;
    assert_int_equal(qallow_mirror_create(f->store, f->pages, PAGES, QALLOW_CPU, NULL, &m),
                     QALLOW_E_UNSUPPORTED_LOCATION);
    const uint64_t nobody = 999;
    assert_int_equal(qallow_mirror_create(f->store, &nobody, 1, QALLOW_GPU, NULL, &m),
                     QALLOW_E_PAGE_NOT_FOUND);
    m = mirror_of(f, QALLOW_GPU);
    assert_int_equal(qallow_mirror_commit(m, &epoch), QALLOW_E_STATE);
    ok(qallow_mirror_load(m, qallow_newest(f->store)));
    ok(qallow_mirror_load(second, qallow_newest(f->store)));
    scribble(f, m);
    remember(f, m, 1);
    scribble(f, second);
    ok(qallow_mirror_commit(m, &f->epochs[1]));
    assert_int_equal(qallow_mirror_commit(second, &epoch), QALLOW_E_STATE); /* somebody else */
    expect_store(f, 1);
    qallow_mirror_destroy(second);
    qallow_mirror_destroy(m);
}

/* Each call of a commit and of a load fails in turn, in each way. */
static void test_failures(void **state)
{
    static const struct {
        enum qb_result result;
        int error;
    } kinds[] = {{QB_OUT_OF_MEMORY, QALLOW_E_DEVICE_MEMORY}, {QB_LOST, QALLOW_E_DEVICE}};
    struct fixture *f = *state;
    struct qallow_mirror *m = mirror_of(f, QALLOW_GPU);
    ok(qallow_mirror_load(m, qallow_newest(f->store)));
    for (size_t k = 0; k < 2; k++) {
        for (unsigned long n = 1; ok(qallow_mirror_load(m, qallow_newest(f->store))), 1; n++) {
            uint64_t epoch = 0;
            scribble(f, m);
            uint8_t *before = malloc(lengths[0]);
            memcpy(before, data_of(m, 0), lengths[0]);
            const uint64_t newest = qallow_view_epoch(qallow_newest(f->store));
            emulated_fail(EMULATED_ANY, n, kinds[k].result);
            const int rc = qallow_mirror_commit(m, &epoch);
            const unsigned long calls = emulated_count(EMULATED_ANY);
            emulated_fail(EMULATED_ANY, 0, QB_DONE);
            assert_memory_equal(data_of(m, 0), before, lengths[0]);
            free(before);
            if (rc < 0) {
                assert_int_equal(rc, kinds[k].error);
                assert_int_equal(qallow_view_epoch(qallow_newest(f->store)), newest);
                uint64_t again;
                ok(qallow_mirror_commit(m, &again)); /* nothing was lost */
                assert_int_equal(again, newest + 1);
            } else if (calls < n) {
                break;
            }
        }
    }
    emulated_fail(EMULATED_ANY, 5, QB_LOST);
    assert_int_equal(qallow_mirror_load(m, qallow_newest(f->store)), QALLOW_E_DEVICE);
    emulated_fail(EMULATED_ANY, 0, QB_DONE);
    assert_int_equal(qallow_mirror_commit(m, NULL), QALLOW_E_STATE);
    qallow_mirror_destroy(m);
    ok(qallow_verify(f->store, 1));
}

static void test_no_room(void **state)
{
    struct fixture *f = *state;
    struct qallow_mirror *m;
    emulated_set_memory(lengths[0] + 100);
    assert_int_equal(qallow_mirror_create(f->store, f->pages, PAGES, QALLOW_GPU, NULL, &m),
                     QALLOW_E_DEVICE_MEMORY);
    assert_non_null(strstr(qallow_error_detail(), "300001 bytes asked for, 100 of 300101 free"));
    emulated_fail(EMULATED_DESCRIBE, 1, QB_NO_DEVICE);
    assert_int_equal(qallow_mirror_create(f->store, f->pages, PAGES, QALLOW_GPU, NULL, &m),
                     QALLOW_E_NO_DEVICE);
    assert_null(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_epochs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_go_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unified, setup, teardown),
        cmocka_unit_test_setup_teardown(test_states, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failures, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_room, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
