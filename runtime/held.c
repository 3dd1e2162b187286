/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Content held in memory.
 *
 * The content of a page is its pieces, places in the log. A page that is written again and again
 * also has its bytes in memory: they are always what the pieces say, so they may be dropped at any
 * time, and nothing but speed depends on them. Only the newest state of a store that asks for it
 * (held_limit) has such pages; copies of a state have none.
 *
 * Where room is needed, pages are dropped that have not been used since the hand passed them last
 * (the clock algorithm).
 */
#include "runtime/apply_bytes.h"
#include "runtime/error.h"
#include "runtime/os.h"
#include "runtime/state_internal.h"

void qr_page_let_go(struct qr_state *state, struct qr_page *page)
{
    if (!page->held)
        return;
    qr_free(page->held);
    page->held = NULL;
    state->held_bytes -= page->held_size;
    page->held_size = 0;
}

/* Drops pages until `size` more bytes fit; not `page` itself. */
static void make_room(struct qr_state *state, const struct qr_page *page, uint64_t size)
{
    for (uint64_t steps = 2 * (uint64_t)state->slot_count;
         steps && state->held_bytes > state->held_limit - size; steps--) {
        state->held_hand = state->held_hand + 1 < state->slot_count ? state->held_hand + 1 : 1;
        struct qr_page *other = qr_slot(state, state->held_hand);
        if (!other->held || other == page)
            continue;
        if (other->held_used)
            other->held_used = 0;
        else
            qr_page_let_go(state, other);
    }
}

uint8_t *qr_page_hold(struct qr_state *state, struct qr_page *page, uint64_t size)
{
    if (size == 0 || size > state->held_limit)
        return NULL;
    make_room(state, page, size);
    uint8_t *bytes = state->held_bytes > state->held_limit - size ? NULL : qr_malloc((size_t)size);
    if (!bytes)
        return NULL;
    qr_page_let_go(state, page);
    page->held = bytes;
    page->held_size = size;
    page->held_used = 1;
    state->held_bytes += size;
    return bytes;
}

/* The new content beside the old one, which goes. */
static int rebuild(struct qr_state *state, struct qr_page *page, uint64_t new_size,
                   struct qr_cursor operations)
{
    uint8_t *old = page->held;
    uint64_t old_size = page->held_size;
    page->held = NULL;
    page->held_size = 0;
    state->held_bytes -= old_size;
    struct qr_apply apply = {.old = old,
                             .old_size = old_size,
                             .new_size = new_size,
                             .new_ = qr_page_hold(state, page, new_size)};
    int rc = apply.new_ ? qr_apply_part(&apply, operations) : 0;
    if (apply.new_ && rc == 0)
        rc = qr_apply_end(&apply);
    qr_free(old);
    return rc;
}

void qr_page_follow(struct qr_state *state, struct qr_page *page, const struct qr_record *record,
                    int moves, uint64_t *old_end)
{
    struct qr_cursor operations = qr_cursor(record->operations, record->operations_length);
    int rc = 0;
    if (!state->held_limit || record->type == QR_RECORD_IMAGE || (!page->held && page->size > 0))
        return;
    if (page->held && !moves && !record->base)
        rc = qr_apply_in_place(page->held, page->held_size, operations, old_end);
    else if (record->first && record->last && !record->base)
        rc = rebuild(state, page, record->new_size, operations);
    else /* whoever needs them fetches them again */
        qr_page_let_go(state, page);
    qr_assert(rc == 0); /* the pieces have been made of the same operations */
    page->held_used = 1;
}
