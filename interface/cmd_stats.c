/* SPDX-License-Identifier: Apache-2.0 */
/* `qallow stats`: what a log holds and what it costs. */
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "interface/commands.h"
#include "interface/epochs.h"

#define KINDS 7u /* of pages, enum qr_kind */
#define TYPES 7u /* of records, enum qr_record_type */

struct stats_options {
    const char *path;
};

struct stats {
    struct qr_store_info info;
    uint64_t pages[KINDS], page_bytes[KINDS];
    uint64_t records[TYPES];
    uint64_t pieces;
    int64_t first_time, last_time;
    uint64_t epochs, data_bytes; /* frames of epochs, without keyframes and labels */
    uint64_t largest, largest_epoch;
    uint64_t index_bytes;
    int has_index;
};

static const char *const one_kind[KINDS] = {"?",       "raw",    "file",  "directory",
                                            "symlink", "config", "tensor"};
static const char *const kind_words[KINDS] = {"?",       "raw",    "files", "directories",
                                              "symlinks", "config", "tensors"};
static const char *const type_words[TYPES] = {"?",    "create", "attributes", "rename",
                                              "free", "delta",  "image"};

/* --- which log --- */

/* The one *.tlog in a directory. 0 with *found NULL if there is none. */
static int only_log_in(const char *directory, char **found)
{
    DIR *dir = opendir(directory);
    struct dirent *entry;
    int rc = 0;

    *found = NULL;
    if (!dir)
        return qr_fail_errno(errno, "%s", qr_quotez(directory));
    while (rc == 0 && (entry = readdir(dir)) != NULL) {
        size_t n = strlen(entry->d_name), size = strlen(directory) + n + 2;
        if (n < 6 || strcmp(entry->d_name + n - 5, ".tlog") != 0)
            continue;
        if (*found) {
            rc = qr_fail(QALLOW_E_ARGUMENT, "%s has more than one log: name one of them",
                         qr_quotez(directory));
        } else if ((*found = qr_malloc(size)) != NULL) {
            snprintf(*found, size, "%s/%s", directory, entry->d_name);
        } else {
            rc = qr_fail(QALLOW_E_NO_MEMORY, "no memory for a path");
        }
    }
    closedir(dir);
    return rc;
}

/* A log is itself; for a directory it is DIR.tlog beside it, or the one *.tlog in it. *log is from
 * qr_malloc. */
static int find_log(const char *path, char **log)
{
    size_t length = strlen(path);
    struct stat st;
    int rc = 0;

    if (stat(path, &st) != 0)
        return qr_fail_errno(errno, "%s", qr_quotez(path));
    *log = qr_malloc(length + sizeof ".tlog");
    if (!*log)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a path");
    memcpy(*log, path, length + 1);
    if (!S_ISDIR(st.st_mode))
        return 0;
    while (length > 1 && (*log)[length - 1] == '/')
        (*log)[--length] = '\0';
    memcpy(*log + length, ".tlog", sizeof ".tlog");
    if (stat(*log, &st) == 0)
        return 0;
    qr_free(*log);
    rc = only_log_in(path, log);
    if (rc == 0 && !*log)
        rc = qr_fail(QALLOW_E_NO_INPUT, "%s: no log beside it or in it", qr_quotez(path));
    return rc;
}

/* --- gathering --- */

static int count_record(void *context, const struct qr_epoch *epoch, const struct qr_state *state,
                        const struct qr_record *record)
{
    struct stats *s = context;
    unsigned type = (unsigned)record->type;
    s->records[type < TYPES ? type : 0]++;
    return 0;
}

