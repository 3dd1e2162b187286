/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The encoder: from edits to the smallest stream of operations.
 *
 * Insertions, removals, zeros and copies have one spelling each. Overwrites have many: every run of
 * changed bytes may stand alone, be joined with the next one by writing out the unchanged bytes
 * between them, or share a mask with its neighbours. A window of neighbouring overwrites is cut
 * into runs of really changed bytes, and the cheapest way through the runs is a shortest path with
 * two states, "inside an OVERWRITE" and "inside a MASK": at each run an operation is either
 * continued (price: the bytes of the gap, or one mask bit for each of them) or a new one is begun
 * (price: its head, and what one more operation costs a reader). That is optimal within a window
 * and takes one pass forward and one back.
 *
 * Prices are in eighths of a byte, since a mask bit is one. Long stretches of scattered changes
 * skip all this: where every few bytes begin a new run, a mask is best and the kernels write it.
 *
 * An edit that does not fit is cut in two and its rest is left in the list; nothing here remembers
 * anything between calls.
 */
#include "backend/kernels.h"
#include "runtime/delta.h"
#include "runtime/error.h"

enum {
    ROOM_MIN = 64,                /* no operation is begun in less room */
    HEAD_MAX = 3 * QR_VARINT_MAX, /* gap, length and kind, new_length */
    RUNS_MAX = 256,               /* of a window */
    NEVER = 1 << 28,              /* the price of what is not possible, in bytes */
    CHUNK = 4096,                 /* of a long overwrite, looked at for scattered changes */
    CHUNK_RUNS_MIN = 128,
    CHUNK_CHANGED_MAX = CHUNK / 4 * 3,
};

/* Changed bytes in place, and how they are written. */
struct run {
    uint64_t offset, length;
    const uint8_t *bytes;
    uint8_t mask;         /* chosen: part of a MASK */
    uint8_t begins;       /* chosen: first of its operation */
    uint8_t continued[2]; /* shortest path: [state] continues the operation of the run before */
    uint8_t from[2];      /* [state] the best state at the run before, if it does not continue */
};

struct window {
    struct run runs[RUNS_MAX];
    size_t count;
    uint64_t end; /* everything before this old offset is in the runs or unchanged */
};

struct encoder {
    struct qr_edits *list;
    size_t *next;
    uint64_t *old_end;
    const uint8_t *old; /* may be NULL */
    struct qr_encode_cost cost;
    uint8_t *at, *limit;
};

static size_t room(const struct encoder *e) { return (size_t)(e->limit - e->at); }

static uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

static int in_place(const struct qr_edit *edit)
{
    return edit->source == QR_LITERAL && edit->old_length == edit->new_length;
}

static void put_head(struct encoder *e, uint64_t offset, uint64_t n, unsigned kind,
                     uint64_t old_length)
{
    qr_assert(offset >= *e->old_end && n < UINT64_C(1) << 61);
    e->at = qr_put_varint(e->at, offset - *e->old_end);
    e->at = qr_put_varint(e->at, n << 3 | kind);
    *e->old_end = offset + old_length;
}

static void put_bytes(struct encoder *e, const void *bytes, uint64_t length)
{
    qr_assert(length <= room(e));
    if (length)
        memcpy(e->at, bytes, (size_t)length);
    e->at += length;
}

/* --- a window of overwrites --- */

/* Adds the changed bytes of one overwrite to the window. 0: the window is full. */
static int add_runs(const struct encoder *e, struct window *w, const struct qr_edit *edit,
                    uint64_t length)
{
    if (!e->old) {
        w->runs[w->count++] =
            (struct run){.offset = edit->offset, .length = length, .bytes = edit->bytes};
        w->end = edit->offset + length;
        return w->count < RUNS_MAX;
    }
    /* Without masks only longer gaps are ever kept; let the kernel join the others. */
    size_t gap = e->cost.masks ? 1 : e->cost.per_operation + 2;
    struct qb_run found[RUNS_MAX];
    size_t scanned;
    size_t count = qb_kernels()->diff_runs(e->old + edit->offset, edit->bytes, (size_t)length, gap,
                                           found, RUNS_MAX - w->count, &scanned);
    for (size_t i = 0; i < count; i++)
        w->runs[w->count++] = (struct run){.offset = edit->offset + found[i].offset,
                                           .length = found[i].length,
                                           .bytes = edit->bytes + found[i].offset};
    w->end = edit->offset + scanned;
    return scanned == length && w->count < RUNS_MAX;
}

