/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The public API: transactions side by side.
 *
 * A page belongs to the transaction that meets it first, until that has ended: changed by nobody
 * else, it can be compared, encoded and hashed outside of any lock. Who comes second is told so
 * (BUSY) and may try again, abort, or go on without. The same holds for the structure as a whole:
 * one transaction at a time creates, renames, frees pages and sets attributes, so names and the ids
 * of new pages, which are given in their order in the log, have nothing to be reconciled at the
 * commit. Pages stay claimed until the commit is durable: if it then fails after all, nobody has
 * built on it. What is held of a claimed page in memory stays there.
 *
 * Claims are looked up under the store's lock of pages, in one table for all transactions: whether
 * a page has been met and whether it may be are the same question.
 */
#include "runtime/api_transaction.h"
#include "runtime/state_internal.h"
#include "runtime/store_internal.h"

/* --- the table --- */

static size_t home(const struct qallow_store *store, uint64_t id)
{
    return (size_t)(id * UINT64_C(0x9E3779B97F4A7C15) >> 20) & (store->claims_size - 1);
}

static size_t slot_of(const struct qallow_store *store, uint64_t id)
{
    size_t slot = home(store, id);
    while (store->claims[slot] && store->claims[slot]->id != id)
        slot = (slot + 1) & (store->claims_size - 1);
    return slot;
}

static struct edited *find(const struct qallow_store *store, uint64_t id)
{
    return store->claims_size ? store->claims[slot_of(store, id)] : NULL;
}

/* Room for one more, at a load of at most a half. */
static int reserve(struct qallow_store *store)
{
    if (store->claims_count * 2 < store->claims_size)
        return 0;
    size_t old_size = store->claims_size, size = old_size ? old_size * 2 : 256;
    struct edited **old = store->claims, **table = qr_calloc(size, sizeof *table);
    if (!table)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for transactions of %zu pages", size / 2);
    store->claims = table;
    store->claims_size = size;
    for (size_t i = 0; i < old_size; i++)
        if (old[i])
            table[slot_of(store, old[i]->id)] = old[i];
    qr_free(old);
    return 0;
}

static void put(struct qallow_store *store, struct edited *e)
{
    store->claims[slot_of(store, e->id)] = e;
    store->claims_count++;
}

/* Entries behind it whose way from their home led over its place move up. */
static void take_out(struct qallow_store *store, const struct edited *e)
{
    size_t mask = store->claims_size - 1, hole = slot_of(store, e->id);
    qr_assert(store->claims[hole] == e);
    for (size_t i = (hole + 1) & mask; store->claims[i]; i = (i + 1) & mask) {
        if (((i - home(store, store->claims[i]->id)) & mask) < ((i - hole) & mask))
            continue;
        store->claims[hole] = store->claims[i];
        hole = i;
    }
    store->claims[hole] = NULL;
    store->claims_count--;
}

/* --- pages of a transaction --- */

static int grow_pages(struct qallow_txn *txn)
{
    size_t capacity = txn->capacity ? txn->capacity * 2 : 32;
    struct edited **pages = qr_realloc(txn->pages, capacity * sizeof *pages);
    if (!pages)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a transaction of %zu pages", capacity);
    txn->pages = pages;
    txn->capacity = capacity;
    return 0;
}

static int add(struct qallow_txn *txn, uint64_t id, struct edited **edited)
{
    int rc = txn->count == txn->capacity ? grow_pages(txn) : 0;
    if (rc == 0)
        rc = reserve(txn->store);
    if (rc < 0)
        return rc;
    *edited = qr_api_txn_alloc(txn, sizeof **edited);
    if (!*edited)
        return QALLOW_E_NO_MEMORY;
    **edited = (struct edited){.id = id, .txn = txn};
    txn->pages[txn->count++] = *edited;
    put(txn->store, *edited);
    return 0;
}

static int not_found(const struct qallow_txn *txn, uint64_t id)
{
    const struct qr_state *state = qr_store_state(txn->store->store);
    return qr_fail(QALLOW_E_PAGE_NOT_FOUND, "no page %llu in the transaction after epoch %llu",
                   (unsigned long long)id, (unsigned long long)qr_state_epoch(state));
}

