/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From looks to the cache: what is known of up to 64 paths is fetched under the read lock, then
 * they are looked at without any lock, then what was found is put under the write lock. So the
 * locks are taken twice for 64 files and held for some microseconds.
 *
 * In an update this is also where it shows that something else has to be looked at: everything
 * below a name that is no directory any more, a directory of which nothing is cached yet, the other
 * names of a file that was written.
 */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "accelerator/indexer_internal.h"
#include "accelerator/watcher.h"
#include "runtime/error.h"
#include "runtime/os.h"

static const uint64_t young_ns = QA_RACY_NS + 5000000; /* and a bit, for a clock that is late */

/* --- lists of paths --- */

int qa_paths_add(struct qa_paths *paths, uint8_t what, const char *path)
{
    size_t size = strlen(path) + 1, need = paths->length + 1 + size;
    if (need > paths->capacity) {
        char *grown = qr_realloc(paths->bytes, 2 * need);
        if (!grown)
            return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a list of paths");
        paths->bytes = grown;
        paths->capacity = 2 * need;
    }
    paths->bytes[paths->length] = (char)what;
    memcpy(paths->bytes + paths->length + 1, path, size);
    paths->length = need;
    paths->count++;
    return 0;
}

const char *qa_paths_next(const struct qa_paths *paths, const char *after)
{
    const char *next = after ? after + strlen(after) + 2 : paths->bytes + 1;
    return paths->count && next < paths->bytes + paths->length ? next : NULL;
}

void qa_paths_clear(struct qa_paths *paths) { paths->length = paths->count = 0; }

void qa_paths_finish(struct qa_paths *paths)
{
    qr_free(paths->bytes);
    *paths = (struct qa_paths){0};
}

/* --- small things --- */

int qa_compare_paths(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    int x = *a == '/' ? 1 : (unsigned char)*a + 1, y = *b == '/' ? 1 : (unsigned char)*b + 1;
    return (*a ? x : 0) - (*b ? y : 0);
}

static int by_path(const void *key, const void *item)
{
    return qa_compare_paths(key, *(const char *const *)item);
}

int qa_is_requested(const struct qa_indexer *ix, const char *path)
{
    return ix->request_count &&
           bsearch(path, ix->requests, ix->request_count, sizeof *ix->requests, by_path) != NULL;
}

int qa_say(struct qa_worker *worker, uint8_t what, const char *path)
{
    const struct qa_indexer *ix = worker->indexer;
    if (what == QA_SAY_READABLE && ix->said.used == 0)
        return 0;
    if (what == QA_SAY_READABLE &&
        !qa_map_get(&ix->said, qa_path_key(&ix->tables, path, strlen(path))))
        return 0;
    if (what == QA_SAY_UNSTABLE)
        worker->result.unstable++;
    else if (what != QA_SAY_READABLE && what != QA_SAY_GONE)
        worker->result.unreadable++;
    return qa_paths_add(&worker->messages, what, path);
}

void qa_young_add(struct qa_indexer *ix, const char *path)
{
    size_t length = strlen(path), size = length + 1;
    uint64_t key = qa_path_key(&ix->tables, path, length);
    if (qa_map_get(&ix->is_young, key))
        return;
    char *copy = qr_malloc(size);
    /* Without memory it stays young, and is read again when all is looked at. */
    if (!copy || QR_GROW(ix->young, ix->young_count, ix->young_capacity) < 0 ||
        !qa_map_add(&ix->is_young, key, 1)) {
        qr_free(copy);
        return;
    }
    memcpy(copy, path, size);
    ix->young[ix->young_count++] = (struct qa_young){qa_now_ns() + young_ns, copy};
}

static int add_locked(struct qa_indexer *ix, struct qa_paths *paths, uint8_t what, const char *path)
{
    pthread_mutex_lock(&ix->lock);
    int rc = qa_paths_add(paths, what, path);
    pthread_mutex_unlock(&ix->lock);
    return rc;
}

/* --- directories --- */

