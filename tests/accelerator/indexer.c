/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The indexer, one behaviour at a time; indexer_differential.c has the random trees. What happens
 * between a look and a read is made to happen in `admits`, which is called between the two.
 */
#include "tests/accelerator/indexer_support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "accelerator/content_hash.h"
#include "accelerator/hasher.h"
#include "accelerator/watcher.h"
#include "runtime/error.h"
#include "telemetry/telemetry.h"

static const char large_fill = 'x';
enum { LARGE = 3 * 1024 * 1024 + 17 };

static void put_large(const char *path, char last)
{
    char *bytes = malloc(LARGE);
    assert_non_null(bytes);
    memset(bytes, large_fill, LARGE);
    bytes[LARGE - 1] = last;
    test_write(path, bytes, LARGE);
    free(bytes);
}

/* --- hashes --- */

static void test_hashes_are_those_of_others(void **state)
{
    static const uint8_t abc[32] = {0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea,
                                    0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23,
                                    0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c,
                                    0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad};
    struct qa_content_hash *hash;
    uint8_t got[32], wanted[32] = {0}, parts[32];
    char bytes[3000];
    memset(bytes, 7, sizeof bytes);
    assert_int_equal(qa_content_hash_create(QALLOW_HASH_XXH3_128, &hash), 0);
    for (size_t n = 0; n <= sizeof bytes; n += n / 3 + 1) {
        test_hash(bytes, n, wanted);
        assert_int_equal(qa_content_hash_of(hash, bytes, n, got), 0);
        assert_memory_equal(got, wanted, 32);
        assert_int_equal(qa_content_hash_begin(hash), 0);
        assert_int_equal(qa_content_hash_add(hash, bytes, n / 2), 0);
        assert_int_equal(qa_content_hash_add(hash, bytes + n / 2, n - n / 2), 0);
        assert_int_equal(qa_content_hash_end(hash, parts), 0);
        assert_memory_equal(parts, wanted, 32);
    }
    qa_content_hash_destroy(hash);
#ifdef QA_HAVE_SHA256
    assert_int_equal(qa_content_hash_create(QALLOW_HASH_SHA256, &hash), 0);
    assert_int_equal(qa_content_hash_of(hash, "abc", 3, got), 0);
    assert_memory_equal(got, abc, 32);
    assert_int_equal(qa_content_hash_begin(hash), 0);
    assert_int_equal(qa_content_hash_add(hash, "a", 1), 0);
    assert_int_equal(qa_content_hash_add(hash, "bc", 2), 0);
    assert_int_equal(qa_content_hash_end(hash, parts), 0);
    assert_memory_equal(parts, abc, 32);
    qa_content_hash_destroy(hash);
#else
    assert_int_equal(qa_content_hash_create(QALLOW_HASH_SHA256, &hash), QALLOW_E_UNAVAILABLE);
    assert_non_null(strstr(qallow_error_detail(), "libssl-dev"));
    (void)abc;
#endif
    assert_int_equal(qa_content_hash_create((enum qallow_hash)3, &hash), QALLOW_E_ARGUMENT);
}

static void test_sha256_of_files_is_that_of_sha256sum(void **state)
{
#ifndef QA_HAVE_SHA256
    skip();
#else
    struct test_indexer t;
    struct qa_file file;
    char command[128], line[128], got[65];
    test_indexer_init(&t, 2);
    t.options.hash = QALLOW_HASH_SHA256;
    test_put("empty", "");
    test_put("small", "some text");
    put_large("large", 'y');
    test_indexer_open(&t);
    test_update_all(&t);
    for (const char *const *name = (const char *const[]){"empty", "small", "large", NULL}; *name;
         name++) {
        snprintf(command, sizeof command, "sha256sum '%s/%s'", test_tree, *name);
        FILE *pipe = popen(command, "r");
        assert_non_null(pipe);
        assert_non_null(fgets(line, sizeof line, pipe));
        assert_int_equal(pclose(pipe), 0);
        assert_true(qa_cache_get(t.cache, *name, &file));
        for (size_t i = 0; i < 32; i++)
            snprintf(got + 2 * i, 3, "%02x", file.hash[i]);
        assert_memory_equal(got, line, 64);
    }
    test_indexer_close(&t);
#endif
}

