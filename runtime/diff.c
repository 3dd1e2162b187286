/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The difference of two byte strings; docs/delta.md tells it at length.
 *
 *   rough    Equal ends are dropped. Inputs of one size are compared in place: short differences
 *            are final, long ones may hide a shift or a move. Of two sizes, the whole middle is one
 *            difference.
 *   search   The old bytes of all long differences go into one block index. Each difference is then
 *            walked in the new content: first the present alignment is tried again (a changed
 *            word), then the index (an insertion, a move). A match found is extended both ways and
 *            may swallow a short accidental one before it.
 *   choose   Of the matches of a difference, the heaviest chain that ascends in both contents stays
 *            in place. The others become copies if they are long enough to pay, else literal bytes.
 *   express  What lies between kept matches becomes edits; zeros are taken out of literals.
 *
 * Everything is linear but the choice, which is O(m log m) in matches out of order. No candidate
 * list is walked, no extension repeated over the same bytes more than a constant number of times.
 */
#include <stdlib.h>

#include "backend/kernels.h"
#include "runtime/block_index.h"
#include "runtime/delta.h"
#include "runtime/error.h"
#include "runtime/os.h"

enum {
    GAP = 16,             /* fewer equal bytes between two changed ones are not worth two edits */
    CLUSTER_GAP = 64,     /* differences nearer than this are looked at together */
    SEARCH_MIN = 256,     /* a difference in place shorter than this is not searched */
    ALIGNED_WINDOW = 256, /* how far ahead the present alignment is tried again */
    COPY_MIN = 64,        /* bytes that a copy must save */
    ZEROS_MIN = 32,       /* of literal bytes that become QR_ZEROS */
    SWALLOW_MAX = 256,    /* longest match that a better one may swallow */
    RECENT = 4,           /* matches looked back at for the place where kept bytes end */
    RUNS_MAX = 256,
    REACH = 8, /* an insertion is looked for within so many times its length around it */
    SCAN_STEP = 4096,
    QUIET = 1 << 20, /* without any match for so long, the scan begins to skip */
    SKIP_MAX = 60 << 10,
};

/* A difference: [old_from, old_to) became [new_from, new_to). */
struct range {
    size_t old_from, old_to, new_from, new_to;
    int search;
};

struct match {
    size_t new_at, old_at, length;
    int kept;
};

struct place {
    size_t old_at, new_at;
};

struct diff {
    const uint8_t *old, *new_;
    size_t old_length, new_length;
    const struct qb_kernels *kernels;
    struct range *ranges;
    size_t range_count, range_capacity;
    struct qr_block_index index;
    struct match *matches; /* of the range at hand, ascending in the new content */
    size_t match_count, match_capacity;
    struct qr_edits *out;
};

static size_t min(size_t a, size_t b) { return a < b ? a : b; }

static int no_memory(size_t length)
{
    return qr_fail(QALLOW_E_NO_MEMORY, "no memory to compare %zu bytes", length);
}

/* Makes room for one more item. */
static int reserve(const struct diff *d, void **items, size_t count, size_t *capacity, size_t size)
{
    if (count < *capacity)
        return 0;
    size_t more = *capacity ? *capacity * 2 : 64;
    if (more > SIZE_MAX / size)
        return no_memory(d->new_length);
    void *grown = qr_realloc(*items, more * size);
    if (!grown)
        return no_memory(d->new_length);
    *items = grown;
    *capacity = more;
    return 0;
}

/* --- rough --- */

static int add_range(struct diff *d, struct range range)
{
    int result =
        reserve(d, (void **)&d->ranges, d->range_count, &d->range_capacity, sizeof *d->ranges);
    if (result == 0)
        d->ranges[d->range_count++] = range;
    return result;
}

/* Differences that lie close together. */
struct cluster {
    size_t first; /* its first range */
    size_t from, to;
    size_t changed;
};

/* A long cluster that is mostly changed becomes one range to be searched. */
static void close_cluster(struct diff *d, const struct cluster *c)
{
    size_t length = c->to - c->from;
    if (length < SEARCH_MIN || c->changed < length / 2)
        return;
    d->ranges[c->first] = (struct range){c->from, c->to, c->from, c->to, 1};
    d->range_count = c->first + 1;
}

