/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dirty set.
 *
 * An open-addressing hash set of entries (path, first mark, last mark). The two moments that decide
 * are kept beside it: the last mark of all (is the tree at rest?) and the oldest first mark (has
 * something waited too long?), so that asking for the deadline costs nothing.
 *
 * A tree at rest is taken whole: what one program did in one go becomes one epoch. A tree that
 * never rests gives its quiet paths when the oldest has waited for max_ns; a path that is itself
 * older than that is taken although it is still changing. The two halves of a rename share their
 * first mark and are taken only whole or as too old, hence always together; apart they would be
 * recorded as a removal and a creation.
 */
#define XXH_INLINE_ALL
#include "accelerator/dirty.h"

#include <string.h>
#include <xxhash.h>

#include "runtime/error.h"
#include "runtime/os.h"
#include "telemetry/telemetry.h"

enum { FIRST_CAPACITY = 64 };

struct entry {
    char *path; /* NULL: free slot */
    uint64_t hash, first, last;
    int flags;
};

struct qa_dirty {
    struct entry *entries;
    size_t capacity; /* a power of two */
    size_t count, max_paths;
    uint64_t oldest; /* smallest `first`; UINT64_MAX when there is none */
    uint64_t newest; /* last mark */
    int everything;
    uint64_t everything_since;
    void (*on_mark)(void *context, const char *path);
    void *context;
};

int qa_dirty_create(size_t max_paths, struct qa_dirty **out)
{
    struct qa_dirty *dirty = qr_calloc(1, sizeof *dirty);
    if (!dirty)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the set of changed paths");
    dirty->max_paths = max_paths;
    dirty->oldest = UINT64_MAX;
    *out = dirty;
    return 0;
}

static void clear(struct qa_dirty *dirty)
{
    for (size_t i = 0; i < dirty->capacity; i++)
        qr_free(dirty->entries[i].path);
    qr_free(dirty->entries);
    dirty->entries = NULL;
    dirty->capacity = dirty->count = 0;
    dirty->oldest = UINT64_MAX;
}

void qa_dirty_destroy(struct qa_dirty *dirty)
{
    if (!dirty)
        return;
    clear(dirty);
    qr_free(dirty);
}

/* The slot of the path, or the free slot where it belongs. */
static struct entry *find(struct entry *entries, size_t capacity, const char *path, size_t length,
                          uint64_t hash)
{
    for (size_t i = hash;; i++) {
        struct entry *e = &entries[i & (capacity - 1)];
        if (!e->path)
            return e;
        if (e->hash == hash && strncmp(e->path, path, length) == 0 && e->path[length] == '\0')
            return e;
    }
}

static int grow(struct qa_dirty *dirty)
{
    size_t capacity = dirty->capacity ? dirty->capacity * 2 : FIRST_CAPACITY;
    struct entry *entries = qr_calloc(capacity, sizeof *entries);
    if (!entries)
        return QALLOW_E_NO_MEMORY;
    for (size_t i = 0; i < dirty->capacity; i++) {
        struct entry *e = &dirty->entries[i];
        if (e->path)
            *find(entries, capacity, e->path, strlen(e->path), e->hash) = *e;
    }
    qr_free(dirty->entries);
    dirty->entries = entries;
    dirty->capacity = capacity;
    return 0;
}

/* Adds path[0..length) or updates it. NULL without memory. */
static struct entry *insert(struct qa_dirty *dirty, const char *path, size_t length, uint64_t first,
                            uint64_t last, int flags)
{
    if ((dirty->count + 1) * 3 > dirty->capacity * 2 && grow(dirty) < 0)
        return NULL;
    uint64_t hash = XXH3_64bits(path, length);
    struct entry *e = find(dirty->entries, dirty->capacity, path, length, hash);
    if (!e->path) {
        char *copy = qr_malloc(length + 1);
        if (!copy)
            return NULL;
        memcpy(copy, path, length);
        copy[length] = '\0';
        *e = (struct entry){.path = copy, .hash = hash, .first = first, .last = last};
        dirty->count++;
    }
    e->flags |= flags;
    if (first < e->first)
        e->first = first;
    if (last > e->last)
        e->last = last;
    if (e->first < dirty->oldest)
        dirty->oldest = e->first;
    return e;
}

/* Too many paths: each file gives way to its directory, which stands for its direct entries. */
static void collapse(struct qa_dirty *dirty)
{
    struct qa_dirty old = *dirty;
    dirty->entries = NULL;
    dirty->capacity = dirty->count = 0;
    dirty->oldest = UINT64_MAX;
    int failed = 0;
    for (size_t i = 0; i < old.capacity && !failed; i++) {
        const struct entry *e = &old.entries[i];
        if (!e->path)
            continue;
        const char *slash = strrchr(e->path, '/');
        const char *parent = slash ? e->path : ".";
        size_t length = slash ? (size_t)(slash - e->path) : 1;
        failed = !insert(dirty, parent, length, e->first, e->last, e->flags);
    }
    clear(&old);
    if (failed || dirty->count > dirty->max_paths / 2)
        qa_dirty_mark_everything(dirty, dirty->newest);
}

