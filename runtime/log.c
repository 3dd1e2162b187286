/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log file. Format: docs/formats/tlog.md; in short:
 *
 *     0     header slot A      magic, version, uuid, sequence, start, first epoch, base, checksum
 *     4096  header slot B      the valid one with the larger sequence counts
 *     8192  frames             40-byte header, body, zeros to a multiple of 8; each names the
 *                              head_sum of the one before
 *
 * Validity of a frame: see qr_frame_parse (header) and qr_frame_open (body); the chain is checked
 * by the scan. All checksums are seeded with the uuid and the frame's offset.
 *
 * Order of writes. Frames are collected in a buffer and written with pwrite in order; sync is
 * fdatasync of everything flushed. `synced_to` goes into the frames that follow a sync, so a frame
 * never claims more than is durable. A header slot is written to the older place and synced at
 * once.
 *
 * Invariants:
 *  1. Bytes below synced_to are never written again (only punched by a prune, after a header that
 *     says so is durable).
 *  2. flushed <= end; the buffer holds exactly [flushed, end).
 *  3. After a failed sync nothing is appended any more: what the kernel dropped cannot be known.
 *     What is shown is written again, for the sync of the next open.
 */
#include "runtime/log.h"

#include <errno.h>
#include <stdio.h>
#include <zstd.h>

#include "runtime/bytes.h"
#include "runtime/error.h"
#include "telemetry/telemetry.h"

enum {
    WRITE_BUFFER = 256 << 10,
    LARGE = 64 << 10, /* a frame of so much is worth a write of its own */
};

static uint64_t frame_seed(const struct qr_log *log, uint64_t offset)
{
    return qb_kernels()->hash64(log->header.uuid, 16, offset);
}

/* ---------------------------------------------------------------- header */

static void header_encode(uint8_t *slot, const struct qr_log_header *h)
{
    memset(slot, 0, QR_SLOT_SIZE);
    qr_store64(slot, QR_LOG_MAGIC);
    qr_store32(slot + 8, h->version ? h->version : QR_FORMAT_PLAIN);
    qr_store32(slot + 12, QB_CELL);
    memcpy(slot + 16, h->uuid, 16);
    qr_store64(slot + 32, h->sequence);
    qr_store64(slot + 40, h->start);
    qr_store64(slot + 48, h->start_prev);
    qr_store64(slot + 56, h->first_epoch);
    qr_store64(slot + 64, h->base);
    qr_store64(slot + 72, h->flags);
    qr_store64(slot + 80, h->next_epoch);
    qr_store64(slot + 120, qb_kernels()->hash64(slot, 120, 0));
}

/* 1: valid; 0: not a valid slot; VERSION. */
static int header_decode(const char *path, const uint8_t *slot, struct qr_log_header *h)
{
    if (qr_load64(slot) != QR_LOG_MAGIC ||
        qr_load64(slot + 120) != qb_kernels()->hash64(slot, 120, 0))
        return 0;
    uint32_t version = qr_load32(slot + 8);
    if (version > QR_FORMAT_VERSION)
        return qr_fail(QALLOW_E_VERSION,
                       "%s: written in format version %u; this program reads up to version %d",
                       qr_quotez(path), version, QR_FORMAT_VERSION);
    h->version = version;
    memcpy(h->uuid, slot + 16, 16);
    h->sequence = qr_load64(slot + 32);
    h->start = qr_load64(slot + 40);
    h->start_prev = qr_load64(slot + 48);
    h->first_epoch = qr_load64(slot + 56);
    h->base = qr_load64(slot + 64);
    h->flags = qr_load64(slot + 72);
    h->next_epoch = qr_load64(slot + 80);
    return version >= QR_FORMAT_PLAIN && qr_load32(slot + 12) == QB_CELL &&
           h->start >= QR_FIRST_FRAME && h->start % 8 == 0 && h->start <= INT64_MAX &&
           h->base % 8 == 0 && h->base <= INT64_MAX && h->first_epoch >= 1 &&
           h->first_epoch < QR_EPOCH_MAX && h->flags <= 1;
}

