/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a case is measured, with cases that take no time but say what they took: turns, repetitions,
 * ratios, failures; the table of cases; the scratch directory.
 */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h> /* needs the above */

#include "bench/case.h"

#define assert_close(a, b) assert_true(fabs((a) - (b)) < 1e-9)

/* --- a case whose times are made up --- */

static struct script {
    char turns[128]; /* q: Qallow, r: reference; in the order of the calls */
    uint64_t repeats[2];
    double seconds[2];     /* an operation */
    int setup_rc, fail_at; /* the number of the call that fails; 0: none */
    unsigned calls, finished;
} script;

static int setup(struct qm_context *context) { return script.setup_rc; }
static void finish(struct qm_context *context) { script.finished++; }

static int side(unsigned number, uint64_t repeats, struct qm_sample *sample)
{
    script.turns[script.calls++] = "qr"[number];
    script.repeats[number] = repeats;
    *sample = (struct qm_sample){(double)repeats * script.seconds[number], (double)repeats};
    return (int)script.calls == script.fail_at ? qr_fail(QALLOW_E_IO, "as asked") : 0;
}
static int run(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    return side(0, repeats, sample);
}
static int run_reference(struct qm_context *context, uint64_t repeats, struct qm_sample *sample)
{
    return side(1, repeats, sample);
}

static const struct qm_work work = {setup, run, run_reference, finish};
static const struct qm_work work_alone = {setup, run, NULL, finish};
static struct qm_case made_up(const struct qm_unit *unit, struct qm_target target)
{
    return (struct qm_case){.name = "made/up",
                            .title = "made up",
                            .reference = "another",
                            .what = "Nothing.",
                            .unit = unit,
                            .target = target,
                            .work = &work};
}

static int measure(const struct qm_case *what, unsigned runs, int (*stop)(void *),
                   struct qm_result *result)
{
    struct qm_options options = {.tier = QM_SMOKE, .stop = stop};
    struct qm_context context = {
        .what = what, .options = &options, .directory = "/nowhere", .size = 1, .threads = 1};
    return qm_measure(&context, runs, result);
}

/* --- measuring --- */

/* 1 us and 4 us an operation: 8 ms are 8,000 and 2,000 of them. */
static void test_turns(void **state)
{
    struct qm_case what = made_up(&qm_us, (struct qm_target){QM_RATIO, 0.3});
    struct qm_result result;
    script = (struct script){.seconds = {1e-6, 4e-6}};
    assert_int_equal(measure(&what, 5, NULL, &result), 0);
    size_t warm_up = script.calls - 10;
    assert_string_equal(script.turns + warm_up, "qrrqqrrqqr");
    assert_true(script.repeats[0] >= 8000 && script.repeats[0] < 16000);
    assert_true(script.repeats[1] >= 2000 && script.repeats[1] < 4000);
    assert_close(result.figure.median, 1);
    assert_close(result.reference.median, 4);
    assert_close(result.ratio.median, 0.25);
    assert_int_equal(script.finished, 1);
    assert_int_equal(result.runs, 5);
}

static void test_units(void **state)
{
    struct qm_case what = made_up(&qm_gb_s, (struct qm_target){QM_NOTHING, 0});
    struct qm_result result;
    script = (struct script){.seconds = {1e-10, 2e-10}}; /* a byte */
    assert_int_equal(measure(&what, 3, NULL, &result), 0);
    assert_close(result.figure.median, 10);
    assert_close(result.ratio.median, 2);
    assert_int_equal(qm_result_reached(&result), -1);
}

static void test_fixed_and_alone(void **state)
{
    struct qm_case what = made_up(&qm_ms, (struct qm_target){QM_FIGURE, 1});
    struct qm_result result;
    what.fixed = 1;
    what.work = &work_alone;
    what.reference = NULL;
    script = (struct script){.seconds = {1e-3, 0}};
    assert_int_equal(measure(&what, 4, NULL, &result), 0);
    assert_string_equal(script.turns, "qqqqq"); /* one of them to warm up */
    assert_int_equal(script.repeats[0], 1);
    assert_close(result.figure.median, 1);
}

static int reached(const struct qm_unit *unit, enum qm_judged judged, double value)
{
    struct qm_case what = made_up(unit, (struct qm_target){judged, value});
    struct qm_result result = {.what = &what, .figure = {.median = 10}, .ratio = {.median = 2}};
    return qm_result_reached(&result);
}

static void test_targets(void **state)
{
    assert_int_equal(reached(&qm_gb_s, QM_RATIO, 2), 1); /* at least */
    assert_int_equal(reached(&qm_gb_s, QM_RATIO, 2.1), 0);
    assert_int_equal(reached(&qm_gb_s, QM_FIGURE, 9), 1);
    assert_int_equal(reached(&qm_gb_s, QM_FIGURE, 11), 0);
    assert_int_equal(reached(&qm_ns, QM_RATIO, 2), 1); /* at most */
    assert_int_equal(reached(&qm_ns, QM_RATIO, 1.9), 0);
    assert_int_equal(reached(&qm_ns, QM_FIGURE, 11), 1);
    assert_int_equal(reached(&qm_ns, QM_FIGURE, 9), 0);
    assert_int_equal(reached(&qm_ns, QM_NOTHING, 0), -1);
}

