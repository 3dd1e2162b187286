/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chooses the kernels: finds what the CPU and its operating system offer, keeps what the mask
 * allows, and fills the table upwards: scalar first, then each instruction set over it.
 */
#include "backend/kernels.h"

#include "backend/cpu/versions.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

/* Register state that the operating system saves: bits of XCR0. */
#define XCR0_YMM 0x06u /* xmm, ymm */
#define XCR0_ZMM 0xe6u /* and opmask, zmm 0-15 upper halves, zmm 16-31 */

static uint32_t read_xcr0(void)
{
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static int has_all(uint32_t set, uint32_t bits) { return (set & bits) == bits; }

uint32_t qb_cpu_detect(void)
{
    uint32_t eax, ebx, ecx, edx, found = 0;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) ||
        !has_all(ecx, bit_OSXSAVE | bit_AVX | bit_POPCNT))
        return 0;
    uint32_t saved = read_xcr0();
    if (!__get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx) || !has_all(ecx, bit_LZCNT))
        return 0;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx))
        return 0;
    if (has_all(saved, XCR0_YMM) && has_all(ebx, bit_AVX2 | bit_BMI | bit_BMI2))
        found |= QB_CPU_AVX2;
    if (found && has_all(saved, XCR0_ZMM) && has_all(ecx, bit_AVX512VBMI2) &&
        has_all(ebx, bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ))
        found |= QB_CPU_AVX512;
    return found;
}
#else
uint32_t qb_cpu_detect(void) { return 0; }
#endif

void qb_kernels_init(struct qb_kernels *table, uint32_t cpu_flags)
{
    qb_init_scalar(table);
#if defined(__x86_64__)
    if (cpu_flags & QB_CPU_AVX2)
        qb_init_avx2(table);
    if (cpu_flags & QB_CPU_AVX512)
        qb_init_avx512(table);
#endif
}

/* The flags that a text allows: a name allows its set and those below. False if it means nothing.
 */
static int parse_mask(const char *text, uint32_t *flags)
{
    static const struct {
        const char *name;
        uint32_t flags;
    } sets[] = {
        {"scalar", 0},
        {"avx2", QB_CPU_AVX2},
        {"avx512", QB_CPU_AVX2 | QB_CPU_AVX512},
    };
    for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
        if (strcmp(text, sets[i].name) == 0) {
            *flags = sets[i].flags;
            return 1;
        }
    }
    if (*text < '0' || *text > '9')
        return 0;
    char *end;
    errno = 0;
    unsigned long number = strtoul(text, &end, 0);
    if (*end != '\0' || errno != 0 || number > UINT32_MAX)
        return 0;
    *flags = (uint32_t)number;
    return 1;
}

#define MASK_UNSET UINT64_MAX

static _Atomic uint64_t mask_given = MASK_UNSET;
static struct qb_kernels process_table;
static pthread_once_t process_table_once = PTHREAD_ONCE_INIT;

int qb_cpu_mask_set(const char *text)
{
    uint32_t flags;
    if (text == NULL || !parse_mask(text, &flags))
        return -1;
    atomic_store(&mask_given, flags);
    return 0;
}

/* A library cannot complain: a text in the environment that means nothing limits nothing. The
 * command passes it to qb_cpu_mask_set() first, which says so. */
uint32_t qb_cpu_allowed(void)
{
    const char *environment = getenv("QALLOW_CPU_MASK");
    uint64_t given = atomic_load(&mask_given);
    uint32_t allowed = UINT32_MAX;
    if (given != MASK_UNSET)
        allowed = (uint32_t)given;
    else if (environment != NULL)
        (void)parse_mask(environment, &allowed);
    return qb_cpu_detect() & allowed;
}

static _Atomic(const struct qb_kernels *) filled_table; /* NULL: not yet */

static void fill_process_table(void)
{
    qb_kernels_init(&process_table, qb_cpu_allowed());
    atomic_store_explicit(&filled_table, &process_table, memory_order_release);
}

const struct qb_kernels *qb_kernels(void)
{
    const struct qb_kernels *table = atomic_load_explicit(&filled_table, memory_order_acquire);
    if (table)
        return table;
    pthread_once(&process_table_once, fill_process_table);
    return &process_table;
}
