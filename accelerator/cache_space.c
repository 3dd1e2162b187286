/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The allocator of a segment.
 *
 * A bitmap says what is taken. Blocks that are given back go into a bin of their length first: the
 * next version of an entry is nearly always as long as the one before, and is taken from there
 * without a search. When there is too much in the bins, or a run is not found, they are emptied
 * into the bitmap, where neighbours grow together. A search goes on where the last one ended; a
 * length for which it found nothing is remembered until bits are cleared again.
 */
#include "accelerator/cache_space.h"

#include <string.h>

#include "runtime/error.h"
#include "runtime/os.h"

enum { IN_BINS_MIN = 4096 }; /* granules that may be in bins however small the segment is */

void qa_space_init(struct qa_space *space)
{
    memset(space, 0, sizeof *space);
    space->no_run = UINT32_MAX;
}

void qa_space_finish(struct qa_space *space)
{
    for (size_t i = 0; i < QA_SPACE_BINS; i++)
        qr_free(space->bins[i].blocks);
    qr_free(space->bits);
    qa_space_init(space);
}

int qa_space_extend(struct qa_space *space, uint64_t end)
{
    size_t words = (size_t)((end + 63) / 64);
    qr_assert(end >= space->end && end <= UINT32_MAX);
    if (words > space->word_count) {
        uint64_t *bits = qr_realloc(space->bits, words * sizeof *bits);
        if (!bits)
            return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the map of %llu granules of cache",
                           (unsigned long long)end);
        memset(bits + space->word_count, 0, (words - space->word_count) * sizeof *bits);
        space->bits = bits;
        space->word_count = words;
    }
    space->end = (uint32_t)end;
    return 0;
}

/* The mask of the bits of [from, to) that lie in word `word`. */
static uint64_t mask_of(uint64_t word, uint64_t from, uint64_t to)
{
    uint64_t mask = UINT64_MAX;
    if (from > word * 64)
        mask <<= from - word * 64;
    if (to < (word + 1) * 64)
        mask &= UINT64_MAX >> ((word + 1) * 64 - to);
    return mask;
}

static void set_bits(struct qa_space *space, uint64_t from, uint64_t to)
{
    for (uint64_t word = from / 64; word * 64 < to; word++)
        space->bits[word] |= mask_of(word, from, to);
}

static void clear_bits(struct qa_space *space, uint64_t from, uint64_t to)
{
    for (uint64_t word = from / 64; word * 64 < to; word++)
        space->bits[word] &= ~mask_of(word, from, to);
}

/* The first bit of [from, to) that is set (wanted == 1) or clear (0), or `to`. */
static uint64_t next_bit(const struct qa_space *space, int wanted, uint64_t from, uint64_t to)
{
    for (uint64_t word = from / 64; word * 64 < to; word++) {
        uint64_t bits = wanted ? space->bits[word] : ~space->bits[word];
        bits &= mask_of(word, from, to);
        if (bits)
            return word * 64 + (unsigned)__builtin_ctzll(bits);
    }
    return to;
}

static void raise_top(struct qa_space *space, uint64_t top)
{
    if (top > space->top) {
        space->unused += top - space->top;
        space->top = (uint32_t)top;
    }
}

int qa_space_claim(struct qa_space *space, uint64_t at, uint64_t count)
{
    if (count == 0 || at >= space->end || count > space->end - at ||
        next_bit(space, 1, at, at + count) != at + count)
        return 0;
    set_bits(space, at, at + count);
    if (at + count > space->top) {
        raise_top(space, at + count);
        space->no_run = UINT32_MAX; /* there may be a gap before it */
    }
    space->unused -= count;
    return 1;
}

/* One more than the last bit of [0, to) that is set (wanted == 1) or clear (0), or 0. */
static uint64_t end_of_last(const struct qa_space *space, int wanted, uint64_t to)
{
    for (uint64_t word = (to + 63) / 64; word-- > 0;) {
        uint64_t bits = wanted ? space->bits[word] : ~space->bits[word];
        bits &= mask_of(word, 0, to);
        if (bits)
            return word * 64 + 64 - (unsigned)__builtin_clzll(bits);
    }
    return 0;
}

static void release(struct qa_space *space, uint32_t at, uint64_t count)
{
    clear_bits(space, at, at + count);
    space->unused += count;
    space->no_run = UINT32_MAX;
    if (at + count == space->top) {
        uint64_t top = end_of_last(space, 1, at);
        space->unused -= space->top - top;
        space->top = (uint32_t)top;
        space->rover = space->rover < space->top ? space->rover : 0;
        space->high_rover = space->high_rover < space->top ? space->high_rover : space->top;
    }
}

