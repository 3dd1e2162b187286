/* SPDX-License-Identifier: Apache-2.0 */
/* The store that the cases work on, see store.h. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench/floor.h"
#include "bench/store.h"
#include "runtime/error.h"
#include "runtime/os.h"
#include "runtime/store.h"

enum { PAGES_A_COMMIT = 4096 };

static int create_page(struct qm_store *s, struct qallow_txn *txn, uint64_t number)
{
    struct qallow_page_options options = QALLOW_PAGE_OPTIONS_INIT;
    char name[32];
    int rc;
    snprintf(name, sizeof name, "page%llu", (unsigned long long)number);
    options.name = name;
    options.mode = 0600;
    rc = qallow_page_create(txn, &options, &s->pages[number]);
    for (uint64_t at = 0; rc == 0 && at < s->page_size;) {
        size_t from = qm_random(&s->seed) % (QM_SOURCE / 2) / 8 * 8, length = QM_SOURCE / 2;
        if (length > s->page_size - at)
            length = (size_t)(s->page_size - at);
        rc = qallow_page_write(txn, s->pages[number], at, s->source + from, length);
        at += length;
    }
    return rc;
}

static int create_pages(struct qm_context *context, struct qm_store *s)
{
    struct qallow_txn *txn;
    uint64_t pages_a_commit = (UINT64_C(16) << 20) / s->page_size;
    if (pages_a_commit > PAGES_A_COMMIT || pages_a_commit == 0)
        pages_a_commit = pages_a_commit ? PAGES_A_COMMIT : 1;
    for (uint64_t i = 0; i < s->page_count;) {
        int rc = qm_stopped(context);
        if (rc == 0)
            rc = qallow_begin(s->store, &txn);
        if (rc < 0)
            return rc;
        for (uint64_t n = 0; rc == 0 && n < pages_a_commit && i < s->page_count; n++)
            rc = create_page(s, txn, i++);
        if (rc < 0) {
            qallow_abort(txn);
            return rc;
        }
        rc = qallow_commit(txn, NULL);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int qm_store_create(struct qm_context *context, const char *name, enum qallow_sync sync,
                    uint64_t page_count, uint64_t page_size, struct qm_store *s)
{
    struct qallow_options options = QALLOW_OPTIONS_INIT;
    options.writable = options.create = 1;
    options.sync = QALLOW_SYNC_NONE;
    *s = (struct qm_store){.page_count = page_count, .page_size = page_size, .seed = 1};
    snprintf(s->path, sizeof s->path, "%s", qm_path(context, name));
    s->pages = qr_calloc(page_count, sizeof *s->pages);
    if (!s->pages)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for %llu ids",
                       (unsigned long long)page_count);
    int rc = qm_map(QM_SOURCE, &s->source);
    if (rc < 0)
        return rc;
    qm_random_fill(&s->seed, s->source, QM_SOURCE);
    rc = qallow_open(s->path, &options, &s->store);
    if (rc == 0)
        rc = create_pages(context, s);
    if (rc < 0 || sync == QALLOW_SYNC_NONE)
        return rc;
    rc = qallow_close(s->store);
    s->store = NULL;
    options.create = 0;
    options.sync = sync;
    return rc < 0 ? rc : qallow_open(s->path, &options, &s->store);
}

void qm_store_finish(struct qm_store *s)
{
    if (s->store)
        qallow_close(s->store);
    if (*s->path)
        unlink(s->path);
    qr_free(s->pages);
    qm_unmap(s->source, QM_SOURCE);
    *s = (struct qm_store){0};
}

static struct qallow_write next_write(struct qm_writer *w)
{
    struct qm_store *s = w->store;
    uint64_t r = qm_random(&w->seed);
    uint64_t number = r % (s->page_count / w->threads) * w->threads + w->thread;
    uint64_t places = (s->page_size - w->length) / 64 + 1;
    size_t from = (r >> 20) % (QM_SOURCE - w->length);
    return (struct qallow_write){.page = s->pages[number],
                                 .offset = (r >> 40) % places * 64,
                                 .bytes = s->source + from,
                                 .length = w->length};
}

int qm_store_write(struct qm_writer *w, uint64_t writes)
{
    enum { AT_ONCE = 64 };
    struct qallow_write some[AT_ONCE];
    struct qallow_txn *txn;
    int rc = qallow_begin(w->store->store, &txn);
    if (rc < 0)
        return rc;
    for (uint64_t n; rc == 0 && writes > 0; writes -= n) {
        n = writes < AT_ONCE ? writes : AT_ONCE;
        for (uint64_t i = 0; i < n; i++)
            some[i] = next_write(w);
        rc = qallow_pages_write(txn, some, n, NULL);
    }
    if (rc == 0)
        return qallow_commit(txn, NULL);
    qallow_abort(txn);
    return rc;
}

int qm_store_write_pages(struct qm_store *s, struct qm_cold_source *source, uint64_t count)
{
    struct qallow_txn *txn;
    int rc = qallow_begin(s->store, &txn);
    if (rc < 0)
        return rc;
    for (uint64_t i = 0; rc == 0 && i < count; i++) {
        uint64_t page = s->pages[qm_random(&s->seed) % s->page_count];
        rc = qallow_page_write(txn, page, 0, qm_cold_source_next(source, (size_t)s->page_size),
                               (size_t)s->page_size);
    }
    if (rc == 0)
        return qallow_commit(txn, NULL);
    qallow_abort(txn);
    return rc;
}

int qm_store_log_bytes(struct qm_store *s, uint64_t *log_bytes, uint64_t *keyframes)
{
    struct qallow_stats stats = QALLOW_STATS_INIT;
    int rc = qallow_stats_get(s->store, &stats);
    *log_bytes = stats.log_bytes;
    *keyframes = stats.keyframes;
    return rc;
}

int qm_store_lengthen(struct qm_context *context, struct qm_store *s, struct qm_cold_source *source,
                      uint64_t log_bytes)
{
    uint64_t length, before, keyframes;
    int rc = qm_store_log_bytes(s, &length, &keyframes);
    do {
        before = keyframes;
        rc = rc < 0 ? rc : qm_stopped(context);
        rc = rc < 0 ? rc : qm_store_write_pages(s, source, 64);
        rc = rc < 0 ? rc : qm_store_log_bytes(s, &length, &keyframes);
    } while (rc == 0 && (length < log_bytes || keyframes == before));
    return rc;
}

int qm_store_close(struct qm_store *s)
{
    int rc = s->store ? qallow_close(s->store) : 0;
    s->store = NULL;
    return rc;
}

/* --- loading --- */

struct places {
    const struct qm_store *store;
    uint8_t *memory;
};

/* Ids are given one after the other. */
static uint8_t *place(void *context, const struct qr_page *page)
{
    const struct places *p = context;
    uint64_t number = page->id - p->store->pages[0];
    if (number >= p->store->page_count || page->size != p->store->page_size)
        return NULL;
    return p->memory + number * p->store->page_size;
}

int qm_store_load(const struct qm_store *s, const char *path, uint64_t epoch, int whole,
                  unsigned threads, uint8_t *memory)
{
    struct qr_store_options options = {.ignore_index = whole, .threads = (int)threads};
    struct places context = {s, memory};
    return qr_load(path, &options, epoch, &(struct qr_places){place, &context});
}
