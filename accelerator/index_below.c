/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is cached and no longer there. The cache has no directories, so to find what is below one
 * takes a look at every entry; that is done at most once for an update, for all directories
 * together, and not at all if the tables say that nothing can be missing: the number of cached
 * children of a directory that was listed is compared with those that its listing accounts for.
 * That is exact whatever other workers did meanwhile, because it compares the cache as it is now
 * with one listing. So only what vanishes without a word about each of its files costs a pass: a
 * directory that is moved away, and what happened while events were lost.
 */
#include <stdlib.h>
#include <string.h>

#include "accelerator/indexer_internal.h"
#include "runtime/error.h"
#include "runtime/os.h"

enum { LISTED = QA_BELOW_KEPT + 1, NOTHING };

/* A directory below which something has to be done. */
struct prefix {
    const char *path;
    uint8_t what;       /* enum qa_below, or LISTED */
    const char **names; /* LISTED: what is there, sorted */
    size_t name_count;
};

struct pass {
    struct qa_indexer *indexer;
    struct prefix *prefixes;
    size_t count, capacity;
    struct qa_map index;   /* path -> its place in `prefixes`, plus 1 */
    struct qa_paths found; /* what has to be done: enum qa_below */
    char *path;            /* room to put one together */
    size_t path_capacity;
};

static int no_memory(void)
{
    return qr_fail(QALLOW_E_NO_MEMORY, "no memory to look for what is gone");
}

/* --- which directories --- */

static int add_prefix(struct pass *pass, const struct prefix *prefix)
{
    const struct qa_tables *tables = &pass->indexer->tables;
    uint64_t key = qa_path_key(tables, prefix->path, strlen(prefix->path));
    uint32_t before = qa_map_get(&pass->index, key);
    if (before) { /* what was found out last counts */
        qr_free(pass->prefixes[before - 1].names);
        pass->prefixes[before - 1] = *prefix;
        return 0;
    }
    if (QR_GROW(pass->prefixes, pass->count, pass->capacity) < 0)
        return no_memory();
    pass->prefixes[pass->count++] = *prefix;
    return qa_map_add(&pass->index, key, (int32_t)pass->count) ? 0 : no_memory();
}

static const char *child_path(struct pass *pass, const struct qa_listing *listing, const char *name)
{
    size_t d = listing->length, n = strlen(name);
    if (d + n + 2 > pass->path_capacity) {
        qr_free(pass->path);
        pass->path_capacity = 2 * (d + n + 2);
        pass->path = qr_malloc(pass->path_capacity);
        if (!pass->path) {
            pass->path_capacity = 0;
            return NULL;
        }
    }
    memcpy(pass->path, listing->path, d);
    if (d)
        pass->path[d++] = '/';
    memcpy(pass->path + d, name, n + 1);
    return pass->path;
}

