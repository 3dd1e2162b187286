/* SPDX-License-Identifier: Apache-2.0 */
/* The user's command: what it is told, that epochs give one run at a time, and that nothing of it
 * is left at the end. The commands write to a pipe that they inherit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "accelerator/runner.h"

struct run {
    struct qa_runner *runner;
    int from; /* what the command writes to $PIPE arrives here */
    char notice[512];
};

static void on_notice(void *context, const char *line)
{
    struct run *run = context;
    snprintf(run->notice, sizeof run->notice, "%s", line);
}

static void run_create(struct run *run, const char *command)
{
    int fds[2];
    char text[1024];
    memset(run, 0, sizeof *run);
    assert_int_equal(pipe(fds), 0);
    snprintf(text, sizeof text, "PIPE=%d; exec %d<&-; %s", fds[1], fds[0], command);
    run->from = fds[0];
    assert_int_equal(qa_runner_create(text, "/the/root", on_notice, run, &run->runner), 0);
    qa_runner_epoch(run->runner, 7);
    close(fds[1]);
}

static void wait_and_reap(struct run *run)
{
    struct pollfd ended = {qa_runner_fd(run->runner), POLLIN, 0};
    assert_int_equal(poll(&ended, 1, -1), 1);
    qa_runner_reap(run->runner);
}

/* Until all who could write have ended. */
static void assert_rest(const struct run *run, const char *expected)
{
    char text[256];
    size_t used = 0;
    ssize_t n;
    struct pollfd more = {run->from, POLLIN, 0};
    do {
        assert_int_equal(poll(&more, 1, 20000), 1); /* else somebody is left */
        n = read(run->from, text + used, sizeof text - 1 - used);
        used += n > 0 ? (size_t)n : 0;
    } while (n > 0);
    text[used] = '\0';
    assert_string_equal(text, expected);
    close(run->from);
}

static void test_its_variables_replace_those_it_inherits(void **state)
{
    struct run run;
    setenv("QALLOW_EPOCH", "999", 1);
    setenv("QALLOW_SINCE", "888", 1);
    setenv("QALLOW_ROOT", "/another", 1);
    setenv("QALLOW_ROOTS", "kept", 1);
    run_create(&run, "env | grep -E '^QALLOW_(EPOCH|SINCE|ROOTS?)=' | sort >&$PIPE");
    wait_and_reap(&run);
    qa_runner_destroy(run.runner);
    unsetenv("QALLOW_EPOCH");
    unsetenv("QALLOW_SINCE");
    unsetenv("QALLOW_ROOT");
    unsetenv("QALLOW_ROOTS");
    assert_string_equal(run.notice, "");
    assert_rest(&run, "QALLOW_EPOCH=7\nQALLOW_ROOT=/the/root\nQALLOW_ROOTS=kept\nQALLOW_SINCE=0\n");
}

static void test_a_failure_is_said(void **state)
{
    struct run run;
    run_create(&run, "exit 3");
    wait_and_reap(&run);
    assert_int_equal(qa_runner_fd(run.runner), -1);
    qa_runner_destroy(run.runner);
    assert_string_equal(run.notice, "--run: ended with status 3");
    assert_rest(&run, "");
}

static void assert_reads(const struct run *run, const char *line)
{
    char text[64] = "";
    assert_int_equal(read(run->from, text, strlen(line)), (ssize_t)strlen(line));
    assert_string_equal(text, line);
}

/* The shell ends at once; what it has started needs longer, and gets it. */
static void test_what_cleans_up_is_waited_for(void **state)
{
    struct run run;
    run_create(&run, "(trap 'sleep 0.2; echo clean >&$PIPE; exit' TERM; echo up >&$PIPE;"
                     " while :; do sleep 0.01; done) & wait");
    assert_reads(&run, "up\n");
    qa_runner_destroy(run.runner);
    assert_rest(&run, "clean\n");
}

static void test_what_ignores_sigterm_is_killed(void **state)
{
    struct run run;
    run_create(&run, "(trap '' TERM; echo up >&$PIPE; exec sleep 1000) & wait");
    assert_reads(&run, "up\n");
    qa_runner_destroy(run.runner);
    assert_rest(&run, "");
}

/* As below a first process that collects nobody: what ended but is not collected is not waited for.
 * (Waiting for it would take five seconds.) */
static int end_below_a_careless_parent(void)
{
    struct run run;
    struct timespec before, after;
    run_create(&run, "trap 'exit' TERM; (echo up >&$PIPE; exec sleep 1000) & wait");
    assert_reads(&run, "up\n");
    clock_gettime(CLOCK_MONOTONIC, &before);
    qa_runner_destroy(run.runner);
    clock_gettime(CLOCK_MONOTONIC, &after);
    int64_t took_ns = (after.tv_sec - before.tv_sec) * INT64_C(1000000000) + after.tv_nsec -
                      before.tv_nsec;
    return took_ns < INT64_C(5000000000) ? 0 : 1;
}

static void test_what_nobody_collects_is_not_waited_for(void **state)
{
    int status = 1;
    pid_t careless = fork();
    if (careless == 0) {
        prctl(PR_SET_CHILD_SUBREAPER, 1);
        pid_t child = fork();
        if (child == 0)
            _exit(end_below_a_careless_parent());
        waitpid(child, &status, 0); /* and none of those that become its children */
        _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 2);
    }
    assert_int_equal(waitpid(careless, &status, 0), careless);
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_its_variables_replace_those_it_inherits),
        cmocka_unit_test(test_a_failure_is_said),
        cmocka_unit_test(test_what_cleans_up_is_waited_for),
        cmocka_unit_test(test_what_ignores_sigterm_is_killed),
        cmocka_unit_test(test_what_nobody_collects_is_not_waited_for),
    };
    return cmocka_run_group_tests_name("runner", tests, NULL, NULL);
}
