/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What has to change so that the recorded part of a directory becomes the state of an epoch.
 *
 * Three trees are walked at once: the state that is wanted, the newest epoch (what is known to have
 * been recorded), and the disk. Only names that the newest epoch knows are ever deleted or
 * replaced; a name on the disk that it does not know is left alone, or, where the wanted state
 * needs that very name, stands in the way and is said. A file is compared by what the newest epoch
 * knows of its inode, and byte by byte where that says nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sources/in_place.h"
#include "sources/path.h"
#include "sources/tree_internal.h"

/* One name in a directory, as the three trees have it. */
struct name {
    const struct qr_page *wanted, *known;
    const char *text;
};

static int no_memory(void) { return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the restore"); }

static int plan_directory(struct qs_in_place *plan, const struct qr_page *wanted,
                          const struct qr_page *known, const char *path, int fd, int depth);

static uint8_t kind_of(const struct stat *st)
{
    return S_ISREG(st->st_mode)   ? QR_KIND_FILE
           : S_ISDIR(st->st_mode) ? QR_KIND_DIRECTORY
           : S_ISLNK(st->st_mode) ? QR_KIND_SYMLINK
                                  : QR_KIND_RAW; /* something, but nothing that is recorded */
}

static int add(struct qs_in_place *plan, enum qs_change_kind kind, const char *path,
               const struct qr_page *wanted, uint8_t present, int changed_since, int blocked)
{
    if (plan->count == plan->capacity) {
        size_t capacity = plan->capacity ? 2 * plan->capacity : 64;
        void *grown = qr_realloc(plan->items, capacity * sizeof *plan->items);
        if (!grown)
            return no_memory();
        plan->items = grown;
        plan->capacity = capacity;
    }
    char *copy = qs_path_join("", path);
    if (!copy)
        return no_memory();
    plan->items[plan->count++] = (struct qs_planned){kind, copy, wanted, present,
                                                     changed_since != 0, blocked != 0};
    return 0;
}

static int add_directory(struct qs_in_place *plan, const struct qr_page *page, const char *path)
{
    if (plan->directory_count == plan->directory_capacity) {
        size_t capacity = plan->directory_capacity ? 2 * plan->directory_capacity : 64;
        void *grown = qr_realloc(plan->directories, capacity * sizeof *plan->directories);
        if (!grown)
            return no_memory();
        plan->directories = grown;
        plan->directory_capacity = capacity;
    }
    char *copy = qs_path_join("", path);
    if (!copy)
        return no_memory();
    plan->directories[plan->directory_count++] = (struct qs_directory){copy, page};
    return 0;
}

/* Is the symlink's target that of the page? 1, 0, or an error. */
static int same_link(struct qs_in_place *plan, const struct qr_page *page, int fd, const char *name)
{
    struct qr_content content = {0};
    uint8_t *buffer = plan->writer.buffer;
    size_t half = QS_WRITER_BUFFER / 2;
    ssize_t n = readlinkat(fd, name, (char *)buffer, half);
    if (n < 0 || (uint64_t)n != page->size)
        return 0;
    int rc = qr_content_init(&content, page);
    if (rc == 0)
        rc = qr_content_read(plan->writer.reader, &content, 0, buffer + half, (size_t)n);
    qr_content_finish(&content);
    return rc < 0 ? rc : memcmp(buffer, buffer + half, (size_t)n) == 0;
}

/* Is what stands on the disk (of the page's kind) the content of the page? 1, 0, or an error. */
static int same_on_disk(struct qs_in_place *plan, const struct qr_page *page, int fd,
                        const char *name, const struct stat *st)
{
    if ((uint64_t)st->st_size != page->size)
        return 0;
    if (page->kind == QR_KIND_SYMLINK)
        return same_link(plan, page, fd, name);
    int file = openat(fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (file < 0)
        return 0; /* what cannot be read is replaced */
    int rc = qs_same_content(&plan->writer, page, file);
    close(file);
    return rc;
}

/* Do two pages have the same content, as far as that can be told without reading it? */
static int same_pages(const struct qr_page *a, const struct qr_page *b)
{
    return a->id == b->id && a->size == b->size && a->content_sum.lo == b->content_sum.lo &&
           a->content_sum.hi == b->content_sum.hi;
}

/* Has the entry got something that the newest epoch has not? 1, 0, or an error. */
static int is_unrecorded(struct qs_in_place *plan, const struct qr_page *known, int fd,
                         const char *name, const struct stat *st)
{
    if (!known || known->kind != kind_of(st))
        return 1;
    if (known->kind == QR_KIND_DIRECTORY || qs_stat_same(known, st))
        return 0;
    int rc = same_on_disk(plan, known, fd, name, st);
    return rc < 0 ? rc : !rc;
}

/* Is everything in a directory known to the newest epoch? 1, 0, or an error. */
static int all_known(struct qs_in_place *plan, const struct qr_page *known, int fd, int depth)
{
    struct qs_names names = {0};
    int rc = qs_names_read(&names, fd) ? 0 : 1;
    const char *name = names.bytes + 1;
    for (size_t i = 0; rc > 0 && i < names.count; i++, name += strlen(name) + 2) {
        struct stat st;
        const struct qr_page *page = qr_state_child(plan->newest, known->id, name, strlen(name));
        if (!page || fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || page->kind != kind_of(&st))
            rc = 0;
        else if (page->kind == QR_KIND_DIRECTORY) {
            int below = openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            rc = below >= 0 && depth < QS_DEPTH_MAX ? all_known(plan, page, below, depth + 1) : 0;
            if (below >= 0)
                close(below);
        }
    }
    qs_names_finish(&names);
    return rc;
}

/* Something of another kind than what is wanted: goes, if all of it is recorded. */
static int plan_other_kind(struct qs_in_place *plan, const struct name *name, const char *path,
                           int fd, const struct stat *st, int depth)
{
    uint8_t present = kind_of(st);
    int unrecorded = is_unrecorded(plan, name->known, fd, name->text, st);
    int blocked = unrecorded > 0 && present != QR_KIND_FILE && present != QR_KIND_SYMLINK;
    int below = -1, rc = unrecorded < 0 ? unrecorded : 0;
    if (rc == 0 && present == QR_KIND_DIRECTORY) {
        below = openat(fd, name->text, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        blocked = below < 0 || !name->known || name->known->kind != QR_KIND_DIRECTORY ||
                  all_known(plan, name->known, below, depth) <= 0;
    }
    if (rc == 0)
        rc = add(plan, QS_OVERWRITE, path, name->wanted, present, unrecorded, blocked);
    if (rc == 0 && below >= 0 && !blocked) /* its entries go first */
        rc = plan_directory(plan, NULL, name->known, path, below, depth + 1);
    if (below >= 0)
        close(below);
    return rc;
}

static int attributes_differ(const struct qr_page *page, const struct stat *st)
{
    return page->mtime_ns != qs_ns(st->st_mtim) ||
           (page->kind != QR_KIND_SYMLINK && page->mode != (st->st_mode & 07777));
}

/* An entry of the kind that is wanted. */
static int plan_same_kind(struct qs_in_place *plan, const struct name *name, const char *path,
                          int fd, const struct stat *st, int depth)
{
    const struct qr_page *wanted = name->wanted, *known = name->known;
    int rc = 0, same;
    if (wanted->kind == QR_KIND_DIRECTORY) {
        int below = openat(fd, name->text, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (below < 0)
            return qr_fail_errno(errno, "%s", qr_quotez(path));
        if (attributes_differ(wanted, st))
            rc = add(plan, QS_ATTRIBUTES, path, wanted, wanted->kind, 0, 0);
        if (rc == 0)
            rc = plan_directory(plan, wanted,
                                known && known->kind == QR_KIND_DIRECTORY ? known : NULL, path,
                                below, depth + 1);
        close(below);
        return rc;
    }
    if (known && known->id == wanted->id && qs_stat_same(known, st))
        same = same_pages(known, wanted);
    else
        same = same_on_disk(plan, wanted, fd, name->text, st);
    if (same < 0)
        return same;
    if (same)
        return attributes_differ(wanted, st)
                   ? add(plan, QS_ATTRIBUTES, path, wanted, wanted->kind, 0, 0)
                   : 0;
    int unrecorded = is_unrecorded(plan, known, fd, name->text, st);
    return unrecorded < 0 ? unrecorded
                          : add(plan, QS_OVERWRITE, path, wanted, wanted->kind, unrecorded, 0);
}

/* Known to the newest epoch, and not wanted. */
static int plan_delete(struct qs_in_place *plan, const struct name *name, const char *path, int fd,
                       const struct stat *st, int depth)
{
    const struct qr_page *known = name->known;
    if (known->kind != kind_of(st))
        return 0; /* not what was recorded: not ours to delete */
    int unrecorded = is_unrecorded(plan, known, fd, name->text, st);
    int rc = unrecorded < 0 ? unrecorded
                            : add(plan, QS_DELETE, path, NULL, known->kind, unrecorded, 0);
    if (rc < 0 || known->kind != QR_KIND_DIRECTORY)
        return rc;
    int below = openat(fd, name->text, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (below < 0)
        return qr_fail_errno(errno, "%s", qr_quotez(path));
    rc = plan_directory(plan, NULL, known, path, below, depth + 1);
    close(below);
    return rc;
}

static int plan_name(struct qs_in_place *plan, const struct name *name, const char *directory,
                     int fd, int depth)
{
    struct stat st;
    const struct qr_page *wanted = name->wanted;
    char *path = qs_path_join(directory, name->text);
    int rc = path ? 0 : no_memory();
    int there = fd >= 0 && fstatat(fd, name->text, &st, AT_SYMLINK_NOFOLLOW) == 0;
    if (rc == 0 && wanted)
        rc = qs_page_check(wanted);
    if (rc == 0 && wanted && wanted->kind == QR_KIND_DIRECTORY)
        rc = add_directory(plan, wanted, path);
    if (rc < 0)
        goto out;
    if (!wanted) {
        rc = there ? plan_delete(plan, name, path, fd, &st, depth) : 0;
    } else if (there && kind_of(&st) == wanted->kind) {
        rc = plan_same_kind(plan, name, path, fd, &st, depth);
    } else {
        rc = there ? plan_other_kind(plan, name, path, fd, &st, depth)
                   : add(plan, QS_CREATE, path, wanted, 0, 0, 0);
        if (rc == 0 && wanted->kind == QR_KIND_DIRECTORY)
            rc = plan_directory(plan, wanted, NULL, path, -1, depth + 1);
    }
out:
    qr_free(path);
    return rc;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(((const struct name *)a)->text, ((const struct name *)b)->text);
}

/* fd < 0: the directory is not there yet. */
static int plan_directory(struct qs_in_place *plan, const struct qr_page *wanted,
                          const struct qr_page *known, const char *path, int fd, int depth)
{
    size_t count = 0, n = 0;
    const struct qr_page *page;
    if (depth > QS_DEPTH_MAX)
        return qr_fail(QALLOW_E_LIMIT, "%s: nested deeper than %d directories", qr_quotez(path),
                       QS_DEPTH_MAX);
    for (page = wanted ? qr_state_first_child(plan->state, wanted->id) : NULL; page;
         page = qr_state_next_sibling(plan->state, page))
        count++;
    for (page = known ? qr_state_first_child(plan->newest, known->id) : NULL; page;
         page = qr_state_next_sibling(plan->newest, page))
        count++;
    struct name *names = qr_calloc(count + 1, sizeof *names);
    if (!names)
        return no_memory();
    for (page = wanted ? qr_state_first_child(plan->state, wanted->id) : NULL; page;
         page = qr_state_next_sibling(plan->state, page)) {
        names[n].wanted = page;
        names[n].known = known ? qr_state_child(plan->newest, known->id, page->name,
                                                page->name_length)
                               : NULL;
        names[n++].text = page->name;
    }
    for (page = known ? qr_state_first_child(plan->newest, known->id) : NULL; page;
         page = qr_state_next_sibling(plan->newest, page))
        if (!wanted || !qr_state_child(plan->state, wanted->id, page->name, page->name_length))
            names[n++] = (struct name){NULL, page, page->name};
    qsort(names, n, sizeof *names, by_text);
    int rc = 0;
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = plan_name(plan, &names[i], path, fd, depth);
    qr_free(names);
    return rc;
}

int qs_in_place_plan(struct qs_in_place *plan, struct qs_tree *tree, const struct qr_state *state)
{
    struct stat st;
    *plan = (struct qs_in_place){.tree = tree, .state = state,
                                 .newest = qr_store_state(tree->store)};
    int rc = qs_writer_init(&plan->writer, tree->store);
    if (rc < 0)
        return rc;
    const struct qr_page *wanted = qs_root_page(tree, state);
    const struct qr_page *known = qs_root_page(tree, plan->newest);
    if (!wanted)
        return qr_fail(QALLOW_E_PAGE_NOT_FOUND, "this epoch has no %s",
                       tree->file_name ? qr_quotez(tree->file_name) : "directory tree");
    if (tree->file_name) {
        struct name name = {wanted, known, tree->file_name};
        return plan_name(plan, &name, "", tree->root_fd, 0);
    }
    if (fstat(tree->root_fd, &st) < 0)
        return qr_fail_errno(errno, "%s", qr_quotez(tree->path));
    rc = add_directory(plan, wanted, "");
    if (rc == 0 && attributes_differ(wanted, &st))
        rc = add(plan, QS_ATTRIBUTES, "", wanted, wanted->kind, 0, 0);
    return rc < 0 ? rc : plan_directory(plan, wanted, known, "", tree->root_fd, 0);
}

void qs_in_place_finish(struct qs_in_place *plan)
{
    for (size_t i = 0; i < plan->count; i++)
        qr_free(plan->items[i].path);
    for (size_t i = 0; i < plan->directory_count; i++)
        qr_free(plan->directories[i].path);
    qr_free(plan->items);
    qr_free(plan->directories);
    qs_writer_finish(&plan->writer);
}

int qs_restore_plan(struct qs_tree *target, const struct qr_state *state,
                    int (*visit)(void *context, const struct qs_change *change), void *context)
{
    struct qs_in_place plan;
    int rc = qs_in_place_plan(&plan, target, state);
    for (size_t i = 0; i < plan.count && rc == 0; i++) {
        struct qs_change change = {plan.items[i].kind,
                                   *plan.items[i].path ? plan.items[i].path : ".",
                                   plan.items[i].changed_since || plan.items[i].blocked};
        rc = visit(context, &change);
    }
    qs_in_place_finish(&plan);
    return rc;
}
