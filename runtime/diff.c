/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The difference of two byte strings; docs/delta.md tells it at length.
 *
 *   rough       Equal ends are dropped. Inputs of one size are compared in place: short differences
 *               are final, long ones may hide a shift or a move. Of two sizes, the whole middle is
 *               one difference.
 *   nearby      Within each difference, matches are looked for around the present alignment; the
 *               heaviest chain of them that ascends in both contents is kept. (diff_search.c,
 *               diff_choose.c)
 *   everywhere  What lies between the matches, in all differences together, is looked for in all
 *               old bytes that lost their place: these are the moves. They become copies.
 *   express     Everything becomes edits; zeros are taken out of literals. (diff_express.c)
 *
 * Time is linear in what differs, but for the order of matches, O(m log m) where it is disturbed.
 */
#include "runtime/delta.h"

#include "runtime/diff_internal.h"
#include "runtime/error.h"
#include "runtime/os.h"

enum {
    CLUSTER_GAP = 64, /* differences nearer than this are looked at together */
    SEARCH_MIN = 256, /* a difference in place shorter than this is not searched */
    RUNS_MAX = 256,
    REACH = 8, /* the original of an insertion is looked for so many times its length around */
    TWICE_MAX = 1 << 20, /* larger ranges are not searched again if nothing was found in them */
};

size_t qr_diff_zeros_at(const struct qr_diff *d, size_t new_at, size_t end)
{
    const uint8_t *p = d->new_ + new_at;
    return *p ? 0 : 1 + d->kernels->common_prefix(p, p + 1, end - new_at - 1);
}

int qr_diff_add_range(struct qr_diff_ranges *ranges, struct qr_diff_range range)
{
    int result = QR_GROW(ranges->items, ranges->count, ranges->capacity);
    if (result == 0)
        ranges->items[ranges->count++] = range;
    return result;
}

/* --- rough --- */

/* Differences that lie close together. */
struct cluster {
    size_t first; /* its first range */
    size_t from, to;
    size_t changed;
};

/* A long cluster that is mostly changed becomes one range to be searched. */
static void close_cluster(struct qr_diff_ranges *ranges, const struct cluster *c)
{
    size_t length = c->to - c->from;
    if (length < SEARCH_MIN || c->changed < length / 2)
        return;
    ranges->items[c->first] = (struct qr_diff_range){c->from, c->to, c->from, c->to, 1};
    ranges->count = c->first + 1;
}

/* Differences of [from, to) in place. */
static int compare_in_place(const struct qr_diff *d, size_t from, size_t to,
                            struct qr_diff_ranges *ranges)
{
    struct qb_run runs[RUNS_MAX];
    struct cluster c = {0, from, from, 0};
    for (size_t at = from, scanned; at < to; at += scanned) {
        size_t count = d->kernels->diff_runs(d->old + at, d->new_ + at, to - at, QR_DIFF_GAP, runs,
                                             RUNS_MAX, &scanned);
        for (size_t i = 0; i < count; i++) {
            size_t start = at + runs[i].offset, end = start + runs[i].length;
            if (start - c.to >= CLUSTER_GAP || ranges->count == 0) {
                close_cluster(ranges, &c);
                c = (struct cluster){ranges->count, start, start, 0};
            }
            int result =
                qr_diff_add_range(ranges, (struct qr_diff_range){start, end, start, end, 0});
            if (result)
                return result;
            c.to = end;
            c.changed += runs[i].length;
        }
    }
    close_cluster(ranges, &c);
    return 0;
}

static int compare(const struct qr_diff *d, struct qr_diff_ranges *ranges)
{
    size_t shorter = qr_min(d->old_length, d->new_length);
    size_t front = d->kernels->common_prefix(d->old, d->new_, shorter);
    if (front == shorter && d->old_length == d->new_length)
        return 0;
    size_t back =
        d->kernels->common_suffix(d->old + (d->old_length - shorter) + front,
                                  d->new_ + (d->new_length - shorter) + front, shorter - front);
    size_t old_to = d->old_length - back, new_to = d->new_length - back;
    if (old_to == new_to)
        return compare_in_place(d, front, old_to, ranges);
    return qr_diff_add_range(ranges, (struct qr_diff_range){front, old_to, front, new_to, 1});
}

/* --- nearby --- */

/* Is there hardly anything to search but what was searched already, in vain? */
static int seen_enough(const struct qr_diff_range *range)
{
    size_t old_length = range->old_to - range->old_from;
    size_t new_length = range->new_to - range->new_from;
    return new_length >= TWICE_MAX && old_length >= new_length / 2;
}

