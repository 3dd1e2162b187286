/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The report as one HTML page that needs nothing else: no network, no script, no font. Light or
 * dark as the reader's system has it, and on paper. The charts are html_chart.c.
 */
#include <stdio.h>
#include <string.h>

#include "bench/html.h"
#include "runtime/error.h"

static const char style[] =
    ":root{color-scheme:light dark;--paper:#fff;--ink:#1b1f24;--soft:#5b6570;--line:#dfe3e8;"
    "--card:#f7f8fa;--qallow:#2563c9;--reference:#aab3be;--mark:#c2570c;--yes:#1a7f42;"
    "--no:#b42323}\n"
    "@media(prefers-color-scheme:dark){:root{--paper:#14171b;--ink:#e7eaee;--soft:#9aa4b0;"
    "--line:#2d333b;--card:#1b1f25;--qallow:#6ea3f5;--reference:#5a6470;--mark:#f0954a;"
    "--yes:#58c27d;--no:#f27878}}\n"
    "@media print{:root{color-scheme:light;--paper:#fff;--ink:#000;--soft:#444;--line:#bbb;"
    "--card:#fff;--qallow:#2563c9;--reference:#aab3be;--mark:#c2570c;--yes:#1a7f42;--no:#b42323}"
    "*{print-color-adjust:exact;-webkit-print-color-adjust:exact}.case,figure,tr{break-inside:"
    "avoid}h2{break-after:avoid}}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0 auto;max-width:1080px;padding:2.5rem 1.25rem 4rem;background:var(--paper);"
    "color:var(--ink);font:15px/1.5 system-ui,-apple-system,\"Segoe UI\",Roboto,sans-serif}\n"
    "h1{font-size:1.7rem;line-height:1.2;margin:0 0 .3rem}\n"
    "h2{text-transform:capitalize;font-size:1.15rem;margin:2.6rem 0 .2rem;padding-bottom:.35rem;"
    "border-bottom:1px solid var(--line)}\n"
    "h3{font-size:.95rem;margin:0 0 .15rem}\n"
    "p{margin:0 0 .5rem}.soft,.case p,figcaption{color:var(--soft);font-size:.85rem}\n"
    "dl.tiles{display:flex;flex-wrap:wrap;gap:.75rem;margin:1.2rem 0}\n"
    "dl.tiles div{background:var(--card);border:1px solid var(--line);border-radius:8px;"
    "padding:.6rem 1rem}\n"
    "dl.tiles dt{color:var(--soft);font-size:.8rem}dl.tiles dd{margin:0;font-size:1.25rem;"
    "font-weight:600;font-variant-numeric:tabular-nums}\n"
    ".key span{display:inline-block;margin-right:1.3rem}.key i{display:inline-block;width:.8em;"
    "height:.8em;border-radius:2px;margin-right:.4em}\n"
    ".key .q{background:var(--qallow)}.key .r{background:var(--reference)}"
    ".key .t{width:2px;background:var(--mark)}\n"
    ".case{display:grid;grid-template-columns:minmax(12rem,1fr) minmax(18rem,28rem) 9.5rem;"
    "gap:.2rem 1.5rem;align-items:center;padding:.9rem 0;border-bottom:1px solid var(--line)}\n"
    ".case p{margin:0}.judged{text-align:right;font-variant-numeric:tabular-nums}\n"
    ".judged b{font-size:1.15rem;display:block;line-height:1.25}\n"
    ".chip{display:inline-block;border-radius:99px;padding:0 .6em;font-size:.78rem;"
    "font-weight:600;border:1px solid currentColor}.yes{color:var(--yes)}.no{color:var(--no)}\n"
    "svg{display:block;width:100%;height:auto;overflow:visible}\n"
    "svg text{fill:var(--ink);font-size:13px;font-variant-numeric:tabular-nums}\n"
    "svg .small{font-size:11px;fill:var(--soft)}svg .mid{text-anchor:middle}"
    "svg .end{text-anchor:end}\n"
    "svg .qallow{fill:var(--qallow)}svg .reference{fill:var(--reference)}\n"
    "svg .whisker{stroke:var(--ink);stroke-width:1.2}svg .grid{stroke:var(--line)}\n"
    "svg .target{stroke:var(--mark);stroke-width:2}\n"
    "svg .curve{fill:none;stroke:var(--qallow);stroke-width:2}svg .dot{fill:var(--qallow)}\n"
    "figure{margin:1.2rem 0;max-width:760px}.many{display:grid;gap:1.2rem 2rem;"
    "grid-template-columns:repeat(auto-fill,minmax(260px,1fr));margin-top:1rem}"
    ".many figure{margin:0}\n"
    ".wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.85rem;"
    "margin-top:.8rem}\n"
    "th,td{padding:.3rem .7rem .3rem 0;text-align:left;border-bottom:1px solid var(--line);"
    "vertical-align:baseline}th{color:var(--soft);font-weight:600}\n"
    ".n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}\n"
    "@media(max-width:760px){.case{grid-template-columns:1fr}.judged{text-align:left}"
    ".judged b{display:inline;margin-right:.6em}}\n";

