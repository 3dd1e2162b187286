/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One save of tensors: one transaction with what differs (runtime/elements.h says how).
 *
 * Every page is cut into chunks. Workers read a chunk of the file and the bytes that it had, and
 * encode the difference; the owner's thread appends the results in the order of the chunks, so that
 * threads do not show in the log. A ring of a few slots bounds the memory. Behind the content
 * frames come the records that refer to them.
 *
 * A chunk is based on the same chunk of the newest epoch, which may be based on an older one, and
 * so on. When reading such a chain would cost about as much as the content, the chunk is written
 * whole. Where exactly is spread over the chunks, so that they do not all do so in one epoch.
 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "runtime/digest.h"
#include "runtime/elements.h"
#include "runtime/error.h"
#include "runtime/os.h"
#include "sources/path.h"
#include "sources/stop.h"
#include "sources/tensor_plan.h"
#include "telemetry/telemetry.h"

enum {
    THREADS_MAX = 64,
    READER_CACHE = 2 << 20, /* whole chunks are decoded in place; this is for the rest */
    CHAIN_MIN = 16 << 10,   /* a chain of small chunks may cost this much more */
};

enum outcome { SAME, STORED, ZEROS };

struct job {
    struct qs_tensor_page *page;
    uint64_t offset; /* in the page */
    size_t length, old_length;
    int done, rc;
    char detail[512];
    enum outcome outcome;
    struct qb_u128 sum; /* what it adds to the page's */
    uint8_t *body;
    size_t body_length, body_capacity;
};

struct worker {
    struct saver *saver;
    struct qr_reader *reader;
    struct qr_elements_encoder *encoder;
    uint8_t *buffer, *new_;
    const uint8_t *old;                /* in the buffer, or in the reader */
    const struct qs_tensor_page *page; /* of the cursor */
    struct qr_content cursor;
    int rc;
};

struct saver {
    struct qs_tensor_plan *plan;
    pthread_mutex_t lock;
    pthread_cond_t work, ready;
    struct job *ring;
    size_t slots, submitted, taken, drained;
    int stop;
    struct worker own;
    struct worker workers[THREADS_MAX];
    pthread_t threads[THREADS_MAX];
    int thread_count;
};

/* --- one chunk --- */

static int worker_init(struct worker *w, struct saver *saver)
{
    struct qr_store *store = saver->plan->store;
    *w =
        (struct worker){.saver = saver, .buffer = qr_malloc(QS_CHUNK), .new_ = qr_malloc(QS_CHUNK)};
    int rc = w->buffer && w->new_ ? 0 : qr_fail(QALLOW_E_NO_MEMORY, "no memory for tensors");
    if (rc == 0)
        rc = qr_reader_create(store, READER_CACHE, &w->reader);
    if (rc == 0)
        rc = qr_elements_encoder_create(qr_store_compress_level(store), &w->encoder);
    return w->rc = rc;
}

static void worker_finish(struct worker *w)
{
    qr_elements_encoder_destroy(w->encoder);
    qr_reader_destroy(w->reader);
    qr_free(w->buffer);
    qr_free(w->new_);
}

/* The content that the page had. The pieces are shared, the cursor is the worker's own. */
static struct qr_content *old_content(struct worker *w, const struct qs_tensor_page *page)
{
    if (w->page != page) {
        w->page = page;
        w->cursor = page->old;
        if (page->old.piece_count <= 1)
            w->cursor.pieces = &w->cursor.inline_piece;
    }
    return &w->cursor;
}

/* What a chain may cost before the chunk is written whole: one to two times the chunk. */
static uint64_t chain_limit(const struct job *job)
{
    uint64_t spread = (job->page->id + job->offset / QS_CHUNK) * UINT64_C(0x9E3779B97F4A7C15) >> 32;
    return CHAIN_MIN + job->length + (spread * job->length >> 32);
}

