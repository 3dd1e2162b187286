/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deltas between buffers: the CPU and the (emulated) device make the same bytes and lead to the
 * same states, and whatever goes wrong leaves the state as it was, with the error that fits.
 *
 *     test_device [--cuda]     with the real device, what does not ask the emulated one anything;
 *                              ends with 77 where there is none
 *
 * The real device's buffers are unified memory, so that the tests can look into them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/kernels.h"
#include "qallow/delta.h"
#include "qallow/store.h"
#include "runtime/device.h"
#include "runtime/os.h"
#include "telemetry/telemetry.h"
#include "tests/device/emulated.h"
#include "tests/random.h"

#include <cmocka.h>

enum { BUFFERS = 4 };
static const uint64_t lengths[BUFFERS] = {100001, 0, 16384, 700};
#define TOTAL (100001 + 16384 + 700)

/* Two contents on the CPU and on the device, and room for deltas. */
struct fixture {
    struct qallow_buffer old[2][BUFFERS], new_[2][BUFFERS],
        delta[2]; /* 0: the CPU, 1: the device */
    uint64_t random;
};

static int is_real; /* the device */

static const struct qb_runtime *the_runtime(void)
{
    return is_real ? qb_runtime_cuda() : emulated_runtime();
}

static enum qb_memory kind_of_memory(void)
{
    return is_real ? QB_MEMORY_UNIFIED : QB_MEMORY_DEVICE;
}

static struct qallow_buffer buffer(int device, uint64_t length)
{
    const struct qb_runtime *r = the_runtime();
    struct qallow_buffer b = QALLOW_BUFFER_INIT;
    b.length = length;
    b.location = device ? QALLOW_GPU : QALLOW_CPU;
    if (device)
        assert_int_equal(r->allocate(r->context, kind_of_memory(), length + 1, &b.data), 0);
    else
        b.data = malloc(length + 1);
    return b;
}

static void drop(struct qallow_buffer *b)
{
    const struct qb_runtime *r = the_runtime();
    if (b->location == QALLOW_GPU)
        r->release(r->context, kind_of_memory(), b->data);
    else
        free(b->data);
}

/* Every `step`-th byte changes, on the average. */
static void refill(struct fixture *f, unsigned step)
{
    for (unsigned i = 0; i < BUFFERS; i++) {
        uint8_t *old = f->old[0][i].data, *new_ = f->new_[0][i].data;
        for (uint64_t k = 0; k < lengths[i]; k++) {
            old[k] = (uint8_t)next_random(&f->random);
            new_[k] = old[k];
            if (step != 0 && next_random(&f->random) % step == 0)
                new_[k] ^= (uint8_t)(1 + next_random(&f->random) % 255);
        }
        memcpy(f->old[1][i].data, old, lengths[i]);
        memcpy(f->new_[1][i].data, new_, lengths[i]);
    }
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    uint64_t bound = 0;
    f->random = 7;
    emulated_fail(EMULATED_ANY, 0, QB_DONE);
    emulated_set_memory(UINT64_C(1) << 30);
    qr_set_device_runtime(the_runtime());
    for (int device = 0; device < 2; device++) {
        for (unsigned i = 0; i < BUFFERS; i++) {
            f->old[device][i] = buffer(device, lengths[i]);
            f->new_[device][i] = buffer(device, lengths[i]);
        }
        assert_int_equal(qallow_delta_bound(f->old[device], BUFFERS, &bound), 0);
        f->delta[device] = buffer(device, bound);
    }
    refill(f, 100);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    for (int device = 0; device < 2; device++) {
        for (unsigned i = 0; i < BUFFERS; i++) {
            drop(&f->old[device][i]);
            drop(&f->new_[device][i]);
        }
        drop(&f->delta[device]);
    }
    qr_set_device_runtime(NULL);
    assert_int_equal(emulated_allocated(), 0);
    free(f);
    return 0;
}

static void expect_equal(const struct qallow_buffer *a, const struct qallow_buffer *b)
{
    for (unsigned i = 0; i < BUFFERS; i++)
        assert_memory_equal(a[i].data, b[i].data, lengths[i]);
}

static uint64_t extract(struct fixture *f, int device)
{
    uint64_t length = 0;
    assert_int_equal(qallow_delta_extract(f->old[device], f->new_[device], BUFFERS,
                                          &f->delta[device], NULL, &length),
                     0);
    return length;
}

