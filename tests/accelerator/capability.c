/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The probes and the check before a start, with everything that they ask taken away in turn. What
 * needs a kernel that really refuses is in test_capability.py.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "accelerator/capability.h"
#include "runtime/os.h"

#define LENGTH(array) (sizeof(array) / sizeof *(array))

/* --- a kernel of the test's own --- */

struct kernel {
    int open, add;      /* -errno, or 0: the real ones */
    unsigned long type; /* of every file system; 0: what it is */
    int type_error;     /* -errno */
};

static int my_open(void *context)
{
    const struct kernel *kernel = context;
    return kernel->open ? kernel->open : qa_inotify_kernel()->open(NULL);
}

static int my_add(void *context, int fd, const char *path, uint32_t mask)
{
    const struct kernel *kernel = context;
    return kernel->add ? kernel->add : qa_inotify_kernel()->add(NULL, fd, path, mask);
}

static int my_file_system(void *context, int fd, unsigned long *type)
{
    const struct kernel *kernel = context;
    if (kernel->type_error)
        return kernel->type_error;
    if (!kernel->type)
        return qa_inotify_kernel()->file_system(NULL, fd, type);
    *type = kernel->type;
    return 0;
}

struct world {
    char path[64];
    int root;
    struct kernel kernel;
    struct qa_inotify inotify;
    int poll, no_cache;
    int notices;
    char notice[QA_CAPABILITY_LINE]; /* the last one */
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    snprintf(w->path, sizeof w->path, "/tmp/qallow-capability-XXXXXX");
    if (!mkdtemp(w->path))
        return -1;
    w->root = open(w->path, O_RDONLY | O_DIRECTORY);
    w->inotify = *qa_inotify_kernel();
    w->inotify.context = &w->kernel;
    w->inotify.open = my_open;
    w->inotify.add = my_add;
    w->inotify.file_system = my_file_system;
    *state = w;
    return w->root < 0 ? -1 : 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    char command[160];
    close(w->root);
    snprintf(command, sizeof command, "chmod -R u+rwx %s; rm -rf %s", w->path, w->path);
    free(w);
    unsetenv("QALLOW_CACHE_DIR");
    unsetenv("XDG_RUNTIME_DIR");
    return system(command);
}

static void on_notice(void *context, const char *line)
{
    struct world *w = context;
    w->notices++;
    snprintf(w->notice, sizeof w->notice, "%s", line);
}

static int check(struct world *w, enum qa_need events, enum qa_need cache, uint64_t cache_bytes)
{
    const struct qa_capability_request request = {
        .root = w->path,
        .events = events,
        .cache = cache,
        .cache_bytes = cache_bytes,
        .inotify = &w->inotify,
        .poll = &w->poll,
        .no_cache = &w->no_cache,
    };
    w->poll = w->no_cache = w->notices = 0;
    w->notice[0] = '\0';
    return qa_capabilities_check(&request, on_notice, w);
}

#define assert_says(text, part)                                                                    \
    do {                                                                                           \
        if (!strstr(text, part))                                                                   \
            fail_msg("\"%s\" does not say \"%s\"", text, part);                                    \
    } while (0)

/* --- file systems --- */

enum { TMPFS = 0x01021994 };
static const struct {
    unsigned long type;
    const char *name;
    int polled;
} known[] = {
    {0xef53, "ext4", 0},          {0x58465342, "xfs", 0},     {0x9123683e, "btrfs", 0},
    {TMPFS, "tmpfs", 0},          {0x794c7630, "overlay", 0}, {0x6969, "NFS", 1},
    {0xff534d42, "CIFS", 1},      {0xfe534d42, "SMB", 1},     {0x517b, "SMB", 1},
    {0x65735546, "FUSE", 1},      {0x01021997, "9p", 1},      {0x00c36400, "Ceph", 1},
    {0x6a656a63, "fakeowner", 1}, {0x9fa0, "proc", 1},        {0x62656572, "sysfs", 1},
};

