/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pieces of a page that is written over again and again.
 *
 * Writing over some bytes of a page whose pieces are in order means to find the place, to cut the
 * piece that is there and to make room: all of the array is touched, and it lies in no cache. So
 * small overwrites are noted behind the pieces, in the order they came, which touches one line;
 * when QR_RECENT_MAX of them have gathered they are put in their places in one pass.
 * Whoever looks at a page's pieces takes a copy (qr_content_init), in which the noted ones are in
 * place.
 *
 * When they are put in place depends on what was applied since the state was made, never on who has
 * looked or on memory: where a page gets an image follows from its number of pieces, and is in the
 * log. (A state that was read from the log again begins without notes.)
 */
#include <string.h>

#include "runtime/error.h"
#include "runtime/os.h"
#include "runtime/state_internal.h"

/* How an overwrite is noted: its offset and length in one word. */
enum { LENGTH_BITS = 16 };
enum { FEW = 64 }; /* pieces: so many grow twofold */

static struct qr_piece note(uint64_t offset, uint64_t length, qr_ref ref)
{
    return (struct qr_piece){ref, offset << LENGTH_BITS | length};
}

/* Bytes that were written over and not again since. */
struct span {
    uint64_t from, to;
    qr_ref ref;
};

enum { SPANS_MAX = 2 * QR_RECENT_MAX }; /* those of one lie around those of newer ones */

/* Adds an overwrite older than all the spans, which ascend: what they leave of it. */
static unsigned add_span(struct span *spans, unsigned count, struct span older)
{
    unsigned i = 0;
    while (older.from < older.to) {
        while (i < count && spans[i].to <= older.from)
            i++;
        int meets = i < count && spans[i].from < older.to;
        uint64_t end = meets ? spans[i].from : older.to;
        uint64_t next = meets ? spans[i].to : older.to;
        if (older.from < end) {
            qr_assert(count < SPANS_MAX);
            memmove(&spans[i + 1], &spans[i], (count++ - i) * sizeof *spans);
            spans[i++] = (struct span){older.from, end, older.ref};
        }
        older.ref += next - older.from;
        older.from = next;
    }
    return count;
}

/* What is left of a piece behind its first `bytes`. */
static struct qr_piece rest(struct qr_piece piece, uint64_t bytes)
{
    piece.ref = piece.ref == QR_REF_ZERO ? QR_REF_ZERO : piece.ref + bytes;
    piece.length -= bytes;
    return piece;
}

/* Puts spans in their places among `count` pieces that hold them all, in one pass. At most
 * two pieces come to be for each overwrite that the spans are of; so many places are free behind
 * the pieces, which move there first: then what is written never reaches what is still to be read.
 * The number of pieces is returned. The bytes of an operation never follow those of another one in
 * the log, so nothing is to be merged. */
static uint32_t put_spans(struct qr_piece *pieces, uint32_t count, const struct span *spans,
                          unsigned span_count, unsigned overwrites)
{
    struct qr_piece *old = pieces + 2 * (size_t)overwrites, *end = old + count, *to = pieces;
    uint64_t at = 0; /* where *old begins */
    memmove(old, pieces, count * sizeof *pieces);
    for (const struct span *span = spans; span < spans + span_count; span++) {
        for (; at + old->length <= span->from; *to++ = *old++)
            at += old->length;
        if (at < span->from) {
            *to++ = (struct qr_piece){old->ref, span->from - at};
            *old = rest(*old, span->from - at);
            at = span->from;
        }
        for (; old < end && at + old->length <= span->to; old++)
            at += old->length;
        *to++ = (struct qr_piece){span->ref, span->to - span->from};
        qr_assert(to <= old && (old < end || at == span->to));
        if (at < span->to)
            *old = rest(*old, span->to - at);
        at = span->to;
    }
    memmove(to, old, (size_t)(end - old) * sizeof *to);
    return (uint32_t)(to + (end - old) - pieces);
}

/* The noted overwrites in their places. There is room for two more pieces for each; where they are
 * noted may be in that room. */
