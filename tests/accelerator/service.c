/* SPDX-License-Identifier: Apache-2.0 */
/* A keeper inside another program: qallow_accelerator_* and qallow_cache_* as a stranger uses them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "accelerator/cache_reader.h"
#include "accelerator/control_client.h"
#include "accelerator/keeper.h"
#include "qallow/accelerator.h"
#include "runtime/os.h"

#define SECOND INT64_C(1000000000)

/* A directory, and what its keeper says. */
struct place {
    char base[64], tree[80], log[80];
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct qallow_accelerator_event last;
    int events, is_ready, skipped;
    struct qallow_accelerator_options options;
};

static void on_event(void *context, const struct qallow_accelerator_event *event)
{
    struct place *place = context;
    pthread_mutex_lock(&place->lock);
    place->last = *event;
    place->events++;
    place->is_ready |= event->ready != 0;
    pthread_cond_broadcast(&place->changed);
    pthread_mutex_unlock(&place->lock);
}

static void on_skipped(void *context, const char *path, const char *why)
{
    struct place *place = context;
    pthread_mutex_lock(&place->lock);
    place->skipped += why != NULL;
    pthread_mutex_unlock(&place->lock);
}

static void place_init(struct place *place)
{
    memset(place, 0, sizeof *place);
    snprintf(place->base, sizeof place->base, "/tmp/qallow-service-XXXXXX");
    assert_non_null(mkdtemp(place->base));
    snprintf(place->tree, sizeof place->tree, "%s/tree", place->base);
    snprintf(place->log, sizeof place->log, "%s/log.tlog", place->base);
    assert_int_equal(mkdir(place->tree, 0700), 0);
    assert_int_equal(setenv("QALLOW_CACHE_DIR", place->base, 1), 0);
    pthread_mutex_init(&place->lock, NULL);
    pthread_cond_init(&place->changed, NULL);
    qallow_accelerator_defaults(&place->options, sizeof place->options);
    place->options.path = place->tree;
    place->options.settle_ns = 0;
    place->options.threads = 2;
    place->options.event = on_event;
    place->options.skipped = on_skipped;
    place->options.context = place;
}

static void empty(const char *path)
{
    DIR *directory = opendir(path);
    const struct dirent *entry;
    char name[400];
    assert_non_null(directory);
    while ((entry = readdir(directory))) {
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        if (entry->d_name[0] != '.')
            unlink(name);
    }
    closedir(directory);
}

static void place_finish(struct place *place)
{
    empty(place->tree);
    rmdir(place->tree);
    empty(place->base);
    assert_int_equal(rmdir(place->base), 0);
}

static void write_file(const struct place *place, const char *name, const char *text)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", place->tree, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

/* So old that it is not looked at again by itself. */
static void wait_until_old(const struct place *place, const char *name)
{
    char path[400];
    struct stat st;
    struct timespec now;
    snprintf(path, sizeof path, "%s/%s", place->tree, name);
    assert_int_equal(stat(path, &st), 0);
    do
        clock_gettime(CLOCK_REALTIME, &now);
    while ((now.tv_sec - st.st_ctim.tv_sec) * SECOND + now.tv_nsec - st.st_ctim.tv_nsec <
           SECOND / 20);
}

static void start(struct place *place, struct qallow_accelerator **accelerator)
{
    if (qallow_accelerator_start(&place->options, accelerator) < 0)
        fail_msg("%s", qallow_error_detail());
    pthread_mutex_lock(&place->lock);
    while (!place->is_ready)
        pthread_cond_wait(&place->changed, &place->lock);
    pthread_mutex_unlock(&place->lock);
}

static void stop(struct qallow_accelerator *accelerator)
{
    qallow_accelerator_stop(accelerator);
    if (qallow_accelerator_finish(accelerator) < 0)
        fail_msg("%s", qallow_error_detail());
}

/* The number of paths, and whether `wanted` is among them. */
struct seen {
    const char *wanted;
    int paths, found, removed;
};

static int on_path(void *context, const char *path, const struct qallow_file *file)
{
    struct seen *seen = context;
    seen->paths++;
    seen->found += strcmp(path, seen->wanted) == 0;
    seen->removed += file->removed;
    return 0;
}