static void empty_bins(struct qa_space *space)
{
    for (uint64_t length = 1; length < QA_SPACE_BINS && space->in_bins; length++) {
        struct qa_space_bin *bin = &space->bins[length];
        for (; bin->count; bin->count--) {
            release(space, bin->blocks[bin->count - 1], length);
            space->in_bins -= length;
        }
    }
}

void qa_space_give(struct qa_space *space, uint32_t at, uint64_t count)
{
    qr_assert(at && count && at < space->top && count <= space->top - at);
    if (count < QA_SPACE_BINS) {
        struct qa_space_bin *bin = &space->bins[count];
        if (QR_GROW(bin->blocks, bin->count, bin->capacity) == 0) {
            bin->blocks[bin->count++] = at;
            space->in_bins += count;
            if (space->in_bins > IN_BINS_MIN && space->in_bins > space->top / 8)
                empty_bins(space);
            return;
        }
    }
    release(space, at, count);
}

static uint32_t search(struct qa_space *space, uint64_t count, uint64_t from, uint64_t to)
{
    for (uint64_t at = next_bit(space, 0, from, to); at < to;) {
        uint64_t end = to - at < count ? to : at + count;
        end = next_bit(space, 1, at, end);
        if (end - at == count)
            return (uint32_t)at;
        at = next_bit(space, 0, end, to);
    }
    return 0;
}

static uint32_t take_run(struct qa_space *space, uint64_t count)
{
    if (count > space->unused || count >= space->no_run)
        return 0;
    uint32_t at = search(space, count, space->rover, space->top);
    if (!at) { /* once round, over the former start as well */
        uint64_t to = space->rover + count < space->top ? space->rover + count : space->top;
        at = search(space, count, 0, to);
    }
    if (!at) {
        space->no_run = (uint32_t)count;
        return 0;
    }
    set_bits(space, at, at + count);
    space->unused -= count;
    space->rover = (uint32_t)(at + count);
    return at;
}

static uint32_t take_top(struct qa_space *space, uint64_t count)
{
    uint32_t at = space->top;
    if (count > space->end - at)
        return 0;
    set_bits(space, at, at + count);
    space->top = (uint32_t)(at + count);
    return at;
}

uint32_t qa_space_take(struct qa_space *space, uint64_t count)
{
    uint32_t at;
    qr_assert(count > 0);
    if (count < QA_SPACE_BINS && space->bins[count].count) {
        space->in_bins -= count;
        return space->bins[count].blocks[--space->bins[count].count];
    }
    if ((at = take_run(space, count)) || (at = take_top(space, count)) || !space->in_bins)
        return at;
    empty_bins(space);
    at = take_run(space, count);
    return at ? at : take_top(space, count);
}

static uint32_t search_down(const struct qa_space *space, uint64_t count, uint64_t from)
{
    while (from >= count) {
        uint64_t to = end_of_last(space, 0, from);
        from = end_of_last(space, 1, to);
        if (to - from >= count)
            return (uint32_t)(to - count);
    }
    return 0;
}

/* Leaves what it skips of the end to others. */
static uint32_t take_end(struct qa_space *space, uint64_t count)
{
    if (count > space->end - space->top)
        return 0;
    uint32_t at = (uint32_t)(space->end - count);
    space->high_rover = at;
    raise_top(space, space->end);
    space->no_run = UINT32_MAX;
    return at;
}

static uint32_t take_high(struct qa_space *space, uint64_t count)
{
    uint32_t at = take_end(space, count);
    if (!at && count <= space->unused && count < space->no_run) {
        at = search_down(space, count, space->high_rover);
        at = at ? at : search_down(space, count, space->top);
        space->no_run = at ? space->no_run : (uint32_t)count;
    }
    if (at) {
        set_bits(space, at, at + count);
        space->unused -= count;
        space->high_rover = at;
    }
    return at;
}

uint32_t qa_space_take_high(struct qa_space *space, uint64_t count)
{
    uint32_t at = take_high(space, count);
    if (at || !space->in_bins)
        return at;
    empty_bins(space);
    return take_high(space, count);
}

uint64_t qa_space_used(const struct qa_space *space)
{
    return space->top - space->unused - space->in_bins;
}
