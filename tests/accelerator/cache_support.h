/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the cache have in common: a place for caches that is removed in the end, a
 * tree, and files whose every field follows from (path, version), so that a mixture of two shows.
 */
#ifndef TESTS_ACCELERATOR_CACHE_SUPPORT_H
#define TESTS_ACCELERATOR_CACHE_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h> /* needs the above */

#include "accelerator/cache_format.h"
#include "accelerator/cache_internal.h"
#include "accelerator/cache_reader.h"
#include "runtime/error.h"
#include "runtime/os.h"

static char test_place[64], test_tree[96], test_notices[4096];

static inline int test_make_place(void **state)
{
    snprintf(test_place, sizeof test_place, "/dev/shm/qallow-test-XXXXXX");
    if (!mkdtemp(test_place)) {
        snprintf(test_place, sizeof test_place, "/tmp/qallow-test-XXXXXX");
        if (!mkdtemp(test_place))
            return -1;
    }
    snprintf(test_tree, sizeof test_tree, "%s/tree", test_place);
    return mkdir(test_tree, 0700) || setenv("QALLOW_CACHE_DIR", test_place, 1);
}

static inline int test_remove_place(void **state)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", test_place);
    return system(command);
}

static inline void test_notice(void *context, const char *line)
{
    size_t length = strlen(test_notices);
    snprintf(test_notices + length, sizeof test_notices - length, "%s\n", line);
}

static inline struct qa_cache_options test_options(uint64_t max_bytes)
{
    struct stat st;
    assert_int_equal(stat(test_tree, &st), 0);
    test_notices[0] = '\0';
    return (struct qa_cache_options){.root = test_tree,
                                     .root_device = st.st_dev,
                                     .root_inode = st.st_ino,
                                     .hash = QALLOW_HASH_XXH3_128,
                                     .max_bytes = max_bytes,
                                     .notice = test_notice};
}

static inline struct qa_cache *test_keeper(uint64_t max_bytes)
{
    struct qa_cache *cache = NULL;
    struct qa_cache_options options = test_options(max_bytes);
    if (qa_cache_open(&options, &cache) != 0)
        fail_msg("%s", qallow_error_detail());
    return cache;
}

static inline struct qallow_cache *test_reader(void)
{
    struct qallow_cache *cache = NULL;
    if (qallow_cache_open(test_tree, &cache) != 0)
        fail_msg("%s", qallow_error_detail());
    return cache;
}

static inline uint64_t test_mix(const char *path, uint64_t version)
{
    return XXH3_64bits_withSeed(path, strlen(path), version);
}

static inline struct qa_file test_file(const char *path, uint64_t version)
{
    struct qa_file file = {.size = version % 5000, .state = QALLOW_FILE_CURRENT};
    uint64_t mix = test_mix(path, version), more = mix * 0x9e3779b97f4a7c15;
    file.device = mix % 7;
    file.inode = version;
    file.mtime_ns = (int64_t)(mix >> 2);
    file.ctime_ns = (int64_t)(mix >> 3);
    file.mode = mix & 0777;
    file.kind = version % 11 ? QALLOW_FILE_REGULAR : QALLOW_FILE_SYMLINK;
    memcpy(file.hash, &mix, 8);
    memcpy(file.hash + 8, &more, 8);
    return file;
}

/* Is this a file as test_file() makes them, of whatever version its inode says? */
static inline int test_is_consistent(const char *path, const struct qallow_file *file)
{
    struct qa_file wanted = test_file(path, file->inode);
    return file->size == wanted.size && file->mtime_ns == wanted.mtime_ns &&
           file->mode == wanted.mode && file->kind == wanted.kind &&
           memcmp(file->hash, wanted.hash, 32) == 0;
}

/* The bytes that test_put_content() gives a file: cut from a stream that (path, version) starts. */
static inline void test_content(const char *path, uint64_t version, uint8_t *bytes, size_t size)
{
    uint64_t word = test_mix(path, version);
    for (size_t i = 0; i < size; i++) {
        if (i % 8 == 0)
            word = word * 6364136223846793005u + 1442695040888963407u;
        bytes[i] = (uint8_t)(word >> (i % 8 * 8));
    }
}

static inline void test_put(struct qa_cache *keeper, const char *path, uint64_t version)
{
    struct qa_file file = test_file(path, version);
    assert_int_equal(qa_cache_put(keeper, path, &file, NULL), 1);
}

static inline struct qallow_cache_info test_info(struct qallow_cache *reader)
{
    struct qallow_cache_info info = QALLOW_CACHE_INFO_INIT;
    assert_int_equal(qallow_cache_info(reader, &info), 0);
    return info;
}

#endif
