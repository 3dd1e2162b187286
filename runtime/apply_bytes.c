/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Applying operations to bytes in memory. The decoder vouches for the form of an operation, the
 * functions here for its place: nothing is read outside the old content or written outside the new
 * one. All bulk work goes through the kernels.
 */
#include "runtime/apply_bytes.h"

#include "backend/kernels.h"
#include "runtime/error.h"
#include "runtime/os.h"

static int malformed(uint64_t old_end)
{
    return qr_fail(QALLOW_E_SERIALIZATION, "malformed operation after byte %llu of the old content",
                   (unsigned long long)old_end);
}

static int beyond(const struct qr_op *op, uint64_t size)
{
    return qr_fail(QALLOW_E_INVALID_DELTA,
                   "operation %d at byte %llu reaches beyond the page of %llu bytes", (int)op->kind,
                   (unsigned long long)op->offset, (unsigned long long)size);
}

static int wrong_size(uint64_t size)
{
    return qr_fail(QALLOW_E_INVALID_DELTA, "the operations do not give a page of %llu bytes",
                   (unsigned long long)size);
}

static int too_large(void)
{
    return qr_fail(QALLOW_E_INVALID_DELTA, "a page of more than %llu bytes",
                   (unsigned long long)QR_PAGE_SIZE_MAX);
}

/* Does the operation read only what the old content has? What is stored elsewhere in the log cannot
 * be had here. */
static int inside(const struct qr_op *op, uint64_t old_size)
{
    if (op->offset + op->old_length > old_size || op->kind == QR_OP_STORED)
        return 0;
    return op->kind != QR_OP_COPY || op->from + op->new_length <= old_size;
}

static int moves(const struct qr_op *op)
{
    return op->kind == QR_OP_COPY || op->old_length != op->new_length;
}

int qr_ops_check(struct qr_ops_check *check, struct qr_cursor part)
{
    struct qr_op op;
    uint64_t before = check->old_end;
    int found;
    if (check->old_size > QR_PAGE_SIZE_MAX)
        return too_large();
    while ((found = qr_op_next(&part, &check->old_end, &op)) == 1) {
        if (!inside(&op, check->old_size))
            return beyond(&op, check->old_size);
        uint64_t kept = op.offset - before;
        if (op.new_length > QR_PAGE_SIZE_MAX ||
            check->written + kept + op.new_length > QR_PAGE_SIZE_MAX)
            return too_large();
        check->written += kept + op.new_length;
        check->moves |= moves(&op);
        check->operations++;
        before = check->old_end;
    }
    return found ? malformed(before) : 0;
}

/* Keeps old bytes up to `end`. */
static int keep(struct qr_apply *apply, uint64_t end)
{
    uint64_t length = end - apply->old_end;
    if (length > apply->new_size - apply->written)
        return wrong_size(apply->new_size);
    if (length)
        qb_kernels()->copy(apply->new_ + apply->written, apply->old + apply->old_end,
                           (size_t)length);
    apply->written += length;
    apply->old_end = end;
    return 0;
}

/* Writes the new bytes of one operation, which is known to fit. */
static void put(const struct qr_apply *apply, const struct qr_op *op)
{
    const struct qb_kernels *kernels = qb_kernels();
    uint8_t *to = apply->new_ + apply->written;
    size_t n = (size_t)op->new_length;
    if (n == 0)
        return;
    switch (op->kind) {
    case QR_OP_OVERWRITE:
    case QR_OP_REPLACE:
        kernels->copy(to, op->bytes, n);
        break;
    case QR_OP_MASK:
        kernels->copy(to, apply->old + op->offset, n);
        kernels->apply_mask(to, n, op->mask, op->bytes, (size_t)op->payload_length);
        break;
    case QR_OP_ZERO:
    case QR_OP_GROW:
        kernels->zero(to, n);
        break;
    case QR_OP_COPY:
        kernels->copy(to, apply->old + op->from, n);
        break;
    case QR_OP_REMOVE:
    case QR_OP_STORED: /* its bytes are not here; see inside() */
        break;
    }
}

int qr_apply_part(struct qr_apply *apply, struct qr_cursor part)
{
    uint64_t old_end = apply->old_end;
    struct qr_op op;
    int found;
    while ((found = qr_op_next(&part, &old_end, &op)) == 1) {
        if (!inside(&op, apply->old_size))
            return beyond(&op, apply->old_size);
        int result = keep(apply, op.offset);
        if (result)
            return result;
        if (op.new_length > apply->new_size - apply->written)
            return wrong_size(apply->new_size);
        put(apply, &op);
        apply->written += op.new_length;
        apply->old_end = old_end;
    }
    return found ? malformed(old_end) : 0;
}

