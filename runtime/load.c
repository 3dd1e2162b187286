/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading an epoch of a log that is not open into memory.
 *
 * With an index, the newest state is known at once as places in the log, and gather.c reads what
 * they refer to. Without one the log has to be read whole, since only that finds its end and the
 * state; so content goes to its place while it passes, and nothing is read twice: the state has no
 * pieces, and the apply function writes bytes instead (qr_state.places).
 *
 * That is done for logs that are as they should be. Whatever is not (an unfinished transaction, a
 * torn tail, damage, a log that has been pruned or is being written, a change that needs bytes
 * nobody asked for) is left to the usual way, which overwrites what has been put into memory: so
 * both ways have one outcome, and one set of messages.
 */
#include <errno.h>

#include "runtime/error.h"
#include "runtime/store_internal.h"

/* A store that is nothing but its log. */
static void bare_finish(struct qr_store *store)
{
    qr_state_destroy(store->state);
    qr_directory_finish(&store->directory);
    qr_log_close(store->log);
    qr_free(store->path);
}

static int note_frame(void *context, const struct qr_frame *frame)
{
    if (frame->type == QR_FRAME_RELOCATION)
        return qr_fail(QALLOW_E_STATE, "relocated content");
    return qr_store_note_frame(context, frame);
}

/* The newest epoch in one pass. */
static int run_through(struct qr_store *store)
{
    struct qr_chain chain;
    struct qr_epoch epoch;
    const struct qr_log_header *h = &store->log->header;
    int rc = qr_chain_init(&chain, store, store->state, h->start, h->start_prev, h->first_epoch);
    chain.other = note_frame;
    chain.context = store;
    chain.scan.takes_changes = 1;
    if (!rc)
        qr_scan_read_ahead(&chain.scan, 0, store->options.threads, store->options.max_memory);
    while (!rc && (rc = qr_chain_next(&chain, &epoch)) > 0)
        rc = store->pending_keyframe = 0;
    rc = rc ? rc : qr_scan_settle(&chain.scan);
    if (!rc && (!chain.scan.all_zero || chain.in_transaction || store->pending_keyframe ||
                store->state->epoch < h->first_epoch))
        rc = qr_fail(QALLOW_E_STATE, "its end is not clean");
    qr_chain_finish(&chain);
    return rc;
}

static int load_passing(struct qr_store *store, const struct qr_places *places)
{
    const struct qr_log_header *h = &store->log->header;
    int rc = h->base ? qr_fail(QALLOW_E_STATE, "pruned") : qr_state_create(&store->state);
    if (rc)
        return rc;
    store->state->epoch = h->first_epoch - 1;
    store->state->places = places;
    store->state->is_final = (h->flags & QR_LOG_CHECKPOINT) != 0;
    store->state->summed_to = store->state->slot_count;
    rc = run_through(store);
    return rc ? rc : qr_state_check(store->state, places, store->options.threads);
}

/* Whether there is an index to go by. */
static int has_index(const struct qr_store *store)
{
    const struct qr_os *os = store->os;
    char *path = qr_path_with(store->path, "-index");
    int file = path ? os->open(os->context, path, QR_OPEN_READ, 0) : -ENOENT;
    if (file >= 0)
        os->close(os->context, file);
    qr_free(path);
    return file >= 0;
}

/* 1: loaded; 0: not this way. */
static int pass(const char *path, const struct qr_store_options *options,
                const struct qr_places *places)
{
    struct qr_store store = {.options = *options, .lock_file = -1};
    store.os = options->os ? options->os : qr_os_posix();
    store.path = qr_path_with(path, "");
    int rc = store.path ? qr_log_open(store.os, path, 0, &store.log) : QALLOW_E_NO_MEMORY;
    if (!rc && !options->ignore_index && has_index(&store))
        rc = qr_fail(QALLOW_E_STATE, "there is an index");
    if (!rc)
        rc = load_passing(&store, places);
    bare_finish(&store);
    return !rc;
}

static int load_epoch(struct qr_store *store, uint64_t epoch, const struct qr_places *places)
{
    struct qr_state *state = NULL;
    if (epoch == 0)
        return qr_state_load(store, store->state, places);
    int rc = qr_store_state_at(store, epoch, &state);
    if (!rc)
        rc = qr_state_load(store, state, places);
    qr_state_destroy(state);
    return rc;
}

int qr_load(const char *path, const struct qr_store_options *options, uint64_t epoch,
            const struct qr_places *places)
{
    struct qr_store *store;
    qr_assert(!options->writable);
    if (epoch == 0 && !options->salvage && pass(path, options, places))
        return 0;
    int rc = qr_store_open(path, options, &store);
    if (rc)
        return rc;
    rc = load_epoch(store, epoch, places);
    int closed = qr_store_close(store);
    return rc ? rc : closed;
}
