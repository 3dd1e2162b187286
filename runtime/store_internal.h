/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the store share. */
#ifndef QR_STORE_INTERNAL_H
#define QR_STORE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "runtime/batch_internal.h"
#include "runtime/log.h"
#include "runtime/meter.h"
#include "runtime/record.h"
#include "runtime/relay.h"
#include "runtime/state_internal.h"
#include "runtime/store.h"
#include "runtime/table.h"

struct qr_keyframe {
    uint64_t epoch, offset;
};
struct qr_label {
    char *name;
    uint64_t epoch;
};
/* Content that a prune has moved: [old, old + length) now stands at `now`. Both within one
 * frame. */
struct qr_relocation {
    qr_ref old, now;
    uint64_t length;
};

/* What is known about the log besides the newest state; all of it can be had again by a scan. */
struct qr_directory {
    uint64_t commit_base;   /* epoch of commits[0] */
    uint64_t *commits;      /* offset of each COMMIT frame; 0: lost to damage */
    size_t commit_count, commit_capacity;
    struct qr_keyframe *keyframes; /* ascending epochs, complete ones only */
    size_t keyframe_count, keyframe_capacity;
    struct qr_label *labels;
    size_t label_count, label_capacity;
    struct qr_relocation *relocations; /* sorted by old */
    size_t relocation_count, relocation_capacity;
    uint64_t *relocation_frames; /* offsets of the RELOCATION frames */
    size_t relocation_frame_count, relocation_frame_capacity;
};

/* How far the log is durable, and who sees to it (durable.c). */
struct qr_durable {
    pthread_mutex_t lock;
    pthread_cond_t ended;  /* a sync */
    _Atomic uint64_t epoch; /* durable, like the log up to `end` */
    uint64_t end;
    uint64_t landed_epoch, landed_end; /* in the file */
    int is_syncing;
    unsigned arrived, group; /* who came since the last sync began; for how many that was */
    int64_t sync_ns;         /* how long it took */
    int failure;             /* of a sync, for good; its detail */
    char detail[256];
    uint64_t published;      /* what the lock file says, once is_published */
    int is_published;
};

/* Who computes pages from others takes part in each transaction, in the ordered section
 * (graph.c). */
struct qr_derive {
    /* Is this a page that only it may change? Under the lock of pages. */
    int (*owns)(void *context, uint64_t page);
    /* A record is about to be applied, under the store's lock. Nonzero refuses it. */
    int (*note)(void *context, const struct qr_record *record);
    /* All that the caller wanted has been applied; the COMMIT frame comes next. More may be
     * appended with qr_txn_append(). */
    int (*run)(void *context, struct qr_txn *txn);
    /* The transaction is over: `epoch` is the newest one (its own, unless nothing has changed), or
     * 0 if it failed or was aborted; then `run` may not have been called. */
    void (*ended)(void *context, uint64_t epoch);
    /* The store has gone back to an earlier epoch and takes no more transactions. */
    void (*fell_back)(void *context);
    void *context;
};

/* Events that a transaction has made: [type u8][time u64][length u32][data] one after the other. */
struct qr_event_batch {
    struct qr_event_batch *next;
    uint64_t epoch; /* that they belong to */
    size_t length, capacity;
    uint8_t bytes[];
};

struct qr_store {
    struct qr_store_options options;
    const struct qr_os *os;
    char *path;
    struct qr_log *log;
    int lock_file;          /* -1: none */
    struct qr_durable durable;
    struct qr_sharing sharing; /* of the newest state */
    pthread_rwlock_t lock;  /* guards `state`, `directory` against the shared readers */
    struct qr_state *state;
    struct qr_directory directory;
    _Atomic uint64_t start;  /* of the log's frames: references below have been relocated */
    uint64_t keyframe_end;   /* end of the log behind the newest keyframe (or the start) */
    uint64_t keyframe_bytes; /* its size in the log */
    int64_t last_sync_ns;
    int appended;            /* frames since open or the last CLOSE */
    int index_stale;         /* the index file does not know all that could be in it */
    int broken;              /* nothing may be written any more */
    struct qr_txn *txn;      /* the open transaction */
    const struct qr_derive *derive; /* NULL: nobody */
    uint64_t event_types;    /* of events that are recorded, a bit for each */
    /* Takes over what a transaction has made, when it is over and has not failed. NULL: nobody. */
    void (*events_made)(void *context, struct qr_event_batch *batch);
    void *events_context;
    struct qr_store_info info;
    struct qr_meter meter;   /* guarded like `state` */
    /* one keyframe being read by a scan */
    uint64_t pending_keyframe, pending_epoch;
};

