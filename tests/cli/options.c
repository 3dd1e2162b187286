/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parser of command lines and the values in them, as functions: every kind, every way to write
 * an option, every refusal; times against the C library's calendar.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "interface/options.h"
#include "interface/values.h"
#include "qallow/error.h"

/* --- a command with everything --- */

struct values {
    int flag, on, threads, color, mode;
    unsigned port;
    uint64_t epoch, size;
    int64_t wait, settle, at;
    const char *text, *log;
    struct qi_list excludes, names;
    int range[2];
};

static const char *parse_range(const char *text, void *field)
{
    int range[2], end = 0;

    if (sscanf(text, "%d..%d%n", &range[0], &range[1], &end) != 2 || text[end])
        return "a range like 3..7";
    memcpy(field, range, sizeof range);
    return NULL;
}

static const char *const colors[] = {"auto", "always", "never", NULL};
static const char *const modes[] = {"plain", "commit", "interval", NULL};

static const struct qi_option options[] = {
    {.name = "LOG", .positional = true, .required = true, .kind = QI_TEXT,
     QI_FIELD(struct values, log), .help = "the log"},
    {.name = "NAME", .positional = true, .kind = QI_LIST, QI_FIELD(struct values, names),
     .help = "names"},
    {.name = "flag", .letter = 'f', .kind = QI_FLAG, QI_FIELD(struct values, flag), .help = "x"},
    {.name = "on", .kind = QI_FLAG, QI_FIELD(struct values, on), .fallback = "1",
     .negatable = true, .help = "x"},
    {.name = "threads", .letter = 't', .kind = QI_NUMBER, QI_FIELD(struct values, threads),
     .minimum = 1, .maximum = 64, .fallback = "4", .help = "x"},
    {.name = "port", .kind = QI_NUMBER, QI_FIELD(struct values, port), .help = "x"},
    {.name = "epoch", .letter = 'e', .kind = QI_NUMBER, QI_FIELD(struct values, epoch),
     .group = "which", .help = "x"},
    {.name = "size", .kind = QI_SIZE, QI_FIELD(struct values, size), .minimum = 1024, .help = "x"},
    {.name = "wait", .kind = QI_DURATION, QI_FIELD(struct values, wait), .help = "x"},
    {.name = "settle", .kind = QI_DURATION, QI_FIELD(struct values, settle), .unit = "ms",
     .maximum = 60000000000, .help = "x"},
    {.name = "at", .kind = QI_TIME, QI_FIELD(struct values, at), .group = "which", .help = "x"},
    {.name = "color", .kind = QI_CHOICE, QI_FIELD(struct values, color), .choices = colors,
     .help = "x"},
    {.name = "mode", .letter = 'm', .kind = QI_CHOICE, QI_FIELD(struct values, mode),
     .choices = modes, .implied = "commit", .help = "x"},
    {.name = "text", .letter = 'x', .kind = QI_TEXT, QI_FIELD(struct values, text), .help = "x"},
    {.name = "exclude", .kind = QI_LIST, QI_FIELD(struct values, excludes), .help = "x"},
    {.name = "diff", .kind = QI_CUSTOM, .parse = parse_range, QI_FIELD(struct values, range),
     .help = "x"},
    {.name = NULL},
};

static int run_nothing(struct qi_context *context, const void *values)
{
    (void)context, (void)values;
    return 0;
}

static const struct qi_command leaf = {.name = "leaf",
                                       .summary = "x",
                                       .options = options,
                                       .values_size = sizeof(struct values),
                                       .run = run_nothing};
static const struct qi_command bare = {.name = "bare", .summary = "x", .run = run_nothing};
static const struct qi_command branch = {
    .name = "branch", .summary = "x", .actions = (const struct qi_command *const[]){&bare, NULL}};
static const struct qi_command root = {
    .name = "q",
    .summary = "x",
    .actions = (const struct qi_command *const[]){&leaf, &branch, NULL}};

enum { WORDS = 16 };

/* Parses "q" and the words. */
static int parse(struct qi_context *context, const char *const words[WORDS])
{
    const char *argv[WORDS + 1] = {"q"};
    int argc = 1;

    for (; argc < WORDS && words[argc - 1]; argc++)
        argv[argc] = words[argc - 1];
    memset(context, 0, sizeof *context);
    return qi_parse(context, &root, argc, argv);
}

