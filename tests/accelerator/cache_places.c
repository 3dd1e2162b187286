/* SPDX-License-Identifier: Apache-2.0 */
/* Where a cache is kept, who may read it, and what becomes of one that was made for something else.
 */
#include "tests/accelerator/cache_support.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* --- who may read --- */

static void files_of_others_are_refused(void **state)
{
    struct qa_cache *keeper = test_keeper(0);
    struct qallow_cache *reader = NULL;
    char path[QA_SEGMENT_PATH], other[QA_SEGMENT_PATH];
    snprintf(path, sizeof path, "%s", qa_cache_path(keeper));
    snprintf(other, sizeof other, "%s/other", test_place);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    qa_cache_close(keeper);

    assert_int_equal(chmod(path, 0644), 0);
    assert_int_equal(qallow_cache_open(test_tree, &reader), QALLOW_E_PERMISSION);
    assert_non_null(strstr(qallow_error_detail(), "644"));
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(rename(path, other), 0);
    assert_int_equal(symlink(other, path), 0);
    assert_int_equal(qallow_cache_open(test_tree, &reader), QALLOW_E_PERMISSION);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0); /* must not block */
    assert_int_equal(qallow_cache_open(test_tree, &reader), QALLOW_E_PERMISSION);
    assert_null(reader);
    if (geteuid() == 0) {
        assert_int_equal(unlink(path), 0);
        assert_int_equal(link(other, path), 0);
        assert_int_equal(chown(path, 1, 1), 0);
        assert_int_equal(qallow_cache_open(test_tree, &reader), QALLOW_E_PERMISSION);
        assert_non_null(strstr(qallow_error_detail(), "user 1"));
    } else {
        print_message("not root: the segment of another user is not tried\n");
    }
    keeper = test_keeper(0); /* and replaced by the keeper */
    assert_non_null(strstr(test_notices, "is made anew"));
    reader = test_reader();
    qallow_cache_close(reader);
    qa_cache_close(keeper);
}

static void what_is_not_there(void **state)
{
    struct qallow_cache *reader = NULL;
    char path[200];
    assert_int_equal(qallow_cache_open(test_tree, &reader), QALLOW_E_UNAVAILABLE);
    assert_int_equal(qallow_cache_open("/no/such/directory", &reader), QALLOW_E_NO_INPUT);
    snprintf(path, sizeof path, "%s/file", test_tree);
    assert_int_equal(mknod(path, S_IFREG | 0600, 0), 0);
    assert_int_equal(qallow_cache_open(path, &reader), QALLOW_E_UNAVAILABLE);
    assert_int_equal(qallow_cache_open_above(path, &reader), QALLOW_E_UNAVAILABLE);
    assert_null(reader);
}

static void any_way_to_the_directory(void **state)
{
    struct qa_cache *keeper = test_keeper(0);
    char path[256], here[PATH_MAX];
    assert_non_null(getcwd(here, sizeof here));
    snprintf(path, sizeof path, "%s/link", test_place);
    assert_int_equal(symlink(test_tree, path), 0);
    static const char *const below[] = {"", "/.", "/a", "/a/b/c", "/none/there", "/a/../a"};
    snprintf(path, sizeof path, "%s/a", test_tree);
    assert_int_equal(mkdir(path, 0700), 0);
    for (size_t i = 0; i < sizeof below / sizeof *below; i++) {
        struct qallow_cache *reader = NULL;
        snprintf(path, sizeof path, "%s/link%s", test_place, below[i]);
        assert_int_equal(qallow_cache_open_above(path, &reader), 0);
        assert_string_equal(qallow_cache_root(reader), test_tree);
        qallow_cache_close(reader);
    }
    assert_int_equal(chdir(test_tree), 0);
    static const char *const relative[] = {".", "a", "a/x", "no", "./no/no"};
    for (size_t i = 0; i < sizeof relative / sizeof *relative; i++) {
        struct qallow_cache *reader = NULL;
        assert_int_equal(qallow_cache_open_above(relative[i], &reader), 0);
        assert_string_equal(qallow_cache_root(reader), test_tree);
        qallow_cache_close(reader);
    }
    assert_int_equal(chdir(here), 0);
    qa_cache_close(keeper);
}

/* --- other caches in the same place --- */

static int stop_at_second(void *context, const char *path, const struct qallow_file *file)
{
    return ++*(int *)context == 2 ? 77 : 0;
}