/* The terms of the cells that differ, new less old. */
static struct qb_u128 changed_cells(const struct worker *w, const struct job *job)
{
    size_t count;
    const uint32_t *cells = qr_elements_changed(w->encoder, &count);
    return qb_kernels()->hash_changed(w->old, w->new_, job->length, cells, count,
                                      qr_page_seed(job->page->id), job->offset / QB_CELL);
}

static struct qb_u128 all_cells(const struct job *job, const uint8_t *bytes)
{
    return qb_kernels()->hash_cells(bytes, job->length, qr_page_seed(job->page->id),
                                    job->offset / QB_CELL);
}

static int keep_body(struct job *job, const uint8_t *body, size_t length)
{
    if (length > job->body_capacity) {
        qr_free(job->body);
        job->body = qr_malloc(length);
        job->body_capacity = job->body ? length : 0;
        if (!job->body)
            return qr_fail(QALLOW_E_NO_MEMORY, "no memory for tensors");
    }
    memcpy(job->body, body, length);
    job->body_length = length;
    job->outcome = STORED;
    return 0;
}

/* Reads what the chunk was, and says what may be its base. */
static int read_old(struct worker *w, const struct job *job, struct qr_elements_job *elements)
{
    struct qr_content *old = old_content(w, job->page);
    if (job->old_length != job->length)
        return 0;
    struct qr_content_base base;
    int rc = qr_content_base(w->reader, old, job->offset, w->buffer, job->length, &base);
    elements->base = base.ref;
    elements->base_cost = base.cost;
    elements->old = w->old = base.bytes;
    return rc;
}

static int run_job(struct worker *w, struct job *job)
{
    const struct qs_tensor_page *page = job->page;
    struct qr_elements_job elements = {.new_ = w->new_,
                                       .length = job->length,
                                       .width = page->width,
                                       .base = QR_REF_ZERO,
                                       .cost_limit = chain_limit(job)};
    const uint8_t *body;
    size_t length;
    int rc = qs_read_exactly(page->file->fd, page->file->path, w->new_, job->length,
                             page->from + job->offset);
    if (rc == 0)
        rc = read_old(w, job, &elements);
    int resized = page->old.size != page->size, is_old = elements.old != NULL;
    if (rc == 0 && is_old && elements.base == QR_REF_ZERO) { /* in pieces, or a hole */
        is_old = 0;
        if (qb_kernels()->common_prefix(w->old, w->new_, job->length) == job->length)
            is_old = 1; /* and equal: found out below */
        elements.old = is_old ? w->old : NULL;
    }
    if (rc == 0)
        rc = qr_elements_encode(w->encoder, &elements, &body, &length);
    if (rc)
        return rc;
    job->outcome = SAME;
    if (resized)
        job->sum = all_cells(job, w->new_);
    else if (is_old)
        job->sum = changed_cells(w, job);
    else
        job->sum = qb_u128_sub(all_cells(job, w->new_), all_cells(job, w->old));
    if (length && qb_kernels()->is_zero(w->new_, job->length))
        job->outcome = ZEROS;
    else if (length)
        rc = keep_body(job, body, length);
    return rc;
}

/* --- workers --- */

static void run_and_note(struct worker *w, struct job *job)
{
    job->rc = w->rc ? w->rc : run_job(w, job);
    if (job->rc)
        snprintf(job->detail, sizeof job->detail, "%s", qallow_error_detail());
}

