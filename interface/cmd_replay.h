/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of `qallow replay`. */
#ifndef QI_CMD_REPLAY_H
#define QI_CMD_REPLAY_H

#include "interface/epochs.h"

struct replay {
    const char *log;
    struct qi_epoch_choice choice;
    int list;
    const char *output, *in_place;
    int dry_run, undo, force;
    const char *page;
    const char *diff;
    int stat, patch;
    const char *log_of, *blame;
    int events;
    uint64_t types;
    int verify, from_scratch, plan, salvage, follow;
    int threads;
    uint64_t max_memory;
    const char *telemetry;
    const char *consumer;
    uint64_t replaces; /* the epoch that is at `output` now; 0: not known */
};

/* Each does one action and returns what `run` returns. */
int replay_list(struct qi_context *context, const struct replay *replay, struct qr_store *store);
int replay_follow(struct qi_context *context, const struct replay *replay, struct qr_store *store);
int replay_events(struct qi_context *context, const struct replay *replay, struct qr_store *store);
/* Of --type: names of types of events, as a set of bits. */
const char *replay_parse_types(const char *text, void *field);
int replay_plan(struct qi_context *context, const struct replay *replay, struct qr_store *store);
int replay_output(struct qi_context *context, const struct replay *replay, struct qr_store *store);
int replay_page(struct qi_context *context, const struct replay *replay, struct qr_store *store);
int replay_diff(struct qi_context *context, const struct replay *replay, struct qr_store *store);
int replay_log_of(struct qi_context *context, const struct replay *replay, struct qr_store *store);
int replay_blame(struct qi_context *context, const struct replay *replay, struct qr_store *store);
/* Restores this epoch to replay->output. */
int replay_restore(struct qi_context *context, const struct replay *replay, struct qr_store *store,
                   uint64_t epoch);
/* Streams a page's content to a file (from its beginning), or to stdout (fd < 0). */
int replay_copy_content(struct qr_reader *reader, const struct qr_page *page, int fd,
                        const char *name);
/* What --follow --output keeps: the epoch that was put there (0: none yet), the one that was
 * acknowledged, and how the target looked. */
struct replay_target {
    uint64_t epoch, acknowledged;
    int exists;
    uint64_t inode, size;
    int64_t ctime_ns;
};
/* May the target be replaced? CANNOT_CREATE. */
int replay_apply_begin(const struct replay *replay, struct qr_store *store,
                       struct replay_target *target);
/* Brings it to the newest epoch. */
int replay_apply_new(struct qi_context *context, const struct replay *replay,
                     struct qr_store *store, struct replay_target *target);
/* These open the log themselves. */
int replay_in_place(struct qi_context *context, const struct replay *replay);
int replay_verify(struct qi_context *context, const struct replay *replay);

/* What was restored, as a line or an object. `saved`: the epoch that holds what was there before; 0
 * if nothing was. */
struct qs_restore_result;
int replay_say_restored(const struct qi_context *context, uint64_t epoch, uint64_t saved,
                        const char *target, const struct qs_restore_result *result);

#endif