/* --- the same bytes, there and back --- */

static void test_twins(void **state)
{
    static const unsigned steps[] = {0, 1, 2, 5, 100, 20000};
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        refill(f, steps[i]);
        const uint64_t length = extract(f, 0);
        assert_int_equal(extract(f, 1), length);
        assert_memory_equal(f->delta[0].data, f->delta[1].data, length);
        /* a delta of the device on the CPU */
        memset(f->delta[0].data, 0, length);
        uint64_t again;
        assert_int_equal(
            qallow_delta_extract(f->old[1], f->new_[1], BUFFERS, &f->delta[0], NULL, &again), 0);
        assert_int_equal(again, length);
        assert_memory_equal(f->delta[0].data, f->delta[1].data, length);
        for (int device = 0; device < 2 && steps[i] != 0; device++) {
            const struct qallow_buffer *delta = &f->delta[device && steps[i] % 2];
            uint8_t *first = malloc(lengths[0]);
            memcpy(first, f->old[device][0].data, lengths[0]);
            assert_int_equal(qallow_delta_apply(f->old[device], BUFFERS, delta, length, NULL), 0);
            expect_equal(f->old[device], f->new_[0]);
            assert_int_equal(qallow_delta_undo(f->old[device], BUFFERS, delta, length, NULL), 0);
            assert_memory_equal(f->old[device][0].data, first, lengths[0]);
            free(first);
        }
    }
}

static void test_no_change(void **state)
{
    struct fixture *f = *state;
    struct qallow_delta_info info = QALLOW_DELTA_INFO_INIT;
    refill(f, 0);
    const uint64_t length = extract(f, 0);
    assert_int_equal(length, 128 + 16 * BUFFERS);
    assert_int_equal(qallow_delta_info_get(f->delta[0].data, length, &info), 0);
    assert_int_equal(info.changed_bytes, 0);
    assert_int_equal(info.base[0], info.result[0]);
    for (int device = 0; device < 2; device++)
        assert_int_equal(qallow_delta_apply(f->old[device], BUFFERS, &f->delta[0], length, NULL),
                         0);
}

static void test_digest(void **state)
{
    struct fixture *f = *state;
    struct qallow_delta_info info = QALLOW_DELTA_INFO_INIT;
    uint64_t cpu[2], device[2];
    const uint64_t length = extract(f, 0);
    assert_int_equal(qallow_buffers_digest(f->old[0], BUFFERS, NULL, cpu), 0);
    assert_int_equal(qallow_buffers_digest(f->old[1], BUFFERS, NULL, device), 0);
    assert_memory_equal(cpu, device, sizeof cpu);
    assert_int_equal(qallow_delta_info_get(f->delta[0].data, length, &info), 0);
    assert_memory_equal(info.base, cpu, sizeof cpu);
    assert_int_equal(info.buffers, BUFFERS);
    assert_in_range(info.changed_bytes, TOTAL / 200, TOTAL / 50);
    f->old[0][1].id = 77; /* an empty buffer counts too */
    assert_int_equal(qallow_buffers_digest(f->old[0], BUFFERS, NULL, device), 0);
    assert_memory_not_equal(cpu, device, sizeof cpu);
}

static void test_limit(void **state)
{
    struct fixture *f = *state;
    for (int device = 0; device < 2; device++) {
        const uint64_t length = extract(f, device);
        struct qallow_buffer small = f->delta[device];
        uint64_t needed = 0;
        small.length = length - 1;
        assert_int_equal(
            qallow_delta_extract(f->old[device], f->new_[device], BUFFERS, &small, NULL, &needed),
            QALLOW_E_LIMIT);
        assert_int_equal(needed, length);
    }
}

/* --- deltas that must be refused --- */

/* Refused by both, with the states as they were. */
static void expect_refused(struct fixture *f, uint64_t length, int error)
{
    for (int device = 0; device < 2; device++) {
        if (device)
            memcpy(f->delta[1].data, f->delta[0].data, f->delta[0].length);
        assert_int_equal(
            qallow_delta_apply(f->old[device], BUFFERS, &f->delta[device], length, NULL), error);
        assert_true(strlen(qallow_error_detail()) > 0);
        if (device)
            expect_equal(f->old[1], f->old[0]);
    }
}