static int claim(struct qallow_txn *txn, uint64_t id, struct edited **edited)
{
    struct edited *e = find(txn->store, id);
    *edited = e;
    if (e && e->txn != txn)
        return qr_fail(QALLOW_E_BUSY, "page %llu belongs to another transaction until that ends",
                       (unsigned long long)id);
    if (e)
        return e->freed ? not_found(txn, id) : 0;
    const struct qr_derive *derive = txn->store->store->derive;
    if (derive && derive->owns(derive->context, id)) /* who lands may be changing such a page */
        return qr_fail(QALLOW_E_STATE,
                       "page %llu is computed from others: it can be read from a "
                       "view, and not be written",
                       (unsigned long long)id);
    const struct qr_page *page = qr_state_find(qr_store_state(txn->store->store), id);
    if (!page)
        return not_found(txn, id);
    int rc = add(txn, id, edited);
    if (rc < 0)
        return rc;
    e = *edited;
    e->old_size = e->size = page->size;
    e->old_sum = page->content_sum;
    e->held = page->held;
    return 0;
}

int qr_api_get_edited(struct qallow_txn *txn, uint64_t id, struct edited **edited)
{
    pthread_mutex_t *lock = &txn->store->store->sharing.lock;
    pthread_mutex_lock(lock);
    int rc = claim(txn, id, edited);
    pthread_mutex_unlock(lock);
    return rc;
}

/* Pages lie in no cache: all are asked for before the first is looked at. */
int qr_api_get_each(struct qallow_txn *txn, const struct qallow_write *writes, size_t count,
                    struct edited **edited, size_t *got)
{
    pthread_mutex_t *lock = &txn->store->store->sharing.lock;
    int rc = 0;
    pthread_mutex_lock(lock);
    const struct qr_state *state = qr_store_state(txn->store->store);
    for (size_t i = 0; i < count; i++) {
        qr_state_fetch(state, writes[i].page, QR_FETCH_SLOT);
        __builtin_prefetch(writes[i].bytes);
    }
    for (*got = 0; *got < count && rc == 0; *got += rc == 0)
        rc = claim(txn, writes[*got].page, &edited[*got]);
    pthread_mutex_unlock(lock);
    return rc;
}

struct edited *qr_api_find_edited(struct qallow_txn *txn, uint64_t id)
{
    pthread_mutex_t *lock = &txn->store->store->sharing.lock;
    pthread_mutex_lock(lock);
    struct edited *e = find(txn->store, id);
    if (e && e->txn != txn)
        e = NULL; /* another's, which may be gone with the lock */
    pthread_mutex_unlock(lock);
    return e;
}

int qr_api_claim_structure(struct qallow_txn *txn)
{
    struct qallow_store *store = txn->store;
    int rc = 0;
    pthread_mutex_lock(&store->store->sharing.lock);
    if (!store->structure)
        store->structure = txn;
    else if (store->structure != txn)
        rc = qr_fail(QALLOW_E_BUSY, "another transaction creates, renames or frees pages until it "
                                    "ends");
    txn->is_structural |= rc == 0;
    pthread_mutex_unlock(&store->store->sharing.lock);
    return rc;
}

void qr_api_release_structure(struct qallow_txn *txn)
{
    pthread_mutex_lock(&txn->store->store->sharing.lock);
    if (txn->store->structure == txn)
        txn->store->structure = NULL;
    pthread_mutex_unlock(&txn->store->store->sharing.lock);
}

int qr_api_add_created(struct qallow_txn *txn, struct edited **edited)
{
    pthread_mutex_lock(&txn->store->store->sharing.lock);
    if (txn->next_id == 0)
        txn->next_id = txn->store->store->state->next_id;
    while (find(txn->store, txn->next_id)) /* of one that has failed, and not yet let go */
        txn->next_id++;
    int rc = add(txn, txn->next_id, edited);
    if (rc == 0) {
        (*edited)->created = 1;
        txn->next_id++;
    }
    pthread_mutex_unlock(&txn->store->store->sharing.lock);
    return rc;
}

