/* SPDX-License-Identifier: Apache-2.0 */
/* A child process that a peer is driven through. It dies with us, whatever ends us. */
#ifndef QM_PROCESS_H
#define QM_PROCESS_H

#include <stddef.h>
#include <sys/types.h>

struct qm_process {
    pid_t pid;   /* 0: none */
    int in, out; /* its standard input and output; -1: closed */
};

/* Starts argv[0] (a path) in `directory`; stderr goes nowhere. UNAVAILABLE if it cannot run is only
 * seen when talking to it. IO. */
int qm_process_start(const char *const *argv, const char *directory, struct qm_process *process);
/* Everything, or IO. */
int qm_process_write(struct qm_process *process, const void *bytes, size_t length);
int qm_process_read(struct qm_process *process, void *bytes, size_t length);
/* Closes its input and waits for its end: 0, or UNAVAILABLE if it ended in any other way than with
 * status 0. */
int qm_process_wait(struct qm_process *process);
/* Ends it, whatever it is doing; legal on a zeroed one. */
void qm_process_kill(struct qm_process *process);

#endif
