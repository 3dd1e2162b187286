/* SPDX-License-Identifier: Apache-2.0 */
/* Earlier reports: what is read back, what is refused, and what counts as slower. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h> /* needs the above */

#include "bench/bench.h"
#include "qallow/error.h"
#include "runtime/os.h"

#define assert_close(a, b) assert_true(fabs((a) - (b)) < 1e-9)

static char directory[] = "/tmp/qallow-baseline-XXXXXX", path[64];

static const struct qm_case *find_case(const char *name)
{
    const struct qm_case *what;
    for (size_t i = 0; (what = qm_case_at(i)); i++)
        if (strcmp(what->name, name) == 0)
            return what;
    fail_msg("no case %s", name);
    return NULL;
}

static struct qm_result result_of(const char *name, uint64_t size, double ratio)
{
    return (struct qm_result){.what = find_case(name),
                              .size = size,
                              .threads = 1,
                              .runs = 7,
                              .figure = {.median = 2, .low = 1, .high = 3},
                              .reference = {.median = 2 / ratio},
                              .ratio = {.median = ratio}};
}

/* A rate, a time, one of another size, and one that failed. */
static struct qm_result now[4];
static struct qm_report report = {.results = now, .count = 4, .time_ns = 1000000000};
static void fill_report(void)
{
    now[0] = result_of("kernel/copy-4k", 4096, 1.0);
    now[1] = result_of("delta/apply-sparse", 1 << 20, 4.0);
    now[2] = result_of("log/append-4k", 8 << 20, 0.5);
    now[3] = result_of("cache/get-10k", 10000, 2.0);
    now[3].status = QALLOW_E_IO;
    snprintf(now[3].detail, sizeof now[3].detail, "a \"quoted\" <failure>");
    report.machine.kernels = "scalar";
    report.cpu_time = 1;
}

static void write_text(const char *text)
{
    assert_int_equal(qm_write_file(path, text, strlen(text)), 0);
}

static void save_report(void)
{
    cJSON *object = qm_report_json(&report);
    char *text = cJSON_Print(object);
    write_text(text);
    cJSON_free(text);
    cJSON_Delete(object);
}

static void test_round_trip(void **state)
{
    struct qm_baseline baseline;
    fill_report();
    save_report();
    assert_int_equal(qm_baseline_load(path, &baseline), 0);
    assert_int_equal(baseline.count, 3); /* not what failed */
    assert_string_equal(baseline.time, "1970-01-01T00:00:01Z");
    assert_int_equal(baseline.cpu_time, 1);
    const struct qm_past *past = qm_baseline_find(&baseline, "delta/apply-sparse", 1 << 20);
    assert_non_null(past);
    assert_close(past->ratio, 4);
    assert_close(past->figure, 2);
    assert_close(past->reference, 0.5);
    assert_null(qm_baseline_find(&baseline, "delta/apply-sparse", 1));
    assert_null(qm_baseline_find(&baseline, "delta/apply", 1 << 20));
    qm_baseline_finish(&baseline);
}

static void test_compare(void **state)
{
    struct qm_baseline baseline;
    struct qm_change *changes;
    size_t count;
    fill_report();
    save_report();
    assert_int_equal(qm_baseline_load(path, &baseline), 0);
    now[0].ratio.median = 0.8; /* a rate: worse by a quarter */
    now[1].ratio.median = 5.0; /* a time: the same */
    now[2].size++;             /* cannot be compared */
    assert_int_equal(qm_compare(&report, &baseline, &changes, &count), 0);
    assert_int_equal(count, 2);
    assert_ptr_equal(changes[0].now, &now[0]);
    assert_close(changes[0].worse, 0.25);
    assert_close(changes[1].worse, 0.25);
    qr_free(changes);
    now[0].ratio.median = 2.0; /* twice as fast: half of the time */
    now[1].ratio.median = 2.0;
    assert_int_equal(qm_compare(&report, &baseline, &changes, &count), 0);
    assert_close(changes[0].worse, -0.5);
    assert_close(changes[1].worse, -0.5);
    qr_free(changes);
    qm_baseline_finish(&baseline);
}

static int load_text(const char *text)
{
    struct qm_baseline baseline;
    write_text(text);
    int rc = qm_baseline_load(path, &baseline);
    qm_baseline_finish(&baseline);
    return rc;
}

static void test_refused(void **state)
{
    struct qm_baseline baseline;
    assert_int_equal(load_text(""), QALLOW_E_SERIALIZATION);
    assert_int_equal(load_text("not JSON"), QALLOW_E_SERIALIZATION);
    assert_int_equal(load_text("[]"), QALLOW_E_SERIALIZATION);
    assert_int_equal(load_text("{\"schema\": \"qallow.stats\", \"version\": 1, \"cases\": []}"),
                     QALLOW_E_SERIALIZATION);
    assert_int_equal(load_text("{\"schema\": \"qallow.bench\", \"version\": 1}"),
                     QALLOW_E_SERIALIZATION);
    assert_int_equal(load_text("{\"schema\": \"qallow.bench\", \"version\": 2, \"cases\": []}"),
                     QALLOW_E_VERSION);
    assert_int_equal(load_text("{\"schema\": \"qallow.bench\", \"version\": 1, \"cases\": "
                               "[1, {}, {\"name\": 7}, {\"name\": \"x\", \"ratio\": {}}]}"),
                     0);
    unlink(path);
    assert_int_equal(qm_baseline_load(path, &baseline), QALLOW_E_NO_INPUT);
    qm_baseline_finish(&baseline);
    assert_int_equal(qm_baseline_load(directory, &baseline), QALLOW_E_SERIALIZATION);
    qm_baseline_finish(&baseline);
}

/* A file that cannot be written leaves what was there. */
static void test_write_whole(void **state)
{
    char other[96];
    snprintf(other, sizeof other, "%s/sub", directory);
    write_text("first");
    assert_int_equal(mkdir(other, 0700), 0);
    assert_true(qm_write_file(other, "x", 1) < 0); /* a directory is in its place */
    rmdir(other);
    snprintf(other, sizeof other, "%s/none/file", directory);
    assert_int_equal(qm_write_file(other, "x", 1), QALLOW_E_NO_INPUT);
}

static void test_failed_case_in_reports(void **state)
{
    struct qt_text text = {0};
    fill_report();
    assert_int_equal(qm_report_html(&report, NULL, 0, &text), 0);
    assert_non_null(strstr(text.bytes, "failed: a &quot;quoted&quot; &lt;failure&gt;"));
    qt_text_finish(&text);
    qm_report_csv(&report, &text);
    assert_non_null(strstr(text.bytes, "cache/get-10k,status,-30,1\r\n"));
    assert_null(strstr(text.bytes, "cache/get-10k,figure"));
    qt_text_finish(&text);
}

static int make_directory(void **state)
{
    if (!mkdtemp(directory))
        return -1;
    snprintf(path, sizeof path, "%s/report.json", directory);
    return 0;
}
static int remove_directory(void **state)
{
    unlink(path);
    return rmdir(directory); /* fails if a temporary file was left */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_compare),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_write_whole),
        cmocka_unit_test(test_failed_case_in_reports),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