/* Does the listing account for all that is cached directly in its directory? 1, 0, or NO_MEMORY. */
static int is_complete(struct pass *pass, const struct qa_listing *listing)
{
    const struct qa_indexer *ix = pass->indexer;
    uint32_t children = qa_children(&ix->tables, listing->path, listing->length);
    uint32_t present = 0;
    const char *name = listing->names.bytes + 1;
    if (children == 0 || children == UINT32_MAX)
        return children == 0;
    for (size_t i = 0; i < listing->names.count; i++, name += strlen(name) + 2) {
        struct qa_file file;
        const char *path = child_path(pass, listing, name);
        if (!path)
            return no_memory();
        present += (uint32_t)qa_cache_get(ix->options.cache, path, &file);
        present += qa_children(&ix->tables, path, strlen(path)) > 0;
    }
    return present == children;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int add_listing(struct pass *pass, const struct qa_listing *listing)
{
    struct prefix prefix = {.path = listing->path, .what = LISTED};
    const char *name = listing->names.bytes + 1;
    prefix.names = qr_malloc((listing->names.count + 1) * sizeof *prefix.names);
    if (!prefix.names)
        return no_memory();
    for (size_t i = 0; i < listing->names.count; i++, name += strlen(name) + 2)
        prefix.names[prefix.name_count++] = name;
    qsort(prefix.names, prefix.name_count, sizeof *prefix.names, by_name);
    int rc = add_prefix(pass, &prefix);
    if (rc < 0)
        qr_free(prefix.names);
    return rc;
}

static int collect(struct pass *pass)
{
    struct qa_indexer *ix = pass->indexer;
    int rc = 0;
    for (const char *path = NULL; rc == 0 && (path = qa_paths_next(&ix->below, path)) != NULL;) {
        const struct prefix prefix = {.path = path, .what = qa_paths_what(path)};
        rc = add_prefix(pass, &prefix);
    }
    for (const struct qa_listing *listing = ix->listings; listing && rc == 0;
         listing = listing->next) {
        uint64_t key = qa_path_key(&ix->tables, listing->path, listing->length);
        int complete = is_complete(pass, listing);
        uint32_t before = qa_map_get(&pass->index, key);
        if (complete <= 0)
            rc = complete < 0 ? complete : add_listing(pass, listing);
        else if (before) /* it was gone, and is there again */
            pass->prefixes[before - 1].what = NOTHING;
    }
    return rc;
}

/* --- the pass --- */

struct component {
    const char *bytes;
    size_t length;
};

static int by_component(const void *key, const void *item)
{
    const struct component *c = key;
    const char *name = *(const char *const *)item;
    int order = strncmp(c->bytes, name, c->length);
    return order ? order : -(name[c->length] != '\0');
}

static int is_listed(const struct prefix *prefix, const char *name)
{
    const struct component c = {name, strcspn(name, "/")};
    return bsearch(&c, prefix->names, prefix->name_count, sizeof *prefix->names, by_component) !=
           NULL;
}

/* From the root down: what is gone takes everything below with it. */
static int visit(void *context, const char *path)
{
    struct pass *pass = context;
    uint8_t what = NOTHING;
    for (const char *at = path; at && what != QA_BELOW_GONE;) {
        size_t length = at == path ? 0 : (size_t)(at - path) - 1;
        uint64_t key = qa_path_key(&pass->indexer->tables, path, length);
        uint32_t index = qa_map_get(&pass->index, key);
        const struct prefix *prefix = index ? &pass->prefixes[index - 1] : NULL;
        if (prefix && prefix->what == LISTED)
            what = is_listed(prefix, at) ? what : QA_BELOW_GONE;
        else if (prefix && prefix->what < what)
            what = prefix->what;
        at = strchr(at, '/');
        at += at != NULL;
    }
    return what == NOTHING ? 0 : qa_paths_add(&pass->found, what, path);
}

/* --- what comes of it --- */

static int close_entry(struct qa_indexer *ix, const char *path, struct qa_indexed *result)
{
    struct qa_cache *cache = ix->options.cache;
    struct qa_file file;
    if (!qa_cache_get(cache, path, &file))
        return 0;
    if (file.state == QALLOW_FILE_UNREADABLE) {
        if (ix->whole)
            qa_cache_see(cache, path);
        return 0;
    }
    file.state = QALLOW_FILE_UNREADABLE;
    file.ctime_ns = QA_RACY;
    memset(file.hash, 0, sizeof file.hash);
    int rc = qa_cache_put(cache, path, &file, NULL);
    result->changed += rc > 0;
    return rc == QALLOW_E_LIMIT ? 0 : rc < 0 ? rc : 0;
}

static int settle(struct qa_indexer *ix, const char *path, struct qa_indexed *result)
{
    struct qa_cache *cache = ix->options.cache;
    struct qa_file file;
    int rc = 0, change = ix->whole;
    switch ((enum qa_below)qa_paths_what(path)) {
    case QA_BELOW_GONE:
        if (!ix->alone && qa_cache_get(cache, path, &file))
            rc = qa_follow_links(ix, file.device, file.inode, path);
        change = -qa_cache_remove(cache, path);
        result->changed += change != 0;
        break;
    case QA_BELOW_CLOSED:
        rc = close_entry(ix, path, result);
        break;
    case QA_BELOW_KEPT:
        qa_cache_pending(cache, path);
        if (ix->whole)
            qa_cache_see(cache, path);
        break;
    }
    if (change)
        qa_children_add(&ix->tables, path, qa_directory_length(path, strlen(path)), change);
    if (change > 0 && qa_cache_get(cache, path, &file))
        qa_inode_add(&ix->tables, file.device, file.inode);
    return rc;
}

int qa_below_settle(struct qa_indexer *ix, struct qa_indexed *result)
{
    struct pass pass = {.indexer = ix};
    int rc = collect(&pass);
    if (rc == 0 && pass.count)
        rc = qa_cache_below(ix->options.cache, pass.count == 1 ? pass.prefixes[0].path : "", 0,
                            visit, &pass);
    for (const char *path = NULL; rc == 0 && (path = qa_paths_next(&pass.found, path)) != NULL;)
        rc = settle(ix, path, result);
    for (size_t i = 0; i < pass.count; i++)
        qr_free(pass.prefixes[i].names);
    qr_free(pass.prefixes);
    qr_free(pass.path);
    qa_map_finish(&pass.index);
    qa_paths_finish(&pass.found);
    qa_paths_clear(&ix->below);
    qa_listings_finish(ix);
    return rc;
}

/* --- the other names of a file --- */

static int visit_wanted(void *context, const char *path)
{
    struct qa_indexer *ix = context;
    struct qa_file file;
    if (!qa_cache_get(ix->options.cache, path, &file) || !qa_map_get(&ix->wanted, file.inode))
        return 0;
    qa_link_add(&ix->tables, file.device, file.inode, path);
    return qa_paths_add(&ix->again, 0, path);
}

int qa_find_wanted(struct qa_indexer *ix)
{
    int rc = ix->wanted.used ? qa_cache_below(ix->options.cache, "", 0, visit_wanted, ix) : 0;
    qa_map_finish(&ix->wanted);
    return rc;
}
