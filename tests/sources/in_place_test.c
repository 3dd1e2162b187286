/* SPDX-License-Identifier: Apache-2.0 */
/* Restores that must refuse, fail or be interrupted without losing anything. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "runtime/batch.h"
#include "support.h"

/* What a restore calls after the first files; NULL: nothing. */
static void (*meanwhile)(void *context, uint64_t done, uint64_t total);

static int restore(struct recording *r, uint64_t epoch, const char *target, int force)
{
    struct qr_state *state;
    struct qs_restore_result result;
    test_ok(qr_store_state_at(r->store, epoch, &state));
    const struct qs_restore_options options = {.threads = meanwhile ? 1 : 2, .force = force,
                                               .progress = meanwhile,
                                               .digest = qr_state_digest(state)};
    int rc = qs_restore(r->store, state, target, &options, &result);
    qr_state_destroy(state);
    return rc;
}

static int in_place(struct recording *r, uint64_t epoch, int force)
{
    struct qr_state *state;
    struct qs_restore_result result;
    test_ok(qr_store_state_at(r->store, epoch, &state));
    const struct qs_restore_options options = {.threads = 1, .force = force,
                                               .progress = meanwhile,
                                               .digest = qr_state_digest(state)};
    int rc = qs_restore_in_place(r->tree, state, epoch, &options, &result);
    qr_state_destroy(state);
    return rc;
}

/* --- into a new directory --- */

static void test_targets(void **state)
{
    struct recording r;
    test_enter();
    test_run("mkdir tree && echo 1 >tree/file && mkdir full empty && echo precious >full/x && "
             "echo file >plain && ln -s empty link && mkdir empty.qallow-tmp && "
             "touch empty.qallow-tmp/left-over");
    recording_open(&r, "log.tlog", "tree", NULL);
    recording_capture(&r);
    assert_int_equal(restore(&r, 1, "full", 0), QALLOW_E_CANNOT_CREATE);
    assert_int_equal(restore(&r, 1, "plain", 1), QALLOW_E_CANNOT_CREATE);
    assert_int_equal(restore(&r, 1, "no/such/parent", 0), QALLOW_E_CANNOT_CREATE);
    test_run("grep -q precious full/x && test $(ls full | wc -l) = 1 && ! ls *.qallow-tmp/x "
             "2>/dev/null");
    test_ok(restore(&r, 1, "link/", 0)); /* where it leads to */
    test_same_trees("tree", "empty");
    test_ok(restore(&r, 1, "full", 1));
    test_same_trees("tree", "full");
    test_run("test ! -e empty.qallow-tmp && test ! -e full.qallow-tmp");
    recording_close(&r);
    test_leave();
}

static void test_only(void **state)
{
    struct recording r;
    struct qs_restore_result result;
    test_enter();
    test_run("mkdir -p tree/a/b tree/c && touch tree/a/b/x tree/a/y tree/c/z");
    recording_open(&r, "log.tlog", "tree", NULL);
    recording_capture(&r);
    struct qs_restore_options options = {.threads = 1, .only = "a/b"};
    test_ok(qs_restore(r.store, qr_store_state(r.store), "out", &options, &result));
    test_run("test \"$(cd out && find . | sort | tr '\\n' ' ')\" = '. ./a ./a/b ./a/b/x '");
    options.only = "a/none";
    assert_int_equal(qs_restore(r.store, qr_store_state(r.store), "out2", &options, &result),
                     QALLOW_E_PAGE_NOT_FOUND);
    recording_close(&r);
    test_leave();
}

static void test_wrong_digest(void **state)
{
    struct recording r;
    struct qs_restore_result result;
    test_enter();
    test_run("mkdir tree out && touch tree/x && touch -d 2001-01-01 out");
    recording_open(&r, "log.tlog", "tree", NULL);
    recording_capture(&r);
    struct qs_restore_options options = {.threads = 1,
                                         .digest = qr_state_digest(qr_store_state(r.store))};
    options.digest.lo ^= 1;
    assert_int_equal(qs_restore(r.store, qr_store_state(r.store), "out", &options, &result),
                     QALLOW_E_DAMAGED);
    test_run("test $(ls out | wc -l) = 0 && test ! -e out.qallow-tmp && "
             "test $(date -r out +%%Y) = 2001");
    recording_close(&r);
    test_leave();
}

