/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A directory tree as a source of pages (capture) and as a place to put them (restore).
 *
 * The root directory is a page with parent 0 and name "."; everything below it is a page whose
 * parent is its directory. A single file (--file F) is one page with parent 0 and its base name.
 * Hostile names: nothing here ever follows a symlink or leaves the root.
 */
#ifndef QS_TREE_H
#define QS_TREE_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/store.h"

/* --- rules: what is recorded --- */

/* Kept in the log as a page of kind CONFIG named "rules" with parent 0 (text, one rule a line), so
 * that a restore in place knows what was never recorded. */
struct qs_rules {
    int include_git;        /* record .git directories too */
    uint64_t max_file_size; /* larger files are left out (and said); 0: no limit */
    char **excludes;        /* gitignore-style patterns from --exclude, in order */
    size_t exclude_count;
    int no_ignore_file;     /* do not read .qallowignore files */
};
void qs_rules_finish(struct qs_rules *rules);
/* The rules that the newest epoch was recorded with; the defaults if it has none. The caller calls
 * qs_rules_finish. */
int qs_rules_of_log(struct qr_store *store, struct qs_rules *rules);

/* --- capture: make the newest epoch equal to what is on disk --- */

struct qs_tree;

struct qs_tree_options {
    struct qs_rules rules;  /* copied */
    int threads;            /* readers of files; >= 1 */
    int is_file;            /* `path` is a single file */
    /* Absolute paths that are never recorded wherever they appear (log, index, lock, exports). */
    const char *const *own_files;
    size_t own_file_count;
    /* One call per entry that cannot be recorded, and again when it could be; `why` is NULL then.
     * May be NULL. */
    void (*skipped)(void *context, const char *path, const char *why);
    void *context;
};
/* Opens the root. Without a store (NULL) there is nothing to capture into or to restore from: only
 * what is recorded can be asked. NO_INPUT, PERMISSION, ARGUMENT (not a directory / not a file). */
int qs_tree_open(const char *path, struct qr_store *store, const struct qs_tree_options *options,
                 struct qs_tree **tree);
void qs_tree_close(struct qs_tree *tree);
int qs_tree_root_fd(const struct qs_tree *tree);

/* What one capture found and did. */
struct qs_capture {
    uint64_t epoch;            /* the epoch that holds it; unchanged if nothing differed */
    int committed;             /* 1 if a new epoch was made */
    uint64_t entries;          /* looked at (stat) */
    uint64_t read_files, read_bytes;
    uint64_t created, changed, renamed, removed, attributes; /* pages */
    uint64_t skipped;          /* entries that could not be recorded: no access, special, too big */
    uint64_t unstable;         /* files that changed while being read: still to be captured */
};
/*
 * One epoch. `paths` names what may have changed, relative to the root, NUL-terminated, any order,
 * duplicates allowed; a directory stands for itself and its direct entries; with
 * `recursive_dirs` for everything below it. paths == NULL: the whole tree, as always in the first
 * capture of a tree that was opened: until then it is not known which names are links of one file.
 * Rules of trees (docs/trees.md): a path that existed and still exists keeps its page and is
 * diffed; only a vanished path whose inode appears elsewhere is a rename; "unchanged" is (device,
 * inode, size, mtime, ctime) equal and older than two clock ticks; unstable files are left as they
 * were in the last epoch and reported through `unstable_path`.
 * Memory is bounded whatever the size of tree or file. On failure the store is as before.
 */
struct qs_scope {
    const char *const *paths;
    size_t path_count;
    int recursive_dirs;
    void (*unstable_path)(void *context, const char *path);
    /* A directory that was found and did not exist before, so that the caller can watch it. Called
     * before the directory is listed. */
    void (*new_directory)(void *context, const char *path, int directory_fd);
    void *context;
};
int qs_capture(struct qs_tree *tree, const struct qs_scope *scope, struct qs_capture *result);
/* Did it fail because the changes found do not fit together? Then names moved during each of
 * several scans, and a later capture may succeed; or there is a mistake in the scan. */
