/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine: programs whose whole state is pages (docs/vm.md has the language).
 *
 * A machine runs in *ticks*. With a log every tick is an epoch, from any of which a machine can be
 * made again, here or with `qallow vm --resume`; qallow/store.h reads what such a log holds.
 *
 *     struct qallow_vm_options options = QALLOW_VM_OPTIONS_INIT;
 *     struct qallow_vm_turn turn = QALLOW_VM_TURN_INIT;
 *     options.log = "run.tlog";
 *     qallow_vm_create(text, strlen(text), "sieve.qvm", &options, &vm);
 *     do
 *         rc = qallow_vm_tick(vm, &turn);
 *     while (rc == 0 && turn.status == QALLOW_VM_DONE);
 *     qallow_vm_close(vm);
 *
 * It can be watched: a function of the caller is told of ticks, calls, derived pages and single
 * instructions, and calls are counted. What is not asked for costs nothing.
 *
 * Conventions are those of qallow/store.h. Threads: a machine may be used by one thread at a time.
 * Since: 0.1.0.
 */
#ifndef QALLOW_VM_H
#define QALLOW_VM_H

#include "qallow/store.h"

#ifdef __cplusplus
extern "C" {
#endif

struct qallow_vm;

/* --- making --- */

struct qallow_vm_input {
    const char *name; /* of the program's .input */
    const char *path; /* of a file with its elements */
};

struct qallow_vm_options {
    uint32_t size;
    uint32_t threads;                   /* for vector instructions on much data; 0: one */
    const char *log;                    /* a new log; NULL: none, or when resuming the same one */
    const struct qallow_options *store; /* of the log; `writable` and `create` do not count; NULL:
                                           as they are by default */
    const struct qallow_vm_input *inputs;
    uint64_t input_count;
    uint64_t seed;       /* of the random numbers of a new run */
    uint64_t fuel;       /* of a tick; 0: what the program says */
    uint64_t max_memory; /* LIMIT if the machine may take more bytes; 0: any amount. For logs that
                            nobody vouches for */
    uint64_t reserved[4];
};
#define QALLOW_VM_OPTIONS_INIT                                                                     \
    {                                                                                              \
        sizeof(struct qallow_vm_options), 0, NULL, NULL, NULL, 0, 0, 0, 0, { 0 }                   \
    }

/* A program before its first tick, from its text; `name` is for messages. *vm: freed by
 * qallow_vm_close. `options` may be NULL.
 * ARGUMENT: the text is wrong (the detail says where and what), or an input is missing, unknown or
 * does not fit; CANNOT_CREATE: the log exists; LIMIT, NO_INPUT, NO_MEMORY, IO, NO_SPACE. */
QALLOW_API int qallow_vm_create(const char *text, size_t length, const char *name,
                                const struct qallow_vm_options *options, struct qallow_vm **vm);
/* The machine of a log as it was in an epoch (0: the newest); everything that is read is verified.
 * From an older epoch it goes on in a new log, options->log. Inputs that are named are new, and an
 * epoch. NO_INPUT, EPOCH_NOT_FOUND, SERIALIZATION (it is not of a machine, or not valid), DAMAGED,
 * BUSY, ARGUMENT, LIMIT, NO_MEMORY, IO. */
QALLOW_API int qallow_vm_resume(const char *log, uint64_t epoch,
                                const struct qallow_vm_options *options, struct qallow_vm **vm);
/* Ends what is open, syncs the log, frees the handle also on failure. NULL is legal. IO, NO_SPACE.
 */
QALLOW_API int qallow_vm_close(struct qallow_vm *vm);

/* --- running --- */

enum qallow_vm_status {
    QALLOW_VM_DONE = 0,    /* the tick is over, another one can follow */
    QALLOW_VM_HALTED = 1,  /* the tick is over, and so is the program */
    QALLOW_VM_STOPPED = 2, /* who watches has stopped it, in the middle of the tick */
};

struct qallow_vm_turn {
    uint32_t size;
    uint32_t status; /* enum qallow_vm_status */
    uint64_t tick;   /* that it was, or is in; from 1 */
    uint64_t epoch;  /* of the log that the machine was in last; 0 without a log */
    uint64_t fuel;   /* used by all ticks that ended */
    uint64_t reserved[4];
};
#define QALLOW_VM_TURN_INIT                                                                        \
    {                                                                                              \
        sizeof(struct qallow_vm_turn), 0, 0, 0, 0, { 0 }                                           \
    }
/* Runs to the end of the tick, and records it. A tick that was stopped goes on. `turn` may be NULL.
 * STATE: the tick has failed (the detail says where and why), or the program has halted before;
 * LIMIT: no fuel is left. A tick that failed never was in the log; the machine can then only be
 * closed. IO, NO_SPACE. */
QALLOW_API int qallow_vm_tick(struct qallow_vm *vm, struct qallow_vm_turn *turn);

struct qallow_vm_patch {
    uint32_t size;
    uint32_t world;    /* that begins; the first one was 0 */
    uint32_t defined;  /* functions that are new or differ */
    uint32_t stale;    /* others that call one of them, over any number of calls */
    uint32_t removed;  /* functions that are no more */
    uint32_t kept;     /* old definitions, in which calls are in progress */
    uint64_t computed; /* derived pages */
    uint64_t epoch;    /* 0 without a log */
    uint64_t reserved[4];
};
#define QALLOW_VM_PATCH_INIT                                                                       \
    {                                                                                              \
        sizeof(struct qallow_vm_patch), 0, 0, 0, 0, 0, 0, 0, { 0 }                                 \
    }
/* Makes the program that of another text, and that an epoch; docs/vm.md, "Patching". `patch` may be
 * NULL. Counts go on under the names of the functions. ARGUMENT: the text is wrong or does not fit
 * the machine as it is, STATE: in the middle of a tick; then nothing has changed. LIMIT, NO_MEMORY,
 * IO, NO_SPACE. */
QALLOW_API int qallow_vm_patch(struct qallow_vm *vm, const char *text, size_t length,
                               const char *name, struct qallow_vm_patch *patch);

/* --- looking --- */

/* The content of a page or input of the program, until the machine is used again. PAGE_NOT_FOUND.
 */
QALLOW_API int qallow_vm_page(struct qallow_vm *vm, const char *name, const void **bytes,
                              uint64_t *size);
/* The store of the machine's log, to read from; NULL without a log. It belongs to the machine. */
QALLOW_API struct qallow_store *qallow_vm_store(struct qallow_vm *vm);

enum qallow_vm_kind { QALLOW_VM_SIGNED = 0, QALLOW_VM_UNSIGNED = 1, QALLOW_VM_FLOAT = 2 };
struct qallow_vm_value {
    uint32_t size;
    uint32_t kind;    /* enum qallow_vm_kind */
    const char *name; /* until the machine is used again */
    uint64_t bits;
    uint64_t reserved[4];
};
#define QALLOW_VM_VALUE_INIT                                                                       \
    {                                                                                              \
        sizeof(struct qallow_vm_value), 0, NULL, 0, { 0 }                                          \
    }
/* What the last tick emitted, from 0 on. LIMIT: no more. */
QALLOW_API int qallow_vm_emitted(struct qallow_vm *vm, uint64_t index,
                                 struct qallow_vm_value *value);

struct qallow_vm_function {
    uint32_t size;
    uint32_t age;     /* the world in which it was defined */
    uint32_t reached; /* the greatest age of what it calls, over any number of calls, and its own */
    uint32_t is_old;  /* an old definition, in which calls are in progress */
    const char *name; /* until the machine is used again */
    uint64_t calls;   /* by instructions, since qallow_vm_watch() began to count */
    uint64_t computed; /* calls to compute a derived page, since then */
    uint64_t reserved[4];
};
#define QALLOW_VM_FUNCTION_INIT                                                                    \
    {                                                                                              \
        sizeof(struct qallow_vm_function), 0, 0, 0, NULL, 0, 0, { 0 }                              \
    }
/* The functions of the program, from 0 on, old definitions last. LIMIT: no more. NO_MEMORY. */
QALLOW_API int qallow_vm_function(struct qallow_vm *vm, uint64_t index,
                                  struct qallow_vm_function *function);

/* --- watching --- */

enum qallow_vm_what {
    QALLOW_VM_ON_INSTRUCTION = 1, /* before each */
    QALLOW_VM_ON_CALL = 2,        /* a function has been called, and nothing of it has been done */
    QALLOW_VM_ON_RETURN = 4,      /* a function has ended; the machine is behind its call */
    QALLOW_VM_ON_NODE = 8,        /* a derived page will be computed */
    QALLOW_VM_ON_NODE_DONE = 16,  /* it has been */
    QALLOW_VM_ON_TICK = 32,       /* a tick begins */
    QALLOW_VM_ON_TICK_DONE = 64,  /* it has been recorded */
};

struct qallow_vm_event {
    uint32_t size;
    uint32_t what;        /* one of enum qallow_vm_what */
    uint64_t tick;        /* from 1; of derived pages the one that is over, 0 before the first */
    uint64_t epoch;       /* of the log that the machine was in last */
    const char *function; /* the one that is called, has ended, or computes; else where it is */
    const char *page;     /* the derived page; else NULL */
    uint32_t word,
        line;       /* where the machine is: after a return, behind the call. line 0: unknown */
    uint64_t depth; /* calls in progress */
    uint64_t fuel;  /* used by the tick so far */
    const void *internal;
    uint64_t reserved[4];
};

struct qallow_vm_watch {
    uint32_t size;
    uint32_t what;   /* enum qallow_vm_what, together */
    uint32_t counts; /* 1: calls are counted, for qallow_vm_function() */
    uint32_t reserved32;
    /* Called where it happens. It must not call the machine. Not 0 stops the tick there:
     * qallow_vm_tick returns, and the next one goes on; it means nothing when a tick is done and
     * while derived pages are computed. The event and its strings are valid during the call. */
    int (*tell)(void *context, const struct qallow_vm_event *event);
    void *context;
    uint64_t reserved[4];
};
#define QALLOW_VM_WATCH_INIT                                                                       \
    {                                                                                              \
        sizeof(struct qallow_vm_watch), 0, 0, 0, NULL, NULL, { 0 }                                 \
    }
/* Begins to watch instead of what was watched before; NULL: no more. Counting begins at 0 unless it
 * went on before. ARGUMENT, NO_MEMORY. */
QALLOW_API int qallow_vm_watch(struct qallow_vm *vm, const struct qallow_vm_watch *watch);
/* The instruction that an event of QALLOW_VM_ON_INSTRUCTION is about as text with a NUL, cut to
 * `size` bytes; "" of other events. For use during the call. ARGUMENT. */
QALLOW_API int qallow_vm_event_text(const struct qallow_vm_event *event, char *text, size_t size);

#ifdef __cplusplus
}
#endif
#endif
