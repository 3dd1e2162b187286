/* SPDX-License-Identifier: Apache-2.0 */
/* The bodies of CONTENT frames: whatever changes, decoding gives what was encoded; a body that was
 * spoilt gives an error or other bytes, and touches nothing else; and what a body may take. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runtime/elements.h"
#include "runtime/format.h"
#include "tests/tensors/support.h"

#include <cmocka.h>

enum { LENGTH_MAX = 300000 };

static uint64_t state;

static uint64_t rnd(uint64_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return below ? state % below : state;
}

static int begin(void **context)
{
    const char *given = getenv("QALLOW_SEED");
    state = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    printf("QALLOW_SEED=%llu\n", (unsigned long long)state);
    state = state * UINT64_C(0x9E3779B97F4A7C15) + 1;
    (void)context;
    return 0;
}

static void fill(uint8_t *bytes, size_t length)
{
    uint64_t kind = rnd(3);
    for (size_t i = 0; i < length; i++)
        bytes[i] = kind == 0 ? 0 : (uint8_t)rnd(kind == 1 ? 4 : 256);
}

/* Changes about one element in `every`. */
static void change(uint8_t *bytes, size_t length, unsigned width, uint64_t every)
{
    for (size_t i = 0; i < length / width; i++) {
        uint64_t value = 0;
        if (rnd(every))
            continue;
        memcpy(&value, bytes + i * width, width);
        value = rnd(2) ? value + rnd(3) - 1 : rnd(0);
        memcpy(bytes + i * width, &value, width);
    }
}

struct fixture {
    struct qr_elements_encoder *encoder;
    struct qr_elements_scratch scratch;
    uint8_t *old, *new_, *got;
};

static void decodes(struct fixture *f, const struct qr_elements_job *job, const uint8_t *body,
                    size_t size)
{
    struct qr_elements e;
    assert_int_equal(qr_elements_parse(body, size, &e), 0);
    assert_int_equal(e.length, job->length);
    if (e.base != QR_REF_ZERO) {
        assert_int_equal(e.base, job->base);
        assert_true(e.cost >= job->base_cost + QR_ELEMENTS_COST + size);
        assert_true(e.cost <= job->cost_limit);
        memcpy(f->got, f->old, job->length);
    }
    assert_int_equal(qr_elements_decode(&e, f->got, &f->scratch), 0);
    assert_memory_equal(f->got, f->new_, job->length);
    assert_true(size <= job->length + 16);
}

static struct qr_elements_job random_job(struct fixture *f)
{
    static const size_t lengths[] = {8, 16, 64, 72, 128, 1000, 4096, LENGTH_MAX};
    static const uint64_t every[] = {1, 2, 3, 10, 100, 300, 100000};
    unsigned width = 1u << rnd(4);
    struct qr_elements_job job = {.new_ = f->new_, .length = lengths[rnd(8)], .width = width};
    if (rnd(2))
        job.length = (1 + rnd(600)) * width;
    fill(f->old, job.length);
    memcpy(f->new_, f->old, job.length);
    change(f->new_, job.length, width, every[rnd(7)]);
    job.old = rnd(5) ? f->old : NULL;
    job.base = rnd(1000);
    job.base_cost = rnd(2) ? rnd(10000) : 0;
    job.cost_limit = rnd(4) ? 1 << 20 : 0;
    return job;
}

static void body_decodes(void **context)
{
    struct fixture f = {
        .old = malloc(LENGTH_MAX), .new_ = malloc(LENGTH_MAX), .got = malloc(LENGTH_MAX)};
    int levels[] = {0, 1, 3};
    for (int round = 0; round < 300; round++) {
        const uint8_t *body;
        size_t size;
        if (round % 100 == 0) {
            qr_elements_encoder_destroy(f.encoder);
            assert_int_equal(qr_elements_encoder_create(levels[round / 100], &f.encoder), 0);
        }
        struct qr_elements_job job = random_job(&f);
        assert_int_equal(qr_elements_encode(f.encoder, &job, &body, &size), 0);
        if (size == 0)
            assert_memory_equal(f.old, f.new_, job.length);
        else
            decodes(&f, &job, body, size);
    }
    qr_elements_encoder_destroy(f.encoder);
    qr_elements_scratch_finish(&f.scratch);
    free(f.old);
    free(f.new_);
    free(f.got);
    (void)context;
}