/* A directory stands where a file was. */
static int replace_file(struct qa_worker *worker, const char *path)
{
    struct qa_indexer *ix = worker->indexer;
    struct qa_file file;
    int rc = 0;
    pthread_rwlock_rdlock(&ix->cache_lock);
    int was = qa_cache_get(ix->options.cache, path, &file);
    pthread_rwlock_unlock(&ix->cache_lock);
    if (!was)
        return 0;
    pthread_rwlock_wrlock(&ix->cache_lock);
    was = qa_cache_remove(ix->options.cache, path);
    pthread_mutex_lock(&ix->tables_lock);
    if (was)
        qa_children_add(&ix->tables, path, qa_directory_length(path, strlen(path)), -1);
    if (was && !ix->alone)
        rc = qa_follow_links(ix, file.device, file.inode, path);
    pthread_mutex_unlock(&ix->tables_lock);
    pthread_rwlock_unlock(&ix->cache_lock);
    worker->result.changed += (uint64_t)was;
    return rc;
}

int qa_found_directory(struct qa_worker *worker, const struct qa_listing *listing, const char *path)
{
    struct qa_indexer *ix = worker->indexer;
    const struct qa_indexer_options *o = &ix->options;
    int is_admitted = !o->only && (!o->admits || o->admits(o->context, path, 1));
    if (ix->whole)
        return is_admitted ? qa_walk_directory(ix, path) : 0;
    int rc = listing ? replace_file(worker, path) : 0;
    if (rc < 0)
        return rc;
    pthread_mutex_lock(&ix->tables_lock);
    uint32_t children = qa_children(&ix->tables, path, strlen(path));
    pthread_mutex_unlock(&ix->tables_lock);
    if (!is_admitted)
        return children ? add_locked(ix, &ix->below, QA_BELOW_GONE, path) : 0;
    /* Met in a listing, it is left alone if it is known: what changes in it is said by itself. */
    int is_new = children == 0 || children == UINT32_MAX || !listing;
    return is_new || qa_is_requested(ix, path) ? add_locked(ix, &ix->directories, 0, path) : 0;
}

/* --- what was found --- */

/* Whether the cache has an entry of this path, before and after. */
struct change {
    uint8_t was, is;
};

static int put(struct qa_worker *worker, struct qa_look *look, struct change *change)
{
    struct qa_cache *cache = worker->indexer->options.cache;
    int rc = qa_cache_put(cache, look->path, &look->file, look->content);
    change->is = rc >= 0;
    if (rc == QALLOW_E_LIMIT)
        worker->result.refused++;
    else if (rc < 0)
        return rc;
    else
        worker->result.changed += (uint64_t)rc;
    return 0;
}

/* It is there, and nobody knows what it holds. */
static int put_pending(struct qa_worker *worker, struct qa_look *look, struct change *change)
{
    struct qa_indexer *ix = worker->indexer;
    if (change->was) {
        qa_cache_pending(ix->options.cache, look->path);
        if (ix->whole)
            qa_cache_see(ix->options.cache, look->path);
        change->is = 1;
        return 0;
    }
    look->file =
        (struct qa_file){.kind = look->type == DT_LNK ? QALLOW_FILE_SYMLINK : QALLOW_FILE_REGULAR,
                         .state = QALLOW_FILE_PENDING,
                         .ctime_ns = QA_RACY};
    return put(worker, look, change);
}

/* Under the lock of the cache. */
static int apply(struct qa_worker *worker, struct qa_look *look, struct change *change)
{
    struct qa_indexer *ix = worker->indexer;
    struct qa_cache *cache = ix->options.cache;
    struct qa_file now;
    /* Another worker may have met the same path. Not in a walk over the whole tree. */
    change->was = ix->whole || look->found == QA_FOUND_SAME
                      ? look->is_known
                      : (uint8_t)qa_cache_get(cache, look->path, &now);
    change->is = change->was;
    switch ((enum qa_found)look->found) {
    case QA_FOUND_SAME:
        if (ix->whole)
            qa_cache_see(cache, look->path);
        return 0;
    case QA_FOUND_FILE:
    case QA_FOUND_UNREADABLE:
        return put(worker, look, change);
    case QA_FOUND_UNSTABLE:
        return put_pending(worker, look, change);
    case QA_FOUND_NOTHING:
    case QA_FOUND_DIRECTORY:
        change->is = 0;
        if (!ix->whole && change->was)
            worker->result.changed += (uint64_t)qa_cache_remove(cache, look->path);
        return 0;
    case QA_FOUND_YOUNG:
    case QA_FOUND_STOPPED:
        return 0;
    }
    return 0;
}

