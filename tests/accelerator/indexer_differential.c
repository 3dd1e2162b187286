/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random trees, changed at random, against an independent scan. After each batch of changes the
 * indexer is told what a watcher would tell it -- often less, never more than that: a directory for
 * what is in it, one name of a linked file, nothing of what vanished with a directory -- and the
 * cache must then be what the scan finds. In between whole walks, and keepers that end and begin.
 * The second test changes the tree while it is being looked at.
 * QALLOW_SEED repeats a run, QALLOW_ROUNDS says how long it is.
 */
#include "tests/accelerator/indexer_support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/accelerator/seed.h"
#include "tests/random.h"

enum { MARKS_MAX = 20000, PATH_BYTES = 8192, DIRECTORIES_MAX = 300, FILES_MAX = 1500 };

struct world {
    uint64_t random;
    struct test_indexer t;
    struct test_scan scan; /* as it was before this batch */
    char *marks[MARKS_MAX];
    size_t mark_count;
};

static uint64_t below(struct world *w, uint64_t limit) { return next_random(&w->random) % limit; }
static int once_in(struct world *w, uint64_t n) { return below(w, n) == 0; }

static void mark(struct world *w, const char *path)
{
    assert_true(w->mark_count < MARKS_MAX);
    w->marks[w->mark_count] = strdup(path);
    assert_non_null(w->marks[w->mark_count++]);
}

/* A file by itself, or now and then the directory that it is in. */
static void mark_file(struct world *w, const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!once_in(w, 12)) {
        mark(w, path);
        return;
    }
    char *directory = strndup(path, slash ? (size_t)(slash - path) : 0);
    assert_non_null(directory);
    mark(w, *directory ? directory : ".");
    free(directory);
}

/* A directory that is new here: it and all those below it, as a watcher meets them. */
static void mark_tree(struct world *w, const char *path)
{
    struct test_scan now;
    size_t length = strlen(path);
    mark(w, path);
    test_scan(&now, 0);
    for (size_t i = 0; i < now.count; i++)
        if (now.entries[i].kind == 0 && strncmp(now.entries[i].path, path, length) == 0 &&
            now.entries[i].path[length] == '/')
            mark(w, now.entries[i].path);
    test_scan_finish(&now);
}

static const struct test_entry *any(struct world *w, int want_directory)
{
    for (int tries = 0; tries < 40 && w->scan.count; tries++) {
        const struct test_entry *e = &w->scan.entries[below(w, w->scan.count)];
        if ((e->kind == 0) == want_directory)
            return e;
    }
    return NULL;
}

/* A path in some directory, most often one that does not exist. */
static void any_path(struct world *w, char path[PATH_BYTES])
{
    static const char *const names[] = {"a",         "b",        "c", "dd",  "e.c", "f.h",
                                        "new\nline", "\xff\xfe", " ", "..x", "~",   "0",
                                        "x y",       "\x01",     "-", "#"};
    const struct test_entry *directory = once_in(w, 4) ? NULL : any(w, 1);
    int n =
        snprintf(path, PATH_BYTES, "%s%s", directory ? directory->path : "", directory ? "/" : "");
    if (n > PATH_BYTES - 300)
        n = 0;
    if (once_in(w, 40)) {
        memset(path + n, 'a' + (int)below(w, 3), 255);
        path[n + 255] = 0;
    } else if (once_in(w, 3)) {
        snprintf(path + n, (size_t)(PATH_BYTES - n), "%s%d", names[below(w, 16)],
                 (int)below(w, 30));
    } else {
        snprintf(path + n, (size_t)(PATH_BYTES - n), "%s", names[below(w, 16)]);
    }
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct test_entry *)a)->path, ((const struct test_entry *)b)->path);
}

/* May the file be written through this name? Not if it has others and this one is younger than the
 * last look: should the name go again in the same batch, nothing would be left to tell. */
static int may_write(struct world *w, const char *path, const struct stat *st)
{
    const struct test_entry key = {.path = (char *)(uintptr_t)path}, *before = NULL;
    if (w->scan.count)
        before = bsearch(&key, w->scan.entries, w->scan.count, sizeof key, by_path);
    return st->st_nlink < 2 || (before && before->st.st_ino == st->st_ino);
}

/* Writes at random into a file that may be there. */
static void scribble(struct world *w, const char *path, int flags)
{
    struct stat st;
    static char bytes[400000];
    static const size_t sizes[] = {0, 1, 100, 5000, 60000, 270000, 400000};
    size_t size = below(w, sizes[below(w, 7)] + 1);
    int fd = test_open(path, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | flags, 0644);
    if (fd < 0)
        return;
    if (fstat(fd, &st) < 0 || !may_write(w, path, &st)) {
        close(fd);
        return;
    }
    for (size_t i = 0; i + 8 <= size; i += 997) {
        uint64_t word = next_random(&w->random);
        memcpy(bytes + i, &word, 8);
    }
    assert_int_equal(write(fd, bytes, size), size);
    if (once_in(w, 5))
        assert_int_equal(ftruncate(fd, (off_t)below(w, 3000)), 0);
    close(fd);
}

