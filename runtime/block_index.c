/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The block index: a counting sort of key positions by the upper bits of their hash.
 *
 * One pass counts the keys of each bucket, a second one places the positions; walking backwards
 * leaves them ascending. In front stands a filter of four bytes per key, small enough to stay in a
 * cache: content that is nowhere in the old one is passed over at the speed of the hash.
 *
 * The hash is computed anew at each position instead of rolled: four loads and a product that
 * depend on nothing before them, so that the processor overlaps neighbouring positions.
 */
#include "runtime/block_index.h"

#include "runtime/error.h"
#include "runtime/os.h"

enum {
    FILTER_BITS = 32, /* per bucket; two of them set by a key: 1 of 200 others passes */
    SPACING_MIN = 8,
    KEYS_PER_SPACING = 256, /* spacing grows with the square root of what is indexed */
};

static uint64_t rotate(uint64_t v, unsigned by) { return v << by | v >> (64 - by); }

/* Only the upper bits are good. Zeros give 0. */
static inline uint64_t key_hash(const uint8_t *p)
{
    uint64_t sum = qr_load64(p) + rotate(qr_load64(p + 8), 17) + rotate(qr_load64(p + 16), 29) +
                   rotate(qr_load64(p + 24), 46);
    return sum * UINT64_C(0x9E3779B97F4A7C15);
}

/* A key owns two bits of one word; both follow from the bits of the hash below the word's number.
 */
static inline int filter_has(const struct qr_block_index *index, uint64_t hash)
{
    unsigned shift = index->filter_shift;
    uint64_t word = index->filter[hash >> shift];
    return word >> (hash >> (shift - 6) & 63) & word >> (hash >> (shift - 12) & 63) & 1;
}

static void filter_add(struct qr_block_index *index, uint64_t hash)
{
    unsigned shift = index->filter_shift;
    index->filter[hash >> shift] |=
        UINT64_C(1) << (hash >> (shift - 6) & 63) | UINT64_C(1) << (hash >> (shift - 12) & 63);
}

/* The keys of a range: block numbers [first, end). */
struct keys {
    size_t first, end;
};

static struct keys keys_of(const struct qr_block_range *range, size_t spacing)
{
    struct keys keys = {(range->from + spacing - 1) / spacing, 0};
    if (range->to >= QR_KEY_LENGTH)
        keys.end = (range->to - QR_KEY_LENGTH) / spacing + 1;
    if (keys.end < keys.first)
        keys.end = keys.first;
    return keys;
}

static size_t total_length(const struct qr_block_range *ranges, size_t count)
{
    size_t total = 0;
    for (size_t i = 0; i < count; i++)
        total += ranges[i].to - ranges[i].from;
    return total;
}

/* A power of two, at least one per key. */
static size_t bucket_count(size_t keys)
{
    size_t buckets = 64;
    while (buckets < keys)
        buckets *= 2;
    return buckets;
}

static size_t filter_bytes(size_t buckets) { return buckets * FILTER_BITS / 8; }

static size_t memory_needed(size_t keys)
{
    size_t buckets = bucket_count(keys);
    return filter_bytes(buckets) + (buckets + 1 + keys) * sizeof(uint32_t);
}

/* Sets the spacing. Returns an upper bound of the number of keys; 0: index nothing. */
static size_t choose_spacing(struct qr_block_index *index, size_t total, size_t range_count,
                             size_t reach, size_t max_bytes)
{
    size_t spacing = SPACING_MIN;
    while (total / spacing > KEYS_PER_SPACING * spacing)
        spacing *= 2;
    while (memory_needed(total / spacing + range_count) > max_bytes && spacing <= total)
        spacing *= 2;
    while (reach / spacing > UINT32_MAX)
        spacing *= 2;
    index->spacing = spacing;
    return spacing > total ? 0 : total / spacing + range_count;
}

static unsigned log2_of(size_t power)
{
    return (unsigned)__builtin_ctzll((unsigned long long)power);
}