static void test_wrong_base(void **state)
{
    struct fixture *f = *state;
    const uint64_t length = extract(f, 0);
    for (int device = 0; device < 2; device++)
        ((uint8_t *)f->old[device][0].data)[50000] ^= 1;
    expect_refused(f, length, QALLOW_E_DIFFERS);
    for (int device = 0; device < 2; device++)
        ((uint8_t *)f->old[device][0].data)[50000] ^= 1;
    assert_int_equal(qallow_delta_apply(f->old[0], BUFFERS, &f->delta[0], length, NULL), 0);
    assert_int_equal(qallow_delta_apply(f->old[0], BUFFERS, &f->delta[0], length, NULL),
                     QALLOW_E_DIFFERS);
    assert_non_null(strstr(qallow_error_detail(), "already"));
}

static void test_other_buffers(void **state)
{
    struct fixture *f = *state;
    const uint64_t length = extract(f, 0);
    for (int device = 0; device < 2; device++)
        f->old[device][2].id = 9;
    expect_refused(f, length, QALLOW_E_INVALID_DELTA);
    for (int device = 0; device < 2; device++) {
        f->old[device][2].id = 0;
        assert_int_equal(
            qallow_delta_apply(f->old[device], BUFFERS - 1, &f->delta[device], length, NULL),
            QALLOW_E_INVALID_DELTA);
    }
}

static void test_cut_off(void **state)
{
    struct fixture *f = *state;
    const uint64_t length = extract(f, 0);
    static const uint64_t short_lengths[] = {0, 1, 100, 127, 128, 130, 200, 1000};
    for (size_t i = 0; i < sizeof short_lengths / sizeof *short_lengths; i++)
        expect_refused(f, short_lengths[i], QALLOW_E_DAMAGED);
    expect_refused(f, length - 1, QALLOW_E_DAMAGED);
}

static void test_damaged(void **state)
{
    struct fixture *f = *state;
    const uint64_t length = extract(f, 0);
    uint8_t *bytes = f->delta[0].data;
    for (uint64_t at = 0; at < length; at += at < 400 ? 1 : 97) {
        bytes[at] ^= 0x10;
        expect_refused(f, length, at >= 8 && at < 12 ? QALLOW_E_VERSION : QALLOW_E_DAMAGED);
        bytes[at] ^= 0x10;
    }
    expect_equal(f->old[0], f->old[1]);
    assert_int_equal(qallow_delta_apply(f->old[0], BUFFERS, &f->delta[0], length, NULL), 0);
}

/* A forged delta: its sums are right, what it says is not. */
static void seal(uint8_t *bytes, uint64_t length)
{
    const struct qb_u128 body = qb_kernels()->hash_cells(bytes + 128, length - 128, 0, 0);
    memcpy(bytes + 96, &body, sizeof body);
    const uint64_t sum = qb_kernels()->hash64(bytes, 120, 0);
    memcpy(bytes + 120, &sum, sizeof sum);
}

static void test_forged(void **state)
{
    struct fixture *f = *state;
    const uint64_t length = extract(f, 0);
    uint8_t *bytes = f->delta[0].data;
    uint8_t *whole = malloc(length);
    memcpy(whole, bytes, length);
    for (unsigned i = 0; i < 400; i++) {
        const uint64_t at = 128 + next_random(&f->random) % (length - 128);
        bytes[at] ^= (uint8_t)(1 + next_random(&f->random) % 255);
        seal(bytes, length);
        expect_refused(f, length,
                       at < 128 + 16 * BUFFERS ? QALLOW_E_INVALID_DELTA : QALLOW_E_DAMAGED);
        memcpy(bytes, whole, length);
    }
    for (unsigned i = 16; i < 64; i++) { /* lengths and counts */
        bytes[i] ^= 1;
        seal(bytes, length);
        expect_refused(f, length, QALLOW_E_DAMAGED);
        memcpy(bytes, whole, length);
    }
    bytes[80] ^= 1; /* another result: found out after the change, which is taken back */
    seal(bytes, length);
    expect_refused(f, length, QALLOW_E_DAMAGED);
    assert_non_null(strstr(qallow_error_detail(), "was put back"));
    free(whole);
}

/* --- arguments --- */

