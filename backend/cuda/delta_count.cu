/* SPDX-License-Identifier: Apache-2.0 */
/* Counts what the entries of a delta hold. Exact. */
#include "backend/cuda/delta_count.h"
#include "backend/cuda/kernel.cuh"

QB_DELTA_COUNT_OPERATION(QB_KERNEL)
