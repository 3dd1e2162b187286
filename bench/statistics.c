/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a number of runs says, without any assumption about how times are distributed.
 *
 * The interval of the median comes from order statistics: of n independent values the number below
 * the true median is binomial(n, 1/2), so the k-th smallest and the k-th greatest enclose it with
 * probability 1 - 2 P(B < k). The largest k that leaves 95 % is taken. With fewer than six values
 * no k does; then it is the least and the greatest, and `confidence` says how much that is worth.
 *
 * A value is an outlier if it is further from the median than 5 times what the deviation would be
 * if the values were normal (1.4826 times the median distance to the median), and by 10 % at least.
 */
#include <math.h>
#include <stdlib.h>

#include "bench/bench.h"
#include "runtime/error.h"

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double middle(const double *sorted, size_t count)
{
    return count % 2 ? sorted[count / 2] : (sorted[count / 2 - 1] + sorted[count / 2]) / 2;
}

/* The rank k (from 1) of the interval's lower end, and what the interval is worth. */
static size_t interval_rank(size_t count, double *confidence)
{
    double term = pow(0.5, (double)count), below = 0; /* below = P(B < k) */
    size_t k = 0;
    while (k + 1 <= (count + 1) / 2 && (k == 0 || 1 - 2 * (below + term) >= 0.95)) {
        below += term;
        k++;
        term *= (double)(count - k + 1) / (double)k;
    }
    *confidence = count == 1 ? 0 : 1 - 2 * below;
    return k;
}

static unsigned count_outliers(const double *sorted, size_t count, double median)
{
    double distances[512], limit;
    unsigned outliers = 0;
    qr_assert(count <= sizeof distances / sizeof *distances);
    for (size_t i = 0; i < count; i++)
        distances[i] = fabs(sorted[i] - median);
    qsort(distances, count, sizeof *distances, compare);
    limit = fmax(5 * 1.4826 * middle(distances, count), 0.1 * fabs(median));
    for (size_t i = 0; i < count; i++)
        outliers += distances[i] > limit;
    return outliers;
}

void qm_spread_of(double *values, size_t count, struct qm_spread *spread)
{
    qr_assert(count >= 1);
    qsort(values, count, sizeof *values, compare);
    *spread = (struct qm_spread){
        .median = middle(values, count), .minimum = values[0], .maximum = values[count - 1]};
    size_t rank = interval_rank(count, &spread->confidence);
    spread->low = values[rank - 1];
    spread->high = values[count - rank];
    spread->outliers = count_outliers(values, count, spread->median);
}
