/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The values of all metrics, and what an encoder needs to read them.
 *
 * Every value is one relaxed atomic: an update costs an uncontended add, never waits, and orders
 * nothing. Histograms have the buckets of telemetry/histogram.h. All metrics have room for buckets
 * and workers; the memory of those that use none is never touched and so never exists.
 */
#include <stdatomic.h>
#include <string.h>

#include "telemetry/encoder.h"

struct cell {
    _Atomic uint64_t value, count, max; /* as in struct qt_reading */
    union {
        _Atomic uint64_t buckets[QT_BUCKETS];
        _Atomic uint64_t workers[QT_WORKERS];
    };
};
static struct cell cells[QT_METRIC_COUNT];
static _Atomic uint64_t workers_time; /* of the last qt_workers_busy(); 0: there was none */

const struct qt_description qt_descriptions[QT_METRIC_COUNT] = {
#define DESCRIBE(id, name_, unit_, kind_, help_)                                                   \
    [QT_##id] = {.name = name_, .unit = unit_, .help = help_, .kind = kind_},
    QT_METRICS(DESCRIBE)
#undef DESCRIBE
};

static uint64_t load(const _Atomic uint64_t *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

static void store(_Atomic uint64_t *value, uint64_t new_value)
{
    atomic_store_explicit(value, new_value, memory_order_relaxed);
}

static void raise_to(_Atomic uint64_t *value, uint64_t least)
{
    uint64_t now = load(value);
    while (now < least && !atomic_compare_exchange_weak_explicit(
                              value, &now, least, memory_order_relaxed, memory_order_relaxed)) {
    }
}

static void add(_Atomic uint64_t *value, uint64_t amount)
{
    atomic_fetch_add_explicit(value, amount, memory_order_relaxed);
}

void qt_add(enum qt_metric metric, uint64_t amount) { add(&cells[metric].value, amount); }

void qt_set(enum qt_metric metric, uint64_t value)
{
    struct qt_tree *tree = qt_tree_of_thread(metric);
    store(tree ? &tree->values[metric] : &cells[metric].value, value);
}

uint64_t qt_get(enum qt_metric metric)
{
    struct cell *cell = &cells[metric];
    const struct qt_tree *tree = qt_tree_of_thread(metric);
    uint64_t sum = 0;
    if (tree)
        return qt_tree_get(tree, metric);
    if (!qt_is_of_workers(metric))
        return load(qt_descriptions[metric].kind == QT_HISTOGRAM ? &cell->count : &cell->value);
    for (uint64_t w = 0, count = load(&cell->count); w < count; w++)
        sum += load(&cell->workers[w]);
    return sum;
}

void qt_worker_set(enum qt_metric metric, unsigned worker, uint64_t value)
{
    if (worker >= QT_WORKERS)
        return;
    store(&cells[metric].workers[worker], value);
    raise_to(&cells[metric].count, worker + 1);
}

void qt_workers_known(uint64_t *busy_ns, size_t count)
{
    for (size_t w = 0; w < count && w < QT_WORKERS; w++)
        busy_ns[w] = load(&cells[QT_PER_WORKER_BUSY_SECONDS].workers[w]);
}

/* What part of `elapsed` one of its workers was busy, in billionths. What a worker reports late
 * would make it busier than possible. */
static uint64_t utilization(uint64_t busy, uint64_t elapsed)
{
    if (busy >= elapsed)
        return elapsed ? 1000000000 : 0;
    return (uint64_t)((double)busy / (double)elapsed * 1e9);
}

void qt_workers_busy(const uint64_t *busy_ns, unsigned count, uint64_t now_ns)
{
    struct cell *known = &cells[QT_PER_WORKER_BUSY_SECONDS];
    uint64_t before = load(&workers_time), sum = 0;
    uint64_t elapsed = before && now_ns > before ? now_ns - before : 0;
    unsigned shown = count < QT_WORKERS ? count : QT_WORKERS;

    for (unsigned w = 0; w < count; w++)
        sum += busy_ns[w];
    qt_set(QT_WORKER_BUSY_SECONDS, sum);
    for (unsigned w = 0; w < shown; w++) {
        uint64_t then = load(&known->workers[w]);
        uint64_t busy = busy_ns[w] > then ? busy_ns[w] - then : 0;
        qt_worker_set(QT_PER_WORKER_UTILIZATION, w, utilization(busy, elapsed));
        qt_worker_set(QT_PER_WORKER_BUSY_SECONDS, w, busy_ns[w]);
    }
    for (unsigned w = shown; w < load(&known->count); w++)
        qt_worker_set(QT_PER_WORKER_UTILIZATION, w, 0); /* there are fewer workers now */
    store(&workers_time, now_ns);
}

void qt_observe_ns(enum qt_metric histogram, uint64_t nanoseconds)
{
    struct cell *cell = &cells[histogram];
    add(&cell->value, nanoseconds);
    add(&cell->count, 1);
    add(&cell->buckets[qt_bucket_of(nanoseconds)], 1);
    raise_to(&cell->max, nanoseconds);
}

void qt_reset(void)
{
    for (unsigned m = 0; m < QT_METRIC_COUNT; m++) {
        struct cell *cell = &cells[m];
        for (uint64_t w = 0; qt_is_of_workers(m) && w < load(&cell->count); w++)
            store(&cell->workers[w], 0);
        for (unsigned b = 0; qt_descriptions[m].kind == QT_HISTOGRAM && b < QT_BUCKETS; b++)
            store(&cell->buckets[b], 0);
        store(&cell->value, 0);
        store(&cell->count, 0);
        store(&cell->max, 0);
    }
    store(&workers_time, 0);
}

void qt_read(enum qt_metric metric, struct qt_reading *reading)
{
    struct cell *cell = &cells[metric];
    memset(reading, 0, sizeof *reading);
    reading->value = load(&cell->value);
    reading->count = load(&cell->count);
    reading->max = load(&cell->max);
    for (unsigned b = 0; qt_descriptions[metric].kind == QT_HISTOGRAM && b < QT_BUCKETS; b++)
        reading->buckets[b] = load(&cell->buckets[b]);
    for (unsigned w = 0; qt_is_of_workers(metric) && w < reading->count; w++) {
        reading->workers[w] = load(&cell->workers[w]);
        reading->value += reading->workers[w];
    }
}

uint64_t qt_quantile(const struct qt_reading *reading, unsigned permille)
{
    return qt_buckets_quantile(reading->buckets, reading->max, permille);
}
