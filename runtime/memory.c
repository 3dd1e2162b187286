/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one allocator of the library: libc's, behind a hook that tests use to fail the n-th call.
 *
 * The hook is asked, not told: it decides before anything is allocated, so a refused realloc leaves
 * the old block as it was, exactly as when libc itself has no memory.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/error.h"
#include "runtime/os.h"

static int (*allocation_hook)(size_t size);

void qr_set_allocation_hook(int (*hook)(size_t size)) { allocation_hook = hook; }

int qr_allocation_refused(size_t size) { return allocation_hook && allocation_hook(size); }

void *qr_malloc(size_t size) { return qr_allocation_refused(size) ? NULL : malloc(size); }

void *qr_calloc(size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || qr_allocation_refused(bytes))
        return NULL;
    return calloc(count, size);
}

void *qr_realloc(void *old, size_t size)
{
    return qr_allocation_refused(size) ? NULL : realloc(old, size);
}

void qr_free(void *memory) { free(memory); }

int qr_grow(void *array, size_t *capacity, size_t size)
{
    size_t larger = *capacity ? *capacity * 2 : 16;
    void *old, *grown;
    memcpy(&old, array, sizeof old); /* a pointer to items of any type */
    grown = larger > SIZE_MAX / size ? NULL : qr_realloc(old, larger * size);
    if (!grown)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a list of %zu entries", larger);
    memcpy(array, &grown, sizeof grown);
    *capacity = larger;
    return 0;
}
