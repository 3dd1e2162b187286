/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lists of the cache for readers: what has changed since an epoch, and everything.
 *
 * Changes: the hashes of the paths are collected from the journal, each once; then the floor says
 * whether the journal was complete; then each path is looked up as it is now, and in the end the
 * floor is looked at again, because a removed path that falls out of the journal leaves the table.
 *
 * Everything: the table is read in its order, which is nearly that of the hashes. Up to an empty
 * slot everything with a smaller hash has been met, in whatever table; so when the table is
 * replaced meanwhile, it goes on from there in the new one, and leaves out what it has met since.
 */
#include "accelerator/cache_reader.h"
#include "runtime/error.h"
#include "runtime/os.h"

enum { AHEAD = 8 }; /* slots that are fetched into the processor's cache ahead */

typedef int visit_function(void *context, const char *path, const struct qallow_file *file);

static int reserve(struct qallow_cache *cache, size_t count)
{
    if (!cache->names)
        cache->names = qr_malloc(2 * (QA_CACHE_PATH + 1));
    cache->name = cache->names;
    if (count > cache->hash_capacity) {
        size_t capacity = cache->hash_capacity ? cache->hash_capacity : 256;
        while (capacity < count)
            capacity *= 2;
        uint64_t *hashes = qr_realloc(cache->hashes, capacity * sizeof *hashes);
        cache->hashes = hashes ? hashes : cache->hashes;
        cache->hash_capacity = hashes ? capacity : cache->hash_capacity;
    }
    return cache->names && count <= cache->hash_capacity
               ? 0
               : qr_fail(QALLOW_E_NO_MEMORY, "no memory for a list of %zu paths", count);
}

/* All of a view. */
static void copy(struct qallow_cache *cache, struct qa_view *view, struct qallow_file *file)
{
    qa_reader_copy(cache, view, file);
    qa_load_bytes(cache->name, qa_view_path(cache, view), view->path_length);
    cache->name[view->path_length] = '\0';
}

/* --- since --- */

static int too_old(const struct qallow_cache *cache, uint64_t epoch)
{
    return qr_fail(QALLOW_E_EPOCH_NOT_FOUND,
                   "the journal of %s reaches back to epoch %llu, not to %llu",
                   qr_quotez(cache->root), (unsigned long long)qa_load(&cache->header->floor),
                   (unsigned long long)epoch);
}

/* The ring, and its capacity; NULL if its place makes no sense. */
static const struct qa_ring *ring_of(struct qallow_cache *cache, uint64_t root, uint64_t *capacity)
{
    uint64_t granule = qa_granule_of(root);
    if (!qa_reader_has(cache, granule, sizeof(struct qa_ring)))
        return NULL;
    const struct qa_ring *ring =
        (const struct qa_ring *)((const char *)cache->header + granule * QA_GRANULE);
    *capacity = qa_load(&ring->capacity);
    if (*capacity == 0 || *capacity > QA_MAP_BYTES / sizeof(struct qa_record) ||
        !qa_reader_has(cache, granule, sizeof *ring + *capacity * sizeof(struct qa_record)))
        return NULL;
    return ring;
}

/* The hashes of what came after `epoch`, with repetitions, into cache->hashes: how many. */
static int collect_once(struct qallow_cache *cache, uint64_t epoch, uint64_t root, size_t *count)
{
    uint64_t capacity, head = qa_load(&cache->header->head);
    const struct qa_ring *ring = ring_of(cache, root, &capacity);
    if (!ring)
        return QALLOW_E_DAMAGED;
    uint64_t records = head < capacity ? head : capacity;
    uint64_t at = head % capacity;
    for (*count = 0; *count < records; ++*count) {
        at = at ? at - 1 : capacity - 1;
        const struct qa_record *record = &ring->records[at];
        uint64_t path_hash = qa_load(&record->path_hash);
        if (qa_load(&record->epoch) <= epoch)
            break;
        if (*count == cache->hash_capacity && reserve(cache, *count + 1) < 0)
            return QALLOW_E_NO_MEMORY;
        cache->hashes[*count] = path_hash;
    }
    return 0;
}

static int collect(struct qallow_cache *cache, uint64_t epoch, size_t *count)
{
    for (int tries = 0; tries < QA_TRIES; tries++) {
        uint64_t root = qa_load(&cache->header->ring);
        int result = collect_once(cache, epoch, root, count);
        if (result == QALLOW_E_NO_MEMORY)
            return result;
        if (qa_load(&cache->header->ring) != root)
            continue;
        if (result == 0 && qa_load(&cache->header->floor) > epoch)
            return too_old(cache, epoch);
        return result < 0 ? qa_reader_damaged(cache) : 0;
    }
    return qa_reader_damaged(cache);
}

/* Takes repetitions out of the first `count` of cache->hashes, with a set of them behind the list.
 */
