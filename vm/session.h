/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine over a log: every tick is an epoch, and any epoch is a machine again.
 *
 * The pages of such a log:
 *   program.qvm   the text of the program
 *   code/NAME     each function (vm/state.c); what program.qvm assembles to. Empty: a function that
 *                 a patch has removed
 *   machine       registers, calls and counters (vm/state.c)
 *   emitted       what the last tick emitted: name 4, kind 4, value 8 bytes each
 *   data/NAME     each page and input of the program
 * Epoch 1 has them as they are before the first tick; then each tick is an epoch, and so is each
 * time inputs were changed or the program was patched (vm/session_patch.c).
 */
#ifndef QV_SESSION_H
#define QV_SESSION_H

#include "qallow/store.h"
#include "vm/machine.h"

/* What a machine that is read from a log takes at most, if nobody says otherwise. */
#define QV_LOG_MEMORY ((uint64_t)4 << 30)

struct qv_session;

struct qv_input {
    const char *name, *path;
};

/* A text that becomes the program of a machine that is resumed, before its inputs are changed. */
struct qv_patch {
    const char *text, *path; /* NULL: none */
    size_t length;
    struct qv_patched *patched;
};

struct qv_session_options {
    const char *log;             /* to write; NULL when resuming: the log that is resumed */
    struct qallow_options store; /* of a new log; writable and create are set here */
    const struct qv_input *inputs;
    size_t input_count;
    uint64_t seed;
    uint64_t fuel;       /* of a tick; 0: what the program says */
    uint64_t max_memory; /* LIMIT if the machine may take more; 0: any amount */
    int threads;
    int has_no_log;                    /* the machine alone, in memory */
    int (*interrupted)(void *context); /* asked now and then while functions run; may be NULL */
    void *interrupted_context;
    int inputs_come;               /* later (vm/follow.h): none is needed now */
    int follows;                   /* from another log */
    struct qv_source_error *error; /* of the program; may be NULL */
    struct qv_patch patch;         /* when resuming */
};

/* A program from its text, before its first tick. CANNOT_CREATE if the log exists; ARGUMENT: the
 * text (see *error), or an input that is missing, unknown or does not fit. */
int qv_session_create(const char *text, size_t length, const char *path,
                      const struct qv_session_options *options, struct qv_session **session);
/* A machine as it was in an epoch (0: the newest), everything that is read verified. From the
 * newest epoch it goes on in the same log, unless options->log names a new one; from an older one
 * it needs a new one, whose first epoch is the state and has the label "from UUID epoch N". */
int qv_session_resume(const char *log, uint64_t epoch, const struct qv_session_options *options,
                      struct qv_session **session);
/* Runs to the end of a tick and commits it; *epoch (may be NULL) is its epoch. A tick that cannot
 * be finished (qv_is_failure) leaves the log as it was; the session can only be closed then. STATE:
 * the machine has halted. INTERRUPTED: the tick was stopped; it never was. */
int qv_session_tick(struct qv_session *session, enum qv_stop *stop, uint64_t *epoch);
/* The same for a tick that a hook has stopped. */
int qv_session_continue(struct qv_session *session, enum qv_stop *stop, uint64_t *epoch);
/* Takes the machine back to an earlier epoch of its log, which stays as it is: what follows is run
 * again, but not recorded again. The machine may be another one afterwards (qv_session_machine).
 * EPOCH_NOT_FOUND, SERIALIZATION, DAMAGED, STATE (no log); then the machine must not run. */
int qv_session_rewind(struct qv_session *session, uint64_t epoch);
/* The same, to where the last tick began. EPOCH_NOT_FOUND: no tick before is in the log. */
int qv_session_back(struct qv_session *session);
/* Before a tick of a machine that was taken back: patches and inputs that the log has at this place
 * are there again. qv_session_tick() does it. The machine may be another one afterwards. */
int qv_session_catch_up(struct qv_session *session);
/* The epoch that the machine was in last; 0 without a log. */
uint64_t qv_session_epoch(const struct qv_session *session);
struct qv_check_options {
    int threads;
    uint64_t max_memory; /* as in qv_session_options */
    /* Both may be NULL. The check ends with INTERRUPTED when `interrupted` says 1. */
    void (*progress)(void *context, uint64_t done, uint64_t total);
    int (*interrupted)(void *context);
    void *context;
};
/* Runs everything in the log again, from the first epoch that is kept, and compares the digest of
 * each. A tick may use as much fuel as it did; functions of derived pages, which came to an end
 * then, any amount. DIFFERS with a detail. */
int qv_session_check(const char *log, const struct qv_check_options *options, uint64_t *epochs);

/* What a patch did. Which functions: those of the present program whose age is `world`, and those
 * that reach one of these (vm/world.h). */
struct qv_patched {
    uint32_t world;    /* 0: nothing was patched */
    uint32_t defined;  /* functions that are new or differ */
    uint32_t stale;    /* others that reach one of them */
    uint32_t gone;     /* functions that the new text does not have */
    uint32_t kept;     /* old definitions that are in progress */
    uint64_t epoch;    /* that the patch is; 0 without a log */
    uint64_t computed; /* derived pages: those of stale functions, and what follows from them */
};
/* Between two ticks, makes the program that of another text, and that an epoch. Pages keep what
 * they hold; the text must declare them all as they are, and may add some. ARGUMENT: the text (see
 * *error), or it does not fit the machine as it is; then nothing has changed. */
int qv_session_patch(struct qv_session *session, const char *text, size_t length, const char *path,
                     struct qv_source_error *error, struct qv_patched *patched);

/* A machine as it was in an epoch (0: the newest), or if the page was not computed in that, in the
 * last one that changed it. If it is derived, the machine's graph says why; otherwise the writer
 * does. Without a log to write. ARGUMENT: no such page. */
int qv_session_explain(const char *log, uint64_t epoch, const char *page, uint64_t max_memory,
                       struct qv_session **session);
/* The last instruction of the tick that has been explained which wrote to the page; no writes: none
 * did. */
struct qv_writer {
    const uint64_t *pc;
    uint64_t writes; /* instructions that did */
    char function[QV_MAX_FUNCTION_NAME + 1];
    uint32_t line; /* 0: unknown */
    char instruction[200];
};
struct qv_writer qv_session_writer(const struct qv_session *session, int page);
/* Whether the epoch it is in was a patch, made by this session. */
int qv_session_was_patched(const struct qv_session *session);
/* NULL: the program derives no pages. */
struct qv_nodes *qv_session_nodes(struct qv_session *session);
/* The event of which a watch was told (struct qv_watch). */
void qv_event_of(const struct qv_session *session, const struct qv_machine *machine, uint32_t what,
                 uint32_t which, struct qallow_vm_event *event);

struct qv_machine *qv_session_machine(struct qv_session *session);
/* NULL without a log. */
struct qallow_store *qv_session_store(struct qv_session *session);
int qv_session_close(struct qv_session *session);

/* 1 if the epoch of the log has the pages of a machine, 0 if not. */
int qv_is_session(const char *log, uint64_t epoch);
/* The state of a log's machine in an epoch, for reading: a session without a log to write. */
int qv_session_look(const char *log, uint64_t epoch, uint64_t max_memory,
                    struct qv_session **session);

#endif