/* Lays out empty tables for so many keys. */
static int lay_out(struct qr_block_index *index, size_t keys)
{
    size_t buckets = bucket_count(keys), needed = memory_needed(keys);
    if (needed > index->memory) {
        qr_free(index->filter);
        index->filter = qr_malloc(needed);
        index->memory = index->filter ? needed : 0;
        if (!index->filter)
            return qr_fail(QALLOW_E_NO_MEMORY, "no memory for an index of %zu blocks", keys);
    }
    index->buckets = (uint32_t *)((uint8_t *)index->filter + filter_bytes(buckets));
    index->blocks = index->buckets + buckets + 1;
    memset(index->filter, 0, filter_bytes(buckets) + (buckets + 1) * sizeof *index->buckets);
    index->bucket_shift = 64 - log2_of(buckets);
    index->filter_shift = index->bucket_shift + log2_of(64 / FILTER_BITS);
    return 0;
}

static void count_keys(struct qr_block_index *index, const uint8_t *old,
                       const struct qr_block_range *range)
{
    struct keys keys = keys_of(range, index->spacing);
    for (size_t block = keys.first; block < keys.end; block++) {
        uint64_t hash = key_hash(old + block * index->spacing);
        if (hash) {
            index->buckets[hash >> index->bucket_shift]++;
            filter_add(index, hash);
        }
    }
}

static void place_keys(struct qr_block_index *index, const uint8_t *old,
                       const struct qr_block_range *range)
{
    struct keys keys = keys_of(range, index->spacing);
    for (size_t block = keys.end; block-- > keys.first;) {
        uint64_t hash = key_hash(old + block * index->spacing);
        if (hash)
            index->blocks[--index->buckets[hash >> index->bucket_shift]] = (uint32_t)block;
    }
}

/* Turns counts into ends; placing the keys then moves them down to the starts. */
static void sum_counts(struct qr_block_index *index)
{
    size_t buckets = (size_t)1 << (64 - index->bucket_shift);
    uint32_t sum = 0;
    for (size_t b = 0; b < buckets; b++) {
        sum += index->buckets[b];
        index->buckets[b] = sum;
    }
    index->buckets[buckets] = sum;
    index->count = sum;
}

int qr_block_index_build(struct qr_block_index *index, const uint8_t *old,
                         const struct qr_block_range *ranges, size_t range_count, size_t max_bytes)
{
    index->count = 0;
    if (range_count == 0)
        return 0;
    size_t keys = choose_spacing(index, total_length(ranges, range_count), range_count,
                                 ranges[range_count - 1].to, max_bytes);
    if (keys == 0)
        return 0;
    int result = lay_out(index, keys);
    if (result)
        return result;
    for (size_t i = 0; i < range_count; i++)
        count_keys(index, old, &ranges[i]);
    sum_counts(index);
    for (size_t i = range_count; i-- > 0;)
        place_keys(index, old, &ranges[i]);
    filter_add(index, 0);
    return 0;
}

void qr_block_index_finish(struct qr_block_index *index)
{
    qr_free(index->filter);
    *index = (struct qr_block_index){0};
}

size_t qr_block_index_next(const struct qr_block_index *index, const uint8_t *bytes, size_t from,
                           size_t to)
{
    for (; to - from >= 4; from += 4) {
        const uint8_t *p = bytes + from;
        if (filter_has(index, key_hash(p)) | filter_has(index, key_hash(p + 1)) |
            filter_has(index, key_hash(p + 2)) | filter_has(index, key_hash(p + 3)))
            break;
    }
    while (from < to && !filter_has(index, key_hash(bytes + from)))
        from++;
    return from;
}

void qr_block_index_near(const struct qr_block_index *index, const uint8_t *bytes, size_t near,
                         struct qr_block_places *places)
{
    uint64_t bucket = key_hash(bytes) >> index->bucket_shift;
    const uint32_t *first = index->blocks + index->buckets[bucket];
    const uint32_t *last = index->blocks + index->buckets[bucket + 1];
    const uint32_t *low = first, *high = last;
    while (low < high) {
        const uint32_t *middle = low + (high - low) / 2;
        if (*middle * index->spacing < near)
            low = middle + 1;
        else
            high = middle;
    }
    *places = (struct qr_block_places){first, low, low, last, index->spacing, 0};
}

int qr_block_places_next(struct qr_block_places *places, size_t *position)
{
    int ahead = places->after<places->last, behind = places->before> places->first;
    if (!ahead && !behind)
        return 0;
    if (ahead && behind) {
        ahead = !places->turn;
        places->turn = !places->turn;
    }
    *position = (ahead ? *places->after++ : *--places->before) * places->spacing;
    return 1;
}
