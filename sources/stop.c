/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See stop.h. One for the process, as signals are; a recorder, which ends in its own way, sets
 * none.
 */
#include "sources/stop.h"

#include <stdatomic.h>
#include <stddef.h>

static int (*_Atomic who)(void);

void qs_stop_when(int (*asked)(void)) { atomic_store(&who, asked); }

int qs_stop(void)
{
    int (*asked)(void) = atomic_load_explicit(&who, memory_order_relaxed);
    return asked ? asked() : 0;
}
