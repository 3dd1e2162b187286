/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The public API: statistics. What a state and its log amount to is asked of the store; what this
 * handle has done stands in the store's meter (runtime/meter.h). Both under `calls`, which a commit
 * holds while it changes them, but not while it waits for the disk in between.
 */
#include <string.h>

#include "runtime/api.h"
#include "runtime/meter.h"
#include "runtime/store_internal.h"

_Static_assert((int)QALLOW_ENCODING_STORED == (int)QR_OP_STORED, "encodings are operations");
_Static_assert((int)QALLOW_TENSOR == (int)QR_KIND_TENSOR, "kinds are kinds");

static void give_timing(const struct qt_histogram *histogram, struct qallow_timing *timing)
{
    *timing = (struct qallow_timing){
        .count = histogram->count,
        .total_ns = histogram->sum,
        .mean_ns = qt_histogram_mean(histogram),
        .p50_ns = qt_histogram_quantile(histogram, 500),
        .p90_ns = qt_histogram_quantile(histogram, 900),
        .p99_ns = qt_histogram_quantile(histogram, 990),
        .max_ns = histogram->max,
    };
}

static void give_meter(const struct qr_meter *meter, struct qallow_stats *out)
{
    const struct qr_apply_counts *counts = &meter->counts;

    for (size_t i = 0; i < QR_METER_OPERATIONS; i++)
        out->operations[i] = counts->operations[i];
    for (size_t i = 0; i < QR_METER_KINDS; i++) {
        out->deltas_of_kind[i] = counts->deltas[i];
        out->deltas += counts->deltas[i];
    }
    out->delta_bytes = counts->delta_bytes;
    out->delta_mean_bytes = out->deltas ? out->delta_bytes / out->deltas : 0;
    out->images = counts->images;
    give_timing(&meter->body, &out->apply);
    give_timing(&meter->delta, &out->apply_delta);
    give_timing(&meter->commit, &out->commit);
}

static void give_state(const struct qr_state *state, struct qallow_stats *out)
{
    out->pages = qr_state_page_count(state);
    out->page_bytes = qr_state_bytes(state);
    out->digest[0] = qr_state_digest(state).lo;
    out->digest[1] = qr_state_digest(state).hi;
    out->pages_at[QALLOW_CPU] = out->pages;
    out->held_bytes = state->held_bytes;
    out->held_limit = state->held_limit;
}

int qallow_stats_get(struct qallow_store *store, struct qallow_stats *stats)
{
    struct qallow_stats out = QALLOW_STATS_INIT;
    struct qr_store_info info;

    QR_CHECK_ARGUMENT(store != NULL && stats != NULL);
    pthread_mutex_lock(&store->calls);
    qr_store_info(store->store, &info);
    give_state(qr_store_state(store->store), &out);
    pthread_mutex_lock(&store->store->durable.lock);
    give_meter(qr_store_meter(store->store), &out);
    pthread_mutex_unlock(&store->store->durable.lock);
    pthread_mutex_unlock(&store->calls);
    memcpy(out.uuid, info.uuid, sizeof out.uuid);
    out.owner_pid = (uint32_t)info.owner_pid;
    out.first_epoch = info.first_epoch;
    out.last_epoch = info.last_epoch;
    out.log_bytes = info.log_end;
    out.allocated_bytes = info.allocated;
    out.keyframes = info.keyframes;
    return qr_api_give(stats, &out, sizeof out);
}

int qallow_stats_reset(struct qallow_store *store)
{
    QR_CHECK_ARGUMENT(store != NULL);
    pthread_mutex_lock(&store->calls);
    pthread_mutex_lock(&store->store->durable.lock);
    qr_meter_reset(qr_store_meter(store->store));
    pthread_mutex_unlock(&store->store->durable.lock);
    pthread_mutex_unlock(&store->calls);
    return 0;
}
