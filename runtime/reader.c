/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading content: pieces out of verified frames.
 *
 * A reader keeps frames it decoded (least recently used goes first, bounded by bytes), because
 * neighbouring files stand in the same frame. What it keeps of a frame is its body, in a buffer of
 * that size; the stored bytes of a compressed frame are not kept. Every frame is checked when it is
 * read; what a prune has moved is found through the directory's relocations.
 *
 * A page that many commits have made has its pieces all over the log. Many pieces are read in the
 * order of the log: so each frame is decoded once, however little is kept, and the small frames of
 * small commits, which stand close together, come many with one read. These are not kept.
 *
 * A CONTENT frame may hold only what is different from other content, which stands before it in the
 * log. It is decoded from the frame that is based on nothing upwards; the frames in between are
 * small, and their bodies wait in one buffer. Where all of the content is asked for it is decoded
 * in its place.
 */
#include "runtime/elements.h"
#include "runtime/error.h"
#include "runtime/spans.h"
#include "runtime/store_internal.h"

struct kept_frame {
    struct qr_frame frame; /* offset 0: empty; of a CONTENT frame the body is the content */
    uint8_t *bytes;        /* the body stands in them */
    size_t capacity;
    uint64_t used;
};

enum {
    FRAMES_MAX = 64,
    SORT_MIN = 8,      /* pieces that are worth sorting */
    NEAR = 4096,       /* frames this close are read together: one read has that much anyhow */
    AHEAD = 512 << 10, /* large reads have a fixed cost too: twice what most frames need */
};

struct qr_reader {
    struct qr_store *store;
    struct kept_frame frames[FRAMES_MAX];
    size_t limit;                  /* of all buffers together */
    const struct qr_frame *newest; /* asked for last */
    struct qr_frame passing;       /* stands in the window or in the scratch buffers */
    struct qr_frame_buffers scratch;
    int read_ahead;
    struct qr_read_window window;
    unsigned rewinds; /* of the log before the window was filled */
    uint64_t clock;
    struct qr_elements_scratch elements;
    uint8_t *waiting; /* bodies of CONTENT frames, the newest first */
    size_t waiting_length, waiting_capacity;
    int decoding;
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
        qr_free(reader->frames[i].bytes);
    qr_frame_buffers_finish(&reader->scratch);
    qr_free(reader->window.bytes);
    qr_elements_scratch_finish(&reader->elements);
    qr_free(reader->waiting);
    qr_free(reader);
}

void qr_reader_read_ahead(struct qr_reader *reader) { reader->read_ahead = 1; }

/* --- frames --- */

static void drop(struct kept_frame *kept)
{
    qr_free(kept->bytes);
    *kept = (struct kept_frame){.bytes = NULL};
}

/* A free place, made by dropping what was used longest ago: one frame, and more while all buffers
 * together are above the limit. */
static struct kept_frame *make_room(struct qr_reader *reader)
{
    for (;;) {
        size_t bytes =
            reader->scratch.raw_capacity + reader->scratch.plain_capacity + reader->window.capacity;
        struct kept_frame *place = NULL, *oldest = NULL;
        for (int i = 0; i < FRAMES_MAX; i++) {
            struct kept_frame *kept = &reader->frames[i];
            bytes += kept->capacity;
            if (!kept->bytes)
                place = kept;
            else if (!oldest || kept->used < oldest->used)
                oldest = kept;
        }
        if (place && (!oldest || bytes <= reader->limit))
            return place;
        drop(oldest);
    }
}

/* Takes the buffer in which the body of a frame stands out of the scratch buffers. */
static struct kept_frame *keep(struct qr_reader *reader, const struct qr_frame *frame)
{
    struct kept_frame *kept = make_room(reader);
    struct qr_frame_buffers *scratch = &reader->scratch;
    int is_plain = frame->flags & QR_FRAME_ZSTD;
    size_t before = is_plain ? 0 : QR_FRAME_HEADER;
    *kept =
        (struct kept_frame){.frame = *frame,
                            .used = ++reader->clock,
                            .bytes = is_plain ? scratch->plain : scratch->raw,
                            .capacity = is_plain ? scratch->plain_capacity : scratch->raw_capacity};
    if (is_plain) {
        scratch->plain = NULL;
        scratch->plain_capacity = 0;
    } else {
        scratch->raw = NULL;
        scratch->raw_capacity = 0;
    }
    if (kept->capacity > before + frame->length + 64) {
        uint8_t *fitting = qr_realloc(kept->bytes, before + frame->length + 1);
        if (fitting) { /* else it stays larger than it need be */
            kept->bytes = fitting;
            kept->capacity = before + frame->length + 1;
        }
    }
    kept->frame.body = kept->bytes + before;
    return kept;
}

