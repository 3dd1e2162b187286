/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A page that is written over again and again: its pieces beside a model that knows for each byte
 * where it stands. Looked at at random times, by copy and by settling; allocations fail at random.
 * QALLOW_SEED=N repeats a run.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "qallow/error.h"
#include "runtime/error.h"
#include "runtime/os.h"
#include "runtime/state_internal.h"
#include "tests/random.h"

enum { SIZE_MAX_HERE = 3000, FRAME = 4096 };

static uint64_t seed;

static uint64_t below(uint64_t n) { return next_random(&seed) % n; }

/* A page with zeros, literals and both in turn, and what the model knows of it. */
static struct qr_page *make_page(struct qr_state *state, uint64_t size, qr_ref *model)
{
    struct qr_page *page;
    struct qr_piece *pieces = qr_malloc((size_t)size * sizeof *pieces);
    uint32_t count = 0;
    assert_non_null(pieces);
    assert_int_equal(qr_state_create_page(state, 1, 0, "a", 1, QR_KIND_RAW, &page), 0);
    for (uint64_t at = 0; at < size;) {
        uint64_t n = 1 + below(size - at);
        qr_ref ref = count % 2 ? QR_REF_ZERO : qr_ref_make(FRAME, at);
        pieces[count++] = (struct qr_piece){ref, n};
        for (uint64_t end = at + n; at < end; at++)
            model[at] = ref == QR_REF_ZERO ? ref : qr_ref_make(FRAME, at);
    }
    struct qb_u128 sum = {0};
    qr_state_set_content(state, page, pieces, count, (uint32_t)size, size, &sum);
    return page;
}

/* What stands together in the log, or is zeros, is one piece: nothing else comes to lie beside it.
 */
static uint32_t count_runs(const qr_ref *model, uint64_t size)
{
    uint32_t runs = 1;
    for (uint64_t i = 1; i < size; i++)
        runs += model[i] != (model[i - 1] == QR_REF_ZERO ? QR_REF_ZERO : model[i - 1] + 1);
    return runs;
}

/* The pieces give the model's bytes, are as few as there can be, and are counted. */
static void check(const struct qr_state *state, const struct qr_page *page, const qr_ref *model)
{
    uint32_t most = qr_page_pieces_max(page);
    struct qr_piece *pieces = malloc((most + 1u) * sizeof *pieces);
    uint64_t at = 0;
    assert_non_null(pieces);
    uint32_t count = qr_page_copy_pieces(page, pieces);
    assert_true(count <= most);
    for (uint32_t i = 0; i < count; i++) {
        assert_true(pieces[i].length > 0 && pieces[i].length <= page->size - at);
        for (uint64_t end = at + pieces[i].length, into = 0; at < end; at++, into++)
            if (model[at] != (pieces[i].ref == QR_REF_ZERO ? QR_REF_ZERO : pieces[i].ref + into))
                fail_msg("byte %llu is another one", (unsigned long long)at);
    }
    assert_int_equal(at, page->size);
    assert_int_equal(count, count_runs(model, page->size));
    assert_int_equal(state->piece_total, most);
    free(pieces);
}

static long allocations_left = -1;
static int fail_at_zero(size_t size) { return allocations_left-- == 0; }

/* Frames grow, so no overwrite follows another one in the log. */
static void overwrite(struct qr_state *state, struct qr_page *page, qr_ref *model, uint64_t frame)
{
    uint64_t offset = below(page->size), length = 1 + below(page->size - offset);
    if (below(4))
        length = 1 + below(length < 40 ? length : 40);
    if (below(50) == 0) {
        offset = 0;
        length = page->size;
    }
    qr_ref ref = qr_ref_make(FRAME * (2 + frame), below(1000));
    allocations_left = (long)below(8);
    int rc = qr_page_overwrite(state, page, offset, length, ref);
    allocations_left = -1;
    if (rc == QALLOW_E_NO_MEMORY)
        return;
    assert_int_equal(rc, 0);
    for (uint64_t i = 0; i < length; i++)
        model[offset + i] = ref + i;
}

static void test_overwrites(void **context)
{
    qr_ref *model = malloc(SIZE_MAX_HERE * sizeof *model);
    assert_non_null(model);
    for (int round = 0; round < 6000; round++) {
        struct qr_state *state;
        assert_int_equal(qr_state_create(&state), 0);
        struct qr_page *page = make_page(state, 1 + below(SIZE_MAX_HERE), model);
        qr_set_allocation_hook(fail_at_zero);
        for (uint64_t i = 0, steps = below(120); i < steps; i++) {
            overwrite(state, page, model, i);
            if (below(10) == 0)
                assert_int_equal(qr_page_settle(state, page), 0);
            if (below(4) == 0)
                check(state, page, model);
        }
        check(state, page, model);
        qr_set_allocation_hook(NULL);
        qr_state_destroy(state);
    }
    free(model);
}

/* Beyond what a note can say: put in its place at once. */
static void test_long_overwrite(void **context)
{
    enum { LARGE = 200 << 10 };
    qr_ref *model = malloc(LARGE * sizeof *model);
    struct qr_state *state;
    assert_non_null(model);
    assert_int_equal(qr_state_create(&state), 0);
    struct qr_page *page = make_page(state, LARGE, model);
    for (uint64_t i = 0; i < 40; i++) {
        uint64_t offset = below(LARGE / 2), length = i % 2 ? 70000 : 5;
        assert_int_equal(
            qr_page_overwrite(state, page, offset, length, qr_ref_make(FRAME * (2 + i), 7)), 0);
        for (uint64_t at = 0; at < length; at++)
            model[offset + at] = qr_ref_make(FRAME * (2 + i), 7) + at;
        check(state, page, model);
    }
    qr_state_destroy(state);
    free(model);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_overwrites),
        cmocka_unit_test(test_long_overwrite),
    };
    const char *given = getenv("QALLOW_SEED");
    seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    printf("QALLOW_SEED=%llu\n", (unsigned long long)seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
