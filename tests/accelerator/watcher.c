/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The watcher against real directories. A *mirror* of the tree is kept by looking only at what the
 * watcher marks: a marked path and, if it is a directory, its direct entries. After every drain of
 * a tree at rest the mirror must equal what a walk over the whole tree finds.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "accelerator/watcher.h"
#include "runtime/error.h"
#include "tests/accelerator/mirror.h"
#include "tests/accelerator/seed.h"

/* --- inotify that can be made to fail --- */

struct faults {
    int adds_left; /* -1: no limit */
    int no_instance;
    int overflow;              /* the next read loses everything */
    int unknown;               /* the next read is of a watch nobody set */
    unsigned long file_system; /* of every directory; 0: what it is */
};

static int faulty_open(void *context)
{
    struct faults *f = context;
    return f->no_instance ? -EMFILE : qa_inotify_kernel()->open(NULL);
}

static int faulty_add(void *context, int fd, const char *path, uint32_t mask)
{
    struct faults *f = context;
    int watch = f->adds_left == 0 ? -ENOSPC : qa_inotify_kernel()->add(NULL, fd, path, mask);
    if (watch >= 0 && f->adds_left > 0)
        f->adds_left--;
    return watch;
}

static int faulty_remove(void *context, int fd, int watch)
{
    return qa_inotify_kernel()->remove(NULL, fd, watch);
}

static ssize_t faulty_read(void *context, int fd, void *buffer, size_t size)
{
    struct faults *f = context;
    ssize_t n = qa_inotify_kernel()->read(NULL, fd, buffer, size);
    if (n <= 0 || (!f->overflow && !f->unknown))
        return n;
    struct inotify_event e = {.wd = f->overflow ? -1 : 1 << 30,
                              .mask = f->overflow ? IN_Q_OVERFLOW : IN_MODIFY};
    f->overflow = f->unknown = 0;
    memcpy(buffer, &e, sizeof e);
    return sizeof e;
}

static int faulty_pending(void *context, int fd) { return qa_inotify_kernel()->pending(NULL, fd); }

static int faulty_file_system(void *context, int fd, unsigned long *type)
{
    const struct faults *f = context;
    *type = f->file_system;
    return f->file_system ? 0 : qa_inotify_kernel()->file_system(NULL, fd, type);
}

/* --- a watched temporary directory --- */

struct world {
    char path[64];
    int root;
    struct faults faults;
    struct qa_inotify inotify;
    struct qa_dirty *dirty;
    struct qa_watcher *watcher;
    struct mirror mirror;
    char notices[1024];
};

static void on_notice(void *context, const char *line)
{
    struct world *w = context;
    size_t used = strlen(w->notices);
    snprintf(w->notices + used, sizeof w->notices - used, "%s\n", line);
}

static int not_ignored(void *context, const char *path, int is_directory)
{
    return !strstr(path, "ignored");
}

