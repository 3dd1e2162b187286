/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verification: is every epoch what its commit says?
 *
 * A running digest is carried over the history. For each page an epoch touched, its term before is
 * taken out and its term after put in, and its content sum is brought forward from the bytes: those
 * cells whose place in the log changed are hashed as they were and as they are. Small pages that
 * change are held in memory, where their bytes follow the deltas, and hashed whole. So each epoch
 * is checked against real bytes at the cost of its change; and to rule out that an error is carried
 * along, whole states are summed from nothing at the first and last epoch and whenever the bytes
 * replayed since the last time exceed the state's size, which at most doubles the work.
 *
 * Threads share the history out in ranges, each from a keyframe to the one that is the first of the
 * next range; there its state is summed from nothing, too. The ranges follow from the log alone,
 * and what is found in them is told in their order: so the result does not depend on the threads.
 */
#include "runtime/digest.h"
#include "runtime/query.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/error.h"
#include "runtime/store_internal.h"
#include "runtime/team.h"

enum {
    BUFFER = 256 << 10,           /* a multiple of QB_CELL */
    READER = 4 << 20,             /* the bytes that a reader keeps */
    HOLD_BYTES = 16 << 20,        /* of pages that change again and again; for each thread */
    HOLD_PAGE_BYTES = BUFFER / 4, /* it is summed whole, after each epoch that changes it */
    RANGE_MIN = 4 << 20,          /* bytes of log */
    WAITING_MAX = 256 << 10,      /* bytes of problems that wait for their turn; of each range */
};
_Static_assert(BUFFER % QB_CELL == 0, "buffers hold whole cells");

/* A page touched by the epoch, as it was before. */
struct touched {
    uint64_t id;
    size_t order; /* of being met: the first counts */
    int existed;
    int was_held; /* in memory; then there is no `content` */
    struct qb_u128 term, sum;
    struct qr_content content;
};

/* Epochs (after, to]; the first range has the oldest epoch too, whose records may be gone. */
struct range {
    uint64_t after, to;
};

/* The ranges of a history, and whose turn it is to tell what it found. */
struct history {
    struct qr_store *store;
    int threads, from_scratch; /* threads: for whole states, when there is one range only */
    struct range *ranges;
    size_t range_count, range_capacity;
    pthread_mutex_t lock; /* guards what follows; also held while a problem is told */
    pthread_cond_t turned;
    size_t turn; /* all ranges before this one are done */
    char *is_done;
    struct qr_verify_result total;
    void (*problem)(void *context, uint64_t epoch, const char *page, const char *text);
    void *context;
};

/* One thread at one range. */
struct verify {
    struct history *history;
    struct qr_store *store;
    struct qr_reader *reader;
    size_t range;
    uint64_t last_epoch; /* of the range */
    char *waiting;       /* problems: epoch, has a name, name, text */
    size_t waiting_length, waiting_capacity;
    struct qb_u128 digest;   /* of the epoch before, recomputed */
    uint64_t since_full;     /* bytes hashed since the last state was summed from nothing */
    int started;
    struct touched *touched;
    size_t touched_count, touched_capacity;
    uint8_t *buffer;
    struct qr_verify_result result;
};

/* --- problems, told in the order of the ranges --- */

/* Tells what waits. With the lock. */
static void tell_waiting(struct verify *v)
{
    for (const char *at = v->waiting; at && at < v->waiting + v->waiting_length;) {
        uint64_t epoch;
        memcpy(&epoch, at, sizeof epoch);
        const char *page = at[sizeof epoch] ? at + sizeof epoch + 1 : NULL;
        const char *text = at + sizeof epoch + 1 + (page ? strlen(page) + 1 : 0);
        v->history->problem(v->history->context, epoch, page, text);
        at = text + strlen(text) + 1;
    }
    v->waiting_length = 0;
}

