/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one way from Qallow to a device: memory, copies, streams, launches. The table of the CUDA
 * runtime stands in backend/cuda/; tests replace it with one that runs the operations on the CPU
 * and fails where they say.
 *
 * Every function that can fail returns enum qb_result; text() then says which call failed with
 * what. Memory of any kind, and the caller's, can be given to copy(). What takes a stream is only
 * begun when it returns (NULL: the default stream); wait() says how it went, and from then on each
 * call on a lost device says so.
 * Thread-safety: all functions may be called from any thread.
 */
#ifndef QB_DEVICE_H
#define QB_DEVICE_H

#include <stddef.h>
#include <stdint.h>

#include "backend/batch.h"

enum qb_result {
    QB_DONE,
    QB_NO_DEVICE,     /* nothing that can be used, or no driver */
    QB_OLD_DRIVER,    /* older than this build needs */
    QB_OUT_OF_MEMORY, /* of the device, or of memory that it can reach */
    QB_LOST,          /* the device or its context is gone; the process cannot use it again */
    QB_FAILED,        /* a launch or anything else */
};

enum qb_memory {
    QB_MEMORY_DEVICE,
    QB_MEMORY_PINNED,  /* the CPU's, that a device copies at full speed */
    QB_MEMORY_UNIFIED, /* both can use it; it moves to who does */
};

struct qb_device_info {
    char name[64];
    uint64_t total_bytes, free_bytes;
    int driver, runtime; /* versions, 1000 * major + 10 * minor */
    int major, minor;    /* of the compute capability */
    int processors;      /* multiprocessors */
};

struct qb_runtime {
    int version; /* of this table; 1 */
    void *context;
    const char *name; /* "cuda" */
    enum qb_result (*describe)(void *context, struct qb_device_info *info);
    enum qb_result (*allocate)(void *context, enum qb_memory kind, uint64_t size, void **memory);
    /* NULL is legal. Waits for what uses it. */
    void (*release)(void *context, enum qb_memory kind, void *memory);
    enum qb_result (*copy)(void *context, void *to, const void *from, uint64_t size, void *stream);
    enum qb_result (*fill)(void *context, void *to, int byte, uint64_t size, void *stream);
    /* Moves unified memory to the device, or to the CPU. A hint. */
    enum qb_result (*prefetch)(void *context, const void *memory, uint64_t size, int to_device,
                               void *stream);
    enum qb_result (*launch)(void *context, enum qb_operation operation,
                             const struct qb_batch *batch, void *stream);
    /* counts[i] = the sum of all before i, for `count` of them; `memory` is scan_bytes(count) bytes
     * of the device. */
    enum qb_result (*scan_bytes)(void *context, uint64_t count, uint64_t *bytes);
    enum qb_result (*scan)(void *context, struct qb_counts *counts, uint64_t count, void *memory,
                           uint64_t bytes, void *stream);
    enum qb_result (*stream_create)(void *context, void **stream);
    void (*stream_destroy)(void *context, void *stream); /* NULL is legal */
    enum qb_result (*event_create)(void *context, void **event);
    void (*event_destroy)(void *context, void *event); /* NULL is legal */
    enum qb_result (*event_record)(void *context, void *event, void *stream);
    enum qb_result (*event_wait)(void *context, void *event); /* the CPU waits */
    /* Between two events that have happened. */
    enum qb_result (*event_elapsed)(void *context, void *from, void *to, double *milliseconds);
    enum qb_result (*wait)(void *context, void *stream);
    /* About the newest failure in this thread; static or thread-local storage. */
    const char *(*text)(void *context);
};

/* The table of the CUDA runtime; NULL in a build without CUDA. Static storage; works without a
 * driver: describe() then says QB_NO_DEVICE. */
const struct qb_runtime *qb_runtime_cuda(void);

#endif
