/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The directories of a watched tree, see dirs.h.
 *
 * Two hash tables: chains of nodes by (parent, name), and an open-addressing map from watch
 * descriptor to node. The map also holds descriptors that were given up (node NULL) until the
 * kernel says IN_IGNORED: an event for one of those is old news, an event for one that is not in
 * the map means that something was missed.
 */
#define XXH_INLINE_ALL
#include "accelerator/dirs.h"

#include <string.h>
#include <xxhash.h>

#include "runtime/error.h"
#include "runtime/os.h"

enum { FIRST_CAPACITY = 64 };

struct watch_slot {
    int watch; /* 0: free slot; the kernel counts from 1 */
    struct qa_dir *dir;
};

struct qa_dirs {
    struct qa_dir *root;
    struct qa_dir *detached; /* tops of detached subtrees, linked by next_sibling */
    struct qa_dir **buckets;
    size_t bucket_count, count;
    struct watch_slot *slots;
    size_t slot_count, slots_used, bound;
};

static size_t bucket_of(const struct qa_dirs *dirs, const struct qa_dir *parent, const char *name)
{
    uint64_t hash = XXH3_64bits_withSeed(name, strlen(name), (uint64_t)(uintptr_t)parent);
    return hash & (dirs->bucket_count - 1);
}

static struct qa_dir *new_node(const char *name)
{
    size_t length = strlen(name) + 1;
    struct qa_dir *dir = qr_calloc(1, sizeof *dir + length);
    if (!dir)
        return NULL;
    memcpy(dir->name, name, length);
    dir->watch = -1;
    return dir;
}

int qa_dirs_create(struct qa_dirs **out)
{
    struct qa_dirs *dirs = qr_calloc(1, sizeof *dirs);
    if (!dirs)
        goto no_memory;
    dirs->bucket_count = dirs->slot_count = FIRST_CAPACITY;
    dirs->buckets = qr_calloc(dirs->bucket_count, sizeof(struct qa_dir *));
    dirs->slots = qr_calloc(dirs->slot_count, sizeof *dirs->slots);
    dirs->root = new_node(".");
    if (!dirs->buckets || !dirs->slots || !dirs->root)
        goto no_memory;
    dirs->count = 1;
    *out = dirs;
    return 0;
no_memory:
    qa_dirs_destroy(dirs);
    return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the table of directories");
}

/* The node after `dir` in a walk that yields children before their parent; `top` comes last. */
static struct qa_dir *next_from_below(struct qa_dir *dir, const struct qa_dir *top)
{
    if (dir == top)
        return NULL;
    if (!dir->next_sibling)
        return dir->parent;
    dir = dir->next_sibling;
    while (dir->first_child)
        dir = dir->first_child;
    return dir;
}

static struct qa_dir *lowest_first(struct qa_dir *top)
{
    while (top->first_child)
        top = top->first_child;
    return top;
}

static void free_subtree(struct qa_dir *top)
{
    struct qa_dir *next;
    for (struct qa_dir *dir = lowest_first(top); dir; dir = next) {
        next = next_from_below(dir, top);
        qr_free(dir);
    }
}

static void nothing_released(void *context, int watch) {}

void qa_dirs_destroy(struct qa_dirs *dirs)
{
    if (!dirs)
        return;
    qa_dirs_free_detached(dirs, nothing_released, NULL);
    if (dirs->root)
        free_subtree(dirs->root);
    qr_free(dirs->buckets);
    qr_free(dirs->slots);
    qr_free(dirs);
}

struct qa_dir *qa_dirs_root(const struct qa_dirs *dirs) { return dirs->root; }
size_t qa_dirs_count(const struct qa_dirs *dirs) { return dirs->count; }
size_t qa_dirs_watches(const struct qa_dirs *dirs) { return dirs->bound; }

