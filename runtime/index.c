/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index file LOG-index (docs/formats/tlog-index.md): what an open would otherwise have to find
 * by reading the log. Disposable: it is believed only if its checksum holds and the frame it names
 * as the last one is in the log; otherwise it is as if it were not there. Written to a temporary
 * name and renamed, never synced, and only when all of the log that it speaks of is durable: so the
 * last frame stands for all before it.
 *
 *     u64 magic "QALLOWIX", u32 version, u32 0, 16 B uuid, u64 header sequence
 *     varint end, u64 prev, varint last frame      the log up to where the index knows it
 *     u64 time, varint epoch, varint next id, sum digest
 *     varint keyframe end, varint keyframe bytes   for placing the next keyframe
 *     varint epoch of the first commit, varint count, varint distances of the commits
 *     varint count, (varint epoch distance, varint offset) of the keyframes
 *     varint count, (varint length, name, varint epoch) of the labels
 *     varint count, varint offsets of the relocation frames
 *     the page table with stat caches
 *     u64 XXH3-64 of everything before, seed 0
 */
#include "runtime/error.h"
#include "runtime/store_internal.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define INDEX_MAGIC UINT64_C(0x5849574F4C4C4151) /* "QALLOWIX" */
enum { INDEX_VERSION = 1, CHUNK = 64 << 10, FIXED = 40 };

struct index_file {
    const struct qr_os *os;
    int file;
    uint64_t offset, size;
    XXH3_state_t *hash;
};

static int hash_create(struct index_file *f)
{
    f->hash = XXH3_createState();
    if (!f->hash)
        return qr_fail(QALLOW_E_NO_MEMORY, "index");
    XXH3_64bits_reset(f->hash);
    return 0;
}

/* ---------------------------------------------------------------- writing */

static int index_flush(void *context, const uint8_t *bytes, size_t length, int last)
{
    struct index_file *f = context;
    uint8_t sum[8];
    XXH3_64bits_update(f->hash, bytes, length);
    int64_t rc = f->os->pwrite(f->os->context, f->file, bytes, length, f->offset);
    f->offset += length;
    if (rc >= 0 && last) {
        qr_store64(sum, XXH3_64bits_digest(f->hash));
        rc = f->os->pwrite(f->os->context, f->file, sum, sizeof sum, f->offset);
    }
    return rc < 0 ? qr_fail_errno((int)-rc, "writing the index") : 0;
}

static void write_directory(struct qr_sink *sink, const struct qr_directory *d)
{
    uint64_t last = 0;
    qr_sink_varint(sink, d->commit_base);
    qr_sink_varint(sink, d->commit_count);
    for (size_t i = 0; i < d->commit_count; i++) {
        qr_sink_varint(sink, d->commits[i] - last);
        last = d->commits[i];
    }
    qr_sink_varint(sink, d->keyframe_count);
    last = 0;
    for (size_t i = 0; i < d->keyframe_count; i++) {
        qr_sink_varint(sink, d->keyframes[i].epoch - last);
        qr_sink_varint(sink, d->keyframes[i].offset);
        last = d->keyframes[i].epoch;
    }
    qr_sink_varint(sink, d->label_count);
    for (size_t i = 0; i < d->label_count; i++) {
        qr_sink_varint(sink, strlen(d->labels[i].name));
        qr_sink_put(sink, d->labels[i].name, strlen(d->labels[i].name));
        qr_sink_varint(sink, d->labels[i].epoch);
    }
    qr_sink_varint(sink, d->relocation_frame_count);
    for (size_t i = 0; i < d->relocation_frame_count; i++)
        qr_sink_varint(sink, d->relocation_frames[i]);
}

static void write_head(struct qr_sink *sink, const struct qr_store *store)
{
    uint8_t fixed[FIXED] = {0};
    const struct qr_log *log = store->log;
    qr_store64(fixed, INDEX_MAGIC);
    qr_store32(fixed + 8, INDEX_VERSION);
    memcpy(fixed + 16, log->header.uuid, 16);
    qr_store64(fixed + 32, log->header.sequence);
    qr_sink_put(sink, fixed, sizeof fixed);
    qr_sink_varint(sink, log->end);
    qr_sink_u64(sink, log->prev);
    qr_sink_varint(sink, log->last_frame);
    qr_sink_u64(sink, (uint64_t)store->state->time_ns);
    qr_sink_varint(sink, store->state->epoch);
    qr_sink_varint(sink, store->state->next_id);
    qr_sink_sum(sink, store->state->digest);
    qr_sink_varint(sink, store->keyframe_end);
    qr_sink_varint(sink, store->keyframe_bytes);
}

