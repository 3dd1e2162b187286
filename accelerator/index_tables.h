/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the indexer knows besides the cache, in its own memory: enough to tell without a look at
 * every entry whether something is cached below a directory, and which paths are names of one file.
 * A walk over the whole tree makes all of it anew. Hashes of paths stand for paths, seeded at
 * random, so that nobody can make two of them agree. Not thread-safe.
 */
#ifndef QA_INDEX_TABLES_H
#define QA_INDEX_TABLES_H

#include <stddef.h>
#include <stdint.h>

#include "accelerator/cache.h"

/* Numbers by 64-bit keys; what was never set is 0. */
struct qa_map {
    uint64_t *keys;
    uint32_t *values;
    size_t used, capacity;
};

/* A name of a file that has several. */
struct qa_link {
    struct qa_link *next;
    uint64_t inode, device;
    char path[];
};

struct qa_tables {
    uint64_t seed;
    /* All of the cache is in here. If not, every question is answered with "perhaps". */
    int complete;
    int lost; /* something that there was no memory for */
    /* Directory -> its cached files and the sub-directories whose own number is not 0. */
    struct qa_map children;
    /* Fingerprints of the inodes of cached files; those of files that are gone stay. */
    uint32_t *inodes;
    size_t inodes_used, inodes_capacity;
    struct qa_link **links; /* by inode */
    size_t links_used, links_capacity;
};

int qa_tables_init(struct qa_tables *tables); /* IO: no random numbers */
void qa_tables_finish(struct qa_tables *tables);
/* Forgets everything; until qa_tables_complete() all answers are "perhaps". None of the functions
 * fails: what there is no memory for makes the tables incomplete until they are cleared. */
void qa_tables_clear(struct qa_tables *tables);
void qa_tables_complete(struct qa_tables *tables);

uint64_t qa_path_key(const struct qa_tables *tables, const char *path, size_t length);
/* 0 if there was no memory to change it. */
int qa_map_add(struct qa_map *map, uint64_t key, int32_t amount);
uint32_t qa_map_get(const struct qa_map *map, uint64_t key);
void qa_map_finish(struct qa_map *map);

/* The length of the directory part of a path: 0 for one in the root. */
size_t qa_directory_length(const char *path, size_t length);
/* `amount` files more (or less) are cached directly in the directory. */
void qa_children_add(struct qa_tables *tables, const char *directory, size_t length,
                     int32_t amount);
/* How many children are cached; UINT32_MAX: that is not known. */
uint32_t qa_children(const struct qa_tables *tables, const char *directory, size_t length);

/* A cached file has this inode. */
void qa_inode_add(struct qa_tables *tables, uint64_t device, uint64_t inode);
/* 0: no cached file had it. 1: perhaps. */
int qa_inode_has(const struct qa_tables *tables, uint64_t device, uint64_t inode);

/* A path is one of several names of its file. */
void qa_link_add(struct qa_tables *tables, uint64_t device, uint64_t inode, const char *path);
/* The names known of an inode, one after the other: NULL first, then what was returned. */
const struct qa_link *qa_link_next(const struct qa_tables *tables, uint64_t device, uint64_t inode,
                                   const struct qa_link *after);
/* Drops the names of an inode whose entry in the cache says another one; returns how many are left.
 */
uint32_t qa_link_prune(struct qa_tables *tables, uint64_t device, uint64_t inode,
                       const struct qa_cache *cache);

#endif