/* Keeps a problem for later: 1; 0: there is no room. */
static int keep_waiting(struct verify *v, uint64_t epoch, const char *page, const char *text)
{
    size_t page_length = page ? strlen(page) + 1 : 0, text_length = strlen(text) + 1;
    size_t length = v->waiting_length + sizeof epoch + 1 + page_length + text_length;
    if (length > WAITING_MAX)
        return 0;
    if (length > v->waiting_capacity) {
        char *grown = qr_realloc(v->waiting, 2 * length);
        if (!grown)
            return 0;
        v->waiting = grown;
        v->waiting_capacity = 2 * length;
    }
    char *to = v->waiting + v->waiting_length;
    memcpy(to, &epoch, sizeof epoch);
    to[sizeof epoch] = page != NULL;
    if (page)
        memcpy(to + sizeof epoch + 1, page, page_length);
    memcpy(to + sizeof epoch + 1 + page_length, text, text_length);
    v->waiting_length = length;
    return 1;
}

static void tell(struct verify *v, uint64_t epoch, const char *page, const char *text)
{
    struct history *h = v->history;
    pthread_mutex_lock(&h->lock);
    if (h->turn == v->range || !keep_waiting(v, epoch, page, text)) {
        while (h->turn != v->range) /* earlier ranges wait for nobody who waits here */
            pthread_cond_wait(&h->turned, &h->lock);
        tell_waiting(v);
        h->problem(h->context, epoch, page, text);
    }
    pthread_mutex_unlock(&h->lock);
}

static void report(struct verify *v, uint64_t epoch, const struct qr_state *state,
                   const struct qr_page *page, const char *text)
{
    char *name = NULL;
    v->result.damaged++;
    if (page && qr_query_name(state, page, &name, NULL) < 0)
        name = NULL;
    tell(v, epoch, name, text);
    qr_free(name);
}

/* Damage is a finding; anything else ends the verification. */
static int is_finding(int rc)
{
    return rc == QALLOW_E_DAMAGED || rc == QALLOW_E_SERIALIZATION;
}

/* --- sums of cells --- */

/* The cells of [from, to): from is a multiple of the cell size, to too or the end. */
static int sum_cells(struct verify *v, struct qr_content *content, uint64_t page, uint64_t from,
                     uint64_t to, struct qb_u128 *sum)
{
    uint64_t read = 0;
    int rc = from < to ? qr_content_sum(v->reader, content, page, from, to, v->buffer, BUFFER, sum,
                                        &read)
                       : 0;
    v->result.read_bytes += read;
    v->since_full += read;
    return rc;
}

/* The next range of bytes, from *at on, that two contents do not take from the same place; cell
 * boundaries; 0 at the end of the shorter one. Starts where *i, *j stand in the pieces. */
struct pair {
    const struct qr_content *a, *b;
    size_t i, j;
    uint64_t i_offset, j_offset, at;
};

/* Steps over the stretch that one piece of each side covers. 1: same place, 0: not; -1: end. */
static int pair_step(struct pair *p, uint64_t *length)
{
    if (p->i == p->a->piece_count || p->j == p->b->piece_count)
        return -1;
    struct qr_piece x = p->a->pieces[p->i], y = p->b->pieces[p->j];
    uint64_t n = x.length - p->i_offset, m = y.length - p->j_offset;
    int same = x.ref == QR_REF_ZERO || y.ref == QR_REF_ZERO
                   ? x.ref == y.ref
                   : x.ref + p->i_offset == y.ref + p->j_offset;

    *length = n < m ? n : m;
    p->at += *length;
    p->i_offset += *length;
    p->j_offset += *length;
    if (p->i_offset == x.length) {
        p->i++;
        p->i_offset = 0;
    }
    if (p->j_offset == y.length) {
        p->j++;
        p->j_offset = 0;
    }
    return same;
}

/* sum += cells of b - cells of a, over [from, to) widened to cells; to beyond an end is cut. */
static int sum_change(struct verify *v, struct qr_content *a, struct qr_content *b, uint64_t page,
                      uint64_t from, uint64_t to, struct qb_u128 *sum)
{
    struct qb_u128 old = {0}, new = {0};
    int rc = sum_cells(v, a, page, from, to < a->size ? to : a->size, &old);
    if (rc == 0)
        rc = sum_cells(v, b, page, from, to < b->size ? to : b->size, &new);
    *sum = qb_u128_add(qb_u128_sub(*sum, old), new);
    return rc;
}

/* Brings a's sum forward to b's. */
static int sum_forward(struct verify *v, struct qr_content *a, struct qr_content *b, uint64_t page,
                       struct qb_u128 *sum)
{
    struct pair p = {.a = a, .b = b};
    uint64_t from = 0, to = 0, length = 0; /* cells gathered and not yet summed */
    uint64_t common = a->size < b->size ? a->size : b->size;
    uint64_t end = a->size > b->size ? a->size : b->size;
    int rc = 0, same;

