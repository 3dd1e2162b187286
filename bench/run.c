/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs what the options select, one case after the other, each in an empty directory of its own
 * inside one scratch directory, which is removed in the end whatever happened.
 */
#include <errno.h>
#include <fnmatch.h>
#include <ftw.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bench/case.h"
#include "bench/peer.h"
#include "runtime/error.h"
#include "runtime/os.h"

enum { SMOKE_RUNS = 7, FULL_RUNS = 15 };

int qm_stopped(const struct qm_context *context)
{
    const struct qm_options *options = context->options;
    return options->stop ? options->stop(options->context) : 0;
}

unsigned qm_cpus(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    return (unsigned)CPU_COUNT(&set);
}

static int matches(const char *pattern, const char *name)
{
    if (strpbrk(pattern, "*?["))
        return fnmatch(pattern, name, 0) == 0;
    return strstr(name, pattern) != NULL;
}

static int has_peer(unsigned peers, const struct qm_case *what)
{
    for (unsigned i = 0; qm_peer_name(i); i++)
        if (peers >> i & 1 && strcmp(qm_peer_name(i), what->peer->name) == 0)
            return 1;
    return 0;
}

int qm_selected(const struct qm_options *options, const struct qm_case *what)
{
    if (what->tier > options->tier || (what->peer && !has_peer(options->peers, what)))
        return 0;
    for (size_t i = 0; i < options->filter_count; i++)
        if (matches(options->filters[i], what->name))
            return 1;
    return options->filter_count == 0;
}

size_t qm_count(const struct qm_options *options)
{
    const struct qm_case *what;
    size_t count = 0;
    for (size_t i = 0; (what = qm_case_at(i)); i++)
        count += (size_t)qm_selected(options, what);
    return count;
}

/* --- the scratch directory --- */

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)at;
    if (type == FTW_DP || type == FTW_DNR ? rmdir(path) : unlink(path))
        return errno == ENOENT ? 0 : -1;
    return 0;
}

int qm_remove_tree(const char *path)
{
    if (nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) != 0 && errno != ENOENT)
        return qr_fail_errno(errno, "%s cannot be removed", qr_quotez(path));
    return 0;
}

const char *qm_path(const struct qm_context *context, const char *name)
{
    static _Thread_local char buffers[4][4200];
    static _Thread_local unsigned next;
    char *buffer = buffers[next++ % 4];
    int n = snprintf(buffer, sizeof buffers[0], "%s/%s", context->directory, name);
    qr_assert(n > 0 && (size_t)n < sizeof buffers[0]);
    return buffer;
}

/* --- one case, and all --- */

static int run_case(struct qm_context *context, unsigned runs, struct qm_result *result)
{
    int rc, removed;
    *result = (struct qm_result){.what = context->what,
                                 .size = context->size,
                                 .threads = context->threads,
                                 .runs = runs};
    if (mkdir(context->directory, 0700) != 0) {
        rc = qr_fail_errno(errno, "%s", qr_quotez(context->directory));
    } else {
        rc = qm_measure(context, runs, result);
        removed = qm_remove_tree(context->directory);
        rc = rc < 0 ? rc : removed;
    }
    if (rc < 0 && !result->detail[0])
        snprintf(result->detail, sizeof result->detail, "%s", qallow_error_detail());
    return rc;
}

static int run_cases(const struct qm_options *options, const char *scratch, size_t selected,
                     struct qm_report *report)
{
    unsigned runs = options->runs               ? options->runs
                    : options->tier == QM_SMOKE ? SMOKE_RUNS
                                                : FULL_RUNS;
    const struct qm_case *what;
    char directory[4200];
    size_t done = 0;
    snprintf(directory, sizeof directory, "%s/case", scratch);
    for (size_t i = 0; (what = qm_case_at(i)); i++) {
        if (!qm_selected(options, what))
            continue;
        int smoke = options->tier == QM_SMOKE && what->smoke_size;
        struct qm_context context = {.what = what,
                                     .options = options,
                                     .directory = directory,
                                     .size = smoke ? what->smoke_size : what->size,
                                     .threads = what->threads ? what->threads : 1};
        if (what->threads == QM_ALL_THREADS)
            context.threads = options->threads ? options->threads : qm_cpus();
        if (options->progress)
            options->progress(options->context, what, done++, selected);
        int rc = run_case(&context, runs, &report->results[report->count]);
        if (qm_stopped(&context) < 0)
            return qm_stopped(&context);
        report->results[report->count].status = rc;
        report->count++;
    }
    return 0;
}

int qm_run(const struct qm_options *options, struct qm_report *report)
{
    struct timespec now;
    char scratch[4100];
    size_t selected = qm_count(options);
    clock_gettime(CLOCK_REALTIME, &now);
    qm_clock = options->cpu_time ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC;
    *report = (struct qm_report){.tier = options->tier, .cpu_time = options->cpu_time};
    report->time_ns = now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
    qm_machine_look(&report->machine);
    report->results = qr_calloc(selected + 1, sizeof *report->results);
    if (!report->results)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for %zu results", selected);
    char *directory = realpath(options->directory, NULL);
    if (!directory)
        return qr_fail_errno(errno, "%s", qr_quotez(options->directory));
    int n = snprintf(scratch, sizeof scratch, "%s/qallow-bench-XXXXXX", directory);
    free(directory);
    if (n < 0 || (size_t)n >= sizeof scratch)
        return qr_fail(QALLOW_E_LIMIT, "%s: too long a path", qr_quotez(options->directory));
    if (!mkdtemp(scratch))
        return qr_fail_errno(errno, "%s", qr_quotez(options->directory));
    int rc = run_cases(options, scratch, selected, report);
    int removed = qm_remove_tree(scratch);
    return rc < 0 ? rc : removed;
}

void qm_report_finish(struct qm_report *report)
{
    qr_free(report->results);
    *report = (struct qm_report){0};
}
