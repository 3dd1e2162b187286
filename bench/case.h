/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the authors of cases. A family is one file case_NAME.c with a table of struct qm_case that
 * ends with {0}, declared here and listed in cases.c.
 *
 * The two runs get how often to repeat their operation (as often as makes a run long enough to be
 * timed; 1 if the case is `fixed`), take the time of exactly what the case is about themselves, and
 * fill the sample. They are called in turns, and several times before anything counts.
 */
#ifndef QM_CASE_H
#define QM_CASE_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "bench/bench.h"
#include "runtime/error.h"

extern const struct qm_case qm_kernel_cases[], qm_page_cases[], qm_digest_cases[],
    qm_commit_cases[], qm_log_cases[], qm_recovery_cases[], qm_checkpoint_cases[],
    qm_replay_cases[], qm_tensor_cases[], qm_propagate_cases[], qm_vm_cases[], qm_cache_cases[],
    qm_scaling_cases[], qm_redis_cases[], qm_git_cases[], qm_lmdb_cases[], qm_sqlite_cases[],
    qm_jemalloc_cases[];

extern const struct qm_unit qm_gb_s, qm_mb_s, qm_million_s, qm_thousand_s, qm_ns, qm_us, qm_ms;

struct qm_context {
    const struct qm_case *what;
    const struct qm_options *options;
    const char *directory; /* empty; the case's own; removed behind it with all that is in it */
    uint64_t size;
    unsigned threads; /* >= 1 */
    void *state;      /* the case's */
};

struct qm_sample {
    double seconds, operations;
};

int qm_measure(struct qm_context *context, unsigned runs, struct qm_result *result);

/* A QALLOW_E_* if the user wants to stop: to be asked in everything that takes longer than a blink.
 */
int qm_stopped(const struct qm_context *context);

/* Seconds by the clock that the options ask for. */
extern clockid_t qm_clock;
static inline double qm_now(void)
{
    struct timespec t;
    clock_gettime(qm_clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* SplitMix64. */
static inline uint64_t qm_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}
void qm_random_fill(uint64_t *state, void *bytes, size_t length);

/* The compiler takes what p points to as read and written. */
static inline void qm_keep(const void *p) { __asm__ volatile("" : : "g"(p) : "memory"); }

/* NO_MEMORY with a detail. */
int qm_no_memory(void);
/* Memory that was touched, in huge pages where the system has them; NULL is legal to unmap. */
int qm_map(size_t length, uint8_t **bytes);
void qm_unmap(uint8_t *bytes, size_t length);

/* Removes a directory and all that is in it; one that does not exist is none. */
int qm_remove_tree(const char *path);

/* "DIRECTORY/name" of the case's directory; one of four buffers, used in turn. */
const char *qm_path(const struct qm_context *context, const char *name);

/* Runs `work` in `threads` threads at once, each with its number; the first error of any. */
int qm_in_threads(unsigned threads, int (*work)(void *context, unsigned thread), void *context);

#endif