    while (rc == 0 && (same = pair_step(&p, &length)) >= 0) {
        uint64_t low = (p.at - length) / QB_CELL * QB_CELL;
        uint64_t high = (p.at + QB_CELL - 1) / QB_CELL * QB_CELL;
        if (same)
            continue;
        if (low > to) {
            rc = sum_change(v, a, b, page, from, to, sum);
            from = low;
        }
        to = high;
    }
    if (rc == 0 && a->size != b->size) { /* the last cell of the shorter one has another length */
        uint64_t low = common / QB_CELL * QB_CELL;
        if (low > to) {
            rc = sum_change(v, a, b, page, from, to, sum);
            from = low;
        }
        to = end;
    }
    if (rc == 0 && to > from)
        rc = sum_change(v, a, b, page, from, to, sum);
    return rc;
}

/* How many bytes sum_forward would read. */
static uint64_t forward_cost(const struct qr_content *a, const struct qr_content *b)
{
    struct pair p = {.a = a, .b = b};
    uint64_t common = a->size < b->size ? a->size : b->size;
    uint64_t cost = a->size + b->size - 2 * common, length = 0;
    int same;
    while ((same = pair_step(&p, &length)) >= 0)
        cost += same ? 0 : 2 * length;
    return cost;
}

/* The content sum of `page` from bytes. */
static int page_sum(struct verify *v, struct touched *before, const struct qr_page *page,
                    struct qb_u128 *sum)
{
    struct qr_content content = {0};
    int rc;

    if (page->held) {
        *sum = qb_kernels()->hash_cells(page->held, page->size, qr_page_seed(page->id), 0);
        v->result.read_bytes += page->size;
        v->since_full += 2 * QB_CELL; /* what it would have cost: hashing is not reading */
        return 0;
    }
    rc = qr_content_init(&content, page);
    if (rc < 0)
        return rc;
    if (before && before->existed && !before->was_held &&
        forward_cost(&before->content, &content) < content.size) {
        *sum = before->sum;
        rc = sum_forward(v, &before->content, &content, page->id, sum);
    } else {
        *sum = (struct qb_u128){0};
        rc = sum_cells(v, &content, page->id, 0, content.size, sum);
    }
    qr_content_finish(&content);
    return rc;
}

/* page_sum, compared with what the log says; a finding is reported and the log's sum used. */
static int check_page(struct verify *v, uint64_t epoch, const struct qr_state *state,
                      struct touched *before, const struct qr_page *page, struct qb_u128 *sum)
{
    int rc = page_sum(v, before, page, sum);

    if (is_finding(rc)) {
        report(v, epoch, state, page, qallow_error_detail());
        rc = 0;
    } else if (rc == 0 && !qb_u128_equal(*sum, page->content_sum)) {
        report(v, epoch, state, page, "the content does not have the sum that was recorded");
    }
    *sum = page->content_sum;
    return rc;
}

/* --- a state from nothing --- */

/* At most an eighth of what the store may take: buffers and tables need some, too, and threads. */
static uint64_t hold_bytes(const struct qr_store *store)
{
    uint64_t most = qr_store_max_memory(store);
    return most && most / 8 < HOLD_BYTES ? most / 8 : HOLD_BYTES;
}

static int check_every_page(struct verify *v, uint64_t epoch, const struct qr_state *state)
{
    const struct qr_page *page = qr_state_next_page(state, 0);
    int rc = 0;
    for (; rc == 0 && page; page = qr_state_next_page(state, page->id)) {
        struct qb_u128 sum;
        rc = check_page(v, epoch, state, NULL, page, &sum);
    }
    return rc;
}

/* A state that fits into memory is read in the order of the log; what is not right with it the
 * other way finds out. 1: it has the digest, 0: not known yet. */
static int is_right(struct verify *v, const struct qr_epoch *epoch, const struct qr_state *state)
{
    struct qb_u128 digest = {0, 0};
    if (qr_state_bytes(state) > hold_bytes(v->store) ||
        qr_state_check_content(v->store, state, v->history->threads))
        return 0;
    for (const struct qr_page *page = qr_state_next_page(state, 0); page;
         page = qr_state_next_page(state, page->id))
        digest = qb_u128_add(digest, qb_u128_add(qr_page_term(page), page->content_sum));
    return qb_u128_equal(digest, epoch->digest);
}

