/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mirrors: pages in the memory of a device, on top of the public API of stores and of the deltas
 * between buffers. The store knows nothing of them.
 *
 * Each page has its data, which the program changes, and a shadow. Invariant while `loaded`: the
 * shadow of page i is its content in the epoch `versions[i]` belongs to, and that is the newest of
 * the page. Loading an older epoch leaves the shadow as the newest content, so that the commit
 * finds all that must change; loading goes through the shadow's memory only when it is verified.
 */
#include "qallow/mirror.h"

#include <string.h>

#include "backend/kernels.h"
#include "runtime/buffer_delta.h"
#include "runtime/device.h"
#include "runtime/error.h"
#include "runtime/os.h"
#include "runtime/page.h"

enum { PART = 4 << 20 }; /* read from the log at once; a multiple of a cell */

struct qallow_mirror {
    struct qallow_store *store;
    struct qr_device device;
    size_t count;
    struct qallow_buffer *data, *shadow; /* their ids are the pages' */
    uint64_t *versions;                  /* of the shadows */
    int loaded;
};

static enum qb_memory memory_of(const struct qallow_buffer *buffer)
{
    return buffer->location == QALLOW_UNIFIED ? QB_MEMORY_UNIFIED : QB_MEMORY_DEVICE;
}

static int take_buffer(struct qallow_mirror *m, struct qallow_buffer *buffer, uint32_t location,
                       uint64_t id, uint64_t length)
{
    *buffer = (struct qallow_buffer)QALLOW_BUFFER_INIT;
    buffer->location = location;
    buffer->id = id;
    buffer->length = length;
    return length == 0 ? 0
                       : qr_device_allocate(&m->device, memory_of(buffer), length, &buffer->data);
}

static int take_page(struct qallow_mirror *m, size_t i, uint64_t id, uint32_t location)
{
    struct qallow_page info = QALLOW_PAGE_INIT;
    int rc = qallow_page_get(qallow_newest(m->store), id, &info);
    if (rc == 0)
        rc = take_buffer(m, &m->data[i], location, id, info.bytes);
    if (rc == 0)
        rc = take_buffer(m, &m->shadow[i], QALLOW_GPU, id, info.bytes);
    return rc;
}

int qallow_mirror_create(struct qallow_store *store, const uint64_t *pages, size_t count,
                         uint32_t location, void *stream, struct qallow_mirror **mirror)
{
    if (store == NULL || mirror == NULL || pages == NULL || count == 0)
        return qr_fail(QALLOW_E_ARGUMENT, "store, mirror or pages is NULL, or there are no pages");
    *mirror = NULL;
    if (location != QALLOW_GPU && location != QALLOW_UNIFIED)
        return qr_fail(QALLOW_E_UNSUPPORTED_LOCATION,
                       "a mirror is on a GPU or in unified memory, not at location %u", location);
    struct qallow_mirror *m = qr_calloc(1, sizeof *m);
    if (m == NULL)
        return qr_fail(QALLOW_E_NO_MEMORY, "a mirror");
    int rc = qr_device_begin(&m->device, stream);
    m->store = store;
    m->data = qr_calloc(count, sizeof *m->data);
    m->shadow = qr_calloc(count, sizeof *m->shadow);
    m->versions = qr_calloc(count, sizeof *m->versions);
    if (rc == 0 && (m->data == NULL || m->shadow == NULL || m->versions == NULL))
        rc = qr_fail(QALLOW_E_NO_MEMORY, "a mirror of %zu pages", count);
    for (; rc == 0 && m->count < count; m->count += rc == 0)
        rc = take_page(m, m->count, pages[m->count], location);
    if (rc < 0) {
        m->count += m->data != NULL && m->shadow != NULL && m->count < count;
        qallow_mirror_destroy(m);
        return rc;
    }
    *mirror = m;
    return 0;
}

