/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CSV in long form: one row per value, so that a new metric is a new row and never a new column.
 *
 *     time,metric,label,value,unit
 *     2026-01-31T23:59:59.123Z,log_commits_total,,17,1
 *     2026-01-31T23:59:59.123Z,log_sync_seconds,p99,0.004194303,seconds
 *
 * Times are RFC 3339 in UTC. A counter or a gauge is one row with an empty label; a histogram is
 * one row for each of count, sum, p50, p90, p99 and max; a metric of workers is one row for each
 * worker with its number as the label, one of trees is one row for each tree with its name. Only
 * such a name can contain a comma or a quote, and then stands in quotes, as RFC 4180 wants it; none
 * has a newline.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "telemetry/encoder.h"

static void add_row(struct qt_text *text, const char *time, const struct qt_description *metric,
                    const char *label, uint64_t value, const char *unit)
{
    qt_text_add(text, "%s,%s,%s,", time, metric->name, label);
    qt_text_add_value(text, unit, value);
    qt_text_add(text, ",%s\n", unit);
}

/* A name that has to be quoted is, with each quote twice. */
static void add_label(struct qt_text *text, const char *name)
{
    if (!strpbrk(name, ",\"")) {
        qt_text_add(text, "%s", name);
        return;
    }
    qt_text_add(text, "\"");
    for (; *name; name++)
        qt_text_add(text, "%s%c", *name == '"' ? "\"" : "", *name);
    qt_text_add(text, "\"");
}

static void add_trees(struct qt_text *text, const char *time, enum qt_metric metric,
                      const struct qt_tree *trees)
{
    const struct qt_description *description = &qt_descriptions[metric];
    for (const struct qt_tree *tree = trees; tree; tree = tree->next) {
        struct qt_text label = {0};
        add_label(&label, tree->name);
        text->failed |= label.failed;
        add_row(text, time, description, label.failed ? "" : label.bytes, qt_tree_get(tree, metric),
                description->unit);
        qt_text_finish(&label);
    }
}

static void add_histogram(struct qt_text *text, const char *time,
                          const struct qt_description *metric, const struct qt_reading *reading)
{
    add_row(text, time, metric, "count", reading->count, "1");
    add_row(text, time, metric, "sum", reading->value, metric->unit);
    add_row(text, time, metric, "p50", qt_quantile(reading, 500), metric->unit);
    add_row(text, time, metric, "p90", qt_quantile(reading, 900), metric->unit);
    add_row(text, time, metric, "p99", qt_quantile(reading, 990), metric->unit);
    add_row(text, time, metric, "max", reading->max, metric->unit);
}

static void add_workers(struct qt_text *text, const char *time, const struct qt_description *metric,
                        const struct qt_reading *reading)
{
    char worker[16];
    for (unsigned w = 0; w < reading->count; w++) {
        snprintf(worker, sizeof worker, "%u", w);
        add_row(text, time, metric, worker, reading->workers[w], metric->unit);
    }
}

static void encode(struct qt_text *text, int64_t time_ns)
{
    char date[32], time[64];
    time_t seconds = (time_t)(time_ns / 1000000000);
    struct tm utc;
    struct qt_reading reading;

    gmtime_r(&seconds, &utc);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(time, sizeof time, "%s.%03dZ", date, (int)(time_ns / 1000000 % 1000));
    const struct qt_tree *trees = qt_trees_lock();
    for (unsigned m = 0; m < QT_METRIC_COUNT; m++) {
        const struct qt_description *metric = &qt_descriptions[m];
        qt_read(m, &reading);
        if (metric->kind == QT_HISTOGRAM)
            add_histogram(text, time, metric, &reading);
        else if (qt_is_of_workers(m))
            add_workers(text, time, metric, &reading);
        else if (metric->kind == QT_TREE_GAUGE && trees)
            add_trees(text, time, m, trees);
        else
            add_row(text, time, metric, "", reading.value, metric->unit);
    }
    qt_trees_unlock();
}

const struct qt_encoder qt_encoder_csv = {
    .header = "time,metric,label,value,unit\n",
    .encode = encode,
};