static int check_full(struct verify *v, const struct qr_epoch *epoch, const struct qr_state *state)
{
    struct qb_u128 digest;
    uint64_t bad_page = 0, found = v->result.damaged;

    v->since_full = 0;
    v->result.read_bytes += qr_state_bytes(state);
    if (is_right(v, epoch, state)) {
        v->result.full++;
        return 0;
    }
    int rc = qr_state_digest_compute(v->store, state, v->history->threads, &digest, &bad_page);
    if (rc == 0 && qb_u128_equal(digest, epoch->digest)) {
        v->result.full++;
        return 0;
    }
    if (rc < 0 && !is_finding(rc))
        return rc;
    rc = check_every_page(v, epoch->epoch, state); /* which pages are to blame? */
    if (rc == 0 && v->result.damaged == found)
        report(v, epoch->epoch, state, NULL, "the state does not have the digest of the commit");
    return rc;
}

/* --- the walk --- */

static int touch(void *context, const struct qr_epoch *epoch, const struct qr_state *state,
                 const struct qr_record *record)
{
    struct verify *v = context;
    const struct qr_page *page;
    struct touched *t;
    int rc = 0;

    if (v->touched_count > 0 && v->touched[v->touched_count - 1].id == record->page)
        return 0;
    if (QR_GROW(v->touched, v->touched_count, v->touched_capacity) < 0)
        return QALLOW_E_NO_MEMORY;
    t = &v->touched[v->touched_count];
    *t = (struct touched){.id = record->page, .order = v->touched_count};
    page = qr_state_find(state, record->page);
    if (page) {
        t->existed = 1;
        t->term = qr_page_term(page);
        t->sum = page->content_sum;
        t->was_held = page->held != NULL;
        if (!t->was_held)
            rc = qr_content_init(&t->content, page);
    }
    if (rc == 0)
        v->touched_count++;
    return rc;
}

static int by_id(const void *x, const void *y)
{
    const struct touched *a = x, *b = y;
    if (a->id != b->id)
        return a->id < b->id ? -1 : 1;
    return a->order < b->order ? -1 : 1;
}

static void forget_touched(struct verify *v)
{
    for (size_t i = 0; i < v->touched_count; i++) {
        qr_content_moved(&v->touched[i].content);
        qr_content_finish(&v->touched[i].content);
    }
    v->touched_count = 0;
}

static int check_touched(struct verify *v, const struct qr_epoch *epoch,
                         const struct qr_state *state)
{
    int rc = 0;

    if (v->touched_count > 1)
        qsort(v->touched, v->touched_count, sizeof *v->touched, by_id);
    for (size_t i = 0; i < v->touched_count; i++)
        qr_content_moved(&v->touched[i].content);
    for (size_t i = 0; rc == 0 && i < v->touched_count; i++) {
        struct touched *t = &v->touched[i];
        const struct qr_page *page = qr_state_find(state, t->id);
        if (i > 0 && v->touched[i - 1].id == t->id)
            continue;
        if (t->existed)
            v->digest = qb_u128_sub(v->digest, qb_u128_add(t->term, t->sum));
        if (page) {
            struct qb_u128 sum;
            rc = check_page(v, epoch->epoch, state, t, page, &sum);
            v->digest = qb_u128_add(v->digest, qb_u128_add(qr_page_term(page), sum));
        }
    }
    return rc;
}

static int epoch_end(void *context, const struct qr_epoch *epoch, const struct qr_state *state)
{
    struct verify *v = context;
    uint64_t found = v->result.damaged;
    int rc = 0;

    if (!v->started) {
        rc = check_full(v, epoch, state);
    } else {
        if (!qb_u128_equal(v->digest, epoch->base_digest))
            report(v, epoch->epoch, state, NULL, "the commit stands on another state");
        rc = check_touched(v, epoch, state);
        if (rc == 0 && !qb_u128_equal(v->digest, epoch->digest))
            report(v, epoch->epoch, state, NULL,
                   "the state does not have the digest of the commit");
        if (rc == 0 && (v->history->from_scratch || epoch->epoch == v->last_epoch ||
                        v->since_full > qr_state_bytes(state)))
            rc = check_full(v, epoch, state);
    }
    v->started = 1;
    v->digest = epoch->digest; /* each epoch is judged on its own */
    forget_touched(v);
    if (rc == 0 && v->result.damaged == found)
        v->result.epochs++;
    return rc;
}

