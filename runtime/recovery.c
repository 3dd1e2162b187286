/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a log that nobody closed: three outcomes, never a guess
 * (docs/formats/tlog.md, "Opening, recovery, durability").
 *
 * The newest trusted place (index, else the base keyframe, else the start) gives a state; the chain
 * from there gives every later epoch. Where the chain ends at offset X:
 *   - only zeros, or nothing, behind it: clean;
 *   - X at or beyond every synced_to seen, before or behind X: torn tail; a writer cuts it, keeping
 *     the bytes in LOG.bad; a reader just stops there;
 *   - X below some synced_to: damage; refused (with options.salvage: stepped over to the next
 *     keyframe that can be read).
 * An unfinished transaction at the end is cut like a torn tail. Its records have touched the state
 * by then, so the work is done once more with a limit; that happens only after a crash.
 *
 * What is found and not known to be durable is synced before anything is built on it.
 * Order of writes when cutting: LOG.bad written and synced, its directory synced, then the log
 * truncated and synced. A crash in between leaves a log that is cut again, with one more .bad.
 */
#include <errno.h>
#include <stdio.h>

#include "runtime/error.h"
#include "runtime/store_internal.h"
#include "telemetry/telemetry.h"

int qr_store_note_frame(struct qr_store *store, const struct qr_frame *frame)
{
    struct qr_cursor c = qr_cursor(frame->body, frame->length);
    if (frame->type != QR_FRAME_KEYFRAME)
        store->pending_keyframe = 0; /* one that was never finished */
    if (frame->type == QR_FRAME_LABEL) {
        uint64_t epoch = qr_get_varint(&c), length = qr_get_varint(&c);
        const uint8_t *name = qr_get_bytes(&c, length);
        if (c.bad || c.at != c.end || !length || length > 255 || memchr(name, 0, length))
            return qr_fail(QALLOW_E_SERIALIZATION, "a malformed label frame at offset %llu",
                           (unsigned long long)frame->offset);
        return qr_directory_set_label(&store->directory, name, (size_t)length, epoch);
    }
    if (frame->type == QR_FRAME_RELOCATION)
        return qr_directory_add_relocation_frame(&store->directory, frame->offset);
    if (frame->type != QR_FRAME_KEYFRAME)
        return 0;
    uint64_t epoch = qr_get_varint(&c), part = qr_get_varint(&c);
    int last = qr_get_u8(&c);
    if (c.bad)
        return qr_fail(QALLOW_E_SERIALIZATION, "a malformed keyframe at offset %llu",
                       (unsigned long long)frame->offset);
    if (part == 0) {
        store->pending_keyframe = frame->offset;
        store->pending_epoch = epoch;
    }
    if (!last || !store->pending_keyframe || store->pending_epoch != epoch)
        return 0;
    store->keyframe_end = frame->offset + qr_frame_span(frame->stored);
    store->keyframe_bytes = store->keyframe_end - store->pending_keyframe;
    uint64_t offset = store->pending_keyframe;
    store->pending_keyframe = 0;
    return qr_directory_add_keyframe(&store->directory, epoch, offset);
}

static int note_frame(void *context, const struct qr_frame *frame)
{
    return qr_store_note_frame(context, frame);
}

