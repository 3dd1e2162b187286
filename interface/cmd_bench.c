/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `qallow bench`: how fast this build is on this machine, beside what the machine can do. What is
 * measured and how is bench/bench.h; here the words are parsed and the results printed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/bench.h"
#include "interface/commands.h"
#include "interface/report.h"
#include "runtime/error.h"
#include "runtime/os.h"

struct bench_options {
    int list, csv, tier;
    struct qi_list filters;
    unsigned runs, threads;
    const char *directory;
};

/* --- while it runs --- */

struct progress {
    struct qi_progress line;
    struct qi_context *context;
};

static void show_progress(void *context, const struct qm_case *now, size_t done, size_t count)
{
    struct progress *p = context;
    if (!p->line.on)
        return;
    fprintf(stderr, "\r%zu of %zu: %s\033[K", done + 1, count, now->title);
    p->line.last_ns = p->line.start_ns + 1; /* there is a line to wipe */
}

static int ask_stop(void *context)
{
    (void)context;
    return qi_signal_check();
}

/* --- the table --- */

static const struct {
    const char *title;
    int width, right;
} columns[] = {{"CASE", 36, 0}, {"MEASURED", 10, 1}, {"", 4, 0}, {"REFERENCE", 10, 1}, {"", 21, 0},
               {"RATIO", 7, 1}, {"TARGET", 10, 1},   {"", 4, 0}, {"INTERVAL", 16, 0}};

static void print_cell(size_t column, const char *text)
{
    int width = columns[column].width;
    printf("%*s", columns[column].right ? width : -width, text);
    putchar(column + 1 < sizeof columns / sizeof *columns ? ' ' : '\n');
}

static const char *target_text(const struct qm_case *what, char text[48])
{
    char number[QM_NUMBER_MAX];
    if (what->target.judged == QM_NOTHING)
        return "";
    snprintf(number, sizeof number, "%g", what->target.value);
    snprintf(text, 48, "%s %s%s",
             what->unit->lower_is_better ? "<=" : ">=", qm_number(what->target.value, number),
             what->target.judged == QM_RATIO ? " x" : "");
    return text;
}

static void print_result(const struct qm_result *r)
{
    static const char *const reached[] = {"", "NO", "yes"};
    const struct qm_case *what = r->what;
    char a[QM_NUMBER_MAX], b[QM_NUMBER_MAX], target[48], interval[2 * QM_NUMBER_MAX + 8];
    print_cell(0, what->title);
    if (r->status < 0) {
        printf("failed: %s\n", *r->detail ? r->detail : qallow_strerror(r->status));
        return;
    }
    print_cell(1, qm_number(r->figure.median, a));
    print_cell(2, what->unit->name);
    print_cell(3, what->reference ? qm_number(r->reference.median, a) : "");
    print_cell(4, what->reference ? what->reference : "");
    print_cell(5, what->reference ? qm_number(r->ratio.median, a) : "");
    print_cell(6, target_text(what, target));
    print_cell(7, reached[qm_result_reached(r) + 1]);
    snprintf(interval, sizeof interval, "%s..%s%s", qm_number(r->figure.low, a),
             qm_number(r->figure.high, b), r->figure.outliers ? " *" : "");
    print_cell(8, interval);
}

static void print_table(const struct qm_report *report)
{
    const struct qm_machine *m = &report->machine;
    printf("%s, %u CPUs, %s, %s kernels, %s, %s\n\n", m->cpu, m->cpus, m->memory, m->kernels,
           m->kernel, m->compiler);
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
        print_cell(i, columns[i].title);
    for (size_t i = 0; i < report->count; i++)
        print_result(&report->results[i]);
}

static void note_outliers(const struct qi_context *context, const struct qm_report *report)
{
    size_t disturbed = 0;
    for (size_t i = 0; i < report->count; i++)
        disturbed += report->results[i].status == 0 && report->results[i].figure.outliers > 0;
    if (disturbed)
        qi_note(context,
                "%zu of %zu cases (*) have runs far from the others: something else was "
                "using the machine; the medians bear some of that",
                disturbed, report->count);
}

/* --- the list --- */

static int print_list(const struct qi_context *context, const struct qm_options *options)
{
    const struct qm_case *what;
    char target[48];
    for (size_t i = 0; (what = qm_case_at(i)); i++)
        if (qm_selected(options, what))
            printf("%-26s %-5s  %s\n", what->name, what->tier == QM_SMOKE ? "smoke" : "full",
                   what->title);
    (void)context, (void)target;
    return qi_stdout_check();
}

