/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `qallow bench`: how fast this build is on this machine, beside what the machine can do.
 *
 * What can be measured is one table of cases (case.h). A case has two sides that do the same work:
 * Qallow, and a reference: the floor (the least C that does the job), a limit of the machine, the
 * same with one thread, or another program. Both are measured in turns in one run, so that whatever
 * disturbs the machine disturbs both, and what is judged and compared is their ratio.
 * Everything else here is the same for all cases: the turns, medians and intervals (statistics.c,
 * measure.c), the scratch directory (run.c), the reports and the comparison with earlier ones.
 *
 * Nothing here prints; interface/cmd_bench.c does. Not thread-safe: one bench at a time.
 */
#ifndef QM_BENCH_H
#define QM_BENCH_H

#include <cjson/cJSON.h>
#include <stddef.h>
#include <stdint.h>

#include "telemetry/encoder.h"

/* --- what can be measured --- */

enum qm_tier { QM_SMOKE, QM_FULL }; /* of a case: the least tier that runs it */

/* How seconds and operations become a figure. */
struct qm_unit {
    const char *name;
    double scale;
    int lower_is_better; /* seconds an operation; else operations a second */
};

enum qm_judged { QM_NOTHING, QM_RATIO, QM_FIGURE };
struct qm_target {
    enum qm_judged judged;
    double value; /* at most, if lower is better for the unit; else at least */
};

struct qm_peer; /* peer.h */
struct qm_context;
struct qm_sample;

/* What a family does for its cases. `reference_run` is NULL without a reference; `finish` is called
 * also after a setup that failed half-way. All but finish return 0 or a QALLOW_E_*. */
struct qm_work {
    int (*setup)(struct qm_context *context);
    int (*run)(struct qm_context *context, uint64_t repeats, struct qm_sample *sample);
    int (*reference_run)(struct qm_context *context, uint64_t repeats, struct qm_sample *sample);
    void (*finish)(struct qm_context *context);
};

struct qm_case {
    const char *name;      /* family/what-how: stable, reports are compared by it */
    const char *title;     /* for people, short */
    const char *reference; /* what stands beside it, short; NULL without a reference_run */
    const char *what;      /* one or two sentences: what is done and what the reference does */
    const struct qm_unit *unit;
    struct qm_target target;
    const struct qm_work *work;
    uint64_t size, smoke_size; /* what it means is the family's; smoke_size 0: as size */
    enum qm_tier tier;
    unsigned threads;           /* 0: one; QM_ALL_THREADS: as --threads says */
    int fixed;                  /* one repetition a run, however short */
    const struct qm_peer *peer; /* whom it needs, or NULL */
    const char *series; /* cases of one series are one plot over `size`; its name, or NULL */
};
#define QM_ALL_THREADS UINT32_MAX

/* The i-th case of all, NULL at the end. The order is that of the reports. */
const struct qm_case *qm_case_at(size_t i);

/* The peers: a set of bits in the order of their names. */
const char *qm_peer_name(unsigned i); /* NULL at the end */
/* One line about a peer that cannot be used: what is missing and how it is installed. Returns 1 and
 * its version in `text` if it can. */
int qm_peer_find(unsigned i, char *text, size_t size);

/* What a child process does for the peer jemalloc: the seconds of so many pairs of malloc and free
 * with memset between. UNAVAILABLE if jemalloc is not in this process. */
int qm_malloc_pairs(uint64_t repeats, uint64_t size, double *seconds);

/* --- statistics --- */

/* Of a number of runs: the median, an interval that holds the true median with a confidence of at
 * least 95 % (from order statistics, whatever the distribution; with fewer than six runs the least
 * and the greatest value, see `confidence`), and how many values lie far from all others. */
struct qm_spread {
    double median, low, high, minimum, maximum;
    double confidence;
    unsigned outliers;
};
/* `values` are sorted by it. count >= 1. */
void qm_spread_of(double *values, size_t count, struct qm_spread *spread);

/* --- results --- */

