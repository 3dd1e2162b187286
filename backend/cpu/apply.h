/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels that write changes into a page, compiled once per instruction set: count_mask,
 * apply_mask, pack_mask (its reverse) and apply_runs. The including file provides
 *
 *     void block_expand(page, mask, payload)     page[i] = next payload byte where bit i is set;
 *                                                may read EXPAND_READS bytes of payload, if that
 *                                                is more: BLOCK, or 0
 *     void block_compress(payload, page, mask)   the reverse; may write BLOCK bytes of payload
 *     size_t count_blocks(mask, n)               the bits set in n whole blocks
 *
 * They run freely over whole blocks. Only the last bytes of payload need care, because what lies
 * behind them is not ours: they go through a padded buffer. For this the payload's length is needed
 * beforehand.
 */
#ifndef QB_CPU_APPLY_H
#define QB_CPU_APPLY_H

#include "backend/cpu/block.h"

/* The mask of BLOCK bytes. */
static inline uint64_t whole_mask(const uint8_t *mask)
{
    uint64_t word;
    memcpy(&word, mask, sizeof(word));
    return word;
}

/* The mask of 0 < n < BLOCK bytes. */
static inline uint64_t part_mask(const uint8_t *mask, size_t n)
{
    uint64_t word = 0;
    memcpy(&word, mask, (n + 7) / 8);
    return word;
}

static size_t count_mask(const uint8_t *mask, size_t n)
{
    size_t blocks = n / (8 * BLOCK), at = blocks * 8 * BLOCK, count = count_blocks(mask, blocks);
    for (; n - at >= BLOCK; at += BLOCK)
        count += bit_count(whole_mask(mask + at / 8));
    return at == n ? count : count + bit_count(part_mask(mask + at / 8, n - at));
}

/* How far apply_mask or pack_mask has come. */
struct progress {
    size_t at;        /* in the page and its mask */
    size_t left;      /* payload bytes still to come */
    uint8_t *payload; /* the next of them */
};

/* Goes on over whole blocks while at least `least` bytes of payload are left. */
static inline void expand_blocks(struct progress *go, uint8_t *page, size_t n, const uint8_t *mask,
                                 size_t least)
{
    for (; n - go->at >= BLOCK && go->left >= least; go->at += BLOCK) {
        uint64_t word = whole_mask(mask + go->at / 8);
        if (word == UINT64_MAX)
            memcpy(page + go->at, go->payload, BLOCK);
        else if (word != 0)
            block_expand(page + go->at, word, go->payload);
        go->payload += bit_count(word);
        go->left -= bit_count(word);
    }
}

static void apply_mask(void *page, size_t n, const uint8_t *mask, const uint8_t *payload,
                       size_t count)
{
    uint8_t padded[2 * BLOCK] = {0}, last[BLOCK] = {0};
    struct progress go = {0, count, (uint8_t *)(uintptr_t)payload}; /* is only read */
    expand_blocks(&go, page, n, mask, EXPAND_READS ? EXPAND_READS : 1);
    if (go.left == 0)
        return;
    go.payload = memcpy(padded, go.payload, go.left);
    expand_blocks(&go, page, n, mask, 1);
    if (go.left > 0) {
        uint8_t *part = (uint8_t *)page + go.at;
        memcpy(last, part, n - go.at);
        block_expand(last, part_mask(mask + go.at / 8, n - go.at), go.payload);
        memcpy(part, last, n - go.at);
    }
}

static inline void compress_blocks(struct progress *go, const uint8_t *page, size_t n,
                                   const uint8_t *mask, size_t least)
{
    for (; n - go->at >= BLOCK && go->left >= least; go->at += BLOCK) {
        uint64_t word = whole_mask(mask + go->at / 8);
        if (word == UINT64_MAX)
            memcpy(go->payload, page + go->at, BLOCK);
        else if (word != 0)
            block_compress(go->payload, page + go->at, word);
        go->payload += bit_count(word);
        go->left -= bit_count(word);
    }
}

static size_t pack_mask(uint8_t *payload, const void *page, size_t n, const uint8_t *mask)
{
    uint8_t padded[2 * BLOCK], last[BLOCK] = {0};
    const size_t total = count_mask(mask, n);
    struct progress go = {0, total, payload};
    compress_blocks(&go, page, n, mask, BLOCK);
    if (go.left == 0)
        return total;
    const size_t direct = total - go.left;
    go.payload = padded;
    compress_blocks(&go, page, n, mask, 1);
    if (go.left > 0) {
        memcpy(last, (const uint8_t *)page + go.at, n - go.at);
        block_compress(go.payload, last, part_mask(mask + go.at / 8, n - go.at));
    }
    memcpy(payload + direct, padded, total - direct);
    return total;
}

/* Copies of at most BLOCK bytes without a call: two moves that overlap cover every length. */
static inline void copy_short(uint8_t *to, const uint8_t *from, size_t n)
{
    if (n > 32) {
        memcpy(to, from, 32);
        memcpy(to + n - 32, from + n - 32, 32);
    } else if (n >= 16) {
        memcpy(to, from, 16);
        memcpy(to + n - 16, from + n - 16, 16);
    } else if (n >= 8) {
        memcpy(to, from, 8);
        memcpy(to + n - 8, from + n - 8, 8);
    } else if (n >= 4) {
        memcpy(to, from, 4);
        memcpy(to + n - 4, from + n - 4, 4);
    } else if (n > 0) {
        to[0] = from[0];
        to[n / 2] = from[n / 2];
        to[n - 1] = from[n - 1];
    }
}

static size_t apply_runs(void *page, const struct qb_run *runs, size_t count,
                         const uint8_t *payload)
{
    uint8_t *bytes = page;
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        size_t length = runs[i].length;
        if (length <= BLOCK)
            copy_short(bytes + runs[i].offset, payload + used, length);
        else
            memcpy(bytes + runs[i].offset, payload + used, length);
        used += length;
    }
    return used;
}

#endif
