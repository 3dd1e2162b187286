/* SPDX-License-Identifier: Apache-2.0 */
/* The report as CSV in long form: time,case,quantity,value,unit, with a header; RFC 4180. */
#include "bench/bench.h"

static void add_row(struct qt_text *text, const char *time, const struct qm_result *result,
                    const char *of, const char *quantity, double value, const char *unit)
{
    qt_text_add(text, "%s,%s,%s%s,%.9g,%s\r\n", time, result->what->name, of, quantity, value,
                unit);
}

static void add_spread(struct qt_text *text, const char *time, const struct qm_result *result,
                       const char *of, const struct qm_spread *spread, const char *unit)
{
    add_row(text, time, result, of, "_median", spread->median, unit);
    add_row(text, time, result, of, "_low", spread->low, unit);
    add_row(text, time, result, of, "_high", spread->high, unit);
    add_row(text, time, result, of, "_minimum", spread->minimum, unit);
    add_row(text, time, result, of, "_maximum", spread->maximum, unit);
    add_row(text, time, result, of, "_outliers", spread->outliers, "1");
}

void qm_report_csv(const struct qm_report *report, struct qt_text *text)
{
    char time[QM_TIME_MAX];
    qm_format_time(report->time_ns, time);
    qt_text_add(text, "time,case,quantity,value,unit\r\n");
    for (size_t i = 0; i < report->count; i++) {
        const struct qm_result *r = &report->results[i];
        const struct qm_target *target = &r->what->target;
        const char *unit = r->what->unit->name;
        add_row(text, time, r, "", "status", r->status, "1");
        if (r->status < 0)
            continue;
        add_spread(text, time, r, "figure", &r->figure, unit);
        if (r->what->reference) {
            add_spread(text, time, r, "reference", &r->reference, unit);
            add_spread(text, time, r, "ratio", &r->ratio, "1");
        }
        if (target->judged == QM_NOTHING)
            continue;
        add_row(text, time, r, "target_", target->judged == QM_RATIO ? "ratio" : "figure",
                target->value, target->judged == QM_RATIO ? "1" : unit);
        add_row(text, time, r, "", "reached", qm_result_reached(r), "1");
    }
}
