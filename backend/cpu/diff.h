/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The comparing kernels over blocks, compiled once per instruction set: is_zero, common_prefix,
 * common_suffix, diff_runs, diff_mask, diff_blocks. The including file provides
 *
 *     uint64_t block_differs(a, b)   bit i = (a[i] != b[i]), for BLOCK bytes
 *     bool group_equal(a, b)         whether GROUP bytes are equal
 *     bool group_zero(p)             whether GROUP bytes are zero
 *
 * Equal bytes are passed over a group at a time, at the speed of memcmp; where something differs,
 * the 64-bit mask of a block answers every question with a few bit operations. A last block of
 * fewer than BLOCK bytes is read as the block that ends where the buffer ends, so nothing outside
 * is touched.
 */
#ifndef QB_CPU_DIFF_H
#define QB_CPU_DIFF_H

#include "backend/cpu/block.h"

_Static_assert(BLOCK == QB_BLOCK, "what diff_blocks calls a block");

/* The mask of a[at..n) against b[at..n), fewer than BLOCK bytes. */
static inline uint64_t tail_differs(const uint8_t *a, const uint8_t *b, size_t at, size_t n)
{
    if (at == n)
        return 0;
    if (n >= BLOCK)
        return block_differs(a + n - BLOCK, b + n - BLOCK) >> (BLOCK - (n - at));
    uint8_t x[BLOCK] = {0}, y[BLOCK] = {0};
    memcpy(x, a + at, n - at);
    memcpy(y, b + at, n - at);
    return block_differs(x, y);
}

static int is_zero(const void *p, size_t n)
{
    static const uint8_t zeroes[BLOCK];
    const uint8_t *bytes = p;
    size_t at = 0;
    for (; n - at >= GROUP; at += GROUP) {
        if (!group_zero(bytes + at))
            return 0;
    }
    for (; n - at >= BLOCK; at += BLOCK) {
        if (block_differs(bytes + at, zeroes) != 0)
            return 0;
    }
    if (at == n)
        return 1;
    uint8_t rest[BLOCK] = {0};
    memcpy(rest, bytes + at, n - at);
    return block_differs(rest, zeroes) == 0;
}

/* Passes over equal groups; returns where it stopped. */
static inline size_t skip_equal_groups(const uint8_t *a, const uint8_t *b, size_t at, size_t n)
{
    while (n - at >= GROUP && group_equal(a + at, b + at))
        at += GROUP;
    return at;
}

static size_t common_prefix(const void *a, const void *b, size_t n)
{
    const uint8_t *x = a, *y = b;
    size_t at = skip_equal_groups(x, y, 0, n);
    for (; n - at >= BLOCK; at += BLOCK) {
        uint64_t differs = block_differs(x + at, y + at);
        if (differs != 0)
            return at + lowest_bit(differs);
    }
    uint64_t differs = tail_differs(x, y, at, n);
    return differs != 0 ? at + lowest_bit(differs) : n;
}

static size_t common_suffix(const void *a, const void *b, size_t n)
{
    const uint8_t *x = a, *y = b;
    size_t left = n; /* bytes not yet known to be equal, counted from the front */
    while (left >= GROUP && group_equal(x + left - GROUP, y + left - GROUP))
        left -= GROUP;
    for (; left >= BLOCK; left -= BLOCK) {
        uint64_t differs = block_differs(x + left - BLOCK, y + left - BLOCK);
        if (differs != 0)
            return n - left + BLOCK - 1 - highest_bit(differs);
    }
    /* What remains is read with bytes behind it where there are enough: they are equal. */
    uint64_t differs = n >= BLOCK ? block_differs(x, y) : tail_differs(x, y, 0, left);
    return differs != 0 ? n - 1 - highest_bit(differs) : n;
}

/* The runs found so far; the last one is open: a difference less than `gap` behind it extends it.
 */
struct run_list {
    struct qb_run *runs;
    size_t count, max, gap;
    size_t end;         /* of the last run */
    unsigned shifts[4]; /* for clear_runs() */
};