static int in_scratch(const struct qr_reader *reader, const struct qr_frame *frame)
{
    return frame->body == reader->scratch.plain ||
           frame->body == reader->scratch.raw + QR_FRAME_HEADER;
}

/* A frame that is at hand, or NULL. */
static const struct qr_frame *find_frame(struct qr_reader *reader, uint64_t offset)
{
    if (reader->newest && reader->newest->offset == offset)
        return reader->newest;
    for (int i = 0; i < FRAMES_MAX && !reader->read_ahead; i++)
        if (reader->frames[i].bytes && reader->frames[i].frame.offset == offset) {
            reader->frames[i].used = ++reader->clock;
            return reader->newest = &reader->frames[i].frame;
        }
    return NULL;
}

/* Reads a frame that may hold content. `ahead` > 0: that many bytes of the log are read from it
 * on. */
static int load_frame(struct qr_reader *reader, uint64_t offset, size_t ahead,
                      struct qr_frame *frame)
{
    const struct qr_log *log = reader->store->log;
    reader->newest = NULL;
    int rc = ahead ? qr_log_read_frame_ahead(log, offset, ahead, &reader->window, &reader->scratch,
                                             frame)
                   : qr_log_read_frame(log, offset, &reader->scratch, frame);
    if (rc)
        return rc;
    if (frame->type != QR_FRAME_DATA && frame->type != QR_FRAME_COMMIT &&
        frame->type != QR_FRAME_RELOCATION && frame->type != QR_FRAME_CONTENT)
        return qr_fail(QALLOW_E_DAMAGED, "%s: the frame at offset %llu holds no content",
                       qr_quotez(reader->store->path), (unsigned long long)offset);
    return 0;
}

/* Keeps a frame that was loaded, unless it was read ahead and is small. */
static const struct qr_frame *take_frame(struct qr_reader *reader, const struct qr_frame *frame,
                                         size_t ahead)
{
    reader->passing = *frame;
    /* also what was too large for the window */
    int kept = !ahead || (!reader->read_ahead && frame->length > NEAR && in_scratch(reader, frame));
    return reader->newest = kept ? &keep(reader, frame)->frame : &reader->passing;
}

/* --- places in the log --- */

qr_ref qr_store_resolve(struct qr_store *store, qr_ref ref, uint64_t *length)
{
    if (qr_ref_frame(ref) >= atomic_load_explicit(&store->start, memory_order_acquire))
        return ref;
    pthread_rwlock_rdlock(&store->lock);
    ref = qr_directory_resolve(&store->directory, store->start, ref, length);
    pthread_rwlock_unlock(&store->lock);
    return ref;
}

/* --- CONTENT frames --- */

static int content_damaged(const struct qr_reader *reader, uint64_t offset, const char *why)
{
    return qr_fail(QALLOW_E_DAMAGED, "%s: the content at offset %llu: %s",
                   qr_quotez(reader->store->path), (unsigned long long)offset, why);
}

static int parse_content(const struct qr_reader *reader, const struct qr_frame *frame,
                         struct qr_elements *elements)
{
    int rc = qr_elements_parse(frame->body, frame->length, elements);
    if (rc == QALLOW_E_SERIALIZATION)
        rc = content_damaged(reader, frame->offset, "it is malformed");
    return rc;
}

static int decode(struct qr_reader *reader, uint64_t offset, const struct qr_elements *elements,
                  uint8_t *to)
{
    int rc = qr_elements_decode(elements, to, &reader->elements);
    if (rc == QALLOW_E_SERIALIZATION)
        rc = content_damaged(reader, offset, "it is malformed");
    return rc;
}

/* What waits to be put onto the content beneath it. Its length follows, so that the last one is
 * found first. */
static int wait_with(struct qr_reader *reader, const struct qr_frame *frame)
{
    size_t need = reader->waiting_length + frame->length + 2 * sizeof(uint64_t);
    if (need > reader->waiting_capacity) {
        uint8_t *grown = qr_realloc(reader->waiting, 2 * need);
        if (!grown)
            return qr_fail(QALLOW_E_NO_MEMORY, "a chain of content");
        reader->waiting = grown;
        reader->waiting_capacity = 2 * need;
    }
    uint8_t *p = reader->waiting + reader->waiting_length;
    memcpy(p, frame->body, frame->length);
    qr_store64(p + frame->length, frame->offset);
    qr_store64(p + frame->length + 8, frame->length);
    reader->waiting_length = need;
    return 0;
}

