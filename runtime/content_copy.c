/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing the whole content of a page into the log again: for images (a page in too many pieces)
 * and for checkpoints. What is read is summed and compared with the page's sum, so that damage is
 * never copied into something that looks sound.
 */
#include "runtime/digest.h"
#include "runtime/error.h"
#include "runtime/store_internal.h"

enum { CHUNK = 512 << 10, HOLE_MIN = 4096 /* bytes of zeros that stay a hole */ };

struct copier {
    struct qr_txn *txn;
    struct qr_batch *batch;
    struct qr_reader *reader;
    struct qr_content content;
    const uint8_t *held; /* the same in memory, or NULL */
    struct qr_cell_hasher hasher;
    uint8_t *chunk;
};

/* The next stretch of content from piece *i on: either one hole worth keeping, or data up to it. */
static uint64_t next_stretch(const struct qr_content *content, size_t *i, int *hole)
{
    uint64_t length = 0;
    for (; *i < content->piece_count; ++*i) {
        const struct qr_piece *piece = &content->pieces[*i];
        *hole = piece->ref == QR_REF_ZERO && piece->length >= HOLE_MIN;
        if (*hole && length) {
            *hole = 0;
            return length;
        }
        length += piece->length;
        if (*hole) {
            ++*i;
            return length;
        }
    }
    return length;
}

static int fetch(struct copier *c, uint64_t at, size_t length)
{
    if (!c->held)
        return qr_content_read(c->reader, &c->content, at, c->chunk, length);
    memcpy(c->chunk, c->held + at, length);
    return 0;
}

static int copy_stretch(struct copier *c, uint64_t at, uint64_t left, int hole)
{
    int rc = 0;
    while (left && !rc) {
        uint64_t n = hole || left < CHUNK ? left : CHUNK;
        struct qr_edit edit = {.new_length = n,
                               .source = hole ? QR_ZEROS : QR_LITERAL,
                               .bytes = hole ? NULL : c->chunk};
        struct qr_edits edits = {&edit, 1, 1};
        if (hole) {
            qr_cells_zeros(&c->hasher, n);
        } else if (!(rc = fetch(c, at, (size_t)n))) {
            qr_cells_update(&c->hasher, c->chunk, (size_t)n);
        }
        if (!rc)
            rc = qr_batch_delta_edits(c->batch, &edits, NULL);
        if (!rc && qr_batch_bytes(c->batch) >= QR_BODY_MAX)
            rc = qr_txn_append(c->txn, c->batch);
        at += n;
        left -= n;
    }
    return rc;
}

int qr_content_copy(struct qr_txn *txn, struct qr_batch *batch, struct qr_reader *reader,
                    const struct qr_page *page)
{
    struct copier c = {.txn = txn,
                       .batch = batch,
                       .reader = reader,
                       .held = page->held,
                       .chunk = qr_malloc(CHUNK)};
    uint64_t id = page->id, at = 0;
    struct qb_u128 expected = page->content_sum;
    int hole = 0, rc = c.chunk ? qr_content_init(&c.content, page)
                               : qr_fail(QALLOW_E_NO_MEMORY, "copy of page %llu",
                                         (unsigned long long)page->id);
    if (!rc) {
        qr_cells_init(&c.hasher, id, 0);
        for (size_t i = 0; at < c.content.size && !rc;) {
            uint64_t length = next_stretch(&c.content, &i, &hole);
            rc = copy_stretch(&c, at, length, hole);
            at += length;
        }
        struct qb_u128 sum = qr_cells_finish(&c.hasher);
        if (!rc && !qb_u128_equal(sum, expected))
            rc = qr_fail(QALLOW_E_DAMAGED,
                         "page %llu: its content does not give the recorded digest",
                         (unsigned long long)id);
        if (!rc)
            rc = qr_batch_delta_end(batch, sum);
        qr_content_finish(&c.content);
    }
    qr_free(c.chunk);
    return rc;
}
