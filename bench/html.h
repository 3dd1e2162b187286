/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of the HTML page: charts as inline SVG (html_chart.c), put together by report_html.c.
 * Colours are classes, so that light, dark and paper are matters of the style sheet alone. */
#ifndef QM_HTML_H
#define QM_HTML_H

#include "bench/bench.h"

/* Text with &, <, > and quotes written out. */
void qm_html_escape(struct qt_text *text, const char *plain);

/* Two bars, Qallow's with its interval and the reference's, and a mark where the target is. */
void qm_chart_bars(struct qt_text *text, const struct qm_result *result);
/* The figures of a series over its size, both axes logarithmic, with the target as a line. */
void qm_chart_series(struct qt_text *text, const struct qm_result *results, size_t count,
                     const char *series);
/* The ratio of one case in each of the earlier reports that have it, and now. */
void qm_chart_history(struct qt_text *text, const struct qm_result *result,
                      const struct qm_baseline *baselines, size_t baseline_count);

/* "0.97 ×", "target ≥ 0.9 ×", as in all parts of the page. */
void qm_html_target(struct qt_text *text, const struct qm_case *what);

#endif
