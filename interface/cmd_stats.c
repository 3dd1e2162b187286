/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `qallow stats`: what a log holds and what it costs, or all the logs of a directory, a line each.
 *
 * A directory means its log where it has one, as a recorder makes it, and else what is in it. A
 * file that cannot be read does not keep the others from being told; it is said, and the exit
 * status is that of the first one.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "interface/cmd_stats.h"
#include "interface/commands.h"

struct stats_options {
    const char *path;
};

/* --- which files --- */

struct files {
    char **paths;
    size_t count, capacity;
};

static void files_finish(struct files *files)
{
    for (size_t i = 0; i < files->count; i++)
        qr_free(files->paths[i]);
    qr_free(files->paths);
}

static int is_directory(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* `directory` may be "": then the name is the path. Directories are left out. */
static int files_add(struct files *files, const char *directory, const char *name)
{
    size_t size = strlen(directory) + strlen(name) + 2;
    int is_slash = *directory && directory[strlen(directory) - 1] == '/';

    if (QR_GROW(files->paths, files->count, files->capacity) < 0)
        return QALLOW_E_NO_MEMORY;
    char *path = qr_malloc(size);
    if (!path)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a path");
    snprintf(path, size, "%s%s%s", directory, *directory && !is_slash ? "/" : "", name);
    if (is_directory(path))
        qr_free(path);
    else
        files->paths[files->count++] = path;
    return 0;
}

static int has_ending(const char *name, const char *ending)
{
    size_t n = strlen(name), length = strlen(ending);
    return n > length && strcmp(name + n - length, ending) == 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The *.tlog and *.qckpt in a directory, by name. */
static int files_in(const char *directory, struct files *files)
{
    DIR *dir = opendir(directory);
    struct dirent *entry;
    int rc = 0;

    if (!dir)
        return qr_fail_errno(errno, "%s", qr_quotez(directory));
    while (rc == 0 && (errno = 0, entry = readdir(dir)) != NULL)
        if (has_ending(entry->d_name, ".tlog") || has_ending(entry->d_name, ".qckpt"))
            rc = files_add(files, directory, entry->d_name);
    if (rc == 0 && errno != 0)
        rc = qr_fail_errno(errno, "%s", qr_quotez(directory));
    closedir(dir);
    if (rc == 0 && files->count == 0)
        rc = qr_fail(QALLOW_E_NO_INPUT, "%s: no log beside it or in it", qr_quotez(directory));
    if (rc == 0)
        qsort(files->paths, files->count, sizeof *files->paths, by_name);
    return rc;
}

/* A file is itself; for a directory it is DIR.tlog beside it, or what is in it. */
static int find_files(const char *path, struct files *files)
{
    struct stat st;
    size_t length = strlen(path);

    if (stat(path, &st) != 0)
        return qr_fail_errno(errno, "%s", qr_quotez(path));
    if (!S_ISDIR(st.st_mode))
        return files_add(files, "", path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    char *log = qr_malloc(length + sizeof ".tlog");
    if (!log)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a path");
    memcpy(log, path, length);
    memcpy(log + length, ".tlog", sizeof ".tlog");
    int rc = stat(log, &st) == 0 ? files_add(files, "", log) : 0;
    qr_free(log);
    return rc == 0 && files->count == 0 ? files_in(path, files) : rc;
}

/* --- one, or several --- */

static int gather(const struct qi_context *context, const char *path, struct qi_stats *stats)
{
    struct qr_store *store = NULL;
    int rc = qi_open_log(context, path, 0, 0, 0, &store);

    if (rc == 0)
        rc = qi_stats_gather(store, path, stats);
    if (store)
        qr_store_close(store);
    return rc;
}

static int say_one(const struct qi_context *context, const char *path, struct qi_stats *stats)
{
    int rc = gather(context, path, stats);

    if (rc < 0)
        return rc;
    if (!context->json) {
        qi_stats_print(stats, path);
        return qi_stdout_check();
    }
    cJSON *object = qi_json_begin(context);
    qi_stats_json(object, stats, path);
    return qi_json_end(object);
}

/* One of several: a line of the table, or an object in `array`. */
static void say_next(const char *path, const struct qi_stats *stats, cJSON *array,
                     struct qi_stats_sum *sum)
{
    struct qi_stats_sum amount = qi_stats_amount(stats);

    qi_stats_add(sum, &amount);
    if (array) {
        cJSON *object = cJSON_CreateObject();
        qi_stats_json(object, stats, path);
        cJSON_AddItemToArray(array, object);
    } else {
        const char *slash = strrchr(path, '/');
        qi_stats_print_line(&amount, slash ? slash + 1 : path);
    }
}

static int end_sum(cJSON *object, cJSON *array, const struct qi_stats_sum *sum)
{
    if (!object) {
        qi_stats_print_line(sum, "sum");
        return qi_stdout_check();
    }
    cJSON *total = cJSON_CreateObject();
    qi_stats_json_sum(total, sum);
    cJSON_AddItemToObject(object, "files", array);
    cJSON_AddItemToObject(object, "sum", total);
    return qi_json_end(object);
}

static int say_several(const struct qi_context *context, const char *directory,
                       const struct files *files, struct qi_stats *stats)
{
    cJSON *object = context->json ? qi_json_begin(context) : NULL;
    cJSON *array = context->json ? cJSON_CreateArray() : NULL;
    struct qi_stats_sum sum = {0};
    int rc = 0, status = 0;

    if (object)
        qi_json_path(object, "directory", directory, strlen(directory));
    else
        qi_stats_print_head();
    for (size_t i = 0; i < files->count; i++) {
        rc = gather(context, files->paths[i], stats);
        if (rc == 0) {
            say_next(files->paths[i], stats, array, &sum);
        } else {
            int failed = qi_report(context, rc);
            status = status ? status : failed;
            sum.failed++;
        }
    }
    rc = end_sum(object, array, &sum);
    return rc < 0 ? rc : status;
}

static int run(struct qi_context *context, const void *values)
{
    const struct stats_options *options = values;
    struct qi_stats *stats = qr_malloc(sizeof *stats);
    struct files files = {0};
    int rc = stats ? find_files(options->path, &files)
                   : qr_fail(QALLOW_E_NO_MEMORY, "no memory for statistics");

    if (rc == 0 && files.count == 1)
        rc = say_one(context, files.paths[0], stats);
    else if (rc == 0)
        rc = say_several(context, options->path, &files, stats);
    if (rc < 0)
        rc = qi_report(context, rc);
    files_finish(&files);
    qr_free(stats);
    return rc;
}

static const struct qi_option options_table[] = {
    {.name = "PATH",
     .positional = true,
     .required = true,
     .kind = QI_TEXT,
     QI_FIELD(struct stats_options, path),
     .argument = "FILE",
     .help = "a log, a checkpoint file, or a directory with its log beside it or logs in it"},
    {.name = NULL},
};

const struct qi_command qi_command_stats = {
    .name = "stats",
    .summary = "say what a log holds and what it costs",
    .description =
        "For a directory DIR the log is DIR.tlog; if there is none, the *.tlog and *.qckpt in DIR "
        "are told, several of them a line each and a sum.\n"
        "\n"
        "All of the log is read. Deltas are changes of one page's content in one epoch; their "
        "bytes are those of their operations before compression. p50, p90 and p99 of the sizes "
        "are at most 12.5 % too large. Of a pruned log, what was pruned is not counted. The bytes "
        "of frames include their headers. How long applying and committing take is known to the "
        "program that does it, see qallow_stats_get() in qallow/store.h.",
    .options = options_table,
    .values_size = sizeof(struct stats_options),
    .run = run,
    .examples = (const struct qi_example[]){{"qallow stats work.tlog", "a log"},
                                            {"qallow stats ~/work", "the log of a directory"},
                                            {"qallow stats ~/logs", "all logs in a directory"},
                                            {0}},
    .exits =
        (const struct qi_exit[]){{0, NULL}, {65, NULL}, {66, NULL}, {74, NULL}, {77, NULL}, {0}},
};
