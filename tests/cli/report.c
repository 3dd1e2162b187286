/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How commands speak: exit statuses, JSON of names that are no text, memory that runs out, signals
 * and failed asserts. What ends a process is tried in a child.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "interface/report.h"
#include "runtime/error.h"
#include "runtime/os.h"

static int run_nothing(struct qi_context *context, const void *values)
{
    (void)context, (void)values;
    return 0;
}

struct values {
    struct qi_list names;
};
static const struct qi_option options[] = {
    {.name = "NAME", .positional = true, .kind = QI_LIST, QI_FIELD(struct values, names),
     .help = "names"},
    {.name = NULL},
};
static const struct qi_command action = {.name = "do",
                                         .summary = "x",
                                         .options = options,
                                         .values_size = sizeof(struct values),
                                         .run = run_nothing};
static const struct qi_command root = {
    .name = "q", .summary = "x", .actions = (const struct qi_command *const[]){&action, NULL}};

/* --- exit statuses --- */

static void test_exit_statuses(void **state)
{
    static const int table[][2] = {
        {0, 0}, {1, 1}, {65, 65},
        {QALLOW_E_ARGUMENT, 64}, {QALLOW_E_STATE, 70}, {QALLOW_E_UNSUPPORTED_LOCATION, 69},
        {QALLOW_E_PAGE_NOT_FOUND, 66}, {QALLOW_E_PAGE_EXISTS, 73}, {QALLOW_E_INVALID_DELTA, 65},
        {QALLOW_E_EPOCH_NOT_FOUND, 66}, {QALLOW_E_DAMAGED, 65}, {QALLOW_E_SERIALIZATION, 65},
        {QALLOW_E_VERSION, 65}, {QALLOW_E_NOT_A_LOG, 65}, {QALLOW_E_IO, 74},
        {QALLOW_E_NO_SPACE, 74}, {QALLOW_E_PERMISSION, 77}, {QALLOW_E_NO_INPUT, 66},
        {QALLOW_E_CANNOT_CREATE, 73}, {QALLOW_E_BUSY, 75}, {QALLOW_E_UNAVAILABLE, 69},
        {QALLOW_E_CYCLE, 65}, {QALLOW_E_FUNCTION, 65},
        {QALLOW_E_NO_MEMORY, 71}, {QALLOW_E_LIMIT, 71}, {QALLOW_E_DIFFERS, 1},
        {QALLOW_E_NO_DEVICE, 69}, {QALLOW_E_DEVICE_MEMORY, 71}, {QALLOW_E_DEVICE, 74},
        {QALLOW_E_INTERNAL, 70}, {-12345, 70},
    };

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        assert_int_equal(qi_exit_status(table[i][0]), table[i][1]);
        assert_non_null(qi_status_meaning(table[i][1]));
    }
    assert_null(qi_status_meaning(2));
}

/* --- JSON --- */

/* What `object` prints, parsed again. */
static cJSON *printed(cJSON *object)
{
    char *text = cJSON_PrintUnformatted(object);
    cJSON *parsed = cJSON_Parse(text);

    assert_non_null(parsed);
    cJSON_free(text);
    cJSON_Delete(object);
    return parsed;
}

