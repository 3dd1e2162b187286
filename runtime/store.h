/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store: the newest state, its log, and everything that can be asked of them. One process
 * writes (it holds LOG.lock); any number read, also while it is written.
 *
 * Threads: a read-write lock inside the store guards the state. Workers may call the functions
 * marked (shared) at any time; everything else belongs to the one thread that owns the handle.
 */
#ifndef QR_STORE_H
#define QR_STORE_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/error.h"
#include "runtime/os.h"
#include "runtime/page.h"

struct qr_store;
struct qr_txn;
struct qr_batch;
struct qr_reader;

enum qr_sync { QR_SYNC_COMMIT, QR_SYNC_INTERVAL, QR_SYNC_NONE };

struct qr_store_options {
    const struct qr_os *os;   /* NULL: qr_os_posix() */
    int writable;             /* take the lock, recover, append */
    int create;               /* with writable: make the log if it does not exist */
    int logical_clock;        /* commit times are 1, 2, 3 ... ns instead of the clock */
    enum qr_sync sync;
    int sync_interval_ms;     /* QR_SYNC_INTERVAL; default 1000 */
    int compress_level;       /* 0 off */
    const uint8_t *uuid;      /* 16 bytes for a new log; NULL: random */
    uint64_t max_memory;      /* for buffers, here and in sources/tree.h; 0: any */
    int threads;              /* that may read much of the log at once; 0: one */
    uint64_t hold_bytes;      /* of content that may be kept in memory (held.c); 0: none */
    int ignore_index;         /* rebuild instead of reading .tlog-index (for verify) */
    uint64_t first_epoch;     /* create: epoch of the first commit; 0 means 1 (checkpoint files) */
    int64_t commit_time_ns;   /* not 0: the time that the next commit gets */
    int no_lock;              /* a file that nobody else can know of (checkpoint files) */
    int no_index;             /* never write .tlog-index (checkpoint files) */
    int salvage;              /* read-only: a damaged middle is stepped over, not refused */
    /* One line to the user about something that was done to the log at open (tail cut, kept in
     * FILE.bad, unfinished commit dropped). May be NULL. */
    void (*notice)(void *context, const char *line);
    void *notice_context;
};

/* What recovery did, and where the log stands. */
struct qr_store_info {
    uint8_t uuid[16];
    uint64_t first_epoch, last_epoch; /* reachable epochs; last 0: none yet */
    uint64_t log_end;        /* offset behind the last committed frame */
    uint64_t log_start;      /* offset of the first frame that was not pruned */
    uint64_t allocated;      /* bytes the file takes on disk */
    uint64_t synced_to;
    uint64_t cut_bytes;      /* dropped at open */
    uint64_t scanned_bytes;  /* read at open to find the end */
    int closed_cleanly;      /* before this open */
    int index_used;          /* the index was there and fitted */
    int owner_pid;           /* of the process holding the lock; 0 if none */
    uint64_t keyframes, commits_since_keyframe;
};

/* Opens a log. Errors: NO_INPUT, PERMISSION, BUSY (detail names the pid), NOT_A_LOG, VERSION,
 * DAMAGED (a damaged middle), IO, NO_MEMORY, CANNOT_CREATE. */
int qr_store_open(const char *path, const struct qr_store_options *options,
                  struct qr_store **store);
/* Writes the closing mark and the index, syncs, unlocks. The handle is gone also on error. STATE:
 * an earlier failure had left the store read-only; the next open recovers it. */
int qr_store_close(struct qr_store *store);
void qr_store_info(struct qr_store *store, struct qr_store_info *info);
/* What its options allow for buffers and caches; 0: no limit. */
uint64_t qr_store_max_memory(const struct qr_store *store);
/* The zstd level that its options ask for; 0: none. */
int qr_store_compress_level(const struct qr_store *store);
const char *qr_store_path(const struct qr_store *store);