/* --- whole trees --- */

static void make_some_tree(void)
{
    char longest[256];
    memset(longest, 'n', 255);
    longest[255] = 0;
    test_mkdir("src/deep/er");
    test_mkdir("empty");
    test_put("a", "alpha");
    test_put("new\nline", "n");
    test_put("not \xff\xfe utf-8", "u");
    test_put(longest, "long");
    test_put("src/b", "beta");
    test_put("src/deep/er/c", "gamma");
    test_put("src/none", "");
    put_large("src/large", 'z');
    assert_int_equal(symlinkat("nowhere/at all", test_root, "link"), 0);
    assert_int_equal(mkfifoat(test_root, "fifo", 0600), 0);
    for (int i = 0; i < 300; i++) {
        char path[32];
        snprintf(path, sizeof path, "src/many%d", i);
        test_put(path, path);
    }
}

static void test_a_tree_and_its_warm_restart(void **state)
{
    for (int threads = 1; threads <= 3; threads += 2) {
        struct test_indexer t;
        test_indexer_init(&t, threads);
        if (threads == 1)
            make_some_tree();
        else
            test_put("another", "file");
        test_age(threads == 1 ? "src/many299" : "another");
        test_indexer_open(&t);
        uint64_t hashed = qt_get(QT_HASH_BYTES);
        test_update_all(&t);
        test_same(&t);
        assert_int_equal(t.found.read_files, threads == 1 ? 309 : 1);
        assert_true(t.found.read_bytes > 0);
        assert_int_equal(qt_get(QT_HASH_BYTES) - hashed, t.found.read_bytes);
        assert_int_equal(t.found.changed, t.found.read_files);
        uint64_t epoch = qa_cache_epoch(t.cache);
        for (int again = 0; again < 2; again++) {
            if (again) {
                test_indexer_close(&t);
                test_indexer_open(&t);
            }
            test_update_all(&t);
            assert_int_equal(t.found.read_files, 0);
            assert_int_equal(t.found.read_bytes, 0);
            assert_int_equal(t.found.changed, 0);
            assert_int_equal(qa_cache_epoch(t.cache), epoch);
            test_same(&t);
        }
        assert_int_equal(t.said_count, 0);
        test_indexer_close(&t);
    }
}

static void test_busy_time_is_counted(void **state)
{
    struct test_indexer t;
    uint64_t busy[4] = {0};
    test_indexer_init(&t, 2);
    put_large("large", 'a');
    test_indexer_open(&t);
    assert_int_equal(qa_indexer_busy_ns(t.indexer, busy, 4), 2);
    assert_int_equal(busy[0] + busy[1], 0);
    test_update_all(&t);
    assert_int_equal(qa_indexer_busy_ns(t.indexer, busy, 4), 2);
    assert_true(busy[0] + busy[1] > 0);
    assert_int_equal(busy[2], 0);
    test_indexer_close(&t);
}

static void test_paths_beyond_path_max(void **state)
{
    struct test_indexer t;
    char path[21 * 256], *end = path;
    for (int i = 0; i < 20; i++) {
        memset(end, 'a' + i, 250);
        end[250] = '/';
        end += 251;
    }
    end[-1] = 0;
    test_mkdir(path);
    snprintf(end - 1, 8, "/deep");
    test_put(path, "deep down");
    test_indexer_init(&t, 1);
    test_indexer_open(&t);
    test_update_all(&t);
    test_same(&t);
    test_put(path, "changed");
    test_look(&t, path);
    test_same(&t);
    test_put(path, "through its directory");
    end[-1] = 0;
    test_look(&t, path);
    test_same(&t);
    test_indexer_close(&t);
}