/* Differences of [from, to) in place. */
static int compare_in_place(struct diff *d, size_t from, size_t to)
{
    struct qb_run runs[RUNS_MAX];
    struct cluster c = {0, from, from, 0};
    for (size_t at = from, scanned; at < to; at += scanned) {
        size_t count = d->kernels->diff_runs(d->old + at, d->new_ + at, to - at, GAP, runs,
                                             RUNS_MAX, &scanned);
        for (size_t i = 0; i < count; i++) {
            size_t start = at + runs[i].offset, end = start + runs[i].length;
            if (start - c.to >= CLUSTER_GAP || d->range_count == 0) {
                close_cluster(d, &c);
                c = (struct cluster){d->range_count, start, start, 0};
            }
            int result = add_range(d, (struct range){start, end, start, end, 0});
            if (result)
                return result;
            c.to = end;
            c.changed += runs[i].length;
        }
    }
    close_cluster(d, &c);
    return 0;
}

/* Finds the ranges. */
static int compare(struct diff *d)
{
    size_t shorter = min(d->old_length, d->new_length);
    size_t front = d->kernels->common_prefix(d->old, d->new_, shorter);
    if (front == shorter && d->old_length == d->new_length)
        return 0;
    size_t back =
        d->kernels->common_suffix(d->old + (d->old_length - shorter) + front,
                                  d->new_ + (d->new_length - shorter) + front, shorter - front);
    size_t old_to = d->old_length - back, new_to = d->new_length - back;
    if (old_to == new_to)
        return compare_in_place(d, front, old_to);
    return add_range(d,
                     (struct range){front, old_to, front, new_to, new_to - front >= QR_KEY_LENGTH});
}

/* --- search --- */

/* The index over all ranges to be searched. A single insertion also looks around itself, where the
 * original of what was pasted may be. */
static int build_index(struct diff *d, size_t max_bytes)
{
    struct qr_block_range *parts = NULL;
    size_t count = 0;
    for (size_t i = 0; i < d->range_count; i++)
        count += (size_t)d->ranges[i].search;
    if (count == 0)
        return 0;
    parts = qr_malloc(count * sizeof *parts);
    if (!parts)
        return no_memory(d->new_length);
    count = 0;
    for (size_t i = 0; i < d->range_count; i++) {
        const struct range *range = &d->ranges[i];
        if (range->search)
            parts[count++] = (struct qr_block_range){range->old_from, range->old_to};
    }
    if (d->old_length != d->new_length) {
        size_t inserted = d->ranges[0].new_to - d->ranges[0].new_from;
        size_t reach = inserted < SIZE_MAX / REACH ? inserted * REACH : SIZE_MAX;
        parts[0].from -= min(parts[0].from, reach);
        parts[0].to += min(d->old_length - parts[0].to, reach);
    }
    int result = qr_block_index_init(&d->index, d->old, parts, count, max_bytes);
    qr_free(parts);
    return result;
}

/* How far a match that begins at `old_at` may reach: kept bytes end with the range. */
static size_t old_limit(const struct diff *d, const struct range *range, size_t old_at)
{
    return old_at >= range->old_from && old_at < range->old_to ? range->old_to : d->old_length;
}

static size_t extend_forward(const struct diff *d, const struct range *range, size_t old_at,
                             size_t new_at)
{
    size_t most = min(old_limit(d, range, old_at) - old_at, range->new_to - new_at);
    return d->kernels->common_prefix(d->old + old_at, d->new_ + new_at, most);
}

/* The present alignment: where the last match ended, or the range begins. */
static struct place alignment(const struct diff *d, const struct range *range)
{
    if (d->match_count == 0)
        return (struct place){range->old_from, range->new_from};
    const struct match *last = &d->matches[d->match_count - 1];
    return (struct place){last->old_at + last->length, last->new_at + last->length};
}

/* After a few changed bytes, does the present alignment go on? */
static int resume_aligned(const struct diff *d, const struct range *range, struct place at,
                          struct match *found)
{
    size_t window = min(old_limit(d, range, at.old_at) - at.old_at, range->new_to - at.new_at);
    struct qb_run run = {0, 0};
    size_t scanned;
    d->kernels->diff_runs(d->old + at.old_at, d->new_ + at.new_at, min(window, ALIGNED_WINDOW), GAP,
                          &run, 1, &scanned);
    size_t skip = run.offset ? 0 : run.length;
    *found = (struct match){.new_at = at.new_at + skip, .old_at = at.old_at + skip};
    found->length = extend_forward(d, range, found->old_at, found->new_at);
    return found->length >= GAP;
}

