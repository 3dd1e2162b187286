/* SPDX-License-Identifier: Apache-2.0 */
/* The versions of the vector kernels: each fills the whole table. */
#ifndef QB_CPU_VECTOR_VERSIONS_H
#define QB_CPU_VECTOR_VERSIONS_H

#include "backend/vector.h"

void qb_init_vectors_scalar(struct qb_vectors *table);
void qb_init_vectors_avx2(struct qb_vectors *table);
void qb_init_vectors_avx512(struct qb_vectors *table);

#endif
