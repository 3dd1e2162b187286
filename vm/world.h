/* SPDX-License-Identifier: Apache-2.0 */
/*
 * World age: programs whose functions are defined anew while they run.
 *
 * A world is the set of definitions that calls lead to. A patch makes the next one: a function that
 * differs has the new world's number as its age, all others keep theirs. What a function *is* also
 * depends on what it calls, so the age of what it computes is the greatest age among all functions
 * it can reach; a function is stale in a patch if that has become the new world.
 *
 * A function that is defined anew while a call of it is in progress stays as NAME@AGE until no
 * frame returns into it; its own calls lead to the present definitions. It is a function of the
 * program like the others, behind them, and stands in the text below the line .world; so a text is
 * all there is to know of a program, also in the middle of a patch.
 */
#ifndef QV_WORLD_H
#define QV_WORLD_H

#include "vm/machine.h"

/* 1 if a definition says the same, whatever the programs' order of pages, functions and names. */
int qv_same_function(const struct qv_program *a, const struct qv_function *f,
                     const struct qv_program *b, const struct qv_function *g);
/* Sets the flags of the functions that a call is in progress of, which is none before the first
 * tick. */
void qv_in_progress(const struct qv_machine *machine, uint8_t *flags);
/* Of every function the greatest age among those it can reach, itself included. NO_MEMORY. */
int qv_reached_ages(const struct qv_program *program, uint32_t *ages);
/* A function of this age that `from` reaches, itself first, or -1; NO_MEMORY. */
int qv_find_reached(const struct qv_program *program, uint32_t from, uint32_t age);
/* `source` with what the machine keeps below .world: the ages of `program`, and those functions of
 * `from` for which `keep` is 1. *text: to be freed with qr_free(). NO_MEMORY, LIMIT. */
int qv_world_text(const char *source, size_t length, const struct qv_program *program,
                  const struct qv_program *from, const uint8_t *keep, char **text,
                  size_t *text_length);

#endif