static void a_change_reaches_readers(void **unused)
{
    struct place place;
    struct qallow_accelerator *accelerator;
    struct qallow_cache *cache;
    struct qallow_file before, after;
    uint64_t epoch, now;
    char bytes[16] = "";
    place_init(&place);
    place.options.content_max = 1000;
    write_file(&place, "a", "one");
    start(&place, &accelerator);
    assert_int_equal(qallow_cache_open(place.tree, &cache), 0);
    assert_string_equal(qallow_cache_root(cache), place.tree);
    assert_int_equal(qallow_cache_get(cache, "a", &before), 0);
    assert_int_equal(before.size, 3);
    assert_int_equal(before.state, QALLOW_FILE_CURRENT);
    epoch = qallow_cache_epoch(cache);

    write_file(&place, "a", "another");
    assert_int_equal(qallow_cache_wait(cache, epoch, 30 * SECOND, 0, &now), 0);
    assert_true(now > epoch);
    do /* it may be met half-written, and is looked at once more when it is closed */
        assert_int_equal(qallow_cache_content(cache, "a", bytes, sizeof bytes - 1, &after), 0);
    while (after.size != 7 || after.state != QALLOW_FILE_CURRENT);
    assert_string_equal(bytes, "another");
    assert_memory_not_equal(before.hash, after.hash, 16);

    struct seen seen = {.wanted = "a"};
    assert_int_equal(qallow_cache_since(cache, before.epoch, on_path, &seen, &now), 0);
    assert_int_equal(seen.paths, 1);
    assert_int_equal(seen.found, 1);
    stop(accelerator);
    struct qallow_cache_info info = QALLOW_CACHE_INFO_INIT;
    assert_int_equal(qallow_cache_info(cache, &info), 0);
    assert_int_equal(info.state, QALLOW_KEEPER_GONE);
    assert_int_equal(info.keeper, getpid());
    assert_int_equal(qallow_cache_wait(cache, now, 30 * SECOND, 0, NULL), QALLOW_E_UNAVAILABLE);
    assert_int_equal(qallow_cache_get(cache, "a", &after), 0); /* a dead one's cache answers */
    qallow_cache_close(cache);
    place_finish(&place);
}

/* With a log the epochs are the log's, and go on when the keeper is started again. */
static void log_and_cache_count_alike(void **unused)
{
    struct place place;
    struct qallow_accelerator *accelerator;
    struct qallow_cache *cache;
    struct qallow_file file;
    place_init(&place);
    place.options.log = place.log;
    write_file(&place, "a", "one");
    for (uint64_t run = 1; run <= 3; run++) {
        place.is_ready = 0;
        start(&place, &accelerator);
        assert_int_equal(qallow_cache_open(place.tree, &cache), 0);
        assert_int_equal(qallow_cache_epoch(cache), run);
        assert_int_equal(place.last.epoch, run);
        assert_int_equal(qallow_cache_get(cache, "a", &file), 0);
        assert_int_equal(file.epoch, run);
        qallow_cache_close(cache);
        stop(accelerator);
        write_file(&place, "a", run % 2 ? "two" : "three");
    }
    place_finish(&place);
}

static void stopping_takes_in_what_has_changed(void **unused)
{
    struct place place;
    struct qallow_accelerator *accelerator;
    struct qallow_cache *cache;
    struct qallow_file file;
    place_init(&place);
    place.options.settle_ns = place.options.max_settle_ns = 3600 * (uint64_t)SECOND;
    start(&place, &accelerator);
    write_file(&place, "late", "x");
    stop(accelerator);
    assert_int_equal(qallow_cache_open(place.tree, &cache), 0);
    assert_int_equal(qallow_cache_get(cache, "late", &file), 0);
    assert_int_equal(qallow_cache_get(cache, "never", &file), QALLOW_E_PAGE_NOT_FOUND);
    qallow_cache_close(cache);
    place_finish(&place);
}

static void reloading_looks_at_everything(void **unused)
{
    struct place place;
    struct qallow_accelerator *accelerator;
    place_init(&place);
    place.options.watch = QALLOW_WATCH_NONE; /* so that nothing else finds it */
    start(&place, &accelerator);
    write_file(&place, "new", "x");
    qallow_accelerator_reload(accelerator);
    pthread_mutex_lock(&place.lock);
    while (place.last.cached != 1)
        pthread_cond_wait(&place.changed, &place.lock);
    pthread_mutex_unlock(&place.lock);
    stop(accelerator);
    place_finish(&place);
}

static void expect_end(struct place *place, int result)
{
    struct qallow_accelerator *accelerator;
    assert_int_equal(qallow_accelerator_start(&place->options, &accelerator), 0);
    struct pollfd ended = {qallow_accelerator_fd(accelerator), POLLIN, 0};
    assert_int_equal(poll(&ended, 1, 60000), 1);
    assert_int_equal(qallow_accelerator_finish(accelerator), result);
    if (result < 0)
        assert_string_not_equal(qallow_error_detail(), "");
}