static void spoilt_body_is_harmless(void **context)
{
    struct fixture f = {.old = malloc(LENGTH_MAX), .new_ = malloc(LENGTH_MAX)};
    int valid = 0, tries = 0;
    assert_int_equal(qr_elements_encoder_create(1, &f.encoder), 0);
    for (int round = 0; round < 200; round++) {
        const uint8_t *body;
        size_t size;
        struct qr_elements_job job = random_job(&f);
        assert_int_equal(qr_elements_encode(f.encoder, &job, &body, &size), 0);
        if (size == 0)
            continue;
        uint8_t *spoilt = malloc(size);
        for (int i = 0; i < 10; i++, tries++) {
            memcpy(spoilt, body, size);
            size_t front = rnd(2) && size > 24 ? 24 : size;
            spoilt[rnd(front)] = (uint8_t)rnd(256);
            valid += try_to_decode(spoilt, rnd(4) ? size : rnd(size));
        }
        free(spoilt);
    }
    assert_true(valid < tries); /* it was seen that some are refused */
    qr_elements_encoder_destroy(f.encoder);
    free(f.old);
    free(f.new_);
    (void)context;
}

/* The entropy of a choice that comes out with probability `share`, in bits of 2^-10; a table, so
 * that the test needs no mathematics of its own: 1 %, 5 %, 10 %, 50 %. */
static void changes_take_little_more_than_their_entropy(void **context)
{
    static const struct {
        uint64_t every, bits; /* per element, 2^-10 */
    } shares[] = {{100, 83}, {20, 293}, {10, 480}, {2, 1024}};
    struct fixture f = {.old = malloc(LENGTH_MAX), .new_ = malloc(LENGTH_MAX)};
    size_t elements = LENGTH_MAX / 4;
    assert_int_equal(qr_elements_encoder_create(1, &f.encoder), 0);
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        const uint8_t *body;
        size_t size, changed = 0;
        for (size_t at = 0; at < LENGTH_MAX; at++)
            f.old[at] = (uint8_t)rnd(256);
        memcpy(f.new_, f.old, LENGTH_MAX);
        for (size_t at = 0; at < elements; at++)
            if (rnd(shares[i].every) == 0) {
                f.new_[4 * at] ^= (uint8_t)(1 + rnd(255)); /* one byte of entropy */
                changed++;
            }
        struct qr_elements_job job = {
            .new_ = f.new_, .old = f.old, .length = LENGTH_MAX, .width = 4, .cost_limit = 1 << 21};
        assert_int_equal(qr_elements_encode(f.encoder, &job, &body, &size), 0);
        size_t ideal = changed + elements * shares[i].bits / 8 / 1024;
        printf("1 in %llu: %zu bytes, ideal %zu\n", (unsigned long long)shares[i].every, size,
               ideal);
        assert_true(size < ideal + ideal * 3 / 10 + 500); /* xor of one byte spreads by carries */
    }
    qr_elements_encoder_destroy(f.encoder);
    free(f.old);
    free(f.new_);
    (void)context;
}

/* What cannot be made smaller is kept as it is; what can by a third, in planes. */
static void whole_content_is_plain_or_planes(void **context)
{
    struct fixture f = {.new_ = malloc(LENGTH_MAX)};
    assert_int_equal(qr_elements_encoder_create(1, &f.encoder), 0);
    for (unsigned width = 1; width <= 8; width *= 2) {
        for (int coding = QR_CODING_PLAIN; coding <= QR_CODING_PLANES; coding++) {
            const uint8_t *body;
            size_t size;
            struct qr_elements e;
            struct qr_elements_job job = {
                .new_ = f.new_, .length = LENGTH_MAX, .width = width, .base = QR_REF_ZERO};
            for (size_t i = 0; i < LENGTH_MAX; i++)
                f.new_[i] = (uint8_t)rnd(coding == QR_CODING_PLAIN ? 256 : 4);
            assert_int_equal(qr_elements_encode(f.encoder, &job, &body, &size), 0);
            assert_int_equal(qr_elements_parse(body, size, &e), 0);
            assert_int_equal(e.coding, coding);
        }
    }
    qr_elements_encoder_destroy(f.encoder);
    free(f.new_);
    (void)context;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_content_is_plain_or_planes),
        cmocka_unit_test(body_decodes),
        cmocka_unit_test(spoilt_body_is_harmless),
        cmocka_unit_test(changes_take_little_more_than_their_entropy),
    };
    return cmocka_run_group_tests(tests, begin, NULL);
}
