/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one apply function: records change a state. Commit, replay, recovery and followers all come
 * through qr_apply_body().
 *
 * Content is changed without being read: a builder walks the operations of a delta over the pieces
 * of the old content and makes the list of pieces of the new one. A literal is a piece that refers
 * to the operation's own bytes in the log; kept and copied bytes are the pieces that they are. One
 * change may come in several parts (a frame holds at most 1 MiB), so the builder outlives a body.
 *
 * Input is hostile: every offset is checked against the old content, every size before memory is
 * taken, and the number of pieces is bounded, since COPY could otherwise multiply them without end.
 */
#include "runtime/apply_bytes.h"
#include "runtime/delta.h"
#include "runtime/error.h"
#include "runtime/format.h"
#include "runtime/log.h"
#include "runtime/os.h"
#include "runtime/record.h"
#include "runtime/state_internal.h"

#define BITS64(p, i) (((p)[(i) >> 3] >> ((i) & 7)) & 1)

/* Where in a piece list a position is. */
struct place {
    uint32_t index;
    uint64_t within;
};

struct qr_builder {
    uint64_t page;
    int is_image;
    uint64_t old_size, new_size;
    const struct qr_piece *old;
    struct qr_piece *old_owned; /* copy of the old pieces, when they may change while we build */
    uint32_t old_count;
    struct place at;            /* of old_end in the old pieces */
    uint64_t old_end;           /* old bytes walked over */
    uint64_t *starts;           /* offset of each old piece; made by the first COPY */
    struct qr_piece *pieces;
    uint32_t count, capacity, limit;
    uint64_t size;              /* built so far */
    int moves;                  /* an operation changes the size or copies */
    int stored;                 /* an operation's bytes are not in the record */
    uint64_t stored_from;       /* ... but in a frame not before this offset */
    uint64_t held_end;          /* as old_end, for the content in memory */
    struct qr_apply bytes;      /* of a state whose content goes to memory, instead of pieces */
    int in_place;               /* over the old bytes */
    uint8_t *built;             /* where the bytes are built if not in their place; to be freed */
};

static int too_many_pieces(const struct qr_builder *b)
{
    return qr_fail(QALLOW_E_LIMIT, "page %llu: more than %u pieces", (unsigned long long)b->page,
                   b->limit);
}

/* Appends one piece, merged with the one before where the bytes are contiguous. */
static int put_piece(struct qr_builder *b, qr_ref ref, uint64_t length)
{
    if (length == 0)
        return 0;
    if (length > b->new_size - b->size)
        return qr_fail(QALLOW_E_INVALID_DELTA, "page %llu: the result is larger than %llu bytes",
                       (unsigned long long)b->page, (unsigned long long)b->new_size);
    b->size += length;
    if (b->count) {
        struct qr_piece *last = &b->pieces[b->count - 1];
        int zeros = ref == QR_REF_ZERO;
        if (zeros == (last->ref == QR_REF_ZERO) &&
            (zeros || (qr_ref_frame(ref) == qr_ref_frame(last->ref) &&
                       qr_ref_body(last->ref) + last->length == qr_ref_body(ref)))) {
            last->length += length;
            return 0;
        }
    }
    if (b->count == b->capacity) {
        uint32_t capacity = b->capacity ? b->capacity * 2 : 4;
        if (capacity > b->limit && (capacity = b->limit) <= b->count)
            return too_many_pieces(b);
        struct qr_piece *grown = qr_realloc(b->pieces, capacity * sizeof *grown);
        if (!grown)
            return qr_fail(QALLOW_E_NO_MEMORY, "page %llu: %u pieces",
                           (unsigned long long)b->page, capacity);
        b->pieces = grown;
        b->capacity = capacity;
    }
    b->pieces[b->count++] = (struct qr_piece){ref, length};
    return 0;
}

static qr_ref ref_plus(qr_ref ref, uint64_t bytes)
{
    return ref == QR_REF_ZERO ? ref : ref + bytes;
}

/* Puts (emit) or passes over `length` old bytes from *place on; the range has been checked. */
static int walk_old(struct qr_builder *b, struct place *place, uint64_t length, int emit)
{
    while (length) {
        qr_assert(place->index < b->old_count);
        const struct qr_piece *piece = &b->old[place->index];
        uint64_t n = piece->length - place->within;
        if (n > length)
            n = length;
        int rc = emit ? put_piece(b, ref_plus(piece->ref, place->within), n) : 0;
        if (rc)
            return rc;
        length -= n;
        place->within += n;
        if (place->within == piece->length)
            *place = (struct place){place->index + 1, 0};
    }
    return 0;
}

