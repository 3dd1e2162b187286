/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Restoring in place.
 *
 * While it is under way the directory TARGET/.qallow-restore exists. It holds the journal (a text
 * file that names the epoch wanted, the one saved, and the newest before that) and the files that
 * are being written. Each file is finished there and then renamed over the one it replaces, so
 * that every name has either its old or its new content at any moment. The plan depends on nothing
 * but the disk and the log: after an interruption the same restore makes a new plan with what is
 * left to do, and a restore to the saved epoch undoes what was done. The journal goes last, after
 * one sync of the file system.
 *
 * Order: what has to go, children first; directories, files and symlinks in path order; attributes
 * of directories, the deepest first. Nothing is touched before it is known that all that is needed
 * can be read, and that nothing unrecorded would be lost.
 */
#include "sources/in_place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sources/path.h"
#include "sources/tree_internal.h"
#include "telemetry/telemetry.h"

#define JOURNAL "journal"
enum { JOURNAL_MAX = 256 };

/* A directory that is open, by its path. */
struct here {
    char *path;
    int fd;
};

struct apply {
    struct qs_in_place plan;
    const struct qs_restore_options *options;
    struct qs_restore_result *result;
    int root_fd, journal_fd;
    struct here here;
    uint64_t total, done;
};

static int no_memory(void) { return qr_fail(QALLOW_E_NO_MEMORY, "no memory for the restore"); }

/* --- the journal --- */

/* 1 with the epochs, 0 if there is none. */
static int read_journal(int root_fd, const char *target, struct qs_pending *pending)
{
    char text[JOURNAL_MAX + 1];
    const char *at = text;
    int fd = qs_open_beneath(root_fd, QS_JOURNAL "/" JOURNAL, O_RDONLY | O_NONBLOCK, 0);
    if (fd < 0)
        return errno == ENOENT || errno == ENOTDIR
                   ? 0
                   : qr_fail_errno(errno, "%s/" QS_JOURNAL "/" JOURNAL, qr_quotez(target));
    ssize_t n = pread(fd, text, JOURNAL_MAX, 0);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    if (!qs_parse_field(&at, "qallow-restore 1\nto ", &pending->to) ||
        !qs_parse_field(&at, "\nsaved ", &pending->saved) ||
        !qs_parse_field(&at, "\nbefore ", &pending->before) || strcmp(at, "\n") != 0)
        return qr_fail(QALLOW_E_SERIALIZATION,
                       "%s/" QS_JOURNAL "/" JOURNAL " is not a journal of a restore",
                       qr_quotez(target));
    return 1;
}

