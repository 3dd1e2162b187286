/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pruning: giving back the space of old epochs without copying the log
 * (docs/formats/tlog.md, "Pruning").
 *
 * Everything before the first frame behind epoch F's COMMIT goes. What later epochs still need of
 * it is exactly what epoch F's own content refers to there, since newer content can only refer to
 * that or to newer frames. So those bytes are written again as RELOCATION frames under their old
 * references, and a keyframe of F becomes the new beginning.
 *
 * Labels need nothing: the frame of a label stands behind its epoch's COMMIT.
 *
 * Order: relocations, keyframe; sync; header slot; sync; punch. A crash before the header
 * leaves frames that nobody needs; a crash after it leaves blocks that the next prune punches.
 */
#include <stdlib.h>

#include "runtime/error.h"
#include "runtime/consumers.h"
#include "runtime/store_internal.h"

struct range {
    qr_ref ref;
    uint64_t length;
};

struct prune {
    struct qr_store *store;
    uint64_t keep_from, cut, cut_prev;
    struct qr_state *state; /* of epoch keep_from */
    struct range *ranges;   /* literals that would fall, sorted, without overlap */
    size_t count, capacity;
    int punch_errno;
};

/* Notes the parts of a piece that stand before the cut. */
static int note_piece(struct prune *p, qr_ref ref, uint64_t length)
{
    struct qr_store *store = p->store;
    while (length) {
        uint64_t n = length;
        qr_ref now = qr_directory_resolve(&store->directory, store->log->header.start, ref, &n);
        if (qr_ref_frame(now) < p->cut) {
            int rc = QR_GROW(p->ranges, p->count, p->capacity);
            if (rc)
                return rc;
            p->ranges[p->count++] = (struct range){ref, n};
        }
        ref += n;
        length -= n;
    }
    return 0;
}

static int compare_ranges(const void *a, const void *b)
{
    const struct range *x = a, *y = b;
    return x->ref < y->ref ? -1 : x->ref > y->ref;
}

static int note_page(struct prune *p, const struct qr_page *page)
{
    struct qr_content content;
    int rc = qr_content_init(&content, page);
    for (size_t i = 0; !rc && i < content.piece_count; i++)
        if (content.pieces[i].ref != QR_REF_ZERO)
            rc = note_piece(p, content.pieces[i].ref, content.pieces[i].length);
    qr_content_finish(&content);
    return rc;
}

static int collect_ranges(struct prune *p)
{
    size_t kept = 0;
    int rc = 0;
    for (const struct qr_page *page = qr_state_next_page(p->state, 0); page && !rc;
         page = qr_state_next_page(p->state, page->id))
        rc = note_page(p, page);
    if (p->count)
        qsort(p->ranges, p->count, sizeof *p->ranges, compare_ranges);
    for (size_t i = 0; i < p->count; i++) { /* overlapping ones and neighbours in one frame join */
        struct range *last = kept ? &p->ranges[kept - 1] : NULL, here = p->ranges[i];
        if (last && qr_ref_frame(last->ref) == qr_ref_frame(here.ref) &&
            here.ref <= last->ref + last->length) {
            if (here.ref + here.length > last->ref + last->length)
                last->length = here.ref + here.length - last->ref;
        } else {
            p->ranges[kept++] = here;
        }
    }
    p->count = kept;
    return rc;
}

static uint64_t relocated_bytes(const struct prune *p)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < p->count; i++)
        sum += p->ranges[i].length;
    return sum;
}

/* ---------------------------------------------------------------- writing */

struct relocator {
    struct qr_store *store;
    struct qr_reader *reader;
    uint8_t *entries, *body; /* entries without the count in front; with it */
    size_t fill;
    uint64_t count;
};

enum { ENTRIES_MAX = QR_BODY_MAX - QR_VARINT_MAX, ENTRY_MAX = 256 << 10 };

static int flush_relocations(struct relocator *r)
{
    uint64_t offset;
    if (!r->count)
        return 0;
    uint8_t *p = qr_put_varint(r->body, r->count);
    memcpy(p, r->entries, r->fill);
    int rc = qr_log_append(r->store->log, QR_FRAME_RELOCATION, 0, r->body,
                           (size_t)(p - r->body) + r->fill, &offset);
    r->fill = 0;
    r->count = 0;
    return rc ? rc : qr_directory_add_relocation_frame(&r->store->directory, offset);
}

static int relocate(struct relocator *r, struct range range)
{
    int rc = 0;
    while (range.length && !rc) {
        uint64_t n = range.length < ENTRY_MAX ? range.length : ENTRY_MAX;
        if (r->fill + 8 + QR_VARINT_MAX + n > ENTRIES_MAX && (rc = flush_relocations(r)))
            break;
        uint8_t *p = r->entries + r->fill;
        qr_store64(p, range.ref);
        p = qr_put_varint(p + 8, n);
        struct qr_content content = {.piece_count = 1, .size = n,
                                     .inline_piece = {range.ref, n}};
        content.pieces = &content.inline_piece;
        rc = qr_content_read(r->reader, &content, 0, p, (size_t)n);
        r->fill = (size_t)(p + n - r->entries);
        r->count++;
        range.ref += n;
        range.length -= n;
    }
    return rc;
}

static int write_relocations(struct prune *p)
{
    struct relocator r = {.store = p->store};
    int rc = qr_reader_create(p->store, 8 << 20, &r.reader);
    r.entries = qr_malloc(QR_BODY_MAX);
    r.body = qr_malloc(QR_BODY_MAX);
    if (!rc && (!r.entries || !r.body))
        rc = qr_fail(QALLOW_E_NO_MEMORY, "prune");
    for (size_t i = 0; i < p->count && !rc; i++)
        rc = relocate(&r, p->ranges[i]);
    if (!rc)
        rc = flush_relocations(&r);
    qr_reader_destroy(r.reader);
    qr_free(r.entries);
    qr_free(r.body);
    return rc;
}

