/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Measures one case: sets it up, finds out how often a run must repeat the operation to be timed
 * well (which warms everything up), then runs Qallow and the reference in turns, each first in
 * every other turn. The ratio is taken turn by turn, so that a slow drift of the machine cancels.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bench/case.h"
#include "runtime/error.h"

enum { RUNS_MAX = 500 };

typedef int (*runner)(struct qm_context *context, uint64_t repeats, struct qm_sample *sample);

/* Seconds that a run lasts at least. */
static double shortest(const struct qm_context *context)
{
    return context->options->tier == QM_SMOKE ? 0.008 : 0.05;
}

static int run_once(struct qm_context *context, runner run, uint64_t repeats, double *figure,
                    double *seconds)
{
    const struct qm_unit *unit = context->what->unit;
    struct qm_sample sample = {0};
    int rc = qm_stopped(context);
    if (rc == 0)
        rc = run(context, repeats, &sample);
    if (rc < 0)
        return rc;
    if (!(sample.seconds > 0) || !(sample.operations > 0))
        return qr_fail(QALLOW_E_INTERNAL, "a run took no time, or did nothing");
    double rate = sample.operations / sample.seconds;
    *figure = (unit->lower_is_better ? 1 / rate : rate) * unit->scale;
    *seconds = sample.seconds;
    return 0;
}

static int calibrate(struct qm_context *context, runner run, uint64_t *repeats)
{
    double figure = 0, seconds = 0;
    for (*repeats = 1;;) {
        int rc = run_once(context, run, *repeats, &figure, &seconds);
        if (rc < 0 || context->what->fixed || seconds >= shortest(context))
            return rc;
        double factor = 1.2 * shortest(context) / seconds;
        *repeats = (uint64_t)ceil((double)*repeats * fmin(fmax(factor, 1.3), 100));
    }
}

struct turns {
    double figure[RUNS_MAX], reference[RUNS_MAX], ratio[RUNS_MAX];
};

static int take_turns(struct qm_context *context, unsigned runs, struct turns *turns)
{
    const struct qm_case *what = context->what;
    uint64_t repeats[2] = {1, 1};
    runner sides[2] = {what->work->run, what->work->reference_run};
    unsigned side_count = what->work->reference_run ? 2 : 1;
    int rc = 0;
    for (unsigned side = 0; rc == 0 && side < side_count; side++)
        rc = calibrate(context, sides[side], &repeats[side]);
    for (unsigned i = 0; rc == 0 && i < runs; i++) {
        double *figures[2] = {&turns->figure[i], &turns->reference[i]}, seconds;
        for (unsigned n = 0; rc == 0 && n < side_count; n++) {
            unsigned side = side_count == 2 ? (i + n) % 2 : 0;
            rc = run_once(context, sides[side], repeats[side], figures[side], &seconds);
        }
        if (rc == 0 && side_count == 2)
            turns->ratio[i] = turns->figure[i] / turns->reference[i];
    }
    return rc;
}

int qm_measure(struct qm_context *context, unsigned runs, struct qm_result *result)
{
    struct turns turns;
    int rc;
    qr_assert(runs >= 1 && runs <= RUNS_MAX);
    *result = (struct qm_result){
        .what = context->what, .size = context->size, .threads = context->threads, .runs = runs};
    rc = context->what->work->setup(context);
    if (rc == 0)
        rc = take_turns(context, runs, &turns);
    result->status = rc;
    if (rc < 0)
        snprintf(result->detail, sizeof result->detail, "%s", qallow_error_detail());
    context->what->work->finish(context);
    if (rc < 0)
        return rc;
    qm_spread_of(turns.figure, runs, &result->figure);
    if (context->what->work->reference_run) {
        qm_spread_of(turns.reference, runs, &result->reference);
        qm_spread_of(turns.ratio, runs, &result->ratio);
    }
    return 0;
}

int qm_result_reached(const struct qm_result *result)
{
    const struct qm_target *target = &result->what->target;
    double value = target->judged == QM_RATIO ? result->ratio.median : result->figure.median;
    if (target->judged == QM_NOTHING || result->status < 0)
        return -1;
    return result->what->unit->lower_is_better ? value <= target->value : value >= target->value;
}
