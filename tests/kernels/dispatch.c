/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the kernels are chosen: detection against what the Linux kernel says about the CPU, the mask
 * from the command and from the environment, and the first use by many threads at once. The table
 * is made once per process, so every case runs in a child of its own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "backend/kernels.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *highest(uint32_t flags)
{
    return flags & QB_CPU_AVX512 ? "avx512" : flags & QB_CPU_AVX2 ? "avx2" : "scalar";
}

/* The name of the process-wide table in a fresh process with this mask and environment. */
static void expect_table(const char *mask, const char *environment, uint32_t allowed)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (environment != NULL)
            setenv("QALLOW_CPU_MASK", environment, 1);
        else
            unsetenv("QALLOW_CPU_MASK");
        if (mask != NULL && qb_cpu_mask_set(mask) != 0)
            _exit(2);
        const char *expected = highest(qb_cpu_detect() & allowed);
        if (strcmp(qb_kernels()->name, expected) == 0)
            _exit(0);
        fprintf(stderr, "mask %s, environment %s: %s, expected %s\n", mask ? mask : "(none)",
                environment ? environment : "(none)", qb_kernels()->name, expected);
        _exit(1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void test_mask_limits_the_table(void **state)
{
    const uint32_t both = QB_CPU_AVX2 | QB_CPU_AVX512;
    expect_table(NULL, NULL, UINT32_MAX);
    expect_table("scalar", NULL, 0);
    expect_table("avx2", NULL, QB_CPU_AVX2);
    expect_table("avx512", NULL, both);
    expect_table("0", NULL, 0);
    expect_table("1", NULL, QB_CPU_AVX2);
    expect_table("0x3", NULL, both);
    expect_table("0xffffffff", NULL, UINT32_MAX);
}

static void test_environment_limits_the_table(void **state)
{
    expect_table(NULL, "scalar", 0);
    expect_table(NULL, "avx2", QB_CPU_AVX2);
    expect_table(NULL, "no such set", UINT32_MAX);
    expect_table("avx2", "scalar", QB_CPU_AVX2); /* the command's word counts */
    expect_table("scalar", "avx512", 0);
}

static void test_meaningless_masks_are_refused(void **state)
{
    static const char *const texts[] = {
        "",    " ",     "sse2", "AVX2",       "avx2 ",       " avx2",
        "-1",  "+1",    " 1",   "1x",         "0x",          "1,2",
        "avx", "avx51", "0x1g", "4294967296", "scalar,avx2", "99999999999999999999999"};
    assert_int_equal(qb_cpu_mask_set(NULL), -1);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        if (qb_cpu_mask_set(texts[i]) != -1)
            fail_msg("accepted \"%s\"", texts[i]);
    }
}

static void expect_no_empty_slot(const struct qb_kernels *k)
{
    assert_non_null(k->copy);
    assert_non_null(k->zero);
    assert_non_null(k->is_zero);
    assert_non_null(k->common_prefix);
    assert_non_null(k->common_suffix);
    assert_non_null(k->diff_runs);
    assert_non_null(k->diff_mask);
    assert_non_null(k->diff_blocks);
    assert_non_null(k->count_mask);
    assert_non_null(k->apply_mask);
    assert_non_null(k->pack_mask);
    assert_non_null(k->apply_runs);
    assert_non_null(k->hash_cells);
    assert_non_null(k->hash_changed);
    assert_non_null(k->hash64);
    assert_non_null(k->hash128);
    assert_non_null(k->hash128_begin);
    assert_non_null(k->hash128_update);
    assert_non_null(k->hash128_end);
    assert_non_null(k->name);
}

static void test_every_subset_fills_the_table(void **state)
{
    for (uint32_t flags = 0; flags < 4; flags++) {
        struct qb_kernels table;
        memset(&table, 0, sizeof(table));
        qb_kernels_init(&table, flags & qb_cpu_detect());
        expect_no_empty_slot(&table);
    }
}

