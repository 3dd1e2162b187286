/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What differs between the newest epoch and the disk: a list of changes, in the order in which they
 * can be made.
 *
 * Each directory is listed once and each entry looked at with one fstatat. An entry whose path has
 * a page of its kind keeps that page, whatever happened to the file; if (device, inode, size,
 * mtime, ctime) are as they were when its content was read, nothing is to be done. A path without a
 * page is a rename if its inode is known from a page whose own path is gone, and a new page
 * otherwise. After the listing, children whose entry was not met have vanished.
 *
 * The passes make the records of one epoch legal whatever was moved where:
 *   REPLACED  a file or symlink whose name a directory has taken: freed
 *   NAMES     new and renamed pages in the order of the tree: parents before children, so at each
 *             record all directories above it stand where they will stand
 *   COPIES    files whose content now equals what another page had: before that page changes
 *   CONTENT   files that changed, attributes
 *   REMOVED   what vanished, children first
 *   DEFERRED  files and symlinks in the place of a removed directory
 *   WEAK      mtimes of directories: written with an epoch, never a reason for one
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sources/path.h"
#include "sources/tree_internal.h"

enum { OPEN_LEVELS = 64 }; /* directories kept open on the way down */

/* One directory on the way down to where the scan is. */
struct frame {
    struct frame *up;
    uint64_t page;      /* 0: it is to be created */
    uint32_t place;     /* 0: none yet */
    int fd, depth;
    size_t path_length; /* of its path, which is a prefix of scan->path */
};

/* An entry to be entered after the listing it was found in. */
struct pending {
    const char *name;
    struct qr_page *page; /* NULL: new */
};