/* The place of an old offset, by binary search over the pieces' starts. */
static int find_old(struct qr_builder *b, uint64_t offset, struct place *place)
{
    if (!b->starts) {
        b->starts = qr_malloc(((size_t)b->old_count + 1) * sizeof *b->starts);
        if (!b->starts)
            return qr_fail(QALLOW_E_NO_MEMORY, "page %llu: index of %u pieces",
                           (unsigned long long)b->page, b->old_count);
        uint64_t start = 0;
        for (uint32_t i = 0; i < b->old_count; i++) {
            b->starts[i] = start;
            start += b->old[i].length;
        }
    }
    uint32_t low = 0, high = b->old_count; /* last start <= offset */
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (b->starts[middle] <= offset)
            low = middle;
        else
            high = middle;
    }
    *place = (struct place){low, offset - b->starts[low]};
    return 0;
}

/* A MASK operation: runs of set bits are literals one after the other in the payload. */
static int put_masked(struct qr_builder *b, const struct qr_op *op, qr_ref payload)
{
    int rc = 0;
    for (uint64_t i = 0; i < op->old_length && !rc;) {
        unsigned bit = BITS64(op->mask, i);
        uint64_t n = 1;
        while (i + n < op->old_length && BITS64(op->mask, i + n) == bit)
            n++;
        if (bit) {
            rc = put_piece(b, payload, n);
            payload += n;
        }
        if (!rc)
            rc = walk_old(b, &b->at, n, !bit);
        i += n;
    }
    return rc;
}

/* Content that a CONTENT frame of this transaction holds; `bytes` is in the frame of the record. */
static int put_stored(struct qr_builder *b, const struct qr_op *op, qr_ref bytes)
{
    uint64_t frame = qr_ref_frame(op->from);
    b->stored = 1;
    if (frame < b->stored_from || frame >= qr_ref_frame(bytes))
        return qr_fail(QALLOW_E_INVALID_DELTA,
                       "page %llu: content stored outside of the transaction",
                       (unsigned long long)b->page);
    return put_piece(b, op->from, op->new_length);
}

static int build_op(struct qr_builder *b, const struct qr_op *op, qr_ref bytes)
{
    int rc;
    struct place from = {0, 0};
    if (op->old_length > b->old_size || op->offset > b->old_size - op->old_length)
        return qr_fail(QALLOW_E_INVALID_DELTA,
                       "page %llu: an edit at %llu reaches beyond the %llu bytes that there are",
                       (unsigned long long)b->page, (unsigned long long)op->offset,
                       (unsigned long long)b->old_size);
    if ((rc = walk_old(b, &b->at, op->offset - b->old_end, 1)))
        return rc;
    b->old_end = op->offset + op->old_length;
    b->moves |= op->kind == QR_OP_COPY || op->old_length != op->new_length;
    if (op->kind == QR_OP_MASK)
        return put_masked(b, op, bytes);
    switch (op->kind) {
    case QR_OP_OVERWRITE:
    case QR_OP_REPLACE:
        rc = put_piece(b, bytes, op->new_length);
        break;
    case QR_OP_ZERO:
    case QR_OP_GROW:
        rc = put_piece(b, QR_REF_ZERO, op->new_length);
        break;
    case QR_OP_COPY:
        if (op->new_length > b->old_size || op->from > b->old_size - op->new_length)
            return qr_fail(QALLOW_E_INVALID_DELTA, "page %llu: a copy from beyond the page",
                           (unsigned long long)b->page);
        rc = find_old(b, op->from, &from);
        if (!rc)
            rc = walk_old(b, &from, op->new_length, 1);
        break;
    case QR_OP_STORED:
        rc = put_stored(b, op, bytes);
        break;
    case QR_OP_REMOVE:
    default:
        break;
    }
    return rc ? rc : walk_old(b, &b->at, op->old_length, 0);
}

static void builder_destroy(struct qr_builder *b)
{
    if (!b)
        return;
    qr_free(b->old_owned);
    qr_free(b->starts);
    qr_free(b->pieces);
    qr_free(b->built);
    qr_free(b);
}

/* --- content that goes to memory --- */

static uint8_t *place_of(const struct qr_applier *a, const struct qr_page *page, uint64_t size)
{
    const struct qr_places *places = a->state->places;
    if (page->size == size)
        return places->place(places->context, page);
    struct qr_page other = *page;
    other.size = size;
    return places->place(places->context, &other);
}

