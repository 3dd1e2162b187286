/* SPDX-License-Identifier: Apache-2.0 */
/* Checks a delta. Exact. */
#include "backend/cuda/delta_apply.h"
#include "backend/cuda/kernel.cuh"

QB_DELTA_CHECK_OPERATION(QB_KERNEL)
