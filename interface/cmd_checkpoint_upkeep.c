/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `qallow checkpoint prune` and `label`: the two actions that change a log that is there. If a
 * recorder owns it, it is asked to do it.
 */
#include <string.h>

#include "accelerator/control_client.h"
#include "accelerator/retention.h"
#include "interface/cmd_checkpoint.h"
#include "interface/epochs.h"

/* --- asking the owner --- */

/* Sends `request` (freed) to the owner of the log; *reply is its answer, to be freed. */
static int ask_owner(const char *log, cJSON *request, cJSON **reply)
{
    char *text = cJSON_PrintUnformatted(request), *answer = NULL;
    int rc = text ? qa_control_request(log, text, &answer)
                  : qr_fail(QALLOW_E_NO_MEMORY, "no memory for a request");

    cJSON_free(text);
    cJSON_Delete(request);
    if (rc < 0)
        return rc;
    *reply = cJSON_Parse(answer);
    qr_free(answer);
    return *reply ? 0 : qr_fail(QALLOW_E_UNAVAILABLE, "the recorder's answer makes no sense");
}

static uint64_t number_in(const cJSON *reply, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(reply, name);
    return cJSON_IsNumber(item) && item->valuedouble > 0 ? (uint64_t)item->valuedouble : 0;
}

/* --- prune --- */

struct prune {
    const char *log;
    uint64_t keep_epochs, keep_bytes;
    int64_t keep_time;
    int dry_run;
};

#define FIELD(member) QI_FIELD(struct prune, member)

static const struct qi_option prune_options[] = {
    {.name = "LOG", .positional = true, .required = true, .kind = QI_TEXT, FIELD(log),
     .argument = "LOG", .help = "the log; a running recorder is asked to do it"},
    {.name = "keep-epochs", .kind = QI_NUMBER, FIELD(keep_epochs), .argument = "N", .minimum = 1,
     .help = "keep the newest N epochs"},
    {.name = "keep-time", .kind = QI_DURATION, FIELD(keep_time), .argument = "TIME", .minimum = 1,
     .help = "keep what is needed to go back this far, such as 30d"},
    {.name = "keep-bytes", .kind = QI_SIZE, FIELD(keep_bytes), .argument = "SIZE", .minimum = 1,
     .help = "keep the newest epochs that take no more than this in the log"},
    {.name = "dry-run", .letter = 'n', .kind = QI_FLAG, FIELD(dry_run),
     .help = "say what would go, change nothing"},
    {.name = NULL},
};

static int say_pruned(const struct qi_context *context, const struct qr_prune_plan *plan,
                      int dry_run)
{
    char size[QI_TEXT_MAX], again[QI_TEXT_MAX];

    if (context->json) {
        cJSON *object = qi_json_begin(context);
        cJSON_AddBoolToObject(object, "dry_run", dry_run);
        qi_json_u64(object, "first_epoch_before", plan->first_epoch_before);
        qi_json_u64(object, "first_epoch_after", plan->first_epoch_after);
        qi_json_u64(object, "punched_bytes", plan->punched_bytes);
        qi_json_u64(object, "relocated_bytes", plan->relocated_bytes);
        return qi_json_end(object);
    }
    if (plan->first_epoch_after <= plan->first_epoch_before) {
        printf("nothing to drop: the oldest epoch is %llu\n",
               (unsigned long long)plan->first_epoch_before);
        return qi_stdout_check();
    }
    printf("%s epochs %llu to %llu: %s freed, %s written again\n",
           dry_run ? "would drop" : "dropped", (unsigned long long)plan->first_epoch_before,
           (unsigned long long)plan->first_epoch_after - 1,
           qi_format_size(plan->punched_bytes, size), qi_format_size(plan->relocated_bytes, again));
    return qi_stdout_check();
}

/* The first epoch to keep. */
static int choose(struct qr_store *store, const struct prune *prune, uint64_t *keep_from)
{
    const struct qa_retention limits = {.keep_epochs = prune->keep_epochs,
                                        .keep_time_ns = prune->keep_time,
                                        .keep_bytes = prune->keep_bytes};
    return qa_retention_keep_from(store, &limits, qr_os_posix()->now_ns(NULL), keep_from);
}

/* The owner gets the decision as an epoch: what it records meanwhile does not shift the cut. */
static int prune_by_owner(const char *log, uint64_t keep_from, struct qr_prune_plan *plan)
{
    cJSON *request = cJSON_CreateObject(), *reply = NULL;
    int rc;

    cJSON_AddStringToObject(request, "request", "prune");
    qi_json_u64(request, "keep_from", keep_from);
    rc = ask_owner(log, request, &reply);
    if (rc < 0)
        return rc;
    plan->first_epoch_before = number_in(reply, "first_epoch_before");
    plan->first_epoch_after = number_in(reply, "first_epoch_after");
    plan->punched_bytes = number_in(reply, "punched_bytes");
    plan->relocated_bytes = number_in(reply, "relocated_bytes");
    plan->punch_errno = (int)number_in(reply, "punch_errno");
    cJSON_Delete(reply);
    return 0;
}

