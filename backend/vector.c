/* SPDX-License-Identifier: Apache-2.0 */
/* Chooses the vector kernels: the best that the CPU has and the mask allows. */
#include "backend/vector.h"

#include <pthread.h>

#include "backend/cpu/vector_versions.h"
#include "backend/kernels.h"

void qb_vectors_init(struct qb_vectors *table, uint32_t cpu_flags)
{
#if defined(__x86_64__)
    if (cpu_flags & QB_CPU_AVX512) {
        qb_init_vectors_avx512(table);
        return;
    }
    if (cpu_flags & QB_CPU_AVX2) {
        qb_init_vectors_avx2(table);
        return;
    }
#endif
    (void)cpu_flags;
    qb_init_vectors_scalar(table);
}

static struct qb_vectors process_table;
static pthread_once_t process_table_once = PTHREAD_ONCE_INIT;

static void fill_process_table(void) { qb_vectors_init(&process_table, qb_cpu_allowed()); }

const struct qb_vectors *qb_vectors(void)
{
    pthread_once(&process_table_once, fill_process_table);
    return &process_table;
}
