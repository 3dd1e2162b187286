/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The charts. All coordinates are in units of the viewBox, so they scale with the page; every
 * number in them is also in the table at the end of the page.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "bench/html.h"

void qm_html_escape(struct qt_text *text, const char *plain)
{
    for (; *plain; plain++) {
        const char *name = *plain == '&'   ? "&amp;"
                           : *plain == '<' ? "&lt;"
                           : *plain == '>' ? "&gt;"
                           : *plain == '"' ? "&quot;"
                                           : NULL;
        if (name)
            qt_text_add(text, "%s", name);
        else
            qt_text_add(text, "%c", *plain);
    }
}

static void begin_svg(struct qt_text *text, const char *name, int width, int height,
                      const char *label)
{
    qt_text_add(text,
                "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"%s\" viewBox=\"0 0 %d %d\" "
                "role=\"img\" aria-label=\"",
                name, width, height);
    qm_html_escape(text, label);
    qt_text_add(text, "\">\n");
}

/* `style`: class names, the first of which may be start, middle or end for the anchor. */
static void add_words(struct qt_text *text, double x, double y, const char *style,
                      const char *words)
{
    qt_text_add(text, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">", x, y, style);
    qm_html_escape(text, words);
    qt_text_add(text, "</text>\n");
}

static void add_line(struct qt_text *text, double x1, double y1, double x2, double y2,
                     const char *style)
{
    qt_text_add(text, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"%s\"/>\n", x1,
                y1, x2, y2, style);
}

void qm_html_target(struct qt_text *text, const struct qm_case *what)
{
    const char *sign = what->unit->lower_is_better ? "\u2264" : "\u2265";
    qt_text_add(text, "%s\u00a0%g\u00a0%s", sign, what->target.value,
                what->target.judged == QM_RATIO ? "\u00d7" : what->unit->name);
}

/* --- bars --- */

enum { BARS_WIDTH = 490, BARS_HEIGHT = 58, BARS_ROOM = 290, BAR = 15 };

/* Where the target is in the unit of the figures; 0: there is none. */
static double target_figure(const struct qm_result *r)
{
    const struct qm_target *target = &r->what->target;
    if (target->judged == QM_NOTHING)
        return 0;
    return target->judged == QM_RATIO ? target->value * r->reference.median : target->value;
}

static void add_bar(struct qt_text *text, double y, double width, const char *style, double value,
                    const char *label)
{
    char number[QM_NUMBER_MAX];
    qt_text_add(text,
                "<rect x=\"0\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" rx=\"2\" class=\"%s\"/>\n",
                y, fmax(width, 1.5), BAR, style);
    add_words(text, BARS_ROOM + 58, y + BAR - 3, "end", qm_number(value, number));
    add_words(text, BARS_ROOM + 64, y + BAR - 3, "start", label);
}

static void add_interval(struct qt_text *text, double y, double low, double high)
{
    double middle = y + BAR / 2.0;
    if (high - low < 1)
        return;
    add_line(text, low, middle, high, middle, "whisker");
    add_line(text, low, middle - 3.5, low, middle + 3.5, "whisker");
    add_line(text, high, middle - 3.5, high, middle + 3.5, "whisker");
}

void qm_chart_bars(struct qt_text *text, const struct qm_result *r)
{
    const struct qm_case *what = r->what;
    double target = target_figure(r), most = fmax(r->figure.high, target);
    char label[16];
    if (what->reference)
        most = fmax(most, r->reference.high);
    double scale = BARS_ROOM / most;
    begin_svg(text, "bars", BARS_WIDTH, BARS_HEIGHT, what->title);
    add_bar(text, 6, r->figure.median * scale, "qallow", r->figure.median, what->unit->name);
    add_interval(text, 6, r->figure.low * scale, r->figure.high * scale);
    if (what->reference) {
        add_bar(text, 27, r->reference.median * scale, "reference", r->reference.median,
                what->reference);
        add_interval(text, 27, r->reference.low * scale, r->reference.high * scale);
    }
    if (target > 0) {
        add_line(text, target * scale, 1, target * scale, 46, "target");
        const char *anchor = target * scale < 30 ? "start" : target * scale > 250 ? "end" : "mid";
        snprintf(label, sizeof label, "small %s", anchor);
        add_words(text, target * scale, 56, label, "target");
    }
    qt_text_add(text, "</svg>\n");
}

