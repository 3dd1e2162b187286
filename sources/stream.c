/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The change of a file too large for memory: old and new content pass by in windows.
 *
 * `o` and `n` are positions in the old and the new content up to which all is settled. A window of
 * the new content is compared with one twice as long of the old; the edits up to the last stretch
 * that both have in common are taken and both positions move there, so that an insertion or a
 * removal shifts the alignment for the rest of the file. If two windows have nothing in common, the
 * surplus of one side tells what happened: a longer new content is taken as an insertion, a longer
 * old one as a removal if the ends of the files then fit together, anything else as an overwrite. A
 * wrong guess costs log space, never correctness. Holes are passed over without being read.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "runtime/digest.h"
#include "sources/path.h"
#include "sources/stop.h"
#include "sources/tree_internal.h"

enum {
    WINDOW = 4 << 20,       /* of the old content; half of that of the new */
    COMMON = 64,            /* bytes in common that settle an alignment */
    INDEX_BYTES = 1 << 20,
    FLUSH_BYTES = 2 << 20,  /* of records, before they go to the log */
};

struct stream {
    struct qs_worker *worker;
    struct qs_step *change;
    struct qs_input input;
    struct qs_before before;
    struct qr_batch *batch;
    struct qr_txn *txn;
    uint64_t n, o, new_size, old_size;
    struct qr_cell_hasher cells; /* of the new content */
    int begun;
};

/* Appends edits in absolute offsets. */
static int put_edits(struct stream *s, struct qr_edits *edits)
{
    int rc = 0;
    if (edits->count == 0)
        return 0;
    if (!s->begun)
        rc = qr_batch_delta_begin(s->batch, s->change->page, s->before.base_id, s->old_size,
                                  s->new_size);
    s->begun = s->change->did_content = 1;
    if (rc == 0)
        rc = qr_batch_delta_edits(s->batch, edits, NULL);
    if (rc == 0 && qr_batch_bytes(s->batch) >= FLUSH_BYTES)
        rc = qr_txn_append(s->txn, s->batch);
    return rc;
}

static int put_edit(struct stream *s, struct qr_edit edit)
{
    struct qr_edits one = {.items = &edit, .count = 1, .capacity = 1};
    return edit.old_length || edit.new_length ? put_edits(s, &one) : 0;
}

/* Where the next data is; new_size if there is none. */
static uint64_t next_data(const struct stream *s)
{
    off_t at = lseek(s->input.fd, (off_t)s->n, SEEK_DATA);
    if (at < 0)
        return errno == ENXIO ? s->new_size : s->n;
    return (uint64_t)at < s->new_size ? (uint64_t)at : s->new_size;
}

static int pass_hole(struct stream *s, uint64_t length)
{
    uint64_t old_left = s->old_size - s->o, k = length < old_left ? length : old_left;
    int rc = 0;
    qr_cells_zeros(&s->cells, length);
    if (k != length || !qr_content_is_hole(&s->before.base, s->o, length))
        rc = put_edit(s, (struct qr_edit){.offset = s->o, .old_length = k, .new_length = length,
                                          .source = QR_ZEROS});
    s->n += length;
    s->o += k;
    return rc;
}

/*
 * Cuts the edits of a window behind the last stretch in common: returns how many to keep, and the
 * ends of the stretch in both windows (0 if they have nothing in common).
 */
static size_t settled(const struct qr_edits *edits, size_t old_length, uint64_t *old_end,
                      uint64_t *new_end)
{
    uint64_t at_old = 0, at_new = 0;
    size_t keep = 0;
    *old_end = *new_end = 0;
    for (size_t i = 0; i <= edits->count; i++) {
        uint64_t until = i < edits->count ? edits->items[i].offset : old_length;
        uint64_t common = until - at_old;
        at_new += common;
        if (common >= COMMON) {
            keep = i;
            *old_end = until;
            *new_end = at_new;
        }
        if (i < edits->count) {
            at_old = edits->items[i].offset + edits->items[i].old_length;
            at_new += edits->items[i].new_length;
        }
    }
    return keep;
}

/* Two windows with nothing in common. */
static int pass_stranger(struct stream *s, size_t window)
{
    struct qs_worker *w = s->worker;
    uint64_t new_left = s->new_size - s->n, old_left = s->old_size - s->o;
    if (old_left > new_left) {
        uint64_t fits = s->old_size - new_left;
        int rc = qr_content_read(w->reader, &s->before.base, fits, w->old, window);
        if (rc < 0)
            return rc;
        if (qb_kernels()->common_prefix(w->old, w->new_, window) >= COMMON) {
            struct qr_edit gone = {.offset = s->o, .old_length = fits - s->o};
            s->o = fits;
            return put_edit(s, gone);
        }
    }
    uint64_t surplus = new_left > old_left ? new_left - old_left : 0;
    struct qr_edit edit = {.offset = s->o, .source = QR_LITERAL, .bytes = w->new_};
    edit.new_length = surplus && surplus < window ? surplus : window;
    edit.old_length = surplus ? 0 : edit.new_length;
    if (qb_kernels()->is_zero(w->new_, (size_t)edit.new_length))
        edit.source = QR_ZEROS;
    qr_cells_update(&s->cells, w->new_, (size_t)edit.new_length);
    s->o += edit.old_length;
    s->n += edit.new_length;
    return put_edit(s, edit);
}