struct qm_result {
    const struct qm_case *what;
    uint64_t size;
    unsigned threads, runs;
    struct qm_spread figure, reference, ratio; /* the last two only if what->reference */
    int status;                                /* 0, or why there is no result */
    char detail[256];                          /* of the failure */
};
/* 1 reached, 0 missed, -1 there is no target. */
int qm_result_reached(const struct qm_result *result);

struct qm_machine {
    char cpu[96], kernel[96], compiler[96], memory[32], version[32];
    const char *kernels; /* of backend/kernels.h: "avx512" */
    unsigned cpus;
    double load; /* average of the last minute, when the bench began */
};
void qm_machine_look(struct qm_machine *machine);

/* --- running --- */

struct qm_options {
    const char *const *filters; /* names that hold one of these, or match it as a pattern */
    size_t filter_count;
    enum qm_tier tier;
    unsigned runs;              /* 0: as the tier has it */
    unsigned threads;           /* 0: as many as there are processors */
    unsigned peers;             /* set of bits */
    int cpu_time;               /* by this process's processor time, not the time that passes */
    const char *directory;      /* where the scratch directory is made */
    int (*stop)(void *context); /* asked often: a QALLOW_E_* to end at once, else 0; may be NULL */
    void (*progress)(void *context, const struct qm_case *now, size_t done, size_t count);
    void *context;
};
/* Is the case one of those that the options ask for? */
int qm_selected(const struct qm_options *options, const struct qm_case *what);
size_t qm_count(const struct qm_options *options); /* how many are */
unsigned qm_cpus(void);                            /* that this process may use */

struct qm_report {
    struct qm_machine machine;
    enum qm_tier tier;
    int cpu_time;
    int64_t time_ns;
    struct qm_result *results;
    size_t count, capacity;
};
/* Runs what is selected. A case that fails is a result with its status, and the others go on; only
 * being stopped, or having no scratch directory, ends it. What it has made is removed in any case.
 * The report is finished by the caller also on failure. */
int qm_run(const struct qm_options *options, struct qm_report *report);
void qm_report_finish(struct qm_report *report);

/* --- reports, and earlier ones --- */

/* The report as an object with schema "qallow.bench"; the caller deletes it. */
cJSON *qm_report_json(const struct qm_report *report);
/* Long form: one line a value; docs/performance/README.md. */
void qm_report_csv(const struct qm_report *report, struct qt_text *text);

/* An earlier report, from a file. */
struct qm_past {
    char name[64];
    double ratio, figure, reference; /* medians; ratio 0: there was none */
    uint64_t size;
};
struct qm_baseline {
    char *path;
    char cpu[96], time[40], version[32];
    int cpu_time;
    struct qm_past *items;
    size_t count;
};
/* NO_INPUT, IO; SERIALIZATION if it is not a report of `qallow bench`, VERSION if of a newer one.
 * Finished by the caller also on failure. */
int qm_baseline_load(const char *path, struct qm_baseline *baseline);
void qm_baseline_finish(struct qm_baseline *baseline);

/* The case of this name and size in it; NULL if there is none. */
const struct qm_past *qm_baseline_find(const struct qm_baseline *baseline, const char *name,
                                       uint64_t size);

/* How a case stands beside an earlier report. */
struct qm_change {
    const struct qm_result *now;
    const struct qm_past *then;
    double worse; /* 0.15: the ratio is worse by 15 %; negative: better */
};
/* For every case that both have, with the same size: an array (qr_free) and its length. */
int qm_compare(const struct qm_report *report, const struct qm_baseline *baseline,
               struct qm_change **changes, size_t *count);

/* One page that needs nothing else: bars for each case, plots of series, history. */
int qm_report_html(const struct qm_report *report, const struct qm_baseline *baselines,
                   size_t baseline_count, struct qt_text *text);

/* Writes text to a file; the file is whole or as it was before. */
int qm_write_file(const char *path, const char *bytes, size_t length);

/* "2026-11-21T10:17:00Z" */
enum { QM_TIME_MAX = 40 };
const char *qm_format_time(int64_t ns, char text[QM_TIME_MAX]);

/* A number with three significant digits, as people read it: "1,234", "12.3", "0.045". */
enum { QM_NUMBER_MAX = 40 };
const char *qm_number(double value, char text[QM_NUMBER_MAX]);

#endif
