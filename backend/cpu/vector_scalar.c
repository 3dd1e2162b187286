/* SPDX-License-Identifier: Apache-2.0 */
/* The vector kernels, for any processor: the reference. */
#define INIT qb_init_vectors_scalar
#define NAME "scalar"
#include "backend/cpu/vector.h"
