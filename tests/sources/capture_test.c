/* SPDX-License-Identifier: Apache-2.0 */
/* Capture of trees: what it costs, what it records, and what it leaves out. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support.h"

/* --- what an edit costs --- */

static uint64_t log_cost(struct recording *r)
{
    struct qr_store_info before, after;
    qr_store_info(r->store, &before);
    uint64_t epoch = qr_state_epoch(qr_store_state(r->store));
    test_ok(qs_capture(r->tree, NULL, &r->found));
    assert_int_equal(r->found.epoch, epoch + 1);
    recording_check_digest(r);
    qr_store_info(r->store, &after);
    return after.log_end - before.log_end;
}

static const char *const saves[] = {
    /* in place; rename over; emacs; vim with backup; vim, writebackup by copy */
    "cp new tree/file",
    "cp new tree/.tmp && mv tree/.tmp tree/file",
    "mv tree/file tree/file~ && cp new tree/file",
    "mv tree/file tree/file~ && cp new tree/file && rm tree/file~",
    "cp tree/file tree/file~ && cp new tree/file && rm tree/file~",
};

static void test_edit_cost(void **state)
{
    test_enter();
    for (size_t way = 0; way < sizeof saves / sizeof *saves; way++)
        for (int insert = 0; insert < 2; insert++) {
            struct recording r;
            test_run("rm -rf tree log.tlog* && mkdir tree");
            test_fill("tree/file", 1000000);
            test_fill("tree/other", 50000);
            test_age("tree/other");
            recording_open(&r, "log.tlog", "tree", NULL);
            recording_capture(&r);
            test_fill("hundred", 100);
            test_run("(head -c 500000 tree/file; cat hundred; tail -c +%d tree/file) >new",
                     insert ? 500001 : 500101);
            test_run("%s", saves[way]);
            uint64_t cost = log_cost(&r);
            if (cost >= 300)
                fail_msg("saved by \"%s\"%s: %d bytes of log", saves[way],
                         insert ? " with an insertion" : "", (int)cost);
            assert_true(r.found.read_files <= 2 + (way == 4)); /* never tree/other */
            /* The next save finds the backup in its place and moves over it. */
            test_age("tree/file");
            test_run("(cat tree/file; cat hundred) >new");
            test_run("%s", saves[way]);
            cost = log_cost(&r);
            if (cost >= 300)
                fail_msg("saved again by \"%s\": %d bytes of log", saves[way], (int)cost);
            recording_close(&r);
        }
    test_leave();
}

static void test_scattered_edits(void **state)
{
    struct recording r;
    test_enter();
    test_run("mkdir tree");
    test_fill("tree/file", 1000000);
    recording_open(&r, "log.tlog", "tree", NULL);
    recording_capture(&r);
    test_run("for i in $(seq 0 19); do tail -c +$((i*50000+1)) tree/file | head -c 50000; "
             "head -c 50 /dev/urandom; done >new && cp new tree/file");
    uint64_t cost = log_cost(&r);
    if (cost >= 3000)
        fail_msg("20 insertions of 50 bytes: %d bytes of log", (int)cost);
    recording_close(&r);
    test_leave();
}

static void test_directory_rename(void **state)
{
    struct recording r;
    test_enter();
    test_run("mkdir -p tree/a/b/c && for i in $(seq 200); do echo $i >tree/a/b/c/$i; done");
    recording_open(&r, "log.tlog", "tree", NULL);
    recording_capture(&r);
    test_run("mkdir tree/z && mv tree/a tree/z/moved");
    test_age("tree/z/moved");
    uint64_t cost = log_cost(&r);
    assert_int_equal(r.found.renamed, 1);
    assert_int_equal(r.found.created, 1);
    assert_int_equal(r.found.removed, 0);
    assert_true(cost < 500);
    /* The trees that exchange places, and one that goes into what was its own child. */
    test_run("mv tree/z/moved/b tree/b && mv tree/z tree/b/c/z");
    log_cost(&r);
    assert_int_equal(r.found.renamed, 2);
    recording_restore(&r, 3, "out");
    test_same_trees("tree", "out");
    /* A directory that goes on under a new name, and a symlink in its place. */
    test_run("mv tree/b tree/b.v1 && ln -s b.v1 tree/b");
    log_cost(&r);
    assert_int_equal(r.found.renamed, 1);
    assert_int_equal(r.found.created, 1);
    recording_restore(&r, 4, "out2");
    test_same_trees("tree", "out2");
    recording_close(&r);
    test_leave();
}

