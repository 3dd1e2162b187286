/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Devices: the table of backend/device.h with this house's results. Everything that can fail for
 * want of memory is allocated before anything is changed, so a failure leaves all as it was.
 *
 * Large transfers go through two pinned buffers: while the device copies one, the CPU fills or
 * empties the other. An event per buffer says when it is free again.
 */
#include "runtime/device.h"

#include <string.h>

#include "backend/kernels.h"
#include "qallow/error.h"
#include "runtime/error.h"
#include "telemetry/telemetry.h"

enum { STAGING = 4 << 20, STAGED_FROM = 256 << 10 };

static const struct qb_runtime *replaced;

void qr_set_device_runtime(const struct qb_runtime *runtime) { replaced = runtime; }

int qr_device_check(const struct qr_device *device, enum qb_result result, const char *what)
{
    const char *text = result == QB_DONE ? "" : device->runtime->text(device->runtime->context);
    qt_add(QT_GPU_FAILURES, result != QB_DONE);
    switch (result) {
    case QB_DONE:
        return 0;
    case QB_NO_DEVICE:
        return qr_fail(QALLOW_E_NO_DEVICE, "no GPU can be used: %s", text);
    case QB_OLD_DRIVER:
        return qr_fail(QALLOW_E_NO_DEVICE, "no GPU can be used: %s: install a newer driver", text);
    case QB_OUT_OF_MEMORY:
        return qr_fail(QALLOW_E_DEVICE_MEMORY, "%s: %s", what, text);
    case QB_LOST:
        return qr_fail(QALLOW_E_DEVICE,
                       "%s: the GPU was lost and cannot be used again by this process: %s", what,
                       text);
    case QB_FAILED:
        break;
    }
    return qr_fail(QALLOW_E_DEVICE, "%s: %s", what, text);
}

static const struct qb_runtime *runtime(void)
{
    return replaced != NULL ? replaced : qb_runtime_cuda();
}

int qr_device_describe(struct qb_device_info *info)
{
    struct qr_device device = {.runtime = runtime()};
    memset(info, 0, sizeof *info);
    if (device.runtime == NULL)
        return qr_fail(QALLOW_E_NO_DEVICE, "no GPU can be used: Qallow was built without CUDA");
    return qr_device_check(&device, device.runtime->describe(device.runtime->context, info),
                           "looking for a GPU");
}

int qr_device_begin(struct qr_device *device, void *stream)
{
    struct qb_device_info info;
    memset(device, 0, sizeof *device);
    int rc = qr_device_describe(&info);
    if (rc < 0)
        return rc;
    device->runtime = runtime();
    device->stream = stream;
    return 0;
}

void qr_device_end(struct qr_device *device)
{
    const struct qb_runtime *r = device->runtime;
    if (r == NULL)
        return;
    for (unsigned i = 0; i < 2; i++) {
        r->event_destroy(r->context, device->events[i]);
        r->release(r->context, QB_MEMORY_PINNED, device->staging[i]);
    }
    r->release(r->context, QB_MEMORY_DEVICE, device->workspace);
    memset(device, 0, sizeof *device);
}

int qr_device_allocate(const struct qr_device *device, enum qb_memory kind, uint64_t bytes,
                       void **memory)
{
    static const char *const names[] = {"GPU memory", "pinned memory", "unified memory"};
    const struct qb_runtime *r = device->runtime;
    struct qb_device_info info;
    const enum qb_result result = r->allocate(r->context, kind, bytes, memory);
    if (result != QB_OUT_OF_MEMORY)
        return qr_device_check(device, result, names[kind]);
    if (r->describe(r->context, &info) != QB_DONE)
        return qr_fail(QALLOW_E_DEVICE_MEMORY, "%s: %llu bytes asked for, fewer are free",
                       names[kind], (unsigned long long)bytes);
    return qr_fail(QALLOW_E_DEVICE_MEMORY, "%s: %llu bytes asked for, %llu of %llu free",
                   names[kind], (unsigned long long)bytes, (unsigned long long)info.free_bytes,
                   (unsigned long long)info.total_bytes);
}

int qr_device_workspace(struct qr_device *device, uint64_t bytes)
{
    void *memory = NULL;
    const struct qb_runtime *r = device->runtime;
    r->release(r->context, QB_MEMORY_DEVICE, device->workspace);
    device->workspace = NULL;
    device->used = device->size = 0;
    int rc = qr_device_allocate(device, QB_MEMORY_DEVICE, bytes, &memory);
    if (rc < 0)
        return rc;
    device->workspace = memory;
    device->size = bytes;
    return 0;
}

void *qr_device_take(struct qr_device *device, uint64_t bytes)
{
    uint8_t *at = device->workspace + device->used;
    device->used += qr_device_room(bytes);
    qr_assert(device->used <= device->size);
    return at;
}

