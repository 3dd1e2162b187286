/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The public API: opening, reading, history. (Transactions: runtime/api_transaction.c;
 * statistics: runtime/api_stats.c.)
 *
 * It adds to the store what a library for any program needs: handles that many threads may use,
 * arguments that are checked, structs that can grow. A read takes a page's pieces under the store's
 * read lock, a copy of a few words, and fetches the bytes without any lock, since the log never
 * changes what it has.
 */
#include "runtime/api.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/api_transaction.h"
#include "runtime/query.h"
#include "runtime/store_internal.h"

enum { READER_CACHE = 4 << 20 };

/* --- structs that grow --- */

int qr_api_options(const void *theirs, void *ours, size_t size, size_t smallest)
{
    uint32_t given;

    memcpy(&given, theirs, sizeof given);
    if (given < smallest)
        return qr_fail(QALLOW_E_ARGUMENT,
                       "an option struct says its size is %u: expected %zu; "
                       "use its initialiser",
                       given, size);
    for (size_t i = size; i < given; i++)
        if (((const uint8_t *)theirs)[i] != 0)
            return qr_fail(QALLOW_E_ARGUMENT, "an option that this version (%s) does not know",
                           qallow_version());
    memcpy(ours, theirs, given < size ? given : size);
    return 0;
}

int qr_api_give(void *theirs, void *ours, size_t size)
{
    uint32_t given;

    memcpy(&given, theirs, sizeof given);
    if (given < sizeof given)
        return qr_fail(QALLOW_E_ARGUMENT,
                       "a struct to fill says its size is %u; use its "
                       "initialiser",
                       given);
    memcpy(ours, &given, sizeof given);
    if (given > size)
        memset((uint8_t *)theirs + size, 0, given - size);
    memcpy(theirs, ours, given < size ? given : size);
    return 0;
}

static int all_zero(const void *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (((const uint8_t *)bytes)[i] != 0)
            return 0;
    return 1;
}

/* --- readers --- */

int qr_api_reader_take(struct qallow_store *store, struct qr_reader **reader)
{
    int rc = 0;

    *reader = NULL;
    pthread_mutex_lock(&store->spare_lock);
    if (store->reader_count > 0)
        *reader = store->readers[--store->reader_count];
    pthread_mutex_unlock(&store->spare_lock);
    if (!*reader)
        rc = qr_reader_create(store->store, READER_CACHE, reader);
    return rc;
}

void qr_api_reader_give(struct qallow_store *store, struct qr_reader *reader)
{
    pthread_mutex_lock(&store->spare_lock);
    if (store->reader_count < QR_API_SPARE) {
        store->readers[store->reader_count++] = reader;
        reader = NULL;
    }
    pthread_mutex_unlock(&store->spare_lock);
    qr_reader_destroy(reader);
}

/* --- what counts --- */

/* What was found in the newest state counts once its epoch is durable: the commit that made it may
 * still fail. */
static int settle(struct qallow_store *store, uint64_t epoch, int result)
{
    int rc = result < 0 ? result : qr_store_settle(store->store, epoch);
    return rc < 0 ? rc : result;
}

static int calls_end(struct qallow_store *store, int rc)
{
    uint64_t epoch = qr_state_epoch(qr_store_state(store->store));
    pthread_mutex_unlock(&store->calls);
    return settle(store, epoch, rc);
}

/* --- the store --- */

static int check_options(const struct qallow_options *o)
{
    QR_CHECK_ARGUMENT(o->sync <= QALLOW_SYNC_NONE);
    QR_CHECK_ARGUMENT(o->writable || !o->create);
    QR_CHECK_ARGUMENT(o->reserved32 == 0 && all_zero(o->reserved, sizeof o->reserved));
    QR_CHECK_ARGUMENT(o->sync_interval_ms <= INT32_MAX);
    QR_CHECK_ARGUMENT(o->compress_level >= -7 && o->compress_level <= 22);
    return 0;
}

