/* SPDX-License-Identifier: Apache-2.0 */
/* The dirty set: when what is taken, that nothing marked is ever lost, and that its memory is
 * bounded. Times are made up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "accelerator/dirty.h"
#include "runtime/os.h"
#include "tests/accelerator/seed.h"

static const struct qa_settle settle = {.quiet_ns = 100, .max_ns = 1000};

static struct qa_dirty *new_set(size_t max_paths)
{
    struct qa_dirty *dirty;
    assert_int_equal(qa_dirty_create(max_paths, &dirty), 0);
    return dirty;
}

static int has(const struct qa_taken *taken, const char *path)
{
    for (size_t i = 0; i < taken->count; i++)
        if (strcmp(taken->paths[i], path) == 0)
            return 1;
    return 0;
}

static void rest_takes_all_at_once(void **state)
{
    struct qa_dirty *dirty = new_set(100);
    struct qa_taken taken;
    assert_true(qa_dirty_is_empty(dirty));
    assert_true(qa_dirty_deadline(dirty, &settle) == UINT64_MAX);
    qa_dirty_mark(dirty, "a", 10, 0, 0);
    qa_dirty_mark(dirty, "b/c", 50, 0, 0);
    qa_dirty_mark(dirty, "a", 60, 0, 0);
    assert_int_equal(qa_dirty_deadline(dirty, &settle), 160);
    assert_int_equal(qa_dirty_take(dirty, &settle, 159, &taken), 0);
    assert_int_equal(taken.count, 0);
    assert_int_equal(qa_dirty_take(dirty, &settle, 160, &taken), 0);
    assert_int_equal(taken.count, 2);
    assert_int_equal(taken.since, 10);
    assert_true(has(&taken, "a") && has(&taken, "b/c"));
    assert_true(qa_dirty_is_empty(dirty));
    qa_taken_finish(&taken);
    qa_dirty_destroy(dirty);
}

/* A tree that never rests: at the limit the quiet paths and the overdue ones go, the rest stays. */
static void unrest_takes_quiet_and_overdue(void **state)
{
    struct qa_dirty *dirty = new_set(100);
    struct qa_taken taken;
    qa_dirty_mark(dirty, "quiet", 20, 0, 0);
    for (uint64_t t = 10; t <= 1010; t += 50) {
        qa_dirty_mark(dirty, "always", t, 0, 0);
        if (t == 960)
            qa_dirty_mark(dirty, "young", t, 0, 0);
    }
    assert_int_equal(qa_dirty_deadline(dirty, &settle), 1010);
    assert_int_equal(qa_dirty_take(dirty, &settle, 1010, &taken), 0);
    assert_int_equal(taken.count, 2);
    assert_true(has(&taken, "quiet") && has(&taken, "always"));
    qa_taken_finish(&taken);
    assert_int_equal(qa_dirty_count(dirty), 1);
    assert_int_equal(qa_dirty_deadline(dirty, &settle), 1110);
    qa_dirty_destroy(dirty);
}

/* "log" was moved to "log.1", which is still written to: never one without the other. */
static void halves_of_a_rename_stay_together(void **state)
{
    struct qa_dirty *dirty = new_set(100);
    struct qa_taken taken;
    qa_dirty_mark(dirty, "other", 5, 0, 0);
    uint64_t since = qa_dirty_mark(dirty, "log", 500, 0, QA_DIRTY_MOVED);
    qa_dirty_mark(dirty, "log.1", 500, since, QA_DIRTY_MOVED);
    for (uint64_t t = 500; t <= 2000; t += 50) {
        qa_dirty_mark(dirty, "log.1", t, 0, 0);
        assert_int_equal(qa_dirty_take(dirty, &settle, t, &taken), 0);
        assert_int_equal(has(&taken, "log"), has(&taken, "log.1"));
        assert_int_equal(has(&taken, "log"), t == 1500);
        qa_taken_finish(&taken);
    }
    qa_dirty_destroy(dirty);
}

static void the_wait_is_counted_from_the_first_change(void **state)
{
    struct qa_dirty *dirty = new_set(100);
    struct qa_taken taken;
    qa_dirty_mark(dirty, "a", 7, 0, 0);
    qa_dirty_mark_everything(dirty, 30);
    assert_int_equal(qa_dirty_mark(dirty, "b", 40, 0, 0), 7);
    assert_int_equal(qa_dirty_deadline(dirty, &settle), 140);
    assert_int_equal(qa_dirty_take(dirty, NULL, 40, &taken), 0);
    assert_true(taken.everything);
    assert_int_equal(taken.since, 7);
    assert_int_equal(taken.count, 0);
    assert_true(qa_dirty_is_empty(dirty));
    qa_taken_finish(&taken);
    qa_dirty_destroy(dirty);
}