static void remote_file_systems_are_polled(void **state)
{
    struct world *w = *state;
    struct qa_capability found = {0};
    for (size_t i = 0; i < LENGTH(known); i++) {
        /* as a 32-bit kernel would give it, with the sign in the upper half */
        w->kernel.type = (unsigned long)(long)(int32_t)known[i].type;
        qa_probe_file_system(&w->inotify, w->root, w->path, &found);
        assert_says(found.text, known[i].name);
        assert_int_equal(found.verdict, known[i].polled ? QA_WARN : QA_PASS);
        assert_int_equal(found.result, known[i].polled ? QALLOW_E_UNAVAILABLE : 0);
        assert_int_equal(check(w, QA_WANTED, QA_NOT_WANTED, 0), 0);
        assert_int_equal(w->poll, known[i].polled);
        assert_int_equal(w->notices, known[i].polled);
        assert_int_equal(check(w, QA_NEEDED, QA_NOT_WANTED, 0), 0); /* watched all the same */
        assert_int_equal(w->poll, 0);
        assert_int_equal(w->notices, known[i].polled);
        if (known[i].polled)
            assert_says(w->notice, "will be missed");
    }
}

static void what_is_not_known_is_watched(void **state)
{
    struct world *w = *state;
    struct qa_capability found = {0};
    w->kernel.type = 0xabcd1234;
    qa_probe_file_system(&w->inotify, w->root, w->path, &found);
    assert_int_equal(found.verdict, QA_WARN);
    assert_int_equal(found.result, 0);
    assert_says(found.text, "0xabcd1234");
    assert_says(found.remedy, "--poll");
    w->kernel.type = 0x4d44;
    qa_probe_file_system(&w->inotify, w->root, w->path, &found);
    assert_int_equal(found.verdict, QA_WARN);
    assert_int_equal(found.result, 0);
    assert_says(found.text, "vfat");
    w->kernel.type_error = -EIO;
    qa_probe_file_system(&w->inotify, w->root, w->path, &found);
    assert_int_equal(found.verdict, QA_WARN);
    assert_int_equal(found.result, 0);
    assert_int_equal(check(w, QA_WANTED, QA_NOT_WANTED, 0), 0);
    assert_int_equal(w->poll + w->notices, 0);
}

/* --- inotify --- */

static const struct {
    int open, add, result;
    const char *remedy;
} refusals[] = {
    {-EMFILE, 0, QALLOW_E_LIMIT, "max_user_instances="},
    {-ENOMEM, 0, QALLOW_E_LIMIT, "memory"},
    {-ENOSYS, 0, QALLOW_E_UNAVAILABLE, "inotify_init1"},
    {-EPERM, 0, QALLOW_E_UNAVAILABLE, "inotify_init1"},
    {0, -ENOSPC, QALLOW_E_LIMIT, "max_user_watches="},
    {0, -EACCES, QALLOW_E_UNAVAILABLE, "reading the tree"},
};

static void without_inotify_it_polls_or_refuses(void **state)
{
    struct world *w = *state;
    struct qa_capability found = {0};
    qa_probe_inotify(&w->inotify, w->root, &found);
    assert_int_equal(found.verdict, QA_PASS);
    assert_int_equal(check(w, QA_WANTED, QA_NOT_WANTED, 0), 0);
    assert_int_equal(check(w, QA_NEEDED, QA_NOT_WANTED, 0), 0);
    assert_int_equal(w->poll + w->notices, 0);
    for (size_t i = 0; i < LENGTH(refusals); i++) {
        w->kernel = (struct kernel){.open = refusals[i].open, .add = refusals[i].add};
        qa_probe_inotify(&w->inotify, w->root, &found);
        assert_int_equal(found.verdict, QA_WARN);
        assert_int_equal(found.result, refusals[i].result);
        assert_says(found.remedy, refusals[i].remedy);
        assert_int_equal(check(w, QA_NEEDED, QA_NOT_WANTED, 0), refusals[i].result);
        assert_says(qallow_error_detail(), refusals[i].remedy);
        assert_int_equal(w->notices, 0);
        assert_int_equal(check(w, QA_WANTED, QA_NOT_WANTED, 0), 0);
        assert_int_equal(w->poll, refusals[i].open != 0); /* a watch is the watcher's to miss */
        assert_int_equal(w->notices, refusals[i].open != 0);
        if (w->notices)
            assert_says(w->notice, refusals[i].remedy);
        assert_int_equal(check(w, QA_NOT_WANTED, QA_NOT_WANTED, 0), 0);
        assert_int_equal(w->poll + w->notices, 0);
    }
}

