/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `qallow checkpoint`: single states as files, and the upkeep of logs. Here are the table of
 * actions and those that deal with checkpoint files; save is in cmd_checkpoint_save.c, prune and
 * label in cmd_checkpoint_upkeep.c.
 */
#include "interface/cmd_checkpoint.h"

#include <stddef.h>
#include <string.h>

#include "interface/cmd_replay.h"
#include "interface/commands.h"
#include "sources/tree.h"

const struct qi_command qi_command_checkpoint = {
    .name = "checkpoint",
    .summary = "single states as files, and the upkeep of logs",
    .description = "A checkpoint file (.qckpt) is a log of one epoch; `qallow replay` reads it "
                   "like any log.",
    .actions =
        (const struct qi_command *const[]){&qi_checkpoint_save, &qi_checkpoint_export,
                                           &qi_checkpoint_restore, &qi_checkpoint_info,
                                           &qi_checkpoint_verify, &qi_checkpoint_prune,
                                           &qi_checkpoint_label, &qi_checkpoint_consumers,
                                           NULL},
    .examples = (const struct qi_example[]){{"qallow checkpoint save work.tlog ~/work",
                                             "record a directory once"},
                                            {0}},
};

/* Ends a command that has a store open: the failure is reported before closing changes its
 * detail. */
static int finish(const struct qi_context *context, struct qr_store *store, int rc)
{
    if (rc < 0)
        rc = qi_report(context, rc);
    int closed = qr_store_close(store);
    return rc == 0 ? closed : rc;
}

/* --- export --- */

struct export {
    const char *log;
    struct qi_epoch_choice choice;
    const char *output;
    int force;
};

static const struct qi_option export_options[] = {
    {.name = "LOG", .positional = true, .required = true, .kind = QI_TEXT,
     QI_FIELD(struct export, log), .argument = "LOG", .help = "the log; it may be in use"},
    QI_EPOCH_OPTIONS(struct export, "export"),
    {.name = "output", .letter = 'o', .required = true, .kind = QI_TEXT,
     QI_FIELD(struct export, output), .argument = "FILE", .help = "the checkpoint file to write"},
    {.name = "force", .letter = 'f', .kind = QI_FLAG, QI_FIELD(struct export, force),
     .help = "replace the file if it exists"},
    {.name = NULL},
};

static int run_export(struct qi_context *context, const void *values)
{
    const struct export *e = values;
    struct qr_store *store = NULL;
    uint64_t epoch;
    int rc = qi_open_log(context, e->log, 0, 0, 0, &store);

    if (rc < 0)
        return rc;
    rc = qi_choose_epoch(context, store, &e->choice, &epoch);
    if (rc == 0)
        rc = qr_checkpoint_export(store, epoch, e->output, e->force);
    if (rc == 0 && context->json) {
        cJSON *object = qi_json_begin(context);
        qi_json_u64(object, "epoch", epoch);
        qi_json_path(object, "target", e->output, strlen(e->output));
        rc = qi_json_end(object);
    } else if (rc == 0) {
        qi_note(context, "epoch %llu exported to %s", (unsigned long long)epoch,
                qr_quotez(e->output));
    }
    return finish(context, store, rc);
}

const struct qi_command qi_checkpoint_export = {
    .name = "export",
    .summary = "write one epoch as a checkpoint file",
    .description = "The file appears whole or not at all, and only after it is on the disk. "
                   "Without --epoch, --time or --label: the newest epoch.",
    .options = export_options,
    .values_size = sizeof(struct export),
    .run = run_export,
    .examples = (const struct qi_example[]){
        {"qallow checkpoint export work.tlog --epoch 7 -o before.qckpt", "epoch 7 as a file"}, {0}},
    .exits = (const struct qi_exit[]){{0, NULL}, {65, NULL}, {66, NULL}, {73, NULL}, {74, NULL},
                                      {75, NULL}, {77, NULL}, {0}},
};

/* --- restore --- */

struct restore {
    const char *file, *output;
    int force, threads;
    uint64_t max_memory;
};

