/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the checks of the kernels share. A check compares every version of one kernel with the
 * scalar reference on the case it is given; the driver (checkkernels.c) walks through the cases:
 * lengths around every boundary, fills that are biased towards what goes wrong, and three
 * placements:
 *
 *     at the end of a mapping     a read or write behind the buffer faults
 *     at the start of a mapping   a read or write in front of it faults
 *     misaligned in the middle    guard bytes on both sides are compared afterwards
 *
 * Whatever the placement, the sides that have no guard page have guard bytes.
 */
#ifndef CHECK_H
#define CHECK_H

#include "backend/kernels.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CK_MAX_LENGTH   (160u * 1024) /* of a checked buffer */
#define CK_MAX_VERSIONS 5

enum ck_fill {
    CK_EQUAL_ZERO,   /* both all 0 */
    CK_EQUAL_ONES,   /* both all ff */
    CK_EQUAL_RANDOM, /* equal, random bytes */
    CK_INVERTED,     /* every byte differs */
    CK_RANDOM,       /* independent: one byte in 256 is equal */
    CK_PERIODIC,     /* prime period 251 against period 249: equal stretches of every phase */
    CK_SPARSE,       /* one byte in 4096 differs, in one bit */
    CK_SCATTERED,    /* one byte in 500 */
    CK_CLUSTERS,     /* runs of differing and of equal bytes, of lengths around the gap */
    CK_ALTERNATING,  /* every other byte differs */
    CK_FIRST,        /* only the first byte differs */
    CK_LAST,         /* only the last byte differs */
    CK_FILLS
};

enum ck_placement { CK_AT_END, CK_AT_START, CK_MISALIGNED, CK_PLACEMENTS };

struct ck_case {
    size_t n;
    enum ck_fill fill;
    enum ck_placement placement;
    size_t gap;      /* for diff_runs */
    uint64_t number; /* any number, for seeds and limits */
};

/* A mapping between two guard pages. */
struct ck_buffer {
    uint8_t *mapping;
    size_t size;
    uint8_t *data; /* where the last ck_place() put it */
    size_t n;
};

struct ck_version {
    const char *name;
    struct qb_kernels table;
};

struct ck_check {
    const char *kernel;
    void (*run)(const struct ck_case *c);
    unsigned cases; /* 0: the walk through lengths, fills and placements; else that many random ones
                     * of length 0, for a check that chooses its own lengths */
};

/* The kernel under test on prepared bytes: `to` is a page that holds a copy of a. */
struct ck_bench_data {
    uint8_t *a, *b, *to, *mask, *payload;
    struct qb_run *runs;
    size_t n, gap, run_count;
};

enum ck_baseline { CK_MEMCPY, CK_MEMCMP, CK_MEMSET };

struct ck_bench {
    const char *kernel, *scenario;
    enum ck_fill fill;
    enum ck_baseline baseline;
    size_t (*run)(const struct qb_kernels *k, struct ck_bench_data *d);
};

/* One file per operation (copy.c, diff.c, apply.c, hash.c, batch.c); lists end with an empty entry.
 */
extern const struct ck_check ck_copy_checks[], ck_diff_checks[], ck_apply_checks[],
    ck_hash_checks[], ck_batch_checks[];
extern const struct ck_bench ck_copy_benches[], ck_diff_benches[], ck_apply_benches[],
    ck_hash_benches[];

/* The reference, and the versions to compare with it. */
extern struct ck_version ck_reference, ck_versions[CK_MAX_VERSIONS];
extern size_t ck_version_count;
#define CK_EACH_VERSION(v)                                                                         \
    for (const struct ck_version *v = ck_versions; v < ck_versions + ck_version_count; v++)

/* Random numbers that depend on the seed alone. */
void ck_random_start(uint64_t seed);
uint64_t ck_random(void);
uint64_t ck_random_below(uint64_t limit); /* limit >= 1 */

/* Maps room for n bytes in any placement; exits if there is no memory. */
void ck_buffer_init(struct ck_buffer *buffer, size_t n);
/* Puts n bytes in place, surrounded by guard bytes; their contents are undefined. */
uint8_t *ck_place(struct ck_buffer *buffer, size_t n, enum ck_placement placement);
bool ck_guards_intact(const struct ck_buffer *buffer);
/* The n bytes of the case's placement that belong to the number-th buffer of the check. */
uint8_t *ck_bytes(unsigned number, size_t n, enum ck_placement placement);

/* Fills a and b, n bytes each. */
void ck_fill_pair(uint8_t *a, uint8_t *b, size_t n, enum ck_fill fill, size_t gap);

/* Says which version runs next, for the report of a failure or of a fault. */
void ck_begin(const struct ck_version *version);
/* All fail the check if what they are told does not hold; a failure is reported once per kernel and
 * version. */
void ck_expect_number(uint64_t got, uint64_t expected, const char *what);
void ck_expect_bytes(const void *got, const void *expected, size_t n, const char *what);
void ck_expect_guards(void); /* around every buffer placed since the case began */
void ck_expect(bool holds, const char *what);

/* Walk through all cases of one check. Returns the number of failures. */
unsigned ck_run_check(const struct ck_check *check, uint64_t seed, unsigned rounds);

/* Times every bench whose "kernel/scenario" contains the filter; prints a table or JSON. */
void ck_run_benches(const char *filter, bool json);

#endif