/* The newest state that needs no chain: *offset and *prev say where the chain goes on. */
static int load_base(struct qr_store *store, uint64_t *offset, uint64_t *prev)
{
    struct qr_log *log = store->log;
    const struct qr_log_header *h = &log->header;
    int use_index = !store->options.ignore_index && !store->options.no_index;
    for (int attempt = use_index ? 0 : 1; attempt < 2; attempt++) {
        qr_state_destroy(store->state);
        store->state = NULL;
        qr_directory_finish(&store->directory);
        store->keyframe_end = h->start;
        store->keyframe_bytes = 0;
        store->pending_keyframe = 0;
        store->info.closed_cleanly = store->info.index_used = 0;
        int rc = qr_state_create(&store->state);
        if (rc)
            return rc;
        if (attempt == 0 && qr_index_read(store)) {
            *offset = log->end;
            *prev = log->prev;
            store->info.index_used = 1;
            return 0;
        }
    }
    *offset = h->start;
    *prev = h->start_prev;
    log->last_frame = 0;
    store->state->epoch = h->first_epoch - 1;
    if (!h->base)
        return 0;
    struct qr_keyframe_head head;
    qr_state_destroy(store->state);
    store->state = NULL;
    int rc = qr_keyframe_read(log, h->base, &store->state, &head);
    if (!rc && head.epoch != h->first_epoch)
        rc = qr_fail(QALLOW_E_DAMAGED, "%s: the base keyframe is of epoch %llu, not %llu",
                     qr_quotez(store->path), (unsigned long long)head.epoch,
                     (unsigned long long)h->first_epoch);
    if (rc && !store->state && store->options.salvage) { /* without the base; others may remain */
        rc = qr_state_create(&store->state);
        if (!rc)
            store->state->epoch = h->first_epoch - 1;
    }
    return rc;
}

/* Runs the chain from the loaded base; stops before `limit` (0: none). */
static int run_chain(struct qr_store *store, struct qr_chain *chain, uint64_t offset, uint64_t prev,
                     uint64_t limit)
{
    struct qr_epoch epoch;
    int rc = qr_chain_init(chain, store, store->state, offset, prev, store->state->epoch + 1);
    chain->other = note_frame;
    chain->context = store;
    chain->limit = limit;
    if (!rc)
        qr_scan_read_ahead(&chain->scan, limit, store->options.threads, store->options.max_memory);
    while (!rc && (rc = qr_chain_next(chain, &epoch)) > 0) {
        store->pending_keyframe = 0;
        rc = qr_directory_add_commit(&store->directory, epoch.epoch, chain->last_frame);
    }
    return rc;
}

/* ---------------------------------------------------------------- cutting */

static void notice(struct qr_store *store, const char *line)
{
    if (store->options.notice)
        store->options.notice(store->options.notice_context, line);
}

/* The first free one of LOG.bad, LOG.bad.1, ... */
static int create_bad(struct qr_store *store, char **path, int *file)
{
    char suffix[32] = ".bad";
    for (int i = 1;; i++) {
        *path = qr_path_with(store->path, suffix);
        if (!*path)
            return QALLOW_E_NO_MEMORY;
        *file = store->os->open(store->os->context, *path, QR_OPEN_CREATE, 0600);
        if (*file >= 0)
            return 0;
        int rc = qr_fail_errno(-*file, "%s: cannot create, to keep what is cut off the log",
                               qr_quotez(*path));
        if (*file != -EEXIST || i == 1000)
            return rc;
        qr_free(*path);
        *path = NULL;
        snprintf(suffix, sizeof suffix, ".bad.%d", i);
    }
}

static int copy_range(struct qr_store *store, int to, uint64_t from, uint64_t end)
{
    enum { STEP = 256 << 10 };
    int rc = 0;
    uint8_t *buffer = qr_malloc(STEP);
    if (!buffer)
        return qr_fail(QALLOW_E_NO_MEMORY, "copying what is cut off");
    for (uint64_t at = from; at < end && !rc;) {
        size_t want = end - at < STEP ? (size_t)(end - at) : STEP;
        int64_t n = store->os->pread(store->os->context, store->log->file, buffer, want, at);
        if (n > 0) {
            int64_t wrote = store->os->pwrite(store->os->context, to, buffer, (size_t)n, at - from);
            if (wrote < 0)
                n = wrote;
        }
        if (n <= 0)
            rc = qr_fail_errno(n ? (int)-n : EIO, "%s: keeping what is cut off the log",
                               qr_quotez(store->path));
        at += n > 0 ? (uint64_t)n : 0;
    }
    qr_free(buffer);
    return rc;
}

