/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What has to change so that the recorded part of a directory becomes the state of an epoch.
 *
 * Four trees are walked at once: the state that is wanted, the newest epoch (what can be had back,
 * and what is known of inodes), the epoch that was the newest before the present state was saved,
 * and the disk. Only names that were recorded before that are ever deleted; others are kept, and
 * said, or, where the wanted state needs that very name, stand in the way. A file is compared by
 * what the newest epoch knows of its inode, and byte by byte where that says nothing.
 *
 * A dry run plans without a save, so that the newest epoch is also the one before. Both come to the
 * same plan, since what a save adds to the newest epoch is never deleted.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sources/in_place.h"
#include "sources/path.h"
#include "sources/tree_internal.h"

/* One name in a directory, as the trees have it. */
struct name {
    const struct qr_page *wanted, *known, *before;
    const char *text;
};

static int no_memory(void) { return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the restore"); }

static int plan_directory(struct qs_in_place *plan, const struct name *self, const char *path,
                          int fd, int depth);

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
    if (QR_GROW(plan->items, plan->count, plan->capacity) < 0)
        return QALLOW_E_NO_MEMORY;
    char *copy = qs_path_join("", path);
    if (!copy)
        return no_memory();
    plan->items[plan->count++] = (struct qs_planned){kind, copy, wanted, present,
                                                     changed_since != 0, blocked != 0};
    return 0;
}

