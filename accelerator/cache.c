/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper's operations on the cache, see cache.h; the layout is docs/formats/cache.md.
 *
 * An entry that changes is written anew into a block of its own and published by one store into the
 * table: a reader sees the one or the other, and a keeper that is killed anywhere leaves either.
 * Everything that may move or drop other entries (making room, the journal) is done before, and
 * the slot is looked for again after it.
 */
#include "accelerator/cache.h"

#include "accelerator/cache_internal.h"
#include "runtime/error.h"
#include "runtime/os.h"

enum { HUGE_PAGES_FROM = 16 << 20 }; /* bytes; below, the processor's own tables reach far enough */

struct key {
    const char *path;
    size_t length;
    uint64_t hash;
};

static struct key key_of(const struct qa_cache *cache, const char *path)
{
    struct key key = {.path = path, .length = strlen(path)};
    key.hash = qa_path_hash(cache->header->seed, path, key.length);
    return key;
}

static uint64_t find(const struct qa_cache *cache, const struct key *key)
{
    return qa_table_find(cache, key->hash, key->path, key->length);
}

/* The entry of a path that is there, or NULL. */
static struct qa_entry *find_present(const struct qa_cache *cache, const char *path)
{
    struct key key = key_of(cache, path);
    uint64_t at = find(cache, &key);
    struct qa_entry *entry = at == QA_NO_SLOT ? NULL : qa_entry_at(cache, at);
    return entry && !qa_is_removed(entry) ? entry : NULL;
}

/* --- what is known of it as a whole --- */

const char *qa_cache_path(const struct qa_cache *cache) { return cache->path; }
uint64_t qa_cache_epoch(const struct qa_cache *cache) { return cache->epoch; }
uint64_t qa_cache_count(const struct qa_cache *cache) { return cache->files; }

void qa_cache_set_state(struct qa_cache *cache, enum qallow_keeper_state state)
{
    qa_store32(&cache->header->state, state);
}

void qa_cache_set_numbers(struct qa_cache *cache, const uint64_t *numbers, size_t count)
{
    qr_assert(count <= QA_NUMBERS_MAX);
    for (size_t i = 0; i < count; i++)
        qa_store(&cache->header->numbers[i], numbers[i]);
}

void qa_cache_usage(const struct qa_cache *cache, struct qa_cache_usage *usage)
{
    memset(usage, 0, sizeof *usage);
    usage->bytes = cache->bytes;
    usage->refused = cache->refused;
    usage->memory = cache->size;
    usage->memory_limit = cache->limit;
    for (unsigned i = 0; cache->readers && i < QA_SHARDS; i++) {
        usage->hits += qa_load(&cache->readers->shard[i].hits);
        usage->misses += qa_load(&cache->readers->shard[i].misses);
    }
}

static void count(struct qa_cache *cache, int files, uint64_t bytes)
{
    cache->files += (uint64_t)(int64_t)files;
    cache->bytes += bytes;
    qa_store(&cache->header->files, cache->files);
    qa_store(&cache->header->bytes, cache->bytes);
}

/* --- get, pending, walks --- */

int qa_cache_get(const struct qa_cache *cache, const char *path, struct qa_file *file)
{
    const struct qa_entry *entry = find_present(cache, path);
    if (!entry)
        return 0;
    uint64_t shape = qa_load(&entry->shape);
    memset(file, 0, sizeof *file);
    file->device = qa_load(&entry->device);
    file->inode = qa_load(&entry->inode);
    file->size = qa_load(&entry->size);
    file->mtime_ns = (int64_t)qa_load(&entry->mtime);
    file->ctime_ns = (int64_t)qa_load(&entry->ctime);
    file->mode = shape & 0xffff;
    file->kind = shape >> 16 & 0xff;
    file->state = qa_load32(&entry->pending) ? QALLOW_FILE_PENDING : shape >> 24 & 0xff;
    qa_load_bytes(file->hash, entry->words, cache->hash_bytes);
    return 1;
}

int qa_cache_has_content(const struct qa_cache *cache, const char *path)
{
    const struct qa_entry *entry = find_present(cache, path);
    return entry && qa_load(&entry->content) != 0;
}

void qa_cache_pending(struct qa_cache *cache, const char *path)
{
    struct qa_entry *entry = find_present(cache, path);
    if (entry)
        qa_store32(&entry->pending, 1);
}

void qa_cache_begin_walk(struct qa_cache *cache)
{
    cache->walk++;
    cache->refused_in_walk = 0;
}

void qa_cache_see(struct qa_cache *cache, const char *path)
{
    struct qa_entry *entry = find_present(cache, path);
    if (entry)
        qa_store32(&entry->walk, cache->walk);
}

/* --- put --- */

static uint64_t shape_of(const struct qa_file *file, size_t path_length)
{
    return qa_shape(file->mode & 07777, file->kind, file->state, path_length, 0);
}

