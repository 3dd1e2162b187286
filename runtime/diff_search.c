/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Matches of a range, by one walk through its new bytes. From where the last match ended, first the
 * present alignment is tried again (a changed word), then the index is asked at each position (an
 * insertion, a removal, a move). A match is extended both ways, and may swallow short accidental
 * ones before it.
 *
 * Nearby, the index covers only a window of the old bytes ahead. Most matches are found within the
 * first few KiB, so the rest of a large content is never indexed at all; where nothing is found the
 * window grows fourfold, so that the work stays in proportion to the distance.
 *
 * Where nothing matches for long, the walk begins to skip: it looks at a part of the new bytes and
 * passes over as much as a sixteenth of the unmatched stretch. A common part longer than that is
 * still found, from end to end.
 *
 * All is linear: of a list of candidates only the nearest few are compared, a constant number on
 * average, whatever the content.
 */
#include "runtime/diff_internal.h"
#include "runtime/error.h"
#include "runtime/os.h"

enum {
    ALIGNED_WINDOW = 256, /* how far ahead the present alignment is tried again */
    SWALLOW_MAX = 256,    /* longest match that a better one may swallow */
    RECENT = 4,           /* matches looked back at */
    NEAREST = 3,          /* places of a key that are compared */
    LOST = 8,             /* the same for each match of a row, and to be looked at around it */
    LONG_MATCH = 2048,    /* such a one is no accident */
    WINDOW_MIN = 4 << 10,
    WINDOW_GROWTH = 4,
    STEP = 4 << 10,   /* bytes looked at before each skip */
    QUIET = 64 << 10, /* unmatched bytes before the first skip */
    SKIP_PART = 16,
};

struct place {
    size_t old_at, new_at;
};

/* The old bytes that the index covers at the moment. */
struct window {
    size_t from, length;
};

static int in_range(const struct qr_diff_range *range, size_t old_at)
{
    return old_at >= range->old_from && old_at < range->old_to;
}

/* How far a match that begins at `old_at` may reach: kept bytes end with the range. */
static size_t old_limit(const struct qr_diff *d, const struct qr_diff_range *range, size_t old_at)
{
    return in_range(range, old_at) ? range->old_to : d->old_end;
}

static size_t extend_forward(const struct qr_diff *d, const struct qr_diff_range *range,
                             size_t old_at, size_t new_at)
{
    size_t most = qr_min(old_limit(d, range, old_at) - old_at, range->new_to - new_at);
    return d->kernels->common_prefix(d->old + old_at, d->new_ + new_at, most);
}

/* The present alignment: where the last match ended, or the range begins. */
static struct place alignment(const struct qr_diff *d, const struct qr_diff_range *range)
{
    if (d->match_count == 0)
        return (struct place){range->old_from, range->new_from};
    const struct qr_diff_match *last = &d->matches[d->match_count - 1];
    return (struct place){last->old_at + last->length, last->new_at + last->length};
}

/* After a few changed bytes, does the present alignment go on? */
static int resume_aligned(const struct qr_diff *d, const struct qr_diff_range *range,
                          struct place at, struct qr_diff_match *found)
{
    size_t most = qr_min(old_limit(d, range, at.old_at) - at.old_at, range->new_to - at.new_at);
    struct qb_run run = {0, 0};
    size_t scanned;
    d->kernels->diff_runs(d->old + at.old_at, d->new_ + at.new_at, qr_min(most, ALIGNED_WINDOW),
                          QR_DIFF_GAP, &run, 1, &scanned);
    size_t skip = run.offset ? 0 : run.length;
    *found = (struct qr_diff_match){.new_at = at.new_at + skip, .old_at = at.old_at + skip};
    found->length = extend_forward(d, range, found->old_at, found->new_at);
    return found->length >= QR_DIFF_GAP;
}

static void keep_longer(const struct qr_diff *d, const struct qr_diff_range *range, size_t old_at,
                        size_t new_at, struct qr_diff_match *found)
{
    if (old_at > d->old_end || d->old_end - old_at < QR_KEY_LENGTH ||
        memcmp(d->old + old_at, d->new_ + new_at, QR_KEY_LENGTH) != 0)
        return;
    size_t length = extend_forward(d, range, old_at, new_at);
    if (length > found->length)
        *found = (struct qr_diff_match){new_at, old_at, length, 0};
}

static void begin_row(struct qr_diff *d, size_t old_at, size_t new_at)
{
    d->row = (struct qr_diff_row){old_at, new_at, 0, 1};
}

/* A row of short matches is either what there is, or the walk was led astray among parts that occur
 * many times. Then the way back is not far from the alignment before the row: the longer the row,
 * the farther it is looked for. As this happens at each doubling only, it costs a constant for each
 * match. */
