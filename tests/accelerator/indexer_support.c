/* SPDX-License-Identifier: Apache-2.0 */
/* See indexer_support.h. Paths are walked one name at a time, with the plain calls for it. */
#include "tests/accelerator/indexer_support.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <xxhash.h>

#include "accelerator/watcher.h"

char test_place[64], test_tree[96];
int test_root = -1;

/* --- places and paths --- */

int test_make_place(void **state)
{
    snprintf(test_place, sizeof test_place, "/tmp/qallow-test-XXXXXX");
    if (!mkdtemp(test_place) || chmod(test_place, 0755) < 0)
        return -1;
    snprintf(test_tree, sizeof test_tree, "%s/cache", test_place);
    if (mkdir(test_tree, 0700) < 0 || setenv("QALLOW_CACHE_DIR", test_tree, 1) < 0)
        return -1;
    snprintf(test_tree, sizeof test_tree, "%s/tree", test_place);
    if (mkdir(test_tree, 0755) < 0)
        return -1;
    test_root = open(test_tree, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return test_root < 0 ? -1 : 0;
}

int test_remove_place(void **state)
{
    char command[192];
    close(test_root);
    snprintf(command, sizeof command, "chmod -R u+rwx '%s'; rm -rf '%s'", test_place, test_place);
    return system(command);
}

int test_parent(const char *path, const char **name)
{
    int at = dup(test_root);
    const char *slash;
    for (; at >= 0 && (slash = strchr(path, '/')) != NULL; path = slash + 1) {
        char part[NAME_MAX + 1] = {0};
        memcpy(part, path, (size_t)(slash - path));
        int next = openat(at, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        close(at);
        at = next;
    }
    *name = path;
    return at;
}

int test_open(const char *path, int flags, mode_t mode)
{
    const char *name;
    int parent = test_parent(path, &name);
    if (parent < 0)
        return -1;
    int fd = openat(parent, *name ? name : ".", flags | O_CLOEXEC, mode);
    close(parent);
    return fd;
}

void test_write(const char *path, const void *bytes, size_t size)
{
    int fd = test_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    assert_true(fd >= 0);
    for (size_t done = 0; done < size;) {
        ssize_t n = write(fd, (const char *)bytes + done, size - done);
        assert_true(n > 0);
        done += (size_t)n;
    }
    close(fd);
}

void test_put(const char *path, const char *text) { test_write(path, text, strlen(text)); }

void test_mkdir(const char *path)
{
    const char *name = path;
    int at = dup(test_root);
    while (*name) {
        char part[NAME_MAX + 1] = {0};
        size_t n = strcspn(name, "/");
        memcpy(part, name, n);
        assert_true(mkdirat(at, part, 0755) == 0 || errno == EEXIST);
        int next = openat(at, part, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        close(at);
        at = next;
        assert_true(at >= 0);
        name += n + (name[n] == '/');
    }
    close(at);
}

static void remove_at(int parent, const char *name)
{
    if (unlinkat(parent, name, 0) == 0 || (errno != EISDIR && errno != EPERM))
        return;
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    for (struct dirent *e; stream && (e = readdir(stream)) != NULL;)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            remove_at(fd, e->d_name);
    if (stream)
        closedir(stream);
    unlinkat(parent, name, AT_REMOVEDIR);
}

void test_remove(const char *path)
{
    const char *name;
    int parent = test_parent(path, &name);
    if (parent < 0)
        return;
    remove_at(parent, name);
    close(parent);
}

int test_rename(const char *from, const char *to)
{
    const char *from_name, *to_name;
    int a = test_parent(from, &from_name), b = test_parent(to, &to_name);
    int result = a < 0 || b < 0 ? -1 : renameat(a, from_name, b, to_name);
    if (a >= 0)
        close(a);
    if (b >= 0)
        close(b);
    return result;
}

int test_stat(const char *path, struct stat *st)
{
    const char *name;
    int parent = test_parent(path, &name);
    if (parent < 0)
        return -1;
    int result = fstatat(parent, name, st, AT_SYMLINK_NOFOLLOW);
    close(parent);
    return result;
}

void test_age(const char *path)
{
    struct stat st;
    struct timespec now;
    assert_int_equal(test_stat(path, &st), 0);
    do
        clock_gettime(CLOCK_REALTIME, &now);
    while ((now.tv_sec - st.st_ctim.tv_sec) * 1000000000L + now.tv_nsec - st.st_ctim.tv_nsec <
           25000000L);
}

/* --- the indexer --- */

static void hear(struct test_indexer *t, const char *path, const char *why)
{
    assert_true(t->said_count < sizeof t->said / sizeof t->said[0]);
    t->said[t->said_count].path = strdup(path);
    t->said[t->said_count++].why = why;
}

static void on_unstable(void *context, const char *path) { hear(context, path, "unstable"); }

static void on_unreadable(void *context, const char *path, const char *why)
{
    hear(context, path, why);
}

size_t test_said(const struct test_indexer *t, const char *path, const char *why)
{
    size_t times = 0;
    for (size_t i = 0; i < t->said_count; i++)
        times += strcmp(t->said[i].path, path) == 0 &&
                 (why && t->said[i].why ? strcmp(t->said[i].why, why) == 0 : why == t->said[i].why);
    return times;
}

void test_indexer_init(struct test_indexer *t, int threads)
{
    *t = (struct test_indexer){.options = {.root_fd = test_root,
                                           .threads = threads,
                                           .hash = QALLOW_HASH_XXH3_128,
                                           .unstable = on_unstable,
                                           .unreadable = on_unreadable,
                                           .context = t}};
}

static void expect_ok(int result)
{
    if (result < 0)
        fail_msg("%s: %s", qallow_strerror(result), qallow_error_detail());
}

void test_indexer_open(struct test_indexer *t)
{
    struct stat st;
    char *root = realpath(test_tree, NULL);
    assert_int_equal(fstat(test_root, &st), 0);
    const struct qa_cache_options options = {
        .root = root, .root_device = st.st_dev, .root_inode = st.st_ino, .hash = t->options.hash};
    expect_ok(qa_cache_open(&options, &t->cache));
    free(root);
    t->options.cache = t->cache;
    expect_ok(qa_indexer_create(&t->options, &t->indexer));
}

void test_indexer_close(struct test_indexer *t)
{
    qa_indexer_destroy(t->indexer);
    qa_cache_close(t->cache);
    for (size_t i = 0; i < t->said_count; i++)
        free(t->said[i].path);
    t->said_count = 0;
    t->indexer = NULL;
    t->cache = NULL;
}

void test_update_all(struct test_indexer *t)
{
    expect_ok(qa_indexer_update_all(t->indexer, NULL, &t->found));
    qa_cache_publish(t->cache, 0);
}

void test_update(struct test_indexer *t, const char *const *paths, size_t count)
{
    expect_ok(qa_indexer_update(t->indexer, paths, count, &t->found));
    qa_cache_publish(t->cache, 0);
}

void test_settle(struct test_indexer *t)
{
    while (qa_indexer_deadline(t->indexer) != UINT64_MAX)
        if (qa_indexer_deadline(t->indexer) <= qa_now_ns()) {
            expect_ok(qa_indexer_work(t->indexer, &t->found));
            assert_int_equal(t->found.changed, 0);
        }
}

/* --- the independent scan --- */

void test_hash(const void *bytes, size_t size, uint8_t hash[16])
{
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes, size));
    memcpy(hash, canonical.digest, 16);
}

static void hash_content(int parent, const char *name, struct test_entry *entry)
{
    size_t size = (size_t)entry->st.st_size;
    char *bytes = malloc(size + 1);
    assert_non_null(bytes);
    if (entry->kind == QALLOW_FILE_SYMLINK) {
        assert_int_equal(readlinkat(parent, name, bytes, size + 1), size);
    } else {
        int fd = openat(parent, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        assert_true(fd >= 0);
        for (size_t done = 0; done < size;) {
            ssize_t n = read(fd, bytes + done, size - done);
            assert_true(n > 0);
            done += (size_t)n;
        }
        close(fd);
    }
    test_hash(bytes, size, entry->hash);
    free(bytes);
}

static void scan_directory(struct test_scan *scan, int fd, const char *path, int with_hashes)
{
    DIR *stream = fdopendir(fd);
    assert_non_null(stream);
    for (struct dirent *e; (e = readdir(stream)) != NULL;) {
        struct test_entry entry = {0};
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        assert_int_equal(fstatat(fd, e->d_name, &entry.st, AT_SYMLINK_NOFOLLOW), 0);
        mode_t mode = entry.st.st_mode;
        entry.kind = S_ISREG(mode)   ? QALLOW_FILE_REGULAR
                     : S_ISLNK(mode) ? QALLOW_FILE_SYMLINK
                     : S_ISDIR(mode) ? 0
                                     : 255;
        size_t size = strlen(path) + strlen(e->d_name) + 2;
        entry.path = malloc(size);
        assert_non_null(entry.path);
        snprintf(entry.path, size, "%s%s%s", path, *path ? "/" : "", e->d_name);
        if (with_hashes && (entry.kind == 1 || entry.kind == 2))
            hash_content(fd, e->d_name, &entry);
        if (scan->count == scan->capacity) {
            scan->capacity = scan->capacity ? 2 * scan->capacity : 64;
            scan->entries = realloc(scan->entries, scan->capacity * sizeof entry);
            assert_non_null(scan->entries);
        }
        scan->entries[scan->count++] = entry;
        if (entry.kind == 0) {
            int below = openat(fd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            assert_true(below >= 0);
            scan_directory(scan, below, entry.path, with_hashes);
        }
    }
    closedir(stream);
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct test_entry *)a)->path, ((const struct test_entry *)b)->path);
}

