/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three hash tables.
 *
 * Children: counts go up the tree. A directory is a child of the one above it as long as it has
 * children, so "is anything cached below this?" is one question. Numbers that fell to 0 keep their
 * place until the table grows.
 *
 * Inodes: a set of 32-bit fingerprints, which may say "perhaps" of an inode that it does not have,
 * one time in (2^32 / files). It answers what a new name of a file leads to: is there a cached file
 * that it may be another name of? Without it each new hard link from outside would cost a look at
 * every entry.
 *
 * Links: the names of files that have several, in chains.
 */
#include "accelerator/index_tables.h"

#include <string.h>
#include <sys/random.h>

#include "backend/kernels.h"
#include "runtime/error.h"
#include "runtime/os.h"

enum { MAP_FIRST = 64, INODES_FIRST = 256, LINKS_FIRST = 64 };

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 32) * UINT64_C(0x9E3779B97F4A7C15);
    return x ^ x >> 29;
}

/* --- numbers by keys: open addressing, at most two thirds full; key 0 is a free place --- */

static size_t map_slot(const struct qa_map *map, uint64_t key)
{
    size_t at = (size_t)key & (map->capacity - 1);
    while (map->keys[at] && map->keys[at] != key)
        at = (at + 1) & (map->capacity - 1);
    return at;
}

static int map_grow(struct qa_map *map)
{
    size_t live = 0;
    for (size_t i = 0; i < map->capacity; i++)
        live += map->values[i] != 0;
    struct qa_map grown = {.capacity = MAP_FIRST};
    while (grown.capacity < 2 * (live + 1))
        grown.capacity *= 2;
    grown.keys = qr_calloc(grown.capacity, sizeof *grown.keys);
    grown.values = qr_calloc(grown.capacity, sizeof *grown.values);
    if (!grown.keys || !grown.values) {
        qa_map_finish(&grown);
        return 0;
    }
    for (size_t i = 0; i < map->capacity; i++)
        if (map->values[i]) {
            size_t at = map_slot(&grown, map->keys[i]);
            grown.keys[at] = map->keys[i];
            grown.values[at] = map->values[i];
            grown.used++;
        }
    qa_map_finish(map);
    *map = grown;
    return 1;
}

int qa_map_add(struct qa_map *map, uint64_t key, int32_t amount)
{
    if (3 * (map->used + 1) > 2 * map->capacity && !map_grow(map))
        return 0;
    size_t at = map_slot(map, key);
    map->used += map->keys[at] == 0;
    map->keys[at] = key;
    map->values[at] += (uint32_t)amount;
    return 1;
}

uint32_t qa_map_get(const struct qa_map *map, uint64_t key)
{
    return map->used ? map->values[map_slot(map, key)] : 0;
}

void qa_map_finish(struct qa_map *map)
{
    qr_free(map->keys);
    qr_free(map->values);
    *map = (struct qa_map){0};
}

/* There is no memory for something that should be in the tables. */
static void lost(struct qa_tables *tables)
{
    tables->lost = 1;
    tables->complete = 0;
}

/* --- children --- */

uint64_t qa_path_key(const struct qa_tables *tables, const char *path, size_t length)
{
    uint64_t key = qb_kernels()->hash64(path, length, tables->seed);
    return key ? key : 1;
}

size_t qa_directory_length(const char *path, size_t length)
{
    while (length && path[length - 1] != '/')
        length--;
    return length ? length - 1 : 0;
}

void qa_children_add(struct qa_tables *tables, const char *directory, size_t length, int32_t amount)
{
    for (;;) {
        uint64_t key = qa_path_key(tables, directory, length);
        uint32_t before = qa_map_get(&tables->children, key);
        if (amount < 0 && before < (uint32_t)-amount) /* from a time before the tables */
            return;
        if (!qa_map_add(&tables->children, key, amount)) {
            lost(tables);
            return;
        }
        uint32_t after = before + (uint32_t)amount;
        if (!length || (before != 0) == (after != 0))
            return;
        length = qa_directory_length(directory, length);
        amount = after ? 1 : -1;
    }
}

uint32_t qa_children(const struct qa_tables *tables, const char *directory, size_t length)
{
    if (!tables->complete)
        return UINT32_MAX;
    return qa_map_get(&tables->children, qa_path_key(tables, directory, length));
}

/* --- inodes --- */

static uint32_t fingerprint(uint64_t device, uint64_t inode)
{
    uint32_t print = (uint32_t)(mix(inode + mix(device)) >> 16);
    return print ? print : 1;
}

static size_t inode_slot(const uint32_t *inodes, size_t capacity, uint32_t print)
{
    size_t at = (size_t)(print * UINT64_C(0x9E3779B97F4A7C15) >> 20) & (capacity - 1);
    while (inodes[at] && inodes[at] != print)
        at = (at + 1) & (capacity - 1);
    return at;
}