/* --- plots --- */

enum {
    PLOT_WIDTH = 640,
    PLOT_HEIGHT = 260,
    LEFT = 62,
    RIGHT = 20,
    TOP = 24,
    BOTTOM = 40,
    INSET = 34
};

/* A linear map of what is plotted; both axes are logarithms here. */
struct axes {
    double x_low, x_high, y_low, y_high;
};

static double x_of(const struct axes *axes, double x)
{
    double part = (log10(x) - axes->x_low) / (axes->x_high - axes->x_low);
    return LEFT + INSET + part * (PLOT_WIDTH - LEFT - RIGHT - 2 * INSET);
}
static double y_of(const struct axes *axes, double y)
{
    double part = (log10(y) - axes->y_low) / (axes->y_high - axes->y_low);
    return PLOT_HEIGHT - BOTTOM - part * (PLOT_HEIGHT - TOP - BOTTOM);
}

static int in_series(const struct qm_result *r, const char *series)
{
    return r->status == 0 && r->what->series && strcmp(r->what->series, series) == 0;
}

static struct axes axes_of(const struct qm_result *results, size_t count, const char *series)
{
    struct axes axes = {1e9, -1e9, 1e9, -1e9};
    for (size_t i = 0; i < count; i++) {
        const struct qm_result *r = &results[i];
        if (!in_series(r, series))
            continue;
        axes.x_low = fmin(axes.x_low, log10((double)r->size));
        axes.x_high = fmax(axes.x_high, log10((double)r->size));
        axes.y_low = fmin(axes.y_low, log10(r->figure.low));
        axes.y_high = fmax(axes.y_high, log10(fmax(r->figure.high, target_figure(r))));
    }
    axes.x_high = fmax(axes.x_high, axes.x_low + 1);
    axes.y_low = floor(axes.y_low);
    axes.y_high = fmax(ceil(axes.y_high), axes.y_low + 1);
    return axes;
}

static void add_grid(struct qt_text *text, const struct axes *axes, const char *unit)
{
    char number[QM_NUMBER_MAX], label[64];
    for (double power = axes->y_low; power <= axes->y_high + 0.01; power++) {
        double y = y_of(axes, pow(10, power));
        add_line(text, LEFT, y, PLOT_WIDTH - RIGHT, y, "grid");
        snprintf(label, sizeof label, "%g %s", pow(10, power), unit);
        add_words(text, LEFT - 8, y + 4, "small end", label);
    }
    for (double power = ceil(axes->x_low); power <= axes->x_high + 0.01; power++) {
        double x = x_of(axes, pow(10, power));
        add_line(text, x, TOP, x, PLOT_HEIGHT - BOTTOM, "grid");
        add_words(text, x, PLOT_HEIGHT - BOTTOM + 18, "small mid",
                  qm_number(pow(10, power), number));
    }
}

static void add_points(struct qt_text *text, const struct axes *axes,
                       const struct qm_result *results, size_t count, const char *series)
{
    qt_text_add(text, "<polyline class=\"curve\" points=\"");
    for (size_t i = 0; i < count; i++)
        if (in_series(&results[i], series))
            qt_text_add(text, "%.1f,%.1f ", x_of(axes, (double)results[i].size),
                        y_of(axes, results[i].figure.median));
    qt_text_add(text, "\"/>\n");
    for (size_t i = 0; i < count; i++) {
        const struct qm_result *r = &results[i];
        char number[QM_NUMBER_MAX];
        if (!in_series(r, series))
            continue;
        double x = x_of(axes, (double)r->size), y = y_of(axes, r->figure.median);
        add_line(text, x, y_of(axes, r->figure.low), x, y_of(axes, r->figure.high), "whisker");
        qt_text_add(text, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" class=\"dot\"/>\n", x, y);
        add_words(text, x + 9, y - 9, "value", qm_number(r->figure.median, number));
    }
}

