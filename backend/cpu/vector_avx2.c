/* SPDX-License-Identifier: Apache-2.0 */
/* The vector kernels, as the compiler makes them for AVX2. */
#define INIT qb_init_vectors_avx2
#define NAME "avx2"
#include "backend/cpu/vector.h"
