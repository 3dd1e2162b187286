/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the generator share. */
#ifndef TESTS_VM_GENERATE_INTERNAL_H
#define TESTS_VM_GENERATE_INTERNAL_H

#include "tests/random.h"
#include "vm/program.h"

enum { GENERATED_REGISTERS = 9, GENERATED_FUNCTIONS = 32, GENERATED_NODES = 5 };

struct generator {
    uint64_t state;
    struct qv_program *program;
    struct qv_function *function;           /* whose code is made */
    unsigned first_register;                /* of those that random instructions use */
    int is_large;                           /* its pages are */
    uint32_t by_units[GENERATED_FUNCTIONS]; /* of functions: the page that they compute by units */
};

static inline uint64_t generate_below(struct generator *g, uint64_t n)
{
    return next_random(&g->state) % n;
}
void generate_word(struct generator *g, uint64_t word);
/* An instruction with random operands. */
void generate_scalar(struct generator *g, unsigned op);
/* What a function that only computes must not do. */
int generate_is_effect(unsigned op);
/* Derived pages and their functions, without code (generate_nodes.c). */
void generate_nodes(struct generator *g);
/* The code of a function that computes a page by units. */
void generate_units(struct generator *g, const struct qv_page *page);

#endif