static int no_memory(void) { return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the scan"); }

/* Makes room for one more in a growing array. */
#define GROW(items, count, capacity) \
    ((count) < (capacity) ? 0 : grow((void **)&(items), &(capacity), sizeof *(items)))
static int grow(void **items, size_t *capacity, size_t size)
{
    size_t larger = *capacity ? 2 * *capacity : 16;
    void *grown = qr_realloc(*items, larger * size);
    if (!grown)
        return no_memory();
    *items = grown;
    *capacity = larger;
    return 0;
}

/* --- paths --- */

/* Appends a name to the path; the caller sets path_length back afterwards. */
static int path_push(struct qs_scan *scan, const char *name)
{
    size_t n = strlen(name), need = scan->path_length + n + 2;
    if (need > scan->path_capacity) {
        char *grown = qr_realloc(scan->path, 2 * need);
        if (!grown)
            return no_memory();
        scan->path = grown;
        scan->path_capacity = 2 * need;
    }
    if (scan->path_length)
        scan->path[scan->path_length++] = '/';
    memcpy(scan->path + scan->path_length, name, n + 1);
    scan->path_length += n;
    return 0;
}

static void path_pop(struct qs_scan *scan, const struct frame *frame)
{
    scan->path_length = frame->path_length;
    if (scan->path)
        scan->path[frame->path_length] = 0;
}

/* The directory's descriptor; those far above are closed and opened again when needed. */
static int frame_fd(struct qs_scan *scan, struct frame *frame)
{
    if (frame->fd < 0) {
        char behind = scan->path[frame->path_length];
        scan->path[frame->path_length] = 0;
        frame->fd = qs_open_beneath(scan->tree->root_fd, scan->path, O_RDONLY | O_DIRECTORY, 0);
        scan->path[frame->path_length] = behind;
    }
    return frame->fd;
}

static int frame_place(struct qs_scan *scan, struct frame *frame, uint32_t *place)
{
    if (!frame->place) {
        if (GROW(scan->places, scan->place_count, scan->place_capacity) < 0)
            return QALLOW_E_NO_MEMORY;
        char *path = qr_malloc(frame->path_length + 1);
        if (!path)
            return no_memory();
        if (frame->path_length)
            memcpy(path, scan->path, frame->path_length);
        path[frame->path_length] = 0;
        scan->places[scan->place_count] = (struct qs_place){frame->page, path};
        frame->place = (uint32_t)scan->place_count++;
    }
    *place = frame->place;
    return 0;
}

/* --- marks and changes --- */

static int mark(struct qs_scan *scan, struct qr_page *page, enum qs_mark bit)
{
    if (GROW(scan->touched, scan->touched_count, scan->touched_capacity) < 0)
        return QALLOW_E_NO_MEMORY;
    scan->touched[scan->touched_count++] = page->id;
    page->mark |= (uint8_t)bit;
    return 0;
}

static void clear_marks(struct qs_scan *scan, int everywhere)
{
    for (size_t i = 0; i < scan->touched_count; i++)
        qr_state_find(scan->state, scan->touched[i])->mark = 0;
    if (everywhere)
        for (struct qr_page *page = qr_state_next_page(scan->state, 0); page;
             page = qr_state_next_page(scan->state, page->id))
            page->mark = 0;
}

static uint8_t kind_of(const struct stat *st)
{
    return S_ISREG(st->st_mode)   ? QR_KIND_FILE
           : S_ISDIR(st->st_mode) ? QR_KIND_DIRECTORY
           : S_ISLNK(st->st_mode) ? QR_KIND_SYMLINK
                                  : 0;
}

/* Appends a change of the entry `name` in a directory; frame NULL: of the root itself. */
static int add_change(struct qs_scan *scan, enum qs_pass pass, enum qs_action action,
                      struct frame *frame, const char *name, const struct stat *st, uint64_t page)
{
    struct qs_steps *changes = &scan->passes[pass];
    struct qs_step change = {.page = page, .action = (uint8_t)action};
    if (st) {
        change.kind = kind_of(st);
        change.size = change.kind == QR_KIND_DIRECTORY ? 0 : (uint64_t)st->st_size;
        change.mode = st->st_mode & 07777;
        change.mtime_ns = qs_ns(st->st_mtim);
        change.stat = qs_stat_cache(st, 0);
        /* A directory's content is its entries, which are all looked at each time. */
        change.stat_known = change.kind == QR_KIND_DIRECTORY;
    }
    if (frame && frame_place(scan, frame, &change.place) < 0)
        return QALLOW_E_NO_MEMORY;
    if (GROW(changes->items, changes->count, changes->capacity) < 0)
        return QALLOW_E_NO_MEMORY;
    if (name && !(change.name = qs_path_join("", name)))
        return no_memory();
    changes->items[changes->count++] = change;
    return 0;
}

static struct qs_step *last_change(struct qs_scan *scan, enum qs_pass pass)
{
    return &scan->passes[pass].items[scan->passes[pass].count - 1];
}

static int add_free(struct qs_scan *scan, enum qs_pass pass, struct qr_page *page)
{
    int rc = mark(scan, page, QS_FREED);
    if (rc == 0)
        rc = add_change(scan, pass, QS_DO_FREE, NULL, NULL, NULL, page->id);
    if (rc == 0)
        last_change(scan, pass)->kind = page->kind;
    return rc;
}

static int vanish(struct qs_scan *scan, struct qr_page *page)
{
    if (page->mark & (QS_CLAIMED | QS_VANISHED | QS_FREED))
        return 0;
    if (GROW(scan->vanished, scan->vanished_count, scan->vanished_capacity) < 0)
        return QALLOW_E_NO_MEMORY;
    scan->vanished[scan->vanished_count++] = page->id;
    return mark(scan, page, QS_VANISHED);
}

/* Frees a page and everything below it that has not gone elsewhere, children first. */
static int free_below(struct qs_scan *scan, struct qr_page *page)
{
    int rc = 0;
    for (struct qr_page *child = qr_state_first_child(scan->state, page->id); child && rc == 0;
         child = qr_state_next_sibling(scan->state, child))
        if (!(child->mark & (QS_CLAIMED | QS_FREED)))
            rc = free_below(scan, child);
    return rc < 0 ? rc : add_free(scan, QS_PASS_REMOVED, page);
}

static int skip(struct qs_scan *scan, const char *why)
{
    scan->result->skipped++;
    return qs_tree_skip(scan->tree, scan->path, why);
}

/* --- renames --- */

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
        return no_memory();
    int rc = qs_stat_beneath(scan->tree->root_fd, path, &st);
    int gone = rc < 0                     ? errno == ENOENT || errno == ENOTDIR || errno == ELOOP
               : page->kind == kind_of(&st) ? 0
               : page->kind == QR_KIND_DIRECTORY ? 1
                                                 : 2;
    qr_free(path);
    return gone;
}

/*
 * Looks for the page that this entry's inode belonged to. *renamed: its path is gone, so this is
 * where it went. *copied: a file whose path is still there, so the content is likely the same.
 */