static int is_covered(const struct qa_taken *taken, const char *path)
{
    char directory[64];
    const char *slash = strrchr(path, '/');
    snprintf(directory, sizeof directory, "%.*s", slash ? (int)(slash - path) : 1,
             slash ? path : ".");
    return taken->everything || has(taken, path) || has(taken, directory);
}

static void too_many_paths_collapse(void **state)
{
    char path[64];
    struct qa_taken taken;
    struct qa_dirty *dirty = new_set(64);
    for (int i = 0; i < 1000; i++) {
        snprintf(path, sizeof path, "dir%d/file%d", i % 4, i);
        qa_dirty_mark(dirty, path, 1, 0, 0);
        assert_true(qa_dirty_count(dirty) <= 64);
    }
    assert_int_equal(qa_dirty_take(dirty, NULL, 2, &taken), 0);
    assert_false(taken.everything);
    for (int i = 0; i < 1000; i++) {
        snprintf(path, sizeof path, "dir%d/file%d", i % 4, i);
        assert_true(is_covered(&taken, path));
    }
    qa_taken_finish(&taken);
    for (int i = 0; i < 1000; i++) { /* a directory each: nothing to collapse into */
        snprintf(path, sizeof path, "dir%d/file", i);
        qa_dirty_mark(dirty, path, 1, 0, 0);
    }
    assert_int_equal(qa_dirty_take(dirty, NULL, 2, &taken), 0);
    assert_true(taken.everything);
    qa_taken_finish(&taken);
    qa_dirty_destroy(dirty);
}

static unsigned long fail_at;
static int fail_later(size_t size) { return fail_at && --fail_at == 0; }

/* Whatever allocation fails, whatever was marked is taken sooner or later. */
static void nothing_is_lost_without_memory(void **state)
{
    for (unsigned long n = 1; n < 40; n++) {
        struct qa_taken taken = {0}, again = {0};
        struct qa_dirty *dirty = new_set(1000);
        char path[64];
        fail_at = n;
        qr_set_allocation_hook(fail_later);
        for (int i = 0; i < 30; i++) {
            snprintf(path, sizeof path, "d/%d", i);
            qa_dirty_mark(dirty, path, (uint64_t)i * 40, 0, 0);
        }
        int result = qa_dirty_take(dirty, &settle, 1180, &taken);
        qr_set_allocation_hook(NULL);
        assert_true(result == 0 || (taken.count == 0 && !taken.everything));
        assert_int_equal(qa_dirty_take(dirty, NULL, 1180, &again), 0);
        for (int i = 0; i < 30; i++) {
            snprintf(path, sizeof path, "d/%d", i);
            assert_true(is_covered(&taken, path) || is_covered(&again, path));
        }
        qa_taken_finish(&taken);
        qa_taken_finish(&again);
        qa_dirty_destroy(dirty);
    }
}

/* Random marks and takes: each mark is taken after it was made and at most max_ns later, and what
 * is taken before was quiet. */
static void random_marks_are_taken_in_time(void **state)
{
    enum { PATHS = 20 };
    uint64_t first[PATHS] = {0}, last[PATHS] = {0};
    char path[16];
    struct qa_dirty *dirty = new_set(1000);
    unsigned seed = test_seed();
    for (uint64_t now = 1; now < 200000; now += (uint64_t)(rand_r(&seed) % 60)) {
        int i = rand_r(&seed) % PATHS;
        if (rand_r(&seed) % 20 == 0)
            now += 300; /* a rest */
        struct qa_taken taken;
        assert_int_equal(qa_dirty_take(dirty, &settle, now, &taken), 0);
        uint64_t newest = 0;
        for (int k = 0; k < PATHS; k++)
            newest = last[k] > newest ? last[k] : newest;
        for (int k = 0; k < PATHS; k++) {
            snprintf(path, sizeof path, "p%d", k);
            int must = first[k] && (now >= first[k] + settle.max_ns || now >= newest + 100);
            int may = must || (first[k] && now >= last[k] + settle.quiet_ns);
            assert_true(!must || has(&taken, path));
            assert_true(may || !has(&taken, path));
            if (has(&taken, path))
                first[k] = 0;
        }
        qa_taken_finish(&taken);
        snprintf(path, sizeof path, "p%d", i);
        qa_dirty_mark(dirty, path, now, 0, 0);
        first[i] = first[i] ? first[i] : now;
        last[i] = now;
    }
    qa_dirty_destroy(dirty);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rest_takes_all_at_once),
        cmocka_unit_test(unrest_takes_quiet_and_overdue),
        cmocka_unit_test(halves_of_a_rename_stay_together),
        cmocka_unit_test(the_wait_is_counted_from_the_first_change),
        cmocka_unit_test(too_many_paths_collapse),
        cmocka_unit_test(nothing_is_lost_without_memory),
        cmocka_unit_test(random_marks_are_taken_in_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