static void ends_by_itself(void **unused)
{
    struct place place;
    struct qallow_accelerator *accelerator;
    place_init(&place);
    place.options.once = 1;
    expect_end(&place, 0);
    place.options.once = 0;
    place.is_ready = 0;
    start(&place, &accelerator);
    expect_end(&place, QALLOW_E_BUSY); /* a second one */
    stop(accelerator);
    place.options.path = "/nonexistent";
    expect_end(&place, QALLOW_E_NO_INPUT);
    place.options.path = place.tree;
    place.options.is_file = 1;
    expect_end(&place, QALLOW_E_ARGUMENT);
    place.options.is_file = 0;
    place_finish(&place);
}

static void options_that_make_no_sense(void **unused)
{
    struct place place;
    struct qallow_accelerator *accelerator;
    place_init(&place);
    const struct qallow_accelerator_options good = place.options;
    assert_int_equal(qallow_accelerator_start(NULL, &accelerator), QALLOW_E_ARGUMENT);
    place.options.size--;
    assert_int_equal(qallow_accelerator_start(&place.options, &accelerator), QALLOW_E_ARGUMENT);
    place.options = good;
    place.options.path = NULL;
    assert_int_equal(qallow_accelerator_start(&place.options, &accelerator), QALLOW_E_ARGUMENT);
    place.options = good;
    place.options.no_cache = 1;
    assert_int_equal(qallow_accelerator_start(&place.options, &accelerator), QALLOW_E_ARGUMENT);
    place.options = good;
    place.options.hash = 77;
    assert_int_equal(qallow_accelerator_start(&place.options, &accelerator), QALLOW_E_ARGUMENT);
    assert_int_equal(qallow_accelerator_finish(NULL), 0);
    place_finish(&place);
}

static void expect_refused(struct place *place, const struct qallow_accelerator_options *good)
{
    struct qallow_accelerator *accelerator;
    assert_int_equal(qallow_accelerator_start(&place->options, &accelerator), QALLOW_E_ARGUMENT);
    place->options = *good;
}

static void numbers_that_are_out_of_range(void **unused)
{
    struct place place;
    place_init(&place);
    const struct qallow_accelerator_options good = place.options;
    place.options.telemetry_interval_ns = 0;
    expect_refused(&place, &good);
    place.options.keep_time_ns = -1;
    expect_refused(&place, &good);
    place.options.keep_time_ns = INT64_MIN;
    expect_refused(&place, &good);
    place.options.sync_interval_ms = (uint32_t)INT32_MAX + 1;
    expect_refused(&place, &good);
    place.options.compress_level = 23;
    expect_refused(&place, &good);
    place.options.compress_level = INT32_MIN;
    expect_refused(&place, &good);
    place.options.threads = -1;
    expect_refused(&place, &good);
    place.options.exclude_count = 1;
    expect_refused(&place, &good);
    place_finish(&place);
}

/* A turn of the keeper's loop: its answer says whether anything waits to be taken in. */
static void expect_settled(const struct qallow_cache *cache, int settled)
{
    char *reply = NULL;
    if (qa_control_request(qa_cache_reader_path(cache), "{\"request\":\"status\"}", &reply) < 0)
        fail_msg("%s", qallow_error_detail());
    assert_non_null(strstr(reply, settled ? "\"settled\":true" : "\"settled\":false"));
    qr_free(reply);
}

static size_t count_rows(const char *path)
{
    char line[400];
    size_t rows = 0;
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file))
        rows += strstr(line, ",watches,") != NULL;
    fclose(file);
    return rows;
}

/* Not "at once", and not in a loop that never sleeps, as it was when the sums wrapped. */
static void times_beyond_the_clock_are_for_ever(void **unused)
{
    struct place place;
    char csv[100];
    struct qallow_accelerator *accelerator;
    struct qallow_cache *cache;
    struct qallow_file file;
    uint64_t epoch;
    place_init(&place);
    snprintf(csv, sizeof csv, "%s/metrics.csv", place.base);
    place.options.settle_ns = UINT64_MAX;
    place.options.max_settle_ns = UINT64_MAX - 1;
    place.options.sweep_ns = UINT64_MAX;
    place.options.telemetry_interval_ns = UINT64_MAX;
    place.options.telemetry = csv;
    write_file(&place, "a", "one");
    wait_until_old(&place, "a");
    start(&place, &accelerator);
    assert_int_equal(qallow_cache_open(place.tree, &cache), 0);
    epoch = qallow_cache_epoch(cache);
    for (int turns = 0; turns < 5; turns++)
        expect_settled(cache, 1);
    write_file(&place, "a", "another");
    do
        assert_int_equal(qallow_cache_get(cache, "a", &file), 0);
    while (file.state != QALLOW_FILE_PENDING && qallow_cache_epoch(cache) == epoch);
    for (int turns = 0; turns < 5; turns++)
        expect_settled(cache, 0);
    assert_int_equal(qallow_cache_epoch(cache), epoch);
    assert_int_equal(count_rows(csv), 1);
    stop(accelerator);
    assert_int_equal(qallow_cache_get(cache, "a", &file), 0);
    assert_int_equal(file.size, 7);
    assert_int_equal(count_rows(csv), 2);
    qallow_cache_close(cache);
    place_finish(&place);
}

