/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening the cache as its keeper: taking over what a former keeper left, or making a new one.
 *
 * Only what the table refers to counts, so there is nothing to repair after a kill: blocks nobody
 * refers to are free, entries of an epoch that was not published go into the next one. But nothing
 * is believed either: every offset, length, hash and the uniqueness of every path is checked, and
 * no two blocks may overlap; a segment in which anything is wrong is put aside, and readers that
 * have it mapped are told so.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "accelerator/cache_internal.h"
#include "runtime/error.h"
#include "runtime/os.h"

enum { AHEAD = 16, TAKEOVER_SHIFT = 40 };

#define DAMAGED(...) qr_fail(QALLOW_E_DAMAGED, __VA_ARGS__)

static void say(const struct qa_cache_options *options, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void say(const struct qa_cache_options *options, const char *format, ...)
{
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (options->notice)
        options->notice(options->context, line);
}

/* --- making sense of a segment --- */

static int adopt_table(struct qa_cache *cache)
{
    uint64_t root = qa_load(&cache->header->table);
    unsigned log2 = qa_log2_of(root);
    if (log2 < QA_TABLE_LOG2_MIN || log2 > QA_TABLE_LOG2_MAX)
        return DAMAGED("a table of 2^%u slots", log2);
    cache->table_log2 = log2;
    cache->slot_count = UINT64_C(1) << log2;
    cache->table_granule = qa_granule_of(root);
    if (!qa_space_claim(&cache->space, cache->table_granule,
                        qa_granules(cache->slot_count * sizeof *cache->slots)))
        return DAMAGED("the table at %llu does not lie within the cache",
                       (unsigned long long)cache->table_granule * QA_GRANULE);
    cache->slots = qa_block(cache, cache->table_granule);
    return 0;
}

static int adopt_ring(struct qa_cache *cache)
{
    uint32_t granule = qa_granule_of(qa_load(&cache->header->ring));
    uint64_t at = (uint64_t)granule * QA_GRANULE;
    if (at < QA_HEADER_BYTES || at + sizeof(struct qa_ring) > cache->size)
        return DAMAGED("the journal at %llu does not lie within the cache", (unsigned long long)at);
    cache->ring = qa_block(cache, granule);
    cache->ring_capacity = qa_load(&cache->ring->capacity);
    if (cache->ring_capacity == 0 ||
        cache->ring_capacity > cache->size / sizeof(struct qa_record) ||
        !qa_space_claim(
            &cache->space, granule,
            qa_granules(sizeof(struct qa_ring) + cache->ring_capacity * sizeof(struct qa_record))))
        return DAMAGED("a journal of %llu records does not fit",
                       (unsigned long long)cache->ring_capacity);
    return 0;
}

/* The path is what its hash says, and filled up with zeros, and that hash is in the slot. */
static int has_its_path(const struct qa_cache *cache, const struct qa_entry *entry, uint64_t slot)
{
    size_t length = qa_path_length(entry);
    const char *path = qa_path_of(cache, entry);
    uint64_t hash = qa_load(&entry->path_hash);
    static const char zeros[8];
    return hash == qa_path_hash(cache->header->seed, path, length) && qa_slot_fits(slot, hash) &&
           !memchr(path, 0, length) && memcmp(path + length, zeros, -length & 7) == 0;
}

static int adopt_content(struct qa_cache *cache, struct qa_entry *entry)
{
    uint64_t granule = qa_load(&entry->content), size = qa_load(&entry->size);
    if (!granule)
        return 0;
    if (qa_is_removed(entry) || size > cache->size ||
        !qa_space_claim(&cache->space, granule, qa_granules(size)))
        return DAMAGED("the content at %llu does not lie within the cache, or belongs to two files",
                       (unsigned long long)granule * QA_GRANULE);
    qa_content_note(cache, entry);
    return 0;
}

static int adopt_entry(struct qa_cache *cache, uint64_t slot)
{
    unsigned long long at = (unsigned long long)qa_granule_of(slot) * QA_GRANULE;
    struct qa_entry *entry = qa_entry_of(cache, slot);
    if (at + qa_entry_bytes(cache->hash_bytes, 0) > cache->size)
        return DAMAGED("an entry at %llu, which is beyond the end", at);
    uint64_t shape = qa_load(&entry->shape), generation = qa_load(&entry->generation);
    if (!qa_shape_is_plausible(shape) || generation == 0 || generation >= cache->generation)
        return DAMAGED("the entry at %llu cannot be", at);
    if (!qa_space_claim(&cache->space, qa_granule_of(slot),
                        qa_entry_granules(cache, qa_shape_length(shape))))
        return DAMAGED("the entry at %llu reaches beyond the end, or into another one", at);
    if (!has_its_path(cache, entry, slot))
        return DAMAGED("the path of the entry at %llu is not the one it had", at);
    if (qa_load32(&entry->walk) > cache->walk)
        cache->walk = qa_load32(&entry->walk);
    cache->used++;
    if (qa_is_removed(entry)) {
        cache->removed++;
    } else {
        cache->files++;
        cache->bytes += qa_load(&entry->size);
    }
    return adopt_content(cache, entry);
}

static int adopt_entries(struct qa_cache *cache)
{
    for (uint64_t i = 0; i < cache->slot_count; i++) {
        uint64_t slot = qa_load(&cache->slots[i]);
        if (i + AHEAD < cache->slot_count)
            __builtin_prefetch(qa_entry_at(cache, i + AHEAD));
        if (slot == QA_SLOT_DELETED)
            cache->deleted++;
        else if (slot != QA_SLOT_EMPTY && !qa_slot_is_used(slot))
            return DAMAGED("slot %llu cannot be", (unsigned long long)i);
        int result = qa_slot_is_used(slot) ? adopt_entry(cache, slot) : 0;
        if (result < 0)
            return result;
    }
    if (cache->used + cache->deleted >= cache->slot_count)
        return DAMAGED("the table is full");
    return 0;
}

/* Every entry is found by its path, which is therefore there once only. Now that all are sound. */
static int check_reachable(struct qa_cache *cache)
{
    for (uint64_t i = 0; i < cache->slot_count; i++) {
        uint64_t slot = qa_load(&cache->slots[i]);
        if (i + AHEAD < cache->slot_count)
            __builtin_prefetch(qa_entry_at(cache, i + AHEAD));
        if (!qa_slot_is_used(slot))
            continue;
        const struct qa_entry *entry = qa_entry_of(cache, slot);
        if (qa_table_find(cache, qa_load(&entry->path_hash), qa_path_of(cache, entry),
                          qa_path_length(entry)) != i)
            return DAMAGED("the entry in slot %llu is there twice, or not found",
                           (unsigned long long)i);
    }
    return 0;
}

/* Clears the records of an epoch that was not published: adopt_unpublished() makes them anew. Those
 * they have overwritten are below the floor. Returns the head without them. */
static uint64_t clear_unpublished(struct qa_cache *cache, uint64_t head, uint64_t first)
{
    struct qa_record *records = cache->ring->records;
    while (head > first &&
           qa_load(&records[(head - 1) % cache->ring_capacity].epoch) > cache->epoch)
        head--;
    for (uint64_t i = 0; i < cache->ring_capacity; i++)
        if (qa_load(&records[i].epoch) > cache->epoch) {
            qa_store(&records[i].path_hash, 0);
            qa_store(&records[i].epoch, 0);
        }
    return head;
}

static int adopt_journal(struct qa_cache *cache)
{
    struct qa_header *header = cache->header;
    uint64_t head = qa_load(&header->head), epoch, former = 0;
    if (head > UINT64_MAX / 2)
        return DAMAGED("a journal of %llu records", (unsigned long long)head);
    uint64_t first = head > cache->ring_capacity ? head - cache->ring_capacity : 0;
    cache->head = clear_unpublished(cache, head, first);
    for (uint64_t i = first; i < cache->head; i++, former = epoch) {
        epoch = qa_load(&cache->ring->records[i % cache->ring_capacity].epoch);
        if (epoch < former)
            return DAMAGED("record %llu of the journal is older than the one before",
                           (unsigned long long)i);
    }
    qa_store(&header->head, cache->head);
    cache->floor = qa_load(&header->floor);
    if (cache->floor > cache->epoch + 1)
        cache->floor = cache->epoch + 1;
    qa_store(&header->floor, cache->floor);
    return 0;
}

static void adopt_unpublished(struct qa_cache *cache)
{
    for (uint64_t i = 0; i < cache->slot_count; i++) {
        uint64_t slot = qa_load(&cache->slots[i]);
        if (!qa_slot_is_used(slot))
            continue;
        struct qa_entry *entry = qa_entry_of(cache, slot);
        uint64_t epoch = qa_load(&entry->epoch);
        if (epoch > cache->epoch) {
            qa_store(&entry->epoch, cache->epoch + 1);
            qa_journal_add(cache, qa_load(&entry->path_hash));
            cache->pressing++;
        } else if (qa_is_removed(entry) && epoch <= cache->floor) {
            qa_table_drop(cache, i);
        }
    }
}

int qa_cache_adopt(struct qa_cache *cache)
{
    struct qa_header *header = cache->header;
    uint64_t takeovers = qa_load(&header->takeovers);
    cache->epoch = qa_load(&header->epoch);
    cache->generation = (takeovers + 1) << TAKEOVER_SHIFT;
    cache->refused = qa_load(&header->refused);
    if (cache->epoch > UINT64_MAX / 2 || takeovers >= UINT64_C(1) << 23)
        return DAMAGED("epoch %llu after %llu keepers", (unsigned long long)cache->epoch,
                       (unsigned long long)takeovers);
    int result = qa_space_extend(&cache->space, cache->size / QA_GRANULE);
    if (result < 0)
        return result;
    qr_assert(qa_space_claim(&cache->space, 0, QA_HEADER_BYTES / QA_GRANULE));
    if ((result = adopt_table(cache)) < 0 || (result = adopt_ring(cache)) < 0 ||
        (result = adopt_entries(cache)) < 0 || (result = check_reachable(cache)) < 0 ||
        (result = adopt_journal(cache)) < 0)
        return result;
    qa_store(&header->takeovers, takeovers + 1);
    adopt_unpublished(cache);
    qa_store(&header->files, cache->files);
    qa_store(&header->bytes, cache->bytes);
    return 0;
}

/* --- an old segment --- */

/* Why the segment cannot be continued, or NULL. */
static const char *reason_against(const struct qa_cache *cache,
                                  const struct qa_cache_options *options)
{
    const struct qa_header *header = cache->header;
    uint8_t boot[16];
    qa_segment_boot_id(boot);
    if (memcmp(header->magic, QA_CACHE_MAGIC, 8) != 0)
        return "it is none";
    if (header->version != QA_CACHE_VERSION)
        return "it has another format";
    if (atomic_load(&header->superseded))
        return "it was given up";
    if (header->root_length >= QA_ROOT_MAX || header->root_length != strlen(options->root) ||
        memcmp(header->root, options->root, header->root_length + 1) != 0)
        return "it is of another directory";
    if (header->root_device != options->root_device || header->root_inode != options->root_inode)
        return "the directory is another one of the same name";
    if (header->hash != (uint32_t)options->hash || header->hash_bytes != cache->hash_bytes)
        return "it has other hashes";
    if (header->own_history != !options->history ||
        (options->history && memcmp(header->history, options->history, 16) != 0))
        return "its epochs are those of another log";
    if (memcmp(header->boot, boot, 16) != 0)
        return "the machine has been restarted since";
    if (header->map_bytes != QA_MAP_BYTES || qa_load(&header->size) > cache->size)
        return "its size cannot be";
    if (cache->size > cache->limit)
        return "it is larger than allowed";
    return NULL;
}

static void forget_segment(struct qa_cache *cache)
{
    qa_space_finish(&cache->space);
    qa_segment_unmap(cache->header);
    if (cache->fd >= 0)
        close(cache->fd);
    cache->fd = -1;
    cache->header = NULL;
    cache->slots = NULL;
    cache->ring = NULL;
    qr_free(cache->kept);
    cache->kept = NULL;
    cache->kept_first = cache->kept_count = cache->kept_capacity = 0;
    cache->table_granule = 0;
    cache->ring_capacity = cache->slot_count = cache->used = cache->deleted = 0;
    cache->removed = 0;
    cache->files = cache->bytes = cache->contents = cache->refused = 0;
    cache->epoch = cache->floor = cache->head = cache->changes = cache->pressing = 0;
    cache->collapsed = 0;
    cache->walk = 0;
}

static void set_limit(struct qa_cache *cache, const struct qa_cache_options *options)
{
    cache->limit =
        options->max_bytes ? options->max_bytes : cache->size + qa_segment_room(cache->fd);
    if (cache->limit > QA_MAP_BYTES)
        cache->limit = QA_MAP_BYTES;
    if (!options->max_bytes && cache->limit < QA_CACHE_FIRST_BYTES)
        cache->limit = QA_CACHE_FIRST_BYTES; /* it can but fail */
}

/* Tells readers of the segment that it is over. */
static void supersede(struct qa_cache *cache)
{
    struct qa_header *header = cache->header;
    if (!header || memcmp(header->magic, QA_CACHE_MAGIC, 8) != 0)
        return;
    qa_store32(&header->superseded, 1);
    qa_segment_wake(&header->futex);
}

/* 0: the segment that was there is now ours. 1: there is none, or not any more. */
static int take_over(struct qa_cache *cache, const struct qa_cache_options *options)
{
    const char *reason = NULL;
    int result = 0;
    cache->fd = qa_segment_open_file(cache->path, 1, &cache->size);
    if (cache->fd == QALLOW_E_UNAVAILABLE)
        return 1;
    cache->size = cache->size / 4096 * 4096;
    if (cache->fd < 0)
        reason = qallow_error_detail();
    else if (cache->size < QA_HEADER_BYTES || cache->size > QA_MAP_BYTES)
        reason = "its size cannot be";
    if (!reason) {
        set_limit(cache, options);
        cache->header = qa_segment_map(cache->fd, 1);
        if (!cache->header)
            return QALLOW_E_NO_MEMORY;
        reason = reason_against(cache, options);
    }
    /* A hole in it would be filled when it is read, or end in SIGBUS. */
    if (!reason && ((result = qa_segment_reserve(cache->fd, 0, cache->size)) < 0 ||
                    (result = qa_cache_adopt(cache)) < 0))
        reason = qallow_error_detail();
    if (result == QALLOW_E_NO_MEMORY)
        return result;
    if (!reason) {
        qa_store(&cache->header->size, cache->size);
        return 0;
    }
    if (unlink(cache->path) < 0)
        return qr_fail(QALLOW_E_PERMISSION, "%s", reason);
    say(options, "the cache %s is made anew: %s", qr_quotez(cache->path), reason);
    supersede(cache);
    forget_segment(cache);
    return 1;
}

/* --- a new segment --- */

static int write_header(struct qa_cache *cache, const struct qa_cache_options *options)
{
    struct qa_header *header = cache->header;
    const struct qr_os *os = qr_os_posix();
    int random;
    header->version = QA_CACHE_VERSION;
    header->hash = options->hash;
    header->hash_bytes = cache->hash_bytes;
    header->map_bytes = QA_MAP_BYTES;
    header->root_device = options->root_device;
    header->root_inode = options->root_inode;
    header->own_history = !options->history;
    random = os->random(os->context, &header->seed, sizeof header->seed);
    if (random >= 0 && !options->history)
        random = os->random(os->context, header->history, sizeof header->history);
    if (random < 0)
        return qr_fail_errno(-random, "no random number for the cache");
    if (options->history)
        memcpy(header->history, options->history, sizeof header->history);
    qa_segment_boot_id(header->boot);
    header->root_length = (uint32_t)strlen(options->root);
    memcpy(header->root, options->root, header->root_length + 1);
    qa_store(&header->takeovers, 1);
    qa_store(&header->size, cache->size);
    memcpy(header->magic, QA_CACHE_MAGIC, 8);
    return 0;
}

static int create(struct qa_cache *cache, const struct qa_cache_options *options)
{
    if (options->max_bytes && options->max_bytes < QA_CACHE_FIRST_BYTES)
        return qr_fail(QALLOW_E_NO_SPACE, "a cache takes at least %d bytes, not %llu",
                       QA_CACHE_FIRST_BYTES, (unsigned long long)options->max_bytes);
    cache->size = QA_CACHE_FIRST_BYTES;
    cache->fd = qa_segment_create(cache->path, cache->size);
    if (cache->fd < 0)
        return cache->fd;
    set_limit(cache, options);
    cache->generation = UINT64_C(1) << TAKEOVER_SHIFT;
    cache->header = qa_segment_map(cache->fd, 1);
    if (!cache->header)
        return QALLOW_E_NO_MEMORY;
    int result = qa_space_extend(&cache->space, cache->size / QA_GRANULE);
    if (result < 0 || (result = write_header(cache, options)) < 0)
        return result;
    qr_assert(qa_space_claim(&cache->space, 0, QA_HEADER_BYTES / QA_GRANULE));
    qr_assert(qa_table_create(cache, QA_TABLE_LOG2_MIN) == 0);
    qr_assert(qa_journal_create(cache, QA_RING_FIRST) == 0);
    return qa_segment_install(cache->path);
}

/* --- open and close --- */

static void begin(struct qa_cache *cache)
{
    struct qa_header *header = cache->header;
    qa_store(&header->limit, cache->limit);
    qa_store32(&header->keeper, (uint32_t)getpid());
    qa_store32(&header->state, QALLOW_KEEPER_STARTING);
    cache->readers = qa_segment_readers(cache->path, 1);
}

static int open_here(struct qa_cache *cache, const struct qa_cache_options *options)
{
    cache->lock_fd = qa_segment_lock(cache->path);
    if (cache->lock_fd < 0)
        return cache->lock_fd;
    int result = take_over(cache, options);
    if (result == 1)
        result = create(cache, options);
    if (result == 0) {
        begin(cache);
        return 0;
    }
    forget_segment(cache);
    close(cache->lock_fd);
    cache->lock_fd = -1;
    return result;
}

static int open_somewhere(struct qa_cache *cache, const struct qa_cache_options *options)
{
    char why[512] = "";
    int first = 0;
    for (unsigned i = 0; i < QA_SEGMENT_DIRECTORIES; i++) {
        if (!qa_segment_name(i, options->root, cache->path))
            continue;
        int result = open_here(cache, options);
        if (result == 0 && *why)
            say(options, "the cache is kept as %s: %s", qr_quotez(cache->path), why);
        if (result == 0 || result == QALLOW_E_BUSY || result == QALLOW_E_NO_MEMORY)
            return result;
        if (first == 0) {
            first = result;
            snprintf(why, sizeof why, "%s", qallow_error_detail());
        }
    }
    return first ? qr_fail(first, "%s", why)
                 : qr_fail(QALLOW_E_CANNOT_CREATE, "there is no place for the cache of %s",
                           qr_quotez(options->root));
}

int qa_cache_open(const struct qa_cache_options *options, struct qa_cache **out)
{
    if (options->max_bytes > QA_MAP_BYTES)
        return qr_fail(QALLOW_E_LIMIT, "a cache takes at most %llu bytes, not %llu",
                       (unsigned long long)QA_MAP_BYTES, (unsigned long long)options->max_bytes);
    if (strlen(options->root) >= QA_ROOT_MAX)
        return qr_fail(QALLOW_E_LIMIT, "the name of the directory is longer than %d bytes",
                       QA_ROOT_MAX - 1);
    struct qa_cache *cache = qr_calloc(1, sizeof *cache);
    if (!cache)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the cache");
    cache->fd = cache->lock_fd = -1;
    cache->hash_bytes = options->hash == QALLOW_HASH_SHA256 ? 32 : 16;
    qa_space_init(&cache->space);
    int result = open_somewhere(cache, options);
    if (result < 0) {
        qa_cache_close(cache);
        return result;
    }
    *out = cache;
    return 0;
}

void qa_cache_close(struct qa_cache *cache)
{
    if (!cache)
        return;
    if (cache->header && cache->lock_fd >= 0) {
        qa_store32(&cache->header->state, QALLOW_KEEPER_GONE);
        qa_segment_wake(&cache->header->futex);
    }
    forget_segment(cache);
    qa_segment_readers_close(cache->readers);
    if (cache->lock_fd >= 0)
        close(cache->lock_fd);
    qr_free(cache);
}