static void test_full_disk(void **state)
{
    struct recording r;
    test_enter();
    test_run("mkdir tree small");
    test_fill("tree/big", 3000000);
    recording_open(&r, "log.tlog", "tree", NULL);
    recording_capture(&r);
    if (mount("none", "small", "tmpfs", 0, "size=1m") < 0) {
        recording_close(&r);
        test_leave();
        skip(); /* needs the right to mount */
    }
    int rc = restore(&r, 1, "small/out", 0);
    int left = test_status("test $(ls -A small | wc -l) = 0");
    umount("small");
    assert_int_equal(rc, QALLOW_E_NO_SPACE);
    assert_non_null(strstr(qallow_error_detail(), "big"));
    assert_int_equal(left, 0);
    recording_close(&r);
    test_leave();
}

/* A log made by somebody else may say anything. */
static void test_hostile_names(void **state)
{
    static const struct {
        const char *name;
        size_t length;
    } names[] = {{"..", 2}, {".", 1}, {"a/b", 3}, {"/etc", 4}, {"../x", 4}, {NULL, 256}};
    char longest[256];
    memset(longest, 'n', sizeof longest);
    test_enter();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct qr_store_options options = {.writable = 1, .create = 1};
        struct recording r = {0};
        struct qr_txn *txn;
        struct qr_batch *batch;
        uint64_t epoch;
        const struct qr_attributes attributes = {.mode = 0755};
        test_run("rm -f log.tlog*");
        test_ok(qr_store_open("log.tlog", &options, &r.store));
        test_ok(qr_batch_create(0, &batch));
        test_ok(qr_txn_begin(r.store, &txn));
        test_ok(qr_batch_page_create(batch, 1, 0, ".", 1, QR_KIND_DIRECTORY, &attributes));
        test_ok(qr_batch_page_create(batch, 2, 1, names[i].name ? names[i].name : longest,
                                     names[i].length, i % 2 ? QR_KIND_FILE : QR_KIND_DIRECTORY,
                                     &attributes));
        int rc = qr_txn_append(txn, batch);
        if (rc == 0) /* the log takes what is no name for a file system; the restore must not */
            rc = qr_txn_commit(txn, &epoch);
        else
            qr_txn_abort(txn);
        qr_batch_destroy(batch);
        if (rc == 0) {
            assert_int_equal(restore(&r, 1, "out", 0), QALLOW_E_SERIALIZATION);
            assert_non_null(strstr(qallow_error_detail(), "page 2"));
            test_run("test ! -e out && test ! -e out.qallow-tmp");
            test_run("mkdir -p tree && echo mine >tree/mine");
            test_ok(qs_tree_open("tree", r.store, &(struct qs_tree_options){.threads = 1},
                                 &r.tree));
            assert_int_equal(in_place(&r, 1, 1), QALLOW_E_SERIALIZATION);
            qs_tree_close(r.tree);
            test_run("test \"$(find tree | sort | tr '\\n' ' ')\" = 'tree tree/mine '");
        }
        test_ok(qr_store_close(r.store));
    }
    test_leave();
}

/* --- in place --- */

/* A tree with two epochs, far apart; what is on the disk is the second. */
static void two_epochs(struct recording *r)
{
    test_run("mkdir -p tree/same tree/dir/sub tree/becomes-file tree/gone && cd tree && "
             "echo 1 >a && echo same >same/s && echo d >dir/sub/d && echo x >becomes-file/x && "
             "echo g >gone/g && ln -s a link && echo y >becomes-dir && mkdir empty && "
             "for i in $(seq 40); do echo one $i >dir/$i; done");
    recording_open(r, "log.tlog", "tree", NULL);
    test_run("cp -a tree one");
    recording_capture(r);
    test_run("cd tree && echo 2 >a && rm -r becomes-file gone && echo f >becomes-file && "
             "rm becomes-dir && mkdir becomes-dir && echo n >becomes-dir/n && ln -sf b link && "
             "chmod 700 dir/sub && touch -d 2001-02-03 same/s && rmdir empty && "
             "mkdir -p new/deep && echo new >new/deep/file && "
             "for i in $(seq 40); do echo two >>dir/$i; done");
    test_run("cp -a tree two");
    recording_capture(r);
}