static int add_directory(struct qs_in_place *plan, const struct qr_page *page, const char *path)
{
    if (QR_GROW(plan->directories, plan->directory_count, plan->directory_capacity) < 0)
        return QALLOW_E_NO_MEMORY;
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
    return a->id == b->id && a->size == b->size && qb_u128_equal(a->content_sum, b->content_sum);
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

/* The entry `text` of a directory, as each of the trees has it. */
static struct name name_in(const struct qs_in_place *plan, const struct name *directory,
                           const char *text)
{
    const struct qr_state *states[] = {plan->state, plan->newest, plan->before};
    const struct qr_page *const in[] = {directory->wanted, directory->known, directory->before};
    const struct qr_page *found[3] = {NULL};
    for (int i = 0; i < 3; i++)
        if (in[i] && in[i]->kind == QR_KIND_DIRECTORY)
            found[i] = qr_state_child(states[i], in[i]->id, text, strlen(text));
    return (struct name){found[0], found[1], found[2], text};
}

/* Was there such an entry, of this kind, before and at the save? */
static int was_recorded(const struct name *name, uint8_t kind)
{
    return name->known && name->before && name->known->kind == kind && name->before->kind == kind;
}

/* Was everything in a directory recorded before? 1, 0, or an error. */
static int all_known(struct qs_in_place *plan, const struct name *self, int fd, int depth)
{
    struct qs_names names = {0};
    int rc = qs_names_read(&names, fd) ? 0 : 1;
    const char *text = names.bytes + 1;
    for (size_t i = 0; rc > 0 && i < names.count; i++, text += strlen(text) + 2) {
        struct stat st;
        struct name name = name_in(plan, self, text);
        if (fstatat(fd, text, &st, AT_SYMLINK_NOFOLLOW) < 0 || !was_recorded(&name, kind_of(&st)))
            rc = 0;
        else if (name.known->kind == QR_KIND_DIRECTORY) {
            int below = openat(fd, text, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            rc = below >= 0 && depth < QS_DEPTH_MAX ? all_known(plan, &name, below, depth + 1) : 0;
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
        blocked = below < 0 || !was_recorded(name, present) ||
                  all_known(plan, name, below, depth) <= 0;
    }
    if (rc == 0)
        rc = add(plan, QS_OVERWRITE, path, name->wanted, present, unrecorded, blocked);
    struct name gone = {NULL, name->known, name->before, name->text};
    if (rc == 0 && below >= 0 && !blocked) /* its entries go first */
        rc = plan_directory(plan, &gone, path, below, depth + 1);
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
            return qs_restore_failed(errno, path);
        if (attributes_differ(wanted, st))
            rc = add(plan, QS_ATTRIBUTES, path, wanted, wanted->kind, 0, 0);
        if (rc == 0)
            rc = plan_directory(plan, name, path, below, depth + 1);
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

/* On the disk, not wanted, and not recorded before: not ours to delete. What no rule leaves out is
 * said: somebody may think that it belongs to what goes. */
static int plan_keep(struct qs_in_place *plan, const char *path, const struct stat *st)
{
    uint8_t present = kind_of(st);
    plan->kept++;
    return present != QR_KIND_RAW &&
                   qs_rules_admit(plan->tree, path, present == QR_KIND_DIRECTORY, st)
               ? add(plan, QS_KEEP, path, NULL, present, 0, 0)
               : 0;
}

/* On the disk and not wanted. */
static int plan_delete(struct qs_in_place *plan, const struct name *name, const char *path, int fd,
                       const struct stat *st, int depth)
{
    uint8_t present = kind_of(st);
    uint64_t kept = plan->kept;
    size_t at = plan->count;
    if (!was_recorded(name, present) ||
        !qs_rules_admit(plan->tree, path, present == QR_KIND_DIRECTORY, st))
        return plan_keep(plan, path, st);
    int unrecorded = is_unrecorded(plan, name->known, fd, name->text, st);
    int rc = unrecorded < 0 ? unrecorded
                            : add(plan, QS_DELETE, path, NULL, present, unrecorded, 0);
    if (rc < 0 || present != QR_KIND_DIRECTORY)
        return rc;
    int below = openat(fd, name->text, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (below < 0)
        return qs_restore_failed(errno, path);
    rc = plan_directory(plan, name, path, below, depth + 1);
    close(below);
    if (rc == 0 && plan->kept != kept) { /* something in it stays, and so does the directory */
        qr_free(plan->items[at].path);
        memmove(&plan->items[at], &plan->items[at + 1],
                (--plan->count - at) * sizeof *plan->items);
    }
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
            rc = plan_directory(plan, &(struct name){.wanted = wanted}, path, -1, depth + 1);
    }
out:
    qr_free(path);
    return rc;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(((const struct name *)a)->text, ((const struct name *)b)->text);
}

/* The names that are wanted in a directory, and those that are there. */
static int collect(struct qs_in_place *plan, const struct name *self, const struct qs_names *there,
                   struct name **names, size_t *count)
{
    const struct qr_page *page, *wanted = self->wanted;
    const char *text = there->count ? there->bytes + 1 : NULL;
    size_t n = 0;
    for (page = wanted ? qr_state_first_child(plan->state, wanted->id) : NULL; page;
         page = qr_state_next_sibling(plan->state, page))
        n++;
    if (!(*names = qr_calloc(n + there->count + 1, sizeof **names)))
        return no_memory();
    n = 0;
    for (page = wanted ? qr_state_first_child(plan->state, wanted->id) : NULL; page;
         page = qr_state_next_sibling(plan->state, page))
        (*names)[n] = name_in(plan, self, page->name), (*names)[n++].wanted = page;
    for (size_t i = 0; i < there->count; i++, text += strlen(text) + 2) {
        struct name name = name_in(plan, self, text);
        if (!name.wanted)
            (*names)[n++] = name;
    }
    qsort(*names, n, sizeof **names, by_text);
    *count = n;
    return 0;
}

/* fd < 0: the directory is not there yet. */
static int plan_directory(struct qs_in_place *plan, const struct name *self, const char *path,
                          int fd, int depth)
{
    struct qs_names there = {0};
    struct name *names = NULL;
    size_t count = 0;
    if (depth > QS_DEPTH_MAX)
        return qr_fail(QALLOW_E_LIMIT, "%s: nested deeper than %d directories", qr_quotez(path),
                       QS_DEPTH_MAX);
    int rc = fd < 0 ? 0 : qs_names_read(&there, fd);
    if (rc == -1)
        rc = *path ? qs_restore_failed(errno, path)
                   : qr_fail_errno(errno, "%s", qr_quotez(plan->tree->path));
    if (rc == 0 && fd >= 0) /* a dry run has not captured anything: the rules are not known yet */
        rc = qs_rules_read_directory(plan->tree, path, fd);
    if (rc >= 0)
        rc = collect(plan, self, &there, &names, &count);
    for (size_t i = 0; i < count && rc == 0; i++)
        rc = plan_name(plan, &names[i], path, fd, depth);
    qr_free(names);
    qs_names_finish(&there);
    return rc;
}

int qs_in_place_plan(struct qs_in_place *plan, struct qs_tree *tree, const struct qr_state *state,
                     const struct qr_state *before)
{
    struct stat st;
    *plan = (struct qs_in_place){.tree = tree, .state = state,
                                 .newest = qr_store_state(tree->store)};
    plan->before = before ? before : plan->newest;
    int rc = qs_writer_init(&plan->writer, tree->store);
    if (rc < 0)
        return rc;
    const struct qr_page *wanted = qs_root_page(tree, state);
    const struct qr_page *known = qs_root_page(tree, plan->newest);
    if (!wanted)
        return qr_fail(QALLOW_E_PAGE_NOT_FOUND, "this epoch has no %s",
                       tree->file_name ? qr_quotez(tree->file_name) : "directory tree");
    if (tree->file_name) {
        struct name name = {wanted, known, qs_root_page(tree, plan->before), tree->file_name};
        return plan_name(plan, &name, "", tree->root_fd, 0);
    }
    if (fstat(tree->root_fd, &st) < 0)
        return qr_fail_errno(errno, "%s", qr_quotez(tree->path));
    rc = add_directory(plan, wanted, "");
    if (rc == 0 && attributes_differ(wanted, &st))
        rc = add(plan, QS_ATTRIBUTES, "", wanted, wanted->kind, 0, 0);
    struct name root = {wanted, known, qs_root_page(tree, plan->before), ""};
    return rc < 0 ? rc : plan_directory(plan, &root, "", tree->root_fd, 0);
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

int qs_restore_is_target(const struct qs_tree *target)
{
    struct stat st;
    const struct qr_page *root = qs_root_page(target, qr_store_state(target->store));
    if (!root)
        return qr_fail(QALLOW_E_PAGE_NOT_FOUND, "the log holds no directory tree");
    if (fstat(target->root_fd, &st) < 0)
        return qr_fail_errno(errno, "%s", qr_quotez(target->path));
    return target->file_name || root->stat.inode == 0 ||
           (root->stat.inode == st.st_ino && root->stat.device == st.st_dev);
}

int qs_restore_plan(struct qs_tree *target, const struct qr_state *state,
                    const struct qr_state *before,
                    int (*visit)(void *context, const struct qs_change *change), void *context)
{
    struct qs_in_place plan;
    int rc = qs_in_place_plan(&plan, target, state, before);
    for (size_t i = 0; i < plan.count && rc == 0; i++) {
        struct qs_change change = {plan.items[i].kind,
                                   *plan.items[i].path ? plan.items[i].path : ".",
                                   plan.items[i].changed_since, plan.items[i].blocked};
        rc = visit(context, &change);
    }
    qs_in_place_finish(&plan);
    return rc;
}
