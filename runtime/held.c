/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Content held in memory.
 *
 * The content of a page is its pieces, places in the log. A page that is written again and again
 * also has its bytes in memory: they are always what the pieces say, so they may be dropped at any
 * time, and nothing but speed depends on them. Only states that somebody has set limits for have
 * such pages: the newest one of a store that programs write to, and those that a verification walks
 * through. Copies of a state have none.
 *
 * Where room is needed, pages are dropped that have not been used since the hand passed them last
 * (the clock algorithm).
 */
#include "runtime/apply_bytes.h"
#include "runtime/error.h"
#include "runtime/format.h"
#include "runtime/os.h"
#include "runtime/pool.h"
#include "runtime/state_internal.h"
#include "runtime/store_internal.h"

/* Behind all others, as the hand comes. */
static void enter_ring(struct qr_state *state, struct qr_held *held)
{
    struct qr_held *hand = state->held_hand ? state->held_hand : held;
    held->next = hand;
    held->previous = hand == held ? held : hand->previous;
    held->previous->next = held;
    hand->previous = held;
    state->held_hand = hand;
    state->held_bytes += held->size;
}

static void leave_ring(struct qr_state *state, struct qr_held *held)
{
    held->previous->next = held->next;
    held->next->previous = held->previous;
    if (state->held_hand == held)
        state->held_hand = held->next == held ? NULL : held->next;
    state->held_bytes -= held->size;
}

/* The bytes and what is known of them. */
static void give_back(struct qr_state *state, uint8_t *bytes, struct qr_held *held)
{
    int rc = qr_pool_free(state->held_pool, bytes, held->size);
    qr_assert(rc == 0);
    qr_free(held);
}

/* Of a page that goes on without: what it had. */
static struct qr_held *take_from(struct qr_state *state, struct qr_page *page, uint8_t **bytes)
{
    struct qr_held *held = page->held_entry;
    leave_ring(state, held);
    *bytes = page->held;
    page->held = NULL;
    page->held_entry = NULL;
    return held;
}

void qr_page_let_go(struct qr_state *state, struct qr_page *page)
{
    uint8_t *bytes;
    if (!page->held)
        return;
    struct qr_held *held = take_from(state, page, &bytes);
    give_back(state, bytes, held);
}

void qr_state_let_all_go(struct qr_state *state)
{
    while (state->held_hand) {
        struct qr_held *held = state->held_hand;
        leave_ring(state, held);
        qr_free(held);
    }
    qr_pool_destroy(state->held_pool);
    state->held_pool = NULL;
}

static int is_in_use(const struct qr_state *state, const struct qr_page *page)
{
    const struct qr_sharing *sharing = state->sharing;
    return sharing && sharing->is_in_use && sharing->is_in_use(sharing->context, page->id);
}

/* Drops pages until `size` more bytes fit; not `page` itself, and none that somebody looks at: two
 * rounds show whether there are others. */
static void make_room(struct qr_state *state, const struct qr_page *page, uint64_t size)
{
    struct qr_held *stop = NULL;
    int rounds = 0;
    while (state->held_bytes > state->held_limit - size && state->held_hand && rounds < 2) {
        struct qr_held *held = state->held_hand;
        rounds += held == stop;
        state->held_hand = held->next;
        if (held->page->held_is_used || held->page == page || is_in_use(state, held->page)) {
            held->page->held_is_used = 0;
            stop = stop ? stop : held;
        } else {
            stop = stop == held ? NULL : stop;
            qr_page_let_go(state, held->page);
        }
    }
}

static void make_room_alone(struct qr_state *state, const struct qr_page *page, uint64_t size)
{
    if (state->held_bytes <= state->held_limit - size)
        return;
    qr_state_lock_pages(state);
    make_room(state, page, size);
    qr_state_unlock_pages(state);
}

/* No more than what may be held, which is counted here, is ever taken from the pool. */
static int get_pool(struct qr_state *state)
{
    const struct qr_pool_options options = {.keep_bytes = 1};
    return state->held_pool ? 0 : qr_pool_create(&options, &state->held_pool);
}

uint8_t *qr_page_hold(struct qr_state *state, struct qr_page *page, uint64_t size)
{
    void *bytes;
    if (size == 0 || size > state->held_limit || size > state->held_page_limit)
        return NULL;
    make_room_alone(state, page, size);
    if (state->held_bytes > state->held_limit - size || get_pool(state))
        return NULL;
    struct qr_held *held = qr_malloc(sizeof *held);
    if (!held || qr_pool_alloc(state->held_pool, (size_t)size, &bytes)) {
        qr_free(held);
        return NULL;
    }
    qr_page_let_go(state, page);
    *held = (struct qr_held){.page = page, .size = size};
    enter_ring(state, held);
    page->held = bytes;
    page->held_entry = held;
    page->held_is_used = 1;
    page->held_missed = 0;
    return bytes;
}

static void move_held(struct qr_state *from, struct qr_state *to, struct qr_held *held)
{
    struct qr_page *page = qr_state_find(to, held->page->id);
    if (!page || held->page->version > to->epoch) {
        qr_page_let_go(from, held->page); /* who changed it has ended, and looks at it no more */
        return;
    }
    take_from(from, held->page, &page->held);
    held->page = page;
    page->held_entry = held;
    enter_ring(to, held);
}