static int key_equal(const struct diff *d, size_t old_at, size_t new_at)
{
    return old_at <= d->old_length && d->old_length - old_at >= QR_KEY_LENGTH &&
           memcmp(d->old + old_at, d->new_ + new_at, QR_KEY_LENGTH) == 0;
}

static void keep_longer(const struct diff *d, const struct range *range, size_t old_at,
                        size_t new_at, struct match *found)
{
    if (!key_equal(d, old_at, new_at))
        return;
    size_t length = extend_forward(d, range, old_at, new_at);
    if (length > found->length)
        *found = (struct match){new_at, old_at, length, 0};
}

/* The present alignment if it holds here, else the longest of the places nearest to it. */
static int match_at(const struct diff *d, const struct range *range, struct place at, size_t new_at,
                    struct match *found)
{
    *found = (struct match){0};
    keep_longer(d, range, at.old_at + (new_at - at.new_at), new_at, found);
    if (found->length < QR_KEY_LENGTH) {
        size_t near[QR_NEAR_MAX];
        size_t count = qr_block_index_near(&d->index, d->new_ + new_at, at.old_at, near);
        for (size_t i = 0; i < count; i++)
            keep_longer(d, range, near[i], new_at, found);
    }
    return found->length >= QR_KEY_LENGTH;
}

/* How many zeros begin at new_at. */
static size_t zeros_at(const struct diff *d, size_t new_at, size_t end)
{
    const uint8_t *p = d->new_ + new_at;
    return *p ? 0 : 1 + d->kernels->common_prefix(p, p + 1, end - new_at - 1);
}

/* The next position of the new content, from the alignment on, that the index knows. */
static int search_index(const struct diff *d, const struct range *range, struct place at,
                        struct match *found)
{
    if (d->index.count == 0 || range->new_to - at.new_at < QR_KEY_LENGTH)
        return 0;
    size_t end = range->new_to - QR_KEY_LENGTH + 1;
    for (size_t p = at.new_at; p < end;) {
        size_t step = min(end, p + SCAN_STEP);
        size_t hit = qr_block_index_next(&d->index, d->new_, p, step);
        if (hit == step) {
            size_t quiet = step - at.new_at;
            p = step + (quiet > QUIET ? min(quiet / 16, SKIP_MAX) : 0);
            continue;
        }
        if (match_at(d, range, at, hit, found))
            return 1;
        size_t zeros = zeros_at(d, hit, range->new_to);
        p = hit + 1 + (zeros >= QR_KEY_LENGTH ? zeros - QR_KEY_LENGTH : 0);
    }
    return 0;
}

/* The old position that a match must not extend below: the end of what is kept before it. */
static size_t old_floor(const struct diff *d, const struct range *range, size_t matches,
                        size_t old_at)
{
    size_t floor = old_at >= range->old_from && old_at < range->old_to ? range->old_from : 0;
    for (size_t i = matches; i > 0 && matches - i < RECENT; i--) {
        size_t end = d->matches[i - 1].old_at + d->matches[i - 1].length;
        if (end <= old_at && end > floor)
            floor = end;
    }
    return floor;
}

/* How far `m` extends backwards if only the first `matches` stay before it, and whether it could
 * perhaps go on were it not for them. */
static size_t extend_backward(const struct diff *d, const struct range *range,
                              const struct match *m, size_t matches, size_t most, int *stopped)
{
    size_t new_floor = range->new_from;
    if (matches)
        new_floor = d->matches[matches - 1].new_at + d->matches[matches - 1].length;
    size_t room = min(m->old_at - old_floor(d, range, matches, m->old_at), m->new_at - new_floor);
    room = min(room, most);
    size_t length =
        d->kernels->common_suffix(d->old + m->old_at - room, d->new_ + m->new_at - room, room);
    *stopped = length == room;
    return length;
}

/* How many short matches before `m` are better dropped: accidents that stand in its way, and that
 * its extension would make up for. */
static size_t in_the_way(const struct diff *d, const struct range *range, const struct match *m)
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

/* Appends a match, extended backwards. */
static int add_match(struct diff *d, const struct range *range, struct match m)
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
    int result =
        reserve(d, (void **)&d->matches, d->match_count, &d->match_capacity, sizeof *d->matches);
    if (result == 0)
        d->matches[d->match_count++] = m;
    return result;
}

