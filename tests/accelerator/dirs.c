/* SPDX-License-Identifier: Apache-2.0 */
/* The directory nodes against a plain list: paths, watches, detaching whole subtrees. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "accelerator/dirs.h"
#include "runtime/os.h"
#include "tests/accelerator/seed.h"

static void paths_are_put_together(void **state)
{
    struct qa_dirs *dirs;
    char *buffer = NULL;
    size_t size = 0;
    assert_int_equal(qa_dirs_create(&dirs), 0);
    struct qa_dir *root = qa_dirs_root(dirs);
    struct qa_dir *a = qa_dirs_add(dirs, root, "a");
    struct qa_dir *b = qa_dirs_add(dirs, a, "bb");
    assert_ptr_equal(qa_dirs_add(dirs, a, "bb"), b);
    assert_string_equal(qa_dirs_path(root, NULL, &buffer, &size), ".");
    assert_string_equal(qa_dirs_path(root, "file", &buffer, &size), "file");
    assert_string_equal(qa_dirs_path(a, NULL, &buffer, &size), "a");
    assert_string_equal(qa_dirs_path(b, NULL, &buffer, &size), "a/bb");
    assert_string_equal(qa_dirs_path(b, "x.c", &buffer, &size), "a/bb/x.c");
    qr_free(buffer);
    qa_dirs_destroy(dirs);
}

struct released {
    int watches[64];
    size_t count;
};

static void on_released(void *context, int watch)
{
    struct released *released = context;
    assert_true(released->count < 64);
    released->watches[released->count++] = watch;
}

static void a_watch_may_change_hands(void **state)
{
    struct qa_dirs *dirs;
    struct qa_dir *found;
    struct released released = {0};
    assert_int_equal(qa_dirs_create(&dirs), 0);
    struct qa_dir *old = qa_dirs_add(dirs, qa_dirs_root(dirs), "old");
    struct qa_dir *below = qa_dirs_add(dirs, old, "below");
    assert_int_equal(qa_dirs_bind(dirs, old, 1), 0);
    assert_int_equal(qa_dirs_bind(dirs, below, 2), 0);
    qa_dirs_detach(dirs, old);
    assert_null(qa_dirs_child(dirs, qa_dirs_root(dirs), "old"));
    assert_true(qa_dirs_find_watch(dirs, 1, &found) && found == old && found->detached);
    struct qa_dir *new_ = qa_dirs_add(dirs, qa_dirs_root(dirs), "new");
    assert_int_equal(qa_dirs_bind(dirs, new_, 1), 0);
    assert_int_equal(old->watch, -1);
    qa_dirs_free_detached(dirs, on_released, &released);
    assert_int_equal(released.count, 1); /* only the one nobody took over */
    assert_int_equal(released.watches[0], 2);
    assert_true(qa_dirs_find_watch(dirs, 2, &found) && !found); /* expected, of nobody */
    qa_dirs_forget(dirs, 2);
    assert_false(qa_dirs_find_watch(dirs, 2, &found));
    assert_true(qa_dirs_find_watch(dirs, 1, &found) && found == new_);
    assert_int_equal(qa_dirs_watches(dirs), 1);
    qa_dirs_destroy(dirs);
}

/* Thousands of watches come and go; the map always says what a plain array says. */
static void watches_like_a_plain_array(void **state)
{
    enum { WATCHES = 3000, NODES = 500 };
    struct qa_dirs *dirs;
    static struct qa_dir *owner[WATCHES + 1], *nodes[NODES];
    static char known[WATCHES + 1];
    unsigned seed = test_seed();
    assert_int_equal(qa_dirs_create(&dirs), 0);
    for (int i = 0; i < NODES; i++) {
        char name[16];
        snprintf(name, sizeof name, "n%d", i);
        struct qa_dir *parent = i ? nodes[rand_r(&seed) % i] : qa_dirs_root(dirs);
        nodes[i] = qa_dirs_add(dirs, parent, name);
        assert_non_null(nodes[i]);
    }
    assert_int_equal(qa_dirs_count(dirs), NODES + 1);
    size_t seen = 0;
    for (struct qa_dir *dir = qa_dirs_root(dirs); dir; dir = qa_dirs_next(dir))
        seen++;
    assert_int_equal(seen, NODES + 1);
    for (int step = 0; step < 100000; step++) {
        int watch = 1 + rand_r(&seed) % WATCHES;
        struct qa_dir *dir = nodes[rand_r(&seed) % NODES], *found = NULL;
        switch (rand_r(&seed) % 3) {
        case 0:
            if (dir->watch >= 0)
                break;
            assert_int_equal(qa_dirs_bind(dirs, dir, watch), 0);
            owner[watch] = dir;
            known[watch] = 1;
            break;
        case 1:
            if (!known[watch])
                break;
            qa_dirs_release(dirs, watch);
            owner[watch] = NULL;
            break;
        default:
            qa_dirs_forget(dirs, watch);
            owner[watch] = NULL;
            known[watch] = 0;
        }
        watch = 1 + rand_r(&seed) % WATCHES;
        assert_int_equal(qa_dirs_find_watch(dirs, watch, &found), known[watch]);
        assert_ptr_equal(found, owner[watch]);
    }
    qa_dirs_destroy(dirs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_are_put_together),
        cmocka_unit_test(a_watch_may_change_hands),
        cmocka_unit_test(watches_like_a_plain_array),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
