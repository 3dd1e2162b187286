/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deltas between buffers that the caller owns, in the memory of the CPU or of a device, without a
 * store: what changed from one set of buffers to another as bytes that can be sent anywhere and
 * applied there.
 *
 *     qallow_delta_bound(buffers, count, &capacity);
 *     qallow_delta_extract(old, new, count, &delta, stream, &length);
 *     qallow_delta_apply(state, count, &delta, length, stream);    old becomes new
 *     qallow_delta_undo(state, count, &delta, length, stream);     and new becomes old
 *
 * A delta names the digests of what it leads from and of what it leads to. Applying verifies the
 * first before a byte is changed and the second afterwards; if that fails, the change is taken back
 * and the error says so. The same two contents give the same delta, byte for byte, on a device and
 * on the CPU. The format is docs/formats/delta.md; who may touch which memory when is
 * docs/memory-model.md.
 *
 * Conventions are those of qallow/store.h. All functions return when the work is done and verified;
 * they may be called from any thread, on buffers that nobody else writes meanwhile. On a device
 * they work on the current device of the calling thread. Besides the errors listed:
 * NO_DEVICE (a location that is not the CPU's, and no device or driver), DEVICE_MEMORY (the detail
 * says how much was asked for and how much is free), DEVICE (it failed or was lost). Since: 0.1.0.
 */
#ifndef QALLOW_DELTA_H
#define QALLOW_DELTA_H

#include <stddef.h>
#include <stdint.h>

#include "qallow/error.h"

#ifdef __cplusplus
extern "C" {
#endif

struct qallow_buffer {
    uint32_t size;     /* of this struct */
    uint32_t location; /* enum qallow_location */
    void *data;        /* NULL is legal where length is 0 */
    uint64_t length;   /* in bytes */
    uint64_t id;       /* part of the digest, like a page's id; 0: its place in the array, from 1 */
    uint64_t reserved[2];
};
#define QALLOW_BUFFER_INIT                                                                         \
    {                                                                                              \
        sizeof(struct qallow_buffer), 0, NULL, 0, 0, { 0 }                                         \
    }

struct qallow_delta_info {
    uint32_t size;
    uint32_t reserved32;
    uint64_t length;                /* of the delta in bytes */
    uint64_t buffers;               /* that it applies to */
    uint64_t runs, changed_bytes;   /* that it holds */
    uint64_t base[2], result[2];    /* digests: low, high */
    uint64_t reserved[4];
};
#define QALLOW_DELTA_INFO_INIT                                                                     \
    {                                                                                              \
        sizeof(struct qallow_delta_info), 0, 0, 0, 0, 0, {0, 0}, {0, 0}, { 0 }                    \
    }

/* The most bytes that a delta between contents of these lengths takes: about 1.2 % more than all of
 * them. */
QALLOW_API int qallow_delta_bound(const struct qallow_buffer *buffers, size_t count,
                                  uint64_t *bytes);

/* Writes the delta that leads from `base` to `result`, `count` buffers each, which must agree in
 * length and id, into `delta`; *length is what it takes. What `base` and `result` point to is only
 * read. All of `base` and `result` are on the CPU, or none is; if none, `delta` may be anywhere,
 * else on the CPU. A delta on a device begins at a multiple of 16. `stream` is a CUDA stream, or
 * NULL for the default one; without a meaning on the CPU.
 * LIMIT (it does not fit: *length is set to what is needed). */
QALLOW_API int qallow_delta_extract(const struct qallow_buffer *base,
                                    const struct qallow_buffer *result, size_t count,
                                    const struct qallow_buffer *delta, void *stream,
                                    uint64_t *length);

/* Changes what `state` points to from the delta's base to its result. `length` is the delta's.
 * DIFFERS (the state is not the base; nothing was changed), INVALID_DELTA (made for buffers of
 * other lengths or ids), DAMAGED (the delta is cut off or altered, nothing was changed; or the
 * result was not what it says, and the change was taken back), VERSION. */
QALLOW_API int qallow_delta_apply(const struct qallow_buffer *state, size_t count,
                                  const struct qallow_buffer *delta, uint64_t length,
                                  void *stream);
/* The other way, from the delta's result to its base. */
QALLOW_API int qallow_delta_undo(const struct qallow_buffer *state, size_t count,
                                 const struct qallow_buffer *delta, uint64_t length, void *stream);

/* What a delta says of itself; `delta` is on the CPU and has at least its first 128 bytes.
 * DAMAGED, VERSION. */
QALLOW_API int qallow_delta_info_get(const void *delta, uint64_t length,
                                     struct qallow_delta_info *info);
/* The digest of buffers: low, high. */
QALLOW_API int qallow_buffers_digest(const struct qallow_buffer *buffers, size_t count,
                                     void *stream, uint64_t digest[2]);

#ifdef __cplusplus
}
#endif
#endif