static inline struct run_list run_list(struct qb_run *runs, size_t max, size_t gap)
{
    struct run_list list = {.runs = runs, .max = max, .gap = gap};
    const size_t wanted = gap < 16 ? gap : 16;
    for (size_t have = 1, i = 0; have < wanted; i++) {
        size_t shift = have < wanted - have ? have : wanted - have;
        list.shifts[i] = (unsigned)shift;
        have += shift;
    }
    return list;
}

/* Bit i is set where min(gap, 16) clear bits of mask begin: where a run may end. Each shift adds to
 * the length that a bit stands for; four of them make 16. (A run that was ended too early, because
 * the gap is longer, is extended again by the next difference.) */
static inline uint64_t clear_runs(const struct run_list *list, uint64_t mask)
{
    uint64_t clear = ~mask;
    for (unsigned i = 0; i < 4; i++)
        clear &= clear >> list->shifts[i];
    return clear;
}

/* Adds the runs of one block; false if there is no room for the next one. */
static inline bool add_runs(struct run_list *list, uint64_t differs, size_t at)
{
    uint64_t gaps = clear_runs(list, differs);
    while (differs != 0) {
        unsigned first = lowest_bit(differs);
        uint64_t gaps_behind = gaps >> first << first;
        unsigned end = gaps_behind ? lowest_bit(gaps_behind) : highest_bit(differs) + 1;
        if (list->count > 0 && at + first - list->end < list->gap) {
            struct qb_run *last = &list->runs[list->count - 1];
            last->length = at + end - last->offset;
        } else if (list->count < list->max) {
            list->runs[list->count++] = (struct qb_run){at + first, end - first};
        } else {
            return false;
        }
        list->end = at + end;
        differs &= ~low_bits(end);
    }
    return true;
}

/* Adds the runs of one group. */
static inline bool add_group(struct run_list *list, const uint8_t *a, const uint8_t *b, size_t at)
{
    bool room = true;
    for (size_t i = 0; room && i < GROUP; i += BLOCK)
        room = add_runs(list, block_differs(a + at + i, b + at + i), at + i);
    return room;
}

static size_t diff_runs(const void *a, const void *b, size_t n, size_t gap, struct qb_run *runs,
                        size_t max, size_t *scanned)
{
    const uint8_t *x = a, *y = b;
    size_t at = skip_equal_groups(x, y, 0, n);
    *scanned = n;
    if (at == n) /* the commonest case needs no list */
        return 0;
    struct run_list list = run_list(runs, max, gap);
    bool room = true;
    for (; room && n - at >= GROUP; at = skip_equal_groups(x, y, at + GROUP, n))
        room = add_group(&list, x, y, at);
    for (; room && n - at >= BLOCK; at += BLOCK)
        room = add_runs(&list, block_differs(x + at, y + at), at);
    if (room && at < n)
        room = add_runs(&list, tail_differs(x, y, at, n), at);
    if (!room)
        *scanned = list.end;
    return list.count;
}

static size_t diff_mask(const void *a, const void *b, size_t n, uint8_t *mask)
{
    const uint8_t *x = a, *y = b;
    size_t count = 0, at = 0;
    for (; n - at >= BLOCK; at += BLOCK) {
        uint64_t differs = block_differs(x + at, y + at);
        memcpy(mask + at / 8, &differs, sizeof(differs));
        count += bit_count(differs);
    }
    if (at == n)
        return count;
    uint64_t differs = tail_differs(x, y, at, n);
    memcpy(mask + at / 8, &differs, (n - at + 7) / 8);
    return count + bit_count(differs);
}

/* Whether a block differs cannot be foreseen, so there is no branch: what does not is overwritten.
 */
static size_t diff_blocks(const void *a, const void *b, size_t n, uint32_t *blocks, uint64_t *masks)
{
    const uint8_t *x = a, *y = b;
    size_t count = 0, at = 0;
    for (; n - at >= BLOCK; at += BLOCK) {
        blocks[count] = (uint32_t)(at / BLOCK);
        masks[count] = block_differs(x + at, y + at);
        count += masks[count] != 0;
    }
    if (at == n)
        return count;
    blocks[count] = (uint32_t)(at / BLOCK);
    masks[count] = tail_differs(x, y, at, n);
    return count + (masks[count] != 0);
}

#endif
