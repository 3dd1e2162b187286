/* SPDX-License-Identifier: Apache-2.0 */
/* The plain version of the operations; see plain.h. */
#include "backend/cuda/plain.h"

#include <cuda_runtime.h>

#include "backend/cuda/cell.h"

static __device__ uint64_t place() { return (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; }

static __global__ void plain_copy(struct qb_batch_page page)
{
    const uint64_t i = place();
    if (i < page.length)
        page.to[i] = page.from[i];
}

static __global__ void plain_zero(struct qb_batch_page page)
{
    const uint64_t i = place();
    if (i < page.length)
        page.to[i] = 0;
}

static __global__ void plain_compare(struct qb_batch_page page, struct qb_u128 *sum)
{
    const uint64_t i = place();
    if (i < page.length && page.from[i] != page.base[i])
        qb_atomic_add(&sum->lo, 1);
}

static __global__ void plain_diff(struct qb_batch_page page, uint8_t *mask)
{
    const uint64_t i = place();
    if (i < page.length)
        mask[i] = page.from[i] != page.base[i];
}

static __global__ void plain_apply(struct qb_batch_page page, const uint8_t *mask)
{
    const uint64_t i = place();
    if (i < page.length && mask[i])
        page.to[i] = page.from[i];
}

static __global__ void plain_hash(struct qb_batch_page page, struct qb_u128 *sum)
{
    const uint64_t cell = place(), at = cell * QB_CELL;
    if (at >= page.length)
        return;
    const uint64_t left = page.length - at;
    qb_atomic_add128(sum, qb_cell_short(page.from + at, left < QB_CELL ? (unsigned)left : QB_CELL,
                                        page.seed + (page.first_cell + cell) * QB_CELL_SEED));
}

extern "C" int qb_plain_launch(enum qb_operation operation, const struct qb_batch_page *page,
                               uint8_t *mask, struct qb_u128 *sum, void *stream)
{
    const cudaStream_t s = (cudaStream_t)stream;
    const uint64_t items =
        operation == QB_HASH ? (page->length + QB_CELL - 1) / QB_CELL : page->length;
    const unsigned grid = (unsigned)((items + QB_TILE_THREADS - 1) / QB_TILE_THREADS);
    if (operation == QB_COPY || operation == QB_APPLY_DENSE)
        plain_copy<<<grid, QB_TILE_THREADS, 0, s>>>(*page);
    else if (operation == QB_ZERO)
        plain_zero<<<grid, QB_TILE_THREADS, 0, s>>>(*page);
    else if (operation == QB_COMPARE)
        plain_compare<<<grid, QB_TILE_THREADS, 0, s>>>(*page, sum);
    else if (operation == QB_HASH)
        plain_hash<<<grid, QB_TILE_THREADS, 0, s>>>(*page, sum);
    else if (operation == QB_DIFF_MASK)
        plain_diff<<<grid, QB_TILE_THREADS, 0, s>>>(*page, mask);
    else if (operation == QB_APPLY_MASK)
        plain_apply<<<grid, QB_TILE_THREADS, 0, s>>>(*page, mask);
    else
        return cudaErrorInvalidValue;
    return cudaGetLastError();
}
