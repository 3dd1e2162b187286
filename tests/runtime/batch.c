/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A delta whose sum is known only at its end is the one that it is when the sum is known before:
 * the same records, as long as all of its edits come with one call; and whatever the calls, the
 * parts of a delta are first, in between, last. QALLOW_SEED=N repeats a run.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "qallow/error.h"
#include "runtime/batch_internal.h"
#include "runtime/format.h"
#include "runtime/record.h"
#include "tests/random.h"

enum { BYTES = 2 << 20 };

static uint64_t seed;
static uint8_t bytes[BYTES];

static uint64_t below(uint64_t n) { return next_random(&seed) % n; }

/* Edits of a page of `size` bytes, whose new size is returned. */
static uint64_t make_edits(struct qr_edits *edits, uint64_t size, size_t count, size_t longest)
{
    uint64_t at = 0, new_size = size;
    for (size_t i = 0; i < count && at < size; i++) {
        uint64_t offset = at + below(size - at), old_length = below(size - offset) % 200;
        struct qr_edit edit = {.offset = offset, .old_length = old_length, .source = QR_LITERAL};
        edit.new_length = below(2) && old_length ? old_length : 1 + below(longest);
        edit.bytes = bytes + below(BYTES - edit.new_length);
        assert_int_equal(qr_edits_add(edits, edit), 0);
        new_size += edit.new_length - old_length;
        at = offset + old_length + 1;
    }
    return new_size;
}

/* The parts of all deltas are in order; how many there are. */
static size_t count_parts(const struct qr_batch *batch, size_t deltas)
{
    size_t parts = 0, ended = 0;
    int is_open = 0;
    for (size_t i = 0; i < batch->count; i++) {
        const struct qr_body *body = &batch->bodies[i];
        struct qr_cursor cursor = qr_cursor(body->raw, body->length);
        struct qr_record record;
        int rc;
        for (; (rc = qr_record_next(&cursor, body->raw, &record)) > 0; parts++) {
            assert_int_equal(!record.first, is_open);
            is_open = !record.last;
            ended += record.last != 0;
        }
        assert_int_equal(rc, 0);
    }
    assert_int_equal(parts, batch->records);
    assert_int_equal(ended, deltas);
    return parts;
}

static void add(struct qr_batch *at_once, struct qr_batch *later, uint64_t page, size_t longest)
{
    struct qr_edits edits = {0}, again = {0};
    uint64_t old_seed = seed, size = 1 + below(100000);
    size_t count = 1 + below(30);
    struct qb_u128 sum = {next_random(&seed), page};
    uint64_t new_size = make_edits(&edits, size, count, longest);
    assert_int_equal(qr_batch_delta(at_once, page, 0, size, new_size, &edits, NULL, sum), 0);
    seed = old_seed; /* encoding may divide edits */
    size = 1 + below(100000);
    count = 1 + below(30);
    (void)next_random(&seed);
    assert_int_equal(make_edits(&again, size, count, longest), new_size);
    assert_int_equal(qr_batch_delta_begin(later, page, 0, size, new_size), 0);
    assert_int_equal(qr_batch_delta_edits(later, &again, NULL), 0);
    assert_int_equal(qr_batch_delta_end(later, sum), 0);
    qr_edits_finish(&edits);
    qr_edits_finish(&again);
}

static void test_small(void **context)
{
    struct qr_batch *at_once, *later;
    assert_int_equal(qr_batch_create(0, &at_once), 0);
    assert_int_equal(qr_batch_create(0, &later), 0);
    for (int round = 0; round < 5000; round++) {
        size_t deltas = 1 + below(5);
        for (size_t i = 0; i < deltas; i++)
            add(at_once, later, 1 + below(1 << 20), 100);
        assert_int_equal(count_parts(at_once, deltas), deltas);
        assert_int_equal(count_parts(later, deltas), deltas);
        assert_int_equal(at_once->count, 1);
        assert_int_equal(later->count, 1);
        assert_int_equal(at_once->bytes, later->bytes);
        assert_int_equal(at_once->bodies[0].length, later->bodies[0].length);
        assert_memory_equal(at_once->bodies[0].raw, later->bodies[0].raw, later->bytes);
        qr_batch_reset(at_once);
        qr_batch_reset(later);
    }
    qr_batch_destroy(at_once);
    qr_batch_destroy(later);
}

/* A batch may be handed on between the edits and the end, and keeps the delta that it is in. */
static void test_handed_on(void **context)
{
    struct qr_edit edit = {.new_length = 100, .source = QR_LITERAL, .bytes = bytes};
    struct qr_edits edits = {0};
    struct qr_batch *batch;
    struct qr_record record;
    struct qb_u128 sum = {1, 2};
    assert_int_equal(qr_batch_create(0, &batch), 0);
    assert_int_equal(qr_edits_add(&edits, edit), 0);
    assert_int_equal(qr_batch_delta_begin(batch, 1, 0, 0, 100), 0);
    assert_int_equal(qr_batch_delta_edits(batch, &edits, NULL), 0);
    qr_batch_taken(batch);
    assert_int_equal(qr_batch_delta_end(batch, sum), 0);
    struct qr_cursor cursor = qr_cursor(batch->bodies[0].raw, batch->bodies[0].length);
    assert_int_equal(qr_record_next(&cursor, batch->bodies[0].raw, &record), 1);
    assert_false(record.first);
    assert_true(record.last);
    assert_int_equal(record.operations_length, 0);
    assert_int_equal(record.content_sum.lo, 1);
    assert_int_equal(qr_left(&cursor), 0);
    qr_edits_finish(&edits);
    qr_batch_destroy(batch);
}

/* Across the ends of bodies. */
static void test_large(void **context)
{
    struct qr_batch *at_once, *later;
    size_t most = 0;
    assert_int_equal(qr_batch_create(0, &at_once), 0);
    assert_int_equal(qr_batch_create(0, &later), 0);
    for (int round = 0; round < 600; round++) {
        for (size_t i = 0; i < 8; i++)
            add(at_once, later, 1 + i, (size_t)1 << (6 + below(12)));
        count_parts(at_once, 8);
        size_t parts = count_parts(later, 8);
        most = parts > most ? parts : most;
        qr_batch_reset(at_once);
        qr_batch_reset(later);
    }
    assert_true(most > 8);
    qr_batch_destroy(at_once);
    qr_batch_destroy(later);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_handed_on),
    };
    const char *given = getenv("QALLOW_SEED");
    seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    printf("QALLOW_SEED=%llu\n", (unsigned long long)seed);
    for (size_t i = 0; i < BYTES; i++)
        bytes[i] = (uint8_t)next_random(&seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
