/* SPDX-License-Identifier: Apache-2.0 */
/* The recorder's socket: a server in this process, clients in child processes. */
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
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "accelerator/control.h"
#include "accelerator/control_client.h"
#include "accelerator/watcher.h"
#include "runtime/error.h"
#include "runtime/os.h"

struct world {
    char directory[512], log[768];
    struct qa_control *control;
    int requests, answer_later;
    uint64_t waiting[QA_CLIENTS_MAX];
    size_t waiting_count;
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    snprintf(w->directory, sizeof w->directory, "/tmp/qallow-control-XXXXXX");
    assert_non_null(mkdtemp(w->directory));
    snprintf(w->log, sizeof w->log, "%s/work.tlog", w->directory);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    char command[600];
    qa_control_close(w->control);
    snprintf(command, sizeof command, "rm -rf %.200s", w->directory);
    int result = system(command);
    free(w);
    return result;
}

/* "echo" is answered with its text, "fail" with an error, "crash" by going away. */
static void handle(void *context, uint64_t client, const cJSON *request)
{
    struct world *w = context;
    const char *what = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(request, "request"));
    w->requests++;
    if (w->answer_later) {
        w->waiting[w->waiting_count++] = client;
        return;
    }
    assert_non_null(what);
    if (strcmp(what, "fail") == 0) {
        qa_control_reply(w->control, client, qa_reply_failed(QALLOW_E_BUSY, "a reason"));
    } else {
        cJSON *reply = qa_reply_ok();
        cJSON_AddStringToObject(reply, "echo", what);
        qa_control_reply(w->control, client, reply);
    }
}

static void serve_once(struct world *w)
{
    struct pollfd fds[QA_POLL_MAX];
    size_t n = qa_control_poll(w->control, fds);
    assert_true(poll(fds, n, 60000) > 0);
    qa_control_serve(w->control, handle, w);
}

/* Asks in a child process; its exit status says how that went. */
static pid_t ask(const struct world *w, const char *request, int expected, const char *text)
{
    fflush(stdout);
    pid_t child = fork();
    if (child != 0)
        return child;
    char *reply = NULL;
    int result = qa_control_request(w->log, request, &reply);
    if (result != expected)
        _exit(1);
    _exit(strstr(result < 0 ? qallow_error_detail() : reply, text) ? 0 : 2);
}

static void serve_until_ended(struct world *w, pid_t child)
{
    int status;
    pid_t got;
    while ((got = waitpid(child, &status, WNOHANG)) == 0) {
        struct pollfd fds[QA_POLL_MAX];
        size_t n = qa_control_poll(w->control, fds);
        poll(fds, n, 10);
        qa_control_serve(w->control, handle, w);
    }
    assert_int_equal(got, child);
    assert_int_equal(status, 0);
}

static void open_control(struct world *w)
{
    assert_int_equal(qa_control_open(w->log, &w->control), 0);
}