static void used_up_descriptors_are_no_sysctl(void **state)
{
    struct world *w = *state;
    struct qa_capability found = {0};
    struct rlimit old, none;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = (struct rlimit){0, old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int fd = qa_open_inotify(&w->inotify, &found);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(fd, -1);
    assert_int_equal(found.result, QALLOW_E_LIMIT);
    assert_says(found.remedy, "ulimit -n");
}

static void the_remedy_for_watches_is_enough(void **state)
{
    static const uint64_t needs[] = {1, 5000, 200000, 5000000, UINT64_C(1) << 33};
    uint64_t limit = 0;
    const char *sysctl;
    assert_true(qa_inotify_limit(QA_INOTIFY_WATCHES, &limit, &sysctl));
    for (size_t i = 0; i < LENGTH(needs); i++) {
        struct qa_capability found = {0};
        qa_explain_watch_limit(needs[i], 0, &found);
        const char *number = strchr(found.remedy, '=');
        assert_says(found.remedy, sysctl);
        assert_non_null(number);
        assert_true(strtoull(number + 1, NULL, 10) >= limit + needs[i]);
    }
}

static void limits_are_compared_with_use_and_need(void **state)
{
    uint64_t watches, instances;
    const char *sysctl;
    struct qa_capability found = {0};
    struct qa_inotify_use use;
    assert_true(qa_inotify_limit(QA_INOTIFY_WATCHES, &watches, &sysctl));
    assert_true(qa_inotify_limit(QA_INOTIFY_INSTANCES, &instances, &sysctl));
    use = (struct qa_inotify_use){instances - 1, watches - 10};
    qa_probe_inotify_watches(&use, 10, &found);
    assert_int_equal(found.verdict, QA_PASS);
    assert_string_equal(found.remedy, "");
    qa_probe_inotify_watches(&use, 11, &found);
    assert_int_equal(found.verdict, QA_WARN);
    assert_int_equal(found.result, QALLOW_E_LIMIT);
    assert_says(found.text, "11 directories");
    qa_probe_inotify_instances(&use, &found);
    assert_int_equal(found.verdict, QA_PASS);
    use.instances++;
    qa_probe_inotify_instances(&use, &found);
    assert_int_equal(found.verdict, QA_WARN);
    /* Use is what this process has, too. */
    struct world *w = *state;
    int fd = qa_open_inotify(&w->inotify, &found);
    assert_true(fd >= 0);
    assert_true(w->inotify.add(w->inotify.context, fd, w->path, 1) >= 0);
    qa_inotify_use(&use);
    close(fd);
    assert_true(use.instances > 0 && use.watches > 0);
}

/* --- the cache's memory --- */

static void without_memory_there_is_no_cache_or_no_start(void **state)
{
    struct world *w = *state;
    struct qa_capability found = {0};
    char missing[80], plain[80];
    snprintf(missing, sizeof missing, "%s/missing", w->path);
    snprintf(plain, sizeof plain, "%s/file", w->path);
    close(open(plain, O_CREAT | O_WRONLY, 0600));
    qa_probe_shared_memory(missing, 0, &found);
    assert_int_equal(found.verdict, QA_FAIL);
    assert_int_equal(found.result, QALLOW_E_UNAVAILABLE);
    assert_says(found.remedy, "QALLOW_CACHE_DIR");
    qa_probe_shared_memory(plain, 0, &found);
    assert_int_equal(found.verdict, QA_FAIL);
    assert_int_equal(found.result, QALLOW_E_UNAVAILABLE);
    qa_probe_shared_memory(w->path, UINT64_MAX, &found);
    assert_int_equal(found.verdict, QA_WARN);
    assert_int_equal(found.result, QALLOW_E_LIMIT);
    assert_says(found.text, "16.0 EiB");
    /* What was chosen cannot be used: another place is taken, and who opens it says so. */
    setenv("QALLOW_CACHE_DIR", missing, 1);
    setenv("XDG_RUNTIME_DIR", w->path, 1);
    assert_int_equal(check(w, QA_NOT_WANTED, QA_NEEDED, 0), 0);
    assert_int_equal(w->notices + w->no_cache, 0);
    setenv("QALLOW_CACHE_DIR", "relative", 1);
    assert_int_equal(check(w, QA_NOT_WANTED, QA_NEEDED, 0), 0);
    assert_says(w->notice, "absolute");
    /* A directory on a disk does, and whoever chose it need not be told each time. */
    setenv("QALLOW_CACHE_DIR", w->path, 1);
    assert_int_equal(check(w, QA_NOT_WANTED, QA_NEEDED, 0), 0);
    assert_int_equal(w->notices, 0);
    assert_int_equal(check(w, QA_NOT_WANTED, QA_WANTED, UINT64_MAX), 0);
    assert_int_equal(w->notices, 1);
    assert_says(w->notice, "16.0 EiB");
}

enum { OTHERWISE = 1, NOT_POSSIBLE = 77 };

/* In a child of its own, which has mounts of its own. */
static int without_any_place(struct world *w)
{
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0 ||
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", "/dev/shm", "tmpfs", MS_RDONLY, NULL) < 0)
        return NOT_POSSIBLE;
    if (check(w, QA_NOT_WANTED, QA_NEEDED, 0) != QALLOW_E_UNAVAILABLE || w->notices ||
        !strstr(qallow_error_detail(), "/dev/shm") ||
        !strstr(qallow_error_detail(), "set QALLOW_CACHE_DIR"))
        return OTHERWISE;
    if (check(w, QA_NOT_WANTED, QA_WANTED, 0) != 0 || !w->no_cache || w->notices != 1 ||
        !strstr(w->notice, "set QALLOW_CACHE_DIR"))
        return OTHERWISE;
    return 0;
}

static void without_any_place_for_a_cache(void **state)
{
    int status = 0;
    unsetenv("QALLOW_CACHE_DIR");
    unsetenv("XDG_RUNTIME_DIR");
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(without_any_place(*state));
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == NOT_POSSIBLE) {
        print_message("skipped: mounts in a user namespace are not allowed here\n");
        skip();
    }
    assert_int_equal(status, 0);
}

