/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Histories of a tree that random operations change, compared by diff and find. Operations note the
 * paths they name, as a watcher would; a capture of those alone must miss nothing. QALLOW_SEED
 * repeats a history, QALLOW_ROUNDS sets its length.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support.h"

/* --- random trees --- */

enum { PATHS_MAX = 4096 };
static char *touched[PATHS_MAX]; /* paths that the operations named, relative to "tree" */
static size_t touched_count;

static void touch_path(const char *path)
{
    if (touched_count < PATHS_MAX)
        touched[touched_count++] = strdup(path + strlen("tree/"));
}

static void forget_touched(void)
{
    while (touched_count)
        free(touched[--touched_count]);
}

static int count_entries(const char *kind)
{
    char command[128], text[32] = "";
    snprintf(command, sizeof command, "find tree -mindepth 1 %s -printf x | wc -c", kind);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    assert_non_null(fgets(text, sizeof text, pipe));
    pclose(pipe);
    return atoi(text);
}

/* A random existing entry; 0 if there is none. `kind` is a test for find. */
static int some_entry(const char *kind, char *path)
{
    char command[128];
    int n = count_entries(kind), at = n ? (int)test_random((uint64_t)n) : 0;
    size_t size = 0;
    char *line = NULL;
    snprintf(command, sizeof command, "find tree -mindepth 1 %s -print0 | LC_ALL=C sort -z", kind);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    for (int i = 0; n && i <= at; i++)
        assert_true(getdelim(&line, &size, 0, pipe) > 0);
    pclose(pipe);
    if (n)
        snprintf(path, PATH_MAX, "%s", line);
    free(line);
    return n > 0;
}

/* A name that need not exist, in a random directory. */
static void some_path(char *path)
{
    static const char *const names[] = {"a", "b", "c", "dd", "e e", "-f", "g\ng", "\xff\xfe",
                                        "h~", "i.c"};
    char directory[PATH_MAX] = "tree";
    if (test_random(3))
        some_entry("-type d", directory);
    snprintf(path, PATH_MAX, "%.3000s/%s", directory, names[test_random(10)]);
}

static void edit(const char *path)
{
    size_t size = test_size(path), at = size ? test_random(size) : 0, n = test_random(300);
    char *bytes = malloc(size + 1000);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(read(fd, bytes, size), size);
    switch (test_random(4)) {
    case 0: /* overwrite */
        memset(bytes + at, 'x', size - at < n ? size - at : n);
        break;
    case 1: /* insert */
        memmove(bytes + at + n, bytes + at, size - at);
        memset(bytes + at, test_random(2) ? 'y' : 0, n);
        size += n;
        break;
    case 2: /* remove */
        n = size - at < n ? size - at : n;
        memmove(bytes + at, bytes + at + n, size - at - n);
        size -= n;
        break;
    default: /* append */
        memset(bytes + size, 'z', n);
        size += n;
    }
    assert_int_equal(pwrite(fd, bytes, size, 0), size);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    close(fd);
    free(bytes);
}

/* --- operations --- */

/* Each works on a random entry, or on the path given, which need not exist. Names that are in the
 * way make an operation fail; that is a case, too. */
static void create_file(const char *path)
{
    if (faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) < 0) /* not through a symlink */
        test_fill(path, test_random(3) ? test_random(5000) : 0);
    touch_path(path);
}

static void create_directory(const char *path)
{
    mkdir(path, 0755);
    touch_path(path);
}

static void create_symlink(const char *path)
{
    if (symlink(test_random(2) ? "a" : "../nowhere/\xff", path) == 0)
        touch_path(path);
}

static void create_link(const char *path)
{
    char from[PATH_MAX];
    if (some_entry("-type f", from) && link(from, path) == 0) {
        touch_path(from);
        touch_path(path);
    }
}

static void edit_file(const char *path)
{
    char some[PATH_MAX];
    (void)path;
    if (some_entry("-type f", some)) {
        edit(some);
        touch_path(some);
    }
}

/* Also over something. */
static void move(const char *path)
{
    char from[PATH_MAX];
    if (some_entry("", from) && rename(from, path) == 0) {
        touch_path(from);
        touch_path(path);
    }
}

static void exchange(const char *path)
{
    char other[PATH_MAX];
    if (some_entry("", other) &&
        renameat2(AT_FDCWD, other, AT_FDCWD, path, RENAME_EXCHANGE) == 0) {
        touch_path(other);
        touch_path(path);
    }
}

