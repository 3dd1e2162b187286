/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels of a device as a table of kernels for one page each, so that the checks of the CPU's
 * kernels hold for them too. */
#ifndef CHECK_DEVICE_H
#define CHECK_DEVICE_H

#include "backend/device.h"
#include "backend/kernels.h"

/* Overwrite the slots that a device has. The emulated one works on the checks' own guarded buffers;
 * CUDA on copies of them, each of which ends where its memory ends. */
void ck_init_emulated_device(struct qb_kernels *table);
void ck_init_cuda(struct qb_kernels *table);
/* NULL if CUDA can be used, else why not. */
const char *ck_cuda_missing(void);

/* A batch as the checks of batches use it: `slot` names the memory, one for each argument. */
struct ck_device {
    const struct qb_runtime *runtime; /* NULL: emulated, on the CPU's memory as it is */
    struct {
        uint8_t *memory;
        uint64_t size;
    } slots[16];
};
extern struct ck_device ck_emulated_device, ck_cuda_device;

/* The n bytes for the device; and back. */
void *ck_to_device(struct ck_device *device, unsigned slot, const void *bytes, uint64_t n);
void ck_from_device(const struct ck_device *device, void *bytes, const void *memory, uint64_t n);
void ck_launch(struct ck_device *device, enum qb_operation operation, const struct qb_batch *batch);
void ck_scan(struct ck_device *device, struct qb_counts *counts, uint64_t count);

#endif
