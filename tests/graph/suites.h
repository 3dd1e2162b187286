/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of the test of the dependency graph. */
#ifndef TESTS_GRAPH_SUITES_H
#define TESTS_GRAPH_SUITES_H

#include "tests/graph/support.h"

extern const struct CMUnitTest access_tests[], order_tests[], failure_tests[];
extern const size_t access_test_count, order_test_count, failure_test_count;

#endif
