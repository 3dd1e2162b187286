/* SPDX-License-Identifier: Apache-2.0 */
/* What the runtime itself may do to a state. */
#ifndef QR_STATE_INTERNAL_H
#define QR_STATE_INTERNAL_H

#include <pthread.h>

#include "runtime/page.h"
#include "runtime/store.h"

/* An open-addressing table of slot numbers, with a hash of each, so that looking one up seldom
 * touches a page that is not the right one. */
struct qr_slot_entry {
    uint32_t slot; /* 0 = empty */
    uint32_t hash;
};
struct qr_slot_table {
    struct qr_slot_entry *entries;
    uint32_t mask, used;
};

/* For threads that look pages up, and at what is held of them, while another one changes the state:
 * `lock` is held, also recursively, by who makes pages come, go or move, holds pages that are not
 * its own, or drops what is held. */
struct qr_sharing {
    pthread_mutex_t lock;
    /* Under the lock: does somebody look at what is held of a page? NULL: nobody ever does. */
    int (*is_in_use)(void *context, uint64_t page);
    void *context;
};

enum { QR_CHUNK_SHIFT = 8, QR_CHUNK = 1 << QR_CHUNK_SHIFT };

struct qr_state {
    struct qr_page **chunks; /* slot -> page; slot 0 is never used */
    uint32_t slot_count;     /* slots handed out, the unused slot 0 included */
    uint32_t chunk_count, chunk_capacity;
    uint32_t dead;           /* slots of freed pages; they keep their id: slots ascend by id */
    uint32_t first_root;
    struct qr_slot_table by_id, by_name;
    uint64_t page_count, bytes, piece_total;
    uint64_t held_bytes, held_limit; /* of content in memory, see held.c */
    uint64_t held_page_limit;        /* of one page */
    struct qr_held *held_hand;       /* one of them, all in a ring; NULL: there are none */
    struct qr_pool *held_pool;       /* where it lies; NULL: there was none yet */
    struct qr_sharing *sharing;      /* of a store's newest state; or NULL */
    /* Not NULL: content goes there, not into pieces: pages have none (load.c). */
    const struct qr_places *places;
    int is_final; /* of them: what is new will hardly change, and is checked at once */
    /* The digest lacks all terms of pages from this slot on: they are new, and qr_state_sum_new
     * adds what they have become. UINT32_MAX: it lacks nothing. */
    uint32_t summed_to;
    uint64_t epoch, next_id;
    uint64_t usual_distance; /* of a page's id from its slot: that of the newest */
    int64_t time_ns;
    struct qb_u128 digest;
};

static inline struct qr_page *qr_slot(const struct qr_state *state, uint32_t slot)
{
    return &state->chunks[slot >> QR_CHUNK_SHIFT][slot & (QR_CHUNK - 1)];
}

/* What finding a page and changing its pieces will touch is fetched into the cache, one step after
 * the other: the slot in the table, the page, its pieces. Whoever has many pages to find calls each
 * step some pages ahead of the next, so that the misses overlap. A page need not exist. */
enum qr_fetch { QR_FETCH_SLOT, QR_FETCH_PAGE, QR_FETCH_PIECES };
void qr_state_fetch(const struct qr_state *state, uint64_t id, enum qr_fetch step);

/* All of these check their rules (docs/formats/tlog.md, "Records") and keep digest, sizes and
 * links right. Results: 0, PAGE_NOT_FOUND, PAGE_EXISTS, SERIALIZATION, NO_MEMORY, LIMIT, with
 * detail. */
int qr_state_create_page(struct qr_state *state, uint64_t id, uint64_t parent, const void *name,
                         size_t name_length, enum qr_kind kind, struct qr_page **page);
/* Like qr_state_create_page for a table that is read back: parents may come later. To be followed
 * by qr_state_load_finish, which links the pages and checks parents, names and cycles. */
int qr_state_load_page(struct qr_state *state, uint64_t id, uint64_t parent, const void *name,
                       size_t name_length, enum qr_kind kind, struct qr_page **page);
int qr_state_load_finish(struct qr_state *state);
int qr_state_free_page(struct qr_state *state, struct qr_page *page);
int qr_state_rename_page(struct qr_state *state, struct qr_page *page, uint64_t parent,
                         const void *name, size_t name_length);