static void another_history_is_another_cache(void **state)
{
    static const uint8_t one[16] = {1}, two[16] = {2};
    struct qa_cache_options options = test_options(0);
    struct qa_cache *keeper = test_keeper(0);
    struct qallow_cache *reader = test_reader();
    struct qallow_file file;
    test_put(keeper, "a", 1);
    qa_cache_publish(keeper, 0);
    const uint8_t *const histories[] = {one, two, NULL};
    for (int i = 0; i < 3; i++) {
        qa_cache_close(keeper);
        options.history = histories[i];
        test_notices[0] = '\0';
        assert_int_equal(qa_cache_open(&options, &keeper), 0);
        assert_non_null(strstr(test_notices, "another log"));
        assert_int_equal(qallow_cache_get(reader, "a", &file), QALLOW_E_STATE);
        assert_int_equal(qallow_cache_since(reader, 0, stop_at_second, &i, NULL), QALLOW_E_STATE);
        assert_int_equal(qallow_cache_each(reader, stop_at_second, &i, NULL), QALLOW_E_STATE);
        assert_int_equal(qallow_cache_wait(reader, 9, -1, 0, NULL), QALLOW_E_STATE);
        struct qallow_cache_info info = QALLOW_CACHE_INFO_INIT;
        assert_int_equal(qallow_cache_info(reader, &info), QALLOW_E_STATE);
        qallow_cache_close(reader);
        reader = test_reader();
        assert_int_equal(qallow_cache_get(reader, "a", &file), QALLOW_E_PAGE_NOT_FOUND);
        test_put(keeper, "a", 1);
        qa_cache_publish(keeper, 0);
        qa_cache_close(keeper); /* the same again: it goes on */
        test_notices[0] = '\0';
        assert_int_equal(qa_cache_open(&options, &keeper), 0);
        assert_string_equal(test_notices, "");
        assert_int_equal(qa_cache_epoch(keeper), 1);
        assert_int_equal(qallow_cache_get(reader, "a", &file), 0);
    }
    qallow_cache_close(reader);
    qa_cache_close(keeper);
}

/* A limit may be raised, and lowered as long as what there is does not exceed it. */
static void another_limit(void **state)
{
    struct qa_cache *keeper = test_keeper(1 << 20);
    struct qallow_cache *reader = test_reader();
    char name[20];
    for (unsigned i = 0; i < 3000; i++) {
        snprintf(name, sizeof name, "%u", i);
        test_put(keeper, name, i + 1);
    }
    uint64_t memory = test_info(reader).memory;
    qa_cache_close(keeper);
    keeper = test_keeper(1 << 23);
    assert_string_equal(test_notices, "");
    assert_int_equal(test_info(reader).memory_limit, 1 << 23);
    qa_cache_close(keeper);
    keeper = test_keeper(memory);
    assert_string_equal(test_notices, "");
    assert_int_equal(qa_cache_count(keeper), 3000);
    qa_cache_close(keeper);
    keeper = test_keeper(memory - 1);
    assert_non_null(strstr(test_notices, "larger than allowed"));
    assert_int_equal(qa_cache_count(keeper), 0);
    qallow_cache_close(reader);
    qa_cache_close(keeper);
}

/* --- places --- */

