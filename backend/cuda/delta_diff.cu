/* SPDX-License-Identifier: Apache-2.0 */
/* Finds what a delta will hold, with digests. Exact. */
#include "backend/cuda/delta_diff.h"
#include "backend/cuda/kernel.cuh"

QB_DELTA_DIFF_OPERATION(QB_KERNEL)
