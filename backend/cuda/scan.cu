/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Turns counts into what stands before each: an exclusive sum in place, by CUB, which compacts
 * masks and deltas. Integers: exact, whatever the order of additions.
 */
#include <cub/device/device_scan.cuh>

#include "backend/cuda/segment.h"

namespace
{
struct add_counts {
    __host__ __device__ qb_counts operator()(qb_counts a, const qb_counts &b) const
    {
        qb_counts_add(&a, b);
        return a;
    }
};
} // namespace

/* Without memory only *needed is set. 0 or a cudaError_t. */
extern "C" int qb_cuda_scan(struct qb_counts *counts, uint64_t count, void *memory, size_t *needed,
                            void *stream)
{
    const qb_counts none = {0, 0, 0, 0};
    return cub::DeviceScan::ExclusiveScan(memory, *needed, counts, counts, add_counts(), none,
                                          (int64_t)count, (cudaStream_t)stream);
}