/* What the directory still knows after the cut. */
static int prune_directory(struct prune *p, uint64_t keyframe)
{
    struct qr_directory *d = &p->store->directory;
    size_t kept = 0;
    size_t gone = (size_t)(p->keep_from + 1 - d->commit_base);
    memmove(d->commits, d->commits + gone, (d->commit_count - gone) * sizeof *d->commits);
    d->commit_count -= gone;
    d->commit_base = p->keep_from + 1;
    for (size_t i = 0; i < d->keyframe_count; i++)
        if (d->keyframes[i].epoch > p->keep_from)
            d->keyframes[kept++] = d->keyframes[i];
    d->keyframe_count = kept;
    kept = 0;
    for (size_t i = 0; i < d->relocation_frame_count; i++)
        if (d->relocation_frames[i] >= p->cut)
            d->relocation_frames[kept++] = d->relocation_frames[i];
    d->relocation_frame_count = kept;
    qr_directory_drop_labels(d, p->keep_from);
    return qr_directory_add_keyframe(d, p->keep_from, keyframe);
}

static int write_header(struct prune *p, uint64_t keyframe)
{
    struct qr_log_header header = p->store->log->header;
    header.start = p->cut;
    header.start_prev = p->cut_prev;
    header.first_epoch = p->keep_from;
    header.base = keyframe;
    header.next_epoch = p->store->state->epoch + 1;
    return qr_log_write_header(p->store->log, &header);
}

static int execute(struct prune *p)
{
    struct qr_store *store = p->store;
    struct qr_log *log = store->log;
    struct qr_log_mark mark = qr_log_mark(log);
    uint64_t keyframe = 0;
    size_t frames_before = store->directory.relocation_frame_count;
    int rc = write_relocations(p);
    if (!rc)
        rc = qr_keyframe_write(log, p->state, p->cut, p->cut_prev, store->options.compress_level,
                               &keyframe);
    if (!rc)
        rc = qr_store_sync_log(store);
    if (rc) { /* nothing has been promised yet: as before */
        store->directory.relocation_frame_count = frames_before;
        if (log->failed || qr_log_rewind(log, mark))
            store->broken = 1;
        return rc;
    }
    store->appended = 1;
    if ((rc = write_header(p, keyframe)))
        return rc;
    pthread_rwlock_wrlock(&store->lock);
    atomic_store(&store->start, log->header.start);
    rc = prune_directory(p, keyframe);
    if (!rc)
        rc = qr_store_load_relocations(store);
    pthread_rwlock_unlock(&store->lock);
    store->broken |= rc != 0;
    int punched = log->os->punch(log->os->context, log->file, QR_FIRST_FRAME,
                                 p->cut - QR_FIRST_FRAME);
    p->punch_errno = punched < 0 ? -punched : 0; /* no failure: the epochs are dropped */
    qr_index_write(store); /* disposable: without it the next open reads the log */
    return rc;
}

/* Nobody who follows the log needs what would go. */
static int check_consumers(struct qr_store *store, uint64_t keep_from)
{
    struct qr_consumer who;
    uint64_t needed;
    int rc = qr_consumers_need(store, &needed, &who);
    if (rc || keep_from <= needed)
        return rc;
    int64_t silent = store->os->now_ns(store->os->context) - who.time_ns;
    return qr_fail(QALLOW_E_BUSY,
                   "%s: consumer %s holds epoch %llu and needs what follows; it has been silent "
                   "for %lld s",
                   qr_quotez(store->path), qr_quotez(who.name), (unsigned long long)needed,
                   (long long)(silent > 0 ? silent / 1000000000 : 0));
}

int qr_store_prune(struct qr_store *store, uint64_t keep_from, int dry_run,
                   struct qr_prune_plan *plan)
{
    struct prune p = {.store = store, .keep_from = keep_from};
    struct qr_prune_plan ignored, *result = plan ? plan : &ignored;
    struct qr_epoch info;
    struct qr_frame_buffers buffers = {NULL, NULL, 0, 0};
    struct qr_frame frame;
    uint64_t first = store->log->header.first_epoch;
    *result = (struct qr_prune_plan){.first_epoch_before = first, .first_epoch_after = first};
    int rc = dry_run ? 0 : qr_store_check_writable(store);
    if (!rc && store->txn)
        rc = qr_fail(QALLOW_E_STATE, "a log cannot be pruned within a transaction");
    if (rc || keep_from <= first)
        return rc;
    if ((rc = check_consumers(store, keep_from)))
        return rc;
    if ((rc = qr_store_epoch(store, keep_from, &info)))
        return rc;
    p.cut = info.frame_end;
    rc = qr_log_read_frame(store->log, qr_directory_commit(&store->directory, keep_from), &buffers,
                           &frame);
    p.cut_prev = rc ? 0 : frame.head_sum;
    qr_frame_buffers_finish(&buffers);
    if (!rc)
        rc = qr_store_state_at(store, keep_from, &p.state);
    if (!rc)
        rc = collect_ranges(&p);
    if (!rc) {
        result->first_epoch_after = keep_from;
        result->punched_bytes = p.cut - store->log->header.start;
        result->relocated_bytes = relocated_bytes(&p);
        if (!dry_run)
            rc = execute(&p);
        result->punch_errno = p.punch_errno;
        if (p.punch_errno)
            result->punched_bytes = 0;
    }
    qr_state_destroy(p.state);
    qr_free(p.ranges);
    return rc;
}
