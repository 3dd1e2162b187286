/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The seam between the metrics and the formats they are written in. An encoder turns one pass over
 * the table (qt_descriptions, qt_read) into text; where the text goes is not its business. There
 * are CSV and Prometheus; another format is one more file with one more struct qt_encoder.
 */
#ifndef QT_ENCODER_H
#define QT_ENCODER_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "telemetry/histogram.h"
#include "telemetry/telemetry.h"

struct qt_description {
    const char *name, *unit, *help;
    enum qt_kind kind;
};
extern const struct qt_description qt_descriptions[QT_METRIC_COUNT];

/* One metric at one moment. Updates that happen during the reading may be in some of the numbers
 * and not in others. */
struct qt_reading {
    uint64_t value; /* counter or gauge; of a histogram or of workers the sum */
    uint64_t count; /* of a histogram: what was observed; else the number of workers */
    uint64_t max;
    union {
        uint64_t buckets[QT_BUCKETS];
        uint64_t workers[QT_WORKERS];
    };
};
void qt_read(enum qt_metric metric, struct qt_reading *reading);
static inline int qt_is_of_workers(enum qt_metric metric)
{
    enum qt_kind kind = qt_descriptions[metric].kind;
    return kind == QT_WORKER_COUNTER || kind == QT_WORKER_GAUGE;
}
/* What the workers were busy as of the last qt_workers_busy(). */
void qt_workers_known(uint64_t *busy_ns, size_t count);

struct qt_tree {
    struct qt_tree *next;
    _Atomic uint64_t values[QT_METRIC_COUNT]; /* of the metrics per tree */
    unsigned first_worker, workers;           /* its range among those of the process */
    void (*refresh)(void *context, uint64_t *busy_ns);
    void *context;
    char name[];
};
uint64_t qt_tree_get(const struct qt_tree *tree, enum qt_metric metric);
/* The tree whose value the present thread means; NULL if it is that of the process. */
struct qt_tree *qt_tree_of_thread(enum qt_metric metric);
/* An upper bound of the value below which `permille` of the observations lie; 0 if there are
 * none. */
uint64_t qt_quantile(const struct qt_reading *reading, unsigned permille);

/* Text being built. Zero-initialise, free with qt_text_finish. After a failed allocation `failed`
 * is set and further additions do nothing. */
struct qt_text {
    char *bytes;
    size_t length, capacity;
    int failed;
};
void qt_text_add(struct qt_text *text, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void qt_text_finish(struct qt_text *text);
/* A value as its unit wants it: seconds from nanoseconds, and ratios, with nine decimals, else the
 * integer. */
void qt_text_add_value(struct qt_text *text, const char *unit, uint64_t value);

struct qt_encoder {
    const char *header; /* first line of a file in this format, with its newline; "" for none */
    /* Appends the whole table as of `time_ns` (since 1970). */
    void (*encode)(struct qt_text *text, int64_t time_ns);
};
extern const struct qt_encoder qt_encoder_csv, qt_encoder_prometheus;
/* What qt_encoder_prometheus does, with a label `process` on every sample unless it is NULL. */
void qt_prometheus_encode(struct qt_text *text, const char *process);

/* All of it to an open file: 0 or -errno. */
int qt_write_all(int file, const char *bytes, size_t length);

#endif
