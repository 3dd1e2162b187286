/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of the indexer share: a tree and a cache of it in a place that is removed in the
 * end; ways to reach paths of any length; and an independent scan, which reads each file whole and
 * hashes it at once with the distribution's library.
 */
#ifndef TESTS_ACCELERATOR_INDEXER_SUPPORT_H
#define TESTS_ACCELERATOR_INDEXER_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h> /* needs the above */

#include "accelerator/indexer.h"

/* The tree is a directory called "tree" in the place. */
extern char test_place[64], test_tree[96];
extern int test_root; /* of the tree */
/* For cmocka: before and after each test. */
int test_make_place(void **state);
int test_remove_place(void **state);

/* --- paths of any length, relative to the root --- */
int test_open(const char *path, int flags, mode_t mode); /* -1 with errno */
/* The directory of a path, opened, and the last name in *name. */
int test_parent(const char *path, const char **name);
void test_write(const char *path, const void *bytes, size_t size); /* anew */
void test_put(const char *path, const char *text);
void test_mkdir(const char *path);  /* also those above it */
void test_remove(const char *path); /* and all below it */
int test_rename(const char *from, const char *to);
int test_stat(const char *path, struct stat *st);
/* Waits until a file is old enough to be sure of. */
void test_age(const char *path);

/* --- the indexer under test --- */
struct test_said {
    char *path;
    const char *why; /* as given to `unreadable`; "unstable" for the other callback */
};
struct test_indexer {
    struct qa_cache *cache;
    struct qa_indexer *indexer;
    struct qa_indexer_options options;
    struct qa_indexed found; /* by the last call */
    struct test_said said[64];
    size_t said_count;
};
/* Sets options that are as usual; the test may change them. */
void test_indexer_init(struct test_indexer *t, int threads);
void test_indexer_open(struct test_indexer *t); /* the cache as it was left, or a new one */
void test_indexer_close(struct test_indexer *t);
void test_update_all(struct test_indexer *t);
void test_update(struct test_indexer *t, const char *const *paths, size_t count);
#define test_look(t, ...)                                                                          \
    test_update((t), (const char *const[]){__VA_ARGS__},                                           \
                sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))
/* Waits until what was too young has been looked at again. */
void test_settle(struct test_indexer *t);
/* How often it was said of this path. */
size_t test_said(const struct test_indexer *t, const char *path, const char *why);

/* --- the independent scan --- */
struct test_entry {
    char *path;
    uint8_t kind; /* enum qallow_file_kind; 0: a directory, 255: something else */
    struct stat st;
    uint8_t hash[16]; /* only if asked for */
};
struct test_scan {
    struct test_entry *entries; /* in the order of their paths */
    size_t count, capacity;
};
void test_scan(struct test_scan *scan, int with_hashes);
void test_scan_finish(struct test_scan *scan);
/* Fails unless the cache has what the scan finds, all of it current, and nothing else. */
void test_same(const struct test_indexer *t);
void test_hash(const void *bytes, size_t size, uint8_t hash[16]);
/* Fails unless the entry is current and of this content. */
void test_expect(const struct test_indexer *t, const char *path, const char *text);
int test_is_cached(const struct test_indexer *t, const char *path);

#endif