static int gather_epochs(struct stats *s, struct qr_store *store)
{
    int rc = 0;
    if (s->info.first_epoch == 0)
        return 0;
    s->epochs = s->info.last_epoch - s->info.first_epoch + 1;
    for (uint64_t n = s->info.first_epoch; rc == 0 && n <= s->info.last_epoch; n++) {
        struct qr_epoch epoch;
        rc = qr_store_epoch(store, n, &epoch);
        if (rc < 0)
            break;
        uint64_t bytes = epoch.frame_end - epoch.frame_start;
        s->data_bytes += bytes;
        if (bytes > s->largest) {
            s->largest = bytes;
            s->largest_epoch = n;
        }
        if (n == s->info.first_epoch)
            s->first_time = epoch.time_ns;
        s->last_time = epoch.time_ns;
    }
    return rc;
}

static int gather(struct stats *s, struct qr_store *store, const char *log)
{
    const struct qr_state *state = qr_store_state(store);
    const struct qr_page *page;
    char index[4200];
    struct stat st;
    int rc;

    qr_store_info(store, &s->info);
    for (page = qr_state_next_page(state, 0); page; page = qr_state_next_page(state, page->id)) {
        unsigned kind = page->kind < KINDS ? page->kind : 0;
        s->pages[kind]++;
        s->page_bytes[kind] += page->size;
        s->pieces += page->piece_count;
    }
    if (snprintf(index, sizeof index, "%s-index", log) < (int)sizeof index &&
        stat(index, &st) == 0) {
        s->has_index = 1;
        s->index_bytes = (uint64_t)st.st_size;
    }
    rc = gather_epochs(s, store);
    /* The records of the oldest epoch of a pruned log are gone. */
    uint64_t from = s->info.first_epoch + (s->info.first_epoch > 1 && s->epochs > 1);
    struct qr_walk walk = {.from = from, .to = s->info.last_epoch, .record = count_record,
                           .context = s};
    if (rc == 0 && s->epochs > 0 && (s->info.first_epoch == 1 || s->epochs > 1))
        rc = qr_store_walk(store, &walk);
    return rc;
}

/* --- saying --- */

static int say_json(const struct qi_context *context, const struct stats *s, const char *log)
{
    cJSON *object = qi_json_begin(context), *pages = cJSON_CreateObject(),
          *bytes = cJSON_CreateObject(), *records = cJSON_CreateObject();

    qi_json_path(object, "log", log, strlen(log));
    qi_json_u64(object, "epochs", s->epochs);
    qi_json_u64(object, "first_epoch", s->info.first_epoch);
    qi_json_u64(object, "last_epoch", s->info.last_epoch);
    if (s->epochs > 0) {
        qi_json_time(object, "first_time", s->first_time);
        qi_json_time(object, "last_time", s->last_time);
    }
    for (unsigned i = 1; i < KINDS; i++) {
        qi_json_u64(pages, kind_words[i], s->pages[i]);
        qi_json_u64(bytes, kind_words[i], s->page_bytes[i]);
    }
    for (unsigned i = 1; i < TYPES; i++)
        qi_json_u64(records, type_words[i], s->records[i]);
    cJSON_AddItemToObject(object, "pages", pages);
    cJSON_AddItemToObject(object, "content_bytes", bytes);
    cJSON_AddItemToObject(object, "records", records);
    qi_json_u64(object, "pieces", s->pieces);
    qi_json_u64(object, "log_bytes", s->info.log_end);
    qi_json_u64(object, "allocated_bytes", s->info.allocated);
    qi_json_u64(object, "epoch_bytes", s->data_bytes);
    qi_json_u64(object, "largest_epoch", s->largest_epoch);
    qi_json_u64(object, "largest_epoch_bytes", s->largest);
    qi_json_u64(object, "keyframes", s->info.keyframes);
    cJSON_AddBoolToObject(object, "index", s->has_index);
    qi_json_u64(object, "index_bytes", s->index_bytes);
    qi_json_i64(object, "owner_pid", s->info.owner_pid);
    return qi_json_end(object);
}

