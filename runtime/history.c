/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions about the past: what an epoch was, the state as of an epoch, the records between two.
 * All answers come from the log through the chain; the directory only says where to begin.
 */
#include "runtime/error.h"
#include "runtime/store_internal.h"

enum { READER_CACHE = 4 << 20 };

int qr_store_no_epoch(struct qr_store *store, uint64_t epoch)
{
    struct qr_store_info info;
    qr_store_info(store, &info);
    if (!info.first_epoch)
        return qr_fail(QALLOW_E_EPOCH_NOT_FOUND, "%s: no epoch %llu: nothing has been recorded yet",
                       qr_quotez(store->path), (unsigned long long)epoch);
    if (epoch > info.last_epoch)
        return qr_fail(QALLOW_E_EPOCH_NOT_FOUND, "%s: no epoch %llu: the last one is %llu",
                       qr_quotez(store->path), (unsigned long long)epoch,
                       (unsigned long long)info.last_epoch);
    if (epoch < info.first_epoch)
        return qr_fail(QALLOW_E_EPOCH_NOT_FOUND,
                       "%s: no epoch %llu: epochs before %llu have been pruned",
                       qr_quotez(store->path), (unsigned long long)epoch,
                       (unsigned long long)info.first_epoch);
    return qr_fail(QALLOW_E_DAMAGED, "%s: epoch %llu was lost to damage", qr_quotez(store->path),
                   (unsigned long long)epoch);
}

/* ---------------------------------------------------------------- one epoch */

static const char *label_of(const struct qr_store *store, uint64_t epoch)
{
    const struct qr_directory *d = &store->directory;
    for (size_t i = 0; i < d->label_count; i++)
        if (d->labels[i].epoch == epoch)
            return d->labels[i].name;
    return NULL;
}

/* The newest keyframe at or before an epoch, or NULL. */
static const struct qr_keyframe *keyframe_before(const struct qr_store *store, uint64_t epoch)
{
    const struct qr_directory *d = &store->directory;
    size_t low = 0, high = d->keyframe_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (d->keyframes[middle].epoch <= epoch)
            low = middle + 1;
        else
            high = middle;
    }
    return low ? &d->keyframes[low - 1] : NULL;
}

/* An epoch whose COMMIT is gone (pruned, or lost to damage): what its keyframe says. */
static int keyframe_epoch(struct qr_store *store, uint64_t offset, struct qr_epoch *info)
{
    struct qr_keyframe_head head;
    struct qr_state *state;
    int rc = qr_keyframe_read(store->log, offset, &state, &head);
    if (rc)
        return rc;
    *info = (struct qr_epoch){.epoch = head.epoch, .time_ns = state->time_ns,
                              .digest = state->digest, .frame_start = head.resume,
                              .frame_end = head.resume};
    qr_state_destroy(state);
    return 0;
}

/* Where the frames of an epoch begin: behind the commit before it, without keyframes and labels. */
static int epoch_start(struct qr_store *store, struct qr_epoch *info)
{
    uint64_t before = qr_directory_commit(&store->directory, info->epoch - 1), offset;
    struct qr_frame_buffers buffers = {NULL, NULL, 0, 0};
    struct qr_frame frame;
    int rc = 0;
    if (!before && info->epoch > store->directory.commit_base) /* lost: where it ended is unknown */
        return 0;
    offset = before ? before : store->log->header.start;
    for (int skip = before != 0; offset < info->frame_start; skip = 0) {
        rc = qr_log_read_frame(store->log, offset, &buffers, &frame);
        if (rc || (!skip && (frame.type == QR_FRAME_DATA || frame.type == QR_FRAME_CONTENT)))
            break;
        offset += qr_frame_span(frame.stored);
    }
    qr_frame_buffers_finish(&buffers);
    info->frame_start = offset;
    return rc;
}

int qr_store_epoch(struct qr_store *store, uint64_t epoch, struct qr_epoch *info)
{
    struct qr_frame_buffers buffers = {NULL, NULL, 0, 0};
    struct qr_frame frame;
    size_t records;
    uint64_t next_id, offset = qr_directory_commit(&store->directory, epoch);
    const struct qr_keyframe *keyframe = offset ? NULL : keyframe_before(store, epoch);
    const struct qr_log_header *h = &store->log->header;
    int rc;
    if (!offset && epoch == h->first_epoch && h->base)
        rc = keyframe_epoch(store, h->base, info);
    else if (keyframe && keyframe->epoch == epoch)
        rc = keyframe_epoch(store, keyframe->offset, info);
    else if (!offset)
        return qr_store_no_epoch(store, epoch);
    else {
        rc = qr_log_read_frame(store->log, offset, &buffers, &frame);
        if (!rc && frame.type != QR_FRAME_COMMIT)
            rc = qr_fail(QALLOW_E_DAMAGED, "%s: no commit frame at offset %llu",
                         qr_quotez(store->path), (unsigned long long)offset);
        if (!rc)
            rc = qr_commit_parse(&frame, info, &next_id, &records);
        info->frame_start = offset;
        if (!rc)
            rc = epoch_start(store, info);
        qr_frame_buffers_finish(&buffers);
    }
    info->label = label_of(store, epoch);
    return rc;
}