struct qa_dir *qa_dirs_child(const struct qa_dirs *dirs, const struct qa_dir *parent,
                             const char *name)
{
    struct qa_dir *dir = dirs->buckets[bucket_of(dirs, parent, name)];
    while (dir && (dir->parent != parent || strcmp(dir->name, name) != 0))
        dir = dir->next_in_bucket;
    return dir;
}

/* Twice the buckets. Without memory the chains just get longer. */
static void grow_buckets(struct qa_dirs *dirs)
{
    struct qa_dir **old = dirs->buckets;
    size_t old_count = dirs->bucket_count;
    struct qa_dir **buckets = qr_calloc(old_count * 2, sizeof(struct qa_dir *));
    if (!buckets)
        return;
    dirs->buckets = buckets;
    dirs->bucket_count = old_count * 2;
    for (size_t i = 0; i < old_count; i++) {
        struct qa_dir *next;
        for (struct qa_dir *dir = old[i]; dir; dir = next) {
            next = dir->next_in_bucket;
            struct qa_dir **bucket = &buckets[bucket_of(dirs, dir->parent, dir->name)];
            dir->next_in_bucket = *bucket;
            *bucket = dir;
        }
    }
    qr_free(old);
}

struct qa_dir *qa_dirs_add(struct qa_dirs *dirs, struct qa_dir *parent, const char *name)
{
    struct qa_dir *dir = qa_dirs_child(dirs, parent, name);
    if (dir || !(dir = new_node(name)))
        return dir;
    if (dirs->count >= dirs->bucket_count)
        grow_buckets(dirs);
    struct qa_dir **bucket = &dirs->buckets[bucket_of(dirs, parent, name)];
    dir->next_in_bucket = *bucket;
    *bucket = dir;
    dir->parent = parent;
    dir->next_sibling = parent->first_child;
    if (parent->first_child)
        parent->first_child->previous_sibling = dir;
    parent->first_child = dir;
    dirs->count++;
    return dir;
}

static void leave_bucket(struct qa_dirs *dirs, struct qa_dir *dir)
{
    struct qa_dir **at = &dirs->buckets[bucket_of(dirs, dir->parent, dir->name)];
    while (*at != dir)
        at = &(*at)->next_in_bucket;
    *at = dir->next_in_bucket;
}

void qa_dirs_detach(struct qa_dirs *dirs, struct qa_dir *top)
{
    qr_assert(top->parent && !top->detached);
    for (struct qa_dir *dir = lowest_first(top); dir; dir = next_from_below(dir, top)) {
        leave_bucket(dirs, dir);
        dir->detached = 1;
        dirs->count--;
    }
    if (top->previous_sibling)
        top->previous_sibling->next_sibling = top->next_sibling;
    else
        top->parent->first_child = top->next_sibling;
    if (top->next_sibling)
        top->next_sibling->previous_sibling = top->previous_sibling;
    top->parent = top->previous_sibling = NULL;
    top->next_sibling = dirs->detached;
    dirs->detached = top;
}

void qa_dirs_free_detached(struct qa_dirs *dirs, void (*released)(void *context, int watch),
                           void *context)
{
    while (dirs->detached) {
        struct qa_dir *top = dirs->detached;
        dirs->detached = top->next_sibling;
        top->next_sibling = NULL;
        for (struct qa_dir *dir = lowest_first(top); dir; dir = next_from_below(dir, top)) {
            if (dir->watch < 0)
                continue;
            int watch = dir->watch;
            qa_dirs_release(dirs, watch);
            released(context, watch);
        }
        free_subtree(top);
    }
}

struct qa_dir *qa_dirs_next(struct qa_dir *dir)
{
    if (dir->first_child)
        return dir->first_child;
    while (dir && !dir->next_sibling)
        dir = dir->parent;
    return dir ? dir->next_sibling : NULL;
}

/* --- watches --- */