static int stop_now;
static int stops(void *context, const char *path, int is_directory)
{
    if (strcmp(path, "stop here") == 0)
        __atomic_store_n(&stop_now, 1, __ATOMIC_RELAXED);
    return 1;
}

static void test_a_walk_that_is_stopped_removes_nothing(void **state)
{
    struct test_indexer t;
    test_indexer_init(&t, 2);
    t.options.admits = stops;
    test_put("a", "1");
    test_put("b", "2");
    test_indexer_open(&t);
    test_update_all(&t);
    test_remove("a");
    test_remove("b");
    test_put("stop here", "3");
    stop_now = 0;
    assert_int_equal(qa_indexer_update_all(t.indexer, &stop_now, &t.found), QALLOW_E_INTERRUPTED);
    assert_true(test_is_cached(&t, "a") && test_is_cached(&t, "b"));
    test_update_all(&t);
    test_same(&t);
    test_indexer_close(&t);
}

static void test_a_root_that_is_gone(void **state)
{
    struct test_indexer t;
    test_put("a", "1");
    test_indexer_init(&t, 1);
    test_indexer_open(&t);
    test_update_all(&t);
    test_remove("a");
    assert_int_equal(rmdir(test_tree), 0);
    assert_int_equal(qa_indexer_update_all(t.indexer, NULL, &t.found), QALLOW_E_NO_INPUT);
    assert_true(test_is_cached(&t, "a"));
    assert_int_equal(qa_indexer_update(t.indexer, (const char *const[]){"."}, 1, &t.found),
                     QALLOW_E_NO_INPUT);
    test_indexer_close(&t);
}

static void test_a_single_file(void **state)
{
    struct test_indexer t;
    test_put("one", "1");
    test_put("other", "2");
    test_mkdir("directory");
    test_put("directory/one", "3");
    test_indexer_init(&t, 2);
    t.options.only = "one";
    test_indexer_open(&t);
    test_update_all(&t);
    assert_int_equal(qa_cache_count(t.cache), 1);
    test_expect(&t, "one", "1");
    test_put("one", "changed");
    test_put("other", "changed");
    test_look(&t, "other", "directory");
    assert_int_equal(t.found.entries, 0);
    test_look(&t, "one");
    test_expect(&t, "one", "changed");
    test_put("one", "by its directory");
    test_look(&t, ".");
    test_expect(&t, "one", "by its directory");
    test_remove("one");
    test_look(&t, "one");
    assert_int_equal(qa_cache_count(t.cache), 0);
    test_mkdir("one/two");
    test_look(&t, "one");
    test_update_all(&t);
    assert_int_equal(qa_cache_count(t.cache), 0);
    test_indexer_close(&t);
}

/* --- updates --- */

static void test_directories_that_come_and_go(void **state)
{
    struct test_indexer t;
    make_some_tree();
    test_indexer_init(&t, 2);
    test_indexer_open(&t);
    test_update_all(&t);
    assert_int_equal(test_rename("src", "moved"), 0);
    test_look(&t, "src", "moved");
    test_same(&t);
    test_mkdir("src");
    test_put("src/b", "another beta");
    assert_int_equal(test_rename("moved/deep", "src/deep"), 0);
    test_look(&t, "moved/deep", "src"); /* src/deep is new: it is not named */
    test_same(&t);
    test_remove("moved");
    test_put("moved", "a file in its place");
    test_look(&t, "moved");
    test_same(&t);
    test_remove("moved");
    test_mkdir("moved/again");
    test_put("moved/again/x", "x");
    test_look(&t, "moved");
    test_same(&t);
    test_remove("src");
    assert_int_equal(symlinkat("moved", test_root, "src"), 0);
    test_look(&t, "src", "src/b", "src/deep/er/c");
    test_same(&t);
    test_remove("moved/again/x");
    test_look(&t, "moved/again"); /* what vanished is not named itself */
    test_same(&t);
    test_put("moved/again/y", "y");
    test_put("a", "no longer alpha");
    test_look(&t, "");
    test_same(&t); /* the root has its entries; moved/again had nothing: it counts as new */
    test_indexer_close(&t);
}

