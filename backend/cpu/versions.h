/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU versions of the kernels: each call overwrites the slots of the table that it has. */
#ifndef QB_CPU_VERSIONS_H
#define QB_CPU_VERSIONS_H

#include "backend/kernels.h"

void qb_init_scalar(struct qb_kernels *table);
void qb_init_avx2(struct qb_kernels *table);
void qb_init_avx512(struct qb_kernels *table);

#endif