/* --- the log's directory --- */

static void the_log_s_directory_is_tried(void **state)
{
    struct world *w = *state;
    struct qa_capability found = {0};
    char missing[80];
    snprintf(missing, sizeof missing, "%s/missing", w->path);
    void (*const probes[])(const char *, struct qa_capability *) = {
        qa_probe_log_space, qa_probe_log_write, qa_probe_log_sync, qa_probe_log_punch};
    for (size_t i = 0; i < LENGTH(probes); i++) {
        probes[i](w->path, &found);
        assert_true(found.verdict == QA_PASS || (i == 0 && found.verdict == QA_WARN));
        probes[i](missing, &found);
        assert_int_equal(found.verdict, i < 2 ? QA_FAIL : QA_WARN);
        assert_int_equal(found.result, i < 2 ? QALLOW_E_NO_INPUT : 0);
    }
    assert_int_equal(rmdir(w->path), 0); /* and nothing was left there */
    assert_int_equal(mkdir(w->path, 0700), 0);
}

static void a_log_elsewhere_is_said(void **state)
{
    struct world *w = *state;
    struct qa_capability found = {0};
    char log[2][80];
    snprintf(log[0], sizeof log[0], "%s/log", w->path);
    snprintf(log[1], sizeof log[1], "%s/missing/log", w->path);
    for (size_t i = 0; i < LENGTH(known); i++) {
        struct qa_capability_request request = {.log = log[0], .inotify = &w->inotify};
        int is_remote = known[i].polled && known[i].type != 0x9fa0 && known[i].type != 0x62656572;
        w->kernel.type = known[i].type;
        w->notices = 0;
        assert_int_equal(qa_capabilities_check(&request, on_notice, w), 0);
        assert_int_equal(w->notices, is_remote);
        if (is_remote)
            assert_says(w->notice, "up to the server");
        request.log = log[1]; /* whoever makes the log will say it */
        assert_int_equal(qa_capabilities_check(&request, on_notice, w), 0);
        assert_int_equal(w->notices, is_remote);
        request.log = "log"; /* in the present directory */
        assert_int_equal(qa_capabilities_check(&request, on_notice, w), 0);
        assert_int_equal(w->notices, 2 * is_remote);
    }
    w->kernel.type = TMPFS;
    qa_probe_log_file_system(&w->inotify, w->path, &found);
    assert_int_equal(found.verdict, QA_WARN);
    assert_says(found.text, "lost when the machine stops");
    qa_probe_log_file_system(&w->inotify, "missing", &found);
    assert_int_equal(found.verdict, QA_FAIL);
    assert_int_equal(found.result, QALLOW_E_NO_INPUT);
}

/* --- the processor --- */

static struct qb_u128 broken_hash(const void *p, size_t n, uint64_t seed, uint64_t first)
{
    return (struct qb_u128){1, 2};
}

static size_t broken_diff(const void *a, const void *b, size_t n, size_t gap, struct qb_run *runs,
                          size_t max, size_t *scanned)
{
    *scanned = n;
    return 0;
}