static char told[16][64];
static size_t told_count;
static int make_file_in(void *context, const char *path)
{
    char file[128];
    assert_true(told_count < 16);
    snprintf(told[told_count++], sizeof told[0], "%s", path);
    snprintf(file, sizeof file, "%s%sat the last moment", path, *path ? "/" : "");
    test_put(file, "made when it was watched");
    return 0;
}

static void test_directories_are_announced_before_they_are_listed(void **state)
{
    struct test_indexer t;
    test_mkdir("known");
    test_put("known/file", "1");
    test_indexer_init(&t, 2);
    t.options.directory = make_file_in;
    test_indexer_open(&t);
    told_count = 0;
    test_update_all(&t);
    assert_int_equal(told_count, 0);
    test_mkdir("new/newer");
    test_look(&t, ".");
    assert_int_equal(told_count, 3);
    assert_string_equal(told[0], "");
    assert_string_equal(told[1], "new");
    assert_string_equal(told[2], "new/newer");
    test_same(&t);
    told_count = 0;
    test_look(&t, "known", "known/file", "new/newer/at the last moment");
    assert_int_equal(told_count, 1);
    test_same(&t);
    test_indexer_close(&t);
}

static int admits_no_secrets(void *context, const char *path, int is_directory)
{
    return strstr(path, "secret") == NULL;
}

static void test_only_what_is_admitted(void **state)
{
    struct test_indexer t;
    test_mkdir("secret");
    test_put("secret/a", "1");
    test_put("b secret", "2");
    test_put("unlucky", "13 characters");
    test_put("c", "3");
    test_indexer_init(&t, 1);
    t.options.admits = admits_no_secrets;
    t.options.max_file_size = 12;
    test_indexer_open(&t);
    for (int i = 0; i < 3; i++) {
        if (i == 0)
            test_update_all(&t);
        else if (i == 1)
            test_look(&t, "secret", "b secret", "unlucky", "c");
        else
            test_look(&t, ".");
        assert_int_equal(qa_cache_count(t.cache), 1);
        test_expect(&t, "c", "3");
    }
    test_put("c", "13, this one.");
    test_look(&t, "c");
    assert_int_equal(qa_cache_count(t.cache), 0);
    test_indexer_close(&t);
}

static void test_hard_links(void **state)
{
    struct test_indexer t;
    test_mkdir("d");
    test_put("a", "one");
    assert_int_equal(linkat(test_root, "a", test_root, "d/b", 0), 0);
    test_put("lone", "one more");
    test_indexer_init(&t, 2);
    test_indexer_open(&t);
    test_update_all(&t);
    test_put("d/b", "written through one of its names");
    test_look(&t, "d/b");
    test_same(&t);
    /* The other name of "lone" is made, and only its directory is named. */
    assert_int_equal(linkat(test_root, "lone", test_root, "d/second", 0), 0);
    test_put("lone", "two names now");
    test_look(&t, "d");
    test_same(&t);
    test_put("d/second", "and again");
    test_look(&t, "d/second");
    test_same(&t);
    /* A name moves, the file is written through it. */
    assert_int_equal(test_rename("d/second", "third"), 0);
    test_put("third", "moved and written");
    test_look(&t, "third", "d/second");
    test_same(&t);
    test_indexer_close(&t);
}

static void test_many_paths_at_once(void **state)
{
    enum { FILES = 500 };
    static char names[FILES][16];
    const char *paths[FILES];
    struct test_indexer t;
    for (int i = 0; i < FILES; i++) {
        snprintf(names[i], sizeof names[i], "f%d", i);
        paths[i] = names[FILES - 1 - i];
        test_put(names[i], "before");
    }
    put_large("f7", '1');
    test_indexer_init(&t, 4);
    test_indexer_open(&t);
    test_update_all(&t);
    for (int i = 0; i < FILES; i++)
        if (i % 3)
            test_put(names[i], names[i]);
        else
            test_remove(names[i]);
    put_large("f8", '2');
    put_large("f10", '3');
    test_update(&t, paths, FILES);
    test_same(&t);
    test_look(&t, "f8", "f10", "f1", "f2", "f4", "f5", "f7", "f11", "f13", "f14");
    test_same(&t);
    test_indexer_close(&t);
}

