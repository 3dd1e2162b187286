/* SPDX-License-Identifier: Apache-2.0 */
/* Applies a change of all bytes of pages. Exact. */
#include "backend/cuda/apply_dense.h"
#include "backend/cuda/kernel.cuh"

QB_APPLY_DENSE_OPERATION(QB_KERNEL)
