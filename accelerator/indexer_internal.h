/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of the indexer share: indexer.c decides what is looked at, index_walk.c hands it
 * out to the workers, index_look.c takes what they find into the cache, index_below.c removes what
 * is gone.
 */
#ifndef QA_INDEXER_INTERNAL_H
#define QA_INDEXER_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "accelerator/hasher.h"
#include "accelerator/index_tables.h"
#include "sources/path.h"

enum { QA_PART = 64 /* looks that are taken into the cache together */ };

/* A list of paths, each with a byte that says what about it. */
struct qa_paths {
    char *bytes;
    size_t length, capacity, count;
};
int qa_paths_add(struct qa_paths *paths, uint8_t what, const char *path);
/* The first (after == NULL) or next path; NULL at the end. */
const char *qa_paths_next(const struct qa_paths *paths, const char *after);
static inline uint8_t qa_paths_what(const char *path) { return (uint8_t)path[-1]; }
void qa_paths_clear(struct qa_paths *paths); /* keeps the memory */
void qa_paths_finish(struct qa_paths *paths);

/* A directory as it was listed. */
struct qa_listing {
    struct qa_listing *next;
    char *path;
    size_t length;
    int fd; /* -1 when all its files have been looked at */
    struct qs_names names;
    int parts; /* being looked at, or waiting for it */
};

/* What is said at the end, on the caller's thread: the `what` of a message. Between them: errno. */
enum {
    QA_SAY_UNSTABLE = 0,
    QA_SAY_GONE = 252,
    QA_SAY_MOUNT = 253,
    QA_SAY_TOO_DEEP = 254,
    QA_SAY_READABLE = 255
};

/* What has to be done about everything that is cached below a directory. */
enum qa_below {
    QA_BELOW_GONE,   /* removed */
    QA_BELOW_CLOSED, /* unreadable: nobody may look into the directory */
    QA_BELOW_KEPT,   /* pending: it could not be looked into just now */
};

struct qa_worker {
    struct qa_indexer *indexer;
    struct qa_hasher hasher;
    struct qa_look looks[QA_PART];
    char *names; /* the paths of the looks */
    size_t names_capacity;
    struct qa_paths messages;
    struct qa_indexed result;
    _Atomic uint64_t busy_ns;
    pthread_t thread;
};

struct qa_item;

/* A file that was read while it was too young to be sure of. */
struct qa_young {
    uint64_t due;
    char *path;
};

struct qa_indexer {
    struct qa_indexer_options options;
    uint64_t device;           /* of the root */
    struct qa_worker *workers; /* 0 is the caller */
    int worker_count, thread_count;

    /* The cache: readers get and see, one writer puts and removes. */
    pthread_rwlock_t cache_lock;
    /* The tables and the lists of young files and of linked ones. Inside of cache_lock. */
    pthread_mutex_t tables_lock;
    struct qa_tables tables;
    struct qa_young *young; /* those from young_first on, in the order of their time */
    size_t young_first, young_count, young_capacity;
    struct qa_map is_young; /* the paths that are in there */

    /* The job: guarded by `lock`. */
    pthread_mutex_t lock;
    pthread_cond_t work; /* for threads outside of the job: there is one */
    pthread_cond_t more; /* for those inside: something to do, or the end */
    struct qa_item *stack;
    int shared, ending; /* other threads may come in; none is to stay */
    uint64_t share_number;
    int inside, busy; /* other threads in the job; all that work on an item */
    int rc;
    char detail[512];
    struct qa_paths directories; /* found, and to be listed when the caller has been told */
    struct qa_paths below;       /* enum qa_below */
    struct qa_listing *listings; /* all of an update */

    /* Set before a job begins. */
    int whole;             /* a walk over the whole tree */
    int alone;             /* other names of the same file are not looked at */
    const char **requests; /* sorted, of an update */
    size_t request_count, request_capacity;
    const volatile int *stop;
    int wants_content; /* until the first whole walk is over */

    /* Guarded by tables_lock: */
    struct qa_paths again; /* other names of files that have changed */
    struct qa_map wanted;  /* inodes whose other names are not known */

    struct qa_map listed; /* directories that this update has listed */
    struct qa_map said;   /* paths that were said to be unreadable */
};

/* --- index_walk.c --- */
int qa_walk_init(struct qa_indexer *indexer);
void qa_walk_finish(struct qa_indexer *indexer);
/* Something to do in the next run. The paths stay the caller's until then. */
int qa_walk_directory(struct qa_indexer *indexer, const char *path);
int qa_walk_paths(struct qa_indexer *indexer, const char *const *paths, size_t count);
/* Lets the other threads in. */
void qa_walk_share(struct qa_indexer *indexer);
/* Does it all. The first failure, or INTERRUPTED. */
int qa_walk_run(struct qa_indexer *indexer);
void qa_listings_finish(struct qa_indexer *indexer);

/* --- index_look.c --- */
/* Looks at `count` of worker->looks, all in the open directory, and takes them into the cache.
 * `listing` is the directory they were found in; NULL if they were named. */
int qa_look_at(struct qa_worker *worker, int directory_fd, const struct qa_listing *listing,
               size_t count);
/* A directory was found (in `listing`, or named): sees to it that it is listed if it has to be. */
int qa_found_directory(struct qa_worker *worker, const struct qa_listing *listing,
                       const char *path);
int qa_say(struct qa_worker *worker, uint8_t what, const char *path);
int qa_is_requested(const struct qa_indexer *indexer, const char *path);
int qa_compare_paths(const char *a, const char *b);
/* The other names that are known of a file are looked at before the update ends. Under
 * tables_lock. */
int qa_follow_links(struct qa_indexer *indexer, uint64_t device, uint64_t inode, const char *path);
/* The path is dealt with when its file is old enough. */
void qa_young_add(struct qa_indexer *indexer, const char *path);

/* --- index_below.c --- */
/* After a walk: what `below` asks for, and (in an update) what is missing from the listings. */
int qa_below_settle(struct qa_indexer *indexer, struct qa_indexed *result);
/* Looks for the cached names of the wanted inodes and adds them to `again`. */
int qa_find_wanted(struct qa_indexer *indexer);

#endif
