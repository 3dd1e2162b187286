/* SPDX-License-Identifier: Apache-2.0 */
/* The list of all operations; each has a header with its phases and a .cu with its launch. */
#ifndef QB_CUDA_OPERATIONS_H
#define QB_CUDA_OPERATIONS_H

#include "backend/cuda/apply_dense.h"
#include "backend/cuda/compare.h"
#include "backend/cuda/copy.h"
#include "backend/cuda/delta_apply.h"
#include "backend/cuda/delta_count.h"
#include "backend/cuda/delta_diff.h"
#include "backend/cuda/delta_emit.h"
#include "backend/cuda/hash.h"
#include "backend/cuda/mask.h"
#include "backend/cuda/zero.h"

/* MAKE(name, type of the shared memory, number of groups, where a group works, phases) */
#define QB_EACH_OPERATION(MAKE)                                                                    \
    QB_COPY_OPERATION(MAKE)                                                                        \
    QB_ZERO_OPERATION(MAKE)                                                                        \
    QB_COMPARE_OPERATION(MAKE)                                                                     \
    QB_HASH_OPERATION(MAKE)                                                                        \
    QB_DIFF_MASK_OPERATION(MAKE)                                                                   \
    QB_COUNT_MASK_OPERATION(MAKE)                                                                  \
    QB_PACK_MASK_OPERATION(MAKE)                                                                   \
    QB_APPLY_MASK_OPERATION(MAKE)                                                                  \
    QB_APPLY_DENSE_OPERATION(MAKE)                                                                 \
    QB_DELTA_DIFF_OPERATION(MAKE)                                                                  \
    QB_DELTA_EMIT_OPERATION(MAKE)                                                                  \
    QB_DELTA_COUNT_OPERATION(MAKE)                                                                 \
    QB_DELTA_CHECK_OPERATION(MAKE)                                                                 \
    QB_DELTA_APPLY_OPERATION(MAKE)

#endif
