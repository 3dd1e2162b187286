/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Earlier reports, and how this one stands beside them.
 *
 * What is compared is the median of the ratio to the reference, since both sides of it were
 * measured in one run: a slower machine changes both. Cases are matched by name and size.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/bench.h"
#include "runtime/error.h"
#include "runtime/os.h"

enum { REPORT_MAX = 16 << 20 };

/* --- files --- */

static int read_all(int file, const char *path, char **bytes)
{
    struct stat st;
    size_t length = 0;
    ssize_t n = 1;
    if (fstat(file, &st) != 0)
        return qr_fail_errno(errno, "%s", qr_quotez(path));
    if (!S_ISREG(st.st_mode) || st.st_size > REPORT_MAX)
        return qr_fail(QALLOW_E_SERIALIZATION, "%s is not a report of qallow bench",
                       qr_quotez(path));
    *bytes = qr_malloc((size_t)st.st_size + 1);
    if (!*bytes)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for %s", qr_quotez(path));
    while (length < (size_t)st.st_size && n > 0) {
        n = read(file, *bytes + length, (size_t)st.st_size - length);
        length += n > 0 ? (size_t)n : 0;
    }
    (*bytes)[length] = '\0';
    return n < 0 ? qr_fail_errno(errno, "%s", qr_quotez(path)) : 0;
}

int qm_write_file(const char *path, const char *bytes, size_t length)
{
    char temporary[4200];
    int n = snprintf(temporary, sizeof temporary, "%s.%ld.tmp", path, (long)getpid());
    if (n < 0 || (size_t)n >= sizeof temporary)
        return qr_fail(QALLOW_E_LIMIT, "%s: too long a path", qr_quotez(path));
    int file = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file < 0)
        return qr_fail_errno(errno, "%s", qr_quotez(path));
    int error = -qt_write_all(file, bytes, length);
    if (close(file) != 0 && !error)
        error = errno;
    if (!error && rename(temporary, path) != 0)
        error = errno;
    if (error)
        unlink(temporary);
    return error ? qr_fail_errno(error, "%s", qr_quotez(path)) : 0;
}

/* --- an earlier report --- */

static double number_of(const cJSON *object, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsNumber(item) ? item->valuedouble : 0;
}

static double median_of(const cJSON *object, const char *name)
{
    return number_of(cJSON_GetObjectItemCaseSensitive(object, name), "median");
}

static void copy_text(char *to, size_t size, const cJSON *object, const char *name)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
    snprintf(to, size, "%s", text ? text : "");
}

static int take_cases(const cJSON *cases, struct qm_baseline *baseline)
{
    const cJSON *item;
    baseline->items = qr_calloc((size_t)cJSON_GetArraySize(cases) + 1, sizeof *baseline->items);
    if (!baseline->items)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a report");
    cJSON_ArrayForEach(item, cases)
    {
        struct qm_past *past = &baseline->items[baseline->count];
        copy_text(past->name, sizeof past->name, item, "name");
        past->ratio = median_of(item, "ratio");
        past->figure = median_of(item, "figure");
        past->reference = median_of(item, "reference");
        past->size = (uint64_t)number_of(item, "size");
        baseline->count += past->figure > 0; /* what failed then has none */
    }
    return 0;
}

static int take_report(const cJSON *report, struct qm_baseline *baseline)
{
    const cJSON *machine = cJSON_GetObjectItemCaseSensitive(report, "machine");
    const cJSON *cases = cJSON_GetObjectItemCaseSensitive(report, "cases");
    const char *schema = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(report, "schema"));
    if (!schema || strcmp(schema, "qallow.bench") != 0 || !cJSON_IsArray(cases))
        return qr_fail(QALLOW_E_SERIALIZATION, "%s is not a report of qallow bench",
                       qr_quotez(baseline->path));
    if (number_of(report, "version") != 1)
        return qr_fail(QALLOW_E_VERSION, "%s is a report of version %g; this is for version 1",
                       qr_quotez(baseline->path), number_of(report, "version"));
    copy_text(baseline->cpu, sizeof baseline->cpu, machine, "cpu");
    copy_text(baseline->time, sizeof baseline->time, report, "time");
    copy_text(baseline->version, sizeof baseline->version, report, "qallow");
    const char *clock = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(report, "clock"));
    baseline->cpu_time = clock && strcmp(clock, "cpu") == 0;
    return take_cases(cases, baseline);
}

int qm_baseline_load(const char *path, struct qm_baseline *baseline)
{
    char *bytes = NULL;
    cJSON *report = NULL;
    size_t length = strlen(path);
    *baseline = (struct qm_baseline){.path = qr_malloc(length + 1)};
    if (!baseline->path)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a path");
    memcpy(baseline->path, path, length + 1);
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0)
        return qr_fail_errno(errno, "%s", qr_quotez(path));
    int rc = read_all(file, path, &bytes);
    close(file);
    if (rc == 0) {
        report = cJSON_Parse(bytes);
        rc = take_report(report, baseline);
    }
    cJSON_Delete(report);
    qr_free(bytes);
    return rc;
}

void qm_baseline_finish(struct qm_baseline *baseline)
{
    qr_free(baseline->path);
    qr_free(baseline->items);
    *baseline = (struct qm_baseline){0};
}

/* --- comparing --- */

const struct qm_past *qm_baseline_find(const struct qm_baseline *baseline, const char *name,
                                       uint64_t size)
{
    for (size_t i = 0; i < baseline->count; i++)
        if (strcmp(baseline->items[i].name, name) == 0 && baseline->items[i].size == size)
            return &baseline->items[i];
    return NULL;
}

int qm_compare(const struct qm_report *report, const struct qm_baseline *baseline,
               struct qm_change **changes, size_t *count)
{
    *count = 0;
    *changes = qr_calloc(report->count + 1, sizeof **changes);
    if (!*changes)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a comparison");
    for (size_t i = 0; i < report->count; i++) {
        const struct qm_result *now = &report->results[i];
        const struct qm_past *then = qm_baseline_find(baseline, now->what->name, now->size);
        if (!then || now->status < 0 || !(then->ratio > 0) || !(now->ratio.median > 0))
            continue;
        double slower = now->what->unit->lower_is_better ? now->ratio.median / then->ratio
                                                         : then->ratio / now->ratio.median;
        (*changes)[(*count)++] = (struct qm_change){now, then, slower - 1};
    }
    return 0;
}
