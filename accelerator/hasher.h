/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One look at one path: is it still as the cache knows it, and if not, what does it hold now?
 * Nothing here waits (FIFOs, leases), follows a symbolic link, or maps a file.
 */
#ifndef QA_HASHER_H
#define QA_HASHER_H

#include "accelerator/content_hash.h"
#include "accelerator/indexer.h"

/* A file whose last change is younger than two ticks of the slowest clock may change again without
 * its time stamps moving. */
#define QA_RACY_NS INT64_C(20000000)

enum qa_found {
    QA_FOUND_SAME,    /* what is known of it holds */
    QA_FOUND_FILE,    /* `file` is to be put */
    QA_FOUND_NOTHING, /* nothing that the cache has an entry for */
    QA_FOUND_DIRECTORY,
    QA_FOUND_UNSTABLE,   /* it changed meanwhile, or cannot be read just now: try again */
    QA_FOUND_UNREADABLE, /* `file` is to be put and says so; `error` says why */
    QA_FOUND_YOUNG,      /* not read, see struct qa_hasher */
    QA_FOUND_STOPPED,
};

struct qa_look {
    const char *path; /* relative to the root */
    const char *name; /* relative to the directory that it is looked up in */
    uint8_t type;     /* DT_*, as far as it is known */
    uint8_t is_known;
    struct qa_file known; /* what the cache says */
    /* found: */
    uint8_t found; /* enum qa_found */
    int error;
    uint32_t links;   /* st_nlink */
    uint8_t is_young; /* `file` is too young to be sure of, and will be old enough soon */
    struct qa_file file;
    void *content; /* file.size bytes, from qr_malloc, the caller's; or NULL */
};

/* What one thread takes. */
struct qa_hasher {
    const struct qa_indexer_options *options;
    const volatile int *stop; /* or NULL */
    int only_old;             /* a file that is too young to be sure of is not read: YOUNG */
    /* Called before a file is read that takes longer than waking another thread; or NULL. */
    void (*on_large)(void *context);
    void *context;
    struct qa_content_hash *hash;
    uint8_t *buffer;
    int touches_atime; /* O_NOATIME was refused */
    uint64_t read_files, read_bytes;
};
/* As qa_content_hash_create(). */
int qa_hasher_init(struct qa_hasher *hasher, const struct qa_indexer_options *options);
void qa_hasher_finish(struct qa_hasher *hasher);
/* Fills what was found. 0, or NO_MEMORY. */
int qa_hasher_look(struct qa_hasher *hasher, int directory_fd, struct qa_look *look);

/* What becomes of a path where the system says this: NOTHING, UNSTABLE or UNREADABLE. */
enum qa_found qa_found_after(int error);
int qa_is_stopped(const volatile int *stop);

#endif
