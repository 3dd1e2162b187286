/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of results in words, the detail line, quoting of hostile names, failed assertions. */
#include <errno.h>
#include <iconv.h>
#include <pthread.h>
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

#include "runtime/error.h"
#include "runtime/os.h"

#define QUOTED(literal, expected)                                                                  \
    assert_string_equal(qr_quote(literal, sizeof(literal) - 1), expected)

static void every_result_has_its_own_text(void **state)
{
    static const int results[] = {0,   -1,  -2,  -3,  -10, -11, -12, -13, -20, -21, -22, -23,
                                  -30, -31, -32, -33, -34, -35, -36, -40, -41, -50, -51, -60};
    enum { COUNT = sizeof results / sizeof results[0] };
    for (unsigned i = 0; i < COUNT; i++) {
        assert_string_not_equal(qallow_strerror(results[i]), "unknown result");
        for (unsigned j = 0; j < i; j++)
            assert_string_not_equal(qallow_strerror(results[i]), qallow_strerror(results[j]));
    }
    assert_string_equal(qallow_strerror(-4), "unknown result");
    assert_string_equal(qallow_strerror(INT32_MIN), "unknown result");
}

static void the_detail_is_formatted(void **state)
{
    assert_int_equal(qr_fail(QALLOW_E_DAMAGED, "page %d", 7), QALLOW_E_DAMAGED);
    assert_string_equal(qallow_error_detail(), "page 7");
    /* The old detail may be part of the new one. */
    qr_fail(QALLOW_E_IO, "epoch 3: %s", qallow_error_detail());
    assert_string_equal(qallow_error_detail(), "epoch 3: page 7");
}

static void errno_chooses_the_result(void **state)
{
    static const struct {
        int err, result;
    } cases[] = {
        {ENOSPC, QALLOW_E_NO_SPACE},  {EDQUOT, QALLOW_E_NO_SPACE},   {EACCES, QALLOW_E_PERMISSION},
        {EPERM, QALLOW_E_PERMISSION}, {EROFS, QALLOW_E_PERMISSION},  {ENOENT, QALLOW_E_NO_INPUT},
        {ENOTDIR, QALLOW_E_NO_INPUT}, {ENOMEM, QALLOW_E_NO_MEMORY}, {EIO, QALLOW_E_IO},
        {-ENOSPC, QALLOW_E_NO_SPACE}, /* as the os table returns them */
    };
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(qr_fail_errno(cases[i].err, "x"), cases[i].result);
    qr_fail_errno(ENOSPC, "%s", "a.tlog");
    assert_string_equal(qallow_error_detail(), "a.tlog: No space left on device");
}

static void a_long_detail_is_cut_visibly(void **state)
{
    char big[5000];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = 0;
    qr_fail_errno(EIO, "%s", big);
    const char *detail = qallow_error_detail();
    assert_true(strlen(detail) < 2048);
    assert_string_equal(detail + strlen(detail) - 3, "...");
}

static void control_bytes_never_reach_the_detail(void **state)
{
    qr_fail(QALLOW_E_IO, "a\nb\033[2Jc\177");
    assert_string_equal(qallow_error_detail(), "a?b?[2Jc?");
}

static void *fail_elsewhere(void *detail)
{
    assert_string_equal(qallow_error_detail(), "");
    qr_fail(QALLOW_E_IO, "another thread");
    return NULL;
}

static void the_detail_is_per_thread(void **state)
{
    pthread_t thread;
    qr_fail(QALLOW_E_IO, "here");
    assert_int_equal(pthread_create(&thread, NULL, fail_elsewhere, NULL), 0);
    pthread_join(thread, NULL);
    assert_string_equal(qallow_error_detail(), "here");
}

/* --- quoting --- */

static void plain_names_stay(void **state)
{
    QUOTED("", "");
    QUOTED("src/main.c", "src/main.c");
    QUOTED("na\xc3\xafve \xe2\x82\xac \xf0\x9f\x98\x80",
           "na\xc3\xafve \xe2\x82\xac \xf0\x9f\x98\x80");
    assert_string_equal(qr_quotez("a b"), "a b");
}

static void hostile_names_become_harmless(void **state)
{
    QUOTED("a\nb", "a\\x0ab");
    QUOTED("\033[31m", "\\x1b[31m");
    QUOTED("a\0b", "a\\x00b");
    QUOTED("\177\\x0a", "\\x7f\\x5cx0a");              /* our own escapes cannot be forged */
    QUOTED("\xff\xfe", "\\xff\\xfe");                  /* not UTF-8 */
    QUOTED("\xc3", "\\xc3");                           /* cut short */
    QUOTED("\xe2\x82", "\\xe2\\x82");
    QUOTED("\xc3(", "\\xc3(");
    QUOTED("\xc0\xaf", "\\xc0\\xaf");                  /* overlong '/' */
    QUOTED("\xed\xa0\x80", "\\xed\\xa0\\x80");         /* surrogate */
    QUOTED("\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"); /* beyond U+10FFFF */
    QUOTED("\xc2\x9b", "\\xc2\\x9b");                  /* CSI as one C1 control */
    QUOTED("\xe2\x80\xae", "\\xe2\\x80\\xae");         /* right-to-left override */
    QUOTED("\xe2\x80\xa8", "\\xe2\\x80\\xa8");         /* line separator */
}