/* The slot of the watch, or the free slot where it belongs. */
static struct watch_slot *slot_of(const struct qa_dirs *dirs, int watch)
{
    size_t mask = dirs->slot_count - 1;
    size_t i = (size_t)((uint64_t)watch * UINT64_C(0x9e3779b97f4a7c15) >> 32) & mask;
    while (dirs->slots[i].watch && dirs->slots[i].watch != watch)
        i = (i + 1) & mask;
    return &dirs->slots[i];
}

static int grow_slots(struct qa_dirs *dirs)
{
    struct watch_slot *old = dirs->slots;
    size_t old_count = dirs->slot_count;
    struct watch_slot *slots = qr_calloc(old_count * 2, sizeof *slots);
    if (!slots)
        return -1;
    dirs->slots = slots;
    dirs->slot_count = old_count * 2;
    for (size_t i = 0; i < old_count; i++)
        if (old[i].watch)
            *slot_of(dirs, old[i].watch) = old[i];
    qr_free(old);
    return 0;
}

int qa_dirs_find_watch(const struct qa_dirs *dirs, int watch, struct qa_dir **dir)
{
    if (watch <= 0)
        return 0;
    const struct watch_slot *slot = slot_of(dirs, watch);
    *dir = slot->dir;
    return slot->watch != 0;
}

int qa_dirs_bind(struct qa_dirs *dirs, struct qa_dir *dir, int watch)
{
    qr_assert(watch > 0 && dir->watch < 0);
    if ((dirs->slots_used + 1) * 3 > dirs->slot_count * 2 && grow_slots(dirs) < 0)
        return -1;
    struct watch_slot *slot = slot_of(dirs, watch);
    if (!slot->watch)
        dirs->slots_used++;
    if (slot->dir)
        slot->dir->watch = -1;
    else
        dirs->bound++;
    *slot = (struct watch_slot){watch, dir};
    dir->watch = watch;
    return 0;
}

void qa_dirs_release(struct qa_dirs *dirs, int watch)
{
    struct watch_slot *slot = slot_of(dirs, watch);
    if (!slot->dir)
        return;
    slot->dir->watch = -1;
    slot->dir = NULL;
    dirs->bound--;
}

void qa_dirs_forget(struct qa_dirs *dirs, int watch)
{
    qa_dirs_release(dirs, watch);
    struct watch_slot *slot = slot_of(dirs, watch);
    if (!slot->watch)
        return;
    slot->watch = 0;
    dirs->slots_used--;
    /* Whoever stood behind it in the same run may have to move up. */
    size_t mask = dirs->slot_count - 1;
    for (size_t i = ((size_t)(slot - dirs->slots) + 1) & mask; dirs->slots[i].watch;
         i = (i + 1) & mask) {
        struct watch_slot moved = dirs->slots[i];
        dirs->slots[i] = (struct watch_slot){0};
        *slot_of(dirs, moved.watch) = moved;
    }
}

/* --- paths --- */

char *qa_dirs_path(const struct qa_dir *dir, const char *name, char **buffer, size_t *size)
{
    size_t length = name ? strlen(name) : 0;
    for (const struct qa_dir *d = dir; d->parent; d = d->parent)
        length += strlen(d->name) + 1;
    if (length + 2 > *size) {
        char *larger = qr_realloc(*buffer, (length + 2) * 2);
        if (!larger)
            return NULL;
        *buffer = larger;
        *size = (length + 2) * 2;
    }
    if (length == 0)
        return memcpy(*buffer, ".", 2);
    char *end = *buffer + length - (name ? 0 : 1);
    *end = '\0';
    size_t part = name ? strlen(name) : 0;
    memcpy(end -= part, name ? name : "", part);
    for (const struct qa_dir *d = dir; d->parent; d = d->parent) {
        if (*end)
            *--end = '/';
        part = strlen(d->name);
        memcpy(end -= part, d->name, part);
    }
    qr_assert(end == *buffer);
    return *buffer;
}
