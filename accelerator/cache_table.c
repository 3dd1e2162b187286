/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks and the table of the cache, keeper's side.
 *
 * The table is open addressing with linear probing. An entry never moves within a table, so that
 * readers need no more than the slots as they come; a table that is too small, or has too many
 * deleted slots, is replaced by another one that is complete before its root is stored. If there is
 * no memory for that, it may fill up further, but for one slot: the end of every search.
 *
 * A block that is no longer referred to has its generation set to 0 before it is given free; the
 * order of stores (see cache_format.h) makes whoever sees the block's next use see that, too.
 */
#include <time.h>

#include "accelerator/cache_internal.h"
#include "runtime/error.h"

enum {
    STEP_MIN = 64 << 10, /* bytes by which the segment grows */
    STEP_MAX = 64 << 20,
    FULL_FOR_NS = 100000000, /* how long a full file system is believed to stay full */
    AHEAD = 16,              /* entries that are fetched into the processor's cache ahead */
};

/* --- blocks --- */

static uint64_t coarse_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static int grow_to(struct qa_cache *cache, uint64_t size)
{
    if (size > cache->limit)
        return QALLOW_E_LIMIT;
    if (qa_segment_reserve(cache->fd, cache->size, size) < 0)
        return QALLOW_E_NO_SPACE;
    if (qa_space_extend(&cache->space, size / QA_GRANULE) < 0)
        return QALLOW_E_NO_MEMORY; /* the file is longer than it says: no harm */
    cache->size = size;
    qa_store(&cache->header->size, size);
    return 0;
}

/* Makes the segment longer by at least so many bytes, rather by a 16th. */
static int grow(struct qa_cache *cache, uint64_t bytes)
{
    uint64_t step = cache->size / 16, least = cache->size + bytes;
    step = step < STEP_MIN ? STEP_MIN : step > STEP_MAX ? STEP_MAX : step;
    least = (least + 4095) / 4096 * 4096;
    uint64_t wanted = cache->size + (bytes > step ? bytes : step);
    wanted = (wanted + STEP_MIN - 1) / STEP_MIN * STEP_MIN;
    if (wanted > cache->limit)
        wanted = cache->limit / 4096 * 4096;
    if (least > cache->limit)
        return QALLOW_E_LIMIT;
    if (cache->full_until_ns && coarse_ns() < cache->full_until_ns)
        return QALLOW_E_NO_SPACE;
    cache->full_until_ns = 0;
    int result = grow_to(cache, wanted);
    if (result == QALLOW_E_NO_SPACE)
        result = grow_to(cache, least);
    if (result == QALLOW_E_NO_SPACE)
        cache->full_until_ns = coarse_ns() + FULL_FOR_NS;
    return result;
}

static uint32_t try_with(uint32_t (*take)(struct qa_space *space, uint64_t count),
                         struct qa_cache *cache, uint64_t bytes)
{
    uint64_t granules = qa_granules(bytes);
    uint32_t at = take(&cache->space, granules);
    if (!at && grow(cache, granules * QA_GRANULE) == 0)
        at = take(&cache->space, granules);
    return at;
}

uint32_t qa_block_try(struct qa_cache *cache, uint64_t bytes)
{
    return try_with(qa_space_take, cache, bytes);
}

uint32_t qa_block_try_high(struct qa_cache *cache, uint64_t bytes)
{
    return try_with(qa_space_take_high, cache, bytes);
}

uint32_t qa_block_take(struct qa_cache *cache, uint64_t bytes, int also_removed)
{
    uint32_t at = qa_block_try(cache, bytes);
    uint64_t freed = 0, evicted = 1;
    while (!at && evicted) {
        /* More than this one needs: finding a gap is a search through the map. */
        for (freed = 0; freed < bytes + cache->size / 256 && evicted; freed += evicted)
            evicted = qa_content_evict(cache);
        if (freed)
            at = qa_space_take(&cache->space, qa_granules(bytes));
    }
    if (!at && also_removed && qa_journal_drop_removed(cache))
        at = qa_space_take(&cache->space, qa_granules(bytes));
    return at;
}

void qa_block_give(struct qa_cache *cache, uint32_t granule, uint64_t bytes)
{
    qa_space_give(&cache->space, granule, qa_granules(bytes));
}

static void give_entry(struct qa_cache *cache, uint64_t slot)
{
    struct qa_entry *entry = qa_entry_of(cache, slot);
    qa_content_drop(cache, entry);
    cache->removed -= (uint64_t)qa_is_removed(entry);
    qa_store(&entry->generation, 0);
    qa_block_give(cache, qa_granule_of(slot),
                  qa_entry_bytes(cache->hash_bytes, qa_path_length(entry)));
}

/* --- the table --- */