/* Cuts the log at `end`; the bytes up to `nonzero_end` are kept beside it first. */
static int cut(struct qr_store *store, uint64_t end, uint64_t nonzero_end, const char *why)
{
    const struct qr_os *os = store->os;
    char *path = NULL;
    int file = -1, rc = create_bad(store, &path, &file);
    if (!rc)
        rc = copy_range(store, file, end, nonzero_end);
    if (file >= 0) {
        int result = rc ? 0 : os->sync(os->context, file);
        os->close(os->context, file);
        if (!rc && result >= 0)
            result = os->sync_directory_of(os->context, path);
        if (!rc && result >= 0)
            result = os->truncate(os->context, store->log->file, end);
        if (!rc && result >= 0)
            result = os->sync(os->context, store->log->file);
        if (!rc && result < 0)
            rc = qr_fail_errno(-result, "%s: cutting the log", qr_quotez(store->path));
    }
    if (!rc) {
        char line[512];
        store->info.cut_bytes = nonzero_end - end;
        qt_set(QT_RECOVERY_CUT_BYTES, store->info.cut_bytes);
        snprintf(line, sizeof line,
                 "%s was not closed cleanly: %llu bytes behind epoch %llu cut off (%s), kept in %s",
                 qr_quotez(store->path), (unsigned long long)(nonzero_end - end),
                 (unsigned long long)store->state->epoch, why, qr_quotez(path));
        notice(store, line);
    }
    qr_free(path);
    return rc;
}

/* Makes durable what was found and is not known to be: a writer that was killed may have written
 * more than it synced, or may have died before the log's name was durable. A log that was closed
 * cleanly and has its index has been through this. */
static int make_durable(struct qr_store *store)
{
    int rc = qr_log_sync(store->log);
    if (rc)
        return rc;
    int result = store->os->sync_directory_of(store->os->context, store->path);
    return result < 0 ? qr_fail_errno(-result, "%s: syncing its directory", qr_quotez(store->path))
                      : 0;
}

/* ---------------------------------------------------------------- damage */

static int damaged(struct qr_store *store, uint64_t offset, uint64_t synced, const char *why)
{
    return qr_fail(QALLOW_E_DAMAGED,
                   "%s: damaged at offset %llu, in bytes that were durable up to %llu (%s); "
                   "epochs up to %llu stand before it",
                   qr_quotez(store->path), (unsigned long long)offset, (unsigned long long)synced,
                   why, (unsigned long long)store->state->epoch);
}

/* 1 if a keyframe can be read there that is newer than the state, and not newer than the log can
 * be: an epoch takes a frame. */
static int keyframe_is_use(struct qr_store *store, uint64_t offset)
{
    struct qr_keyframe_head head;
    struct qr_state *state;
    if (qr_keyframe_read(store->log, offset, &state, &head))
        return 0;
    qr_state_destroy(state);
    return head.epoch > store->state->epoch &&
           head.epoch - store->state->epoch <= offset / QR_FRAME_HEADER;
}

/* A whole keyframe at or behind `offset`: *found is its offset, 0 if there is none. */
static int find_keyframe_behind(struct qr_store *store, uint64_t offset, uint64_t *found)
{
    uint64_t synced, nonzero, next = offset;
    *found = 0;
    for (;;) {
        int rc = qr_scan_behind(store->log, next, &synced, &nonzero, &next);
        if (rc || !next)
            return rc;
        struct qr_frame_buffers buffers = {NULL, NULL, 0, 0};
        struct qr_frame frame;
        rc = qr_log_read_frame(store->log, next, &buffers, &frame);
        int is_keyframe = !rc && frame.type == QR_FRAME_KEYFRAME;
        qr_frame_buffers_finish(&buffers);
        if (is_keyframe && keyframe_is_use(store, next)) {
            *found = next;
            return 0;
        }
        next += 8;
    }
}

