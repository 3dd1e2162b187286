/* SPDX-License-Identifier: Apache-2.0 */
/* Ignore patterns against git check-ignore, on random patterns and paths. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sources/ignore.h"
#include "support.h"

enum { PATTERNS = 6, PATHS = 100, TEXT_MAX = 1024 };

static const char *pick(const char *const *list, size_t count) { return list[test_random(count)]; }

/* Appends to a string in an array of TEXT_MAX bytes. */
static void append(char *text, const char *more)
{
    size_t length = strlen(text), n = strlen(more);
    assert_true(length + n < TEXT_MAX);
    memcpy(text + length, more, n + 1);
}

/* A pattern of one or more parts. Letters directly before "**" are left out: there git's own
 * matcher and its manual disagree. */
static void random_pattern(char *out)
{
    static const char *const parts[] = {"a", "b", "ab", "*", "?", "a*", "*b", "*.c", "a?b", "[ab]",
                                        "[!a]", "[^b]c", "[a-c]", "[[:alpha:]]", "[[:digit:]]*",
                                        "\\*", "\\a", "x[", "[]a]", "[a\\]]", "[[:nope:]]", "a b",
                                        "[a-", "c\\", "[--a]", "a*b*c", "?*", "\xc3\xa9"};
    int n = 1 + (int)test_random(3);
    *out = 0;
    if (test_random(4) == 0)
        append(out, "!");
    if (test_random(4) == 0)
        append(out, "/");
    if (test_random(5) == 0)
        append(out, "**/");
    for (int i = 0; i < n; i++) {
        if (i)
            append(out, test_random(5) == 0 ? "/**/" : "/");
        append(out, pick(parts, sizeof parts / sizeof *parts));
    }
    if (test_random(6) == 0)
        append(out, "/**");
    if (test_random(4) == 0)
        append(out, "/");
    if (test_random(12) == 0)
        append(out, test_random(2) ? "  " : "\\ ");
    if (test_random(20) == 0)
        memmove(out + 1, out, strlen(out) + 1), *out = '#';
}

static void random_path(char *out)
{
    static const char *const parts[] = {"a", "b", "c", "ab", "abc", "a.c", "x.c", "aXb", "1", "12",
                                        "*", "x[", "]", "a b", "c\\", "-", "acbdc", "\xc3\xa9",
                                        "a "};
    int n = 1 + (int)test_random(4);
    *out = 0;
    for (int i = 0; i < n; i++) {
        if (i)
            append(out, "/");
        append(out, pick(parts, sizeof parts / sizeof *parts));
    }
}

/* The decision for a path with all directories above it, as a tree makes it. */
static int left_out(const struct qs_ignore *ignore, const char *path, int is_directory)
{
    char above[256];
    for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        snprintf(above, sizeof above, "%.*s", (int)(slash - path), path);
        if (qs_ignore_match(ignore, above, 1) > 0)
            return 1;
    }
    return qs_ignore_match(ignore, path, is_directory) > 0;
}