/* Collects overwrites from the front of the list that may share operations: gaps up to what a mask
 * could bridge, and not much more than fits into the output. */
static void collect(const struct encoder *e, struct window *w)
{
    const struct qr_edit *edit = &e->list->items[*e->next];
    const struct qr_edit *last = e->list->items + e->list->count;
    uint64_t bridge = 8 * (e->cost.per_operation + 4);
    uint64_t span = room(e), from = edit->offset;
    w->count = 0;
    w->end = from;
    for (; edit < last && in_place(edit); edit++) {
        if (edit->offset - w->end > bridge || edit->offset - from >= span)
            return;
        uint64_t length = smaller(edit->old_length, span - (edit->offset - from));
        if (length == 0)
            continue;
        if (!add_runs(e, w, edit, length) || length < edit->old_length)
            return;
    }
}

/* The shortest path through the runs; see the head of this file. */
static void choose(const struct encoder *e, struct window *w)
{
    uint64_t price[2] = {0, 0}; /* of the best way up to the run before, ending in each state */
    uint64_t before = *e->old_end;
    for (size_t i = 0; i < w->count; i++) {
        struct run *run = &w->runs[i];
        uint64_t gap = run->offset - before;
        uint64_t head = 8 * (e->cost.per_operation + qr_varint_length(gap) +
                             qr_varint_length(run->length << 3));
        int best = price[1] < price[0];
        uint64_t begin[2] = {price[best] + head, price[best] + head + 4};
        uint64_t joined[2] = {price[0] + 8 * gap, price[1] + gap};
        if (i == 0 || (!e->old && gap))
            joined[0] += 8 * (uint64_t)NEVER;
        if (i == 0)
            joined[1] += 8 * (uint64_t)NEVER;
        if (!e->cost.masks)
            begin[1] += 8 * (uint64_t)NEVER;
        for (int state = 0; state < 2; state++) {
            run->continued[state] = joined[state] <= begin[state];
            run->from[state] = (uint8_t)best;
            price[state] = smaller(joined[state], begin[state]) + (state ? 9 : 8) * run->length;
        }
        before = run->offset + run->length;
    }
    int state = price[1] < price[0];
    for (size_t i = w->count; i-- > 0;) {
        struct run *run = &w->runs[i];
        run->mask = (uint8_t)state;
        run->begins = !run->continued[state];
        if (run->begins)
            state = run->from[state];
    }
}

/* The end of the operation over runs [first, last) if it must fit into the room that is left. */
static uint64_t fitting_end(const struct encoder *e, const struct run *first,
                            const struct run *last)
{
    uint64_t from = first->offset, left = room(e) - HEAD_MAX;
    uint64_t end = last[-1].offset + last[-1].length;
    if (!first->mask)
        return smaller(end, from + left);
    uint64_t used = 1; /* payload, and the last byte of the mask */
    for (const struct run *run = first; run < last; run++) {
        uint64_t bits = run->offset - from;
        if (used + run->length + (bits + run->length) / 8 > left) {
            uint64_t full = used + bits / 8;
            uint64_t length = full < left ? (left - full) * 8 / 9 : 0;
            return length ? run->offset + length : run[-1].offset + run[-1].length;
        }
        used += run->length;
    }
    return end;
}

static uint64_t clipped(const struct run *run, uint64_t end)
{
    return smaller(run->length, end - run->offset);
}

static void put_overwrite(struct encoder *e, const struct run *run, const struct run *last,
                          uint64_t end)
{
    uint64_t at = run->offset;
    put_head(e, at, end - at, QR_OP_OVERWRITE, end - at);
    for (; run < last && run->offset < end; run++) {
        uint64_t length = clipped(run, end);
        if (run->offset != at)
            put_bytes(e, e->old + at, run->offset - at);
        put_bytes(e, run->bytes, length);
        at = run->offset + length;
    }
    if (at != end)
        put_bytes(e, e->old + at, end - at);
}

