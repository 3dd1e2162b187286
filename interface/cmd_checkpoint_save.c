/* SPDX-License-Identifier: Apache-2.0 */
/* `qallow checkpoint save`: one epoch from a directory, a file, or a file of tensors, without a
 * watcher. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "interface/cmd_checkpoint.h"
#include "interface/epochs.h"
#include "sources/stop.h"
#include "sources/tensor.h"
#include "sources/tree.h"

enum clock { CLOCK_REAL, CLOCK_LOGICAL };

struct save {
    const char *log, *source, *label, *telemetry;
    int include_git, threads, clock, compress;
    struct qi_list excludes;
    uint64_t max_file_size, max_memory;
    uint8_t uuid[16];
};

static const char *parse_uuid(const char *text, void *field)
{
    uint8_t bytes[16];
    size_t n = 0;

    for (; *text; text++) {
        int digit = *text >= '0' && *text <= '9'                 ? *text - '0'
                    : (*text | 32) >= 'a' && (*text | 32) <= 'f' ? (*text | 32) - 'a' + 10
                                                                 : -1;
        if (*text == '-')
            continue;
        if (digit < 0 || n == 32)
            return "a UUID of 32 hex digits";
        bytes[n / 2] = (uint8_t)(n % 2 ? bytes[n / 2] | digit : digit << 4);
        n++;
    }
    if (n != 32)
        return "a UUID of 32 hex digits";
    memcpy(field, bytes, sizeof bytes);
    return NULL;
}

#define FIELD(member) QI_FIELD(struct save, member)

static const char *const clocks[] = {"real", "logical", NULL};

static const struct qi_option options[] = {
    {.name = "LOG",
     .positional = true,
     .required = true,
     .kind = QI_TEXT,
     FIELD(log),
     .argument = "LOG",
     .help = "the log to append to; made if it does not exist"},
    {.name = "SOURCE",
     .positional = true,
     .required = true,
     .kind = QI_TEXT,
     FIELD(source),
     .argument = "FILE",
     .help = "the directory or file to record"},
    {.name = "label",
     .letter = 'L',
     .kind = QI_TEXT,
     FIELD(label),
     .argument = "NAME",
     .help = "give the epoch this label"},
    {.name = "exclude",
     .kind = QI_LIST,
     FIELD(excludes),
     .argument = "GLOB",
     .help = "leave out what matches (as in .gitignore)"},
    {.name = "include-git", .kind = QI_FLAG, FIELD(include_git), .help = "record .git directories"},
    {.name = "max-file-size",
     .kind = QI_SIZE,
     FIELD(max_file_size),
     .argument = "SIZE",
     .help = "leave out larger files"},
    {.name = "threads",
     .letter = 't',
     .kind = QI_NUMBER,
     FIELD(threads),
     .argument = "N",
     .minimum = 1,
     .maximum = 256,
     .help = "threads to use (default: as many as CPUs)"},
    {.name = "max-memory",
     .kind = QI_SIZE,
     FIELD(max_memory),
     .argument = "SIZE",
     .minimum = 8 << 20,
     .fallback = "64M",
     .help = "memory for buffers: fewer threads are used if it is not enough for --threads"},
    {.name = "compress",
     .letter = 'z',
     .kind = QI_CUSTOM,
     FIELD(compress),
     .argument = "LEVEL",
     .parse = qi_parse_compress,
     .fallback = "1",
     .help = QI_COMPRESS_HELP},
    {.name = "telemetry",
     .kind = QI_TEXT,
     FIELD(telemetry),
     .argument = "FILE",
     .help = "append metrics to this CSV file, once at the end, also after a failure"},
    {.name = "uuid",
     .kind = QI_CUSTOM,
     FIELD(uuid),
     .parse = parse_uuid,
     .argument = "UUID",
     .help = "of a new log, instead of a random one"},
    {.name = "clock",
     .kind = QI_CHOICE,
     FIELD(clock),
     .choices = clocks,
     .fallback = "real",
     .help = "logical: commits at 1, 2, 3 ... ns, so that equal input gives an equal log"},
    {.name = NULL},
};

static void skipped(void *context, const char *path, const char *why)
{
    if (why)
        qi_note(context, "skipped %s: %s", qr_quotez(path), why);
}

static int is_file(const char *path, int *result)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return qr_fail_errno(errno, "%s", qr_quotez(path));
    *result = !S_ISDIR(st.st_mode);
    return 0;
}

/* The epoch for scripts, and for people what changed in it; NULL: nothing. */
static int say_text(const struct qi_context *context, uint64_t epoch, const char *changes,
                    const char *source)
{
    printf("epoch %llu\n", (unsigned long long)epoch);
    if (changes)
        qi_note(context, "%s is epoch %llu: %s", qr_quotez(source), (unsigned long long)epoch,
                changes);
    else
        qi_note(context, "%s has not changed since epoch %llu", qr_quotez(source),
                (unsigned long long)epoch);
    return qi_stdout_check();
}