static void test_there_and_back(void **state)
{
    struct recording r;
    struct qs_pending pending;
    test_enter();
    two_epochs(&r);
    test_ok(in_place(&r, 1, 0));
    test_same_trees("one", "tree");
    assert_int_equal(qs_restore_pending("tree", &pending), 0);
    assert_int_equal(recording_capture(&r), 3); /* what the restore did is a change, too */
    test_ok(in_place(&r, 2, 0));
    test_same_trees("two", "tree");
    recording_close(&r);
    test_leave();
}

struct count {
    int kinds[5], changed_since, order_broken;
    char last[256];
};
static int count_changes(void *context, const struct qs_change *change)
{
    struct count *count = context;
    count->kinds[change->kind]++;
    count->changed_since += change->changed_since;
    return 0;
}

static void test_plan(void **state)
{
    struct recording r;
    struct qr_state *first;
    struct count count = {0};
    test_enter();
    two_epochs(&r);
    test_put("tree/a", "changed since");
    test_put("tree/unrecorded", "x");
    test_run("cp -a tree before");
    test_ok(qr_store_state_at(r.store, 1, &first));
    test_ok(qs_restore_plan(r.tree, first, NULL, count_changes, &count));
    assert_int_equal(count.kinds[QS_CREATE], 4); /* becomes-file/x empty gone gone/g */
    assert_int_equal(count.kinds[QS_OVERWRITE], 44); /* a link becomes-* dir/1..40 */
    assert_int_equal(count.kinds[QS_DELETE], 4); /* new new/deep new/deep/file becomes-dir/n */
    assert_int_equal(count.changed_since, 1);
    test_same_trees("before", "tree"); /* a plan changes nothing */
    qr_state_destroy(first);
    /* What is in no epoch is not overwritten, unless that is asked for. */
    assert_int_equal(in_place(&r, 1, 0), QALLOW_E_CANNOT_CREATE);
    test_same_trees("before", "tree");
    test_ok(in_place(&r, 1, 1));
    test_run("rm tree/unrecorded && touch -r one tree");
    test_same_trees("one", "tree");
    recording_close(&r);
    test_leave();
}

/* What was never recorded is never deleted; where it is in the way, nothing is done at all. */
static void test_unrecorded(void **state)
{
    struct recording r;
    test_enter();
    two_epochs(&r);
    test_run("mkdir tree/new/deep/.git && echo h >tree/new/deep/.git/HEAD");
    recording_capture(&r);
    test_ok(in_place(&r, 1, 0));
    test_run("test -f tree/new/deep/.git/HEAD && test ! -e tree/new/deep/file");
    recording_capture(&r);
    test_run("rm -rf tree/new && rm tree/a && mkdir -p tree/a/.git && cp -a tree before");
    recording_capture(&r);
    assert_int_equal(in_place(&r, 1, 1), QALLOW_E_CANNOT_CREATE);
    test_same_trees("before", "tree");
    recording_close(&r);
    test_leave();
}

/* What only the save recorded is not deleted, and both the plan before the save and the one after
 * it say the same. */
static int list_changes(void *context, const struct qs_change *change)
{
    fprintf(context, "%d %s %d\n", change->kind, change->path, change->blocked);
    return 0;
}

static void write_plan(struct recording *r, const struct qr_state *to,
                       const struct qr_state *before, const char *name)
{
    FILE *file = fopen(name, "w");
    assert_non_null(file);
    test_ok(qs_restore_plan(r->tree, to, before, list_changes, file));
    assert_int_equal(fclose(file), 0);
}

