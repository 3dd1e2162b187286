/* SPDX-License-Identifier: Apache-2.0 */
/* Gathers the bytes under masks. Exact. */
#include "backend/cuda/kernel.cuh"
#include "backend/cuda/mask.h"

QB_PACK_MASK_OPERATION(QB_KERNEL)
