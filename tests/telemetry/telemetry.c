/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of the metrics, the CSV encoder and its file, the throttled lines, and the table in
 * docs/telemetry.md. `telemetry --print-table` prints that table.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "sources/tree_internal.h"
#include "telemetry/encoder.h"

static const char *document; /* path of docs/telemetry.md */
static char directory[] = "/tmp/qallow-telemetry-XXXXXX";

static const char *in_directory(const char *name)
{
    static char paths[4][256];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", directory, name);
    return path;
}

/* The whole file, NUL-terminated; the caller frees it. NULL if it cannot be read. */
static char *slurp(const char *path)
{
    FILE *file = fopen(path, "rb");
    size_t capacity = 1 << 20, length;
    char *text = malloc(capacity);
    if (!file || !text) {
        free(text);
        if (file)
            fclose(file);
        return NULL;
    }
    length = fread(text, 1, capacity - 1, file);
    text[length] = 0;
    fclose(file);
    return text;
}

static void spill(const char *path, const char *text)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    assert_int_equal(fclose(file), 0);
}

static size_t count_lines(const char *text)
{
    size_t lines = 0;
    for (; *text; text++)
        lines += *text == '\n';
    return lines;
}

/* Rows of one metric in one write. */
static size_t rows_of(enum qt_metric metric)
{
    struct qt_reading reading;
    qt_read(metric, &reading);
    return qt_is_of_workers(metric)                       ? reading.count
           : qt_descriptions[metric].kind == QT_HISTOGRAM ? 6
                                                          : 1;
}

static size_t rows(void)
{
    size_t count = 0;
    for (unsigned m = 0; m < QT_METRIC_COUNT; m++)
        count += rows_of(m);
    return count;
}

/* --- metrics --- */

static void *add_many(void *unused)
{
    (void)unused;
    for (unsigned i = 0; i < 100000; i++) {
        qt_add(QT_LOG_BYTES, 3);
        qt_observe_ns(QT_SETTLE_SECONDS, i);
    }
    return NULL;
}

static void updates_from_threads_all_count(void **state)
{
    pthread_t threads[4];
    struct qt_reading reading;
    qt_reset();
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, add_many, NULL), 0);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(qt_get(QT_LOG_BYTES), 1200000);
    assert_int_equal(qt_get(QT_SETTLE_SECONDS), 400000);
    qt_read(QT_SETTLE_SECONDS, &reading);
    assert_int_equal(reading.max, 99999);
    assert_int_equal(reading.value, UINT64_C(4) * 99999 * 100000 / 2);
    qt_reset();
    assert_int_equal(qt_get(QT_LOG_BYTES), 0);
    assert_int_equal(qt_get(QT_SETTLE_SECONDS), 0);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Quantiles against sorting, over values of all magnitudes. */
