/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The difference between two contents of one log.
 *
 * Content is a list of pieces, places in the log. First the pieces are aligned: walking over the
 * new ones, each is looked up among the old ones sorted by place, and the matches that keep the
 * order become anchors, equal without reading. Between two anchors lies a gap: some old bytes and
 * some new ones, usually few. Gaps are read and compared. A gap that is too large for memory is
 * first trimmed at both ends and what remains is compared window by window at equal distances from
 * its beginning.
 */
#include "runtime/query.h"

#include <stdlib.h>
#include <string.h>

#include "backend/kernels.h"
#include "runtime/delta.h"

enum {
    WINDOW = 4 << 20,        /* bytes of each side of a gap that are compared in memory */
    INDEX_BYTES = 8 << 20,   /* for qr_diff */
    CANDIDATES = 8,          /* old pieces tried for one new piece */
    RUNS = 256,              /* fetched from diff_runs at once */
};

/* Where an old piece starts. */
struct place {
    qr_ref ref;
    uint64_t length, offset;
};

struct differ {
    struct qr_reader *reader;
    struct qr_content *old, *new;
    size_t gap;
    qr_change_visitor visit;
    void *context;
    struct place *places; /* of the old content, sorted by ref */
    size_t place_count;
    uint8_t *old_bytes, *new_bytes; /* WINDOW each; allocated with the first gap */
    struct qr_change pending;       /* not yet visited: the next change may touch it */
    int has_pending;
};

static uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* --- out --- */

static int flush_change(struct differ *d)
{
    if (!d->has_pending)
        return 0;
    d->has_pending = 0;
    return d->visit(d->context, &d->pending);
}

static int emit(struct differ *d, uint64_t old_offset, uint64_t old_length, uint64_t new_offset,
                uint64_t new_length)
{
    struct qr_change *last = &d->pending;
    int rc;

    if (old_length == 0 && new_length == 0)
        return 0;
    if (d->has_pending) {
        uint64_t between = old_offset - (last->old_offset + last->old_length);
        qr_assert(old_offset >= last->old_offset + last->old_length);
        qr_assert(new_offset - (last->new_offset + last->new_length) == between);
        /* With gap 1 an equally long change must stay one, so that its bytes pair up. */
        if (between < d->gap &&
            (d->gap > 1 || (last->old_length == last->new_length && old_length == new_length))) {
            last->old_length = old_offset + old_length - last->old_offset;
            last->new_length = new_offset + new_length - last->new_offset;
            return 0;
        }
        rc = flush_change(d);
        if (rc != 0)
            return rc;
    }
    d->pending = (struct qr_change){old_offset, old_length, new_offset, new_length};
    d->has_pending = 1;
    return 0;
}

/* --- comparing bytes in memory --- */

/* Equally long ranges: the runs that differ. */
static int emit_runs(struct differ *d, const uint8_t *old, uint64_t old_offset, const uint8_t *new,
                     uint64_t new_offset, size_t length)
{
    struct qb_run runs[RUNS];
    size_t done = 0;
    int rc = 0;

    while (rc == 0 && done < length) {
        size_t scanned = 0;
        size_t count = qb_kernels()->diff_runs(old + done, new + done, length - done, d->gap, runs,
                                               RUNS, &scanned);
        for (size_t i = 0; rc == 0 && i < count; i++)
            rc = emit(d, old_offset + done + runs[i].offset, runs[i].length,
                      new_offset + done + runs[i].offset, runs[i].length);
        qr_assert(scanned > 0);
        done += scanned;
    }
    return rc;
}

/* One replaced range: exact at both ends; runs when it is equally long. */
static int emit_replaced(struct differ *d, const uint8_t *old, uint64_t old_offset,
                         uint64_t old_length, const uint8_t *new, uint64_t new_offset,
                         uint64_t new_length)
{
    if (old_length == new_length)
        return emit_runs(d, old, old_offset, new, new_offset, old_length);
    size_t common = smaller(old_length, new_length);
    size_t head = qb_kernels()->common_prefix(old, new, common);
    common -= head;
    size_t tail = qb_kernels()->common_suffix(old + old_length - common, new + new_length - common,
                                              common);
    return emit(d, old_offset + head, old_length - head - tail, new_offset + head,
                new_length - head - tail);
}