static void set_bits(uint8_t *mask, uint64_t from, uint64_t count)
{
    for (; count && from % 8; from++, count--)
        mask[from / 8] |= (uint8_t)(1u << from % 8);
    memset(mask + from / 8, 0xff, (size_t)(count / 8));
    from += count - count % 8;
    if (count % 8)
        mask[from / 8] |= (uint8_t)((1u << count % 8) - 1);
}

static void put_mask(struct encoder *e, const struct run *first, const struct run *last,
                     uint64_t end)
{
    uint64_t from = first->offset, mask_length = (end - from + 7) / 8;
    put_head(e, from, end - from, QR_OP_MASK, end - from);
    qr_assert(mask_length <= room(e));
    uint8_t *mask = e->at;
    memset(mask, 0, (size_t)mask_length);
    e->at += mask_length;
    for (const struct run *run = first; run < last && run->offset < end; run++) {
        uint64_t length = clipped(run, end);
        set_bits(mask, run->offset - from, length);
        put_bytes(e, run->bytes, length);
    }
}

/* Drops from the list what lies before `end`; the last edit touched keeps its rest. */
static void settle(struct encoder *e, uint64_t end)
{
    while (*e->next < e->list->count) {
        struct qr_edit *edit = &e->list->items[*e->next];
        if (!in_place(edit) || edit->offset >= end)
            return;
        uint64_t done = smaller(edit->old_length, end - edit->offset);
        edit->offset += done;
        edit->bytes += done;
        edit->old_length -= done;
        edit->new_length -= done;
        if (edit->new_length)
            return;
        ++*e->next;
    }
}

/* Bytes changed in a chunk; 0 unless they are so many and so scattered that a mask is best: the
 * low bytes of numbers, say. */
static size_t scattered(const uint8_t *old, const uint8_t *new_)
{
    uint8_t mask[CHUNK / 8];
    size_t changed = qb_kernels()->diff_mask(old, new_, CHUNK, mask), borders = 0;
    uint64_t last = 0;
    for (size_t i = 0; i < sizeof mask; i += 8) {
        uint64_t bits = qr_load64(mask + i);
        borders += (size_t)__builtin_popcountll(bits ^ (bits << 1 | last));
        last = bits >> 63;
    }
    return borders >= 2 * CHUNK_RUNS_MIN && changed <= CHUNK_CHANGED_MAX ? changed : 0;
}

/* Long stretches of scattered changes become a mask without being cut into runs. 0: this is none.
 */
static int encode_scattered(struct encoder *e)
{
    const struct qr_edit *edit = &e->list->items[*e->next];
    const uint8_t *old = e->old + edit->offset;
    size_t left = room(e) - HEAD_MAX;
    uint64_t span = 0;
    while (edit->old_length - span >= CHUNK && left >= CHUNK / 8 + CHUNK_CHANGED_MAX) {
        size_t changed = scattered(old + span, edit->bytes + span);
        if (changed == 0)
            break;
        left -= CHUNK / 8 + changed;
        span += CHUNK;
    }
    if (span == 0)
        return 0;
    const uint8_t *bytes = edit->bytes;
    put_head(e, edit->offset, span, QR_OP_MASK, span);
    uint8_t *mask = e->at, *payload = mask + span / 8;
    qb_kernels()->diff_mask(old, bytes, (size_t)span, mask);
    e->at = payload + qb_kernels()->pack_mask(payload, bytes, (size_t)span, mask);
    qr_assert(e->at <= e->limit);
    settle(e, edit->offset + span);
    return 1;
}

/* Without old bytes overwrites share an operation only where one goes on where the other ends.
 * 1: the next one stands alone and is written; 0: it has to be looked at with others, or cut. */
static int encode_alone(struct encoder *e)
{
    const struct qr_edit *edit = &e->list->items[*e->next];
    const struct qr_edit *last = e->list->items + e->list->count - 1;
    uint64_t end = edit->offset + edit->old_length;
    if (e->old || e->cost.masks || edit->old_length > room(e) - HEAD_MAX ||
        (edit < last && edit[1].offset <= end))
        return 0;
    put_head(e, edit->offset, edit->old_length, QR_OP_OVERWRITE, edit->old_length);
    put_bytes(e, edit->bytes, edit->old_length);
    ++*e->next;
    return 1;
}