/* --- files that do not hold still --- */

/* Is it certain that it was too young to be sure of, whenever it was read before this call? */
static int is_young(const char *path)
{
    struct stat st;
    struct timespec now;
    assert_int_equal(test_stat(path, &st), 0);
    clock_gettime(CLOCK_REALTIME, &now);
    return (now.tv_sec - st.st_ctim.tv_sec) * 1000000000L + now.tv_nsec - st.st_ctim.tv_nsec <
           QA_RACY_NS;
}

static void test_a_change_within_the_tick_of_another(void **state)
{
    struct test_indexer t;
    struct stat before;
    struct qa_file file;
    test_indexer_init(&t, 1);
    test_indexer_open(&t);
    test_update_all(&t);
    for (int i = 0; i < 50; i++) {
        const char *now = i % 2 ? "tick" : "tock";
        const struct timespec *times;
        test_put("clock", now);
        test_look(&t, "clock");
        test_expect(&t, "clock", now);
        assert_int_equal(test_stat("clock", &before), 0);
        times = (const struct timespec[]){before.st_atim, before.st_mtim};
        test_put("clock", "tack"); /* as long as before, in the same tick, with the same mtime */
        assert_int_equal(utimensat(test_root, "clock", times, 0), 0);
        if (i % 3)
            test_look(&t, "clock");
        else
            test_update_all(&t);
        test_expect(&t, "clock", "tack");
    }
    uint64_t epoch;
    do { /* until it was still young when it was looked at for the second time */
        test_put("clock", "tick");
        test_look(&t, "clock");
        epoch = qa_cache_epoch(t.cache);
        test_look(&t, "clock");
    } while (!is_young("clock"));
    assert_true(qa_cache_get(t.cache, "clock", &file));
    assert_true(file.ctime_ns == QA_RACY);
    assert_int_equal(t.found.read_files, 1);
    assert_int_equal(t.found.changed, 0);
    assert_int_equal(qa_cache_publish(t.cache, 0), epoch);
    test_settle(&t);
    assert_int_equal(t.found.read_files, 1);
    assert_int_equal(qa_cache_publish(t.cache, 0), epoch);
    test_look(&t, "clock");
    assert_int_equal(t.found.read_files, 0);
    test_indexer_close(&t);
}

/* Writes and looks, until it was young when it was looked at. */
static void look_at_young(struct test_indexer *t, const char *path, const char *text)
{
    do {
        test_put(path, text);
        test_look(t, path);
    } while (!is_young(path));
}

static void wait_until_due(struct test_indexer *t)
{
    while (qa_indexer_deadline(t->indexer) > qa_now_ns())
        ;
}

static void test_a_file_that_is_young_again_is_not_read_before_its_time(void **state)
{
    struct test_indexer t;
    test_indexer_init(&t, 1);
    test_indexer_open(&t);
    test_update_all(&t);
    do { /* until it was young again when its time had come */
        look_at_young(&t, "busy", "0");
        wait_until_due(&t);
        test_put("busy", "1"); /* nobody says so */
        assert_int_equal(qa_indexer_work(t.indexer, &t.found), 0);
    } while (!is_young("busy"));
    assert_int_equal(t.found.read_files, 0);
    test_expect(&t, "busy", "0");
    wait_until_due(&t);
    assert_int_equal(qa_indexer_work(t.indexer, &t.found), 0);
    assert_int_equal(t.found.read_files, 1);
    test_expect(&t, "busy", "1");
    assert_true(qa_indexer_deadline(t.indexer) == UINT64_MAX);
    test_indexer_close(&t);
}

