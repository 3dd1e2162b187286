/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The indexer where something is refused: files and directories that may not be read, what must not
 * be followed or opened, another file system, memory that is not there. And content, which may be
 * refused.
 */
#include "tests/accelerator/indexer_support.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/os.h"

/* --- what may not be read --- */

static void lose_rights(void)
{
    if (geteuid() == 0)
        assert_int_equal(seteuid(65534), 0);
}
static void regain_rights(void)
{
    if (getuid() == 0)
        assert_int_equal(seteuid(0), 0);
}

static void test_unreadable_files(void **state)
{
    struct test_indexer t;
    struct qa_file file;
    test_put("a", "1");
    test_put("b", "2");
    test_indexer_init(&t, 2);
    test_indexer_open(&t);
    test_update_all(&t);
    assert_int_equal(fchmodat(test_root, "a", 0, 0), 0);
    lose_rights();
    for (int i = 0; i < 3; i++) {
        if (i == 1)
            test_update_all(&t);
        else
            test_look(&t, "a");
        assert_int_equal(t.found.unreadable, 1);
        assert_int_equal(t.found.changed, i == 0);
        assert_true(qa_cache_get(t.cache, "a", &file));
        assert_int_equal(file.state, QALLOW_FILE_UNREADABLE);
        assert_int_equal(file.size, 1);
        assert_memory_equal(file.hash, (uint8_t[32]){0}, 32);
        assert_int_equal(test_said(&t, "a", strerror(EACCES)), 1);
    }
    regain_rights();
    assert_int_equal(fchmodat(test_root, "a", 0644, 0), 0);
    test_look(&t, "a");
    assert_int_equal(test_said(&t, "a", NULL), 1);
    test_same(&t);
    assert_int_equal(t.said_count, 2);
    test_indexer_close(&t);
}

static void test_unreadable_directories(void **state)
{
    struct test_indexer t;
    struct qa_file file;
    test_mkdir("d/e");
    test_put("d/a", "1");
    test_put("d/e/b", "2");
    test_put("c", "3");
    test_indexer_init(&t, 2);
    test_indexer_open(&t);
    test_update_all(&t);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(fchmodat(test_root, "d", i == 3 ? 0444 : 0, 0), 0);
        lose_rights();
        if (i % 2) /* listed, but its entries cannot be looked at, when i is 3 */
            test_update_all(&t);
        else
            test_look(&t, "d");
        assert_true(t.found.unreadable > 0);
        for (const char *const *path = (const char *const[]){"d/a", "d/e/b", NULL}; *path; path++) {
            assert_true(qa_cache_get(t.cache, *path, &file));
            assert_int_equal(file.state, QALLOW_FILE_UNREADABLE);
        }
        test_expect(&t, "c", "3");
        test_look(&t, "d/a"); /* the file by itself: the same */
        assert_true(qa_cache_get(t.cache, "d/a", &file));
        assert_int_equal(file.state, QALLOW_FILE_UNREADABLE);
        regain_rights();
        assert_int_equal(fchmodat(test_root, "d", 0755, 0), 0);
        if (i < 2)
            test_update_all(&t);
        else
            test_look(&t, "d", "d/e");
        test_same(&t);
    }
    assert_int_equal(test_said(&t, "d", strerror(EACCES)), 3);
    assert_int_equal(test_said(&t, "d", NULL), 3);
    test_remove("d");
    test_look(&t, "d");
    test_same(&t);
    test_indexer_close(&t);
}

/* --- what must not be followed or opened --- */

static int swap_directory(void *context, const char *path, int is_directory)
{
    if (is_directory && strcmp(path, "d/swapped") == 0 && test_rename("d/swapped", "away") == 0)
        assert_int_equal(symlinkat("../../outside", test_root, "d/swapped"), 0);
    return 1;
}

