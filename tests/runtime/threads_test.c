/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whatever is read of a log does not depend on the number of threads that read it, nor on the way:
 * random histories, copies of them that are cut, zeroed or changed somewhere, and checkpoint files
 * are scanned, loaded and verified in 1, 2 and 5 threads. All that each of them says (ranges,
 * bytes, results, messages) is written down and must be the same. QALLOW_THREADS_ROUNDS=N: of so
 * many histories, all kinds of damage.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "qallow/store.h"
#include "runtime/query.h"
#include "runtime/store.h"
#include "runtime/team.h"
#include "tests/random.h"
#include "tests/runtime/ok.h"

enum {
    PAGES = 48,
    PAGE_MAX = 900 << 10,
    SOURCE = 2 << 20,
    LOG_BYTES = 12 << 20, /* enough for five threads to have something to do */
    IDS = 512,            /* pages with more are left out */
    OUTPUT = 1 << 20,
};

/* --- a history --- */

struct world {
    char directory[64], path[80], copy[80];
    uint64_t random;
    uint8_t *source;
    uint64_t ids[PAGES], sizes[PAGES], names;
    int small; /* small changes in small commits */
};

static size_t below(struct world *w, size_t n) { return (size_t)(next_random(&w->random) % n); }

static void create(struct world *w, struct qallow_txn *txn, size_t i)
{
    struct qallow_page_options options = QALLOW_PAGE_OPTIONS_INIT;
    char name[32];
    snprintf(name, sizeof name, "page %llu", (unsigned long long)w->names++);
    options.name = name;
    options.mode = 0600;
    OK(qallow_page_create(txn, &options, &w->ids[i]));
    w->sizes[i] = 0;
}

/* Any change that a page may have. */
static void change(struct world *w, struct qallow_txn *txn, size_t i)
{
    size_t most = w->small ? 3000 : below(w, 4) ? 20000 : 500000;
    size_t at = w->sizes[i] ? below(w, w->sizes[i]) : 0, n = 1 + below(w, most);
    const uint8_t *bytes = w->source + below(w, SOURCE - n);
    if (w->sizes[i] + n > PAGE_MAX) {
        OK(qallow_page_resize(txn, w->ids[i], w->sizes[i] = below(w, 1000)));
        return;
    }
    switch (below(w, 8)) {
    case 0:
        OK(qallow_page_resize(txn, w->ids[i], w->sizes[i] += n));
        break;
    case 1:
        OK(qallow_page_splice(txn, w->ids[i], at, 0, bytes, n));
        w->sizes[i] += n;
        break;
    case 2:
        OK(qallow_page_splice(txn, w->ids[i], at, w->sizes[i] - at, bytes, n));
        w->sizes[i] = at + n;
        break;
    default:
        OK(qallow_page_write(txn, w->ids[i], at, bytes, n));
        if (at + n > w->sizes[i])
            w->sizes[i] = at + n;
    }
}

static void commit(struct world *w, struct qallow_store *store)
{
    struct qallow_txn *txn;
    OK(qallow_begin(store, &txn));
    for (size_t changes = 1 + below(w, w->small ? 20 : 6); changes > 0; changes--) {
        size_t i = below(w, PAGES);
        if (!w->ids[i])
            create(w, txn, i);
        if (w->sizes[i] && below(w, 40) == 0) {
            OK(qallow_page_free(txn, w->ids[i]));
            w->ids[i] = 0;
            continue;
        }
        change(w, txn, i);
    }
    OK(qallow_commit(txn, NULL));
}

static void write_history(struct world *w, int level)
{
    struct qallow_options options = QALLOW_OPTIONS_INIT;
    struct qallow_stats stats = QALLOW_STATS_INIT;
    struct qallow_store *store;
    options.writable = options.create = options.logical_clock = 1;
    options.sync = QALLOW_SYNC_NONE;
    options.compress_level = level;
    OK(qallow_open(w->path, &options, &store));
    do {
        for (int i = 0; i < 16; i++)
            commit(w, store);
        OK(qallow_stats_get(store, &stats));
    } while (stats.log_bytes < LOG_BYTES);
    OK(qallow_close(store));
}

static void begin(struct world *w, uint64_t seed)
{
    *w = (struct world){.random = seed, .small = (int)(seed % 2), .source = malloc(SOURCE)};
    snprintf(w->directory, sizeof w->directory, "/tmp/qallow-threads-XXXXXX");
    assert_non_null(mkdtemp(w->directory));
    snprintf(w->path, sizeof w->path, "%s/log", w->directory);
    snprintf(w->copy, sizeof w->copy, "%s/copy", w->directory);
    for (size_t i = 0; i < SOURCE; i++) /* as if half of it were text */
        w->source[i] = (uint8_t)(i / 4096 % 2 ? next_random(&w->random) : i / 7 % 23);
    write_history(w, (int)(seed / 2 % 2));
}

static void end(struct world *w)
{
    static const char *const names[] = {"log", "log-index", "log.lock", "copy"};
    char path[120];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", w->directory, names[i]);
        unlink(path);
    }
    rmdir(w->directory);
    free(w->source);
}