/* In a child, so that what it does to itself stays its own: 0, or the line where it failed. */
static int in_child(int (*body)(void))
{
    int status;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        _exit(body());
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

enum { CANNOT = 255 };
#define EXPECT(condition)                                                                          \
    do                                                                                             \
        if (!(condition))                                                                          \
            return __LINE__ % 250 + 1;                                                             \
    while (0)

/* A file system of 1 MB: what fits is cached, the rest refused, and nobody gets SIGBUS. */
static int fill_file_system(void)
{
    struct qa_cache *keeper;
    struct qallow_cache *reader;
    struct qallow_file file;
    struct qa_cache_options options = test_options(64 << 20);
    char name[32], path[QA_SEGMENT_PATH];
    unsigned fit = 0;
    if (unshare(CLONE_NEWNS) < 0 || mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return CANNOT;
    snprintf(path, sizeof path, "%s/small", test_place);
    if (mkdir(path, 0700) < 0 || mount("none", path, "tmpfs", 0, "size=1m,mode=700") < 0)
        return CANNOT;
    setenv("QALLOW_CACHE_DIR", path, 1);
    EXPECT(qa_cache_open(&options, &keeper) == 0);
    EXPECT(strncmp(qa_cache_path(keeper), path, strlen(path)) == 0);
    EXPECT(qallow_cache_open(test_tree, &reader) == 0);
    for (unsigned i = 0; i < 20000; i++) {
        snprintf(name, sizeof name, "file-%u", i);
        struct qa_file put = test_file(name, i + 1);
        int result = qa_cache_put(keeper, name, &put, NULL);
        EXPECT(result == 1 || result == QALLOW_E_LIMIT);
        fit += result == 1;
    }
    EXPECT(fit > 3000 && fit < 9000);
    qa_cache_publish(keeper, 0);
    EXPECT(qallow_cache_get(reader, "file-17", &file) == 0);
    EXPECT(qallow_cache_get(reader, "file-19999", &file) == QALLOW_E_LIMIT);
    qa_cache_close(keeper);
    EXPECT(qa_cache_open(&options, &keeper) == 0); /* taken over as it is */
    EXPECT(qa_cache_count(keeper) == fit);
    qa_cache_close(keeper);
    qallow_cache_close(reader);
    return 0;
}

static void a_full_file_system(void **state)
{
    int result = in_child(fill_file_system);
    if (result == CANNOT)
        print_message("not allowed to mount: a full file system is not tried\n");
    else
        assert_int_equal(result, 0);
}

static int write_line(const char *path, const char *line)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : write(fd, line, strlen(line));
    if (fd >= 0)
        close(fd);
    return n == (ssize_t)strlen(line) ? 0 : -1;
}

/* Mounts of our own; who is not root gets them together with users of our own, of which there is
 * one: himself. */
static int own_namespaces(void)
{
    char users[40], groups[40];
    snprintf(users, sizeof users, "%u %u 1", (unsigned)geteuid(), (unsigned)geteuid());
    snprintf(groups, sizeof groups, "%u %u 1", (unsigned)getegid(), (unsigned)getegid());
    if (geteuid() == 0)
        return unshare(CLONE_NEWNS);
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0 || write_line("/proc/self/setgroups", "deny") < 0)
        return -1;
    return write_line("/proc/self/uid_map", users) < 0 ? -1
                                                       : write_line("/proc/self/gid_map", groups);
}

/* To whom permissions apply. */
static int become_ordinary(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};
    if (geteuid() == 0 && (setgid(65534) < 0 || setuid(65534) < 0))
        return -1;
    return (int)syscall(SYS_capset, &header, none);
}

/* In a child with mounts of its own: an empty /dev/shm, so that the user's caches are not swept.
 * The test's place, which may lie there, stays where it is. */
static int own_shared_memory(void)
{
    char shm[QA_SEGMENT_PATH], place[2 * QA_SEGMENT_PATH];
    snprintf(shm, sizeof shm, "%s/shm", test_place);
    snprintf(place, sizeof place, "%s/%s", shm, strrchr(test_place, '/') + 1);
    if (own_namespaces() < 0 || mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mkdir(shm, 0700) < 0 || mount("none", shm, "tmpfs", 0, "mode=1777") < 0 ||
        mkdir(place, 0755) < 0 || mount(test_place, place, NULL, MS_BIND, NULL) < 0)
        return -1;
    return mount(shm, "/dev/shm", NULL, MS_BIND | MS_REC, NULL);
}

static int open_too_small(void)
{
    struct qa_cache *keeper = NULL;
    struct qa_cache_options options = test_options(QA_CACHE_FIRST_BYTES - 1);
    if (own_shared_memory() < 0)
        return CANNOT;
    unsetenv("XDG_RUNTIME_DIR");
    EXPECT(qa_cache_open(&options, &keeper) == QALLOW_E_NO_SPACE);
    EXPECT(!keeper);
    return 0;
}

static void too_little_memory_from_the_start(void **state)
{
    struct qa_cache *keeper = NULL;
    struct qa_cache_options options = test_options(QA_MAP_BYTES + 1);
    assert_int_equal(qa_cache_open(&options, &keeper), QALLOW_E_LIMIT);
    assert_null(keeper);
    int result = in_child(open_too_small);
    if (result == CANNOT)
        print_message("not allowed to mount: too little memory is not tried\n");
    else
        assert_int_equal(result, 0);
}