void qm_chart_series(struct qt_text *text, const struct qm_result *results, size_t count,
                     const char *series)
{
    struct axes axes = axes_of(results, count, series);
    const struct qm_result *last = NULL;
    for (size_t i = 0; i < count; i++)
        if (in_series(&results[i], series))
            last = &results[i];
    begin_svg(text, "plot", PLOT_WIDTH, PLOT_HEIGHT, series);
    add_grid(text, &axes, last->what->unit->name);
    if (last->what->target.judged != QM_NOTHING) {
        double y = y_of(&axes, target_figure(last));
        add_line(text, LEFT, y, PLOT_WIDTH - RIGHT, y, "target");
        add_words(text, PLOT_WIDTH - RIGHT, y - 5, "small end", "target");
    }
    add_points(text, &axes, results, count, series);
    qt_text_add(text, "</svg>\n");
}

/* --- history --- */

enum {
    PAST_WIDTH = 300,
    PAST_HEIGHT = 104,
    PAST_LEFT = 8,
    PAST_RIGHT = 60,
    PAST_TOP = 14,
    PAST_BOTTOM = 22
};

/* The ratios in turn, 0 where a report has none; the last one is now. */
static double past_ratio(const struct qm_result *r, const struct qm_baseline *baselines,
                         size_t baseline_count, size_t i)
{
    if (i == baseline_count)
        return r->ratio.median;
    const struct qm_past *past = qm_baseline_find(&baselines[i], r->what->name, r->size);
    return past ? past->ratio : 0;
}

struct past_axes {
    double most;
    size_t last;
};
static double past_x(const struct past_axes *axes, size_t i)
{
    double room = PAST_WIDTH - PAST_LEFT - PAST_RIGHT;
    return axes->last == 0 ? PAST_LEFT : PAST_LEFT + room * (double)i / (double)axes->last;
}
static double past_y(const struct past_axes *axes, double ratio)
{
    return PAST_HEIGHT - PAST_BOTTOM - ratio / axes->most * (PAST_HEIGHT - PAST_TOP - PAST_BOTTOM);
}

static void add_past_points(struct qt_text *text, const struct past_axes *axes,
                            const struct qm_result *r, const struct qm_baseline *baselines,
                            size_t count)
{
    char number[QM_NUMBER_MAX], label[64];
    qt_text_add(text, "<polyline class=\"curve\" points=\"");
    for (size_t i = 0; i <= count; i++) {
        double ratio = past_ratio(r, baselines, count, i);
        if (ratio > 0)
            qt_text_add(text, "%.1f,%.1f ", past_x(axes, i), past_y(axes, ratio));
    }
    qt_text_add(text, "\"/>\n");
    for (size_t i = 0; i <= count; i++) {
        double ratio = past_ratio(r, baselines, count, i);
        if (ratio > 0)
            qt_text_add(text, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%s\" class=\"dot\"/>\n",
                        past_x(axes, i), past_y(axes, ratio), i == count ? "4.5" : "3");
    }
    snprintf(label, sizeof label, "%s \u00d7", qm_number(r->ratio.median, number));
    add_words(text, past_x(axes, count) + 9, past_y(axes, r->ratio.median) + 4, "value", label);
}

void qm_chart_history(struct qt_text *text, const struct qm_result *r,
                      const struct qm_baseline *baselines, size_t baseline_count)
{
    const struct qm_target *target = &r->what->target;
    struct past_axes axes = {0, baseline_count};
    for (size_t i = 0; i <= baseline_count; i++)
        axes.most = fmax(axes.most, past_ratio(r, baselines, baseline_count, i));
    if (target->judged == QM_RATIO)
        axes.most = fmax(axes.most, target->value);
    axes.most *= 1.1;
    begin_svg(text, "past", PAST_WIDTH, PAST_HEIGHT, r->what->title);
    add_line(text, PAST_LEFT, PAST_HEIGHT - PAST_BOTTOM, PAST_WIDTH - PAST_RIGHT,
             PAST_HEIGHT - PAST_BOTTOM, "grid");
    if (target->judged == QM_RATIO)
        add_line(text, PAST_LEFT, past_y(&axes, target->value), PAST_WIDTH - PAST_RIGHT,
                 past_y(&axes, target->value), "target");
    add_past_points(text, &axes, r, baselines, baseline_count);
    add_words(text, PAST_LEFT, PAST_HEIGHT - 6, "small", "earlier");
    add_words(text, PAST_WIDTH - PAST_RIGHT, PAST_HEIGHT - 6, "small end", "now");
    qt_text_add(text, "</svg>\n");
}
