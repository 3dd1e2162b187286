/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening and closing a store, labels, and facts about it.
 *
 * Beside LOG stand LOG-index (index.c), LOG.lock and, after a crash, LOG.bad. The lock file is
 * locked as long as a process writes; it says who ("pid 123") and how far the log is durable
 * ("synced 8192"), which followers read. It stays when the writer ends: removing it could leave two
 * processes with two locks.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "runtime/error.h"
#include "runtime/store_internal.h"
#include "telemetry/telemetry.h"

/* ---------------------------------------------------------------- the lock */

/* What the lock file says: pid and synced_to; zeros if it says nothing. */
static void read_lock_text(struct qr_store *store, int file, int *pid, uint64_t *synced)
{
    char text[65] = "", *end;
    *pid = 0;
    *synced = 0;
    if (store->os->pread(store->os->context, file, text, 64, 0) < 0 || strncmp(text, "pid ", 4))
        return;
    *pid = (int)strtol(text + 4, &end, 10);
    end += strspn(end, " ");
    if (!strncmp(end, "synced ", 7))
        *synced = strtoull(end + 7, NULL, 10);
}

static int take_lock(struct qr_store *store)
{
    const struct qr_os *os = store->os;
    int pid;
    uint64_t synced;
    if (!os->lock)
        return 0;
    char *path = qr_path_with(store->path, ".lock");
    if (!path)
        return QALLOW_E_NO_MEMORY;
    int file = os->open(os->context, path, QR_OPEN_WRITE, 0);
    if (file == -ENOENT)
        file = os->open(os->context, path, QR_OPEN_CREATE, 0600);
    if (file == -EEXIST) /* somebody was quicker */
        file = os->open(os->context, path, QR_OPEN_WRITE, 0);
    int rc = file < 0 ? qr_fail_errno(-file, "%s: cannot open", qr_quotez(path)) : 0;
    if (rc == QALLOW_E_NO_INPUT)
        rc = QALLOW_E_CANNOT_CREATE;
    qr_free(path);
    if (rc)
        return rc;
    int result = os->lock(os->context, file);
    if (result >= 0) {
        store->lock_file = file;
        store->info.owner_pid = (int)getpid();
        return 0;
    }
    read_lock_text(store, file, &pid, &synced);
    os->close(os->context, file);
    if (result != -EAGAIN)
        return qr_fail_errno(-result, "%s: cannot lock", qr_quotez(store->path));
    if (pid == 0) /* it has not come to saying so */
        return qr_fail(QALLOW_E_BUSY, "%s: another process is recording to it",
                       qr_quotez(store->path));
    return qr_fail(QALLOW_E_BUSY, "%s: process %d is recording to it", qr_quotez(store->path), pid);
}

/* Who holds the lock now, and how far the log is durable; 0, 0 if nobody holds it. */
static void ask_owner(struct qr_store *store, int *pid, uint64_t *synced)
{
    const struct qr_os *os = store->os;
    *pid = 0;
    *synced = 0;
    char *path = os->is_locked ? qr_path_with(store->path, ".lock") : NULL;
    int file = path ? os->open(os->context, path, QR_OPEN_READ, 0) : -1;
    if (file >= 0) {
        if (os->is_locked(os->context, file) == 1)
            read_lock_text(store, file, pid, synced);
        os->close(os->context, file);
    }
    qr_free(path);
}

/* ---------------------------------------------------------------- open and close */

static int create_log(struct qr_store *store)
{
    struct qr_log_header header = {.start = QR_FIRST_FRAME, .sequence = 0};
    const struct qr_store_options *o = &store->options;
    header.first_epoch = header.next_epoch = o->first_epoch ? o->first_epoch : 1;
    header.flags = o->first_epoch ? QR_LOG_CHECKPOINT : 0;
    if (o->uuid) {
        memcpy(header.uuid, o->uuid, sizeof header.uuid);
    } else {
        int rc = store->os->random(store->os->context, header.uuid, sizeof header.uuid);
        if (rc < 0)
            return qr_fail_errno(-rc, "random bytes for the uuid of %s", qr_quotez(store->path));
    }
    return qr_log_create(store->os, store->path, &header);
}

static int open_file(struct qr_store *store)
{
    int rc = qr_log_open(store->os, store->path, store->options.writable, &store->log);
    if (rc == QALLOW_E_NO_INPUT && store->options.create && !(rc = create_log(store)))
        rc = qr_log_open(store->os, store->path, store->options.writable, &store->log);
    if (!rc && store->options.writable && (store->log->header.flags & QR_LOG_CHECKPOINT) &&
        !store->options.first_epoch)
        rc = qr_fail(QALLOW_E_ARGUMENT, "%s is a checkpoint file; nothing can be recorded into it",
                     qr_quotez(store->path));
    return rc;
}

