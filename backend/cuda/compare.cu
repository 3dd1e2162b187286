/* SPDX-License-Identifier: Apache-2.0 */
/* Compares pages. Exact. */
#include "backend/cuda/compare.h"
#include "backend/cuda/kernel.cuh"

QB_COMPARE_OPERATION(QB_KERNEL)