static uint64_t default_memory(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), bytes = sysconf(_SC_PAGESIZE);
    return pages > 0 && bytes > 0 ? (uint64_t)pages * (uint64_t)bytes / 8 : 0;
}

/* Readers that never pause must not keep commits out. No reader takes it twice. */
static void init_newest_lock(struct qallow_store *store)
{
    pthread_rwlockattr_t attributes;
    pthread_rwlockattr_init(&attributes);
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&store->newest_lock, &attributes);
    pthread_rwlockattr_destroy(&attributes);
}

int qallow_open(const char *path, const struct qallow_options *options, struct qallow_store **store)
{
    struct qallow_options o = QALLOW_OPTIONS_INIT;
    struct qallow_store *made = NULL;
    int rc = 0;

    QR_CHECK_ARGUMENT(store != NULL);
    *store = NULL;
    QR_CHECK_ARGUMENT(path != NULL);
    if (options)
        rc = qr_api_options(options, &o, sizeof o, sizeof o);
    if (rc == 0)
        rc = check_options(&o);
    if (rc < 0)
        return rc;
    made = qr_calloc(1, sizeof *made);
    if (!made)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory to open %s", path);
    struct qr_store_options inner = {
        .writable = o.writable != 0,
        .create = o.create != 0,
        .logical_clock = o.logical_clock != 0,
        .sync = (enum qr_sync)o.sync,
        .sync_interval_ms = o.sync_interval_ms ? (int)o.sync_interval_ms : 1000,
        .compress_level = o.compress_level,
        .uuid = o.uuid,
        .max_memory = o.max_memory,
        .hold_bytes = o.max_memory ? o.max_memory : default_memory(),
    };
    rc = qr_store_open(path, &inner, &made->store);
    if (rc < 0) {
        qr_free(made);
        return rc;
    }
    pthread_mutex_init(&made->calls, NULL);
    pthread_mutex_init(&made->spare_lock, NULL);
    init_newest_lock(made);
    qr_hub_init(&made->events, made->store);
    made->newest.store = made;
    made->store->sharing.is_in_use = qr_api_is_claimed;
    made->store->sharing.context = made;
    made->writable = inner.writable;
    *store = made;
    return 0;
}

int qallow_close(struct qallow_store *store)
{
    int rc;

    if (!store)
        return 0;
    while (store->txns)
        qallow_abort(store->txns);
    while (store->work_count > 0)
        qr_api_work_destroy(store->works[--store->work_count]);
    while (store->reader_count > 0)
        qr_reader_destroy(store->readers[--store->reader_count]);
    qr_free(store->claims);
    qr_hub_finish(&store->events, store->store);
    rc = qr_store_close(store->store);
    pthread_mutex_destroy(&store->calls);
    pthread_mutex_destroy(&store->spare_lock);
    pthread_rwlock_destroy(&store->newest_lock);
    qr_free(store);
    return rc;
}

int qallow_sync(struct qallow_store *store)
{
    QR_CHECK_ARGUMENT(store != NULL);
    pthread_mutex_lock(&store->calls);
    int rc = store->writable ? qr_store_sync(store->store) : 0;
    pthread_mutex_unlock(&store->calls);
    return rc;
}

int qallow_refresh(struct qallow_store *store, uint64_t *newest)
{
    struct qr_store_info info;
    uint64_t lost = 0;
    int changed = 0;

    QR_CHECK_ARGUMENT(store != NULL);
    pthread_mutex_lock(&store->calls);
    pthread_rwlock_wrlock(&store->newest_lock);
    int rc = store->writable ? 0 : qr_store_refresh(store->store, &changed, &lost);
    pthread_rwlock_unlock(&store->newest_lock);
    qr_store_info(store->store, &info);
    pthread_mutex_unlock(&store->calls);
    rc = settle(store, info.last_epoch, rc);
    if (rc == 0)
        qr_hub_tell(store);
    if (newest)
        *newest = rc < 0 && store->writable ? qr_store_durable_epoch(store->store)
                                            : info.last_epoch;
    return rc;
}