/* Takes a keyframe's state and runs the chain from there, up to `limit` (0: as far as it goes). */
static int run_from_keyframe(struct qr_store *store, struct qr_chain *chain, uint64_t keyframe,
                             uint64_t limit)
{
    struct qr_keyframe_head head;
    struct qr_state *state;
    int rc = qr_keyframe_read(store->log, keyframe, &state, &head);
    if (rc)
        return rc;
    qr_state_destroy(store->state);
    store->state = state;
    rc = qr_directory_add_commit(&store->directory, head.epoch, 0);
    if (!rc)
        rc = qr_directory_add_keyframe(&store->directory, head.epoch, keyframe);
    return rc ? rc : run_chain(store, chain, head.resume, head.prev, limit);
}

/* Steps over damage: goes on at the next keyframe, as long as there is one. */
static int salvage(struct qr_store *store, uint64_t offset)
{
    for (;;) {
        uint64_t found;
        struct qr_chain chain = {.store = NULL};
        int rc = find_keyframe_behind(store, offset, &found);
        if (rc || !found)
            return rc;
        rc = run_from_keyframe(store, &chain, found, 0);
        offset = chain.scan.offset > found ? chain.scan.offset : found + 8;
        if (chain.in_transaction) { /* its records must not show in the epoch before it */
            uint64_t limit = chain.transaction_start;
            qr_chain_finish(&chain);
            rc = run_from_keyframe(store, &chain, found, limit);
        }
        if (chain.store)
            qr_chain_finish(&chain);
        if (rc == QALLOW_E_NO_MEMORY || rc == QALLOW_E_IO)
            return rc;
    }
}

/* ---------------------------------------------------------------- the decision */

int qr_store_load_relocations(struct qr_store *store)
{
    struct qr_frame_buffers buffers = {NULL, NULL, 0, 0};
    struct qr_frame frame;
    int rc = 0;
    struct qr_directory *d = &store->directory;
    d->relocation_count = 0;
    for (size_t i = 0; i < d->relocation_frame_count && !rc; i++) {
        rc = qr_log_read_frame(store->log, d->relocation_frames[i], &buffers, &frame);
        if (!rc)
            rc = qr_directory_add_relocations(d, frame.offset, frame.body, frame.length);
        if (rc == QALLOW_E_DAMAGED && store->options.salvage)
            rc = 0;
    }
    qr_directory_sort_relocations(d);
    qr_frame_buffers_finish(&buffers);
    return rc;
}

/* Once more up to the end of the last epoch, without the unfinished transaction. */
static int redo_with_limit(struct qr_store *store, struct qr_chain *chain, uint64_t limit)
{
    uint64_t offset, prev;
    qr_chain_finish(chain);
    int rc = load_base(store, &offset, &prev);
    if (!rc)
        rc = run_chain(store, chain, offset, prev, limit);
    return rc;
}

/* 1 if a valid frame stands now where the chain has stopped: another process is writing. */
static int has_gone_on(struct qr_store *store, uint64_t offset, uint64_t prev)
{
    struct qr_scan scan;
    struct qr_frame frame;
    int gone_on = 0;
    if (!qr_scan_init(&scan, store->log, offset, prev)) {
        gone_on = qr_scan_next(&scan, &frame) == 1;
        qr_scan_finish(&scan);
    }
    return gone_on;
}

/* The header and the epochs that were found must fit together. */
static int check_epochs(struct qr_store *store)
{
    const struct qr_log_header *h = &store->log->header;
    if ((h->flags & QR_LOG_CHECKPOINT) && !store->options.writable &&
        store->state->epoch < h->first_epoch)
        return qr_fail(QALLOW_E_DAMAGED, "%s: a checkpoint file that holds no whole epoch",
                       qr_quotez(store->path));
    if (store->state->epoch < h->first_epoch - 1)
        return qr_fail(QALLOW_E_DAMAGED, "%s: its epochs end before they begin",
                       qr_quotez(store->path));
    return 0;
}

