/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading a whole state into memory, in the order of the log.
 *
 * Page by page, the pieces of a state that many small commits have made are scattered over the
 * log, and every piece costs a read of its own frame. Sorted by where they stand, they are one
 * walk over the log that reads each frame once and ahead; the bytes go straight to their places.
 * So any epoch costs about the same, whatever the number of commits that made it.
 */
#include "runtime/digest.h"
#include "runtime/error.h"
#include "runtime/spans.h"
#include "runtime/store_internal.h"
#include "runtime/team.h"

/* --- reading them, and checking the result, in threads --- */

struct load {
    struct qr_store *store;
    const struct qr_state *state;
    const struct qr_places *places;
    struct qr_spans spans;
};

static int begin_reading(void *context, void **own)
{
    const struct load *load = context;
    struct qr_reader *reader;
    int rc = qr_reader_create(load->store, 4 << 20, &reader);
    if (!rc)
        qr_reader_read_ahead(*own = reader);
    return rc;
}

static int read_spans(void *context, void *own, uint64_t first, uint64_t end)
{
    const struct load *load = context;
    int rc = 0;
    for (uint64_t i = first; i < end && !rc; i++) {
        const struct qr_span *span = &load->spans.items[i];
        rc = qr_reader_literal(own, span->ref, span->to, span->length);
    }
    return rc;
}

static void end_reading(void *context, void *own) { qr_reader_destroy(own); }

int qr_page_check(const struct qr_page *page, const uint8_t *bytes)
{
    struct qb_u128 sum = qb_kernels()->hash_cells(bytes, page->size, qr_page_seed(page->id), 0);
    if (!qb_u128_equal(sum, page->content_sum))
        return qr_fail(QALLOW_E_DAMAGED, "page %llu: its content does not give the recorded digest",
                       (unsigned long long)page->id);
    return 0;
}

/* NULL: it is right, or nobody wants it. */
static const uint8_t *to_check(const struct load *load, const struct qr_page *page)
{
    return page->kind && !page->mark ? load->places->place(load->places->context, page) : NULL;
}

/* The begin of each page is fetched while the one before it is hashed. */
static int check_slots(void *context, void *own, uint64_t first, uint64_t end)
{
    enum { LINE = 64, AHEAD = 1024 };
    const struct load *load = context;
    int rc = 0;
    const struct qr_page *page = NULL, *next;
    const uint8_t *bytes = NULL;
    for (uint64_t slot = first; slot <= end && !rc; slot++) {
        next = slot < end ? qr_slot(load->state, (uint32_t)slot + 1) : NULL;
        const uint8_t *next_bytes = next ? to_check(load, next) : NULL;
        for (size_t at = 0; next_bytes && at < next->size && at < AHEAD; at += LINE)
            __builtin_prefetch(next_bytes + at);
        if (bytes)
            rc = qr_page_check(page, bytes);
        page = next;
        bytes = next_bytes;
    }
    return rc;
}

int qr_state_check(const struct qr_state *state, const struct qr_places *places, int threads)
{
    enum { SHARE = 256 }; /* pages */
    static const struct qr_team_work work = {NULL, check_slots, NULL};
    struct load load = {.state = state, .places = places};
    return qr_team(threads, state->slot_count - 1, SHARE, &work, &load); /* slot 0 is none */
}

static int add_page(struct load *load, const struct qr_page *page)
{
    uint8_t *to = load->places->place(load->places->context, page);
    struct qr_content content;
    if (!to)
        return 0;
    int rc = qr_content_init(&content, page);
    for (size_t i = 0; !rc && i < content.piece_count; i++) {
        const struct qr_piece *piece = &content.pieces[i];
        if (piece->ref == QR_REF_ZERO)
            qb_kernels()->zero(to, piece->length);
        else
            rc = qr_spans_add(&load->spans, load->store, piece->ref, to, piece->length);
        to += piece->length;
    }
    qr_content_finish(&content);
    return rc;
}

static int load_in(struct qr_store *store, const struct qr_state *state,
                   const struct qr_places *places, int threads)
{
    enum { SHARE_MIN = 256, SHARES = 8 /* for each thread */ };
    static const struct qr_team_work work = {begin_reading, read_spans, end_reading};
    struct load load = {.store = store, .state = state, .places = places};
    int rc = 0;
    for (uint32_t slot = 1; slot < state->slot_count && !rc; slot++)
        if (qr_slot(state, slot)->kind)
            rc = add_page(&load, qr_slot(state, slot));
    if (!rc && load.spans.count)
        rc = qr_spans_sort(&load.spans);
    uint64_t share = load.spans.count / ((uint64_t)threads * SHARES);
    if (!rc)
        rc =
            qr_team(threads, load.spans.count, share < SHARE_MIN ? SHARE_MIN : share, &work, &load);
    qr_spans_finish(&load.spans);
    return rc ? rc : qr_state_check(state, places, threads);
}

int qr_state_load(struct qr_store *store, const struct qr_state *state,
                  const struct qr_places *places)
{
    return load_in(store, state, places, store->options.threads > 1 ? store->options.threads : 1);
}

/* --- a state that fits into memory, for who looks at all of it --- */

struct arena {
    uint8_t *bytes;
    uint64_t *at; /* of each slot */
};

static uint8_t *place_in_arena(void *context, const struct qr_page *page)
{
    const struct arena *arena = context;
    return arena->bytes + arena->at[page->slot];
}

int qr_state_check_content(struct qr_store *store, const struct qr_state *state, int threads)
{
    struct arena arena = {qr_malloc((size_t)qr_state_bytes(state) + 1),
                          qr_malloc(state->slot_count * sizeof *arena.at)};
    uint64_t at = 0;
    int rc = arena.bytes && arena.at ? 0 : qr_fail(QALLOW_E_NO_MEMORY, "a state in memory");
    for (uint32_t slot = 1; slot < state->slot_count && !rc; slot++) {
        arena.at[slot] = at;
        at += qr_slot(state, slot)->kind ? qr_slot(state, slot)->size : 0;
    }
    if (!rc)
        rc = load_in(store, state, &(struct qr_places){place_in_arena, &arena}, threads);
    qr_free(arena.bytes);
    qr_free(arena.at);
    return rc;
}

static uint8_t *place_held(void *context, const struct qr_page *page) { return page->held; }

void qr_state_hold_all(struct qr_store *store, struct qr_state *state)
{
    if (qr_state_bytes(state) > state->held_limit)
        return;
    for (uint32_t slot = 1; slot < state->slot_count; slot++)
        if (qr_slot(state, slot)->kind && qr_slot(state, slot)->size)
            (void)qr_page_hold(state, qr_slot(state, slot), qr_slot(state, slot)->size);
    if (load_in(store, state, &(struct qr_places){place_held, NULL}, 1))
        for (uint32_t slot = 1; slot < state->slot_count; slot++)
            qr_page_let_go(state, qr_slot(state, slot));
}