/* The header as it is in the file now. */
static int header_read(const struct qr_log *log, struct qr_log_header *header)
{
    uint8_t slot[QR_SLOT_SIZE];
    struct qr_log_header best = {.sequence = 0}, h = best;
    int found = 0, magic = 0;
    for (uint64_t at = 0; at < 2 * QR_SLOT_SIZE; at += QR_SLOT_SIZE) {
        int64_t n = log->os->pread(log->os->context, log->file, slot, sizeof slot, at);
        if (n < 0)
            return qr_fail_errno((int)-n, "%s: reading the header", qr_quotez(log->path));
        magic |= n >= 8 && qr_load64(slot) == QR_LOG_MAGIC;
        if (n < 128)
            continue;
        int rc = header_decode(log->path, slot, &h);
        if (rc < 0)
            return rc;
        if (rc && (!found || h.sequence > best.sequence)) {
            best = h;
            found = 1;
        }
    }
    if (!found)
        return magic ? qr_fail(QALLOW_E_DAMAGED, "%s: both header slots are damaged",
                               qr_quotez(log->path))
                     : qr_fail(QALLOW_E_NOT_A_LOG, "%s: not a Qallow log", qr_quotez(log->path));
    *header = best;
    return 0;
}

int qr_log_reload_header(struct qr_log *log)
{
    struct qr_log_header now;
    int rc = header_read(log, &now);
    if (!rc && now.sequence != log->header.sequence)
        log->header = now;
    return rc;
}

int qr_log_check_pruned(const struct qr_log *log, int rc)
{
    struct qr_log_header now;
    char detail[1024];
    if (rc != QALLOW_E_DAMAGED)
        return rc;
    snprintf(detail, sizeof detail, "%s", qallow_error_detail());
    if (header_read(log, &now) || now.sequence == log->header.sequence)
        return qr_fail(rc, "%s", detail);
    return qr_fail(QALLOW_E_BUSY, "%s: epochs before %llu were pruned while it was read; try again",
                   qr_quotez(log->path), (unsigned long long)now.first_epoch);
}

/* After a failed sync the kernel may have given up bytes that it still shows, and a later sync
 * would pass over them. Whoever opens the log next will believe what is shown and sync it; so it is
 * written again, the same bytes to the same place, and left to that sync. */
static void write_again(struct qr_log *log, uint64_t from, uint64_t end)
{
    uint8_t bytes[4096];
    int64_t n = 1;
    for (uint64_t at = from; at < end && n > 0; at += n > 0 ? (uint64_t)n : 0) {
        size_t want = end - at < sizeof bytes ? (size_t)(end - at) : sizeof bytes;
        n = log->os->pread(log->os->context, log->file, bytes, want, at);
        if (n > 0)
            n = log->os->pwrite(log->os->context, log->file, bytes, (size_t)n, at);
    }
}

int qr_log_write_header(struct qr_log *log, const struct qr_log_header *header)
{
    uint8_t slot[QR_SLOT_SIZE];
    struct qr_log_header next = *header;
    next.sequence = log->header.sequence + 1;
    header_encode(slot, &next);
    /* odd sequences stand in slot B, even ones in slot A */
    uint64_t at = (next.sequence & 1) * QR_SLOT_SIZE;
    int64_t rc = log->os->pwrite(log->os->context, log->file, slot, sizeof slot, at);
    if (rc >= 0)
        rc = log->os->sync(log->os->context, log->file);
    if (rc < 0) {
        log->failed = 1;
        write_again(log, at, at + sizeof slot);
        write_again(log, log->synced_to, log->end); /* frames that this sync would have covered */
        return qr_fail_errno((int)-rc, "%s: writing the header", qr_quotez(log->path));
    }
    log->header = next;
    return 0;
}