int qr_index_write(struct qr_store *store)
{
    if (store->options.no_index)
        return 0;
    if (store->log->synced_to != store->log->end)
        return 0;
    char *path = qr_path_with(store->path, "-index");
    char *temporary = qr_path_with(store->path, "-index.tmp");
    struct index_file f = {.os = store->os, .file = -1};
    struct qr_sink sink;
    int rc = !path || !temporary ? QALLOW_E_NO_MEMORY : hash_create(&f);
    if (!rc) {
        f.file = f.os->open(f.os->context, temporary, QR_OPEN_REPLACE, 0600);
        if (f.file < 0)
            rc = qr_fail_errno(-f.file, "%s: cannot create", qr_quotez(temporary));
    }
    if (!rc && !(rc = qr_sink_init(&sink, CHUNK, index_flush, &f))) {
        write_head(&sink, store);
        write_directory(&sink, &store->directory);
        qr_table_write(&sink, store->state, 1);
        rc = qr_sink_finish(&sink);
    }
    if (f.file >= 0) {
        int closed = f.os->close(f.os->context, f.file);
        if (!rc && closed < 0)
            rc = qr_fail_errno(-closed, "%s: cannot close", qr_quotez(temporary));
        if (!rc) {
            int renamed = f.os->rename(f.os->context, temporary, path);
            rc = renamed < 0 ? qr_fail_errno(-renamed, "%s: cannot rename", qr_quotez(path)) : 0;
        }
        if (rc)
            f.os->unlink(f.os->context, temporary);
    }
    XXH3_freeState(f.hash);
    qr_free(path);
    qr_free(temporary);
    return rc;
}

/* ---------------------------------------------------------------- reading */

static int64_t index_read(void *context, uint8_t *into, size_t room)
{
    struct index_file *f = context;
    uint64_t left = f->size - 8 - f->offset;
    int64_t n = f->os->pread(f->os->context, f->file, into, room < left ? room : (size_t)left,
                             f->offset);
    if (n < 0)
        return qr_fail_errno((int)-n, "reading the index");
    XXH3_64bits_update(f->hash, into, (size_t)n);
    f->offset += (uint64_t)n;
    return n;
}

static int read_list_head(struct qr_source *source, uint64_t *count)
{
    int rc = qr_source_need(source, 2 * QR_VARINT_MAX);
    *count = qr_get_varint(&source->cursor);
    return rc;
}

static int read_commits(struct qr_source *source, struct qr_directory *d)
{
    uint64_t count, offset = 0;
    int rc = qr_source_need(source, 2 * QR_VARINT_MAX);
    uint64_t base = qr_get_varint(&source->cursor);
    count = qr_get_varint(&source->cursor);
    if (base >= QR_EPOCH_MAX || count > QR_EPOCH_MAX - base)
        source->cursor.bad = 1;
    for (uint64_t i = 0; i < count && !rc && !source->cursor.bad; i++) {
        rc = qr_source_need(source, QR_VARINT_MAX);
        offset += qr_get_varint(&source->cursor);
        if (!rc && !source->cursor.bad)
            rc = qr_directory_add_commit(d, base + i, offset);
    }
    return rc;
}

static int read_directory(struct qr_store *store, struct qr_source *source)
{
    struct qr_directory *d = &store->directory;
    struct qr_cursor *c = &source->cursor;
    uint64_t count, epoch = 0;
    int rc = read_commits(source, d);
    if (!rc)
        rc = read_list_head(source, &count);
    for (uint64_t i = 0; !rc && i < count && !c->bad; i++) {
        rc = qr_source_need(source, 2 * QR_VARINT_MAX);
        epoch += qr_get_varint(c);
        uint64_t offset = qr_get_varint(c);
        if (!rc && !c->bad)
            rc = qr_directory_add_keyframe(d, epoch, offset);
    }
    if (!rc)
        rc = read_list_head(source, &count);
    for (uint64_t i = 0; !rc && i < count && !c->bad; i++) {
        rc = qr_source_need(source, 2 * QR_VARINT_MAX + QR_NAME_MAX);
        uint64_t length = qr_get_varint(c);
        const uint8_t *name = qr_get_bytes(c, length);
        uint64_t of = qr_get_varint(c);
        if (!rc && !c->bad)
            rc = qr_directory_set_label(d, name, (size_t)length, of);
    }
    if (!rc)
        rc = read_list_head(source, &count);
    for (uint64_t i = 0; !rc && i < count && !c->bad; i++) {
        rc = qr_source_need(source, QR_VARINT_MAX);
        uint64_t offset = qr_get_varint(c);
        if (!rc && !c->bad)
            rc = qr_directory_add_relocation_frame(d, offset);
    }
    return rc ? rc : c->bad ? QALLOW_E_SERIALIZATION : 0;
}

