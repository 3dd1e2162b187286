/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper's side of the cache in shared memory; the readers' side is
 * include/qallow/accelerator.h, the layout accelerator/cache_format.h and docs/formats/cache.md.
 * There is one keeper for a directory and user, as a lock sees to. Not thread-safe, but for
 * qa_cache_get() and qa_cache_pending(), which may run beside each other and beside readers, not
 * beside the rest.
 */
#ifndef QA_CACHE_H
#define QA_CACHE_H

#include <stddef.h>
#include <stdint.h>

#include "qallow/accelerator.h"

/* What the keeper knows of a path: what readers see, and what it needs to tell whether the file is
 * still the same. */
struct qa_file {
    uint64_t device, inode, size;
    int64_t mtime_ns, ctime_ns; /* ctime_ns QA_RACY: read it again whatever it looks like */
    uint32_t mode;
    uint8_t kind, state; /* as in struct qallow_file */
    uint8_t hash[32];
};
#define QA_RACY INT64_MIN /* a ctime that no file has */

struct qa_cache_options {
    const char *root; /* absolute, as realpath() gives it */
    uint64_t root_device, root_inode;
    enum qallow_hash hash;
    uint64_t max_bytes; /* of memory; 0: as much as the file system may give, see cache_segment.c */
    /* Whose epochs they are: the uuid of the log, or NULL if the cache counts for itself. An
     * existing cache of another history is replaced. */
    const uint8_t *history;
    /* One line for the user (a cache was damaged and is made anew; it had to be put elsewhere). */
    void (*notice)(void *context, const char *line);
    void *context;
};

struct qa_cache;

/* Takes the lock and opens the cache of this directory: what a former keeper left if it is sound,
 * of this format, hash and history, else a new one. BUSY: another keeper has it (its pid is in the
 * detail). NO_SPACE: not even an empty cache fits. CANNOT_CREATE, PERMISSION, IO, NO_MEMORY. */
int qa_cache_open(const struct qa_cache_options *options, struct qa_cache **cache);
/* Readers see that the keeper is gone; the cache stays for the next one. NULL is legal. */
void qa_cache_close(struct qa_cache *cache);

/* Removes what other keepers of this user have left for directories that do not exist any more, in
 * the place where this cache is. */
void qa_cache_remove_orphans(const struct qa_cache *cache);

/* The name of everything that belongs to this cache, without suffix: a path whose directory exists.
 * PATH.sock is the keeper's socket. */
const char *qa_cache_path(const struct qa_cache *cache);

/* How full it is, and what readers have looked up so far. */
struct qa_cache_usage {
    uint64_t bytes;                /* sum of the sizes of the cached files */
    uint64_t refused;              /* paths that did not fit */
    uint64_t memory, memory_limit; /* bytes of shared memory: used by now, and at most */
    uint64_t hits, misses;         /* of all readers, ever */
};
void qa_cache_usage(const struct qa_cache *cache, struct qa_cache_usage *usage);

void qa_cache_set_state(struct qa_cache *cache, enum qallow_keeper_state state);
uint64_t qa_cache_epoch(const struct qa_cache *cache); /* the newest published one */
uint64_t qa_cache_count(const struct qa_cache *cache); /* paths */

/* 1 and *file if the path is cached, else 0. */
int qa_cache_get(const struct qa_cache *cache, const char *path, struct qa_file *file);
/* 1 if the bytes of the path are kept. Beside others as qa_cache_get(). */
int qa_cache_has_content(const struct qa_cache *cache, const char *path);
/* Sets what is known of a path. With content != NULL its `file->size` bytes are kept as well, if
 * there is room. If readers can see a difference it belongs to the next epoch and goes into the
 * journal, and the result is 1; else 0. LIMIT: the cache is full; counted in `refused`, and an
 * older entry of the path is removed rather than left to lie. NO_MEMORY. */
int qa_cache_put(struct qa_cache *cache, const char *path, const struct qa_file *file,
                 const void *content);
/* 1 if it was there. */
int qa_cache_remove(struct qa_cache *cache, const char *path);
/* Shows that the path has changed and is not known yet. Nothing if it is not cached. */
void qa_cache_pending(struct qa_cache *cache, const char *path);

/* How much was put and removed since the last epoch that a log has to have seen, too, then or
 * earlier: not that a file has another inode, or that one nobody can read has grown. */
uint64_t qa_cache_pressing(const struct qa_cache *cache);
/* Everything put and removed since the last time becomes epoch `epoch`, which must be greater than
 * the newest; 0: the next one, if there is anything to publish. Wakes the readers. Returns the
 * newest epoch. */
uint64_t qa_cache_publish(struct qa_cache *cache, uint64_t epoch);

/* A walk over the whole tree: begin, then qa_cache_see() each path that is there (put counts as
 * seen), then sweep removes all others. Returns how many. qa_cache_see() may run on several threads
 * beside qa_cache_get(). */
void qa_cache_begin_walk(struct qa_cache *cache);
void qa_cache_see(struct qa_cache *cache, const char *path);
uint64_t qa_cache_sweep(struct qa_cache *cache);
/* Calls visit for each cached path below `directory` ("" is the root), or only directly in it. For
 * directories that have changed as such; looks at every entry there is. visit must not change the
 * cache. Non-zero ends it, and that is the result. */
int qa_cache_below(const struct qa_cache *cache, const char *directory, int direct,
                   int (*visit)(void *context, const char *path), void *context);

/* Numbers of the keeper, shown by --status also when it is dead: index is enum qt_metric's. */
void qa_cache_set_numbers(struct qa_cache *cache, const uint64_t *numbers, size_t count);

#endif