/* The newest committed state. Only for the owning thread, or between qr_store_read_lock/unlock. */
const struct qr_state *qr_store_state(struct qr_store *store);
void qr_store_read_lock(struct qr_store *store);   /* (shared) */
void qr_store_read_unlock(struct qr_store *store); /* (shared) */

/* --- writing --- */

int qr_txn_begin(struct qr_store *store, struct qr_txn **txn);
/* The next unused page id; ids must be used in CREATE records in the order they were given. */
uint64_t qr_txn_new_id(struct qr_txn *txn);
/* Appends the batch's frames, applies them to the state, and resets the batch. On failure the
 * transaction can only be aborted. */
int qr_txn_append(struct qr_txn *txn, struct qr_batch *batch);
/* Appends the body of a CONTENT frame (runtime/elements.h). *ref is where its content stands, for
 * QR_STORED edits of records that come later in the transaction. */
int qr_txn_put_content(struct qr_txn *txn, const void *body, size_t length, qr_ref *ref);
/* It becomes an epoch even if nothing is appended. */
void qr_txn_insist(struct qr_txn *txn);
/* Ends the transaction: *epoch is its number. Nothing is written if nothing was appended and nobody
 * insists (then *epoch is the newest one). Under QR_SYNC_COMMIT the epoch is durable when this
 * returns. The handle is gone, also on failure; then the store is as before. */
int qr_txn_commit(struct qr_txn *txn, uint64_t *epoch);
void qr_txn_abort(struct qr_txn *txn);
/* Sets what is known of a page's file; not logged, saved with the index. */
void qr_store_set_stat(struct qr_store *store, uint64_t id, struct qr_stat_cache stat);
/* fdatasync now. */
int qr_store_sync(struct qr_store *store);

/* Names an epoch (0: the newest). A name is 1..255 bytes of UTF-8 without control characters; a
 * name in use moves. An empty epoch range is EPOCH_NOT_FOUND. */
int qr_store_label(struct qr_store *store, const char *name, uint64_t epoch);

/* Drops every epoch before `keep_from` (docs/formats/tlog.md, "Pruning"). `plan` (may be NULL) gets
 * what would be or was done. dry_run changes nothing. */
struct qr_prune_plan {
    uint64_t first_epoch_before, first_epoch_after;
    uint64_t punched_bytes;   /* given back to the file system */
    uint64_t relocated_bytes; /* of still needed content written again */
    int punch_errno; /* not 0: the epochs are dropped, but their space was not given back: why */
};
int qr_store_prune(struct qr_store *store, uint64_t keep_from, int dry_run,
                   struct qr_prune_plan *plan);

/* --- reading content --- */

/* A reader holds a few decoded frames; one per thread. Works on its own file descriptor position,
 * so any number may run at once. cache_bytes >= 2 MiB. */
int qr_reader_create(struct qr_store *store, size_t cache_bytes, struct qr_reader **reader);
void qr_reader_destroy(struct qr_reader *reader);

/* A page's content at some epoch, independent of later commits: its pieces, copied. Points into
 * itself when there is one piece: not to be copied by assignment. */
struct qr_content {
    struct qr_piece *pieces;
    size_t piece_count;
    uint64_t size;
    struct qr_piece inline_piece;
    /* cursor: where the last read ended, so that sequential reads do not search */
    size_t at_piece;
    uint64_t at_offset;
};
int qr_content_init(struct qr_content *content, const struct qr_page *page);
void qr_content_finish(struct qr_content *content);
/* Reads [offset, offset+length) of the content; the range must lie inside. Frames are verified.
 * Errors: DAMAGED (detail: page is the caller's to add), IO, NO_MEMORY. */
int qr_content_read(struct qr_reader *reader, struct qr_content *content, uint64_t offset,
                    void *buffer, size_t length);
/* A range of content, as what new content of that length may be based on. */
struct qr_content_base {
    const uint8_t *bytes; /* in `buffer`, or in the reader, until that is used again */
    qr_ref ref;           /* where it stands in the log, if in one place; else QR_REF_ZERO */
    uint64_t cost;        /* of decoding it (struct qr_elements) */
};
/* Like qr_content_read, but what stands in the log as it is need not be copied. */
int qr_content_base(struct qr_reader *reader, struct qr_content *content, uint64_t offset,
                    void *buffer, size_t length, struct qr_content_base *base);