static int without_repetitions(struct qallow_cache *cache, size_t *count)
{
    size_t size = 16, kept = 0;
    while (size < *count * 2)
        size *= 2;
    if (reserve(cache, *count + size) < 0)
        return QALLOW_E_NO_MEMORY;
    uint64_t *list = cache->hashes, *set = list + *count;
    memset(set, 0, size * sizeof *set);
    for (size_t i = 0; i < *count; i++) {
        uint64_t value = list[i] ? list[i] : 1; /* 0: free; two hashes among 2^64 are one here */
        size_t at = value & (size - 1);
        while (set[at] && set[at] != value)
            at = (at + 1) & (size - 1);
        if (!set[at])
            list[kept++] = list[i];
        set[at] = value;
    }
    *count = kept;
    return 0;
}

/* The next entry with this hash at or after the *probe-th slot where it may be. */
static enum qa_look next_of_hash(struct qallow_cache *cache, uint64_t path_hash, uint64_t *probe,
                                 struct qallow_file *file)
{
    struct qa_view view;
    for (; *probe <= cache->mask; ++*probe) {
        uint64_t at = (qa_home(path_hash, cache->log2) + *probe) & cache->mask;
        uint64_t slot = qa_load(&cache->slots[at]);
        if (slot == QA_SLOT_EMPTY)
            break;
        if (!qa_slot_fits(slot, path_hash))
            continue;
        enum qa_look look = qa_reader_view(cache, at, slot, &view);
        if (look != QA_LOOK_FOUND)
            return qa_reader_retry(cache, look, at, slot);
        copy(cache, &view, file);
        if (!qa_reader_is_stable(cache, &view))
            return QA_LOOK_AGAIN;
        ++*probe;
        if (view.path_hash == path_hash)
            return QA_LOOK_FOUND;
    }
    return qa_load(&cache->header->table) == cache->table ? QA_LOOK_END : QA_LOOK_AGAIN;
}

/* Visits the paths with this hash: one, but for a coincidence that has not been seen yet. That one
 * may be met again, when the table is replaced, or the path was removed and has come back
 * meanwhile. */
static int visit_hash(struct qallow_cache *cache, uint64_t path_hash, uint64_t epoch,
                      visit_function *visit, void *context)
{
    struct qallow_file file;
    uint64_t probe = 0, table = ~cache->table; /* visit may look up and so get to a new one */
    char *last = NULL;
    int result = 0, tries = 0;
    while (result == 0) {
        enum qa_look look = QA_LOOK_BAD;
        if (qa_load32(&cache->header->superseded))
            return qa_reader_superseded(cache);
        if (qa_reader_sync(cache)) {
            probe = cache->table == table ? probe : 0;
            table = cache->table;
            look = next_of_hash(cache, path_hash, &probe, &file);
        }
        if (look == QA_LOOK_END)
            return 0;
        if (look != QA_LOOK_FOUND) {
            result = qa_reader_may_retry(cache, &tries, look);
        } else if (file.epoch > epoch && !(last && strcmp(last, cache->name) == 0)) {
            last = cache->name;
            cache->name = last == cache->names ? last + QA_CACHE_PATH + 1 : cache->names;
            result = visit(context, last, &file);
        }
    }
    return result;
}

int qallow_cache_since(struct qallow_cache *cache, uint64_t epoch,
                       int (*visit)(void *context, const char *path,
                                    const struct qallow_file *file),
                       void *context, uint64_t *now)
{
    size_t count = 0;
    uint64_t newest = qallow_cache_epoch(cache);
    if (qa_load32(&cache->header->superseded))
        return qa_reader_superseded(cache);
    if (epoch > newest)
        return qr_fail(QALLOW_E_EPOCH_NOT_FOUND, "epoch %llu is yet to come: the newest is %llu",
                       (unsigned long long)epoch, (unsigned long long)newest);
    int result = epoch == newest ? 0 : reserve(cache, 1);
    if (result == 0 && epoch < newest)
        result = collect(cache, epoch, &count);
    if (result < 0)
        return result;
    result = without_repetitions(cache, &count);
    for (size_t i = 0; i < count && result == 0; i++) {
        if (i + AHEAD < count)
            __builtin_prefetch(&cache->slots[qa_home(cache->hashes[i + AHEAD], cache->log2)]);
        result = visit_hash(cache, cache->hashes[i], epoch, visit, context);
    }
    if (result == 0 && epoch < newest && qa_load(&cache->header->floor) > epoch)
        return too_old(cache, epoch);
    if (result == 0 && now)
        *now = newest;
    return result;
}

/* --- each --- */

struct tour {
    uint64_t from;  /* everything with a smaller hash has been met */
    uint64_t at;    /* the next slot; goes beyond the last one for what has wrapped around */
    size_t met;     /* hashes met since `from`, in cache->hashes */
    int is_wrapped; /* it has gone on at the beginning, for what did not fit at the end */
    uint64_t table; /* the root */
};