int qs_capture_is_torn(int rc);

/* --- the decision whether a path is recorded; the watcher asks the same question --- */
int qs_is_recorded(struct qs_tree *tree, const char *path, int is_directory);
/* Was a .git directory met, and left out for no other reason than its name? Any thread. */
int qs_tree_met_git(const struct qs_tree *tree);
/* For who lists directories without capturing them: the rules of the directory `path` ("" is the
 * root), open as `fd`, from its .qallowignore. Not beside other calls with this tree, unless
 * qs_rules_are_known() says that there is nothing to do, which may run beside qs_is_recorded(). */
int qs_rules_enter(struct qs_tree *tree, const char *path, int fd);
int qs_rules_are_known(const struct qs_tree *tree, int fd);
/* Reads the .qallowignore files again. */
int qs_rules_reload(struct qs_tree *tree);

/* --- restore --- */

struct qs_restore_options {
    int threads;
    int force;              /* a non-empty target is replaced (moved away only after success) */
    uint64_t max_memory;    /* bytes for buffers, bounds the threads that run; 0: no bound */
    const char *only;       /* restore only this path and what is below it; NULL: all */
    /* progress: bytes done of total; may be NULL */
    void (*progress)(void *context, uint64_t done, uint64_t total);
    void *context;
    struct qb_u128 digest;  /* recorded digest of the state; checked when `only` is NULL */
    /* In place only. The newest epoch before the present state was saved: only names that it has
     * are deleted. NULL: the newest. */
    const struct qr_state *before;
    /* In place only: what is kept because it was not recorded before. May be NULL. */
    void (*kept)(void *context, const char *path);
};
struct qs_restore_result {
    uint64_t files, directories, symlinks, bytes;
};
/* Writes `state` to the directory `target`: builds TARGET.qallow-tmp, verifies the digest of what
 * was written, one syncfs, then renames. The target must not exist or be empty unless force.
 * On failure the former target is untouched and the temporary tree is removed. */
int qs_restore(struct qr_store *store, const struct qr_state *state, const char *target,
               const struct qs_restore_options *options, struct qs_restore_result *result);

/* In place: what has to change so that the recorded part of `target` becomes `state`. */
enum qs_change_kind {
    QS_CREATE,
    QS_OVERWRITE,
    QS_DELETE,
    QS_ATTRIBUTES,
    QS_KEEP, /* no change: it is not in the epoch, but was not recorded before either */
};
struct qs_change {
    enum qs_change_kind kind;
    const char *path;
    int changed_since; /* the file differs from the newest epoch: somebody changed it unrecorded */
    int blocked; /* the restore will refuse: it holds what was never recorded, and is in the way */
};
/* Is the target the directory that the newest epoch was recorded from? 1, also if that is not
 * known; 0; or an error. */
int qs_restore_is_target(const struct qs_tree *target);
/* dry run: calls visit for each change in path order. `before`: as in the options. */
int qs_restore_plan(struct qs_tree *target, const struct qr_state *state,
                    const struct qr_state *before,
                    int (*visit)(void *context, const struct qs_change *change), void *context);
/* Does it: the present state has been saved as an epoch by the caller; each file is replaced
 * atomically; a journal (TARGET/.qallow-restore) makes an interrupted one resumable (run again) or
 * undoable. Names that were not recorded before are never deleted. */
int qs_restore_in_place(struct qs_tree *target, const struct qr_state *state, uint64_t epoch,
                        const struct qs_restore_options *options,
                        struct qs_restore_result *result);
/* What the journal of an interrupted restore says. */
struct qs_pending {
    uint64_t to;     /* epoch it was going to */
    uint64_t saved;  /* epoch that holds what was there */
    uint64_t before; /* newest epoch before that one was made */
};
/* 1 if there is a journal, 0 if not, or an error. */
int qs_restore_pending(const char *target, struct qs_pending *pending);

#endif