static void quantiles_bound_the_true_ones(void **state)
{
    enum { COUNT = 5000 };
    static const unsigned permilles[] = {1, 10, 500, 900, 990, 999, 1000};
    static uint64_t values[COUNT];
    const char *given = getenv("QALLOW_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 0) : 20260131, x = seed | 1;
    struct qt_reading reading;

    print_message("seed %llu\n", (unsigned long long)seed);
    qt_reset();
    for (unsigned i = 0; i < COUNT; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        values[i] = x >> (x % 64);
        qt_observe_ns(QT_LOG_SYNC_SECONDS, values[i]);
    }
    qsort(values, COUNT, sizeof values[0], by_value);
    qt_read(QT_LOG_SYNC_SECONDS, &reading);
    for (unsigned i = 0; i < sizeof permilles / sizeof permilles[0]; i++) {
        uint64_t exact = values[(COUNT * permilles[i] + 999) / 1000 - 1];
        uint64_t bound = qt_quantile(&reading, permilles[i]);
        assert_true(bound >= exact);
        assert_true(bound - exact <= exact / 8);
    }
    assert_int_equal(reading.max, values[COUNT - 1]);
}

static void buckets_touch_without_gap(void **state)
{
    uint64_t next = 0;
    qt_reset();
    for (unsigned b = 0; b < QT_BUCKETS; b++) {
        struct qt_reading reading;
        uint64_t upper = qt_bucket_upper(b);
        assert_true(upper >= next);
        qt_observe_ns(QT_LOG_SYNC_SECONDS, next); /* both ends of the bucket land in it */
        qt_observe_ns(QT_LOG_SYNC_SECONDS, upper);
        qt_read(QT_LOG_SYNC_SECONDS, &reading);
        assert_int_equal(reading.buckets[b], 2);
        next = upper + 1;
    }
    assert_int_equal(next, 0); /* the last bucket ends at 2^64 - 1 */
}

static void an_empty_histogram_has_zero_quantiles(void **state)
{
    struct qt_reading reading;
    qt_reset();
    qt_read(QT_LOG_SYNC_SECONDS, &reading);
    assert_int_equal(qt_quantile(&reading, 990), 0);
}

/* 1 us, 2 us, ... 1 ms, each twice: the true quantiles are known, and the ones told are the upper
 * ends of their buckets. The process's metrics say the same. */
static void a_histogram_of_known_durations(void **state)
{
    struct qt_histogram histogram = {0};
    struct qt_reading reading;

    assert_int_equal(qt_histogram_quantile(&histogram, 500), 0);
    assert_int_equal(qt_histogram_mean(&histogram), 0);
    qt_histogram_observe(&histogram, 5, 0); /* never observed */
    assert_true(histogram.count == 0 && histogram.max == 0);
    qt_reset();
    for (uint64_t us = 1; us <= 1000; us++) {
        qt_histogram_observe(&histogram, us * 1000, 2);
        qt_observe_ns(QT_LOG_SYNC_SECONDS, us * 1000);
        qt_observe_ns(QT_LOG_SYNC_SECONDS, us * 1000);
    }
    assert_int_equal(histogram.count, 2000);
    assert_int_equal(qt_histogram_mean(&histogram), 500500);
    assert_int_equal(histogram.max, 1000000);
    assert_int_equal(qt_histogram_quantile(&histogram, 500), 524287);  /* 2^19 - 1; 500,000 */
    assert_int_equal(qt_histogram_quantile(&histogram, 900), 917503);  /* 7/8 2^20 - 1; 900,000 */
    assert_int_equal(qt_histogram_quantile(&histogram, 990), 1000000); /* not above the maximum */
    assert_int_equal(qt_histogram_quantile(&histogram, 1000), 1000000);
    qt_read(QT_LOG_SYNC_SECONDS, &reading);
    assert_true(reading.value == histogram.sum && reading.count == histogram.count);
    assert_memory_equal(reading.buckets, histogram.buckets, sizeof histogram.buckets);
}

/* --- workers --- */

static uint64_t worker_value(enum qt_metric metric, unsigned worker)
{
    struct qt_reading reading;
    qt_read(metric, &reading);
    assert_true(worker < reading.count);
    return reading.workers[worker];
}

static void utilization_is_of_the_time_between_calls(void **state)
{
    const uint64_t second = 1000000000, start = 77 * second;
    qt_reset();
    qt_workers_busy((uint64_t[]){5 * second, 0, second}, 3, start);
    for (unsigned w = 0; w < 3; w++) /* since when is not known */
        assert_int_equal(worker_value(QT_PER_WORKER_UTILIZATION, w), 0);
    assert_int_equal(qt_get(QT_WORKER_BUSY_SECONDS), 6 * second);

    qt_workers_busy((uint64_t[]){7 * second, second, second}, 3, start + 4 * second);
    assert_int_equal(worker_value(QT_PER_WORKER_UTILIZATION, 0), 500000000);
    assert_int_equal(worker_value(QT_PER_WORKER_UTILIZATION, 1), 250000000);
    assert_int_equal(worker_value(QT_PER_WORKER_UTILIZATION, 2), 0);
    assert_int_equal(worker_value(QT_PER_WORKER_BUSY_SECONDS, 0), 7 * second);
    assert_int_equal(qt_get(QT_PER_WORKER_UTILIZATION), 750000000); /* the sum */
    assert_int_equal(qt_get(QT_PER_WORKER_BUSY_SECONDS), qt_get(QT_WORKER_BUSY_SECONDS));

    /* Worker 0 says late what it did, worker 1 was replaced by one that begins at 0, worker 2 has
     * gone, and no time has passed on the clock: nothing is more than wholly busy. */
    qt_workers_busy((uint64_t[]){20 * second, 0}, 2, start + 5 * second);
    assert_int_equal(worker_value(QT_PER_WORKER_UTILIZATION, 0), second);
    assert_int_equal(worker_value(QT_PER_WORKER_UTILIZATION, 1), 0);
    assert_int_equal(worker_value(QT_PER_WORKER_UTILIZATION, 2), 0);
    assert_int_equal(worker_value(QT_PER_WORKER_BUSY_SECONDS, 2), second);
    qt_workers_busy((uint64_t[]){21 * second, 1}, 2, start + 5 * second);
    assert_int_equal(worker_value(QT_PER_WORKER_UTILIZATION, 0), 0);
}

/* A tree with `workers` that are all busy for `busy_ns`. */
struct kept {
    struct qt_tree *tree;
    unsigned workers;
    uint64_t busy_ns;
};

static void refresh(void *context, uint64_t *busy_ns)
{
    const struct kept *kept = context;
    for (unsigned w = 0; w < kept->workers; w++)
        busy_ns[w] = kept->busy_ns;
    qt_tree_set(kept->tree, QT_CACHE_HITS, kept->busy_ns);
}

static void kept_open(struct kept *kept, const char *name, unsigned workers, uint64_t busy_ns)
{
    *kept = (struct kept){.workers = workers, .busy_ns = busy_ns};
    assert_int_equal(qt_tree_open(name, &kept->tree), 0);
    qt_tree_refresh_by(kept->tree, workers, refresh, kept);
}

static void assert_workers(const uint64_t *expected, size_t count)
{
    struct qt_reading reading;
    qt_read(QT_PER_WORKER_BUSY_SECONDS, &reading);
    assert_int_equal(reading.count, count);
    for (size_t w = 0; w < count; w++)
        assert_int_equal(reading.workers[w], expected[w]);
}

static void the_workers_of_trees_are_numbered_through(void **state)
{
    struct kept a, b, c, d;
    qt_reset();
    kept_open(&a, "/a", 2, 10);
    kept_open(&b, "/b", 3, 20);
    kept_open(&c, "/c", 1, 30);
    qt_trees_refresh(1000);
    assert_workers((const uint64_t[]){10, 10, 20, 20, 20, 30}, 6);
    assert_int_equal(qt_get(QT_WORKER_BUSY_SECONDS), 110);
    assert_int_equal(qt_tree_get(b.tree, QT_CACHE_HITS), 20);
    /* who is gone keeps what it had, until somebody has its numbers, if they fit */
    qt_tree_close(b.tree);
    a.busy_ns = 510;
    qt_trees_refresh(2000);
    assert_workers((const uint64_t[]){510, 510, 20, 20, 20, 30}, 6);
    assert_int_equal(worker_value(QT_PER_WORKER_UTILIZATION, 0), 500000000);
    assert_int_equal(worker_value(QT_PER_WORKER_UTILIZATION, 2), 0);
    kept_open(&b, "/b", 4, 40);
    kept_open(&d, "/d", 3, 50);
    qt_trees_refresh(3000);
    assert_workers((const uint64_t[]){510, 510, 50, 50, 50, 30, 40, 40, 40, 40}, 10);
    qt_tree_close(a.tree);
    qt_tree_close(b.tree);
    qt_tree_close(c.tree);
    qt_tree_close(d.tree);
    assert_null(qt_trees_lock());
    qt_trees_unlock();
}

static void *set_in_another_thread(void *tree)
{
    qt_set(QT_CACHE_FILES, 77); /* has opened no tree */
    assert_int_equal(qt_tree_open("/theirs", tree), 0);
    qt_set(QT_CACHE_FILES, 3);
    qt_set(QT_WATCHES_LIMIT, 4); /* of the process */
    return NULL;
}

static void a_thread_sets_what_is_of_its_tree(void **state)
{
    struct qt_tree *mine, *theirs;
    pthread_t thread;
    qt_reset();
    assert_int_equal(qt_tree_open("/mine", &mine), 0);
    qt_set(QT_CACHE_FILES, 2);
    assert_int_equal(pthread_create(&thread, NULL, set_in_another_thread, &theirs), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(qt_get(QT_CACHE_FILES), 2);
    assert_int_equal(qt_tree_get(mine, QT_CACHE_FILES), 2);
    assert_int_equal(qt_tree_get(theirs, QT_CACHE_FILES), 3);
    assert_int_equal(qt_get(QT_WATCHES_LIMIT), 4);
    qt_tree_close(theirs);
    qt_tree_close(mine);
    assert_int_equal(qt_get(QT_CACHE_FILES), 77);
}

static void workers_beyond_the_last_are_in_the_sum(void **state)
{
    static uint64_t busy[QT_WORKERS + 2];
    struct qt_reading reading;
    qt_reset();
    for (unsigned w = 0; w < QT_WORKERS + 2; w++)
        busy[w] = w + 1;
    qt_workers_busy(busy, QT_WORKERS + 2, 1);
    qt_worker_set(QT_PER_WORKER_BUSY_SECONDS, QT_WORKERS, 1);
    qt_read(QT_PER_WORKER_BUSY_SECONDS, &reading);
    assert_int_equal(reading.count, QT_WORKERS);
    assert_int_equal(reading.value, QT_WORKERS * (QT_WORKERS + 1) / 2);
    assert_int_equal(qt_get(QT_WORKER_BUSY_SECONDS), (QT_WORKERS + 2) * (QT_WORKERS + 3) / 2);
    assert_int_equal(worker_value(QT_PER_WORKER_BUSY_SECONDS, QT_WORKERS - 1), QT_WORKERS);
    qt_reset();
    qt_read(QT_PER_WORKER_BUSY_SECONDS, &reading);
    assert_int_equal(reading.count, 0);
    qt_worker_set(QT_PER_WORKER_BUSY_SECONDS, 9, 4); /* the others were forgotten */
    assert_int_equal(qt_get(QT_PER_WORKER_BUSY_SECONDS), 4);
    qt_reset();
}

/* --- the table --- */

static int is_plain(const char *text, const char *allowed)
{
    return *text && strspn(text, allowed) == strlen(text);
}

/* The recorder leaves out our temporary files by the end of their names. */
static void temporary_files_are_never_recorded(void **state)
{
    assert_string_equal(QT_TEMPORARY, QS_TEMPORARY);
}

static void names_need_no_quotes(void **state)
{
    static const char *const letters = "abcdefghijklmnopqrstuvwxyz_";
    for (unsigned i = 0; i < QT_METRIC_COUNT; i++) {
        const struct qt_description *d = &qt_descriptions[i];
        assert_true(is_plain(d->name, letters));
        assert_true(!strcmp(d->unit, "bytes") || !strcmp(d->unit, "seconds") ||
                    !strcmp(d->unit, "ratio") || !strcmp(d->unit, "1"));
        assert_null(strpbrk(d->help, "|\n\\"));
        assert_true(d->kind != QT_HISTOGRAM || !strcmp(d->unit, "seconds"));
        for (unsigned j = 0; j < i; j++)
            assert_string_not_equal(d->name, qt_descriptions[j].name);
    }
}

static void print_table(FILE *out)
{
    static const char *const kinds[] = {"counter",          "gauge",
                                        "histogram",        "counter per worker",
                                        "gauge per worker", "gauge per tree"};
    fputs("| metric | unit | kind | meaning |\n|---|---|---|---|\n", out);
    for (unsigned i = 0; i < QT_METRIC_COUNT; i++) {
        const struct qt_description *d = &qt_descriptions[i];
        fprintf(out, "| `%s` | %s | %s | %s |\n", d->name, d->unit, kinds[d->kind], d->help);
    }
}

static void the_document_shows_the_table(void **state)
{
    static const char begin[] = "<!-- metrics begin -->\n", end[] = "<!-- metrics end -->";
    char *expected = NULL, *text = slurp(document), *from, *to;
    size_t size;
    FILE *memory = open_memstream(&expected, &size);

    assert_non_null(text);
    print_table(memory);
    fclose(memory);
    from = strstr(text, begin);
    assert_non_null(from);
    from += sizeof begin - 1;
    to = strstr(from, end);
    assert_non_null(to);
    *to = 0;
    assert_string_equal(from, expected);
    free(text);
    free(expected);
}

/* --- CSV --- */

/* Every row is read back by position and compared with the metric it must be. */
static void csv_rows_have_the_values(void **state)
{
    struct qt_text text = {0};
    const char *at;
    qt_reset();
    qt_add(QT_LOG_BYTES, UINT64_MAX);
    qt_set(QT_WATCHES, 7);
    qt_add(QT_WORKER_BUSY_SECONDS, 1000000001);
    qt_observe_ns(QT_LOG_SYNC_SECONDS, 2500000000);
    qt_worker_set(QT_PER_WORKER_UTILIZATION, 2, 1000000000);
    qt_encoder_csv.encode(&text, INT64_C(1769903999123456789));
    assert_int_equal(text.failed, 0);
    assert_int_equal(count_lines(text.bytes), rows());

    at = text.bytes;
    for (unsigned m = 0; m < QT_METRIC_COUNT; m++) {
        char start[128];
        snprintf(start, sizeof start, "2026-01-31T23:59:59.123Z,%s,", qt_descriptions[m].name);
        for (size_t i = 0, lines = rows_of(m); i < lines; i++) {
            assert_memory_equal(at, start, strlen(start));
            at = strchr(at, '\n') + 1;
        }
    }
    assert_non_null(strstr(text.bytes, ",log_bytes_total,,18446744073709551615,bytes\n"));
    assert_non_null(strstr(text.bytes, ",watches,,7,1\n"));
    assert_non_null(strstr(text.bytes, ",worker_busy_seconds_total,,1.000000001,seconds\n"));
    assert_non_null(strstr(text.bytes, ",log_sync_seconds,count,1,1\n"));
    assert_non_null(strstr(text.bytes, ",log_sync_seconds,sum,2.500000000,seconds\n"));
    assert_non_null(strstr(text.bytes, ",log_sync_seconds,p50,2.500000000,seconds\n"));
    assert_non_null(strstr(text.bytes, ",log_sync_seconds,max,2.500000000,seconds\n"));
    assert_non_null(strstr(text.bytes, ",log_commit_seconds,p99,0.000000000,seconds\n"));
    assert_non_null(strstr(text.bytes, ",per_worker_utilization_ratio,1,0.000000000,ratio\n"));
    assert_non_null(strstr(text.bytes, ",per_worker_utilization_ratio,2,1.000000000,ratio\n"));
    assert_null(strstr(text.bytes, "per_worker_busy"));
    qt_text_finish(&text);
}

static struct qt_csv *open_ok(const char *path)
{
    struct qt_csv *csv;
    assert_int_equal(qt_csv_open(path, &csv), 0);
    return csv;
}

static void check_file(const char *path, size_t writes)
{
    char *text = slurp(path);
    size_t header = strlen(qt_encoder_csv.header);
    assert_non_null(text);
    assert_memory_equal(text, qt_encoder_csv.header, header);
    assert_null(strstr(text + header, "time,metric"));
    assert_int_equal(count_lines(text), 1 + writes * rows());
    assert_int_equal(text[strlen(text) - 1], '\n');
    free(text);
}

static void the_header_goes_in_once(void **state)
{
    const char *path = in_directory("once.csv");
    for (unsigned i = 0; i < 3; i++) {
        struct qt_csv *csv = open_ok(path);
        assert_int_equal(qt_csv_write(csv), 0);
        qt_csv_close(csv);
    }
    check_file(path, 3);
}

static void another_header_is_moved_aside(void **state)
{
    const char *path = in_directory("other.csv");
    static const char *const others[] = {"a,b,c\n1,2,3\n", "time,metric,label\n", "x"};
    char *text;
    for (unsigned i = 0; i < 3; i++) {
        spill(path, others[i]);
        struct qt_csv *csv = open_ok(path);
        assert_int_equal(qt_csv_write(csv), 0);
        qt_csv_close(csv);
        check_file(path, 1);
    }
    for (unsigned i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "other.csv.%u", i + 1);
        text = slurp(in_directory(name));
        assert_non_null(text);
        assert_string_equal(text, others[i]);
        free(text);
    }
}

static void an_incomplete_last_line_goes(void **state)
{
    const char *path = in_directory("cut.csv");
    struct qt_csv *csv = open_ok(path);
    struct stat status;
    char *text;
    qt_csv_write(csv);
    qt_csv_close(csv);
    text = slurp(path);
    /* Cut it at every length that leaves the header: only whole lines may be left. */
    for (size_t n = strlen(text); n >= strlen(qt_encoder_csv.header); n -= 7) {
        char *part = strndup(text, n), *last;
        spill(path, part);
        csv = open_ok(path);
        qt_csv_close(csv);
        last = strrchr(part, '\n');
        assert_int_equal(stat(path, &status), 0);
        assert_int_equal(status.st_size, last + 1 - part);
        free(part);
    }
    free(text);
}

static void a_second_writer_is_refused(void **state)
{
    const char *path = in_directory("two.csv");
    struct qt_csv *first = open_ok(path), *second;
    assert_int_equal(qt_csv_open(path, &second), -EBUSY);
    assert_null(second);
    qt_csv_close(first);
    qt_csv_close(open_ok(path));
}

static void a_file_moved_away_is_begun_anew(void **state)
{
    const char *path = in_directory("moved.csv"), *away = in_directory("moved.csv.old");
    struct qt_csv *csv = open_ok(path);
    assert_int_equal(qt_csv_write(csv), 0);
    assert_int_equal(rename(path, away), 0);
    assert_int_equal(qt_csv_write(csv), 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(qt_csv_write(csv), 0);
    qt_csv_close(csv);
    check_file(away, 1);
    check_file(path, 1);
}

/* A limit on the file's size stands in for a full disk: the write stops in the middle. */
static void a_full_disk_leaves_whole_lines(void **state)
{
    const char *path = in_directory("full.csv");
    struct qt_csv *csv = open_ok(path);
    struct rlimit old, limit;
    struct stat status;
    assert_int_equal(qt_csv_write(csv), 0);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    limit = old;
    limit.rlim_cur = (rlim_t)status.st_size + 100;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_int_equal(qt_csv_write(csv), -EFBIG);
    check_file(path, 1);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(qt_csv_write(csv), 0);
    qt_csv_close(csv);
    check_file(path, 2);
}

static void opening_nonsense_fails(void **state)
{
    struct qt_csv *csv;
    assert_int_equal(qt_csv_open(directory, &csv), -EISDIR);
    assert_int_equal(qt_csv_open(in_directory("none/x.csv"), &csv), -ENOENT);
    assert_null(csv);
    qt_csv_close(NULL);
}

/* --- lines --- */

static const uint64_t hour_ns = UINT64_C(3600000000000);

/* Runs qt_log_at with stderr in a file and returns what came out. */
static char *said(struct qt_throttle *site, enum qt_level level, const char *text)
{
    const char *path = in_directory("stderr");
    int saved = dup(STDERR_FILENO);
    int file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(file >= 0 && saved >= 0);
    dup2(file, STDERR_FILENO);
    qt_log_at(site, level, "%s", text);
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(file);
    return slurp(path);
}

static void expect_said(struct qt_throttle *site, enum qt_level level, const char *text,
                        const char *expected)
{
    char *out = said(site, level, text);
    assert_string_equal(out, expected);
    free(out);
}

static void lines_are_throttled_and_counted(void **state)
{
    struct qt_throttle site = {0}, other = {0};
    expect_said(&site, QT_WARN, "first", "qallow: first\n");
    site.last_ns += hour_ns; /* however slowly this runs, the second is not over */
    for (unsigned i = 0; i < 41; i++)
        expect_said(&site, QT_WARN, "again", "");
    expect_said(&other, QT_WARN, "another site", "qallow: another site\n");
    site.last_ns -= hour_ns + 1000000000; /* as if a second had passed */
    expect_said(&site, QT_WARN, "later", "qallow: later (suppressed 41)\n");
    site.last_ns -= 1000000000;
    expect_said(&site, QT_WARN, "last", "qallow: last\n");
}

/* A thread that read the clock before another one spoke. */
static void a_late_thread_does_not_speak_either(void **state)
{
    struct qt_throttle site = {0};
    expect_said(&site, QT_WARN, "first", "qallow: first\n");
    site.last_ns += hour_ns;
    expect_said(&site, QT_WARN, "late", "");
    assert_int_equal(site.suppressed, 1);
}

enum { TALKERS = 4, CALLS = 100000 };

static void *talk(void *site)
{
    for (unsigned i = 0; i < CALLS; i++)
        qt_log_at(site, QT_WARN, "words");
    return NULL;
}

/* Whatever the timing, a call is a line or is counted as suppressed, once. */
static void no_call_of_any_thread_is_lost(void **state)
{
    struct qt_throttle site = {0};
    const char *path = in_directory("stderr"), *at;
    pthread_t threads[TALKERS];
    uint64_t counted = 0, lines = 0;
    char *out;
    int saved = dup(STDERR_FILENO), file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(file >= 0 && saved >= 0);
    dup2(file, STDERR_FILENO);
    for (unsigned i = 0; i < TALKERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, talk, &site), 0);
    for (unsigned i = 0; i < TALKERS; i++)
        pthread_join(threads[i], NULL);
    site.last_ns = 0;
    qt_log_at(&site, QT_WARN, "words");
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(file);

    out = slurp(path);
    for (at = out; *at; at = strchr(at, '\n') + 1, lines++) {
        static const char start[] = "qallow: words", middle[] = " (suppressed ";
        assert_memory_equal(at, start, sizeof start - 1);
        at += sizeof start - 1;
        if (*at != '\n') {
            assert_memory_equal(at, middle, sizeof middle - 1);
            counted += strtoull(at + sizeof middle - 1, NULL, 10);
        }
    }
    free(out);
    assert_true(lines >= 2 && counted > 0);
    assert_int_equal(site.suppressed, 0);
    assert_int_equal(lines + counted, TALKERS * CALLS + 1);
}

/* The macro gives each place in the source a throttle of its own. */
static void every_call_site_has_its_own(void **state)
{
    const char *path = in_directory("stderr");
    int saved = dup(STDERR_FILENO), file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(file >= 0 && saved >= 0);
    dup2(file, STDERR_FILENO);
    time_t began = time(NULL);
    for (unsigned i = 0; i < 3; i++) {
        qt_log(QT_INFO, "watching %u", i);
        qt_log(QT_WARN, "overflow %u", i);
    }
    int is_over = time(NULL) != began; /* the second may be, and then they speak again */
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(file);
    char *out = slurp(path);
    static const char both[] = "qallow: watching 0\nqallow: overflow 0\n";
    assert_true(strlen(out) >= sizeof both - 1);
    assert_memory_equal(out, both, is_over ? sizeof "qallow: watching 0\n" - 1 : sizeof both);
    free(out);
}

static void levels_are_respected(void **state)
{
    struct qt_throttle a = {0}, b = {0};
    qt_log_level_set(QT_WARN);
    expect_said(&a, QT_INFO, "no", "");
    expect_said(&b, QT_ERROR, "yes", "qallow: yes\n");
    qt_log_level_set(QT_QUIET);
    b.last_ns = 0;
    expect_said(&b, QT_ERROR, "no", "");
    qt_log_level_set(QT_INFO);
    expect_said(&a, QT_INFO, "now", "qallow: now\n"); /* what no level wanted is not counted */
}

static void lines_are_safe_and_bounded(void **state)
{
    struct qt_throttle a = {0}, b = {0};
    char big[10000], *out;
    expect_said(&a, QT_WARN, "x\033[2J\ny\177", "qallow: x?[2J?y?\n");
    a.last_ns = 0;
    expect_said(&a, QT_WARN, "\302\233J \302\240 \303\233", "qallow: ??J \302\240 \303\233\n");
    memset(big, 'b', sizeof big - 1);
    big[sizeof big - 1] = 0;
    out = said(&b, QT_WARN, big);
    assert_true(strlen(out) > 4000 && strlen(out) < 4096);
    assert_string_equal(out + strlen(out) - 4, "...\n");
    assert_int_equal(count_lines(out), 1);
    free(out);
}

static int make_directory(void **state) { return mkdtemp(directory) ? 0 : -1; }

static int remove_directory(void **state)
{
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", directory);
    return system(command);
}

int main(int argc, char **argv)
{
    qt_log_level_set(QT_INFO);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(updates_from_threads_all_count),
        cmocka_unit_test(quantiles_bound_the_true_ones),
        cmocka_unit_test(buckets_touch_without_gap),
        cmocka_unit_test(an_empty_histogram_has_zero_quantiles),
        cmocka_unit_test(a_histogram_of_known_durations),
        cmocka_unit_test(utilization_is_of_the_time_between_calls),
        cmocka_unit_test(workers_beyond_the_last_are_in_the_sum),
        cmocka_unit_test(the_workers_of_trees_are_numbered_through),
        cmocka_unit_test(a_thread_sets_what_is_of_its_tree),
        cmocka_unit_test(names_need_no_quotes),
        cmocka_unit_test(temporary_files_are_never_recorded),
        cmocka_unit_test(the_document_shows_the_table),
        cmocka_unit_test(csv_rows_have_the_values),
        cmocka_unit_test(the_header_goes_in_once),
        cmocka_unit_test(another_header_is_moved_aside),
        cmocka_unit_test(an_incomplete_last_line_goes),
        cmocka_unit_test(a_second_writer_is_refused),
        cmocka_unit_test(a_file_moved_away_is_begun_anew),
        cmocka_unit_test(a_full_disk_leaves_whole_lines),
        cmocka_unit_test(opening_nonsense_fails),
        cmocka_unit_test(lines_are_throttled_and_counted),
        cmocka_unit_test(a_late_thread_does_not_speak_either),
        cmocka_unit_test(no_call_of_any_thread_is_lost),
        cmocka_unit_test(every_call_site_has_its_own),
        cmocka_unit_test(levels_are_respected),
        cmocka_unit_test(lines_are_safe_and_bounded),
    };
    if (argc == 2 && strcmp(argv[1], "--print-table") == 0) {
        print_table(stdout);
        return 0;
    }
    if (argc != 2) {
        fputs("usage: telemetry docs/telemetry.md | --print-table\n", stderr);
        return 2;
    }
    document = argv[1];
    signal(SIGXFSZ, SIG_IGN);
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
