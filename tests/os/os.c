/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the operating system behind runtime/os.h. */
#include <errno.h>
#include <fcntl.h>
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
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "runtime/os.h"

static char directory[] = "/tmp/qallow-os-XXXXXX";
static const struct qr_os *os;

static const char *in_directory(const char *name)
{
    static char paths[4][256];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", directory, name);
    return path;
}

static int open_ok(const char *name, enum qr_open_mode mode)
{
    int file = os->open(NULL, in_directory(name), mode, 0644);
    assert_true(file >= 0);
    return file;
}

static void modes_open_what_they_say(void **state)
{
    const char *path = in_directory("modes");
    char byte = 0;
    assert_int_equal(os->open(NULL, path, QR_OPEN_READ, 0), -ENOENT);
    assert_int_equal(os->open(NULL, path, QR_OPEN_WRITE, 0), -ENOENT);
    int file = open_ok("modes", QR_OPEN_CREATE);
    assert_int_equal(os->pwrite(NULL, file, "x", 1, 0), 1);
    assert_int_equal(os->close(NULL, file), 0);
    assert_int_equal(os->open(NULL, path, QR_OPEN_CREATE, 0644), -EEXIST);
    file = open_ok("modes", QR_OPEN_READ);
    assert_int_equal(os->pwrite(NULL, file, "y", 1, 0), -EBADF);
    assert_int_equal(os->pread(NULL, file, &byte, 1, 0), 1);
    assert_int_equal(byte, 'x');
    os->close(NULL, file);
    file = open_ok("modes", QR_OPEN_WRITE);
    assert_int_equal(os->size(NULL, file), 1);
    os->close(NULL, file);
    file = open_ok("modes", QR_OPEN_REPLACE);
    assert_int_equal(os->size(NULL, file), 0);
    assert_true(fcntl(file, F_GETFD) & FD_CLOEXEC);
    os->close(NULL, file);
    assert_int_equal(os->close(NULL, file), -EBADF);
}

/* None of these may wait for somebody at the other end. */
static void only_regular_files_are_opened(void **state)
{
    const char *fifo = in_directory("fifo");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    for (int mode = QR_OPEN_READ; mode <= QR_OPEN_WRITE; mode++) {
        assert_int_equal(os->open(NULL, fifo, mode, 0), -EINVAL);
        assert_int_equal(os->open(NULL, directory, mode, 0), -EISDIR);
        assert_int_equal(os->open(NULL, "/dev/zero", mode, 0), -EINVAL);
    }
}

static void bytes_come_back(void **state)
{
    int file = open_ok("bytes", QR_OPEN_REPLACE);
    char buffer[16] = "..............";
    assert_int_equal(os->pwrite(NULL, file, "abcdef", 6, 10), 6);
    assert_int_equal(os->pwrite(NULL, file, "", 0, 3), 0);
    assert_int_equal(os->size(NULL, file), 16);
    assert_int_equal(os->pread(NULL, file, buffer, 6, 8), 6);
    assert_memory_equal(buffer, "\0\0abcd", 6);
    assert_int_equal(os->pread(NULL, file, buffer, 10, 12), 4); /* short at the end only */
    assert_int_equal(os->pread(NULL, file, buffer, 10, 16), 0);
    assert_int_equal(os->pread(NULL, file, buffer, 10, 1000), 0);
    assert_int_equal(os->pread(NULL, file, buffer, 10, UINT64_MAX), -EINVAL);
    assert_int_equal(os->truncate(NULL, file, 12), 0);
    assert_int_equal(os->size(NULL, file), 12);
    assert_int_equal(os->truncate(NULL, file, 20), 0);
    assert_int_equal(os->pread(NULL, file, buffer, 10, 12), 8);
    assert_memory_equal(buffer, "\0\0\0\0\0\0\0\0", 8);
    assert_int_equal(os->sync(NULL, file), 0);
    os->close(NULL, file);
}

static void names_move_and_go(void **state)
{
    os->close(NULL, open_ok("from", QR_OPEN_REPLACE));
    os->close(NULL, open_ok("to", QR_OPEN_REPLACE));
    char from[256], to[256];
    snprintf(from, sizeof from, "%s", in_directory("from"));
    snprintf(to, sizeof to, "%s", in_directory("to"));
    assert_int_equal(os->rename(NULL, from, to), 0);
    assert_int_equal(os->rename(NULL, from, to), -ENOENT);
    assert_int_equal(os->sync_directory_of(NULL, to), 0);
    assert_int_equal(os->unlink(NULL, to), 0);
    assert_int_equal(os->unlink(NULL, to), -ENOENT);
}

static void the_parent_directory_is_found(void **state)
{
    char here[4096];
    assert_non_null(getcwd(here, sizeof here));
    assert_int_equal(chdir(directory), 0);
    assert_int_equal(os->sync_directory_of(NULL, "name-only"), 0);
    assert_int_equal(os->sync_directory_of(NULL, "./name"), 0);
    assert_int_equal(os->sync_directory_of(NULL, "/name"), 0);
    assert_int_equal(os->sync_directory_of(NULL, "none/name"), -ENOENT);
    assert_int_equal(chdir(here), 0);
}

