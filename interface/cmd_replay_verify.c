/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `qallow replay --verify`: first every frame of the file, then every epoch's digest from its
 * bytes. A log whose middle is damaged is opened as for salvage, to say which epochs and pages it
 * hurts.
 */
#include <string.h>

#include "interface/cmd_replay.h"
#include "runtime/query.h"

struct verify {
    const struct qi_context *context;
    cJSON *problems; /* --json */
    uint64_t bad_ranges, bad_bytes;
    uint64_t before; /* the last epoch seen in a good range */
};

static int on_range(void *context, const struct qr_range *range)
{
    struct verify *v = context;

    if (range->good) {
        v->before = range->last_epoch ? range->last_epoch : v->before;
        return 0;
    }
    v->bad_ranges++;
    v->bad_bytes += range->length;
    if (v->problems) {
        cJSON *problem = cJSON_CreateObject();
        qi_json_u64(problem, "after_epoch", v->before);
        qi_json_u64(problem, "offset", range->offset);
        qi_json_u64(problem, "length", range->length);
        cJSON_AddStringToObject(problem, "what", range->what);
        cJSON_AddItemToArray(v->problems, problem);
        return 0;
    }
    printf("bad: %llu bytes at offset %llu, after epoch %llu: %s\n",
           (unsigned long long)range->length, (unsigned long long)range->offset,
           (unsigned long long)v->before, range->what);
    return qi_stdout_check();
}

static void on_problem(void *context, uint64_t epoch, const char *page, const char *text)
{
    struct verify *v = context;

    if (v->problems) {
        cJSON *problem = cJSON_CreateObject();
        if (epoch)
            qi_json_u64(problem, "epoch", epoch);
        if (page)
            qi_json_path(problem, "page", page, strlen(page));
        cJSON_AddStringToObject(problem, "what", text);
        cJSON_AddItemToArray(v->problems, problem);
        return;
    }
    fputs("bad: ", stdout);
    if (epoch)
        printf("epoch %llu", (unsigned long long)epoch);
    if (page) {
        fputs(epoch ? ", page " : "page ", stdout);
        qi_print_name(stdout, page, strlen(page));
    }
    printf("%s%s\n", epoch || page ? ": " : "", text);
}

static int say(struct verify *v, const struct qr_verify_result *result, int damaged)
{
    char size[QI_TEXT_MAX];

    if (v->problems) {
        cJSON *object = qi_json_begin(v->context);
        cJSON_AddBoolToObject(object, "good", !damaged);
        qi_json_u64(object, "epochs_verified", result->epochs);
        qi_json_u64(object, "epochs_from_every_byte", result->full);
        qi_json_u64(object, "content_bytes_read", result->read_bytes);
        cJSON_AddItemToObject(object, "problems", v->problems);
        v->problems = NULL;
        return qi_json_end(object);
    }
    printf("%llu epochs verified, %llu of them from every byte; %s of content read; %s\n",
           (unsigned long long)result->epochs, (unsigned long long)result->full,
           qi_format_size(result->read_bytes, size),
           damaged ? "the log is damaged" : "nothing is damaged");
    return qi_stdout_check();
}

int replay_verify(struct qi_context *context, const struct replay *replay)
{
    struct verify v = {.context = context};
    struct qr_verify_result result = {0};
    struct qr_store *store = NULL;
    int rc, frames;

    if (context->json)
        v.problems = cJSON_CreateArray();
    frames = qr_log_verify(replay->log, NULL, replay->threads, replay->max_memory, on_range, &v);
    rc = frames == QALLOW_E_DAMAGED ? 0 : frames;
    if (rc == 0)
        rc = qi_open_log(context, replay->log, replay->threads, replay->max_memory,
                         frames == QALLOW_E_DAMAGED, &store);
    if (rc == 0)
        rc = qr_verify_history(store, replay->threads, replay->from_scratch, on_problem, &v,
                               &result);
    if (rc == 0 && frames == QALLOW_E_DAMAGED)
        rc = frames;
    if (rc == 0 || rc == QALLOW_E_DAMAGED) {
        int said = say(&v, &result, rc == QALLOW_E_DAMAGED);
        if (said < 0)
            rc = said;
        else if (rc == QALLOW_E_DAMAGED)
            rc = QI_DAMAGED; /* everything has been said */
    } else {
        rc = qi_report(context, rc);
    }
    cJSON_Delete(v.problems);
    if (store)
        qr_store_close(store);
    return rc;
}
