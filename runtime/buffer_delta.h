/* SPDX-License-Identifier: Apache-2.0 */
/* What the two makers of deltas between buffers share: the header and the checks around it. */
#ifndef QR_BUFFER_DELTA_H
#define QR_BUFFER_DELTA_H

#include "backend/batch.h"
#include "qallow/delta.h"

enum { QR_DELTA_HEADER = 128, QR_DELTA_ROW = 16 /* of the table of buffers */ };

struct qr_delta_header {
    uint64_t length, buffers;
    struct qb_counts total;
    struct qb_u128 base, result, body; /* digests; that of all bytes behind the header */
};

/* Fills in `length` from the other numbers; false if that overflows. */
int qr_delta_measure(struct qr_delta_header *header);
void qr_delta_header_put(uint8_t out[QR_DELTA_HEADER], const struct qr_delta_header *header);
/* Reads and checks the header of a delta of `length` bytes. DAMAGED, VERSION. */
int qr_delta_header_get(const uint8_t *bytes, uint64_t length, struct qr_delta_header *header);
/* The parts of a delta that begins at `delta`, a multiple of 8. */
struct qb_delta_parts qr_delta_parts(uint8_t *delta, const struct qr_delta_header *header);

/* The table of buffers, QR_DELTA_ROW bytes each. */
void qr_delta_table_put(uint8_t *out, const struct qallow_buffer *buffers, size_t count);
/* INVALID_DELTA if it is not that of these buffers. */
int qr_delta_table_check(const uint8_t *table, const struct qr_delta_header *header,
                         const struct qallow_buffer *buffers, size_t count);

uint64_t qr_buffer_id(const struct qallow_buffer *buffers, size_t i);
/* A buffer's part of the digest beside its cells. */
struct qb_u128 qr_buffer_term(const struct qallow_buffer *buffers, size_t i);
/* Why a delta cannot be applied to a state with this digest; 0 if it can. */
int qr_delta_base_check(const struct qr_delta_header *header, struct qb_u128 digest);
/* What is said when the result was wrong; `back` is whether the state is the base again. */
int qr_delta_result_wrong(int back);

/* One run of a delta: payload bytes for `buffer`, `offset`. Not 0 ends the walk. */
typedef int (*qr_delta_visit)(void *context, size_t buffer, uint64_t offset,
                              const uint8_t *payload, size_t length);
/* Walks over a whole delta and checks it on the way; `visit` may be NULL. DAMAGED, or what a visit
 * gave. */
int qr_delta_each(const struct qallow_buffer *buffers, size_t count,
                  const struct qb_delta_parts *parts, qr_delta_visit visit, void *context);

/* The makers. `header` is in the direction in which the delta is to be applied. */
int qr_cpu_extract(const struct qallow_buffer *base, const struct qallow_buffer *result,
                   size_t count, const struct qallow_buffer *delta, uint64_t *length);
int qr_cpu_apply(const struct qallow_buffer *state, size_t count, const uint8_t *delta,
                 const struct qr_delta_header *header);
struct qb_u128 qr_cpu_digest(const struct qallow_buffer *buffers, size_t count);
int qr_device_extract(const struct qallow_buffer *base, const struct qallow_buffer *result,
                      size_t count, const struct qallow_buffer *delta, void *stream,
                      uint64_t *length);
/* What differs between buffers on a device, with the new bytes instead of old ^ new: a delta in the
 * CPU's memory that never leaves the process, to be freed with qr_free. */
int qr_device_changes(const struct qallow_buffer *base, const struct qallow_buffer *result,
                      size_t count, void *stream, uint8_t **delta, struct qr_delta_header *header);
int qr_device_apply(const struct qallow_buffer *state, size_t count,
                    const struct qallow_buffer *delta, uint64_t length, int undo, void *stream);
int qr_device_digest(const struct qallow_buffer *buffers, size_t count, void *stream,
                     struct qb_u128 *digest);

#endif