static void broken_kernels_are_found(void **state)
{
    struct qa_capability found = {0};
    struct qb_kernels kernels = *qb_kernels();
    qa_probe_cpu(&kernels, &found);
    assert_int_equal(found.verdict, QA_PASS);
    assert_says(found.text, kernels.name);
    kernels.hash_cells = broken_hash;
    qa_probe_cpu(&kernels, &found);
    assert_int_equal(found.verdict, QA_FAIL);
    assert_int_equal(found.result, QALLOW_E_UNAVAILABLE);
    assert_says(found.remedy, "QALLOW_CPU_MASK=scalar");
    kernels = *qb_kernels();
    kernels.diff_runs = broken_diff;
    qa_probe_cpu(&kernels, &found);
    assert_int_equal(found.verdict, QA_FAIL);
}

/* --- the tree --- */

static void the_tree_is_counted(void **state)
{
    struct world *w = *state;
    struct qa_tree_size size;
    char command[512];
    snprintf(command, sizeof command,
             "cd %s && mkdir -p a/b/c .git/objects && touch f a/ff a/b/c/fff .git/x && "
             "ln -s f link && mkfifo pipe",
             w->path);
    assert_int_equal(system(command), 0);
    assert_int_equal(qa_tree_size(w->root, &size), 0);
    assert_int_equal(size.directories, 4);
    assert_int_equal(size.files, 4);
    assert_int_equal(size.path_bytes,
                     strlen("f") + strlen("a/ff") + strlen("a/b/c/fff") + strlen("link"));
    assert_int_equal(size.unreadable, 0);
}

static int allocations_left;

static int fail_when_used_up(size_t size) { return allocations_left-- <= 0; }

static void counting_without_memory_fails(void **state)
{
    struct world *w = *state;
    struct qa_tree_size size;
    char command[128];
    int result = QALLOW_E_NO_MEMORY, failures = 0;
    snprintf(command, sizeof command, "cd %s && mkdir -p a/b/c d/e", w->path);
    assert_int_equal(system(command), 0);
    for (int n = 0; result < 0; n++) {
        allocations_left = n;
        qr_set_allocation_hook(fail_when_used_up);
        result = qa_tree_size(w->root, &size);
        qr_set_allocation_hook(NULL);
        failures += result < 0;
        assert_true(result == 0 || result == QALLOW_E_NO_MEMORY);
    }
    assert_true(failures > 5);
    assert_int_equal(size.directories, 6);
}

/* --- all of them --- */

struct seen {
    int count;
    char names[32][32];
};

static void on_found(void *context, const struct qa_capability *found)
{
    struct seen *seen = context;
    assert_non_null(found->name);
    assert_true(*found->text);
    assert_int_equal(found->result < 0, found->result != 0);
    if (found->verdict == QA_FAIL)
        assert_true(found->result < 0 && *found->remedy);
    if (found->verdict == QA_PASS)
        assert_true(found->result == 0 && !*found->remedy);
    for (int i = 0; i < seen->count; i++)
        assert_string_not_equal(seen->names[i], found->name);
    snprintf(seen->names[seen->count++], sizeof *seen->names, "%s", found->name);
}

static void every_probe_speaks_once(void **state)
{
    struct world *w = *state;
    struct seen all = {0}, log = {0};
    assert_int_equal(qa_capabilities_probe(w->path, w->path, on_found, &all), 0);
    assert_int_equal(qa_capabilities_probe(NULL, w->path, on_found, &log), 0);
    assert_int_equal(all.count, 15);
    assert_int_equal(log.count, 14);
    assert_int_equal(qa_capabilities_probe("/missing", w->path, on_found, &all), QALLOW_E_NO_INPUT);
}

static void a_missing_root_is_not_this_check_s_matter(void **state)
{
    struct world *w = *state;
    const struct qa_capability_request request = {
        .root = "/missing", .log = "/missing/log", .events = QA_NEEDED};
    assert_int_equal(qa_capabilities_check(&request, on_notice, w), 0);
    assert_int_equal(w->notices, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(remote_file_systems_are_polled),
        TEST(what_is_not_known_is_watched),
        TEST(without_inotify_it_polls_or_refuses),
        TEST(used_up_descriptors_are_no_sysctl),
        TEST(the_remedy_for_watches_is_enough),
        TEST(limits_are_compared_with_use_and_need),
        TEST(without_memory_there_is_no_cache_or_no_start),
        TEST(without_any_place_for_a_cache),
        TEST(the_log_s_directory_is_tried),
        TEST(a_log_elsewhere_is_said),
        TEST(broken_kernels_are_found),
        TEST(the_tree_is_counted),
        TEST(counting_without_memory_fails),
        TEST(every_probe_speaks_once),
        TEST(a_missing_root_is_not_this_check_s_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
