/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `qallow bench`: how fast this build is on this machine, beside what the machine can do. What is
 * measured and how is bench/bench.h; here the words are parsed and the results printed.
 */
#include <math.h>
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
    int list, csv, tier, cpu_time;
    struct qi_list filters, baselines;
    unsigned runs, threads, peers;
    double fail_over; /* 0.15 */
    uint64_t malloc_pairs, malloc_size;
    const char *directory, *html, *save;
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
} columns[] = {{"CASE", 36, 0}, {"MEASURED", 10, 1}, {"", 4, 0}, {"REFERENCE", 10, 1}, {"", 22, 0},
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
    snprintf(text, 48, "%s %s%s", what->unit->lower_is_better ? "<=" : ">=", number,
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
    printf("%s, %u CPUs, %s, %s kernels, %s, %s%s\n\n", m->cpu, m->cpus, m->memory, m->kernels,
           m->kernel, m->compiler, report->cpu_time ? ", processor time" : "");
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

static cJSON *case_json(const struct qm_case *what)
{
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "name", what->name);
    cJSON_AddStringToObject(object, "tier", what->tier == QM_SMOKE ? "smoke" : "full");
    cJSON_AddStringToObject(object, "title", what->title);
    cJSON_AddStringToObject(object, "reference", what->reference ? what->reference : "");
    cJSON_AddStringToObject(object, "unit", what->unit->name);
    cJSON_AddStringToObject(object, "what", what->what);
    return object;
}

static int print_list(const struct qi_context *context, const struct qm_options *options)
{
    const struct qm_case *what;
    cJSON *object = context->json ? qi_json_begin(context) : NULL;
    cJSON *cases = object ? cJSON_AddArrayToObject(object, "cases") : NULL;
    for (size_t i = 0; (what = qm_case_at(i)); i++) {
        if (!qm_selected(options, what))
            continue;
        if (object)
            cJSON_AddItemToArray(cases, case_json(what));
        else
            printf("%-24s %-5s  %s\n", what->name, what->tier == QM_SMOKE ? "smoke" : "full",
                   what->title);
    }
    return object ? qi_json_end(object) : qi_stdout_check();
}

/* --- earlier reports --- */

struct past {
    struct qm_baseline *all;
    size_t count;
    struct qm_change *changes; /* beside the last one */
    size_t change_count, slower;
};

static int load_past(const struct bench_options *options, struct past *past)
{
    int rc = 0;
    past->all = qr_calloc(options->baselines.count + 1, sizeof *past->all);
    if (!past->all)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the baselines");
    while (rc == 0 && past->count < options->baselines.count) {
        rc = qm_baseline_load(options->baselines.items[past->count], &past->all[past->count]);
        past->count++;
    }
    return rc;
}

static void finish_past(struct past *past)
{
    for (size_t i = 0; i < past->count; i++)
        qm_baseline_finish(&past->all[i]);
    qr_free(past->all);
    qr_free(past->changes);
}

static int compare(const struct qi_context *context, const struct bench_options *options,
                   const struct qm_report *report, struct past *past)
{
    const struct qm_baseline *last = &past->all[past->count - 1];
    int rc = qm_compare(report, last, &past->changes, &past->change_count);
    if (rc < 0)
        return rc;
    if (strcmp(last->cpu, report->machine.cpu) != 0)
        qi_note(context, "%s is of another processor (%s): ratios differ between machines",
                last->path, last->cpu);
    if (last->cpu_time != report->cpu_time)
        qi_note(context, "%s %s measured with --cpu-time: its ratios are of another kind",
                last->path, last->cpu_time ? "was" : "was not");
    if (past->change_count == 0)
        qi_note(context, "%s has none of these cases: nothing to compare", last->path);
    for (size_t i = 0; i < past->change_count; i++)
        past->slower +=
            qi_given(context, "fail-over") && past->changes[i].worse > options->fail_over;
    return 0;
}

static void print_changes(const struct qi_context *context, const struct bench_options *options,
                          const struct past *past)
{
    const struct qm_baseline *last = &past->all[past->count - 1];
    char then[QM_NUMBER_MAX], now[QM_NUMBER_MAX];
    int judged = qi_given(context, "fail-over");
    printf("\nBeside %s of %s", last->path, last->time);
    if (judged)
        printf(", %zu of %zu cases are slower by more than %g %%", past->slower, past->change_count,
               100 * options->fail_over);
    if (!judged || past->slower)
        printf(":\n\n%-36s %10s %10s %10s", "CASE, ITS RATIO", "THEN", "NOW", "CHANGE");
    printf("\n");
    for (size_t i = 0; i < past->change_count; i++) {
        const struct qm_change *c = &past->changes[i];
        if (judged && c->worse <= options->fail_over)
            continue;
        printf("%-36s %10s %10s %8.0f %% %s\n", c->now->what->title,
               qm_number(c->then->ratio, then), qm_number(c->now->ratio.median, now),
               100 * fabs(c->worse), c->worse > 0 ? "slower" : "faster");
    }
}

static void add_changes(cJSON *object, const struct qi_context *context,
                        const struct bench_options *options, const struct past *past)
{
    cJSON *comparison = cJSON_AddObjectToObject(object, "comparison");
    qi_json_path(comparison, "baseline", past->all[past->count - 1].path,
                 strlen(past->all[past->count - 1].path));
    if (qi_given(context, "fail-over")) {
        cJSON_AddNumberToObject(comparison, "fail_over", options->fail_over);
        qi_json_u64(comparison, "slower", past->slower);
    }
    cJSON *changes = cJSON_AddArrayToObject(comparison, "cases");
    for (size_t i = 0; i < past->change_count; i++) {
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "name", past->changes[i].now->what->name);
        cJSON_AddNumberToObject(item, "then", past->changes[i].then->ratio);
        cJSON_AddNumberToObject(item, "now", past->changes[i].now->ratio.median);
        cJSON_AddNumberToObject(item, "worse_by", past->changes[i].worse);
        cJSON_AddItemToArray(changes, item);
    }
}