void qa_dirty_on_mark(struct qa_dirty *dirty, void (*hook)(void *context, const char *path),
                      void *context)
{
    dirty->on_mark = hook;
    dirty->context = context;
}

uint64_t qa_dirty_mark(struct qa_dirty *dirty, const char *path, uint64_t now, uint64_t since,
                       int flags)
{
    dirty->newest = now;
    if (dirty->everything) /* it includes this path */
        return dirty->everything_since;
    uint64_t first = since && since < now ? since : now;
    size_t known = dirty->count;
    struct entry *e = insert(dirty, path, strlen(path), first, now, flags);
    if (dirty->count == known)
        qt_add(QT_WATCH_COALESCED, 1);
    else if (dirty->on_mark)
        dirty->on_mark(dirty->context, path);
    if (!e) {
        qa_dirty_mark_everything(dirty, now);
        return dirty->everything_since;
    }
    first = e->first;
    if (dirty->count > dirty->max_paths)
        collapse(dirty);
    return first;
}

void qa_dirty_mark_everything(struct qa_dirty *dirty, uint64_t now)
{
    dirty->newest = now;
    if (dirty->everything)
        return;
    dirty->everything = 1;
    dirty->everything_since = dirty->oldest < now ? dirty->oldest : now;
    clear(dirty);
}

int qa_dirty_is_empty(const struct qa_dirty *dirty)
{
    return !dirty->everything && dirty->count == 0;
}

size_t qa_dirty_count(const struct qa_dirty *dirty) { return dirty->count; }

uint64_t qa_dirty_deadline(const struct qa_dirty *dirty, const struct qa_settle *settle)
{
    if (qa_dirty_is_empty(dirty))
        return UINT64_MAX;
    uint64_t oldest = dirty->everything ? dirty->everything_since : dirty->oldest;
    uint64_t quiet = dirty->newest + settle->quiet_ns;
    uint64_t overdue = oldest + settle->max_ns;
    return quiet < overdue ? quiet : overdue;
}

static int is_due(const struct entry *e, const struct qa_settle *settle, uint64_t now)
{
    if (now >= e->first + settle->max_ns)
        return 1;
    return !(e->flags & QA_DIRTY_MOVED) && now >= e->last + settle->quiet_ns;
}

/* Moves the due paths (all if settle is NULL) into `taken` and the others into a set of their
 * own. */
static int split(struct qa_dirty *dirty, const struct qa_settle *settle, uint64_t now,
                 struct qa_taken *taken)
{
    struct qa_dirty rest = {.max_paths = dirty->max_paths, .oldest = UINT64_MAX};
    taken->paths = qr_calloc(dirty->count, sizeof *taken->paths);
    if (!taken->paths)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for %zu changed paths", dirty->count);
    for (size_t i = 0; i < dirty->capacity; i++) {
        struct entry *e = &dirty->entries[i];
        if (!e->path || !settle || is_due(e, settle, now))
            continue;
        if (!insert(&rest, e->path, strlen(e->path), e->first, e->last, e->flags)) {
            clear(&rest);
            qa_taken_finish(taken);
            return qr_fail(QALLOW_E_NO_MEMORY, "no memory for %zu changed paths", dirty->count);
        }
    }
    for (size_t i = 0; i < dirty->capacity; i++) {
        struct entry *e = &dirty->entries[i];
        if (!e->path || (settle && !is_due(e, settle, now)))
            continue;
        if (e->first < taken->since)
            taken->since = e->first;
        taken->paths[taken->count++] = e->path;
        e->path = NULL;
    }
    clear(dirty);
    dirty->entries = rest.entries;
    dirty->capacity = rest.capacity;
    dirty->count = rest.count;
    dirty->oldest = rest.oldest;
    return 0;
}

int qa_dirty_take(struct qa_dirty *dirty, const struct qa_settle *settle, uint64_t now,
                  struct qa_taken *taken)
{
    *taken = (struct qa_taken){.since = UINT64_MAX};
    if (qa_dirty_is_empty(dirty) || (settle && now < qa_dirty_deadline(dirty, settle)))
        return 0;
    if (dirty->everything) {
        taken->everything = 1;
        taken->since = dirty->everything_since;
        dirty->everything = 0;
        return 0;
    }
    int at_rest = !settle || now >= dirty->newest + settle->quiet_ns;
    return split(dirty, at_rest ? NULL : settle, now, taken);
}

void qa_taken_finish(struct qa_taken *taken)
{
    for (size_t i = 0; i < taken->count; i++)
        qr_free(taken->paths[i]);
    qr_free(taken->paths);
    *taken = (struct qa_taken){0};
}
