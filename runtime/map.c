/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory by the page of the system. A larger alignment than a page is had by mapping more and
 * unmapping both ends. Whatever takes memory asks the allocation hook first, as qr_malloc does.
 */
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "runtime/os.h"

static void *map(size_t size, size_t alignment, int protection)
{
    enum { PAGE = 4096 };
    size_t extra = alignment > PAGE ? alignment - PAGE : 0, whole;
    if (__builtin_add_overflow(size, extra, &whole) || qr_allocation_refused(size))
        return NULL;
    uint8_t *at = mmap(NULL, whole, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return NULL;
    size_t before = extra ? -(uintptr_t)at & (alignment - 1) : 0;
    if (before)
        qr_unmap(at, before);
    if (extra - before)
        qr_unmap(at + before + size, extra - before);
    return at + before;
}

void *qr_map(size_t size, size_t alignment) { return map(size, alignment, PROT_READ | PROT_WRITE); }

void *qr_map_reserve(size_t size, size_t alignment) { return map(size, alignment, PROT_NONE); }

int qr_map_commit(void *at, size_t size)
{
    return qr_allocation_refused(size) ? -1 : mprotect(at, size, PROT_READ | PROT_WRITE);
}

void qr_map_discard(void *at, size_t size)
{
    if (madvise(at, size, MADV_DONTNEED)) /* locked memory cannot go back, but zeros are promised */
        memset(at, 0, size);
}

void qr_map_huge(void *at, size_t size, int wanted)
{
    (void)madvise(at, size, wanted ? MADV_HUGEPAGE : MADV_NOHUGEPAGE); /* a wish */
}

void qr_unmap(void *at, size_t size)
{
    if (munmap(at, size)) /* the system has too many mappings to cut one in two */
        qr_map_discard(at, size);
}
