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
#include "sources/scan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sources/path.h"
#include "sources/stop.h"

enum { OPEN_LEVELS = 64 }; /* directories kept open on the way down */

/* An entry to be entered after the listing it was found in. */
struct pending {
    const char *name;
    struct qr_page *page; /* NULL: new */
};

/* --- paths --- */

/* Appends a name to the path; the caller sets path_length back afterwards. */
static int path_push(struct qs_scan *scan, const char *name)
{
    size_t n = strlen(name), need = scan->path_length + n + 2;
    if (need > scan->path_capacity) {
        char *grown = qr_realloc(scan->path, 2 * need);
        if (!grown)
            return qs_scan_no_memory();
        scan->path = grown;
        scan->path_capacity = 2 * need;
    }
    if (scan->path_length)
        scan->path[scan->path_length++] = '/';
    memcpy(scan->path + scan->path_length, name, n + 1);
    scan->path_length += n;
    return 0;
}

static void path_pop(struct qs_scan *scan, const struct qs_frame *frame)
{
    scan->path_length = frame->path_length;
    if (scan->path)
        scan->path[frame->path_length] = 0;
}

/* The directory's descriptor; those far above are closed and opened again when needed. */
static int frame_fd(struct qs_scan *scan, struct qs_frame *frame)
{
    if (frame->fd < 0) {
        char behind = scan->path[frame->path_length];
        scan->path[frame->path_length] = 0;
        frame->fd = qs_open_beneath(scan->tree->root_fd, scan->path, O_RDONLY | O_DIRECTORY, 0);
        scan->path[frame->path_length] = behind;
    }
    return frame->fd;
}

static int skip(struct qs_scan *scan, const char *why)
{
    scan->result->skipped++;
    return qs_tree_skip(scan->tree, scan->path, why);
}

/* --- entries --- */

static int scan_directory(struct qs_scan *scan, struct qs_frame *frame, int deep);