/* Not even the first page fits: the next place is taken, and that is said. */
static int fill_before(void)
{
    struct qa_cache *keeper;
    struct qallow_cache *reader;
    struct qa_cache_options options = test_options(0);
    char path[QA_SEGMENT_PATH], filler[QA_SEGMENT_PATH + 10];
    if (own_shared_memory() < 0)
        return CANNOT;
    snprintf(path, sizeof path, "%s/full", test_place);
    if (mkdir(path, 0700) < 0 || mount("none", path, "tmpfs", 0, "size=64k,mode=700") < 0)
        return CANNOT;
    snprintf(filler, sizeof filler, "%s/filler", path);
    int fd = open(filler, O_CREAT | O_RDWR, 0600);
    EXPECT(fd >= 0 && posix_fallocate(fd, 0, 32768) == 0);
    setenv("QALLOW_CACHE_DIR", path, 1);
    EXPECT(qa_cache_open(&options, &keeper) == 0);
    EXPECT(strncmp(qa_cache_path(keeper), "/dev/shm/", 9) == 0);
    EXPECT(strstr(test_notices, "the cache is kept as /dev/shm/") != NULL);
    EXPECT(strstr(test_notices, "No space") != NULL);
    EXPECT(qallow_cache_open(test_tree, &reader) == 0);
    qallow_cache_close(reader);
    qa_cache_close(keeper);
    return 0;
}

static void the_next_place_is_taken(void **state)
{
    int result = in_child(fill_before);
    if (result == CANNOT)
        print_message("not allowed to mount: a full cache directory is not tried\n");
    else
        assert_int_equal(result, 0);
}

/* Somebody has put a file of that name into the first place, and the keeper took the next one. */
static int refuse_before(void)
{
    struct qa_cache *keeper;
    struct qa_cache_options options = test_options(0);
    struct qallow_cache *reader = NULL;
    char path[QA_SEGMENT_PATH], other[QA_SEGMENT_PATH];
    if (own_shared_memory() < 0)
        return CANNOT;
    EXPECT(unsetenv("QALLOW_CACHE_DIR") == 0);
    EXPECT(qa_cache_open(&options, &keeper) == 0);
    snprintf(path, sizeof path, "%s", qa_cache_path(keeper));
    EXPECT(strncmp(path, "/dev/shm/", 9) == 0);
    EXPECT(setenv("QALLOW_CACHE_DIR", test_place, 1) == 0);
    snprintf(other, sizeof other, "%.100s/%.100s", test_place, path + 9);
    int fd = open(other, O_CREAT | O_EXCL | O_WRONLY, 0644);
    EXPECT(fd >= 0 && fchmod(fd, 0644) == 0 && close(fd) == 0);
    EXPECT(qallow_cache_open(test_tree, &reader) == 0);
    EXPECT(strcmp(qa_cache_reader_path(reader), path) == 0);
    qallow_cache_close(reader);
    qa_cache_close(keeper);
    EXPECT(unlink(path) == 0); /* nor is there one in the next: it says why not in the first */
    EXPECT(qallow_cache_open(test_tree, &reader) == QALLOW_E_PERMISSION);
    EXPECT(strstr(qallow_error_detail(), "644") != NULL);
    return 0;
}

static void a_place_that_is_refused_hides_no_other(void **state)
{
    int result = in_child(refuse_before);
    if (result == CANNOT)
        print_message("not allowed to mount: a refused file before a cache is not tried\n");
    else
        assert_int_equal(result, 0);
}

/* As a user who may not write there. */
static int without_permission(void)
{
    struct qa_cache *keeper;
    struct qa_cache_options options = test_options(0);
    if (own_shared_memory() < 0 || become_ordinary() < 0)
        return CANNOT;
    EXPECT(qa_cache_open(&options, &keeper) == 0);
    EXPECT(strncmp(qa_cache_path(keeper), "/dev/shm/", 9) == 0);
    EXPECT(strstr(test_notices, "ermission denied") != NULL);
    qa_cache_close(keeper);
    return 0;
}

static void a_place_without_permission(void **state)
{
    char path[100];
    snprintf(path, sizeof path, "%s/closed", test_place);
    assert_int_equal(chmod(test_place, 0755), 0);
    assert_int_equal(mkdir(path, 0500), 0);
    assert_int_equal(setenv("QALLOW_CACHE_DIR", path, 1), 0);
    int result = in_child(without_permission);
    if (result == CANNOT)
        print_message("not allowed to become another user: not tried\n");
    else
        assert_int_equal(result, 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, test_make_place, test_remove_place)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(too_little_memory_from_the_start),
        CASE(files_of_others_are_refused),
        CASE(what_is_not_there),
        CASE(any_way_to_the_directory),
        CASE(another_history_is_another_cache),
        CASE(another_limit),
        CASE(a_full_file_system),
        CASE(the_next_place_is_taken),
        CASE(a_place_that_is_refused_hides_no_other),
        CASE(a_place_without_permission),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
