/* SPDX-License-Identifier: Apache-2.0 */
/* A device as the runtime uses it: failures become results with a detail, memory comes as one
 * workspace per task, and what crosses the bus goes through pinned memory. */
#ifndef QR_DEVICE_H
#define QR_DEVICE_H

#include "backend/device.h"

/* What one task holds; to be zeroed, given a stream, and ended by qr_device_end. */
struct qr_device {
    const struct qb_runtime *runtime;
    void *stream;
    uint8_t *workspace; /* of the device */
    uint64_t used, size;
    uint8_t *staging[2]; /* pinned */
    void *events[2];     /* when the device has done with them */
};

/* Tests put their own table in place of CUDA; NULL takes it away. Not thread-safe. */
void qr_set_device_runtime(const struct qb_runtime *runtime);
/* NO_DEVICE: none, with the reason and what to do about it. */
int qr_device_begin(struct qr_device *device, void *stream);
/* Frees what the task holds; legal for a zeroed one. */
void qr_device_end(struct qr_device *device);
/* What the device in use is. */
int qr_device_describe(struct qb_device_info *info);
/* A result of the table as one of ours; `what` is what was being done. */
int qr_device_check(const struct qr_device *device, enum qb_result result, const char *what);
/* Memory of the given kind. DEVICE_MEMORY names `bytes` and what is free. */
int qr_device_allocate(const struct qr_device *device, enum qb_memory kind, uint64_t bytes,
                       void **memory);

/* Makes a workspace of the given size, in place of the present one. */
int qr_device_workspace(struct qr_device *device, uint64_t bytes);
/* A part of it, at a multiple of 256. Asserts that there is room. */
void *qr_device_take(struct qr_device *device, uint64_t bytes);
/* The room that a part takes. */
static inline uint64_t qr_device_room(uint64_t bytes) { return (bytes + 511) / 256 * 256; }

/* Between the CPU and the device, in either direction; large ones through pinned memory, part by
 * part while the other part is on its way. `from` may be changed when they return; bytes from the
 * device are there after qr_device_wait. */
int qr_device_upload(struct qr_device *device, void *to, const void *from, uint64_t bytes);
int qr_device_download(struct qr_device *device, void *to, const void *from, uint64_t bytes);
/* Within the device. */
int qr_device_copy(struct qr_device *device, void *to, const void *from, uint64_t bytes);
int qr_device_clear(struct qr_device *device, void *memory, uint64_t bytes);
int qr_device_launch(struct qr_device *device, enum qb_operation operation,
                     const struct qb_batch *batch);
/* Exclusive sums of `count` counts in place; `memory` has qr_device_scan_bytes. */
int qr_device_scan_bytes(struct qr_device *device, uint64_t count, uint64_t *bytes);
int qr_device_scan(struct qr_device *device, struct qb_counts *counts, uint64_t count, void *memory,
                   uint64_t bytes);
int qr_device_wait(struct qr_device *device);

#endif