/* Replaces the ranges to be searched by the gaps that are left in them. */
static int search_nearby(struct qr_diff *d, const struct qr_diff_ranges *ranges,
                         struct qr_diff_ranges *gaps)
{
    int result = 0;
    for (size_t i = 0; i < ranges->count && result == 0; i++) {
        struct qr_diff_range range = ranges->items[i];
        if (!range.search) {
            result = qr_diff_add_range(gaps, range);
            continue;
        }
        d->match_count = 0;
        result = qr_diff_search_nearby(d, &range);
        if (result == 0 && d->match_count)
            result = qr_diff_choose(d, &range);
        if (result == 0)
            result = qr_diff_gaps(d, &range, gaps);
        if (result == 0 && ranges->count == 1 && gaps->count == 1 && d->match_count == 0 &&
            seen_enough(&range))
            gaps->items[gaps->count - 1].search = 0;
    }
    return result;
}

/* --- everywhere --- */

/* Where the original of a gap's new bytes may be: in its old bytes and around them. */
static struct qr_block_range surroundings(const struct qr_diff *d, const struct qr_diff_range *gap)
{
    size_t length = gap->new_to - gap->new_from;
    size_t reach = !gap->search ? 0 : length < SIZE_MAX / REACH ? length * REACH : SIZE_MAX;
    return (struct qr_block_range){gap->old_from - qr_min(gap->old_from, reach),
                                   gap->old_to + qr_min(d->old_length - gap->old_to, reach)};
}

/* The parts of the old content worth an index: what the gaps lost, and their surroundings. */
static size_t parts_of(const struct qr_diff *d, const struct qr_diff_ranges *gaps,
                       struct qr_block_range *parts)
{
    size_t count = 0;
    for (size_t i = 0; i < gaps->count; i++) {
        struct qr_block_range part = surroundings(d, &gaps->items[i]);
        if (part.to - part.from < QR_KEY_LENGTH)
            continue;
        for (; count && parts[count - 1].to >= part.from; count--) {
            part.from = qr_min(part.from, parts[count - 1].from);
            part.to = part.to > parts[count - 1].to ? part.to : parts[count - 1].to;
        }
        parts[count++] = part;
    }
    return count;
}

static int any_search(const struct qr_diff_ranges *ranges)
{
    for (size_t i = 0; i < ranges->count; i++)
        if (ranges->items[i].search)
            return 1;
    return 0;
}

static int build_index(struct qr_diff *d, const struct qr_diff_ranges *gaps)
{
    d->index.count = 0;
    if (!any_search(gaps))
        return 0;
    struct qr_block_range *parts = qr_malloc(gaps->count * sizeof *parts);
    if (!parts)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a difference of %zu parts", gaps->count);
    int result = qr_block_index_build(&d->index, d->old, parts, parts_of(d, gaps, parts),
                                      d->max_index_bytes);
    qr_free(parts);
    return result;
}

static int is_short_overwrite(const struct qr_diff_range *gap)
{
    size_t length = gap->new_to - gap->new_from;
    return length < QR_DIFF_ZEROS_MIN && length == gap->old_to - gap->old_from;
}

static int express_gap(struct qr_diff *d, const struct qr_diff_range *gap, struct qr_edits *out)
{
    int result = 0;
    if (is_short_overwrite(gap)) /* the bulk of a sparse change */
        return qr_edits_add(out, (struct qr_edit){.offset = gap->old_from,
                                                  .old_length = gap->old_to - gap->old_from,
                                                  .new_length = gap->new_to - gap->new_from,
                                                  .bytes = d->new_ + gap->new_from});
    d->match_count = 0;
    if (gap->search && d->index.count)
        result = qr_diff_search_everywhere(d, gap);
    if (result == 0 && d->match_count)
        result = qr_diff_choose(d, gap);
    if (result == 0)
        result = qr_diff_express(d, gap, out);
    return result;
}

int qr_diff(const uint8_t *old, size_t old_length, const uint8_t *new_, size_t new_length,
            size_t max_index_bytes, struct qr_edits *list)
{
    static const uint8_t nothing[1]; /* so that no arithmetic is done on NULL */
    struct qr_diff d = {.old = old_length ? old : nothing,
                        .new_ = new_length ? new_ : nothing,
                        .old_length = old_length,
                        .new_length = new_length,
                        .max_index_bytes = max_index_bytes,
                        .kernels = qb_kernels()};
    struct qr_diff_ranges ranges = {0}, gaps = {0};
    const struct qr_diff_ranges *left = &ranges;
    int result = compare(&d, &ranges);
    if (result == 0 && any_search(&ranges)) {
        left = &gaps;
        result = search_nearby(&d, &ranges, &gaps);
        if (result == 0)
            result = build_index(&d, &gaps);
    }
    for (size_t i = 0; i < left->count && result == 0; i++)
        result = express_gap(&d, &left->items[i], list);
    qr_block_index_finish(&d.index);
    qr_free(d.matches);
    qr_free(ranges.items);
    qr_free(gaps.items);
    return result;
}