static int search(struct diff *d, const struct range *range)
{
    struct place at = {range->old_from, range->new_from};
    struct match m;
    while (at.new_at < range->new_to &&
           (resume_aligned(d, range, at, &m) || search_index(d, range, at, &m))) {
        int result = add_match(d, range, m);
        if (result)
            return result;
        at = alignment(d, range);
    }
    return 0;
}

/* --- choose --- */

/* The state of the choice: a chain through the matches that ascends in both contents. Matches come
 * in new order; `best` is a Fenwick tree over the sorted ends in the old content and answers "the
 * heaviest chain ending at or before here". */
struct chain {
    size_t *ends;   /* sorted */
    size_t *best;   /* match number + 1; 0 is none */
    size_t *weight; /* of the heaviest chain ending with a match */
    size_t *before; /* the match before it in that chain, + 1 */
    size_t count;
};

static int may_stay(const struct range *range, const struct match *m)
{
    return m->old_at >= range->old_from && m->old_at + m->length <= range->old_to;
}

/* The common case: all matches can stay, in order. */
static int keep_all(struct diff *d, const struct range *range)
{
    size_t end = range->old_from;
    for (size_t i = 0; i < d->match_count; i++) {
        const struct match *m = &d->matches[i];
        if (!may_stay(range, m) || m->old_at < end)
            return 0;
        end = m->old_at + m->length;
    }
    for (size_t i = 0; i < d->match_count; i++)
        d->matches[i].kept = 1;
    return 1;
}

static int ascending(const void *a, const void *b)
{
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return (x > y) - (x < y);
}