static cJSON *begin_object(const struct qi_context *context, uint64_t epoch, int committed)
{
    cJSON *object = qi_json_begin(context);

    qi_json_u64(object, "epoch", epoch);
    cJSON_AddBoolToObject(object, "committed", committed);
    return object;
}

static int say(const struct qi_context *context, const struct qs_capture *c, const char *source)
{
    if (!context->json) {
        char changes[200];
        snprintf(changes, sizeof changes, "%llu created, %llu changed, %llu renamed, %llu removed",
                 (unsigned long long)c->created, (unsigned long long)c->changed,
                 (unsigned long long)c->renamed, (unsigned long long)c->removed);
        return say_text(context, c->epoch, c->committed ? changes : NULL, source);
    }
    cJSON *object = begin_object(context, c->epoch, c->committed);
    qi_json_u64(object, "entries", c->entries);
    qi_json_u64(object, "read_files", c->read_files);
    qi_json_u64(object, "read_bytes", c->read_bytes);
    qi_json_u64(object, "created", c->created);
    qi_json_u64(object, "changed", c->changed);
    qi_json_u64(object, "renamed", c->renamed);
    qi_json_u64(object, "removed", c->removed);
    qi_json_u64(object, "attributes", c->attributes);
    qi_json_u64(object, "skipped", c->skipped);
    qi_json_u64(object, "unstable", c->unstable);
    return qi_json_end(object);
}

static int capture(struct qi_context *context, const struct save *save, struct qr_store *store,
                   int file, struct qs_capture *result)
{
    char *own[1] = {realpath(save->log, NULL)};
    struct qs_tree *tree = NULL;
    struct qs_scope scope = {0};
    struct qs_tree_options tree_options = {
        .rules = {.include_git = save->include_git,
                  .max_file_size = save->max_file_size,
                  .excludes = (char **)(uintptr_t)save->excludes.items,
                  .exclude_count = save->excludes.count},
        .threads = save->threads ? save->threads : qi_default_threads(),
        .is_file = file,
        .own_files = (const char *const *)own,
        .own_file_count = own[0] ? 1 : 0,
        .skipped = skipped,
        .context = context,
    };
    int rc = qs_tree_open(save->source, store, &tree_options, &tree);

    if (rc == 0)
        rc = qs_capture(tree, &scope, result);
    if (rc == 0 && result->unstable > 0)
        qi_note(context, "%llu files were being written to and are as in the epoch before",
                (unsigned long long)result->unstable);
    qs_tree_close(tree);
    free(own[0]);
    return rc;
}

static int say_tensors(const struct qi_context *context, const struct qs_tensor_save *t,
                       const char *source)
{
    if (!context->json) {
        char read[QI_TEXT_MAX], written[QI_TEXT_MAX], changes[300];
        snprintf(changes, sizeof changes,
                 "%llu tensors, %llu created, %llu changed, %llu renamed, %llu removed; %s of "
                 "content for %s",
                 (unsigned long long)t->tensors, (unsigned long long)t->created,
                 (unsigned long long)t->changed, (unsigned long long)t->renamed,
                 (unsigned long long)t->removed, qi_format_size(t->written_bytes, written),
                 qi_format_size(t->read_bytes, read));
        return say_text(context, t->epoch, t->committed ? changes : NULL, source);
    }
    cJSON *object = begin_object(context, t->epoch, t->committed);
    qi_json_u64(object, "files", t->files);
    qi_json_u64(object, "tensors", t->tensors);
    qi_json_u64(object, "read_bytes", t->read_bytes);
    qi_json_u64(object, "written_bytes", t->written_bytes);
    qi_json_u64(object, "created", t->created);
    qi_json_u64(object, "changed", t->changed);
    qi_json_u64(object, "renamed", t->renamed);
    qi_json_u64(object, "removed", t->removed);
    return qi_json_end(object);
}

