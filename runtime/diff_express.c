/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From matches to edits. What lies between two kept matches is a gap: some old bytes gave way to
 * some new ones. The new bytes of a gap are copies, zeros and literals, in pieces; each piece takes
 * the place of as many old bytes as it has itself, so that a change in place stays one, and the
 * last one takes the place of all that are left.
 */
#include "runtime/diff_internal.h"

struct filler {
    const struct qr_diff *d;
    struct qr_edits *out;
    size_t old_at, old_to;
    struct qr_edit last; /* not yet added */
};

static int flush_piece(struct filler *f, size_t old_length)
{
    struct qr_edit edit = f->last;
    edit.offset = f->old_at;
    edit.old_length = old_length;
    f->old_at += old_length;
    f->last = (struct qr_edit){0};
    if (edit.source == QR_COPY && edit.from == edit.offset && edit.new_length == old_length)
        return 0;
    return qr_edits_add(f->out, edit);
}

static int add_piece(struct filler *f, struct qr_edit piece)
{
    int result = 0;
    if (f->last.new_length)
        result = flush_piece(f, qr_min(f->last.new_length, f->old_to - f->old_at));
    f->last = piece;
    return result;
}

static int add_literal(struct filler *f, size_t from, size_t to)
{
    if (from == to)
        return 0;
    return add_piece(f, (struct qr_edit){.source = QR_LITERAL,
                                         .new_length = to - from,
                                         .bytes = f->d->new_ + from});
}

/* The next run of QR_DIFF_ZEROS_MIN zeros or more in [from, to) of the new content; `to` if there
 * is none. Such a run covers a whole stretch of half that length wherever stretches are cut. */
static size_t find_zeros(const struct qr_diff *d, size_t from, size_t to, size_t *length)
{
    enum { STRETCH = QR_DIFF_ZEROS_MIN / 2 };
    for (size_t at = from; to - at >= STRETCH; at += STRETCH) {
        if (qr_load64(d->new_ + at) | qr_load64(d->new_ + at + 8))
            continue;
        size_t start = at;
        while (start > from && d->new_[start - 1] == 0)
            start--;
        *length = (at - start) + qr_diff_zeros_at(d, at, to);
        if (*length >= QR_DIFF_ZEROS_MIN)
            return start;
        at = start + *length - *length % STRETCH;
        if (to - at < STRETCH)
            break;
    }
    *length = 0;
    return to;
}

/* New bytes that are found nowhere: literals, and zeros. */
static int add_new(struct filler *f, size_t from, size_t to)
{
    int result = 0;
    while (from < to && result == 0) {
        size_t length, zeros = find_zeros(f->d, from, to, &length);
        result = add_literal(f, from, zeros);
        if (result == 0 && length)
            result = add_piece(f, (struct qr_edit){.source = QR_ZEROS, .new_length = length});
        from = zeros + length;
    }
    return result;
}

/* A gap in which `count` matches lie that are not kept. */
static int fill(const struct qr_diff *d, struct qr_diff_range gap,
                const struct qr_diff_match *matches, size_t count, struct qr_edits *out)
{
    struct filler f = {.d = d, .out = out, .old_at = gap.old_from, .old_to = gap.old_to};
    int result = 0;
    size_t at = gap.new_from;
    for (size_t i = 0; i < count && result == 0; i++) {
        const struct qr_diff_match *m = &matches[i];
        if (m->length < QR_DIFF_COPY_MIN)
            continue;
        result = add_new(&f, at, m->new_at);
        if (result == 0)
            result = add_piece(
                &f,
                (struct qr_edit){.source = QR_COPY, .new_length = m->length, .from = m->old_at});
        at = m->new_at + m->length;
    }
    if (result == 0)
        result = add_new(&f, at, gap.new_to);
    if (result == 0)
        result = flush_piece(&f, f.old_to - f.old_at);
    return result;
}

/* Drops what is equal at the ends of a gap: where an accidental match was not kept, its neighbours
 * may now reach further. */
static struct qr_diff_range tightened(const struct qr_diff *d, struct qr_diff_range gap)
{
    size_t most = qr_min(gap.old_to - gap.old_from, gap.new_to - gap.new_from);
    size_t front = d->kernels->common_prefix(d->old + gap.old_from, d->new_ + gap.new_from, most);
    most -= front;
    size_t back =
        d->kernels->common_suffix(d->old + gap.old_to - most, d->new_ + gap.new_to - most, most);
    return (struct qr_diff_range){gap.old_from + front, gap.old_to - back, gap.new_from + front,
                                  gap.new_to - back, 0};
}

/* Steps through the gaps of a range: start with *next == 0 and gap->old_to, new_to at the start of
 * the range. The matches in [*first, *next - 1) lie in the gap. 0 after the last gap. */
static int next_gap(const struct qr_diff *d, const struct qr_diff_range *range,
                    struct qr_diff_range *gap, size_t *first, size_t *next)
{
    if (*next > d->match_count)
        return 0;
    size_t end = 0; /* of the kept match before the gap */
    if (*next)
        end = d->matches[*next - 1].length;
    gap->old_from = gap->old_to + end;
    gap->new_from = gap->new_to + end;
    *first = *next;
    while (*next < d->match_count && !d->matches[*next].kept)
        ++*next;
    int last = *next == d->match_count;
    gap->old_to = last ? range->old_to : d->matches[*next].old_at;
    gap->new_to = last ? range->new_to : d->matches[*next].new_at;
    ++*next;
    return 1;
}

/* Joins a gap to the one before it if only a short match lies between them and one of the two is to
 * be searched: the match may be an accident inside something moved. If not, it is found again. */
static int joined(struct qr_diff_range *last, const struct qr_diff_range *gap)
{
    if (gap->new_from - last->new_to >= QR_DIFF_COPY_MIN || !(last->search || gap->search))
        return 0;
    last->old_to = gap->old_to;
    last->new_to = gap->new_to;
    last->search = 1;
    return 1;
}

int qr_diff_gaps(const struct qr_diff *d, const struct qr_diff_range *range,
                 struct qr_diff_ranges *gaps)
{
    struct qr_diff_range gap = {.old_to = range->old_from, .new_to = range->new_from};
    size_t first, next = 0, begin = gaps->count;
    int result = 0;
    while (result == 0 && next_gap(d, range, &gap, &first, &next)) {
        struct qr_diff_range part = tightened(d, gap);
        part.search = part.new_to - part.new_from >= QR_DIFF_COPY_MIN;
        if (part.old_to == part.old_from && part.new_to == part.new_from)
            continue;
        if (gaps->count == begin || !joined(&gaps->items[gaps->count - 1], &part))
            result = qr_diff_add_range(gaps, part);
    }
    return result;
}

static int any_pays(const struct qr_diff_match *matches, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (matches[i].length >= QR_DIFF_COPY_MIN)
            return 1;
    return 0;
}

int qr_diff_express(struct qr_diff *d, const struct qr_diff_range *range, struct qr_edits *out)
{
    struct qr_diff_range gap = {.old_to = range->old_from, .new_to = range->new_from};
    size_t first, next = 0;
    int result = 0;
    while (result == 0 && next_gap(d, range, &gap, &first, &next)) {
        size_t count = next - 1 - first;
        const struct qr_diff_match *between = count ? d->matches + first : NULL;
        if (count == 0 || any_pays(between, count))
            result = fill(d, gap, between, count, out);
        else
            result = fill(d, tightened(d, gap), NULL, 0, out);
    }
    return result;
}