int qr_log_create(const struct qr_os *os, const char *path, const struct qr_log_header *header)
{
    uint8_t slots[2 * QR_SLOT_SIZE];
    header_encode(slots, header);
    memset(slots + QR_SLOT_SIZE, 0, QR_SLOT_SIZE);
    size_t length = strlen(path);
    char *temporary = qr_malloc(length + 5);
    if (!temporary)
        return qr_fail(QALLOW_E_NO_MEMORY, "%s", qr_quotez(path));
    memcpy(temporary, path, length);
    memcpy(temporary + length, ".tmp", 5);
    int renamed = 0;
    int file = os->open(os->context, temporary, QR_OPEN_REPLACE, 0600);
    int64_t rc = file;
    if (file >= 0) {
        rc = os->pwrite(os->context, file, slots, sizeof slots, 0);
        if (rc >= 0)
            rc = os->sync(os->context, file);
        int closed = os->close(os->context, file);
        rc = rc < 0 ? rc : closed;
        if (rc >= 0)
            rc = os->rename(os->context, temporary, path);
        renamed = rc >= 0;
        if (rc >= 0)
            rc = os->sync_directory_of(os->context, path);
    }
    if (rc < 0) {
        if (file >= 0 && !renamed)
            os->unlink(os->context, temporary);
        int result = qr_fail_errno((int)-rc, "%s: cannot create", qr_quotez(path));
        rc = result == QALLOW_E_NO_INPUT ? QALLOW_E_CANNOT_CREATE : result;
    }
    qr_free(temporary);
    return rc < 0 ? (int)rc : 0;
}

int qr_log_open(const struct qr_os *os, const char *path, int writable, struct qr_log **out)
{
    struct qr_log *log = qr_calloc(1, sizeof *log);
    if (!log)
        return qr_fail(QALLOW_E_NO_MEMORY, "%s", qr_quotez(path));
    *log = (struct qr_log){.os = os, .file = -1, .writable = writable};
    int rc = 0;
    size_t length = strlen(path) + 1;
    if (!(log->path = qr_malloc(length)))
        rc = qr_fail(QALLOW_E_NO_MEMORY, "%s", qr_quotez(path));
    else
        memcpy(log->path, path, length);
    if (!rc && writable && !(log->buffer = qr_malloc(log->buffer_capacity = WRITE_BUFFER)))
        rc = qr_fail(QALLOW_E_NO_MEMORY, "%s: write buffer", qr_quotez(path));
    if (!rc) {
        log->file = os->open(os->context, path, writable ? QR_OPEN_WRITE : QR_OPEN_READ, 0);
        if (log->file == -EISDIR || log->file == -EINVAL)
            rc = qr_fail(QALLOW_E_NOT_A_LOG, "%s is a %s, not a log", qr_quotez(path),
                         log->file == -EISDIR ? "directory" : "special file");
        else if (log->file < 0)
            rc = qr_fail_errno(-log->file, "%s: cannot open", qr_quotez(path));
    }
    if (!rc)
        rc = header_read(log, &log->header);
    if (rc) {
        qr_log_close(log);
        return rc;
    }
    *out = log;
    return 0;
}

void qr_log_close(struct qr_log *log)
{
    if (!log)
        return;
    if (log->file >= 0)
        log->os->close(log->os->context, log->file);
    qr_free(log->buffer);
    qr_free(log->path);
    qr_free(log);
}

/* ---------------------------------------------------------------- appending */

static int write_failed(struct qr_log *log, int64_t rc)
{
    return qr_fail_errno((int)-rc, "%s: writing at offset %llu", qr_quotez(log->path),
                         (unsigned long long)log->flushed);
}

static int check_writable(const struct qr_log *log)
{
    if (log->failed)
        return qr_fail(QALLOW_E_STATE, "%s: read-only since an earlier write or sync failed",
                       qr_quotez(log->path));
    return 0;
}

int qr_log_flush(struct qr_log *log)
{
    size_t fill = (size_t)(log->end - log->flushed);
    if (!fill)
        return 0;
    int64_t rc = log->os->pwrite(log->os->context, log->file, log->buffer, fill, log->flushed);
    if (rc < 0) {
        if (log->preallocated < log->end) /* some of it may be in the file: qr_log_rewind cuts it */
            log->preallocated = log->end;
        return write_failed(log, rc);
    }
    log->flushed = log->end;
    return 0;
}

