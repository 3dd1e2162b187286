/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a log consists of: its frames, one after the other, from the oldest that is kept to the end
 * of the newest that the store knows. Sizes only; what the frames mean is for qr_store_walk().
 */
#include "runtime/elements.h"
#include "runtime/error.h"
#include "runtime/store_internal.h"

static int frames_end(struct qr_store *store, const struct qr_scan *scan)
{
    int rc = qr_fail(QALLOW_E_DAMAGED, "%s: offset %llu: %s", qr_quotez(store->path),
                     (unsigned long long)scan->offset, scan->why);
    return qr_log_check_pruned(store->log, rc);
}

static int look_inside(const struct qr_store *store, const struct qr_frame *frame,
                       struct qr_frame_size *size)
{
    struct qr_elements elements;
    if (qr_elements_parse(frame->body, frame->length, &elements))
        return qr_fail(QALLOW_E_DAMAGED, "%s: the content at offset %llu is malformed",
                       qr_quotez(store->path), (unsigned long long)frame->offset);
    size->content = elements.length;
    size->is_based = elements.base != QR_REF_ZERO;
    return 0;
}

int qr_store_each_frame(struct qr_store *store,
                        int (*visit)(void *context, const struct qr_frame_size *frame),
                        void *context)
{
    const struct qr_log *log = store->log;
    struct qr_scan scan;
    struct qr_frame frame;
    int rc = qr_scan_init(&scan, log, log->header.start, log->header.start_prev);
    while (!rc && scan.offset < log->end) {
        rc = qr_scan_next(&scan, &frame);
        if (rc <= 0) {
            rc = rc < 0 ? rc : frames_end(store, &scan);
            break;
        }
        struct qr_frame_size size = {.type = (unsigned)frame.type,
                                     .bytes = qr_frame_span(frame.stored),
                                     .stored = frame.stored,
                                     .length = frame.length,
                                     .is_compressed = (frame.flags & QR_FRAME_ZSTD) != 0};
        rc = frame.type == QR_FRAME_CONTENT ? look_inside(store, &frame, &size) : 0;
        rc = rc ? rc : visit(context, &size);
    }
    qr_scan_finish(&scan);
    return rc;
}
