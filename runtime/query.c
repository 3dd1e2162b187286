/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names, and the difference of two states.
 *
 * Both states are walked by ascending page id, so a page that stayed is met on both sides at once,
 * whatever happened to its name. What is only on one side is matched by name afterwards: a name
 * that belongs to another page now is a modification, or a change of type, not a loss and a gain.
 */
#include "runtime/query.h"

#include <stdlib.h>
#include <string.h>

/* --- names --- */

struct qr_page *qr_query_lookup(const struct qr_state *state, const char *name)
{
    struct qr_page *root = qr_state_child(state, 0, ".", 1);
    struct qr_page *page = NULL;
    size_t first;

    while (name[0] == '.' && name[1] == '/')
        name += 2;
    if (root)
        page = qr_state_lookup(state, root->id, name);
    if (page)
        return page;
    first = strcspn(name, "/");
    root = qr_state_child(state, 0, name, first);
    if (!root || name[first] == '\0')
        return root;
    return qr_state_lookup(state, root->id, name + first + 1);
}

static int is_tree_root(const struct qr_page *page)
{
    return page->parent == 0 && page->name_length == 1 && page->name[0] == '.';
}

int qr_query_name(const struct qr_state *state, const struct qr_page *page, char **name,
                  size_t *length)
{
    size_t total = page->name_length;
    const struct qr_page *at = page;
    char *text;

    while (at->parent != 0) {
        at = qr_state_find(state, at->parent);
        qr_assert(at != NULL);
        if (!is_tree_root(at))
            total += at->name_length + 1u;
    }
    text = qr_malloc(total + 1);
    if (!text)
        return qr_fail(QALLOW_E_NO_MEMORY, "no memory for a name of %zu bytes", total);
    text[total] = '\0';
    if (length)
        *length = total;
    for (at = page;; at = qr_state_find(state, at->parent)) {
        qr_assert(total >= at->name_length);
        total -= at->name_length;
        memcpy(text + total, at->name, at->name_length);
        if (total == 0)
            break;
        text[--total] = '/';
    }
    *name = text;
    return 0;
}

int qr_query_walk(struct qr_store *store, uint64_t to, const struct qr_walk *how)
{
    struct qr_state *state = NULL;
    struct qr_store_info info;
    struct qr_epoch first;
    int rc;

    qr_store_info(store, &info);
    if (info.first_epoch == 0 || to < info.first_epoch)
        return 0;
    rc = qr_store_state_at(store, info.first_epoch, &state);
    if (rc == 0)
        rc = qr_store_epoch(store, info.first_epoch, &first);
    if (rc == 0)
        rc = how->epoch_end(how->context, &first, state);
    qr_state_destroy(state);
    if (rc == 0 && to > info.first_epoch) {
        struct qr_walk walk = *how;
        walk.from = info.first_epoch + 1;
        walk.to = to;
        walk.with_state = 1;
        rc = qr_store_walk(store, &walk);
    }
    return rc;
}

struct find {
    const char *name;
    uint64_t epoch, page;
};

static int find_at_end(void *context, const struct qr_epoch *epoch, const struct qr_state *state)
{
    struct find *find = context;
    const struct qr_page *page = qr_query_lookup(state, find->name);
    if (page) {
        find->epoch = epoch->epoch;
        find->page = page->id;
    }
    return 0;
}

int qr_query_find(struct qr_store *store, const char *name, uint64_t *epoch, uint64_t *page)
{
    struct qr_state *state = NULL;
    struct find find = {.name = name};
    int rc = qr_store_state_at(store, *epoch, &state);

    if (rc < 0)
        return rc;
    const struct qr_page *present = qr_query_lookup(state, name);
    if (present)
        find = (struct find){name, *epoch, present->id};
    qr_state_destroy(state);
    if (find.page == 0)
        rc = qr_query_walk(store, *epoch,
                           &(struct qr_walk){.epoch_end = find_at_end, .context = &find});
    if (rc == 0 && find.page == 0)
        rc = qr_fail(QALLOW_E_PAGE_NOT_FOUND, "%s: no page was ever named %s up to epoch %llu",
                     qr_store_path(store), qr_quotez(name), (unsigned long long)*epoch);
    *epoch = find.epoch;
    *page = find.page;
    return rc;
}

/* --- differences of states --- */

struct entry {
    struct qr_difference d;
    char *name, *old_name; /* owned; old_name only for R */
};

struct differences {
    struct qr_reader *reader;
    const struct qr_state *a, *b;
    struct entry *items;
    size_t count, capacity;
};

static int stop_at_first(void *context, const struct qr_change *change) { return 1; }

/* 1 if the contents differ, 0 if not, or an error. */
static int content_differs(struct qr_reader *reader, const struct qr_page *a,
                           const struct qr_page *b)
{
    struct qr_content old = {0}, new = {0};
    int rc;

    if (a->size != b->size)
        return 1;
    rc = qr_content_init(&old, a);
    if (rc == 0)
        rc = qr_content_init(&new, b);
    if (rc == 0)
        rc = qr_content_diff(reader, &old, &new, 1, stop_at_first, NULL);
    qr_content_finish(&old);
    qr_content_finish(&new);
    return rc;
}

