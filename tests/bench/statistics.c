/* SPDX-License-Identifier: Apache-2.0 */
/* Medians, their intervals and outliers against values worked out by hand; numbers as text. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h> /* needs the above */

#include "bench/bench.h"
#include "tests/random.h"

#define assert_close(a, b) assert_true(fabs((a) - (b)) < 1e-12)

/* 1, 2, ..., count in another order. */
static struct qm_spread of_first(size_t count)
{
    double values[100];
    struct qm_spread spread;
    for (size_t i = 0; i < count; i++)
        values[(i * 37) % count] = (double)i + 1;
    qm_spread_of(values, count, &spread);
    return spread;
}

static void test_median(void **state)
{
    static const double medians[] = {1, 1.5, 2, 2.5, 3};
    for (size_t count = 1; count <= 5; count++)
        assert_close(of_first(count).median, medians[count - 1]);
    assert_close(of_first(15).minimum, 1);
    assert_close(of_first(15).maximum, 15);
}

/* The ranks of tables of the binomial distribution. */
static void test_interval(void **state)
{
    static const struct {
        size_t count;
        double low, high, confidence;
    } known[] = {
        {1, 1, 1, 0},
        {2, 1, 2, 0.5},
        {5, 1, 5, 0.9375},
        {6, 1, 6, 0.96875},
        {7, 1, 7, 0.984375},
        {9, 2, 8, 1 - 2 * 10.0 / 512},
        {15, 4, 12, 1 - 2 * (1 + 15 + 105 + 455) / 32768.0},
        {20, 6, 15, 1 - 2 * (1 + 20 + 190 + 1140 + 4845 + 15504) / 1048576.0},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct qm_spread spread = of_first(known[i].count);
        assert_close(spread.low, known[i].low);
        assert_close(spread.high, known[i].high);
        assert_close(spread.confidence, known[i].confidence);
    }
}

/* Of values that are far from normal, so many intervals hold the true median as they claim. */
static void test_coverage(void **state)
{
    uint64_t seed = 1;
    unsigned held = 0, trials = 20000;
    double claimed = of_first(15).confidence;
    for (unsigned i = 0; i < trials; i++) {
        double values[15];
        struct qm_spread spread;
        for (size_t n = 0; n < 15; n++)
            values[n] = -log(((double)(next_random(&seed) >> 11) + 0.5) / 9007199254740992.0);
        qm_spread_of(values, 15, &spread);
        held += spread.low <= log(2) && log(2) <= spread.high;
    }
    assert_true(fabs((double)held / trials - claimed) < 0.006);
}

static void test_outliers(void **state)
{
    double calm[] = {9.9, 10, 10.1, 10.2, 9.8, 10, 10.05};
    double one[] = {10, 10, 10, 10, 10, 10, 30};
    double two[] = {10.1, 10, 1, 9.9, 10, 10.2, 9.8, 10, 25};
    double wide[] = {5, 6, 7, 8, 9, 10, 11, 12, 13};
    struct qm_spread spread;
    qm_spread_of(calm, 7, &spread);
    assert_int_equal(spread.outliers, 0);
    qm_spread_of(one, 7, &spread);
    assert_int_equal(spread.outliers, 1);
    assert_close(spread.median, 10);
    qm_spread_of(two, 9, &spread);
    assert_int_equal(spread.outliers, 2);
    qm_spread_of(wide, 9, &spread);
    assert_int_equal(spread.outliers, 0);
}

static void test_numbers(void **state)
{
    static const struct {
        double value;
        const char *text;
    } known[] = {
        {0, "0"},          {1, "1.00"},       {0.9996, "1.00"},     {0.5, "0.500"},
        {9.99, "9.99"},    {9.996, "10.0"},   {12.34, "12.3"},      {99.94, "99.9"},
        {99.96, "100"},    {999.4, "999"},    {1234.4, "1,234"},    {1234567, "1,234,567"},
        {-1234, "-1,234"}, {0.0123, "0.012"}, {0.00012, "0.00012"}, {1e15, "1e+15"},
    };
    char text[QM_NUMBER_MAX];
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        assert_string_equal(qm_number(known[i].value, text), known[i].text);
    assert_string_equal(qm_format_time(INT64_C(1795256220123456789), text), "2026-11-21T10:17:00Z");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_median),   cmocka_unit_test(test_interval),
        cmocka_unit_test(test_coverage), cmocka_unit_test(test_outliers),
        cmocka_unit_test(test_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
