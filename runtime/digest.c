/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The digest from scratch: cell sums of streams, and of whole states read back from the log.
 * Definition: docs/formats/tlog.md, "Digest". Whole states are shared out page by page to threads;
 * the sum does not depend on the order.
 */
#include "runtime/digest.h"

#include <pthread.h>
#include <stdio.h>

#include "runtime/error.h"
#include "runtime/store_internal.h"

void qr_cells_init(struct qr_cell_hasher *h, uint64_t page_id, uint64_t offset)
{
    qr_assert(offset % QB_CELL == 0);
    *h = (struct qr_cell_hasher){.page_seed = qr_page_seed(page_id), .cell = offset / QB_CELL};
}

static void flush_partial(struct qr_cell_hasher *h)
{
    h->sum = qb_u128_add(h->sum,
                         qb_kernels()->hash_cells(h->partial, h->fill, h->page_seed, h->cell));
    h->cell += h->fill == QB_CELL;
    h->fill = 0;
}

void qr_cells_update(struct qr_cell_hasher *h, const void *bytes, size_t length)
{
    const uint8_t *p = bytes;
    if (h->fill) {
        size_t n = QB_CELL - h->fill < length ? QB_CELL - h->fill : length;
        memcpy(h->partial + h->fill, p, n);
        h->fill += n;
        p += n;
        length -= n;
        if (h->fill < QB_CELL)
            return;
        flush_partial(h);
    }
    size_t whole = length - length % QB_CELL;
    if (whole) {
        h->sum = qb_u128_add(h->sum, qb_kernels()->hash_cells(p, whole, h->page_seed, h->cell));
        h->cell += whole / QB_CELL;
    }
    h->fill = length - whole;
    if (h->fill)
        memcpy(h->partial, p + whole, h->fill);
}

void qr_cells_zeros(struct qr_cell_hasher *h, uint64_t length)
{
    if (h->fill) {
        size_t n = length < QB_CELL - h->fill ? (size_t)length : QB_CELL - h->fill;
        memset(h->partial + h->fill, 0, n);
        h->fill += n;
        length -= n;
        if (h->fill < QB_CELL)
            return;
        flush_partial(h);
    }
    h->cell += length / QB_CELL; /* cells of zeros have no term */
    h->fill = (size_t)(length % QB_CELL);
    memset(h->partial, 0, h->fill);
}

struct qb_u128 qr_cells_finish(struct qr_cell_hasher *h)
{
    if (h->fill)
        flush_partial(h);
    return h->sum;
}

struct qb_u128 qr_cells_of(uint64_t page_id, const void *bytes, size_t length)
{
    return qb_kernels()->hash_cells(bytes, length, qr_page_seed(page_id), 0);
}

/* The terms of the cells that [first, end) touches. `first` is the start of a cell. */
static struct qb_u128 range_sum(uint64_t seed, const uint8_t *bytes, size_t length, uint64_t first,
                                uint64_t end)
{
    end = (end + QB_CELL - 1) / QB_CELL * QB_CELL;
    if (end > length)
        end = length;
    if (end <= first)
        return (struct qb_u128){0, 0};
    return qb_kernels()->hash_cells(bytes + first, (size_t)(end - first), seed, first / QB_CELL);
}

/*
 * After edits only the cells between an edit and the place where old and new stand at the same
 * offsets again can differ: overwrites touch their own cells, an insertion all cells behind it, up
 * to a removal that makes up for it.
 */
struct qb_u128 qr_cells_after(struct qb_u128 sum, uint64_t page_id, const struct qr_edits *edits,
                              const uint8_t *old, size_t old_length, const uint8_t *new_,
                              size_t new_length)
{
    uint64_t seed = qr_page_seed(page_id);
    for (size_t i = 0; i < edits->count;) {
        /* A region: from where old and new stand alike to where they do so again for good. */
        uint64_t first = edits->items[i].offset / QB_CELL * QB_CELL;
        uint64_t end = first;
        int64_t shift = 0;
        while (i < edits->count) {
            const struct qr_edit *edit = &edits->items[i];
            uint64_t reached = (end + QB_CELL - 1) / QB_CELL * QB_CELL;
            if (shift == 0 && end > first && edit->offset >= reached)
                break;
            end = edit->offset + edit->old_length;
            shift += (int64_t)(edit->new_length - edit->old_length);
            i++;
        }
        uint64_t old_end = shift ? old_length : end;
        uint64_t new_end = shift ? new_length : end;
        sum = qb_u128_sub(sum, range_sum(seed, old, old_length, first, old_end));
        sum = qb_u128_add(sum, range_sum(seed, new_, new_length, first, new_end));
    }
    return sum;
}