/* --- directory (directory.c) --- */
void qr_directory_finish(struct qr_directory *directory);
int qr_directory_add_commit(struct qr_directory *directory, uint64_t epoch, uint64_t offset);
int qr_directory_add_keyframe(struct qr_directory *directory, uint64_t epoch, uint64_t offset);
uint64_t qr_directory_label(const struct qr_directory *directory, const void *name,
                            size_t length); /* its epoch; 0: there is none */
int qr_directory_set_label(struct qr_directory *directory, const void *name, size_t length,
                           uint64_t epoch);
/* Enters the relocations of one RELOCATION body standing at `offset`. */
int qr_directory_add_relocations(struct qr_directory *directory, uint64_t offset,
                                 const uint8_t *body, size_t length);
int qr_directory_add_relocation_frame(struct qr_directory *directory, uint64_t offset);
void qr_directory_sort_relocations(struct qr_directory *directory);
/* Where `ref` stands now, and for how many bytes that answer holds (at most *length). */
qr_ref qr_directory_resolve(const struct qr_directory *directory, uint64_t start, qr_ref ref,
                            uint64_t *length);
/* The same for any thread: where what `ref` refers to stands now, and how many of *length from
 * there on stand together. */
qr_ref qr_store_resolve(struct qr_store *store, qr_ref ref, uint64_t *length);
/* Forgets labels of epochs before `first`. */
void qr_directory_drop_labels(struct qr_directory *directory, uint64_t first);
/* Forgets commits and keyframes behind `last`. */
void qr_directory_cut(struct qr_directory *directory, uint64_t last);
uint64_t qr_directory_last_epoch(const struct qr_directory *directory);
/* Offset of the COMMIT frame of an epoch; 0 if there is none. */
uint64_t qr_directory_commit(const struct qr_directory *directory, uint64_t epoch);

/* --- chain (chain.c): epochs one after the other --- */
struct qr_chain {
    struct qr_store *store;
    struct qr_scan scan;
    struct qr_state *state;   /* changed as epochs come; NULL: records are only counted */
    struct qr_applier applier;
    uint64_t next_epoch;
    uint64_t limit;           /* stop before a frame at this offset; 0: none */
    int in_transaction;
    uint64_t transaction_start;
    uint64_t max_synced_to;   /* of all frames seen */
    uint64_t last_frame;      /* the last frame seen */
    enum qr_frame_type last_type;
    int record_rc;            /* what `record` returned last */
    uint64_t counted;         /* records of this transaction, when there is no state */
    struct qr_meter *meter;   /* what is applied is counted here; NULL: nowhere */
    int (*record)(void *context, const struct qr_record *record);
    void (*changed)(void *context, const struct qr_page *page);
    /* a frame that is neither DATA nor COMMIT; may be NULL */
    int (*other)(void *context, const struct qr_frame *frame);
    void *context;
};
/* Goes on at `offset`, whose frame must name `prev`; next_epoch is the epoch expected there. */
int qr_chain_init(struct qr_chain *chain, struct qr_store *store, struct qr_state *state,
                  uint64_t offset, uint64_t prev, uint64_t next_epoch);
void qr_chain_finish(struct qr_chain *chain);
/* 1: one more epoch, *info filled, the state is after it; 0: no more valid frames (see scan.why);
 * or an error: DAMAGED if digests or counts do not match, SERIALIZATION, IO, ... */
int qr_chain_next(struct qr_chain *chain, struct qr_epoch *info);
/* The fields of a COMMIT frame; *records_length: bytes of records before them. */
int qr_commit_parse(const struct qr_frame *frame, struct qr_epoch *info, uint64_t *next_id,
                    size_t *records_length);

/* --- recovery (recovery.c) --- */
/* Finds the end of the log and builds state and directory. */
int qr_store_recover(struct qr_store *store);
/* Reads the RELOCATION frames that the directory names. */
int qr_store_load_relocations(struct qr_store *store);
/* Enters a frame that is no DATA and no COMMIT into the directory. */
int qr_store_note_frame(struct qr_store *store, const struct qr_frame *frame);