/* --- views --- */

struct qallow_view *qallow_newest(struct qallow_store *store)
{
    return store ? &store->newest : NULL;
}

/* The state of a view, between these two. */
static const struct qr_state *view_begin(struct qallow_view *view)
{
    if (view->state)
        return view->state;
    pthread_rwlock_rdlock(&view->store->newest_lock);
    return qr_store_state(view->store->store);
}
static int view_end(struct qallow_view *view, int rc)
{
    if (view->state)
        return rc;
    uint64_t epoch = qr_state_epoch(qr_store_state(view->store->store));
    pthread_rwlock_unlock(&view->store->newest_lock);
    return settle(view->store, epoch, rc);
}

/* Takes the state over; without a view, if it could not be had (rc). */
static int give_view(struct qallow_store *store, int rc, struct qr_state *state,
                     struct qallow_view **view)
{
    if (rc == 0 && !(*view = qr_calloc(1, sizeof **view)))
        rc = qr_fail(QALLOW_E_NO_MEMORY, "no memory for a view");
    if (rc < 0) {
        qr_state_destroy(state);
        return rc;
    }
    (*view)->store = store;
    (*view)->state = state;
    return 0;
}

int qallow_snapshot(struct qallow_store *store, struct qallow_view **view)
{
    struct qr_state *state = NULL;

    QR_CHECK_ARGUMENT(view != NULL);
    *view = NULL;
    QR_CHECK_ARGUMENT(store != NULL);
    int rc = view_end(&store->newest, qr_state_clone(view_begin(&store->newest), &state));
    return give_view(store, rc, state, view);
}

int qallow_view_at(struct qallow_store *store, uint64_t epoch, struct qallow_view **view)
{
    struct qr_state *state = NULL;

    QR_CHECK_ARGUMENT(view != NULL);
    *view = NULL;
    QR_CHECK_ARGUMENT(store != NULL);
    pthread_mutex_lock(&store->calls);
    int rc = calls_end(store, qr_store_state_at(store->store, epoch, &state));
    return give_view(store, rc, state, view);
}

void qallow_view_destroy(struct qallow_view *view)
{
    if (!view || !view->state)
        return;
    qr_state_destroy(view->state);
    qr_free(view);
}

uint64_t qallow_view_epoch(struct qallow_view *view)
{
    uint64_t epoch;
    if (!view)
        return 0;
    epoch = qr_state_epoch(view_begin(view));
    return view_end(view, 0) < 0 ? qr_store_durable_epoch(view->store->store) : epoch;
}

static int no_page(const struct qr_state *state, uint64_t page)
{
    return qr_fail(QALLOW_E_PAGE_NOT_FOUND, "no page %llu in epoch %llu", (unsigned long long)page,
                   (unsigned long long)qr_state_epoch(state));
}

static int check_range(const struct qr_page *page, uint64_t offset, size_t length)
{
    if (offset <= page->size && length <= page->size - offset)
        return 0;
    return qr_fail(QALLOW_E_LIMIT, "page %llu: bytes %llu+%zu reach beyond its %llu",
                   (unsigned long long)page->id, (unsigned long long)offset, length,
                   (unsigned long long)page->size);
}

/* Copies a range that is in memory: 1. Otherwise 0, and *content is the page's. */
static int view_copy(struct qallow_view *view, uint64_t id, uint64_t offset, void *buffer,
                     size_t length, struct qr_content *content)
{
    const struct qr_state *state = view_begin(view);
    const struct qr_page *page = qr_state_find(state, id);
    int rc = page ? check_range(page, offset, length) : no_page(state, id);
    if (rc == 0 && (length == 0 || page->held)) {
        if (length)
            memcpy(buffer, page->held + offset, length);
        rc = 1;
    } else if (rc == 0) {
        rc = qr_content_init(content, page);
    }
    return view_end(view, rc);
}