int qr_content_sum(struct qr_reader *reader, struct qr_content *content, uint64_t page_id,
                   uint64_t from, uint64_t to, uint8_t *buffer, size_t capacity,
                   struct qb_u128 *sum, uint64_t *read_bytes)
{
    struct qr_cell_hasher hasher;
    int rc = 0;
    qr_cells_init(&hasher, page_id, from);
    for (uint64_t at = from; at < to && !rc;) {
        uint64_t hole = qr_content_hole(content, at);
        if (hole) {
            hole = hole < to - at ? hole : to - at;
            qr_cells_zeros(&hasher, hole);
            at += hole;
            continue;
        }
        size_t n = to - at < capacity ? (size_t)(to - at) : capacity;
        rc = qr_content_read(reader, content, at, buffer, n);
        if (!rc)
            qr_cells_update(&hasher, buffer, n);
        at += n;
        *read_bytes += n;
    }
    *sum = qr_cells_finish(&hasher);
    return rc;
}

/* ---------------------------------------------------------------- whole states */

struct shared {
    struct qr_store *store;
    const struct qr_state *state;
    pthread_mutex_t mutex; /* guards everything below */
    uint64_t next;         /* page id handed out last */
    struct qb_u128 sum;
    int rc;
    uint64_t bad_page;
    char detail[1024];
};

enum { STEP = 256 << 10, SHARE = 64 };

/* The next few pages; how many. */
static size_t take_pages(struct shared *s, const struct qr_page **pages)
{
    size_t n = 0;
    pthread_mutex_lock(&s->mutex);
    while (!s->rc && n < SHARE && (pages[n] = qr_state_next_page(s->state, s->next)))
        s->next = pages[n++]->id;
    pthread_mutex_unlock(&s->mutex);
    return n;
}

static void report_bad(struct shared *s, int rc, uint64_t page)
{
    pthread_mutex_lock(&s->mutex);
    if (!s->rc || page < s->bad_page) {
        s->rc = rc;
        s->bad_page = page;
        snprintf(s->detail, sizeof s->detail, "page %llu: %s", (unsigned long long)page,
                 qallow_error_detail());
    }
    pthread_mutex_unlock(&s->mutex);
}

static void *sum_pages(void *context)
{
    struct shared *s = context;
    struct qr_reader *reader = NULL;
    const struct qr_page *pages[SHARE];
    struct qb_u128 total = {0, 0}, sum = total;
    struct qr_content content;
    uint64_t read = 0;
    uint8_t *buffer = qr_malloc(STEP);
    int rc = buffer ? qr_reader_create(s->store, 8 << 20, &reader)
                    : qr_fail(QALLOW_E_NO_MEMORY, "digest");
    if (rc)
        report_bad(s, rc, 0);
    for (size_t n; !rc && (n = take_pages(s, pages)) > 0;)
        for (size_t i = 0; i < n && !rc; i++) {
            rc = qr_content_init(&content, pages[i]);
            if (!rc)
                rc = qr_content_sum(reader, &content, pages[i]->id, 0, pages[i]->size, buffer,
                                    STEP, &sum, &read);
            qr_content_finish(&content);
            if (rc)
                report_bad(s, rc, pages[i]->id);
            total = qb_u128_add(total, qb_u128_add(sum, qr_page_term(pages[i])));
        }
    pthread_mutex_lock(&s->mutex);
    s->sum = qb_u128_add(s->sum, total);
    pthread_mutex_unlock(&s->mutex);
    qr_reader_destroy(reader);
    qr_free(buffer);
    return NULL;
}

int qr_state_digest_compute(struct qr_store *store, const struct qr_state *state, int threads,
                            struct qb_u128 *digest, uint64_t *bad_page)
{
    enum { THREADS_MAX = 256 };
    struct shared s = {.store = store, .state = state};
    pthread_t workers[THREADS_MAX];
    int started = 0;
    pthread_mutex_init(&s.mutex, NULL);
    while (started < threads - 1 && started < THREADS_MAX &&
           !pthread_create(&workers[started], NULL, sum_pages, &s))
        started++;
    sum_pages(&s); /* this thread works too; fewer threads than asked for is no error */
    for (int i = 0; i < started; i++)
        pthread_join(workers[i], NULL);
    pthread_mutex_destroy(&s.mutex);
    *digest = s.sum;
    if (bad_page)
        *bad_page = s.rc ? s.bad_page : 0;
    return s.rc ? qr_fail(s.rc, "%s", s.detail) : 0;
}
