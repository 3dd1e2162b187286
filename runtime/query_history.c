/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The history of one page, and blame. Both walk over the log once, forwards, and look at the page
 * after each epoch that touched it.
 *
 * Blame keeps, parallel to the page's content, a list of runs (length, epoch). The difference
 * between the content before and after an epoch is applied to that list as it is to the content, so
 * a run moves when bytes before it come or go, whatever operations the log used to say so.
 */
#include "runtime/query.h"

#include <string.h>

/* --- history --- */

/* What is remembered of a page between two epochs. */
struct look {
    int exists;
    struct qr_page page; /* its size, mode, mtime and extra bytes; the rest is 0 */
    char *name;
};

struct history {
    uint64_t page;
    struct look before;
    int touched;       /* by a record of this epoch */
    int content;       /* a delta was among them */
    int renamed_above; /* something was renamed: the name must be looked at again */
    int started;
    int (*visit)(void *context, const struct qr_event *event);
    void *context;
};

static void look_finish(struct look *look)
{
    qr_free(look->name);
    qr_free(look->page.extra);
    *look = (struct look){0};
}

static int look_at(const struct qr_state *state, uint64_t id, struct look *look)
{
    const struct qr_page *page = qr_state_find(state, id);
    int rc;

    *look = (struct look){0};
    if (!page)
        return 0;
    *look = (struct look){.exists = 1,
                          .page = {.size = page->size, .mode = page->mode,
                                   .mtime_ns = page->mtime_ns,
                                   .extra_length = page->extra_length}};
    rc = qr_query_name(state, page, &look->name, NULL);
    if (rc == 0 && page->extra_length > 0) {
        look->page.extra = qr_malloc(page->extra_length);
        if (look->page.extra)
            memcpy(look->page.extra, page->extra, page->extra_length);
        else
            rc = qr_fail(QALLOW_E_NO_MEMORY, "no memory for attributes");
    }
    if (rc < 0)
        look_finish(look);
    return rc;
}

static unsigned look_compare(const struct look *a, const struct look *b, int content)
{
    unsigned flags = qr_query_attributes(&a->page, &b->page);
    if (content)
        flags |= QR_DIFF_CONTENT;
    if (strcmp(a->name, b->name) != 0)
        flags |= QR_DIFF_NAME;
    return flags;
}

static int history_record(void *context, const struct qr_epoch *epoch, const struct qr_state *state,
                          const struct qr_record *record)
{
    struct history *h = context;

    if (record->type == QR_RECORD_RENAME)
        h->renamed_above = 1;
    if (record->page != h->page || record->type == QR_RECORD_IMAGE)
        return 0;
    h->touched = 1;
    if (record->type == QR_RECORD_DELTA)
        h->content = 1;
    return 0;
}

static int history_epoch(void *context, const struct qr_epoch *epoch, const struct qr_state *state)
{
    struct history *h = context;
    struct look now;
    struct qr_event event;
    int rc = 0;

    int content = h->content;
    int needed = h->touched || !h->started || (h->renamed_above && h->before.exists);
    h->started = 1;
    h->touched = h->content = h->renamed_above = 0;
    if (!needed)
        return 0;
    rc = look_at(state, h->page, &now);
    if (rc < 0)
        return rc;
    event = (struct qr_event){.epoch = epoch->epoch, .time_ns = epoch->time_ns,
                              .label = epoch->label, .name = now.name, .old_name = h->before.name,
                              .old_size = h->before.page.size, .new_size = now.page.size};
    if (h->before.exists && now.exists) {
        event.flags = look_compare(&h->before, &now, content);
        event.status = event.flags & QR_DIFF_NAME ? 'R' : event.flags ? 'M' : 0;
    } else if (now.exists) {
        event.status = 'A';
        event.old_name = now.name;
    } else if (h->before.exists) {
        event.status = 'D';
        event.name = h->before.name;
    }
    if (event.status)
        rc = h->visit(h->context, &event);
    look_finish(&h->before);
    h->before = now;
    return rc;
}

int qr_history_of(struct qr_store *store, uint64_t page,
                  int (*visit)(void *context, const struct qr_event *event), void *context)
{
    struct history h = {.page = page, .visit = visit, .context = context};
    struct qr_store_info info;
    int rc;

    qr_store_info(store, &info);
    rc = qr_query_walk(
        store, info.last_epoch,
        &(struct qr_walk){.record = history_record, .epoch_end = history_epoch, .context = &h});
    look_finish(&h.before);
    return rc;
}

/* --- blame --- */

struct run {
    uint64_t length, epoch;
};

struct runs {
    struct run *items;
    size_t count, capacity;
};

struct blame {
    uint64_t page, epoch; /* epoch: the one being applied */
    struct qr_reader *reader;
    int touched, exists;
    struct qr_content content; /* before the epoch */
    struct runs runs;          /* of that content */
    struct runs next;          /* being built */
    size_t at;                 /* in runs: what has been taken over */
    uint64_t at_offset;        /* in runs.items[at] */
};

static int runs_add(struct runs *runs, uint64_t length, uint64_t epoch)
{
    if (length == 0)
        return 0;
    if (runs->count > 0 && runs->items[runs->count - 1].epoch == epoch) {
        runs->items[runs->count - 1].length += length;
        return 0;
    }
    if (QR_GROW(runs->items, runs->count, runs->capacity) < 0)
        return QALLOW_E_NO_MEMORY;
    runs->items[runs->count++] = (struct run){length, epoch};
    return 0;
}