static void test_arguments(void **state)
{
    struct fixture *f = *state;
    uint64_t length;
    struct qallow_buffer mixed[BUFFERS];
    memcpy(mixed, f->old[0], sizeof mixed);
    mixed[2] = f->old[1][2];
    assert_int_equal(qallow_delta_extract(mixed, f->new_[0], BUFFERS, &f->delta[0], NULL, &length),
                     QALLOW_E_UNSUPPORTED_LOCATION);
    assert_int_equal(
        qallow_delta_extract(f->old[0], f->new_[1], BUFFERS, &f->delta[0], NULL, &length),
        QALLOW_E_UNSUPPORTED_LOCATION);
    assert_int_equal(
        qallow_delta_extract(f->old[0], f->new_[0], BUFFERS, &f->delta[1], NULL, &length),
        QALLOW_E_UNSUPPORTED_LOCATION);
    mixed[2] = f->old[0][2];
    mixed[2].length--;
    assert_int_equal(qallow_delta_extract(mixed, f->new_[0], BUFFERS, &f->delta[0], NULL, &length),
                     QALLOW_E_ARGUMENT);
    mixed[2].size = 0;
    assert_int_equal(qallow_delta_bound(mixed, BUFFERS, &length), QALLOW_E_ARGUMENT);
    struct qallow_buffer shifted = f->delta[0];
    shifted.data = (uint8_t *)shifted.data + 1;
    assert_int_equal(qallow_delta_extract(f->old[0], f->new_[0], BUFFERS, &shifted, NULL, &length),
                     QALLOW_E_ARGUMENT);
}

/* --- a device that fails --- */

static void test_no_device(void **state)
{
    struct fixture *f = *state;
    uint64_t length = extract(f, 0);
    static const struct {
        enum qb_result result;
        int error;
        const char *text;
    } cases[] = {{QB_NO_DEVICE, QALLOW_E_NO_DEVICE, "no GPU"},
                 {QB_OLD_DRIVER, QALLOW_E_NO_DEVICE, "newer driver"}};
    for (size_t i = 0; i < 2; i++) {
        emulated_fail(EMULATED_DESCRIBE, 1, cases[i].result);
        assert_int_equal(qallow_delta_apply(f->old[1], BUFFERS, &f->delta[0], length, NULL),
                         cases[i].error);
        assert_non_null(strstr(qallow_error_detail(), cases[i].text));
    }
    emulated_fail(EMULATED_ANY, 0, QB_DONE);
}

/* One thing that can be done with the device. */
static int act(struct fixture *f, unsigned what, const struct qallow_buffer *delta, uint64_t length)
{
    uint64_t digest[2], out;
    if (what == 0)
        return qallow_delta_extract(f->old[1], f->new_[1], BUFFERS, &f->delta[1], NULL, &out);
    if (what == 1)
        return qallow_delta_apply(f->old[1], BUFFERS, delta, length, NULL);
    if (what == 2)
        return qallow_delta_undo(f->new_[1], BUFFERS, delta, length, NULL);
    return qallow_buffers_digest(f->old[1], BUFFERS, NULL, digest);
}

/* Every call fails once, with every result: the error fits, nothing stays allocated, and a state is
 * either the base, or, if the failure came after the change, the result. */
static void test_every_failure(void **state)
{
    static const struct {
        enum qb_result result;
        int error;
    } kinds[] = {{QB_OUT_OF_MEMORY, QALLOW_E_DEVICE_MEMORY},
                 {QB_LOST, QALLOW_E_DEVICE},
                 {QB_FAILED, QALLOW_E_DEVICE}};
    struct fixture *f = *state;
    const uint64_t length = extract(f, 0), held = emulated_allocated();
    for (unsigned what = 0; what < 4; what++) {
        for (unsigned long n = 1;; n++) {
            int rc = 0;
            unsigned long calls = 0;
            for (size_t k = 0; k < 3; k++) {
                emulated_fail(EMULATED_ANY, n, kinds[k].result);
                rc = act(f, what, &f->delta[0], length);
                calls = emulated_count(EMULATED_ANY);
                emulated_fail(EMULATED_ANY, 0, QB_DONE);
                assert_int_equal(emulated_allocated(), held);
                if (rc == 0)
                    break;
                assert_int_equal(rc, kinds[k].error);
                for (unsigned i = 0; i < BUFFERS; i++) {
                    const struct qallow_buffer *now = what == 2 ? f->new_[1] : f->old[1];
                    const int base = !memcmp(now[i].data, f->old[0][i].data, lengths[i]);
                    const int result = !memcmp(now[i].data, f->new_[0][i].data, lengths[i]);
                    assert_true(base || result);
                    memcpy(f->old[1][i].data, f->old[0][i].data, lengths[i]);
                    memcpy(f->new_[1][i].data, f->new_[0][i].data, lengths[i]);
                }
            }
            if (calls < n) /* it did not come to the n-th call */
                break;
            assert_int_not_equal(rc, 0);
        }
        for (unsigned i = 0; i < BUFFERS; i++) {
            memcpy(f->old[1][i].data, f->old[0][i].data, lengths[i]);
            memcpy(f->new_[1][i].data, f->new_[0][i].data, lengths[i]);
        }
    }
}

