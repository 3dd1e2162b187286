/* SPDX-License-Identifier: Apache-2.0 */
/* `qallow replay --list`, `--follow` and `--plan`: epochs as lines. */
#include <stdlib.h>
#include <string.h>

#include "interface/cmd_replay.h"
#include "interface/watch_log.h"

/* All labels, by epoch. */
struct labels {
    struct label {
        uint64_t epoch;
        char *name;
    } * items;
    size_t count, capacity;
};

static int add_label(void *context, const char *name, uint64_t epoch)
{
    struct labels *labels = context;

    if (QR_GROW(labels->items, labels->count, labels->capacity) < 0)
        return QALLOW_E_NO_MEMORY;
    size_t size = strlen(name) + 1;
    char *copy = qr_malloc(size);
    if (!copy)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for labels");
    memcpy(copy, name, size);
    labels->items[labels->count++] = (struct label){epoch, copy};
    return 0;
}

static int by_epoch(const void *x, const void *y)
{
    const struct label *a = x, *b = y;
    return a->epoch != b->epoch ? (a->epoch < b->epoch ? -1 : 1) : strcmp(a->name, b->name);
}

static void labels_finish(struct labels *labels)
{
    for (size_t i = 0; i < labels->count; i++)
        qr_free(labels->items[i].name);
    qr_free(labels->items);
    *labels = (struct labels){0};
}

static int labels_load(struct labels *labels, struct qr_store *store)
{
    labels_finish(labels);
    int rc = qr_store_each_label(store, add_label, labels);
    if (labels->count > 1)
        qsort(labels->items, labels->count, sizeof *labels->items, by_epoch);
    return rc;
}

