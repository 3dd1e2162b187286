/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A scripted random history of a store on a simulated disk, beside its model: what was committed,
 * what was acknowledged as durable, and what may or may not have happened when something failed.
 */
#ifndef SIM_HISTORY_H
#define SIM_HISTORY_H

#include "model.h"
#include "sim_os.h"

enum {
    HISTORY_EPOCHS = 512,
    HISTORY_LABELS = 4,
    HISTORY_CANDIDATES = 16,
    HISTORY_CONSUMERS = 3,
    HISTORY_TRIES = 16,
};
#define HISTORY_LOG "d/x.tlog"

/* What a consumer's entry may say: what it was when a change of it succeeded last, or anything it
 * was tried to be since then. HISTORY_NO_CONSUMER: there is none. */
#define HISTORY_NO_CONSUMER UINT64_MAX
struct history_consumer {
    uint64_t epoch;
    uint64_t tried[HISTORY_TRIES];
    size_t tries;
};

struct history {
    uint64_t seed, random;
    struct sim *sim;
    struct qr_store *store; /* NULL: closed */
    struct qr_store_options options;
    int exists;    /* the log's creation was acknowledged */
    int tolerant;  /* failures are injected: errors are legal */
    int may_break; /* allocations or reads fail */
    int keep_disk; /* no power failures: the disk with its failures stays */
    int big;       /* pages of more than a megabyte */
    struct model_state *epochs[HISTORY_EPOCHS]; /* [0] is the empty state */
    uint64_t last;                              /* newest epoch */
    uint64_t durable;                           /* newest epoch that no crash may take away */
    uint64_t first, first_next; /* oldest epoch; and after a prune that is under way or failed */
    /* Commits under way or failed: one of them may turn out to be epoch last + 1. */
    struct model_state *candidates[HISTORY_CANDIDATES];
    size_t candidate_count;
    /* Epoch of each label, 0: none; what it was when it was last durable; and everything it has
     * been set to, or tried to be, since then. */
    uint64_t labels[HISTORY_LABELS], labels_durable[HISTORY_LABELS];
    uint64_t labels_since[HISTORY_LABELS][HISTORY_EPOCHS];
    size_t label_changes[HISTORY_LABELS];
    struct history_consumer consumers[HISTORY_CONSUMERS];
    int crashed; /* and not opened since */
    int wrote;   /* the open store has something to sync when it is closed */
    unsigned notices, opens;
    int error; /* the newest error of the store in a tolerant history */
};

/* Says where in which history something is wrong, and ends the process: the disk's lock may be
 * held, and the next test would only say the same. */
_Noreturn void history_die(const struct history *history, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Set by whoever drives crashes, to be said by history_die. */
extern char history_where[200];

struct history *history_create(uint64_t seed);
void history_destroy(struct history *history); /* closes */
/* One random step. 0, or -1 when the history cannot go on (tolerant ones only). */
int history_step(struct history *history);
/* Opens the log if it is closed. 0, or -1. */
int history_open(struct history *history);
int history_close(struct history *history);

/* Opens the log on `disk` (an image of the history's, or its own while it is closed) and checks all
 * that must hold: it opens, holds a prefix of the epochs, none that was durable is missing, all
 * reachable epochs are as they were (thorough: each of them, else a few), labels too, what was cut
 * is in .bad, and opening again finds the same. Returns the newest epoch there. */
uint64_t history_check(struct history *history, struct sim *disk, int thorough);
/* Commits one more epoch to a checked disk, crashes it, and checks that it is there. */
void history_extend(struct history *history, struct sim *disk, uint64_t last, uint64_t seed);

#endif