static const struct qi_option restore_options[] = {
    {.name = "FILE", .positional = true, .required = true, .kind = QI_TEXT,
     QI_FIELD(struct restore, file), .argument = "FILE", .help = "the checkpoint file"},
    {.name = "output", .letter = 'o', .required = true, .kind = QI_TEXT,
     QI_FIELD(struct restore, output), .argument = "DIR", .help = "the directory to make"},
    {.name = "force", .letter = 'f', .kind = QI_FLAG, QI_FIELD(struct restore, force),
     .help = "replace a directory that has something in it"},
    {.name = "threads", .letter = 't', .kind = QI_NUMBER, QI_FIELD(struct restore, threads),
     .argument = "N", .minimum = 1, .maximum = 256,
     .help = "threads to use (default: as many as CPUs)"},
    {.name = "max-memory", .kind = QI_SIZE, QI_FIELD(struct restore, max_memory),
     .argument = "SIZE", .minimum = 8 << 20, .fallback = "64M",
     .help = "memory for the buffers of a restore, which runs on fewer threads if need be"},
    {.name = NULL},
};

static int run_restore(struct qi_context *context, const void *values)
{
    const struct restore *r = values;
    struct replay replay = {.output = r->output, .force = r->force, .max_memory = r->max_memory,
                            .threads = r->threads ? r->threads : qi_default_threads()};
    struct qr_store *store = NULL;
    int rc = qi_open_log(context, r->file, r->threads, r->max_memory, 0, &store);

    if (rc < 0)
        return rc;
    return finish(context, store,
                  replay_restore(context, &replay, store, qr_state_epoch(qr_store_state(store))));
}

const struct qi_command qi_checkpoint_restore = {
    .name = "restore",
    .summary = "restore a checkpoint file into a directory",
    .description = "The tree is built beside DIR, its digest is checked, and only then it gets its "
                   "name. Of a log, the newest epoch is restored.",
    .options = restore_options,
    .values_size = sizeof(struct restore),
    .run = run_restore,
    .examples = (const struct qi_example[]){
        {"qallow checkpoint restore before.qckpt -o before/", "have it back"}, {0}},
    .exits = (const struct qi_exit[]){{0, NULL}, {65, NULL}, {66, NULL}, {73, NULL}, {74, NULL},
                                      {75, NULL}, {77, NULL}, {0}},
};

/* --- info --- */

struct info {
    const char *file;
};

static const struct qi_option file_options[] = {
    {.name = "FILE", .positional = true, .required = true, .kind = QI_TEXT,
     QI_FIELD(struct info, file), .argument = "FILE", .help = "a checkpoint file or a log"},
    {.name = NULL},
};

static int print_info(const struct qi_context *context, struct qr_store *store)
{
    char text[QI_TEXT_MAX];
    struct qr_store_info info;
    const struct qr_state *state = qr_store_state(store);
    struct qb_u128 digest = qr_state_digest(state);
    unsigned long long first, last;

    qr_store_info(store, &info);
    if (context->json) {
        cJSON *object = qi_json_begin(context);
        qi_json_hex(object, "uuid", info.uuid, sizeof info.uuid);
        qi_json_u64(object, "first_epoch", info.first_epoch);
        qi_json_u64(object, "last_epoch", info.last_epoch);
        qi_json_time(object, "time", qr_state_time_ns(state));
        qi_json_u64(object, "pages", qr_state_page_count(state));
        qi_json_u64(object, "content_bytes", qr_state_bytes(state));
        qi_json_u64(object, "file_bytes", info.log_end);
        qi_json_u64(object, "allocated_bytes", info.allocated);
        qi_json_hex(object, "digest", &digest, sizeof digest);
        qi_json_i64(object, "owner_pid", info.owner_pid);
        return qi_json_end(object);
    }
    first = info.first_epoch;
    last = info.last_epoch;
    printf("uuid      %s\n", qi_format_hex(info.uuid, sizeof info.uuid, text, sizeof text));
    if (first == 0)
        printf("epochs    none yet\n");
    else if (first == last)
        printf("epoch     %llu\n", last);
    else
        printf("epochs    %llu to %llu\n", first, last);
    if (first > 0)
        printf("time      %s\n", qi_format_time(qr_state_time_ns(state), text));
    printf("pages     %zu\n", qr_state_page_count(state));
    printf("content   %s\n", qi_format_size(qr_state_bytes(state), text));
    printf("file      %s\n", qi_format_size(info.log_end, text));
    printf("digest    %s\n", qi_format_hex(&digest, sizeof digest, text, sizeof text));
    if (info.owner_pid)
        printf("recorder  process %d\n", info.owner_pid);
    return qi_stdout_check();
}