static void say_amounts(const struct stats *s)
{
    char size[QI_TEXT_MAX];
    uint64_t total = 0, bytes = 0;

    for (unsigned i = 0; i < KINDS; i++) {
        total += s->pages[i];
        bytes += s->page_bytes[i];
    }
    printf("pages      %llu, %s\n", (unsigned long long)total, qi_format_size(bytes, size));
    for (unsigned i = 0; i < KINDS; i++)
        if (s->pages[i] > 0)
            printf("             %llu %s, %s\n", (unsigned long long)s->pages[i],
                   s->pages[i] == 1 ? one_kind[i] : kind_words[i],
                   qi_format_size(s->page_bytes[i], size));
    fputs("records    ", stdout);
    for (unsigned i = 1, any = 0; i < TYPES; i++)
        if (s->records[i] > 0)
            printf("%s%llu %s", any++ ? ", " : "", (unsigned long long)s->records[i],
                   type_words[i]);
    putchar('\n');
}

static int say(const struct qi_context *context, const struct stats *s, const char *log)
{
    char a[QI_TEXT_MAX], b[QI_TEXT_MAX];

    if (context->json)
        return say_json(context, s, log);
    fputs("log        ", stdout);
    qi_print_name(stdout, log, strlen(log));
    if (s->epochs == 0)
        printf("\nepochs     none yet\n");
    else
        printf("\nepochs     %llu: %llu (%s) to %llu (%s)\n", (unsigned long long)s->epochs,
               (unsigned long long)s->info.first_epoch, qi_format_time(s->first_time, a),
               (unsigned long long)s->info.last_epoch, qi_format_time(s->last_time, b));
    say_amounts(s);
    printf("size       %s, %s on disk\n", qi_format_size(s->info.log_end, a),
           qi_format_size(s->info.allocated, b));
    if (s->epochs > 0)
        printf("an epoch   %s on average; the largest is %llu with %s\n",
               qi_format_size(s->data_bytes / s->epochs, a),
               (unsigned long long)s->largest_epoch, qi_format_size(s->largest, b));
    printf("keyframes  %llu, %llu epoch%s since the last one\n",
           (unsigned long long)s->info.keyframes,
           (unsigned long long)s->info.commits_since_keyframe,
           s->info.commits_since_keyframe == 1 ? "" : "s");
    if (s->has_index)
        printf("index      %s\n", qi_format_size(s->index_bytes, a));
    else
        printf("index      none: it will be made by whoever opens the log for writing\n");
    if (s->info.owner_pid)
        printf("recorder   process %d\n", s->info.owner_pid);
    return qi_stdout_check();
}

static int run(struct qi_context *context, const void *values)
{
    const struct stats_options *options = values;
    struct qr_store *store = NULL;
    struct stats stats = {0};
    char *log = NULL;
    int rc = find_log(options->path, &log);

    if (rc == 0)
        rc = qi_open_log(context, log, 0, 0, &store);
    if (rc == 0)
        rc = gather(&stats, store, log);
    if (rc == 0)
        rc = say(context, &stats, log);
    if (rc < 0)
        rc = qi_report(context, rc);
    if (store)
        qr_store_close(store);
    qr_free(log);
    return rc;
}

static const struct qi_option options_table[] = {
    {.name = "PATH", .positional = true, .required = true, .kind = QI_TEXT,
     QI_FIELD(struct stats_options, path), .argument = "FILE",
     .help = "a log, a checkpoint file, or a directory with its log beside or in it"},
    {.name = NULL},
};

const struct qi_command qi_command_stats = {
    .name = "stats",
    .summary = "say what a log holds and what it costs",
    .description = "For a directory DIR the log is DIR.tlog, or the only *.tlog in it.",
    .options = options_table,
    .values_size = sizeof(struct stats_options),
    .run = run,
    .examples = (const struct qi_example[]){{"qallow stats work.tlog", "a log"},
                                            {"qallow stats ~/work", "the log of a directory"},
                                            {0}},
    .exits = (const struct qi_exit[]){{0, NULL}, {65, NULL}, {66, NULL}, {74, NULL}, {77, NULL},
                                      {0}},
};