/* Saves what SOURCE is, and says what came of it. */
static int save_and_say(struct qi_context *context, const struct save *save, struct qr_store *store,
                        int file)
{
    enum qs_tensor_format format = file ? qs_tensor_format_of(save->source) : QS_NO_TENSORS;
    struct qs_capture result = {0};
    struct qs_tensor_save tensors = {0};
    int rc;

    if (format)
        rc = qs_tensors_save(store, save->source, format,
                             save->threads ? save->threads : qi_default_threads(), &tensors);
    else if (qs_has_tensors(qr_store_state(store)))
        return qr_fail(QALLOW_E_ARGUMENT,
                       "%s records tensors; give what is no file of tensors a log of its own",
                       qr_quotez(save->log));
    else
        rc = capture(context, save, store, file, &result);
    if (rc == 0 && save->label)
        rc = qr_store_label(store, save->label, format ? tensors.epoch : result.epoch);
    if (rc == 0)
        rc = format ? say_tensors(context, &tensors, save->source)
                    : say(context, &result, save->source);
    return rc;
}

static int run(struct qi_context *context, const void *values)
{
    const struct save *save = values;
    struct qr_store_options store_options = qi_store_options(context, save->max_memory);
    struct qr_store *store = NULL;
    struct qt_csv *csv = NULL;
    int file = 0, closed = 0;
    int rc = is_file(save->source, &file);

    if (rc < 0)
        return rc;
    qi_signals_catch();
    qs_stop_when(qi_signal_check);
    store_options.writable = store_options.create = 1;
    store_options.logical_clock = save->clock == CLOCK_LOGICAL;
    store_options.compress_level = save->compress;
    if (qi_given(context, "uuid"))
        store_options.uuid = save->uuid;
    rc = qi_telemetry_open(save->telemetry, &csv);
    if (rc == 0)
        rc = qi_open_store(save->log, &store_options, &store);
    if (rc == QALLOW_E_BUSY && !(file && qs_tensor_format_of(save->source)))
        qi_hint(context, "ask the recorder for an epoch: qallow accelerator --sync --log %s",
                qr_quotez(save->log));
    if (rc == 0) {
        rc = save_and_say(context, save, store, file);
        if (rc < 0)
            rc = qi_report(context, rc);
        closed = qr_store_close(store);
        rc = rc == 0 ? closed : rc;
    }
    qi_telemetry_close(context, save->telemetry, csv);
    return rc;
}

const struct qi_command qi_checkpoint_save = {
    .name = "save",
    .summary = "record a directory or file once",
    .description = "Appends one epoch with what is different from the newest one; nothing if "
                   "nothing is. Prints the epoch that then holds it. The rules of what is "
                   "recorded are those of qallow accelerator.\n\n"
                   "A file called *.safetensors, *.safetensors.index.json (with its shards) or "
                   "*.npy is recorded tensor by tensor, element by element, in a log of its own.",
    .options = options,
    .values_size = sizeof(struct save),
    .run = run,
    .examples =
        (const struct qi_example[]){
            {"qallow checkpoint save work.tlog ~/work", "record a directory"},
            {"qallow checkpoint save work.tlog ~/work --label before-upgrade",
             "and give it a label"},
            {"qallow checkpoint save chain.tlog model.safetensors",
             "record the weights of a model"},
            {0}},
    .exits = (const struct qi_exit[]){{0, NULL},
                                      {65, NULL},
                                      {66, NULL},
                                      {71, NULL},
                                      {73, NULL},
                                      {74, NULL},
                                      {75, NULL},
                                      {77, NULL},
                                      {0}},
};