void test_scan(struct test_scan *scan, int with_hashes)
{
    *scan = (struct test_scan){0};
    int fd = openat(test_root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    scan_directory(scan, fd, "", with_hashes);
    if (scan->count)
        qsort(scan->entries, scan->count, sizeof *scan->entries, by_path);
}

void test_scan_finish(struct test_scan *scan)
{
    for (size_t i = 0; i < scan->count; i++)
        free(scan->entries[i].path);
    free(scan->entries);
    *scan = (struct test_scan){0};
}

/* A path of a length that a person can read. */
static const char *shown(const char *path)
{
    static char text[160];
    snprintf(text, sizeof text, "%.100s (%zu bytes)", path, strlen(path));
    return text;
}

static void expect_entry(const struct test_indexer *t, const struct test_entry *wanted)
{
    struct qa_file file;
    if (!qa_cache_get(t->cache, wanted->path, &file))
        fail_msg("not cached: %s", shown(wanted->path));
    if (file.kind != wanted->kind || file.state != QALLOW_FILE_CURRENT)
        fail_msg("kind %d, state %d: %s", file.kind, file.state, shown(wanted->path));
    if (file.size != (uint64_t)wanted->st.st_size || memcmp(file.hash, wanted->hash, 16) != 0)
        fail_msg("another content, of %llu bytes for %lld: %s", (unsigned long long)file.size,
                 (long long)wanted->st.st_size, shown(wanted->path));
    if (file.inode != wanted->st.st_ino || file.mode != (wanted->st.st_mode & 07777) ||
        file.mtime_ns != wanted->st.st_mtim.tv_sec * 1000000000LL + wanted->st.st_mtim.tv_nsec)
        fail_msg("another inode, mode or mtime: %s", shown(wanted->path));
}

static int expect_in_scan(void *context, const char *path)
{
    const struct test_scan *scan = context;
    const struct test_entry key = {.path = (char *)(uintptr_t)path};
    const struct test_entry *entry =
        scan->count ? bsearch(&key, scan->entries, scan->count, sizeof key, by_path) : NULL;
    if (!entry || entry->kind == 0 || entry->kind == 255)
        fail_msg("cached, but there is no such file: %s", shown(path));
    return 0;
}

void test_same(const struct test_indexer *t)
{
    struct test_scan scan;
    size_t files = 0;
    test_scan(&scan, 1);
    for (size_t i = 0; i < scan.count; i++)
        if (scan.entries[i].kind == 1 || scan.entries[i].kind == 2) {
            expect_entry(t, &scan.entries[i]);
            files++;
        }
    assert_int_equal(qa_cache_below(t->cache, "", 0, expect_in_scan, &scan), 0);
    assert_int_equal(qa_cache_count(t->cache), files);
    test_scan_finish(&scan);
}

int test_is_cached(const struct test_indexer *t, const char *path)
{
    struct qa_file file;
    return qa_cache_get(t->cache, path, &file);
}

void test_expect(const struct test_indexer *t, const char *path, const char *text)
{
    struct qa_file file;
    uint8_t hash[16];
    if (!qa_cache_get(t->cache, path, &file))
        fail_msg("not cached: %s", path);
    test_hash(text, strlen(text), hash);
    assert_int_equal(file.state, QALLOW_FILE_CURRENT);
    assert_int_equal(file.size, strlen(text));
    assert_memory_equal(file.hash, hash, 16);
}