/* --- ranges of a history, in threads --- */

/* How many threads fit into what the store may take. The page tables are counted as the newest one
 * is. */
static int threads_that_fit(const struct qr_store *store, int threads)
{
    uint64_t most = qr_store_max_memory(store), fit;
    uint64_t each = 2 * hold_bytes(store) + READER + BUFFER + WAITING_MAX +
                    store->state->slot_count * sizeof(struct qr_page) +
                    store->state->piece_total * sizeof(struct qr_piece);
    fit = most ? most / each : QR_TEAM_MAX;
    fit = fit < 1 ? 1 : fit > QR_TEAM_MAX ? QR_TEAM_MAX : fit;
    return threads < (int)fit ? threads : (int)fit;
}

static int add_range(struct history *h, uint64_t after, uint64_t to)
{
    int rc = QR_GROW(h->ranges, h->range_count, h->range_capacity);
    if (rc == 0)
        h->ranges[h->range_count++] = (struct range){after, to};
    return rc;
}

/* Cuts at keyframes that have as much log before them as there are bytes in the state: each range
 * ends with reading the state once more. */
static int cut_ranges(struct history *h, uint64_t first, uint64_t last)
{
    const struct qr_directory *d = &h->store->directory;
    uint64_t bytes = qr_state_bytes(h->store->state), after = first, from = 0;
    uint64_t least = bytes < RANGE_MIN ? RANGE_MIN : bytes;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < d->keyframe_count; i++) {
        const struct qr_keyframe *k = &d->keyframes[i];
        if (k->epoch <= after || k->epoch >= last || k->offset - from < least)
            continue;
        rc = add_range(h, after, k->epoch);
        after = k->epoch;
        from = k->offset;
    }
    return rc ? rc : add_range(h, after, last);
}

static void verify_finish(struct verify *v)
{
    forget_touched(v);
    qr_free(v->touched);
    qr_free(v->buffer);
    qr_free(v->waiting);
    qr_reader_destroy(v->reader);
}

static void end_range(void *context, void *own)
{
    struct verify *v = own;
    if (v)
        verify_finish(v);
    qr_free(v);
}

static int begin_ranges(void *context, void **own)
{
    struct history *h = context;
    struct verify *v = qr_calloc(1, sizeof *v);
    if (!(*own = v))
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory to verify");
    v->history = h;
    v->store = h->store;
    v->buffer = qr_malloc(BUFFER);
    return v->buffer ? qr_reader_create(h->store, READER, &v->reader)
                     : qr_fail(QALLOW_E_NO_MEMORY, "no memory to verify");
}

/* The walk over one range; the first one begins with the oldest epoch itself. */
static int walk_range(struct verify *v)
{
    const struct range *range = &v->history->ranges[v->range];
    struct qr_walk walk = {.from = range->after + 1,
                           .to = range->to,
                           .with_state = 1,
                           .record = touch,
                           .epoch_end = epoch_end,
                           .context = v,
                           .hold_bytes = hold_bytes(v->store),
                           .hold_page_bytes = HOLD_PAGE_BYTES};
    struct qr_epoch before;
    if (v->range == 0)
        return qr_query_walk(v->store, range->to, &walk);
    int rc = qr_store_epoch(v->store, range->after, &before);
    v->digest = before.digest;
    v->started = 1;
    return rc ? rc : qr_store_walk(v->store, &walk);
}

/* All that was found is told, then the turn goes on past all ranges that are done. */
static void finish_range(struct verify *v)
{
    struct history *h = v->history;
    pthread_mutex_lock(&h->lock);
    while (v->waiting_length && h->turn != v->range)
        pthread_cond_wait(&h->turned, &h->lock);
    tell_waiting(v);
    h->is_done[v->range] = 1;
    while (h->turn < h->range_count && h->is_done[h->turn])
        h->turn++;
    h->total.epochs += v->result.epochs;
    h->total.full += v->result.full;
    h->total.read_bytes += v->result.read_bytes;
    h->total.damaged += v->result.damaged;
    pthread_cond_broadcast(&h->turned);
    pthread_mutex_unlock(&h->lock);
}