/* --- changes: each marks what it did, whether it succeeded or not --- */

static void write_some(struct world *w)
{
    const struct test_entry *e = any(w, 0);
    if (!e)
        return;
    scribble(w, e->path, once_in(w, 2) ? O_TRUNC : O_APPEND);
    mark_file(w, e->path);
}

static void create(struct world *w)
{
    char path[PATH_BYTES];
    if (w->scan.count > FILES_MAX)
        return;
    any_path(w, path);
    scribble(w, path, O_CREAT);
    mark_file(w, path);
}

static void make_directories(struct world *w)
{
    char path[PATH_BYTES], deeper[PATH_BYTES + 16];
    const char *name;
    any_path(w, path);
    int depth = (int)below(w, 3);
    for (int i = 0; i <= depth; i++) {
        int parent = test_parent(path, &name);
        if (parent >= 0) {
            mkdirat(parent, name, 0755);
            close(parent);
        }
        mark(w, path);
        if (once_in(w, 2)) {
            snprintf(deeper, sizeof deeper, "%s/in it", path);
            scribble(w, deeper, O_CREAT); /* its directory stands for it */
        }
        size_t n = strlen(path);
        snprintf(path + n, sizeof path - n, "/d%d", (int)below(w, 3));
    }
}

static void remove_some(struct world *w)
{
    const struct test_entry *e = any(w, once_in(w, 6));
    if (!e)
        return;
    test_remove(e->path);
    if (e->kind == 0)
        mark(w, e->path);
    else
        mark_file(w, e->path);
}

static void rename_some(struct world *w)
{
    char to[PATH_BYTES];
    const struct test_entry *e = any(w, once_in(w, 3));
    if (!e)
        return;
    any_path(w, to);
    if (test_rename(e->path, to) < 0)
        return;
    mark(w, e->path);
    if (e->kind == 0)
        mark_tree(w, to);
    else
        mark_file(w, to);
}

static void link_some(struct world *w)
{
    char to[PATH_BYTES];
    const char *from_name, *to_name;
    const struct test_entry *e = any(w, 0);
    if (!e)
        return;
    any_path(w, to);
    int a = test_parent(e->path, &from_name), b = test_parent(to, &to_name);
    if (a >= 0 && b >= 0 && linkat(a, from_name, b, to_name, 0) == 0) {
        mark_file(w, to);
        if (once_in(w, 2)) { /* the other name is written at once */
            scribble(w, e->path, O_TRUNC);
            mark_file(w, e->path);
        }
    }
    if (a >= 0)
        close(a);
    if (b >= 0)
        close(b);
}

/* Something else takes the place of what is there. */
static void replace(struct world *w)
{
    const struct test_entry *e = any(w, once_in(w, 4));
    const char *name;
    if (!e)
        return;
    test_remove(e->path);
    int parent = test_parent(e->path, &name);
    if (parent < 0)
        return;
    switch (below(w, 5)) {
    case 0:
        mkdirat(parent, name, 0755);
        break;
    case 1:
        mkfifoat(parent, name, 0600);
        break;
    case 2:
        scribble(w, e->path, O_CREAT);
        break;
    default:
        symlinkat(once_in(w, 2) ? "." : "../somewhere else", parent, name);
        break;
    }
    close(parent);
    mark(w, e->path);
}

static void change_attributes(struct world *w)
{
    const char *name;
    const struct test_entry *e = any(w, 0);
    int parent = e ? test_parent(e->path, &name) : -1;
    const struct timespec times[2] = {{0, UTIME_OMIT}, {(time_t)below(w, 1 << 30), 5}};
    struct stat st;
    if (parent < 0)
        return;
    if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !may_write(w, e->path, &st)) {
        close(parent);
        return;
    }
    if (S_ISREG(st.st_mode) && once_in(w, 2))
        fchmodat(parent, name, 0600 | (mode_t)below(w, 0200), 0);
    else
        utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW);
    close(parent);
    mark_file(w, e->path);
}

static void change(struct world *w)
{
    static void (*const changes[])(struct world *) = {
        write_some,  write_some,  create,    create,    create,  make_directories,
        remove_some, rename_some, link_some, link_some, replace, change_attributes};
    changes[below(w, sizeof changes / sizeof changes[0])](w);
}

