/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log file: header slots and the chain of frames. Knows bytes and their validity, nothing of
 * pages. One thread appends; any number of threads may read frames that have been flushed.
 */
#ifndef QR_LOG_H
#define QR_LOG_H

#include "backend/kernels.h"
#include "runtime/format.h"
#include "runtime/os.h"

struct qr_log_header {
    uint32_t version;    /* 0: QR_FORMAT_PLAIN */
    uint8_t uuid[16];
    uint64_t sequence;
    uint64_t start;      /* offset of the first frame */
    uint64_t start_prev; /* `prev` of that frame */
    uint64_t first_epoch;
    uint64_t base;       /* keyframe of first_epoch, or 0 */
    uint64_t flags;
    uint64_t next_epoch;
};
enum { QR_LOG_CHECKPOINT = 1 }; /* header flags */

struct qr_log {
    const struct qr_os *os;
    char *path;
    int file;
    int writable;
    struct qr_log_header header;
    /* the writer */
    uint64_t end;          /* where the next frame goes */
    uint64_t prev;         /* head_sum of the frame that ends there */
    uint64_t last_frame;   /* its offset; 0: there is none */
    uint64_t flushed;      /* frames below are in the file */
    uint64_t synced_to;    /* and below here on the disk */
    uint64_t preallocated; /* zeros have been written up to here */
    uint8_t *buffer;       /* frames in [flushed, end) */
    size_t buffer_capacity;
    int failed;            /* a write or sync failed in a way that leaves the file unknown */
    /* How often the file has been cut: frames that were read ahead may be none any more. */
    _Atomic unsigned rewinds;
};

/* A place to go back to. */
struct qr_log_mark {
    uint64_t end, prev, last_frame;
};

/* Creates the file (temp, sync, rename, sync of the directory) with an empty log. */
int qr_log_create(const struct qr_os *os, const char *path, const struct qr_log_header *header);
/* Opens the file and reads its header. Does not look for the end. */
int qr_log_open(const struct qr_os *os, const char *path, int writable, struct qr_log **log);
void qr_log_close(struct qr_log *log); /* no sync; NULL is legal */
/* Reads the header again (a prune by another process). */
int qr_log_reload_header(struct qr_log *log);
/* For readers that met damage: BUSY instead of DAMAGED if another process has pruned the log since
 * its header was read; otherwise rc, its detail kept. */
int qr_log_check_pruned(const struct qr_log *log, int rc);
/* Writes and syncs the header into the older slot. */
int qr_log_write_header(struct qr_log *log, const struct qr_log_header *header);

/* Appends a frame; *offset is where it stands. Before the first CONTENT frame of a log its header
 * is made to say so, durably. */
int qr_log_append(struct qr_log *log, enum qr_frame_type type, unsigned flags, const void *body,
                  size_t length, uint64_t *offset);
/* The same for a body that has room around it, which is written to: QR_FRAME_HEADER bytes before
 * and QR_FRAME_PAD behind. A large one goes to the file as it stands, without being copied. */
int qr_log_append_large(struct qr_log *log, enum qr_frame_type type, unsigned flags, uint8_t *body,
                        size_t length, uint64_t *offset);
int qr_log_flush(struct qr_log *log);
/* Flushes and makes everything durable. After a failure the log accepts nothing more. */
int qr_log_sync(struct qr_log *log);
/* Only the sync, for a thread that does not own the log: what was flushed before is durable when it
 * returns 0. Otherwise the owner has to call the other one. */
int qr_log_sync_file(const struct qr_log *log);
void qr_log_sync_failed(struct qr_log *log);
/* Writes zeros ahead of the end, so that the syncs of small appends stay cheap. */
int qr_log_preallocate(struct qr_log *log, uint64_t bytes);
/* Drops everything behind a mark, in memory and in the file. */
int qr_log_rewind(struct qr_log *log, struct qr_log_mark mark);
static inline struct qr_log_mark qr_log_mark(const struct qr_log *log)
{
    return (struct qr_log_mark){log->end, log->prev, log->last_frame};
}

/* --- frames --- */

struct qr_frame {
    uint64_t offset;
    enum qr_frame_type type;
    unsigned flags;
    uint32_t stored;      /* bytes of the body in the file */
    uint64_t prev, synced_to, body_sum, head_sum;
    const uint8_t *body;  /* decompressed; NULL until the body was read */
    size_t length;        /* decompressed */
};
/* Parses and checks a header that stands at `offset`. 1 valid, 0 not. */
int qr_frame_parse(const struct qr_log *log, uint64_t offset, const uint8_t *header,
                   struct qr_frame *frame);