static int run_prune(struct qi_context *context, const void *values)
{
    const struct prune *prune = values;
    struct qr_store_options options = qi_store_options(context, 0);
    struct qr_prune_plan plan = {0};
    struct qr_store *store = NULL;
    uint64_t keep_from = 0;
    int rc, by_owner = 0, closed;

    if (!prune->keep_epochs && !prune->keep_time && !prune->keep_bytes)
        return qi_usage(context, "--keep-epochs N, --keep-time TIME or --keep-bytes SIZE");
    options.writable = !prune->dry_run;
    rc = qi_open_store(prune->log, &options, &store);
    if (rc == QALLOW_E_BUSY) {
        options.writable = 0;
        by_owner = 1;
        rc = qi_open_store(prune->log, &options, &store);
    }
    if (rc < 0)
        return rc;
    rc = choose(store, prune, &keep_from);
    if (rc == 0 && keep_from == 0)
        rc = qr_fail(QALLOW_E_EPOCH_NOT_FOUND, "%s: no epochs yet", qr_quotez(prune->log));
    if (rc == 0)
        rc = by_owner ? prune_by_owner(prune->log, keep_from, &plan)
                      : qr_store_prune(store, keep_from, prune->dry_run, &plan);
    if (rc == 0)
        rc = say_pruned(context, &plan, prune->dry_run);
    if (rc == 0 && plan.punch_errno)
        qi_error(context, "%s: the epochs are dropped, but their space was not given back: %s",
                 qr_quotez(prune->log), strerror(plan.punch_errno));
    if (rc < 0)
        rc = qi_report(context, rc);
    closed = qr_store_close(store);
    return rc == 0 ? closed : rc;
}

#undef FIELD

const struct qi_command qi_checkpoint_prune = {
    .name = "prune",
    .summary = "drop old epochs from a log",
    .description = "Drops the epochs that exceed any of the given limits; the newest always "
                   "stays. Content that later epochs still need is kept. The space goes back to "
                   "the file system; the file's length stays.",
    .options = prune_options,
    .values_size = sizeof(struct prune),
    .run = run_prune,
    .examples = (const struct qi_example[]){
        {"qallow checkpoint prune work.tlog --keep-time 30d --dry-run", "what would go"},
        {"qallow checkpoint prune work.tlog --keep-epochs 1000", "keep the newest thousand"},
        {0}},
    .exits = (const struct qi_exit[]){{0, NULL}, {65, NULL}, {66, NULL}, {69, NULL}, {74, NULL},
                                      {75, NULL}, {77, NULL}, {0}},
};

/* --- label --- */

struct label {
    const char *log, *name;
    uint64_t epoch;
};

static const struct qi_option label_options[] = {
    {.name = "LOG", .positional = true, .required = true, .kind = QI_TEXT,
     QI_FIELD(struct label, log), .argument = "LOG",
     .help = "the log; a running recorder is asked to do it"},
    {.name = "NAME", .positional = true, .required = true, .kind = QI_TEXT,
     QI_FIELD(struct label, name), .argument = "NAME",
     .help = "the label, 1 to 255 bytes; one that is in use moves"},
    {.name = "epoch", .letter = 'e', .kind = QI_NUMBER, QI_FIELD(struct label, epoch),
     .argument = "N", .minimum = 1, .help = "the epoch to label (default: the newest)"},
    {.name = NULL},
};

/* Without an epoch the recorder first takes in what has been written up to now. */
static int label_by_owner(const struct label *label, uint64_t *epoch)
{
    cJSON *request = cJSON_CreateObject(), *reply = NULL;
    int rc;

    cJSON_AddStringToObject(request, "request", "label");
    cJSON_AddStringToObject(request, "name", label->name);
    if (label->epoch)
        qi_json_u64(request, "epoch", label->epoch);
    rc = ask_owner(label->log, request, &reply);
    if (rc == 0)
        *epoch = number_in(reply, "epoch");
    cJSON_Delete(reply);
    return rc;
}

static int label_here(const struct label *label, struct qr_store *store, uint64_t *epoch)
{
    struct qr_store_info info;

    qr_store_info(store, &info);
    *epoch = label->epoch ? label->epoch : info.last_epoch;
    if (*epoch == 0)
        return qr_fail(QALLOW_E_EPOCH_NOT_FOUND, "%s: no epochs yet", qr_quotez(label->log));
    return qr_store_label(store, label->name, *epoch);
}

static int run_label(struct qi_context *context, const void *values)
{
    const struct label *label = values;
    struct qr_store_options options = qi_store_options(context, 0);
    struct qr_store *store = NULL;
    uint64_t epoch = 0;
    int rc;

    options.writable = 1;
    rc = qi_open_store(label->log, &options, &store);
    if (rc == QALLOW_E_BUSY) {
        rc = label_by_owner(label, &epoch);
    } else if (rc == 0) {
        rc = label_here(label, store, &epoch);
        if (rc < 0) {
            rc = qi_report(context, rc);
            qr_store_close(store);
            return rc;
        }
        rc = qr_store_close(store);
    }
    if (rc < 0)
        return rc;
    if (context->json) {
        cJSON *object = qi_json_begin(context);
        qi_json_u64(object, "epoch", epoch);
        cJSON_AddStringToObject(object, "label", label->name);
        return qi_json_end(object);
    }
    qi_note(context, "epoch %llu has the label %s", (unsigned long long)epoch,
            qr_quotez(label->name));
    return 0;
}

const struct qi_command qi_checkpoint_label = {
    .name = "label",
    .summary = "give an epoch a name",
    .description = "The name can then stand for the epoch: qallow replay LOG --label NAME.",
    .options = label_options,
    .values_size = sizeof(struct label),
    .run = run_label,
    .examples = (const struct qi_example[]){
        {"qallow checkpoint label work.tlog before-upgrade", "name the newest epoch"},
        {"qallow checkpoint label work.tlog good --epoch 7", "name an older one"},
        {0}},
    .exits = (const struct qi_exit[]){{0, NULL}, {65, NULL}, {66, NULL}, {69, NULL}, {74, NULL},
                                      {75, NULL}, {77, NULL}, {0}},
};
