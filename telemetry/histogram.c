/* SPDX-License-Identifier: Apache-2.0 */
/* Buckets, what falls into them, and quantiles (telemetry/histogram.h). */
#include "telemetry/histogram.h"

unsigned qt_bucket_of(uint64_t value)
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

uint64_t qt_buckets_quantile(const uint64_t *buckets, uint64_t max, unsigned permille)
{
    uint64_t total = 0, seen = 0, rank;
    for (unsigned b = 0; b < QT_BUCKETS; b++)
        total += buckets[b];
    if (total == 0)
        return 0;
    rank = total / 1000 * permille + (total % 1000 * permille + 999) / 1000;
    if (rank == 0)
        rank = 1;
    for (unsigned b = 0; b < QT_BUCKETS; b++) {
        seen += buckets[b];
        if (seen >= rank) {
            uint64_t upper = qt_bucket_upper(b);
            return upper < max ? upper : max;
        }
    }
    return max;
}

void qt_histogram_observe(struct qt_histogram *histogram, uint64_t value, uint64_t times)
{
    if (times == 0)
        return;
    histogram->sum += value * times;
    histogram->count += times;
    histogram->buckets[qt_bucket_of(value)] += times;
    if (value > histogram->max)
        histogram->max = value;
}

uint64_t qt_histogram_quantile(const struct qt_histogram *histogram, unsigned permille)
{
    return qt_buckets_quantile(histogram->buckets, histogram->max, permille);
}

uint64_t qt_histogram_mean(const struct qt_histogram *histogram)
{
    return histogram->count ? histogram->sum / histogram->count : 0;
}
