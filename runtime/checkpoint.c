/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoint files, .qckpt (docs/formats/qckpt.md): one epoch as a log of one commit. The same
 * frames, the same reader: whoever can replay a log can read a checkpoint.
 *
 * Pages keep their ids, since the digest depends on them. They are created in ascending id; one
 * that has been moved below a newer directory is created as a root under a name of its own first
 * and renamed when its directory is there.
 *
 * Order: everything into PATH.tmp, commit (synced), rename, sync of the directory.
 */
#include <errno.h>
#include <stdio.h>

#include "runtime/claim.h"
#include "runtime/error.h"
#include "runtime/store_internal.h"

enum {
    APPEND_AT = 1 << 20,     /* bytes of a batch */
    WRITE_OUT_AT = 8 << 20,  /* bytes of the file that go to the disk while more is copied */
    THREADED_FROM = 4 << 20, /* bytes of content that a thread is worth */
};

struct export
{
    const struct qr_state *state;
    struct qr_store *to;
    struct qr_txn *txn;
    struct qr_relay *relay;
    struct qr_reader *reader;
    uint64_t written_out; /* the disk has been asked to take the file up to here */
};

/* The sync at the end waits for all of the file, so the disk begins early. */
static int append(void *context, struct qr_batch *batch)
{
    struct export *e = context;
    int rc = qr_txn_append(e->txn, batch);
    const struct qr_log *log = e->to->log;
    if (!rc && log->os->write_out && log->flushed >= e->written_out + WRITE_OUT_AT) {
        log->os->write_out(log->os->context, log->file, e->written_out,
                           log->flushed - e->written_out);
        e->written_out = log->flushed;
    }
    return rc;
}

/* A root name that no page of the state has. */
static size_t spare_name(const struct export *e, uint64_t id, char *name, size_t size)
{
    size_t length;
    for (unsigned i = 0;; i++) {
        length = (size_t)snprintf(name, size, "\001moved %llu %u", (unsigned long long)id, i);
        if (!qr_state_child(e->state, 0, name, length))
            return length;
    }
}

static int export_page(struct export *e, const struct qr_page *page)
{
    char name[64];
    struct qr_attributes attributes = {page->mode, page->mtime_ns, page->extra, page->extra_length};
    struct qr_batch *batch = qr_relay_batch(e->relay);
    int early = page->parent > page->id;
    int rc = early ? qr_batch_page_create(batch, page->id, 0, name,
                                          spare_name(e, page->id, name, sizeof name), page->kind,
                                          &attributes)
                   : qr_batch_page_create(batch, page->id, page->parent, page->name,
                                          page->name_length, page->kind, &attributes);
    if (!rc && page->size) {
        rc = qr_batch_delta_begin(batch, page->id, 0, 0, page->size);
        if (!rc)
            rc = qr_content_copy(e->relay, e->reader, page);
    }
    if (!rc && qr_batch_bytes(qr_relay_batch(e->relay)) >= APPEND_AT)
        rc = qr_relay_pass(e->relay);
    return rc;
}

static int export_pages(struct export *e)
{
    int rc = 0;
    const struct qr_page *page;
    for (page = qr_state_next_page(e->state, 0); page && !rc;
         page = qr_state_next_page(e->state, page->id))
        rc = export_page(e, page);
    for (page = qr_state_next_page(e->state, 0); page && !rc;
         page = qr_state_next_page(e->state, page->id))
        if (page->parent > page->id)
            rc = qr_batch_page_rename(qr_relay_batch(e->relay), page->id, page->parent, page->name,
                                      page->name_length);
    return rc ? rc : qr_relay_pass(e->relay);
}

/* Reads and encodes in this thread and writes in another, if that is worth one. */
static int export_content(struct export *e, struct qr_store *store)
{
    int is_threaded =
        store->options.threads != 1 && qr_state_bytes(e->state) >= (uint64_t)THREADED_FROM;
    int rc = qr_relay_create(store->options.compress_level, is_threaded, append, e, &e->relay);
    if (!rc)
        rc = qr_reader_create(store, 8 << 20, &e->reader);
    if (!rc)
        rc = export_pages(e);
    char detail[1024];
    snprintf(detail, sizeof detail, "%s", qallow_error_detail());
    qr_reader_destroy(e->reader);
    int written = qr_relay_finish(e->relay);
    return rc ? qr_fail(rc, "%s", detail) : written;
}