/* Logs that are rotated: each name gets what another had. */
static void test_rotation(void **state)
{
    struct recording r;
    test_enter();
    test_run("mkdir tree");
    test_fill("tree/log", 100000);
    test_fill("tree/log.1", 100000);
    test_fill("tree/log.2", 100000);
    recording_open(&r, "log.tlog", "tree", NULL);
    recording_capture(&r);
    test_run("mv tree/log.2 tree/log.3 && mv tree/log.1 tree/log.2 && mv tree/log tree/log.1 && "
             "echo new >tree/log");
    uint64_t cost = log_cost(&r);
    assert_true(cost < 1000);
    test_run("mv tree/log.1 t && mv tree/log.2 tree/log.1 && mv t tree/log.2");
    log_cost(&r); /* a ring: one of them is written anew */
    recording_restore(&r, 2, "two");
    recording_restore(&r, 3, "three");
    test_same_trees("tree", "three");
    recording_close(&r);
    test_leave();
}

static void test_hard_links(void **state)
{
    struct recording r;
    test_enter();
    test_run("mkdir tree tree/d");
    test_fill("tree/one", 200000);
    recording_open(&r, "log.tlog", "tree", NULL);
    recording_capture(&r);
    test_run("ln tree/one tree/d/two");
    assert_true(log_cost(&r) < 300);
    test_run("printf changed | dd of=tree/d/two bs=1 seek=1000 conv=notrunc status=none");
    const char *paths[] = {"d/two"}; /* the other name is refreshed, too */
    const struct qs_scope scope = {.paths = paths, .path_count = 1};
    test_ok(qs_capture(r.tree, &scope, &r.found));
    assert_int_equal(r.found.changed, 2);
    recording_restore(&r, r.found.epoch, "out");
    test_same_trees("tree", "out");
    recording_close(&r);
    test_leave();
}

/* The name that a file was written through is gone by the time of the capture, or another file's;
 * nobody names the other. */
static void test_lost_hard_links(void **state)
{
    static const char *const losses[] = {
        "rm tree/one",
        "echo other >new && mv new tree/one",
        "rm tree/one && mkdir tree/one",
        "rm tree/one && ln -s x tree/one",
        "mkdir tree/e && mv tree/one tree/e",
    };
    static const char *const paths[] = {"one", "e"};
    const struct qs_scope scope = {.paths = paths, .path_count = 2};
    for (size_t way = 0; way < sizeof losses / sizeof *losses; way++) {
        struct recording r;
        test_enter();
        test_run("mkdir -p tree/d && echo first >tree/one && ln tree/one tree/d/two");
        recording_open(&r, "log.tlog", "tree", NULL);
        recording_capture(&r);
        test_run("echo more >>tree/one && %s", losses[way]);
        test_ok(qs_capture(r.tree, &scope, &r.found));
        recording_restore(&r, r.found.epoch, "out");
        test_same_trees("tree", "out");
        recording_close(&r);
        test_leave();
    }
}

/* --- large and sparse --- */

