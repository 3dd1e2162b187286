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
    struct qr_relay *relay;
    struct qr_reader *reader;
    struct qr_content content;
    const uint8_t *held; /* the same in memory, or NULL */
    uint64_t page;
    struct qb_u128 expected;
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

/* The next bytes of content, where they are held or in the chunk. */
static int fetch(struct copier *c, uint64_t at, size_t length, const uint8_t **bytes)
{
    *bytes = c->held ? c->held + at : c->chunk;
    return c->held ? 0 : qr_content_read(c->reader, &c->content, at, c->chunk, length);
}

/* The last edits, with the sum: so what is copied at once is one record. */
static int end(struct copier *c, struct qr_edits *edits)
{
    struct qb_u128 sum = qr_cells_finish(&c->hasher);
    if (!qb_u128_equal(sum, c->expected))
        return qr_fail(QALLOW_E_DAMAGED, "page %llu: its content does not give the recorded digest",
                       (unsigned long long)c->page);
    return qr_batch_delta_last(qr_relay_batch(c->relay), edits, sum);
}

static int copy_stretch(struct copier *c, uint64_t at, uint64_t left, int hole)
{
    int rc = 0;
    while (left && !rc) {
        uint64_t n = hole || left < CHUNK ? left : CHUNK;
        struct qr_edit edit = {.new_length = n, .source = hole ? QR_ZEROS : QR_LITERAL};
        struct qr_edits edits = {&edit, 1, 1};
        if (hole)
            qr_cells_zeros(&c->hasher, n);
        else if (!(rc = fetch(c, at, (size_t)n, &edit.bytes)))
            qr_cells_update(&c->hasher, edit.bytes, (size_t)n);
        at += n;
        left -= n;
        if (!rc)
            rc = at == c->content.size
                     ? end(c, &edits)
                     : qr_batch_delta_edits(qr_relay_batch(c->relay), &edits, NULL);
        if (!rc && at < c->content.size && qr_batch_bytes(qr_relay_batch(c->relay)) >= QR_BODY_MAX)
            rc = qr_relay_pass(c->relay);
    }
    return rc;
}

int qr_content_copy(struct qr_relay *relay, struct qr_reader *reader, const struct qr_page *page)
{
    struct copier c = {.relay = relay,
                       .reader = reader,
                       .held = page->held,
                       .page = page->id,
                       .expected = page->content_sum};
    struct qr_edits none = {NULL, 0, 0};
    uint64_t at = 0;
    int hole = 0, rc = qr_content_init(&c.content, page);
    if (!rc && !c.held && !(c.chunk = qr_malloc(page->size < CHUNK ? page->size + 1 : CHUNK)))
        rc = qr_fail(QALLOW_E_NO_MEMORY, "copy of page %llu", (unsigned long long)page->id);
    qr_cells_init(&c.hasher, page->id, 0);
    for (size_t i = 0; !rc && at < c.content.size;) {
        uint64_t length = next_stretch(&c.content, &i, &hole);
        rc = copy_stretch(&c, at, length, hole);
        at += length;
    }
    if (!rc && c.content.size == 0)
        rc = end(&c, &none);
    qr_content_finish(&c.content);
    qr_free(c.chunk);
    return rc;
}
