/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streaming the page table. Writing goes through a buffer that is flushed when full; reading keeps
 * a window large enough for any one page's fixed part, and takes its pieces one by one.
 *
 * A table read back is hostile input: parents may come after their children (a page can be moved
 * below a newer directory), so links are made and checked when all pages are there, cycles
 * included.
 */
#include "runtime/table.h"

#include "runtime/error.h"
#include "runtime/format.h"
#include "runtime/os.h"
#include "runtime/state_internal.h"

enum { PAGE_HEAD_MAX = 128 + QR_NAME_MAX + QR_EXTRA_MAX };

/* ---------------------------------------------------------------- sink */

int qr_sink_init(struct qr_sink *sink, size_t capacity,
                 int (*flush)(void *, const uint8_t *, size_t, int), void *context)
{
    *sink = (struct qr_sink){
        .buffer = qr_malloc(capacity), .capacity = capacity, .flush = flush, .context = context};
    if (!sink->buffer)
        sink->rc = qr_fail(QALLOW_E_NO_MEMORY, "a buffer of %zu bytes", capacity);
    return sink->rc;
}

void qr_sink_put(struct qr_sink *sink, const void *bytes, size_t length)
{
    const uint8_t *p = bytes;
    while (length && !sink->rc) {
        size_t n = sink->capacity - sink->fill < length ? sink->capacity - sink->fill : length;
        memcpy(sink->buffer + sink->fill, p, n);
        sink->fill += n;
        p += n;
        length -= n;
        if (sink->fill == sink->capacity && length) {
            sink->rc = sink->flush(sink->context, sink->buffer, sink->fill, 0);
            sink->fill = 0;
        }
    }
}

void qr_sink_varint_slowly(struct qr_sink *sink, uint64_t value)
{
    uint8_t bytes[QR_VARINT_MAX];
    qr_sink_put(sink, bytes, (size_t)(qr_put_varint(bytes, value) - bytes));
}

void qr_sink_u64(struct qr_sink *sink, uint64_t value)
{
    uint8_t bytes[8];
    qr_store64(bytes, value);
    qr_sink_put(sink, bytes, sizeof bytes);
}

void qr_sink_sum(struct qr_sink *sink, struct qb_u128 sum)
{
    qr_sink_u64(sink, sum.lo);
    qr_sink_u64(sink, sum.hi);
}

int qr_sink_finish(struct qr_sink *sink)
{
    if (!sink->rc)
        sink->rc = sink->flush(sink->context, sink->buffer, sink->fill, 1);
    qr_free(sink->buffer);
    sink->buffer = NULL;
    return sink->rc;
}

/* ---------------------------------------------------------------- source */

int qr_source_init(struct qr_source *source, size_t capacity,
                   int64_t (*read)(void *, uint8_t *, size_t), void *context)
{
    *source = (struct qr_source){
        .buffer = qr_malloc(capacity), .capacity = capacity, .read = read, .context = context};
    if (!source->buffer)
        return qr_fail(QALLOW_E_NO_MEMORY, "a buffer of %zu bytes", capacity);
    source->cursor = qr_cursor(source->buffer, 0);
    return 0;
}

void qr_source_finish(struct qr_source *source)
{
    qr_free(source->buffer);
    source->buffer = NULL;
}

int qr_source_need(struct qr_source *source, size_t length)
{
    struct qr_cursor *c = &source->cursor;
    qr_assert(length <= source->capacity);
    if (qr_left(c) >= length || c->bad)
        return 0;
    size_t keep = qr_left(c);
    memmove(source->buffer, c->at, keep);
    while (keep < length) {
        int64_t n = source->read(source->context, source->buffer + keep, source->capacity - keep);
        if (n < 0)
            return (int)n;
        if (n == 0)
            break;
        keep += (size_t)n;
    }
    *c = qr_cursor(source->buffer, keep);
    return 0;
}

/* ---------------------------------------------------------------- writing pages */

/* Room for the pieces of a page, used again for the next. */
struct scratch {
    struct qr_piece *pieces;
    size_t capacity;
};

/* The pieces in their places: the page's own where they all are, else a copy. NULL: no memory. */
static const struct qr_piece *settled_pieces(const struct qr_page *page, struct scratch *scratch,
                                             uint32_t *count)
{
    uint32_t most = qr_page_pieces_max(page);
    *count = page->piece_count;
    if (page->recent_count == 0)
        return page->pieces;
    if (most > scratch->capacity) {
        qr_free(scratch->pieces);
        scratch->capacity = 2 * (size_t)most;
        scratch->pieces = qr_malloc(scratch->capacity * sizeof *scratch->pieces);
    }
    if (scratch->pieces)
        *count = qr_page_copy_pieces(page, scratch->pieces);
    else
        scratch->capacity = 0;
    return scratch->pieces;
}