static void add_escaped(struct qt_text *text, const char *before, const char *plain,
                        const char *after)
{
    qt_text_add(text, "%s", before);
    qm_html_escape(text, plain);
    qt_text_add(text, "%s", after);
}

/* --- the head --- */

static void add_tile(struct qt_text *text, const char *name, const char *value)
{
    add_escaped(text, "<div><dt>", name, "</dt>");
    add_escaped(text, "<dd>", value, "</dd></div>\n");
}

static void add_tiles(struct qt_text *text, const struct qm_report *report)
{
    size_t judged = 0, reached = 0, disturbed = 0;
    char value[64];
    for (size_t i = 0; i < report->count; i++) {
        const struct qm_result *r = &report->results[i];
        judged += qm_result_reached(r) >= 0;
        reached += qm_result_reached(r) == 1;
        disturbed += r->status == 0 && r->figure.outliers > 0;
    }
    qt_text_add(text, "<dl class=\"tiles\">\n");
    snprintf(value, sizeof value, "%zu of %zu", reached, judged);
    add_tile(text, "targets reached", value);
    snprintf(value, sizeof value, "%zu", report->count);
    add_tile(text, "cases", value);
    snprintf(value, sizeof value, "%zu", disturbed);
    add_tile(text, "disturbed cases", value);
    snprintf(value, sizeof value, "%.2f", report->machine.load);
    add_tile(text, "load average before", value);
    add_tile(text, "kernels", report->machine.kernels);
    qt_text_add(text, "</dl>\n");
}

static void add_head(struct qt_text *text, const struct qm_report *report)
{
    const struct qm_machine *m = &report->machine;
    char time[QM_TIME_MAX], line[400];
    qt_text_add(text,
                "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
                "<title>qallow bench</title>\n<style>\n%s</style>\n</head>\n<body>\n"
                "<h1>qallow bench</h1>\n",
                style);
    snprintf(line, sizeof line, "%s, %u CPUs, %s; %s; %s; qallow %s, %s tier, %s", m->cpu, m->cpus,
             m->memory, m->kernel, m->compiler, m->version,
             report->tier == QM_SMOKE ? "smoke" : "full", qm_format_time(report->time_ns, time));
    add_escaped(text, "<p class=\"soft\">", line, "</p>\n");
    add_tiles(text, report);
    qt_text_add(
        text, "<p class=\"soft key\"><span><i class=\"q\"></i>Qallow, median; the whisker holds "
              "the true median with 95 %% confidence</span><span><i class=\"r\"></i>reference: "
              "the same work by the least C, a limit of the machine, or another program, measured "
              "in turns</span><span><i class=\"t\"></i>target</span></p>\n");
}

/* --- the cases --- */

static void add_judgement(struct qt_text *text, const struct qm_result *r)
{
    const struct qm_case *what = r->what;
    char number[QM_NUMBER_MAX];
    int reached = qm_result_reached(r);
    qt_text_add(text, "<div class=\"judged\">");
    if (what->reference) {
        qt_text_add(text, "<b>%s\u00a0\u00d7</b>", qm_number(r->ratio.median, number));
        qt_text_add(text, "<span class=\"soft\">%s is better</span><br>",
                    what->unit->lower_is_better ? "less" : "more");
    }
    if (reached >= 0) {
        qt_text_add(text, "<span class=\"chip %s\">", reached ? "yes" : "no");
        qm_html_target(text, what);
        qt_text_add(text, " %s</span>", reached ? "reached" : "missed");
    }
    qt_text_add(text, "</div>\n");
}

static void add_case(struct qt_text *text, const struct qm_result *r)
{
    qt_text_add(text, "<div class=\"case\">\n<div>");
    add_escaped(text, "<h3>", r->what->title, "</h3>");
    add_escaped(text, "<p>", r->what->what, "</p></div>\n");
    if (r->status < 0) {
        add_escaped(text, "<p>failed: ", r->detail, "</p></div>\n");
        return;
    }
    qm_chart_bars(text, r);
    add_judgement(text, r);
    qt_text_add(text, "</div>\n");
}

static size_t family_length(const char *name) { return strcspn(name, "/"); }

static int same_family(const struct qm_result *a, const struct qm_result *b)
{
    size_t length = family_length(a->what->name);
    return family_length(b->what->name) == length &&
           strncmp(a->what->name, b->what->name, length) == 0;
}