static void encode_frame_header(const struct qr_log *log, uint8_t *h, enum qr_frame_type type,
                                unsigned flags, const void *body, size_t length)
{
    uint64_t seed = frame_seed(log, log->end);
    h[0] = (uint8_t)QR_FRAME_MAGIC;
    h[1] = QR_FRAME_MAGIC >> 8;
    h[2] = (uint8_t)type;
    h[3] = (uint8_t)flags;
    qr_store32(h + 4, (uint32_t)length);
    qr_store64(h + 8, log->prev);
    qr_store64(h + 16, log->synced_to);
    qr_store64(h + 24, qb_kernels()->hash64(body, length, seed));
    qr_store64(h + 32, qb_kernels()->hash64(h, 32, seed));
}

static int say_version(struct qr_log *log, uint32_t version)
{
    struct qr_log_header header = log->header;
    header.version = version;
    return log->header.version >= version ? 0 : qr_log_write_header(log, &header);
}

static int begin_append(struct qr_log *log, enum qr_frame_type type, size_t length)
{
    int rc = check_writable(log);
    qr_assert(length <= QR_BODY_MAX && log->end % 8 == 0 && log->synced_to <= log->end);
    return rc || type != QR_FRAME_CONTENT ? rc : say_version(log, QR_FORMAT_VERSION);
}

/* The header before a body that stands in `frame`, and the zeros behind it. */
static void complete_frame(const struct qr_log *log, uint8_t *frame, enum qr_frame_type type,
                           unsigned flags, size_t length)
{
    uint8_t *body = frame + QR_FRAME_HEADER;
    encode_frame_header(log, frame, type, flags, body, length);
    memset(body + length, 0, qr_frame_span(length) - QR_FRAME_HEADER - length);
}

/* The frame is the log's last one; where it stands goes to *offset. */
static void end_append(struct qr_log *log, const uint8_t *frame, uint64_t span, uint64_t *offset)
{
    if (offset)
        *offset = log->end;
    log->last_frame = log->end;
    log->prev = qr_load64(frame + 32);
    log->end += span;
    qt_add(QT_LOG_BYTES, span);
}

/* Room in the buffer. */
static int reserve(struct qr_log *log, uint64_t span)
{
    if (log->end - log->flushed + span <= log->buffer_capacity)
        return 0;
    int rc = qr_log_flush(log);
    if (rc || span <= log->buffer_capacity)
        return rc;
    uint8_t *grown = qr_realloc(log->buffer, span);
    if (!grown)
        return qr_fail(QALLOW_E_NO_MEMORY, "%s: write buffer", qr_quotez(log->path));
    log->buffer = grown;
    log->buffer_capacity = span;
    return 0;
}

int qr_log_append(struct qr_log *log, enum qr_frame_type type, unsigned flags, const void *body,
                  size_t length, uint64_t *offset)
{
    int rc = begin_append(log, type, length);
    if (!rc)
        rc = reserve(log, qr_frame_span(length));
    if (rc)
        return rc;
    uint8_t *frame = log->buffer + (log->end - log->flushed);
    memcpy(frame + QR_FRAME_HEADER, body, length);
    complete_frame(log, frame, type, flags, length);
    end_append(log, frame, qr_frame_span(length), offset);
    return 0;
}

int qr_log_append_large(struct qr_log *log, enum qr_frame_type type, unsigned flags, uint8_t *body,
                        size_t length, uint64_t *offset)
{
    uint8_t *frame = body - QR_FRAME_HEADER;
    uint64_t span = qr_frame_span(length);
    if (length < LARGE)
        return qr_log_append(log, type, flags, body, length, offset);
    int rc = begin_append(log, type, length);
    if (!rc)
        rc = qr_log_flush(log);
    if (rc)
        return rc;
    complete_frame(log, frame, type, flags, length);
    int64_t written =
        log->os->pwrite(log->os->context, log->file, frame, (size_t)span, log->flushed);
    if (written < 0)
        return write_failed(log, written);
    end_append(log, frame, span, offset);
    log->flushed = log->end;
    return 0;
}

int qr_log_sync_file(const struct qr_log *log)
{
    int64_t before = log->os->now_ns(log->os->context);
    int result = log->os->sync(log->os->context, log->file);
    if (result < 0)
        return qr_fail_errno(-result, "%s: sync failed; the log is read-only until reopened",
                             qr_quotez(log->path));
    int64_t after = log->os->now_ns(log->os->context);
    qt_add(QT_LOG_SYNCS, 1);
    qt_observe_ns(QT_LOG_SYNC_SECONDS, after > before ? (uint64_t)(after - before) : 0);
    return 0;
}