static void test_saved_only(void **state)
{
    struct recording r;
    struct qr_state *first, *before;
    struct qs_restore_result result;
    test_enter();
    two_epochs(&r);
    test_run("cd tree && echo n >unrecorded && mkdir new/own && echo o >new/own/o && rm a && "
             "mkdir a && echo x >a/x && rm new/deep/file && mkdir new/deep/file && "
             "mv becomes-dir/n becomes-dir/m && echo '*.out' >.qallowignore && echo i >i.out");
    test_ok(qr_store_state_at(r.store, 1, &first));
    test_ok(qr_store_state_at(r.store, 2, &before));
    write_plan(&r, first, NULL, "dry");
    recording_capture(&r);
    write_plan(&r, first, before, "saved");
    test_run("diff dry saved && grep -qx '4 unrecorded 0' dry && grep -qx '1 a 1' dry && "
             "grep -qx '4 new/deep/file 0' dry && ! grep -q i.out dry && ! grep '^2 new' dry");
    const struct qs_restore_options options = {.threads = 1, .before = before,
                                               .digest = qr_state_digest(first)};
    test_run("cp -a tree was");
    assert_int_equal(qs_restore_in_place(r.tree, first, 1, &options, &result),
                     QALLOW_E_CANNOT_CREATE); /* `a` is in the way */
    test_same_trees("was", "tree");
    test_run("rm -r tree/a tree/becomes-dir/m");
    test_ok(qs_restore_in_place(r.tree, first, 1, &options, &result));
    test_run("cd tree && test -f unrecorded && test -f new/own/o && test -d new/deep/file && "
             "test -f i.out && grep -q 1 a && rm -r unrecorded new i.out .qallowignore && "
             "touch -r ../one .");
    test_same_trees("one", "tree");
    qr_state_destroy(first);
    qr_state_destroy(before);
    recording_close(&r);
    test_leave();
}

/* A symlink that somebody puts in the place of a directory leads nowhere. */
static void test_swapped_symlink(void **state)
{
    struct recording r;
    test_enter();
    two_epochs(&r);
    test_run("mkdir outside && echo mine >outside/1 && mv tree/dir tree/was && "
             "ln -s ../outside tree/dir");
    int rc = in_place(&r, 1, 1);
    (void)rc; /* it may refuse or put the directory back; the outside is what counts */
    test_run("test $(ls outside | wc -l) = 1 && grep -q mine outside/1");
    recording_close(&r);
    test_leave();
}

/* --- somebody who exchanges directories and symlinks all the time --- */

enum { SWAPPED = 8 /* directories */, BESIDE = 8 /* restores that something is exchanged under */ };
struct swapper {
    const char *where; /* of the directories 0 to 7 */
    atomic_int stop;
    atomic_ulong swaps;
};

/* That this thread has run for: it must not make up for the time in which others ran. */
static uint64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Puts a symlink to the outside in the place of each directory, and the directory back. For most of
 * the time the directories are there: a restore must get as far as to write into one. */
static void *swap_main(void *context)
{
    struct swapper *s = context;
    char link[64], name[64];
    snprintf(link, sizeof link, "%s/evil", s->where);
    for (unsigned i = 0; !atomic_load(&s->stop); i = (i + 1) % SWAPPED) {
        uint64_t begun = nanoseconds(), end;
        snprintf(name, sizeof name, "%s/%u", s->where, i);
        (void)!symlink("../outside", link);
        if (renameat2(AT_FDCWD, link, AT_FDCWD, name, RENAME_EXCHANGE) == 0) {
            atomic_fetch_add(&s->swaps, 1);
            while (renameat2(AT_FDCWD, link, AT_FDCWD, name, RENAME_EXCHANGE) < 0 &&
                   access(link, F_OK) == 0 && access(name, F_OK) == 0)
                ; /* only where both are still there */
        }
        for (end = nanoseconds(); nanoseconds() - end < 10 * (end - begun);)
            ;
    }
    return NULL;
}

static void make_outside(void)
{
    test_run("mkdir -p outside/s && echo mine >outside/30 && chmod 711 outside && "
             "touch -d 2001-02-03 outside/30 outside && cp -a outside untouched");
}