static int inodes_grow(struct qa_tables *tables)
{
    size_t capacity = tables->inodes_capacity ? 2 * tables->inodes_capacity : INODES_FIRST;
    uint32_t *grown = qr_calloc(capacity, sizeof *grown);
    if (!grown)
        return 0;
    for (size_t i = 0; i < tables->inodes_capacity; i++)
        if (tables->inodes[i])
            grown[inode_slot(grown, capacity, tables->inodes[i])] = tables->inodes[i];
    qr_free(tables->inodes);
    tables->inodes = grown;
    tables->inodes_capacity = capacity;
    return 1;
}

void qa_inode_add(struct qa_tables *tables, uint64_t device, uint64_t inode)
{
    if (3 * (tables->inodes_used + 1) > 2 * tables->inodes_capacity && !inodes_grow(tables)) {
        lost(tables);
        return;
    }
    uint32_t print = fingerprint(device, inode);
    size_t at = inode_slot(tables->inodes, tables->inodes_capacity, print);
    tables->inodes_used += tables->inodes[at] == 0;
    tables->inodes[at] = print;
}

int qa_inode_has(const struct qa_tables *tables, uint64_t device, uint64_t inode)
{
    if (!tables->complete)
        return 1;
    return tables->inodes_used && tables->inodes[inode_slot(tables->inodes, tables->inodes_capacity,
                                                            fingerprint(device, inode))];
}

/* --- links --- */

static size_t link_bucket(size_t capacity, uint64_t device, uint64_t inode)
{
    return (size_t)(mix(inode + mix(device)) >> 8) & (capacity - 1);
}

static int is_name_of(const struct qa_link *link, uint64_t device, uint64_t inode)
{
    return link->inode == inode && link->device == device;
}

const struct qa_link *qa_link_next(const struct qa_tables *tables, uint64_t device, uint64_t inode,
                                   const struct qa_link *after)
{
    if (!tables->links_capacity)
        return NULL;
    const struct qa_link *link =
        after ? after->next : tables->links[link_bucket(tables->links_capacity, device, inode)];
    while (link && !is_name_of(link, device, inode))
        link = link->next;
    return link;
}

static int links_grow(struct qa_tables *tables)
{
    size_t capacity = tables->links_capacity ? 2 * tables->links_capacity : LINKS_FIRST;
    struct qa_link **grown = qr_calloc(capacity, sizeof *grown);
    if (!grown)
        return 0;
    for (size_t i = 0; i < tables->links_capacity; i++)
        for (struct qa_link *link = tables->links[i], *next; link; link = next) {
            size_t at = link_bucket(capacity, link->device, link->inode);
            next = link->next;
            link->next = grown[at];
            grown[at] = link;
        }
    qr_free(tables->links);
    tables->links = grown;
    tables->links_capacity = capacity;
    return 1;
}

void qa_link_add(struct qa_tables *tables, uint64_t device, uint64_t inode, const char *path)
{
    size_t size = strlen(path) + 1;
    for (const struct qa_link *link = NULL;
         (link = qa_link_next(tables, device, inode, link)) != NULL;)
        if (strcmp(link->path, path) == 0)
            return;
    struct qa_link *link = qr_malloc(sizeof *link + size);
    if (!link || (tables->links_used >= tables->links_capacity && !links_grow(tables))) {
        qr_free(link);
        lost(tables);
        return;
    }
    size_t at = link_bucket(tables->links_capacity, device, inode);
    *link = (struct qa_link){.next = tables->links[at], .inode = inode, .device = device};
    memcpy(link->path, path, size);
    tables->links[at] = link;
    tables->links_used++;
}

uint32_t qa_link_prune(struct qa_tables *tables, uint64_t device, uint64_t inode,
                       const struct qa_cache *cache)
{
    uint32_t left = 0;
    if (!tables->links_capacity)
        return 0;
    struct qa_link **at = &tables->links[link_bucket(tables->links_capacity, device, inode)];
    while (*at) {
        struct qa_link *link = *at;
        struct qa_file file;
        if (is_name_of(link, device, inode)) {
            if (!qa_cache_get(cache, link->path, &file) || file.inode != inode ||
                file.device != device) {
                *at = link->next;
                qr_free(link);
                tables->links_used--;
                continue;
            }
            left++;
        }
        at = &link->next;
    }
    return left;
}

/* --- life --- */

int qa_tables_init(struct qa_tables *tables)
{
    *tables = (struct qa_tables){0};
    if (getrandom(&tables->seed, sizeof tables->seed, 0) != (ssize_t)sizeof tables->seed)
        return qr_fail(QALLOW_E_IO, "the system gives no random numbers");
    return 0;
}

void qa_tables_clear(struct qa_tables *tables)
{
    uint64_t seed = tables->seed;
    qa_tables_finish(tables);
    tables->seed = seed;
}

void qa_tables_complete(struct qa_tables *tables) { tables->complete = !tables->lost; }

void qa_tables_finish(struct qa_tables *tables)
{
    for (size_t i = 0; i < tables->links_capacity; i++)
        for (struct qa_link *link = tables->links[i], *next; link; link = next) {
            next = link->next;
            qr_free(link);
        }
    qr_free(tables->links);
    qr_free(tables->inodes);
    qa_map_finish(&tables->children);
    *tables = (struct qa_tables){0};
}