/* A program around the keeper that closes every descriptor it does not know gets an error, not a
 * keeper that never sleeps. */
static void a_closed_descriptor_is_an_error(void **unused)
{
    struct place place;
    place_init(&place);
    int closed = dup(0);
    assert_true(closed >= 0);
    assert_int_equal(close(closed), 0);
    closed += 1000; /* nor is it opened meanwhile */
    struct qa_keeper_options options = {.path = place.tree, .threads = 1, .stop_fd = -1};
    options.reload_fd = closed;
    assert_int_equal(qa_keep(&options), QALLOW_E_IO);
    assert_string_equal(qallow_error_detail(),
                        "waiting for the wish to reload: Bad file descriptor");
    options.reload_fd = -1;
    options.stop_fd = closed;
    assert_int_equal(qa_keep(&options), QALLOW_E_IO);
    place_finish(&place);
}

static size_t count_caches(const struct place *place)
{
    DIR *directory = opendir(place->base);
    const struct dirent *entry;
    size_t count = 0;
    assert_non_null(directory);
    while ((entry = readdir(directory)))
        count += strncmp(entry->d_name, "qallow-", 7) == 0 && !strchr(entry->d_name, '.');
    closedir(directory);
    return count;
}

static void keep_once(struct place *place, const char *path)
{
    place->options.path = path;
    place->options.once = 1;
    expect_end(place, 0);
}

/* What was kept of directories that are gone does not take memory for ever. */
static void caches_of_directories_that_are_gone(void **unused)
{
    struct place place;
    char other[100];
    struct qallow_accelerator *accelerator;
    place_init(&place);
    snprintf(other, sizeof other, "%s/other", place.base);
    assert_int_equal(mkdir(other, 0700), 0);
    keep_once(&place, other);
    keep_once(&place, place.tree);
    assert_int_equal(count_caches(&place), 2);
    assert_int_equal(rmdir(other), 0);
    keep_once(&place, place.tree);
    assert_int_equal(count_caches(&place), 1);

    assert_int_equal(mkdir(other, 0700), 0); /* not while somebody keeps it */
    place.options.once = 0;
    place.options.path = other;
    place.options.watch = QALLOW_WATCH_NONE; /* it does not see that its directory goes */
    place.is_ready = 0;
    start(&place, &accelerator);
    assert_int_equal(rmdir(other), 0);
    keep_once(&place, place.tree);
    assert_int_equal(count_caches(&place), 2);
    qallow_accelerator_stop(accelerator);
    assert_int_equal(qallow_accelerator_finish(accelerator), QALLOW_E_NO_INPUT);
    place_finish(&place);
}

static void a_file_alone(void **unused)
{
    struct place place;
    char path[100];
    struct qallow_accelerator *accelerator;
    struct qallow_cache *cache;
    struct qallow_file file;
    place_init(&place);
    write_file(&place, "one", "1");
    write_file(&place, "other", "2");
    snprintf(path, sizeof path, "%s/one", place.tree);
    place.options.path = path;
    place.options.is_file = 1;
    start(&place, &accelerator);
    assert_int_equal(qallow_cache_open(path, &cache), 0);
    assert_int_equal(qallow_cache_get(cache, "one", &file), 0);
    assert_int_equal(qallow_cache_get(cache, "other", &file), QALLOW_E_PAGE_NOT_FOUND);
    qallow_cache_close(cache);
    stop(accelerator);
    place_finish(&place);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_change_reaches_readers),
        cmocka_unit_test(log_and_cache_count_alike),
        cmocka_unit_test(stopping_takes_in_what_has_changed),
        cmocka_unit_test(reloading_looks_at_everything),
        cmocka_unit_test(ends_by_itself),
        cmocka_unit_test(options_that_make_no_sense),
        cmocka_unit_test(numbers_that_are_out_of_range),
        cmocka_unit_test(a_closed_descriptor_is_an_error),
        cmocka_unit_test(times_beyond_the_clock_are_for_ever),
        cmocka_unit_test(caches_of_directories_that_are_gone),
        cmocka_unit_test(a_file_alone),
    };
    return cmocka_run_group_tests_name("service", tests, NULL, NULL);
}
