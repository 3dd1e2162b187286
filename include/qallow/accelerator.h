/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The accelerator: a cache, in shared memory, of what every file of a directory tree holds and what
 * has changed since, kept by one process and read by any other of the same user.
 *
 * Two halves. A *reader* (qallow_cache_*) maps the cache and asks it, without a lock, a socket or a
 * system call per question; it owns nothing, so it may be killed at any moment, and it works on
 * the cache of a keeper that has died. A *keeper* (qallow_accelerator_*) is what `qallow
 * accelerator` and `qallow-accelerator` run; any program can run one on a thread of its own.
 *
 * An epoch of the cache is a set of changes that became visible together; epochs count upwards.
 * Who has seen epoch N sees every change that had settled before N. The layout of the memory is
 * docs/formats/cache.md.
 */
#ifndef QALLOW_ACCELERATOR_H
#define QALLOW_ACCELERATOR_H

#include <stddef.h>
#include <stdint.h>

#include "qallow/error.h"

#ifdef __cplusplus
extern "C" {
#endif

/* --- reading --- */

enum qallow_hash {
    QALLOW_HASH_XXH3_128 = 1, /* 16 bytes, in the order in which xxhsum -H2 prints them */
    QALLOW_HASH_SHA256 = 2,   /* 32 bytes */
};

enum qallow_file_kind {
    QALLOW_FILE_REGULAR = 1,
    QALLOW_FILE_SYMLINK = 2, /* its hash and bytes are those of its target */
};

enum qallow_file_state {
    QALLOW_FILE_CURRENT = 1,    /* the hash is that of the content, as far as is known */
    QALLOW_FILE_PENDING = 2,    /* it has changed since; the hash is of what it held before */
    QALLOW_FILE_UNREADABLE = 3, /* it is there, but its content cannot be read: hash of zeros */
};

struct qallow_file {
    uint64_t size;    /* bytes */
    int64_t mtime_ns; /* since 1970 */
    uint64_t inode;
    uint64_t epoch;      /* of the last change */
    uint32_t mode;       /* permission bits, as in st_mode & 07777 */
    uint8_t kind;        /* enum qallow_file_kind */
    uint8_t state;       /* enum qallow_file_state */
    uint8_t removed;     /* only from qallow_cache_since(): the path is gone since `epoch` */
    uint8_t has_content; /* qallow_cache_content() has its bytes */
    uint8_t hash[32];    /* hash_bytes of them, see struct qallow_cache_info */
};

/* A cache as one thread reads it. Not to be shared between threads: open one each, it is cheap. */
struct qallow_cache;

/* Opens the cache of `directory` (any path that leads to it) and sets *cache.
 * NO_INPUT: there is no such directory. UNAVAILABLE: nobody has cached it. PERMISSION: the cache
 * belongs to somebody else or is open to others. VERSION: of another format. DAMAGED: what it says
 * of itself cannot be. NO_MEMORY, IO. */
QALLOW_API int qallow_cache_open(const char *directory, struct qallow_cache **cache);
/* The same for the nearest directory at or above `path` that is cached. */
QALLOW_API int qallow_cache_open_above(const char *path, struct qallow_cache **cache);
/* NULL is legal. */
QALLOW_API void qallow_cache_close(struct qallow_cache *cache);

/* The cached directory, absolute and without symbolic links. Valid until the cache is closed. */
QALLOW_API const char *qallow_cache_root(const struct qallow_cache *cache);

/* Looks up `path`, relative to the cached directory, without "./" or "//" (the names as they are on
 * disk, joined by "/"). Some 100 ns; no system call.
 * PAGE_NOT_FOUND: there is no such file in the cache. LIMIT: nor can that be relied on, because the
 * cache is full (see `refused`). STATE: the cache was replaced by another one: open it again.
 * DAMAGED: the memory makes no sense. */
QALLOW_API int qallow_cache_get(struct qallow_cache *cache, const char *path,
                                struct qallow_file *file);
/* And copies up to `capacity` of the file's bytes to `buffer`; file->size says how many there are.
 * Further: UNAVAILABLE if the cache does not hold this file's content. */
QALLOW_API int qallow_cache_content(struct qallow_cache *cache, const char *path, void *buffer,
                                    size_t capacity, struct qallow_file *file);

/* Calls `visit` for each path that has changed after `epoch`: once for each, with its present
 * state, in no particular order. `path` is valid during the call. *now (may be NULL) is the epoch
 * to ask with the next time. A visit that returns non-zero ends it, and that is the result.
 * EPOCH_NOT_FOUND: the journal does not reach back to `epoch`, or it is beyond the newest one; take
 * qallow_cache_each() instead. Some paths may have been visited before that is found out. Further
 * as qallow_cache_get(). */
QALLOW_API int qallow_cache_since(struct qallow_cache *cache, uint64_t epoch,
                                  int (*visit)(void *context, const char *path,
                                               const struct qallow_file *file),
                                  void *context, uint64_t *now);
/* Calls `visit` for every path. Paths that come or go meanwhile may be visited or not. *now is an
 * epoch all of whose changes were seen. Results as above. */
QALLOW_API int qallow_cache_each(struct qallow_cache *cache,
                                 int (*visit)(void *context, const char *path,
                                              const struct qallow_file *file),
                                 void *context, uint64_t *now);

/* The newest epoch; no system call. */
QALLOW_API uint64_t qallow_cache_epoch(const struct qallow_cache *cache);
/* Waits until the newest epoch is greater than `epoch` and sets *now (may be NULL) to it. Spins for
 * `spin_ns`, then sleeps. timeout_ns < 0: without limit.
 * BUSY: the time is over. UNAVAILABLE: the keeper has gone. STATE: the cache was replaced.
 * INTERRUPTED: by a signal. */
QALLOW_API int qallow_cache_wait(struct qallow_cache *cache, uint64_t epoch, int64_t timeout_ns,
                                 uint64_t spin_ns, uint64_t *now);

enum qallow_keeper_state {
    QALLOW_KEEPER_STARTING = 1, /* the first scan is not over: paths may be missing or pending */
    QALLOW_KEEPER_WATCHING = 2,
    QALLOW_KEEPER_RESCANNING = 3, /* events were lost: what is current may be out of date */
    QALLOW_KEEPER_GONE = 4,       /* ended or died; the cache is as it left it */
};

struct qallow_cache_info {
    uint32_t size;  /* of this struct */
    uint32_t state; /* enum qallow_keeper_state */
    int32_t keeper; /* its process id, also when it is gone */
    uint32_t hash;  /* enum qallow_hash */
    uint32_t hash_bytes;
    uint32_t reserved32;
    uint64_t epoch, oldest_epoch;  /* qallow_cache_since() answers from oldest_epoch on */
    uint64_t files, bytes;         /* cached paths, and the sum of their sizes */
    uint64_t refused;              /* paths that did not fit */
    uint64_t memory, memory_limit; /* bytes of shared memory: used by now, and at most */
    uint64_t hits, misses;         /* of all readers, ever */
    int64_t updated_ns;            /* when the newest epoch appeared, since 1970 */
    uint64_t reserved[8];
};
#define QALLOW_CACHE_INFO_INIT                                                                     \
    {                                                                                              \
        sizeof(struct qallow_cache_info), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, { 0 }       \
    }
/* IO if it cannot be found out whether the keeper lives; STATE. */
QALLOW_API int qallow_cache_info(struct qallow_cache *cache, struct qallow_cache_info *info);

#ifdef __cplusplus
}
#endif
#endif