static void build(struct world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Runs a shell command in the watched directory. */
static void build(struct world *w, const char *format, ...)
{
    char command[4096];
    va_list arguments;
    int n = snprintf(command, sizeof command, "cd %s && ", w->path);
    va_start(arguments, format);
    vsnprintf(command + n, sizeof command - (size_t)n, format, arguments);
    va_end(arguments);
    assert_int_equal(system(command), 0);
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    const char *where = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp"; /* quicker */
    snprintf(w->path, sizeof w->path, "%s/qallow-watcher-XXXXXX", where);
    assert_non_null(mkdtemp(w->path));
    w->root = open(w->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    w->faults.adds_left = -1;
    w->inotify = (struct qa_inotify){&w->faults,  faulty_open,    faulty_add,        faulty_remove,
                                     faulty_read, faulty_pending, faulty_file_system};
    assert_int_equal(qa_dirty_create(65536, &w->dirty), 0);
    *state = w;
    return 0;
}

static void start_with(struct world *w, int poll, int no_poll)
{
    const struct qa_watcher_options options = {.inotify = &w->inotify,
                                               .root_fd = w->root,
                                               .poll = poll,
                                               .no_poll = no_poll,
                                               .is_recorded = not_ignored,
                                               .notice = on_notice,
                                               .context = w};
    assert_int_equal(qa_watcher_create(&options, w->dirty, &w->watcher), 0);
    assert_true(qa_dirty_is_empty(w->dirty));
    look(&w->mirror, w->root, ".", 1);
}

static void start(struct world *w, int poll) { start_with(w, poll, 0); }

/* A walk that says which directories it enters, and looks at them then. */
static void walk_in(struct world *w, const char *path)
{
    int fd = openat(w->root, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return;
    assert_int_equal(qa_watcher_enter(w->watcher, path, fd), 0);
    look(&w->mirror, w->root, path, 0);
    DIR *stream = fdopendir(fd);
    assert_non_null(stream);
    for (const struct dirent *entry; (entry = readdir(stream)) != NULL;) {
        char child[PATH_MAX];
        join(child, path, entry->d_name);
        if (entry->d_type == DT_DIR && entry->d_name[0] != '.')
            walk_in(w, child);
    }
    closedir(stream);
}

static void start_walking(struct world *w)
{
    const struct qa_watcher_options options = {.inotify = &w->inotify,
                                               .root_fd = w->root,
                                               .is_entered = 1,
                                               .is_recorded = not_ignored,
                                               .notice = on_notice,
                                               .context = w};
    assert_int_equal(qa_watcher_create(&options, w->dirty, &w->watcher), 0);
    walk_in(w, ".");
    assert_int_equal(qa_watcher_entered(w->watcher), 0);
}

static int teardown(void **state)
{
    struct world *w = *state;
    char command[256];
    qa_watcher_destroy(w->watcher);
    qa_dirty_destroy(w->dirty);
    clear(&w->mirror);
    close(w->root);
    snprintf(command, sizeof command, "chmod -R u+rwx %s; rm -rf %s", w->path, w->path);
    int result = system(command);
    free(w);
    return result;
}

static void take_into_mirror(struct world *w)
{
    struct qa_taken taken;
    assert_int_equal(qa_dirty_take(w->dirty, NULL, qa_now_ns(), &taken), 0);
    if (taken.everything) {
        forget_below(&w->mirror, ".", 0);
        look(&w->mirror, w->root, ".", 1);
    }
    for (size_t i = 0; i < taken.count; i++)
        look(&w->mirror, w->root, taken.paths[i], 0);
    qa_taken_finish(&taken);
}

/* One drain is enough for everything that was done before it. */
static void assert_follows(struct world *w)
{
    assert_int_equal(qa_watcher_drain(w->watcher), 0);
    assert_int_equal(qa_watcher_work(w->watcher, 1), 0);
    take_into_mirror(w);
    assert_mirrors(&w->mirror, w->root);
}

static struct qa_watcher_status status_of(const struct world *w)
{
    struct qa_watcher_status status;
    qa_watcher_status(w->watcher, &status);
    return status;
}

/* --- tests --- */

static void new_directories_lose_nothing(void **state)
{
    struct world *w = *state;
    build(w, "mkdir -p there/already && echo 1 > there/already/file");
    start(w, 0);
    build(w, "mkdir -p a/b/c/d/e && touch a/b/c/d/e/file a/b/file");
    assert_follows(w);
    assert_int_equal(status_of(w).watches, 3 + 5);
    build(w, "echo 2 > a/b/c/d/e/file; echo 3 > there/already/file; chmod 700 a/b/c");
    assert_follows(w);
    build(w, "ln -s nowhere a/link; mkfifo a/fifo; rm -r there");
    assert_follows(w);
    assert_int_equal(status_of(w).watches, 1 + 5);
    assert_int_equal(status_of(w).rescans, 0);
}

static void nothing_changed_marks_nothing(void **state)
{
    struct world *w = *state;
    build(w, "mkdir d && echo 1 > d/f");
    start(w, 0);
    build(w, "cat d/f > /dev/null; ls -R . > /dev/null");
    assert_int_equal(qa_watcher_drain(w->watcher), 0);
    assert_true(qa_dirty_is_empty(w->dirty));
    assert_true(qa_watcher_deadline(w->watcher) == UINT64_MAX); /* no wake-ups when idle */
}

static void moved_directories_keep_their_watches(void **state)
{
    struct world *w = *state;
    build(w, "mkdir -p a/sub/deep b && echo 1 > a/sub/deep/f");
    start(w, 0);
    build(w, "mv a/sub b/other && echo 2 > b/other/deep/f && mkdir a/sub && echo 3 > a/sub/f");
    assert_follows(w);
    build(w, "echo 4 > b/other/deep/f; echo 5 > a/sub/f");
    assert_follows(w);
    build(w, "mv b/other b/x; mv b y; mv a b; mv y a; echo 6 > a/x/deep/f; echo 7 > b/sub/f");
    assert_follows(w);
    build(w, "echo 8 > a/x/deep/g; echo 9 > b/sub/f");
    assert_follows(w);
    assert_int_equal(status_of(w).rescans, 0);
}

static void a_directory_that_leaves_is_let_go(void **state)
{
    struct world *w = *state;
    char outside[80];
    snprintf(outside, sizeof outside, "%s.outside", w->path);
    build(w, "mkdir -p a/b/c");
    start(w, 0);
    build(w, "mv a %s && touch %s/b/c/f", outside, outside);
    assert_follows(w);
    assert_int_equal(status_of(w).watches, 1);
    build(w, "touch %s/b/c/g", outside);
    assert_int_equal(qa_watcher_drain(w->watcher), 0);
    assert_true(qa_dirty_is_empty(w->dirty));
    build(w, "mv %s back && touch back/b/c/h", outside);
    assert_follows(w);
    assert_int_equal(status_of(w).watches, 4);
    assert_int_equal(status_of(w).rescans, 0);
}

static void what_is_left_out_is_not_watched(void **state)
{
    struct world *w = *state;
    build(w, "mkdir -p ignored/a/b kept");
    start(w, 0);
    assert_int_equal(status_of(w).watches, 2);
    build(w, "touch ignored/a/b/c ignored.txt; mkdir kept/ignored; touch kept/ignored/f");
    assert_int_equal(qa_watcher_drain(w->watcher), 0);
    assert_true(qa_dirty_is_empty(w->dirty));
    build(w, "mv ignored now && touch now/a/f; mv kept ignored");
    assert_int_equal(qa_watcher_drain(w->watcher), 0);
    assert_int_equal(status_of(w).watches, 4);
}

static void an_overflow_rescans(void **state)
{
    struct world *w = *state;
    build(w, "mkdir -p a/b && echo 1 > a/b/f");
    start(w, 0);
    w->faults.overflow = 1;
    build(w, "mv a x; mkdir -p new/deep; echo 2 > new/deep/f; echo 3 > x/b/f");
    assert_follows(w);
    assert_int_equal(status_of(w).overflows, 1);
    assert_int_equal(status_of(w).rescans, 1);
    build(w, "echo 4 > new/deep/f; echo 5 > x/b/f; touch x/b/g");
    assert_follows(w);
    assert_int_equal(status_of(w).rescans, 1);
    w->faults.unknown = 1;
    build(w, "echo 6 > x/b/f");
    assert_follows(w);
    assert_int_equal(status_of(w).rescans, 2);
}

/* The kernel's own overflow: more events than fs.inotify.max_queued_events. */
static void a_real_overflow_rescans(void **state)
{
    struct world *w = *state;
    FILE *file = fopen("/proc/sys/fs/inotify/max_queued_events", "r");
    unsigned limit = 0;
    if (!file || fscanf(file, "%u", &limit) != 1 || limit > 100000)
        skip();
    fclose(file);
    start(w, 0);
    build(w, "mkdir many");
    assert_int_equal(qa_watcher_drain(w->watcher), 0);
    for (unsigned i = 0; i < limit / 2 + 100; i++) { /* IN_CREATE, IN_CLOSE_WRITE each */
        char path[64];
        snprintf(path, sizeof path, "many/%u", i);
        int fd = openat(w->root, path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        close(fd);
        if (i >= 40)
            assert_int_equal(unlinkat(w->root, path, 0), 0);
    }
    assert_follows(w);
    assert_true(status_of(w).overflows >= 1);
    assert_true(status_of(w).rescans >= 1);
}

/* 0, 0, 0, 0.1 s, 0.2 s, ... 10 s after the rescan before, which was in [least, most]. One that is
 * not held back was due already, as slow as this may run; in ten seconds it comes far. */
static void rescans_in_a_row_are_held_back(void **state)
{
    struct world *w = *state;
    uint64_t least = 0, most = 0, at = 0;
    start(w, 0);
    for (int i = 0; i < 12; i++) {
        uint64_t delay = i < 3 ? 0 : UINT64_C(100000000) << (i - 3), before;
        delay = delay < UINT64_C(10000000000) ? delay : UINT64_C(10000000000);
        w->faults.overflow = 1;
        build(w, "touch f%d", i);
        before = qa_now_ns();
        assert_int_equal(qa_watcher_drain(w->watcher), 0);
        at = qa_watcher_deadline(w->watcher);
        if (at == UINT64_MAX)
            assert_true(qa_now_ns() >= least + delay);
        else
            assert_true(i >= 3 && at >= least + delay && at <= most + delay);
        assert_follows(w); /* a barrier does not wait for it */
        assert_int_equal(status_of(w).rescans, i + 1);
        least = before;
        most = qa_now_ns();
    }
    assert_true(at != UINT64_MAX);
}

static void beyond_the_limit_directories_are_polled(void **state)
{
    struct world *w = *state;
    build(w, "mkdir -p a/b c/d e/f");
    w->faults.adds_left = 4; /* one is for the directory above */
    start(w, 0);
    assert_int_equal(status_of(w).watches, 3);
    assert_int_equal(status_of(w).polled, 4);
    assert_non_null(strstr(w->notices, "3 of 7 directories"));
    assert_non_null(strstr(w->notices, "sysctl fs.inotify.max_user_watches"));
    assert_true(qa_watcher_deadline(w->watcher) != UINT64_MAX);
    build(w, "for d in a a/b c c/d e e/f; do echo 1 > $d/file; done; mkdir -p e/f/g/h; "
             "touch e/f/g/h/i");
    assert_follows(w);
    build(w, "for d in a a/b c c/d e e/f; do echo 2 > $d/file; done; mv c/d a/b/moved; "
             "echo 3 > e/f/g/h/i");
    assert_follows(w);
    w->faults.adds_left = -1; /* the limit was raised */
    assert_int_equal(qa_watcher_work(w->watcher, 1), 0);
    assert_int_equal(qa_watcher_work(w->watcher, 1), 0);
    assert_int_equal(status_of(w).polled, 0);
    assert_true(qa_watcher_deadline(w->watcher) == UINT64_MAX);
    assert_follows(w);
    build(w, "echo 4 > a/b/moved/new; echo 5 > e/f/g/h/i");
    assert_follows(w);
}

static void what_a_walk_enters_is_watched(void **state)
{
    struct world *w = *state;
    build(w, "mkdir -p a/b c/d e/f");
    w->faults.adds_left = 4;
    start_walking(w);
    assert_true(qa_dirty_is_empty(w->dirty));
    assert_int_equal(status_of(w).watches, 3);
    assert_int_equal(status_of(w).polled, 4);
    assert_non_null(strstr(w->notices, "3 of 7 directories"));
    build(w, "for d in a a/b c c/d e e/f; do echo 1 > $d/file; done; mkdir -p e/f/g/h");
    assert_follows(w);
    w->faults.adds_left = -1;
    assert_int_equal(qa_watcher_work(w->watcher, 1), 0);
    build(w, "for d in a a/b c c/d e e/f/g/h; do echo 2 > $d/file; done; mv c/d a/b/moved");
    assert_follows(w);
    assert_int_equal(status_of(w).polled, 0);
}

static void without_an_instance_everything_is_polled(void **state)
{
    struct world *w = *state;
    build(w, "mkdir -p a/b && echo 1 > a/b/f");
    w->faults.no_instance = 1;
    start(w, 0);
    assert_non_null(strstr(w->notices, "sysctl fs.inotify.max_user_instances"));
    assert_int_equal(qa_watcher_fd(w->watcher), -1);
    build(w, "echo 2 > a/b/f; mkdir -p x/y/z; touch x/y/z/f; mv a q");
    assert_follows(w);
    build(w, "rm -r x/y; echo 22 > q/b/f");
    assert_follows(w);
}

static void a_remote_file_system_is_polled(void **state)
{
    struct world *w = *state;
    build(w, "mkdir -p a/b && echo 1 > a/b/f");
    w->faults.file_system = 0x6969;
    start(w, 0);
    assert_non_null(strstr(w->notices, "is on NFS"));
    assert_non_null(strstr(w->notices, "--no-poll"));
    assert_int_equal(qa_watcher_fd(w->watcher), -1);
    build(w, "echo 2 > a/b/f; mkdir -p x/y/z; touch x/y/z/f");
    assert_follows(w);
}

static void a_remote_file_system_can_be_watched_all_the_same(void **state)
{
    struct world *w = *state;
    build(w, "mkdir -p a/b && echo 1 > a/b/f");
    w->faults.file_system = 0x6969;
    start_with(w, 0, 1);
    assert_string_equal(w->notices, "");
    assert_true(qa_watcher_fd(w->watcher) >= 0);
    assert_int_equal(status_of(w).polled, 0);
    build(w, "echo 2 > a/b/f; mkdir -p x/y/z; touch x/y/z/f");
    assert_follows(w);
}

static void polling_sees_no_change_where_there_is_none(void **state)
{
    struct world *w = *state;
    build(w, "mkdir d && echo 1 > d/f && touch -d @1000000000 d/f");
    start(w, 1);
    for (;;) { /* what changed just now is looked at again until its time stamps are old */
        assert_int_equal(qa_watcher_work(w->watcher, 1), 0);
        if (qa_dirty_is_empty(w->dirty))
            break;
        take_into_mirror(w);
    }
    assert_int_equal(qa_watcher_work(w->watcher, 1), 0);
    assert_true(qa_dirty_is_empty(w->dirty));
}

/* By itself: nobody asks for it, and there is no event that could. */
static void a_poll_that_is_due_is_made(void **state)
{
    struct world *w = *state;
    build(w, "mkdir -p a/b && echo 1 > a/b/f");
    start(w, 1);
    take_into_mirror(w);
    build(w, "echo 22 > a/b/f; mkdir c; touch c/g");
    uint64_t due = qa_watcher_deadline(w->watcher), now = qa_now_ns();
    assert_in_range(due, 1, now + UINT64_C(60000000000));
    while ((now = qa_now_ns()) < due)
        poll(NULL, 0, (int)((due - now) / 1000000) + 1);
    assert_int_equal(qa_watcher_drain(w->watcher), 0);
    assert_in_range(qa_watcher_deadline(w->watcher), now + 1, UINT64_MAX - 1);
    assert_false(qa_dirty_is_empty(w->dirty));
    take_into_mirror(w);
    assert_mirrors(&w->mirror, w->root);
}

static int took(const struct qa_taken *taken, const char *path)
{
    for (size_t i = 0; i < taken->count; i++)
        if (strcmp(taken->paths[i], path) == 0)
            return 1;
    return 0;
}

/* Until all is old enough to look the same twice. */
static void poll_until_quiet(struct world *w)
{
    struct qa_taken taken;
    do {
        assert_int_equal(qa_dirty_take(w->dirty, NULL, qa_now_ns(), &taken), 0);
        qa_taken_finish(&taken);
        assert_int_equal(qa_watcher_work(w->watcher, 1), 0);
    } while (!qa_dirty_is_empty(w->dirty));
}

/* Who captured one of them in between may have met the other in its place. */
static void polling_tells_empty_directories_apart(void **state)
{
    struct world *w = *state;
    struct qa_taken taken;
    build(w, "mkdir -p a/d b/d");
    start(w, 1);
    poll_until_quiet(w);
    build(w, "mv a/d a/e; mv b/d a/d; mv a/e b/d");
    assert_int_equal(qa_watcher_work(w->watcher, 1), 0);
    assert_int_equal(qa_dirty_take(w->dirty, NULL, qa_now_ns(), &taken), 0);
    assert_true(took(&taken, "a/d"));
    assert_true(took(&taken, "b/d"));
    qa_taken_finish(&taken);
}

/* A directory was away, with the one above it, when somebody looked: it counts as changed, though
 * it looks as it did before. */
static void what_was_away_for_a_moment_is_told_again(void **state)
{
    struct world *w = *state;
    struct qa_taken taken;
    build(w, "mkdir -p a/b/c a/d; touch a/b/c/1");
    start(w, 1);
    poll_until_quiet(w);
    qa_watcher_doubt(w->watcher, "a/b/c");
    qa_watcher_doubt(w->watcher, "a/d/file");
    assert_int_equal(qa_watcher_work(w->watcher, 1), 0);
    assert_int_equal(qa_dirty_take(w->dirty, NULL, qa_now_ns(), &taken), 0);
    assert_int_equal(taken.count, 2);
    assert_true(took(&taken, "a/b/c"));
    assert_true(took(&taken, "a/d"));
    qa_taken_finish(&taken);
    assert_int_equal(qa_watcher_work(w->watcher, 1), 0);
    assert_true(qa_dirty_is_empty(w->dirty));
}

/* Whoever captures may find a directory before the one that it lies in has been looked at. */
static void the_way_to_what_was_found_is_polled(void **state)
{
    struct world *w = *state;
    struct qa_taken taken;
    start(w, 1);
    build(w, "mkdir -p a/b/c; touch a/1 a/b/2 a/b/c/3");
    assert_int_equal(qa_watcher_found(w->watcher, "a/b/c"), 0);
    assert_int_equal(qa_watcher_work(w->watcher, 1), 0);
    assert_int_equal(qa_dirty_take(w->dirty, NULL, qa_now_ns(), &taken), 0);
    assert_true(took(&taken, "a"));
    assert_true(took(&taken, "a/b"));
    assert_true(took(&taken, "a/b/c"));
    qa_taken_finish(&taken);
}

static void the_end_of_the_root_is_seen(void **state)
{
    struct world *w = *state;
    char moved[80];
    start(w, 0);
    assert_false(status_of(w).root_gone);
    snprintf(moved, sizeof moved, "%s.moved", w->path);
    assert_int_equal(rename(w->path, moved), 0);
    assert_int_equal(qa_watcher_drain(w->watcher), 0);
    assert_true(status_of(w).root_gone);
    assert_int_equal(rename(moved, w->path), 0);
    qa_watcher_destroy(w->watcher);
    w->watcher = NULL;
    start(w, 0);
    assert_int_equal(rmdir(w->path), 0);
    assert_int_equal(qa_watcher_drain(w->watcher), 0);
    assert_true(status_of(w).root_gone);
}

/* Who may not read a directory is told by its mode; root may, so this runs as nobody. */
static void an_unreadable_directory_is_found_when_it_opens(void **state)
{
    struct world *w = *state;
    int was_root = geteuid() == 0;
    build(w, "mkdir -p closed/below && touch closed/below/f; chown -R 65534 %s",
          was_root ? "." : "");
    assert_true(!was_root || seteuid(65534) == 0);
    assert_int_equal(fchmodat(w->root, "closed", 0, 0), 0);
    start(w, 0);
    assert_int_equal(status_of(w).watches, 1);
    assert_int_equal(fchmodat(w->root, "closed", 0700, 0), 0);
    assert_int_equal(qa_watcher_drain(w->watcher), 0);
    take_into_mirror(w);
    assert_int_equal(status_of(w).watches, 3);
    assert_mirrors(&w->mirror, w->root);
    assert_true(!was_root || seteuid(0) == 0);
}

/* The same directory twice in one tree: one of the two is polled, and both are followed. */
static void a_bind_mount_is_polled(void **state)
{
    struct world *w = *state;
    build(w, "mkdir -p a/b twin && touch a/b/f");
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        char a[80], twin[80];
        snprintf(a, sizeof a, "%s/a", w->path);
        snprintf(twin, sizeof twin, "%s/twin", w->path);
        if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
            mount(a, twin, NULL, MS_BIND, NULL) < 0)
            _exit(77);
        close(w->root); /* it knows the mounts of the old namespace */
        w->root = open(w->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        start(w, 0);
        if (status_of(w).watches != 3 || status_of(w).polled != 2)
            _exit(1);
        build(w, "echo 1 > a/b/f; mkdir a/c; touch twin/c/x");
        assert_follows(w);
        build(w, "echo 2 > twin/b/f; mv a/c twin/b/");
        assert_follows(w);
        _exit(0);
    }
    int result;
    assert_int_equal(waitpid(child, &result, 0), child);
    if (WIFEXITED(result) && WEXITSTATUS(result) == 77)
        skip();
    assert_int_equal(result, 0);
}

/* --- random changes --- */

static void random_path(unsigned *seed, char *path, size_t size)
{
    static const char *const names[] = {"a", "b", "c", "ab"};
    int depth = 1 + rand_r(seed) % 4;
    size_t used = 0;
    for (int i = 0; i < depth; i++)
        used += (size_t)snprintf(path + used, size - used, "%s%s", i ? "/" : "",
                                 names[rand_r(seed) % 4]);
}

/* Any change of the tree; what is not possible just now fails and changes nothing. */
static void random_change(int root, unsigned *seed)
{
    char from[64], to[64];
    random_path(seed, from, sizeof from);
    random_path(seed, to, sizeof to);
    int fd;
    switch (rand_r(seed) % 8) {
    case 0:
    case 1:
        (void)!mkdirat(root, from, 0755);
        break;
    case 2:
    case 3:
        fd = openat(root, from, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0644);
        if (fd >= 0) {
            (void)!write(fd, to, 3);
            close(fd);
        }
        break;
    case 4:
    case 5:
        (void)!renameat(root, from, root, to);
        break;
    case 6:
        if (unlinkat(root, from, 0) < 0)
            (void)!unlinkat(root, from, AT_REMOVEDIR);
        break;
    default:
        (void)!fchmodat(root, from, 0700 | (mode_t)(rand_r(seed) % 64), 0);
    }
}

/* Changes and drains take turns: each drain sees everything before it. */
static void follows_random_changes(void **state)
{
    struct world *w = *state;
    unsigned seed = test_seed();
    start(w, 0);
    for (int round = 0; round < 400; round++) {
        for (int n = rand_r(&seed) % 20; n >= 0; n--)
            random_change(w->root, &seed);
        if (rand_r(&seed) % 50 == 0)
            w->faults.overflow = 1;
        assert_follows(w);
        w->faults.overflow = 0;
    }
}

/* Another process changes the tree while it is drained and looked at; when it is through, so are
 * we. The mirror itself may look at a moving tree, as a capture does. */
static void follows_a_concurrent_writer(void **state)
{
    struct world *w = *state;
    unsigned seed = test_seed();
    start(w, 0);
    for (int round = 0; round < 20; round++) {
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            for (int i = 0; i < 1000; i++)
                random_change(w->root, &seed);
            _exit(0);
        }
        seed += 7919;
        int result;
        while (waitpid(child, &result, WNOHANG) == 0) {
            assert_int_equal(qa_watcher_drain(w->watcher), 0);
            take_into_mirror(w);
        }
        assert_int_equal(result, 0);
        assert_follows(w);
    }
    assert_int_equal(status_of(w).overflows, 0);
}

/* The tree changes while the first walk is on its way. */
static void a_first_walk_beside_a_writer_misses_nothing(void **state)
{
    struct world *w = *state;
    unsigned seed = test_seed();
    for (int round = 0; round < 40; round++) {
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            for (int i = 0; i < 400; i++)
                random_change(w->root, &seed);
            _exit(0);
        }
        seed += 7919;
        int result;
        start_walking(w);
        assert_int_equal(waitpid(child, &result, 0), child);
        assert_int_equal(result, 0);
        assert_follows(w);
        qa_watcher_destroy(w->watcher);
        w->watcher = NULL;
        clear(&w->mirror);
        assert_true(qa_dirty_is_empty(w->dirty));
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(new_directories_lose_nothing),
        TEST(nothing_changed_marks_nothing),
        TEST(moved_directories_keep_their_watches),
        TEST(a_directory_that_leaves_is_let_go),
        TEST(what_is_left_out_is_not_watched),
        TEST(an_overflow_rescans),
        TEST(a_real_overflow_rescans),
        TEST(rescans_in_a_row_are_held_back),
        TEST(beyond_the_limit_directories_are_polled),
        TEST(what_a_walk_enters_is_watched),
        TEST(without_an_instance_everything_is_polled),
        TEST(a_remote_file_system_is_polled),
        TEST(a_remote_file_system_can_be_watched_all_the_same),
        TEST(polling_sees_no_change_where_there_is_none),
        TEST(a_poll_that_is_due_is_made),
        TEST(polling_tells_empty_directories_apart),
        TEST(what_was_away_for_a_moment_is_told_again),
        TEST(the_way_to_what_was_found_is_polled),
        TEST(the_end_of_the_root_is_seen),
        TEST(an_unreadable_directory_is_found_when_it_opens),
        TEST(a_bind_mount_is_polled),
        TEST(follows_random_changes),
        TEST(follows_a_concurrent_writer),
        TEST(a_first_walk_beside_a_writer_misses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
