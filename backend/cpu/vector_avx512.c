/* SPDX-License-Identifier: Apache-2.0 */
/* The vector kernels, as the compiler makes them for AVX-512 (F, BW, VL, DQ, VBMI2). */
#define INIT qb_init_vectors_avx512
#define NAME "avx512"
#include "backend/cpu/vector.h"