static uint32_t put_all(struct qr_piece *pieces, uint32_t count, const struct qr_piece *notes,
                        unsigned note_count)
{
    struct span spans[SPANS_MAX];
    unsigned span_count = 0;
    for (unsigned i = note_count; i-- > 0;) {
        uint64_t from = notes[i].length >> LENGTH_BITS;
        uint64_t length = notes[i].length & ((1 << LENGTH_BITS) - 1);
        span_count = add_span(spans, span_count, (struct span){from, from + length, notes[i].ref});
    }
    return put_spans(pieces, count, spans, span_count, note_count);
}

/* Room for so many pieces in all. */
static int reserve(struct qr_page *page, uint32_t count)
{
    uint32_t used = page->piece_count + page->recent_count, capacity = page->piece_capacity;
    if (count <= capacity)
        return 0;
    if (count > QR_PIECES_MAX)
        return qr_fail(QALLOW_E_LIMIT, "page %llu: more than %d pieces",
                       (unsigned long long)page->id, QR_PIECES_MAX);
    capacity = count < 8 ? 8 : count < FEW ? 2 * count : count + count / 2;
    int is_inline = page->pieces == &page->inline_piece;
    struct qr_piece *pieces =
        qr_realloc(is_inline ? NULL : page->pieces, capacity * sizeof *pieces);
    if (!pieces)
        return qr_fail(QALLOW_E_NO_MEMORY, "page %llu: %u pieces", (unsigned long long)page->id,
                       capacity);
    qr_assert(!is_inline || used <= 1);
    if (is_inline)
        pieces[0] = page->inline_piece;
    page->pieces = pieces;
    page->piece_capacity = capacity < QR_PIECES_MAX ? capacity : QR_PIECES_MAX;
    return 0;
}

/* The array holds `count` pieces from now on. */
static void install(struct qr_state *state, struct qr_page *page, uint32_t count)
{
    state->piece_total += (uint64_t)count - page->piece_count;
    page->piece_count = count;
    if (count > 1 || page->pieces == &page->inline_piece || qr_page_keeps_array(page))
        return;
    struct qr_piece *array = page->pieces;
    page->inline_piece = array[0];
    page->pieces = &page->inline_piece;
    page->piece_capacity = 1;
    qr_free(array);
}

int qr_page_settle(struct qr_state *state, struct qr_page *page)
{
    unsigned n = page->recent_count;
    int rc = n ? reserve(page, page->piece_count + 2 * n) : 0;
    if (rc || !n)
        return rc;
    page->recent_count = 0;
    state->piece_total -= 2 * n;
    install(state, page,
            put_all(page->pieces, page->piece_count, &page->pieces[page->piece_count], n));
    return 0;
}

int qr_page_overwrite(struct qr_state *state, struct qr_page *page, uint64_t offset,
                      uint64_t length, qr_ref ref)
{
    qr_assert(length > 0 && length <= page->size && offset <= page->size - length);
    if (length == page->size) { /* nothing of what was is left */
        state->piece_total -= 2 * (uint64_t)page->recent_count;
        page->recent_count = 0;
        page->pieces[0] = (struct qr_piece){ref, length};
        install(state, page, 1);
        return 0;
    }
    int is_small = length < 1 << LENGTH_BITS && offset < UINT64_C(1) << (64 - LENGTH_BITS);
    int rc = is_small ? 0 : qr_page_settle(state, page);
    if (!rc)
        rc = reserve(page, page->piece_count + (is_small ? page->recent_count + 1u : 2));
    if (rc)
        return rc;
    if (!is_small) {
        const struct span span = {offset, offset + length, ref};
        install(state, page, put_spans(page->pieces, page->piece_count, &span, 1, 1));
        return 0;
    }
    page->pieces[page->piece_count + page->recent_count++] = note(offset, length, ref);
    state->piece_total += 2;
    if (page->recent_count < QR_RECENT_MAX || (rc = qr_page_settle(state, page)) == 0)
        return 0;
    page->recent_count--; /* nothing happened */
    state->piece_total -= 2;
    return rc;
}

uint32_t qr_page_copy_pieces(const struct qr_page *page, struct qr_piece *to)
{
    if (page->piece_count)
        memcpy(to, page->pieces, page->piece_count * sizeof *to);
    return put_all(to, page->piece_count, page->pieces + page->piece_count, page->recent_count);
}