/* --- a damaged copy --- */

static size_t read_whole(const char *path, uint8_t **bytes)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    size_t length = (size_t)ftell(file);
    rewind(file);
    *bytes = malloc(length);
    assert_int_equal(fread(*bytes, 1, length, file), length);
    fclose(file);
    return length;
}

/* What becomes of the copy: 0 nothing, 1 it is cut, 2 a byte is another, 3 a stretch is lost,
 * 4 zeros follow. */
static void make_copy(struct world *w, size_t what)
{
    uint8_t *bytes, zeros[5000] = {0};
    size_t length = read_whole(w->path, &bytes), first = 8192, rest = length - first;
    size_t at = first + below(w, rest), n = 1 + below(w, 600000);
    if (what == 1)
        length = at;
    if (what == 2)
        bytes[at] ^= (uint8_t)(1 + below(w, 255));
    if (what == 3)
        memset(bytes + at, 0, n < length - at ? n : length - at);
    FILE *file = fopen(w->copy, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    if (what == 4)
        assert_int_equal(fwrite(zeros, 1, sizeof zeros, file), sizeof zeros);
    fclose(file);
    free(bytes);
}

/* The newest epoch as a checkpoint file, which is a log of one epoch. */
static void make_checkpoint(struct world *w)
{
    struct qallow_store *store;
    OK(qallow_open(w->path, NULL, &store));
    OK(qallow_checkpoint_export(store, qallow_view_epoch(qallow_newest(store)), w->copy, 1));
    OK(qallow_close(store));
}

/* --- what is said of a log --- */

struct said {
    char *text;
    size_t length;
};

static void say(struct said *said, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(said->text + said->length, OUTPUT - said->length, format, arguments);
    va_end(arguments);
    assert_in_range(n, 0, OUTPUT - said->length - 1);
    said->length += (size_t)n;
}

static void say_result(struct said *said, const char *what, int rc)
{
    say(said, "%s: %d %s\n", what, rc, rc ? qallow_error_detail() : "");
}

static int say_range(void *context, const struct qr_range *r)
{
    say(context, "%llu+%llu %d, %llu to %llu, %s\n", (unsigned long long)r->offset,
        (unsigned long long)r->length, r->good, (unsigned long long)r->first_epoch,
        (unsigned long long)r->last_epoch, r->what ? r->what : "");
    return 0;
}

static void say_problem(void *context, uint64_t epoch, const char *page, const char *text)
{
    say(context, "epoch %llu, %s: %s\n", (unsigned long long)epoch, page ? page : "-", text);
}

struct memory {
    uint8_t *bytes;
};

/* Every seventh page is left out. */
static uint8_t *place(void *context, const struct qr_page *page)
{
    struct memory *m = context;
    int is_wanted = page->id < IDS && page->id % 7 && page->size <= PAGE_MAX;
    return is_wanted ? m->bytes + page->id * PAGE_MAX : NULL;
}

static void say_bytes(struct said *said, const struct memory *m, const struct qr_state *state)
{
    struct qr_places places = {place, (void *)m};
    for (const struct qr_page *page = qr_state_next_page(state, 0); page;
         page = qr_state_next_page(state, page->id)) {
        const uint8_t *bytes = places.place(places.context, page);
        say(said, "page %llu: %llx\n", (unsigned long long)page->id,
            bytes ? (unsigned long long)qb_kernels()->hash64(bytes, page->size, 0) : 0);
    }
}

/* How it is read: in how many threads, and whether by what an index or the usual opening says. */
struct way {
    int threads, by_pieces;
};

static void say_load(struct said *said, const char *path, struct way way, struct memory *m)
{
    struct qr_store_options options = {.threads = way.threads, .ignore_index = 1};
    struct qr_places places = {place, m};
    struct qr_store *store = NULL;
    for (size_t i = 0; i < IDS; i++)
        memset(m->bytes + i * PAGE_MAX, 0xa5, 4096); /* of what was there nothing may stay */
    int opened = qr_store_open(path, &options, &store);
    int rc = opened          ? opened
             : way.by_pieces ? qr_state_load(store, qr_store_state(store), &places)
                             : qr_load(path, &options, 0, &places);
    if (opened && !way.by_pieces)
        rc = qr_load(path, &options, 0, &places);
    say_result(said, "load", rc);
    if (!rc)
        say_bytes(said, m, qr_store_state(store));
    if (store)
        qr_store_close(store);
}

static void say_verify(struct said *said, const char *path, int threads)
{
    struct qr_store_options options = {.threads = threads, .salvage = 1};
    struct qr_verify_result result = {0};
    struct qr_store *store;
    int rc = qr_store_open(path, &options, &store);
    say_result(said, "open", rc);
    if (rc)
        return;
    rc = qr_verify_history(store, threads, 0, say_problem, said, &result);
    say_result(said, "verify", rc);
    say(said, "%llu epochs, %llu full, %llu read, %llu damaged\n",
        (unsigned long long)result.epochs, (unsigned long long)result.full,
        (unsigned long long)result.read_bytes, (unsigned long long)result.damaged);
    qr_store_close(store);
}

static struct said say_of_frames(const char *path, struct way way, struct memory *m)
{
    struct said said = {malloc(OUTPUT), 0};
    say_result(&said, "frames", qr_log_verify(path, NULL, way.threads, 0, say_range, &said));
    say_load(&said, path, way, m);
    return said;
}

static struct said say_of_epochs(const char *path, struct way way, struct memory *m)
{
    struct said said = {malloc(OUTPUT), 0};
    say_verify(&said, path, way.threads);
    return said;
}

static void compare(const char *path, struct memory *m, uint64_t seed, const struct way *ways,
                    size_t count,
                    struct said (*all)(const char *path, struct way way, struct memory *m))
{
    struct said first = all(path, ways[0], m);
    assert_in_range(first.length, 50, OUTPUT);
    for (size_t i = 1; i < count; i++) {
        struct said other = all(path, ways[i], m);
        if (strcmp(first.text, other.text) != 0)
            fail_msg("seed %llu, %d threads, way %d: said\n%s\nand not\n%s",
                     (unsigned long long)seed, ways[i].threads, ways[i].by_pieces, other.text,
                     first.text);
        free(other.text);
    }
    free(first.text);
}

static void compare_ways(const char *path, struct memory *m, uint64_t seed)
{
    static const struct way ways[] = {{1, 1}, {1, 0}, {2, 0}, {5, 1}, {5, 0}};
    static const struct way numbers[] = {{1, 0}, {2, 0}, {5, 0}};
    compare(path, m, seed, ways, sizeof ways / sizeof *ways, say_of_frames);
    compare(path, m, seed, numbers, sizeof numbers / sizeof *numbers, say_of_epochs);
}

static void threads_do_not_show(void **state)
{
    const char *rounds = getenv("QALLOW_THREADS_ROUNDS");
    struct memory m = {calloc(IDS, PAGE_MAX)};
    uint64_t seeds = rounds ? strtoull(rounds, NULL, 10) : 3;
    for (uint64_t seed = rounds ? 0 : 1; seed < seeds; seed++) {
        struct world w;
        begin(&w, seed);
        for (size_t what = 0; what < 5; what++)
            if (rounds || what == 2 || what == 4 * (seed - 1)) {
                make_copy(&w, what);
                compare_ways(w.copy, &m, seed);
            }
        if (rounds)
            compare_ways(w.path, &m, seed);
        make_checkpoint(&w);
        compare_ways(w.copy, &m, seed);
        end(&w);
    }
    free(m.bytes);
}

static uint8_t *nowhere(void *context, const struct qr_page *page) { return NULL; }

/* A log of no epoch has nothing to load, whichever way. */
static void nothing_can_be_loaded(void **state)
{
    struct qr_store_options options = {.writable = 1, .create = 1}, reading = {.threads = 2};
    struct qr_places places = {nowhere, NULL};
    char directory[] = "/tmp/qallow-threads-XXXXXX", path[80], index[90], lock[90];
    struct qr_store *store;
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/log", directory);
    snprintf(index, sizeof index, "%s-index", path);
    snprintf(lock, sizeof lock, "%s.lock", path);
    OK(qr_store_open(path, &options, &store));
    OK(qr_state_load(store, qr_store_state(store), &places));
    OK(qr_store_close(store));
    OK(qr_load(path, &reading, 0, &places));
    unlink(index);
    OK(qr_load(path, &reading, 0, &places));
    unlink(path);
    unlink(lock);
    assert_int_equal(rmdir(directory), 0);
}

/* --- work shared out --- */

static int fail_at_seven(void *context, void *own, uint64_t first, uint64_t end)
{
    int *seen = context;
    for (uint64_t i = first; i < end; i++) {
        if (i % 7 == 6)
            return qr_fail(QALLOW_E_DAMAGED, "item %llu", (unsigned long long)i);
        seen[i] = 1;
    }
    return 0;
}

static int count_each(void *context, void *own, uint64_t first, uint64_t end)
{
    int *seen = context;
    for (uint64_t i = first; i < end; i++)
        seen[i]++;
    return 0;
}

static void the_first_failure_counts(void **state)
{
    static const struct qr_team_work failing = {NULL, fail_at_seven, NULL};
    static const struct qr_team_work counting = {NULL, count_each, NULL};
    enum { ITEMS = 1000 };
    for (int threads = 0; threads < 9; threads++) {
        int seen[ITEMS] = {0}, counts[ITEMS] = {0};
        assert_int_equal(qr_team(threads, ITEMS, 3, &failing, seen), QALLOW_E_DAMAGED);
        assert_string_equal(qallow_error_detail(), "item 6");
        for (int i = 0; i < 6; i++)
            assert_int_equal(seen[i], 1);
        assert_int_equal(qr_team(threads, ITEMS, 7, &counting, counts), 0);
        for (int i = 0; i < ITEMS; i++)
            assert_int_equal(counts[i], 1);
        assert_int_equal(qr_team(threads, 0, 7, &counting, counts), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_do_not_show),
        cmocka_unit_test(nothing_can_be_loaded),
        cmocka_unit_test(the_first_failure_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
