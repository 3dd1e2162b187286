/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels that write changes into a page, compiled once per instruction set: apply_mask,
 * pack_mask (its reverse) and apply_runs. The including file provides
 *
 *     void block_expand(page, mask, payload)     page[i] = next payload byte where bit i is set;
 *                                                may read BLOCK bytes of payload
 *     void block_compress(payload, page, mask)   the reverse; may write BLOCK bytes of payload
 *
 * Both run freely over whole blocks. Only the last BLOCK bytes of payload need care, because what
 * lies behind them is not ours: they go through a padded buffer. For this the payload's length is
 * needed beforehand; counting the mask's bits costs a few percent of the whole.
 */
#ifndef QB_CPU_APPLY_H
#define QB_CPU_APPLY_H

#include "backend/cpu/block.h"

/* The mask of the block at `at` of n bytes. */
static inline uint64_t load_mask(const uint8_t *mask, size_t at, size_t n)
{
    uint64_t word = 0;
    if (n - at >= BLOCK)
        memcpy(&word, mask + at / 8, sizeof(word));
    else
        memcpy(&word, mask + at / 8, (n - at + 7) / 8);
    return word;
}

static size_t mask_count(const uint8_t *mask, size_t n)
{
    size_t count = 0;
    for (size_t at = 0; at < n; at += BLOCK)
        count += bit_count(load_mask(mask, at, n));
    return count;
}

static size_t apply_mask(void *page, size_t n, const uint8_t *mask, const uint8_t *payload)
{
    uint8_t *bytes = page;
    uint8_t padded[2 * BLOCK] = {0};
    const size_t total = mask_count(mask, n);
    bool in_padded = false;
    for (size_t at = 0, left = total; left > 0; at += BLOCK) {
        uint64_t word = load_mask(mask, at, n);
        if (word == 0)
            continue;
        if (left < BLOCK && !in_padded) {
            payload = memcpy(padded, payload, left);
            in_padded = true;
        }
        if (word == UINT64_MAX) {
            memcpy(bytes + at, payload, BLOCK);
        } else if (n - at >= BLOCK) {
            block_expand(bytes + at, word, payload);
        } else {
            uint8_t last[BLOCK] = {0};
            memcpy(last, bytes + at, n - at);
            block_expand(last, word, payload);
            memcpy(bytes + at, last, n - at);
        }
        payload += bit_count(word);
        left -= bit_count(word);
    }
    return total;
}

static size_t pack_mask(uint8_t *payload, const void *page, size_t n, const uint8_t *mask)
{
    const uint8_t *bytes = page;
    uint8_t padded[2 * BLOCK];
    uint8_t *to = payload, *end_of_direct = NULL; /* where the padded bytes belong */
    const size_t total = mask_count(mask, n);
    for (size_t at = 0, left = total; left > 0; at += BLOCK) {
        uint64_t word = load_mask(mask, at, n);
        if (word == 0)
            continue;
        if (left < BLOCK && end_of_direct == NULL) {
            end_of_direct = to;
            to = padded;
        }
        if (word == UINT64_MAX) {
            memcpy(to, bytes + at, BLOCK);
        } else if (n - at >= BLOCK) {
            block_compress(to, bytes + at, word);
        } else {
            uint8_t last[BLOCK] = {0};
            memcpy(last, bytes + at, n - at);
            block_compress(to, last, word);
        }
        to += bit_count(word);
        left -= bit_count(word);
    }
    if (end_of_direct != NULL)
        memcpy(end_of_direct, padded, (size_t)(to - padded));
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