static void write_pieces(struct qr_sink *sink, const struct qr_page *page, struct scratch *scratch,
                         qr_ref *last)
{
    uint32_t count;
    const struct qr_piece *pieces = settled_pieces(page, scratch, &count);
    if (!pieces) {
        sink->rc = sink->rc ? sink->rc
                            : qr_fail(QALLOW_E_NO_MEMORY, "page %llu: its pieces",
                                      (unsigned long long)page->id);
        return;
    }
    qr_sink_varint(sink, count);
    for (const struct qr_piece *piece = pieces; piece < pieces + count; piece++) {
        int zero = piece->ref == QR_REF_ZERO;
        qr_sink_varint(sink, piece->length << 1 | (unsigned)zero);
        if (zero)
            continue;
        qr_sink_varint(sink, qr_zigzag((int64_t)(piece->ref - *last)));
        *last = piece->ref;
    }
}

static void write_stat(struct qr_sink *sink, const struct qr_page *page)
{
    qr_sink_varint(sink, page->stat.inode);
    if (!page->stat.inode)
        return;
    qr_sink_varint(sink, page->stat.device);
    qr_sink_varint(sink,
                   qr_zigzag((int64_t)((uint64_t)page->stat.ctime_ns - (uint64_t)page->mtime_ns)));
}

static void write_page(struct qr_sink *sink, const struct qr_page *page, uint64_t last_id)
{
    qr_sink_varint(sink, page->id - last_id);
    qr_sink_varint(sink, page->parent);
    qr_sink_varint(sink, page->kind); /* a byte */
    qr_sink_varint(sink, page->name_length);
    qr_sink_put(sink, page->name, page->name_length);
    qr_sink_varint(sink, page->mode);
    qr_sink_varint(sink, qr_zigzag(page->mtime_ns));
    qr_sink_varint(sink, page->extra_length);
    qr_sink_put(sink, page->extra, page->extra_length);
    qr_sink_varint(sink, page->version);
    qr_sink_varint(sink, page->size);
    if (page->size)
        qr_sink_sum(sink, page->content_sum);
}

/* Pages, their names and their pieces lie in no cache: those some places ahead are fetched. */
static void fetch_ahead(const struct qr_state *state, uint32_t slot)
{
    enum { PAGES = 24, CONTENTS = 12, LINE = 64, MOST = 512 };
    if (slot + PAGES >= state->slot_count)
        return;
    const uint8_t *far = (const uint8_t *)qr_slot(state, slot + PAGES);
    for (size_t at = 0; at < sizeof(struct qr_page); at += LINE)
        __builtin_prefetch(far + at);
    const struct qr_page *near = qr_slot(state, slot + CONTENTS);
    size_t bytes = (size_t)(near->piece_count + near->recent_count) * sizeof *near->pieces;
    __builtin_prefetch(near->name);
    for (size_t at = 0; at < bytes && at < MOST; at += LINE)
        __builtin_prefetch((const uint8_t *)near->pieces + at);
}

void qr_table_write(struct qr_sink *sink, const struct qr_state *state, int with_stat)
{
    struct scratch scratch = {NULL, 0};
    uint64_t last_id = 0;
    qr_ref last_ref = 0;
    qr_sink_varint(sink, state->page_count);
    for (uint32_t slot = 1; slot < state->slot_count; slot++) {
        const struct qr_page *page = qr_slot(state, slot);
        fetch_ahead(state, slot);
        if (!page->kind)
            continue;
        write_page(sink, page, last_id);
        last_id = page->id;
        write_pieces(sink, page, &scratch, &last_ref);
        if (with_stat)
            write_stat(sink, page);
    }
    qr_free(scratch.pieces);
}

/* ---------------------------------------------------------------- reading pages */

static int malformed(uint64_t id)
{
    return qr_fail(QALLOW_E_SERIALIZATION, "page table: malformed at page %llu",
                   (unsigned long long)id);
}