/* For sanitizers: empty pages have no bytes, and a null pointer is a legal address of none. */
static void test_null_is_legal_for_no_bytes(void **state)
{
    for (uint32_t flags = 0; flags < 4; flags++) {
        struct qb_kernels k;
        size_t scanned = 1;
        qb_kernels_init(&k, flags & qb_cpu_detect());
        k.copy(NULL, NULL, 0);
        k.zero(NULL, 0);
        assert_int_equal(k.is_zero(NULL, 0), 1);
        assert_int_equal(k.common_prefix(NULL, NULL, 0), 0);
        assert_int_equal(k.common_suffix(NULL, NULL, 0), 0);
        assert_int_equal(k.diff_runs(NULL, NULL, 0, 1, NULL, 0, &scanned), 0);
        assert_int_equal(scanned, 0);
        assert_int_equal(k.diff_mask(NULL, NULL, 0, NULL), 0);
        assert_int_equal(k.diff_blocks(NULL, NULL, 0, NULL, NULL), 0);
        assert_int_equal(k.count_mask(NULL, 0), 0);
        k.apply_mask(NULL, 0, NULL, NULL, 0);
        assert_int_equal(k.pack_mask(NULL, NULL, 0, NULL), 0);
        assert_int_equal(k.apply_runs(NULL, NULL, 0, NULL), 0);
        struct qb_u128 sum = k.hash_cells(NULL, 0, 1, 2);
        assert_true(sum.lo == 0 && sum.hi == 0);
        sum = k.hash_changed(NULL, NULL, 0, NULL, 0, 1, 2);
        assert_true(sum.lo == 0 && sum.hi == 0);
        assert_true(k.hash64(NULL, 0, 3) == k.hash64("", 0, 3));
        struct qb_hash128 hash;
        k.hash128_begin(&hash);
        k.hash128_update(&hash, NULL, 0);
        assert_true(qb_u128_equal(k.hash128(NULL, 0), k.hash128_end(&hash)));
    }
}

static int cpuinfo_has(const char *line, const char *flag)
{
    size_t length = strlen(flag);
    for (const char *at = line; (at = strstr(at, flag)) != NULL; at += length) {
        if (at > line && at[-1] == ' ' && (at[length] == ' ' || at[length] == '\n'))
            return 1;
    }
    return 0;
}

static int cpuinfo_has_all(const char *line, const char *const *flags)
{
    for (; *flags != NULL; flags++) {
        if (!cpuinfo_has(line, *flags))
            return 0;
    }
    return 1;
}

static void test_detection_agrees_with_the_kernel(void **state)
{
    static const char *const avx2[] = {"avx2", "bmi1", "bmi2", "popcnt", "abm", NULL};
    static const char *const avx512[] = {"avx512f",  "avx512bw",     "avx512vl",
                                         "avx512dq", "avx512_vbmi2", NULL};
    char line[16384];
    FILE *file = fopen("/proc/cpuinfo", "r");
    if (file == NULL)
        skip();
    while (fgets(line, sizeof(line), file) != NULL && strncmp(line, "flags", 5) != 0)
        ;
    fclose(file);
    if (strncmp(line, "flags", 5) != 0)
        skip(); /* not x86 */
    uint32_t expected = 0;
    if (cpuinfo_has_all(line, avx2))
        expected |= QB_CPU_AVX2;
    if (expected != 0 && cpuinfo_has_all(line, avx512))
        expected |= QB_CPU_AVX512;
    assert_int_equal(qb_cpu_detect(), expected);
}

#define THREADS 16

static void *first_use(void *barrier)
{
    pthread_barrier_wait(barrier);
    const struct qb_kernels *k = qb_kernels();
    uint8_t page[] = {0, 1}, payload[] = {7};
    k->apply_mask(page, 2, (const uint8_t[]){2}, payload, 1);
    return page[1] == 7 && k->name != NULL ? (void *)(uintptr_t)k : NULL;
}

static void test_first_use_by_many_threads(void **state)
{
    pthread_barrier_t barrier;
    pthread_t threads[THREADS];
    void *tables[THREADS];
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, first_use, &barrier), 0);
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], &tables[i]), 0);
    pthread_barrier_destroy(&barrier);
    assert_non_null(tables[0]);
    for (size_t i = 1; i < THREADS; i++)
        assert_ptr_equal(tables[i], tables[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mask_limits_the_table),
        cmocka_unit_test(test_environment_limits_the_table),
        cmocka_unit_test(test_meaningless_masks_are_refused),
        cmocka_unit_test(test_every_subset_fills_the_table),
        cmocka_unit_test(test_null_is_legal_for_no_bytes),
        cmocka_unit_test(test_detection_agrees_with_the_kernel),
        cmocka_unit_test(test_first_use_by_many_threads), /* the last: it makes the table */
    };
    return cmocka_run_group_tests_name("kernel dispatch", tests, NULL, NULL);
}
