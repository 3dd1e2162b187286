/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of files, kept beside their entries while there is room.
 *
 * An entry refers to its content by one word. To give content up, that word is set to 0 and the
 * block given free: a reader that was copying looks at the word again when it is done. What came
 * first goes first, which needs a queue; it holds (path, generation), so what has been replaced or
 * removed since is passed over.
 */
#include "accelerator/cache_internal.h"
#include "runtime/os.h"
#include "telemetry/telemetry.h"

uint32_t qa_content_take(struct qa_cache *cache, const void *content, uint64_t size)
{
    /* One file must not drive out everything else, be it for its size or for want of a gap. */
    if (size == 0 || size > cache->limit / 4)
        return 0;
    uint64_t most = 4 * size + cache->size / 64, evicted = 1, freed = 0;
    uint32_t granule = qa_block_try_high(cache, size);
    while (!granule && evicted && freed < most) {
        for (uint64_t goal = freed + size; freed < goal && evicted; freed += evicted)
            evicted = qa_content_evict(cache);
        granule = qa_space_take_high(&cache->space, qa_granules(size));
    }
    if (granule)
        qa_store_bytes(qa_block(cache, granule), content, size);
    return granule;
}

void qa_content_drop(struct qa_cache *cache, struct qa_entry *entry)
{
    uint32_t granule = (uint32_t)qa_load(&entry->content);
    if (!granule)
        return;
    qa_store(&entry->content, 0);
    qa_block_give(cache, granule, qa_load(&entry->size));
    cache->contents--;
}

/* The entry that this item of the queue is about, if it still has content. */
static struct qa_entry *entry_of(const struct qa_cache *cache, const struct qa_kept *kept)
{
    uint64_t at, probe = 0;
    while ((at = qa_table_next(cache, kept->path_hash, &probe)) != QA_NO_SLOT) {
        struct qa_entry *entry = qa_entry_at(cache, at);
        if (qa_load(&entry->generation) == kept->generation && qa_load(&entry->content))
            return entry;
    }
    return NULL;
}

/* Removes from the queue what is no longer there. */
static void tidy(struct qa_cache *cache)
{
    size_t count = 0;
    for (size_t i = cache->kept_first; i < cache->kept_count; i++)
        if (entry_of(cache, &cache->kept[i]))
            cache->kept[count++] = cache->kept[i];
    cache->kept_first = 0;
    cache->kept_count = count;
}

void qa_content_note(struct qa_cache *cache, struct qa_entry *entry)
{
    cache->contents++;
    if (cache->kept_count == cache->kept_capacity && cache->kept_count > 2 * cache->contents)
        tidy(cache);
    if (QR_GROW(cache->kept, cache->kept_count, cache->kept_capacity) < 0) {
        qa_content_drop(cache, entry); /* what could not be given up must not be kept */
        return;
    }
    cache->kept[cache->kept_count++] = (struct qa_kept){.path_hash = qa_load(&entry->path_hash),
                                                        .generation = qa_load(&entry->generation)};
}

uint64_t qa_content_evict(struct qa_cache *cache)
{
    while (cache->kept_first < cache->kept_count) {
        struct qa_entry *entry = entry_of(cache, &cache->kept[cache->kept_first++]);
        if (!entry)
            continue;
        qt_add(QT_CACHE_EVICTIONS, 1);
        qa_content_drop(cache, entry);
        return qa_load(&entry->size);
    }
    cache->kept_first = cache->kept_count = 0;
    return 0;
}
