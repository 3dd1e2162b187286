/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What other processes ask the keeper for over its socket. A request that needs the barrier waits
 * in the keeper's list; the others are answered at once. docs/accelerator.md has the table.
 */
#include <string.h>
#include <unistd.h>

#include "accelerator/keeper_internal.h"
#include "runtime/error.h"
#include "telemetry/telemetry.h"

enum { DEFAULT_TIMEOUT_MS = 10000 };
#define SECOND (1000 * MS)
static const uint64_t stop_timeout_ns = 5000 * MS;

static const char *text_of(const cJSON *request, const char *name)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(request, name));
}

/* A whole number within what a double holds exactly; `fallback` if it is missing or is none. */
static uint64_t number_of(const cJSON *request, const char *name, uint64_t fallback)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(request, name);
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0) || item->valuedouble > 9e15)
        return fallback;
    return (uint64_t)item->valuedouble;
}

/* A time in units of `unit_ns` as nanoseconds; what is beyond them is for ever. */
static int64_t time_of(const cJSON *request, const char *name, uint64_t unit_ns, uint64_t fallback)
{
    uint64_t units = number_of(request, name, fallback);
    return units > INT64_MAX / unit_ns ? INT64_MAX : (int64_t)(units * unit_ns);
}

void qa_keeper_answer(struct qa_keeper *k, uint64_t client, cJSON *reply)
{
    if (client)
        qa_control_reply(k->control, client, reply);
    else
        cJSON_Delete(reply);
}

void qa_keeper_answer_failure(struct qa_keeper *k, uint64_t client, int result)
{
    qa_keeper_answer(k, client, qa_reply_failed(result, qallow_error_detail()));
}

void qa_keeper_answer_epoch(struct qa_keeper *k, uint64_t client)
{
    cJSON *reply = qa_reply_ok();
    cJSON_AddNumberToObject(reply, "epoch", (double)qa_keeper_epoch(k));
    qa_keeper_answer(k, client, reply);
}

static void add_number(cJSON *reply, const char *name, uint64_t value)
{
    cJSON_AddNumberToObject(reply, name, (double)value);
}

static void add_log_numbers(const struct qa_keeper *k, cJSON *reply)
{
    struct qr_store_info info;
    qr_store_info(k->store, &info);
    add_number(reply, "first_epoch", info.first_epoch);
    add_number(reply, "pages", qr_state_page_count(qr_store_state(k->store)));
    add_number(reply, "page_bytes", qr_state_bytes(qr_store_state(k->store)));
    add_number(reply, "log_bytes", info.log_end - info.log_start);
}

static void add_worker_numbers(const struct qa_keeper *k, cJSON *reply)
{
    uint64_t workers, busy = qa_index_busy_ns(k, &workers);
    add_number(reply, "cached_files", qa_cache_count(k->cache));
    add_number(reply, "worker_threads", workers);
    add_number(reply, "worker_busy_ms", busy / MS);
    cJSON_AddNumberToObject(reply, "worker_utilization_ratio",
                            qt_utilization(busy, workers * (qa_now_ns() - k->started)));
}

static void answer_status(struct qa_keeper *k, uint64_t client)
{
    struct qa_watcher_status watcher = {0};
    cJSON *reply = qa_reply_ok();
    if (k->watcher)
        qa_watcher_status(k->watcher, &watcher);
    cJSON_AddStringToObject(reply, "path", qr_quotez(k->options->path));
    cJSON_AddBoolToObject(reply, "settled", qa_dirty_is_empty(k->dirty));
    add_number(reply, "pid", (uint64_t)getpid());
    add_number(reply, "uptime_ms", (qa_now_ns() - k->started) / MS);
    add_number(reply, "epoch", qa_keeper_epoch(k));
    if (k->store)
        add_log_numbers(k, reply);
    if (k->cache)
        add_worker_numbers(k, reply);
    add_number(reply, "changed_paths", qa_dirty_count(k->dirty));
    add_number(reply, "skipped", qt_get(QT_FILES_SKIPPED));
    add_number(reply, "directories", watcher.directories);
    add_number(reply, "watches", watcher.watches);
    add_number(reply, "polled_directories", watcher.polled);
    add_number(reply, "events", watcher.events);
    add_number(reply, "overflows", watcher.overflows);
    add_number(reply, "rescans", watcher.rescans);
    qa_keeper_answer(k, client, reply);
}