int qr_apply_end(struct qr_apply *apply)
{
    int result = keep(apply, apply->old_size);
    if (result == 0 && apply->written != apply->new_size)
        result = wrong_size(apply->new_size);
    return result;
}

int qr_apply_in_place(uint8_t *page, uint64_t size, struct qr_cursor part, uint64_t *old_end)
{
    enum { SHORT = 256 }; /* a copy that is not worth a call through the table */
    const struct qb_kernels *kernels = qb_kernels();
    struct qr_op op;
    int found;
    while ((found = qr_op_next(&part, old_end, &op)) == 1) {
        if (!inside(&op, size))
            return beyond(&op, size);
        if (moves(&op))
            return qr_fail(QALLOW_E_INVALID_DELTA, "operation %d at byte %llu is not in place",
                           (int)op.kind, (unsigned long long)op.offset);
        if (op.kind == QR_OP_MASK)
            kernels->apply_mask(page + op.offset, (size_t)op.new_length, op.mask, op.bytes,
                                (size_t)op.payload_length);
        else if (op.kind == QR_OP_ZERO)
            kernels->zero(page + op.offset, (size_t)op.new_length);
        else if (op.new_length <= SHORT)
            memcpy(page + op.offset, op.bytes, (size_t)op.new_length);
        else
            kernels->copy(page + op.offset, op.bytes, (size_t)op.new_length);
    }
    return found ? malformed(*old_end) : 0;
}

/* --- whole changes --- */

/* A single operation that writes over bytes of a page whose size stays, as most are: 1, done. */
static int overwrite(const struct qr_change *c)
{
    struct qr_cursor operations = c->operations;
    uint64_t old_end = 0;
    struct qr_op op;
    if (!c->old_size || c->old_size != c->new_size || qr_op_next(&operations, &old_end, &op) != 1 ||
        op.kind != QR_OP_OVERWRITE || operations.at != operations.end || old_end > c->old_size)
        return 0;
    memcpy(c->to + op.offset, op.bytes, (size_t)op.new_length);
    return 1;
}

static int stays_in_place(const struct qr_change *c)
{
    struct qr_ops_check check = {.old_size = c->old_size};
    return c->old_size && c->old_size == c->new_size && qr_ops_check(&check, c->operations) == 0 &&
           !check.moves;
}

/* New bytes apart from the old ones, which may stand where they are to go. */
static int build(const struct qr_change *c)
{
    struct qr_apply apply = {
        .old = c->from, .old_size = c->old_size, .new_ = c->to, .new_size = c->new_size};
    if (c->old_size && !(apply.new_ = qr_malloc((size_t)c->new_size + 1)))
        return qr_fail(QALLOW_E_NO_MEMORY, "a change of %llu bytes",
                       (unsigned long long)c->new_size);
    int rc = qr_apply_part(&apply, c->operations);
    rc = rc ? rc : qr_apply_end(&apply);
    if (c->old_size) {
        if (rc == 0)
            qb_kernels()->copy(c->to, apply.new_, (size_t)c->new_size);
        qr_free(apply.new_);
    }
    return rc;
}

static int is_right(const struct qr_change *c)
{
    enum { SIZE_MAX_HOT = 256 << 10 };
    return c->new_size <= SIZE_MAX_HOT &&
           qb_u128_equal(
               c->page->content_sum,
               qb_kernels()->hash_cells(c->to, (size_t)c->new_size, qr_page_seed(c->page->id), 0));
}

int qr_change_apply(const struct qr_change *c)
{
    uint64_t old_end = 0;
    int rc = 0;
    if (!overwrite(c))
        rc = stays_in_place(c) ? qr_apply_in_place(c->to, c->new_size, c->operations, &old_end)
                               : build(c);
    if (rc == 0 && c->page)
        c->page->mark = is_right(c);
    return rc;
}

void qr_change_fetch_operations(const struct qr_change *c) { __builtin_prefetch(c->operations.at); }

void qr_change_fetch_bytes(const struct qr_change *c)
{
    struct qr_cursor operations = c->operations;
    uint64_t offset = qr_get_varint(&operations);
    if (offset < c->new_size)
        __builtin_prefetch(c->to + offset, 1);
}
