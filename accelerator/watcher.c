/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The watcher.
 *
 * One operation carries everything: *scan* a directory = add its watch, then list it, queue the
 * directories found there that are new, and mark it dirty. Because the watch comes before the
 * list, whatever is made in a directory is either listed or reported. It serves the start, a new
 * directory (mkdir -p a/b/c loses nothing), a directory that moved, an overflow (scan from the
 * root, all of it), a polled directory (mark only if its entries differ) and a full rescan.
 *
 * Events are old news: what they speak of may have changed again. Hence no event is trusted to
 * say where something is now:
 *   - A directory that moved is a detached node plus a deep scan of the new place. inotify returns
 *     the same descriptor for the same inode, so a scan that meets a known descriptor takes it over
 *     from the node that had it; a detached node left with a descriptor has left the tree, and its
 *     watch is removed. If the loser is still in the tree, it was looked up under a path that
 *     meant another directory by then: it is scanned again.
 *   - IN_IGNORED for a node in the tree: it is scanned again, which finds it or removes it.
 *   - An event for an unknown descriptor means that something was missed: full rescan.
 * A full rescan costs a pass over the tree, so after a few in a row they are held back, longer and
 * longer, up to ten seconds; events are taken in meanwhile.
 *
 * What cannot be watched is polled, never ignored: directories beyond the limit of watches, a
 * second mount of a watched directory, file systems that report nothing.
 */
#include "accelerator/watcher.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "accelerator/capability.h"
#include "accelerator/dirs.h"
#include "runtime/error.h"
#include "runtime/os.h"
#include "sources/path.h"
#include "telemetry/telemetry.h"

#define MS UINT64_C(1000000)

enum {
    EVENT_BUFFER = 64 * 1024,
    FREE_RESCANS = 3,
};
static const uint64_t poll_interval_ns = 1000 * MS;
static const uint64_t backoff_first_ns = 100 * MS, backoff_max_ns = 10000 * MS;
static const uint64_t calm_ns = 60000 * MS;       /* after this long without a rescan, start over */
static const int64_t young_ns = 50 * (int64_t)MS; /* a clock tick is at most 10 ms */

static const uint32_t event_mask = IN_CREATE | IN_DELETE | IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB |
                                   IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF |
                                   IN_ONLYDIR | IN_EXCL_UNLINK;

struct qa_watcher {
    struct qa_watcher_options options;
    const struct qa_inotify *inotify;
    struct qa_dirty *dirty;
    struct qa_dirs *dirs;
    int fd, parent_watch; /* -1: none */
    dev_t device;
    struct qa_dir *queue, **queue_end;
    int starting; /* nothing is marked during the first scan */
    struct qa_watcher_status status;
    uint64_t poll_at, poll_period, poll_salt;
    int limit_met, limit_said; /* of watches */
    int rescan_wanted;
    uint64_t rescan_at, last_rescan, rescans_in_a_row;
    /* the newest IN_MOVED_FROM, so that the two halves of a rename stay together */
    uint32_t from_cookie;
    uint64_t from_since;
    char *from_path, *path;
    size_t from_size, path_size;
    _Alignas(struct inotify_event) char buffer[EVENT_BUFFER];
};

uint64_t qa_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

/* --- small helpers --- */

static int no_memory(void) { return qr_fail(QALLOW_E_NO_MEMORY, "no memory for watching"); }

static void say(const struct qa_watcher *w, const char *line)
{
    if (w->options.notice)
        w->options.notice(w->options.context, line);
}

static int is_recorded(const struct qa_watcher *w, const char *path, int is_directory)
{
    return !w->options.is_recorded ||
           w->options.is_recorded(w->options.context, path, is_directory);
}

/* The path of dir/name, in the watcher's own buffer; NULL without memory. */
static char *path_of(struct qa_watcher *w, const struct qa_dir *dir, const char *name)
{
    return qa_dirs_path(dir, name, &w->path, &w->path_size);
}

static int is_followed(const struct qa_dir *dir) { return dir->watch >= 0 || dir->polled; }

static void enqueue(struct qa_watcher *w, struct qa_dir *dir, int deep)
{
    dir->deep |= deep != 0;
    if (dir->queued)
        return;
    dir->queued = 1;
    dir->next_queued = NULL;
    *w->queue_end = dir;
    w->queue_end = &dir->next_queued;
}