int qallow_page_read(struct qallow_view *view, uint64_t page, uint64_t offset, void *buffer,
                     size_t length)
{
    struct qr_content content = {0};
    struct qr_reader *reader = NULL;
    int rc;

    QR_CHECK_ARGUMENT(view != NULL);
    QR_CHECK_ARGUMENT(buffer != NULL || length == 0);
    rc = view_copy(view, page, offset, buffer, length, &content);
    if (rc > 0)
        return 0;
    if (rc == 0)
        rc = qr_api_reader_take(view->store, &reader);
    if (rc == 0) {
        rc = qr_content_read(reader, &content, offset, buffer, length);
        qr_api_reader_give(view->store, reader);
    }
    qr_content_finish(&content);
    return rc;
}

static int give_page(const struct qr_page *page, struct qallow_page *info)
{
    struct qallow_page out = QALLOW_PAGE_INIT;

    out.kind = page->kind;
    out.location = QALLOW_CPU;
    out.mode = page->mode;
    out.id = page->id;
    out.parent = page->parent;
    out.bytes = page->size;
    out.version = page->version;
    out.mtime_ns = page->mtime_ns;
    out.name_length = page->name_length;
    out.extra_length = page->extra_length;
    return qr_api_give(info, &out, sizeof out);
}

int qallow_page_get(struct qallow_view *view, uint64_t page, struct qallow_page *info)
{
    QR_CHECK_ARGUMENT(view != NULL && info != NULL);
    const struct qr_state *state = view_begin(view);
    const struct qr_page *found = qr_state_find(state, page);
    int rc = found ? give_page(found, info) : no_page(state, page);
    return view_end(view, rc);
}

int qallow_page_lookup(struct qallow_view *view, const char *path, struct qallow_page *info)
{
    QR_CHECK_ARGUMENT(view != NULL && path != NULL && info != NULL);
    const struct qr_state *state = view_begin(view);
    const struct qr_page *found = qr_query_lookup(state, path);
    int rc = found ? give_page(found, info)
                   : qr_fail(QALLOW_E_PAGE_NOT_FOUND, "no page %s in epoch %llu", qr_quotez(path),
                             (unsigned long long)qr_state_epoch(state));
    return view_end(view, rc);
}

int qallow_page_next(struct qallow_view *view, uint64_t after, struct qallow_page *info)
{
    QR_CHECK_ARGUMENT(view != NULL && info != NULL);
    const struct qr_state *state = view_begin(view);
    const struct qr_page *found = qr_state_next_page(state, after);
    int rc = found ? give_page(found, info)
                   : qr_fail(QALLOW_E_PAGE_NOT_FOUND, "no page after %llu in epoch %llu",
                             (unsigned long long)after, (unsigned long long)qr_state_epoch(state));
    return view_end(view, rc);
}

static int give_bytes(const void *bytes, size_t have, size_t extra, void *buffer, size_t size,
                      size_t *length)
{
    if (length)
        *length = have;
    if (have + extra > size)
        return qr_fail(QALLOW_E_LIMIT, "%zu bytes do not fit in %zu", have + extra, size);
    if (have + extra > 0)
        memcpy(buffer, bytes, have + extra);
    return 0;
}

int qallow_page_path(struct qallow_view *view, uint64_t page, char *buffer, size_t size,
                     size_t *length)
{
    char *name = NULL;
    size_t have = 0;

    QR_CHECK_ARGUMENT(view != NULL);
    QR_CHECK_ARGUMENT(buffer != NULL || size == 0);
    const struct qr_state *state = view_begin(view);
    const struct qr_page *found = qr_state_find(state, page);
    int rc = found ? qr_query_name(state, found, &name, &have) : no_page(state, page);
    rc = view_end(view, rc);
    if (rc == 0)
        rc = give_bytes(name, have, 1, buffer, size, length);
    qr_free(name);
    return rc;
}

