/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Qallow keeps mutable state as versioned pages in one append-only log. This is the whole C API.
 *
 * A store is a log file and its newest state. A page is a string of bytes with an id, a name below
 * a parent page, and attributes. All changes of a transaction land together as one epoch, or not at
 * all; epochs are numbered 1, 2, 3, ... without a gap. Any epoch can be read again as a view.
 *
 *     struct qallow_options options = QALLOW_OPTIONS_INIT;
 *     options.writable = options.create = 1;
 *     qallow_open("work.tlog", &options, &store);
 *     qallow_begin(store, &txn);
 *     qallow_page_create(txn, &page_options, &page);
 *     qallow_page_write(txn, page, 0, "hello", 5);
 *     qallow_commit(txn, &epoch);
 *     qallow_view_at(store, epoch, &view);
 *     qallow_page_read(view, page, 0, buffer, 5);
 *
 * Conventions. Functions return 0 or a negative QALLOW_E_* (qallow/error.h); qallow_error_detail()
 * then has a line that names the file, page, epoch or offset. Besides the errors listed at a
 * function, each may return QALLOW_E_ARGUMENT (a NULL where none is allowed, a value out of range)
 * and QALLOW_E_NO_MEMORY. On failure outputs are NULL or untouched and nothing has changed, unless
 * said otherwise. Strings are copied; the caller keeps what it passed in. Every handle is freed by
 * exactly one function, which accepts NULL.
 *
 * Threads. A store may be used from any number of threads. Views and transactions: one thread at a
 * time each, except the view qallow_newest(), which all threads may use at once. Any number of
 * transactions may be open at once. Reading a snapshot or an older epoch goes on while one of them
 * commits; a call on the newest view sees all of a commit or nothing, and returns when what it saw
 * is as durable as `sync` asks for.
 *
 * Structs with a `size` grow in later versions: fill it with the given initialiser. Reserved fields
 * must be zero. Since: 0.1.0.
 */
#ifndef QALLOW_STORE_H
#define QALLOW_STORE_H

#include <stddef.h>
#include <stdint.h>

#include "qallow/error.h"