/* In what a log records, as far as it can. */
static int differs(const struct qa_cache *cache, const struct qa_entry *entry,
                   const struct qa_file *file)
{
    return qa_load(&entry->shape) != shape_of(file, qa_path_length(entry)) ||
           (file->state != QALLOW_FILE_UNREADABLE &&
            (qa_load(&entry->size) != file->size ||
             qa_load(&entry->mtime) != (uint64_t)file->mtime_ns ||
             !qa_same_bytes(entry->words, file->hash, cache->hash_bytes)));
}

static int looks_different(const struct qa_cache *cache, const struct qa_entry *entry,
                           const struct qa_file *file)
{
    return differs(cache, entry, file) || qa_load(&entry->size) != file->size ||
           qa_load(&entry->mtime) != (uint64_t)file->mtime_ns ||
           qa_load(&entry->inode) != file->inode;
}

/* What readers do not see is changed in place. */
static void refresh(struct qa_cache *cache, struct qa_entry *entry, const struct qa_file *file)
{
    qa_store(&entry->device, file->device);
    qa_store(&entry->ctime, (uint64_t)file->ctime_ns);
    qa_store32(&entry->walk, cache->walk);
    qa_store32(&entry->pending, 0);
}

static void write_entry(struct qa_cache *cache, struct qa_entry *entry, const struct key *key,
                        uint64_t shape, const struct qa_file *file, uint64_t epoch,
                        uint32_t content)
{
    qa_store(&entry->path_hash, key->hash);
    qa_store_bytes(entry->words + cache->hash_bytes / 8, key->path, key->length);
    refresh(cache, entry, file);
    qa_store(&entry->epoch, epoch);
    qa_store(&entry->size, file->size);
    qa_store(&entry->mtime, (uint64_t)file->mtime_ns);
    qa_store(&entry->inode, file->inode);
    qa_store(&entry->shape, shape);
    qa_store(&entry->content, content);
    qa_store_bytes(entry->words, file->hash, cache->hash_bytes);
    qa_store(&entry->generation, cache->generation++);
}

/* The entry in this slot becomes that of a removed path, so that the journal can name it. */
static void remove_at(struct qa_cache *cache, uint64_t at)
{
    static const struct qa_file nothing;
    const struct qa_entry *old = qa_entry_at(cache, at);
    struct key key = {.path = qa_path_of(cache, old),
                      .length = qa_path_length(old),
                      .hash = qa_load(&old->path_hash)};
    int is_recorded = qa_load(&old->epoch) > cache->epoch;
    cache->pressing++;
    count(cache, -1, 0 - qa_load(&old->size));
    uint32_t granule = qa_block_take(cache, qa_entry_bytes(cache->hash_bytes, key.length), 1);
    if (!granule) {
        qa_journal_forget(cache);
        qa_table_drop(cache, at);
        return;
    }
    write_entry(cache, qa_block(cache, granule), &key, qa_shape(0, 0, 0, key.length, 1), &nothing,
                cache->epoch + 1, 0);
    cache->removed++;
    if (!is_recorded)
        qa_journal_add(cache, key.hash);
    qa_table_set(cache, at, key.hash, granule);
}

static int refuse(struct qa_cache *cache, const struct key *key)
{
    uint64_t at = find(cache, key);
    cache->refused_in_walk++;
    qa_store(&cache->header->refused, ++cache->refused);
    if (at != QA_NO_SLOT && !qa_is_removed(qa_entry_at(cache, at)))
        remove_at(cache, at);
    return qr_fail(QALLOW_E_LIMIT, "%s does not fit into the cache: it has %llu of %llu bytes",
                   qr_quotez(key->path), (unsigned long long)cache->size,
                   (unsigned long long)cache->limit);
}

/* Replaces what the table has of this path, if anything, by an entry that is complete. */
static void install(struct qa_cache *cache, const struct key *key, uint32_t granule)
{
    struct qa_entry *entry = qa_block(cache, granule);
    uint64_t at = find(cache, key), size = qa_load(&entry->size);
    const struct qa_entry *old = at == QA_NO_SLOT ? NULL : qa_entry_at(cache, at);
    if (old && !qa_is_removed(old))
        count(cache, 0, size - qa_load(&old->size));
    else
        count(cache, 1, size);
    qa_table_set(cache, at, key->hash, granule);
    if (qa_load(&entry->content))
        qa_content_note(cache, entry);
}

/* Only the content is new: nothing that belongs to an epoch. */
static void add_content(struct qa_cache *cache, const struct key *key, const struct qa_file *file,
                        uint64_t epoch, const void *content)
{
    uint32_t bytes = qa_content_take(cache, content, file->size);
    if (!bytes)
        return;
    uint32_t granule = qa_block_take(cache, qa_entry_bytes(cache->hash_bytes, key->length), 0);
    if (!granule) {
        qa_block_give(cache, bytes, file->size);
        return;
    }
    write_entry(cache, qa_block(cache, granule), key, shape_of(file, key->length), file, epoch,
                bytes);
    install(cache, key, granule);
}

