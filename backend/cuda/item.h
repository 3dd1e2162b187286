/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the operations of a device are made of. An operation is a list of phases; a phase is a
 * function of (batch, tile, shared memory of the group, thread). On a device a group of threads
 * runs a phase at the same time, with a barrier behind each (kernel.cuh); on the CPU a loop runs it
 * for one thread after the other. The functions are the same, so the CPU tests what the device
 * does, all but the launch.
 *
 * What a phase writes to shared memory only later phases read. Between the threads of one phase
 * nothing is exchanged but atomic additions.
 */
#ifndef QB_CUDA_ITEM_H
#define QB_CUDA_ITEM_H

#include <string.h>

#include "backend/batch.h"

/* Rounds of the threads over the chunks of a tile. */
#define QB_ROUNDS (QB_TILE_CHUNKS / QB_TILE_THREADS)

struct qb_tile {
    const struct qb_batch_page *page;
    uint64_t page_number;
    uint64_t index;  /* in counts and entries */
    uint64_t start;  /* in the page */
    uint32_t length; /* in bytes; 0: nothing to do */
};

/* 16 bytes as they lie in memory; both machines are little-endian. */
struct qb_chunk {
    uint64_t lo, hi;
};

QB_ITEM unsigned qb_popcount(uint64_t word)
{
#ifdef __CUDA_ARCH__
    return (unsigned)__popcll((long long)word);
#else
    return (unsigned)__builtin_popcountll(word);
#endif
}

/* Of a word that is not 0. */
QB_ITEM unsigned qb_lowest(uint64_t word)
{
#ifdef __CUDA_ARCH__
    return (unsigned)__ffsll((long long)word) - 1;
#else
    return (unsigned)__builtin_ctzll(word);
#endif
}

QB_ITEM unsigned qb_highest(uint64_t word)
{
#ifdef __CUDA_ARCH__
    return 63u - (unsigned)__clzll((long long)word);
#else
    return 63u - (unsigned)__builtin_clzll(word);
#endif
}

/* The product of two words. */
QB_ITEM struct qb_u128 qb_multiply(uint64_t a, uint64_t b)
{
#ifdef __CUDA_ARCH__
    struct qb_u128 product = {a * b, __umul64hi(a, b)};
#else
    __extension__ typedef unsigned __int128 wide;
    const wide all = (wide)a * b;
    struct qb_u128 product = {(uint64_t)all, (uint64_t)(all >> 64)};
#endif
    return product;
}

/* Adds and returns what was there before. */
QB_ITEM uint64_t qb_atomic_add(uint64_t *to, uint64_t value)
{
#ifdef __CUDA_ARCH__
    return atomicAdd((unsigned long long *)to, (unsigned long long)value);
#else
    const uint64_t old = *to;
    *to = old + value;
    return old;
#endif
}

/* Exact in any order: each time the lower half passes 2^64 exactly one addition sees it. */
QB_ITEM void qb_atomic_add128(struct qb_u128 *to, struct qb_u128 value)
{
    const uint64_t old = qb_atomic_add(&to->lo, value.lo);
    value.hi += old + value.lo < old;
    if (value.hi != 0)
        qb_atomic_add(&to->hi, value.hi);
}

QB_ITEM void qb_atomic_min(uint64_t *to, uint64_t value)
{
#ifdef __CUDA_ARCH__
    atomicMin((unsigned long long *)to, (unsigned long long)value);
#else
    *to = value < *to ? value : *to;
#endif
}

QB_ITEM void qb_atomic_max(uint64_t *to, uint64_t value)
{
#ifdef __CUDA_ARCH__
    atomicMax((unsigned long long *)to, (unsigned long long)value);
#else
    *to = value > *to ? value : *to;
#endif
}

QB_ITEM void qb_atomic_or(uint32_t *to, uint32_t bits)
{
#ifdef __CUDA_ARCH__
    atomicOr(to, bits);
#else
    *to |= bits;
#endif
}

/* --- where a tile lies --- */

/* The tile with a number below batch->tiles: the last page that begins at or before it. */
QB_ITEM struct qb_tile qb_tile_numbered(const struct qb_batch *batch, uint64_t number,
                                        uint64_t index)
{
    uint64_t low = 0, high = batch->count;
    while (high - low > 1) {
        const uint64_t middle = low + (high - low) / 2;
        if (batch->pages[middle].first_tile <= number)
            low = middle;
        else
            high = middle;
    }
    struct qb_tile tile;
    tile.page = &batch->pages[low];
    tile.page_number = low;
    tile.index = index;
    tile.start = (number - tile.page->first_tile) * QB_TILE;
    const uint64_t left = tile.page->length - tile.start;
    tile.length = left < QB_TILE ? (uint32_t)left : QB_TILE;
    return tile;
}

/* Operations over all tiles. */
QB_ITEM uint64_t qb_tile_groups(const struct qb_batch *batch) { return batch->tiles; }

