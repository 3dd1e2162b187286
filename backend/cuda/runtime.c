/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CUDA runtime behind backend/device.h: a thin shell over its calls. Works on the device that
 * is current in the calling thread. cudart is linked statically and looks for the driver at its
 * first call, so this runs, and says that there is no device, where there is no driver.
 */
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <string.h>

#include "backend/cuda/launch.h"
#include "backend/device.h"

static _Thread_local char failure[256];

static enum qb_result result_of(cudaError_t error)
{
    switch (error) {
    case cudaSuccess:
        return QB_DONE;
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver: /* also: there is no driver */
    case cudaErrorInitializationError:
    case cudaErrorStubLibrary:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorDevicesUnavailable:
    case cudaErrorSystemNotReady:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorCompatNotSupportedOnDevice:
        return QB_NO_DEVICE;
    case cudaErrorMemoryAllocation:
        return QB_OUT_OF_MEMORY;
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidPc:
    case cudaErrorECCUncorrectable:
    case cudaErrorDeviceUninitialized:
    case cudaErrorContained:
        return QB_LOST;
    default:
        return QB_FAILED;
    }
}

static enum qb_result check(cudaError_t error, const char *call)
{
    if (error == cudaSuccess)
        return QB_DONE;
    (void)cudaGetLastError(); /* a failed call is no reason for the next one to fail */
    snprintf(failure, sizeof failure, "%s: %s (%d)", call, cudaGetErrorString(error), (int)error);
    return result_of(error);
}

static const char *text(void *context)
{
    (void)context;
    return failure;
}

/* cudart says "insufficient" both for an old driver and for none. */
static enum qb_result find_device(void)
{
    int devices = 0, driver = 0;
    enum qb_result result = check(cudaGetDeviceCount(&devices), "cudaGetDeviceCount");
    if (result == QB_NO_DEVICE && cudaDriverGetVersion(&driver) == cudaSuccess) {
        (void)cudaGetLastError();
        if (driver == 0)
            snprintf(failure, sizeof failure, "no CUDA driver (libcuda.so.1) on this machine");
        else if (driver < CUDART_VERSION / 1000 * 1000) {
            snprintf(failure, sizeof failure,
                     "the CUDA driver supports version %d.%d, this build needs %d.0", driver / 1000,
                     driver % 1000 / 10, CUDART_VERSION / 1000);
            return QB_OLD_DRIVER;
        }
    }
    if (result == QB_DONE && devices == 0) {
        snprintf(failure, sizeof failure, "no CUDA device on this machine");
        return QB_NO_DEVICE;
    }
    return result;
}