/* Lists the directory `name`, whose path has been pushed. */
static int enter(struct qs_scan *scan, struct qs_frame *up, const char *name, uint64_t page,
                 uint32_t place, int is_new, int deep)
{
    struct qs_frame frame = {.up = up, .page = page, .place = place, .depth = up->depth + 1,
                          .path_length = scan->path_length};
    if (frame.depth > QS_DEPTH_MAX)
        return skip(scan, "nested too deep");
    frame.fd = openat(frame_fd(scan, up), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (frame.fd < 0)
        return errno == ENOENT || errno == ENOTDIR || errno == ELOOP ? 0
                                                                      : skip(scan, strerror(errno));
    if (frame.depth > OPEN_LEVELS) {
        struct qs_frame *far = up;
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
    uint8_t kind = qs_kind_of(st);
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

/* A file or symlink that may have changed. */
static int queue_content(struct qs_scan *scan, struct qs_frame *frame, const char *name,
                         const struct stat *st, struct qr_page *page)
{
    struct qr_page *renamed = NULL, *copied = NULL;
    int rc = 0;
    if (page->mark & QS_QUEUED)
        return 0;
    if (page->kind == QR_KIND_FILE && page->stat.inode != st->st_ino)
        rc = qs_scan_origin(scan, st, &renamed, &copied);
    /* A file that took another's place while that one was kept under a new name, or moved here:
     * the other page has the very content, if size and time agree. */
    const struct qr_page *base = renamed ? renamed : copied;
    if (base && (base == page || base->size != (uint64_t)st->st_size ||
                 base->mtime_ns != qs_ns(st->st_mtim)))
        base = NULL;
    enum qs_pass pass = base ? QS_PASS_COPIES : QS_PASS_CONTENT;
    if (rc == 0)
        rc = qs_scan_add(scan, pass, QS_DO_CONTENT, frame, name, st, page->id);
    if (rc == 0) {
        qs_scan_last(scan, pass)->base = base ? base->id : 0;
        rc = qs_scan_mark(scan, page, QS_QUEUED);
    }
    if (rc < 0 || page->kind == QR_KIND_DIRECTORY)
        return rc;
    /* Written through this name, with others; or the file that it stood for has only others now. */
    if (page->stat.inode != st->st_ino || page->stat.device != st->st_dev)
        rc = qs_scan_other_names(scan, page->stat.device, page->stat.inode, page);
    return rc < 0 || st->st_nlink == 1
               ? rc
               : qs_scan_other_names(scan, st->st_dev, st->st_ino, page);
}

/* A directory that has its page. */
static int compare_directory(struct qs_scan *scan, struct qs_frame *frame, const char *name,
                             const struct stat *st, struct qr_page *page)
{
    int rc = 0;
    int mode_differs = page->mode != (st->st_mode & 07777);
    if (page->mark & QS_QUEUED)
        return 0;
    if (mode_differs || page->mtime_ns != qs_ns(st->st_mtim))
        rc = qs_scan_add(scan, mode_differs ? QS_PASS_CONTENT : QS_PASS_WEAK, QS_DO_ATTRIBUTES,
                        frame, name, st, page->id);
    else if (page->stat.inode != st->st_ino || page->stat.device != st->st_dev)
        rc = qs_scan_add(scan, QS_PASS_WEAK, QS_DO_STAT, frame, name, st, page->id);
    else
        return 0;
    return rc < 0 ? rc : qs_scan_mark(scan, page, QS_QUEUED);
}

/* The page that has this name now. */
static struct qr_page *holder_of(struct qs_scan *scan, const struct qs_frame *frame,
                                 const char *name)
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
static int look(struct qs_scan *scan, struct qs_frame *frame, const char *name,
                struct qr_page **page)
{
    struct stat st;
    int keep, rc = qs_stop();
    *page = holder_of(scan, frame, name);
    if (rc < 0)
        return rc;
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
    if (!*page || (*page)->kind != qs_kind_of(&st)) {
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
static int make_way(struct qs_scan *scan, struct qs_frame *frame, const char *name,
                    enum qs_pass *pass)
{
    struct qr_page *holder = holder_of(scan, frame, name);
    *pass = QS_PASS_NAMES;
    if (!holder)
        return 0;
    if (holder->kind != QR_KIND_DIRECTORY)
        return qs_scan_free(scan, QS_PASS_REPLACED, holder);
    *pass = QS_PASS_DEFERRED;
    return qs_scan_vanish(scan, holder);
}

/* A path that has no page: something new, or something known under a new name. */
static int add_new(struct qs_scan *scan, struct qs_frame *frame, const char *name)
{
    struct stat st;
    struct qr_page *renamed = NULL, *copied = NULL;
    enum qs_pass pass;
    uint32_t own_place = 0;
    if (fstatat(frame_fd(scan, frame), name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !qs_kind_of(&st))
        return 0; /* gone again */
    int is_directory = S_ISDIR(st.st_mode), rc = 0;
    if (scan->only_paths &&
        (rc = qs_string_set_add(&scan->new_names, scan->path)) != 1)
        return rc; /* met before, under another of the paths that were named */
    rc = make_way(scan, frame, name, &pass);
    if (rc == 0 && pass == QS_PASS_NAMES)
        rc = qs_scan_origin(scan, &st, &renamed, &copied);
    if (rc == 0 && renamed)
        rc = qs_scan_claim(scan, renamed);
    if (rc == 0)
        rc = qs_scan_add(scan, pass, renamed ? QS_DO_RENAME : QS_DO_CREATE, frame, name, &st,
                        renamed ? renamed->id : 0);
    if (rc < 0)
        return rc;
    struct qs_step *change = qs_scan_last(scan, pass);
    if (copied && !renamed)
        change->base = copied->id;
    size_t at = scan->passes[pass].count - 1;
    if (is_directory) {
        struct qs_frame self = {.page = renamed ? renamed->id : 0,
                                .path_length = scan->path_length};
        if ((rc = qs_scan_place(scan, &self, &own_place)) == 0) {
            scan->passes[pass].items[at].own_place = own_place;
            if (renamed)
                rc = compare_directory(scan, frame, name, &st, renamed);
        }
        if (rc == 0)
            rc = enter(scan, frame, name, renamed ? renamed->id : 0, own_place, 1, 1);
    } else if (renamed) {
        rc = queue_content(scan, frame, name, &st, renamed);
    } else if (st.st_nlink > 1) { /* a new name of a file that may have been written to */
        rc = qs_scan_other_names(scan, st.st_dev, st.st_ino, NULL);
    }
    return rc;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct pending *)a)->name, ((const struct pending *)b)->name);
}

/* Ignore files come before the entries that they judge. */
static int read_rules(struct qs_scan *scan, struct qs_frame *frame, const struct qs_names *names)
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
            rc = qs_scan_vanish(scan, child);
    }
    return rc;
}

/* Lists a directory; `deep`: everything below it, too. New directories are always entered. */
static int scan_directory(struct qs_scan *scan, struct qs_frame *frame, int deep)
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
        rc = QR_GROW(pending, count, capacity);
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
    struct qs_frame frame = {.page = page ? page->id : 0, .fd = -1};
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
                rc = qs_scan_mark(scan, child, QS_SEEN) < 0 ? QALLOW_E_NO_MEMORY : rc;
            else if (child && rc >= 0)
                rc = qs_scan_vanish(scan, child) < 0 ? QALLOW_E_NO_MEMORY : rc;
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
        frame = (struct qs_frame){.page = child ? child->id : 0, .fd = -1};
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
    struct qs_frame frame = {.page = page ? page->id : 0, .fd = tree->root_fd};
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
            rc = qs_scan_vanish(scan, page);
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
        rc = qs_scan_add(scan, QS_PASS_NAMES, QS_DO_CREATE, NULL, ".", &st, 0);
        if (rc == 0)
            rc = qs_scan_place(scan, &frame, &place);
        if (rc == 0)
            qs_scan_last(scan, QS_PASS_NAMES)->own_place = place;
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
            return qs_scan_no_memory();
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
    int rc = requests ? collect(scan, requests, &listed) : qs_scan_no_memory();
    if (rc < 0)
        goto out;
    qsort(requests, count, sizeof *requests, by_request);
    for (size_t i = 0; i < count; i++)
        longest = strlen(requests[i].path) > longest ? strlen(requests[i].path) : longest;
    if (!(buffer = qr_malloc(longest + 1)))
        rc = qs_scan_no_memory();
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

int qs_scan_run(struct qs_scan *scan)
{
    scan->state = qr_store_state(scan->tree->store);
    /* Without a root page there is nothing that the paths could be relative to; and until all has
     * been looked at once, it is not known which names are links of one file. */
    scan->only_paths = scan->scope && scan->scope->paths && !scan->tree->file_name &&
                       scan->tree->scanned && qs_root_page(scan->tree, scan->state);
    scan->path_capacity = 256;
    int rc = QR_GROW(scan->places, scan->place_count, scan->place_capacity);
    if (rc == 0 && !(scan->path = qr_calloc(1, scan->path_capacity)))
        rc = qs_scan_no_memory();
    if (rc == 0) {
        scan->places[0] = (struct qs_place){0, NULL};
        scan->place_count = 1;
        qs_own_files_look(scan->tree);
        rc = scan->only_paths ? scan_paths(scan) : scan_root(scan, 1);
    }
    if (rc == 0)
        rc = qs_scan_free_vanished(scan);
    qs_scan_clear_marks(scan, rc < 0);
    return rc < 0 ? rc : qs_scan_order(scan);
}
