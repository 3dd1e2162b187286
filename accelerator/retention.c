/* SPDX-License-Identifier: Apache-2.0 */
/* Retention, see retention.h. Epochs lie in the log in order, so each limit is a binary search. */
#include "accelerator/retention.h"

/* The oldest epoch in [first, last] whose frames and everything behind them fit into `bytes`. */
static int oldest_that_fits(struct qr_store *store, const struct qr_store_info *info,
                            uint64_t bytes, uint64_t *oldest)
{
    uint64_t low = info->first_epoch, high = info->last_epoch;
    while (low < high) {
        struct qr_epoch epoch;
        uint64_t middle = low + (high - low) / 2;
        int result = qr_store_epoch(store, middle, &epoch);
        if (result < 0)
            return result;
        if (info->log_end - epoch.frame_start <= bytes)
            high = middle;
        else
            low = middle + 1;
    }
    *oldest = low;
    return 0;
}

int qa_retention_keep_from(struct qr_store *store, const struct qa_retention *retention,
                           int64_t now_ns, uint64_t *keep_from)
{
    struct qr_store_info info;
    qr_store_info(store, &info);
    uint64_t from = info.last_epoch ? info.first_epoch : 0, other;
    int result = 0;
    if (info.last_epoch == 0)
        goto out;
    if (retention->keep_epochs && info.last_epoch - from >= retention->keep_epochs)
        from = info.last_epoch - retention->keep_epochs + 1;
    if (retention->keep_time_ns) {
        result = qr_store_epoch_at_time(store, now_ns - retention->keep_time_ns, &other);
        if (result == QALLOW_E_EPOCH_NOT_FOUND) /* nothing is as old as that */
            result = 0;
        else if (result == 0 && other > from)
            from = other;
    }
    if (result == 0 && retention->keep_bytes &&
        info.log_end - info.log_start > retention->keep_bytes) {
        result = oldest_that_fits(store, &info, retention->keep_bytes, &other);
        if (result == 0 && other > from)
            from = other;
    }
out:
    *keep_from = from;
    return result;
}
