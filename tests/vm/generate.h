/* SPDX-License-Identifier: Apache-2.0 */
/* Random programs that the verifier accepts. */
#ifndef TESTS_VM_GENERATE_H
#define TESTS_VM_GENERATE_H

#include "vm/program.h"

/* The same seed makes the same program. Destroyed with qv_program_destroy(). */
struct qv_program *generate_program(uint64_t seed);

#endif