QB_ITEM struct qb_tile qb_tile_at(const struct qb_batch *batch, uint64_t index)
{
    return qb_tile_numbered(batch, index, index);
}

/* --- chunks --- */

QB_ITEM int qb_is_aligned(const void *p, unsigned alignment)
{
    return ((uintptr_t)p & (alignment - 1)) == 0;
}

/* 16 bytes that begin at a multiple of 16. */
QB_ITEM struct qb_chunk qb_load_aligned(const uint8_t *p)
{
    struct qb_chunk chunk;
#ifdef __CUDA_ARCH__
    const ulonglong2 both = *(const ulonglong2 *)p;
    chunk.lo = both.x;
    chunk.hi = both.y;
#else
    memcpy(&chunk, p, sizeof chunk);
#endif
    return chunk;
}

QB_ITEM void qb_store_aligned(uint8_t *p, struct qb_chunk chunk)
{
#ifdef __CUDA_ARCH__
    *(ulonglong2 *)p = make_ulonglong2(chunk.lo, chunk.hi);
#else
    memcpy(p, &chunk, sizeof chunk);
#endif
}

QB_ITEM uint8_t qb_chunk_byte(struct qb_chunk chunk, unsigned i)
{
    return (uint8_t)(i < 8 ? chunk.lo >> 8 * i : chunk.hi >> 8 * (i - 8));
}

/* A chunk with a single byte. */
QB_ITEM struct qb_chunk qb_chunk_of(uint8_t byte, unsigned i)
{
    struct qb_chunk chunk = {0, 0};
    if (i < 8)
        chunk.lo = (uint64_t)byte << 8 * i;
    else
        chunk.hi = (uint64_t)byte << 8 * (i - 8);
    return chunk;
}

QB_ITEM uint64_t qb_load_word(const uint8_t *p, unsigned n)
{
    uint64_t word = 0;
    if (n >= 8 && qb_is_aligned(p, 8))
        return *(const uint64_t *)(const void *)p;
    if (n >= 8 && qb_is_aligned(p, 4))
        return *(const uint32_t *)(const void *)p |
               (uint64_t) * (const uint32_t *)(const void *)(p + 4) << 32;
    for (unsigned i = 0; i < 8 && i < n; i++)
        word |= (uint64_t)p[i] << 8 * i;
    return word;
}

QB_ITEM void qb_store_word(uint8_t *p, unsigned n, uint64_t word)
{
    if (n >= 8 && qb_is_aligned(p, 8)) {
        *(uint64_t *)(void *)p = word;
        return;
    }
    for (unsigned i = 0; i < 8 && i < n; i++)
        p[i] = (uint8_t)(word >> 8 * i);
}

/* The first n bytes of a chunk, at any address; the others are 0. */
QB_ITEM struct qb_chunk qb_load_part(const uint8_t *p, unsigned n)
{
    struct qb_chunk chunk = {0, 0};
    if (n > 0)
        chunk.lo = qb_load_word(p, n);
    if (n > 8)
        chunk.hi = qb_load_word(p + 8, n - 8);
    return chunk;
}

QB_ITEM void qb_store_part(uint8_t *p, unsigned n, struct qb_chunk chunk)
{
    if (n > 0)
        qb_store_word(p, n, chunk.lo);
    if (n > 8)
        qb_store_word(p + 8, n - 8, chunk.hi);
}

/* The bytes of the tile that a chunk has. */
QB_ITEM unsigned qb_chunk_length(const struct qb_tile *tile, unsigned chunk)
{
    const uint32_t at = chunk * QB_CHUNK;
    if (at >= tile->length)
        return 0;
    return tile->length - at < QB_CHUNK ? tile->length - at : QB_CHUNK;
}

/* The thread's chunks of a tile whose bytes begin at `bytes`: all loads are issued before the
 * first is used. */
QB_ITEM void qb_load_chunks(const struct qb_tile *tile, const uint8_t *bytes, unsigned thread,
                            struct qb_chunk chunks[QB_ROUNDS])
{
    if (tile->length == QB_TILE && qb_is_aligned(bytes, QB_CHUNK)) {
        for (unsigned i = 0; i < QB_ROUNDS; i++)
            chunks[i] = qb_load_aligned(bytes + (thread + i * QB_TILE_THREADS) * QB_CHUNK);
        return;
    }
    for (unsigned i = 0; i < QB_ROUNDS; i++) {
        const unsigned chunk = thread + i * QB_TILE_THREADS;
        chunks[i] = qb_load_part(bytes + chunk * QB_CHUNK, qb_chunk_length(tile, chunk));
    }
}

QB_ITEM void qb_store_chunks(const struct qb_tile *tile, uint8_t *bytes, unsigned thread,
                             const struct qb_chunk chunks[QB_ROUNDS])
{
    if (tile->length == QB_TILE && qb_is_aligned(bytes, QB_CHUNK)) {
        for (unsigned i = 0; i < QB_ROUNDS; i++)
            qb_store_aligned(bytes + (thread + i * QB_TILE_THREADS) * QB_CHUNK, chunks[i]);
        return;
    }
    for (unsigned i = 0; i < QB_ROUNDS; i++) {
        const unsigned chunk = thread + i * QB_TILE_THREADS;
        qb_store_part(bytes + chunk * QB_CHUNK, qb_chunk_length(tile, chunk), chunks[i]);
    }
}