/* Does the first part of a change only write over bytes of a page whose size stays? */
static int is_in_place(const struct qr_builder *b, const struct qr_record *r)
{
    struct qr_ops_check check = {.old_size = b->old_size};
    return b->old_size == b->new_size &&
           qr_ops_check(&check, qr_cursor(r->operations, r->operations_length)) == 0 &&
           !check.moves;
}

static int left_out(const struct qr_record *r)
{
    return qr_fail(QALLOW_E_STATE, "page %llu: what it is made of was left out",
                   (unsigned long long)r->page);
}

/* Where the old bytes are read and the new ones go: over the old ones, to their place, or beside it
 * if the page's own bytes are still needed. What cannot be done in memory is an error: who loads
 * does without then. */
static int begin_bytes(struct qr_applier *a, struct qr_builder *b, const struct qr_record *r,
                       const struct qr_page *page, const struct qr_page *base)
{
    int is_new = b->old_size == 0 && (page->size == 0 || !a->state->is_final);
    int rc = a->scan && !is_new ? qr_scan_settle(a->scan) : 0;
    if (rc)
        return rc;
    uint8_t *to = place_of(a, page, b->new_size);
    const uint8_t *from = b->old_size ? place_of(a, base, b->old_size) : NULL;
    if (b->old_size && to && !from)
        return left_out(r);
    b->in_place = to && from && page == base && is_in_place(b, r);
    if (to && from && page == base && !b->in_place &&
        !(to = b->built = qr_malloc((size_t)b->new_size)))
        return qr_fail(QALLOW_E_NO_MEMORY, "page %llu", (unsigned long long)b->page);
    b->bytes = (struct qr_apply){
        .old = from, .old_size = b->old_size, .new_ = to, .new_size = b->new_size};
    return 0;
}

/* A part of content that has no old bytes is a change of its own, whose bytes may follow later. */
static int put_new_bytes(struct qr_applier *a, struct qr_builder *b, struct qr_cursor part)
{
    struct qr_ops_check check = {.old_size = 0};
    int rc = qr_ops_check(&check, part);
    if (!rc && check.written > b->new_size - b->bytes.written)
        rc = qr_fail(QALLOW_E_INVALID_DELTA, "page %llu: the result is larger than %llu bytes",
                     (unsigned long long)b->page, (unsigned long long)b->new_size);
    if (rc)
        return rc;
    struct qr_change change = {.to = b->bytes.new_ + b->bytes.written,
                               .new_size = check.written,
                               .operations = part};
    b->bytes.written += check.written;
    return qr_scan_later(a->scan, b->page, &change);
}

/* A part that moves bytes behind one that did not is an error, too. */
static int put_bytes(struct qr_applier *a, struct qr_builder *b, const struct qr_record *r)
{
    struct qr_cursor part = qr_cursor(r->operations, r->operations_length);
    if (!b->bytes.new_)
        return 0;
    if (a->scan && b->old_size == 0)
        return put_new_bytes(a, b, part);
    return b->in_place ? qr_apply_in_place(b->bytes.new_, b->new_size, part, &b->old_end)
                       : qr_apply_part(&b->bytes, part);
}

/* The bytes are complete. */
static int end_bytes(struct qr_applier *a, struct qr_builder *b, const struct qr_page *page)
{
    int rc = b->bytes.new_ && !b->in_place ? qr_apply_end(&b->bytes) : 0;
    if (!rc && b->built)
        qb_kernels()->copy(place_of(a, page, b->new_size), b->built, (size_t)b->new_size);
    return rc;
}