static void test_large_files(void **state)
{
    struct recording r;
    test_enter();
    test_run("mkdir tree");
    test_fill("tree/big", 23000000);
    recording_open(&r, "log.tlog", "tree", NULL);
    recording_capture(&r);
    test_run("(head -c 9000000 tree/big; printf 'a hundred bytes'; tail -c +9000001 tree/big) >new "
             "&& cp new tree/big");
    uint64_t cost = log_cost(&r);
    if (cost > 1000)
        fail_msg("an insertion in a large file: %d bytes of log", (int)cost);
    test_run("(head -c 3000000 tree/big; tail -c +15000001 tree/big) >new && cp new tree/big");
    cost = log_cost(&r);
    if (cost > 1000)
        fail_msg("a large removal: %d bytes of log", (int)cost);
    test_run("cp tree/big new && head -c 7000000 /dev/urandom | "
             "dd of=new bs=100000 seek=20 conv=notrunc status=none && cp new tree/big");
    cost = log_cost(&r);
    assert_true(cost < 7100000);
    test_run("head -c 100 tree/big >new && cp new tree/big");
    log_cost(&r);
    recording_restore(&r, 4, "four");
    recording_restore(&r, 5, "five");
    test_same_trees("tree", "five");
    recording_restore(&r, 1, "one");
    assert_int_equal(test_size("one/big"), 23000000);
    recording_close(&r);
    test_leave();
}

static void test_sparse_files(void **state)
{
    struct recording r;
    struct stat st;
    test_enter();
    test_run("mkdir tree && truncate -s 300M tree/sparse && "
             "echo middle | dd of=tree/sparse bs=1M seek=150 conv=notrunc status=none");
    if (test_status("test $(stat -c %%b tree/sparse) -lt 1000") != 0) {
        test_leave();
        skip(); /* a file system without holes */
    }
    recording_open(&r, "log.tlog", "tree", NULL);
    assert_true(log_cost(&r) < 10000);
    test_run("echo end >>tree/sparse");
    assert_true(log_cost(&r) < 10000);
    recording_restore(&r, 2, "out");
    test_same_trees("tree", "out");
    assert_int_equal(stat("out/sparse", &st), 0);
    assert_true(st.st_blocks < 1000);
    recording_close(&r);
    test_leave();
}

/* --- what is recorded and what is not --- */

struct skips {
    int said, again;
    char last[PATH_MAX];
};
static void note_skip(void *context, const char *path, const char *why)
{
    struct skips *skips = context;
    *(why ? &skips->said : &skips->again) += 1;
    snprintf(skips->last, sizeof skips->last, "%s", path);
}

static struct qr_page *lookup(struct recording *r, const char *path)
{
    const struct qr_state *state = qr_store_state(r->store);
    struct qr_page *root = qr_state_child(state, 0, ".", 1);
    return root ? qr_state_lookup(state, root->id, path) : NULL;
}

static void test_special_files(void **state)
{
    struct recording r;
    struct skips skips = {0};
    const struct qs_tree_options options = {.threads = 1, .skipped = note_skip, .context = &skips};
    test_enter();
    test_run("mkdir tree && mkfifo tree/fifo && echo x >tree/file");
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "tree/socket"};
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    recording_open(&r, "log.tlog", "tree", &options);
    recording_capture(&r);
    assert_int_equal(r.found.skipped, 2);
    recording_capture(&r);
    assert_int_equal(skips.said, 2); /* once each */
    assert_non_null(lookup(&r, "file"));
    assert_null(lookup(&r, "fifo"));
    test_run("rm tree/fifo && echo now a file >tree/fifo");
    recording_capture(&r);
    assert_non_null(lookup(&r, "fifo"));
    assert_int_equal(skips.again, 1);
    close(fd);
    recording_close(&r);
    test_leave();
}

static void test_devices(void **state)
{
    struct recording r;
    struct skips skips = {0};
    const struct qs_tree_options options = {.threads = 1, .skipped = note_skip, .context = &skips};
    test_enter();
    test_run("mkdir tree && echo x >tree/file");
    if (mknod("tree/character", S_IFCHR | 0600, makedev(1, 3)) < 0 ||
        mknod("tree/block", S_IFBLK | 0600, makedev(7, 200)) < 0) {
        test_leave();
        print_message("making devices needs the right to (root)\n");
        skip();
    }
    recording_open(&r, "log.tlog", "tree", &options);
    recording_capture(&r);
    assert_int_equal(r.found.skipped, 2);
    assert_int_equal(skips.said, 2);
    assert_null(lookup(&r, "character"));
    assert_null(lookup(&r, "block"));
    assert_non_null(lookup(&r, "file"));
    recording_close(&r);
    test_leave();
}