/* Checks the stored body and decompresses it if need be into *buffer (grown as needed). 1 valid,
 * 0 not, or an error. */
int qr_frame_open(const struct qr_log *log, struct qr_frame *frame, const uint8_t *stored,
                  uint8_t **buffer, size_t *capacity);
/* Reads one frame at a known place, header and body, without regard to `prev`. *raw and *plain are
 * caller's growable buffers. DAMAGED if it is not valid. */
struct qr_frame_buffers {
    uint8_t *raw, *plain;
    size_t raw_capacity, plain_capacity;
};
int qr_log_read_frame(const struct qr_log *log, uint64_t offset, struct qr_frame_buffers *buffers,
                      struct qr_frame *frame);
/* The same for reads that go forwards: raw bytes come through a window that is filled with `ahead`
 * bytes when the frame is not in it. The frame's body may stand in the window, until the next
 * call. */
struct qr_read_window {
    uint8_t *bytes;
    size_t length, capacity;
    uint64_t start;
};
/* Does the header of the frame at `offset` stand in it? */
static inline int qr_window_holds(const struct qr_read_window *window, uint64_t offset)
{
    return offset >= window->start && offset - window->start + QR_FRAME_HEADER <= window->length;
}
int qr_log_read_frame_ahead(const struct qr_log *log, uint64_t offset, size_t ahead,
                            struct qr_read_window *window, struct qr_frame_buffers *buffers,
                            struct qr_frame *frame);
void qr_frame_buffers_finish(struct qr_frame_buffers *buffers);

/* --- walking the chain --- */

struct qr_ahead;
struct qr_scan {
    const struct qr_log *log;
    uint64_t offset;   /* of the next frame */
    uint64_t prev;     /* head_sum it must name */
    uint64_t limit;    /* size of the file when last looked at */
    uint64_t bytes;    /* read so far */
    uint8_t *window;   /* bytes [window_start, window_start + window_length) of the file */
    size_t window_capacity, window_length;
    uint64_t window_start;
    uint8_t *plain;
    size_t plain_capacity;
    const char *why;   /* why the frame at `offset` is not valid */
    int all_zero;      /* with it: from `offset` there are only zeros, or nothing */
    int takes_changes;      /* to be set before reading ahead: qr_scan_later will be used */
    struct qr_ahead *ahead; /* NULL: nobody reads ahead */
};
int qr_scan_init(struct qr_scan *scan, const struct qr_log *log, uint64_t offset, uint64_t prev);
void qr_scan_finish(struct qr_scan *scan);
/* From now on `threads` threads, the caller's being one, read and check frames before `until` (0:
 * all that there are), as far as there is enough for them to do, and max_memory (0: no bound)
 * allows it; they apply changes, too, if the scan takes such. Nothing else changes by it. */
void qr_scan_read_ahead(struct qr_scan *scan, uint64_t until, int threads, uint64_t max_memory);
struct qr_change;
/* A change of bytes in memory that stands in the frame handed out last: applied by the threads that
 * read ahead, in the order of changes of the same page, or at once if there are none. It may fail
 * later; then the next frame cannot be had. */
int qr_scan_later(struct qr_scan *scan, uint64_t page, const struct qr_change *change);
/* All changes so far have been applied; or what one has failed with. */
int qr_scan_settle(struct qr_scan *scan);
/* 1: the next frame is valid, *frame filled (its body until the next call); 0: it is not (or the
 * file ends), scan->why says why; or an error. */
int qr_scan_next(struct qr_scan *scan, struct qr_frame *frame);
/* For qr_scan_next: a frame that was prepared, 1; 0: from here on it goes alone; or an error. */
int qr_ahead_next(struct qr_scan *scan, struct qr_frame *frame);
void qr_ahead_finish(struct qr_ahead *ahead); /* NULL is legal */
/* The largest synced_to of any valid frame header at or behind `offset`, and the end of the last
 * byte that is not zero. */
int qr_scan_behind(const struct qr_log *log, uint64_t offset, uint64_t *synced_to,
                   uint64_t *nonzero_end, uint64_t *next_valid);

#endif
