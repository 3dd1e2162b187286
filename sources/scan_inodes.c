/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages by their inodes: where a new name came from, where a page has gone, and which other names
 * its file has.
 *
 * A capture of named paths has to think of names that nobody named. A file with several names that
 * is written through one of them has changed under all of them, and the name that was written
 * through may be gone by now, or stand for another file. So, whenever a page with a recorded inode
 * is changed, given another inode, or freed, the other pages with that inode are looked at, too.
 */
#include "sources/scan.h"

#include <errno.h>
#include <string.h>

#include "sources/path.h"

/* Where a page is now, given the renames found so far. From qr_malloc; NULL without memory. */
static char *path_now(struct qs_scan *scan, const struct qr_page *page)
{
    if (page->parent == 0)
        return qs_path_join("", "");
    if (page->mark & QS_CLAIMED)
        for (size_t i = 0; i < scan->claimed_count; i++)
            if (scan->claimed[i] == page->id)
                return qs_path_join("", scan->claimed_paths[i]);
    char *directory = path_now(scan, qr_state_find(scan->state, page->parent));
    char *path = directory ? qs_path_join(directory, page->name) : NULL;
    qr_free(directory);
    return path;
}

/* Is the path of this page gone? 1; 0: it is there; 2: its name is another kind of thing now, so
 * the page will end, before anything can be made of it. */
static int is_gone(struct qs_scan *scan, const struct qr_page *page)
{
    struct stat st;
    if (page->parent == 0 || page->mark & (QS_SEEN | QS_CLAIMED | QS_FREED))
        return 0;
    char *path = path_now(scan, page);
    if (!path)
        return qs_scan_no_memory();
    int rc = qs_stat_beneath(scan->tree->root_fd, path, &st);
    int gone = 0;
    if (rc < 0)
        gone = errno == ENOENT || errno == ENOTDIR || errno == ELOOP;
    else if (page->kind != qs_kind_of(&st))
        gone = page->kind == QR_KIND_DIRECTORY ? 1 : 2;
    qr_free(path);
    return gone;
}

int qs_scan_origin(struct qs_scan *scan, const struct stat *st, struct qr_page **renamed,
                   struct qr_page **copied)
{
    size_t at = 0;
    struct qr_page *page;
    *renamed = *copied = NULL;
    int rc = scan->tree->inodes.slots ? 0 : qs_inodes_build(scan->tree);
    while (rc == 0 && !*renamed &&
           (page = qs_inodes_next(scan->tree, scan->state, st->st_dev, st->st_ino, &at))) {
        if (page->kind != qs_kind_of(st))
            continue;
        rc = is_gone(scan, page);
        if (rc == 1)
            *renamed = page;
        else if (rc == 0 && page->kind == QR_KIND_FILE && !(page->mark & QS_FREED))
            *copied = page;
        rc = rc < 0 ? rc : 0;
    }
    return rc;
}

/* Has this scan found out something about a page below? One that was claimed is elsewhere, with all
 * that is below it. */
static int was_met_below(const struct qs_scan *scan, const struct qr_page *page)
{
    for (const struct qr_page *child = qr_state_first_child(scan->state, page->id); child;
         child = qr_state_next_sibling(scan->state, child))
        if (!(child->mark & QS_CLAIMED) && (child->mark || was_met_below(scan, child)))
            return 1;
    return 0;
}

/*
 * A page that has moved takes along what is below it, of which nothing can be known yet: the path
 * it had leads to nothing. If something is known, another directory stood there a moment ago, and
 * what was found in it was taken for changes of this one. No event will say that again, so the scan
 * must not be believed.
 */
static int check_unmet(const struct qs_scan *scan, const struct qr_page *page)
{
    if (page->mark & QS_QUEUED || was_met_below(scan, page))
        return qr_fail(QALLOW_E_SERIALIZATION, "%s moved here while the tree was looked at",
                       qr_quotez(scan->path));
    return 0;
}

