/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One file of the simulated disk, without its name: what programs see, what is durable, and the
 * changes between, of which a crash lets some land.
 */
#ifndef SIM_INODE_H
#define SIM_INODE_H

#include "content.h"

enum change_kind { CHANGE_WRITE, CHANGE_RESIZE, CHANGE_PUNCH };
struct change {
    enum change_kind kind;
    uint64_t offset, length; /* CHANGE_RESIZE: the new size is in offset */
    uint8_t *bytes;          /* CHANGE_WRITE */
};

struct inode {
    struct inode *next; /* all of the disk, to free them */
    struct sim_content seen, durable;
    struct change *pending;
    size_t pending_count, pending_capacity;
};

/* Takes change.bytes over. */
void inode_change(struct inode *inode, struct change change);
void inode_make_durable(struct inode *inode);
/* A sync that failed: what lands, lands; the rest is forgotten. */
void inode_fail_sync(struct inode *inode, uint64_t *random);
/* The content that the disk has after a crash (flags: enum sim_crash). */
struct sim_content inode_land(const struct inode *inode, uint64_t *random, unsigned flags);
void inode_free(struct inode *inode);

/* Room for one more item of `item` bytes behind `count`. */
void *sim_grow(void *items, size_t count, size_t *capacity, size_t item);

#endif
