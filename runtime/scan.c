/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walking the chain of frames. The file is read in large windows; frames are handed out from the
 * window in place (decompressed ones from a buffer). The first frame that is not valid ends the
 * walk; what stands behind it is looked at by qr_scan_behind(), which decides between a torn tail
 * and a damaged middle (docs/formats/tlog.md, "Opening, recovery, durability").
 */
#include "runtime/bytes.h"
#include "runtime/error.h"
#include "runtime/log.h"

enum { WINDOW = 512 << 10 }; /* grows for a frame that is larger */

int qr_scan_init(struct qr_scan *scan, const struct qr_log *log, uint64_t offset, uint64_t prev)
{
    *scan = (struct qr_scan){.log = log, .offset = offset, .prev = prev};
    int64_t size = log->os->size(log->os->context, log->file);
    if (size < 0)
        return qr_fail_errno((int)-size, "%s: asking for its size", qr_quotez(log->path));
    scan->limit = (uint64_t)size;
    uint64_t left = scan->limit > offset ? scan->limit - offset : 0;
    scan->window_capacity = left < WINDOW ? (size_t)left + 64 : WINDOW;
    scan->window = qr_malloc(scan->window_capacity);
    if (!scan->window)
        return qr_fail(QALLOW_E_NO_MEMORY, "a window of the log");
    return 0;
}

void qr_scan_finish(struct qr_scan *scan)
{
    qr_ahead_finish(scan->ahead);
    qr_free(scan->window);
    qr_free(scan->plain);
    *scan = (struct qr_scan){.log = NULL};
}

/* Makes [offset, offset + need) part of the window. 1 done, 0 the file ends before, or an error. */
static int window_need(struct qr_scan *scan, size_t need, const uint8_t **at)
{
    uint64_t end = scan->window_start + scan->window_length;
    if (scan->offset < scan->window_start || scan->offset + need > end) {
        if (need > scan->window_capacity) {
            uint8_t *grown = qr_realloc(scan->window, need);
            if (!grown)
                return qr_fail(QALLOW_E_NO_MEMORY, "a window of the log");
            scan->window = grown;
            scan->window_capacity = need;
        }
        size_t keep = scan->offset >= scan->window_start && scan->offset < end
                          ? (size_t)(end - scan->offset) : 0;
        memmove(scan->window, scan->window + scan->window_length - keep, keep);
        int64_t n = scan->log->os->pread(scan->log->os->context, scan->log->file,
                                         scan->window + keep, scan->window_capacity - keep,
                                         scan->offset + keep);
        if (n < 0)
            return qr_fail_errno((int)-n, "%s: reading at offset %llu", qr_quotez(scan->log->path),
                                 (unsigned long long)scan->offset);
        scan->window_start = scan->offset;
        scan->window_length = keep + (size_t)n;
        scan->bytes += (uint64_t)n;
        end = scan->window_start + scan->window_length;
    }
    *at = scan->window + (scan->offset - scan->window_start);
    return scan->offset + need <= end;
}

/* Why the bytes at the scan's position are no frame. */
static int invalid(struct qr_scan *scan, const char *why)
{
    uint64_t synced, nonzero, next;
    int rc = qr_scan_behind(scan->log, scan->offset, &synced, &nonzero, &next);
    scan->all_zero = !rc && nonzero <= scan->offset;
    scan->why = why;
    return rc;
}

/* 1: a frame that has been read ahead; 0: from now on nothing is; or an error. */
static int next_prepared(struct qr_scan *scan, struct qr_frame *frame)
{
    int found = qr_ahead_next(scan, frame);
    if (found == 1) {
        scan->offset += qr_frame_span(frame->stored);
        scan->bytes += qr_frame_span(frame->stored);
        scan->prev = frame->head_sum;
    } else if (found == 0) {
        found = qr_scan_settle(scan);
        qr_ahead_finish(scan->ahead);
        scan->ahead = NULL;
    }
    return found;
}

int qr_scan_next(struct qr_scan *scan, struct qr_frame *frame)
{
    const uint8_t *at = NULL;
    if (scan->ahead) {
        int found = next_prepared(scan, frame);
        if (found)
            return found;
    }
    int rc = window_need(scan, QR_FRAME_HEADER, &at);
    if (rc < 0)
        return rc;
    if (rc == 0)
        return invalid(scan, "the file ends within a frame header");
    if (!qr_frame_parse(scan->log, scan->offset, at, frame))
        return invalid(scan, "not a valid frame header");
    if (frame->prev != scan->prev)
        return invalid(scan, "a frame that does not follow the one before it");
    rc = window_need(scan, QR_FRAME_HEADER + frame->stored, &at);
    if (rc < 0)
        return rc;
    if (rc == 0)
        return invalid(scan, "the file ends within a frame");
    rc = qr_frame_open(scan->log, frame, at + QR_FRAME_HEADER, &scan->plain,
                       &scan->plain_capacity);
    if (rc < 0)
        return rc;
    if (rc == 0)
        return invalid(scan, "the checksum of a frame's body is wrong");
    scan->offset += qr_frame_span(frame->stored);
    scan->prev = frame->head_sum;
    return 1;
}

int qr_scan_behind(const struct qr_log *log, uint64_t offset, uint64_t *synced_to,
                   uint64_t *nonzero_end, uint64_t *next_valid)
{
    enum { STEP = 256 << 10 };
    *synced_to = *next_valid = 0;
    *nonzero_end = offset;
    uint8_t *buffer = qr_malloc(STEP + QR_FRAME_HEADER);
    if (!buffer)
        return qr_fail(QALLOW_E_NO_MEMORY, "a window of the log");
    int rc = 0;
    for (uint64_t at = offset;; at += STEP) {
        int64_t n = log->os->pread(log->os->context, log->file, buffer, STEP + QR_FRAME_HEADER, at);
        if (n < 0)
            rc = qr_fail_errno((int)-n, "%s: reading at offset %llu", qr_quotez(log->path),
                               (unsigned long long)at);
        if (n <= 0)
            break;
        if (!qb_kernels()->is_zero(buffer, (size_t)n)) {
            int64_t last = n;
            while (!buffer[last - 1])
                last--;
            *nonzero_end = at + (uint64_t)last;
            struct qr_frame frame;
            for (int64_t i = 0; i < STEP && i + QR_FRAME_HEADER <= n; i += 8)
                if (qr_frame_parse(log, at + (uint64_t)i, buffer + i, &frame)) {
                    if (frame.synced_to > *synced_to)
                        *synced_to = frame.synced_to;
                    if (!*next_valid)
                        *next_valid = at + (uint64_t)i;
                }
        }
        if (n < STEP + QR_FRAME_HEADER)
            break;
    }
    qr_free(buffer);
    return rc;
}