/* Decodes what waits, the last one first. */
static int decode_waiting(struct qr_reader *reader, uint8_t *to)
{
    int rc = 0;
    while (reader->waiting_length && !rc) {
        struct qr_elements elements;
        uint8_t *end = reader->waiting + reader->waiting_length - 16;
        size_t length = (size_t)qr_load64(end + 8);
        rc = qr_elements_parse(end - length, length, &elements);
        if (!rc)
            rc = decode(reader, qr_load64(end), &elements, to);
        reader->waiting_length -= length + 16;
    }
    return rc;
}

/* One frame of a chain: decodes it (1), or lets it wait and says what it is based on. `budget` is
 * what it may cost, then what its base may. */
static int decode_step(struct qr_reader *reader, const struct qr_frame *frame, uint32_t length,
                       uint64_t *budget, uint8_t *to, qr_ref *base)
{
    struct qr_elements e;
    int rc = parse_content(reader, frame, &e);
    if (rc)
        return rc;
    if (e.length != length || e.cost > *budget ||
        (e.base != QR_REF_ZERO && qr_ref_frame(e.base) >= frame->offset))
        return content_damaged(reader, frame->offset, "its base is not what it may be");
    if (e.base == QR_REF_ZERO) {
        rc = decode(reader, frame->offset, &e, to);
        return rc ? rc : 1;
    }
    *budget = e.cost - QR_ELEMENTS_COST - frame->length;
    *base = e.base;
    return wait_with(reader, frame);
}

/* The content of a CONTENT frame, `length` bytes. Costs fall along the chain by more than what is
 * stored, so it has an end, and what waits is bounded. */
static int decode_chain(struct qr_reader *reader, const struct qr_frame *top, uint32_t length,
                        uint8_t *to)
{
    struct qr_frame frame = *top;
    uint64_t budget = QR_ELEMENTS_COST_MAX;
    int rc = 0;
    if (reader->decoding) /* a relocation that names a CONTENT frame */
        return content_damaged(reader, top->offset, "its base is not what it may be");
    reader->decoding = 1;
    reader->waiting_length = 0;
    while (!rc) {
        qr_ref base = QR_REF_ZERO;
        rc = decode_step(reader, &frame, length, &budget, to, &base);
        if (rc)
            break;
        uint64_t start = atomic_load_explicit(&reader->store->start, memory_order_acquire);
        if (qr_ref_frame(base) >= start)
            rc = load_frame(reader, qr_ref_frame(base), 0, &frame);
        if (rc || (qr_ref_frame(base) >= start && frame.type == QR_FRAME_CONTENT &&
                   qr_ref_body(base) == 0))
            continue;
        rc = qr_reader_literal(reader, base, to, length); /* other frames, or moved by a prune */
        rc = rc ? rc : 1;
    }
    if (rc > 0)
        rc = decode_waiting(reader, to);
    reader->decoding = 0;
    return rc;
}

/* The content of a CONTENT frame, kept. */
static int keep_content(struct qr_reader *reader, const struct qr_frame *frame, uint32_t length,
                        const struct qr_frame **out)
{
    struct qr_frame decoded = *frame;
    uint8_t *bytes = qr_malloc(length);
    if (!bytes)
        return qr_fail(QALLOW_E_NO_MEMORY, "content of %u bytes", length);
    int rc = decode_chain(reader, frame, length, bytes);
    if (rc) {
        qr_free(bytes);
        return rc;
    }
    struct kept_frame *kept = make_room(reader);
    decoded.body = bytes;
    decoded.length = length;
    *kept = (struct kept_frame){
        .frame = decoded, .used = ++reader->clock, .bytes = bytes, .capacity = length};
    *out = reader->newest = &kept->frame;
    return 0;
}

/* --- copying --- */

/* Gets the frame in which `now` stands. *out NULL: all of its content was asked for and is in
 * `to`. */