static struct qa_dir *dequeue(struct qa_watcher *w)
{
    struct qa_dir *dir = w->queue;
    if (!dir)
        return NULL;
    w->queue = dir->next_queued;
    if (!w->queue)
        w->queue_end = &w->queue;
    dir->queued = 0;
    return dir;
}

static void want_rescan(struct qa_watcher *w, uint64_t now)
{
    if (w->rescan_wanted)
        return;
    if (now - w->last_rescan > calm_ns)
        w->rescans_in_a_row = 0;
    uint64_t delay = 0;
    if (w->rescans_in_a_row >= FREE_RESCANS) {
        uint64_t doublings = w->rescans_in_a_row - FREE_RESCANS;
        delay = doublings > 10 ? backoff_max_ns : backoff_first_ns << doublings;
        if (delay > backoff_max_ns)
            delay = backoff_max_ns;
    }
    w->rescan_wanted = 1;
    w->rescan_at = w->last_rescan + delay;
}

/* --- scanning --- */

static int open_directory(const struct qa_watcher *w, const char *path)
{
    return qs_open_beneath(w->options.root_fd, path, O_RDONLY | O_DIRECTORY, 0);
}

/* The same directory under another name: a bind mount inside the tree. */
static int is_same_directory(struct qa_watcher *w, const struct qa_dir *other, int fd)
{
    struct stat here, there;
    const char *path = path_of(w, other, NULL);
    int other_fd = path ? open_directory(w, path) : -1;
    int same = other_fd >= 0 && fstat(fd, &here) == 0 && fstat(other_fd, &there) == 0 &&
               here.st_dev == there.st_dev && here.st_ino == there.st_ino;
    if (other_fd >= 0)
        close(other_fd);
    return same;
}

static void remove_watch(void *context, int watch)
{
    struct qa_watcher *w = context;
    w->inotify->remove(w->inotify->context, w->fd, watch);
}

static void set_polled(struct qa_watcher *w, struct qa_dir *dir)
{
    if (dir->polled)
        return;
    dir->polled = 1;
    dir->signature = 0;
    w->status.polled++;
    if (w->poll_at == UINT64_MAX)
        w->poll_at = qa_now_ns() + w->poll_period;
}

static void clear_polled(struct qa_watcher *w, struct qa_dir *dir)
{
    w->status.polled -= dir->polled;
    dir->polled = 0;
}

static void say_found(const struct qa_watcher *w, const struct qa_capability *found)
{
    char line[QA_CAPABILITY_LINE];
    say(w, qa_capability_line(found, line));
}

/* After a scan that ran out of watches: only then are the numbers known. */
static void say_watch_limit(struct qa_watcher *w)
{
    struct qa_capability found;
    if (!w->limit_met || w->limit_said)
        return;
    w->limit_said = 1;
    qa_explain_watch_limit(qa_dirs_count(w->dirs), qa_dirs_watches(w->dirs), &found);
    say_found(w, &found);
}

/* Sees to it that the open directory is watched as `dir`, or polled. */
static int watch(struct qa_watcher *w, struct qa_dir *dir, int fd)
{
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int watch = w->fd < 0 ? -ENOSYS : w->inotify->add(w->inotify->context, w->fd, link, event_mask);
    if (watch < 0) {
        w->limit_met |= watch == -ENOSPC;
        set_polled(w, dir);
        return 0;
    }
    if (dir->watch == watch)
        return 0;
    if (dir->watch >= 0) { /* that was another directory, which stood here before */
        int old = dir->watch;
        qa_dirs_release(w->dirs, old);
        remove_watch(w, old);
    }
    struct qa_dir *other = NULL;
    qa_dirs_find_watch(w->dirs, watch, &other);
    if (other && !other->detached) {
        if (is_same_directory(w, other, fd)) {
            set_polled(w, dir);
            return 0;
        }
        enqueue(w, other, 1);
    }
    clear_polled(w, dir);
    dir->deep = 1; /* not the directory that was known here: nor is what is below */
    return qa_dirs_bind(w->dirs, dir, watch) < 0 ? no_memory() : 0;
}

/* What a polled directory's entry looks like; one that changed just now looks different every
 * time, because it may change again without its time stamps moving. */