void qr_log_sync_failed(struct qr_log *log)
{
    uint64_t slot = (log->header.sequence & 1) * QR_SLOT_SIZE;
    log->failed = 1;
    write_again(log, slot, slot + QR_SLOT_SIZE);
    write_again(log, log->synced_to, log->end);
}

int qr_log_sync(struct qr_log *log)
{
    int rc = check_writable(log);
    if (rc || (rc = qr_log_flush(log)))
        return rc;
    if (log->synced_to == log->end)
        return 0;
    rc = qr_log_sync_file(log);
    if (rc)
        qr_log_sync_failed(log);
    else
        log->synced_to = log->end;
    return rc;
}

int qr_log_preallocate(struct qr_log *log, uint64_t bytes)
{
    static const uint8_t zeros[64 << 10];
    if (log->preallocated < log->flushed)
        log->preallocated = log->flushed;
    uint64_t target = log->flushed + bytes;
    while (log->preallocated < target) {
        uint64_t n =
            target - log->preallocated < sizeof zeros ? target - log->preallocated : sizeof zeros;
        int64_t rc =
            log->os->pwrite(log->os->context, log->file, zeros, (size_t)n, log->preallocated);
        if (rc < 0) /* an optimisation only; the next real write says what is wrong */
            return 0;
        log->preallocated += n;
    }
    return 0;
}

int qr_log_rewind(struct qr_log *log, struct qr_log_mark mark)
{
    qr_assert(mark.end <= log->end);
    if (mark.end < log->flushed || log->preallocated > mark.end) {
        int rc = log->os->truncate(log->os->context, log->file, mark.end);
        /* bytes that frames have called durable must not come back after a crash */
        if (rc >= 0 && mark.end < log->synced_to)
            rc = log->os->sync(log->os->context, log->file);
        if (rc < 0) {
            log->failed = 1;
            return qr_fail_errno(-rc, "%s: cutting back to offset %llu", qr_quotez(log->path),
                                 (unsigned long long)mark.end);
        }
        log->preallocated = 0;
        log->rewinds++;
    }
    if (log->flushed > mark.end)
        log->flushed = mark.end;
    if (log->synced_to > mark.end)
        log->synced_to = mark.end;
    log->end = mark.end;
    log->prev = mark.prev;
    log->last_frame = mark.last_frame;
    return 0;
}

/* ---------------------------------------------------------------- reading */

int qr_frame_parse(const struct qr_log *log, uint64_t offset, const uint8_t *h,
                   struct qr_frame *frame)
{
    if (h[0] != (uint8_t)QR_FRAME_MAGIC || h[1] != QR_FRAME_MAGIC >> 8)
        return 0;
    *frame = (struct qr_frame){.offset = offset,
                               .type = h[2],
                               .flags = h[3],
                               .stored = qr_load32(h + 4),
                               .prev = qr_load64(h + 8),
                               .synced_to = qr_load64(h + 16),
                               .body_sum = qr_load64(h + 24),
                               .head_sum = qr_load64(h + 32)};
    return frame->stored <= QR_BODY_MAX && frame->synced_to <= offset &&
           frame->type >= QR_FRAME_DATA && frame->type <= QR_FRAME_CONTENT &&
           !(frame->flags & ~(unsigned)QR_FRAME_ZSTD) &&
           frame->head_sum == qb_kernels()->hash64(h, 32, frame_seed(log, offset));
}

static int grow(uint8_t **buffer, size_t *capacity, size_t need)
{
    if (need <= *capacity)
        return 0;
    uint8_t *grown = qr_realloc(*buffer, need);
    if (!grown)
        return qr_fail(QALLOW_E_NO_MEMORY, "a buffer of %zu bytes", need);
    *buffer = grown;
    *capacity = need;
    return 0;
}

