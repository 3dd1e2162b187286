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

/* Opens the cache of `directory` (any path that leads to it; or the file that is kept alone) and
 * sets *cache.
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
 * as qallow_cache_get(). `visit` may look paths up in the same cache, but not list it again. */
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
/* IO if it cannot be found out whether the keeper lives; STATE; DAMAGED. */
QALLOW_API int qallow_cache_info(struct qallow_cache *cache, struct qallow_cache_info *info);

/* --- keeping --- */

enum qallow_watch {
    QALLOW_WATCH_AUTO = 0,    /* events of the kernel; what gives none is compared at intervals */
    QALLOW_WATCH_POLL = 1,    /* everything is compared at intervals */
    QALLOW_WATCH_NO_POLL = 2, /* events only, whatever they miss */
    QALLOW_WATCH_NONE = 3,    /* at the start, at each sweep, and when somebody asks */
};

/* Something the keeper has done: an epoch, or the end of the first look at the tree. */
struct qallow_accelerator_event {
    uint64_t epoch;        /* the newest */
    uint32_t committed;    /* this is a new epoch */
    uint32_t ready;        /* the first look is over: from now on changes are watched for */
    int64_t time_ns;       /* of the epoch, since 1970 */
    uint64_t waited_ns;    /* from the first change in it until it was there; 0 when ready */
    uint64_t entries;      /* paths looked at */
    uint64_t read_files, read_bytes;
    uint64_t skipped;      /* paths that cannot be kept */
    uint64_t created, changed, renamed, removed, attributes; /* pages of the log; 0 without one */
    uint64_t cached;       /* paths that changed in the cache */
};

/* Times are in nanoseconds. One of more than 292 years (INT64_MAX), like UINT64_MAX, is for ever:
 * what would happen after it never happens by itself. */
struct qallow_accelerator_options {
    uint32_t size;               /* of this struct, for qallow_accelerator_defaults() */
    uint32_t is_file;            /* `path` is one file, not a directory */
    const char *path;            /* what is kept */
    const char *log;             /* FILE.tlog to record into; NULL: none, the cache alone */
    uint32_t no_cache;           /* only the log */
    uint32_t once;               /* look once, then end */
    int32_t threads;             /* that read files; 0: one for each processor, at most 8 */
    uint32_t watch;              /* enum qallow_watch */
    uint64_t settle_ns;          /* an epoch is made when nothing has changed for this long */
    uint64_t max_settle_ns;      /* in a tree that never rests a change waits at most this long */
    uint64_t sweep_ns;           /* look at every file this often; 0: never */
    /* what is kept: docs/trees.md */
    const char *const *excludes; /* patterns as in .gitignore */
    uint32_t exclude_count;
    uint32_t include_git;        /* .git directories too */
    uint32_t no_ignore_files;    /* do not read .qallowignore */
    uint32_t hash;               /* enum qallow_hash */
    uint64_t max_file_size;      /* larger files are left out; 0: none */
    /* the cache */
    uint64_t content_max;        /* it has the bytes of files up to this size; 0: of none */
    uint64_t cache_bytes;        /* most memory for it; 0: what the file system has */
    /* the log: as in struct qallow_options */
    uint32_t sync, sync_interval_ms;
    int32_t compress_level;
    uint32_t logical_clock;
    const uint8_t *uuid;
    uint64_t max_memory;
    int64_t keep_time_ns;        /* drop older epochs now and then; 0: never; not < 0 */
    uint64_t keep_bytes;         /* drop the oldest when the log is larger; 0: never */
    const char *label;           /* for the first epoch, or NULL */
    /* what else it does */
    const char *command;         /* for `sh -c` after each epoch, or NULL */
    const char *telemetry;       /* CSV file to append metrics to, or NULL */
    const char *prometheus;      /* file to be replaced by the present metrics, or NULL */
    uint64_t telemetry_interval_ns; /* between rows; not 0 */
    /* Called on the keeper's thread; they must not wait. Any may be NULL. */
    void (*event)(void *context, const struct qallow_accelerator_event *event);
    void (*notice)(void *context, const char *line); /* about something done or impossible */
    void (*skipped)(void *context, const char *path, const char *why); /* why NULL: no longer */
    void *context;
    uint64_t reserved[8];
};

/* Fills in the defaults: watching, settle 100 ms, max settle 2 s, XXH3-128, no log, compression 1.
 * `size` is sizeof *options. */
QALLOW_API void qallow_accelerator_defaults(struct qallow_accelerator_options *options,
                                            uint32_t size);

struct qallow_accelerator;

/* Starts a keeper on a thread of its own, which has all signals blocked, and returns. What fails
 * afterwards (the directory is missing, the log is locked) ends the keeper: see
 * qallow_accelerator_finish(). The options are copied, not what they point to, which must live
 * until then. ARGUMENT (an option is out of range, or two contradict each other), NO_MEMORY, IO (no
 * thread). */
QALLOW_API int qallow_accelerator_start(const struct qallow_accelerator_options *options,
                                        struct qallow_accelerator **accelerator);
/* Asks it to take in what has changed and end. Any thread, also from a signal handler. */
QALLOW_API void qallow_accelerator_stop(struct qallow_accelerator *accelerator);
/* Asks it to read the ignore files again and to look at the whole tree. As above. */
QALLOW_API void qallow_accelerator_reload(struct qallow_accelerator *accelerator);
/* A file descriptor that becomes readable when the keeper has ended. Do not read from it. */
QALLOW_API int qallow_accelerator_fd(const struct qallow_accelerator *accelerator);
/* Waits until it has ended and frees it. The result is that of the keeping: 0 if it was asked to
 * end or `once` is done. NO_INPUT: the directory is not there, was deleted, moved away or
 * unmounted. BUSY: another process keeps this directory or writes this log; or files change faster
 * than they can be read. UNAVAILABLE, LIMIT: the machine lacks something, as the detail says.
 * NO_SPACE, IO, PERMISSION, DAMAGED, VERSION, ... as qallow_open(). NULL is legal. */
QALLOW_API int qallow_accelerator_finish(struct qallow_accelerator *accelerator);

#ifdef __cplusplus
}
#endif
#endif