unsigned qr_query_attributes(const struct qr_page *a, const struct qr_page *b)
{
    unsigned flags = 0;
    if (a->mode != b->mode)
        flags |= QR_DIFF_MODE;
    if (a->mtime_ns != b->mtime_ns)
        flags |= QR_DIFF_MTIME;
    if (a->extra_length != b->extra_length ||
        (a->extra_length > 0 && memcmp(a->extra, b->extra, a->extra_length) != 0))
        flags |= QR_DIFF_EXTRA;
    return flags;
}

/* Flags of what differs between two pages of one kind, or an error. */
static int compare_pages(struct differences *all, const struct qr_page *a, const struct qr_page *b)
{
    int differs = content_differs(all->reader, a, b);
    if (differs < 0)
        return differs;
    return (int)qr_query_attributes(a, b) | (differs ? QR_DIFF_CONTENT : 0);
}

static int add(struct differences *all, char status, unsigned flags, const struct qr_page *a,
               const struct qr_page *b)
{
    struct entry *entry;
    int rc;

    if (QR_GROW(all->items, all->count, all->capacity) < 0)
        return QALLOW_E_NO_MEMORY;
    entry = &all->items[all->count];
    *entry = (struct entry){.d = {.status = status, .flags = flags, .a = a, .b = b}};
    rc = b ? qr_query_name(all->b, b, &entry->name, &entry->d.name_length)
           : qr_query_name(all->a, a, &entry->name, &entry->d.name_length);
    if (rc == 0 && status == 'R')
        rc = qr_query_name(all->a, a, &entry->old_name, &entry->d.old_name_length);
    if (rc < 0) {
        qr_free(entry->name);
        return rc;
    }
    all->count++;
    return 0;
}

/* A page on both sides. */
static int add_common(struct differences *all, const struct qr_page *a, const struct qr_page *b)
{
    int renamed = a->parent != b->parent || a->name_length != b->name_length ||
                  memcmp(a->name, b->name, a->name_length) != 0;
    int flags = compare_pages(all, a, b);

    if (flags < 0)
        return flags;
    if (renamed)
        return add(all, 'R', (unsigned)flags | QR_DIFF_NAME, a, b);
    if (flags == 0 || (flags == QR_DIFF_MTIME && b->kind == QR_KIND_DIRECTORY))
        return 0;
    return add(all, 'M', (unsigned)flags, a, b);
}

static int by_name(const void *x, const void *y)
{
    const struct entry *a = x, *b = y;
    size_t n = a->d.name_length < b->d.name_length ? a->d.name_length : b->d.name_length;
    int order = memcmp(a->name, b->name, n);
    if (order != 0)
        return order;
    if (a->d.name_length != b->d.name_length)
        return a->d.name_length < b->d.name_length ? -1 : 1;
    return a->d.status < b->d.status ? 1 : a->d.status > b->d.status ? -1 : 0; /* D before A */
}

static int collect(struct differences *all)
{
    const struct qr_page *a = qr_state_next_page(all->a, 0), *b = qr_state_next_page(all->b, 0);
    int rc = 0;

    while (rc == 0 && (a || b)) {
        if (!b || (a && a->id < b->id)) {
            rc = add(all, 'D', 0, a, NULL);
            a = qr_state_next_page(all->a, a->id);
        } else if (!a || b->id < a->id) {
            rc = add(all, 'A', 0, NULL, b);
            b = qr_state_next_page(all->b, b->id);
        } else {
            rc = add_common(all, a, b);
            a = qr_state_next_page(all->a, a->id);
            b = qr_state_next_page(all->b, b->id);
        }
    }
    return rc;
}

/* A deleted and an added page of one name are one change of that name. Sorted input. */
static int merge_by_name(struct differences *all)
{
    for (size_t i = 0; i + 1 < all->count; i++) {
        struct entry *gone = &all->items[i], *come = &all->items[i + 1];
        if (gone->d.status != 'D' || come->d.status != 'A' || strcmp(gone->name, come->name) != 0)
            continue;
        come->d.a = gone->d.a;
        come->d.status = 'T';
        if (gone->d.a->kind == come->d.b->kind) {
            int flags = compare_pages(all, gone->d.a, come->d.b);
            if (flags < 0)
                return flags;
            come->d.status = 'M';
            come->d.flags = (unsigned)flags;
        }
        gone->d.status = 0; /* skipped by the visitor */
    }
    return 0;
}

int qr_diff_states(struct qr_reader *reader, const struct qr_state *a, const struct qr_state *b,
                   int (*visit)(void *context, const struct qr_difference *difference),
                   void *context)
{
    struct differences all = {.reader = reader, .a = a, .b = b};
    int rc = collect(&all);

    if (rc == 0 && all.count > 0)
        qsort(all.items, all.count, sizeof *all.items, by_name);
    if (rc == 0)
        rc = merge_by_name(&all);
    for (size_t i = 0; rc == 0 && i < all.count; i++) {
        struct entry *entry = &all.items[i];
        entry->d.name = entry->name;
        entry->d.old_name = entry->old_name ? entry->old_name : entry->name;
        if (!entry->old_name)
            entry->d.old_name_length = entry->d.name_length;
        if (entry->d.status == 0 || (entry->d.status == 'M' && entry->d.flags == 0))
            continue;
        rc = visit(context, &entry->d);
    }
    for (size_t i = 0; i < all.count; i++) {
        qr_free(all.items[i].name);
        qr_free(all.items[i].old_name);
    }
    qr_free(all.items);
    return rc;
}