int qr_state_set_attributes(struct qr_state *state, struct qr_page *page, uint32_t mode,
                            int64_t mtime_ns, const void *extra, size_t extra_length);
void qr_state_sum_new(struct qr_state *state);
/* The content has another sum; its size stays, and the pieces are changed apart from this. (Sums
 * come by address: on the stack they would be written in halves and read as one, which waits for
 * all writes before them, and those are of content.) */
void qr_state_set_sum(struct qr_state *state, struct qr_page *page,
                      const struct qb_u128 *content_sum);
/* Takes over `pieces` (of capacity `capacity`, from qr_malloc). */
void qr_state_set_content(struct qr_state *state, struct qr_page *page, struct qr_piece *pieces,
                          uint32_t count, uint32_t capacity, uint64_t size,
                          const struct qb_u128 *content_sum);

/* --- pieces (pieces.c) --- */

/* One piece needs no array. But a page that programs write to will soon have many again: its array
 * stays, if it is small. */
static inline int qr_page_keeps_array(const struct qr_page *page)
{
    enum { KEPT_MAX = 128 };
    return page->held && page->pieces != &page->inline_piece && page->piece_capacity <= KEPT_MAX;
}

/* Writes over a range that lies in the page, with bytes of the log. NO_MEMORY: nothing happened. */
int qr_page_overwrite(struct qr_state *state, struct qr_page *page, uint64_t offset,
                      uint64_t length, qr_ref ref);
/* All pieces are in their places. NO_MEMORY: nothing happened. */
int qr_page_settle(struct qr_state *state, struct qr_page *page);
/* Room for a copy of the pieces, and the copy: how many they are. */
static inline uint32_t qr_page_pieces_max(const struct qr_page *page)
{
    return (uint32_t)page->piece_count + 2 * (uint32_t)page->recent_count;
}
uint32_t qr_page_copy_pieces(const struct qr_page *page, struct qr_piece *to);

/* --- content in memory (held.c) --- */

/* What is known of a page's content in memory, page->held. */
struct qr_held {
    struct qr_held *next, *previous; /* in the ring of the state */
    struct qr_page *page;
    uint64_t size;
};

/* Keeps out, and lets in, whoever looks pages up meanwhile. */
static inline void qr_state_lock_pages(struct qr_state *state)
{
    if (state->sharing)
        pthread_mutex_lock(&state->sharing->lock);
}
static inline void qr_state_unlock_pages(struct qr_state *state)
{
    if (state->sharing)
        pthread_mutex_unlock(&state->sharing->lock);
}

/* Room for the content of a page, `size` bytes, which the caller fills at once; other pages may be
 * dropped for it. NULL: it is empty or larger than the limit, or there is no memory. */
uint8_t *qr_page_hold(struct qr_state *state, struct qr_page *page, uint64_t size);
void qr_page_let_go(struct qr_state *state, struct qr_page *page);
/* Before the state goes; its pages still say that they are held. */
void qr_state_let_all_go(struct qr_state *state);
/* What is held goes over to another state of the same store, as far as it is true there, too: of
 * pages that are there and have not changed after its epoch. */
void qr_state_move_held(struct qr_state *from, struct qr_state *to);
/* From now on so much content may be held, of all pages and of one. 0: none. */
void qr_state_set_held_limits(struct qr_state *state, uint64_t bytes, uint64_t page_bytes);
/* Holds a page, whose bytes come from the log, and its neighbours there, if they fit; page->held is
 * NULL afterwards if it may not be, or if it is large and has been asked for too seldom. DAMAGED,
 * IO. */
int qr_state_hold(struct qr_state *state, struct qr_page *page, struct qr_reader *reader);
/* One part of a delta, which has been found to be right, before the page gets its new pieces: what
 * is held follows, or is dropped. New pages are held from the start. `moves`: some operation so far
 * changes the size or copies. *old_end is 0 before the first part. */
void qr_page_follow(struct qr_state *state, struct qr_page *page, const struct qr_record *record,
                    int moves, uint64_t *old_end);

/* Removes slots of freed pages when they have become many. Pointers to pages become invalid. */
int qr_state_compact(struct qr_state *state);

#endif
