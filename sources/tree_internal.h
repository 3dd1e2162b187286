/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of a tree (rules, scan, capture) share. */
#ifndef QS_TREE_INTERNAL_H
#define QS_TREE_INTERNAL_H

#include <stdatomic.h>
#include <sys/stat.h>

#include "runtime/batch.h"
#include "sources/ignore.h"
#include "sources/tree.h"

#define QS_IGNORE_FILE ".qallowignore"
#define QS_TEMPORARY ".qallow-tmp"    /* end of a name */
#define QS_JOURNAL ".qallow-restore"  /* a directory in the root, while a restore is under way */
#define QS_RULES_PAGE "rules"
#define QS_RACY_NS 20000000           /* two ticks of the slowest clock of a file system */
#define QS_RACY INT64_MIN             /* a ctime that no file has: read it again */

/* A set of strings. Zero-initialise. */
struct qs_string_set {
    char **slots;
    size_t count, capacity;
};
int qs_string_set_has(const struct qs_string_set *set, const char *string);
/* 1: added, 0: was there, or NO_MEMORY. */
int qs_string_set_add(struct qs_string_set *set, const char *string);
/* 1: removed. */
int qs_string_set_remove(struct qs_string_set *set, const char *string);
void qs_string_set_finish(struct qs_string_set *set);

/* The ignore file of one directory. */
struct qs_directory_rules {
    char *path; /* of the directory, "" for the root */
    struct qs_ignore ignore;
};

/* A file of Qallow's own. */
struct qs_own_file {
    char *path;      /* absolute, to look at it again */
    char *relative;  /* to the root; NULL if it is not below it */
    dev_t device;
    ino_t inode;     /* 0: does not exist now */
};

/* Where in the state an inode was last seen: several pages may have one (hard links), and entries
 * may be out of date; whoever asks compares with the page. */
struct qs_inode_index {
    struct {
        uint64_t inode, page; /* page 0: free */
    } *slots;
    size_t count, capacity;
};

struct qs_tree {
    struct qr_store *store;
    char *path;               /* as given, for messages */
    int root_fd;              /* the root, or the directory that holds the file */
    char *file_name;          /* of a single file; NULL for a tree */
    dev_t device;
    int threads, compress_level;
    int scanned;              /* all of it has been captured since it was opened */
    struct qs_rules rules;
    atomic_int met_git;       /* a .git directory was left out that --include-git would record */
    struct qs_ignore excludes;
    struct qs_directory_rules *directory_rules; /* sorted by path */
    size_t directory_rules_count;
    struct qs_own_file *own_files;
    size_t own_file_count;
    struct qs_inode_index inodes;
    struct qs_string_set skipped; /* said already */
    void (*on_skipped)(void *context, const char *path, const char *why);
    void *context;
};

/* --- rules.c --- */
int qs_rules_copy(struct qs_rules *to, const struct qs_rules *from);
int qs_own_files_set(struct qs_tree *tree, const char *const *paths, size_t count);
void qs_own_files_look(struct qs_tree *tree); /* finds out their inodes */
void qs_rules_release(struct qs_tree *tree);
/* May this entry be recorded, provided that its directory is? `st` may be NULL. */
int qs_rules_admit(struct qs_tree *tree, const char *path, int is_directory, const struct stat *st);
/* Reads the ignore file of a directory anew; fd is the directory. */
int qs_rules_read_directory(struct qs_tree *tree, const char *path, int fd);
void qs_rules_drop_directory(struct qs_tree *tree, const char *path);
/* The rules as the text of the page "rules"; *text from qr_malloc. */
int qs_rules_text(const struct qs_rules *rules, char **text, size_t *length);

/* --- tree.c --- */
/* Says that an entry cannot be recorded (once); why == NULL: it could be. */
int qs_tree_skip(struct qs_tree *tree, const char *path, const char *why);
int qs_inodes_add(struct qs_tree *tree, uint64_t inode, uint64_t page);
int qs_inodes_build(struct qs_tree *tree);
/* The next file or directory page that had this inode, after slot *at (0 at first); NULL: no
 * more. */
struct qr_page *qs_inodes_next(const struct qs_tree *tree, const struct qr_state *state,
                               uint64_t device, uint64_t inode, size_t *at);

/* --- scan*.c: what differs --- */
enum qs_action {
    QS_DO_CREATE,
    QS_DO_CONTENT,    /* and attributes */
    QS_DO_ATTRIBUTES,
    QS_DO_RENAME,
    QS_DO_FREE,
    QS_DO_STAT,       /* nothing in the log, only what is known of the inode */
};
/* The order of changes in an epoch; see scan.c. */
enum qs_pass { QS_PASS_REPLACED, QS_PASS_NAMES, QS_PASS_COPIES, QS_PASS_CONTENT, QS_PASS_REMOVED,
               QS_PASS_DEFERRED, QS_PASS_WEAK, QS_PASS_COUNT };

/* A directory with changes in it. */
struct qs_place {
    uint64_t page; /* 0 until it has been created */
    char *path;
};

enum qs_outcome { QS_PENDING, QS_DONE, QS_UNSTABLE, QS_LEFT_OUT };

