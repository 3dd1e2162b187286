/* SPDX-License-Identifier: Apache-2.0 */
/* What the delta tests share: random content, encoding in parts, and a second implementation of
 * edits and operations, written only from the comment at the head of runtime/delta.h. */
#ifndef TESTS_DELTA_SUPPORT_H
#define TESTS_DELTA_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/apply_bytes.h"
#include "runtime/delta.h"
#include "runtime/error.h"

/* Random numbers. The seed is printed; QALLOW_SEED repeats a run. */
extern uint64_t test_seed;
void seed_from_environment(void);
uint64_t random_u64(void);
uint64_t random_below(uint64_t limit); /* limit > 0 */
/* QALLOW_ROUNDS, else `usual`. */
unsigned rounds(unsigned usual);

/* Bytes of their own, allocated to the exact size so that a sanitizer sees every overrun. */
struct bytes {
    uint8_t *p;
    size_t n;
};
struct bytes bytes_new(size_t n);
struct bytes bytes_copy(const void *p, size_t n);
void bytes_free(struct bytes *b);
/* Replaces old_length bytes at `at` by others. */
void bytes_splice(struct bytes *b, size_t at, size_t old_length, const void *p, size_t n);

enum content {
    CONTENT_RANDOM,
    CONTENT_TEXT,
    CONTENT_ZEROS,
    CONTENT_PERIODIC,
    CONTENT_BLOCKS,
    CONTENT_SPARSE,
    CONTENT_FLOATS,
    CONTENT_ONES,
    CONTENT_KINDS
};
struct bytes content_new(enum content kind, size_t n);
/* One random change of any sort: overwrite, insert, remove, move, swap, copy, zero, scatter. */
void mutate(struct bytes *b);

/* Encoded operations, in the parts that the encoder gave. */
struct parts {
    struct bytes *part;
    size_t count;
};
struct encoding {
    struct qr_encode_cost cost;
    size_t capacity;
    int with_old;
};
struct parts encode(struct qr_edits *list, const struct bytes *old, struct encoding how);
size_t parts_bytes(const struct parts *parts);
void parts_free(struct parts *parts);

/* Numbers of one delta. */
struct tally {
    size_t edits, literal, copies, copied, zeros, encoded, operations;
};
/* Diffs, encodes, applies in every way, and fails the test if anything is not as promised. */
struct tally check_pair(const struct bytes *old, const struct bytes *new_, struct encoding how,
                        size_t max_index_bytes);

/* The second implementation. Returns 1, or 0 if the operations are not valid. *old_end and out are
 * carried from part to part; *last: keep the rest of old behind this part. */
struct reference {
    const uint8_t *old;
    uint64_t old_size, old_end;
    uint8_t *out;
    uint64_t size, capacity;
    size_t operations;
};
int reference_apply(struct reference *r, const uint8_t *p, size_t n, int last);

/* Any bytes: both implementations agree on what is valid and on the result, and nothing outside is
 * read or written (a sanitizer build sees it). */
void check_operations(const struct bytes *ops, const struct bytes *old);

#endif
