/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `qallow doctor`: is this machine fit to keep a directory, and if not, what to do about it. What
 * is tried, and what follows from it, is in accelerator/capability.h; here it is printed.
 */
#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "accelerator/capability.h"
#include "interface/commands.h"
#include "interface/report.h"
#include "runtime/error.h"
#include "runtime/os.h"

struct doctor_options {
    const char *path, *log;
};

struct doctor {
    const struct qi_context *context;
    cJSON *checks;
    int worst; /* the result of the first FAIL */
    int counts[3];
};

static void on_found(void *context, const struct qa_capability *found)
{
    static const char *const words[] = {"PASS", "WARN", "FAIL"};
    struct doctor *d = context;

    d->counts[found->verdict]++;
    if (found->verdict == QA_FAIL && d->worst == 0)
        d->worst = found->result;
    if (d->context->json) {
        cJSON *check = cJSON_CreateObject();
        cJSON_AddStringToObject(check, "check", found->name);
        cJSON_AddStringToObject(check, "verdict", words[found->verdict]);
        cJSON_AddStringToObject(check, "text", found->text);
        if (*found->remedy)
            cJSON_AddStringToObject(check, "remedy", found->remedy);
        cJSON_AddItemToArray(d->checks, check);
        return;
    }
    printf("%s  %-18s %s\n", words[found->verdict], found->name, found->text);
    if (*found->remedy)
        printf("      %-18s %s\n", "", found->remedy);
}

/* Where the log of `path` is kept: beside the directory, unless --log says something else; `path`
 * may itself be the log. *directory is from malloc. */
static int log_directory(const struct doctor_options *options, char **directory)
{
    char *path = options->log ? strdup(options->log) : realpath(options->path, NULL);

    if (!path)
        return qr_fail_errno(errno, "%s", qr_quotez(options->path));
    *directory = strdup(dirname(path));
    free(path);
    return *directory ? 0 : qr_fail(QALLOW_E_NO_MEMORY, "no memory for a path");
}

static int run(struct qi_context *context, const void *values)
{
    const struct doctor_options *options = values;
    struct doctor d = {.context = context};
    struct stat st;

    if (stat(options->path, &st) != 0)
        return qr_fail_errno(errno, "%s", qr_quotez(options->path));
    char *directory;
    int rc = log_directory(options, &directory);
    if (rc < 0)
        return rc;
    cJSON *object = context->json ? qi_json_begin(context) : NULL;
    d.checks = context->json ? cJSON_CreateArray() : NULL;
    rc = qa_capabilities_probe(S_ISDIR(st.st_mode) ? options->path : NULL, directory, on_found, &d);
    free(directory);
    if (rc < 0) {
        cJSON_Delete(d.checks);
        cJSON_Delete(object);
        return rc;
    }
    if (!context->json) {
        printf("%d passed, %d warnings, %d failed\n", d.counts[QA_PASS], d.counts[QA_WARN],
               d.counts[QA_FAIL]);
        rc = qi_stdout_check();
    } else {
        cJSON_AddBoolToObject(object, "good", d.counts[QA_FAIL] == 0);
        cJSON_AddItemToObject(object, "checks", d.checks);
        rc = qi_json_end(object);
    }
    return rc < 0 ? rc : qi_exit_status(d.worst);
}

static const struct qi_option options_table[] = {
    {.name = "PATH", .positional = true, .kind = QI_TEXT, QI_FIELD(struct doctor_options, path),
     .argument = "DIR", .fallback = ".",
     .help = "the directory to watch, or the log"},
    {.name = "log", .letter = 'l', .kind = QI_TEXT, .argument = "LOG",
     QI_FIELD(struct doctor_options, log),
     .help = "where its log will be (default: DIR.tlog beside the directory)"},
    {.name = NULL},
};

const struct qi_command qi_command_doctor = {
    .name = "doctor",
    .summary = "check whether this machine is fit to record",
    .description =
        "Tries what `qallow accelerator` will need, with the functions that it decides by. One "
        "line for each: PASS; WARN, it works with the limits that the line names; or FAIL, it "
        "would refuse to start. Under it stands the remedy.",
    .options = options_table,
    .values_size = sizeof(struct doctor_options),
    .run = run,
    .examples = (const struct qi_example[]){{"qallow doctor", "check the present directory"},
                                            {"qallow doctor ~/work --json", "for programs"},
                                            {0}},
    .exits = (const struct qi_exit[]){
        {0, "nothing failed"}, {66, NULL},
        {69, "the first that failed: something is not there"},
        {71, "the first that failed: a limit is too low"},
        {74, "the first that failed: the log's disk is full or gives errors"},
        {77, "the first that failed: the log's directory may not be written"}, {0}},
};