static void test_a_link_in_the_place_of_a_directory(void **state)
{
    struct test_indexer t;
    char outside[96];
    snprintf(outside, sizeof outside, "%s/outside", test_place);
    assert_int_equal(mkdir(outside, 0755), 0);
    test_put("../outside/secret", "not in the tree");
    for (int i = 0; i < 2; i++) {
        test_mkdir("d/swapped");
        test_put("d/swapped/secret", "in the tree");
        test_indexer_init(&t, 2);
        test_indexer_open(&t);
        if (i == 1)
            test_update_all(&t);
        test_indexer_close(&t);
        t.options.admits = swap_directory; /* between the listing and the directory itself */
        test_indexer_open(&t);
        if (i == 0)
            test_update_all(&t);
        else
            test_look(&t, "d", "d/swapped", "d/swapped/secret");
        assert_false(test_is_cached(&t, "d/swapped/secret"));
        t.options.admits = NULL;
        test_look(&t, "d", "away", "d/swapped");
        test_same(&t);
        test_look(&t, "d/swapped/secret");
        test_same(&t);
        test_indexer_close(&t);
        test_remove("d");
        test_remove("away");
    }
}

static void test_what_has_no_content(void **state)
{
    struct test_indexer t;
    test_indexer_init(&t, 1);
    test_put("a", "1");
    test_put("b", "2");
    test_indexer_open(&t);
    test_update_all(&t);
    test_remove("a");
    assert_int_equal(mkfifoat(test_root, "a", 0600), 0);
    test_look(&t, "a"); /* was a file: is opened, which must not wait for a writer */
    test_same(&t);
    test_put("c", "3");
    test_look(&t, "c");
    test_remove("b");
    test_remove("c");
    assert_int_equal(mkfifoat(test_root, "b", 0600), 0);
    assert_int_equal(mkfifoat(test_root, "c", 0600), 0);
    assert_int_equal(mkfifoat(test_root, "never a file", 0600), 0);
    test_update_all(&t);
    test_same(&t);
    test_look(&t, ".", "never a file");
    test_same(&t);
    assert_int_equal(qa_cache_count(t.cache), 0);
    test_indexer_close(&t);
}

/* In a child, because mounts are for a process. 0; 77: not allowed here; else the number of the
 * step that went wrong. */
