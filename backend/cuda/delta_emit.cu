/* SPDX-License-Identifier: Apache-2.0 */
/* Writes a delta. Exact. */
#include "backend/cuda/delta_emit.h"
#include "backend/cuda/kernel.cuh"

QB_DELTA_EMIT_OPERATION(QB_KERNEL)