int qallow_page_extra(struct qallow_view *view, uint64_t page, void *buffer, size_t size,
                      size_t *length)
{
    QR_CHECK_ARGUMENT(view != NULL);
    QR_CHECK_ARGUMENT(buffer != NULL || size == 0);
    const struct qr_state *state = view_begin(view);
    const struct qr_page *found = qr_state_find(state, page);
    int rc = found ? give_bytes(found->extra, found->extra_length, 0, buffer, size, length)
                   : no_page(state, page);
    return view_end(view, rc);
}

/* --- history --- */

int qallow_epoch_get(struct qallow_store *store, uint64_t epoch, struct qallow_epoch *info)
{
    struct qallow_epoch out = QALLOW_EPOCH_INIT;
    struct qr_epoch found;

    QR_CHECK_ARGUMENT(store != NULL && info != NULL);
    pthread_mutex_lock(&store->calls);
    int rc = calls_end(store, qr_store_epoch(store->store, epoch, &found));
    if (rc < 0)
        return rc;
    out.epoch = found.epoch;
    out.time_ns = found.time_ns;
    out.pages = found.pages;
    out.log_bytes = found.frame_end - found.frame_start;
    out.digest[0] = found.digest.lo;
    out.digest[1] = found.digest.hi;
    return qr_api_give(info, &out, sizeof out);
}

int qallow_epoch_at_time(struct qallow_store *store, int64_t time_ns, uint64_t *epoch)
{
    QR_CHECK_ARGUMENT(store != NULL && epoch != NULL);
    pthread_mutex_lock(&store->calls);
    return calls_end(store, qr_store_epoch_at_time(store->store, time_ns, epoch));
}

int qallow_epoch_of_label(struct qallow_store *store, const char *label, uint64_t *epoch)
{
    QR_CHECK_ARGUMENT(store != NULL && label != NULL && epoch != NULL);
    pthread_mutex_lock(&store->calls);
    return calls_end(store, qr_store_epoch_of_label(store->store, label, epoch));
}

int qallow_label(struct qallow_store *store, const char *label, uint64_t epoch)
{
    QR_CHECK_ARGUMENT(store != NULL && label != NULL);
    if (!store->writable)
        return qr_fail(QALLOW_E_STATE, "%s is open read-only", qr_store_path(store->store));
    pthread_mutex_lock(&store->calls);
    int rc = qr_store_label(store->store, label, epoch);
    pthread_mutex_unlock(&store->calls);
    return rc;
}

int qallow_checkpoint_export(struct qallow_store *store, uint64_t epoch, const char *path,
                             int overwrite)
{
    QR_CHECK_ARGUMENT(store != NULL && path != NULL);
    pthread_mutex_lock(&store->calls);
    int rc = calls_end(store, qr_checkpoint_export(store->store, epoch, path, overwrite));
    if (rc == 0)
        qr_hub_exported(store, epoch, path);
    return rc;
}

/* Keeps the first problem as the detail of the failure. */
static void first_problem(void *context, uint64_t epoch, const char *page, const char *text)
{
    char *line = context;
    if (line[0] == '\0')
        snprintf(line, 512, "epoch %llu%s%s: %s", (unsigned long long)epoch, page ? ", page " : "",
                 page ? qr_quotez(page) : "", text);
}

int qallow_verify(struct qallow_store *store, int threads)
{
    struct qr_verify_result result;
    char line[512] = "";

    QR_CHECK_ARGUMENT(store != NULL && threads >= 1);
    pthread_mutex_lock(&store->calls);
    int rc = qr_verify_history(store->store, threads, 0, first_problem, line, &result);
    pthread_mutex_unlock(&store->calls);
    return rc == QALLOW_E_DAMAGED && line[0] ? qr_fail(rc, "%s", line) : rc;
}