static void *worker_main(void *context)
{
    struct worker *w = context;
    struct saver *s = w->saver;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (!s->stop && s->taken == s->submitted)
            pthread_cond_wait(&s->work, &s->lock);
        if (s->taken == s->submitted)
            break;
        struct job *job = &s->ring[s->taken++ % s->slots];
        pthread_mutex_unlock(&s->lock);
        run_and_note(w, job);
        pthread_mutex_lock(&s->lock);
        job->done = 1;
        pthread_cond_signal(&s->ready);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* --- the owner --- */

/* Takes the oldest job out of the ring: its content goes into the log. */
static int drain_one(struct saver *s)
{
    struct job *job = &s->ring[s->drained % s->slots];
    struct qs_tensor_page *page = job->page;
    uint64_t old_size = page->old.size; /* what is behind it is inserted at its end */
    struct qr_edit edit = {.offset = job->offset < old_size ? job->offset : old_size,
                           .old_length = job->old_length,
                           .new_length = job->length,
                           .source = QR_ZEROS};
    pthread_mutex_lock(&s->lock);
    while (!job->done)
        pthread_cond_wait(&s->ready, &s->lock);
    s->drained++;
    pthread_mutex_unlock(&s->lock);
    if (job->rc)
        return qr_fail(job->rc, "%s", job->detail);
    page->sum = qb_u128_add(page->sum, job->sum);
    s->plan->result->read_bytes += job->length;
    if (job->outcome == SAME)
        return 0;
    if (job->outcome == STORED) {
        qr_ref ref;
        int rc = qr_txn_put_content(s->plan->txn, job->body, job->body_length, &ref);
        if (rc)
            return rc;
        edit.source = QR_STORED;
        edit.from = ref;
        s->plan->result->written_bytes += job->body_length;
    }
    return qr_edits_add(&page->edits, edit);
}

static int drain(struct saver *s)
{
    int rc = 0;
    while (rc == 0 && s->drained < s->submitted)
        rc = drain_one(s);
    return rc;
}

static int submit(struct saver *s, struct qs_tensor_page *page, uint64_t offset)
{
    int rc = s->submitted - s->drained == s->slots ? drain_one(s) : 0;
    if (rc)
        return rc;
    struct job *job = &s->ring[s->submitted % s->slots];
    uint64_t left = page->size - offset;
    uint64_t old_left = page->old.size > offset ? page->old.size - offset : 0;
    job->page = page;
    job->offset = offset;
    job->length = left < QS_CHUNK ? (size_t)left : QS_CHUNK;
    job->old_length = old_left < job->length ? (size_t)old_left : job->length;
    job->done = 0;
    if (!s->thread_count) {
        run_and_note(&s->own, job);
        job->done = 1;
        s->submitted++;
        return drain_one(s);
    }
    pthread_mutex_lock(&s->lock);
    s->submitted++;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
    return 0;
}

static int submit_all(struct saver *s)
{
    struct qs_tensor_plan *plan = s->plan;
    int rc = 0;
    for (size_t i = 0; i < plan->page_count && rc == 0; i++) {
        struct qs_tensor_page *page = &plan->pages[i];
        if (page->old.size != page->size)
            page->sum = (struct qb_u128){0, 0};
        for (uint64_t offset = 0; offset < page->size && rc == 0; offset += QS_CHUNK)
            if ((rc = qs_stop()) == 0)
                rc = submit(s, page, offset);
    }
    return rc ? rc : drain(s);
}

static int saver_init(struct saver *s, int threads)
{
    threads = threads > THREADS_MAX ? THREADS_MAX : threads;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->work, NULL);
    pthread_cond_init(&s->ready, NULL);
    s->slots = threads > 1 ? 2 * (size_t)threads + 2 : 1;
    s->ring = qr_calloc(s->slots, sizeof *s->ring);
    if (!s->ring)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for tensors");
    if (threads == 1)
        return worker_init(&s->own, s);
    for (int i = 0; i < threads; i++) {
        int rc = worker_init(&s->workers[i], s);
        if (rc == 0 && pthread_create(&s->threads[i], NULL, worker_main, &s->workers[i]) != 0)
            rc = qr_fail(QALLOW_E_NO_MEMORY, "no thread for tensors");
        if (rc) {
            worker_finish(&s->workers[i]);
            return rc;
        }
        s->thread_count++;
    }
    return 0;
}

