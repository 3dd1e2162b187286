/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU versions of the kernels: each call overwrites the slots of the table that it has. */
#ifndef QB_CPU_VERSIONS_H
#define QB_CPU_VERSIONS_H

#include "backend/kernels.h"

/* Copies of at least this many bytes bypass the cache. On Zen 3 with 32 MiB of L3 they are then 1.4
 * times as fast at 16 MiB and 1.8 times at 64 MiB, but slower at 8 MiB. A constant, because the
 * cache size that a CPU reports says nothing about a core's share of it. */
#define QB_STREAM_FROM ((size_t)16 << 20)

void qb_init_scalar(struct qb_kernels *table);
void qb_init_avx2(struct qb_kernels *table);
void qb_init_avx512(struct qb_kernels *table);

#endif