/* --- the report --- */

static int save_baseline(const char *path, const struct qm_report *report)
{
    cJSON *object = qm_report_json(report);
    char *bytes = cJSON_Print(object);
    int rc = bytes ? qm_write_file(path, bytes, strlen(bytes))
                   : qr_fail(QALLOW_E_NO_MEMORY, "no memory for the report");
    cJSON_free(bytes);
    cJSON_Delete(object);
    return rc;
}

static int save_html(const char *path, const struct qm_report *report, const struct past *past)
{
    struct qt_text text = {0};
    int rc = qm_report_html(report, past->all, past->count, &text);
    if (rc == 0)
        rc = qm_write_file(path, text.bytes, text.length);
    qt_text_finish(&text);
    return rc;
}

static int print_csv(const struct qm_report *report)
{
    struct qt_text text = {0};
    qm_report_csv(report, &text);
    int rc = text.failed ? qr_fail(QALLOW_E_NO_MEMORY, "no memory for the report")
                         : qi_stdout_write(text.bytes, text.length);
    qt_text_finish(&text);
    return rc;
}

static int print_report(const struct qi_context *context, const struct bench_options *options,
                        const struct qm_report *report, const struct past *past)
{
    if (options->csv)
        return print_csv(report);
    if (context->json) {
        cJSON *object = qm_report_json(report);
        if (past->change_count)
            add_changes(object, context, options, past);
        return qi_json_end(object);
    }
    print_table(report);
    if (past->change_count)
        print_changes(context, options, past);
    return qi_stdout_check();
}

/* What the command ends with when all has been said: the first case that failed, or what the
 * comparison found. */
static int verdict(const struct qi_context *context, const struct qm_report *report,
                   const struct past *past)
{
    for (size_t i = 0; i < report->count; i++)
        if (report->results[i].status < 0)
            return qr_fail(report->results[i].status, "%s: %s", report->results[i].what->name,
                           report->results[i].detail);
    if (qi_given(context, "fail-over") && past->change_count == 0)
        return qr_fail(QALLOW_E_NO_INPUT, "nothing was compared, so nothing was found slower");
    return past->slower ? QI_DIFFERS : 0;
}

static int say(const struct qi_context *context, const struct bench_options *options,
               const struct qm_report *report, struct past *past)
{
    int rc = past->count ? compare(context, options, report, past) : 0;
    rc = rc < 0 ? rc : print_report(context, options, report, past);
    note_outliers(context, report);
    if (rc == 0 && options->html)
        rc = save_html(options->html, report, past);
    if (rc == 0 && options->save)
        rc = save_baseline(options->save, report);
    return rc < 0 ? rc : verdict(context, report, past);
}

/* --- the command --- */

static const char *scratch_place(const struct bench_options *options)
{
    const char *place = options->directory ? options->directory : getenv("TMPDIR");
    return place && *place ? place : "/tmp";
}