#define PARSE(context, ...) parse(&(context), (const char *const[WORDS]){__VA_ARGS__})

/* The words are refused with exactly this text. */
#define REFUSED(text, ...)                                                                         \
    do {                                                                                           \
        struct qi_context refused;                                                                 \
        assert_int_equal(PARSE(refused, __VA_ARGS__), QALLOW_E_ARGUMENT);                          \
        assert_string_equal(refused.error, text);                                                  \
        qi_context_finish(&refused);                                                               \
    } while (0)

static void test_every_kind(void **state)
{
    (void)state;
    struct qi_context context;
    assert_int_equal(PARSE(context, "leaf", "--flag", "--no-on", "-t", "8", "--port=80", "-e7",
                           "--size", "1.5K", "--wait=2h", "--settle", "250", "a.log", "--diff",
                           "3..7"),
                     0);
    const struct values *v = context.values;
    assert_string_equal(context.path, "q leaf");
    assert_int_equal(v->flag, 1);
    assert_int_equal(v->on, 0);
    assert_int_equal(v->threads, 8);
    assert_int_equal(v->port, 80);
    assert_int_equal(v->epoch, 7);
    assert_int_equal(v->size, 1536);
    assert_int_equal(v->wait, INT64_C(7200000000000));
    assert_int_equal(v->settle, 250000000);
    assert_int_equal(v->range[0], 3);
    assert_int_equal(v->range[1], 7);
    assert_string_equal(v->log, "a.log");
    assert_true(qi_given(&context, "epoch"));
    assert_false(qi_given(&context, "at"));
    assert_null(v->text);
    qi_context_finish(&context);
}

static void test_defaults(void **state)
{
    (void)state;
    struct qi_context context;
    assert_int_equal(PARSE(context, "leaf", "a.log"), 0);
    const struct values *v = context.values;
    assert_int_equal(v->threads, 4);
    assert_int_equal(v->on, 1);
    assert_false(qi_given(&context, "threads"));
    assert_int_equal(v->excludes.count, 0);
    qi_context_finish(&context);
}

static void test_lists_and_mixing(void **state)
{
    (void)state;
    struct qi_context context;
    assert_int_equal(PARSE(context, "--json", "leaf", "--exclude", "*.o", "a.log", "--exclude=-x",
                           "one", "-fxvalue", "--", "--two", "-3"),
                     0);
    const struct values *v = context.values;
    assert_int_equal(context.json, 1);
    assert_int_equal(v->flag, 1);
    assert_string_equal(v->text, "value");
    assert_int_equal(v->excludes.count, 2);
    assert_string_equal(v->excludes.items[1], "-x");
    assert_int_equal(v->names.count, 3);
    assert_string_equal(v->names.items[0], "one");
    assert_string_equal(v->names.items[1], "--two");
    assert_string_equal(v->names.items[2], "-3");
    qi_context_finish(&context);
}

