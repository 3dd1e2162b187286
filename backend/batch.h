/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a device is asked to do: one operation over a batch of pages of any lengths, described by
 * one array of descriptors, in one launch.
 *
 * Pages are worked on in tiles of 16 KiB, numbered through the batch; a group of 256 threads takes
 * a tile at a time and finds its page by binary search. Within a tile a thread takes chunks of 16
 * bytes, one memory access each. Where changes are listed, they are listed by segments of 256
 * bytes, so that no list crosses the work of another thread.
 *
 * A delta names, per touched tile, its touched segments; per touched segment its runs; then their
 * bytes. Everything in it follows from the two contents (no choice, no order of threads), so any
 * device and the CPU make the same bytes (docs/formats/delta.md).
 */
#ifndef QB_BATCH_H
#define QB_BATCH_H

#include <stdint.h>

#include "backend/u128.h"

#define QB_CHUNK         16u
#define QB_SEGMENT       256u
#define QB_TILE          16384u
#define QB_TILE_CHUNKS   (QB_TILE / QB_CHUNK)
#define QB_TILE_SEGMENTS (QB_TILE / QB_SEGMENT)
#define QB_TILE_CELLS    (QB_TILE / QB_CELL)
#define QB_TILE_WORDS    (QB_TILE / 64) /* 64-bit words of its bit mask */
#define QB_TILE_THREADS  256u
/* Runs of a delta that fewer equal bytes part are one run: a run costs two bytes. */
#define QB_DELTA_GAP 3u

enum qb_operation {
    QB_COPY,        /* to = from */
    QB_ZERO,        /* to = 0 */
    QB_COMPARE,     /* found: where from and base (NULL: zeros) differ first and last */
    QB_HASH,        /* sums: of the cells of from */
    QB_DIFF_MASK,   /* mask of the bytes where from and base differ, counts per tile */
    QB_COUNT_MASK,  /* counts per tile, of a mask */
    QB_PACK_MASK,   /* payload: the bytes of from under the mask; counts are scanned */
    QB_APPLY_MASK,  /* the reverse, into to */
    QB_APPLY_DENSE, /* all bytes of from into to */
    QB_DELTA_DIFF,  /* mask, counts, sums of from, base_sums of base */
    QB_DELTA_EMIT,  /* the delta from base to from; counts are scanned */
    QB_DELTA_COUNT, /* counts per entry, of a delta */
    QB_DELTA_CHECK, /* status: whether the delta is well-formed; counts are scanned */
    QB_DELTA_APPLY, /* a checked delta into to; counts are scanned */
    QB_OPERATIONS
};

enum qb_combine {
    QB_SET, /* the new byte */
    QB_XOR, /* old ^ new: the same delta leads there and back */
};

struct qb_batch_page {
    uint8_t *to;
    const uint8_t *from, *base;
    uint64_t length;           /* bytes of each of them that is used */
    uint64_t first_tile;       /* tiles of the pages before it */
    uint64_t seed, first_cell; /* of the cells, as in hash_cells */
};

/* What tiles or entries hold; after the scan: what all before them hold. */
struct qb_counts {
    uint64_t entries, segments, records, bytes;
};

/* One touched tile of a delta. */
struct qb_delta_entry {
    uint64_t tile;     /* number in the batch */
    uint64_t segments; /* bit i: segment i is touched */
    uint32_t records;  /* runs in all of them */
    uint32_t bytes;    /* of payload */
};

/* The parts of a delta; `total` says how many of each. */
struct qb_delta_parts {
    struct qb_delta_entry *entries;
    uint16_t *records; /* each: offset in the segment | length - 1 << 8 */
    uint8_t *segments; /* the number of runs of each touched segment */
    uint8_t *payload;
    struct qb_counts total;
};

/* Where two contents differ; first == length and last == 0 if they do not. */
struct qb_found {
    uint64_t first;
    uint64_t last; /* the number of bytes up to and with the last one that differs */
};

struct qb_batch {
    const struct qb_batch_page *pages;
    uint64_t count, tiles;
    uint64_t *mask;                   /* QB_TILE_WORDS for each tile */
    struct qb_counts *counts;         /* for each tile or entry, and one more */
    uint8_t *payload;                 /* of masks */
    struct qb_found *found;           /* for each page; to be set to {length, 0} */
    struct qb_u128 *sums, *base_sums; /* for each page; added to */
    struct qb_delta_parts delta;
    uint32_t *status; /* not 0: a delta is malformed; to be set to 0 */
    enum qb_combine combine;
};

/* The tiles that `length` bytes take. */
QB_ITEM uint64_t qb_tiles(uint64_t length) { return length / QB_TILE + (length % QB_TILE != 0); }

#endif
