/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scalar kernels: the reference that says what every other version must do, byte for byte. They
 * are written to be read, never optimised, and use nothing but C and the C library, so they are
 * also the version of every machine that has no other.
 */
#include <stdbool.h>
#include <string.h>

#include "backend/kernels.h"

static bool cell_zero(const uint8_t *p)
{
    uint64_t any = 0, word;
    for (size_t i = 0; i < QB_CELL; i += sizeof word) {
        memcpy(&word, p + i, sizeof word);
        any |= word;
    }
    return !any;
}

#include "backend/cpu/hash.h"
#include "backend/cpu/versions.h"

#include <string.h>

/* (The C library takes no null pointer, not even for 0 bytes; the kernels do.) */
static void copy(void *to, const void *from, size_t n)
{
    if (n > 0)
        memcpy(to, from, n);
}

static void zero(void *to, size_t n)
{
    if (n > 0)
        memset(to, 0, n);
}

static int is_zero(const void *p, size_t n)
{
    const uint8_t *bytes = p;
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] != 0)
            return 0;
    }
    return 1;
}

static size_t common_prefix(const void *a, const void *b, size_t n)
{
    const uint8_t *x = a, *y = b;
    size_t length = 0;
    while (length < n && x[length] == y[length])
        length++;
    return length;
}

static size_t common_suffix(const void *a, const void *b, size_t n)
{
    const uint8_t *x = a, *y = b;
    size_t length = 0;
    while (length < n && x[n - 1 - length] == y[n - 1 - length])
        length++;
    return length;
}

static size_t diff_runs(const void *a, const void *b, size_t n, size_t gap, struct qb_run *runs,
                        size_t max, size_t *scanned)
{
    const uint8_t *x = a, *y = b;
    size_t count = 0, end = 0, i = 0; /* end: of the last run written */
    for (;;) {
        while (i < n && x[i] == y[i])
            i++;
        if (i == n)
            break;
        size_t start = i;
        while (i < n && x[i] != y[i])
            i++;
        if (count > 0 && start - end < gap) {
            runs[count - 1].length = i - runs[count - 1].offset;
        } else if (count < max) {
            runs[count++] = (struct qb_run){start, i - start};
        } else {
            *scanned = end;
            return count;
        }
        end = i;
    }
    *scanned = n;
    return count;
}

static int bit(const uint8_t *mask, size_t i) { return mask[i / 8] >> (i % 8) & 1; }

static size_t diff_mask(const void *a, const void *b, size_t n, uint8_t *mask)
{
    const uint8_t *x = a, *y = b;
    size_t count = 0;
    zero(mask, n / 8 + (n % 8 != 0));
    for (size_t i = 0; i < n; i++) {
        if (x[i] != y[i]) {
            mask[i / 8] |= (uint8_t)(1u << (i % 8));
            count++;
        }
    }
    return count;
}

static size_t diff_blocks(const void *a, const void *b, size_t n, uint32_t *blocks, uint64_t *masks)
{
    const uint8_t *x = a, *y = b;
    size_t count = 0;
    for (size_t at = 0; at < n; at += QB_BLOCK) {
        uint64_t mask = 0;
        for (size_t i = 0; i < QB_BLOCK && i < n - at; i++)
            mask |= (uint64_t)(x[at + i] != y[at + i]) << i;
        if (mask != 0) {
            blocks[count] = (uint32_t)(at / QB_BLOCK);
            masks[count++] = mask;
        }
    }
    return count;
}

static size_t count_mask(const uint8_t *mask, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += bit(mask, i);
    return count;
}

static void apply_mask(void *page, size_t n, const uint8_t *mask, const uint8_t *payload,
                       size_t count)
{
    uint8_t *bytes = page;
    size_t used = 0;
    for (size_t i = 0; i < n && used < count; i++) {
        if (bit(mask, i))
            bytes[i] = payload[used++];
    }
}

static size_t pack_mask(uint8_t *payload, const void *page, size_t n, const uint8_t *mask)
{
    const uint8_t *bytes = page;
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        if (bit(mask, i))
            payload[used++] = bytes[i];
    }
    return used;
}

static size_t apply_runs(void *page, const struct qb_run *runs, size_t count,
                         const uint8_t *payload)
{
    uint8_t *bytes = page;
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        copy(bytes + runs[i].offset, payload + used, runs[i].length);
        used += runs[i].length;
    }
    return used;
}

void qb_init_scalar(struct qb_kernels *table)
{
    *table = (struct qb_kernels){
        .copy = copy,
        .zero = zero,
        .is_zero = is_zero,
        .common_prefix = common_prefix,
        .common_suffix = common_suffix,
        .diff_runs = diff_runs,
        .diff_mask = diff_mask,
        .diff_blocks = diff_blocks,
        .count_mask = count_mask,
        .apply_mask = apply_mask,
        .pack_mask = pack_mask,
        .apply_runs = apply_runs,
        .hash_cells = hash_cells,
        .hash_changed = hash_changed,
        .hash64 = hash64,
        .hash128 = hash128,
        .hash128_begin = hash128_begin,
        .hash128_update = hash128_update,
        .hash128_end = hash128_end,
        .name = "scalar",
    };
}