/* One chunk of a tile, at any address. */
QB_ITEM struct qb_chunk qb_load_chunk(const struct qb_tile *tile, const uint8_t *bytes,
                                      unsigned chunk)
{
    const uint8_t *p = bytes + chunk * QB_CHUNK;
    const unsigned n = qb_chunk_length(tile, chunk);
    return n == QB_CHUNK && qb_is_aligned(p, QB_CHUNK) ? qb_load_aligned(p) : qb_load_part(p, n);
}

QB_ITEM void qb_store_chunk(const struct qb_tile *tile, uint8_t *bytes, unsigned chunk,
                            struct qb_chunk value)
{
    uint8_t *p = bytes + chunk * QB_CHUNK;
    const unsigned n = qb_chunk_length(tile, chunk);
    if (n == QB_CHUNK && qb_is_aligned(p, QB_CHUNK))
        qb_store_aligned(p, value);
    else
        qb_store_part(p, n, value);
}

/* Bit i: byte i of the word is not 0. */
QB_ITEM uint32_t qb_word_mask(uint64_t word)
{
    const uint64_t low = UINT64_C(0x7f7f7f7f7f7f7f7f);
    const uint64_t any = ((((word & low) + low) | word) & ~low) >> 7;
    return (uint32_t)(any * UINT64_C(0x0102040810204080) >> 56);
}

QB_ITEM uint32_t qb_chunk_mask(struct qb_chunk chunk)
{
    return qb_word_mask(chunk.lo) | qb_word_mask(chunk.hi) << 8;
}

QB_ITEM struct qb_chunk qb_chunk_xor(struct qb_chunk a, struct qb_chunk b)
{
    struct qb_chunk x = {a.lo ^ b.lo, a.hi ^ b.hi};
    return x;
}

/* 0xff in each byte that the mask names. */
QB_ITEM uint64_t qb_spread(uint32_t mask)
{
    const uint64_t bits = mask * UINT64_C(0x0101010101010101) & UINT64_C(0x8040201008040201);
    const uint64_t low = UINT64_C(0x7f7f7f7f7f7f7f7f);
    return (((((bits & low) + low) | bits) & ~low) >> 7) * 0xff;
}

/* Puts the payload's bytes at the places that the mask names. */
QB_ITEM struct qb_chunk qb_combine_chunk(struct qb_chunk old, uint32_t mask, const uint8_t *payload,
                                         enum qb_combine combine)
{
    struct qb_chunk new_ = {0, 0};
    if (combine == QB_SET) {
        old.lo &= ~qb_spread(mask & 0xff);
        old.hi &= ~qb_spread(mask >> 8);
    }
    for (; mask != 0; mask &= mask - 1)
        new_ = qb_chunk_xor(new_, qb_chunk_of(*payload++, qb_lowest(mask)));
    return qb_chunk_xor(old, new_);
}

/* The reverse: the bytes of the chunk that the mask names. */
QB_ITEM void qb_pack_chunk(uint8_t *payload, struct qb_chunk chunk, uint32_t mask)
{
    for (; mask != 0; mask &= mask - 1)
        *payload++ = qb_chunk_byte(chunk, qb_lowest(mask));
}

/* --- sums over a group: 256 values, by 16 threads, then by one --- */

/* Values in front of each: within its row of 16 after qb_rows, and of all rows after qb_columns.
 */
struct qb_prefix {
    uint32_t before[QB_TILE_THREADS];
    uint32_t rows[QB_TILE_THREADS / 16 + 1]; /* the last is the total after qb_columns */
};

QB_ITEM void qb_prefix_rows(struct qb_prefix *prefix, unsigned thread)
{
    if (thread >= 16)
        return;
    uint32_t sum = 0;
    for (unsigned i = 0; i < 16; i++) {
        const uint32_t value = prefix->before[thread * 16 + i];
        prefix->before[thread * 16 + i] = sum;
        sum += value;
    }
    prefix->rows[thread] = sum;
}

QB_ITEM void qb_prefix_columns(struct qb_prefix *prefix, unsigned thread)
{
    if (thread != 0)
        return;
    uint32_t sum = 0;
    for (unsigned i = 0; i < 16; i++) {
        const uint32_t value = prefix->rows[i];
        prefix->rows[i] = sum;
        sum += value;
    }
    prefix->rows[16] = sum;
}

QB_ITEM uint32_t qb_prefix_before(const struct qb_prefix *prefix, unsigned i)
{
    return prefix->before[i] + prefix->rows[i / 16];
}

QB_ITEM uint32_t qb_prefix_total(const struct qb_prefix *prefix) { return prefix->rows[16]; }

#endif