/* Makes the path in the tree, unless something else has taken a part of it. Is it a directory? */
static int make(const char *path, int is_directory)
{
    char full[300];
    struct stat st;
    snprintf(full, sizeof full, "tree/%.290s", path);
    for (char *slash = strchr(full + 5, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(full, 0755);
        *slash = '/';
    }
    if (is_directory)
        mkdir(full, 0755);
    else
        close(open(full, O_WRONLY | O_CREAT, 0644));
    return lstat(full, &st) == 0 && S_ISDIR(st.st_mode);
}

static void one_round(void)
{
    char text[TEXT_MAX] = "", pattern[TEXT_MAX], paths[PATHS][TEXT_MAX], line[1024];
    int is_directory[PATHS], theirs[PATHS] = {0};
    struct qs_ignore ignore = {0};
    for (int i = 0; i < PATTERNS; i++) {
        random_pattern(pattern);
        append(text, pattern);
        append(text, test_random(8) ? "\n" : "\r\n");
    }
    test_run("find tree -mindepth 1 -maxdepth 1 ! -name .git -exec rm -rf {} +");
    FILE *file = fopen("tree/.gitignore", "w"), *list = fopen("paths", "w");
    assert_true(file && list);
    fputs(text, file);
    fclose(file);
    for (int i = 0; i < PATHS; i++) {
        random_path(paths[i]);
        is_directory[i] = make(paths[i], (int)test_random(2));
        fwrite(paths[i], 1, strlen(paths[i]) + 1, list);
    }
    fclose(list);
    assert_true(test_status("cd tree && git check-ignore --no-index --stdin -z -v -n <../paths "
                            ">../verdicts") <= 1);
    /* source NUL line NUL pattern NUL path NUL, for each path in order */
    FILE *verdicts = fopen("verdicts", "r");
    assert_non_null(verdicts);
    char *field = NULL;
    size_t size = 0;
    for (int i = 0; i < PATHS * 4; i++) {
        ssize_t n = getdelim(&field, &size, 0, verdicts);
        assert_true(n > 0);
        if (i % 4 == 2)
            theirs[i / 4] = *field && *field != '!';
    }
    free(field);
    fclose(verdicts);
    test_ok(qs_ignore_parse(&ignore, text, strlen(text)));
    for (int i = 0; i < PATHS; i++)
        if (left_out(&ignore, paths[i], is_directory[i]) != theirs[i]) {
            snprintf(line, sizeof line, "%.400s", text);
            fail_msg("path \"%s\"%s: git says %d; patterns:\n%s(QALLOW_SEED=%llu)", paths[i],
                     is_directory[i] ? " (directory)" : "", theirs[i], line,
                     (unsigned long long)test_seed());
        }
    qs_ignore_finish(&ignore);
}

static void test_like_git(void **state)
{
    const char *rounds = getenv("QALLOW_ROUNDS");
    if (test_status("git --version >/dev/null 2>&1") != 0)
        skip();
    test_enter();
    test_run("mkdir tree && cd tree && git init -q --template= . 2>/dev/null");
    for (int i = 0; i < (rounds ? atoi(rounds) : 25); i++)
        one_round();
    test_leave();
}

/* Backtracking matchers need longer than the age of the universe for this. */
static void test_hostile(void **state)
{
    struct qs_ignore ignore = {0};
    char path[4001];
    test_ok(qs_ignore_add(&ignore, "*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b"));
    test_ok(qs_ignore_add(&ignore, "**/a/**/a/**/a/**/a/**/a/**/a/**/a/**/a/**/a/**/b"));
    memset(path, 'a', sizeof path - 1);
    path[sizeof path - 1] = 0;
    assert_int_equal(qs_ignore_match(&ignore, path, 0), 0);
    for (size_t i = 1; i < sizeof path - 2; i += 2)
        path[i] = '/';
    assert_int_equal(qs_ignore_match(&ignore, path, 0), 0);
    qs_ignore_finish(&ignore);
}

static void test_limits(void **state)
{
    struct qs_ignore ignore = {0};
    char pattern[QS_PATTERN_MAX + 2];
    memset(pattern, 'a', sizeof pattern);
    pattern[QS_PATTERN_MAX + 1] = 0;
    assert_int_equal(qs_ignore_add(&ignore, pattern), QALLOW_E_LIMIT);
    pattern[QS_PATTERN_MAX] = 0;
    test_ok(qs_ignore_add(&ignore, pattern));
    assert_int_equal(qs_ignore_match(&ignore, pattern, 0), 1);
    test_ok(qs_ignore_add(&ignore, ""));
    test_ok(qs_ignore_add(&ignore, "/"));
    test_ok(qs_ignore_add(&ignore, "!"));
    assert_int_equal(ignore.count, 1);
    qs_ignore_finish(&ignore);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_like_git),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
