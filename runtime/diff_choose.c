/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Of the matches of a range, those that stay in place: the heaviest chain that ascends in both
 * contents. Matches come ascending in the new content, so a chain has to ascend in the old one
 * only: the weighted longest increasing subsequence, in O(m log m).
 */
#include <stdlib.h>

#include "runtime/diff_internal.h"
#include "runtime/error.h"
#include "runtime/os.h"

/* `best` is a Fenwick tree over the sorted ends in the old content: "the heaviest chain that ends
 * at or before here". Matches are numbered from 1; 0 is none. */
struct chain {
    size_t *ends; /* in the old content, sorted */
    size_t *best;
    size_t *weight; /* of the heaviest chain that ends with a match */
    size_t *before; /* the match before it in that chain */
    size_t count;   /* of ends */
};

static int may_stay(const struct qr_diff_range *range, const struct qr_diff_match *m)
{
    return m->old_at >= range->old_from && m->old_at + m->length <= range->old_to;
}

/* The common case: all matches can stay, in order. */
static int keep_all(struct qr_diff *d, const struct qr_diff_range *range)
{
    size_t end = range->old_from;
    for (size_t i = 0; i < d->match_count; i++) {
        const struct qr_diff_match *m = &d->matches[i];
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

static size_t lowest_bit(size_t v) { return v & (~v + 1); }

/* Links a match to the heaviest chain that ends before it. */
static void link_match(struct chain *c, const struct qr_diff_match *m, size_t number)
{
    size_t before = 0;
    for (size_t r = rank_of(c, m->old_at); r > 0; r -= lowest_bit(r))
        if (c->weight[c->best[r]] > c->weight[before])
            before = c->best[r];
    c->before[number] = before;
    c->weight[number] = c->weight[before] + m->length;
    for (size_t r = rank_of(c, m->old_at + m->length); r <= c->count; r += lowest_bit(r))
        if (c->weight[number] > c->weight[c->best[r]])
            c->best[r] = number;
}

static void keep_heaviest(struct qr_diff *d, const struct qr_diff_range *range, struct chain *c)
{
    for (size_t i = 0; i < d->match_count; i++)
        if (may_stay(range, &d->matches[i]))
            c->ends[c->count++] = d->matches[i].old_at + d->matches[i].length;
    if (c->count)
        qsort(c->ends, c->count, sizeof *c->ends, ascending);
    size_t heaviest = 0;
    for (size_t number = 1; number <= d->match_count; number++) {
        if (!may_stay(range, &d->matches[number - 1]))
            continue;
        link_match(c, &d->matches[number - 1], number);
        if (c->weight[number] > c->weight[heaviest])
            heaviest = number;
    }
    for (; heaviest; heaviest = c->before[heaviest])
        d->matches[heaviest - 1].kept = 1;
}

int qr_diff_choose(struct qr_diff *d, const struct qr_diff_range *range)
{
    if (keep_all(d, range))
        return 0;
    size_t n = d->match_count + 1;
    size_t *memory = qr_calloc(4 * n, sizeof *memory);
    if (!memory)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory to order %zu matches", d->match_count);
    struct chain c = {memory, memory + n, memory + 2 * n, memory + 3 * n, 0};
    keep_heaviest(d, range, &c);
    qr_free(memory);
    return 0;
}