/* The value may be left out; the next word belongs to it only if it is one. */
static void test_implied(void **state)
{
    static const struct {
        const char *words[4];
        int mode;
        const char *log;
    } cases[] = {
        {{"--mode", "interval", "a.log"}, 2, "a.log"}, {{"--mode", "a.log"}, 1, "a.log"},
        {{"--mode=interval", "a.log"}, 2, "a.log"},    {{"a.log", "--mode"}, 1, "a.log"},
        {{"-m", "a.log"}, 1, "a.log"},                 {{"-minterval", "a.log"}, 2, "a.log"},
        {{"--mode", "-f", "a.log"}, 1, "a.log"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct qi_context context;
        const char *const *w = cases[i].words;
        assert_int_equal(PARSE(context, "leaf", w[0], w[1], w[2]), 0);
        const struct values *v = context.values;
        assert_int_equal(v->mode, cases[i].mode);
        assert_string_equal(v->log, cases[i].log);
        qi_context_finish(&context);
    }
    REFUSED("--mode takes plain, commit or interval, not 'x'", "leaf", "a.log", "--mode=x");
}

static void test_refusals(void **state)
{
    (void)state;
    REFUSED("expected LOG: the log", "leaf");
    REFUSED("--threads takes a number from 1 to 64, not '65'", "leaf", "l", "--threads", "65");
    REFUSED("--threads takes a number from 1 to 64, not '0'", "leaf", "l", "-t0");
    REFUSED("--threads takes a number from 1 to 64, not ''", "leaf", "l", "--threads=");
    REFUSED("--port takes a number from 0 to 2147483647, not '2147483648'", "leaf", "l",
            "--port=2147483648");
    REFUSED("--epoch takes a number from 0 to 18446744073709551615, not '18446744073709551616'",
            "leaf", "l", "--epoch", "18446744073709551616");
    REFUSED("--epoch takes a number from 0 to 18446744073709551615, not '+1'", "leaf", "l",
            "--epoch", "+1");
    REFUSED("--epoch needs a value, but '-1' follows (if that is it: --epoch=-1)", "leaf", "l",
            "--epoch", "-1");
    REFUSED("--text needs a value, but '--flag' follows (if that is it: --text=--flag)", "leaf",
            "l", "--text", "--flag");
    REFUSED("--text needs a value: --text VALUE", "leaf", "l", "--text");
    REFUSED("--text needs a value, not '': --text VALUE", "leaf", "l", "--text", "");
    REFUSED("--text needs a value, not '': --text VALUE", "leaf", "l", "--text=");
    REFUSED("--exclude needs a value, not '': --exclude VALUE", "leaf", "l", "--exclude=");
    REFUSED("expected LOG, not '': the log", "leaf", "");
    REFUSED("expected NAME, not '': names", "leaf", "l", "a", "");
    REFUSED("--size takes a size from 1.0 KiB to 16.0 EiB, not '1'", "leaf", "l", "--size", "1");
    REFUSED("--size takes a size like 512, 10M or 1G, not '16777216T'", "leaf", "l", "--size",
            "16777216T");
    REFUSED("--wait takes a duration like 500ms, 10s, 2h or 7d, not '5'", "leaf", "l", "--wait",
            "5");
    REFUSED("--settle takes a duration from 0 ns to 1 min 0 s, not '60001'", "leaf", "l",
            "--settle", "60001");
    REFUSED("--color takes auto, always or never, not 'red'", "leaf", "l", "--color", "red");
    REFUSED("--diff takes a range like 3..7, not '3-7'", "leaf", "l", "--diff", "3-7");
    REFUSED("--flag takes no value", "leaf", "l", "--flag=1");
    REFUSED("unknown option --no-flag, see q leaf --help", "leaf", "l", "--no-flag");
}

static void test_refusals_of_the_whole(void **state)
{
    (void)state;
    REFUSED("expected --epoch or --at, not both", "leaf", "l", "--epoch", "1", "--at",
            "2026-01-01T00:00:00Z");
    REFUSED("unknown option --epcoh, did you mean --epoch?", "leaf", "l", "--epcoh", "1");
    REFUSED("unknown option --thr, did you mean --threads?", "leaf", "l", "--thr=1");
    REFUSED("unknown option --zzzzz, see q leaf --help", "leaf", "l", "--zzzzz");
    REFUSED("unknown option -z, see q leaf --help", "leaf", "l", "-fz");
    REFUSED("unknown option --\\x0a\\xff, see q leaf --help", "leaf", "l", "--\n\xff");
    REFUSED("expected one of bare", "branch");
    REFUSED("unknown command 'bear', did you mean bare?", "branch", "bear");
    REFUSED("expected nothing more, not 'x'", "branch", "bare", "x");
    REFUSED("expected one of leaf, branch", NULL);
}

/* --help wins over what is missing, not over what is wrong before it. */
static void test_help(void **state)
{
    (void)state;
    struct qi_context context;
    assert_int_equal(PARSE(context, "leaf", "--help"), 0);
    assert_int_equal(context.help, 1);
    qi_context_finish(&context);
    assert_int_equal(PARSE(context, "branch", "-h"), 0);
    assert_int_equal(context.help, 1);
    assert_string_equal(context.path, "q branch");
    qi_context_finish(&context);
}

/* --- values --- */

static uint64_t random_state;

/* xorshift64*: good enough to reach odd values, and the same everywhere. */
static uint64_t next_random(void)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * UINT64_C(2685821657736338717);
}

/* Of every magnitude. */
static int64_t random_ns(void) { return (int64_t)next_random() >> (next_random() % 64); }

