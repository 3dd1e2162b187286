/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Applying operations to bytes in memory: content that is held beside its pieces (held.c), copies
 * on other devices. (The pieces, references into the log, are rearranged; see runtime/apply.c.)
 *
 * The operations of one content change may come in parts. First every part is checked, which
 * touches no page and also gives the new size; then all are applied, either into a second buffer
 * or, if the check says so, in place. What was checked cannot fail to apply, so a page is never
 * left half changed:
 *
 *     struct qr_ops_check check = {.old_size = size};
 *     for each part: qr_ops_check(&check, part)           -- refuses what is malformed
 *     new_size = qr_ops_new_size(&check)
 *     if (!check.moves)
 *         for each part: qr_apply_in_place(page, size, part, &old_end)
 *     else
 *         struct qr_apply apply = {old, old_size, new_, new_size};
 *         for each part: qr_apply_part(&apply, part);  qr_apply_end(&apply)
 *
 * The apply functions check every bound themselves and are safe on unchecked operations as well,
 * but then stop half way. All return 0, QALLOW_E_SERIALIZATION (malformed operations) or
 * QALLOW_E_INVALID_DELTA (they reach beyond the page, or give another size). Thread-safety: safe on
 * different pages.
 */
#ifndef QR_APPLY_BYTES_H
#define QR_APPLY_BYTES_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/delta.h"
#include "runtime/page.h"

/* What is known of a content change after some of its parts. Set old_size, zero the rest. */
struct qr_ops_check {
    uint64_t old_size;
    uint64_t old_end; /* end of the last operation in the old content */
    uint64_t written; /* new bytes up to there */
    int moves;        /* some operation changes the size, or copies */
    uint64_t operations;
};
int qr_ops_check(struct qr_ops_check *check, struct qr_cursor part);
/* The size after all parts. */
static inline uint64_t qr_ops_new_size(const struct qr_ops_check *check)
{
    return check->written + (check->old_size - check->old_end);
}

/* Builds the new content in a buffer of its own. Set the first four members, zero the rest. */
struct qr_apply {
    const uint8_t *old;
    uint64_t old_size;
    uint8_t *new_;     /* does not overlap old */
    uint64_t new_size; /* exactly what the operations give */
    uint64_t old_end, written;
};
int qr_apply_part(struct qr_apply *apply, struct qr_cursor part);
int qr_apply_end(struct qr_apply *apply);

/* Overwrites, masks and zeros only (!check.moves). *old_end is 0 before the first part. */
int qr_apply_in_place(uint8_t *page, uint64_t size, struct qr_cursor part, uint64_t *old_end);

/* A content change in one part whose old and new bytes have a place each, which may be the same. It
 * may be applied later, and beside changes of other pages (scan_ahead.c). */
struct qr_change {
    const uint8_t *from; /* NULL if old_size is 0 */
    uint8_t *to;
    uint64_t old_size, new_size;
    struct qr_cursor operations;
    struct qr_page *page; /* not NULL: its mark becomes whether the new bytes give its sum, if they
                             are few enough to be looked at while the cache has them */
};
/* Also QALLOW_E_NO_MEMORY. The page may be left half changed. */
int qr_change_apply(const struct qr_change *change);
/* The operations, then the bytes they begin with, are fetched into the cache. */
void qr_change_fetch_operations(const struct qr_change *change);
void qr_change_fetch_bytes(const struct qr_change *change);

#endif