static const char *disturbed;
static int disturb(void *context, const char *path, int is_directory)
{
    if (disturbed && strcmp(path, disturbed) == 0) {
        int fd = test_open(path, O_WRONLY | O_APPEND, 0);
        assert_int_equal(write(fd, "!", 1), 1);
        close(fd);
    }
    return 1;
}

static void test_a_file_that_changes_while_it_is_read(void **state)
{
    struct test_indexer t;
    struct qa_file file;
    test_indexer_init(&t, 2);
    t.options.admits = disturb;
    test_put("log", "line");
    put_large("large", '1');
    test_indexer_open(&t);
    disturbed = NULL;
    test_update_all(&t);
    for (int i = 0; i < 4; i++) {
        disturbed = i % 2 ? "large" : "log";
        if (i % 2)
            put_large("large", (char)('2' + i)); /* so that it is read at all */
        else
            test_put("log", i ? "a line" : "another line");
        if (i < 2)
            test_look(&t, disturbed);
        else
            test_update_all(&t);
        assert_int_equal(t.found.unstable, 1);
        assert_int_equal(test_said(&t, disturbed, "unstable"), 1 + i / 2);
        assert_true(qa_cache_get(t.cache, disturbed, &file));
        assert_int_equal(file.state, QALLOW_FILE_PENDING);
        if (i == 0)
            assert_int_equal(file.size, 4); /* what it held before: "line" */
    }
    disturbed = "new";
    test_put("new", "text");
    test_look(&t, "new");
    assert_int_equal(t.found.unstable, 1);
    assert_true(qa_cache_get(t.cache, "new", &file));
    assert_int_equal(file.state, QALLOW_FILE_PENDING);
    disturbed = NULL;
    test_look(&t, "log", "large", "new");
    assert_int_equal(t.found.unstable, 0);
    test_same(&t);
    test_indexer_close(&t);
}

static void test_what_was_pending_for_nothing(void **state)
{
    struct test_indexer t;
    struct qa_file file;
    test_put("a", "1");
    test_age("a");
    test_indexer_init(&t, 1);
    test_indexer_open(&t);
    for (int i = 0; i < 2; i++) {
        test_update_all(&t);
        qa_cache_pending(t.cache, "a");
        assert_true(qa_cache_get(t.cache, "a", &file));
        assert_int_equal(file.state, QALLOW_FILE_PENDING);
        if (i == 0)
            test_look(&t, "a");
        else
            test_update_all(&t);
        assert_int_equal(t.found.read_files, 0);
        test_same(&t);
    }
    test_indexer_close(&t);
}

int main(void)
{
#define IN_A_PLACE(f) cmocka_unit_test_setup_teardown(f, test_make_place, test_remove_place)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hashes_are_those_of_others),
        IN_A_PLACE(test_sha256_of_files_is_that_of_sha256sum),
        IN_A_PLACE(test_a_tree_and_its_warm_restart),
        IN_A_PLACE(test_busy_time_is_counted),
        IN_A_PLACE(test_paths_beyond_path_max),
        IN_A_PLACE(test_a_walk_that_is_stopped_removes_nothing),
        IN_A_PLACE(test_a_root_that_is_gone),
        IN_A_PLACE(test_a_single_file),
        IN_A_PLACE(test_directories_that_come_and_go),
        IN_A_PLACE(test_directories_are_announced_before_they_are_listed),
        IN_A_PLACE(test_only_what_is_admitted),
        IN_A_PLACE(test_hard_links),
        IN_A_PLACE(test_many_paths_at_once),
        IN_A_PLACE(test_a_change_within_the_tick_of_another),
        IN_A_PLACE(test_a_file_that_is_young_again_is_not_read_before_its_time),
        IN_A_PLACE(test_a_file_that_changes_while_it_is_read),
        IN_A_PLACE(test_what_was_pending_for_nothing),
    };
    alarm(120); /* an open that waits is a failure, not a test without end */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