static int is_lost(const struct qr_diff *d) { return d->row.length >= d->row.next_look; }

/* Where `new_at` would stand had nothing changed since the row began. */
static size_t before_the_row(const struct qr_diff *d, const struct qr_diff_range *range,
                             size_t new_at)
{
    return qr_min(d->row.old_at + (new_at - d->row.new_at), range->old_to);
}

static void try_places(const struct qr_diff *d, const struct qr_diff_range *range, size_t near,
                       size_t most, size_t new_at, struct qr_diff_match *found)
{
    struct qr_block_places places;
    size_t old_at;
    qr_block_index_near(&d->index, d->new_ + new_at, near, &places);
    for (size_t n = 0; n < most && qr_block_places_next(&places, &old_at); n++) {
        if (n >= NEAREST && found->length >= LONG_MATCH)
            break;
        keep_longer(d, range, old_at, new_at, found);
    }
}

/* The present alignment if it holds here, else the longest of the places nearest to it. */
static int match_at(struct qr_diff *d, const struct qr_diff_range *range, struct place at,
                    size_t new_at, struct qr_diff_match *found)
{
    *found = (struct qr_diff_match){0};
    keep_longer(d, range, at.old_at + (new_at - at.new_at), new_at, found);
    if (found->length >= QR_KEY_LENGTH)
        return 1;
    try_places(d, range, at.old_at, NEAREST, new_at, found);
    if (is_lost(d) && found->length < LONG_MATCH) {
        try_places(d, range, before_the_row(d, range, new_at), LOST * d->row.length, new_at, found);
        d->row.next_look = 2 * d->row.length;
    }
    return found->length >= QR_KEY_LENGTH;
}

/* The next position in [at, new_to) of the new content that the index knows. */
static int ask_index(struct qr_diff *d, const struct qr_diff_range *range, struct place at,
                     size_t new_to, struct qr_diff_match *found)
{
    if (d->index.count == 0 || new_to - at.new_at < QR_KEY_LENGTH)
        return 0;
    size_t end = new_to - QR_KEY_LENGTH + 1, step_end = qr_min(end, at.new_at + STEP);
    for (size_t p = at.new_at; p < end;) {
        size_t hit = qr_block_index_next(&d->index, d->new_, p, step_end);
        if (hit < step_end) {
            if (match_at(d, range, at, hit, found))
                return 1;
            size_t zeros = qr_diff_zeros_at(d, hit, new_to);
            p = hit + 1 + (zeros >= QR_KEY_LENGTH ? zeros - QR_KEY_LENGTH : 0);
        }
        if (hit == step_end || p >= step_end) {
            p = p > step_end ? p : step_end;
            size_t quiet = p - at.new_at;
            p += quiet > QUIET ? quiet / SKIP_PART : 0;
            step_end = qr_min(end, p + STEP);
        }
    }
    return 0;
}

/* --- adding a match --- */

/* The old position that a match must not extend below: the end of what is kept before it. */
static size_t old_floor(const struct qr_diff *d, const struct qr_diff_range *range, size_t matches,
                        size_t old_at)
{
    size_t floor = in_range(range, old_at) ? range->old_from : 0;
    if (d->row.old_at > floor && d->row.old_at <= old_at)
        floor = d->row.old_at;
    for (size_t i = matches; i > 0 && matches - i < RECENT; i--) {
        size_t end = d->matches[i - 1].old_at + d->matches[i - 1].length;
        if (end <= old_at && end > floor)
            floor = end;
    }
    return floor;
}

/* How far `m` extends backwards if only the first `matches` stay before it, and whether it could
 * perhaps go on were it not for them. */
static size_t extend_backward(const struct qr_diff *d, const struct qr_diff_range *range,
                              const struct qr_diff_match *m, size_t matches, size_t most,
                              int *stopped)
{
    size_t new_floor = range->new_from;
    if (matches)
        new_floor = d->matches[matches - 1].new_at + d->matches[matches - 1].length;
    size_t room =
        qr_min(m->old_at - old_floor(d, range, matches, m->old_at), m->new_at - new_floor);
    room = qr_min(room, most);
    size_t length =
        d->kernels->common_suffix(d->old + m->old_at - room, d->new_ + m->new_at - room, room);
    *stopped = length == room;
    return length;
}

/* How many short matches before `m` are better dropped: accidents that stand in its way, and that
 * its extension would make up for. */