static uint64_t entry_signature(struct qa_watcher *w, const char *name, const struct stat *st)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t age = (now.tv_sec - st->st_ctim.tv_sec) * INT64_C(1000000000) +
                  (now.tv_nsec - st->st_ctim.tv_nsec);
    const uint64_t what[] = {st->st_ino,
                             (uint64_t)st->st_size,
                             st->st_mode,
                             (uint64_t)st->st_mtim.tv_sec,
                             (uint64_t)st->st_mtim.tv_nsec,
                             (uint64_t)st->st_ctim.tv_sec,
                             (uint64_t)st->st_ctim.tv_nsec,
                             age < young_ns ? ++w->poll_salt : 0};
    return XXH3_64bits_withSeed(what, sizeof what, XXH3_64bits(name, strlen(name)));
}

static int is_directory(int fd, const struct dirent *entry)
{
    struct stat st;
    if (entry->d_type != DT_UNKNOWN)
        return entry->d_type == DT_DIR;
    return fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

/* One entry of a directory that is being listed. */
static int see_entry(struct qa_watcher *w, struct qa_dir *dir, int fd, const struct dirent *entry)
{
    struct stat st;
    const char *name = entry->d_name;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return 0;
    if (w->options.only && strcmp(name, w->options.only) != 0)
        return 0;
    if (dir->polled && fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        dir->signature += entry_signature(w, name, &st);
    if (w->options.only || !is_directory(fd, entry))
        return 0;
    const char *path = path_of(w, dir, name);
    if (!path)
        return no_memory();
    if (!is_recorded(w, path, 1))
        return 0;
    struct qa_dir *child = qa_dirs_child(w->dirs, dir, name);
    /* It may be known only as part of the way to another one (qa_watcher_found), or have been
     * unreadable. */
    if (!child || !is_followed(child) || dir->deep) {
        child = qa_dirs_add(w->dirs, dir, name);
        if (!child)
            return no_memory();
        enqueue(w, child, dir->deep);
    }
    child->seen = 1;
    return 0;
}

static void detach(struct qa_watcher *w, struct qa_dir *dir)
{
    qa_dirs_detach(w->dirs, dir);
    /* Detached nodes are not polled; the count is put right when the next poll counts them. */
    clear_polled(w, dir);
}

/* Lists the directory (and closes fd), queues what is new below it, drops what is gone. */
static int list(struct qa_watcher *w, struct qa_dir *dir, int fd, const struct stat *st)
{
    int result = 0;
    DIR *stream = fdopendir(fd);
    if (!stream) {
        close(fd);
        return no_memory();
    }
    for (struct qa_dir *child = dir->first_child; child; child = child->next_sibling)
        child->seen = 0;
    /* The directory itself counts: whoever captured it may have met another one in its place, and
     * all that are empty look alike. */
    dir->signature = dir->polled ? entry_signature(w, "", st) : 0;
    const struct dirent *entry;
    errno = 0;
    while (result == 0 && (entry = readdir(stream))) {
        result = see_entry(w, dir, fd, entry);
        errno = 0;
    }
    int complete = result == 0 && errno == 0;
    closedir(stream);
    struct qa_dir *next;
    for (struct qa_dir *child = dir->first_child; child && complete; child = next) {
        next = child->next_sibling;
        if (!child->seen)
            detach(w, child);
    }
    return result;
}

/* The directory cannot be opened. */
static int scan_failed(struct qa_watcher *w, struct qa_dir *dir, int err)
{
    int is_gone = err == ENOENT || err == ENOTDIR || err == ELOOP;
    if (err == ENOMEM)
        return no_memory();
    if (!dir->parent)
        w->status.root_gone |= is_gone;
    else if (is_gone)
        detach(w, dir);
    else if (err != EACCES) /* becoming readable is an event in the directory above */
        set_polled(w, dir);
    return 0;
}

static int scan(struct qa_watcher *w, struct qa_dir *dir)
{
    struct stat st;
    uint64_t old_signature = dir->signature;
    int was_polled = dir->polled;
    const char *path = path_of(w, dir, NULL);
    if (!path)
        return no_memory();
    int fd = open_directory(w, path), err = errno;
    if (!w->starting && !(was_polled && fd >= 0))
        qa_dirty_mark(w->dirty, path, qa_now_ns(), 0, 0);
    if (fd < 0)
        return scan_failed(w, dir, err);
    if (fstat(fd, &st) < 0 || st.st_nlink == 0 || st.st_dev != w->device) {
        close(fd);
        if (dir->parent)
            detach(w, dir);
        else
            w->status.root_gone = 1;
        return 0;
    }
    int result = watch(w, dir, fd);
    if (result < 0) {
        close(fd);
        return result;
    }
    result = list(w, dir, fd, &st);
    if (result == 0 && was_polled && !w->starting && !dir->detached &&
        (!dir->polled || dir->signature != old_signature)) {
        path = path_of(w, dir, NULL);
        if (!path)
            return no_memory();
        qa_dirty_mark(w->dirty, path, qa_now_ns(), 0, 0);
        qt_add(QT_WATCH_SYNTHETIC, 1);
    }
    dir->deep = 0;
    return result;
}

static int run_queue(struct qa_watcher *w)
{
    int result = 0;
    struct qa_dir *dir;
    while (result == 0 && (dir = dequeue(w)))
        if (!dir->detached)
            result = scan(w, dir);
    if (result == 0)
        qa_dirs_free_detached(w->dirs, remove_watch, w);
    qt_set(QT_WATCHES, qa_dirs_watches(w->dirs));
    say_watch_limit(w);
    return result;
}

int qa_watcher_rescan(struct qa_watcher *w)
{
    enqueue(w, qa_dirs_root(w->dirs), 1);
    int result = run_queue(w);
    uint64_t now = qa_now_ns();
    w->rescan_wanted = 0;
    w->last_rescan = now;
    w->status.rescans++;
    qt_add(QT_WATCH_RESCANS, 1);
    qa_dirty_mark_everything(w->dirty, now);
    return result;
}

/* --- events --- */

/* Marks dir/name, keeping the two halves of a rename together. */
static int mark(struct qa_watcher *w, const char *path, const struct inotify_event *e, uint64_t now)
{
    if (e->mask & IN_MOVED_FROM) {
        size_t size = strlen(path) + 1;
        if (size > w->from_size) {
            char *larger = qr_realloc(w->from_path, size * 2);
            if (!larger)
                return no_memory();
            w->from_path = larger;
            w->from_size = size * 2;
        }
        memcpy(w->from_path, path, size);
        w->from_cookie = e->cookie;
        w->from_since = qa_dirty_mark(w->dirty, path, now, 0, QA_DIRTY_MOVED);
    } else if (e->mask & IN_MOVED_TO && e->cookie == w->from_cookie && w->from_path) {
        uint64_t since = qa_dirty_mark(w->dirty, path, now, w->from_since, QA_DIRTY_MOVED);
        if (since < w->from_since)
            qa_dirty_mark(w->dirty, w->from_path, now, since, QA_DIRTY_MOVED);
    } else {
        qa_dirty_mark(w->dirty, path, now, 0, 0);
    }
    return 0;
}

/* Something happened to an entry of `dir` that is itself a directory. */
static int directory_event(struct qa_watcher *w, struct qa_dir *dir, const struct inotify_event *e)
{
    struct qa_dir *child = qa_dirs_child(w->dirs, dir, e->name);
    if (child && e->mask & (IN_CREATE | IN_MOVED_TO | IN_DELETE | IN_MOVED_FROM))
        detach(w, child);
    /* RENAME_EXCHANGE: in the place of what has left stands what was reported before. */
    if (e->mask & (IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM)) {
        child = qa_dirs_add(w->dirs, dir, e->name);
        if (!child)
            return no_memory();
        enqueue(w, child, 1);
    } else if (e->mask & IN_ATTRIB && child && child->watch < 0) {
        enqueue(w, child, 1); /* perhaps it can be read now */
    }
    return 0;
}

static int entry_event(struct qa_watcher *w, struct qa_dir *dir, const struct inotify_event *e,
                       uint64_t now)
{
    if (w->options.only && strcmp(e->name, w->options.only) != 0)
        return 0;
    const char *path = path_of(w, dir, e->name);
    if (!path)
        return no_memory();
    int is_dir = (e->mask & IN_ISDIR) != 0;
    if (!is_recorded(w, path, is_dir))
        return 0;
    int result = mark(w, path, e, now);
    if (result == 0 && is_dir && !w->options.only)
        result = directory_event(w, dir, e);
    return result;
}

/* Something happened to a watched directory itself. */
static int self_event(struct qa_watcher *w, struct qa_dir *dir, const struct inotify_event *e,
                      uint64_t now)
{
    if (e->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT)) {
        if (!dir->parent)
            w->status.root_gone = 1;
        else if (dir->parent->watch < 0) /* otherwise the one above reports it */
            enqueue(w, dir->parent, 1);
        return 0;
    }
    const char *path = path_of(w, dir, NULL);
    if (!path)
        return no_memory();
    if (!w->options.only)
        qa_dirty_mark(w->dirty, path, now, 0, 0);
    return 0;
}

static int take_event(struct qa_watcher *w, const struct inotify_event *e, uint64_t now)
{
    struct qa_dir *dir = NULL;
    w->status.events++;
    if (e->mask & IN_Q_OVERFLOW) {
        w->status.overflows++;
        qt_add(QT_WATCH_OVERFLOWS, 1);
        qt_log(QT_WARN, "more events than the kernel keeps: the whole tree is looked at again");
        want_rescan(w, now);
        return 0;
    }
    if (e->wd == w->parent_watch) {
        struct stat st;
        w->status.root_gone |= fstat(w->options.root_fd, &st) < 0 || st.st_nlink == 0;
        return 0;
    }
    if (!qa_dirs_find_watch(w->dirs, e->wd, &dir)) {
        want_rescan(w, now);
        return 0;
    }
    if (e->mask & IN_IGNORED) {
        qa_dirs_forget(w->dirs, e->wd);
        if (dir && !dir->detached)
            enqueue(w, dir, 0);
        return 0;
    }
    if (!dir || dir->detached) /* of a directory that is no longer ours, or moved: then scanned */
        return 0;
    return e->len ? entry_event(w, dir, e, now) : self_event(w, dir, e, now);
}

int qa_watcher_drain(struct qa_watcher *w)
{
    int result = 0;
    if (w->fd < 0)
        return qa_watcher_work(w, 0);
    uint64_t now = qa_now_ns(), events = w->status.events;
    int pending = w->inotify->pending(w->inotify->context, w->fd);
    for (ssize_t taken = 0, n = 0; result == 0 && taken < pending; taken += n) {
        n = w->inotify->read(w->inotify->context, w->fd, w->buffer, sizeof w->buffer);
        if (n == -EAGAIN || n == 0)
            break;
        if (n < 0)
            return qr_fail_errno((int)-n, "reading file-system events");
        for (ssize_t at = 0; result == 0 && at < n;) {
            const struct inotify_event *e = (const void *)(w->buffer + at);
            result = take_event(w, e, now);
            at += (ssize_t)(sizeof *e + e->len);
        }
    }
    qt_add(QT_WATCH_EVENTS, w->status.events - events);
    if (result == 0)
        result = run_queue(w);
    if (result == 0)
        result = qa_watcher_work(w, 0);
    return result;
}

/* --- what is due --- */

uint64_t qa_watcher_deadline(const struct qa_watcher *w)
{
    uint64_t at = w->rescan_wanted ? w->rescan_at : UINT64_MAX;
    return w->poll_at < at ? w->poll_at : at;
}

/* Scans every polled directory again; those that can be watched by now are. */
static int poll_directories(struct qa_watcher *w)
{
    uint64_t start = qa_now_ns();
    size_t polled = 0;
    for (struct qa_dir *dir = qa_dirs_root(w->dirs); dir; dir = qa_dirs_next(dir)) {
        if (dir->polled) {
            polled++;
            enqueue(w, dir, 0);
        }
    }
    w->status.polled = polled;
    int result = run_queue(w);
    if (w->status.polled == 0) {
        w->poll_at = UINT64_MAX;
        w->limit_met = w->limit_said = 0;
        return result;
    }
    uint64_t now = qa_now_ns(); /* a large tree is polled less often: at most a tenth of the time */
    uint64_t period = (now - start) * 10;
    w->poll_period = period > poll_interval_ns ? period : poll_interval_ns;
    w->poll_at = now + w->poll_period;
    return result;
}

int qa_watcher_work(struct qa_watcher *w, int force)
{
    int result = 0;
    uint64_t now = qa_now_ns();
    if (w->rescan_wanted && (force || now >= w->rescan_at)) {
        result = qa_watcher_rescan(w);
        w->rescans_in_a_row++;
    }
    if (result == 0 && w->poll_at != UINT64_MAX && (force || now >= w->poll_at))
        result = poll_directories(w);
    return result;
}

/* The node of a directory, made if it is not known. */
static int node_of(struct qa_watcher *w, const char *path, struct qa_dir **out)
{
    struct qa_dir *dir = qa_dirs_root(w->dirs);
    for (const char *name = path; strcmp(path, ".") != 0 && *name;) {
        size_t length = strcspn(name, "/");
        char part[NAME_MAX + 1];
        if (length > NAME_MAX)
            return qr_fail(QALLOW_E_LIMIT, "%s: name too long", qr_quotez(path));
        memcpy(part, name, length);
        part[length] = '\0';
        dir = qa_dirs_add(w->dirs, dir, part);
        if (!dir)
            return no_memory();
        name += length + (name[length] == '/');
    }
    *out = dir;
    return 0;
}

int qa_watcher_found(struct qa_watcher *w, const char *path)
{
    struct qa_dir *dir;
    if (w->options.only)
        return 0;
    int result = node_of(w, path, &dir);
    if (result < 0 || is_followed(dir))
        return result;
    int fd = open_directory(w, path);
    if (fd < 0) /* gone again, which is an event, or unreadable, which the caller finds out */
        return 0;
    result = watch(w, dir, fd);
    close(fd);
    return result;
}

void qa_watcher_doubt(struct qa_watcher *w, const char *path)
{
    struct qa_dir *dir = qa_dirs_root(w->dirs), *child = dir;
    for (; child && *path; dir = child ? child : dir) {
        char name[NAME_MAX + 1];
        size_t length = strcspn(path, "/");
        if (length > NAME_MAX)
            break;
        memcpy(name, path, length);
        name[length] = '\0';
        path += length + (path[length] == '/');
        child = qa_dirs_child(w->dirs, dir, name);
    }
    dir->signature = 0;
}

int qa_watcher_enter(struct qa_watcher *w, const char *path, int fd)
{
    struct qa_dir *dir;
    int result = node_of(w, path, &dir);
    if (result < 0 || is_followed(dir))
        return result;
    result = watch(w, dir, fd);
    dir->deep = 0; /* what is below is entered next */
    return result;
}

int qa_watcher_entered(struct qa_watcher *w) { return run_queue(w); }

void qa_watcher_status(const struct qa_watcher *w, struct qa_watcher_status *status)
{
    *status = w->status;
    status->directories = qa_dirs_count(w->dirs);
    status->watches = qa_dirs_watches(w->dirs);
}

int qa_watcher_fd(const struct qa_watcher *w) { return w->fd; }

/* --- life --- */

/* Opens the event queue, or says why everything will be polled. */
static void open_events(struct qa_watcher *w)
{
    struct qa_capability found = {.result = 0};
    w->fd = -1;
    if (w->options.poll)
        return;
    if (!w->options.no_poll)
        qa_probe_file_system(w->inotify, w->options.root_fd, "the directory", &found);
    if (found.result == 0)
        w->fd = qa_open_inotify(w->inotify, &found);
    if (found.result < 0)
        say_found(w, &found);
}

/* The root is held open, so its deletion is an event of the directory above only. */
static void watch_parent(struct qa_watcher *w)
{
    char link[48];
    snprintf(link, sizeof link, "/proc/self/fd/%d/..", w->options.root_fd);
    if (w->fd >= 0)
        w->parent_watch = w->inotify->add(w->inotify->context, w->fd, link,
                                          IN_DELETE | IN_MOVED_FROM | IN_ONLYDIR);
}

int qa_watcher_create(const struct qa_watcher_options *options, struct qa_dirty *dirty,
                      struct qa_watcher **out)
{
    struct stat st;
    struct qa_watcher *w = qr_calloc(1, sizeof *w);
    if (!w)
        return no_memory();
    w->options = *options;
    w->inotify = options->inotify ? options->inotify : qa_inotify_kernel();
    w->dirty = dirty;
    w->fd = w->parent_watch = -1;
    w->queue_end = &w->queue;
    w->poll_at = UINT64_MAX;
    w->poll_period = poll_interval_ns;
    int result = qa_dirs_create(&w->dirs);
    if (result < 0)
        goto out;
    if (fstat(options->root_fd, &st) < 0) {
        result = qr_fail_errno(errno, "the watched directory");
        goto out;
    }
    w->device = st.st_dev;
    open_events(w);
    watch_parent(w);
    if (w->fd < 0 || !options->is_entered) {
        w->starting = 1;
        enqueue(w, qa_dirs_root(w->dirs), 1);
        result = run_queue(w);
        w->starting = 0;
    }
    if (result == 0 && w->status.root_gone)
        result = qr_fail(QALLOW_E_NO_INPUT, "the watched directory is gone");
out:
    if (result < 0)
        qa_watcher_destroy(w);
    else
        *out = w;
    return result;
}

void qa_watcher_destroy(struct qa_watcher *w)
{
    if (!w)
        return;
    if (w->fd >= 0)
        close(w->fd);
    qa_dirs_destroy(w->dirs);
    qr_free(w->from_path);
    qr_free(w->path);
    qr_free(w);
}