static int look_at_mount(void)
{
    struct test_indexer t;
    char target[128];
    snprintf(target, sizeof target, "%s/d", test_tree);
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return 77;
    close(test_root); /* it is of the other mounts */
    test_root = open(test_tree, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    test_indexer_init(&t, 1);
    test_indexer_open(&t);
    test_update_all(&t);
    if (mount("none", target, "tmpfs", 0, NULL) < 0)
        return 77;
    test_put("d/elsewhere", "3");
    test_look(&t, "d");
    int step = qa_cache_count(t.cache) != 1 ? 1 : 0;
    test_update_all(&t);
    if (!step && qa_cache_count(t.cache) != 1)
        step = 2;
    if (!step && test_said(&t, "d", "another file system is mounted here") != 1)
        step = 3;
    umount2(target, MNT_DETACH);
    test_look(&t, "d");
    if (!step && qa_cache_count(t.cache) != 2)
        step = 4;
    if (!step && test_said(&t, "d", NULL) != 1)
        step = 5;
    test_indexer_close(&t);
    return step;
}

static void test_another_file_system(void **state)
{
    int status;
    test_mkdir("d");
    test_put("d/below", "1");
    test_put("a", "2");
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(look_at_mount());
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        print_message("mounting is not allowed here\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* --- content, limits, memory --- */

static void expect_content(struct qallow_cache *reader, const char *path, const char *text)
{
    struct qallow_file file;
    char bytes[64];
    int result = qallow_cache_content(reader, path, bytes, sizeof bytes, &file);
    if (!text) {
        assert_int_equal(result, QALLOW_E_UNAVAILABLE);
        return;
    }
    assert_int_equal(result, 0);
    assert_int_equal(file.size, strlen(text));
    assert_memory_equal(bytes, text, strlen(text));
}

static void test_content_is_kept(void **state)
{
    struct test_indexer t;
    struct qallow_cache *reader;
    test_indexer_init(&t, 2);
    t.options.content_max = 10;
    test_put("ten", "0123456789");
    test_put("eleven", "0123456789!");
    test_put("none", "");
    assert_int_equal(symlinkat("target", test_root, "link"), 0);
    test_indexer_open(&t);
    test_update_all(&t);
    assert_int_equal(qallow_cache_open(test_tree, &reader), 0);
    expect_content(reader, "ten", "0123456789");
    expect_content(reader, "eleven", NULL);
    expect_content(reader, "none", "");
    expect_content(reader, "link", "target");
    test_put("ten", "less");
    test_put("eleven", "shorter");
    test_look(&t, "ten", "eleven");
    expect_content(reader, "ten", "less");
    expect_content(reader, "eleven", "shorter");
    qa_cache_pending(t.cache, "ten");
    test_settle(&t);
    expect_content(reader, "ten", "less");
    qallow_cache_close(reader);
    test_indexer_close(&t);
}

static void test_content_of_what_was_cached_without(void **state)
{
    struct test_indexer t;
    struct qallow_cache *reader;
    test_put("a", "text");
    test_put("long", "too long for that");
    test_age("long");
    test_indexer_init(&t, 1);
    test_indexer_open(&t);
    test_update_all(&t);
    uint64_t epoch = qa_cache_epoch(t.cache);
    test_indexer_close(&t);
    t.options.content_max = 10;
    for (int again = 0; again < 2; again++) {
        test_indexer_open(&t);
        test_update_all(&t);
        assert_int_equal(t.found.read_files, !again);
        assert_int_equal(qa_cache_epoch(t.cache), epoch);
        assert_int_equal(qallow_cache_open(test_tree, &reader), 0);
        expect_content(reader, "a", "text");
        expect_content(reader, "long", NULL);
        qallow_cache_close(reader);
        test_indexer_close(&t);
    }
}

static int fail_at, allocations;
static int fail_one(size_t size) { return __atomic_add_fetch(&allocations, 1, 0) == fail_at; }

/* Every allocation fails once; whatever comes of it, a later walk puts all right. */
static void test_no_memory(void **state)
{
    struct test_indexer t;
    int failed = 0, passed = 0;
    test_mkdir("d/e");
    test_put("d/a", "1");
    assert_int_equal(linkat(test_root, "d/a", test_root, "d/e/b", 0), 0);
    test_put("c", "3");
    test_indexer_init(&t, 1);
    t.options.content_max = 2;
    test_indexer_open(&t);
    for (fail_at = 1; passed < 3; fail_at++) {
        struct stat st;
        int is_d = test_stat("d", &st) == 0;
        allocations = 0;
        test_put(is_d ? "d/e/b" : "f/e/b", fail_at % 2 ? "odd" : "even");
        qr_set_allocation_hook(fail_one);
        int rc = qa_indexer_update_all(t.indexer, NULL, &t.found);
        if (rc == 0) {
            assert_int_equal(test_rename(is_d ? "d" : "f", is_d ? "f" : "d"), 0);
            rc = qa_indexer_update(t.indexer, (const char *const[]){"d", "f"}, 2, &t.found);
        }
        qr_set_allocation_hook(NULL);
        assert_true(rc == 0 || rc == QALLOW_E_NO_MEMORY);
        failed += rc < 0;
        passed += allocations < fail_at;
        test_update_all(&t);
        test_same(&t);
        assert_true(fail_at < 500);
    }
    assert_true(failed > 5);
    test_indexer_close(&t);
}

int main(void)
{
#define IN_A_PLACE(f) cmocka_unit_test_setup_teardown(f, test_make_place, test_remove_place)
    const struct CMUnitTest tests[] = {
        IN_A_PLACE(test_unreadable_files),
        IN_A_PLACE(test_unreadable_directories),
        IN_A_PLACE(test_a_link_in_the_place_of_a_directory),
        IN_A_PLACE(test_what_has_no_content),
        IN_A_PLACE(test_another_file_system),
        IN_A_PLACE(test_content_is_kept),
        IN_A_PLACE(test_content_of_what_was_cached_without),
        IN_A_PLACE(test_no_memory),
    };
    alarm(120); /* an open that waits is a failure, not a test without end */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
