/* SPDX-License-Identifier: Apache-2.0 */
/* What commands that read a log share: opening it, choosing an epoch, printing names and epochs. */
#ifndef QI_EPOCHS_H
#define QI_EPOCHS_H

#include <stdio.h>

#include "interface/options.h"
#include "interface/report.h"
#include "runtime/store.h"

/* An epoch as the user names it. Three fields of a command's struct in this order. */
struct qi_epoch_choice {
    uint64_t epoch;
    int64_t time_ns;
    const char *label;
};

/* Their rows in the option table; `type` has a member `choice` of the above. */
#define QI_EPOCH_OPTIONS(type, verb)                                                               \
    {.name = "epoch", .letter = 'e', .kind = QI_NUMBER, QI_FIELD(type, choice.epoch),              \
     .argument = "N", .group = "epoch", .help = verb " this epoch"},                               \
    {.name = "time", .kind = QI_TIME, QI_FIELD(type, choice.time_ns), .argument = "TIME",          \
     .group = "epoch", .help = verb " the newest epoch at or before this time (RFC 3339)"},        \
    {.name = "label", .kind = QI_TEXT, QI_FIELD(type, choice.label), .argument = "NAME",           \
     .group = "epoch", .help = verb " the epoch with this label"}

/* qr_store_open, for paths that users type: a directory is said to be one. */
int qi_open_store(const char *path, const struct qr_store_options *options,
                  struct qr_store **store);
/* Opens a log for reading; notices go to stderr. threads 0: as many as CPUs. `salvage`: step over a
 * damaged middle. */
int qi_open_log(const struct qi_context *context, const char *path, int threads,
                uint64_t max_memory, int salvage, struct qr_store **store);
/* Options for opening with notices on stderr; for those who write. */
struct qr_store_options qi_store_options(const struct qi_context *context, uint64_t max_memory);
/* 1 if --epoch, --time or --label was given. */
int qi_epoch_chosen(const struct qi_context *context);
/* The chosen epoch, or the newest if none was chosen. Whether there is an epoch of that number is
 * found by whoever uses it. EPOCH_NOT_FOUND: no such label, no epoch that old. */
int qi_choose_epoch(const struct qi_context *context, struct qr_store *store,
                    const struct qi_epoch_choice *choice, uint64_t *epoch);
/* An epoch as a word: a number, a label, or "" for the newest. */
int qi_epoch_of_word(struct qr_store *store, const char *word, size_t length, uint64_t *epoch);
/* A name on one line: control bytes and what is not UTF-8 as \xHH; never shortened. */
void qi_print_name(FILE *out, const char *name, size_t length);
/* Number of threads to use when the user gave none: the CPUs there are. */
int qi_default_threads(void);

#endif