void qr_state_move_held(struct qr_state *from, struct qr_state *to)
{
    qr_state_set_held_limits(to, from->held_limit, from->held_page_limit);
    to->sharing = from->sharing;
    while (from->held_hand)
        move_held(from, to, from->held_hand);
    to->held_pool = from->held_pool;
    from->held_pool = NULL;
}

void qr_state_set_held_limits(struct qr_state *state, uint64_t bytes, uint64_t page_bytes)
{
    state->held_limit = bytes;
    state->held_page_limit = page_bytes;
}

/* --- fetching from the log --- */

static int fetch(struct qr_state *state, struct qr_page *page, struct qr_reader *reader)
{
    struct qr_content content;
    if (page->held)
        page->held_is_used = 1;
    uint8_t *into = page->held ? NULL : qr_page_hold(state, page, page->size);
    if (!into)
        return 0;
    int rc = qr_content_init(&content, page);
    if (!rc)
        rc = qr_content_read(reader, &content, 0, into, (size_t)page->size);
    qr_content_finish(&content);
    if (!rc)
        rc = qr_page_check(page, into);
    if (rc)
        qr_page_let_go(state, page);
    return rc;
}

/* Does all of it lie in this frame, and is there room without dropping others? */
static int comes_along(const struct qr_state *state, const struct qr_page *page, uint64_t frame)
{
    return page->kind && !page->held && qr_page_pieces_max(page) == 1 &&
           page->pieces[0].ref != QR_REF_ZERO && qr_ref_frame(page->pieces[0].ref) == frame &&
           page->size <= state->held_limit - state->held_bytes;
}

/* The frame that was read for a page holds its neighbours, too, which are likely to be next. */
static int fetch_neighbours(struct qr_state *state, const struct qr_page *page,
                            struct qr_reader *reader)
{
    uint64_t frame = qr_ref_frame(page->pieces[0].ref);
    struct qr_page *other;
    int rc = 0;
    for (uint32_t i = page->slot + 1; !rc && i < state->slot_count; i++) {
        if (!comes_along(state, other = qr_slot(state, i), frame))
            break;
        rc = fetch(state, other, reader);
    }
    for (uint32_t i = page->slot - 1; !rc && i > 0; i--) {
        if (!comes_along(state, other = qr_slot(state, i), frame))
            break;
        rc = fetch(state, other, reader);
    }
    return rc;
}

/* A small page is worth it at once: who does without reads a frame, which holds as much. A large
 * one when it has been done without for so long that this has cost as much as holding it does. So
 * where large pages drop each other, or changes of their size drop them, it is at worst twice the
 * work of holding none. */
static int is_worth_it(struct qr_page *page)
{
    enum { COST = 128 << 10 }; /* bytes of a page fetched in the time that reading a range takes */
    return page->held || page->size <= QR_BODY_MAX || page->held_missed++ >= page->size / COST;
}

int qr_state_hold(struct qr_state *state, struct qr_page *page, struct qr_reader *reader)
{
    if (!is_worth_it(page))
        return 0;
    int was_held = page->held != NULL, rc = fetch(state, page, reader);
    if (!rc && !was_held && page->held && qr_page_pieces_max(page) == 1 &&
        page->pieces[0].ref != QR_REF_ZERO) {
        qr_state_lock_pages(state); /* others may take these while they are still being filled */
        rc = fetch_neighbours(state, page, reader);
        qr_state_unlock_pages(state);
    }
    return rc;
}

/* --- following the deltas --- */

/* The new content beside the old one, which goes. No other page is dropped for it: that takes the
 * lock of pages, and who applies has the store's, which others take behind that one. */
static int rebuild(struct qr_state *state, struct qr_page *page, uint64_t new_size,
                   struct qr_cursor operations)
{
    uint8_t *old = NULL;
    struct qr_held *entry = page->held ? take_from(state, page, &old) : NULL;
    int fits = new_size <= state->held_limit && state->held_bytes <= state->held_limit - new_size;
    struct qr_apply apply = {.old = old,
                             .old_size = entry ? entry->size : 0,
                             .new_size = new_size,
                             .new_ = fits ? qr_page_hold(state, page, new_size) : NULL};
    int rc = apply.new_ ? qr_apply_part(&apply, operations) : 0;
    if (apply.new_ && rc == 0)
        rc = qr_apply_end(&apply);
    if (entry)
        give_back(state, old, entry);
    return rc;
}

/* A large page whose size changes would be copied each time: whoever needs it fetches it again. */
void qr_page_follow(struct qr_state *state, struct qr_page *page, const struct qr_record *record,
                    int moves, uint64_t *old_end)
{
    struct qr_cursor operations = qr_cursor(record->operations, record->operations_length);
    int rc = 0;
    if (!state->held_limit || record->type == QR_RECORD_IMAGE || (!page->held && page->size > 0))
        return;
    if (page->held && !moves && !record->base)
        rc = qr_apply_in_place(page->held, page->size, operations, old_end);
    else if (record->first && record->last && !record->base && record->new_size <= QR_BODY_MAX)
        rc = rebuild(state, page, record->new_size, operations);
    else
        qr_page_let_go(state, page);
    qr_assert(rc == 0); /* the pieces have been made of the same operations */
    if (page->held)
        page->held_is_used = 1;
}