static void test_own_files(void **state)
{
    struct recording r;
    test_enter();
    test_run("mkdir -p tree/sub/.git tree/sub/.qallow-restore && cd tree && touch work.tlog.bad.1 "
             "work.tlog.notes x.qallow-tmp sub/.git/HEAD sub/.gitignore && ln -s /x sub/.git2");
    recording_open(&r, "tree/work.tlog", "tree", NULL);
    recording_capture(&r);
    recording_close(&r); /* now there is an index */
    recording_open(&r, "tree/work.tlog", "tree", NULL);
    uint64_t epoch = recording_capture(&r);
    static const char *const out[] = {"work.tlog",          "work.tlog-index", "work.tlog.lock",
                                      "work.tlog.bad.1",    "x.qallow-tmp",    "sub/.git",
                                      "sub/.qallow-restore"};
    for (size_t i = 0; i < sizeof out / sizeof *out; i++)
        if (lookup(&r, out[i]))
            fail_msg("%s was recorded", out[i]);
    assert_non_null(lookup(&r, "work.tlog.notes"));
    assert_non_null(lookup(&r, "sub/.gitignore"));
    assert_non_null(lookup(&r, "sub/.git2"));
    assert_int_equal(qs_is_recorded(r.tree, "sub/.git/HEAD", 0), 0);
    assert_int_equal(qs_is_recorded(r.tree, "sub/.git", 0), 1); /* a worktree's file */
    test_run("ln tree/work.tlog tree/another-name");            /* the log by its inode */
    recording_capture(&r);
    assert_null(lookup(&r, "another-name"));
    assert_true(qr_state_epoch(qr_store_state(r.store)) <= epoch + 1);
    recording_close(&r);
    test_leave();
}

static void replace_own(void *context, const char *path, int directory_fd)
{
    if (strcmp(path, "a") == 0)
        test_run("mv tree/metrics tree/b/theirs && touch tree/metrics");
}

/* Metrics are replaced by renaming all the while: the inode that they had may be anybody's. */
static void test_own_file_is_replaced(void **state)
{
    static const char own[] = "tree/metrics";
    static const char *const own_files[] = {own}, *const paths[] = {"a", "b"};
    struct qs_tree_options options = {.threads = 1, .own_files = own_files, .own_file_count = 1};
    struct recording r;
    test_enter();
    test_run("mkdir tree && touch tree/metrics");
    recording_open(&r, "log.tlog", "tree", &options);
    recording_capture(&r);
    test_run("mkdir tree/a tree/b");
    const struct qs_scope scope = {.paths = paths, .path_count = 2, .new_directory = replace_own};
    test_ok(qs_capture(r.tree, &scope, &r.found));
    assert_null(lookup(&r, "metrics"));
    assert_non_null(lookup(&r, "b/theirs"));
    recording_close(&r);
    test_leave();
}