static void test_failures(void **state)
{
    struct qm_case what = made_up(&qm_ns, (struct qm_target){QM_RATIO, 1});
    struct qm_result result;
    script = (struct script){.seconds = {1, 1}, .fail_at = 4};
    assert_int_equal(measure(&what, 5, NULL, &result), QALLOW_E_IO);
    assert_int_equal(script.calls, 4);
    assert_int_equal(script.finished, 1);
    assert_string_equal(result.detail, "as asked");
    assert_int_equal(qm_result_reached(&result), -1);
    script = (struct script){.seconds = {1, 1}, .setup_rc = QALLOW_E_NO_MEMORY};
    assert_int_equal(measure(&what, 5, NULL, &result), QALLOW_E_NO_MEMORY);
    assert_int_equal(script.calls, 0);
    assert_int_equal(script.finished, 1);
}

static int stop_after_three(void *context)
{
    return script.calls < 3 ? 0 : qr_fail(QALLOW_E_INTERRUPTED, "stop");
}

static void test_stop(void **state)
{
    struct qm_case what = made_up(&qm_ns, (struct qm_target){QM_RATIO, 1});
    struct qm_result result;
    script = (struct script){.seconds = {1, 1}};
    assert_int_equal(measure(&what, 5, stop_after_three, &result), QALLOW_E_INTERRUPTED);
    assert_int_equal(script.calls, 3);
    assert_int_equal(script.finished, 1);
}

/* --- the table --- */

static void test_table(void **state)
{
    const struct qm_case *what, *other;
    size_t count = 0;
    for (size_t i = 0; (what = qm_case_at(i)); i++, count++) {
        assert_non_null(strchr(what->name, '/'));
        assert_true(strlen(what->name) <= 24);  /* --list */
        assert_true(strlen(what->title) <= 36); /* the table */
        assert_true(!what->reference == !what->work->reference_run);
        assert_true(!what->reference || strlen(what->reference) <= 22);
        assert_int_equal(what->what[strlen(what->what) - 1], '.');
        assert_true(what->size > 0 && what->smoke_size <= what->size);
        int needs = strncmp(what->name, "peer/", 5) == 0 || strncmp(what->name, "gpu/", 4) == 0;
        assert_int_equal(needs, what->peer != NULL);
        for (size_t j = 0; j < i && (other = qm_case_at(j)); j++)
            assert_string_not_equal(what->name, other->name);
    }
    assert_true(count > 40);
}

/* --- running --- */

static char directory[] = "/tmp/qallow-bench-test-XXXXXX";

static unsigned entries(void)
{
    unsigned count = 0;
    DIR *dir = opendir(directory);
    while (dir && readdir(dir))
        count++;
    if (dir)
        closedir(dir);
    return count - 2;
}

static unsigned progress_calls, seen;
static void count_progress(void *context, const struct qm_case *now, size_t done, size_t count)
{
    assert_int_equal(done, progress_calls++);
    assert_int_equal(count, 2);
    seen += entries(); /* the scratch directory */
}

static void test_run(void **state)
{
    static const char *const filters[] = {"kernel/zero-64k", "del*mask-4k"};
    struct qm_options options = {.filters = filters,
                                 .filter_count = 2,
                                 .runs = 3,
                                 .directory = directory,
                                 .progress = count_progress};
    struct qm_report report;
    assert_int_equal(qm_count(&options), 2);
    assert_int_equal(qm_run(&options, &report), 0);
    assert_int_equal(report.count, 2);
    assert_string_equal(report.results[0].what->name, "kernel/zero-64k");
    assert_true(report.results[0].figure.median > 0);
    assert_int_equal(report.cpu_time, 0);
    assert_int_equal(qm_clock, CLOCK_MONOTONIC);
    assert_int_equal(progress_calls, 2);
    assert_int_equal(seen, 2);
    assert_int_equal(entries(), 0);
    qm_report_finish(&report);
    options.cpu_time = 1;
    options.progress = NULL;
    assert_int_equal(qm_run(&options, &report), 0);
    assert_int_equal(report.cpu_time, 1);
    assert_int_equal(qm_clock, CLOCK_PROCESS_CPUTIME_ID);
    qm_report_finish(&report);
}

static int stop_at_once(void *context) { return qr_fail(QALLOW_E_INTERRUPTED, "stop"); }

static void test_run_stopped(void **state)
{
    static const char *const filters[] = {"commit/durable"};
    struct qm_options options = {
        .filters = filters, .filter_count = 1, .stop = stop_at_once, .directory = directory};
    struct qm_report report;
    assert_int_equal(qm_run(&options, &report), QALLOW_E_INTERRUPTED);
    qm_report_finish(&report);
    assert_int_equal(entries(), 0);
    options.directory = "/nowhere/at/all";
    assert_int_equal(qm_run(&options, &report), QALLOW_E_NO_INPUT);
    qm_report_finish(&report);
}

static int make_directory(void **state) { return mkdtemp(directory) ? 0 : -1; }
static int remove_directory(void **state) { return rmdir(directory); }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_turns),       cmocka_unit_test(test_units),
        cmocka_unit_test(test_targets),     cmocka_unit_test(test_fixed_and_alone),
        cmocka_unit_test(test_failures),    cmocka_unit_test(test_stop),
        cmocka_unit_test(test_table),       cmocka_unit_test(test_run),
        cmocka_unit_test(test_run_stopped),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
