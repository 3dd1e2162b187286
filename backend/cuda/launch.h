/* SPDX-License-Identifier: Apache-2.0 */
/* The launches of the operations, as the .cu files give them; results are a cudaError_t. */
#ifndef QB_CUDA_LAUNCH_H
#define QB_CUDA_LAUNCH_H

#include <stddef.h>

#include "backend/batch.h"

#ifdef __cplusplus
extern "C" {
#endif

int qb_cuda_launch(enum qb_operation operation, const struct qb_batch *batch, void *stream);
const char *qb_cuda_operation_name(enum qb_operation operation);

/* An exclusive sum in place. Without memory only *needed is set. */
int qb_cuda_scan(struct qb_counts *counts, uint64_t count, void *memory, size_t *needed,
                 void *stream);

#ifdef __cplusplus
}
#endif
#endif