/* A byte string for every combination that begins a UTF-8 sequence, against iconv's opinion. */
static void utf8_is_what_iconv_says(void **state)
{
    iconv_t converter = iconv_open("UTF-32LE", "UTF-8");
    assert_true(converter != (iconv_t)-1);
    for (unsigned i = 0; i < 1u << 20; i++) {
        static const uint8_t thirds[] = {0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0};
        uint8_t bytes[4] = {(uint8_t)i, (uint8_t)(i >> 8), thirds[i >> 16 & 7],
                            i >> 19 ? 0xbf : 'a'};
        uint8_t code[4];
        size_t length = bytes[0] < 0x80 ? 1 : bytes[0] < 0xe0 ? 2 : bytes[0] < 0xf0 ? 3 : 4;
        char *in = (char *)bytes, *out = (char *)code;
        size_t in_left = length, out_left = sizeof code;
        int valid = iconv(converter, &in, &in_left, &out, &out_left) == 0 && in_left == 0;
        const char *quoted = qr_quote(bytes, length);
        iconv(converter, NULL, NULL, NULL, NULL);
        if (strcmp(quoted, "") == 0 || (!valid && !strstr(quoted, "\\x")))
            fail_msg("%02x %02x %02x %02x: '%s'", bytes[0], bytes[1], bytes[2], bytes[3], quoted);
        if (valid && strncmp(quoted, (char *)bytes, length) != 0)
            assert_non_null(strstr(quoted, "\\x"));
        for (const char *p = quoted; *p; p++)
            assert_true((uint8_t)*p >= 0x20 && *p != 0x7f);
    }
    iconv_close(converter);
}

static void long_names_are_cut_in_the_middle(void **state)
{
    char name[5000];
    memset(name, 'a', sizeof name);
    memcpy(name, "begin", 5);
    memcpy(name + sizeof name - 3, "end", 3);
    const char *quoted = qr_quote(name, sizeof name);
    assert_memory_equal(quoted, "begin", 5);
    assert_string_equal(quoted + strlen(quoted) - 3, "end");
    assert_non_null(strstr(quoted, "[... 4520 bytes ...]"));
    assert_true(strlen(quoted) < 560);
    /* The largest that is not cut. */
    assert_int_equal(strlen(qr_quote(name, 480)), 480);
    assert_null(strstr(qr_quote(name, 480), "..."));
    assert_non_null(strstr(qr_quote(name, 481), "[... 1 bytes ...]"));
    /* Four printed bytes for each: the same bound. */
    memset(name, '\n', sizeof name);
    assert_true(strlen(qr_quote(name, sizeof name)) < 560);
}

static void eight_quotes_live_at_once(void **state)
{
    const char *quoted[8];
    char name[2] = "0";
    for (int i = 0; i < 8; i++, name[0]++)
        quoted[i] = qr_quotez(name);
    for (int i = 0; i < 8; i++)
        assert_int_equal(quoted[i][0], '0' + i);
}

/* --- assertions --- */

static jmp_buf escape;
static char failed_condition[64];

static void leave(const char *cond, const char *file, int line)
{
    snprintf(failed_condition, sizeof failed_condition, "%s %d", cond, line > 0);
    longjmp(escape, 1);
}

static void the_handler_hears_of_a_failed_assertion(void **state)
{
    qr_set_assert_handler(leave);
    if (setjmp(escape) == 0) {
        qr_assert(1 + 1 == 2);
        qr_assert(1 + 1 == 3);
        fail_msg("went on");
    }
    qr_set_assert_handler(NULL);
    assert_string_equal(failed_condition, "1 + 1 == 3 1");
}

static void without_a_handler_it_aborts_silently(void **state)
{
    int status, ends[2];
    char byte;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        dup2(ends[1], STDOUT_FILENO);
        close(ends[1]);
        signal(SIGABRT, SIG_DFL);
        qr_assert_failed("x", "f", 1);
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], &byte, 1), 0);
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

/* --- memory --- */

static unsigned asked;
static int refuse_all(size_t size)
{
    asked++;
    return 1;
}

static void allocations_can_be_refused(void **state)
{
    char *kept = qr_malloc(10);
    assert_non_null(kept);
    memcpy(kept, "kept", 5);
    qr_set_allocation_hook(refuse_all);
    assert_null(qr_malloc(1));
    assert_null(qr_calloc(1, 1));
    assert_null(qr_realloc(NULL, 1));
    assert_null(qr_realloc(kept, 1000));
    assert_int_equal(asked, 4);
    qr_set_allocation_hook(NULL);
    assert_string_equal(kept, "kept");
    kept = qr_realloc(kept, 1000);
    assert_string_equal(kept, "kept");
    assert_null(qr_calloc(SIZE_MAX / 2, 3)); /* the product overflows */
    qr_free(kept);
    qr_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_result_has_its_own_text),
        cmocka_unit_test(the_detail_is_formatted),
        cmocka_unit_test(errno_chooses_the_result),
        cmocka_unit_test(a_long_detail_is_cut_visibly),
        cmocka_unit_test(control_bytes_never_reach_the_detail),
        cmocka_unit_test(the_detail_is_per_thread),
        cmocka_unit_test(plain_names_stay),
        cmocka_unit_test(hostile_names_become_harmless),
        cmocka_unit_test(utf8_is_what_iconv_says),
        cmocka_unit_test(long_names_are_cut_in_the_middle),
        cmocka_unit_test(eight_quotes_live_at_once),
        cmocka_unit_test(the_handler_hears_of_a_failed_assertion),
        cmocka_unit_test(without_a_handler_it_aborts_silently),
        cmocka_unit_test(allocations_can_be_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