static void two_wide_epochs(struct recording *r)
{
    test_run("for d in 0 1 2 3 4 5 6 7; do mkdir -p tree/$d/s && for f in $(seq 30); do "
             "echo one $d $f >tree/$d/$f; done; echo >tree/$d/s/x; done");
    recording_open(r, "log.tlog", "tree", NULL);
    recording_capture(r);
    test_run("for d in 0 1 2 3 4 5 6 7; do for f in $(seq 30); do echo two >>tree/$d/$f; done; "
             "chmod 700 tree/$d; rm tree/$d/s/x; done");
    recording_capture(r);
}

/* Restores with and without the swapper beside it; `restore_one` gets the round. */
static void swap_beside(struct recording *r, const char *where,
                        int (*restore_one)(struct recording *r, int round))
{
    struct swapper s = {.where = where};
    pthread_t thread;
    unsigned long seen = 0;
    int beside = 0;
    assert_int_equal(pthread_create(&thread, NULL, swap_main, &s), 0);
    for (int round = 0; beside < BESIDE; round++) {
        int rc = restore_one(r, round);
        unsigned long now = atomic_load(&s.swaps);
        if (rc != 0 && rc != QALLOW_E_BUSY && rc != QALLOW_E_CANNOT_CREATE && rc != QALLOW_E_IO)
            fail_msg("%s: %s", qallow_strerror(rc), qallow_error_detail());
        beside += now != seen;
        seen = now;
    }
    atomic_store(&s.stop, 1);
    pthread_join(thread, NULL);
    test_same_trees("untouched", "outside");
}

/* Every directory at once, after the first files. */
static void swap_all(const char *where)
{
    char from[64], to[64];
    for (int i = 0; i < SWAPPED; i++) {
        snprintf(from, sizeof from, "%s/%d", where, i);
        snprintf(to, sizeof to, "%s/was-%d", where, i);
        if (rename(from, to) == 0)
            assert_int_equal(symlink("../outside", from), 0);
    }
}

static void swap_tree(void *context, uint64_t done, uint64_t total) { swap_all("tree"); }
static void swap_out(void *context, uint64_t done, uint64_t total) { swap_all("out.qallow-tmp"); }

static void test_swapped_during_restore(void **state)
{
    struct recording r;
    test_enter();
    make_outside();
    two_wide_epochs(&r);
    meanwhile = swap_out;
    assert_int_equal(restore(&r, 1, "out", 0), QALLOW_E_BUSY);
    test_same_trees("untouched", "outside");
    test_run("test ! -e out && test ! -e out.qallow-tmp");
    meanwhile = swap_tree;
    assert_int_equal(in_place(&r, 1, 0), QALLOW_E_BUSY);
    test_same_trees("untouched", "outside");
    meanwhile = NULL;
    recording_close(&r);
    test_leave();
}

static int swapped_restore(struct recording *r, int round)
{
    return restore(r, 1 + (uint64_t)round % 2, "out", 1);
}

static int swapped_in_place(struct recording *r, int round)
{
    return in_place(r, 1 + (uint64_t)round % 2, 1);
}

static void test_swapping_during_restore(void **state)
{
    struct recording r;
    test_enter();
    make_outside();
    two_wide_epochs(&r);
    swap_beside(&r, "out.qallow-tmp", swapped_restore);
    recording_close(&r);
    test_leave();
}

static void test_swapping_in_place(void **state)
{
    struct recording r;
    test_enter();
    make_outside();
    two_wide_epochs(&r);
    test_run("cp -a tree two");
    swap_beside(&r, "tree", swapped_in_place);
    /* Nobody disturbs any more: what was interrupted can be finished. */
    test_run("cd tree && rm -rf evil && for d in 0 1 2 3 4 5 6 7; do "
             "test ! -L $d || rm $d; done");
    test_ok(in_place(&r, 2, 1));
    test_run("rm -f tree/?/s/x && for d in 0 1 2 3 4 5 6 7; do touch -r two/$d/s tree/$d/s && "
             "touch -r two/$d tree/$d; done && touch -r two tree");
    test_same_trees("two", "tree");
    recording_close(&r);
    test_leave();
}

