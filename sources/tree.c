/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tree that is recorded: opening it, and what is remembered between captures: which entries could
 * not be recorded (each is said once), and which page had which inode (so that a rename is found).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "sources/path.h"
#include "sources/tree_internal.h"

/* --- sets of strings: open addressing, at most half full --- */

static size_t string_slot(const struct qs_string_set *set, const char *string)
{
    size_t at = qb_kernels()->hash64(string, strlen(string), 0) & (set->capacity - 1);
    while (set->slots[at] && strcmp(set->slots[at], string) != 0)
        at = (at + 1) & (set->capacity - 1);
    return at;
}

int qs_string_set_has(const struct qs_string_set *set, const char *string)
{
    return set->count && set->slots[string_slot(set, string)] != NULL;
}

static int string_set_grow(struct qs_string_set *set)
{
    struct qs_string_set grown = {.capacity = set->capacity ? 2 * set->capacity : 16};
    grown.slots = qr_calloc(grown.capacity, sizeof *grown.slots);
    if (!grown.slots)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a set of names");
    for (size_t i = 0; i < set->capacity; i++)
        if (set->slots[i]) {
            grown.slots[string_slot(&grown, set->slots[i])] = set->slots[i];
            grown.count++;
        }
    qr_free(set->slots);
    *set = grown;
    return 0;
}

int qs_string_set_add(struct qs_string_set *set, const char *string)
{
    int rc = 2 * (set->count + 1) > set->capacity ? string_set_grow(set) : 0;
    if (rc < 0)
        return rc;
    size_t at = string_slot(set, string), n = strlen(string) + 1;
    if (set->slots[at])
        return 0;
    if (!(set->slots[at] = qr_malloc(n)))
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a set of names");
    memcpy(set->slots[at], string, n);
    set->count++;
    return 1;
}

int qs_string_set_remove(struct qs_string_set *set, const char *string)
{
    size_t at;
    if (!set->count || !set->slots[at = string_slot(set, string)])
        return 0;
    qr_free(set->slots[at]);
    set->slots[at] = NULL;
    set->count--;
    /* Those behind may have been pushed on by the one that went: seat them again. */
    for (at = (at + 1) & (set->capacity - 1); set->slots[at]; at = (at + 1) & (set->capacity - 1)) {
        char *moved = set->slots[at];
        set->slots[at] = NULL;
        set->slots[string_slot(set, moved)] = moved;
    }
    return 1;
}

void qs_string_set_finish(struct qs_string_set *set)
{
    for (size_t i = 0; i < set->capacity; i++)
        qr_free(set->slots[i]);
    qr_free(set->slots);
    *set = (struct qs_string_set){0};
}

int qs_tree_skip(struct qs_tree *tree, const char *path, const char *why)
{
    int rc = why ? qs_string_set_add(&tree->skipped, path)
                 : qs_string_set_remove(&tree->skipped, path);
    if (rc > 0 && tree->on_skipped)
        tree->on_skipped(tree->context, path, why);
    return rc < 0 ? rc : 0;
}

/* --- inodes --- */

static size_t inode_slot(const struct qs_inode_index *index, uint64_t inode)
{
    return (size_t)((inode * UINT64_C(0x9E3779B97F4A7C15)) >> 20) & (index->capacity - 1);
}

static void inode_put(struct qs_inode_index *index, uint64_t inode, uint64_t page)
{
    size_t at = inode_slot(index, inode);
    while (index->slots[at].page) {
        if (index->slots[at].page == page && index->slots[at].inode == inode)
            return;
        at = (at + 1) & (index->capacity - 1);
    }
    index->slots[at].inode = inode;
    index->slots[at].page = page;
    index->count++;
}

int qs_inodes_build(struct qs_tree *tree)
{
    const struct qr_state *state = qr_store_state(tree->store);
    struct qs_inode_index index = {.capacity = 64};
    while (index.capacity < 3 * qr_state_page_count(state))
        index.capacity *= 2;
    index.slots = qr_calloc(index.capacity, sizeof *index.slots);
    if (!index.slots)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the index of inodes");
    for (const struct qr_page *page = qr_state_next_page(state, 0); page;
         page = qr_state_next_page(state, page->id))
        if (page->stat.inode)
            inode_put(&index, page->stat.inode, page->id);
    qr_free(tree->inodes.slots);
    tree->inodes = index;
    return 0;
}

int qs_inodes_add(struct qs_tree *tree, uint64_t inode, uint64_t page)
{
    if (!tree->inodes.slots)
        return 0; /* built when it is first needed */
    if (2 * (tree->inodes.count + 1) > tree->inodes.capacity) {
        int rc = qs_inodes_build(tree); /* drops what is out of date, too */
        if (rc < 0)
            return rc;
    }
    inode_put(&tree->inodes, inode, page);
    return 0;
}

struct qr_page *qs_inodes_next(const struct qs_tree *tree, const struct qr_state *state,
                               uint64_t device, uint64_t inode, size_t *at)
{
    const struct qs_inode_index *index = &tree->inodes;
    size_t first = inode_slot(index, inode);
    for (;;) {
        size_t slot = (first + *at) & (index->capacity - 1);
        if (!index->slots[slot].page)
            return NULL;
        ++*at;
        if (index->slots[slot].inode != inode)
            continue;
        struct qr_page *page = qr_state_find(state, index->slots[slot].page);
        if (page && page->stat.inode == inode && page->stat.device == device)
            return page;
    }
}