/* --- content --- */

/* It may have to be fetched, which those who look at the newest state must not see half-done. */
const uint8_t *qr_api_hold(struct qallow_txn *txn, struct edited *e)
{
    struct qallow_store *store = txn->store;
    if (e->held)
        return e->held;
    pthread_mutex_lock(&store->calls);
    pthread_rwlock_wrlock(&store->newest_lock);
    if (qr_store_hold(store->store, e->id, txn->work->reader, &e->held) < 0)
        e->held = NULL;
    pthread_rwlock_unlock(&store->newest_lock);
    pthread_mutex_unlock(&store->calls);
    return e->held;
}

int qr_api_is_claimed(void *context, uint64_t page) { return find(context, page) != NULL; }

/* --- what is used again --- */

void qr_api_work_destroy(struct qr_api_work *work)
{
    if (!work)
        return;
    qr_batch_destroy(work->batch);
    qr_reader_destroy(work->reader);
    qr_edits_finish(&work->edits);
    qr_free(work->old_bytes);
    qr_free(work->new_bytes);
    while (work->blocks) {
        struct block *next = work->blocks->next;
        qr_free(work->blocks);
        work->blocks = next;
    }
    qr_free(work);
}

int qr_api_work_take(struct qallow_store *store, struct qr_api_work **work)
{
    struct qr_api_work *made = NULL;
    pthread_mutex_lock(&store->spare_lock);
    if (store->work_count > 0)
        made = store->works[--store->work_count];
    pthread_mutex_unlock(&store->spare_lock);
    int rc = 0;
    if (!made && !(made = qr_calloc(1, sizeof *made)))
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a transaction");
    if (!made->batch)
        rc = qr_batch_create(qr_store_compress_level(store->store), &made->batch);
    if (rc == 0 && !made->reader)
        rc = qr_api_reader_take(store, &made->reader);
    if (rc < 0)
        qr_api_work_destroy(made);
    else
        *work = made;
    return rc;
}

void qr_api_work_give(struct qallow_store *store, struct qr_api_work *work)
{
    qr_batch_reset(work->batch);
    pthread_mutex_lock(&store->spare_lock);
    if (store->work_count < QR_API_SPARE) {
        store->works[store->work_count++] = work;
        work = NULL;
    }
    pthread_mutex_unlock(&store->spare_lock);
    qr_api_work_destroy(work);
}

/* --- begin and end --- */

int qallow_begin(struct qallow_store *store, struct qallow_txn **txn)
{
    QR_CHECK_ARGUMENT(txn != NULL);
    *txn = NULL;
    QR_CHECK_ARGUMENT(store != NULL);
    if (!store->writable)
        return qr_fail(QALLOW_E_STATE, "%s is open read-only", qr_store_path(store->store));
    struct qallow_txn *made = qr_calloc(1, sizeof *made);
    if (!made)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a transaction");
    made->store = store;
    int rc = qr_api_work_take(store, &made->work);
    if (rc < 0) {
        qr_free(made);
        return rc;
    }
    pthread_mutex_lock(&store->store->sharing.lock);
    made->next = store->txns;
    if (made->next)
        made->next->previous = made;
    store->txns = made;
    pthread_mutex_unlock(&store->store->sharing.lock);
    *txn = made;
    return 0;
}

void qr_api_release(struct qallow_txn *txn)
{
    struct qallow_store *store = txn->store;
    pthread_mutex_lock(&store->store->sharing.lock);
    for (size_t i = 0; i < txn->count; i++)
        take_out(store, txn->pages[i]);
    if (store->structure == txn)
        store->structure = NULL;
    if (txn->next)
        txn->next->previous = txn->previous;
    if (txn->previous)
        txn->previous->next = txn->next;
    else
        store->txns = txn->next;
    pthread_mutex_unlock(&store->store->sharing.lock);
}

void qallow_abort(struct qallow_txn *txn)
{
    if (!txn)
        return;
    qr_api_release(txn);
    qr_api_txn_destroy(txn);
}