int qr_store_epoch_at_time(struct qr_store *store, int64_t time_ns, uint64_t *epoch)
{
    struct qr_store_info facts;
    struct qr_epoch info;
    qr_store_info(store, &facts);
    uint64_t low = facts.first_epoch, high = facts.last_epoch + 1; /* first one that is later */
    if (!facts.first_epoch)
        return qr_store_no_epoch(store, 1);
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        int rc = qr_store_epoch(store, middle, &info);
        if (rc)
            return rc;
        if (info.time_ns <= time_ns)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == facts.first_epoch)
        return qr_fail(QALLOW_E_EPOCH_NOT_FOUND,
                       "%s: no epoch is that old: the first one that is kept is %llu",
                       qr_quotez(store->path), (unsigned long long)facts.first_epoch);
    *epoch = low - 1;
    return 0;
}

int qr_store_epoch_of_label(struct qr_store *store, const char *label, uint64_t *epoch)
{
    const struct qr_directory *d = &store->directory;
    for (size_t i = 0; i < d->label_count; i++)
        if (!strcmp(d->labels[i].name, label)) {
            *epoch = d->labels[i].epoch;
            return 0;
        }
    return qr_fail(QALLOW_E_EPOCH_NOT_FOUND, "%s: no label %s", qr_quotez(store->path),
                   qr_quotez(label));
}

/* ---------------------------------------------------------------- the state as of an epoch */

int qr_store_seek(struct qr_store *store, uint64_t epoch, struct qr_state **state, uint64_t *offset,
                  uint64_t *prev)
{
    const struct qr_log_header *h = &store->log->header;
    const struct qr_keyframe *keyframe = keyframe_before(store, epoch);
    struct qr_keyframe_head head;
    if (keyframe || (h->base && epoch >= h->first_epoch)) {
        uint64_t at = keyframe && keyframe->epoch != h->first_epoch ? keyframe->offset
                      : h->base                                      ? h->base
                                                                     : keyframe->offset;
        int rc = qr_keyframe_read(store->log, at, state, &head);
        *offset = head.resume;
        *prev = head.prev;
        return rc;
    }
    *offset = h->start;
    *prev = h->start_prev;
    int rc = qr_state_create(state);
    if (!rc)
        (*state)->epoch = h->first_epoch - 1;
    return rc;
}

static int has_epoch(const struct qr_store *store, uint64_t epoch)
{
    const struct qr_log_header *h = &store->log->header;
    return qr_directory_commit(&store->directory, epoch) ||
           (epoch == h->first_epoch && h->base) || (epoch == 0 && h->first_epoch == 1) ||
           (keyframe_before(store, epoch) && keyframe_before(store, epoch)->epoch == epoch);
}

/* Why a chain ended before the epoch that the directory promises. */
static int chain_broken(struct qr_store *store, const struct qr_chain *chain)
{
    int rc = qr_fail(QALLOW_E_DAMAGED, "%s: damaged at offset %llu, in epoch %llu: %s",
                     qr_quotez(store->path), (unsigned long long)chain->scan.offset,
                     (unsigned long long)chain->next_epoch,
                     chain->scan.why ? chain->scan.why : "the log ends");
    return qr_log_check_pruned(store->log, rc);
}

int qr_store_state_at(struct qr_store *store, uint64_t epoch, struct qr_state **out)
{
    struct qr_state *state = NULL;
    struct qr_chain chain = {.store = NULL};
    struct qr_epoch info;
    uint64_t offset, prev;
    if (epoch == store->state->epoch && !store->txn)
        return qr_state_clone(store->state, out);
    if (!has_epoch(store, epoch) && !(store->txn && epoch + 1 == store->log->header.first_epoch))
        return qr_store_no_epoch(store, epoch);
    int rc = qr_log_check_pruned(store->log, qr_store_seek(store, epoch, &state, &offset, &prev));
    if (!rc && state->epoch < epoch) {
        rc = qr_chain_init(&chain, store, state, offset, prev, state->epoch + 1);
        if (!rc)
            qr_scan_read_ahead(&chain.scan, qr_directory_commit(&store->directory, epoch),
                               store->options.threads, store->options.max_memory);
        while (!rc && state->epoch < epoch) {
            rc = qr_chain_next(&chain, &info);
            rc = rc == 0 ? chain_broken(store, &chain) : rc < 0 ? rc : 0;
        }
        qr_chain_finish(&chain);
    }
    if (rc) {
        qr_state_destroy(state);
        return rc;
    }
    *out = state;
    return 0;
}

