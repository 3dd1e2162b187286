/* SPDX-License-Identifier: Apache-2.0 */
/* A transaction of the public API while it gathers changes, and when it commits. */
#ifndef QR_API_TRANSACTION_H
#define QR_API_TRANSACTION_H

#include "runtime/api.h"
#include "runtime/batch.h"

enum source { OLD, GIVEN, ZEROS };

struct segment {
    enum source source;
    uint64_t length;
    uint64_t from;        /* OLD: offset in the old content */
    const uint8_t *bytes; /* GIVEN: in the transaction's blocks */
};

/* A page the transaction has to do with. */
struct edited {
    uint64_t id;
    int created, freed;
    uint64_t parent; /* where the transaction has put it; name NULL: it is where it was */
    char *name;
    uint64_t old_size, size;
    struct segment *segments;
    size_t count, capacity;
    struct qr_content content; /* the old one; once has_content */
    int has_content;
    size_t at;          /* a segment and where it begins in the new content: reads and writes */
    uint64_t at_offset; /* that go forward do not search from the beginning */
};

struct block {
    struct block *next;
    uint8_t bytes[];
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
    uint8_t *old_bytes, *new_bytes; /* buffers of the commit */
};

/* Reads [offset, +length) of a page's new content, which must lie in it. */
int qr_api_read_edited(struct qallow_txn *txn, struct edited *e, uint64_t offset, uint8_t *to,
                       size_t length);
void qr_api_txn_destroy(struct qallow_txn *txn);

#endif
