/* SPDX-License-Identifier: Apache-2.0 */
/* Told to stop at each question in turn, a capture and a restore end and leave all as it was. */
#include <unistd.h>

#include "runtime/error.h"
#include "sources/stop.h"
#include "support.h"

static _Atomic int questions, last;

static int stop_at_last(void)
{
    return ++questions < last ? 0 : qr_fail(QALLOW_E_INTERRUPTED, "told to stop");
}

static void make_tree(void)
{
    test_run("mkdir -p tree/a/b tree/c && echo one >tree/a/one && echo two >tree/a/b/two && "
             "ln -s one tree/a/link");
    test_fill("tree/c/large", 3000000);
}

static void test_capture(void **state)
{
    struct recording r;
    int rc = -1;
    test_enter();
    make_tree();
    recording_open(&r, "log.tlog", "tree", NULL);
    for (last = 1; rc != 0; last++) {
        questions = 0;
        qs_stop_when(stop_at_last);
        rc = qs_capture(r.tree, NULL, &r.found);
        qs_stop_when(NULL);
        assert_true(rc == 0 || rc == QALLOW_E_INTERRUPTED);
        assert_int_equal(qr_state_epoch(qr_store_state(r.store)), rc == 0);
    }
    assert_true(last > 10);
    recording_check_digest(&r);
    recording_restore(&r, 1, "out");
    test_same_trees("tree", "out");
    recording_close(&r);
    test_leave();
}

static void test_restore(void **state)
{
    struct recording r;
    int rc = -1;
    test_enter();
    make_tree();
    recording_open(&r, "log.tlog", "tree", NULL);
    recording_capture(&r);
    const struct qr_state *newest = qr_store_state(r.store);
    const struct qs_restore_options options = {.threads = 2, .digest = qr_state_digest(newest)};
    for (last = 1; rc != 0; last++) {
        struct qs_restore_result result;
        questions = 0;
        qs_stop_when(stop_at_last);
        rc = qs_restore(r.store, newest, "out", &options, &result);
        qs_stop_when(NULL);
        assert_true(rc == 0 || rc == QALLOW_E_INTERRUPTED);
        assert_int_equal(access("out", F_OK) == 0, rc == 0);
        assert_int_not_equal(access("out.qallow-tmp", F_OK), 0);
    }
    assert_true(last > 5);
    test_same_trees("tree", "out");
    recording_close(&r);
    test_leave();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_capture),
        cmocka_unit_test(test_restore),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
