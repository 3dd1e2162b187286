/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The values of all metrics, and what an encoder needs to read them.
 *
 * Every value is one relaxed atomic: an update costs an uncontended add, never waits, and orders
 * nothing. A histogram has log-linear buckets (eight per power of two), so it needs no range to be
 * chosen beforehand and its quantiles are right to 12.5 %. All metrics have room for buckets; the
 * memory of those that use none is never touched and so never exists.
 */
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "telemetry/encoder.h"

struct cell {
    _Atomic uint64_t value, count, max;
    _Atomic uint64_t buckets[QT_BUCKETS];
};
static struct cell cells[QT_METRIC_COUNT];

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

static void add(_Atomic uint64_t *value, uint64_t amount)
{
    atomic_fetch_add_explicit(value, amount, memory_order_relaxed);
}

void qt_add(enum qt_metric metric, uint64_t amount) { add(&cells[metric].value, amount); }

void qt_set(enum qt_metric metric, uint64_t value)
{
    atomic_store_explicit(&cells[metric].value, value, memory_order_relaxed);
}

uint64_t qt_get(enum qt_metric metric)
{
    return load(qt_descriptions[metric].kind == QT_HISTOGRAM ? &cells[metric].count
                                                             : &cells[metric].value);
}

static unsigned bucket_of(uint64_t value)
{
    if (value < 8)
        return (unsigned)value;
    unsigned exponent = 63u - (unsigned)__builtin_clzll(value);
    return (exponent - 2) * 8 + (unsigned)(value >> (exponent - 3) & 7);
}

uint64_t qt_bucket_upper(unsigned bucket)
{
    if (bucket < 8)
        return bucket;
    /* For the last bucket the shift leaves 2^64 = 0, and minus one the largest value: right. */
    return ((8 + bucket % 8 + UINT64_C(1)) << (bucket / 8 - 1)) - 1;
}

void qt_observe_ns(enum qt_metric histogram, uint64_t nanoseconds)
{
    struct cell *cell = &cells[histogram];
    uint64_t max = load(&cell->max);
    add(&cell->value, nanoseconds);
    add(&cell->count, 1);
    add(&cell->buckets[bucket_of(nanoseconds)], 1);
    while (max < nanoseconds &&
           !atomic_compare_exchange_weak_explicit(&cell->max, &max, nanoseconds,
                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
}

void qt_reset(void)
{
    for (unsigned m = 0; m < QT_METRIC_COUNT; m++) {
        struct cell *cell = &cells[m];
        atomic_store_explicit(&cell->value, 0, memory_order_relaxed);
        atomic_store_explicit(&cell->count, 0, memory_order_relaxed);
        atomic_store_explicit(&cell->max, 0, memory_order_relaxed);
        for (unsigned b = 0; qt_descriptions[m].kind == QT_HISTOGRAM && b < QT_BUCKETS; b++)
            atomic_store_explicit(&cell->buckets[b], 0, memory_order_relaxed);
    }
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
}

uint64_t qt_quantile(const struct qt_reading *reading, unsigned permille)
{
    uint64_t total = 0, seen = 0, rank;
    for (unsigned b = 0; b < QT_BUCKETS; b++)
        total += reading->buckets[b];
    if (total == 0)
        return 0;
    rank = total / 1000 * permille + (total % 1000 * permille + 999) / 1000;
    if (rank == 0)
        rank = 1;
    for (unsigned b = 0; b < QT_BUCKETS; b++) {
        seen += reading->buckets[b];
        if (seen >= rank) {
            uint64_t upper = qt_bucket_upper(b);
            return upper < reading->max ? upper : reading->max;
        }
    }
    return reading->max;
}

/* --- text --- */

void qt_text_add(struct qt_text *text, const char *format, ...)
{
    va_list arguments;
    for (;;) {
        size_t room = text->capacity - text->length;
        if (text->failed)
            return;
        va_start(arguments, format);
        int length = vsnprintf(room ? text->bytes + text->length : NULL, room, format, arguments);
        va_end(arguments);
        if (length < 0) {
            text->failed = 1;
            return;
        }
        if ((size_t)length < room) {
            text->length += (size_t)length;
            return;
        }
        size_t capacity = text->capacity * 2 + (size_t)length + 1;
        char *bytes = realloc(text->bytes, capacity);
        text->failed = !bytes;
        text->bytes = bytes ? bytes : text->bytes;
        text->capacity = bytes ? capacity : text->capacity;
    }
}

void qt_text_finish(struct qt_text *text)
{
    free(text->bytes);
    memset(text, 0, sizeof *text);
}

void qt_text_add_value(struct qt_text *text, const char *unit, uint64_t value)
{
    unsigned long long v = value, second = 1000000000;
    if (strcmp(unit, "seconds") == 0)
        qt_text_add(text, "%llu.%09llu", v / second, v % second);
    else
        qt_text_add(text, "%llu", v);
}
