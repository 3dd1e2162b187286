/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the C API share. */
#ifndef TESTS_API_SUPPORT_H
#define TESTS_API_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "qallow/store.h"
#include "tests/random.h"

extern uint64_t seed; /* QALLOW_SEED */

/* The test's folder is made and its seed chosen; what to say if that fails is for the caller. */
int support_begin(void);
/* Removes the folder. */
int support_end(void);
/* A name in the folder; one of four buffers in turn. */
const char *path(const char *name);

#define assert_ok(call)                                                                            \
    do {                                                                                           \
        int result_ = (call);                                                                      \
        if (result_ != 0)                                                                          \
            fail_msg("%s: %s: %s", #call, qallow_strerror(result_), qallow_error_detail());        \
    } while (0)
/* Fails as expected, and says something about it. */
#define assert_result(call, expected)                                                              \
    do {                                                                                           \
        int result_ = (call);                                                                      \
        if (result_ != (expected))                                                                 \
            fail_msg("%s: %d (%s), expected %d", #call, result_, qallow_error_detail(), expected); \
        assert_true(qallow_error_detail()[0] != '\0');                                             \
    } while (0)

/* An empty log, open for writing, with a logical clock and without syncs. */
struct qallow_store *open_new(const char *name);
uint64_t create_page(struct qallow_txn *txn, const char *name, uint64_t parent,
                     enum qallow_kind kind);
/* One page "page" with these bytes, committed. */
uint64_t store_with_page(struct qallow_store *store, const void *bytes, size_t length);

extern const struct CMUnitTest error_tests[];
extern const size_t error_test_count;
extern const struct CMUnitTest stats_tests[];
extern const size_t stats_test_count;
extern const struct CMUnitTest memory_tests[];
extern const size_t memory_test_count;

#endif
