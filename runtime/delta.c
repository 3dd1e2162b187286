/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Edit lists, and reading operations back.
 *
 * The decoder is one switch over the kinds. It trusts nothing: every length is compared with what
 * is left in the cursor before a byte is touched, every sum with 64 bits before it is used. What it
 * cannot know is the size of the page; that check belongs to whoever applies.
 */
#include "runtime/delta.h"

#include "backend/kernels.h"
#include "runtime/error.h"
#include "runtime/format.h"
#include "runtime/os.h"

static int is_overwrite(const struct qr_edit *edit)
{
    return edit->source == QR_LITERAL && edit->old_length == edit->new_length;
}

static int continues(const struct qr_edit *last, const struct qr_edit *edit)
{
    return is_overwrite(last) && is_overwrite(edit) &&
           last->offset + last->old_length == edit->offset &&
           last->bytes + last->new_length == edit->bytes;
}

int qr_edits_add(struct qr_edits *list, struct qr_edit edit)
{
    qr_assert(edit.offset + edit.old_length >= edit.offset);
    if (list->count) {
        struct qr_edit *last = &list->items[list->count - 1];
        qr_assert(edit.offset >= last->offset + last->old_length);
        if (continues(last, &edit)) {
            last->old_length += edit.old_length;
            last->new_length += edit.new_length;
            return 0;
        }
    }
    if (edit.old_length == 0 && edit.new_length == 0)
        return 0;
    if (QR_GROW(list->items, list->count, list->capacity) < 0)
        return QALLOW_E_NO_MEMORY;
    list->items[list->count++] = edit;
    return 0;
}

void qr_edits_finish(struct qr_edits *list)
{
    qr_free(list->items);
    *list = (struct qr_edits){0};
}

/* --- decoder --- */

/* The mask and payload of a span of n bytes. */
static int get_mask(struct qr_cursor *cursor, uint64_t n, struct qr_op *op)
{
    uint64_t mask_length = n / 8 + (n % 8 != 0);
    op->mask = qr_get_bytes(cursor, mask_length);
    if (!op->mask)
        return 0;
    if (n % 8 && op->mask[mask_length - 1] >> (n % 8))
        return 0;
    op->payload_length = qb_kernels()->count_mask(op->mask, (size_t)n);
    op->bytes = qr_get_bytes(cursor, op->payload_length);
    return op->payload_length != 0 && op->bytes;
}

/* What follows the head of an operation. op->offset and op->old_length are set; returns 0 if the
 * operation is malformed or has no effect. */
static int get_body(struct qr_cursor *cursor, struct qr_op *op)
{
    uint64_t n = op->old_length;
    op->new_length = n;
    switch (op->kind) {
    case QR_OP_OVERWRITE:
        op->bytes = qr_get_bytes(cursor, n);
        return n != 0;
    case QR_OP_MASK:
        return n != 0 && get_mask(cursor, n, op);
    case QR_OP_REPLACE:
        op->new_length = qr_get_varint(cursor);
        op->bytes = qr_get_bytes(cursor, op->new_length);
        return n != 0 || op->new_length != 0;
    case QR_OP_REMOVE:
        op->new_length = 0;
        return n != 0;
    case QR_OP_ZERO:
        return n != 0;
    case QR_OP_GROW:
        op->old_length = 0;
        return n != 0;
    case QR_OP_COPY:
        op->new_length = qr_get_varint(cursor);
        op->from = qr_get_varint(cursor);
        if (op->from + op->new_length < op->from)
            return 0;
        return n != op->new_length || (n != 0 && op->from != op->offset);
    case QR_OP_STORED:
        op->new_length = qr_get_varint(cursor);
        op->from = qr_get_u64(cursor);
        return op->new_length != 0 &&
               op->new_length <= QR_BODY_MAX - (op->from & (QR_BODY_MAX - 1));
    }
    return 0;
}

int qr_op_decode(struct qr_cursor *cursor, uint64_t *old_end, struct qr_op *op)
{
    *op = (struct qr_op){0};
    uint64_t gap = qr_get_varint(cursor);
    uint64_t head = qr_get_varint(cursor);
    op->offset = *old_end + gap;
    op->old_length = head >> 3;
    op->kind = head & 7;
    if (cursor->bad || op->offset < gap || op->offset + op->old_length < op->offset ||
        !get_body(cursor, op) || cursor->bad) {
        cursor->bad = 1;
        return QALLOW_E_SERIALIZATION;
    }
    *old_end = op->offset + op->old_length;
    return 1;
}