/* How many bytes from `offset` on are one hole; 0 if there are bytes. */
uint64_t qr_content_hole(struct qr_content *content, uint64_t offset);
/* 1 if the range is stored as zeros only (a hole), else 0. */
int qr_content_is_hole(const struct qr_content *content, uint64_t offset, uint64_t length);
/* Says where the page->size bytes of a page go (NULL: they are left out). Asked any number of
 * times, with the same answer for the same id and size; in several threads, for different pages.
 * Two pages of a state have nothing in common. */
struct qr_places {
    uint8_t *(*place)(void *context, const struct qr_page *page);
    void *context;
};
/* Loads the content of a whole state into memory, in the order of the log, in the threads that the
 * store's options allow, and checks every page against its sum. DAMAGED, IO, NO_MEMORY. */
int qr_state_load(struct qr_store *store, const struct qr_state *state,
                  const struct qr_places *places);
/* The same from a log that is not open, of its epoch `epoch` (0: the newest). A log without an
 * index, as checkpoint files are, is read once, and content goes to its place as it comes. Also
 * what lies in memory for pages and sizes that were only passed on the way is overwritten. The
 * errors of qr_store_open, qr_store_state_at and qr_state_load. */
int qr_load(const char *path, const struct qr_store_options *options, uint64_t epoch,
            const struct qr_places *places);
/* Recomputes the digest of a whole state from the content; page terms included. Threads > 1 share
 * the work. `bad_page` (may be NULL) gets the id of the page that could not be read, if one. */
int qr_state_digest_compute(struct qr_store *store, const struct qr_state *state, int threads,
                            struct qb_u128 *digest, uint64_t *bad_page);

/* The whole content of a page of the newest state, in memory; NULL: it is empty, may not be held
 * (hold_bytes), or is large and has been asked for too seldom to be worth it. Good until the next
 * call that changes the state or holds another page; who else may look at the state must be kept
 * out meanwhile. DAMAGED, IO. */
int qr_store_hold(struct qr_store *store, uint64_t page, struct qr_reader *reader,
                  const uint8_t **bytes);

/* --- history --- */

struct qr_epoch {
    uint64_t epoch;
    int64_t time_ns;
    uint64_t records;     /* in its data frames */
    uint64_t pages;       /* pages it changed */
    uint64_t frame_start; /* offset of its first frame */
    uint64_t frame_end;   /* offset behind its commit frame */
    struct qb_u128 base_digest, digest;
    const char *label;    /* one label, or NULL; valid until the store changes */
};
/* One epoch's commit. EPOCH_NOT_FOUND says which epochs there are. */
int qr_store_epoch(struct qr_store *store, uint64_t epoch, struct qr_epoch *info);
/* The newest epoch at or before a time / with a label. */
int qr_store_epoch_at_time(struct qr_store *store, int64_t time_ns, uint64_t *epoch);
int qr_store_epoch_of_label(struct qr_store *store, const char *label, uint64_t *epoch);
int qr_store_each_label(struct qr_store *store,
                        int (*visit)(void *context, const char *name, uint64_t epoch),
                        void *context);
/* The state as of an epoch: nearest keyframe at or before it, then the records up to it. Epoch 0
 * is the empty state. The caller destroys *state; it needs the store for content only. */
int qr_store_state_at(struct qr_store *store, uint64_t epoch, struct qr_state **state);
/* What qr_store_state_at would read. */
struct qr_seek_plan {
    uint64_t keyframe_epoch;  /* 0: from the start */
    uint64_t keyframe_bytes;
    uint64_t replay_epochs, replay_bytes;
};
int qr_store_plan(struct qr_store *store, uint64_t epoch, struct qr_seek_plan *plan);