/* How many of them are compared. A sound table has a hundred slots in a row at most; one that is
 * full to the brim may have more, and then a path that goes and comes back may be met twice. */
enum { MET_MAX = 4096 };

/* Is this entry, in slot number tour->at, to be visited now? An entry lies at or behind the slot
 * that its hash gives; at the beginning of the table that may be one at its end. */
static int is_due(const struct qallow_cache *cache, const struct tour *tour, uint64_t path_hash)
{
    uint64_t home = qa_home(path_hash, cache->log2);
    if (path_hash < tour->from || (home > tour->at) != tour->is_wrapped)
        return 0;
    for (size_t i = tour->met > MET_MAX ? tour->met - MET_MAX : 0; i < tour->met; i++)
        if (cache->hashes[i] == path_hash)
            return 0;
    return 1;
}

/* Behind an empty slot nothing with a hash up to that slot can come any more. What has been met
 * with a larger one, in a table where it came earlier, is kept in mind. */
static void pass_empty(const struct qallow_cache *cache, struct tour *tour)
{
    size_t kept = 0;
    if (tour->at == cache->mask || tour->is_wrapped)
        return;
    tour->from = (tour->at + 1) << (64 - cache->log2);
    for (size_t i = 0; i < tour->met; i++)
        if (cache->hashes[i] >= tour->from)
            cache->hashes[kept++] = cache->hashes[i];
    tour->met = kept;
}

/* Visits what the slot refers to: 0, or what is to be returned; *look what became of it. */
static int visit_slot(struct qallow_cache *cache, struct tour *tour, uint64_t slot,
                      visit_function *visit, void *context, enum qa_look *look)
{
    struct qa_view view;
    struct qallow_file file;
    *look = qa_reader_view(cache, tour->at, slot, &view);
    if (*look != QA_LOOK_FOUND)
        return 0;
    copy(cache, &view, &file);
    if (!qa_reader_is_stable(cache, &view))
        *look = QA_LOOK_AGAIN;
    if (*look != QA_LOOK_FOUND || !is_due(cache, tour, view.path_hash))
        return 0;
    if (reserve(cache, tour->met + 1) < 0)
        return QALLOW_E_NO_MEMORY;
    cache->hashes[tour->met++] = view.path_hash;
    return file.removed ? 0 : visit(context, cache->name, &file);
}

/* Starts over in a table that has just been put in place, where the last one was left. */
static void enter(const struct qallow_cache *cache, struct tour *tour)
{
    tour->at = qa_home(tour->from, cache->log2);
    tour->is_wrapped = 0;
    tour->table = cache->table;
}

/* Goes on to the next slot: 1, or 0 if that was all. */
static int advance(const struct qallow_cache *cache, struct tour *tour, uint64_t slot)
{
    if (slot == QA_SLOT_EMPTY) {
        pass_empty(cache, tour);
        if (tour->is_wrapped)
            return 0;
    }
    if (tour->at == cache->mask) {
        if (slot == QA_SLOT_EMPTY || tour->is_wrapped)
            return 0;
        tour->is_wrapped = 1;
        tour->at = 0;
        return 1;
    }
    tour->at++;
    return 1;
}

/* Looks at one slot: *look says what came of it, FOUND that the tour may go on. */
static int take_step(struct qallow_cache *cache, struct tour *tour, uint64_t *slot,
                     visit_function *visit, void *context, enum qa_look *look)
{
    int result = 0;
    *look = QA_LOOK_BAD;
    if (qa_load32(&cache->header->superseded))
        return qa_reader_superseded(cache);
    if (!qa_reader_sync(cache))
        return 0;
    if (cache->table != tour->table)
        enter(cache, tour);
    *slot = qa_load(&cache->slots[tour->at]);
    *look = QA_LOOK_FOUND;
    if (qa_slot_is_used(*slot))
        result = visit_slot(cache, tour, *slot, visit, context, look);
    if (*look != QA_LOOK_FOUND)
        *look = qa_reader_retry(cache, *look, tour->at, *slot);
    else if (qa_load(&cache->header->table) != tour->table)
        *look = QA_LOOK_AGAIN; /* the slot may have been something else already */
    return result;
}

int qallow_cache_each(struct qallow_cache *cache,
                      int (*visit)(void *context, const char *path, const struct qallow_file *file),
                      void *context, uint64_t *now)
{
    struct tour tour = {.table = ~qa_load(&cache->header->table)};
    uint64_t slot = 0, newest = qallow_cache_epoch(cache);
    int result = reserve(cache, 1);
    for (int tries = 0; result == 0;) {
        enum qa_look look;
        result = take_step(cache, &tour, &slot, visit, context, &look);
        if (result != 0)
            break;
        if (look != QA_LOOK_FOUND) {
            result = qa_reader_may_retry(cache, &tries, look);
            continue;
        }
        tries = 0;
        if (!advance(cache, &tour, slot)) {
            if (now)
                *now = newest;
            return 0;
        }
    }
    return result;
}
