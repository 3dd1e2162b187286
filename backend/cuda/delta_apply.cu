/* SPDX-License-Identifier: Apache-2.0 */
/* Applies a delta. Exact. */
#include "backend/cuda/delta_apply.h"
#include "backend/cuda/kernel.cuh"

QB_DELTA_APPLY_OPERATION(QB_KERNEL)