static void store_free(struct qr_store *store)
{
    qr_state_destroy(store->state);
    qr_directory_finish(&store->directory);
    qr_log_close(store->log);
    if (store->lock_file >= 0)
        store->os->close(store->os->context, store->lock_file);
    pthread_rwlock_destroy(&store->lock);
    pthread_mutex_destroy(&store->sharing.lock);
    qr_durable_finish(store);
    qr_free(store->path);
    qr_free(store);
}

static void init_sharing(struct qr_store *store)
{
    pthread_mutexattr_t recursive;
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&store->sharing.lock, &recursive);
    pthread_mutexattr_destroy(&recursive);
}

int qr_store_open(const char *path, const struct qr_store_options *options, struct qr_store **out)
{
    struct qr_store *store = qr_calloc(1, sizeof *store);
    if (!store)
        return qr_fail(QALLOW_E_NO_MEMORY, "%s", qr_quotez(path));
    store->options = *options;
    store->os = options->os ? options->os : qr_os_posix();
    store->meter.os = store->os;
    store->lock_file = -1;
    if (!store->options.sync_interval_ms)
        store->options.sync_interval_ms = 1000;
    pthread_rwlock_init(&store->lock, NULL);
    init_sharing(store);
    qr_durable_init(store);
    store->path = qr_path_with(path, "");
    int rc = store->path ? 0 : QALLOW_E_NO_MEMORY;
    if (!rc && options->writable) { /* no lock beside what is no log, or is not there */
        struct qr_log *probe;
        rc = qr_log_open(store->os, path, 0, &probe);
        if (!rc)
            qr_log_close(probe);
        if (rc == QALLOW_E_NO_INPUT && options->create)
            rc = 0;
    }
    if (!rc && options->writable && !options->no_lock)
        rc = take_lock(store);
    if (!rc)
        rc = open_file(store);
    if (!rc)
        rc = qr_store_recover(store);
    if (rc) {
        store_free(store);
        return rc;
    }
    if (options->writable) {
        qr_state_set_held_limits(store->state, options->hold_bytes, options->hold_bytes);
        store->state->sharing = &store->sharing;
        qr_durable_begin(store);
        qt_set(QT_PAGES, store->state->page_count);
        qt_set(QT_PAGE_BYTES, store->state->bytes);
    }
    *out = store;
    return 0;
}

/* The closing mark, so that the next open knows that nothing is missing. Synced whatever the mode:
 * the index may only speak of what is durable, and closing is once. */
static int close_log(struct qr_store *store)
{
    struct qr_log *log = store->log;
    int rc = 0, unmarked = store->appended || !store->info.closed_cleanly;
    qr_durable_look(store); /* the mark says what is durable: else damage would look like a tear */
    if (unmarked) {
        rc = qr_log_append(log, QR_FRAME_CLOSE, 0, "", 0, NULL);
        if (!rc)
            rc = qr_log_flush(log);
        if (!rc && log->preallocated > log->end) {
            int result = log->os->truncate(log->os->context, log->file, log->end);
            if (result < 0)
                rc = qr_fail_errno(-result, "%s: giving preallocated blocks back",
                                   qr_quotez(store->path));
            log->preallocated = 0;
        }
    }
    if (!rc && (unmarked || store->index_stale || !store->info.index_used)) {
        rc = qr_store_sync_log(store);
        if (!rc)
            rc = qr_index_write(store);
    }
    return rc;
}

int qr_store_close(struct qr_store *store)
{
    int rc = 0;
    if (!store)
        return 0;
    qr_txn_abort(store->txn);
    if (store->options.writable) /* the detail of what broke it stays */
        rc = store->broken || store->log->failed ? QALLOW_E_STATE : close_log(store);
    store_free(store);
    return rc;
}

uint64_t qr_store_max_memory(const struct qr_store *store) { return store->options.max_memory; }
int qr_store_compress_level(const struct qr_store *store)
{
    return store->options.compress_level;
}
const char *qr_store_path(const struct qr_store *store) { return store->path; }
const struct qr_state *qr_store_state(struct qr_store *store) { return store->state; }

struct qr_meter *qr_store_meter(struct qr_store *store) { return &store->meter; }
void qr_store_read_lock(struct qr_store *store) { pthread_rwlock_rdlock(&store->lock); }
void qr_store_read_unlock(struct qr_store *store) { pthread_rwlock_unlock(&store->lock); }
int qr_store_sync(struct qr_store *store)
{
    int rc = qr_store_check_writable(store);
    return rc ? rc : qr_store_sync_log(store);
}

