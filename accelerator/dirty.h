/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dirty set: which paths of a tree may have changed since they were last captured, and when
 * they have rested long enough to be captured. Times are CLOCK_MONOTONIC nanoseconds. One thread.
 */
#ifndef QA_DIRTY_H
#define QA_DIRTY_H

#include <stddef.h>
#include <stdint.h>

struct qa_dirty;

/* At most `max_paths` are kept: beyond that files collapse into their directories, and beyond that
 * everything is dirty. NO_MEMORY. */
int qa_dirty_create(size_t max_paths, struct qa_dirty **dirty);
void qa_dirty_destroy(struct qa_dirty *dirty);

enum {
    QA_DIRTY_MOVED = 1, /* half of a rename: both halves must reach the same capture */
};
/* Marks `path` (relative, "." is the root) at `now`. `since` (0: now) is when its change began, for
 * a path that takes over from another one. Never fails: without memory everything gets dirty.
 * Returns when the pending change of the path began. */
uint64_t qa_dirty_mark(struct qa_dirty *dirty, const char *path, uint64_t now, uint64_t since,
                       int flags);
void qa_dirty_mark_everything(struct qa_dirty *dirty, uint64_t now);

/* Calls `hook` for each path that gets dirty and was not so before. NULL: no more. */
void qa_dirty_on_mark(struct qa_dirty *dirty, void (*hook)(void *context, const char *path),
                      void *context);

int qa_dirty_is_empty(const struct qa_dirty *dirty);
/* Paths in the set, not counting "everything". */
size_t qa_dirty_count(const struct qa_dirty *dirty);

struct qa_settle {
    uint64_t quiet_ns; /* the set is taken when nothing was marked for this long */
    uint64_t max_ns;   /* ... or when its oldest change has waited this long */
};
/* When the next qa_dirty_take() has something to give; UINT64_MAX if the set is empty. */
uint64_t qa_dirty_deadline(const struct qa_dirty *dirty, const struct qa_settle *settle);

/* What is to be captured now. */
struct qa_taken {
    int everything;   /* the whole tree; no paths then */
    char **paths;
    size_t count;
    uint64_t since;   /* when the oldest of these changes began */
};
/* Takes what is due at `now`: everything if the tree rests (or `settle` is NULL: whatever is
 * there), else the paths that are quiet, and those that have waited for max_ns. Empty when nothing
 * is due. On failure the set is as before. Finish what was taken with qa_taken_finish(). */
int qa_dirty_take(struct qa_dirty *dirty, const struct qa_settle *settle, uint64_t now,
                  struct qa_taken *taken);
void qa_taken_finish(struct qa_taken *taken);

#endif