/* --- index (index.c) --- */
/* 1: state, directory and `resume` were taken from the index; 0: there is none that fits. */
int qr_index_read(struct qr_store *store);
int qr_index_write(struct qr_store *store);

/* --- transactions (txn.c) --- */
/* Records that were kept back to ride in the COMMIT frame become a frame of their own; `readable`:
 * what the transaction has appended can be read. */
int qr_txn_settle(struct qr_txn *txn, int readable);
uint64_t qr_txn_epoch(const struct qr_txn *txn); /* the one that it will be */
/* It brings all derived pages up to date, whatever their graph's mode is. */
void qr_txn_force(struct qr_txn *txn);
int qr_txn_is_forced(const struct qr_txn *txn);
/* Encoded events. They get the time of the commit; those of a type that is recorded become EVENT
 * frames behind the COMMIT frame. */
int qr_txn_events(struct qr_txn *txn, const void *events, size_t length);
int qr_store_write_keyframe(struct qr_store *store);
int qr_store_check_writable(struct qr_store *store);
/* qr_txn_commit in three parts, for stores with several committing threads. Land: the ordered
 * section; *epoch is in the file and in the state, and the handle is gone. On failure the store is
 * as before. */
int qr_txn_land(struct qr_txn *txn, uint64_t *epoch);
/* Settle (durable.c): waits until an epoch that has landed is durable, if the options want that.
 * Needs no lock, and others may land meanwhile. On failure no epoch behind the last durable one
 * counts, and the caller has the store fall back, as part of the ordered section. */
int qr_store_settle(struct qr_store *store, uint64_t epoch);
void qr_store_fall_back(struct qr_store *store);
uint64_t qr_store_durable_epoch(const struct qr_store *store);
/* What follows: a keyframe, in the ordered section; the commit's time since `began` is counted,
 * which any thread may do. */
int qr_store_keyframe_is_due(const struct qr_store *store);
void qr_store_keyframe_if_due(struct qr_store *store);
void qr_store_count_commit(struct qr_store *store, int64_t began);

/* --- what is durable (durable.c) --- */
void qr_durable_init(struct qr_store *store);
void qr_durable_finish(struct qr_store *store);
void qr_durable_begin(struct qr_store *store); /* opened for writing: all there is is durable */
/* In the ordered section: an epoch has landed; what others have synced becomes known to the log;
 * everything up to the log's end is synced. */
void qr_durable_landed(struct qr_store *store);
void qr_durable_look(struct qr_store *store);
int qr_store_sync_log(struct qr_store *store);

/* Writes a page's whole content between a begin (image or delta from nothing) and its end, checked
 * against the page's sum. The batch is passed on whenever it is full. */
int qr_content_copy(struct qr_relay *relay, struct qr_reader *reader, const struct qr_page *page);

/* Are these bytes, all of the page's content, what its sum says? DAMAGED. */
int qr_page_check(const struct qr_page *page, const uint8_t *bytes);

/* Are the bytes of all pages that have a place what their sums say? DAMAGED. */
int qr_state_check(const struct qr_state *state, const struct qr_places *places, int threads);

/* Is the content of every page what its sum says? Reads it in the order of the log into memory of
 * that size. DAMAGED, IO, NO_MEMORY. */
int qr_state_check_content(struct qr_store *store, const struct qr_state *state, int threads);
/* Holds all pages that may be held, if all of the state fits: at once, in the order of the log.
 * What cannot be read is not held. */
void qr_state_hold_all(struct qr_store *store, struct qr_state *state);

/* For reads in the order of the log: frames are read ahead of being asked for. */
void qr_reader_read_ahead(struct qr_reader *reader);
/* Copies literal bytes of the log; relocations are followed. */
int qr_reader_literal(struct qr_reader *reader, qr_ref ref, uint8_t *to, uint64_t length);

/* Opens a state at the newest keyframe at or before `epoch` (or the start). Fills where to go
 * on. */
int qr_store_seek(struct qr_store *store, uint64_t epoch, struct qr_state **state, uint64_t *offset,
                  uint64_t *prev);
/* Fails with EPOCH_NOT_FOUND, saying which epochs there are. */
int qr_store_no_epoch(struct qr_store *store, uint64_t epoch);

/* Appends `suffix` to the store's path; qr_free the result. */
char *qr_path_with(const char *path, const char *suffix);

#endif
