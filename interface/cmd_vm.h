/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of `qallow vm` share. */
#ifndef QI_CMD_VM_H
#define QI_CMD_VM_H

#include "interface/options.h"
#include "interface/report.h"
#include "vm/session.h"

struct vm {
    const char *program, *log, *resume, *check;
    uint64_t epoch, ticks, fuel, seed;
    struct qi_list inputs;
    int threads, clock, sync;
    int verify, disassemble, reference;
    struct qi_uuid uuid;
};

/* Runs a program, or goes on with a log. */
int vm_run(struct qi_context *context, const struct vm *vm);
/* --check */
int vm_check(struct qi_context *context, const struct vm *vm);
/* --verify and --disassemble */
int vm_inspect(struct qi_context *context, const struct vm *vm);
/* --reference */
int vm_reference(void);
/* The state of the machine of a log in an epoch, for `qallow replay`. */
int vm_show(struct qi_context *context, const char *log, uint64_t epoch);

#endif