/* Reads exactly. 1: the bytes are not there; -errno. */
static int read_at(int fd, uint8_t *to, size_t size, uint64_t offset)
{
    while (size) {
        ssize_t n = pread(fd, to, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n ? -errno : 1;
        to += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return 0;
}

/* One window. Positive: the file did not hold still (1) or cannot be read (1 + errno). */
static int pass_window(struct stream *s)
{
    struct qs_worker *w = s->worker;
    uint64_t new_left = s->new_size - s->n, old_left = s->old_size - s->o, old_end, new_end;
    size_t window = WINDOW / 2;
    if (new_left < window)
        window = (size_t)new_left;
    size_t old_window = old_left < WINDOW ? (size_t)old_left : WINDOW;
    int rc = read_at(s->input.fd, w->new_, window, s->n);
    if (rc)
        return rc > 0 ? 1 : 1 - rc;
    if (old_window)
        rc = qr_content_read(w->reader, &s->before.base, s->o, w->old, old_window);
    if (rc < 0)
        return rc;
    if (old_window >= window &&
        qb_kernels()->common_prefix(w->old, w->new_, window) == window) {
        old_end = new_end = window;
        w->edits.count = 0;
    } else {
        w->edits.count = 0;
        rc = qr_diff(w->old, old_window, w->new_, window, INDEX_BYTES, &w->edits);
        if (rc < 0)
            return rc;
        if (old_window == 0) /* behind the old content: all of it is new */
            old_end = 0, new_end = window;
        else
            w->edits.count = settled(&w->edits, old_window, &old_end, &new_end);
    }
    if (new_end == 0)
        return pass_stranger(s, window);
    for (size_t i = 0; i < w->edits.count; i++) {
        w->edits.items[i].offset += s->o;
        w->edits.items[i].from += s->o;
    }
    qr_cells_update(&s->cells, w->new_, (size_t)new_end);
    s->n += new_end;
    s->o += old_end;
    return put_edits(s, &w->edits);
}

/* The file moved while it was read, but only grew: are the first bytes the same read again? */
static int still_the_same(struct stream *s, struct qb_u128 sum)
{
    struct qs_worker *w = s->worker;
    struct qr_cell_hasher again;
    qr_cells_init(&again, s->change->page, 0);
    for (s->n = 0; s->n < s->new_size;) {
        uint64_t data = next_data(s), left = s->new_size - s->n;
        if (data > s->n) {
            qr_cells_zeros(&again, data - s->n);
            s->n = data;
            continue;
        }
        size_t window = left < WINDOW ? (size_t)left : WINDOW;
        if (read_at(s->input.fd, w->old, window, s->n) != 0)
            return 0;
        qr_cells_update(&again, w->old, window);
        s->n += window;
    }
    return qb_u128_equal(qr_cells_finish(&again), sum);
}

static int stream_content(struct stream *s)
{
    int rc = 0;
    while (rc == 0 && s->n < s->new_size && (rc = qs_stop()) == 0) {
        uint64_t data = next_data(s);
        rc = data > s->n ? pass_hole(s, data - s->n) : pass_window(s);
    }
    if (rc)
        return rc;
    rc = put_edit(s, (struct qr_edit){.offset = s->o, .old_length = s->old_size - s->o});
    struct qb_u128 sum = qr_cells_finish(&s->cells);
    struct stat now;
    if (rc == 0 && qs_input_moved(&s->input, &now)) {
        if (now.st_size < s->input.before.st_size || !still_the_same(s, sum))
            return 1;
        s->input.racy = 1;
    }
    if (rc == 0 && !s->begun && !s->before.base_is_own) /* the same as the other page */
        rc = qr_batch_delta_begin(s->batch, s->change->page, s->before.base_id, s->old_size,
                                  s->new_size);
    if (rc == 0 && (s->begun || !s->before.base_is_own))
        rc = qr_batch_delta_end(s->batch, sum);
    return rc;
}

static int reserve_windows(struct qs_worker *w)
{
    if (w->old_capacity < WINDOW) {
        qr_free(w->old);
        w->old = qr_malloc(WINDOW);
        w->old_capacity = w->old ? WINDOW : 0;
    }
    if (w->new_capacity < WINDOW) {
        qr_free(w->new_);
        w->new_ = qr_malloc(WINDOW);
        w->new_capacity = w->new_ ? WINDOW : 0;
    }
    return w->old && w->new_ ? 0 : qr_fail(QALLOW_E_NO_MEMORY, "no memory to read a file");
}

int qs_step_stream(struct qs_worker *worker, struct qs_step *change, struct qr_batch *batch,
                     struct qr_txn *txn)
{
    struct stream s = {.worker = worker, .change = change, .batch = batch, .txn = txn,
                       .input = {.fd = -1}};
    int rc = reserve_windows(worker);
    if (rc < 0)
        return rc;
    rc = qs_input_open(worker, change, &s.input);
    if (rc > 0) {
        int was_new = change->base == 0 && !qr_state_find(qr_store_state(worker->tree->store),
                                                          change->page);
        rc = change->action == QS_DO_FREE && !was_new ? qr_batch_page_free(batch, change->page)
                                                      : 0;
        goto out;
    }
    if (rc == 0)
        rc = qs_before_get(worker, change, &s.before);
    if (rc == 0)
        rc = qs_put_head(worker, change, &s.before, batch);
    if (rc < 0)
        goto out;
    s.new_size = change->size;
    s.old_size = s.before.base.size;
    qr_cells_init(&s.cells, change->page, 0);
    rc = stream_content(&s);
    if (rc == 0) {
        change->outcome = QS_DONE;
        change->stat = qs_stat_cache(&s.input.before, s.input.racy);
        change->stat_known = 1;
        worker->read_files++;
        worker->read_bytes += s.new_size;
    }
out:
    qs_before_finish(&s.before);
    if (s.input.fd >= 0)
        close(s.input.fd);
    return rc > 0 ? 1 : rc;
}