int qr_store_plan(struct qr_store *store, uint64_t epoch, struct qr_seek_plan *plan)
{
    struct qr_epoch info;
    const struct qr_keyframe *keyframe = keyframe_before(store, epoch);
    *plan = (struct qr_seek_plan){.keyframe_epoch = 0};
    if (!has_epoch(store, epoch))
        return qr_store_no_epoch(store, epoch);
    uint64_t from = store->log->header.start, to = from;
    if (keyframe) {
        struct qr_keyframe_head head;
        struct qr_state *state;
        int rc = qr_keyframe_read(store->log, keyframe->offset, &state, &head);
        if (rc)
            return rc;
        qr_state_destroy(state);
        plan->keyframe_epoch = keyframe->epoch;
        plan->keyframe_bytes = head.resume > keyframe->offset ? head.resume - keyframe->offset : 0;
        from = head.resume;
    }
    if (epoch > plan->keyframe_epoch && qr_directory_commit(&store->directory, epoch)) {
        int rc = qr_store_epoch(store, epoch, &info);
        if (rc)
            return rc;
        to = info.frame_end;
        plan->replay_epochs = epoch - (keyframe ? plan->keyframe_epoch
                                                : store->log->header.first_epoch - 1);
        plan->replay_bytes = to > from ? to - from : 0;
    }
    return 0;
}

/* ---------------------------------------------------------------- walking */

struct walker {
    const struct qr_walk *walk;
    struct qr_chain *chain;
    struct qr_epoch current;
    struct qr_reader *reader; /* to hold pages with; or NULL */
};

/* Before the first part of a delta: from then on what is held follows. What cannot be read is not
 * held: who needs the content finds out. An image is the content from then on, and nobody has
 * looked at it yet: what came before it vouches for nothing. */
static void hold(const struct walker *w, const struct qr_record *record)
{
    struct qr_page *page = qr_state_find(w->chain->state, record->page);
    if (page && record->type == QR_RECORD_IMAGE)
        qr_page_let_go(w->chain->state, page);
    if (page && page->size && record->type == QR_RECORD_DELTA && record->first && !page->held)
        (void)qr_state_hold(w->chain->state, page, w->reader);
}

static int walk_record(void *context, const struct qr_record *record)
{
    struct walker *w = context;
    if (w->reader)
        hold(w, record);
    if (w->chain->next_epoch < w->walk->from || !w->walk->record)
        return 0;
    w->current.epoch = w->chain->next_epoch;
    return w->walk->record(w->walk->context, &w->current, w->chain->state, record);
}

int qr_store_walk(struct qr_store *store, const struct qr_walk *walk)
{
    struct qr_chain chain = {.store = NULL};
    struct walker walker = {.walk = walk, .chain = &chain};
    struct qr_state *state = NULL;
    struct qr_epoch info;
    uint64_t offset, prev;
    if (walk->from > walk->to)
        return 0;
    if (!has_epoch(store, walk->to))
        return qr_store_no_epoch(store, walk->to);
    if (walk->from < store->log->header.first_epoch)
        return qr_store_no_epoch(store, walk->from);
    /* the oldest epoch of a pruned log has no records any more */
    uint64_t before = store->log->header.base && walk->from == store->log->header.first_epoch
                          ? walk->from : walk->from - 1;
    int rc = qr_log_check_pruned(store->log, qr_store_seek(store, before, &state, &offset, &prev));
    if (!rc)
        rc = qr_chain_init(&chain, store, walk->with_state ? state : NULL, offset, prev,
                           state->epoch + 1);
    if (!rc && walk->with_state && walk->hold_bytes) {
        qr_state_set_held_limits(state, walk->hold_bytes, walk->hold_page_bytes);
        qr_state_hold_all(store, state);
        rc = qr_reader_create(store, READER_CACHE, &walker.reader);
    }
    chain.record = walk_record;
    chain.context = &walker;
    while (!rc && chain.next_epoch <= walk->to) {
        rc = qr_chain_next(&chain, &info);
        if (rc <= 0) {
            rc = rc == 0 ? chain_broken(store, &chain) : rc;
            break;
        }
        rc = 0;
        info.label = label_of(store, info.epoch);
        if (info.epoch >= walk->from && walk->epoch_end)
            rc = walk->epoch_end(walk->context, &info, chain.state);
    }
    if (chain.store)
        qr_chain_finish(&chain);
    qr_reader_destroy(walker.reader);
    qr_state_destroy(state);
    return rc;
}

/* ---------------------------------------------------------------- following */