static int compare_window(struct differ *d, uint64_t old_offset, size_t old_length,
                          uint64_t new_offset, size_t new_length)
{
    struct qr_edits edits = {0};
    uint64_t old_at = 0, new_at = 0;
    int rc = qr_diff(d->old_bytes, old_length, d->new_bytes, new_length, INDEX_BYTES, &edits);

    /* Neighbouring edits are one replaced range: only the bytes between edits stay. */
    for (size_t i = 0; rc == 0 && i < edits.count;) {
        uint64_t from = edits.items[i].offset, end = from, put = 0;
        new_at += from - old_at;
        while (i < edits.count && edits.items[i].offset == end) {
            end += edits.items[i].old_length;
            put += edits.items[i].new_length;
            i++;
        }
        rc = emit_replaced(d, d->old_bytes + from, old_offset + from, end - from,
                           d->new_bytes + new_at, new_offset + new_at, put);
        old_at = end;
        new_at += put;
    }
    qr_edits_finish(&edits);
    return rc;
}

/* --- gaps --- */

struct gap {
    uint64_t old_offset, old_length, new_offset, new_length;
};

static int read_both(struct differ *d, uint64_t old_offset, size_t old_length, uint64_t new_offset,
                     size_t new_length)
{
    int rc = 0;
    if (!d->old_bytes) {
        d->old_bytes = qr_malloc(WINDOW);
        d->new_bytes = qr_malloc(WINDOW);
        if (!d->old_bytes || !d->new_bytes)
            return qr_fail(QALLOW_E_NO_MEMORY, "no memory to compare contents");
    }
    if (old_length > 0)
        rc = qr_content_read(d->reader, d->old, old_offset, d->old_bytes, old_length);
    if (rc == 0 && new_length > 0)
        rc = qr_content_read(d->reader, d->new, new_offset, d->new_bytes, new_length);
    return rc;
}

/* Both sides are holes over `length` bytes. */
static int both_zero(struct differ *d, uint64_t old_offset, uint64_t new_offset, uint64_t length)
{
    return length > 0 && qr_content_is_hole(d->old, old_offset, length) &&
           qr_content_is_hole(d->new, new_offset, length);
}

/* Removes equal bytes from the beginning of a gap, a window at a time. */
static int trim_front(struct differ *d, struct gap *g)
{
    for (;;) {
        uint64_t n = smaller(smaller(g->old_length, g->new_length), WINDOW), same = n;
        if (n == 0)
            return 0;
        if (!both_zero(d, g->old_offset, g->new_offset, n)) {
            int rc = read_both(d, g->old_offset, n, g->new_offset, n);
            if (rc < 0)
                return rc;
            same = qb_kernels()->common_prefix(d->old_bytes, d->new_bytes, n);
        }
        *g = (struct gap){g->old_offset + same, g->old_length - same, g->new_offset + same,
                          g->new_length - same};
        if (same < n)
            return 0;
    }
}

static int trim_back(struct differ *d, struct gap *g)
{
    for (;;) {
        uint64_t n = smaller(smaller(g->old_length, g->new_length), WINDOW), same = n;
        uint64_t old_offset = g->old_offset + g->old_length - n;
        uint64_t new_offset = g->new_offset + g->new_length - n;
        if (n == 0)
            return 0;
        if (!both_zero(d, old_offset, new_offset, n)) {
            int rc = read_both(d, old_offset, n, new_offset, n);
            if (rc < 0)
                return rc;
            same = qb_kernels()->common_suffix(d->old_bytes, d->new_bytes, n);
        }
        g->old_length -= same;
        g->new_length -= same;
        if (same < n)
            return 0;
    }
}

static int compare_gap(struct differ *d, struct gap g)
{
    int rc = 0;

    if (g.old_length > WINDOW || g.new_length > WINDOW) {
        rc = trim_front(d, &g);
        if (rc == 0)
            rc = trim_back(d, &g);
    }
    while (rc == 0 && g.old_length > 0 && g.new_length > 0) {
        uint64_t old_n = smaller(g.old_length, WINDOW), new_n = smaller(g.new_length, WINDOW);
        if (old_n != new_n || !both_zero(d, g.old_offset, g.new_offset, old_n)) {
            rc = read_both(d, g.old_offset, old_n, g.new_offset, new_n);
            if (rc == 0)
                rc = compare_window(d, g.old_offset, old_n, g.new_offset, new_n);
        }
        g = (struct gap){g.old_offset + old_n, g.old_length - old_n, g.new_offset + new_n,
                         g.new_length - new_n};
    }
    if (rc == 0)
        rc = emit(d, g.old_offset, g.old_length, g.new_offset, g.new_length);
    return rc;
}

