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

#endif