/* The plot of a series stands where its first case is. */
static void add_series(struct qt_text *text, const struct qm_report *report, size_t first)
{
    const char *series = report->results[first].what->series;
    size_t points = 0;
    for (size_t i = 0; i < report->count; i++) {
        const struct qm_result *r = &report->results[i];
        if (r->status < 0 || !r->what->series || strcmp(r->what->series, series) != 0)
            continue;
        if (i < first)
            return;
        points++;
    }
    if (points < 2)
        return;
    add_escaped(text, "<figure>\n<figcaption>", series, "</figcaption>\n");
    qm_chart_series(text, report->results, report->count, series);
    qt_text_add(text, "</figure>\n");
}

static void add_cases(struct qt_text *text, const struct qm_report *report)
{
    for (size_t i = 0; i < report->count; i++) {
        const struct qm_result *r = &report->results[i];
        if (i == 0 || !same_family(r, &report->results[i - 1]))
            qt_text_add(text, "<h2>%.*s</h2>\n", (int)family_length(r->what->name), r->what->name);
        if (r->status == 0 && r->what->series)
            add_series(text, report, i);
        add_case(text, r);
    }
}

static void add_history(struct qt_text *text, const struct qm_report *report,
                        const struct qm_baseline *baselines, size_t count)
{
    qt_text_add(text, "<h2>history</h2>\n<p class=\"soft\">The ratio to the reference in the ");
    qt_text_add(text, "reports given, oldest first, and in this one:");
    for (size_t i = 0; i < count; i++) {
        add_escaped(text, i ? "; " : " ", baselines[i].time, "");
        const char *slash = strrchr(baselines[i].path, '/');
        add_escaped(text, " (", slash ? slash + 1 : baselines[i].path, ")");
    }
    qt_text_add(text, ".</p>\n<div class=\"many\">\n");
    for (size_t i = 0; i < report->count; i++) {
        const struct qm_result *r = &report->results[i];
        if (r->status < 0 || !r->what->reference)
            continue;
        add_escaped(text, "<figure>\n<figcaption>", r->what->title, "</figcaption>\n");
        qm_chart_history(text, r, baselines, count);
        qt_text_add(text, "</figure>\n");
    }
    qt_text_add(text, "</div>\n");
}

/* --- the table --- */

static void add_cell(struct qt_text *text, double value)
{
    char number[QM_NUMBER_MAX];
    qt_text_add(text, "<td class=\"n\">%s</td>", qm_number(value, number));
}

static void add_row(struct qt_text *text, const struct qm_result *r)
{
    static const char *const reached[] = {"", "<span class=\"no\">NO</span>",
                                          "<span class=\"yes\">yes</span>"};
    const struct qm_case *what = r->what;
    char low[QM_NUMBER_MAX], high[QM_NUMBER_MAX];
    add_escaped(text, "<tr><td>", what->title, "</td>");
    if (r->status < 0) {
        add_escaped(text, "<td colspan=\"8\">failed: ", r->detail, "</td></tr>\n");
        return;
    }
    add_cell(text, r->figure.median);
    qt_text_add(text, "<td>%s</td><td class=\"n\">%s\u2013%s%s</td>", what->unit->name,
                qm_number(r->figure.low, low), qm_number(r->figure.high, high),
                r->figure.outliers ? " *" : "");
    if (what->reference) {
        add_cell(text, r->reference.median);
        add_escaped(text, "<td>", what->reference, "</td>");
        add_cell(text, r->ratio.median);
    } else {
        qt_text_add(text, "<td></td><td></td><td></td>");
    }
    qt_text_add(text, "<td class=\"n\">");
    if (what->target.judged != QM_NOTHING)
        qm_html_target(text, what);
    qt_text_add(text, "</td><td>%s</td></tr>\n", reached[qm_result_reached(r) + 1]);
}

static void add_table(struct qt_text *text, const struct qm_report *report)
{
    qt_text_add(text, "<h2>all figures</h2>\n<div class=\"wide\"><table>\n<thead><tr><th>case</th>"
                      "<th class=\"n\">measured</th><th>unit</th><th class=\"n\">interval</th>"
                      "<th class=\"n\">reference</th><th></th><th class=\"n\">ratio</th>"
                      "<th class=\"n\">target</th><th></th></tr></thead>\n<tbody>\n");
    for (size_t i = 0; i < report->count; i++)
        add_row(text, &report->results[i]);
    qt_text_add(text,
                "</tbody></table></div>\n<p class=\"soft\">* some runs lie far from the others: "
                "something else was using the machine.</p>\n");
}

int qm_report_html(const struct qm_report *report, const struct qm_baseline *baselines,
                   size_t baseline_count, struct qt_text *text)
{
    add_head(text, report);
    add_cases(text, report);
    if (baseline_count)
        add_history(text, report, baselines, baseline_count);
    add_table(text, report);
    qt_text_add(text, "</body>\n</html>\n");
    return text->failed ? qr_fail(QALLOW_E_NO_MEMORY, "no memory for the page") : 0;
}