/* Makes the two pinned buffers, at the first large transfer. */
static int take_staging(struct qr_device *device)
{
    const struct qb_runtime *r = device->runtime;
    int rc = 0;
    for (unsigned i = 0; i < 2 && rc == 0; i++) {
        void *memory = NULL;
        if (device->staging[i] == NULL)
            rc = qr_device_allocate(device, QB_MEMORY_PINNED, STAGING, &memory);
        if (memory != NULL)
            device->staging[i] = memory;
        if (rc == 0 && device->events[i] == NULL)
            rc = qr_device_check(device, r->event_create(r->context, &device->events[i]),
                                 "an event of the GPU");
    }
    return rc;
}

static int begin_copy(struct qr_device *device, void *to, const void *from, uint64_t bytes)
{
    const struct qb_runtime *r = device->runtime;
    return qr_device_check(device, r->copy(r->context, to, from, bytes, device->stream),
                           "copying to or from the GPU");
}

static int record(struct qr_device *device, unsigned i)
{
    const struct qb_runtime *r = device->runtime;
    return qr_device_check(device, r->event_record(r->context, device->events[i], device->stream),
                           "copying to or from the GPU");
}

static int wait_event(struct qr_device *device, unsigned i)
{
    const struct qb_runtime *r = device->runtime;
    return qr_device_check(device, r->event_wait(r->context, device->events[i]),
                           "waiting for the GPU");
}

int qr_device_upload(struct qr_device *device, void *to, const void *from, uint64_t bytes)
{
    int rc = bytes < STAGED_FROM ? 0 : take_staging(device);
    qt_add(QT_GPU_SENT_BYTES, bytes);
    if (rc < 0 || bytes < STAGED_FROM)
        return rc < 0 ? rc : begin_copy(device, to, from, bytes);
    for (uint64_t at = 0, part = 0; at < bytes && rc == 0; at += STAGING, part++) {
        const unsigned i = part % 2;
        const uint64_t n = bytes - at < STAGING ? bytes - at : STAGING;
        if (part >= 2)
            rc = wait_event(device, i);
        if (rc < 0)
            break;
        qb_kernels()->copy(device->staging[i], (const uint8_t *)from + at, n);
        rc = begin_copy(device, (uint8_t *)to + at, device->staging[i], n);
        if (rc == 0)
            rc = record(device, i);
    }
    /* the buffers may be used again by whoever comes next */
    return rc < 0 ? rc : qr_device_wait(device);
}

int qr_device_download(struct qr_device *device, void *to, const void *from, uint64_t bytes)
{
    const uint64_t parts = (bytes + STAGING - 1) / STAGING;
    int rc = bytes < STAGED_FROM ? 0 : take_staging(device);
    qt_add(QT_GPU_RECEIVED_BYTES, bytes);
    if (rc < 0 || bytes < STAGED_FROM)
        return rc < 0 ? rc : begin_copy(device, to, from, bytes);
    for (uint64_t part = 0; part <= parts && rc == 0; part++) {
        const uint64_t at = part * STAGING, before = at - STAGING;
        if (part < parts) {
            const uint64_t n = bytes - at < STAGING ? bytes - at : STAGING;
            rc = begin_copy(device, device->staging[part % 2], (const uint8_t *)from + at, n);
            if (rc == 0)
                rc = record(device, part % 2);
        }
        if (part > 0 && rc == 0)
            rc = wait_event(device, (part - 1) % 2);
        if (part > 0 && rc == 0)
            qb_kernels()->copy((uint8_t *)to + before, device->staging[(part - 1) % 2],
                               bytes - before < STAGING ? bytes - before : STAGING);
    }
    return rc;
}

int qr_device_copy(struct qr_device *device, void *to, const void *from, uint64_t bytes)
{
    return begin_copy(device, to, from, bytes);
}

int qr_device_clear(struct qr_device *device, void *memory, uint64_t bytes)
{
    const struct qb_runtime *r = device->runtime;
    return qr_device_check(device, r->fill(r->context, memory, 0, bytes, device->stream),
                           "clearing memory of the GPU");
}

int qr_device_launch(struct qr_device *device, enum qb_operation operation,
                     const struct qb_batch *batch)
{
    const struct qb_runtime *r = device->runtime;
    qt_add(QT_GPU_LAUNCHES, 1);
    return qr_device_check(device, r->launch(r->context, operation, batch, device->stream),
                           "starting work on the GPU");
}

int qr_device_scan_bytes(struct qr_device *device, uint64_t count, uint64_t *bytes)
{
    const struct qb_runtime *r = device->runtime;
    return qr_device_check(device, r->scan_bytes(r->context, count, bytes),
                           "preparing work for the GPU");
}

int qr_device_scan(struct qr_device *device, struct qb_counts *counts, uint64_t count, void *memory,
                   uint64_t bytes)
{
    const struct qb_runtime *r = device->runtime;
    qt_add(QT_GPU_LAUNCHES, 1);
    return qr_device_check(device,
                           r->scan(r->context, counts, count, memory, bytes, device->stream),
                           "starting work on the GPU");
}

int qr_device_wait(struct qr_device *device)
{
    const struct qb_runtime *r = device->runtime;
    return qr_device_check(device, r->wait(r->context, device->stream), "waiting for the GPU");
}