int qa_follow_links(struct qa_indexer *ix, uint64_t device, uint64_t inode, const char *path)
{
    int rc = 0;
    for (const struct qa_link *link = NULL;
         rc == 0 && (link = qa_link_next(&ix->tables, device, inode, link)) != NULL;)
        if (strcmp(link->path, path) != 0)
            rc = qa_paths_add(&ix->again, 0, link->path);
    return rc;
}

static int is_other_file(const struct qa_look *look)
{
    return look->is_known &&
           (look->known.inode != look->file.inode || look->known.device != look->file.device ||
            look->found == QA_FOUND_NOTHING || look->found == QA_FOUND_DIRECTORY);
}

/* A file with several names was written, or has got a new one: the others are looked at, too. */
static int follow_written(struct qa_indexer *ix, const struct qa_look *look, int had)
{
    uint64_t device = look->file.device, inode = look->file.inode;
    int is_new = !look->is_known || is_other_file(look);
    uint32_t names = qa_link_prune(&ix->tables, device, inode, ix->options.cache);
    int rc = qa_follow_links(ix, device, inode, look->path);
    /* One that was its only name when it was seen is in no list. */
    if (rc == 0 && is_new && had && names < look->links)
        rc = qa_map_add(&ix->wanted, inode, 1) ? 0 : QALLOW_E_NO_MEMORY;
    return rc < 0 ? qr_fail(rc, "no memory for names of a file") : 0;
}

/* Keeps the tables. Under both locks. `length` is that of the path's directory. */
static int note(struct qa_indexer *ix, const struct qa_look *look, const struct change *change,
                size_t length)
{
    struct qa_tables *tables = &ix->tables;
    int is_file = look->found == QA_FOUND_FILE || look->found == QA_FOUND_SAME;
    int several = is_file && change->is && look->links > 1;
    int had = several && qa_inode_has(tables, look->file.device, look->file.inode);
    int rc = 0;
    if (change->was != change->is)
        qa_children_add(tables, look->path, length, change->is - change->was);
    if (is_file && change->is)
        qa_inode_add(tables, look->file.device, look->file.inode);
    if (several)
        qa_link_add(tables, look->file.device, look->file.inode, look->path);
    if ((look->found == QA_FOUND_FILE && look->is_young) || look->found == QA_FOUND_YOUNG)
        qa_young_add(ix, look->path);
    if (ix->whole)
        return 0;
    if (several && look->found == QA_FOUND_FILE && !ix->alone)
        rc = follow_written(ix, look, had);
    /* It may have been written through this name before it went. */
    if (rc == 0 && !ix->alone && is_other_file(look) && look->found != QA_FOUND_YOUNG)
        rc = qa_follow_links(ix, look->known.device, look->known.inode, look->path);
    /* Where there is no directory any more nothing can be below. */
    if (rc == 0 && !change->was && look->found != QA_FOUND_DIRECTORY &&
        qa_children(tables, look->path, strlen(look->path)))
        rc = add_locked(ix, &ix->below, QA_BELOW_GONE, look->path);
    return rc;
}

/* In a walk over the whole tree all that is cached counts as new. */
static int note_all(struct qa_indexer *ix, const struct qa_listing *listing,
                    const struct qa_look *looks, struct change *changes, size_t count)
{
    int rc = 0, present = 0;
    pthread_mutex_lock(&ix->tables_lock);
    for (size_t i = 0; i < count && rc == 0; i++) {
        const char *path = looks[i].path;
        if (ix->whole && listing) { /* all in one directory: counted together */
            present += changes[i].is;
            changes[i].was = changes[i].is;
        } else if (ix->whole) {
            changes[i].was = 0;
        }
        rc = note(ix, &looks[i], &changes[i],
                  listing ? listing->length : qa_directory_length(path, strlen(path)));
    }
    if (present)
        qa_children_add(&ix->tables, listing->path, listing->length, present);
    pthread_mutex_unlock(&ix->tables_lock);
    return rc;
}