static int get_frame(struct qr_reader *reader, qr_ref now, uint8_t *to, uint64_t n, size_t ahead,
                     const struct qr_frame **out)
{
    struct qr_frame frame;
    struct qr_elements elements;
    if ((*out = find_frame(reader, qr_ref_frame(now))))
        return 0;
    int rc = load_frame(reader, qr_ref_frame(now), ahead, &frame);
    if (rc)
        return rc;
    if (frame.type != QR_FRAME_CONTENT) {
        *out = take_frame(reader, &frame, ahead);
        return 0;
    }
    rc = parse_content(reader, &frame, &elements);
    if (rc)
        return rc;
    if (qr_ref_body(now) == 0 && n == elements.length)
        return decode_chain(reader, &frame, elements.length, to);
    return keep_content(reader, &frame, elements.length, out);
}

/* Copies what stands together in one frame. */
static int copy_out(struct qr_reader *reader, qr_ref now, uint8_t *to, uint64_t n, size_t ahead)
{
    const struct qr_store *store = reader->store;
    const struct qr_frame *frame = NULL;
    int rc = get_frame(reader, now, to, n, ahead, &frame);
    if (rc)
        return qr_log_check_pruned(store->log, rc);
    if (!frame)
        return 0;
    if (qr_ref_body(now) + n > frame->length)
        return qr_fail(QALLOW_E_DAMAGED, "%s: content refers beyond the frame at offset %llu",
                       qr_quotez(store->path), (unsigned long long)qr_ref_frame(now));
    memcpy(to, frame->body + qr_ref_body(now), n);
    return 0;
}

int qr_reader_literal(struct qr_reader *reader, qr_ref ref, uint8_t *to, uint64_t length)
{
    int rc = 0;
    while (length && !rc) {
        uint64_t n = length;
        qr_ref now = qr_store_resolve(reader->store, ref, &n);
        rc = copy_out(reader, now, to, n, reader->read_ahead ? AHEAD : 0);
        to += n;
        ref += n;
        length -= n;
    }
    return rc;
}

/* --- many pieces, in the order of the log --- */

/* How far to read from a span's frame on: over frames that are near each other. 0: it stands by
 * itself. */
static size_t near(const struct qr_span *span, const struct qr_span *end)
{
    uint64_t first = qr_ref_frame(span->ref), last = first;
    for (; span < end; span++) {
        uint64_t next = qr_ref_frame(span->ref);
        if (next - last > NEAR || next - first > AHEAD - NEAR)
            break;
        last = next;
    }
    return last == first ? 0 : (size_t)(last - first) + NEAR;
}

/* What was read of a log that has been cut since may be other frames now: in this process by an
 * abort, or for a follower by the writer's. */
static void check_frames(struct qr_reader *reader)
{
    unsigned rewinds = reader->store->log->rewinds;
    if (reader->rewinds == rewinds)
        return;
    reader->rewinds = rewinds;
    reader->window.length = 0;
    reader->newest = NULL;
    for (int i = 0; i < FRAMES_MAX; i++)
        drop(&reader->frames[i]);
}

static int copy_spans(struct qr_reader *reader, struct qr_spans *spans)
{
    uint64_t frame = 0;
    size_t ahead = 0;
    int rc = qr_spans_sort(spans);
    const struct qr_span *end = spans->items + spans->count;
    for (const struct qr_span *s = spans->items; !rc && s < end; s++) {
        if (qr_ref_frame(s->ref) != frame) {
            frame = qr_ref_frame(s->ref);
            ahead = qr_window_holds(&reader->window, frame) ? NEAR : near(s, end);
        }
        rc = copy_out(reader, s->ref, s->to, s->length, ahead);
    }
    return rc;
}

