/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text that Prometheus scrapes and that node_exporter's textfile collector picks up: exposition
 * format 0.0.4, names with "qallow_" before them, no timestamps (the collector refuses them). The
 * label `process` is on every sample, so that the files of several processes can be collected
 * together; what each tree has of its own has the label `tree`, too.
 *
 *     # HELP qallow_log_sync_seconds duration of a sync
 *     # TYPE qallow_log_sync_seconds histogram
 *     qallow_log_sync_seconds_bucket{process="/srv",le="0.000001023"} 0
 *     ...
 *     qallow_log_sync_seconds_bucket{process="/srv",le="+Inf"} 12
 *     qallow_log_sync_seconds_sum{process="/srv"} 0.024000000
 *     qallow_log_sync_seconds_count{process="/srv"} 12
 *
 * A bound 2^n - 1 ns is where one of our buckets ends, so the counts at the bounds are exact. They
 * go in powers of two from a microsecond, about a wake-up, to a minute. The count is the sum of
 * the buckets that were read, not the counter beside them: the two differ while somebody observes,
 * and the format wants it to be the last bucket.
 */
#include <stdio.h>

#include "telemetry/encoder.h"

enum { FIRST_BOUND = 10, LAST_BOUND = 36 };

static const char *const types[] = {
    [QT_COUNTER] = "counter",        [QT_GAUGE] = "gauge",        [QT_HISTOGRAM] = "histogram",
    [QT_WORKER_COUNTER] = "counter", [QT_WORKER_GAUGE] = "gauge", [QT_TREE_GAUGE] = "gauge",
};

/* What the samples of one metric have in common. */
struct family {
    struct qt_text *text;
    const struct qt_description *metric;
    const char *process; /* process="...", or nothing */
};

static void add_escaped(struct qt_text *text, const char *value)
{
    for (; *value; value++) {
        if (*value == '\n')
            qt_text_add(text, "\\n");
        else
            qt_text_add(text, "%s%c", *value == '\\' || *value == '"' ? "\\" : "", *value);
    }
}

/* One line. `label` may be NULL. */
static void add_sample(const struct family *family, const char *suffix, const char *label,
                       const char *label_value, const char *unit, uint64_t value)
{
    struct qt_text *text = family->text;
    qt_text_add(text, "qallow_%s%s", family->metric->name, suffix);
    if (*family->process || label)
        qt_text_add(text, "{%s", family->process);
    if (label) {
        qt_text_add(text, "%s%s=\"", *family->process ? "," : "", label);
        add_escaped(text, label_value);
        qt_text_add(text, "\"");
    }
    qt_text_add(text, *family->process || label ? "} " : " ");
    qt_text_add_value(text, unit, value);
    qt_text_add(text, "\n");
}

static void add_histogram(const struct family *family, const struct qt_reading *reading)
{
    uint64_t count = 0;
    unsigned b = 0;
    char bound[32];
    for (unsigned n = FIRST_BOUND; n <= LAST_BOUND; n++) {
        unsigned long long last = (UINT64_C(1) << n) - 1, second = 1000000000;
        for (; qt_bucket_upper(b) <= last; b++)
            count += reading->buckets[b];
        snprintf(bound, sizeof bound, "%llu.%09llu", last / second, last % second);
        add_sample(family, "_bucket", "le", bound, "1", count);
    }
    for (; b < QT_BUCKETS; b++)
        count += reading->buckets[b];
    add_sample(family, "_bucket", "le", "+Inf", "1", count);
    add_sample(family, "_sum", NULL, NULL, family->metric->unit, reading->value);
    add_sample(family, "_count", NULL, NULL, "1", count);
}

static void add_workers(const struct family *family, const struct qt_reading *reading)
{
    char worker[16];
    for (unsigned w = 0; w < reading->count; w++) {
        snprintf(worker, sizeof worker, "%u", w);
        add_sample(family, "", "worker", worker, family->metric->unit, reading->workers[w]);
    }
}

static void add_trees(const struct family *family, enum qt_metric metric,
                      const struct qt_tree *trees)
{
    for (const struct qt_tree *tree = trees; tree; tree = tree->next)
        add_sample(family, "", "tree", tree->name, family->metric->unit, qt_tree_get(tree, metric));
}

static void add_family(const struct family *family, enum qt_metric metric,
                       const struct qt_tree *trees)
{
    const char *name = family->metric->name;
    struct qt_reading reading;
    qt_read(metric, &reading);
    if (qt_is_of_workers(metric) && reading.count == 0)
        return;
    /* The table's texts need no escapes (a test holds that). */
    qt_text_add(family->text, "# HELP qallow_%s %s\n", name, family->metric->help);
    qt_text_add(family->text, "# TYPE qallow_%s %s\n", name, types[family->metric->kind]);
    if (family->metric->kind == QT_HISTOGRAM)
        add_histogram(family, &reading);
    else if (qt_is_of_workers(metric))
        add_workers(family, &reading);
    else if (family->metric->kind == QT_TREE_GAUGE && trees)
        add_trees(family, metric, trees);
    else
        add_sample(family, "", NULL, NULL, family->metric->unit, reading.value);
}

void qt_prometheus_encode(struct qt_text *text, const char *process)
{
    struct qt_text label = {0};
    if (process) {
        qt_text_add(&label, "process=\"");
        add_escaped(&label, process);
        qt_text_add(&label, "\"");
    }
    text->failed |= label.failed;
    const struct qt_tree *trees = qt_trees_lock();
    for (unsigned m = 0; m < QT_METRIC_COUNT && !text->failed; m++) {
        struct family family = {text, &qt_descriptions[m], process ? label.bytes : ""};
        add_family(&family, m, trees);
    }
    qt_trees_unlock();
    qt_text_finish(&label);
}

static void encode(struct qt_text *text, int64_t time_ns) { qt_prometheus_encode(text, NULL); }

const struct qt_encoder qt_encoder_prometheus = {.header = "", .encode = encode};