static int say_found(struct qa_worker *worker, const struct qa_look *look)
{
    switch ((enum qa_found)look->found) {
    case QA_FOUND_NOTHING:
        if (!worker->indexer->whole && qa_say(worker, QA_SAY_GONE, look->path) < 0)
            return QALLOW_E_NO_MEMORY;
        /* fall through */
    case QA_FOUND_SAME:
    case QA_FOUND_FILE:
        return qa_say(worker, QA_SAY_READABLE, look->path);
    case QA_FOUND_UNSTABLE:
        return qa_say(worker, QA_SAY_UNSTABLE, look->path);
    case QA_FOUND_UNREADABLE:
        return qa_say(worker, (uint8_t)look->error, look->path);
    case QA_FOUND_DIRECTORY: /* that is said when it is listed */
    case QA_FOUND_YOUNG:
    case QA_FOUND_STOPPED:
        break;
    }
    return 0;
}

/* Takes what was found into the cache, and lets go of it. */
static int take_in(struct qa_worker *worker, const struct qa_listing *listing,
                   struct qa_look *looks, size_t count)
{
    struct qa_indexer *ix = worker->indexer;
    struct change changes[QA_PART] = {0};
    int rc = 0, writes = !ix->whole;
    for (size_t i = 0; i < count; i++)
        writes |= looks[i].found != QA_FOUND_SAME && looks[i].found != QA_FOUND_NOTHING;
    if (writes)
        pthread_rwlock_wrlock(&ix->cache_lock);
    else
        pthread_rwlock_rdlock(&ix->cache_lock);
    for (size_t i = 0; i < count && rc == 0; i++)
        rc = apply(worker, &looks[i], &changes[i]);
    if (rc == 0)
        rc = note_all(ix, listing, looks, changes, count);
    pthread_rwlock_unlock(&ix->cache_lock);
    for (size_t i = 0; i < count; i++) {
        if (rc == 0 && looks[i].found == QA_FOUND_DIRECTORY)
            rc = qa_found_directory(worker, listing, looks[i].path);
        if (rc == 0)
            rc = say_found(worker, &looks[i]);
        qr_free(looks[i].content);
        looks[i].content = NULL;
    }
    return rc;
}

/* What the cache knows of the paths. */
static void recall(struct qa_indexer *ix, struct qa_look *looks, size_t count)
{
    const struct qa_cache *cache = ix->options.cache;
    pthread_rwlock_rdlock(&ix->cache_lock);
    for (size_t i = 0; i < count; i++) {
        struct qa_look *look = &looks[i];
        look->is_known = (uint8_t)qa_cache_get(cache, look->path, &look->known);
        /* A former keeper had no need of its bytes. Only once: there may be no room for them. */
        if (ix->wants_content && look->is_known && look->known.size <= ix->options.content_max &&
            !qa_cache_has_content(cache, look->path))
            look->known.ctime_ns = QA_RACY;
    }
    pthread_rwlock_unlock(&ix->cache_lock);
}

int qa_look_at(struct qa_worker *worker, int directory_fd, const struct qa_listing *listing,
               size_t count)
{
    enum { HELD_MAX = 4 << 20 }; /* bytes of content that wait to be put */
    struct qa_indexer *ix = worker->indexer;
    struct qa_look *looks = worker->looks;
    size_t done = 0, at = 0;
    uint64_t held = 0;
    int rc = 0;
    recall(ix, looks, count);
    for (; at < count && rc == 0 && !qa_is_stopped(ix->stop); at++) {
        rc = qa_hasher_look(&worker->hasher, directory_fd, &looks[at]);
        worker->result.entries++;
        held += looks[at].content ? looks[at].file.size : 0;
        if (rc == 0 && held > HELD_MAX) {
            rc = take_in(worker, listing, looks + done, at + 1 - done);
            done = at + 1;
            held = 0;
        }
    }
    if (rc == 0 && at > done)
        return take_in(worker, listing, looks + done, at - done);
    for (; done < at; done++)
        qr_free(looks[done].content);
    return rc;
}