uint64_t qa_table_find(const struct qa_cache *cache, uint64_t path_hash, const char *path,
                       size_t length)
{
    uint64_t at, probe = 0;
    while ((at = qa_table_next(cache, path_hash, &probe)) != QA_NO_SLOT) {
        const struct qa_entry *entry = qa_entry_at(cache, at);
        if (qa_path_length(entry) == length && memcmp(qa_path_of(cache, entry), path, length) == 0)
            return at;
    }
    return QA_NO_SLOT;
}

uint64_t qa_table_next(const struct qa_cache *cache, uint64_t path_hash, uint64_t *probe)
{
    uint64_t mask = cache->slot_count - 1, home = qa_home(path_hash, cache->table_log2);
    for (; *probe < cache->slot_count; ++*probe) {
        uint64_t at = (home + *probe) & mask, slot = qa_load(&cache->slots[at]);
        if (slot == QA_SLOT_EMPTY)
            break;
        if (qa_slot_fits(slot, path_hash) &&
            qa_load(&qa_entry_of(cache, slot)->path_hash) == path_hash) {
            ++*probe;
            return at;
        }
    }
    return QA_NO_SLOT;
}

static void fill(struct qa_cache *cache, _Atomic uint64_t *slots, unsigned log2)
{
    uint64_t mask = (UINT64_C(1) << log2) - 1;
    for (uint64_t i = 0; i < cache->slot_count; i++) {
        uint64_t slot = qa_load(&cache->slots[i]);
        if (i + AHEAD < cache->slot_count)
            __builtin_prefetch(qa_entry_at(cache, i + AHEAD));
        if (!qa_slot_is_used(slot))
            continue;
        uint64_t at = qa_home(qa_load(&qa_entry_of(cache, slot)->path_hash), log2);
        while (qa_load(&slots[at & mask]) != QA_SLOT_EMPTY)
            at++;
        qa_store(&slots[at & mask], slot);
    }
}

int qa_table_create(struct qa_cache *cache, unsigned log2)
{
    uint64_t count = UINT64_C(1) << log2, bytes = count * sizeof *cache->slots;
    uint64_t old_bytes = cache->slot_count * sizeof *cache->slots;
    uint32_t granule = qa_block_take(cache, bytes, 0), old = cache->table_granule;
    if (!granule)
        return QALLOW_E_LIMIT;
    _Atomic uint64_t *slots = qa_block(cache, granule);
    for (uint64_t i = 0; i < count; i++)
        qa_store(&slots[i], QA_SLOT_EMPTY);
    fill(cache, slots, log2);
    uint64_t serial = (qa_load(&cache->header->table) >> 40) + 1;
    qa_store(&cache->header->table, qa_table_root(granule, log2, serial));
    cache->slots = slots;
    cache->slot_count = count;
    cache->table_log2 = log2;
    cache->table_granule = granule;
    cache->deleted = 0;
    if (old)
        qa_block_give(cache, old, old_bytes);
    return 0;
}

int qa_table_make_room(struct qa_cache *cache)
{
    uint64_t filled = cache->used + cache->deleted + 1;
    if (filled * 5 <= cache->slot_count * 3)
        return 0;
    unsigned log2 = cache->table_log2;
    while (log2 < QA_TABLE_LOG2_MAX && (cache->used + 1) * 20 > (UINT64_C(1) << log2) * 9)
        log2++;
    if (qa_table_create(cache, log2) == 0)
        return 0;
    if (cache->deleted > 0 && log2 > cache->table_log2 &&
        qa_table_create(cache, cache->table_log2) == 0)
        filled = cache->used + 1;
    return filled < cache->slot_count - cache->slot_count / 16 ? 0 : QALLOW_E_LIMIT;
}

void qa_table_set(struct qa_cache *cache, uint64_t at, uint64_t path_hash, uint32_t granule)
{
    uint64_t mask = cache->slot_count - 1, old = QA_SLOT_EMPTY;
    if (at == QA_NO_SLOT) {
        at = qa_home(path_hash, cache->table_log2);
        while (qa_slot_is_used(qa_load(&cache->slots[at])))
            at = (at + 1) & mask;
        cache->deleted -= qa_load(&cache->slots[at]) == QA_SLOT_DELETED;
        cache->used++;
    } else {
        old = qa_load(&cache->slots[at]);
    }
    qa_store(&cache->slots[at], qa_slot(path_hash, granule));
    if (old != QA_SLOT_EMPTY)
        give_entry(cache, old);
}

void qa_table_drop(struct qa_cache *cache, uint64_t at)
{
    uint64_t slot = qa_load(&cache->slots[at]);
    qa_store(&cache->slots[at], QA_SLOT_DELETED);
    cache->used--;
    cache->deleted++;
    give_entry(cache, slot);
}