/* How many ends are <= value. */
static size_t rank_of(const struct chain *c, size_t value)
{
    size_t low = 0, high = c->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (c->ends[middle] <= value)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static size_t weight_of(const struct chain *c, size_t number)
{
    return number ? c->weight[number - 1] : 0;
}

/* Links match number `number` (from 1) to the heaviest chain that ends before it. */
static void link_match(struct chain *c, const struct match *m, size_t number)
{
    size_t before = 0;
    for (size_t r = rank_of(c, m->old_at); r > 0; r -= r & (~r + 1))
        if (weight_of(c, c->best[r]) > weight_of(c, before))
            before = c->best[r];
    c->before[number - 1] = before;
    c->weight[number - 1] = weight_of(c, before) + m->length;
    for (size_t r = rank_of(c, m->old_at + m->length); r <= c->count; r += r & (~r + 1))
        if (weight_of(c, number) > weight_of(c, c->best[r]))
            c->best[r] = number;
}

/* Marks the matches that stay in place. */
static int choose(struct diff *d, const struct range *range)
{
    size_t n = d->match_count;
    if (keep_all(d, range))
        return 0;
    size_t *memory = qr_calloc(4 * n + 1, sizeof *memory);
    if (!memory)
        return no_memory(d->new_length);
    struct chain c = {memory, memory + n, memory + 2 * n + 1, memory + 3 * n + 1, 0};
    for (size_t i = 0; i < n; i++)
        if (may_stay(range, &d->matches[i]))
            c.ends[c.count++] = d->matches[i].old_at + d->matches[i].length;
    qsort(c.ends, c.count, sizeof *c.ends, ascending);
    size_t heaviest = 0;
    for (size_t i = 0; i < n; i++) {
        if (!may_stay(range, &d->matches[i]))
            continue;
        link_match(&c, &d->matches[i], i + 1);
        if (c.weight[i] > weight_of(&c, heaviest))
            heaviest = i + 1;
    }
    for (; heaviest; heaviest = c.before[heaviest - 1])
        d->matches[heaviest - 1].kept = 1;
    qr_free(memory);
    return 0;
}

/* --- express --- */

/* Edits that fill one stretch between kept bytes. Each new piece takes the place of as many old
 * bytes as it has; the last one takes the place of all that are left. */
struct filler {
    struct diff *d;
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
    return qr_edits_add(f->d->out, edit);
}

static int add_piece(struct filler *f, struct qr_edit piece)
{
    int result = 0;
    if (f->last.new_length)
        result = flush_piece(f, min(f->last.new_length, f->old_to - f->old_at));
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

/* The next run of ZEROS_MIN zeros or more in [from, to) of the new content; `to` if there is none.
 * Such a run covers a whole stretch of half that length wherever stretches are cut. */
static size_t find_zeros(const struct diff *d, size_t from, size_t to, size_t *length)
{
    enum { STRETCH = ZEROS_MIN / 2 };
    for (size_t at = from; to - at >= STRETCH; at += STRETCH) {
        if (qr_load64(d->new_ + at) | qr_load64(d->new_ + at + 8))
            continue;
        size_t start = at;
        while (start > from && d->new_[start - 1] == 0)
            start--;
        *length = (at - start) + zeros_at(d, at, to);
        if (*length >= ZEROS_MIN)
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

/* One stretch: `matches` lie in it and are not kept. */
static int fill(struct diff *d, struct range gap, const struct match *matches, size_t count)
{
    struct filler f = {.d = d, .old_at = gap.old_from, .old_to = gap.old_to};
    int result = 0;
    size_t at = gap.new_from;
    for (size_t i = 0; i < count && result == 0; i++) {
        if (matches[i].length < COPY_MIN)
            continue;
        result = add_new(&f, at, matches[i].new_at);
        if (result == 0)
            result = add_piece(&f, (struct qr_edit){.source = QR_COPY,
                                                    .new_length = matches[i].length,
                                                    .from = matches[i].old_at});
        at = matches[i].new_at + matches[i].length;
    }
    if (result == 0)
        result = add_new(&f, at, gap.new_to);
    if (result == 0)
        result = flush_piece(&f, f.old_to - f.old_at);
    return result;
}

/* Drops what is equal at the ends of a stretch: where an accidental match was not kept, its
 * neighbours may now reach further. */
static struct range tightened(const struct diff *d, struct range gap)
{
    size_t most = min(gap.old_to - gap.old_from, gap.new_to - gap.new_from);
    size_t front = d->kernels->common_prefix(d->old + gap.old_from, d->new_ + gap.new_from, most);
    most -= front;
    size_t back =
        d->kernels->common_suffix(d->old + gap.old_to - most, d->new_ + gap.new_to - most, most);
    return (struct range){gap.old_from + front, gap.old_to - back, gap.new_from + front,
                          gap.new_to - back, 0};
}

static int pays_as_copy(const struct match *matches, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (matches[i].length >= COPY_MIN)
            return 1;
    return 0;
}

/* The edits of one range. */
static int express(struct diff *d, const struct range *range)
{
    struct range gap = *range;
    size_t first = 0;
    int result = 0;
    for (size_t i = 0; i <= d->match_count && result == 0; i++) {
        const struct match *m = i < d->match_count ? &d->matches[i] : NULL;
        if (m && !m->kept)
            continue;
        gap.old_to = m ? m->old_at : range->old_to;
        gap.new_to = m ? m->new_at : range->new_to;
        const struct match *between = i > first ? d->matches + first : NULL;
        if (i == first || pays_as_copy(between, i - first))
            result = fill(d, gap, between, i - first);
        else
            result = fill(d, tightened(d, gap), NULL, 0);
        first = i + 1;
        if (m) {
            gap.old_from = m->old_at + m->length;
            gap.new_from = m->new_at + m->length;
        }
    }
    return result;
}

static int refine(struct diff *d, const struct range *range)
{
    int result = 0;
    d->match_count = 0;
    if (range->search)
        result = search(d, range);
    if (result == 0 && d->match_count)
        result = choose(d, range);
    if (result == 0)
        result = express(d, range);
    return result;
}

int qr_diff(const uint8_t *old, size_t old_length, const uint8_t *new_, size_t new_length,
            size_t max_index_bytes, struct qr_edits *list)
{
    static const uint8_t nothing[1]; /* so that no arithmetic is done on NULL */
    struct diff d = {.old = old_length ? old : nothing,
                     .new_ = new_length ? new_ : nothing,
                     .old_length = old_length,
                     .new_length = new_length,
                     .kernels = qb_kernels(),
                     .out = list};
    int result = compare(&d);
    if (result == 0)
        result = build_index(&d, max_index_bytes);
    for (size_t i = 0; i < d.range_count && result == 0; i++)
        result = refine(&d, &d.ranges[i]);
    qr_block_index_finish(&d.index);
    qr_free(d.matches);
    qr_free(d.ranges);
    return result;
}
