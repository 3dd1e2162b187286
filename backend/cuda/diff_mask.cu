/* SPDX-License-Identifier: Apache-2.0 */
/* The mask of what differs. Exact. */
#include "backend/cuda/kernel.cuh"
#include "backend/cuda/mask.h"

QB_DIFF_MASK_OPERATION(QB_KERNEL)
