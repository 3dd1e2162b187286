/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Histograms of whole numbers, mostly nanoseconds. Buckets are log-linear, eight for each power of
 * two, so that no range has to be chosen and a bucket's upper bound is at most 12.5 % above what
 * was observed. The metrics of the process have the same buckets, as atomics (telemetry.h).
 */
#ifndef QT_HISTOGRAM_H
#define QT_HISTOGRAM_H

#include <stdint.h>

enum { QT_BUCKETS = 496 };

unsigned qt_bucket_of(uint64_t value);
uint64_t qt_bucket_upper(unsigned bucket); /* the largest value that falls into it */
/* An upper bound of the value below which `permille` of what is in the QT_BUCKETS buckets lies; 0
 * if there is nothing in them. Never above `max`. */
uint64_t qt_buckets_quantile(const uint64_t *buckets, uint64_t max, unsigned permille);

/* A histogram of whoever has it: one thread at a time. Zero-initialise. */
struct qt_histogram {
    uint64_t sum, count, max;
    uint64_t buckets[QT_BUCKETS];
};
/* `value` was observed so many times. */
void qt_histogram_observe(struct qt_histogram *histogram, uint64_t value, uint64_t times);
uint64_t qt_histogram_quantile(const struct qt_histogram *histogram, unsigned permille);
uint64_t qt_histogram_mean(const struct qt_histogram *histogram); /* 0 if there is nothing */

#endif
