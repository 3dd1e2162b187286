/* SPDX-License-Identifier: Apache-2.0 */
/* A machine's registers, calls and counters as bytes, and back. The format stands in state.c. */
#ifndef QV_STATE_H
#define QV_STATE_H

#include "vm/machine.h"

/* Bytes of the state as it is. */
size_t qv_state_size(const struct qv_machine *machine);
void qv_state_encode(const struct qv_machine *machine, uint8_t *bytes);
/* Puts the machine into the state, after checking all of it: a machine that was given one cannot do
 * anything that a program that ran there could not. SERIALIZATION with a detail, NO_MEMORY; then
 * the machine must not run. */
int qv_state_decode(struct qv_machine *machine, const uint8_t *bytes, size_t length);
/* Replaces the number of each function in a state. */
void qv_state_renumber(uint8_t *bytes, const uint32_t *numbers);
/* The tick that comes next, and the fuel that all before it have used, from the first bytes. */
enum { QV_STATE_MOMENT = 40 };
void qv_state_moment(const uint8_t bytes[QV_STATE_MOMENT], uint64_t *tick, uint64_t *fuel_used);
/* What a log must not be believed beyond. */
size_t qv_state_limit(const struct qv_program *program);

/* A function as its page has it: bytes to be freed with qr_free(). NO_MEMORY. */
int qv_function_encode(const struct qv_function *function, uint8_t **bytes, size_t *length);
/* The reverse, without the name; to be verified with its program. SERIALIZATION, NO_MEMORY. */
int qv_function_decode(const uint8_t *bytes, size_t length, struct qv_function *function);

#endif