int qs_scan_claim(struct qs_scan *scan, struct qr_page *page)
{
    if (check_unmet(scan, page) < 0)
        return QALLOW_E_SERIALIZATION;
    size_t same = scan->claimed_capacity;
    if (QR_GROW(scan->claimed, scan->claimed_count, scan->claimed_capacity) < 0)
        return QALLOW_E_NO_MEMORY;
    if (same != scan->claimed_capacity) {
        char **grown = qr_realloc(scan->claimed_paths, scan->claimed_capacity * sizeof *grown);
        if (!grown)
            return qs_scan_no_memory();
        scan->claimed_paths = grown;
    }
    char *path = qs_path_join("", scan->path);
    if (!path)
        return qs_scan_no_memory();
    scan->claimed[scan->claimed_count] = page->id;
    scan->claimed_paths[scan->claimed_count++] = path;
    return qs_scan_mark(scan, page, QS_CLAIMED);
}

/* Another name of a changed file: is it still one, and has it been looked at? */
static int queue_name(struct qs_scan *scan, struct qr_page *page)
{
    struct stat now;
    struct qr_page *parent = qr_state_find(scan->state, page->parent);
    if (page->mark || !parent)
        return 0; /* somebody sees to it */
    char *directory = path_now(scan, parent), *path = path_now(scan, page);
    int rc = directory && path ? 0 : qs_scan_no_memory();
    if (rc == 0 && qs_stat_beneath(scan->tree->root_fd, path, &now) == 0 &&
        now.st_ino == page->stat.inode && now.st_dev == page->stat.device &&
        qs_kind_of(&now) == page->kind && !qs_stat_same(page, &now)) {
        struct qs_frame frame = {.page = parent->id, .fd = -1};
        rc = qs_scan_new_place(scan, parent->id, directory, strlen(directory), &frame.place);
        if (rc == 0)
            rc = qs_scan_add(scan, QS_PASS_CONTENT, QS_DO_CONTENT, &frame, page->name, &now,
                             page->id);
        if (rc == 0)
            rc = qs_scan_mark(scan, page, QS_QUEUED);
    }
    qr_free(directory);
    qr_free(path);
    return rc;
}

int qs_scan_other_names(struct qs_scan *scan, uint64_t device, uint64_t inode,
                        const struct qr_page *except)
{
    size_t at = 0;
    struct qr_page *page;
    if (!inode || !scan->only_paths)
        return 0;
    int rc = scan->tree->inodes.slots ? 0 : qs_inodes_build(scan->tree);
    while (rc == 0 && (page = qs_inodes_next(scan->tree, scan->state, device, inode, &at)))
        if (page != except && page->kind != QR_KIND_DIRECTORY)
            rc = queue_name(scan, page);
    return rc;
}

int qs_scan_free(struct qs_scan *scan, enum qs_pass pass, struct qr_page *page)
{
    int rc = qs_scan_mark(scan, page, QS_FREED);
    if (rc == 0)
        rc = qs_scan_add(scan, pass, QS_DO_FREE, NULL, NULL, NULL, page->id);
    if (rc == 0)
        qs_scan_last(scan, pass)->kind = page->kind;
    if (rc == 0 && page->kind != QR_KIND_DIRECTORY)
        rc = qs_scan_other_names(scan, page->stat.device, page->stat.inode, page);
    return rc;
}

int qs_scan_vanish(struct qs_scan *scan, struct qr_page *page)
{
    if (page->mark & (QS_CLAIMED | QS_VANISHED | QS_FREED))
        return 0;
    if (QR_GROW(scan->vanished, scan->vanished_count, scan->vanished_capacity) < 0)
        return QALLOW_E_NO_MEMORY;
    scan->vanished[scan->vanished_count++] = page->id;
    return qs_scan_mark(scan, page, QS_VANISHED);
}

/* Frees a page and everything below it that has not gone elsewhere, children first. */
static int free_below(struct qs_scan *scan, struct qr_page *page)
{
    int rc = 0;
    for (struct qr_page *child = qr_state_first_child(scan->state, page->id); child && rc == 0;
         child = qr_state_next_sibling(scan->state, child))
        if (!(child->mark & (QS_CLAIMED | QS_FREED)))
            rc = free_below(scan, child);
    return rc < 0 ? rc : qs_scan_free(scan, QS_PASS_REMOVED, page);
}

int qs_scan_free_vanished(struct qs_scan *scan)
{
    int rc = 0;
    for (size_t i = 0; i < scan->vanished_count && rc == 0; i++) {
        struct qr_page *page = qr_state_find(scan->state, scan->vanished[i]);
        if (!(page->mark & (QS_CLAIMED | QS_FREED)))
            rc = free_below(scan, page);
    }
    return rc;
}