static void a_punched_hole_reads_zero_and_gives_blocks_back(void **state)
{
    enum { SIZE = 1 << 20 };
    int file = open_ok("punch", QR_OPEN_REPLACE);
    static char buffer[SIZE];
    struct stat before, after;
    memset(buffer, 'x', SIZE);
    assert_int_equal(os->pwrite(NULL, file, buffer, SIZE, 0), SIZE);
    assert_int_equal(os->sync(NULL, file), 0);
    assert_int_equal(fstat(file, &before), 0);
    int result = os->punch(NULL, file, SIZE / 4, SIZE / 2);
    if (result == -EOPNOTSUPP)
        skip();
    assert_int_equal(result, 0);
    assert_int_equal(fstat(file, &after), 0);
    assert_int_equal(after.st_size, SIZE);
    assert_true(after.st_blocks < before.st_blocks);
    assert_int_equal(os->pread(NULL, file, buffer, SIZE, 0), SIZE);
    assert_int_equal(buffer[SIZE / 4 - 1], 'x');
    assert_int_equal(buffer[SIZE / 4], 0);
    assert_int_equal(buffer[SIZE / 4 * 3 - 1], 0);
    assert_int_equal(buffer[SIZE / 4 * 3], 'x');
    os->close(NULL, file);
}

/* The first write is cut at the limit and reported short by the kernel; the rest must fail. */
static void a_write_that_does_not_fit_is_an_error(void **state)
{
    int file = open_ok("limit", QR_OPEN_REPLACE);
    struct rlimit old, limit;
    char buffer[8192] = {0};
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    limit = old;
    limit.rlim_cur = 4096;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    int64_t result = os->pwrite(NULL, file, buffer, sizeof buffer, 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(result, -EFBIG);
    os->close(NULL, file);
}

static void locks_belong_to_the_open_file(void **state)
{
    int first = open_ok("lock", QR_OPEN_REPLACE), second = open_ok("lock", QR_OPEN_WRITE);
    int reader = open_ok("lock", QR_OPEN_READ);
    assert_int_equal(os->is_locked(NULL, second), 0);
    assert_int_equal(os->lock(NULL, first), 0);
    assert_int_equal(os->is_locked(NULL, first), 0); /* by itself */
    assert_int_equal(os->is_locked(NULL, reader), 1);
    assert_int_equal(os->lock(NULL, second), -EAGAIN);
    os->close(NULL, reader); /* another descriptor of the file: the lock stays */
    assert_int_equal(os->is_locked(NULL, second), 1);
    os->close(NULL, first);
    assert_int_equal(os->lock(NULL, second), 0);
    os->close(NULL, second);
}

static void no_operation(int signal) { (void)signal; }

/* Signals arrive all the while, without SA_RESTART: nothing may be short or fail. */
static void signals_do_not_show(void **state)
{
    enum { SIZE = 1 << 20, ROUNDS = 60 };
    static char buffer[SIZE];
    struct sigaction action = {.sa_handler = no_operation}, old;
    struct itimerval timer = {{0, 200}, {0, 200}}, none = {{0, 0}, {0, 0}};
    int file = open_ok("signals", QR_OPEN_REPLACE);
    assert_int_equal(sigaction(SIGALRM, &action, &old), 0);
    assert_int_equal(setitimer(ITIMER_REAL, &timer, NULL), 0);
    for (int i = 0; i < ROUNDS; i++) {
        assert_int_equal(os->pwrite(NULL, file, buffer, SIZE, 0), SIZE);
        assert_int_equal(os->sync(NULL, file), 0);
        assert_int_equal(os->pread(NULL, file, buffer, SIZE, 0), SIZE);
        assert_int_equal(os->random(NULL, buffer, SIZE), 0);
    }
    assert_int_equal(setitimer(ITIMER_REAL, &none, NULL), 0);
    assert_int_equal(sigaction(SIGALRM, &old, NULL), 0);
    os->close(NULL, file);
}

static void clock_and_random_work(void **state)
{
    uint8_t a[64], b[64];
    int64_t before = (int64_t)time(NULL), now = os->now_ns(NULL), after = (int64_t)time(NULL);
    /* time() may lag behind by a tick. */
    assert_true(now / 1000000000 >= before && now / 1000000000 <= after + 1);
    assert_int_equal(os->random(NULL, a, sizeof a), 0);
    assert_int_equal(os->random(NULL, b, sizeof b), 0);
    assert_memory_not_equal(a, b, sizeof a);
}

static int make_directory(void **state)
{
    os = qr_os_posix();
    return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state)
{
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", directory);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(modes_open_what_they_say),
        cmocka_unit_test(only_regular_files_are_opened),
        cmocka_unit_test(bytes_come_back),
        cmocka_unit_test(names_move_and_go),
        cmocka_unit_test(the_parent_directory_is_found),
        cmocka_unit_test(a_punched_hole_reads_zero_and_gives_blocks_back),
        cmocka_unit_test(a_write_that_does_not_fit_is_an_error),
        cmocka_unit_test(locks_belong_to_the_open_file),
        cmocka_unit_test(signals_do_not_show),
        cmocka_unit_test(clock_and_random_work),
    };
    signal(SIGXFSZ, SIG_IGN);
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
