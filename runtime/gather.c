/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading a whole state into memory, in the order of the log.
 *
 * Page by page, the pieces of a state that many small commits have made are scattered over the
 * log, and every piece costs a read of its own frame. Sorted by where they stand, they are one
 * walk over the log that reads each frame once and ahead; the bytes go straight to their places.
 * So any epoch costs about the same, whatever the number of commits that made it.
 */
#include "runtime/digest.h"
#include "runtime/error.h"
#include "runtime/store_internal.h"

struct span {
    qr_ref ref;
    uint8_t *to;
    uint64_t length;
};

struct spans {
    struct span *items;
    size_t count, capacity;
};

/* Adds a piece, cut where relocations begin and end. */
static int add_spans(struct qr_store *store, struct spans *spans, qr_ref ref, uint8_t *to,
                     uint64_t length)
{
    while (length) {
        uint64_t n = length;
        qr_ref now = qr_directory_resolve(&store->directory, store->log->header.start, ref, &n);
        int rc = QR_GROW(spans->items, spans->count, spans->capacity);
        if (rc)
            return rc;
        spans->items[spans->count++] = (struct span){now, to, n};
        ref += n;
        to += n;
        length -= n;
    }
    return 0;
}

/* Least significant byte first, only over the bytes in which the references differ. */
static int sort_spans(struct spans *spans)
{
    uint64_t all = 0, none = UINT64_MAX;
    for (size_t i = 0; i < spans->count; i++) {
        all |= spans->items[i].ref;
        none &= spans->items[i].ref;
    }
    struct span *other = qr_malloc((spans->count + 1) * sizeof *other);
    if (!other)
        return qr_fail(QALLOW_E_NO_MEMORY, "%zu pieces", spans->count);
    for (unsigned shift = 0; shift < 64; shift += 8) {
        size_t starts[257] = {0};
        if (!((all ^ none) >> shift & 0xff))
            continue;
        for (size_t i = 0; i < spans->count; i++)
            starts[(spans->items[i].ref >> shift & 0xff) + 1]++;
        for (size_t b = 1; b < 257; b++)
            starts[b] += starts[b - 1];
        for (size_t i = 0; i < spans->count; i++)
            other[starts[spans->items[i].ref >> shift & 0xff]++] = spans->items[i];
        struct span *swap = spans->items;
        spans->items = other;
        other = swap;
        spans->capacity = spans->count + 1;
    }
    qr_free(other);
    return 0;
}

static int read_spans(struct qr_store *store, const struct spans *spans)
{
    struct qr_reader *reader;
    int rc = qr_reader_create(store, 4 << 20, &reader);
    if (rc)
        return rc;
    qr_reader_read_ahead(reader);
    for (size_t i = 0; i < spans->count && !rc; i++)
        rc = qr_reader_literal(reader, spans->items[i].ref, spans->items[i].to,
                               spans->items[i].length);
    qr_reader_destroy(reader);
    return rc;
}

int qr_page_check(const struct qr_page *page, const uint8_t *bytes)
{
    struct qb_u128 sum = qb_kernels()->hash_cells(bytes, page->size, qr_page_seed(page->id), 0);
    if (!qb_u128_equal(sum, page->content_sum))
        return qr_fail(QALLOW_E_DAMAGED, "page %llu: its content does not give the recorded digest",
                       (unsigned long long)page->id);
    return 0;
}

static int add_page(struct qr_store *store, struct spans *spans, const struct qr_page *page,
                    uint8_t *to)
{
    struct qr_content content;
    int rc = qr_content_init(&content, page);
    for (size_t i = 0; !rc && i < content.piece_count; i++) {
        const struct qr_piece *piece = &content.pieces[i];
        if (piece->ref == QR_REF_ZERO)
            qb_kernels()->zero(to, piece->length);
        else
            rc = add_spans(store, spans, piece->ref, to, piece->length);
        to += piece->length;
    }
    qr_content_finish(&content);
    return rc;
}

int qr_state_load(struct qr_store *store, const struct qr_state *state,
                  uint8_t *(*place)(void *context, const struct qr_page *page), void *context)
{
    struct spans spans = {NULL, 0, 0};
    const struct qr_page *page;
    int rc = 0;
    for (page = qr_state_next_page(state, 0); page && !rc;
         page = qr_state_next_page(state, page->id)) {
        uint8_t *to = place(context, page);
        if (to)
            rc = add_page(store, &spans, page, to);
    }
    if (!rc && spans.count)
        rc = sort_spans(&spans);
    if (!rc)
        rc = read_spans(store, &spans);
    qr_free(spans.items);
    for (page = qr_state_next_page(state, 0); page && !rc;
         page = qr_state_next_page(state, page->id)) {
        const uint8_t *bytes = place(context, page);
        if (bytes)
            rc = qr_page_check(page, bytes);
    }
    return rc;
}
