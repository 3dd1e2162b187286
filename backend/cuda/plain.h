/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plain version of the operations: a byte (or a cell) per thread, a mask of one byte per byte,
 * one launch per page. What anybody would write first, kept as the baseline of the benchmark; not
 * in the library.
 */
#ifndef QB_CUDA_PLAIN_H
#define QB_CUDA_PLAIN_H

#include "backend/batch.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The page's pointers are of the device, the page itself is the CPU's. `mask` has a byte for each
 * byte of the page; `sum` is added to. Operations: COPY, ZERO, COMPARE (*sum.lo counts), HASH,
 * DIFF_MASK, APPLY_DENSE, APPLY_MASK (from is as long as the page). 0 or a cudaError_t. */
int qb_plain_launch(enum qb_operation operation, const struct qb_batch_page *page, uint8_t *mask,
                    struct qb_u128 *sum, void *stream);

#ifdef __cplusplus
}
#endif
#endif
