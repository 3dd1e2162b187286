/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Times the kernels beside memcpy, memcmp and memset of the C library, on the same buffers and in
 * the same run. Each round times the baseline and then every version, so that whatever disturbs the
 * machine disturbs all of them; the best round of each counts.
 */
#include "tests/kernels/check.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define ROUNDS    9
#define ROUND_NS  500000.0 /* a timed stretch lasts at least this long */
#define BENCH_GAP 8        /* about what the header of a sparse run costs */

static const char *const baseline_names[] = {"memcpy", "memcmp", "memset"};
static const size_t sizes[] = {4096, 65536, 1u << 20, 64u << 20};

static volatile size_t sink;

static size_t run_baseline(enum ck_baseline baseline, struct ck_bench_data *d)
{
    switch (baseline) {
    case CK_MEMCPY:
        memcpy(d->to, d->a, d->n);
        break;
    case CK_MEMSET:
        memset(d->to, 0, d->n);
        break;
    case CK_MEMCMP: /* of equal bytes: a and the page; a bench may have a and b that differ */
        return (size_t)memcmp(d->a, d->to, d->n);
    }
    return d->to[d->n - 1];
}

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* ns per pass; table NULL: the baseline. */
static double time_once(const struct ck_bench *bench, const struct qb_kernels *table,
                        struct ck_bench_data *d, size_t *repeats)
{
    for (;;) {
        double start = now_ns();
        for (size_t i = 0; i < *repeats; i++) {
            sink += table != NULL ? bench->run(table, d) : run_baseline(bench->baseline, d);
            __asm__ volatile("" ::: "memory");
        }
        double spent = now_ns() - start;
        if (spent >= ROUND_NS)
            return spent / (double)*repeats;
        *repeats *= 2;
    }
}

static uint8_t *allocate(size_t n)
{
    void *p = NULL;
    if (posix_memalign(&p, 4096, n + 64) != 0) {
        fputs("checkkernels: not enough memory\n", stderr);
        exit(71);
    }
    madvise(p, n, MADV_HUGEPAGE);
    return memset(p, 0, n + 64);
}

static void prepare(struct ck_bench_data *d, size_t n, enum ck_fill fill)
{
    const struct qb_kernels *k = &ck_reference.table;
    size_t scanned;
    *d = (struct ck_bench_data){.n = n, .gap = BENCH_GAP};
    d->a = allocate(n);
    d->b = allocate(n);
    d->to = allocate(n);
    d->mask = allocate(n / 8);
    d->payload = allocate(n);
    ck_random_start(n);
    /* A far longer gap than the merging one: clusters of bytes with room between them. */
    ck_fill_pair(d->a, d->b, n, fill, 24);
    memcpy(d->to, d->a, n);
    k->diff_mask(d->a, d->b, n, d->mask);
    k->pack_mask(d->payload, d->b, n, d->mask);
    size_t all = n / BENCH_GAP + 1;
    d->runs = (struct qb_run *)(void *)allocate(all * sizeof(*d->runs));
    d->run_count = k->diff_runs(d->a, d->b, n, BENCH_GAP, d->runs, all, &scanned);
    /* For apply_runs the payload must be what lies under the runs; any bytes will do, and they are
     * never more than n. */
}

static void release(struct ck_bench_data *d)
{
    free(d->a);
    free(d->b);
    free(d->to);
    free(d->mask);
    free(d->payload);
    free(d->runs);
}

static void print_result(const struct ck_bench *bench, size_t n, const double *best, cJSON *results)
{
    double baseline = best[0];
    if (results == NULL) {
        printf("%-14s %-12s %9zu  %s %6.1f", bench->kernel, bench->scenario, n,
               baseline_names[bench->baseline], (double)n / baseline);
        printf("  scalar %6.2f", (double)n / best[1]);
        for (size_t i = 0; i < ck_version_count; i++)
            printf("  %s %6.1f (%.2f)", ck_versions[i].name, (double)n / best[2 + i],
                   baseline / best[2 + i]);
        printf("\n");
        fflush(stdout);
        return;
    }
    for (size_t i = 0; i <= ck_version_count; i++) {
        cJSON *result = cJSON_CreateObject();
        cJSON_AddStringToObject(result, "kernel", bench->kernel);
        cJSON_AddStringToObject(result, "scenario", bench->scenario);
        cJSON_AddStringToObject(result, "version", i == 0 ? "scalar" : ck_versions[i - 1].name);
        cJSON_AddNumberToObject(result, "bytes", (double)n);
        cJSON_AddNumberToObject(result, "gb_per_s", (double)n / best[1 + i]);
        cJSON_AddStringToObject(result, "baseline", baseline_names[bench->baseline]);
        cJSON_AddNumberToObject(result, "baseline_gb_per_s", (double)n / baseline);
        cJSON_AddNumberToObject(result, "ratio", baseline / best[1 + i]);
        cJSON_AddItemToArray(results, result);
    }
}

static void run_bench(const struct ck_bench *bench, size_t n, cJSON *results)
{
    struct ck_bench_data d;
    double best[2 + CK_MAX_VERSIONS];
    size_t repeats[2 + CK_MAX_VERSIONS];
    prepare(&d, n, bench->fill);
    for (size_t i = 0; i < 2 + ck_version_count; i++) {
        best[i] = 1e18;
        repeats[i] = 1;
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < 2 + ck_version_count; i++) {
            const struct qb_kernels *table = i == 0   ? NULL
                                             : i == 1 ? &ck_reference.table
                                                      : &ck_versions[i - 2].table;
            if (i == 1 && round >= 3) /* the reference is slow and nobody waits for its figure */
                continue;
            if (i == 0 && bench->baseline == CK_MEMCMP)
                memcpy(d.to, d.a, n);
            double spent = time_once(bench, table, &d, &repeats[i]);
            best[i] = spent < best[i] ? spent : best[i];
        }
    }
    print_result(bench, n, best, results);
    release(&d);
}

void ck_run_benches(const char *filter, bool json)
{
    const struct ck_bench *const lists[] = {ck_copy_benches, ck_diff_benches, ck_apply_benches,
                                            ck_hash_benches};
    cJSON *results = json ? cJSON_CreateArray() : NULL;
    if (!json)
        puts("kernel         scenario         bytes  GB/s; in parentheses: times the baseline");
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        for (const struct ck_bench *bench = lists[i]; bench->kernel != NULL; bench++) {
            char name[64];
            snprintf(name, sizeof(name), "%s/%s", bench->kernel, bench->scenario);
            for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
                if (filter == NULL || strstr(name, filter) != NULL)
                    run_bench(bench, sizes[k], results);
            }
        }
    }
    if (json) {
        cJSON *all = cJSON_CreateObject();
        cJSON_AddStringToObject(all, "schema", "qallow.kernels.bench");
        cJSON_AddNumberToObject(all, "version", 1);
        cJSON_AddItemToObject(all, "results", results);
        char *text = cJSON_Print(all);
        puts(text);
        cJSON_free(text);
        cJSON_Delete(all);
    }
}