static void encode_overwrites(struct encoder *e)
{
    if (encode_alone(e) || (e->old && e->cost.masks && encode_scattered(e)))
        return;
    struct window w;
    collect(e, &w);
    choose(e, &w);
    const struct run *run = w.runs, *stop = w.runs + w.count;
    while (run < stop) {
        const struct run *last = run + 1;
        while (last < stop && !last->begins)
            last++;
        if (room(e) < ROOM_MIN) {
            settle(e, run->offset);
            return;
        }
        uint64_t end = fitting_end(e, run, last);
        if (run->mask)
            put_mask(e, run, last, end);
        else
            put_overwrite(e, run, last, end);
        if (end < last[-1].offset + last[-1].length) {
            settle(e, end);
            return;
        }
        run = last;
    }
    settle(e, w.end);
}

/* --- all other edits; each fits into ROOM_MIN, but for literal bytes --- */

/* Writes as much of a literal as fits: whole, or its front over as many old bytes. */
static void encode_replace(struct encoder *e, struct qr_edit *edit)
{
    uint64_t length = smaller(edit->new_length, room(e) - HEAD_MAX);
    int whole = length == edit->new_length;
    uint64_t old_length = whole ? edit->old_length : smaller(edit->old_length, length);
    if (old_length == length) {
        put_head(e, edit->offset, length, QR_OP_OVERWRITE, length);
    } else {
        put_head(e, edit->offset, old_length, QR_OP_REPLACE, old_length);
        e->at = qr_put_varint(e->at, length);
    }
    put_bytes(e, edit->bytes, length);
    edit->offset += old_length;
    edit->old_length -= old_length;
    edit->new_length -= length;
    edit->bytes += length;
    *e->next += (size_t)whole;
}

static void encode_zeros(struct encoder *e, const struct qr_edit *edit)
{
    uint64_t common = smaller(edit->old_length, edit->new_length);
    if (common)
        put_head(e, edit->offset, common, QR_OP_ZERO, common);
    if (edit->new_length > common)
        put_head(e, edit->offset + common, edit->new_length - common, QR_OP_GROW, 0);
    if (edit->old_length > common)
        put_head(e, edit->offset + common, edit->old_length - common, QR_OP_REMOVE,
                 edit->old_length - common);
}

static void encode_copy(struct encoder *e, const struct qr_edit *edit)
{
    if (edit->from == edit->offset && edit->new_length == edit->old_length)
        return; /* the bytes stay where they are */
    put_head(e, edit->offset, edit->old_length, QR_OP_COPY, edit->old_length);
    e->at = qr_put_varint(e->at, edit->new_length);
    e->at = qr_put_varint(e->at, edit->from);
}

static void encode_stored(struct encoder *e, const struct qr_edit *edit)
{
    put_head(e, edit->offset, edit->old_length, QR_OP_STORED, edit->old_length);
    e->at = qr_put_varint(e->at, edit->new_length);
    qr_store64(e->at, edit->from);
    e->at += 8;
}

static void encode_other(struct encoder *e)
{
    struct qr_edit *edit = &e->list->items[*e->next];
    if (edit->new_length && edit->source == QR_LITERAL) {
        encode_replace(e, edit);
        return;
    }
    if (edit->new_length == 0 && edit->old_length)
        put_head(e, edit->offset, edit->old_length, QR_OP_REMOVE, edit->old_length);
    else if (edit->source == QR_ZEROS)
        encode_zeros(e, edit);
    else if (edit->source == QR_COPY)
        encode_copy(e, edit);
    else if (edit->source == QR_STORED)
        encode_stored(e, edit);
    ++*e->next;
}

size_t qr_ops_encode(struct qr_edits *list, size_t *next, uint64_t *old_end,
                     const uint8_t *old_or_null, struct qr_encode_cost cost, uint8_t *out,
                     size_t capacity)
{
    struct encoder e = {.list = list,
                        .next = next,
                        .old_end = old_end,
                        .old = old_or_null,
                        .cost = cost,
                        .at = out,
                        .limit = out + capacity};
    while (*next < list->count && room(&e) >= ROOM_MIN) {
        const struct qr_edit *edit = &list->items[*next];
        if (edit->new_length && in_place(edit))
            encode_overwrites(&e);
        else
            encode_other(&e);
    }
    return (size_t)(e.at - out);
}
