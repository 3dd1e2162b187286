/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A reader's handle, for the two files of the reader's side: cache_reader.c (open, get, wait, info)
 * and cache_reader_list.c (since, each); and what only the command and the tests need of it.
 */
#ifndef QA_CACHE_READER_H
#define QA_CACHE_READER_H

#include <stddef.h>
#include <stdint.h>

#include "accelerator/cache_format.h"
#include "qallow/accelerator.h"

struct qa_cache;

/* The keeper's numbers (enum qt_metric), as many as there are up to `count`; returns how many. */
int qa_cache_numbers(struct qallow_cache *cache, uint64_t *numbers, size_t count);
/* PATH of the cache, see qa_cache_path(). */
const char *qa_cache_reader_path(const struct qallow_cache *cache);
/* A reader on the keeper's own mapping, so that the thread sanitizer sees that both use the same
 * memory. The keeper must stay open longer. */
int qa_cache_reader_attach(const struct qa_cache *keeper, struct qallow_cache **cache);

/* How often a look-up is tried again because the memory changed under it. Each time the keeper must
 * have done something, so a sound cache does not come near it. What makes no sense although it did
 * not change counts for a hundred: that can only be if the same block has gone and come back. */
enum { QA_TRIES = 10000 };

struct qallow_cache {
    const struct qa_header *header; /* where the segment is mapped */
    uint64_t checked;               /* bytes of it that are there for certain */
    uint64_t seed, table;           /* the root that `slots` belongs to */
    const _Atomic uint64_t *slots;
    uint64_t mask;
    unsigned log2;
    uint32_t hash, hash_bytes;
    uint64_t hits, misses; /* not in `shard` yet */
    struct qa_readers *readers;
    struct qa_shard *shard;
    int fd, lock_fd;
    int is_attached;
    char *path; /* without suffix */
    char root[QA_ROOT_MAX];
    /* for lists */
    uint64_t *hashes;
    size_t hash_capacity;
    char *names, *name; /* room for two paths, and one of them */
};

enum qa_look {
    QA_LOOK_END = 0,
    QA_LOOK_FOUND = 1,
    QA_LOOK_AGAIN = 2, /* the memory has changed meanwhile */
    QA_LOOK_BAD = 3,   /* or it makes no sense, if qa_reader_is_stable() says it has not */
};

/* What tells which entry it is; valid if qa_reader_is_stable() says so afterwards. */
struct qa_view {
    uint64_t at, slot; /* where it is in the table */
    const struct qa_entry *entry;
    uint64_t generation, path_hash, shape, content;
    size_t path_length;
};

/* Makes `slots` those of the present table: 1, or 0 if the root makes no sense. */
int qa_reader_sync(struct qallow_cache *cache);
/* 1 if so many bytes from that granule on are within the segment. */
int qa_reader_has(struct qallow_cache *cache, uint64_t granule, uint64_t bytes);
/* Looks at the entry that slot number `at` refers to, if it is one. */
enum qa_look qa_reader_view(struct qallow_cache *cache, uint64_t at, uint64_t slot,
                            struct qa_view *view);
/* And copies what there is to know of it. */
void qa_reader_copy(const struct qallow_cache *cache, struct qa_view *view,
                    struct qallow_file *file);
/* 1 if what was copied since is one entry as it was in the table. */
int qa_reader_is_stable(const struct qallow_cache *cache, const struct qa_view *view);
static inline const _Atomic uint64_t *qa_view_path(const struct qallow_cache *cache,
                                                   const struct qa_view *view)
{
    return view->entry->words + cache->hash_bytes / 8;
}
/* What a look at a slot that came to BAD or AGAIN was, now that the slot is looked at again. */
enum qa_look qa_reader_retry(const struct qallow_cache *cache, enum qa_look look, uint64_t at,
                             uint64_t slot);
/* Counts a look that came to nothing: 0, or DAMAGED when there have been too many. */
int qa_reader_may_retry(const struct qallow_cache *cache, int *tries, enum qa_look look);
int qa_reader_superseded(const struct qallow_cache *cache);
int qa_reader_damaged(const struct qallow_cache *cache);

#endif
