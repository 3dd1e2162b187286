/* SPDX-License-Identifier: Apache-2.0 */
/* A transaction of the public API while it gathers changes, and when it commits. */
#ifndef QR_API_TRANSACTION_H
#define QR_API_TRANSACTION_H

#include "runtime/api.h"
#include "runtime/arena.h"
#include "runtime/batch.h"
#include "runtime/delta.h"

enum source { OLD, GIVEN, ZEROS };

struct segment {
    enum source source;
    uint64_t length;
    uint64_t from;        /* OLD: offset in the old content */
    const uint8_t *bytes; /* GIVEN: in the transaction's blocks */
};

/* Bytes written over others of a page, whose size stays. */
struct overwrite {
    struct overwrite *next;
    uint64_t offset;
    size_t length;
    uint8_t bytes[];
};

/* A page the transaction has to do with; no other transaction has while this one is open. As long
 * as it is only written over it has `overwrites`, by ascending offset, which do not overlap; the
 * first other change turns them into segments. */
struct edited {
    uint64_t id;
    struct qallow_txn *txn;
    int created, freed;
    struct qb_u128 old_sum; /* of the cells of its old content */
    const uint8_t *held;    /* the old content in memory, or NULL */
    uint64_t parent;        /* where the transaction has put it; name NULL: it is where it was */
    char *name;
    uint64_t old_size, size;
    struct overwrite *overwrites;
    size_t overwrite_count, overwritten; /* their number, and bytes */
    struct segment *segments;
    size_t count, capacity;
    int has_segments;
    struct qr_content content; /* the old one; pieces NULL until it has to be read */
    size_t at;          /* a segment and where it begins in the new content: reads and writes */
    uint64_t at_offset; /* that go forward do not search from the beginning */
};

/* Memory that is freed when the transaction ends. */
struct block {
    struct block *next;
    size_t capacity, used;
    _Alignas(16) uint8_t bytes[];
};

/* What a transaction works with, kept for the next one. */
struct qr_api_work {
    struct qr_batch *batch;
    struct qr_reader *reader;
    struct qr_edits edits;          /* used again for each page */
    uint8_t *old_bytes, *new_bytes; /* buffers of the commit, QR_API_CHUNK bytes each; or NULL */
    struct block *blocks;           /* empty ones */
    size_t block_count;
};

struct qallow_txn {
    struct qallow_store *store;
    struct qallow_txn *next, *previous; /* open ones */
    struct qr_api_work *work;
    struct edited **pages; /* in the order they were met */
    size_t count, capacity;
    int is_structural; /* it has claimed the structure */
    uint64_t next_id;  /* of a page to create; 0: it has created none */
    struct block *blocks;
    struct qr_arena events; /* emitted in it, encoded */
    int is_forced;          /* it brings all derived pages up to date */
};

enum {
    QR_API_CHUNK = 1 << 20, /* old and new bytes compared at once; a multiple of QB_CELL */
    QR_API_AT_ONCE = 32,    /* writes whose pages are looked up together */
};

/* Memory until the transaction ends; NULL if there is none (NO_MEMORY as detail). */
void *qr_api_txn_alloc(struct qallow_txn *txn, size_t size);
/* Before a change that is no overwrite: segments that are all of the content. */
int qr_api_make_segments(struct edited *e);

/* --- api_claims.c --- */
/* The page as the transaction sees it. Met for the first time it is as in the store, and becomes
 * the transaction's. PAGE_NOT_FOUND, BUSY, NO_MEMORY. */
int qr_api_get_edited(struct qallow_txn *txn, uint64_t id, struct edited **edited);
/* The same for the pages of some writes, `count` of them at most QR_API_AT_ONCE; *got says of how
 * many before the first that fails. */
int qr_api_get_each(struct qallow_txn *txn, const struct qallow_write *writes, size_t count,
                    struct edited **edited, size_t *got);
/* The same for a page that the transaction may not have met; NULL if it has not. */
struct edited *qr_api_find_edited(struct qallow_txn *txn, uint64_t id);
/* The only transaction that creates, renames, frees pages or sets their attributes. BUSY. */
int qr_api_claim_structure(struct qallow_txn *txn);
void qr_api_release_structure(struct qallow_txn *txn); /* once it has landed */
/* A page that is to be created, and its id. After qr_api_claim_structure. */
int qr_api_add_created(struct qallow_txn *txn, struct edited **edited);
/* The old content in memory, to be read until the transaction lands; NULL if it cannot be had
 * whole. */
const uint8_t *qr_api_hold(struct qallow_txn *txn, struct edited *e);
/* For the state, whose lock of pages is held: is a page of the store `context` claimed? */
int qr_api_is_claimed(void *context, uint64_t page);
/* Pages and structure are free for others. */
void qr_api_release(struct qallow_txn *txn);
int qr_api_work_take(struct qallow_store *store, struct qr_api_work **work);
/* The transaction's memory is for the next one. */
void qr_api_give_blocks(struct qallow_txn *txn);
void qr_api_work_give(struct qallow_store *store, struct qr_api_work *work);
void qr_api_work_destroy(struct qr_api_work *work);

/* --- api_overwrite.c --- */
/* 1: it is an overwrite and has been noted; 0: it is none, or there are too many. */
int qr_api_overwrite(struct qallow_txn *txn, struct edited *e, uint64_t offset, const void *bytes,
                     size_t length);
/* Writes the delta of a page that has overwrites only. */
int qr_api_write_overwrites(struct qallow_txn *txn, struct edited *e);

/* [offset, +length) of a page's old or new content, which must lie in it, at most QR_API_CHUNK:
 * where it is in memory already, or read into work->old_bytes or new_bytes, and then good until the
 * next call. The old content is good until the transaction lands. */
int qr_api_old_bytes(struct qallow_txn *txn, struct edited *e, uint64_t offset, size_t length,
                     const uint8_t **bytes);
int qr_api_new_bytes(struct qallow_txn *txn, struct edited *e, uint64_t offset, size_t length,
                     const uint8_t **bytes);
void qr_api_txn_destroy(struct qallow_txn *txn);

#endif