void qallow_mirror_destroy(struct qallow_mirror *m)
{
    if (m == NULL)
        return;
    const struct qb_runtime *r = m->device.runtime;
    for (size_t i = 0; r != NULL && i < m->count; i++) {
        r->release(r->context, memory_of(&m->data[i]), m->data[i].data);
        r->release(r->context, QB_MEMORY_DEVICE, m->shadow[i].data);
    }
    qr_device_end(&m->device);
    qr_free(m->data);
    qr_free(m->shadow);
    qr_free(m->versions);
    qr_free(m);
}

int qallow_mirror_data(struct qallow_mirror *m, size_t i, void **data, uint64_t *length)
{
    if (m == NULL || data == NULL || i >= m->count)
        return qr_fail(QALLOW_E_ARGUMENT, "mirror or data is NULL, or there is no such page");
    *data = m->data[i].data;
    if (length != NULL)
        *length = m->data[i].length;
    return 0;
}

/* --- loading --- */

/* Reads a page into `to`; adds the digest of what was read. */
static int load_page(struct qallow_mirror *m, struct qallow_view *view, size_t i,
                     struct qallow_buffer *to, uint8_t *bytes, struct qb_u128 *digest)
{
    const uint64_t id = m->data[i].id, length = m->data[i].length;
    struct qallow_page info = QALLOW_PAGE_INIT;
    int rc = qallow_page_get(view, id, &info);
    if (rc == 0 && info.bytes != length)
        rc = qr_fail(QALLOW_E_DIFFERS, "page %llu: %llu bytes, in the mirror %llu",
                     (unsigned long long)id, (unsigned long long)info.bytes,
                     (unsigned long long)length);
    m->versions[i] = info.version;
    for (uint64_t at = 0; at < length && rc == 0; at += PART) {
        const size_t n = length - at < PART ? (size_t)(length - at) : PART;
        rc = qallow_page_read(view, id, at, bytes, n);
        if (rc < 0)
            break;
        *digest = qb_u128_add(*digest,
                              qb_kernels()->hash_cells(bytes, n, qr_page_seed(id), at / QB_CELL));
        rc = qr_device_upload(&m->device, (uint8_t *)to[i].data + at, bytes, n);
    }
    if (rc == 0)
        *digest = qb_u128_add(*digest, qr_buffer_term(to, i));
    return rc;
}

/* An epoch into the data or the shadows, verified. */
static int load_all(struct qallow_mirror *m, struct qallow_view *view, struct qallow_buffer *to)
{
    struct qb_u128 sent = {0, 0};
    uint64_t there[2] = {0, 0};
    uint8_t *bytes = qr_malloc(PART);
    int rc = bytes ? 0 : qr_fail(QALLOW_E_NO_MEMORY, "loading a mirror");
    for (size_t i = 0; i < m->count && rc == 0; i++)
        rc = load_page(m, view, i, to, bytes, &sent);
    qr_free(bytes);
    if (rc == 0)
        rc = qr_device_wait(&m->device);
    if (rc == 0)
        rc = qallow_buffers_digest(to, m->count, m->device.stream, there);
    if (rc == 0 && (there[0] != sent.lo || there[1] != sent.hi))
        rc = qr_fail(QALLOW_E_DAMAGED, "what is on the GPU is not what was sent there");
    return rc;
}

static int copy_all(struct qallow_mirror *m, struct qallow_buffer *to,
                    const struct qallow_buffer *from)
{
    int rc = 0;
    for (size_t i = 0; i < m->count && rc == 0; i++)
        rc = qr_device_copy(&m->device, to[i].data, from[i].data, from[i].length);
    return rc < 0 ? rc : qr_device_wait(&m->device);
}

