/* SPDX-License-Identifier: Apache-2.0 */
/* In place of the CUDA backend in builds without CUDA. */
#include "backend/device.h"

const struct qb_runtime *qb_runtime_cuda(void) { return NULL; }
