/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which granules of a segment are in use. Lives in the keeper's own memory, half a byte for a file;
 * a successor makes it anew from what the table refers to. Knows nothing of what blocks hold.
 */
#ifndef QA_CACHE_SPACE_H
#define QA_CACHE_SPACE_H

#include <stddef.h>
#include <stdint.h>

enum { QA_SPACE_BINS = 256 }; /* lengths in granules below this have a bin */

struct qa_space_bin {
    uint32_t *blocks;
    size_t count, capacity;
};

struct qa_space {
    uint64_t *bits; /* 1: in use, or in a bin */
    size_t word_count;
    uint32_t end;        /* granules there are */
    uint32_t top;        /* all from here on are free */
    uint32_t rover;      /* where the search for a run goes on */
    uint32_t high_rover; /* the same, downwards */
    uint32_t no_run;     /* there is no run of so many below top, as far as is known */
    uint64_t unused;     /* clear bits below top */
    uint64_t in_bins;    /* granules */
    struct qa_space_bin bins[QA_SPACE_BINS];
};

void qa_space_init(struct qa_space *space);
void qa_space_finish(struct qa_space *space);
/* There are now `end` granules. NO_MEMORY: nothing has changed. */
int qa_space_extend(struct qa_space *space, uint64_t end);
/* Takes [at, at + count): 1, or 0 if one of them is taken or beyond the end. */
int qa_space_claim(struct qa_space *space, uint64_t at, uint64_t count);
/* The first of `count` granules, or 0. Granule 0 must have been claimed. */
uint32_t qa_space_take(struct qa_space *space, uint64_t count);
/* The same from the other end: for blocks of another kind, so that when they go, they leave long
 * gaps. */
uint32_t qa_space_take_high(struct qa_space *space, uint64_t count);
void qa_space_give(struct qa_space *space, uint32_t at, uint64_t count);
/* Granules in use. */
uint64_t qa_space_used(const struct qa_space *space);

#endif