static void answers_and_errors_arrive(void **state)
{
    struct world *w = *state;
    struct stat st;
    open_control(w);
    assert_int_equal(stat(qa_control_path(w->control), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    serve_until_ended(w, ask(w, "{\"request\":\"hello\"}", 0, "\"echo\":\"hello\""));
    serve_until_ended(w, ask(w, "{\"request\":\"fail\"}", QALLOW_E_BUSY, "a reason"));
    serve_until_ended(w, ask(w, "nonsense", QALLOW_E_ARGUMENT, "one JSON object"));
    serve_until_ended(w, ask(w, "[1]", QALLOW_E_ARGUMENT, "one JSON object"));
    assert_int_equal(w->requests, 2);
}

static void nobody_there_is_said(void **state)
{
    struct world *w = *state;
    char *reply;
    assert_int_equal(qa_control_request(w->log, "{}", &reply), QALLOW_E_UNAVAILABLE);
    open_control(w);
    char path[800], kept[820];
    snprintf(path, sizeof path, "%s", qa_control_path(w->control));
    snprintf(kept, sizeof kept, "%s.kept", path);
    assert_int_equal(link(path, kept), 0);
    qa_control_close(w->control);
    w->control = NULL;
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(rename(kept, path), 0); /* what a killed recorder leaves behind */
    assert_int_equal(qa_control_request(w->log, "{}", &reply), QALLOW_E_UNAVAILABLE);
    open_control(w); /* and the next one replaces */
    serve_until_ended(w, ask(w, "{\"request\":\"again\"}", 0, "again"));
}

static void a_long_path_works(void **state)
{
    struct world *w = *state;
    char name[201];
    memset(name, 'x', 200);
    name[200] = '\0';
    assert_true(strlen(w->directory) < 100);
    snprintf(w->log, sizeof w->log, "%.100s/%s", w->directory, name);
    assert_int_equal(mkdir(w->log, 0700), 0);
    snprintf(w->log, sizeof w->log, "%.100s/%s/%s", w->directory, name, name);
    open_control(w);
    serve_until_ended(w, ask(w, "{\"request\":\"hello\"}", 0, "hello"));
}

static int raw_client(const struct world *w)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%.80s", qa_control_path(w->control));
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void assert_hung_up(int fd)
{
    char byte;
    while (read(fd, &byte, 1) > 0)
        ;
    close(fd);
}

/* Slow, endless and vanishing clients cost one place each and nobody else anything. */
static void bad_clients_hurt_nobody(void **state)
{
    struct world *w = *state;
    open_control(w);
    int slow = raw_client(w), endless = raw_client(w), gone = raw_client(w);
    assert_int_equal(write(slow, "{\"request\":", 11), 11);
    char flood[QA_REQUEST_MAX];
    memset(flood, ' ', sizeof flood);
    assert_int_equal(write(endless, flood, sizeof flood), sizeof flood);
    w->answer_later = 1;
    assert_int_equal(write(gone, "{\"request\":\"x\"}\n", 16), 16);
    while (w->waiting_count < 1)
        serve_once(w);
    close(gone);
    serve_once(w);
    qa_control_reply(w->control, w->waiting[0], qa_reply_ok()); /* to nobody */
    w->answer_later = 0;
    serve_until_ended(w, ask(w, "{\"request\":\"hello\"}", 0, "hello"));
    assert_hung_up(endless);
    assert_int_equal(write(slow, "\"y\"}\n", 5), 5);
    serve_once(w);
    char reply[64];
    assert_true(read(slow, reply, sizeof reply) > 0);
    close(slow);
    assert_int_equal(w->requests, 3);
}

static void more_clients_than_places_wait(void **state)
{
    enum { CLIENTS = QA_CLIENTS_MAX + 10 };
    struct world *w = *state;
    pid_t children[CLIENTS];
    open_control(w);
    w->answer_later = 1;
    for (int i = 0; i < CLIENTS; i++)
        children[i] = ask(w, "{\"request\":\"hello\"}", 0, "ok");
    while (w->waiting_count < QA_CLIENTS_MAX)
        serve_once(w);
    for (size_t i = 0; i < w->waiting_count; i++)
        qa_control_reply(w->control, w->waiting[i], qa_reply_ok());
    w->answer_later = 0;
    for (int i = 0; i < CLIENTS; i++)
        serve_until_ended(w, children[i]);
    assert_int_equal(w->requests, CLIENTS);
}

/* Whoever is not answered learns that, rather than waiting for ever. */
static void the_end_is_noticed(void **state)
{
    struct world *w = *state;
    int status;
    open_control(w);
    w->answer_later = 1;
    pid_t child = ask(w, "{\"request\":\"x\"}", QALLOW_E_UNAVAILABLE, "before it answered");
    while (w->waiting_count < 1)
        serve_once(w);
    qa_control_close(w->control);
    w->control = NULL;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

/* Sleeps no longer than a keeper would. */
static void serve_in_time(struct world *w)
{
    struct pollfd fds[QA_POLL_MAX];
    size_t n = qa_control_poll(w->control, fds);
    uint64_t now = qa_now_ns(), until = qa_control_deadline(w->control);
    int timeout = until == UINT64_MAX ? 10000
                  : until < now       ? 0
                                      : (int)((until - now) / 1000000) + 1;
    poll(fds, n, timeout);
    qa_control_serve(w->control, handle, w);
}

/* A connection that cannot be accepted leaves the socket readable; that must not become a loop that
 * never sleeps, and the client is served when it can be. */
static void want_of_descriptors_is_waited_out(void **state)
{
    struct world *w = *state;
    struct rlimit before, none;
    struct pollfd fds[QA_POLL_MAX];
    open_control(w);
    assert_int_equal(qa_control_poll(w->control, fds), 1);
    assert_int_equal(qa_control_deadline(w->control), UINT64_MAX);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    pid_t child = ask(w, "{\"request\":\"hello\"}", 0, "hello");
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
    assert_int_equal(poll(fds, 1, 60000), 1); /* it has connected */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    uint64_t tried = qa_now_ns();
    qa_control_serve(w->control, handle, w);
    uint64_t deadline = qa_control_deadline(w->control);
    assert_in_range(deadline, tried + 1, qa_now_ns() + UINT64_C(1000000000));
    for (int i = 0; i < 3; i++) { /* nothing to poll for, and nothing done, until then */
        assert_int_equal(qa_control_poll(w->control, fds), 0);
        qa_control_serve(w->control, handle, w);
    }
    while (qa_control_deadline(w->control) == deadline) {
        assert_int_equal(w->requests, 0);
        serve_in_time(w);
    }
    assert_true(qa_control_deadline(w->control) > deadline); /* tried again, in vain */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    while (w->requests == 0)
        serve_in_time(w);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(qa_control_deadline(w->control), UINT64_MAX);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(answers_and_errors_arrive),
        TEST(nobody_there_is_said),
        TEST(a_long_path_works),
        TEST(bad_clients_hurt_nobody),
        TEST(more_clients_than_places_wait),
        TEST(the_end_is_noticed),
        TEST(want_of_descriptors_is_waited_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