/* Where the labels of an epoch begin. */
static size_t labels_at(const struct labels *labels, uint64_t epoch)
{
    size_t low = 0, high = labels->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (labels->items[middle].epoch < epoch)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int print_json(const struct qi_context *context, const struct qr_epoch *e,
                      const struct labels *labels)
{
    cJSON *object = qi_json_begin(context);
    cJSON *names = cJSON_CreateArray();

    qi_json_u64(object, "epoch", e->epoch);
    qi_json_time(object, "time", e->time_ns);
    qi_json_i64(object, "time_ns", e->time_ns);
    qi_json_u64(object, "pages", e->pages);
    qi_json_u64(object, "log_bytes", e->frame_end - e->frame_start);
    qi_json_hex(object, "digest", &e->digest, sizeof e->digest);
    for (size_t i = labels_at(labels, e->epoch);
         i < labels->count && labels->items[i].epoch == e->epoch; i++)
        cJSON_AddItemToArray(names, cJSON_CreateString(labels->items[i].name));
    cJSON_AddItemToObject(object, "labels", names);
    return qi_json_end(object);
}

static int print_epoch(const struct qi_context *context, const struct qr_epoch *e,
                       const struct labels *labels)
{
    char time[QI_TEXT_MAX], digest[QI_TEXT_MAX];

    if (context->json)
        return print_json(context, e, labels);
    printf("%8llu  %s %8llu %12llu  %s", (unsigned long long)e->epoch,
           qi_format_time(e->time_ns, time), (unsigned long long)e->pages,
           (unsigned long long)(e->frame_end - e->frame_start),
           qi_format_hex(&e->digest, sizeof e->digest, digest, sizeof digest));
    for (size_t i = labels_at(labels, e->epoch), first = i;
         i < labels->count && labels->items[i].epoch == e->epoch; i++)
        printf("%s%s", i == first ? "  " : ", ", labels->items[i].name);
    putchar('\n');
    return qi_stdout_check();
}

static void print_head(const struct qi_context *context)
{
    if (!context->json && !context->quiet)
        printf("%8s  %-30s %8s %12s  %-32s  %s\n", "EPOCH", "TIME", "PAGES", "LOG BYTES", "DIGEST",
               "LABELS");
}

static void say_lost(const struct qi_context *context, uint64_t from, uint64_t to)
{
    if (from == to - 1)
        qi_error(context, "lost to damage: epoch %llu", (unsigned long long)from);
    else
        qi_error(context, "lost to damage: epochs %llu to %llu", (unsigned long long)from,
                 (unsigned long long)to - 1);
}

/* Prints the epochs [from, to]; with `salvage` it says which are lost and goes on. */
static int print_range(const struct qi_context *context, struct qr_store *store, uint64_t from,
                       uint64_t to, const struct labels *labels, int salvage)
{
    uint64_t lost = 0; /* since this epoch */
    int rc = 0;
    for (uint64_t n = from; rc == 0 && n <= to; n++) {
        struct qr_epoch epoch;
        rc = qr_store_epoch(store, n, &epoch);
        if (rc == QALLOW_E_DAMAGED && salvage) {
            lost = lost ? lost : n;
            rc = 0;
            continue;
        }
        if (rc == 0 && lost)
            say_lost(context, lost, n);
        lost = 0;
        if (rc == 0)
            rc = print_epoch(context, &epoch, labels);
    }
    if (rc == 0 && lost)
        say_lost(context, lost, to + 1);
    return rc;
}

int replay_list(struct qi_context *context, const struct replay *replay, struct qr_store *store)
{
    struct labels labels = {0};
    struct qr_store_info info;
    uint64_t from, to;
    int rc = 0;

    qr_store_info(store, &info);
    from = info.first_epoch ? info.first_epoch : 1; /* nothing to list is no error */
    to = info.first_epoch ? info.last_epoch : 0;
    if (qi_epoch_chosen(context)) {
        rc = qi_choose_epoch(context, store, &replay->choice, &from);
        to = from;
    }
    if (rc == 0)
        rc = labels_load(&labels, store);
    if (rc == 0) {
        print_head(context);
        rc = print_range(context, store, from, to, &labels, replay->salvage);
    }
    labels_finish(&labels);
    return rc;
}

int replay_plan(struct qi_context *context, const struct replay *replay, struct qr_store *store)
{
    struct qr_seek_plan plan;
    uint64_t epoch;
    char size[QI_TEXT_MAX];
    int rc = qi_choose_epoch(context, store, &replay->choice, &epoch);

    if (rc == 0)
        rc = qr_store_plan(store, epoch, &plan);
    if (rc < 0)
        return rc;
    if (context->json) {
        cJSON *object = qi_json_begin(context);
        qi_json_u64(object, "epoch", epoch);
        qi_json_u64(object, "keyframe_epoch", plan.keyframe_epoch);
        qi_json_u64(object, "keyframe_bytes", plan.keyframe_bytes);
        qi_json_u64(object, "replay_epochs", plan.replay_epochs);
        qi_json_u64(object, "replay_bytes", plan.replay_bytes);
        return qi_json_end(object);
    }
    printf("epoch %llu:\n", (unsigned long long)epoch);
    if (plan.keyframe_epoch > 0)
        printf("  keyframe of epoch %llu, %s\n", (unsigned long long)plan.keyframe_epoch,
               qi_format_size(plan.keyframe_bytes, size));
    else
        printf("  from the beginning of the log\n");
    printf("  replay %llu epochs, %s\n", (unsigned long long)plan.replay_epochs,
           qi_format_size(plan.replay_bytes, size));
    return qi_stdout_check();
}

/* --- following --- */

/* Prints what has come since *next. */
static int print_new(const struct qi_context *context, struct qr_store *store, uint64_t *next)
{
    struct labels labels = {0};
    struct qr_store_info info;
    uint64_t lost = 0;
    int changed = 0;
    int rc = qr_store_refresh(store, &changed, &lost);

    if (rc < 0)
        return rc;
    if (lost != 0 && lost < *next) {
        qi_note(context, "epochs from %llu on were lost in a crash of the recorder",
                (unsigned long long)lost);
        *next = lost;
    }
    qr_store_info(store, &info);
    if (*next > info.last_epoch)
        return 0;
    rc = labels_load(&labels, store);
    if (rc == 0)
        rc = print_range(context, store, *next, info.last_epoch, &labels, 0);
    labels_finish(&labels);
    *next = info.last_epoch + 1;
    if (rc == 0)
        rc = qi_stdout_flush();
    return rc;
}

int replay_follow(struct qi_context *context, const struct replay *replay, struct qr_store *store)
{
    struct qr_store_info info;
    struct replay_target target;
    struct qi_log_watch watch;
    uint64_t next;
    int rc = qi_log_watch_begin(&watch, replay->log);

    qi_signals_catch();
    if (rc < 0)
        goto out;
    qr_store_info(store, &info);
    next = info.last_epoch + 1;
    if (qi_epoch_chosen(context)) {
        struct qr_epoch chosen;
        rc = qi_choose_epoch(context, store, &replay->choice, &next);
        if (rc == 0 && next > 0)
            rc = qr_store_epoch(store, next, &chosen);
        next++;
    }
    if (rc == 0 && replay->output)
        rc = replay_apply_begin(replay, store, &target);
    if (rc == 0)
        print_head(context);
    if (rc == 0)
        rc = qi_stdout_flush();
    while (rc == 0) {
        qi_log_watch_arm(&watch);
        rc = print_new(context, store, &next);
        if (rc == 0 && replay->output)
            rc = replay_apply_new(context, replay, store, &target);
        if (rc == 0) {
            rc = qi_log_watch_wait(context, &watch);
            if (rc == 0)
                break;
            rc = rc < 0 ? rc : 0;
        }
    }
out:
    qi_log_watch_end(&watch);
    return rc;
}