static int find_origin(struct qs_scan *scan, const struct stat *st, struct qr_page **renamed,
                       struct qr_page **copied)
{
    size_t at = 0;
    struct qr_page *page;
    *renamed = *copied = NULL;
    int rc = scan->tree->inodes.slots ? 0 : qs_inodes_build(scan->tree);
    while (rc == 0 && !*renamed &&
           (page = qs_inodes_next(scan->tree, scan->state, st->st_dev, st->st_ino, &at))) {
        if (page->kind != kind_of(st))
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

static int claim(struct qs_scan *scan, struct qr_page *page)
{
    size_t same = scan->claimed_capacity;
    if (GROW(scan->claimed, scan->claimed_count, scan->claimed_capacity) < 0)
        return QALLOW_E_NO_MEMORY;
    if (same != scan->claimed_capacity) {
        char **grown = qr_realloc(scan->claimed_paths, scan->claimed_capacity * sizeof *grown);
        if (!grown)
            return no_memory();
        scan->claimed_paths = grown;
    }
    char *path = qs_path_join("", scan->path);
    if (!path)
        return no_memory();
    scan->claimed[scan->claimed_count] = page->id;
    scan->claimed_paths[scan->claimed_count++] = path;
    return mark(scan, page, QS_CLAIMED);
}

/* --- entries --- */

static int scan_directory(struct qs_scan *scan, struct frame *frame, int deep);

/* Lists the directory `name`, whose path has been pushed. */
static int enter(struct qs_scan *scan, struct frame *up, const char *name, uint64_t page,
                 uint32_t place, int is_new, int deep)
{
    struct frame frame = {.up = up, .page = page, .place = place, .depth = up->depth + 1,
                          .path_length = scan->path_length};
    if (frame.depth > QS_DEPTH_MAX)
        return skip(scan, "nested too deep");
    frame.fd = openat(frame_fd(scan, up), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (frame.fd < 0)
        return errno == ENOENT || errno == ENOTDIR || errno == ELOOP ? 0
                                                                      : skip(scan, strerror(errno));
    if (frame.depth > OPEN_LEVELS) {
        struct frame *far = up;
        for (int i = 1; i < OPEN_LEVELS; i++)
            far = far->up;
        if (far->fd >= 0 && far->up) {
            close(far->fd);
            far->fd = -1;
        }
    }
    int rc = qs_tree_skip(scan->tree, scan->path, NULL);
    if (rc == 0 && is_new && scan->scope && scan->scope->new_directory)
        scan->scope->new_directory(scan->scope->context, scan->path, frame.fd);
    if (rc == 0)
        rc = scan_directory(scan, &frame, deep);
    close(frame.fd);
    return rc;
}

/* May the entry be recorded, as far as its stat tells? Says so if not. *keep: the page it has stays
 * as it was. */
static int is_recordable(struct qs_scan *scan, const struct stat *st, int *keep, int *rc)
{
    const struct qs_tree *tree = scan->tree;
    uint8_t kind = kind_of(st);
    const char *why = NULL;
    *keep = 0;
    if (st->st_dev != tree->device && kind == QR_KIND_DIRECTORY) {
        why = "another file system is mounted here";
        *keep = 1; /* what was recorded is still there, under the mount */
    } else if (!kind) {
        why = S_ISFIFO(st->st_mode)   ? "a FIFO"
              : S_ISSOCK(st->st_mode) ? "a socket"
                                      : "a device";
    } else if (kind == QR_KIND_FILE && tree->rules.max_file_size &&
               (uint64_t)st->st_size > tree->rules.max_file_size) {
        why = "larger than the largest size to record";
    }
    *rc = why ? skip(scan, why) : 0;
    return !why;
}

/* Other names of a file that was written through one of them. */
static int queue_other_names(struct qs_scan *scan, const struct qr_page *changed,
                             const struct stat *st)
{
    size_t at = 0;
    struct qr_page *page;
    int rc = scan->tree->inodes.slots ? 0 : qs_inodes_build(scan->tree);
    while (rc == 0 &&
           (page = qs_inodes_next(scan->tree, scan->state, st->st_dev, st->st_ino, &at))) {
        struct stat now;
        struct qr_page *parent = qr_state_find(scan->state, page->parent);
        if (page == changed || page->mark || !parent)
            continue;
        char *directory = path_now(scan, parent), *path = path_now(scan, page);
        if (!directory || !path)
            rc = no_memory();
        else if (qs_stat_beneath(scan->tree->root_fd, path, &now) == 0 &&
                 now.st_ino == st->st_ino && now.st_dev == st->st_dev &&
                 !qs_stat_same(page, &now)) {
            struct frame frame = {.page = parent->id, .fd = -1};
            char *kept = scan->path; /* the place is named by the directory's path */
            scan->path = directory;
            frame.path_length = strlen(directory);
            rc = add_change(scan, QS_PASS_CONTENT, QS_DO_CONTENT, &frame, page->name, &now,
                            page->id);
            scan->path = kept;
            if (rc == 0)
                rc = mark(scan, page, QS_QUEUED);
        }
        qr_free(directory);
        qr_free(path);
    }
    return rc;
}

/* A file or symlink that may have changed. */
static int queue_content(struct qs_scan *scan, struct frame *frame, const char *name,
                         const struct stat *st, struct qr_page *page)
{
    struct qr_page *renamed = NULL, *copied = NULL;
    int rc = 0;
    if (page->mark & QS_QUEUED)
        return 0;
    if (page->kind == QR_KIND_FILE && page->stat.inode != st->st_ino)
        rc = find_origin(scan, st, &renamed, &copied);
    /* A file that took another's place while that one was kept under a new name, or moved here:
     * the other page has the very content, if size and time agree. */
    const struct qr_page *base = renamed ? renamed : copied;
    if (base && (base == page || base->size != (uint64_t)st->st_size ||
                 base->mtime_ns != qs_ns(st->st_mtim)))
        base = NULL;
    enum qs_pass pass = base ? QS_PASS_COPIES : QS_PASS_CONTENT;
    if (rc == 0)
        rc = add_change(scan, pass, QS_DO_CONTENT, frame, name, st, page->id);
    if (rc == 0) {
        last_change(scan, pass)->base = base ? base->id : 0;
        rc = mark(scan, page, QS_QUEUED);
    }
    if (rc == 0 && scan->scope && scan->scope->paths && page->kind == QR_KIND_FILE &&
        st->st_nlink > 1)
        rc = queue_other_names(scan, page, st);
    return rc;
}

/* A directory that has its page. */
static int compare_directory(struct qs_scan *scan, struct frame *frame, const char *name,
                             const struct stat *st, struct qr_page *page)
{
    int rc = 0;
    int mode_differs = page->mode != (st->st_mode & 07777);
    if (page->mark & QS_QUEUED)
        return 0;
    if (mode_differs || page->mtime_ns != qs_ns(st->st_mtim))
        rc = add_change(scan, mode_differs ? QS_PASS_CONTENT : QS_PASS_WEAK, QS_DO_ATTRIBUTES,
                        frame, name, st, page->id);
    else if (page->stat.inode != st->st_ino || page->stat.device != st->st_dev)
        rc = add_change(scan, QS_PASS_WEAK, QS_DO_STAT, frame, name, st, page->id);
    else
        return 0;
    return rc < 0 ? rc : mark(scan, page, QS_QUEUED);
}

/* The page that has this name now. */
static struct qr_page *holder_of(struct qs_scan *scan, const struct frame *frame, const char *name)
{
    if (!frame->page && !scan->tree->file_name)
        return NULL; /* the directory itself is new */
    struct qr_page *page = qr_state_child(scan->state, frame->page, name, strlen(name));
    return page && page->mark & (QS_CLAIMED | QS_FREED) ? NULL : page;
}

/*
 * Looks at one entry, whose path has been pushed. An entry that has its page is done with, but for
 * what is below it; *page is that page. Returns 1 if somebody has to go on: into the directory
 * *page, or (*page NULL) with a new entry. 2: *page is a directory that has taken the place of the
 * one that was there, so that nothing is known of anything below it.
 */
static int look(struct qs_scan *scan, struct frame *frame, const char *name, struct qr_page **page)
{
    struct stat st;
    int keep, rc;
    *page = holder_of(scan, frame, name);
    if (fstatat(frame_fd(scan, frame), name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return 0;
        if (*page) /* it is there, we only cannot look at it */
            (*page)->mark |= QS_SEEN;
        *page = NULL;
        return skip(scan, strerror(errno));
    }
    scan->result->entries++;
    if (!qs_rules_admit(scan->tree, scan->path, S_ISDIR(st.st_mode), &st))
        return 0;
    if (!is_recordable(scan, &st, &keep, &rc)) {
        if (keep && *page && rc == 0)
            (*page)->mark |= QS_SEEN;
        *page = NULL;
        return rc;
    }
    if (!*page || (*page)->kind != kind_of(&st)) {
        *page = NULL;
        return 1;
    }
    (*page)->mark |= QS_SEEN;
    if ((*page)->kind == QR_KIND_DIRECTORY) {
        rc = compare_directory(scan, frame, name, &st, *page);
        return rc < 0 ? rc : (*page)->stat.inode == st.st_ino ? 1 : 2;
    }
    return qs_stat_same(*page, &st) ? 0 : queue_content(scan, frame, name, &st, *page);
}

/* Which pass a new name can be in, given the page that has the name now. */
static int make_way(struct qs_scan *scan, struct frame *frame, const char *name,
                    enum qs_pass *pass)
{
    struct qr_page *holder = holder_of(scan, frame, name);
    *pass = QS_PASS_NAMES;
    if (!holder)
        return 0;
    if (holder->kind != QR_KIND_DIRECTORY)
        return add_free(scan, QS_PASS_REPLACED, holder);
    *pass = QS_PASS_DEFERRED;
    return vanish(scan, holder);
}

/* A path that has no page: something new, or something known under a new name. */
static int add_new(struct qs_scan *scan, struct frame *frame, const char *name)
{
    struct stat st;
    struct qr_page *renamed = NULL, *copied = NULL;
    enum qs_pass pass;
    uint32_t own_place = 0;
    if (fstatat(frame_fd(scan, frame), name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !kind_of(&st))
        return 0; /* gone again */
    int is_directory = S_ISDIR(st.st_mode), rc = 0;
    if (scan->scope && scan->scope->paths &&
        (rc = qs_string_set_add(&scan->new_names, scan->path)) != 1)
        return rc; /* met before, under another of the paths that were named */
    rc = make_way(scan, frame, name, &pass);
    if (rc == 0 && pass == QS_PASS_NAMES)
        rc = find_origin(scan, &st, &renamed, &copied);
    if (rc == 0 && renamed)
        rc = claim(scan, renamed);
    if (rc == 0)
        rc = add_change(scan, pass, renamed ? QS_DO_RENAME : QS_DO_CREATE, frame, name, &st,
                        renamed ? renamed->id : 0);
    if (rc < 0)
        return rc;
    struct qs_step *change = last_change(scan, pass);
    if (copied && !renamed)
        change->base = copied->id;
    size_t at = scan->passes[pass].count - 1;
    if (is_directory) {
        struct frame self = {.page = renamed ? renamed->id : 0, .path_length = scan->path_length};
        if ((rc = frame_place(scan, &self, &own_place)) == 0) {
            scan->passes[pass].items[at].own_place = own_place;
            if (renamed)
                rc = compare_directory(scan, frame, name, &st, renamed);
        }
        if (rc == 0)
            rc = enter(scan, frame, name, renamed ? renamed->id : 0, own_place, 1, 1);
    } else if (renamed) {
        renamed->mark &= (uint8_t)~QS_QUEUED; /* nobody had its path: it was not queued */
        rc = queue_content(scan, frame, name, &st, renamed);
    } else if (copied && st.st_nlink > 1) { /* a new name of a file that may have been written to */
        rc = queue_other_names(scan, NULL, &st);
    }
    return rc;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct pending *)a)->name, ((const struct pending *)b)->name);
}

/* Ignore files come before the entries that they judge. */
static int read_rules(struct qs_scan *scan, struct frame *frame, const struct qs_names *names)
{
    const char *p = names->bytes;
    scan->path[frame->path_length] = 0;
    for (size_t i = 0; i < names->count; i++, p += strlen(p + 1) + 2)
        if (p[1] == '.' && strcmp(p + 1, QS_IGNORE_FILE) == 0)
            return qs_rules_read_directory(scan->tree, scan->path, frame->fd);
    if (scan->tree->directory_rules_count)
        qs_rules_drop_directory(scan->tree, scan->path);
    return 0;
}

/* Children of a page whose entries were not met. */
static int sweep(struct qs_scan *scan, uint64_t directory)
{
    int rc = 0;
    for (struct qr_page *child = qr_state_first_child(scan->state, directory); child && rc == 0;
         child = qr_state_next_sibling(scan->state, child)) {
        if (child->mark & QS_SEEN)
            child->mark &= (uint8_t)~QS_SEEN;
        else
            rc = vanish(scan, child);
    }
    return rc;
}

/* Lists a directory; `deep`: everything below it, too. New directories are always entered. */
static int scan_directory(struct qs_scan *scan, struct frame *frame, int deep)
{
    struct qs_names names = {0};
    struct pending *pending = NULL;
    size_t count = 0, capacity = 0;
    int rc = qs_names_read(&names, frame_fd(scan, frame));
    if (rc == -1) {
        rc = skip(scan, strerror(errno));
        goto out;
    }
    if (rc == 0)
        rc = read_rules(scan, frame, &names);
    const char *name = names.bytes + 1;
    for (size_t i = 0; rc == 0 && i < names.count; i++, name += strlen(name) + 2) {
        struct qr_page *page;
        rc = path_push(scan, name);
        if (rc == 0)
            rc = look(scan, frame, name, &page);
        path_pop(scan, frame);
        if (rc <= 0 || (rc == 1 && page && !deep)) {
            rc = rc < 0 ? rc : 0;
            continue;
        }
        rc = GROW(pending, count, capacity);
        if (rc == 0)
            pending[count++] = (struct pending){name, page};
    }
    if (rc == 0 && frame->page)
        rc = sweep(scan, frame->page);
    if (rc == 0 && count)
        qsort(pending, count, sizeof *pending, by_name);
    for (size_t i = 0; i < count && rc == 0; i++) {
        struct qr_page *page = pending[i].page;
        rc = path_push(scan, pending[i].name);
        if (rc == 0)
            rc = page ? enter(scan, frame, pending[i].name, page->id, 0, 0, 1)
                      : add_new(scan, frame, pending[i].name);
        path_pop(scan, frame);
    }
out:
    qr_free(pending);
    qs_names_finish(&names);
    return rc;
}

/* --- what is asked for --- */

/* Paths in the order of a walk: a directory, what is below it, its next sibling. */
static int by_path(const void *a, const void *b)
{
    const unsigned char *p = *(const unsigned char *const *)a;
    const unsigned char *q = *(const unsigned char *const *)b;
    while (*p && *p == *q)
        p++, q++;
    int x = *p == '/' ? 1 : *p ? *p + 1 : 0, y = *q == '/' ? 1 : *q ? *q + 1 : 0;
    return x - y;
}

/* Is a directory above `path` in the set? */
static int is_below(const struct qs_string_set *set, const char *path, size_t length, char *buffer)
{
    if (!set->count)
        return 0;
    for (size_t i = 0; i < length; i++)
        if (path[i] == '/') {
            memcpy(buffer, path, i);
            buffer[i] = 0;
            if (qs_string_set_has(set, buffer))
                return 1;
        }
    return length && qs_string_set_has(set, "");
}

/*
 * One path that was named. Walks down to the directory that holds it, over directories that have
 * pages; where that ends early, the first one that is missing stands for all that is below it.
 */
static int scan_path(struct qs_scan *scan, const char *path, int listed, int deep)
{
    struct qs_tree *tree = scan->tree;
    struct qr_page *page = qs_root_page(tree, scan->state);
    struct frame frame = {.page = page ? page->id : 0, .fd = -1};
    int rc = 0;
    scan->path_length = 0;
    scan->path[0] = 0;
    while (rc == 0) {
        const char *slash = strchr(path, '/');
        size_t n = slash ? (size_t)(slash - path) : strlen(path);
        char name[256];
        if (n == 0 || n >= sizeof name) /* no entry can have this name */
            break;
        memcpy(name, path, n);
        name[n] = 0;
        frame.fd = qs_open_beneath(tree->root_fd, scan->path, O_RDONLY | O_DIRECTORY, 0);
        if (frame.fd < 0) /* changed again under our feet: another event will tell */
            break;
        rc = qs_rules_read_directory(tree, scan->path, frame.fd);
        frame.path_length = scan->path_length;
        if (rc == 0)
            rc = path_push(scan, name);
        struct qr_page *child = qr_state_child(scan->state, frame.page, name, n), *seen = NULL;
        /* One that was named itself is marked as seen, which says nothing of what is below it. */
        int descend = slash && child && child->kind == QR_KIND_DIRECTORY &&
                      !(child->mark & ~(QS_SEEN | QS_QUEUED));
        int open_next = descend ? qs_open_beneath(tree->root_fd, scan->path,
                                                  O_PATH | O_DIRECTORY, 0) : -1;
        descend = open_next >= 0 && qs_rules_admit(tree, scan->path, 1, NULL);
        if (open_next >= 0)
            close(open_next);
        if (rc == 0 && !descend) {
            rc = look(scan, &frame, name, &seen);
            if (child && child->mark & QS_SEEN)
                rc = mark(scan, child, QS_SEEN) < 0 ? QALLOW_E_NO_MEMORY : rc;
            else if (child && rc >= 0)
                rc = vanish(scan, child) < 0 ? QALLOW_E_NO_MEMORY : rc;
            if (rc > 0)
                rc = !seen ? add_new(scan, &frame, name)
                     : listed || slash || rc == 2
                         ? enter(scan, &frame, name, seen->id, 0, 0, deep || rc == 2)
                         : 0;
        }
        struct qr_page *parent = qr_state_find(scan->state, frame.page);
        struct stat st;
        if (rc == 0 && !descend && parent && fstat(frame.fd, &st) == 0)
            rc = compare_directory(scan, NULL, NULL, &st, parent); /* its mtime has moved, too */
        close(frame.fd);
        frame = (struct frame){.page = child ? child->id : 0, .fd = -1};
        if (!descend)
            break;
        path = slash + 1;
    }
    return rc;
}

static char *normal_path(const char *path)
{
    char *copy = qs_path_join("", path);
    size_t n = copy ? strlen(copy) : 0;
    while (n && copy[n - 1] == '/')
        copy[--n] = 0;
    if (copy && strcmp(copy, ".") == 0)
        copy[0] = 0;
    return copy;
}

static int scan_root(struct qs_scan *scan, int deep)
{
    struct qs_tree *tree = scan->tree;
    struct qr_page *page = qs_root_page(tree, scan->state);
    struct frame frame = {.page = page ? page->id : 0, .fd = tree->root_fd};
    struct stat st;
    int rc = 0;
    scan->path_length = 0;
    scan->path[0] = 0;
    if (tree->file_name) {
        struct qr_page *seen;
        frame.page = 0;
        rc = path_push(scan, tree->file_name);
        if (rc == 0)
            rc = look(scan, &frame, tree->file_name, &seen);
        if (rc > 0 && !seen)
            rc = add_new(scan, &frame, tree->file_name);
        if (rc == 0 && page && !(page->mark & QS_SEEN))
            rc = vanish(scan, page);
        if (page)
            page->mark &= (uint8_t)~QS_SEEN;
        return rc < 0 ? rc : 0;
    }
    if (fstat(tree->root_fd, &st) < 0 || st.st_nlink == 0)
        return qr_fail(QALLOW_E_NO_INPUT, "%s does not exist any more", qr_quotez(tree->path));
    if (page) {
        rc = compare_directory(scan, NULL, NULL, &st, page);
    } else {
        uint32_t place = 0;
        rc = add_change(scan, QS_PASS_NAMES, QS_DO_CREATE, NULL, ".", &st, 0);
        if (rc == 0)
            rc = frame_place(scan, &frame, &place);
        if (rc == 0)
            last_change(scan, QS_PASS_NAMES)->own_place = place;
    }
    return rc < 0 ? rc : scan_directory(scan, &frame, deep);
}

struct request {
    char *path;
    int listed, deep;
};

static int by_request(const void *a, const void *b)
{
    return by_path(&((const struct request *)a)->path, &((const struct request *)b)->path);
}

/* Turns the named paths into sorted requests; directories go into `listed`. */
static int collect(struct qs_scan *scan, struct request *requests, struct qs_string_set *listed)
{
    const struct qs_scope *scope = scan->scope;
    int rc = 0;
    for (size_t i = 0; i < scope->path_count && rc >= 0; i++) {
        struct stat st;
        struct request *request = &requests[i];
        if (!(request->path = normal_path(scope->paths[i])))
            return no_memory();
        request->deep = scope->recursive_dirs;
        /* A changed ignore file changes what is recorded below its directory. */
        char *slash = strrchr(request->path, '/');
        if (strcmp(slash ? slash + 1 : request->path, QS_IGNORE_FILE) == 0) {
            *(slash ? slash : request->path) = 0;
            request->deep = 1;
        }
        request->listed = qs_stat_beneath(scan->tree->root_fd, request->path, &st) == 0 &&
                          S_ISDIR(st.st_mode);
        if (request->listed && request->deep)
            rc = qs_string_set_add(listed, request->path);
    }
    return rc < 0 ? rc : 0;
}

static int scan_paths(struct qs_scan *scan)
{
    size_t count = scan->scope->path_count, longest = 0;
    struct qs_string_set listed = {0};
    struct request *requests = qr_calloc(count + 1, sizeof *requests);
    char *buffer = NULL;
    int rc = requests ? collect(scan, requests, &listed) : no_memory();
    if (rc < 0)
        goto out;
    qsort(requests, count, sizeof *requests, by_request);
    for (size_t i = 0; i < count; i++)
        longest = strlen(requests[i].path) > longest ? strlen(requests[i].path) : longest;
    if (!(buffer = qr_malloc(longest + 1)))
        rc = no_memory();
    for (size_t i = 0; i < count && rc == 0; i++) {
        struct request *request = &requests[i];
        size_t length = strlen(request->path);
        for (; i + 1 < count && strcmp(requests[i + 1].path, request->path) == 0; i++)
            request[0].deep |= requests[i + 1].deep;
        if (is_below(&listed, request->path, length, buffer) ||
            is_below(&scan->new_names, request->path, length, buffer) ||
            qs_string_set_has(&scan->new_names, request->path))
            continue;
        rc = length ? scan_path(scan, request->path, request->listed, request->deep)
                    : scan_root(scan, request->deep);
    }
out:
    for (size_t i = 0; requests && i < count; i++)
        qr_free(requests[i].path);
    qr_free(requests);
    qr_free(buffer);
    qs_string_set_finish(&listed);
    return rc;
}

static int by_page(const void *a, const void *b)
{
    uint64_t x = ((const struct qs_step *)a)->page, y = ((const struct qs_step *)b)->page;
    return x < y ? -1 : x > y;
}

/*
 * A copy must be made before the page it is made of changes; where pages exchange their contents
 * one of them falls back on its own former content.
 */
static int order_copies(struct qs_scan *scan)
{
    struct qs_steps *copies = &scan->passes[QS_PASS_COPIES];
    size_t n = copies->count, ready = 0;
    if (n < 2)
        return 0;
    qsort(copies->items, n, sizeof *copies->items, by_page);
    struct qs_step *ordered = qr_malloc(n * sizeof *ordered);
    uint32_t *users = qr_calloc(n, sizeof *users); /* copies still to be made of item i */
    uint8_t *taken = qr_calloc(n, 1);
    struct qs_step **base = qr_calloc(n, sizeof *base);
    if (!ordered || !users || !taken || !base) {
        qr_free(ordered);
        qr_free(users);
        qr_free(taken);
        qr_free(base);
        return no_memory();
    }
    for (size_t i = 0; i < n; i++) {
        struct qs_step key = {.page = copies->items[i].base};
        base[i] = bsearch(&key, copies->items, n, sizeof key, by_page);
        if (base[i])
            users[base[i] - copies->items]++;
    }
    while (ready < n) {
        size_t before = ready, first = n;
        for (size_t i = 0; i < n; i++) {
            /* Follow the chain as far as it is free: a rotation of a thousand logs is one round. */
            for (size_t at = i; !taken[at] && users[at] == 0;) {
                ordered[ready++] = copies->items[at];
                taken[at] = 1;
                if (!base[at])
                    break;
                users[at = (size_t)(base[at] - copies->items)]--;
            }
            if (!taken[i] && first == n)
                first = i;
        }
        if (ready == before) { /* a ring: cut it */
            users[base[first] - copies->items]--;
            base[first] = NULL;
            copies->items[first].base = 0;
        }
    }
    memcpy(copies->items, ordered, n * sizeof *ordered);
    qr_free(ordered);
    qr_free(users);
    qr_free(taken);
    qr_free(base);
    return 0;
}

int qs_scan_run(struct qs_scan *scan)
{
    int paths = scan->scope && scan->scope->paths && !scan->tree->file_name;
    scan->state = qr_store_state(scan->tree->store);
    scan->path_capacity = 256;
    int rc = GROW(scan->places, scan->place_count, scan->place_capacity);
    if (rc == 0 && !(scan->path = qr_calloc(1, scan->path_capacity)))
        rc = no_memory();
    if (rc == 0) {
        scan->places[0] = (struct qs_place){0, NULL};
        scan->place_count = 1;
        qs_own_files_look(scan->tree);
        /* Without a root page there is nothing that the paths could be relative to. */
        rc = paths && qs_root_page(scan->tree, scan->state) ? scan_paths(scan)
                                                           : scan_root(scan, 1);
    }
    for (size_t i = 0; i < scan->vanished_count && rc == 0; i++) {
        struct qr_page *page = qr_state_find(scan->state, scan->vanished[i]);
        if (!(page->mark & (QS_CLAIMED | QS_FREED)))
            rc = free_below(scan, page);
    }
    clear_marks(scan, rc < 0);
    struct qs_steps *content = &scan->passes[QS_PASS_CONTENT];
    if (rc == 0 && content->count > 1)
        qsort(content->items, content->count, sizeof *content->items, by_page);
    return rc < 0 ? rc : order_copies(scan);
}

void qs_scan_finish(struct qs_scan *scan)
{
    for (int pass = 0; pass < QS_PASS_COUNT; pass++) {
        for (size_t i = 0; i < scan->passes[pass].count; i++)
            qr_free(scan->passes[pass].items[i].name);
        qr_free(scan->passes[pass].items);
    }
    for (size_t i = 1; i < scan->place_count; i++)
        qr_free(scan->places[i].path);
    for (size_t i = 0; i < scan->claimed_count; i++)
        qr_free(scan->claimed_paths[i]);
    qr_free(scan->places);
    qr_free(scan->vanished);
    qr_free(scan->claimed);
    qr_free(scan->claimed_paths);
    qr_free(scan->touched);
    qs_string_set_finish(&scan->new_names);
    qr_free(scan->path);
}