static void saver_finish(struct saver *s)
{
    pthread_mutex_lock(&s->lock);
    s->stop = 1;
    pthread_cond_broadcast(&s->work);
    pthread_mutex_unlock(&s->lock);
    for (int i = 0; i < s->thread_count; i++) {
        pthread_join(s->threads[i], NULL);
        worker_finish(&s->workers[i]);
    }
    worker_finish(&s->own);
    for (size_t i = 0; s->ring && i < s->slots; i++)
        qr_free(s->ring[i].body);
    qr_free(s->ring);
    pthread_cond_destroy(&s->work);
    pthread_cond_destroy(&s->ready);
    pthread_mutex_destroy(&s->lock);
}

/* --- the transaction --- */

/* The record of a page whose content is another one. */
static int put_delta(struct qs_tensor_plan *plan, struct qs_tensor_page *page)
{
    int rc = 0;
    if (page->old.size > page->size)
        rc =
            qr_edits_add(&page->edits, (struct qr_edit){.offset = page->size,
                                                        .old_length = page->old.size - page->size});
    if (rc || (page->edits.count == 0))
        return rc;
    plan->result->changed += page->is_tensor && !page->is_new;
    return qr_batch_delta(plan->batch, page->id, 0, page->old.size, page->size, &page->edits, NULL,
                          page->sum);
}

static int save(struct qs_tensor_plan *plan, int threads)
{
    struct saver *s = qr_calloc(1, sizeof *s);
    if (!s)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for tensors");
    s->plan = plan;
    int rc = saver_init(s, threads);
    if (rc == 0)
        rc = submit_all(s);
    char detail[512];
    snprintf(detail, sizeof detail, "%s", qallow_error_detail());
    saver_finish(s); /* before an abort takes away the state that the workers read */
    qr_free(s);
    if (rc)
        return qr_fail(rc, "%s", detail);
    for (size_t i = 0; i < plan->page_count && rc == 0; i++)
        rc = put_delta(plan, &plan->pages[i]);
    if (rc == 0)
        rc = qs_tensor_plan_check(plan);
    return rc ? rc : qr_txn_append(plan->txn, plan->batch);
}

/* What was saved, for telemetry. */
static void count(const struct qs_tensor_save *result, struct timespec began)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    qt_add(QT_FILES_READ, result->files);
    qt_add(QT_FILES_READ_BYTES, result->read_bytes);
    qt_add(QT_TENSORS_SAVED, result->tensors);
    qt_add(QT_TENSORS_CHANGED, result->created + result->changed);
    qt_add(QT_TENSOR_READ_BYTES, result->read_bytes);
    qt_add(QT_TENSOR_CONTENT_BYTES, result->written_bytes);
    qt_observe_ns(QT_TENSOR_SAVE_SECONDS, (uint64_t)(qs_ns(now) - qs_ns(began)));
}

int qs_tensors_save(struct qr_store *store, const char *path, enum qs_tensor_format format,
                    int threads, struct qs_tensor_save *result)
{
    struct qs_tensor_plan plan = {.store = store, .result = result};
    struct timespec began;
    clock_gettime(CLOCK_MONOTONIC, &began);
    uint64_t before = qr_state_epoch(qr_store_state(store));
    *result = (struct qs_tensor_save){.epoch = before};
    int rc = qs_tensor_plan_open(&plan, path, format);
    if (rc == 0)
        rc = qr_txn_begin(store, &plan.txn);
    if (rc == 0)
        rc = qr_batch_create(qr_store_compress_level(store), &plan.batch);
    if (rc == 0)
        rc = qs_tensor_plan_pages(&plan);
    if (rc == 0)
        rc = save(&plan, threads < 1 ? 1 : threads);
    if (rc == 0) {
        rc = qr_txn_commit(plan.txn, &result->epoch);
        result->committed = rc == 0 && result->epoch != before;
    } else if (plan.txn) {
        char detail[512];
        snprintf(detail, sizeof detail, "%s", qallow_error_detail());
        qr_txn_abort(plan.txn);
        qr_fail(rc, "%s", detail);
    }
    if (rc == 0)
        count(result, began);
    qr_batch_destroy(plan.batch);
    qs_tensor_plan_finish(&plan);
    return rc;
}
