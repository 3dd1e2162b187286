/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pieces of a page that is written over again and again.
 *
 * Writing over some bytes of a page whose pieces are in order means to find the place, to cut the
 * piece that is there and to make room: all of the array is touched, and it lies in no cache. So
 * small overwrites are noted behind the pieces, in the order they came, which touches one line;
 * when QR_RECENT_MAX of them have gathered they are put in their places one after the other.
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

/* Puts one overwrite in its place among `count` pieces, which it lies in; there is room for two
 * more. The number of pieces is returned. The bytes of an operation never follow those of another
 * one in the log, so nothing is to be merged. */
static uint32_t put(struct qr_piece *pieces, uint32_t count, uint64_t offset, uint64_t length,
                    qr_ref ref)
{
    struct qr_piece new[3];
    uint64_t at = 0, end = offset + length; /* where a piece begins; where the bytes end */
    uint32_t first = 0, last, n = 0;
    while (offset - at >= pieces[first].length)
        at += pieces[first++].length;
    if (offset > at)
        new[n++] = (struct qr_piece){pieces[first].ref, offset - at};
    new[n++] = (struct qr_piece){ref, length};
    for (last = first; last < count && at + pieces[last].length <= end; last++)
        at += pieces[last].length;
    if (last < count && at < end) {
        const struct qr_piece *tail = &pieces[last++];
        qr_ref rest = tail->ref == QR_REF_ZERO ? QR_REF_ZERO : tail->ref + (end - at);
        new[n++] = (struct qr_piece){rest, tail->length - (end - at)};
    }
    memmove(&pieces[first + n], &pieces[last], (count - last) * sizeof *pieces);
    memcpy(&pieces[first], new, n * sizeof *new);
    return count - (last - first) + n;
}

/* The noted overwrites are not among the pieces that are written to: they are elsewhere. */
static uint32_t put_all(struct qr_piece *pieces, uint32_t count, const struct qr_piece *notes,
                        unsigned note_count)
{
    for (unsigned i = 0; i < note_count; i++)
        count = put(pieces, count, notes[i].length >> LENGTH_BITS,
                    notes[i].length & ((1 << LENGTH_BITS) - 1), notes[i].ref);
    return count;
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
    struct qr_piece notes[QR_RECENT_MAX];
    unsigned n = page->recent_count;
    int rc = n ? reserve(page, page->piece_count + 2 * n) : 0;
    if (rc || !n)
        return rc;
    memcpy(notes, &page->pieces[page->piece_count], n * sizeof *notes);
    page->recent_count = 0;
    state->piece_total -= 2 * n;
    install(state, page, put_all(page->pieces, page->piece_count, notes, n));
    return 0;
}

int qr_page_overwrite(struct qr_state *state, struct qr_page *page, uint64_t offset,
                      uint64_t length, qr_ref ref)
{
    qr_assert(length > 0 && length <= page->size && offset <= page->size - length);
    int is_small = length < 1 << LENGTH_BITS && offset < UINT64_C(1) << (64 - LENGTH_BITS);
    int rc = is_small ? 0 : qr_page_settle(state, page);
    if (!rc)
        rc = reserve(page, page->piece_count + (is_small ? page->recent_count + 1u : 2));
    if (rc)
        return rc;
    if (!is_small) {
        install(state, page, put(page->pieces, page->piece_count, offset, length, ref));
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
