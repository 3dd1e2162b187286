/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine: a verified program with its memory. It knows no log: vm/session.h puts it over one.
 * A machine runs in one thread; its vector instructions may use more.
 */
#ifndef QV_MACHINE_H
#define QV_MACHINE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "qallow/vm.h"
#include "vm/program.h"

/* Why the interpreter came back. */
enum qv_stop {
    QV_TICK_DONE,   /* the tick is over; the machine goes on behind the instruction */
    QV_HALTED,      /* the tick and the program are over */
    QV_HOOKED,      /* who watches asked for it; the machine goes on with the next instruction */
    QV_INTERRUPTED, /* `interrupted` asked for it; as above */
    /* the tick cannot be finished: */
    QV_OUT_OF_FUEL,
    QV_TRAP_PROGRAM, /* the instruction trap */
    QV_TRAP_BOUNDS,  /* an element that the page does not have */
    QV_TRAP_STACK,   /* too many calls within calls, or registers */
    QV_TRAP_EMITS,   /* more than QV_MAX_EMITS values in a tick */
    QV_TRAP_VECTOR,  /* ranges overlap, or a count or width is impossible */
    QV_STOPS
};
static inline int qv_is_failure(enum qv_stop stop) { return stop >= QV_OUT_OF_FUEL; }

enum { QV_BLOCK = 4096 }; /* bytes of a page that are marked as written to together */

struct qv_memory {
    uint8_t *bytes;
    uint64_t size;  /* of them */
    uint64_t count; /* elements of the declared type */
    uint8_t *dirty; /* for each block: 1 if it may have been written to since the last commit */
    const char *name;
};

struct qv_frame {
    const uint64_t *pc; /* behind the call */
    uint64_t base;      /* of the caller's registers in the stack */
};

struct qv_entry { /* a function, ready to be called */
    const uint64_t *code;
    uint32_t words, arguments, registers;
};

enum qv_emit_kind { QV_EMIT_I64, QV_EMIT_U64, QV_EMIT_F64 };
struct qv_emit {
    uint32_t name, kind;
    uint64_t value;
};

struct qv_pool;
struct qv_machine;

struct qv_count {    /* of a function */
    uint64_t calls;  /* by instructions */
    uint64_t called; /* to compute a derived page */
};

/* Who watches a machine. `tell` may look at the machine and change nothing in it; `which` is the
 * function that is called or has ended, or the page; `machine` is another one while it computes
 * derived pages. Not 0 stops the machine there, unless the tick has ended or it is that other one.
 */
struct qv_watch {
    uint32_t what; /* enum qallow_vm_what */
    int (*tell)(void *context, struct qv_machine *machine, uint32_t what, uint32_t which);
    void *context;
    struct qv_count *counts; /* of each function; NULL: nobody wants to know. The machine's */
};

struct qv_machine {
    const struct qv_program *program;
    struct qv_memory *pages;
    uint8_t *touched; /* for each page: 1 if a block of it is marked, or may be */
    struct qv_entry *entries;
    uint64_t *code; /* all functions, one after the other */
    uint64_t code_words;
    uint64_t *stack;
    struct qv_frame *frames;
    struct qv_emit *emits; /* of this tick */
    size_t emit_count;
    void *memory; /* stack, frames, emits and the bytes of pages */
    size_t memory_size;

    /* the state, beside pages and stack */
    const uint64_t *pc;
    uint64_t base;  /* of the present function's registers */
    uint64_t depth; /* frames in use */
    uint64_t tick;  /* that runs or comes next; from 1 */
    uint64_t random;
    uint64_t fuel_used; /* by all ticks that ended */
    int halted;

    int64_t fuel;                      /* that the interpreter has at hand */
    uint64_t fuel_reserve;             /* what is left of the tick's beside it */
    uint64_t fuel_limit;               /* of a tick */
    uint64_t node_fuel;                /* of a call of a derived page's function */
    uint64_t fuel_slice;               /* that the interpreter gets at a time */
    int (*interrupted)(void *context); /* asked between slices; may be NULL */
    void *interrupted_context;
    char detail[160]; /* what a vector instruction that failed says */
    struct qv_watch watch;
    int skip_watch; /* the next instruction has been told of */
    const struct qb_vectors *kernels;
    struct qv_pool *pool;         /* NULL: one thread */
    uint64_t parallel_from, part; /* bytes of a result from which threads are worth their waking,
                                     and that one of them takes at a time; tests make them small */
};

/* The bytes [from, end) of a page may have been written to. */
static inline void qv_touch(struct qv_machine *m, size_t page, uint64_t from, uint64_t end)
{
    uint64_t first = from / QV_BLOCK, last = (end - 1) / QV_BLOCK;
    if (from >= end)
        return;
    m->touched[page] = 1;
    if (first == last) /* most pages are small */
        m->pages[page].dirty[first] = 1;
    else
        memset(m->pages[page].dirty + first, 1, last - first + 1);
}
/* All of it, and its size. */
static inline void qv_touch_all(struct qv_machine *m, size_t page)
{
    qv_touch(m, page, 0, m->pages[page].size + 1);
}
/* The first page from `page` on that may have been written to; the number of pages if there is
 * none. Of a program of thousands of pages a tick may change a few. */
