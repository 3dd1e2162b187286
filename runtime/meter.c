/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bodies and commits enter the meter (runtime/meter.h).
 *
 * A delta may reach over several bodies, and a body may have none, for instance when it creates
 * pages. The time of a body is divided by the deltas that end in it; the time of bodies in which a
 * large delta is under way goes to the one in which it ends.
 *
 * The clock is the system's, which may be set. A step backwards counts as no time.
 */
#include "runtime/meter.h"

#include <string.h>

#include "runtime/os.h"

#ifdef QR_NO_METER

int64_t qr_meter_now(const struct qr_meter *meter) { return 0; }

void qr_meter_body(struct qr_meter *meter, struct qr_apply_counts *counts, int open, int64_t began)
{
}

void qr_meter_commit(struct qr_meter *meter, int64_t began, int64_t ended) {}

#else

int64_t qr_meter_now(const struct qr_meter *meter) { return meter->os->now_ns(meter->os->context); }

static uint64_t elapsed(int64_t began, int64_t ended)
{
    return ended > began ? (uint64_t)(ended - began) : 0;
}

/* Adds the counts; returns how many deltas ended. */
static uint64_t take_counts(struct qr_apply_counts *sum, const struct qr_apply_counts *more)
{
    uint64_t deltas = 0;
    for (unsigned i = 0; i < QR_METER_OPERATIONS; i++)
        sum->operations[i] += more->operations[i];
    for (unsigned i = 0; i < QR_METER_KINDS; i++) {
        sum->deltas[i] += more->deltas[i];
        deltas += more->deltas[i];
    }
    sum->delta_bytes += more->delta_bytes;
    sum->images += more->images;
    return deltas;
}

void qr_meter_body(struct qr_meter *meter, struct qr_apply_counts *counts, int open, int64_t began)
{
    uint64_t ns = elapsed(began, qr_meter_now(meter));
    uint64_t deltas = take_counts(&meter->counts, counts);
    memset(counts, 0, sizeof *counts);
    qt_histogram_observe(&meter->body, ns, 1);
    if (deltas) {
        qt_histogram_observe(&meter->delta, (meter->open_ns + ns) / deltas, deltas);
        meter->open_ns = 0;
    } else {
        meter->open_ns = open ? meter->open_ns + ns : 0;
    }
}

void qr_meter_commit(struct qr_meter *meter, int64_t began, int64_t ended)
{
    qt_histogram_observe(&meter->commit, elapsed(began, ended), 1);
}

#endif

void qr_meter_reset(struct qr_meter *meter)
{
    const struct qr_os *os = meter->os;
    memset(meter, 0, sizeof *meter);
    meter->os = os;
}