static int export_to(struct qr_store *store, const struct qr_state *state, const char *path)
{
    struct export e = {.state = state};
    uint64_t epoch;
    struct qb_u128 digest = qr_state_digest(state);
    uint8_t uuid[16]; /* follows from the log and the epoch: the same export gives the same bytes */
    qr_store64(uuid, qb_kernels()->hash64(store->log->header.uuid, 16, qr_state_epoch(state)));
    qr_store64(uuid + 8, qb_kernels()->hash64(uuid, 8, qr_state_epoch(state)));
    struct qr_store_options options = {.os = store->os,
                                       .writable = 1,
                                       .create = 1,
                                       .no_index = 1,
                                       .no_lock = 1,
                                       .uuid = uuid,
                                       .first_epoch = qr_state_epoch(state),
                                       .commit_time_ns = qr_state_time_ns(state),
                                       .compress_level = store->options.compress_level,
                                       .sync = QR_SYNC_COMMIT};
    int rc = qr_store_open(path, &options, &e.to);
    if (!rc)
        rc = qr_txn_begin(e.to, &e.txn);
    if (!rc)
        rc = export_content(&e, store);
    if (!rc && !qb_u128_equal(qr_state_digest(qr_store_state(e.to)), digest))
        rc = qr_fail(QALLOW_E_INTERNAL, "%s: the checkpoint does not give the digest of its epoch",
                     qr_quotez(path));
    if (!rc) {
        rc = qr_txn_commit(e.txn, &epoch);
        e.txn = NULL;
    }
    qr_txn_abort(e.txn);
    char detail[512];
    snprintf(detail, sizeof detail, "%s", qallow_error_detail());
    int closed = qr_store_close(e.to);
    return rc ? qr_fail(rc, "%s", detail) : closed;
}

static int exists(const struct qr_os *os, const char *path)
{
    int file = os->open(os->context, path, QR_OPEN_READ, 0);
    if (file >= 0)
        os->close(os->context, file);
    return file != -ENOENT && file != -ENOTDIR;
}

/* What is there and must not be replaced even if that is asked for. */
static int is_special(const struct qr_os *os, const char *path)
{
    int file = os->open(os->context, path, QR_OPEN_READ, 0);
    if (file >= 0)
        os->close(os->context, file);
    return file == -EINVAL || file == -EISDIR;
}

static int export_claimed(struct qr_store *store, uint64_t epoch, const char *path, int overwrite)
{
    const struct qr_os *os = store->os;
    struct qr_state *state = NULL;
    char *temporary;
    if (!overwrite && exists(os, path))
        return qr_fail(QALLOW_E_CANNOT_CREATE, "%s exists already", qr_quotez(path));
    if (is_special(os, path))
        return qr_fail(QALLOW_E_CANNOT_CREATE, "%s is no regular file", qr_quotez(path));
    if (epoch == 0)
        return qr_fail(QALLOW_E_EPOCH_NOT_FOUND, "epoch 0 is empty; there is nothing to export");
    if (!(temporary = qr_path_with(path, ".tmp")))
        return QALLOW_E_NO_MEMORY;
    int rc = qr_store_state_at(store, epoch, &state);
    if (!rc) {
        os->unlink(os->context, temporary); /* left over by an export that was killed */
        rc = export_to(store, state, temporary);
        int result = rc ? 0 : os->rename(os->context, temporary, path);
        if (!rc && result >= 0)
            result = os->sync_directory_of(os->context, path);
        if (!rc && result < 0)
            rc = qr_fail_errno(-result, "%s: cannot create", qr_quotez(path));
        if (rc)
            os->unlink(os->context, temporary);
    }
    qr_state_destroy(state);
    qr_free(temporary);
    return rc;
}

int qr_checkpoint_export(struct qr_store *store, uint64_t epoch, const char *path, int overwrite)
{
    struct qr_claim claim;
    int rc = qr_claim_take(&claim, store->os, path);
    if (!rc)
        rc = export_claimed(store, epoch, path, overwrite);
    qr_claim_release(&claim);
    return rc;
}
