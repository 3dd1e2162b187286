/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions about history, answered without printing: what differs between two states, which epochs
 * touched a page, which epoch made a byte what it is, and whether every epoch is what it claims.
 *
 * All of them rest on one fact: content is a list of places in an immutable log, so equal places
 * are equal bytes and need not be read. Nothing here changes the store. Thread-safety: like the
 * store, one thread at a time.
 */
#ifndef QR_QUERY_H
#define QR_QUERY_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/store.h"

/* To be called when a content has been copied to another place in memory: a single piece is kept in
 * the struct itself. The copy takes over; the original is not finished. */
static inline void qr_content_moved(struct qr_content *content)
{
    if (content->piece_count <= 1)
        content->pieces = &content->inline_piece;
}

/* --- names --- */

/* The page a user means by `name`: a path below the root directory "." if the state has one, else
 * the path from a root page. NULL if there is none. */
struct qr_page *qr_query_lookup(const struct qr_state *state, const char *name);
/* The name a user sees (the inverse of the above; "." for the root directory), allocated: free with
 * qr_free. Its length without NUL goes to *length (may be NULL). 0 or QALLOW_E_NO_MEMORY. */
int qr_query_name(const struct qr_state *state, const struct qr_page *page, char **name,
                  size_t *length);
/* The page that bears `name` at `epoch`, or, if none does, the last one that bore it before; *epoch
 * is set to the last epoch that shows it under that name. PAGE_NOT_FOUND if no page ever had it. */
int qr_query_find(struct qr_store *store, const char *name, uint64_t *epoch, uint64_t *page);

/* --- walking --- */

/* The whole history up to epoch `to`, whether it was pruned or not: epoch_end with the state of the
 * oldest epoch, whose records may be gone, then records and ends of all later ones as in
 * qr_store_walk. Of `how`, `from`, `to` and `with_state` are set here. */
int qr_query_walk(struct qr_store *store, uint64_t to, const struct qr_walk *how);

/* --- differences of content --- */

/* new[new_offset, +new_length) stands where old[old_offset, +old_length) stood. */
struct qr_change {
    uint64_t old_offset, old_length;
    uint64_t new_offset, new_length;
};
typedef int (*qr_change_visitor)(void *context, const struct qr_change *change);

/* The changes that turn old into new, ascending. What both take from the same place of the log is
 * not read. Changes separated by fewer than `gap` (>= 1) equal bytes are one; with gap 1 every byte
 * of an equally long change differs. Memory is bounded; what lies more than a few MiB apart may be
 * reported coarser. A nonzero return of visit ends the walk and is returned. */
int qr_content_diff(struct qr_reader *reader, struct qr_content *old, struct qr_content *new_,
                    size_t gap, qr_change_visitor visit, void *context);

/* --- differences of states --- */

enum qr_difference_flags {
    QR_DIFF_CONTENT = 1, /* bytes differ (both sides have content) */
    QR_DIFF_MODE = 2,
    QR_DIFF_MTIME = 4,
    QR_DIFF_EXTRA = 8,
    QR_DIFF_NAME = 16,
};
struct qr_difference {
    char status;               /* A added, D deleted, M modified, R renamed, T type changed */
    unsigned flags;            /* qr_difference_flags; R may carry others, A and D carry none */
    const char *name;          /* in b; in a for D */
    const char *old_name;      /* in a; differs from name only for R */
    size_t name_length, old_name_length;
    const struct qr_page *a, *b; /* NULL for A, D */
};
/* MODE, MTIME and EXTRA, as far as two pages of one kind differ in them. */
unsigned qr_query_attributes(const struct qr_page *a, const struct qr_page *b);
/* Everything in which states a and b of one store differ, ordered by name. A page that moved only
 * because a directory above it was renamed is not listed; nor is a directory of which nothing but
 * the mtime differs. Ranges: qr_content_diff of the pages a and b. Returns 0, visit's nonzero
 * result, or an error. */
int qr_diff_states(struct qr_reader *reader, const struct qr_state *a, const struct qr_state *b,
                   int (*visit)(void *context, const struct qr_difference *difference),
                   void *context);

/* --- history of a page --- */

struct qr_event {
    uint64_t epoch;
    int64_t time_ns;
    const char *label;      /* or NULL */
    char status;            /* A, D, M, R as above, and T if it came back with another kind */
    unsigned flags;         /* what changed, qr_difference_flags */
    const char *name;       /* after the epoch; before it for D */
    const char *old_name;   /* before the epoch */
    uint64_t old_size, new_size;
};
/* Every epoch that touched the page, oldest first, also where only a directory above it was renamed
 * (R). In a pruned log the oldest kept epoch appears as A. */
int qr_history_of(struct qr_store *store, uint64_t page,
                  int (*visit)(void *context, const struct qr_event *event), void *context);

/* --- blame --- */

struct qr_blame {
    uint64_t offset, length;
    uint64_t epoch;
    int or_earlier; /* the history before `epoch` has been pruned: it may be older */
};
/* For the bytes [offset, offset + length) of the page as of `epoch`: the runs of bytes that were
 * last made to differ by one epoch. Bytes keep their epoch when others are inserted or removed
 * before them. The range must lie inside the page (ARGUMENT); PAGE_NOT_FOUND. */
int qr_blame(struct qr_store *store, uint64_t epoch, uint64_t page, uint64_t offset,
             uint64_t length, int (*visit)(void *context, const struct qr_blame *run),
             void *context);

/* --- verification --- */

struct qr_verify_result {
    uint64_t epochs;          /* whose digests were recomputed and found right */
    uint64_t full;            /* of these, from every byte of the state */
    uint64_t read_bytes;      /* of content */
    uint64_t damaged;         /* problems found */
};
/* Recomputes the digest of every epoch from content: from scratch for the first and the last epoch
 * and in between whenever as many bytes were replayed as the state holds (from_scratch: for each),
 * and for every epoch from the bytes before and after each change. `problem` is called for each one
 * found, with the epoch (0: unknown), the page's name or NULL, and a text. Returns 0,
 * QALLOW_E_DAMAGED if there was any problem, or an error that prevented the verification. */
int qr_verify_history(struct qr_store *store, int threads, int from_scratch,
                      void (*problem)(void *context, uint64_t epoch, const char *page,
                                      const char *text),
                      void *context, struct qr_verify_result *result);

/* --- salvage --- */

/* Removes from a state every page whose content cannot be read or has not its recorded sum, and
 * calls `lost` for each one (`why`: one line). What is left can be restored; directories stay. */
int qr_salvage_state(struct qr_store *store, struct qr_state *state,
                     int (*lost)(void *context, const char *name, const struct qr_page *page,
                                 const char *why),
                     void *context);

#endif
