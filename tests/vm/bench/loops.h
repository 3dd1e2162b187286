/* SPDX-License-Identifier: Apache-2.0 */
/* What a C programmer would write instead of a vector instruction; loops.c is compiled for this
 * processor (-O3 -march=native). */
#ifndef TESTS_VM_BENCH_LOOPS_H
#define TESTS_VM_BENCH_LOOPS_H

#include <stddef.h>
#include <stdint.h>

struct loop {
    const char *name;        /* of what is measured */
    const char *instruction; /* over pages d, a, b, m, x and register r0 */
    unsigned bytes;          /* read and written for an element */
    unsigned element;        /* bytes of one */
    void (*run)(void *d, const void *a, const void *b, const void *m, size_t n);
};
extern const struct loop loops[];
extern const size_t loop_count;
extern volatile double loop_sink;

#endif