static uint64_t microseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* Killed at any moment: then the same again, or back. */
static void test_killed(void **state)
{
    const char *rounds = getenv("QALLOW_ROUNDS");
    int interrupted = 0;
    test_enter();
    for (int round = 0; round < (rounds ? atoi(rounds) : 12) || !interrupted; round++) {
        struct recording r;
        struct qs_pending journal;
        uint64_t start;
        test_run("rm -rf tree one two log.tlog*");
        two_epochs(&r);
        fflush(NULL);
        pid_t child = fork();
        if (child == 0)
            _exit(in_place(&r, 1, 0) < 0);
        /* Begun when the journal is there, which the killer waits for; then any moment. */
        start = microseconds();
        while (access("tree/.qallow-restore/journal", F_OK) < 0 &&
               microseconds() - start < 10000000)
            ;
        uint64_t wait = test_random(8000), begun = microseconds();
        while (microseconds() - begun < wait)
            ;
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        int pending = test_ok(qs_restore_pending("tree", &journal));
        if (pending) {
            interrupted++;
            assert_int_equal(journal.to, 1);
            assert_int_equal(journal.saved, 2);
        }
        recording_capture(&r); /* the caller saves what is there */
        if (test_random(2)) {
            test_ok(in_place(&r, 1, 0));
            test_same_trees("one", "tree");
        } else {
            test_ok(in_place(&r, 2, 0));
            test_same_trees("two", "tree");
        }
        assert_int_equal(qs_restore_pending("tree", &journal), 0);
        recording_close(&r);
    }
    print_message("%d interrupted\n", interrupted);
    test_leave();
}

static void test_bad_journal(void **state)
{
    struct qs_pending pending;
    test_enter();
    test_run("mkdir -p tree/.qallow-restore");
    assert_int_equal(qs_restore_pending("tree", &pending), 0);
    static const char *const bad[] = {
        "", "something else", "qallow-restore 2\nto 1\nsaved 2\nbefore 1\n",
        "qallow-restore 1\nto 1\nsaved 2\nbefore 1", "qallow-restore 1\nto 1\nsaved 2\n",
        "qallow-restore 1\nto 1\nsaved 2\nbefore 1\n\n",
        "qallow-restore 1\nto -1\nsaved 2\nbefore 1\n",
        "qallow-restore 1\nto \nsaved 2\nbefore 1\n",
        "qallow-restore 1\nto 18446744073709551616\nsaved 2\nbefore 1\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        test_put("tree/.qallow-restore/journal", bad[i]);
        assert_int_equal(qs_restore_pending("tree", &pending), QALLOW_E_SERIALIZATION);
    }
    test_put("tree/.qallow-restore/journal",
             "qallow-restore 1\nto 18446744073709551615\nsaved 12\nbefore 7\n");
    assert_int_equal(qs_restore_pending("tree", &pending), 1);
    assert_true(pending.to == UINT64_MAX && pending.saved == 12 && pending.before == 7);
    test_run("rm tree/.qallow-restore/journal && mkfifo tree/.qallow-restore/journal");
    assert_int_equal(qs_restore_pending("tree", &pending), QALLOW_E_SERIALIZATION);
    assert_int_equal(qs_restore_pending("none", &pending), QALLOW_E_NO_INPUT);
    test_leave();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_targets),
        cmocka_unit_test(test_only),
        cmocka_unit_test(test_wrong_digest),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_hostile_names),
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_plan),
        cmocka_unit_test(test_unrecorded),
        cmocka_unit_test(test_saved_only),
        cmocka_unit_test(test_swapped_symlink),
        cmocka_unit_test(test_swapped_during_restore),
        cmocka_unit_test(test_swapping_during_restore),
        cmocka_unit_test(test_swapping_in_place),
        cmocka_unit_test(test_killed),
        cmocka_unit_test(test_bad_journal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
