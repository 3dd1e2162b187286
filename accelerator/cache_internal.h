/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the keeper's side of the cache share: cache.c (the operations), cache_table.c
 * (blocks, the table), cache_journal.c, cache_content.c, cache_open.c (new segment or old one). */
#ifndef QA_CACHE_INTERNAL_H
#define QA_CACHE_INTERNAL_H

#include "accelerator/cache.h"
#include "accelerator/cache_format.h"
#include "accelerator/cache_segment.h"
#include "accelerator/cache_space.h"

enum { QA_CACHE_FIRST_BYTES = 65536, QA_RING_FIRST = 256, QA_RING_LEAST = 65536 };

/* A file whose bytes are kept, in the order in which they came. */
struct qa_kept {
    uint64_t path_hash, generation;
};

struct qa_cache {
    char path[QA_SEGMENT_PATH];
    int fd, lock_fd;
    struct qa_header *header; /* where the segment is mapped */
    struct qa_readers *readers;
    struct qa_space space;
    uint64_t size, limit;
    uint64_t collapsed;     /* bytes for which huge pages were asked */
    uint64_t full_until_ns; /* the file system had no room: not asked again before this time */
    uint32_t hash_bytes;

    /* the table */
    _Atomic uint64_t *slots;
    uint64_t slot_count, used, deleted; /* used: entries, those of removed paths included */
    uint64_t removed;                   /* these */
    uint32_t table_granule;
    unsigned table_log2;
    uint64_t generation; /* the next one */

    /* the journal */
    struct qa_ring *ring;
    uint64_t ring_capacity;
    uint64_t head;    /* the next record; those from header->head on are of the next epoch */
    uint64_t changes;  /* for the next epoch */
    uint64_t pressing; /* of them: see qa_cache_pressing() */
    uint64_t epoch, floor;

    uint64_t files, bytes, refused;
    uint32_t walk;
    uint64_t refused_in_walk;

    /* contents */
    struct qa_kept *kept; /* a queue: [kept_first, kept_count) */
    size_t kept_first, kept_count, kept_capacity;
    uint64_t contents;
};

#define QA_NO_SLOT UINT64_MAX

static inline void *qa_block(const struct qa_cache *cache, uint32_t granule)
{
    return (char *)cache->header + (uint64_t)granule * QA_GRANULE;
}
static inline struct qa_entry *qa_entry_of(const struct qa_cache *cache, uint64_t slot)
{
    return qa_block(cache, qa_granule_of(slot));
}
static inline struct qa_entry *qa_entry_at(const struct qa_cache *cache, uint64_t at)
{
    return qa_entry_of(cache, qa_load(&cache->slots[at]));
}
static inline size_t qa_path_length(const struct qa_entry *entry)
{
    return qa_shape_length(qa_load(&entry->shape));
}
static inline int qa_is_removed(const struct qa_entry *entry)
{
    return qa_shape_is_removed(qa_load(&entry->shape));
}
static inline const char *qa_path_of(const struct qa_cache *cache, const struct qa_entry *entry)
{
    return (const char *)entry->words + cache->hash_bytes;
}
static inline uint64_t qa_entry_granules(const struct qa_cache *cache, size_t path_length)
{
    return qa_granules(qa_entry_bytes(cache->hash_bytes, path_length));
}

/* --- cache_table.c --- */

/* A block of so many bytes, or 0 if there is none left even without contents and, if
 * `also_removed`, without what is remembered of removed paths. */
uint32_t qa_block_take(struct qa_cache *cache, uint64_t bytes, int also_removed);
void qa_block_give(struct qa_cache *cache, uint32_t granule, uint64_t bytes);
/* Without giving anything up for it; from the other end, which is for contents. */
uint32_t qa_block_try(struct qa_cache *cache, uint64_t bytes);
uint32_t qa_block_try_high(struct qa_cache *cache, uint64_t bytes);

/* The slot of a path, or QA_NO_SLOT. */
uint64_t qa_table_find(const struct qa_cache *cache, uint64_t path_hash, const char *path,
                       size_t length);
/* The slots of all entries with this hash, one after the other: *probe is 0 at first. */
uint64_t qa_table_next(const struct qa_cache *cache, uint64_t path_hash, uint64_t *probe);
/* 0 if there is room for one entry more, made if necessary; else LIMIT. */
int qa_table_make_room(struct qa_cache *cache);
/* Puts an entry that is complete into the table: into the slot `at`, giving the former entry's
 * block free, or into a new one if `at` is QA_NO_SLOT. */
void qa_table_set(struct qa_cache *cache, uint64_t at, uint64_t path_hash, uint32_t granule);
/* Empties a slot and gives the entry and its content free. */
void qa_table_drop(struct qa_cache *cache, uint64_t at);
int qa_table_create(struct qa_cache *cache, unsigned log2);

/* --- cache_journal.c --- */

int qa_journal_create(struct qa_cache *cache, uint64_t capacity);
/* The path belongs to the next epoch. */
void qa_journal_add(struct qa_cache *cache, uint64_t path_hash);
/* It does not know what happened up to the next epoch. */
void qa_journal_forget(struct qa_cache *cache);
/* Forgets what is remembered of removed paths: returns how many there were. */
uint64_t qa_journal_drop_removed(struct qa_cache *cache);
/* What was to be the next epoch is `epoch` instead. */
void qa_journal_renumber(struct qa_cache *cache, uint64_t epoch);

/* --- cache_content.c --- */

/* The granule of a copy of the bytes, or 0. */
uint32_t qa_content_take(struct qa_cache *cache, const void *content, uint64_t size);
/* The entry, now in the table, has it. */
void qa_content_note(struct qa_cache *cache, struct qa_entry *entry);
/* Gives the entry's content free. */
void qa_content_drop(struct qa_cache *cache, struct qa_entry *entry);
/* Gives up the content that has been there longest: the bytes, or 0 if there is none. */
uint64_t qa_content_evict(struct qa_cache *cache);

/* --- cache_open.c --- */

/* Makes sense of the segment that is mapped: 0, or DAMAGED and the reason as detail; NO_MEMORY. */
int qa_cache_adopt(struct qa_cache *cache);

#endif