/* Begins a content change: finds the old content and freezes it. */
static int builder_create(struct qr_applier *a, const struct qr_record *r, struct qr_builder **out)
{
    struct qr_page *page = qr_state_find(a->state, r->page);
    struct qr_page *base = r->base ? qr_state_find(a->state, r->base) : page;
    if (!page || !base)
        return qr_fail(QALLOW_E_PAGE_NOT_FOUND, "page %llu%s does not exist",
                       (unsigned long long)(page ? r->base : r->page),
                       page ? ", the base of a delta," : "");
    int is_image = r->type == QR_RECORD_IMAGE;
    uint64_t old_size = is_image ? 0 : base->size;
    if (r->old_size != old_size || (is_image && (r->base || r->new_size != page->size)))
        return qr_fail(QALLOW_E_INVALID_DELTA,
                       "page %llu: a delta for a base of %llu bytes, but it has %llu",
                       (unsigned long long)r->page, (unsigned long long)r->old_size,
                       (unsigned long long)old_size);
    int rc = is_image ? 0 : qr_page_settle(a->state, base);
    if (rc)
        return rc;
    struct qr_builder *b = qr_calloc(1, sizeof *b);
    if (!b)
        return qr_fail(QALLOW_E_NO_MEMORY, "delta of page %llu", (unsigned long long)r->page);
    *b = (struct qr_builder){.page = r->page, .is_image = is_image, .old_size = old_size,
                             .new_size = r->new_size, .stored_from = a->stored_from,
                             .old = base->pieces};
    b->old_count = is_image ? 0 : base->piece_count;
    uint64_t room = a->piece_limit - (a->state->piece_total < a->piece_limit
                                          ? a->state->piece_total : a->piece_limit);
    b->limit = room > QR_PIECES_MAX ? QR_PIECES_MAX : (uint32_t)room;
    if (!r->last && b->old_count) { /* slots may move between parts: keep our own copy */
        b->old_owned = qr_malloc(b->old_count * sizeof *b->old_owned);
        if (!b->old_owned) {
            builder_destroy(b);
            return qr_fail(QALLOW_E_NO_MEMORY, "delta of page %llu", (unsigned long long)r->page);
        }
        memcpy(b->old_owned, b->old, b->old_count * sizeof *b->old_owned);
        b->old = b->old_owned;
    }
    *out = b;
    return a->state->places ? begin_bytes(a, b, r, page, base) : 0;
}

/* What is held in memory of the content follows, unless the bytes would have to be read. */
static void follow(struct qr_applier *a, struct qr_page *page, const struct qr_record *r,
                   struct qr_builder *b)
{
    if (b->stored)
        qr_page_let_go(a->state, page);
    else
        qr_page_follow(a->state, page, r, b->moves, &b->held_end);
}

/* Ends a content change: the rest of the old content is kept, the result must be what was said. */
static int builder_install(struct qr_applier *a, struct qr_builder *b, const struct qr_record *r)
{
    int is_bytes = a->state->places != NULL;
    int rc = is_bytes ? end_bytes(a, b, qr_state_find(a->state, b->page))
                      : walk_old(b, &b->at, b->old_size - b->old_end, 1);
    if (rc)
        return rc;
    if (is_bytes)
        b->size = b->new_size;
    if (b->size != b->new_size)
        return qr_fail(QALLOW_E_INVALID_DELTA, "page %llu: the result has %llu bytes, not %llu",
                       (unsigned long long)b->page, (unsigned long long)b->size,
                       (unsigned long long)b->new_size);
    struct qr_page *page = qr_state_find(a->state, b->page);
    qr_assert(page);
    if (b->is_image && !qb_u128_equal(r->content_sum, page->content_sum))
        return qr_fail(QALLOW_E_INVALID_DELTA, "page %llu: an image of other content",
                       (unsigned long long)b->page);
    follow(a, page, r, b);
    qr_state_set_content(a->state, page, b->pieces, b->count, b->capacity, b->size,
                         &r->content_sum);
    if (a->state->is_final)
        page->mark = 0;
    b->pieces = NULL;
    if (a->changed)
        a->changed(a->context, page);
    return 0;
}

/* The single operation of a record that does nothing but write bytes over others of a page whose
 * size stays: 1. */
static int is_overwrite(const struct qr_applier *a, const struct qr_page *page,
                        const struct qr_record *r, struct qr_op *op)
{
    struct qr_cursor cursor = qr_cursor(r->operations, r->operations_length);
    uint64_t end = 0;
    return r->type == QR_RECORD_DELTA && r->first && r->last && !r->base && !a->open && page &&
           r->old_size == page->size && r->new_size == page->size &&
           qr_op_next(&cursor, &end, op) == 1 && op->kind == QR_OP_OVERWRITE &&
           cursor.at == cursor.end && op->old_length <= page->size &&
           op->offset <= page->size - op->old_length && a->state->piece_total + 2 <= a->piece_limit;
}

/* A change that comes in one part, of a page whose content goes to memory: its bytes may follow
 * later. 1: done; 0: it is another one, or wrong. */
