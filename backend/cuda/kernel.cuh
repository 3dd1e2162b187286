/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The launch of an operation: groups of threads walk over the tiles, phase by phase with a barrier
 * behind each. As many groups are launched as fit on the device at once; each takes every n-th
 * tile, so a launch costs the same for one page and for a million.
 */
#ifndef QB_CUDA_KERNEL_CUH
#define QB_CUDA_KERNEL_CUH

#include <cuda_runtime.h>

#include "backend/cuda/item.h"

/* 0 or a cudaError_t. `kernel` is a kernel of QB_KERNEL. */
static inline int qb_launch_tiles(void (*kernel)(const struct qb_batch), uint64_t groups,
                                  const struct qb_batch *batch, void *stream)
{
    int device = 0, processors = 0, resident = 0;
    if (groups == 0)
        return cudaSuccess;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess)
        error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    if (error == cudaSuccess)
        error =
            cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, QB_TILE_THREADS, 0);
    if (error != cudaSuccess)
        return error;
    const uint64_t most = (uint64_t)processors * (uint64_t)resident;
    const unsigned grid = (unsigned)(groups < most ? groups : most);
    kernel<<<grid, QB_TILE_THREADS, 0, (cudaStream_t)stream>>>(*batch);
    return cudaGetLastError();
}

#define QB_RUN_PHASE(phase)                                                                        \
    phase(&batch, &tile, &shared, threadIdx.x);                                                    \
    __syncthreads();

#define QB_KERNEL(name, shared_type, groups, locate, PHASES)                                       \
    static __global__ void __launch_bounds__(QB_TILE_THREADS)                                      \
        qb_kernel_##name(const __grid_constant__ struct qb_batch batch)                            \
    {                                                                                              \
        __shared__ struct shared_type shared;                                                      \
        for (uint64_t i = blockIdx.x; i < groups(&batch); i += gridDim.x) {                        \
            const struct qb_tile tile = locate(&batch, i);                                         \
            PHASES(QB_RUN_PHASE)                                                                   \
        }                                                                                          \
    }                                                                                              \
    extern "C" int qb_cuda_##name(const struct qb_batch *batch, void *stream)                      \
    {                                                                                              \
        return qb_launch_tiles(qb_kernel_##name, groups(batch), batch, stream);                    \
    }

#endif
