/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deltas: the change of one page's content in one commit, as one sorted list of edits.
 *
 * An edit replaces `old_length` bytes at `offset` of the OLD content by `new_length` bytes that are
 * literal, zeros, or a copy from anywhere in the OLD content. Overwrites, insertions, removals,
 * truncation, growth and moves are all this one thing. Between edits the old bytes stay, so only
 * their order matters: edits ascend by offset and do not overlap in the old content (an insertion
 * directly before or after another edit is fine; list order decides).
 *
 * On disk (docs/formats/tlog.md, "DELTA") a list is a stream of operations:
 *     varint gap   old bytes kept since the end of the previous edit
 *     varint n << 3 | kind
 *     kind  0 OVERWRITE  n literal bytes replace n bytes
 *           1 MASK       ceil(n/8) mask bytes (LSB first), then popcount payload bytes: span of n
 *           2 REPLACE    varint new_length, new_length literal bytes replace n bytes (n may be 0)
 *           3 REMOVE     n bytes vanish
 *           4 ZERO       n bytes become zero
 *           5 GROW       n zero bytes are inserted
 *           6 COPY       varint new_length, varint from: new_length bytes of the old content
 *                        starting at `from` replace n bytes
 *           7 STORED     varint new_length, u64 reference: new_length bytes of a CONTENT frame of
 *                        the same transaction replace n bytes
 * A reader refuses n == 0 where it means nothing (all but REPLACE, COPY and STORED), an operation
 * without effect, and set mask bits beyond n.
 */
#ifndef QR_DELTA_H
#define QR_DELTA_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/bytes.h"

enum qr_edit_source { QR_LITERAL, QR_ZEROS, QR_COPY, QR_STORED };

struct qr_edit {
    uint64_t offset;     /* in the old content */
    uint64_t old_length; /* old bytes replaced */
    uint64_t new_length; /* bytes put in their place */
    enum qr_edit_source source;
    const uint8_t *bytes; /* QR_LITERAL: new_length bytes, owned by whoever made the list */
    uint64_t from;        /* QR_COPY: offset in the old content; QR_STORED: where they stand */
};

/* A growable list of edits. Zero-initialise; free with qr_edits_finish. */
struct qr_edits {
    struct qr_edit *items;
    size_t count, capacity;
};

/* Appends one edit; adjacent mergeable literal overwrites whose bytes are contiguous in memory are
 * merged. 0 or QALLOW_E_NO_MEMORY. Asserts order and non-overlap. */
int qr_edits_add(struct qr_edits *list, struct qr_edit edit);
void qr_edits_finish(struct qr_edits *list);

/*
 * The difference between two byte strings in memory: appends to `list` the edits that turn `old`
 * into `new`, literals pointing into `new`. In-place changes, insertions, removals and moved blocks
 * are found; the result is small, not provably minimal. Exactly: applying the list to old gives
 * new. Deterministic. Equal inputs append nothing. Runs of zeros of 32 bytes and more in the new
 * content come as QR_ZEROS.
 *   max_index_bytes bounds the memory used for the block index (coarser blocks above it).
 * 0 or QALLOW_E_NO_MEMORY. Thread-safety: safe (different lists).
 */
int qr_diff(const uint8_t *old, size_t old_length, const uint8_t *new_, size_t new_length,
            size_t max_index_bytes, struct qr_edits *list);

/* How encoded operations are weighed. */
struct qr_encode_cost {
    size_t per_operation; /* what one more operation costs a reader, in bytes: small gaps between
                             overwrites are written out when that is cheaper; 4 for pages in memory,
                             24 for pages read piece by piece from the log */
    int masks;            /* MASK may be used */
};

/*
 * Encodes edits [*next, list->count) into out[0..capacity) and advances *next past what fitted;
 * an edit that does not fit whole is split (list->items[*next] is then changed to its rest).
 * `old_end` carries the end of the previous edit in old coordinates between calls (0 at first).
 * Returns the bytes written; 0 only if nothing is left or capacity < 64.
 */
size_t qr_ops_encode(struct qr_edits *list, size_t *next, uint64_t *old_end,
                     const uint8_t *old_or_null, struct qr_encode_cost cost, uint8_t *out,
                     size_t capacity);

/* One decoded operation. */
struct qr_op {
    enum {
        QR_OP_OVERWRITE,
        QR_OP_MASK,
        QR_OP_REPLACE,
        QR_OP_REMOVE,
        QR_OP_ZERO,
        QR_OP_GROW,
        QR_OP_COPY,
        QR_OP_STORED
    } kind;
    uint64_t offset; /* in the old content */
    uint64_t old_length;
    uint64_t new_length;
    const uint8_t *bytes; /* literal bytes (OVERWRITE, REPLACE) or payload (MASK), in the input */
    const uint8_t *mask;  /* MASK only */
    uint64_t payload_length; /* MASK: popcount */
    uint64_t from;           /* COPY; STORED: the reference */
};

/* The next operation of a cursor that is not at its end; otherwise as qr_op_next. */
int qr_op_decode(struct qr_cursor *cursor, uint64_t *old_end, struct qr_op *op);
/* Decodes the next operation. *old_end as above. Returns 1 with *op filled, 0 at the end of the
 * cursor, QALLOW_E_SERIALIZATION (no detail set) on anything malformed, including offsets that
 * overflow 64 bits. Does not know the size of the page: the caller checks offset + old_length and
 * from + new_length against it. */
static inline int qr_op_next(struct qr_cursor *cursor, uint64_t *old_end, struct qr_op *op)
{
    return cursor->at == cursor->end && !cursor->bad ? 0 : qr_op_decode(cursor, old_end, op);
}

#endif