/* --- alignment --- */

static int by_ref(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    if (x->ref != y->ref)
        return x->ref < y->ref ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static int sort_places(struct differ *d)
{
    uint64_t offset = 0;

    if (d->old->piece_count == 0)
        return 0;
    d->places = qr_malloc(d->old->piece_count * sizeof *d->places);
    if (!d->places)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory to compare contents");
    for (size_t i = 0; i < d->old->piece_count; i++) {
        const struct qr_piece *piece = &d->old->pieces[i];
        if (piece->ref != QR_REF_ZERO)
            d->places[d->place_count++] = (struct place){piece->ref, piece->length, offset};
        offset += piece->length;
    }
    qsort(d->places, d->place_count, sizeof *d->places, by_ref);
    return 0;
}

/* Of the old places that contain `ref`, the one that comes soonest at or after old offset `from`:
 * returns the old offset of ref, and in *length how far the two run together. UINT64_MAX: none. */
static uint64_t find_old(const struct differ *d, qr_ref ref, uint64_t from, uint64_t *length)
{
    size_t low = 0, high = d->place_count;
    uint64_t best = UINT64_MAX;

    while (low < high) { /* the first place behind ref */
        size_t middle = low + (high - low) / 2;
        if (d->places[middle].ref <= ref)
            low = middle + 1;
        else
            high = middle;
    }
    for (size_t tried = 0; low-- > 0 && tried < CANDIDATES; tried++) {
        const struct place *place = &d->places[low];
        if (qr_ref_frame(place->ref) != qr_ref_frame(ref))
            break;
        uint64_t inside = ref - place->ref;
        if (inside >= place->length || place->offset + inside < from)
            continue;
        if (place->offset + inside < best) {
            best = place->offset + inside;
            *length = place->length - inside;
        }
    }
    return best;
}

/* Walks over the new pieces; *old_at and *new_at are the end of the last anchor. */
static int align(struct differ *d, uint64_t *old_at, uint64_t *new_at)
{
    uint64_t offset = 0;
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < d->new->piece_count; i++) {
        struct qr_piece piece = d->new->pieces[i];
        while (rc == 0 && piece.ref != QR_REF_ZERO && piece.length > 0) {
            uint64_t length = 0;
            uint64_t found = find_old(d, piece.ref, *old_at, &length);
            if (found == UINT64_MAX)
                break;
            length = smaller(length, piece.length);
            rc = compare_gap(d, (struct gap){*old_at, found - *old_at, *new_at, offset - *new_at});
            *old_at = found + length;
            *new_at = offset + length;
            offset += length;
            piece.ref += length;
            piece.length -= length;
        }
        offset += piece.length;
    }
    return rc;
}

static int same_pieces(const struct qr_content *a, const struct qr_content *b)
{
    if (a->size != b->size || a->piece_count != b->piece_count)
        return 0;
    for (size_t i = 0; i < a->piece_count; i++)
        if (a->pieces[i].ref != b->pieces[i].ref || a->pieces[i].length != b->pieces[i].length)
            return 0;
    return 1;
}

int qr_content_diff(struct qr_reader *reader, struct qr_content *old, struct qr_content *new_,
                    size_t gap, qr_change_visitor visit, void *context)
{
    struct differ d = {.reader = reader, .old = old, .new = new_, .gap = gap, .visit = visit,
                       .context = context};
    uint64_t old_at = 0, new_at = 0;
    int rc;

    qr_assert(gap >= 1);
    if (same_pieces(old, new_))
        return 0;
    rc = sort_places(&d);
    if (rc == 0)
        rc = align(&d, &old_at, &new_at);
    if (rc == 0)
        rc = compare_gap(&d, (struct gap){old_at, old->size - old_at, new_at, new_->size - new_at});
    if (rc == 0)
        rc = flush_change(&d);
    qr_free(d.places);
    qr_free(d.old_bytes);
    qr_free(d.new_bytes);
    return rc;
}
