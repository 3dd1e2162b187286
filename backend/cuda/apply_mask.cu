/* SPDX-License-Identifier: Apache-2.0 */
/* Scatters bytes by masks. Exact. */
#include "backend/cuda/kernel.cuh"
#include "backend/cuda/mask.h"

QB_APPLY_MASK_OPERATION(QB_KERNEL)