static int verify_ranges(void *context, void *own, uint64_t first, uint64_t end)
{
    struct verify *v = own;
    int rc = 0;
    for (uint64_t i = first; i < end && rc == 0; i++) {
        v->range = (size_t)i;
        v->last_epoch = v->history->ranges[i].to;
        v->result = (struct qr_verify_result){0};
        v->started = 0;
        v->since_full = 0;
        rc = walk_range(v);
        if (is_finding(rc)) {
            report(v, 0, NULL, NULL, qallow_error_detail());
            rc = 0;
        }
        forget_touched(v);
        finish_range(v);
    }
    return rc;
}

static int verify_shared(struct history *h, int threads)
{
    static const struct qr_team_work work = {begin_ranges, verify_ranges, end_range};
    h->is_done = qr_calloc(h->range_count, 1);
    if (!h->is_done)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory to verify");
    if (h->range_count > 1)
        h->threads = 1;
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->turned, NULL);
    int rc = qr_team(threads_that_fit(h->store, threads), h->range_count, 1, &work, h);
    pthread_cond_destroy(&h->turned);
    pthread_mutex_destroy(&h->lock);
    return rc;
}

int qr_verify_history(struct qr_store *store, int threads, int from_scratch,
                      void (*problem)(void *context, uint64_t epoch, const char *page,
                                      const char *text),
                      void *context, struct qr_verify_result *result)
{
    struct history h = {.store = store,
                        .threads = threads,
                        .from_scratch = from_scratch,
                        .problem = problem,
                        .context = context};
    struct qr_store_info info;
    int rc = 0;

    qr_store_info(store, &info);
    if (info.last_epoch != 0)
        rc = cut_ranges(&h, info.first_epoch, info.last_epoch);
    if (rc == 0 && h.range_count)
        rc = verify_shared(&h, threads);
    *result = h.total;
    qr_free(h.ranges);
    qr_free(h.is_done);
    return rc == 0 && result->damaged > 0
               ? qr_fail(QALLOW_E_DAMAGED, "%s: %llu problems found", qr_store_path(store),
                         (unsigned long long)result->damaged)
               : rc;
}

/* --- salvage --- */

/* 0: the page is good; QALLOW_E_DAMAGED with a detail; or an error. */
static int check_readable(struct verify *v, const struct qr_page *page)
{
    struct qb_u128 sum;
    int rc = page_sum(v, NULL, page, &sum);

    if (rc == QALLOW_E_SERIALIZATION)
        return QALLOW_E_DAMAGED;
    if (rc == 0 && !qb_u128_equal(sum, page->content_sum))
        return qr_fail(QALLOW_E_DAMAGED, "the content does not have the sum that was recorded");
    return rc;
}

static int drop_unreadable(struct verify *v, struct qr_state *state,
                           int (*lost)(void *context, const char *name,
                                       const struct qr_page *page, const char *why),
                           void *context)
{
    struct qr_page *page = qr_state_next_page(state, 0);
    int rc = 0;

    while (rc == 0 && page) {
        uint64_t id = page->id;
        char *name = NULL;
        rc = check_readable(v, page);
        if (rc == QALLOW_E_DAMAGED) {
            char why[512];
            snprintf(why, sizeof why, "%s", qallow_error_detail());
            rc = qr_query_name(state, page, &name, NULL);
            if (rc == 0)
                rc = lost(context, name, page, why);
            if (rc == 0)
                rc = qr_state_free_page(state, page);
            qr_free(name);
        }
        page = qr_state_next_page(state, id);
    }
    return rc;
}

int qr_salvage_state(struct qr_store *store, struct qr_state *state,
                     int (*lost)(void *context, const char *name, const struct qr_page *page,
                                 const char *why),
                     void *context)
{
    struct verify v = {.store = store, .buffer = qr_malloc(BUFFER)};
    int rc = v.buffer ? qr_reader_create(store, READER, &v.reader)
                      : qr_fail(QALLOW_E_NO_MEMORY, "no memory to salvage");

    if (rc == 0)
        rc = drop_unreadable(&v, state, lost, context);
    qr_reader_destroy(v.reader);
    qr_free(v.buffer);
    return rc;
}
