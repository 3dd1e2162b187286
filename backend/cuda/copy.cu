/* SPDX-License-Identifier: Apache-2.0 */
/* Copies pages. Exact. */
#include "backend/cuda/copy.h"
#include "backend/cuda/kernel.cuh"

QB_COPY_OPERATION(QB_KERNEL)
