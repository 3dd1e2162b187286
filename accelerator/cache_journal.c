/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal: which paths belong to which epoch, newest last, in a ring.
 *
 * A record is written behind the head, which moves when the epoch is published. Before a record is
 * overwritten, the floor is raised to its epoch: who asks for what came after an older one is told
 * that this is not known. A removed path stays in the table, marked as such, as long as its record
 * does. The ring grows when it is full, up to somewhat more records than there are files.
 */
#include "accelerator/cache_internal.h"
#include "runtime/error.h"

static void raise_floor(struct qa_cache *cache, uint64_t epoch)
{
    if (epoch > cache->floor) {
        cache->floor = epoch;
        qa_store(&cache->header->floor, epoch);
    }
}

static struct qa_record *record_of(const struct qa_cache *cache, uint64_t number)
{
    return &cache->ring->records[number % cache->ring_capacity];
}

static uint64_t oldest_record(const struct qa_cache *cache)
{
    return cache->head > cache->ring_capacity ? cache->head - cache->ring_capacity : 0;
}

int qa_journal_create(struct qa_cache *cache, uint64_t capacity)
{
    uint64_t bytes = sizeof(struct qa_ring) + capacity * sizeof(struct qa_record);
    uint32_t granule = qa_block_try(cache, bytes);
    if (!granule)
        return QALLOW_E_LIMIT;
    struct qa_ring *ring = qa_block(cache, granule), *old = cache->ring;
    uint64_t old_capacity = cache->ring_capacity, first = old ? oldest_record(cache) : cache->head;
    qa_store(&ring->capacity, capacity);
    for (uint64_t i = 0; i < capacity; i++) {
        qa_store(&ring->records[i].path_hash, 0);
        qa_store(&ring->records[i].epoch, 0);
    }
    for (uint64_t i = first; i < cache->head; i++) {
        struct qa_record *from = record_of(cache, i), *to = &ring->records[i % capacity];
        qa_store(&to->path_hash, qa_load(&from->path_hash));
        qa_store(&to->epoch, qa_load(&from->epoch));
    }
    uint64_t former = qa_load(&cache->header->ring);
    qa_store(&cache->header->ring, granule | ((former >> 32) + 1) << 32);
    cache->ring = ring;
    cache->ring_capacity = capacity;
    if (old)
        qa_block_give(cache, qa_granule_of(former),
                      sizeof *old + old_capacity * sizeof(struct qa_record));
    return 0;
}

/* Drops the removed path that this record is the last trace of. */
static void drop_removed(struct qa_cache *cache, uint64_t path_hash, uint64_t epoch)
{
    uint64_t at, probe = 0;
    while ((at = qa_table_next(cache, path_hash, &probe)) != QA_NO_SLOT) {
        struct qa_entry *entry = qa_entry_at(cache, at);
        if (qa_is_removed(entry) && qa_load(&entry->epoch) == epoch)
            qa_table_drop(cache, at);
    }
}

static void make_room(struct qa_cache *cache)
{
    const struct qa_record *record = record_of(cache, cache->head);
    uint64_t path_hash = qa_load(&record->path_hash), epoch = qa_load(&record->epoch);
    uint64_t most = cache->files + cache->files / 4, wanted = cache->ring_capacity * 2;
    if (epoch == 0)
        return;
    most = most > QA_RING_LEAST ? most : QA_RING_LEAST;
    wanted = wanted < most ? wanted : most;
    /* Not for a few records: everything is copied. */
    if (wanted >= cache->ring_capacity + cache->ring_capacity / 8 &&
        qa_journal_create(cache, wanted) == 0)
        return;
    raise_floor(cache, epoch);
    drop_removed(cache, path_hash, epoch);
}

void qa_journal_add(struct qa_cache *cache, uint64_t path_hash)
{
    make_room(cache);
    struct qa_record *record = record_of(cache, cache->head);
    qa_store(&record->path_hash, path_hash);
    qa_store(&record->epoch, cache->epoch + 1);
    cache->head++;
    cache->changes++;
}

void qa_journal_forget(struct qa_cache *cache)
{
    raise_floor(cache, cache->epoch + 1);
    cache->changes++;
}

uint64_t qa_journal_drop_removed(struct qa_cache *cache)
{
    uint64_t count = 0;
    for (uint64_t at = 0; at < cache->slot_count && cache->removed; at++) {
        uint64_t slot = qa_load(&cache->slots[at]);
        if (!qa_slot_is_used(slot) || !qa_is_removed(qa_entry_of(cache, slot)))
            continue;
        raise_floor(cache, qa_load(&qa_entry_of(cache, slot)->epoch));
        qa_table_drop(cache, at);
        count++;
    }
    return count;
}

static void renumber_entry(struct qa_entry *entry, uint64_t from, uint64_t to)
{
    if (qa_load(&entry->epoch) == from)
        qa_store(&entry->epoch, to);
}

void qa_journal_renumber(struct qa_cache *cache, uint64_t epoch)
{
    uint64_t expected = cache->epoch + 1, first = oldest_record(cache);
    uint64_t begin = qa_load(&cache->header->head);
    if (cache->floor == expected) /* some of it has no record */
        for (uint64_t at = 0; at < cache->slot_count; at++) {
            uint64_t slot = qa_load(&cache->slots[at]);
            if (qa_slot_is_used(slot))
                renumber_entry(qa_entry_of(cache, slot), expected, epoch);
        }
    for (uint64_t i = begin > first ? begin : first; i < cache->head; i++) {
        struct qa_record *record = record_of(cache, i);
        uint64_t at, probe = 0, path_hash = qa_load(&record->path_hash);
        while ((at = qa_table_next(cache, path_hash, &probe)) != QA_NO_SLOT)
            renumber_entry(qa_entry_at(cache, at), expected, epoch);
        qa_store(&record->epoch, epoch);
    }
    if (cache->floor == expected)
        raise_floor(cache, epoch);
}