static void test_rules(void **state)
{
    struct recording r;
    char *excludes[] = {(char *)"*.o", (char *)"/build/"};
    struct qs_tree_options options = {.threads = 1};
    options.rules =
        (struct qs_rules){.excludes = excludes, .exclude_count = 2, .max_file_size = 1000};
    test_enter();
    test_run("mkdir -p tree/build tree/src/build && cd tree && touch a.o a.c build/x src/build/y "
             "src/keep.o && printf '*.log\\n!keep.o\\n' >src/.qallowignore && "
             "touch src/z.log z.log");
    test_fill("tree/large", 1001);
    recording_open(&r, "log.tlog", "tree", &options);
    recording_capture(&r);
    static const char *const out[] = {"a.o", "build", "src/keep.o", "src/z.log", "large"};
    static const char *const in[] = {"a.c", "src/build/y", "z.log", "src/.qallowignore"};
    for (size_t i = 0; i < sizeof out / sizeof *out; i++)
        if (lookup(&r, out[i]))
            fail_msg("%s was recorded", out[i]);
    for (size_t i = 0; i < sizeof in / sizeof *in; i++)
        if (!lookup(&r, in[i]))
            fail_msg("%s was not recorded", in[i]);
    struct qs_rules read;
    test_ok(qs_rules_of_log(r.store, &read));
    assert_int_equal(read.exclude_count, 2);
    assert_string_equal(read.excludes[1], "/build/");
    assert_int_equal(read.max_file_size, 1000);
    qs_rules_finish(&read);
    /* A changed ignore file changes what is recorded, though only its own path is named. */
    test_put("tree/src/.qallowignore", "build\n");
    const char *paths[] = {"src/.qallowignore"};
    const struct qs_scope scope = {.paths = paths, .path_count = 1};
    test_ok(qs_capture(r.tree, &scope, &r.found));
    assert_null(lookup(&r, "src/build"));
    assert_non_null(lookup(&r, "src/z.log"));
    uint64_t epoch = r.found.epoch;
    assert_int_equal(recording_capture(&r), epoch);
    recording_close(&r);
    excludes[0] = (char *)"bad\npattern";
    const struct qr_store_options store = {.writable = 1};
    test_ok(qr_store_open("log.tlog", &store, &r.store));
    assert_int_equal(qs_tree_open("tree", r.store, &options, &r.tree), QALLOW_E_ARGUMENT);
    test_ok(qr_store_close(r.store));
    test_leave();
}

/* Root can read everything: the child gives up its rights. */
static void unreadable(void **state)
{
    struct recording r;
    struct skips skips = {0};
    const struct qs_tree_options options = {.threads = 2, .skipped = note_skip, .context = &skips};
    test_run("mkdir -p tree/dir && echo 1 >tree/file && echo 2 >tree/dir/inside");
    recording_open(&r, "log.tlog", "tree", &options);
    recording_capture(&r);
    test_run("echo more >>tree/file && chmod 000 tree/file tree/dir");
    recording_capture(&r);
    assert_int_equal(r.found.skipped, 2);
    assert_int_equal(skips.said, 2);
    assert_non_null(lookup(&r, "dir/inside")); /* as it was */
    assert_int_equal(lookup(&r, "file")->size, 2);
    recording_capture(&r);
    assert_int_equal(skips.said, 2);
    test_run("chmod 700 tree/file tree/dir");
    recording_capture(&r);
    assert_int_equal(r.found.skipped, 0);
    assert_int_equal(skips.again, 2);
    assert_int_equal(lookup(&r, "file")->size, 7);
    /* Entries that can be listed but not looked at */
    test_run("chmod 600 tree/dir");
    recording_capture(&r);
    assert_non_null(lookup(&r, "dir/inside"));
    test_run("chmod 700 tree/dir");
    recording_close(&r);
}

static void test_unreadable(void **state)
{
    test_enter();
    test_run("chmod 777 .");
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        if (geteuid() == 0 && setresuid(65534, 65534, 65534) < 0)
            _exit(2);
        const struct CMUnitTest tests[] = {cmocka_unit_test(unreadable)};
        _exit(cmocka_run_group_tests_name("as nobody", tests, NULL, NULL));
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    test_leave();
}

static void test_odd_names(void **state)
{
    struct recording r;
    char name[256];
    test_enter();
    test_run("mkdir -p tree/-rf 'tree/ ' && cd tree && touch -- -n '*' '\\' \"$(printf 'a\\nb')\" "
             "\"$(printf '\\377\\001')\" \"'\" '\"' '...' && ln -s loop loop && ln -s .. up && "
             "ln -s -- / ./-rf/root");
    memset(name, 'n', 255);
    name[255] = 0;
    assert_int_equal(chdir("tree"), 0);
    test_put(name, "longest");
    assert_int_equal(chdir(".."), 0);
    recording_open(&r, "log.tlog", "tree", NULL);
    recording_capture(&r);
    recording_restore(&r, 1, "out");
    test_same_trees("tree", "out");
    recording_close(&r);
    test_leave();
}