static int replace(struct qa_cache *cache, const struct key *key, const struct qa_file *file,
                   int is_recorded, const void *content)
{
    if (qa_table_make_room(cache) < 0)
        return refuse(cache, key);
    uint32_t bytes = content ? qa_content_take(cache, content, file->size) : 0;
    uint32_t granule = qa_block_take(cache, qa_entry_bytes(cache->hash_bytes, key->length), 1);
    if (!granule) {
        if (bytes)
            qa_block_give(cache, bytes, file->size);
        return refuse(cache, key);
    }
    write_entry(cache, qa_block(cache, granule), key, shape_of(file, key->length), file,
                cache->epoch + 1, bytes);
    if (!is_recorded)
        qa_journal_add(cache, key->hash);
    install(cache, key, granule);
    return 1;
}

int qa_cache_put(struct qa_cache *cache, const char *path, const struct qa_file *file,
                 const void *content)
{
    struct key key = key_of(cache, path);
    if (key.length == 0 || key.length > QA_CACHE_PATH)
        return refuse(cache, &key);
    uint64_t at = find(cache, &key);
    struct qa_entry *old = at == QA_NO_SLOT ? NULL : qa_entry_at(cache, at);
    uint64_t epoch = old ? qa_load(&old->epoch) : 0;
    int is_new = !old || qa_is_removed(old);
    cache->pressing += is_new || differs(cache, old, file);
    if (is_new || looks_different(cache, old, file))
        return replace(cache, &key, file, epoch > cache->epoch, content);
    refresh(cache, old, file);
    if (content && !qa_load(&old->content))
        add_content(cache, &key, file, epoch, content);
    return 0;
}

int qa_cache_remove(struct qa_cache *cache, const char *path)
{
    struct key key = key_of(cache, path);
    uint64_t at = find(cache, &key);
    if (at == QA_NO_SLOT || qa_is_removed(qa_entry_at(cache, at)))
        return 0;
    remove_at(cache, at);
    return 1;
}

/* --- all of it --- */

uint64_t qa_cache_sweep(struct qa_cache *cache)
{
    uint64_t removed = 0;
    for (uint64_t at = 0; at < cache->slot_count; at++) {
        uint64_t slot = qa_load(&cache->slots[at]);
        if (!qa_slot_is_used(slot))
            continue;
        struct qa_entry *entry = qa_entry_of(cache, slot);
        if (qa_is_removed(entry) || qa_load32(&entry->walk) == cache->walk)
            continue;
        remove_at(cache, at);
        removed++;
    }
    /* Everything there is has been tried since the walk began. */
    cache->refused = cache->refused_in_walk;
    qa_store(&cache->header->refused, cache->refused);
    return removed;
}

static int is_below(const char *path, size_t length, const char *directory, size_t prefix,
                    int direct)
{
    size_t skip = prefix ? prefix + 1 : 0;
    if (length <= skip || memcmp(path, directory, prefix) != 0 || (prefix && path[prefix] != '/'))
        return 0;
    return !direct || !memchr(path + skip, '/', length - skip);
}

int qa_cache_below(const struct qa_cache *cache, const char *directory, int direct,
                   int (*visit)(void *context, const char *path), void *context)
{
    size_t prefix = strlen(directory);
    char *copy = qr_malloc(QA_CACHE_PATH + 1);
    int result = 0;
    if (!copy)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a path");
    for (uint64_t at = 0; at < cache->slot_count && result == 0; at++) {
        uint64_t slot = qa_load(&cache->slots[at]);
        const struct qa_entry *entry = qa_entry_of(cache, slot);
        if (!qa_slot_is_used(slot) || qa_is_removed(entry))
            continue;
        const char *path = qa_path_of(cache, entry);
        size_t length = qa_path_length(entry);
        if (!is_below(path, length, directory, prefix, direct))
            continue;
        memcpy(copy, path, length);
        copy[length] = '\0';
        result = visit(context, copy);
    }
    qr_free(copy);
    return result;
}

/* A look-up in a large cache is hardly more than waiting for memory three times, and finding the
 * page is a good part of that: huge pages make it a sixth faster. It costs a copy, once, of what is
 * new.
 */
static void use_huge_pages(struct qa_cache *cache)
{
    if (cache->size >= HUGE_PAGES_FROM)
        cache->collapsed = qa_segment_collapse(cache->header, cache->collapsed, cache->size);
}

uint64_t qa_cache_pressing(const struct qa_cache *cache) { return cache->pressing; }

uint64_t qa_cache_publish(struct qa_cache *cache, uint64_t epoch)
{
    struct qa_header *header = cache->header;
    if (epoch == 0 && cache->changes == 0)
        return cache->epoch;
    if (epoch == 0)
        epoch = cache->epoch + 1;
    qr_assert(epoch > cache->epoch);
    if (epoch != cache->epoch + 1)
        qa_journal_renumber(cache, epoch);
    const struct qr_os *os = qr_os_posix();
    qa_store(&header->head, cache->head);
    qa_store(&header->updated, (uint64_t)os->now_ns(os->context));
    qa_store(&header->epoch, epoch);
    cache->epoch = epoch;
    cache->changes = cache->pressing = 0;
    qa_segment_wake(&header->futex);
    use_huge_pages(cache);
    return epoch;
}