/* Any words: parsed or refused in one line, never anything else. */
static void test_random_lines(void **state)
{
    static const char *const vocabulary[] = {
        "leaf", "branch", "bare", "--", "-", "", "--flag", "--no-on", "--threads", "--threads=3",
        "-t", "-t3", "-ft", "-fff", "--mode", "--mode=", "interval", "--epoch", "5", "--help",
        "--json", "--exclude", "--exclude=x", "--diff", "1..2", "--=", "--no-", "-\xff", "--\n=",
        "99999999999999999999999", "a.log", "--at=2026-01-01T00:00:00Z", "--size=1.5M", "-x",
    };

    (void)state;
    for (int i = 0; i < 50000; i++) {
        struct qi_context context;
        const char *words[WORDS] = {next_random() % 4 ? "leaf" : NULL};
        size_t count = next_random() % (WORDS - 1);
        for (size_t j = 1; words[0] && j < count; j++)
            words[j] = vocabulary[next_random() % (sizeof vocabulary / sizeof *vocabulary)];
        int rc = parse(&context, words);
        assert_true(rc == 0 || rc == QALLOW_E_ARGUMENT);
        assert_int_equal(rc == 0, context.error[0] == 0);
        assert_null(strchr(context.error, '\n'));
        qi_context_finish(&context);
    }
}

static void test_time_round_trip(void **state)
{
    (void)state;
    for (int i = 0; i < 100000; i++) {
        int64_t ns = i == 0 ? INT64_MIN : i == 1 ? INT64_MAX : random_ns(), back = 0;
        char text[QI_TEXT_MAX], expected[QI_TEXT_MAX];
        time_t seconds = (time_t)(ns / 1000000000 - (ns % 1000000000 < 0));
        struct tm calendar;

        assert_non_null(gmtime_r(&seconds, &calendar));
        size_t n = strftime(expected, sizeof expected, "%Y-%m-%dT%H:%M:%S", &calendar);
        snprintf(expected + n, sizeof expected - n, ".%09lldZ",
                 (long long)((uint64_t)ns - (uint64_t)seconds * 1000000000));
        assert_string_equal(qi_format_time(ns, text), expected);
        assert_null(qi_parse_time(text, &back));
        assert_int_equal(back, ns);
    }
}

static void test_time_forms(void **state)
{
    static const struct {
        const char *text;
        int64_t ns;
    } good[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"1970-01-01t00:00:00.5z", 500000000},
        {"1970-01-01 00:00:00.000000001Z", 1},
        {"1970-01-01T01:00:00+01:00", 0},
        {"1969-12-31T23:30:00-00:30", 0},
        {"2000-02-29T00:00:00Z", INT64_C(951782400000000000)},
        {"1972-06-30T23:59:60Z", INT64_C(78796800000000000)},
    };
    static const char *const bad[] = {
        "", "now", "2026-11-21", "2026-11-21T10:17:00", "2026-11-21T10:17Z",
        "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z", "2026-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T00:60:00Z",
        "2026-01-01T00:00:61Z", "2026-01-01T00:00:00.Z", "2026-01-01T00:00:00.1234567890Z",
        "2026-01-01T00:00:00+1:00", "2026-01-01T00:00:00+24:00", "2026-01-01T00:00:00Zx",
        "9999-01-01T00:00:00Z", "1600-01-01T00:00:00Z", "2262-04-11T23:47:16.854775808Z",
        "1677-09-21T00:12:43.145224191Z", "-026-01-01T00:00:00Z",
    };

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        int64_t ns = 1;
        assert_null(qi_parse_time(good[i].text, &ns));
        assert_int_equal(ns, good[i].ns);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int64_t ns = 4711;
        if (!qi_parse_time(bad[i], &ns))
            fail_msg("accepted: %s", bad[i]);
        assert_int_equal(ns, 4711);
    }
}