/* Takes `length` bytes from the old runs; into the new ones if they are kept. */
static int runs_take(struct blame *b, uint64_t length, int keep)
{
    int rc = 0;
    while (rc == 0 && length > 0) {
        qr_assert(b->at < b->runs.count);
        const struct run *run = &b->runs.items[b->at];
        uint64_t n = run->length - b->at_offset;
        if (n > length)
            n = length;
        if (keep)
            rc = runs_add(&b->next, n, run->epoch);
        b->at_offset += n;
        length -= n;
        if (b->at_offset == run->length) {
            b->at++;
            b->at_offset = 0;
        }
    }
    return rc;
}

struct blame_change {
    struct blame *blame;
    uint64_t old_at;
};

static int blame_change(void *context, const struct qr_change *change)
{
    struct blame_change *c = context;
    int rc = runs_take(c->blame, change->old_offset - c->old_at, 1);
    if (rc == 0)
        rc = runs_take(c->blame, change->old_length, 0);
    if (rc == 0)
        rc = runs_add(&c->blame->next, change->new_length, c->blame->epoch);
    c->old_at = change->old_offset + change->old_length;
    return rc;
}

static int blame_apply(struct blame *b, const struct qr_page *page)
{
    struct blame_change change = {.blame = b};
    struct qr_content content = {0};
    struct runs runs;
    int rc = qr_content_init(&content, page);

    if (rc < 0)
        return rc;
    b->next.count = b->at = b->at_offset = 0;
    if (b->exists) {
        rc = qr_content_diff(b->reader, &b->content, &content, 1, blame_change, &change);
        if (rc == 0)
            rc = runs_take(b, b->content.size - change.old_at, 1);
        qr_content_finish(&b->content);
    } else {
        rc = runs_add(&b->next, content.size, b->epoch);
    }
    runs = b->runs;
    b->runs = b->next;
    b->next = runs;
    b->content = content;
    qr_content_moved(&b->content);
    b->exists = 1;
    return rc;
}

static int blame_record(void *context, const struct qr_epoch *epoch, const struct qr_state *state,
                        const struct qr_record *record)
{
    struct blame *b = context;
    if (record->page == b->page)
        b->touched = 1;
    return 0;
}

static int blame_epoch(void *context, const struct qr_epoch *epoch, const struct qr_state *state)
{
    struct blame *b = context;
    const struct qr_page *page;

    if (b->exists && !b->touched)
        return 0;
    b->touched = 0;
    b->epoch = epoch->epoch;
    page = qr_state_find(state, b->page);
    return page ? blame_apply(b, page) : 0;
}

static int blame_report(const struct blame *b, uint64_t pruned_epoch, uint64_t offset,
                        uint64_t length,
                        int (*visit)(void *context, const struct qr_blame *run), void *context)
{
    uint64_t at = 0, end = offset + length;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < b->runs.count && at < end; i++) {
        const struct run *run = &b->runs.items[i];
        uint64_t from = at > offset ? at : offset;
        uint64_t to = at + run->length < end ? at + run->length : end;
        if (from < to) {
            struct qr_blame out = {from, to - from, run->epoch, run->epoch == pruned_epoch};
            rc = visit(context, &out);
        }
        at += run->length;
    }
    return rc;
}

static int blame_check(struct qr_store *store, uint64_t epoch, uint64_t page, uint64_t offset,
                       uint64_t length)
{
    struct qr_state *state = NULL;
    int rc = qr_store_state_at(store, epoch, &state);
    if (rc < 0)
        return rc;
    const struct qr_page *found = qr_state_find(state, page);
    if (!found)
        rc = qr_fail(QALLOW_E_PAGE_NOT_FOUND, "no page %llu in epoch %llu",
                     (unsigned long long)page, (unsigned long long)epoch);
    else if (offset > found->size || length > found->size - offset)
        rc = qr_fail(QALLOW_E_ARGUMENT,
                     "bytes %llu+%llu reach beyond the page: it has %llu in epoch %llu",
                     (unsigned long long)offset, (unsigned long long)length,
                     (unsigned long long)found->size, (unsigned long long)epoch);
    qr_state_destroy(state);
    return rc;
}

int qr_blame(struct qr_store *store, uint64_t epoch, uint64_t page, uint64_t offset,
             uint64_t length, int (*visit)(void *context, const struct qr_blame *run),
             void *context)
{
    struct blame b = {.page = page};
    struct qr_store_info info;
    int rc = blame_check(store, epoch, page, offset, length);

    qr_store_info(store, &info);
    if (rc == 0)
        rc = qr_reader_create(store, 4 << 20, &b.reader);
    if (rc == 0)
        rc = qr_query_walk(
            store, epoch,
            &(struct qr_walk){.record = blame_record, .epoch_end = blame_epoch, .context = &b});
    if (rc == 0)
        rc = blame_report(&b, info.first_epoch > 1 ? info.first_epoch : 0, offset, length, visit,
                          context);
    if (b.exists)
        qr_content_finish(&b.content);
    qr_reader_destroy(b.reader);
    qr_free(b.runs.items);
    qr_free(b.next.items);
    return rc;
}
