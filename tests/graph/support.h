/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the dependency graph share. */
#ifndef TESTS_GRAPH_SUPPORT_H
#define TESTS_GRAPH_SUPPORT_H

#include "qallow/graph.h"
#include "tests/api/support.h"

/* A function that counts its calls, and does what it is told. */
struct counted {
    int calls;
    uint64_t bytes;          /* of output asked for */
    uint64_t offset, length; /* of the last call */
    int fail;                /* returned instead of computing */
    qallow_function function;
};
int counted(void *context, struct qallow_call *call);

/* The sum of all bytes of all inputs as one u64 (whole inputs). */
int sum_bytes(void *context, struct qallow_call *call);
/* Byte i is the sum of byte i of all inputs, plus 1 (one byte for one). */
int add_bytes(void *context, struct qallow_call *call);
/* Whole inputs, one after the other. */
int concatenate(void *context, struct qallow_call *call);
/* Writes nothing: zeros. */
int do_nothing(void *context, struct qallow_call *call);

/* Opens a log that is there already. */
struct qallow_store *open_again(const char *name);
struct qallow_graph *new_graph(struct qallow_store *store);
/* A page in an epoch of its own. */
uint64_t add_page(struct qallow_store *store, const char *name, const void *bytes, size_t length);
/* One epoch that writes these bytes. */
void write_page(struct qallow_store *store, uint64_t page, uint64_t offset, const void *bytes,
                size_t length);
uint64_t page_size(struct qallow_store *store, uint64_t page);
uint64_t page_version(struct qallow_store *store, uint64_t page);
void assert_page(struct qallow_store *store, uint64_t page, const void *bytes, size_t length);

/* A node of `page` (0: volatile, by `name`) that reads all of `inputs`, up to a 0. */
uint64_t add_node(struct qallow_graph *graph, uint64_t page, const char *name,
                  struct counted *function, const uint64_t *inputs);
/* The options for it, with `dependencies` (8 at most) as room. */
void node_options(struct qallow_node_options *options, struct qallow_dependency *dependencies,
                  uint64_t page, const char *name, struct counted *function,
                  const uint64_t *inputs);
/* One input, byte for byte. */
uint64_t add_elementwise(struct qallow_graph *graph, uint64_t page, struct counted *function,
                         uint64_t input);
#define INPUTS(...) ((const uint64_t[]){__VA_ARGS__, 0})

#endif
