/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading content: pieces out of verified frames.
 *
 * A reader keeps the last few frames it decoded (least recently used goes first, bounded by bytes),
 * because neighbouring files stand in the same frame. Every frame is checked when it is read; what
 * a prune has moved is found through the directory's relocations.
 */
#include "runtime/error.h"
#include "runtime/store_internal.h"

struct cached_frame {
    struct qr_frame frame; /* offset 0: empty */
    struct qr_frame_buffers buffers;
    uint64_t used;
};

enum { FRAMES_MAX = 64 };

struct qr_reader {
    struct qr_store *store;
    struct cached_frame frames[FRAMES_MAX];
    size_t limit; /* of all buffers together */
    const struct qr_frame *newest; /* asked for last */
    int read_ahead;
    struct qr_read_window window;
    uint64_t clock;
};

int qr_reader_create(struct qr_store *store, size_t cache_bytes, struct qr_reader **out)
{
    struct qr_reader *reader = qr_calloc(1, sizeof *reader);
    if (!reader)
        return qr_fail(QALLOW_E_NO_MEMORY, "reader");
    reader->store = store;
    reader->limit = cache_bytes < 2 * QR_BODY_MAX ? 2 * QR_BODY_MAX : cache_bytes;
    *out = reader;
    return 0;
}

void qr_reader_destroy(struct qr_reader *reader)
{
    if (!reader)
        return;
    for (int i = 0; i < FRAMES_MAX; i++)
        qr_frame_buffers_finish(&reader->frames[i].buffers);
    qr_free(reader->window.bytes);
    qr_free(reader);
}

void qr_reader_read_ahead(struct qr_reader *reader) { reader->read_ahead = 1; }

static size_t buffer_bytes(const struct cached_frame *f)
{
    return f->buffers.raw_capacity + f->buffers.plain_capacity;
}

/* The frame used longest ago; its buffers serve again. Others that are old give theirs back while
 * all together take more than the limit. */
static struct cached_frame *evict(struct qr_reader *reader)
{
    for (;;) {
        struct cached_frame *oldest = NULL, *filled = NULL;
        size_t bytes = 0;
        for (int i = 0; i < FRAMES_MAX; i++) {
            struct cached_frame *f = &reader->frames[i];
            bytes += buffer_bytes(f);
            if (!oldest || f->used < oldest->used)
                oldest = f;
            if (buffer_bytes(f) && (!filled || f->used < filled->used))
                filled = f;
        }
        /* the frame to come may need buffers of the largest size */
        if (!filled || bytes + 2 * QR_BODY_MAX <= reader->limit)
            return oldest;
        if (bytes == buffer_bytes(filled) || bytes <= reader->limit)
            return filled;
        qr_frame_buffers_finish(&filled->buffers);
        filled->frame.offset = 0;
        filled->used = 0;
    }
}

/* The decoded body of a frame that may hold content. */
static int reader_frame(struct qr_reader *reader, uint64_t offset, const struct qr_frame **out)
{
    if (reader->newest && reader->newest->offset == offset) {
        *out = reader->newest;
        return 0;
    }
    for (int i = 0; i < FRAMES_MAX && !reader->read_ahead; i++)
        if (reader->frames[i].frame.offset == offset) {
            reader->frames[i].used = ++reader->clock;
            *out = reader->newest = &reader->frames[i].frame;
            return 0;
        }
    /* read ahead, bodies stand in the window, which only holds for the newest one */
    struct cached_frame *slot = reader->read_ahead ? &reader->frames[0] : evict(reader);
    reader->newest = NULL;
    slot->frame.offset = 0;
    slot->used = ++reader->clock;
    struct qr_frame frame;
    int rc = reader->read_ahead
                 ? qr_log_read_frame_ahead(reader->store->log, offset, &reader->window,
                                           &slot->buffers, &frame)
                 : qr_log_read_frame(reader->store->log, offset, &slot->buffers, &frame);
    if (rc)
        return rc;
    if (frame.type != QR_FRAME_DATA && frame.type != QR_FRAME_COMMIT &&
        frame.type != QR_FRAME_RELOCATION)
        return qr_fail(QALLOW_E_DAMAGED, "%s: the frame at offset %llu holds no content",
                       qr_quotez(reader->store->path), (unsigned long long)offset);
    slot->frame = frame;
    *out = reader->newest = &slot->frame;
    return 0;
}