/* One decoded record of history. */
enum qr_record_type { /* values are in the log format */
    QR_RECORD_CREATE = 1,
    QR_RECORD_ATTRIBUTES = 2,
    QR_RECORD_RENAME = 3,
    QR_RECORD_FREE = 4,
    QR_RECORD_DELTA = 5,
    QR_RECORD_IMAGE = 6,
};
struct qr_record {
    enum qr_record_type type;
    uint64_t page;
    /* CREATE, RENAME */
    uint64_t parent;
    const uint8_t *name;
    size_t name_length;
    enum qr_kind kind;           /* CREATE */
    /* CREATE, ATTRIBUTES */
    uint32_t mode;
    int64_t mtime_ns;
    const uint8_t *extra;
    size_t extra_length;
    /* DELTA, IMAGE */
    int first, last;             /* parts of one content change */
    uint64_t base;               /* page whose content is the old one; 0: itself */
    uint64_t old_size, new_size; /* of the first part */
    struct qb_u128 content_sum;  /* of the new content; with the last part */
    const uint8_t *operations;
    size_t operations_length;
    uint64_t operations_body_offset; /* of operations in the frame's body */
};
/* Walks the records of epochs [from, to] in log order. `state` is the state before the record is
 * applied (NULL unless with_state). A nonzero return of visit ends the walk and is returned.
 * `epoch_end` (may be NULL) is called after each epoch with the state after it. */
struct qr_walk {
    uint64_t from, to;
    int with_state;
    uint64_t hold_bytes, hold_page_bytes; /* pages about to change are held in memory, see held.c */
    int (*record)(void *context, const struct qr_epoch *epoch, const struct qr_state *state,
                  const struct qr_record *record);
    int (*epoch_end)(void *context, const struct qr_epoch *epoch, const struct qr_state *state);
    void *context;
};
int qr_store_walk(struct qr_store *store, const struct qr_walk *walk);

/* Every frame of the log in its order, from the oldest that is kept. A nonzero return of visit ends
 * it and is returned. DAMAGED, IO; BUSY if another process has pruned the log meanwhile. */
struct qr_frame_size {
    unsigned type;     /* DATA 1, COMMIT 2, KEYFRAME 3, LABEL 4, EVENT 5, CLOSE 6, RELOCATION 7,
                       CONTENT 8 */
    uint64_t bytes;    /* in the file, with header and padding */
    uint64_t stored;   /* of the body, as it stands there */
    uint64_t length;   /* of the body, decompressed */
    int is_compressed;
    uint64_t content; /* CONTENT: the bytes that it gives; DAMAGED if it is malformed */
    int is_based;     /* ... as what is different from other content */
};
int qr_store_each_frame(struct qr_store *store,
                        int (*visit)(void *context, const struct qr_frame_size *frame),
                        void *context);

/* Looks for commits appended by another process since open or the last refresh. Only what is
 * known to be durable is taken. *changed: newest epoch moved (forward, or back if the log lost
 * unsynced commits in a crash; then *lost_from is the first epoch that vanished, else 0). */
int qr_store_refresh(struct qr_store *store, int *changed, uint64_t *lost_from);

/* Reads the whole log, every frame, in so many threads, and reports each contiguous good or bad
 * range, ascending; then returns 0 if all is well, QALLOW_E_DAMAGED otherwise. */
struct qr_range {
    uint64_t offset, length;
    int good;
    uint64_t first_epoch, last_epoch; /* commits in a good range; 0 if none */
    const char *what;                 /* for a bad one: what is wrong; for a good one NULL */
};
int qr_log_verify(const char *path, const struct qr_os *os, int threads, uint64_t max_memory,
                  int (*visit)(void *context, const struct qr_range *range), void *context);

/* Writes epoch `epoch` of `store` as a checkpoint file: a log of one commit. temp, sync, rename,
 * sync of the directory. CANNOT_CREATE if `path` exists and !overwrite. */
int qr_checkpoint_export(struct qr_store *store, uint64_t epoch, const char *path, int overwrite);

#endif