/* What can be said without measuring for minutes first. */
static int check_usage(struct qi_context *context, const struct bench_options *options)
{
    if (options->csv && context->json)
        return qi_usage(context, "either --json or --csv");
    if (qi_given(context, "fail-over") && options->baselines.count == 0)
        return qi_usage(context, "--baseline FILE with --fail-over");
    if (options->cpu_time && options->peers)
        return qi_usage(context, "either --cpu-time, which is this process's own, or --peers");
    return 0;
}

/* The peers that can be used, of those wanted; a line for each of the others. */
static unsigned usable_peers(const struct qi_context *context, unsigned wanted)
{
    char text[256];
    unsigned usable = 0;
    for (unsigned i = 0; qm_peer_name(i); i++) {
        if (!(wanted >> i & 1))
            continue;
        if (qm_peer_find(i, text, sizeof text))
            usable |= 1u << i;
        else
            qi_note(context, "%s is left out: %s", qm_peer_name(i), text);
    }
    return usable;
}

static int measure(struct qi_context *context, const struct bench_options *options,
                   struct qm_options *wanted, struct past *past)
{
    struct progress progress = {.context = context};
    struct qm_report report = {0};
    wanted->context = &progress;
    wanted->peers = usable_peers(context, options->peers);
    if (qm_count(wanted) == 0)
        return qr_fail(QALLOW_E_UNAVAILABLE, "no case is left that can run here");
    qi_signals_catch();
    qi_progress_begin(&progress.line, context, "");
    int rc = qm_run(wanted, &report);
    qi_progress_end(&progress.line);
    if (rc == 0)
        rc = say(context, options, &report, past);
    qm_report_finish(&report);
    return rc;
}

/* For ourselves, see bench.h. */
static int print_malloc_pairs(const struct bench_options *options)
{
    double seconds;
    int rc = qm_malloc_pairs(options->malloc_pairs, options->malloc_size, &seconds);
    if (rc == 0)
        printf("%.9f\n", seconds);
    return rc < 0 ? rc : qi_stdout_check();
}

static int run(struct qi_context *context, const void *values)
{
    const struct bench_options *options = values;
    struct past past = {0};
    struct qm_options wanted = {
        .filters = options->filters.items,
        .filter_count = options->filters.count,
        .tier = (enum qm_tier)options->tier,
        .runs = options->runs,
        .threads = options->threads,
        .peers = options->peers,
        .cpu_time = options->cpu_time,
        .directory = scratch_place(options),
        .stop = ask_stop,
        .progress = show_progress,
    };
    int rc = check_usage(context, options);
    if (rc != 0)
        return rc;
    if (options->malloc_pairs)
        return print_malloc_pairs(options);
    if (qm_count(&wanted) == 0)
        return qr_fail(QALLOW_E_NO_INPUT, "no case matches; --list names them");
    if (options->list)
        return print_list(context, &wanted);
    rc = load_past(options, &past);
    if (rc == 0)
        rc = measure(context, options, &wanted, &past);
    finish_past(&past);
    return rc;
}

/* "15%" or "15". */
static const char *parse_percent(const char *text, void *field)
{
    char digits[16];
    uint64_t percent;
    size_t length = strspn(text, "0123456789");
    snprintf(digits, sizeof digits, "%.*s", (int)length, text);
    if ((text[length] && strcmp(text + length, "%") != 0) || length > 6 ||
        qi_parse_number(digits, &percent))
        return "a percentage like 15%";
    *(double *)field = (double)percent / 100;
    return NULL;
}

/* The bits of one name of so many bytes; 0: there is no such peer. */
static unsigned peer_bits(const char *name, size_t length)
{
    if (length == 3 && strncmp(name, "all", 3) == 0)
        return ~0u;
    for (unsigned i = 0; qm_peer_name(i); i++)
        if (strlen(qm_peer_name(i)) == length && strncmp(qm_peer_name(i), name, length) == 0)
            return 1u << i;
    return 0;
}

/* "redis,git", or "all". */
static const char *parse_peers(const char *text, void *field)
{
    unsigned peers = 0;
    do {
        size_t length = strcspn(text, ",");
        unsigned bits = peer_bits(text, length);
        if (!bits)
            return "redis, git, lmdb, sqlite, jemalloc or gpu, with commas between, or all";
        peers |= bits;
        text += length + (text[length] == ',');
    } while (*text);
    *(unsigned *)field = peers;
    return NULL;
}

static const char *const tiers[] = {"smoke", "full", NULL};
static const char *const peer_choices[] = {"redis",    "git", "lmdb", "sqlite",
                                           "jemalloc", "gpu", "all", NULL};