int qr_content_init(struct qr_content *content, const struct qr_page *page)
{
    *content = (struct qr_content){.piece_count = page->piece_count, .size = page->size};
    content->pieces = &content->inline_piece;
    if (page->piece_count > 1 &&
        !(content->pieces = qr_malloc(page->piece_count * sizeof *content->pieces)))
        return qr_fail(QALLOW_E_NO_MEMORY, "page %llu: %u pieces", (unsigned long long)page->id,
                       page->piece_count);
    if (page->piece_count)
        memcpy(content->pieces, page->pieces, page->piece_count * sizeof *content->pieces);
    return 0;
}

void qr_content_finish(struct qr_content *content)
{
    if (content->pieces != &content->inline_piece)
        qr_free(content->pieces);
    content->pieces = NULL;
    content->piece_count = 0;
}

/* Moves the cursor to the piece that holds `offset`. */
static void content_seek(struct qr_content *content, uint64_t offset)
{
    if (offset < content->at_offset) {
        content->at_piece = 0;
        content->at_offset = 0;
    }
    while (content->at_piece < content->piece_count &&
           offset - content->at_offset >= content->pieces[content->at_piece].length) {
        content->at_offset += content->pieces[content->at_piece].length;
        content->at_piece++;
    }
}

/* Copies from one literal place, following relocations. */
int qr_reader_literal(struct qr_reader *reader, qr_ref ref, uint8_t *to, uint64_t length)
{
    while (length) {
        uint64_t n = length;
        struct qr_store *store = reader->store;
        const struct qr_frame *frame = NULL;
        qr_ref now = ref;
        if (qr_ref_frame(ref) < atomic_load_explicit(&store->start, memory_order_acquire)) {
            pthread_rwlock_rdlock(&store->lock);
            now = qr_directory_resolve(&store->directory, store->start, ref, &n);
            pthread_rwlock_unlock(&store->lock);
        }
        int rc = reader_frame(reader, qr_ref_frame(now), &frame);
        if (rc)
            return qr_log_check_pruned(store->log, rc);
        if (qr_ref_body(now) + n > frame->length)
            return qr_fail(QALLOW_E_DAMAGED, "%s: content refers beyond the frame at offset %llu",
                           qr_quotez(store->path), (unsigned long long)qr_ref_frame(now));
        memcpy(to, frame->body + qr_ref_body(now), n);
        to += n;
        ref += n;
        length -= n;
    }
    return 0;
}

int qr_content_read(struct qr_reader *reader, struct qr_content *content, uint64_t offset,
                    void *buffer, size_t length)
{
    uint8_t *to = buffer;
    qr_assert(offset <= content->size && length <= content->size - offset);
    while (length) {
        content_seek(content, offset);
        qr_assert(content->at_piece < content->piece_count);
        const struct qr_piece *piece = &content->pieces[content->at_piece];
        uint64_t into = offset - content->at_offset, n = piece->length - into;
        if (n > length)
            n = length;
        int rc = 0;
        if (piece->ref == QR_REF_ZERO)
            memset(to, 0, n);
        else
            rc = qr_reader_literal(reader, piece->ref + into, to, n);
        if (rc)
            return rc;
        to += n;
        offset += n;
        length -= (size_t)n;
    }
    return 0;
}

uint64_t qr_content_hole(struct qr_content *content, uint64_t offset)
{
    content_seek(content, offset);
    if (content->at_piece == content->piece_count ||
        content->pieces[content->at_piece].ref != QR_REF_ZERO)
        return 0;
    return content->pieces[content->at_piece].length - (offset - content->at_offset);
}

int qr_content_is_hole(const struct qr_content *content, uint64_t offset, uint64_t length)
{
    struct qr_content cursor = *content;
    cursor.pieces = content->pieces == &content->inline_piece ? &cursor.inline_piece
                                                              : content->pieces;
    content_seek(&cursor, offset);
    while (length) {
        if (cursor.at_piece >= cursor.piece_count ||
            cursor.pieces[cursor.at_piece].ref != QR_REF_ZERO)
            return 0;
        uint64_t n = cursor.pieces[cursor.at_piece].length - (offset - cursor.at_offset);
        if (n >= length)
            return 1;
        length -= n;
        offset += n;
        content_seek(&cursor, offset);
    }
    return 1;
}