static void test_amounts(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } sizes[] = {
        {"0", 0}, {"512", 512}, {"1K", 1024}, {"1k", 1024}, {"10MiB", 10485760}, {"0.5B", 0},
        {"1.5G", 1610612736}, {"18446744073709551615", UINT64_MAX},
        {"16383P", UINT64_C(16383) << 50}, {"0.000976562500000000M", 1024},
    };
    static const char *const bad_sizes[] = {
        "", "K", "1X", "1 K", " 1", "-1", "+1", "1e3", "0x10", "1.", ".5K", "1..5K", "1.5.5K",
        "18446744073709551616", "16384P", "1.0000000000000000000K", "99999999999999999999K",
    };
    static const struct {
        const char *text;
        int64_t ns;
    } durations[] = {
        {"0", 0}, {"1ns", 1}, {"500ms", 500000000}, {"1.5s", 1500000000}, {"2h", 7200000000000},
        {"7d", 604800000000000}, {"1w", 604800000000000}, {"90min", 5400000000000},
        {"9223372036854775807ns", INT64_MAX},
    };
    static const char *const bad_durations[] = {"",    "1",  "s",    "1y",  "-1s",
                                                "1s ", "1h30m", "9223372036854775808ns",
                                                "106752d"};

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint64_t bytes = 1;
        assert_null(qi_parse_size(sizes[i].text, &bytes));
        assert_int_equal(bytes, sizes[i].bytes);
    }
    for (size_t i = 0; i < sizeof bad_sizes / sizeof *bad_sizes; i++) {
        uint64_t bytes = 4711;
        if (!qi_parse_size(bad_sizes[i], &bytes))
            fail_msg("accepted: %s", bad_sizes[i]);
        assert_int_equal(bytes, 4711);
    }
    for (size_t i = 0; i < sizeof durations / sizeof *durations; i++) {
        int64_t ns = 1;
        assert_null(qi_parse_duration(durations[i].text, &ns));
        assert_int_equal(ns, durations[i].ns);
    }
    for (size_t i = 0; i < sizeof bad_durations / sizeof *bad_durations; i++) {
        int64_t ns = 4711;
        if (!qi_parse_duration(bad_durations[i], &ns))
            fail_msg("accepted: %s", bad_durations[i]);
        assert_int_equal(ns, 4711);
    }
}

static void test_texts(void **state)
{
    static const struct {
        uint64_t bytes;
        const char *text;
    } sizes[] = {{0, "0 B"},
                 {1023, "1023 B"},
                 {1024, "1.0 KiB"},
                 {1536, "1.5 KiB"},
                 {1048575, "1.0 MiB"},
                 {UINT64_MAX, "16.0 EiB"}};
    static const struct {
        int64_t ns;
        const char *text;
    } durations[] = {{0, "0 ns"},
                     {999, "999 ns"},
                     {1500, "1 us"},
                     {250000000, "250 ms"},
                     {1500000000, "1.50 s"},
                     {125000000000, "2 min 5 s"},
                     {7500000000000, "2 h 5 min"},
                     {INT64_C(270000000000000), "3 d 3 h"},
                     {-1500000000, "-1.50 s"},
                     {INT64_MIN, "-106751 d 23 h"}};
    char text[QI_TEXT_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        assert_string_equal(qi_format_size(sizes[i].bytes, text), sizes[i].text);
    for (size_t i = 0; i < sizeof durations / sizeof *durations; i++)
        assert_string_equal(qi_format_duration(durations[i].ns, text), durations[i].text);
    assert_string_equal(qi_format_hex("\x00\xff\x1a", 3, text, sizeof text), "00ff1a");
    assert_string_equal(qi_format_hex("\x00\xff\x1a", 3, text, 5), "00ff");
    text[0] = 'x';
    assert_string_equal(qi_format_hex("", 0, text, sizeof text), "");
}

static void test_distance(void **state)
{
    (void)state;
    assert_int_equal(qi_distance("", ""), 0);
    assert_int_equal(qi_distance("watch", "watch"), 0);
    assert_int_equal(qi_distance("wacth", "watch"), 1); /* a swap is one */
    assert_int_equal(qi_distance("wtch", "watch"), 1);
    assert_int_equal(qi_distance("kitten", "sitting"), 3);
    assert_int_equal(qi_distance("abc", ""), 3);
}

int main(void)
{
    const char *seed = getenv("QALLOW_SEED");

    random_state = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL);
    random_state += !random_state;
    printf("QALLOW_SEED=%llu\n", (unsigned long long)random_state);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_lists_and_mixing),
        cmocka_unit_test(test_implied),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_refusals_of_the_whole),
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_random_lines),
        cmocka_unit_test(test_time_round_trip),
        cmocka_unit_test(test_time_forms),
        cmocka_unit_test(test_amounts),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_distance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
