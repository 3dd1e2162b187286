/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The indexer: makes the cache say what the files of the tree hold, reading only those that may
 * have changed. It decides nothing about when; the keeper does.
 */
#ifndef QA_INDEXER_H
#define QA_INDEXER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "accelerator/cache.h"

struct qa_indexer_options {
    struct qa_cache *cache;
    int root_fd;      /* the directory; stays the caller's */
    const char *only; /* one entry of it, nothing else; NULL: the whole tree */
    int threads;      /* that read files, >= 1 */
    enum qallow_hash hash;
    uint64_t content_max;   /* keep the bytes of files up to this size; 0: of none */
    uint64_t max_file_size; /* larger ones are not cached; 0: all are */
    /* Is this path to be cached? Called from several threads at once. NULL: all are. */
    int (*admits)(void *context, const char *path, int is_directory);
    /* A directory is about to be listed: it must be watched by then. Not during
     * qa_indexer_update_all(). Called on the caller's thread. May be NULL. */
    int (*directory)(void *context, const char *path); /* "" is the root */
    /* A directory is about to be listed, as `fd`: its ignore file can be read. From several threads
     * at once. May be NULL. */
    int (*entering)(void *context, const char *path, int fd);
    /* A file changed while it was read: to be tried again. On the caller's thread. */
    void (*unstable)(void *context, const char *path);
    /* A path that cannot be read, and again with why == NULL when it can be or is gone. Said once
     * for each. On the caller's thread. */
    void (*unreadable)(void *context, const char *path, const char *why);
    /* What was cached under this path is gone, or a directory above it was away for a moment: who
     * compares directories must not take it for known when it is there again. On the caller's
     * thread, not of qa_indexer_update_all(). May be NULL. */
    void (*gone)(void *context, const char *path);
    void *context;
};

struct qa_indexed {
    uint64_t entries; /* looked at */
    uint64_t read_files, read_bytes;
    uint64_t changed;              /* put or removed, as far as readers can see */
    uint64_t unstable, unreadable; /* met this time, whether said or not */
    uint64_t refused;              /* did not fit into the cache */
};

struct qa_indexer;

/* What an entry says that is not simply the file's content:
 * - A file that changes while it is read stays as it was, pending; one that had no entry gets one,
 *   pending, with a size and hash of zeros.
 * - A file that cannot be read is UNREADABLE, with a hash of zeros.
 * - So is what was cached below a directory that may not be looked into any more: it may still be
 *   there, and whoever may look into it should not be told "no such file". If the directory cannot
 *   be listed for a reason that may pass (EIO, no descriptors), it is pending, with its hash.
 * - Directories, FIFOs, sockets and devices have no entry, nor what is on another file system, nor
 *   what is nested deeper than QS_DEPTH_MAX. */

/* ARGUMENT, UNAVAILABLE (a hash that this build has not), NO_MEMORY, IO. */
int qa_indexer_create(const struct qa_indexer_options *options, struct qa_indexer **indexer);
void qa_indexer_destroy(struct qa_indexer *indexer); /* NULL is legal */

/* Looks at these paths, relative to the root ("" or "."), and puts what has changed into the cache;
 * publishing is the caller's. A path that is a directory stands for its direct entries, for what is
 * below those of which nothing is cached yet, and for what vanished from it; one that is gone for
 * everything that was below it. A file that has several names stands for those of them that are
 * cached. A file is not read again if device, inode, size, mode, mtime and ctime are as they were
 * and the ctime was older than two clock ticks when it was read.
 * To be called after a qa_indexer_update_all() that went well; before that it is right but slow.
 * NO_MEMORY; NO_INPUT, PERMISSION, IO (the root cannot be read); what `directory` returns. What was
 * done before stays done. */
int qa_indexer_update(struct qa_indexer *indexer, const char *const *paths, size_t count,
                      struct qa_indexed *result);
/* The same for the whole tree, on all threads. Stops between two files when `*stop` (may be NULL)
 * becomes non-zero; then nothing is removed and the result is INTERRUPTED. */
int qa_indexer_update_all(struct qa_indexer *indexer, const volatile int *stop,
                          struct qa_indexed *result);

/* A file that was read within two ticks of its last change may have changed since without a trace:
 * the cache has it as QA_RACY, and a later keeper would read it again. So it is read again here,
 * when it is old enough. When qa_indexer_work() has something to do: CLOCK_MONOTONIC, ns;
 * UINT64_MAX: nothing. */
uint64_t qa_indexer_deadline(const struct qa_indexer *indexer);
/* Does some of what is due; call it again as long as the deadline is over and nothing else waits.
 * As a rule readers see no difference. As qa_indexer_update(). */
int qa_indexer_work(struct qa_indexer *indexer, struct qa_indexed *result);

/* Calls `visit` for each of these files, for who cannot wait until they are old enough. */
void qa_indexer_each_young(struct qa_indexer *indexer,
                           void (*visit)(void *context, const char *path), void *context);

/* How busy the workers are: nanoseconds that worker i has spent reading and hashing. Returns the
 * number of workers; fills at most `count`. */
size_t qa_indexer_busy_ns(const struct qa_indexer *indexer, uint64_t *busy, size_t count);

#endif
