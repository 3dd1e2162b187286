/* SPDX-License-Identifier: Apache-2.0 */
/* Zeroes pages. Exact. */
#include "backend/cuda/kernel.cuh"
#include "backend/cuda/zero.h"

QB_ZERO_OPERATION(QB_KERNEL)
