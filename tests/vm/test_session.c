/* SPDX-License-Identifier: Apache-2.0 */
/* Logs of machines that are no good, too large, or checked by somebody who has no patience. */
#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "runtime/error.h"
#include "vm/session.h"
#include <cmocka.h>

static char directory[] = "/tmp/qallow-session-XXXXXX", path[64];

static void ok(int rc)
{
    if (rc < 0)
        fail_msg("%s: %s", qallow_strerror(rc), qallow_error_detail());
}

static int make_directory(void **unused)
{
    (void)unused;
    if (!mkdtemp(directory))
        return -1;
    snprintf(path, sizeof path, "%s/run.tlog", directory);
    return setenv("TMPDIR", directory, 1);
}

/* What is left in the directory, beside a log with its index and lock, or nothing. */
static int others(void)
{
    DIR *opened = opendir(directory);
    int count = 0;
    for (struct dirent *entry; (entry = readdir(opened));)
        count += entry->d_name[0] != '.' && strncmp(entry->d_name, "run.tlog", 8) != 0;
    closedir(opened);
    return count;
}

static void remove_log(void)
{
    static const char *const endings[] = {"", "-index", ".lock"};
    char name[80];
    for (size_t i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "%s%s", path, endings[i]);
        unlink(name);
    }
}

static int remove_directory(void **unused)
{
    (void)unused;
    return rmdir(directory);
}

static const char text[] = ".page p u8 8192\n"
                           ".func main\n"
                           "again:\n"
                           "    addi r0, r0, 1\n"
                           "    emit count, r0\n"
                           "    commit\n"
                           "    jmp again\n";

static void make_log(int ticks)
{
    struct qallow_options store = QALLOW_OPTIONS_INIT;
    struct qv_session_options o = {.log = path, .store = store, .threads = 1};
    struct qv_session *s = NULL;
    enum qv_stop stop;

    o.store.sync = QALLOW_SYNC_NONE;
    ok(qv_session_create(text, strlen(text), "p.qvm", &o, &s));
    for (int i = 0; i < ticks; i++)
        ok(qv_session_tick(s, &stop, NULL));
    ok(qv_session_close(s));
}

static int after_some(void *context)
{
    int *left = context;
    return (*left)-- == 0;
}

/* A check that is stopped leaves nothing behind, wherever it was. */
static void test_stopped_check(void **unused)
{
    uint64_t epochs;

    (void)unused;
    make_log(5);
    for (int after = 0; after < 6; after++) {
        int left = after;
        struct qv_check_options o = {.threads = 1, .interrupted = after_some, .context = &left};
        int rc = qv_session_check(path, &o, &epochs);
        assert_int_equal(rc, after < 5 ? QALLOW_E_INTERRUPTED : 0);
        assert_int_equal(others(), 0);
    }
    assert_int_equal(epochs, 6);
    remove_log();
}

static void write_page(const char *name, uint64_t offset, const void *bytes, size_t length)
{
    struct qallow_options o = QALLOW_OPTIONS_INIT;
    struct qallow_page page = QALLOW_PAGE_INIT;
    struct qallow_store *store = NULL;
    struct qallow_txn *txn = NULL;

    o.writable = 1;
    ok(qallow_open(path, &o, &store));
    ok(qallow_page_lookup(qallow_newest(store), name, &page));
    ok(qallow_begin(store, &txn));
    if (offset + length > page.bytes)
        ok(qallow_page_resize(txn, page.id, offset + length));
    ok(qallow_page_write(txn, page.id, offset, bytes, length));
    ok(qallow_commit(txn, NULL));
    ok(qallow_close(store));
}

/* A page that somebody wrote into a log is refused, by name, and so is one with bytes too many. */
static void refuses(const char *name, uint64_t offset, const void *bytes, size_t length)
{
    struct qv_session *s = NULL;

    make_log(1);
    write_page(name, offset, bytes, length);
    assert_int_equal(qv_session_look(path, 0, 0, &s), QALLOW_E_SERIALIZATION);
    if (!strstr(qallow_error_detail(), name))
        fail_msg("%s: %s", name, qallow_error_detail());
    ok(qv_session_look(path, 2, 0, &s));
    ok(qv_session_close(s));
    remove_log();
}

static void test_written_by_others(void **unused)
{
    (void)unused;
    refuses("emitted", 16, "", 1);
    refuses("emitted", 16, "junk!", 5);
    refuses("emitted", 0, "\xff", 1);
    refuses("emitted", 4, "\xff", 1);
    refuses("machine", 200, "", 1);
    refuses("machine", 16, "\0", 1);
    refuses("data/p", 8192, "", 1);
}

/* A machine that may take more than is allowed is not made. */
static void test_memory(void **unused)
{
    struct qv_program *program = NULL;
    struct qv_source_error error;
    struct qv_session *s = NULL;
    uint64_t epochs;

    (void)unused;
    make_log(2);
    ok(qv_assemble(text, strlen(text), "p.qvm", &program, &error));
    const uint64_t takes = qv_program_memory(program);
    qv_program_destroy(program);
    assert_int_equal(qv_session_look(path, 0, takes - 1, &s), QALLOW_E_LIMIT);
    ok(qv_session_look(path, 0, takes, &s));
    ok(qv_session_close(s));
    struct qv_check_options o = {.threads = 1, .max_memory = takes - 1};
    assert_int_equal(qv_session_check(path, &o, &epochs), QALLOW_E_LIMIT);
    o.max_memory = takes;
    ok(qv_session_check(path, &o, &epochs));
    assert_int_equal(others(), 0);
    remove_log();
}

/* --- a disk that is full --- */

static const char halting[] = ".page p u64 100000\n"
                              ".func main\n"
                              "    scan.add.u64 p, p\n"
                              "    li r1, 7\n"
                              "    vmov.u64 p, r1\n"
                              "    halt\n";

static void limit_files(rlim_t bytes)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* The tick that cannot be recorded never was, also if it is the last one. */
static void test_full_disk(void **unused)
{
    struct qallow_options store = QALLOW_OPTIONS_INIT;
    struct qv_session_options o = {.log = path, .store = store, .threads = 1};
    struct qv_session *s = NULL;
    struct rlimit old;
    enum qv_stop stop;

    (void)unused;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    ok(qv_session_create(halting, strlen(halting), "halting.qvm", &o, &s));
    const struct qv_machine *m = qv_session_machine(s);
    limit_files(64 << 10);
    assert_true(qv_session_tick(s, &stop, NULL) < 0);
    limit_files(old.rlim_cur);
    assert_int_equal(m->tick, 1);
    assert_int_equal(m->fuel_used, 0);
    assert_int_equal(m->halted, 0);
    assert_int_equal(qv_session_epoch(s), 1);
    qv_session_close(s);
    o.log = NULL;
    ok(qv_session_resume(path, 0, &o, &s));
    ok(qv_session_tick(s, &stop, NULL));
    assert_int_equal(stop, QV_HALTED);
    assert_int_equal(qv_session_epoch(s), 2);
    ok(qv_session_close(s));
    remove_log();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stopped_check), cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_written_by_others), cmocka_unit_test(test_memory)};
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