int qs_restore_pending(const char *target, struct qs_pending *pending)
{
    int fd = open(target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return qr_fail_errno(errno, "%s", qr_quotez(target));
    int rc = read_journal(fd, target, pending);
    close(fd);
    return rc;
}

/* Empties the journal's directory of what an interrupted restore left, but for the journal. */
static int clean_journal(int fd)
{
    struct qs_names names = {0};
    int rc = qs_names_read(&names, fd);
    const char *name = names.bytes + 1;
    for (size_t i = 0; rc == 0 && i < names.count; i++, name += strlen(name) + 2)
        if (strcmp(name, JOURNAL) != 0)
            rc = qs_remove_tree(fd, name);
    qs_names_finish(&names);
    return rc;
}

static int write_journal(struct apply *a, uint64_t to)
{
    const char *target = a->plan.tree->path;
    struct qs_pending first = {0, qr_state_epoch(a->plan.newest), qr_state_epoch(a->plan.before)};
    char text[JOURNAL_MAX];
    int fd = -1, rc = read_journal(a->root_fd, target, &first); /* keeps the first save */
    if (rc < 0)
        return rc;
    int n = snprintf(text, sizeof text, "qallow-restore 1\nto %llu\nsaved %llu\nbefore %llu\n",
                     (unsigned long long)to, (unsigned long long)first.saved,
                     (unsigned long long)first.before);
    if (mkdirat(a->root_fd, QS_JOURNAL, 0700) < 0 && errno != EEXIST)
        goto failed;
    a->journal_fd = openat(a->root_fd, QS_JOURNAL,
                           O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (a->journal_fd < 0 || clean_journal(a->journal_fd) != 0)
        goto failed;
    fd = openat(a->journal_fd, JOURNAL QS_TEMPORARY,
                O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 || qs_write_all(fd, text, (size_t)n, 0) < 0 || fsync(fd) < 0 ||
        renameat(a->journal_fd, JOURNAL QS_TEMPORARY, a->journal_fd, JOURNAL) < 0 ||
        fsync(a->journal_fd) < 0 || fsync(a->root_fd) < 0)
        goto failed;
    close(fd);
    return 0;
failed:
    rc = qr_fail_errno(errno, "%s/" QS_JOURNAL, qr_quotez(target));
    if (fd >= 0)
        close(fd);
    return rc;
}

static int remove_journal(struct apply *a)
{
    if (syncfs(a->root_fd) < 0 || clean_journal(a->journal_fd) != 0 ||
        unlinkat(a->journal_fd, JOURNAL, 0) < 0 ||
        unlinkat(a->root_fd, QS_JOURNAL, AT_REMOVEDIR) < 0 || fsync(a->root_fd) < 0)
        return qr_fail_errno(errno, "%s/" QS_JOURNAL, qr_quotez(a->plan.tree->path));
    return 0;
}

/* --- entries --- */

/* Opens the directory of a path; *name is what stands behind the last slash. */
static int go(struct apply *a, const char *path, const char **name)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    *name = slash ? slash + 1 : path;
    if (a->here.path && strlen(a->here.path) == n && memcmp(a->here.path, path, n) == 0)
        return 0;
    qr_free(a->here.path);
    if (a->here.fd >= 0)
        close(a->here.fd);
    a->here.fd = -1;
    if (!(a->here.path = qs_path_join("", path)))
        return no_memory();
    a->here.path[n] = 0;
    a->here.fd = qs_open_beneath(a->root_fd, a->here.path, O_RDONLY | O_DIRECTORY, 0);
    struct stat st;
    if (a->here.fd < 0 || fstat(a->here.fd, &st) < 0) {
        int rc = qs_restore_failed(errno, a->here.path);
        qr_free(a->here.path);
        a->here.path = NULL;
        return rc;
    }
    if ((st.st_mode & 0700) != 0700) /* gets its own mode back at the end */
        fchmod(a->here.fd, (st.st_mode & 07777) | 0700);
    return 0;
}

static int remove_entry(struct apply *a, const struct qs_planned *item)
{
    const char *name;
    int rc = go(a, item->path, &name);
    if (rc < 0)
        return rc;
    int is_directory = item->present == QR_KIND_DIRECTORY;
    if (unlinkat(a->here.fd, name, is_directory ? AT_REMOVEDIR : 0) == 0 || errno == ENOENT)
        return 0;
    if (is_directory && item->kind == QS_DELETE && (errno == ENOTEMPTY || errno == EEXIST))
        return 0; /* it holds what was never recorded */
    return qs_restore_failed(errno, item->path);
}

/* Writes a file or symlink beside the tree and renames it to where it belongs. */
static int put_entry(struct apply *a, const struct qs_planned *item)
{
    const struct qr_page *page = item->wanted;
    const char *name;
    char temporary[64];
    int fd = -1, rc = go(a, item->path, &name);
    if (rc < 0)
        return rc;
    snprintf(temporary, sizeof temporary, "%llu" QS_TEMPORARY, (unsigned long long)page->id);
    if (page->kind == QR_KIND_SYMLINK) {
        rc = qs_write_symlink(&a->plan.writer, page, a->journal_fd, temporary, item->path);
    } else {
        struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, qs_timespec(page->mtime_ns)};
        fd = openat(a->journal_fd, temporary,
                    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        rc = fd < 0 ? qs_restore_failed(errno, item->path)
                    : qs_write_content(&a->plan.writer, page, fd, item->path);
        if (rc == 0 && (fchmod(fd, page->mode & 07777) < 0 || futimens(fd, times) < 0))
            rc = qs_restore_failed(errno, item->path);
        if (fd >= 0 && close(fd) < 0 && rc == 0)
            rc = qs_restore_failed(errno, item->path);
    }
    if (rc == 0 && renameat(a->journal_fd, temporary, a->here.fd, name) < 0)
        rc = qs_restore_failed(errno, item->path);
    return rc;
}

/* Mode and mtime of what is there, whatever its mode now; never through a symlink. */
static int put_attributes(struct apply *a, const char *path, const struct qr_page *page)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, qs_timespec(page->mtime_ns)};
    char link[64];
    struct stat st;
    int rc = 0, fd = qs_open_beneath(a->root_fd, path, O_PATH, 0);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (fd < 0 || fstat(fd, &st) < 0)
        rc = -1;
    else if (S_ISLNK(st.st_mode) != (page->kind == QR_KIND_SYMLINK)) {
        rc = -1;
        errno = ELOOP;
    } else if (page->kind != QR_KIND_SYMLINK && (st.st_mode & 07777) != (page->mode & 07777))
        rc = chmod(link, page->mode & 07777);
    if (rc == 0 && qs_ns(st.st_mtim) != page->mtime_ns)
        rc = utimensat(fd, "", times, AT_EMPTY_PATH);
    if (rc < 0)
        rc = qs_restore_failed(errno, path);
    if (fd >= 0)
        close(fd);
    return rc;
}

static int make_directory(struct apply *a, const struct qs_planned *item)
{
    const char *name;
    int rc = go(a, item->path, &name);
    if (rc == 0 && mkdirat(a->here.fd, name, 0700) < 0)
        rc = qs_restore_failed(errno, item->path);
    return rc;
}