static size_t in_the_way(const struct qr_diff *d, const struct qr_diff_range *range,
                         const struct qr_diff_match *m)
{
    size_t lost = 0;
    int stopped;
    for (size_t n = 1; n <= RECENT && n <= d->match_count; n++) {
        size_t length = d->matches[d->match_count - n].length;
        lost += length;
        if (length > SWALLOW_MAX)
            break;
        if (extend_backward(d, range, m, d->match_count - n, 2 * lost, &stopped) >= lost)
            return n;
    }
    return 0;
}

/* The last long match may have run a little too far, into old bytes that are this one's. Both can
 * stay in place only if they share nothing. */
static void trim(const struct qr_diff *d, const struct qr_diff_range *range,
                 struct qr_diff_match *m)
{
    if (!in_range(range, m->old_at) || m->old_at >= d->row.old_at)
        return;
    size_t shared = d->row.old_at - m->old_at;
    if (shared >= m->length / 2)
        return;
    m->old_at += shared;
    m->new_at += shared;
    m->length -= shared;
}

/* Appends a match, extended backwards. */
static int add_match(struct qr_diff *d, const struct qr_diff_range *range, struct qr_diff_match m)
{
    for (;;) {
        int stopped;
        size_t length = extend_backward(d, range, &m, d->match_count, SIZE_MAX, &stopped);
        m.new_at -= length;
        m.old_at -= length;
        m.length += length;
        size_t dropped = stopped ? in_the_way(d, range, &m) : 0;
        if (dropped == 0)
            break;
        d->match_count -= dropped;
    }
    trim(d, range, &m);
    if (m.length < LONG_MATCH)
        d->row.length++;
    else
        begin_row(d, m.old_at + m.length, m.new_at + m.length);
    int result = QR_GROW(d->matches, d->match_count, d->match_capacity);
    if (result == 0)
        d->matches[d->match_count++] = m;
    return result;
}

/* --- the two walks --- */

int qr_diff_search_everywhere(struct qr_diff *d, const struct qr_diff_range *range)
{
    struct place at = {range->old_from, range->new_from};
    begin_row(d, range->old_from, range->new_from);
    struct qr_diff_match m;
    int result = 0;
    d->old_end = d->old_length;
    while (result == 0 && at.new_at < range->new_to &&
           (resume_aligned(d, range, at, &m) || ask_index(d, range, at, range->new_to, &m))) {
        result = add_match(d, range, m);
        at = alignment(d, range);
    }
    return result;
}

static int move_window(struct qr_diff *d, const struct qr_diff_range *range, size_t old_at,
                       size_t length, struct window *w)
{
    size_t back = qr_min(old_at - range->old_from, length / WINDOW_GROWTH);
    struct qr_block_range part = {old_at - back, 0};
    part.to = part.from + qr_min(range->old_to - part.from, back + length);
    *w = (struct window){part.from, length};
    return qr_block_index_build(&d->index, d->old, &part, 1, d->max_index_bytes);
}

/* 1 with a match, 0 if there is none in the rest of the range, or an error. */
static int find_nearby(struct qr_diff *d, const struct qr_diff_range *range, struct place at,
                       struct window *w, struct qr_diff_match *found)
{
    size_t length = WINDOW_MIN;
    if (is_lost(d)) {
        length = WINDOW_MIN * d->row.length;
        int result = move_window(d, range, before_the_row(d, range, at.new_at), length, w);
        if (result)
            return result;
    } else if (w->length && at.old_at >= w->from && at.old_at - w->from <= w->length / 2) {
        length = w->length;
    } else {
        int result = move_window(d, range, at.old_at, length, w);
        if (result)
            return result;
    }
    for (;;) {
        size_t ahead = range->new_to - at.new_at;
        if (ask_index(d, range, at, at.new_at + qr_min(ahead, length), found))
            return 1;
        if (length >= ahead && length >= range->old_to - at.old_at)
            return 0;
        length = length < SIZE_MAX / WINDOW_GROWTH ? length * WINDOW_GROWTH : SIZE_MAX;
        int result = move_window(d, range, at.old_at, length, w);
        if (result)
            return result;
    }
}

int qr_diff_search_nearby(struct qr_diff *d, const struct qr_diff_range *range)
{
    struct place at = {range->old_from, range->new_from};
    struct window window = {0, 0};
    struct qr_diff_match m;
    begin_row(d, range->old_from, range->new_from);
    d->old_end = range->old_to;
    while (at.new_at < range->new_to && at.old_at < range->old_to) {
        int found = resume_aligned(d, range, at, &m);
        if (!found)
            found = find_nearby(d, range, at, &window, &m);
        if (found <= 0)
            return found;
        int result = add_match(d, range, m);
        if (result)
            return result;
        at = alignment(d, range);
    }
    return 0;
}