static int refresh_note(void *context, const struct qr_frame *frame)
{
    return qr_store_note_frame(context, frame);
}

/* The end of the last whole epoch that is durable, found without touching the state. */
static int durable_end(struct qr_store *store, uint64_t bound, uint64_t *end)
{
    struct qr_chain chain;
    struct qr_epoch info;
    *end = store->log->end;
    int rc = qr_chain_init(&chain, store, NULL, store->log->end, store->log->prev,
                           store->state->epoch + 1);
    while (!rc && (rc = qr_chain_next(&chain, &info)) > 0) {
        rc = 0;
        if (bound && info.frame_end > bound)
            break;
        *end = info.frame_end;
    }
    qr_chain_finish(&chain);
    return rc < 0 ? rc : 0;
}

/* The first epoch that another reading of the log has changed or lost; 0 if none. */
static uint64_t first_difference(const struct qr_store *store, const struct qr_directory *old,
                                 const struct qr_state *old_state)
{
    const struct qr_log_header *header = &store->log->header;
    uint64_t newest = old_state->epoch, e = store->state->epoch;
    uint64_t pruned = header->base ? header->first_epoch : 0; /* no commits up to here: no loss */
    if (e > newest)
        e = newest;
    while (e > pruned && qr_directory_commit(&store->directory, e) != qr_directory_commit(old, e))
        e--;
    if (e < newest)
        return e + 1;
    return store->state->epoch == newest &&
                   !qb_u128_equal(store->state->digest, old_state->digest)
               ? newest : 0;
}

/* The log is not what it was: everything is read again. On failure the store is as before. */
static int reopen(struct qr_store *store, uint64_t *lost_from)
{
    struct qr_directory old = store->directory;
    struct qr_state *old_state = store->state;
    struct qr_log old_log = *store->log;
    pthread_rwlock_wrlock(&store->lock);
    store->directory = (struct qr_directory){.commit_base = 0};
    store->state = NULL;
    int rc = qr_log_reload_header(store->log);
    if (!rc)
        rc = qr_store_recover(store);
    if (rc) {
        qr_directory_finish(&store->directory);
        qr_state_destroy(store->state);
        store->directory = old;
        store->state = old_state;
        *store->log = old_log;
    } else {
        store->log->rewinds++;
        *lost_from = first_difference(store, &old, old_state);
        qr_directory_finish(&old);
        qr_state_destroy(old_state);
    }
    pthread_rwlock_unlock(&store->lock);
    return rc;
}

/* 1 if the frame we read last is still there. */
static int last_frame_stands(struct qr_store *store)
{
    uint8_t header[QR_FRAME_HEADER];
    struct qr_frame frame;
    struct qr_log *log = store->log;
    if (!log->last_frame)
        return 1;
    return log->os->pread(log->os->context, log->file, header, sizeof header, log->last_frame) ==
               (int64_t)sizeof header &&
           qr_frame_parse(log, log->last_frame, header, &frame) && frame.head_sum == log->prev;
}

int qr_store_refresh(struct qr_store *store, int *changed, uint64_t *lost_from)
{
    struct qr_chain chain = {.store = NULL};
    struct qr_epoch info;
    struct qr_store_info facts;
    uint64_t end, before = store->state->epoch, sequence = store->log->header.sequence;
    *changed = 0;
    *lost_from = 0;
    if (store->options.writable)
        return 0;
    int rc = qr_log_reload_header(store->log);
    if (rc)
        return rc;
    if (!last_frame_stands(store) || store->log->header.sequence != sequence) {
        rc = reopen(store, lost_from);
        *changed = !rc && (store->state->epoch != before || *lost_from);
        return rc;
    }
    qr_store_info(store, &facts);
    rc = durable_end(store, facts.owner_pid ? facts.synced_to : 0, &end);
    if (rc || end == store->log->end)
        return rc;
    rc = qr_chain_init(&chain, store, store->state, store->log->end, store->log->prev,
                       store->state->epoch + 1);
    chain.limit = end;
    chain.meter = &store->meter;
    chain.other = refresh_note;
    chain.context = store;
    while (!rc && (rc = qr_chain_next(&chain, &info)) > 0)
        rc = qr_directory_add_commit(&store->directory, info.epoch, chain.last_frame);
    if (!rc) {
        /* What was read ahead, behind the old end, may be other frames now. */
        store->log->rewinds++;
        store->log->end = store->log->flushed = chain.scan.offset;
        store->log->prev = chain.scan.prev;
        store->log->last_frame = chain.last_frame;
    }
    qr_chain_finish(&chain);
    if (rc) /* the state may be half-way between two epochs */
        rc = reopen(store, lost_from);
    *changed = store->state->epoch != before || *lost_from;
    return rc;
}