int qr_frame_open(const struct qr_log *log, struct qr_frame *frame, const uint8_t *stored,
                  uint8_t **buffer, size_t *capacity)
{
    if (frame->body_sum !=
        qb_kernels()->hash64(stored, frame->stored, frame_seed(log, frame->offset)))
        return 0;
    frame->body = stored;
    frame->length = frame->stored;
    if (!(frame->flags & QR_FRAME_ZSTD))
        return 1;
    unsigned long long size = ZSTD_getFrameContentSize(stored, frame->stored);
    if (size > QR_BODY_MAX) /* also the two error values */
        return 0;
    int rc = grow(buffer, capacity, size ? (size_t)size : 1);
    if (rc)
        return rc;
    size_t got = ZSTD_decompress(*buffer, (size_t)size, stored, frame->stored);
    if (got != size)
        return 0;
    frame->body = *buffer;
    frame->length = got;
    return 1;
}

int qr_log_read_frame(const struct qr_log *log, uint64_t offset, struct qr_frame_buffers *buffers,
                      struct qr_frame *frame)
{
    enum { GUESS = 4096 }; /* most frames come with the first read */
    int rc = grow(&buffers->raw, &buffers->raw_capacity, GUESS);
    if (rc)
        return rc;
    int64_t n = log->os->pread(log->os->context, log->file, buffers->raw, GUESS, offset);
    if (n >= QR_FRAME_HEADER && qr_frame_parse(log, offset, buffers->raw, frame)) {
        size_t whole = QR_FRAME_HEADER + frame->stored;
        if ((size_t)n < whole) {
            if ((rc = grow(&buffers->raw, &buffers->raw_capacity, whole)))
                return rc;
            int64_t more = log->os->pread(log->os->context, log->file, buffers->raw + n,
                                          whole - (size_t)n, offset + (uint64_t)n);
            n = more < 0 ? more : n + more;
        }
        if (n >= (int64_t)whole) {
            rc = qr_frame_open(log, frame, buffers->raw + QR_FRAME_HEADER, &buffers->plain,
                               &buffers->plain_capacity);
            if (rc)
                return rc < 0 ? rc : 0;
        }
    }
    if (n < 0)
        return qr_fail_errno((int)-n, "%s: reading at offset %llu", qr_quotez(log->path),
                             (unsigned long long)offset);
    return qr_fail(QALLOW_E_DAMAGED, "%s: no valid frame at offset %llu", qr_quotez(log->path),
                   (unsigned long long)offset);
}

static int window_fill(const struct qr_log *log, struct qr_read_window *window, uint64_t offset,
                       size_t length)
{
    int rc = grow(&window->bytes, &window->capacity, length);
    if (rc)
        return rc;
    int64_t n = log->os->pread(log->os->context, log->file, window->bytes, length, offset);
    window->length = 0;
    if (n < 0)
        return qr_fail_errno((int)-n, "%s: reading at offset %llu", qr_quotez(log->path),
                             (unsigned long long)offset);
    window->start = offset;
    window->length = (size_t)n;
    return 0;
}

int qr_log_read_frame_ahead(const struct qr_log *log, uint64_t offset, size_t ahead,
                            struct qr_read_window *window, struct qr_frame_buffers *buffers,
                            struct qr_frame *frame)
{
    for (int filled = 0;; filled = 1) {
        uint64_t into = offset - window->start;
        if (qr_window_holds(window, offset) &&
            qr_frame_parse(log, offset, window->bytes + into, frame) &&
            into + QR_FRAME_HEADER + frame->stored <= window->length) {
            int rc = qr_frame_open(log, frame, window->bytes + into + QR_FRAME_HEADER,
                                   &buffers->plain, &buffers->plain_capacity);
            if (rc)
                return rc < 0 ? rc : 0;
        }
        if (filled) /* larger than the window, or not valid: that is found out there */
            return qr_log_read_frame(log, offset, buffers, frame);
        int rc = window_fill(log, window, offset, ahead);
        if (rc)
            return rc;
    }
}

void qr_frame_buffers_finish(struct qr_frame_buffers *buffers)
{
    qr_free(buffers->raw);
    qr_free(buffers->plain);
    *buffers = (struct qr_frame_buffers){NULL, NULL, 0, 0};
}