struct qs_step {
    uint64_t page;    /* 0: to be created */
    uint64_t base;    /* page whose content is the likely base; 0: itself */
    uint64_t size;
    char *name;       /* QS_DO_CREATE, _CONTENT, _RENAME: in the directory `place` */
    struct qr_stat_cache stat;
    int64_t mtime_ns;
    uint32_t mode, place;
    uint32_t own_place; /* of a directory that is created; 0: none */
    uint8_t action, kind, outcome;
    uint8_t stat_known;
    uint8_t did_content, did_attributes;
    int error;        /* QS_LEFT_OUT: errno */
};
struct qs_steps {
    struct qs_step *items;
    size_t count, capacity;
};

struct qs_scan {
    struct qs_tree *tree;
    const struct qr_state *state;
    const struct qs_scope *scope;
    struct qs_capture *result;
    struct qs_steps passes[QS_PASS_COUNT];
    struct qs_place *places;  /* 0 is not used */
    size_t place_count, place_capacity;
    uint64_t *vanished, *claimed; /* page ids */
    size_t vanished_count, vanished_capacity, claimed_count, claimed_capacity;
    char **claimed_paths;
    uint64_t *touched;        /* ids of pages whose mark has to be cleared */
    size_t touched_count, touched_capacity;
    int only_paths;           /* those of the scope; else everything is looked at */
    struct qs_string_set new_names; /* when only some paths are scanned */
    char *path;               /* of the entry that is looked at; a stack of components */
    size_t path_length, path_capacity;
};
/* Bits of qr_page.mark during a scan. */
enum qs_mark {
    QS_SEEN = 1,     /* its path is there */
    QS_CLAIMED = 2,  /* it goes on under a new path */
    QS_VANISHED = 4, /* its path is gone; unless it is claimed it will be freed */
    QS_FREED = 8,
    QS_QUEUED = 16,  /* its content is looked at in this capture */
};
/* Fills the passes. 0, or an error with all marks cleared. */
int qs_scan_run(struct qs_scan *scan);
void qs_scan_finish(struct qs_scan *scan);

/* --- config.c: the rules in the log --- */
/* Appends a new version of the page "rules" to the batch if it is not what the tree's rules are. */
int qs_config_put(struct qs_tree *tree, struct qr_reader *reader, struct qr_txn *txn,
                  struct qr_batch *batch);

/* --- content.c, stream.c: one change to records --- */
/* What one worker takes: old and new content of a file and the block index of their diff, frames of
 * the log, a batch with what it is compressed into. */
#define QS_WORKER_MEMORY (16u << 20)
#define QS_IN_MEMORY (2u << 20) /* a file up to this size is compared whole */
struct qs_worker {
    struct qs_tree *tree;
    struct qs_scan *scan;
    struct qr_reader *reader;
    uint8_t *old, *new_;
    size_t old_capacity, new_capacity;
    struct qr_edits edits;
    uint64_t read_files, read_bytes;
    const struct qs_string_set *given_up; /* paths not to be tried again in this capture */
};
int qs_worker_init(struct qs_worker *worker, struct qs_scan *scan);
void qs_worker_finish(struct qs_worker *worker);
/* Files above QS_IN_MEMORY bytes are not for this; see qs_step_is_large. */
int qs_step_encode(struct qs_worker *worker, struct qs_step *change, struct qr_batch *batch);
int qs_step_is_large(const struct qs_worker *worker, const struct qs_step *change);
/* A large file, in windows; appends to the transaction as it goes. Returns 1 if the file did not
 * hold still: the transaction must be given up. */
int qs_step_stream(struct qs_worker *worker, struct qs_step *change, struct qr_batch *batch,
                     struct qr_txn *txn);

/* Shared by both: the file that a change is about. */
struct qs_input {
    int fd;
    struct stat before;
    int racy;
};
/* Opens it; on an error of the file sets change->outcome and returns 1. */
int qs_input_open(struct qs_worker *worker, struct qs_step *change, struct qs_input *input);
/* Has it changed since it was opened? */
int qs_input_moved(const struct qs_input *input, struct stat *now);
/* What is known of a page before its change. */
struct qs_before {
    int exists, base_is_own;
    uint64_t base_id; /* as in the record: 0 for the page itself */
    struct qr_content base;
    struct qb_u128 sum;
    uint32_t mode;
    int64_t mtime_ns;
};
int qs_before_get(struct qs_worker *worker, const struct qs_step *change,
                  struct qs_before *before);
void qs_before_finish(struct qs_before *before);
/* The record that creates the page or gives it its attributes, if that is needed. */
int qs_put_head(struct qs_worker *worker, struct qs_step *change,
                const struct qs_before *before, struct qr_batch *batch);

/* Has the tree recorded content identical to this stat? */
int qs_stat_same(const struct qr_page *page, const struct stat *st);
struct qr_stat_cache qs_stat_cache(const struct stat *st, int racy);
int qs_stat_is_racy(const struct stat *st);

/* The root page of the tree in a state; NULL if there is none. */
struct qr_page *qs_root_page(const struct qs_tree *tree, const struct qr_state *state);

#endif
