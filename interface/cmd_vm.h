/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of `qallow vm` share. */
#ifndef QI_CMD_VM_H
#define QI_CMD_VM_H

#include "interface/options.h"
#include "interface/report.h"
#include "interface/watch_log.h"
#include "vm/follow.h"
#include "vm/session.h"

struct vm {
    const char *program, *log, *resume, *check, *patch, *explain, *telemetry, *follow;
    const char *trace, *trace_events, *stop_at;
    uint64_t epoch, ticks, fuel, seed, max_memory;
    struct qi_list inputs;
    int threads, clock, sync;
    int verify, disassemble, reference, counts, step, back, once;
    struct qi_uuid uuid;
};

/* 1 if somebody has asked to stop; for `interrupted` of machines and checks. */
int vm_interrupted(void *context);
/* Runs a program, or goes on with a log. */
int vm_run(struct qi_context *context, const struct vm *vm);
/* --trace, --break and --counts: what looks at a machine while it runs (cmd_vm_trace.c). */
struct vm_watch {
    struct qv_session *session;
    struct qv_machine *machine;
    void *trace; /* FILE */
    int trace_is_json;
    uint32_t what;           /* enum qallow_vm_what, that is written to the trace */
    const uint64_t *stop_at; /* in the machine's code, or NULL */
    int reached;
};
/* Whether places, events and files are what a run can begin with. */
int vm_watch_check(struct qi_context *context, const struct vm *vm,
                   const struct qv_machine *machine);
/* ARGUMENT: no such place; CANNOT_CREATE, IO. To be ended also on failure. */
int vm_watch_begin(struct qi_context *context, const struct vm *vm, struct qv_session *session,
                   struct vm_watch *watch);
int vm_watch_end(struct qi_context *context, struct vm_watch *watch);
/* --follow: where inputs come from, if not from files. */
struct vm_source {
    struct qv_session *session;
    struct qv_follow *follow; /* another log; or NULL */
    struct qi_log_watch watch;
    int waits; /* at the end of the log, for more */
    int reads; /* standard input */
    uint8_t *data;
    size_t capacity;
    uint64_t frames;
};
int vm_source_begin(const struct vm *vm, struct qv_session *session, const struct qv_input *inputs,
                    struct vm_source *source);
void vm_source_end(struct vm_source *source);
/* Before a tick: 1: what it shall see is there; 0: nothing comes any more. */
int vm_source_next(const struct qi_context *context, struct vm_source *source);

/* --telemetry */
struct vm_meter {
    struct qt_csv *csv; /* or NULL */
    int64_t written_at;
};
int vm_meter_begin(const char *path, struct vm_meter *meter);
void vm_meter_end(struct qi_context *context, struct vm_meter *meter);
/* One tick, timed if somebody wants to know. */
int vm_meter_tick(struct qi_context *context, struct vm_meter *meter, struct qv_session *session,
                  enum qv_stop *stop);
/* Says where a machine is: calls, registers, pages. */
int vm_print_state(struct qi_context *context, const struct qv_machine *machine, uint64_t epoch);

/* --step: commands from standard input. */
int vm_step(struct qi_context *context, const struct vm *vm, struct qv_session *session);
/* What a patch has done to the program. */
int vm_say_patched(struct qi_context *context, const struct qv_program *program,
                   const struct qv_patched *patched);
/* What the machine emitted in its last tick. */
int vm_say_emitted(struct qi_context *context, const struct qv_machine *machine);

/* --check */
int vm_check(struct qi_context *context, const struct vm *vm);
/* --explain */
int vm_explain(struct qi_context *context, const struct vm *vm);
/* --verify and --disassemble */
int vm_inspect(struct qi_context *context, const struct vm *vm);
/* --reference */
int vm_reference(void);
/* The state of the machine of a log in an epoch, for `qallow replay`. */
int vm_show(struct qi_context *context, const char *log, uint64_t epoch, uint64_t max_memory);

#endif
