/* SPDX-License-Identifier: Apache-2.0 */
/* See inode.h, and sim_os.h for what may survive. */
#include <stdlib.h>

#include "inode.h"
#include "sim_os.h"

void *sim_grow(void *items, size_t count, size_t *capacity, size_t item)
{
    if (count < *capacity)
        return items;
    *capacity = *capacity * 2 + 8;
    items = realloc(items, *capacity * item);
    if (!items)
        abort();
    return items;
}

static void forget_pending(struct inode *inode)
{
    while (inode->pending_count > 0)
        free(inode->pending[--inode->pending_count].bytes);
}

static void apply_change(struct sim_content *content, const struct change *change)
{
    uint64_t end = change->offset + change->length;
    switch (change->kind) {
    case CHANGE_WRITE:
        sim_content_write(content, change->offset, change->bytes, (size_t)change->length);
        if (end > content->size)
            content->size = end;
        break;
    case CHANGE_RESIZE:
        sim_content_resize(content, change->offset);
        break;
    case CHANGE_PUNCH:
        sim_content_zero(content, change->offset, change->length);
        break;
    }
}

void inode_change(struct inode *inode, struct change change)
{
    apply_change(&inode->seen, &change);
    inode->pending = sim_grow(inode->pending, inode->pending_count, &inode->pending_capacity,
                              sizeof *inode->pending);
    inode->pending[inode->pending_count++] = change;
}

void inode_make_durable(struct inode *inode)
{
    for (size_t i = 0; i < inode->pending_count; i++)
        apply_change(&inode->durable, &inode->pending[i]);
    forget_pending(inode);
}

/* --- what survives --- */

/* How the pending changes of one file fare. */
struct fate {
    enum {
        FATE_ALL,
        FATE_NONE,
        FATE_MOMENT,   /* the disk is one moment of the past, with the next write torn */
        FATE_WRITES,   /* each write lands or not */
        FATE_SECTORS,  /* each sector has its first or its last content, with a bias */
        FATE_MIXED,    /* each sector has its content of any moment */
        FATE_ONE_LOST, /* all but one sector of one write */
        FATE_ONE_KEPT, /* only one write */
        FATE_COUNT,
    } kind;
    uint64_t seed;
    size_t count;     /* pending changes */
    size_t moment;    /* of sizes, truncations and holes; FATE_MOMENT: of everything */
    size_t chosen;    /* FATE_ONE_*: the write */
    unsigned odds;    /* of 8 */
};

static uint64_t draw(const struct fate *fate, uint64_t what)
{
    uint64_t state = fate->seed ^ what * UINT64_C(0xD6E8FEB86659FD93);
    return next_random(&state);
}

static struct fate choose_fate(const struct inode *inode, uint64_t *random, unsigned flags)
{
    struct fate fate = {.seed = next_random(random), .count = inode->pending_count};
    fate.kind = flags & SIM_KEEP_ALL   ? FATE_ALL
                : flags & SIM_DROP_ALL ? FATE_NONE
                                       : (int)sim_below(random, FATE_COUNT);
    fate.moment = sim_below(random, fate.count + 1);
    fate.chosen = sim_below(random, fate.count);
    fate.odds = 1 + (unsigned)sim_below(random, 7);
    if (fate.kind == FATE_ALL || fate.kind == FATE_ONE_LOST ||
        (fate.kind >= FATE_WRITES && fate.seed % 2))
        fate.moment = fate.count;
    if (fate.kind == FATE_NONE)
        fate.moment = 0;
    return fate;
}

/* How many of the pending changes the sector has seen: it holds their effect up to this moment.
 * (A write that has landed brings the earlier ones to the same sector with it: they were in the
 * same memory.) */
static size_t sector_moment(const struct fate *fate, const struct inode *inode, uint64_t sector)
{
    size_t moment = 0;
    switch (fate->kind) {
    case FATE_ALL:
        return fate->count;
    case FATE_NONE:
    case FATE_COUNT:
        return 0;
    case FATE_MOMENT:
        return fate->moment + draw(fate, sector) % 2;
    case FATE_SECTORS:
        return draw(fate, sector) % 8 < fate->odds ? fate->count : 0;
    case FATE_MIXED:
        return draw(fate, sector) % (fate->count + 1);
    case FATE_ONE_LOST: {
        const struct change *write = &inode->pending[fate->chosen];
        if (write->kind != CHANGE_WRITE)
            return fate->count;
        uint64_t first = write->offset / SIM_SECTOR;
        uint64_t sectors = (write->offset + write->length - 1) / SIM_SECTOR - first + 1;
        return sector == first + fate->seed % sectors ? fate->chosen : fate->count;
    }
    case FATE_ONE_KEPT:
    case FATE_WRITES:
        for (size_t i = 0; i < fate->count; i++) {
            const struct change *write = &inode->pending[i];
            int landed = fate->kind == FATE_ONE_KEPT ? i == fate->chosen
                                                     : draw(fate, i) % 8 < fate->odds;
            if (landed && write->kind == CHANGE_WRITE &&
                sector >= write->offset / SIM_SECTOR &&
                sector <= (write->offset + write->length - 1) / SIM_SECTOR)
                moment = i + 1;
        }
        return moment;
    }
    return 0;
}