/* --- the command --- */

static const char *scratch_place(const struct bench_options *options)
{
    const char *place = options->directory ? options->directory : getenv("TMPDIR");
    return place && *place ? place : "/tmp";
}

static int say(struct qi_context *context, const struct bench_options *options,
               const struct qm_report *report)
{
    int failed = 0;
    if (context->json) {
        int rc = qi_json_end(qm_report_json(report));
        if (rc < 0)
            return rc;
    } else {
        print_table(report);
    }
    note_outliers(context, report);
    for (size_t i = 0; i < report->count && !failed; i++)
        if (report->results[i].status < 0)
            failed = qr_fail(report->results[i].status, "%s: %s", report->results[i].what->name,
                             report->results[i].detail);
    return failed ? failed : qi_stdout_check();
}

static int run(struct qi_context *context, const void *values)
{
    const struct bench_options *options = values;
    struct progress progress = {.context = context};
    struct qm_options wanted = {
        .filters = options->filters.items,
        .filter_count = options->filters.count,
        .tier = (enum qm_tier)options->tier,
        .runs = options->runs,
        .threads = options->threads,
        .directory = scratch_place(options),
        .stop = ask_stop,
        .progress = show_progress,
        .context = &progress,
    };
    struct qm_report report = {0};
    if (options->list)
        return print_list(context, &wanted);
    qi_signals_catch();
    qi_progress_begin(&progress.line, context, "");
    int rc = qm_run(&wanted, &report);
    qi_progress_end(&progress.line);
    if (rc == 0)
        rc = say(context, options, &report);
    qm_report_finish(&report);
    return rc;
}

static const char *const tiers[] = {"smoke", "full", NULL};

/* clang-format off */
static const struct qi_option options_table[] = {
    {.name = "list", .letter = 'l', .kind = QI_FLAG, QI_FIELD(struct bench_options, list),
     .help = "list the cases instead of running them"},
    {.name = "filter", .letter = 'f', .kind = QI_LIST, .argument = "PATTERN",
     QI_FIELD(struct bench_options, filters),
     .help = "only cases whose name holds or matches PATTERN; may be repeated"},
    {.name = "tier", .letter = 't', .kind = QI_CHOICE, QI_FIELD(struct bench_options, tier),
     .choices = tiers, .fallback = "full",
     .help = "smoke: small sizes, less than 20 s in all; full: everything"},
    {.name = "runs", .letter = 'n', .kind = QI_NUMBER, .argument = "N", .minimum = 1,
     .maximum = 500, QI_FIELD(struct bench_options, runs),
     .help = "runs of each case (default: 15, in the smoke tier 7)"},
    {.name = "threads", .kind = QI_NUMBER, .argument = "N", .minimum = 1, .maximum = 64,
     QI_FIELD(struct bench_options, threads),
     .help = "threads of the cases with several (default: one a processor)"},
    {.name = "dir", .letter = 'd', .kind = QI_TEXT, .argument = "DIR",
     QI_FIELD(struct bench_options, directory),
     .help = "where files are written meanwhile (default: $TMPDIR or /tmp)"},
    {.name = NULL},
};
/* clang-format on */

const struct qi_command qi_command_bench = {
    .name = "bench",
    .summary = "measure how fast this build is on this machine",
    .description =
        "Each case is measured in turns with a reference that does the same work: the least C that "
        "does it, a limit of the machine, one thread, or another program. The ratio of the two is "
        "what a target is about and what is compared with earlier reports; figures of another day "
        "or machine say little.\n\n"
        "MEASURED and REFERENCE are medians, INTERVAL holds the true median of MEASURED with a "
        "confidence of 95 %. A missed target is shown as NO and is no error.",
    .options = options_table,
    .values_size = sizeof(struct bench_options),
    .run = run,
    .examples = (const struct qi_example[]){{"qallow bench --tier smoke", "all cases, quickly"},
                                            {"qallow bench --filter commit", "one family"},
                                            {0}},
    .exits =
        (const struct qi_exit[]){
            {0, NULL}, {71, NULL}, {73, NULL}, {74, NULL}, {77, NULL}, {130, NULL}, {0}},
};