/* 1: the log has grown meanwhile, so that what was seen of its end does not fit together. */
static int recover_once(struct qr_store *store)
{
    struct qr_chain chain = {.store = NULL};
    struct qr_log *log = store->log;
    uint64_t offset, prev, synced = 0, nonzero_end = 0, next_valid = 0;
    int from_index_closed, rc = load_base(store, &offset, &prev);
    if (rc)
        return rc;
    from_index_closed = store->info.closed_cleanly;
    rc = run_chain(store, &chain, offset, prev, 0);
    uint64_t stopped = chain.scan.offset, stopped_prev = chain.scan.prev;
    uint64_t seen = chain.max_synced_to;
    uint64_t unfinished = chain.in_transaction ? chain.transaction_start : store->pending_keyframe;
    const char *why = chain.scan.why ? chain.scan.why : "a transaction that makes no sense";
    int clean = !rc && chain.scan.all_zero && !unfinished;
    store->info.scanned_bytes = chain.scan.bytes;
    int closed_cleanly =
        clean && (chain.last_type ? chain.last_type == QR_FRAME_CLOSE : from_index_closed);
    uint64_t end = unfinished ? unfinished : stopped;
    int senseless = rc == QALLOW_E_DAMAGED || rc == QALLOW_E_SERIALIZATION;
    if (senseless && !store->options.salvage)
        goto out; /* valid frames, impossible content: not a matter of torn writes */
    if (!rc || senseless) {
        rc = unfinished ? redo_with_limit(store, &chain, end) : 0;
        if (!rc && !clean)
            rc = qr_scan_behind(log, end, &synced, &nonzero_end, &next_valid);
        if (synced < seen)
            synced = seen;
    }
    if (rc)
        goto out;
    store->info.closed_cleanly = closed_cleanly; /* the redo has read the index once more */
    log->end = chain.scan.offset;
    log->prev = chain.scan.prev;
    if (chain.last_frame)
        log->last_frame = chain.last_frame;
    log->flushed = log->end;
    if (store->info.index_used && seen < offset)
        seen = offset; /* an index is only written of what is durable */
    log->synced_to = seen < log->end ? seen : log->end;
    if (!clean && stopped < synced && !store->options.writable &&
        has_gone_on(store, stopped, stopped_prev)) {
        rc = 1;
        goto out;
    }
    if (!clean && (stopped < synced || senseless)) {
        rc = store->options.salvage ? salvage(store, stopped)
                                    : damaged(store, stopped, synced, why);
        log->failed = 1; /* nothing is ever written behind damage */
    } else if (!clean && store->options.writable && nonzero_end > end) {
        rc = cut(store, end, nonzero_end, unfinished ? "an unfinished transaction" : why);
    }
    if (!rc && store->options.writable && !log->failed &&
        (!closed_cleanly || log->synced_to < log->end))
        rc = make_durable(store);
    atomic_store(&store->start, log->header.start);
    if (!rc)
        rc = qr_store_load_relocations(store);
    qr_directory_drop_labels(&store->directory, log->header.first_epoch);
    if (!rc)
        rc = check_epochs(store);
out:
    qr_chain_finish(&chain);
    qt_set(QT_RECOVERY_SCANNED_BYTES, store->info.scanned_bytes);
    return rc;
}

int qr_store_recover(struct qr_store *store)
{
    enum { TRIES = 1000 }; /* each one has seen the writer go on */
    int rc = recover_once(store);
    for (int i = 0; i < TRIES && rc == 1; i++) {
        rc = qr_log_reload_header(store->log);
        if (!rc)
            rc = recover_once(store);
    }
    if (rc == 1)
        return qr_fail(QALLOW_E_BUSY, "%s: is written faster than it can be read; try again",
                       qr_quotez(store->path));
    return qr_log_check_pruned(store->log, rc);
}