int qr_content_init(struct qr_content *content, const struct qr_page *page)
{
    uint32_t most = qr_page_pieces_max(page);
    *content = (struct qr_content){.size = page->size};
    content->pieces = &content->inline_piece;
    if (most > 1 && !(content->pieces = qr_malloc(most * sizeof *content->pieces)))
        return qr_fail(QALLOW_E_NO_MEMORY, "page %llu: %u pieces", (unsigned long long)page->id,
                       most);
    content->piece_count = qr_page_copy_pieces(page, content->pieces);
    if (content->piece_count == 1 && content->pieces != &content->inline_piece) {
        content->inline_piece = content->pieces[0];
        qr_free(content->pieces);
        content->pieces = &content->inline_piece;
    }
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

/* Adds the pieces of a range; zeros are written at once. Moves the cursor. */
static int gather(struct qr_reader *reader, struct qr_content *content, uint64_t offset,
                  uint8_t *to, uint64_t length, struct qr_spans *spans)
{
    int rc = 0;
    while (length && !rc) {
        content_seek(content, offset);
        qr_assert(content->at_piece < content->piece_count);
        const struct qr_piece *piece = &content->pieces[content->at_piece];
        uint64_t into = offset - content->at_offset, n = piece->length - into;
        n = n > length ? length : n;
        if (piece->ref == QR_REF_ZERO)
            memset(to, 0, n);
        else
            rc = qr_spans_add(spans, reader->store, piece->ref + into, to, n);
        to += n;
        offset += n;
        length -= n;
    }
    return rc;
}

/* Are there so many pieces in the range that their order matters? The cursor is at its begin. */
static int has_many_pieces(const struct qr_content *content, uint64_t offset, uint64_t length)
{
    size_t last = content->at_piece + SORT_MIN;
    if (last >= content->piece_count)
        return 0;
    uint64_t end = content->at_offset;
    for (size_t i = content->at_piece; i < last; i++)
        end += content->pieces[i].length;
    return end < offset + length;
}

int qr_content_read(struct qr_reader *reader, struct qr_content *content, uint64_t offset,
                    void *buffer, size_t length)
{
    uint8_t *to = buffer;
    int rc = 0;
    qr_assert(offset <= content->size && length <= content->size - offset);
    check_frames(reader);
    content_seek(content, offset);
    if (has_many_pieces(content, offset, length)) {
        struct qr_spans spans = {0};
        rc = gather(reader, content, offset, to, length, &spans);
        if (!rc)
            rc = copy_spans(reader, &spans);
        qr_spans_finish(&spans);
        return rc;
    }
    while (length && !rc) {
        content_seek(content, offset);
        qr_assert(content->at_piece < content->piece_count);
        const struct qr_piece *piece = &content->pieces[content->at_piece];
        uint64_t into = offset - content->at_offset, n = piece->length - into;
        if (n > length)
            n = length;
        if (piece->ref == QR_REF_ZERO)
            memset(to, 0, n);
        else
            rc = qr_reader_literal(reader, piece->ref + into, to, n);
        to += n;
        offset += n;
        length -= (size_t)n;
    }
    return rc;
}

/* What stands at `ref`, which was not moved, as a base: of a CONTENT frame only all of it can be
 * one. 1: its bytes are there, too. */
static int base_of_frame(struct qr_reader *reader, qr_ref ref, uint8_t *buffer, size_t length,
                         struct qr_content_base *base)
{
    struct qr_frame frame;
    struct qr_elements elements;
    int rc = load_frame(reader, qr_ref_frame(ref), 0, &frame);
    if (rc == 0 && frame.type != QR_FRAME_CONTENT)
        base->ref = ref;
    if (rc || frame.type != QR_FRAME_CONTENT)
        return rc;
    rc = parse_content(reader, &frame, &elements);
    if (rc || qr_ref_body(ref) != 0 || elements.length != length)
        return rc;
    *base = (struct qr_content_base){.bytes = buffer, .ref = ref, .cost = elements.cost};
    if (elements.coding == QR_CODING_PLAIN && qr_left(&elements.streams) == length)
        base->bytes = elements.streams.at;
    else
        rc = decode_chain(reader, &frame, (uint32_t)length, buffer);
    return rc ? rc : 1;
}

int qr_content_base(struct qr_reader *reader, struct qr_content *content, uint64_t offset,
                    void *buffer, size_t length, struct qr_content_base *base)
{
    qr_assert(offset <= content->size && length <= content->size - offset);
    *base = (struct qr_content_base){.bytes = buffer, .ref = QR_REF_ZERO};
    content_seek(content, offset);
    if (content->at_piece < content->piece_count) {
        const struct qr_piece *piece = &content->pieces[content->at_piece];
        uint64_t into = offset - content->at_offset, n = length;
        qr_ref here = piece->ref == QR_REF_ZERO ? QR_REF_ZERO : piece->ref + into;
        if (here != QR_REF_ZERO && piece->length - into >= length &&
            qr_store_resolve(reader->store, here, &n) == here) {
            int rc = base_of_frame(reader, here, buffer, length, base);
            if (rc)
                return rc < 0 ? qr_log_check_pruned(reader->store->log, rc) : 0;
        }
    }
    return qr_content_read(reader, content, offset, buffer, length);
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
    cursor.pieces =
        content->pieces == &content->inline_piece ? &cursor.inline_piece : content->pieces;
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