int qallow_mirror_load(struct qallow_mirror *m, struct qallow_view *view)
{
    if (m == NULL || view == NULL)
        return qr_fail(QALLOW_E_ARGUMENT, "mirror or view is NULL");
    struct qallow_view *newest = NULL;
    m->loaded = 0;
    int rc = load_all(m, view, m->shadow);
    if (rc == 0)
        rc = copy_all(m, m->data, m->shadow);
    if (rc == 0)
        rc = qallow_snapshot(m->store, &newest);
    if (rc == 0 && qallow_view_epoch(newest) != qallow_view_epoch(view))
        rc = load_all(m, newest, m->shadow);
    qallow_view_destroy(newest);
    m->loaded = rc == 0;
    return rc;
}

/* --- committing --- */

struct writing {
    struct qallow_mirror *mirror;
    struct qallow_txn *txn;
};

static int write_run(void *context, size_t buffer, uint64_t offset, const uint8_t *payload,
                     size_t length)
{
    struct writing *w = context;
    return qallow_page_write(w->txn, w->mirror->data[buffer].id, offset, payload, length);
}

/* Whether the pages are as the shadows have them; `after` takes their versions from there. */
static int versions(struct qallow_mirror *m, int after)
{
    struct qallow_page info = QALLOW_PAGE_INIT;
    int rc = 0;
    for (size_t i = 0; i < m->count && rc == 0; i++) {
        rc = qallow_page_get(qallow_newest(m->store), m->data[i].id, &info);
        if (rc == 0 && after)
            m->versions[i] = info.version;
        if (rc == 0 && info.version != m->versions[i])
            rc = qr_fail(QALLOW_E_STATE,
                         "page %llu was changed in epoch %llu by somebody else: load the mirror "
                         "again",
                         (unsigned long long)m->data[i].id, (unsigned long long)info.version);
    }
    return rc;
}

/* The runs of a delta as one transaction. */
static int write_epoch(struct qallow_mirror *m, uint8_t *delta,
                       const struct qr_delta_header *header, uint64_t *epoch)
{
    const struct qb_delta_parts parts = qr_delta_parts(delta, header);
    struct writing w = {.mirror = m};
    int rc = qallow_begin(m->store, &w.txn);
    if (rc == 0)
        rc = qr_delta_each(m->data, m->count, &parts, write_run, &w);
    /* The pages are the transaction's by now, so nobody changes them between this and its end. */
    if (rc == 0)
        rc = versions(m, 0);
    if (rc < 0) {
        qallow_abort(w.txn);
        return rc;
    }
    return qallow_commit(w.txn, epoch);
}

int qallow_mirror_commit(struct qallow_mirror *m, uint64_t *epoch)
{
    struct qr_delta_header header;
    uint8_t *delta;
    if (m == NULL)
        return qr_fail(QALLOW_E_ARGUMENT, "mirror is NULL");
    if (!m->loaded)
        return qr_fail(QALLOW_E_STATE, "the mirror is not loaded");
    int rc = qr_device_changes(m->shadow, m->data, m->count, m->device.stream, &delta, &header);
    if (rc < 0)
        return rc;
    rc = write_epoch(m, delta, &header, epoch);
    qr_free(delta);
    if (rc < 0)
        return rc;
    /* The epoch exists: if the device fails now, that is for the next call to say. */
    m->loaded = versions(m, 1) == 0 && copy_all(m, m->shadow, m->data) == 0;
    return 0;
}

int qallow_mirror_prefetch(struct qallow_mirror *m, int to_device)
{
    if (m == NULL)
        return qr_fail(QALLOW_E_ARGUMENT, "mirror is NULL");
    const struct qb_runtime *r = m->device.runtime;
    int rc = 0;
    for (size_t i = 0; i < m->count && rc == 0; i++) {
        if (m->data[i].location != QALLOW_UNIFIED)
            return qr_fail(QALLOW_E_UNSUPPORTED_LOCATION, "only unified memory moves by itself");
        rc = qr_device_check(&m->device,
                             r->prefetch(r->context, m->data[i].data, m->data[i].length, to_device,
                                         m->device.stream),
                             "moving unified memory");
    }
    return rc < 0 ? rc : qr_device_wait(&m->device);
}
