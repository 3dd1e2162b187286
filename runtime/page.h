/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages and the state: the table of all pages of one epoch.
 *
 * A page's content lies in the log. In memory a page holds its *pieces*: the ordered list of places
 * in the log whose bytes, one after the other, are the content. A delta replaces, inserts and
 * removes pieces; a move copies them; nothing is read. A state of an older epoch is just another
 * table of pieces over the same immutable log, so snapshots and history need no copies of content.
 *
 * Threads: a state is changed by one thread (the writer, under its store's lock); see
 * runtime/store.h.
 */
#ifndef QR_PAGE_H
#define QR_PAGE_H

#include <stddef.h>
#include <stdint.h>

#include "backend/kernels.h"

enum qr_kind { /* values are in the log format */
    QR_KIND_RAW = 1,     /* bytes: a program's page */
    QR_KIND_FILE = 2,    /* regular file */
    QR_KIND_DIRECTORY = 3,
    QR_KIND_SYMLINK = 4, /* content = target */
    QR_KIND_CONFIG = 5,  /* what Qallow itself keeps (rules of recording); not part of a tree */
    QR_KIND_TENSOR = 6,  /* extra = dtype and shape */
};

enum { QR_NAME_MAX = 4096, QR_EXTRA_MAX = 4096 };
#define QR_PAGE_SIZE_MAX (UINT64_C(1) << 48)

/* Where literal bytes stand: frame offset / 8 in the upper 44 bits, offset in the (decompressed)
 * body in the lower 20. QR_REF_ZERO: zeros that are stored nowhere. */
typedef uint64_t qr_ref;
#define QR_REF_ZERO UINT64_MAX
static inline qr_ref qr_ref_make(uint64_t frame_offset, uint64_t body_offset)
{
    return frame_offset / 8 << 20 | body_offset;
}
static inline uint64_t qr_ref_frame(qr_ref ref) { return (ref >> 20) * 8; }
static inline uint32_t qr_ref_body(qr_ref ref) { return (uint32_t)(ref & 0xfffff); }

struct qr_piece {
    qr_ref ref;
    uint64_t length;
};

enum { QR_RECENT_MAX = 15, QR_PIECES_MAX = (1 << 28) - 1 };

/* What a directory entry looked like when its content was read; not logged, kept in the index. */
struct qr_stat_cache {
    uint64_t device, inode; /* inode 0: nothing known, the file must be read */
    int64_t ctime_ns;
};

struct qr_page {
    /* What a delta touches, in one line of the cache: pages are aligned to it (state.c). */
    _Alignas(64) uint64_t id; /* never reused; 0 is no page */
    uint64_t size;    /* bytes of content */
    uint64_t version; /* epoch that last changed it */
    struct qb_u128 content_sum; /* sum of the cells' digest terms (hash_cells with qr_page_seed) */
    /* The pieces in order; behind them `recent_count` overwrites that are not yet in their places
     * (pieces.c): to look at the pieces, take a copy. One piece may stand in inline_piece. */
    struct qr_piece *pieces;
    uint64_t piece_count : 28, piece_capacity : 28, recent_count : 4;
    uint64_t kind : 3;         /* enum qr_kind; 0: freed */
    uint64_t held_is_used : 1; /* since the hand of held.c passed */
    uint8_t *held;    /* the content in memory as well (held.c), or NULL */
    /* Everything else. */
    struct qr_held *held_entry; /* what is known of it */
    uint32_t held_missed; /* times it was asked for in memory since it was there last */
    struct qr_piece inline_piece;
    uint64_t parent;  /* page id of the directory; 0 for a root */
    char *name;       /* name_length bytes and a NUL; for kinds of a tree without '/' and NUL */
    uint8_t *extra;   /* attribute bytes of the kind, or NULL */
    int64_t mtime_ns;
    struct qr_stat_cache stat;
    uint32_t mode;    /* permission bits (07777) */
    uint16_t name_length, extra_length;
    uint8_t mark;     /* scratch for whoever scans (0 between scans) */
    uint32_t slot, first_child, next_sibling, previous_sibling; /* slot numbers, 0 = none */
};

_Static_assert(sizeof(struct qr_page) == 192, "three lines of the cache");

struct qr_state;

int qr_state_create(struct qr_state **state);
void qr_state_destroy(struct qr_state *state); /* NULL is legal */
/* A copy that shares nothing (pieces are references into the log). */
int qr_state_clone(const struct qr_state *state, struct qr_state **copy);

uint64_t qr_state_epoch(const struct qr_state *state);
struct qb_u128 qr_state_digest(const struct qr_state *state);
int64_t qr_state_time_ns(const struct qr_state *state); /* of the epoch's commit; 0 for epoch 0 */
size_t qr_state_page_count(const struct qr_state *state);
uint64_t qr_state_bytes(const struct qr_state *state);  /* sum of the sizes */

/* NULL if there is none. Pointers stay valid until the state changes. */
struct qr_page *qr_state_find(const struct qr_state *state, uint64_t id);
struct qr_page *qr_state_child(const struct qr_state *state, uint64_t parent, const void *name,
                               size_t length);
/* First child (parent 0: first root) and next sibling, in no particular order. */
struct qr_page *qr_state_first_child(const struct qr_state *state, uint64_t parent);
struct qr_page *qr_state_next_sibling(const struct qr_state *state, const struct qr_page *page);
/* All pages in ascending id: start with after = 0; NULL at the end. O(log n) or better a step. */
struct qr_page *qr_state_next_page(const struct qr_state *state, uint64_t after);
/* "a/b/c" below `root` (a page id). An empty path or "." is the root itself. NULL if none. */
struct qr_page *qr_state_lookup(const struct qr_state *state, uint64_t root, const char *path);
/* Writes the path of a page relative to its root ("." for a root) into buffer; returns its length
 * without NUL, or QALLOW_E_LIMIT if it does not fit. */
int64_t qr_page_path(const struct qr_state *state, const struct qr_page *page, char *buffer,
                     size_t size);

/* --- digest (docs/formats/tlog.md, "Digest") --- */

/* Seed of a page's cells. */
uint64_t qr_page_seed(uint64_t id);
/* The term for a page's existence, kind, size, name and attributes. The digest of a state is the
 * sum of qr_page_term(page) + page->content_sum over its pages. */
struct qb_u128 qr_page_term(const struct qr_page *page);

#endif