static void test_json_paths(void **state)
{
    static const struct {
        const char *bytes;
        size_t length;
        const char *text, *hex;
    } cases[] = {
        {"plain", 5, "plain", NULL},
        {"", 0, "", NULL},
        {"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", 9, "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", NULL},
        {"a\"\n\\", 4, "a\"\n\\", NULL},
        {"\xff", 1, "\xef\xbf\xbd", "ff"},
        {"a\xc3", 2, "a\xef\xbf\xbd", "61c3"},
        {"\xc0\xaf", 2, "\xef\xbf\xbd\xef\xbf\xbd", "c0af"},                     /* overlong */
        {"\xed\xa0\x80", 3, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", "eda080"},   /* surrogate */
        {"\xf4\x90\x80\x80", 4, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", "f4908080"},
        {"a\0b", 3, "a\xef\xbf\xbd" "b", "610062"},
    };
    struct qi_context context = {.path = "q do"};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cJSON *object = qi_json_begin(&context);
        qi_json_path(object, "path", cases[i].bytes, cases[i].length);
        object = printed(object);
        cJSON *hex = cJSON_GetObjectItem(object, "path_hex");
        assert_string_equal(cJSON_GetObjectItem(object, "path")->valuestring, cases[i].text);
        if (cases[i].hex)
            assert_string_equal(hex->valuestring, cases[i].hex);
        else
            assert_null(hex);
        cJSON_Delete(object);
    }
}

static void test_json_numbers(void **state)
{
    struct qi_context context = {.path = "q do"};
    cJSON *object = qi_json_begin(&context);

    (void)state;
    qi_json_u64(object, "u", UINT64_MAX);
    qi_json_i64(object, "i", INT64_MIN);
    qi_json_time(object, "t", 1);
    qi_json_hex(object, "h", "\x01\xff", 2);
    char *text = cJSON_PrintUnformatted(object);
    assert_string_equal(text, "{\"schema\":\"q.do\",\"version\":1,\"u\":18446744073709551615,"
                              "\"i\":-9223372036854775808,"
                              "\"t\":\"1970-01-01T00:00:00.000000001Z\",\"h\":\"01ff\"}");
    cJSON_free(text);
    cJSON_Delete(object);
}

/* --- memory that runs out --- */

static int allocations_left;

static int fail_after(size_t size)
{
    (void)size;
    return allocations_left-- <= 0;
}

/* Something that parses and prints with all helpers; its result. */
static int parse_and_print(void)
{
    struct qi_context context = {0};
    const char *const argv[] = {"q", "do", "one", "two"};
    int rc = qi_parse(&context, &root, 4, argv);

    if (rc == 0) {
        cJSON *object = qi_json_begin(&context), *inner = cJSON_AddObjectToObject(object, "inner");
        qi_json_u64(inner, "n", 7);
        qi_json_path(inner, "path", "\xff", 1);
        cJSON_AddStringToObject(inner, "text", "x");
        rc = qi_json_end(object);
    }
    qi_context_finish(&context);
    return rc;
}

/* Whichever allocation fails: it is said, and nothing leaks (under ASan). */
static void test_no_memory(void **state)
{
    int rc = QALLOW_E_NO_MEMORY, n;

    (void)state;
    for (n = 0; n < 200 && rc != 0; n++) {
        allocations_left = n;
        qr_set_allocation_hook(fail_after);
        rc = parse_and_print();
        qr_set_allocation_hook(NULL);
        if (rc != 0 && rc != QALLOW_E_NO_MEMORY)
            fail_msg("allocation %d failed: %d", n, rc);
    }
    assert_int_equal(rc, 0);
    assert_true(n > 10);
}

/* --- what ends a process --- */

/* Runs `body` in a child and returns what its shell would call its status. */
static int status_of(void (*body)(void))
{
    int status;

    fflush(stdout);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        freopen("/dev/null", "w", stderr);
        body();
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void failed_assert(void)
{
    qi_process_init();
    qr_assert(!"true");
}

static void one_signal(void)
{
    qi_signals_catch();
    raise(SIGTERM);
    if (qi_signal_received() != SIGTERM || qi_signal_check() != QALLOW_E_INTERRUPTED)
        _exit(1);
    char byte;
    if (read(qi_signal_fd(), &byte, 1) != 1)
        _exit(2);
    _exit(qi_exit_status(QALLOW_E_INTERRUPTED));
}

static void two_signals(void)
{
    qi_signals_catch();
    raise(SIGINT);
    raise(SIGINT);
}

static void ignored_signal(void)
{
    signal(SIGHUP, SIG_IGN);
    qi_signals_catch();
    raise(SIGHUP);
    if (qi_signal_received())
        _exit(1);
}

static void closed_descriptors(void)
{
    close(0);
    close(1);
    qi_process_init();
    int next = dup(2);
    if (next < 3)
        _exit(1);
    puts("lost");
    _exit(qi_exit_status(qi_stdout_flush()));
}

static void test_endings(void **state)
{
    (void)state;
    assert_int_equal(status_of(failed_assert), 70);
    assert_int_equal(status_of(one_signal), 143);
    assert_int_equal(status_of(two_signals), 130);
    assert_int_equal(status_of(ignored_signal), 0);
    assert_int_equal(status_of(closed_descriptors), 74);
    assert_int_equal(qi_signal_received(), 0);
    assert_int_equal(qi_signal_check(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exit_statuses), cmocka_unit_test(test_json_paths),
        cmocka_unit_test(test_json_numbers),  cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_endings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