/* The head: 1 if it speaks of this log as it is, 0 if not. */
static int read_head(struct qr_store *store, struct qr_source *source, struct qb_u128 *digest)
{
    struct qr_log *log = store->log;
    struct qr_cursor *c = &source->cursor;
    int rc = qr_source_need(source, 256);
    const uint8_t *fixed = rc ? NULL : qr_get_bytes(c, FIXED);
    if (!fixed || qr_load64(fixed) != INDEX_MAGIC || qr_load32(fixed + 8) != INDEX_VERSION ||
        memcmp(fixed + 16, log->header.uuid, 16) != 0 ||
        qr_load64(fixed + 32) != log->header.sequence)
        return 0;
    log->end = qr_get_varint(c);
    log->prev = qr_get_u64(c);
    log->last_frame = qr_get_varint(c);
    store->state->time_ns = (int64_t)qr_get_u64(c);
    store->state->epoch = qr_get_varint(c);
    store->info.last_epoch = qr_get_varint(c); /* next id, kept until the table is read */
    digest->lo = qr_get_u64(c);
    digest->hi = qr_get_u64(c);
    store->keyframe_end = qr_get_varint(c);
    store->keyframe_bytes = qr_get_varint(c);
    return !c->bad;
}

/* 1 if the frame that the index calls the last one is in the log. */
static int last_frame_fits(struct qr_store *store)
{
    struct qr_log *log = store->log;
    struct qr_frame frame;
    uint8_t header[QR_FRAME_HEADER];
    if (!log->last_frame)
        return log->end == log->header.start && log->prev == log->header.start_prev;
    int64_t n = log->os->pread(log->os->context, log->file, header, sizeof header,
                               log->last_frame);
    if (n != (int64_t)sizeof header || !qr_frame_parse(log, log->last_frame, header, &frame))
        return 0;
    store->info.closed_cleanly = frame.type == QR_FRAME_CLOSE;
    return frame.head_sum == log->prev &&
           log->last_frame + qr_frame_span(frame.stored) == log->end &&
           log->os->size(log->os->context, log->file) >= (int64_t)log->end;
}

static int read_all(struct qr_store *store, struct index_file *f)
{
    struct qr_source source;
    struct qb_u128 digest;
    uint8_t sum[8];
    int fits = 0;
    if (qr_source_init(&source, CHUNK, index_read, f))
        return 0;
    if (read_head(store, &source, &digest) && last_frame_fits(store) &&
        !read_directory(store, &source) && !qr_table_read(&source, store->state, 1) &&
        f->os->pread(f->os->context, f->file, sum, 8, f->size - 8) == 8) {
        uint64_t next_id = store->info.last_epoch;
        while (f->offset < f->size - 8) { /* whatever the table did not ask for */
            uint8_t rest[256];
            if (index_read(f, rest, sizeof rest) <= 0)
                break;
        }
        fits = qr_load64(sum) == XXH3_64bits_digest(f->hash) &&
               qb_u128_equal(store->state->digest, digest) &&
               next_id >= store->state->next_id &&
               (!store->directory.commit_count ||
                qr_directory_last_epoch(&store->directory) == store->state->epoch);
        store->state->next_id = next_id;
    }
    qr_source_finish(&source);
    return fits;
}

int qr_index_read(struct qr_store *store)
{
    char *path = qr_path_with(store->path, "-index");
    struct index_file f = {.os = store->os, .file = -1};
    int fits = 0;
    if (path && !hash_create(&f))
        f.file = f.os->open(f.os->context, path, QR_OPEN_READ, 0);
    if (f.file >= 0) {
        int64_t size = f.os->size(f.os->context, f.file);
        f.size = size < 0 ? 0 : (uint64_t)size;
        if (f.size >= FIXED + 8)
            fits = read_all(store, &f);
        f.os->close(f.os->context, f.file);
    }
    XXH3_freeState(f.hash);
    qr_free(path);
    return fits;
}