static int change_bytes(struct qr_applier *a, struct qr_page *page, const struct qr_record *r)
{
    int is_image = r->type == QR_RECORD_IMAGE;
    uint64_t old_size = is_image ? 0 : page->size;
    if (!r->first || !r->last || r->base || a->open || r->old_size != old_size ||
        (a->state->is_final && page->size) ||
        (is_image && (r->new_size != page->size ||
                      !qb_u128_equal(r->content_sum, page->content_sum))))
        return 0;
    struct qr_change change = {.to = place_of(a, page, r->new_size),
                               .old_size = old_size,
                               .new_size = r->new_size,
                               .operations = qr_cursor(r->operations, r->operations_length),
                               .page = a->state->is_final ? page : NULL};
    if (old_size)
        change.from = old_size == r->new_size ? change.to : place_of(a, page, old_size);
    if (old_size && change.to && !change.from)
        return left_out(r);
    if (r->new_size == page->size)
        qr_state_set_sum(a->state, page, &r->content_sum);
    else
        qr_state_set_content(a->state, page, NULL, 0, 0, r->new_size, &r->content_sum);
    int rc = 0;
    if (change.to)
        rc = a->scan ? qr_scan_later(a->scan, page->id, &change) : qr_change_apply(&change);
    return rc ? rc : 1;
}

/* What most deltas of programs are: done without making the pieces anew. 1: done; 0: it is another
 * one. */
static int apply_overwrite(struct qr_applier *a, struct qr_page *page, const struct qr_record *r,
                           uint64_t frame_offset)
{
    struct qr_op op;
    if (!is_overwrite(a, page, r, &op))
        return 0;
    uint64_t into = r->operations_body_offset + (uint64_t)(op.bytes - r->operations);
    int rc = qr_page_overwrite(a->state, page, op.offset, op.old_length,
                               qr_ref_make(frame_offset, into));
    if (rc < 0)
        return rc;
    qr_state_set_sum(a->state, page, &r->content_sum);
    if (page->held) {
        memcpy(page->held + op.offset, op.bytes, (size_t)op.old_length);
        page->held_is_used = 1;
    }
    qr_count_operation(&a->counts, QR_OP_OVERWRITE);
    if (a->changed)
        a->changed(a->context, page);
    return 1;
}

static int finish_delta(struct qr_applier *a, const struct qr_record *r)
{
    int rc = builder_install(a, a->open, r);
    builder_destroy(a->open);
    a->open = NULL;
    return rc;
}

static int apply_delta(struct qr_applier *a, struct qr_page *page, const struct qr_record *r,
                       uint64_t frame_offset)
{
    int rc = a->state->places ? change_bytes(a, page, r)
                              : apply_overwrite(a, page, r, frame_offset);
    if (rc)
        return rc < 0 ? rc : 0;
    int is_image = r->type == QR_RECORD_IMAGE;
    if (!!r->first == !!a->open ||
        (a->open && (a->open->page != r->page || a->open->is_image != is_image)))
        return qr_fail(QALLOW_E_INVALID_DELTA, "page %llu: a part of a delta out of order",
                       (unsigned long long)r->page);
    if (r->first && (rc = builder_create(a, r, &a->open)))
        return rc;
    struct qr_builder *b = a->open;
    struct qr_cursor cursor = qr_cursor(r->operations, r->operations_length);
    if (a->state->places) {
        rc = put_bytes(a, b, r);
        return rc || !r->last ? rc : finish_delta(a, r);
    }
    struct qr_op op;
    uint64_t old_end = b->old_end;
    while ((rc = qr_op_next(&cursor, &old_end, &op)) > 0) {
        qr_ref bytes = qr_ref_make(frame_offset, 0);
        if (op.bytes)
            bytes = qr_ref_make(frame_offset, r->operations_body_offset +
                                                  (uint64_t)(op.bytes - r->operations));
        if ((rc = build_op(b, &op, bytes)))
            return rc;
        if (!is_image)
            qr_count_operation(&a->counts, op.kind);
    }
    if (rc)
        return qr_fail(rc, "page %llu: a malformed operation", (unsigned long long)r->page);
    if (!r->last)
        follow(a, qr_state_find(a->state, b->page), r, b);
    return r->last ? finish_delta(a, r) : 0;
}

/* Counts a page once per epoch and gives it its version. */
static void touch(struct qr_applier *a, struct qr_page *page)
{
    a->pages += page->version != a->epoch;
    page->version = a->epoch;
}

