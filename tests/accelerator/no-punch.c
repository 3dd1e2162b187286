/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A recorder on a file system that cannot give back part of a file's space: old epochs are dropped
 * all the same, it is said once, and the recording goes on.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "accelerator/control_client.h"
#include "accelerator/keeper.h"
#include "runtime/error.h"

enum { ROUNDS = 60, SIZE = 20000 };

struct run {
    struct qa_keeper_options options;
    int ready[2]; /* a pipe: written when the recorder watches */
    int dropped, not_given_back; /* notices */
    int result;
    char detail[1024];
};

static int no_punch(void *context, int file, uint64_t offset, uint64_t length)
{
    return -EOPNOTSUPP;
}

static void on_report(void *context, const struct qa_report *report)
{
    struct run *run = context;
    if (report->first && write(run->ready[1], "", 1) != 1)
        abort();
}

static void on_notice(void *context, const char *line)
{
    struct run *run = context;
    run->dropped += strncmp(line, "dropped epochs ", 15) == 0;
    run->not_given_back += strstr(line, "not given back: Operation not supported") != NULL;
}

static void *record(void *context)
{
    struct run *run = context;
    run->result = qa_keep(&run->options);
    snprintf(run->detail, sizeof run->detail, "%s", qallow_error_detail());
    on_report(run, &(const struct qa_report){.first = 1}); /* whoever waits sees the end */
    return NULL;
}

static void write_random(const char *path, unsigned *seed)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    for (int i = 0; i < SIZE; i++)
        putc((rand_r(seed) >> 7) & 0xff, file);
    assert_int_equal(fclose(file), 0);
}

/* The answer, which must be one of success. */
static void ask(const char *log, const char *request, char *answer, size_t size)
{
    char *reply;
    if (qa_control_request(log, request, &reply) < 0)
        fail_msg("%s: %s", request, qallow_error_detail());
    snprintf(answer, size, "%s", reply);
    qr_free(reply);
}

static void space_that_is_not_given_back_ends_nothing(void **unused)
{
    char base[] = "/tmp/qallow-recorder-XXXXXX", tree[64], file[80], log[80], answer[1024], byte;
    struct qr_os os = *qr_os_posix();
    unsigned seed = 1;
    pthread_t thread;
    assert_non_null(mkdtemp(base));
    snprintf(tree, sizeof tree, "%s/tree", base);
    snprintf(file, sizeof file, "%s/file", tree);
    snprintf(log, sizeof log, "%s/log.tlog", base);
    assert_int_equal(mkdir(tree, 0700), 0);
    os.punch = no_punch;
    struct run run = {.options = {.path = tree,
                                  .log = log,
                                  .store = {.os = &os, .sync = QR_SYNC_NONE},
                                  .threads = 1,
                                  .settle = {.quiet_ns = 1000000, .max_ns = 1000000},
                                  .retention = {.keep_bytes = 200000},
                                  .no_cache = 1,
                                  .stop_fd = -1,
                                  .reload_fd = -1,
                                  .report = on_report,
                                  .notice = on_notice}};
    run.options.context = &run;
    assert_int_equal(pipe(run.ready), 0);
    assert_int_equal(pthread_create(&thread, NULL, record, &run), 0);
    assert_int_equal(read(run.ready[0], &byte, 1), 1);
    for (int i = 0; i < ROUNDS; i++) {
        write_random(file, &seed);
        ask(log, "{\"request\":\"sync\"}", answer, sizeof answer);
    }
    ask(log, "{\"request\":\"prune\",\"keep_epochs\":1}", answer, sizeof answer);
    snprintf(file, sizeof file, "\"punched_bytes\":0,\"relocated_bytes\":");
    assert_non_null(strstr(answer, file));
    snprintf(file, sizeof file, "\"punch_errno\":%d", EOPNOTSUPP);
    assert_non_null(strstr(answer, file));
    ask(log, "{\"request\":\"stop\"}", answer, sizeof answer);
    assert_int_equal(pthread_join(thread, NULL), 0);
    if (run.result != 0)
        fail_msg("%s: %s", qallow_strerror(run.result), run.detail);
    assert_true(run.dropped > 1);
    assert_int_equal(run.not_given_back, 1);
    close(run.ready[0]);
    close(run.ready[1]);
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", base);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(space_that_is_not_given_back_ends_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
