/* SPDX-License-Identifier: Apache-2.0 */
/* A transaction of the public API while it gathers changes, and when it commits. */
#ifndef QR_API_TRANSACTION_H
#define QR_API_TRANSACTION_H

#include "runtime/api.h"
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

/* A page the transaction has to do with. As long as it is only written over it has `overwrites`, by
 * ascending offset, which do not overlap; the first other change turns them into segments. */
struct edited {
    uint64_t id;
    const struct qr_page *page; /* as it is in the store; NULL: made by the transaction */
    int created, freed;
    uint64_t parent; /* where the transaction has put it; name NULL: it is where it was */
    char *name;
    uint64_t old_size, size;
    struct overwrite *overwrites;
    size_t overwrite_count, overwritten; /* their number, and bytes */
    struct segment *segments;
    size_t count, capacity;
    struct qr_content content; /* the old one; once has_content */
    int has_content;
    size_t at;          /* a segment and where it begins in the new content: reads and writes */
    uint64_t at_offset; /* that go forward do not search from the beginning */
};

/* Memory that is freed when the transaction ends. */
struct block {
    struct block *next;
    size_t capacity, used;
    _Alignas(16) uint8_t bytes[];
};

struct qallow_txn {
    struct qallow_store *store;
    struct qr_txn *txn;
    struct qr_batch *batch;
    struct qr_reader *reader;
    struct edited **pages; /* in the order they were met */
    size_t count, capacity;
    size_t *table; /* open addressing: id -> index in pages + 1 */
    size_t table_size;
    struct block *blocks;
    uint8_t *old_bytes, *new_bytes; /* buffers of the commit, QR_API_CHUNK bytes each */
    struct qr_edits edits;          /* used again for each page */
};

enum { QR_API_CHUNK = 1 << 20 }; /* old and new bytes compared at once; a multiple of QB_CELL */

/* Memory until the transaction ends; NULL if there is none (NO_MEMORY as detail). */
void *qr_api_txn_alloc(struct qallow_txn *txn, size_t size);
/* Before a change that is no overwrite: the content, and segments that are all of it. */
int qr_api_load_content(struct qallow_txn *txn, struct edited *e);

/* --- api_overwrite.c --- */
/* 1: it is an overwrite and has been noted; 0: it is none, or there are too many. */
int qr_api_overwrite(struct qallow_txn *txn, struct edited *e, uint64_t offset, const void *bytes,
                     size_t length);
/* Writes the delta of a page that has overwrites only. */
int qr_api_write_overwrites(struct qallow_txn *txn, struct edited *e);

/* Reads [offset, +length) of a page's new content, which must lie in it. */
int qr_api_read_edited(struct qallow_txn *txn, struct edited *e, uint64_t offset, uint8_t *to,
                       size_t length);
void qr_api_txn_destroy(struct qallow_txn *txn);

#endif