static void test_out_of_memory(void **state)
{
    struct fixture *f = *state;
    uint64_t length;
    emulated_set_memory(emulated_allocated() + 1000);
    assert_int_equal(
        qallow_delta_extract(f->old[1], f->new_[1], BUFFERS, &f->delta[1], NULL, &length),
        QALLOW_E_DEVICE_MEMORY);
    assert_non_null(strstr(qallow_error_detail(), "bytes asked for, 1000 of"));
}

/* The delta alone crosses the bus, and what describes it. */
static void test_bus(void **state)
{
    struct fixture *f = *state;
    const uint64_t length = extract(f, 0);
    const uint64_t before = emulated_bus_bytes(), launches = qt_get(QT_GPU_LAUNCHES);
    const uint64_t told = qt_get(QT_GPU_SENT_BYTES) + qt_get(QT_GPU_RECEIVED_BYTES);
    assert_int_equal(qallow_delta_apply(f->old[1], BUFFERS, &f->delta[0], length, NULL), 0);
    assert_in_range(emulated_bus_bytes() - before, length, length + 2000);
    assert_int_equal(qt_get(QT_GPU_SENT_BYTES) + qt_get(QT_GPU_RECEIVED_BYTES) - told,
                     emulated_bus_bytes() - before);
    assert_true(qt_get(QT_GPU_LAUNCHES) - launches >=
                6); /* two hashes, count, scan, check, apply */
}

/* Large transfers, through both pinned buffers several times. */
static void test_staging(void **state)
{
    enum { LENGTH = 19 << 20 };
    struct fixture *f = *state;
    struct qr_device device;
    struct qallow_buffer memory = buffer(1, LENGTH), from = buffer(0, LENGTH),
                         to = buffer(0, LENGTH);
    for (uint64_t i = 0; i < LENGTH; i++)
        ((uint8_t *)from.data)[i] = (uint8_t)next_random(&f->random);
    assert_int_equal(qr_device_begin(&device, NULL), 0);
    for (uint64_t length = LENGTH; length > LENGTH - (9 << 20); length -= 4 << 20) {
        assert_int_equal(qr_device_upload(&device, memory.data, from.data, length), 0);
        memset(to.data, 0, LENGTH);
        assert_int_equal(qr_device_download(&device, to.data, memory.data, length), 0);
        assert_memory_equal(to.data, from.data, length);
    }
    qr_device_end(&device);
    drop(&memory);
    drop(&from);
    drop(&to);
}

/* With the real device. */
static int run_on_device(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_twins, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_change, setup, teardown),
        cmocka_unit_test_setup_teardown(test_digest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wrong_base, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_buffers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cut_off, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
        cmocka_unit_test_setup_teardown(test_forged, setup, teardown),
        cmocka_unit_test_setup_teardown(test_arguments, setup, teardown),
        cmocka_unit_test_setup_teardown(test_staging, setup, teardown),
    };
    struct qb_device_info info;
    if (qr_device_describe(&info) < 0) {
        printf("SKIP: %s\n", qallow_error_detail());
        return 77;
    }
    is_real = 1;
    return cmocka_run_group_tests_name("device", tests, NULL, NULL);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--cuda") == 0)
        return run_on_device();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_twins, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_change, setup, teardown),
        cmocka_unit_test_setup_teardown(test_digest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wrong_base, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_buffers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cut_off, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
        cmocka_unit_test_setup_teardown(test_forged, setup, teardown),
        cmocka_unit_test_setup_teardown(test_arguments, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_device, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_failure, setup, teardown),
        cmocka_unit_test_setup_teardown(test_out_of_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bus, setup, teardown),
        cmocka_unit_test_setup_teardown(test_staging, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