static int read_pieces(struct qr_source *source, struct qr_state *state, struct qr_page *page,
                       uint64_t size, struct qb_u128 sum, qr_ref *last)
{
    int rc = qr_source_need(source, QR_VARINT_MAX);
    uint64_t count = qr_get_varint(&source->cursor), total = 0;
    struct qr_piece *pieces = NULL;
    uint32_t capacity = 0;
    if (!rc && (count > QR_PIECES_MAX || count > size))
        rc = malformed(page->id);
    for (uint32_t i = 0; i < count && !rc; i++) {
        if (i == capacity) { /* grows with what is really there, not with what is claimed */
            capacity = capacity ? capacity * 2 : count < 16 ? (uint32_t)count : 16;
            struct qr_piece *grown = qr_realloc(pieces, capacity * sizeof *grown);
            if (!grown) {
                rc = qr_fail(QALLOW_E_NO_MEMORY, "page table");
                break;
            }
            pieces = grown;
        }
        if ((rc = qr_source_need(source, 2 * QR_VARINT_MAX)))
            break;
        uint64_t length = qr_get_varint(&source->cursor);
        qr_ref ref = QR_REF_ZERO;
        if (!(length & 1))
            ref = *last += (uint64_t)qr_unzigzag(qr_get_varint(&source->cursor));
        pieces[i] = (struct qr_piece){ref, length >> 1};
        if (source->cursor.bad || !(length >> 1) || length >> 1 > size - total ||
            (!(length & 1) && (ref == QR_REF_ZERO || qr_ref_body(ref) + (length >> 1) > 1 << 20)))
            rc = malformed(page->id);
        total += length >> 1;
    }
    if (!rc && total != size)
        rc = malformed(page->id);
    if (rc)
        qr_free(pieces);
    else
        qr_state_set_content(state, page, pieces, (uint32_t)count, capacity, size, &sum);
    return rc;
}

static void read_stat(struct qr_source *source, struct qr_page *page)
{
    page->stat.inode = qr_get_varint(&source->cursor);
    if (!page->stat.inode)
        return;
    page->stat.device = qr_get_varint(&source->cursor);
    page->stat.ctime_ns =
        (int64_t)((uint64_t)qr_unzigzag(qr_get_varint(&source->cursor)) + (uint64_t)page->mtime_ns);
}

static int read_page(struct qr_source *source, struct qr_state *state, uint64_t *last_id,
                     qr_ref *last_ref, int with_stat)
{
    int rc = qr_source_need(source, PAGE_HEAD_MAX);
    if (rc)
        return rc;
    struct qr_cursor *c = &source->cursor;
    struct qr_page *page;
    uint64_t distance = qr_get_varint(c), id = *last_id + distance;
    uint64_t parent = qr_get_varint(c);
    uint8_t kind = qr_get_u8(c);
    uint64_t name_length = qr_get_varint(c);
    const uint8_t *name = qr_get_bytes(c, name_length);
    uint64_t mode = qr_get_varint(c);
    int64_t mtime_ns = qr_unzigzag(qr_get_varint(c));
    uint64_t extra_length = qr_get_varint(c);
    const uint8_t *extra = qr_get_bytes(c, extra_length);
    uint64_t version = qr_get_varint(c);
    uint64_t size = qr_get_varint(c);
    struct qb_u128 sum = {0, 0};
    if (size) {
        sum.lo = qr_get_u64(c);
        sum.hi = qr_get_u64(c);
    }
    if (c->bad || !distance || id < *last_id || size > QR_PAGE_SIZE_MAX ||
        version >= QR_EPOCH_MAX || mode > UINT32_MAX)
        return malformed(id);
    *last_id = id;
    rc = qr_state_load_page(state, id, parent, name, (size_t)name_length, kind, &page);
    if (!rc)
        rc = qr_state_set_attributes(state, page, (uint32_t)mode, mtime_ns, extra,
                                     (size_t)extra_length);
    if (!rc)
        rc = read_pieces(source, state, page, size, sum, last_ref);
    if (rc)
        return rc;
    page->version = version;
    if (with_stat) {
        if ((rc = qr_source_need(source, 3 * QR_VARINT_MAX)))
            return rc;
        read_stat(source, page);
    }
    return source->cursor.bad ? malformed(id) : 0;
}

int qr_table_read(struct qr_source *source, struct qr_state *state, int with_stat)
{
    int rc = qr_source_need(source, QR_VARINT_MAX);
    uint64_t count = rc ? 0 : qr_get_varint(&source->cursor), last_id = 0;
    qr_ref last_ref = 0;
    if (source->cursor.bad)
        return malformed(0);
    for (uint64_t i = 0; i < count && !rc; i++)
        rc = read_page(source, state, &last_id, &last_ref, with_stat);
    return rc ? rc : qr_state_load_finish(state);
}
