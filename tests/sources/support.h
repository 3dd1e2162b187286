/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of trees share: a place to work in, logs, an independent comparison of trees. */
#ifndef TEST_SOURCES_SUPPORT_H
#define TEST_SOURCES_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "runtime/store.h"
#include "sources/tree.h"

/* xorshift; seeded from QALLOW_SEED or the clock, printed once. */
uint64_t test_seed(void);
uint64_t test_random(uint64_t below);

/* A new empty directory, the current one until test_leave, which removes it. */
void test_enter(void);
void test_leave(void);
/* Runs a shell command; fails the test if it fails. */
void test_run(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The exit status of a shell command. */
int test_status(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Writes a file of `size` random bytes. */
void test_fill(const char *path, size_t size);
void test_put(const char *path, const char *text);
uint64_t test_size(const char *path);
/* Waits until what was written so far is older than two clock ticks, so known as settled. */
void test_age(const char *path);

/* Fails unless both trees have the same entries, contents, modes, mtimes and link targets, as seen
 * by diff and find. */
void test_same_trees(const char *a, const char *b);
/* 1 or 0; no message. */
int test_trees_equal(const char *a, const char *b);

#define test_ok(call) test_check_ok((call), #call, __FILE__, __LINE__)
int test_check_ok(int rc, const char *call, const char *file, int line);

/* A store and a tree on it. */
struct recording {
    struct qr_store *store;
    struct qs_tree *tree;
    struct qs_capture found; /* of the last capture */
};
/* Opens "log.tlog" in the current directory for the tree `path`; options may be NULL. */
void recording_open(struct recording *recording, const char *log, const char *path,
                    const struct qs_tree_options *options);
void recording_close(struct recording *recording);
/* Captures all of it; returns the epoch. Checks the digest. */
uint64_t recording_capture(struct recording *recording);
/* Restores an epoch into a new directory. */
void recording_restore(struct recording *recording, uint64_t epoch, const char *target);
void recording_check_digest(struct recording *recording);

#endif
