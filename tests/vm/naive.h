/* SPDX-License-Identifier: Apache-2.0 */
/* A second machine for the tests, written from docs/vm.md alone: see naive.c. */
#ifndef TESTS_VM_NAIVE_H
#define TESTS_VM_NAIVE_H

#include "vm/program.h"

enum naive_stop {
    NAIVE_TICK,
    NAIVE_HALT,
    NAIVE_FUEL,
    NAIVE_PROGRAM,
    NAIVE_BOUNDS,
    NAIVE_STACK,
    NAIVE_EMITS,
    NAIVE_VECTOR
};

struct naive_call {
    uint32_t function, word;
    uint64_t base;
};
struct naive {
    const struct qv_program *program;
    uint8_t **bytes; /* of pages */
    uint64_t *sizes;
    uint64_t *stack;
    struct naive_call *calls;
    uint64_t depth, base, tick, random, fuel;
    uint32_t function, word;
    size_t emit_count;
    uint64_t *emit_values;
    uint32_t *emit_names, *emit_kinds;
};

struct naive *naive_create(const struct qv_program *program);
void naive_destroy(struct naive *naive);
/* Runs to the end of the tick, which has this much fuel. */
enum naive_stop naive_tick(struct naive *naive, uint64_t fuel);

/* What a wave of derived pages came to (naive_nodes.c). */
struct naive_derived {
    uint32_t page, function, word; /* if it failed: which one, and where its function stands */
    uint64_t *fuel;                /* that the last call for each page left */
    uint64_t *sizes;
    uint8_t **bytes; /* while it runs */
};
void naive_derived_create(const struct qv_program *program, struct naive_derived *derived);
void naive_derived_destroy(struct naive_derived *derived);
/* Computes all derived pages from the others, each call with this much fuel. NAIVE_HALT, or why the
 * first one failed, in topological order; then all pages are as they were. */
enum naive_stop naive_derive(struct naive *naive, uint64_t fuel, struct naive_derived *derived);

#endif