static void progress(struct apply *a, const struct qr_page *page)
{
    if (page->kind != QR_KIND_FILE)
        return;
    a->done += page->size;
    if (a->options->progress)
        a->options->progress(a->options->context, a->done, a->total);
}

static int put(struct apply *a, const struct qs_planned *item)
{
    int rc, attributes_only = item->kind == QS_ATTRIBUTES;
    switch (item->wanted->kind) {
    case QR_KIND_DIRECTORY:
        rc = attributes_only ? 0 : make_directory(a, item); /* attributes come at the end */
        a->result->directories++;
        break;
    case QR_KIND_FILE:
    case QR_KIND_SYMLINK:
        rc = attributes_only ? put_attributes(a, item->path, item->wanted) : put_entry(a, item);
        *(item->wanted->kind == QR_KIND_FILE ? &a->result->files : &a->result->symlinks) += 1;
        if (!attributes_only) {
            a->result->bytes += item->wanted->size;
            progress(a, item->wanted);
        }
        break;
    default:
        rc = qr_fail(QALLOW_E_SERIALIZATION, "page %llu: inside a directory, but of kind %d",
                     (unsigned long long)item->wanted->id, item->wanted->kind);
    }
    return rc;
}

/* Nothing that cannot be had back may be lost, and all that is needed must be readable. */
static int check(struct apply *a, struct qr_store *store)
{
    struct qb_u128 digest, wanted = a->options->digest;
    uint64_t bad = 0;
    for (size_t i = 0; i < a->plan.count; i++) {
        const struct qs_planned *item = &a->plan.items[i];
        if (item->blocked)
            return qr_fail(QALLOW_E_CANNOT_CREATE,
                           "%s: what is there was not recorded before and would be lost",
                           qr_quotez(item->path));
        if (item->changed_since && !a->options->force)
            return qr_fail(QALLOW_E_CANNOT_CREATE,
                           "%s: its present content is in no epoch and would be lost",
                           qr_quotez(item->path));
        if (item->wanted && item->wanted->kind == QR_KIND_FILE && item->kind != QS_ATTRIBUTES)
            a->total += item->wanted->size;
    }
    int rc = qr_state_digest_compute(store, a->plan.state, a->options->threads, &digest, &bad);
    if (rc == 0 && !qb_u128_equal(digest, wanted))
        rc = qr_fail(QALLOW_E_DAMAGED, "the state in the log does not have the recorded digest");
    return rc;
}

static int carry_out(struct apply *a)
{
    struct qs_in_place *plan = &a->plan;
    int rc = 0;
    for (size_t i = plan->count; i-- > 0 && rc == 0;) {
        const struct qs_planned *item = &plan->items[i];
        if (item->kind == QS_DELETE ||
            (item->kind == QS_OVERWRITE && (item->present == QR_KIND_DIRECTORY ||
                                            item->wanted->kind == QR_KIND_DIRECTORY)))
            rc = remove_entry(a, item);
    }
    for (size_t i = 0; i < plan->count && rc == 0; i++)
        if (plan->items[i].wanted)
            rc = put(a, &plan->items[i]);
    for (size_t i = plan->directory_count; i-- > 0 && rc == 0;)
        rc = put_attributes(a, plan->directories[i].path, plan->directories[i].page);
    return rc;
}

int qs_restore_in_place(struct qs_tree *target, const struct qr_state *state, uint64_t epoch,
                        const struct qs_restore_options *options,
                        struct qs_restore_result *result)
{
    struct apply a = {.options = options, .result = result, .root_fd = target->root_fd,
                      .journal_fd = -1, .here = {NULL, -1}};
    *result = (struct qs_restore_result){0};
    int rc = qs_in_place_plan(&a.plan, target, state, options->before);
    if (rc == 0)
        rc = check(&a, target->store);
    if (rc == 0)
        rc = write_journal(&a, epoch);
    if (rc == 0)
        rc = carry_out(&a);
    if (rc == 0)
        rc = remove_journal(&a);
    if (rc == 0 && a.plan.directory_count) /* the journal's own coming and going moved its mtime */
        rc = put_attributes(&a, "", a.plan.directories[0].page);
    if (rc == 0) {
        qt_add(QT_REPLAY_BYTES, result->bytes);
        qt_add(QT_REPLAY_PAGES, result->files + result->directories + result->symlinks);
    }
    for (size_t i = 0; i < a.plan.count && rc == 0 && options->kept; i++)
        if (a.plan.items[i].kind == QS_KEEP)
            options->kept(options->context, a.plan.items[i].path);
    qr_free(a.here.path);
    if (a.here.fd >= 0)
        close(a.here.fd);
    if (a.journal_fd >= 0)
        close(a.journal_fd);
    qs_in_place_finish(&a.plan);
    return rc;
}