/* Lands those sectors of the i-th change that the fate lets it, below `limit`. */
static void land_write(struct sim_content *content, const struct inode *inode,
                       const struct fate *fate, size_t i, uint64_t limit)
{
    const struct change *write = &inode->pending[i];
    uint64_t end = write->offset + write->length;
    for (uint64_t at = write->offset, next; at < end; at = next) {
        next = (at / SIM_SECTOR + 1) * SIM_SECTOR;
        next = next < end ? next : end;
        if (next <= limit && i < sector_moment(fate, inode, at / SIM_SECTOR))
            sim_content_write(content, at, write->bytes + (at - write->offset),
                              (size_t)(next - at));
    }
}

static void flip_bits(struct sim_content *content, const struct inode *inode, uint64_t *random)
{
    for (unsigned flips = 1 + (unsigned)sim_below(random, 3); flips > 0; flips--) {
        const struct change *write = &inode->pending[sim_below(random, inode->pending_count)];
        uint8_t byte;
        if (write->kind != CHANGE_WRITE)
            continue;
        uint64_t at = write->offset + sim_below(random, write->length);
        if (at >= content->size)
            continue;
        sim_content_read(content, at, &byte, 1);
        byte ^= (uint8_t)(1u << sim_below(random, 8));
        sim_content_write(content, at, &byte, 1);
    }
}

/* A truncation whose new size was lost has still zeroed the rest of its last block in memory:
 * what of that block was written out later has the zeros. */
static void land_tail_of_lost_cut(struct sim_content *content, const struct inode *inode,
                                  const struct fate *fate, size_t i)
{
    uint64_t at = inode->pending[i].offset, next;
    for (; at % SIM_BLOCK != 0; at = next) {
        next = (at / SIM_SECTOR + 1) * SIM_SECTOR;
        if (i < sector_moment(fate, inode, at / SIM_SECTOR))
            sim_content_zero(content, at, next - at);
    }
}

/* The content that the disk has after a crash. */
struct sim_content inode_land(const struct inode *inode, uint64_t *random, unsigned flags)
{
    struct sim_content content = sim_content_clone(&inode->durable);
    struct fate fate = choose_fate(inode, random, flags);
    uint64_t size = content.size, limit = UINT64_MAX;
    uint64_t seen_size = size; /* what the program saw at the time of the change */

    for (size_t i = 0; i < fate.count; i++) {
        const struct change *change = &inode->pending[i];
        uint64_t end = change->offset + change->length;
        int size_landed = i < fate.moment;
        if (change->kind == CHANGE_WRITE) {
            land_write(&content, inode, &fate, i, limit);
            size = size_landed && end > size ? end : size;
            seen_size = end > seen_size ? end : seen_size;
        } else if (change->kind == CHANGE_PUNCH && size_landed) {
            sim_content_zero(&content, change->offset, change->length);
        } else if (change->kind == CHANGE_RESIZE) {
            if (size_landed) {
                sim_content_resize(&content, change->offset);
                size = change->offset;
            } else if (change->offset < seen_size) {
                /* The blocks behind the lost cut still belong to the old bytes; what was written
                 * there later went to other blocks, and those are lost. */
                uint64_t kept = (change->offset + SIM_BLOCK - 1) / SIM_BLOCK * SIM_BLOCK;
                limit = kept < limit ? kept : limit;
                land_tail_of_lost_cut(&content, inode, &fate, i);
            }
            seen_size = change->offset;
        }
    }
    sim_content_resize(&content, size);
    if (flags & SIM_FLIP_BITS && inode->pending_count > 0)
        flip_bits(&content, inode, random);
    return content;
}

void inode_fail_sync(struct inode *inode, uint64_t *random)
{
    struct sim_content landed = inode_land(inode, random, SIM_RANDOM_LOSS);
    sim_content_finish(&inode->durable);
    inode->durable = landed;
    forget_pending(inode);
}

void inode_free(struct inode *inode)
{
    forget_pending(inode);
    free(inode->pending);
    sim_content_finish(&inode->seen);
    sim_content_finish(&inode->durable);
    free(inode);
}
