/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The temporary name of a restore: one has it at a time, what a killed one left is taken over, and
 * what another one is making is never put in place or touched. First step by step, then by threads
 * that all restore to one target while others look: it must be whole at every moment.
 */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/error.h"
#include "sources/path.h"
#include "sources/target.h"

#include <cmocka.h>

enum { SIZE = 100000, ROUNDS = 150, THREADS = 4 };
static char directory[] = "/tmp/qallow-target-XXXXXX";
static char out[64], out_dir[64];

static void put_bytes(int fd, char letter)
{
    static _Thread_local char bytes[SIZE];
    memset(bytes, letter, SIZE);
    assert_int_equal(qs_write_all(fd, bytes, SIZE / 2, 0), 0);
    assert_int_equal(qs_write_all(fd, bytes, SIZE / 2, SIZE / 2), 0);
}

/* The letter of which all of the file is; 0: there is no file; '?': it is not whole. */
static char letter_of(int directory_fd, const char *path)
{
    static _Thread_local char bytes[SIZE + 1];
    int fd = openat(directory_fd, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, bytes, sizeof bytes);
    close(fd);
    for (ssize_t i = 1; n == SIZE && i < n; i++)
        if (bytes[i] != bytes[0])
            n = 0;
    return n == SIZE ? bytes[0] : '?';
}

/* Makes it, and fills it. */
static int make(struct qs_target *target, int is_directory, char letter)
{
    int rc = qs_target_open(target, is_directory ? out_dir : out);
    if (rc == 0)
        rc = qs_target_make(target, is_directory, 0700);
    if (rc == 0 && is_directory) {
        int fd = openat(target->temporary_fd, "f", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        put_bytes(fd, letter);
        close(fd);
    } else if (rc == 0) {
        put_bytes(target->temporary_fd, letter);
    }
    return rc;
}

static char target_letter(int is_directory)
{
    int fd = is_directory ? open(out_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    char letter = is_directory ? fd < 0 ? 0 : letter_of(fd, "f") : letter_of(AT_FDCWD, out);
    if (fd >= 0)
        close(fd);
    return letter;
}

static void assert_nothing_left(int is_directory)
{
    char path[100];
    snprintf(path, sizeof path, "%s.qallow-tmp", is_directory ? out_dir : out);
    assert_int_not_equal(access(path, F_OK), 0);
}

static void one_at_a_time(int is_directory)
{
    struct qs_target first, second;
    assert_int_equal(make(&first, is_directory, 'a'), 0);
    assert_int_equal(make(&second, is_directory, 'b'), QALLOW_E_BUSY);
    qs_target_close(&second); /* has made nothing, takes nothing away */
    assert_int_equal(qs_target_put(&first), 0);
    qs_target_close(&first);
    assert_int_equal(target_letter(is_directory), 'a');

    assert_int_equal(make(&first, is_directory, 'b'), 0);
    assert_int_equal(make(&second, is_directory, 'c'), QALLOW_E_BUSY);
    qs_target_close(&first); /* gives up */
    assert_nothing_left(is_directory);
    assert_int_equal(target_letter(is_directory), 'a');
    assert_int_equal(qs_target_make(&second, is_directory, 0700), 0);
    qs_target_close(&second);

    assert_int_equal(make(&first, is_directory, 'd'), 0);
    close(first.temporary_fd); /* killed: its lock is gone, what it made is not */
    first.temporary_fd = -1;
    qs_target_close(&first);
    assert_int_equal(make(&second, is_directory, 'e'), 0);
    assert_int_equal(qs_target_put(&second), 0);
    qs_target_close(&second);
    assert_int_equal(target_letter(is_directory), 'e');
    assert_nothing_left(is_directory);
}

static void files(void **state)
{
    one_at_a_time(0);
    (void)state;
}
static void directories(void **state)
{
    one_at_a_time(1);
    (void)state;
}

/* Whatever else has the temporary name goes; a symlink is not followed. */
static void other_things(void **state)
{
    struct qs_target target;
    char path[100], precious[100];
    snprintf(path, sizeof path, "%s.qallow-tmp", out);
    snprintf(precious, sizeof precious, "%s/precious", directory);
    int fd = open(precious, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    put_bytes(fd, 'p');
    close(fd);
    for (int what = 0; what < 4; what++) {
        assert_int_equal(what == 0   ? symlink(precious, path)
                         : what == 1 ? link(precious, path)
                         : what == 2 ? mkdir(path, 0700)
                                     : mkfifo(path, 0600),
                         0);
        assert_int_equal(make(&target, 0, 'f'), 0);
        assert_int_equal(qs_target_put(&target), 0);
        qs_target_close(&target);
        assert_int_equal(target_letter(0), 'f');
        assert_int_equal(letter_of(AT_FDCWD, precious), 'p');
    }
    (void)state;
}

/* --- many at once --- */

static atomic_int running, landed, refused;
static int of_directories;

static void *restore_often(void *context)
{
    char letter = (char)('A' + (intptr_t)context);
    for (int i = 0; i < ROUNDS; i++) {
        struct qs_target target;
        int rc = make(&target, of_directories, letter);
        if (rc == 0)
            rc = qs_target_put(&target);
        landed += rc == 0;
        refused += rc == QALLOW_E_BUSY;
        qs_target_close(&target);
    }
    running--;
    return NULL;
}

static void many_at_once(int is_directory)
{
    pthread_t threads[THREADS];
    int last = 0;
    of_directories = is_directory;
    running = THREADS;
    landed = refused = 0;
    for (intptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, restore_often, (void *)i), 0);
    while (running > 0) {
        char letter = target_letter(is_directory);
        /* an old directory that was opened is emptied under our eyes */
        if (letter != '?' && !(is_directory && letter == 0))
            last = letter;
        else
            assert_true(is_directory);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    printf("%d of %d landed, the last seen was %c\n", landed, THREADS * ROUNDS, last);
    assert_true(landed > 0);
    assert_int_equal(landed + refused, THREADS * ROUNDS);
    assert_in_range(target_letter(is_directory), 'A', 'A' + THREADS - 1);
    assert_nothing_left(is_directory);
}

static void many_files(void **state)
{
    many_at_once(0);
    (void)state;
}
static void many_directories(void **state)
{
    many_at_once(1);
    (void)state;
}

/* --- */

static int begin(void **state)
{
    if (!mkdtemp(directory))
        return -1;
    snprintf(out, sizeof out, "%s/out", directory);
    snprintf(out_dir, sizeof out_dir, "%s/out-dir", directory);
    (void)state;
    return 0;
}

static int end(void **state)
{
    (void)state;
    return qs_remove_tree(AT_FDCWD, directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files),
        cmocka_unit_test(directories),
        cmocka_unit_test(other_things),
        cmocka_unit_test(many_files),
        cmocka_unit_test(many_directories),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
