/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs the user's command after each epoch: one at a time; epochs that come while it runs give one
 * more run, not one each. One thread.
 */
#ifndef QA_RUNNER_H
#define QA_RUNNER_H

#include <stdint.h>

struct qa_runner;

/* `command` is for `sh -c`; it gets QALLOW_EPOCH, QALLOW_SINCE (the epoch of the run before, to ask
 * what has changed since) and QALLOW_ROOT. Its standard input is empty. `notice` gets a line when
 * it cannot be started or fails. NO_MEMORY. */
int qa_runner_create(const char *command, const char *root,
                     void (*notice)(void *context, const char *line), void *context,
                     struct qa_runner **runner);
/* Ends a run that is under way: SIGTERM to its process group, and SIGKILL after five seconds. NULL
 * is legal. */
void qa_runner_destroy(struct qa_runner *runner);

/* There is an epoch: runs now, or when the present run has ended. */
void qa_runner_epoch(struct qa_runner *runner, uint64_t epoch);
/* Readable when the present run has ended; -1: none runs. */
int qa_runner_fd(const struct qa_runner *runner);
/* To be called then. */
void qa_runner_reap(struct qa_runner *runner);

#endif