#ifdef __cplusplus
extern "C" {
#endif

struct qallow_store;
struct qallow_txn;
struct qallow_view;

/* --- the store --- */

enum qallow_sync {
    QALLOW_SYNC_COMMIT = 0,   /* a commit returns when it is on the disk */
    QALLOW_SYNC_INTERVAL = 1, /* by the first commit that ends sync_interval_ms after the last sync;
                                 there is no timer: the last commits wait for the next one, for
                                 qallow_sync or for qallow_close */
    QALLOW_SYNC_NONE = 2,     /* when the system likes, and at close */
};

struct qallow_options {
    uint32_t size;
    uint32_t writable;         /* take the log's lock, recover what a crash left, allow changes */
    uint32_t create;           /* with writable: make the log if it does not exist */
    uint32_t sync;             /* enum qallow_sync */
    uint32_t sync_interval_ms; /* 0: 1000 */
    uint32_t logical_clock;    /* commits are 1, 2, 3 ... ns after 1970: reproducible logs */
    uint64_t max_memory;       /* bytes of pages that are kept in memory while they are written to
                                  (the log has them in any case); 0: an eighth of the machine's */
    const uint8_t *uuid;       /* 16 bytes for a new log; NULL: random */
    int32_t compress_level;    /* of zstd; 0: none */
    uint32_t reserved32;
    uint64_t reserved[8];
};
#define QALLOW_OPTIONS_INIT                                                                        \
    {                                                                                              \
        sizeof(struct qallow_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, { 0 }                            \
    }

/* Opens a log. `options` may be NULL: read-only. *store: freed by qallow_close. Many processes may
 * have a log open, one of them writable.
 * NO_INPUT (no such file), PERMISSION, BUSY (another process writes; the detail names it),
 * NOT_A_LOG, VERSION (written by a newer version), DAMAGED, SERIALIZATION, CANNOT_CREATE, IO,
 * NO_SPACE. */
QALLOW_API int qallow_open(const char *path, const struct qallow_options *options,
                           struct qallow_store **store);
/* Ends everything: syncs what is not durable yet, frees the handle also on failure. No transaction
 * may be open (it is aborted); all views must have been destroyed. IO, NO_SPACE. */
QALLOW_API int qallow_close(struct qallow_store *store);
/* Everything committed so far is on the disk when this returns. IO, NO_SPACE; then the store is
 * read-only until it is opened again (STATE). */
QALLOW_API int qallow_sync(struct qallow_store *store);
/* For a store that is not writable: takes in what another process has committed since. *newest (may
 * be NULL) is the newest epoch now. DAMAGED, IO. */
QALLOW_API int qallow_refresh(struct qallow_store *store, uint64_t *newest);

/* How the operations of a delta are written; the values are those of the log format. */
enum qallow_encoding {
    QALLOW_ENCODING_OVERWRITE = 0, /* bytes over as many others */
    QALLOW_ENCODING_MASK = 1,      /* bytes over some of a range, which a bit mask names */
    QALLOW_ENCODING_REPLACE = 2,   /* bytes in place of more or fewer others, or of none */
    QALLOW_ENCODING_REMOVE = 3,    /* nothing in place of bytes */
    QALLOW_ENCODING_ZERO = 4,      /* zeros over as many bytes */
    QALLOW_ENCODING_GROW = 5,      /* zeros put in */
    QALLOW_ENCODING_COPY = 6,      /* bytes from elsewhere in the page */
    QALLOW_ENCODING_STORED = 7,    /* bytes in a frame of their own: of tensors */
};

/* How long something took. Quantiles are upper bounds, at most 12.5 % above the true ones; `max` is
 * exact. All 0 while count is 0. */
struct qallow_timing {
    uint64_t count, total_ns, mean_ns;
    uint64_t p50_ns, p90_ns, p99_ns, max_ns;
};

struct qallow_stats {
    uint32_t size;
    uint32_t owner_pid;    /* process that has the log open for writing; 0: none */
    uint8_t uuid[16];
    uint64_t first_epoch, last_epoch; /* what can be had; last_epoch 0: nothing yet */
    uint64_t pages, page_bytes;       /* of the newest state */
    uint64_t log_bytes;               /* length of the log */
    uint64_t allocated_bytes;         /* what it takes on the disk */
    uint64_t keyframes;
    uint64_t digest[2];               /* of the newest state: low, high */
    uint64_t reserved[8];
    /* The newest state in memory. */
    uint64_t pages_at[4];             /* by enum qallow_location; all on the CPU in this version */
    uint64_t held_bytes, held_limit;  /* of pages kept in memory; see max_memory */
    /* What this handle did since it was opened, or since qallow_stats_reset(): deltas that commits
     * applied, or qallow_refresh(). A delta is the change of one page's content in one epoch, and
     * consists of operations. */
    uint64_t deltas;
    uint64_t delta_bytes;             /* of their operations, as in the log before compression */
    uint64_t delta_mean_bytes;        /* of one delta */
    uint64_t operations[16];          /* by enum qallow_encoding */
    uint64_t deltas_of_kind[16];      /* by enum qallow_kind of the page */
    uint64_t images;                  /* of pages that were in many pieces: no deltas */
    struct qallow_timing apply;       /* a body of records: up to 1 MiB of a transaction */
    struct qallow_timing apply_delta; /* one delta: a body's time by the deltas that end in it */
    struct qallow_timing commit;      /* qallow_commit(), when it made an epoch */
    uint64_t reserved_end[16];
};
#define QALLOW_STATS_INIT                                                                          \
    {                                                                                              \
        sizeof(struct qallow_stats), 0, {0}, 0, 0, 0, 0, 0, 0, 0, {0}, {0}, {0}, 0, 0, 0, 0, 0,    \
            {0}, {0}, 0, {0, 0, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0, 0}, {    \
            0                                                                                      \
        }                                                                                          \
    }
/* The numbers are of one moment. A commit that waits for the disk is in the state and the deltas
 * already, and in `commit` when it returns. */
QALLOW_API int qallow_stats_get(struct qallow_store *store, struct qallow_stats *stats);
/* What stats_get counts since the open begins at 0 again; what it says of the state and the log
 * stays. */
QALLOW_API int qallow_stats_reset(struct qallow_store *store);

/* --- transactions --- */

/* Transactions side by side. A page belongs to the transaction that first writes, reads (with
 * qallow_txn_read), renames or frees it, until that has ended, and one transaction at a time
 * creates, renames or frees pages or sets attributes, until its commit has landed; the others'
 * calls return BUSY, and may be made again later. Who waits for a page with a transaction open may
 * wait for somebody who waits for them: abort, and begin anew. Commits of several threads prepare
 * side by side and share the sync that makes them durable.
 * *txn: freed by qallow_commit or qallow_abort. Nobody else sees its changes before the commit.
 * STATE: the store is not writable. */
QALLOW_API int qallow_begin(struct qallow_store *store, struct qallow_txn **txn);
/* Makes the changes one epoch; *epoch (may be NULL) is its number. Bytes that were written but do
 * not differ are not logged; without any change there is no new epoch, and *epoch is the newest.
 * The handle is gone also on failure; then the store is as before. After a failed sync it is
 * read-only (STATE) until it is opened again, at the last durable epoch. In a function of a page
 * (qallow/graph.h) nothing can be committed: STATE, and the transaction stays open.
 * PAGE_EXISTS, PAGE_NOT_FOUND, INVALID_DELTA (what the transaction's pages say about each other
 * does not fit: two of one name, a directory freed with pages in it, a page below itself),
 * IO, NO_SPACE, LIMIT. */
QALLOW_API int qallow_commit(struct qallow_txn *txn, uint64_t *epoch);
/* Drops the changes. NULL is legal. */
QALLOW_API void qallow_abort(struct qallow_txn *txn);

enum qallow_location {
    QALLOW_CPU = 0,
    QALLOW_GPU = 1,     /* of buffers and mirrors; a page of a store: UNSUPPORTED_LOCATION */
    QALLOW_UNIFIED = 2, /* the same; see docs/memory-model.md */
};
enum qallow_kind { /* the values are those of the log format */
    QALLOW_RAW = 1,
    QALLOW_FILE = 2,
    QALLOW_DIRECTORY = 3,
    QALLOW_SYMLINK = 4, /* the content is the target */
    QALLOW_CONFIG = 5,  /* Qallow's own settings; can be read, not created */
    QALLOW_TENSOR = 6,
};

struct qallow_page_options {
    uint32_t size;
    uint32_t kind;        /* enum qallow_kind; 0: QALLOW_RAW */
    uint32_t location;    /* enum qallow_location */
    uint32_t mode;        /* permission bits */
    uint64_t parent;      /* a directory page; 0: none */
    int64_t mtime_ns;
    const char *name;     /* 1 to 4096 bytes without '/'; unique below the parent */
    const void *extra;    /* attribute bytes of the kind, at most 4096; may be NULL */
    uint64_t extra_length;
    uint64_t reserved[4];
};
#define QALLOW_PAGE_OPTIONS_INIT                                                                   \
    {                                                                                              \
        sizeof(struct qallow_page_options), 0, 0, 0, 0, 0, NULL, NULL, 0, { 0 }                    \
    }

/* A new, empty page; *page is its id, never used again for another one in this log.
 * UNSUPPORTED_LOCATION, PAGE_EXISTS (the name is taken), PAGE_NOT_FOUND (no such parent),
 * LIMIT (name or extra too long). */
QALLOW_API int qallow_page_create(struct qallow_txn *txn,
                                  const struct qallow_page_options *options, uint64_t *page);
/* Writes over the bytes at `offset`, and beyond the end: the page grows. The offset must not lie
 * behind the end (INVALID_DELTA; see qallow_page_resize). `bytes` is copied. PAGE_NOT_FOUND;
 * LIMIT: larger than a page may be (2^48 bytes). */
QALLOW_API int qallow_page_write(struct qallow_txn *txn, uint64_t page, uint64_t offset,
                                 const void *bytes, size_t length);
struct qallow_write {
    uint64_t page, offset;
    const void *bytes;
    size_t length;
};
/* qallow_page_write() for each of `count` in turn. Where they are many and small it takes less time
 * than as many calls. The first that fails ends it, with its result; those before it have been
 * made: *made (may be NULL) of them. */
QALLOW_API int qallow_pages_write(struct qallow_txn *txn, const struct qallow_write *writes,
                                  size_t count, size_t *made);
/* Cuts the page, or lets it grow by zeros, which take no space. PAGE_NOT_FOUND, LIMIT. */
QALLOW_API int qallow_page_resize(struct qallow_txn *txn, uint64_t page, uint64_t new_size);
/* Replaces `removed` bytes at `offset` by `length` others; what stands behind them moves. The range
 * must lie in the page (INVALID_DELTA). `bytes` is copied. PAGE_NOT_FOUND, LIMIT. */
QALLOW_API int qallow_page_splice(struct qallow_txn *txn, uint64_t page, uint64_t offset,
                                  uint64_t removed, const void *bytes, size_t length);
/* Another name, another parent (0: none). PAGE_NOT_FOUND, PAGE_EXISTS, LIMIT. */
QALLOW_API int qallow_page_rename(struct qallow_txn *txn, uint64_t page, uint64_t parent,
                                  const char *name);
/* All attributes at once; of `options` mode, mtime_ns, extra and extra_length count.
 * PAGE_NOT_FOUND, LIMIT. */
QALLOW_API int qallow_page_set_attributes(struct qallow_txn *txn, uint64_t page,
                                          const struct qallow_page_options *options);
/* The page is not part of the state from this epoch on. PAGE_NOT_FOUND; INVALID_DELTA at commit if
 * it still has pages below it. */
QALLOW_API int qallow_page_free(struct qallow_txn *txn, uint64_t page);
/* Reads as qallow_page_read does, but what the transaction has made of the page so far. */
QALLOW_API int qallow_txn_read(struct qallow_txn *txn, uint64_t page, uint64_t offset,
                               void *buffer, size_t length);

/* --- reading --- */

/* The view that always shows the newest epoch. Belongs to the store; not to be destroyed. Never
 * NULL for a valid store. */
QALLOW_API struct qallow_view *qallow_newest(struct qallow_store *store);
/* A snapshot: the newest epoch as it is now, whatever is committed later. No content is copied.
 * *view: freed by qallow_view_destroy, before the store is closed. */
QALLOW_API int qallow_snapshot(struct qallow_store *store, struct qallow_view **view);
/* The state as of any epoch; 0 is the empty one. EPOCH_NOT_FOUND (the detail says which there are),
 * DAMAGED, SERIALIZATION, IO. *view as above. */
QALLOW_API int qallow_view_at(struct qallow_store *store, uint64_t epoch,
                              struct qallow_view **view);
QALLOW_API void qallow_view_destroy(struct qallow_view *view);
/* The epoch a view shows. */
QALLOW_API uint64_t qallow_view_epoch(struct qallow_view *view);

struct qallow_page {
    uint32_t size;       /* of this struct */
    uint32_t kind;       /* enum qallow_kind */
    uint32_t location;   /* enum qallow_location */
    uint32_t mode;
    uint64_t id, parent;
    uint64_t bytes;      /* of content */
    uint64_t version;    /* the epoch that last changed it */
    int64_t mtime_ns;
    uint64_t name_length;
    uint64_t extra_length;
    uint64_t reserved[4];
};
#define QALLOW_PAGE_INIT                                                                           \
    {                                                                                              \
        sizeof(struct qallow_page), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, { 0 }                            \
    }

/* Reads [offset, offset + length), which must lie in the page (LIMIT). Every byte is checked
 * against the log's checksums when it comes from there. PAGE_NOT_FOUND, DAMAGED, IO. */
QALLOW_API int qallow_page_read(struct qallow_view *view, uint64_t page, uint64_t offset,
                                void *buffer, size_t length);
/* The page with an id. PAGE_NOT_FOUND. */
QALLOW_API int qallow_page_get(struct qallow_view *view, uint64_t page, struct qallow_page *info);
/* The page with a path such as "dir/file" or, without directories, the name. PAGE_NOT_FOUND. */
QALLOW_API int qallow_page_lookup(struct qallow_view *view, const char *path,
                                  struct qallow_page *info);
/* The page with the smallest id greater than `after`; PAGE_NOT_FOUND at the end. All pages:
 *     while (qallow_page_next(view, info.id, &info) == 0) ...
 * beginning with an initialised info. */
QALLOW_API int qallow_page_next(struct qallow_view *view, uint64_t after,
                                struct qallow_page *info);
/* The path of a page with a NUL; *length (may be NULL) is set to its length without. LIMIT if it
 * does not fit in `size` bytes; *length is set also then. PAGE_NOT_FOUND. */
QALLOW_API int qallow_page_path(struct qallow_view *view, uint64_t page, char *buffer, size_t size,
                                size_t *length);
/* The attribute bytes; *length as above. PAGE_NOT_FOUND, LIMIT. */
QALLOW_API int qallow_page_extra(struct qallow_view *view, uint64_t page, void *buffer,
                                 size_t size, size_t *length);

/* --- history --- */

struct qallow_epoch {
    uint32_t size;
    uint32_t reserved32;
    uint64_t epoch;
    int64_t time_ns;    /* since 1970; greater than that of the epoch before */
    uint64_t pages;     /* changed by it */
    uint64_t log_bytes; /* it took */
    uint64_t digest[2]; /* of the state: low, high */
    uint64_t reserved[4];
};
#define QALLOW_EPOCH_INIT                                                                          \
    {                                                                                              \
        sizeof(struct qallow_epoch), 0, 0, 0, 0, 0, {0, 0}, { 0 }                                  \
    }
/* EPOCH_NOT_FOUND. */
QALLOW_API int qallow_epoch_get(struct qallow_store *store, uint64_t epoch,
                                struct qallow_epoch *info);
/* The newest epoch at or before a time. EPOCH_NOT_FOUND. */
QALLOW_API int qallow_epoch_at_time(struct qallow_store *store, int64_t time_ns, uint64_t *epoch);
/* EPOCH_NOT_FOUND: no such label. */
QALLOW_API int qallow_epoch_of_label(struct qallow_store *store, const char *label,
                                     uint64_t *epoch);
/* Gives an epoch (0: the newest) a name of 1 to 255 bytes of UTF-8; a name in use moves.
 * EPOCH_NOT_FOUND, STATE (not writable), IO, NO_SPACE. */
QALLOW_API int qallow_label(struct qallow_store *store, const char *label, uint64_t epoch);
/* Writes an epoch as a file of its own that qallow_open opens like a log. The file appears whole or
 * not at all. Four megabytes and more are written by a thread that lives as long as the call.
 * CANNOT_CREATE if it exists and `overwrite` is 0; EPOCH_NOT_FOUND, DAMAGED, IO, NO_SPACE,
 * PERMISSION. */
QALLOW_API int qallow_checkpoint_export(struct qallow_store *store, uint64_t epoch,
                                        const char *path, int overwrite);
/* Recomputes the digest of every epoch from its bytes, with `threads` (>= 1) threads. DAMAGED if
 * anything is wrong; IO. */
QALLOW_API int qallow_verify(struct qallow_store *store, int threads);

#ifdef __cplusplus
}
#endif
#endif
