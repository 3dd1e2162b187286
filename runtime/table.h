/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page table as a stream of bytes (docs/formats/tlog.md, "Keyframes"): written into KEYFRAME
 * frames, into the index file, and read back from either, in bounded memory.
 */
#ifndef QR_TABLE_H
#define QR_TABLE_H

#include "runtime/bytes.h"
#include "runtime/page.h"

struct qr_log;

/* Where bytes go. `flush` is called with each full buffer and, with last = 1, at the end. */
struct qr_sink {
    uint8_t *buffer;
    size_t fill, capacity;
    int (*flush)(void *context, const uint8_t *bytes, size_t length, int last);
    void *context;
    int rc; /* the first failure; later puts do nothing */
};
int qr_sink_init(struct qr_sink *sink, size_t capacity,
                 int (*flush)(void *, const uint8_t *, size_t, int), void *context);
/* Flushes with last = 1, frees the buffer and returns the first failure. */
int qr_sink_finish(struct qr_sink *sink);
void qr_sink_put(struct qr_sink *sink, const void *bytes, size_t length);
void qr_sink_varint_slowly(struct qr_sink *sink, uint64_t value);
static inline void qr_sink_varint(struct qr_sink *sink, uint64_t value)
{
    if (sink->capacity - sink->fill < QR_VARINT_MAX || sink->rc) {
        qr_sink_varint_slowly(sink, value);
        return;
    }
    uint8_t *at = sink->buffer + sink->fill;
    sink->fill += (size_t)(qr_put_varint(at, value) - at);
}
void qr_sink_u64(struct qr_sink *sink, uint64_t value);
void qr_sink_sum(struct qr_sink *sink, struct qb_u128 sum);

/* Where bytes come from. `read` fills up to `room` bytes and returns how many; 0 at the end. */
struct qr_source {
    struct qr_cursor cursor; /* over what is in the buffer */
    uint8_t *buffer;
    size_t capacity;
    int64_t (*read)(void *context, uint8_t *into, size_t room);
    void *context;
    int rc;
};
int qr_source_init(struct qr_source *source, size_t capacity,
                   int64_t (*read)(void *, uint8_t *, size_t), void *context);
void qr_source_finish(struct qr_source *source);
/* Makes `length` bytes available in the cursor if there are that many; 0 or an error. */
int qr_source_need(struct qr_source *source, size_t length);

void qr_table_write(struct qr_sink *sink, const struct qr_state *state, int with_stat);
/* Fills an empty state. Errors: SERIALIZATION, DAMAGED, NO_MEMORY, ... */
int qr_table_read(struct qr_source *source, struct qr_state *state, int with_stat);

/* --- keyframes --- */

struct qr_keyframe_head {
    uint64_t epoch, resume, prev; /* where the log goes on after the epoch */
};
/* Appends the state as a keyframe. `resume`, `prev`: the end of its epoch in the log. */
int qr_keyframe_write(struct qr_log *log, const struct qr_state *state, uint64_t resume,
                      uint64_t prev, int compress_level, uint64_t *offset);
/* Reads the keyframe whose first frame stands at `offset`; DAMAGED if its digest is wrong. */
int qr_keyframe_read(const struct qr_log *log, uint64_t offset, struct qr_state **state,
                     struct qr_keyframe_head *head);

#endif