static enum qb_result describe(void *context, struct qb_device_info *info)
{
    struct cudaDeviceProp properties;
    size_t free_bytes = 0, total_bytes = 0;
    int device = 0;
    (void)context;
    memset(info, 0, sizeof *info);
    enum qb_result result = find_device();
    if (result == QB_DONE)
        result = check(cudaGetDevice(&device), "cudaGetDevice");
    if (result == QB_DONE)
        result = check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
    if (result == QB_DONE)
        result = check(cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo");
    if (result != QB_DONE)
        return result;
    snprintf(info->name, sizeof info->name, "%.63s", properties.name);
    info->total_bytes = total_bytes;
    info->free_bytes = free_bytes;
    info->major = properties.major;
    info->minor = properties.minor;
    info->processors = properties.multiProcessorCount;
    (void)cudaDriverGetVersion(&info->driver);
    info->runtime = CUDART_VERSION;
    return QB_DONE;
}

static enum qb_result allocate(void *context, enum qb_memory kind, uint64_t size, void **memory)
{
    (void)context;
    *memory = NULL;
    switch (kind) {
    case QB_MEMORY_DEVICE:
        return check(cudaMalloc(memory, size), "cudaMalloc");
    case QB_MEMORY_PINNED:
        return check(cudaHostAlloc(memory, size, cudaHostAllocDefault), "cudaHostAlloc");
    case QB_MEMORY_UNIFIED:
        return check(cudaMallocManaged(memory, size, cudaMemAttachGlobal), "cudaMallocManaged");
    }
    return QB_FAILED;
}

static void release(void *context, enum qb_memory kind, void *memory)
{
    (void)context;
    if (memory != NULL)
        (void)check(kind == QB_MEMORY_PINNED ? cudaFreeHost(memory) : cudaFree(memory), "cudaFree");
}

static enum qb_result copy(void *context, void *to, const void *from, uint64_t size, void *stream)
{
    (void)context;
    if (size == 0)
        return QB_DONE;
    return check(cudaMemcpyAsync(to, from, size, cudaMemcpyDefault, stream), "cudaMemcpyAsync");
}

static enum qb_result fill(void *context, void *to, int byte, uint64_t size, void *stream)
{
    (void)context;
    if (size == 0)
        return QB_DONE;
    return check(cudaMemsetAsync(to, byte, size, stream), "cudaMemsetAsync");
}

static enum qb_result prefetch(void *context, const void *memory, uint64_t size, int to_device,
                               void *stream)
{
    int device = 0;
    (void)context;
    enum qb_result result = check(cudaGetDevice(&device), "cudaGetDevice");
    if (result != QB_DONE || size == 0)
        return result;
#if CUDART_VERSION >= 13000
    const struct cudaMemLocation place = {.type = to_device ? cudaMemLocationTypeDevice
                                                            : cudaMemLocationTypeHost,
                                          .id = to_device ? device : 0};
    return check(cudaMemPrefetchAsync(memory, size, place, 0, stream), "cudaMemPrefetchAsync");
#else
    return check(cudaMemPrefetchAsync(memory, size, to_device ? device : cudaCpuDeviceId, stream),
                 "cudaMemPrefetchAsync");
#endif
}

static enum qb_result launch(void *context, enum qb_operation operation,
                             const struct qb_batch *batch, void *stream)
{
    (void)context;
    return check((cudaError_t)qb_cuda_launch(operation, batch, stream),
                 qb_cuda_operation_name(operation));
}

static enum qb_result scan_bytes(void *context, uint64_t count, uint64_t *bytes)
{
    size_t needed = 0;
    (void)context;
    enum qb_result result =
        check((cudaError_t)qb_cuda_scan(NULL, count, NULL, &needed, NULL), "the scan");
    *bytes = needed;
    return result;
}

static enum qb_result scan(void *context, struct qb_counts *counts, uint64_t count, void *memory,
                           uint64_t bytes, void *stream)
{
    size_t needed = bytes;
    (void)context;
    return check((cudaError_t)qb_cuda_scan(counts, count, memory, &needed, stream), "the scan");
}

static enum qb_result stream_create(void *context, void **stream)
{
    (void)context;
    return check(cudaStreamCreateWithFlags((cudaStream_t *)stream, cudaStreamNonBlocking),
                 "cudaStreamCreate");
}

static void stream_destroy(void *context, void *stream)
{
    (void)context;
    if (stream != NULL)
        (void)check(cudaStreamDestroy(stream), "cudaStreamDestroy");
}

static enum qb_result event_create(void *context, void **event)
{
    (void)context;
    return check(cudaEventCreate((cudaEvent_t *)event), "cudaEventCreate");
}

static void event_destroy(void *context, void *event)
{
    (void)context;
    if (event != NULL)
        (void)check(cudaEventDestroy(event), "cudaEventDestroy");
}

static enum qb_result event_record(void *context, void *event, void *stream)
{
    (void)context;
    return check(cudaEventRecord(event, stream), "cudaEventRecord");
}

static enum qb_result event_wait(void *context, void *event)
{
    (void)context;
    return check(cudaEventSynchronize(event), "cudaEventSynchronize");
}

static enum qb_result event_elapsed(void *context, void *from, void *to, double *milliseconds)
{
    float spent = 0;
    (void)context;
    enum qb_result result = check(cudaEventElapsedTime(&spent, from, to), "cudaEventElapsedTime");
    *milliseconds = (double)spent;
    return result;
}

static enum qb_result wait_for(void *context, void *stream)
{
    (void)context;
    return check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
}

static const struct qb_runtime table = {
    .version = 1,
    .name = "cuda",
    .describe = describe,
    .allocate = allocate,
    .release = release,
    .copy = copy,
    .fill = fill,
    .prefetch = prefetch,
    .launch = launch,
    .scan_bytes = scan_bytes,
    .scan = scan,
    .stream_create = stream_create,
    .stream_destroy = stream_destroy,
    .event_create = event_create,
    .event_destroy = event_destroy,
    .event_record = event_record,
    .event_wait = event_wait,
    .event_elapsed = event_elapsed,
    .wait = wait_for,
    .text = text,
};

const struct qb_runtime *qb_runtime_cuda(void) { return &table; }