/* Far deeper than descriptors are held, and longer than PATH_MAX. */
static void test_deep_tree(void **state)
{
    struct recording r;
    test_enter();
    test_run("mkdir tree && cd -P tree && i=0 && while [ $i -lt 300 ]; do "
             "mkdir directory-number-$i && cd -P ./directory-number-$i && i=$((i+1)); done && "
             "echo deep >file");
    recording_open(&r, "log.tlog", "tree", NULL);
    recording_capture(&r);
    assert_int_equal(r.found.created, 302);
    recording_restore(&r, 1, "out");
    assert_int_equal(test_status("cd out && find . -type f -printf x | grep -q x"), 0);
    uint64_t epoch = recording_capture(&r);
    assert_int_equal(epoch, 1);
    recording_close(&r);
    test_run("rm -rf tree out");
    test_leave();
}

static void test_mount_point(void **state)
{
    struct recording r;
    struct skips skips = {0};
    const struct qs_tree_options options = {.threads = 1, .skipped = note_skip, .context = &skips};
    test_enter();
    test_run("mkdir -p tree/mnt && echo under >tree/mnt/under");
    recording_open(&r, "log.tlog", "tree", &options);
    recording_capture(&r);
    if (mount("none", "tree/mnt", "tmpfs", 0, "size=1m") < 0) {
        recording_close(&r);
        test_leave();
        skip(); /* needs the right to mount */
    }
    test_run("echo foreign >tree/mnt/foreign");
    recording_capture(&r);
    int ok = !lookup(&r, "mnt/foreign") && lookup(&r, "mnt/under") && skips.said == 1;
    umount("tree/mnt");
    assert_true(ok);
    recording_close(&r);
    test_leave();
}

static void test_root_gone(void **state)
{
    struct recording r;
    test_enter();
    test_run("mkdir tree && touch tree/x");
    recording_open(&r, "log.tlog", "tree", NULL);
    recording_capture(&r);
    test_run("rm -rf tree");
    assert_int_equal(qs_capture(r.tree, NULL, &r.found), QALLOW_E_NO_INPUT);
    struct qs_tree *tree;
    const struct qs_tree_options options = {.threads = 1};
    assert_int_equal(qs_tree_open("tree", r.store, &options, &tree), QALLOW_E_NO_INPUT);
    test_put("tree", "a file now");
    assert_int_equal(qs_tree_open("tree", r.store, &options, &tree), QALLOW_E_ARGUMENT);
    recording_close(&r);
    test_leave();
}

static void test_single_file(void **state)
{
    struct recording r;
    const struct qs_tree_options options = {.threads = 1, .is_file = 1};
    test_enter();
    test_run("mkdir dir && touch dir/other");
    test_put("dir/rules", "one"); /* the very name that the rules of a tree have */
    recording_open(&r, "log.tlog", "dir/rules", &options);
    assert_int_equal(recording_capture(&r), 1);
    test_run("echo two >dir/new && mv dir/new dir/rules");
    assert_int_equal(recording_capture(&r), 2);
    assert_int_equal(r.found.changed, 1);
    recording_restore(&r, 2, "out");
    test_run("cmp out/rules dir/rules && test $(ls out | wc -l) = 1");
    test_run("rm dir/rules");
    recording_capture(&r);
    assert_int_equal(r.found.removed, 1);
    recording_close(&r);
    test_leave();
}

/* The same tree, recorded with any number of threads, is the same log but for its times. */
static void test_threads_do_not_show(void **state)
{
    uint8_t uuid[16] = "0123456789abcdef";
    test_enter();
    test_run("mkdir -p tree/a/b tree/c");
    for (int i = 0; i < 300; i++) {
        char path[64];
        snprintf(path, sizeof path, "tree/%s/%d", i % 3 ? "a/b" : "c", i * 7919 % 1000);
        test_fill(path, test_random(20000));
    }
    for (int threads = 1; threads <= 4; threads++) {
        struct recording r;
        char log[32];
        const struct qs_tree_options options = {.threads = threads};
        const struct qr_store_options store = {
            .writable = 1, .create = 1, .logical_clock = 1, .sync = QR_SYNC_NONE, .uuid = uuid};
        snprintf(log, sizeof log, "%d.tlog", threads);
        test_ok(qr_store_open(log, &store, &r.store));
        test_ok(qs_tree_open("tree", r.store, &options, &r.tree));
        test_ok(qs_capture(r.tree, NULL, &r.found));
        qs_tree_close(r.tree);
        test_ok(qr_store_close(r.store));
        if (threads > 1)
            test_run("cmp 1.tlog %s", log);
    }
    test_leave();
}

