/* SPDX-License-Identifier: Apache-2.0 */
/* A seed that differs from run to run and is printed; QALLOW_SEED repeats a run. */
#ifndef TESTS_ACCELERATOR_SEED_H
#define TESTS_ACCELERATOR_SEED_H

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static inline unsigned test_seed(void)
{
    const char *given = getenv("QALLOW_SEED");
    unsigned seed = given ? (unsigned)strtoul(given, NULL, 10)
                          : (unsigned)time(NULL) ^ ((unsigned)getpid() << 16);
    printf("QALLOW_SEED=%u\n", seed);
    return seed;
}

#endif
