/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `qallow replay --follow --output`: a target that is brought to every new epoch.
 *
 * The new state is made beside the target and gets its name when it is whole, verified and on the
 * disk. Until then the old one stands, so nobody ever sees a part of an epoch, and a failure leaves
 * what was there. A target that is not what was put there is never replaced without --force: it
 * would be somebody's work. If more epochs have come meanwhile, only the newest is applied.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "interface/cmd_replay.h"
#include "runtime/consumers.h"
#include "sources/path.h"
#include "sources/tensor.h"
#include "telemetry/telemetry.h"

static void look(const char *path, struct replay_target *target)
{
    struct stat st;
    target->exists = lstat(path, &st) == 0;
    target->inode = target->exists ? st.st_ino : 0;
    target->size = target->exists ? (uint64_t)st.st_size : 0;
    target->ctime_ns = target->exists ? qs_ns(st.st_ctim) : 0;
}

static int is_as_left(const char *path, const struct replay_target *target)
{
    struct replay_target now = {.epoch = 0};
    look(path, &now);
    return now.exists && now.inode == target->inode && now.size == target->size &&
           now.ctime_ns == target->ctime_ns;
}

struct wanted {
    const char *name;
    uint64_t epoch;
};

static int find_epoch(void *context, const struct qr_consumer *consumer)
{
    struct wanted *wanted = context;
    if (strcmp(consumer->name, wanted->name) == 0)
        wanted->epoch = consumer->epoch;
    return 0;
}

/* Is the target this epoch? 1 or 0, or an error. */
static int is_epoch(const struct replay *replay, struct qr_store *store, uint64_t epoch)
{
    struct qr_state *state = NULL;
    if (qr_store_state_at(store, epoch, &state) < 0) /* pruned */
        return 0;
    int same = qs_tensors_same(store, state, replay->output, replay->threads);
    qr_state_destroy(state);
    return same;
}

/* Is the target what the consumer acknowledged last, or a later epoch? (It may have been killed
 * before it could say so.) 1 or 0, or an error. */
static int is_known(const struct replay *replay, struct qr_store *store,
                    struct replay_target *target)
{
    struct wanted wanted = {.name = replay->consumer};
    struct qr_store_info info;
    int same = qr_consumers_each(store, find_epoch, &wanted);

    qr_store_info(store, &info);
    target->acknowledged = target->epoch = wanted.epoch;
    if (same == 0 && wanted.epoch)
        same = is_epoch(replay, store, wanted.epoch);
    for (uint64_t epoch = info.last_epoch; same == 0 && epoch > wanted.epoch; epoch--) {
        same = is_epoch(replay, store, epoch);
        target->epoch = epoch;
    }
    return same;
}

int replay_apply_begin(const struct replay *replay, struct qr_store *store,
                       struct replay_target *target)
{
    *target = (struct replay_target){.epoch = 0};
    look(replay->output, target);
    if (!target->exists || replay->force)
        return 0;
    int same = replay->consumer ? is_known(replay, store, target) : 0;
    if (same < 0)
        return same;
    if (!same)
        return qr_fail(QALLOW_E_CANNOT_CREATE, "%s exists already, and is not %s; --force replaces "
                       "it", qr_quotez(replay->output),
                       replay->consumer ? "what this consumer acknowledged" : "known");
    return 0;
}

/* While somebody else does so, it cannot be done: the next look at the log does it. */
static int acknowledge(const struct replay *replay, struct qr_store *store,
                       struct replay_target *target)
{
    if (!replay->consumer || target->acknowledged == target->epoch)
        return 0;
    int rc = qr_consumer_acknowledge(store, replay->consumer, target->epoch);
    if (rc == 0)
        target->acknowledged = target->epoch;
    return rc == QALLOW_E_BUSY ? 0 : rc;
}

int replay_apply_new(struct qi_context *context, const struct replay *replay,
                     struct qr_store *store, struct replay_target *target)
{
    struct replay apply = *replay;
    struct qr_store_info info;
    int rc = 0;

    qr_store_info(store, &info);
    if (info.last_epoch == target->epoch)
        return acknowledge(replay, store, target);
    if (target->epoch && !replay->force && !is_as_left(replay->output, target))
        return qr_fail(QALLOW_E_CANNOT_CREATE, "%s is not what epoch %llu put there any more: "
                       "somebody else changed it; it is left as it is", qr_quotez(replay->output),
                       (unsigned long long)target->epoch);
    apply.force = target->exists;
    apply.replaces = target->epoch;
    rc = replay_restore(context, &apply, store, info.last_epoch);
    if (rc < 0 && target->epoch) {
        char detail[512];
        snprintf(detail, sizeof detail, "%s", qallow_error_detail());
        rc = qr_fail(rc, "%s stays at epoch %llu: %s", qr_quotez(replay->output),
                     (unsigned long long)target->epoch, detail);
    }
    if (rc < 0)
        return rc;
    qt_add(QT_TARGETS_APPLIED, 1);
    look(replay->output, target);
    target->epoch = info.last_epoch;
    return acknowledge(replay, store, target);
}
