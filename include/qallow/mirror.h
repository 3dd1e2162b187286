/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mirrors: pages of a store in the memory of a device, where programs read and write them with
 * kernels of their own. The store keeps every epoch as always; the mirror is how one gets to the
 * device and how the next one comes from it.
 *
 *     qallow_mirror_create(store, pages, 2, QALLOW_GPU, stream, &mirror);
 *     qallow_mirror_load(mirror, qallow_newest(store));     an epoch onto the device
 *     qallow_mirror_data(mirror, 0, &data, &length);        a device pointer
 *     ... kernels on `stream` write there ...
 *     qallow_mirror_commit(mirror, &epoch);                 what they changed is an epoch
 *
 * A mirror holds each page twice, as the program has it and as it was at the last load or commit. A
 * commit compares the two on the device, and only what differs comes over the bus. Everything a
 * store can do holds for such epochs; qallow_checkpoint_export() after a commit is a checkpoint.
 *
 * Conventions are those of qallow/store.h; besides the errors listed NO_DEVICE, DEVICE_MEMORY,
 * DEVICE. One thread at a time per mirror; destroy it before its store is closed. Since: 0.1.0.
 */
#ifndef QALLOW_MIRROR_H
#define QALLOW_MIRROR_H

#include "qallow/store.h"

#ifdef __cplusplus
extern "C" {
#endif

struct qallow_mirror;

/* Memory of the device for `count` pages, as large as the pages of the newest epoch are; their
 * sizes stay. `location` is QALLOW_GPU or QALLOW_UNIFIED (the CPU can use the data too, while the
 * device does not; what the CPU wrote is committed like what the device wrote). `stream` is a CUDA
 * stream or NULL; all that the mirror does is in its order, and done when a call returns.
 * The data is undefined until the first load. PAGE_NOT_FOUND, UNSUPPORTED_LOCATION (QALLOW_CPU). */
QALLOW_API int qallow_mirror_create(struct qallow_store *store, const uint64_t *pages,
                                    size_t count, uint32_t location, void *stream,
                                    struct qallow_mirror **mirror);
/* NULL is legal. */
QALLOW_API void qallow_mirror_destroy(struct qallow_mirror *mirror);
/* Where the i-th page's bytes are; valid until the mirror is destroyed. */
QALLOW_API int qallow_mirror_data(struct qallow_mirror *mirror, size_t i, void **data,
                                  uint64_t *length);
/* Puts the pages of any epoch on the device and verifies them there. On failure the data is as it
 * was, unless the device failed; the mirror must be loaded before the next commit (STATE).
 * PAGE_NOT_FOUND, DIFFERS (a page has another size in that epoch), DAMAGED, IO. */
QALLOW_API int qallow_mirror_load(struct qallow_mirror *mirror, struct qallow_view *view);
/* Makes what differs from the last load or commit an epoch, in a transaction of its own; *epoch
 * (may be NULL) as with qallow_commit(). On failure there is no new epoch and the data stays.
 * STATE: the mirror was not loaded, or somebody else has changed one of the pages since. After the
 * load of an older epoch a commit goes on from it: what differs from the newest is restored too.
 * BUSY, IO, NO_SPACE, LIMIT as for transactions. */
QALLOW_API int qallow_mirror_commit(struct qallow_mirror *mirror, uint64_t *epoch);
/* For QALLOW_UNIFIED: moves the data to where it will be used next, ahead of time. */
QALLOW_API int qallow_mirror_prefetch(struct qallow_mirror *mirror, int to_device);

#ifdef __cplusplus
}
#endif
#endif
