/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Places in the log, sorted.
 *
 * The content of a page that many commits have made stands all over the log, that of a state of
 * such pages even more so. Read in the order of the log, each frame is read once, and ahead.
 */
#include "runtime/spans.h"

#include "runtime/error.h"
#include "runtime/os.h"
#include "runtime/store_internal.h"

int qr_spans_add(struct qr_spans *spans, struct qr_store *store, qr_ref ref, uint8_t *to,
                 uint64_t length)
{
    while (length) {
        uint64_t n = length;
        qr_ref now = qr_store_resolve(store, ref, &n);
        int rc = QR_GROW(spans->items, spans->count, spans->capacity);
        if (rc)
            return rc;
        spans->items[spans->count++] = (struct qr_span){now, to, n};
        ref += n;
        to += n;
        length -= n;
    }
    return 0;
}

/* Least significant byte first, only over the bytes in which the references differ. */
int qr_spans_sort(struct qr_spans *spans)
{
    uint64_t all = 0, none = UINT64_MAX;
    for (size_t i = 0; i < spans->count; i++) {
        all |= spans->items[i].ref;
        none &= spans->items[i].ref;
    }
    struct qr_span *other = qr_malloc((spans->count + 1) * sizeof *other);
    if (!other)
        return qr_fail(QALLOW_E_NO_MEMORY, "%zu pieces", spans->count);
    for (unsigned shift = 0; shift < 64; shift += 8) {
        size_t starts[257] = {0};
        if (!((all ^ none) >> shift & 0xff))
            continue;
        for (size_t i = 0; i < spans->count; i++)
            starts[(spans->items[i].ref >> shift & 0xff) + 1]++;
        for (size_t b = 1; b < 257; b++)
            starts[b] += starts[b - 1];
        for (size_t i = 0; i < spans->count; i++)
            other[starts[spans->items[i].ref >> shift & 0xff]++] = spans->items[i];
        struct qr_span *swap = spans->items;
        spans->items = other;
        other = swap;
        spans->capacity = spans->count; /* at least */
    }
    qr_free(other);
    return 0;
}

void qr_spans_finish(struct qr_spans *spans)
{
    qr_free(spans->items);
    *spans = (struct qr_spans){0};
}