/* --- stat --- */

struct qr_stat_cache qs_stat_cache(const struct stat *st, int racy)
{
    struct qr_stat_cache cache = {st->st_dev, st->st_ino, racy ? QS_RACY : qs_ns(st->st_ctim)};
    return cache;
}

int qs_stat_is_racy(const struct stat *st)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return qs_ns(now) - qs_ns(st->st_ctim) < QS_RACY_NS;
}

int qs_stat_same(const struct qr_page *page, const struct stat *st)
{
    return page->stat.inode == st->st_ino && page->stat.device == st->st_dev &&
           page->stat.ctime_ns == qs_ns(st->st_ctim) && page->mtime_ns == qs_ns(st->st_mtim) &&
           page->size == (uint64_t)st->st_size;
}

struct qr_page *qs_root_page(const struct qs_tree *tree, const struct qr_state *state)
{
    const char *name = tree->file_name ? tree->file_name : ".";
    return qr_state_child(state, 0, name, strlen(name));
}

/* --- opening --- */

static int check_patterns(struct qs_tree *tree)
{
    for (size_t i = 0; i < tree->rules.exclude_count; i++) {
        const char *pattern = tree->rules.excludes[i];
        if (strchr(pattern, '\n'))
            return qr_fail(QALLOW_E_ARGUMENT, "the pattern \"%s\" has a line break in it",
                           qr_quotez(pattern));
        int rc = qs_ignore_add(&tree->excludes, pattern);
        if (rc < 0)
            return rc == QALLOW_E_LIMIT ? QALLOW_E_ARGUMENT : rc;
    }
    return 0;
}

static int open_root(struct qs_tree *tree, int is_file)
{
    struct stat st;
    if (stat(tree->path, &st) < 0)
        return qr_fail_errno(errno, "%s", qr_quotez(tree->path));
    if (is_file ? !S_ISREG(st.st_mode) : !S_ISDIR(st.st_mode))
        return qr_fail(QALLOW_E_ARGUMENT, "%s is not a %s", qr_quotez(tree->path),
                       is_file ? "regular file" : "directory");
    char *directory = NULL;
    if (is_file) {
        const char *slash = strrchr(tree->path, '/');
        tree->file_name = qs_path_join("", slash ? slash + 1 : tree->path);
        directory = qs_path_join("", slash ? tree->path : ".");
        if (!tree->file_name || !directory) {
            qr_free(directory);
            return qr_fail(QALLOW_E_NO_MEMORY, "%s", qr_quotez(tree->path));
        }
        if (slash)
            directory[slash - tree->path + (slash == tree->path)] = 0;
    }
    tree->root_fd = open(directory ? directory : tree->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    qr_free(directory);
    if (tree->root_fd < 0)
        return qr_fail_errno(errno, "%s", qr_quotez(tree->path));
    tree->device = st.st_dev;
    return 0;
}

/* Each worker takes a fixed amount at most: less memory means fewer of them. */
static int threads_that_fit(const struct qr_store *store, int wanted)
{
    uint64_t memory = store ? qr_store_max_memory(store) : 0;
    uint64_t fit = memory ? memory / QS_WORKER_MEMORY : 256;
    fit = fit < 1 ? 1 : fit;
    return wanted < 1 ? 1 : (uint64_t)wanted > fit ? (int)fit : wanted;
}

int qs_tree_open(const char *path, struct qr_store *store, const struct qs_tree_options *options,
                 struct qs_tree **out)
{
    struct qs_tree *tree = qr_calloc(1, sizeof *tree);
    if (!tree)
        return qr_fail(QALLOW_E_NO_MEMORY, "%s", qr_quotez(path));
    int rc = 0;
    tree->root_fd = -1;
    tree->store = store;
    tree->threads = threads_that_fit(store, options->threads);
    tree->compress_level = store ? qr_store_compress_level(store) : 0;
    tree->on_skipped = options->skipped;
    tree->context = options->context;
    if (!(tree->path = qs_path_join("", path)))
        rc = qr_fail(QALLOW_E_NO_MEMORY, "%s", qr_quotez(path));
    if (rc == 0)
        rc = qs_rules_copy(&tree->rules, &options->rules);
    if (rc == 0)
        rc = check_patterns(tree);
    if (rc == 0)
        rc = open_root(tree, options->is_file);
    if (rc == 0)
        rc = qs_own_files_set(tree, options->own_files, options->own_file_count);
    if (rc < 0) {
        qs_tree_close(tree);
        tree = NULL;
    }
    *out = tree;
    return rc;
}

void qs_tree_close(struct qs_tree *tree)
{
    if (!tree)
        return;
    if (tree->root_fd >= 0)
        close(tree->root_fd);
    qs_rules_release(tree);
    qs_string_set_finish(&tree->skipped);
    qr_free(tree->inodes.slots);
    qr_free(tree->file_name);
    qr_free(tree->path);
    qr_free(tree);
}

int qs_tree_root_fd(const struct qs_tree *tree) { return tree->root_fd; }