static int run_info(struct qi_context *context, const void *values)
{
    const struct info *i = values;
    struct qr_store *store = NULL;
    int rc = qi_open_log(context, i->file, 0, 0, 0, &store);

    return rc < 0 ? rc : finish(context, store, print_info(context, store));
}

const struct qi_command qi_checkpoint_info = {
    .name = "info",
    .summary = "say what a checkpoint file or a log holds",
    .options = file_options,
    .values_size = sizeof(struct info),
    .run = run_info,
    .examples = (const struct qi_example[]){{"qallow checkpoint info before.qckpt", "look at it"},
                                            {0}},
    .exits = (const struct qi_exit[]){{0, NULL}, {65, NULL}, {66, NULL}, {74, NULL}, {77, NULL},
                                      {0}},
};

/* --- verify --- */

struct ranges {
    const struct qi_context *context;
    uint64_t bad, epochs;
};

static int show_range(void *context, const struct qr_range *range)
{
    struct ranges *ranges = context;
    const struct qi_context *c = ranges->context;

    ranges->bad += !range->good;
    if (range->first_epoch)
        ranges->epochs += range->last_epoch - range->first_epoch + 1;

    if (c->json) {
        cJSON *object = qi_json_begin(c);
        qi_json_u64(object, "offset", range->offset);
        qi_json_u64(object, "length", range->length);
        cJSON_AddBoolToObject(object, "good", range->good);
        if (range->first_epoch) {
            qi_json_u64(object, "first_epoch", range->first_epoch);
            qi_json_u64(object, "last_epoch", range->last_epoch);
        }
        if (range->what)
            cJSON_AddStringToObject(object, "what", range->what);
        return qi_json_end(object);
    }
    printf("%s  %12llu+%llu", range->good ? "good" : "bad ", (unsigned long long)range->offset,
           (unsigned long long)range->length);
    if (range->first_epoch)
        printf("  epochs %llu to %llu", (unsigned long long)range->first_epoch,
               (unsigned long long)range->last_epoch);
    printf("%s%s\n", range->what ? "  " : "", range->what ? range->what : "");
    return qi_stdout_check();
}

struct verify {
    const char *file;
    int threads;
    uint64_t max_memory;
};

static const struct qi_option verify_options[] = {
    {.name = "FILE",
     .positional = true,
     .required = true,
     .kind = QI_TEXT,
     QI_FIELD(struct verify, file),
     .argument = "FILE",
     .help = "a checkpoint file or a log"},
    {.name = "threads",
     .letter = 't',
     .kind = QI_NUMBER,
     QI_FIELD(struct verify, threads),
     .argument = "N",
     .minimum = 1,
     .maximum = 256,
     .help = "threads to use (default: as many as CPUs)"},
    {.name = "max-memory",
     .kind = QI_SIZE,
     QI_FIELD(struct verify, max_memory),
     .argument = "SIZE",
     .minimum = 8 << 20,
     .fallback = "64M",
     .help = "memory for buffers: fewer threads are used if it is not enough for --threads"},
    {.name = NULL},
};

static int run_verify(struct qi_context *context, const void *values)
{
    const struct verify *v = values;
    struct ranges ranges = {.context = context};
    int rc = qr_log_verify(v->file, NULL, v->threads ? v->threads : qi_default_threads(),
                           v->max_memory, show_range, &ranges);

    if (rc == QALLOW_E_DAMAGED)
        qi_hint(context, "qallow replay --salvage gives what can be read");
    return rc;
}

const struct qi_command qi_checkpoint_verify = {
    .name = "verify",
    .summary = "check every frame of a log or checkpoint file",
    .description = "Lists the good and the bad ranges of the file, with the epochs whose commits "
                   "lie in the good ones. To recompute the digests too: qallow replay --verify.",
    .options = verify_options,
    .values_size = sizeof(struct verify),
    .run = run_verify,
    .examples =
        (const struct qi_example[]){{"qallow checkpoint verify work.tlog", "is it whole?"}, {0}},
    .exits =
        (const struct qi_exit[]){
            {0, "nothing is damaged"}, {65, NULL}, {66, NULL}, {74, NULL}, {77, NULL}, {0}},
};
