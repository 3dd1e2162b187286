/* SPDX-License-Identifier: Apache-2.0 */
/* What nobody vouches for, given to the assembler, the verifier and the decoders; see hostile.c. */
#ifndef TESTS_VM_HOSTILE_H
#define TESTS_VM_HOSTILE_H

#include <stddef.h>
#include <stdint.h>

#include "vm/program.h"

/* Each returns 1 if the bytes were taken, 0 if they were refused with a detail; whatever was taken
 * has run for some ticks. Aborts if what is taken is not what it should be. */
int hostile_text(const char *text, size_t length);
int hostile_program(const struct qv_program *program);
int hostile_state(const struct qv_program *program, const uint8_t *bytes, size_t length);

#endif