/* A file that is always written to: recorded as it was read, or left as it was. */
static void test_never_resting(void **state)
{
    struct recording r;
    test_enter();
    test_run("mkdir tree && head -c 3000000 /dev/zero | tr '\\0' a >tree/grows && "
             "cp tree/grows tree/rewritten && echo quiet >tree/quiet");
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* not to write for ever if the test fails */
        int grows = open("tree/grows", O_WRONLY | O_APPEND);
        int rewritten = open("tree/rewritten", O_WRONLY);
        for (uint64_t i = 0;; i++)
            if (write(grows, "b", 1) != 1 ||
                pwrite(rewritten, &i, 8, (off_t)(i * 4099 % 2999000)) != 8)
                _exit(1);
    }
    recording_open(&r, "log.tlog", "tree", NULL);
    for (int i = 0; i < 5; i++) {
        recording_capture(&r);
        assert_non_null(lookup(&r, "quiet"));
        assert_non_null(lookup(&r, "grows"));
        assert_true(lookup(&r, "grows")->size >= 3000000);
    }
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    recording_capture(&r);
    assert_int_equal(r.found.unstable, 0);
    recording_restore(&r, r.found.epoch, "out");
    test_same_trees("tree", "out");
    recording_close(&r);
    test_leave();
}

static void remove_stranger(void *context, const char *path, int directory_fd)
{
    if (strcmp(path, "b") == 0)
        test_run("rm -rf tree/a/d");
}

/* a/d has moved to c, and another directory stood in its place until it had been looked at. That
 * one's entries must not count as those of the directory that moved, of which no event will tell
 * again. */
static void test_stranger_in_the_place_of_a_moved_directory(void **state)
{
    static const char *const paths[] = {"a/d", "b", "c/d"};
    struct recording r;
    test_enter();
    test_run("mkdir -p tree/a/d/deep tree/c && echo x >tree/a/d/x && echo y >tree/a/d/deep/y && "
             "echo same >tree/a/d/both");
    recording_open(&r, "log.tlog", "tree", NULL);
    recording_capture(&r);
    test_run("mv tree/a/d tree/c/d && mkdir -p tree/a/d/deep tree/b && echo 1 >tree/a/d/both");
    const struct qs_scope scope = {
        .paths = paths, .path_count = 3, .new_directory = remove_stranger};
    test_ok(qs_capture(r.tree, &scope, &r.found));
    recording_check_digest(&r);
    recording_restore(&r, r.found.epoch, "out");
    test_run("diff -r tree/c out/c");
    recording_close(&r);
    test_leave();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_edit_cost),
        cmocka_unit_test(test_scattered_edits),
        cmocka_unit_test(test_directory_rename),
        cmocka_unit_test(test_rotation),
        cmocka_unit_test(test_hard_links),
        cmocka_unit_test(test_lost_hard_links),
        cmocka_unit_test(test_large_files),
        cmocka_unit_test(test_sparse_files),
        cmocka_unit_test(test_special_files),
        cmocka_unit_test(test_devices),
        cmocka_unit_test(test_own_files),
        cmocka_unit_test(test_own_file_is_replaced),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_unreadable),
        cmocka_unit_test(test_odd_names),
        cmocka_unit_test(test_deep_tree),
        cmocka_unit_test(test_mount_point),
        cmocka_unit_test(test_root_gone),
        cmocka_unit_test(test_single_file),
        cmocka_unit_test(test_threads_do_not_show),
        cmocka_unit_test(test_never_resting),
        cmocka_unit_test(test_stranger_in_the_place_of_a_moved_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