static int apply_record(struct qr_applier *a, const struct qr_record *r, uint64_t frame_offset)
{
    int rc;
    struct qr_page *page = qr_state_find(a->state, r->page);
    if (r->type == QR_RECORD_CREATE) {
        rc = qr_state_create_page(a->state, r->page, r->parent, r->name, r->name_length, r->kind,
                                  &page);
        if (!rc)
            rc = qr_state_set_attributes(a->state, page, r->mode, r->mtime_ns, r->extra,
                                         r->extra_length);
        if (!rc)
            touch(a, page);
        return rc;
    }
    if (!page)
        return qr_fail(QALLOW_E_PAGE_NOT_FOUND, "page %llu does not exist",
                       (unsigned long long)r->page);
    if (r->type != QR_RECORD_IMAGE) /* an image changes nothing that anybody could see */
        touch(a, page);
    switch (r->type) {
    case QR_RECORD_ATTRIBUTES:
        return qr_state_set_attributes(a->state, page, r->mode, r->mtime_ns, r->extra,
                                       r->extra_length);
    case QR_RECORD_RENAME:
        return qr_state_rename_page(a->state, page, r->parent, r->name, r->name_length);
    case QR_RECORD_FREE:
        return qr_state_free_page(a->state, page);
    default:
        rc = apply_delta(a, page, r, frame_offset);
        if (!rc && !a->state->places) /* what goes to memory nobody counts */
            qr_count_part(&a->counts, page->kind, r->type == QR_RECORD_IMAGE, r->last,
                          r->operations_length);
        return rc;
    }
}

void qr_applier_init(struct qr_applier *applier, struct qr_state *state, uint64_t epoch)
{
    *applier = (struct qr_applier){.state = state, .epoch = epoch, .piece_limit = UINT32_MAX / 4};
}

void qr_applier_finish(struct qr_applier *applier)
{
    builder_destroy(applier->open);
    applier->open = NULL;
}

static int apply_next(struct qr_applier *a, const struct qr_record *record, uint64_t frame_offset)
{
    int rc = a->before ? a->before(a->context, record) : 0;
    int is_delta = record->type == QR_RECORD_DELTA || record->type == QR_RECORD_IMAGE;
    if (rc)
        return rc;
    if (a->open && !is_delta)
        return qr_fail(QALLOW_E_INVALID_DELTA, "page %llu: its delta has no last part",
                       (unsigned long long)a->open->page);
    rc = apply_record(a, record, frame_offset);
    a->records += rc == 0;
    return rc;
}

/* The pieces of the page, or the bytes that the first operation changes, unless they are changed
 * later. */
static void fetch_content(const struct qr_state *state, const struct qr_record *record,
                          int is_later)
{
    if (!state->places) {
        qr_state_fetch(state, record->page, QR_FETCH_PIECES);
        return;
    }
    if (is_later)
        return;
    struct qr_cursor operations = qr_cursor(record->operations, record->operations_length);
    const struct qr_page *page = qr_state_find(state, record->page);
    uint64_t offset = qr_get_varint(&operations);
    const uint8_t *bytes =
        page && offset < page->size ? state->places->place(state->places->context, page) : NULL;
    if (bytes)
        __builtin_prefetch(bytes + offset, 1);
}

/* Records are decoded some steps before they are applied, and what they will touch is fetched: on
 * a state larger than the cache that is most of the time. A record that cannot be decoded ends it
 * after those before it have been applied. */
int qr_apply_body(struct qr_applier *a, uint64_t frame_offset, const uint8_t *body, size_t length)
{
    enum { SLOTS_AHEAD = 16, PAGES_AHEAD = 10, PIECES_AHEAD = 5 };
    struct qr_record records[SLOTS_AHEAD];
    struct qr_cursor cursor = qr_cursor(body, length);
    size_t decoded = 0;
    int more = 1, rc = 0;
    for (size_t i = 0; rc == 0 && (more > 0 || i < decoded); i++) {
        while (more > 0 && decoded < i + SLOTS_AHEAD) {
            struct qr_record *record = &records[decoded % SLOTS_AHEAD];
            if ((more = qr_record_next(&cursor, body, record)) <= 0)
                break;
            qr_state_fetch(a->state, record->page, QR_FETCH_SLOT);
            decoded++;
        }
        if (i + PAGES_AHEAD < decoded)
            qr_state_fetch(a->state, records[(i + PAGES_AHEAD) % SLOTS_AHEAD].page, QR_FETCH_PAGE);
        if (i + PIECES_AHEAD < decoded)
            fetch_content(a->state, &records[(i + PIECES_AHEAD) % SLOTS_AHEAD], a->scan != NULL);
        if (i < decoded)
            rc = apply_next(a, &records[i % SLOTS_AHEAD], frame_offset);
    }
    return rc ? rc : more;
}
