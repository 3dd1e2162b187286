/* SPDX-License-Identifier: Apache-2.0 */
/* Sums the cells of pages. Exact. */
#include "backend/cuda/hash.h"
#include "backend/cuda/kernel.cuh"

QB_HASH_OPERATION(QB_KERNEL)
