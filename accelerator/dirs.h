/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The directories of a watched tree: a tree of nodes found by (parent, name) and by watch
 * descriptor. A path is never stored: it is put together from the names on the way up, so that it
 * cannot go stale. One thread.
 */
#ifndef QA_DIRS_H
#define QA_DIRS_H

#include <stddef.h>
#include <stdint.h>

struct qa_dir {
    struct qa_dir *parent; /* NULL: the root, or a node that was detached */
    struct qa_dir *first_child, *next_sibling, *previous_sibling;
    struct qa_dir *next_in_bucket;
    struct qa_dir *next_queued; /* in the watcher's queue while `queued` */
    uint64_t signature;         /* of its entries, when polled */
    int watch;                  /* watch descriptor, -1: none */
    unsigned queued : 1, deep : 1, polled : 1, detached : 1, seen : 1;
    char name[];
};

struct qa_dirs;

int qa_dirs_create(struct qa_dirs **dirs);
void qa_dirs_destroy(struct qa_dirs *dirs);

struct qa_dir *qa_dirs_root(const struct qa_dirs *dirs);
struct qa_dir *qa_dirs_child(const struct qa_dirs *dirs, const struct qa_dir *parent,
                             const char *name);
/* The child, made if it does not exist. NULL without memory. */
struct qa_dir *qa_dirs_add(struct qa_dirs *dirs, struct qa_dir *parent, const char *name);
/* Takes a node (not the root) and everything below it out of the tree. The nodes live on, marked
 * detached, and are found by their watches, until qa_dirs_free_detached(). */
void qa_dirs_detach(struct qa_dirs *dirs, struct qa_dir *dir);
/* Frees all detached nodes; `released` gets each watch they still had. */
void qa_dirs_free_detached(struct qa_dirs *dirs, void (*released)(void *context, int watch),
                           void *context);
size_t qa_dirs_count(const struct qa_dirs *dirs);
/* The nodes of the tree in depth-first order; start with the root, NULL at the end. */
struct qa_dir *qa_dirs_next(struct qa_dir *dir);

/* What a watch descriptor stands for: *dir, or NULL if it was released. 0: unknown. */
int qa_dirs_find_watch(const struct qa_dirs *dirs, int watch, struct qa_dir **dir);
/* Binds a watch to a node; a node that had it loses it. -1: NO_MEMORY. */
int qa_dirs_bind(struct qa_dirs *dirs, struct qa_dir *dir, int watch);
/* The watch stands for nothing from now on, but is still known: late events for it are expected. */
void qa_dirs_release(struct qa_dirs *dirs, int watch);
/* The kernel has forgotten the watch. */
void qa_dirs_forget(struct qa_dirs *dirs, int watch);
size_t qa_dirs_watches(const struct qa_dirs *dirs); /* bound ones */

/* Writes the path of a node, with "/name" behind it if name is not NULL, relative to the root; the
 * root is "." and its entries have no prefix. The buffer grows as needed: *buffer is qr_malloc'ed
 * memory of *size bytes, or NULL. Returns NULL without memory, else *buffer. */
char *qa_dirs_path(const struct qa_dir *dir, const char *name, char **buffer, size_t *size);

#endif
