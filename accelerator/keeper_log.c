/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper's log: opening it, one epoch for each set of changes, and what is dropped in time.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "accelerator/keeper_internal.h"
#include "runtime/consumers.h"
#include "runtime/error.h"

enum { TORN_MAX = 16 }; /* captures that fail because names move, before the keeper gives up */

static void on_notice(void *context, const char *line)
{
    const struct qa_keeper *k = context;
    qa_keeper_say(k, "%s", line);
}

int qa_log_open(struct qa_keeper *k)
{
    struct qr_store_options store = k->options->store;
    store.writable = store.create = 1;
    store.notice = on_notice;
    store.notice_context = k;
    return qr_store_open(k->options->log, &store, &k->store);
}

static void on_new_directory(void *context, const char *path, int directory_fd)
{
    struct qa_keeper *k = context;
    if (k->watcher && qa_watcher_found(k->watcher, path) < 0)
        qa_dirty_mark_everything(k->dirty, qa_now_ns());
}

static void plan_sync(struct qa_keeper *k)
{
    if (k->options->store.sync == QR_SYNC_INTERVAL && !k->sync_at)
        k->sync_at = qa_now_ns() + (uint64_t)k->options->store.sync_interval_ms * MS;
}

int qa_log_take(struct qa_keeper *k, const struct qa_taken *taken, struct qs_capture *capture,
                int *torn)
{
    const struct qs_scope scope = {
        .paths = taken->everything ? NULL : (const char *const *)taken->paths,
        .path_count = taken->count,
        .unstable_path = qa_keeper_unstable,
        .new_directory = on_new_directory,
        .context = k,
    };
    int result = qs_capture(k->tree, &scope, capture);
    k->torn = qs_capture_is_torn(result) ? k->torn + 1 : 0;
    *torn = k->torn && k->torn < TORN_MAX;
    if (*torn) /* names that do not hold still, like files that do not */
        qa_keeper_say(k, "names changed while they were looked at, which is done again: %s",
                      qallow_error_detail());
    else if (result < 0)
        return result;
    if (capture->committed)
        plan_sync(k);
    return 0;
}

int qa_log_epoch(struct qa_keeper *k)
{
    struct qr_txn *txn;
    uint64_t epoch;
    int result = qr_txn_begin(k->store, &txn);
    if (result < 0)
        return result;
    qr_txn_insist(txn);
    result = qr_txn_commit(txn, &epoch);
    if (result == 0)
        plan_sync(k);
    return result;
}

/* Makes room if a limit is passed by an eighth, so that the work is spread over many epochs. */
int qa_log_retain(struct qa_keeper *k)
{
    const struct qa_retention *limits = &k->options->retention;
    struct qr_store_info info;
    struct qr_prune_plan plan = {0};
    uint64_t keep_from;
    int64_t now = qa_clock_ns();
    struct qa_retention due = {0};
    if (!limits->keep_bytes && !limits->keep_time_ns)
        return 0;
    qr_store_info(k->store, &info);
    uint64_t size = info.log_end - info.log_start;
    if (limits->keep_bytes && size > limits->keep_bytes + limits->keep_bytes / 8 &&
        size > k->prune_size)
        due.keep_bytes = limits->keep_bytes - limits->keep_bytes / 8;
    if (limits->keep_time_ns && now >= k->prune_time) {
        due.keep_time_ns = limits->keep_time_ns;
        k->prune_time = now + limits->keep_time_ns / 8;
    }
    if (!due.keep_bytes && !due.keep_time_ns)
        return 0;
    int result = qa_retention_keep_from(k->store, &due, now, &keep_from);
    struct qr_consumer who;
    uint64_t needed = UINT64_MAX;
    if (result == 0)
        result = qr_consumers_need(k->store, &needed, &who);
    keep_from = keep_from < needed ? keep_from : needed;
    if (result == 0 && keep_from > info.first_epoch)
        result = qr_store_prune(k->store, keep_from, 0, &plan);
    if (result < 0)
        return result;
    qr_store_info(k->store, &info); /* what is still needed may itself be over the limit */
    k->prune_size = info.log_end - info.log_start + limits->keep_bytes / 8;
    if (plan.first_epoch_after > plan.first_epoch_before)
        qa_keeper_say(k, "dropped epochs %llu to %llu: %llu bytes given back",
                      (unsigned long long)plan.first_epoch_before,
                      (unsigned long long)plan.first_epoch_after - 1,
                      (unsigned long long)plan.punched_bytes);
    if (plan.punch_errno && !k->no_punch_said) {
        k->no_punch_said = 1;
        qa_keeper_say(k, "%s: the space of dropped epochs is not given back: %s",
                      qr_quotez(k->options->log), strerror(plan.punch_errno));
    }
    return 0;
}