void qr_store_set_stat(struct qr_store *store, uint64_t id, struct qr_stat_cache stat)
{
    struct qr_page *page = qr_state_find(store->state, id);
    if (!page || (page->stat.inode == stat.inode && page->stat.device == stat.device &&
                  page->stat.ctime_ns == stat.ctime_ns))
        return;
    page->stat = stat;
    store->index_stale = 1;
}

int qr_store_hold(struct qr_store *store, uint64_t id, struct qr_reader *reader,
                  const uint8_t **bytes)
{
    struct qr_page *page = qr_state_find(store->state, id);
    *bytes = NULL;
    if (!page)
        return qr_fail(QALLOW_E_PAGE_NOT_FOUND, "page %llu does not exist", (unsigned long long)id);
    int rc = qr_state_hold(store->state, page, reader);
    if (!rc)
        *bytes = page->held;
    return rc;
}

void qr_store_info(struct qr_store *store, struct qr_store_info *info)
{
    const struct qr_directory *d = &store->directory;
    const struct qr_log_header *h = &store->log->header;
    uint64_t owner_synced;
    *info = store->info;
    memcpy(info->uuid, h->uuid, sizeof info->uuid);
    info->last_epoch = store->state->epoch;
    info->first_epoch = info->last_epoch >= h->first_epoch ? h->first_epoch : 0;
    info->log_end = store->log->end;
    info->log_start = h->start;
    int64_t size = store->os->size(store->os->context, store->log->file);
    info->allocated = size < 0 ? 0 : (uint64_t)size - (h->start - QR_FIRST_FRAME);
    info->synced_to = store->log->synced_to;
    info->keyframes = d->keyframe_count;
    uint64_t keyframe = d->keyframe_count ? d->keyframes[d->keyframe_count - 1].epoch : 0;
    info->commits_since_keyframe = info->last_epoch > keyframe ? info->last_epoch - keyframe : 0;
    if (!store->options.writable) {
        ask_owner(store, &info->owner_pid, &owner_synced);
        if (owner_synced)
            info->synced_to = owner_synced;
    }
}

/* ---------------------------------------------------------------- labels */

static int check_label(const char *name)
{
    size_t length = strlen(name);
    int bad = length == 0 || length > 255;
    for (size_t i = 0; i < length && !bad; i++)
        bad = (unsigned char)name[i] < 0x20 || name[i] == 0x7f;
    if (bad)
        return qr_fail(QALLOW_E_ARGUMENT,
                       "label %s: a label has 1 to 255 bytes without control characters",
                       length ? qr_quotez(name) : "''");
    return 0;
}

static int enter_label(struct qr_store *store, const char *name, uint64_t epoch)
{
    pthread_rwlock_wrlock(&store->lock);
    int rc = qr_directory_set_label(&store->directory, name, strlen(name), epoch);
    pthread_rwlock_unlock(&store->lock);
    return rc;
}

int qr_store_label(struct qr_store *store, const char *name, uint64_t epoch)
{
    uint8_t body[300], *p = body;
    struct qr_epoch info;
    int rc = qr_store_check_writable(store);
    if (!rc)
        rc = check_label(name);
    if (!rc && store->txn)
        rc = qr_fail(QALLOW_E_STATE, "a label cannot be set within a transaction");
    if (rc)
        return rc;
    if (!epoch)
        epoch = store->state->epoch;
    if ((rc = qr_store_epoch(store, epoch, &info)))
        return rc;
    size_t length = strlen(name);
    p = qr_put_varint(p, epoch);
    p = qr_put_varint(p, length);
    memcpy(p, name, length);
    /* entered first: what needs memory, and can be taken back without */
    uint64_t before = qr_directory_label(&store->directory, name, length);
    if ((rc = enter_label(store, name, epoch)))
        return rc;
    struct qr_log_mark mark = qr_log_mark(store->log);
    rc = qr_log_append(store->log, QR_FRAME_LABEL, 0, body, (size_t)(p - body) + length, NULL);
    if (!rc)
        rc = store->options.sync == QR_SYNC_COMMIT ? qr_store_sync_log(store)
                                                   : qr_log_flush(store->log);
    if (rc) {
        enter_label(store, name, before);
        if (store->log->failed || qr_log_rewind(store->log, mark))
            store->broken = 1;
        return rc;
    }
    store->appended = 1;
    return 0;
}

int qr_store_each_label(struct qr_store *store,
                        int (*visit)(void *context, const char *name, uint64_t epoch),
                        void *context)
{
    int rc = 0;
    for (size_t i = 0; i < store->directory.label_count && !rc; i++)
        rc = visit(context, store->directory.labels[i].name, store->directory.labels[i].epoch);
    return rc;
}