/* --- rounds --- */

static void open_some(struct world *w)
{
    static const uint64_t content[] = {0, 100, 1000000};
    test_indexer_init(&w->t, 1 + (int)below(w, 4));
    w->t.options.content_max = content[below(w, 3)];
    test_indexer_open(&w->t);
    test_update_all(&w->t);
    test_same(&w->t);
}

static void keep_small(struct world *w)
{
    size_t directories = 0;
    for (size_t i = 0; i < w->scan.count; i++)
        directories += w->scan.entries[i].kind == 0;
    for (int i = 0; i < 20 && (directories > DIRECTORIES_MAX || w->scan.count > FILES_MAX); i++)
        remove_some(w);
}

/* Far beyond PATH_MAX. */
static void make_deep(struct world *w)
{
    char path[6000] = "", top[241];
    for (int i = 0; i < 20; i++) {
        size_t n = strlen(path);
        snprintf(path + n, sizeof path - n, "%s%0240d", i ? "/" : "", i);
    }
    memcpy(top, path, 240);
    top[240] = 0;
    test_remove(top);
    test_mkdir(path);
    mark_tree(w, top);
}

static void run_round(struct world *w)
{
    test_scan(&w->scan, 0);
    keep_small(w);
    uint64_t changes = below(w, once_in(w, 10) ? 200 : 12);
    for (uint64_t i = 0; i < changes; i++)
        change(w);
    if (once_in(w, 15)) {
        test_indexer_close(&w->t);
        open_some(w);
    } else if (once_in(w, 10)) {
        test_update_all(&w->t);
    } else {
        test_update(&w->t, (const char *const *)w->marks, w->mark_count);
    }
    assert_int_equal(w->t.found.unstable, 0);
    test_same(&w->t);
    while (w->mark_count)
        free(w->marks[--w->mark_count]);
    test_scan_finish(&w->scan);
}

static void test_random_trees(void **state)
{
    static struct world w;
    const char *given = getenv("QALLOW_ROUNDS");
    unsigned long rounds = given ? strtoul(given, NULL, 10) : 400;
    w.random = test_seed();
    open_some(&w);
    for (unsigned long i = 0; i < rounds; i++) {
        if (i % 100 == 99)
            make_deep(&w);
        run_round(&w);
    }
    test_indexer_close(&w.t);
}

/* In a child: changes until the other end of the pipe is closed, or many have been made. */
static void change_meanwhile(struct world *w, int pipe)
{
    char byte;
    for (int rounds = 0; rounds < 40 && read(pipe, &byte, 1) < 0; rounds++) {
        test_scan(&w->scan, 0);
        keep_small(w);
        for (int i = 0; i < 20; i++)
            change(w);
        while (w->mark_count)
            free(w->marks[--w->mark_count]);
        test_scan_finish(&w->scan);
    }
    _exit(0);
}

static void look_meanwhile(struct world *w, int is_whole)
{
    const struct test_entry *some[3] = {any(w, 0), any(w, 0), any(w, 1)};
    const char *paths[3];
    size_t count = 0;
    for (int i = 0; i < 3; i++)
        if (some[i])
            paths[count++] = some[i]->path;
    int rc = is_whole ? qa_indexer_update_all(w->t.indexer, NULL, &w->t.found)
                      : qa_indexer_update(w->t.indexer, paths, count, &w->t.found);
    assert_int_equal(rc, 0);
}

static void test_changes_meanwhile(void **state)
{
    static struct world w;
    const char *given = getenv("QALLOW_ROUNDS");
    unsigned long rounds = given ? strtoul(given, NULL, 10) / 50 : 8;
    w.random = test_seed();
    test_indexer_init(&w.t, 1 + (int)below(&w, 4));
    w.t.options.unstable = NULL;
    test_indexer_open(&w.t);
    test_update_all(&w.t);
    for (unsigned long i = 0; i < rounds; i++) {
        int ends[2], status, looks = 0;
        assert_int_equal(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
        next_random(&w.random);
        test_scan(&w.scan, 0);
        fflush(NULL);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            close(ends[1]);
            test_scan_finish(&w.scan);
            change_meanwhile(&w, ends[0]);
        }
        while (waitpid(child, &status, WNOHANG) == 0)
            look_meanwhile(&w, looks++ % 4 == 0);
        close(ends[0]);
        close(ends[1]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        test_scan_finish(&w.scan);
        test_update_all(&w.t);
        assert_int_equal(w.t.found.unstable, 0);
        test_same(&w.t);
    }
    test_indexer_close(&w.t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_random_trees, test_make_place, test_remove_place),
        cmocka_unit_test_setup_teardown(test_changes_meanwhile, test_make_place, test_remove_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