static void remove_file(const char *path)
{
    char some[PATH_MAX];
    (void)path;
    if (some_entry("-type f -o -type l", some) && unlink(some) == 0)
        touch_path(some);
}

static void remove_directory(const char *path)
{
    char some[PATH_MAX];
    (void)path;
    if (test_random(2) && some_entry("-type d", some)) {
        test_run("rm -rf -- '%s'", some);
        touch_path(some);
    }
}

static void change_mode(const char *path)
{
    char some[PATH_MAX];
    (void)path;
    if (some_entry("-type f -o -type d", some)) {
        assert_int_equal(chmod(some, test_random(2) ? 0700 : 0755), 0);
        touch_path(some);
    }
}

/* An editor: keeps the old file under another name, writes a new one. */
static void save_with_backup(const char *path)
{
    char some[PATH_MAX], backup[PATH_MAX];
    (void)path;
    if (!some_entry("-type f", some))
        return;
    snprintf(backup, sizeof backup, "%.4000s~", some);
    if (rename(some, backup) == 0) {
        test_fill(some, 100);
        touch_path(some);
        touch_path(backup);
    }
}

/* Another kind of thing under the same name. */
static void change_kind(const char *path)
{
    if (unlink(path) == 0)
        mkdir(path, 0755);
    else if (rmdir(path) == 0)
        test_fill(path, 10);
    touch_path(path);
}

static void random_operation(void)
{
    static void (*const operations[])(const char *) = {
        create_file, create_file, create_directory, create_symlink, create_link, edit_file,
        edit_file, edit_file, move, exchange, remove_file, remove_directory, change_mode,
        save_with_backup, change_kind,
    };
    char path[PATH_MAX];
    some_path(path);
    operations[test_random(sizeof operations / sizeof *operations)](path);
}

/* --- histories --- */

static void unstable(void *context, const char *path) { fail_msg("%s is unstable", path); }

/*
 * Rounds of operations, each captured, sometimes only the named paths; after which a capture of
 * everything must find nothing. Every epoch is restored at the end and compared with the copy made
 * of its tree.
 */
static void random_history(int rounds)
{
    struct recording r;
    uint64_t epochs[1000];
    assert_true(rounds <= 1000);
    test_enter();
    test_run("mkdir tree copies");
    recording_open(&r, "log.tlog", "tree", NULL);
    for (int round = 0; round < rounds; round++) {
        struct qs_scope scope = {.unstable_path = unstable};
        for (int i = (int)test_random(12) + (round ? 0 : 40); i >= 0; i--)
            random_operation();
        if (round && test_random(2)) {
            scope.paths = (const char *const *)touched;
            scope.path_count = touched_count;
            scope.recursive_dirs = (int)test_random(2);
        }
        test_ok(qs_capture(r.tree, &scope, &r.found));
        recording_check_digest(&r);
        epochs[round] = r.found.epoch;
        if (scope.paths) { /* what the named paths did not tell: nothing */
            uint64_t before = r.found.epoch;
            if (recording_capture(&r) != before)
                fail_msg("round %d: the paths did not tell all: created %d changed %d renamed %d "
                         "removed %d attributes %d (QALLOW_SEED=%llu)", round,
                         (int)r.found.created, (int)r.found.changed, (int)r.found.renamed,
                         (int)r.found.removed, (int)r.found.attributes,
                         (unsigned long long)test_seed());
        }
        forget_touched();
        if (round == 0 || epochs[round] != epochs[round - 1])
            test_run("cp -a tree copies/%d", (int)epochs[round]);
        if (test_random(8) == 0) { /* closed, and continued by another process */
            recording_close(&r);
            if (test_random(3) == 0)
                unlink("log.tlog-index");
            recording_open(&r, "log.tlog", "tree", NULL);
        }
    }
    for (int round = 0; round < rounds; round++)
        if (round == 0 || epochs[round] != epochs[round - 1]) {
            char copy[64];
            recording_restore(&r, epochs[round], "restored");
            snprintf(copy, sizeof copy, "copies/%d", (int)epochs[round]);
            test_same_trees(copy, "restored");
            test_run("rm -rf restored");
        }
    recording_close(&r);
    test_leave();
}

static void test_random_history(void **state)
{
    const char *rounds = getenv("QALLOW_ROUNDS");
    random_history(rounds ? atoi(rounds) : 25);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_history),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