/* clang-format off */
static const struct qi_option options_table[] = {
    {.name = "list", .letter = 'l', .kind = QI_FLAG, QI_FIELD(struct bench_options, list),
     .help = "list the cases instead of running them"},
    {.name = "filter", .letter = 'f', .kind = QI_LIST, .argument = "PATTERN",
     QI_FIELD(struct bench_options, filters),
     .help = "only cases whose name holds or matches PATTERN"},
    {.name = "tier", .letter = 't', .kind = QI_CHOICE, QI_FIELD(struct bench_options, tier),
     .choices = tiers, .fallback = "full",
     .help = "smoke: small sizes, less than 20 s in all; full: everything"},
    {.name = "runs", .letter = 'n', .kind = QI_NUMBER, .argument = "N", .minimum = 1,
     .maximum = 500, QI_FIELD(struct bench_options, runs),
     .help = "runs of each case (default: 15, in the smoke tier 7)"},
    {.name = "threads", .kind = QI_NUMBER, .argument = "N", .minimum = 1, .maximum = 64,
     QI_FIELD(struct bench_options, threads),
     .help = "threads of the cases with several (default: one a processor)"},
    {.name = "peers", .kind = QI_CUSTOM, .argument = "NAMES", QI_FIELD(struct bench_options, peers),
     .parse = parse_peers, .choices = peer_choices,
     .help = "also beside redis, git, lmdb, sqlite, jemalloc (commas between), or all"},
    {.name = "cpu-time", .kind = QI_FLAG, QI_FIELD(struct bench_options, cpu_time),
     .help = "measure this process's processor time, which others that use the machine hardly "
             "change, not the time that passes; waiting is not seen"},
    {.name = "csv", .kind = QI_FLAG, QI_FIELD(struct bench_options, csv),
     .help = "print the figures as CSV, one line a value"},
    {.name = "html", .kind = QI_TEXT, .argument = "FILE", QI_FIELD(struct bench_options, html),
     .help = "write a page with charts"},
    {.name = "save-baseline", .kind = QI_TEXT, .argument = "FILE",
     QI_FIELD(struct bench_options, save),
     .help = "write the report as a file for --baseline"},
    {.name = "baseline", .letter = 'b', .kind = QI_LIST, .argument = "FILE",
     QI_FIELD(struct bench_options, baselines),
     .help = "compare with an earlier report; of several with the last, the page shows all"},
    {.name = "fail-over", .kind = QI_CUSTOM, .argument = "PERCENT",
     QI_FIELD(struct bench_options, fail_over), .parse = parse_percent,
     .help = "with --baseline: end with 1 if a ratio is worse by more than this"},
    {.name = "dir", .letter = 'd', .kind = QI_TEXT, .argument = "DIR",
     QI_FIELD(struct bench_options, directory),
     .help = "where files are written meanwhile (default: $TMPDIR or /tmp)"},
    {.name = "malloc-pairs", .kind = QI_NUMBER, .argument = "N", .hidden = true,
     QI_FIELD(struct bench_options, malloc_pairs), .help = "what the peer jemalloc does"},
    {.name = "malloc-size", .kind = QI_NUMBER, .argument = "BYTES", .hidden = true,
     QI_FIELD(struct bench_options, malloc_size), .fallback = "4096", .help = "of what size"},
    {.name = NULL},
};

const struct qi_command qi_command_bench = {
    .name = "bench",
    .summary = "measure how fast this build is on this machine",
    .description =
        "Each case is measured in turns with a reference that does the same work: the least C that "
        "does it, a limit of the machine, one thread, or another program. The ratio of the two is "
        "what most targets are about and what is compared with earlier reports; figures of another "
        "day or machine say little.\n\n"
        "MEASURED and REFERENCE are medians, INTERVAL holds the true median of MEASURED with a "
        "confidence of 95 %. A missed target is shown as NO and is no error.",
    .options = options_table,
    .values_size = sizeof(struct bench_options),
    .run = run,
    .examples = (const struct qi_example[]){
        {"qallow bench --tier smoke", "all cases, quickly"},
        {"qallow bench --filter commit", "one family"},
        {"qallow bench --save-baseline before.json", "measure, and keep the report"},
        {"qallow bench --baseline before.json --fail-over 15%", "has anything become slower?"},
        {"qallow bench --peers all --html bench.html", "beside other programs too, as a page"},
        {0}},
    .exits = (const struct qi_exit[]){
        {0, "measured, whether targets were reached or not"},
        {1, "slower than --fail-over allows"},
        {65, "a baseline is not a report"},
        {66, NULL},
        {69, "all cases are beside programs that are not here"},
        {71, NULL}, {74, NULL}, {77, NULL}, {130, NULL}, {0}},
};