static int no_log(void) { return qr_fail(QALLOW_E_ARGUMENT, "only a cache is kept here, no log"); }

static int prune(struct qa_keeper *k, uint64_t client, const cJSON *request)
{
    struct qr_prune_plan plan = {0};
    const struct qa_retention limits = {
        .keep_epochs = number_of(request, "keep_epochs", 0),
        .keep_time_ns = time_of(request, "keep_time_s", SECOND, 0),
        .keep_bytes = number_of(request, "keep_bytes", 0),
    };
    uint64_t keep_from, asked_from = number_of(request, "keep_from", 0);
    if (!k->store)
        return no_log();
    if (!asked_from && !limits.keep_epochs && !limits.keep_time_ns && !limits.keep_bytes)
        return qr_fail(QALLOW_E_ARGUMENT,
                       "prune needs keep_from, keep_epochs, keep_time_s or keep_bytes");
    int dry_run = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(request, "dry_run"));
    int result = qa_retention_keep_from(k->store, &limits, qa_clock_ns(), &keep_from);
    if (result == 0)
        result = qr_store_prune(k->store, asked_from > keep_from ? asked_from : keep_from, dry_run,
                                &plan);
    if (result < 0)
        return result;
    cJSON *reply = qa_reply_ok();
    cJSON_AddNumberToObject(reply, "first_epoch_before", (double)plan.first_epoch_before);
    cJSON_AddNumberToObject(reply, "first_epoch_after", (double)plan.first_epoch_after);
    cJSON_AddNumberToObject(reply, "punched_bytes", (double)plan.punched_bytes);
    cJSON_AddNumberToObject(reply, "relocated_bytes", (double)plan.relocated_bytes);
    cJSON_AddNumberToObject(reply, "punch_errno", plan.punch_errno);
    qa_keeper_answer(k, client, reply);
    return 0;
}

/* Names an epoch: the newest one after a barrier, or the one that is given, at once. */
static int label(struct qa_keeper *k, uint64_t client, const cJSON *request, uint64_t timeout)
{
    const char *name = text_of(request, "name");
    uint64_t epoch = number_of(request, "epoch", 0);
    if (!name)
        return qr_fail(QALLOW_E_ARGUMENT, "label needs a name");
    if (!k->store)
        return no_log();
    if (!epoch)
        return qa_keeper_add_barrier(k, client, QA_REQUEST_LABEL, timeout, name);
    int result = qr_store_label(k->store, name, epoch);
    if (result < 0)
        return result;
    cJSON *reply = qa_reply_ok();
    cJSON_AddNumberToObject(reply, "epoch", (double)epoch);
    qa_keeper_answer(k, client, reply);
    return 0;
}

void qa_keeper_on_request(void *context, uint64_t client, const cJSON *request)
{
    struct qa_keeper *k = context;
    const char *what = text_of(request, "request");
    uint64_t timeout = (uint64_t)time_of(request, "timeout_ms", MS, DEFAULT_TIMEOUT_MS);
    int result = 0;
    if (!what)
        result = qr_fail(QALLOW_E_ARGUMENT, "a request has a member \"request\"");
    else if (strcmp(what, "sync") == 0)
        result = qa_keeper_add_barrier(k, client, QA_REQUEST_SYNC, timeout, NULL);
    else if (strcmp(what, "label") == 0)
        result = label(k, client, request, timeout);
    else if (strcmp(what, "prune") == 0)
        result = prune(k, client, request);
    else if (strcmp(what, "status") == 0)
        answer_status(k, client);
    else if (strcmp(what, "stop") == 0)
        result = qa_keeper_add_barrier(k, client, QA_REQUEST_STOP, stop_timeout_ns, NULL);
    else
        result = qr_fail(QALLOW_E_ARGUMENT, "unknown request %s", qr_quotez(what));
    if (result < 0)
        qa_keeper_answer_failure(k, client, result);
}