size_t qv_next_touched(const struct qv_machine *m, size_t page);
/* Nothing of it has been written to since. */
static inline void qv_clean(struct qv_machine *m, size_t page)
{
    m->touched[page] = 0;
    if (m->pages[page].size < QV_BLOCK)
        m->pages[page].dirty[0] = 0;
    else
        memset(m->pages[page].dirty, 0, m->pages[page].size / QV_BLOCK + 1);
}

/* A machine at the beginning of its program: pages as declared, inputs empty. `program` must have
 * been verified, and outlives it. NO_MEMORY. */
int qv_machine_create(const struct qv_program *program, struct qv_machine **machine);
void qv_machine_destroy(struct qv_machine *machine);
/* Vector instructions on much data take up to this many threads. */
int qv_machine_set_threads(struct qv_machine *machine, int threads);
/* Calls are counted from now on, from 0 unless they were before; or no more. NO_MEMORY. */
int qv_machine_count(struct qv_machine *machine, int wanted);

/* Gives a tick its fuel and forgets what the last one emitted. Then qv_run(), again after QV_HOOKED
 * and QV_INTERRUPTED. */
void qv_tick_begin(struct qv_machine *machine);
enum qv_stop qv_run(struct qv_machine *machine);

/* --- derived pages (nodes.c) --- */

struct qv_nodes;
struct qallow_store;
/* NULL in *nodes if the program has none. NO_MEMORY. */
int qv_nodes_create(struct qv_machine *machine, struct qv_nodes **nodes);
void qv_nodes_destroy(struct qv_nodes *nodes);
/* Brings all derived pages of the machine up to date with the others, as epoch `epoch` (not 0), and
 * marks what changed of them as written to. What may have changed of the others are the blocks
 * marked as written to. FUNCTION: one failed, or had not enough fuel; the detail names page,
 * function and line; INTERRUPTED. Then no page is derived anew, and the machine must not go on. */
int qv_nodes_update(struct qv_nodes *nodes, uint64_t epoch, int is_logged);
/* Derived pages have the same content in these pages of a log (by the numbers of the program): an
 * update that `is_logged` adds what it changes to the next transaction there. Once is enough. */
void qv_nodes_attach(struct qv_nodes *nodes, struct qallow_store *store, const uint64_t *page_ids);
/* Before the log is closed. */
void qv_nodes_detach(struct qv_nodes *nodes);
/* The pages of the machine come from somewhere else: computes what is derived and compares. That
 * they are there says that their functions came to an end, maybe with more fuel than this machine's
 * get, and in smaller parts: so fuel is not limited here; `interrupted` is asked. SERIALIZATION
 * with a detail that names the first that differs; INTERRUPTED. */
int qv_nodes_verify(struct qv_nodes *nodes, uint64_t epoch);
/* The pages of the machine are as functions of these nodes gave them, in another machine: only
 * those with is_stale[page] and what follows from what changes of them is computed. For nodes that
 * are new. */
int qv_nodes_adopt(struct qv_nodes *nodes, const uint8_t *is_stale);
struct qv_computed {
    uint64_t computed, equal, bytes; /* pages; those that were the same; bytes of them all */
};
/* Since they were made. Zeros without nodes. */
void qv_nodes_computed(const struct qv_nodes *nodes, struct qv_computed *computed);
/* The machine that runs the functions, and the graph; pages have the number of the program's, plus
 * 1. */
struct qv_machine *qv_nodes_machine(struct qv_nodes *nodes);
struct qallow_graph *qv_nodes_graph(struct qv_nodes *nodes);

/* The function and word of a place in the code. */
void qv_locate(const struct qv_machine *machine, const uint64_t *pc, uint32_t *function,
               uint32_t *word);
/* After a failure: "line 7, main: st.8 r1, flags[r2]: element 9 of 8". */
void qv_describe_stop(const struct qv_machine *machine, enum qv_stop stop, char *text, size_t size);

/* --- between the interpreter and the vector instructions --- */

/* Runs one; `words` are its two. 0, or why it cannot be done. */
int qv_vector_run(struct qv_machine *machine, uint64_t *registers, const uint64_t *words,
                  int64_t *fuel);
int qv_pool_create(int threads, struct qv_pool **pool);
void qv_pool_destroy(struct qv_pool *pool);
/* Calls run(context, part) for 0 <= part < parts, on all threads of the pool, this one too. */
void qv_pool_run(struct qv_pool *pool, void (*run)(void *context, size_t part), void *context,
                 size_t parts);

#endif
