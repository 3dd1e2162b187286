/* SPDX-License-Identifier: Apache-2.0 */
/* Counts the bits of masks. Exact. */
#include "backend/cuda/kernel.cuh"
#include "backend/cuda/mask.h"

QB_COUNT_MASK_OPERATION(QB_KERNEL)
