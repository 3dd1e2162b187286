/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a whole log, frame by frame, into ranges that are good and ranges that are not. Knows
 * nothing of pages: whether the records give the recorded digests is the question of replay
 * --verify.
 */
#include "runtime/error.h"
#include "runtime/store_internal.h"

struct verifier {
    struct qr_log *log;
    struct qr_scan scan;
    int threads;
    uint64_t max_memory;
    int (*visit)(void *context, const struct qr_range *range);
    void *context;
    uint64_t epochs; /* commits seen */
    uint64_t max_synced;
    uint64_t first_bad; /* offset; 0: none */
};

/* Walks valid frames from the scan's position and reports them as one good range. */
static int good_range(struct verifier *v)
{
    struct qr_range range = {.offset = v->scan.offset, .good = 1};
    struct qr_frame frame;
    struct qr_epoch info;
    uint64_t next_id;
    size_t records;
    int rc;
    while ((rc = qr_scan_next(&v->scan, &frame)) > 0) {
        if (frame.synced_to > v->max_synced)
            v->max_synced = frame.synced_to;
        if (frame.type == QR_FRAME_COMMIT && !qr_commit_parse(&frame, &info, &next_id, &records)) {
            v->epochs++;
            if (!range.first_epoch)
                range.first_epoch = info.epoch;
            range.last_epoch = info.epoch;
        }
    }
    range.length = v->scan.offset - range.offset;
    return rc ? rc : range.length ? v->visit(v->context, &range) : 0;
}

static int restart(struct verifier *v, uint64_t offset, uint64_t prev)
{
    qr_scan_finish(&v->scan);
    int rc = qr_scan_init(&v->scan, v->log, offset, prev);
    if (!rc)
        qr_scan_read_ahead(&v->scan, 0, v->threads, v->max_memory);
    return rc;
}

/* The bytes up to the next valid frame are bad (unless only zeros are left); goes on there. 1:
 * there is one, 0: there is none. */
static int bad_range(struct verifier *v)
{
    uint64_t synced, nonzero, next, from = v->scan.offset, prev = v->scan.prev;
    uint8_t header[QR_FRAME_HEADER];
    const char *why = v->scan.why;
    struct qr_frame frame;
    int rc = restart(v, from, prev);
    int found = rc ? rc : qr_scan_next(&v->scan, &frame);
    if (found > 0) /* the log is being written and has gone on since */
        return (rc = restart(v, from, prev)) ? rc : 1;
    if (found < 0)
        return found;
    /* a frame that only does not follow the one before it must not be found again */
    rc = qr_scan_behind(v->log, from, &synced, &nonzero, &next);
    if (!rc && next == from)
        rc = qr_scan_behind(v->log, from + 8, &synced, &nonzero, &next);
    if (rc || v->scan.all_zero)
        return rc;
    struct qr_range range = {.offset = from, .length = (next ? next : nonzero) - from, .what = why};
    if (!v->first_bad)
        v->first_bad = from;
    if ((rc = v->visit(v->context, &range)) || !next)
        return rc;
    int64_t n = v->log->os->pread(v->log->os->context, v->log->file, header, sizeof header, next);
    if (n != (int64_t)sizeof header)
        return qr_fail_errno(n < 0 ? (int)-n : 5, "%s: reading at offset %llu",
                             qr_quotez(v->log->path), (unsigned long long)next);
    rc = restart(v, next, qr_load64(header + 8));
    return rc ? rc : 1;
}

int qr_log_verify(const char *path, const struct qr_os *os, int threads, uint64_t max_memory,
                  int (*visit)(void *context, const struct qr_range *range), void *context)
{
    struct verifier v = {
        .threads = threads, .max_memory = max_memory, .visit = visit, .context = context};
    int rc = qr_log_open(os ? os : qr_os_posix(), path, 0, &v.log);
    if (rc)
        return rc;
    rc = restart(&v, v.log->header.start, v.log->header.start_prev);
    if (!rc) {
        do {
            rc = good_range(&v);
            if (!rc)
                rc = bad_range(&v);
        } while (rc == 1);
        qr_scan_finish(&v.scan);
    }
    if (!rc && (v.log->header.flags & QR_LOG_CHECKPOINT) && !v.epochs)
        rc = qr_fail(QALLOW_E_DAMAGED, "%s: a checkpoint file that holds no whole epoch",
                     qr_quotez(path));
    /* bytes that nobody was told are durable are a torn tail, or being written just now */
    if (!rc && v.first_bad && v.first_bad < v.max_synced)
        rc = qr_fail(QALLOW_E_DAMAGED, "%s: damaged", qr_quotez(path));
    rc = qr_log_check_pruned(v.log, rc);
    qr_log_close(v.log);
    return rc;
}
