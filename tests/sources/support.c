/* SPDX-License-Identifier: Apache-2.0 */
/* See support.h. */
#include "support.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t random_state;
static char home[PATH_MAX], place[PATH_MAX];

uint64_t test_seed(void)
{
    static uint64_t seed;
    if (seed == 0) {
        const char *text = getenv("QALLOW_SEED");
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        seed = text ? strtoull(text, NULL, 0) : (uint64_t)now.tv_nsec * 1000003 +
                                                    (uint64_t)now.tv_sec;
        seed |= 1;
        random_state = seed;
        print_message("QALLOW_SEED=%llu\n", (unsigned long long)seed);
    }
    return seed;
}

uint64_t test_random(uint64_t below)
{
    test_seed();
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return below ? (random_state >> 11) % below : random_state;
}

void test_enter(void)
{
    const char *base = getenv("TMPDIR");
    assert_non_null(getcwd(home, sizeof home));
    snprintf(place, sizeof place, "%s/qallow-test-XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(place));
    assert_int_equal(chdir(place), 0);
}

void test_leave(void)
{
    test_status("chmod -R u+rwx '%s' 2>/dev/null", place);
    test_run("rm -rf '%s'", place);
    assert_int_equal(chdir(home), 0);
}

static int run(const char *format, va_list arguments)
{
    char command[16384];
    int n = vsnprintf(command, sizeof command, format, arguments);
    assert_true(n > 0 && (size_t)n < sizeof command);
    fflush(NULL);
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

int test_status(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int status = run(format, arguments);
    va_end(arguments);
    return status;
}

void test_run(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int status = run(format, arguments);
    va_end(arguments);
    if (status != 0)
        fail_msg("exit %d: %s", status, format);
}

void test_put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

void test_fill(const char *path, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    assert_true(fd >= 0);
    while (size) {
        uint64_t block[512];
        size_t n = size < sizeof block ? size : sizeof block;
        for (size_t i = 0; i < 512; i++)
            block[i] = test_random(0);
        assert_int_equal(write(fd, block, n), n);
        size -= n;
    }
    close(fd);
}

uint64_t test_size(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_size;
}

void test_age(const char *path)
{
    struct stat st;
    struct timespec now;
    assert_int_equal(lstat(path, &st), 0);
    do
        clock_gettime(CLOCK_REALTIME, &now);
    while ((now.tv_sec - st.st_ctim.tv_sec) * 1000000000L + now.tv_nsec - st.st_ctim.tv_nsec <
           25000000L);
}

int test_trees_equal(const char *a, const char *b)
{
    static const char list[] = "find . -mindepth 0 -printf '%P|%y|%m|%T@|%l\\0' | LC_ALL=C sort -z";
    return test_status("diff -r --no-dereference '%s' '%s' >/dev/null 2>&1 && "
                       "(cd '%s' && %s) >.list-a && (cd '%s' && %s) >.list-b && "
                       "cmp -s .list-a .list-b", a, b, a, list, b, list) == 0;
}

void test_same_trees(const char *a, const char *b)
{
    if (test_trees_equal(a, b))
        return;
    test_status("diff -r --no-dereference '%s' '%s' | head -20; "
                "bash -c \"diff <(tr '\\\\0' '\\\\n' <.list-a) <(tr '\\\\0' '\\\\n' <.list-b)\" "
                "| head -20", a, b);
    fail_msg("%s and %s differ (QALLOW_SEED=%llu)", a, b, (unsigned long long)test_seed());
}

int test_check_ok(int rc, const char *call, const char *file, int line)
{
    if (rc < 0)
        fail_msg("%s:%d: %s: %s: %s (QALLOW_SEED=%llu)", file, line, call, qallow_strerror(rc),
                 qallow_error_detail(), (unsigned long long)test_seed());
    return rc;
}

void recording_open(struct recording *recording, const char *log, const char *path,
                    const struct qs_tree_options *options)
{
    const struct qr_store_options store = {.writable = 1, .create = 1, .sync = QR_SYNC_NONE};
    const struct qs_tree_options defaults = {.threads = 2};
    memset(recording, 0, sizeof *recording);
    test_ok(qr_store_open(log, &store, &recording->store));
    test_ok(qs_tree_open(path, recording->store, options ? options : &defaults,
                         &recording->tree));
}

void recording_close(struct recording *recording)
{
    qs_tree_close(recording->tree);
    test_ok(qr_store_close(recording->store));
}

void recording_check_digest(struct recording *recording)
{
    const struct qr_state *state = qr_store_state(recording->store);
    struct qb_u128 kept = qr_state_digest(state), computed;
    uint64_t bad;
    test_ok(qr_state_digest_compute(recording->store, state, 1, &computed, &bad));
    assert_true(qb_u128_equal(kept, computed));
    for (const struct qr_page *page = qr_state_next_page(state, 0); page;
         page = qr_state_next_page(state, page->id))
        assert_int_equal(page->mark, 0);
}

uint64_t recording_capture(struct recording *recording)
{
    test_ok(qs_capture(recording->tree, NULL, &recording->found));
    recording_check_digest(recording);
    return recording->found.epoch;
}

void recording_restore(struct recording *recording, uint64_t epoch, const char *target)
{
    struct qr_state *state;
    test_ok(qr_store_state_at(recording->store, epoch, &state));
    const struct qs_restore_options options = {.threads = 2, .digest = qr_state_digest(state)};
    struct qs_restore_result result;
    test_ok(qs_restore(recording->store, state, target, &options, &result));
    qr_state_destroy(state);
}
